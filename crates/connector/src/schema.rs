//! A schema in its engine's own words, for moves within one engine.

use serde::{Deserialize, Serialize};

/// DDL that only a writer of the same dialect runs; between engines the writer builds tables from the catalog.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NativeSchema {
    /// `postgres`, `sqlite`.
    pub dialect: String,
    /// Everything that must exist before the first row: schemas, types, functions, tables, sequences.
    pub before: String,
    /// What tells rows apart (primary keys, replica identity indexes): after the copy and before the first
    /// applied change, which finds its row by it.
    pub keys: Vec<SchemaItem>,
    /// Everything else (secondary and unique indexes, constraints, foreign keys, triggers, views that need
    /// them), in an order that works: once all cuts are settled, because between two cuts a unique value or a
    /// reference may be seen twice or not at all.
    pub after: Vec<SchemaItem>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaItem {
    /// `INDEX`, `FK CONSTRAINT`, `TRIGGER` …
    pub kind: String,
    /// Unique among the items of its kind.
    pub name: String,
    pub sql: String,
}
