//! Throwaway PostgreSQL servers on loopback.
//!
//! Each has a folder, a port and a process of its own. A guard process watches over them: when the test is gone,
//! by whatever way, it kills the server and removes the folder.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use postgres::{Client, NoTls};
use rustix::process::Signal;

use crate::{Folder, signal, wait};

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
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
    guard: Guard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Clients are disconnected, everything is written out.
    Fast,
    /// Nothing is written out; the next start recovers.
    Immediate,
    /// `kill -9` of every process.
    Kill,
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
        // The guard removes the folder, after it has seen the server end.
        let folder = std::mem::ManuallyDrop::new(Folder::within(&self.parent, "pg")).path().to_owned();
        let guard = Guard::start(&folder);
        let data = folder.join("data");
        let made = as_server_user(&binaries.join("initdb"))
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "-D",
            ])
            .arg(&data)
            .current_dir(&folder)
            .output()
            .expect("run initdb");
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));

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
        Server { binaries, folder, port: 0, process: None, guard }
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
        self.port
    }

    pub fn url(&self, database: &str) -> String {
        self.url_by(self.port, database)
    }

    /// Through a proxy's port.
    pub fn url_by(&self, port: u16, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/{database}")
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
        assert!(self.process.is_none(), "the server runs already");
        let fixed = self.port != 0;
        for _ in 0..50 {
            if !fixed {
                self.port = free_port();
            }
            if self.try_start() {
                return;
            }
            // Shared memory of killed processes, or the port, is not free yet.
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("the server does not start:\n{}", self.log());
    }

    pub fn stop(&mut self, how: Stop) {
        let mut process = self.process.take().expect("the server runs");
        match how {
            Stop::Fast => signal::send(process.id(), Signal::INT),
            Stop::Immediate => signal::send(process.id(), Signal::QUIT),
            Stop::Kill => self.signal_all(process.id(), Signal::KILL),
        }
        wait::until("the server has stopped", wait::LONG, || {
            process.try_wait().expect("wait for the server")
        });
        self.guard.watch(None);
    }

    pub fn restart(&mut self, how: Stop) {
        self.stop(how);
        self.start();
    }

    /// Stops, keeps a copy of the data folder as it is then, and starts again.
    pub fn keep(&mut self) {
        self.stop(Stop::Fast);
        self.copy_data("data", "kept");
        self.start();
    }

    /// Kills the server and starts it from what [`Server::keep`] has kept: it has forgotten everything since.
    pub fn go_back(&mut self) {
        self.stop(Stop::Kill);
        self.copy_data("kept", "data");
        self.start();
    }

    /// By the server's user, so that the copy belongs to it.
    fn copy_data(&self, from: &str, to: &str) {
        let copied = as_server_user(Path::new("sh"))
            .args(["-c", "rm -rf -- \"$2\" && cp -a -- \"$1\" \"$2\"", "sh", from, to])
            .current_dir(&self.folder)
            .status();
        assert!(copied.is_ok_and(|status| status.success()), "could not copy {from} to {to}");
    }

    /// A hot standby of this server, following it.
    pub fn standby(&self) -> Server {
        let folder = std::mem::ManuallyDrop::new(Folder::new("pg")).path().to_owned();
        let guard = Guard::start(&folder);
        let made = as_server_user(&self.binaries.join("pg_basebackup"))
            .args(["--no-sync", "--write-recovery-conf", "--checkpoint=fast", "--dbname"])
            .arg(self.url("postgres"))
            .arg("--pgdata")
            .arg(folder.join("data"))
            .current_dir(&folder)
            .output()
            .expect("run pg_basebackup");
        assert!(made.status.success(), "pg_basebackup failed: {}", String::from_utf8_lossy(&made.stderr));
        let mut standby = Server { binaries: self.binaries.clone(), folder, port: 0, process: None, guard };
        standby.start();
        standby
    }

    /// Freezes every process of the server: connections stay open and nobody answers.
    pub fn pause(&self) {
        self.signal_all(self.process.as_ref().expect("the server runs").id(), Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal_all(self.process.as_ref().expect("the server runs").id(), Signal::CONT);
    }

    /// Runs one of the server's own programs on its data folder, as `pg_resetwal`.
    pub fn tool(&self, program: &str, args: &[&str]) {
        let output = as_server_user(&self.binaries.join(program))
            .args(args)
            .arg("-D")
            .arg(self.folder.join("data"))
            .current_dir(&self.folder)
            .output()
            .unwrap_or_else(|error| panic!("run {program}: {error}"));
        assert!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr));
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
        let segment = self.folder.join(format!("data/pg_xact/{:04X}", next >> 20));
        let made = as_server_user(Path::new("dd"))
            .args(["if=/dev/zero", "bs=262144", "count=1", "status=none"])
            .arg(format!("of={}", segment.display()))
            .status();
        assert!(made.is_ok_and(|status| status.success()), "could not make {}", segment.display());
        self.start();
    }

    /// The end of the server's own log.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn try_start(&mut self) -> bool {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("open the server's log");
        let mut process = as_server_user(&self.binaries.join("postgres"))
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-p", &self.port.to_string()])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the server's log"))
            .stderr(log)
            // Ctrl-C and the test runner's signals are not for the server: the guard ends it.
            .process_group(0)
            .spawn()
            .expect("start postgres");
        self.guard.watch(Some(process.id()));
        let up = wait::until("the server answers or ends", wait::LONG, || {
            if process.try_wait().expect("ask for the server").is_some() {
                return Some(false);
            }
            Client::connect(&self.url("postgres"), NoTls).is_ok().then_some(true)
        });
        if up {
            self.process = Some(process);
        }
        up
    }

    fn signal_all(&self, postmaster: u32, signal: Signal) {
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"))
            .expect("list the server's processes");
        // The postmaster first: it must not start anything anew, nor clean up.
        signal::send(postmaster, signal);
        for child in children.split_ascii_whitespace() {
            signal::send(child.parse().expect("a process number"), signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server on port {} said last:\n{}", self.port, self.log());
        }
        if self.process.is_some() {
            self.resume();
            self.stop(Stop::Immediate);
        }
    }
}

/// Holds the other end of a pipe to a shell. The shell reads who runs; at the pipe's end it ends that process,
/// whose children follow by themselves, and removes the folder.
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    fn start(folder: &Path) -> Guard {
        let script = "while read -r line; do process=$line; done\n\
                      case $process in ''|none) ;; *) kill -KILL \"$process\"; sleep 1 ;; esac\n\
                      rm -rf -- \"$1\"";
        let guard = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("start the guard");
        Guard(guard)
    }

    fn watch(&mut self, process: Option<u32>) {
        let line = process.map_or("none\n".into(), |id| format!("{id}\n"));
        let pipe = self.0.stdin.as_mut().expect("the guard's pipe");
        pipe.write_all(line.as_bytes()).expect("tell the guard");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // `wait` closes the pipe first.
        if let Err(error) = self.0.wait() {
            eprintln!("could not wait for the guard: {error}");
        }
    }
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
    let reachable = as_server_user(&native.join("bin/postgres"))
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

/// PostgreSQL refuses to run as root: there, as the user that Debian's package makes for it.
fn as_server_user(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
    command
}

/// Below the range from which the system takes clients' ports, so that nobody takes it while the server is down.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
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
        let folder = server.folder.clone();
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
