//! Copies from MariaDB: into another MariaDB, and into PostgreSQL.

use testkit::mariadb::Server;

use crate::contest::{self, WARM};
use crate::host::Host;
use crate::section::{Comparison, Section, grouped};
use crate::{Bench, migration, peer};

const DATABASE: &str = "sbtest";
const UNTIL: &str = "--until caught-up";

const MYDUMPER: &str = "mydumper $FROM --database=sbtest --threads=2 --rows=10000 --outputdir=$DIR/dump
myloader $TO --database=peer --threads=2 --enable-binlog --directory=$DIR/dump";

const DUMP: &str = "mariadb-dump $FROM --single-transaction sbtest | mariadb $TO peer";

/// Fewer workers wait for each other for ever, and wide rows that are fetched many at a time are more than its memory holds.
const PGLOADER: &str = "pgloader --root-dir $DIR/pgloader --with 'workers = 4' --with 'concurrency = 1' \\
  --with 'prefetch rows = 1000' --cast 'type char to text drop typemod' ${SOURCE/mariadb:/mysql:} $TARGET";

pub(crate) fn to_mariadb(bench: &Bench<Server, Server>) -> Section {
    let rows = make(bench);
    bench.make(
        DATABASE,
        &[
            "ALTER TABLE sbtest1 ADD KEY k_1 (k)",
            "ALTER TABLE sbtest2 ADD KEY k_2 (k)",
            "ALTER TABLE documents ADD KEY owner (owner)",
        ],
    );
    let [ours, loader, dump] = contest::hold(
        bench,
        [
            ("crossfade", &mut || migration::run_anew(bench, DATABASE, "moved", UNTIL)),
            ("mydumper, myloader", &mut || peer::run_anew(bench, MYDUMPER, DATABASE)),
            ("mariadb-dump", &mut || peer::run_anew(bench, DUMP, DATABASE)),
        ],
    );
    Section {
        name: "mariadb-copy".into(),
        what: format!(
            "From MariaDB to MariaDB: {}, each with a primary key and a secondary index, into an empty database, in two \
             streams (mariadb-dump: one). Everybody's time ends when rows and indexes are there, and all of it is in \
             the target's log; crossfade's includes that it has begun to follow the source. mydumper's folder is on the \
             disk that the servers use. {WARM}",
            tables(bench)
        ),
        commands: vec![migration::command("moved", UNTIL), MYDUMPER.into(), DUMP.into()],
        comparisons: vec![Comparison::time("time", ours.times, [loader.times, dump.times]).bar(
            1.2,
            "reading and writing are the servers' work and the same for all; crossfade's time includes its checks, its \
             records and the first changes as well.",
        )],
        figures: ours.costs.figures_with(rows, "rows"),
    }
}

pub(crate) fn to_postgres(bench: &Bench<Server>) -> Section {
    let rows = make(bench);
    let [ours, pgloader] = contest::hold(
        bench,
        [
            ("crossfade", &mut || migration::run_anew(bench, DATABASE, "moved", UNTIL)),
            ("pgloader", &mut || peer::run_anew(bench, PGLOADER, DATABASE)),
        ],
    );
    Section {
        name: "mariadb-postgres".into(),
        what: format!(
            "From MariaDB to PostgreSQL: {}, each with a primary key and no other index, into an empty database, to the \
             same types, two tables at a time. Everybody's time ends when rows and primary keys are there; crossfade's \
             includes ANALYZE and that it has begun to follow the source. {WARM}",
            tables(bench)
        ),
        commands: vec![migration::command("moved", UNTIL), PGLOADER.into()],
        comparisons: vec![Comparison::time("time", ours.times, [pgloader.times]).bar(
            5.0,
            "reading, writing and sorting for the keys are the servers' work and the same for both.",
        )],
        figures: ours.costs.figures_with(rows, "rows"),
    }
}

/// Creates the database and says how many rows it has.
fn make<T: Host>(bench: &Bench<Server, T>) -> u64 {
    let [narrow, wide] = sizes(bench);
    bench.pair.source.create_database(DATABASE);
    let documents = format!(
        "INSERT INTO documents
           SELECT seq, 1 + seq % 1000, (SELECT GROUP_CONCAT(SHA2(part.seq + whole.seq, 512) SEPARATOR '')
                                          FROM seq_1_to_80 part)
             FROM seq_1_to_{wide} whole"
    );
    let statements: Vec<String> = ["sbtest1", "sbtest2"]
        .into_iter()
        .flat_map(|name| table(name, narrow))
        .chain([
            "CREATE TABLE documents (id INT NOT NULL PRIMARY KEY, owner INT NOT NULL, body LONGTEXT)".into(),
            documents,
        ])
        .collect();
    bench.make(DATABASE, &statements.iter().map(String::as_str).collect::<Vec<_>>());
    2 * narrow + wide
}

fn sizes<T: Host>(bench: &Bench<Server, T>) -> [u64; 2] {
    [1_500_000, 30_000].map(|full| bench.scaled(full))
}

fn tables<T: Host>(bench: &Bench<Server, T>) -> String {
    let [narrow, wide] = sizes(bench);
    format!(
        "two of sysbench's tables of {} rows, and one of {} texts of 10 kB",
        grouped(narrow),
        grouped(wide)
    )
}

/// What creates and fills a table as sysbench has it.
pub(crate) fn table(name: &str, rows: u64) -> [String; 2] {
    [
        format!(
            "CREATE TABLE {name} (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL DEFAULT 0,
                                  c CHAR(120) NOT NULL DEFAULT '', pad CHAR(60) NOT NULL DEFAULT '')"
        ),
        format!(
            "INSERT INTO {name} SELECT seq, 1 + seq * 7919 % {rows}, LEFT(SHA2(seq, 512), 120), LEFT(SHA2(-seq, 256), 60)
               FROM seq_1_to_{rows}"
        ),
    ]
}
