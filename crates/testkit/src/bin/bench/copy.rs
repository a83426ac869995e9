//! One large narrow table without indexes on the target: against two `psql COPY | psql COPY` pipes, each over half of
//! the table's blocks.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Bench;
use crate::report::Report;

const ROWS: u64 = 5_000_000;

pub(crate) fn measure(bench: &Bench) -> Report {
    let source = &bench.pair.source;
    source.create_database("copy");
    source.run(
        "copy",
        &format!(
            "CREATE TABLE narrow (id bigint, a int, b int, c text, at timestamptz DEFAULT '2026-01-01');
             INSERT INTO narrow SELECT g, g % 1000, g % 77, md5(g::text) FROM generate_series(1, {ROWS}) g;
             ALTER TABLE narrow REPLICA IDENTITY FULL"
        ),
    );
    source.run("copy", "VACUUM ANALYZE narrow");
    let blocks: i64 = source
        .client("copy")
        .query_one("SELECT pg_relation_size('narrow') / 8192", &[])
        .expect("ask for the table's size")
        .get(0);

    let (mut pipes, mut ours, mut peak, mut cpu) = (Vec::new(), Vec::new(), 0, Duration::ZERO);
    for round in 0..bench.rounds {
        pipes.push(pipe(bench, round, blocks / 2));
        let migration = crate::memory::run(bench, "copy", &format!("cross{round}"), &["--until", "copied"]);
        bench.pair.source.run(
            "copy",
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots; DROP PUBLICATION crossfade_copy",
        );
        bench.pair.target.run("postgres", &format!("DROP DATABASE cross{round}"));
        ours.push(migration.took);
        peak = peak.max(migration.peak_kib);
        cpu = migration.cpu;
    }
    let mut report = Report {
        name: "copy",
        what: format!(
            "{ROWS} narrow rows, two streams, until every row is committed on the target; \
                       crossfade's time includes its start, the slot, pg_dump and the table's creation."
        ),
        rows: Vec::new(),
    };
    report.seconds("psql COPY \\| psql COPY", &pipes);
    report.seconds("crossfade run --until copied", &ours);
    report.ratio("crossfade's speed against the pipe's", &pipes, &ours, 0.7);
    report.figure("crossfade's CPU", format!("{:.2} s", cpu.as_secs_f64()));
    report.memory("crossfade's peak memory", peak);
    report
}

fn pipe(bench: &Bench, round: usize, middle: i64) -> Duration {
    let name = format!("pipe{round}");
    let target = &bench.pair.target;
    target.create_database(&name);
    target.run(&name, "CREATE TABLE narrow (id bigint, a int, b int, c text, at timestamptz)");
    target.run(&name, "CHECKPOINT");
    let start = Instant::now();
    let streams: Vec<(Child, Child)> = [format!("ctid < '({middle},0)'"), format!("ctid >= '({middle},0)'")]
        .iter()
        .map(|half| {
            let copy = format!("COPY (SELECT * FROM narrow WHERE {half}) TO STDOUT (FORMAT binary)");
            let mut read = psql(&bench.pair.source.url("copy"), &copy)
                .stdout(Stdio::piped())
                .spawn()
                .expect("start psql");
            let rows = read.stdout.take().expect("psql has an output");
            let write =
                psql(&target.url(&name), "COPY narrow FROM STDIN (FORMAT binary)").stdin(rows).spawn();
            (read, write.expect("start psql"))
        })
        .collect();
    for (mut read, mut write) in streams {
        assert!(
            read.wait().expect("wait for psql").success() && write.wait().expect("wait for psql").success()
        );
    }
    let took = start.elapsed();
    target.run("postgres", &format!("DROP DATABASE {name}"));
    took
}

fn psql(url: &str, sql: &str) -> Command {
    let mut psql = Command::new("/usr/lib/postgresql/15/bin/psql");
    psql.args(["-q", "-X", "-d", url, "-c", sql]);
    psql
}
