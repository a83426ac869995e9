//! Applying changes: from steps to statements.
//!
//! Every function works inside the caller's transaction. A statement that does not hit exactly one row is refused, and
//! so is one that a constraint of the target stops; the caller then rolls back.

#![expect(clippy::result_large_err, reason = "the contract's own error; a refusal ends the batch")]

use std::borrow::Cow;
use std::collections::HashSet;

use connector::{ApplyError, Error, ErrorKind, Net, Refusal, Result, RowChange, RowUpdate, Step};
use model::{Catalog, Key, Row, Table, Value};
use rusqlite::{Connection, ErrorCode, params_from_iter};

use crate::error::{During, describe, is_unique};
use crate::layout::rowid_name;
use crate::load;
use crate::sql::{self, quote};
use crate::value::{self, Bound};

type Applied<T = ()> = std::result::Result<T, ApplyError>;

/// The statements of every table, written once.
pub(crate) struct Statements(Vec<TableStatements>);

struct TableStatements {
    table: Table,
    stored: Vec<usize>,
    key: Vec<usize>,
    insert: String,
    delete: String,
    select: String,
    /// An update of all stored columns, which is the usual one.
    update_all: String,
}

impl Statements {
    pub(crate) fn new(catalog: &Catalog) -> Statements {
        Statements(catalog.tables.iter().map(TableStatements::new).collect())
    }

    pub(crate) fn write(&self, connection: &Connection, steps: &[Step]) -> Applied {
        steps.iter().try_for_each(|step| match step {
            Step::Net(net) => self.net(connection, net),
            Step::Ordered(changes) => changes.iter().enumerate().try_for_each(|(at, change)| {
                self.change(connection, change).map_err(|error| located(error, at))
            }),
            Step::Truncate { tables, restart_identity } => tables
                .iter()
                .try_for_each(|&table| Ok(self.0[table].truncate(connection, *restart_identity)?)),
            Step::DeleteRange { table, after, upto, except } => {
                self.at(*table, connection).delete_range(after.as_ref(), upto.as_ref(), except)
            }
        })
    }

    /// Puts a row in place of whatever is there under this key.
    pub(crate) fn replace(
        &self,
        connection: &Connection,
        table: usize,
        key: &Key,
        row: Option<&Row>,
    ) -> Applied {
        let on = self.at(table, connection);
        let cells = on.key_cells(key)?;
        on.execute(&on.sql.delete, &cells)?;
        row.map_or(Ok(()), |row| on.insert(row))
    }

    fn at<'a>(&'a self, table: usize, connection: &'a Connection) -> On<'a> {
        On { connection, sql: &self.0[table], at: table }
    }

    fn change(&self, connection: &Connection, change: &RowChange) -> Applied {
        let on = self.at(change.table(), connection);
        match change {
            RowChange::Insert { row, .. } => on.insert(row),
            RowChange::Update { key, row, .. } => on.update(key, row),
            RowChange::Delete { key, .. } => on.delete(key),
            RowChange::UpdateWhole { old, row, .. } => on.update_whole(old, row),
            RowChange::DeleteWhole { old, .. } => on.delete_whole(old),
        }
    }

    fn net(&self, connection: &Connection, net: &Net) -> Applied {
        let on = self.at(net.table, connection);
        net.deletes.iter().try_for_each(|key| on.delete(key))?;
        on.updates(&net.updates)?;
        net.inserts.iter().try_for_each(|row| on.insert(row))
    }
}

fn located(error: ApplyError, change: usize) -> ApplyError {
    match error {
        ApplyError::Refused(refusal) => ApplyError::Refused(Refusal { change: Some(change), ..refusal }),
        failed => failed,
    }
}

impl TableStatements {
    fn new(table: &Table) -> TableStatements {
        let stored: Vec<usize> = table.stored().collect();
        let key = table.key().unwrap_or_default().to_vec();
        let name = quote(&table.name.name);
        let by_key = by_key(table, &key, 0);
        TableStatements {
            insert: load::insert(table),
            delete: format!("DELETE FROM {name} WHERE {by_key}"),
            select: format!(
                "SELECT {} FROM {name} WHERE {by_key}",
                sql::list(&stored, |&at| quote(&table.columns[at].name))
            ),
            update_all: update(table, &stored, &key),
            table: table.clone(),
            stored,
            key,
        }
    }

    fn truncate(&self, connection: &Connection, restart_identity: bool) -> Result<()> {
        let operation = "empty a table";
        let name = &self.table.name.name;
        connection.execute_batch(&format!("DELETE FROM {}", quote(name))).during(operation)?;
        let counts: bool = connection
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence')",
                [],
                |row| row.get(0),
            )
            .during(operation)?;
        if restart_identity && counts {
            connection.execute("DELETE FROM sqlite_sequence WHERE name = ?1", [name]).during(operation)?;
        }
        Ok(())
    }
}

/// `a = ?1 AND b IS ?2`; parameters are numbered after `offset`. IS finds a NULL too, where a key may be one.
fn by_key(table: &Table, key: &[usize], offset: usize) -> String {
    sql::all(key.iter().enumerate(), |(at, &column)| {
        let column = &table.columns[column];
        let operator = if column.nullable { "IS" } else { "=" };
        format!("{} {operator} ?{}", quote(&column.name), offset + at + 1)
    })
}

fn update(table: &Table, set: &[usize], key: &[usize]) -> String {
    format!(
        "UPDATE {} SET {} WHERE {}",
        quote(&table.name.name),
        sql::list(set.iter().enumerate(), |(at, &column)| format!(
            "{} = ?{}",
            quote(&table.columns[column].name),
            at + 1
        )),
        by_key(table, key, set.len())
    )
}

/// One table, on the connection that writes to it.
struct On<'a> {
    connection: &'a Connection,
    sql: &'a TableStatements,
    at: usize,
}

type Cell<'v> = Cow<'v, Value>;

impl On<'_> {
    fn insert(&self, row: &Row) -> Applied {
        let cells = self.cells(row, &self.sql.stored)?;
        self.one(&self.sql.insert, &cells)
    }

    fn delete(&self, key: &Key) -> Applied {
        let cells = self.key_cells(key)?;
        self.one(&self.sql.delete, &cells).map_err(|error| self.about(error, key))
    }

    fn update(&self, key: &Key, row: &Row) -> Applied {
        let set = self.carried(row);
        if set.is_empty() {
            return self.current(key).map(|_| ());
        }
        let mut cells = self.cells(row, &set)?;
        cells.extend(self.key_cells(key)?);
        let statement = if set == self.sql.stored {
            Cow::Borrowed(&self.sql.update_all)
        } else {
            Cow::Owned(update(&self.sql.table, &set, &self.sql.key))
        };
        self.one(&statement, &cells).map_err(|error| self.about(error, key))
    }

    /// Updates whose order does not matter: if unique values wander among them, no order of single updates may work, so
    /// then all the rows go and come back.
    fn updates(&self, updates: &[RowUpdate]) -> Applied {
        self.batch("SAVEPOINT crossfade_updates")?;
        match updates.iter().try_for_each(|update| self.update(&update.key, &update.row)) {
            Ok(()) => self.batch("RELEASE crossfade_updates"),
            Err(error) if updates.len() > 1 && is_collision(&error) => {
                self.batch("ROLLBACK TO crossfade_updates")?;
                self.exchange(updates)?;
                self.batch("RELEASE crossfade_updates")
            }
            Err(error) => Err(error),
        }
    }

    fn exchange(&self, updates: &[RowUpdate]) -> Applied {
        let mut merged = Vec::with_capacity(updates.len());
        for update in updates {
            let mut row = self.current(&update.key)?;
            for column in self.carried(&update.row) {
                row[column] = update.row[column].clone();
            }
            merged.push(row);
        }
        updates.iter().try_for_each(|update| self.delete(&update.key))?;
        merged.iter().try_for_each(|row| self.insert(row))
    }

    /// The one row under this key.
    fn current(&self, key: &Key) -> Applied<Row> {
        let cells = self.key_cells(key)?;
        let read = || -> rusqlite::Result<Vec<Row>> {
            let mut statement = self.connection.prepare_cached(&self.sql.select)?;
            let mut rows = statement.query(params_from_iter(cells.iter().map(|cell| Bound(cell))))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let mut cells = vec![Value::Unchanged; self.sql.table.columns.len()];
                for (at, &column) in self.sql.stored.iter().enumerate() {
                    cells[column] = value::from_sqlite(row.get_ref(at)?);
                }
                found.push(cells);
            }
            Ok(found)
        };
        let mut found = read().during("read a row of the target")?;
        match found.pop() {
            Some(row) if found.is_empty() => Ok(row),
            row => {
                let count = found.len() + usize::from(row.is_some());
                Err(self.about(self.miscounted(&self.sql.select, count), key))
            }
        }
    }

    fn update_whole(&self, old: &Row, row: &Row) -> Applied {
        let set = self.carried(row);
        let name = quote(&self.sql.table.name.name);
        let rowid = rowid_name(&self.sql.table)?;
        let assign = sql::list(set.iter().enumerate(), |(at, &column)| {
            format!("{} = ?{}", quote(&self.sql.table.columns[column].name), at + 1)
        });
        let statement = format!(
            "UPDATE {name} SET {assign} WHERE {rowid} = (SELECT {rowid} FROM {name} WHERE {} LIMIT 1)",
            self.same_row(set.len())
        );
        let mut cells = self.cells(row, &set)?;
        cells.extend(self.cells(old, &self.sql.stored)?);
        self.one(&statement, &cells)
    }

    fn delete_whole(&self, old: &Row) -> Applied {
        let name = quote(&self.sql.table.name.name);
        let rowid = rowid_name(&self.sql.table)?;
        let statement = format!(
            "DELETE FROM {name} WHERE {rowid} = (SELECT {rowid} FROM {name} WHERE {} LIMIT 1)",
            self.same_row(0)
        );
        let cells = self.cells(old, &self.sql.stored)?;
        self.one(&statement, &cells)
    }

    /// Equal by bytes and by storage class: 1 and 1.0 and, under NOCASE, 'a' and 'A' are different rows.
    fn same_row(&self, offset: usize) -> String {
        sql::all(self.sql.stored.iter().enumerate(), |(at, &column)| {
            let name = quote(&self.sql.table.columns[column].name);
            let parameter = offset + at + 1;
            format!("{name} IS ?{parameter} COLLATE BINARY AND typeof({name}) = typeof(?{parameter})")
        })
    }

    fn delete_range(&self, after: Option<&Key>, upto: Option<&Key>, except: &[Key]) -> Applied {
        let table = &self.sql.table;
        let names = sql::list(&self.sql.key, |&at| quote(&table.columns[at].name));
        let mut cells = Vec::new();
        let mut conditions = Vec::new();
        for (bound, operator) in [(after, ">"), (upto, "<=")] {
            if let Some(bound) = bound {
                let from = cells.len();
                cells.extend(self.key_cells(bound)?);
                let parameters = sql::list(from..cells.len(), |at| format!("?{}", at + 1));
                conditions.push(format!("({names}) {operator} ({parameters})"));
            }
        }
        let mut kept = HashSet::new();
        for key in except {
            kept.insert(Key(self.key_cells(key)?.into_iter().map(Cow::into_owned).collect()));
        }
        let statement = format!(
            "SELECT {names} FROM {} WHERE {}",
            quote(&table.name.name),
            sql::all(conditions, |one| one)
        );
        let read = || -> rusqlite::Result<Vec<Key>> {
            let mut prepared = self.connection.prepare(&statement)?;
            let mut rows = prepared.query(params_from_iter(cells.iter().map(|cell| Bound(cell))))?;
            let mut keys = Vec::new();
            while let Some(row) = rows.next()? {
                let cells = (0..self.sql.key.len()).map(|at| Ok(value::from_sqlite(row.get_ref(at)?)));
                let key = Key(cells.collect::<rusqlite::Result<_>>()?);
                if !kept.contains(&key) {
                    keys.push(key);
                }
            }
            Ok(keys)
        };
        read().during("read the keys of a range")?.iter().try_for_each(|key| self.delete(key))
    }

    /// The columns that the log carried.
    fn carried(&self, row: &Row) -> Vec<usize> {
        self.sql.stored.iter().copied().filter(|&at| !row[at].is_unchanged()).collect()
    }

    fn cells<'v>(&self, row: &'v Row, columns: &[usize]) -> Applied<Vec<Cell<'v>>> {
        columns.iter().map(|&at| self.fit(&row[at], at)).collect()
    }

    fn key_cells<'v>(&self, key: &'v Key) -> Applied<Vec<Cell<'v>>> {
        key.0.iter().zip(&self.sql.key).map(|(value, &at)| self.fit(value, at)).collect()
    }

    fn fit<'v>(&self, value: &'v Value, column: usize) -> Applied<Cell<'v>> {
        value::fit(value, &self.sql.table.columns[column]).map_err(|error| self.refused("", error))
    }

    fn one(&self, statement: &str, cells: &[Cell<'_>]) -> Applied {
        match self.execute(statement, cells)? {
            1 => Ok(()),
            count => Err(self.miscounted(statement, count)),
        }
    }

    fn execute(&self, statement: &str, cells: &[Cell<'_>]) -> Applied<usize> {
        self.connection
            .prepare_cached(statement)
            .and_then(|mut prepared| prepared.execute(params_from_iter(cells.iter().map(|cell| Bound(cell)))))
            .map_err(|error| {
                let is_refusal = matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
                );
                let error = describe(error, "apply a change").with("table", &self.sql.table.name);
                if is_refusal { self.refused(statement, error) } else { ApplyError::Failed(error) }
            })
    }

    fn batch(&self, statement: &str) -> Applied {
        Ok(self.connection.execute_batch(statement).during("apply changes")?)
    }

    fn miscounted(&self, statement: &str, count: usize) -> ApplyError {
        let error = Error::new(ErrorKind::Conflict, "apply a change to exactly one row")
            .with("table", &self.sql.table.name)
            .with("rows", count)
            .hint("Does something else write to the target? Compare the row on both sides.");
        self.refused(statement, error)
    }

    fn refused(&self, statement: &str, error: Error) -> ApplyError {
        ApplyError::Refused(Refusal { table: self.at, change: None, statement: statement.to_owned(), error })
    }

    fn about(&self, error: ApplyError, key: &Key) -> ApplyError {
        match error {
            ApplyError::Refused(refusal) => {
                ApplyError::Refused(Refusal { error: refusal.error.with("key", key), ..refusal })
            }
            failed => failed,
        }
    }
}

fn is_collision(error: &ApplyError) -> bool {
    let ApplyError::Refused(refusal) = error else { return false };
    refusal
        .error
        .source
        .as_ref()
        .and_then(|source| source.downcast_ref::<rusqlite::Error>())
        .is_some_and(is_unique)
}
