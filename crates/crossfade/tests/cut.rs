//! C: what a chunk's read saw, while everything moves.

#![expect(clippy::unwrap_used, reason = "a fault in a test is a failed test")]

use std::thread::{self, JoinHandle};

use testkit::postgres::{Server, Stop, connect};
use testkit::{Load, Pair, Stage, shop, wait};

const CROSSFADE: &str = env!("CARGO_BIN_EXE_crossfade");

/// A session that hangs in its COMMIT, waiting for a standby that never comes: its change is in the log, and
/// nobody can see it.
struct Waiter {
    process: i32,
    session: JoinHandle<()>,
}

impl Waiter {
    fn start(stage: &Stage, update: &'static str) -> Waiter {
        let mut client = connect(&stage.source);
        let process: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        let session = thread::spawn(move || {
            // Terminated, it fails, and has committed all the same.
            if let Err(error) = client.batch_execute(update) {
                eprintln!("the waiting session ended with: {error}");
            }
        });
        let waiter = Waiter { process, session };
        wait::until("the update waits for a standby", wait::LONG, || {
            let sql = format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {process}");
            (stage.ask(&stage.source, &sql) == "SyncRep").then_some(())
        });
        waiter
    }
}

fn visibility_race(end: impl FnOnce(&Pair, i32)) {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(
        "CREATE TABLE t (id int PRIMARY KEY, value text, note text);
         ALTER TABLE t ALTER note SET STORAGE EXTERNAL;
         INSERT INTO t SELECT n, 'before', repeat('x', 4000) FROM generate_series(1, 100) n",
    );
    // The slot is there before the wait begins.
    stage.run_into("plan.after").assert_died();
    pair.source.set("synchronous_standby_names", "nobody");
    let waiter = Waiter::start(&stage, "UPDATE t SET value = 'after' WHERE id = 50");
    let value = "SELECT value FROM t WHERE id = 50";
    assert_eq!(stage.ask(&stage.source, value), "before", "nobody sees the update yet");
    // A later transaction that is over: the waiting one is below the snapshot's xmax now, and only its list of
    // running transactions tells that it was not seen.
    stage.on_source("SET synchronous_commit = local; UPDATE t SET value = 'meanwhile' WHERE id = 51");

    stage.copied();
    stage.caught_up();
    end(&pair, waiter.process);
    waiter.session.join().unwrap();
    assert_eq!(stage.ask(&stage.source, value), "after", "the update had committed");
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn c01_sync_rep_visibility_race_ends_with_the_setting() {
    visibility_race(|pair, _| pair.source.set("synchronous_standby_names", ""));
}

#[test]
fn c01_sync_rep_visibility_race_ends_with_a_cancel() {
    visibility_race(|pair, process| {
        pair.source.run("postgres", &format!("SELECT pg_cancel_backend({process})"));
    });
}

#[test]
fn c01_sync_rep_visibility_race_ends_with_a_terminate() {
    visibility_race(|pair, process| {
        pair.source.run("postgres", &format!("SELECT pg_terminate_backend({process})"));
    });
}

/// A slot knows of the transactions that ran when it began to look. One that begins after that, and whose commit is in
/// the log before the slot is consistent, is not delivered; waiting for its standby it is not visible either.
#[test]
fn c01_a_commit_waits_for_its_standby_while_the_slot_is_made() {
    let pair = Pair::start();
    pair.source.set("synchronous_commit", "local");
    pair.source.set("synchronous_standby_names", "nobody");
    let stage = pair.stage(CROSSFADE);
    stage.on_source("CREATE TABLE t (id int PRIMARY KEY, value text); INSERT INTO t VALUES (1, 'before')");
    let open = || {
        let mut client = connect(&stage.source);
        client.batch_execute("BEGIN").unwrap();
        let xid: String = client.query_one("SELECT pg_current_xact_id()::text", &[]).unwrap().get(0);
        (client, xid)
    };
    let waits_for = |xid: &str| {
        let sql = format!(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid' AND transactionid::text = '{xid}'"
        );
        wait::until("the slot waits", wait::LONG, || (stage.ask(&stage.source, &sql) != "0").then_some(()));
    };
    let (mut first, first_xid) = open();
    let run = stage.run(&["--until", "caught-up"]);
    waits_for(&first_xid);
    let (mut second, second_xid) = open();
    first.batch_execute("COMMIT").unwrap();
    waits_for(&second_xid);
    let waiter = Waiter::start(&stage, "SET synchronous_commit = on; INSERT INTO t VALUES (2, 'hidden')");
    second.batch_execute("COMMIT").unwrap();
    wait::until("the slot is there", wait::LONG, || {
        let sql = "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn IS NOT NULL AND database = current_database()";
        (stage.ask(&stage.source, sql) != "0").then_some(())
    });
    // Time enough for a wave that does not wait.
    thread::sleep(std::time::Duration::from_secs(2));
    pair.source.run("postgres", &format!("SELECT pg_cancel_backend({})", waiter.process));
    waiter.session.join().unwrap();
    run.wait().assert_code(0);
    stage.assert_equal();
}

#[test]
fn c02_every_transaction_counts_once_under_group_commit_and_many_cuts() {
    let pair = Pair::of(
        Server::builder().setting("commit_delay", "2000").setting("commit_siblings", "1"),
        Server::builder(),
    );
    let stage = pair.stage(CROSSFADE).many_cuts();
    stage.on_source(
        "CREATE TABLE counter (id int PRIMARY KEY, hits int NOT NULL, filler text);
         INSERT INTO counter SELECT n, 0, repeat('x', 200) FROM generate_series(1, 20000) n",
    );
    let load = Load { writers: 6, pause_ms_max: 0, ..Load::default() };
    let writers = shop::repeat(&stage.source, load, |rng| {
        vec![format!("UPDATE counter SET hits = hits + 1 WHERE id = {}", rng.u32(1..=20_000))]
    });
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    let tally = writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
    let hits = stage.ask(&stage.target, "SELECT sum(hits) FROM counter");
    assert_eq!(hits, tally.committed.to_string(), "{tally}");
}

const LEDGER: &str = "CREATE TABLE ledger (id int PRIMARY KEY, value text, note text);
    ALTER TABLE ledger ALTER note SET STORAGE EXTERNAL;
    INSERT INTO ledger SELECT n, 'before', repeat('x', 3000) FROM generate_series(1, 400) n";

/// Hundreds of savepoints, every third one rolled back.
fn subtransactions() -> String {
    let step = |n: u32| {
        let end = if n.is_multiple_of(3) { "ROLLBACK TO s;" } else { "" };
        format!("SAVEPOINT s; UPDATE ledger SET value = 'sub {n}' WHERE id = {n}; {end}")
    };
    (1..=300).map(step).collect()
}

#[test]
fn c03_a_transaction_open_since_before_the_slot() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(LEDGER);
    let mut open = connect(&stage.source);
    open.batch_execute(&format!("BEGIN; {}", subtransactions())).unwrap();
    let run = stage.run(&["--until", "caught-up"]);
    wait::until("the slot waits for the open transaction", wait::LONG, || {
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'";
        (stage.ask(&stage.source, waits) != "0").then_some(())
    });
    open.batch_execute("COMMIT").unwrap();
    run.wait().assert_code(0);
    stage.assert_equal();
}

#[test]
fn c03_a_transaction_open_across_all_waves_ends_last() {
    let pair = Pair::start();
    for end in ["COMMIT", "ROLLBACK"] {
        let stage = pair.stage(CROSSFADE).many_cuts();
        stage.on_source(LEDGER);
        stage.run_into("plan.after").assert_died();
        let mut open = connect(&stage.source);
        open.batch_execute(&format!("BEGIN; {}", subtransactions())).unwrap();
        stage.copied();
        stage.caught_up();
        open.batch_execute(&format!(
            "DELETE FROM ledger WHERE id = 7; UPDATE ledger SET id = -8 WHERE id = 8; {end}"
        ))
        .unwrap();
        stage.caught_up();
        stage.assert_equal();
    }
}

#[test]
fn c05_a_cluster_past_the_first_epoch() {
    let mut source = Server::builder().without_fsync().create();
    source.tool("pg_resetwal", &["-e", "1"]);
    source.start();
    let pair = Pair { source, target: Server::builder().without_fsync().start() };
    under_load(&pair.stage(CROSSFADE).many_cuts(), 1_000);
}

#[test]
fn c05_the_wire_xid_wraps_during_a_run() {
    let mut pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    shop::create(&stage.source, 1_000);
    pair.source.near_wraparound(400);
    let writers = shop::write(&stage.source, Load::default());
    let mut run = stage.run(&[]);
    wait::until("the transaction ids have wrapped", wait::LONG, || {
        assert!(run.running(), "{}", run.err());
        let next: u64 = stage.ask(&stage.source, "SELECT pg_current_xact_id()").parse().unwrap();
        (next > (1 << 32) + 300).then_some(())
    });
    stage.wait_following(&mut run);
    writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
}

/// The whole workload during copy and after it.
fn under_load(stage: &Stage, rows: u32) {
    shop::create(&stage.source, rows);
    let writers = shop::write(&stage.source, Load { truncate: true, ..Load::default() });
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    thread::sleep(std::time::Duration::from_secs(2));
    writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}

#[test]
fn c02_the_whole_workload_during_a_copy_under_one_cut() {
    under_load(&Pair::start().stage(CROSSFADE), 3_000);
}

#[test]
fn c02_the_whole_workload_during_a_copy_under_many_cuts() {
    under_load(&Pair::start().stage(CROSSFADE).many_cuts(), 3_000);
}

#[test]
fn c07_rows_move_between_chunks_with_unchanged_toast() {
    let pair = Pair::start();
    for seed in 1..=2 {
        let stage = pair.stage(CROSSFADE).many_cuts();
        stage.on_source(
            "CREATE TABLE moving (id int PRIMARY KEY, hops int NOT NULL DEFAULT 0, note text);
             ALTER TABLE moving ALTER note SET STORAGE EXTERNAL;
             INSERT INTO moving SELECT n * 10, 0, repeat(md5(n::text), 90) FROM generate_series(1, 1500) n",
        );
        // Anywhere, and often over the place where the copy is right now; some are deleted later.
        let load = Load { seed, writers: 4, pause_ms_max: 1, ..Load::default() };
        let writers = shop::repeat(&stage.source, load, |rng| {
            let (from, to) = (rng.u32(1..=15_000), rng.u32(1..=15_000));
            let one = format!("(SELECT id FROM moving WHERE id >= {from} ORDER BY id LIMIT 1)");
            match rng.u8(0..12) {
                0 => vec![format!("DELETE FROM moving WHERE id = {one}")],
                1 => vec![format!("UPDATE moving SET note = repeat(md5('{to}'), 100) WHERE id = {one}")],
                2 => vec![
                    "BEGIN".into(),
                    format!("UPDATE moving SET id = {to} + 100000, hops = hops + 1 WHERE id = {one}"),
                    format!("UPDATE moving SET id = {to}, hops = hops + 1 WHERE id = {to} + 100000"),
                    "COMMIT".into(),
                ],
                _ => vec![format!("UPDATE moving SET id = {to}, hops = hops + 1 WHERE id = {one}")],
            }
        });
        let mut run = stage.run(&[]);
        stage.wait_following(&mut run);
        let tally = writers.stop();
        assert!(tally.committed > 20, "too little moved to mean anything: {tally}");
        run.terminate().assert_code(0);
        stage.caught_up();
        stage.assert_equal();
    }
}

#[test]
fn c08_rows_move_physically_and_tables_are_rewritten_during_a_wave() {
    let pair = Pair::start();
    for flags in
        [&["--chunk-bytes", "65536"] as &[&str], &["--chunk-bytes", "65536", "--one-cut-bytes-max", "1"]]
    {
        let stage = pair.stage(CROSSFADE).flags(flags);
        stage.on_source(
            "CREATE TABLE restless (id int PRIMARY KEY, value int, filler text);
             CREATE INDEX ON restless (value);
             INSERT INTO restless SELECT n, n, repeat('x', 300) FROM generate_series(1, 20000) n",
        );
        let updates = shop::repeat(&stage.source, Load { pause_ms_max: 2, ..Load::default() }, |rng| {
            // The index on `value` keeps the update from staying on its page.
            let from = rng.u32(1..=20_000);
            vec![format!("UPDATE restless SET value = value + 1 WHERE id BETWEEN {from} AND {from} + 20")]
        });
        let load = Load { writers: 1, pause_ms_max: 100, ..Load::default() };
        let rewrites = shop::repeat(&stage.source, load, |rng| match rng.u8(0..4) {
            0 => vec!["VACUUM FULL restless".into()],
            1 => vec!["CLUSTER restless USING restless_pkey".into()],
            2 => vec!["VACUUM restless".into()],
            _ => vec![
                "BEGIN".into(),
                "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM restless".into(),
                "TRUNCATE restless".into(),
                "INSERT INTO restless SELECT * FROM kept".into(),
                "COMMIT".into(),
            ],
        });
        let mut run = stage.run(&[]);
        stage.wait_following(&mut run);
        let rewritten = rewrites.stop();
        updates.stop();
        assert!(rewritten.committed > 0, "nothing was rewritten: {rewritten}");
        run.terminate().assert_code(0);
        stage.caught_up();
        stage.assert_equal();
    }
}

#[test]
fn c08_a_rewriting_alter_is_carried_over_or_stops_clearly() {
    let pair = Pair::start();
    for (number, alter) in [
        "ALTER value TYPE bigint",
        "ADD COLUMN extra int DEFAULT 7",
        "DROP COLUMN value",
        "RENAME value TO worth",
    ]
    .iter()
    .enumerate()
    {
        let stage = pair.stage(CROSSFADE).many_cuts();
        let table = format!("altered_{number}");
        stage.on_source(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, value int, filler text);
             INSERT INTO {table} SELECT n, n, repeat('x', 300) FROM generate_series(1, 5000) n"
        ));
        let mut run = stage.run(&[]);
        stage.wait_rows(&mut run, 1);
        stage.on_source(&format!("ALTER TABLE {table} {alter}; INSERT INTO {table} (id) VALUES (-1)"));
        stage.on_source(&format!("DELETE FROM {table} WHERE id = 17"));
        // It stops by itself, or it goes on and is stopped here.
        wait::until("it stops or follows", wait::LONG, || {
            let follows = stage.status().is_some_and(|status| status["phase"] == "following");
            (!run.running() || follows).then_some(())
        });
        run.terminate();
        let finished = stage.run_command(&["--until", "caught-up"]).output();
        stage.carried_over_or_stopped(&finished, &table);
    }
}

#[test]
fn c15_a_session_that_is_killed_in_the_middle_is_taken_up_again() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).flags(&["--chunk-bytes", "65536"]);
    shop::create(&stage.source, 10_000);
    let mut run = stage.run(&[]);
    stage.wait_rows(&mut run, 1);
    for _ in 0..20 {
        for server in [&pair.source, &pair.target] {
            server.run(
                "postgres",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE pid <> pg_backend_pid() AND datname LIKE 'shop%'",
            );
        }
        thread::sleep(std::time::Duration::from_millis(100));
    }
    stage.wait_following(&mut run);
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn a_stopped_server_is_waited_for_at_the_very_start() {
    let mut pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    shop::create(&stage.source, 200);
    stage.run_into("plan.after").assert_died();
    pair.source.restart(Stop::Immediate);
    stage.caught_up();
    stage.assert_equal();
}
