//! Queued statements: many in one round trip, each prepared once.
//!
//! [`Client::queue`] only buffers; [`Client::send_queued`] lets the server begin; [`Client::flush_queued`] sends, waits, and says how many rows each statement
//! affected or which one was refused. After a refusal the server has skipped the rest.
//! Result rows are discarded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use connector::{Error, ErrorKind, Result};
use postgres_protocol::message::frontend;

use crate::error::{DbError, from_server};
use crate::wire::{Client, State, rows_of};

/// Statements kept prepared. Each costs the server some tens of kilobytes of plan.
const PREPARED_MAX: usize = 500;
/// The server takes no longer message: its own limit for one allocation.
const MESSAGE_BYTES_MAX: usize = 0x3fff_ffff;
/// Less than this is not worth a send of its own.
const EARLY_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    prepared: HashMap<Arc<str>, Prepared>,
    /// Counts uses, for finding the least recent one.
    clock: u64,
    /// Names given so far; never given twice.
    names: u64,
    /// The answers that are due, in order.
    expected: VecDeque<Expected>,
    /// Names to close with the next statement.
    closing: Vec<u64>,
    /// Part of what is queued has been sent.
    is_under_way: bool,
}

#[derive(Clone, Copy, Debug)]
struct Prepared {
    name: u64,
    used: u64,
}

#[derive(Debug)]
enum Expected {
    Parsed(Arc<str>),
    Closed(u64),
    Completed(Arc<str>),
}

/// Why a pipeline failed.
#[derive(Debug)]
pub(crate) struct PipelineError {
    /// Which queued statement the server refused; `None` when it was not one of them: the connection, or a check
    /// that was deferred to the end.
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

impl Pipeline {
    pub(crate) fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }

    fn least_recent(&self) -> Option<Arc<str>> {
        self.prepared.iter().min_by_key(|(_, prepared)| prepared.used).map(|(sql, _)| sql.clone())
    }

    /// A statement that may be wrong by now (its table was altered): the next use prepares it again.
    fn forget(&mut self, sql: &str) {
        if let Some(prepared) = self.prepared.remove(sql) {
            self.closing.push(prepared.name);
        }
    }

    /// Brings the record of what is prepared in line with what the server has skipped.
    fn skipped(&mut self) {
        for expected in std::mem::take(&mut self.expected) {
            match expected {
                Expected::Parsed(sql) => drop(self.prepared.remove(&sql)),
                Expected::Closed(name) => self.closing.push(name),
                Expected::Completed(_) => {}
            }
        }
    }
}

/// Takes the parameters of one statement, in order, in text form.
pub(crate) struct Binder<'a> {
    out: &'a mut BytesMut,
    params: usize,
}

impl Binder<'_> {
    pub(crate) fn text(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.null(),
            Some(value) => self.write(|out| out.extend_from_slice(value)),
        }
    }

    pub(crate) fn null(&mut self) {
        self.params += 1;
        self.out.put_i32(-1);
    }

    /// One parameter that is written straight into the connection's buffer; `value` may only append.
    pub(crate) fn write(&mut self, value: impl FnOnce(&mut BytesMut)) {
        self.params += 1;
        let at = self.out.len();
        self.out.put_i32(0);
        value(self.out);
        let bytes = self.out.len() - at - 4;
        self.out[at..at + 4].copy_from_slice(&length(bytes));
    }
}

/// Saturates: what is longer is refused when the message is complete.
fn length(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).unwrap_or(i32::MAX).to_be_bytes()
}

impl Client {
    /// Queues one statement with its parameters in text form. On an error everything that was queued is dropped:
    /// what follows it must not run without it.
    pub(crate) fn queue<P: AsRef<[u8]>>(&mut self, sql: &str, params: &[Option<P>]) -> Result<()> {
        self.queue_with(sql, |binder| {
            params.iter().for_each(|param| binder.text(param.as_ref().map(AsRef::as_ref)));
        })
    }

    /// Queues one statement whose parameters are written in place.
    pub(crate) fn queue_with(&mut self, sql: &str, fill: impl FnOnce(&mut Binder<'_>)) -> Result<()> {
        if self.state != State::Ready {
            return Err(self.out_of_step("an earlier exchange was not finished"));
        }
        let queued = self.enqueue(sql, fill);
        if queued.is_err() {
            self.outgoing.clear();
            self.pipeline.skipped();
            if self.pipeline.is_under_way {
                // The server has begun: only the end of the session undoes that.
                self.state = State::Busy;
            }
        }
        queued
    }

    fn enqueue(&mut self, sql: &str, fill: impl FnOnce(&mut Binder<'_>)) -> Result<()> {
        let (name, sql) = self.prepared(sql)?;
        self.bind(&statement(name), fill)?;
        self.pipeline.expected.push_back(Expected::Completed(sql));
        Ok(())
    }

    /// The name of the prepared statement; where there is none, its Parse is queued.
    fn prepared(&mut self, sql: &str) -> Result<(u64, Arc<str>)> {
        self.pipeline.clock += 1;
        let clock = self.pipeline.clock;
        if let Some(prepared) = self.pipeline.prepared.get_mut(sql) {
            prepared.used = clock;
            let name = prepared.name;
            let key = self.pipeline.prepared.get_key_value(sql).map(|(key, _)| key.clone());
            return Ok((name, key.unwrap_or_else(|| sql.into())));
        }
        if self.pipeline.prepared.len() >= PREPARED_MAX
            && let Some(oldest) = self.pipeline.least_recent()
        {
            self.pipeline.forget(&oldest);
        }
        let start = self.outgoing.len();
        for name in std::mem::take(&mut self.pipeline.closing) {
            frontend::close(b'S', &statement(name), &mut self.outgoing)
                .map_err(|error| self.unqueueable(start, error))?;
            self.pipeline.expected.push_back(Expected::Closed(name));
        }
        let start = self.outgoing.len();
        let name = self.pipeline.names;
        frontend::parse(&statement(name), sql, std::iter::empty(), &mut self.outgoing)
            .map_err(|error| self.unqueueable(start, error))?;
        self.pipeline.names += 1;
        let key: Arc<str> = sql.into();
        self.pipeline.prepared.insert(key.clone(), Prepared { name, used: clock });
        self.pipeline.expected.push_back(Expected::Parsed(key.clone()));
        Ok((name, key))
    }

    /// Writes Bind and Execute. On an error the buffer is as before.
    pub(crate) fn bind(&mut self, statement: &str, fill: impl FnOnce(&mut Binder<'_>)) -> Result<()> {
        let start = self.outgoing.len();
        let out = &mut self.outgoing;
        out.put_u8(b'B');
        out.put_i32(0);
        out.put_u8(0);
        out.extend_from_slice(statement.as_bytes());
        out.put_u8(0);
        // No formats: all parameters are text.
        out.put_i16(0);
        let count = out.len();
        out.put_u16(0);
        let mut binder = Binder { out, params: 0 };
        fill(&mut binder);
        let params = binder.params;
        // No formats: all results are text.
        self.outgoing.put_i16(0);
        let bytes = self.outgoing.len() - start - 1;
        let Some(params) = u16::try_from(params).ok().filter(|_| bytes <= MESSAGE_BYTES_MAX) else {
            let why = format!("{params} parameters of {bytes} bytes are more than one statement takes");
            return Err(self.unqueueable(start, std::io::Error::other(why)));
        };
        self.outgoing[count..count + 2].copy_from_slice(&params.to_be_bytes());
        self.outgoing[start + 1..start + 5].copy_from_slice(&length(bytes));
        frontend::execute("", 0, &mut self.outgoing).map_err(|error| self.unqueueable(start, error))
    }

    fn unqueueable(&mut self, start: usize, error: std::io::Error) -> Error {
        self.outgoing.truncate(start);
        Error::new(ErrorKind::Refused, self.operation).with("server", &self.server).source(error)
    }

    /// Lets the server begin with what is queued, once that is worth a send. Its answers wait for [`Client::flush_queued`].
    pub(crate) async fn send_queued(&mut self) -> Result<()> {
        if self.outgoing.len() < EARLY_BYTES {
            return Ok(());
        }
        if self.state != State::Ready {
            return Err(self.out_of_step("an earlier exchange was not finished"));
        }
        // When this is dropped half-way, nobody may take the connection for one that is at rest.
        self.state = State::Busy;
        self.flush().await?;
        self.state = State::Ready;
        self.pipeline.is_under_way = true;
        Ok(())
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
        self.pipeline.is_under_way = false;
        frontend::sync(&mut self.outgoing);
        self.flush().await?;
        let mut affected = Vec::new();
        let mut failed: Option<PipelineError> = None;
        loop {
            let frame = match self.receive().await {
                Ok(frame) => frame,
                Err(error) => return Err(failed.unwrap_or_else(|| error.into())),
            };
            match frame.tag {
                b'Z' => {
                    self.ended(&frame);
                    return failed.map_or(Ok(affected), Err);
                }
                b'E' if failed.is_none() => {
                    let db = DbError::parse(&frame.body);
                    failed = Some(self.pipeline_failed(db, affected.len()));
                }
                _ if failed.is_some() => {}
                b'1' | b'3' => drop(self.pipeline.expected.pop_front()),
                b'C' | b'I' => {
                    self.pipeline.expected.pop_front();
                    affected.push(rows_of(&frame.body));
                }
                b'2' | b'D' | b'n' | b'T' | b't' => {}
                _ => return Err(self.malformed(&frame).into()),
            }
        }
    }

    /// Reads the refusal against what was still due.
    fn pipeline_failed(&mut self, db: DbError, index: usize) -> PipelineError {
        let refused = self.pipeline.expected.iter().find_map(|expected| match expected {
            Expected::Completed(sql) => Some(sql.clone()),
            _ => None,
        });
        self.pipeline.skipped();
        let fatal = db.is_fatal();
        let mut error = from_server(self.operation, db).with("server", &self.server);
        if let Some(sql) = &refused {
            self.pipeline.forget(sql);
            error = error.with("statement", sql.chars().take(200).collect::<String>());
        }
        PipelineError { index: refused.filter(|_| !fatal).map(|_| index), error }
    }
}

fn statement(name: u64) -> String {
    format!("s{name}")
}
