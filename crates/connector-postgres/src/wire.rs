//! One connection to a server, speaking the protocol (version 3.0) itself.
//!
//! Written here because two things need the bytes as they are: COPY blocks that pass from one server to the
//! other untouched, and the replication stream. Queries then use the same connection.
//!
//! Promises:
//! - A closed connection is an error, never the end of data.
//! - While anything is written, the server's answers are read, so that two full socket buffers cannot wait for
//!   each other.
//! - A future that is dropped in the middle of an exchange leaves a client that refuses further exchanges.
//!   [`Client::copy_out_next`] and [`Client::fill`] may be dropped and called again.
//!
//! The rest of the client is in `login` (authentication), `pipeline` (queued statements) and `copy`.
//! Deliberately absent: reconnection, cancelling, binary results.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use connector::{Error, ErrorKind, Result};
use net::{Socket, from_socket};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::error::{DbError, corrupt, from_server};
use crate::pipeline::Pipeline;

/// Settings under which the text of every value is exact and does not depend on the server's configuration, and
/// under which no timer of the server's ends our sessions. For the startup parameter `options`.
pub(crate) const EXACT_TEXT: &str = "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 \
     -c timezone=UTC -c bytea_output=hex -c lc_monetary=C -c client_encoding=UTF8 -c statement_timeout=0 \
     -c lock_timeout=0 -c idle_in_transaction_session_timeout=0";

/// Asked of the socket at once. PostgreSQL sends 8 KiB at a time; the kernel gathers them while we work.
pub(crate) const READ_BYTES: usize = 256 * 1024;
const READ_BYTES_MIN: usize = 16 * 1024;
/// A buffer that grew beyond this for one message is given back afterwards.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// No message of a server is longer: its own limit for one allocation.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024 * 1024;

pub(crate) struct Client {
    pub(crate) socket: Socket,
    pub(crate) incoming: BytesMut,
    pub(crate) outgoing: BytesMut,
    /// A long message has passed: the buffer is larger than worth keeping.
    swollen: bool,
    pub(crate) server: String,
    pub(crate) operation: &'static str,
    pub(crate) statement: String,
    pub(crate) state: State,
    pub(crate) transaction: u8,
    pub(crate) pid: i32,
    pub(crate) secret: i32,
    pub(crate) version: u32,
    pub(crate) parameters: HashMap<String, String>,
    pub(crate) pipeline: Pipeline,
    pub(crate) copied_rows: u64,
    pub(crate) row_after_copy: Option<TextRow>,
    pub(crate) done_before_copy: usize,
    /// Bytes of a long CopyData message that have not been handed out yet.
    pub(crate) piece_left: usize,
}

/// Which exchange the connection is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// In an exchange, or abandoned in one.
    Busy,
    CopyOut,
    CopyIn,
    CopyBoth,
}

/// One message of the server.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) body: Bytes,
}

/// One result row, as text; `None` is NULL.
pub(crate) type TextRow = Vec<Option<Bytes>>;

impl Client {
    pub(crate) fn new(socket: Socket, server: String) -> Client {
        Client {
            socket,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            swollen: false,
            server,
            operation: "run a statement",
            statement: String::new(),
            state: State::Busy,
            transaction: b'I',
            pid: 0,
            secret: 0,
            version: 0,
            parameters: HashMap::new(),
            pipeline: Pipeline::default(),
            copied_rows: 0,
            row_after_copy: None,
            done_before_copy: 0,
            piece_left: 0,
        }
    }

    /// Says what the following calls are for; errors say "could not …".
    pub(crate) fn doing(&mut self, operation: &'static str) -> &mut Client {
        self.operation = operation;
        self
    }

    /// Host, port and database, for messages.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// The server's version as `server_version_num` counts it: 150014 for 15.14.
    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    /// What the server reported of itself: `in_hot_standby`, `server_encoding` …
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Whether the session is in a transaction block, failed or not.
    pub(crate) fn in_transaction(&self) -> bool {
        self.transaction != b'I'
    }

    /// Whether another exchange can begin; if not, the connection is of no more use.
    pub(crate) fn is_usable(&self) -> bool {
        self.state == State::Ready
    }

    /// Runs statements and returns the rows of the last one that had any.
    pub(crate) async fn simple(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let mut rows = Vec::new();
        self.run(sql, |frame| {
            match frame.tag {
                b'T' => rows.clear(),
                b'D' => rows.push(text_row(&frame.body)?),
                _ => {}
            }
            Some(())
        })
        .await?;
        let operation = self.operation;
        rows.into_iter().map(|row| strings(operation, row)).collect()
    }

    /// Runs a statement and hands its rows out one by one: for answers that are large as a whole.
    pub(crate) async fn each(
        &mut self,
        sql: &str,
        mut on: impl FnMut(Vec<Option<String>>) -> Result<()>,
    ) -> Result<()> {
        let operation = self.operation;
        let mut outcome = Ok(());
        self.run(sql, |frame| {
            if frame.tag == b'D' && outcome.is_ok() {
                outcome = strings(operation, text_row(&frame.body)?).and_then(&mut on);
            }
            Some(())
        })
        .await?;
        outcome
    }

    /// Runs statements and returns how many rows the last one affected.
    pub(crate) async fn execute(&mut self, sql: &str) -> Result<u64> {
        let mut affected = 0;
        self.run(sql, |frame| {
            if frame.tag == b'C' {
                affected = rows_of(&frame.body);
            }
            Some(())
        })
        .await?;
        Ok(affected)
    }

    async fn run(&mut self, sql: &str, on: impl FnMut(&Frame) -> Option<()>) -> Result<()> {
        self.begin(sql)?;
        frontend::query(sql, &mut self.outgoing).map_err(|error| self.unsendable(error))?;
        self.flush().await?;
        self.finish(on).await
    }

    /// Runs one statement with parameters in text form; their types are what the statement makes of them.
    pub(crate) async fn query(&mut self, sql: &str, params: &[Option<&[u8]>]) -> Result<Vec<TextRow>> {
        self.begin(sql)?;
        frontend::parse("", sql, std::iter::empty(), &mut self.outgoing)
            .map_err(|error| self.unsendable(error))?;
        self.bind("", |binder| params.iter().for_each(|param| binder.text(*param)))?;
        frontend::sync(&mut self.outgoing);
        self.flush().await?;
        let mut rows = Vec::new();
        self.finish(|frame| {
            if frame.tag == b'D' {
                rows.push(text_row(&frame.body)?);
            }
            Some(())
        })
        .await?;
        Ok(rows)
    }

    /// Starts an exchange; refused while another is unfinished.
    pub(crate) fn begin(&mut self, statement: &str) -> Result<()> {
        if self.state != State::Ready {
            return Err(self.out_of_step("an earlier exchange was not finished"));
        }
        if !self.pipeline.is_empty() {
            return Err(self.out_of_step("queued statements have not been flushed"));
        }
        self.state = State::Busy;
        self.note(statement);
        Ok(())
    }

    /// Keeps the beginning of a statement for errors.
    pub(crate) fn note(&mut self, statement: &str) {
        self.statement.clear();
        self.statement.extend(statement.chars().take(200));
    }

    /// Reads to the end of the exchange. The first error of the server wins; `on` sees everything before it and
    /// returns `None` for a message that it cannot read.
    pub(crate) async fn finish(&mut self, mut on: impl FnMut(&Frame) -> Option<()>) -> Result<()> {
        let mut refusal = None;
        loop {
            let frame = match self.receive().await {
                Ok(frame) => frame,
                // After a fatal error the server hangs up; the error is what counts.
                Err(error) => return Err(refusal.unwrap_or(error)),
            };
            match frame.tag {
                b'Z' => {
                    self.ended(&frame);
                    return refusal.map_or(Ok(()), Err);
                }
                b'E' if refusal.is_none() => refusal = Some(self.refusal(&frame)),
                b'G' => {
                    frontend::copy_fail("this statement must not read data", &mut self.outgoing)
                        .map_err(|error| self.unsendable(error))?;
                    self.flush().await?;
                }
                _ if refusal.is_some() => {}
                _ => on(&frame).ok_or_else(|| self.malformed(&frame))?,
            }
        }
    }

    /// Takes a ReadyForQuery: the exchange is over.
    pub(crate) fn ended(&mut self, frame: &Frame) {
        self.transaction = frame.body.first().copied().unwrap_or(b'I');
        self.state = State::Ready;
    }

    /// The next message, waiting for it. Safe to drop.
    pub(crate) async fn receive(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// The next message that is here already.
    pub(crate) fn take(&mut self) -> Result<Option<Frame>> {
        while let Some(frame) = self.pop()? {
            if !self.aside(&frame) {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    pub(crate) fn pop(&mut self) -> Result<Option<Frame>> {
        let Some(bytes) = self.length_at(0)? else { return Ok(None) };
        if self.incoming.len() < bytes {
            return Ok(None);
        }
        self.swollen |= bytes > KEPT_BYTES_MAX;
        let mut body = self.incoming.split_to(bytes).freeze();
        let tag = body[0];
        body.advance(5);
        Ok(Some(Frame { tag, body }))
    }

    /// Handles what a server may send at any time. False for a message of the exchange.
    pub(crate) fn aside(&mut self, frame: &Frame) -> bool {
        match frame.tag {
            b'N' => {
                let notice = DbError::parse(&frame.body);
                tracing::debug!(server = self.server, severity = notice.severity, "{notice}");
            }
            b'S' => {
                let mut parts = frame.body.split(|&byte| byte == 0).map(String::from_utf8_lossy);
                if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    self.parameters.insert(name.into_owned(), value.into_owned());
                }
            }
            b'A' => {}
            _ => return false,
        }
        true
    }

    /// The whole length, header included, of the message that begins at `at`, once its header is here.
    pub(crate) fn length_at(&self, at: usize) -> Result<Option<usize>> {
        let Some(header) = self.incoming.get(at..at + 5) else { return Ok(None) };
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
            return Err(corrupt(self.operation, format_args!("a message says it is {length} bytes long"))
                .with("server", &self.server));
        }
        Ok(Some(length + 1))
    }

    /// Waits for more bytes. Safe to drop.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        match poll_fn(|context| self.poll_fill(context)).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(error).await),
        }
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.make_room();
        let read = ready!(pin!(self.socket.read_buf(&mut self.incoming)).poll(context))?;
        if read == 0 {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection",
            )));
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what is here, without waiting.
    pub(crate) async fn fill_ready(&mut self) -> Result<()> {
        let read = poll_fn(|context| match self.poll_fill(context) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => Poll::Ready(Ok(())),
        });
        match read.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(error).await),
        }
    }

    fn make_room(&mut self) {
        if self.incoming.capacity() - self.incoming.len() >= READ_BYTES_MIN && !self.swollen {
            return;
        }
        let here = self.incoming.len();
        if self.swollen && here < READ_BYTES {
            let mut fresh = BytesMut::with_capacity(here + READ_BYTES);
            fresh.extend_from_slice(&self.incoming);
            self.incoming = fresh;
            self.swollen = false;
        } else if self.incoming.capacity() - here < READ_BYTES_MIN {
            // At most doubled at a time, so that memory follows what has come and not what a header says.
            let front = self.length_at(0).ok().flatten().unwrap_or(0);
            self.incoming.reserve(front.saturating_sub(here).min(here).max(READ_BYTES));
        }
    }

    /// Writes everything that is buffered.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.send(&[]).await
    }

    /// Writes everything that is buffered and then `direct`, reading meanwhile. When dropped, what was buffered
    /// goes on with the next flush, but a part of `direct` may be gone: callers are in state `Busy` then.
    pub(crate) async fn send(&mut self, mut direct: &[u8]) -> Result<()> {
        let large = self.outgoing.len() > KEPT_BYTES_MAX;
        let written = poll_fn(|context| {
            loop {
                match self.poll_write(context, &mut direct) {
                    Poll::Ready(outcome) => return Poll::Ready(outcome),
                    // The server may be waiting until we read.
                    Poll::Pending => ready!(self.poll_fill(context))?,
                }
            }
        });
        if let Err(error) = written.await {
            return Err(self.lost(error).await);
        }
        if large {
            self.outgoing = BytesMut::new();
        }
        Ok(())
    }

    fn poll_write(&mut self, context: &mut Context<'_>, direct: &mut &[u8]) -> Poll<io::Result<()>> {
        let zero = || io::Error::from(io::ErrorKind::WriteZero);
        while !self.outgoing.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(context, &self.outgoing))? {
                0 => return Poll::Ready(Err(zero())),
                written => self.outgoing.advance(written),
            }
        }
        while !direct.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(context, direct))? {
                0 => return Poll::Ready(Err(zero())),
                written => *direct = &direct[written..],
            }
        }
        Pin::new(&mut self.socket).poll_flush(context)
    }

    /// The error for a broken connection: the server's own last words where there are any.
    pub(crate) async fn lost(&mut self, error: io::Error) -> Error {
        self.state = State::Busy;
        // After a failed write the reason may still wait to be read.
        while let Ok(true) = poll_fn(|context| match self.poll_fill(context) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(true)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Ok(false)),
        })
        .await
        {}
        while let Ok(Some(frame)) = self.take() {
            if frame.tag == b'E' {
                if DbError::parse(&frame.body).is_fatal() {
                    return self.refusal(&frame);
                }
                // A statement that was refused before does not end a connection.
                tracing::debug!(error = %self.refusal(&frame), "before the connection was lost");
            }
        }
        from_socket(self.operation, &self.server, error)
    }

    /// What the server answered, as an error.
    pub(crate) fn refusal(&self, frame: &Frame) -> Error {
        let error = from_server(self.operation, DbError::parse(&frame.body)).with("server", &self.server);
        if self.statement.is_empty() { error } else { error.with("statement", &self.statement) }
    }

    pub(crate) fn malformed(&self, frame: &Frame) -> Error {
        let what =
            format_args!("message {:?} of {} bytes was not expected", frame.tag as char, frame.body.len());
        corrupt(self.operation, what).with("server", &self.server)
    }

    pub(crate) fn out_of_step(&self, why: &str) -> Error {
        Error::new(ErrorKind::Connect, self.operation).with("server", &self.server).with("because", why)
    }

    /// A text with a NUL byte or a message that is too long.
    pub(crate) fn unsendable(&mut self, error: io::Error) -> Error {
        // Half a message may be in the buffer.
        self.outgoing.clear();
        Error::new(ErrorKind::Refused, self.operation).with("statement", &self.statement).source(error)
    }
}

/// The cells of a DataRow.
pub(crate) fn text_row(body: &Bytes) -> Option<TextRow> {
    let mut at = 2;
    let cells = u16::from_be_bytes([*body.first()?, *body.get(1)?]);
    // Each cell is four bytes at least: a count that the message cannot hold must not reserve memory.
    let mut row = Vec::with_capacity(usize::from(cells).min(body.len() / 4));
    for _ in 0..cells {
        let length = i32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?);
        at += 4;
        if length == -1 {
            row.push(None);
            continue;
        }
        let end = at + usize::try_from(length).ok()?;
        body.get(at..end)?;
        row.push(Some(body.slice(at..end)));
        at = end;
    }
    // What is left over was no row.
    (at == body.len()).then_some(row)
}

fn strings(operation: &'static str, row: TextRow) -> Result<Vec<Option<String>>> {
    let string = |cell: Bytes| match std::str::from_utf8(&cell) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(corrupt(operation, "a result is not UTF-8").source(error)),
    };
    row.into_iter().map(|cell| cell.map(string).transpose()).collect()
}

/// The count at the end of a command tag: `UPDATE 3`, `INSERT 0 3`, `COPY 3`; 0 where there is none.
pub(crate) fn rows_of(tag: &[u8]) -> u64 {
    let text = tag.strip_suffix(&[0]).unwrap_or(tag);
    let digits = text.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_count() {
        for (tag, rows) in [
            (&b"UPDATE 3\0"[..], 3),
            (b"INSERT 0 12\0", 12),
            (b"CREATE TABLE\0", 0),
            (b"COPY 100000", 100_000),
            (b"", 0),
        ] {
            assert_eq!(rows_of(tag), rows, "{tag:?}");
        }
    }

    #[test]
    fn a_damaged_row_is_noticed() {
        let good = Bytes::from_static(&[0, 2, 255, 255, 255, 255, 0, 0, 0, 2, b'o', b'k']);
        assert_eq!(text_row(&good), Some(vec![None, Some(Bytes::from_static(b"ok"))]));
        for cut in 0..good.len() {
            assert_eq!(text_row(&good.slice(..cut)), None, "{cut}");
        }
        // A length below zero that is not -1, and bytes behind the last cell: both were once taken for good.
        for bad in [&[0, 1, 255, 255, 255, 254][..], &[0, 1, 255, 255, 255, 255, 0]] {
            assert_eq!(text_row(&Bytes::copy_from_slice(bad)), None, "{bad:?}");
        }
    }
}
