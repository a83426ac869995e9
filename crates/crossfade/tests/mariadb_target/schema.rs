//! S, and what else depends on how tables are made: indexes, constraints, counters, names, sizes.

use testkit::Stage;
use testkit::mariadb::{self, Pair};

use crate::{CROSSFADE, ask, check, on};

#[test]
fn s02_counters_go_on_after_the_last() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    on(
        &stage.source,
        "CREATE TABLE gap (id INT AUTO_INCREMENT PRIMARY KEY, v INT); INSERT INTO gap (v) SELECT seq FROM seq_1_to_50;
         CREATE TABLE ahead (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, v INT) AUTO_INCREMENT = 5000000000;
         CREATE TABLE fresh (id INT AUTO_INCREMENT PRIMARY KEY, v INT);
         CREATE TABLE second (a INT, id SMALLINT AUTO_INCREMENT, PRIMARY KEY (a, id), KEY (id)); INSERT INTO second (a) VALUES (9), (8);
         CREATE TABLE emptied (id INT AUTO_INCREMENT PRIMARY KEY); INSERT INTO emptied VALUES (700)",
    );
    on(&stage.source, "DELETE FROM gap WHERE id > 20; DELETE FROM emptied");
    stage.copied();
    on(&stage.source, "INSERT INTO gap (v) VALUES (1), (2)");
    // Given out, and not in the log.
    on(&stage.source, "INSERT INTO gap (v) VALUES (1), (2), (3); ROLLBACK");
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
    for (table, column) in [("gap", "v"), ("ahead", "v"), ("second", "a"), ("emptied", "id")] {
        let next = format!(
            "SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{table}'"
        );
        let next: u64 = ask(&stage.source, &next).parse().expect("a number");
        let value = if column == "id" { "NULL" } else { "5" };
        let given =
            ask(&stage.target, &format!("INSERT INTO {table} ({column}) VALUES ({value}) RETURNING id"));
        let given: u64 = given.parse().expect("a number");
        assert!(given >= next, "{table} gives out {given}, and the source has given out {next} - 1");
    }
    assert_eq!(ask(&stage.target, "INSERT INTO fresh (v) VALUES (5) RETURNING id"), "1", "it was never used");
}

#[test]
fn s02_a_counter_beyond_63_bits() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    on(
        &stage.source,
        "CREATE TABLE far (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, v INT) AUTO_INCREMENT = 9223372036854775900; INSERT INTO far (v) VALUES (1), (2)",
    );
    on(&stage.source, "DELETE FROM far WHERE v = 2");
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}

#[test]
fn s03_indexes_and_constraints_arrive_and_the_rest_is_named() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    on(
        &stage.source,
        "CREATE TABLE parent (id INT AUTO_INCREMENT PRIMARY KEY, code VARCHAR(20) NOT NULL COMMENT 'it''s', amount DECIMAL(10,2) UNSIGNED DEFAULT 1.50,
            mood ENUM('sad', 'it''s ok') NOT NULL DEFAULT 'sad', UNIQUE KEY by_code (code), CHECK (amount < 10000), CONSTRAINT named CHECK (code <> ''))
            COMMENT = 'par\\\\ent';
         CREATE TABLE child (id INT PRIMARY KEY, parent INT, code VARCHAR(20), doc JSON, place POINT NOT NULL, body TEXT, hidden INT INVISIBLE DEFAULT 5,
            twice INT AS (id * 2) STORED, loud VARCHAR(20) AS (UPPER(code)) VIRTUAL, token UUID DEFAULT UUID(), share DOUBLE DEFAULT (1 / 3),
            stamp TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), latin CHAR(5) CHARACTER SET latin1 COLLATE latin1_bin,
            CONSTRAINT fk_named FOREIGN KEY (parent) REFERENCES parent (id), FOREIGN KEY (code) REFERENCES parent (code),
            FULLTEXT KEY words (body), SPATIAL KEY places (place), KEY front (body(10)), KEY mixed (parent DESC, code), KEY (loud), KEY unused (id, hidden) IGNORED)
            ROW_FORMAT = COMPRESSED;
         CREATE TABLE itself (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES itself (id));
         INSERT INTO parent (code) SELECT CONCAT('code ', seq) FROM seq_1_to_300;
         INSERT INTO child (id, parent, code, doc, place, body) SELECT seq, 1 + seq % 300, CONCAT('code ', 1 + seq % 300), '{\"a\": 1}', POINT(seq, 1 / 3), CONCAT('word', seq, ' more')
            FROM seq_1_to_500;
         INSERT INTO itself SELECT seq, NULL FROM seq_1_to_50; UPDATE itself SET up = 51 - id",
    );
    pair.source.run(
        &stage.name,
        &[
            "CREATE VIEW seen AS SELECT id FROM parent",
            "CREATE SEQUENCE numbers",
            "CREATE TRIGGER noted AFTER DELETE ON itself FOR EACH ROW SET @noted = 1",
            "CREATE PROCEDURE done() SELECT 1",
            "CREATE FUNCTION one() RETURNS INT DETERMINISTIC RETURN 1",
            "CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1",
        ],
    );
    stage.command("check").output().assert_code(0).assert_says(&[
        "MY-LEFT-OUT",
        "view seen",
        "sequence numbers",
        "trigger noted",
        "procedure done",
        "function one",
        "event nightly",
    ]);
    stage.copied();
    on(
        &stage.source,
        "UPDATE child SET parent = NULL, body = 'found' WHERE id < 20; DELETE FROM child WHERE id = 30; INSERT INTO parent (code) VALUES ('late');
         UPDATE child SET code = 'late', hidden = 6, latin = 'ä' WHERE id = 40",
    );
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
    let found = "SELECT COUNT(*) FROM child WHERE MATCH (body) AGAINST ('found')";
    assert_eq!(
        ask(&stage.target, found),
        "19",
        "the index for words has the rows of the copy and of the log"
    );
}

#[test]
fn c11_a_partitioned_table_whose_rows_move() {
    check(
        "CREATE TABLE sale (id INT, day DATE NOT NULL, v INT, PRIMARY KEY (id, day)) PARTITION BY RANGE (YEAR(day))
            (PARTITION old VALUES LESS THAN (2025), PARTITION now VALUES LESS THAN (2027), PARTITION later VALUES LESS THAN MAXVALUE);
         INSERT INTO sale SELECT seq, '2024-06-01' + INTERVAL seq DAY, seq FROM seq_1_to_1000;
         CREATE TABLE spread (id INT PRIMARY KEY, v INT) PARTITION BY HASH (id) PARTITIONS 4; INSERT INTO spread SELECT seq, seq FROM seq_1_to_1000",
        &[
            "UPDATE sale SET day = '2030-01-01', v = -v WHERE id < 20",
            "UPDATE sale SET day = '2020-01-01' WHERE id < 10; DELETE FROM sale WHERE id = 5",
            "UPDATE spread SET id = id + 1001 WHERE id % 7 = 0; DELETE FROM spread WHERE id = 8",
        ],
    );
}

#[test]
fn c13_empty_tiny_and_late_tables() {
    check(
        "CREATE TABLE empty (id INT PRIMARY KEY); CREATE TABLE late (id INT PRIMARY KEY, v VARCHAR(9)); CREATE TABLE one (id INT PRIMARY KEY, v INT);
         INSERT INTO one VALUES (1, NULL); CREATE TABLE bare (a INT)",
        &["INSERT INTO late SELECT seq, 'late' FROM seq_1_to_2000", "INSERT INTO bare VALUES (NULL), (NULL)", "UPDATE one SET v = 1"],
    );
}

#[test]
fn c13_a_table_of_many_columns_and_values_of_many_megabytes() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    let columns: Vec<String> = (0..900).map(|number| format!("c{number} INT")).collect();
    let values: Vec<String> = (0..900).map(|number| format!("seq + {number}")).collect();
    on(&stage.source, &format!("CREATE TABLE wide (id INT PRIMARY KEY, {})", columns.join(", ")));
    on(&stage.source, &format!("INSERT INTO wide SELECT seq, {} FROM seq_1_to_300", values.join(", ")));
    on(
        &stage.source,
        "CREATE TABLE large (id INT PRIMARY KEY, data LONGBLOB, note LONGTEXT); INSERT INTO large VALUES (1, REPEAT(x'00ff5c0a', 6000000), 'copied')",
    );
    stage.copied();
    on(
        &stage.source,
        "UPDATE wide SET c899 = NULL, c0 = 0; DELETE FROM wide WHERE id = 7; INSERT INTO wide (id, c5) VALUES (1000, 5)",
    );
    on(&stage.source, "INSERT INTO large VALUES (2, 'small', REPEAT('é😀', 3000000))");
    on(&stage.source, "UPDATE large SET note = 'changed' WHERE id = 1");
    stage.caught_up();
    stage.assert_equal();
    on(&stage.source, "UPDATE large SET data = note, note = NULL");
    stage.caught_up();
    stage.assert_equal();
}

/// Names that have to be quoted, in every place where a name can stand.
const ODD: &[&str] = &[
    "select",
    "a`b",
    "dot.ted",
    "with  space",
    " lead",
    "ünï cödé",
    "Order",
    "order",
    "semi;colon",
    "quo\"te'",
    "-- no",
    "%s {} ?",
    "back\\slash",
    "#1",
    "a/b",
];

#[test]
fn c13_odd_names() {
    let pair = Pair::start();
    pair.source.run("", &["CREATE DATABASE `odd na``me.ä` CHARACTER SET utf8mb4"]);
    pair.target.run("", &["CREATE DATABASE `odd ``target``.é` CHARACTER SET utf8mb4"]);
    let stage = Stage::new(
        CROSSFADE,
        "odd",
        pair.source.url("odd%20na%60me.%C3%A4"),
        pair.target.url("odd%20%60target%60.%C3%A9"),
    );
    let mut source = mariadb::connect(&stage.source);
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    for (at, name) in ODD.iter().enumerate() {
        let (table, key, other) = (quoted(name), quoted(&format!("{name}1")), quoted(&format!("{name}2")));
        for sql in [
            format!(
                "CREATE TABLE {table} ({key} INT PRIMARY KEY, {other} VARCHAR(20) COMMENT 'it''s; -- `', {0} INT, UNIQUE KEY {0} ({other}), CONSTRAINT {1} FOREIGN KEY ({0}) REFERENCES {table} ({key}))",
                quoted(&format!("{name}3")),
                quoted(&format!("{name} {at}")),
            ),
            format!("INSERT INTO {table} SELECT seq, CONCAT('v', seq), NULL FROM seq_1_to_20"),
            format!("CREATE TABLE {} ({key} INT, {other} TEXT)", quoted(&format!("bare {name}"))),
            format!("INSERT INTO {} VALUES (1, 'x'), (1, 'x')", quoted(&format!("bare {name}"))),
        ] {
            mariadb::run(&mut source, &sql);
        }
    }
    stage.copied();
    for name in ODD {
        let (table, key, other) = (quoted(name), quoted(&format!("{name}1")), quoted(&format!("{name}2")));
        for sql in [
            format!("UPDATE {table} SET {other} = 'changed' WHERE {key} = 1"),
            format!("UPDATE {table} SET {key} = 99 WHERE {key} = 2"),
            format!("DELETE FROM {table} WHERE {key} = 3"),
            format!("DELETE FROM {} LIMIT 1", quoted(&format!("bare {name}"))),
        ] {
            mariadb::run(&mut source, &sql);
        }
    }
    stage.caught_up();
    assert_eq!(stage.assert_equal().tables.len(), 2 * ODD.len());
    stage.assert_equal_schema();
}
