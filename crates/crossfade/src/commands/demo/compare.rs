//! Whether two SQLite files hold the same rows.
//!
//! Plain SQL over both files, in both directions, by value and by storage class. It shares nothing with the
//! migration: not its list of tables, not its way of reading, not its idea of equality.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

/// One table, on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Compared {
    pub(crate) table: String,
    pub(crate) rows_source: u64,
    pub(crate) rows_target: u64,
    /// Rows that no row of the other side equals; a changed row counts on both sides.
    pub(crate) only_in_source: u64,
    pub(crate) only_in_target: u64,
}

impl Compared {
    pub(crate) fn differences(&self) -> u64 {
        self.only_in_source.max(self.only_in_target).max(self.rows_source.abs_diff(self.rows_target))
    }
}

pub(crate) fn compare(source: &Path, target: &Path) -> rusqlite::Result<Vec<Compared>> {
    let both = Connection::open_in_memory()?;
    for (path, side) in [(source, "source"), (target, "target")] {
        both.execute("ATTACH ?1 AS ?2", [&*path.to_string_lossy(), side])?;
    }
    let names: BTreeSet<String> =
        tables(&both, "source")?.into_iter().chain(tables(&both, "target")?).collect();
    names.into_iter().map(|table| one(&both, table)).collect()
}

/// How many rows of the application a file holds at this moment.
pub(crate) fn rows(path: &Path) -> rusqlite::Result<u64> {
    // Looking may not create the file.
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    tables(&database, "main")?
        .iter()
        .map(|table| number(&database, &format!("SELECT count(*) FROM {}", identifier(table))))
        .sum()
}

fn one(both: &Connection, table: String) -> rusqlite::Result<Compared> {
    let (columns_source, columns_target) =
        (columns(both, "source", &table)?, columns(both, "target", &table)?);
    let count = |side: &str, columns: &[String]| match columns {
        [] => Ok(0),
        _ => number(both, &format!("SELECT count(*) FROM {side}.{}", identifier(&table))),
    };
    let (rows_source, rows_target) = (count("source", &columns_source)?, count("target", &columns_target)?);
    let (only_in_source, only_in_target) = if columns_source == columns_target {
        let rows = |side: &str| {
            // quote() tells 1 from 1.0, 'a' from X'61' and NULL from '', and shows a float exactly. The count
            // makes the sets of EXCEPT into multisets.
            let cells: Vec<String> =
                columns_source.iter().map(|column| format!("quote({})", identifier(column))).collect();
            let cells = cells.join(", ");
            format!("SELECT {cells}, count(*) FROM {side}.{} GROUP BY {cells}", identifier(&table))
        };
        let only = |one: &str, other: &str| {
            number(both, &format!("SELECT count(*) FROM ({} EXCEPT {})", rows(one), rows(other)))
        };
        (only("source", "target")?, only("target", "source")?)
    } else {
        // Another shape: no row can be equal. A table that is missing and empty is still one difference.
        (rows_source.max(1), rows_target)
    };
    Ok(Compared { table, rows_source, rows_target, only_in_source, only_in_target })
}

/// Of the application: neither SQLite's own nor the migration's records.
fn tables(both: &Connection, side: &str) -> rusqlite::Result<Vec<String>> {
    both.prepare(&format!(
        "SELECT name FROM {side}.sqlite_schema
         WHERE type = 'table' AND name NOT GLOB 'sqlite_*' AND name NOT GLOB '_crossfade_*'"
    ))?
    .query_map([], |row| row.get(0))?
    .collect()
}

fn columns(both: &Connection, side: &str, table: &str) -> rusqlite::Result<Vec<String>> {
    both.prepare("SELECT name FROM pragma_table_xinfo(?1, ?2)")?
        .query_map([table, side], |row| row.get(0))?
        .collect()
}

fn number(both: &Connection, sql: &str) -> rusqlite::Result<u64> {
    both.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row a kind of difference: what the two sides hold, and how many rows are seen to differ.
    #[test]
    fn no_difference_escapes() {
        let folder = std::env::temp_dir().join(format!("crossfade-compare-{}", std::process::id()));
        for (case, (source, target, differences)) in [
            ("(1, 'a')", "(1, 'a')", 0),
            ("(1, 'a'), (2, 'b')", "(1, 'a')", 1),
            ("(1, 'a')", "(1, 'a'), (2, 'b')", 1),
            ("(1, 'a')", "(1, 'b')", 1),
            ("(1, 1)", "(1, 1.0)", 1),
            ("(1, 'a')", "(1, x'61')", 1),
            ("(1, NULL)", "(1, '')", 1),
            ("(1, NULL)", "(1, NULL)", 0),
            ("(1, 0.1)", "(1, 0.1)", 0),
            ("(1, 0.30000000000000004)", "(1, 0.3)", 1),
            ("(1, 'a'), (1, 'a'), (2, 'b')", "(1, 'a'), (2, 'b'), (2, 'b')", 2),
        ]
        .into_iter()
        .enumerate()
        {
            std::fs::create_dir_all(&folder).unwrap();
            let file = |side: &str, rows: &str| {
                let path = folder.join(format!("{side}-{case}.db"));
                let database = Connection::open(&path).unwrap();
                let sql =
                    format!("CREATE TABLE \"a \"\"t\" (id, value); INSERT INTO \"a \"\"t\" VALUES {rows}");
                database.execute_batch(&sql).unwrap();
                path
            };
            let compared = compare(&file("source", source), &file("target", target)).unwrap();
            assert_eq!(compared[0].differences(), differences, "{source} against {target}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_missing_table_is_a_difference() {
        let folder = std::env::temp_dir().join(format!("crossfade-compare-missing-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (source, target) = (folder.join("source.db"), folder.join("target.db"));
        Connection::open(&source).unwrap().execute_batch("CREATE TABLE t (id)").unwrap();
        Connection::open(&target).unwrap().execute_batch("CREATE TABLE _crossfade_x (id)").unwrap();
        let compared = compare(&source, &target).unwrap();
        assert_eq!((compared.len(), compared[0].differences()), (1, 1));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
