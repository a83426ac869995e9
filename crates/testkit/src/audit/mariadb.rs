//! MariaDB as one side of a comparison, and MariaDB against MariaDB.
//!
//! Against its own kind, a cell is what the binary protocol gives: text as the bytes that are stored, floating-point numbers with
//! their bits, an ENUM with its number beside its label, because number 0 and the label '' look alike.

use std::collections::{BTreeMap, BTreeSet};

use mysql::prelude::Queryable;
use mysql::{Conn, Row, Value};

use super::across::{Source, hex};
use super::merge::{merge, unlike};
use super::{Report, one_sided};
use crate::mariadb::{connect, run};

pub(super) struct Side {
    client: Conn,
}

/// As the server declares it.
pub(super) struct Column {
    pub(super) name: String,
    /// Without lengths: `varchar`.
    pub(super) data_type: String,
    generated: bool,
}

pub(super) fn compare(source: &str, target: &str) -> Report {
    let (mut source, mut target) = (Side::open(source), Side::open(target));
    let (on_source, on_target) = (source.declared(), target.declared());
    for side in [&mut source, &mut target] {
        // No conversion: what another charset cannot say would look alike.
        run(&mut side.client, "SET character_set_results = NULL");
    }
    let tables: BTreeSet<&String> = on_source.keys().chain(on_target.keys()).collect();
    let tables = tables
        .into_iter()
        .map(|table| match (on_source.get(table), on_target.get(table)) {
            (Some(columns), Some(others)) if names(columns) == names(others) => {
                merge(table, source.stored(table, columns), target.stored(table, others))
            }
            (left, right) => {
                let names = |columns: &Vec<Column>| names(columns);
                unlike(table, left.map(names).as_ref(), right.map(names).as_ref())
            }
        })
        .collect();
    Report { tables }
}

/// Line by line what `SHOW CREATE TABLE` says, in any order; and counters that are behind.
pub(super) fn compare_schema(source: &str, target: &str) -> Vec<String> {
    let (mut source, mut target) = (Side::open(source), Side::open(target));
    let mut found = one_sided(&source.definitions(), &target.definitions());
    let reached = target.counters();
    for (table, next) in source.counters() {
        match reached.get(&table) {
            Some(there) if *there >= next => {}
            Some(there) => found.push(format!("{table} would count on from {there}, the source from {next}")),
            None => found.push(format!("{table} counts only on the source")),
        }
    }
    found
}

impl Side {
    pub(super) fn open(url: &str) -> Side {
        let mut client = connect(url);
        run(&mut client, "SET NAMES utf8mb4, time_zone = '+00:00', sql_mode = ''");
        Side { client }
    }

    /// The tables, each with its columns, sorted by their names.
    pub(super) fn declared(&mut self) -> BTreeMap<String, Vec<Column>> {
        let columns: Vec<(String, String, String, bool)> = self
            .client
            .query(
                "SELECT c.TABLE_NAME, c.COLUMN_NAME, c.DATA_TYPE, c.IS_GENERATED <> 'NEVER' FROM information_schema.COLUMNS c
                 JOIN information_schema.TABLES t USING (TABLE_SCHEMA, TABLE_NAME)
                 WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')
                 ORDER BY BINARY c.COLUMN_NAME",
            )
            .expect("list the columns");
        let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
        for (table, name, data_type, generated) in columns {
            tables.entry(table).or_default().push(Column { name, data_type, generated });
        }
        tables
    }

    /// By the binary protocol.
    pub(super) fn cells(&mut self, table: &str, cells: &[String]) -> Vec<Vec<Value>> {
        let sql = format!("SELECT {} FROM {}", cells.join(", "), quoted(table));
        let rows: Vec<Row> = self.client.exec(&sql, ()).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        rows.into_iter().map(Row::unwrap).collect()
    }

    fn stored(&mut self, table: &str, columns: &[Column]) -> std::vec::IntoIter<String> {
        let cells = columns.iter().map(|column| match (column.data_type.as_str(), quoted(&column.name)) {
            ("enum", name) => format!("{name}, {name} + 0"),
            (_, name) => name,
        });
        let cells: Vec<String> = cells.collect();
        let shown = |row: &Vec<Value>| row.iter().map(exactly).collect::<Vec<_>>().join(", ");
        let mut rows: Vec<String> = self.cells(table, &cells).iter().map(shown).collect();
        rows.sort_unstable();
        rows.into_iter()
    }

    fn definitions(&mut self) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        for table in self.declared().keys() {
            let sql = format!("SHOW CREATE TABLE {}", quoted(table));
            let answer: Option<(String, String)> =
                self.client.query_first(&sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
            let (_, definition) = answer.expect("a table's definition");
            lines
                .extend(definition.lines().skip(1).map(|line| format!("{table}: {}", without_counter(line))));
        }
        lines
    }

    /// What each AUTO_INCREMENT table would give out next.
    fn counters(&mut self) -> BTreeMap<String, u64> {
        let rows: Vec<(String, u64)> = self
            .client
            .query(
                "SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES
                 WHERE TABLE_SCHEMA = DATABASE() AND AUTO_INCREMENT IS NOT NULL",
            )
            .expect("list the counters");
        rows.into_iter().collect()
    }
}

/// Against PostgreSQL: as text.
impl Source for Side {
    /// The database's name.
    fn schema(&mut self) -> Option<String> {
        self.client.query_first("SELECT DATABASE()").expect("ask for the database")
    }

    fn tables(&mut self) -> Vec<(String, Vec<String>)> {
        let stored = |columns: Vec<Column>| {
            columns.into_iter().filter(|column| !column.generated).map(|column| column.name).collect()
        };
        self.declared().into_iter().map(|(table, columns)| (table, stored(columns))).collect()
    }

    /// A FLOAT is printed with six digits, unless it is made a DOUBLE.
    fn rows(&mut self, table: &str, columns: &[String]) -> Vec<Vec<Option<String>>> {
        let declared = self.declared();
        let type_of = |name: &String| {
            let found = declared[table].iter().find(|column| column.name == *name);
            found.map(|column| column.data_type.as_str()).expect("a column's type")
        };
        let cells = columns.iter().map(|column| match type_of(column) {
            "float" => format!("CAST({} AS DOUBLE)", quoted(column)),
            "bit" | "year" => format!("CAST({} AS UNSIGNED)", quoted(column)),
            _ => quoted(column),
        });
        let sql = format!("SELECT {} FROM {}", cells.collect::<Vec<_>>().join(", "), quoted(table));
        let is_blob: Vec<bool> = columns.iter().map(|column| is_blob(type_of(column))).collect();
        let rows: Vec<Row> = self.client.query(&sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        let cell = |(value, is_blob): (Value, &bool)| match value {
            Value::NULL => None,
            Value::Bytes(bytes) if *is_blob => Some(hex(&bytes)),
            Value::Bytes(bytes) => Some(String::from_utf8(bytes).expect("text in UTF-8")),
            other => panic!("{other:?} in an answer as text"),
        };
        rows.into_iter().map(|row| row.unwrap().into_iter().zip(&is_blob).map(cell).collect()).collect()
    }
}

const SPATIAL: &[&str] = &["geometry", "point", "linestring", "polygon"];

/// Whether a type holds bytes and no text.
pub(super) fn is_blob(data_type: &str) -> bool {
    data_type.ends_with("blob") || data_type.ends_with("binary") || SPATIAL.contains(&data_type)
}

/// `2026-02-03 04:05:06.000007`, `-838:59:59.000000`: the protocol leaves out zeros at the end, and no more.
pub(super) fn moment(value: &Value) -> Option<String> {
    match value {
        Value::Date(year, month, day, hour, minute, second, micros) => {
            Some(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}"))
        }
        Value::Time(negative, days, hours, minutes, seconds, micros) => {
            let (sign, hours) = (if *negative { "-" } else { "" }, days * 24 + u32::from(*hours));
            Some(format!("{sign}{hours:02}:{minutes:02}:{seconds:02}.{micros:06}"))
        }
        _ => None,
    }
}

fn exactly(value: &Value) -> String {
    match value {
        Value::NULL => "NULL".into(),
        Value::Int(integer) => integer.to_string(),
        Value::UInt(integer) => integer.to_string(),
        Value::Float(real) => format!("{real:?} {:08x}", real.to_bits()),
        Value::Double(real) => format!("{real:?} {:016x}", real.to_bits()),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => format!("{text:?}"),
            Err(_) => hex(bytes),
        },
        Value::Date(..) | Value::Time(..) => moment(value).expect("a point in time"),
    }
}

pub(super) fn names(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|column| column.name.clone()).collect()
}

/// The counter moves on its own, and what comes last has no comma.
fn without_counter(line: &str) -> String {
    let line = line.trim().trim_end_matches(',');
    let is_counter =
        |word: &&str| word.strip_prefix("AUTO_INCREMENT=").is_some_and(|next| next.parse::<u64>().is_ok());
    line.split(' ').filter(|word| !is_counter(word)).collect::<Vec<_>>().join(" ")
}

pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mariadb::Server;

    const TWINS: &[&str] = &[
        "CREATE TABLE plain (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(20), padded CHAR(5), latin VARCHAR(9) CHARACTER SET latin1,
            single FLOAT, amount DECIMAL(20,6), at DATETIME(6), mood ENUM('', 'glad'), data VARBINARY(9), bits BIT(9),
            twice DECIMAL(20,6) AS (amount * 2) VIRTUAL, KEY (note), CHECK (amount < 100)) COLLATE utf8mb4_general_ci",
        "INSERT IGNORE INTO plain (id, note, padded, latin, single, amount, at, mood, data, bits) VALUES
            (1, 'a', 'x', 'ä', 0e0, 0.1, '0000-00-00', '', UNHEX('00ff'), 5), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
            (3, '', '', '', 16777216, -1, '2026-02-03 04:05:06.000007', 'glad', '', 511)",
        "CREATE TABLE keyless (a INT, b VARCHAR(9))",
        "INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (1, 'X'), (NULL, NULL)",
    ];

    /// A change to the target, and how many differences it makes.
    const CASES: &[(&str, u64)] = &[
        ("DELETE FROM plain WHERE id = 1", 1),
        ("INSERT INTO plain (id) VALUES (9)", 1),
        ("UPDATE plain SET note = 'a ' WHERE id = 1", 2),
        ("UPDATE plain SET note = 'A' WHERE id = 1", 2),
        ("UPDATE plain SET note = 'NULL' WHERE id = 2", 2),
        ("UPDATE plain SET note = '' WHERE id = 2", 2),
        ("UPDATE plain SET latin = 'a' WHERE id = 1", 2),
        ("UPDATE plain SET single = 1e-45 WHERE id = 1", 2),
        ("UPDATE plain SET single = 16777218 WHERE id = 3", 2),
        ("UPDATE plain SET amount = amount + 0.000001 WHERE id = 1", 2),
        ("UPDATE plain SET at = at + INTERVAL 1 MICROSECOND WHERE id = 3", 2),
        ("UPDATE plain SET at = NULL WHERE id = 1", 2),
        // The error value, which looks like the label ''.
        ("UPDATE IGNORE plain SET mood = 0 WHERE id = 1", 2),
        ("UPDATE plain SET data = UNHEX('00ff00') WHERE id = 1", 2),
        ("UPDATE plain SET bits = 6 WHERE id = 1", 2),
        ("DELETE FROM keyless WHERE BINARY b = 'x' LIMIT 1", 1),
        ("INSERT INTO keyless VALUES (1, 'x')", 1),
        ("UPDATE keyless SET b = 'X' WHERE BINARY b = 'x' LIMIT 1", 2),
        ("DROP TABLE keyless", 1),
        ("CREATE TABLE extra (a INT)", 1),
        ("ALTER TABLE plain CHANGE note remark VARCHAR(20)", 1),
        ("ALTER TABLE plain MODIFY latin VARCHAR(9) CHARACTER SET utf8mb4", 2),
    ];

    #[test]
    fn equal_databases_are_equal_and_each_difference_is_found() {
        let server = Server::builder().without_fsync().start();
        server.create_database("a");
        server.run("a", TWINS);
        for (at, (change, differences)) in CASES.iter().enumerate() {
            let name = format!("b{at}");
            server.create_database(&name);
            server.run(&name, TWINS);
            let (a, b) = (server.url("a"), server.url(&name));
            compare(&a, &b).assert_equal();
            server.run(&name, &[change]);
            for report in [compare(&a, &b), compare(&b, &a)] {
                assert_eq!(report.differences(), *differences, "{change}\n{report}");
            }
        }
    }

    #[test]
    fn a_missing_index_another_type_or_a_counter_behind_is_found() {
        let server = Server::builder().without_fsync().start();
        server.create_database("a");
        server.run("a", TWINS);
        for (at, (change, differences)) in [
            ("UPDATE plain SET note = 'other'", 0),
            ("ALTER TABLE plain AUTO_INCREMENT = 900", 0),
            ("ALTER TABLE plain DROP INDEX note", 1),
            ("ALTER TABLE plain MODIFY note VARCHAR(21)", 2),
            ("ALTER TABLE plain DROP CONSTRAINT CONSTRAINT_1", 1),
            ("ALTER TABLE plain COMMENT = 'said'", 2),
        ]
        .iter()
        .enumerate()
        {
            let name = format!("b{at}");
            server.create_database(&name);
            server.run(&name, TWINS);
            assert_eq!(compare_schema(&server.url("a"), &server.url(&name)), Vec::<String>::new());
            server.run(&name, &[change]);
            let found = compare_schema(&server.url("a"), &server.url(&name));
            assert_eq!(found.len(), *differences, "{change}: {found:?}");
        }
        server.run("a", &["ALTER TABLE plain AUTO_INCREMENT = 500"]);
        let found = compare_schema(&server.url("a"), &server.url("b0"));
        assert!(found.len() == 1 && found[0].contains("500"), "{found:?}");
    }
}
