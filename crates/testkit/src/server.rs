//! What every throwaway server has: a folder, a port and a process of its own. A guard process watches over them: when
//! the test is gone, by whatever way, it kills the server and removes the folder.

use std::fs::{self, File};
use std::io::Write as _;
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::{Folder, signal, wait};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Clients are disconnected, everything is written out.
    Fast,
    /// Nothing is written out; the next start recovers.
    Immediate,
    /// `kill -9` of every process.
    Kill,
}

/// As whom a server runs where the tests are root's, as servers refuse to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) name: &'static str,
    pub(crate) group: &'static str,
}

/// Where one server lives, running or not.
#[derive(Debug)]
pub(crate) struct Host {
    user: User,
    pub(crate) folder: PathBuf,
    /// 0 until the first start.
    pub(crate) port: u16,
    process: Option<Child>,
    guard: Guard,
}

impl Host {
    /// A folder in `parent` that belongs to a server of this user.
    pub(crate) fn within(parent: &Path, purpose: &str, user: User) -> Host {
        // The guard removes the folder, after it has seen the server end.
        let folder = ManuallyDrop::new(Folder::within(parent, purpose)).path().to_owned();
        let guard = Guard::start(&folder);
        Host { user, folder, port: 0, process: None, guard }
    }

    /// A program that runs as the server's user, in the server's folder.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = as_user(self.user, program);
        command.current_dir(&self.folder);
        command
    }

    /// Runs one of the server's own programs to its end.
    pub(crate) fn run(&self, mut command: Command) {
        let output = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
        assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the server, on the port that it had before if it ran before, and waits until it answers.
    pub(crate) fn start(&mut self, command: impl Fn(&Host) -> Command, answers: impl Fn(&Host) -> bool) {
        assert!(self.process.is_none(), "the server runs already");
        let fixed = self.port != 0;
        for _ in 0..50 {
            if !fixed {
                self.port = free_port();
            }
            if self.try_start(command(self), &answers) {
                return;
            }
            // Shared memory of killed processes, or the port, is not free yet.
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("the server does not start:\n{}", self.log());
    }

    fn try_start(&mut self, mut command: Command, answers: &impl Fn(&Host) -> bool) -> bool {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("open the server's log");
        let mut process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the server's log"))
            .stderr(log)
            // Ctrl-C and the test runner's signals are not for the server: the guard ends it.
            .process_group(0)
            .spawn()
            .expect("start the server");
        self.guard.watch(Some(process.id()));
        let up = wait::until("the server answers or ends", wait::LONG, || {
            if process.try_wait().expect("ask for the server").is_some() {
                return Some(false);
            }
            answers(self).then_some(true)
        });
        if up {
            self.process = Some(process);
        }
        up
    }

    /// Asks the server to end, or kills all of it.
    pub(crate) fn stop(&mut self, signal: Signal) {
        let mut process = self.process.take().expect("the server runs");
        match signal {
            Signal::KILL => signal_all(process.id(), signal),
            _ => signal::send(process.id(), signal),
        }
        wait::until("the server has stopped", wait::LONG, || {
            process.try_wait().expect("wait for the server")
        });
        self.guard.watch(None);
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Freezes every process of the server: connections stay open and nobody answers.
    pub(crate) fn pause(&self) {
        signal_all(self.process.as_ref().expect("the server runs").id(), Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        signal_all(self.process.as_ref().expect("the server runs").id(), Signal::CONT);
    }

    /// By the server's user, so that the copy belongs to it.
    pub(crate) fn copy_data(&self, from: &str, to: &str) {
        let mut copy = self.command(Path::new("sh"));
        copy.args(["-c", "rm -rf -- \"$2\" && cp -a -- \"$1\" \"$2\"", "sh", from, to]);
        self.run(copy);
    }

    /// The end of the server's own log.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server on port {} said last:\n{}", self.port, self.log());
        }
        if self.process.is_some() {
            self.stop(Signal::KILL);
        }
    }
}

fn signal_all(parent: u32, signal: Signal) {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
        .expect("list the server's processes");
    // The parent first: it must not start anything anew, nor clean up.
    signal::send(parent, signal);
    for child in children.split_ascii_whitespace() {
        signal::send(child.parse().expect("a process number"), signal);
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

pub(crate) fn as_user(user: User, program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={}", user.name), format!("--regid={}", user.group)]);
    command.args(["--init-groups", "--"]).arg(program);
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
