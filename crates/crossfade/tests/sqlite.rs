//! SQLite as a source, with other connections writing to it all the time.

#![expect(clippy::unwrap_used, reason = "a fault in a test is a failed test")]

use std::thread;
use std::time::Duration;

use connector::failpoint;
use testkit::postgres::Server;
use testkit::{Folder, Load, Stage, till};

const CROSSFADE: &str = env!("CARGO_BIN_EXE_crossfade");

fn path(folder: &Folder, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

fn stage(folder: &Folder, number: u32, target: Option<String>) -> (Stage, String) {
    let source = path(folder, &format!("source{number}.db"));
    let target = target.unwrap_or_else(|| format!("sqlite:{}", path(folder, &format!("target{number}.db"))));
    till::create(&source, 2_000);
    (Stage::new(CROSSFADE, &format!("till{number}"), format!("sqlite:{source}"), target), source)
}

fn killed_under_load(stage: &Stage, source: &str) {
    let writers = till::write(source, Load { truncate: true, ..Load::default() });
    for pause_ms in [80, 200, 350, 500, 700, 900, 1_200] {
        let run = stage.run(&[]);
        thread::sleep(Duration::from_millis(pause_ms));
        run.kill();
    }
    let mut run = stage.run(&[]);
    stage.wait_following(&mut run);
    thread::sleep(Duration::from_secs(1));
    run.terminate().assert_code(0);
    let tally = writers.stop();
    assert!(tally.committed > 50, "{tally}");
    stage.caught_up();
    stage.assert_equal();
}

#[test]
fn to_sqlite_killed_under_load() {
    let folder = Folder::new("sqlite");
    let (one_cut, source) = stage(&folder, 1, None);
    killed_under_load(&one_cut, &source);
    let (many_cuts, source) = stage(&folder, 2, None);
    killed_under_load(&many_cuts.many_cuts(), &source);
}

#[test]
fn to_postgres_killed_under_load() {
    let folder = Folder::new("sqlite");
    let server = Server::builder().without_fsync().start();
    let (one_cut, source) = stage(&folder, 1, Some(server.url("postgres")));
    killed_under_load(&one_cut, &source);
    server.create_database("again");
    let (many_cuts, source) = stage(&folder, 2, Some(server.url("again")));
    killed_under_load(&many_cuts.many_cuts(), &source);
}

#[test]
fn p01_to_sqlite_dies_at_each_point() {
    let folder = Folder::new("sqlite");
    for (number, point) in (0..).zip(failpoint::ALL) {
        let (stage, source) = stage(&folder, number, None);
        let stage = stage.many_cuts();
        let writers = till::write(&source, Load::default());
        for time in 1..=2 {
            let finished = stage.run_into(&format!("{point}:{time}"));
            // Not every point exists on this way; whatever is reached must be survived.
            assert!(matches!(finished.code(), None | Some(0)), "{point}: {finished}");
        }
        writers.stop();
        stage.caught_up();
        let report = testkit::audit::compare(&stage.source, &stage.target);
        assert_eq!(report.differences(), 0, "after a crash at {point}\n{report}");
    }
}

#[test]
fn a_value_that_does_not_fit_is_an_error_and_not_a_guess() {
    let folder = Folder::new("sqlite");
    let server = Server::builder().without_fsync().start();
    let source = path(&folder, "odd.db");
    rusqlite::Connection::open(&source)
        .unwrap()
        .execute_batch(
            "CREATE TABLE odd (id INTEGER PRIMARY KEY, amount INTEGER);
             INSERT INTO odd VALUES (1, 1), (2, 'many'), (3, 3)",
        )
        .unwrap();
    let stage = Stage::new(CROSSFADE, "odd", format!("sqlite:{source}"), server.url("postgres"));
    let finished = stage.run_command(&["--until", "caught-up"]).output();
    assert!(matches!(finished.code(), Some(1 | 2)), "{finished}");
    finished.assert_says(&["odd", "amount"]);
}

#[test]
fn a_schema_change_stops_before_the_first_wrong_row() {
    let folder = Folder::new("sqlite");
    let (stage, source) = stage(&folder, 1, None);
    stage.copied();
    let connection = rusqlite::Connection::open(&source).unwrap();
    connection
        .execute_batch("ALTER TABLE sale ADD COLUMN extra TEXT; INSERT INTO sale (extra) VALUES ('x')")
        .unwrap();
    let finished = stage.run_command(&["--until", "caught-up"]).output();
    stage.carried_over_or_stopped(&finished, "sale");
}

#[test]
fn postgres_as_the_source_is_refused_before_anything_is_written() {
    let folder = Folder::new("sqlite");
    let server = Server::builder().without_fsync().start();
    server
        .run("postgres", "CREATE TABLE t (id int PRIMARY KEY, yes boolean); INSERT INTO t VALUES (1, true)");
    let target = path(&folder, "target.db");
    let stage = Stage::new(CROSSFADE, "typed", server.url("postgres"), format!("sqlite:{target}"));
    let finished = stage.run_command(&["--until", "caught-up"]).output().assert_code(2);
    finished.assert_says(&["SQ-TARGET-ENGINE", "public.t"]);
    assert!(!std::path::Path::new(&target).exists());
    let kept = "SELECT count(*) FROM (SELECT slot_name FROM pg_replication_slots UNION ALL SELECT pubname FROM pg_publication) k";
    assert_eq!(stage.ask(&stage.source, kept), "0");
}

#[test]
fn a_source_that_is_not_there() {
    let folder = Folder::new("sqlite");
    let missing = path(&folder, "missing.db");
    let target = format!("sqlite:{}", path(&folder, "target.db"));
    let stage = Stage::new(CROSSFADE, "missing", format!("sqlite:{missing}"), target);
    let finished = stage.run_command(&["--until", "caught-up"]).output();
    assert!(matches!(finished.code(), Some(1 | 2)), "{finished}");
    finished.assert_says(&["missing.db"]);
    assert!(!std::path::Path::new(&missing).exists(), "a mistyped path must not make a file");
}
