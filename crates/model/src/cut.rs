//! What a chunk's read saw: a predicate over transactions.

use serde::{Deserialize, Serialize};

use crate::{Transaction, mutant};

/// Says of every transaction whether a chunk's read saw it.
///
/// The order of commits in a log is not the order in which they become visible, so no point in the log can
/// stand for what a PostgreSQL snapshot saw; the snapshot itself is kept instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// A PostgreSQL primary's snapshot, over top-level transaction ids with their epoch.
    Snapshot(Snapshot),
    /// Everything up to a position, where visibility follows the log: SQLite's change table, a PostgreSQL standby.
    Prefix { order: u64 },
}

/// `pg_current_snapshot()`, in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Every transaction below was over.
    pub xmin: u64,
    /// No transaction at or above had been assigned.
    pub xmax: u64,
    /// Those between that were still running; sorted.
    pub xip: Vec<u64>,
}

impl Snapshot {
    /// Parses `xmin:xmax:xip,xip,…` as `pg_current_snapshot()::text` prints it.
    pub fn parse(text: &str) -> Option<Snapshot> {
        if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':' || byte == b',') {
            return None;
        }
        let mut parts = text.split(':');
        let xmin = parts.next()?.parse().ok()?;
        let xmax = parts.next()?.parse().ok()?;
        let list = parts.next()?;
        if parts.next().is_some() {
            return None;
        }
        let mut xip: Vec<u64> =
            list.split(',').filter(|id| !id.is_empty()).map(|id| id.parse().ok()).collect::<Option<_>>()?;
        xip.sort_unstable();
        Some(Snapshot { xmin, xmax, xip })
    }

    pub fn contains(&self, id: u64) -> bool {
        if mutant::on(mutant::CUT_IGNORES_RUNNING) {
            return id < self.xmax;
        }
        if mutant::on(mutant::CUT_INCLUDES_NEXT) && id == self.xmax {
            return true;
        }
        id < self.xmin || (id < self.xmax && self.xip.binary_search(&id).is_err())
    }
}

impl Cut {
    pub fn contains(&self, transaction: &Transaction) -> bool {
        match self {
            Cut::Snapshot(snapshot) => snapshot.contains(transaction.id),
            Cut::Prefix { order } => transaction.order <= *order,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_contains_what_was_over_when_it_was_taken() {
        let snapshot = Snapshot::parse("100:105:103,100").unwrap();
        for (id, contained) in [
            (99, true),
            (100, false),
            (101, true),
            (102, true),
            (103, false),
            (104, true),
            (105, false),
            (200, false),
        ] {
            assert_eq!(snapshot.contains(id), contained, "transaction {id}");
        }
    }

    #[test]
    fn a_snapshot_without_running_transactions_parses() {
        assert_eq!(
            Snapshot::parse("4294968026:4294968026:"),
            Some(Snapshot { xmin: 4_294_968_026, xmax: 4_294_968_026, xip: vec![] })
        );
        for bad in ["", "1:2", "1:2:3:4", "1:2:x", "a:2:"] {
            assert_eq!(Snapshot::parse(bad), None, "{bad}");
        }
    }
}
