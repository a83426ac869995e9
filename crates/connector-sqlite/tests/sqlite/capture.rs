//! Capture and cuts, while other connections write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use connector::{Capture, ErrorKind, Event, Selection, Slicing};
use model::{Change, Cut, Range, Value};
use rusqlite::Connection;

use crate::replica::Replica;
use crate::scratch::{Scratch, everything};

const TABLES: &str = "
    CREATE TABLE accounts (id INTEGER PRIMARY KEY AUTOINCREMENT, balance INT NOT NULL, note);
    CREATE TABLE events (at TEXT, what);
    INSERT INTO accounts (balance) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) SELECT 100 FROM n;
";

/// Every transaction leaves the sum of the balances alone.
fn transfer(app: &Connection, mut round: u64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        round += 7;
        let end = if round.is_multiple_of(5) { "ROLLBACK" } else { "COMMIT" };
        app.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             UPDATE accounts SET balance = balance - 5 WHERE id = {round} % 400 + 1;
             INSERT INTO events VALUES ('now', {round} % 5);
             UPDATE accounts SET balance = balance + 5, note = {round} WHERE id = {round} % 100 + 200;
             DELETE FROM events WHERE rowid = (SELECT min(rowid) FROM events) AND {round} % 3 = 0;
             {end};",
        ))
        .unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn every_cut_is_exact_while_others_write() {
    let scratch = Scratch::new();
    scratch.open("source.db").execute_batch(TABLES).unwrap();
    let reader = scratch.reader("source.db");
    let catalog = everything(&*reader).await;
    let start = reader.prepare("test", &catalog).await.unwrap();
    let mut capture = reader.capture("test", &catalog, &start).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let (app, stop) = (scratch.open("source.db"), stop.clone());
            std::thread::spawn(move || transfer(&app, writer, &stop))
        })
        .collect();
    let mut copies = Vec::new();
    for _ in 0..12 {
        copies.push(Replica::copy(&*reader, &catalog).await);
    }
    stop.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let end = reader.position().await.unwrap();
    let (now, _) = Replica::copy(&*reader, &catalog).await;
    for (replica, cut) in &mut copies {
        let sum: i64 = replica.tables[&catalog.tables[0].name]
            .iter()
            .map(|row| if let Value::Integer(balance) = row[1] { balance } else { 0 })
            .sum();
        assert_eq!(sum, 40_000, "the cut at {cut} goes through a transaction");
        let mut again = reader.capture("test", &catalog, &start).await.unwrap();
        replica.follow(&mut *again, *cut, end.order).await;
        assert_eq!(replica.sorted(), now.sorted(), "from the cut at {cut}");
    }
    assert!(copies.iter().any(|(replica, _)| replica.changes > 0));
    let mut events = Vec::new();
    capture.next(&mut events).await.unwrap();
    assert!(matches!(events[0], Event::Begin(_)));
}

async fn up_to(capture: &mut dyn Capture, order: u64) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        capture.next(&mut events).await.unwrap();
        if let Some(Event::Commit { position } | Event::Idle { position }) = events.last()
            && position.order >= order
        {
            return events;
        }
    }
}

#[tokio::test]
async fn a_large_transaction_comes_in_pieces_and_exactly() {
    let scratch = Scratch::new();
    let app = scratch.open("source.db");
    app.execute_batch("CREATE TABLE t (k TEXT NOT NULL PRIMARY KEY, v, g AS (v || '!') STORED)").unwrap();
    let reader = scratch.reader("source.db");
    let catalog = everything(&*reader).await;
    let start = reader.prepare("test", &catalog).await.unwrap();
    let mut capture = reader.capture("test", &catalog, &start).await.unwrap();
    app.execute_batch(
        "BEGIN;
         INSERT INTO t (k, v) VALUES ('a', 1), ('b', 1.0), ('c', '1'), ('d', x'31'), ('e', NULL), ('f', CAST(x'ff' AS TEXT));
         UPDATE t SET k = 'z', v = -0.5 WHERE k = 'a'; UPDATE t SET v = 2 WHERE k = 'b'; DELETE FROM t WHERE k = 'c';
         INSERT INTO t (k, v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000) SELECT i, i FROM n;
         COMMIT;",
    )
    .unwrap();
    let end = reader.position().await.unwrap();
    let mut first = Vec::new();
    capture.next(&mut first).await.unwrap();
    capture.next(&mut first).await.unwrap();
    assert!(first.len() < 3_000, "{}", first.len());
    let events = [first, up_to(&mut *capture, end.order).await].concat();
    let changes: Vec<&Change> = events
        .iter()
        .filter_map(|event| if let Event::Change(change) = event { Some(change) } else { None })
        .collect();
    assert_eq!(changes.len(), 9_009);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Begin(_))).count(), 1);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Relation(_))).count(), 1);
    let new = |at: usize| match changes[at] {
        Change::Insert { new, .. } => new[1].clone(),
        other => panic!("{other:?}"),
    };
    let blob = Value::Blob(bytes::Bytes::from_static(b"1"));
    assert_eq!(
        [new(0), new(1), new(2), new(3), new(4)],
        [Value::Integer(1), Value::Real(1.0), Value::text("1"), blob, Value::Null]
    );
    assert_eq!(new(5), Value::Text(bytes::Bytes::from_static(&[0xff])));
    let Change::Update { old: Some(old), new, .. } = changes[6] else { panic!("{:?}", changes[6]) };
    assert_eq!(
        (old, new),
        (&vec![Value::text("a"), Value::Unchanged], &vec![Value::text("z"), Value::Real(-0.5)])
    );
    assert!(matches!(changes[7], Change::Update { old: None, .. }));
    assert!(matches!(changes[8], Change::Delete { .. }));
}

#[tokio::test]
async fn a_log_with_a_hole_is_refused() {
    let scratch = Scratch::new();
    let app = scratch.open("source.db");
    app.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v)").unwrap();
    let reader = scratch.reader("source.db");
    let catalog = everything(&*reader).await;
    let start = reader.prepare("test", &catalog).await.unwrap();
    assert_eq!(reader.prepare("test", &catalog).await.unwrap(), start, "prepare is idempotent");
    assert_eq!(reader.prepare("other", &catalog).await.unwrap_err().kind, ErrorKind::Setup);
    app.execute_batch("INSERT INTO t (v) VALUES (1), (2)").unwrap();
    let end = reader.position().await.unwrap();
    let mut capture = reader.capture("test", &catalog, &start).await.unwrap();
    up_to(&mut *capture, end.order).await;
    capture.acknowledge(&end).await.unwrap();
    let left: i64 = app.query_row("SELECT count(*) FROM _crossfade_log", [], |row| row.get(0)).unwrap();
    assert_eq!((left, reader.position().await.unwrap()), (0, end.clone()));
    assert_eq!(reader.capture("test", &catalog, &start).await.err().unwrap().kind, ErrorKind::LogLost);
    reader.capture("test", &catalog, &end).await.unwrap();

    app.execute_batch("DROP TRIGGER _crossfade_after_delete_t").unwrap();
    assert_eq!(reader.capture("test", &catalog, &end).await.err().unwrap().kind, ErrorKind::LogLost);
    app.execute_batch("INSERT INTO t (v) VALUES (3)").unwrap();
    reader.prepare("test", &catalog).await.unwrap();
    assert_eq!(
        reader.capture("test", &catalog, &end).await.err().unwrap().kind,
        ErrorKind::LogLost,
        "mended, with a hole"
    );

    reader.release("test", &catalog).await.unwrap();
    let ours: i64 = app
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_crossfade%' ESCAPE '\\'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(ours, 0);
    reader.prepare("test", &catalog).await.unwrap();
    assert_eq!(
        reader.capture("test", &catalog, &end).await.err().unwrap().kind,
        ErrorKind::LogLost,
        "another log"
    );
}

#[tokio::test]
async fn a_schema_change_stops_capture() {
    for (change, expected) in [
        ("ALTER TABLE t ADD COLUMN w", "column w was added"),
        ("ALTER TABLE t RENAME COLUMN v TO w", "column w was added"),
        ("ALTER TABLE t RENAME TO s", "the table is gone"),
        ("CREATE UNIQUE INDEX t_v ON t (v)", "a unique index"),
    ] {
        let scratch = Scratch::new();
        let app = scratch.open("source.db");
        app.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v)").unwrap();
        let reader = scratch.reader("source.db");
        let catalog = everything(&*reader).await;
        let start = reader.prepare("test", &catalog).await.unwrap();
        let mut capture = reader.capture("test", &catalog, &start).await.unwrap();
        let mut events = Vec::new();
        capture.next(&mut events).await.unwrap();
        app.execute_batch(&format!("INSERT INTO t VALUES (1, 1); {change}")).unwrap();
        let error = capture.next(&mut events).await.unwrap_err();
        assert!(error.kind == ErrorKind::Schema && error.to_string().contains(expected), "{change}: {error}");
        assert!(error.to_string().contains("main.t"), "{error}");
    }
}

#[tokio::test]
async fn ranges_hold_every_row_once() {
    let scratch = Scratch::new();
    let app = scratch.open("source.db");
    app.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v)").unwrap();
    app.execute_batch(
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5500)
         SELECT CASE i WHEN 1 THEN -9223372036854775808 WHEN 2 THEN 9223372036854775807 ELSE i * 1000003 - 900000 END, i FROM n",
    )
    .unwrap();
    let reader = scratch.reader("source.db");
    let catalog = everything(&*reader).await;
    reader.prepare("test", &catalog).await.unwrap();
    let (replica, _) = Replica::copy(&*reader, &catalog).await;
    assert_eq!(replica.tables[&catalog.tables[0].name].len(), 5_500);

    let table = &catalog.tables[0];
    let wave = reader.wave(&[table], 1).await.unwrap();
    let (mut after, mut waves) = (None, 0);
    loop {
        let slicing = Slicing::Keys { after: after.clone(), upto: None, ranges_max: 2 };
        let ranges = wave.plan(table, &slicing, 1).await.unwrap();
        assert!(ranges.len() <= 2);
        let Some(Range::Keys { after: first, .. }) = ranges.first() else { panic!("{ranges:?}") };
        assert_eq!(*first, after);
        waves += 1;
        match ranges.last() {
            Some(Range::Keys { upto: Some(upto), .. }) => after = Some(upto.clone()),
            _ => break,
        }
    }
    assert_eq!(waves, 3);
    let fetched = reader.fetch(table, &model::Key(vec![Value::Integer(i64::MIN)])).await.unwrap();
    assert_eq!(fetched.row, Some(vec![Value::Integer(i64::MIN), Value::Integer(1)]));
    assert!(matches!(fetched.cut, Cut::Prefix { .. }));
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let scratch = Scratch::new();
    let error = connector_sqlite::open_reader(&scratch.url("absent.db")).err().unwrap();
    assert!(error.kind == ErrorKind::Io && error.to_string().contains("absent.db"), "{error}");
    std::fs::write(
        scratch.path("text.db"),
        "this is not a database, and it is long enough to be sure of that",
    )
    .unwrap();
    assert_eq!(
        connector_sqlite::open_reader(&scratch.url("text.db")).err().unwrap().kind,
        ErrorKind::Corrupt
    );

    let app = scratch.open("source.db");
    app.execute_batch(
        "CREATE TABLE loose (k TEXT PRIMARY KEY, v); INSERT INTO loose VALUES (NULL, 1);
         CREATE TABLE bag (v); CREATE TABLE \"rowid\" (rowid, oid, _rowid_);
         CREATE TABLE computed (id INTEGER PRIMARY KEY, g AS (id + 1));",
    )
    .unwrap();
    let reader = scratch.reader("source.db");
    let mut found: Vec<&str> =
        reader.check(&Selection::everything()).await.unwrap().iter().map(|finding| finding.id).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        ["SQ-CAPTURE", "SQ-GENERATED", "SQ-JOURNAL-MODE", "SQ-NO-KEY", "SQ-NO-KEY", "SQ-NULL-IN-KEY"]
    );
    let nothing = Selection { include: vec!["nothing".to_owned()] };
    assert_eq!(reader.catalog(&nothing).await.unwrap_err().kind, ErrorKind::Setup);
}
