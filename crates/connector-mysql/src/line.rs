//! A row as one line of LOAD DATA's file, in the bytes that the server stores. Nothing is allocated for a cell.
//!
//! The file is in utf8mb4, so that the server converts text into the charset of its column and refuses what has no place there.
//! It takes bytes of binary columns as they are, be they UTF-8 or not (MariaDB's `READ_INFO::read_mbtail` gives back
//! what does not continue a character). MySQL checks every field against the file's charset.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};

use crate::column_type::ColumnType;
use crate::prepared::{Param, byte};

/// How fields and lines end, as part of the statement.
pub(crate) const FORMAT: &str =
    r"CHARACTER SET utf8mb4 FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n'";

/// Appends the line of a row, which has a cell for each of these columns.
pub(crate) fn put<'a>(
    out: &mut BytesMut,
    columns: impl IntoIterator<Item = &'a ColumnType>,
    cells: &[Param<'_>],
) {
    for (place, (column, cell)) in columns.into_iter().zip(cells).enumerate() {
        if place > 0 {
            out.put_u8(b'\t');
        }
        field(out, column, cell);
    }
    out.put_u8(b'\n');
}

fn field(out: &mut BytesMut, column: &ColumnType, cell: &Param<'_>) {
    match (cell, column) {
        (Param::Null, _) => out.put_slice(b"\\N"),
        // A text is not read as a number here: '7' would be the byte 0x37.
        (Param::Integer(integer), ColumnType::Bit { .. }) => escaped(out, &integer.to_be_bytes()),
        (Param::Unsigned(integer), ColumnType::Bit { .. }) => escaped(out, &integer.to_be_bytes()),
        // The text '0' is the year 2000.
        (Param::Integer(year), ColumnType::Year) => digits(out, format_args!("{year:04}")),
        (Param::Integer(integer), _) => digits(out, format_args!("{integer}")),
        (Param::Unsigned(integer), _) => digits(out, format_args!("{integer}")),
        // The shortest digits that are read as the same number.
        (Param::Real(real), _) => digits(out, format_args!("{real:e}")),
        (Param::Decimal(text), _) => out.put_slice(text),
        (Param::Bytes(bytes) | Param::Blob(bytes), _) => escaped(out, bytes),
        (Param::Hex(pairs), _) => pairs.iter().for_each(|pair| escaped(out, &[byte(*pair)])),
    }
}

fn digits(out: &mut BytesMut, digits: std::fmt::Arguments<'_>) {
    // Writing into memory does not fail.
    let _ = out.write_fmt(digits);
}

fn escaped(out: &mut BytesMut, bytes: &[u8]) {
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escaped = match byte {
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\t' => b't',
            _ => continue,
        };
        out.put_slice(&bytes[from..at]);
        out.put_slice(&[b'\\', escaped]);
        from = at + 1;
    }
    out.put_slice(&bytes[from..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charset::Charset;
    use crate::column_type::Width;

    fn line(cells: &[(ColumnType, Param<'_>)]) -> Vec<u8> {
        let (columns, cells): (Vec<_>, Vec<_>) = cells.iter().cloned().unzip();
        let mut out = BytesMut::new();
        put(&mut out, &columns, &cells);
        out.to_vec()
    }

    #[test]
    fn what_would_end_a_field_is_escaped() {
        let text = || ColumnType::Text { charset: Charset::Utf8 };
        for (cell, expected) in [
            (Param::Null, &b"\\N"[..]),
            (Param::Bytes(b""), b""),
            (Param::Bytes(b"\\N"), b"\\\\N"),
            (Param::Bytes(b"a\tb\nc\r\\\0\"'"), b"a\\tb\\nc\r\\\\\0\"'"),
            (Param::Blob(b"\t\xc3\n\xf0\\"), b"\\t\xc3\\n\xf0\\\\"),
            (Param::Hex(&[*b"00", *b"09", *b"5C", *b"ff"]), b"\0\\t\\\\\xff"),
        ] {
            let both = line(&[(text(), cell), (ColumnType::Blob, cell)]);
            assert_eq!(both, [expected, b"\t", expected, b"\n"].concat(), "{cell:?}");
        }
    }

    #[test]
    fn numbers_are_read_as_they_were() {
        let big = || ColumnType::Integer { width: Width::Big, unsigned: true };
        let bits = || ColumnType::Bit { bits: 64 };
        for (column, cell, expected) in [
            (big(), Param::Integer(i64::MIN), &b"-9223372036854775808"[..]),
            (big(), Param::Unsigned(u64::MAX), b"18446744073709551615"),
            (bits(), Param::Integer(9), b"\0\0\0\0\0\0\0\\t"),
            (bits(), Param::Unsigned(0xffff_ffff_ffff_ff5c), b"\xff\xff\xff\xff\xff\xff\xff\\\\"),
            (ColumnType::Year, Param::Integer(0), b"0000"),
            (ColumnType::Year, Param::Integer(2024), b"2024"),
            (ColumnType::Decimal { precision: 5, scale: 2 }, Param::Decimal(b"-1.50"), b"-1.50"),
            (ColumnType::Double, Param::Real(5e-324), b"5e-324"),
            (ColumnType::Double, Param::Real(f64::MAX), b"1.7976931348623157e308"),
            (ColumnType::Float, Param::Real(f64::from(0.1_f32)), b"1.0000000149011612e-1"),
        ] {
            assert_eq!(line(&[(column, cell)]), [expected, b"\n"].concat());
        }
    }
}
