//! Throwaway PostgreSQL servers on loopback.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use postgres::{Client, NoTls};
use rustix::process::Signal;

use crate::server::{self, Host, User};
use crate::wait;

pub use crate::server::Stop;

/// Debian's package makes it.
const USER: User = User { name: "postgres", group: "postgres" };

/// What a server is started with.
#[derive(Debug)]
pub struct Builder {
    version: u32,
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    parent: PathBuf,
}

/// A running (or stopped) server.
#[derive(Debug)]
pub struct Server {
    binaries: PathBuf,
    host: Host,
}

impl Builder {
    pub fn setting(mut self, name: &str, value: &str) -> Builder {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Its folder is in this one instead of among the temporary files.
    pub fn within(mut self, parent: &Path) -> Builder {
        self.parent = parent.to_owned();
        self
    }

    /// A line that comes before `trust` for all in pg_hba.conf.
    pub fn hba(mut self, line: &str) -> Builder {
        self.hba.push(line.into());
        self
    }

    /// Faster, and just as safe against killed processes: only a crash of the whole machine needs fsync.
    pub fn without_fsync(self) -> Builder {
        self.setting("fsync", "off").setting("full_page_writes", "off")
    }

    pub fn start(self) -> Server {
        let mut server = self.create();
        server.start();
        server
    }

    /// A fresh cluster that does not run yet.
    pub fn create(self) -> Server {
        let binaries = binaries(self.version).unwrap_or_else(|| {
            panic!("PostgreSQL {} is not installed: run `cargo xtask install`", self.version)
        });
        let host = Host::within(&self.parent, "pg", USER);
        let data = host.folder.join("data");
        let mut initdb = host.command(&binaries.join("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"]);
        initdb.args(["--locale=C.UTF-8", "-D"]).arg(&data);
        host.run(initdb);

        let mut settings = String::from(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nwal_level = logical\n\
             max_wal_senders = 20\nmax_replication_slots = 20\nmax_connections = 60\n\
             max_prepared_transactions = 10\nshared_buffers = 32MB\nmax_wal_size = 512MB\n\
             timezone = 'UTC'\n",
        );
        for (name, value) in &self.settings {
            writeln!(settings, "{name} = '{value}'").expect("write to memory");
        }
        append(&data.join("postgresql.conf"), &settings);
        let hba = data.join("pg_hba.conf");
        let rest = fs::read_to_string(&hba).expect("read pg_hba.conf");
        fs::write(&hba, format!("{}\n{rest}", self.hba.join("\n"))).expect("write pg_hba.conf");
        Server { binaries, host }
    }
}

impl Server {
    /// PostgreSQL 15, with `wal_level = logical`.
    pub fn builder() -> Builder {
        Server::version(15)
    }

    pub fn version(version: u32) -> Builder {
        Builder { version, settings: Vec::new(), hba: Vec::new(), parent: std::env::temp_dir() }
    }

    pub fn port(&self) -> u16 {
        self.host.port
    }

    pub fn url(&self, database: &str) -> String {
        self.url_by(self.host.port, database)
    }

    /// Through a proxy's port.
    pub fn url_by(&self, port: u16, database: &str) -> String {
        url(port, database)
    }

    pub fn client(&self, database: &str) -> Client {
        connect(&self.url(database))
    }

    /// Runs statements in a session of its own.
    pub fn run(&self, database: &str, sql: &str) {
        run(&mut self.client(database), sql);
    }

    pub fn create_database(&self, name: &str) {
        self.run("postgres", &format!("CREATE DATABASE \"{name}\""));
    }

    /// Changes a setting that a reload can change.
    pub fn set(&self, name: &str, value: &str) {
        let mut client = self.client("postgres");
        run(&mut client, &format!("ALTER SYSTEM SET {name} = '{value}'"));
        run(&mut client, "SELECT pg_reload_conf()");
        wait::until(&format!("{name} is {value:?}"), wait::LONG, || {
            let shown: String = self
                .client("postgres")
                .query_one("SELECT current_setting($1)", &[&name])
                .expect("read a setting")
                .get(0);
            (shown == value).then_some(())
        });
    }

    /// Starts the server, on the port that it had before if it ran before.
    pub fn start(&mut self) {
        let postgres = self.binaries.join("postgres");
        self.host.start(
            |host| {
                let mut command = host.command(&postgres);
                command.arg("-D").arg(host.folder.join("data")).args(["-p", &host.port.to_string()]);
                command
            },
            |host| Client::connect(&url(host.port, "postgres"), NoTls).is_ok(),
        );
    }

    pub fn stop(&mut self, how: Stop) {
        self.host.stop(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
            Stop::Kill => Signal::KILL,
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

    /// A hot standby of this server, following it.
    pub fn standby(&self) -> Server {
        let host = Host::within(&std::env::temp_dir(), "pg", USER);
        let mut backup = host.command(&self.binaries.join("pg_basebackup"));
        backup.args(["--no-sync", "--write-recovery-conf", "--checkpoint=fast", "--dbname"]);
        backup.arg(self.url("postgres")).arg("--pgdata").arg(host.folder.join("data"));
        host.run(backup);
        let mut standby = Server { binaries: self.binaries.clone(), host };
        standby.start();
        standby
    }

    /// Freezes every process of the server: connections stay open and nobody answers.
    pub fn pause(&self) {
        self.host.pause();
    }

    pub fn resume(&self) {
        self.host.resume();
    }

    /// Runs one of the server's own programs on its data folder, as `pg_resetwal`.
    pub fn tool(&self, program: &str, args: &[&str]) {
        let mut command = self.host.command(&self.binaries.join(program));
        command.args(args).arg("-D").arg(self.host.folder.join("data"));
        self.host.run(command);
    }

    /// Moves the next transaction id to `left` before 2^32, where the 32 bits that the log carries begin anew.
    pub fn near_wraparound(&mut self, left: u32) {
        let databases: Vec<String> = self
            .client("postgres")
            .query("SELECT datname::text FROM pg_database WHERE datallowconn", &[])
            .expect("list the databases")
            .iter()
            .map(|row| row.get(0))
            .collect();
        // Rows that are frozen stay visible wherever the ids go.
        databases.iter().for_each(|database| self.run(database, "VACUUM FREEZE"));
        // It would take the databases' own frozen ids, which lie behind the border now, for a reason to remove the commit
        // log that is made below.
        self.run("postgres", "ALTER SYSTEM SET autovacuum = off");
        self.stop(Stop::Fast);
        let next = u32::MAX - left;
        self.tool("pg_resetwal", &["-x", &next.to_string(), "-u", &(next - 10_000).to_string()]);
        // The commit log of these ids, which nobody has written: 2 bits a transaction, 2^20 in a file.
        let segment = self.host.folder.join(format!("data/pg_xact/{:04X}", next >> 20));
        let mut make = self.host.command(Path::new("dd"));
        make.args(["if=/dev/zero", "bs=262144", "count=1", "status=none"]);
        make.arg(format!("of={}", segment.display()));
        self.host.run(make);
        self.start();
    }

    /// The end of the server's own log.
    pub fn log(&self) -> String {
        self.host.log()
    }
}

/// Killed, it would leave its shared memory behind.
impl Drop for Server {
    fn drop(&mut self) {
        if self.host.is_running() {
            self.resume();
            self.stop(Stop::Immediate);
        }
    }
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}")
}

/// Connects, waiting for a server that is being restarted.
pub fn connect(url: &str) -> Client {
    let mut last = None;
    wait::until(&format!("{url} accepts a connection"), wait::LONG, || match Client::connect(url, NoTls) {
        Ok(client) => Some(client),
        Err(error) => {
            let error = error.to_string();
            if last.as_ref() != Some(&error) {
                eprintln!("{url}: {error}");
                last = Some(error);
            }
            None
        }
    })
}

/// Runs statements and shows them when they fail.
#[track_caller]
pub fn run(client: &mut Client, sql: &str) {
    if let Err(error) = client.batch_execute(sql) {
        let reason = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
        panic!("{reason}\n{sql}");
    }
}

/// Where a version's programs are: Debian's, or those that `cargo xtask install` brought.
pub fn binaries(version: u32) -> Option<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"));
    if debian.join("postgres").exists() {
        return Some(debian);
    }
    let native = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../target/servers/node_modules/pg{version}/native"))
        .canonicalize()
        .ok()?;
    let reachable = server::as_user(USER, &native.join("bin/postgres"))
        .arg("--version")
        .output()
        .is_ok_and(|run| run.status.success());
    Some(if reachable { native } else { copy_within_reach(version, &native) }.join("bin"))
}

/// The server's user may not enter the folder that the project lies in: a copy beside all other temporary files.
fn copy_within_reach(version: u32, native: &Path) -> PathBuf {
    let copy = std::env::temp_dir().join(format!("cf-postgresql-{version}"));
    if !copy.exists() {
        // Under a name of its own first: other tests may look for it right now.
        let partial = copy.with_extension(std::process::id().to_string());
        let copied = Command::new("cp").arg("-a").arg(native).arg(&partial).status().expect("run cp");
        assert!(copied.success(), "could not copy {}", native.display());
        if fs::rename(&partial, &copy).is_err() {
            fs::remove_dir_all(&partial).expect("remove a copy that came second");
        }
    }
    copy
}

fn append(path: &Path, text: &str) {
    let mut file = File::options().append(true).open(path).expect("open a configuration file");
    file.write_all(text.as_bytes()).expect("write a configuration file");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_data_through_every_way_to_stop() {
        let mut server = Server::builder().start();
        server.create_database("shop");
        server.run("shop", "CREATE TABLE t (id int)");
        for how in [Stop::Fast, Stop::Immediate, Stop::Kill] {
            server.run("shop", "INSERT INTO t VALUES (1)");
            server.restart(how);
        }
        let count: i64 = server.client("shop").query_one("SELECT count(*) FROM t", &[]).unwrap().get(0);
        assert_eq!(count, 3);
        server.pause();
        server.resume();
        let folder = server.host.folder.clone();
        drop(server);
        assert!(!folder.exists(), "the guard removes the folder");
    }

    #[test]
    fn goes_back_to_what_was_kept() {
        let mut server = Server::builder().without_fsync().start();
        let count = |server: &Server| -> i64 {
            server.client("postgres").query_one("SELECT count(*) FROM t", &[]).unwrap().get(0)
        };
        server.run("postgres", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
        server.keep();
        server.run("postgres", "INSERT INTO t VALUES (2)");
        assert_eq!(count(&server), 2);
        server.go_back();
        assert_eq!(count(&server), 1);
    }

    #[test]
    fn the_oldest_and_the_newest_version_run_where_they_are_installed() {
        for version in [13, 18] {
            if binaries(version).is_none() {
                eprintln!("skipped: PostgreSQL {version} is not installed");
                continue;
            }
            let server = Server::version(version).without_fsync().start();
            let shown: String =
                server.client("postgres").query_one("SHOW server_version_num", &[]).unwrap().get(0);
            assert!(shown.starts_with(&version.to_string()), "{shown}");
        }
    }
}
