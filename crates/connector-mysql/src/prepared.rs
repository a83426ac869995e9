//! Statements with parameters: prepared once, executed for their rows. `pipeline` has the executions without rows, `bulk`
//! those for many rows of parameters.
//!
//! <https://mariadb.com/kb/en/com_stmt_execute/>, <https://mariadb.com/kb/en/resultset-row/>.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use connector::Result;

use crate::packet::{self, Column, Cursor, put_integer, put_string};
use crate::wire::{Answer, Client, State};

const COM_STMT_PREPARE: u8 = 0x16;
const COM_STMT_EXECUTE: u8 = 0x17;
const COM_STMT_CLOSE: u8 = 0x19;

/// A statement that the server has prepared for this session. Dropping it does not close it.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) id: u32,
    pub(crate) parameters: u16,
    /// Its beginning, for errors.
    pub(crate) sql: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Param<'a> {
    Null,
    Integer(i64),
    Unsigned(u64),
    Real(f64),
    /// A decimal number in digits: beside a column it is compared as one, where text would be compared as a floating point
    /// number.
    Decimal(&'a [u8]),
    /// Text, in the session's character set.
    Bytes(&'a [u8]),
    /// Bytes without a character set.
    Blob(&'a [u8]),
    /// The same, as pairs of hexadecimal digits.
    Hex(&'a [[u8; 2]]),
}

impl Param<'_> {
    /// The type, and whether it is unsigned.
    pub(crate) fn types(&self) -> [u8; 2] {
        match self {
            Param::Null => [0x06, 0],
            Param::Integer(_) => [0x08, 0],
            Param::Unsigned(_) => [0x08, 0x80],
            Param::Real(_) => [0x05, 0],
            Param::Decimal(_) => [0xf6, 0],
            Param::Bytes(_) => [0xfd, 0],
            Param::Blob(_) | Param::Hex(_) => [0xfc, 0],
        }
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        match self {
            Param::Null => {}
            Param::Integer(integer) => out.put_i64_le(*integer),
            Param::Unsigned(integer) => out.put_u64_le(*integer),
            Param::Real(real) => out.put_f64_le(*real),
            Param::Decimal(bytes) | Param::Bytes(bytes) | Param::Blob(bytes) => put_string(out, bytes),
            Param::Hex(pairs) => {
                put_integer(out, pairs.len() as u64);
                out.extend(pairs.iter().map(|pair| byte(*pair)));
            }
        }
    }
}

/// What a pair of hexadecimal digits stands for.
pub(crate) fn byte([high, low]: [u8; 2]) -> u8 {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a' - 10) & 15,
    };
    digit(high) << 4 | digit(low)
}

/// How long a value is in a row of the binary protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Fixed(usize),
    /// Behind its length; that of a time or a date is one byte, which reads the same.
    Counted,
}

impl Width {
    fn of(type_byte: u8) -> Option<Width> {
        Some(match type_byte {
            // NULL
            0x06 => Width::Fixed(0),
            // TINY
            0x01 => Width::Fixed(1),
            // SHORT, YEAR
            0x02 | 0x0d => Width::Fixed(2),
            // LONG, FLOAT, INT24
            0x03 | 0x04 | 0x09 => Width::Fixed(4),
            // DOUBLE, LONGLONG
            0x05 | 0x08 => Width::Fixed(8),
            // TIMESTAMP, DATE, TIME, DATETIME
            0x07 | 0x0a | 0x0b | 0x0c => Width::Counted,
            // DECIMAL, VARCHAR, BIT; from 242: VECTOR, JSON, NEWDECIMAL, ENUM, SET, four BLOBs, VAR_STRING, STRING, GEOMETRY
            0x00 | 0x0f | 0x10 | 0xf2 | 0xf5..=0xff => Width::Counted,
            _ => return None,
        })
    }
}

impl Client {
    pub(crate) async fn prepare(&mut self, sql: &str) -> Result<Statement> {
        self.begin(sql)?;
        self.command(COM_STMT_PREPARE, |out| out.put_slice(sql.as_bytes()))?;
        self.flush().await?;
        let body = self.reply().await?;
        let (id, columns, parameters) =
            prepared(&body).ok_or_else(|| self.malformed("a prepared statement", &body))?;
        self.definitions(parameters).await?;
        // They are said again with each execution.
        self.definitions(columns).await?;
        self.state = State::Ready;
        Ok(Statement { id, parameters, sql: sql.chars().take(200).collect::<String>().into() })
    }

    /// Lets the server forget the statement: with the next exchange, for it does not answer.
    pub(crate) fn close(&mut self, statement: Statement) -> Result<()> {
        if self.state != State::Ready {
            return Err(self.out_of_step("an earlier exchange was not finished"));
        }
        self.command(COM_STMT_CLOSE, |out| out.put_u32_le(statement.id))
    }

    /// Runs a statement that returns rows, to be read with [`Client::next_row`]. Its columns, as they are now.
    pub(crate) async fn rows(&mut self, statement: &Statement, params: &[Param<'_>]) -> Result<Vec<Column>> {
        self.begin(&statement.sql)?;
        self.put_execute(statement, params)?;
        self.flush().await?;
        let columns = match self.answer().await? {
            Answer::Columns(columns) => columns,
            Answer::Done(_) | Answer::Infile => return Err(self.broken("the statement returns no rows")),
        };
        self.widths.clear();
        for column in &columns {
            let width = Width::of(column.type_byte).ok_or_else(|| {
                self.broken(format_args!(
                    "column {} is of the unknown type {}",
                    column.name, column.type_byte
                ))
            })?;
            self.widths.push(width);
        }
        self.state = State::Rows;
        Ok(columns)
    }

    /// Puts the values of the next row into `row`: as they are in the binary protocol, without what gives their length.
    /// False after the last row, which only the server's word for it makes the last. Safe to drop.
    pub(crate) async fn next_row(&mut self, row: &mut Vec<Option<Bytes>>) -> Result<bool> {
        row.clear();
        if self.state != State::Rows {
            return Err(self.out_of_step("no rows are being read"));
        }
        match self.row().await? {
            ControlFlow::Continue(body) => {
                let expected = "a row of the columns that were announced";
                binary_row(&body, &self.widths, row).ok_or_else(|| self.malformed(expected, &body))?;
                Ok(true)
            }
            ControlFlow::Break(_) => Ok(false),
        }
    }

    pub(crate) fn put_execute(&mut self, statement: &Statement, params: &[Param<'_>]) -> Result<()> {
        if params.len() != usize::from(statement.parameters) {
            let why = format!("{} values for {} parameters", params.len(), statement.parameters);
            return Err(self.unsendable(why).with("statement", &statement.sql));
        }
        self.command(COM_STMT_EXECUTE, |out| {
            out.put_u32_le(statement.id);
            // No cursor: the rows come without being asked for.
            out.put_u8(0);
            // Iterations, of which there is always one.
            out.put_u32_le(1);
            if !params.is_empty() {
                put_params(out, params);
            }
        })
    }
}

/// Id, columns and parameters.
fn prepared(body: &Bytes) -> Option<(u32, u16, u16)> {
    let mut cursor = Cursor::new(body);
    cursor.u8().filter(|byte| *byte == packet::OK)?;
    Some((cursor.u32()?, cursor.u16()?, cursor.u16()?))
}

fn put_params(out: &mut BytesMut, params: &[Param<'_>]) {
    for eight in params.chunks(8) {
        let nulls = eight.iter().enumerate();
        out.put_u8(nulls.fold(0, |bits, (at, param)| bits | u8::from(*param == Param::Null) << at));
    }
    // The types are said each time: they may be others than last time.
    out.put_u8(1);
    params.iter().for_each(|param| out.put_slice(&param.types()));
    params.iter().for_each(|param| param.put(out));
}

fn binary_row(body: &Bytes, widths: &[Width], row: &mut Vec<Option<Bytes>>) -> Option<()> {
    let mut cursor = Cursor::new(body);
    cursor.u8().filter(|byte| *byte == packet::OK)?;
    // The first two bits are nobody's.
    let nulls = cursor.take((widths.len() + 2).div_ceil(8))?;
    for (bit, width) in (2..).zip(widths) {
        let byte = *nulls.get(bit / 8)?;
        let is_null = (byte >> (bit % 8)) & 1 == 1;
        row.push(match width {
            _ if is_null => None,
            Width::Fixed(bytes) => Some(cursor.take(*bytes)?),
            Width::Counted => Some(cursor.string()?),
        });
    }
    // What is left over was no row.
    cursor.is_at_end().then_some(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use connector::ErrorKind;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::wire::tests::{DONE, END, NUMBER, WORD, connected, framed, sent};

    pub(crate) fn insert() -> Statement {
        Statement { id: 5, parameters: 1, sql: "INSERT INTO t VALUES (?)".into() }
    }

    #[tokio::test]
    async fn rows_come_one_by_one() {
        for deprecates_eof in [true, false] {
            let (mut client, mut server) = connected();
            client.deprecates_eof = deprecates_eof;
            let eof: &[u8] = b"\xfe\x00\x00\x02\x00";
            let head = b"\x00\x05\x00\x00\x00\x02\x00\x01\x00\x00\x00\x00";
            let script = match deprecates_eof {
                true => framed(1, &[head, WORD, NUMBER, WORD]),
                false => framed(1, &[head, WORD, eof, NUMBER, WORD, eof]),
            };
            server.write_all(&script).await.unwrap();
            let statement = client.prepare("SELECT n, w FROM t WHERE w = ?").await.unwrap();
            assert_eq!((statement.id, statement.parameters), (5, 1));
            assert!(client.is_usable());
            sent(&mut server).await;

            let (full, empty) = (b"\x00\x00\x2a\x00\x00\x00\x02ok", b"\x00\x0c");
            let script = match deprecates_eof {
                true => framed(1, &[b"\x02", NUMBER, WORD, full, empty, END]),
                false => framed(1, &[b"\x02", NUMBER, WORD, eof, full, empty, eof]),
            };
            let (early, late) = script.split_at(script.len() - 8);
            server.write_all(early).await.unwrap();
            let columns = client.rows(&statement, &[Param::Bytes(b"ok")]).await.unwrap();
            assert_eq!(columns.len(), 2);
            let execute = b"\x11\x00\x00\x00\x17\x05\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\xfd\x00\x02ok";
            assert_eq!(sent(&mut server).await, execute);

            let mut row = Vec::new();
            assert!(client.next_row(&mut row).await.unwrap());
            let number = Bytes::from_static(&[42, 0, 0, 0]);
            assert_eq!(row, [Some(number), Some(Bytes::from_static(b"ok"))]);
            assert_eq!(client.execute("DO 1").await.unwrap_err().kind, ErrorKind::Connect);
            let mut found = Vec::new();
            loop {
                match tokio::time::timeout(Duration::from_millis(10), client.next_row(&mut row)).await {
                    Ok(Ok(true)) => found.push(row.clone()),
                    Ok(Ok(false)) => break,
                    Ok(Err(error)) => panic!("{error}"),
                    // Dropped in the middle of a message, and called again.
                    Err(_) => server.write_all(late).await.unwrap(),
                }
            }
            assert_eq!(found, [vec![None, None]]);
            assert!(client.is_usable());
            assert_eq!(client.next_row(&mut row).await.unwrap_err().kind, ErrorKind::Connect);
        }
    }

    #[tokio::test]
    async fn a_lost_connection_is_not_the_last_row() {
        let (mut client, mut server) = connected();
        server.write_all(&framed(1, &[b"\x01", NUMBER, b"\x00\x00\x2a\x00\x00\x00"])).await.unwrap();
        server.shutdown().await.unwrap();
        let select = Statement { parameters: 0, ..insert() };
        client.rows(&select, &[]).await.unwrap();
        let mut row = Vec::new();
        assert!(client.next_row(&mut row).await.unwrap());
        assert_eq!(client.next_row(&mut row).await.unwrap_err().kind, ErrorKind::Connect);
        assert!(!client.is_usable());
    }

    #[test]
    fn params_are_written() {
        let mut out = BytesMut::new();
        put_params(
            &mut out,
            &[
                Param::Null,
                Param::Integer(-2),
                Param::Unsigned(u64::MAX),
                Param::Real(1.0),
                Param::Integer(7),
                Param::Bytes(b"a"),
                Param::Blob(b""),
                Param::Null,
                Param::Null,
                Param::Decimal(b"-1.50"),
                Param::Hex(&[*b"00", *b"fF", *b"a9"]),
            ],
        );
        let expected = [
            &b"\x81\x01\x01"[..],
            b"\x06\x00\x08\x00\x08\x80\x05\x00\x08\x00\xfd\x00\xfc\x00\x06\x00\x06\x00\xf6\x00\xfc\x00",
            b"\xfe\xff\xff\xff\xff\xff\xff\xff",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x00\x00\x00\x00\x00\x00\xf0\x3f",
            b"\x07\x00\x00\x00\x00\x00\x00\x00",
            b"\x01a\x00\x05-1.50\x03\x00\xff\xa9",
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn values_have_a_width() {
        let widths = [Width::Fixed(1), Width::Counted, Width::Counted, Width::Fixed(8), Width::Fixed(2)];
        // TINY 1, DATE 2024-02-29, a TIME of zero (no bytes), NULL, YEAR 2024.
        let body = Bytes::from_static(b"\x00\x20\x01\x04\xe8\x07\x02\x1d\x00\xe8\x07");
        let mut row = Vec::new();
        assert_eq!(binary_row(&body, &widths, &mut row), Some(()));
        let cell = |bytes: &'static [u8]| Some(Bytes::from_static(bytes));
        assert_eq!(row, [cell(b"\x01"), cell(b"\xe8\x07\x02\x1d"), cell(b""), None, cell(b"\xe8\x07")]);
        for cut in 0..body.len() {
            assert_eq!(binary_row(&body.slice(..cut), &widths, &mut Vec::new()), None, "{cut}");
        }
        for wrong in [0, 1, 4] {
            assert_eq!(binary_row(&body, &widths[..wrong], &mut Vec::new()), None, "{wrong}");
        }
        assert_eq!(Width::of(0x11), None);
    }

    #[tokio::test]
    async fn an_unknown_type_is_named() {
        let (mut client, mut server) = connected();
        let mut column = NUMBER.to_vec();
        let at = column.len() - 6;
        column[at] = 0x11;
        server.write_all(&framed(1, &[b"\x01", &column])).await.unwrap();
        let select = Statement { parameters: 0, ..insert() };
        let error = client.rows(&select, &[]).await.unwrap_err();
        assert!(error.to_string().contains("column n is of the unknown type 17"), "{error}");
        assert!(!client.is_usable());
    }

    #[tokio::test]
    async fn a_closed_statement_goes_with_the_next_exchange() {
        let (mut client, mut server) = connected();
        client.close(insert()).unwrap();
        server.write_all(&framed(1, &[DONE])).await.unwrap();
        client.execute("DO 1").await.unwrap();
        assert_eq!(sent(&mut server).await, b"\x05\x00\x00\x00\x19\x05\x00\x00\x00\x05\x00\x00\x00\x03DO 1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_row_or_not(
            body in proptest::collection::vec(any::<u8>(), 0..60),
            types in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let body = Bytes::from(body);
            prepared(&body);
            let widths: Vec<Width> = types.into_iter().filter_map(Width::of).collect();
            let mut row = Vec::new();
            if binary_row(&body, &widths, &mut row).is_some() {
                prop_assert_eq!(row.len(), widths.len());
            }
        }
    }
}
