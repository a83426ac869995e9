//! PostgreSQL's own logical replication: a publication of everything, and a subscription in a database of the target.

use std::time::{Duration, Instant};

use testkit::wait;

use crate::host::Host;
use crate::{Bench, peer, same};

/// The database on the target, the publication, the subscription and its slot are all called so.
const NAME: &str = "native";

/// Giant transactions take native replication minutes on a small machine.
const LONG: Duration = Duration::from_secs(3600);

/// How long a subscription took. Its worker commits asynchronously and reports some tenths of a second later what is on
/// disk; the slot follows the report.
#[derive(Clone, Copy)]
pub(crate) struct CaughtUp {
    /// Until the last change could be read on the target.
    pub(crate) visible: Duration,
    /// Until the slot said that all of it is on the target's disk.
    pub(crate) durable: Duration,
}

/// A subscription to a database of the source.
pub(crate) struct Native<'a> {
    bench: &'a Bench,
    database: &'a str,
}

/// How it is begun, for the page.
pub(crate) fn command() -> String {
    format!(
        "{}\npsql -d $TARGET -c \"CREATE SUBSCRIPTION {NAME} CONNECTION '…' PUBLICATION {NAME} WITH (copy_data = true)\"",
        peer::SCHEMA
    )
}

/// How it is let loose, for the page.
pub(crate) const CATCH_UP: &str = "psql -d $TARGET -c 'ALTER SUBSCRIPTION native ENABLE'
# until confirmed_flush_lsn of its slot is not before pg_current_wal_lsn() as it was at the start";

impl<'a> Native<'a> {
    /// What the source needs; nothing is copied by it.
    pub(crate) fn publish(bench: &Bench, database: &str) {
        bench.pair.source.run(database, &format!("CREATE PUBLICATION {NAME} FOR ALL TABLES"));
        bench.pair.target.create_database(NAME);
    }

    /// Creates the tables and subscribes; the copy begins.
    pub(crate) fn subscribe(bench: &'a Bench, database: &'a str) -> Native<'a> {
        peer::run(bench, peer::SCHEMA, database, NAME);
        let port = bench.pair.source.port();
        bench.pair.target.run(
            NAME,
            &format!(
                "CREATE SUBSCRIPTION {NAME} CONNECTION 'host=127.0.0.1 port={port} user=postgres dbname={database}' \
                 PUBLICATION {NAME} WITH (copy_data = true)"
            ),
        );
        Native { bench, database }
    }

    /// Every table is copied and follows.
    pub(crate) fn wait_ready(&self) {
        let mut target = self.bench.pair.target.client(NAME);
        let waiting = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'";
        wait::until("the subscription has copied", LONG, || {
            let waiting: i64 =
                target.query_one(waiting, &[]).expect("ask for the subscription's state").get(0);
            (waiting == 0).then_some(())
        });
    }

    /// Everything that the source has committed by now is applied and on disk.
    pub(crate) fn wait_caught_up(&self) {
        let mut source = self.bench.pair.source.client(self.database);
        let end: String =
            source.query_one("SELECT pg_current_wal_lsn()::text", &[]).expect("ask for the log's end").get(0);
        let reached = format!(
            "SELECT confirmed_flush_lsn >= '{end}'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{NAME}'"
        );
        wait::until("the subscription has caught up", LONG, || {
            source.query_one(&reached, &[]).expect("ask for the slot").get::<_, bool>(0).then_some(())
        });
    }

    pub(crate) fn pause(&self) {
        self.bench.pair.target.run(NAME, &format!("ALTER SUBSCRIPTION {NAME} DISABLE"));
        let mut source = self.bench.pair.source.client(self.database);
        let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{NAME}'");
        wait::until("the subscription rests", wait::LONG, || {
            let active: bool = source.query_one(&active, &[]).expect("ask for the slot").get(0);
            (!active).then_some(())
        });
    }

    /// From being enabled to having everything, of which the newest row of `mark` is the last; then it rests again.
    pub(crate) fn catch_up(&self, mark: &str) -> CaughtUp {
        let newest = format!("SELECT max(id) FROM {mark}");
        let wanted: Option<i64> = self
            .bench
            .pair
            .source
            .client(self.database)
            .query_one(&newest, &[])
            .expect("ask for the mark")
            .get(0);
        let mut target = self.bench.pair.target.client(NAME);
        self.bench.settle();
        let start = Instant::now();
        self.bench.pair.target.run(NAME, &format!("ALTER SUBSCRIPTION {NAME} ENABLE"));
        wait::until("the subscription has applied everything", LONG, || {
            let there: Option<i64> = target.query_one(&newest, &[]).expect("ask for the mark").get(0);
            (there == wanted).then_some(())
        });
        let visible = start.elapsed();
        self.wait_caught_up();
        let durable = start.elapsed();
        self.pause();
        CaughtUp { visible, durable }
    }

    pub(crate) fn assert_same(&self) {
        same::rows(self.bench, self.database, NAME);
    }

    /// Nothing of it stays on either side.
    pub(crate) fn give_up(self) {
        self.bench.pair.target.run(NAME, &format!("DROP SUBSCRIPTION {NAME}"));
        self.bench.pair.target.drop_database(NAME);
        self.bench.pair.source.run(self.database, &format!("DROP PUBLICATION {NAME}"));
    }
}
