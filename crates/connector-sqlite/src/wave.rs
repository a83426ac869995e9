//! Waves: chunk reads that share one exact cut.
//!
//! Plain SQLite cannot hand a snapshot from one connection to another. But it has one writer at a time: while we hold
//! the write lock nobody can commit, so every read transaction that begins meanwhile sees the same. The lock is held
//! for as long as it takes to begin them, and in its transaction the cut is noted as a boundary for capture.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use connector::{Block, ChunkStream, Error, ErrorKind, Format, Result, Slicing, Wave};
use model::{Cut, Key, Position, Range, Row, Table, Value};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params, params_from_iter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::database::{Session, open_source};
use crate::error::During;
use crate::log;
use crate::sql::{self, quote};
use crate::value::{self, Bound};

const BLOCK_ROWS: usize = 1_000;
const BLOCK_BYTES: usize = 1 << 20;
/// One that is read and one that is written.
const BLOCKS_AHEAD: usize = 2;
/// More readers of one file share the same disk and the same page cache.
const READERS_MAX: usize = 4;
/// Below this a chunk's commit costs more than its rows.
const CHUNK_ROWS_MIN: u64 = 1_000;

/// Read transactions that all see exactly the log's first `cut` entries.
pub(crate) fn cut(path: &Path, readers: usize) -> Result<(Vec<Connection>, u64)> {
    let operation = "take a cut";
    let connections =
        (0..readers.clamp(1, READERS_MAX)).map(|_| open_source(path)).collect::<Result<Vec<_>>>()?;
    let mut locker = open_source(path)?;
    let lock = locker.transaction_with_behavior(TransactionBehavior::Immediate).during(operation)?;
    let end = log::end(&lock)?;
    for reader in &connections {
        reader.execute_batch("PRAGMA query_only = ON; BEGIN").during(operation)?;
        // The first read takes the snapshot.
        if log::end(reader)? != end {
            return Err(Error::new(ErrorKind::Corrupt, operation).hint(
                "The file changed while we held its write lock: is it on a file system without working locks?",
            ));
        }
    }
    lock.execute(&format!("INSERT OR IGNORE INTO {} (seq) VALUES (?1)", log::BOUNDARY), [log::signed(end)])
        .during(operation)?;
    lock.commit().during(operation)?;
    Ok((connections, end))
}

pub(crate) struct SqliteWave {
    pool: Arc<Pool>,
    cut: Cut,
    settled: Position,
}

impl SqliteWave {
    pub(crate) fn new(connections: Vec<Connection>, end: u64) -> SqliteWave {
        SqliteWave {
            pool: Arc::new(Pool::new(connections)),
            cut: Cut::Prefix { order: end },
            settled: log::position(end),
        }
    }
}

#[async_trait]
impl Wave for SqliteWave {
    fn cut(&self) -> &Cut {
        &self.cut
    }

    fn settled(&self) -> &Position {
        &self.settled
    }

    async fn plan(&self, table: &Table, slicing: &Slicing, bytes: u64) -> Result<Vec<Range>> {
        let has_order = table.key_order().is_some();
        let (after, upto, ranges_max) = match slicing {
            Slicing::OneCut if !has_order => return Ok(vec![Range::Whole]),
            Slicing::OneCut => (None, None, usize::MAX),
            Slicing::Keys { after, upto, ranges_max } if has_order => {
                (after.clone(), upto.clone(), *ranges_max)
            }
            Slicing::Keys { .. } => return Err(unordered(table)),
        };
        let lease = self.pool.lease().await?;
        let table = table.clone();
        lease
            .session
            .clone()
            .run(move |connection| plan_keys(connection, &table, after, upto, ranges_max, bytes))
            .await
    }

    async fn read(&self, table: &Table, range: &Range, format: Format) -> Result<Box<dyn ChunkStream>> {
        if format != Format::Rows {
            return Err(Error::new(ErrorKind::Setup, "read a chunk")
                .with("table", &table.name)
                .with("format", format!("{format:?}"))
                .hint("SQLite gives chunks as rows of values."));
        }
        let select = Select::new(table, range)?;
        let lease = self.pool.lease().await?;
        let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
        tokio::task::spawn_blocking(move || {
            let result = lease.session.run_here(|connection| select.send(connection, &sender));
            if let Err(error) = result
                && sender.blocking_send(Err(error)).is_err()
            {
                tracing::debug!("a chunk read ended after its reader had gone");
            }
        });
        Ok(Box::new(Rows { receiver, count: 0, complete: false }))
    }
}

/// The readers of one wave, lent out one by one.
struct Pool {
    free: Mutex<Vec<Session>>,
    permits: Arc<Semaphore>,
}

struct Lease {
    session: Session,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    fn new(connections: Vec<Connection>) -> Pool {
        let free: Vec<Session> = connections.into_iter().map(Session::new).collect();
        let permits = Arc::new(Semaphore::new(free.len()));
        Pool { free: Mutex::new(free), permits }
    }

    async fn lease(self: &Arc<Pool>) -> Result<Lease> {
        let gone = || Error::new(ErrorKind::Database, "wait for a free reader");
        let permit = self.permits.clone().acquire_owned().await.map_err(|error| gone().source(error))?;
        let session = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or_else(gone)?;
        Ok(Lease { session, pool: self.clone(), _permit: permit })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The permit is given back after this body, when the session is there again.
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.session.clone());
    }
}

fn unordered(table: &Table) -> Error {
    Error::new(ErrorKind::Setup, "read a table by key ranges").with("table", &table.name).hint(
        "Only an INTEGER PRIMARY KEY is ordered the same way here and in SQLite. The table has to be read under one cut.",
    )
}

/// Walks the key in steps of as many rows as fill `bytes`; the last range ends at `upto`, unless `ranges_max` stopped
/// the walk before.
fn plan_keys(
    connection: &Connection,
    table: &Table,
    after: Option<Key>,
    upto: Option<Key>,
    ranges_max: usize,
    bytes: u64,
) -> Result<Vec<Range>> {
    let key = key_column(table)?;
    let row_bytes = (table.bytes / table.rows_estimate.unwrap_or(0).max(1)).max(32);
    let step = (bytes / row_bytes).max(CHUNK_ROWS_MIN);
    let high = upto.as_ref().map_or(Ok(i64::MAX), |key| integer(table, key))?;
    // With no lower bound the walk must not step over the least key of all.
    let (mut low, mut above) = match &after {
        Some(key) => (integer(table, key)?, ">"),
        None => (i64::MIN, ">="),
    };
    let (mut ranges, mut from) = (Vec::new(), after);
    while ranges.len() < ranges_max {
        let sql = format!(
            "SELECT {key} FROM {} WHERE {key} {above} ?1 AND {key} < ?2 ORDER BY {key} LIMIT 1 OFFSET ?3",
            quote(&table.name.name)
        );
        let next: Option<i64> = connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                statement.query_row(params![low, high, log::signed(step - 1)], |row| row.get(0)).optional()
            })
            .during("plan a table's chunks")
            .map_err(|error| error.with("table", &table.name))?;
        let Some(at) = next else { break };
        let bound = Key(vec![Value::Integer(at)]);
        ranges.push(Range::Keys { after: from, upto: Some(bound.clone()) });
        (low, above, from) = (at, ">", Some(bound));
    }
    if ranges.len() < ranges_max || ranges.is_empty() {
        ranges.push(Range::Keys { after: from, upto });
    }
    Ok(ranges)
}

fn key_column(table: &Table) -> Result<String> {
    match (table.key(), table.key_order()) {
        (Some(&[column]), Some(_)) => Ok(quote(&table.columns[column].name)),
        _ => Err(unordered(table)),
    }
}

fn integer(table: &Table, key: &Key) -> Result<i64> {
    match key.0[..] {
        [Value::Integer(integer)] => Ok(integer),
        _ => Err(unordered(table).with("key", key)),
    }
}

/// One range's SELECT, ready to run on a reader.
struct Select {
    sql: String,
    bounds: Vec<Value>,
    /// Indexes into the row's cells of what the SELECT gives.
    stored: Vec<usize>,
    width: usize,
    table: String,
}

impl Select {
    fn new(table: &Table, range: &Range) -> Result<Select> {
        let stored: Vec<usize> = table.stored().collect();
        let columns = sql::list(&stored, |&at| quote(&table.columns[at].name));
        let name = quote(&table.name.name);
        let (condition, bounds) = match range {
            Range::Whole => (String::new(), Vec::new()),
            Range::Keys { after, upto } => {
                let key = key_column(table)?;
                let mut conditions = Vec::new();
                let mut bounds = Vec::new();
                for (bound, operator) in [(after, ">"), (upto, "<=")] {
                    if let Some(bound) = bound {
                        bounds.push(Value::Integer(integer(table, bound)?));
                        conditions.push(format!("{key} {operator} ?{}", bounds.len()));
                    }
                }
                (format!(" WHERE {} ORDER BY {key}", sql::all(conditions, |condition| condition)), bounds)
            }
            Range::Blocks { .. } => {
                return Err(Error::new(ErrorKind::Setup, "read a chunk")
                    .with("table", &table.name)
                    .hint("SQLite has no block ranges."));
            }
        };
        let sql = format!("SELECT {columns} FROM {name}{condition}");
        Ok(Select { sql, bounds, stored, width: table.columns.len(), table: table.name.to_string() })
    }

    /// Sends blocks until the range is complete or nobody listens.
    fn send(&self, connection: &Connection, sender: &mpsc::Sender<Result<Piece>>) -> Result<()> {
        let walk = || -> rusqlite::Result<()> {
            let mut statement = connection.prepare_cached(&self.sql)?;
            let mut rows = statement.query(params_from_iter(self.bounds.iter().map(Bound)))?;
            let (mut block, mut bytes, mut total) = (Vec::new(), 0, 0);
            while let Some(row) = rows.next()? {
                let row = self.row(row)?;
                bytes += row.iter().map(Value::weight).sum::<usize>();
                block.push(row);
                total += 1;
                if block.len() == BLOCK_ROWS || bytes >= BLOCK_BYTES {
                    if sender.blocking_send(Ok(Piece::Block(std::mem::take(&mut block)))).is_err() {
                        return Ok(());
                    }
                    bytes = 0;
                }
            }
            let last = if block.is_empty() { Ok(()) } else { sender.blocking_send(Ok(Piece::Block(block))) };
            if last.and_then(|()| sender.blocking_send(Ok(Piece::End(total)))).is_err() {
                tracing::debug!("a chunk was read to its end after its reader had gone");
            }
            Ok(())
        };
        walk().during("read a chunk").map_err(|error| error.with("table", &self.table))
    }

    fn row(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
        let mut cells = vec![Value::Unchanged; self.width];
        for (at, &column) in self.stored.iter().enumerate() {
            cells[column] = value::from_sqlite(row.get_ref(at)?);
        }
        Ok(cells)
    }
}

/// One row by its key, under the read transaction of this connection.
pub(crate) fn fetch(connection: &Connection, table: &Table, key: &Key) -> Result<Option<Row>> {
    let Some(columns) = table.key() else {
        return Err(Error::new(ErrorKind::Setup, "read a row by its key").with("table", &table.name));
    };
    let mut select = Select::new(table, &Range::Whole)?;
    let by_key = sql::all(columns.iter().enumerate(), |(at, &column)| {
        format!("{} IS ?{}", quote(&table.columns[column].name), at + 1)
    });
    select.sql = format!("{} WHERE {by_key}", select.sql);
    let read = || -> rusqlite::Result<Option<Row>> {
        let mut statement = connection.prepare(&select.sql)?;
        let mut rows = statement.query(params_from_iter(key.0.iter().map(Bound)))?;
        rows.next()?.map(|row| select.row(row)).transpose()
    };
    read().during("read a row by its key").map_err(|error| error.with("table", &table.name).with("key", key))
}

enum Piece {
    Block(Vec<Row>),
    /// SQLite has said that there are no more rows; how many there were.
    End(u64),
}

struct Rows {
    receiver: mpsc::Receiver<Result<Piece>>,
    count: u64,
    complete: bool,
}

#[async_trait]
impl ChunkStream for Rows {
    async fn next(&mut self) -> Result<Option<Block>> {
        if self.complete {
            return Ok(None);
        }
        match self.receiver.recv().await {
            Some(Ok(Piece::Block(rows))) => Ok(Some(Block::Rows(rows))),
            Some(Ok(Piece::End(count))) => {
                (self.count, self.complete) = (count, true);
                Ok(None)
            }
            Some(Err(error)) => Err(error),
            // A reader that went without a word has not reached the end.
            None => Err(Error::new(ErrorKind::Database, "read a chunk to its end")),
        }
    }

    fn rows(&self) -> u64 {
        self.count
    }
}
