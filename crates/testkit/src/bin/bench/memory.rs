//! Peak resident memory: ten million rows, a table of a gigabyte, one transaction of two million changes.

use std::time::{Duration, Instant};

use testkit::Folder;
use testkit::crossfade::Crossfade;

use crate::Bench;
use crate::report::Report;

pub(crate) struct Migration {
    pub(crate) took: Duration,
    pub(crate) peak_kib: u64,
    pub(crate) cpu: Duration,
    folder: Folder,
}

/// Migrates a database of the source into a new one of the target.
pub(crate) fn run(bench: &Bench, database: &str, target: &str, args: &[&str]) -> Migration {
    bench.pair.target.create_database(target);
    bench.pair.target.run(target, "CHECKPOINT");
    again(bench, database, target, args, Folder::new("bench"))
}

/// Goes on with a migration.
pub(crate) fn go_on(
    bench: &Bench,
    database: &str,
    target: &str,
    args: &[&str],
    before: Migration,
) -> Migration {
    again(bench, database, target, args, before.folder)
}

fn again(bench: &Bench, database: &str, target: &str, args: &[&str], folder: Folder) -> Migration {
    let source = bench.pair.source.url(database);
    let target = bench.pair.target.url(target);
    let start = Instant::now();
    let mut run = Crossfade::new(&bench.crossfade)
        .args(["run", "--source", &source, "--target", &target, "--name", database, "--dir"])
        .args([folder.path()])
        .args(args)
        .spawn();
    let (mut peak_kib, mut cpu) = (0, Duration::ZERO);
    while run.running() {
        peak_kib = peak_kib.max(run.peak_kib());
        cpu = cpu.max(run.cpu());
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = start.elapsed();
    run.wait().assert_code(0);
    Migration { took, peak_kib, cpu, folder }
}

pub(crate) fn measure(bench: &Bench) -> Report {
    let mut report = Report {
        name: "memory",
        what: "Peak resident memory of one process, copying and following, with default settings.".into(),
        rows: Vec::new(),
    };
    let source = &bench.pair.source;
    let caught_up = ["--until", "caught-up"];

    source.create_database("many");
    source.run(
        "many",
        "CREATE TABLE rows (id bigint PRIMARY KEY, v text);
         INSERT INTO rows SELECT g, md5(g::text) FROM generate_series(1, 10000000) g",
    );
    let many = run(bench, "many", "many", &caught_up);
    report.memory("copy of 10 million rows", many.peak_kib);
    source.run("many", "UPDATE rows SET v = v || '!' WHERE id <= 2000000");
    let giant = go_on(bench, "many", "many", &caught_up, many);
    report.memory("one transaction of 2 million updates", giant.peak_kib);
    report.figure("and its time, capture and apply together", format!("{:.1} s", giant.took.as_secs_f64()));
    bench.pair.target.run("postgres", "DROP DATABASE many");

    source.create_database("wide");
    source.run(
        "wide",
        "CREATE TABLE wide (id bigint PRIMARY KEY, v text);
         ALTER TABLE wide ALTER v SET STORAGE EXTERNAL;
         INSERT INTO wide SELECT g, repeat(md5(g::text), 320) FROM generate_series(1, 100000) g;
         INSERT INTO wide SELECT -g, repeat(md5(g::text), 1000000) FROM generate_series(1, 4) g",
    );
    let wide = run(bench, "wide", "wide", &caught_up);
    report.memory("copy of a table of 1 GB, with four values of 32 MB", wide.peak_kib);
    source.run("wide", "UPDATE wide SET v = v || 'x' WHERE id BETWEEN 1 AND 50000");
    let wide = go_on(bench, "wide", "wide", &caught_up, wide);
    report.memory("one transaction that rewrites 500 MB of it", wide.peak_kib);
    report
}
