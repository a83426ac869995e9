//! A migration that has nothing to do: how soon it is there again, and what it uses while it waits.

use std::time::{Duration, Instant};

use crate::Bench;
use crate::copy::many_tables;
use crate::migration::{self, Costs, Migration};
use crate::section::{Figure, Samples, Section, Unit, grouped};

const UNTIL: &str = "--until caught-up";

pub(crate) fn measure(bench: &Bench) -> Section {
    bench.pair.source.create_database("one");
    bench.make("one", &["CREATE TABLE one (id int PRIMARY KEY)", "INSERT INTO one VALUES (1)"]);
    let tables = many_tables(bench, "many");
    let mut figures = Vec::new();
    for (database, of) in [("one", "1 table".to_owned()), ("many", format!("{} tables", grouped(tables)))] {
        let migration = Migration::begin(bench, database, database);
        migration.run(UNTIL);
        let mut time = Samples::of(format!("restart with {of}"));
        let mut costs = Costs::of(format!("a restart with {of}"));
        let mut idle = Samples::of(format!("CPU time of an idle minute with {of}"));
        for _ in 0..bench.rounds {
            time.seconds(costs.add(migration.run(UNTIL)));
            idle.seconds(idle_minute(bench, &migration));
        }
        figures.extend([Figure::new(Unit::Seconds, time), Figure::new(Unit::Seconds, idle)]);
        figures.extend(costs.figures());
        migration.give_up();
    }
    Section {
        name: "restart".into(),
        what: format!(
            "A migration that has caught up and a source that rests. The time is that of the whole program, from \
             its start until it has seen that there is nothing to do. What it uses while it waits is \
             measured over {} s.",
            bench.lasting(IDLE).as_secs()
        ),
        commands: vec![migration::command("one", UNTIL), migration::command("one", "")],
        comparisons: Vec::new(),
        figures,
    }
}

const IDLE: Duration = Duration::from_secs(20);

/// The CPU time of `crossfade run` in a minute in which nothing happens.
fn idle_minute(bench: &Bench, migration: &Migration<'_>) -> Duration {
    let mut run = migration.start("");
    migration.stage.wait_following(&mut run);
    // What the start still does is the restart's.
    std::thread::sleep(Duration::from_secs(2));
    let (start, before) = (Instant::now(), run.cpu());
    std::thread::sleep(bench.lasting(IDLE));
    let used = (run.cpu() - before).mul_f64(60.0 / start.elapsed().as_secs_f64());
    assert!(run.running(), "it ended while it had nothing to do: {}", run.err());
    run.terminate().assert_code(0);
    used
}
