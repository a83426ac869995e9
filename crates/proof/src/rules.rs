//! Every rule that can be removed, where it is watched, and how it is taken away.
//!
//! A rule that is decided in a pure function of the product is removed there, by `model::mutant`; one that the product
//! keeps in asynchronous code is removed in the model, by its name.

use model::mutant::{self, Mutant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One line of the product is wrong.
    Product(Mutant),
    /// The model leaves something out that the product does.
    Protocol { name: &'static str, without: &'static str },
}

impl Rule {
    pub fn name(&self) -> &'static str {
        match self {
            Rule::Product(mutant) => mutant.name,
            Rule::Protocol { name, .. } => name,
        }
    }

    /// What to switch on in the product to remove it.
    pub fn mutant(&self) -> Option<Mutant> {
        match self {
            Rule::Product(mutant) => Some(*mutant),
            Rule::Protocol { .. } => None,
        }
    }

    /// What goes wrong without it.
    pub fn does(&self) -> &'static str {
        match self {
            Rule::Product(mutant) => mutant.does,
            Rule::Protocol { without, .. } => without,
        }
    }
}

const fn protocol(name: &'static str, without: &'static str) -> Rule {
    Rule::Protocol { name, without }
}

/// Removed one at a time from [`crate::merge::Merge`].
pub const MERGE: &[Rule] = &[
    Rule::Product(mutant::CUT_IGNORES_RUNNING),
    Rule::Product(mutant::CUT_INCLUDES_NEXT),
    Rule::Product(mutant::XID_KEEPS_EPOCH),
    Rule::Product(mutant::MERGE_CHUNK_WINS),
    Rule::Product(mutant::MERGE_RANGE_END),
    Rule::Product(mutant::MERGE_MOVE_LEAVES_OLD),
    Rule::Product(mutant::MERGE_MOVE_WITHOUT_FETCH),
    Rule::Product(mutant::MERGE_FORGETS_ROW_CUT),
    Rule::Product(mutant::MERGE_TRUNCATE_ALL),
    Rule::Product(mutant::FOLD_WRITES_UNCHANGED),
    Rule::Product(mutant::FOLD_FORGETS_ORIGIN),
    Rule::Product(mutant::FOLD_FORGETS_DELETE),
    Rule::Product(mutant::PLAN_OVERLOOKS_HOLE),
    protocol("cut-not-position", "a chunk's cut is the end of the log when it was read"),
    protocol("row-cut-not-position", "a fetched row's cut is the end of the log when it was read"),
    protocol("prepared-when-visible", "capture begins after a commit that no snapshot shows yet"),
    protocol("drop-early", "transactions that are captured before the copy ends are dropped unasked"),
    protocol("ledger-with-rows", "a chunk is put on record after its rows, in a transaction of its own"),
    protocol("row-cut-with-row", "a row's cut is put on record after the row, in a transaction of its own"),
    protocol("progress-with-data", "the progress is recorded after the data, in a transaction of its own"),
    protocol("one-cut", "a table by blocks that was interrupted goes on under another cut"),
    protocol("rewrite-noticed", "a table that was rewritten under the cut reads as empty"),
    protocol(
        "fetch-notices-rewrite",
        "a row is not there if its table was emptied between the fetch's cut and its read",
    ),
    protocol("settled-first", "the schema is finished and the cuts are dropped before they are passed"),
    protocol("row-cuts-settled", "fetched rows' cuts do not count when it is asked whether all are passed"),
];

/// Removed one at a time from [`crate::apply::Apply`].
pub const APPLY: &[Rule] = &[
    protocol("acknowledge-after-fsync", "the source may free what the journal has not fsynced"),
    protocol("publish-after-fsync", "cursors read what the journal has not fsynced"),
    protocol("owner-check", "an owner takes its fsync for durable although a newer one has a segment"),
    protocol("segment-before-read", "a new owner reads the journal before it creates its segment"),
    protocol("recovered-synced", "a new owner believes what nobody has fsynced"),
    protocol("torn-tail-left-out", "a transaction without its commit is taken for a whole one"),
    protocol("torn-forgotten", "a transaction that a lost connection cut off is not forgotten"),
    protocol(
        "resumed-after-journal",
        "capture begins again where the source does, not where the journal ends",
    ),
    protocol("epoch-checked", "a commit does not ask for its owner's epoch"),
    protocol(
        "outcome-known",
        "a commit without an answer is taken for undone, and the record moves from any value",
    ),
    protocol("position-at-boundary", "the progress moves inside a transaction"),
    protocol("progress-with-data", "the progress is recorded after the data, in a transaction of its own"),
];
