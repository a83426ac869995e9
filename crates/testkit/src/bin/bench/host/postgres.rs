//! PostgreSQL.

use std::path::Path;

use testkit::postgres::{self, Builder, Server};
use testkit::wait;

use super::Host;

impl Host for Server {
    const SETTINGS: &'static [(&'static str, &'static str)] = &[
        ("shared_buffers", "512MB"),
        ("max_wal_size", "8GB"),
        // pg_dump holds a lock on each of many tables.
        ("max_locks_per_transaction", "256"),
        // A subscription that is enabled soon after another start of its worker would wait for five seconds first.
        ("wal_retrieve_retry_interval", "100ms"),
    ];

    fn start() -> Server {
        builder().start()
    }

    fn url(&self, database: &str) -> String {
        Server::url(self, database)
    }

    fn options(&self) -> String {
        format!("--host=127.0.0.1 --port={} --username=postgres", self.port())
    }

    fn create_database(&self, name: &str) {
        Server::create_database(self, name);
    }

    fn drop_database(&self, name: &str) {
        self.run("postgres", &format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
    }

    fn settle(&self) {
        self.run("postgres", "CHECKPOINT");
    }

    fn make(&self, database: &str, statements: &[&str]) {
        let mut client = self.client(database);
        postgres::run(&mut client, "SET synchronous_commit = off");
        statements.iter().for_each(|sql| postgres::run(&mut client, sql));
    }

    fn release(&self, database: &str, migration: &str) {
        let slot = slot(migration);
        drop_slot(self, database, &slot);
        self.run(database, &format!("DROP PUBLICATION {slot}"));
    }

    fn counts(&self, database: &str) -> Vec<String> {
        tables(self, database, "count(*)::text")
    }

    fn digests(&self, database: &str) -> Vec<String> {
        tables(self, database, "count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)")
    }
}

/// In this folder instead of among the temporary files.
pub(crate) fn start_within(parent: &Path) -> Server {
    builder().within(parent).start()
}

fn builder() -> Builder {
    Server::SETTINGS.iter().fold(Server::builder(), |server, (name, value)| server.setting(name, value))
}

/// What a migration calls its slot, and its publication.
pub(crate) fn slot(migration: &str) -> String {
    format!("crossfade_{migration}")
}

/// The slot of a process that is gone is in use until the server has noticed.
pub(crate) fn drop_slot(server: &Server, database: &str, slot: &str) {
    let mut client = server.client(database);
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                 WHERE slot_name = $1 AND NOT active";
    wait::until("the slot is at rest", wait::LONG, || {
        client.query_opt(drop, &[&slot]).expect("drop the slot").map(|_| ())
    });
}

/// What comes from another engine is in a schema of its own; a migration's records are no tables of the application.
fn tables(server: &Server, database: &str, what: &str) -> Vec<String> {
    let mut client = server.client(database);
    let tables = "SELECT c.relname::text, c.oid::regclass::text
                    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema', 'crossfade')
                   ORDER BY c.relname COLLATE \"C\"";
    let tables = client.query(tables, &[]).expect("list the tables");
    let told = |(name, table): (String, String)| {
        let sql = format!("SELECT {what} FROM {table} t");
        let told: String = client.query_one(&sql, &[]).expect("look at a table").get(0);
        format!("{name} {told}")
    };
    tables.iter().map(|row| (row.get(0), row.get(1))).map(told).collect()
}
