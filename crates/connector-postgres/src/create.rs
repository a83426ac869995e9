//! Creates the target's schema in the order that a live copy needs: bare tables, then keys, then everything else.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use connector::{Copied, Error, ErrorKind, NativeSchema, Owner, Result, SchemaItem, failpoint};
use model::{Catalog, Kind, Table, TableName, Value};
use tokio::sync::watch;

use crate::build::{self, Job};
use crate::catalog::Cells;
use crate::records::{self, text};
use crate::statement::{Target, TargetColumn};
use crate::url::Settings;
use crate::wire::{Client, TextRow};
use crate::{dump, encode, session, sql};

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

/// Where the catalog's tables go, in its order.
pub(crate) async fn target_names(client: &mut Client, catalog: &Catalog) -> Result<Vec<TableName>> {
    let mut names: Vec<TableName> = catalog.tables.iter().map(|table| table.name.clone()).collect();
    if let Some(main) = names.iter().find(|name| name.schema == "main") {
        let schema = target_name(client, main).await?.schema;
        names
            .iter_mut()
            .filter(|name| name.schema == "main")
            .for_each(|name| name.schema.clone_from(&schema));
    }
    Ok(names)
}

/// Names as a parameter of type text[], quoted so that the server finds each by `to_regclass`.
pub(crate) fn regclasses<'a>(names: impl IntoIterator<Item = &'a TableName>) -> Bytes {
    let names: Vec<Value> = names.into_iter().map(|name| Value::text(sql::table(name))).collect();
    encode::array(&names)
}

/// The places, from 0 on, that a query over `unnest(…) WITH ORDINALITY` returned first in each row.
pub(crate) fn places(rows: Vec<TextRow>) -> Result<Vec<usize>> {
    rows.into_iter().map(|row| Ok(Cells::of(row).parse::<usize>(0)? - 1)).collect()
}

/// The places of the names under which there is a table.
pub(crate) async fn existing(client: &mut Client, names: &[TableName]) -> Result<Vec<usize>> {
    let rows = client
        .query(
            "SELECT n.place FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY n(name, place) \
             WHERE pg_catalog.to_regclass(n.name) IS NOT NULL ORDER BY n.place",
            &[Some(&regclasses(names))],
        )
        .await?;
    places(rows)
}

/// Those of these tables that hold a row. The ones without a block are not opened one by one.
pub(crate) async fn with_rows(client: &mut Client, names: &[TableName]) -> Result<Vec<TableName>> {
    let rows = client
        .query(
            "SELECT n.place FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY n(name, place) \
             WHERE pg_catalog.pg_relation_size(n.name::regclass) > 0 ORDER BY n.place",
            &[Some(&regclasses(names))],
        )
        .await?;
    let mut found = Vec::new();
    for place in places(rows)? {
        let name = &names[place];
        if !client.simple(&format!("SELECT 1 FROM ONLY {} LIMIT 1", sql::table(name))).await?.is_empty() {
            found.push(name.clone());
        }
    }
    Ok(found)
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
    let names = target_names(client, catalog).await?;
    let existing = existing(client, &names).await?;
    if existing.len() == names.len() {
        if let Some(name) = with_rows(client, &names).await?.first() {
            return Err(Error::new(ErrorKind::Setup, "use the target's table").with("table", name).hint(
                "it holds rows that crossfade did not write; empty it (TRUNCATE) or choose another target database",
            ));
        }
        targets(client, catalog).await?;
        return records::note_items(client, owner, [FOUND.to_owned()]).await;
    }
    if !existing.is_empty() {
        let missing = (0..names.len()).filter(|place| existing.binary_search(place).is_err());
        return Err(Error::new(ErrorKind::Setup, "create the target's tables")
            .with("missing there", sql::list(missing.take(5), |place| names[place].to_string()))
            .hint("some of the tables exist on the target and some do not: drop the ones that exist, or create the missing ones"));
    }
    let ddl = match native {
        Some(native) if native.dialect == DIALECT => native.before.clone(),
        Some(_) => generated(catalog, &names),
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
    records::note_items(client, owner, [BEFORE.to_owned()]).await?;
    records::fence(client, owner).await?;
    crate::writer::commit(client).await
}

/// For a source of another engine: tables from the catalog, each type the one that holds all values of its kind.
fn generated(catalog: &Catalog, names: &[TableName]) -> String {
    let schemas: BTreeSet<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let mut ddl: String = schemas
        .iter()
        .map(|schema| format!("CREATE SCHEMA IF NOT EXISTS {};\n", sql::ident(schema)))
        .collect();
    for (table, name) in catalog.tables.iter().zip(names) {
        let columns = sql::list(table.columns.iter().filter(|column| !column.generated), |column| {
            let required = if column.nullable { "" } else { " NOT NULL" };
            format!("{} {}{required}", sql::ident(&column.name), type_for(column.kind))
        });
        ddl.push_str(&format!("CREATE TABLE {} ({columns});\n", sql::table(name)));
    }
    ddl
}

/// The declared type mapping between engines; documented in docs/reference/types.md.
fn type_for(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer => "bigint",
        Kind::Real => "double precision",
        Kind::Unsigned => "numeric(20)",
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
    let names = target_names(client, catalog).await?;
    let rows = client
        .query(
            "SELECT n.place, a.attname, pg_catalog.format_type(a.atttypid, -1), \
             pg_catalog.format_type(a.atttypid, a.atttypmod), \
             t.typtype IN ('b', 'e', 'r', 'm') AND t.typcategory <> 'A' AND t.typarray <> 0 AND t.typdelim = ',', \
             a.attidentity = 'a' \
             FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY n(name, place) \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = pg_catalog.to_regclass(n.name) \
             JOIN pg_catalog.pg_type t ON t.oid = a.atttypid WHERE a.attnum > 0 AND NOT a.attisdropped",
            &[Some(&regclasses(&names))],
        )
        .await?;
    let mut found: Vec<Found> = names.iter().map(|_| Found::new()).collect();
    for row in rows {
        let row = Cells::of(row);
        let column = TargetColumn {
            name: sql::ident(row.text(1)?),
            type_sql: row.text(2)?.to_owned(),
            declared: row.text(3)?.to_owned(),
            typed_array: row.text(4)? == "t",
            always: row.text(5)? == "t",
        };
        found[row.parse::<usize>(0)? - 1].insert(row.text(1)?.to_owned(), (column, row.text(3)?.to_owned()));
    }
    let tables = catalog.tables.iter().zip(&names).zip(found);
    let targets: Result<Vec<Target>> =
        tables.map(|((table, name), found)| target(table, name, found)).collect();
    Ok((names, targets?))
}

/// By name, with the type as it is written in full.
type Found = HashMap<String, (TargetColumn, String)>;

fn target(planned: &Table, name: &TableName, mut found: Found) -> Result<Target> {
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
                declared: "text".into(),
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
    copied: watch::Receiver<Copied>,
    builders: usize,
) -> Result<()> {
    let mut client = session::keeping(settings, &owner.stream).await?;
    client.doing("create the target's keys");
    if records::has_item(&mut client, owner, BEFORE).await? {
        let (keys, plain) = match native {
            Some(native) if native.dialect == DIALECT => {
                let plain = native.after.iter().filter(|item| restricts_nothing(item));
                (native.keys.clone(), plain.cloned().collect())
            }
            _ => (generated_keys(&mut client, catalog).await?, Vec::new()),
        };
        let mut jobs = Job::of(missing(&mut client, owner, keys).await?, catalog, false);
        jobs.extend(Job::of(missing(&mut client, owner, plain).await?, catalog, true));
        build::side_by_side(settings, owner, catalog, jobs, &copied, builders).await?;
    }
    Copied::all(copied).await;
    have_keys(&mut client, catalog).await
}

/// The names of columns in an order that does not depend on theirs.
fn sorted<'a>(table: &'a Table, columns: &[usize]) -> Vec<&'a str> {
    let mut names: Vec<&str> = columns.iter().map(|&at| table.columns[at].name.as_str()).collect();
    names.sort_unstable();
    names
}

/// Changes find their row by the key: without an index on it each would read the whole table, and without its
/// uniqueness "exactly one row" could not be told.
async fn have_keys(client: &mut Client, catalog: &Catalog) -> Result<()> {
    let names = target_names(client, catalog).await?;
    let keyed: Vec<(&Table, &[usize], &TableName)> = catalog
        .tables
        .iter()
        .zip(&names)
        .filter_map(|(table, name)| Some((table, table.key()?, name)))
        .collect();
    let keys: Vec<Value> =
        keyed.iter().map(|(table, columns, _)| Value::text(sorted(table, columns).join("\u{1}"))).collect();
    let rows = client
        .query(
            "SELECT n.place FROM unnest($1::text[], $2::text[]) WITH ORDINALITY n(name, key, place) \
             WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = n.name::regclass \
               AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
               AND pg_catalog.array_to_string(ARRAY(SELECT a.attname::text COLLATE \"C\" FROM pg_catalog.pg_attribute a \
                 WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) ORDER BY 1), E'\\x01') \
                 = n.key) ORDER BY n.place LIMIT 1",
            &[Some(&regclasses(keyed.iter().map(|(_, _, name)| *name))), Some(&encode::array(&keys))],
        )
        .await?;
    let Some(&place) = places(rows)?.first() else { return Ok(()) };
    let (table, columns, name) = keyed[place];
    Err(Error::new(ErrorKind::Setup, "find rows by their key on the target")
        .with("table", name)
        .with("key", sorted(table, columns).join(", "))
        .hint(format!(
            "create it: ALTER TABLE {} ADD PRIMARY KEY ({});",
            sql::table(name),
            sql::list(columns, |&at| sql::ident(&table.columns[at].name))
        )))
}

async fn generated_keys(client: &mut Client, catalog: &Catalog) -> Result<Vec<SchemaItem>> {
    let mut items = Vec::new();
    for (table, name) in catalog.tables.iter().zip(target_names(client, catalog).await?) {
        let Some(columns) = table.key() else { continue };
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
    for (table, name) in catalog.tables.iter().zip(target_names(client, catalog).await?) {
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

/// Everything else. Indexes are built side by side, and so are the statistics and the proofs of the foreign keys, which
/// the statistics make cheap; what may depend on another item follows in order between them.
/// An item that needs something which is not migrated is left out, with its reason.
pub(crate) async fn finish(
    settings: &Settings,
    owner: &Owner,
    catalog: &Catalog,
    native: Option<&NativeSchema>,
    builders: usize,
) -> Result<Vec<(String, String)>> {
    let mut left_out = Vec::new();
    let mut proofs = Vec::new();
    let whole = Copied::whole();
    let mut client = session::keeping(settings, &owner.stream).await?;
    client.doing("finish the target's schema");
    let ours = records::has_item(&mut client, owner, BEFORE).await?;
    if let Some(native) = native.filter(|native| native.dialect == DIALECT && ours) {
        let (indexes, mut rest): (Vec<SchemaItem>, Vec<SchemaItem>) = native
            .after
            .iter()
            .cloned()
            .partition(|item| matches!(item.kind.as_str(), "INDEX" | "CONSTRAINT"));
        let indexes = Job::of(missing(&mut client, owner, indexes).await?, catalog, false);
        build::side_by_side(settings, owner, catalog, indexes, &whole, builders).await?;
        proofs = rest.iter_mut().filter_map(prove_later).collect();
        for batch in missing(&mut client, owner, rest).await?.chunks(build::BATCH_ITEMS) {
            left_out.extend(build::create(&mut client, owner, batch).await?);
            failpoint::hit(failpoint::FINISH_BETWEEN_ITEMS);
        }
    } else if let Some(native) = native.filter(|native| native.dialect != DIALECT && ours) {
        let unique = generated_unique(&mut client, catalog).await?;
        let unique = Job::of(missing(&mut client, owner, unique).await?, catalog, false);
        build::side_by_side(settings, owner, catalog, unique, &whole, builders).await?;
        // Unique indexes are of the catalog, and have been created above.
        for item in native.after.iter().filter(|item| item.kind != "UNIQUE INDEX") {
            let reason = "it is written in another engine's words; create it by hand".to_owned();
            left_out.push((build::label(item), reason));
        }
    }
    failpoint::hit(failpoint::FINISH_BETWEEN_ITEMS);
    // What was left out is not there to be proved.
    proofs.retain(|proof| !left_out.iter().any(|(item, _)| *item == proof.constraint));
    let statistics = statistics(&mut client, catalog).await?;
    build::side_by_side(settings, owner, catalog, statistics, &whole, builders).await?;
    let proofs = missing(&mut client, owner, proofs.into_iter().map(|proof| proof.item).collect()).await?;
    let proofs = Job::of(proofs, catalog, false);
    build::side_by_side(settings, owner, catalog, proofs, &whole, builders).await?;
    client.execute("BEGIN").await?;
    records::fence(&mut client, owner).await?;
    client
        .query("UPDATE crossfade.progress SET finished = true WHERE stream = $1", &[text(&owner.stream)])
        .await?;
    crate::writer::commit(&mut client).await?;
    Ok(left_out)
}

/// Whether an index can be there while rows of different cuts still meet, and while other tables are empty: a function in it
/// may look into one, whatever it says of itself.
fn restricts_nothing(item: &SchemaItem) -> bool {
    let is_plain = |columns: &str| !columns.contains('(') && !columns.contains(" WHERE ");
    item.kind == "INDEX"
        && item
            .sql
            .strip_prefix("CREATE INDEX ")
            .and_then(|sql| sql.split_once('('))
            .is_some_and(|(_, rest)| is_plain(rest))
}

/// That the rows agree with a foreign key, still to be proved.
struct Proof {
    constraint: String,
    item: SchemaItem,
}

/// Makes a foreign key one that is not proved yet, and returns the proof for later: only the proof reads rows, and it lets
/// others on the same tables run beside it, which adding a foreign key does not.
fn prove_later(item: &mut SchemaItem) -> Option<Proof> {
    if item.kind != "FK CONSTRAINT" {
        return None;
    }
    let key = dump::foreign_key(&item.sql)?;
    item.sql = key.unproved;
    let proof = SchemaItem { kind: "PROOF".into(), name: item.name.clone(), sql: key.proof };
    Some(Proof { constraint: build::label(item), item: proof })
}

/// Gathers what the planner wants to know.
async fn statistics(client: &mut Client, catalog: &Catalog) -> Result<Vec<Job>> {
    let names = target_names(client, catalog).await?;
    let mut tables: Vec<(&Table, &TableName)> = catalog.tables.iter().zip(&names).collect();
    tables.sort_by_key(|(table, _)| Reverse(table.bytes));
    let (large, small) =
        tables.split_at(tables.partition_point(|(table, _)| table.bytes > build::SMALL_BYTES));
    Ok(large
        .chunks(1)
        .chain(small.chunks(build::BATCH_ITEMS))
        .map(|batch| Job::repeatable(format!("ANALYZE {}", sql::list(batch, |(_, name)| sql::table(name)))))
        .collect())
}

async fn missing(client: &mut Client, owner: &Owner, mut items: Vec<SchemaItem>) -> Result<Vec<SchemaItem>> {
    // Waits for a commit of ours that is in flight: its answer may have been lost.
    records::record(client, owner).await?;
    let known = records::items(client, owner).await?;
    items.retain(|item| !known.contains(&build::label(item)));
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_indexes_come_before_all_rows() {
        for (sql, early) in [
            ("CREATE INDEX i ON s.t USING btree (a, b DESC)", true),
            ("CREATE UNIQUE INDEX i ON s.t USING btree (a)", false),
            ("CREATE INDEX i ON s.t USING btree (lower(a))", false),
            ("CREATE INDEX i ON s.t USING btree (a) WHERE f(a)", false),
            ("CREATE INDEX i ON s.t USING btree (a) WHERE b", false),
        ] {
            let item = SchemaItem { kind: "INDEX".into(), name: "s.i".into(), sql: format!("{sql};") };
            assert_eq!(restricts_nothing(&item), early, "{sql}");
        }
    }
}
