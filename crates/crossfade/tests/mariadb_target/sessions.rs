//! What the target's server does to our sessions: locks, kills, settings, rights.

use std::thread::sleep;
use std::time::Duration;

use testkit::mariadb::{self, Pair, Server};
use testkit::{Load, Stage, market, wait};

use crate::{CROSSFADE, MODES, ask, carried_or_refused, caught_up, on, refused, wait_for_a_lock};

const ROWS: &str = "CREATE TABLE t (id INT PRIMARY KEY, value INT NOT NULL DEFAULT 0, note VARCHAR(40));
    INSERT INTO t SELECT seq, 0, CONCAT('note ', seq) FROM seq_1_to_200;
    CREATE TABLE long_ones (id INT PRIMARY KEY, v LONGBLOB); INSERT INTO long_ones VALUES (1, 'short')";

#[test]
fn p08_a_row_lock_of_somebody_else_is_waited_out() {
    let pair = Pair::start();
    for mode in MODES {
        let stage = pair.stage(CROSSFADE).flags(&["--apply", mode]);
        on(&stage.source, ROWS);
        stage.caught_up();
        let mut locker = mariadb::connect(&stage.target);
        mariadb::run(&mut locker, "BEGIN");
        mariadb::run(&mut locker, "SELECT * FROM t WHERE id = 50 FOR UPDATE");
        on(&stage.source, "UPDATE t SET value = value + 1");
        on(&stage.source, "UPDATE t SET value = value + 1 WHERE id = 50");
        let mut run = stage.run(&["--until", "caught-up"]);
        wait_for_a_lock(&stage);
        sleep(Duration::from_secs(6));
        assert!(run.running(), "a lock is waited for\n{}", run.err());
        mariadb::run(&mut locker, "ROLLBACK");
        run.wait().assert_code(0);
        stage.assert_equal();
    }
}

/// Longer than a session of ours waits for a row: the server refuses the statement, and it is tried again.
#[test]
fn p08_a_row_lock_that_outlasts_the_servers_patience() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    on(&stage.source, ROWS);
    stage.caught_up();
    let mut locker = mariadb::connect(&stage.target);
    mariadb::run(&mut locker, "BEGIN");
    mariadb::run(&mut locker, "SELECT * FROM t WHERE id = 50 FOR UPDATE");
    on(&stage.source, "UPDATE t SET value = value + 1");
    let mut run = stage.run(&["--until", "caught-up"]);
    wait_for_a_lock(&stage);
    sleep(Duration::from_secs(40));
    assert!(run.running(), "a lock is no refusal\n{}", run.err());
    mariadb::run(&mut locker, "ROLLBACK");
    run.wait().assert_code(0);
    stage.assert_equal();
}

/// The server rolls our whole transaction back, and takes what we send next for a new one.
#[test]
fn p08_a_deadlock_with_somebody_else_is_tried_again() {
    let pair = Pair::start();
    for mode in MODES {
        let stage = pair.stage(CROSSFADE).flags(&["--apply", mode]);
        on(&stage.source, ROWS);
        on(
            &stage.source,
            "CREATE TABLE bare (a INT, b INT); INSERT INTO bare SELECT seq, 0 FROM seq_1_to_20;
             CREATE TABLE late (id INT PRIMARY KEY, value INT); INSERT INTO late SELECT seq, 0 FROM seq_1_to_20",
        );
        stage.caught_up();
        // Of two in a deadlock the server ends the one that has done less.
        on(&stage.target, "CREATE DATABASE IF NOT EXISTS rogue; CREATE OR REPLACE TABLE rogue.work (n INT)");
        let mut rogue = mariadb::connect(&stage.target);
        mariadb::run(&mut rogue, "BEGIN");
        mariadb::run(&mut rogue, "INSERT INTO rogue.work SELECT seq FROM seq_1_to_20000");
        mariadb::run(&mut rogue, "SELECT * FROM t WHERE id = 100 FOR UPDATE");
        on(
            &stage.source,
            "UPDATE t SET value = value + 1; UPDATE bare SET b = b + 1; UPDATE late SET value = value + 1;
             INSERT INTO t VALUES (9000, 1, 'new'); DELETE FROM t WHERE id = 7",
        );
        on(&stage.source, "UPDATE late SET value = value + 1; INSERT INTO bare VALUES (99, 99)");
        let run = stage.run(&["--until", "caught-up"]);
        wait_for_a_lock(&stage);
        // Whatever it has written by now is locked by it; a failure here would say that we were the one who was ended.
        mariadb::run(&mut rogue, "SELECT * FROM t FOR UPDATE");
        sleep(Duration::from_secs(1));
        mariadb::run(&mut rogue, "ROLLBACK");
        run.wait().assert_code(0);
        stage.assert_equal();
    }
}

#[test]
fn c15_sessions_that_an_administrator_ends() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    market::create(&pair.source, &stage.name, 1_500);
    let writers = market::write(&pair.source, &stage.name, Load::default());
    let mut run = stage.run(&[]);
    stage.wait_rows(&mut run, 1);
    let mut administrator = mariadb::connect(&stage.target);
    let end_all = |administrator: &mut _| {
        let others = "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND COMMAND <> 'Daemon'";
        let ids = mariadb::list(administrator, others);
        // In one block, as one may have ended by itself by then.
        let kills: String = ids.iter().map(|id| format!("KILL {id};")).collect();
        let block =
            format!("BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END; {kills} END");
        if !ids.is_empty() {
            mariadb::run(administrator, &block);
        }
        ids.len()
    };
    let mut ended = 0;
    for pause_ms in [100, 300, 500, 700, 900] {
        ended += end_all(&mut administrator);
        sleep(Duration::from_millis(pause_ms));
    }
    stage.wait_following(&mut run);
    for pause_ms in [900, 700, 500, 300, 900] {
        ended += end_all(&mut administrator);
        sleep(Duration::from_millis(pause_ms));
    }
    assert!(ended > 5, "only {ended} sessions were ended");
    assert!(run.running(), "a lost session is had again\n{}", run.err());
    writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
}

/// Everything that a statement's meaning or a session's life hangs on, set otherwise.
#[test]
fn v01_the_servers_own_settings_do_not_matter() {
    let odd = [
        ("sql-mode", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,PAD_CHAR_TO_FULL_LENGTH"),
        ("character-set-server", "latin1"),
        ("collation-server", "latin1_german2_ci"),
        ("default-time-zone", "+05:30"),
        ("transaction-isolation", "SERIALIZABLE"),
        ("autocommit", "OFF"),
        ("explicit-defaults-for-timestamp", "OFF"),
        ("innodb-lock-wait-timeout", "1"),
        ("lock-wait-timeout", "1"),
        ("wait-timeout", "5"),
        ("interactive-timeout", "5"),
        ("net-read-timeout", "1"),
        ("max-statement-time", "5"),
        ("completion-type", "RELEASE"),
    ];
    let target = odd.iter().fold(Server::builder(), |builder, (name, value)| builder.setting(name, value));
    let pair = Pair::of(Server::builder(), target);
    let stage = pair.stage(CROSSFADE);
    on(
        &stage.source,
        "CREATE TABLE t (id INT PRIMARY KEY, stamp TIMESTAMP NOT NULL, at TIMESTAMP(6) NULL, day DATETIME DEFAULT '2001-01-01', padded CHAR(9),
            note TEXT, data BLOB);
         INSERT INTO t VALUES (1, '2026-01-01', '2026-10-25 00:30:00.000001', '2026-02-03', 'ab', 'back\\\\slash ''quoted'' \\\\N \"double\" || é😀', x'5c00ff0a09'),
            (2, '2026-01-01', NULL, '0000-00-00', '', '', '')",
    );
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    on(&stage.source, "INSERT INTO t SELECT id + 10, stamp, at, day, padded, note, data FROM t");
    // Silent for longer than the server lets a session be silent.
    sleep(Duration::from_secs(8));
    on(&stage.source, "UPDATE t SET note = CONCAT(note, padded) WHERE id > 10; DELETE FROM t WHERE id = 2");
    sleep(Duration::from_secs(1));
    assert!(run.running(), "{}", run.err());
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}

/// A migration from a sound server into one with these settings, with rows by copy and by log.
fn into(settings: &[(&str, &str)]) -> (Pair, Stage) {
    let target =
        settings.iter().fold(Server::builder(), |builder, (name, value)| builder.setting(name, value));
    let pair = Pair::of(Server::builder(), target);
    let stage = pair.stage(CROSSFADE);
    on(&stage.source, ROWS);
    (pair, stage)
}

/// InnoDB takes no statement into such a log from a session that reads what is committed.
#[test]
fn a_target_that_logs_statements() {
    let (_pair, stage) = into(&[("binlog-format", "STATEMENT")]);
    carried_or_refused(&stage, &["binlog_format"]);
    on(&stage.source, "UPDATE t SET value = 1; DELETE FROM t WHERE id = 5");
    carried_or_refused(&stage, &["binlog_format"]);
}

#[test]
fn a_target_that_logs_nothing() {
    let (_pair, stage) = into(&[("skip-log-bin", "1")]);
    stage.caught_up();
    on(&stage.source, "UPDATE t SET value = 1; DELETE FROM t WHERE id = 5");
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn a_target_that_takes_no_local_files() {
    let (_pair, stage) = into(&[("local-infile", "OFF")]);
    carried_or_refused(&stage, &["local_infile"]);
}

/// What is longer than a packet may be is carried in pieces, or refused by name; it is not tried for ever.
#[test]
fn c13_values_longer_than_the_targets_packets() {
    for by_log in [false, true] {
        let (_pair, stage) = into(&[("max-allowed-packet", "1M")]);
        if by_log {
            stage.caught_up();
        }
        on(&stage.source, "INSERT INTO long_ones VALUES (2, REPEAT('x', 3000000))");
        carried_or_refused(&stage, &["max_allowed_packet"]);
    }
}

#[test]
fn a_user_with_rights_on_two_databases_alone() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    on(&stage.source, ROWS);
    let moved = format!("{}_moved", stage.name);
    pair.target.run(
        "",
        &["CREATE USER mover@'%' IDENTIFIED BY 's3cret'", &format!("GRANT ALL ON {moved}.* TO mover@'%'")],
    );
    let direct = stage.target.clone();
    let stage = stage.via(None, Some(direct.replace("root@", "mover:s3cret@")));
    let said = refused(caught_up(&stage), &["crossfade", "GRANT"]);
    assert!(!format!("{}{}", said.stdout, said.stderr).contains("s3cret"), "the password is shown\n{said}");
    pair.target.run("", &["GRANT ALL ON crossfade.* TO mover@'%'"]);
    stage.caught_up();
    on(&stage.source, "UPDATE t SET value = 1; DELETE FROM t WHERE id = 5");
    let mut old = stage.run(&[]);
    // Not by its status, which is still the one of the run before.
    on(&stage.source, "INSERT INTO t VALUES (-2, 1, 'early')");
    wait::until("it has applied a change", wait::LONG, || {
        (ask(&direct, "SELECT COUNT(*) FROM t WHERE id = -2") == "1").then_some(())
    });
    assert!(old.running(), "{}", old.err());
    old.pause();
    stage.run_command(&["--until", "caught-up", "--take-over"]).output().assert_code(0);
    old.resume();
    // With nothing to do it has no reason to look who owns the migration.
    on(&stage.source, "INSERT INTO t VALUES (-1, 1, 'late')");
    old.wait().assert_code(1).assert_says(&["CF-FENCED"]);
    stage.caught_up();
    let stage = stage.via(None, Some(direct));
    stage.assert_equal();
}
