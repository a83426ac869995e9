//! Another engine against PostgreSQL: both sides as text, in the form that the PostgreSQL column's type gives it.
//!
//! What may differ by the type mapping, and only that, is made alike: `1` is `t` in a boolean column, `x'00'` is
//! `\x00` in a bytea column, floating-point numbers are compared by their bits, and a time has the digits that it needs.

use postgres::SimpleQueryMessage;

use super::Report;
use super::merge::merge;
use crate::postgres::connect;

/// The side that has been moved to another engine.
pub(super) trait Source {
    /// Where a PostgreSQL target has the tables, besides `public`.
    fn schema(&mut self) -> Option<String>;

    /// Each table with its columns.
    fn tables(&mut self) -> Vec<(String, Vec<String>)>;

    /// All rows, as text; blobs as `\x` and their digits.
    fn rows(&mut self, table: &str, columns: &[String]) -> Vec<Vec<Option<String>>>;
}

pub(super) fn compare(mut source: impl Source, target: &str) -> Report {
    let mut target = connect(target);
    crate::postgres::run(
        &mut target,
        "SET timezone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex'",
    );
    if let Some(schema) = source.schema() {
        crate::postgres::run(&mut target, &format!("SET search_path = {}", quoted(&schema)));
    }
    let mut tables = Vec::new();
    for (name, columns) in source.tables() {
        let types = types(&mut target, &name, &columns);
        let left = source_rows(&mut source, &name, &columns, &types);
        let right = target_rows(&mut target, &name, &columns, &types);
        tables.push(merge(&name, left.into_iter(), right.into_iter()));
    }
    Report { tables }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn types(target: &mut postgres::Client, table: &str, columns: &[String]) -> Vec<String> {
    columns
        .iter()
        .map(|column| {
            let row = target
                .query_opt(
                    "SELECT data_type::text FROM information_schema.columns
                      WHERE table_schema = current_schema()
                        AND table_name = $1 AND column_name = $2",
                    &[&table, column],
                )
                .expect("look up a column");
            row.unwrap_or_else(|| panic!("the target has no column {column} in a table {table}")).get(0)
        })
        .collect()
}

fn source_rows(source: &mut impl Source, table: &str, columns: &[String], types: &[String]) -> Vec<String> {
    let row = |cells: Vec<Option<String>>| {
        let alike = |(cell, kind): (Option<String>, &String)| {
            cell.map_or_else(|| "NULL".to_owned(), |value| alike(kind, &value))
        };
        cells.into_iter().zip(types).map(alike).collect::<Vec<_>>().join(", ")
    };
    let mut rows: Vec<String> = source.rows(table, columns).into_iter().map(row).collect();
    rows.sort_unstable();
    rows
}

fn target_rows(
    target: &mut postgres::Client,
    table: &str,
    columns: &[String],
    types: &[String],
) -> Vec<String> {
    let list = columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
    let messages = target
        .simple_query(&format!("SELECT {list} FROM {}", quoted(table)))
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
        // All digits; a double is only what a number without an exponent is not.
        ("numeric", number) if !number.contains(['e', 'E']) => format!("{:?}", shortest(number)),
        ("double precision" | "real" | "numeric", number) => match number.parse::<f64>() {
            Ok(number) => format!("{:016x}", number.to_bits()),
            Err(_) => format!("{number:?}"),
        },
        ("timestamp with time zone", value) => {
            format!("{:?}", shortest(value.strip_suffix("+00").unwrap_or(value)))
        }
        ("timestamp without time zone" | "time without time zone", value) => format!("{:?}", shortest(value)),
        _ => format!("{value:?}"),
    }
}

/// Without the zeros at the end of a fraction, which PostgreSQL does not print behind a second.
fn shortest(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

pub(super) fn hex(blob: &[u8]) -> String {
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
        let compare = || compare(crate::audit::sqlite::open(&file), &url);
        compare().assert_equal();
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
            assert_eq!(compare().differences(), 2, "{change}");
            server.run("postgres", "TRUNCATE t; INSERT INTO t SELECT * FROM kept; DROP TABLE kept");
        }
    }
}
