//! P: positions, crashes, restarts, rivals, and a bad network.

use std::thread;
use std::time::Duration;

use connector::failpoint;
use testkit::crossfade::Finished;
use testkit::postgres::{Stop, connect};
use testkit::proxy::Proxy;
use testkit::{Load, Pair, Stage, shop, wait};

const CROSSFADE: &str = env!("CARGO_BIN_EXE_crossfade");

/// The groups below, by which all failpoints are walked through.
const GROUPS: &[&[&str]] = &[
    &["claim.", "prepare.", "plan.", "create.", "capture."],
    &["wave.", "chunk.", "table.", "keys."],
    &["apply.", "finish.", "journal."],
];

/// Dies at each of these points, several times, and goes on each time.
fn die_at_each(prefixes: &[&str]) {
    let pair = Pair::start();
    let points =
        failpoint::ALL.iter().filter(|point| prefixes.iter().any(|prefix| point.starts_with(prefix)));
    let mut missed = Vec::new();
    for point in points {
        // Begun anew, as it is told, when the server cannot decode its own log.
        match (0..3).find_map(|_| die_at(&pair, point)) {
            Some(true) => {}
            Some(false) => missed.push(*point),
            None => panic!("{point}: no slot could decode its log, three times in a row"),
        }
    }
    // Whether a table is begun anew depends on a TRUNCATE that comes at the right moment.
    missed.retain(|point| *point != failpoint::TABLE_AFTER_RESET);
    assert!(missed.is_empty(), "these points were never reached: {missed:?}");
}

/// Whether it came by this point; `None` when it had to be given up.
fn die_at(pair: &Pair, point: &str) -> Option<bool> {
    let stage = pair.stage(CROSSFADE).many_cuts().flags(&["--slice-bytes", "65536"]);
    shop::create(&stage.source, 500);
    let writers = shop::write(&stage.source, Load { truncate: true, ..Load::default() });
    // A table that is emptied before its copy is over is copied anew.
    let emptying =
        shop::repeat(&stage.source, Load { writers: 1, pause_ms_max: 200, ..Load::default() }, |_| {
            let refill =
                "INSERT INTO scratch SELECT n, n FROM generate_series(1, 500) n ON CONFLICT DO NOTHING";
            vec!["BEGIN".into(), "TRUNCATE scratch".into(), refill.into(), "COMMIT".into()]
        });
    // Twice the first time: some points are there only where an earlier run has left something.
    let died = ["1", "1", "3"].into_iter().try_fold(false, |died, time| {
        let finished = decodable(stage.run_into(&format!("{point}:{time}")))?;
        assert!(matches!(finished.code(), None | Some(0)), "{point}: {finished}");
        Some(died | finished.code().is_none())
    });
    emptying.stop();
    writers.stop();
    let died = died?;
    decodable(stage.run_command(&["--until", "caught-up"]).output())?.assert_code(0);
    let report = testkit::audit::compare(&stage.source, &stage.target);
    assert_eq!(report.differences(), 0, "after a crash at {point}\n{report}");
    Some(died)
}

/// PostgreSQL may make a slot, while a table is being emptied, that cannot decode that table: then it is said, with what to do.
fn decodable(finished: Finished) -> Option<Finished> {
    if !finished.stderr.contains("could not map filenode") {
        return Some(finished);
    }
    finished.assert_code(1).assert_says(&["CF-LOG-LOST", "start the migration over", "TRUNCATE"]);
    None
}

#[test]
fn p01_dies_at_each_point_of_setup_and_capture() {
    die_at_each(GROUPS[0]);
}

#[test]
fn p01_dies_at_each_point_of_the_copy() {
    die_at_each(GROUPS[1]);
}

#[test]
fn p01_dies_at_each_point_of_apply_and_finish() {
    die_at_each(GROUPS[2]);
}

#[test]
fn p01_every_failpoint_is_in_a_group() {
    for point in failpoint::ALL {
        let groups = GROUPS.iter().filter(|group| group.iter().any(|prefix| point.starts_with(prefix)));
        assert_eq!(groups.count(), 1, "{point}");
    }
}

#[test]
fn p01_killed_at_random_moments() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    shop::create(&stage.source, 3_000);
    let writers = shop::write(&stage.source, Load { truncate: true, ..Load::default() });
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..15 {
        let run = stage.run(&[]);
        thread::sleep(Duration::from_millis(rng.u64(50..1_500)));
        run.kill();
    }
    writers.stop();
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}

#[test]
fn sigterm_checkpoints_and_the_next_run_goes_on() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    shop::create(&stage.source, 2_000);
    let writers = shop::write(&stage.source, Load::default());
    for _ in 0..6 {
        let run = stage.run(&[]);
        thread::sleep(Duration::from_millis(700));
        run.terminate().assert_code(0);
    }
    writers.stop();
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn p02_empty_transactions_messages_and_many_changes_at_one_position() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source("CREATE TABLE t (id int PRIMARY KEY, value int); INSERT INTO t SELECT n, n FROM generate_series(1, 100) n");
    stage.copied();
    let odd = [
        "SELECT pg_logical_emit_message(true, 'other', 'in a transaction')",
        "SELECT pg_logical_emit_message(false, 'other', 'outside')",
        "BEGIN; SAVEPOINT s; UPDATE t SET value = 0; ROLLBACK TO s; COMMIT",
        "CREATE TEMP TABLE nothing AS SELECT 1",
        "BEGIN; SELECT pg_current_xact_id(); COMMIT",
        "INSERT INTO t SELECT n, n FROM generate_series(1000, 3000) n",
        "UPDATE t SET value = value + 1 WHERE id < 5",
    ];
    for _ in 0..3 {
        odd.iter().for_each(|sql| stage.on_source(sql));
        stage.on_source("DELETE FROM t WHERE id >= 1000");
        stage.run_into("apply.after_commit");
        stage.caught_up();
        stage.assert_equal();
    }
}

#[test]
fn p02_the_slot_of_a_quiet_database_beside_a_busy_one_advances() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    pair.source
        .run("postgres", "CREATE TABLE busy AS SELECT n, repeat('x', 100) FROM generate_series(1, 50000) n");
    let end = stage.ask(&stage.source, "SELECT pg_current_wal_lsn()");
    // Something must move the log on, or no keepalive would be ahead of it.
    wait::until("the slot passes what the other database wrote", wait::LONG, || {
        assert!(run.running(), "{}", run.err());
        pair.source.run("postgres", "CREATE TABLE IF NOT EXISTS tick (n int); INSERT INTO tick VALUES (1)");
        let passed = format!(
            "SELECT count(*) FROM pg_replication_slots WHERE database = '{}' AND confirmed_flush_lsn >= '{end}'",
            stage.name
        );
        (stage.ask(&stage.source, &passed) == "1").then_some(())
    });
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn p03_a_slot_that_was_dropped_is_never_resumed_over_the_hole() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source("CREATE TABLE t (id int PRIMARY KEY, value int); INSERT INTO t SELECT n, n FROM generate_series(1, 100) n");
    stage.caught_up();
    stage.on_source(&format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{}'",
        stage.name
    ));
    stage.on_source("UPDATE t SET value = -1 WHERE id = 50");
    let finished = stage.run_command(&["--until", "caught-up"]).output();
    match finished.code() {
        // Copied anew.
        Some(0) => {
            stage.assert_equal();
        }
        _ => {
            finished.assert_code(1).assert_says(&["CF-LOG-LOST", "hint:"]);
        }
    }
}

#[test]
fn p05_a_second_process_is_refused_and_told_who_runs() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    shop::create(&stage.source, 200);
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    stage
        .run_command(&["--until", "caught-up"])
        .output()
        .assert_code(1)
        .assert_says(&["running", "--take-over"]);
    assert!(run.running(), "the first one goes on");
    run.terminate().assert_code(0);
}

#[test]
fn p05_a_paused_owner_that_wakes_after_a_takeover_does_no_harm() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    shop::create(&stage.source, 1_000);
    stage.on_source(LETS_GO_SOON);
    let writers = shop::write(&stage.source, Load::default());
    let mut old = stage.run(&[]);
    stage.wait_following(&mut old);
    old.pause();
    stage.run_command(&["--until", "caught-up", "--take-over"]).output().assert_code(0);
    let mut new = stage.run(&["--take-over"]);
    stage.wait_following(&mut new);
    old.resume();
    old.wait().assert_code(1).assert_says(&["CF-FENCED"]);
    thread::sleep(Duration::from_secs(1));
    assert!(new.running(), "the new owner goes on\n{}", new.err());
    writers.stop();
    new.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn p05_a_paused_owner_whose_successor_has_ended_is_told_of_the_takeover() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    stage.on_source(LETS_GO_SOON);
    let mut old = stage.run(&[]);
    stage.wait_following(&mut old);
    old.pause();
    stage.on_source("INSERT INTO t VALUES (2)");
    stage.run_command(&["--until", "caught-up", "--take-over"]).output().assert_code(0);
    // The slot is free and ahead of what the old one has; to begin anew would be the wrong advice.
    old.resume();
    old.wait().assert_code(1).assert_says(&["CF-FENCED"]);
    stage.caught_up();
    stage.assert_equal();
}

/// The source lets go of a client that stands still.
const LETS_GO_SOON: &str = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET wal_sender_timeout = ''3s''', current_database()); END $$";

#[test]
fn p07_a_slot_that_waits_for_an_idle_transaction_says_for_which() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut idle = connect(&stage.source);
    let process: i32 = idle.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    idle.batch_execute("BEGIN; INSERT INTO t VALUES (2)").unwrap();
    let mut run = stage.run(&["--until", "caught-up"]);
    wait::until("it says which session it waits for", wait::LONG, || {
        let said = format!("{}{}{:?}", run.out(), run.err(), stage.status());
        (said.contains(&process.to_string()) || !run.running()).then_some(())
    });
    idle.batch_execute("COMMIT").unwrap();
    // It waited long enough, or it gave up by then and goes on now.
    let finished = run.wait();
    if finished.code() != Some(0) {
        finished.assert_code(1).assert_says(&[&process.to_string()]);
        stage.caught_up();
    }
    stage.assert_equal();
}

fn survives_restarts(many_cuts: bool, restart: impl Fn(&mut Pair, Stop)) {
    let mut pair = Pair::start();
    let mut stage = pair.stage(CROSSFADE);
    if many_cuts {
        stage = stage.many_cuts();
    }
    shop::create(&stage.source, 3_000);
    let writers = shop::write(&stage.source, Load::default());
    let mut run = stage.run(&[]);
    stage.wait_rows(&mut run, 1);
    for how in [Stop::Immediate, Stop::Kill] {
        restart(&mut pair, how);
    }
    stage.wait_following(&mut run);
    for how in [Stop::Fast, Stop::Immediate, Stop::Kill] {
        restart(&mut pair, how);
        let applied = |status: &serde_json::Value| status["transactions_applied"].as_u64().unwrap_or(0);
        let before = stage.status().map_or(0, |status| applied(&status));
        stage.wait(&mut run, "it applies again after the restart", |status| applied(status) > before);
    }
    writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}

#[test]
fn p08_the_source_restarts_while_copying_and_following() {
    survives_restarts(true, |pair, how| pair.source.restart(how));
}

#[test]
fn p08_the_target_restarts_while_copying_and_following() {
    survives_restarts(false, |pair, how| pair.target.restart(how));
}

fn survives_network(pair: &Pair, harm: impl Fn(&Proxy)) {
    let (source, target) = (Proxy::start(pair.source.port()), Proxy::start(pair.target.port()));
    let stage = pair.stage(CROSSFADE).many_cuts();
    shop::create(&stage.source, 2_000);
    let writers = shop::write(&stage.source, Load::default());
    let (direct_source, direct_target) = (stage.source.clone(), stage.target.clone());
    let urls =
        [pair.source.url_by(source.port(), &stage.name), pair.target.url_by(target.port(), &stage.name)];
    let [source_url, target_url] = urls.map(Some);
    let stage: Stage = stage.via(source_url, target_url);
    let mut run = stage.run(&[]);
    stage.wait_rows(&mut run, 1);
    for proxy in [&source, &target] {
        harm(proxy);
    }
    stage.wait_following(&mut run);
    for proxy in [&target, &source] {
        harm(proxy);
        assert!(run.running(), "a bad network is waited out\n{}", run.err());
    }
    writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.via(Some(direct_source), Some(direct_target)).assert_equal();
}

#[test]
fn p08_the_network_is_cut_at_every_phase() {
    let pair = Pair::start();
    survives_network(&pair, |proxy| {
        for _ in 0..5 {
            proxy.cut();
            thread::sleep(Duration::from_millis(300));
        }
        proxy.cut_after(100_000);
        thread::sleep(Duration::from_millis(300));
    });
}

#[test]
fn p08_the_network_is_away_for_seconds_at_every_phase() {
    let pair = Pair::start();
    survives_network(&pair, |proxy| {
        proxy.refuse();
        thread::sleep(Duration::from_secs(4));
        proxy.heal();
        proxy.stall();
        thread::sleep(Duration::from_secs(4));
        proxy.heal();
    });
}
