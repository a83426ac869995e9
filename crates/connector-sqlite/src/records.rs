//! What the target keeps about the migration: who owns it, what has been loaded and how far it has been applied.
//!
//! Every function works inside the caller's transaction, which is the one that writes the data.

use connector::{Claim, Error, ErrorKind, Hold, Owner, Progress, Quarantined, Record, Result, Retry, RowCut};
use model::{Loaded, Position, TableName};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::During;

const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS _crossfade_progress (
        stream TEXT PRIMARY KEY, seq INTEGER, position TEXT, position_order INTEGER, epoch INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS _crossfade_chunk (
        stream TEXT, tbl TEXT, number INTEGER, record TEXT NOT NULL, PRIMARY KEY (stream, tbl, number)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS _crossfade_row_cut (
        stream TEXT, tbl TEXT, row_key TEXT, cut TEXT NOT NULL, settled TEXT NOT NULL,
        PRIMARY KEY (stream, tbl, row_key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS _crossfade_hold (
        stream TEXT, tbl TEXT, from_seq INTEGER NOT NULL, PRIMARY KEY (stream, tbl)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS _crossfade_quarantine (
        id INTEGER PRIMARY KEY, stream TEXT, tbl TEXT, seq INTEGER, position TEXT, operation TEXT, row_key TEXT,
        payload_hash TEXT, statement TEXT, error TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP);
    CREATE TABLE IF NOT EXISTS _crossfade_done (
        stream TEXT, item TEXT, PRIMARY KEY (stream, item)) WITHOUT ROWID;
";

/// Steps of the schema that are recorded as done.
pub(crate) const CREATED: &str = "tables created";
pub(crate) const SETTLED: &str = "cuts passed";
pub(crate) const FINISHED: &str = "schema finished";

pub(crate) fn exist(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_crossfade_progress')",
        [],
        |row| row.get(0),
    )
}

/// Whether this stream has worked on this target before.
pub(crate) fn knows(connection: &Connection, stream: &str) -> rusqlite::Result<bool> {
    Ok(exist(connection)?
        && connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM _crossfade_progress WHERE stream = ?1)",
            [stream],
            |row| row.get(0),
        )?)
}

/// Raises the epoch. SQLite has one writer at a time and nobody writes while we do, so an earlier owner has either
/// committed before or will find its epoch gone: there are no sessions to end.
pub(crate) fn claim(connection: &Connection, stream: &str) -> Result<Claim> {
    let operation = "claim the target";
    connection.execute_batch(CREATE).during(operation)?;
    let epoch: u64 = connection
        .query_row(
            "INSERT INTO _crossfade_progress (stream, epoch) VALUES (?1, 1)
             ON CONFLICT (stream) DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
            [stream],
            |row| row.get(0),
        )
        .during(operation)?;
    Ok(Claim {
        epoch,
        progress: progress(connection, stream)?,
        chunks: chunks(connection, stream)?,
        row_cuts: row_cuts(connection, stream)?,
        holds: holds(connection, stream)?,
        settled: is_done(connection, stream, SETTLED).during(operation)?,
        finished: is_finished(connection, stream)?,
    })
}

/// Refuses to write for an owner that is not the owner any more, or when the target has lost what is relied on. Holds until the
/// transaction ends, which has the write lock.
pub(crate) fn fence(connection: &Connection, owner: &Owner) -> Result<()> {
    let operation = "check who owns the target";
    let rows = connection
        .prepare_cached("UPDATE _crossfade_progress SET epoch = epoch WHERE stream = ?1 AND epoch = ?2")
        .and_then(|mut statement| statement.execute(params![owner.stream, owner.epoch]))
        .during(operation)?;
    if rows != 1 {
        return Err(fenced(owner));
    }
    if owner.settled && !is_done(connection, &owner.stream, SETTLED).during(operation)? {
        return Err(Error::went_back("the record that everything the copy saw is there"));
    }
    Ok(())
}

fn fenced(owner: &Owner) -> Error {
    Error::new(ErrorKind::Fenced, "write to the target")
        .with("migration", &owner.stream)
        .with("epoch", owner.epoch)
        .hint("Another process has taken this migration over. Only one may run: end the other one, or leave it to it.")
}

pub(crate) fn progress(connection: &Connection, stream: &str) -> Result<Option<Progress>> {
    connection
        .query_row(
            "SELECT seq, position, position_order FROM _crossfade_progress WHERE stream = ?1 AND seq IS NOT NULL",
            [stream],
            |row| {
                // The order's 64 bits, kept in a signed column.
                let order = row.get::<_, i64>(2)?.cast_unsigned();
                Ok(Progress { seq: row.get(0)?, position: Position { order, text: row.get(1)? } })
            },
        )
        .optional()
        .during("read the progress")
}

pub(crate) fn record(connection: &Connection, stream: &str) -> Result<Record> {
    Ok(Record {
        progress: progress(connection, stream)?,
        row_cuts: row_cuts(connection, stream)?,
        holds: holds(connection, stream)?,
        finished: is_finished(connection, stream)?,
    })
}

/// Moves the progress from transaction `after` on.
pub(crate) fn advance(connection: &Connection, owner: &Owner, after: u64, to: &Progress) -> Result<()> {
    let rows = connection
        .prepare_cached(
            "UPDATE _crossfade_progress SET seq = ?3, position = ?4, position_order = ?5
             WHERE stream = ?1 AND epoch = ?2 AND seq IS ?6",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                owner.stream,
                owner.epoch,
                to.seq,
                to.position.text,
                to.position.order.cast_signed(),
                (after > 0).then_some(after)
            ])
        })
        .during("record the progress")?;
    if rows == 1 {
        return Ok(());
    }
    fence(connection, owner)?;
    Err(Error::new(ErrorKind::Conflict, "record the progress")
        .retry(Retry::Later)
        .with("expected", after)
        .hint("An earlier session of this process has moved it: read it again and go on from there."))
}

pub(crate) fn chunks(connection: &Connection, stream: &str) -> Result<Vec<Loaded>> {
    let read = || -> rusqlite::Result<Vec<String>> {
        connection
            .prepare("SELECT record FROM _crossfade_chunk WHERE stream = ?1 ORDER BY tbl, number")?
            .query_map([stream], |row| row.get(0))?
            .collect()
    };
    read().during("read the chunk ledger")?.iter().map(|record| from_json(record)).collect()
}

pub(crate) fn has_chunk(
    connection: &Connection,
    stream: &str,
    table: &TableName,
    number: u32,
) -> Result<bool> {
    connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM _crossfade_chunk WHERE stream = ?1 AND tbl = ?2 AND number = ?3)",
            params![stream, to_json(table)?, number],
            |row| row.get(0),
        )
        .during("read the chunk ledger")
}

pub(crate) fn add_chunk(connection: &Connection, stream: &str, loaded: &Loaded) -> Result<()> {
    let table = to_json(&loaded.chunk.table)?;
    connection
        .execute(
            "INSERT INTO _crossfade_chunk (stream, tbl, number, record) VALUES (?1, ?2, ?3, ?4)",
            params![stream, table, loaded.chunk.number, to_json(loaded)?],
        )
        .during("record a chunk")?;
    Ok(())
}

/// Forgets what is on record about a table's rows.
pub(crate) fn forget(connection: &Connection, stream: &str, table: &TableName) -> Result<()> {
    let table = to_json(table)?;
    for statement in [
        "DELETE FROM _crossfade_chunk WHERE stream = ?1 AND tbl = ?2",
        "DELETE FROM _crossfade_row_cut WHERE stream = ?1 AND tbl = ?2",
    ] {
        connection.execute(statement, [stream, &table]).during("forget a table's chunks")?;
    }
    Ok(())
}

fn row_cuts(connection: &Connection, stream: &str) -> Result<Vec<RowCut>> {
    let operation = "read the row cuts";
    let read = || -> rusqlite::Result<Vec<[String; 4]>> {
        connection
            .prepare(
                "SELECT tbl, row_key, cut, settled FROM _crossfade_row_cut WHERE stream = ?1 ORDER BY tbl",
            )?
            .query_map([stream], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?
            .collect()
    };
    read()
        .during(operation)?
        .iter()
        .map(|[table, key, cut, settled]| {
            Ok(RowCut {
                table: from_json(table)?,
                key: from_json(key)?,
                cut: from_json(cut)?,
                settled: from_json(settled)?,
            })
        })
        .collect()
}

pub(crate) fn set_row_cut(connection: &Connection, stream: &str, row: &RowCut) -> Result<()> {
    connection
        .execute(
            "INSERT INTO _crossfade_row_cut (stream, tbl, row_key, cut, settled) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (stream, tbl, row_key) DO UPDATE SET cut = excluded.cut, settled = excluded.settled",
            params![
                stream,
                to_json(&row.table)?,
                to_json(&row.key)?,
                to_json(&row.cut)?,
                to_json(&row.settled)?
            ],
        )
        .during("record a row's cut")?;
    Ok(())
}

fn holds(connection: &Connection, stream: &str) -> Result<Vec<Hold>> {
    let read = || -> rusqlite::Result<Vec<(String, u64)>> {
        connection
            .prepare("SELECT tbl, from_seq FROM _crossfade_hold WHERE stream = ?1 ORDER BY tbl")?
            .query_map([stream], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    };
    let held = read().during("read the tables that are held back")?;
    held.into_iter().map(|(table, from_seq)| Ok(Hold { table: from_json(&table)?, from_seq })).collect()
}

/// Holds a table back from this transaction on, or from an earlier one if it is held back already.
pub(crate) fn hold(connection: &Connection, stream: &str, change: &Quarantined, from_seq: u64) -> Result<()> {
    let operation = "put a change into quarantine";
    let table = to_json(&change.table)?;
    connection
        .execute(
            "INSERT INTO _crossfade_quarantine
                 (stream, tbl, seq, position, operation, row_key, payload_hash, statement, error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                stream,
                table,
                change.seq,
                change.position.text,
                change.operation,
                change.key,
                format!("{:016x}", change.payload_hash),
                change.statement,
                change.error
            ],
        )
        .during(operation)?;
    connection
        .execute(
            "INSERT INTO _crossfade_hold (stream, tbl, from_seq) VALUES (?1, ?2, ?3)
             ON CONFLICT (stream, tbl) DO UPDATE SET from_seq = min(from_seq, excluded.from_seq)",
            params![stream, table, from_seq],
        )
        .during(operation)?;
    Ok(())
}

pub(crate) fn release_hold(connection: &Connection, stream: &str, table: &TableName) -> Result<()> {
    connection
        .execute("DELETE FROM _crossfade_hold WHERE stream = ?1 AND tbl = ?2", [stream, &to_json(table)?])
        .during("release a table")?;
    Ok(())
}

pub(crate) fn is_done(connection: &Connection, stream: &str, item: &str) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM _crossfade_done WHERE stream = ?1 AND item = ?2)",
        [stream, item],
        |row| row.get(0),
    )
}

fn is_finished(connection: &Connection, stream: &str) -> Result<bool> {
    let is_done = |item| is_done(connection, stream, item).during("read what is finished");
    Ok(is_done(SETTLED)? && is_done(FINISHED)?)
}

pub(crate) fn set_done(connection: &Connection, stream: &str, item: &str) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO _crossfade_done (stream, item) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        [stream, item],
    )?;
    Ok(())
}

fn to_json(record: &impl Serialize) -> Result<String> {
    serde_json::to_string(record)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "write a record").source(error))
}

fn from_json<T: DeserializeOwned>(record: &str) -> Result<T> {
    serde_json::from_str(record).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "read a record of the migration").with("record", record).source(error)
    })
}
