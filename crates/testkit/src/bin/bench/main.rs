//! Measures the program against the usual tools and writes the page of results.
//!
//! Both sides of a comparison use the same two servers with the same settings, fsync on, in the same run, and take
//! turns at going first. Absolute seconds say more about the machine than about the program; the ratios of medians
//! are what is promised. Every benchmark has servers of its own, so that none inherits another's log or dead rows.

#![expect(clippy::expect_used, reason = "a fault in the kit is a failed measurement")]

mod contest;
mod copy;
mod database;
mod impact;
mod machine;
mod memory;
mod migration;
mod native;
mod options;
mod page;
mod peer;
mod pgbench;
mod picture;
mod restart;
mod same;
mod section;
mod stream;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use testkit::Pair;
use testkit::postgres::{self, Server};

use options::Options;
use section::{Section, Taken};

/// What belongs together because it shares its data, and what measures those of its names that are wanted.
struct Benchmark {
    names: &'static [&'static str],
    measure: fn(&Bench, &[&str]) -> Vec<Section>,
}

/// In the page's order.
const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        names: &["copy-narrow"],
        measure: |bench, _| vec![copy::narrow(bench, "copy-narrow", 5_000_000)],
    },
    Benchmark {
        names: &["copy-huge"],
        measure: |bench, _| vec![copy::narrow(bench, "copy-huge", 20_000_000)],
    },
    Benchmark { names: &["copy-wide"], measure: |bench, _| vec![copy::wide(bench)] },
    Benchmark { names: &["copy-many"], measure: |bench, _| vec![copy::many(bench)] },
    Benchmark { names: &["database"], measure: |bench, _| vec![database::still(bench)] },
    Benchmark { names: &["capture"], measure: |bench, _| vec![stream::capture(bench)] },
    Benchmark { names: &["apply", "catch-up", "strict"], measure: stream::tpcb },
    Benchmark { names: &["hot-row", "hot-row-together"], measure: stream::hot_row },
    Benchmark { names: &["bulk"], measure: |bench, _| stream::bulk(bench) },
    Benchmark { names: &["inserts"], measure: |bench, _| stream::inserts(bench) },
    Benchmark { names: &["giant"], measure: |bench, _| stream::giant(bench) },
    Benchmark { names: &["end-to-end"], measure: |bench, _| vec![database::live(bench)] },
    Benchmark { names: &["restart"], measure: |bench, _| vec![restart::measure(bench)] },
    Benchmark { names: &["impact"], measure: |bench, _| vec![impact::measure(bench, impact::APART)] },
    Benchmark {
        names: &["impact-one-disk"],
        measure: |bench, _| vec![impact::measure(bench, impact::TOGETHER)],
    },
    Benchmark { names: &["memory"], measure: |bench, _| vec![memory::measure(bench)] },
];

fn main() -> ExitCode {
    let known: Vec<&str> = BENCHMARKS.iter().flat_map(|benchmark| benchmark.names).copied().collect();
    let ready = Options::parse(std::env::args().skip(1), &known)
        .and_then(|options| peer::installed().map(|path| (options, path)));
    let (options, path) = match ready {
        Ok(ready) => ready,
        Err(reason) => {
            eprintln!("error: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let taken =
        Taken { rounds: options.rounds, scale: options.scale, machine: machine::look(&options.crossfade) };
    let mut missed = Vec::new();
    for benchmark in BENCHMARKS {
        let wanted: Vec<&str> = benchmark.names.iter().copied().filter(|name| options.wants(name)).collect();
        if wanted.is_empty() {
            continue;
        }
        for section in measure(benchmark, &wanted, &options, &path) {
            println!("{}", page::section(&section));
            if !section.holds() {
                missed.push(section.name.clone());
            }
            page::keep(&options.out, &section, &taken);
        }
        // After each, so that a run that is interrupted leaves what it has.
        page::assemble(&options.out, &known);
    }
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("a bar is missed in {}", missed.join(", "));
    ExitCode::FAILURE
}

fn measure(benchmark: &Benchmark, wanted: &[&str], options: &Options, path: &OsString) -> Vec<Section> {
    let start = Instant::now();
    eprintln!("{}: starting servers and making the data", wanted.join(", "));
    let bench = Bench {
        crossfade: options.crossfade.clone(),
        path: path.clone(),
        rounds: options.rounds,
        scale: options.scale,
        pair: Pair {
            source: server(None),
            target: server(TARGET_IN_MEMORY.iter().any(|name| wanted.contains(name)).then_some(MEMORY)),
        },
    };
    let sections = (benchmark.measure)(&bench, wanted);
    eprintln!("{}: measured in {:.0} s", wanted.join(", "), start.elapsed().as_secs_f64());
    sections
}

/// What the servers have besides the kit's settings; the page shows it.
const SETTINGS: &[(&str, &str)] = &[
    ("shared_buffers", "512MB"),
    ("max_wal_size", "8GB"),
    // pg_dump holds a lock on each of many tables.
    ("max_locks_per_transaction", "256"),
    // A subscription that is enabled soon after another start of its worker would wait for five seconds first.
    ("wal_retrieve_retry_interval", "100ms"),
];

/// Two servers on one disk wait for each other's fsyncs, whatever a program between them does; here the target has, as it
/// were, a disk of its own.
const TARGET_IN_MEMORY: &[&str] = &["impact"];
const MEMORY: &str = "/dev/shm";

fn server(within: Option<&str>) -> Server {
    let server = SETTINGS.iter().fold(Server::builder(), |server, (name, value)| server.setting(name, value));
    match within {
        Some(parent) => server.within(Path::new(parent)).start(),
        None => server.start(),
    }
}

/// What each measurement is given.
pub(crate) struct Bench {
    pub(crate) crossfade: PathBuf,
    /// Where every contestant finds PostgreSQL's programs.
    pub(crate) path: OsString,
    pub(crate) rounds: usize,
    scale: f64,
    pub(crate) pair: Pair,
}

impl Bench {
    /// So many rows, transactions or tables; fewer in a trial.
    pub(crate) fn scaled(&self, full: u64) -> u64 {
        ((full as f64 * self.scale) as u64).max(1)
    }

    /// A length of time; shorter in a trial.
    pub(crate) fn lasting(&self, full: Duration) -> Duration {
        full.mul_f64(self.scale).clamp(Duration::from_secs(2), full)
    }

    /// Who is measured when, in a round: everyone comes first in turn.
    pub(crate) fn turns(&self, round: usize, contestants: usize) -> impl Iterator<Item = usize> + use<> {
        (0..contestants).map(move |turn| (round + turn) % contestants)
    }

    /// What was written before is on disk, so that nobody pays for another's checkpoint.
    pub(crate) fn settle(&self) {
        self.pair.source.run("postgres", "CHECKPOINT");
        self.pair.target.run("postgres", "CHECKPOINT");
    }

    /// Makes data on the source: statements one after another, each a transaction or, as a `DO` block, many.
    pub(crate) fn make(&self, database: &str, statements: &[&str]) {
        let mut client = self.pair.source.client(database);
        // The data is the same, and nothing is measured yet.
        postgres::run(&mut client, "SET synchronous_commit = off");
        statements.iter().for_each(|sql| postgres::run(&mut client, sql));
    }

    pub(crate) fn drop_target(&self, database: &str) {
        self.pair.target.run("postgres", &format!("DROP DATABASE \"{database}\" WITH (FORCE)"));
    }
}
