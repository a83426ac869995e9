//! The source's log as whole committed transactions: logical replication through `pgoutput`.
//!
//! Promises:
//! - A transaction is delivered between its `Begin` and its `Commit`, and one without changes of ours only as an
//!   `Idle` boundary.
//! - The server hears of a position only after it has been acknowledged here, never of a later one.
//! - It is refused to begin where the slot no longer reaches back to: a server skips such a hole in silence.
//!
//! A position is the end of a commit record, or a place that the server reports between transactions. The next
//! transaction's commit record can begin exactly there, so a transaction's own order is one more than where its
//! commit record begins: at most the boundary behind it, and more than the boundary in front of it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use connector::{Capture, Error, ErrorKind, Event, Result, Retry};
use model::xid::widen;
use model::{Position, Transaction};
use tokio::time::Instant;

use crate::error::{corrupt, db_error, sqlstate};
use crate::lsn;
use crate::pgoutput::{Decoder, Message};
use crate::url::Settings;
use crate::wire::{Client, EXACT_TEXT};

const OPERATION: &str = "follow the source's log";

/// The server gives up on a silent receiver after wal_sender_timeout, 60 s by default.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// After an acknowledgement the server hears of it at most this much later.
const STATUS_SOON: Duration = Duration::from_secs(1);
/// One call delivers at most about this much, so that what is under way stays bounded.
const EVENTS_MAX: usize = 4096;
const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// After something has come, more is waited for so long before it is read. The server sends every change alone, and waking
/// a reader by each costs it more than decoding: with this pause it decodes more than twice as much in a second
/// (bench/RESULTS.md, capture). A few milliseconds would be too long: the socket's buffers fill, and the server waits for us.
const GATHER: Duration = Duration::from_micros(500);
/// So much at once is worth reading; waiting for more could fill the socket's buffers.
const GATHERED_BYTES: usize = 64 * 1024;

pub(crate) struct Stream {
    client: Client,
    decoder: Decoder,
    /// The last transaction id with its epoch: the next one is near it.
    near: u64,
    open: Open,
    /// The last boundary delivered or, at the beginning, asked for.
    boundary: u64,
    acknowledged: u64,
    /// What the server has been told.
    reported: u64,
    reported_at: Instant,
    reply_wanted: bool,
}

/// What is open in the log right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Nothing,
    /// Begun in the log, with no change of ours so far.
    Begun(Transaction),
    Delivered,
}

impl Stream {
    /// Opens the log right after `after`. `near` is any transaction id of the recent past, with its epoch.
    pub(crate) async fn connect(
        settings: &Settings,
        slot: &str,
        publication: &str,
        after: u64,
        near: u64,
    ) -> Result<Stream> {
        // As in the sessions that read rows: the search path decides how a `regclass` and its like are written.
        let options = format!("{EXACT_TEXT} -c search_path=");
        let mut client =
            Client::connect(settings, &[("replication", "database"), ("options", &options)]).await?;
        client.doing(OPERATION);
        check_slot(&mut client, slot, after).await?;
        let start = format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {})",
            quote_name(slot),
            lsn::format(after),
            quote_text(&quote_name(publication)),
        );
        client.copy_both_start(&start).await.map_err(|error| explain(error, slot))?;
        Ok(Stream {
            client,
            decoder: Decoder::default(),
            near,
            open: Open::Nothing,
            boundary: after,
            acknowledged: after,
            reported: 0,
            reported_at: Instant::now(),
            reply_wanted: false,
        })
    }

    /// Reads one replication message into events.
    fn read(&mut self, mut payload: Bytes, events: &mut Vec<Event>, start: usize) -> Result<usize> {
        match payload.first() {
            Some(b'w') if payload.len() >= 25 => {
                // Start, end and time of the data: the messages inside say it themselves.
                payload.advance(25);
                let bytes = payload.len();
                let message = self.decoder.decode(payload).map_err(|error| {
                    corrupt(OPERATION, "a change cannot be read")
                        .with("server", self.client.server())
                        .source(error)
                })?;
                self.deliver(message, events, start);
                Ok(bytes)
            }
            Some(b'k') if payload.len() >= 18 => {
                payload.advance(1);
                let end = payload.get_u64();
                payload.advance(8);
                self.reply_wanted |= payload.get_u8() != 0;
                // Inside a transaction this says nothing: its commit is still to come.
                if self.open == Open::Nothing {
                    self.idle(end, events, start);
                }
                Ok(0)
            }
            _ => {
                Err(corrupt(OPERATION, "an unknown replication message").with("server", self.client.server()))
            }
        }
    }

    fn deliver(&mut self, message: Message, events: &mut Vec<Event>, start: usize) {
        let content = match message {
            Message::Begin { commit_lsn, committed_us, xid } => {
                self.near = widen(xid, self.near);
                self.open = Open::Begun(Transaction {
                    seq: 0,
                    id: self.near,
                    order: commit_lsn.saturating_add(1),
                    committed_us,
                });
                return;
            }
            Message::Commit { end_lsn } => {
                match std::mem::replace(&mut self.open, Open::Nothing) {
                    Open::Delivered => {
                        self.boundary = end_lsn;
                        events.push(Event::Commit { position: lsn::position(end_lsn) });
                    }
                    Open::Begun(_) | Open::Nothing => self.idle(end_lsn, events, start),
                }
                return;
            }
            Message::Other => return,
            Message::Relation(relation) => Event::Relation(relation),
            Message::Change(change) => Event::Change(change),
        };
        if let Open::Begun(transaction) = self.open {
            events.push(Event::Begin(transaction));
            self.open = Open::Delivered;
        }
        events.push(content);
    }

    /// Moves the boundary over a stretch of the log that holds nothing of ours.
    fn idle(&mut self, end: u64, events: &mut Vec<Event>, start: usize) {
        if end <= self.boundary {
            return;
        }
        self.boundary = end;
        let idle = Event::Idle { position: lsn::position(end) };
        // Of several in a row the last one says it all.
        match events[start..].last_mut() {
            Some(last @ Event::Idle { .. }) => *last = idle,
            _ => events.push(idle),
        }
    }

    /// When the server must hear from us next.
    fn report_due(&self) -> Instant {
        let soon = self.acknowledged > self.reported;
        self.reported_at + if soon { STATUS_SOON } else { STATUS_EVERY }
    }

    async fn report(&mut self) -> Result<()> {
        let mut status = [0u8; 34];
        status[0] = b'r';
        // Written, flushed and applied are one to us: durable in the journal. The clock is for people; we send none.
        for at in [1, 9, 17] {
            status[at..at + 8].copy_from_slice(&self.acknowledged.to_be_bytes());
        }
        self.reported = self.acknowledged;
        self.reported_at = Instant::now();
        self.reply_wanted = false;
        self.client.copy_both_send(&status).await
    }

    /// Not the runtime's sleep: that one waits on the socket as well, and each message would wake it. Capture has its thread
    /// for itself.
    async fn gather(&mut self) -> Result<()> {
        if self.client.incoming.len() < GATHERED_BYTES {
            std::thread::sleep(GATHER);
            self.client.fill_ready().await?;
        }
        Ok(())
    }

    async fn report_if_due(&mut self) -> Result<()> {
        if self.reply_wanted || Instant::now() >= self.report_due() {
            self.report().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Capture for Stream {
    async fn next(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let start = events.len();
        loop {
            // Before anything is appended: nothing is lost when this call is dropped here.
            self.report_if_due().await?;
            let mut bytes = 0;
            while events.len() - start < EVENTS_MAX && bytes < EVENT_BYTES_MAX {
                let taken = self.client.copy_both_take().map_err(|error| explain(error, ""))?;
                let Some(payload) = taken else { break };
                bytes += self.read(payload, events, start)?;
            }
            if events.len() > start {
                return Ok(());
            }
            if self.reply_wanted {
                continue;
            }
            match tokio::time::timeout_at(self.report_due(), self.client.fill()).await {
                Ok(filled) => {
                    filled?;
                    self.gather().await?;
                }
                // Time to report, at the top of the loop.
                Err(_elapsed) => {}
            }
        }
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<()> {
        if position.order > self.boundary {
            return Err(Error::new(ErrorKind::Conflict, "acknowledge a position")
                .with("position", position)
                .with("delivered up to", lsn::format(self.boundary)));
        }
        self.acknowledged = self.acknowledged.max(position.order);
        self.report_if_due().await
    }

    async fn close(&mut self) -> Result<()> {
        if self.acknowledged > self.reported {
            self.report().await?;
        }
        // A socket that is closed over what was not read takes what was sent with it.
        self.client.copy_both_end().await
    }
}

/// Creates the slot and returns the position from which it delivers: everything that commits later.
pub(crate) async fn create_slot(settings: &Settings, slot: &str, patience: Duration) -> Result<u64> {
    let mut client = Client::connect(settings, &[("options", EXACT_TEXT)]).await?;
    client.doing("create the replication slot");
    // The server waits for every transaction that is writing now. A limit of its own makes it clean up, which a
    // closed connection does not.
    client.execute(&format!("SET statement_timeout = {}", patience.as_millis())).await?;
    let sql = "SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')";
    let rows = match client.query(sql, &[Some(slot.as_bytes())]).await {
        Ok(rows) => rows,
        Err(error) if sqlstate(&error) == Some("57014") => return Err(name_blocker(&mut client, error).await),
        Err(error) => return Err(explain_create(error, slot)),
    };
    let cell = rows.first().and_then(|row| row.first()?.clone());
    cell.as_deref()
        .and_then(|text| lsn::parse(std::str::from_utf8(text).ok()?))
        .ok_or_else(|| corrupt("create the replication slot", "no position in the answer"))
}

/// Says which transaction the slot was waiting for.
pub(crate) async fn name_blocker(client: &mut Client, error: Error) -> Error {
    const OLDEST: &str = "SELECT 'session ' || pid || ' of user ' || coalesce(usename, '?') || ', ' || state || ' since ' || xact_start,
            'end it with SELECT pg_terminate_backend(' || pid || '), or wait until it is over, and try again'
       FROM pg_catalog.pg_stat_activity
      WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid()
      UNION ALL
     SELECT 'prepared transaction ' || gid || ' of ' || prepared,
            'finish it with COMMIT PREPARED or ROLLBACK PREPARED, and try again'
       FROM pg_catalog.pg_prepared_xacts
      LIMIT 3";
    let error = error.retry(Retry::Later);
    match client.simple(OLDEST).await {
        Ok(rows) => rows.into_iter().fold(error, |mut error, row| {
            let mut cells = row.into_iter().flatten();
            if let Some(who) = cells.next() {
                error = error.with("waiting for", who);
            }
            match cells.next() {
                Some(remedy) => error.hint(remedy),
                None => error,
            }
        }),
        Err(asking) => {
            tracing::debug!(error = %asking, "asking which transaction blocks the slot");
            error
        }
    }
}

/// Where our slot stands.
struct Slot {
    confirmed: String,
    /// The session that reads it, or nothing.
    reader: String,
}

/// The server itself begins later, without a word, where a slot has been moved on; so it is asked before.
async fn check_slot(client: &mut Client, slot: &str, after: u64) -> Result<()> {
    let Slot { confirmed, reader } = kept_slot(client, slot, after).await?;
    let Some(standing) = lsn::parse(&confirmed) else {
        return Err(lost(slot).with("because", "the slot has no position"));
    };
    if standing > after {
        let why = format!("the slot stands at {confirmed} already, and we at {}", lsn::format(after));
        return Err(lost(slot).with("because", why));
    }
    if !reader.is_empty() {
        return Err(in_use(slot).with("held by session", reader));
    }
    Ok(())
}

/// Our slot, on a server whose log reaches to `position`.
pub(crate) async fn check_kept(client: &mut Client, slot: &str, position: u64) -> Result<()> {
    kept_slot(client, slot, position).await.map(drop)
}

async fn kept_slot(client: &mut Client, slot: &str, position: u64) -> Result<Slot> {
    let sql = format!(
        "SELECT s.plugin, s.database = current_database(), s.confirmed_flush_lsn, s.wal_status, s.active_pid,
                CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                     ELSE pg_catalog.pg_current_wal_insert_lsn() END
           FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = {}",
        quote_text(slot)
    );
    let rows = client.simple(&sql).await?;
    client.statement.clear();
    let lost = |why: &str| lost(slot).with("because", why);
    let Some(row) = rows.first() else { return Err(no_slot(client, slot).await?) };
    let cell = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
    if cell(0) != "pgoutput" || cell(1) != "t" {
        return Err(Error::new(ErrorKind::Setup, OPERATION)
            .with("slot", slot)
            .with("because", "it is of another database or another output plugin")
            .hint("name the migration differently, or drop that slot if nobody needs it"));
    }
    if cell(3) == "lost" {
        return Err(lost("the server has removed log that the slot needed"));
    }
    if lsn::parse(cell(5)).is_some_and(|end| end < position) {
        let why = format!(
            "the server's log ends at {}, before our {}: was it restored?",
            cell(5),
            lsn::format(position)
        );
        return Err(lost(&why));
    }
    Ok(Slot { confirmed: cell(2).to_owned(), reader: cell(4).to_owned() })
}

/// A replica has no slots of its primary's, and an address may lead to one for the moment of a switchover.
async fn no_slot(client: &mut Client, slot: &str) -> Result<Error> {
    let rows = client.simple("SELECT pg_catalog.pg_is_in_recovery()").await?;
    let is_replica = rows.first().and_then(|row| row.first()?.as_deref()) == Some("t");
    Ok(match is_replica {
        true => Error::new(ErrorKind::Setup, OPERATION)
            .retry(Retry::Later)
            .with("slot", slot)
            .with("because", "this server is a replica and has no such slot")
            .hint("let the URL lead to the primary"),
        false => lost(slot).with("because", "the slot does not exist"),
    })
}

fn lost(slot: &str) -> Error {
    Error::new(ErrorKind::LogLost, OPERATION)
        .with("slot", slot)
        .hint("changes are missing and cannot be had again: start the migration over, with an empty target")
}

fn in_use(slot: &str) -> Error {
    Error::new(ErrorKind::Database, OPERATION)
        .retry(Retry::Later)
        .with("slot", slot)
        .with("because", "another session reads it")
        .hint("an earlier run of ours is let go after wal_sender_timeout; if it is another tool, stop it")
}

/// What the server says about the slot or the publication.
fn explain(error: Error, slot: &str) -> Error {
    let named = |error: Error| if slot.is_empty() { error } else { error.with("slot", slot) };
    // Seen on 15.20, with TRUNCATE in a loop while the slot was made: the server takes the transaction that emptied a table
    // for one that is not over, and the slot decodes no later change of that table.
    let unmapped =
        |error: &Error| db_error(error).is_some_and(|db| db.message.contains("could not map filenode"));
    let hint = match sqlstate(&error) {
        Some("XX000") if unmapped(&error) => {
            "this slot cannot decode the table, as it was emptied or rewritten while the slot was made; start the \
             migration over, with an empty target, at a moment without TRUNCATE or ALTER TABLE"
        }
        // The slot is gone or was invalidated; or, within the stream, the publication is gone.
        Some("42704" | "55000") => {
            "slot and publication must stay as they were; start the migration over, with an empty target"
        }
        Some("55006") => return Error { retry: Retry::Later, ..named(error) },
        _ => return error,
    };
    Error { kind: ErrorKind::LogLost, retry: Retry::Never, ..named(error) }.hint(hint)
}

fn explain_create(error: Error, slot: &str) -> Error {
    let hint = match sqlstate(&error) {
        Some("55000") => "set wal_level = logical and restart the server",
        Some("53400") => {
            "raise max_replication_slots and restart the server, or drop slots that nobody needs"
        }
        Some("42501") => "ALTER ROLE … REPLICATION for the user of the URL",
        _ => return error.with("slot", slot),
    };
    let kind = if error.kind == ErrorKind::Permission { error.kind } else { ErrorKind::Setup };
    Error { kind, ..error }.with("slot", slot).hint(hint)
}

/// In replication commands, which take no parameters.
fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
