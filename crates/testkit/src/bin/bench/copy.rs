//! The past alone: one huge narrow table, wide rows, many small tables.

use crate::contest::{self, WARM};
use crate::host::Host;
use crate::migration::{self, Migration};
use crate::section::{Comparison, Section, grouped};
use crate::{Bench, peer, same};

const COPIED: &str = "--until copied";

/// The pipes' table exists when their time begins.
const WHY: &str = "crossfade's time includes what the pipes have before theirs begins: the checks of both sides, the \
    slot, pg_dump, the table; together some 0.16 s. The copy itself is as fast: see copy-huge, where that weighs less.";

/// In the larger one the start of the program weighs less.
pub(crate) fn narrow(bench: &Bench, name: &str, rows: u64) -> Section {
    let rows = bench.scaled(rows);
    bench.pair.source.create_database("narrow");
    bench.make(
        "narrow",
        &[
            "CREATE TABLE narrow (id bigint, a int, b int, c text, at timestamptz DEFAULT '2026-01-01')",
            &format!(
                "INSERT INTO narrow SELECT g, g % 1000, g % 77, md5(g::text) FROM generate_series(1, {rows}) g"
            ),
            "ALTER TABLE narrow REPLICA IDENTITY FULL",
            "VACUUM ANALYZE narrow",
        ],
    );
    let what = format!("One table of {} narrow rows without a key or an index", grouped(rows));
    against_pipes(bench, name, "narrow", rows, &what)
}

pub(crate) fn wide(bench: &Bench) -> Section {
    let rows = bench.scaled(50_000);
    bench.pair.source.create_database("wide");
    bench.make(
        "wide",
        &[
            "CREATE TABLE wide (id bigint, kind int, at timestamptz, v bytea)",
            &format!("INSERT INTO wide {}", noise("g, g % 7, timestamptz '2026-01-01'", 20_000, rows)),
            "ALTER TABLE wide REPLICA IDENTITY FULL",
            "VACUUM ANALYZE wide",
        ],
    );
    let what = format!(
        "One table of {} rows with a value of 20 kB each that does not compress and is stored out of line",
        grouped(rows)
    );
    against_pipes(bench, "copy-wide", "wide", rows, &what)
}

fn against_pipes(bench: &Bench, name: &str, table: &str, rows: u64, what: &str) -> Section {
    let line = peer::pipes(bench, table, table);
    let [ours, pipes] = contest::hold(
        bench,
        [
            ("crossfade", &mut || {
                let migration = Migration::begin(bench, table, "copied");
                let spent = migration.run(COPIED);
                same::rows(bench, table, "copied");
                migration.give_up();
                spent
            }),
            ("psql pipes", &mut || {
                bench.pair.target.create_database("peer");
                peer::run(bench, peer::SCHEMA, table, "peer");
                let spent = peer::run(bench, &line, table, "peer");
                same::counts(bench, table, "peer");
                bench.pair.target.drop_database("peer");
                spent
            }),
        ],
    );
    Section {
        name: name.into(),
        what: format!(
            "{what}, in two streams, until every row is committed on the target. crossfade's time is that of the whole \
             program, with its start, its checks and the creation of the table; the pipes' table is there before. {WARM}"
        ),
        commands: vec![migration::command("copied", COPIED), line],
        comparisons: vec![Comparison::time("time", ours.times, [pipes.times]).bar(1.0, WHY)],
        figures: ours.costs.figures_with(rows, "rows"),
    }
}

pub(crate) fn many(bench: &Bench) -> Section {
    const UNTIL: &str = "--until caught-up";
    let tables = many_tables(bench, "many");
    let [ours, dump, clone] = contest::hold(
        bench,
        [
            ("crossfade", &mut || migration::run_anew(bench, "many", "copied", UNTIL)),
            ("pg_dump, pg_restore", &mut || peer::run_anew(bench, peer::DUMP, "many")),
            ("pgcopydb", &mut || peer::run_anew(bench, peer::PGCOPYDB, "many")),
        ],
    );
    Section {
        name: "copy-many".into(),
        what: format!(
            "{} tables of 100 rows with a primary key each, from an empty database to all of them with their keys. \
             crossfade analyzes them as well, and follows the source at the end. {WARM}",
            grouped(tables)
        ),
        commands: vec![migration::command("copied", UNTIL), peer::DUMP.into(), peer::PGCOPYDB.into()],
        comparisons: vec![Comparison::time("time", ours.times, [dump.times, clone.times])],
        figures: ours.costs.figures_with(tables * 100, "rows"),
    }
}

/// Creates a database of many small tables and says how many.
pub(crate) fn many_tables(bench: &Bench, database: &str) -> u64 {
    let tables = bench.scaled(2_000);
    bench.pair.source.create_database(database);
    let make = format!(
        "DO $$ BEGIN
           FOR t IN 1..{tables} LOOP
             EXECUTE format('CREATE TABLE small_%s (id int PRIMARY KEY, v text)', t);
             EXECUTE format('INSERT INTO small_%s SELECT g, md5(g::text) FROM generate_series(1, 100) g', t);
             COMMIT;
           END LOOP;
         END $$"
    );
    bench.make(database, &[&make, "VACUUM ANALYZE"]);
    tables
}

/// A query for `rows` rows with `columns` of the number `g`, and then `bytes` that do not compress. They are parts of
/// one longer noise, so that making them costs next to nothing.
pub(crate) fn noise(columns: &str, bytes: u64, rows: u64) -> String {
    format!(
        "WITH noise AS MATERIALIZED
           (SELECT string_agg(sha512(i::text::bytea), ''::bytea) AS b FROM generate_series(1, {blocks}) i)
         SELECT {columns}, substr(b, 1 + g % 4000, {bytes}) FROM noise, generate_series(1, {rows}) g",
        blocks = (bytes + 4000).div_ceil(64)
    )
}
