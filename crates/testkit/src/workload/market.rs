//! Random multi-row transactions against MariaDB.
//!
//! Each table of the schema stands for one difficulty, as in [`super::shop`]; ids are few, so that the writers and the
//! migration meet on rows.

mod steps;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use mysql::Conn;
use mysql::prelude::Queryable;

pub use super::{Load, Tally, Writers};
use crate::mariadb::{Server, run};

const SCHEMA: &[&str] = &[
    "CREATE TABLE account (id INT PRIMARY KEY, name VARCHAR(60) NOT NULL, balance BIGINT NOT NULL DEFAULT 0, note TEXT,
        touched TIMESTAMP(6) NULL)",
    "CREATE TABLE seat (id INT PRIMARY KEY, code VARCHAR(40) UNIQUE, note TEXT)",
    // Keys that the server compares without case and with padding.
    "CREATE TABLE item (tenant SMALLINT NOT NULL, code VARCHAR(30) COLLATE utf8mb4_general_ci NOT NULL, quantity MEDIUMINT NOT NULL,
        PRIMARY KEY (tenant, code))",
    "CREATE TABLE token (id BINARY(6) PRIMARY KEY, seen INT NOT NULL, data BLOB)",
    "CREATE TABLE large (id BIGINT UNSIGNED PRIMARY KEY, amount DECIMAL(20,4))",
    "CREATE TABLE word (word VARCHAR(40) COLLATE utf8mb4_nopad_bin PRIMARY KEY, uses INT NOT NULL, weight DOUBLE)",
    "CREATE TABLE event (kind VARCHAR(20), at INT, weight FLOAT, note TEXT)",
    "CREATE TABLE moment (at DATETIME(3), n INT, note VARCHAR(20), PRIMARY KEY (at, n))",
    "CREATE TABLE invoice (id INT AUTO_INCREMENT PRIMARY KEY, total INT NOT NULL DEFAULT 0, double_total INT AS (total * 2) VIRTUAL)",
    "CREATE TABLE line (id INT AUTO_INCREMENT PRIMARY KEY, invoice INT NOT NULL, amount INT, cost INT AS (amount + 1) STORED,
        FOREIGN KEY (invoice) REFERENCES invoice (id))",
    "CREATE TABLE scratch (id INT PRIMARY KEY, value INT)",
    "CREATE TABLE sample (id INT PRIMARY KEY, tiny TINYINT, utiny TINYINT UNSIGNED, medium MEDIUMINT, umedium MEDIUMINT UNSIGNED,
        ubig BIGINT UNSIGNED, dec1 DECIMAL(30,10), real1 FLOAT, real2 DOUBLE, bits BIT(9), flag BOOLEAN, year1 YEAR,
        char1 CHAR(10), latin VARCHAR(20) CHARACTER SET latin1, cyrillic VARCHAR(20) CHARACTER SET koi8r, utf16 VARCHAR(20) CHARACTER SET utf16,
        bin1 BINARY(8), bin2 VARBINARY(20), blob1 BLOB, date1 DATE, time1 TIME(2), at DATETIME(6), stamp TIMESTAMP NULL,
        mood ENUM('sad', 'it''s ok', 'glad'), colours SET('red', 'green', 'blue'), doc JSON, uuid1 UUID, ip INET6)",
];

/// Creates the tables and fills them with about `rows` rows each.
pub fn create(server: &Server, database: &str, rows: u32) {
    let mut client = server.client(database);
    SCHEMA.iter().for_each(|statement| run(&mut client, statement));
    steps::fill(rows).iter().for_each(|statement| run(&mut client, statement));
}

/// Starts writers on a database that [`create`] has made.
pub fn write(server: &Server, database: &str, load: Load) -> Writers {
    repeat(server, database, load, move |rng| transaction(rng, load.truncate))
}

/// Starts writers that make up one transaction after another. A transaction is its statements, with its own `BEGIN` and
/// `COMMIT` where it has several.
pub fn repeat(
    server: &Server,
    database: &str,
    load: Load,
    plan: impl Fn(&mut Rng) -> Vec<String> + Clone + Send + 'static,
) -> Writers {
    let options = server.options(database);
    Writers::spawn(load, move |rng, stop| work(&options, load, rng, &plan, stop))
}

/// One to six steps, some of them undone by a savepoint; most are committed.
fn transaction(rng: &mut Rng, truncate: bool) -> Vec<String> {
    // It commits by itself.
    if truncate && rng.u16(0..300) == 0 {
        return vec!["TRUNCATE TABLE scratch".to_owned()];
    }
    let mut statements = vec!["BEGIN".to_owned()];
    for _ in 0..rng.u8(1..=6) {
        let undone = rng.u8(0..8) == 0;
        if undone {
            statements.push("SAVEPOINT here".into());
        }
        steps::step(rng, &mut statements);
        if undone {
            statements.push("ROLLBACK TO here".into());
        }
    }
    statements.push(if rng.u8(0..8) == 0 { "ROLLBACK" } else { "COMMIT" }.into());
    statements
}

fn work(
    options: &mysql::Opts,
    load: Load,
    mut rng: Rng,
    plan: &impl Fn(&mut Rng) -> Vec<String>,
    stop: &AtomicBool,
) -> Tally {
    let mut tally = Tally::default();
    let mut client = None;
    while !stop.load(Ordering::SeqCst) {
        let Some(session) = client.as_mut() else {
            match Conn::new(options.clone()) {
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

/// How a transaction failed.
enum Failure {
    Refused,
    /// The connection is gone, and with it the knowledge of what happened.
    Lost,
}

fn transact(client: &mut Conn, statements: &[String]) -> Result<(), Failure> {
    for statement in statements {
        let Err(error) = client.query_drop(statement) else { continue };
        let mysql::Error::MySqlError(refusal) = error else { return Err(Failure::Lost) };
        match refusal.code {
            // A duplicate key, a foreign key; a lock that could not be had, a deadlock.
            1062 | 1451 | 1452 | 1205 | 1213 => client.query_drop("ROLLBACK").map_err(|_| Failure::Lost)?,
            // The server shuts down, or the session was ended.
            1053 | 1927 => return Err(Failure::Lost),
            _ => panic!("the workload itself is wrong: {refusal}\n{statement}"),
        }
        return Err(Failure::Refused);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mariadb::Stop;

    #[test]
    fn writes_through_a_restart_and_every_step_is_valid() {
        let mut server = Server::builder().without_fsync().start();
        server.create_database("market");
        create(&server, "market", 300);
        let load = Load { truncate: true, pause_ms_max: 0, ..Load::default() };
        let writers = write(&server, "market", load);
        std::thread::sleep(Duration::from_secs(3));
        server.restart(Stop::Kill);
        std::thread::sleep(Duration::from_secs(2));
        let tally = writers.stop();
        assert!(tally.committed > 50 && tally.rolled_back > 5 && tally.reconnects > 0, "{tally}");
        assert!(tally.refused < tally.committed, "too much is refused to be a load: {tally}");
    }
}
