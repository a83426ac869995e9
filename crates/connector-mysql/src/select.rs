//! The SELECT of a chunk, of a border between two chunks, and of one row.

use connector::{Error, ErrorKind, Result};
use model::{Key, Table, Value};

use crate::key_column::{Bound, Comparison, Condition, KeyColumn};
use crate::prepared::Param;
use crate::{session, sql};

/// Ready to be prepared.
#[derive(Debug, PartialEq)]
pub(crate) struct Select {
    pub(crate) sql: String,
    bounds: Vec<Bound>,
}

impl Select {
    pub(crate) fn params(&self) -> Result<Vec<Param<'_>>> {
        self.bounds.iter().map(Bound::param).collect::<Option<_>>().ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "read a chunk's border").with("statement", &self.sql)
        })
    }

    /// All rows.
    pub(crate) fn whole(table: &Table) -> Select {
        Select::new(table, &stored(table), Condition::default(), "")
    }

    /// The rows with keys in `(after, upto]`, in the order of the key.
    pub(crate) fn within(
        table: &Table,
        key: &[KeyColumn],
        after: Option<&Key>,
        upto: Option<&Key>,
    ) -> Result<Select> {
        Ok(Select::new(table, &stored(table), within(key, after, upto)?, &ordered(key)))
    }

    /// The key that ends the next range of so many rows. Nothing else is selected: of each row that is passed over, the server
    /// would get everything that is.
    pub(crate) fn border(
        table: &Table,
        key: &[KeyColumn],
        after: Option<&Key>,
        upto: Option<&Key>,
        rows: u64,
    ) -> Result<Select> {
        let tail = format!("{} LIMIT 1 OFFSET {}", ordered(key), rows.saturating_sub(1));
        let selected = sql::list(key, KeyColumn::selected);
        Ok(Select::new(table, &selected, within(key, after, upto)?, &tail))
    }

    pub(crate) fn by_key(table: &Table, columns: &[KeyColumn], key: &Key) -> Select {
        let mut condition = Condition::default();
        for (column, value) in columns.iter().zip(&key.0) {
            condition.and(column.equal(value));
        }
        Select::new(table, &stored(table), condition, "")
    }

    fn new(table: &Table, selected: &str, condition: Condition, tail: &str) -> Select {
        let filter = match condition.sql.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", condition.sql),
        };
        let sql =
            format!("{} SELECT {selected} FROM {}{filter}{tail}", session::MARK, sql::table(&table.name));
        Select { sql, bounds: condition.bounds }
    }
}

fn stored(table: &Table) -> String {
    sql::list(table.stored(), |at| {
        let (name, declared) = (sql::ident(&table.columns[at].name), &table.columns[at].type_name);
        match declared.starts_with("enum(") && declared.contains("''") {
            // A value without a label is shown as empty text. No label ends with a space, so where there is an empty one
            // the two are told apart, and the one is refused.
            true => format!("IF({name} = 0, 'no label ', {name})"),
            false => name,
        }
    })
}

fn ordered(key: &[KeyColumn]) -> String {
    format!(" ORDER BY {}", sql::list(key, |column| column.name.clone()))
}

/// Keys in `(after, upto]`.
fn within(key: &[KeyColumn], after: Option<&Key>, upto: Option<&Key>) -> Result<Condition> {
    let mut condition = Condition::default();
    for (border, strict, last) in
        [(after, Comparison::Greater, Comparison::Greater), (upto, Comparison::Less, Comparison::LessOrEqual)]
    {
        if let Some(border) = border {
            condition.and(beyond(key, &border.0, strict, last)?);
        }
    }
    Ok(condition)
}

/// `(a > ? OR (a = ? AND b > ?))`: for a comparison of rows, `(a, b) > (?, ?)`, the server reads the whole index.
fn beyond(columns: &[KeyColumn], key: &[Value], strict: Comparison, last: Comparison) -> Result<Condition> {
    match (columns, key) {
        ([column], [value]) => column.compare(last, value),
        ([column, columns @ ..], [value, key @ ..]) => {
            let more = column.compare(strict, value)?;
            let mut same = column.compare(Comparison::Equal, value)?;
            same.and(beyond(columns, key, strict, last)?);
            Ok(Condition {
                sql: format!("({} OR ({}))", more.sql, same.sql),
                bounds: more.bounds.into_iter().chain(same.bounds).collect(),
            })
        }
        _ => Err(Error::new(ErrorKind::Corrupt, "read a chunk's border")
            .with("columns", columns.len())
            .with("values", key.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_column::{self, tests::table};

    #[test]
    fn a_range_of_keys_of_several_columns() {
        let columns = key_column::tests::columns(&[("a", "int(11)"), ("b", "int(11)"), ("c", "int(11)")]);
        let compare = |columns, values: &[i64]| {
            let key: Vec<Value> = values.iter().copied().map(Value::Integer).collect();
            beyond(columns, &key, Comparison::Less, Comparison::LessOrEqual)
        };
        let condition = compare(&columns, &[1, 2, 3]).unwrap();
        assert_eq!(condition.sql, "(`a` < ? OR (`a` = ? AND (`b` < ? OR (`b` = ? AND `c` <= ?))))");
        let params: Vec<_> = condition.bounds.iter().filter_map(Bound::param).collect();
        assert_eq!(params, [1, 1, 2, 2, 3].map(Param::Integer));
        assert_eq!(compare(&columns[..1], &[1]).unwrap().sql, "`a` <= ?");
        assert_eq!(compare(&columns, &[1, 2]).unwrap_err().kind, ErrorKind::Corrupt);
    }

    #[test]
    fn a_range_by_label_and_number() {
        let labels = "enum('b','a') charset utf8mb4 collate utf8mb4_general_ci";
        let (table, types) = table(&[("kind", labels), ("n", "int(11)")]);
        let columns = key_column::of(&table, &types).unwrap();
        let key = |label, number| Key(vec![Value::text(label), Value::Integer(number)]);
        let select = Select::within(&table, &columns, Some(&key("1", 7)), Some(&key("2", 9))).unwrap();
        assert_eq!(
            select.sql,
            "/* crossfade */ SELECT `kind`, `n` FROM `shop`.`t` WHERE (`kind` IN (2, 3) OR (`kind` = 1 AND `n` > ?)) \
             AND (`kind` IN (0, 1, 3) OR (`kind` = 2 AND `n` <= ?)) ORDER BY `kind`, `n`"
        );
        assert_eq!(select.params().unwrap(), [7, 9].map(Param::Integer));
        let border = Select::border(&table, &columns, None, None, 1_000).unwrap();
        assert_eq!(
            border.sql,
            "/* crossfade */ SELECT CAST(`kind` + 0 AS DECIMAL(3)), `n` FROM `shop`.`t` ORDER BY `kind`, `n` LIMIT 1 OFFSET 999"
        );
    }
}
