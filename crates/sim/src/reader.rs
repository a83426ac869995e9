//! The simulated source as the engine sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use connector::{
    Block, Capture, ChunkStream, Error, ErrorKind, Event, Fetched, Finding, Format, Load, NativeSchema,
    Result, Retry, Selection, Slicing,
};
use model::xid::widen;
use model::{
    Catalog, Change, Cut, Key, Position, Range, Relation, RelationColumn, Row as Cells, Sequence, Table,
    Transaction, Value,
};

use crate::dice::number;
use crate::source::{self, Committed};
use crate::tables::{self, LARGE, Row, Rows};
use crate::world::{Connection, Inner, Side, World};

pub(crate) struct Reader {
    world: World,
    /// Set when the source has confirmed that it still is the same.
    confirmed: Arc<AtomicBool>,
}

impl Reader {
    pub(crate) fn new(world: World, confirmed: Arc<AtomicBool>) -> Reader {
        Reader { world, confirmed }
    }

    async fn ask<T>(&self, operation: &'static str, act: impl FnOnce(&mut Inner) -> Result<T>) -> Result<T> {
        let connection = self.world.connect(Side::Source).await?;
        self.world.call(connection, operation, act).await
    }
}

pub(crate) fn position(order: u64) -> Position {
    Position { order, text: format!("@{order}") }
}

fn index(table: &Table) -> usize {
    // The simulated tables are called t0, t1, t2.
    table.name.name[1..].parse().unwrap_or_default()
}

#[async_trait]
impl connector::Reader for Reader {
    fn formats(&self, _table: &Table) -> Vec<Format> {
        vec![Format::Rows]
    }

    async fn check(&self, _selection: &Selection) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    async fn catalog(&self, _selection: &Selection) -> Result<Catalog> {
        self.ask("read the catalog", |inner| Ok(tables::catalog(&inner.shapes))).await
    }

    async fn native_schema(&self, _catalog: &Catalog) -> Result<NativeSchema> {
        Err(Error::new(ErrorKind::Setup, "read the schema"))
    }

    async fn prepare(&self, _stream: &str, _catalog: &Catalog) -> Result<Position> {
        self.ask("prepare capture", |inner| {
            // As a slot does it: the log is complete from where everything before is visible.
            let hidden = inner.source.first_hidden();
            // Idempotent: what was prepared stands.
            let hidden = *inner.prepared.get_or_insert(hidden);
            inner.freed = inner.freed.max(hidden);
            Ok(position(hidden))
        })
        .await
    }

    async fn capture(&self, _stream: &str, _catalog: &Catalog, after: &Position) -> Result<Box<dyn Capture>> {
        let connection = self.world.connect(Side::Source).await?;
        let order = after.order;
        let world = self.world.clone();
        let capture = self.world.call(connection, "open the log", |inner| {
            if inner.failed_over || order < inner.freed {
                return Err(Error::new(ErrorKind::LogLost, "open the log").with("after", order));
            }
            let mut next = inner.source.log.partition_point(|committed| committed.begin < order);
            let again = std::mem::take(&mut inner.redeliver);
            let possible =
                inner.source.log[..next].iter().rev().take_while(|old| old.begin >= inner.freed).count();
            next -= again.min(possible);
            Ok(Stream {
                world,
                connection,
                next,
                told: order,
                inside: VecDeque::new(),
                described: vec![false; inner.shapes.len()],
                near: inner.source.reference_xid(),
            })
        });
        Ok(Box::new(capture.await?))
    }

    async fn keeps(&self, _stream: &str, position: &Position) -> Result<()> {
        let (order, confirmed) = (position.order, Arc::clone(&self.confirmed));
        self.ask("ask whether the log is kept", move |inner| {
            if inner.failed_over {
                return Err(
                    Error::new(ErrorKind::LogLost, "ask whether the log is kept").with("after", order)
                );
            }
            confirmed.store(true, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    async fn wave(&self, tables: &[&Table], _readers: usize) -> Result<Box<dyn connector::Wave>> {
        let connection = self.world.connect(Side::Source).await?;
        let world = self.world.clone();
        let indexes: Vec<usize> = tables.iter().map(|table| index(table)).collect();
        let wave = self.world.call(connection, "take a cut", |inner| {
            let cut = inner.source.cut();
            inner.tell(|| format!("cut {cut:?} over {indexes:?}"));
            Ok(Wave {
                world,
                connection,
                settled: position(inner.source.end),
                rows: inner.source.visible.clone(),
                rewrites: inner.source.rewrites.clone(),
                cut,
            })
        });
        Ok(Box::new(wave.await?))
    }

    async fn fetch(&self, table: &Table, key: &Key) -> Result<Fetched> {
        let (table, id) = (index(table), tables::id(key));
        self.ask("fetch a row", |inner| {
            let row = inner.source.visible[table].get(&id).map(Row::cells);
            let cut = inner.source.cut();
            inner.tell(|| format!("row {id} of t{table} is fetched alone under {cut:?}"));
            inner.fetching();
            Ok(Fetched { row, cut })
        })
        .await
    }

    async fn position(&self) -> Result<Position> {
        self.ask("ask for the position", |inner| Ok(position(inner.source.end))).await
    }

    async fn sequences(&self, _catalog: &Catalog) -> Result<Vec<Sequence>> {
        self.ask("read the sequences", |_| Ok(Vec::new())).await
    }

    async fn probe(&self) -> Result<Load> {
        Ok(Load::IDLE)
    }

    async fn release(&self, _stream: &str, _catalog: &Catalog) -> Result<()> {
        self.ask("release the log", |_| Ok(())).await
    }
}

struct Stream {
    world: World,
    connection: Connection,
    /// Index into the log.
    next: usize,
    /// The end of what has been delivered or called quiet.
    told: u64,
    /// The rest of a transaction whose beginning has been delivered.
    inside: VecDeque<Event>,
    /// Tables that this connection has described.
    described: Vec<bool>,
    near: u64,
}

#[async_trait]
impl Capture for Stream {
    async fn next(&mut self, events: &mut Vec<Event>) -> Result<()> {
        loop {
            self.world.moment().await;
            let world = self.world.clone();
            {
                let mut inner = world.lock();
                self.connection.stands(&inner, "follow the log")?;
                self.deliver(&mut inner, events);
            }
            if !events.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<()> {
        let order = position.order;
        self.world
            .call(self.connection, "acknowledge", |inner| {
                inner.acknowledged(order);
                Ok(())
            })
            .await
    }

    /// It has heard of each acknowledgement at once.
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Stream {
    fn deliver(&mut self, inner: &mut Inner, events: &mut Vec<Event>) {
        let chance = number(inner.moment, self.told);
        if self.inside.is_empty() {
            match inner.source.log.get(self.next) {
                Some(committed) => {
                    let committed = committed.clone();
                    self.open(inner, &committed);
                    self.next += 1;
                }
                None if inner.source.end > self.told => {
                    self.told = inner.source.end;
                    events.push(Event::Idle { position: position(self.told) });
                    return;
                }
                None => return,
            }
        }
        // In pieces, and now and then with the source's own position in between.
        let piece = (1 + chance % 6) as usize;
        let piece = piece.min(self.inside.len());
        events.extend(self.inside.drain(..piece));
        if chance.is_multiple_of(7) && !self.inside.is_empty() {
            events.push(Event::Idle { position: position(self.told + 1) });
        }
        if let Some(Event::Commit { position }) = events.last() {
            self.told = position.order;
        }
    }

    fn open(&mut self, inner: &mut Inner, committed: &Committed) {
        // The wire carries 32 bits.
        let id = widen(committed.xid as u32, self.near);
        self.near = id;
        let committed_us = 1 + committed.begin.cast_signed();
        let transaction = Transaction { seq: 0, id, order: committed.begin + 1, committed_us };
        inner.tell(|| {
            format!("transaction {} is delivered: {}", committed.xid, source::describe(&committed.changes))
        });
        self.inside.push_back(Event::Begin(transaction));
        for change in &committed.changes {
            for &table in change.tables() {
                if !std::mem::replace(&mut self.described[table], true) {
                    self.inside.push_back(Event::Relation(relation(inner, table)));
                }
            }
            self.inside.push_back(Event::Change(logged(inner, change)));
        }
        self.inside.push_back(Event::Commit { position: position(committed.end) });
    }
}

fn relation(inner: &Inner, table: usize) -> Relation {
    let planned = &tables::catalog(&inner.shapes).tables[table];
    let shape = inner.shapes[table];
    let mut columns: Vec<RelationColumn> = planned
        .columns
        .iter()
        .enumerate()
        .map(|(at, column)| RelationColumn {
            name: column.name.clone(),
            type_id: column.type_id,
            type_modifier: column.type_modifier,
            key: shape.keyed && at == 0,
        })
        .collect();
    if shape.log_reversed {
        columns.reverse();
    }
    Relation { id: 500 + table as u32, table: planned.name.clone(), columns, whole_old_row: !shape.keyed }
}

/// A change as the log gives it: unchanged large values left out, old rows in full or by their key.
fn logged(inner: &Inner, change: &source::Change) -> Change {
    let cells = |table: usize, mut cells: Cells| {
        if inner.shapes[table].log_reversed {
            cells.reverse();
        }
        cells
    };
    let old_row = |table: usize, old: &Row| {
        let mut row = old.cells();
        if inner.shapes[table].keyed {
            row[1..].fill(Value::Unchanged);
        }
        cells(table, row)
    };
    let relation = |table: usize| 500 + table as u32;
    match change {
        source::Change::Insert { table, new, .. } => {
            Change::Insert { relation: relation(*table), new: cells(*table, new.cells()) }
        }
        source::Change::Update { table, old, new, large_changed, .. } => {
            let mut row = new.cells();
            if !large_changed {
                row[LARGE] = Value::Unchanged;
            }
            let with_old = !inner.shapes[*table].keyed || old.id != new.id;
            Change::Update {
                relation: relation(*table),
                old: with_old.then(|| old_row(*table, old)),
                new: cells(*table, row),
            }
        }
        source::Change::Delete { table, old, .. } => {
            Change::Delete { relation: relation(*table), old: old_row(*table, old) }
        }
        source::Change::Truncate { tables } => Change::Truncate {
            relations: tables.iter().map(|&table| relation(table)).collect(),
            restart_identity: false,
        },
    }
}

struct Wave {
    world: World,
    connection: Connection,
    cut: Cut,
    settled: Position,
    rows: Vec<Rows>,
    rewrites: Vec<u32>,
}

impl Wave {
    /// Where a row lies: a rewritten row is behind the others, so block ranges of two cuts do not fit together.
    fn blocks(&self, table: usize) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows[table].values().collect();
        rows.sort_by_key(|row| row.version);
        rows
    }
}

#[async_trait]
impl connector::Wave for Wave {
    fn cut(&self) -> &Cut {
        &self.cut
    }

    fn settled(&self) -> &Position {
        &self.settled
    }

    async fn plan(&self, table: &Table, slicing: &Slicing, _bytes: u64) -> Result<Vec<Range>> {
        let at = index(table);
        let per_chunk =
            self.world.call(self.connection, "plan chunks", |inner| Ok(inner.rows_per_chunk)).await?;
        Ok(match slicing {
            Slicing::OneCut => {
                let count = self.rows[at].len().div_ceil(per_chunk).max(1) as u32;
                let until = |block| (block + 1 < count).then_some(block + 1);
                (0..count).map(|from| Range::Blocks { from, until: until(from) }).collect()
            }
            Slicing::Keys { after, upto, ranges_max } => {
                let low = after.as_ref().map_or(i64::MIN, tables::id);
                let high = upto.as_ref().map_or(i64::MAX, tables::id);
                let inside = self.rows[at].keys().filter(|key| **key > low && **key <= high);
                let ends: Vec<i64> = inside.copied().skip(per_chunk - 1).step_by(per_chunk).collect();
                let mut ranges = Vec::new();
                let mut from = after.clone();
                for end in ends.into_iter().filter(|end| *end < high).take(*ranges_max) {
                    let end = Some(tables::key(end));
                    ranges.push(Range::Keys { after: from, upto: end.clone() });
                    from = end;
                }
                if ranges.len() < *ranges_max {
                    ranges.push(Range::Keys { after: from, upto: upto.clone() });
                }
                ranges
            }
        })
    }

    async fn read(&self, table: &Table, range: &Range, _format: Format) -> Result<Box<dyn ChunkStream>> {
        let at = index(table);
        let seen = self.rewrites[at];
        loop {
            let locked = self.world.call(self.connection, "read a chunk", |inner| {
                if inner.source.rewrites[at] != seen {
                    return Err(Error::new(ErrorKind::Schema, "read a chunk").retry(Retry::Later));
                }
                Ok(inner.source.is_locked(at))
            });
            if !locked.await? {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let per_chunk = self.world.lock().rows_per_chunk;
        let rows: VecDeque<Cells> = match range {
            Range::Whole => self.rows[at].values().map(Row::cells).collect(),
            Range::Blocks { from, until } => {
                let blocks = self.blocks(at);
                let from = (*from as usize * per_chunk).min(blocks.len());
                let until =
                    until.map_or(blocks.len(), |until| (until as usize * per_chunk).min(blocks.len()));
                blocks[from..until].iter().map(|row| row.cells()).collect()
            }
            Range::Keys { after, upto } => {
                let low = after.as_ref().map_or(i64::MIN, tables::id);
                let high = upto.as_ref().map_or(i64::MAX, tables::id);
                self.rows[at]
                    .iter()
                    .filter(|(key, _)| **key > low && **key <= high)
                    .map(|(_, row)| row.cells())
                    .collect()
            }
        };
        let count = rows.len() as u64;
        Ok(Box::new(Rest { world: self.world.clone(), connection: self.connection, rows, count }))
    }
}

struct Rest {
    world: World,
    connection: Connection,
    rows: VecDeque<Cells>,
    count: u64,
}

#[async_trait]
impl ChunkStream for Rest {
    async fn next(&mut self) -> Result<Option<Block>> {
        self.world.moment().await;
        self.connection.stands(&self.world.lock(), "read a chunk")?;
        let piece = self.rows.len().min(2);
        let rows: Vec<Cells> = self.rows.drain(..piece).collect();
        Ok((!rows.is_empty()).then_some(Block::Rows(rows)))
    }

    fn rows(&self) -> u64 {
        self.count
    }
}
