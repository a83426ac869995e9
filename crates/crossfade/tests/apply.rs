//! T and A: changes that are hard to apply, in both modes.
//!
//! Most tests have one form: a table is copied, changes are committed while nobody looks, so that they are
//! folded together, and once more one by one while the migration follows.

use testkit::postgres::connect;
use testkit::{Load, Pair, Stage, shop};

const CROSSFADE: &str = env!("CARGO_BIN_EXE_crossfade");

const MODES: [&str; 2] = ["catch-up", "strict"];

/// `changes`: each a source transaction.
fn check(setup: &str, changes: &[&str]) {
    let pair = Pair::start();
    for mode in MODES {
        let folded = pair.stage(CROSSFADE).flags(&["--apply", mode]);
        folded.on_source(setup);
        folded.copied();
        changes.iter().for_each(|change| folded.on_source(change));
        folded.caught_up();
        folded.assert_equal();
        folded.assert_equal_schema();

        let followed = pair.stage(CROSSFADE).flags(&["--apply", mode]);
        followed.on_source(setup);
        let mut run = followed.run(&[]);
        followed.wait_following(&mut run);
        changes.iter().for_each(|change| followed.on_source(change));
        run.terminate().assert_code(0);
        followed.caught_up();
        followed.assert_equal();
    }
}

const DOC: &str = "CREATE TABLE doc (id int PRIMARY KEY, title text, body text, extra text);
    ALTER TABLE doc ALTER body SET STORAGE EXTERNAL, ALTER extra SET STORAGE EXTERNAL;
    INSERT INTO doc SELECT n, 'title', repeat(md5(n::text), 100), repeat(md5(n::text), 200) FROM generate_series(1, 200) n";

#[test]
fn t01_an_update_with_unchanged_toast_after_the_chunk() {
    check(
        DOC,
        &[
            "UPDATE doc SET title = 'once' WHERE id <= 50",
            "UPDATE doc SET title = 'twice' WHERE id <= 20",
            "UPDATE doc SET body = NULL WHERE id = 3",
            "UPDATE doc SET title = 'after null' WHERE id = 3",
        ],
    );
}

#[test]
fn t02_an_update_with_the_large_value_and_one_without_it() {
    check(
        DOC,
        &[
            // In one transaction, both orders.
            "UPDATE doc SET body = repeat('new', 2000) WHERE id = 1; UPDATE doc SET title = 'then' WHERE id = 1",
            "UPDATE doc SET title = 'first' WHERE id = 2; UPDATE doc SET body = repeat('new', 2000) WHERE id = 2",
            // In two, both orders.
            "UPDATE doc SET body = repeat('a', 5000) WHERE id = 3",
            "UPDATE doc SET title = 'b' WHERE id = 3",
            "UPDATE doc SET title = 'b' WHERE id = 4",
            "UPDATE doc SET body = repeat('a', 5000) WHERE id = 4",
            // One large value changes, the other does not, crosswise.
            "UPDATE doc SET body = repeat('c', 5000) WHERE id = 5",
            "UPDATE doc SET extra = repeat('d', 5000) WHERE id = 5",
            "UPDATE doc SET title = 'e' WHERE id = 5",
        ],
    );
}

#[test]
fn t03_one_key_is_inserted_updated_moved_deleted_and_inserted_again() {
    let large = "repeat('x', 6000)";
    let insert = format!("INSERT INTO doc VALUES (1000, 'new', {large}, {large})");
    let again = format!("INSERT INTO doc VALUES (1000, 'again', {large}, NULL)");
    let (update, shift) =
        ("UPDATE doc SET title = 'partial' WHERE id = 1000", "UPDATE doc SET id = 1001 WHERE id = 1000");
    let (small, delete) =
        ("UPDATE doc SET title = 'moved' WHERE id = 1001", "DELETE FROM doc WHERE id = 1001");
    let all = [&*insert, update, shift, small, delete, &again].join("; ");
    check(
        DOC,
        &[
            &all,
            "DELETE FROM doc WHERE id = 1000",
            &insert,
            update,
            shift,
            small,
            delete,
            &again,
            // An old row: moved and back, moved onto a freed key, deleted and inserted in one go.
            "UPDATE doc SET id = -7 WHERE id = 7",
            "UPDATE doc SET id = 7, title = 'back' WHERE id = -7",
            "DELETE FROM doc WHERE id = 8; UPDATE doc SET id = 8 WHERE id = 9; UPDATE doc SET id = 9 WHERE id = 10",
            "DELETE FROM doc WHERE id = 11; INSERT INTO doc VALUES (11, 'fresh')",
            "UPDATE doc SET id = id + 5000 WHERE id BETWEEN 100 AND 150",
            "UPDATE doc SET title = 'tail' WHERE id BETWEEN 5100 AND 5110",
        ],
    );
}

#[test]
fn a01_unique_values_change_places() {
    check(
        "CREATE TABLE seat (id int PRIMARY KEY, code text UNIQUE, note text);
         ALTER TABLE seat ALTER note SET STORAGE EXTERNAL;
         INSERT INTO seat SELECT n, 'code ' || n, repeat('x', 3000) FROM generate_series(1, 1500) n;
         CREATE TABLE rank (id int PRIMARY KEY, place int CONSTRAINT rank_place UNIQUE DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO rank SELECT n, n FROM generate_series(1, 1500) n;
         CREATE UNIQUE INDEX seat_lower ON seat (lower(code)) WHERE id < 1000;
         CREATE TABLE ticket (id int PRIMARY KEY, seat text UNIQUE REFERENCES seat (code) ON UPDATE CASCADE);
         INSERT INTO ticket SELECT n, 'code ' || n FROM generate_series(1, 100) n",
        &[
            // Via a temporary value, in one transaction and in three.
            "UPDATE seat SET code = 'moving' WHERE id = 201; UPDATE seat SET code = 'code 201' WHERE id = 202; UPDATE seat SET code = 'code 202' WHERE id = 201",
            "UPDATE seat SET code = 'moving' WHERE id = 203",
            "UPDATE seat SET code = 'code 203' WHERE id = 204",
            "UPDATE seat SET code = 'code 204' WHERE id = 203",
            // Via NULL.
            "UPDATE seat SET code = NULL WHERE id = 205; UPDATE seat SET code = 'code 205' WHERE id = 206; UPDATE seat SET code = 'code 206' WHERE id = 205",
            // By delete and insert, under another key.
            "DELETE FROM seat WHERE id = 207; INSERT INTO seat VALUES (9207, 'code 207')",
            "DELETE FROM seat WHERE id = 208",
            "INSERT INTO seat VALUES (9208, 'code 208')",
            // Under a deferred constraint: a swap, and a rotation of a thousand rows.
            "UPDATE rank SET place = 3 - place WHERE id IN (1, 2)",
            "UPDATE rank SET place = CASE WHEN id = 1000 THEN (SELECT place FROM rank WHERE id = 1) ELSE (SELECT place FROM rank r WHERE r.id = rank.id + 1) END WHERE id <= 1000",
            // Keys change places, too.
            "UPDATE seat SET id = -1 WHERE id = 301; UPDATE seat SET id = 301 WHERE id = 302; UPDATE seat SET id = 302 WHERE id = -1",
            // Across two tables, with the cascade in the log.
            "UPDATE seat SET code = 'x' WHERE id = 1; UPDATE seat SET code = 'code 1' WHERE id = 2; UPDATE seat SET code = 'code 2' WHERE id = 1",
            "UPDATE ticket SET seat = NULL WHERE id IN (3, 4); UPDATE ticket SET seat = 'code 4' WHERE id = 3; UPDATE ticket SET seat = 'code 3' WHERE id = 4",
        ],
    );
}

#[test]
fn a01_a_unique_value_moves_from_a_copied_row_to_one_not_yet_copied() {
    let pair = Pair::start();
    for seed in 1..=2 {
        let stage = pair.stage(CROSSFADE).many_cuts();
        stage.on_source(
            "CREATE TABLE seat (id int PRIMARY KEY, code int UNIQUE, note text);
             INSERT INTO seat SELECT n, n, repeat('x', 200) FROM generate_series(1, 6000) n",
        );
        let writers = shop::repeat(&stage.source, Load { seed, pause_ms_max: 1, ..Load::default() }, |rng| {
            let (low, high) = (rng.u32(1..=3_000), rng.u32(3_001..=6_000));
            vec![
                "BEGIN".into(),
                format!("UPDATE seat SET code = -code WHERE id IN ({low}, {high})"),
                format!(
                    "UPDATE seat x SET code = -y.code FROM seat y WHERE (x.id, y.id) IN (({low}, {high}), ({high}, {low}))"
                ),
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
fn a03_parent_and_child_with_cascades() {
    check(
        "CREATE TABLE parent (id int PRIMARY KEY, name text);
         CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE DEFERRABLE, friend int REFERENCES parent ON DELETE SET NULL);
         INSERT INTO parent SELECT n, 'p' FROM generate_series(1, 100) n;
         INSERT INTO child SELECT n, 1 + n % 100, 1 + n % 7 FROM generate_series(1, 500) n",
        &[
            "SET CONSTRAINTS ALL DEFERRED; INSERT INTO child VALUES (9001, 901, NULL); INSERT INTO parent VALUES (901, 'late')",
            "DELETE FROM parent WHERE id IN (3, 50)",
            "BEGIN; DELETE FROM parent WHERE id = 4; INSERT INTO parent VALUES (4, 'again'); INSERT INTO child VALUES (9002, 4, 4); COMMIT",
        ],
    );
}

#[test]
fn a04_a_huge_transaction_among_small_ones_in_bounded_memory() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(
        "CREATE TABLE big (id int PRIMARY KEY, value int, note text);
         INSERT INTO big SELECT n, 0, repeat('x', 100) FROM generate_series(1, 200000) n;
         CREATE TABLE small (id int PRIMARY KEY, value int); INSERT INTO small SELECT n, 0 FROM generate_series(1, 100) n",
    );
    stage.copied();
    let writers = shop::repeat(&stage.source, Load::default(), |rng| {
        vec![format!("UPDATE small SET value = value + 1 WHERE id = {}", rng.u32(1..=100))]
    });
    stage.on_source(
        "UPDATE big SET value = value + 1; UPDATE big SET value = value + 1, id = -id WHERE id % 2 = 0",
    );
    // One that is as large and comes to nothing.
    stage.on_source("BEGIN; UPDATE big SET value = -1; ROLLBACK");
    writers.stop();
    let mut run = stage.run(&["--until", "caught-up"]);
    let mut peak_kib = 0;
    while run.running() {
        peak_kib = peak_kib.max(run.peak_kib());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    run.wait().assert_code(0);
    stage.assert_equal();
    assert!(peak_kib > 0 && peak_kib < 256 << 10, "{} MiB resident", peak_kib >> 10);
}

const EMPTIED: &str = "CREATE TABLE t (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, value text);
    CREATE TABLE u (id int PRIMARY KEY, t int REFERENCES t);
    CREATE TABLE keyless (a int); ALTER TABLE keyless REPLICA IDENTITY FULL;
    INSERT INTO t (value) SELECT repeat('v', 200) FROM generate_series(1, 3000) n;
    INSERT INTO u SELECT n, n FROM generate_series(1, 3000) n;
    INSERT INTO keyless SELECT n % 3 FROM generate_series(1, 300) n";

#[test]
fn a05_truncate_and_the_same_keys_again() {
    check(
        EMPTIED,
        &[
            "TRUNCATE t CASCADE; INSERT INTO t (id, value) VALUES (1, 'again'), (2, 'again')",
            "INSERT INTO u VALUES (1, 1); INSERT INTO keyless VALUES (9)",
            "TRUNCATE keyless",
            "INSERT INTO keyless VALUES (1), (1)",
            "BEGIN; UPDATE t SET value = 'x' WHERE id = 1; TRUNCATE t, u RESTART IDENTITY; INSERT INTO t (value) VALUES ('first'); COMMIT",
            "BEGIN; TRUNCATE keyless; ROLLBACK",
        ],
    );
}

#[test]
fn a05_truncate_before_in_and_after_a_chunks_cut() {
    let pair = Pair::start();
    for seed in 1..=2 {
        let stage = pair.stage(CROSSFADE).many_cuts();
        stage.on_source(EMPTIED);
        let load = Load { seed, writers: 2, pause_ms_max: 60, ..Load::default() };
        let writers = shop::repeat(&stage.source, load, |rng| {
            let refill = "INSERT INTO t (id, value) SELECT n, repeat('w', 200) FROM generate_series(1, 2000) n ON CONFLICT DO NOTHING";
            match rng.u8(0..4) {
                0 => vec!["BEGIN".into(), "TRUNCATE t CASCADE".into(), refill.into(), "COMMIT".into()],
                1 => vec!["TRUNCATE keyless".into()],
                2 => vec!["INSERT INTO keyless SELECT n % 3 FROM generate_series(1, 50) n".into()],
                _ => vec![refill.into()],
            }
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
    check(
        "CREATE TABLE hot (id int PRIMARY KEY, hits int, note text); INSERT INTO hot VALUES (1, 0, repeat('x', 5000)), (2, 0, NULL);
         CREATE TABLE quiet (id int PRIMARY KEY, value int); INSERT INTO quiet SELECT n, 0 FROM generate_series(1, 100) n",
        &[
            "UPDATE quiet SET value = 1 WHERE id = 1",
            "DO $$ BEGIN FOR i IN 1..20000 LOOP UPDATE hot SET hits = hits + 1 WHERE id = 1; COMMIT; END LOOP; END $$",
            "DO $$ BEGIN FOR i IN 1..5000 LOOP UPDATE hot SET hits = hits + 1 WHERE id = 2; END LOOP; END $$",
            "UPDATE quiet SET value = 2 WHERE id = 2",
        ],
    );
}

fn poisoned(pair: &Pair) -> Stage {
    let stage = pair.stage(CROSSFADE);
    stage.on_source(
        "CREATE TABLE fragile (id int PRIMARY KEY, value int); INSERT INTO fragile SELECT n, n FROM generate_series(1, 100) n;
         CREATE TABLE sound (id int PRIMARY KEY, value int); INSERT INTO sound SELECT n, n FROM generate_series(1, 100) n",
    );
    stage.copied();
    stage.caught_up();
    stage.on_target("ALTER TABLE fragile ADD CONSTRAINT too_much CHECK (value < 1000)");
    stage.on_source("UPDATE fragile SET value = 5 WHERE id = 1");
    stage.on_source("UPDATE fragile SET value = 5000 WHERE id = 2; UPDATE sound SET value = 1 WHERE id = 2");
    stage.on_source("UPDATE fragile SET value = 6 WHERE id = 3");
    stage.on_source("UPDATE sound SET value = 2 WHERE id = 3");
    stage
}

#[test]
fn a09_a_poison_change_is_quarantined_and_the_rest_goes_on() {
    let pair = Pair::start();
    for mode in MODES {
        let stage = poisoned(&pair).flags(&["--apply", mode]);
        stage
            .run_command(&["--until", "caught-up"])
            .output()
            .assert_code(2)
            .assert_says(&["fragile", "too_much"]);
        let status = stage.status().unwrap();
        let held = &status["quarantine"][0];
        assert_eq!(held["table"]["name"], "fragile", "{status}");
        assert_eq!(held["operation"], "update", "{status}");
        assert!(held["error"].to_string().contains("too_much"), "{status}");
        let of = |side: &str, table: &str| {
            stage.ask(side, &format!("SELECT string_agg(id || '=' || value, ' ' ORDER BY id) FROM {table}"))
        };
        assert_eq!(of(&stage.target, "sound"), of(&stage.source, "sound"), "the other table goes on");

        // Still poisoned, it says so again, and nothing is skipped.
        stage.on_source(
            "UPDATE fragile SET value = 7 WHERE id = 2; UPDATE fragile SET value = 8 WHERE id = 4",
        );
        stage.run_command(&["--until", "caught-up"]).output().assert_code(2);
        stage.on_target("ALTER TABLE fragile DROP CONSTRAINT too_much");
        stage.caught_up();
        stage.assert_equal();
    }
}

#[test]
fn a08_a_rogue_writer_on_the_target_raises_an_alarm() {
    let pair = Pair::start();
    let rogues = [
        ("DELETE FROM t WHERE id = 5", "UPDATE t SET value = 1 WHERE id = 5"),
        ("DELETE FROM t WHERE id = 5", "DELETE FROM t WHERE id = 5"),
        ("INSERT INTO t VALUES (999, 0)", "INSERT INTO t VALUES (999, 1)"),
    ];
    for (on_target, on_source) in rogues {
        let stage = pair.stage(CROSSFADE);
        stage.on_source("CREATE TABLE t (id int PRIMARY KEY, value int); INSERT INTO t SELECT n, n FROM generate_series(1, 100) n");
        stage.caught_up();
        stage.on_target(on_target);
        stage.on_source(on_source);
        let finished = stage.run_command(&["--until", "caught-up"]).output();
        assert!(matches!(finished.code(), Some(1 | 2)), "{on_target}: {finished}");
        finished.assert_says(&["public.t"]);
    }
}

#[test]
fn a07_triggers_on_the_target_do_not_fire_for_what_is_in_the_log_already() {
    check(
        "CREATE TABLE t (id int PRIMARY KEY, value int); CREATE TABLE trail (id bigserial PRIMARY KEY, t int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.value := NEW.value + 1; INSERT INTO public.trail (t) VALUES (NEW.id); RETURN NEW; END $$;
         CREATE TRIGGER note BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note();
         INSERT INTO t SELECT n, n FROM generate_series(1, 100) n",
        &["UPDATE t SET value = 0 WHERE id < 10", "INSERT INTO t VALUES (1000, 5)"],
    );
}

#[test]
fn c14_rows_without_a_key_are_told_apart_byte_by_byte() {
    check(
        "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TYPE pair AS (a int, b int);
         CREATE TABLE word (word text COLLATE blind, ends pair); ALTER TABLE word REPLICA IDENTITY FULL;
         INSERT INTO word VALUES ('A', NULL), ('a', NULL), ('b', '(,)'), ('B', '(,)')",
        &[
            "DELETE FROM word WHERE word COLLATE \"C\" = 'a'",
            "UPDATE word SET word = 'c' WHERE word COLLATE \"C\" = 'B'",
        ],
    );
}

#[test]
fn every_common_type_is_alike_by_copy_and_by_log() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    shop::create(&stage.source, 500);
    stage.copied();
    // The same values once more, through the log.
    let mut client = connect(&stage.source);
    client
        .batch_execute(
            "CREATE TEMP TABLE kept AS SELECT * FROM sample; DELETE FROM sample; INSERT INTO sample SELECT * FROM kept;
             UPDATE sample SET id = id + 10000 WHERE id % 2 = 0",
        )
        .unwrap();
    stage.caught_up();
    stage.assert_equal();
    stage.assert_equal_schema();
}
