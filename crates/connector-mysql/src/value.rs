//! One cell to the model's [`Value`], from the two forms in which a source hands it out: a cell of the binary protocol
//! ([`from_binary`]), as the copy reads it, and a cell of a row event ([`from_log`]), as the stream does.
//!
//! Both give the same value for the same stored one: the merge compares keys that came by either path. All that is known of a
//! column comes from the catalog ([`ColumnType`]).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use bytes::Bytes;
use connector::{Error, ErrorKind};
use model::Value;

use crate::charset::{Charset, Invalid};
use crate::column_type::{ColumnType, Width};
use crate::{decimal, temporal};

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("{what} needs {expected} bytes, and {found} are left")]
    Short { what: &'static str, expected: usize, found: usize },
    #[error("{what} cannot be {found}")]
    Malformed { what: &'static str, found: String },
    /// The catalog is not, or not any more, what the log was written by.
    #[error("the column is {declared} in the catalog, and {logged} in the log")]
    Differs { declared: String, logged: String },
    #[error("the catalog has no label for {found}")]
    Label { found: String },
    #[error("{0} cannot be read from the log")]
    Unsupported(String),
    #[error(transparent)]
    Charset(#[from] Invalid),
}

impl DecodeError {
    pub(crate) fn malformed(what: &'static str, found: impl fmt::Display) -> DecodeError {
        DecodeError::Malformed { what, found: found.to_string() }
    }

    /// For the connector's edge; the caller adds the table and the column.
    pub(crate) fn into_error(self, operation: &'static str) -> Error {
        let (kind, hint) = match &self {
            DecodeError::Short { .. } | DecodeError::Malformed { .. } => (ErrorKind::Corrupt, None),
            DecodeError::Differs { .. } | DecodeError::Label { .. } => (
                ErrorKind::Schema,
                Some(
                    "was the column altered while the migration ran? A value without a label, and one whose label has characters \
                     beyond U+FFFF, cannot be carried over: the server does not tell them",
                ),
            ),
            DecodeError::Unsupported(_) => (
                ErrorKind::Schema,
                Some("change the column on the source to a type that can be read, or leave the table out"),
            ),
            DecodeError::Charset(_) => (
                ErrorKind::Refused,
                Some(
                    "the column holds bytes that its charset does not know: correct them on the source, or make the column \
                     VARBINARY or BLOB there, to have its bytes carried over as they are",
                ),
            ),
        };
        let error = Error::new(kind, operation);
        match hint {
            Some(hint) => error.hint(hint).source(self),
            None => error.source(self),
        }
    }
}

/// A cell of a row that COM_STMT_EXECUTE returned, without its length; `None` is NULL. The session has
/// `character_set_results=NULL`, so that text comes in the column's own charset, and `time_zone='+00:00'`.
pub(crate) fn from_binary(column_type: &ColumnType, cell: Option<Bytes>) -> Result<Value, DecodeError> {
    let Some(cell) = cell else { return Ok(Value::Null) };
    match column_type {
        ColumnType::Integer { width, unsigned } => {
            all(&cell, |cells| integer(cells, binary_bytes(*width), *width, *unsigned))
        }
        ColumnType::Year => {
            all(&cell, |cells| Ok(Value::Integer(i64::from(u16::from_le_bytes(array(cells, "a YEAR")?)))))
        }
        ColumnType::Decimal { scale, .. } => decimal::from_text(&cell, *scale).map(Value::text),
        ColumnType::Float => all(&cell, float),
        ColumnType::Double => all(&cell, double),
        ColumnType::Bit { bits } => all(&cell, |cells| bit(cells, *bits)),
        ColumnType::Char { charset }
        | ColumnType::VarChar { charset }
        | ColumnType::Text { charset }
        | ColumnType::JsonText { charset } => text(charset, cell),
        ColumnType::Binary { length } => padded(cell, usize::from(*length)).map(Value::Blob),
        ColumnType::VarBinary | ColumnType::Blob | ColumnType::Geometry | ColumnType::Vector => {
            Ok(Value::Blob(cell))
        }
        ColumnType::Date => temporal::date_from_binary(&cell).map(Value::text),
        ColumnType::DateTime { fraction } => {
            temporal::datetime_from_binary(&cell, *fraction).map(Value::text)
        }
        ColumnType::Timestamp { fraction } => {
            temporal::timestamp_from_binary(&cell, *fraction).map(Value::text)
        }
        ColumnType::Time { fraction } => temporal::time_from_binary(&cell, *fraction).map(Value::text),
        ColumnType::Enum { charset, labels } => known(charset.decode(cell)?, |text| has(labels, text)),
        ColumnType::Set { charset, labels } => known(charset.decode(cell)?, |text| {
            text.split(|byte| *byte == b',').all(|part| has(labels, part))
        }),
        ColumnType::Json => text(&Charset::Utf8, cell),
        ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => text(&Charset::Ascii, cell),
    }
}

/// Takes the next cell of a row event, which is not NULL. `type_byte` and `metadata` are the table map's for this column; of two
/// bytes of metadata the first is the high one for STRING and NEWDECIMAL, and the low one for VARCHAR and BIT, as in the
/// server's `table_def` (sql/rpl_utility.cc).
pub(crate) fn from_log(
    column_type: &ColumnType,
    type_byte: u8,
    metadata: u16,
    cells: &mut &[u8],
) -> Result<Value, DecodeError> {
    if !fits(column_type, type_byte, metadata) {
        let logged = log_type::name(type_byte, metadata);
        return Err(DecodeError::Differs { declared: column_type.to_string(), logged });
    }
    match column_type {
        ColumnType::Integer { width, unsigned } => integer(cells, log_bytes(*width), *width, *unsigned),
        ColumnType::Year => year(cells),
        ColumnType::Decimal { precision, scale } => {
            decimal::from_log(cells, *precision, *scale).map(Value::text)
        }
        ColumnType::Float => float(cells),
        ColumnType::Double => double(cells),
        ColumnType::Bit { bits } => bit(cells, *bits),
        ColumnType::Char { charset } => text(charset, string(cells, log_type::string_length(metadata))?),
        ColumnType::VarChar { charset } => text(charset, string(cells, metadata)?),
        ColumnType::Text { charset } | ColumnType::JsonText { charset } => {
            text(charset, blob(cells, metadata)?)
        }
        ColumnType::Binary { length } => {
            let bytes = string(cells, log_type::string_length(metadata))?;
            padded(bytes, usize::from(*length)).map(Value::Blob)
        }
        ColumnType::VarBinary => string(cells, metadata).map(Value::Blob),
        // MariaDB's is a VARBINARY within, MySQL's a BLOB.
        ColumnType::Vector if type_byte == log_type::VARCHAR => string(cells, metadata).map(Value::Blob),
        ColumnType::Vector | ColumnType::Blob | ColumnType::Geometry => {
            blob(cells, metadata).map(Value::Blob)
        }
        ColumnType::Date
        | ColumnType::DateTime { .. }
        | ColumnType::Timestamp { .. }
        | ColumnType::Time { .. } => moment(column_type, type_byte, cells).map(Value::text),
        ColumnType::Enum { labels, .. } => member(cells, usize::from(metadata & 0xff), labels),
        ColumnType::Set { labels, .. } => members(cells, usize::from(metadata & 0xff), labels),
        ColumnType::Json => Err(DecodeError::Unsupported("JSON in MySQL's binary form".to_owned())),
        // In the order of the text, not of the record: `pack` in MariaDB's plugin/type_uuid/sql_type_uuid.h.
        ColumnType::Uuid => stripped(cells).map(|bytes| Value::text(uuid(bytes))),
        ColumnType::Inet4 => stripped::<4>(cells).map(|bytes| Value::text(Ipv4Addr::from(bytes).to_string())),
        ColumnType::Inet6 => stripped(cells).map(|bytes| Value::text(inet6(bytes))),
    }
}

/// Whether the table map's description is one of those that a column of this type may have in the log.
fn fits(column_type: &ColumnType, type_byte: u8, metadata: u16) -> bool {
    use log_type as log;
    let is_string = |string_type: u8| type_byte == log::STRING && log::string_type(metadata) == string_type;
    let is_bytes = |length: u16| is_string(log::STRING) && log::string_length(metadata) == length;
    let is_moment = |new: u8, old: u8, fraction: u8| {
        type_byte == old || (type_byte == new && metadata == u16::from(fraction))
    };
    let has_blob_length = (1..=4).contains(&metadata);
    match column_type {
        ColumnType::Integer { width, .. } => type_byte == log::of_integer(*width),
        ColumnType::Year => type_byte == log::YEAR,
        ColumnType::Decimal { precision, scale } => {
            type_byte == log::NEWDECIMAL && metadata == u16::from_be_bytes([*precision, *scale])
        }
        ColumnType::Float => type_byte == log::FLOAT,
        ColumnType::Double => type_byte == log::DOUBLE,
        ColumnType::Bit { bits } => {
            type_byte == log::BIT && metadata == u16::from_le_bytes([bits % 8, bits / 8])
        }
        ColumnType::Char { .. } => is_string(log::STRING),
        ColumnType::VarChar { .. } | ColumnType::VarBinary => type_byte == log::VARCHAR,
        ColumnType::Text { .. } | ColumnType::JsonText { .. } | ColumnType::Blob => {
            (log::TINY_BLOB..=log::BLOB).contains(&type_byte) && has_blob_length
        }
        ColumnType::Binary { length } => is_bytes(u16::from(*length)),
        ColumnType::Uuid | ColumnType::Inet6 => is_bytes(16),
        ColumnType::Inet4 => is_bytes(4),
        ColumnType::Date => matches!(type_byte, log::DATE | log::NEWDATE),
        ColumnType::DateTime { fraction } => is_moment(log::DATETIME2, log::DATETIME, *fraction),
        ColumnType::Timestamp { fraction } => is_moment(log::TIMESTAMP2, log::TIMESTAMP, *fraction),
        ColumnType::Time { fraction } => is_moment(log::TIME2, log::TIME, *fraction),
        ColumnType::Enum { .. } => is_string(log::ENUM) && (1..=2).contains(&(metadata & 0xff)),
        ColumnType::Set { .. } => is_string(log::SET) && (1..=8).contains(&(metadata & 0xff)),
        ColumnType::Json => type_byte == log::JSON,
        ColumnType::Geometry => type_byte == log::GEOMETRY && has_blob_length,
        ColumnType::Vector => type_byte == log::VARCHAR || (type_byte == log::VECTOR && has_blob_length),
    }
}

/// The type bytes of a table map (`enum_field_types` of both servers).
mod log_type {
    use crate::column_type::Width;

    pub(super) const FLOAT: u8 = 4;
    pub(super) const DOUBLE: u8 = 5;
    pub(super) const TIMESTAMP: u8 = 7;
    pub(super) const DATE: u8 = 10;
    pub(super) const TIME: u8 = 11;
    pub(super) const DATETIME: u8 = 12;
    pub(super) const YEAR: u8 = 13;
    pub(super) const NEWDATE: u8 = 14;
    pub(super) const VARCHAR: u8 = 15;
    pub(super) const BIT: u8 = 16;
    pub(super) const TIMESTAMP2: u8 = 17;
    pub(super) const DATETIME2: u8 = 18;
    pub(super) const TIME2: u8 = 19;
    pub(super) const VECTOR: u8 = 242;
    pub(super) const JSON: u8 = 245;
    pub(super) const NEWDECIMAL: u8 = 246;
    pub(super) const ENUM: u8 = 247;
    pub(super) const SET: u8 = 248;
    pub(super) const TINY_BLOB: u8 = 249;
    pub(super) const BLOB: u8 = 252;
    pub(super) const STRING: u8 = 254;
    pub(super) const GEOMETRY: u8 = 255;

    pub(super) fn of_integer(width: Width) -> u8 {
        match width {
            Width::Tiny => 1,
            Width::Small => 2,
            Width::Medium => 9,
            Width::Int => 3,
            Width::Big => 8,
        }
    }

    /// What STRING stands for: itself, ENUM or SET. The high byte is the type, with two bits of a CHAR's length folded into it
    /// (`Field_string::save_field_metadata`, for lengths above 255).
    pub(super) fn string_type(metadata: u16) -> u8 {
        let [high, _] = metadata.to_be_bytes();
        high | 0x30
    }

    pub(super) fn string_length(metadata: u16) -> u16 {
        ((metadata >> 4 & 0x300) ^ 0x300) + (metadata & 0xff)
    }

    /// For messages.
    pub(super) fn name(type_byte: u8, metadata: u16) -> String {
        let [high, low] = metadata.to_be_bytes();
        let type_byte = if type_byte == STRING { string_type(metadata) } else { type_byte };
        let name = match type_byte {
            1 => "TINYINT",
            2 => "SMALLINT",
            3 => "INT",
            FLOAT => "FLOAT",
            DOUBLE => "DOUBLE",
            8 => "BIGINT",
            9 => "MEDIUMINT",
            DATE | NEWDATE => "DATE",
            YEAR => "YEAR",
            TIMESTAMP => "TIMESTAMP in its old format",
            TIME => "TIME in its old format",
            DATETIME => "DATETIME in its old format",
            VARCHAR => "VARCHAR or VARBINARY",
            140 => "BLOB COMPRESSED or TEXT COMPRESSED",
            141 => "VARCHAR COMPRESSED or VARBINARY COMPRESSED",
            VECTOR => "VECTOR",
            JSON => "JSON",
            ENUM => "ENUM",
            SET => "SET",
            TINY_BLOB..=BLOB => "BLOB or TEXT",
            253 => "VARCHAR as before MySQL 5.0",
            GEOMETRY => "GEOMETRY",
            BIT => return format!("BIT({})", u32::from(high) * 8 + u32::from(low)),
            NEWDECIMAL => return format!("DECIMAL({high},{low})"),
            TIMESTAMP2 => return format!("TIMESTAMP({metadata})"),
            DATETIME2 => return format!("DATETIME({metadata})"),
            TIME2 => return format!("TIME({metadata})"),
            STRING => return format!("CHAR or BINARY of {} bytes", string_length(metadata)),
            other => return format!("the type with the number {other}"),
        };
        name.to_owned()
    }
}

/// MEDIUMINT travels as an INT.
fn binary_bytes(width: Width) -> usize {
    match width {
        Width::Tiny => 1,
        Width::Small => 2,
        Width::Medium | Width::Int => 4,
        Width::Big => 8,
    }
}

fn log_bytes(width: Width) -> usize {
    match width {
        Width::Medium => 3,
        other => binary_bytes(other),
    }
}

fn integer(cells: &mut &[u8], bytes: usize, width: Width, unsigned: bool) -> Result<Value, DecodeError> {
    let number = natural(take(cells, bytes, "an integer")?);
    Ok(match (unsigned, width) {
        // Always as text: a key must not change its kind with its size.
        (true, Width::Big) => Value::text(number.to_string()),
        (true, _) => Value::Integer(number.cast_signed()),
        (false, _) => {
            let unused = 64 - 8 * bytes;
            Value::Integer((number << unused).cast_signed() >> unused)
        }
    })
}

fn float(cells: &mut &[u8]) -> Result<Value, DecodeError> {
    Ok(Value::Real(f64::from(f32::from_le_bytes(array(cells, "a FLOAT")?))))
}

fn double(cells: &mut &[u8]) -> Result<Value, DecodeError> {
    Ok(Value::Real(f64::from_le_bytes(array(cells, "a DOUBLE")?)))
}

fn year(cells: &mut &[u8]) -> Result<Value, DecodeError> {
    let [year]: [u8; 1] = array(cells, "a YEAR")?;
    Ok(Value::Integer(if year == 0 { 0 } else { 1900 + i64::from(year) }))
}

fn bit(cells: &mut &[u8], bits: u8) -> Result<Value, DecodeError> {
    let number = natural_big_endian(take(cells, usize::from(bits).div_ceil(8), "a BIT")?);
    if number.checked_shr(u32::from(bits)).unwrap_or(0) != 0 {
        return Err(DecodeError::malformed("a BIT", format_args!("{number:#x} in {bits} bits")));
    }
    Ok(if bits == 64 { Value::text(number.to_string()) } else { Value::Integer(number.cast_signed()) })
}

fn moment(column_type: &ColumnType, type_byte: u8, cells: &mut &[u8]) -> Result<String, DecodeError> {
    match (column_type, type_byte) {
        (ColumnType::Date, _) => temporal::date(cells),
        (ColumnType::DateTime { fraction }, log_type::DATETIME2) => temporal::datetime2(cells, *fraction),
        (ColumnType::Timestamp { fraction }, log_type::TIMESTAMP2) => temporal::timestamp2(cells, *fraction),
        (ColumnType::Time { fraction }, log_type::TIME2) => temporal::time2(cells, *fraction),
        (ColumnType::DateTime { fraction: 0 }, _) => temporal::old_datetime(cells),
        (ColumnType::Timestamp { fraction: 0 }, _) => temporal::old_timestamp(cells),
        (ColumnType::Time { fraction: 0 }, _) => temporal::old_time(cells),
        // MariaDB with mysql56_temporal_format=OFF: the log does not say how long it is.
        _ => Err(DecodeError::Unsupported(format!(
            "{column_type} in the format of MariaDB 5.3 (ALTER TABLE … FORCE under mysql56_temporal_format=ON changes it)"
        ))),
    }
}

fn text(charset: &Charset, bytes: Bytes) -> Result<Value, DecodeError> {
    Ok(Value::Text(charset.decode(bytes)?))
}

/// The label of this number. Number 0 is what a server stores for a value that is none of the labels, and shows as `''`: where
/// that is a label as well, it is no value that could be told from it.
fn member(cells: &mut &[u8], bytes: usize, labels: &[String]) -> Result<Value, DecodeError> {
    let number = natural(take(cells, bytes, "an ENUM")?);
    let Some(at) = number.checked_sub(1).or_else(|| has(labels, b"").then_some(u64::MAX)) else {
        return Ok(Value::text(""));
    };
    match usize::try_from(at).ok().and_then(|at| labels.get(at)) {
        Some(label) => Ok(Value::text(label.as_str())),
        None => Err(DecodeError::Label { found: format!("the number {number}") }),
    }
}

/// The labels of the bits that are set.
fn members(cells: &mut &[u8], bytes: usize, labels: &[String]) -> Result<Value, DecodeError> {
    let bits = natural(take(cells, bytes, "a SET")?);
    let chosen: Vec<&str> = labels
        .iter()
        .zip(0..64u32)
        .filter(|&(_, at)| bits >> at & 1 == 1)
        .map(|(label, _)| label.as_str())
        .collect();
    if u32::try_from(chosen.len()) != Ok(bits.count_ones()) {
        return Err(DecodeError::Label { found: format!("all of the bits {bits:#x}") });
    }
    Ok(Value::text(chosen.join(",")))
}

/// Labels that a row has and the catalog lacks would come out of the log, by number, as another text.
fn known(text: Bytes, is_known: impl Fn(&[u8]) -> bool) -> Result<Value, DecodeError> {
    if text.is_empty() || is_known(&text) {
        return Ok(Value::Text(text));
    }
    Err(DecodeError::Label { found: Value::Text(text).to_string() })
}

fn has(labels: &[String], text: &[u8]) -> bool {
    labels.iter().any(|label| label.as_bytes() == text)
}

/// With the zeros that the log leaves out at its end.
fn padded(bytes: Bytes, length: usize) -> Result<Bytes, DecodeError> {
    if bytes.len() > length {
        return Err(DecodeError::malformed("a BINARY", format_args!("{} bytes in {length}", bytes.len())));
    }
    if bytes.len() == length {
        return Ok(bytes);
    }
    let mut whole = bytes.to_vec();
    whole.resize(length, 0);
    Ok(Bytes::from(whole))
}

/// `N` bytes, of which the log leaves out the zeros at the end as it does with a BINARY(N).
fn stripped<const N: usize>(cells: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let bytes = padded(prefixed(cells, 1)?, N)?;
    array(&mut &bytes[..], "an address")
}

/// In groups of 8, 4, 4, 4 and 12 digits.
fn uuid(bytes: [u8; 16]) -> String {
    let number = u128::from_be_bytes(bytes);
    let group = |shift: u32| number >> shift & 0xffff;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        number >> 96,
        group(80),
        group(64),
        group(48),
        number & 0xffff_ffff_ffff
    )
}

/// As MariaDB prints it (`Inet6::to_string` in plugin/type_inet/sql_type_inet.cc). Unlike RFC 5952 it leaves out a single zero
/// group, too, and writes the last four bytes after six zero groups as an IPv4 address.
fn inet6(bytes: [u8; 16]) -> String {
    let groups = Ipv6Addr::from(bytes).segments();
    let hex = |groups: &[u16]| groups.iter().map(|group| format!("{group:x}")).collect::<Vec<_>>().join(":");
    let [.., a, b, c, d] = bytes;
    let ipv4 = Ipv4Addr::new(a, b, c, d);
    match longest_zeros(&groups) {
        Range { start: 0, end: 6 } => format!("::{ipv4}"),
        Range { start: 0, end: 5 } if groups[5] == 0xffff => format!("::ffff:{ipv4}"),
        gap if gap.is_empty() => hex(&groups),
        gap => format!("{}::{}", hex(&groups[..gap.start]), hex(&groups[gap.end..])),
    }
}

/// The first of the longest runs of zero groups.
fn longest_zeros(groups: &[u16]) -> Range<usize> {
    let mut longest = 0..0;
    let mut start = 0;
    for (at, group) in groups.iter().enumerate() {
        if *group != 0 {
            start = at + 1;
        } else if at + 1 - start > longest.len() {
            longest = start..at + 1;
        }
    }
    longest
}

/// A string of at most `length_max` bytes, which decides how its length is written.
fn string(cells: &mut &[u8], length_max: u16) -> Result<Bytes, DecodeError> {
    prefixed(cells, if length_max > 255 { 2 } else { 1 })
}

fn blob(cells: &mut &[u8], length_bytes: u16) -> Result<Bytes, DecodeError> {
    prefixed(cells, usize::from(length_bytes))
}

fn prefixed(cells: &mut &[u8], length_bytes: usize) -> Result<Bytes, DecodeError> {
    let length = natural(take(cells, length_bytes, "a length")?);
    let content = take(cells, usize::try_from(length).unwrap_or(usize::MAX), "a string")?;
    Ok(Bytes::copy_from_slice(content))
}

/// Reads a cell that must have no more bytes than its type.
fn all(
    cell: &[u8],
    read: impl FnOnce(&mut &[u8]) -> Result<Value, DecodeError>,
) -> Result<Value, DecodeError> {
    let mut rest = cell;
    let value = read(&mut rest)?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(DecodeError::malformed("a cell", format_args!("{} bytes longer than its type", rest.len())))
}

pub(crate) fn take<'a>(
    cells: &mut &'a [u8],
    length: usize,
    what: &'static str,
) -> Result<&'a [u8], DecodeError> {
    let short = DecodeError::Short { what, expected: length, found: cells.len() };
    let (taken, rest) = cells.split_at_checked(length).ok_or(short)?;
    *cells = rest;
    Ok(taken)
}

pub(crate) fn array<const N: usize>(cells: &mut &[u8], what: &'static str) -> Result<[u8; N], DecodeError> {
    let short = DecodeError::Short { what, expected: N, found: cells.len() };
    let (taken, rest) = cells.split_first_chunk().ok_or(short)?;
    *cells = rest;
    Ok(*taken)
}

/// Little-endian, of at most eight bytes.
pub(crate) fn natural(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Of at most eight bytes.
pub(crate) fn natural_big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::charset::Charsets;

    /// One stored value in both forms.
    struct Case {
        column_type: ColumnType,
        binary: Bytes,
        type_byte: u8,
        metadata: u16,
        log: &'static [u8],
        value: Value,
    }

    fn column(declared: &str, charset: &str) -> ColumnType {
        ColumnType::parse(declared, Some(charset), false, &Charsets::default()).unwrap()
    }

    fn blob_of(bytes: &'static [u8]) -> Value {
        Value::Blob(Bytes::from_static(bytes))
    }

    /// The table of types in docs/design/mysql.md, with the edges of each.
    fn cases() -> Vec<Case> {
        type Row = (&'static str, &'static [u8], (u8, u16), &'static [u8], Value);
        let text = |text: &str| Value::text(text);
        let integer = Value::Integer;
        let rows: &[Row] = &[
            ("tinyint(4)", b"\xff", (1, 0), b"\xff", integer(-1)),
            ("tinyint(3) unsigned", b"\xff", (1, 0), b"\xff", integer(255)),
            ("smallint(6)", b"\x00\x80", (2, 0), b"\x00\x80", integer(-32_768)),
            ("smallint(5) unsigned", b"\xff\xff", (2, 0), b"\xff\xff", integer(65_535)),
            ("mediumint(9)", b"\xff\xff\xff\xff", (9, 0), b"\xff\xff\xff", integer(-1)),
            ("mediumint(9)", b"\xff\xff\x7f\x00", (9, 0), b"\xff\xff\x7f", integer(8_388_607)),
            ("mediumint(8) unsigned", b"\xff\xff\xff\x00", (9, 0), b"\xff\xff\xff", integer(16_777_215)),
            ("int(11)", b"\x00\x00\x00\x80", (3, 0), b"\x00\x00\x00\x80", integer(-2_147_483_648)),
            ("int(10) unsigned", b"\xff\xff\xff\xff", (3, 0), b"\xff\xff\xff\xff", integer(4_294_967_295)),
            ("bigint(20)", b"\0\0\0\0\0\0\0\x80", (8, 0), b"\0\0\0\0\0\0\0\x80", integer(i64::MIN)),
            ("bigint(20) unsigned", b"\x07\0\0\0\0\0\0\0", (8, 0), b"\x07\0\0\0\0\0\0\0", text("7")),
            ("bigint(20) unsigned", &[0xff; 8], (8, 0), &[0xff; 8], text("18446744073709551615")),
            ("year(4)", b"\0\0", (13, 0), b"\0", integer(0)),
            ("year(4)", b"\x6d\x07", (13, 0), b"\x01", integer(1901)),
            ("year(4)", b"\x6b\x08", (13, 0), b"\xff", integer(2155)),
            ("decimal(1,1)", b"-0.5", (246, 0x0101), b"\x7a", text("-0.5")),
            ("decimal(1,1)", b"0.0", (246, 0x0101), b"\x80", text("0.0")),
            (
                "decimal(10,2) unsigned zerofill",
                b"00000007.10",
                (246, 0x0a02),
                b"\x80\0\0\x07\x0a",
                text("7.10"),
            ),
            // 16777217 has no place in a FLOAT; what is stored is its neighbour.
            ("float", b"\0\0\x80\x4b", (4, 4), b"\0\0\x80\x4b", Value::Real(16_777_216.0)),
            ("float", b"\xcd\xcc\xcc\x3d", (4, 4), b"\xcd\xcc\xcc\x3d", Value::Real(f64::from(0.1f32))),
            ("float", b"\x01\0\0\0", (4, 4), b"\x01\0\0\0", Value::Real(f64::from(f32::from_bits(1)))),
            ("float", b"\0\0\0\x80", (4, 4), b"\0\0\0\x80", Value::Real(-0.0)),
            ("double", b"\x01\0\0\0\0\0\0\0", (5, 8), b"\x01\0\0\0\0\0\0\0", Value::Real(5e-324)),
            ("double", b"\0\0\0\0\0\0\0\x80", (5, 8), b"\0\0\0\0\0\0\0\x80", Value::Real(-0.0)),
            ("bit(1)", b"\x01", (16, 0x0001), b"\x01", integer(1)),
            ("bit(10)", b"\x02\x01", (16, 0x0102), b"\x02\x01", integer(513)),
            (
                "bit(63)",
                b"\x7f\xff\xff\xff\xff\xff\xff\xff",
                (16, 0x0707),
                b"\x7f\xff\xff\xff\xff\xff\xff\xff",
                integer(i64::MAX),
            ),
            ("bit(64)", &[0xff; 8], (16, 0x0800), &[0xff; 8], text("18446744073709551615")),
            ("char(3)", "é".as_bytes(), (254, 0xfe0c), b"\x02\xc3\xa9", text("é")),
            // 1,020 bytes: two bytes of length.
            ("char(255)", "é".as_bytes(), (254, 0xcefc), b"\x02\0\xc3\xa9", text("é")),
            ("varchar(20)", b"", (15, 80), b"\0", text("")),
            ("varchar(20)", b"a\0b ", (15, 80), b"\x04a\0b ", text("a\0b ")),
            ("varchar(300)", b"ab", (15, 1200), b"\x02\0ab", text("ab")),
            ("tinytext", b"ab", (252, 1), b"\x02ab", text("ab")),
            ("longtext", "😀".as_bytes(), (252, 4), b"\x04\0\0\0\xf0\x9f\x98\x80", text("😀")),
            ("binary(4)", b"a\0\0\0", (254, 0xfe04), b"\x01a", blob_of(b"a\0\0\0")),
            ("binary(4)", b"\0\0\0\0", (254, 0xfe04), b"\0", blob_of(b"\0\0\0\0")),
            ("varbinary(4)", b"a\0", (15, 4), b"\x02a\0", blob_of(b"a\0")),
            ("mediumblob", b"\xff\0", (252, 3), b"\x02\0\0\xff\0", blob_of(b"\xff\0")),
            ("point", b"\0\0\0\0\x01", (255, 4), b"\x05\0\0\0\0\0\0\0\x01", blob_of(b"\0\0\0\0\x01")),
            ("vector(1)", b"\0\0\x80\x3f", (15, 4), b"\x04\0\0\x80\x3f", blob_of(b"\0\0\x80\x3f")),
            ("vector(1)", b"\0\0\x80\x3f", (242, 4), b"\x04\0\0\0\0\0\x80\x3f", blob_of(b"\0\0\x80\x3f")),
            ("date", b"\xe8\x07\x02\x1d", (10, 0), b"\x5d\xd0\x0f", text("2024-02-29")),
            ("date", b"", (10, 0), b"\0\0\0", text("0000-00-00")),
            ("datetime", b"", (18, 0), b"\x80\0\0\0\0", text("0000-00-00 00:00:00")),
            (
                "datetime",
                b"\xe8\x07\x02\x1d\x17\x3b\x3b",
                (12, 0),
                b"\xf7\x7c\xac\x8b\x68\x12\0\0",
                text("2024-02-29 23:59:59"),
            ),
            (
                "datetime(6)",
                b"\x0f\x27\x0c\x1f\x17\x3b\x3b\x3f\x42\x0f\0",
                (18, 6),
                b"\xfe\xf3\xff\x7e\xfb\x0f\x42\x3f",
                text("9999-12-31 23:59:59.999999"),
            ),
            (
                "timestamp",
                b"\xe8\x07\x02\x1d\x12\x08\0",
                (17, 0),
                b"\x65\xe0\xc8\0",
                text("2024-02-29 18:08:00+00:00"),
            ),
            (
                "timestamp",
                b"\xe8\x07\x02\x1d\x12\x08\0",
                (7, 0),
                b"\0\xc8\xe0\x65",
                text("2024-02-29 18:08:00+00:00"),
            ),
            ("timestamp(3)", b"", (17, 3), b"\0\0\0\0\0\0", text("0000-00-00 00:00:00.000+00:00")),
            ("time", b"", (19, 0), b"\x80\0\0", text("00:00:00")),
            ("time", b"\0\x22\0\0\0\x16\x3b\x3b", (11, 0), b"\xa7\xf5\x7f", text("838:59:59")),
            (
                "time(6)",
                b"\x01\x22\0\0\0\x16\x3b\x3b\x01\0\0\0",
                (19, 6),
                b"\x4b\x91\x04\xff\xff\xff",
                text("-838:59:59.000001"),
            ),
            (
                "time(6)",
                b"\x01\0\0\0\0\0\0\0\x01\0\0\0",
                (19, 6),
                b"\x7f\xff\xff\xff\xff\xff",
                text("-00:00:00.000001"),
            ),
            ("enum('a','it''s')", b"it's", (254, 0xf701), b"\x02", text("it's")),
            ("enum('a','it''s')", b"", (254, 0xf701), b"\0", text("")),
            ("enum('a')", b"a", (254, 0xf702), b"\x01\0", text("a")),
            ("set('a','b','c')", b"a,c", (254, 0xf801), b"\x05", text("a,c")),
            ("set('a','b','c')", b"", (254, 0xf801), b"\0", text("")),
            (
                "uuid",
                b"6ba7b810-9dad-11d1-80b4-00c04fd43000",
                (254, 0xfe10),
                b"\x0f\x6b\xa7\xb8\x10\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30",
                text("6ba7b810-9dad-11d1-80b4-00c04fd43000"),
            ),
            ("inet4", b"10.0.0.0", (254, 0xfe04), b"\x01\x0a", text("10.0.0.0")),
            ("inet6", b"::", (254, 0xfe10), b"\0", text("::")),
            ("inet6", b"2001:db8::", (254, 0xfe10), b"\x04\x20\x01\x0d\xb8", text("2001:db8::")),
        ];
        let mut cases: Vec<Case> = rows
            .iter()
            .map(|&(declared, binary, logged, log, ref value)| {
                case(column(declared, "utf8mb4"), binary, logged, log, value.clone())
            })
            .collect();
        cases.extend([
            case(column("varchar(20)", "latin1"), b"\xe9\x80", (15, 20), b"\x02\xe9\x80", text("é€")),
            case(column("char(2)", "ucs2"), b"\0a", (254, 0xfe04), b"\x02\0a", text("a")),
            case(column("enum('é')", "latin1"), b"\xe9", (254, 0xf701), b"\x01", text("é")),
            case(
                ColumnType::JsonText { charset: Charset::Utf8 },
                b"{\"b\":1, \"b\":2}",
                (252, 4),
                b"\x0e\0\0\0{\"b\":1, \"b\":2}",
                text("{\"b\":1, \"b\":2}"),
            ),
        ]);
        cases
    }

    fn case(
        column_type: ColumnType,
        binary: &'static [u8],
        (type_byte, metadata): (u8, u16),
        log: &'static [u8],
        value: Value,
    ) -> Case {
        Case { column_type, binary: Bytes::from_static(binary), type_byte, metadata, log, value }
    }

    #[test]
    fn both_paths_give_the_same_value() {
        for Case { column_type, binary, type_byte, metadata, log, value } in cases() {
            assert_eq!(from_binary(&column_type, Some(binary)).as_ref(), Ok(&value), "{column_type}");
            let followed = [log, b"\xee"].concat();
            let mut cells = &followed[..];
            assert_eq!(
                from_log(&column_type, type_byte, metadata, &mut cells).as_ref(),
                Ok(&value),
                "{column_type}"
            );
            assert_eq!(cells, b"\xee", "{column_type}: {value}");
            assert_eq!(from_binary(&column_type, None), Ok(Value::Null));
        }
    }

    #[test]
    fn a_cell_that_is_cut_off_is_an_error() {
        for Case { column_type, type_byte, metadata, log, .. } in cases() {
            for end in 0..log.len() {
                let found = from_log(&column_type, type_byte, metadata, &mut &log[..end]);
                assert!(matches!(found, Err(DecodeError::Short { .. })), "{column_type}: {found:?}");
            }
        }
    }

    #[test]
    fn a_cell_of_another_length_is_an_error() {
        for declared in [
            "tinyint",
            "mediumint",
            "bigint unsigned",
            "year",
            "float",
            "double",
            "bit(9)",
            "date",
            "time",
            "datetime",
        ] {
            for length in [3, 5, 9, 13] {
                let found = from_binary(&column(declared, "utf8mb4"), Some(Bytes::from(vec![0; length])));
                assert!(found.is_err(), "{declared} of {length} bytes: {found:?}");
            }
        }
    }

    #[test]
    fn a_set_may_have_64_members() {
        let labels: Vec<String> = (0..64).map(|at| format!("m{at}")).collect();
        let set = ColumnType::Set { charset: Charset::Utf8, labels: labels.clone().into() };
        for (bits, expected) in
            [(u64::MAX, labels.join(",")), (1 << 63, "m63".to_owned()), (5, "m0,m2".to_owned())]
        {
            let logged = from_log(&set, 254, 0xf808, &mut &bits.to_le_bytes()[..]);
            assert_eq!(logged, Ok(Value::text(expected.as_str())));
            assert_eq!(from_binary(&set, Some(Bytes::from(expected))), logged);
        }
    }

    #[test]
    fn labels_that_the_catalog_lacks_are_refused() {
        let (enumeration, set) = (column("enum('a','b')", "utf8mb4"), column("set('a','b')", "utf8mb4"));
        for found in [
            from_log(&enumeration, 254, 0xf701, &mut &b"\x03"[..]),
            from_log(&set, 254, 0xf801, &mut &b"\x04"[..]),
            from_binary(&enumeration, Some(Bytes::from_static(b"c"))),
            from_binary(&enumeration, Some(Bytes::from_static(b"a,b"))),
            from_binary(&set, Some(Bytes::from_static(b"a,c"))),
        ] {
            let error = found.unwrap_err();
            assert!(matches!(error, DecodeError::Label { .. }), "{error}");
            assert_eq!(error.into_error("read a row").kind, ErrorKind::Schema);
        }
    }

    #[test]
    fn a_log_that_contradicts_the_catalog_is_refused() {
        for (declared, type_byte, metadata, logged) in [
            ("int(11)", 8, 0, "BIGINT"),
            ("mediumint(9)", 3, 0, "INT"),
            ("decimal(10,2)", 246, 0x0a03, "DECIMAL(10,3)"),
            ("bit(9)", 16, 0x0100, "BIT(8)"),
            ("datetime(3)", 18, 6, "DATETIME(6)"),
            ("timestamp", 18, 0, "DATETIME(0)"),
            ("time", 12, 0, "DATETIME in its old format"),
            ("binary(4)", 254, 0xfe05, "CHAR or BINARY of 5 bytes"),
            ("inet4", 254, 0xfe10, "CHAR or BINARY of 16 bytes"),
            ("char(4)", 254, 0xf701, "ENUM"),
            ("enum('a')", 254, 0xf801, "SET"),
            ("varchar(4)", 141, 4, "VARCHAR COMPRESSED or VARBINARY COMPRESSED"),
            ("text", 15, 4, "VARCHAR or VARBINARY"),
            ("blob", 252, 5, "BLOB or TEXT"),
            ("json", 252, 4, "BLOB or TEXT"),
            ("date", 200, 0, "the type with the number 200"),
        ] {
            let column_type = column(declared, "utf8mb4");
            let error = from_log(&column_type, type_byte, metadata, &mut &[0u8; 16][..]).unwrap_err();
            let declared = column_type.to_string();
            assert_eq!(error, DecodeError::Differs { declared, logged: logged.to_owned() });
            assert_eq!(error.into_error("read a row").kind, ErrorKind::Schema);
        }
    }

    #[test]
    fn what_cannot_be_read_yet_is_refused_by_name() {
        for (declared, type_byte, metadata, name) in
            [("json", 245, 4, "JSON"), ("time(3)", 11, 0, "TIME(3)"), ("datetime(6)", 12, 0, "DATETIME(6)")]
        {
            let error =
                from_log(&column(declared, "utf8mb4"), type_byte, metadata, &mut &[0u8; 16][..]).unwrap_err();
            assert!(matches!(&error, DecodeError::Unsupported(what) if what.contains(name)), "{error}");
        }
    }

    #[test]
    fn text_that_is_not_its_charset_says_what_to_do() {
        let found = from_binary(&column("varchar(5)", "utf8mb4"), Some(Bytes::from_static(b"caf\xe9")));
        let error = found.unwrap_err().into_error("read a row");
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.hint.is_some_and(|hint| hint.contains("BLOB")));
        let source = error.source.unwrap().to_string();
        assert_eq!(source, "the text is not valid utf8mb4 at byte 3 of 4 (e9)");
    }

    #[test]
    fn bits_beyond_the_column_are_refused() {
        assert!(matches!(bit(&mut &b"\x02"[..], 1), Err(DecodeError::Malformed { .. })));
        assert!(matches!(padded(Bytes::from_static(b"abc"), 2), Err(DecodeError::Malformed { .. })));
    }

    #[test]
    fn addresses_look_as_mariadb_prints_them() {
        for (groups, expected) in [
            ([0u16, 0, 0, 0, 0, 0, 0, 1], "::1"),
            ([1, 0, 0, 0, 0, 0, 0, 0], "1::"),
            ([0, 0, 0, 0, 0, 0xffff, 0x0102, 0x0304], "::ffff:1.2.3.4"),
            ([0, 0, 0, 0, 0, 0, 0x0102, 0x0304], "::1.2.3.4"),
            ([0, 0, 0, 0, 0, 0xfffe, 0x0102, 0x0304], "::fffe:102:304"),
            ([0x2001, 0xdb8, 0, 0, 1, 0, 0, 1], "2001:db8::1:0:0:1"),
            ([1, 2, 3, 0, 5, 6, 7, 8], "1:2:3::5:6:7:8"),
            ([1, 2, 3, 4, 5, 6, 7, 0], "1:2:3:4:5:6:7::"),
            ([1, 2, 3, 4, 5, 6, 7, 0xabcd], "1:2:3:4:5:6:7:abcd"),
        ] {
            assert_eq!(inet6(Ipv6Addr::from(groups).octets()), expected);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            at in any::<prop::sample::Index>(),
            other in any::<Option<(u8, u16)>>(),
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let cases = cases();
            let Case { column_type, type_byte, metadata, .. } = at.get(&cases);
            let (type_byte, metadata) = other.unwrap_or((*type_byte, *metadata));
            drop(from_log(column_type, type_byte, metadata, &mut &bytes[..]));
            drop(from_binary(column_type, Some(Bytes::from(bytes))));
        }
    }
}
