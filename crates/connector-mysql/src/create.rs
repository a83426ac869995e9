//! The target's tables before the copy, and its keys behind it. The rest of the schema is in `finish`.
//!
//! DDL commits by itself, so no table can be created in one transaction with its record: `creating` is on record before, and
//! `created` behind it. Each statement follows a transaction that has seen the owner's epoch; a newer owner ends this one's
//! sessions when it claims, and finds by name what was still created.

use std::collections::{BTreeSet, HashMap};

use connector::{Copied, Error, ErrorKind, NativeSchema, Owner, Result, Retry};
use model::{Catalog, Table, TableName};
use tokio::sync::watch;

use crate::cells::Cells;
use crate::charset::Charsets;
use crate::error::number;
use crate::url::Settings;
use crate::wire::Client;
use crate::{generate, native, records, session, sql, target, writer};

/// What is on record of a table.
const CREATING: &str = "creating";
const CREATED: &str = "created";
/// It was there before, and its indexes are its owner's affair.
const FOUND: &str = "found";

fn item(table: &Table) -> String {
    format!("table {}", table.name)
}

/// Whether a table is of our making.
pub(crate) async fn is_ours(client: &mut Client, owner: &Owner, table: &Table) -> Result<bool> {
    Ok(records::item_state(client, owner, &item(table)).await?.as_deref() == Some(CREATED))
}

/// A transaction that begins with a look at who owns the target.
pub(crate) async fn begin(client: &mut Client, owner: &Owner) -> Result<()> {
    client.execute("START TRANSACTION").await?;
    records::fence(client, owner).await
}

/// Runs DDL once it is known that nobody else owns the target.
pub(crate) async fn change(client: &mut Client, owner: &Owner, statement: &str) -> Result<()> {
    begin(client, owner).await?;
    writer::commit(client).await?;
    match client.execute(statement).await {
        Ok(_) => Ok(()),
        // Begun in a session that was lost, and ended behind our back: the next try finds it.
        Err(error) if number(&error).is_some_and(|number| IS_THERE.contains(&number)) => {
            Err(error.retry(Retry::Later))
        }
        Err(error) => Err(error),
    }
}

/// An index or a foreign key of this name (ER_DUP_KEYNAME, ER_FK_DUP_NAME).
const IS_THERE: [u16; 2] = [1061, 1826];

pub(crate) async fn tables(
    client: &mut Client,
    settings: &Settings,
    owner: &Owner,
    catalog: &Catalog,
    native: Option<&NativeSchema>,
) -> Result<()> {
    target::distinct(client, catalog).await?;
    let missing = missing(client, settings, owner, catalog, native).await?;
    if missing.is_empty() {
        return Ok(());
    }
    timestamps_as_written(client).await?;
    for (table, create) in &missing {
        change(client, owner, create).await.map_err(|error| error.with("table", &table.name))?;
    }
    begin(client, owner).await?;
    for (table, _) in missing {
        records::set_item_state(client, owner, &item(table), CREATED).await?;
    }
    writer::commit(client).await
}

/// The tables to create, each with its statement. What is to become of all of them is on record then.
async fn missing<'a>(
    client: &mut Client,
    settings: &Settings,
    owner: &Owner,
    catalog: &'a Catalog,
    native: Option<&NativeSchema>,
) -> Result<Vec<(&'a Table, String)>> {
    let wanted: Vec<&Table> = catalog.tables.iter().collect();
    let found = target::find(client, settings, &wanted).await?;
    client.doing("create the target's tables");
    let native = native::own(native, client.family()).map(native::tables).transpose()?;
    let mut missing = Vec::new();
    begin(client, owner).await?;
    for (table, there) in wanted.into_iter().zip(&found.tables) {
        let item = item(table);
        let state = records::item_state(client, owner, &item).await?;
        match (there, state.as_deref()) {
            (None, None | Some(CREATING)) => {
                target::name(settings, &table.name)?;
                let create = match &native {
                    Some(native) => as_told(table, native)?,
                    None => generate::create_table(table, client.family()),
                };
                missing.push((table, create));
                records::set_item_state(client, owner, &item, CREATING).await?;
            }
            (None, Some(_)) => return Err(gone(settings, table)),
            (Some(there), None | Some(CREATING)) => {
                alike(table, there, &found.charsets)?;
                empty(client, there).await?;
                // One that we were creating when we were interrupted is ours.
                let state = if state.is_some() { CREATED } else { FOUND };
                records::set_item_state(client, owner, &item, state).await?;
            }
            (Some(_), Some(_)) => {}
        }
    }
    writer::commit(client).await?;
    Ok(missing)
}

/// Otherwise a TIMESTAMP NOT NULL without a default is given one, and overwrites itself.
async fn timestamps_as_written(client: &mut Client) -> Result<()> {
    let row = Cells::first(client.query("SELECT @@explicit_defaults_for_timestamp").await?);
    if row.text(0)? == "1" {
        return Ok(());
    }
    client.execute("SET explicit_defaults_for_timestamp = ON").await.map(drop).map_err(|error| {
        error.hint("set explicit_defaults_for_timestamp = ON in the target's configuration and restart it")
    })
}

fn gone(settings: &Settings, table: &Table) -> Error {
    Error::new(ErrorKind::Schema, "use the target's table")
        .with("table", TableName::new(&settings.database, &table.name.name))
        .with("found", "no such table, and it was there when this migration began")
        .hint("was it dropped? What was copied into it is lost: begin the migration anew")
}

fn as_told(table: &Table, native: &HashMap<String, &str>) -> Result<String> {
    let Some(create) = native.get(&table.name.name) else {
        return Err(Error::new(ErrorKind::Schema, "create the target's tables")
            .with("table", &table.name)
            .with("found", "nothing of it in the plan")
            .hint("begin the migration anew"));
    };
    native::portable(&table.name.name, create)?;
    Ok((*create).to_owned())
}

fn alike(table: &Table, there: &Table, charsets: &Charsets) -> Result<()> {
    match target::differences(table, there, charsets).into_iter().next() {
        None => Ok(()),
        Some(difference) => Err(Error::new(ErrorKind::Schema, "use the target's table")
            .with("table", &there.name)
            .with("because", difference)
            .hint(format!("drop it, so that it is created: DROP TABLE {};", sql::table(&there.name)))),
    }
}

async fn empty(client: &mut Client, there: &Table) -> Result<()> {
    let name = sql::table(&there.name);
    if client.query(&format!("SELECT 1 FROM {name} LIMIT 1")).await?.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Setup, "use the target's table").with("table", &there.name).hint(format!(
        "it holds rows that crossfade did not write: DELETE FROM {name}; or choose another target database"
    )))
}

/// The keys have come with the tables, as InnoDB keeps rows in the order of their key; here they are only looked for.
pub(crate) async fn keys(
    settings: &Settings,
    owner: &Owner,
    catalog: &Catalog,
    _native: Option<&NativeSchema>,
    copied: watch::Receiver<Copied>,
    _builders: usize,
) -> Result<()> {
    Copied::all(copied).await;
    let mut client = session::writing(settings, &owner.stream).await?;
    client.doing("look for the target's keys");
    let keyed: Vec<&Table> = catalog.tables.iter().filter(|table| table.key().is_some()).collect();
    let found = target::find(&mut client, settings, &keyed).await?;
    for (table, there) in keyed.into_iter().zip(&found.tables) {
        if !there.as_ref().is_some_and(|there| has_key(table, there)) {
            return Err(without_key(settings, table));
        }
    }
    Ok(())
}

/// A unique index over exactly the key's columns.
fn has_key(table: &Table, there: &Table) -> bool {
    let names = |table: &Table, columns: &[usize]| -> BTreeSet<String> {
        columns.iter().map(|&at| table.columns[at].name.to_lowercase()).collect()
    };
    let key = table.key().map(|key| names(table, key));
    let unique = there.unique.iter().map(|unique| unique.columns.as_slice());
    there.key().into_iter().chain(unique).any(|columns| Some(names(there, columns)) == key)
}

/// Changes find their row by the key: without an index on it each would read the whole table, and without its uniqueness "exactly
/// one row" could not be told.
fn without_key(settings: &Settings, table: &Table) -> Error {
    let name = TableName::new(&settings.database, &table.name.name);
    let columns = generate::columns(table, table.key().unwrap_or_default());
    Error::new(ErrorKind::Setup, "find rows by their key on the target")
        .with("table", &name)
        .with("key", &columns)
        .hint(format!("create it: ALTER TABLE {} ADD PRIMARY KEY ({columns});", sql::table(&name)))
}

#[cfg(test)]
mod tests {
    use model::{Column, Identity, Kind, Unique};

    use super::*;

    fn table(columns: &[&str], key: &[usize], unique: &[&[usize]]) -> Table {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            type_name: "int(11)".to_owned(),
            type_id: 0,
            type_modifier: -1,
            number: 0,
            kind: Kind::Integer,
            nullable: false,
            generated: false,
        };
        let identity = match key {
            [] => Identity::WholeRow,
            key => Identity::Key { columns: key.to_vec(), order: None },
        };
        let unique = unique.iter().map(|columns| Unique { name: "u".to_owned(), columns: columns.to_vec() });
        Table {
            name: TableName::new("shop", "t"),
            source_id: 0,
            columns: columns.iter().map(column).collect(),
            identity,
            unique: unique.collect(),
            root: None,
            rows_estimate: None,
            bytes: 0,
        }
    }

    #[test]
    fn a_key_is_any_unique_index_over_its_columns() {
        let source = table(&["a", "B", "c"], &[0, 1], &[]);
        for (there, expected) in [
            (table(&["b", "A"], &[0, 1], &[]), true),
            (table(&["c", "a", "b"], &[0], &[&[1, 2]]), true),
            (table(&["a", "b"], &[0], &[]), false),
            (table(&["a", "b", "c"], &[0, 1, 2], &[]), false),
            (table(&["a", "b"], &[], &[&[]]), false),
        ] {
            assert_eq!(has_key(&source, &there), expected, "{there:?}");
        }
    }

    #[test]
    fn a_table_without_a_statement_is_an_error() {
        let before = "CREATE TABLE `t` (\n  `a` int(11)\n);\nCREATE TABLE `seqd` (\n  `a` int DEFAULT nextval(`d`.`s`)\n);\n";
        let native = NativeSchema { before: before.to_owned(), ..NativeSchema::default() };
        let tables = native::tables(&native).unwrap();
        let named = |name: &str| Table { name: TableName::new("shop", name), ..table(&["a"], &[], &[]) };
        assert_eq!(as_told(&named("t"), &tables).unwrap(), "CREATE TABLE `t` (\n  `a` int(11)\n)");
        for name in ["T", "seqd"] {
            assert_eq!(as_told(&named(name), &tables).unwrap_err().kind, ErrorKind::Schema, "{name}");
        }
    }
}
