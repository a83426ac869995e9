//! The hazards of SQLite as a source: one file for all of them, as each needs only files.

#![expect(clippy::unwrap_used, reason = "a fault in a test is a failed test")]

use std::fs;
use std::path::PathBuf;

use rusqlite::Connection;
use testkit::postgres::Server;
use testkit::{Folder, Load, Stage, till};

const CROSSFADE: &str = env!("CARGO_BIN_EXE_crossfade");

/// A migration from one file to another.
struct Files {
    folder: Folder,
    stage: Stage,
}

impl Files {
    fn new(setup: &str) -> Files {
        let folder = Folder::new("sqlite");
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let (source, target) = (path("source.db"), path("target.db"));
        let stage = Stage::new(CROSSFADE, "files", format!("sqlite:{source}"), format!("sqlite:{target}"));
        let files = Files { folder, stage };
        files.on_source(setup);
        files
    }

    fn source(&self) -> PathBuf {
        self.folder.join("source.db")
    }

    fn target(&self) -> PathBuf {
        self.folder.join("target.db")
    }

    fn on_source(&self, sql: &str) {
        on(&self.source(), sql);
    }

    /// A copy of a file and what is beside it, into another.
    fn copy(&self, from: &str, to: &str) {
        for end in ["", "-wal", "-shm"] {
            let (from, to) =
                (self.folder.join(format!("{from}{end}")), self.folder.join(format!("{to}{end}")));
            if to.exists() {
                fs::remove_file(&to).unwrap();
            }
            if from.exists() {
                fs::copy(&from, &to).unwrap();
            }
        }
    }
}

#[track_caller]
fn on(path: &std::path::Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
}

/// A table is copied, changes are committed while nobody looks, and once more while the migration follows.
fn check(setup: &str, changes: &[&str]) {
    for mode in ["catch-up", "strict"] {
        let files = Files::new(setup);
        let Files { stage, .. } = &files;
        let flags = ["--apply", mode];
        stage.run_command(&flags).args(["--until", "copied"]).output().assert_code(0);
        changes.iter().for_each(|change| files.on_source(change));
        stage.run_command(&flags).args(["--until", "caught-up"]).output().assert_code(0);
        stage.assert_equal();

        let files = Files::new(setup);
        let Files { stage, .. } = &files;
        let mut run = stage.run(&flags);
        stage.wait_following(&mut run);
        changes.iter().for_each(|change| files.on_source(change));
        run.terminate().assert_code(0);
        stage.run_command(&flags).args(["--until", "caught-up"]).output().assert_code(0);
        stage.assert_equal();
    }
}

const SERIES: &str = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 2000)";

fn plain() -> String {
    format!(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, value INTEGER, note TEXT);
         {SERIES} INSERT INTO t SELECT n, 0, printf('%.100c', 'x') FROM s"
    )
}

#[test]
fn c02_every_transaction_counts_once_under_many_cuts() {
    let files = Files::new(&plain());
    let source = files.source().to_str().unwrap().to_owned();
    till::create(&source, 500);
    let Files { stage, .. } = files;
    let stage = stage.many_cuts();
    let writers = till::write(&source, Load { truncate: true, ..Load::default() });
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn c07_rows_move_between_chunks_and_the_file_is_vacuumed() {
    let files = Files::new(&format!(
        "{}; CREATE TABLE keyless (a, b); {SERIES} INSERT INTO keyless SELECT n % 9, n FROM s",
        plain()
    ));
    let source = files.source();
    let Files { stage, .. } = files;
    let stage = stage.many_cuts();
    stage.run_into("chunk.after_commit:3").assert_died();
    on(
        &source,
        "UPDATE t SET id = 5000 - id WHERE id < 700; UPDATE t SET id = -id WHERE id > 4600; DELETE FROM t WHERE id = -4700; DELETE FROM keyless WHERE b % 3 = 0; VACUUM",
    );
    stage.run_into("chunk.after_commit:3");
    on(&source, "UPDATE t SET id = 20000 - id WHERE id < 0; VACUUM");
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn c08_the_file_is_vacuumed_during_the_copy() {
    let files = Files::new(&format!(
        "CREATE TABLE keyless (a, b); {SERIES} INSERT INTO keyless SELECT n % 9, n FROM s; DELETE FROM keyless WHERE b % 2 = 0"
    ));
    files.stage.run_into("wave.after_cut").assert_died();
    files.on_source("VACUUM; DELETE FROM keyless WHERE b < 50");
    files.stage.caught_up();
    files.stage.assert_equal();
}

#[test]
fn c09_keys_at_the_edges() {
    check(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (-9223372036854775808, 'min'), (0, 'zero'), (9223372036854775807, 'max'), (1099511627776, 'jump')",
        &[
            "INSERT INTO t VALUES (-1, 'below')",
            "UPDATE t SET id = 9223372036854775806 WHERE v = 'max'",
            "DELETE FROM t WHERE id < -1",
        ],
    );
}

#[test]
fn c10_text_keys_that_a_collation_equates() {
    check(
        "CREATE TABLE t (name TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES ('Ada', 1), ('bob', 2), ('Cy ', 3);
         CREATE TABLE r (name TEXT COLLATE RTRIM PRIMARY KEY NOT NULL, v) WITHOUT ROWID; INSERT INTO r VALUES ('x  ', 1), ('y', 2)",
        &["UPDATE t SET name = 'ADA' WHERE name = 'ada'", "INSERT OR REPLACE INTO t VALUES ('BOB', 9)", "UPDATE r SET name = 'x' WHERE v = 1", "DELETE FROM t WHERE name = 'cy '"],
    );
}

#[test]
fn c12_killed_around_a_chunks_commit() {
    let files = Files::new(&plain());
    let source = files.source();
    let stage = files.stage.many_cuts();
    for round in 1..=3 {
        for point in ["chunk.before_commit", "chunk.after_commit"] {
            stage.run_into(&format!("{point}:{round}"));
            on(&source, "UPDATE t SET value = value + 1, id = id + 3000 WHERE id % 50 = 1 AND id < 3000");
        }
    }
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn c13_empty_tiny_late_and_strangely_named_tables() {
    check(
        "CREATE TABLE empty (id INTEGER PRIMARY KEY); CREATE TABLE one (id INTEGER PRIMARY KEY, v); INSERT INTO one VALUES (1, zeroblob(9000000));
         CREATE TABLE \"sel'ect; --\" (\"Key.\" INTEGER PRIMARY KEY, \"öäü \"\"q\"\"\" TEXT); INSERT INTO \"sel'ect; --\" VALUES (1, 'it''s')",
        &["INSERT INTO empty VALUES (7)", "UPDATE one SET v = zeroblob(8000000)", "UPDATE \"sel'ect; --\" SET \"Key.\" = 2"],
    );
}

#[test]
fn c14_without_a_key_and_with_equal_rows() {
    check(
        "CREATE TABLE k (a, b); INSERT INTO k VALUES (1, 'x'), (1, 'x'), (1, 'x'), (NULL, NULL), (NULL, NULL), (1.0, '1'), ('1', 1)",
        &[
            "DELETE FROM k WHERE rowid = 2",
            "UPDATE k SET b = 'y' WHERE rowid = 1",
            "DELETE FROM k WHERE rowid = 4",
            "UPDATE k SET a = NULL WHERE rowid = 7",
        ],
    );
}

#[test]
fn t03_one_key_is_inserted_updated_moved_deleted_and_inserted_again() {
    let steps = [
        "INSERT INTO t VALUES (9000, 1, 'new')",
        "UPDATE t SET value = 2 WHERE id = 9000",
        "UPDATE t SET id = 9001 WHERE id = 9000",
        "DELETE FROM t WHERE id = 9001",
        "INSERT INTO t VALUES (9000, 3, 'again')",
        "INSERT OR REPLACE INTO t VALUES (9000, 4, 'replaced')",
    ];
    let all = format!("BEGIN; {}; COMMIT; DELETE FROM t WHERE id = 9000", steps.join("; "));
    check(&plain(), &[&[&*all], &steps[..]].concat());
}

#[test]
fn t05_generated_columns() {
    check(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, twice AS (a * 2) STORED, half AS (a / 2) VIRTUAL); INSERT INTO t (id, a) VALUES (1, 10), (2, 20)",
        &["UPDATE t SET a = 7", "INSERT INTO t (id, a) VALUES (3, 30)", "DELETE FROM t WHERE id = 2"],
    );
}

#[test]
fn a01_unique_values_change_places() {
    check(SEATS, SWAPS);
}

const SEATS: &str = "CREATE TABLE seat (id INTEGER PRIMARY KEY, code TEXT UNIQUE, live INT DEFAULT 1); CREATE UNIQUE INDEX seat_lower ON seat (lower(code)) WHERE live;
    INSERT INTO seat (id, code) VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e')";

const SWAPS: &[&str] = &[
    "BEGIN; UPDATE seat SET code = 'tmp' WHERE id = 1; UPDATE seat SET code = 'a' WHERE id = 2; UPDATE seat SET code = 'b' WHERE id = 1; COMMIT",
    "BEGIN; UPDATE seat SET code = NULL WHERE id = 3; UPDATE seat SET code = 'c' WHERE id = 4; UPDATE seat SET code = 'd' WHERE id = 3; COMMIT",
    "DELETE FROM seat WHERE id = 5",
    "INSERT INTO seat (id, code) VALUES (50, 'e')",
    "INSERT OR REPLACE INTO seat (id, code) VALUES (60, 'a')",
];

#[test]
fn a02_a_unique_value_freed_under_one_key_and_taken_under_another() {
    check(
        SEATS,
        &[
            "DELETE FROM seat WHERE id = 1",
            "INSERT INTO seat (id, code) VALUES (9, 'a')",
            "UPDATE seat SET live = 0, code = 'x' WHERE id = 2",
            "UPDATE seat SET code = 'b' WHERE id = 3",
        ],
    );
}

#[test]
fn a03_parent_and_child_with_cascades() {
    check(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (id INTEGER PRIMARY KEY, p INT REFERENCES parent ON DELETE CASCADE, f INT REFERENCES parent ON DELETE SET NULL);
         INSERT INTO parent VALUES (1), (2), (3); INSERT INTO child VALUES (1, 1, 2), (2, 2, 1), (3, 3, NULL)",
        &["PRAGMA foreign_keys = ON; DELETE FROM parent WHERE id = 1", "PRAGMA foreign_keys = ON; BEGIN; PRAGMA defer_foreign_keys = ON; INSERT INTO child VALUES (9, 9, 9); INSERT INTO parent VALUES (9); COMMIT"],
    );
}

#[test]
fn a04_a_huge_transaction_and_one_hot_row() {
    let hot: String = (0..3000).map(|_| "UPDATE t SET value = value + 1 WHERE id = 7;").collect();
    check(
        &plain(),
        &[
            "BEGIN; UPDATE t SET value = -1; UPDATE t SET id = id + 100000; ROLLBACK",
            "UPDATE t SET value = value + 1; UPDATE t SET note = 'all'",
            &format!("BEGIN; {hot} COMMIT"),
        ],
    );
}

#[test]
fn a06_one_hot_row_in_transactions_of_its_own() {
    let hot: Vec<String> = (0..300).map(|n| format!("UPDATE t SET value = {n} WHERE id = 7")).collect();
    check(&plain(), &hot.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a05_all_rows_deleted_and_the_same_keys_again() {
    check(
        &plain(),
        &[
            "DELETE FROM t",
            "INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b')",
            "BEGIN; DELETE FROM t; INSERT INTO t VALUES (1, 9, 'c'); COMMIT",
            "BEGIN; DELETE FROM t; ROLLBACK",
        ],
    );
}

#[test]
fn a07_the_sources_triggers_do_not_act_twice() {
    check(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v INT); CREATE TABLE trail (id INTEGER PRIMARY KEY, t INT);
         CREATE TRIGGER note AFTER UPDATE ON t BEGIN INSERT INTO trail (t) VALUES (new.id); UPDATE t SET v = v + 100 WHERE id = new.id AND v < 100; END; INSERT INTO t VALUES (1, 1), (2, 2)",
        &["UPDATE t SET v = 5", "UPDATE t SET v = 500 WHERE id = 1"],
    );
}

#[test]
fn a08_a_rogue_writer_on_the_target_raises_an_alarm() {
    for (rogue, change) in [
        ("DELETE FROM t WHERE id = 5", "UPDATE t SET value = 1 WHERE id = 5"),
        ("DELETE FROM t WHERE id = 5", "DELETE FROM t WHERE id = 5"),
        ("INSERT INTO t VALUES (9999, 0, '')", "INSERT INTO t VALUES (9999, 1, '')"),
    ] {
        let files = Files::new(&plain());
        files.stage.caught_up();
        on(&files.target(), rogue);
        files.on_source(change);
        files.stage.run_command(&["--until", "caught-up"]).output().assert_code(2).assert_says(&["main.t"]);
    }
}

#[test]
fn a09_a_change_that_the_target_refuses_is_quarantined() {
    let server = Server::builder().without_fsync().start();
    let files = Files::new(&plain());
    let stage = Stage::new(CROSSFADE, "files", files.stage.source.clone(), server.url("postgres"));
    stage.caught_up();
    files.on_source("UPDATE t SET value = 'many' WHERE id = 5; UPDATE t SET value = 3 WHERE id = 6");
    stage.run_command(&["--until", "caught-up"]).output().assert_code(2).assert_says(&["value"]);
    files.on_source("UPDATE t SET value = 4 WHERE id = 7");
    stage.run_command(&["--until", "caught-up"]).output().assert_code(2).assert_says(&["held"]);
}

#[test]
fn p02_empty_and_rolled_back_transactions() {
    check(
        &plain(),
        &[
            "BEGIN IMMEDIATE; COMMIT",
            "BEGIN; UPDATE t SET value = 1; ROLLBACK",
            "BEGIN; SAVEPOINT s; UPDATE t SET value = 1; ROLLBACK TO s; COMMIT",
            "UPDATE t SET value = value WHERE id = 1",
            "UPDATE OR IGNORE t SET id = 2 WHERE id = 1",
        ],
    );
}

#[test]
fn p03_a_log_or_source_that_somebody_moved_is_refused() {
    for case in ["triggers", "log", "restored"] {
        let files = Files::new(&plain());
        files.stage.copied();
        files.copy("source.db", "kept.db");
        files.on_source("UPDATE t SET value = 1 WHERE id < 100");
        files.stage.caught_up();
        match case {
            "triggers" => files.on_source("DROP TRIGGER _crossfade_after_update_t; UPDATE t SET value = 2 WHERE id < 100"),
            "log" => files.on_source("DELETE FROM sqlite_sequence; DELETE FROM _crossfade_log; UPDATE t SET value = 2 WHERE id < 100"),
            _ => files.copy("kept.db", "source.db"),
        }
        files
            .stage
            .run_command(&["--until", "caught-up"])
            .output()
            .assert_code(1)
            .assert_says(&["CF-LOG-LOST", "hint:"]);
    }
}

#[test]
fn p04_a_flipped_bit_in_the_journal_stops_and_a_copy_goes_on() {
    let files = Files::new(&plain());
    files.stage.copied();
    for n in 0..30 {
        files.on_source(&format!("UPDATE t SET value = {n} WHERE id % 30 = {n}"));
    }
    files.stage.run_into("apply.before_commit").assert_died();
    let journal = fs::read_dir(files.stage.dir().join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let largest = journal.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let sound = fs::read(&largest).unwrap();
    let mut damaged = sound.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    fs::write(&largest, damaged).unwrap();
    files
        .stage
        .run_command(&["--until", "caught-up"])
        .output()
        .assert_code(1)
        .assert_says(&["CF-JOURNAL", "damaged"]);
    fs::write(&largest, sound).unwrap();
    files.stage.caught_up();
    files.stage.assert_equal();
}

#[test]
fn p05_a_paused_owner_that_wakes_after_a_takeover_does_no_harm() {
    let files = Files::new(&plain());
    let stage = &files.stage;
    let mut old = stage.run(&[]);
    stage.wait_following(&mut old);
    old.pause();
    files.on_source("UPDATE t SET value = 1 WHERE id < 100");
    stage.run_command(&["--until", "caught-up", "--take-over"]).output().assert_code(0);
    files.on_source("UPDATE t SET value = value + 1 WHERE id < 100");
    old.resume();
    old.wait().assert_code(1).assert_says(&["CF-FENCED"]);
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn p06_a_target_restored_between_two_runs_is_repaired_or_refused() {
    let files = Files::new(&plain());
    let stage = &files.stage;
    stage.copied();
    files.copy("target.db", "kept.db");
    for n in 0..3 {
        files.on_source(&format!(
            "UPDATE t SET value = value + 1 WHERE id < 100; INSERT INTO t VALUES (9000 + {n}, 1, '')"
        ));
        stage.caught_up();
    }
    files.copy("kept.db", "target.db");
    for _ in 0..10 {
        let finished = stage.run_command(&["--until", "caught-up"]).output();
        let said = format!("{}{}", finished.stdout, finished.stderr);
        match finished.code() {
            Some(0) => {
                stage.assert_equal();
                return;
            }
            _ if said.contains("CF-FENCED") => {}
            _ => {
                finished.assert_code(1).assert_says(&["CF-JOURNAL", "hint:"]);
                return;
            }
        }
    }
    panic!("it never decides");
}

#[test]
fn p08_the_files_are_locked_for_seconds() {
    let files = Files::new(&plain());
    let stage = &files.stage;
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    for path in [files.source(), files.target()] {
        let connection = Connection::open(path).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        std::thread::sleep(std::time::Duration::from_secs(3));
        connection.execute_batch("ROLLBACK").unwrap();
        files.on_source("UPDATE t SET value = value + 1");
    }
    assert!(run.running(), "a lock is waited out\n{}", run.err());
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn s01_the_schema_changes_in_every_phase() {
    for (change, rows) in [
        ("ALTER TABLE t ADD COLUMN c DEFAULT 7", "UPDATE t SET c = 8 WHERE id < 5"),
        (
            "ALTER TABLE t DROP COLUMN note; ALTER TABLE t ADD COLUMN note INT",
            "UPDATE t SET note = 1 WHERE id < 5",
        ),
        ("ALTER TABLE t RENAME COLUMN value TO x", "UPDATE t SET x = 1 WHERE id < 5"),
        ("ALTER TABLE t RENAME TO u", "UPDATE u SET value = 1"),
        ("CREATE UNIQUE INDEX t_note ON t (note, id)", "INSERT OR REPLACE INTO t VALUES (1, 1, 'r')"),
        ("CREATE TABLE u (id INTEGER PRIMARY KEY)", "INSERT INTO u VALUES (1)"),
    ] {
        for copied in [false, true] {
            let files = Files::new(&plain());
            match copied {
                true => files.stage.caught_up(),
                false => files.stage.run_into("wave.after_cut").assert_died(),
            };
            // SQLite refuses to drop a column that a trigger names: then nothing has changed.
            if let Err(error) = Connection::open(files.source()).unwrap().execute_batch(change) {
                assert!(error.to_string().contains("error in trigger _crossfade_"), "{change}: {error}");
                files.stage.caught_up();
                files.stage.assert_equal();
                continue;
            }
            // Our triggers may make the statement fail: then it is refused before it does harm.
            let written = Connection::open(files.source()).unwrap().execute_batch(rows);
            let finished = files.stage.run_command(&["--until", "caught-up"]).output();
            match finished.code() {
                Some(0) => {
                    files.stage.assert_equal();
                }
                _ => {
                    finished.assert_code(1).assert_says(&["CF-SCHEMA"]);
                }
            }
            assert!(
                written.is_ok() || change.contains("RENAME") || change.contains("DROP"),
                "{change}: {written:?}"
            );
        }
    }
}

#[test]
fn s02_autoincrement_is_not_behind() {
    let files = Files::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO t VALUES (500, 1), (1, 1); DELETE FROM t WHERE id = 500",
    );
    files.stage.copied();
    files.on_source("INSERT INTO t (v) VALUES (2); DELETE FROM t WHERE id = 501");
    files.stage.caught_up();
    files.stage.assert_equal();
    on(&files.target(), "INSERT INTO t (v) VALUES (3)");
    let id: i64 = Connection::open(files.target())
        .unwrap()
        .query_row("SELECT max(id) FROM t", [], |row| row.get(0))
        .unwrap();
    assert!(id > 501, "{id} has been given by the source already");
}

#[test]
fn s03_virtual_tables_are_named_and_views_are_copied() {
    let files = Files::new(
        "CREATE VIRTUAL TABLE words USING fts5(body); INSERT INTO words VALUES ('x'); CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1); CREATE VIEW seen AS SELECT id FROM t",
    );
    files.stage.command("check").output().assert_says(&["SQ-VIRTUAL-TABLE", "words"]);
    files.stage.caught_up();
    on(&files.target(), "SELECT * FROM seen");
}

const ODD: &[&str] = &[
    "0.1",
    "-0.0",
    "9e999",
    "-9e999",
    "5e-324",
    "1.0",
    "1",
    "9223372036854775807",
    "-9223372036854775808",
    "1e15",
    "2.2250738585072011e-308",
    "''",
    "x''",
    "NULL",
    "'NULL'",
    "'a  '",
    "CAST(x'6100' AS TEXT)",
    "CAST(x'ff00c328' AS TEXT)",
    "'é😀'",
    "x'00ff0000'",
    "zeroblob(70000)",
    "'1'",
    "'1.0'",
    "'{\"b\":1, \"a\":2}'",
    "jsonb('[1, {\"a\": 1e2}]')",
];

fn values(column: &str) -> (String, String) {
    let rows: Vec<String> = ODD.iter().enumerate().map(|(at, value)| format!("({at}, {value})")).collect();
    (
        format!("CREATE TABLE v (id INTEGER PRIMARY KEY, v {column}); INSERT INTO v VALUES {}", rows.join(", ")),
        "INSERT INTO v SELECT id + 1000, v FROM v; UPDATE v SET v = (SELECT v FROM v x WHERE x.id = v.id - 1000) WHERE id >= 1000".to_owned(),
    )
}

fn alike(columns: &[&str]) {
    for column in columns {
        let (setup, again) = values(column);
        check(&setup, &[&again]);
    }
}

#[test]
fn v01_numbers_are_alike_by_copy_and_by_log() {
    alike(&["REAL", "INTEGER", "NUMERIC"]);
}

#[test]
fn v02_text_and_bytes_are_alike_by_copy_and_by_log() {
    alike(&["TEXT", "BLOB"]);
}

#[test]
fn v03_documents_and_any_value_are_alike_by_copy_and_by_log() {
    alike(&["JSON", "", "ANY"]);
}

#[test]
fn v04_types_that_only_have_a_name_are_alike_by_copy_and_by_log() {
    alike(&["TINYINT(1)", "UNSIGNED BIG INT", "DECIMAL(65,30)", "DATETIME", "BOOLEAN"]);
}
