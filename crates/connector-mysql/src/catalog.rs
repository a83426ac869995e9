//! Introspection: which tables there are, of which columns they consist, and what tells their rows apart.
//!
//! One question for each kind of thing, whatever the number of tables.

use std::collections::{BTreeMap, HashMap, HashSet};

use connector::{Error, ErrorKind, Result, Selection};
use model::{Catalog, Column, Identity, Table, TableName, Unique};

use crate::cells::Cells;
use crate::charset::{self, Charsets};
use crate::declared::{Declared, TextOf};
use crate::sql;
use crate::wire::Client;

/// The selected tables of one database, sorted by name.
///
/// The charsets that they need are added to those that are known.
pub(crate) async fn read(
    client: &mut Client,
    database: &str,
    selection: &Selection,
    charsets: &mut Charsets,
) -> Result<Catalog> {
    let tables = tables(client, database, |name| selection.contains(name), charsets).await?;
    if tables.is_empty() {
        return Err(Error::new(ErrorKind::Setup, "find a table to migrate")
            .with("database", database)
            .with("patterns", selection.include.join(" "))
            .hint(
                "No table of the source matches. Names are written as DATABASE.TABLE or TABLE, with * and ?.",
            ));
    }
    Ok(Catalog { tables: tables.into_values().collect() })
}

/// By name: the order of the server's answers is that of a collation.
pub(crate) type Tables = BTreeMap<TableName, Table>;

/// Those tables of one database that are asked for.
pub(crate) async fn tables(
    client: &mut Client,
    database: &str,
    is_asked: impl Fn(&TableName) -> bool,
    charsets: &mut Charsets,
) -> Result<Tables> {
    let mut tables = sizes(client, database).await?;
    tables.retain(|name, _| is_asked(name));
    columns(client, database, &mut tables, charsets).await?;
    unique_indexes(client, database, &mut tables, charsets).await?;
    Ok(tables)
}

async fn sizes(client: &mut Client, database: &str) -> Result<Tables> {
    let rows = client
        .query(&format!(
            "SELECT TABLE_NAME, TABLE_ROWS, DATA_LENGTH + INDEX_LENGTH FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = {} AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')",
            sql::literal(database)
        ))
        .await?;
    let mut tables = Tables::new();
    for row in rows {
        let row = Cells(row);
        let name = TableName::new(database, row.text(0)?);
        let table = Table {
            name: name.clone(),
            source_id: 0,
            columns: Vec::new(),
            identity: Identity::WholeRow,
            unique: Vec::new(),
            root: None,
            rows_estimate: row.maybe_parse(1)?,
            bytes: row.maybe_parse(2)?.unwrap_or(0),
        };
        tables.insert(name, table);
    }
    Ok(tables)
}

async fn columns(
    client: &mut Client,
    database: &str,
    tables: &mut Tables,
    charsets: &mut Charsets,
) -> Result<()> {
    let json = json_columns(client, database).await?;
    let rows = client
        .query(&format!(
            "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, IS_NULLABLE, EXTRA \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} ORDER BY TABLE_NAME, ORDINAL_POSITION",
            sql::literal(database)
        ))
        .await?;
    for row in rows {
        let row = Cells(row);
        let Some(table) = tables.get_mut(&TableName::new(database, row.text(0)?)) else { continue };
        let name = row.text(1)?;
        let text = row.maybe(3).zip(row.maybe(4)).map(|(charset, collation)| TextOf { charset, collation });
        if let Some(text) = text {
            learn(client, text.charset, charsets).await?;
        }
        let json_valid = json.contains(&(table.name.name.clone(), name.to_owned()));
        let declared = Declared { column_type: row.text(2)?, text, json_valid };
        let column_type = declared
            .resolve(charsets)
            .map_err(|error| error.with("table", &table.name).with("column", name))?;
        table.columns.push(Column {
            name: name.to_owned(),
            kind: column_type.kind(),
            type_name: declared.to_string(),
            type_id: 0,
            type_modifier: -1,
            number: 0,
            nullable: row.text(5)? == "YES",
            generated: is_generated(row.text(6)?),
        });
    }
    Ok(())
}

/// Asks the server once what the bytes of a charset mean that is not known here.
pub(crate) async fn learn(client: &mut Client, charset: &str, charsets: &mut Charsets) -> Result<()> {
    if charsets.named(charset).is_ok() {
        return Ok(());
    }
    let Some(question) = charset::table_query(charset) else { return Ok(()) };
    let answer = client.query(&question).await?.into_iter().next().unwrap_or_default();
    charsets.learn(charset, &answer).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "learn a charset").with("charset", charset).source(error)
    })
}

/// Columns of MariaDB's type JSON: LONGTEXT with this check.
async fn json_columns(client: &mut Client, database: &str) -> Result<HashSet<(String, String)>> {
    if !client.family().is_mariadb() {
        return Ok(HashSet::new());
    }
    let rows = client
        .query(&format!(
            "SELECT TABLE_NAME, CONSTRAINT_NAME FROM information_schema.CHECK_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = {} \
             AND LEVEL = 'Column' AND CHECK_CLAUSE = CONCAT('json_valid(`', REPLACE(CONSTRAINT_NAME, '`', '``'), '`)')",
            sql::literal(database)
        ))
        .await?;
    rows.into_iter().map(Cells).map(|row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()))).collect()
}

/// `DEFAULT_GENERATED`, which MySQL says of a default that is an expression, is not.
fn is_generated(extra: &str) -> bool {
    ["VIRTUAL GENERATED", "STORED GENERATED", "PERSISTENT"].iter().any(|word| extra.contains(word))
}

async fn unique_indexes(
    client: &mut Client,
    database: &str,
    tables: &mut Tables,
    charsets: &Charsets,
) -> Result<()> {
    let rows = client
        .query(&format!(
            "SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS \
             WHERE TABLE_SCHEMA = {} AND NON_UNIQUE = 0 ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX",
            sql::literal(database)
        ))
        .await?;
    let mut found: HashMap<TableName, Vec<Index>> = HashMap::new();
    for row in rows {
        let row = Cells(row);
        let Some((name, table)) = tables.get_key_value(&TableName::new(database, row.text(0)?)) else {
            continue;
        };
        let indexes = found.entry(name.clone()).or_default();
        let index = row.text(1)?;
        if indexes.last().is_none_or(|last| last.name != index) {
            indexes.push(Index { name: index.to_owned(), columns: Some(Vec::new()) });
        }
        // A part of a column, or an expression (no column's name), says nothing about whole values.
        let column = row.maybe(2).filter(|_| row.maybe(3).is_none());
        let column = column.and_then(|name| table.columns.iter().position(|column| column.name == name));
        if let Some(last) = indexes.last_mut() {
            last.columns = last.columns.take().zip(column).map(|(mut columns, column)| {
                columns.push(column);
                columns
            });
        }
    }
    for (name, indexes) in found {
        if let Some(table) = tables.get_mut(&name) {
            identify(table, indexes, charsets);
        }
    }
    Ok(())
}

/// A unique index; `columns` is there when it is over whole columns.
struct Index {
    name: String,
    columns: Option<Vec<usize>>,
}

/// By the primary key, else by the first unique index over columns that are never NULL, as InnoDB itself clusters.
fn identify(table: &mut Table, mut indexes: Vec<Index>, charsets: &Charsets) {
    let never_null = |index: &Index| {
        index.columns.as_ref().is_some_and(|columns| {
            columns.iter().all(|&at| !table.columns[at].nullable && !table.columns[at].generated)
        })
    };
    let primary = indexes.iter().position(|index| index.name == "PRIMARY" && never_null(index));
    let chosen = primary.or_else(|| indexes.iter().position(never_null));
    if let Some(columns) = chosen.and_then(|at| indexes.remove(at).columns) {
        let order = |at: &usize| {
            let declared = Declared::parse(&table.columns[*at].type_name);
            declared.key_order(&declared.resolve(charsets).ok()?)
        };
        let order = columns.iter().map(order).collect();
        table.identity = Identity::Key { columns, order };
    }
    table.unique = indexes
        .into_iter()
        .map(|index| Unique { name: index.name, columns: index.columns.unwrap_or_default() })
        .collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_that_is_an_expression_is_no_generated_column() {
        for (extra, generated) in [
            ("", false),
            ("auto_increment", false),
            ("DEFAULT_GENERATED", false),
            ("DEFAULT_GENERATED on update CURRENT_TIMESTAMP", false),
            ("VIRTUAL GENERATED", true),
            ("STORED GENERATED", true),
            ("STORED GENERATED, INVISIBLE", true),
        ] {
            assert_eq!(is_generated(extra), generated, "{extra}");
        }
    }
}
