//! What `check` finds on a PostgreSQL source and target. Ids are stable and documented in docs/reference/checks.md.

use std::collections::BTreeSet;

use connector::{Error, ErrorKind, Finding, Result, Selection, Severity};
use model::{Catalog, TableName};

use crate::catalog::{self, Cells, NOT_OF_EXTENSION, OTHERS};
use crate::reader::lacks_identity;
use crate::records::text;
use crate::url::Settings;
use crate::wire::Client;
use crate::{create, session, sql};

fn finding(
    id: &'static str,
    severity: Severity,
    object: impl Into<String>,
    found: impl Into<String>,
    why: &str,
    remedy: impl Into<String>,
) -> Finding {
    Finding {
        id,
        severity,
        object: object.into(),
        found: found.into(),
        why: why.to_owned(),
        remedy: remedy.into(),
    }
}

pub(crate) async fn source(settings: &Settings, selection: &Selection) -> Result<Vec<Finding>> {
    let mut client = session::plain(settings, "check").await?;
    client.doing("check the source");
    let mut findings = Vec::new();
    server(&mut client, &mut findings).await?;
    rights(&mut client, &mut findings).await?;
    left_out(&mut client, selection, &mut findings).await?;
    let catalog = catalog::read(&mut client, selection).await?;
    tables(&mut client, &catalog, &mut findings).await?;
    let why = "publishing the tables and dumping their schema each lock all of them, for reading, in one transaction";
    locks(&mut client, "PG-LOCKS", "source", catalog.tables.len() as u64, why, &mut findings).await?;
    Ok(findings)
}

async fn setting(client: &mut Client, name: &str) -> Result<String> {
    let rows = client.query("SELECT pg_catalog.current_setting($1, true)", &[text(name)]).await?;
    let cell = rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten();
    Ok(cell.map_or_else(String::new, |cell| String::from_utf8_lossy(&cell).into_owned()))
}

async fn server(client: &mut Client, findings: &mut Vec<Finding>) -> Result<()> {
    if client.version() < 130_000 {
        findings.push(finding(
            "PG-VERSION",
            Severity::Blocker,
            "source server",
            format!("version {}", client.version() / 10_000),
            "before PostgreSQL 13 there is no pg_current_snapshot() and no exact cut",
            "upgrade the source to 13 or newer",
        ));
    }
    let recovery = client.simple("SELECT pg_catalog.pg_is_in_recovery()").await?;
    if Cells::first(recovery).text(0)? == "t" {
        findings.push(finding(
            "PG-STANDBY",
            Severity::Blocker,
            "source server",
            "a standby",
            "a standby's snapshots do not list running transactions, so a chunk's cut would not be exact",
            "point --source at the primary",
        ));
        return Ok(());
    }
    let level = setting(client, "wal_level").await?;
    if level != "logical" {
        findings.push(finding(
            "PG-WAL-LEVEL",
            Severity::Blocker,
            "setting wal_level",
            format!("wal_level = {level}"),
            "without logical WAL the server cannot tell which rows changed, and every write during the copy would be lost",
            "ALTER SYSTEM SET wal_level = logical; and restart the source server",
        ));
    }
    for (name, used, id) in [
        ("max_replication_slots", "SELECT count(*) FROM pg_catalog.pg_replication_slots", "PG-SLOTS"),
        ("max_wal_senders", "SELECT count(*) FROM pg_catalog.pg_stat_replication", "PG-SENDERS"),
    ] {
        let most: u64 = setting(client, name).await?.parse().unwrap_or(0);
        let rows = client.simple(used).await?;
        let taken: u64 = Cells::first(rows).parse(0)?;
        if taken >= most {
            findings.push(finding(
                id,
                Severity::Blocker,
                format!("setting {name}"),
                format!("{taken} of {most} in use"),
                "capture needs one of its own",
                format!("ALTER SYSTEM SET {name} = {}; and restart the source server", most + 4),
            ));
        }
    }
    let keep = setting(client, "max_slot_wal_keep_size").await?;
    if keep != "-1" {
        findings.push(finding(
            "PG-WAL-BUDGET",
            Severity::Warning,
            "setting max_slot_wal_keep_size",
            format!("max_slot_wal_keep_size = {keep}"),
            "if capture is stopped while the source writes more than this, the slot is lost and the migration must begin again",
            "ALTER SYSTEM SET max_slot_wal_keep_size = -1; or make sure that it covers the longest pause",
        ));
    }
    Ok(())
}

/// A server's lock table is shared by all its sessions and has a fixed size. One transaction may use all of it.
async fn locks(
    client: &mut Client,
    id: &'static str,
    side: &str,
    needed: u64,
    why: &str,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let rows = client
        .simple(
            "SELECT sum(setting::int8) FILTER (WHERE name = 'max_locks_per_transaction'), \
             1 + sum(setting::int8) FILTER (WHERE name <> 'max_locks_per_transaction') FROM pg_catalog.pg_settings \
             WHERE name IN ('max_locks_per_transaction', 'max_connections', 'max_prepared_transactions', \
             'autovacuum_max_workers', 'max_worker_processes', 'max_wal_senders')",
        )
        .await?;
    let row = Cells::first(rows);
    let (each, sessions): (u64, u64) = (row.parse(0)?, row.parse(1)?);
    if needed < each * sessions {
        return Ok(());
    }
    // An eighth more, for everybody else.
    let enough = (needed + needed / 8).div_ceil(sessions);
    findings.push(finding(
        id,
        Severity::Blocker,
        "setting max_locks_per_transaction",
        format!(
            "max_locks_per_transaction = {each} makes room for {} locks, and {needed} are needed",
            each * sessions
        ),
        why,
        format!("ALTER SYSTEM SET max_locks_per_transaction = {enough}; and restart the {side} server"),
    ));
    Ok(())
}

async fn rights(client: &mut Client, findings: &mut Vec<Finding>) -> Result<()> {
    let rows = client
        .simple(
            "SELECT rolname, rolsuper, rolreplication, rolbypassrls, \
             pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), pg_catalog.current_database() \
             FROM pg_catalog.pg_roles WHERE rolname = current_user",
        )
        .await?;
    let row = Cells::first(rows);
    let (role, superuser) = (row.text(0)?.to_owned(), row.text(1)? == "t");
    // Managed services give the right through a role of theirs (rds_replication, cloudsqlreplica …).
    let through_role = client
        .simple(
            "SELECT 1 FROM pg_catalog.pg_roles r WHERE (r.rolreplication OR r.rolname = 'rds_replication') \
             AND pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER') LIMIT 1",
        )
        .await?;
    if !superuser && row.text(2)? != "t" && through_role.is_empty() {
        findings.push(finding(
            "PG-REPLICATION-RIGHT",
            Severity::Blocker,
            format!("role {role}"),
            "it has no REPLICATION attribute",
            "reading the source's log needs it",
            format!(
                "ALTER ROLE {} REPLICATION; (Amazon RDS: GRANT rds_replication TO {};)",
                sql::ident(&role),
                sql::ident(&role)
            ),
        ));
    }
    if !superuser && row.text(4)? != "t" {
        findings.push(finding(
            "PG-CREATE-RIGHT",
            Severity::Blocker,
            format!("role {role}"),
            format!("it may not CREATE in database {}", row.text(5)?),
            "capture creates a publication there",
            format!("GRANT CREATE ON DATABASE {} TO {};", sql::ident(row.text(5)?), sql::ident(&role)),
        ));
    }
    Ok(())
}

/// What holds data and is not migrated: said by name, never silently missing.
async fn left_out(client: &mut Client, selection: &Selection, findings: &mut Vec<Finding>) -> Result<()> {
    let rows = client
        .simple(&format!(
            "SELECT n.nspname, c.relname, c.relkind, c.relpersistence FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE (c.relkind IN ('m', 'f') OR (c.relkind = 'r' AND c.relpersistence = 'u')) AND {OTHERS} AND {NOT_OF_EXTENSION}"
        ))
        .await?;
    for row in rows {
        let row = Cells(row);
        let name = TableName::new(row.text(0)?, row.text(1)?);
        if !selection.contains(&name) {
            continue;
        }
        let (id, what, why, remedy) = match (row.text(2)?, row.text(3)?) {
            ("m", _) => (
                "PG-MATVIEW",
                "a materialized view",
                "its definition is created on the target, its rows are not in the log",
                format!("REFRESH MATERIALIZED VIEW {}; on the target before the switch", sql::table(&name)),
            ),
            ("f", _) => (
                "PG-FOREIGN-TABLE",
                "a foreign table",
                "its rows are on another server; only its definition is created",
                "nothing, if the target can reach that server; else recreate it there".to_owned(),
            ),
            _ => (
                "PG-UNLOGGED",
                "an unlogged table",
                "its changes are not in the log, so its rows are not migrated",
                format!("ALTER TABLE {} SET LOGGED; on the source, if its rows matter", sql::table(&name)),
            ),
        };
        findings.push(finding(id, Severity::Warning, name.to_string(), what, why, remedy));
    }
    let large = client.simple("SELECT count(*) FROM pg_catalog.pg_largeobject_metadata").await?;
    let count: u64 = Cells::first(large).parse(0)?;
    if count > 0 {
        findings.push(finding(
            "PG-LARGE-OBJECTS",
            Severity::Warning,
            "large objects",
            format!("{count} large objects"),
            "PostgreSQL does not put them into the logical log; they are not migrated",
            "move them by pg_dump --blobs at the switch, or into bytea columns before",
        ));
    }
    Ok(())
}

async fn tables(client: &mut Client, catalog: &Catalog, findings: &mut Vec<Finding>) -> Result<()> {
    for (table, problem) in without_identity(client, catalog).await? {
        findings.push(finding(
            "PG-NO-IDENTITY",
            Severity::Blocker,
            table.to_string(),
            problem,
            "once the table is published for capture, the application's own UPDATE and DELETE on it would fail",
            format!(
                "ALTER TABLE {0} REPLICA IDENTITY FULL; (or give it a primary key: ALTER TABLE {0} ADD PRIMARY KEY (…);)",
                sql::table(&table)
            ),
        ));
    }
    let rows = client
        .simple(&format!(
            "SELECT n.nspname, c.relname, pg_catalog.has_table_privilege(c.oid, 'SELECT'), \
               pg_catalog.pg_has_role(c.relowner, 'USAGE'), c.relrowsecurity AND NOT (SELECT rolsuper OR rolbypassrls FROM \
               pg_catalog.pg_roles WHERE rolname = current_user) AND (c.relforcerowsecurity OR NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')) \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND {OTHERS}"
        ))
        .await?;
    for row in rows {
        let row = Cells(row);
        let name = TableName::new(row.text(0)?, row.text(1)?);
        let Some(_) = catalog.table(&name) else { continue };
        if row.text(2)? != "t" {
            findings.push(finding(
                "PG-SELECT-RIGHT",
                Severity::Blocker,
                name.to_string(),
                "it may not be read by this role",
                "the copy reads every row",
                format!("GRANT SELECT ON {} TO {};", sql::table(&name), current_user(client).await?),
            ));
        }
        if row.text(3)? != "t" {
            findings.push(finding(
                "PG-OWNER",
                Severity::Blocker,
                name.to_string(),
                "this role does not own it",
                "only its owner may publish a table for capture",
                format!(
                    "GRANT the owner's role to {}, or use the owner in the source URL",
                    current_user(client).await?
                ),
            ));
        }
        if row.text(4)? == "t" {
            findings.push(finding(
                "PG-ROW-SECURITY",
                Severity::Blocker,
                name.to_string(),
                "row security hides rows from this role",
                "hidden rows would silently be missing on the target",
                format!("ALTER ROLE {} BYPASSRLS;", current_user(client).await?),
            ));
        }
    }
    Ok(())
}

async fn current_user(client: &mut Client) -> Result<String> {
    let rows = client.simple("SELECT current_user").await?;
    Ok(sql::ident(Cells::first(rows).text(0)?))
}

/// Tables whose log would not tell which row was changed, with what is the matter.
async fn without_identity(client: &mut Client, catalog: &Catalog) -> Result<Vec<(TableName, String)>> {
    let rows = client
        .simple(&format!(
            "SELECT n.nspname, c.relname, c.relreplident FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND {OTHERS}"
        ))
        .await?;
    let mut lacking = Vec::new();
    for row in rows {
        let row = Cells(row);
        let name = TableName::new(row.text(0)?, row.text(1)?);
        if let Some(table) = catalog.table(&name)
            && lacks_identity(table, row.text(2)?)
        {
            let problem = match row.text(2)? {
                "n" => "its REPLICA IDENTITY is NOTHING",
                "i" => "the index of its REPLICA IDENTITY is gone",
                _ => "it has no primary key, and its REPLICA IDENTITY is DEFAULT",
            };
            lacking.push((name, problem.to_owned()));
        }
    }
    Ok(lacking)
}

/// Refuses what would break the application's writes, whatever `check` was or was not asked.
pub(crate) async fn identities(client: &mut Client, catalog: &Catalog) -> Result<()> {
    match without_identity(client, catalog).await?.into_iter().next() {
        None => Ok(()),
        Some((table, problem)) => Err(Error::new(ErrorKind::Setup, "publish a table")
            .with("table", &table)
            .with("because", problem)
            .hint(format!("ALTER TABLE {} REPLICA IDENTITY FULL;", sql::table(&table)))),
    }
}

pub(crate) async fn target(settings: &Settings, catalog: &Catalog, ours: &str) -> Result<Vec<Finding>> {
    let mut client = session::plain(settings, "check").await?;
    client.doing("check the target");
    let mut findings = Vec::new();
    target_rights(&mut client, &mut findings).await?;
    let begun = begun_before(&mut client, ours).await?;
    let names = create::target_names(&mut client, catalog).await?;
    let found = create::existing(&mut client, &names).await?;
    let exist = found.len();
    if exist == 0 {
        schema_rights(&mut client, &names, &mut findings).await?;
        let why = "the tables are created in one transaction, which locks each with its TOAST table and that one's index";
        locks(&mut client, "PG-TARGET-LOCKS", "target", 3 * names.len() as u64, why, &mut findings).await?;
    } else if !begun {
        let tables = found.iter().map(|&place| catalog.tables[place].clone()).collect();
        let names: Vec<TableName> = found.iter().map(|&place| names[place].clone()).collect();
        existing(&mut client, Catalog { tables }, &names, &mut findings).await?;
    }
    if exist > 0 && exist < catalog.tables.len() && !begun {
        findings.push(finding(
            "PG-TARGET-PARTIAL",
            Severity::Blocker,
            "target database",
            format!("{exist} of {} tables exist", catalog.tables.len()),
            "crossfade either creates all tables or uses the ones that are there",
            "drop the ones that exist, or create the missing ones",
        ));
    }
    let encoding = setting(&mut client, "server_encoding").await?;
    if encoding != "UTF8" {
        findings.push(finding(
            "PG-TARGET-ENCODING",
            Severity::Blocker,
            "target database",
            format!("encoding {encoding}"),
            "text that the encoding has no code for could not be stored",
            "create the target database WITH ENCODING 'UTF8' TEMPLATE template0",
        ));
    }
    Ok(findings)
}

/// Schemas that are there already and in which tables are to be created. (Since 15 not everybody may in `public`.)
async fn schema_rights(client: &mut Client, names: &[TableName], findings: &mut Vec<Finding>) -> Result<()> {
    let schemas: BTreeSet<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let role = current_user(client).await?;
    for schema in schemas {
        let rows = client
            .query(
                "SELECT pg_catalog.has_schema_privilege(n.oid, 'CREATE') FROM pg_catalog.pg_namespace n WHERE n.nspname = $1",
                &[text(schema)],
            )
            .await?;
        if rows.first().and_then(|row| row[0].as_deref()) == Some(b"f") {
            findings.push(finding(
                "PG-TARGET-SCHEMA-RIGHT",
                Severity::Blocker,
                format!("schema {schema}"),
                format!("role {role} may not CREATE in it"),
                "the tables are created there",
                format!("GRANT CREATE ON SCHEMA {} TO {role};", sql::ident(schema)),
            ));
        }
    }
    Ok(())
}

async fn begun_before(client: &mut Client, ours: &str) -> Result<bool> {
    let exists =
        client.simple("SELECT 1 WHERE pg_catalog.to_regclass('crossfade.schema_item') IS NOT NULL").await?;
    if exists.is_empty() {
        return Ok(false);
    }
    let rows =
        client.query("SELECT 1 FROM crossfade.schema_item WHERE stream = $1 LIMIT 1", &[text(ours)]).await?;
    Ok(!rows.is_empty())
}

async fn target_rights(client: &mut Client, findings: &mut Vec<Finding>) -> Result<()> {
    let rows = client
        .simple(
            "SELECT current_user, pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), \
             pg_catalog.current_database()",
        )
        .await?;
    let row = Cells::first(rows);
    let (role, database) = (sql::ident(row.text(0)?), sql::ident(row.text(2)?));
    if row.text(1)? != "t" {
        findings.push(finding(
            "PG-TARGET-CREATE-RIGHT",
            Severity::Blocker,
            format!("role {role}"),
            format!("it may not CREATE in database {database}"),
            "the schema `crossfade` with the record of the migration is created there",
            format!("GRANT CREATE ON DATABASE {database} TO {role};"),
        ));
    }
    if let Err(error) = client.execute("SET session_replication_role = replica").await {
        if error.kind != ErrorKind::Permission {
            return Err(error);
        }
        findings.push(finding(
            "PG-TARGET-REPLICA-ROLE",
            Severity::Blocker,
            format!("role {role}"),
            "it may not set session_replication_role",
            "triggers and foreign keys of the target would act a second time on changes that the log has already",
            format!("GRANT SET ON PARAMETER session_replication_role TO {role}; (15 and newer; before: a superuser)"),
        ));
        return Ok(());
    }
    client.execute("RESET session_replication_role").await.map(drop)
}

/// What is wrong with tables that crossfade did not create.
async fn existing(
    client: &mut Client,
    catalog: Catalog,
    names: &[TableName],
    findings: &mut Vec<Finding>,
) -> Result<()> {
    for name in create::with_rows(client, names).await? {
        findings.push(finding(
            "PG-TARGET-NOT-EMPTY",
            Severity::Blocker,
            name.to_string(),
            "the target's table holds rows",
            "rows that crossfade did not write would be mixed with the migrated ones",
            format!("TRUNCATE {}; or choose another target database", sql::table(&name)),
        ));
    }
    let always = client
        .query(
            "SELECT n.place FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY n(name, place) \
             WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t WHERE t.tgrelid = n.name::regclass \
             AND t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal) ORDER BY n.place",
            &[Some(&create::regclasses(names))],
        )
        .await?;
    for place in create::places(always)? {
        findings.push(finding(
            "PG-TARGET-TRIGGER",
            Severity::Warning,
            names[place].to_string(),
            "it has triggers that fire for replicated changes too (ENABLE ALWAYS or REPLICA)",
            "what they write is in the log already and would be there twice",
            "ALTER TABLE … ENABLE TRIGGER …; (the ordinary way), or DISABLE it until the switch",
        ));
    }
    // They must have the columns and types already. Asked for all together; only where that fails one by one.
    match create::targets(client, &catalog).await {
        Err(error) if error.kind == ErrorKind::Schema => {}
        other => return other.map(drop),
    }
    for (table, name) in catalog.tables.into_iter().zip(names) {
        let Err(error) = create::targets(client, &Catalog { tables: vec![table] }).await else { continue };
        if error.kind != ErrorKind::Schema {
            return Err(error);
        }
        findings.push(finding(
            "PG-TARGET-COLUMNS",
            Severity::Blocker,
            name.to_string(),
            error.to_string(),
            "rows could not be written, or not without loss",
            "give the table the source's columns and types, or drop it and let crossfade create it",
        ));
    }
    Ok(())
}
