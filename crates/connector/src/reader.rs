//! The reading half of a database engine.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::{Catalog, Change, Cut, Key, Position, Range, Relation, Row, Sequence, Table, Transaction};

use crate::{Finding, NativeSchema, Result, Selection};

/// Reads a database: what is in it, what changes in it, and slices of it with an exact cut.
///
/// Contract:
/// - No call locks rows or tables against the application's reads and writes.
/// - Every call may be repeated. [`Reader::prepare`] is idempotent for one stream.
/// - Dropping a future is safe at any await and leaves no transaction open for longer than the server needs to
///   notice the closed connection.
/// - Secrets never appear in errors.
#[async_trait]
pub trait Reader: Send + Sync {
    /// Formats of chunk data that [`Wave::read`] can produce for this table, best first.
    fn formats(&self, table: &Table) -> Vec<Format>;

    /// Everything that would stop or harm a migration of these tables, found without changing anything.
    async fn check(&self, selection: &Selection) -> Result<Vec<Finding>>;

    /// The selected tables, sorted by name. Refuses a selection that holds no table.
    async fn catalog(&self, selection: &Selection) -> Result<Catalog>;

    /// The schema in the engine's own words, or `None` when the engine cannot tell it (a missing dump program:
    /// the reason is the error's).
    async fn native_schema(&self, catalog: &Catalog) -> Result<NativeSchema>;

    /// Creates what capture needs on the source (slot, publication, triggers), where it is not there yet, and
    /// returns the position after which capture is complete: every transaction that is not visible to a wave
    /// taken after this call is delivered by a capture from this position.
    async fn prepare(&self, stream: &str, catalog: &Catalog) -> Result<Position>;

    /// Opens the log right after `after`, which must be a position that this reader has given out.
    /// `LogLost` if the log does not reach back there.
    async fn capture(&self, stream: &str, catalog: &Catalog, after: &Position) -> Result<Box<dyn Capture>>;

    /// Takes one cut over these tables, shared by up to `readers` concurrent chunk reads.
    async fn wave(&self, tables: &[&Table], readers: usize) -> Result<Box<dyn Wave>>;

    /// Reads one row by its key, with a cut of its own.
    async fn fetch(&self, table: &Table, key: &Key) -> Result<Fetched>;

    /// `LogLost` unless the source that is reached now keeps its log for the stream and has come as far as `position`, a
    /// position that this reader has given out: a replica may have taken over, or the source been restored, while nobody
    /// followed the log. A source that was restored together with what keeps its log, and has passed `position` again, is
    /// not told apart.
    async fn keeps(&self, stream: &str, position: &Position) -> Result<()>;

    /// The end of the log now: everything that has been committed before this call lies at or before it.
    async fn position(&self) -> Result<Position>;

    async fn sequences(&self, catalog: &Catalog) -> Result<Vec<Sequence>>;

    /// How busy the source is, as a trivial statement finds it. Asked several times a second while rows are copied, on a
    /// session that stays open, so it must cost next to nothing.
    async fn probe(&self) -> Result<Load>;

    /// Removes what [`Reader::prepare`] created.
    async fn release(&self, stream: &str, catalog: &Catalog) -> Result<()>;
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// How long the trivial statement took.
    pub latency: Duration,
    /// Sessions of others that work, or have worked in the last [`RECENTLY`]; `None` when the source does not tell.
    pub others: Option<u32>,
}

/// Far longer than a transaction of a busy application takes, so that its sessions are not found idle between two of them.
pub const RECENTLY: Duration = Duration::from_millis(100);

impl Load {
    /// A source without others to be considerate of.
    pub const IDLE: Load = Load { latency: Duration::ZERO, others: Some(0) };
}

/// The source's log, as whole committed transactions in commit order.
#[async_trait]
pub trait Capture: Send {
    /// Appends at least one event to `events`, waiting for it; more if they are there already. Between `Begin`
    /// and `Commit` all events belong to that transaction; a transaction that rolled back is never delivered.
    /// A transaction of any size arrives in pieces of bounded size. Safe to drop at the await: no event is lost.
    async fn next(&mut self, events: &mut Vec<Event>) -> Result<()>;

    /// Tells the source that everything up to `position` is durable here, so that it may free its log.
    /// Only called with positions of commits or idle events of this capture, never decreasing.
    async fn acknowledge(&mut self, position: &Position) -> Result<()>;

    /// Nothing more is wanted: the source is told at once what was acknowledged last. The caller bounds the time.
    async fn close(&mut self) -> Result<()>;
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `seq` is 0: the journal gives it.
    Begin(Transaction),
    /// Before the first change that uses it, inside a transaction.
    Relation(Relation),
    Change(Change),
    /// The boundary right after the transaction.
    Commit {
        position: Position,
    },
    /// Between transactions: nothing of ours is in the log up to here, so it may be acknowledged.
    Idle {
        position: Position,
    },
}

/// One cut and the reads under it. Dropping it ends its transactions.
#[async_trait]
pub trait Wave: Send + Sync {
    fn cut(&self) -> &Cut;

    /// Every transaction that the cut contains lies at or before this position.
    fn settled(&self) -> &Position;

    /// Slices one table, in order, into ranges of about `bytes` each; never empty, and together they hold every
    /// row that the cut shows (for [`Slicing::Keys`]: within its bounds, as far as `ranges_max` allowed).
    async fn plan(&self, table: &Table, slicing: &Slicing, bytes: u64) -> Result<Vec<Range>>;

    /// Reads the rows of one range as the cut shows them: all columns that are stored, in catalog order.
    /// Waits for a free reader. An error or a cut connection is never mistaken for the end of the range.
    async fn read(&self, table: &Table, range: &Range, format: Format) -> Result<Box<dyn ChunkStream>>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slicing {
    /// Whatever reads fastest under one cut; the table must be copied within this wave.
    OneCut,
    /// By key range within `(after, upto]`, for keys that the client orders as the server does: survives the
    /// wave. The last range ends at `upto`, unless `ranges_max` stopped the plan before.
    Keys { after: Option<Key>, upto: Option<Key>, ranges_max: usize },
}

/// How chunk data travels. Reader and writer agree on one before the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// PostgreSQL COPY BINARY, as framed CopyData messages that are passed on untouched.
    PostgresBinary,
    /// PostgreSQL COPY TEXT, likewise.
    PostgresText,
    /// Rows of values, in the order of all columns of the catalog's table; generated ones are `Unchanged`.
    Rows,
}

#[async_trait]
pub trait ChunkStream: Send {
    /// The next block, or `None` after the source has confirmed that the range is complete.
    async fn next(&mut self) -> Result<Option<Block>>;

    /// Rows delivered, as the source itself counted them; valid after `next` has returned `None`.
    fn rows(&self) -> u64;
}

#[derive(Clone, Debug)]
pub enum Block {
    /// In the agreed format; a block may end in the middle of a row.
    Raw(Bytes),
    Rows(Vec<Row>),
}

/// A row read alone.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// `None` when there is no such row under the cut.
    pub row: Option<Row>,
    pub cut: Cut,
}
