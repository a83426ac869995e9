//! The oracle: whether two databases hold the same rows, table by table, as multisets, in both directions.
//!
//! Shares no code with the engine and no statement with a connector: it lists the tables by itself, lets each
//! side print its rows as text, sorts them and merges. Equal rows are counted, not collapsed.
//! Not here: anything but user rows. The migration's own records (`crossfade`, `_crossfade_*`) are left out.

mod across;
mod mariadb;
mod merge;
mod postgres;
mod sqlite;

use std::fmt;

pub use merge::{Difference, Side};

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Report {
    pub tables: Vec<Table>,
}

#[derive(Debug)]
pub struct Table {
    pub name: String,
    pub rows_source: u64,
    pub rows_target: u64,
    pub differences: u64,
    /// The first few.
    pub examples: Vec<Difference>,
}

/// Compares two databases by their URLs: `postgres://…`, `mariadb://…` and `sqlite:path`.
pub fn compare(source: &str, target: &str) -> Report {
    if let Some(source) = mariadb::Side::open(source) {
        return across::compare(source, target);
    }
    match (sqlite::path(source), sqlite::path(target)) {
        (None, None) => postgres::compare(source, target),
        (Some(source), Some(target)) => sqlite::compare(source, target),
        (Some(source), None) => across::compare(sqlite::open(source), target),
        (None, Some(_)) => panic!("nothing migrates from PostgreSQL to SQLite yet, so nothing audits it"),
    }
}

/// What is on the target besides the rows: differences in indexes, constraints, triggers and sequences, as
/// lines that people can read. PostgreSQL only.
pub fn compare_schema(source: &str, target: &str) -> Vec<String> {
    postgres::compare_schema(source, target)
}

impl Report {
    pub fn differences(&self) -> u64 {
        self.tables.iter().map(|table| table.differences).sum()
    }

    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows_source).sum()
    }

    #[track_caller]
    pub fn assert_equal(&self) {
        assert!(!self.tables.is_empty(), "the auditor found no table to compare");
        assert_eq!(self.differences(), 0, "source and target differ\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            let Table { name, rows_source, rows_target, differences, .. } = table;
            writeln!(f, "{name}: {rows_source} rows, target {rows_target}, differences {differences}")?;
            table.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))?;
        }
        Ok(())
    }
}
