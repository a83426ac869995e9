//! Statements that are sent back to back, each of which has to hit one row.
//!
//! What is the same statement for row after row is gathered to one, where the server takes that.

use std::collections::HashMap;
use std::sync::Arc;

use connector::{Error, ErrorKind, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::bulk::Batch;
use crate::pipeline::Effect;
use crate::prepared::Statement;
use crate::statement::Bound;
use crate::warning;
use crate::wire::Client;

/// So many answers are waited for at once: memory stays bounded, and a round trip costs little beside them.
const STATEMENTS: usize = 2_000;
/// Per session. A server of the usual `max_prepared_stmt_count`, 16,382, has room for that of sixteen lanes and the loads.
const PREPARED_MAX: usize = 500;
/// Far less than the smallest default of `max_allowed_packet`, which is 1 MB (MySQL 5.5), and still hundreds of usual rows. A
/// row alone may be larger.
const BATCH_BYTES: usize = 64 * 1024;

/// What is under way on a session, and the statements that it has prepared.
#[derive(Default)]
pub(crate) struct Flight {
    prepared: HashMap<Arc<str>, Statement>,
    sent: Vec<Sent>,
    /// Rows that wait for more of the same statement, which is of this table.
    batch: Batch,
    batch_of: Option<(usize, Arc<str>)>,
    pub(crate) tally: Option<Tally>,
}

/// A count and a sum of what is sent.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) bytes: u64,
    pub(crate) hash: Xxh3,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }
}

/// What a statement is about.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) table: usize,
    /// Its place among the changes of the step, if it is about one.
    pub(crate) change: Option<usize>,
    pub(crate) sql: Arc<str>,
    /// That it has to hit; `None` where any number will do.
    rows: Option<u64>,
}

/// The first statement that was refused, or did not hit its rows; none when the connection failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) sent: Option<Sent>,
    pub(crate) error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { sent: None, error }
    }
}

type Outcome = std::result::Result<(), Failure>;

impl Flight {
    /// One that counts what it sends.
    pub(crate) fn counting() -> Flight {
        Flight { tally: Some(Tally::default()), ..Flight::default() }
    }

    /// Queues a statement that has to hit one row. One that is about a change by its place (`change`) stands alone, so that it
    /// can be named. The failure may be that of an earlier statement.
    pub(crate) async fn queue(
        &mut self,
        client: &mut Client,
        table: usize,
        change: Option<usize>,
        Bound { sql, params }: Bound<'_>,
    ) -> Outcome {
        if change.is_none() && client.takes_bulk {
            let is_same = self.batch_of.as_ref().is_some_and(|(_, gathered)| *gathered == sql);
            if !(is_same && self.batch.push(&params)) {
                self.close(client).await?;
                self.batch_of = Some((table, sql));
                // The first row says which types there are.
                let is_taken = self.batch.push(&params);
                debug_assert!(is_taken);
            }
            return if self.batch.values().len() < BATCH_BYTES { Ok(()) } else { self.close(client).await };
        }
        self.close(client).await?;
        self.prepare(client, &sql).await?;
        if let Some(statement) = self.prepared.get(&sql) {
            client.queue(statement, &params)?;
        }
        if self.tally.is_some() && self.batch.push(&params) {
            self.count_batch();
        }
        self.sent(client, Sent { table, change, sql, rows: Some(1) }).await
    }

    /// Queues a statement that is about no rows.
    pub(crate) async fn queue_text(&mut self, client: &mut Client, table: usize, sql: &str) -> Outcome {
        self.close(client).await?;
        let sql = sql.into();
        client.queue_text(&sql)?;
        self.sent(client, Sent { table, change: None, sql, rows: None }).await
    }

    /// Queues the rows that were gathered.
    async fn close(&mut self, client: &mut Client) -> Outcome {
        let Some((table, sql)) = self.batch_of.take() else { return Ok(()) };
        self.prepare(client, &sql).await?;
        if let Some(statement) = self.prepared.get(&sql) {
            client.queue_batch(statement, &self.batch)?;
        }
        let rows = self.batch.rows();
        self.count_batch();
        self.sent(client, Sent { table, change: None, sql, rows: Some(rows) }).await
    }

    fn count_batch(&mut self) {
        if let Some(tally) = &mut self.tally {
            tally.add(self.batch.values());
        }
        self.batch.clear();
    }

    /// Counts what was sent beside the statements.
    pub(crate) fn count(&mut self, bytes: &[u8]) {
        if let Some(tally) = &mut self.tally {
            tally.add(bytes);
        }
    }

    async fn sent(&mut self, client: &mut Client, sent: Sent) -> Outcome {
        self.sent.push(sent);
        if self.sent.len() >= STATEMENTS {
            return self.wait(client).await;
        }
        Ok(client.send_queued().await?)
    }

    /// Waits until everything that is queued has been answered.
    pub(crate) async fn land(&mut self, client: &mut Client) -> Outcome {
        self.close(client).await?;
        self.wait(client).await
    }

    async fn wait(&mut self, client: &mut Client) -> Outcome {
        let sent = std::mem::take(&mut self.sent);
        let (mut failed, mut answered) = (None, 0);
        client
            .answers(|answer| {
                if failed.is_none()
                    && let Some(sent) = sent.get(answered)
                    && let Some(error) = wrong(sent, answer)
                {
                    failed = Some((answered, error));
                }
                answered += 1;
            })
            .await?;
        let Some((at, mut error)) = failed else { return Ok(()) };
        self.abandon();
        // Of its last statement the server still knows the words.
        if is_warning(&error) && at + 1 == sent.len() {
            error = warning::explain(client, error).await;
        }
        Err(Failure { sent: sent.into_iter().nth(at), error })
    }

    /// Runs a statement alone. It may hit any number of rows.
    pub(crate) async fn run(&mut self, client: &mut Client, table: usize, bound: Bound<'_>) -> Outcome {
        let Bound { sql, params } = bound;
        self.close(client).await?;
        self.prepare(client, &sql).await?;
        if let Some(statement) = self.prepared.get(&sql) {
            client.queue(statement, &params)?;
        }
        self.sent(client, Sent { table, change: None, sql, rows: None }).await?;
        self.land(client).await
    }

    async fn prepare(&mut self, client: &mut Client, sql: &Arc<str>) -> Outcome {
        if self.prepared.contains_key(sql) {
            return Ok(());
        }
        // In the protocol nothing may be due when a statement is prepared.
        self.wait(client).await?;
        if self.prepared.len() >= PREPARED_MAX {
            self.forget(client)?;
        }
        let statement = client.prepare(sql).await?;
        self.prepared.insert(Arc::clone(sql), statement);
        Ok(())
    }

    /// Has the server forget what was prepared. Nothing may be under way.
    pub(crate) fn forget(&mut self, client: &mut Client) -> Result<()> {
        self.prepared.drain().try_for_each(|(_, statement)| client.close(statement))
    }

    /// After a failure: what has been gathered, or is still noted as under way, is not to be sent.
    pub(crate) fn abandon(&mut self) {
        self.sent.clear();
        self.batch.clear();
        self.batch_of = None;
    }
}

fn wrong(sent: &Sent, answer: Result<Effect>) -> Option<Error> {
    match answer {
        Err(error) => Some(error),
        Ok(effect) if sent.rows.is_some_and(|expected| expected != effect.rows) => {
            Some(missed(sent.rows.unwrap_or_default(), effect.rows))
        }
        // Spaces that a VARCHAR has no room for are cut off with a note.
        Ok(effect) if effect.warnings > 0 && sent.rows.is_some() => Some(
            Error::new(ErrorKind::Refused, "write a value without changing it")
                .with("warnings", effect.warnings)
                .hint("the value does not fit into its column exactly: change it on the source, or the column on the target"),
        ),
        Ok(_) => None,
    }
}

/// It has the server's own error as its source otherwise.
fn is_warning(error: &Error) -> bool {
    error.kind == ErrorKind::Refused && error.source.is_none()
}

fn missed(expected: u64, found: u64) -> Error {
    Error::new(ErrorKind::Conflict, "find exactly the rows that were changed")
        .with("expected", expected)
        .with("found", found)
        .hint("somebody else writes to this table on the target, or a trigger there changes rows")
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::error::number;
    use crate::prepared::Param;
    use crate::wire::tests::{DONE, DUPLICATE, NUMBER, connected, framed, sent};

    const PREPARED: &[u8] = b"\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    const PREPARED_FOR_ONE: &[u8] = b"\x00\x05\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00";
    const TWO: &[u8] = b"\x00\x02\x00\x02\x00\x00\x00";
    const WARNED: &[u8] = b"\x00\x01\x00\x02\x00\x01\x00";

    fn bound(sql: &str, id: i64) -> Bound<'static> {
        Bound { sql: sql.into(), params: vec![Param::Integer(id)] }
    }

    async fn answer(server: &mut UnixStream, bodies: &[&[u8]]) {
        for body in bodies {
            server.write_all(&framed(1, &[body])).await.unwrap();
        }
    }

    fn commands(sent: &[u8]) -> Vec<u8> {
        let mut rest = sent;
        let mut found = Vec::new();
        while let [a, b, c, _, command, ..] = rest {
            found.push(*command);
            rest = &rest[4 + u32::from_le_bytes([*a, *b, *c, 0]) as usize..];
        }
        found
    }

    /// A server whose prepared statements have no parameters, in its own words: what is sent is not looked at.
    fn flying(takes_bulk: bool) -> (Client, UnixStream, Flight) {
        let (mut client, server) = connected();
        client.takes_bulk = takes_bulk;
        (client, server, Flight::default())
    }

    #[tokio::test]
    async fn rows_of_one_statement_are_gathered() {
        let (mut client, mut server, mut flight) = flying(true);
        answer(&mut server, &[PREPARED, TWO, PREPARED, DONE, TWO]).await;
        for (sql, id) in [("DELETE a", 1), ("DELETE a", 2), ("DELETE b", 1), ("DELETE a", 3), ("DELETE a", 4)]
        {
            flight.queue(&mut client, 0, None, bound(sql, id)).await.unwrap();
        }
        flight.land(&mut client).await.unwrap();
        // Prepared twice, and three batches.
        assert_eq!(commands(&sent(&mut server).await), [0x16, 0xfa, 0x16, 0xfa, 0xfa]);

        // One row too few.
        for id in [1, 2, 3] {
            flight.queue(&mut client, 7, None, bound("DELETE a", id)).await.unwrap();
        }
        answer(&mut server, &[TWO]).await;
        let failure = flight.land(&mut client).await.unwrap_err();
        assert_eq!((failure.error.kind, failure.sent.unwrap().table), (ErrorKind::Conflict, 7));
        assert!(failure.error.to_string().ends_with("expected 3, found 2"), "{}", failure.error);
    }

    #[tokio::test]
    async fn the_first_that_went_wrong_is_named() {
        let none: &[u8] = b"\x00\x00\x00\x02\x00\x00\x00";
        for (answers, change, kind, refusal) in [
            ([DONE, none, DUPLICATE], 1, ErrorKind::Conflict, None),
            ([DONE, DUPLICATE, none], 1, ErrorKind::Refused, Some(1062)),
            ([TWO, DUPLICATE, DONE], 0, ErrorKind::Conflict, None),
            // What the server warned of is known of its last statement only.
            ([DONE, WARNED, DONE], 1, ErrorKind::Refused, None),
        ] {
            let (mut client, mut server, mut flight) = flying(false);
            server.write_all(&framed(1, &[PREPARED_FOR_ONE, NUMBER])).await.unwrap();
            answer(&mut server, &answers).await;
            for change in 0..3 {
                let bound = bound("DELETE a", 1);
                flight.queue(&mut client, 7, Some(change), bound).await.unwrap();
            }
            let failure = flight.land(&mut client).await.unwrap_err();
            assert_eq!((failure.error.kind, number(&failure.error)), (kind, refusal));
            let sent = failure.sent.unwrap();
            assert_eq!((sent.table, sent.change, &*sent.sql), (7, Some(change), "DELETE a"));
            assert!(client.is_usable());
        }
    }

    #[tokio::test]
    async fn after_a_failure_nothing_that_was_gathered_is_sent() {
        let (mut client, mut server, mut flight) = flying(true);
        answer(&mut server, &[PREPARED, DUPLICATE]).await;
        flight.queue(&mut client, 0, None, bound("DELETE a", 1)).await.unwrap();
        // The statement for this one cannot be prepared before the failure is known.
        flight.queue(&mut client, 0, None, bound("DELETE b", 1)).await.unwrap();
        let failure = flight.land(&mut client).await.unwrap_err();
        assert_eq!(number(&failure.error), Some(1062));
        sent(&mut server).await;
        flight.land(&mut client).await.unwrap();
        flight.queue(&mut client, 0, None, bound("DELETE a", 2)).await.unwrap();
        answer(&mut server, &[DONE]).await;
        flight.land(&mut client).await.unwrap();
        assert_eq!(commands(&sent(&mut server).await), [0xfa]);
    }

    #[tokio::test]
    async fn prepared_statements_are_not_kept_without_end() {
        let (mut client, mut server, mut flight) = flying(true);
        let mut closed = 0;
        for at in 0..=PREPARED_MAX {
            answer(&mut server, &[PREPARED, DONE]).await;
            flight.queue(&mut client, 0, None, bound(&format!("DELETE {at}"), 1)).await.unwrap();
            flight.land(&mut client).await.unwrap();
            let sent = commands(&sent(&mut server).await);
            closed += sent.iter().filter(|command| **command == 0x19).count();
        }
        assert_eq!((flight.prepared.len(), closed), (1, PREPARED_MAX));
    }
}
