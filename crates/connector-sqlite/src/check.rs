//! What `check` finds about a SQLite database, as source and as target. Nothing is changed.

use connector::{Finding, Result, Selection, Severity};
use model::{Catalog, Identity, Table};
use rusqlite::Connection;

use crate::error::During;
use crate::sql::quote;
use crate::{catalog, layout};

pub(crate) fn source(connection: &mut Connection, selection: &Selection) -> Result<Vec<Finding>> {
    let operation = "check the source";
    let mut findings = Vec::new();
    writable(connection, &mut findings);
    journal_mode(connection, &mut findings).during(operation)?;
    intact(connection, &mut findings).during(operation)?;
    virtual_tables(connection, selection, &mut findings).during(operation)?;
    taken(connection, &mut findings).during(operation)?;
    let catalog = catalog::read(connection, selection)?;
    for table in &catalog.tables {
        rows(connection, table, &mut findings).during(operation)?;
        if let Err(error) = layout::Layout::read(connection, table) {
            findings.push(Finding {
                id: "SQ-CAPTURE",
                severity: Severity::Blocker,
                object: table.name.to_string(),
                found: error.to_string(),
                why: "Its changes cannot be logged.".to_owned(),
                remedy: error.hint.unwrap_or_default(),
            });
        }
    }
    Ok(findings)
}

fn writable(connection: &Connection, findings: &mut Vec<Finding>) {
    let Err(error) = connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK") else { return };
    let (id, severity) = if crate::error::is_busy(&error) {
        ("SQ-BUSY", Severity::Warning)
    } else {
        ("SQ-READ-ONLY", Severity::Blocker)
    };
    findings.push(Finding {
        id,
        severity,
        object: "the source file".to_owned(),
        found: format!("a write transaction could not begin: {error}"),
        why: "Following the changes needs triggers and a change log in the source.".to_owned(),
        remedy:
            "Make the file and its folder writable for this user, and end transactions that are left open."
                .to_owned(),
    });
}

fn journal_mode(connection: &Connection, findings: &mut Vec<Finding>) -> rusqlite::Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        findings.push(Finding {
            id: "SQ-JOURNAL-MODE",
            severity: Severity::Note,
            object: "the source file".to_owned(),
            found: format!("journal_mode is {mode}"),
            why: "Without WAL a reader stops the application's writes, so the migration switches the file to WAL. The mode is kept in the file."
                .to_owned(),
            remedy: format!("To go back after the migration: PRAGMA journal_mode = {mode};"),
        });
    }
    let encoding: String = connection.query_row("PRAGMA encoding", [], |row| row.get(0))?;
    if encoding != "UTF-8" {
        findings.push(Finding {
            id: "SQ-ENCODING",
            severity: Severity::Note,
            object: "the source file".to_owned(),
            found: format!("text is stored as {encoding}"),
            why: "The target stores it as UTF-8; a text that is not valid UTF-16 cannot be kept as it is."
                .to_owned(),
            remedy: "None is needed for valid text.".to_owned(),
        });
    }
    Ok(())
}

fn intact(connection: &Connection, findings: &mut Vec<Finding>) -> rusqlite::Result<()> {
    let result: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if result != "ok" {
        findings.push(Finding {
            id: "SQ-CORRUPT",
            severity: Severity::Blocker,
            object: "the source file".to_owned(),
            found: result,
            why: "A damaged file may hide rows from some reads and show them to others.".to_owned(),
            remedy: "Restore the file, or rebuild it: sqlite3 FILE .recover | sqlite3 NEW".to_owned(),
        });
    }
    Ok(())
}

fn virtual_tables(
    connection: &Connection,
    selection: &Selection,
    findings: &mut Vec<Finding>,
) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'virtual'")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    for name in names {
        let name = name?;
        if selection.contains(&model::TableName::new(catalog::SCHEMA, &name)) {
            findings.push(Finding {
                id: "SQ-VIRTUAL-TABLE",
                severity: Severity::Warning,
                object: name.clone(),
                found: "a virtual table".to_owned(),
                why: "SQLite fires no triggers for it, so it is not migrated.".to_owned(),
                remedy: format!("Create it again on the target and fill it there. For FTS5: INSERT INTO {0}({0}) VALUES ('rebuild');", quote(&name)),
            });
        }
    }
    Ok(())
}

fn taken(connection: &Connection, findings: &mut Vec<Finding>) -> rusqlite::Result<()> {
    if !crate::log::exists(connection)? {
        return Ok(());
    }
    let owner: String = connection.query_row(
        "SELECT coalesce((SELECT value FROM _crossfade_meta WHERE name = 'stream'), '')",
        [],
        |row| row.get(0),
    )?;
    findings.push(Finding {
        id: "SQ-LOG-EXISTS",
        severity: Severity::Note,
        object: "the source file".to_owned(),
        found: format!("the change log of migration {owner} is there"),
        why: "A source has one change log, for one migration at a time.".to_owned(),
        remedy: "None for the migration of that name; end or abort it before another one starts.".to_owned(),
    });
    Ok(())
}

fn rows(connection: &Connection, table: &Table, findings: &mut Vec<Finding>) -> rusqlite::Result<()> {
    let name = &table.name.name;
    let (columns, primary) = catalog::columns(connection, name)?;
    let nullable: Vec<usize> = primary.iter().copied().filter(|&at| columns[at].nullable).collect();
    let has_null = !nullable.is_empty()
        && table.key_order().is_none()
        && catalog::holds_null(connection, name, &nullable, &columns)?;
    if has_null {
        findings.push(Finding {
            id: "SQ-NULL-IN-KEY",
            severity: Severity::Warning,
            object: table.name.to_string(),
            found: "NULL in a column of the PRIMARY KEY".to_owned(),
            why: "SQLite allows it by mistake. Rows are then told apart by all of their columns, which is slower.".to_owned(),
            remedy: format!(
                "Give these rows a key: SELECT * FROM {} WHERE {} IS NULL;",
                quote(name),
                quote(&columns[nullable[0]].name)
            ),
        });
    } else if table.identity == Identity::WholeRow {
        findings.push(Finding {
            id: "SQ-NO-KEY",
            severity: Severity::Warning,
            object: table.name.to_string(),
            found: "no PRIMARY KEY, and no UNIQUE index over NOT NULL columns".to_owned(),
            why: "Rows are told apart by all of their columns: every change logs the whole old row, and finding it on the target reads the table."
                .to_owned(),
            remedy: "Build the table anew with a primary key, or accept slower changes.".to_owned(),
        });
    }
    if table.columns.iter().any(|column| column.generated) {
        findings.push(Finding {
            id: "SQ-GENERATED",
            severity: Severity::Note,
            object: table.name.to_string(),
            found: "generated columns".to_owned(),
            why: "They are not copied: the target computes them.".to_owned(),
            remedy: "None is needed.".to_owned(),
        });
    }
    Ok(())
}

/// Whether a table comes from an engine whose moves into SQLite nobody has proved yet: PostgreSQL, which numbers its types.
pub(crate) fn is_unproved(table: &Table) -> bool {
    table.columns.iter().any(|column| column.type_id != 0)
}

pub(crate) fn unproved(catalog: &Catalog) -> Option<Finding> {
    let table = catalog.tables.iter().find(|table| is_unproved(table))?;
    Some(Finding {
        id: "SQ-TARGET-ENGINE",
        severity: Severity::Blocker,
        object: table.name.to_string(),
        found: "a table of PostgreSQL, and SQLite as the target".to_owned(),
        why: "It is not proved yet that PostgreSQL's values, partitions and indexes mean the same in SQLite."
            .to_owned(),
        remedy: "Name a server as the target: postgres://… or mariadb://…".to_owned(),
    })
}

pub(crate) fn target(connection: &Connection, catalog: &Catalog, ours: bool) -> Result<Vec<Finding>> {
    let operation = "check the target";
    let mut findings = Vec::new();
    for table in &catalog.tables {
        let name = &table.name.name;
        let (columns, _) = catalog::columns(connection, name).during(operation)?;
        if columns.is_empty() {
            continue;
        }
        let is_empty: bool = connection
            .query_row(&format!("SELECT NOT EXISTS (SELECT 1 FROM {})", quote(name)), [], |row| row.get(0))
            .during(operation)?;
        if !is_empty && !ours {
            findings.push(Finding {
                id: "SQ-TARGET-NOT-EMPTY",
                severity: Severity::Blocker,
                object: name.clone(),
                found: "the table is there and holds rows".to_owned(),
                why: "Rows that are not the source's would be mixed with its rows.".to_owned(),
                remedy: format!("DELETE FROM {}; or name another file as the target.", quote(name)),
            });
        }
        let has_triggers: bool = connection
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1
                 AND name NOT LIKE '\\_crossfade\\_%' ESCAPE '\\')",
                [name],
                |row| row.get(0),
            )
            .during(operation)?;
        if has_triggers {
            findings.push(Finding {
                id: "SQ-TARGET-TRIGGERS",
                severity: Severity::Blocker,
                object: name.clone(),
                found: "the target's table has triggers".to_owned(),
                why: "They would fire for rows whose effects come from the source already.".to_owned(),
                remedy: "Drop them now and create them again after the switch.".to_owned(),
            });
        }
    }
    Ok(findings)
}

/// A target that is not there yet will be created, if its folder lets us.
pub(crate) fn missing_target(path: &std::path::Path) -> Result<Vec<Finding>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => std::path::Path::new("."),
    };
    let refused = match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() && !metadata.permissions().readonly() => return Ok(Vec::new()),
        Ok(metadata) if metadata.is_dir() => "the folder is read-only".to_owned(),
        Ok(_) => "this is not a folder".to_owned(),
        Err(error) => error.to_string(),
    };
    Ok(vec![Finding {
        id: "SQ-TARGET-FOLDER",
        severity: Severity::Blocker,
        object: folder.display().to_string(),
        found: refused,
        why: "The target file cannot be created.".to_owned(),
        remedy: format!("mkdir -p {}", folder.display()),
    }])
}
