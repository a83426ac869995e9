//! The usual tools, as lines for a shell: what the page shows is what is run.
//!
//! In a line `$SOURCE` and `$TARGET` are URLs and `$DIR` is an empty folder. None of them is kept.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{Folder, postgres};

use crate::{Bench, same};

/// The path on which every contestant finds the same programs: the real ones before Debian's wrappers, which are
/// scripts that take a tenth of a second to start.
pub(crate) fn installed() -> Result<OsString, String> {
    let folder = postgres::binaries(15).unwrap_or_default();
    let programs = ["psql", "pgbench", "pg_dump", "pg_restore", "pg_recvlogical"];
    let mut missing: Vec<&str> =
        programs.into_iter().filter(|program| !folder.join(program).exists()).collect();
    if !Path::new("/usr/bin/pgcopydb").exists() {
        missing.push("pgcopydb");
    }
    if missing.is_empty() {
        let mut path = folder.into_os_string();
        path.push(":/usr/bin:/bin");
        return Ok(path);
    }
    Err(format!(
        "{} missing, which the program is measured against: \
         `apt-get install -y --no-install-recommends postgresql-15 postgresql-client-15 pgcopydb`",
        missing.join(", ")
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
pub(crate) fn run(bench: &Bench, line: &str, database: &str, target: &str) -> Duration {
    let folder = Folder::new("peer");
    bench.settle();
    let start = Instant::now();
    let output = Command::new("bash")
        .args(["-eu", "-o", "pipefail", "-c", line])
        .env_clear()
        .env("PATH", &bench.path)
        .env("SOURCE", bench.pair.source.url(database))
        .env("TARGET", bench.pair.target.url(target))
        .env("DIR", folder.path())
        // Where pgcopydb leaves what it is not told to leave elsewhere.
        .env("HOME", folder.path())
        .env("TMPDIR", folder.path())
        .output()
        .expect("run bash");
    let took = start.elapsed();
    assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    took
}

/// Runs a line into a new database that is gone afterwards.
pub(crate) fn run_anew(bench: &Bench, line: &str, database: &str) -> Duration {
    bench.pair.target.create_database("peer");
    let took = run(bench, line, database, "peer");
    same::counts(bench, database, "peer");
    bench.drop_target("peer");
    took
}
