//! The nouns of a migration as plain types.
//!
//! Everything here is a value: no clock, no randomness, no tasks and no I/O, so that the rules written over
//! these types (the merge rule, the fold, the chunk plan) can be tested as tables and driven by a simulation.
//! Deliberately absent: anything that knows a database engine. A [`Position`] is made and read by the
//! connector that owns it; everybody else compares it.

mod catalog;
mod change;
mod chunk;
mod cut;
mod key;
pub mod mutant;
mod position;
#[cfg(test)]
mod properties;
mod transaction;
mod value;
pub mod xid;

pub use catalog::{Catalog, Column, Identity, Kind, Sequence, Table, TableName, Unique};
pub use change::{Change, Relation, RelationColumn, RelationId};
pub use chunk::{Chunk, Loaded, Range};
pub use cut::{Cut, Snapshot};
pub use key::{Key, KeyOrder};
pub use position::Position;
pub use transaction::Transaction;
pub use value::{Row, Value};
