//! One cell, as its source's log or chunk read gives it.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One cell of a row.
///
/// A source with typed cells (SQLite) uses the typed variants; a source whose log is text (PostgreSQL) gives
/// every cell that is present as [`Value::Text`] in the type's own output form. Equality and hashing are by
/// content, reals by their bits, so that a value can be part of a [`crate::Key`].
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    /// The log did not carry this cell (PostgreSQL's unchanged TOAST; the non-key cells of an old key).
    /// It must never overwrite a value: folding and applying keep what the row has.
    Unchanged,
    Text(Bytes),
    Integer(i64),
    Real(f64),
    Blob(Bytes),
}

/// Cells in the order of the table's columns.
pub type Row = Vec<Value>;

impl Value {
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(Bytes::from(text.into()))
    }

    /// Bytes that this cell occupies in memory, for budgets. A floor of 16 stands for the cell itself.
    pub fn weight(&self) -> usize {
        match self {
            Value::Text(bytes) | Value::Blob(bytes) => 16 + bytes.len(),
            Value::Null | Value::Unchanged | Value::Integer(_) | Value::Real(_) => 16,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    pub fn is_unchanged(&self) -> bool {
        matches!(self, Value::Unchanged)
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) | (Value::Unchanged, Value::Unchanged) => true,
            (Value::Text(a), Value::Text(b)) | (Value::Blob(a), Value::Blob(b)) => a == b,
            (Value::Integer(a), Value::Integer(b)) => a == b,
            (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
            _ => false,
        }
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Value::Null | Value::Unchanged => {}
            Value::Text(bytes) | Value::Blob(bytes) => bytes.hash(state),
            Value::Integer(integer) => integer.hash(state),
            Value::Real(real) => real.to_bits().hash(state),
        }
    }
}

/// For messages and quarantine records: at most 80 characters of content, never the whole of a large value.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("NULL"),
            Value::Unchanged => f.write_str("(unchanged)"),
            Value::Integer(integer) => write!(f, "{integer}"),
            Value::Real(real) => write!(f, "{real}"),
            Value::Text(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                match text.char_indices().nth(80) {
                    Some((end, _)) => write!(f, "'{}…' ({} bytes)", &text[..end], bytes.len()),
                    None => write!(f, "'{text}'"),
                }
            }
            Value::Blob(bytes) => {
                f.write_str("x'")?;
                bytes.iter().take(40).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                if bytes.len() > 40 { write!(f, "…' ({} bytes)", bytes.len()) } else { f.write_str("'") }
            }
        }
    }
}

/// The stored form, used for keys in the chunk ledger: readable, and exact for every value.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Null,
    Unchanged,
    Text(String),
    /// Text that is not UTF-8, as hexadecimal.
    RawText(String),
    Integer(i64),
    /// The bits of the real, so that NaN and −0 survive.
    Real(u64),
    Blob(String),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => Stored::Null,
            Value::Unchanged => Stored::Unchanged,
            Value::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Stored::Text(text.to_owned()),
                Err(_) => Stored::RawText(to_hex(bytes)),
            },
            Value::Integer(integer) => Stored::Integer(*integer),
            Value::Real(real) => Stored::Real(real.to_bits()),
            Value::Blob(bytes) => Stored::Blob(to_hex(bytes)),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        let bytes = |hex: String| {
            from_hex(&hex).ok_or_else(|| serde::de::Error::custom("expected pairs of hexadecimal digits"))
        };
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Null => Value::Null,
            Stored::Unchanged => Value::Unchanged,
            Stored::Text(text) => Value::text(text),
            Stored::RawText(hex) => Value::Text(bytes(hex)?),
            Stored::Integer(integer) => Value::Integer(integer),
            Stored::Real(bits) => Value::Real(f64::from_bits(bits)),
            Stored::Blob(hex) => Value::Blob(bytes(hex)?),
        })
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Option<Bytes> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_exact() {
        let values = vec![
            Value::Null,
            Value::Unchanged,
            Value::text("a'\"\u{0}é"),
            Value::Text(Bytes::from_static(&[0xff, 0x00])),
            Value::Integer(i64::MIN),
            Value::Real(-0.0),
            Value::Real(f64::NAN),
            Value::Blob(Bytes::from_static(&[0, 1, 255])),
        ];
        let json = serde_json::to_string(&values).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Value>>(&json).unwrap(), values);
    }

    #[test]
    fn a_long_value_is_shortened_for_people() {
        let shown = Value::text("x".repeat(1000)).to_string();
        assert!(shown.len() < 120 && shown.contains("1000 bytes"), "{shown}");
    }
}
