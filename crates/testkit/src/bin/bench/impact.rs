//! What the application notices of a copy: latencies of transactions on the source, beside a copy and without.

use std::time::Duration;

use testkit::crossfade::Run;

use crate::migration::{self, Migration};
use crate::pgbench::{self, Probe};
use crate::section::{Comparison, Figure, Ratio, Samples, Section, Unit, grouped};
use crate::{Bench, contest};

const LASTING: Duration = Duration::from_secs(30);
const COPIED: &str = "--until copied";

/// A benchmark's name, where its target's data is, and why it may be behind.
pub(crate) type Place = (&'static str, &'static str, &'static str);

pub(crate) const APART: Place = (
    "impact",
    "The target's data is in memory, as if it had a disk of its own.",
    "the copy's reads, the target's writes and the application share the machine's cores.",
);

pub(crate) const TOGETHER: Place = (
    "impact-one-disk",
    "Both servers are on one disk.",
    "the target's log and its pages are written to the disk that the application's commits wait for.",
);

pub(crate) fn measure(bench: &Bench, (name, place, why): Place) -> Section {
    let source = &bench.pair.source;
    source.create_database("tpcb");
    source.create_database("large");
    pgbench::init(bench, "tpcb", 20);
    // 3 GB: 240 bytes a row.
    let rows = bench.scaled(12_500_000);
    bench.make(
        "large",
        &[
            "CREATE TABLE large (id bigint, v text)",
            &format!("INSERT INTO large SELECT g, repeat(md5(g::text), 6) FROM generate_series(1, {rows}) g"),
            "ALTER TABLE large ADD PRIMARY KEY (id)",
            "VACUUM ANALYZE large",
        ],
    );
    let lasting = bench.lasting(LASTING);
    let url = source.url("tpcb");
    let mut quantiles = [Quantiles::of("without"), Quantiles::of("beside a copy")];
    let mut rates = Samples::of("rate, half of the capacity, per second");
    let mut copies = Copies::new();
    for round in 0..bench.rounds {
        let rate = pgbench::capacity(bench, &url, lasting) / 2.0;
        rates.push(rate);
        for turn in contest::turns(round, 2) {
            bench.settle();
            let probe = || Probe::start(bench, &url, rate, lasting);
            let latencies = if turn == 0 { probe().latencies() } else { copies.beside(bench, probe) };
            quantiles[turn].add(&latencies);
        }
    }
    let [without, beside] = quantiles;
    let cost = |title: &str, ours, peer| Comparison {
        title: title.into(),
        unit: Unit::Milliseconds,
        ratio: Ratio::Cost,
        ours,
        peers: vec![peer],
        bar: None,
        why: String::new(),
    };
    Section {
        name: name.into(),
        what: format!(
            "pgbench's TPC-B at scale 20 with four clients at half of what the source can do, measured just before, \
             for {} s; and beside it a copy of a table of {} rows from another database of the same server, with \
             default settings. Latencies count from when a transaction was due. Both servers and all programs share \
             the machine. {place}",
            lasting.as_secs(),
            grouped(rows)
        ),
        commands: vec![Probe::command(lasting), migration::command("copied", COPIED)],
        comparisons: vec![
            cost("p50", beside.half, without.half),
            cost("p99", beside.most, without.most).bar(1.3, why),
        ],
        figures: vec![
            Figure::new(Unit::Count, rates),
            Figure::new(Unit::Count, copies.begun),
            Figure::new(Unit::Seconds, copies.cpu),
            Figure::memory(copies.peak),
        ],
    }
}

struct Quantiles {
    half: Samples,
    most: Samples,
}

impl Quantiles {
    fn of(name: &str) -> Quantiles {
        Quantiles { half: Samples::of(name), most: Samples::of(name) }
    }

    /// Of sorted latencies.
    fn add(&mut self, latencies: &[f64]) {
        assert!(latencies.len() >= 100, "only {} transactions were measured", latencies.len());
        let at = |percent: usize| latencies[latencies.len() * percent / 100];
        eprintln!("  {}: p50 {:.2} ms, p99 {:.2} ms", self.half.name, at(50), at(99));
        self.half.push(at(50));
        self.most.push(at(99));
    }
}

/// What ran beside the probes, and what it cost.
struct Copies {
    begun: Samples,
    cpu: Samples,
    peak: Samples,
}

impl Copies {
    fn new() -> Copies {
        Copies {
            begun: Samples::of("copies begun in a measurement"),
            cpu: Samples::of("CPU time of crossfade in a measurement"),
            peak: Samples::of("peak memory of crossfade"),
        }
    }

    /// One copy after the other until the probe ends.
    fn beside(&mut self, bench: &Bench, probe: impl FnOnce() -> Probe) -> Vec<f64> {
        let mut copy = Copy::begin(bench);
        let mut probe = probe();
        let (mut begun, mut cpu, mut peak_kib) = (1_usize, Duration::ZERO, 0);
        let mut of_this = Duration::ZERO;
        while probe.running() {
            (of_this, peak_kib) = (of_this.max(copy.run.cpu()), peak_kib.max(copy.run.peak_kib()));
            if !copy.run.running() {
                cpu += std::mem::take(&mut of_this);
                copy.ended();
                copy = Copy::begin(bench);
                begun += 1;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        copy.stop();
        self.begun.push(begun as f64);
        self.cpu.push((cpu + of_this).as_secs_f64());
        self.peak.push(peak_kib as f64 / 1024.0);
        probe.latencies()
    }
}

struct Copy<'a> {
    migration: Migration<'a>,
    run: Run,
}

impl<'a> Copy<'a> {
    /// Returns when it is under way.
    fn begin(bench: &'a Bench) -> Copy<'a> {
        let migration = Migration::begin(bench, "large", "copied");
        let mut run = migration.start(COPIED);
        // A small one may be over before anybody has asked.
        while run.running() && migration.stage.status().is_none_or(|status| status["phase"] != "copying") {
            std::thread::sleep(Duration::from_millis(10));
        }
        Copy { migration, run }
    }

    /// It has ended by itself, and well.
    fn ended(self) {
        self.run.wait().assert_code(0);
        self.migration.give_up();
    }

    fn stop(self) {
        drop(self.run);
        self.migration.give_up();
    }
}
