//! V: values of every type. The same row by the copy and by the log has identical bytes on the target, and they are the source's.

use testkit::mariadb::{self, Pair};

use crate::{CROSSFADE, MODES, ask, carried_or_refused, on};

/// Rows below this number are copied; the same values with this added come by the log.
const BY_LOG: u32 = 1_000;

/// One table for each type: its values once before the copy, and once through the log, inserted and then updated to.
fn alike(families: &[(&str, &[&str])]) {
    let pair = Pair::start();
    for mode in MODES {
        let stage = pair.stage(CROSSFADE).flags(&["--apply", mode]);
        let mut source = mariadb::connect(&stage.source);
        mariadb::run(&mut source, "SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'");
        for (number, (kind, values)) in families.iter().enumerate() {
            mariadb::run(
                &mut source,
                &format!("CREATE TABLE v{number} (id INT PRIMARY KEY, v {kind} NULL, w {kind} NULL)"),
            );
            for (at, value) in values.iter().enumerate() {
                mariadb::run(&mut source, &format!("INSERT INTO v{number} VALUES ({at}, {value}, {value})"));
            }
        }
        stage.copied();
        for number in 0..families.len() {
            mariadb::run(
                &mut source,
                &format!("INSERT INTO v{number} SELECT id + {BY_LOG}, v, NULL FROM v{number}"),
            );
            mariadb::run(&mut source, &format!("UPDATE v{number} SET w = v WHERE id >= {BY_LOG}"));
        }
        stage.caught_up();
        stage.assert_equal();
        stage.assert_equal_schema();
        for (number, (kind, values)) in families.iter().enumerate() {
            let rows = ask(&stage.target, &format!("SELECT COUNT(*) FROM v{number}"));
            assert_eq!(rows, (2 * values.len()).to_string(), "{kind}");
            let sum = |url: &str| mariadb::checksum(&mut mariadb::connect(url), &format!("v{number}"));
            assert_eq!(sum(&stage.source), sum(&stage.target), "{kind}: the sides differ in bytes");
        }
    }
}

#[test]
fn v04_numbers_are_alike_by_copy_and_by_log() {
    alike(&[
        ("TINYINT", &["-128", "127", "0", "NULL"]),
        ("TINYINT UNSIGNED", &["255", "128", "0"]),
        ("BOOLEAN", &["TRUE", "FALSE", "2"]),
        ("SMALLINT", &["-32768", "32767"]),
        ("SMALLINT UNSIGNED ZEROFILL", &["65535", "7"]),
        ("MEDIUMINT", &["-8388608", "-1", "8388607"]),
        ("MEDIUMINT UNSIGNED", &["16777215", "8388608"]),
        ("INT", &["-2147483648", "2147483647"]),
        ("INT(3) UNSIGNED ZEROFILL", &["4294967295", "1"]),
        ("BIGINT", &["-9223372036854775808", "9223372036854775807"]),
        ("BIGINT UNSIGNED", &["18446744073709551615", "9223372036854775808", "0"]),
        (
            "DECIMAL(65,38)",
            &["0.00000000000000000000000000000000000001", "-123456789012345678901234567.5", "NULL"],
        ),
        ("DECIMAL(65,0)", &["REPEAT('9', 65)", "CONCAT('-', REPEAT('9', 65))"]),
        ("DECIMAL(10,2) UNSIGNED ZEROFILL", &["1.5", "99999999.99"]),
        ("DECIMAL(5,5)", &["-0.00001", "0.99999"]),
        ("FLOAT", &["0.1", "16777217", "1e-45", "3.4028234e38", "-3.4028234e38", "1e10", "123456.789"]),
        ("FLOAT(7,4)", &["999.9999", "-0.0001"]),
        (
            "DOUBLE",
            &[
                "0.1",
                "5e-324",
                "2.2250738585072011e-308",
                "1e23",
                "1.7976931348623157e308",
                "-1 / 3e0",
                "9007199254740993",
            ],
        ),
        ("DOUBLE(20,3) UNSIGNED", &["12345.678"]),
        ("BIT(1)", &["b'0'", "b'1'"]),
        ("BIT(9)", &["b'111111111'", "b'100000000'", "b'1'"]),
        ("BIT(63)", &["9223372036854775807"]),
        ("BIT(64)", &["18446744073709551615", "9223372036854775808", "0", "NULL"]),
    ]);
}

#[test]
fn v04_times_are_alike_by_copy_and_by_log() {
    alike(&[
        ("YEAR", &["0", "1901", "2155", "NULL"]),
        (
            "DATE",
            &[
                "'0000-00-00'",
                "'2024-00-00'",
                "'2024-02-00'",
                "'0000-01-01'",
                "'2023-02-31'",
                "'1000-01-01'",
                "'9999-12-31'",
                "'0001-01-01'",
            ],
        ),
        (
            "DATETIME",
            &["'0000-00-00 00:00:00'", "'2024-00-00 12:34:56'", "'9999-12-31 23:59:59'", "'2026-02-03'"],
        ),
        ("DATETIME(3)", &["'2026-03-29 01:30:00.001'", "'2026-10-25 02:30:00.9'", "'0000-00-00 00:00:00.5'"]),
        (
            "DATETIME(6)",
            &[
                "'9999-12-31 23:59:59.999999'",
                "'2026-02-03 00:00:00.000001'",
                "'1000-01-01'",
                "'2023-02-31 23:59:59.1'",
            ],
        ),
        (
            "TIMESTAMP",
            &[
                "'0000-00-00 00:00:00'",
                "'1970-01-01 00:00:01'",
                "'2038-01-19 03:14:07'",
                "'2026-03-29 01:30:00'",
                "NULL",
            ],
        ),
        ("TIMESTAMP(2)", &["'2026-10-25 00:30:00.25'", "'2026-10-25 01:30:00.25'"]),
        ("TIMESTAMP(6)", &["'2038-01-19 03:14:07.999999'", "'1970-01-01 00:00:01.000001'"]),
        ("TIME", &["'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'", "'24:00:00'"]),
        ("TIME(1)", &["'-12:34:56.7'", "'-00:00:00.1'"]),
        (
            "TIME(6)",
            &["'-838:59:59.999999'", "'838:59:59.999999'", "'-00:00:00.000001'", "'00:00:00.000001'"],
        ),
    ]);
}

/// What LOAD DATA and statements have characters of their own for.
const TEXTS: &[&str] = &[
    "''",
    "NULL",
    "'NULL'",
    "'\\\\N'",
    "'\\\\'",
    "'tab\\tline\\nreturn\\r\\n back\\\\slash \\'quoted\\' \"double\"'",
    "'a,b;c -- d /* e */'",
    "CONCAT('nul', CHAR(0), 'and', CHAR(26), CHAR(8), CHAR(127))",
    "'trail  '",
    "'  lead'",
    "'\\t'",
    "'\\n'",
];

#[test]
fn v02_text_is_alike_by_copy_and_by_log() {
    let some = &["''", "'é '", "'a\\tb\\\\c'", "NULL"];
    alike(&[
        ("VARCHAR(60)", TEXTS),
        ("TEXT", TEXTS),
        ("LONGTEXT", TEXTS),
        (
            "VARCHAR(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
            &["'é😀 '", "'\u{1F468}\u{200D}\u{1F469}'", "'e\u{301}'", "'\u{FEFF}bom'", "'\u{FFFD}'"],
        ),
        ("VARCHAR(60) CHARACTER SET utf8mb3", &["'é\u{4E2D}'", "''"]),
        ("CHAR(5)", &["'ab'", "''", "'ab   '", "'  ab'", "'😀😀😀😀😀'", "NULL"]),
        ("TINYTEXT", &["REPEAT('x', 255)", "''"]),
        ("MEDIUMTEXT", &["REPEAT('long 😀', 50000)"]),
        // Every byte that means something there.
        (
            "VARCHAR(300) CHARACTER SET latin1",
            &[
                "CONVERT(UNHEX('808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0ff') USING latin1)",
                "'\u{20AC}'",
                "CONVERT(UNHEX('c3a9') USING latin1)",
                "''",
            ],
        ),
        ("TEXT CHARACTER SET latin1", some),
        ("VARCHAR(40) CHARACTER SET utf16", &["'a😀b'", "''", "'\u{4E2D} '"]),
        ("VARCHAR(40) CHARACTER SET utf32", &["'a😀b'", "''"]),
        ("VARCHAR(40) CHARACTER SET ucs2", some),
        ("CHAR(9) CHARACTER SET utf16", &["'ab'", "''"]),
        ("VARCHAR(40) CHARACTER SET koi8r", &["'привет'", "''"]),
        ("VARCHAR(40) CHARACTER SET cp1250", &["'žluť'"]),
        ("VARCHAR(40) CHARACTER SET ascii", &["'plain'", "''"]),
        ("VARCHAR(40) COLLATE utf8mb4_uca1400_ai_ci", some),
        (
            "ENUM('', 'sad', 'it''s, \"ok\"', 'é✓', '\\\\')",
            &["''", "'sad'", "'it''s, \"ok\"'", "'é✓'", "'\\\\'", "NULL"],
        ),
        ("ENUM('ä', 'b') CHARACTER SET latin1", &["'ä'", "'b'"]),
        ("SET('red', 'it''s', 'é', '\\\\')", &["''", "'red'", "'red,it''s,é,\\\\'", "'é'", "NULL"]),
        (
            "JSON",
            &[
                "'{\"b\": 1,  \"a\": 2, \"b\": 3}'",
                "'\"\\\\u00e9\\\\n\"'",
                "' [1, 2.50, 1e400] '",
                "'null'",
                "NULL",
                "'{\"😀\": \"\\\\\\\\\"}'",
            ],
        ),
        (
            "UUID",
            &[
                "'00000000-0000-0000-0000-000000000000'",
                "'0192a5b0-1111-7222-8333-444444444400'",
                "'123e4567-e89b-12d3-a456-426655440000'",
                "NULL",
            ],
        ),
        ("INET4", &["'0.0.0.0'", "'10.0.0.0'", "'255.255.255.255'"]),
        ("INET6", &["'::'", "'2001:db8::'", "'::ffff:1.2.3.4'", "'ff02::1'", "NULL"]),
    ]);
}

#[test]
fn v02_bytes_are_alike_by_copy_and_by_log() {
    let all: String = (0..=255).map(|byte: u8| format!("{byte:02x}")).collect();
    let all = format!("UNHEX('{all}')");
    let bytes: &[&str] =
        &["''", "NULL", &all, "x'00'", "x'ff00'", "x'5c4e'", "x'5c6e0a0d0900'", "x'c3'", "x'20'"];
    alike(&[
        ("BINARY(8)", &["''", "x'00'", "x'ff00'", "x'5c4e0a0922270d1a'", "x'20'", "NULL"]),
        ("VARBINARY(300)", bytes),
        ("TINYBLOB", &["''", "x'00'", "REPEAT(x'00', 255)"]),
        ("BLOB", bytes),
        ("MEDIUMBLOB", &["REPEAT(x'00ff5c', 100000)"]),
        ("LONGBLOB", bytes),
        (
            "GEOMETRY",
            &[
                "POINT(0.1, -2)",
                "ST_GeomFromText('POLYGON((0 0, 0.1 1, 1 0, 0 0))', 4326)",
                "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1))')",
                "NULL",
            ],
        ),
        ("POINT", &["POINT(1e-300, 1e300)", "ST_GeomFromText('POINT(1 2)', 4326)"]),
        ("LINESTRING", &["ST_GeomFromText('LINESTRING(0 0, 1 1)')"]),
        ("MULTIPOINT", &["ST_GeomFromText('MULTIPOINT(0 0, 1 1)')"]),
    ]);
}

/// Number 0, which stands for a label that there is not, is no text: it arrives as number 0 or is refused.
#[test]
fn v04_an_enum_without_a_label_is_never_another_label() {
    let pair = Pair::start();
    for by_log in [false, true] {
        let stage = pair.stage(CROSSFADE);
        on(
            &stage.source,
            "CREATE TABLE moods (id INT PRIMARY KEY, mood ENUM('', 'glad'), more SET('', 'p')); INSERT INTO moods VALUES (1, 'glad', 'p'), (2, '', '')",
        );
        if by_log {
            stage.caught_up();
        }
        on(&stage.source, "SET sql_mode = ''; INSERT INTO moods VALUES (3, 'none', 'p')");
        assert_eq!(ask(&stage.source, "SELECT mood + 0 FROM moods WHERE id = 3"), "0");
        carried_or_refused(&stage, &["moods", "mood"]);
    }
}
