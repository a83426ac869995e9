//! PostgreSQL against PostgreSQL: each server prints and sorts its own rows, and both streams are merged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};

use postgres::{Client, SimpleQueryMessage};

use super::across::Source;
use super::merge::{merge, unlike};
use super::{Report, one_sided};
use crate::postgres::{connect, run};

/// Every value's text must say everything about it, and must not depend on who asks.
const EXACT: &str = "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'iso_8601'; \
    SET extra_float_digits = 3; SET bytea_output = 'hex'; SET xmloption = 'content'; \
    SET statement_timeout = 0; SET search_path = ''; SET row_security = off; SET lc_monetary = 'C'";

/// Tables that hold rows themselves, so partitions and not their roots; extensions' and our own are left out. With their
/// columns, generated ones where it is asked for them.
const TABLES: &str = "SELECT n.nspname::text, c.relname::text,
       array_agg(a.attname::text ORDER BY a.attname COLLATE \"C\") FILTER (WHERE a.attnum > 0 AND NOT a.attisdropped AND ($1 OR a.attgenerated = ''))
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
 WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'crossfade')
   AND n.nspname !~ '^pg_(toast|temp)' AND c.relpersistence <> 't'
 GROUP BY 1, 2";

/// What must be alike besides the rows. Names of constraints and indexes are part of the schema: tools and
/// `ON CONFLICT ON CONSTRAINT` use them.
const OBJECTS: &str = "
SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ': ' || pg_get_constraintdef(oid)
  FROM pg_constraint c WHERE conrelid <> 0 AND contype <> 't' AND connamespace::regnamespace::text !~ $1
   -- From 18 on, NOT NULL has constraints of its own; the columns below say the same on every version.
   AND contype <> 'n'
UNION ALL
SELECT 'index ' || indexrelid::regclass || ': ' || pg_get_indexdef(indexrelid)
  FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relnamespace::regnamespace::text !~ $1
UNION ALL
SELECT 'trigger ' || tgrelid::regclass || ' ' || tgenabled::text || ' ' || pg_get_triggerdef(t.oid)
  FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
 WHERE NOT tgisinternal AND relnamespace::regnamespace::text !~ $1
UNION ALL
SELECT 'column ' || attrelid::regclass || ' ' || attname || ' ' || format_type(atttypid, atttypmod)
       || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END || ' ' || attidentity::text || attgenerated::text
       || coalesce(' ' || pg_get_expr(adbin, adrelid), '')
  FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p')
   AND relnamespace::regnamespace::text !~ $1";

const SEQUENCES: &str =
    "SELECT schemaname || '.' || sequencename, coalesce(last_value, start_value), increment_by
  FROM pg_catalog.pg_sequences WHERE schemaname <> 'crossfade'";

/// Schemas of the system, of sessions' temporary tables, and of the migration's own records.
const NOT_OURS: &str = "^(pg_catalog|information_schema|crossfade|pg_toast|pg_temp.*|pg_toast_temp.*)$";

type Name = (String, String);

pub(super) fn compare(source: &str, target: &str) -> Report {
    let (mut source, mut target) = (open(source), open(target));
    let (on_source, on_target) = (tables(&mut source, true), tables(&mut target, true));
    let names: BTreeSet<&Name> = on_source.keys().chain(on_target.keys()).collect();
    let tables = names
        .into_iter()
        .map(|name| match (on_source.get(name), on_target.get(name)) {
            (Some(columns), Some(others)) if columns == others => {
                let shown = format!("{}.{}", name.0, name.1);
                merge(&shown, rows(&mut source, name, columns), rows(&mut target, name, columns))
            }
            (left, right) => unlike(&format!("{}.{}", name.0, name.1), left, right),
        })
        .collect();
    Report { tables }
}

pub(super) fn compare_schema(source: &str, target: &str) -> Vec<String> {
    let (mut source, mut target) = (open(source), open(target));
    let mut found = one_sided(&objects(&mut source), &objects(&mut target));
    let reached: BTreeMap<String, i64> =
        target.query(SEQUENCES, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    for row in source.query(SEQUENCES, &[]).unwrap() {
        let (name, last, step): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        match reached.get(&name) {
            Some(there) if (there - last) * step.signum() >= 0 => {}
            Some(there) => found.push(format!("sequence {name} is at {there}, behind the source's {last}")),
            None => found.push(format!("only on source: sequence {name}")),
        }
    }
    found
}

/// A database whose tables went to another engine, which has no schemas.
pub(super) struct Elsewhere {
    client: Client,
    schemas: BTreeMap<String, String>,
}

impl Elsewhere {
    pub(super) fn open(url: &str) -> Elsewhere {
        let mut client = open(url);
        // The text of an interval is all that another engine can have of it.
        run(&mut client, "SET intervalstyle = 'postgres'");
        Elsewhere { client, schemas: BTreeMap::new() }
    }
}

impl Source for Elsewhere {
    fn schema(&mut self) -> Option<String> {
        None
    }

    fn tables(&mut self) -> Vec<(String, Vec<String>)> {
        // Another engine is not given what it cannot compute.
        let tables = tables(&mut self.client, false);
        for (schema, table) in tables.keys() {
            let other = self.schemas.insert(table.clone(), schema.clone());
            assert_eq!(other, None, "two tables {table} cannot be one");
        }
        tables.into_iter().map(|((_, table), columns)| (table, columns)).collect()
    }

    fn rows(&mut self, table: &str, columns: &[String]) -> Vec<Vec<Option<String>>> {
        let list = columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {list} FROM ONLY {}.{}", quoted(&self.schemas[table]), quoted(table));
        let messages = self.client.simple_query(&sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| (0..columns.len()).map(|at| row.get(at).map(str::to_owned)).collect()).collect()
    }
}

fn open(url: &str) -> Client {
    let mut client = connect(url);
    run(&mut client, EXACT);
    client
}

fn tables(client: &mut Client, generated: bool) -> BTreeMap<Name, Vec<String>> {
    let rows = client.query(TABLES, &[&generated]).expect("list the tables");
    rows.iter()
        .map(|row| ((row.get(0), row.get(1)), row.get::<_, Option<Vec<String>>>(2).unwrap_or_default()))
        .collect()
}

fn objects(client: &mut Client) -> BTreeSet<String> {
    let rows = client.query(OBJECTS, &[&NOT_OURS]).expect("list the schema's objects");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Sorted by the server, as bytes. COPY escapes line ends, so a line is a row.
fn rows<'a>(
    client: &'a mut Client,
    (schema, table): &Name,
    columns: &[String],
) -> impl Iterator<Item = String> + 'a {
    let cells: Vec<String> = columns.iter().map(|column| format!("t.{}", quoted(column))).collect();
    let sql = format!(
        "COPY (SELECT row FROM (SELECT ROW({})::text AS row FROM ONLY {}.{} t) rows ORDER BY row COLLATE \"C\") TO STDOUT",
        cells.join(", "),
        quoted(schema),
        quoted(table)
    );
    let stream = client.copy_out(&sql).unwrap_or_else(|error| panic!("read {schema}.{table}: {error}"));
    // The escapes of COPY would change the order: '\n' sorts before 'a', its escape after 'A'.
    BufReader::with_capacity(1 << 20, stream).lines().map(|line| unescaped(&line.expect("read a row")))
}

fn unescaped(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        text.push(match char {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('v') => '\u{b}',
                Some('\\') => '\\',
                other => panic!("an escape that COPY does not make: {other:?}"),
            },
            other => other,
        });
    }
    text
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Server;

    const TWINS: &str = "
        CREATE TABLE plain (id int PRIMARY KEY, note text, data bytea, amount numeric, at timestamptz);
        INSERT INTO plain SELECT n, E'a\\tb\\\\c\\nd' || n, '\\x00ff', n / 3.0, '2026-01-01' FROM generate_series(1, 50) n;
        CREATE TABLE keyless (a int, b text);
        INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (1, NULL), (2, ''), (NULL, NULL);
        CREATE TABLE root (id int, region text) PARTITION BY LIST (region);
        CREATE TABLE east PARTITION OF root FOR VALUES IN ('east');
        INSERT INTO root VALUES (1, 'east');
        CREATE SEQUENCE ticket; SELECT nextval('ticket')";

    /// A change to the target, and how many differences it makes.
    const CASES: &[(&str, u64)] = &[
        ("DELETE FROM plain WHERE id = 7", 1),
        ("INSERT INTO plain (id) VALUES (99)", 1),
        ("UPDATE plain SET note = note || ' ' WHERE id = 7", 2),
        ("UPDATE plain SET amount = amount + 0.0000000000001 WHERE id = 7", 2),
        ("UPDATE plain SET data = '\\x00fe' WHERE id = 7", 2),
        ("UPDATE plain SET at = at + interval '1 microsecond' WHERE id = 7", 2),
        ("DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE b = 'x')", 1),
        ("INSERT INTO keyless VALUES (1, 'x')", 1),
        ("UPDATE keyless SET b = NULL WHERE a = 2", 2),
        ("UPDATE keyless SET b = 'NULL' WHERE a = 1 AND b IS NULL", 2),
        ("INSERT INTO root VALUES (2, 'east')", 1),
        ("DROP TABLE keyless", 1),
        ("CREATE TABLE extra ()", 1),
        ("ALTER TABLE plain RENAME note TO remark", 1),
    ];

    #[test]
    fn equal_databases_are_equal_and_each_difference_is_found() {
        let server = Server::builder().without_fsync().start();
        server.create_database("a");
        server.create_database("b");
        server.run("a", TWINS);
        server.run("b", TWINS);
        let (a, b) = (server.url("a"), server.url("b"));
        compare(&a, &b).assert_equal();
        assert_eq!(compare_schema(&a, &b), Vec::<String>::new());
        for (at, (change, differences)) in CASES.iter().enumerate() {
            let name = format!("b{at}");
            server.run("postgres", &format!("CREATE DATABASE {name} TEMPLATE b"));
            server.run(&name, change);
            let report = compare(&a, &server.url(&name));
            assert_eq!(report.differences(), *differences, "{change}\n{report}");
            let back = compare(&server.url(&name), &a);
            assert_eq!(back.differences(), *differences, "the other way round: {change}\n{back}");
        }
    }

    #[test]
    fn a_missing_index_or_a_sequence_behind_is_found() {
        let server = Server::builder().without_fsync().start();
        server.create_database("a");
        server.create_database("b");
        server.run("a", &format!("{TWINS}; CREATE INDEX ON plain (note); SELECT nextval('ticket')"));
        server.run("b", TWINS);
        let found = compare_schema(&server.url("a"), &server.url("b"));
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
