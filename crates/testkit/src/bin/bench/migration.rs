//! Runs of the program, with what they cost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::crossfade::Run;
use testkit::{Folder, Stage, postgres};

use crate::host::Host;
use crate::section::{Figure, Samples, Unit};
use crate::{Bench, same};

/// A migration of one of the source's databases into one of the target's that is called like the migration.
pub(crate) struct Migration<'a, S = postgres::Server, T = postgres::Server> {
    bench: &'a Bench<S, T>,
    database: &'a str,
    pub(crate) stage: Stage,
}

/// What one run took, and what it cost where that is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) took: Duration,
    cpu: Duration,
    peak_kib: u64,
}

/// The line that [`Migration::run`] runs, for the page.
pub(crate) fn command(name: &str, args: &str) -> String {
    format!("crossfade run --source $SOURCE --target $TARGET --name {name} --dir $DIR {args}")
        .trim()
        .to_owned()
}

/// Runs a migration from nothing until it ends by itself, and removes what it has made.
pub(crate) fn run_anew<S: Host, T: Host>(
    bench: &Bench<S, T>,
    database: &str,
    name: &str,
    args: &str,
) -> Spent {
    let migration = Migration::begin(bench, database, name);
    let spent = migration.run(args);
    same::counts(bench, database, name);
    migration.give_up();
    spent
}

impl<'a, S: Host, T: Host> Migration<'a, S, T> {
    pub(crate) fn begin(bench: &'a Bench<S, T>, database: &'a str, name: &str) -> Migration<'a, S, T> {
        bench.pair.target.create_database(name);
        let (source, target) = (bench.pair.source.url(database), bench.pair.target.url(name));
        Migration { bench, database, stage: Stage::new(&bench.crossfade, name, source, target) }
    }

    /// Runs until it ends by itself.
    pub(crate) fn run(&self, args: &str) -> Spent {
        self.bench.settle();
        let start = Instant::now();
        let mut run = self.start(args);
        let (mut cpu, mut peak_kib) = (Duration::ZERO, 0);
        while run.running() {
            (cpu, peak_kib) = (cpu.max(run.cpu()), peak_kib.max(run.peak_kib()));
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = start.elapsed();
        run.wait().assert_code(0);
        Spent { took, cpu, peak_kib }
    }

    pub(crate) fn start(&self, args: &str) -> Run {
        let args: Vec<&str> = args.split_ascii_whitespace().collect();
        self.stage.run_command(&args).env("PATH", &self.bench.path).spawn()
    }

    fn dir(&self) -> PathBuf {
        self.stage.dir()
    }

    /// A copy of its folder as it is.
    pub(crate) fn keep(&self) -> Folder {
        let kept = Folder::new("kept");
        copy(&self.dir(), &kept.join("migration"));
        kept
    }

    /// It has the folder that [`Migration::keep`] has kept, and knows of nothing since.
    pub(crate) fn go_back(&self, kept: &Folder) {
        fs::remove_dir_all(self.dir()).expect("remove the migration's folder");
        copy(&kept.join("migration"), &self.dir());
    }

    /// Nothing of it stays on either side.
    pub(crate) fn give_up(self) {
        self.bench.pair.source.release(self.database, &self.stage.name);
        self.bench.pair.target.drop_database(&self.stage.name);
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.is_ok_and(|status| status.success()), "could not copy {}", from.display());
}

/// What all rounds of one contestant cost.
pub(crate) struct Costs {
    of: String,
    cpu: Vec<Duration>,
    peak_kib: Vec<u64>,
}

impl Costs {
    pub(crate) fn of(name: impl Into<String>) -> Costs {
        Costs { of: name.into(), cpu: Vec::new(), peak_kib: Vec::new() }
    }

    /// Notes a run and hands on its time.
    pub(crate) fn add(&mut self, spent: Spent) -> Duration {
        self.cpu.push(spent.cpu);
        self.peak_kib.push(spent.peak_kib);
        spent.took
    }

    pub(crate) fn figures(&self) -> Vec<Figure> {
        let [mut cpu, mut peak] =
            ["CPU time", "peak memory"].map(|what| Samples::of(format!("{what} of {}", self.of)));
        self.cpu.iter().for_each(|spent| cpu.push(spent.as_secs_f64()));
        self.peak_kib.iter().for_each(|kib| peak.push(mebibytes(*kib)));
        vec![Figure::new(Unit::Seconds, cpu), Figure::memory(peak)]
    }

    /// With what a million of the rows or changes cost, of which there were `count`.
    pub(crate) fn figures_with(&self, count: u64, named: &str) -> Vec<Figure> {
        let mut each = Samples::of(format!("CPU time per million {named}"));
        self.cpu.iter().for_each(|spent| each.push(spent.as_secs_f64() * 1e6 / count as f64));
        let mut figures = self.figures();
        figures.insert(1, Figure::new(Unit::Seconds, each));
        figures
    }
}

impl From<Duration> for Spent {
    fn from(took: Duration) -> Spent {
        Spent { took, ..Spent::default() }
    }
}

impl Spent {
    pub(crate) fn peak_mib(self) -> f64 {
        mebibytes(self.peak_kib)
    }
}

fn mebibytes(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
