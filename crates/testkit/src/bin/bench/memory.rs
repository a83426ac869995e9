//! Peak resident memory: ten million rows, a table of a gigabyte, one transaction of two million changes.

use crate::Bench;
use crate::migration::{self, Migration, Spent};
use crate::section::{Figure, Samples, Section, grouped};

const UNTIL: &str = "--until caught-up";

pub(crate) fn measure(bench: &Bench) -> Section {
    Section {
        name: "memory".into(),
        what:
            "Peak resident memory of the program, copying and following, by default settings; measured once."
                .into(),
        commands: vec![migration::command("many", UNTIL)],
        comparisons: Vec::new(),
        figures: many(bench).into_iter().chain(wide(bench)).collect(),
    }
}

fn many(bench: &Bench) -> [Figure; 2] {
    let rows = bench.scaled(10_000_000);
    bench.pair.source.create_database("many");
    bench.make(
        "many",
        &[
            "CREATE TABLE rows (id bigint PRIMARY KEY, v text)",
            &format!("INSERT INTO rows SELECT g, md5(g::text) FROM generate_series(1, {rows}) g"),
        ],
    );
    let migration = Migration::begin(bench, "many", "many");
    let copied = migration.run(UNTIL);
    let changes = rows / 5;
    bench.make("many", &[&format!("UPDATE rows SET v = v || '!' WHERE id <= {changes}")]);
    let followed = migration.run(UNTIL);
    migration.give_up();
    [
        peak(format!("copy of {} rows", grouped(rows)), copied),
        peak(format!("one transaction of {} updates", grouped(changes)), followed),
    ]
}

fn wide(bench: &Bench) -> [Figure; 2] {
    let rows = bench.scaled(100_000);
    bench.pair.source.create_database("wide");
    bench.make(
        "wide",
        &[
            "CREATE TABLE wide (id bigint PRIMARY KEY, v text)",
            "ALTER TABLE wide ALTER v SET STORAGE EXTERNAL",
            &format!(
                "INSERT INTO wide SELECT g, repeat(md5(g::text), 320) FROM generate_series(1, {rows}) g"
            ),
            "INSERT INTO wide SELECT -g, repeat(md5(g::text), 1000000) FROM generate_series(1, 4) g",
        ],
    );
    let migration = Migration::begin(bench, "wide", "wide");
    let copied = migration.run(UNTIL);
    let changes = rows / 2;
    bench.make("wide", &[&format!("UPDATE wide SET v = v || 'x' WHERE id BETWEEN 1 AND {changes}")]);
    let followed = migration.run(UNTIL);
    migration.give_up();
    [
        peak(format!("copy of {} rows of 10 kB and four of 32 MB", grouped(rows)), copied),
        peak(format!("one transaction that rewrites {} rows of 10 kB", grouped(changes)), followed),
    ]
}

fn peak(of: String, spent: Spent) -> Figure {
    let mut samples = Samples::of(of);
    samples.push(spent.peak_mib());
    Figure::memory(samples)
}
