//! Another engine against MariaDB: both sides as text, in the form that the MariaDB column's type gives it.
//!
//! What may differ by the type mapping, and only that, is made alike: `t` is 1 in a TINYINT column, `\x00` is a zero byte in a
//! BLOB, floating-point numbers are compared by their bits, decimals and times have the digits that they need. Everything
//! else is text, byte by byte.

use mysql::Value;

use super::Report;
use super::across::{Source, hex};
use super::mariadb::{self, Column, names};
use super::merge::{merge, unlike};

pub(super) fn compare(mut source: impl Source, target: &str) -> Report {
    let mut target = mariadb::Side::open(target);
    let mut on_target = target.declared();
    let mut tables = Vec::new();
    for (name, columns) in source.tables() {
        let found = on_target.remove(&name).unwrap_or_default();
        let types: Option<Vec<&str>> = columns.iter().map(|column| type_of(&found, column)).collect();
        tables.push(match types {
            None => unlike(&name, Some(&columns), Some(&names(&found))),
            Some(types) => {
                let left = source_rows(&mut source, &name, &columns, &types);
                let right = target_rows(&mut target, &name, &columns, &types);
                merge(&name, left.into_iter(), right.into_iter())
            }
        });
    }
    tables.extend(on_target.iter().map(|(name, columns)| unlike(name, None, Some(&names(columns)))));
    Report { tables }
}

fn type_of<'a>(columns: &'a [Column], name: &str) -> Option<&'a str> {
    columns.iter().find(|column| column.name == name).map(|column| column.data_type.as_str())
}

fn source_rows(source: &mut impl Source, table: &str, columns: &[String], types: &[&str]) -> Vec<String> {
    let row = |cells: Vec<Option<String>>| {
        let cells = cells.into_iter().zip(types).map(|(cell, kind)| alike(kind, cell));
        cells.collect::<Vec<String>>().join(", ")
    };
    let mut rows: Vec<String> = source.rows(table, columns).into_iter().map(row).collect();
    rows.sort_unstable();
    rows
}

fn target_rows(target: &mut mariadb::Side, table: &str, columns: &[String], types: &[&str]) -> Vec<String> {
    let cells: Vec<String> = columns.iter().map(|column| mariadb::quoted(column)).collect();
    let row = |cells: Vec<Value>| {
        let cells = cells.into_iter().zip(types).map(|(cell, kind)| alike(kind, text(kind, cell)));
        cells.collect::<Vec<String>>().join(", ")
    };
    let mut rows: Vec<String> = target.cells(table, &cells).into_iter().map(row).collect();
    rows.sort_unstable();
    rows
}

/// As PostgreSQL and SQLite say it.
fn text(kind: &str, value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Int(integer) => Some(integer.to_string()),
        Value::UInt(integer) => Some(integer.to_string()),
        Value::Float(real) => Some(real.to_string()),
        Value::Double(real) => Some(real.to_string()),
        Value::Bytes(bytes) if mariadb::is_blob(kind) => Some(hex(&bytes)),
        Value::Bytes(bytes) => Some(String::from_utf8(bytes).expect("text in UTF-8")),
        Value::Date(year, month, day, ..) if kind == "date" => Some(format!("{year:04}-{month:02}-{day:02}")),
        Value::Date(..) | Value::Time(..) => mariadb::moment(&value),
    }
}

/// One form for both sides, in quotes so that text cannot look like NULL.
fn alike(kind: &str, value: Option<String>) -> String {
    let Some(value) = value else { return "NULL".into() };
    match (kind, value.as_str()) {
        ("tinyint", "t") => "\"1\"".into(),
        ("tinyint", "f") => "\"0\"".into(),
        ("decimal", number) => format!("{:?}", shortest(number)),
        ("float" | "double", number) => match number.parse::<f64>() {
            // MariaDB has no minus zero: it stores 0.
            Ok(number) => format!("{:016x}", (number + 0.0).to_bits()),
            Err(_) => format!("{number:?}"),
        },
        ("datetime" | "timestamp" | "time", moment) => {
            format!("{:?}", shortest(moment.strip_suffix("+00").unwrap_or(moment)))
        }
        (_, text) => format!("{text:?}"),
    }
}

/// Without the zeros at the end of a fraction: a column of a fixed scale has them.
fn shortest(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

#[cfg(test)]
mod tests {
    use crate::mariadb::Server;
    use crate::{audit, postgres};

    const SOURCE: &str = "
        CREATE TABLE t (id bigint PRIMARY KEY, yes boolean, data bytea, amount numeric(12,2), weight float8, single real, note text,
            at timestamptz, day date, clock time, token uuid, twice bigint GENERATED ALWAYS AS (id * 2) STORED);
        INSERT INTO t VALUES (1, true, '\\x00ff', 1.50, 0.1, 0.1, 'a ', '2026-02-03 04:05:06.7+00', '2026-02-03', '24:00:00',
                '00000000-0000-0000-0000-00000000000a'),
            (2, false, '', -3, '-0', 1e30, NULL, '2026-02-03 00:00:00+00', '0001-01-01', '00:00:00.000001', NULL);
        INSERT INTO t (id) VALUES (3);
        CREATE TABLE none (id int)";

    const TARGET: &[&str] = &[
        "CREATE TABLE t (id BIGINT PRIMARY KEY, yes TINYINT(1), data LONGBLOB, amount DECIMAL(65,30), weight DOUBLE, single DOUBLE, note LONGTEXT,
            at DATETIME(6), day DATE, clock TIME(6), token UUID)",
        "INSERT INTO t VALUES (1, 1, UNHEX('00ff'), 1.5, 0.1, 0.1, 'a ', '2026-02-03 04:05:06.7', '2026-02-03', '24:00:00',
                '00000000-0000-0000-0000-00000000000a'),
            (2, 0, '', -3, -0e0, 1e30, NULL, '2026-02-03', '0001-01-01', '00:00:00.000001', NULL),
            (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        "CREATE TABLE none (id INT)",
    ];

    #[test]
    fn types_are_made_alike_and_values_are_not() {
        let (source, target) =
            (postgres::Server::builder().without_fsync().start(), Server::builder().without_fsync().start());
        source.run("postgres", SOURCE);
        for (at, (change, differences)) in [
            ("UPDATE t SET yes = 1 WHERE id = 2", 2),
            ("UPDATE t SET yes = 2 WHERE id = 1", 2),
            ("UPDATE t SET data = UNHEX('00fe') WHERE id = 1", 2),
            ("UPDATE t SET amount = 1.501 WHERE id = 1", 2),
            ("UPDATE t SET weight = weight + 2e-17 WHERE id = 1", 2),
            ("UPDATE t SET note = 'a' WHERE id = 1", 2),
            ("UPDATE t SET note = 'NULL' WHERE id = 2", 2),
            ("UPDATE t SET at = at + INTERVAL 1 MICROSECOND WHERE id = 2", 2),
            ("UPDATE t SET day = NULL WHERE id = 2", 2),
            ("UPDATE t SET clock = '23:59:59.999999' WHERE id = 1", 2),
            ("DELETE FROM t WHERE id = 3", 1),
            ("ALTER TABLE t DROP COLUMN note", 1),
            ("CREATE TABLE extra (id INT)", 1),
            ("DROP TABLE none", 1),
        ]
        .iter()
        .enumerate()
        {
            let name = format!("b{at}");
            target.create_database(&name);
            target.run(&name, TARGET);
            let compare = || audit::compare(&source.url("postgres"), &target.url(&name));
            compare().assert_equal();
            target.run(&name, &[change]);
            let report = compare();
            assert_eq!(report.differences(), *differences, "{change}\n{report}");
        }
    }
}
