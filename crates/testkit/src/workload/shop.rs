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
    let url = url.to_owned();
    Writers::spawn(load, move |rng, stop| {
        Writer { url: url.clone(), load, rng, tally: Tally::default() }.work(stop)
    })
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

struct Writer {
    url: String,
    load: Load,
    rng: Rng,
    tally: Tally,
}

/// How a transaction ended.
enum End {
    Committed,
    RolledBack,
    Refused,
    /// The connection is gone, and with it the knowledge of what happened.
    Lost,
}

impl Writer {
    fn work(mut self, stop: &AtomicBool) -> Tally {
        let mut client = None;
        while !stop.load(Ordering::SeqCst) {
            let Some(session) = client.as_mut() else {
                match Client::connect(&self.url, NoTls) {
                    Ok(session) => client = Some(session),
                    // The server is being restarted.
                    Err(_) => std::thread::sleep(Duration::from_millis(50)),
                }
                continue;
            };
            match self.transact(session) {
                End::Committed => self.tally.committed += 1,
                End::RolledBack => self.tally.rolled_back += 1,
                End::Refused => self.tally.refused += 1,
                End::Lost => {
                    self.tally.reconnects += 1;
                    client = None;
                }
            }
            std::thread::sleep(Duration::from_millis(self.rng.u64(0..=self.load.pause_ms_max)));
        }
        self.tally
    }

    fn transact(&mut self, client: &mut Client) -> End {
        // Serialization failures are part of the load.
        let begin = if self.rng.u8(0..6) == 0 { "BEGIN ISOLATION LEVEL REPEATABLE READ" } else { "BEGIN" };
        let mut statements = vec![begin.to_owned()];
        for _ in 0..self.rng.u8(1..=8) {
            match self.rng.u8(0..8) {
                0 => {
                    statements.push("SAVEPOINT here".into());
                    steps::step(&mut self.rng, &mut statements);
                    statements.push("ROLLBACK TO here".into());
                }
                1 => {
                    statements.push("SAVEPOINT here".into());
                    steps::step(&mut self.rng, &mut statements);
                    statements.push("RELEASE here".into());
                }
                _ => steps::step(&mut self.rng, &mut statements),
            }
        }
        if self.load.truncate && self.rng.u16(0..300) == 0 {
            statements.push("TRUNCATE scratch".into());
        }
        let commits = self.rng.u8(0..8) != 0;
        statements.push(if commits { "COMMIT" } else { "ROLLBACK" }.into());
        for statement in statements {
            if let Err(error) = client.batch_execute(&statement) {
                return self.fail(client, &statement, &error);
            }
        }
        if commits { End::Committed } else { End::RolledBack }
    }

    fn fail(&self, client: &mut Client, statement: &str, error: &postgres::Error) -> End {
        let Some(refusal) = error.as_db_error() else { return End::Lost };
        match refusal.code().code() {
            // Integrity, serialization and deadlock.
            code if code.starts_with("23") || code.starts_with("40") => {
                if client.batch_execute("ROLLBACK").is_ok() { End::Refused } else { End::Lost }
            }
            // The server shuts down, or is starting up.
            code if code.starts_with("57P") => End::Lost,
            _ => panic!("the workload itself is wrong: {refusal}\n{statement}"),
        }
    }
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
