//! What the target keeps of a migration: the database `crossfade`, written only together with the data it is about.
//!
//! But for [`create`] and [`claim`] every function works inside the caller's open transaction, which is the one that writes
//! the data, and leaves the commit to him. Those that change a record fail with `Fenced` when a newer owner has the stream;
//! [`release_hold`] leaves that to [`advance`].

use connector::{Claim, Error, ErrorKind, Hold, Owner, Progress, Quarantined, Record, Result, Retry, RowCut};
use model::{Loaded, Position, TableName};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cells::Cells;
use crate::error::number;
use crate::prepared::Param;
use crate::question::{ask, run, text};
use crate::url::Settings;
use crate::wire::Client;
use crate::writer::commit;
use crate::{session, token};

/// Where the records are, whatever database the tables are in.
pub(crate) const DATABASE: &str = "crossfade";

/// Tables and their columns. A row's key has no bound, and an index has: its digest stands for it.
const TABLES: &[(&str, &str)] = &[
    (
        "progress",
        "stream VARCHAR(190) PRIMARY KEY, epoch BIGINT UNSIGNED NOT NULL, seq BIGINT UNSIGNED NOT NULL, \
         position MEDIUMTEXT NOT NULL, position_order BIGINT UNSIGNED NOT NULL, settled BOOLEAN NOT NULL DEFAULT FALSE, \
         finished BOOLEAN NOT NULL DEFAULT FALSE, \
         updated_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP",
    ),
    (
        "chunk",
        "stream VARCHAR(190), table_schema VARCHAR(64), table_name VARCHAR(64), number INT UNSIGNED, \
         loaded LONGTEXT NOT NULL, loaded_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP, \
         PRIMARY KEY (stream, table_schema, table_name, number)",
    ),
    (
        "row_cut",
        "stream VARCHAR(190), table_schema VARCHAR(64), table_name VARCHAR(64), key_digest BINARY(32), \
         row_key LONGTEXT NOT NULL, cut LONGTEXT NOT NULL, settled LONGTEXT NOT NULL, \
         PRIMARY KEY (stream, table_schema, table_name, key_digest)",
    ),
    (
        "hold",
        "stream VARCHAR(190), table_schema VARCHAR(64), table_name VARCHAR(64), from_seq BIGINT UNSIGNED NOT NULL, \
         PRIMARY KEY (stream, table_schema, table_name)",
    ),
    (
        "quarantine",
        "id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, stream VARCHAR(190) NOT NULL, table_schema VARCHAR(64) NOT NULL, \
         table_name VARCHAR(64) NOT NULL, seq BIGINT UNSIGNED NOT NULL, position MEDIUMTEXT NOT NULL, \
         operation VARCHAR(20) NOT NULL, row_key LONGTEXT NOT NULL, payload_hash CHAR(16) NOT NULL, \
         statement LONGTEXT NOT NULL, error LONGTEXT NOT NULL, refused_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP",
    ),
    (
        "schema_item",
        "stream VARCHAR(190), item VARCHAR(500), state VARCHAR(64) NOT NULL, PRIMARY KEY (stream, item)",
    ),
    ("session", "token VARCHAR(64) PRIMARY KEY, stream VARCHAR(190) NOT NULL"),
];

/// Creates what is not there. Each statement commits by itself.
pub(crate) async fn create(client: &mut Client) -> Result<()> {
    client.doing("create the crossfade records on the target");
    let collation = client.family().exact_collation();
    let mut statements = vec![format!("CREATE DATABASE IF NOT EXISTS {DATABASE}")];
    statements.extend(TABLES.iter().map(|(name, columns)| {
        format!(
            "CREATE TABLE IF NOT EXISTS {DATABASE}.{name} ({columns}) \
             ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 COLLATE {collation}"
        )
    }));
    for statement in statements {
        client.execute(&statement).await.map_err(|error| match error.kind {
            ErrorKind::Permission => error.hint(
                "GRANT CREATE, SELECT, INSERT, UPDATE, DELETE ON crossfade.* TO the user of the target URL",
            ),
            _ => error,
        })?;
    }
    Ok(())
}

/// Takes the stream over, over a session of its own.
///
/// The order is what keeps an earlier owner off. His sessions are ended first, as one of them may hold the lock on the
/// progress. A statement that changes the schema commits by itself, with no epoch beside it; but who looked at the epoch
/// before it was raised was on record by then, so ending sessions once more ends that one too. From there on nobody
/// passes the fence.
pub(crate) async fn claim(settings: &Settings, stream: &str) -> Result<Claim> {
    let mut client = session::keeping(settings).await?;
    create(&mut client).await?;
    token::take(&mut client, &settings.left, stream).await?;
    token::end_others(&mut client, stream).await?;
    let claim = raise(&mut client, stream).await?;
    token::end_others(&mut client, stream).await?;
    Ok(claim)
}

/// Raises the epoch and reads what is on record. The lock on the progress keeps everything else still meanwhile.
async fn raise(client: &mut Client, stream: &str) -> Result<Claim> {
    client.doing("take the migration over").execute("START TRANSACTION").await?;
    run(
        client,
        "INSERT INTO crossfade.progress (stream, epoch, seq, position, position_order) VALUES (?, 1, 0, '', 0) \
         ON DUPLICATE KEY UPDATE epoch = epoch + 1",
        &[text(stream)],
    )
    .await?;
    let row = standing(client, stream).await?;
    let row = row.ok_or_else(|| Error::went_back("the record that was made just now"))?;
    let claim = Claim {
        epoch: row.parse(0)?,
        progress: progress(&row)?,
        chunks: chunks(client, stream).await?,
        row_cuts: row_cuts(client, stream).await?,
        holds: holds(client, stream).await?,
        settled: row.text(4)? == "1",
        finished: row.text(5)? == "1",
    };
    commit(client).await?;
    Ok(claim)
}

/// The row of the progress, once every transaction of the stream that has passed the fence has ended.
async fn standing(client: &mut Client, stream: &str) -> Result<Option<Cells>> {
    let rows = ask(
        client,
        "SELECT CAST(epoch AS CHAR), CAST(seq AS CHAR), position, CAST(position_order AS CHAR), CAST(settled AS CHAR), \
         CAST(settled AND finished AS CHAR) FROM crossfade.progress WHERE stream = ? FOR UPDATE",
        &[text(stream)],
    )
    .await?;
    Ok(rows.into_iter().next())
}

fn progress(row: &Cells) -> Result<Option<Progress>> {
    let seq: u64 = row.parse(1)?;
    let position = Position { text: row.text(2)?.to_owned(), order: row.parse(3)? };
    Ok((seq > 0).then_some(Progress { seq, position }))
}

/// Fails if a newer owner has the stream, or the target has lost what is relied on. The lock holds the next claim off until the
/// transaction has ended.
pub(crate) async fn fence(client: &mut Client, owner: &Owner) -> Result<()> {
    let rows = ask(
        client,
        "SELECT CAST(epoch AS CHAR), CAST(settled AS CHAR) FROM crossfade.progress WHERE stream = ? LOCK IN SHARE MODE",
        &[text(&owner.stream)],
    )
    .await?;
    let row = rows.first().ok_or_else(|| fenced(owner))?;
    if row.parse::<u64>(0)? != owner.epoch {
        return Err(fenced(owner));
    }
    if owner.settled && row.text(1)? != "1" {
        return Err(Error::went_back("the record that everything the copy saw is there"));
    }
    Ok(())
}

fn fenced(owner: &Owner) -> Error {
    Error::new(ErrorKind::Fenced, "write to the target")
        .with("migration", &owner.stream)
        .with("our epoch", owner.epoch)
        .hint("another process has taken this migration over; this one has written nothing since and stops")
}

/// What is on record, read after a lock that waits for any earlier commit in flight.
pub(crate) async fn record(client: &mut Client, owner: &Owner) -> Result<Record> {
    let row = standing(client, &owner.stream).await?.ok_or_else(|| fenced(owner))?;
    if row.parse::<u64>(0)? != owner.epoch {
        return Err(fenced(owner));
    }
    Ok(Record {
        progress: progress(&row)?,
        row_cuts: row_cuts(client, &owner.stream).await?,
        holds: holds(client, &owner.stream).await?,
        finished: row.text(5)? == "1",
    })
}

/// Moves the progress from transaction `after` on. The last statement before the commit: the lock is held for no longer.
pub(crate) async fn advance(client: &mut Client, owner: &Owner, after: u64, to: &Progress) -> Result<()> {
    let moved = run(
        client,
        "UPDATE crossfade.progress SET seq = ?, position = ?, position_order = ? \
         WHERE stream = ? AND epoch = ? AND seq = ?",
        &[
            Param::Unsigned(to.seq),
            text(&to.position.text),
            Param::Unsigned(to.position.order),
            text(&owner.stream),
            Param::Unsigned(owner.epoch),
            Param::Unsigned(after),
        ],
    )
    .await?;
    if moved == 1 {
        return Ok(());
    }
    let found = record(client, owner).await?;
    Err(Error::new(ErrorKind::Conflict, "record the progress")
        .with("expected transaction", after)
        .with("found", found.applied())
        .retry(Retry::Later))
}

/// Records a chunk and holds the next claim off until the transaction has ended, in one statement (see [`fence`]).
pub(crate) async fn add_chunk(client: &mut Client, owner: &Owner, loaded: &Loaded) -> Result<()> {
    let table = &loaded.chunk.table;
    let recorded = run(
        client,
        "INSERT INTO crossfade.chunk (stream, table_schema, table_name, number, loaded) \
         SELECT stream, ?, ?, ?, ? FROM crossfade.progress \
         WHERE stream = ? AND epoch = ? AND (settled OR NOT ?) LOCK IN SHARE MODE",
        &[
            text(&table.schema),
            text(&table.name),
            Param::Unsigned(loaded.chunk.number.into()),
            text(&to_json(loaded)?),
            text(&owner.stream),
            Param::Unsigned(owner.epoch),
            Param::Integer(owner.settled.into()),
        ],
    )
    .await;
    match recorded {
        Ok(1) => Ok(()),
        Ok(_) => fence(client, owner).await.and(Err(fenced(owner))),
        Err(error) if number(&error) == Some(DUPLICATE) => {
            Err(Error::new(ErrorKind::Conflict, "record a chunk")
                .with("table", table)
                .with("chunk", loaded.chunk.number)
                .source(error))
        }
        Err(error) => Err(error),
    }
}

/// `ER_DUP_ENTRY`
const DUPLICATE: u16 = 1062;

/// The chunks on record. Only after [`record`] those of loads that were in flight are among them.
pub(crate) async fn ledger(client: &mut Client, owner: &Owner) -> Result<Vec<Loaded>> {
    chunks(client, &owner.stream).await
}

async fn chunks(client: &mut Client, stream: &str) -> Result<Vec<Loaded>> {
    let rows = ask(
        client,
        "SELECT loaded FROM crossfade.chunk WHERE stream = ? ORDER BY table_schema, table_name, number",
        &[text(stream)],
    )
    .await?;
    rows.iter().map(|row| from_json(row.text(0)?)).collect()
}

/// Forgets what is on record about a table's rows.
pub(crate) async fn forget(client: &mut Client, owner: &Owner, table: &TableName) -> Result<()> {
    fence(client, owner).await?;
    for statement in [
        "DELETE FROM crossfade.chunk WHERE stream = ? AND table_schema = ? AND table_name = ?",
        "DELETE FROM crossfade.row_cut WHERE stream = ? AND table_schema = ? AND table_name = ?",
    ] {
        run(client, statement, &[text(&owner.stream), text(&table.schema), text(&table.name)]).await?;
    }
    Ok(())
}

async fn row_cuts(client: &mut Client, stream: &str) -> Result<Vec<RowCut>> {
    let rows = ask(
        client,
        "SELECT table_schema, table_name, row_key, cut, settled FROM crossfade.row_cut WHERE stream = ?",
        &[text(stream)],
    )
    .await?;
    rows.iter()
        .map(|row| {
            Ok(RowCut {
                table: TableName::new(row.text(0)?, row.text(1)?),
                key: from_json(row.text(2)?)?,
                cut: from_json(row.text(3)?)?,
                settled: from_json(row.text(4)?)?,
            })
        })
        .collect()
}

pub(crate) async fn set_row_cut(client: &mut Client, owner: &Owner, cut: &RowCut) -> Result<()> {
    fence(client, owner).await?;
    let key = to_json(&cut.key)?;
    run(
        client,
        "INSERT INTO crossfade.row_cut (stream, table_schema, table_name, key_digest, row_key, cut, settled) \
         VALUES (?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE cut = VALUES(cut), settled = VALUES(settled)",
        &[
            text(&owner.stream),
            text(&cut.table.schema),
            text(&cut.table.name),
            Param::Blob(digest(&SHA256, key.as_bytes()).as_ref()),
            text(&key),
            text(&to_json(&cut.cut)?),
            text(&to_json(&cut.settled)?),
        ],
    )
    .await
    .map(drop)
}

async fn holds(client: &mut Client, stream: &str) -> Result<Vec<Hold>> {
    let rows = ask(
        client,
        "SELECT table_schema, table_name, CAST(from_seq AS CHAR) FROM crossfade.hold WHERE stream = ?",
        &[text(stream)],
    )
    .await?;
    rows.iter()
        .map(|row| Ok(Hold { table: TableName::new(row.text(0)?, row.text(1)?), from_seq: row.parse(2)? }))
        .collect()
}

/// Holds a table back from this transaction on, or from an earlier one if it is held back already.
pub(crate) async fn hold(
    client: &mut Client,
    owner: &Owner,
    quarantined: &Quarantined,
    from_seq: u64,
) -> Result<()> {
    fence(client, owner).await?;
    let table = &quarantined.table;
    run(
        client,
        "INSERT INTO crossfade.quarantine (stream, table_schema, table_name, seq, position, operation, row_key, \
         payload_hash, statement, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        &[
            text(&owner.stream),
            text(&table.schema),
            text(&table.name),
            Param::Unsigned(quarantined.seq),
            text(&quarantined.position.text),
            text(quarantined.operation),
            text(&quarantined.key),
            text(&format!("{:016x}", quarantined.payload_hash)),
            text(&quarantined.statement),
            text(&quarantined.error),
        ],
    )
    .await?;
    run(
        client,
        "INSERT INTO crossfade.hold (stream, table_schema, table_name, from_seq) VALUES (?, ?, ?, ?) \
         ON DUPLICATE KEY UPDATE from_seq = LEAST(from_seq, VALUES(from_seq))",
        &[text(&owner.stream), text(&table.schema), text(&table.name), Param::Unsigned(from_seq)],
    )
    .await
    .map(drop)
}

/// Beside applied changes, so that [`advance`] fences it.
pub(crate) async fn release_hold(client: &mut Client, owner: &Owner, table: &TableName) -> Result<()> {
    run(
        client,
        "DELETE FROM crossfade.hold WHERE stream = ? AND table_schema = ? AND table_name = ?",
        &[text(&owner.stream), text(&table.schema), text(&table.name)],
    )
    .await
    .map(drop)
}

/// Puts on record that the target has everything that any cut contains, if it still has `applied`.
pub(crate) async fn settle(client: &mut Client, owner: &Owner, applied: u64) -> Result<()> {
    if record(client, owner).await?.applied() < applied {
        return Err(Error::went_back(format!("transaction {applied}")));
    }
    run(client, "UPDATE crossfade.progress SET settled = TRUE WHERE stream = ?", &[text(&owner.stream)])
        .await
        .map(drop)
}

/// Puts on record that the schema is finished.
pub(crate) async fn set_finished(client: &mut Client, owner: &Owner) -> Result<()> {
    let set = run(
        client,
        "UPDATE crossfade.progress SET finished = TRUE WHERE stream = ? AND epoch = ? AND (settled OR NOT ?)",
        &[text(&owner.stream), Param::Unsigned(owner.epoch), Param::Integer(owner.settled.into())],
    )
    .await?;
    if set == 1 { Ok(()) } else { fence(client, owner).await.and(Err(fenced(owner))) }
}

/// How far a step or an item of the schema has come, if it was begun.
pub(crate) async fn item_state(client: &mut Client, owner: &Owner, item: &str) -> Result<Option<String>> {
    let rows = ask(
        client,
        "SELECT state FROM crossfade.schema_item WHERE stream = ? AND item = ?",
        &[text(&owner.stream), text(item)],
    )
    .await?;
    rows.first().map(|row| row.text(0).map(str::to_owned)).transpose()
}

pub(crate) async fn set_item_state(
    client: &mut Client,
    owner: &Owner,
    item: &str,
    state: &str,
) -> Result<()> {
    fence(client, owner).await?;
    run(
        client,
        "INSERT INTO crossfade.schema_item (stream, item, state) VALUES (?, ?, ?) \
         ON DUPLICATE KEY UPDATE state = VALUES(state)",
        &[text(&owner.stream), text(item), text(state)],
    )
    .await
    .map(drop)
}

fn to_json(record: &impl Serialize) -> Result<String> {
    serde_json::to_string(record)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "store a record").source(error))
}

fn from_json<T: DeserializeOwned>(record: &str) -> Result<T> {
    serde_json::from_str(record).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "read a record of the target's database crossfade")
            .hint("somebody changed the records, or another version wrote them; do not go on with this migration")
            .source(error)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::{Key, Value};

    use super::*;

    #[test]
    fn what_is_stored_is_read() {
        let key = Key(vec![Value::text("it's \\ 😀"), Value::Blob(vec![0, 255].into()), Value::Null]);
        assert_eq!(from_json::<Key>(&to_json(&key).unwrap()).unwrap(), key);
        assert_eq!(from_json::<Key>("[").unwrap_err().kind, ErrorKind::Corrupt);
    }

    #[test]
    fn nothing_is_applied_before_the_first_transaction() {
        let row = |seq: &'static str| {
            let cells = ["3", seq, "b.000001:4", "18446744073709551615", "0", "0"];
            Cells(cells.iter().map(|cell| Some(Bytes::from_static(cell.as_bytes()))).collect())
        };
        assert_eq!(progress(&row("0")).unwrap(), None);
        let found = progress(&row("7")).unwrap().unwrap();
        assert_eq!((found.seq, found.position.order), (7, u64::MAX));
        assert_eq!(progress(&row("-1")).unwrap_err().kind, ErrorKind::Corrupt);
    }
}
