//! What a newcomer meets first: each refusal names the object, says why, and gives the remedy.

use testkit::crossfade::{Crossfade, Finished};
use testkit::postgres::Server;
use testkit::{Folder, Pair, Stage};

const CROSSFADE: &str = env!("CARGO_BIN_EXE_crossfade");

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, value int); INSERT INTO t SELECT n, n FROM generate_series(1, 10) n";

/// `run` refuses with this code and these words, and has touched nothing.
#[track_caller]
fn refused(stage: &Stage, code: i32, words: &[&str]) -> Finished {
    stage.run_command(&["--until", "caught-up"]).output().assert_code(code).assert_says(words)
}

#[test]
fn a_wrong_address() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(TABLE);
    let (source, target) = (stage.source.clone(), stage.target.clone());
    let name = stage.name.clone();
    // Nobody listens on port 1.
    let stage = stage.via(Some(format!("postgres://postgres@127.0.0.1:1/{name}")), None);
    refused(&stage, 1, &["CF-CONNECT", "127.0.0.1", "hint:"]);
    let stage = stage.via(Some(format!("postgres://postgres@no-such-host.invalid/{name}")), None);
    refused(&stage, 1, &["CF-CONNECT", "no-such-host.invalid", "hint:"]);
    let stage = stage.via(Some(source), Some(pair.target.url("no_such_database")));
    refused(&stage, 1, &["no_such_database", "hint:", "CF-"]);
    let stage = stage.via(Some("mysterious://somewhere/else".into()), Some(target));
    refused(&stage, 1, &["mysterious", "postgres://", "hint:"]);
}

#[test]
fn a_wrong_password_is_refused_and_never_printed() {
    let source = Server::builder()
        .without_fsync()
        .hba("host all careful 127.0.0.1/32 scram-sha-256")
        .hba("host all olden 127.0.0.1/32 md5")
        .start();
    let pair = Pair { source, target: Server::builder().without_fsync().start() };
    let stage = pair.stage(CROSSFADE);
    stage.on_source(TABLE);
    stage.on_source(
        "CREATE ROLE careful SUPERUSER LOGIN PASSWORD 'right';
         SET password_encryption = 'md5'; CREATE ROLE olden SUPERUSER LOGIN PASSWORD 'right'",
    );
    let url = |user: &str, password: &str| {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{}", pair.source.port(), stage.name)
    };
    let urls = [url("careful", "wr0ng-s3cret"), url("olden", "wr0ng-s3cret"), url("nobody", "wr0ng-s3cret")];
    let right = [url("careful", "right"), url("olden", "right")];
    let mut stage = stage;
    for wrong in urls {
        stage = stage.via(Some(wrong), None);
        let finished = refused(&stage, 1, &["CF-LOGIN", "hint:"]);
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!said.contains("wr0ng-s3cret"), "{said}");
    }
    for right in right {
        stage = stage.via(Some(right), None);
        stage.caught_up();
    }
}

#[test]
fn a_source_that_keeps_no_logical_log() {
    let source = Server::builder().without_fsync().setting("wal_level", "replica").start();
    let pair = Pair { source, target: Server::builder().without_fsync().start() };
    let stage = pair.stage(CROSSFADE);
    stage.on_source(TABLE);
    refused(&stage, 2, &["wal_level", "logical", "ALTER SYSTEM SET wal_level"]);
    let found = stage.command("check").args(["--json"]).output().assert_code(2);
    assert!(found.stdout.contains("PG-WAL-LEVEL"), "{found}");
    assert_eq!(
        stage.ask(&stage.target, "SELECT count(*) FROM pg_class WHERE relname = 't'"),
        "0",
        "nothing was touched"
    );
}

#[test]
fn a_table_whose_rows_cannot_be_told_apart() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(TABLE);
    stage.on_source("CREATE TABLE nokey (a int, b text); INSERT INTO nokey VALUES (1, 'x'), (1, 'x')");
    refused(&stage, 2, &["nokey", "REPLICA IDENTITY FULL"]);
    // The application goes on: a refusal must not have published the table.
    stage.on_source("UPDATE nokey SET b = 'y'");
    stage.on_source("ALTER TABLE nokey REPLICA IDENTITY FULL");
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn a_target_that_is_not_empty() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(TABLE);
    stage.on_target("CREATE TABLE t (id int PRIMARY KEY, value int); INSERT INTO t VALUES (77, 7)");
    refused(&stage, 2, &["public.t", "TRUNCATE"]);
    assert_eq!(stage.ask(&stage.target, "SELECT sum(id) FROM t"), "77", "the stranger's row is still there");
    stage.on_target("TRUNCATE t");
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn a_target_with_other_columns() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(TABLE);
    stage.on_target("CREATE TABLE t (id int PRIMARY KEY, other int)");
    let finished = stage.run_command(&["--until", "caught-up"]).output();
    assert!(matches!(finished.code(), Some(1 | 2)), "{finished}");
    finished.assert_says(&["public.t", "value"]);
}

#[test]
fn a_role_without_the_right_to_replicate() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(TABLE);
    stage.on_source("CREATE ROLE meek LOGIN");
    let url = format!("postgres://meek@127.0.0.1:{}/{}", pair.source.port(), stage.name);
    let stage = stage.via(Some(url), None);
    let finished = stage.run_command(&["--until", "caught-up"]).output();
    assert!(matches!(finished.code(), Some(1 | 2)), "{finished}");
    finished.assert_says(&["meek", "REPLICATION"]);
}

#[test]
fn a_source_without_tables_and_a_pattern_without_matches() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    let finished = stage.run_command(&["--until", "caught-up"]).output();
    assert!(matches!(finished.code(), Some(1 | 2)), "{finished}");
    stage.on_source(TABLE);
    let finished = stage.run_command(&["--tables", "public.x*", "--until", "caught-up"]).output();
    assert!(matches!(finished.code(), Some(1 | 2)), "{finished}");
    finished.assert_says(&["public.x*"]);
}

#[test]
fn a_selection_leaves_the_other_tables_alone() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE).flags(&["--tables", "public.t"]);
    stage.on_source(TABLE);
    stage.on_source("CREATE TABLE other (id int PRIMARY KEY)");
    stage.caught_up();
    assert_eq!(stage.ask(&stage.target, "SELECT count(*) FROM t"), "10");
    assert_eq!(stage.ask(&stage.target, "SELECT count(*) FROM pg_class WHERE relname = 'other'"), "0");
}

#[test]
fn an_unknown_configuration_key_points_at_its_line() {
    let folder = Folder::new("config");
    std::fs::write(
        folder.join("crossfade.toml"),
        "name = \"shop\"\n\n[source]\nurl = \"postgres://a@b/c\"\n\n[target]\nurll = \"postgres://a@b/d\"\n",
    )
    .unwrap();
    let run = || Crossfade::new(CROSSFADE).current_dir(folder.path());
    run().args(["check"]).output().assert_code(1).assert_says(&["urll", "url", "7"]);
}

#[test]
fn nothing_given_and_a_folder_that_is_not_there() {
    let folder = Folder::new("config");
    let run = || Crossfade::new(CROSSFADE).current_dir(folder.path());
    run().args(["run"]).output().assert_code(1).assert_says(&["--source"]);
    run().args(["status", "--dir", "nowhere"]).output().assert_code(1).assert_says(&["nowhere"]);
}

#[test]
fn check_finds_nothing_in_the_way_and_changes_nothing() {
    let pair = Pair::start();
    let stage = pair.stage(CROSSFADE);
    stage.on_source(TABLE);
    stage.command("check").output().assert_code(0);
    stage.command("run").args(["--dry-run"]).output().assert_code(0);
    assert_eq!(stage.ask(&stage.source, "SELECT count(*) FROM pg_replication_slots"), "0");
    assert_eq!(stage.ask(&stage.target, "SELECT count(*) FROM pg_class WHERE relname = 't'"), "0");
}
