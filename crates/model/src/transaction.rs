//! The header of a committed source transaction.

use serde::{Deserialize, Serialize};

/// A committed transaction of the source, without its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The journal's own number: 1, 2, 3 … without gaps, in commit order. 0 before the journal has given one.
    pub seq: u64,
    /// The source's id of the transaction, as wide as its snapshots count (PostgreSQL: 64 bits, with epoch).
    pub id: u64,
    /// Where it lies in the log, comparable with [`crate::Position::order`]: at most a boundary's order exactly
    /// if the transaction lies before that boundary. (PostgreSQL: one more than
    /// the LSN at which its commit record begins, since a record can begin exactly at the boundary before it.)
    pub order: u64,
    /// Commit time by the source's clock, microseconds since 1970-01-01 UTC.
    pub committed_us: i64,
}
