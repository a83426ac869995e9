//! What `check` finds on a MariaDB target, its tables aside. Ids are stable and documented in docs/reference/checks.md.

use std::collections::BTreeSet;

use connector::{Finding, Result, Severity};
use model::Catalog;

use crate::cells::Cells;
use crate::check::blocker;
use crate::error::number;
use crate::grants::Grant;
use crate::question::{ask, text};
use crate::records;
use crate::target::{self, Case};
use crate::url::Settings;
use crate::wire::Client;
use crate::{check_tables, session, sql};

pub(crate) async fn target(settings: &Settings, catalog: &Catalog, ours: &str) -> Result<Vec<Finding>> {
    if let Some(reserved) = reserved(&settings.database) {
        return Ok(vec![reserved]);
    }
    let mut client = match session::asking(settings).await {
        Err(error) if number(&error).is_some_and(|number| NO_DATABASE.contains(&number)) => {
            return Ok(vec![no_database(&settings.database)]);
        }
        opened => opened?,
    };
    let mut findings = Vec::new();
    client.doing("check the target");
    let rights = Rights::read(&mut client).await?;
    server(&mut client, &rights, &mut findings).await?;
    missing_rights(&rights, &settings.database, &mut findings);
    names(catalog, Case::of(&mut client).await?, &mut findings);
    if findings.iter().any(|finding| finding.severity == Severity::Blocker) {
        return Ok(findings);
    }
    if !begun(&mut client, ours).await? {
        check_tables::existing(&mut client, settings, catalog, &rights, &mut findings).await?;
    }
    Ok(findings)
}

/// `ER_BAD_DB_ERROR`, and `ER_DBACCESS_DENIED_ERROR` for those who may not know.
const NO_DATABASE: [u16; 2] = [1049, 1044];

fn no_database(name: &str) -> Finding {
    blocker(
        "MY-TARGET-DATABASE",
        &format!("database {name}"),
        "it does not exist on the target, or the user has no right to it".to_owned(),
        "the tables are created there",
        &format!("CREATE DATABASE {} CHARACTER SET utf8mb4;", sql::ident(name)),
    )
}

fn reserved(name: &str) -> Option<Finding> {
    RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)).then(|| {
        blocker(
            "MY-TARGET-DATABASE",
            &format!("database {name}"),
            "it is for the records of migrations, or the server's own".to_owned(),
            "tables of the migration would be mixed with what belongs there",
            "name another database at the end of the target URL",
        )
    })
}

const RESERVED: &[&str] = &[records::DATABASE, "mysql", "information_schema", "performance_schema", "sys"];

/// What the user may do.
pub(crate) struct Rights(Vec<Cells>);

impl Rights {
    async fn read(client: &mut Client) -> Result<Rights> {
        Ok(Rights(client.query("SHOW GRANTS").await?.into_iter().map(Cells).collect()))
    }

    fn grants(&self) -> impl Iterator<Item = Grant<'_>> {
        self.0.iter().filter_map(|row| Grant::parse(row.maybe(0)?))
    }

    pub(crate) fn has(&self, right: &str, database: &str) -> bool {
        self.grants().any(|grant| grant.covers(database) && grant.gives(&[right]))
    }

    /// Where `read_only` keeps others from it.
    fn writes_all_the_same(&self) -> bool {
        self.grants().any(|grant| grant.is_everywhere() && grant.gives(&["READ_ONLY ADMIN"]))
    }
}

fn missing_rights(rights: &Rights, database: &str, findings: &mut Vec<Finding>) {
    for (database, needed, why) in [
        (database, TABLES, "the tables are created and written there"),
        (records::DATABASE, RECORDS, "the records of the migration are created and written there"),
    ] {
        let missing: Vec<&str> =
            needed.iter().copied().filter(|right| !rights.has(right, database)).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            findings.push(blocker(
                "MY-TARGET-RIGHT",
                "the user of the target URL",
                format!("no {missing} on all of {database}"),
                why,
                &format!("GRANT {missing} ON {}.* TO the user", sql::ident(database)),
            ));
        }
    }
}

const TABLES: &[&str] = &["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "INDEX", "REFERENCES"];
const RECORDS: &[&str] = &["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE"];

async fn server(client: &mut Client, rights: &Rights, findings: &mut Vec<Finding>) -> Result<()> {
    let family = client.family();
    if !family.is_mariadb() || family.version < OLDEST {
        findings.push(blocker(
            "MY-TARGET-VERSION",
            "target server",
            client.version().to_owned(),
            "crossfade writes to MariaDB from 10.5 on; others have not been tried",
            "use a MariaDB of 10.5 or newer as the target",
        ));
        return Ok(());
    }
    let asked = sql::list(SETTINGS, |unfit| format!("@@global.{}, {}", unfit.setting, unfit.when));
    let row = Cells::first(client.query(&format!("SELECT {asked}")).await?);
    for (at, unfit) in SETTINGS.iter().enumerate() {
        let is_fit = row.text(2 * at + 1)? == "0" || (unfit.id == READ_ONLY && rights.writes_all_the_same());
        if !is_fit {
            let found = format!("{} = {}", unfit.setting, row.text(2 * at)?);
            let object = format!("setting {}", unfit.setting);
            let blocker = blocker(unfit.id, &object, found, unfit.why, unfit.remedy);
            findings.push(Finding { severity: unfit.severity, ..blocker });
        }
    }
    Ok(())
}

/// MariaDB 10.5, as on the source's side.
const OLDEST: (u32, u32) = (10, 5);

/// A setting that is in the way.
struct Unfit {
    id: &'static str,
    severity: Severity,
    setting: &'static str,
    /// In SQL.
    when: &'static str,
    why: &'static str,
    remedy: &'static str,
}

const READ_ONLY: &str = "MY-TARGET-READ-ONLY";

const SETTINGS: &[Unfit] = &[
    Unfit {
        id: READ_ONLY,
        severity: Severity::Blocker,
        setting: "read_only",
        when: "@@global.read_only",
        why: "nothing can be written; a replica of another server must not be written to either",
        remedy: "SET GLOBAL read_only = OFF; on the primary, or GRANT READ_ONLY ADMIN ON *.* TO the user",
    },
    Unfit {
        id: "MY-TARGET-FORMAT",
        severity: Severity::Blocker,
        setting: "binlog_format",
        when: "@@global.log_bin AND @@global.binlog_format = 'STATEMENT'",
        why: "crossfade writes under READ COMMITTED, so that its sessions do not wait for each other, and a server that logs \
              statements refuses that",
        remedy: "SET GLOBAL binlog_format = ROW; (or MIXED)",
    },
    Unfit {
        id: "MY-TARGET-DURABLE",
        severity: Severity::Warning,
        setting: "innodb_flush_log_at_trx_commit",
        when: "@@global.innodb_flush_log_at_trx_commit <> 1",
        why: LOSES,
        remedy: "SET GLOBAL innodb_flush_log_at_trx_commit = 1;",
    },
    Unfit {
        id: "MY-TARGET-DURABLE",
        severity: Severity::Warning,
        setting: "sync_binlog",
        when: "@@global.log_bin AND @@global.sync_binlog <> 1",
        why: LOSES,
        remedy: "SET GLOBAL sync_binlog = 1;",
    },
    Unfit {
        id: "MY-TARGET-PACKET",
        severity: Severity::Warning,
        setting: "max_allowed_packet",
        // The server's own default.
        when: "@@global.max_allowed_packet < 16 * 1024 * 1024",
        why: "a row that is longer is refused",
        remedy: "SET GLOBAL max_allowed_packet = 1073741824; or at least what the source has",
    },
    Unfit {
        id: "MY-TARGET-LOCAL-INFILE",
        severity: Severity::Note,
        setting: "local_infile",
        when: "NOT @@global.local_infile",
        why: "a row that is longer than max_allowed_packet cannot be copied, which LOAD DATA LOCAL would take in pieces",
        remedy: "nothing where no row is so long; else SET GLOBAL local_infile = ON; for the time of the copy",
    },
    Unfit {
        id: "MY-TARGET-STRICT",
        severity: Severity::Note,
        setting: "innodb_strict_mode",
        when: "NOT @@global.innodb_strict_mode",
        why: "a table whose rows can be too long for a page is created all the same, and such a row is refused when it comes",
        remedy: "SET GLOBAL innodb_strict_mode = ON; to hear of it at the start",
    },
];

const LOSES: &str = "after a power failure the target may lack changes that the journal has given up by then, and the \
                     migration has to begin anew";

/// Names that the target does not have, or has once.
fn names(catalog: &Catalog, case: Case, findings: &mut Vec<Finding>) {
    for (first, second) in target::same_names(catalog, case) {
        findings.push(blocker(
            "MY-TARGET-SAME-NAME",
            &format!("table {second}"),
            format!("table {first} would have the same name on the target"),
            "all tables go into the one database of the target URL",
            "migrate the two into different databases, as two migrations, or leave one out",
        ));
    }
    for table in &catalog.tables {
        let mut columns = BTreeSet::new();
        let wrong = target::unfit(&table.name.name).map(|why| (format!("table {}", table.name), why));
        let wrong = wrong.into_iter().chain(table.columns.iter().filter_map(|column| {
            let twice = !columns.insert(column.name.to_lowercase());
            let why = target::unfit(&column.name)
                .or(twice.then_some("another column's name differs by case alone"))?;
            Some((format!("column {} of table {}", column.name, table.name), why))
        }));
        for (object, why) in wrong {
            findings.push(blocker(
                "MY-TARGET-NAME",
                &object,
                why.to_owned(),
                "the target has no such names",
                "rename it on the source, or leave the table out",
            ));
        }
    }
}

/// Whether this stream has made tables here before.
async fn begun(client: &mut Client, stream: &str) -> Result<bool> {
    let table = "SELECT TABLE_NAME FROM information_schema.TABLES \
                 WHERE TABLE_SCHEMA = 'crossfade' AND TABLE_NAME = 'schema_item'";
    if client.query(table).await?.is_empty() {
        return Ok(false);
    }
    let rows =
        ask(client, "SELECT item FROM crossfade.schema_item WHERE stream = ? LIMIT 1", &[text(stream)])
            .await?;
    Ok(!rows.is_empty())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::{Column, Identity, Kind, Table, TableName};

    use super::*;

    fn ids(findings: &[Finding]) -> Vec<(&str, &str)> {
        findings.iter().map(|finding| (finding.id, finding.object.as_str())).collect()
    }

    #[test]
    fn rights_that_are_missing_are_named() {
        let found = |grants: &[&'static str]| {
            let rows = grants.iter().map(|grant| Cells(vec![Some(Bytes::from_static(grant.as_bytes()))]));
            let mut findings = Vec::new();
            missing_rights(&Rights(rows.collect()), "shop", &mut findings);
            findings.into_iter().map(|finding| finding.remedy).collect::<Vec<_>>()
        };
        assert!(found(&["GRANT ALL PRIVILEGES ON *.* TO `a`@`%`"]).is_empty());
        assert!(
            found(&[
                "GRANT ALL PRIVILEGES ON `shop`.* TO `a`@`%`",
                "GRANT ALL PRIVILEGES ON `crossfade`.* TO `a`@`%`"
            ])
            .is_empty()
        );
        assert_eq!(
            found(&[
                "GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO `a`@`%`",
                "GRANT CREATE, REFERENCES, INDEX ON `shop`.* TO `a`@`%`",
            ]),
            ["GRANT ALTER ON `shop`.* TO the user", "GRANT CREATE ON `crossfade`.* TO the user"]
        );
    }

    #[test]
    fn names_that_cannot_be_kept() {
        let column = |name: &str| Column {
            name: name.to_owned(),
            type_name: "int(11)".to_owned(),
            type_id: 0,
            type_modifier: -1,
            number: 0,
            kind: Kind::Integer,
            nullable: true,
            generated: false,
        };
        let table = |schema: &str, name: &str, columns: &[&str]| Table {
            name: TableName::new(schema, name),
            source_id: 0,
            columns: columns.iter().map(|name| column(name)).collect(),
            identity: Identity::WholeRow,
            unique: Vec::new(),
            root: None,
            rows_estimate: None,
            bytes: 0,
        };
        let catalog = Catalog {
            tables: vec![
                table("a", "t", &["id", "n"]),
                table("a", "u ", &["id"]),
                table("b", "t", &["id", "Id", "n "]),
            ],
        };
        let mut findings = Vec::new();
        names(&catalog, Case::Counts, &mut findings);
        assert_eq!(
            ids(&findings),
            [
                ("MY-TARGET-SAME-NAME", "table b.t"),
                ("MY-TARGET-NAME", "table a.u "),
                ("MY-TARGET-NAME", "column Id of table b.t"),
                ("MY-TARGET-NAME", "column n  of table b.t"),
            ]
        );
    }

    #[test]
    fn databases_that_are_taken() {
        for (name, taken) in [("shop", false), ("Crossfade", true), ("mysql", true), ("crossfade2", false)] {
            assert_eq!(reserved(name).is_some(), taken, "{name}");
        }
    }
}
