//! Sabotages of single rules, so that the simulation and the model checker can show that each rule is watched.
//!
//! Each is one line at the place whose rule it breaks: `if mutant::on(mutant::CUT_IGNORES_RUNNING) { … }`. Without the
//! feature `mutants`, which only the proofs switch on, [`on`] is `false` at compile time.

/// A rule that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    pub name: &'static str,
    /// What the code does wrong while it is on.
    pub does: &'static str,
}

macro_rules! mutants {
    ($($constant:ident = $name:literal: $does:literal;)*) => {
        $(pub const $constant: Mutant = Mutant { name: $name, does: $does };)*
        /// Every one, so that none is forgotten.
        pub const ALL: &[Mutant] = &[$($constant),*];
    };
}

mutants! {
    CUT_IGNORES_RUNNING = "cut-ignores-running":
        "a cut takes transactions that were still running for seen";
    CUT_INCLUDES_NEXT = "cut-includes-next":
        "a cut takes the first transaction after it for seen";
    XID_KEEPS_EPOCH = "xid-keeps-epoch":
        "a wire transaction id is widened by the epoch of the reference, not by the nearest";
    MERGE_BY_POSITION = "merge-by-position":
        "changes that lie before a chunk's position in the log are dropped unasked";
    MERGE_CHUNK_WINS = "merge-chunk-wins":
        "an update of a row that a chunk holds is skipped";
    MERGE_RANGE_END = "merge-range-end":
        "a key that ends a chunk's range is judged by the next chunk's cut";
    MERGE_MOVE_LEAVES_OLD = "merge-move-leaves-old":
        "the copy of a moved row under its old key is left";
    MERGE_MOVE_WITHOUT_FETCH = "merge-move-without-fetch":
        "a moved row that the log gives in part is inserted without its large value";
    MERGE_FORGETS_ROW_CUT = "merge-forgets-row-cut":
        "a row that was fetched alone is judged by its chunk's cut";
    MERGE_TRUNCATE_ALL = "merge-truncate-all":
        "TRUNCATE empties rows that were read after it";
    FOLD_WRITES_UNCHANGED = "fold-writes-unchanged":
        "folding lets an unchanged value overwrite the value before it";
    FOLD_FORGETS_ORIGIN = "fold-forgets-origin":
        "a row that moved and was deleted is not deleted where the target has it";
    FOLD_FORGETS_DELETE = "fold-forgets-delete":
        "a key that is deleted and inserted again is only inserted";
    PLAN_OVERLOOKS_HOLE = "plan-overlooks-hole":
        "a hole between loaded key ranges is taken for loaded";
    COPY_KEEPS_TORN_TABLE = "copy-keeps-torn-table":
        "a table that was interrupted under one cut goes on under another";
    COPY_BELIEVES_MEMORY = "copy-believes-memory":
        "after a lost connection the ledger in memory is believed";
    CAPTURE_ACKNOWLEDGES_EARLY = "capture-acknowledges-early":
        "the source may free its log before the journal has it on disk";
    CAPTURE_KEEPS_TORN = "capture-keeps-torn":
        "a transaction that was cut off by a lost connection is not forgotten";
    CAPTURE_RESUMES_UNSYNCED = "capture-resumes-unsynced":
        "after a lost connection the log is asked for from before what is waiting for its fsync";
    CAPTURE_IDLE_INSIDE = "capture-idle-inside":
        "a quiet position is taken inside an open transaction";
    CAPTURE_TAKES_TWICE = "capture-takes-twice":
        "a transaction that is delivered again is journaled again";
    JOURNAL_OLD_OWNER_WRITES = "journal-old-owner-writes":
        "an owner that was taken over goes on journaling and acknowledging";
    JOURNAL_TRIMS_ONE_MORE = "journal-trims-one-more":
        "a segment is deleted while its last transaction is needed";
    JOURNAL_TRIMS_HELD = "journal-trims-held":
        "the changes of a table that is held back are deleted";
    LANES_OVERLAP = "lanes-overlap":
        "a group is written beside an uncommitted one that touches the same rows";
    LANES_TEAR_MOVES = "lanes-tear-moves":
        "of rows that exchange their keys some are written before their turn";
    LANES_COMMIT_EARLY = "lanes-commit-early":
        "a group is committed before its turn";
    APPLY_POSITION_INSIDE = "apply-position-inside":
        "the progress moves with every slice, also inside a transaction";
    APPLY_RESUMES_AT_LAST = "apply-resumes-at-last":
        "after a restart the last applied transaction is applied again";
    APPLY_GUESSES_OUTCOME = "apply-guesses-outcome":
        "a commit whose answer was lost is taken for undone";
    APPLY_SETTLES_EARLY = "apply-settles-early":
        "the cuts are dropped once everything captured so far is applied";
    APPLY_SETTLES_HELD = "apply-settles-held":
        "the cuts are dropped while held changes still need them";
    APPLY_SKIPS_REFUSED = "apply-skips-refused":
        "after a refused change its table goes on";
    // What the simulation found, undone again.
    PLAN_MIXES_CUTS = "plan-mixes-cuts":
        "block ranges of two cuts are taken for one table's";
    JOURNAL_FOLLOWS_NAMES = "journal-follows-names":
        "a segment that an owner wrote after it was taken over is read again";
    JOURNAL_ZERO_FORMAT = "journal-zero-format":
        "a torn head is taken for another program's";
    APPLY_BELIEVES_MEMORY = "apply-believes-memory":
        "a new session does not look at what is on record";
    APPLY_FETCHES_BLINDLY = "apply-fetches-blindly":
        "a row fetched alone is written to a target that was put back";
    APPLY_SETTLES_BLINDLY = "apply-settles-blindly":
        "a target that was put back is told that it has everything";
    RUN_ENDS_UNASKED = "run-ends-unasked":
        "what another server said that took over unseen is believed";
    APPLY_FORGETS_HOLD = "apply-forgets-hold":
        "a hold is forgotten in memory and stays on record";
}

#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn on(_mutant: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
mod switch {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{ALL, Mutant};

    /// One more than the index in [`ALL`]; 0 for none. One for the whole process: a run is about one mutant.
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);

    pub fn on(mutant: Mutant) -> bool {
        match ACTIVE.load(Ordering::Relaxed) {
            0 => false,
            active => ALL[active - 1].name == mutant.name,
        }
    }

    /// Switches this one on and every other one off.
    pub fn activate(mutant: Option<Mutant>) {
        let at = mutant.and_then(|mutant| ALL.iter().position(|other| *other == mutant));
        ACTIVE.store(at.map_or(0, |at| at + 1), Ordering::Relaxed);
    }
}

#[cfg(feature = "mutants")]
pub use switch::{activate, on};
