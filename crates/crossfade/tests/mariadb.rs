//! From MariaDB to PostgreSQL: whole migrations under load, and what a MariaDB source may do to them.

use std::thread;
use std::time::Duration;

use testkit::mariadb::{Builder, Server, Stop};
use testkit::{Load, Stage, market, postgres, wait};

const CROSSFADE: &str = env!("CARGO_BIN_EXE_crossfade");

/// A MariaDB, a PostgreSQL, and a migration from one to the other.
struct Across {
    source: Server,
    _target: postgres::Server,
    stage: Stage,
}

/// The source's database, and so the schema on the target.
const NAME: &str = "market";

impl Across {
    fn start() -> Across {
        Across::of(Server::builder())
    }

    fn of(source: Builder) -> Across {
        let source = source.without_fsync().start();
        let target = postgres::Server::builder().without_fsync().start();
        source.create_database(NAME);
        target.create_database(NAME);
        let stage = Stage::new(CROSSFADE, NAME, source.url(NAME), target.url(NAME)).many_cuts();
        Across { source, _target: target, stage }
    }

    fn on_source(&self, statements: &[&str]) {
        self.source.run(NAME, statements);
    }

    /// Tables with rows that writers fight for.
    fn market(self) -> Across {
        market::create(&self.source, NAME, 500);
        self
    }

    /// One table with some rows.
    fn table(self) -> Across {
        self.on_source(&[
            "CREATE TABLE t (id INT PRIMARY KEY, note VARCHAR(40))",
            "INSERT INTO t SELECT seq, CONCAT('note ', seq) FROM seq_1_to_3000",
        ]);
        self
    }

    /// It follows, and stops at what the source does then, with these words.
    #[track_caller]
    fn stops_at(&self, statements: &[&str], words: &[&str]) {
        self.stage.caught_up();
        self.on_source(statements);
        let stopped = self.stage.run_command(&["--until", "caught-up"]).output();
        stopped.assert_code(1).assert_says(words);
    }
}

/// A transaction that is in the log and waits for a replica, while the log has gone on to another file: no snapshot shows it,
/// and the place that the server gives lies behind it.
#[test]
fn c01_a_commit_that_waits_for_a_replica_is_not_passed_over() {
    let across = Across::start();
    across.on_source(&[
        "CREATE TABLE t (id INT PRIMARY KEY, note TEXT)",
        "INSERT INTO t SELECT seq, 'note' FROM seq_1_to_3000",
    ]);
    across.on_source(&[
        "SET GLOBAL rpl_semi_sync_master_wait_point = AFTER_SYNC",
        "SET GLOBAL rpl_semi_sync_master_timeout = 600000",
        "SET GLOBAL rpl_semi_sync_master_enabled = ON",
        "SET GLOBAL max_binlog_size = 4096",
    ]);
    let files = across.source.list("SHOW BINARY LOGS").len();
    thread::scope(|scope| {
        scope.spawn(|| across.on_source(&["INSERT INTO t VALUES (9000, REPEAT('x', 9000))"]));
        wait::until("the log goes on to another file", wait::LONG, || {
            (across.source.list("SHOW BINARY LOGS").len() > files).then_some(())
        });
        let run = across.stage.run(&["--until", "copied"]);
        thread::sleep(Duration::from_secs(4));
        across.on_source(&["SET GLOBAL rpl_semi_sync_master_enabled = OFF"]);
        run.wait().assert_code(0);
    });
    across.stage.caught_up();
    assert_eq!(across.stage.assert_equal().rows(), 3001);
}

/// Nothing has been committed since: the place lies behind the last transaction of the file before, whose end is not known.
#[test]
fn c01_a_quiet_source_whose_log_has_gone_on() {
    let across = Across::start().table();
    across.on_source(&[
        "CREATE USER mover@'%' IDENTIFIED BY 's3cret'",
        "GRANT SELECT ON market.* TO mover@'%'",
        "GRANT REPLICATION SLAVE, BINLOG MONITOR, REPLICA MONITOR ON *.* TO mover@'%'",
        "FLUSH BINARY LOGS",
    ]);
    let url = format!("mariadb://mover:s3cret@127.0.0.1:{}/{NAME}", across.source.port());
    let across = Across { stage: across.stage.via(Some(url), None), ..across };
    let stopped = across.stage.run_command(&["--until", "caught-up"]).output();
    stopped.assert_code(1).assert_says(&[
        "could not fit a read to the log",
        "the next commit",
        "GRANT RELOAD",
    ]);
    across.on_source(&["GRANT RELOAD ON *.* TO mover@'%'", "FLUSH BINARY LOGS"]);
    across.stage.caught_up();
    across.source.run("", &["DROP USER mover@'%'"]);
    let across = Across { stage: across.stage.via(Some(across.source.url(NAME)), None), ..across };
    across.stage.assert_equal();
}

#[test]
fn c02_cuts_fit_the_log_under_load() {
    let across = Across::start().market();
    let writers =
        market::write(&across.source, NAME, Load { pause_ms_max: 3, truncate: true, ..Load::default() });
    across.stage.copied();
    thread::sleep(Duration::from_secs(1));
    let tally = writers.stop();
    across.stage.caught_up();
    let report = across.stage.assert_equal();
    assert!(tally.committed > 100 && report.rows() > 3_000, "{tally}\n{report}");
}

/// Without checksums events are shorter, and nothing else tells a whole one from the middle of another.
#[test]
fn c02_cuts_fit_a_log_without_checksums() {
    let across = Across::of(Server::builder().setting("binlog-checksum", "NONE")).market();
    // May not stop the commits for a moment: each cut must be found in the log.
    across.on_source(&[
        "CREATE USER mover@'%' IDENTIFIED BY 's3cret'",
        "GRANT SELECT ON `mar%`.* TO mover@'%'",
        "GRANT REPLICATION SLAVE, BINLOG MONITOR, REPLICA MONITOR ON *.* TO mover@'%'",
    ]);
    let url = format!("mariadb://mover:s3cret@127.0.0.1:{}/{NAME}", across.source.port());
    let across = Across { stage: across.stage.via(Some(url), None), ..across };
    let writers = market::write(&across.source, NAME, Load::default());
    across.stage.copied();
    writers.stop();
    across.stage.caught_up();
    let across = Across { stage: across.stage.via(Some(across.source.url(NAME)), None), ..across };
    across.stage.assert_equal();
}

#[test]
fn p01_killed_and_begun_again_under_load() {
    let mut across = Across::start().market();
    // No TRUNCATE: a server that is killed between emptying the table and logging that has lost it for its own replicas, too.
    let load = Load { pause_ms_max: 5, ..Load::default() };
    let writers = market::write(&across.source, NAME, load);
    for round in 0..8 {
        let run = across.stage.run(&[]);
        thread::sleep(Duration::from_millis(300 + 250 * round));
        run.kill();
        if round % 3 == 2 {
            across.source.restart(Stop::Kill);
        }
    }
    let run = across.stage.run(&[]);
    thread::sleep(Duration::from_secs(2));
    across.source.restart(Stop::Fast);
    thread::sleep(Duration::from_secs(2));
    run.kill();
    let tally = writers.stop();
    assert!(tally.committed > 100, "{tally}");
    across.stage.caught_up();
    across.stage.assert_equal();
}

#[test]
fn t04_a_session_that_leaves_columns_out_of_the_log_is_refused() {
    Across::start().table().stops_at(
        &["SET SESSION binlog_row_image = MINIMAL", "UPDATE t SET note = 'short' WHERE id = 1"],
        &["CF-SETUP", "market.t", "note", "binlog_row_image = FULL"],
    );
}

#[test]
fn a_session_that_logs_statements_is_refused() {
    Across::start().table().stops_at(
        &["SET SESSION binlog_format = STATEMENT", "UPDATE t SET note = 'told' WHERE id = 1"],
        &["CF-SCHEMA", "UPDATE t SET note", "binlog_format = ROW"],
    );
}

#[test]
fn s01_a_changed_table_is_named() {
    Across::start().table().stops_at(
        &["ALTER TABLE t ADD COLUMN more INT", "INSERT INTO t VALUES (9000, 'with more', 1)"],
        &["CF-SCHEMA", "market.t", "column more is new"],
    );
}

#[test]
fn s01_other_tables_may_change() {
    let across = Across::start().table();
    across.stage.caught_up();
    across.on_source(&[
        "CREATE TABLE other (id INT PRIMARY KEY)",
        "INSERT INTO other VALUES (1)",
        "DROP TABLE other",
    ]);
    across.on_source(&[
        "CREATE VIEW v AS SELECT id FROM t",
        "ANALYZE TABLE t",
        "INSERT INTO t VALUES (9000, 'after')",
    ]);
    across.on_source(&["DROP VIEW v"]);
    across.stage.caught_up();
    across.stage.assert_equal();
}

#[test]
fn a05_emptied_and_filled_again() {
    let across = Across::start().table();
    across.stage.caught_up();
    across.on_source(&["TRUNCATE TABLE t", "INSERT INTO t SELECT seq, 'anew' FROM seq_1_to_100"]);
    across.stage.caught_up();
    assert_eq!(across.stage.assert_equal().rows(), 100);
}

#[test]
fn p03_a_log_that_was_reset_is_refused() {
    let across = Across::start().table();
    across.stage.caught_up();
    across.on_source(&["RESET MASTER", "INSERT INTO t VALUES (9000, 'unseen')"]);
    let stopped = across.stage.run_command(&["--until", "caught-up"]).output();
    stopped.assert_code(1).assert_says(&["CF-LOG-LOST", "Begin the migration anew"]);
}

#[test]
fn p03_a_log_that_was_purged_is_refused() {
    let across = Across::start().table();
    across.stage.caught_up();
    across.on_source(&["FLUSH BINARY LOGS", "INSERT INTO t VALUES (9000, 'unseen')", "FLUSH BINARY LOGS"]);
    // A file that is being sent is not purged; the server notices only at its next word that nobody listens any more.
    wait::until("the log is purged", wait::LONG, || {
        across.on_source(&["PURGE BINARY LOGS TO 'binlog.000003'"]);
        (across.source.list("SHOW BINARY LOGS").len() == 1).then_some(())
    });
    let stopped = across.stage.run_command(&["--until", "caught-up"]).output();
    stopped.assert_code(1).assert_says(&["CF-LOG-LOST", "Begin the migration anew"]);
}

#[test]
fn p03_a_source_that_was_restored_is_refused() {
    let mut across = Across::start().table();
    across.source.keep();
    across.on_source(&["INSERT INTO t VALUES (9000, 'forgotten')"]);
    across.stage.caught_up();
    // Files of one name are told apart by the second in which they were begun.
    thread::sleep(Duration::from_millis(1100));
    across.source.go_back();
    // As many bytes as it has forgotten.
    across.on_source(&["INSERT INTO t VALUES (9001, 'forgotten')", "INSERT INTO t VALUES (9002, 'more')"]);
    let stopped = across.stage.run_command(&["--until", "caught-up"]).output();
    stopped.assert_code(1).assert_says(&["CF-LOG-LOST", "Begin the migration anew"]);
}

#[test]
fn p02_a_log_of_several_files_and_quiet_stretches() {
    let across = Across::start().table();
    across.stage.caught_up();
    for round in 0..5 {
        let insert = format!("INSERT INTO t VALUES ({}, 'round')", 9000 + round);
        // What is not ours, too: the position moves, the journal needs nothing.
        across.source.run(
            "",
            &[
                "CREATE DATABASE elsewhere",
                "CREATE TABLE elsewhere.t (id INT)",
                "INSERT INTO elsewhere.t VALUES (1)",
            ],
        );
        across.on_source(&[&insert, "FLUSH BINARY LOGS"]);
        across.source.run("", &["DROP DATABASE elsewhere"]);
        across.stage.caught_up();
        across.stage.assert_equal();
    }
}

#[test]
fn a03_what_the_server_does_not_log_is_refused() {
    let across = Across::start().table();
    across.on_source(&[
        "CREATE TABLE child (id INT PRIMARY KEY, t INT, FOREIGN KEY (t) REFERENCES t (id) ON UPDATE CASCADE)",
        "INSERT INTO child VALUES (1, 1)",
    ]);
    let told = across.stage.command("check").output();
    told.assert_says(&["MY-CASCADE-UPDATE", "ON UPDATE CASCADE", "market.child"]);
    across.stops_at(&["UPDATE t SET id = 100000 WHERE id = 1"], &["market.t", "column id", "ON UPDATE"]);

    let across = Across::start().table();
    across.on_source(&[
        "CREATE TABLE child (id INT PRIMARY KEY, t INT, FOREIGN KEY (t) REFERENCES t (id) ON DELETE CASCADE)",
    ]);
    let refused = across.stage.run_command(&["--until", "caught-up"]).output();
    refused.assert_code(2).assert_says(&["MY-CASCADE", "ON DELETE CASCADE", "market.child"]);
}

#[test]
fn check_names_what_stands_in_the_way() {
    let across = Across::of(Server::builder().setting("binlog-format", "MIXED")).table();
    let told = across.stage.command("check").output();
    told.assert_code(2).assert_says(&[
        "MY-FORMAT",
        "binlog_format = MIXED",
        "SET GLOBAL binlog_format = ROW",
    ]);

    let across = Across::start().table();
    across.on_source(&[
        "CREATE TABLE old (id INT PRIMARY KEY) ENGINE = Aria",
        "CREATE TABLE named (name VARCHAR(9) PRIMARY KEY)",
        "CREATE VIEW seen AS SELECT id FROM t",
        "CREATE TABLE bare (word VARCHAR(9), text TEXT UNIQUE)",
    ]);
    let told = across.stage.command("check").output();
    told.assert_code(2).assert_says(&[
        "MY-ENGINE",
        "market.old",
        "ENGINE = Aria",
        "MY-NO-KEY",
        "MY-KEY-ORDER",
        "market.named",
        "MY-LEFT-OUT",
        "view seen",
        "MY-DURABLE",
        "MY-HASH-UNIQUE",
        "market.bare",
    ]);
}

#[test]
fn c14_equal_rows_without_a_key() {
    let across = Across::start();
    across.on_source(&[
        "CREATE TABLE event (kind VARCHAR(20), at INT, weight FLOAT, note TEXT)",
        "INSERT INTO event SELECT CONCAT('kind ', seq % 5), seq % 3, seq / 3, IF(seq % 9, NULL, REPEAT(MD5(seq), 100)) FROM seq_1_to_300",
    ]);
    across.stage.caught_up();
    across.on_source(&[
        "UPDATE event SET at = at + 1 WHERE kind = 'kind 1' LIMIT 1",
        "UPDATE event SET at = at + 1 WHERE note IS NOT NULL LIMIT 3",
        "DELETE FROM event WHERE kind = 'kind 2' LIMIT 2",
        "INSERT INTO event SELECT 'equal', 1, 0.1, NULL FROM seq_1_to_3",
        "DELETE FROM event WHERE kind = 'equal' LIMIT 1",
    ]);
    across.stage.caught_up();
    across.stage.assert_equal();
}
