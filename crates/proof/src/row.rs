//! The one table of the models, small enough to hash millions of states and in the product's terms where the product
//! is asked.
//!
//! Columns: `id` is the key, `unique` a second unique column that may be NULL, `small` changes with every update, and
//! `large` stands for a value that the log leaves out of an update that did not change it.

use std::fmt;

use model::{Catalog, Change, Column, Identity, Key, KeyOrder, Kind, Table, TableName, Unique, Value};

/// Keys are 1, 2 and 3.
pub const KEYS: u8 = 3;

/// What a target that was told to insert an unchanged cell has there: the value is gone.
pub const LOST: u8 = u8::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    pub id: u8,
    /// 0 is NULL.
    pub unique: u8,
    pub small: u8,
    pub large: u8,
}

/// By key, the first key at index 0.
pub type Rows = [Option<Row>; KEYS as usize];

pub fn all(rows: &Rows) -> impl Iterator<Item = Row> + '_ {
    rows.iter().flatten().copied()
}

pub fn at(rows: &mut Rows, id: u8) -> &mut Option<Row> {
    &mut rows[usize::from(id) - 1]
}

/// One change of one row, as it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Insert(Row),
    Update { old: Row, row: Row },
    Delete(Row),
    Truncate,
}

impl Write {
    pub fn apply(&self, rows: &mut Rows) {
        match *self {
            Write::Insert(row) => *at(rows, row.id) = Some(row),
            Write::Update { old, row } => {
                *at(rows, old.id) = None;
                *at(rows, row.id) = Some(row);
            }
            Write::Delete(row) => *at(rows, row.id) = None,
            Write::Truncate => *rows = Rows::default(),
        }
    }

    /// Whether two writes of different transactions must wait for each other: by row, by unique value, by table.
    pub fn meets(&self, other: &Write) -> bool {
        let rows = |write: &Write| match *write {
            Write::Insert(row) | Write::Delete(row) => [Some(row), None],
            Write::Update { old, row } => [Some(old), Some(row)],
            Write::Truncate => [None, None],
        };
        if matches!(self, Write::Truncate) || matches!(other, Write::Truncate) {
            return true;
        }
        rows(self).into_iter().flatten().any(|a| {
            rows(other).into_iter().flatten().any(|b| a.id == b.id || (a.unique != 0 && a.unique == b.unique))
        })
    }

    /// As the log carries it: the old key where it changed, and no large value that did not.
    pub fn change(&self) -> Change {
        match *self {
            Write::Insert(row) => Change::Insert { relation: 0, new: row.cells() },
            Write::Update { old, row } => {
                let mut new = row.cells();
                if row.large == old.large {
                    new[LARGE] = Value::Unchanged;
                }
                Change::Update { relation: 0, old: (old.id != row.id).then(|| old.identity()), new }
            }
            Write::Delete(row) => Change::Delete { relation: 0, old: row.identity() },
            Write::Truncate => Change::Truncate { relations: vec![0], restart_identity: false },
        }
    }
}

const LARGE: usize = 3;

impl Row {
    fn cells(self) -> model::Row {
        let unique = if self.unique == 0 { Value::Null } else { Value::Integer(self.unique.into()) };
        vec![
            Value::Integer(self.id.into()),
            unique,
            Value::Integer(self.small.into()),
            Value::Integer(self.large.into()),
        ]
    }

    fn identity(self) -> model::Row {
        vec![Value::Integer(self.id.into()), Value::Unchanged, Value::Unchanged, Value::Unchanged]
    }

    /// What these cells, written over `before`, make of a row.
    pub fn of(cells: &model::Row, before: Option<Row>) -> Row {
        let cell = |at: usize, kept: Option<u8>| match &cells[at] {
            Value::Unchanged => kept.unwrap_or(LOST),
            Value::Integer(integer) => u8::try_from(*integer).unwrap_or(LOST),
            _ => 0,
        };
        Row {
            id: cell(0, before.map(|row| row.id)),
            unique: cell(1, before.map(|row| row.unique)),
            small: cell(2, before.map(|row| row.small)),
            large: cell(LARGE, before.map(|row| row.large)),
        }
    }
}

pub fn key(id: u8) -> Key {
    Key(vec![Value::Integer(id.into())])
}

/// The number in a key; the models make no others.
pub fn id(key: &Key) -> u8 {
    match key.0.first() {
        Some(Value::Integer(id)) => u8::try_from(*id).unwrap_or(LOST),
        _ => LOST,
    }
}

pub fn catalog() -> Catalog {
    let column = |name: &str| Column {
        name: name.into(),
        type_name: "integer".into(),
        type_id: 0,
        type_modifier: -1,
        number: 0,
        kind: Kind::Integer,
        nullable: name == "unique",
        generated: false,
    };
    Catalog {
        tables: vec![Table {
            source_id: 0,
            name: name(),
            columns: ["id", "unique", "small", "large"].map(column).into(),
            identity: Identity::Key { columns: vec![0], order: Some(vec![KeyOrder::Integer]) },
            unique: vec![Unique { name: "second".into(), columns: vec![1] }],
            root: None,
            rows_estimate: None,
            bytes: 0,
        }],
    }
}

pub fn name() -> TableName {
    TableName::new("public", "t")
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unique = if self.unique == 0 { "NULL".to_owned() } else { self.unique.to_string() };
        let large = if self.large == LOST { "lost".to_owned() } else { self.large.to_string() };
        write!(f, "({}, {unique}, {}, {large})", self.id, self.small)
    }
}
