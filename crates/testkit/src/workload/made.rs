//! Transactions made up for tables that nobody has seen before: a schema of the user's, from `pg_dump --schema-only`.
//!
//! What a column takes is read from the catalog and guessed from its type; what a constraint or a trigger wants is found
//! by trying, so a statement may be refused and is undone alone. What a check names (`status IN ('new', 'paid')`) is
//! among the values that are tried. A table into which no row could be put is named with the last reason:
//! [`Made::tables`] never leaves one out.

mod catalog;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use postgres::{Client, NoTls, SimpleQueryMessage};

use super::{Load, Tally, Writers};
use crate::postgres::{Server, binaries, connect, run};
use catalog::{Column, Reference, Table};

/// A schema on its server, and what has been tried with its tables.
#[derive(Debug)]
pub struct Made {
    tables: Arc<Vec<Table>>,
    /// Tables without a primary key, which were given REPLICA IDENTITY FULL.
    pub keyless: Vec<String>,
    tried: Arc<Mutex<BTreeMap<String, Tried>>>,
}

/// What came of the statements on one table.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    pub refused: u64,
    /// Why the last refused statement was refused.
    pub reason: Option<String>,
}

/// In a row: the table is full, or nothing that is made up fits.
const MISSES_MAX: u32 = 60;

impl Made {
    /// Reads the schema of a database, and puts up to `rows` rows into each table.
    pub fn fill(url: &str, rows: u32, rng: &mut Rng) -> Made {
        let mut client = connect(url);
        let tables = catalog::read(&mut client);
        let keyless = catalog::keyless(&mut client);
        for table in &keyless {
            // As `crossfade check` asks for it.
            run(&mut client, &format!("ALTER TABLE {table} REPLICA IDENTITY FULL"));
        }
        let tried = tables.iter().map(|table| (table.name.clone(), Tried::default())).collect();
        let made = Made { tables: Arc::new(tables), keyless, tried: Arc::new(Mutex::new(tried)) };
        // Parents may come behind their children by name, so once more for what found none.
        for _ in 0..4 {
            for table in made.tables.iter() {
                made.put(&mut client, table, rows, rng);
            }
        }
        made
    }

    fn put(&self, client: &mut Client, table: &Table, rows: u32, rng: &mut Rng) {
        let mut misses = 0;
        while misses < MISSES_MAX && self.tried(&table.name).inserted < u64::from(rows) {
            let done = insert(client, table, rng).and_then(|sql| execute(client, &sql));
            misses = if done.is_ok() { 0 } else { misses + 1 };
            if note(&self.tried, table, Kind::Insert, done).is_err() {
                panic!("the server went away while the tables were filled");
            }
        }
    }

    fn tried(&self, table: &str) -> Tried {
        self.tried.lock().expect("no writer panicked").get(table).cloned().unwrap_or_default()
    }

    /// Every table, with what came of it.
    pub fn tables(&self) -> BTreeMap<String, Tried> {
        self.tried.lock().expect("no writer panicked").clone()
    }

    /// Starts writers.
    pub fn write(&self, url: &str, load: Load) -> Writers {
        let (url, tables, tried) = (url.to_owned(), Arc::clone(&self.tables), Arc::clone(&self.tried));
        Writers::spawn(load, move |rng, stop| work(&url, load, rng, &tables, &tried, stop))
    }
}

/// Loads a dump of a schema by `psql`, with the roles that it names, and returns what the server refused.
pub fn load(servers: [&Server; 2], database: &str, dump: &Path) -> Vec<String> {
    let [source, _] = servers;
    let mut refused = psql(&source.url(database), dump);
    let roles: Vec<String> = refused.iter().filter_map(|line| role(line)).collect();
    if !roles.is_empty() {
        for (role, server) in roles.iter().flat_map(|role| servers.map(|server| (role, server))) {
            let create = format!(
                "DO $$ BEGIN CREATE ROLE {0}; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
                quoted(role)
            );
            server.run("postgres", &create);
        }
        source.run("postgres", &format!("DROP DATABASE {}", quoted(database)));
        source.create_database(database);
        refused = psql(&source.url(database), dump);
    }
    refused
}

fn psql(url: &str, dump: &Path) -> Vec<String> {
    // Servers of other versions come without it.
    let program = binaries(15).map(|folder| folder.join("psql")).filter(|path| path.exists());
    let output = Command::new(program.as_deref().unwrap_or(Path::new("psql")))
        .args(["--no-psqlrc", "--quiet", "--output", "/dev/null", "--file"])
        .arg(dump)
        .arg(url)
        .output()
        .expect("run psql");
    assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().filter(|line| line.contains("ERROR:")).map(str::to_owned).collect()
}

/// `role "app" does not exist`
fn role(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("role \"")?;
    Some(rest.split_once("\" does not exist")?.0.to_owned())
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Insert,
    Update,
    Delete,
}

/// How a statement failed.
enum Failure {
    /// With the server's words.
    Refused(String),
    /// The connection is gone, and with it the knowledge of what happened.
    Lost,
}

fn failure(error: &postgres::Error) -> Failure {
    match error.as_db_error() {
        // The server shuts down, or is starting up.
        Some(refusal) if refusal.code().code().starts_with("57P") => Failure::Lost,
        Some(refusal) => Failure::Refused(refusal.to_string().replace('\n', "; ")),
        None => Failure::Lost,
    }
}

fn execute(client: &mut Client, sql: &str) -> Result<u64, Failure> {
    client.execute(sql, &[]).map_err(|error| failure(&error))
}

/// Keeps account; `Err` when the connection is gone.
fn note(
    tried: &Mutex<BTreeMap<String, Tried>>,
    table: &Table,
    kind: Kind,
    done: Result<u64, Failure>,
) -> Result<bool, ()> {
    let mut tried = tried.lock().expect("no writer panicked");
    let tried = tried.entry(table.name.clone()).or_default();
    match done {
        Ok(rows) => {
            *match kind {
                Kind::Insert => &mut tried.inserted,
                Kind::Update => &mut tried.updated,
                Kind::Delete => &mut tried.deleted,
            } += rows;
            Ok(true)
        }
        Err(Failure::Refused(reason)) => {
            tried.refused += 1;
            tried.reason = Some(reason);
            Ok(false)
        }
        Err(Failure::Lost) => Err(()),
    }
}

fn work(
    url: &str,
    load: Load,
    mut rng: Rng,
    tables: &[Table],
    tried: &Mutex<BTreeMap<String, Tried>>,
    stop: &AtomicBool,
) -> Tally {
    let mut tally = Tally::default();
    let mut client = None;
    while !stop.load(Ordering::SeqCst) && !tables.is_empty() {
        let Some(session) = client.as_mut() else {
            match Client::connect(url, NoTls) {
                Ok(session) => client = Some(session),
                // The server is being restarted.
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
            continue;
        };
        match transaction(session, load, &mut rng, tables, tried) {
            Ok(Ended::Committed) => tally.committed += 1,
            Ok(Ended::RolledBack) => tally.rolled_back += 1,
            Ok(Ended::Refused) => tally.refused += 1,
            Err(()) => {
                tally.reconnects += 1;
                client = None;
            }
        }
        std::thread::sleep(Duration::from_millis(rng.u64(0..=load.pause_ms_max)));
    }
    tally
}

enum Ended {
    Committed,
    RolledBack,
    /// As a whole: a deadlock, or a constraint that is checked at the end.
    Refused,
}

/// One to six statements; one that is refused is undone alone.
fn transaction(
    client: &mut Client,
    load: Load,
    rng: &mut Rng,
    tables: &[Table],
    tried: &Mutex<BTreeMap<String, Tried>>,
) -> Result<Ended, ()> {
    let say = |client: &mut Client, sql: &str| match execute(client, sql) {
        Ok(_) => Ok(true),
        Err(Failure::Refused(_)) => Ok(false),
        Err(Failure::Lost) => Err(()),
    };
    say(client, "BEGIN")?;
    for _ in 0..rng.u8(1..=6) {
        let table = rng.choice(tables).expect("there are tables");
        say(client, "SAVEPOINT here")?;
        let (kind, done) = statement(client, load, rng, table);
        if !note(tried, table, kind, done)? || rng.u8(0..10) == 0 {
            say(client, "ROLLBACK TO here")?;
        } else {
            say(client, "RELEASE here")?;
        }
    }
    if rng.u8(0..10) == 0 {
        say(client, "ROLLBACK")?;
        return Ok(Ended::RolledBack);
    }
    if say(client, "COMMIT")? {
        return Ok(Ended::Committed);
    }
    Ok(Ended::Refused)
}

fn statement(client: &mut Client, load: Load, rng: &mut Rng, table: &Table) -> (Kind, Result<u64, Failure>) {
    let (kind, sql) = match rng.u8(0..20) {
        0..=7 => (Kind::Insert, insert(client, table, rng)),
        8..=14 => (Kind::Update, update(client, table, rng, false)),
        15 | 16 => (Kind::Update, update(client, table, rng, true)),
        17 if load.truncate && rng.u16(0..100) == 0 => (Kind::Delete, Ok(format!("TRUNCATE {}", table.name))),
        _ => (Kind::Delete, Ok(format!("DELETE FROM {} {}", table.name, one_row(table)))),
    };
    let done = sql.and_then(|sql| if sql.is_empty() { Ok(0) } else { execute(client, &sql) });
    (kind, done)
}

/// Any row, of any partition.
fn one_row(table: &Table) -> String {
    let name = &table.name;
    format!("WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM {name} ORDER BY random() LIMIT 1)")
}

fn insert(client: &mut Client, table: &Table, rng: &mut Rng) -> Result<String, Failure> {
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    for reference in &table.references {
        for (name, value) in parent(client, reference)? {
            values.insert(name, value);
        }
    }
    for column in &table.columns {
        let name = column.name.as_str();
        if values.contains_key(name) {
            continue;
        }
        let left_out = column.has_default && (column.key || rng.u8(0..3) == 0);
        if left_out || (!column.not_null && rng.u8(0..6) == 0) {
            continue;
        }
        if let Some(value) = made_up(table, column, rng)? {
            values.insert(name, value);
        }
    }
    if values.is_empty() {
        return Ok(format!("INSERT INTO {} DEFAULT VALUES", table.name));
    }
    let names: Vec<String> = values.keys().map(|name| quoted(name)).collect();
    let cells: Vec<&str> = values.values().map(String::as_str).collect();
    Ok(format!("INSERT INTO {} ({}) VALUES ({})", table.name, names.join(", "), cells.join(", ")))
}

/// An update of what is no key, or of a key; empty where the table has no such column.
fn update(client: &mut Client, table: &Table, rng: &mut Rng, keys: bool) -> Result<String, Failure> {
    let columns: Vec<&Column> = table.columns.iter().filter(|column| column.key == keys).collect();
    let Some(column) = rng.choice(columns) else { return Ok(String::new()) };
    let reference = table
        .references
        .iter()
        .find(|reference| reference.columns.iter().any(|(own, _)| *own == column.name));
    let values: Vec<(String, String)> = match reference {
        Some(reference) => {
            parent(client, reference)?.into_iter().map(|(name, value)| (quoted(name), value)).collect()
        }
        None if !column.not_null && rng.u8(0..6) == 0 => vec![(quoted(&column.name), "NULL".into())],
        None => made_up(table, column, rng)?.map(|value| (quoted(&column.name), value)).into_iter().collect(),
    };
    if values.is_empty() {
        return Ok(String::new());
    }
    let sets: Vec<String> = values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    Ok(format!("UPDATE {} SET {} {}", table.name, sets.join(", "), one_row(table)))
}

/// `None` where the column is better left out.
fn made_up(table: &Table, column: &Column, rng: &mut Rng) -> Result<Option<String>, Failure> {
    if !table.hints.is_empty() && rng.bool() {
        let hint = rng.choice(&table.hints).expect("there are hints");
        if values::takes(&column.kind, hint) {
            return Ok(Some(format!("{}::{}", literal(hint), column.type_name)));
        }
    }
    match values::of(&column.kind, rng) {
        Some(value) => Ok(Some(format!("{value}::{}", column.type_name))),
        None if column.not_null && !column.has_default => Err(Failure::Refused(format!(
            "no value is known for column {} of type {}",
            column.name, column.type_name
        ))),
        None => Ok(None),
    }
}

/// The columns that refer to a parent, with the values of one that is there; NULL where there is none.
fn parent<'a>(client: &mut Client, reference: &'a Reference) -> Result<Vec<(&'a str, String)>, Failure> {
    let theirs: Vec<String> =
        reference.columns.iter().map(|(_, theirs)| format!("{}::text", quoted(theirs))).collect();
    let sql = format!("SELECT {} FROM {} ORDER BY random() LIMIT 1", theirs.join(", "), reference.parent);
    let answer = client.simple_query(&sql).map_err(|error| failure(&error))?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let own = reference.columns.iter().map(|(own, _)| own.as_str()).enumerate();
    Ok(own.map(|(at, own)| (own, row.and_then(|row| row.get(at)).map_or("NULL".into(), literal))).collect())
}

fn literal(text: &str) -> String {
    // The E form means the same under any standard_conforming_strings.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Tried {
    pub fn add(&mut self, other: Tried) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
        self.refused += other.refused;
        self.reason = other.reason.or(self.reason.take());
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tried { inserted, updated, deleted, refused, reason } = self;
        write!(f, "{inserted} inserted, {updated} updated, {deleted} deleted, {refused} refused")?;
        match reason {
            Some(reason) if *inserted == 0 => write!(f, " — NOT FILLED, the last time because: {reason}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fixtures stand for schemas of users.
    #[test]
    fn every_table_of_the_examples_is_filled_and_written_to() {
        let server = Server::builder().without_fsync().start();
        for name in ["market", "rental"] {
            server.create_database(name);
            let dump = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/{name}.sql"));
            assert_eq!(load([&server, &server], name, &dump), Vec::<String>::new());
            let url = server.url(name);
            let made = Made::fill(&url, 40, &mut Rng::with_seed(7));
            let tables = made.tables();
            assert!(tables.len() > 5);
            for (table, tried) in &tables {
                assert!(tried.inserted >= 3, "{table}: {tried} {:?}", tried.reason);
            }
            let writers = made.write(&url, Load { pause_ms_max: 0, truncate: true, ..Load::default() });
            std::thread::sleep(Duration::from_secs(3));
            let tally = writers.stop();
            assert!(tally.committed > 50 && tally.rolled_back > 5, "{tally}");
            let sum = made
                .tables()
                .values()
                .fold((0, 0), |sum, tried| (sum.0 + tried.updated, sum.1 + tried.deleted));
            assert!(sum.0 > 20 && sum.1 > 5, "{sum:?}");
        }
    }
}
