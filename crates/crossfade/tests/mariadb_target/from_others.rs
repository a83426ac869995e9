//! From PostgreSQL and from SQLite into MariaDB.

use std::thread::sleep;
use std::time::Duration;

use testkit::mariadb::{self, Stop};
use testkit::{Folder, Load, Stage, kiosk, postgres, till};

use crate::{CROSSFADE, MODES, ask, carried_or_refused, caught_up, refused};

/// A PostgreSQL and a MariaDB, and migrations from one to the other.
struct Sides {
    source: postgres::Server,
    target: mariadb::Server,
    stages: u32,
}

impl Sides {
    fn start() -> Sides {
        Sides {
            source: postgres::Server::builder().without_fsync().start(),
            target: mariadb::Server::builder().without_fsync().start(),
            stages: 0,
        }
    }

    fn stage(&mut self) -> Stage {
        self.stages += 1;
        let (name, moved) = (format!("kiosk{}", self.stages), format!("kiosk{}_moved", self.stages));
        self.source.create_database(&name);
        self.target.create_database(&moved);
        Stage::new(CROSSFADE, &name, self.source.url(&name), self.target.url(&moved))
    }
}

#[test]
fn p01_from_postgres_killed_under_load() {
    let mut sides = Sides::start();
    let stage = sides.stage().many_cuts();
    kiosk::create(&stage.source, 1_000);
    let load = Load { truncate: true, pause_ms_max: 5, ..Load::default() };
    let writers = kiosk::write(&stage.source, load);
    for round in 0..8 {
        let run = stage.run(&[]);
        sleep(Duration::from_millis(250 + 250 * round));
        match round % 4 {
            1 => sides.target.restart(Stop::Kill),
            3 => sides.source.restart(Stop::Kill),
            _ => {}
        }
        run.kill();
    }
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    sleep(Duration::from_secs(2));
    run.terminate().assert_code(0);
    let tally = writers.stop();
    assert!(tally.committed > 100, "{tally}");
    stage.caught_up();
    let report = stage.assert_equal();
    assert!(report.rows() > 3_000, "{report}");
}

/// A table is copied from PostgreSQL, and these transactions follow.
fn from_postgres(setup: &str, changes: &[&str]) {
    let mut sides = Sides::start();
    for mode in MODES {
        let stage = sides.stage().flags(&["--apply", mode]);
        stage.on_source(setup);
        stage.copied();
        changes.iter().for_each(|change| stage.on_source(change));
        stage.caught_up();
        stage.assert_equal();
    }
}

const DOC: &str = "CREATE TABLE doc (id int PRIMARY KEY, title text, body text, extra bytea);
    ALTER TABLE doc ALTER body SET STORAGE EXTERNAL, ALTER extra SET STORAGE EXTERNAL;
    INSERT INTO doc SELECT n, 'title', repeat(md5(n::text), 100), repeat(md5(n::text), 200)::bytea FROM generate_series(1, 200) n";

#[test]
fn t01_a_large_value_that_the_log_leaves_out_stays() {
    from_postgres(
        DOC,
        &[
            "UPDATE doc SET title = 'once' WHERE id <= 50",
            "UPDATE doc SET title = 'twice' WHERE id <= 20",
            "UPDATE doc SET body = NULL WHERE id = 3",
            "UPDATE doc SET title = 'after null' WHERE id = 3",
            "UPDATE doc SET id = id + 1000 WHERE id BETWEEN 30 AND 40",
        ],
    );
}

#[test]
fn t02_an_update_with_the_large_value_and_one_without_it() {
    from_postgres(
        DOC,
        &[
            // In one transaction, both orders; then in two, both orders.
            "UPDATE doc SET body = repeat('new', 2000) WHERE id = 1; UPDATE doc SET title = 'then' WHERE id = 1",
            "UPDATE doc SET title = 'first' WHERE id = 2; UPDATE doc SET body = repeat('new', 2000) WHERE id = 2",
            "UPDATE doc SET body = repeat('a', 5000) WHERE id = 3",
            "UPDATE doc SET title = 'b' WHERE id = 3",
            "UPDATE doc SET title = 'b' WHERE id = 4",
            "UPDATE doc SET body = repeat('a', 5000) WHERE id = 4",
            // One large value changes, the other does not, crosswise.
            "UPDATE doc SET body = repeat('c', 5000) WHERE id = 5",
            "UPDATE doc SET extra = repeat('d', 5000)::bytea WHERE id = 5",
            "UPDATE doc SET title = 'e' WHERE id = 5",
        ],
    );
}

/// A type of PostgreSQL, and values of it that MariaDB can hold.
const CARRIED: &[(&str, &[&str])] = &[
    ("smallint", &["-32768", "32767", "NULL"]),
    ("int", &["-2147483648", "2147483647"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807", "0"]),
    ("boolean", &["true", "false", "NULL"]),
    ("numeric(12,2)", &["1.50", "-9999999999.99", "0", "NULL"]),
    (
        "numeric",
        &["1.10", "12345678901234567890123456789012345.000000000000000000000000000001", "-0.000001", "100"],
    ),
    ("real", &["0.1", "16777217", "1e-45", "3.4028235e38", "NULL"]),
    ("float8", &["0.1", "5e-324", "1e23", "1.7976931348623157e308", "-1/3.0", "1e-300"]),
    (
        "text",
        &[
            "''",
            "NULL",
            "'NULL'",
            "'\\N'",
            "'trail  '",
            "'  lead'",
            "'é😀 '",
            "E'tab\\tline\\nreturn\\r\\b\\f\\v back\\\\slash ''quoted'' \"double\"'",
            "E'\\u0001\\u001a\\u007f\\uFFFD'",
            "repeat('long 😀', 50000)",
        ],
    ),
    ("varchar(5)", &["'ab   '", "''", "'😀😀😀😀😀'"]),
    ("char(5)", &["'ab'", "''", "NULL"]),
    (
        "bytea",
        &[
            "''",
            "'\\x00'",
            "'\\xff00'",
            "'\\x5c6e0a0d09000000'",
            "decode(repeat('00ff5c', 90000), 'hex')",
            "NULL",
        ],
    ),
    ("date", &["'0001-01-01'", "'9999-12-31'", "'2024-02-29'", "NULL"]),
    ("time", &["'24:00:00'", "'00:00:00.000001'", "'12:34:56.7'"]),
    ("timestamp", &["'1000-01-01'", "'9999-12-31 23:59:59.999999'", "'2026-03-29 02:30:00.1'"]),
    ("timestamp(0)", &["'2026-02-03 04:05:06'"]),
    (
        "timestamptz",
        &[
            "'2026-03-29 01:59:59.999999 Europe/Berlin'",
            "'2026-10-25 02:30:00 CEST'",
            "'2026-10-25 02:30:00 CET'",
            "'1970-01-01 00:00:01+00'",
        ],
    ),
    ("uuid", &["'00000000-0000-0000-0000-000000000000'", "'FFFFFFFF-ffff-4fff-bfff-000000000000'", "NULL"]),
    ("json", &["'{\"b\": 1,  \"a\": 2, \"b\": 3}'", "'\"\\u00e9\\\\n\"'", "' [1,\n2] '", "'null'"]),
    ("jsonb", &["'{\"b\": 1, \"a\": 123456789012345678901234567890.10}'", "'\"é😀\"'", "NULL"]),
    // What only PostgreSQL knows arrives as the text that it prints.
    ("int[]", &["'{}'", "'{1,NULL,3}'"]),
    ("inet", &["'10.0.0.1/8'", "'2001:db8::1'"]),
    ("interval", &["'1 mon -2 days +03:00'", "'1 year'"]),
    ("timetz", &["'23:59:59.999999+15:59'"]),
    ("bit(5)", &["B'10101'"]),
    ("mood", &["'sad'", "'very glad, \"really\"'", "NULL"]),
    ("cents", &["5", "NULL"]),
    ("tstzrange", &["'[2026-01-01 00:00:00+00,)'"]),
];

#[test]
fn v03_values_from_postgres_are_alike_by_copy_and_by_log() {
    let mut sides = Sides::start();
    for mode in MODES {
        let stage = sides.stage().flags(&["--apply", mode]);
        stage.on_source("CREATE TYPE mood AS ENUM ('sad', 'very glad, \"really\"'); CREATE DOMAIN cents AS bigint CHECK (VALUE >= 0)");
        for (number, (kind, values)) in CARRIED.iter().enumerate() {
            stage.on_source(&format!("CREATE TABLE v{number} (id int PRIMARY KEY, v {kind}, w {kind})"));
            for (at, value) in values.iter().enumerate() {
                stage.on_source(&format!("INSERT INTO v{number} VALUES ({at}, {value}, {value})"));
            }
        }
        stage.copied();
        for number in 0..CARRIED.len() {
            stage.on_source(&format!(
                "INSERT INTO v{number} SELECT id + 1000, v, NULL FROM v{number}; UPDATE v{number} SET w = v WHERE id >= 1000"
            ));
        }
        stage.caught_up();
        stage.assert_equal();
    }
}

#[test]
fn v01_numbers_and_times_without_an_end_are_refused_by_name() {
    let mut sides = Sides::start();
    for (kind, good, value) in [
        ("numeric", "1", "'NaN'"),
        ("numeric", "1", "'-Infinity'"),
        ("float8", "1", "'NaN'"),
        ("float8", "1", "'Infinity'"),
        ("real", "1", "'-Infinity'"),
        ("date", "'2026-02-03'", "'infinity'"),
        ("timestamp", "'2026-02-03'", "'-infinity'"),
        ("timestamptz", "'2026-02-03'", "'infinity'"),
    ] {
        let stage = sides.stage();
        stage.on_source(&format!("CREATE TABLE odd (id int PRIMARY KEY, amount {kind}); INSERT INTO odd VALUES (1, {good}), (2, {value})"));
        refused(caught_up(&stage), &["odd", "amount"]);

        let stage = sides.stage();
        stage.on_source(&format!(
            "CREATE TABLE odd (id int PRIMARY KEY, amount {kind}); INSERT INTO odd VALUES (1, {good})"
        ));
        stage.caught_up();
        stage.on_source(&format!("INSERT INTO odd VALUES (2, {value})"));
        refused(caught_up(&stage), &["odd", "amount"]);
        assert_eq!(ask(&stage.target, "SELECT COUNT(*) FROM odd"), "1", "{value} of {kind}");
    }
}

#[test]
fn v01_what_lies_beyond_mariadbs_ranges_is_carried_or_refused_by_name() {
    let mut sides = Sides::start();
    for (kind, value) in [
        ("numeric", "1e40"),
        ("numeric", "1e-31"),
        ("numeric", "repeat('9', 100)::numeric"),
        ("float8", "'-0'"),
        ("date", "'0044-03-15 BC'"),
        ("date", "'10000-01-01'"),
        ("timestamp", "'0044-03-15 12:00:00 BC'"),
        ("timestamptz", "'294276-12-31 23:59:59.999999+00'"),
        ("timestamptz", "'1000-01-01 00:00+00'"),
        ("timestamptz", "'9999-12-31 23:59:59+00'"),
        ("interval", "'178000000 years'"),
    ] {
        let stage = sides.stage();
        stage.on_source(&format!("CREATE TABLE odd (id int PRIMARY KEY, amount {kind}); INSERT INTO odd VALUES (1, NULL), (2, {value})"));
        carried_or_refused(&stage, &["odd", "amount"]);
    }
}

/// PostgreSQL tells them apart; under MariaDB's usual collations they would be one.
#[test]
fn c10_keys_that_differ_by_case_accent_or_space_stay_apart() {
    from_postgres(
        "CREATE TABLE word (word varchar(40) PRIMARY KEY, n int); CREATE TABLE pair (tenant int, code text, n int, PRIMARY KEY (tenant, code));
         CREATE TABLE alias (id int PRIMARY KEY, alias varchar(40) UNIQUE);
         INSERT INTO word VALUES ('a', 1), ('A', 2), ('a ', 3), ('á', 4), ('ß', 5), ('ss', 6), ('', 7), (' ', 8);
         INSERT INTO pair SELECT 1, word, n FROM word; INSERT INTO alias SELECT n, word FROM word",
        &[
            "UPDATE word SET n = -n WHERE word = 'A'; UPDATE pair SET n = -n WHERE code = 'a '",
            "DELETE FROM word WHERE word = 'a'; DELETE FROM pair WHERE code = 'ss'",
            "UPDATE word SET word = 'a  ' WHERE word = 'a '; UPDATE pair SET code = 'SS' WHERE code = 'ß'",
            "INSERT INTO word VALUES ('a', 10), ('Á', 11); UPDATE alias SET alias = 'A ' WHERE id = 1",
            "UPDATE alias SET alias = 'moving' WHERE id = 2; UPDATE alias SET alias = 'A' WHERE id = 3; UPDATE alias SET alias = 'a ' WHERE id = 2",
        ],
    );
}

/// An index of InnoDB takes 3072 bytes.
#[test]
fn c13_keys_longer_than_an_index_takes_are_carried_or_refused_by_name() {
    let mut sides = Sides::start();
    let stage = sides.stage();
    stage.on_source(
        "CREATE TABLE long_key (k text PRIMARY KEY, v int); INSERT INTO long_key SELECT string_agg(md5(n::text), ''), 1 FROM generate_series(1, 60) n",
    );
    carried_or_refused(&stage, &["long_key"]);

    let stage = sides.stage();
    stage.on_source(
        "CREATE TABLE long_key (k text PRIMARY KEY, v int); INSERT INTO long_key VALUES ('short', 1)",
    );
    carried_or_refused(&stage, &["long_key"]);
    stage.on_source(
        "INSERT INTO long_key SELECT string_agg(md5(n::text), ''), 1 FROM generate_series(1, 60) n",
    );
    carried_or_refused(&stage, &["long_key"]);
}

#[test]
fn c14_rows_without_a_key_from_postgres() {
    from_postgres(
        "CREATE TABLE bare (word text, yes boolean, n numeric, f float8, r real, b bytea, at timestamptz, doc jsonb, u uuid);
         ALTER TABLE bare REPLICA IDENTITY FULL;
         INSERT INTO bare SELECT w, true, 1.10, 0.1, 0.1, '\\x00ff', '2026-02-03 04:05:06.7+00', '{\"a\": 1}', '00000000-0000-0000-0000-00000000000a'
            FROM unnest(ARRAY['a', 'a', 'a', 'A', 'a ', 'á']) w;
         INSERT INTO bare (word) VALUES (NULL), (NULL), ('')",
        &[
            "DELETE FROM bare WHERE ctid = (SELECT ctid FROM bare WHERE word = 'a' LIMIT 1)",
            "UPDATE bare SET n = n + 1 WHERE ctid = (SELECT ctid FROM bare WHERE word = 'a' LIMIT 1)",
            "DELETE FROM bare WHERE word = 'A'",
            "UPDATE bare SET word = 'b' WHERE word = 'a '",
            "DELETE FROM bare WHERE ctid = (SELECT ctid FROM bare WHERE word IS NULL LIMIT 1)",
        ],
    );
}

/// MariaDB has no schemas: two tables would become one.
#[test]
fn two_tables_of_one_name_are_refused_by_name() {
    let mut sides = Sides::start();
    let stage = sides.stage();
    stage.on_source(
        "CREATE SCHEMA other; CREATE TABLE twin (id int PRIMARY KEY); CREATE TABLE other.twin (id int PRIMARY KEY);
         INSERT INTO twin VALUES (1); INSERT INTO other.twin VALUES (2)",
    );
    refused(caught_up(&stage), &["public.twin", "other.twin"]);
}

#[test]
fn p01_from_sqlite_killed_under_load() {
    let folder = Folder::new("sqlite");
    let target = mariadb::Server::builder().without_fsync().start();
    for (name, many_cuts) in [("one_cut", false), ("many_cuts", true)] {
        let file = folder.join(name).display().to_string();
        till::create(&file, 2_000);
        target.create_database(name);
        let mut stage = Stage::new(CROSSFADE, name, format!("sqlite:{file}"), target.url(name));
        if many_cuts {
            stage = stage.many_cuts();
        }
        let writers = till::write(&file, Load { truncate: true, ..Load::default() });
        for pause_ms in [150, 350, 600, 900, 1_300] {
            let run = stage.run(&[]);
            sleep(Duration::from_millis(pause_ms));
            run.kill();
        }
        let mut run = stage.run(&[]);
        stage.wait_following(&mut run);
        sleep(Duration::from_secs(1));
        run.terminate().assert_code(0);
        let tally = writers.stop();
        assert!(tally.committed > 50, "{tally}");
        stage.caught_up();
        stage.assert_equal();
    }
}

#[test]
fn a_value_of_sqlite_that_does_not_fit_is_an_error_and_not_a_guess() {
    let folder = Folder::new("sqlite");
    let target = mariadb::Server::builder().without_fsync().start();
    for (number, (kind, value)) in [
        ("INTEGER", "'many'"),
        ("BOOLEAN", "2"),
        ("DATE", "'yesterday'"),
        ("DECIMAL(10,2)", "'1,5'"),
        ("TEXT", "x'00ff'"),
    ]
    .iter()
    .enumerate()
    {
        let file = folder.join(format!("odd{number}")).display().to_string();
        let rows = format!(
            "CREATE TABLE odd (id INTEGER PRIMARY KEY, amount {kind}); INSERT INTO odd VALUES (1, NULL), (2, {value})"
        );
        rusqlite::Connection::open(&file)
            .and_then(|file| file.execute_batch(&rows))
            .expect("make a SQLite file");
        let name = format!("odd{number}");
        target.create_database(&name);
        let stage = Stage::new(CROSSFADE, &name, format!("sqlite:{file}"), target.url(&name));
        refused(caught_up(&stage), &["odd", "amount"]);
    }
}
