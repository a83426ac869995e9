//! Whether a value means the same in the target's own column, and the parameter as which it goes there.
//!
//! In strict mode the server refuses what is beyond a column's range. It says nothing where a value becomes another one:
//! digits of a second that are cut, a fraction that is rounded to an integer, spaces at the end of a CHAR, zeros at the end of
//! a BINARY, a YEAR of two digits, an ENUM's label that is read as a number, a zero that loses its sign. These are refused
//! here, by name. So is what has no place at all: NaN, infinity, years before Christ.

use std::net::{Ipv4Addr, Ipv6Addr};

use connector::{Error, ErrorKind, Result};
use model::{Column, Key, Kind, Row, Table, Value};

use crate::column_type::ColumnType;
use crate::prepared::Param;
use crate::target::Target;

/// PostgreSQL's numbers for `real`, whose text has the digits that tell it from other values of four bytes, and for
/// `char(n)`, whose padding means nothing.
const FLOAT4: u32 = 700;
const BPCHAR: u32 = 1042;

/// Appends the cells of a row at these columns.
pub(crate) fn row<'a>(
    table: &Table,
    target: &Target,
    row: &'a Row,
    columns: &[usize],
    params: &mut Vec<Param<'a>>,
) -> Result<()> {
    for &at in columns {
        match param(&table.columns[at], target.columns[at].as_ref(), &row[at]) {
            Some(param) => params.push(param),
            None => {
                return Err(refused(table, target, at, &row[at], table.key().map(|key| Key::of(row, key))));
            }
        }
    }
    Ok(())
}

/// Appends the cells of a key.
pub(crate) fn key<'a>(
    table: &Table,
    target: &Target,
    key: &'a Key,
    params: &mut Vec<Param<'a>>,
) -> Result<()> {
    for (&at, value) in table.key().unwrap_or_default().iter().zip(&key.0) {
        match param(&table.columns[at], target.columns[at].as_ref(), value) {
            Some(param) => params.push(param),
            None => return Err(refused(table, target, at, value, Some(key.clone()))),
        }
    }
    Ok(())
}

/// A cell that would come out as another value.
pub(crate) fn refused(table: &Table, target: &Target, at: usize, value: &Value, key: Option<Key>) -> Error {
    let column = &table.columns[at];
    let mut error = Error::new(ErrorKind::Refused, "carry a value over without changing it")
        .with("table", &table.name)
        .with("column", &column.name)
        .with("declared", &column.type_name)
        .with("value", value);
    if let Some(key) = key {
        error = error.with("key", key);
    }
    match &target.columns[at] {
        Some(target) => error.with("on the target", target).hint(format!(
            "{} must be {}: change the value on the source, or the column on the target to a type that holds it",
            column.name,
            expected(target)
        )),
        None => error.hint("the target computes this column"),
    }
}

fn expected(target: &ColumnType) -> &'static str {
    match target {
        ColumnType::Integer { .. } => "an integer",
        ColumnType::Year => "a year of four digits, or 0",
        ColumnType::Bit { .. } => "an integer from 0 on",
        ColumnType::Decimal { .. } => "a decimal number with no more digits than the column has",
        ColumnType::Float => "a number that four bytes hold exactly, neither NaN nor infinite nor -0",
        ColumnType::Double => "a number, neither NaN nor infinite nor -0",
        ColumnType::Char { .. } => "text without spaces at its end",
        ColumnType::VarChar { .. } | ColumnType::Text { .. } => "text",
        ColumnType::Json | ColumnType::JsonText { .. } => "JSON text",
        ColumnType::Enum { .. } => "one of the column's labels, letter by letter",
        ColumnType::Set { .. } => "some of the column's labels, letter by letter",
        ColumnType::Binary { .. } => "as many bytes as the column has",
        ColumnType::VarBinary | ColumnType::Blob | ColumnType::Geometry | ColumnType::Vector => "bytes",
        ColumnType::Date => "a date as 2024-02-29",
        ColumnType::DateTime { .. } => {
            "a point in time as 2024-02-29 12:34:56, with no more digits behind the second than the column has"
        }
        ColumnType::Timestamp { .. } => {
            "a point in time as 2024-02-29 12:34:56+00:00, with no more digits behind the second than the column has, between \
             the years that a TIMESTAMP knows"
        }
        ColumnType::Time { .. } => {
            "a time as 12:34:56, with no more digits behind the second than the column has"
        }
        ColumnType::Uuid => "a UUID as 8-4-4-4-12 hexadecimal digits",
        ColumnType::Inet4 => "an IPv4 address",
        ColumnType::Inet6 => "an IPv6 address",
    }
}

/// A value of the source's column for the target's column, if it is the same value there. Beside that column it is also
/// compared as one of the column's own, and not as text or as a floating point number.
pub(crate) fn param<'a>(column: &Column, target: Option<&ColumnType>, value: &'a Value) -> Option<Param<'a>> {
    let target = target?;
    match value {
        Value::Null => Some(Param::Null),
        Value::Unchanged => None,
        Value::Integer(integer) => {
            is_integer(column.kind, target, *integer).then_some(Param::Integer(*integer))
        }
        Value::Real(real) => is_real(target, *real).then_some(Param::Real(*real)),
        Value::Blob(blob) => has_bytes(target, blob.len()).then_some(Param::Blob(blob)),
        Value::Text(text) => from_text(column, target, text),
    }
}

/// A value of a MySQL or MariaDB server for a column of its own of this kind.
pub(crate) fn own(kind: Kind, value: &Value) -> Option<Param<'_>> {
    Some(match (value, kind) {
        (Value::Null, _) => Param::Null,
        (Value::Integer(integer), _) => Param::Integer(*integer),
        (Value::Real(real), _) => Param::Real(*real),
        (Value::Text(text), Kind::Unsigned) => Param::Unsigned(parse(text)?),
        (Value::Text(text), Kind::Numeric) => Param::Decimal(text),
        // Our sessions are in UTC, and MariaDB knows no offset behind a time.
        (Value::Text(text), Kind::TimestampTz) => Param::Bytes(text.strip_suffix(b"+00:00")?),
        (Value::Text(text), _) => Param::Bytes(text),
        (Value::Blob(blob), _) => Param::Blob(blob),
        (Value::Unchanged, _) => return None,
    })
}

fn is_integer(kind: Kind, target: &ColumnType, integer: i64) -> bool {
    match target {
        ColumnType::Integer { .. } | ColumnType::Decimal { .. } => {
            kind != Kind::Boolean || matches!(integer, 0 | 1)
        }
        // 1 to 99 would be years of this century and the last.
        ColumnType::Year => !(1..100).contains(&integer),
        ColumnType::Bit { .. } => integer >= 0,
        // Beyond, there is not a place for every integer.
        ColumnType::Float => integer.unsigned_abs() <= 1 << 24,
        ColumnType::Double => integer.unsigned_abs() <= 1 << 53,
        ColumnType::VarChar { .. } | ColumnType::Text { .. } => kind == Kind::Native,
        _ => false,
    }
}

fn is_real(target: &ColumnType, real: f64) -> bool {
    // MariaDB keeps -0 as 0.
    let has_place = real.is_finite() && !(real == 0.0 && real.is_sign_negative());
    match target {
        ColumnType::Double | ColumnType::Decimal { .. } => has_place,
        ColumnType::Float => has_place && f64::from(real as f32) == real,
        _ => false,
    }
}

fn has_bytes(target: &ColumnType, bytes: usize) -> bool {
    match target {
        ColumnType::Binary { length } => bytes == usize::from(*length),
        ColumnType::VarBinary | ColumnType::Blob | ColumnType::Geometry | ColumnType::Vector => true,
        _ => false,
    }
}

fn from_text<'a>(column: &Column, target: &ColumnType, text: &'a [u8]) -> Option<Param<'a>> {
    let is_number = matches!(column.kind, Kind::Integer | Kind::Unsigned | Kind::Numeric);
    // A value of the source's binary column, as PostgreSQL prints it, is no text.
    let is_text = column.kind != Kind::Blob;
    let when = |fits: bool| fits.then_some(Param::Bytes(text));
    match target {
        ColumnType::Integer { .. } | ColumnType::Year | ColumnType::Bit { .. } => {
            let param = if is_number { number(text) } else { boolean(column, text) }?;
            let fits = |integer: i64| is_integer(column.kind, target, integer);
            (!matches!(param, Param::Integer(integer) if !fits(integer))).then_some(param)
        }
        ColumnType::Decimal { precision, scale } => {
            (is_number && is_decimal(text, *precision, *scale)).then_some(Param::Decimal(text))
        }
        ColumnType::Float | ColumnType::Double if column.kind == Kind::Real => {
            let real = match (target, column.type_id) {
                (ColumnType::Float, FLOAT4) => f64::from(parse::<f32>(text)?),
                _ => parse(text)?,
            };
            is_real(target, real).then_some(Param::Real(real))
        }
        ColumnType::Char { .. } if column.type_id == BPCHAR => Some(Param::Bytes(without_padding(text))),
        ColumnType::Char { .. } => when(is_text && !text.ends_with(b" ")),
        ColumnType::VarChar { .. } | ColumnType::Text { .. } => when(is_text),
        ColumnType::Json | ColumnType::JsonText { .. } => when(is_text),
        ColumnType::Enum { labels, .. } => when(is_label(labels, text)),
        ColumnType::Set { labels, .. } => {
            // In the order of the labels, and each once: the server would put them so.
            let places: Option<Vec<usize>> = text
                .split(|byte| *byte == b',')
                .map(|part| labels.iter().position(|label| label.as_bytes() == part))
                .collect();
            when(text.is_empty() || places.is_some_and(|places| places.is_sorted_by(|a, b| a < b)))
        }
        ColumnType::Binary { .. } | ColumnType::VarBinary | ColumnType::Blob
            if !is_text && column.type_id != 0 =>
        {
            let pairs = hex(text.strip_prefix(b"\\x")?)?;
            has_bytes(target, pairs.len()).then_some(Param::Hex(pairs))
        }
        ColumnType::Date => when(is_date(text)),
        ColumnType::DateTime { fraction } | ColumnType::Timestamp { fraction } => {
            let moment = if column.kind == Kind::TimestampTz { in_utc(text)? } else { text };
            is_moment(moment, *fraction).then_some(Param::Bytes(moment))
        }
        ColumnType::Time { fraction } => when(is_time(text.strip_prefix(b"-").unwrap_or(text), *fraction)),
        ColumnType::Uuid => when(has_shape(text, b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")),
        ColumnType::Inet4 => when(parse::<Ipv4Addr>(text).is_some()),
        ColumnType::Inet6 => when(parse::<Ipv6Addr>(text).is_some()),
        _ => None,
    }
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn number(text: &[u8]) -> Option<Param<'static>> {
    parse(text).map(Param::Integer).or_else(|| parse(text).map(Param::Unsigned))
}

/// As PostgreSQL prints them; a text of another engine is none.
fn boolean(column: &Column, text: &[u8]) -> Option<Param<'static>> {
    match (column.kind, text) {
        _ if column.type_id == 0 => None,
        (Kind::Boolean, b"t") => Some(Param::Integer(1)),
        (Kind::Boolean, b"f") => Some(Param::Integer(0)),
        _ => None,
    }
}

/// Whether so many digits have room for the number. Zeros at both ends take none.
fn is_decimal(text: &[u8], precision: u8, scale: u8) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let (whole, part) = match digits.iter().position(|byte| *byte == b'.') {
        Some(point) => (&digits[..point], &digits[point + 1..]),
        None => (digits, &b"0"[..]),
    };
    let is_number = !whole.is_empty() && !part.is_empty() && whole.iter().chain(part).all(u8::is_ascii_digit);
    let whole = whole.len() - whole.iter().take_while(|digit| **digit == b'0').count();
    let part = part.len() - part.iter().rev().take_while(|digit| **digit == b'0').count();
    is_number && whole <= usize::from(precision - scale) && part <= usize::from(scale)
}

fn without_padding(text: &[u8]) -> &[u8] {
    let spaces = text.iter().rev().take_while(|byte| **byte == b' ').count();
    &text[..text.len() - spaces]
}

fn is_label(labels: &[String], text: &[u8]) -> bool {
    labels.iter().any(|label| label.as_bytes() == text)
}

fn hex(digits: &[u8]) -> Option<&[[u8; 2]]> {
    let (pairs, rest) = digits.as_chunks::<2>();
    (rest.is_empty() && digits.iter().all(u8::is_ascii_hexdigit)).then_some(pairs)
}

/// `9` stands for a digit, `x` for a hexadecimal one, anything else for itself.
fn has_shape(text: &[u8], shape: &[u8]) -> bool {
    text.len() == shape.len()
        && text.iter().zip(shape).all(|(byte, shape)| match shape {
            b'9' => byte.is_ascii_digit(),
            b'x' => byte.is_ascii_hexdigit(),
            other => byte == other,
        })
}

/// Zero dates have this shape, too: where a source has them, they are values.
fn is_date(text: &[u8]) -> bool {
    has_shape(text, b"9999-99-99")
}

/// A date alone is its midnight.
fn is_moment(text: &[u8], fraction: u8) -> bool {
    match text.split_at_checked(11) {
        None => is_date(text),
        Some((date, time)) => {
            is_date(&date[..10])
                && matches!(date[10], b' ' | b'T')
                && time.get(2) == Some(&b':')
                && is_time(time, fraction)
        }
    }
}

/// Of two or three digits of hours, without a sign.
fn is_time(text: &[u8], fraction: u8) -> bool {
    let hours = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = &text[hours..];
    (2..=3).contains(&hours)
        && match rest.split_at_checked(6) {
            None => has_shape(rest, b":99"),
            Some((rest, behind)) => has_shape(rest, b":99:99") && is_fraction(behind, fraction),
        }
}

/// Zeros at the end need no room.
fn is_fraction(rest: &[u8], fraction: u8) -> bool {
    let Some(digits) = rest.strip_prefix(b".") else { return rest.is_empty() };
    let (kept, cut) = digits.split_at(digits.len().min(usize::from(fraction)));
    !digits.is_empty() && kept.iter().all(u8::is_ascii_digit) && cut.iter().all(|digit| *digit == b'0')
}

/// Without the offset behind it, which has to be none from UTC.
fn in_utc(text: &[u8]) -> Option<&[u8]> {
    [&b"+00:00"[..], b"+00", b"Z"].iter().find_map(|offset| text.strip_suffix(*offset))
}

#[cfg(test)]
mod tests;
