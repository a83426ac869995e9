//! Folds the changes of many transactions to their net effect per row.
//!
//! Promises: writing the steps has the same effect on the target as the changes one by one, if the target has
//! what the changes expect. An anomaly among the changes themselves (an insert of a key that is there, a change
//! of a row that was deleted) is not folded away: it is passed on in order, so that the target refuses it.
//! `Unchanged` cells never overwrite a value. Pure.

use std::cmp::Ordering;

use foldhash::{HashMap, HashSet};

use connector::{Net, RowChange, RowUpdate, Step};
use model::{Key, Row, Table, Value, mutant};

/// Collects changes; [`Fold::take`] gives the steps.
#[derive(Debug, Default)]
pub struct Fold {
    /// Finished steps, ahead of what is in `open`.
    done: Vec<Step>,
    open: HashMap<usize, Open>,
    weight: usize,
    rows: u64,
}

#[derive(Debug, Default)]
struct Open {
    slots: Vec<Option<Slot>>,
    /// The slot of the row that is under this key now.
    by_key: HashMap<Key, usize>,
    /// Rows of the target that are gone.
    deletes: HashSet<Key>,
    /// Keys under which the target still has a row that lives under another key by now.
    moved: HashSet<Key>,
    /// Changes of a table without a key, in order.
    ordered: Vec<RowChange>,
}

/// A row that exists at this point of the log.
#[derive(Debug)]
struct Slot {
    /// The key under which the target has it; `None` for a row that is new.
    origin: Option<Key>,
    row: Row,
}

/// A row change costs about this much beside its cells: the slot, the key twice, hash table entries.
const CHANGE_WEIGHT: usize = 200;

impl Fold {
    /// Adds one change. `tables` is the catalog's.
    pub fn push(&mut self, change: RowChange, tables: &[Table]) {
        let table = change.table();
        let columns = tables[table].key();
        let open = self.open.entry(table).or_default();
        let weighed = match &change {
            RowChange::Insert { row, .. } | RowChange::Update { row, .. } => weight(row),
            RowChange::UpdateWhole { old, row, .. } => weight(old) + weight(row),
            RowChange::DeleteWhole { old, .. } => weight(old),
            RowChange::Delete { key, .. } => weight(&key.0),
        };
        let before = open.slots.len() + open.deletes.len() + open.ordered.len();
        if let Err(anomaly) = open.fold(change, columns) {
            self.flush_table(table);
            self.done.push(Step::Ordered(vec![anomaly]));
            self.weight += weighed + CHANGE_WEIGHT;
            self.rows += 1;
            return;
        }
        let open = &self.open[&table];
        // A change that folded into a row that is here already replaces cells and adds next to nothing; a large
        // cell may still have grown, so the weight counts on the safe side but much less.
        let grew = open.slots.len() + open.deletes.len() + open.ordered.len() > before;
        self.weight += if grew { weighed + CHANGE_WEIGHT } else { weighed / 8 };
        self.rows += u64::from(grew);
    }

    /// Adds steps that are not about single rows; everything before them is done first.
    pub fn push_steps(&mut self, steps: Vec<Step>) {
        self.flush();
        self.done.extend(steps);
    }

    /// Estimated bytes held.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Rows to be written, about.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The steps collected, and an empty fold.
    pub fn take(&mut self) -> Vec<Step> {
        self.flush();
        self.weight = 0;
        self.rows = 0;
        std::mem::take(&mut self.done)
    }

    fn flush(&mut self) {
        let mut tables: Vec<usize> = self.open.keys().copied().collect();
        tables.sort_unstable();
        for table in tables {
            self.flush_table(table);
        }
    }

    fn flush_table(&mut self, table: usize) {
        let Some(open) = self.open.remove(&table) else { return };
        if !open.ordered.is_empty() {
            self.done.push(Step::Ordered(open.ordered));
        }
        let mut net = Net { table, deletes: open.deletes.into_iter().collect(), ..Net::default() };
        for slot in open.slots.into_iter().flatten() {
            match slot.origin {
                Some(key) => net.updates.push(RowUpdate { key, row: slot.row }),
                None => net.inserts.push(slot.row),
            }
        }
        // Neighbours in the target's index are found and written together.
        net.deletes.sort_unstable_by(near);
        net.updates.sort_by(|a, b| near(&a.key, &b.key));
        if !(net.deletes.is_empty() && net.updates.is_empty() && net.inserts.is_empty()) {
            self.done.push(Step::Net(net));
        }
    }
}

impl Open {
    /// Gives the change back when it contradicts what is known here.
    fn fold(&mut self, change: RowChange, columns: Option<&[usize]>) -> Result<(), RowChange> {
        let Some(columns) = columns else {
            self.ordered.push(change);
            return Ok(());
        };
        match change {
            RowChange::Insert { table, row } => {
                let key = Key::of(&row, columns);
                if self.by_key.contains_key(&key) {
                    return Err(RowChange::Insert { table, row });
                }
                if mutant::on(mutant::FOLD_FORGETS_DELETE) {
                    self.deletes.remove(&key);
                }
                self.add(key, Slot { origin: None, row });
            }
            RowChange::Update { table, key, row } => {
                let new_key = Key::of(&row, columns);
                let moves = new_key != key;
                if moves && self.by_key.contains_key(&new_key) {
                    return Err(RowChange::Update { table, key, row });
                }
                match self.by_key.get(&key).copied() {
                    Some(at) => {
                        if let Some(slot) = &mut self.slots[at] {
                            overlay(&mut slot.row, row);
                        }
                        if moves {
                            self.by_key.insert(new_key, at);
                            self.by_key.remove(&key);
                            self.moved.insert(key);
                        }
                    }
                    None if self.vacated(&key) => {
                        return Err(RowChange::Update { table, key, row });
                    }
                    None => {
                        if moves {
                            self.moved.insert(key.clone());
                        }
                        self.add(new_key, Slot { origin: Some(key), row });
                    }
                }
            }
            RowChange::Delete { table, key } => match self.by_key.remove(&key) {
                Some(at) => {
                    if let Some(Slot { origin: Some(origin), .. }) = self.slots[at].take()
                        && !(mutant::on(mutant::FOLD_FORGETS_ORIGIN) && origin != key)
                    {
                        self.deletes.insert(origin);
                    }
                }
                None if self.vacated(&key) => {
                    return Err(RowChange::Delete { table, key });
                }
                None => {
                    self.deletes.insert(key);
                }
            },
            whole @ (RowChange::UpdateWhole { .. } | RowChange::DeleteWhole { .. }) => return Err(whole),
        }
        Ok(())
    }

    fn add(&mut self, key: Key, slot: Slot) {
        self.by_key.insert(key, self.slots.len());
        self.slots.push(Some(slot));
    }

    /// No row is under this key now, though the target still shows one.
    fn vacated(&self, key: &Key) -> bool {
        self.deletes.contains(key) || self.moved.contains(key)
    }
}

/// The order of short texts before long ones, which is that of numbers.
fn near(a: &Key, b: &Key) -> Ordering {
    let one = |(a, b): (&Value, &Value)| match (a, b) {
        (Value::Text(a), Value::Text(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
        (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
        _ => Ordering::Equal,
    };
    a.0.iter().zip(&b.0).map(one).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn weight(row: &Row) -> usize {
    row.iter().map(Value::weight).sum()
}

/// Puts the cells that `newer` carries over `row`.
fn overlay(row: &mut Row, newer: Row) {
    for (cell, new) in row.iter_mut().zip(newer) {
        if !new.is_unchanged() || mutant::on(mutant::FOLD_WRITES_UNCHANGED) {
            *cell = new;
        }
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::tests::table;

    fn key(id: &str) -> Key {
        Key(vec![Value::text(id)])
    }

    fn row(cells: &[&str]) -> Row {
        cells.iter().map(|cell| if *cell == "~" { Value::Unchanged } else { Value::text(*cell) }).collect()
    }

    fn insert(cells: &[&str]) -> RowChange {
        RowChange::Insert { table: 0, row: row(cells) }
    }

    fn update(from: &str, cells: &[&str]) -> RowChange {
        RowChange::Update { table: 0, key: key(from), row: row(cells) }
    }

    fn delete(id: &str) -> RowChange {
        RowChange::Delete { table: 0, key: key(id) }
    }

    fn folded(changes: Vec<RowChange>) -> Vec<Step> {
        let tables = [table("t", &["id", "v", "w"], Some(&["id"]))];
        let mut fold = Fold::default();
        for change in changes {
            fold.push(change, &tables);
        }
        fold.take()
    }

    fn net(deletes: &[&str], updates: &[(&str, &[&str])], inserts: &[&[&str]]) -> Vec<Step> {
        vec![Step::Net(Net {
            table: 0,
            deletes: deletes.iter().map(|id| key(id)).collect(),
            updates: updates
                .iter()
                .map(|(from, cells)| RowUpdate { key: key(from), row: row(cells) })
                .collect(),
            inserts: inserts.iter().map(|cells| row(cells)).collect(),
        })]
    }

    #[test]
    fn a_hot_row_folds_to_one_update() {
        let changes = (0..1000).map(|n| update("1", &["1", &n.to_string(), "~"])).collect();
        assert_eq!(folded(changes), net(&[], &[("1", &["1", "999", "~"])], &[]));
    }

    #[test]
    fn unchanged_never_overwrites_a_value_in_either_order() {
        let with = || update("1", &["1", "a", "large"]);
        let without = || update("1", &["1", "b", "~"]);
        assert_eq!(folded(vec![with(), without()]), net(&[], &[("1", &["1", "b", "large"])], &[]));
        assert_eq!(folded(vec![without(), with()]), net(&[], &[("1", &["1", "a", "large"])], &[]));
    }

    /// T03: insert, partial update, key update, delete and re-insert of one key.
    #[test]
    fn a_whole_life_in_one_batch() {
        let life = vec![
            insert(&["1", "a", "large"]),
            update("1", &["1", "b", "~"]),
            update("1", &["2", "c", "~"]),
            delete("2"),
            insert(&["1", "d", "e"]),
        ];
        assert_eq!(folded(life), net(&[], &[], &[&["1", "d", "e"]]));
    }

    #[test]
    fn a_row_of_the_target_that_moved_and_was_deleted_is_deleted_where_it_was() {
        assert_eq!(folded(vec![update("1", &["2", "a", "~"]), delete("2")]), net(&["1"], &[], &[]));
        assert_eq!(
            folded(vec![delete("1"), insert(&["1", "n", "n"])]),
            net(&["1"], &[], &[&["1", "n", "n"]])
        );
        assert_eq!(
            folded(vec![update("1", &["2", "a", "~"]), insert(&["1", "n", "n"])]),
            net(&[], &[("1", &["2", "a", "~"])], &[&["1", "n", "n"]])
        );
    }

    #[test]
    fn an_anomaly_is_passed_on_and_not_folded_away() {
        for anomaly in [
            vec![insert(&["1", "a", "b"]), insert(&["1", "c", "d"])],
            vec![delete("1"), update("1", &["1", "a", "b"])],
            vec![delete("1"), delete("1")],
            vec![update("1", &["2", "a", "~"]), delete("1")],
            vec![update("1", &["2", "a", "~"]), update("1", &["1", "b", "~"])],
        ] {
            let last = anomaly.last().cloned().map(|change| Step::Ordered(vec![change]));
            let steps = folded(anomaly);
            assert_eq!(steps.last().cloned(), last, "{steps:?}");
        }
    }

    #[test]
    fn steps_in_between_keep_their_place() {
        let tables = [table("t", &["id", "v", "w"], Some(&["id"]))];
        let mut fold = Fold::default();
        fold.push(insert(&["1", "a", "b"]), &tables);
        fold.push_steps(vec![Step::Truncate { tables: vec![0], restart_identity: false }]);
        fold.push(insert(&["1", "c", "d"]), &tables);
        let steps = fold.take();
        assert!(
            matches!(&steps[..], [Step::Net(_), Step::Truncate { .. }, Step::Net(net)] if net.inserts == [row(&["1", "c", "d"])]),
            "{steps:?}"
        );
    }
}
