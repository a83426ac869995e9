//! The bytes inside a frame: transactions, changes, relations and the segment's head.
//!
//! Encoding appends to the frame's buffer and allocates nothing of its own. Decoding gives cells as slices of
//! the frame, so a cell that is kept keeps its block of the file in memory.

use bytes::Bytes;
use model::{Change, Position, Relation, RelationColumn, Row, TableName, Transaction, Value};

use super::segment::Id;

/// Why a payload with a good checksum cannot be read: it was written wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// What a frame of changes holds. The transaction's number is in the frame's header.
#[derive(Debug)]
pub(super) enum Item {
    Begin(Transaction),
    Change(Change),
    Commit(Position),
}

/// Where a segment continues, and what a reader who starts here must know.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    /// The segment that this one continues. Not told by names: an owner that was taken over may have begun one more.
    pub(super) before: Option<Id>,
    pub(super) first_seq: u64,
    /// The end of transaction `first_seq - 1`; `None` when there has been none.
    pub(super) last: Option<Position>,
    pub(super) relations: Vec<Relation>,
}

mod tag {
    pub(super) const BEGIN: u8 = 1;
    pub(super) const COMMIT: u8 = 2;
    pub(super) const INSERT: u8 = 3;
    pub(super) const UPDATE: u8 = 4;
    pub(super) const UPDATE_WITH_OLD: u8 = 5;
    pub(super) const DELETE: u8 = 6;
    pub(super) const TRUNCATE: u8 = 7;

    pub(super) const NULL: u8 = 0;
    pub(super) const UNCHANGED: u8 = 1;
    pub(super) const TEXT: u8 = 2;
    pub(super) const INTEGER: u8 = 3;
    pub(super) const REAL: u8 = 4;
    pub(super) const BLOB: u8 = 5;
}

pub(super) fn put_begin(out: &mut Vec<u8>, transaction: &Transaction) {
    out.push(tag::BEGIN);
    out.extend_from_slice(&transaction.id.to_le_bytes());
    out.extend_from_slice(&transaction.order.to_le_bytes());
    out.extend_from_slice(&transaction.committed_us.to_le_bytes());
}

pub(super) fn put_commit(out: &mut Vec<u8>, position: &Position) {
    out.push(tag::COMMIT);
    put_position(out, position);
}

pub(super) fn put_change(out: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Insert { relation, new } => {
            out.push(tag::INSERT);
            put_number(out, u64::from(*relation));
            put_row(out, new);
        }
        Change::Update { relation, old: None, new } => {
            out.push(tag::UPDATE);
            put_number(out, u64::from(*relation));
            put_row(out, new);
        }
        Change::Update { relation, old: Some(old), new } => {
            out.push(tag::UPDATE_WITH_OLD);
            put_number(out, u64::from(*relation));
            put_row(out, old);
            put_row(out, new);
        }
        Change::Delete { relation, old } => {
            out.push(tag::DELETE);
            put_number(out, u64::from(*relation));
            put_row(out, old);
        }
        Change::Truncate { relations, restart_identity } => {
            out.push(tag::TRUNCATE);
            out.push(u8::from(*restart_identity));
            put_number(out, relations.len() as u64);
            for relation in relations {
                put_number(out, u64::from(*relation));
            }
        }
    }
}

pub(super) fn put_relation(out: &mut Vec<u8>, relation: &Relation) {
    put_number(out, u64::from(relation.id));
    put_bytes(out, relation.table.schema.as_bytes());
    put_bytes(out, relation.table.name.as_bytes());
    out.push(u8::from(relation.whole_old_row));
    put_number(out, relation.columns.len() as u64);
    for column in &relation.columns {
        put_bytes(out, column.name.as_bytes());
        put_number(out, u64::from(column.type_id));
        out.extend_from_slice(&column.type_modifier.to_le_bytes());
        out.push(u8::from(column.key));
    }
}

pub(super) fn put_head(out: &mut Vec<u8>, head: &Head) {
    out.push(u8::from(head.before.is_some()));
    if let Some(before) = head.before {
        put_number(out, before.epoch);
        put_number(out, u64::from(before.number));
    }
    put_number(out, head.first_seq);
    out.push(u8::from(head.last.is_some()));
    if let Some(position) = &head.last {
        put_position(out, position);
    }
    put_number(out, head.relations.len() as u64);
    for relation in &head.relations {
        put_relation(out, relation);
    }
}

fn put_row(out: &mut Vec<u8>, row: &Row) {
    put_number(out, row.len() as u64);
    for value in row {
        match value {
            Value::Null => out.push(tag::NULL),
            Value::Unchanged => out.push(tag::UNCHANGED),
            Value::Text(bytes) => {
                out.push(tag::TEXT);
                put_bytes(out, bytes);
            }
            Value::Integer(integer) => {
                out.push(tag::INTEGER);
                out.extend_from_slice(&integer.to_le_bytes());
            }
            Value::Real(real) => {
                out.push(tag::REAL);
                out.extend_from_slice(&real.to_bits().to_le_bytes());
            }
            Value::Blob(bytes) => {
                out.push(tag::BLOB);
                put_bytes(out, bytes);
            }
        }
    }
}

fn put_position(out: &mut Vec<u8>, position: &Position) {
    out.extend_from_slice(&position.order.to_le_bytes());
    put_bytes(out, position.text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Seven bits a byte, lowest first: most lengths and counts are one byte.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

type Result<T> = std::result::Result<T, Malformed>;

/// Reads a payload from the front.
#[derive(Debug)]
pub(super) struct Decoder {
    payload: Bytes,
    at: usize,
}

impl Decoder {
    pub(super) fn new(payload: Bytes) -> Decoder {
        Decoder { payload, at: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.at == self.payload.len()
    }

    pub(super) fn item(&mut self, seq: u64) -> Result<Item> {
        Ok(match self.byte()? {
            tag::BEGIN => Item::Begin(Transaction {
                seq,
                id: u64::from_le_bytes(self.array()?),
                order: u64::from_le_bytes(self.array()?),
                committed_us: i64::from_le_bytes(self.array()?),
            }),
            tag::COMMIT => Item::Commit(self.position()?),
            tag::INSERT => Item::Change(Change::Insert { relation: self.number()?, new: self.row()? }),
            tag::UPDATE => {
                Item::Change(Change::Update { relation: self.number()?, old: None, new: self.row()? })
            }
            tag::UPDATE_WITH_OLD => Item::Change(Change::Update {
                relation: self.number()?,
                old: Some(self.row()?),
                new: self.row()?,
            }),
            tag::DELETE => Item::Change(Change::Delete { relation: self.number()?, old: self.row()? }),
            tag::TRUNCATE => {
                let restart_identity = self.flag()?;
                let relations = (0..self.count()?).map(|_| self.number()).collect::<Result<_>>()?;
                Item::Change(Change::Truncate { relations, restart_identity })
            }
            _ => return Err(Malformed("unknown kind of item")),
        })
    }

    pub(super) fn relation(&mut self) -> Result<Relation> {
        let id = self.number()?;
        let table = TableName { schema: self.text()?, name: self.text()? };
        let whole_old_row = self.flag()?;
        let column = |from: &mut Decoder| {
            Ok(RelationColumn {
                name: from.text()?,
                type_id: from.number()?,
                type_modifier: i32::from_le_bytes(from.array()?),
                key: from.flag()?,
            })
        };
        let columns = (0..self.count()?).map(|_| column(self)).collect::<Result<_>>()?;
        Ok(Relation { id, table, columns, whole_old_row })
    }

    pub(super) fn head(&mut self) -> Result<Head> {
        let before = match self.flag()? {
            true => Some(Id { epoch: self.number()?, number: self.number()? }),
            false => None,
        };
        let first_seq = self.number()?;
        let last = if self.flag()? { Some(self.position()?) } else { None };
        let relations = (0..self.count()?).map(|_| self.relation()).collect::<Result<_>>()?;
        Ok(Head { before, first_seq, last, relations })
    }

    fn row(&mut self) -> Result<Row> {
        let count = self.count()?;
        let mut row = Row::with_capacity(count);
        for _ in 0..count {
            row.push(match self.byte()? {
                tag::NULL => Value::Null,
                tag::UNCHANGED => Value::Unchanged,
                tag::TEXT => Value::Text(self.bytes()?),
                tag::INTEGER => Value::Integer(i64::from_le_bytes(self.array()?)),
                tag::REAL => Value::Real(f64::from_bits(u64::from_le_bytes(self.array()?))),
                tag::BLOB => Value::Blob(self.bytes()?),
                _ => return Err(Malformed("unknown kind of cell")),
            });
        }
        Ok(row)
    }

    fn position(&mut self) -> Result<Position> {
        Ok(Position { order: u64::from_le_bytes(self.array()?), text: self.text()? })
    }

    fn text(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| Malformed("a name that is not UTF-8"))
    }

    fn bytes(&mut self) -> Result<Bytes> {
        let len = self.count()?;
        let start = self.at;
        self.at += len;
        Ok(self.payload.slice(start..self.at))
    }

    fn flag(&mut self) -> Result<bool> {
        Ok(self.byte()? != 0)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.payload.get(self.at..self.at + N).and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.ok_or(Malformed("an item that ends early"))?;
        self.at += N;
        Ok(bytes)
    }

    /// A count of things of at least one byte each, or a length: never more than what is left.
    fn count(&mut self) -> Result<usize> {
        let count: u64 = self.number()?;
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= self.payload.len() - self.at)
            .ok_or(Malformed("a length beyond the frame's end"))
    }

    fn number<N: TryFrom<u64>>(&mut self) -> Result<N> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return N::try_from(number).map_err(|_| Malformed("a number out of range"));
            }
        }
        Err(Malformed("a number out of range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_width() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            let mut decoder = Decoder::new(out.into());
            assert_eq!(decoder.number(), Ok(number));
            assert!(decoder.is_done());
        }
    }

    #[test]
    fn a_payload_cut_anywhere_is_an_error_and_never_a_panic() {
        let change = Change::Update {
            relation: 300,
            old: Some(vec![Value::text("k"), Value::Unchanged]),
            new: vec![Value::Blob(Bytes::from_static(&[7; 200])), Value::Integer(-1)],
        };
        let mut out = Vec::new();
        put_change(&mut out, &change);
        for len in 0..out.len() {
            assert!(Decoder::new(Bytes::copy_from_slice(&out[..len])).item(1).is_err(), "{len}");
        }
        assert!(matches!(Decoder::new(out.into()).item(1), Ok(Item::Change(read)) if read == change));
    }
}
