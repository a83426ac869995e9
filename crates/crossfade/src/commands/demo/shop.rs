//! The demo's source: a small shop in an SQLite file.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Transaction, params};

use super::dice::Dice;

pub(crate) const CUSTOMERS: u64 = 20_000;
const ORDERS: u64 = 50_000;
const PAYMENTS: u64 = 30_000;

/// Long enough that nobody gives up while the capture reads or another writer commits.
const BUSY: Duration = Duration::from_secs(20);

/// A key that is the row's number, a composite key without one, a text key, a second unique column, floats, blobs, NULLs.
const SCHEMA: &str = "
    CREATE TABLE customers (
        id INTEGER PRIMARY KEY,
        email TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        credit_cents INTEGER NOT NULL DEFAULT 0,
        photo BLOB
    );
    CREATE TABLE orders (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        customer_id INTEGER NOT NULL REFERENCES customers (id),
        state TEXT NOT NULL,
        placed_at TEXT NOT NULL,
        note TEXT
    );
    CREATE INDEX orders_by_customer ON orders (customer_id);
    CREATE TABLE order_lines (
        order_id INTEGER NOT NULL REFERENCES orders (id),
        line_no INTEGER NOT NULL,
        sku TEXT NOT NULL,
        quantity INTEGER NOT NULL,
        price REAL NOT NULL,
        PRIMARY KEY (order_id, line_no)
    ) WITHOUT ROWID;
    CREATE TABLE payments (
        id TEXT NOT NULL PRIMARY KEY,
        order_id INTEGER NOT NULL REFERENCES orders (id),
        cents INTEGER NOT NULL,
        method TEXT NOT NULL,
        paid_at TEXT
    );
    CREATE INDEX payments_by_order ON payments (order_id);
";

/// Opens the shop as an application would.
pub(crate) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let shop = Connection::open(path)?;
    shop.busy_timeout(BUSY)?;
    shop.pragma_update(None, "journal_mode", "WAL")?;
    shop.pragma_update(None, "synchronous", "NORMAL")?;
    shop.pragma_update(None, "foreign_keys", true)?;
    Ok(shop)
}

/// Makes the shop and returns how many rows it holds.
pub(crate) fn create(path: &Path, seed: u64) -> rusqlite::Result<u64> {
    let mut shop = open(path)?;
    shop.execute_batch(SCHEMA)?;
    let mut dice = Dice::new(seed, 0);
    let filling = shop.transaction()?;
    customers(&filling, &mut dice)?;
    let lines = orders(&filling, &mut dice)?;
    payments(&filling, &mut dice)?;
    filling.commit()?;
    Ok(CUSTOMERS + ORDERS + lines + PAYMENTS)
}

fn customers(filling: &Transaction<'_>, dice: &mut Dice) -> rusqlite::Result<()> {
    let mut insert = filling.prepare("INSERT INTO customers VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for id in 1..=CUSTOMERS {
        let photo = (dice.between(1, 20) == 1).then(|| dice.bytes(600));
        insert.execute(params![id as i64, email(id), name(dice), dice.between(0, 9999) as i64, photo])?;
    }
    Ok(())
}

fn orders(filling: &Transaction<'_>, dice: &mut Dice) -> rusqlite::Result<u64> {
    let mut insert = filling.prepare("INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let mut insert_line = filling.prepare("INSERT INTO order_lines VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let mut lines = 0;
    for id in 1..=ORDERS as i64 {
        let state = dice.one_of(&["placed", "paid", "sent"]);
        insert.execute(params![id, dice.between(1, CUSTOMERS) as i64, state, moment(dice), note(dice)])?;
        for line_no in 1..=dice.between(1, 3) as i64 {
            insert_line.execute(params![id, line_no, sku(dice), dice.between(1, 9) as i64, price(dice)])?;
            lines += 1;
        }
    }
    Ok(lines)
}

fn payments(filling: &Transaction<'_>, dice: &mut Dice) -> rusqlite::Result<()> {
    let mut insert = filling.prepare("INSERT INTO payments VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for _ in 0..PAYMENTS {
        let paid_at = (dice.between(1, 10) > 1).then(|| moment(dice));
        let order = dice.between(1, ORDERS) as i64;
        insert.execute(params![
            token(dice),
            order,
            dice.between(100, 99_999) as i64,
            method(dice),
            paid_at
        ])?;
    }
    Ok(())
}

pub(crate) fn email(customer: u64) -> String {
    format!("customer{customer}@example.org")
}

fn name(dice: &mut Dice) -> String {
    let first = dice.one_of(&["Ada", "Bjørn", "Chloé", "Dmitri", "Esra", "Fumiko", "Grace", "Håkon"]);
    let last = dice.one_of(&["Lovelace", "Müller", "O'Brien", "Nakamura", "Şahin", "García", "Novák"]);
    format!("{first} {last}")
}

pub(crate) fn sku(dice: &mut Dice) -> String {
    format!("SKU-{:05}", dice.between(1, 99_999))
}

/// Not exactly representable in tenths, on purpose.
pub(crate) fn price(dice: &mut Dice) -> f64 {
    dice.between(1, 99_999) as f64 / 100.0
}

pub(crate) fn note(dice: &mut Dice) -> Option<&'static str> {
    (dice.between(1, 4) == 1)
        .then(|| dice.one_of(&["leave at the door", "a gift 🎁", "", "ring twice; it's loud"]))
}

pub(crate) fn method(dice: &mut Dice) -> &'static str {
    dice.one_of(&["card", "transfer", "voucher"])
}

pub(crate) fn token(dice: &mut Dice) -> String {
    format!("{:016x}{:016x}", dice.next(), dice.next())
}

pub(crate) fn moment(dice: &mut Dice) -> String {
    let (day, hour, minute) = (dice.between(1, 28), dice.between(0, 23), dice.between(0, 59));
    format!("2026-{:02}-{day:02} {hour:02}:{minute:02}:00", dice.between(1, 12))
}
