//! One migration on its servers: what most tests begin with.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::crossfade::{Crossfade, Finished, Run};
use crate::postgres::{self, Builder, Server};
use crate::{Folder, audit, wait};

/// Two PostgreSQL servers: a source and a target.
#[derive(Debug)]
pub struct Pair {
    pub source: Server,
    pub target: Server,
}

impl Pair {
    /// Two servers of version 15.
    pub fn start() -> Pair {
        Pair::of(Server::builder(), Server::builder())
    }

    pub fn of(source: Builder, target: Builder) -> Pair {
        Pair { source: source.without_fsync().start(), target: target.without_fsync().start() }
    }

    /// A migration between two new databases. Several may live on one pair.
    pub fn stage(&self, binary: &str) -> Stage {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("shop{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.source.create_database(&name);
        self.target.create_database(&name);
        Stage::new(binary, &name, self.source.url(&name), self.target.url(&name))
    }
}

/// A migration: its binary, its folder, its two sides, the flags of all its runs.
#[derive(Debug)]
pub struct Stage {
    binary: PathBuf,
    folder: Folder,
    flags: Vec<String>,
    pub name: String,
    pub source: String,
    pub target: String,
}

impl Stage {
    pub fn new(
        binary: impl AsRef<Path>,
        name: &str,
        source: impl Into<String>,
        target: impl Into<String>,
    ) -> Stage {
        Stage {
            binary: binary.as_ref().into(),
            folder: Folder::new("run"),
            flags: Vec::new(),
            name: name.into(),
            source: source.into(),
            target: target.into(),
        }
    }

    /// Flags for every `run` of this stage.
    pub fn flags(mut self, flags: &[&str]) -> Stage {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// So small that the smallest table is copied in many ranges, each with a cut of its own.
    pub fn many_cuts(self) -> Stage {
        self.flags(&["--one-cut-bytes-max", "1", "--chunk-bytes", "16384", "--wave-seconds-max", "0"])
    }

    /// The same migration with its sides reached another way, as through a proxy.
    pub fn via(mut self, source: Option<String>, target: Option<String>) -> Stage {
        self.source = source.unwrap_or(self.source);
        self.target = target.unwrap_or(self.target);
        self
    }

    pub fn on_source(&self, sql: &str) {
        postgres::run(&mut postgres::connect(&self.source), sql);
    }

    pub fn on_target(&self, sql: &str) {
        postgres::run(&mut postgres::connect(&self.target), sql);
    }

    /// The migration's folder, as `--dir` has it.
    pub fn dir(&self) -> PathBuf {
        self.folder.join("migration")
    }

    /// `crossfade VERB` for this migration, with both sides.
    pub fn command(&self, verb: &str) -> Crossfade {
        Crossfade::new(&self.binary)
            .current_dir(self.folder.path())
            .args([verb, "--source", &self.source, "--target", &self.target, "--name", &self.name, "--dir"])
            .args([self.dir()])
    }

    /// `crossfade run` with the stage's flags and these.
    pub fn run_command(&self, args: &[&str]) -> Crossfade {
        self.command("run").args(&self.flags).args(args)
    }

    /// Starts `crossfade run` in the background.
    pub fn run(&self, args: &[&str]) -> Run {
        self.run_command(args).spawn()
    }

    /// Runs until every chunk is on the target.
    #[track_caller]
    pub fn copied(&self) -> Finished {
        self.run_command(&["--until", "copied"]).output().assert_code(0)
    }

    /// Runs until all that the source has committed is on the target.
    #[track_caller]
    pub fn caught_up(&self) -> Finished {
        self.run_command(&["--until", "caught-up"]).output().assert_code(0)
    }

    /// Runs until it dies at a failpoint, or is done without having come by it.
    pub fn run_into(&self, failpoint: &str) -> Finished {
        self.run_command(&["--until", "caught-up"]).failpoint(failpoint).output()
    }

    /// A run may carry a change of the schema over, or stop and say why; then nothing more is asked of it.
    /// What it may not do is to end well with other rows on the target.
    #[track_caller]
    pub fn carried_over_or_stopped(&self, finished: &Finished, object: &str) {
        match finished.code() {
            Some(0) => {
                self.assert_equal();
            }
            Some(1 | 2) => {
                let said = format!("{}{}", finished.stdout, finished.stderr);
                assert!(said.contains("CF-SCHEMA") && said.contains(object), "no clear stop\n{finished}");
            }
            _ => panic!("neither carried over nor stopped\n{finished}"),
        }
    }

    /// One cell of the first row.
    pub fn ask(&self, url: &str, sql: &str) -> String {
        let messages =
            postgres::connect(url).simple_query(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        let row = messages.iter().find_map(|message| match message {
            ::postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
            _ => None,
        });
        row.unwrap_or_else(|| panic!("no row: {sql}"))
    }

    /// `crossfade status --json`, or `None` as long as there is none.
    pub fn status(&self) -> Option<Value> {
        let told =
            Crossfade::new(&self.binary).args(["status", "--json", "--dir"]).args([self.dir()]).output();
        (told.code() == Some(0)).then(|| {
            serde_json::from_str(&told.stdout)
                .unwrap_or_else(|error| panic!("status --json: {error}\n{told}"))
        })
    }

    /// Waits until the status of a running process says so.
    #[track_caller]
    pub fn wait(&self, run: &mut Run, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        wait::until(what, wait::LONG, || {
            assert!(run.running(), "ended before {what}\n{}{}\nlast status: {last:?}", run.out(), run.err());
            let status = self.status()?;
            let answer = reached(&status).then(|| status.clone());
            last = Some(status);
            answer
        })
    }

    #[track_caller]
    pub fn wait_following(&self, run: &mut Run) -> Value {
        self.wait(run, "the copy is done", |status| status["phase"] == "following")
    }

    /// Waits until at least so many rows of all tables are on the target.
    #[track_caller]
    pub fn wait_rows(&self, run: &mut Run, rows: u64) -> Value {
        self.wait(run, "some rows are copied", |status| {
            let tables = status["tables"].as_array().map_or(&[] as &[Value], Vec::as_slice);
            tables.iter().filter_map(|table| table["rows_copied"].as_u64()).sum::<u64>() >= rows
        })
    }

    /// The oracle: both sides hold the same rows.
    #[track_caller]
    pub fn assert_equal(&self) -> audit::Report {
        let report = audit::compare(&self.source, &self.target);
        report.assert_equal();
        report
    }

    /// The same indexes, constraints, triggers and columns, and sequences at least as far.
    #[track_caller]
    pub fn assert_equal_schema(&self) {
        let found = audit::compare_schema(&self.source, &self.target);
        assert!(found.is_empty(), "the schemas differ:\n{}", found.join("\n"));
    }
}
