//! The identity of a row.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Row, Value};

/// The values of a table's key columns, in key order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key(pub Vec<Value>);

/// How the server orders one key column, where the client can do the same exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyOrder {
    /// By number: integers of up to 64 bits, with a sign or without, given as [`Value::Integer`] or as decimal text.
    Integer,
    /// By bytes of the text form: uuid in PostgreSQL's output form, text under the "C" collation.
    Bytes,
}

impl Key {
    /// Picks the key's cells out of a row.
    pub fn of(row: &Row, columns: &[usize]) -> Key {
        Key(columns.iter().map(|&column| row[column].clone()).collect())
    }

    /// Compares two keys as the server does; `None` when a value is not of the declared order, which must
    /// stop the caller: a guess would put a change under the wrong chunk's cut.
    pub fn compare(&self, other: &Key, orders: &[KeyOrder]) -> Option<Ordering> {
        for ((a, b), order) in self.0.iter().zip(&other.0).zip(orders) {
            let ordering = match order {
                KeyOrder::Integer => integer(a)?.cmp(&integer(b)?),
                KeyOrder::Bytes => bytes(a)?.cmp(bytes(b)?),
            };
            if ordering != Ordering::Equal {
                return Some(ordering);
            }
        }
        Some(Ordering::Equal)
    }
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Integer(integer) => Some(i128::from(*integer)),
        Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Text(bytes) | Value::Blob(bytes) => Some(bytes),
        _ => None,
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (at, value) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            value.fmt(f)?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_compare_by_number_and_bytes_by_bytes() {
        let key = |text: &str| Key(vec![Value::text(text)]);
        let compare = |a: &str, b: &str, order| key(a).compare(&key(b), &[order]);
        assert_eq!(compare("9", "10", KeyOrder::Integer), Some(Ordering::Less));
        assert_eq!(compare("-9", "-10", KeyOrder::Integer), Some(Ordering::Greater));
        assert_eq!(compare("9", "10", KeyOrder::Bytes), Some(Ordering::Greater));
        assert_eq!(
            compare("9223372036854775808", "18446744073709551615", KeyOrder::Integer),
            Some(Ordering::Less)
        );
        assert_eq!(compare("nine", "10", KeyOrder::Integer), None);
    }
}
