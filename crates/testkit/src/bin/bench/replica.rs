//! MariaDB's own replication: a server that follows the source with as many threads as crossfade has lanes, and the
//! changes that both apply.

use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use testkit::mariadb::Server;
use testkit::wait;

use crate::contest::{self, WARM};
use crate::host::Host;
use crate::migration::{self, Migration};
use crate::oltp::{DATABASE, Oltp};
use crate::section::{Comparison, Section};
use crate::{Bench, same};

const CAPTURED: &str = "--until captured";
const CAUGHT_UP: &str = "--until caught-up";
const CATCH_UP: &str = "--until caught-up --apply catch-up";

/// How it is let loose, for the page.
const COMMAND: &str =
    "mariadb … -e 'START REPLICA IO_THREAD'  # until its relay log has the stream, before its time begins
mariadb … -e \"START REPLICA SQL_THREAD; SELECT MASTER_GTID_WAIT('…')\"";

/// A large stream takes a replica minutes on a small machine.
const LONG: Duration = Duration::from_secs(3600);

/// A stream is recorded while nobody takes it. Then both have it, one in its journal and the other in its relay log, and
/// apply it.
pub(crate) fn against(bench: &Bench<Server, Server>, name: &str, stream: Oltp, bar: Option<f64>) -> Section {
    stream.prepare(bench);
    let replica = Replica::of(&bench.pair.source);
    let migration = Migration::begin(bench, DATABASE, "applied");
    migration.run(CAUGHT_UP);
    let [ours, native] = contest::hold_anew(
        bench,
        || stream.record(bench),
        [
            ("crossfade", &mut || {
                migration.run(CAPTURED);
                migration.run(CATCH_UP)
            }),
            ("native replication", &mut || {
                replica.fetch();
                bench.settle();
                replica.apply().into()
            }),
        ],
    );
    same::rows(bench, DATABASE, &migration.stage.name);
    replica.assert_same();
    let time = Comparison::time("time", ours.times, [native.times]).because(
        "finding, changing and logging each row is the target's work; what folds is done once, and the rest as often as \
         the replica does it. The time includes crossfade's start.",
    );
    Section {
        name: name.into(),
        what: format!(
            "{} a round, recorded while nobody applied, from MariaDB to MariaDB. Both have the stream at hand before \
             their time begins, crossfade in its journal and the replica in its relay log, and both write it to the \
             target's log as well, in two lanes or threads. crossfade's time is that of the whole program, with its \
             start; native replication's begins when its appliers are started, and ends when its last transaction is \
             committed, which is on disk then. {WARM}",
            stream.what(bench)
        ),
        commands: vec![
            stream.command(bench),
            format!("{}  # before its time begins", migration::command("applied", CAPTURED)),
            migration::command("applied", CATCH_UP),
            COMMAND.into(),
        ],
        comparisons: vec![Comparison { bar, ..time }],
        figures: ours.costs.figures_with(stream.changes(bench), "changes"),
    }
}

/// Another server with the same settings.
struct Replica<'a> {
    source: &'a Server,
    server: Server,
}

impl<'a> Replica<'a> {
    /// It has everything that the source has: it has read the source's log from its beginning.
    fn of(source: &'a Server) -> Replica<'a> {
        let server: Server = Host::start();
        server.run(
            "",
            &[&format!(
                "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'root',
                                  MASTER_USE_GTID = slave_pos",
                source.port()
            )],
        );
        let replica = Replica { source, server };
        replica.fetch();
        replica.apply();
        replica
    }

    /// The source's log is in its relay log; nothing of it is applied.
    fn fetch(&self) {
        let end = self.end();
        self.server.run("", &["START REPLICA IO_THREAD"]);
        wait::until("the relay log has everything", LONG, || {
            (self.status("Gtid_IO_Pos") == end).then_some(())
        });
    }

    /// From the start of its appliers until everything is committed; then it rests again, and has nothing left to write.
    fn apply(&self) -> Duration {
        let end = self.end();
        let mut client = self.server.client("");
        let start = Instant::now();
        self.server.run("", &["START REPLICA SQL_THREAD"]);
        let waited: Option<i8> = client
            .query_first(format!("SELECT MASTER_GTID_WAIT('{end}', {})", LONG.as_secs()))
            .expect("wait for the replica");
        let took = start.elapsed();
        assert_eq!(waited, Some(0), "the replica does not catch up: {}", self.status("Last_SQL_Error"));
        self.server.run("", &["STOP REPLICA"]);
        self.server.settle();
        took
    }

    /// Where the source's log ends.
    fn end(&self) -> String {
        self.source.list("SELECT @@gtid_binlog_pos").remove(0)
    }

    fn status(&self, field: &str) -> String {
        let row: Option<mysql::Row> =
            self.server.client("").query_first("SHOW REPLICA STATUS").expect("ask for the replica's state");
        row.and_then(|row| row.get(field)).expect("a field of the replica's state")
    }

    fn assert_same(&self) {
        let digests = [self.source, &self.server].map(|server| server.digests(DATABASE));
        assert_eq!(digests[0], digests[1], "the replica differs from its source");
    }
}
