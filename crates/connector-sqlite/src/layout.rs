//! How a table's rows are written into the change log.

use connector::{Error, ErrorKind, Result};
use model::Table;
use rusqlite::Connection;

use crate::catalog;
use crate::error::During;
use crate::sql::{self, quote};

/// The shape of one table's log entries, and what its triggers must know.
pub(crate) struct Layout {
    pub(crate) table: String,
    /// The columns that are logged for a new row: all but the generated ones.
    pub(crate) stored: Vec<String>,
    /// Of these, the ones that are logged for an old row: the key's, in its order, or all without a key.
    pub(crate) old: Vec<usize>,
    /// The name under which the rowid can be asked for; `None` for a WITHOUT ROWID table.
    pub(crate) rowid: Option<&'static str>,
    pub(crate) uniques: Vec<UniqueRule>,
    all_columns: Vec<String>,
}

/// One way in which a new row can collide with another one.
pub(crate) struct UniqueRule {
    parts: Vec<Part>,
    /// Only these columns matter to it; `None` when any may (an expression, a partial index).
    columns: Option<Vec<String>>,
}

enum Part {
    Column { name: String, collation: String },
    Expression(String),
}

impl Layout {
    pub(crate) fn read(connection: &Connection, table: &Table) -> Result<Layout> {
        let name = &table.name.name;
        let operation = "read a table's unique indexes";
        let stored_at: Vec<usize> = table.stored().collect();
        let old_at: Vec<usize> = table.key().map_or_else(|| stored_at.clone(), <[usize]>::to_vec);
        let old = old_at.iter().filter_map(|at| stored_at.iter().position(|stored| stored == at)).collect();
        let rowid = if catalog::is_without_rowid(connection, name).during(operation)? {
            None
        } else {
            Some(rowid_name(table)?)
        };
        let mut uniques = Vec::new();
        for index in catalog::indexes(connection, name).during(operation)? {
            let elements = index.create.as_deref().map(sql::index_elements).unwrap_or_default();
            let mut parts = Vec::new();
            for (at, part) in index.parts.iter().enumerate() {
                parts.push(match (part.column, elements.get(at)) {
                    (Some(column), _) => Part::Column {
                        name: table.columns[column].name.clone(),
                        collation: part.collation.clone(),
                    },
                    (None, Some(expression)) => Part::Expression(expression.clone()),
                    (None, None) => {
                        return Err(Error::new(ErrorKind::Setup, "understand a unique index")
                            .with("table", &table.name)
                            .with("index", &index.name)
                            .hint("Its CREATE INDEX statement could not be taken apart. Create the index anew with plain columns, or leave the table out."));
                    }
                });
            }
            let names = |part: &Part| match part {
                // A generated column changes with others.
                Part::Column { name, .. } if !is_generated(table, name) => Some(name.clone()),
                _ => None,
            };
            let columns = if index.partial { None } else { parts.iter().map(names).collect() };
            uniques.push(UniqueRule { parts, columns });
        }
        Ok(Layout {
            table: name.clone(),
            stored: stored_at.iter().map(|&at| table.columns[at].name.clone()).collect(),
            old,
            rowid,
            uniques,
            all_columns: table.columns.iter().map(|column| column.name.clone()).collect(),
        })
    }

    /// How many cells an entry of this table needs at most: an update has the old and the new row.
    pub(crate) fn width(&self) -> usize {
        self.old.len() + self.stored.len()
    }

    pub(crate) fn old_columns(&self) -> impl Iterator<Item = &str> + '_ {
        self.old.iter().map(|&at| self.stored[at].as_str())
    }

    /// What names one row within the table, as long as no statement changes it: an SQL expression over `row`
    /// (`NEW`, `OLD`, an alias).
    pub(crate) fn id(&self, row: &str) -> String {
        match self.rowid {
            Some(rowid) => format!("{row}.{rowid}"),
            None => {
                let parts: Vec<String> =
                    self.old_columns().map(|column| format!("quote({row}.{})", quote(column))).collect();
                parts.join(" || ',' || ")
            }
        }
    }

    /// True of the row `row` if it is the one that the entry `entry` of the tentative table is about.
    pub(crate) fn is_row(&self, row: &str, entry: &str) -> String {
        match self.rowid {
            Some(rowid) => format!("{row}.{rowid} = {entry}.id"),
            None => {
                // The comparison by columns finds the row by its index; the one by id is exact where a collation is not.
                let by_columns = sql::all(self.old_columns().enumerate(), |(at, column)| {
                    format!("{row}.{} IS {entry}.c{at}", quote(column))
                });
                format!("{by_columns} AND {} = {entry}.id", self.id(row))
            }
        }
    }

    /// Each rule as (what makes its tag, which rows `x` collide with NEW).
    pub(crate) fn collisions(&self) -> Vec<(String, String)> {
        let by_rowid = self
            .rowid
            .map(|rowid| (format!("'r:' || quote(NEW.{rowid})"), format!("x.{rowid} = NEW.{rowid}")));
        let by_index = self.uniques.iter().enumerate().map(|(at, rule)| {
            let values = rule.parts.iter().map(|part| format!("quote({})", self.new_value(part)));
            let tag = format!("'{at}:' || {}", values.collect::<Vec<_>>().join(" || ',' || "));
            let matches = sql::all(&rule.parts, |part| match part {
                Part::Column { name, collation } => {
                    let name = quote(name);
                    format!("x.{name} = NEW.{name} COLLATE {}", quote(collation))
                }
                Part::Expression(expression) => format!("({expression}) = {}", self.new_value(part)),
            });
            (tag, matches)
        });
        by_rowid.into_iter().chain(by_index).collect()
    }

    fn new_value(&self, part: &Part) -> String {
        match part {
            Part::Column { name, .. } => format!("NEW.{}", quote(name)),
            // An expression speaks of bare column names: give it a row that has them.
            Part::Expression(expression) => {
                let row = sql::list(&self.all_columns, |name| format!("NEW.{0} AS {0}", quote(name)));
                format!("(SELECT {expression} FROM (SELECT {row}))")
            }
        }
    }

    /// True of an update that can collide with another row at all.
    pub(crate) fn may_collide(&self) -> String {
        let mut changed: Vec<String> = Vec::new();
        if let Some(rowid) = self.rowid {
            changed.push(format!("NEW.{rowid} IS NOT OLD.{rowid}"));
        }
        for rule in &self.uniques {
            let Some(columns) = &rule.columns else { return "1".to_owned() };
            // By bytes: an index may be finer than the column's own collation.
            changed.extend(
                columns.iter().map(|name| format!("NEW.{0} IS NOT OLD.{0} COLLATE BINARY", quote(name))),
            );
        }
        if changed.is_empty() { "0".to_owned() } else { changed.join(" OR ") }
    }
}

fn is_generated(table: &Table, name: &str) -> bool {
    table.columns.iter().any(|column| column.name == name && column.generated)
}

/// One of the rowid's three names that no column has taken.
pub(crate) fn rowid_name(table: &Table) -> Result<&'static str> {
    ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name)))
        .ok_or_else(|| {
            Error::new(ErrorKind::Setup, "name the rowid of a table").with("table", &table.name).hint(
                "Columns have taken all three of its names (rowid, _rowid_, oid). Rename one of them, or leave the table out.",
            )
        })
}
