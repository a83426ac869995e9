//! The target's schema: tables before the copy, keys after it, everything else at the end.

use std::collections::BTreeMap;

use connector::failpoint::{self, FINISH_BETWEEN_ITEMS};
use connector::{Error, ErrorKind, NativeSchema, Owner, Result, SchemaItem};
use model::{Catalog, Column, Kind, Table};
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior};

use crate::error::{During, describe};
use crate::native::DIALECT;
use crate::sql::{self, quote};
use crate::{catalog, records};

/// Creates the tables that are not there.
pub(crate) fn create(
    connection: &mut Connection,
    owner: &Owner,
    catalog: &Catalog,
    native: Option<&NativeSchema>,
) -> Result<()> {
    let operation = "create the tables";
    let native = native.filter(|native| native.dialect == DIALECT);
    distinct_names(catalog)?;
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).during(operation)?;
    records::fence(&transaction, owner)?;
    let is_first = !records::is_done(&transaction, &owner.stream, records::CREATED).during(operation)?;
    for table in &catalog.tables {
        existing(&transaction, table, native.is_some(), is_first)?;
    }
    match native {
        Some(native) => transaction.execute_batch(&native.before).during(operation)?,
        None => {
            for table in &catalog.tables {
                let create = create_table(table);
                transaction
                    .execute_batch(&create)
                    .during(operation)
                    .map_err(|error| error.with("table", &table.name))?;
            }
        }
    }
    records::set_done(&transaction, &owner.stream, records::CREATED).during(operation)?;
    transaction.commit().during(operation)
}

/// SQLite has no schemas, so two tables that differ by theirs alone would become one.
fn distinct_names(catalog: &Catalog) -> Result<()> {
    let mut seen = BTreeMap::new();
    for table in &catalog.tables {
        if let Some(other) = seen.insert(table.name.name.to_lowercase(), &table.name) {
            return Err(Error::new(ErrorKind::Schema, "create the tables")
                .with("table", &table.name)
                .with("table", other)
                .hint("SQLite has no schemas and ignores case in names: migrate these two into different files."));
        }
    }
    Ok(())
}

/// Makes sure that a table that is there already can take the rows.
fn existing(connection: &Connection, table: &Table, same_dialect: bool, is_first: bool) -> Result<()> {
    let operation = "use a table of the target";
    let name = &table.name.name;
    let (columns, _) = catalog::columns(connection, name).during(operation)?;
    if columns.is_empty() {
        return Ok(());
    }
    let shape = |columns: &[Column]| -> Vec<String> {
        columns
            .iter()
            .map(|column| match same_dialect {
                true => format!("{} {} {}", column.name, column.type_name, column.generated),
                false => column.name.clone(),
            })
            .collect()
    };
    let refused = |what: String, hint: String| {
        Error::new(ErrorKind::Schema, operation).with("table", name).with("found", what).hint(hint)
    };
    if shape(&columns) != shape(&table.columns) {
        let names = sql::list(&columns, |column| format!("{} {}", column.name, column.type_name));
        return Err(refused(
            format!("other columns than the source has ({names})"),
            format!("Drop it, so that it is created like the source's: DROP TABLE {};", quote(name)),
        ));
    }
    let is_empty: bool = connection
        .query_row(&format!("SELECT NOT EXISTS (SELECT 1 FROM {})", quote(name)), [], |row| row.get(0))
        .during(operation)?;
    if is_first && !is_empty {
        return Err(refused(
            "rows".to_owned(),
            format!(
                "The target must be empty at the start: DELETE FROM {}; or name another file.",
                quote(name)
            ),
        ));
    }
    Ok(())
}

/// For a source of another engine: by what its types mean.
fn create_table(table: &Table) -> String {
    let alias = rowid_alias(table);
    let columns = sql::list(table.columns.iter().enumerate(), |(at, column)| {
        let name = quote(&column.name);
        if alias == Some(at) {
            return format!("{name} INTEGER PRIMARY KEY");
        }
        format!("{name} {}{}", declared(column.kind), if column.nullable { "" } else { " NOT NULL" })
    });
    format!("CREATE TABLE IF NOT EXISTS {} ({columns})", quote(&table.name.name))
}

/// A single integer key becomes the rowid: SQLite needs no index for it.
fn rowid_alias(table: &Table) -> Option<usize> {
    match table.key() {
        Some(&[column]) if table.columns[column].kind == Kind::Integer => Some(column),
        _ => None,
    }
}

/// Types whose affinity leaves the values alone: text stays the text that it was, so a decimal keeps its digits.
fn declared(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer => "INTEGER",
        Kind::Real => "REAL",
        Kind::Boolean => "BOOLEAN",
        Kind::Blob => "BLOB",
        Kind::Unsigned
        | Kind::Numeric
        | Kind::Text
        | Kind::Date
        | Kind::Time
        | Kind::Timestamp
        | Kind::TimestampTz
        | Kind::Json
        | Kind::Uuid
        | Kind::Native => "TEXT",
    }
}

/// Whether a unique index other than the identity's could refuse rows during the copy.
pub(crate) fn has_unique(connection: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let (columns, _) = catalog::columns(connection, &table.name.name)?;
    let identity: Option<Vec<&str>> =
        table.key().map(|key| key.iter().map(|&at| table.columns[at].name.as_str()).collect());
    Ok(catalog::indexes(connection, &table.name.name)?.iter().any(|index| {
        let names: Option<Vec<&str>> =
            index.parts.iter().map(|part| part.column.map(|at| columns[at].name.as_str())).collect();
        index.partial || names.is_none() || names != identity
    }))
}

pub(crate) fn create_keys(
    connection: &mut Connection,
    owner: &Owner,
    catalog: &Catalog,
    native: Option<&NativeSchema>,
) -> Result<()> {
    let items: Vec<SchemaItem> = match native.filter(|native| native.dialect == DIALECT) {
        Some(native) => native.keys.clone(),
        None => {
            catalog.tables.iter().filter(|table| rowid_alias(table).is_none()).filter_map(key_index).collect()
        }
    };
    for item in items {
        if let Some(reason) = create_item(connection, owner, &item)? {
            return Err(Error::new(ErrorKind::Schema, "create a table's key")
                .with("index", item.name)
                .with("reason", reason));
        }
    }
    Ok(())
}

fn key_index(table: &Table) -> Option<SchemaItem> {
    let columns = table.key()?;
    Some(unique_index(table, format!("{}_key", table.name.name), columns))
}

fn unique_index(table: &Table, name: String, columns: &[usize]) -> SchemaItem {
    let sql = format!(
        "CREATE UNIQUE INDEX {} ON {} ({})",
        quote(&name),
        quote(&table.name.name),
        sql::list(columns, |&at| quote(&table.columns[at].name))
    );
    SchemaItem { kind: "INDEX".to_owned(), name, sql }
}

/// Creates what is left, item by item, each in a transaction of its own; returns what was not created, and why.
pub(crate) fn finish(
    connection: &mut Connection,
    owner: &Owner,
    catalog: &Catalog,
    native: Option<&NativeSchema>,
) -> Result<Vec<(String, String)>> {
    let operation = "finish the schema";
    let mut left_out = Vec::new();
    let items: Vec<SchemaItem> = match native.filter(|native| native.dialect == DIALECT) {
        Some(native) => native.after.clone(),
        None => {
            let mut items = Vec::new();
            for table in &catalog.tables {
                for unique in &table.unique {
                    if unique.columns.is_empty() {
                        let reason = "an index over expressions of another engine: create it by hand";
                        left_out.push((format!("INDEX {}", unique.name), reason.to_owned()));
                    } else {
                        items.push(unique_index(table, unique.name.clone(), &unique.columns));
                    }
                }
            }
            items
        }
    };
    for item in &items {
        let reason = if item.kind == "TRIGGER" {
            // SQLite cannot switch triggers off for one connection.
            Some("while changes are applied it would run a second time for each of them; create it after the switch".to_owned())
        } else {
            create_item(connection, owner, item)?
        };
        left_out.extend(reason.map(|reason| (format!("{} {}", item.kind, item.name), reason)));
        failpoint::hit(FINISH_BETWEEN_ITEMS);
    }
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).during(operation)?;
    records::fence(&transaction, owner)?;
    records::set_done(&transaction, &owner.stream, records::FINISHED).during(operation)?;
    transaction.commit().during(operation)?;
    Ok(left_out)
}

/// Creates one item unless it is there; the reason when SQLite refuses it.
fn create_item(connection: &mut Connection, owner: &Owner, item: &SchemaItem) -> Result<Option<String>> {
    let operation = "create an item of the schema";
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).during(operation)?;
    records::fence(&transaction, owner)?;
    let present: Option<String> = transaction
        .query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [&item.name], |row| row.get(0))
        .optional()
        .during(operation)?
        .flatten();
    match present {
        Some(present) if present == item.sql => return Ok(None),
        Some(_) => return Ok(Some("something else has its name on the target".to_owned())),
        None => {}
    }
    match transaction.execute_batch(&item.sql) {
        Ok(()) => {
            transaction.commit().during(operation)?;
            Ok(None)
        }
        // SQLite's word for a statement that makes no sense here: an unknown function, a table that is not migrated.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => Ok(Some(error.to_string())),
        Err(error) => Err(describe(error, operation)
            .with("item", &item.name)
            .hint("A unique index that cannot be created means that the target's rows are not the source's: compare the two.")),
    }
}
