//! What `check` finds on a MariaDB source. Ids are stable and documented in docs/reference/checks.md.

use connector::{ErrorKind, Finding, Result, Selection, Severity};
use model::{Catalog, TableName};

use crate::cells::Cells;
use crate::charset::Charsets;
use crate::declared::column_types;
use crate::error::number;
use crate::grants::Grant;
use crate::url::Settings;
use crate::wire::Client;
use crate::{cascade, catalog, readers, session, sql, walk};

pub(crate) async fn source(settings: &Settings, selection: &Selection) -> Result<Vec<Finding>> {
    let mut client = session::asking(settings).await?;
    client.doing("check the source");
    let mut findings = Vec::new();
    server(&mut client, &mut findings).await?;
    if findings.iter().any(|finding| finding.severity == Severity::Blocker) {
        return Ok(findings);
    }
    rights(&mut client, &settings.database, &mut findings).await?;
    let mut charsets = Charsets::default();
    let catalog = catalog::read(&mut client, &settings.database, selection, &mut charsets).await?;
    engines(&mut client, &settings.database, &catalog, &mut findings).await?;
    hash_uniques(&mut client, &settings.database, &catalog, &mut findings).await?;
    cascades(&mut client, &catalog, &mut findings).await?;
    left_out(&mut client, &settings.database, &mut findings).await?;
    in_one_piece(&catalog, &charsets, &mut findings)?;
    Ok(findings)
}

/// A finding about a setting or the whole server.
pub(crate) fn blocker(id: &'static str, object: &str, found: String, why: &str, remedy: &str) -> Finding {
    let (object, why, remedy) = (object.to_owned(), why.to_owned(), remedy.to_owned());
    Finding { id, severity: Severity::Blocker, object, found, why, remedy }
}

async fn server(client: &mut Client, findings: &mut Vec<Finding>) -> Result<()> {
    let family = client.family();
    if !family.is_mariadb() || family.version < OLDEST {
        findings.push(blocker(
            "MY-VERSION",
            "source server",
            client.version().to_owned(),
            "crossfade reads MariaDB from 10.5 on; MySQL's snapshots cannot be fitted to its log yet",
            "use a MariaDB of 10.5 or newer as the source",
        ));
        return Ok(());
    }
    for required in REQUIRED {
        let rows = client.query(&format!("SELECT @@global.{}", required.setting)).await?;
        let found = Cells::first(rows).text(0)?.to_owned();
        if !found.eq_ignore_ascii_case(required.value) {
            findings.push(blocker(
                required.id,
                &format!("setting {}", required.setting),
                format!("{} = {found}", required.setting),
                required.why,
                required.remedy,
            ));
        }
    }
    if !client.query("XA RECOVER").await?.is_empty() {
        findings.push(blocker(
            "MY-XA",
            "source server",
            "prepared transactions (XA RECOVER lists them)".to_owned(),
            "what they wrote is in the log before they are committed, and crossfade does not hold it back yet",
            "XA COMMIT or XA ROLLBACK each of them",
        ));
    }
    replica(client, findings).await?;
    filters(client, findings).await?;
    durability(client, findings).await
}

/// After a power failure the log may lack what the tables have, or the other way round.
async fn durability(client: &mut Client, findings: &mut Vec<Finding>) -> Result<()> {
    let settings = ["sync_binlog", "innodb_flush_log_at_trx_commit"];
    let selected = sql::list(settings, |setting| format!("@@global.{setting}"));
    let row = Cells::first(client.query(&format!("SELECT {selected}")).await?);
    for (at, setting) in settings.into_iter().enumerate() {
        let found = row.text(at)?;
        if found != "1" {
            findings.push(Finding {
                id: "MY-DURABLE",
                severity: Severity::Warning,
                object: format!("setting {setting}"),
                found: format!("{setting} = {found}"),
                why: "after a power failure of the source its log and its tables may differ, and no replica notices: neither does crossfade"
                    .to_owned(),
                remedy: format!("SET GLOBAL {setting} = 1; or begin the migration anew after a power failure"),
            });
        }
    }
    Ok(())
}

/// A node of a Galera cluster is a replica of the others.
async fn replica(client: &mut Client, findings: &mut Vec<Finding>) -> Result<()> {
    let rows = client.query("SELECT @@global.log_slave_updates, @@global.wsrep_on").await;
    // A build without Galera has no such variable.
    let rows = match rows {
        Err(error) if number(&error) == Some(UNKNOWN_VARIABLE) => {
            client.query("SELECT @@global.log_slave_updates, 0").await?
        }
        rows => rows?,
    };
    let row = Cells::first(rows);
    let (logs, in_cluster) = (row.text(0)? == "1", row.text(1)? == "1");
    if logs {
        return Ok(());
    }
    let replicates = match client.query("SHOW ALL SLAVES STATUS").await {
        // A right of its own, which nobody needs who reads the log: then it is taken for possible.
        Err(error) if error.kind == ErrorKind::Permission => true,
        rows => !rows?.is_empty(),
    };
    if replicates || in_cluster {
        findings.push(blocker(
            "MY-REPLICA",
            "source server",
            "log_slave_updates = OFF on a server that is a replica, or whether it is one may not be asked".to_owned(),
            "what it replicates is not in its own log, and would be lost",
            "point --source at the primary, or set log_slave_updates = ON and restart the server, or GRANT REPLICA MONITOR ON *.* \
             to the user if it is no replica",
        ));
    }
    Ok(())
}

/// `ER_UNKNOWN_SYSTEM_VARIABLE`
const UNKNOWN_VARIABLE: u16 = 1193;

/// `binlog_do_db` and `binlog_ignore_db` keep databases out of the log; no variable tells them.
async fn filters(client: &mut Client, findings: &mut Vec<Finding>) -> Result<()> {
    let rows = match client.query("SHOW MASTER STATUS").await {
        // `rights` says so by name.
        Err(error) if error.kind == ErrorKind::Permission => return Ok(()),
        rows => rows?,
    };
    let row = Cells::first(rows);
    for (at, setting) in [(2, "binlog_do_db"), (3, "binlog_ignore_db")] {
        if let Some(databases) = row.maybe(at).filter(|databases| !databases.is_empty()) {
            findings.push(blocker(
                "MY-LOG-FILTER",
                &format!("setting {setting}"),
                format!("{setting} = {databases}"),
                "changes of databases that are kept out of the log would be lost",
                &format!("remove {setting} from the server's configuration and restart it"),
            ));
        }
    }
    Ok(())
}

/// MariaDB 10.5.
const OLDEST: (u32, u32) = (10, 5);

struct Required {
    id: &'static str,
    setting: &'static str,
    value: &'static str,
    why: &'static str,
    remedy: &'static str,
}

const REQUIRED: &[Required] = &[
    Required {
        id: "MY-LOG-BIN",
        setting: "log_bin",
        value: "1",
        why: "without the binary log nobody can tell which rows changed, and every write during the copy would be lost",
        remedy: "set log_bin and binlog_format = ROW in the server's configuration and restart it",
    },
    Required {
        id: "MY-FORMAT",
        setting: "binlog_format",
        value: "ROW",
        why: "a log of statements does not tell which rows changed",
        remedy: "SET GLOBAL binlog_format = ROW; and let the application connect anew: a session keeps the format that it began with",
    },
    Required {
        id: "MY-LOG-COMPRESS",
        setting: "log_bin_compress",
        value: "0",
        why: "compressed events cannot be read yet",
        remedy: "SET GLOBAL log_bin_compress = OFF; and begin once the log has gone on to another file (FLUSH BINARY LOGS)",
    },
    Required {
        id: "MY-COMMIT-ORDER",
        setting: "binlog_optimize_thread_scheduling",
        value: "1",
        why: "transactions of one group become visible one by one, so that no place in the log is what a snapshot sees",
        remedy: "remove binlog_optimize_thread_scheduling = OFF from the server's configuration and restart it",
    },
    Required {
        id: "MY-ROW-IMAGE",
        setting: "binlog_row_image",
        value: "FULL",
        why: "the log leaves out columns, so that changes cannot be applied to a row that is not there yet",
        remedy: "SET GLOBAL binlog_row_image = FULL; and let the application connect anew: a session keeps what it began with",
    },
];

async fn rights(client: &mut Client, database: &str, findings: &mut Vec<Finding>) -> Result<()> {
    let rows = client.query("SHOW GRANTS").await?;
    let rows: Vec<Cells> = rows.into_iter().map(Cells).collect();
    let grants: Vec<Grant<'_>> = rows.iter().filter_map(|row| Grant::parse(row.maybe(0)?)).collect();
    for (right, names, why) in RIGHTS {
        if !grants.iter().any(|grant| grant.is_everywhere() && grant.gives(names)) {
            findings.push(blocker(
                "MY-RIGHT",
                "the user of the source URL",
                format!("no {right}"),
                why,
                &format!("GRANT {right} ON *.* TO the user"),
            ));
        }
    }
    // Tables and columns that the user may not read are not even listed: they would be missing on the target, and nothing would say so.
    let reads = grants.iter().any(|grant| grant.covers(database) && grant.gives(&["SELECT"]));
    if !reads {
        findings.push(blocker(
            "MY-RIGHT",
            "the user of the source URL",
            format!("no SELECT on all of {database}"),
            "tables that the user may not read are not listed, and would be missing on the target",
            &format!("GRANT SELECT ON {}.* TO the user", sql::ident(database)),
        ));
    }
    if !readers::without_log(client).await? {
        findings.push(Finding {
            id: "MY-LOCK",
            severity: Severity::Note,
            object: "the user of the source URL".to_owned(),
            found: "no BINLOG ADMIN".to_owned(),
            why: "a session that may not leave the log keeps the definition of a table locked, not only while it reads a chunk but as long as \
                  its snapshot lasts: an ALTER, TRUNCATE or DROP waits for minutes, and everybody behind it"
                .to_owned(),
            remedy: "GRANT BINLOG ADMIN ON *.* TO the user, or do not alter tables while they are copied".to_owned(),
        });
    }
    Ok(())
}

/// A right, the rights that include it, and what it is for.
const RIGHTS: &[(&str, &[&str], &str)] = &[
    ("REPLICATION SLAVE", &["REPLICATION SLAVE"], "reading the log needs it"),
    (
        "BINLOG MONITOR",
        &["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"],
        "asking where the log ends needs it",
    ),
];

/// Only InnoDB has snapshots that fit the log.
async fn engines(
    client: &mut Client,
    database: &str,
    catalog: &Catalog,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let rows = client
        .query(&format!(
            "SELECT TABLE_NAME, ENGINE, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} \
             AND (ENGINE <> 'InnoDB' OR TABLE_TYPE = 'SYSTEM VERSIONED')",
            sql::literal(database)
        ))
        .await?;
    for row in rows {
        let row = Cells(row);
        let name = TableName::new(database, row.text(0)?);
        if catalog.table(&name).is_none() {
            continue;
        }
        let object = format!("table {name}");
        let quoted = sql::table(&name);
        findings.push(match row.text(2)? {
            "SYSTEM VERSIONED" => blocker(
                "MY-VERSIONED",
                &object,
                "it keeps its own history (WITH SYSTEM VERSIONING)".to_owned(),
                "old versions of its rows are rows of their own in the log",
                &format!("leave it out, or ALTER TABLE {quoted} DROP SYSTEM VERSIONING;"),
            ),
            _ => blocker(
                "MY-ENGINE",
                &object,
                format!("ENGINE = {}", row.maybe(1).unwrap_or("none")),
                "it has no transactions, so a read of it cannot be fitted to the log",
                &format!("ALTER TABLE {quoted} ENGINE = InnoDB; or leave it out"),
            ),
        });
    }
    Ok(())
}

/// MariaDB checks them by the hash of the value, which it keeps in a column that only its log shows.
async fn hash_uniques(
    client: &mut Client,
    database: &str,
    catalog: &Catalog,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let rows = client
        .query(&format!(
            "SELECT DISTINCT TABLE_NAME, INDEX_NAME FROM information_schema.STATISTICS \
             WHERE TABLE_SCHEMA = {} AND NON_UNIQUE = 0 AND INDEX_TYPE = 'HASH'",
            sql::literal(database)
        ))
        .await?;
    for row in rows {
        let row = Cells(row);
        let (name, index) = (TableName::new(database, row.text(0)?), row.text(1)?);
        if catalog.table(&name).is_some() {
            findings.push(blocker(
                "MY-HASH-UNIQUE",
                &format!("index {index} of table {name}"),
                "unique over a BLOB, a TEXT or a long VARCHAR".to_owned(),
                "the log has a hidden column for it, which the catalog does not tell",
                &format!(
                    "ALTER TABLE {} DROP INDEX {}; while the migration runs, or leave the table out",
                    sql::table(&name),
                    sql::ident(index)
                ),
            ));
        }
    }
    Ok(())
}

/// HAZARDS A03: what a foreign key does to a child's rows is done within InnoDB and is not in the log.
async fn cascades(client: &mut Client, catalog: &Catalog, findings: &mut Vec<Finding>) -> Result<()> {
    for key in cascade::read(client, catalog).await? {
        if let Some(action) = &key.on_delete {
            findings.push(blocker(
                "MY-CASCADE",
                &format!("foreign key {} of {}", key.name, key.child),
                format!("ON DELETE {action}"),
                "MariaDB does not log what it does to the child's rows when a parent is deleted: they would stay on the target",
                &format!(
                    "ALTER TABLE {} DROP FOREIGN KEY {}; and let the application delete the children, or leave the tables out",
                    sql::table(&key.child),
                    sql::ident(&key.name)
                ),
            ));
        } else if let Some(action) = &key.on_update
            && catalog.table(&key.parent).is_none()
        {
            findings.push(blocker(
                "MY-CASCADE",
                &format!("foreign key {} of {}", key.name, key.child),
                format!("ON UPDATE {action}, and its parent {} is not migrated", key.parent),
                "MariaDB does not log what it does to the child's rows, and the parent's changes are not looked at",
                "migrate the parent as well, drop the foreign key, or leave the table out",
            ));
        } else if let Some(action) = &key.on_update {
            findings.push(Finding {
                id: "MY-CASCADE-UPDATE",
                severity: Severity::Warning,
                object: format!("foreign key {} of {}", key.name, key.child),
                found: format!("ON UPDATE {action}"),
                why: "MariaDB does not log what it does to the child's rows when the key of a parent is changed: the migration stops \
                      when that happens"
                    .to_owned(),
                remedy: format!("do not change the referenced columns of {} while the migration runs", key.parent),
            });
        }
    }
    Ok(())
}

/// What is in the database besides tables, by name: nothing of it is carried over.
async fn left_out(client: &mut Client, database: &str, findings: &mut Vec<Finding>) -> Result<()> {
    let database = sql::literal(database);
    let rows = client
        .query(&format!(
            "SELECT 'view', TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {database} \
             UNION ALL SELECT 'sequence', TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {database} AND TABLE_TYPE = 'SEQUENCE' \
             UNION ALL SELECT 'trigger', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {database} \
             UNION ALL SELECT LOWER(ROUTINE_TYPE), ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {database} \
             UNION ALL SELECT 'event', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {database} \
             ORDER BY 1, 2"
        ))
        .await?;
    for row in rows {
        let row = Cells(row);
        findings.push(Finding {
            id: "MY-LEFT-OUT",
            severity: Severity::Note,
            object: format!("{} {}", row.text(0)?, row.text(1)?),
            found: "no table".to_owned(),
            why: "only tables are carried over".to_owned(),
            remedy: "create on the target by hand what the application needs of it".to_owned(),
        });
    }
    Ok(())
}

/// Tables that are read by one statement, whatever their size.
fn in_one_piece(catalog: &Catalog, charsets: &Charsets, findings: &mut Vec<Finding>) -> Result<()> {
    for table in &catalog.tables {
        if table.key_order().is_some() || walk::is_walkable(table, &column_types(table, charsets)?) {
            continue;
        }
        let (id, found, why) = match table.key() {
            None => (
                "MY-NO-KEY",
                "no primary key and no unique index over columns that are NOT NULL",
                "its rows are told apart by all of their cells, and it is copied in one piece: until that is done, an ALTER of it waits, \
                 and everybody behind the ALTER",
            ),
            Some(_) => (
                "MY-KEY-ORDER",
                "an ENUM of more than 255 labels or a SET of more than 8 in its key",
                "the server does not read the index of such a key in parts, so it is copied in one piece: until that is done, an ALTER of it \
                 waits, and everybody behind the ALTER",
            ),
        };
        findings.push(Finding {
            id,
            severity: Severity::Note,
            object: format!("table {}", table.name),
            found: found.to_owned(),
            why: why.to_owned(),
            remedy: "do not alter it while it is copied; nothing else is needed".to_owned(),
        });
    }
    Ok(())
}
