//! Loading a chunk: its rows and its record, in one transaction.

use connector::failpoint::{self, CHUNK_BEFORE_COMMIT};
use connector::{Block, ChunkStream, Error, ErrorKind, Owner, Result};
use model::{Chunk, Cut, Loaded, Position, Row, Table, Value};
use rusqlite::{Connection, params_from_iter};
use tokio::sync::Mutex;
use xxhash_rust::xxh3::Xxh3;

use crate::database::Session;
use crate::error::{During, committing};
use crate::records;
use crate::sql::{self, quote};
use crate::value::{self, Bound};

/// Loads over a connection of its own: when the future is dropped, the connection goes and takes the transaction along.
#[expect(clippy::too_many_arguments, reason = "the contract's own list, and a connection")]
pub(crate) async fn load(
    connection: Connection,
    turn: &Mutex<()>,
    owner: &Owner,
    table: &Table,
    chunk: &Chunk,
    cut: &Cut,
    settled: &Position,
    data: &mut dyn ChunkStream,
) -> Result<Loaded> {
    let session = Session::new(connection);
    let started = (owner.clone(), chunk.clone());
    // The first block is here before the write lock is taken: a source that is slow to begin blocks nobody.
    let mut block = data.next().await?;
    let _turn = turn.lock().await;
    session.run(move |connection| begin(connection, &started.0, &started.1)).await?;
    let insert = std::sync::Arc::new(Insert::new(table));
    let mut tally = Tally::default();
    while let Some(rows) = block {
        let Block::Rows(rows) = rows else {
            return Err(failed(chunk).with("format", "not rows of values"));
        };
        let insert = insert.clone();
        tally = session.run(move |connection| insert.all(connection, &rows, tally)).await?;
        block = data.next().await?;
    }
    if tally.rows != data.rows() {
        return Err(failed(chunk).with("rows written", tally.rows).with("rows delivered", data.rows()));
    }
    let loaded = Loaded {
        chunk: chunk.clone(),
        cut: cut.clone(),
        settled: settled.clone(),
        rows: tally.rows,
        bytes: tally.bytes,
        checksum: tally.hash.digest(),
    };
    let (stream, record) = (owner.stream.clone(), loaded.clone());
    session
        .run(move |connection| {
            records::add_chunk(connection, &stream, &record)?;
            failpoint::hit(CHUNK_BEFORE_COMMIT);
            connection.execute_batch("COMMIT").during("commit a chunk").map_err(committing)
        })
        .await?;
    Ok(loaded)
}

fn failed(chunk: &Chunk) -> Error {
    Error::new(ErrorKind::Conflict, "load a chunk").with("table", &chunk.table).with("chunk", chunk.number)
}

fn begin(connection: &Connection, owner: &Owner, chunk: &Chunk) -> Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE").during("load a chunk")?;
    records::fence(connection, owner)?;
    if records::has_chunk(connection, &owner.stream, &chunk.table, chunk.number)? {
        return Err(failed(chunk).with("reason", "it is on record already"));
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    rows: u64,
    bytes: u64,
    hash: Xxh3,
}

struct Insert {
    sql: String,
    table: Table,
    stored: Vec<usize>,
}

impl Insert {
    fn new(table: &Table) -> Insert {
        let stored: Vec<usize> = table.stored().collect();
        Insert { sql: insert(table), table: table.clone(), stored }
    }

    /// One prepared statement, once a row: there is no network to save round trips on, and rows in key order go to the
    /// end of the tree.
    fn all(&self, connection: &Connection, rows: &[Row], mut tally: Tally) -> Result<Tally> {
        let context = |error: Error| error.with("table", &self.table.name);
        let mut statement = connection.prepare_cached(&self.sql).during("load a chunk").map_err(context)?;
        for row in rows {
            let cells = self
                .stored
                .iter()
                .map(|&at| value::fit(&row[at], &self.table.columns[at]))
                .collect::<Result<Vec<_>>>()
                .map_err(context)?;
            statement
                .execute(params_from_iter(cells.iter().map(|cell| Bound(cell))))
                .during("load a chunk")
                .map_err(context)?;
            for &at in &self.stored {
                digest(&mut tally.hash, &row[at]);
                tally.bytes += row[at].weight() as u64;
            }
            tally.rows += 1;
        }
        Ok(tally)
    }
}

pub(crate) fn insert(table: &Table) -> String {
    let stored: Vec<usize> = table.stored().collect();
    format!(
        "INSERT INTO {} ({}) VALUES ({})",
        quote(&table.name.name),
        sql::list(&stored, |&at| quote(&table.columns[at].name)),
        sql::list(1..=stored.len(), |at| format!("?{at}"))
    )
}

/// A tag, then what cannot be mistaken for the next cell: lengths come first.
fn digest(hash: &mut Xxh3, value: &Value) {
    let sized = |hash: &mut Xxh3, tag: u8, bytes: &[u8]| {
        hash.update(&[tag]);
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    match value {
        Value::Null => hash.update(&[0]),
        Value::Unchanged => hash.update(&[1]),
        Value::Integer(integer) => sized(hash, 2, &integer.to_le_bytes()),
        Value::Real(real) => sized(hash, 3, &real.to_bits().to_le_bytes()),
        Value::Text(text) => sized(hash, 4, text),
        Value::Blob(blob) => sized(hash, 5, blob),
    }
}
