//! Random multi-row transactions against PostgreSQL.
//!
//! Each table of the schema stands for one difficulty; each transaction takes one to eight steps over them, with
//! savepoints, and commits most of the time. Ids are few, so that the writers and the migration meet on rows.

mod steps;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use postgres::{Client, NoTls};

pub use super::{Load, Tally, Writers};
use crate::postgres::{connect, run};

const SCHEMA: &str = include_str!("shop/schema.sql");

/// Creates the tables and fills them with about `rows` rows each.
pub fn create(url: &str, rows: u32) {
    let mut client = connect(url);
    run(&mut client, SCHEMA);
    run(&mut client, &fill(rows));
}

/// Starts writers on a database that [`create`] has made.
pub fn write(url: &str, load: Load) -> Writers {
    repeat(url, load, move |rng| transaction(rng, load.truncate))
}

/// Starts writers that make up one transaction after another. A transaction is its statements, with its own
/// `BEGIN` and `COMMIT` where it has several.
pub fn repeat(
    url: &str,
    load: Load,
    plan: impl Fn(&mut Rng) -> Vec<String> + Clone + Send + 'static,
) -> Writers {
    let url = url.to_owned();
    Writers::spawn(load, move |rng, stop| work(&url, load, rng, &plan, stop))
}

/// One to eight steps, some of them undone by a savepoint; most are committed.
fn transaction(rng: &mut Rng, truncate: bool) -> Vec<String> {
    // Serialization failures are part of the load.
    let begin = if rng.u8(0..6) == 0 { "BEGIN ISOLATION LEVEL REPEATABLE READ" } else { "BEGIN" };
    let mut statements = vec![begin.to_owned()];
    for _ in 0..rng.u8(1..=8) {
        let around = rng.u8(0..8);
        if around < 2 {
            statements.push("SAVEPOINT here".into());
        }
        steps::step(rng, &mut statements);
        match around {
            0 => statements.push("ROLLBACK TO here".into()),
            1 => statements.push("RELEASE here".into()),
            _ => {}
        }
    }
    if truncate && rng.u16(0..300) == 0 {
        statements.push("TRUNCATE scratch".into());
    }
    statements.push(if rng.u8(0..8) == 0 { "ROLLBACK" } else { "COMMIT" }.into());
    statements
}

fn fill(rows: u32) -> String {
    let large = "repeat(md5(n::text), 100 + n % 50)";
    format!(
        "INSERT INTO account SELECT n, 'name ' || n, n % 1000, n, CASE n % 3 WHEN 0 THEN {large} END FROM generate_series(1, {rows}) n;
         INSERT INTO seat SELECT n, 'seat ' || n, CASE n % 5 WHEN 0 THEN {large} END FROM generate_series(1, {rows}) n;
         INSERT INTO item SELECT n % 7, 'code ' || n, n, CASE n % 4 WHEN 0 THEN {large}::bytea END FROM generate_series(1, {rows}) n;
         INSERT INTO token SELECT md5(n::text)::uuid, 0, CASE n % 4 WHEN 0 THEN {large} END FROM generate_series(1, {rows}) n;
         INSERT INTO word SELECT 'word ' || n, n, n / 7.0 FROM generate_series(1, {rows}) n;
         INSERT INTO event SELECT 'kind ' || n % 20, n % 10, CASE n % 9 WHEN 0 THEN {large} END FROM generate_series(1, {rows}) n;
         INSERT INTO badge SELECT n, 'serial ' || n, NULL FROM generate_series(1, {rows}) n;
         INSERT INTO reading SELECT n, (ARRAY['north', 'south', 'east', 'west'])[1 + n % 4], n / 3.0, CASE n % 6 WHEN 0 THEN {large} END
           FROM generate_series(1, {rows}) n;
         INSERT INTO invoice (total) SELECT n FROM generate_series(1, {rows}) n;
         INSERT INTO line (invoice, price, amount) SELECT 1 + n % {rows}, n / 100.0, n % 9 FROM generate_series(1, {rows}) n;
         INSERT INTO scratch SELECT n, n FROM generate_series(1, {rows}) n;
         {}",
        steps::samples(rows)
    )
}

/// How a transaction failed.
enum Failure {
    Refused,
    /// The connection is gone, and with it the knowledge of what happened.
    Lost,
}

fn work(
    url: &str,
    load: Load,
    mut rng: Rng,
    plan: &impl Fn(&mut Rng) -> Vec<String>,
    stop: &AtomicBool,
) -> Tally {
    let mut tally = Tally::default();
    let mut client = None;
    while !stop.load(Ordering::SeqCst) {
        let Some(session) = client.as_mut() else {
            match Client::connect(url, NoTls) {
                Ok(session) => client = Some(session),
                // The server is being restarted.
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
            continue;
        };
        let statements = plan(&mut rng);
        match transact(session, &statements) {
            Ok(()) if statements.last().is_some_and(|last| last == "ROLLBACK") => tally.rolled_back += 1,
            Ok(()) => tally.committed += 1,
            Err(Failure::Refused) => tally.refused += 1,
            Err(Failure::Lost) => {
                tally.reconnects += 1;
                client = None;
            }
        }
        std::thread::sleep(Duration::from_millis(rng.u64(0..=load.pause_ms_max)));
    }
    tally
}

fn transact(client: &mut Client, statements: &[String]) -> Result<(), Failure> {
    for statement in statements {
        let Err(error) = client.batch_execute(statement) else { continue };
        let Some(refusal) = error.as_db_error() else { return Err(Failure::Lost) };
        match &refusal.code().code()[..2] {
            // Integrity; serialization and deadlock; a lock that could not be had.
            "23" | "40" | "55" => client.batch_execute("ROLLBACK").map_err(|_| Failure::Lost)?,
            // The server shuts down, or is starting up.
            "57" => return Err(Failure::Lost),
            _ => panic!("the workload itself is wrong: {refusal}\n{statement}"),
        }
        return Err(Failure::Refused);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{Server, Stop};

    #[test]
    fn writes_through_a_restart_and_every_step_is_valid() {
        let mut server = Server::builder().without_fsync().start();
        create(&server.url("postgres"), 300);
        let load = Load { truncate: true, pause_ms_max: 0, ..Load::default() };
        let writers = write(&server.url("postgres"), load);
        std::thread::sleep(Duration::from_secs(3));
        server.restart(Stop::Kill);
        std::thread::sleep(Duration::from_secs(2));
        let tally = writers.stop();
        assert!(tally.committed > 50 && tally.rolled_back > 5 && tally.reconnects > 0, "{tally}");
        assert!(tally.refused < tally.committed, "too much is refused to be a load: {tally}");
        let external: i64 = server
            .client("postgres")
            .query_one("SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'account'", &[])
            .unwrap()
            .get(0);
        assert!(external > 0, "large values are really out of line");
    }
}
