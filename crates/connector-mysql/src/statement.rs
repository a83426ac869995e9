//! The statements that write one table, with their values. Pure: text and parameters from names, types and rows.

use std::sync::Arc;

use bytes::Bytes;
use connector::{Error, ErrorKind, Result};
use model::{Key, Kind, Row, Table};

use crate::column_type::ColumnType;
use crate::prepared::Param;
use crate::target::Target;
use crate::{fit, line, sql, value};

/// A statement, and what its placeholders stand for.
#[derive(Debug, PartialEq)]
pub(crate) struct Bound<'a> {
    pub(crate) sql: Arc<str>,
    pub(crate) params: Vec<Param<'a>>,
}

/// One table, as the source's catalog has it and as the target has it.
pub(crate) struct TableWriter {
    pub(crate) table: Table,
    pub(crate) target: Target,
    /// Quoted.
    name: String,
    columns: Vec<String>,
    /// Indexes of the columns that are written, and of the key's; both into the catalog's columns.
    pub(crate) stored: Vec<usize>,
    key: Vec<usize>,
    insert: Arc<str>,
    delete: Arc<str>,
    /// By the columns that they set.
    updates: Vec<(Vec<usize>, Arc<str>)>,
    /// The columns that the row in hand carries; kept for its memory.
    carried: Vec<usize>,
}

/// The protocol counts them in two bytes.
const PARAMS_MAX: usize = 65_535;
/// So many sets of columns are kept for updates. A source with full row images has one or two.
const UPDATES_MAX: usize = 100;

impl TableWriter {
    pub(crate) fn new(table: &Table, target: Target) -> TableWriter {
        let columns: Vec<String> = table.columns.iter().map(|column| sql::ident(&column.name)).collect();
        let key = table.key().map_or_else(Vec::new, <[usize]>::to_vec);
        let stored: Vec<usize> = table.stored().collect();
        let name = sql::table(&target.name);
        TableWriter {
            insert: format!(
                "INSERT INTO {name} ({}) VALUES ({})",
                sql::list(&stored, |&at| columns[at].clone()),
                sql::list(&stored, |_| "?".to_owned())
            )
            .into(),
            delete: format!("DELETE FROM {name} WHERE {}", equal(&columns, &key)).into(),
            stored,
            table: table.clone(),
            target,
            name,
            columns,
            key,
            updates: Vec::new(),
            carried: Vec::new(),
        }
    }

    pub(crate) fn insert<'a>(&self, row: &'a Row) -> Result<Bound<'a>> {
        let mut params = Vec::with_capacity(self.stored.len());
        fit::row(&self.table, &self.target, row, &self.stored, &mut params)?;
        Ok(Bound { sql: Arc::clone(&self.insert), params })
    }

    /// Inserts the rows of a file.
    pub(crate) fn load_data(&self) -> String {
        let columns = sql::list(&self.stored, |&at| self.columns[at].clone());
        format!("LOAD DATA LOCAL INFILE 'crossfade' INTO TABLE {} {} ({columns})", self.name, line::FORMAT)
    }

    pub(crate) fn delete<'a>(&self, key: &'a Key) -> Result<Bound<'a>> {
        let mut params = Vec::with_capacity(self.key.len());
        fit::key(&self.table, &self.target, key, &mut params)?;
        Ok(Bound { sql: Arc::clone(&self.delete), params })
    }

    /// Sets the cells that the row carries. Without any it is still looked whether the row is there.
    pub(crate) fn update<'a>(&mut self, key: &'a Key, row: &'a Row) -> Result<Bound<'a>> {
        self.carry(row, Some(key));
        let mut params = Vec::with_capacity(self.carried.len() + self.key.len());
        fit::row(&self.table, &self.target, row, &self.carried, &mut params)?;
        fit::key(&self.table, &self.target, key, &mut params)?;
        let known = self.updates.iter().find(|(cells, _)| *cells == self.carried);
        let sql = match known {
            Some((_, sql)) => Arc::clone(sql),
            None => {
                let set = self.set(&self.carried);
                let sql: Arc<str> =
                    format!("UPDATE {} SET {set} WHERE {}", self.name, equal(&self.columns, &self.key))
                        .into();
                if self.updates.len() == UPDATES_MAX {
                    self.updates.clear();
                }
                self.updates.push((self.carried.clone(), Arc::clone(&sql)));
                sql
            }
        };
        Ok(Bound { sql, params })
    }

    /// Whether an update gives the row another key.
    pub(crate) fn moves(&self, key: &Key, row: &Row) -> bool {
        key.0.iter().zip(&self.key).any(|(old, &column)| row[column] != *old)
    }

    /// The columns that an update sets: those whose cell is carried, without the key where it stays as it is.
    pub(crate) fn cells<'a>(
        &'a self,
        row: &'a Row,
        key: Option<&'a Key>,
    ) -> impl Iterator<Item = usize> + 'a {
        let moves = key.is_none_or(|key| self.moves(key, row));
        let carried = self.stored.iter().copied().filter(|&column| !row[column].is_unchanged());
        carried.filter(move |column| moves || !self.key.contains(column))
    }

    /// Notes them.
    fn carry(&mut self, row: &Row, key: Option<&Key>) {
        let mut carried = std::mem::take(&mut self.carried);
        carried.clear();
        carried.extend(self.cells(row, key));
        self.carried = carried;
    }

    /// The assignments of an update. A point in time that is not set is set to itself: it may be one that the server moves with
    /// each update (ON UPDATE CURRENT_TIMESTAMP).
    fn set(&self, cells: &[usize]) -> String {
        let is_moment = |column: &usize| {
            matches!(
                self.target.columns[*column],
                Some(ColumnType::DateTime { .. } | ColumnType::Timestamp { .. })
            )
        };
        let kept = self.stored.iter().filter(|column| is_moment(column) && !cells.contains(column));
        let itself = |&column: &usize| format!("{0} = {0}", self.columns[column]);
        let mut set: Vec<String> = cells.iter().map(|&cell| format!("{} = ?", self.columns[cell])).collect();
        set.extend(kept.map(itself));
        if set.is_empty() {
            set.extend(self.stored.first().map(itself));
        }
        set.join(", ")
    }

    /// `None` when there is nothing to set.
    pub(crate) fn update_whole<'a>(&mut self, old: &'a Row, row: &'a Row) -> Result<Option<Bound<'a>>> {
        self.carry(row, None);
        if self.carried.is_empty() {
            return Ok(None);
        }
        let mut params = Vec::with_capacity(self.carried.len() + self.stored.len());
        fit::row(&self.table, &self.target, row, &self.carried, &mut params)?;
        fit::row(&self.table, &self.target, old, &self.stored, &mut params)?;
        let sql =
            format!("UPDATE {} SET {} WHERE {} LIMIT 1", self.name, self.set(&self.carried), self.same_row());
        Ok(Some(Bound { sql: sql.into(), params }))
    }

    pub(crate) fn delete_whole<'a>(&self, old: &'a Row) -> Result<Bound<'a>> {
        let mut params = Vec::with_capacity(self.stored.len());
        fit::row(&self.table, &self.target, old, &self.stored, &mut params)?;
        let sql = format!("DELETE FROM {} WHERE {} LIMIT 1", self.name, self.same_row());
        Ok(Bound { sql: sql.into(), params })
    }

    /// Every cell is what it was. Text by its bytes: a collation takes different texts for one.
    fn same_row(&self) -> String {
        let same = |&at: &usize| {
            let (column, value) = if self.is_text(at) { self.bytes(at) } else { self.plain(at) };
            format!("{column} <=> {value}")
        };
        self.stored.iter().map(same).collect::<Vec<_>>().join(" AND ")
    }

    fn is_text(&self, at: usize) -> bool {
        matches!(
            self.target.columns[at],
            Some(
                ColumnType::Char { .. }
                    | ColumnType::VarChar { .. }
                    | ColumnType::Text { .. }
                    | ColumnType::Enum { .. }
                    | ColumnType::Set { .. }
                    | ColumnType::JsonText { .. }
            )
        )
    }

    /// A column and a placeholder, compared as the column's type compares.
    fn plain(&self, at: usize) -> (String, &'static str) {
        (self.columns[at].clone(), "?")
    }

    /// The same, compared by the bytes of their text.
    fn bytes(&self, at: usize) -> (String, &'static str) {
        (format!("CAST(CONVERT({} USING utf8mb4) AS BINARY)", self.columns[at]), "CAST(? AS BINARY)")
    }

    /// The same, in the order that ranges of keys have: that of numbers, or that of bytes. A UUID has one of its own here.
    fn ordered(&self, at: usize) -> (String, &'static str) {
        match self.target.columns[at] {
            Some(ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6) => self.bytes(at),
            _ if self.is_text(at) => self.bytes(at),
            _ => self.plain(at),
        }
    }

    /// Deletes all rows. What TRUNCATE does cannot be rolled back.
    pub(crate) fn empty(&self) -> Bound<'static> {
        Bound { sql: format!("DELETE FROM {}", self.name).into(), params: Vec::new() }
    }

    /// Reads the row under a key, for [`TableWriter::decode`].
    pub(crate) fn select<'a>(&self, key: &'a Key) -> Result<Bound<'a>> {
        let columns = sql::list(&self.stored, |&at| self.columns[at].clone());
        let by_key = equal(&self.columns, &self.key);
        let sql = format!("SELECT {columns} FROM {} WHERE {by_key} FOR UPDATE", self.name);
        let mut params = Vec::with_capacity(self.key.len());
        fit::key(&self.table, &self.target, key, &mut params)?;
        Ok(Bound { sql: sql.into(), params })
    }

    /// Puts the stored cells into a row, as values that fit into it again.
    pub(crate) fn decode(&self, cells: &mut [Option<Bytes>], row: &mut Row) -> Result<()> {
        for (&at, cell) in self.stored.iter().zip(cells) {
            let Some(column_type) = &self.target.columns[at] else { continue };
            let column_type = match column_type {
                // The source's values have an offset, and are in UTC here.
                ColumnType::DateTime { fraction } if self.table.columns[at].kind == Kind::TimestampTz => {
                    &ColumnType::Timestamp { fraction: *fraction }
                }
                other => other,
            };
            row[at] = value::from_binary(column_type, cell.take()).map_err(|error| {
                error
                    .into_error("read a row of the target")
                    .with("table", &self.table.name)
                    .with("column", &self.table.columns[at].name)
            })?;
        }
        Ok(())
    }

    /// Keys in `(after, upto]` but for these, in the order that ranges of keys have.
    pub(crate) fn delete_range<'a>(
        &self,
        after: Option<&'a Key>,
        upto: Option<&'a Key>,
        except: &'a [Key],
    ) -> Result<Bound<'a>> {
        let (mut conditions, mut params) = (Vec::new(), Vec::new());
        for (border, strict, last) in [(after, ">", ">"), (upto, "<", "<=")] {
            if let Some(border) = border {
                conditions.push(self.beyond(&self.key, strict, last));
                self.bind_beyond(border, &mut params)?;
            }
        }
        if !except.is_empty() {
            let key: Vec<_> = self.key.iter().map(|&at| self.ordered(at)).collect();
            let one = format!("({})", sql::list(&key, |(_, value)| (*value).to_owned()));
            conditions.push(format!(
                "({}) NOT IN ({})",
                sql::list(&key, |(column, _)| column.clone()),
                sql::list(except, |_| one.clone())
            ));
            for key in except {
                fit::key(&self.table, &self.target, key, &mut params)?;
            }
        }
        if params.len() > PARAMS_MAX {
            return Err(Error::new(ErrorKind::Setup, "empty a part of a table")
                .with("table", &self.table.name)
                .with("rows to be kept", except.len())
                .hint("the source emptied the table while it was copied, and more rows were read anew than one statement can spare: copy it again"));
        }
        let filter = if conditions.is_empty() { "TRUE".to_owned() } else { conditions.join(" AND ") };
        Ok(Bound { sql: format!("DELETE FROM {} WHERE {filter}", self.name).into(), params })
    }

    /// `(a > ? OR (a = ? AND b > ?))`
    fn beyond(&self, key: &[usize], strict: &str, last: &str) -> String {
        match key {
            [] => "TRUE".to_owned(),
            [at] => {
                let (column, value) = self.ordered(*at);
                format!("{column} {last} {value}")
            }
            [at, rest @ ..] => {
                let (column, value) = self.ordered(*at);
                let rest = self.beyond(rest, strict, last);
                format!("({column} {strict} {value} OR ({column} = {value} AND {rest}))")
            }
        }
    }

    /// The placeholders of [`TableWriter::beyond`]: all values but the last stand there twice.
    fn bind_beyond<'a>(&self, border: &'a Key, params: &mut Vec<Param<'a>>) -> Result<()> {
        let mut values = Vec::with_capacity(self.key.len());
        fit::key(&self.table, &self.target, border, &mut values)?;
        if let Some((last, others)) = values.split_last() {
            params.extend(others.iter().flat_map(|value| [*value, *value]));
            params.push(*last);
        }
        Ok(())
    }
}

fn equal(columns: &[String], key: &[usize]) -> String {
    key.iter().map(|&at| format!("{} = ?", columns[at])).collect::<Vec<_>>().join(" AND ")
}

#[cfg(test)]
pub(crate) mod tests;
