//! The writing half of a database engine.

use async_trait::async_trait;
use model::{Catalog, Chunk, Cut, Key, Loaded, Position, Row, Sequence, Table, TableName};
use serde::Serialize;
use tokio::sync::watch;

use crate::{ChunkStream, Error, Finding, Format, NativeSchema, Result};

/// Puts rows and changes into a database, together with the record of having done so.
///
/// Contract:
/// - The record (chunk ledger, progress, row cuts, holds) lives in the target and is written in the transaction
///   that writes the data, so a crash leaves both or neither.
/// - Every write carries the owner's epoch; when a newer owner has claimed the stream it fails with `Fenced`
///   and changes nothing.
/// - `Ok` means durable.
/// - Dropping the future of a write is safe: the write has landed as a whole or not at all.
#[async_trait]
pub trait Writer: Send + Sync {
    /// Formats of chunk data that [`Writer::load`] takes for this table.
    fn formats(&self, table: &Table) -> Vec<Format>;

    /// Everything that would stop or harm a migration into this database, found without changing anything.
    /// `ours` is the stream whose earlier work is not an obstacle.
    async fn check(&self, catalog: &Catalog, ours: &str) -> Result<Vec<Finding>>;

    /// Takes the stream over: creates its records where there are none, raises the epoch, ends sessions of
    /// earlier owners, and returns what is on record.
    async fn claim(&self, stream: &str) -> Result<Claim>;

    /// Creates the tables, without keys and indexes but for those that rows are stored by, where they do not exist. Existing
    /// ones must be empty at the first call and have the same columns. `native` is there when source and target speak one dialect.
    async fn create(&self, owner: &Owner, catalog: &Catalog, native: Option<&NativeSchema>) -> Result<()>;

    /// For each of these tables, whether secondary unique indexes exist already, so that rows read under different cuts
    /// could collide on them.
    async fn have_unique(&self, tables: &[&Table]) -> Result<Vec<bool>>;

    #[expect(
        clippy::too_many_arguments,
        reason = "each is another noun; a struct of them would have one use"
    )]
    /// Writes one chunk's rows and its ledger record in one transaction. Fails with `Conflict` if the chunk is on
    /// record already, or if the rows written are not as many as the stream says it delivered.
    async fn load(
        &self,
        owner: &Owner,
        table: &Table,
        chunk: &Chunk,
        cut: &Cut,
        settled: &Position,
        format: Format,
        data: &mut dyn ChunkStream,
    ) -> Result<Loaded>;

    /// The chunks on record, after any earlier load's commit in flight has ended.
    async fn ledger(&self, owner: &Owner) -> Result<Vec<Loaded>>;

    /// Empties a table and forgets its chunks, in one transaction.
    async fn reset(&self, owner: &Owner, table: &Table) -> Result<()>;

    /// Creates what finds rows by key, up to `builders` at a time, of each table once it is copied; where nothing speaks
    /// against it also indexes that restrict nothing. Returns when all is copied and every table has its key. Idempotent.
    async fn create_keys(
        &self,
        owner: &Owner,
        catalog: &Catalog,
        native: Option<&NativeSchema>,
        copied: watch::Receiver<Copied>,
        builders: usize,
    ) -> Result<()>;

    /// Creates everything else of the schema, up to `builders` items at a time. Idempotent, also after a crash between two
    /// items. For an owner that is `settled`. Returns the items that the target refused and that hold no rows back (a view over a
    /// table that is not migrated), each with the reason.
    async fn finish(
        &self,
        owner: &Owner,
        catalog: &Catalog,
        native: Option<&NativeSchema>,
        builders: usize,
    ) -> Result<Vec<(String, String)>>;

    /// Opens a connection over which changes are applied.
    async fn applier(&self, owner: &Owner, catalog: &Catalog) -> Result<Box<dyn Applier>>;

    /// So many appliers at a time are of use, at most. Transactions of one may wait for those of an earlier one only.
    fn lanes_max(&self) -> usize {
        1
    }

    /// Moves sequences to at least these values; never backwards.
    async fn advance_sequences(&self, owner: &Owner, sequences: &[Sequence]) -> Result<()>;
}

/// How far the copy has come, for those who build upon its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Large tables that are complete, by catalog index.
    pub tables: Vec<usize>,
    /// Every table is complete.
    pub all: bool,
    /// The source has written little since the copy began: an index that is there before these changes are applied costs
    /// less than it saves.
    pub quiet: bool,
}

impl Copied {
    /// As it is at the end.
    pub fn whole() -> watch::Receiver<Copied> {
        watch::channel(Copied { tables: Vec::new(), all: true, quiet: true }).1
    }

    /// Waits for the next of it. Nothing comes any more from a copy that has been given up: then the waiting is given up
    /// with it, from outside.
    pub async fn more(copied: &mut watch::Receiver<Copied>) {
        if copied.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until every table is complete.
    pub async fn all(mut copied: watch::Receiver<Copied>) {
        while !copied.borrow_and_update().all {
            Copied::more(&mut copied).await;
        }
    }
}

/// Who writes: the stream (the migration's name) and the epoch that the claim gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub stream: String,
    pub epoch: u64,
    /// What is written relies on [`Applier::settle`] being on record: each transaction looks for it, and fails with
    /// `WentBack` where it is gone.
    pub settled: bool,
}

/// What is on record in the target.
#[derive(Clone, Debug)]
pub struct Claim {
    pub epoch: u64,
    /// `None` until the first applied transaction.
    pub progress: Option<Progress>,
    pub chunks: Vec<Loaded>,
    pub row_cuts: Vec<RowCut>,
    pub holds: Vec<Hold>,
    /// Everything that any cut contains is on the target.
    pub settled: bool,
    /// The schema has been finished.
    pub finished: bool,
}

/// What an applier finds on record, and what its owner may not believe to know better.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub progress: Option<Progress>,
    pub row_cuts: Vec<RowCut>,
    pub holds: Vec<Hold>,
    /// The schema has been finished.
    pub finished: bool,
}

impl Record {
    /// The last transaction that the target has; 0 for none.
    pub fn applied(&self) -> u64 {
        self.progress.as_ref().map_or(0, |progress| progress.seq)
    }
}

/// Up to where the target has the source's transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The journal's number of the last applied transaction.
    pub seq: u64,
    pub position: Position,
}

/// A row that was fetched alone: for this key, this cut stands in place of its chunk's.
#[derive(Clone, Debug, PartialEq)]
pub struct RowCut {
    pub table: TableName,
    pub key: Key,
    pub cut: Cut,
    /// Every transaction that the cut contains lies at or before this position.
    pub settled: Position,
}

/// A table whose changes are held back in the journal since a change was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hold {
    pub table: TableName,
    /// Changes of this transaction and later ones are not on the target for this table.
    pub from_seq: u64,
}

/// A change that the target refused, with all that is needed to understand it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    pub table: TableName,
    pub seq: u64,
    pub position: Position,
    pub operation: &'static str,
    pub key: String,
    /// xxh3 (64 bits) over the change's cells.
    pub payload_hash: u64,
    pub statement: String,
    pub error: String,
}

/// Applies steps over one connection, in transactions that also move the progress.
#[async_trait]
pub trait Applier: Send {
    /// What was on record when this connection was opened, read after any earlier session's commit in flight has
    /// ended: so it also answers what became of a commit whose answer was lost. Its progress moves with
    /// [`Applier::commit`].
    fn record(&self) -> &Record;

    /// Carries out steps in order, in the open transaction or in a new one. Every UPDATE and DELETE must hit
    /// exactly one row and every INSERT insert one; anything else is a refusal.
    /// After an error the transaction is as good as rolled back: call [`Applier::rollback`].
    async fn write(&mut self, steps: &[Step]) -> std::result::Result<(), ApplyError>;

    /// Whether rows of this table with different keys can get in each other's way: it has another unique index, or
    /// something like one.
    fn rows_collide(&self, table: usize) -> bool;

    /// Records the progress and commits. The record moves only if it stands at transaction `after`; otherwise `Fenced`, or
    /// `Retry::Later` when a session of ours had moved it. `Retry::Unknown` when the connection broke after the commit was
    /// sent.
    async fn commit(&mut self, after: u64, progress: &Progress) -> Result<()>;

    async fn rollback(&mut self) -> Result<()>;

    /// Records a row that was fetched alone, with its cut, in a transaction of its own: the row is put in place
    /// of whatever the target has under that key (nothing, when `row` is `None`).
    async fn write_fetched(&mut self, table: usize, row: Option<&Row>, cut: &RowCut) -> Result<()>;

    /// Records that the target has everything that any cut contains, in a transaction of its own. Fails with `WentBack` when it
    /// has less by then than [`Applier::record`] says.
    async fn settle(&mut self) -> Result<()>;

    /// Puts a change into quarantine and holds its table back from `from_seq` on, in a transaction of its own.
    async fn hold(&mut self, quarantined: &Quarantined, from_seq: u64) -> Result<()>;

    /// Within the open transaction: the table is no longer held back.
    async fn release_hold(&mut self, table: &TableName) -> Result<()>;
}

/// Tables are given as indexes into the catalog's tables; rows have a cell for every column of the catalog's
/// table (`Unchanged` for generated ones).
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The net effect of several transactions on one table that has a key: order within it does not matter.
    Net(Net),
    /// Changes in the order in which the source made them.
    Ordered(Vec<RowChange>),
    /// Empties tables.
    Truncate { tables: Vec<usize>, restart_identity: bool },
    /// Deletes the rows with keys in `(after, upto]` but for these keys.
    DeleteRange { table: usize, after: Option<Key>, upto: Option<Key>, except: Vec<Key> },
}

/// No key occurs twice in `deletes` and `updates`; a key may be in `deletes` and again, as a new row, in
/// `inserts`. To carry out as deletes, then updates, then inserts, so that unique values that were freed can be
/// taken; updates may swap unique values among themselves, and may change keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Net {
    pub table: usize,
    pub deletes: Vec<Key>,
    pub updates: Vec<RowUpdate>,
    pub inserts: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RowUpdate {
    /// Under which the row is on the target now.
    pub key: Key,
    /// The row afterwards; `Unchanged` cells keep what is there.
    pub row: Row,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RowChange {
    Insert {
        table: usize,
        row: Row,
    },
    Update {
        table: usize,
        key: Key,
        row: Row,
    },
    Delete {
        table: usize,
        key: Key,
    },
    /// Of a table without a key: `old` has all cells, and exactly one of the rows equal to it is meant.
    UpdateWhole {
        table: usize,
        old: Row,
        row: Row,
    },
    DeleteWhole {
        table: usize,
        old: Row,
    },
}

impl RowChange {
    pub fn table(&self) -> usize {
        match self {
            RowChange::Insert { table, .. }
            | RowChange::Update { table, .. }
            | RowChange::Delete { table, .. }
            | RowChange::UpdateWhole { table, .. }
            | RowChange::DeleteWhole { table, .. } => *table,
        }
    }

    pub fn operation(&self) -> &'static str {
        match self {
            RowChange::Insert { .. } => "insert",
            RowChange::Update { .. } | RowChange::UpdateWhole { .. } => "update",
            RowChange::Delete { .. } | RowChange::DeleteWhole { .. } => "delete",
        }
    }
}

#[derive(Debug)]
pub enum ApplyError {
    /// The target refused a row, or did not have exactly the row that a change is about.
    Refused(Refusal),
    Failed(Error),
}

impl From<Error> for ApplyError {
    fn from(error: Error) -> ApplyError {
        ApplyError::Failed(error)
    }
}

#[derive(Debug)]
pub struct Refusal {
    pub table: usize,
    /// Index into the changes of the one [`Step::Ordered`] that was written, where it is known.
    pub change: Option<usize>,
    pub statement: String,
    pub error: Error,
}
