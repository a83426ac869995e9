//! The header of a committed source transaction.

use serde::{Deserialize, Serialize};

use crate::Position;

/// A committed transaction of the source, without its changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The journal's own number: 1, 2, 3 … without gaps, in commit order.
    pub seq: u64,
    /// The source's id of the transaction, as wide as its snapshots count (PostgreSQL: 64 bits, with epoch).
    pub id: u64,
    /// The boundary right after this transaction.
    pub position: Position,
    /// Commit time by the source's clock, microseconds since 1970-01-01 UTC.
    pub committed_us: i64,
}
