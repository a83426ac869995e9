//! Catching up with a recorded stream of changes: against native logical replication of the same stream.
//!
//! A TPC-B load runs while both are switched off; then each is switched on, alternating who goes first, and has to
//! reach the end of the log. Both decode the same log through a slot of their own.

use std::process::Command;
use std::time::{Duration, Instant};

use testkit::wait;

use crate::Bench;
use crate::memory;
use crate::report::Report;

const TRANSACTIONS: u64 = 160_000;

pub(crate) fn measure(bench: &Bench) -> Report {
    let (source, target) = (&bench.pair.source, &bench.pair.target);
    source.create_database("tpcb");
    pgbench(&source.url("tpcb"), &["-i", "-s", "20", "-q"]);
    source.run("tpcb", "ALTER TABLE pgbench_history REPLICA IDENTITY FULL");
    let native = Native::begin(bench);
    let mut folder = Some(memory::run(bench, "tpcb", "cross", &["--until", "caught-up"]));

    let mut times = Times::default();
    for round in 0..bench.rounds {
        let per_client = (TRANSACTIONS / 8).to_string();
        pgbench(&source.url("tpcb"), &["-n", "-c", "8", "-t", &per_client]);
        source.run("tpcb", "CHECKPOINT");
        target.run("tpcb", "CHECKPOINT");
        let mut ours = || {
            let before = folder.take().expect("the migration goes on");
            let now = memory::go_on(
                bench,
                "tpcb",
                "cross",
                &["--until", "caught-up", "--apply", "catch-up"],
                before,
            );
            times.ours.push(now.took);
            times.peak_kib = times.peak_kib.max(now.peak_kib);
            times.cpu = now.cpu;
            folder = Some(now);
        };
        if round % 2 == 0 {
            ours();
            times.native.push(native.catch_up());
        } else {
            times.native.push(native.catch_up());
            ours();
        }
    }
    let mut report = Report {
        name: "apply",
        what: format!(
            "pgbench TPC-B, scale 20: {TRANSACTIONS} transactions of 4 changes a round, recorded while nobody applied. \
             Capture, journal (fsynced) and apply in catch-up mode together, including crossfade's start, against a \
             subscription that is enabled."
        ),
        rows: Vec::new(),
    };
    report.seconds("native logical replication", &times.native);
    report.seconds("crossfade run --until caught-up --apply catch-up", &times.ours);
    report.ratio("crossfade's speed against native", &times.native, &times.ours, 1.0);
    report.figure("crossfade's CPU", format!("{:.2} s", times.cpu.as_secs_f64()));
    report.memory("crossfade's peak memory", times.peak_kib);
    report
}

#[derive(Default)]
struct Times {
    native: Vec<Duration>,
    ours: Vec<Duration>,
    peak_kib: u64,
    cpu: Duration,
}

/// A subscription from the source's `tpcb` to the target's.
struct Native<'a> {
    bench: &'a Bench,
}

impl Native<'_> {
    fn begin(bench: &Bench) -> Native<'_> {
        let (source, target) = (&bench.pair.source, &bench.pair.target);
        source.run("tpcb", "CREATE PUBLICATION native FOR ALL TABLES");
        target.create_database("tpcb");
        let dump = Command::new("/usr/lib/postgresql/15/bin/pg_dump")
            .args(["--schema-only", "--no-publications", "-d", &source.url("tpcb")])
            .output()
            .expect("run pg_dump");
        let dump = String::from_utf8(dump.stdout).expect("a dump is text");
        // psql's own commands are not for the server.
        let ddl: Vec<&str> = dump.lines().filter(|line| !line.starts_with('\\')).collect();
        target.run("tpcb", &ddl.join("\n"));
        target.run(
            "tpcb",
            &format!(
                "CREATE SUBSCRIPTION native CONNECTION 'host=127.0.0.1 port={} user=postgres dbname=tpcb' PUBLICATION native",
                source.port()
            ),
        );
        let native = Native { bench };
        wait::until("the subscription has copied", wait::LONG, || {
            let row = target
                .client("tpcb")
                .query_one("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'", &[])
                .expect("ask for the subscription's state");
            (row.get::<_, i64>(0) == 0).then_some(())
        });
        native.pause();
        native
    }

    fn pause(&self) {
        self.bench.pair.target.run("tpcb", "ALTER SUBSCRIPTION native DISABLE");
        wait::until("the subscription rests", wait::LONG, || (!self.is_active()).then_some(()));
    }

    fn is_active(&self) -> bool {
        let slot = "SELECT active FROM pg_replication_slots WHERE slot_name = 'native'";
        self.bench.pair.source.client("tpcb").query_one(slot, &[]).expect("ask for the slot").get(0)
    }

    fn catch_up(&self) -> Duration {
        let mut source = self.bench.pair.source.client("tpcb");
        let end: String =
            source.query_one("SELECT pg_current_wal_lsn()::text", &[]).expect("ask for the log's end").get(0);
        let reached = format!(
            "SELECT confirmed_flush_lsn >= '{end}'::pg_lsn FROM pg_replication_slots WHERE slot_name = 'native'"
        );
        let start = Instant::now();
        self.bench.pair.target.run("tpcb", "ALTER SUBSCRIPTION native ENABLE");
        wait::until("the subscription has caught up", wait::LONG, || {
            source.query_one(&reached, &[]).expect("ask for the slot").get::<_, bool>(0).then_some(())
        });
        let took = start.elapsed();
        self.pause();
        took
    }
}

fn pgbench(url: &str, args: &[&str]) {
    let done =
        Command::new("/usr/lib/postgresql/15/bin/pgbench").args(args).arg(url).output().expect("run pgbench");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
