//! Throwaway MariaDB servers on loopback.

mod pair;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder};
use rustix::process::Signal;

use crate::server::{Host, User};
use crate::wait;

pub use crate::server::Stop;
pub use pair::Pair;

const USER: User = User { name: "nobody", group: "nogroup" };
const SERVER: &str = "/usr/sbin/mariadbd";
const INSTALL: &str = "/usr/bin/mariadb-install-db";

/// What a server is started with.
#[derive(Debug, Default)]
pub struct Builder {
    settings: Vec<(String, String)>,
}

/// A running (or stopped) server.
#[derive(Debug)]
pub struct Server {
    settings: Vec<String>,
    host: Host,
}

impl Builder {
    /// As on the server's command line: `binlog_row_metadata`, `MINIMAL`.
    pub fn setting(mut self, name: &str, value: &str) -> Builder {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Faster, and just as safe against killed processes: only a crash of the whole machine needs fsync.
    pub fn without_fsync(self) -> Builder {
        self.setting("innodb-flush-log-at-trx-commit", "2").setting("sync-binlog", "0")
    }

    pub fn start(self) -> Server {
        let mut server = self.create();
        server.start();
        server
    }

    /// A fresh server that does not run yet.
    pub fn create(self) -> Server {
        assert!(Path::new(SERVER).exists(), "MariaDB is not installed: run `cargo xtask install`");
        let host = Host::within(&std::env::temp_dir(), "maria", USER);
        let mut folder = host.command(Path::new("mkdir"));
        folder.arg("tmp");
        host.run(folder);
        let mut install = command(&host, INSTALL);
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", host.folder.join("data").display()));
        host.run(install);
        // What comes last counts: a test's own settings override these.
        let usual = [
            ("bind-address", "127.0.0.1"),
            ("log-bin", "binlog"),
            ("binlog-format", "ROW"),
            ("binlog-row-image", "FULL"),
            ("binlog-row-metadata", "FULL"),
            ("gtid-strict-mode", "ON"),
            ("innodb-buffer-pool-size", "64M"),
            ("innodb-log-file-size", "64M"),
            ("max-connections", "100"),
            ("max-allowed-packet", "256M"),
            ("local-infile", "ON"),
        ];
        let usual = usual.iter().map(|(name, value)| format!("--{name}={value}"));
        let own = self.settings.iter().map(|(name, value)| format!("--{name}={value}"));
        // Two servers with one number would take each other for themselves.
        let number = format!("--server-id={}", fastrand::u32(1..u32::MAX / 2));
        Server { settings: usual.chain([number]).chain(own).collect(), host }
    }
}

impl Server {
    /// MariaDB 10.11, with its binary log in rows.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub fn port(&self) -> u16 {
        self.host.port
    }

    pub fn url(&self, database: &str) -> String {
        self.url_by(self.host.port, database)
    }

    /// Through a proxy's port.
    pub fn url_by(&self, port: u16, database: &str) -> String {
        format!("mariadb://root@127.0.0.1:{port}/{database}")
    }

    /// How the tests' own sessions reach a database.
    pub(crate) fn options(&self, database: &str) -> Opts {
        options(self.host.port, database)
    }

    /// A session; of no database when the name is empty.
    pub fn client(&self, database: &str) -> Conn {
        open(&self.options(database))
    }

    /// Runs statements in a session of its own.
    pub fn run(&self, database: &str, statements: &[&str]) {
        let mut client = self.client(database);
        statements.iter().for_each(|statement| run(&mut client, statement));
    }

    /// The first cell of each row.
    pub fn list(&self, sql: &str) -> Vec<String> {
        list(&mut self.client(""), sql)
    }

    pub fn create_database(&self, name: &str) {
        self.run("", &[&format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4")]);
    }

    /// Starts the server, on the port that it had before if it ran before.
    pub fn start(&mut self) {
        let settings = &self.settings;
        self.host.start(
            |host| {
                let mut command = command(host, SERVER);
                command.args(["--no-defaults", &format!("--port={}", host.port)]);
                for (name, file) in [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid")] {
                    command.arg(format!("--{name}={}", host.folder.join(file).display()));
                }
                command.args(settings);
                command
            },
            |host| Conn::new(options(host.port, "")).is_ok(),
        );
    }

    /// MariaDB has no way of ending at once that is not a kill.
    pub fn stop(&mut self, how: Stop) {
        self.host.stop(match how {
            Stop::Fast => Signal::TERM,
            Stop::Immediate | Stop::Kill => Signal::KILL,
        });
    }

    pub fn restart(&mut self, how: Stop) {
        self.stop(how);
        self.start();
    }

    /// Stops, keeps a copy of the data folder as it is then, and starts again.
    pub fn keep(&mut self) {
        self.stop(Stop::Fast);
        self.host.copy_data("data", "kept");
        self.start();
    }

    /// Kills the server and starts it from what [`Server::keep`] has kept: it has forgotten everything since.
    pub fn go_back(&mut self) {
        self.stop(Stop::Kill);
        self.host.copy_data("kept", "data");
        self.start();
    }

    /// Freezes the server: connections stay open and nobody answers.
    pub fn pause(&self) {
        self.host.pause();
    }

    pub fn resume(&self) {
        self.host.resume();
    }

    /// The end of the server's own log.
    pub fn log(&self) -> String {
        self.host.log()
    }
}

/// A server that starts removes temporary tables from the folder for them, whoever's they are: so each has one of its own.
fn command(host: &Host, program: &str) -> Command {
    let mut command = host.command(Path::new(program));
    command.env("TMPDIR", host.folder.join("tmp"));
    command
}

fn options(port: u16, database: &str) -> Opts {
    let database = (!database.is_empty()).then_some(database);
    OptsBuilder::new()
        .ip_or_hostname(Some("127.0.0.1"))
        .tcp_port(port)
        .user(Some("root"))
        .db_name(database)
        .prefer_socket(false)
        .tcp_connect_timeout(Some(Duration::from_secs(5)))
        .into()
}

/// A session at a `mariadb://…` URL.
pub fn connect(url: &str) -> Conn {
    let (_, place) = url.split_once("://").expect("the URL of a server");
    let options =
        Opts::from_url(&format!("mysql://{place}")).unwrap_or_else(|error| panic!("{error}: {url}"));
    // However little the server takes, what it has is read.
    open(&OptsBuilder::from_opts(options).prefer_socket(false).max_allowed_packet(Some(1 << 30)).into())
}

/// Connects, waiting for a server that is being restarted.
fn open(options: &Opts) -> Conn {
    let mut last = None;
    wait::until("MariaDB accepts a connection", wait::LONG, || match Conn::new(options.clone()) {
        Ok(client) => Some(client),
        Err(error) => {
            let error = error.to_string();
            if last.as_ref() != Some(&error) {
                eprintln!("MariaDB on port {}: {error}", options.get_tcp_port());
                last = Some(error);
            }
            None
        }
    })
}

/// The first cell of each row, as text.
#[track_caller]
pub fn list(client: &mut Conn, sql: &str) -> Vec<String> {
    let rows: Vec<mysql::Row> = client.query(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    let cell = |row: &mysql::Row| row.get::<Option<String>, _>(0).expect("a first cell");
    rows.iter().map(|row| cell(row).unwrap_or_else(|| "NULL".into())).collect()
}

/// The server's own sum over the bytes of a table's rows, whatever their order.
#[track_caller]
pub fn checksum(client: &mut Conn, table: &str) -> u64 {
    let sql = format!("CHECKSUM TABLE {table}");
    let answer: Option<(String, u64)> =
        client.query_first(&sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    answer.expect("a sum").1
}

/// Runs a statement and shows it when it fails.
#[track_caller]
pub fn run(client: &mut Conn, statement: &str) {
    if let Err(error) = client.query_drop(statement) {
        panic!("{error}\n{statement}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(server: &Server) -> u64 {
        server.client("shop").query_first("SELECT count(*) FROM t").unwrap().unwrap()
    }

    #[test]
    fn keeps_its_data_through_every_way_to_stop() {
        let mut server = Server::builder().start();
        server.create_database("shop");
        server.run("shop", &["CREATE TABLE t (id int)"]);
        for how in [Stop::Fast, Stop::Immediate, Stop::Kill] {
            server.run("shop", &["INSERT INTO t VALUES (1)"]);
            server.restart(how);
        }
        assert_eq!(count(&server), 3);
        server.pause();
        server.resume();
        let folder = server.host.folder.clone();
        drop(server);
        assert!(!folder.exists(), "the guard removes the folder");
    }

    #[test]
    fn goes_back_to_what_was_kept() {
        let mut server = Server::builder().without_fsync().start();
        server.create_database("shop");
        server.run("shop", &["CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)"]);
        server.keep();
        server.run("shop", &["INSERT INTO t VALUES (2)"]);
        assert_eq!(count(&server), 2);
        server.go_back();
        assert_eq!(count(&server), 1);
    }
}
