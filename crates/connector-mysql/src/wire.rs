//! One connection to a server, speaking the client/server protocol itself.
//!
//! Written here because no library gives all of it: rows of the binary protocol as they come, many statements in one
//! round trip, LOAD DATA from memory, and the log.
//!
//! Promises:
//! - A closed connection is an error, never the end of data.
//! - While anything is written, the server's answers are read, so that two full socket buffers cannot wait for each
//!   other.
//! - A future that is dropped in the middle of an exchange leaves a client that refuses further exchanges.
//!   [`Client::next_row`] and [`Client::fill`] may be dropped and called again.
//!
//! The rest of the client is in `connect`, `login`, `prepared` (statements with parameters, pipelines, rows) and
//! `infile`. Deliberately absent: reconnection, cancelling, compression, several statements in one text.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use connector::{Error, ErrorKind, Result};
use net::{Socket, from_socket};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::error::{DbError, corrupt, from_server};
use crate::family::Family;
pub(crate) use crate::packet::TextRow;
use crate::packet::{self, Column, Cursor, Done, FramingError, Joiner, MESSAGE_BYTES_MAX, text_row};
use crate::pipeline::Pipeline;
use crate::prepared::{Statement, Width};
use crate::token::Token;

/// Asked of the socket at once. The kernel gathers what a server sends while we work.
const READ_BYTES: usize = 256 * 1024;
const READ_BYTES_MIN: usize = 16 * 1024;
/// A buffer that grew beyond this for one message is given back afterwards.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// A connection that is broken ends at once when it is read.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What is being done when nobody says more.
const USUAL: &str = "run a statement";

const COM_QUERY: u8 = 0x03;
const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_SLAVE: u8 = 0x15;

/// Flags of the server's status.
const MORE_RESULTS_EXIST: u16 = 1 << 3;

pub(crate) struct Client {
    pub(crate) socket: Socket,
    pub(crate) incoming: BytesMut,
    pub(crate) outgoing: BytesMut,
    joiner: Joiner,
    /// The number of the next packet, be it ours or the server's.
    pub(crate) sequence: u8,
    /// A long message has passed: the buffer is larger than worth keeping.
    swollen: bool,
    pub(crate) server: String,
    pub(crate) operation: &'static str,
    statement: String,
    pub(crate) state: State,
    pub(crate) connection_id: u32,
    pub(crate) version: String,
    /// An OK packet, not an EOF packet, ends the rows of a result.
    pub(crate) deprecates_eof: bool,
    /// One message may execute a statement for many rows.
    pub(crate) takes_bulk: bool,
    pub(crate) pipeline: Pipeline,
    /// Statements of ours that this session has prepared once and for all.
    pub(crate) kept: HashMap<&'static str, Arc<Statement>>,
    /// Of a session that writes: how it is found again on the server.
    pub(crate) token: Option<Token>,
    /// How the values of the result lie that is being read.
    pub(crate) widths: Vec<Width>,
}

/// Which exchange the connection is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// In an exchange, or abandoned in one.
    Busy,
    /// Rows of a prepared statement are coming.
    Rows,
    /// The server waits for the data of LOAD DATA LOCAL.
    Infile,
    /// The server sends its log, until the connection ends.
    Dump,
}

/// What a statement is answered with.
pub(crate) enum Answer {
    Done(Done),
    /// Rows follow.
    Columns(Vec<Column>),
    /// LOAD DATA LOCAL: the server asks for the data.
    Infile,
}

impl Client {
    pub(crate) fn new(socket: Socket, server: String) -> Client {
        Client {
            socket,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            joiner: Joiner::default(),
            sequence: 0,
            swollen: false,
            server,
            operation: USUAL,
            statement: String::new(),
            state: State::Busy,
            connection_id: 0,
            version: String::new(),
            deprecates_eof: false,
            takes_bulk: false,
            pipeline: Pipeline::default(),
            kept: HashMap::new(),
            token: None,
            widths: Vec::new(),
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

    /// As the server says it: `10.11.6-MariaDB-log`, `8.4.3`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn family(&self) -> Family {
        Family::parse(&self.version)
    }

    /// What `KILL` and the process list know this session by.
    pub(crate) fn connection_id(&self) -> u32 {
        self.connection_id
    }

    /// Whether another exchange can begin; if not, the connection is of no more use.
    pub(crate) fn is_usable(&self) -> bool {
        self.state == State::Ready
    }

    /// Runs a statement and returns all its rows, as text.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Vec<TextRow>> {
        let mut rows = Vec::new();
        self.run(sql, |row| rows.push(row)).await?;
        Ok(rows)
    }

    /// Runs a statement; if it returns rows, they are dropped.
    pub(crate) async fn execute(&mut self, sql: &str) -> Result<Done> {
        self.run(sql, drop).await
    }

    async fn run(&mut self, sql: &str, mut on: impl FnMut(TextRow)) -> Result<Done> {
        let columns = match self.ask(sql).await? {
            Answer::Done(done) => return Ok(done),
            Answer::Columns(columns) => columns.len(),
            // Whoever sends this reads files; only `infile` answers it, and from memory.
            Answer::Infile => return Err(self.broken("the statement asks for a file")),
        };
        loop {
            match self.row().await? {
                ControlFlow::Continue(body) => {
                    let row = text_row(&body, columns);
                    on(row.ok_or_else(|| self.malformed(format_args!("a row of {columns} values"), &body))?);
                }
                ControlFlow::Break(done) => return Ok(done),
            }
        }
    }

    /// Makes the session known as a replica, under a number that no other replica of the server has.
    pub(crate) async fn register_replica(&mut self, server_id: u32) -> Result<()> {
        self.begin("COM_REGISTER_SLAVE")?;
        self.exchange(COM_REGISTER_SLAVE, |out| {
            out.put_u32_le(server_id);
            // Host, user and password for the list of replicas, each of no bytes; port; rank; the source's own id.
            out.put_bytes(0, 3 + 2 + 4 + 4);
        })
        .await
    }

    /// Has the server send its log from there on, waiting for more at the end. Read it with [`Client::take_packet`].
    pub(crate) async fn dump(&mut self, server_id: u32, file: &str, position: u32) -> Result<()> {
        self.begin("COM_BINLOG_DUMP")?;
        self.command(COM_BINLOG_DUMP, |out| {
            out.put_u32_le(position);
            // No flags: not BINLOG_DUMP_NON_BLOCK.
            out.put_u16_le(0);
            out.put_u32_le(server_id);
            out.put_slice(file.as_bytes());
        })?;
        self.flush().await?;
        self.state = State::Dump;
        Ok(())
    }

    /// The next event of the log that is here already, without the byte in front of it.
    pub(crate) fn take_packet(&mut self) -> Result<Option<Bytes>> {
        if self.state != State::Dump {
            return Err(self.out_of_step("no log is being read"));
        }
        let Some(mut body) = self.take()? else { return Ok(None) };
        match body.first() {
            Some(&packet::OK) => {
                body.advance(1);
                Ok(Some(body))
            }
            Some(&packet::ERR) => {
                self.state = State::Busy;
                Err(self.refusal(&body))
            }
            // A server that shuts down ends the log in order.
            Some(&packet::EOF) => {
                self.state = State::Busy;
                Err(self.out_of_step("the server ended the log"))
            }
            _ => Err(self.malformed("an event of the log", &body)),
        }
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

    /// Puts a command into the buffer. On an error the buffer is as before.
    pub(crate) fn command(&mut self, code: u8, fill: impl FnOnce(&mut BytesMut)) -> Result<()> {
        let start = self.outgoing.len();
        self.sequence = packet::put(&mut self.outgoing, 0, |out| {
            out.put_u8(code);
            fill(out);
        });
        let bytes = self.outgoing.len() - start;
        if bytes > MESSAGE_BYTES_MAX {
            self.outgoing.truncate(start);
            return Err(self.unsendable(format_args!("{bytes} bytes are more than one statement takes")));
        }
        Ok(())
    }

    /// A command that is answered by OK alone.
    async fn exchange(&mut self, code: u8, fill: impl FnOnce(&mut BytesMut)) -> Result<()> {
        self.command(code, fill)?;
        self.flush().await?;
        let body = self.reply().await?;
        self.done(&body)?;
        Ok(())
    }

    /// Sends a statement as text and reads what it is answered with, up to the rows.
    pub(crate) async fn ask(&mut self, sql: &str) -> Result<Answer> {
        self.begin(sql)?;
        self.put_text(sql)?;
        self.flush().await?;
        self.answer().await
    }

    pub(crate) fn put_text(&mut self, sql: &str) -> Result<()> {
        self.command(COM_QUERY, |out| out.put_slice(sql.as_bytes()))
    }

    /// Goes on in an exchange with a message of ours.
    pub(crate) async fn say(&mut self, fill: impl FnOnce(&mut BytesMut)) -> Result<()> {
        self.sequence = packet::put(&mut self.outgoing, self.sequence, fill);
        self.flush().await
    }

    /// What a statement is answered with, up to the rows.
    pub(crate) async fn answer(&mut self) -> Result<Answer> {
        let body = self.reply().await?;
        match body.first() {
            Some(&packet::OK) => self.done(&body).map(Answer::Done),
            Some(&packet::LOCAL_INFILE) => Ok(Answer::Infile),
            _ => {
                let columns = Cursor::new(&body).integer().and_then(|columns| u16::try_from(columns).ok());
                let columns = columns.ok_or_else(|| self.malformed("a number of columns", &body))?;
                self.definitions(columns).await.map(Answer::Columns)
            }
        }
    }

    /// Reads so many definitions of columns, and what ends them.
    pub(crate) async fn definitions(&mut self, count: u16) -> Result<Vec<Column>> {
        let mut columns = Vec::new();
        for _ in 0..count {
            let body = self.reply().await?;
            let column = Column::parse(&body);
            columns.push(column.ok_or_else(|| self.malformed("the definition of a column", &body))?);
        }
        if count > 0 && !self.deprecates_eof {
            let body = self.reply().await?;
            if body.first() != Some(&packet::EOF) {
                return Err(self.malformed("the end of the definitions", &body));
            }
        }
        Ok(columns)
    }

    /// The next row of a result, or how it ended. Safe to drop.
    pub(crate) async fn row(&mut self) -> Result<ControlFlow<Done, Bytes>> {
        let body = self.reply().await?;
        if packet::ends_rows(&body, self.deprecates_eof) {
            return self.ended(&body).map(ControlFlow::Break);
        }
        Ok(ControlFlow::Continue(body))
    }

    /// The next message of an exchange; a refusal is the end of it. Safe to drop.
    pub(crate) async fn reply(&mut self) -> Result<Bytes> {
        let body = self.receive().await?;
        if packet::is_error(&body) { Err(self.refused(&body)) } else { Ok(body) }
    }

    /// Takes an OK packet that is the end of an exchange.
    pub(crate) fn done(&mut self, body: &Bytes) -> Result<Done> {
        match body.first() {
            Some(&packet::OK) => self.ended(body),
            _ => Err(self.malformed("an OK packet", body)),
        }
    }

    /// Takes the server's word that it is done.
    fn ended(&mut self, body: &Bytes) -> Result<Done> {
        let done = Done::parse(body, self.deprecates_eof);
        let done = done.ok_or_else(|| self.malformed("an OK or EOF packet", body))?;
        if done.status & MORE_RESULTS_EXIST != 0 {
            return Err(self.broken("a second result follows, and no statement of ours has two"));
        }
        self.state = State::Ready;
        Ok(done)
    }

    /// Takes the OK packet that ends the login.
    pub(crate) fn welcome(&mut self, body: &Bytes) -> Result<()> {
        self.done(body)?;
        self.operation = USUAL;
        Ok(())
    }

    /// The next message, waiting for it. Safe to drop.
    pub(crate) async fn receive(&mut self) -> Result<Bytes> {
        loop {
            if let Some(body) = self.take()? {
                return Ok(body);
            }
            self.fill().await?;
        }
    }

    /// The next message that is here already.
    pub(crate) fn take(&mut self) -> Result<Option<Bytes>> {
        let message = match self.joiner.next(&mut self.incoming) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(error) => return Err(self.broken(error)),
        };
        self.swollen |= message.body.len() > KEPT_BYTES_MAX;
        // A server that ends the session does so at any time, and then counts from where it stands.
        if message.first != self.sequence && !packet::is_error(&message.body) {
            let error = FramingError::OutOfOrder { expected: self.sequence, found: message.first };
            return Err(self.broken(error));
        }
        self.sequence = message.last.wrapping_add(1);
        Ok(Some(message.body))
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
            let front = packet::front(&self.incoming).unwrap_or(0);
            self.incoming.reserve(front.saturating_sub(here).min(here).max(READ_BYTES));
        }
    }

    /// Writes everything that is buffered.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.send(&[]).await
    }

    /// Writes everything that is buffered and then `direct`, reading meanwhile. When dropped, what was buffered goes on
    /// with the next flush, but a part of `direct` may be gone: callers are in state `Busy` then.
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
    async fn lost(&mut self, error: io::Error) -> Error {
        self.state = State::Busy;
        // After a failed write the reason may still wait to be read.
        let reading = async { while poll_fn(|context| self.poll_fill(context)).await.is_ok() {} };
        if tokio::time::timeout(LAST_WORDS, reading).await.is_err() {
            tracing::debug!(server = self.server, "a connection that takes nothing more was left open");
        }
        while let Ok(Some(message)) = self.joiner.next(&mut self.incoming) {
            if packet::is_error(&message.body) {
                if DbError::parse(&message.body).is_fatal() {
                    return self.refusal(&message.body);
                }
                // A statement that was refused before does not end a connection.
                tracing::debug!(error = %self.refusal(&message.body), "before the connection was lost");
            }
        }
        from_socket(self.operation, &self.server, error)
    }

    /// Takes an ERR packet that is the end of an exchange.
    fn refused(&mut self, body: &[u8]) -> Error {
        if !DbError::parse(body).is_fatal() {
            self.state = State::Ready;
        }
        self.refusal(body)
    }

    /// What the server answered, as an error.
    pub(crate) fn refusal(&self, body: &[u8]) -> Error {
        let error = from_server(self.operation, DbError::parse(body)).with("server", &self.server);
        if self.statement.is_empty() { error } else { error.with("statement", &self.statement) }
    }

    /// A message that is not what the exchange is at. The connection is of no more use.
    pub(crate) fn malformed(&mut self, expected: impl fmt::Display, body: &[u8]) -> Error {
        let begin: String = body.iter().take(16).map(|byte| format!(" {byte:02x}")).collect();
        self.broken(format_args!("{expected} was expected, {} bytes came:{begin}", body.len()))
    }

    /// The server does not keep to the protocol. The connection is of no more use.
    pub(crate) fn broken(&mut self, what: impl fmt::Display) -> Error {
        self.state = State::Busy;
        corrupt(self.operation, what).with("server", &self.server)
    }

    pub(crate) fn out_of_step(&self, why: &str) -> Error {
        Error::new(ErrorKind::Connect, self.operation).with("server", &self.server).with("because", why)
    }

    /// What cannot be said in the protocol.
    pub(crate) fn unsendable(&self, why: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Refused, self.operation).with("server", &self.server).with("because", why)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use connector::Retry;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::error::number;

    /// `(42)` of type INT and `("ok")` of type VARCHAR, as definitions of columns.
    pub(crate) const NUMBER: &[u8] =
        b"\x03def\x00\x00\x00\x01n\x00\x0c\x3f\x00\x0b\x00\x00\x00\x03\x01\x00\x00\x00\x00";
    pub(crate) const WORD: &[u8] =
        b"\x03def\x00\x00\x00\x01w\x00\x0c\x2d\x00\x08\x00\x00\x00\xfd\x00\x00\x00\x00\x00";
    /// An OK packet, one row affected; the same at the end of rows, with CLIENT_DEPRECATE_EOF.
    pub(crate) const DONE: &[u8] = b"\x00\x01\x00\x02\x00\x00\x00";
    pub(crate) const END: &[u8] = b"\xfe\x00\x00\x02\x00\x00\x00";
    pub(crate) const DUPLICATE: &[u8] = b"\xff\x26\x04#23000Duplicate entry";
    pub(crate) const KILLED: &[u8] = b"\xff\x87\x07#70100Connection was killed";

    /// A client that has logged in, and the server's end of its connection.
    pub(crate) fn connected() -> (Client, UnixStream) {
        let (socket, server) = UnixStream::pair().unwrap();
        let mut client = Client::new(Socket::Unix(socket), "test".to_owned());
        client.deprecates_eof = true;
        client.state = State::Ready;
        (client, server)
    }

    /// Messages of one answer, the first of which has this number.
    pub(crate) fn framed(first: u8, bodies: &[&[u8]]) -> BytesMut {
        let mut out = BytesMut::new();
        let mut sequence = first;
        for body in bodies {
            sequence = packet::put(&mut out, sequence, |out| out.put_slice(body));
        }
        out
    }

    /// What the client has sent by now.
    pub(crate) async fn sent(server: &mut UnixStream) -> Vec<u8> {
        let mut bytes = vec![0; 64 * 1024];
        let count = server.read(&mut bytes).await.unwrap();
        bytes.truncate(count);
        bytes
    }

    /// The next event of the log, waiting for it.
    async fn next_packet(client: &mut Client) -> Result<Bytes> {
        loop {
            if let Some(event) = client.take_packet()? {
                return Ok(event);
            }
            client.fill().await?;
        }
    }

    #[tokio::test]
    async fn rows_come_as_text() {
        for deprecates_eof in [true, false] {
            let (mut client, mut server) = connected();
            client.deprecates_eof = deprecates_eof;
            let eof: &[u8] = b"\xfe\x00\x00\x03\x00";
            let script = match deprecates_eof {
                true => framed(1, &[b"\x02", NUMBER, WORD, b"\x0242\x02ok", b"\xfb\x00", END]),
                false => framed(1, &[b"\x02", NUMBER, WORD, eof, b"\x0242\x02ok", b"\xfb\x00", eof]),
            };
            server.write_all(&script).await.unwrap();
            let rows = client.query("SELECT 1").await.unwrap();
            let cell = |text: &'static [u8]| Some(Bytes::from_static(text));
            assert_eq!(rows, [vec![cell(b"42"), cell(b"ok")], vec![None, cell(b"")]]);
            assert!(client.is_usable());
            assert_eq!(sent(&mut server).await, b"\x09\x00\x00\x00\x03SELECT 1");
        }
    }

    #[tokio::test]
    async fn statements_are_done_or_refused() {
        let (mut client, mut server) = connected();
        server.write_all(&framed(1, &[DONE])).await.unwrap();
        let done = client.execute("DELETE FROM t").await.unwrap();
        assert_eq!((done.affected, done.status), (1, 2));
        // Rows are dropped.
        server.write_all(&framed(1, &[b"\x01", NUMBER, b"\x0242", END])).await.unwrap();
        client.execute("ANALYZE TABLE t").await.unwrap();

        server.write_all(&framed(1, &[DUPLICATE])).await.unwrap();
        let error = client.doing("test").execute("INSERT INTO t VALUES (1)").await.unwrap_err();
        assert_eq!((error.kind, number(&error)), (ErrorKind::Refused, Some(1062)));
        assert_eq!(error.to_string(), "could not test: server test, statement INSERT INTO t VALUES (1)");
        // Between rows too, and the session goes on.
        server.write_all(&framed(1, &[b"\x01", NUMBER, b"\x0242", DUPLICATE])).await.unwrap();
        assert_eq!(client.query("SELECT n").await.unwrap_err().kind, ErrorKind::Refused);
        server.write_all(&framed(1, &[DONE])).await.unwrap();
        client.execute("DO 1").await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_connection_is_not_the_end() {
        let cases: [&[&[u8]]; 4] = [&[], &[b"\x01"], &[b"\x01", NUMBER], &[b"\x01", NUMBER, b"\x0242"]];
        for bodies in cases {
            let (mut client, mut server) = connected();
            server.write_all(&framed(1, bodies)).await.unwrap();
            server.shutdown().await.unwrap();
            let error = client.query("SELECT n").await.unwrap_err();
            assert_eq!((error.kind, error.retry), (ErrorKind::Connect, Retry::Later), "{bodies:?}");
            assert!(!client.is_usable());
        }
    }

    #[tokio::test]
    async fn the_servers_last_words_count() {
        let (mut client, mut server) = connected();
        // Said before the client asked: it has the number that the server's next answer would not have.
        server.write_all(&framed(0, &[KILLED])).await.unwrap();
        let error = client.execute("SELECT 1").await.unwrap_err();
        assert_eq!((error.kind, number(&error)), (ErrorKind::Connect, Some(1927)));
        assert!(!client.is_usable());

        let (mut client, mut server) = connected();
        server.write_all(&framed(0, &[KILLED])).await.unwrap();
        drop(server);
        let error = client.execute("SELECT 1").await.unwrap_err();
        assert_eq!(number(&error), Some(1927));
    }

    #[tokio::test]
    async fn what_is_not_the_protocol_is_noticed() {
        let cases: [(u8, &[&[u8]]); 9] = [
            (2, &[DONE]),
            (1, &[b""]),
            (1, &[b"\x00\x00"]),
            (1, &[b"\xfe\x00\x00"]),
            (1, &[b"\xfd\x00\x00\x01"]),
            (1, &[b"\xfb/etc/passwd"]),
            (1, &[b"\x01", b"\x03def"]),
            (1, &[b"\x01", NUMBER, b"\x0242\x0242"]),
            (1, &[b"\x00\x00\x00\x0a\x00\x00\x00"]),
        ];
        for (first, bodies) in cases {
            let (mut client, mut server) = connected();
            server.write_all(&framed(first, bodies)).await.unwrap();
            let error = client.query("SELECT 1").await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Corrupt, "{bodies:?}");
            assert!(!client.is_usable());
            assert_eq!(client.execute("DO 1").await.unwrap_err().kind, ErrorKind::Connect);
        }
    }

    #[tokio::test]
    async fn an_abandoned_exchange_is_not_taken_up() {
        let (mut client, mut server) = connected();
        let slow = tokio::time::timeout(Duration::from_millis(10), client.execute("SELECT SLEEP(10)")).await;
        assert!(slow.is_err());
        server.write_all(&framed(1, &[DONE])).await.unwrap();
        let error = client.execute("SELECT 1").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not run a statement: server test, because an earlier exchange was not finished"
        );
    }

    #[tokio::test]
    async fn the_log_is_read_through_interruptions() {
        let (mut client, mut server) = connected();
        server.write_all(&framed(1, &[DONE])).await.unwrap();
        client.register_replica(7).await.unwrap();
        assert_eq!(
            sent(&mut server).await,
            b"\x12\x00\x00\x00\x15\x07\x00\x00\x00\0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
        client.dump(7, "b.000001", 4).await.unwrap();
        let command = b"\x13\x00\x00\x00\x12\x04\x00\x00\x00\x00\x00\x07\x00\x00\x00b.000001";
        assert_eq!(sent(&mut server).await, command);

        // The numbers go on through all events, and wrap.
        let events: Vec<Vec<u8>> = (0u16..300).map(|n| [&[0][..], &n.to_le_bytes()[..]].concat()).collect();
        let bodies: Vec<&[u8]> =
            events.iter().map(Vec::as_slice).chain([&b"\xfe\x00\x00\x02\x00"[..]]).collect();
        let script = framed(1, &bodies);
        let (early, late) = script.split_at(script.len() / 2 + 1);
        server.write_all(early).await.unwrap();
        let mut found = Vec::new();
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(10), next_packet(&mut client)).await
        {
            found.push(event.unwrap());
        }
        assert!(client.take_packet().unwrap().is_none());
        server.write_all(late).await.unwrap();
        while let Ok(event) = next_packet(&mut client).await {
            found.push(event);
        }
        assert!(found.iter().map(|event| &event[..]).eq(events.iter().map(|event| &event[1..])));
        assert_eq!(next_packet(&mut client).await.unwrap_err().kind, ErrorKind::Connect);
    }

    #[tokio::test]
    async fn a_refused_dump_says_why() {
        let (mut client, mut server) = connected();
        let lost =
            framed(1, &[b"\xff\xd4\x04#HY000Could not find first log file name in binary log index file"]);
        server.write_all(&lost).await.unwrap();
        client.dump(7, "b.000001", 4).await.unwrap();
        assert_eq!(next_packet(&mut client).await.unwrap_err().kind, ErrorKind::LogLost);
        assert!(!client.is_usable());
    }

    #[tokio::test]
    async fn a_row_may_be_longer_than_a_packet() {
        let (mut client, mut server) = connected();
        let value = vec![b'x'; 20_000_000];
        let mut row = BytesMut::new();
        packet::put_string(&mut row, &value);
        let script = framed(1, &[b"\x01", WORD, &row, END]);
        let (written, rows) = tokio::join!(server.write_all(&script), client.query("SELECT w"));
        written.unwrap();
        assert!(rows.unwrap() == [[Some(Bytes::from(value))]]);
    }
}
