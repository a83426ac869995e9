//! MariaDB as a target: whole migrations into it, and what may happen to them on the way and there.
//!
//! By outcome only: the rows on the target, the exit code, and what the person reads.

mod apply;
mod from_others;
mod keys;
mod refused;
mod restart;
mod schema;
mod sessions;
mod values;

use testkit::crossfade::Finished;
use testkit::mariadb::{self, Pair};
use testkit::{Stage, wait};

const CROSSFADE: &str = env!("CARGO_BIN_EXE_crossfade");

const MODES: [&str; 2] = ["catch-up", "strict"];

/// In a session of its own. Several statements, with `;` between them, are one transaction.
#[track_caller]
fn on(url: &str, sql: &str) {
    let mut client = mariadb::connect(url);
    mariadb::run(&mut client, "BEGIN");
    let statements = sql.split(';').map(str::trim).filter(|statement| !statement.is_empty());
    statements.for_each(|statement| mariadb::run(&mut client, statement));
    mariadb::run(&mut client, "COMMIT");
}

/// The first cell of the first row.
#[track_caller]
fn ask(url: &str, sql: &str) -> String {
    let cells = mariadb::list(&mut mariadb::connect(url), sql);
    cells.into_iter().next().unwrap_or_else(|| panic!("no row: {sql}"))
}

/// A table is copied, changes are committed while nobody looks, so that they are folded together, and once more one by one
/// while the migration follows. `changes`: each a source transaction.
fn check(setup: &str, changes: &[&str]) {
    let pair = Pair::start();
    for mode in MODES {
        let folded = pair.stage(CROSSFADE).flags(&["--apply", mode]);
        on(&folded.source, setup);
        folded.copied();
        changes.iter().for_each(|change| on(&folded.source, change));
        folded.caught_up();
        folded.assert_equal();
        folded.assert_equal_schema();

        let followed = pair.stage(CROSSFADE).flags(&["--apply", mode]);
        on(&followed.source, setup);
        let mut run = followed.run(&[]);
        followed.wait_following(&mut run);
        changes.iter().for_each(|change| on(&followed.source, change));
        run.terminate().assert_code(0);
        followed.caught_up();
        followed.assert_equal();
    }
}

fn caught_up(stage: &Stage) -> Finished {
    stage.run_command(&["--until", "caught-up"]).output()
}

/// It stopped, and said all of this.
#[track_caller]
fn refused(finished: Finished, words: &[&str]) -> Finished {
    assert!(matches!(finished.code(), Some(1 | 2)), "not refused\n{finished}");
    finished.assert_says(words)
}

/// It may carry everything over, or stop and name what stands in its way; what it may not do is to end well with other
/// rows on the target.
#[track_caller]
fn carried_or_refused(stage: &Stage, words: &[&str]) {
    let finished = caught_up(stage);
    if finished.code() == Some(0) {
        stage.assert_equal();
        return;
    }
    refused(finished, words);
}

/// Somebody on the target waits for a row that is locked.
fn wait_for_a_lock(stage: &Stage) {
    wait::until("a session waits for a lock on the target", wait::LONG, || {
        // INNODB_TRX would show what was when it was first asked: it is not read anew for as long as somebody keeps asking.
        let waiting = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Innodb_row_lock_current_waits'";
        (ask(&stage.target, waiting) != "0").then_some(())
    });
}
