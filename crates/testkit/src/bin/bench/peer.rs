//! The usual tools, as lines for a shell: what the page shows is what is run.
//!
//! In a line `$SOURCE` and `$TARGET` are URLs, `$FROM` and `$TO` the same servers as options for their own programs, and
//! `$DIR` is an empty folder. None of them is kept.

use std::ffi::{OsStr, OsString};
use std::process::Command;
use std::time::Instant;

use testkit::{Folder, postgres};

use crate::host::Host;
use crate::migration::Spent;
use crate::{Bench, same};

/// A program, and Debian's package that has it.
pub(crate) type Program = (&'static str, &'static str);

pub(crate) const POSTGRES: &[Program] = &[
    ("psql", "postgresql-client-15"),
    ("pg_dump", "postgresql-client-15"),
    ("pg_restore", "postgresql-client-15"),
    ("pg_recvlogical", "postgresql-client-15"),
    ("pgbench", "postgresql-15"),
    ("pgcopydb", "pgcopydb"),
];

pub(crate) const MARIADB: &[Program] = &[
    ("mariadb", "mariadb-client-core"),
    ("mariadb-binlog", "mariadb-client"),
    ("mariadb-dump", "mariadb-client"),
    ("mydumper", "mydumper"),
    ("myloader", "mydumper"),
    ("pgloader", "pgloader"),
];

/// The path on which every contestant finds the same programs: the real ones before Debian's wrappers, which are
/// scripts that take a tenth of a second to start.
pub(crate) fn path() -> OsString {
    let mut path = postgres::binaries(15).unwrap_or_default().into_os_string();
    path.push(":/usr/bin:/bin:/usr/sbin");
    path
}

/// Whether all of these are there.
pub(crate) fn installed(path: &OsStr, programs: &[Program]) -> Result<(), String> {
    let there = |program: &str| std::env::split_paths(path).any(|folder| folder.join(program).exists());
    let missing: Vec<&Program> = programs.iter().filter(|(program, _)| !there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (programs, mut packages): (Vec<&str>, Vec<&str>) = missing.into_iter().copied().unzip();
    packages.dedup();
    Err(format!(
        "{} missing, which the program is measured against: `apt-get install -y --no-install-recommends {}`",
        programs.join(", "),
        packages.join(" ")
    ))
}

pub(crate) const DUMP: &str =
    "pg_dump -Fd -Z0 -j2 -f $DIR/dump -d $SOURCE\npg_restore -j2 -d $TARGET $DIR/dump";

pub(crate) const PGCOPYDB: &str =
    "pgcopydb clone --source $SOURCE --target $TARGET --dir $DIR/clone --table-jobs 2 --index-jobs 2";

/// The schema alone, as one prepares the target of a subscription.
pub(crate) const SCHEMA: &str =
    "pg_dump --schema-only --no-publications -d $SOURCE | psql -qX -v ON_ERROR_STOP=1 -d $TARGET";

/// A table in two streams, each over half of its blocks.
pub(crate) fn pipes(bench: &Bench, database: &str, table: &str) -> String {
    let blocks = format!("SELECT pg_relation_size('{table}') / 8192");
    let blocks: i64 =
        bench.pair.source.client(database).query_one(&blocks, &[]).expect("ask for the table's size").get(0);
    let middle = blocks / 2;
    let stream = |half: &str| {
        format!(
            "psql -qX -d $SOURCE -c \"COPY (SELECT * FROM {table} WHERE ctid {half} '({middle},0)') TO STDOUT \
             (FORMAT binary)\" |\n  psql -qX -d $TARGET -c 'COPY {table} FROM STDIN (FORMAT binary)'"
        )
    };
    format!("{} &\n{}\nwait $!", stream("<"), stream(">="))
}

/// Runs a line between a database of the source and one of the target that exists.
pub(crate) fn run<S: Host, T: Host>(bench: &Bench<S, T>, line: &str, database: &str, target: &str) -> Spent {
    let folder = Folder::new("peer");
    bench.settle();
    let start = Instant::now();
    let output = Command::new("bash")
        .args(["-eu", "-o", "pipefail", "-c", line])
        .env_clear()
        .env("PATH", &bench.path)
        .env("SOURCE", bench.pair.source.url(database))
        .env("TARGET", bench.pair.target.url(target))
        .env("FROM", bench.pair.source.options())
        .env("TO", bench.pair.target.options())
        .env("DIR", folder.path())
        // Where pgcopydb leaves what it is not told to leave elsewhere.
        .env("HOME", folder.path())
        .env("TMPDIR", folder.path())
        .output()
        .expect("run bash");
    let took = start.elapsed();
    assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    took.into()
}

/// Runs a line into a new database that is gone afterwards.
pub(crate) fn run_anew<S: Host, T: Host>(bench: &Bench<S, T>, line: &str, database: &str) -> Spent {
    bench.pair.target.create_database("peer");
    let spent = run(bench, line, database, "peer");
    same::counts(bench, database, "peer");
    bench.pair.target.drop_database("peer");
    spent
}
