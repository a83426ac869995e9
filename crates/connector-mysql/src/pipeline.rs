//! Many executions in one round trip.
//!
//! [`Client::queue`] and [`Client::queue_text`] only buffer; [`Client::send_queued`] lets the server begin;
//! [`Client::answers`] waits, and says what became of each statement. After a refusal the server **goes on** with what was
//! sent behind it: only in a transaction that is then rolled back is that as if it had not been.

use std::collections::VecDeque;
use std::sync::Arc;

use connector::Result;

use crate::error::DbError;
use crate::packet;
use crate::prepared::{Param, Statement};
use crate::wire::{Client, State};

/// What is worth a write of its own.
const SEND_BYTES: usize = 64 * 1024;

/// What has been queued and not been answered.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    expected: VecDeque<Expected>,
    /// The server may have some of it already.
    begun: bool,
}

/// An answer that is due.
#[derive(Debug)]
struct Expected {
    /// The number of its first packet: one, unless the statement took several packets.
    first: u8,
    sql: Arc<str>,
}

impl Pipeline {
    pub(crate) fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }
}

/// What a statement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    /// That it inserted, deleted, or found to update.
    pub(crate) rows: u64,
    pub(crate) warnings: u16,
}

impl Client {
    /// Queues one execution. On an error everything that was queued is dropped: what follows it must not run without it. If
    /// some of it was sent, the connection is of no more use.
    pub(crate) fn queue(&mut self, statement: &Statement, params: &[Param<'_>]) -> Result<()> {
        self.queue_with(&statement.sql, |client| client.put_execute(statement, params))
    }

    /// Queues a statement without rows and without parameters.
    pub(crate) fn queue_text(&mut self, sql: &Arc<str>) -> Result<()> {
        self.queue_with(sql, |client| client.put_text(sql))
    }

    pub(crate) fn queue_with(
        &mut self,
        sql: &Arc<str>,
        put: impl FnOnce(&mut Client) -> Result<()>,
    ) -> Result<()> {
        if self.state != State::Ready {
            return Err(self.out_of_step("an earlier exchange was not finished"));
        }
        match put(self) {
            Ok(()) => {
                self.note("");
                let expected = Expected { first: self.sequence, sql: Arc::clone(sql) };
                self.pipeline.expected.push_back(expected);
                Ok(())
            }
            Err(error) => {
                self.outgoing.clear();
                if std::mem::take(&mut self.pipeline).begun {
                    self.state = State::Busy;
                }
                Err(error)
            }
        }
    }

    /// Sends what is queued, if that is much, without waiting for answers: so the server works on it while more is queued.
    pub(crate) async fn send_queued(&mut self) -> Result<()> {
        if self.outgoing.len() < SEND_BYTES {
            return Ok(());
        }
        self.pipeline.begun = true;
        self.flush().await
    }

    /// Sends what is queued and gives what became of each statement to `each`, in order. Fails when the connection does.
    pub(crate) async fn answers(&mut self, mut each: impl FnMut(Result<Effect>)) -> Result<()> {
        if self.pipeline.is_empty() {
            return Ok(());
        }
        if self.state != State::Ready {
            return Err(self.out_of_step("an earlier exchange was not finished"));
        }
        self.state = State::Busy;
        self.flush().await?;
        while let Some(expected) = self.pipeline.expected.pop_front() {
            self.sequence = expected.first;
            let body = self.receive().await?;
            if packet::is_error(&body) {
                self.note(&expected.sql);
                let error = self.refusal(&body);
                if DbError::parse(&body).is_fatal() {
                    return Err(error);
                }
                each(Err(error));
            } else {
                let done = self.done(&body)?;
                // More answers may be due.
                self.state = State::Busy;
                each(Ok(Effect { rows: done.affected, warnings: done.warnings }));
            }
        }
        self.pipeline.begun = false;
        self.state = State::Ready;
        Ok(())
    }

    /// Sends what is queued and returns the affected rows of each statement, in order. Fails with the first refusal.
    pub(crate) async fn flush_queued(&mut self) -> Result<Vec<u64>> {
        let mut effects = Vec::with_capacity(self.pipeline.expected.len());
        let ended = self.answers(|answer| effects.push(answer)).await;
        let affected = effects.into_iter().map(|effect| effect.map(|effect| effect.rows)).collect();
        // A refusal says more than the connection that was lost behind it.
        match (affected, ended) {
            (Ok(_), Err(error)) => Err(error),
            (affected, _) => affected,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use connector::ErrorKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::error::number;
    use crate::prepared::tests::insert;
    use crate::wire::tests::{DONE, DUPLICATE, KILLED, connected, framed, sent};

    #[tokio::test]
    async fn many_statements_in_one_round_trip() {
        let (mut client, mut server) = connected();
        let insert = insert();
        for id in 0..3 {
            client.queue(&insert, &[Param::Integer(id)]).unwrap();
        }
        assert_eq!(client.execute("DO 1").await.unwrap_err().kind, ErrorKind::Connect);
        for _ in 0..3 {
            server.write_all(&framed(1, &[DONE])).await.unwrap();
        }
        assert_eq!(client.flush_queued().await.unwrap(), [1, 1, 1]);
        assert_eq!(sent(&mut server).await.len(), 3 * (4 + 10 + 1 + 1 + 2 + 8));
        assert!(client.flush_queued().await.unwrap().is_empty());

        // What is behind a refusal has run as well, and its answers are read.
        for _ in 0..4 {
            client.queue(&insert, &[Param::Null]).unwrap();
        }
        for body in [DONE, DUPLICATE, DONE, DUPLICATE] {
            server.write_all(&framed(1, &[body])).await.unwrap();
        }
        let failed = client.flush_queued().await.unwrap_err();
        assert_eq!(number(&failed), Some(1062));
        assert!(failed.to_string().ends_with("statement INSERT INTO t VALUES (?)"), "{failed}");
        assert!(client.is_usable());

        client.queue(&insert, &[Param::Null]).unwrap();
        server.write_all(&framed(1, &[KILLED])).await.unwrap();
        let failed = client.flush_queued().await.unwrap_err();
        assert_eq!(failed.kind, ErrorKind::Connect);
        assert!(!client.is_usable());
    }

    #[tokio::test]
    async fn a_wrong_statement_drops_what_was_queued() {
        let (mut client, _server) = connected();
        let insert = insert();
        client.queue(&insert, &[Param::Null]).unwrap();
        let error = client.queue(&insert, &[]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(client.pipeline.is_empty() && client.outgoing.is_empty() && client.is_usable());

        // The server has a part of it, and will answer.
        client.queue(&insert, &[Param::Blob(&vec![b'x'; SEND_BYTES])]).unwrap();
        client.send_queued().await.unwrap();
        client.queue(&insert, &[]).unwrap_err();
        assert!(!client.is_usable());
    }

    #[tokio::test]
    async fn the_server_begins_while_more_is_queued() {
        let (mut client, mut server) = connected();
        client.queue_text(&"SAVEPOINT s".into()).unwrap();
        client.send_queued().await.unwrap();
        assert_eq!(client.outgoing.len(), 16);
        client.queue(&insert(), &[Param::Blob(&vec![b'x'; SEND_BYTES])]).unwrap();
        client.send_queued().await.unwrap();
        assert!(client.outgoing.is_empty());
        assert!(sent(&mut server).await.starts_with(b"\x0c\x00\x00\x00\x03SAVEPOINT s"));
        client.queue(&insert(), &[Param::Null]).unwrap();
        for body in [DONE, DUPLICATE, b"\x00\x02\x00\x02\x00\x03\x00"] {
            server.write_all(&framed(1, &[body])).await.unwrap();
        }
        let mut answers = Vec::new();
        client.answers(|answer| answers.push(answer.map_err(|error| number(&error)))).await.unwrap();
        let effect = |rows, warnings| Ok(Effect { rows, warnings });
        assert_eq!(answers, [effect(1, 0), Err(Some(1062)), effect(2, 3)]);
        assert!(client.is_usable());
    }

    #[tokio::test]
    async fn two_full_buffers_do_not_wait_for_each_other() {
        const STATEMENTS: usize = 20_000;
        let (mut client, mut server) = connected();
        let insert = insert();
        let value = vec![b'x'; 100];
        for _ in 0..STATEMENTS {
            client.queue(&insert, &[Param::Bytes(&value)]).unwrap();
        }
        let bytes = client.outgoing.len();
        let server = async {
            // Answers first, and does not read before they are gone.
            let answers = framed(1, &[DONE]).repeat(STATEMENTS);
            server.write_all(&answers).await.unwrap();
            let mut sent = vec![0; bytes];
            server.read_exact(&mut sent).await.unwrap();
        };
        let both = async { tokio::join!(client.flush_queued(), server) };
        let (affected, ()) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        assert_eq!(affected.unwrap().len(), STATEMENTS);
    }

    #[tokio::test]
    async fn a_statement_of_several_packets_is_answered_behind_them() {
        let (mut client, mut server) = connected();
        let value = vec![b'x'; 17_000_000];
        client.queue(&insert(), &[Param::Blob(&value)]).unwrap();
        client.queue(&insert(), &[Param::Null]).unwrap();
        let bytes = client.outgoing.len();
        let server = async {
            let mut sent = vec![0; bytes];
            server.read_exact(&mut sent).await.unwrap();
            server.write_all(&framed(2, &[DONE])).await.unwrap();
            server.write_all(&framed(1, &[DONE])).await.unwrap();
        };
        let (affected, ()) = tokio::join!(client.flush_queued(), server);
        assert_eq!(affected.unwrap(), [1, 1]);
    }
}
