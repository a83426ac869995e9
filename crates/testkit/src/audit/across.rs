//! SQLite against PostgreSQL: both sides as text, in the form that the PostgreSQL column's type gives it.
//!
//! What may differ by the type mapping, and only that, is made alike: `1` is `t` in a boolean column, `x'00'` is
//! `\x00` in a bytea column, and floating-point numbers are compared by their bits.

use postgres::SimpleQueryMessage;
use rusqlite::types::ValueRef;

use super::merge::merge;
use super::{Report, sqlite};
use crate::postgres::connect;

pub(super) fn compare(source: &str, target: &str) -> Report {
    let source = sqlite::open(source);
    let mut target = connect(target);
    crate::postgres::run(
        &mut target,
        "SET timezone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex'",
    );
    let mut tables = Vec::new();
    for (name, columns) in sqlite::tables(&source) {
        let types = types(&mut target, &name, &columns);
        let list = columns.iter().map(|column| sqlite::quoted(column)).collect::<Vec<_>>().join(", ");
        let left = source_rows(&source, &name, &list, &types);
        let right = target_rows(&mut target, &name, &list, &types);
        tables.push(merge(&name, left.into_iter(), right.into_iter()));
    }
    Report { tables }
}

fn types(target: &mut postgres::Client, table: &str, columns: &[String]) -> Vec<String> {
    columns
        .iter()
        .map(|column| {
            let row = target
                .query_opt(
                    "SELECT data_type::text FROM information_schema.columns
                      WHERE table_schema NOT IN ('crossfade', 'pg_catalog', 'information_schema')
                        AND table_name = $1 AND column_name = $2",
                    &[&table, column],
                )
                .expect("look up a column");
            row.unwrap_or_else(|| panic!("the target has no column {column} in a table {table}")).get(0)
        })
        .collect()
}

fn source_rows(source: &rusqlite::Connection, table: &str, list: &str, types: &[String]) -> Vec<String> {
    let mut statement = source
        .prepare(&format!("SELECT {list} FROM {}", sqlite::quoted(table)))
        .expect("read a SQLite table");
    let mut query = statement.query([]).expect("read a SQLite table");
    let mut rows = Vec::new();
    while let Some(row) = query.next().expect("read a SQLite row") {
        let cells = types.iter().enumerate().map(|(at, kind)| {
            let value = match row.get_ref(at).expect("read a SQLite value") {
                ValueRef::Null => return "NULL".into(),
                ValueRef::Integer(integer) => integer.to_string(),
                ValueRef::Real(real) => real.to_string(),
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                ValueRef::Blob(blob) => hex(blob),
            };
            alike(kind, &value)
        });
        rows.push(cells.collect::<Vec<String>>().join(", "));
    }
    rows.sort_unstable();
    rows
}

fn target_rows(target: &mut postgres::Client, table: &str, list: &str, types: &[String]) -> Vec<String> {
    let messages = target
        .simple_query(&format!("SELECT {list} FROM {}", sqlite::quoted(table)))
        .unwrap_or_else(|error| panic!("read {table} on the target: {error}"));
    let mut rows: Vec<String> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .map(|row| {
            let cells = types
                .iter()
                .enumerate()
                .map(|(at, kind)| row.get(at).map_or_else(|| "NULL".into(), |value| alike(kind, value)));
            cells.collect::<Vec<String>>().join(", ")
        })
        .collect();
    rows.sort_unstable();
    rows
}

/// One form for both sides, in quotes so that text cannot look like NULL.
fn alike(kind: &str, value: &str) -> String {
    match (kind, value) {
        ("boolean", "1" | "t") => "'t'".into(),
        ("boolean", "0" | "f") => "'f'".into(),
        ("double precision" | "real" | "numeric", number) => match number.parse::<f64>() {
            Ok(number) => format!("{:016x}", number.to_bits()),
            Err(_) => format!("{number:?}"),
        },
        _ => format!("{value:?}"),
    }
}

fn hex(blob: &[u8]) -> String {
    let mut text = String::from("\\x");
    text.extend(blob.iter().map(|byte| format!("{byte:02x}")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Folder;
    use crate::postgres::Server;

    #[test]
    fn types_are_made_alike_and_values_are_not() {
        let folder = Folder::new("audit");
        let file = folder.join("a").to_str().unwrap().to_owned();
        rusqlite::Connection::open(&file)
            .unwrap()
            .execute_batch(
                "CREATE TABLE t (id INTEGER PRIMARY KEY, yes BOOLEAN, data BLOB, amount REAL, note TEXT);
                 INSERT INTO t VALUES (1, 1, x'00ff', 0.1, 'a'), (2, 0, x'', 1, NULL), (3, NULL, NULL, NULL, '')",
            )
            .unwrap();
        let server = Server::builder().without_fsync().start();
        server.run(
            "postgres",
            "CREATE TABLE t (id bigint, yes boolean, data bytea, amount double precision, note text);
             INSERT INTO t VALUES (1, true, '\\x00ff', 0.1, 'a'), (2, false, '', 1, NULL), (3, NULL, NULL, NULL, '')",
        );
        let url = server.url("postgres");
        compare(&file, &url).assert_equal();
        for change in [
            "yes = true WHERE id = 2",
            "data = '\\x00fe' WHERE id = 1",
            "note = NULL WHERE id = 3",
            "note = 'NULL' WHERE id = 2",
        ] {
            server.run(
                "postgres",
                &format!("BEGIN; CREATE TABLE kept AS SELECT * FROM t; UPDATE t SET {change}; COMMIT"),
            );
            assert_eq!(compare(&file, &url).differences(), 2, "{change}");
            server.run("postgres", "TRUNCATE t; INSERT INTO t SELECT * FROM kept; DROP TABLE kept");
        }
    }
}
