//! From MariaDB to PostgreSQL: whole migrations under load, and what a MariaDB source may do to them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use testkit::mariadb::{self, Builder, Server, Stop};
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

    /// Tables whose keys only the server can order: without case and with padding, as decimals, by the number of a label, as
    /// UUIDs.
    fn ordered_by_the_server(self) -> Across {
        self.on_source(&[
            "CREATE TABLE word (k VARCHAR(40) COLLATE utf8mb4_general_ci PRIMARY KEY, n INT, note VARCHAR(40))",
            "CREATE TABLE price (amount DECIMAL(12,4), k VARCHAR(20) COLLATE utf8mb4_unicode_ci, n INT, PRIMARY KEY (amount, k))",
            "CREATE TABLE kind (k ENUM('zeta', 'alpha', 'mid'), n INT, note VARCHAR(40), PRIMARY KEY (k, n))",
            "CREATE TABLE ticket (k UUID PRIMARY KEY, n INT)",
            // 'b1', 'b1!' and, which comes before both, 'b1' with a tab behind it.
            "INSERT INTO word SELECT CONCAT(ELT(1 + seq % 4, 'straße ', 'Zebra ', 'äh ', 'b'), seq DIV 3, ELT(1 + seq % 3, '', '\\t', '!')), \
             seq, 'copied' FROM seq_1_to_10000",
            "INSERT INTO price SELECT seq % 50 / 16, ELT(1 + seq % 3, CONCAT('ß', seq), CONCAT('SS ', seq), seq), seq FROM seq_1_to_10000",
            "INSERT INTO kind SELECT 1 + seq % 3, seq, 'copied' FROM seq_1_to_10000",
            "INSERT INTO ticket SELECT UUID(), seq FROM seq_1_to_10000",
        ]);
        self
    }

    /// Writes to them until it is told to stop; how often it did.
    fn write_beside(&self, stop: &AtomicBool) -> usize {
        let mut client = self.source.client(NAME);
        let mut rounds = 0;
        while !stop.load(Ordering::SeqCst) {
            let n = rounds * 7 % 10_000;
            for statement in [
                format!("UPDATE word SET note = 'seen {rounds}' WHERE n % 500 = {}", rounds % 500),
                format!("UPDATE IGNORE word SET k = UPPER(k) WHERE n = {n}"),
                format!("UPDATE IGNORE word SET k = CONCAT('moved ', n) WHERE n = {n} + 1"),
                format!(
                    "INSERT IGNORE INTO word VALUES ('new {rounds}', {n}, NULL), ('new {rounds}\\t', {n}, NULL)"
                ),
                format!("UPDATE price SET amount = amount + 0.0001 WHERE n % 500 = {}", rounds % 500),
                format!("INSERT INTO price VALUES (-{rounds}, 'ss', {n})"),
                format!("UPDATE IGNORE kind SET k = 'alpha' WHERE n = {n}"),
                format!("INSERT INTO kind VALUES ('zeta', {}, 'new')", 20_000 + rounds),
                format!("DELETE FROM kind WHERE n = {n} + 2"),
                format!("INSERT INTO ticket VALUES (UUID(), {n})"),
                format!("DELETE FROM ticket WHERE n = {n} + 3"),
            ] {
                mariadb::run(&mut client, &statement);
            }
            rounds += 1;
        }
        rounds
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

/// MariaDB keeps one variable for what it tells all of them, so that answers get mixed up.
#[test]
fn c02_others_ask_for_the_place_of_their_snapshots_as_well() {
    let across = Across::start();
    across.on_source(&[
        "CREATE TABLE t (id INT PRIMARY KEY, n INT, note TEXT)",
        "INSERT INTO t SELECT seq, 0, 'note' FROM seq_1_to_30000",
    ]);
    let is_over = AtomicBool::new(false);
    let ask = &|is_dump: bool| {
        let mut other = across.source.client(NAME);
        while !is_over.load(Ordering::Relaxed) {
            if is_dump {
                mariadb::run(&mut other, "START TRANSACTION WITH CONSISTENT SNAPSHOT");
            }
            (0..5).for_each(|_| mariadb::run(&mut other, "SHOW STATUS LIKE 'binlog_snapshot_%'"));
        }
    };
    thread::scope(|scope| {
        // As a dump does, and as a monitor.
        for is_dump in [true, true, true, false] {
            scope.spawn(move || ask(is_dump));
        }
        // Each transaction has a row in each chunk.
        let load = Load { writers: 2, pause_ms_max: 1, ..Load::default() };
        let writers = market::repeat(&across.source, NAME, load, |rng| {
            vec![format!("UPDATE t SET n = n + 1 WHERE id % 1000 = {}", rng.u32(0..1000))]
        });
        let copied = across.stage.run_command(&["--until", "copied"]).output();
        writers.stop();
        is_over.store(true, Ordering::Relaxed);
        copied.assert_code(0);
    });
    across.stage.caught_up();
    across.stage.assert_equal();
}

#[test]
fn v01_a_limit_that_the_server_puts_on_each_select_cuts_nothing_short() {
    let across = Across::start().table();
    across.on_source(&["SET GLOBAL sql_select_limit = 1"]);
    across.stage.caught_up();
    across.on_source(&["SET GLOBAL sql_select_limit = DEFAULT"]);
    across.stage.assert_equal();
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

/// A definition is locked while a chunk is read, and not until the snapshot is given up.
#[test]
fn c08_a_table_that_was_read_may_be_emptied_before_the_wave_is_over() {
    let across = Across::start();
    across.on_source(&[
        "CREATE TABLE first (k VARCHAR(40) COLLATE utf8mb4_general_ci PRIMARY KEY, note VARCHAR(100))",
        "INSERT INTO first SELECT MD5(seq), REPEAT('x', 100) FROM seq_1_to_30000",
        // Smaller, and so read after it.
        "CREATE TABLE last (k VARCHAR(40) COLLATE utf8mb4_general_ci PRIMARY KEY)",
        "INSERT INTO last SELECT MD5(seq) FROM seq_1_to_100",
    ]);
    let mut run = across.stage.run(&["--until", "caught-up"]);
    let mut target = postgres::connect(&across.stage.target);
    wait::until("the tables are created", wait::LONG, || {
        postgres::run(&mut target, "BEGIN");
        let locked = target.simple_query("LOCK TABLE market.last IN ACCESS EXCLUSIVE MODE").is_ok();
        if !locked {
            postgres::run(&mut target, "ROLLBACK");
        }
        locked.then_some(())
    });
    across.stage.wait_rows(&mut run, 30_000);
    let read = target.query_one("SELECT count(*) FROM market.last", &[]).expect("count the rows");
    assert_eq!(read.get::<_, i64>(0), 0, "the wave is over before it is looked at");
    across.on_source(&["SET lock_wait_timeout = 5", "TRUNCATE TABLE first"]);
    postgres::run(&mut target, "COMMIT");
    run.wait().assert_code(0);
    across.stage.caught_up();
    assert_eq!(across.stage.assert_equal().rows(), 100);
}

#[test]
fn c10_keys_that_only_the_server_orders() {
    let across = Across::start().ordered_by_the_server();
    let stop = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let writer = scope.spawn(|| across.write_beside(&stop));
        thread::sleep(Duration::from_millis(300));
        across.stage.copied();
        stop.store(true, Ordering::SeqCst);
        writer.join().expect("the writer panicked")
    });
    let status = across.stage.status().expect("a status");
    // Of a thousand rows each, as far as the server's estimates are right.
    assert!(status["chunks_loaded"].as_u64() >= Some(20), "{status}");
    across.stage.caught_up();
    let report = across.stage.assert_equal();
    assert!(rounds > 5 && report.rows() > 39_000, "{rounds} rounds\n{report}");
}

/// The borders of its chunks go with the process that had found them.
#[test]
fn p01_killed_while_keys_are_walked_that_only_the_server_orders() {
    let across = Across::start().ordered_by_the_server();
    for rows in [2_000, 12_000] {
        let mut run = across.stage.run(&[]);
        across.stage.wait_rows(&mut run, rows);
        run.kill();
        across.on_source(&[
            "DELETE FROM word WHERE n % 7 = 0",
            "INSERT IGNORE INTO word SELECT CONCAT(k, ' again'), n, 'new' FROM word WHERE n % 10 = 0",
            "UPDATE kind SET note = 'seen' WHERE n % 3 = 0",
        ]);
    }
    across.stage.caught_up();
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
        "CREATE TABLE flagged (flags SET('1', '2', '3', '4', '5', '6', '7', '8', '9') PRIMARY KEY)",
        "CREATE TABLE named (name VARCHAR(9), kind ENUM('b', 'a'), PRIMARY KEY (name, kind))",
        "CREATE VIEW seen AS SELECT id FROM t",
        "CREATE TABLE bare (word VARCHAR(9), text TEXT UNIQUE)",
    ]);
    let told = across.stage.command("check").output();
    let told = told.assert_code(2).assert_says(&[
        "MY-ENGINE",
        "market.old",
        "ENGINE = Aria",
        "MY-NO-KEY",
        "MY-KEY-ORDER",
        "market.flagged",
        "MY-LEFT-OUT",
        "view seen",
        "MY-DURABLE",
        "MY-HASH-UNIQUE",
        "market.bare",
    ]);
    assert!(!told.stdout.contains("market.named"), "it is copied in chunks\n{told}");
    assert!(!told.stdout.contains("MY-LOCK"), "root may leave the log\n{told}");
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
