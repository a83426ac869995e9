//! The simulated target as the engine sees it.

use async_trait::async_trait;
use connector::{
    ApplyError, Block, ChunkStream, Claim, Copied, Error, ErrorKind, Finding, Format, Hold, NativeSchema,
    Owner, Progress, Quarantined, Record, Refusal, Result, Retry, RowChange, RowCut, Step,
};
use model::{Catalog, Chunk, Cut, Loaded, Position, Row as Cells, Sequence, Table, TableName};
use tokio::sync::watch;

use crate::check::invariant;
use crate::tables::{self, Row};
use crate::target::{Poison, Refused, Target};
use crate::world::{Connection, Inner, Side, World};

pub(crate) struct Writer {
    world: World,
}

impl Writer {
    pub(crate) fn new(world: World) -> Writer {
        Writer { world }
    }

    async fn ask<T>(&self, operation: &'static str, act: impl FnOnce(&mut Inner) -> Result<T>) -> Result<T> {
        let connection = self.world.connect(Side::Target).await?;
        self.world.call(connection, operation, act).await
    }
}

fn owned(inner: &Inner, owner: &Owner, operation: &'static str) -> Result<()> {
    match inner.target.epoch == owner.epoch {
        true if owner.settled && !inner.target.settled => {
            Err(Error::went_back("the record that the cuts are passed"))
        }
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Fenced, operation).with("epoch", owner.epoch)),
    }
}

fn index(inner: &Inner, name: &TableName) -> usize {
    (0..inner.shapes.len()).find(|&at| tables::name(at) == *name).unwrap_or_default()
}

#[async_trait]
impl connector::Writer for Writer {
    fn formats(&self, _table: &Table) -> Vec<Format> {
        vec![Format::Rows]
    }

    async fn check(&self, _catalog: &Catalog, _ours: &str) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    async fn claim(&self, _stream: &str) -> Result<Claim> {
        self.ask("claim the stream", |inner| {
            inner.target.epoch += 1;
            inner.remember();
            let epoch = inner.target.epoch;
            inner.tell(|| format!("the stream is claimed with epoch {epoch}"));
            let target = &inner.target;
            Ok(Claim {
                epoch,
                progress: target.progress.clone(),
                chunks: target.ledger.clone(),
                row_cuts: target.row_cuts.clone(),
                holds: target.holds.clone(),
                settled: target.settled,
                finished: target.finished,
            })
        })
        .await
    }

    async fn create(&self, owner: &Owner, _catalog: &Catalog, _native: Option<&NativeSchema>) -> Result<()> {
        self.ask("create the tables", |inner| owned(inner, owner, "create the tables")).await
    }

    async fn have_unique(&self, tables: &[&Table]) -> Result<Vec<bool>> {
        self.ask("look for unique indexes", |inner| {
            let shapes = tables.iter().map(|table| inner.shapes[index(inner, &table.name)]);
            Ok(shapes.map(|shape| shape.unique && (shape.unique_before || inner.target.finished)).collect())
        })
        .await
    }

    async fn load(
        &self,
        owner: &Owner,
        table: &Table,
        chunk: &Chunk,
        cut: &Cut,
        settled: &Position,
        _format: Format,
        data: &mut dyn ChunkStream,
    ) -> Result<Loaded> {
        let connection = self.world.connect(Side::Target).await?;
        let mut rows = Vec::new();
        while let Some(block) = data.next().await? {
            if let Block::Rows(block) = block {
                rows.extend(block.iter().filter_map(Row::whole));
            }
        }
        let loaded = Loaded {
            chunk: chunk.clone(),
            cut: cut.clone(),
            settled: settled.clone(),
            rows: rows.len() as u64,
            bytes: 0,
            checksum: 0,
        };
        self.world
            .call(connection, "load a chunk", |inner| {
                owned(inner, owner, "load a chunk")?;
                let at = index(inner, &table.name);
                let known =
                    |other: &Loaded| other.chunk.table == chunk.table && other.chunk.number == chunk.number;
                if inner.target.ledger.iter().any(known) {
                    return Err(Error::new(ErrorKind::Conflict, "load a chunk").with("chunk", "is on record"));
                }
                let mut next = inner.target.clone();
                if !next.load(&inner.shapes, at, rows.clone()) {
                    return Err(
                        Error::new(ErrorKind::Refused, "load a chunk").with("row", "is there already")
                    );
                }
                next.ledger.push(loaded.clone());
                inner.tell(|| {
                    format!("chunk {} of t{at} is loaded: {:?} {rows:?}", chunk.number, chunk.range)
                });
                inner.loaded(next, at, &rows);
                Ok(loaded)
            })
            .await
            .map_err(unknown_after_commit)
    }

    async fn ledger(&self, owner: &Owner) -> Result<Vec<Loaded>> {
        self.ask("read the ledger", |inner| {
            owned(inner, owner, "read the ledger")?;
            Ok(inner.target.ledger.clone())
        })
        .await
    }

    async fn reset(&self, owner: &Owner, table: &Table) -> Result<()> {
        self.ask("empty a table", |inner| {
            owned(inner, owner, "empty a table")?;
            let at = index(inner, &table.name);
            let mut next = inner.target.clone();
            next.reset(at);
            inner.tell(|| format!("t{at} is emptied to be copied again"));
            inner.emptied(next, at);
            Ok(())
        })
        .await
    }

    async fn create_keys(
        &self,
        owner: &Owner,
        _catalog: &Catalog,
        _native: Option<&NativeSchema>,
        copied: watch::Receiver<Copied>,
        _builders: usize,
    ) -> Result<()> {
        Copied::all(copied).await;
        self.ask("create the keys", |inner| owned(inner, owner, "create the keys")).await
    }

    async fn finish(
        &self,
        owner: &Owner,
        _catalog: &Catalog,
        _native: Option<&NativeSchema>,
        _builders: usize,
    ) -> Result<Vec<(String, String)>> {
        self.ask("finish the schema", |inner| {
            owned(inner, owner, "finish the schema")?;
            let mut next = inner.target.clone();
            next.finish(&inner.shapes)
                .map_err(|at| Error::new(ErrorKind::Refused, "create a unique index").with("table", at))?;
            inner.tell(|| "the schema is finished".to_owned());
            inner.target = next;
            inner.remember();
            Ok(Vec::new())
        })
        .await
    }

    async fn applier(&self, owner: &Owner, _catalog: &Catalog) -> Result<Box<dyn connector::Applier>> {
        let connection = self.world.connect(Side::Target).await?;
        let world = self.world.clone();
        let applier = self.world.call(connection, "begin to apply", |inner| {
            owned(inner, owner, "begin to apply")?;
            let target = &inner.target;
            let record = Record {
                progress: target.progress.clone(),
                row_cuts: target.row_cuts.clone(),
                holds: target.holds.clone(),
                finished: target.finished,
            };
            inner.sessions += 1;
            let session = inner.sessions;
            Ok(Applier { world, connection, owner: owner.clone(), session, record, open: None })
        });
        Ok(Box::new(applier.await?))
    }

    fn lanes_max(&self) -> usize {
        usize::MAX
    }

    async fn advance_sequences(&self, owner: &Owner, _sequences: &[Sequence]) -> Result<()> {
        self.ask("advance sequences", |inner| owned(inner, owner, "advance sequences")).await
    }
}

/// Once the commit was sent, a lost connection leaves its outcome open.
fn unknown_after_commit(error: Error) -> Error {
    match error.kind {
        ErrorKind::Connect => error.retry(Retry::Unknown),
        _ => error,
    }
}

struct Applier {
    world: World,
    connection: Connection,
    owner: Owner,
    session: u64,
    record: Record,
    open: Option<Open>,
}

/// The open transaction. Others may commit meanwhile, so what it does is done again over what they leave.
#[derive(Default)]
struct Open {
    steps: Vec<Step>,
    released: Vec<TableName>,
}

/// A refusal, or the state that a transaction makes of what is committed and the rows that it writes.
type Written = std::result::Result<(Target, Vec<(usize, Row)>), Refused>;

impl Open {
    /// The first `judged` steps have been judged when they were written.
    fn over(&self, inner: &Inner, judged: usize) -> Written {
        let (mut next, mut written) = (inner.target.clone(), Vec::new());
        for (at, step) in self.steps.iter().enumerate() {
            let poison = if at < judged { Poison::default() } else { inner.poison };
            written.extend(next.write(&inner.shapes, poison, step)?);
        }
        next.holds.retain(|hold| !self.released.contains(&hold.table));
        Ok((next, written))
    }
}

impl Applier {
    /// Writes and commits one thing in a transaction of its own.
    async fn alone(
        &mut self,
        operation: &'static str,
        act: impl FnOnce(&mut Inner, &mut Target),
    ) -> Result<()> {
        let owner = self.owner.clone();
        self.world
            .call(self.connection, operation, |inner| {
                owned(inner, &owner, operation)?;
                let mut next = inner.target.clone();
                act(inner, &mut next);
                inner.target = next;
                inner.remember();
                Ok(())
            })
            .await
            .map_err(unknown_after_commit)
    }
}

#[async_trait]
impl connector::Applier for Applier {
    fn record(&self) -> &Record {
        &self.record
    }

    async fn write(&mut self, steps: &[Step]) -> std::result::Result<(), ApplyError> {
        let (mut open, session) = (self.open.take().unwrap_or_default(), self.session);
        let epoch = self.owner.epoch;
        let (open, refused) = self
            .world
            .call(self.connection, "apply", |inner| {
                inner.took(steps);
                inner.locks(session, epoch, steps);
                let judged = open.steps.len();
                open.steps.extend_from_slice(steps);
                Ok(match open.over(inner, judged) {
                    Ok(_) => (open, None),
                    Err(refused) => (open, Some(refused)),
                })
            })
            .await?;
        if let Some(refused) = refused {
            let kind = if refused.constraint { ErrorKind::Refused } else { ErrorKind::Conflict };
            let mut inner = self.world.lock();
            inner.locked.remove(&self.session);
            inner.tell(|| format!("refused on t{}: {} {steps:?}", refused.table, refused.reason));
            // One that was taken over finds what the new owner wrote; it commits nothing.
            if inner.target.epoch == self.owner.epoch {
                inner.refused(&refused);
            }
            return Err(ApplyError::Refused(Refusal {
                table: refused.table,
                change: refused.change,
                statement: String::new(),
                error: Error::new(kind, "apply a change").with("reason", refused.reason),
            }));
        }
        self.open = Some(open);
        Ok(())
    }

    fn rows_collide(&self, table: usize) -> bool {
        let inner = self.world.lock();
        inner.shapes[table].unique && (inner.shapes[table].unique_before || inner.target.finished)
    }

    async fn commit(&mut self, after: u64, progress: &Progress) -> Result<()> {
        let open = self.open.take();
        let (owner, session) = (self.owner.clone(), self.session);
        self.world
            .call(self.connection, "commit", |inner| {
                inner.locked.remove(&session);
                owned(inner, &owner, "commit")?;
                if inner.target.progress.as_ref().map_or(0, |progress| progress.seq) != after {
                    return Err(Error::new(ErrorKind::Database, "commit").retry(Retry::Later));
                }
                let (mut next, written) = match open.unwrap_or_default().over(inner, usize::MAX) {
                    Ok(done) => done,
                    Err(refused) => {
                        // It was done once, and then another transaction committed.
                        let what = format!("t{}: {}", refused.table, refused.reason);
                        inner.violated(invariant::LANES_APART, what);
                        return Err(Error::new(ErrorKind::Database, "commit"));
                    }
                };
                if let Some(at) = next.forbidden(&inner.shapes) {
                    return Err(Error::new(ErrorKind::Refused, "commit").with("table", at));
                }
                next.progress = Some(progress.clone());
                inner.applied(next, &written);
                Ok(())
            })
            .await
            .map_err(unknown_after_commit)?;
        self.record.progress = Some(progress.clone());
        Ok(())
    }

    async fn rollback(&mut self) -> Result<()> {
        self.open = None;
        let session = self.session;
        self.world
            .call(self.connection, "roll back", |inner| {
                inner.locked.remove(&session);
                Ok(())
            })
            .await
    }

    async fn write_fetched(&mut self, table: usize, row: Option<&Cells>, cut: &RowCut) -> Result<()> {
        let id = tables::id(&cut.key);
        let row = row.and_then(Row::whole);
        self.alone("write a fetched row", |inner, next| {
            next.put_fetched(table, id, row.clone());
            next.row_cuts.retain(|old| old.table != cut.table || old.key != cut.key);
            next.row_cuts.push(cut.clone());
            inner.fetched(table, id, row);
        })
        .await
    }

    async fn settle(&mut self) -> Result<()> {
        self.alone("settle", |inner, next| {
            next.settled = true;
            inner.tell(|| "the cuts are passed".to_owned());
        })
        .await
    }

    async fn hold(&mut self, quarantined: &Quarantined, from_seq: u64) -> Result<()> {
        let hold = Hold { table: quarantined.table.clone(), from_seq };
        self.alone("hold a table back", |inner, next| {
            inner.tell(|| format!("{} is held back from {from_seq}", hold.table));
            if !next.holds.iter().any(|old| old.table == hold.table) {
                next.holds.push(hold);
            }
        })
        .await
    }

    async fn release_hold(&mut self, table: &TableName) -> Result<()> {
        self.open.get_or_insert_default().released.push(table.clone());
        Ok(())
    }
}

/// The server ends the transaction of a session that is gone.
impl Drop for Applier {
    fn drop(&mut self) {
        self.world.lock().locked.remove(&self.session);
    }
}

/// A row by its table and key, or the whole table.
pub(crate) type Lock = (usize, Option<i64>);

impl Inner {
    /// No session may ever want a row that another open transaction of the same owner has written: the two could wait for
    /// each other. Those of earlier owners are ended by the claim.
    fn locks(&mut self, session: u64, epoch: u64, steps: &[Step]) {
        let wanted: Vec<Lock> = steps.iter().flat_map(|step| self.locks_of(step)).collect();
        let meets = |a: &Lock, b: &Lock| a.0 == b.0 && (a.1.is_none() || b.1.is_none() || a.1 == b.1);
        let others = self.locked.iter().filter(|(other, (of, _))| **other != session && *of == epoch);
        let taken =
            others.flat_map(|(_, (_, locks))| locks).find(|lock| wanted.iter().any(|want| meets(want, lock)));
        if let Some((table, row)) = taken {
            let what = format!("t{table}, {row:?} is wanted by two open transactions");
            self.violated(invariant::LANES_APART, what);
        }
        self.locked.entry(session).or_insert_with(|| (epoch, Vec::new())).1.extend(wanted);
    }

    fn locks_of(&self, step: &Step) -> Vec<Lock> {
        let row_of = |table: usize, cells: &Cells| (table, tables::id_of(cells));
        match step {
            Step::Net(net) => {
                let gone = net.deletes.iter().chain(net.updates.iter().map(|update| &update.key));
                let gone = gone.map(|key| (net.table, Some(tables::id(key))));
                let there = net.updates.iter().map(|update| &update.row).chain(&net.inserts);
                gone.chain(there.map(|cells| row_of(net.table, cells))).collect()
            }
            Step::Ordered(changes) => changes
                .iter()
                .filter_map(|change| match change {
                    RowChange::Insert { table, row } if self.shapes[*table].keyed => {
                        Some(row_of(*table, row))
                    }
                    RowChange::Insert { .. } => None,
                    change => Some((change.table(), None)),
                })
                .collect(),
            Step::Truncate { tables, .. } => tables.iter().map(|&table| (table, None)).collect(),
            Step::DeleteRange { table, .. } => vec![(*table, None)],
        }
    }

    fn took(&mut self, steps: &[Step]) {
        let weight = crate::check::memory::weight(steps);
        let bound = self.checks.slice_bound;
        if weight > bound {
            self.violated(invariant::BOUNDED_MEMORY, format!("{weight} bytes in one slice, {bound} allowed"));
        }
    }
}
