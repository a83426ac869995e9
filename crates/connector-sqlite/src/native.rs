//! The schema in SQLite's own words.

use connector::{NativeSchema, Result, SchemaItem};
use model::Catalog;
use rusqlite::Connection;

use crate::error::During;

pub(crate) const DIALECT: &str = "sqlite";

/// Tables first, then indexes, views and triggers, each in the order in which they were created. A primary key is part of
/// its CREATE TABLE; `keys` has the unique indexes that stand in for one.
pub(crate) fn schema(connection: &Connection, catalog: &Catalog) -> Result<NativeSchema> {
    let mut native = NativeSchema { dialect: DIALECT.to_owned(), ..NativeSchema::default() };
    for (kind, name, table, sql) in entries(connection).during("read the schema")? {
        let selected = catalog.tables.iter().find(|selected| selected.name.name == table);
        let is_ours = selected.is_some();
        let is_key = sql.starts_with("CREATE UNIQUE INDEX ")
            && selected.is_some_and(|table| {
                table.key().is_some() && !table.unique.iter().any(|unique| unique.name == name)
            });
        match kind.as_str() {
            "table" if is_ours => {
                native.before.push_str(&if_not_exists(&sql, "TABLE"));
                // A comment at the end of the statement must not swallow the semicolon.
                native.before.push_str("\n;\n");
            }
            "index" if is_key => native.keys.push(SchemaItem { kind: "INDEX".to_owned(), name, sql }),
            "index" | "trigger" if is_ours => {
                native.after.push(SchemaItem { kind: kind.to_uppercase(), name, sql })
            }
            "view" => native.after.push(SchemaItem { kind: "VIEW".to_owned(), name, sql }),
            _ => {}
        }
    }
    native.after.sort_by_key(|item| ["INDEX", "VIEW", "TRIGGER"].iter().position(|kind| *kind == item.kind));
    Ok(native)
}

/// (kind, name, table, statement) of everything but SQLite's own and ours.
fn entries(connection: &Connection) -> rusqlite::Result<Vec<(String, String, String, String)>> {
    connection
        .prepare(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema
             WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
               AND name NOT LIKE '\\_crossfade\\_%' ESCAPE '\\'
             ORDER BY rowid",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect()
}

/// SQLite stores every statement as `CREATE TABLE …`, whatever the user wrote between these words and the name.
fn if_not_exists(create: &str, object: &str) -> String {
    let words = format!("CREATE {object} ");
    match create.strip_prefix(&words) {
        Some(rest) => format!("{words}IF NOT EXISTS {rest}"),
        None => create.to_owned(),
    }
}
