//! C: what tells rows apart: keys at the edges, keys that a collation equates, no key at all.

use testkit::mariadb::Pair;

use crate::{CROSSFADE, MODES, check, on};

#[test]
fn c09_keys_at_the_edges() {
    check(
        "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO';
         CREATE TABLE large (id BIGINT UNSIGNED PRIMARY KEY, v VARCHAR(20));
         INSERT INTO large VALUES (0, 'zero'), (1, 'one'), (1099511627776, 'jump'), (9223372036854775807, 'half'),
            (9223372036854775808, 'above'), (18446744073709551614, 'almost');
         CREATE TABLE counted (id BIGINT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20));
         INSERT INTO counted VALUES (-9223372036854775808, 'min'), (-5, 'minus'), (0, 'zero'), (7, 'seven')",
        &[
            "INSERT INTO large VALUES (18446744073709551615, 'max')",
            "UPDATE large SET id = 2 WHERE id = 18446744073709551614",
            "UPDATE large SET v = 'found' WHERE id = 9223372036854775808",
            "DELETE FROM large WHERE id = 0",
            // An id of 0 is a row like others, and no wish for the next number.
            "UPDATE counted SET v = 'still zero' WHERE id = 0",
            "UPDATE counted SET id = -1 WHERE id = 0",
            "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'; INSERT INTO counted VALUES (0, 'zero again')",
            "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'; UPDATE counted SET id = 0 - id WHERE id = 7; UPDATE counted SET id = 8 WHERE id = 0",
            "INSERT INTO counted (v) VALUES ('next')",
        ],
    );
}

/// Two keys for us, one row for the server.
#[test]
fn c10_keys_that_the_collation_equates() {
    check(
        "CREATE TABLE word (word VARCHAR(40) PRIMARY KEY, n INT, alias VARCHAR(40) UNIQUE) COLLATE utf8mb4_unicode_ci;
         INSERT INTO word VALUES ('a', 1, 'x'), ('b ', 2, 'y'), ('straße', 3, NULL), ('d', 4, 'd'), ('e', 5, 'e'), ('f', 6, 'f'), ('é g', 7, NULL);
         CREATE TABLE pair (tenant INT, code CHAR(10), n INT, PRIMARY KEY (tenant, code)) COLLATE utf8mb4_general_ci;
         INSERT INTO pair VALUES (1, 'one', 1), (1, 'two', 2), (2, 'ONE', 3);
         CREATE TABLE padded (k VARCHAR(20) COLLATE utf8mb4_bin PRIMARY KEY, n INT); INSERT INTO padded VALUES ('p', 1), ('q  ', 2)",
        &[
            "UPDATE word SET word = 'A' WHERE n = 1",
            "UPDATE word SET word = 'A  ', n = 11 WHERE n = 1; UPDATE word SET word = 'á' WHERE n = 11",
            "DELETE FROM word WHERE n = 11; INSERT INTO word VALUES ('a', 1, 'X')",
            "DELETE FROM word WHERE n = 2",
            "INSERT INTO word VALUES ('B', 2, 'Y ')",
            "UPDATE word SET word = 'STRASSE' WHERE n = 3",
            "UPDATE word SET alias = 'D' WHERE n = 4; UPDATE word SET n = 44 WHERE word = 'd'",
            // They change places, and their case with it.
            "UPDATE word SET word = 'free' WHERE n = 5; UPDATE word SET word = 'E' WHERE n = 6; UPDATE word SET word = 'F' WHERE n = 5",
            "UPDATE word SET alias = NULL WHERE n = 5; UPDATE word SET alias = 'E' WHERE n = 6; UPDATE word SET alias = 'F' WHERE n = 5",
            "REPLACE INTO word VALUES ('E G', 8, 'new')",
            "INSERT INTO word VALUES ('A', 9, NULL) ON DUPLICATE KEY UPDATE word = 'A', n = n + 1",
            "UPDATE pair SET code = UPPER(code) WHERE tenant = 1; UPDATE pair SET n = n + 1 WHERE code = 'one'",
            "DELETE FROM pair WHERE code = 'TWO'; INSERT INTO pair VALUES (1, 'Two', 22)",
            "UPDATE padded SET k = 'p ' WHERE n = 1; UPDATE padded SET n = 22 WHERE k = 'q'",
            "DELETE FROM padded WHERE n = 22; INSERT INTO padded VALUES ('q', 3)",
        ],
    );
}

#[test]
fn c14_one_of_several_equal_rows_without_a_key() {
    check(
        "CREATE TABLE bare (a VARCHAR(20), b FLOAT, c DOUBLE, d DATETIME(3), e ENUM('x', 'y'), s SET('p', 'q'), j JSON, t TEXT, n DECIMAL(10,2),
            bin BINARY(4), bits BIT(5), u TINYINT UNSIGNED, y YEAR, tm TIME(2), ts TIMESTAMP(6) NULL, g POINT, i INET6, bl BLOB);
         INSERT INTO bare SELECT 'equal', 0.1, 0.1, '2026-02-03 04:05:06.7', 'y', 'p,q', '{\"b\": 1}', 'text ', 1.5, 'b', 5, 200, 2026, '-12:00:00.5',
            '2026-02-03 04:05:06.789', POINT(0.1, 2), '::1', 'b ' FROM seq_1_to_3;
         INSERT INTO bare (a) VALUES (NULL), (NULL), ('equal'), ('equal')",
        &[
            "DELETE FROM bare WHERE b IS NOT NULL LIMIT 1",
            "UPDATE bare SET n = n + 1 WHERE b IS NOT NULL LIMIT 1",
            "DELETE FROM bare WHERE a IS NULL LIMIT 1",
            "UPDATE bare SET t = '' WHERE a = 'equal' AND b IS NULL LIMIT 1",
            "INSERT INTO bare SELECT * FROM bare; DELETE FROM bare WHERE n = 1.5 LIMIT 1; UPDATE bare SET u = u + 1 WHERE n = 2.5 LIMIT 1",
            "UPDATE bare SET d = NULL, j = NULL",
        ],
    );
}

/// The row that is meant is told by its bytes: to the server several are equal.
#[test]
fn c14_rows_that_the_collation_equates_without_a_key() {
    check(
        "CREATE TABLE word (word VARCHAR(20) COLLATE utf8mb4_general_ci, more TEXT COLLATE utf8mb4_bin, j JSON);
         INSERT INTO word VALUES ('a', 'm', '[1]'), ('A', 'm', '[1]'), ('a ', 'm', '[1]'), ('á', 'm', '[1]'), ('b', 'm', '[1]'), ('b', 'm ', '[1]'),
            ('b', 'm', '[1] '), ('c', NULL, NULL), ('C', NULL, NULL), ('', '', NULL), (' ', '', NULL)",
        &[
            "DELETE FROM word WHERE BINARY word = 'A'",
            "UPDATE word SET word = 'x' WHERE BINARY word = 'a '",
            "UPDATE word SET word = 'y' WHERE BINARY word = 'á'",
            "DELETE FROM word WHERE BINARY more = 'm '",
            "DELETE FROM word WHERE BINARY j = '[1] '",
            "UPDATE word SET more = 'found' WHERE BINARY word = 'C'",
            "DELETE FROM word WHERE BINARY word = ' '",
        ],
    );
}

/// A type, and values of it in any order; the last one comes when the others are copied.
const KEYS: &[(&str, &[&str])] = &[
    ("TINYINT", &["-128", "0", "127", "5"]),
    ("MEDIUMINT UNSIGNED", &["16777215", "0", "5"]),
    ("BIGINT UNSIGNED ZEROFILL", &["18446744073709551615", "1", "5"]),
    ("DECIMAL(40,20)", &["0.00000000000000000001", "-12345678901234567890.5", "1.50", "7"]),
    ("FLOAT", &["0.1", "16777216", "1e-45", "-3.4028234e38", "0.3"]),
    ("DOUBLE", &["0.1", "1e23", "5e-324", "-1.7976931348623157e308", "0.3"]),
    ("BIT(9)", &["b'0'", "b'111111111'", "b'101'"]),
    ("BIT(64)", &["b'0'", "18446744073709551615", "5"]),
    ("YEAR", &["0", "1901", "2155", "2026"]),
    ("DATE", &["'0000-00-00'", "'9999-12-31'", "'2026-02-03'", "'2026-02-04'"]),
    ("DATETIME(6)", &["'0000-00-00'", "'9999-12-31 23:59:59.999999'", "'2026-02-03'"]),
    ("TIMESTAMP(3)", &["'1970-01-01 00:00:01'", "'2026-10-25 00:30:00.001'", "'2026-10-25 01:30:00.001'"]),
    ("TIME(6)", &["'-838:59:59.999999'", "'00:00:00'", "'838:59:59.999999'", "'-00:00:00.000001'"]),
    ("CHAR(5)", &["''", "'a b'", "'B'", "'😀'"]),
    ("VARCHAR(20) COLLATE utf8mb4_general_ci", &["'Word '", "''", "'back\\\\slash'", "'é'", "'last'"]),
    ("VARCHAR(20) COLLATE utf8mb4_nopad_bin", &["'a'", "'a '", "'A'", "'a\\0'", "'last'"]),
    ("VARCHAR(20) CHARACTER SET latin1", &["'é€'", "'E'", "'x'"]),
    ("VARCHAR(20) CHARACTER SET utf16", &["'é😀'", "'E'", "'x'"]),
    ("BINARY(4)", &["x'00000000'", "x'ff000000'", "x'5c0a0900'", "x'01'"]),
    ("VARBINARY(8)", &["x''", "x'00'", "x'0000'", "x'5c0a0922'", "x'01'"]),
    ("ENUM('', 'it''s', 'a,b')", &["''", "'it''s'", "'a,b'"]),
    ("SET('p', 'q', 'r')", &["''", "'p,r'", "'q'"]),
    (
        "UUID",
        &[
            "'00000000-0000-0000-0000-000000000000'",
            "'ffffffff-ffff-7fff-bfff-ffffffffffff'",
            "'0192a5b0-1111-7222-8333-444444444444'",
        ],
    ),
    ("INET6", &["'::'", "'2001:db8::ff00:0'", "'::ffff:1.2.3.4'"]),
    ("INET4", &["'0.0.0.0'", "'255.255.255.0'", "'10.0.0.1'"]),
];

#[test]
fn v04_rows_are_found_by_keys_of_every_type() {
    let pair = Pair::start();
    for mode in MODES {
        let stage = pair.stage(CROSSFADE).flags(&["--apply", mode]);
        for (number, (kind, values)) in KEYS.iter().enumerate() {
            on(
                &stage.source,
                &format!("CREATE TABLE k{number} (k {kind} NOT NULL PRIMARY KEY, v INT NOT NULL DEFAULT 0)"),
            );
            for value in &values[..values.len() - 1] {
                on(&stage.source, &format!("INSERT INTO k{number} (k) VALUES ({value})"));
            }
        }
        stage.copied();
        for (number, (_, values)) in KEYS.iter().enumerate() {
            let last = values[values.len() - 1];
            on(&stage.source, &format!("UPDATE k{number} SET v = v + 1"));
            on(&stage.source, &format!("UPDATE k{number} SET k = {last} ORDER BY k DESC LIMIT 1"));
            on(
                &stage.source,
                &format!("UPDATE k{number} SET v = v + 1; DELETE FROM k{number} ORDER BY k LIMIT 1"),
            );
        }
        stage.caught_up();
        stage.assert_equal();
        stage.assert_equal_schema();
    }
}
