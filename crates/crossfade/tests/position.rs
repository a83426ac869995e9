//! P: positions that somebody else moves. A slot, a source, a target or a journal that is not where we left it is
//! repaired or refused; nothing is ever resumed over a hole.

#![expect(clippy::unwrap_used, reason = "a fault in a test is a failed test")]

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use testkit::crossfade::Finished;
use testkit::disk::Disk;
use testkit::postgres::{Server, Stop, connect};
use testkit::{Load, Pair, Stage, shop, wait};

const CROSSFADE: &str = env!("CARGO_BIN_EXE_crossfade");

const ROWS: &str = "CREATE TABLE t (id int PRIMARY KEY, value int, note text);
    INSERT INTO t SELECT n, 0, repeat('x', 100) FROM generate_series(1, 3000) n";

/// A change that shows when it is missing, and one that shows when it is applied twice.
const CHANGE: &str = "UPDATE t SET value = value + 1 WHERE id <= 20; INSERT INTO t (value) SELECT 1 WHERE false;
    INSERT INTO t SELECT max(id) + 1, 1, 'new' FROM t; DELETE FROM t WHERE id = (SELECT min(id) FROM t WHERE id > 100)";

fn caught_up(stage: &Stage) -> Finished {
    stage.run_command(&["--until", "caught-up"]).output()
}

/// Either both sides are equal, or it stopped with one of these codes and a hint.
#[track_caller]
fn repaired_or_refused(stage: &Stage, finished: Finished, codes: &[&str]) {
    if finished.code() == Some(0) {
        stage.assert_equal();
        eprintln!("repaired");
        return;
    }
    eprintln!("refused: {finished}");
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert!(codes.iter().any(|code| said.contains(code)), "stopped for another reason\n{finished}");
    finished.assert_code(1).assert_says(&["hint:"]);
}

#[test]
fn p03_a_slot_or_source_that_somebody_moved_is_refused() {
    let slot = |sql: &str| {
        sql.replace(
            "SLOT",
            "(SELECT slot_name FROM pg_replication_slots WHERE database = current_database())",
        )
    };
    let advanced = slot("SELECT pg_replication_slot_advance(SLOT, pg_current_wal_insert_lsn())");
    let recreated = slot("SELECT pg_drop_replication_slot(SLOT)");
    let recreate =
        |name: &str| format!("SELECT pg_create_logical_replication_slot('crossfade_{name}', 'pgoutput')");
    let pair = Pair::start();
    for case in ["advanced", "recreated", "publication"] {
        let stage = pair.stage(CROSSFADE);
        stage.on_source(ROWS);
        stage.caught_up();
        stage.on_source(CHANGE);
        match case {
            "advanced" => stage.on_source(&advanced),
            "recreated" => {
                stage.on_source(&recreated);
                stage.on_source(&recreate(&stage.name));
            }
            _ => stage.on_source(&format!("DROP PUBLICATION crossfade_{}", stage.name)),
        }
        stage.on_source(CHANGE);
        caught_up(&stage).assert_code(1).assert_says(&["CF-LOG-LOST", "hint:"]);
    }
}

#[test]
fn p03_an_invalidated_slot_is_refused() {
    let pair = Pair::of(
        Server::builder().setting("max_slot_wal_keep_size", "1MB").setting("min_wal_size", "32MB"),
        Server::builder(),
    );
    let stage = pair.stage(CROSSFADE);
    stage.on_source(ROWS);
    stage.caught_up();
    stage.on_source(CHANGE);
    wait::until("the slot is invalidated", wait::LONG, || {
        stage.on_source("CREATE TABLE IF NOT EXISTS filler (x text); SELECT pg_switch_wal(); INSERT INTO filler SELECT repeat(md5(n::text), 50) FROM generate_series(1, 10000) n; DROP TABLE filler; CHECKPOINT");
        let lost = "SELECT bool_or(wal_status = 'lost') FROM pg_replication_slots WHERE database = current_database()";
        (stage.ask(&stage.source, lost) == "t").then_some(())
    });
    caught_up(&stage).assert_code(1).assert_says(&["CF-LOG-LOST", "hint:"]);
}

#[test]
fn p03_a_source_restored_from_a_backup_is_refused() {
    let mut pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(ROWS);
    stage.copied();
    pair.source.keep();
    stage.on_source(CHANGE);
    stage.caught_up();
    pair.source.go_back();
    caught_up(&stage).assert_code(1).assert_says(&["CF-LOG-LOST", "restored", "hint:"]);
}

#[test]
fn p04_the_journals_disk_is_full() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(ROWS);
    let Some(disk) = Disk::mount(&stage.dir(), 6 << 10) else { return };
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    stage.on_source("ALTER TABLE t ALTER note SET STORAGE EXTERNAL");
    // Held back by a lock, the target cannot free the journal.
    let mut locker = testkit::postgres::connect(&stage.target);
    locker.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").unwrap();
    for _ in 0..5 {
        stage.on_source("UPDATE t SET note = repeat(md5(random()::text), 60)");
    }
    run.wait().assert_code(1).assert_says(&["CF-JOURNAL", "free space"]);
    caught_up(&stage).assert_code(1).assert_says(&["hint:"]);
    locker.batch_execute("ROLLBACK").unwrap();
    disk.resize(256 << 10);
    stage.caught_up();
    stage.assert_equal();
}

/// Captured, durable and acknowledged to the source, and not applied: the target's table is locked until the process
/// is killed.
fn with_journaled_changes(pair: &Pair) -> Stage {
    let stage = pair.stage(CROSSFADE);
    stage.on_source(ROWS);
    stage.caught_up();
    let mut locker = testkit::postgres::connect(&stage.target);
    locker.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").unwrap();
    for _ in 0..20 {
        stage.on_source(CHANGE);
    }
    let end = stage.ask(&stage.source, "SELECT pg_current_wal_insert_lsn()");
    let run = stage.run(&[]);
    wait::until("the source has been told of all changes", wait::LONG, || {
        let told = format!(
            "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE database = '{}'",
            stage.name
        );
        (stage.ask(&stage.source, &told) == "t").then_some(())
    });
    run.kill();
    stage
}

/// The journal's segments, oldest first.
fn segments(stage: &Stage) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(stage.dir().join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn p04_a_torn_tail_is_cut_and_captured_again() {
    let pair = Pair::start();
    for tail in [&b"\0"[..], &[0; 64], &[0xff; 700]] {
        let stage = with_journaled_changes(&pair);
        let newest = segments(&stage).pop().unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        bytes.extend_from_slice(tail);
        fs::write(&newest, bytes).unwrap();
        stage.caught_up();
        stage.assert_equal();
    }
}

#[test]
fn p04_a_flipped_bit_in_the_middle_stops_and_a_copy_goes_on() {
    let pair = Pair::start();
    let stage = with_journaled_changes(&pair);
    let largest = segments(&stage).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let sound = fs::read(&largest).unwrap();
    let mut damaged = sound.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    fs::write(&largest, damaged).unwrap();
    caught_up(&stage).assert_code(1).assert_says(&["CF-JOURNAL", "damaged", "hint:"]);
    fs::write(&largest, sound).unwrap();
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn p04_a_journal_that_is_lost_after_it_was_acknowledged_is_refused() {
    let pair = Pair::start();
    for all in [true, false] {
        let stage = with_journaled_changes(&pair);
        let files = segments(&stage);
        let largest = files.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
        for path in files.iter().filter(|path| all || *path == largest) {
            fs::remove_file(path).unwrap();
        }
        let finished = caught_up(&stage).assert_code(1).assert_says(&["hint:"]);
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(said.contains("CF-LOG-LOST") || said.contains("CF-JOURNAL"), "{finished}");
    }
}

/// Otherwise the source keeps its log while nobody runs, and reads it again when somebody does.
#[test]
fn the_source_hears_where_we_are_when_a_run_ends() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(ROWS);
    for _ in 0..2 {
        stage.on_source(CHANGE);
        let end = stage.ask(&stage.source, "SELECT pg_current_wal_insert_lsn()");
        stage.run_command(&["--until", "captured"]).output().assert_code(0);
        let told = format!("SELECT bool_and(confirmed_flush_lsn >= '{end}') FROM pg_replication_slots");
        assert_eq!(stage.ask(&stage.source, &told), "t");
    }
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
        stage.on_source(ROWS);
        if kept == "interrupted" {
            stage.run_into("chunk.after_commit:3").assert_died();
        } else {
            stage.copied();
        }
        stage.on_source(CHANGE);
        if kept == "applied" {
            stage.caught_up();
        }
        pair.target.keep();
        for _ in 0..3 {
            stage.on_source(CHANGE);
            stage.caught_up();
        }
        stage.on_source(CHANGE);
        pair.target.go_back();
        repaired_or_refused(&stage, until_it_decides(&stage), &["CF-JOURNAL", "CF-LOG-LOST"]);
    }
}

#[test]
fn p06_a_target_restored_before_the_journals_beginning_is_refused() {
    let mut pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(ROWS);
    stage.caught_up();
    pair.target.keep();
    for _ in 0..2 {
        stage.on_source(CHANGE);
        stage.caught_up();
    }
    // Each run begins a segment of its own and frees those that are applied: so the changes are nowhere any more.
    stage.on_source(CHANGE);
    pair.target.go_back();
    until_it_decides(&stage).assert_code(1).assert_says(&["CF-JOURNAL", "older than the journal", "hint:"]);
}

/// The target forgets while the process runs, and comes back as it was in this phase.
fn restored_while_running(phase: &str, keep_at: impl Fn(&Stage, &mut testkit::crossfade::Run)) {
    let mut pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    stage.on_source(
        "CREATE TABLE t (id int PRIMARY KEY, value int, note text);
        INSERT INTO t SELECT n, 0, repeat('x', 100) FROM generate_series(1, 8000) n",
    );
    let load = Load { pause_ms_max: 20, ..Load::default() };
    let writers = shop::repeat(&stage.source, load, |rng| {
        let id = rng.u32(1..=8_000);
        vec![match rng.u8(0..4) {
            0 => format!("DELETE FROM t WHERE id = {id}"),
            1 => format!("INSERT INTO t VALUES ({id}, 1, 'again') ON CONFLICT DO NOTHING"),
            _ => format!("UPDATE t SET value = value + 1 WHERE id = {id}"),
        }]
    });
    let mut run = stage.run(&[]);
    keep_at(&stage, &mut run);
    pair.target.keep();
    if run.running() {
        let status = stage.status().unwrap();
        assert_eq!(status["phase"], phase, "kept in another phase: {status}");
        stage.wait_following(&mut run);
        thread::sleep(Duration::from_secs(1));
        pair.target.go_back();
        thread::sleep(Duration::from_secs(2));
    }
    writers.stop();
    if run.running() {
        run.terminate();
    } else {
        eprintln!("it stopped by itself: {}", run.wait());
    }
    repaired_or_refused(&stage, until_it_decides(&stage), &["CF-JOURNAL", "CF-LOG-LOST"]);
}

#[test]
fn p06_a_target_restored_under_a_running_process_that_follows() {
    restored_while_running("following", |stage, run| {
        stage.wait_following(run);
        stage.wait(run, "it applies", |status| status["transactions_applied"].as_u64() > Some(10));
    });
}

#[test]
fn p06_a_target_restored_to_the_middle_of_the_copy_under_a_running_process() {
    restored_while_running("copying", |stage, run| {
        stage.wait_rows(run, 1_000);
    });
}

/// Whoever was put back knows nothing of the cuts being passed; a unique index that comes too soon would refuse good rows.
#[test]
fn p06_a_target_that_goes_back_while_its_schema_is_finished() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(
        "CREATE FUNCTION gate(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql
           AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(1); RETURN n; END';
         CREATE TABLE t (id int PRIMARY KEY);
         CREATE UNIQUE INDEX gated ON t (gate(id));
         INSERT INTO t SELECT generate_series(1, 100)",
    );
    let mut target = connect(&stage.target);
    target.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
    let run = stage.run(&["--until", "caught-up"]);
    wait::until("the index is being built", wait::LONG, || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        (stage.ask(&stage.target, waiting) != "0").then_some(())
    });
    target
        .batch_execute("UPDATE crossfade.progress SET settled = false; SELECT pg_advisory_unlock(1)")
        .unwrap();
    run.wait().assert_code(1).assert_says(&["CF-WENT-BACK", "hint:"]);
    assert_eq!(stage.ask(&stage.target, "SELECT to_regclass('gated')"), "NULL");
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}

/// The schema's last items were lost with it, and no change.
#[test]
fn p06_a_target_that_goes_back_to_before_its_schema_was_finished() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(ROWS);
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    // What is written behind the end of the copy is applied only when the schema is finished.
    stage.on_source(CHANGE);
    let newest = stage.ask(&stage.source, "SELECT max(id) FROM t");
    wait::until("the change is applied", wait::LONG, || {
        let finished = "SELECT bool_and(finished) FROM crossfade.progress";
        (stage.ask(&stage.target, finished) == "t"
            && stage.ask(&stage.target, "SELECT max(id) FROM t") == newest)
            .then_some(())
    });
    let mut target = connect(&stage.target);
    target
        .batch_execute(
            "UPDATE crossfade.progress SET finished = false;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name LIKE 'crossfade%' AND datname = current_database() AND pid <> pg_backend_pid()",
        )
        .unwrap();
    stage.on_source(CHANGE);
    run.wait().assert_code(1).assert_says(&["CF-WENT-BACK", "schema"]);
    stage.caught_up();
    stage.assert_equal();
}

/// The cuts are passed, the schema cannot be finished, and what stands in its way is mended on the source.
#[test]
fn what_hinders_the_schema_may_be_mended_through_the_log() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(
        "CREATE TABLE forbidden (id int PRIMARY KEY);
         CREATE FUNCTION allowed(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
           BEGIN IF EXISTS (SELECT 1 FROM public.forbidden) THEN RAISE 'forbidden'; END IF; RETURN n; END $$;
         CREATE TABLE t (id int PRIMARY KEY);
         INSERT INTO t SELECT generate_series(1, 100);
         CREATE UNIQUE INDEX gated ON t (allowed(id));
         INSERT INTO forbidden VALUES (1)",
    );
    for _ in 0..2 {
        caught_up(&stage).assert_code(1).assert_says(&["gated", "forbidden"]);
    }
    stage.on_source("DELETE FROM forbidden");
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}

#[test]
fn p06_a_target_that_commits_asynchronously_and_loses_its_last_second() {
    let target = Server::builder().setting("synchronous_commit", "off").setting("wal_writer_delay", "10s");
    let mut pair = Pair::of(Server::builder(), target);
    let stage = pair.stage(CROSSFADE);
    shop::create(&stage.source, 500);
    let writers = shop::write(&stage.source, Load::default());
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    for how in [Stop::Kill, Stop::Immediate, Stop::Kill] {
        thread::sleep(Duration::from_secs(1));
        pair.target.restart(how);
    }
    writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
}
