//! What `check` finds about tables of a MariaDB target that are there before crossfade has made any.

use std::collections::{BTreeMap, BTreeSet};

use connector::{ErrorKind, Finding, Result};
use model::{Catalog, Table, TableName};

use crate::cells::Cells;
use crate::check::blocker;
use crate::check_target::Rights;
use crate::error::number;
use crate::question::{ask, text};
use crate::sql;
use crate::target::{self, Case};
use crate::url::Settings;
use crate::wire::Client;

/// What is wrong with tables that crossfade did not create, and with creating the others.
pub(crate) async fn existing(
    client: &mut Client,
    settings: &Settings,
    catalog: &Catalog,
    rights: &Rights,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let case = Case::of(client).await?;
    let kinds = kinds(client, &settings.database, case).await?;
    let kind = |table: &Table| kinds.get(&case.fold(&table.name.name));
    let (there, new): (Vec<&Table>, Vec<&Table>) =
        catalog.tables.iter().partition(|table| kind(table).is_some());
    keyless(client, &new, findings).await?;
    if there.is_empty() {
        return Ok(());
    }
    let mut usable = Vec::new();
    for table in there {
        match kind(table).filter(|kind| *kind != "InnoDB") {
            None => usable.push(table),
            Some(kind) => findings.push(blocker(
                "MY-TARGET-ENGINE",
                &format!("table {}", target::name(settings, &table.name)?),
                format!("it is there, as {kind}"),
                "rows and the record of them are written in one transaction, which only plain tables of InnoDB have",
                "drop or rename it, so that the table is created, or ALTER TABLE … ENGINE = InnoDB;",
            )),
        }
    }
    triggers(client, settings, case, &usable, rights, findings).await?;
    with_rows(client, settings, &usable, findings).await?;
    columns(client, settings, &usable, findings).await
}

/// What there is in the database under each name: an engine, or what else it is.
async fn kinds(client: &mut Client, database: &str, case: Case) -> Result<BTreeMap<String, String>> {
    let rows = ask(
        client,
        "SELECT TABLE_NAME, IF(TABLE_TYPE = 'BASE TABLE', COALESCE(ENGINE, 'no engine'), TABLE_TYPE) \
         FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?",
        &[text(database)],
    )
    .await?;
    rows.iter().map(|row| Ok((case.fold(row.text(0)?), row.text(1)?.to_owned()))).collect()
}

async fn keyless(client: &mut Client, new: &[&Table], findings: &mut Vec<Finding>) -> Result<()> {
    let setting = client.family().forces_keys();
    let rows = match client.query(&format!("SELECT @@global.{setting}")).await {
        Err(error) if number(&error) == Some(UNKNOWN_VARIABLE) => return Ok(()),
        rows => rows?,
    };
    if Cells::first(rows).text(0)? == "0" {
        return Ok(());
    }
    for table in new.iter().filter(|table| table.key().is_none()) {
        findings.push(blocker(
            "MY-TARGET-PRIMARY-KEY",
            &format!("table {}", table.name),
            format!("it has no key, and {setting} = ON on the target"),
            "the target refuses to create it",
            &format!(
                "SET GLOBAL {setting} = OFF; give the table a primary key on the source, or leave it out"
            ),
        ));
    }
    Ok(())
}

/// `ER_UNKNOWN_SYSTEM_VARIABLE`
const UNKNOWN_VARIABLE: u16 = 1193;

async fn triggers(
    client: &mut Client,
    settings: &Settings,
    case: Case,
    tables: &[&Table],
    rights: &Rights,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let why =
        "it would fire for rows whose effects come from the source already, and no session can switch it off";
    // They are not even listed to others.
    if !tables.is_empty() && !rights.has("TRIGGER", &settings.database) {
        findings.push(blocker(
            "MY-TARGET-TRIGGER",
            "the user of the target URL",
            format!(
                "no TRIGGER on all of {}: whether the tables there have triggers is not told",
                settings.database
            ),
            why,
            &format!("GRANT TRIGGER ON {}.* TO the user", sql::ident(&settings.database)),
        ));
    }
    let names: BTreeSet<String> = tables.iter().map(|table| case.fold(&table.name.name)).collect();
    let rows = ask(
        client,
        "SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = ?",
        &[text(&settings.database)],
    )
    .await?;
    for row in rows {
        if names.contains(&case.fold(row.text(0)?)) {
            let trigger = TableName::new(&settings.database, row.text(1)?);
            findings.push(blocker(
                "MY-TARGET-TRIGGER",
                &format!("table {}.{}", settings.database, row.text(0)?),
                format!("it has the trigger {}", row.text(1)?),
                why,
                &format!(
                    "DROP TRIGGER {}; and create it again when the application moves",
                    sql::table(&trigger)
                ),
            ));
        }
    }
    Ok(())
}

async fn with_rows(
    client: &mut Client,
    settings: &Settings,
    tables: &[&Table],
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let mut names = Vec::new();
    for table in tables {
        names.push(target::name(settings, &table.name)?);
    }
    for names in names.chunks(TABLES_AT_A_TIME) {
        let looks = names.iter().enumerate().map(|(place, name)| {
            format!("SELECT {place} FROM DUAL WHERE EXISTS (SELECT 1 FROM {})", sql::table(name))
        });
        let rows = client.query(&looks.collect::<Vec<_>>().join(" UNION ALL ")).await?;
        for row in rows {
            let name = &names[Cells(row).parse::<usize>(0)?];
            findings.push(blocker(
                "MY-TARGET-NOT-EMPTY",
                &format!("table {name}"),
                "the table is there and holds rows".to_owned(),
                "rows that crossfade did not write would be mixed with the migrated ones",
                &format!("TRUNCATE TABLE {}; or name another database", sql::table(name)),
            ));
        }
    }
    Ok(())
}

/// A statement opens each of its tables.
const TABLES_AT_A_TIME: usize = 50;

async fn columns(
    client: &mut Client,
    settings: &Settings,
    tables: &[&Table],
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let different = |object: String, found: String| {
        let why = "rows could not be written, or not without loss";
        let remedy = "give the table the source's columns and types, or drop it and let crossfade create it";
        blocker("MY-TARGET-COLUMNS", &object, found, why, remedy)
    };
    let found = match target::find(client, settings, tables).await {
        Err(error) if error.kind == ErrorKind::Schema => {
            let cause = error.source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
            findings.push(different(format!("database {}", settings.database), format!("{error}{cause}")));
            return Ok(());
        }
        found => found?,
    };
    let required = required(client, &settings.database).await?;
    for (table, there) in tables.iter().zip(&found.tables) {
        let Some(there) = there else { continue };
        let differences = target::differences(table, there, &found.charsets);
        let known: BTreeSet<String> =
            table.stored().map(|at| table.columns[at].name.to_lowercase()).collect();
        let more = required
            .get(&there.name.name)
            .into_iter()
            .flatten()
            .filter(|name| !known.contains(&name.to_lowercase()));
        let more =
            more.map(|name| format!("column {name}: it must be given a value, and the source has none"));
        findings.extend(
            differences
                .into_iter()
                .chain(more)
                .map(|found| different(format!("table {}", there.name), found)),
        );
    }
    Ok(())
}

/// The columns of each table that every row must be given.
async fn required(client: &mut Client, database: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let rows = ask(
        client,
        "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? \
         AND IS_NULLABLE = 'NO' AND COLUMN_DEFAULT IS NULL AND EXTRA NOT LIKE '%auto_increment%' \
         AND EXTRA NOT LIKE '%GENERATED%' AND EXTRA NOT LIKE '%PERSISTENT%'",
        &[text(database)],
    )
    .await?;
    let mut required: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        required.entry(row.text(0)?.to_owned()).or_default().push(row.text(1)?.to_owned());
    }
    Ok(required)
}
