//! COPY: blocks of framed messages out of one server and into another, untouched; and the two-way stream of
//! replication.
//!
//! COPY does not care where its messages begin: a row may be longer than one message, and a message of more
//! than a megabyte is handed out as several, so that a value of any size takes bounded memory.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use connector::{Error, Result};
use postgres_protocol::message::frontend;

use crate::wire::{Client, Frame, READ_BYTES, State, TextRow, rows_of, text_row};

/// Longer messages are handed out in pieces.
const WHOLE_BYTES_MAX: usize = 1024 * 1024;
/// What is smaller is gathered in the buffer, what is larger is written from where it is.
const DIRECT_BYTES: usize = 32 * 1024;
const WRITE_BYTES: usize = 128 * 1024;

const DATA: u8 = b'd';
const HEADER_BYTES: usize = 5;

impl Client {
    /// Starts `COPY … TO STDOUT`. Statements without a result may come before it in the same message, and some after it, of
    /// which one may return a row: see [`Client::row_after_copy`].
    pub(crate) async fn copy_out(&mut self, sql: &str) -> Result<()> {
        self.copy_start(sql, b'H', State::CopyOut).await
    }

    /// Starts `COPY … FROM STDIN`. Statements without a result may come before it in the same message.
    pub(crate) async fn copy_in_start(&mut self, sql: &str) -> Result<()> {
        self.copy_start(sql, b'G', State::CopyIn).await
    }

    /// Starts `START_REPLICATION …`.
    pub(crate) async fn copy_both_start(&mut self, sql: &str) -> Result<()> {
        self.copy_start(sql, b'W', State::CopyBoth).await
    }

    async fn copy_start(&mut self, sql: &str, response: u8, state: State) -> Result<()> {
        self.begin(sql)?;
        frontend::query(sql, &mut self.outgoing).map_err(|error| self.unsendable(error))?;
        self.flush().await?;
        self.done_before_copy = 0;
        let frame = loop {
            match self.receive().await? {
                frame if frame.tag == b'C' => self.done_before_copy += 1,
                frame => break frame,
            }
        };
        if frame.tag == response {
            self.state = state;
            self.copied_rows = 0;
            self.row_after_copy = None;
            self.piece_left = 0;
            return Ok(());
        }
        if frame.tag == b'E' {
            return Err(self.refused_and_over(&frame).await);
        }
        Err(self.malformed(&frame))
    }

    /// The next block of whole CopyData messages, back to back, each with its header; `None` after the server
    /// has said that the data is complete. Safe to drop.
    pub(crate) async fn copy_out_next(&mut self) -> Result<Option<Bytes>> {
        if self.state == State::Ready {
            return Ok(None);
        }
        if self.state != State::CopyOut {
            return Err(self.out_of_step("no COPY is running"));
        }
        loop {
            if let Some(block) = self.block()? {
                return Ok(Some(block));
            }
            if self.piece_left > 0 || matches!(self.incoming.first(), None | Some(&DATA)) {
                self.fill().await?;
                continue;
            }
            match self.pop()? {
                None => self.fill().await?,
                Some(frame) => match frame.tag {
                    b'c' | b'T' => {}
                    b'C' if frame.body.starts_with(b"COPY ") => self.copied_rows = rows_of(&frame.body),
                    b'C' => {}
                    b'D' => {
                        let row = text_row(&frame.body).ok_or_else(|| self.malformed(&frame))?;
                        self.row_after_copy = Some(row);
                    }
                    b'Z' => {
                        self.ended(&frame);
                        return Ok(None);
                    }
                    b'E' => return Err(self.refused_and_over(&frame).await),
                    _ if self.aside(&frame) => {}
                    _ => return Err(self.malformed(&frame)),
                },
            }
        }
    }

    /// Rows of the last COPY as the server counted them.
    pub(crate) fn copied_rows(&self) -> u64 {
        self.copied_rows
    }

    /// The row that a statement behind the last COPY returned.
    pub(crate) fn row_after_copy(&mut self) -> Option<TextRow> {
        self.row_after_copy.take()
    }

    /// How many statements in front of the last COPY have succeeded.
    pub(crate) fn done_before_copy(&self) -> usize {
        self.done_before_copy
    }

    /// What is here of CopyData, if it is worth handing out.
    fn block(&mut self) -> Result<Option<Bytes>> {
        if self.piece_left > 0 {
            return Ok(self.piece());
        }
        let mut end = 0;
        while self.incoming.get(end) == Some(&DATA)
            && let Some(bytes) = self.length_at(end)?
            && end + bytes <= self.incoming.len()
        {
            end += bytes;
        }
        if end > 0 {
            return Ok(Some(self.incoming.split_to(end).freeze()));
        }
        if self.incoming.first() == Some(&DATA)
            && let Some(bytes) = self.length_at(0)?
            && bytes > WHOLE_BYTES_MAX
        {
            self.incoming.advance(HEADER_BYTES);
            self.piece_left = bytes - HEADER_BYTES;
            return Ok(self.piece());
        }
        Ok(None)
    }

    /// A part of a long message, as a message of its own.
    fn piece(&mut self) -> Option<Bytes> {
        let bytes = self.piece_left.min(self.incoming.len());
        if bytes < self.piece_left.min(READ_BYTES / 4) {
            return None;
        }
        let mut piece = BytesMut::with_capacity(HEADER_BYTES + bytes);
        put_header(&mut piece, bytes);
        piece.extend_from_slice(&self.incoming[..bytes]);
        self.incoming.advance(bytes);
        self.piece_left -= bytes;
        Some(piece.freeze())
    }

    /// Passes framed CopyData messages on as they are. An error of the server that has come by now is returned
    /// instead of a broken pipe later; the copy is over then.
    pub(crate) async fn copy_in_raw(&mut self, framed: &[u8]) -> Result<()> {
        if self.state != State::CopyIn {
            return Err(self.out_of_step("no COPY is running"));
        }
        if framed.len() < DIRECT_BYTES {
            self.outgoing.extend_from_slice(framed);
            return self.copy_in_spill().await;
        }
        // A part may be gone when this is dropped; then nothing can be added to it.
        self.state = State::Busy;
        self.send(framed).await?;
        self.state = State::CopyIn;
        self.copy_in_check().await
    }

    /// Sends data that is not framed yet.
    pub(crate) async fn copy_in_data(&mut self, payload: &[u8]) -> Result<()> {
        if self.state != State::CopyIn {
            return Err(self.out_of_step("no COPY is running"));
        }
        for piece in payload.chunks(WHOLE_BYTES_MAX) {
            put_header(&mut self.outgoing, piece.len());
            self.outgoing.extend_from_slice(piece);
            self.copy_in_spill().await?;
        }
        Ok(())
    }

    async fn copy_in_spill(&mut self) -> Result<()> {
        if self.outgoing.len() < WRITE_BYTES {
            return Ok(());
        }
        self.flush().await?;
        self.copy_in_check().await
    }

    /// Looks whether the server has refused something, without waiting.
    async fn copy_in_check(&mut self) -> Result<()> {
        self.fill_ready().await?;
        if let Some(frame) = self.take()? {
            return Err(match frame.tag {
                // The server reads and drops what we have sent beyond the refused row.
                b'E' => self.refused_and_over(&frame).await,
                _ => self.malformed(&frame),
            });
        }
        Ok(())
    }

    /// Ends the data; the rows as the server counted them.
    pub(crate) async fn copy_in_finish(&mut self) -> Result<u64> {
        if self.state != State::CopyIn {
            return Err(self.out_of_step("no COPY is running"));
        }
        self.state = State::Busy;
        frontend::copy_done(&mut self.outgoing);
        self.flush().await?;
        let mut rows = 0;
        self.finish(|frame| {
            if frame.tag == b'C' {
                rows = rows_of(&frame.body);
            }
            Some(())
        })
        .await?;
        self.copied_rows = rows;
        Ok(rows)
    }

    /// Gives the copy up: the server forgets its rows. The transaction, if there is one, has failed.
    pub(crate) async fn copy_in_fail(&mut self, reason: &str) -> Result<()> {
        if self.state != State::CopyIn {
            return Err(self.out_of_step("no COPY is running"));
        }
        self.state = State::Busy;
        frontend::copy_fail(reason, &mut self.outgoing).map_err(|error| self.unsendable(error))?;
        self.flush().await?;
        match self.finish(|_| Some(())).await {
            Err(error) if self.state != State::Ready => Err(error),
            // The server confirms by an error that repeats the reason.
            _ => Ok(()),
        }
    }

    /// The next payload that is here already.
    pub(crate) fn copy_both_take(&mut self) -> Result<Option<Bytes>> {
        if self.state != State::CopyBoth {
            return Err(self.out_of_step("no replication is running"));
        }
        let Some(frame) = self.take()? else { return Ok(None) };
        match frame.tag {
            DATA => Ok(Some(frame.body)),
            b'E' => {
                self.state = State::Busy;
                Err(self.refusal(&frame))
            }
            // A server that shuts down ends the copy in order.
            b'c' | b'C' | b'Z' => {
                self.state = State::Busy;
                Err(self.out_of_step("the server ended the replication"))
            }
            _ => Err(self.malformed(&frame)),
        }
    }

    /// Sends a payload. Safe to drop: the rest goes with the next one.
    pub(crate) async fn copy_both_send(&mut self, payload: &[u8]) -> Result<()> {
        put_header(&mut self.outgoing, payload.len());
        self.outgoing.extend_from_slice(payload);
        self.flush().await
    }

    /// Ends the replication. Returns when the server has read all that was sent to it, and has ended it as well.
    pub(crate) async fn copy_both_end(&mut self) -> Result<()> {
        frontend::copy_done(&mut self.outgoing);
        self.flush().await?;
        self.state = State::Busy;
        self.finish(|_| Some(())).await
    }

    /// An error inside COPY: reads to the end of the exchange, so that the connection can be used again.
    async fn refused_and_over(&mut self, frame: &Frame) -> Error {
        let refusal = self.refusal(frame);
        self.state = State::Busy;
        self.outgoing.clear();
        match self.finish(|_| Some(())).await {
            Ok(()) => {}
            // The refusal says why; that the connection is gone as well shows in its state.
            Err(error) => tracing::debug!(%error, "after a refused COPY"),
        }
        refusal
    }
}

/// What is in the messages of a block that [`Client::copy_out_next`] has handed out.
pub(crate) fn payloads(mut block: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        if block.is_empty() {
            return None;
        }
        block.advance(1);
        // The length counts itself.
        let bytes = block.get_u32() as usize - 4;
        Some(block.split_to(bytes))
    })
}

fn put_header(out: &mut BytesMut, payload: usize) {
    out.put_u8(DATA);
    // Payloads are at most WHOLE_BYTES_MAX, or what a READ_BYTES buffer held.
    out.put_u32((payload + 4) as u32);
}
