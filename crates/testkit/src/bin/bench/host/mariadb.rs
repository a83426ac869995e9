//! MariaDB.

use mysql::prelude::Queryable;
use testkit::mariadb::Server;
use testkit::wait;

use super::Host;

impl Host for Server {
    const SETTINGS: &'static [(&'static str, &'static str)] = &[
        ("innodb_flush_log_at_trx_commit", "1"),
        ("sync_binlog", "1"),
        // InnoDB reads around the system's cache, so the tables have to fit in here.
        ("innodb_buffer_pool_size", "2G"),
        ("innodb_log_file_size", "2G"),
        // A replica logs what it applies, as the target of a migration does.
        ("log_slave_updates", "ON"),
        // As many as crossfade has lanes.
        ("slave_parallel_threads", "2"),
        ("slave_parallel_mode", "optimistic"),
    ];

    fn start() -> Server {
        Self::SETTINGS
            .iter()
            .fold(Server::builder(), |server, (name, value)| server.setting(name, value))
            .start()
    }

    fn url(&self, database: &str) -> String {
        Server::url(self, database)
    }

    fn options(&self) -> String {
        format!("--host=127.0.0.1 --port={} --user=root", self.port())
    }

    fn create_database(&self, name: &str) {
        Server::create_database(self, name);
    }

    /// The records are in a database of their own. Nobody reads the log of a target, and it would fill the disk.
    fn drop_database(&self, name: &str) {
        let drop = format!("DROP DATABASE `{name}`");
        self.run("", &[&drop, "DROP DATABASE IF EXISTS crossfade", "RESET MASTER"]);
    }

    /// What updates leave behind is purged, and no page is left to be written.
    fn settle(&self) {
        let history = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS
                        WHERE VARIABLE_NAME = 'INNODB_HISTORY_LIST_LENGTH'";
        wait::until("everything is purged", wait::LONG, || {
            let left: u64 = self.list(history).first()?.parse().expect("the length of the history");
            // Some transactions' undo logs may stay until the next one.
            (left < 64).then_some(())
        });
        self.run("", &["SET GLOBAL innodb_log_checkpoint_now = ON"]);
    }

    fn make(&self, database: &str, statements: &[&str]) {
        unsynced(self, || self.run(database, statements));
    }

    /// There is nothing.
    fn release(&self, _database: &str, _migration: &str) {}

    fn counts(&self, database: &str) -> Vec<String> {
        tables(self, database)
            .iter()
            .flat_map(|table| {
                self.list(&format!("SELECT CONCAT('{table} ', COUNT(*)) FROM `{database}`.`{table}`"))
            })
            .collect()
    }

    fn digests(&self, database: &str) -> Vec<String> {
        let mut client = self.client(database);
        let digest = |table: String| {
            let sum: Option<(String, Option<u64>)> =
                client.query_first(format!("CHECKSUM TABLE `{table}`")).expect("sum a table up");
            let sum = sum.and_then(|(_, sum)| sum).expect("the sum of a table");
            format!("{table} {sum}")
        };
        tables(self, database).into_iter().map(digest).collect()
    }
}

/// Work for which no commit waits for the disk.
pub(crate) fn unsynced(server: &Server, work: impl FnOnce()) {
    let sync = |flush: u8, binlog: u8| {
        server.run(
            "",
            &[
                &format!("SET GLOBAL innodb_flush_log_at_trx_commit = {flush}"),
                &format!("SET GLOBAL sync_binlog = {binlog}"),
            ],
        );
    };
    sync(2, 0);
    work();
    sync(1, 1);
}

fn tables(server: &Server, database: &str) -> Vec<String> {
    server.list(&format!(
        "SELECT TABLE_NAME FROM information_schema.TABLES
          WHERE TABLE_SCHEMA = '{database}' AND TABLE_TYPE = 'BASE TABLE' ORDER BY BINARY TABLE_NAME"
    ))
}
