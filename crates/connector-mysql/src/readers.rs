//! The sessions of a wave: each reads one SELECT at a time, and all of them under the same cut.
//!
//! A SELECT locks the table's definition until its transaction ends, and whoever wants to change it stops everybody behind
//! him. So each is sent behind a savepoint: going back to it gives the lock away, if the session does not log, and keeps the
//! snapshot.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use connector::{Block, ChunkStream, Error, ErrorKind, Result, Retry};
use model::{Row, Table, TableName, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::column_type::ColumnType;
use crate::error;
use crate::prepared::Statement;
use crate::select::Select;
use crate::value;
use crate::wire::Client;

const BLOCK_ROWS: usize = 1_000;
const BLOCK_BYTES: usize = 1 << 20;

#[derive(Clone)]
pub(crate) struct Readers {
    idle: Arc<Mutex<Vec<Client>>>,
    free: Arc<Semaphore>,
}

/// What a SELECT's cells are.
pub(crate) struct Shape {
    pub(crate) types: Arc<[ColumnType]>,
    /// The column that each cell belongs to.
    pub(crate) cells: Vec<usize>,
}

impl Shape {
    /// All stored columns of a table.
    pub(crate) fn of(table: &Table, types: Arc<[ColumnType]>) -> Shape {
        Shape { types, cells: table.stored().collect() }
    }
}

impl Readers {
    pub(crate) fn new(clients: Vec<Client>) -> Readers {
        Readers { free: Arc::new(Semaphore::new(clients.len())), idle: Arc::new(Mutex::new(clients)) }
    }

    /// Waits for a free session.
    pub(crate) async fn read(&self, table: &TableName, select: Select, shape: Shape) -> Result<Reading> {
        let mut lease = self.lease().await?;
        lease.client()?.execute("SAVEPOINT chunk").await?;
        if let Err(error) = lease.open(&select).await {
            return Err(lease.after(rewritten(error).with("table", table)).await);
        }
        Ok(Reading { table: table.clone(), shape, lease: Some(lease), rows: 0 })
    }

    async fn lease(&self) -> Result<Lease> {
        let none = || Error::new(ErrorKind::Connect, "find a free reader");
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(|_| none())?;
        let lost = || none().with("because", "its connection was lost");
        let client = self.idle.lock().map_err(|_| none())?.pop().ok_or_else(lost)?;
        Ok(Lease { client: Some(client), statement: None, idle: Arc::clone(&self.idle), _permit: permit })
    }
}

/// Only a session that does not log gives the locks away that it has taken since a savepoint (MDEV-25902). False where
/// the user may not choose that: then they last as long as the wave.
pub(crate) async fn without_log(client: &mut Client) -> Result<bool> {
    match client.execute("SET sql_log_bin = 0").await {
        Err(error) if error.kind == ErrorKind::Permission => Ok(false),
        Err(error) => Err(error),
        Ok(_) => Ok(true),
    }
}

/// A table that was altered or emptied since the snapshot is not what it was: InnoDB says so (1412), and the next wave reads
/// it again.
fn rewritten(error: Error) -> Error {
    match error::number(&error) {
        // Only for the table's definition does such a read ever wait.
        Some(1205) => Error { kind: ErrorKind::Schema, ..error }.retry(Retry::Later).hint(
            "another session holds the table's definition (LOCK TABLES, or an ALTER that waits for its turn); it is read in the next wave",
        ),
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

    /// Gives the lock on the table's definition away, too.
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

/// Rows being read; gives its reader back when they were read to the end.
pub(crate) struct Reading {
    table: TableName,
    shape: Shape,
    lease: Option<Lease>,
    rows: u64,
}

impl Reading {
    /// The row of a SELECT that gives at most one.
    pub(crate) async fn only_row(mut self) -> Result<Option<Row>> {
        let mut rows = Vec::new();
        while let Some(mut block) = self.block().await? {
            rows.append(&mut block);
        }
        Ok(rows.pop())
    }

    /// The next rows; `None` after the last.
    pub(crate) async fn block(&mut self) -> Result<Option<Vec<Row>>> {
        self.decoded().await.map_err(|error| rewritten(error).with("table", &self.table))
    }

    async fn decoded(&mut self) -> Result<Option<Vec<Row>>> {
        let Some(mut lease) = self.lease.take() else { return Ok(None) };
        let (mut block, mut bytes, mut cells) = (Vec::new(), 0, Vec::new());
        loop {
            match lease.client()?.next_row(&mut cells).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Err(lease.after(error).await),
            }
            if cells.len() != self.shape.cells.len() {
                return Err(Error::new(ErrorKind::Corrupt, "read a chunk"));
            }
            let row = self.row(&mut cells)?;
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

    fn row(&self, cells: &mut [Option<bytes::Bytes>]) -> Result<Row> {
        let mut row = vec![Value::Unchanged; self.shape.types.len()];
        for (cell, &at) in cells.iter_mut().zip(&self.shape.cells) {
            row[at] = value::from_binary(&self.shape.types[at], cell.take())
                .map_err(|error| error.into_error("read a chunk"))?;
        }
        Ok(row)
    }
}

#[async_trait]
impl ChunkStream for Reading {
    async fn next(&mut self) -> Result<Option<Block>> {
        Ok(self.block().await?.map(Block::Rows))
    }

    fn rows(&self) -> u64 {
        self.rows
    }
}
