//! Folding against writing one by one, over random histories, with a small target of our own as the judge.
//!
//! The target is strict, as every writer must be: an UPDATE and a DELETE hit exactly one row, an INSERT inserts one.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::merge::tests::table;

/// `plain (id, v, w)`, `pair (a, b, v)` with its key given the other way round, and one without a key.
fn tables() -> Vec<Table> {
    vec![
        table("plain", &["id", "v", "w"], Some(&["id"])),
        table("pair", &["a", "b", "v"], Some(&["b", "a"])),
        table("keyless", &["x", "y"], None),
    ]
}

const KEYLESS: usize = 2;

/// What a history is made of, before it is known which rows there are.
#[derive(Clone, Debug)]
enum Draft {
    Insert { table: usize, key: u8, cells: [u8; 2] },
    Update { table: usize, key: u8, to: u8, cells: [u8; 2] },
    Delete { table: usize, key: u8 },
    Truncate { tables: Vec<usize> },
    DeleteRange { table: usize, except: Vec<u8> },
}

#[derive(Clone, Debug)]
enum Act {
    Row(RowChange),
    Bulk(Step),
}

/// Cells from 200 on are those that the log leaves out.
fn cell(cell: u8) -> Value {
    if cell >= 200 { Value::Unchanged } else { Value::Integer(i64::from(cell % 4)) }
}

fn whole(cell: u8) -> Value {
    Value::Integer(i64::from(cell % 4))
}

fn number(number: u8) -> Value {
    Value::Integer(i64::from(number))
}

/// Few keys, so that they meet.
fn key(table: usize, key: u8) -> Key {
    Key(if table == 0 { vec![number(key)] } else { vec![number(key % 2), number(key / 2)] })
}

fn row(table: usize, key: u8, [v, w]: [Value; 2]) -> Row {
    match table {
        0 => vec![number(key), v, w],
        1 => vec![number(key / 2), number(key % 2), v],
        _ => vec![whole(key), v],
    }
}

impl Draft {
    fn act(&self) -> Act {
        Act::Row(match *self {
            Draft::Insert { table, key, cells } => {
                RowChange::Insert { table, row: row(table, key, cells.map(whole)) }
            }
            Draft::Update { table: KEYLESS, key, to, cells } => RowChange::UpdateWhole {
                table: KEYLESS,
                old: row(KEYLESS, key, cells.map(whole)),
                row: row(KEYLESS, to, cells.map(whole)),
            },
            Draft::Update { table, key: from, to, cells } => {
                RowChange::Update { table, key: key(table, from), row: row(table, to, cells.map(cell)) }
            }
            Draft::Delete { table: KEYLESS, key } => {
                RowChange::DeleteWhole { table: KEYLESS, old: row(KEYLESS, key, [whole(0), whole(0)]) }
            }
            Draft::Delete { table, key: from } => RowChange::Delete { table, key: key(table, from) },
            Draft::Truncate { ref tables } => {
                return Act::Bulk(Step::Truncate { tables: tables.clone(), restart_identity: false });
            }
            Draft::DeleteRange { table, ref except } => {
                let except = except.iter().map(|&kept| key(table, kept)).collect();
                return Act::Bulk(Step::DeleteRange { table, after: None, upto: None, except });
            }
        })
    }
}

fn draft() -> impl Strategy<Value = Draft> {
    let key = || 0..6_u8;
    let table = || 0..3_usize;
    prop_oneof![
        6 => (table(), key(), any::<[u8; 2]>())
            .prop_map(|(table, key, cells)| Draft::Insert { table, key, cells }),
        6 => (table(), key(), any::<[u8; 2]>())
            .prop_map(|(table, key, cells)| Draft::Update { table, key, to: key, cells }),
        4 => (table(), key(), key(), any::<[u8; 2]>())
            .prop_map(|(table, key, to, cells)| Draft::Update { table, key, to, cells }),
        5 => (table(), key()).prop_map(|(table, key)| Draft::Delete { table, key }),
        1 => vec(table(), 1..3).prop_map(|tables| Draft::Truncate { tables }),
        1 => (0..2_usize, vec(key(), 0..3)).prop_map(|(table, except)| Draft::DeleteRange { table, except }),
    ]
}

fn history() -> impl Strategy<Value = Vec<Act>> {
    vec(draft(), 0..60).prop_map(|drafts| drafts.iter().map(Draft::act).collect())
}

#[derive(Clone, Debug, PartialEq)]
struct Target {
    /// By key, one for each of the two tables that have one.
    keyed: [BTreeMap<Vec<i64>, Row>; 2],
    /// Sorted when compared: which of two equal rows is which nobody can tell.
    keyless: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Refused {
    /// The row that a change is about is not there.
    Missing,
    /// A row is where a new one should go.
    Taken,
}

fn order(key: &Key) -> Vec<i64> {
    let number = |value: &Value| match value {
        Value::Integer(number) => *number,
        other => panic!("a key of {other:?}"),
    };
    key.0.iter().map(number).collect()
}

impl Target {
    fn of(rows: &[(usize, u8, [u8; 2])]) -> Target {
        let mut target = Target { keyed: Default::default(), keyless: Vec::new() };
        for (table, key, cells) in rows {
            // A row that collides is left out.
            let insert = RowChange::Insert { table: *table, row: row(*table, *key, cells.map(whole)) };
            target.change(&insert).ok();
        }
        target
    }

    fn key_of(table: usize, row: &Row) -> Vec<i64> {
        order(&Key::of(row, tables()[table].key().unwrap()))
    }

    fn change(&mut self, change: &RowChange) -> Result<(), Refused> {
        match change {
            RowChange::Insert { table: KEYLESS, row } => self.keyless.push(row.clone()),
            RowChange::Insert { table, row } => self.put(*table, row.clone())?,
            RowChange::Update { table, key, row } => {
                let updated = self.updated(*table, key, row)?;
                self.put(*table, updated)?;
            }
            RowChange::Delete { table, key } => {
                self.keyed[*table].remove(&order(key)).ok_or(Refused::Missing)?;
            }
            RowChange::UpdateWhole { old, row, .. } => {
                self.take_whole(old)?;
                self.keyless.push(row.clone());
            }
            RowChange::DeleteWhole { old, .. } => self.take_whole(old)?,
        }
        Ok(())
    }

    /// Takes a row out and gives what it is to become.
    fn updated(&mut self, table: usize, key: &Key, row: &Row) -> Result<Row, Refused> {
        let mut updated = self.keyed[table].remove(&order(key)).ok_or(Refused::Missing)?;
        for (cell, new) in updated.iter_mut().zip(row) {
            if !new.is_unchanged() {
                cell.clone_from(new);
            }
        }
        Ok(updated)
    }

    fn put(&mut self, table: usize, row: Row) -> Result<(), Refused> {
        assert!(row.iter().all(|cell| !cell.is_unchanged()), "a row with a hole: {row:?}");
        match self.keyed[table].insert(Target::key_of(table, &row), row) {
            None => Ok(()),
            Some(_) => Err(Refused::Taken),
        }
    }

    fn take_whole(&mut self, old: &Row) -> Result<(), Refused> {
        let at = self.keyless.iter().position(|row| row == old).ok_or(Refused::Missing)?;
        self.keyless.swap_remove(at);
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Refused> {
        match step {
            Step::Net(net) => self.net(net)?,
            Step::Ordered(changes) => changes.iter().try_for_each(|change| self.change(change))?,
            Step::Truncate { tables, .. } => tables.iter().for_each(|&table| match table {
                KEYLESS => self.keyless.clear(),
                keyed => self.keyed[keyed].clear(),
            }),
            Step::DeleteRange { table, except, .. } => {
                let except: BTreeSet<Vec<i64>> = except.iter().map(order).collect();
                self.keyed[*table].retain(|key, _| except.contains(key));
            }
        }
        Ok(())
    }

    /// As [`Net`] says that it is to be carried out.
    fn net(&mut self, net: &Net) -> Result<(), Refused> {
        let from = net.updates.iter().map(|update| &update.key);
        let touched: Vec<&Key> = net.deletes.iter().chain(from).collect();
        let distinct: HashSet<&&Key> = touched.iter().collect();
        assert_eq!(distinct.len(), touched.len(), "a key twice in deletes and updates: {net:?}");
        for key in &net.deletes {
            self.keyed[net.table].remove(&order(key)).ok_or(Refused::Missing)?;
        }
        let updated: Vec<Row> = net
            .updates
            .iter()
            .map(|update| self.updated(net.table, &update.key, &update.row))
            .collect::<Result<_, _>>()?;
        updated.into_iter().chain(net.inserts.clone()).try_for_each(|row| self.put(net.table, row))
    }

    fn act(&mut self, act: &Act) -> Result<(), Refused> {
        match act {
            Act::Row(change) => self.change(change),
            Act::Bulk(step) => self.step(step),
        }
    }

    fn sorted(mut self) -> Target {
        self.keyless.sort_by_key(|row| format!("{row:?}"));
        self
    }
}

fn rows() -> impl Strategy<Value = Vec<(usize, u8, [u8; 2])>> {
    vec((0..3_usize, 0..6_u8, any::<[u8; 2]>()), 0..12)
}

/// Folds a history, taking the steps out at some places, as a slice that is full does.
fn folded(history: &[Act], taken_every: usize) -> Vec<Step> {
    let tables = tables();
    let (mut fold, mut steps) = (Fold::default(), Vec::new());
    for (at, act) in history.iter().enumerate() {
        match act {
            Act::Row(change) => fold.push(change.clone(), &tables),
            Act::Bulk(step) => fold.push_steps(vec![step.clone()]),
        }
        if at % taken_every == taken_every - 1 {
            steps.extend(fold.take());
        }
    }
    steps.extend(fold.take());
    assert!(fold.take().is_empty() && fold.weight() == 0, "nothing is left behind");
    steps
}

/// Of a history that may contradict itself, what a source could have done to these rows.
fn possible(history: Vec<Act>, target: &Target) -> Vec<Act> {
    let mut source = target.clone();
    let done = |act: &Act| {
        let mut tried = source.clone();
        let outcome = tried.act(act);
        if outcome.is_ok() {
            source = tried;
        }
        outcome.is_ok()
    };
    history.into_iter().filter(done).collect()
}

/// What is possible, up to the first change behind the first `after` ones that is not, and why it is not.
fn refused(history: Vec<Act>, after: usize, target: &Target) -> Option<(Vec<Act>, Refused)> {
    let (mut source, mut done) = (target.clone(), Vec::new());
    for (at, act) in history.into_iter().enumerate() {
        let mut tried = source.clone();
        match tried.act(&act) {
            Ok(()) => (source, done) = (tried, [done, vec![act]].concat()),
            Err(refused) if at >= after => return Some(([done, vec![act]].concat(), refused)),
            Err(_) => {}
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn folded_and_one_by_one_end_alike(rows in rows(), history in history(), taken_every in 1..80_usize) {
        let target = Target::of(&rows);
        let history = possible(history, &target);
        let (mut ordered, mut net) = (target.clone(), target);
        for act in &history {
            prop_assert_eq!(ordered.act(act), Ok(()));
        }
        for step in folded(&history, taken_every) {
            prop_assert_eq!(net.step(&step), Ok(()), "{:?}", step);
        }
        prop_assert_eq!(net.sorted(), ordered.sorted());
    }

    /// The one thing that folding may pass by is a row of somebody else's, in the way of a row that is gone again by
    /// the end of the slice. That one stays as it was.
    #[test]
    fn what_is_refused_one_by_one_is_refused_when_folded(
        rows in rows(), history in history(), refused_after in 0..60_usize, taken_every in 1..80_usize,
    ) {
        let target = Target::of(&rows);
        let Some((history, refused)) = refused(history, refused_after, &target) else { return Ok(()) };
        let mut net = target.clone();
        let outcome = folded(&history, taken_every).iter().try_for_each(|step| net.step(step));
        if refused == Refused::Missing {
            prop_assert!(outcome.is_err(), "{:?}", history);
        } else if outcome.is_ok() {
            let Some(Act::Row(RowChange::Insert { table, row } | RowChange::Update { table, row, .. })) = history.last()
            else {
                return Err(TestCaseError::fail("only a new row or a moved one can be in the way"));
            };
            let key = Target::key_of(*table, row);
            prop_assert!(target.keyed[*table].contains_key(&key));
            prop_assert_eq!(net.keyed[*table].get(&key), target.keyed[*table].get(&key));
        }
    }
}
