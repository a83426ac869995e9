//! V: values. The same row by the copy and by the log has identical bytes on the target.

use testkit::{Pair, Stage};

const CROSSFADE: &str = env!("CARGO_BIN_EXE_crossfade");

/// Rows below this number are copied; the same values with this added come by the log.
const BY_LOG: u32 = 1_000;

/// One table for each type: its values once before the copy, and once through the log, inserted and then updated to.
fn alike(setup: &str, families: &[(&str, &[&str])], portable: bool) {
    let pair = Pair::start();
    for mode in ["catch-up", "strict"] {
        let stage = pair.stage(CROSSFADE).flags(&["--apply", mode]);
        stage.on_source(setup);
        for (number, (kind, values)) in families.iter().enumerate() {
            stage.on_source(&format!("CREATE TABLE v{number} (id int PRIMARY KEY, v {kind}, w {kind})"));
            for (at, value) in values.iter().enumerate() {
                stage.on_source(&format!("INSERT INTO v{number} VALUES ({at}, {value}, {value})"));
            }
        }
        stage.copied();
        for number in 0..families.len() {
            stage.on_source(&format!(
                "INSERT INTO v{number} SELECT id + {BY_LOG}, v, NULL FROM v{number};
                 UPDATE v{number} SET w = v WHERE id >= {BY_LOG}"
            ));
        }
        stage.caught_up();
        stage.assert_equal();
        for (number, (kind, values)) in families.iter().enumerate() {
            identical(&stage, number, kind, values.len(), portable);
        }
    }
}

#[track_caller]
fn identical(stage: &Stage, number: usize, kind: &str, count: usize, portable: bool) {
    let same = format!(
        "SELECT count(*) FROM v{number} a JOIN v{number} b ON b.id = a.id + {BY_LOG}
          WHERE record_send(ROW(a.v, a.w)) = record_send(ROW(b.v, b.w)) AND ROW(a.v, a.w)::text = ROW(b.v, b.w)::text"
    );
    assert_eq!(
        stage.ask(&stage.target, &same),
        count.to_string(),
        "{kind}: copy and log differ on the target"
    );
    // Types that people make have other numbers on the other side, and binary rows hold them.
    if portable {
        let all =
            format!("SELECT md5(string_agg(record_send(ROW(id, v, w)), '' ORDER BY id)) FROM v{number}");
        assert_eq!(
            stage.ask(&stage.source, &all),
            stage.ask(&stage.target, &all),
            "{kind}: the sides differ"
        );
    }
}

#[test]
fn v01_numbers_and_times_are_alike_by_copy_and_by_log() {
    let families: &[(&str, &[&str])] = &[
        (
            "numeric",
            &[
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "repeat('9', 1000)::numeric",
                "('0.' || repeat('123456789', 111))::numeric",
                "1.10",
                "1.1000",
                "-0.0",
                "1e-300",
                "NULL",
            ],
        ),
        ("numeric(20,4)", &["1.5", "-99999999.9999", "'NaN'"]),
        ("float4", &["'-0'", "'NaN'", "'Infinity'", "1e-45", "0.1", "3.4028235e38", "16777217"]),
        (
            "float8",
            &[
                "'-0'",
                "'NaN'",
                "'-Infinity'",
                "5e-324",
                "2.2250738585072011e-308",
                "0.1",
                "1e23",
                "1.7976931348623157e308",
            ],
        ),
        (
            "timestamptz",
            &[
                "'infinity'",
                "'-infinity'",
                "'4713-01-01 00:00:00 BC'",
                "'294276-12-31 23:59:59.999999'",
                "'2026-03-29 01:59:59.999999 Europe/Berlin'",
                "'2026-10-25 02:30:00 CET'",
                "'2026-10-25 02:30:00 CEST'",
            ],
        ),
        ("timestamp", &["'infinity'", "'0044-03-15 12:00:00.000001 BC'", "'294276-12-31 23:59:59.999999'"]),
        ("date", &["'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'"]),
        ("time", &["'24:00:00'", "'00:00:00.000001'"]),
        ("timetz", &["'23:59:59.999999+15:59'", "'24:00:00-15:59'"]),
        (
            "interval",
            &["'178000000 years'", "'-1 mon +1 day -00:00:00.000001'", "'1 mon'", "'30 days'", "'720:00:00'"],
        ),
        ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ];
    alike("", families, true);
}

#[test]
fn v01_the_sessions_own_time_zone_and_styles_do_not_matter() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    let odd = format!(
        "ALTER DATABASE {0} SET timezone = 'America/St_Johns'; ALTER DATABASE {0} SET datestyle = 'SQL, DMY';
         ALTER DATABASE {0} SET intervalstyle = 'sql_standard'; ALTER DATABASE {0} SET extra_float_digits = -10;
         ALTER DATABASE {0} SET bytea_output = 'escape'; ALTER DATABASE {0} SET standard_conforming_strings = off; SET standard_conforming_strings = on",
        stage.name
    );
    stage.on_source(&odd);
    stage.on_target(&odd.replace("St_Johns", "Caracas").replace("DMY", "MDY"));
    stage.on_source(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, day date, span interval, f float8, b bytea, note text);
         INSERT INTO t VALUES (1, '2026-10-25 00:30:00+00', '2026-02-03', '1 mon -2 days +03:00', 1/3.0, E'\\\\x5c00ff', E'back\\\\slash')",
    );
    stage.copied();
    stage.on_source("INSERT INTO t SELECT id + 1, at, day, span, f, b, note FROM t");
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn v02_text_and_bytes_are_alike_by_copy_and_by_log() {
    let families: &[(&str, &[&str])] = &[
        (
            "text",
            &[
                "''",
                "NULL",
                "'NULL'",
                "'\\N'",
                "'é😀 '",
                "E'tab\\tline\\nreturn\\r\\b\\f\\v back\\\\slash'",
                "E'\\u0001\\u007f\\uFFFD'",
                "convert_from('\\xc383c2a9', 'UTF8')",
                "repeat('long 😀', 5000)",
                "'{\"\",NULL}'",
            ],
        ),
        ("varchar(5)", &["'ab   '", "''", "'😀😀😀😀😀'"]),
        ("char(5)", &["'ab'", "''", "'ab   '", "NULL"]),
        ("\"char\"", &["'a'", "''", "'\\200'"]),
        ("name", &["'name'", "''"]),
        (
            "bytea",
            &[
                "''",
                "'\\x00'",
                "'\\xff00'",
                "'\\x5c6e0a0d09000000'",
                "decode(repeat('00ff', 9000), 'hex')",
                "NULL",
            ],
        ),
    ];
    alike("", families, true);
}

#[test]
fn v03_documents_arrays_and_ranges_are_alike_by_copy_and_by_log() {
    let families: &[(&str, &[&str])] = &[
        ("json", &["'{\"b\": 1,  \"a\": 2, \"b\": 3}'", "'1e400'", "'\"\\u00e9\\\\n\"'", "' [1,\n2] '"]),
        ("jsonb", &["'{\"b\": 1, \"a\": 123456789012345678901234567890.10}'", "'null'", "NULL"]),
        ("int[]", &["'{}'", "'[-2:0]={1,NULL,3}'", "'{{1,2},{3,NULL}}'", "'[0:1][5:6]={{1,2},{3,4}}'"]),
        ("text[]", &["'{NULL,\"NULL\",\"\",\"a,b\",\"\\\"q\\\"\",\"\\\\\\\\\"}'", "'{\" x \"}'"]),
        ("numeric[]", &["'{NaN,1.10,-Infinity}'"]),
        ("int4range", &["'empty'", "'(,)'", "'[1,5)'"]),
        ("tstzrange", &["'[-infinity,infinity]'", "'(2026-01-01 00:00:00.000001+00,)'"]),
        ("int8multirange", &["'{}'", "'{[1,3),[5,)}'"]),
        ("inet", &["'10.0.0.1/8'", "'::ffff:1.2.3.4'", "'2001:db8::1/64'"]),
        ("cidr", &["'10.0.0.0/8'"]),
        ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
        ("uuid", &["'00000000-0000-0000-0000-000000000000'"]),
        ("bit(5)", &["B'10101'", "B'00000'"]),
        ("varbit", &["B''", "B'000000001'"]),
        ("point", &["'(-0,NaN)'", "'(1e-300,Infinity)'"]),
        ("polygon", &["'((0,0),(0.1,1),(1,0))'"]),
        ("path", &["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"]),
        ("tsvector", &["'a:1A,2 b:3'", "''"]),
        ("tsquery", &["'a:*A & !(b <2> c)'"]),
        ("money", &["'-92233720368547758.08'", "12.34"]),
        ("pg_lsn", &["'FFFFFFFF/FFFFFFFF'"]),
        ("jsonpath", &["'$.a[*] ? (@ > 1)'"]),
    ];
    alike("", families, true);
    let made: &[(&str, &[&str])] = &[
        ("mood", &["'sad'", "'very glad, \"really\"'"]),
        ("mood[]", &["'{sad,NULL}'"]),
        ("cents", &["5", "NULL"]),
        ("place", &["ROW('a \"b\", (c)', NULL, ARRAY[1, NULL])", "ROW(NULL, NULL, NULL)", "NULL"]),
        ("place[]", &["ARRAY[ROW('x', 1, '{}')::place, NULL]"]),
        ("floatrange", &["'[0.1,NaN]'", "'empty'"]),
        ("hstore", &["'\"a b\"=>NULL, c=>\"NULL\"'", "''"]),
        ("citext", &["'MiXed '"]),
    ];
    let setup = "CREATE TYPE mood AS ENUM ('sad', 'very glad, \"really\"'); CREATE DOMAIN cents AS bigint CHECK (VALUE >= 0);
        CREATE TYPE place AS (street text, number numeric, more int[]); CREATE TYPE floatrange AS RANGE (subtype = float8);
        CREATE EXTENSION hstore; CREATE EXTENSION citext";
    alike(setup, made, false);
}
