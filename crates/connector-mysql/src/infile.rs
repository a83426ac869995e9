//! LOAD DATA LOCAL INFILE, with the file's bytes from memory.
//!
//! The end of the file is an empty packet, and the protocol has no other: it also ends a file that was cut short, and the
//! server then keeps what it has (<https://mariadb.com/kb/en/local_infile-packet/>). So a load whose data cannot be had to
//! its end must not be finished: drop the client, and have run the load in a transaction.

use bytes::BufMut;
use connector::Result;

use crate::packet::{self, Done};
use crate::wire::{Answer, Client, State};

/// The server takes no longer packet than its `max_allowed_packet`, of which the smallest default is 1 MB (MySQL 5.5).
const PIECE_BYTES_MAX: usize = 256 * 1024;
/// What is smaller is gathered in the buffer, what is larger is written from where it is.
const DIRECT_BYTES: usize = 32 * 1024;
const WRITE_BYTES: usize = 128 * 1024;

impl Client {
    /// Starts `LOAD DATA LOCAL INFILE …`. The name of the file means nothing.
    pub(crate) async fn load_begin(&mut self, sql: &str) -> Result<()> {
        match self.ask(sql).await? {
            Answer::Infile => {
                self.state = State::Infile;
                Ok(())
            }
            Answer::Done(_) | Answer::Columns(_) => Err(self.broken("the statement asks for no data")),
        }
    }

    /// Sends data; where it is cut does not matter. A refusal that has come by now is returned instead of a broken pipe
    /// later; the connection is of no more use then.
    pub(crate) async fn load_send(&mut self, data: &[u8]) -> Result<()> {
        if self.state != State::Infile {
            return Err(self.out_of_step("no LOAD DATA is running"));
        }
        // A part may be gone when this is dropped; then nothing can be added to it.
        self.state = State::Busy;
        for piece in data.chunks(PIECE_BYTES_MAX) {
            self.load_piece(piece).await?;
        }
        if self.outgoing.is_empty() {
            self.load_check().await?;
        }
        self.state = State::Infile;
        Ok(())
    }

    async fn load_piece(&mut self, piece: &[u8]) -> Result<()> {
        self.outgoing.put_slice(&packet::header(piece.len(), self.sequence));
        self.sequence = self.sequence.wrapping_add(1);
        if piece.len() >= DIRECT_BYTES {
            return self.send(piece).await;
        }
        self.outgoing.put_slice(piece);
        if self.outgoing.len() < WRITE_BYTES { Ok(()) } else { self.flush().await }
    }

    /// Looks whether the server has refused something, without waiting.
    async fn load_check(&mut self) -> Result<()> {
        self.fill_ready().await?;
        match self.take()? {
            None => Ok(()),
            Some(body) if packet::is_error(&body) => Err(self.refusal(&body)),
            Some(body) => Err(self.malformed("nothing before the end of the data", &body)),
        }
    }

    /// Ends the file: everything was sent. What the server made of it is in `affected`, `warnings` and `info`.
    pub(crate) async fn load_finish(&mut self) -> Result<Done> {
        if self.state != State::Infile {
            return Err(self.out_of_step("no LOAD DATA is running"));
        }
        self.state = State::Busy;
        self.say(|_| {}).await?;
        let body = self.reply().await?;
        self.done(&body)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use connector::ErrorKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::error::number;
    use crate::wire::tests::{DONE, DUPLICATE, connected, framed, sent};

    const ASKED: &[u8] = b"\xfbcf";
    const LOADED: &[u8] = b"\x00\x02\x00\x02\x00\x00\x00\x28Records: 2  Deleted: 0  Skipped: 0  Warn";

    #[tokio::test]
    async fn data_is_sent_and_counted() {
        let (mut client, mut server) = connected();
        server.write_all(&framed(1, &[ASKED])).await.unwrap();
        client.load_begin("LOAD DATA").await.unwrap();
        assert_eq!(client.execute("DO 1").await.unwrap_err().kind, ErrorKind::Connect);
        sent(&mut server).await;
        client.load_send(b"1\tx\n").await.unwrap();
        // No data is not the end of the data.
        client.load_send(b"").await.unwrap();
        client.load_send(b"2\ty\n").await.unwrap();
        // Two of the server's messages are one apart from two of ours.
        server.write_all(&framed(5, &[LOADED])).await.unwrap();
        let done = client.load_finish().await.unwrap();
        assert_eq!((done.affected, done.warnings), (2, 0));
        assert_eq!(done.info, "Records: 2  Deleted: 0  Skipped: 0  Warn");
        let expected = b"\x04\x00\x00\x021\tx\n\x04\x00\x00\x032\ty\n\x00\x00\x00\x04";
        assert_eq!(sent(&mut server).await, expected);
        assert!(client.is_usable());
    }

    #[tokio::test]
    async fn large_blocks_keep_their_bytes() {
        let (mut client, mut server) = connected();
        let data: Vec<u8> = (0u8..251).cycle().take(3 * PIECE_BYTES_MAX + 7).collect();
        let server = async {
            server.write_all(&framed(1, &[ASKED])).await.unwrap();
            let mut command = [0; 14];
            server.read_exact(&mut command).await.unwrap();
            let mut received = Vec::new();
            for number in 2.. {
                let mut header = [0; 4];
                server.read_exact(&mut header).await.unwrap();
                let [a, b, c, found] = header;
                assert_eq!(found, number);
                let mut payload = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
                if payload.is_empty() {
                    server.write_all(&framed(number + 1, &[LOADED])).await.unwrap();
                    break;
                }
                server.read_exact(&mut payload).await.unwrap();
                received.extend(payload);
            }
            received
        };
        let load = async {
            client.load_begin("LOAD DATA").await.unwrap();
            client.load_send(&data).await.unwrap();
            client.load_finish().await.unwrap()
        };
        let (received, done) = tokio::join!(server, load);
        assert!(received == data);
        assert_eq!(done.affected, 2);
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_at_the_end_and_before() {
        let (mut client, mut server) = connected();
        server.write_all(&framed(1, &[ASKED])).await.unwrap();
        client.load_begin("LOAD DATA").await.unwrap();
        server.write_all(&framed(3, &[DUPLICATE])).await.unwrap();
        assert_eq!(number(&client.load_finish().await.unwrap_err()), Some(1062));
        assert!(client.is_usable());

        server.write_all(&framed(1, &[ASKED])).await.unwrap();
        client.load_begin("LOAD DATA").await.unwrap();
        server.write_all(&framed(2, &[DUPLICATE])).await.unwrap();
        // Until the socket is known to be readable.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let error = client.load_send(&[b'x'; DIRECT_BYTES]).await.unwrap_err();
        assert_eq!(number(&error), Some(1062));
        assert!(!client.is_usable());
        assert_eq!(client.load_finish().await.unwrap_err().kind, ErrorKind::Connect);
    }

    #[tokio::test]
    async fn a_statement_that_loads_nothing_is_noticed() {
        let (mut client, mut server) = connected();
        server.write_all(&framed(1, &[DONE])).await.unwrap();
        assert_eq!(client.load_begin("DELETE FROM t").await.unwrap_err().kind, ErrorKind::Corrupt);
        assert_eq!(client.load_send(b"x").await.unwrap_err().kind, ErrorKind::Connect);
        assert_eq!(client.load_finish().await.unwrap_err().kind, ErrorKind::Connect);
    }
}
