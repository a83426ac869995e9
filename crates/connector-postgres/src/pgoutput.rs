//! Reads the messages of the output plugin `pgoutput`, protocol version 1.
//!
//! Cells are slices of the message: nothing is copied. No bytes make it panic; what cannot be a message is an
//! error. The only state is what the relations look like, which the plugin tells before it uses them.
//! Deliberately absent: streaming of open transactions, two-phase commit, binary cells.

use std::collections::HashMap;

use bytes::Bytes;
use model::{Change, Relation, RelationColumn, RelationId, Row, TableName, Value};

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's clock begins.
const EPOCH_US: i64 = 946_684_800_000_000;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Begin {
        /// Of the commit record.
        commit_lsn: u64,
        committed_us: i64,
        xid: u32,
    },
    Commit {
        /// Right behind the commit record.
        end_lsn: u64,
    },
    Relation(Relation),
    Change(Change),
    /// Types, origins and messages of the application: nothing that changes rows.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the message ends too early")]
    Short,
    #[error("bytes are left over behind the message")]
    Long,
    #[error("message {0:?} is not of protocol version 1")]
    Kind(char),
    #[error("a cell is marked {0:?}")]
    Cell(char),
    #[error("a tuple is marked {0:?}")]
    Tuple(char),
    #[error("relation {0} has not been described")]
    UnknownRelation(RelationId),
    #[error("relation {relation} has {columns} columns and its tuple {cells}")]
    Width { relation: RelationId, columns: usize, cells: usize },
    #[error("a name is not UTF-8")]
    Name,
}

/// Knows the relations that have been described so far.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// Per relation, which columns are of the identity.
    keys: HashMap<RelationId, Vec<bool>>,
}

impl Decoder {
    pub(crate) fn decode(&mut self, message: Bytes) -> Result<Message, Malformed> {
        let mut input = Input { bytes: message, at: 0 };
        let decoded = match input.u8()? {
            b'B' => Message::Begin {
                commit_lsn: input.u64()?,
                committed_us: input.i64()?.saturating_add(EPOCH_US),
                xid: input.u32()?,
            },
            b'C' => {
                // Flags, unused so far, and the commit record's own place, known since Begin.
                input.skip(1 + 8)?;
                let end_lsn = input.u64()?;
                input.skip(8)?;
                Message::Commit { end_lsn }
            }
            b'R' => Message::Relation(self.relation(&mut input)?),
            b'I' => {
                let relation = input.u32()?;
                let new = self.tuple(&mut input, relation, b'N')?;
                Message::Change(Change::Insert { relation, new })
            }
            b'U' => Message::Change(self.update(&mut input)?),
            b'D' => {
                let relation = input.u32()?;
                let old = self.old_row(&mut input, relation)?;
                Message::Change(Change::Delete { relation, old })
            }
            b'T' => {
                let count = input.u32()?;
                let flags = input.u8()?;
                // One at a time: a count that the message cannot hold must not reserve memory.
                let mut relations = Vec::new();
                for _ in 0..count {
                    relations.push(input.u32()?);
                }
                Message::Change(Change::Truncate { relations, restart_identity: flags & 2 != 0 })
            }
            b'Y' | b'O' | b'M' => return Ok(Message::Other),
            other => return Err(Malformed::Kind(other.into())),
        };
        if input.at < input.bytes.len() {
            return Err(Malformed::Long);
        }
        Ok(decoded)
    }

    fn relation(&mut self, input: &mut Input) -> Result<Relation, Malformed> {
        let id = input.u32()?;
        let schema = match input.name()? {
            // The plugin's short form.
            name if name.is_empty() => "pg_catalog".to_owned(),
            name => name,
        };
        let table = TableName::new(schema, input.name()?);
        let whole_old_row = input.u8()? == b'f';
        let count = input.u16()?;
        let mut columns = Vec::new();
        for _ in 0..count {
            let key = input.u8()? & 1 != 0;
            let name = input.name()?;
            let type_id = input.u32()?;
            let type_modifier = input.u32()?.cast_signed();
            columns.push(RelationColumn { name, type_id, type_modifier, key });
        }
        self.keys.insert(id, columns.iter().map(|column| column.key).collect());
        Ok(Relation { id, table, columns, whole_old_row })
    }

    fn update(&self, input: &mut Input) -> Result<Change, Malformed> {
        let relation = input.u32()?;
        let old = match input.peek()? {
            b'K' | b'O' => Some(self.old_row(input, relation)?),
            _ => None,
        };
        let mut new = self.tuple(input, relation, b'N')?;
        // A cell that did not change and was left out is in the old row, if that came whole.
        if let Some(old) = &old {
            for (new, old) in new.iter_mut().zip(old) {
                if new.is_unchanged() {
                    new.clone_from(old);
                }
            }
        }
        Ok(Change::Update { relation, old, new })
    }

    /// An old row, or of a key the cells of the key: the others come as NULL and are not.
    fn old_row(&self, input: &mut Input, relation: RelationId) -> Result<Row, Malformed> {
        let kind = input.peek()?;
        if kind == b'O' {
            return self.tuple(input, relation, b'O');
        }
        let mut row = self.tuple(input, relation, b'K')?;
        let keys = self.keys.get(&relation).ok_or(Malformed::UnknownRelation(relation))?;
        for (cell, is_key) in row.iter_mut().zip(keys) {
            if !is_key {
                *cell = Value::Unchanged;
            }
        }
        Ok(row)
    }

    fn tuple(&self, input: &mut Input, relation: RelationId, kind: u8) -> Result<Row, Malformed> {
        let found = input.u8()?;
        if found != kind {
            return Err(Malformed::Tuple(found.into()));
        }
        let columns = self.keys.get(&relation).ok_or(Malformed::UnknownRelation(relation))?.len();
        let cells = usize::from(input.u16()?);
        if cells != columns {
            return Err(Malformed::Width { relation, columns, cells });
        }
        let mut row = Vec::with_capacity(cells);
        for _ in 0..cells {
            row.push(match input.u8()? {
                b'n' => Value::Null,
                b'u' => Value::Unchanged,
                b't' => {
                    let length = input.u32()?;
                    Value::Text(input.slice(length as usize)?)
                }
                other => return Err(Malformed::Cell(other.into())),
            });
        }
        Ok(row)
    }
}

/// A message and how far it has been read.
struct Input {
    bytes: Bytes,
    at: usize,
}

impl Input {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let array = self.bytes[self.at..].first_chunk().copied().ok_or(Malformed::Short)?;
        self.at += N;
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    fn peek(&self) -> Result<u8, Malformed> {
        self.bytes.get(self.at).copied().ok_or(Malformed::Short)
    }

    fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        self.slice(count).map(drop)
    }

    fn slice(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if count > self.bytes.len() - self.at {
            return Err(Malformed::Short);
        }
        let slice = self.bytes.slice(self.at..self.at + count);
        self.at += count;
        Ok(slice)
    }

    /// A name up to its NUL byte.
    fn name(&mut self) -> Result<String, Malformed> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == 0).ok_or(Malformed::Short)?;
        let name = std::str::from_utf8(&rest[..end]).map_err(|_| Malformed::Name)?.to_owned();
        self.at += end + 1;
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relation 7: `id` is the key, `body` and `n` are not.
    fn relation(identity: u8) -> Vec<u8> {
        let mut message = b"R\0\0\0\x07public\0t\0".to_vec();
        message.push(identity);
        message.extend(3u16.to_be_bytes());
        for (key, name, oid) in [(1u8, "id", 23u32), (0, "body", 25), (0, "n", 23)] {
            message.push(if identity == b'f' { 1 } else { key });
            message.extend(name.as_bytes());
            message.push(0);
            message.extend(oid.to_be_bytes());
            message.extend((-1i32).to_be_bytes());
        }
        message
    }

    /// `n` NULL, `u` unchanged, anything else the text.
    fn tuple(kind: u8, cells: &[&str]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend((cells.len() as u16).to_be_bytes());
        for cell in cells {
            match *cell {
                "n" | "u" => bytes.extend(cell.bytes()),
                text => {
                    bytes.push(b't');
                    bytes.extend((text.len() as u32).to_be_bytes());
                    bytes.extend(text.bytes());
                }
            }
        }
        bytes
    }

    fn change(kind: u8, tuples: &[Vec<u8>]) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0, 7];
        message.extend(tuples.concat());
        message
    }

    fn decoder(identity: u8) -> Decoder {
        let mut decoder = Decoder::default();
        decoder.decode(relation(identity).into()).unwrap();
        decoder
    }

    fn text(text: &str) -> Value {
        Value::text(text)
    }

    #[test]
    fn the_frame_of_a_transaction() {
        let mut begin = vec![b'B'];
        begin.extend(0x16_B374_D848u64.to_be_bytes());
        begin.extend(1_000_000i64.to_be_bytes());
        begin.extend(777u32.to_be_bytes());
        let committed_us = 946_684_801_000_000;
        let expected = Message::Begin { commit_lsn: 0x16_B374_D848, committed_us, xid: 777 };
        assert_eq!(Decoder::default().decode(begin.into()), Ok(expected));
        let mut commit = vec![b'C', 0];
        for number in [5u64, 6, 7] {
            commit.extend(number.to_be_bytes());
        }
        assert_eq!(Decoder::default().decode(commit.into()), Ok(Message::Commit { end_lsn: 6 }));
    }

    #[test]
    fn a_relation_says_its_key() {
        let Ok(Message::Relation(found)) = Decoder::default().decode(relation(b'd').into()) else { panic!() };
        assert_eq!(found.table, TableName::new("public", "t"));
        assert_eq!(
            found.columns[0],
            RelationColumn { name: "id".to_owned(), type_id: 23, type_modifier: -1, key: true }
        );
        assert!(!found.columns[1].key && !found.whole_old_row);
    }

    #[test]
    fn changes() {
        let new = || tuple(b'N', &["2", "u", "n"]);
        let row = |body: Value| vec![text("2"), body, Value::Null];
        let cases: Vec<(u8, Vec<u8>, Change)> = vec![
            (
                b'd',
                change(b'I', &[tuple(b'N', &["1", "x", "n"])]),
                Change::Insert { relation: 7, new: vec![text("1"), text("x"), Value::Null] },
            ),
            (
                b'd',
                change(b'U', &[new()]),
                Change::Update { relation: 7, old: None, new: row(Value::Unchanged) },
            ),
            // The cells beside the key come as NULL, and are not known.
            (
                b'd',
                change(b'U', &[tuple(b'K', &["1", "n", "n"]), new()]),
                Change::Update {
                    relation: 7,
                    old: Some(vec![text("1"), Value::Unchanged, Value::Unchanged]),
                    new: row(Value::Unchanged),
                },
            ),
            (
                b'f',
                change(b'U', &[tuple(b'O', &["1", "long", "n"]), new()]),
                Change::Update {
                    relation: 7,
                    old: Some(vec![text("1"), text("long"), Value::Null]),
                    new: row(text("long")),
                },
            ),
            (
                b'd',
                change(b'D', &[tuple(b'K', &["1", "n", "n"])]),
                Change::Delete { relation: 7, old: vec![text("1"), Value::Unchanged, Value::Unchanged] },
            ),
            (
                b'f',
                change(b'D', &[tuple(b'O', &["1", "x", "n"])]),
                Change::Delete { relation: 7, old: vec![text("1"), text("x"), Value::Null] },
            ),
            (
                b'd',
                b"T\0\0\0\x02\x03\0\0\0\x07\0\0\0\x08".to_vec(),
                Change::Truncate { relations: vec![7, 8], restart_identity: true },
            ),
        ];
        for (identity, message, expected) in cases {
            assert_eq!(decoder(identity).decode(message.into()), Ok(Message::Change(expected)));
        }
    }

    #[test]
    fn what_does_not_change_rows_is_passed_over() {
        for message in [&b"Y\0\0\0\x01s\0t\0"[..], b"O\0\0\0\0\0\0\0\x01o\0", b"M\x01anything"] {
            assert_eq!(Decoder::default().decode(Bytes::from_static(message)), Ok(Message::Other));
        }
        assert_eq!(Decoder::default().decode(Bytes::from_static(b"S\0")), Err(Malformed::Kind('S')));
    }

    #[test]
    fn a_cell_is_not_copied() {
        let message = Bytes::from(change(b'I', &[tuple(b'N', &["1", "some text", "n"])]));
        let range = message.as_ptr_range();
        let Ok(Message::Change(Change::Insert { new, .. })) = decoder(b'd').decode(message.clone()) else {
            panic!()
        };
        let Value::Text(cell) = &new[1] else { panic!() };
        assert!(range.contains(&cell.as_ptr()));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let samples = [
            relation(b'd'),
            change(b'I', &[tuple(b'N', &["1", "x", "n"])]),
            change(b'U', &[tuple(b'O', &["1", "x", "n"]), tuple(b'N', &["1", "u", "n"])]),
            change(b'D', &[tuple(b'K', &["1", "n", "n"])]),
            b"T\0\0\0\x02\x03\0\0\0\x07\0\0\0\x08".to_vec(),
        ];
        let mut random = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for sample in &samples {
            for cut in 0..sample.len() {
                assert!(decoder(b'd').decode(Bytes::copy_from_slice(&sample[..cut])).is_err());
            }
            for _ in 0..20_000 {
                let mut damaged = sample.clone();
                for _ in 0..=next() % 3 {
                    let at = next() as usize % damaged.len();
                    damaged[at] = next() as u8;
                }
                // Whatever it makes of it: it returns.
                drop(decoder(b'd').decode(damaged.into()));
            }
        }
        for _ in 0..20_000 {
            let noise: Vec<u8> = (0..next() % 64).map(|_| next() as u8).collect();
            drop(decoder(b'd').decode(noise.into()));
        }
    }
}
