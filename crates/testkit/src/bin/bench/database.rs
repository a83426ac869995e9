//! A whole database with keys, indexes and foreign keys: at rest, and with writers at work.

use std::cell::RefCell;
use std::time::Instant;

use crate::contest::{self, WARM};
use crate::copy::noise;
use crate::migration::{self, Migration};
use crate::native::{self, Native};
use crate::section::{Comparison, Figure, Samples, Section, Unit, grouped};
use crate::{Bench, peer, pgbench, same};

const UNTIL: &str = "--until caught-up";
const AT_FULL_SPEED: &str = "--until caught-up --throttle off";

const GIVES_WAY: &str = "crossfade";
const UNTHROTTLED: &str = "crossfade --throttle off";
const NATIVE: &str = "native replication";

/// From nothing to everything, against the tools that move a database that rests.
pub(crate) fn still(bench: &Bench) -> Section {
    let rows = make(bench);
    let [ours, clone, dump] = contest::hold(
        bench,
        [
            ("crossfade", &mut || migration::run_anew(bench, "shop", "moved", UNTIL)),
            ("pgcopydb", &mut || peer::run_anew(bench, peer::PGCOPYDB, "shop")),
            ("pg_dump, pg_restore", &mut || peer::run_anew(bench, peer::DUMP, "shop")),
        ],
    );
    Section {
        name: "database".into(),
        what: format!(
            "Six tables of {} rows together, the largest of them narrow and the fourth part of the bytes wide, with \
             primary keys, secondary indexes and foreign keys, into an empty database. Everybody's time ends when \
             rows, indexes and foreign keys are there. crossfade's includes ANALYZE and that it has begun to follow \
             the source, pgcopydb's a vacuum and analyze of each table, pg_restore's neither; pg_dump's folder is \
             on the disk that the servers use. {WARM}",
            grouped(rows)
        ),
        commands: vec![migration::command("moved", UNTIL), peer::PGCOPYDB.into(), peer::DUMP.into()],
        comparisons: vec![Comparison::time("time", ours.times, [clone.times, dump.times]).bar(
            1.15,
            "reading, writing and sorting for the indexes are the servers' work and the same for all; crossfade's time \
             includes ANALYZE, the slot and the first changes as well.",
        )],
        figures: ours.costs.figures_with(rows, "rows"),
    }
}

/// The same with writers, against the one peer that keeps up with them.
pub(crate) fn live(bench: &Bench) -> Section {
    let rows = make(bench);
    let source = bench.pair.source.url("shop");
    pgbench::init(bench, "shop", 10);
    let writers = || pgbench::Writers::start(bench, &source, 300);
    let noticed =
        [GIVES_WAY, UNTHROTTLED, NATIVE].map(|name| Samples::of(format!("p99 of the writers beside {name}")));
    let noticed = noticed.map(RefCell::new);
    let moved = |args: &str, noticed: &RefCell<Samples>| {
        let migration = Migration::begin(bench, "shop", "moved");
        let writers = writers();
        let measured = migration.run(args);
        noticed.borrow_mut().push(writers.stop());
        migration.run(UNTIL);
        same::rows(bench, "shop", "moved");
        migration.give_up();
        measured
    };
    let [ours, unthrottled, native] = contest::hold(
        bench,
        [
            (GIVES_WAY, &mut || moved(UNTIL, &noticed[0])),
            (UNTHROTTLED, &mut || moved(AT_FULL_SPEED, &noticed[1])),
            (NATIVE, &mut || {
                Native::publish(bench, "shop");
                let writers = writers();
                bench.settle();
                let start = Instant::now();
                let native = Native::subscribe(bench, "shop");
                native.wait_ready();
                native.wait_caught_up();
                let took = start.elapsed();
                noticed[2].borrow_mut().push(writers.stop());
                native.give_up();
                took.into()
            }),
        ],
    );
    let mut figures = ours.costs.figures_with(rows, "rows");
    // The first was noticed before the first round.
    let noticed = noticed.map(|samples| samples.into_inner().without_first());
    figures.extend(noticed.map(|samples| Figure::new(Unit::Milliseconds, samples)));
    Section {
        name: "end-to-end".into(),
        what: format!(
            "The same database of {} rows, with pgbench writing 300 TPC-B transactions a second to tables of scale 10 \
             beside them all the time: from an empty database until everything that was committed when this was \
             asked is on the target. Native replication fills tables that have their indexes and foreign keys \
             already, as it does when its target is made by pg_dump --schema-only. {WARM}",
            grouped(rows)
        ),
        commands: vec![
            pgbench::Writers::command(300),
            migration::command("moved", UNTIL),
            migration::command("moved", AT_FULL_SPEED),
            native::command(),
        ],
        comparisons: vec![
            Comparison::time("time", ours.times, [native.times.clone()]).because(
                "the copy gives way to the writers, from whom the other two take the processors, as their latencies \
                 show (below).",
            ),
            Comparison::time("time with --throttle off", unthrottled.times, [native.times]),
        ],
        figures,
    }
}

/// Creates the database and says how many rows it has.
fn make(bench: &Bench) -> u64 {
    let [events, customers, products, orders, lines, documents] =
        [5_000_000, 200_000, 20_000, 500_000, 1_500_000, 10_000].map(|full| bench.scaled(full));
    bench.pair.source.create_database("shop");
    bench.make(
        "shop",
        &[
            "CREATE TABLE events (id bigint, device int NOT NULL, kind int, note text, at timestamptz NOT NULL)",
            &format!(
                "INSERT INTO events SELECT g, g::bigint * 7919 % 10007, g % 11, md5(g::text),
                        timestamptz '2026-01-01' + g * interval '1 second' FROM generate_series(1, {events}) g"
            ),
            "ALTER TABLE events ADD PRIMARY KEY (id)",
            "CREATE INDEX events_device_at ON events (device, at)",
            "CREATE TABLE customers (id bigint PRIMARY KEY, email text NOT NULL UNIQUE, name text, since date)",
            &format!(
                "INSERT INTO customers SELECT g, md5(g::text) || '@example.com', 'Customer ' || g,
                        date '2020-01-01' + (g % 2000)::int FROM generate_series(1, {customers}) g"
            ),
            "CREATE TABLE products (id bigint PRIMARY KEY, sku text NOT NULL UNIQUE, price numeric(10,2))",
            &format!(
                "INSERT INTO products SELECT g, 'SKU-' || g, g % 1000 + 0.99 FROM generate_series(1, {products}) g"
            ),
            "CREATE TABLE orders (id bigint PRIMARY KEY, customer bigint NOT NULL REFERENCES customers,
                                  placed timestamptz NOT NULL, total numeric(12,2))",
            &format!(
                "INSERT INTO orders SELECT g, 1 + g::bigint * 7919 % {customers},
                        timestamptz '2026-01-01' + g * interval '1 minute', g % 500 FROM generate_series(1, {orders}) g"
            ),
            "CREATE INDEX orders_customer ON orders (customer)",
            "CREATE INDEX orders_placed ON orders (placed)",
            "CREATE TABLE order_lines (order_id bigint REFERENCES orders, line int,
                                       product bigint NOT NULL REFERENCES products, quantity int,
                                       PRIMARY KEY (order_id, line))",
            &format!(
                "INSERT INTO order_lines SELECT 1 + g % {orders}, g / {orders}, 1 + g * 31 % {products}, g % 9
                   FROM generate_series(1, {lines}) g"
            ),
            "CREATE INDEX order_lines_product ON order_lines (product)",
            "CREATE TABLE documents (id bigint PRIMARY KEY, customer bigint NOT NULL REFERENCES customers, body bytea)",
            &format!(
                "INSERT INTO documents {}",
                noise(&format!("g, 1 + g % {customers}"), 20_000, documents)
            ),
            "VACUUM ANALYZE",
        ],
    );
    events + customers + products + orders + lines + documents
}
