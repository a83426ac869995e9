//! Capture: the change log, polled, as transactions.
//!
//! One poll sees a whole number of committed transactions. They are delivered as one, which is a correct prefix of the
//! source at its end and costs the target one commit; it never reaches across a cut that a wave has taken, because a
//! transaction must lie before a cut as a whole or after it as a whole.
//! The entries up to a boundary never change, so a large transaction is read page by page without holding a read
//! transaction, and a page whose future was dropped is read again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connector::{Capture, Error, ErrorKind, Event, Result};
use model::{Catalog, Change, Key, Position, Relation, RelationColumn, Row, Table, Transaction, Value};
use rusqlite::{Connection, OptionalExtension, params};

use crate::database::Session;
use crate::error::{During, describe, is_busy};
use crate::log;
use crate::value;

/// Right after a transaction the next one is likely; when nothing comes, asking becomes rarer. `data_version` costs
/// microseconds, so the bounds are about latency and not about load.
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(100);
/// How often a quiet source is reported as such.
const IDLE_EVERY: Duration = Duration::from_secs(5);
const PAGE_CHANGES: u32 = 2_000;
const PAGE_BYTES: usize = 4 << 20;
/// Deleting what is durable elsewhere is never urgent: a few times a second, in pieces that hold the write lock for
/// some ten milliseconds.
const TRIM_EVERY: Duration = Duration::from_millis(300);
const TRIM_ENTRIES: u32 = 4_000;
const TRIM_PIECES_MAX: usize = 8;
const TRIM_BUSY_MS: u64 = 50;

pub(crate) struct LogCapture {
    session: Session,
    tables: Arc<Tables>,
    catalog: Arc<Catalog>,
    /// Everything up to here has been handed out.
    done: u64,
    /// The transaction that is being handed out ends here.
    open: Option<u64>,
    announced: Vec<bool>,
    seen: Seen,
    last_idle: Option<Instant>,
    trimmer: Session,
    last_trim: Option<Instant>,
}

/// What a poll compares itself with, to find out cheaply that nothing has happened.
#[derive(Clone, Copy, Default)]
struct Seen {
    data_version: Option<i64>,
    schema_version: Option<i64>,
}

/// Each table's share of a log entry.
struct Tables {
    by_name: HashMap<String, usize>,
    shapes: Vec<Shape>,
    select: String,
}

struct Shape {
    relation: Relation,
    /// Indexes into the relation's columns under which old rows are logged.
    old: Vec<usize>,
    has_key: bool,
}

enum Poll {
    Nothing(Seen),
    Transaction { upto: u64, seen: Seen },
}

impl LogCapture {
    pub(crate) fn open(
        connection: Connection,
        trimmer: Connection,
        stream: &str,
        catalog: &Catalog,
        after: &Position,
    ) -> Result<LogCapture> {
        log::verify(&connection, stream, catalog, after.order)?;
        trimmer.busy_timeout(Duration::from_millis(TRIM_BUSY_MS)).during("open the change log")?;
        Ok(LogCapture {
            session: Session::new(connection),
            tables: Arc::new(Tables::new(catalog)),
            catalog: Arc::new(catalog.clone()),
            done: after.order,
            open: None,
            announced: vec![false; catalog.tables.len()],
            seen: Seen::default(),
            last_idle: None,
            trimmer: Session::new(trimmer),
            last_trim: None,
        })
    }

    /// Waits for the next transaction, or for the time to say that there is none.
    async fn begin(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let mut pause = POLL_MIN;
        loop {
            let (catalog, done, seen) = (self.catalog.clone(), self.done, self.seen);
            match self.session.run(move |connection| poll(connection, &catalog, done, seen)).await? {
                Poll::Transaction { upto, seen } => {
                    self.seen = seen;
                    self.open = Some(upto);
                    let committed_us = i64::try_from(log::now_us()).unwrap_or(i64::MAX);
                    events.push(Event::Begin(Transaction { seq: 0, id: upto, order: upto, committed_us }));
                    return Ok(());
                }
                Poll::Nothing(seen) => self.seen = seen,
            }
            if self.last_idle.is_none_or(|last| last.elapsed() >= IDLE_EVERY) {
                self.last_idle = Some(Instant::now());
                events.push(Event::Idle { position: log::position(self.done) });
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// Hands out the next page of the open transaction, and its end after the last.
    async fn page(&mut self, upto: u64, events: &mut Vec<Event>) -> Result<()> {
        let (tables, done) = (self.tables.clone(), self.done);
        let page = self.session.run(move |connection| read_page(connection, &tables, done, upto)).await?;
        for (table, change) in page.changes {
            if !self.announced[table] {
                self.announced[table] = true;
                events.push(Event::Relation(self.tables.shapes[table].relation.clone()));
            }
            events.push(Event::Change(change));
        }
        self.done = page.done;
        if page.done == upto {
            self.open = None;
            events.push(Event::Commit { position: log::position(upto) });
        }
        Ok(())
    }
}

#[async_trait]
impl Capture for LogCapture {
    async fn next(&mut self, events: &mut Vec<Event>) -> Result<()> {
        // Nothing is handed out before the last await of a step, and the state moves with it: a dropped future loses
        // nothing.
        match self.open {
            None => self.begin(events).await,
            Some(upto) => self.page(upto, events).await,
        }
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<()> {
        if self.last_trim.is_some_and(|last| last.elapsed() < TRIM_EVERY) {
            return Ok(());
        }
        self.last_trim = Some(Instant::now());
        let upto = position.order;
        self.trimmer
            .run(move |connection| {
                for _ in 0..TRIM_PIECES_MAX {
                    match log::trim(connection, upto, TRIM_ENTRIES) {
                        Ok(true) => {}
                        Ok(false) => break,
                        // The application is writing: the next acknowledgement tries again.
                        Err(error) if is_busy(&error) => {
                            tracing::debug!(upto, "the change log is trimmed later: the source is busy");
                            break;
                        }
                        Err(error) => return Err(describe(error, "free the change log")),
                    }
                }
                Ok(())
            })
            .await
    }

    /// Where we are stands in our journal alone. What is not trimmed yet the next run trims.
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

fn poll(connection: &mut Connection, catalog: &Catalog, done: u64, seen: Seen) -> Result<Poll> {
    let operation = "poll the change log";
    let pragma = |connection: &Connection, name: &str| -> Result<i64> {
        connection
            .prepare_cached(&format!("PRAGMA {name}"))
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .during(operation)
    };
    // Read before the transaction begins: a commit in between is then found by the next poll at the latest.
    let data_version = Some(pragma(connection, "data_version")?);
    if data_version == seen.data_version {
        return Ok(Poll::Nothing(seen));
    }
    let transaction = connection.transaction().during(operation)?;
    let schema_version = Some(pragma(&transaction, "schema_version")?);
    if schema_version != seen.schema_version {
        log::verify_tables(&transaction, catalog)?;
    }
    let end = log::end(&transaction)?;
    let boundary: Option<i64> = transaction
        .prepare_cached("SELECT min(seq) FROM _crossfade_boundary WHERE seq > ?1")
        .and_then(|mut statement| statement.query_row([log::signed(done)], |row| row.get(0)).optional())
        .during(operation)?
        .flatten();
    transaction.finish().during(operation)?;
    if end < done {
        return Err(log::lost(format!("it ends at {end}: was the file replaced by an older copy?")));
    }
    let upto = boundary.and_then(|seq| u64::try_from(seq).ok()).map_or(end, |boundary| boundary.min(end));
    if upto == done {
        return Ok(Poll::Nothing(Seen { data_version, schema_version }));
    }
    // There may be more behind the boundary: the next poll has to look again.
    let data_version = if upto == end { data_version } else { None };
    Ok(Poll::Transaction { upto, seen: Seen { data_version, schema_version } })
}

struct Page {
    changes: Vec<(usize, Change)>,
    /// Everything up to here is in this page or before it.
    done: u64,
}

fn read_page(connection: &mut Connection, tables: &Tables, done: u64, upto: u64) -> Result<Page> {
    let read = || -> rusqlite::Result<std::result::Result<Page, String>> {
        let mut statement = connection.prepare_cached(&tables.select)?;
        let mut rows = statement.query(params![log::signed(done), log::signed(upto), PAGE_CHANGES])?;
        let (mut changes, mut count, mut bytes, mut last) = (Vec::new(), 0_u32, 0, done);
        while let Some(row) = rows.next()? {
            last = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
            count += 1;
            let Some(&table) = tables.by_name.get(row.get_ref(1)?.as_str()?) else { continue };
            let Some(change) = decode(&tables.shapes[table], table, row)? else {
                return Ok(Err(format!("entry {last}")));
            };
            bytes += change.weight();
            changes.push((table, change));
            if bytes >= PAGE_BYTES {
                return Ok(Ok(Page { changes, done: last }));
            }
        }
        let done = if count == PAGE_CHANGES { last } else { upto };
        Ok(Ok(Page { changes, done }))
    };
    read().during("read the change log")?.map_err(|entry| {
        Error::new(ErrorKind::Corrupt, "understand the change log")
            .with("at", entry)
            .hint("The change log was written to by something else than our triggers.")
    })
}

/// `None` for an operation that no trigger of ours writes.
fn decode(shape: &Shape, table: usize, entry: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Change>> {
    let relation = relation_id(table);
    let width = shape.relation.columns.len();
    let cell = |at: usize| Ok(value::from_sqlite(entry.get_ref(FIRST_CELL + at)?));
    let old_row = || -> rusqlite::Result<Row> {
        let mut row = vec![Value::Unchanged; width];
        for (at, &column) in shape.old.iter().enumerate() {
            row[column] = cell(at)?;
        }
        Ok(row)
    };
    let new_row = |from: usize| (from..from + width).map(cell).collect::<rusqlite::Result<Row>>();
    Ok(Some(match entry.get_ref(2)?.as_str()? {
        "I" => Change::Insert { relation, new: new_row(0)? },
        "D" => Change::Delete { relation, old: old_row()? },
        "U" => {
            let (old, new) = (old_row()?, new_row(shape.old.len())?);
            let same_key = shape.has_key && Key::of(&old, &shape.old) == Key::of(&new, &shape.old);
            Change::Update { relation, old: (!same_key).then_some(old), new }
        }
        _ => return Ok(None),
    }))
}

/// `seq, tbl, op` come first.
const FIRST_CELL: usize = 3;

fn relation_id(table: usize) -> u32 {
    u32::try_from(table).unwrap_or(u32::MAX)
}

impl Tables {
    fn new(catalog: &Catalog) -> Tables {
        let shapes: Vec<Shape> =
            catalog.tables.iter().enumerate().map(|(at, table)| Shape::new(relation_id(at), table)).collect();
        let cells =
            shapes.iter().map(|shape| shape.old.len() + shape.relation.columns.len()).max().unwrap_or(0);
        let select = format!(
            "SELECT seq, tbl, op, {} FROM _crossfade_log WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
            log::cells(cells)
        );
        let names = catalog.tables.iter().enumerate();
        Tables { by_name: names.map(|(at, table)| (table.name.name.clone(), at)).collect(), shapes, select }
    }
}

impl Shape {
    fn new(id: u32, table: &Table) -> Shape {
        let stored: Vec<usize> = table.stored().collect();
        let is_old = |at: &usize| table.key().is_none_or(|key| key.contains(at));
        let columns = stored
            .iter()
            .map(|at| RelationColumn {
                name: table.columns[*at].name.clone(),
                type_id: 0,
                type_modifier: -1,
                key: is_old(at),
            })
            .collect();
        let old = match table.key() {
            Some(key) => key.iter().filter_map(|at| stored.iter().position(|stored| stored == at)).collect(),
            None => (0..stored.len()).collect(),
        };
        let has_key = table.key().is_some();
        Shape {
            relation: Relation { id, table: table.name.clone(), columns, whole_old_row: !has_key },
            old,
            has_key,
        }
    }
}

#[cfg(test)]
mod properties;
