//! The oracle: whether two databases hold the same rows, table by table, as multisets, in both directions.
//!
//! Shares no code with the engine and no statement with a connector: it lists the tables by itself, lets each
//! side print its rows as text, sorts them and merges. Equal rows are counted, not collapsed.
//! Not here: anything but user rows. The migration's own records (`crossfade`, `_crossfade_*`) are left out.

mod across;
mod into_mariadb;
mod mariadb;
mod merge;
mod postgres;
mod sqlite;

use std::collections::BTreeSet;
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
    use Engine::{Mariadb, Postgres, Sqlite};
    match (Engine::of(source), Engine::of(target)) {
        (Postgres, Postgres) => postgres::compare(source, target),
        (Mariadb, Mariadb) => mariadb::compare(source, target),
        (Sqlite, Sqlite) => sqlite::compare(sqlite::path(source), sqlite::path(target)),
        (Mariadb, Postgres) => across::compare(mariadb::Side::open(source), target),
        (Sqlite, Postgres) => across::compare(sqlite::open(sqlite::path(source)), target),
        (Postgres, Mariadb) => into_mariadb::compare(postgres::Elsewhere::open(source), target),
        (Sqlite, Mariadb) => into_mariadb::compare(sqlite::open(sqlite::path(source)), target),
        (Postgres | Mariadb, Sqlite) => {
            panic!("nothing migrates from a server to SQLite yet, so nothing audits it")
        }
    }
}

/// What is on the target besides the rows: differences in columns, indexes, constraints and counters, as lines that people
/// can read. For two databases of one engine, PostgreSQL or MariaDB.
pub fn compare_schema(source: &str, target: &str) -> Vec<String> {
    match (Engine::of(source), Engine::of(target)) {
        (Engine::Postgres, Engine::Postgres) => postgres::compare_schema(source, target),
        (Engine::Mariadb, Engine::Mariadb) => mariadb::compare_schema(source, target),
        _ => panic!("nothing audits the schemas of {source} and {target}"),
    }
}

enum Engine {
    Postgres,
    Mariadb,
    Sqlite,
}

impl Engine {
    fn of(url: &str) -> Engine {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => Engine::Postgres,
            Some("mariadb" | "mysql") => Engine::Mariadb,
            Some("sqlite") => Engine::Sqlite,
            _ => panic!("of which engine is {url}?"),
        }
    }
}

/// What only one of them has, as lines.
fn one_sided(source: &BTreeSet<String>, target: &BTreeSet<String>) -> Vec<String> {
    let on_source = source.difference(target).map(|one| format!("only on source: {one}"));
    let on_target = target.difference(source).map(|one| format!("only on target: {one}"));
    on_source.chain(on_target).collect()
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
