//! What must hold at every step of a history, whatever happens; one file for each way of looking.

mod effect;
mod equal;
pub(crate) mod memory;
mod prefix;
pub(crate) mod progress;

use connector::Progress;
use model::Position;

use crate::history::History;
use crate::source::Source;
use crate::tables::Row;
use crate::target::{Refused, Target};
use crate::world::Inner;

/// The invariants. Their ids are the same in documents, stories and tables.
pub mod invariant {
    /// At the end the target has every row of the source.
    pub const NO_ROW_LOST: &str = "no-row-lost";
    /// At the end the target has no other row.
    pub const NO_ROW_INVENTED: &str = "no-row-invented";
    /// Once all cuts are passed, every committed state of the target is one that the source's log passed through.
    pub const PREFIX: &str = "prefix-of-source";
    /// A row on the target is never replaced by an older version of itself, nor written twice by one change.
    pub const NEVER_OLDER: &str = "never-older";
    /// No column of a row is written that the log did not carry.
    pub const NO_PLACEHOLDER: &str = "no-placeholder";
    /// What the source was told that it may forget is in the journal and survives any crash.
    pub const ACKNOWLEDGED_IS_DURABLE: &str = "acknowledged-is-durable";
    /// The target's progress is covered by the journal that survives any crash.
    pub const PROGRESS_IS_DURABLE: &str = "progress-is-durable";
    /// The progress only goes forward.
    pub const PROGRESS_FORWARD: &str = "progress-forward";
    /// Only the newest owner's acknowledgements and commits take effect.
    pub const ONE_OWNER: &str = "one-owner";
    /// A run that says that it has caught up has everything that was committed when it was asked.
    pub const CAUGHT_UP: &str = "caught-up-means-it";
    /// What is held in memory for the target stays within its budget.
    pub const BOUNDED_MEMORY: &str = "bounded-memory";
    /// Two open transactions of the target never touch the same row, whatever is committed between them.
    pub const LANES_APART: &str = "lanes-apart";
    /// No stop and no refused change without a cause in the history.
    pub const NO_FALSE_ALARM: &str = "no-false-alarm";
    /// Every history comes to its end.
    pub const NEVER_STUCK: &str = "never-stuck";
}

/// A broken invariant.
#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
    pub moment: u64,
}

/// What the checks know of the history so far.
#[derive(Debug)]
pub(crate) struct Checks {
    /// The first one; what follows from it says little.
    pub violation: Option<Violation>,
    effects: effect::Effects,
    shadow: prefix::Shadow,
    /// Every transaction that any cut contains lies at or before this.
    settled: u64,
    pub slice_bound: usize,
}

impl Checks {
    pub(crate) fn new(history: &History, source: &Source) -> Checks {
        Checks {
            violation: None,
            effects: effect::Effects::new(&history.shapes),
            shadow: prefix::Shadow::new(source),
            settled: 0,
            slice_bound: memory::bound(history.tuning.slice_bytes),
        }
    }

    pub(crate) fn violated(&mut self, invariant: &'static str, what: String, moment: u64) {
        self.violation.get_or_insert(Violation { invariant, what, moment });
    }

    /// The target was put back by an operator: what it has now is what counts.
    pub(crate) fn restored(&mut self, target: &Target) {
        self.effects.restart(&target.tables);
        self.shadow.restart();
    }
}

impl Inner {
    /// The target commits applied changes.
    pub(crate) fn applied(&mut self, next: Target, written: &[(usize, Row)]) {
        let progress = next.progress.clone();
        self.tell(|| format!("applied up to {}: {written:?}", shown(progress.as_ref())));
        let before = self.target.progress.clone();
        let held = self.held(&next);
        if let Err(what) = self.checks.effects.written(written) {
            self.violated(invariant::NEVER_OLDER, what);
        }
        self.target = next;
        self.remember();
        self.progress_moved(before.as_ref());
        self.compare_with_prefix(&held);
    }

    fn held(&self, target: &Target) -> Vec<usize> {
        let is_held = |at: &usize| target.holds.iter().any(|hold| hold.table == crate::tables::name(*at));
        (0..self.shapes.len()).filter(is_held).collect()
    }

    /// The target commits a chunk.
    pub(crate) fn loaded(&mut self, next: Target, table: usize, rows: &[Row]) {
        self.checks.effects.loaded(table, rows);
        let settled = next.ledger.last().map_or(0, |loaded| loaded.settled.order);
        self.checks.settled = self.checks.settled.max(settled);
        self.target = next;
        self.remember();
    }

    /// The target commits a row that was fetched alone.
    pub(crate) fn fetched(&mut self, table: usize, id: i64, row: Option<Row>) {
        self.checks.settled = self.checks.settled.max(self.source.end);
        self.checks.effects.forget(table, id);
        self.checks.effects.loaded(table, row.as_slice());
    }

    /// The target commits an emptied table.
    pub(crate) fn emptied(&mut self, next: Target, table: usize) {
        self.checks.effects.emptied(table);
        self.target = next;
        self.remember();
    }

    /// The target refuses a change.
    pub(crate) fn refused(&mut self, refused: &Refused) {
        if refused.reason.contains("placeholder") {
            self.violated(invariant::NO_PLACEHOLDER, format!("in t{}", refused.table));
        } else if !refused.constraint && !self.restored && !self.failed_over {
            self.violated(
                invariant::NO_FALSE_ALARM,
                format!("t{}: {}, and nobody else writes there", refused.table, refused.reason),
            );
        }
    }
}

fn shown(progress: Option<&Progress>) -> String {
    let position = |position: &Position| position.text.clone();
    progress.map_or_else(String::new, |progress| format!("{} {}", progress.seq, position(&progress.position)))
}
