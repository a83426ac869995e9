//! What the target keeps of a migration: the schema `crossfade`, written only together with the data it is about.

use std::collections::HashSet;

use connector::{Claim, Error, ErrorKind, Hold, Owner, Progress, Record, Result, Retry, RowCut};
use model::{Loaded, Position, TableName, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::catalog::Cells;
use crate::encode;
use crate::wire::Client;

/// Idempotent. `progress` is updated once a transaction: a low fillfactor keeps its updates on one page (HOT).
const CREATE: &str = "
CREATE SCHEMA IF NOT EXISTS crossfade;
CREATE TABLE IF NOT EXISTS crossfade.progress (
  stream text PRIMARY KEY, epoch bigint NOT NULL, seq bigint NOT NULL, position text NOT NULL,
  position_order numeric(20) NOT NULL, settled boolean NOT NULL DEFAULT false,
  finished boolean NOT NULL DEFAULT false, updated_at timestamptz NOT NULL DEFAULT pg_catalog.now()) WITH (fillfactor = 10);
CREATE TABLE IF NOT EXISTS crossfade.chunk (
  stream text, table_schema text, table_name text, number bigint, loaded text NOT NULL,
  loaded_at timestamptz NOT NULL DEFAULT pg_catalog.now(), PRIMARY KEY (stream, table_schema, table_name, number));
CREATE TABLE IF NOT EXISTS crossfade.row_cut (
  stream text, table_schema text, table_name text, key text, cut text NOT NULL, settled text NOT NULL,
  PRIMARY KEY (stream, table_schema, table_name, key));
CREATE TABLE IF NOT EXISTS crossfade.hold (
  stream text, table_schema text, table_name text, from_seq bigint NOT NULL,
  PRIMARY KEY (stream, table_schema, table_name));
CREATE TABLE IF NOT EXISTS crossfade.quarantine (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream text NOT NULL, table_schema text NOT NULL,
  table_name text NOT NULL, seq bigint NOT NULL, position text NOT NULL, operation text NOT NULL, key text NOT NULL,
  payload_hash text NOT NULL, statement text NOT NULL, error text NOT NULL,
  refused_at timestamptz NOT NULL DEFAULT pg_catalog.now());
CREATE TABLE IF NOT EXISTS crossfade.schema_item (stream text, item text, PRIMARY KEY (stream, item));
";

/// Sessions of one stream carry this name, so that a new owner can end those of an earlier one.
pub(crate) fn application_name(stream: &str) -> String {
    let mut name: String = format!("crossfade {stream}");
    // The server cuts at 63 bytes; cutting here keeps both ends of the comparison equal.
    while name.len() > 63 {
        name.pop();
    }
    name
}

pub(crate) fn text(value: &str) -> Option<&[u8]> {
    Some(value.as_bytes())
}

/// Takes the stream over. Earlier owners' sessions are ended first, as one of them may hold locks that we need; one
/// that connects again finds its epoch old.
pub(crate) async fn claim(client: &mut Client, stream: &str) -> Result<Claim> {
    client.doing("create the crossfade records on the target").simple(CREATE).await.map_err(|error| {
        match error.kind {
            ErrorKind::Permission => error.hint(
                "the target's user must be allowed to create a schema: GRANT CREATE ON DATABASE … TO …",
            ),
            _ => error,
        }
    })?;
    client.doing("take the migration over");
    client
        .query(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
             WHERE application_name = $1 AND datname = pg_catalog.current_database() \
             AND usename = current_user AND pid <> pg_catalog.pg_backend_pid()",
            &[text(&application_name(stream))],
        )
        .await?;
    client
        .query(
            "INSERT INTO crossfade.progress (stream, epoch, seq, position, position_order) \
             VALUES ($1, 0, 0, '', 0) ON CONFLICT (stream) DO NOTHING",
            &[text(stream)],
        )
        .await?;
    let rows = client
        .query(
            "UPDATE crossfade.progress SET epoch = epoch + 1 WHERE stream = $1 \
             RETURNING epoch, seq, position, position_order, settled, settled AND finished",
            &[text(stream)],
        )
        .await?;
    let row = Cells::of(rows.into_iter().next().unwrap_or_default());
    let epoch = row.parse(0)?;
    let progress = progress(&row, 1)?;
    let settled = row.text(4)? == "t";
    let finished = row.text(5)? == "t";
    Ok(Claim {
        epoch,
        progress,
        chunks: ledger(client, stream).await?,
        row_cuts: row_cuts(client, stream).await?,
        holds: holds(client, stream).await?,
        settled,
        finished,
    })
}

fn progress(row: &Cells, from: usize) -> Result<Option<Progress>> {
    let seq: u64 = row.parse(from)?;
    let position = Position { text: row.text(from + 1)?.to_owned(), order: row.parse(from + 2)? };
    Ok((seq > 0).then_some(Progress { seq, position }))
}

pub(crate) async fn ledger(client: &mut Client, stream: &str) -> Result<Vec<Loaded>> {
    let rows = client
        .query(
            "SELECT loaded FROM crossfade.chunk WHERE stream = $1 ORDER BY table_schema, table_name, number",
            &[text(stream)],
        )
        .await?;
    rows.into_iter().map(|row| from_json(Cells::of(row).text(0)?)).collect()
}

async fn row_cuts(client: &mut Client, stream: &str) -> Result<Vec<RowCut>> {
    let rows = client
        .query(
            "SELECT table_schema, table_name, key, cut, settled FROM crossfade.row_cut WHERE stream = $1",
            &[text(stream)],
        )
        .await?;
    rows.into_iter()
        .map(|row| {
            let row = Cells::of(row);
            Ok(RowCut {
                table: TableName::new(row.text(0)?, row.text(1)?),
                key: from_json(row.text(2)?)?,
                cut: from_json(row.text(3)?)?,
                settled: from_json(row.text(4)?)?,
            })
        })
        .collect()
}

async fn holds(client: &mut Client, stream: &str) -> Result<Vec<Hold>> {
    let rows = client
        .query(
            "SELECT table_schema, table_name, from_seq FROM crossfade.hold WHERE stream = $1",
            &[text(stream)],
        )
        .await?;
    rows.into_iter()
        .map(|row| {
            let row = Cells::of(row);
            Ok(Hold { table: TableName::new(row.text(0)?, row.text(1)?), from_seq: row.parse(2)? })
        })
        .collect()
}

/// Within a transaction, before its commit: fails if a newer owner has the stream, or the target has lost what is relied on.
/// The lock holds the next claim off until this transaction has ended.
pub(crate) async fn fence(client: &mut Client, owner: &Owner) -> Result<()> {
    let rows = client
        .query(
            "SELECT settled FROM crossfade.progress WHERE stream = $1 AND epoch = $2 FOR SHARE",
            &[text(&owner.stream), text(&owner.epoch.to_string())],
        )
        .await?;
    let row = rows.into_iter().next().map(Cells::of).ok_or_else(|| fenced(owner))?;
    if owner.settled && row.text(0)? != "t" {
        return Err(Error::went_back("the record that everything the copy saw is there"));
    }
    Ok(())
}

/// What is on record, read after a lock that waits for any earlier commit in flight.
pub(crate) async fn record(client: &mut Client, owner: &Owner) -> Result<Record> {
    let rows = client
        .query(
            "SELECT epoch, seq, position, position_order, settled AND finished FROM crossfade.progress WHERE stream = $1 FOR UPDATE",
            &[text(&owner.stream)],
        )
        .await?;
    if rows.is_empty() {
        return Err(fenced(owner));
    }
    let row = Cells::of(rows.into_iter().next().unwrap_or_default());
    if row.parse::<u64>(0)? != owner.epoch {
        return Err(fenced(owner));
    }
    Ok(Record {
        finished: row.text(4)? == "t",
        progress: progress(&row, 1)?,
        row_cuts: row_cuts(client, &owner.stream).await?,
        holds: holds(client, &owner.stream).await?,
    })
}

pub(crate) fn fenced(owner: &Owner) -> Error {
    Error::new(ErrorKind::Fenced, "write to the target")
        .with("migration", &owner.stream)
        .with("our epoch", owner.epoch)
        .retry(Retry::Never)
        .hint("another process has taken this migration over; this one has written nothing since and stops")
}

/// Whether an item of the schema is on record as created.
pub(crate) async fn has_item(client: &mut Client, owner: &Owner, item: &str) -> Result<bool> {
    let rows = client
        .query(
            "SELECT 1 FROM crossfade.schema_item WHERE stream = $1 AND item = $2",
            &[text(&owner.stream), text(item)],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// All items of the schema that are on record as created.
pub(crate) async fn items(client: &mut Client, owner: &Owner) -> Result<HashSet<String>> {
    let rows = client
        .query("SELECT item FROM crossfade.schema_item WHERE stream = $1", &[text(&owner.stream)])
        .await?;
    rows.into_iter().map(|row| Cells::of(row).text(0).map(str::to_owned)).collect()
}

pub(crate) async fn note_items(
    client: &mut Client,
    owner: &Owner,
    items: impl IntoIterator<Item = String>,
) -> Result<()> {
    let items: Vec<Value> = items.into_iter().map(Value::text).collect();
    client
        .query(
            "INSERT INTO crossfade.schema_item (stream, item) SELECT $1, pg_catalog.unnest($2::text[])",
            &[text(&owner.stream), Some(&encode::array(&items))],
        )
        .await?;
    Ok(())
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "store a record").source(error))
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "read a record of the target's crossfade schema")
            .hint("somebody changed the records, or another version wrote them; do not go on with this migration")
            .source(error)
    })
}
