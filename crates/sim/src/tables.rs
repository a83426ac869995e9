//! What the simulated databases hold: a few small tables of one shape.

use std::collections::BTreeMap;

use model::{Catalog, Column, Identity, Key, KeyOrder, Kind, Table, TableName, Unique, Value};

/// How a table differs from the plain one with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Without, rows are told apart as a whole and equal ones may exist.
    pub keyed: bool,
    /// The client can order the keys, so the table may be cut by key ranges.
    pub ordered: bool,
    /// `nick` is unique.
    pub unique: bool,
    /// That is checked at the end of the transaction, and not with every row.
    pub deferred: bool,
    /// The target has that unique index before the copy.
    pub unique_before: bool,
    /// The log gives the columns in another order than the catalog.
    pub log_reversed: bool,
}

/// A row of any of the tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub id: i64,
    pub nick: Option<i64>,
    /// Given to one write only, and rising with every write of a row: it tells which change made this row.
    pub version: u64,
    /// Stands for a large value: the log leaves it out when a write did not change it.
    pub large: u64,
}

/// Rows by slot: the key of a keyed table; where there is none, a number that the database gives.
pub(crate) type Rows = BTreeMap<i64, Row>;

const COLUMNS: [&str; 4] = ["id", "nick", "version", "large"];
pub const LARGE: usize = 3;

impl Row {
    pub(crate) fn cells(&self) -> model::Row {
        let nick = self.nick.map_or(Value::Null, Value::Integer);
        vec![
            Value::Integer(self.id),
            nick,
            Value::Integer(self.version.cast_signed()),
            Value::Integer(self.large.cast_signed()),
        ]
    }

    /// Puts the cells that are there over this row's.
    pub(crate) fn overlaid(&self, cells: &model::Row) -> Row {
        let number = |at: usize, before: i64| match cells[at] {
            Value::Integer(number) => number,
            _ => before,
        };
        Row {
            id: number(0, self.id),
            nick: match cells[1] {
                Value::Integer(number) => Some(number),
                Value::Unchanged => self.nick,
                _ => None,
            },
            version: number(2, self.version.cast_signed()).cast_unsigned(),
            large: number(LARGE, self.large.cast_signed()).cast_unsigned(),
        }
    }

    /// A row whose cells are all there; `None` when one is missing.
    pub(crate) fn whole(cells: &model::Row) -> Option<Row> {
        let empty = Row { id: 0, nick: None, version: 0, large: 0 };
        (!cells.iter().any(Value::is_unchanged)).then(|| empty.overlaid(cells))
    }
}

pub(crate) fn key(id: i64) -> Key {
    Key(vec![Value::Integer(id)])
}

/// The key in a row's cells, if it is there.
pub(crate) fn id_of(cells: &model::Row) -> Option<i64> {
    match cells[0] {
        Value::Integer(id) => Some(id),
        _ => None,
    }
}

pub(crate) fn id(key: &Key) -> i64 {
    match key.0[..] {
        [Value::Integer(id)] => id,
        _ => unreachable!("the simulated tables have one integer key"),
    }
}

pub(crate) fn name(table: usize) -> TableName {
    TableName::new("sim", format!("t{table}"))
}

pub(crate) fn catalog(shapes: &[Shape]) -> Catalog {
    Catalog { tables: shapes.iter().enumerate().map(|(at, shape)| table(at, shape)).collect() }
}

fn table(at: usize, shape: &Shape) -> Table {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        type_name: "bigint".to_owned(),
        type_id: 20,
        type_modifier: -1,
        number: 0,
        kind: Kind::Integer,
        nullable: *name == "nick",
        generated: false,
    };
    let order = shape.ordered.then(|| vec![KeyOrder::Integer]);
    Table {
        source_id: 0,
        name: name(at),
        columns: COLUMNS.iter().map(column).collect(),
        identity: match shape.keyed {
            true => Identity::Key { columns: vec![0], order },
            false => Identity::WholeRow,
        },
        unique: match shape.unique {
            true => vec![Unique { name: format!("t{at}_nick"), columns: vec![1] }],
            false => Vec::new(),
        },
        root: None,
        rows_estimate: None,
        // Large enough that a low threshold makes it a table that is cut by key ranges.
        bytes: 1000,
    }
}

/// The nick that two rows share, if any do.
pub(crate) fn twice(rows: &Rows) -> Option<i64> {
    let mut nicks: Vec<i64> = rows.values().filter_map(|row| row.nick).collect();
    nicks.sort_unstable();
    nicks.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// The rows without their slots, sorted: what two sides must have in common.
pub(crate) fn content(rows: &Rows) -> Vec<&Row> {
    let mut content: Vec<&Row> = rows.values().collect();
    content.sort_unstable();
    content
}
