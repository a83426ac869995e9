//! What the target cannot hold is a stop by name: never another value, and never fewer rows that are called a success.

use testkit::Stage;
use testkit::mariadb::{Pair, Server};

use crate::{CROSSFADE, ask, carried_or_refused, caught_up, on, refused};

/// A column of the source, a value of it that fits the target's column, one that does not, and the target's column. Some of these
/// the server refuses by itself; others it only warns of, and of some it says nothing at all.
const NARROW: &[(&str, &str, &str, &str)] = &[
    ("VARCHAR(20)", "'fits'", "'does not fit here'", "VARCHAR(5)"),
    ("VARCHAR(20)", "'fits'", "'другое'", "VARCHAR(20) CHARACTER SET latin1"),
    ("VARCHAR(20)", "'fits'", "'ends in blanks  '", "CHAR(20)"),
    ("VARCHAR(20)", "'fits'", "'no label'", "ENUM('fits')"),
    ("VARCHAR(20)", "'fits'", "NULL", "VARCHAR(20) NOT NULL"),
    ("VARCHAR(20)", "'fits'", "'FITS'", "VARCHAR(20) UNIQUE"),
    ("VARCHAR(20)", "'fits'", "'forbidden'", "VARCHAR(20) CHECK (v <> 'forbidden')"),
    ("TEXT", "'fits'", "REPEAT('x', 300)", "TINYTEXT"),
    ("TEXT", "'{}'", "'no document'", "JSON"),
    ("INT", "5", "300", "TINYINT"),
    ("INT", "5", "-1", "INT UNSIGNED"),
    ("BIGINT UNSIGNED", "5", "18446744073709551615", "BIGINT"),
    ("DECIMAL(10,4)", "1.5", "1.2345", "DECIMAL(10,2)"),
    ("DOUBLE", "1.5", "0.1", "FLOAT"),
    ("DATETIME(6)", "'2026-02-03'", "'2026-02-03 04:05:06.789'", "DATETIME"),
    ("DATETIME", "'2026-02-03'", "'2026-02-03 04:05:06'", "DATE"),
    ("DATETIME", "'2026-02-03'", "'1901-02-03'", "TIMESTAMP NULL"),
    ("VARBINARY(8)", "x'0102030405060708'", "x'01'", "BINARY(8)"),
    ("SET('p', 'q')", "'p'", "'p,q'", "SET('p')"),
    ("BIT(9)", "5", "256", "BIT(8)"),
];

#[test]
fn a01_a_row_that_the_targets_own_table_cannot_hold_stops_the_copy() {
    for local_infile in ["ON", "OFF"] {
        let pair = Pair::of(Server::builder(), Server::builder().setting("local-infile", local_infile));
        for (kind, fits, wrong, narrow) in NARROW {
            let stage = pair.stage(CROSSFADE);
            on(
                &stage.source,
                &format!(
                    "CREATE TABLE narrow (id INT PRIMARY KEY, v {kind}) COLLATE utf8mb4_general_ci; INSERT INTO narrow VALUES (1, {fits}), (2, {wrong})"
                ),
            );
            on(
                &stage.target,
                &format!("CREATE TABLE narrow (id INT PRIMARY KEY, v {narrow}) COLLATE utf8mb4_general_ci"),
            );
            stays_refused(&stage, &format!("{wrong} of {kind} as {narrow}, local_infile = {local_infile}"));
        }
    }
}

#[test]
fn a09_a_change_that_the_targets_own_table_cannot_hold_is_held() {
    let pair = Pair::start();
    for (kind, fits, wrong, narrow) in NARROW {
        let stage = pair.stage(CROSSFADE);
        on(
            &stage.source,
            &format!(
                "CREATE TABLE narrow (id INT PRIMARY KEY, v {kind}) COLLATE utf8mb4_general_ci; INSERT INTO narrow VALUES (1, {fits})"
            ),
        );
        stage.caught_up();
        on(&stage.target, &format!("ALTER TABLE narrow MODIFY v {narrow}"));
        on(&stage.source, &format!("INSERT INTO narrow VALUES (2, {wrong})"));
        stays_refused(&stage, &format!("{wrong} of {kind} as {narrow}"));
        assert_eq!(ask(&stage.target, "SELECT COUNT(*) FROM narrow"), "1", "{wrong} of {kind} as {narrow}");
    }
}

/// The second run must not take for done what the first one was refused.
#[track_caller]
fn stays_refused(stage: &Stage, what: &str) {
    for _ in 0..2 {
        let finished = caught_up(stage);
        assert!(matches!(finished.code(), Some(1 | 2)), "{what}: not refused\n{finished}");
        finished.assert_says(&["narrow"]);
    }
}

const PLAIN: &str = "CREATE TABLE plain (id INT PRIMARY KEY, a INT, b VARCHAR(20)); INSERT INTO plain SELECT seq, seq, 'b' FROM seq_1_to_100";

/// What stands on the target under the table's name.
#[test]
fn a_target_table_that_cannot_be_used_is_refused_before_it_is_touched() {
    let pair = Pair::start();
    for (there, word) in [
        (
            "CREATE TABLE plain (id INT PRIMARY KEY, a INT, b VARCHAR(20)); INSERT INTO plain VALUES (1000, 1, 'theirs')",
            "plain",
        ),
        ("CREATE TABLE plain (id INT PRIMARY KEY, a INT)", "b"),
        ("CREATE TABLE plain (id INT PRIMARY KEY, a INT, b VARCHAR(20), more INT NOT NULL)", "more"),
        ("CREATE TABLE plain (id INT PRIMARY KEY, a INT, b VARCHAR(20) AS ('b') STORED)", "b"),
        // Nothing that is written there can be undone.
        ("CREATE TABLE plain (id INT PRIMARY KEY, a INT, b VARCHAR(20)) ENGINE = MyISAM", "engine"),
        ("CREATE VIEW plain AS SELECT 1 AS id, 1 AS a, 'b' AS b", "plain"),
    ] {
        let stage = pair.stage(CROSSFADE);
        on(&stage.source, PLAIN);
        on(&stage.target, there);
        let before = ask(&stage.target, "SELECT COUNT(*) FROM plain");
        refused(caught_up(&stage), &["plain", word]);
        assert_eq!(ask(&stage.target, "SELECT COUNT(*) FROM plain"), before, "{there}");
    }
}

#[test]
fn c13_a_target_table_of_another_shape_is_used_as_it_is_or_refused() {
    let pair = Pair::start();
    for there in [
        "CREATE TABLE plain (b VARCHAR(20), id INT PRIMARY KEY, a INT)",
        "CREATE TABLE plain (a INT, b VARCHAR(20), id INT)",
        "CREATE TABLE plain (id INT PRIMARY KEY, a INT, b VARCHAR(20), KEY (a, b)) COMMENT = 'prepared'",
    ] {
        let stage = pair.stage(CROSSFADE);
        on(&stage.source, PLAIN);
        on(&stage.target, there);
        carried_or_refused(&stage, &["plain"]);
        on(
            &stage.source,
            "UPDATE plain SET a = -a WHERE id < 50; DELETE FROM plain WHERE id > 90; INSERT INTO plain VALUES (500, 1, NULL)",
        );
        carried_or_refused(&stage, &["plain"]);
    }
}

#[test]
fn a_target_database_that_is_not_there_is_named() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    on(&stage.source, PLAIN);
    let stage = stage.via(None, Some(pair.target.url("nowhere")));
    refused(caught_up(&stage), &["nowhere"]);
}

/// One transaction changes two tables, and both may collide.
#[test]
fn a09_a_collision_is_not_taken_for_one_of_another_table() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).flags(&["--apply", "catch-up"]);
    on(
        &stage.source,
        "CREATE TABLE people (id INT PRIMARY KEY, mail VARCHAR(40)); INSERT INTO people VALUES (1, 'taken');
         CREATE TABLE seats (id INT PRIMARY KEY, code INT UNIQUE); INSERT INTO seats VALUES (1, 1), (2, 2)",
    );
    on(&stage.target, "CREATE TABLE people (id INT PRIMARY KEY, mail VARCHAR(40) UNIQUE)");
    stage.caught_up();
    on(
        &stage.source,
        "BEGIN; INSERT INTO people SELECT seq + 10, IF(seq = 7, 'taken', CONCAT('mail ', seq)) FROM seq_1_to_40;
         UPDATE seats SET code = code + 10; COMMIT",
    );
    refused(caught_up(&stage), &["people"]);
    assert_eq!(ask(&stage.target, "SELECT SUM(code) FROM seats"), "23");
}
