//! Conflict resolution: SQLite removes rows without firing delete triggers, and the log must tell of them all the same.

use rusqlite::Connection;

use crate::replica::Replica;
use crate::scratch::{Scratch, everything};

const TABLES: &str = "
    CREATE TABLE pairs (id INTEGER PRIMARY KEY, a INT UNIQUE, b TEXT COLLATE NOCASE UNIQUE, v);
    CREATE TABLE named (k TEXT NOT NULL COLLATE NOCASE PRIMARY KEY, a INT, b INT, v, UNIQUE (a, b)) WITHOUT ROWID;
    CREATE TABLE bag (a INT UNIQUE, b INT, v);
    CREATE UNIQUE INDEX bag_part ON bag (b) WHERE v > 5;
    CREATE TABLE second (a INT NOT NULL UNIQUE, b TEXT, v, g AS (v % 7) UNIQUE);
    CREATE UNIQUE INDEX second_lower ON second (lower(b) DESC, a % 3);
";

/// After these statements, whatever became of each, the replica must equal the source.
async fn follows(statements: &[String], recursive: bool, extra: &str) -> usize {
    let scratch = Scratch::new();
    let app = scratch.open("source.db");
    app.execute_batch(TABLES).unwrap();
    app.execute_batch(extra).unwrap();
    let reader = scratch.reader("source.db");
    let catalog = everything(&*reader).await;
    let start = reader.prepare("test", &catalog).await.unwrap();
    app.pragma_update(None, "recursive_triggers", recursive).unwrap();
    let (mut replica, cut) = Replica::copy(&*reader, &catalog).await;
    let mut capture = reader.capture("test", &catalog, &start).await.unwrap();
    for piece in statements.chunks(40) {
        run(&app, piece);
        let upto = reader.position().await.unwrap();
        replica.follow(&mut *capture, cut, upto.order).await;
        let (now, _) = Replica::copy(&*reader, &catalog).await;
        assert_eq!(replica.sorted(), now.sorted(), "recursive_triggers {recursive}, after {piece:#?}");
    }
    replica.changes
}

fn run(app: &Connection, statements: &[String]) {
    for statement in statements {
        // Many of them break a constraint, which is the point.
        if let Err(error) = app.execute_batch(statement) {
            let expected = ["constraint failed", "datatype mismatch", "transaction", "no such savepoint"];
            let message = error.to_string();
            assert!(expected.iter().any(|part| message.contains(part)), "{statement}: {message}");
        }
    }
    if !app.is_autocommit() {
        app.execute_batch("COMMIT").unwrap();
    }
}

async fn exactly(statements: &[&str], changes: usize) {
    let statements: Vec<String> = statements.iter().map(|statement| (*statement).to_owned()).collect();
    for recursive in [false, true] {
        let counted = follows(&statements, recursive, "").await;
        assert_eq!(counted, changes, "recursive_triggers {recursive}: {statements:#?}");
    }
}

const TWO: &str = "INSERT INTO pairs VALUES (1, 10, 'x', 0), (2, 20, 'y', 0)";

#[tokio::test]
async fn each_way_to_resolve_a_conflict() {
    // Two inserts, then what the statement does.
    exactly(&[TWO, "REPLACE INTO pairs VALUES (1, 11, 'z', 1)"], 4).await;
    exactly(&[TWO, "INSERT OR REPLACE INTO pairs VALUES (3, 10, 'z', 1)"], 4).await;
    exactly(&[TWO, "INSERT OR REPLACE INTO pairs (a, b) VALUES (10, 'Y')"], 5).await;
    exactly(&[TWO, "INSERT OR REPLACE INTO pairs VALUES (1, 20, 'x', 1)"], 5).await;
    exactly(&[TWO, "UPDATE OR REPLACE pairs SET a = 20 WHERE id = 1"], 4).await;
    exactly(&[TWO, "UPDATE OR REPLACE pairs SET id = 2 WHERE id = 1"], 4).await;
    exactly(&[TWO, "UPDATE OR REPLACE pairs SET a = 30"], 5).await;
    exactly(&[TWO, "INSERT OR IGNORE INTO pairs VALUES (3, 10, 'z', 1)"], 2).await;
    exactly(&[TWO, "UPDATE OR IGNORE pairs SET a = 20 WHERE id = 1"], 2).await;
    exactly(&[TWO, "INSERT INTO pairs VALUES (1, 1, 'q', 1) ON CONFLICT DO NOTHING"], 2).await;
    exactly(&[TWO, "INSERT INTO pairs VALUES (1, 1, 'q', 1) ON CONFLICT (id) DO UPDATE SET v = 9"], 3).await;
    exactly(
        &[TWO, "INSERT OR REPLACE INTO pairs VALUES (1, 20, 'q', 1) ON CONFLICT (id) DO UPDATE SET a = 20"],
        2,
    )
    .await;
}

#[tokio::test]
async fn a_conflict_that_came_to_nothing_is_not_remembered() {
    exactly(
        &[
            TWO,
            "INSERT OR IGNORE INTO pairs VALUES (3, 10, 'z', 1)",
            "DELETE FROM pairs WHERE id = 1",
            "INSERT INTO pairs VALUES (3, 10, 'z', 1)",
        ],
        4,
    )
    .await;
    exactly(
        &[
            TWO,
            "INSERT OR IGNORE INTO pairs VALUES (3, 10, 'z', 1)",
            "UPDATE pairs SET id = 7, a = 5 WHERE id = 1",
            "INSERT OR REPLACE INTO pairs VALUES (3, 10, 'z', 1)",
        ],
        4,
    )
    .await;
}

/// A small generator, so that a failure can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.roll(items.len() as u64) as usize]
    }

    fn number(&mut self) -> String {
        match self.roll(12) {
            0 => "NULL".to_owned(),
            _ => self.roll(9).to_string(),
        }
    }

    fn text(&mut self) -> &'static str {
        self.pick(&["'a'", "'A'", "'b'", "'B'", "'c'", "'d'"])
    }

    fn row(&mut self, table: &str) -> String {
        let (a, b, v, text) = (self.number(), self.number(), self.number(), self.text());
        match table {
            "pairs" => format!("{}, {a}, {text}, {v}", self.number()),
            "named" => format!("{text}, {a}, {b}, {v}"),
            "bag" => format!("{a}, {b}, {v}"),
            _ => format!("{a}, {text}, {v}"),
        }
    }

    fn statement(&mut self) -> String {
        let table = self.pick(&["pairs", "named", "bag", "second"]);
        let columns = match table {
            "pairs" => "(id, a, b, v)",
            "named" => "(k, a, b, v)",
            "bag" => "(a, b, v)",
            _ => "(a, b, v)",
        };
        let resolution = self.pick(&["", "OR REPLACE", "OR REPLACE", "OR REPLACE", "OR IGNORE", "OR FAIL"]);
        match self.roll(20) {
            0..8 => {
                let rows: Vec<String> =
                    (0..1 + self.roll(3)).map(|_| format!("({})", self.row(table))).collect();
                format!("INSERT {resolution} INTO {table} {columns} VALUES {}", rows.join(", "))
            }
            8 => format!("INSERT INTO {table} {columns} VALUES ({}) ON CONFLICT DO NOTHING", self.row(table)),
            9 => format!(
                "INSERT INTO {table} {columns} VALUES ({}) ON CONFLICT DO UPDATE SET v = {}, a = {}",
                self.row(table),
                self.number(),
                self.number()
            ),
            10..14 => {
                let (column, value) = match (self.roll(4), table) {
                    (0, "pairs") => ("id", self.number()),
                    (0, "named") => ("k", self.text().to_owned()),
                    (1, "pairs" | "second") => ("b", self.text().to_owned()),
                    (1, _) => ("b", self.number()),
                    (2, _) => ("v", self.number()),
                    _ => ("a", self.number()),
                };
                format!("UPDATE {resolution} {table} SET {column} = {value} WHERE v % 3 = {}", self.roll(3))
            }
            14 => format!("UPDATE {resolution} bag SET rowid = {} WHERE a = {}", self.roll(9), self.roll(9)),
            15 => format!("DELETE FROM {table} WHERE v % 5 = {}", self.roll(5)),
            16 => "BEGIN".to_owned(),
            17 => self.pick(&["COMMIT", "ROLLBACK"]).to_owned(),
            18 => "SAVEPOINT s".to_owned(),
            _ => self.pick(&["ROLLBACK TO s", "RELEASE s"]).to_owned(),
        }
    }
}

#[tokio::test]
async fn random_statements() {
    for seed in 0..12 {
        let mut dice = Dice(seed);
        let statements: Vec<String> = (0..400).map(|_| dice.statement()).collect();
        println!("seed {seed}");
        follows(&statements, seed % 2 == 1, "").await;
    }
}

/// The application's own triggers write to the same table in the middle of a statement.
#[tokio::test]
async fn random_statements_among_triggers() {
    const TRIGGERS: &str = "
        CREATE TRIGGER t1 BEFORE INSERT ON pairs WHEN NEW.v > 6 BEGIN UPDATE pairs SET v = v + 1 WHERE a > NEW.a; END;
        CREATE TRIGGER t2 BEFORE INSERT ON pairs WHEN NEW.v = 3 BEGIN DELETE FROM pairs WHERE b = NEW.b; END;
        CREATE TRIGGER t3 AFTER INSERT ON named BEGIN INSERT OR REPLACE INTO bag VALUES (NEW.a, NEW.b, NEW.v); END;
        CREATE TRIGGER t4 AFTER DELETE ON bag WHEN OLD.v = 2 BEGIN DELETE FROM second WHERE a = OLD.a; END;
    ";
    for seed in 100..106 {
        let mut dice = Dice(seed);
        let statements: Vec<String> = (0..400).map(|_| dice.statement()).collect();
        println!("seed {seed}");
        follows(&statements, seed % 2 == 1, TRIGGERS).await;
    }
}
