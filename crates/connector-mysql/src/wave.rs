//! One cut over some tables, and chunk reads under it.
//!
//! A snapshot of MariaDB is a prefix of its log: it is taken under the lock that puts commits in order, and says itself
//! where it lies (`binlog_snapshot_file`, `binlog_snapshot_position`). It cannot be handed from one session to another; so
//! several sessions take one each at the same time, and those that came to lie at the same place share the wave.
//!
//! A SELECT locks the table's definition until its transaction ends, and whoever wants to change it stops everybody behind
//! him. So each chunk is read behind a savepoint: going back to it gives the lock away and keeps the snapshot.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connector::{Block, ChunkStream, Error, ErrorKind, Format, Result, Retry, Slicing, Wave};
use model::{Cut, Key, Position, Range, Row, Table, TableName, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::cells::Cells;
use crate::column_type::ColumnType;
use crate::error;
use crate::place::Exact;
use crate::position::{Coordinates, GtidPosition};
use crate::prepared::Statement;
use crate::select::Select;
use crate::url::Settings;
use crate::value;
use crate::wire::Client;
use crate::{place, session};

const BLOCK_ROWS: usize = 1_000;
const BLOCK_BYTES: usize = 1 << 20;
/// Below this a chunk's commit costs more than its rows.
const CHUNK_ROWS_MIN: u64 = 1_000;
/// A busy server commits between any two of our sessions; one reader is always enough.
const ROUNDS_MAX: usize = 20;

/// A session inside a transaction that shows what the log says up to a place.
struct Snapshot {
    client: Client,
    at: Coordinates,
}

/// Sessions that see exactly what the log has up to a place; at least one.
async fn exact(settings: &Settings, count: usize, known: &Exact) -> Result<(Vec<Client>, Coordinates)> {
    let started = Instant::now();
    loop {
        if let Some(found) = between_places(settings, count, known).await? {
            return Ok(found);
        }
        match between_commits(settings, count).await {
            Ok((clients, at)) => {
                known.note(&at);
                return Ok((clients, at));
            }
            Err(error) if is_awaited(&error) && started.elapsed() < PATIENCE => {
                tokio::time::sleep(PATIENCE_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Some transaction's end, if the log comes to lie at one.
async fn between_places(
    settings: &Settings,
    count: usize,
    known: &Exact,
) -> Result<Option<(Vec<Client>, Coordinates)>> {
    let mut last = None;
    for round in 0..PLACES_MAX {
        tokio::time::sleep(PAUSE * round).await;
        let (clients, at) = snapshots(open(settings, count).await?).await?;
        // A place that stays where it is, where no transaction of InnoDB ends, is worth reading the file for.
        let is_exact = known.is(&at)
            || place::ends_a_transaction(settings, &at).await?
            || (last.as_ref() == Some(&at) && place::is_exact(settings, &at).await?);
        if is_exact {
            known.note(&at);
            return Ok(Some((clients, at)));
        }
        last = Some(at);
    }
    Ok(None)
}

/// A commit that lasts: it waits for a replica (semi-synchronous), for a slow disk, for a backup.
fn is_awaited(error: &Error) -> bool {
    error::number(error) == Some(1205)
}

/// With no commit under way every place is exact. Waits for the commits that are, and makes others wait meanwhile: for as
/// long as it takes to begin transactions in sessions that are open already.
///
/// The server ends the pause by itself when this session ends, and this session when nothing is heard of it: a machine or a
/// network that is gone may not stop the application's commits.
async fn between_commits(settings: &Settings, count: usize) -> Result<(Vec<Client>, Coordinates)> {
    let sessions = open(settings, count).await?;
    let mut holder = session::asking(settings).await?;
    holder.doing(FIT).execute("SET wait_timeout = 2, lock_wait_timeout = 1").await?;
    for stage in ["START", "BLOCK_COMMIT"] {
        holder.execute(&format!("BACKUP STAGE {stage}")).await.map_err(unknown)?;
    }
    let taken = snapshots(sessions).await?;
    // Refused when the session has been ended meanwhile, and the commits have gone on.
    holder.execute("BACKUP STAGE END").await?;
    Ok(taken)
}

/// Why the pause could not be had, and what helps.
fn unknown(error: Error) -> Error {
    let hint = match error.kind {
        ErrorKind::Connect => return error,
        _ if is_awaited(&error) => {
            "a commit on the source has lasted for half a minute (does it wait for a replica, a full disk or a backup?), and whether \
             it will be visible is not known before it ends. It goes on once the source commits again"
        }
        _ => {
            "the log has gone on to another file, and nothing was committed since: whether the last transactions before it are \
             visible is not known. It goes on with the next commit on the source; GRANT RELOAD ON *.* to the user lets it find out"
        }
    };
    error.retry(Retry::Later).hint(hint)
}

/// A busy server has committed again by then.
const PLACES_MAX: u32 = 6;
const PAUSE: Duration = Duration::from_millis(20);
/// So long a commit is waited for. Each try makes other commits wait for up to a second; so there is a pause between two.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_PAUSE: Duration = Duration::from_secs(2);
const FIT: &str = "fit a read to the log";

/// Begins a transaction in each of them, and keeps those that see the same; at least one.
async fn snapshots(mut sessions: Vec<Client>) -> Result<(Vec<Client>, Coordinates)> {
    let mut best: Vec<Snapshot> = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let mut taken = begin_all(sessions).await?;
        taken.sort_by_key(|snapshot| snapshot.at.order());
        let mut groups: Vec<Vec<Snapshot>> = Vec::new();
        for snapshot in best.into_iter().chain(taken) {
            match groups.iter_mut().find(|group| group.iter().all(|other| other.at == snapshot.at)) {
                Some(group) => group.push(snapshot),
                None => groups.push(vec![snapshot]),
            }
        }
        // Of equally large groups the later one, which more may still join.
        groups.sort_by_key(|group| (group.len(), group.first().map(|first| first.at.order())));
        best = groups.pop().unwrap_or_default();
        if groups.is_empty() {
            break;
        }
        sessions = groups.into_iter().flatten().map(|snapshot| snapshot.client).collect();
    }
    let at = best.first().map(|first| first.at.clone());
    let at = at.ok_or_else(|| Error::new(ErrorKind::Connect, "open a wave of the copy"))?;
    Ok((best.into_iter().map(|snapshot| snapshot.client).collect(), at))
}

async fn open(settings: &Settings, count: usize) -> Result<Vec<Client>> {
    let mut opening = JoinSet::new();
    for _ in 0..count.max(1) {
        let settings = settings.clone();
        opening.spawn(async move { session::reading(&settings).await });
    }
    all(opening).await
}

async fn begin_all(sessions: Vec<Client>) -> Result<Vec<Snapshot>> {
    let mut beginning = JoinSet::new();
    for client in sessions {
        beginning.spawn(begin(client));
    }
    all(beginning).await
}

async fn all<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut done = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        done.push(ended.map_err(|error| Error::new(ErrorKind::Connect, "open a session").source(error))??);
    }
    Ok(done)
}

/// Ends the transaction before, if there is one.
async fn begin(mut client: Client) -> Result<Snapshot> {
    client.doing("open a wave of the copy");
    client.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
    let rows = client.query("SHOW STATUS LIKE 'binlog_snapshot_%'").await?;
    let (mut file, mut offset) = (None, None);
    for row in rows {
        let row = Cells(row);
        match row.text(0)?.to_ascii_lowercase().as_str() {
            "binlog_snapshot_file" => file = Some(row.text(1)?.to_owned()),
            "binlog_snapshot_position" => offset = Some(row.parse(1)?),
            _ => {}
        }
    }
    let (Some(file), Some(offset)) = (file.filter(|file| !file.is_empty()), offset) else {
        return Err(Error::new(ErrorKind::Setup, FIT)
            .hint("the server keeps no binary log: set log_bin and restart it"));
    };
    let at = Coordinates::new(&file, offset, GtidPosition::default()).map_err(|error| error.during(FIT))?;
    Ok(Snapshot { client, at })
}

/// Where the log stands in a snapshot taken now.
pub(crate) async fn place(settings: &Settings, known: &Exact) -> Result<(Client, Coordinates)> {
    let (clients, at) = exact(settings, 1, known).await?;
    let mut client = clients.into_iter().next().ok_or_else(|| Error::new(ErrorKind::Connect, FIT))?;
    client.execute("ROLLBACK").await?;
    Ok((client, at))
}

pub(crate) struct MysqlWave {
    cut: Cut,
    settled: Position,
    types: Vec<(TableName, Arc<[ColumnType]>)>,
    idle: Arc<Mutex<Vec<Client>>>,
    free: Arc<Semaphore>,
}

impl MysqlWave {
    pub(crate) async fn open(
        settings: &Settings,
        readers: usize,
        mut types: Vec<(TableName, Arc<[ColumnType]>)>,
        known: &Exact,
    ) -> Result<MysqlWave> {
        let (mut clients, at) = exact(settings, readers, known).await?;
        for client in &mut clients {
            client.doing("read a chunk");
        }
        types.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(MysqlWave {
            cut: Cut::Prefix { order: at.order() },
            settled: at.position(),
            types,
            free: Arc::new(Semaphore::new(clients.len())),
            idle: Arc::new(Mutex::new(clients)),
        })
    }

    async fn lease(&self) -> Result<Lease> {
        let none = || Error::new(ErrorKind::Connect, "find a free reader");
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(|_| none())?;
        let lost = || none().with("because", "its connection was lost");
        let client = self.idle.lock().map_err(|_| none())?.pop().ok_or_else(lost)?;
        Ok(Lease { client: Some(client), statement: None, idle: Arc::clone(&self.idle), _permit: permit })
    }

    fn types(&self, table: &Table) -> Result<Arc<[ColumnType]>> {
        let at = self.types.binary_search_by(|(name, _)| name.cmp(&table.name));
        at.map(|at| Arc::clone(&self.types[at].1)).map_err(|_| {
            Error::new(ErrorKind::Setup, "read a chunk")
                .with("table", &table.name)
                .hint("the wave is not of this table")
        })
    }

    pub(crate) async fn fetch(&self, table: &Table, key: &Key) -> Result<Option<Row>> {
        let select = Select::by_key(table, key)?;
        let mut reading = self.start(table, select).await?;
        let mut rows = Vec::new();
        while let Some(block) = reading.next().await? {
            match block {
                Block::Rows(more) => rows.extend(more),
                Block::Raw(_) => return Err(Error::new(ErrorKind::Corrupt, "fetch a row")),
            }
        }
        Ok(rows.into_iter().next())
    }

    async fn start(&self, table: &Table, select: Select) -> Result<Reading> {
        let types = self.types(table)?;
        let mut lease = self.lease().await?;
        lease.client()?.execute("SAVEPOINT chunk").await?;
        if let Err(error) = lease.open(&select).await {
            return Err(lease.after(rewritten(error).with("table", &table.name)).await);
        }
        Ok(Reading {
            table: table.name.clone(),
            stored: table.stored().collect(),
            width: table.columns.len(),
            types,
            lease: Some(lease),
            rows: 0,
        })
    }
}

/// A table that was altered or emptied since the snapshot is not what it was: InnoDB says so (1412), and the next wave reads
/// it again.
fn rewritten(error: Error) -> Error {
    match error::number(&error) {
        Some(1412) => {
            error.retry(Retry::Later).hint("the table was rewritten while it was read; it is read again")
        }
        _ => error,
    }
}

/// A reader that is lent out. It comes back when it can be used again; one that was left in the middle of its rows is
/// closed, and the wave goes on with the others.
struct Lease {
    client: Option<Client>,
    statement: Option<Statement>,
    idle: Arc<Mutex<Vec<Client>>>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    fn client(&mut self) -> Result<&mut Client> {
        self.client.as_mut().ok_or_else(|| Error::new(ErrorKind::Connect, "find a free reader"))
    }

    async fn open(&mut self, select: &Select) -> Result<()> {
        let client = self.client()?;
        let statement = client.prepare(&select.sql).await?;
        client.rows(&statement, &select.params()?).await?;
        self.statement = Some(statement);
        Ok(())
    }

    /// Gives the lock on the table's definition away.
    async fn give_back(mut self) -> Result<()> {
        let Some(mut client) = self.client.take() else { return Ok(()) };
        if let Some(statement) = self.statement.take() {
            client.close(statement)?;
        }
        client.execute("ROLLBACK TO SAVEPOINT chunk").await?;
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(client);
        }
        Ok(())
    }

    /// The error of a statement, once the reader is free for the wave's other tables.
    async fn after(self, error: Error) -> Error {
        let is_usable = self.client.as_ref().is_some_and(Client::is_usable);
        match is_usable {
            true => match self.give_back().await {
                Ok(()) => error,
                Err(lost) => lost,
            },
            false => error,
        }
    }
}

#[async_trait]
impl Wave for MysqlWave {
    fn cut(&self) -> &Cut {
        &self.cut
    }

    fn settled(&self) -> &Position {
        &self.settled
    }

    async fn plan(&self, table: &Table, slicing: &Slicing, bytes: u64) -> Result<Vec<Range>> {
        let has_order = table.key_order().is_some();
        match slicing {
            Slicing::OneCut if !has_order => Ok(vec![Range::Whole]),
            Slicing::OneCut => self.keys(table, None, None, usize::MAX, bytes).await,
            Slicing::Keys { after, upto, ranges_max } if has_order => {
                self.keys(table, after.as_ref(), upto.as_ref(), *ranges_max, bytes).await
            }
            Slicing::Keys { .. } => Err(Error::new(ErrorKind::Setup, "read a table by key ranges")
                .with("table", &table.name)
                .hint(
                    "the server orders its key in a way of its own: the table has to be read under one cut",
                )),
        }
    }

    async fn read(&self, table: &Table, range: &Range, format: Format) -> Result<Box<dyn ChunkStream>> {
        if format != Format::Rows {
            return Err(Error::new(ErrorKind::Setup, "read a chunk")
                .with("table", &table.name)
                .with("format", format!("{format:?}")));
        }
        let select = Select::range(table, range)?;
        Ok(Box::new(self.start(table, select).await?))
    }
}

impl MysqlWave {
    /// Walks the key in steps of as many rows as fill `bytes`; the last range ends at `upto`, unless `ranges_max` stopped the
    /// walk before.
    async fn keys(
        &self,
        table: &Table,
        after: Option<&Key>,
        upto: Option<&Key>,
        ranges_max: usize,
        bytes: u64,
    ) -> Result<Vec<Range>> {
        let row_bytes = (table.bytes / table.rows_estimate.unwrap_or(0).max(1)).max(32);
        let step = (bytes / row_bytes).max(CHUNK_ROWS_MIN);
        let (mut ranges, mut from) = (Vec::new(), after.cloned());
        while ranges.len() < ranges_max.max(1) {
            let select = Select::border(table, from.as_ref(), upto, step)?;
            let mut reading = self.start(table, select).await?;
            let mut border = None;
            while let Some(block) = reading.next().await? {
                if let (Block::Rows(rows), Some(key)) = (block, table.key()) {
                    border = rows.first().map(|row| Key::of(row, key));
                }
            }
            let Some(border) = border else {
                ranges.push(Range::Keys { after: from, upto: upto.cloned() });
                break;
            };
            ranges.push(Range::Keys { after: from.take(), upto: Some(border.clone()) });
            from = Some(border);
        }
        Ok(ranges)
    }
}

/// Rows being read; gives its reader back when they were read to the end.
struct Reading {
    table: TableName,
    stored: Vec<usize>,
    width: usize,
    types: Arc<[ColumnType]>,
    lease: Option<Lease>,
    rows: u64,
}

impl Reading {
    fn decode(&self, cells: &mut [Option<bytes::Bytes>]) -> Result<Row> {
        let mut row = vec![Value::Unchanged; self.width];
        for (cell, &at) in cells.iter_mut().zip(&self.stored) {
            row[at] = value::from_binary(&self.types[at], cell.take())
                .map_err(|error| error.into_error("read a chunk").with("table", &self.table))?;
        }
        Ok(row)
    }

    async fn block(&mut self) -> Result<Option<Vec<Row>>> {
        let Some(mut lease) = self.lease.take() else { return Ok(None) };
        let (mut block, mut bytes, mut cells) = (Vec::new(), 0, Vec::new());
        while lease.client()?.next_row(&mut cells).await? {
            if cells.len() != self.stored.len() {
                return Err(Error::new(ErrorKind::Corrupt, "read a chunk"));
            }
            let row = self.decode(&mut cells)?;
            bytes += row.iter().map(Value::weight).sum::<usize>();
            block.push(row);
            if block.len() == BLOCK_ROWS || bytes >= BLOCK_BYTES {
                self.lease = Some(lease);
                self.rows += block.len() as u64;
                return Ok(Some(block));
            }
        }
        lease.give_back().await?;
        self.rows += block.len() as u64;
        Ok((!block.is_empty()).then_some(block))
    }
}

#[async_trait]
impl ChunkStream for Reading {
    async fn next(&mut self) -> Result<Option<Block>> {
        match self.block().await {
            Ok(block) => Ok(block.map(Block::Rows)),
            Err(error) => Err(rewritten(error).with("table", &self.table)),
        }
    }

    fn rows(&self) -> u64 {
        self.rows
    }
}
