//! One cut over some tables, and chunk reads under it.
//!
//! A snapshot of MariaDB is a prefix of its log: it is taken under the lock that puts commits in order, and says itself
//! where it lies (`binlog_snapshot_file`, `binlog_snapshot_position`). It cannot be handed from one session to another; so
//! several sessions take one each at the same time, and those that came to lie at the same place share the wave.
//!
//! How its rows are read is in `readers`, and where its chunks end in `walk`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connector::{ChunkStream, Error, ErrorKind, Format, Result, Retry, Slicing, Wave};
use model::{Cut, Key, Position, Range, Row, Table, TableName};
use tokio::task::JoinSet;

use crate::column_type::ColumnType;
use crate::place::Exact;
use crate::position::{Coordinates, GtidPosition};
use crate::readers::{Readers, Shape};
use crate::select::Select;
use crate::snapshot_place::snapshot_place;
use crate::url::Settings;
use crate::walk::{self, Stretches, Walk};
use crate::wire::Client;
use crate::{error, key_column, place, reader, readers, session};

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
    let clients = begun(sessions).await?;
    // All that is in the log is visible, so its end is the place. What the server tells of a snapshot is not asked: behind a
    // rotation it may be the old file's offset in the new file, a place that is still to come.
    let at = reader::log_end(&mut holder).await?;
    // Refused when the session has been ended meanwhile, and the commits have gone on.
    holder.execute("BACKUP STAGE END").await?;
    Ok((clients, at))
}

/// Begins a transaction in each of them.
async fn begun(sessions: Vec<Client>) -> Result<Vec<Client>> {
    let mut beginning = JoinSet::new();
    for mut client in sessions {
        beginning.spawn(async move {
            client.doing(OPEN).execute(BEGIN).await?;
            Ok(client)
        });
    }
    all(beginning).await
}

const OPEN: &str = "open a wave of the copy";
const BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

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
    let at = at.ok_or_else(|| Error::new(ErrorKind::Connect, OPEN))?;
    Ok((best.into_iter().map(|snapshot| snapshot.client).collect(), at))
}

async fn open(settings: &Settings, count: usize) -> Result<Vec<Client>> {
    let mut opening = JoinSet::new();
    for _ in 0..count.max(1) {
        let settings = settings.clone();
        opening.spawn(async move {
            let mut client = session::reading(&settings).await?;
            readers::without_log(&mut client).await?;
            Ok(client)
        });
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
    client.doing(OPEN).execute(BEGIN).await?;
    let (file, offset) = snapshot_place(&mut client).await?;
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
    readers: Readers,
    /// Of the tables that are read in stretches.
    walks: Mutex<HashMap<TableName, Arc<Walk>>>,
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
            readers: Readers::new(clients),
            walks: Mutex::default(),
        })
    }

    fn types(&self, table: &Table) -> Result<Arc<[ColumnType]>> {
        let at = self.types.binary_search_by(|(name, _)| name.cmp(&table.name));
        at.map(|at| Arc::clone(&self.types[at].1)).map_err(|_| not_of_the_wave(table))
    }

    pub(crate) async fn fetch(&self, table: &Table, key: &Key) -> Result<Option<Row>> {
        let types = self.types(table)?;
        let select = Select::by_key(table, &key_column::of(table, &types)?, key);
        self.readers.read(&table.name, select, Shape::of(table, types)).await?.only_row().await
    }

    /// Without an order of ours: in stretches, where the server can read the key's index from one border to another.
    fn one_cut(&self, table: &Table, bytes: u64) -> Result<Vec<Range>> {
        let types = self.types(table)?;
        let walk = match walk::is_walkable(table, &types) {
            true => Walk::new(table, types, bytes)?,
            false => return Ok(vec![Range::Whole]),
        };
        let ranges = walk.numbers();
        self.walks.lock().map_err(|_| not_of_the_wave(table))?.insert(table.name.clone(), Arc::new(walk));
        Ok(ranges)
    }

    fn stretches(&self, table: &Table, from: u32, until: Option<u32>) -> Result<Stretches> {
        let walks = self.walks.lock().map_err(|_| not_of_the_wave(table))?;
        let walk = walks.get(&table.name).ok_or_else(|| not_of_the_wave(table))?;
        Ok(Stretches::new(self.readers.clone(), Arc::clone(walk), from, until))
    }
}

/// Or its ranges are not: borders under another cut are borders between other rows.
fn not_of_the_wave(table: &Table) -> Error {
    Error::new(ErrorKind::Setup, "read a chunk")
        .with("table", &table.name)
        .hint("the wave is not of this table")
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
        let (after, upto, ranges_max) = match slicing {
            Slicing::OneCut if !has_order => return self.one_cut(table, bytes),
            Slicing::OneCut => (None, None, usize::MAX),
            Slicing::Keys { after, upto, ranges_max } if has_order => {
                (after.as_ref(), upto.as_ref(), *ranges_max)
            }
            Slicing::Keys { .. } => {
                return Err(Error::new(ErrorKind::Setup, "read a table by key ranges")
                    .with("table", &table.name)
                    .hint(
                        "the server orders its key in a way of its own: the table has to be read under one cut",
                    ));
            }
        };
        let walk = Walk::new(table, self.types(table)?, bytes)?;
        walk.keys(&self.readers, after, upto, ranges_max).await
    }

    async fn read(&self, table: &Table, range: &Range, format: Format) -> Result<Box<dyn ChunkStream>> {
        if format != Format::Rows {
            return Err(Error::new(ErrorKind::Setup, "read a chunk")
                .with("table", &table.name)
                .with("format", format!("{format:?}")));
        }
        let types = self.types(table)?;
        let select = match range {
            Range::Blocks { from, until } => {
                return Ok(Box::new(self.stretches(table, *from, *until)?));
            }
            Range::Whole => Select::whole(table),
            Range::Keys { after, upto } => {
                Select::within(table, &key_column::of(table, &types)?, after.as_ref(), upto.as_ref())?
            }
        };
        Ok(Box::new(self.readers.read(&table.name, select, Shape::of(table, types)).await?))
    }
}
