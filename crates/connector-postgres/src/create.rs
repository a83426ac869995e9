//! Creates the target's schema in the order that a live copy needs: bare tables, then keys, then everything else.

use std::sync::Arc;

use connector::{Error, ErrorKind, NativeSchema, Owner, Result, SchemaItem, failpoint};
use model::{Catalog, Identity, Kind, Table, TableName};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::catalog::Cells;
use crate::error::sqlstate;
use crate::records::{self, text};
use crate::statement::{Target, TargetColumn};
use crate::url::Settings;
use crate::wire::Client;
use crate::{session, sql};

/// Recorded once the bare tables are there, and who made them.
const BEFORE: &str = "tables";
const FOUND: &str = "tables found";
const DIALECT: &str = "postgres";

/// Where a table of the source goes. An engine without schemas calls its only one `main`; here that is `public`,
/// unless this database has a schema of that name.
pub(crate) async fn target_name(client: &mut Client, name: &TableName) -> Result<TableName> {
    if name.schema != "main" {
        return Ok(name.clone());
    }
    let rows = client.simple("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'main'").await?;
    Ok(if rows.is_empty() { TableName::new("public", &name.name) } else { name.clone() })
}

pub(crate) async fn tables(
    client: &mut Client,
    owner: &Owner,
    catalog: &Catalog,
    native: Option<&NativeSchema>,
) -> Result<()> {
    client.doing("create the target's tables");
    if records::has_item(client, owner, BEFORE).await? || records::has_item(client, owner, FOUND).await? {
        return Ok(());
    }
    let mut missing = Vec::new();
    for table in &catalog.tables {
        let name = target_name(client, &table.name).await?;
        let rows = client
            .query("SELECT pg_catalog.to_regclass($1::text) IS NULL", &[text(&sql::table(&name))])
            .await?;
        if rows.first().and_then(|row| row[0].as_deref()) == Some(b"t") {
            missing.push(name);
        }
    }
    if missing.is_empty() {
        for table in &catalog.tables {
            empty(client, table).await?;
        }
        targets(client, catalog).await?;
        return records::note_item(client, owner, FOUND).await;
    }
    if missing.len() < catalog.tables.len() {
        return Err(Error::new(ErrorKind::Setup, "create the target's tables")
            .with("missing there", sql::list(missing.iter().take(5), ToString::to_string))
            .hint("some of the tables exist on the target and some do not: drop the ones that exist, or create the missing ones"));
    }
    let ddl = match native {
        Some(native) if native.dialect == DIALECT => native.before.clone(),
        Some(_) => generated(client, catalog).await?,
        None => {
            return Err(Error::new(ErrorKind::Setup, "create the target's tables").hint(
                "no pg_dump that is as new as the source server was found: install it (Debian: postgresql-client-NN), \
                 or create the tables on the target yourself before the run",
            ));
        }
    };
    // One transaction with its record: a crash leaves all of it or nothing.
    client.execute("BEGIN").await?;
    client.simple(&ddl).await?;
    // The dump has set the search path, and turned checks of function bodies off, for its own session.
    client.simple("SET search_path = ''; RESET check_function_bodies; SET client_min_messages = notice; SET row_security = on").await?;
    records::note_item(client, owner, BEFORE).await?;
    records::fence(client, owner).await?;
    crate::writer::commit(client).await
}

async fn empty(client: &mut Client, table: &Table) -> Result<()> {
    let name = target_name(client, &table.name).await?;
    let rows = client.simple(&format!("SELECT 1 FROM ONLY {} LIMIT 1", sql::table(&name))).await?;
    if rows.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Setup, "use the target's table").with("table", &name).hint(
        "it holds rows that crossfade did not write; empty it (TRUNCATE) or choose another target database",
    ))
}

/// For a source of another engine: tables from the catalog, each type the one that holds all values of its kind.
async fn generated(client: &mut Client, catalog: &Catalog) -> Result<String> {
    let mut ddl = String::new();
    for table in &catalog.tables {
        let name = target_name(client, &table.name).await?;
        let columns = sql::list(table.columns.iter().filter(|column| !column.generated), |column| {
            let required = if column.nullable { "" } else { " NOT NULL" };
            format!("{} {}{required}", sql::ident(&column.name), type_for(column.kind))
        });
        ddl.push_str(&format!("CREATE TABLE {} ({columns});\n", sql::table(&name)));
    }
    Ok(ddl)
}

/// The declared type mapping between engines; documented in docs/reference/types.md.
fn type_for(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer => "bigint",
        Kind::Real => "double precision",
        Kind::Numeric => "numeric",
        Kind::Boolean => "boolean",
        Kind::Text | Kind::Native => "text",
        Kind::Blob => "bytea",
        Kind::Date => "date",
        Kind::Time => "time",
        Kind::Timestamp => "timestamp",
        Kind::TimestampTz => "timestamp with time zone",
        Kind::Json => "json",
        Kind::Uuid => "uuid",
    }
}

/// The tables as they are on the target, checked against the catalog.
pub(crate) async fn targets(client: &mut Client, catalog: &Catalog) -> Result<(Vec<TableName>, Vec<Target>)> {
    let mut names = Vec::new();
    let mut targets = Vec::new();
    for table in &catalog.tables {
        let name = target_name(client, &table.name).await?;
        targets.push(target(client, table, &name).await?);
        names.push(name);
    }
    Ok((names, targets))
}

async fn target(client: &mut Client, planned: &Table, name: &TableName) -> Result<Target> {
    let rows = client
        .query(
            "SELECT a.attname, pg_catalog.format_type(a.atttypid, -1), pg_catalog.format_type(a.atttypid, a.atttypmod), \
             t.typtype IN ('b', 'e', 'r', 'm') AND t.typcategory <> 'A' AND t.typarray <> 0 AND t.typdelim = ',', \
             a.attidentity = 'a' \
             FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
             WHERE a.attrelid = pg_catalog.to_regclass($1::text) AND a.attnum > 0 AND NOT a.attisdropped",
            &[text(&sql::table(name))],
        )
        .await?;
    let mut found = std::collections::HashMap::new();
    for row in rows {
        let row = Cells::of(row);
        let column = TargetColumn {
            name: sql::ident(row.text(0)?),
            type_sql: row.text(1)?.to_owned(),
            typed_array: row.text(3)? == "t",
            always: row.text(4)? == "t",
        };
        found.insert(row.text(0)?.to_owned(), (column, row.text(2)?.to_owned()));
    }
    let mismatch = |column: &str, what: String| {
        Error::new(ErrorKind::Schema, "use the target's table")
            .with("table", name)
            .with("column", column)
            .with("found", what)
            .hint("give the target's table the source's columns and types")
    };
    let mut columns = Vec::new();
    for column in &planned.columns {
        match found.remove(&column.name) {
            // A generated column may be anything on the target; it is computed there.
            Some((there, _)) if column.generated => columns.push(there),
            None if column.generated => columns.push(TargetColumn {
                name: sql::ident(&column.name),
                type_sql: "text".into(),
                typed_array: true,
                always: false,
            }),
            None => return Err(mismatch(&column.name, "no such column".into())),
            // The catalog's names of another engine's types mean nothing here.
            Some((there, type_name)) if column.type_id == 0 || type_name == column.type_name => {
                columns.push(there);
            }
            Some((_, type_name)) => {
                return Err(mismatch(&column.name, format!("{type_name} instead of {}", column.type_name)));
            }
        }
    }
    Ok(Target::new(name, planned, columns))
}

/// Whether a foreign key of a table outside `names` points at one of them: then TRUNCATE is refused.
pub(crate) async fn is_referenced(client: &mut Client, names: &[TableName]) -> Result<bool> {
    let list = sql::list(names, |name| format!("{}::regclass", sql::literal(&sql::table(name))));
    let rows = client
        .simple(&format!(
            "SELECT 1 FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confrelid IN ({list}) AND conrelid NOT IN ({list}) LIMIT 1"
        ))
        .await?;
    Ok(!rows.is_empty())
}

pub(crate) async fn keys(
    settings: &Settings,
    owner: &Owner,
    catalog: &Catalog,
    native: Option<&NativeSchema>,
) -> Result<()> {
    let mut client = session::plain(settings, &owner.stream).await?;
    client.doing("create the target's keys");
    if records::has_item(&mut client, owner, BEFORE).await? {
        let items = match native {
            Some(native) if native.dialect == DIALECT => native.keys.clone(),
            _ => generated_keys(&mut client, catalog).await?,
        };
        side_by_side(settings, owner, items).await?;
    }
    for table in &catalog.tables {
        has_key(&mut client, table).await?;
    }
    Ok(())
}

/// Changes find their row by the key: without an index on it each would read the whole table, and without its
/// uniqueness "exactly one row" could not be told.
async fn has_key(client: &mut Client, table: &Table) -> Result<()> {
    let Identity::Key { columns, .. } = &table.identity else { return Ok(()) };
    let name = target_name(client, &table.name).await?;
    let mut wanted: Vec<&str> = columns.iter().map(|&at| table.columns[at].name.as_str()).collect();
    wanted.sort_unstable();
    let rows = client
        .query(
            "SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = $1::text::regclass AND i.indisunique AND i.indisvalid \
             AND i.indpred IS NULL AND i.indexprs IS NULL AND \
             ARRAY(SELECT a.attname::text COLLATE \"C\" FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indrelid \
                   AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) ORDER BY 1) = $2::text[]",
            &[
                text(&sql::table(&name)),
                Some(&crate::encode::array(wanted.iter().map(|name| model::Value::text(*name)).collect::<Vec<_>>().iter())),
            ],
        )
        .await?;
    if !rows.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Setup, "find rows by their key on the target")
        .with("table", &name)
        .with("key", wanted.join(", "))
        .hint(format!(
            "create it: ALTER TABLE {} ADD PRIMARY KEY ({});",
            sql::table(&name),
            sql::list(columns, |&at| sql::ident(&table.columns[at].name))
        )))
}

async fn generated_keys(client: &mut Client, catalog: &Catalog) -> Result<Vec<SchemaItem>> {
    let mut items = Vec::new();
    for table in &catalog.tables {
        let Identity::Key { columns, .. } = &table.identity else { continue };
        let name = target_name(client, &table.name).await?;
        items.push(SchemaItem {
            kind: "PRIMARY KEY".into(),
            name: name.to_string(),
            sql: format!(
                "ALTER TABLE ONLY {} ADD PRIMARY KEY ({})",
                sql::table(&name),
                sql::list(columns, |&at| sql::ident(&table.columns[at].name))
            ),
        });
    }
    Ok(items)
}

/// Unique indexes over columns keep their meaning between engines; others are reported.
async fn generated_unique(client: &mut Client, catalog: &Catalog) -> Result<Vec<SchemaItem>> {
    let mut items = Vec::new();
    for table in &catalog.tables {
        let name = target_name(client, &table.name).await?;
        for unique in table.unique.iter().filter(|unique| !unique.columns.is_empty()) {
            items.push(SchemaItem {
                kind: "UNIQUE".into(),
                name: format!("{name} {}", unique.name),
                sql: format!(
                    "CREATE UNIQUE INDEX ON {} ({})",
                    sql::table(&name),
                    sql::list(&unique.columns, |&at| sql::ident(&table.columns[at].name))
                ),
            });
        }
    }
    Ok(items)
}

/// Everything else. Indexes are built side by side; what may depend on them or lock two tables follows in order.
/// An item that needs something which is not migrated is left out, with its reason.
pub(crate) async fn finish(
    settings: &Settings,
    owner: &Owner,
    catalog: &Catalog,
    native: Option<&NativeSchema>,
) -> Result<Vec<(String, String)>> {
    let mut left_out = Vec::new();
    let mut client = session::plain(settings, &owner.stream).await?;
    client.doing("finish the target's schema");
    let ours = records::has_item(&mut client, owner, BEFORE).await?;
    if let Some(native) = native.filter(|native| native.dialect == DIALECT && ours) {
        let (indexes, rest): (Vec<SchemaItem>, Vec<SchemaItem>) = native
            .after
            .iter()
            .cloned()
            .partition(|item| matches!(item.kind.as_str(), "INDEX" | "CONSTRAINT"));
        side_by_side(settings, owner, indexes).await?;
        for item in &rest {
            if let Some(reason) = one(&mut client, owner, item).await? {
                left_out.push((format!("{} {}", item.kind, item.name), reason));
            }
            failpoint::hit(failpoint::FINISH_BETWEEN_ITEMS);
        }
    } else if let Some(native) = native.filter(|native| native.dialect != DIALECT && ours) {
        side_by_side(settings, owner, generated_unique(&mut client, catalog).await?).await?;
        for item in &native.after {
            let reason = "it is written in another engine's words; create it by hand".to_owned();
            left_out.push((format!("{} {}", item.kind, item.name), reason));
        }
    }
    failpoint::hit(failpoint::FINISH_BETWEEN_ITEMS);
    for table in &catalog.tables {
        let name = target_name(&mut client, &table.name).await?;
        client.execute(&format!("ANALYZE {}", sql::table(&name))).await?;
    }
    let finished = client
        .query(
            "UPDATE crossfade.progress SET finished = true WHERE stream = $1 AND epoch = $2 RETURNING 1",
            &[text(&owner.stream), text(&owner.epoch.to_string())],
        )
        .await?;
    if finished.is_empty() { Err(records::fenced(owner)) } else { Ok(left_out) }
}

/// As many at a time as there are index builds that two processor cores and the maintenance memory carry.
const BUILDERS: usize = 2;

async fn side_by_side(settings: &Settings, owner: &Owner, mut items: Vec<SchemaItem>) -> Result<()> {
    items.reverse();
    let queue = Arc::new(Mutex::new(items));
    let mut builders = JoinSet::new();
    for _ in 0..BUILDERS {
        let (settings, owner, queue) = (settings.clone(), owner.clone(), Arc::clone(&queue));
        builders.spawn(async move {
            let mut client = session::plain(&settings, &owner.stream).await?;
            client.doing("build an index on the target");
            loop {
                let Some(item) = queue.lock().await.pop() else { return Ok(()) };
                if let Some(reason) = one(&mut client, &owner, &item).await? {
                    return Err(Error::new(ErrorKind::Schema, "build an index on the target")
                        .with("index", &item.name)
                        .with("the target said", reason));
                }
                failpoint::hit(failpoint::FINISH_BETWEEN_ITEMS);
            }
        });
    }
    while let Some(ended) = builders.join_next().await {
        match ended {
            Ok(result) => result?,
            Err(error) => {
                return Err(Error::new(ErrorKind::Database, "build an index on the target").source(error));
            }
        }
    }
    Ok(())
}

/// Creates one item together with its record. Returns the reason when it needs something that is not there.
async fn one(client: &mut Client, owner: &Owner, item: &SchemaItem) -> Result<Option<String>> {
    let label = format!("{} {}", item.kind, item.name);
    if records::has_item(client, owner, &label).await? {
        return Ok(None);
    }
    client.execute("BEGIN").await?;
    if let Err(error) = client.simple(&item.sql).await {
        if !client.is_usable() {
            return Err(error.with("item", label));
        }
        client.execute("ROLLBACK").await?;
        // undefined_table, undefined_column, undefined_object, undefined_function, invalid_schema_name
        return match sqlstate(&error) {
            Some("42P01" | "42703" | "42704" | "42883" | "3F000") => Ok(Some(
                crate::error::db_error(&error).map_or_else(|| error.to_string(), ToString::to_string),
            )),
            _ => Err(error.with("item", label)),
        };
    }
    records::note_item(client, owner, &label).await?;
    records::fence(client, owner).await?;
    crate::writer::commit(client).await?;
    Ok(None)
}
