//! The long test: writers all the time, the migration killed every few seconds, servers restarted now and then.
//! Between any two engines that a migration may be between.
//!
//! In rounds: each migrates a fresh database, so that copying is under fire as often as following. At the end
//! of a round the writers stop, the migration catches up, and every table is compared as a multiset.
//! With `--schema` the tables are those of a dump, and the rows are made up for them; tables that stay empty are named.
//! Ends with 1 at the first difference, or when the program stops with an error of its own.

#![expect(clippy::expect_used, reason = "a fault in the kit is a failed test")]

mod options;
mod side;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fastrand::Rng;
use testkit::crossfade::Finished;
use testkit::made::{self, Made, Tried};
use testkit::postgres::Stop;
use testkit::{Load, Stage, Tally, Writers, audit};

use options::{Options, USAGE};
use side::Side;

/// Each round copies anew; longer ones follow for longer.
const ROUND: std::ops::Range<u64> = 40..90;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("error: {reason}\nusage: {USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let Options { minutes, seed, .. } = options;
    println!("soak: {:?} to {:?}, seed {seed}, {minutes} minutes", options.source, options.target);
    let mut soak = Soak {
        source: Side::start(options.source, options.version),
        target: Side::start(options.target, options.version),
        rng: Rng::with_seed(seed),
        sum: Sum::default(),
        tried: BTreeMap::new(),
        options,
    };
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let mut failure = None;
    while failure.is_none() && (soak.sum.rounds == 0 || Instant::now() < end) {
        let left = end.saturating_duration_since(Instant::now());
        let round = Duration::from_secs(soak.rng.u64(ROUND)).min(left);
        failure = soak.round(round).err();
    }
    soak.show_tables();
    let Sum { rounds, tally, rows, kills, stops, restarts, peak_kib, differences } = soak.sum;
    println!(
        "soak: seed {seed}, {rounds} rounds, transactions: {tally}; {kills} kills, {stops} stops, \
         {restarts} server restarts, {rows} rows compared, peak memory {} MiB, differences: {differences}",
        peak_kib / 1024
    );
    match failure {
        None => ExitCode::SUCCESS,
        Some(reason) => {
            eprintln!("soak failed (seed {seed}): {reason}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Sum {
    rounds: u64,
    tally: Tally,
    rows: u64,
    kills: u64,
    stops: u64,
    restarts: u64,
    peak_kib: u64,
    differences: u64,
}

struct Soak {
    options: Options,
    source: Side,
    target: Side,
    rng: Rng,
    sum: Sum,
    /// What came of the statements on each table of the schema, over all rounds.
    tried: BTreeMap<String, Tried>,
}

impl Soak {
    fn round(&mut self, length: Duration) -> Result<(), String> {
        self.sum.rounds += 1;
        let name = format!("soak{}", self.sum.rounds);
        let (source, target) = (self.source.create(&name), self.target.create(&name));
        let mut stage = Stage::new(&self.options.crossfade, &name, source, target);
        let many_cuts = self.rng.bool();
        if many_cuts {
            stage = stage.many_cuts();
        }
        let load = Load { seed: self.rng.u64(..), truncate: self.rng.bool(), ..Load::default() };
        println!("round {}: {} s, many cuts: {many_cuts}, {load:?}", self.sum.rounds, length.as_secs());
        let (writers, made) = match self.options.schema.clone() {
            None => {
                let rows = self.rng.u32(2_000..10_000);
                (self.source.write(&name, rows, load, self.options.target), None)
            }
            Some(schema) => {
                self.write_to(&schema, &stage, load).map(|(writers, made)| (writers, Some(made)))?
            }
        };

        let end = Instant::now() + length;
        let mut harmed = Ok(());
        while harmed.is_ok() && Instant::now() < end {
            harmed = self.harm(&stage);
        }
        let tally = writers.stop();
        self.sum.tally = [self.sum.tally, tally].into_iter().sum();
        for (table, tried) in made.iter().flat_map(Made::tables) {
            self.tried.entry(table).or_default().add(tried);
        }
        harmed?;

        let caught_up = stage.run(&["--until", "caught-up"]).wait_for(Duration::from_secs(900));
        if caught_up.code() != Some(0) {
            return Err(format!("could not catch up\n{caught_up}"));
        }
        let report = audit::compare(&stage.source, &stage.target);
        self.sum.rows += report.rows();
        self.sum.differences += report.differences();
        println!(
            "round {}: {tally}; {} rows compared, differences: {}",
            self.sum.rounds,
            report.rows(),
            report.differences()
        );
        if report.differences() > 0 || report.rows() == 0 {
            return Err(format!("source and target differ\n{report}"));
        }
        self.source.clear(&name);
        self.target.clear(&name);
        Ok(())
    }

    /// Loads the schema, fills its tables, and starts writers on them.
    fn write_to(&mut self, schema: &Path, stage: &Stage, load: Load) -> Result<(Writers, Made), String> {
        let servers = [&self.source, &self.target].map(|side| side.postgres().expect("a PostgreSQL server"));
        let refused = made::load(servers, &stage.name, schema);
        for line in &refused {
            println!("not loaded: {line}");
        }
        let rows = self.rng.u32(200..2_000);
        let made = Made::fill(&stage.source, rows, &mut self.rng);
        for table in made.keyless.iter().filter(|_| self.sum.rounds == 1) {
            println!("{table} has no primary key: it was given REPLICA IDENTITY FULL");
        }
        let tables = made.tables();
        let filled = tables.values().filter(|tried| tried.inserted > 0).count();
        println!(
            "round {}: {filled} of {} tables filled, with up to {rows} rows",
            self.sum.rounds,
            tables.len()
        );
        if filled == 0 {
            let why: String = tables.iter().map(|(table, tried)| format!("\n{table}: {tried}")).collect();
            return Err(format!("no row could be put into any table{why}"));
        }
        Ok((made.write(&stage.source, load), made))
    }

    fn show_tables(&self) {
        for (table, tried) in &self.tried {
            println!("{table}: {tried}");
        }
        let empty = self.tried.iter().filter(|(_, tried)| tried.inserted == 0);
        let empty: Vec<&str> = empty.map(|(table, _)| table.as_str()).collect();
        if !empty.is_empty() {
            println!("NOT FILLED and so not tested: {}", empty.join(", "));
        }
    }

    /// One run of the program, and what happens to it.
    fn harm(&mut self, stage: &Stage) -> Result<(), String> {
        let apply = *self.rng.choice(&["auto", "catch-up", "strict"]).expect("a mode");
        let slice = *self.rng.choice(&["65536", "1048576", "16777216"]).expect("a size");
        let mut run = stage.run(&["--apply", apply, "--slice-bytes", slice]);
        self.nap(100..5_000);
        match self.rng.u8(0..12) {
            side @ (0 | 1) => {
                let how = self.way_to_stop();
                let side = if side == 0 { &mut self.source } else { &mut self.target };
                self.sum.restarts += u64::from(side.restart(how));
                self.nap(500..3_000);
            }
            2 => {
                run.pause();
                self.nap(100..1_500);
                run.resume();
            }
            _ => {}
        }
        if !run.running() {
            return by_itself(run.wait());
        }
        self.sum.peak_kib = self.sum.peak_kib.max(run.peak_kib());
        if self.rng.u8(0..8) == 0 {
            self.sum.stops += 1;
            return by_itself(run.terminate());
        }
        run.kill();
        self.sum.kills += 1;
        Ok(())
    }

    fn way_to_stop(&mut self) -> Stop {
        *self.rng.choice(&[Stop::Fast, Stop::Immediate, Stop::Kill]).expect("a way")
    }

    fn nap(&mut self, range_ms: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.rng.u64(range_ms)));
    }
}

/// It may end by itself only as told, or because a server was away for longer than it cares to wait.
fn by_itself(finished: Finished) -> Result<(), String> {
    match finished.code() {
        Some(0) => Ok(()),
        Some(1) if finished.stderr.contains("CF-CONNECT") => Ok(()),
        _ => Err(format!("the program stopped by itself\n{finished}")),
    }
}
