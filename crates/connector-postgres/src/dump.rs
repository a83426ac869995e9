//! The source's schema in PostgreSQL's own words, by `pg_dump`: the one program that knows all of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use connector::{Error, ErrorKind, NativeSchema, Result, SchemaItem};
use model::TableName;
use net::{Host, SslMode};
use tokio::process::Command;

use crate::url::Settings;

/// Dumps the schema of the catalog's tables and of everything that they need.
///
/// `excluded` are the source's tables that are not migrated; they are left out by name.
/// `identities` are tables whose identity in the log is another index than the primary key's, with the name of that index.
pub(crate) async fn schema(
    settings: &Settings,
    server_version: u32,
    excluded: &[TableName],
    identities: &[(TableName, String)],
) -> Result<NativeSchema> {
    let program = find(server_version).await?;
    let dump = run(&program, settings, excluded).await?;
    let (before, after) = dump.split_at(after_data(&dump));
    let (keys, after) = items(after).into_iter().partition(|item| is_key(item, identities));
    Ok(NativeSchema { dialect: "postgres".into(), before: statements(before), keys, after })
}

/// Where what comes after the rows begins: with the first object of a kind that is never dumped before them. One run of the
/// program has both parts, so they are of one moment, and half the time is saved.
fn after_data(dump: &str) -> usize {
    const AFTER: &[&str] = &[
        "CHECK CONSTRAINT",
        "CONSTRAINT",
        "EVENT TRIGGER",
        "FK CONSTRAINT",
        "INDEX",
        "INDEX ATTACH",
        "MATERIALIZED VIEW DATA",
        "POLICY",
        "ROW SECURITY",
        "RULE",
        "STATISTICS",
        "TRIGGER",
    ];
    let mut at = 0;
    for line in dump.split_inclusive('\n') {
        if heading(line.trim_end()).is_some_and(|(_, kind, _)| AFTER.contains(&kind.as_str())) {
            return at;
        }
        at += line.len();
    }
    at
}

/// A `pg_dump` at least as new as the server: an older one refuses, and would not know all there is. The first that is new
/// enough will do.
async fn find(server_version: u32) -> Result<PathBuf> {
    let major = server_version / 10_000;
    let mut newest = None;
    for candidate in candidates() {
        let version = version_of(&candidate).await;
        if version.is_some_and(|version| version >= major) {
            return Ok(candidate);
        }
        newest = newest.max(version);
    }
    Err(Error::new(ErrorKind::Setup, "carry the schema over")
        .with("source version", major)
        .with("newest pg_dump found", newest.map_or("none".to_owned(), |version| version.to_string()))
        .hint(format!(
            "install pg_dump of version {major} or newer (Debian: postgresql-client-{major}) and put it on PATH, \
             or create the tables on the target yourself before the run"
        )))
}

/// Debian keeps every version's programs in a folder of its own, and puts a wrapper on PATH that may pick an older one and
/// takes a tenth of a second to do so; the folders come first, the newest before the others.
fn candidates() -> Vec<PathBuf> {
    let mut folders: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|version| Some((version.file_name().to_str()?.parse().ok()?, version.path().join("bin"))))
        .collect();
    folders.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.into_iter().map(|(_, folder)| folder).chain(std::env::split_paths(&on_path));
    folders.map(|folder| folder.join("pg_dump")).filter(|program| program.is_file()).collect()
}

async fn version_of(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

async fn run(program: &Path, settings: &Settings, excluded: &[TableName]) -> Result<String> {
    let mut command = Command::new(program);
    command
        .args(["--section=pre-data", "--section=post-data"])
        .args(["--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions"])
        .args(["--no-security-labels", "--no-tablespaces", "--exclude-schema=crossfade", "--no-password"])
        .args(
            excluded
                .iter()
                .map(|name| format!("--exclude-table={}.{}", pattern(&name.schema), pattern(&name.name))),
        )
        .stdin(Stdio::null())
        .kill_on_drop(true);
    give_to_libpq(settings, &mut command);
    let failed =
        || Error::new(ErrorKind::Database, "dump the source's schema").with("program", program.display());
    let output = command.output().await.map_err(|error| failed().source(error))?;
    if !output.status.success() {
        return Err(failed().with("pg_dump said", String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|error| failed().source(error))
}

/// Through the environment: arguments are visible to every user of the machine.
fn give_to_libpq(settings: &Settings, command: &mut Command) {
    match &settings.host {
        Host::Tcp(host) => command.env("PGHOST", host),
        Host::Unix(folder) => command.env("PGHOST", folder),
    };
    command
        .env("PGPORT", settings.port.to_string())
        .env("PGUSER", &settings.user)
        .env("PGDATABASE", &settings.dbname)
        .env("PGAPPNAME", "crossfade")
        .env(
            "PGSSLMODE",
            match settings.tls.mode {
                SslMode::Disable => "disable",
                SslMode::Prefer => "prefer",
                SslMode::Require => "require",
                SslMode::VerifyCa => "verify-ca",
                SslMode::VerifyFull => "verify-full",
            },
        );
    if let Some(certificate) = &settings.tls.authorities {
        command.env("PGSSLROOTCERT", certificate);
    }
    if let Some(password) = settings.password() {
        command.env("PGPASSWORD", password);
    }
}

/// A name as a pattern that matches nothing else: quoted, and `"` doubled.
fn pattern(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What a server takes: without psql's own commands, and without a setting that only newer servers know.
fn statements(dump: &str) -> String {
    dump.lines()
        .filter(|line| {
            !(line.starts_with("\\restrict ")
                || line.starts_with("\\unrestrict ")
                || line.starts_with("SET transaction_timeout ")
                // Only the extension's owner may, and the extension brings its comment with it.
                || line.starts_with("COMMENT ON EXTENSION "))
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Splits a dump at the headings that pg_dump writes before each object.
fn items(dump: &str) -> Vec<SchemaItem> {
    let mut items: Vec<SchemaItem> = Vec::new();
    for line in statements(dump).lines() {
        if let Some((name, kind, schema)) = heading(line) {
            items.push(SchemaItem { kind, name: format!("{schema}.{name}"), sql: String::new() });
        } else if let Some(item) = items.last_mut()
            && !(item.sql.is_empty() && (line.is_empty() || line == "--"))
        {
            item.sql.push_str(line);
            item.sql.push('\n');
        }
    }
    for item in &mut items {
        // What follows the statement is the frame of the next heading, or of the dump's last line.
        let mut lines: Vec<&str> = item.sql.lines().collect();
        while lines
            .last()
            .is_some_and(|line| matches!(*line, "" | "--" | "-- PostgreSQL database dump complete"))
        {
            lines.pop();
        }
        item.sql = lines.join("\n");
    }
    items.retain(|item| !item.sql.is_empty());
    items
}

/// `-- Name: t t_pkey; Type: CONSTRAINT; Schema: public; Owner: -`
fn heading(line: &str) -> Option<(String, String, String)> {
    let rest = line.strip_prefix("-- Name: ")?;
    let (name, rest) = rest.split_once("; Type: ")?;
    let (kind, rest) = rest.split_once("; Schema: ")?;
    let (schema, _) = rest.split_once("; Owner:")?;
    Some((name.to_owned(), kind.to_owned(), schema.to_owned()))
}

/// Whether rows are found by it. A primary key beside another identity is none: rows that were read under different cuts may
/// meet on it.
fn is_key(item: &SchemaItem, identities: &[(TableName, String)]) -> bool {
    let table = subject(&item.sql);
    let identity = identities.iter().find(|(of, _)| Some(of) == table.as_ref()).map(|(_, index)| index);
    match (item.kind.as_str(), identity) {
        ("CONSTRAINT", None) => item.sql.contains(" PRIMARY KEY "),
        ("CONSTRAINT", Some(index)) => item.name.ends_with(&format!(" {index}")),
        ("INDEX", Some(index)) => item.name.ends_with(&format!(".{index}")),
        _ => false,
    }
}

/// The table that an index or a constraint is on.
pub(crate) fn subject(sql: &str) -> Option<TableName> {
    let table = match sql.strip_prefix("ALTER TABLE ") {
        Some(table) => table,
        None => {
            let index =
                sql.strip_prefix("CREATE UNIQUE INDEX ").or_else(|| sql.strip_prefix("CREATE INDEX "))?;
            // Without a name where the server is to choose one; an index of this name would be in quotes.
            let rest = if index.starts_with("ON ") { index } else { identifier(index)?.1.trim_start() };
            rest.strip_prefix("ON ")?
        }
    };
    qualified(table.strip_prefix("ONLY ").unwrap_or(table))
}

fn qualified(text: &str) -> Option<TableName> {
    let (schema, rest) = identifier(text)?;
    let (name, _) = identifier(rest.strip_prefix('.')?)?;
    Some(TableName { schema, name })
}

/// A foreign key in two steps.
#[derive(Debug, PartialEq)]
pub(crate) struct ForeignKey {
    /// Creates it without looking at the rows that are there.
    pub(crate) unproved: String,
    pub(crate) proof: String,
}

/// `None` where the source has not proved it either, and for partitioned tables, which must prove theirs at once.
pub(crate) fn foreign_key(sql: &str) -> Option<ForeignKey> {
    let statement = sql.strip_suffix(';').filter(|sql| !sql.ends_with(" NOT VALID"))?;
    let (table, constraint) = statement.split_once("\n    ADD CONSTRAINT ")?;
    let (_, rest) = identifier(constraint)?;
    let name = &constraint[..constraint.len() - rest.len()];
    table.strip_prefix("ALTER TABLE ONLY ")?;
    Some(ForeignKey {
        unproved: format!("{statement} NOT VALID;"),
        proof: format!("{table} VALIDATE CONSTRAINT {name};"),
    })
}

/// The identifier that a text begins with, quoted or not, and what follows.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' && c != '$');
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        return (!name.is_empty()).then(|| (name.to_owned(), rest));
    };
    let mut from = 0;
    loop {
        let end = from + quoted[from..].find('"')?;
        if quoted[end + 1..].starts_with('"') {
            from = end + 2;
            continue;
        }
        return Some((quoted[..end].replace("\"\"", "\""), &quoted[end + 1..]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = r"--
-- PostgreSQL database dump
--

\restrict abc

SET statement_timeout = 0;
SET transaction_timeout = 0;

--
-- Name: t t_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.t
    ADD CONSTRAINT t_pkey PRIMARY KEY (id);


--
-- Name: t_email; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX t_email ON public.t USING btree (email);


--
-- PostgreSQL database dump complete
--

\unrestrict abc
";

    #[test]
    fn a_dump_is_split_into_its_objects() {
        let items = items(DUMP);
        let shown: Vec<(&str, &str, &str)> =
            items.iter().map(|item| (item.kind.as_str(), item.name.as_str(), item.sql.as_str())).collect();
        assert_eq!(
            shown,
            [
                (
                    "CONSTRAINT",
                    "public.t t_pkey",
                    "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id);"
                ),
                ("INDEX", "public.t_email", "CREATE UNIQUE INDEX t_email ON public.t USING btree (email);"),
            ]
        );
        assert!(is_key(&items[0], &[]) && !is_key(&items[1], &[]));
        let by_email = [(TableName::new("public", "t"), "t_email".to_owned())];
        assert!(is_key(&items[1], &by_email) && !is_key(&items[0], &by_email));
        assert!(!statements(DUMP).contains("restrict") && !statements(DUMP).contains("transaction_timeout"));
    }
    #[test]
    fn a_dump_is_split_where_the_rows_would_be() {
        let table =
            "--\n-- Name: t; Type: TABLE; Schema: public; Owner: -\n--\n\nCREATE TABLE public.t ();\n";
        assert_eq!(after_data(table), table.len());
        let dump = format!("{table}\n{DUMP}");
        let (before, after) = dump.split_at(after_data(&dump));
        assert!(before.contains("CREATE TABLE public.t") && !before.contains("t_pkey"));
        assert_eq!(items(after), items(DUMP));
    }

    #[test]
    fn the_table_of_an_item_is_read_from_its_statement() {
        for (sql, schema, name) in [
            ("ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id);", "public", "t"),
            ("CREATE UNIQUE INDEX \"a \"\" ON x.y\" ON s.\"T 1\" USING btree (v);", "s", "T 1"),
            ("CREATE INDEX i ON ONLY \"S\".p USING btree (v);", "S", "p"),
            ("CREATE UNIQUE INDEX ON \"public\".\"a\" (\"b\")", "public", "a"),
        ] {
            assert_eq!(subject(sql), Some(TableName::new(schema, name)), "{sql}");
        }
        assert_eq!(subject("CREATE TRIGGER t BEFORE INSERT ON s.t"), None);
    }

    #[test]
    fn a_foreign_key_is_split_from_its_proof() {
        let add =
            "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT \"f k\" FOREIGN KEY (a) REFERENCES s.u(id) DEFERRABLE";
        assert_eq!(
            foreign_key(&format!("{add};")),
            Some(ForeignKey {
                unproved: format!("{add} NOT VALID;"),
                proof: "ALTER TABLE ONLY s.t VALIDATE CONSTRAINT \"f k\";".to_owned(),
            })
        );
        assert_eq!(foreign_key(&format!("{add} NOT VALID;")), None);
        assert_eq!(
            foreign_key("ALTER TABLE s.p\n    ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES s.u(id);"),
            None
        );
    }
}
