//! A status as it is shown: the part of `status.json` that people are told, live or read back from the file.
//!
//! The engine's own type holds static names and cannot be read back; going through its JSON form keeps the
//! display, the file and `crossfade status` one and the same.

use engine::Status;
use model::{Position, TableName};
use serde::Deserialize;
use serde_json::Value;

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) phase: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) applied_position: Option<Position>,
    pub(crate) lag: Lag,
    pub(crate) throughput: Throughput,
    pub(crate) eta_seconds: Option<u64>,
    pub(crate) throttle: Throttle,
    pub(crate) quarantine: Vec<Quarantined>,
    pub(crate) holds: Vec<Hold>,
    pub(crate) transactions_applied: u64,
    pub(crate) changes_applied: u64,
    pub(crate) journal_bytes: u64,
    pub(crate) retrying: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Table {
    pub(crate) name: TableName,
    pub(crate) phase: String,
    pub(crate) rows_copied: u64,
    pub(crate) rows_total: Option<u64>,
    pub(crate) bytes_copied: u64,
    pub(crate) bytes_total: u64,
    pub(crate) applied_changes: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Lag {
    pub(crate) seconds: f64,
    pub(crate) transactions: u64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Throughput {
    pub(crate) rows_per_second: f64,
    pub(crate) bytes_per_second: f64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Throttle {
    pub(crate) active: bool,
    pub(crate) reason: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Quarantined {
    pub(crate) table: TableName,
    pub(crate) position: Position,
    pub(crate) operation: String,
    pub(crate) key: String,
    pub(crate) error: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Hold {
    pub(crate) table: TableName,
}

impl View {
    pub(crate) fn of(status: &Status) -> Result<View, serde_json::Error> {
        serde_json::to_value(status).and_then(View::read)
    }

    pub(crate) fn read(status: Value) -> Result<View, serde_json::Error> {
        serde_json::from_value(status)
    }

    pub(crate) fn is_copying(&self) -> bool {
        self.phase == "copying"
    }

    pub(crate) fn rows_copied(&self) -> u64 {
        self.tables.iter().map(|table| table.rows_copied).sum()
    }

    /// The source's estimates, never less than what was copied; `None` where it has none for a table.
    pub(crate) fn rows_total(&self) -> Option<u64> {
        self.tables.iter().map(|table| Some(table.rows_total?.max(table.rows_copied))).sum()
    }
}

impl Table {
    /// How much of the table is copied, from 0 to 1: by rows, else by bytes.
    pub(crate) fn share(&self) -> f64 {
        if matches!(self.phase.as_str(), "following" | "held") {
            return 1.0;
        }
        let (part, whole) = match self.rows_total {
            Some(rows) if rows > 0 => (self.rows_copied, rows),
            _ => (self.bytes_copied, self.bytes_total),
        };
        if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The engine's form and this one may not drift apart unnoticed.
    #[test]
    fn reads_what_the_engine_writes() {
        let view = View::of(&Status::new("shop")).unwrap();
        assert_eq!((view.name.as_str(), view.phase.as_str()), ("shop", "planned"));
        assert_eq!(view.rows_total(), Some(0));
    }
}
