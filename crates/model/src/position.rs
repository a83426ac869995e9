//! A point in a source's log that lies between two committed transactions.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A committed transaction boundary in one source's log.
///
/// `order` is what compares: totally ordered for one source, meaningless between sources. `text` is the
/// connector's own form, shown to people and parsed by nobody else.
/// Only boundaries are positions: a record inside a transaction may share its number with another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Position {
    pub order: u64,
    pub text: String,
}

impl PartialEq for Position {
    fn eq(&self, other: &Position) -> bool {
        self.order == other.order
    }
}

impl Eq for Position {}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Position) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Position) -> Ordering {
        self.order.cmp(&other.order)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
