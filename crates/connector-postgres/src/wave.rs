//! One cut over some tables, and chunk reads under it.
//!
//! A coordinator holds the snapshot and no lock. Each chunk is read in a transaction of its own that imports the
//! snapshot, so a table is locked (ACCESS SHARE) for one chunk at a time: a lock held for the whole wave would let the
//! application's TRUNCATE or ALTER wait for minutes, and everything that comes after it on that table too.
//!
//! TRUNCATE and rewriting ALTERs are not MVCC-safe: a snapshot older than one of them reads zero rows without an error.
//! So the tables' files are noted before the snapshot is taken, and compared after each chunk. A rewrite that the note
//! already shows had left the server's list of running transactions, and the snapshot sees it; any later one is noticed.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use connector::{Block, ChunkStream, Error, ErrorKind, Format, Result, Retry, Slicing, Wave};
use model::{Cut, Key, Position, Range, Snapshot, Table, TableName, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::catalog::Cells;
use crate::decode::{Lines, Malformed};
use crate::error::corrupt;
use crate::wire::Client;
use crate::{encode, lsn, sql};

pub(crate) struct PostgresWave {
    cut: Cut,
    settled: Position,
    files: HashMap<TableName, File>,
    /// `BEGIN` and the import of the snapshot.
    begin: String,
    /// Keeps the snapshot alive.
    _coordinator: Client,
    idle: Arc<std::sync::Mutex<Vec<Client>>>,
    free: Arc<Semaphore>,
    /// Block ranges need TID range scans; before 14 each range would read the whole table.
    can_slice_blocks: bool,
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

impl PostgresWave {
    pub(crate) async fn open(
        mut coordinator: Client,
        mut lock: Client,
        readers: Vec<Client>,
        tables: &[&Table],
    ) -> Result<PostgresWave> {
        hold_off_rewrites(&mut lock, tables).await?;
        let files = files(&mut coordinator, tables).await?;
        coordinator.execute(BEGIN).await?;
        let rows = coordinator
            .simple("SELECT pg_catalog.pg_current_snapshot(), pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.pg_export_snapshot()")
            .await?;
        lock.execute("ROLLBACK").await?;
        let row = Cells::first(rows);
        let text = row.text(0)?;
        let snapshot = Snapshot::parse(text)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "read a snapshot").with("text", text))?;
        let settled = lsn::parse(row.text(1)?)
            .map(|end| lsn::position(lsn::without_header(end)))
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "read a log position"))?;
        Ok(PostgresWave {
            cut: Cut::Snapshot(snapshot),
            settled,
            files,
            begin: format!("{BEGIN}; SET TRANSACTION SNAPSHOT {}", sql::literal(row.text(2)?)),
            can_slice_blocks: coordinator.version() >= 140_000,
            _coordinator: coordinator,
            free: Arc::new(Semaphore::new(readers.len())),
            idle: Arc::new(std::sync::Mutex::new(readers)),
        })
    }

    async fn free_reader(&self) -> Result<(Client, OwnedSemaphorePermit)> {
        let none = || Error::new(ErrorKind::Connect, "find a free reader");
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(|_| none())?;
        let client = self.idle.lock().map_err(|_| none())?.pop().ok_or_else(none)?;
        Ok((client, permit))
    }

    /// A reader inside a transaction that shows what the cut shows.
    async fn reader(&self) -> Result<(Client, OwnedSemaphorePermit)> {
        let (mut client, permit) = self.free_reader().await?;
        client.simple(&self.begin).await.map_err(without_snapshot)?;
        Ok((client, permit))
    }
}

/// Refused when the coordinator's session has ended, and the snapshot with it: then a new wave is needed.
fn without_snapshot(error: Error) -> Error {
    error.retry(Retry::Later)
}

async fn give_back(mut client: Client, idle: &std::sync::Mutex<Vec<Client>>) -> Result<()> {
    client.execute("COMMIT").await?;
    if let Ok(mut idle) = idle.lock() {
        idle.push(client);
    }
    Ok(())
}

/// What a table's rows were in when the wave began.
struct File {
    /// `NULL` for a table without one.
    node: Option<String>,
    blocks: u64,
    /// TOAST included.
    bytes: u64,
}

/// For the moment in which files are noted and the snapshot is taken: a wave that began in the middle of a rewrite
/// would be stale from the start, and where a table is rewritten all the time the copy would never come forward.
/// Only a matter of progress, so it is not insisted on; and for few tables only, as the server's lock table is finite.
async fn hold_off_rewrites(lock: &mut Client, tables: &[&Table]) -> Result<()> {
    lock.execute("BEGIN").await?;
    if tables.len() > LOCKED_MAX {
        return Ok(());
    }
    let names = sql::list(tables, |table| format!("ONLY {}", sql::table(&table.name)));
    match lock.execute(&format!("LOCK TABLE {names} IN ACCESS SHARE MODE")).await {
        Err(error) if !lock.is_usable() => Err(error),
        _ => Ok(()),
    }
}

/// Far below what `max_locks_per_transaction` allows by default (64 for each connection).
const LOCKED_MAX: usize = 50;

/// Sizes are asked for here as well: with one question for all tables rather than one for each.
async fn files(client: &mut Client, tables: &[&Table]) -> Result<HashMap<TableName, File>> {
    let part = |part: fn(&TableName) -> &str| {
        let parts: Vec<Value> = tables.iter().map(|table| Value::text(part(&table.name))).collect();
        encode::array(&parts)
    };
    let rows = client
        .query(
            "SELECT n.nspname, c.relname, pg_catalog.pg_relation_filenode(c.oid), \
             pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::int8, pg_catalog.pg_table_size(c.oid) \
             FROM unnest($1::text[], $2::text[]) w(schema, name) \
             JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema \
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind = 'r'",
            &[Some(&part(|name| &name.schema)), Some(&part(|name| &name.name))],
        )
        .await?;
    let mut found = HashMap::new();
    for row in rows {
        let row = Cells::of(row);
        // A table that is dropped at this moment has no size any more.
        if row.maybe(3).is_some() && row.maybe(4).is_some() {
            let file =
                File { node: row.maybe(2).map(str::to_owned), blocks: row.parse(3)?, bytes: row.parse(4)? };
            found.insert(TableName::new(row.text(0)?, row.text(1)?), file);
        }
    }
    match tables.iter().find(|table| !found.contains_key(&table.name)) {
        Some(table) => Err(Error::new(ErrorKind::Schema, "read a table")
            .with("table", &table.name)
            .hint("it was dropped or renamed on the source since the migration was planned")),
        None => Ok(found),
    }
}

#[async_trait]
impl Wave for PostgresWave {
    fn cut(&self) -> &Cut {
        &self.cut
    }

    fn settled(&self) -> &Position {
        &self.settled
    }

    async fn plan(&self, table: &Table, slicing: &Slicing, bytes: u64) -> Result<Vec<Range>> {
        match slicing {
            Slicing::OneCut => Ok(self.blocks(table, bytes)),
            Slicing::Keys { after, upto, ranges_max } => {
                self.keys(table, after.as_ref(), upto.as_ref(), *ranges_max, bytes).await
            }
        }
    }

    async fn read(&self, table: &Table, range: &Range, format: Format) -> Result<Box<dyn ChunkStream>> {
        let (mut client, permit) = self.free_reader().await?;
        let columns = sql::list(table.stored(), |at| sql::ident(&table.columns[at].name));
        let name = sql::table(&table.name);
        let option = match format {
            Format::PostgresBinary => "(FORMAT binary)",
            Format::PostgresText | Format::Rows => "(FORMAT text)",
        };
        let copy = match predicate(table, range)? {
            None => format!("COPY {name} ({columns}) TO STDOUT {option}"),
            Some(predicate) => {
                format!("COPY (SELECT {columns} FROM ONLY {name} WHERE {predicate}) TO STDOUT {option}")
            }
        };
        // One message for all of it: tables are many, and a round trip each for what goes with a small one would cost more
        // than its rows.
        let file = sql::literal(&name);
        let all = format!(
            "{}; {copy}; SELECT pg_catalog.pg_relation_filenode({file}::regclass); COMMIT",
            self.begin
        );
        if let Err(error) = client.copy_out(&all).await {
            let error = error.with("table", &table.name);
            return Err(if client.done_before_copy() < 2 { without_snapshot(error) } else { error });
        }
        Ok(Box::new(Reading {
            table: table.name.clone(),
            file: self.files.get(&table.name).and_then(|file| file.node.clone()),
            client: Some(client),
            idle: Arc::clone(&self.idle),
            permit: Some(permit),
            lines: (format == Format::Rows)
                .then(|| Lines::new(table.columns.iter().map(|column| column.generated).collect())),
            rows: 0,
        }))
    }
}

impl PostgresWave {
    /// Block ranges of about `bytes` each, TOAST included; the last one is open, since the file may have grown.
    fn blocks(&self, table: &Table, bytes: u64) -> Vec<Range> {
        let Some(file) = self.files.get(&table.name).filter(|_| self.can_slice_blocks) else {
            return vec![Range::Blocks { from: 0, until: None }];
        };
        let (blocks, size) = (file.blocks, file.bytes);
        let chunks = size.div_ceil(bytes.max(1)).clamp(1, blocks.max(1));
        let step = blocks.div_ceil(chunks).max(1);
        let border = |number: u64| u32::try_from(number * step).unwrap_or(u32::MAX);
        (0..chunks)
            .filter(|number| *number == 0 || number * step < blocks)
            .map(|number| Range::Blocks {
                from: border(number),
                until: ((number + 1) * step < blocks && number + 1 < chunks).then(|| border(number + 1)),
            })
            .collect()
    }

    /// Key ranges of about `bytes` each, their borders found on the key's index.
    async fn keys(
        &self,
        table: &Table,
        after: Option<&Key>,
        upto: Option<&Key>,
        ranges_max: usize,
        bytes: u64,
    ) -> Result<Vec<Range>> {
        let columns = table.key().unwrap_or(&[]);
        let key = sql::list(columns, |&at| sql::ident(&table.columns[at].name));
        // A row counts for at least 32 bytes (its header and line pointer), whatever the statistics say.
        let row_bytes = table.rows_estimate.map_or(200, |rows| table.bytes / rows.max(1)).max(32);
        let rows = (bytes / row_bytes).max(1);
        let (mut client, _permit) = self.reader().await?;
        let mut ranges: Vec<Range> = Vec::new();
        let mut from = after.cloned();
        while ranges.len() < ranges_max.max(1) {
            let within = keys_within(table, from.as_ref(), upto)?;
            let border = client
                .simple(&format!(
                    "SELECT {key} FROM ONLY {} WHERE {within} ORDER BY {key} OFFSET {} LIMIT 1",
                    sql::table(&table.name),
                    rows - 1
                ))
                .await?;
            match border.into_iter().next() {
                Some(cells) => {
                    let values = cells.into_iter().map(|cell| cell.map_or(Value::Null, Value::text));
                    let border = Key(values.collect());
                    ranges.push(Range::Keys { after: from.take(), upto: Some(border.clone()) });
                    from = Some(border);
                }
                None => {
                    ranges.push(Range::Keys { after: from.take(), upto: upto.cloned() });
                    break;
                }
            }
        }
        give_back(client, &self.idle).await?;
        Ok(ranges)
    }
}

fn predicate(table: &Table, range: &Range) -> Result<Option<String>> {
    Ok(match range {
        Range::Whole | Range::Blocks { from: 0, until: None } => None,
        Range::Blocks { from, until } => {
            let upper = until.map_or_else(String::new, |until| format!(" AND ctid < '({until},0)'::tid"));
            Some(format!("ctid >= '({from},0)'::tid{upper}"))
        }
        Range::Keys { after: None, upto: None } => None,
        Range::Keys { after, upto } => Some(keys_within(table, after.as_ref(), upto.as_ref())?),
    })
}

/// `(after, upto]` as a condition. Literals, because COPY takes no parameters.
pub(crate) fn keys_within(table: &Table, after: Option<&Key>, upto: Option<&Key>) -> Result<String> {
    let columns = table.key().unwrap_or(&[]);
    let left = sql::list(columns, |&at| sql::ident(&table.columns[at].name));
    let bound = |operator: &str, key: &Key| -> Result<String> {
        let mut cells = Vec::new();
        for value in &key.0 {
            cells.push(match value {
                Value::Text(text) => sql::literal(&String::from_utf8_lossy(text)),
                Value::Integer(integer) => sql::literal(&integer.to_string()),
                _ => {
                    return Err(Error::new(ErrorKind::Corrupt, "read a chunk's border")
                        .with("table", &table.name)
                        .with("key", key));
                }
            });
        }
        Ok(format!("({left}) {operator} ({})", cells.join(", ")))
    };
    let lower = after.map(|key| bound(">", key)).transpose()?;
    let upper = upto.map(|key| bound("<=", key)).transpose()?;
    Ok(match (lower, upper) {
        (Some(lower), Some(upper)) => format!("{lower} AND {upper}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "true".to_owned(),
    })
}

/// One chunk being read; gives its reader back when it was read to the end.
struct Reading {
    table: TableName,
    file: Option<String>,
    client: Option<Client>,
    idle: Arc<std::sync::Mutex<Vec<Client>>>,
    permit: Option<OwnedSemaphorePermit>,
    /// Where rows of values are wanted.
    lines: Option<Lines>,
    rows: u64,
}

impl Reading {
    /// A block as it came, or the rows that end in it; `None` where only a piece of a row has come.
    fn block(&mut self, block: Bytes) -> Result<Option<Block>> {
        let Some(lines) = &mut self.lines else { return Ok(Some(Block::Raw(block))) };
        let rows = lines.rows(block).map_err(|error| self.unreadable(error))?;
        Ok((!rows.is_empty()).then_some(Block::Rows(rows)))
    }

    fn unreadable(&self, error: Malformed) -> Error {
        corrupt("read a chunk", "a row cannot be read").with("table", &self.table).source(error)
    }

    /// The server has said that the chunk is complete.
    fn end(&mut self) -> Result<()> {
        let Some(mut client) = self.client.take() else { return Ok(()) };
        self.rows = client.copied_rows();
        let file = client.row_after_copy().map(Cells::of);
        // Given back before the error: the wave goes on with its other tables.
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(client);
        }
        self.permit = None;
        self.lines.as_ref().map_or(Ok(()), Lines::end).map_err(|error| self.unreadable(error))?;
        if file.as_ref().and_then(|file| file.maybe(0)) != self.file.as_deref() {
            return Err(Error::new(ErrorKind::Schema, "read a chunk")
                .with("table", &self.table)
                .retry(Retry::Later)
                .hint("the table was rewritten while it was read (TRUNCATE, VACUUM FULL, CLUSTER, ALTER); it is read again"));
        }
        Ok(())
    }
}

#[async_trait]
impl ChunkStream for Reading {
    async fn next(&mut self) -> Result<Option<Block>> {
        while let Some(client) = &mut self.client {
            match client.copy_out_next().await.map_err(|error| error.with("table", &self.table))? {
                Some(block) => {
                    if let Some(block) = self.block(block)? {
                        return Ok(Some(block));
                    }
                }
                None => self.end()?,
            }
        }
        Ok(None)
    }

    fn rows(&self) -> u64 {
        self.rows
    }
}
