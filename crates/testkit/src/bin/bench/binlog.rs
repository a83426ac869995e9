//! MariaDB's log into the journal alone.

use testkit::audit;
use testkit::mariadb::Server;

use crate::contest::{self, WARM};
use crate::migration::{self, Migration};
use crate::oltp::{DATABASE, Oltp};
use crate::section::{Comparison, Section};
use crate::{Bench, peer};

const CAPTURED: &str = "--until captured";
const CAUGHT_UP: &str = "--until caught-up";

/// Nothing is applied, so that one recorded stream serves every round.
pub(crate) fn capture(bench: &Bench<Server>) -> Section {
    let (source, stream) = (&bench.pair.source, Oltp::tpcb(160_000));
    stream.prepare(bench);
    let migration = Migration::begin(bench, DATABASE, "captured");
    migration.run(CAUGHT_UP);
    let kept = migration.keep();
    // The stream has a file of its own.
    source.run("", &["FLUSH BINARY LOGS"]);
    let file = newest(source);
    stream.record(bench);
    assert_eq!(newest(source), file, "the stream does not fit into one file");
    let read = format!("mariadb-binlog $FROM --read-from-remote-server --raw --result-file=$DIR/ {file}");
    let [ours, raw] = contest::hold(
        bench,
        [
            ("crossfade", &mut || {
                migration.go_back(&kept);
                migration.run(CAPTURED)
            }),
            ("mariadb-binlog", &mut || peer::run(bench, &read, DATABASE, "postgres")),
        ],
    );
    // What was captured last is complete: applied, it makes both sides equal.
    migration.run(CAUGHT_UP);
    audit::compare(&migration.stage.source, &migration.stage.target).assert_equal();
    Section {
        name: "binlog".into(),
        what: format!(
            "{}: the same in every round, from MariaDB's log. crossfade's time is that of the whole program, with its \
             start, until its journal has them on disk; mariadb-binlog writes the log's bytes to a file as they come, \
             looks into none of them, and does not sync it. {WARM}",
            stream.what(bench)
        ),
        commands: vec![stream.command(bench), migration::command("captured", CAPTURED), read],
        comparisons: vec![Comparison::time("time", ours.times, [raw.times]).bar(
            0.9,
            "crossfade's time includes its checks of both sides, and it decodes what mariadb-binlog passes on; its journal \
             is synced.",
        )],
        figures: ours.costs.figures_with(stream.changes(bench), "changes"),
    }
}

/// The file that is written to.
fn newest(source: &Server) -> String {
    source.list("SHOW MASTER STATUS").remove(0)
}
