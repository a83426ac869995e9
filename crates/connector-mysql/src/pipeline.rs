//! Many executions in one round trip.
//!
//! [`Client::queue`] only buffers; [`Client::flush_queued`] sends, waits, and says how many rows each statement affected or which one was refused. After a refusal the server **goes on** with
//! what was sent behind it: only in a transaction that is then rolled back is that as if it had not been.

use std::collections::VecDeque;
use std::sync::Arc;

use connector::{Error, Result};

use crate::error::DbError;
use crate::packet;
use crate::prepared::{Param, Statement};
use crate::wire::{Client, State};

/// What has been queued and not been answered.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    expected: VecDeque<Expected>,
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

/// Why a pipeline failed.
#[derive(Debug)]
pub(crate) struct PipelineError {
    /// Which queued statement the server refused first; `None` when the connection failed.
    pub(crate) index: Option<usize>,
    pub(crate) error: Error,
}

impl From<PipelineError> for Error {
    fn from(failed: PipelineError) -> Error {
        failed.error
    }
}

impl From<Error> for PipelineError {
    fn from(error: Error) -> PipelineError {
        PipelineError { index: None, error }
    }
}

impl Client {
    /// Queues one execution. On an error everything that was queued is dropped: what follows it must not run without it.
    pub(crate) fn queue(&mut self, statement: &Statement, params: &[Param<'_>]) -> Result<()> {
        if self.state != State::Ready {
            return Err(self.out_of_step("an earlier exchange was not finished"));
        }
        match self.put_execute(statement, params) {
            Ok(()) => {
                self.note("");
                let expected = Expected { first: self.sequence, sql: statement.sql.clone() };
                self.pipeline.expected.push_back(expected);
                Ok(())
            }
            Err(error) => {
                self.outgoing.clear();
                self.pipeline = Pipeline::default();
                Err(error)
            }
        }
    }

    /// Sends what is queued and returns the affected rows of each statement, in order.
    pub(crate) async fn flush_queued(&mut self) -> std::result::Result<Vec<u64>, PipelineError> {
        if self.pipeline.is_empty() {
            return Ok(Vec::new());
        }
        if self.state != State::Ready {
            return Err(self.out_of_step("an earlier exchange was not finished").into());
        }
        self.state = State::Busy;
        self.flush().await?;
        let mut affected = Vec::with_capacity(self.pipeline.expected.len());
        let mut failed: Option<PipelineError> = None;
        let mut answers = 0;
        while let Some(expected) = self.pipeline.expected.pop_front() {
            self.sequence = expected.first;
            let body = match self.receive().await {
                Ok(body) => body,
                Err(error) => return Err(failed.unwrap_or_else(|| error.into())),
            };
            if packet::is_error(&body) {
                self.note(&expected.sql);
                let error = self.refusal(&body);
                if DbError::parse(&body).is_fatal() {
                    return Err(failed.unwrap_or_else(|| error.into()));
                }
                failed = failed.or(Some(PipelineError { index: Some(answers), error }));
            } else {
                affected.push(self.done(&body)?.affected);
                // More answers may be due.
                self.state = State::Busy;
            }
            answers += 1;
        }
        self.state = State::Ready;
        failed.map_or(Ok(affected), Err)
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
        assert_eq!((failed.index, number(&failed.error)), (Some(1), Some(1062)));
        assert!(failed.error.to_string().ends_with("statement INSERT INTO t VALUES (?)"), "{}", failed.error);
        assert!(client.is_usable());

        client.queue(&insert, &[Param::Null]).unwrap();
        server.write_all(&framed(1, &[KILLED])).await.unwrap();
        let failed = client.flush_queued().await.unwrap_err();
        assert_eq!((failed.index, failed.error.kind), (None, ErrorKind::Connect));
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
