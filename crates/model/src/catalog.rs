//! The tables of a side: what they are called, of which columns they consist, and how a row is told apart.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::KeyOrder;

/// A table's name. An engine without schemas (SQLite) calls its only one `main`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

impl TableName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> TableName {
        TableName { schema: schema.into(), name: name.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// What is migrated, as introspected once at the start and kept: a later difference is a schema change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// Sorted by name. Tables that hold rows: of a partitioned table its leaves.
    pub tables: Vec<Table>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub name: TableName,
    /// The number under which the source knows this table (PostgreSQL: its oid, as in [`crate::Relation::id`]), or 0 where it
    /// has none: a table that takes the name of another has another one.
    #[serde(default)]
    pub source_id: u32,
    /// In the source's column order, without dropped ones; generated ones are here and marked.
    pub columns: Vec<Column>,
    pub identity: Identity,
    /// Unique indexes other than the identity's. A copy under several cuts may break them until all cuts are settled.
    pub unique: Vec<Unique>,
    /// The partitioned table that this one is a leaf of, at the top.
    pub root: Option<TableName>,
    /// The source's estimate; `None` where it has none.
    pub rows_estimate: Option<u64>,
    pub bytes: u64,
}

/// How the source's log, and so the apply, tells one row from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// By these columns (indexes into [`Table::columns`]), unique and never NULL. `order` is there when the
    /// client can order keys exactly as the server does, which allows chunks by key range.
    Key { columns: Vec<usize>, order: Option<Vec<KeyOrder>> },
    /// By the whole row; equal rows may exist, and a change concerns exactly one of them.
    WholeRow,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    pub name: String,
    /// Indexes into [`Table::columns`]; empty for an index over expressions or under a condition.
    pub columns: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// The source engine's own name of the type, with its modifiers.
    pub type_name: String,
    /// As in [`crate::RelationColumn::type_id`].
    pub type_id: u32,
    /// As in [`crate::RelationColumn::type_modifier`].
    #[serde(default = "no_modifier")]
    pub type_modifier: i32,
    /// The number under which the source knows this column (PostgreSQL: `attnum`), or 0: a column that takes the name of
    /// another has another one.
    #[serde(default)]
    pub number: u32,
    pub kind: Kind,
    pub nullable: bool,
    /// Computed by the database: never copied, never applied.
    pub generated: bool,
}

fn no_modifier() -> i32 {
    -1
}

/// What a type means across engines. Within one engine the native type is used and this is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Integer,
    /// An integer of 64 bits without a sign, as text.
    Unsigned,
    Real,
    Numeric,
    Boolean,
    Text,
    Blob,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Json,
    Uuid,
    /// Only its own engine knows it.
    Native,
}

/// A number generator, with the next values that it has not yet given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    pub name: TableName,
    pub last_value: i64,
    /// Whether `last_value` has been given out already.
    pub is_called: bool,
}

impl Table {
    /// The columns that are copied and applied: all but the generated ones, as indexes into `columns`.
    pub fn stored(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.iter().enumerate().filter(|(_, column)| !column.generated).map(|(at, _)| at)
    }

    pub fn key(&self) -> Option<&[usize]> {
        match &self.identity {
            Identity::Key { columns, .. } => Some(columns),
            Identity::WholeRow => None,
        }
    }

    pub fn key_order(&self) -> Option<&[KeyOrder]> {
        match &self.identity {
            Identity::Key { order, .. } => order.as_deref(),
            Identity::WholeRow => None,
        }
    }
}

impl Catalog {
    pub fn table(&self, name: &TableName) -> Option<&Table> {
        self.position(name).map(|at| &self.tables[at])
    }

    /// A table's index.
    pub fn position(&self, name: &TableName) -> Option<usize> {
        self.tables.binary_search_by(|table| table.name.cmp(name)).ok()
    }
}
