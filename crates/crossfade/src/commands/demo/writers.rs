//! The shop's own life: several connections that write all the time and know nothing of a migration.
//!
//! Among what they do are the cases that are hard to move: rolled-back work, changed keys, unique values that
//! are swapped, rows that are replaced, and rows that are deleted and come back under the same key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::dice::Dice;
use super::{Error, shop};

pub(crate) const WRITERS: u64 = 3;

/// Drop it or call [`Writers::stop`]: no writer goes on after either.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<rusqlite::Result<Written>>>,
}

/// What was committed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) transactions: u64,
    pub(crate) row_changes: u64,
}

impl Writers {
    pub(crate) fn start(path: &Path, seed: u64) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (1..=WRITERS)
            .map(|number| {
                let (stop, path) = (Arc::clone(&stop), path.to_owned());
                std::thread::spawn(move || write(path, Dice::new(seed, number), &stop))
            })
            .collect();
        Writers { stop, threads }
    }

    pub(crate) fn stop(mut self) -> Result<Written, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Written::default();
        for thread in self.threads.drain(..) {
            let written = thread
                .join()
                .map_err(|_| Error::Writer)?
                .map_err(|source| Error::Sqlite { operation: "write to the shop", source })?;
            total.transactions += written.transactions;
            total.row_changes += written.row_changes;
        }
        Ok(total)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(path: PathBuf, mut dice: Dice, stop: &AtomicBool) -> rusqlite::Result<Written> {
    let mut shop = shop::open(&path)?;
    let mut written = Written::default();
    while !stop.load(Ordering::Relaxed) {
        let changes = transact(&mut shop, &mut dice)?;
        if changes > 0 {
            written.transactions += 1;
            written.row_changes += changes;
        }
        // A shop with customers, not a benchmark: both sides and the writers share one small machine.
        std::thread::sleep(Duration::from_millis(dice.between(2, 10)));
    }
    Ok(written)
}

/// One transaction; returns how many rows it changed, 0 when it was rolled back.
fn transact(shop: &mut Connection, dice: &mut Dice) -> rusqlite::Result<u64> {
    let mut work = shop.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let changes = match dice.between(1, 100) {
        1..=35 => place(&work, dice)?,
        36..=55 => pay(&work, dice)?,
        56..=65 => change_lines(&work, dice)?,
        66..=73 => cancel(&work, dice)?,
        74..=79 => swap_emails(&work, dice)?,
        80..=84 => replace_payment(&work, dice)?,
        85..=88 => renumber(&work, dice)?,
        89..=90 => grant(&work, dice)?,
        91..=93 => change_photo(&work, dice)?,
        94..=95 => restore(&work, dice)?,
        96..=97 => reconsider(&mut work, dice)?,
        _ => {
            place(&work, dice)?;
            work.rollback()?;
            return Ok(0);
        }
    };
    work.commit()?;
    Ok(changes as u64)
}

fn place(work: &Connection, dice: &mut Dice) -> rusqlite::Result<usize> {
    let customer = customer(dice);
    let mut changes = work.execute(
        "INSERT INTO orders (customer_id, state, placed_at, note) VALUES (?1, 'placed', ?2, ?3)",
        params![customer, shop::moment(dice), shop::note(dice)],
    )?;
    let order = work.last_insert_rowid();
    for line_no in 1..=dice.between(1, 4) as i64 {
        changes += add_line(work, dice, order, line_no)?;
    }
    changes += work.execute(
        "UPDATE customers SET credit_cents = credit_cents - ?2 WHERE id = ?1",
        params![customer, dice.between(1, 500) as i64],
    )?;
    Ok(changes)
}

fn add_line(work: &Connection, dice: &mut Dice, order: i64, line_no: i64) -> rusqlite::Result<usize> {
    work.execute(
        "INSERT INTO order_lines VALUES (?1, ?2, ?3, ?4, ?5)",
        params![order, line_no, shop::sku(dice), dice.between(1, 9) as i64, shop::price(dice)],
    )
}

fn pay(work: &Connection, dice: &mut Dice) -> rusqlite::Result<usize> {
    let Some(order) = order(work, dice)? else { return Ok(0) };
    let paid = work.execute(
        "INSERT INTO payments VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            shop::token(dice),
            order,
            dice.between(100, 99_999) as i64,
            shop::method(dice),
            shop::moment(dice)
        ],
    )?;
    Ok(paid + work.execute("UPDATE orders SET state = 'paid' WHERE id = ?1", [order])?)
}

fn change_lines(work: &Connection, dice: &mut Dice) -> rusqlite::Result<usize> {
    let Some(order) = order(work, dice)? else { return Ok(0) };
    let changed = work.execute(
        "UPDATE order_lines SET quantity = quantity + 1, price = price * 0.9 WHERE order_id = ?1",
        [order],
    )?;
    let last: i64 = work.query_row(
        "SELECT coalesce(max(line_no), 0) FROM order_lines WHERE order_id = ?1",
        [order],
        |row| row.get(0),
    )?;
    Ok(changed + add_line(work, dice, order, last + 1)?)
}

fn cancel(work: &Connection, dice: &mut Dice) -> rusqlite::Result<usize> {
    let Some(order) = order(work, dice)? else { return Ok(0) };
    let lines = work.execute("DELETE FROM order_lines WHERE order_id = ?1", [order])?;
    let payments = work.execute("DELETE FROM payments WHERE order_id = ?1", [order])?;
    Ok(lines + payments + work.execute("DELETE FROM orders WHERE id = ?1", [order])?)
}

/// Two unique values change places by way of a third.
fn swap_emails(work: &Connection, dice: &mut Dice) -> rusqlite::Result<usize> {
    let (one, other) = (customer(dice), customer(dice));
    if one == other {
        return Ok(0);
    }
    let email = |id: i64| {
        work.query_row("SELECT email FROM customers WHERE id = ?1", [id], |row| row.get::<_, String>(0))
    };
    let (first, second) = (email(one)?, email(other)?);
    let set = |id: i64, email: &str| {
        work.execute("UPDATE customers SET email = ?2 WHERE id = ?1", params![id, email])
    };
    Ok(set(one, "between two addresses")? + set(other, &first)? + set(one, &second)?)
}

/// SQLite removes the old row without saying so to an ordinary delete trigger.
fn replace_payment(work: &Connection, dice: &mut Dice) -> rusqlite::Result<usize> {
    let from = shop::token(dice);
    let id: Option<String> = work
        .query_row("SELECT id FROM payments WHERE id >= ?1 ORDER BY id LIMIT 1", [from], |row| row.get(0))
        .optional()?;
    let (Some(id), Some(order)) = (id, order(work, dice)?) else { return Ok(0) };
    work.execute(
        "INSERT OR REPLACE INTO payments VALUES (?1, ?2, ?3, ?4, NULL)",
        params![id, order, dice.between(100, 99_999) as i64, shop::method(dice)],
    )
}

/// Every row of an order gets another key.
fn renumber(work: &Connection, dice: &mut Dice) -> rusqlite::Result<usize> {
    let Some(order) = order(work, dice)? else { return Ok(0) };
    work.execute("UPDATE order_lines SET line_no = line_no + 100 WHERE order_id = ?1", [order])
}

/// Many rows in one statement.
fn grant(work: &Connection, dice: &mut Dice) -> rusqlite::Result<usize> {
    let from = dice.between(1, shop::CUSTOMERS - 200) as i64;
    work.execute(
        "UPDATE customers SET credit_cents = credit_cents + 5 WHERE id BETWEEN ?1 AND ?1 + 199",
        [from],
    )
}

fn change_photo(work: &Connection, dice: &mut Dice) -> rusqlite::Result<usize> {
    let photo = (dice.between(1, 4) > 1).then(|| {
        let len = dice.between(1, 8_000) as usize;
        dice.bytes(len)
    });
    work.execute("UPDATE customers SET photo = ?2 WHERE id = ?1", params![customer(dice), photo])
}

/// An order's lines are deleted and come back under the same keys.
fn restore(work: &Connection, dice: &mut Dice) -> rusqlite::Result<usize> {
    let Some(order) = order(work, dice)? else { return Ok(0) };
    let lines: Vec<i64> = work
        .prepare("SELECT line_no FROM order_lines WHERE order_id = ?1")?
        .query_map([order], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut changes = work.execute("DELETE FROM order_lines WHERE order_id = ?1", [order])?;
    for line_no in lines {
        changes += add_line(work, dice, order, line_no)?;
    }
    Ok(changes)
}

/// Part of a transaction is taken back.
fn reconsider(work: &mut Transaction<'_>, dice: &mut Dice) -> rusqlite::Result<usize> {
    let kept = pay(work, dice)?;
    let mut second_thought = work.savepoint()?;
    cancel(&second_thought, dice)?;
    second_thought.rollback()?;
    second_thought.commit()?;
    Ok(kept)
}

fn customer(dice: &mut Dice) -> i64 {
    dice.between(1, shop::CUSTOMERS) as i64
}

/// Some order that is there now.
fn order(work: &Connection, dice: &mut Dice) -> rusqlite::Result<Option<i64>> {
    let last: i64 = work.query_row("SELECT coalesce(max(id), 1) FROM orders", [], |row| row.get(0))?;
    let from = dice.between(1, last.unsigned_abs()) as i64;
    work.query_row("SELECT id FROM orders WHERE id >= ?1 ORDER BY id LIMIT 1", [from], |row| row.get(0))
        .optional()
}
