//! Measures the program against the usual tools and writes the page of results.
//!
//! Both sides of a comparison use the same servers with the same settings, fsync on, in the same run, and take
//! turns at going first. Absolute seconds say more about the machine than about the program; the ratios of medians
//! are what is promised. Every benchmark has servers of its own, so that none inherits another's log or dead rows.

#![expect(clippy::expect_used, reason = "a fault in the kit is a failed measurement")]

mod binlog;
mod contest;
mod copy;
mod database;
mod host;
mod impact;
mod machine;
mod memory;
mod migration;
mod native;
mod oltp;
mod options;
mod page;
mod peer;
mod pgbench;
mod picture;
mod replica;
mod restart;
mod same;
mod sbtest;
mod section;
mod stream;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use testkit::{mariadb, postgres};

use host::Host;
use oltp::Oltp;
use options::Options;
use section::{Section, Taken};

/// What belongs together because it shares its data, and what measures those of its names that are wanted.
struct Benchmark {
    names: &'static [&'static str],
    measure: Measure,
}

/// Between which servers.
enum Measure {
    Postgres(fn(&Bench, &[&str]) -> Vec<Section>),
    MariadbToPostgres(fn(&Bench<mariadb::Server>) -> Section),
    Mariadb(fn(&Bench<mariadb::Server, mariadb::Server>) -> Section),
}

use Measure::{Mariadb, MariadbToPostgres, Postgres};

/// In the page's order.
const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        names: &["copy-narrow"],
        measure: Postgres(|bench, _| vec![copy::narrow(bench, "copy-narrow", 5_000_000)]),
    },
    Benchmark {
        names: &["copy-huge"],
        measure: Postgres(|bench, _| vec![copy::narrow(bench, "copy-huge", 20_000_000)]),
    },
    Benchmark { names: &["copy-wide"], measure: Postgres(|bench, _| vec![copy::wide(bench)]) },
    Benchmark { names: &["copy-many"], measure: Postgres(|bench, _| vec![copy::many(bench)]) },
    Benchmark { names: &["database"], measure: Postgres(|bench, _| vec![database::still(bench)]) },
    Benchmark { names: &["capture"], measure: Postgres(|bench, _| vec![stream::capture(bench)]) },
    Benchmark { names: &["apply", "catch-up", "strict"], measure: Postgres(stream::tpcb) },
    Benchmark { names: &["hot-row", "hot-row-together"], measure: Postgres(stream::hot_row) },
    Benchmark { names: &["bulk"], measure: Postgres(|bench, _| stream::bulk(bench)) },
    Benchmark { names: &["inserts"], measure: Postgres(|bench, _| stream::inserts(bench)) },
    Benchmark { names: &["giant"], measure: Postgres(|bench, _| stream::giant(bench)) },
    Benchmark { names: &["end-to-end"], measure: Postgres(|bench, _| vec![database::live(bench)]) },
    Benchmark { names: &["restart"], measure: Postgres(|bench, _| vec![restart::measure(bench)]) },
    Benchmark {
        names: &["impact"],
        measure: Postgres(|bench, _| vec![impact::measure(bench, impact::APART)]),
    },
    Benchmark {
        names: &["impact-one-disk"],
        measure: Postgres(|bench, _| vec![impact::measure(bench, impact::TOGETHER)]),
    },
    Benchmark { names: &["memory"], measure: Postgres(|bench, _| vec![memory::measure(bench)]) },
    Benchmark { names: &["mariadb-copy"], measure: Mariadb(sbtest::to_mariadb) },
    Benchmark { names: &["mariadb-postgres"], measure: MariadbToPostgres(sbtest::to_postgres) },
    Benchmark { names: &["binlog"], measure: MariadbToPostgres(binlog::capture) },
    Benchmark {
        names: &["mariadb-apply"],
        measure: Mariadb(|bench| replica::against(bench, "mariadb-apply", Oltp::tpcb(80_000), Some(3.0))),
    },
    Benchmark {
        names: &["mariadb-oltp"],
        measure: Mariadb(|bench| replica::against(bench, "mariadb-oltp", Oltp::sbtest(80_000), None)),
    },
];

fn main() -> ExitCode {
    let known: Vec<&str> = BENCHMARKS.iter().flat_map(|benchmark| benchmark.names).copied().collect();
    let path = peer::path();
    let ready = Options::parse(std::env::args().skip(1), &known).and_then(|options| {
        let mut wanted =
            BENCHMARKS.iter().filter(|benchmark| benchmark.names.iter().any(|name| options.wants(name)));
        wanted.try_for_each(|benchmark| peer::installed(&path, benchmark.measure.programs()))?;
        Ok(options)
    });
    let options = match ready {
        Ok(ready) => ready,
        Err(reason) => {
            eprintln!("error: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let mut missed = Vec::new();
    for benchmark in BENCHMARKS {
        let wanted: Vec<&str> = benchmark.names.iter().copied().filter(|name| options.wants(name)).collect();
        if wanted.is_empty() {
            continue;
        }
        let machine = machine::look(&options.crossfade, benchmark.measure.versions(), &path);
        let taken = Taken { rounds: options.rounds, scale: options.scale, machine };
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

impl Measure {
    /// What has to be installed.
    fn programs(&self) -> &'static [peer::Program] {
        match self {
            Postgres(_) => peer::POSTGRES,
            MariadbToPostgres(_) | Mariadb(_) => peer::MARIADB,
        }
    }

    /// Whose versions belong to the figures, besides crossfade's.
    fn versions(&self) -> &'static [&'static str] {
        match self {
            Postgres(_) => &["postgres", "pgcopydb"],
            MariadbToPostgres(_) => &["mariadbd", "postgres", "pgloader"],
            Mariadb(_) => &["mariadbd", "mydumper"],
        }
    }
}

fn measure(benchmark: &Benchmark, wanted: &[&str], options: &Options, path: &OsString) -> Vec<Section> {
    let start = Instant::now();
    eprintln!("{}: starting servers and making the data", wanted.join(", "));
    let sections = match benchmark.measure {
        Postgres(measure) => {
            let target = match TARGET_IN_MEMORY.iter().any(|name| wanted.contains(name)) {
                true => host::start_within(Path::new(MEMORY)),
                false => Host::start(),
            };
            measure(&Bench::between(Host::start(), target, options, path), wanted)
        }
        MariadbToPostgres(measure) => {
            vec![measure(&Bench::between(Host::start(), Host::start(), options, path))]
        }
        Mariadb(measure) => vec![measure(&Bench::between(Host::start(), Host::start(), options, path))],
    };
    eprintln!("{}: measured in {:.0} s", wanted.join(", "), start.elapsed().as_secs_f64());
    sections
}

/// Two servers on one disk wait for each other's fsyncs, whatever a program between them does; here the target has, as it
/// were, a disk of its own.
const TARGET_IN_MEMORY: &[&str] = &["impact"];
const MEMORY: &str = "/dev/shm";

/// What each measurement is given.
pub(crate) struct Bench<S = postgres::Server, T = postgres::Server> {
    pub(crate) crossfade: PathBuf,
    /// Where every contestant finds the servers' programs.
    pub(crate) path: OsString,
    pub(crate) rounds: usize,
    scale: f64,
    pub(crate) pair: Pair<S, T>,
}

pub(crate) struct Pair<S, T> {
    pub(crate) source: S,
    pub(crate) target: T,
}

impl<S: Host, T: Host> Bench<S, T> {
    fn between(source: S, target: T, options: &Options, path: &OsString) -> Bench<S, T> {
        Bench {
            crossfade: options.crossfade.clone(),
            path: path.clone(),
            rounds: options.rounds,
            scale: options.scale,
            pair: Pair { source, target },
        }
    }

    /// So many rows, transactions or tables; fewer in a trial.
    pub(crate) fn scaled(&self, full: u64) -> u64 {
        ((full as f64 * self.scale) as u64).max(1)
    }

    /// A length of time; shorter in a trial.
    pub(crate) fn lasting(&self, full: Duration) -> Duration {
        full.mul_f64(self.scale).clamp(Duration::from_secs(2), full)
    }

    /// What was written before is on disk, so that nobody pays for another's checkpoint.
    pub(crate) fn settle(&self) {
        self.pair.source.settle();
        self.pair.target.settle();
    }

    /// Makes data on the source: statements one after another, each a transaction or, as a `DO` block, many.
    pub(crate) fn make(&self, database: &str, statements: &[&str]) {
        self.pair.source.make(database, statements);
    }
}
