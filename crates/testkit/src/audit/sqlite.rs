//! SQLite against SQLite: each row as the storage classes and exact literals of its cells.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::Report;
use super::across::{Source, hex};
use super::merge::{merge, unlike};

/// The file of a `sqlite:path` URL.
pub(crate) fn path(url: &str) -> &str {
    let path = url.strip_prefix("sqlite:").expect("the URL of a file");
    path.strip_prefix("//").unwrap_or(path)
}

pub(super) fn compare(source: &str, target: &str) -> Report {
    let (source, target) = (open(source), open(target));
    let (on_source, on_target) = (tables(&source), tables(&target));
    let names: BTreeSet<&String> = on_source.keys().chain(on_target.keys()).collect();
    let tables = names
        .into_iter()
        .map(|name| match (on_source.get(name), on_target.get(name)) {
            (Some(columns), Some(others)) if columns == others => {
                merge(name, rows(&source, name, columns), rows(&target, name, columns))
            }
            (left, right) => unlike(name, left, right),
        })
        .collect();
    Report { tables }
}

impl Source for Connection {
    fn schema(&mut self) -> Option<String> {
        None
    }

    fn tables(&mut self) -> Vec<(String, Vec<String>)> {
        tables(self).into_iter().collect()
    }

    fn rows(&mut self, table: &str, columns: &[String]) -> Vec<Vec<Option<String>>> {
        let list = columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
        let mut statement =
            self.prepare(&format!("SELECT {list} FROM {}", quoted(table))).expect("read a SQLite table");
        let mut query = statement.query([]).expect("read a SQLite table");
        let mut rows = Vec::new();
        while let Some(row) = query.next().expect("read a SQLite row") {
            let cell = |at| match row.get_ref(at).expect("read a SQLite value") {
                ValueRef::Null => None,
                ValueRef::Integer(integer) => Some(integer.to_string()),
                ValueRef::Real(real) => Some(real.to_string()),
                ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Blob(blob) => Some(hex(blob)),
            };
            rows.push((0..columns.len()).map(cell).collect());
        }
        rows
    }
}

pub(super) fn open(path: &str) -> Connection {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .unwrap_or_else(|error| panic!("open {path}: {error}"));
    connection.busy_timeout(Duration::from_secs(60)).expect("set the busy timeout");
    connection
}

fn tables(connection: &Connection) -> BTreeMap<String, Vec<String>> {
    let mut list = connection
        .prepare(
            "SELECT s.name, (SELECT json_group_array(name) FROM
                (SELECT name FROM pragma_table_xinfo(s.name) WHERE hidden <> 1 ORDER BY name))
             FROM sqlite_schema s WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
               AND name NOT LIKE '\\_crossfade\\_%' ESCAPE '\\'",
        )
        .expect("list the tables");
    let rows = list
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .expect("list the tables");
    rows.map(|row| {
        let (name, columns) = row.expect("read a table's name");
        (name, serde_json::from_str(&columns).expect("the columns as JSON"))
    })
    .collect()
}

/// `typeof` tells 1 from 1.0 and text from a blob; `quote` is exact for every value but text, which it ends at a NUL and
/// which may be no text at all: its bytes count.
fn rows(connection: &Connection, table: &str, columns: &[String]) -> std::vec::IntoIter<String> {
    let cells: Vec<String> = columns.iter().map(|column| cell(&quoted(column))).collect();
    let sql = format!("SELECT {} FROM {}", cells.join(" || ', ' || "), quoted(table));
    let mut statement = connection.prepare(&sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    let mut rows: Vec<String> = statement
        .query_map([], |row| row.get(0))
        .expect("read the rows")
        .map(|row| row.expect("read a row"))
        .collect();
    rows.sort_unstable();
    rows.into_iter()
}

fn cell(column: &str) -> String {
    format!(
        "typeof({column}) || ' ' || CASE typeof({column}) WHEN 'text' THEN hex({column}) ELSE quote({column}) END"
    )
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Folder;

    const TWINS: &str = "
        CREATE TABLE plain (id INTEGER PRIMARY KEY, note TEXT, data BLOB, amount REAL, twice AS (id * 2) STORED);
        INSERT INTO plain (id, note, data, amount) VALUES (1, 'a', x'00ff', 0.1), (2, NULL, NULL, 1.0), (3, '', x'', NULL);
        CREATE TABLE keyless (a, b);
        INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (1, NULL), (1.0, '1'), ('1', 1);";

    /// A change to the target, and how many differences it makes.
    const CASES: &[(&str, u64)] = &[
        ("DELETE FROM plain WHERE id = 1", 1),
        ("INSERT INTO plain (id) VALUES (9)", 1),
        ("UPDATE plain SET note = 'NULL' WHERE id = 2", 2),
        ("UPDATE plain SET note = 'a ' WHERE id = 1", 2),
        ("UPDATE plain SET amount = 0.1 + 1e-18 WHERE id = 1", 0),
        ("UPDATE plain SET amount = 0.1 + 2e-17 WHERE id = 1", 2),
        ("UPDATE plain SET data = '' WHERE id = 3", 2),
        ("DELETE FROM keyless WHERE rowid = 1", 1),
        ("INSERT INTO keyless VALUES (1, 'x')", 1),
        ("UPDATE keyless SET a = 1 WHERE rowid = 4", 2),
        ("DROP TABLE keyless", 1),
    ];

    #[test]
    fn equal_files_are_equal_and_each_difference_is_found() {
        let folder = Folder::new("audit");
        let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        Connection::open(file("a")).unwrap().execute_batch(TWINS).unwrap();
        for (at, (change, differences)) in CASES.iter().enumerate() {
            let other = file(&format!("b{at}"));
            let connection = Connection::open(&other).unwrap();
            connection.execute_batch(TWINS).unwrap();
            compare(&file("a"), &other).assert_equal();
            connection.execute_batch(change).unwrap();
            let report = compare(&file("a"), &other);
            assert_eq!(report.differences(), *differences, "{change}\n{report}");
        }
    }
}
