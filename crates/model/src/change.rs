//! One change of one transaction, as capture delivers it.

use crate::{Row, TableName};

/// The number under which a source's log speaks of a table; assigned by the source, valid until the next
/// [`Relation`] with the same number.
pub type RelationId = u32;

/// How the log describes a table before the first change that uses it, and again whenever that may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub id: RelationId,
    pub table: TableName,
    /// In the order of the rows that follow.
    pub columns: Vec<RelationColumn>,
    /// The log carries the whole old row (PostgreSQL: REPLICA IDENTITY FULL), not only a key.
    pub whole_old_row: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    pub name: String,
    /// The source's own number for the column's type (PostgreSQL: its oid), or 0 where it has none.
    pub type_id: u32,
    /// What narrows the type (PostgreSQL: `atttypmod`), −1 where nothing does: another one rounds or cuts values.
    pub type_modifier: i32,
    /// Part of the identity under which old rows are given.
    pub key: bool,
}

/// Rows are in the order of the relation's columns.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Insert {
        relation: RelationId,
        new: Row,
    },
    /// `old` is there when the key changed or the log carries whole old rows; cells that it does not carry
    /// are [`crate::Value::Unchanged`]. Without `old`, the key is the one in `new`.
    Update {
        relation: RelationId,
        old: Option<Row>,
        new: Row,
    },
    Delete {
        relation: RelationId,
        old: Row,
    },
    /// All tables that one statement emptied, cascaded ones included.
    Truncate {
        relations: Vec<RelationId>,
        restart_identity: bool,
    },
}

impl Change {
    /// Bytes that this change occupies in memory, for budgets.
    pub fn weight(&self) -> usize {
        let row = |row: &Row| row.iter().map(crate::Value::weight).sum::<usize>();
        match self {
            Change::Insert { new, .. } => row(new),
            Change::Update { old, new, .. } => old.as_ref().map_or(0, row) + row(new),
            Change::Delete { old, .. } => row(old),
            Change::Truncate { relations, .. } => 4 * relations.len(),
        }
    }
}
