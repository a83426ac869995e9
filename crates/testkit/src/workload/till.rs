//! Random multi-row transactions against SQLite, as another process would make them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use rusqlite::{Connection, ErrorCode};

pub use super::{Load, Tally, Writers};

const HOT: u32 = 300;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, code TEXT UNIQUE, vip BOOLEAN NOT NULL DEFAULT 0,
        credit REAL, photo BLOB);
    CREATE TABLE sale (id INTEGER PRIMARY KEY AUTOINCREMENT, customer INTEGER, total INTEGER NOT NULL DEFAULT 0, note TEXT);
    CREATE TABLE line (sale INTEGER NOT NULL, number INTEGER NOT NULL, article TEXT NOT NULL, amount INTEGER NOT NULL,
        PRIMARY KEY (sale, number));
    CREATE INDEX line_article ON line (article);
    CREATE TABLE tag (tag TEXT PRIMARY KEY NOT NULL, uses INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE log (at INTEGER, message TEXT);";

/// Creates a file with about `rows` rows in each table.
pub fn create(path: &str, rows: u32) {
    let connection = open(path);
    let series = format!("WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {rows})");
    let fill = format!(
        "BEGIN;
         {series} INSERT INTO customer SELECT n, 'name ' || n, 'code ' || n, n % 2, n / 3.0, CASE n % 5 WHEN 0 THEN zeroblob(3000) END FROM s;
         {series} INSERT INTO sale (customer, total, note) SELECT n % 100, n, CASE n % 3 WHEN 0 THEN 'note ' || n END FROM s;
         {series} INSERT INTO line SELECT n / 3, n % 3, 'article ' || n % 50, n % 9 FROM s;
         {series} INSERT INTO tag SELECT 'tag ' || n, n FROM s;
         {series} INSERT INTO log SELECT n % 10, 'message ' || n % 7 FROM s;
         COMMIT"
    );
    for sql in [SCHEMA, &fill] {
        connection.execute_batch(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    }
}

/// Starts writers on a file that [`create`] has made.
pub fn write(path: &str, load: Load) -> Writers {
    let path = path.to_owned();
    Writers::spawn(load, move |rng, stop| work(&path, load, rng, stop))
}

fn open(path: &str) -> Connection {
    let connection = Connection::open(path).unwrap_or_else(|error| panic!("open {path}: {error}"));
    connection.busy_timeout(Duration::from_secs(60)).expect("set the busy timeout");
    connection
}

fn work(path: &str, load: Load, mut rng: Rng, stop: &AtomicBool) -> Tally {
    let connection = open(path);
    let mut tally = Tally::default();
    while !stop.load(Ordering::SeqCst) {
        let mut statements = vec!["BEGIN IMMEDIATE".to_owned()];
        for _ in 0..rng.u8(1..=6) {
            let undone = rng.u8(0..8) == 0;
            if undone {
                statements.push("SAVEPOINT here".into());
            }
            step(&mut rng, &mut statements);
            if undone {
                statements.extend(["ROLLBACK TO here".into(), "RELEASE here".into()]);
            }
        }
        if load.truncate && rng.u16(0..300) == 0 {
            statements.push("DELETE FROM log".into());
        }
        let commits = rng.u8(0..8) != 0;
        statements.push(if commits { "COMMIT" } else { "ROLLBACK" }.into());
        match statements
            .iter()
            .try_for_each(|sql| connection.execute_batch(sql).map_err(|error| (sql, error)))
        {
            Ok(()) if commits => tally.committed += 1,
            Ok(()) => tally.rolled_back += 1,
            Err((sql, error)) => {
                let code = error.sqlite_error_code();
                assert!(
                    matches!(code, Some(ErrorCode::ConstraintViolation | ErrorCode::DatabaseBusy)),
                    "the workload itself is wrong: {error}\n{sql}"
                );
                tally.refused += 1;
                if !connection.is_autocommit() {
                    connection.execute_batch("ROLLBACK").expect("roll back");
                }
            }
        }
        std::thread::sleep(Duration::from_millis(rng.u64(0..=load.pause_ms_max)));
    }
    tally
}

fn step(rng: &mut Rng, to: &mut Vec<String>) {
    let (a, b, any) = (rng.u32(1..=HOT), rng.u32(1..=HOT), rng.u32(..));
    let mut sql = |statement: String| to.push(statement);
    match rng.u8(0..18) {
        0 | 1 => sql(format!("UPDATE customer SET credit = credit + 0.1 WHERE id = {a}")),
        2 => sql(format!("UPDATE customer SET photo = randomblob({}) WHERE id = {a}", any % 5000)),
        3 => sql(format!(
            "UPDATE OR IGNORE customer SET id = {} WHERE id = {a}",
            if any.is_multiple_of(3) { b + 1_000_000 } else { b }
        )),
        // REPLACE removes every row that it collides with, on any unique column.
        4 => sql(format!(
            "INSERT OR REPLACE INTO customer VALUES ({a}, 'replaced {any}', 'code {b}', 1, 0.5, NULL)"
        )),
        5 => sql(format!(
            "INSERT INTO customer (id, name) VALUES ({a}, 'upsert {any}') ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        )),
        6 => {
            sql(format!(
                "UPDATE customer SET code = NULL WHERE id = {a} OR code IN ('code {a}', 'code {b}')"
            ));
            sql(format!("UPDATE customer SET code = 'code {a}' WHERE id = {b}"));
            sql(format!("UPDATE customer SET code = 'code {b}' WHERE id = {a} AND id <> {b}"));
        }
        7 => sql(format!("DELETE FROM customer WHERE id = {a}")),
        8 | 9 => {
            sql(format!("INSERT INTO sale (customer, total) VALUES ({a}, {b})"));
            sql(format!(
                "INSERT OR IGNORE INTO line SELECT last_insert_rowid(), value, 'article {b}', 1 FROM json_each('[1, 2, 3]')"
            ));
        }
        10 => sql(format!(
            "UPDATE sale SET note = 'changed {any}', total = total + 1 WHERE id BETWEEN {a} AND {a} + 3"
        )),
        11 => {
            sql(format!("DELETE FROM line WHERE sale = {a}"));
            sql(format!("DELETE FROM sale WHERE id = {a}"));
        }
        12 => sql(format!(
            "UPDATE OR REPLACE line SET number = {} WHERE sale = {a} AND number = {}",
            b % 3,
            any % 3
        )),
        13 => sql(format!(
            "INSERT INTO tag VALUES ('tag {a}', 1) ON CONFLICT (tag) DO UPDATE SET uses = uses + 1"
        )),
        14 => sql(format!("UPDATE OR REPLACE tag SET tag = 'tag {b}' WHERE tag = 'tag {a}'")),
        15 => sql(format!(
            "INSERT INTO log VALUES ({}, 'message {}'), ({}, 'message {}')",
            a % 10,
            b % 7,
            a % 10,
            b % 7
        )),
        16 => {
            sql(format!("UPDATE log SET at = at + 1 WHERE rowid = (SELECT max(rowid) - {} FROM log)", a % 50))
        }
        _ => sql(format!("DELETE FROM log WHERE rowid = (SELECT max(rowid) - {} FROM log)", a % 50)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Folder;

    #[test]
    fn several_writers_commit_and_every_step_is_valid() {
        let folder = Folder::new("till");
        let path = folder.join("till.db").to_str().unwrap().to_owned();
        create(&path, 500);
        let writers = write(&path, Load { truncate: true, pause_ms_max: 0, ..Load::default() });
        std::thread::sleep(Duration::from_secs(2));
        let tally = writers.stop();
        assert!(tally.committed > 50 && tally.rolled_back > 0, "{tally}");
    }
}
