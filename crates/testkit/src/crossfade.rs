//! The program under test, as a process: started, killed, paused, awaited.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{Folder, signal, wait};

/// A command line in the making. Nothing of the surroundings leaks in: no configuration file, no URLs.
#[derive(Debug)]
pub struct Crossfade {
    command: Command,
    shown: String,
}

impl Crossfade {
    /// `CROSSFADE_BINARY` names another binary than the one just built: an installed one, or a copy.
    pub fn new(binary: impl AsRef<Path>) -> Crossfade {
        let named = std::env::var_os("CROSSFADE_BINARY").map(PathBuf::from);
        let mut command = Command::new(named.as_deref().unwrap_or(binary.as_ref()));
        command
            .env_remove("CROSSFADE_SOURCE")
            .env_remove("CROSSFADE_TARGET")
            .env_remove("CROSSFADE_FAILPOINT")
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null());
        Crossfade { command, shown: "crossfade".into() }
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Crossfade {
        for arg in args {
            self.shown.push(' ');
            self.shown.push_str(&arg.as_ref().to_string_lossy());
            self.command.arg(arg);
        }
        self
    }

    /// `name` or `name:n`: the process aborts there, the n-th time.
    pub fn failpoint(mut self, name: &str) -> Crossfade {
        self.shown = format!("CROSSFADE_FAILPOINT={name} {}", self.shown);
        self.command.env("CROSSFADE_FAILPOINT", name);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Crossfade {
        self.command.env(name, value);
        self
    }

    pub fn current_dir(mut self, path: &Path) -> Crossfade {
        self.command.current_dir(path);
        self
    }

    pub fn spawn(mut self) -> Run {
        let folder = Folder::new("out");
        let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
        self.command
            .stdout(File::create(&stdout).expect("create a file for stdout"))
            .stderr(File::create(&stderr).expect("create a file for stderr"));
        let child =
            self.command.spawn().unwrap_or_else(|error| panic!("could not start {}: {error}", self.shown));
        Run { child, shown: self.shown, stdout, stderr, _folder: folder }
    }

    /// Runs to the end.
    pub fn output(self) -> Finished {
        self.spawn().wait()
    }
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Run {
    child: Child,
    shown: String,
    stdout: PathBuf,
    stderr: PathBuf,
    _folder: Folder,
}

impl Run {
    pub fn running(&mut self) -> bool {
        self.child.try_wait().expect("ask for the process").is_none()
    }

    /// As `kill -9`.
    pub fn kill(self) -> Finished {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// As an operator or a service manager stops it.
    pub fn terminate(self) -> Finished {
        self.signal(Signal::TERM);
        self.wait()
    }

    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub fn wait(self) -> Finished {
        self.wait_for(wait::LONG)
    }

    pub fn wait_for(mut self, limit: Duration) -> Finished {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for the process") {
                return Finished {
                    shown: self.shown.clone(),
                    status,
                    stdout: self.out(),
                    stderr: self.err(),
                };
            }
            assert!(
                start.elapsed() < limit,
                "still running after {limit:?}: {}\n{}",
                self.shown,
                tail(&format!("{}{}", self.out(), self.err()))
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has said so far.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).expect("read stderr")).into_owned()
    }

    /// The most memory that it had resident so far; 0 when it is gone.
    pub fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    /// The processor time that it has used so far; zero when it is gone.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // Behind the name, which is in parentheses: state is field 3, utime 14 and stime 15, in hundredths.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(10 * ticks)
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).expect("read stdout")).into_owned()
    }

    fn signal(&self, signal: Signal) {
        signal::send(self.child.id(), signal);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.running() {
            self.signal(Signal::KILL);
            if let Err(error) = self.child.wait() {
                eprintln!("could not wait for {}: {error}", self.shown);
            }
        }
    }
}

/// How a process ended, and all it said.
#[derive(Debug)]
pub struct Finished {
    shown: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    #[track_caller]
    pub fn assert_code(self, code: i32) -> Finished {
        assert_eq!(self.code(), Some(code), "{self}");
        self
    }

    /// Died at a failpoint or by a kill, without a word of its own.
    #[track_caller]
    pub fn assert_died(self) -> Finished {
        assert_eq!(self.code(), None, "{self}");
        self
    }

    /// Each of these words is on stderr or stdout, in any case.
    #[track_caller]
    pub fn assert_says(self, words: &[&str]) -> Finished {
        let said = format!("{}{}", self.stdout, self.stderr).to_lowercase();
        for word in words {
            assert!(said.contains(&word.to_lowercase()), "says nothing of {word:?}\n{self}");
        }
        self
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}\n{}", self.shown, self.status)?;
        write!(f, "{}{}", tail(&self.stdout), tail(&self.stderr))
    }
}

/// The last lines, which is where the error is.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(40);
    lines[from..].iter().map(|line| format!("  | {line}\n")).collect()
}
