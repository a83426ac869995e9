//! A key column, compared with one of its own values as its index orders it.
//!
//! When a column meets a value of another type or collation, the server chooses how the two are compared, and that need not be how
//! the column's index is ordered: a collation may be refused, an ENUM is compared by its label. So a value is always said
//! to be what the column is.

use connector::{Error, ErrorKind, Result};
use model::{Kind, Table, Value};

use crate::column_type::ColumnType;
use crate::declared::{Declared, TextOf};
use crate::prepared::Param;
use crate::{fit, sql};

pub(crate) struct KeyColumn {
    /// Quoted.
    pub(crate) name: String,
    column_type: ColumnType,
    kind: Kind,
    /// What stands for one of the column's values.
    placeholder: String,
    order: Option<Order>,
}

/// By what an index on the column is ordered, and can be read from one value to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Value,
    /// By the number of the label, or of the labels' bits, up to `last`. The server reads a range of the index only for
    /// equality with such a number: so the numbers are listed (`Field_enum` in sql/field.cc, and EXPLAIN).
    Ordinal {
        last: u8,
    },
}

/// A value that a column is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bound {
    kind: Kind,
    value: Value,
}

/// A part of a WHERE clause, with what its placeholders stand for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Condition {
    pub(crate) sql: String,
    pub(crate) bounds: Vec<Bound>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Greater,
    Less,
    LessOrEqual,
}

/// The columns of a table's key.
pub(crate) fn of(table: &Table, types: &[ColumnType]) -> Result<Vec<KeyColumn>> {
    let key = table.key().ok_or_else(|| {
        Error::new(ErrorKind::Setup, "read a table by its key")
            .with("table", &table.name)
            .hint("the table has no key")
    })?;
    Ok(key
        .iter()
        .map(|&at| {
            let (column, column_type) = (&table.columns[at], types[at].clone());
            KeyColumn {
                name: sql::ident(&column.name),
                kind: column.kind,
                placeholder: placeholder(&column.type_name, &column_type),
                order: Order::of(&column_type),
                column_type,
            }
        })
        .collect())
}

fn placeholder(type_name: &str, column_type: &ColumnType) -> String {
    if let Some(TextOf { charset, collation }) = Declared::parse(type_name).text {
        return format!("CONVERT(? USING {charset}) COLLATE {collation}");
    }
    match column_type {
        ColumnType::Decimal { precision, scale } => format!("CAST(? AS DECIMAL({precision},{scale}))"),
        ColumnType::Time { fraction } => format!("CAST(? AS TIME({fraction}))"),
        _ => "?".to_owned(),
    }
}

impl Order {
    fn of(column_type: &ColumnType) -> Option<Order> {
        match column_type {
            // As many as one byte tells apart: longer lists would be slower than what they are for.
            ColumnType::Enum { labels, .. } => {
                u8::try_from(labels.len()).ok().map(|last| Order::Ordinal { last })
            }
            ColumnType::Set { labels, .. } => {
                let last = u8::MAX.checked_shr(8_u32.checked_sub(u32::try_from(labels.len()).ok()?)?)?;
                Some(Order::Ordinal { last })
            }
            // Never whole in an index.
            ColumnType::Text { .. }
            | ColumnType::Blob
            | ColumnType::Json
            | ColumnType::JsonText { .. }
            | ColumnType::Geometry
            | ColumnType::Vector => None,
            _ => Some(Order::Value),
        }
    }
}

impl KeyColumn {
    /// Whether the server reads its index from one value to another.
    pub(crate) fn is_ordered(&self) -> bool {
        self.order.is_some()
    }

    /// What is selected of a row that becomes a border.
    pub(crate) fn selected(&self) -> String {
        match self.order {
            Some(Order::Ordinal { .. }) => format!("CAST({} + 0 AS DECIMAL(3))", self.name),
            _ => self.name.clone(),
        }
    }

    /// The type of what is selected. A number of a label is an integer of four bytes or of eight; a decimal is always text.
    pub(crate) fn selected_type(&self) -> ColumnType {
        match self.order {
            Some(Order::Ordinal { .. }) => ColumnType::Decimal { precision: 3, scale: 0 },
            _ => self.column_type.clone(),
        }
    }

    /// With a value of a row.
    pub(crate) fn equal(&self, value: &Value) -> Condition {
        Condition {
            sql: format!("{} = {}", self.name, self.placeholder),
            bounds: vec![Bound { kind: self.kind, value: value.clone() }],
        }
    }

    /// With a value of a border.
    pub(crate) fn compare(&self, comparison: Comparison, value: &Value) -> Result<Condition> {
        let condition = match self.order {
            Some(Order::Ordinal { last }) => ordinal(value).map(|ordinal| Condition {
                sql: ordinals(&self.name, comparison, ordinal, u16::from(last)),
                bounds: Vec::new(),
            }),
            Some(Order::Value) => Some(Condition {
                sql: format!("{} {} {}", self.name, comparison.operator(), self.placeholder),
                bounds: vec![Bound { kind: self.kind, value: value.clone() }],
            }),
            None => None,
        };
        condition.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "read a chunk's border")
                .with("column", &self.name)
                .with("value", value)
        })
    }
}

fn ordinal(value: &Value) -> Option<u16> {
    match value {
        Value::Text(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    }
}

/// As a list, with one more that no row has: a list of one would be a constant, by which the server does not see that the index has
/// the order that is asked for, and an empty list is no SQL.
fn ordinals(name: &str, comparison: Comparison, ordinal: u16, last: u16) -> String {
    let range = match comparison {
        Comparison::Equal => return format!("{name} = {ordinal}"),
        Comparison::Greater => ordinal + 1..last + 1,
        Comparison::Less => 0..ordinal,
        Comparison::LessOrEqual => 0..ordinal + 1,
    };
    format!("{name} IN ({})", sql::list(range.chain([last + 1]), |ordinal| ordinal.to_string()))
}

impl Comparison {
    fn operator(self) -> &'static str {
        match self {
            Comparison::Equal => "=",
            Comparison::Greater => ">",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
        }
    }
}

impl Bound {
    /// In the form in which the server compares it as the column's own values, not as texts or as floating point numbers.
    pub(crate) fn param(&self) -> Option<Param<'_>> {
        fit::own(self.kind, &self.value)
    }
}

impl Condition {
    pub(crate) fn and(&mut self, other: Condition) {
        if !self.sql.is_empty() {
            self.sql.push_str(" AND ");
        }
        self.sql.push_str(&other.sql);
        self.bounds.extend(other.bounds);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use model::{Column, Identity, TableName};

    use super::*;
    use crate::charset::Charsets;
    use crate::declared::column_types;

    /// A table of these columns, all of them its key.
    pub(crate) fn table(columns: &[(&str, &str)]) -> (Table, Arc<[ColumnType]>) {
        let column = |(name, type_name): &(&str, &str)| Column {
            name: (*name).to_owned(),
            kind: Declared::parse(type_name).resolve(&Charsets::default()).unwrap().kind(),
            type_name: (*type_name).to_owned(),
            type_id: 0,
            type_modifier: -1,
            number: 0,
            nullable: false,
            generated: false,
        };
        let table = Table {
            name: TableName::new("shop", "t"),
            source_id: 0,
            columns: columns.iter().map(column).collect(),
            identity: Identity::Key { columns: (0..columns.len()).collect(), order: None },
            unique: Vec::new(),
            root: None,
            rows_estimate: Some(10_000),
            bytes: 1_000_000,
        };
        let types = column_types(&table, &Charsets::default()).unwrap();
        (table, types.into())
    }

    pub(crate) fn columns(columns: &[(&str, &str)]) -> Vec<KeyColumn> {
        let (table, types) = table(columns);
        of(&table, &types).unwrap()
    }

    fn only(type_name: &str) -> KeyColumn {
        columns(&[("k", type_name)]).remove(0)
    }

    #[test]
    fn a_value_says_that_it_is_what_the_column_is() {
        for (type_name, sql) in [
            ("decimal(30,4)", "`k` > CAST(? AS DECIMAL(30,4))"),
            ("decimal(10,0) unsigned zerofill", "`k` > CAST(? AS DECIMAL(10,0))"),
            ("time(3)", "`k` > CAST(? AS TIME(3))"),
            ("uuid", "`k` > ?"),
            (
                "varchar(9) charset latin1 collate latin1_swedish_ci",
                "`k` > CONVERT(? USING latin1) COLLATE latin1_swedish_ci",
            ),
            (
                "char(9) charset utf8mb4 collate utf8mb4_nopad_bin",
                "`k` > CONVERT(? USING utf8mb4) COLLATE utf8mb4_nopad_bin",
            ),
        ] {
            let value = Value::text("1");
            let condition = only(type_name).compare(Comparison::Greater, &value).unwrap();
            assert_eq!(condition.sql, sql);
            assert_eq!(condition.bounds.len(), 1);
            assert_eq!(condition.bounds[0].value, value);
        }
    }

    #[test]
    fn bounds_are_compared_as_the_column_compares() {
        let bound = |kind, text: &str| Bound { kind, value: Value::text(text) };
        assert_eq!(bound(Kind::Unsigned, "18446744073709551615").param(), Some(Param::Unsigned(u64::MAX)));
        assert_eq!(bound(Kind::Unsigned, "-1").param(), None);
        let moment = bound(Kind::TimestampTz, "2024-02-29 12:00:00+00:00");
        assert_eq!(moment.param(), Some(Param::Bytes(b"2024-02-29 12:00:00")));
        assert_eq!(bound(Kind::Text, "a").param(), Some(Param::Bytes(b"a")));
    }

    #[test]
    fn labels_are_compared_by_their_numbers() {
        let column = only("enum('c','b','a') charset utf8mb4 collate utf8mb4_general_ci");
        assert_eq!(column.selected(), "CAST(`k` + 0 AS DECIMAL(3))");
        assert_eq!(column.selected_type(), ColumnType::Decimal { precision: 3, scale: 0 });
        for (comparison, ordinal, sql) in [
            (Comparison::Equal, "2", "`k` = 2"),
            (Comparison::Greater, "1", "`k` IN (2, 3, 4)"),
            (Comparison::Greater, "3", "`k` IN (4)"),
            (Comparison::Less, "2", "`k` IN (0, 1, 4)"),
            (Comparison::Less, "0", "`k` IN (4)"),
            (Comparison::LessOrEqual, "2", "`k` IN (0, 1, 2, 4)"),
        ] {
            let condition = column.compare(comparison, &Value::text(ordinal)).unwrap();
            assert_eq!(condition, Condition { sql: sql.to_owned(), bounds: Vec::new() });
        }
        assert_eq!(column.compare(Comparison::Less, &Value::text("b")).unwrap_err().kind, ErrorKind::Corrupt);
        // A row is found by its label.
        let condition = column.equal(&Value::text("b"));
        assert_eq!(condition.sql, "`k` = CONVERT(? USING utf8mb4) COLLATE utf8mb4_general_ci");
    }

    #[test]
    fn long_lists_of_labels_have_no_order() {
        let labels = |word: &str, count: usize| {
            let labels = sql::list(0..count, |label| format!("'{label}'")).replace(", ", ",");
            only(&format!("{word}({labels}) charset utf8mb4 collate utf8mb4_general_ci")).order
        };
        for (word, count, order) in [
            ("enum", 1, Some(Order::Ordinal { last: 1 })),
            ("enum", 255, Some(Order::Ordinal { last: 255 })),
            ("enum", 256, None),
            ("set", 1, Some(Order::Ordinal { last: 1 })),
            ("set", 3, Some(Order::Ordinal { last: 7 })),
            ("set", 8, Some(Order::Ordinal { last: 255 })),
            ("set", 9, None),
        ] {
            assert_eq!(labels(word, count), order, "{word} of {count}");
        }
        assert_eq!(only("inet6").order, Some(Order::Value));
        assert_eq!(only("longtext charset utf8mb4 collate utf8mb4_bin").order, None);
    }
}
