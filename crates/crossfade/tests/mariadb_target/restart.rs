//! P: crashes, restarts, rivals, a bad network, and a target that was put back.

use std::thread::sleep;
use std::time::Duration;

use connector::failpoint;
use testkit::crossfade::Finished;
use testkit::mariadb::{self, Pair, Stop};
use testkit::proxy::Proxy;
use testkit::{Load, Stage, audit, market};

use crate::{CROSSFADE, caught_up, on, wait_for_a_lock};

/// The groups below, by which all failpoints are walked through.
const GROUPS: [&[&str]; 3] = [
    &["claim.", "prepare.", "plan.", "create.", "capture."],
    &["wave.", "chunk.", "table.", "keys."],
    &["apply.", "finish.", "journal."],
];

/// Dies at each of these points, several times, and goes on each time.
fn die_at_each(prefixes: &[&str]) {
    let pair = Pair::start();
    let mut points: Vec<&str> = failpoint::ALL.to_vec();
    points.retain(|point| prefixes.iter().any(|prefix| point.starts_with(prefix)));
    points.retain(|point| !dies_at(&pair, point));
    // Whether a table is begun anew depends on a TRUNCATE that comes at the right moment.
    points.retain(|point| *point != failpoint::TABLE_AFTER_RESET);
    assert!(points.is_empty(), "these points were never reached: {points:?}");
}

/// Whether it came by this point.
fn dies_at(pair: &Pair, point: &str) -> bool {
    let stage = pair.stage(CROSSFADE).many_cuts().flags(&["--slice-bytes", "65536"]);
    market::create(&pair.source, &stage.name, 500);
    let writers = market::write(&pair.source, &stage.name, Load { truncate: true, ..Load::default() });
    let mut died = false;
    // Twice the first time: some points are there only where an earlier run has left something.
    for time in [1, 1, 3] {
        let finished = stage.run_into(&format!("{point}:{time}"));
        assert!(matches!(finished.code(), None | Some(0)), "{point}: {finished}");
        died |= finished.code().is_none();
    }
    writers.stop();
    stage.caught_up();
    let report = audit::compare(&stage.source, &stage.target);
    assert_eq!(report.differences(), 0, "after a crash at {point}\n{report}");
    stage.assert_equal_schema();
    died
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
fn p01_the_program_and_both_servers_are_killed_at_random_moments() {
    let mut pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    market::create(&pair.source, &stage.name, 1_000);
    // No TRUNCATE: a server that is killed between emptying the table and logging that has lost it for its own replicas, too.
    let load = Load { pause_ms_max: 5, ..Load::default() };
    let writers = market::write(&pair.source, &stage.name, load);
    for round in 0..9 {
        let run = stage.run(&[]);
        sleep(Duration::from_millis(250 + 200 * round));
        match round % 3 {
            1 => pair.target.restart(Stop::Kill),
            2 => pair.source.restart(Stop::Kill),
            _ => {}
        }
        run.kill();
    }
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    for how in [Stop::Fast, Stop::Kill] {
        pair.target.restart(how);
        sleep(Duration::from_secs(1));
        pair.source.restart(how);
        sleep(Duration::from_secs(1));
    }
    run.kill();
    let tally = writers.stop();
    assert!(tally.committed > 100, "{tally}");
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}

#[test]
fn c02_every_transaction_counts_once_under_load() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    market::create(&pair.source, &stage.name, 500);
    let load = Load { pause_ms_max: 3, truncate: true, ..Load::default() };
    let writers = market::write(&pair.source, &stage.name, load);
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    sleep(Duration::from_secs(2));
    let tally = writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    let report = stage.assert_equal();
    assert!(tally.committed > 100 && report.rows() > 3_000, "{tally}\n{report}");
    stage.assert_equal_schema();
}

const ROWS: &str = "CREATE TABLE t (id INT PRIMARY KEY, value INT, note TEXT);
    INSERT INTO t SELECT seq, 0, REPEAT('x', 100) FROM seq_1_to_3000";

/// A change that shows when it is missing, and one that shows when it is applied twice.
const CHANGE: &str =
    "UPDATE t SET value = value + 1 WHERE id <= 20; INSERT INTO t SELECT MAX(id) + 1, 1, 'new' FROM t;
    DELETE FROM t WHERE id > 100 ORDER BY id LIMIT 1";

#[test]
fn c12_killed_around_a_chunks_commit() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    // A chunk has a thousand rows at least, and ten of them are loaded before the last death.
    on(&stage.source, &ROWS.replace("seq_1_to_3000", "seq_1_to_15000"));
    for round in 1..=3 {
        for (at, point) in [failpoint::CHUNK_BEFORE_COMMIT, failpoint::CHUNK_AFTER_COMMIT].iter().enumerate()
        {
            stage.run_into(&format!("{point}:{round}")).assert_died();
            let moved = format!("WHERE id % 50 = {} AND id < 15000", 2 * round + at);
            on(&stage.source, &format!("UPDATE t SET value = value + 1, id = id + 15000 {moved}"));
        }
    }
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn p05_a_paused_owner_that_wakes_after_a_takeover_does_no_harm() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    market::create(&pair.source, &stage.name, 500);
    let writers = market::write(&pair.source, &stage.name, Load::default());
    let mut old = stage.run(&[]);
    stage.wait_following(&mut old);
    old.pause();
    stage.run_command(&["--until", "caught-up", "--take-over"]).output().assert_code(0);
    let mut new = stage.run(&["--take-over"]);
    stage.wait_following(&mut new);
    old.resume();
    old.wait().assert_code(1).assert_says(&["CF-FENCED"]);
    sleep(Duration::from_secs(1));
    assert!(new.running(), "the new owner goes on\n{}", new.err());
    writers.stop();
    new.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
}

/// Its rows are locked, and nobody is there to commit or to roll back.
#[test]
fn p05_a_takeover_ends_what_a_paused_owner_left_open() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    on(
        &stage.source,
        "CREATE TABLE t (id INT PRIMARY KEY, value INT); INSERT INTO t SELECT seq, 0 FROM seq_1_to_100",
    );
    let mut old = stage.run(&[]);
    stage.wait_following(&mut old);
    let mut locker = mariadb::connect(&stage.target);
    mariadb::run(&mut locker, "BEGIN");
    mariadb::run(&mut locker, "SELECT * FROM t WHERE id = 50 FOR UPDATE");
    on(&stage.source, "UPDATE t SET value = value + 1");
    wait_for_a_lock(&stage);
    old.pause();
    // The server goes on with what it was sent last, and then holds the locks for the one who stands still.
    mariadb::run(&mut locker, "ROLLBACK");
    stage.run_command(&["--until", "caught-up", "--take-over"]).output().assert_code(0);
    stage.assert_equal();
    old.resume();
    old.wait().assert_code(1).assert_says(&["CF-FENCED"]);
    stage.caught_up();
    stage.assert_equal();
}

/// Either both sides are equal, or it stopped with one of these codes and a hint.
#[track_caller]
fn repaired_or_refused(stage: &Stage) {
    let finished = until_it_decides(stage);
    if finished.code() == Some(0) {
        stage.assert_equal();
        return;
    }
    let said = format!("{}{}", finished.stdout, finished.stderr);
    let is_known = ["CF-JOURNAL", "CF-LOG-LOST"].iter().any(|code| said.contains(code));
    assert!(is_known, "stopped for another reason\n{finished}");
    finished.assert_code(1).assert_says(&["hint:"]);
}

/// A few more runs than a restored target's epoch can lag behind the journal's.
fn until_it_decides(stage: &Stage) -> Finished {
    for _ in 0..12 {
        let finished = caught_up(stage);
        if !format!("{}{}", finished.stdout, finished.stderr).contains("CF-FENCED") {
            return finished;
        }
    }
    panic!("it says for ever that a newer process has taken over, and there is none");
}

#[test]
fn p06_a_target_restored_between_two_runs_is_repaired_or_refused() {
    let mut pair = Pair::start();
    // What was kept: an interrupted copy; all chunks and nothing applied; half of the changes applied.
    for kept in ["interrupted", "copied", "applied"] {
        let stage = pair.stage(CROSSFADE).many_cuts();
        on(&stage.source, ROWS);
        if kept == "interrupted" {
            stage.run_into("chunk.after_commit:3").assert_died();
        } else {
            stage.copied();
        }
        on(&stage.source, CHANGE);
        if kept == "applied" {
            stage.caught_up();
        }
        pair.target.keep();
        for _ in 0..3 {
            on(&stage.source, CHANGE);
            stage.caught_up();
        }
        on(&stage.source, CHANGE);
        pair.target.go_back();
        repaired_or_refused(&stage);
    }
}

#[test]
fn p06_a_target_restored_under_a_running_process() {
    let mut pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    on(&stage.source, ROWS);
    let load = Load { pause_ms_max: 20, ..Load::default() };
    let writers = market::repeat(&pair.source, &stage.name, load, |rng| {
        let id = rng.u32(1..=3_000);
        vec![match rng.u8(0..4) {
            0 => format!("DELETE FROM t WHERE id = {id}"),
            1 => format!("INSERT INTO t VALUES ({id}, 1, 'again') ON DUPLICATE KEY UPDATE value = value + 1"),
            _ => format!("UPDATE t SET value = value + 1 WHERE id = {id}"),
        }]
    });
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    stage.wait(&mut run, "it applies", |status| status["transactions_applied"].as_u64() > Some(10));
    pair.target.keep();
    let before = applied(&stage);
    stage.wait(&mut run, "it applies what the kept copy does not have", |_| applied(&stage) > before + 10);
    pair.target.go_back();
    sleep(Duration::from_secs(2));
    writers.stop();
    if run.running() {
        run.terminate();
    } else {
        run.wait().assert_code(1).assert_says(&["hint:"]);
    }
    repaired_or_refused(&stage);
}

fn applied(stage: &Stage) -> u64 {
    stage.status().and_then(|status| status["transactions_applied"].as_u64()).unwrap_or(0)
}

#[test]
fn p08_the_target_restarts_while_copying_and_following() {
    let mut pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    market::create(&pair.source, &stage.name, 2_000);
    let writers = market::write(&pair.source, &stage.name, Load::default());
    let mut run = stage.run(&[]);
    stage.wait_rows(&mut run, 1);
    pair.target.restart(Stop::Kill);
    stage.wait_following(&mut run);
    for how in [Stop::Fast, Stop::Kill] {
        pair.target.restart(how);
        let before = applied(&stage);
        stage.wait(&mut run, "it applies again after the restart", |_| applied(&stage) > before);
    }
    writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}

#[test]
fn p08_the_network_to_the_target_is_cut_and_silent_at_every_phase() {
    let pair = Pair::start();
    let proxy = Proxy::start(pair.target.port());
    let stage = pair.stage(CROSSFADE).many_cuts();
    market::create(&pair.source, &stage.name, 2_000);
    let writers = market::write(&pair.source, &stage.name, Load::default());
    let direct = stage.target.clone();
    let [from, to] = [pair.target.port(), proxy.port()].map(|port| format!(":{port}/"));
    let stage = stage.via(None, Some(direct.replace(&from, &to)));
    let mut run = stage.run(&[]);
    stage.wait_rows(&mut run, 1);
    let harm = || {
        for _ in 0..4 {
            proxy.cut();
            sleep(Duration::from_millis(300));
        }
        proxy.cut_after(100_000);
        sleep(Duration::from_millis(300));
        proxy.refuse();
        sleep(Duration::from_secs(3));
        proxy.heal();
        proxy.stall();
        sleep(Duration::from_secs(3));
        proxy.heal();
    };
    harm();
    stage.wait_following(&mut run);
    harm();
    assert!(run.running(), "a bad network is waited out\n{}", run.err());
    writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.via(None, Some(direct)).assert_equal();
}
