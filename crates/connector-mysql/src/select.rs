//! The SELECT of a chunk, of a border between two chunks, and of one row.

use connector::{Error, ErrorKind, Result};
use model::{Key, Kind, Range, Table, Value};

use crate::prepared::Param;
use crate::{session, sql};

/// Ready to be prepared; its rows have the table's stored columns.
#[derive(Debug, PartialEq)]
pub(crate) struct Select {
    pub(crate) sql: String,
    bounds: Vec<Bound>,
}

/// A value that a column is compared with.
#[derive(Clone, Debug, PartialEq)]
struct Bound {
    kind: Kind,
    value: Value,
}

impl Bound {
    /// In the form in which the server compares it as the column's own values, not as texts or as floating point numbers.
    fn param(&self) -> Option<Param<'_>> {
        Some(match (&self.value, self.kind) {
            (Value::Null, _) => Param::Null,
            (Value::Integer(integer), _) => Param::Integer(*integer),
            (Value::Real(real), _) => Param::Real(*real),
            (Value::Text(text), Kind::Unsigned) => {
                Param::Unsigned(std::str::from_utf8(text).ok()?.parse().ok()?)
            }
            // Our sessions are in UTC, and MariaDB knows no offset behind a time.
            (Value::Text(text), Kind::TimestampTz) => Param::Bytes(text.strip_suffix(b"+00:00")?),
            (Value::Text(text), _) => Param::Bytes(text),
            (Value::Blob(blob), _) => Param::Blob(blob),
            (Value::Unchanged, _) => return None,
        })
    }
}

impl Select {
    pub(crate) fn params(&self) -> Result<Vec<Param<'_>>> {
        self.bounds.iter().map(Bound::param).collect::<Option<_>>().ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "read a chunk's border").with("statement", &self.sql)
        })
    }

    /// The rows of a chunk, in the order of the key where there is one that orders chunks.
    pub(crate) fn range(table: &Table, range: &Range) -> Result<Select> {
        match range {
            Range::Whole => Ok(Select::new(table, Condition::default(), String::new())),
            Range::Keys { after, upto } => {
                let order = format!(" ORDER BY {}", key_list(table)?);
                Ok(Select::new(table, within(table, after.as_ref(), upto.as_ref())?, order))
            }
            Range::Blocks { .. } => Err(Error::new(ErrorKind::Setup, "read a chunk")
                .with("table", &table.name)
                .hint("MariaDB and MySQL have no block ranges")),
        }
    }

    /// The row that ends the next range of so many rows.
    pub(crate) fn border(
        table: &Table,
        after: Option<&Key>,
        upto: Option<&Key>,
        rows: u64,
    ) -> Result<Select> {
        let order = format!(" ORDER BY {} LIMIT 1 OFFSET {}", key_list(table)?, rows.saturating_sub(1));
        Ok(Select::new(table, within(table, after, upto)?, order))
    }

    pub(crate) fn by_key(table: &Table, key: &Key) -> Result<Select> {
        let columns = key_columns(table)?;
        let mut condition = Condition::default();
        for (&column, value) in columns.iter().zip(&key.0) {
            let column = &table.columns[column];
            let bound = Bound { kind: column.kind, value: value.clone() };
            condition.and(&format!("{} = ?", sql::ident(&column.name)), [bound]);
        }
        Ok(Select::new(table, condition, String::new()))
    }

    fn new(table: &Table, condition: Condition, tail: String) -> Select {
        let columns = sql::list(table.stored(), |at| sql::ident(&table.columns[at].name));
        let filter = match condition.sql.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", condition.sql),
        };
        let sql =
            format!("{} SELECT {columns} FROM {}{filter}{tail}", session::MARK, sql::table(&table.name));
        Select { sql, bounds: condition.bounds }
    }
}

#[derive(Default)]
struct Condition {
    sql: String,
    bounds: Vec<Bound>,
}

impl Condition {
    fn and(&mut self, sql: &str, bounds: impl IntoIterator<Item = Bound>) {
        if !self.sql.is_empty() {
            self.sql.push_str(" AND ");
        }
        self.sql.push_str(sql);
        self.bounds.extend(bounds);
    }
}

fn key_columns(table: &Table) -> Result<&[usize]> {
    table
        .key()
        .ok_or_else(|| Error::new(ErrorKind::Setup, "read a row by its key").with("table", &table.name))
}

fn key_list(table: &Table) -> Result<String> {
    Ok(sql::list(key_columns(table)?, |&at| sql::ident(&table.columns[at].name)))
}

/// Keys in `(after, upto]`.
fn within(table: &Table, after: Option<&Key>, upto: Option<&Key>) -> Result<Condition> {
    let columns = key_columns(table)?;
    let names: Vec<String> = columns.iter().map(|&at| sql::ident(&table.columns[at].name)).collect();
    let mut condition = Condition::default();
    for (border, strict, last) in [(after, ">", ">"), (upto, "<", "<=")] {
        let Some(key) = border else { continue };
        let bounds: Vec<Bound> = columns
            .iter()
            .zip(&key.0)
            .map(|(&at, value)| Bound { kind: table.columns[at].kind, value: value.clone() })
            .collect();
        let (sql, bounds) = beyond(&names, &bounds, strict, last);
        condition.and(&sql, bounds);
    }
    Ok(condition)
}

/// `(a > ? OR (a = ? AND b > ?))`: for a comparison of rows, `(a, b) > (?, ?)`, the server reads the whole index.
fn beyond(names: &[String], key: &[Bound], strict: &str, last: &str) -> (String, Vec<Bound>) {
    match (names, key) {
        ([name], [bound]) => (format!("{name} {last} ?"), vec![bound.clone()]),
        ([name, names @ ..], [bound, key @ ..]) => {
            let (rest, more) = beyond(names, key, strict, last);
            let bounds = [bound.clone(), bound.clone()].into_iter().chain(more).collect();
            (format!("({name} {strict} ? OR ({name} = ? AND {rest}))"), bounds)
        }
        _ => ("TRUE".to_owned(), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_keys_of_several_columns() {
        let names = ["`a`", "`b`", "`c`"].map(str::to_owned);
        let key = [1, 2, 3].map(|value| Bound { kind: Kind::Integer, value: Value::Integer(value) });
        let (sql, bounds) = beyond(&names, &key, "<", "<=");
        assert_eq!(sql, "(`a` < ? OR (`a` = ? AND (`b` < ? OR (`b` = ? AND `c` <= ?))))");
        assert_eq!(bounds, [0, 0, 1, 1, 2].map(|at: usize| key[at].clone()));
        assert_eq!(beyond(&names[..1], &key[..1], ">", ">"), ("`a` > ?".to_owned(), vec![key[0].clone()]));
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
}
