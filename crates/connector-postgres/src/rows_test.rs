//! A stored row is the same by every way: copied as values, from the log, fetched alone. Against a private server whose own
//! settings print everything in another form.

use std::time::Duration;

use connector::{Block, Capture, ChunkStream, Event, Format, Reader, Selection, Slicing, Wave};
use model::{Change, Key, Range, Row, Table};

use crate::reader::PostgresReader;
use crate::wire_test::Server;

const TABLES: &str = r#"
    ALTER DATABASE postgres SET datestyle = 'German, DMY';
    ALTER DATABASE postgres SET timezone = 'Asia/Kathmandu';
    ALTER DATABASE postgres SET bytea_output = 'escape';
    ALTER DATABASE postgres SET extra_float_digits = -5;
    ALTER DATABASE postgres SET intervalstyle = 'sql_standard';
    CREATE TYPE mood AS ENUM ('ok', 'it''s');
    CREATE TYPE pair AS (a int, b text);
    CREATE TABLE t (
        id int PRIMARY KEY, double_id int GENERATED ALWAYS AS (id * 2) STORED, f4 real, f8 float8, n numeric, b bool,
        t text, c char(5), by bytea, d date, ts timestamp, tz timestamptz, iv interval, m money, j json, jb jsonb,
        mo mood, pa pair, ia int[], ta text[], ba bytea[], tr tstzrange, rc regclass, rt regtype, last text);
    CREATE UNIQUE INDEX part ON t (f8) WHERE b;
    CREATE UNIQUE INDEX whole ON t (f8, n);
"#;

const ROWS: &str = r#"
    INSERT INTO t (id, f4, f8, n, b, t, c, by, d, ts, tz, iv, m, j, jb, mo, pa, ia, ta, ba, tr, rc, rt, last) VALUES
    (1, 0.1, 5e-324, 'NaN', true, E'a\tb\nc\rd\\e\bf\fg\vh\x01', 'ab', '\x00ff5c0a09', 'infinity',
     TIMESTAMP '294276-12-31 23:59:59.999999', TIMESTAMPTZ '4713-01-01 00:00:00+00 BC', INTERVAL '1 year -2 mons 3 days',
     12.34, '{"b":1, "a" : 2,"b":3}', '{"b":1,"a":0.10}', 'it''s', ROW(1, 'a "b" \,'), '{1,NULL}', ARRAY['a,b', NULL, 'NULL', ''],
     ARRAY['\x00ff'::bytea], tstzrange('2024-03-31 01:59:59+01', NULL), 't', 'mood', 'end'),
    (2, '-0', 'Infinity', 1.10, false, '\N', '', '', '-infinity', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, NULL,
     'empty', NULL, NULL, ''),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL),
    -- A line of several messages: the client hands out long ones in pieces.
    (4, 'NaN', -0.0, repeat('9', 1000)::numeric, NULL, NULL, 'é', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL, repeat(E'x\\\n', 700000))
"#;

#[tokio::test]
async fn a_row_is_the_same_by_every_way() {
    let server = Server::start("rows");
    let client = &mut server.connect().await;
    client.execute(TABLES).await.unwrap();
    let reader = PostgresReader::new(server.settings());
    let catalog = reader.catalog(&Selection::everything()).await.unwrap();
    let table = &catalog.tables[0];
    assert_eq!(reader.formats(table).last(), Some(&Format::Rows));
    let unique = |name: &str| table.unique.iter().find(|unique| unique.name == name).unwrap();
    assert_eq!(unique("whole").columns, [3, 4]);
    assert!(unique("part").columns.is_empty(), "a partial index would be a whole one elsewhere");

    let start = reader.prepare("rows", &catalog).await.unwrap();
    let mut log = reader.capture("rows", &catalog, &start).await.unwrap();
    client.execute(ROWS).await.unwrap();
    let logged = logged(&mut *log).await;
    assert_eq!(logged.len(), 4);

    let wave = reader.wave(&[table], 1).await.unwrap();
    let copied = copied(&mut *wave.read(table, &Range::Whole, Format::Rows).await.unwrap()).await;
    assert!(copied.iter().all(|row| row[1].is_unchanged()), "the generated column");
    let stored = |row: &Row| -> Row { table.stored().map(|at| row[at].clone()).collect() };
    for (copied, logged) in copied.iter().zip(&logged) {
        for (at, (copied, logged)) in stored(copied).iter().zip(logged).enumerate() {
            assert_eq!(copied, logged, "stored column {at}");
        }
    }
    assert_eq!(copied.len(), logged.len());
    assert_eq!(borders(&*wave, table).await, copied.iter().map(key).collect::<Vec<_>>());
    for row in &copied {
        assert_eq!(reader.fetch(table, &key(row)).await.unwrap().row.as_ref(), Some(row));
    }
}

fn key(row: &Row) -> Key {
    Key(vec![row[0].clone()])
}

/// The rows of the next transaction, as the log has them: without the generated column.
async fn logged(log: &mut dyn Capture) -> Vec<Row> {
    let mut events = Vec::new();
    while !events.iter().any(|event| matches!(event, Event::Commit { .. })) {
        tokio::time::timeout(Duration::from_secs(20), log.next(&mut events)).await.unwrap().unwrap();
    }
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::Change(Change::Insert { new, .. }) => Some(new),
            _ => None,
        })
        .collect()
}

async fn copied(chunk: &mut dyn ChunkStream) -> Vec<Row> {
    let mut copied = Vec::new();
    while let Some(block) = chunk.next().await.unwrap() {
        let Block::Rows(rows) = block else { panic!("rows were asked for") };
        assert!(!rows.is_empty());
        copied.extend(rows);
    }
    assert_eq!(chunk.rows(), copied.len() as u64, "as the server counted them");
    copied
}

/// Of ranges of one row each: the key of every row.
async fn borders(wave: &dyn Wave, table: &Table) -> Vec<Key> {
    let slicing = Slicing::Keys { after: None, upto: None, ranges_max: 100 };
    let ranges = wave.plan(table, &slicing, 1).await.unwrap();
    let upto = |range: Range| match range {
        Range::Keys { upto, .. } => upto,
        other => panic!("{other:?}"),
    };
    ranges.into_iter().filter_map(upto).collect()
}
