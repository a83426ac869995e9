//! Cells, between SQLite's storage classes and the model's values.

use std::borrow::Cow;

use bytes::Bytes;
use connector::{Error, ErrorKind, Result};
use model::{Column, Kind, Value};
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

pub(crate) fn from_sqlite(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => Value::Integer(integer),
        ValueRef::Real(real) => Value::Real(real),
        // As stored: SQLite does not check that text is UTF-8, and neither may we.
        ValueRef::Text(text) => Value::Text(Bytes::copy_from_slice(text)),
        ValueRef::Blob(blob) => Value::Blob(Bytes::copy_from_slice(blob)),
    }
}

/// A value as a statement's parameter, in its own storage class.
pub(crate) struct Bound<'a>(pub(crate) &'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(integer) => ValueRef::Integer(*integer),
            Value::Real(real) => ValueRef::Real(*real),
            Value::Text(text) => ValueRef::Text(text),
            Value::Blob(blob) => ValueRef::Blob(blob),
            Value::Unchanged => {
                return Err(rusqlite::Error::ToSqlConversionFailure(
                    "a cell that the log did not carry".into(),
                ));
            }
        }))
    }
}

/// A value in SQLite's storage class for this column's kind.
///
/// A column from SQLite itself has no type number and keeps what it has: there even an INTEGER column may hold text. The
/// text of a typed engine is converted.
pub(crate) fn fit<'a>(value: &'a Value, column: &Column) -> Result<Cow<'a, Value>> {
    let text = match value {
        // SQLite would store NaN as NULL, without a word.
        Value::Real(real) if real.is_nan() => return Err(unfit(value, column)),
        Value::Text(text) if column.type_id != 0 => text,
        _ => return Ok(Cow::Borrowed(value)),
    };
    let words = || std::str::from_utf8(text).ok();
    let converted = match column.kind {
        Kind::Integer => words().and_then(|text| text.parse().ok()).map(Value::Integer),
        Kind::Real => {
            words().and_then(|text| text.parse().ok()).filter(|real: &f64| !real.is_nan()).map(Value::Real)
        }
        Kind::Boolean => match &text[..] {
            b"t" | b"true" => Some(Value::Integer(1)),
            b"f" | b"false" => Some(Value::Integer(0)),
            _ => None,
        },
        Kind::Blob => text.strip_prefix(b"\\x").and_then(from_hex).map(Value::Blob),
        _ => return Ok(Cow::Borrowed(value)),
    };
    converted.map(Cow::Owned).ok_or_else(|| unfit(value, column))
}

fn unfit(value: &Value, column: &Column) -> Error {
    Error::new(ErrorKind::Refused, "convert a value for SQLite")
        .with("column", &column.name)
        .with("type", &column.type_name)
        .with("value", value)
        .hint("SQLite has no such value in a column of this kind. Change the value on the source, or leave the table out.")
}

fn from_hex(digits: &[u8]) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: Kind, type_id: u32) -> Column {
        let name = "c".to_owned();
        let type_name = format!("{kind:?}");
        Column {
            name,
            type_name,
            type_id,
            type_modifier: -1,
            number: 0,
            kind,
            nullable: true,
            generated: false,
        }
    }

    #[test]
    fn text_of_a_typed_engine_becomes_a_storage_class() {
        for (kind, text, expected) in [
            (Kind::Integer, "-7", Some(Value::Integer(-7))),
            (Kind::Integer, "seven", None),
            (Kind::Real, "Infinity", Some(Value::Real(f64::INFINITY))),
            (Kind::Real, "NaN", None),
            (Kind::Boolean, "t", Some(Value::Integer(1))),
            (Kind::Boolean, "maybe", None),
            (Kind::Blob, "\\x00ff", Some(Value::Blob(Bytes::from_static(&[0, 255])))),
            (Kind::Blob, "\\x0", None),
            (Kind::Numeric, "1.10", Some(Value::text("1.10"))),
        ] {
            let value = Value::text(text);
            let converted = fit(&value, &column(kind, 23)).map(Cow::into_owned);
            assert_eq!(converted.ok(), expected, "{kind:?} {text}");
        }
    }

    #[test]
    fn a_value_from_sqlite_keeps_its_storage_class() {
        let value = Value::text("seven");
        assert_eq!(*fit(&value, &column(Kind::Integer, 0)).unwrap(), value);
    }
}
