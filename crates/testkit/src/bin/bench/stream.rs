//! Changes: a stream is recorded while nobody takes it, and then everyone has to reach its end.
//!
//! Each contestant reads the same log through a slot of its own and applies it to tables of its own. Tables that have
//! been brought up to date cannot be put back cheaply, so every round records a stream anew.

use crate::contest::{self, WARM};
use crate::migration::{self, Costs, Migration};
use crate::native::{self, Native};
use crate::section::{Comparison, Figure, Samples, Section, Unit, grouped};
use crate::{Bench, host, peer, pgbench, same};

const DATABASE: &str = "stream";
/// A table whose newest row is the last change of a stream.
const MARK: &str = "mark";
const CAPTURED: &str = "--until captured";
const CAUGHT_UP: &str = "--until caught-up";

/// What is recorded.
#[derive(Clone, Copy)]
enum Stream {
    Tpcb,
    HotRow,
    Bulk,
    Inserts,
    Giant,
}

/// How crossfade takes a stream.
struct Mode {
    name: &'static str,
    args: &'static str,
    /// The journal has the stream before the time begins.
    from_journal: bool,
    bar: Option<f64>,
    /// Told where it is behind.
    why: &'static str,
}

const CATCH_UP: &str = "--until caught-up --apply catch-up";

const MODES: [Mode; 3] = [
    Mode {
        name: "apply",
        args: CATCH_UP,
        from_journal: true,
        bar: Some(3.0),
        why: "more than half of the processor time are the target's own, to find, rewrite and log each row, and a third \
             is reading, folding and encoding (profiles/README.md); the time includes crossfade's start, and each \
             group's durable commit, where a subscription commits asynchronously.",
    },
    Mode {
        name: "catch-up",
        args: CATCH_UP,
        from_journal: false,
        bar: Some(1.5),
        why: "two fifths of the processor time are the source's decoding and sending, a third the target's sessions, a \
             quarter crossfade (profiles/README.md), and of the two cores that all share a quarter is idle, waiting \
             for commits and for each other.",
    },
    Mode {
        name: "strict",
        args: "--until caught-up --apply strict",
        from_journal: false,
        bar: Some(1.0),
        why: "what is there is written at once, in smaller groups than while catching up, each with a durable commit.",
    },
];

pub(crate) fn tpcb(bench: &Bench, wanted: &[&str]) -> Vec<Section> {
    let modes: Vec<&Mode> = MODES.iter().filter(|mode| wanted.contains(&mode.name)).collect();
    against_native(bench, Stream::Tpcb, &modes)
}

/// One row that is changed all the time: what folding saves shows from the journal, and together it shows what decoding
/// leaves of that.
const HOT_ROW: [Mode; 2] = [
    Mode {
        name: "hot-row",
        args: CATCH_UP,
        from_journal: true,
        bar: Some(10.0),
        why: "nearly a third of the time is the start: two servers' sessions, the end of the journal, the comparison of \
             the schema; the rest is reading the journal, and three commits.",
    },
    Mode {
        name: "hot-row-together",
        args: CATCH_UP,
        from_journal: false,
        bar: None,
        why: "the source decodes and sends each change.",
    },
];

pub(crate) fn hot_row(bench: &Bench, wanted: &[&str]) -> Vec<Section> {
    let modes: Vec<&Mode> = HOT_ROW.iter().filter(|mode| wanted.contains(&mode.name)).collect();
    against_native(bench, Stream::HotRow, &modes)
}

pub(crate) fn bulk(bench: &Bench) -> Vec<Section> {
    alone(
        bench,
        Stream::Bulk,
        "bulk",
        "each change is journaled, fsynced and read again, on the two cores that both servers need.",
    )
}

pub(crate) fn inserts(bench: &Bench) -> Vec<Section> {
    alone(
        bench,
        Stream::Inserts,
        "inserts",
        "nothing folds, and each row is journaled, fsynced and read again, on the two cores that both servers need.",
    )
}

pub(crate) fn giant(bench: &Bench) -> Vec<Section> {
    alone(
        bench,
        Stream::Giant,
        "giant",
        "one transaction is written by one session, and only when all of it is in the journal: capture and apply come \
         one after the other, where native replication writes while it receives.",
    )
}

fn alone(bench: &Bench, stream: Stream, name: &'static str, why: &'static str) -> Vec<Section> {
    against_native(bench, stream, &[&Mode { name, args: CATCH_UP, from_journal: false, bar: None, why }])
}

fn against_native(bench: &Bench, stream: Stream, modes: &[&Mode]) -> Vec<Section> {
    stream.prepare(bench);
    Native::publish(bench, DATABASE);
    let native = Native::subscribe(bench, DATABASE);
    native.wait_ready();
    native.pause();
    let mut sides: Vec<Side> = modes.iter().map(|mode| Side::begin(bench, mode)).collect();
    let mut peer = Samples::of("native replication");
    let mut visible = Samples::of("native replication, until its last change is visible");
    for round in 0..bench.rounds {
        stream.record(bench);
        for turn in contest::turns(round, sides.len() + 1) {
            match sides.get_mut(turn) {
                Some(side) => side.catch_up(bench),
                None => {
                    let caught_up = native.catch_up(MARK);
                    visible.seconds(caught_up.visible);
                    peer.seconds(caught_up.durable);
                }
            }
        }
    }
    native.assert_same();
    sides.into_iter().map(|side| side.section(bench, stream, &peer, &visible)).collect()
}

/// One migration and how it fared.
struct Side<'a> {
    mode: &'a Mode,
    migration: Migration<'a>,
    times: Samples,
    costs: Costs,
}

impl<'a> Side<'a> {
    fn begin(bench: &'a Bench, mode: &'a Mode) -> Side<'a> {
        // A migration's name has no hyphens.
        let migration = Migration::begin(bench, DATABASE, &mode.name.replace('-', "_"));
        migration.run(CAUGHT_UP);
        Side {
            mode,
            migration,
            times: Samples::of(format!("crossfade {}", mode.name)),
            costs: Costs::of("crossfade"),
        }
    }

    fn catch_up(&mut self, bench: &Bench) {
        if self.mode.from_journal {
            self.migration.run(CAPTURED);
            // A slot's restart position follows only the list of running transactions that the source puts into its log
            // every fifteen seconds, or with a checkpoint. Until then it would decode the whole stream once more.
            bench.settle();
            self.migration.run(CAPTURED);
        }
        let took = self.costs.add(self.migration.run(self.mode.args));
        self.times.seconds(took);
    }

    fn command(&self) -> String {
        let name = &self.migration.stage.name;
        let measured = migration::command(name, self.mode.args);
        if self.mode.from_journal {
            format!("{}  # before its time begins\n{measured}", migration::command(name, CAPTURED))
        } else {
            measured
        }
    }

    fn section(self, bench: &Bench, stream: Stream, peer: &Samples, visible: &Samples) -> Section {
        same::rows(bench, DATABASE, &self.migration.stage.name);
        let how = if self.mode.from_journal {
            "crossfade's time is that of the whole program, with its start; its journal has the stream \
             before, and the source no longer needs it."
        } else {
            "crossfade's time is that of the whole program, with its start: capture, journal (fsynced) and apply."
        };
        let command = self.command();
        let ours = Samples { name: "crossfade".into(), ..self.times };
        let time = Comparison::time("time", ours, [peer.clone()]);
        let mut figures = self.costs.figures_with(stream.changes(bench), "changes");
        figures.push(Figure::new(Unit::Seconds, visible.clone()));
        Section {
            name: self.mode.name.into(),
            what: format!(
                "{} {how} Native replication's time begins when its subscription is enabled, and ends when the slot \
                 says that all of it is on the target's disk, as crossfade's does; its last change can be read a little \
                 earlier (below).",
                stream.what(bench)
            ),
            commands: vec![stream.command(bench), command, native::CATCH_UP.into()],
            comparisons: vec![Comparison { bar: self.mode.bar, ..time.because(self.mode.why) }],
            figures,
        }
    }
}

impl Stream {
    /// Of one round.
    fn changes(self, bench: &Bench) -> u64 {
        match self {
            Stream::Tpcb => 4 * transactions(bench),
            Stream::HotRow => 500 * bench.scaled(1_000),
            Stream::Bulk | Stream::Inserts => bench.scaled(1_000_000),
            Stream::Giant => bench.scaled(2_000_000),
        }
    }

    fn what(self, bench: &Bench) -> String {
        let changes = grouped(self.changes(bench));
        match self {
            Stream::Tpcb => format!(
                "pgbench's TPC-B at scale 20: {} transactions of 4 changes a round, recorded while nobody applied.",
                grouped(transactions(bench))
            ),
            Stream::HotRow => {
                format!("One row, updated {changes} times a round, 500 times in a transaction.")
            }
            Stream::Bulk => {
                format!("{changes} rows with a key, each updated once a round, 10,000 in a transaction.")
            }
            Stream::Inserts => {
                format!("{changes} rows a round inserted into a table with a key, 100 in a transaction.")
            }
            Stream::Giant => format!("{changes} rows with a key, all updated in one transaction a round."),
        }
    }

    fn prepare(self, bench: &Bench) {
        bench.pair.source.create_database(DATABASE);
        bench.make(
            DATABASE,
            &[&format!("CREATE TABLE {MARK} (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY)")],
        );
        let rows = match self {
            Stream::Tpcb => return pgbench::init(bench, DATABASE, 20),
            Stream::HotRow => 1,
            Stream::Inserts => 0,
            Stream::Bulk | Stream::Giant => self.changes(bench),
        };
        bench.make(
            DATABASE,
            &[
                "CREATE TABLE rows (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n bigint, v text)",
                &format!("INSERT INTO rows SELECT g, 0, md5(g::text) FROM generate_series(1, {rows}) g"),
                "VACUUM ANALYZE rows",
            ],
        );
    }

    /// What changes the rows; the server does it by itself, but for pgbench's own load.
    fn sql(self, bench: &Bench) -> Option<String> {
        let changes = self.changes(bench);
        let times = |transactions: u64, body: &str| {
            format!("DO $$ BEGIN FOR t IN 0..{transactions} - 1 LOOP {body}; COMMIT; END LOOP; END $$")
        };
        match self {
            Stream::Tpcb => None,
            Stream::HotRow => Some(times(
                changes / 500,
                "FOR i IN 1..500 LOOP UPDATE rows SET n = n + 1 WHERE id = 1; END LOOP",
            )),
            Stream::Bulk => Some(times(
                changes.div_ceil(10_000),
                "UPDATE rows SET n = n + 1 WHERE id BETWEEN t * 10000 + 1 AND (t + 1) * 10000",
            )),
            Stream::Inserts => Some(times(
                changes.div_ceil(100),
                "INSERT INTO rows (n, v) SELECT t, md5(g::text) FROM generate_series(1, 100) g",
            )),
            Stream::Giant => Some("UPDATE rows SET n = n + 1".into()),
        }
    }

    fn record(self, bench: &Bench) {
        let sql = self.sql(bench);
        if sql.is_none() {
            pgbench::load(bench, &bench.pair.source.url(DATABASE), transactions(bench));
        }
        let mark = format!("INSERT INTO {MARK} DEFAULT VALUES");
        // What the updates leave behind is vacuumed, so that a later round is not slower to record.
        let statements: Vec<&str> = sql.as_deref().into_iter().chain([mark.as_str(), "VACUUM"]).collect();
        bench.make(DATABASE, &statements);
    }

    /// What [`Stream::record`] runs, for the page.
    fn command(self, bench: &Bench) -> String {
        match self.sql(bench) {
            None => pgbench::load_command(transactions(bench)),
            Some(sql) => format!("psql -d $SOURCE <<< '{sql}'"),
        }
    }
}

fn transactions(bench: &Bench) -> u64 {
    bench.scaled(160_000 / 8) * 8
}

/// Into the journal alone. Nothing is applied, so that one recorded stream serves every round: each contestant gets a
/// copy of a slot from before it.
pub(crate) fn capture(bench: &Bench) -> Section {
    let source = &bench.pair.source;
    source.create_database(DATABASE);
    pgbench::init(bench, DATABASE, 20);
    source.run(DATABASE, "CREATE PUBLICATION everything FOR ALL TABLES");
    source.run(DATABASE, "SELECT pg_create_logical_replication_slot('base', 'pgoutput')");
    let migration = Migration::begin(bench, DATABASE, "captured");
    migration.run(CAUGHT_UP);
    let kept = migration.keep();
    pgbench::load(bench, &source.url(DATABASE), transactions(bench));
    // The newest commits may not be written yet, and the end is that of what is written.
    bench.settle();
    let end: String = source
        .client(DATABASE)
        .query_one("SELECT pg_current_wal_lsn()::text", &[])
        .expect("ask for the log's end")
        .get(0);
    let receive = format!(
        "pg_recvlogical -d $SOURCE --slot received --start --no-loop --endpos {end} \\\n  \
         -o proto_version=1 -o publication_names=everything -f $DIR/changes"
    );

    let copy_slot = |name: &str| {
        source.run(DATABASE, &format!("SELECT pg_copy_logical_replication_slot('base', '{name}')"));
    };
    let [ours, received] = contest::hold(
        bench,
        [
            ("crossfade", &mut || {
                let slot = host::slot(&migration.stage.name);
                host::drop_slot(source, DATABASE, &slot);
                copy_slot(&slot);
                migration.go_back(&kept);
                migration.run(CAPTURED)
            }),
            ("pg_recvlogical", &mut || {
                copy_slot("received");
                let spent = peer::run(bench, &receive, DATABASE, "postgres");
                source.run(DATABASE, "SELECT pg_drop_replication_slot('received')");
                spent
            }),
        ],
    );
    // What was captured last is complete: applied, it makes both sides equal.
    migration.run(CAUGHT_UP);
    same::rows(bench, DATABASE, "captured");
    Section {
        name: "capture".into(),
        what: format!(
            "pgbench's TPC-B at scale 20: the same {} transactions of 4 changes in every round, through a copy of \
             the same slot. crossfade's time is that of the whole program, with its start, until its journal has \
             them on disk; pg_recvlogical writes to a file and syncs it every ten seconds and at the end. {WARM}",
            grouped(transactions(bench))
        ),
        commands: vec![Stream::Tpcb.command(bench), migration::command("captured", CAPTURED), receive],
        comparisons: vec![Comparison::time("time", ours.times, [received.times]).bar(
            0.95,
            "crossfade's time includes its checks of both sides, and its journal is synced while the log flows, so \
             that the source may free it, where pg_recvlogical syncs every ten seconds.",
        )],
        figures: ours.costs.figures_with(Stream::Tpcb.changes(bench), "changes"),
    }
}
