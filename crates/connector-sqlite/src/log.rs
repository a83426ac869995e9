//! The change log in the source: its tables, how they are made and removed, and whether they can be trusted.
//!
//! `_crossfade_log` has one entry a changed row, numbered by `seq`; an entry commits or rolls back with the change
//! itself, and because SQLite has one writer at a time the entries of a transaction are next to each other and numbers
//! grow in the order of commits. A read transaction sees a prefix of it, so the highest number that was ever given is an
//! exact cut: of an entry that is there, or the one that AUTOINCREMENT keeps. Neither alone would do: entries get
//! deleted, and a statement that ends by OR FAIL keeps its rows without having noted their numbers.
//! Deliberately absent: which transaction an entry belongs to. SQLite has no number for that; `_crossfade_boundary`
//! keeps the cuts that were taken, so that capture never joins what lies before a cut with what lies after it.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use connector::{Error, ErrorKind, Result};
use model::{Catalog, Position};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::catalog;
use crate::error::During;
use crate::layout::Layout;
use crate::sql::{self, quote};
use crate::triggers;

pub(crate) const LOG: &str = "_crossfade_log";
pub(crate) const TENTATIVE: &str = "_crossfade_tentative";
pub(crate) const BOUNDARY: &str = "_crossfade_boundary";
const META: &str = "_crossfade_meta";

const TABLES: &[&str] = &[LOG, TENTATIVE, BOUNDARY, META];

/// Cells of an untyped column keep the storage class in which the trigger wrote them.
const CREATE: &str = "
    CREATE TABLE _crossfade_log (seq INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, op TEXT NOT NULL);
    CREATE TABLE _crossfade_tentative (tbl TEXT NOT NULL, tag, id);
    CREATE INDEX _crossfade_tentative_tag ON _crossfade_tentative (tbl, tag);
    CREATE INDEX _crossfade_tentative_id ON _crossfade_tentative (tbl, id);
    CREATE TABLE _crossfade_boundary (seq INTEGER PRIMARY KEY);
    CREATE TABLE _crossfade_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
";

pub(crate) fn position(seq: u64) -> Position {
    Position { order: seq, text: seq.to_string() }
}

/// SQLite's integers are signed; a number of ours that does not fit cannot have come from here.
pub(crate) fn signed(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// The highest number given out so far, as this read transaction sees it.
pub(crate) fn end(connection: &Connection) -> Result<u64> {
    let seq: Option<i64> = connection
        .prepare_cached(
            "SELECT max(seq, coalesce((SELECT max(seq) FROM _crossfade_log), 0)) FROM sqlite_sequence WHERE name = ?1",
        )
        .and_then(|mut statement| statement.query_row([LOG], |row| row.get(0)).optional())
        .during("read the end of the change log")
        .map_err(|error| match exists(connection) {
            Ok(false) => lost("the change log is not there"),
            _ => error,
        })?;
    seq.and_then(|seq| u64::try_from(seq).ok()).ok_or_else(|| lost("the change log is not there"))
}

pub(crate) fn exists(connection: &Connection) -> rusqlite::Result<bool> {
    let found = connection.query_row("SELECT 1 FROM sqlite_schema WHERE name = ?1", [LOG], |_| Ok(()));
    found.optional().map(|found| found.is_some())
}

pub(crate) fn lost(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::LogLost, "follow the change log").with("reason", why.into()).hint(
        "Changes may be missing, so this migration cannot go on from where it stands: start it anew with an empty target.",
    )
}

/// Creates the log and its triggers, in one transaction.
pub(crate) fn prepare(connection: &mut Connection, stream: &str, catalog: &Catalog) -> Result<Position> {
    let operation = "create the change log";
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).during(operation)?;
    let is_new = !exists(&transaction).during(operation)?;
    if is_new {
        transaction.execute_batch(CREATE).during(operation)?;
        // Numbers begin at the time, so that those of an earlier log, which was removed, lie below: resuming from
        // one is refused. An earlier log would have had to grow by a million entries a second to reach up to here.
        let start = now_us();
        transaction
            .execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", params![LOG, signed(start)])
            .during(operation)?;
        set_meta(&transaction, "stream", stream).during(operation)?;
        set_low(&transaction, start).during(operation)?;
    }
    same_stream(&transaction, stream)?;

    let layouts =
        catalog.tables.iter().map(|table| Layout::read(&transaction, table)).collect::<Result<Vec<_>>>()?;
    widen(&transaction, LOG, layouts.iter().map(Layout::width).max().unwrap_or(0))?;
    widen(&transaction, TENTATIVE, layouts.iter().map(|layout| layout.old.len()).max().unwrap_or(0))?;
    let created = create_triggers(&transaction, &layouts).during(operation)?;
    let end = end(&transaction)?;
    if created && !is_new {
        // Until now some changes went unseen: no capture may start before here.
        set_low(&transaction, end).during(operation)?;
    }
    transaction.commit().during(operation)?;
    Ok(position(end))
}

pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn widen(connection: &Connection, table: &str, width: usize) -> Result<()> {
    let operation = "widen the change log";
    let (columns, _) = catalog::columns(connection, table).during(operation)?;
    let has = columns.iter().filter(|column| column.name.starts_with('c')).count();
    for at in has..width {
        connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN c{at}")).during(operation).map_err(
            |error| {
                error.hint("A row is logged side by side with its old key, or with its old self where it has no key. SQLite's limit is 2,000 columns: give the widest table a primary key, or leave it out.")
            },
        )?;
    }
    Ok(())
}

/// Creates the triggers that are not there as they should be, removes others of ours, and says whether there was
/// anything to create.
fn create_triggers(connection: &Connection, layouts: &[Layout]) -> rusqlite::Result<bool> {
    let mut present = present_triggers(connection)?;
    let mut created = false;
    for (name, create) in layouts.iter().flat_map(triggers::of) {
        if present.remove(&name).as_ref() == Some(&create) {
            continue;
        }
        connection.execute_batch(&format!("DROP TRIGGER IF EXISTS {}; {create}", quote(&name)))?;
        created = true;
    }
    for name in present.keys() {
        connection.execute_batch(&format!("DROP TRIGGER {}", quote(name)))?;
    }
    Ok(created)
}

fn present_triggers(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND substr(name, 1, ?2) = ?1")?
        .query_map(params![triggers::PREFIX, triggers::PREFIX.len()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Makes sure that the log holds every change after `after`, of tables that still are as they were planned.
pub(crate) fn verify(connection: &Connection, stream: &str, catalog: &Catalog, after: u64) -> Result<()> {
    keeps(connection, stream, after)?;
    let low = low(connection).during("check the change log")?;
    if after < low {
        return Err(lost(format!("it begins at {low}")).with("position", after));
    }
    verify_tables(connection, catalog)
}

/// Makes sure that this is the stream's log, and that it reaches to this position.
pub(crate) fn keeps(connection: &Connection, stream: &str, position: u64) -> Result<()> {
    if !exists(connection).during("look for the change log")? {
        return Err(lost("the change log is not there"));
    }
    same_stream(connection, stream)?;
    let end = end(connection)?;
    if position > end {
        return Err(lost(format!("it ends at {end}: was the file replaced by an older copy?"))
            .with("position", position));
    }
    Ok(())
}

/// Makes sure that the tables are as they were planned and that every change of them is logged.
pub(crate) fn verify_tables(connection: &Connection, catalog: &Catalog) -> Result<()> {
    let operation = "check the tables' schema";
    let present = present_triggers(connection).during(operation)?;
    for table in &catalog.tables {
        let changed = |what: String| {
            Error::new(ErrorKind::Schema, "follow the changes of a table")
                .with("table", &table.name)
                .with("change", what)
                .hint("Nothing after this change has been applied. Undo it on the source and run again; or start the migration anew, so that it plans with the new schema.")
        };
        if let Some(difference) = catalog::difference(connection, table).during(operation)? {
            return Err(changed(difference));
        }
        for (name, create) in triggers::of(&Layout::read(connection, table)?) {
            match present.get(&name) {
                Some(found) if *found == create => {}
                Some(_) => {
                    return Err(changed("a unique index was created, dropped or changed, and rows that REPLACE removes by it are not logged".to_owned()));
                }
                None => {
                    return Err(lost(format!("trigger {name} of table {} is not there", table.name)));
                }
            }
        }
    }
    Ok(())
}

fn same_stream(connection: &Connection, stream: &str) -> Result<()> {
    let owner: Option<String> = connection
        .query_row("SELECT value FROM _crossfade_meta WHERE name = 'stream'", [], |row| row.get(0))
        .optional()
        .during("read whose the change log is")?;
    match owner {
        Some(owner) if owner == stream => Ok(()),
        owner => Err(Error::new(ErrorKind::Setup, "use the change log")
            .with("migration", stream)
            .with("taken by", owner.unwrap_or_else(|| "nobody".to_owned()))
            .hint("A SQLite source has one change log, for one migration at a time. End or abort the other one first.")),
    }
}

fn set_meta(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .execute("INSERT OR REPLACE INTO _crossfade_meta (name, value) VALUES (?1, ?2)", [name, value])?;
    Ok(())
}

/// Entries at or below this number may be gone.
pub(crate) fn low(connection: &Connection) -> rusqlite::Result<u64> {
    let low: i64 =
        connection.query_row("SELECT value FROM _crossfade_meta WHERE name = 'low'", [], |row| row.get(0))?;
    Ok(u64::try_from(low).unwrap_or(0))
}

fn set_low(connection: &Connection, low: u64) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO _crossfade_meta (name, value) VALUES ('low', ?1)
         ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        [signed(low)],
    )?;
    Ok(())
}

/// Deletes at most `entries_max` entries up to `upto`, and says whether there are more.
pub(crate) fn trim(connection: &mut Connection, upto: u64, entries_max: u32) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    set_low(&transaction, upto)?;
    // A number must never be given again, also where AUTOINCREMENT has not noted it.
    transaction
        .prepare_cached("UPDATE sqlite_sequence SET seq = ?2 WHERE name = ?1 AND seq < ?2")?
        .execute(params![LOG, signed(upto)])?;
    let deleted = transaction
        .prepare_cached(
            "DELETE FROM _crossfade_log WHERE seq IN (SELECT seq FROM _crossfade_log WHERE seq <= ?1 ORDER BY seq LIMIT ?2)",
        )?
        .execute(params![signed(upto), entries_max])?;
    transaction.execute("DELETE FROM _crossfade_boundary WHERE seq <= ?1", [signed(upto)])?;
    // No statement is running while we write: whatever is noted there came to nothing.
    transaction.execute("DELETE FROM _crossfade_tentative", [])?;
    transaction.commit()?;
    Ok(deleted == entries_max as usize)
}

/// Removes everything that [`prepare`] created.
pub(crate) fn release(connection: &mut Connection, stream: &str) -> Result<()> {
    let operation = "remove the change log";
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).during(operation)?;
    if exists(&transaction).during(operation)? {
        same_stream(&transaction, stream)?;
    }
    let names: Vec<String> = present_triggers(&transaction).during(operation)?.into_keys().collect();
    let drops = names.iter().map(|name| format!("DROP TRIGGER {};", quote(name)));
    let drops = drops.chain(TABLES.iter().map(|table| format!("DROP TABLE IF EXISTS {table};")));
    transaction.execute_batch(&drops.collect::<String>()).during(operation)?;
    transaction.commit().during(operation)
}

/// `c0, c1 …` of an entry, for a select.
pub(crate) fn cells(count: usize) -> String {
    sql::list(0..count, |at| format!("c{at}"))
}
