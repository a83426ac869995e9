//! Whether a value of another engine means the same in the column's type here.
//!
//! PostgreSQL's input functions are generous: they read `yesterday` as a date, drop the offset of a timestamp and the
//! time of a date. A migration may not: what would come out as another value is refused by name. Values of another
//! PostgreSQL are not asked; they come from the same types.

use connector::{Error, ErrorKind, Result};
use model::{Column, Key, Kind, Row, Table, Value};

/// A source that has no numbers for its types is another engine.
pub(crate) fn is_foreign(table: &Table) -> bool {
    table.columns.iter().any(|column| column.type_id == 0)
}

/// The first cell that does not fit is the error.
pub(crate) fn row(table: &Table, row: &Row) -> Result<()> {
    for (column, value) in table.columns.iter().zip(row) {
        if column.type_id == 0 && !column.generated && !fits(column.kind, value) {
            return Err(refusal(table, column, row, value));
        }
    }
    Ok(())
}

fn refusal(table: &Table, column: &Column, row: &Row, value: &Value) -> Error {
    let mut error = Error::new(ErrorKind::Refused, "carry a value over without changing it")
        .with("table", &table.name)
        .with("column", &column.name)
        .with("declared", &column.type_name)
        .with("value", value);
    if let Some(key) = table.key() {
        error = error.with("key", Key::of(row, key));
    }
    error.hint(format!(
        "{} must be {}: change the value on the source, or create the target's table yourself with a type that holds it",
        column.name,
        expected(column.kind)
    ))
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer => "an integer",
        Kind::Unsigned => "an integer from 0 on",
        Kind::Real => "a number",
        Kind::Numeric => "a decimal number",
        Kind::Boolean => "0 or 1",
        Kind::Text | Kind::Native => "text (or a number, where the type is not known)",
        Kind::Blob => "a blob",
        Kind::Date => "a date as 2024-02-29",
        Kind::Time => "a time as 12:34:56, with at most six digits behind the second",
        Kind::Timestamp => {
            "a point in time as 2024-02-29 12:34:56, without an offset, with at most six digits behind the second"
        }
        Kind::TimestampTz => "a point in time as 2024-02-29 12:34:56+00:00",
        Kind::Json => "JSON text",
        Kind::Uuid => "a UUID as 8-4-4-4-12 hexadecimal digits",
    }
}

fn fits(kind: Kind, value: &Value) -> bool {
    match value {
        Value::Null | Value::Unchanged => true,
        Value::Integer(integer) => match kind {
            Kind::Integer | Kind::Numeric | Kind::Native => true,
            // Beyond 2^53 a double has no place for every integer.
            Kind::Real => integer.unsigned_abs() <= 1 << 53,
            Kind::Boolean => matches!(integer, 0 | 1),
            _ => false,
        },
        Value::Real(real) => match kind {
            Kind::Real | Kind::Native => true,
            Kind::Numeric => real.is_finite(),
            _ => false,
        },
        Value::Blob(_) => kind == Kind::Blob,
        Value::Text(text) => match kind {
            Kind::Text | Kind::Native | Kind::Json => true,
            Kind::Unsigned => !text.is_empty() && text.iter().all(u8::is_ascii_digit),
            Kind::Numeric => is_decimal(text),
            Kind::Date => is_date(text),
            Kind::Time => is_time(text),
            Kind::Timestamp => is_timestamp(text),
            Kind::TimestampTz => strip_offset(text).is_some_and(is_timestamp),
            Kind::Uuid => has_shape(text, b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"),
            Kind::Integer | Kind::Real | Kind::Boolean | Kind::Blob => false,
        },
    }
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

fn is_decimal(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    let (whole, part) = match digits.iter().position(|byte| *byte == b'.') {
        Some(point) => (&digits[..point], &digits[point + 1..]),
        None => (digits, &b"0"[..]),
    };
    !whole.is_empty() && !part.is_empty() && whole.iter().chain(part).all(u8::is_ascii_digit)
}

/// MySQL's zero dates have the shape of one.
fn is_date(text: &[u8]) -> bool {
    has_shape(text, b"9999-99-99") && &text[..4] != b"0000" && &text[5..7] != b"00" && &text[8..] != b"00"
}

fn is_time(text: &[u8]) -> bool {
    match text.split_at_checked(8) {
        None => has_shape(text, b"99:99"),
        Some((time, fraction)) => {
            has_shape(time, b"99:99:99")
                && (fraction.is_empty()
                    || (fraction[0] == b'.'
                        && (2..=7).contains(&fraction.len())
                        && fraction[1..].iter().all(u8::is_ascii_digit)))
        }
    }
}

/// A date alone is its midnight, as in SQLite's own functions.
fn is_timestamp(text: &[u8]) -> bool {
    match text.split_at_checked(11) {
        None => is_date(text),
        Some((date, time)) => is_date(&date[..10]) && matches!(date[10], b' ' | b'T') && is_time(time),
    }
}

fn strip_offset(text: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = text.strip_suffix(b"Z") {
        return Some(rest);
    }
    let (rest, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    (has_shape(offset, b"+99:99") || has_shape(offset, b"-99:99")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_come_out_as_another_value_does_not_fit() {
        let text = |text: &str| Value::text(text);
        let blob = || Value::Blob(bytes::Bytes::from_static(b"ab"));
        for (kind, value, expected) in [
            (Kind::Date, text("2024-02-29"), true),
            (Kind::Date, text("yesterday"), false),
            (Kind::Date, text("0000-00-00"), false),
            (Kind::Date, text("2024-02-00"), false),
            (Kind::Date, text("2024-02-29 23:59:59"), false),
            (Kind::Date, text("01/02/2024"), false),
            (Kind::Date, Value::Integer(19_000), false),
            (Kind::Timestamp, text("2024-02-29 12:00:00"), true),
            (Kind::Timestamp, text("2024-02-29T12:00:00.123456"), true),
            (Kind::Timestamp, text("2024-02-29"), true),
            (Kind::Timestamp, text("now"), false),
            (Kind::Timestamp, text("2024-02-29 12:00:00+02:00"), false),
            (Kind::Timestamp, text("2024-02-29 12:00:00.1234567"), false),
            (Kind::TimestampTz, text("2024-02-29 12:00:00+02:00"), true),
            (Kind::TimestampTz, text("2024-02-29 12:00:00Z"), true),
            (Kind::TimestampTz, text("2024-02-29 12:00:00"), false),
            (Kind::Time, text("12:00"), true),
            (Kind::Time, text("12:00:00."), false),
            (Kind::Text, blob(), false),
            (Kind::Text, Value::Integer(5), false),
            (Kind::Blob, Value::Integer(5), false),
            (Kind::Blob, text("ab"), false),
            (Kind::Blob, blob(), true),
            (Kind::Integer, text("12"), false),
            (Kind::Integer, Value::Real(1.0), false),
            (Kind::Real, Value::Integer((1 << 53) + 1), false),
            (Kind::Real, Value::Integer(7), true),
            (Kind::Boolean, Value::Integer(1), true),
            (Kind::Boolean, Value::Integer(2), false),
            (Kind::Boolean, text("t"), false),
            (Kind::Numeric, text("-123456789012345678901234567890.5"), true),
            (Kind::Numeric, text("NaN"), false),
            (Kind::Unsigned, text("18446744073709551615"), true),
            (Kind::Unsigned, text("-1"), false),
            (Kind::Numeric, text("1."), false),
            (Kind::Uuid, text("6f0f6141-5bdd-eea0-c000-00000000000A"), true),
            (Kind::Uuid, text("{6f0f6141-5bdd-eea0-c000-00000000000A}"), false),
            (Kind::Integer, Value::Null, true),
        ] {
            assert_eq!(fits(kind, &value), expected, "{value} as {kind:?}");
        }
    }
}
