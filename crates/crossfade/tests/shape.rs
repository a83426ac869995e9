//! C: tables of every shape and size, and copies that are cut off.

use testkit::postgres::Server;
use testkit::proxy::Proxy;
use testkit::{Load, Pair, shop, wait};

const CROSSFADE: &str = env!("CARGO_BIN_EXE_crossfade");

#[test]
fn c09_keys_at_the_edges_and_beyond_the_plan() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    stage.on_source(
        "CREATE TABLE edge (id bigint PRIMARY KEY, value text);
         INSERT INTO edge SELECT n, repeat('x', 100) FROM generate_series(-500, 5000) n;
         INSERT INTO edge VALUES (9223372036854775807, 'max'), (-9223372036854775808, 'min'), (1099511627776, 'jump');
         CREATE TABLE skewed (common int, id int, value text, PRIMARY KEY (common, id));
         INSERT INTO skewed SELECT CASE WHEN n % 10 = 0 THEN n ELSE 1 END, n, repeat('y', 100) FROM generate_series(1, 5000) n;
         CREATE TABLE words (word text COLLATE \"C\" PRIMARY KEY, value int);
         INSERT INTO words SELECT chr(33 + n % 900) || n, n FROM generate_series(1, 5000) n;
         CREATE TABLE stamps (at timestamptz PRIMARY KEY, value text);
         INSERT INTO stamps SELECT timestamptz '2026-01-01' + n * interval '1 us', repeat('z', 100) FROM generate_series(1, 5000) n;
         INSERT INTO stamps VALUES ('-infinity', 'first'), ('infinity', 'last'), ('0044-03-15 BC', 'ides');",
    );
    let load = Load { pause_ms_max: 2, ..Load::default() };
    let writers = shop::repeat(&stage.source, load, |rng| {
        let n = rng.u32(1..=5_000);
        let far = (u64::from(n) << rng.u32(10..50)).to_string();
        vec![match rng.u8(0..8) {
            0 => format!("INSERT INTO edge VALUES ({far}, 'above') ON CONFLICT DO NOTHING"),
            1 => format!("INSERT INTO edge VALUES (-{far}, 'below') ON CONFLICT DO NOTHING"),
            2 => format!(
                "UPDATE edge SET id = 9223372036854775806 - id WHERE id IN ({n}, 9223372036854775806 - {n}) AND id > 0"
            ),
            3 => format!("DELETE FROM edge WHERE id = {n}"),
            4 => format!("UPDATE skewed SET common = 3 - common WHERE id = {n} AND common IN (1, 2)"),
            5 => format!(
                "INSERT INTO words VALUES (chr({n} % 50000 + 1) || 'new', {n}) ON CONFLICT (word) DO UPDATE SET value = {n}"
            ),
            6 => format!("UPDATE words SET word = word || '~' WHERE value = {n}"),
            _ => format!(
                "UPDATE stamps SET at = at - interval '3000 years' WHERE at = timestamptz '2026-01-01' + {n} * interval '1 us'"
            ),
        }]
    });
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn c10_text_keys_that_a_collation_orders_or_equates() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    stage.on_source(
        "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE named (name text COLLATE blind PRIMARY KEY, value int);
         INSERT INTO named SELECT 'Name ' || n, n FROM generate_series(1, 3000) n;
         CREATE TABLE padded (code char(10) PRIMARY KEY, value int);
         INSERT INTO padded SELECT 'c' || n, n FROM generate_series(1, 3000) n",
    );
    stage.copied();
    stage.on_source(
        "UPDATE named SET name = upper(name) WHERE value % 3 = 0;
         UPDATE named SET value = -value WHERE name = 'NAME 7';
         DELETE FROM named WHERE name = 'name 8';
         UPDATE padded SET value = -value WHERE code = 'c7   '; DELETE FROM padded WHERE code = 'c8'",
    );
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}

#[test]
fn c11_partitions_inheritance_and_rows_that_move_between_them() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    stage.on_source(
        "CREATE TABLE root (id int, region int, note text, PRIMARY KEY (id, region)) PARTITION BY RANGE (region);
         CREATE TABLE low PARTITION OF root FOR VALUES FROM (0) TO (10);
         CREATE TABLE high PARTITION OF root FOR VALUES FROM (10) TO (20) PARTITION BY HASH (id);
         CREATE TABLE high0 PARTITION OF high FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE high1 PARTITION OF high FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         CREATE TABLE other PARTITION OF root DEFAULT;
         INSERT INTO root SELECT n, n % 25, repeat(md5(n::text), 80) FROM generate_series(1, 3000) n;
         CREATE TABLE parent (id int PRIMARY KEY, value text);
         CREATE TABLE child (extra int, PRIMARY KEY (id)) INHERITS (parent);
         INSERT INTO parent SELECT n, 'parent' FROM generate_series(1, 500) n;
         INSERT INTO child SELECT n, 'child', n FROM generate_series(1, 500) n",
    );
    let writers = shop::repeat(&stage.source, Load { pause_ms_max: 2, ..Load::default() }, |rng| {
        let n = rng.u32(1..=3_000);
        vec![match rng.u8(0..4) {
            0 | 1 => format!("UPDATE root SET region = {} WHERE id = {n}", rng.u32(0..25)),
            2 => format!("UPDATE parent SET value = value || '.' WHERE id = {n}"),
            _ => format!("DELETE FROM root WHERE id = {n}"),
        }]
    });
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}

#[test]
fn c11_attach_and_detach_are_carried_over_or_stop_clearly() {
    let pair = Pair::start();
    let changes = [
        // A table that was there before becomes a partition; the opposite; one that is new altogether.
        ("ALTER TABLE root ATTACH PARTITION loose FOR VALUES FROM (10) TO (20)", "loose"),
        ("ALTER TABLE root DETACH PARTITION low", "low"),
        (
            "CREATE TABLE fresh (id int, region int, PRIMARY KEY (id, region)); INSERT INTO fresh VALUES (5, 30);
             ALTER TABLE root ATTACH PARTITION fresh FOR VALUES FROM (30) TO (40)",
            "fresh",
        ),
        ("CREATE TABLE fresh PARTITION OF root FOR VALUES FROM (30) TO (40)", "fresh"),
    ];
    for (change, table) in changes {
        let stage = pair.stage(CROSSFADE).many_cuts();
        stage.on_source(
            "CREATE TABLE root (id int, region int, PRIMARY KEY (id, region)) PARTITION BY RANGE (region);
             CREATE TABLE low PARTITION OF root FOR VALUES FROM (0) TO (10);
             CREATE TABLE loose (id int, region int, PRIMARY KEY (id, region));
             INSERT INTO root SELECT n, n % 10 FROM generate_series(1, 3000) n;
             INSERT INTO loose SELECT n, 10 + n % 10 FROM generate_series(1, 3000) n",
        );
        let mut run = stage.run(&[]);
        stage.wait_rows(&mut run, 1);
        stage.on_source(change);
        let grown = format!(
            "INSERT INTO {table} SELECT n, max(region) FROM {table}, generate_series(9000, 9010) n GROUP BY n"
        );
        stage.on_source(if change.starts_with("CREATE TABLE fresh P") {
            "INSERT INTO root SELECT n, 35 FROM generate_series(9000, 9010) n"
        } else {
            &grown
        });
        wait::until("it stops or follows", wait::LONG, || {
            let follows = stage.status().is_some_and(|status| status["phase"] == "following");
            (!run.running() || follows).then_some(())
        });
        run.terminate();
        let finished = stage.run_command(&["--until", "caught-up"]).output();
        stage.carried_over_or_stopped(&finished, table);
    }
}

#[test]
fn c12_killed_around_a_chunks_commit() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).many_cuts();
    shop::create(&stage.source, 1_000);
    let writers = shop::write(&stage.source, Load::default());
    for round in 1..=4 {
        for point in ["chunk.before_commit", "chunk.after_commit"] {
            stage.run_into(&format!("{point}:{round}")).assert_died();
        }
    }
    writers.stop();
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn c12_the_sources_connection_breaks_inside_a_chunk() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).flags(&["--chunk-bytes", "1048576"]);
    stage.on_source(
        "CREATE TABLE wide (id int PRIMARY KEY, note text);
         ALTER TABLE wide ALTER note SET STORAGE EXTERNAL;
         INSERT INTO wide SELECT n, repeat(md5(n::text), 100) FROM generate_series(1, 20000) n",
    );
    let direct = stage.source.clone();
    let proxy = Proxy::start(pair.source.port());
    let stage = {
        let url = pair.source.url_by(proxy.port(), &stage.name);
        stage.via(Some(url), None)
    };
    // More than comes before the first row.
    proxy.cut_after(1_300_000);
    let mut run = stage.run(&["--until", "caught-up"]);
    wait::until("the connection was cut", wait::LONG, || {
        assert!(run.running(), "{}{}", run.out(), run.err());
        (proxy.cuts() > 0).then_some(())
    });
    for bytes in [300_000, 3_000_000, 700_000, 5_000_000, 1_234_567] {
        let cuts = proxy.cuts();
        proxy.cut_after(bytes);
        wait::until("the connection was cut, or all is read", wait::LONG, || {
            (proxy.cuts() > cuts || !run.running()).then_some(())
        });
    }
    run.wait().assert_code(0);
    assert!(proxy.cuts() >= 3, "the copy was over too soon to be cut: {} cuts", proxy.cuts());
    let stage = stage.via(Some(direct), None);
    stage.assert_equal();
}

#[test]
fn c13_empty_tiny_late_and_strangely_named_tables() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(
        "CREATE TABLE empty (id int PRIMARY KEY);
         CREATE TABLE single (id int PRIMARY KEY); INSERT INTO single VALUES (1);
         CREATE TABLE late (id int PRIMARY KEY, value text);
         CREATE TABLE worn (gone1 int, id int PRIMARY KEY, gone2 text, value text, gone3 int);
         INSERT INTO worn SELECT n, n, 'x', 'v', n FROM generate_series(1, 100) n;
         ALTER TABLE worn DROP gone1, DROP gone2, DROP gone3, ADD added int DEFAULT 5;
         CREATE SCHEMA \"Odd \"\"schema\"; CREATE TABLE \"Odd \"\"schema\".\"sel'ect; --\" (\"Key.\" int PRIMARY KEY, \"öäü\" text);
         INSERT INTO \"Odd \"\"schema\".\"sel'ect; --\" VALUES (1, 'it''s');
         CREATE TABLE computed (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
         INSERT INTO computed (a) SELECT n FROM generate_series(1, 50) n;",
    );
    stage.copied();
    stage.on_source(
        "INSERT INTO late SELECT n, 'late' FROM generate_series(1, 100) n;
         INSERT INTO empty VALUES (7); DELETE FROM single;
         UPDATE worn SET value = 'w', added = NULL WHERE id < 10;
         UPDATE \"Odd \"\"schema\".\"sel'ect; --\" SET \"Key.\" = 2;
         INSERT INTO computed (a) VALUES (99); UPDATE computed SET a = -a WHERE id < 10; DELETE FROM computed WHERE id = 20",
    );
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}

#[test]
fn c13_columns_in_another_order_on_the_target() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b timestamptz, c numeric);
         INSERT INTO t SELECT n, 'a' || n, now(), n / 3.0 FROM generate_series(1, 1000) n",
    );
    stage.on_target("CREATE TABLE t (c numeric, b timestamptz, gone int, a text, id int PRIMARY KEY); ALTER TABLE t DROP gone");
    stage.copied();
    stage.on_source("UPDATE t SET a = 'changed', c = NULL WHERE id < 100; DELETE FROM t WHERE id = 500");
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn c13_as_many_columns_as_there_can_be() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    let columns: Vec<String> = (1..1600).map(|n| format!("c{n} int")).collect();
    stage.on_source(&format!("CREATE TABLE wide (id int PRIMARY KEY, {})", columns.join(", ")));
    stage.on_source("INSERT INTO wide (id, c1, c1599) SELECT n, n, n FROM generate_series(1, 200) n");
    stage.copied();
    stage.on_source(
        "UPDATE wide SET c800 = id, c1 = NULL WHERE id < 50; INSERT INTO wide (id, c1598) VALUES (999, 1)",
    );
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn c13_a_value_of_many_megabytes() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(
        "CREATE TABLE huge (id int PRIMARY KEY, value int, body text, data bytea);
         INSERT INTO huge SELECT n, n, repeat(md5(n::text), 1000000), NULL FROM generate_series(1, 2) n",
    );
    stage.copied();
    stage.on_source("UPDATE huge SET value = -1 WHERE id = 1");
    stage.on_source("UPDATE huge SET body = repeat('é', 15000000), data = decode(repeat('00ff', 8000000), 'hex') WHERE id = 2");
    stage.on_source("INSERT INTO huge VALUES (3, 3, repeat('z', 60000000))");
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn c14_without_a_key_and_with_equal_rows() {
    let pair = Pair::start();
    let setup = "CREATE TABLE keyless (a int, b text, c numeric); ALTER TABLE keyless REPLICA IDENTITY FULL;
         INSERT INTO keyless SELECT n % 10, CASE n % 3 WHEN 0 THEN NULL ELSE 'b' END, 1.50 FROM generate_series(1, 300) n;
         INSERT INTO keyless VALUES (NULL, NULL, NULL), (NULL, NULL, NULL), (NULL, NULL, NULL);
         CREATE TABLE half (a int, b int, UNIQUE (a, b)); ALTER TABLE half REPLICA IDENTITY FULL;
         INSERT INTO half VALUES (1, NULL), (1, NULL), (NULL, NULL), (1, 2)";
    let one = |condition: &str| format!("ctid = (SELECT ctid FROM keyless WHERE {condition} LIMIT 1)");
    let changes = format!(
        "DELETE FROM keyless WHERE {};
         UPDATE keyless SET c = 2 WHERE {};
         DELETE FROM keyless WHERE {};
         UPDATE keyless SET a = 5 WHERE {};
         UPDATE keyless SET b = 'all' WHERE a = 7;
         DELETE FROM half WHERE ctid = (SELECT ctid FROM half WHERE a = 1 AND b IS NULL LIMIT 1)",
        one("a = 1 AND b = 'b'"),
        one("a = 2 AND b IS NULL"),
        one("a IS NULL"),
        one("a IS NULL AND c IS NULL"),
    );
    for apply in ["catch-up", "strict"] {
        let stage = pair.stage(CROSSFADE).flags(&["--apply", apply]);
        stage.on_source(setup);
        stage.copied();
        stage.on_source(&changes);
        stage.caught_up();
        stage.assert_equal();
    }
}

#[test]
fn from_the_oldest_version_to_the_newest() {
    let pair = Pair::of(Server::version(13), Server::version(18));
    let stage = pair.stage(CROSSFADE).many_cuts();
    shop::create(&stage.source, 1_000);
    let writers = shop::write(&stage.source, Load::default());
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    writers.stop();
    run.terminate().assert_code(0);
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn from_the_newest_version_into_tables_that_are_there() {
    // The dump program of an older release cannot read a newer server, so a person brings the schema.
    let pair = Pair::of(Server::version(18), Server::builder());
    let stage = pair.stage(CROSSFADE);
    let schema = "CREATE TABLE t (id int PRIMARY KEY, value text); CREATE TABLE k (a int); ALTER TABLE k REPLICA IDENTITY FULL";
    stage.on_source(schema);
    stage.on_target(schema);
    stage.on_source("INSERT INTO t SELECT n, 'v' FROM generate_series(1, 1000) n; INSERT INTO k SELECT n % 3 FROM generate_series(1, 99) n");
    stage.copied();
    stage.on_source(
        "UPDATE t SET value = 'w' WHERE id < 100; DELETE FROM k WHERE ctid IN (SELECT ctid FROM k LIMIT 5)",
    );
    stage.caught_up();
    stage.assert_equal();
}
