//! Lines of COPY text as rows of values, for a target that is not PostgreSQL.
//!
//! A cell is what its type's output function wrote, as in the log (`pgoutput`), so a value has the same bytes by both ways.
//! Cells are slices of what was received; only one that holds an escape is copied. No bytes make it panic, and what the
//! server does not write is an error: nothing is guessed.
//!
//! Where a message ends says nothing here. To the server a message is a row, but long ones come in pieces (`copy`).

use bytes::{BufMut, Bytes, BytesMut};
use model::{Row, Value};

use crate::copy;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the data ends inside a line")]
    Torn,
    #[error("a line has not as many cells as the table has stored columns")]
    Width,
    #[error("a backslash is followed by byte {0:#04x}")]
    Escape(u8),
}

/// The lines of one COPY.
pub(crate) struct Lines {
    /// Generated columns are not in the lines.
    generated: Vec<bool>,
    /// A line that has not come to its end.
    torn: BytesMut,
}

impl Lines {
    /// `generated` says of each of the table's columns whether it is.
    pub(crate) fn new(generated: Vec<bool>) -> Lines {
        Lines { generated, torn: BytesMut::new() }
    }

    /// The rows that end in a block of framed messages.
    pub(crate) fn rows(&mut self, block: Bytes) -> Result<Vec<Row>, Malformed> {
        let mut rows = Vec::new();
        copy::payloads(block).try_for_each(|data| self.read(data, &mut rows))?;
        Ok(rows)
    }

    /// Refuses an end inside a line.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.torn.is_empty() { Ok(()) } else { Err(Malformed::Torn) }
    }

    /// Appends the rows that end in this data. A newline always ends one: within a cell the server writes it as `\n`.
    fn read(&mut self, mut data: Bytes, rows: &mut Vec<Row>) -> Result<(), Malformed> {
        let ends = data.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let begun = data.split_off(ends);
        if !data.is_empty() && !self.torn.is_empty() {
            self.torn.extend_from_slice(&data);
            data = std::mem::take(&mut self.torn).freeze();
        }
        let mut at = 0;
        while at < data.len() {
            rows.push(self.row(&data, &mut at)?);
        }
        self.torn.extend_from_slice(&begun);
        Ok(())
    }

    /// The row whose line begins at `at`, which moves to the next line.
    fn row(&self, lines: &Bytes, at: &mut usize) -> Result<Row, Malformed> {
        let mut row = Vec::with_capacity(self.generated.len());
        let mut before = b'\t';
        for &generated in &self.generated {
            if generated {
                row.push(Value::Unchanged);
                continue;
            }
            if before == b'\n' {
                return Err(Malformed::Width);
            }
            let (value, end) = cell(lines, *at)?;
            row.push(value);
            before = lines[end];
            *at = end + 1;
        }
        if before == b'\n' { Ok(row) } else { Err(Malformed::Width) }
    }
}

/// The cell that begins at `from`, and where the byte is that ends it.
fn cell(lines: &Bytes, from: usize) -> Result<(Value, usize), Malformed> {
    let (mut end, mut escapes) = (from, 0);
    loop {
        let rest = lines.get(end..).ok_or(Malformed::Torn)?;
        end += rest.iter().position(|byte| matches!(byte, b'\t' | b'\n' | b'\\')).ok_or(Malformed::Torn)?;
        if lines[end] != b'\\' {
            break;
        }
        escapes += 1;
        end += 2;
    }
    let value = match &lines[from..end] {
        _ if escapes == 0 => Value::Text(lines.slice(from..end)),
        b"\\N" => Value::Null,
        // Each bytea: its text begins with a backslash, and has no other.
        [b'\\', b'\\', ..] if escapes == 1 => Value::Text(lines.slice(from + 1..end)),
        escaped => Value::Text(unescaped(escaped)?),
    };
    Ok((value, end))
}

/// The escapes are those of `CopyAttributeOutText`; every other byte stands for itself.
fn unescaped(mut cell: &[u8]) -> Result<Bytes, Malformed> {
    let mut text = BytesMut::with_capacity(cell.len());
    while let Some(at) = cell.iter().position(|byte| *byte == b'\\') {
        let (plain, escape) = cell.split_at(at);
        text.put_slice(plain);
        text.put_u8(match escape.get(1).ok_or(Malformed::Torn)? {
            b'\\' => b'\\',
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'r' => b'\r',
            other => return Err(Malformed::Escape(*other)),
        });
        cell = &escape[2..];
    }
    text.put_slice(cell);
    Ok(text.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `t` for a stored column, `g` for a generated one.
    fn lines(columns: &str) -> Lines {
        Lines::new(columns.chars().map(|column| column == 'g').collect())
    }

    fn read(columns: &str, data: &'static [u8]) -> Result<Vec<Row>, Malformed> {
        let (mut lines, mut rows) = (lines(columns), Vec::new());
        lines.read(Bytes::from_static(data), &mut rows)?;
        lines.end()?;
        Ok(rows)
    }

    fn text(text: &str) -> Value {
        Value::text(text)
    }

    #[test]
    fn cells() {
        for (line, expected) in [
            (&b"7\n"[..], text("7")),
            (b"\n", text("")),
            (b"\\N\n", Value::Null),
            (b"\\\\N\n", text("\\N")),
            (b"N\n", text("N")),
            (b"a\\bb\\tc\\nd\\ve\\ff\\rg\\\\h\n", text("a\u{8}b\tc\nd\u{b}e\u{c}f\rg\\h")),
            // Control characters without a letter of their own come as they are.
            (b"\x01\x1f\x7f\n", text("\u{1}\u{1f}\u{7f}")),
            (b"\\\\.\n", text("\\.")),
            (b"\\\\x00ff\n", text("\\x00ff")),
            (b"\\\\\\\\\n", text("\\\\")),
            (b"\\\\a\\tb\n", text("\\a\tb")),
            (b"\\tb\n", text("\tb")),
            ("é😀\n".as_bytes(), text("é😀")),
        ] {
            assert_eq!(read("t", line), Ok(vec![vec![expected]]), "{}", line.escape_ascii());
        }
        assert_eq!(read("t", b""), Ok(Vec::new()));
    }

    #[test]
    fn generated_columns_are_not_in_the_line() {
        let row = || vec![Value::Unchanged, text("1"), Value::Unchanged, Value::Null, Value::Unchanged];
        assert_eq!(read("gtgtg", b"1\t\\N\n1\t\\N\n"), Ok(vec![row(), row()]));
    }

    #[test]
    fn what_the_server_does_not_write_is_refused() {
        for (columns, data, expected) in [
            ("tt", &b"1\n"[..], Malformed::Width),
            ("tt", b"1\t2\t3\n", Malformed::Width),
            ("g", b"\n", Malformed::Width),
            ("", b"\n", Malformed::Width),
            ("t", b"1", Malformed::Torn),
            ("t", b"1\n2", Malformed::Torn),
            ("t", b"a\\\n", Malformed::Torn),
            ("t", b"a\\\nb\n", Malformed::Escape(b'\n')),
            ("t", b"a\\Nb\n", Malformed::Escape(b'N')),
            ("t", b"\\.\n", Malformed::Escape(b'.')),
            ("t", b"\\x41\n", Malformed::Escape(b'x')),
            ("t", b"\\101\n", Malformed::Escape(b'1')),
        ] {
            assert_eq!(read(columns, data), Err(expected), "{}", data.escape_ascii());
        }
    }

    #[test]
    fn a_cell_without_escapes_is_not_copied() {
        let data = Bytes::from_static(b"plain\t\\\\x00ff\ta\\tb\n");
        let range = data.as_ptr_range();
        let mut rows = Vec::new();
        lines("ttt").read(data.clone(), &mut rows).unwrap();
        let within = |value: &Value| match value {
            Value::Text(text) => range.contains(&text.as_ptr()),
            _ => panic!("{value:?}"),
        };
        assert_eq!(rows[0].iter().map(within).collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn messages_are_taken_out_of_their_frames() {
        let block = b"d\0\0\0\x061\td\0\0\0\x072\n3d\0\0\0\x04d\0\0\0\x07\t4\n";
        let mut lines = lines("tt");
        let rows = lines.rows(Bytes::from_static(block)).unwrap();
        assert_eq!(rows, [[text("1"), text("2")], [text("3"), text("4")]]);
        assert_eq!(lines.end(), Ok(()));
    }
}
