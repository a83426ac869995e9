//! T and A: changes that are hard to apply, in both modes.

use std::thread::sleep;
use std::time::Duration;

use testkit::mariadb::{self, Pair};
use testkit::{Load, Stage, market};

use crate::{CROSSFADE, MODES, ask, caught_up, check, on, refused};

const DOC: &str = "CREATE TABLE doc (id INT PRIMARY KEY, title VARCHAR(40), body LONGTEXT, extra LONGTEXT);
    INSERT INTO doc SELECT seq, 'title', REPEAT(MD5(seq), 100), REPEAT(MD5(seq), 200) FROM seq_1_to_200";

#[test]
fn t03_one_key_is_inserted_updated_moved_deleted_and_inserted_again() {
    let insert = "INSERT INTO doc VALUES (1000, 'new', REPEAT('x', 6000), REPEAT('x', 6000))";
    let again = "INSERT INTO doc VALUES (1000, 'again', REPEAT('y', 6000), NULL)";
    let (update, shift) =
        ("UPDATE doc SET title = 'partial' WHERE id = 1000", "UPDATE doc SET id = 1001 WHERE id = 1000");
    let (small, delete) =
        ("UPDATE doc SET title = 'moved' WHERE id = 1001", "DELETE FROM doc WHERE id = 1001");
    let all = [insert, update, shift, small, delete, again].join("; ");
    check(
        DOC,
        &[
            &all,
            "DELETE FROM doc WHERE id = 1000",
            insert,
            update,
            shift,
            small,
            delete,
            again,
            // An old row: moved and back, moved onto a freed key, deleted and inserted in one go.
            "UPDATE doc SET id = -7 WHERE id = 7",
            "UPDATE doc SET id = 7, title = 'back' WHERE id = -7",
            "DELETE FROM doc WHERE id = 8; UPDATE doc SET id = 8 WHERE id = 9; UPDATE doc SET id = 9 WHERE id = 10",
            "DELETE FROM doc WHERE id = 11; INSERT INTO doc (id, title) VALUES (11, 'fresh')",
            "REPLACE INTO doc VALUES (12, 'replaced', 'short', NULL)",
            "UPDATE doc SET id = id + 5000 WHERE id BETWEEN 100 AND 150",
            "UPDATE doc SET title = 'tail' WHERE id BETWEEN 5100 AND 5110",
        ],
    );
}

#[test]
fn t05_generated_invisible_and_self_updating_columns() {
    check(
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT, s VARCHAR(40), twice INT AS (a * 2) STORED, loud VARCHAR(60) AS (UPPER(s)) VIRTUAL,
            hidden INT INVISIBLE DEFAULT 7, touched TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
            moved DATETIME ON UPDATE CURRENT_TIMESTAMP, UNIQUE KEY (loud), KEY (twice));
         INSERT INTO t (a, s) SELECT seq, CONCAT('name ', seq) FROM seq_1_to_200",
        &[
            "INSERT INTO t (a, s, hidden) SELECT seq, CONCAT('late ', seq), seq FROM seq_1_to_50",
            "UPDATE t SET a = -a, s = CONCAT(s, '!') WHERE id < 20",
            // The time of the change is part of it: the target's own clock may not take its place.
            "UPDATE t SET touched = touched, a = 5 WHERE id = 30",
            "UPDATE t SET hidden = hidden + 1 WHERE id = 31",
            "DELETE FROM t WHERE id = 40; INSERT INTO t (id, a, s) VALUES (40, 5, 'back')",
        ],
    );
}

/// What is written is what is there: MariaDB counts such a row as found and not as changed, and it is no missing one.
#[test]
fn updates_to_equal_values_are_no_missing_rows() {
    check(
        "CREATE TABLE t (id INT PRIMARY KEY, value INT, note VARCHAR(20) UNIQUE, at DATETIME NULL ON UPDATE CURRENT_TIMESTAMP);
         INSERT INTO t (id, value, note) SELECT seq, seq, CONCAT('note ', seq) FROM seq_1_to_500",
        &[
            "UPDATE t SET value = value + 1, at = NULL; UPDATE t SET value = value - 1, at = NULL",
            "UPDATE t SET value = value + 1, at = NULL WHERE id < 100",
            "UPDATE t SET value = value - 1, at = NULL WHERE id < 100",
            "DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (5, 5, 'note 5', NULL)",
            "UPDATE t SET id = 1007, at = NULL WHERE id = 7",
            "UPDATE t SET id = 7, at = NULL WHERE id = 1007",
            "UPDATE t SET note = 'elsewhere', at = NULL WHERE id = 8; UPDATE t SET note = 'note 8', at = NULL WHERE id = 8",
        ],
    );
}

#[test]
fn a01_unique_values_change_places() {
    check(
        "CREATE TABLE seat (id INT PRIMARY KEY, code VARCHAR(40) UNIQUE, note TEXT);
         INSERT INTO seat SELECT seq, CONCAT('code ', seq), REPEAT('x', 3000) FROM seq_1_to_1500;
         CREATE TABLE place (id INT PRIMARY KEY, place INT NOT NULL UNIQUE, other INT UNIQUE);
         INSERT INTO place SELECT seq, seq, -seq FROM seq_1_to_1500;
         CREATE TABLE ticket (id INT PRIMARY KEY, seat VARCHAR(40) UNIQUE, FOREIGN KEY (seat) REFERENCES seat (code));
         INSERT INTO ticket SELECT seq, CONCAT('code ', seq) FROM seq_1_to_100",
        &[
            // Via a temporary value, in one transaction and in three.
            "UPDATE seat SET code = 'moving' WHERE id = 201; UPDATE seat SET code = 'code 201' WHERE id = 202;
             UPDATE seat SET code = 'code 202' WHERE id = 201",
            "UPDATE seat SET code = 'moving' WHERE id = 203",
            "UPDATE seat SET code = 'code 203' WHERE id = 204",
            "UPDATE seat SET code = 'code 204' WHERE id = 203",
            // Via NULL.
            "UPDATE seat SET code = NULL WHERE id = 205; UPDATE seat SET code = 'code 205' WHERE id = 206;
             UPDATE seat SET code = 'code 206' WHERE id = 205",
            // A rotation of a thousand rows, on two unique indexes at once.
            "UPDATE place SET place = -place, other = NULL WHERE id <= 1000;
             UPDATE place SET place = IF(id = 1000, 1, id + 1), other = IF(id = 1, -1000, 1 - id) WHERE id <= 1000",
            // Keys change places, too; and a key and a value crosswise.
            "UPDATE seat SET id = -1 WHERE id = 301; UPDATE seat SET id = 301 WHERE id = 302; UPDATE seat SET id = 302 WHERE id = -1",
            "UPDATE place SET id = -1, place = -1 WHERE id = 1301; UPDATE place SET id = 1301, place = 1301 WHERE id = 1302;
             UPDATE place SET id = 1302, place = 1302 WHERE id = -1",
            // Across two tables.
            "UPDATE ticket SET seat = NULL WHERE id IN (3, 4); UPDATE ticket SET seat = 'code 4' WHERE id = 3;
             UPDATE ticket SET seat = 'code 3' WHERE id = 4",
        ],
    );
}

#[test]
fn a01_a_unique_value_moves_from_a_copied_row_to_one_not_yet_copied() {
    let pair = Pair::start();
    for seed in 1..=2 {
        let stage = pair.stage(CROSSFADE).many_cuts();
        on(
            &stage.source,
            "CREATE TABLE seat (id INT PRIMARY KEY, code INT UNIQUE, note TEXT);
             INSERT INTO seat SELECT seq, seq, REPEAT('x', 200) FROM seq_1_to_6000",
        );
        let load = Load { seed, pause_ms_max: 1, ..Load::default() };
        let writers = market::repeat(&pair.source, &stage.name, load, |rng| {
            let (low, high) = (rng.u32(1..=3_000), rng.u32(3_001..=6_000));
            vec![
                "BEGIN".into(),
                format!("SELECT code INTO @low FROM seat WHERE id = {low} FOR UPDATE"),
                format!("SELECT code INTO @high FROM seat WHERE id = {high} FOR UPDATE"),
                format!("UPDATE seat SET code = -id WHERE id = {low}"),
                format!("UPDATE seat SET code = @low WHERE id = {high}"),
                format!("UPDATE seat SET code = @high WHERE id = {low}"),
                "COMMIT".into(),
            ]
        });
        let mut run = stage.run(&[]);
        stage.wait_following(&mut run);
        writers.stop();
        run.terminate().assert_code(0);
        stage.caught_up();
        stage.assert_equal();
        stage.assert_equal_schema();
    }
}

#[test]
fn a02_a_unique_value_freed_under_one_key_and_taken_under_another() {
    check(
        "CREATE TABLE t (id INT PRIMARY KEY, p INT UNIQUE, e VARCHAR(20), a INT, b INT, loud VARCHAR(30) AS (CONCAT(e, '!')) STORED,
            UNIQUE KEY pair (a, b), UNIQUE KEY (loud));
         INSERT INTO t (id, p, e, a, b) SELECT seq, seq, CONCAT('E', seq), seq % 9, seq FROM seq_1_to_300",
        &[
            "DELETE FROM t WHERE id = 1",
            "INSERT INTO t (id, p, e, a, b) VALUES (1001, 1, 'e1', 1, 1)",
            "DELETE FROM t WHERE id = 2; INSERT INTO t (id, p, e, a, b) VALUES (1002, 2, 'E2', 2, 2)",
            "UPDATE t SET e = 'gone' WHERE id = 3",
            "UPDATE t SET e = 'e3' WHERE id = 4",
            "UPDATE t SET p = NULL, b = NULL WHERE id = 5",
            "UPDATE t SET p = 5, b = 5, a = 5 WHERE id = 6",
            "UPDATE t SET p = -1 WHERE id = 7; UPDATE t SET p = 7 WHERE id = 8; UPDATE t SET p = 8 WHERE id = 7",
            "REPLACE INTO t (id, p, e, a, b) VALUES (1009, 9, 'E10', 11, 11)",
        ],
    );
}

#[test]
fn a03_parent_and_child_in_any_order() {
    check(
        "CREATE TABLE parent (id INT PRIMARY KEY, name VARCHAR(20));
         CREATE TABLE child (id INT PRIMARY KEY, parent INT NOT NULL, friend INT, FOREIGN KEY (parent) REFERENCES parent (id),
            FOREIGN KEY (friend) REFERENCES child (id));
         INSERT INTO parent SELECT seq, 'p' FROM seq_1_to_100;
         INSERT INTO child SELECT seq, 1 + seq % 100, NULL FROM seq_1_to_500;
         UPDATE child SET friend = 501 - id",
        &[
            "SET foreign_key_checks = 0; INSERT INTO child VALUES (9001, 901, 9001); INSERT INTO parent VALUES (901, 'late')",
            "UPDATE child SET friend = NULL WHERE friend IN (SELECT id FROM (SELECT id FROM child WHERE parent = 5) c);
             DELETE FROM child WHERE parent = 5; DELETE FROM parent WHERE id = 5",
            "INSERT INTO parent VALUES (5, 'again'); INSERT INTO child VALUES (9002, 5, 1)",
            "UPDATE child SET friend = NULL; DELETE FROM child WHERE id % 2 = 0; UPDATE child SET parent = 5",
            "DELETE FROM parent WHERE id BETWEEN 10 AND 20",
        ],
    );
}

#[test]
fn a04_a_huge_transaction_among_small_ones_in_bounded_memory() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    on(
        &stage.source,
        "CREATE TABLE big (id INT PRIMARY KEY, value INT, note TEXT);
         INSERT INTO big SELECT seq, 0, REPEAT('x', 100) FROM seq_1_to_150000;
         CREATE TABLE small (id INT PRIMARY KEY, value INT); INSERT INTO small SELECT seq, 0 FROM seq_1_to_100",
    );
    stage.copied();
    let writers = market::repeat(&pair.source, &stage.name, Load::default(), |rng| {
        vec![format!("UPDATE small SET value = value + 1 WHERE id = {}", rng.u32(1..=100))]
    });
    on(
        &stage.source,
        "UPDATE big SET value = value + 1; UPDATE big SET value = value + 1, id = -id WHERE id % 2 = 0",
    );
    writers.stop();
    let mut run = stage.run(&["--until", "caught-up"]);
    let mut peak_kib = 0;
    while run.running() {
        peak_kib = peak_kib.max(run.peak_kib());
        sleep(Duration::from_millis(100));
    }
    run.wait().assert_code(0);
    stage.assert_equal();
    assert!(peak_kib > 0 && peak_kib < 256 << 10, "{} MiB resident", peak_kib >> 10);
}

const EMPTIED: &str = "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, value TEXT);
    CREATE TABLE keyless (a INT);
    INSERT INTO t (value) SELECT REPEAT('v', 200) FROM seq_1_to_3000;
    INSERT INTO keyless SELECT seq % 3 FROM seq_1_to_300";

#[test]
fn a05_truncate_and_the_same_keys_again() {
    check(
        EMPTIED,
        &[
            "TRUNCATE TABLE t",
            "INSERT INTO t (id, value) VALUES (1, 'again'), (2, 'again'); INSERT INTO keyless VALUES (9)",
            "TRUNCATE TABLE keyless",
            "INSERT INTO keyless VALUES (1), (1)",
            "UPDATE t SET value = 'x' WHERE id = 1",
            "DELETE FROM t; INSERT INTO t (value) VALUES ('first')",
            "INSERT INTO keyless VALUES (7); ROLLBACK",
        ],
    );
}

#[test]
fn a05_truncate_before_in_and_after_a_chunks_cut() {
    let pair = Pair::start();
    for seed in 1..=2 {
        let stage = pair.stage(CROSSFADE).many_cuts();
        on(&stage.source, EMPTIED);
        let load = Load { seed, writers: 2, pause_ms_max: 60, ..Load::default() };
        let writers = market::repeat(&pair.source, &stage.name, load, |rng| {
            let refill = "INSERT IGNORE INTO t (id, value) SELECT seq, REPEAT('w', 200) FROM seq_1_to_2000";
            vec![match rng.u8(0..4) {
                0 => "TRUNCATE TABLE t".into(),
                1 => "TRUNCATE TABLE keyless".into(),
                2 => "INSERT INTO keyless SELECT seq % 3 FROM seq_1_to_50".into(),
                _ => refill.into(),
            }]
        });
        let mut run = stage.run(&[]);
        stage.wait_following(&mut run);
        writers.stop();
        run.terminate().assert_code(0);
        stage.caught_up();
        stage.assert_equal();
    }
}

#[test]
fn a06_one_hot_row_and_one_hot_table_beside_quiet_ones() {
    let pair = Pair::start();
    for mode in MODES {
        let stage = pair.stage(CROSSFADE).flags(&["--apply", mode]);
        on(
            &stage.source,
            "CREATE TABLE hot (id INT PRIMARY KEY, hits INT, note TEXT); INSERT INTO hot VALUES (1, 0, REPEAT('x', 5000)), (2, 0, NULL);
             CREATE TABLE quiet (id INT PRIMARY KEY, value INT); INSERT INTO quiet SELECT seq, 0 FROM seq_1_to_100",
        );
        stage.copied();
        let mut client = mariadb::connect(&stage.source);
        mariadb::run(&mut client, "UPDATE quiet SET value = 1 WHERE id = 1");
        for _ in 0..5_000 {
            mariadb::run(&mut client, "UPDATE hot SET hits = hits + 1 WHERE id = 1");
        }
        mariadb::run(&mut client, "BEGIN");
        for _ in 0..2_000 {
            mariadb::run(&mut client, "UPDATE hot SET hits = hits + 1 WHERE id = 2");
        }
        mariadb::run(&mut client, "COMMIT");
        mariadb::run(&mut client, "UPDATE quiet SET value = 2 WHERE id = 2");
        stage.caught_up();
        stage.assert_equal();
        assert_eq!(ask(&stage.target, "SELECT hits FROM hot WHERE id = 1"), "5000");
    }
}

/// What the source's triggers did is in the log already.
#[test]
fn a07_what_triggers_do_is_done_once() {
    check(
        "CREATE TABLE t (id INT PRIMARY KEY, value INT); CREATE TABLE trail (id INT AUTO_INCREMENT PRIMARY KEY, t INT);
         CREATE TRIGGER bump BEFORE UPDATE ON t FOR EACH ROW SET NEW.value = NEW.value + 1;
         CREATE TRIGGER note AFTER INSERT ON t FOR EACH ROW INSERT INTO trail (t) VALUES (NEW.id);
         INSERT INTO t SELECT seq, seq FROM seq_1_to_100",
        &["UPDATE t SET value = 0 WHERE id < 10", "INSERT INTO t VALUES (1000, 5)"],
    );
}

#[test]
fn a07_a_trigger_on_the_target_is_refused() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    on(
        &stage.source,
        "CREATE TABLE watched (id INT PRIMARY KEY, value INT); INSERT INTO watched VALUES (1, 1)",
    );
    on(
        &stage.target,
        "CREATE TABLE watched (id INT PRIMARY KEY, value INT);
         CREATE TRIGGER meddle BEFORE INSERT ON watched FOR EACH ROW SET NEW.value = 0",
    );
    stage.command("check").output().assert_code(2).assert_says(&["watched", "trigger"]);
    refused(caught_up(&stage), &["watched", "trigger"]);
    assert_eq!(
        ask(&stage.target, "SELECT COUNT(*) FROM watched"),
        "0",
        "it refuses before it touches anything"
    );
}

#[test]
fn a08_a_rogue_writer_on_the_target_raises_an_alarm() {
    let pair = Pair::start();
    for (on_target, on_source) in [
        ("DELETE FROM rows5 WHERE id = 5", "UPDATE rows5 SET value = 1 WHERE id = 5"),
        ("DELETE FROM rows5 WHERE id = 5", "DELETE FROM rows5 WHERE id = 5"),
        ("INSERT INTO rows5 VALUES (999, 0)", "INSERT INTO rows5 VALUES (999, 1)"),
        ("UPDATE rows5 SET id = 999 WHERE id = 5", "UPDATE rows5 SET id = 998 WHERE id = 5"),
        ("DELETE FROM bare WHERE a = 5", "DELETE FROM bare WHERE a = 5"),
        ("UPDATE bare SET b = 'other' WHERE a = 5", "UPDATE bare SET a = 6 WHERE a = 5"),
    ] {
        let stage = pair.stage(CROSSFADE);
        on(
            &stage.source,
            "CREATE TABLE rows5 (id INT PRIMARY KEY, value INT); INSERT INTO rows5 SELECT seq, seq FROM seq_1_to_100;
             CREATE TABLE bare (a INT, b VARCHAR(9)); INSERT INTO bare SELECT seq, 'b' FROM seq_1_to_100",
        );
        stage.caught_up();
        on(&stage.target, on_target);
        on(&stage.source, on_source);
        let table = if on_source.contains("bare") { "bare" } else { "rows5" };
        refused(caught_up(&stage), &[table]);
    }
}

/// Copied, and then changed so that the target refuses one of the changes.
fn poisoned(pair: &Pair) -> Stage {
    let stage = pair.stage(CROSSFADE);
    on(
        &stage.source,
        "CREATE TABLE fragile (id INT PRIMARY KEY, value INT); INSERT INTO fragile SELECT seq, seq FROM seq_1_to_100;
         CREATE TABLE sound (id INT PRIMARY KEY, value INT); INSERT INTO sound SELECT seq, seq FROM seq_1_to_100",
    );
    stage.caught_up();
    on(&stage.target, "ALTER TABLE fragile ADD CONSTRAINT too_much CHECK (value < 1000)");
    on(&stage.source, "UPDATE fragile SET value = 5 WHERE id = 1");
    on(
        &stage.source,
        "UPDATE fragile SET value = 5000 WHERE id = 2; UPDATE sound SET value = 1 WHERE id = 2",
    );
    on(&stage.source, "UPDATE fragile SET value = 6 WHERE id = 3");
    on(&stage.source, "UPDATE sound SET value = 2 WHERE id = 3");
    stage
}

#[test]
fn a09_a_poison_change_is_quarantined_and_the_rest_goes_on() {
    let pair = Pair::start();
    for mode in MODES {
        let stage = poisoned(&pair).flags(&["--apply", mode]);
        caught_up(&stage).assert_code(2).assert_says(&["fragile", "too_much", "held"]);
        let status = stage.status().expect("a status");
        let held = &status["quarantine"][0];
        assert_eq!(held["table"]["name"], "fragile", "{status}");
        assert_eq!(held["operation"], "update", "{status}");
        assert!(held["error"].to_string().contains("too_much"), "{status}");
        let of = |side: &str| ask(side, "SELECT GROUP_CONCAT(id, '=', value ORDER BY id) FROM sound");
        assert_eq!(of(&stage.target), of(&stage.source), "the other table goes on");
        assert_eq!(
            ask(&stage.target, "SELECT value FROM fragile WHERE id = 3"),
            "3",
            "nothing behind it is applied"
        );
        let on_record = format!("SELECT COUNT(*) FROM crossfade.quarantine WHERE stream = '{}'", stage.name);
        assert_eq!(ask(&stage.target, &on_record), "1", "its context stays on the target");

        // Still poisoned, it says so again, and nothing is skipped.
        on(
            &stage.source,
            "UPDATE fragile SET value = 7 WHERE id = 2; UPDATE fragile SET value = 8 WHERE id = 4",
        );
        caught_up(&stage).assert_code(2).assert_says(&["fragile"]);
        on(&stage.target, "ALTER TABLE fragile DROP CONSTRAINT too_much");
        stage.caught_up();
        stage.assert_equal();
    }
}

/// A row that somebody else wrote in the way: repaired on the target, as the documentation says, it is released.
#[test]
fn a09_a_held_table_is_released_when_the_row_in_its_way_is_gone() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    on(&stage.source, "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(9)); INSERT INTO t VALUES (1, 'one')");
    stage.caught_up();
    on(&stage.target, "INSERT INTO t VALUES (500, 'rogue')");
    on(&stage.source, "INSERT INTO t VALUES (500, 'ours')");
    caught_up(&stage).assert_code(2).assert_says(&["500", "held"]);
    assert_eq!(ask(&stage.target, "SELECT v FROM t WHERE id = 500"), "rogue", "nothing is overwritten");
    on(&stage.source, "UPDATE t SET v = 'later' WHERE id = 1");
    on(&stage.target, "DELETE FROM t WHERE id = 500");
    stage.caught_up();
    stage.assert_equal();
}
