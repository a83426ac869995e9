//! Which rows of a group can be written while groups before it are not committed yet. Pure.
//!
//! A row is free when no open group touches its key. Then writing it early is as good as writing it in its turn: what
//! the target has under that key is what all groups before have left there, and no lock of theirs is on it. Nothing is
//! free where rows of different keys may get in each other's way.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use connector::{Net, RowChange, RowUpdate, Step};
use model::{Catalog, Key, Kind, Row, Table, mutant};

/// The groups that have been sent and are not known to be committed.
pub(super) struct OpenGroups {
    catalog: Arc<Catalog>,
    tables: Vec<Apart>,
    open: VecDeque<(u64, Touched)>,
}

/// Whether the rows of a table can be told apart by what the log says of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Apart {
    /// By the bytes of their keys.
    ByKey,
    /// There is no key: rows can be added beside each other, and no more.
    Added,
    Never,
}

impl Apart {
    fn of(table: &Table, collide: bool) -> Apart {
        // Of the others, equal values have equal texts. `1.0` and `1.00` are one numeric, and a type that the engine does
        // not know may have an equality of its own.
        let is_exact = |&at: &usize| {
            !matches!(table.columns[at].kind, Kind::Real | Kind::Numeric | Kind::Json | Kind::Native)
        };
        match table.key() {
            _ if collide => Apart::Never,
            None => Apart::Added,
            Some(columns) if columns.iter().all(is_exact) => Apart::ByKey,
            Some(_) => Apart::Never,
        }
    }
}

/// What a group writes.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Hashes of keys; a table is named here even when no key of it is.
    keys: HashMap<usize, HashSet<u64>>,
    /// Tables in which anything may be touched.
    whole: HashSet<usize>,
    everything: bool,
}

impl Touched {
    /// Of a group that is too large to be remembered row by row.
    pub(super) fn everything() -> Touched {
        Touched { everything: true, ..Touched::default() }
    }

    fn anything_of(&self, table: usize) -> bool {
        self.all_of(table) || self.keys.contains_key(&table)
    }

    fn all_of(&self, table: usize) -> bool {
        self.everything || self.whole.contains(&table)
    }
}

impl OpenGroups {
    /// `collide` says of each table whether rows of different keys can collide on the target.
    pub(super) fn new(catalog: Arc<Catalog>, collide: impl Fn(usize) -> bool) -> OpenGroups {
        let tables =
            catalog.tables.iter().enumerate().map(|(at, table)| Apart::of(table, collide(at))).collect();
        OpenGroups { catalog, tables, open: VecDeque::new() }
    }

    /// The groups up to transaction `seq` are committed.
    pub(super) fn committed(&mut self, seq: u64) {
        self.open.retain(|(last, _)| *last > seq);
    }

    /// A group that ends with transaction `seq`.
    pub(super) fn add(&mut self, seq: u64, touched: Touched) {
        self.open.push_back((seq, touched));
    }

    /// What of a group can be written now, and what only when all open groups are committed.
    pub(super) fn split(&self, steps: Vec<Step>) -> (Vec<Step>, Vec<Step>) {
        let mut steps_of: HashMap<usize, u32> = HashMap::new();
        for table in steps.iter().flat_map(tables_of) {
            *steps_of.entry(table).or_default() += 1;
        }
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for step in steps {
            // Several steps of one table keep their order.
            let alone = tables_of(&step).iter().all(|table| steps_of[table] == 1);
            match step {
                Step::Net(net) if alone && self.tables[net.table] == Apart::ByKey => {
                    let (free, bound) = self.split_net(net);
                    now.extend(free.map(Step::Net));
                    later.extend(bound.map(Step::Net));
                }
                step if alone && self.is_free(&step) => now.push(step),
                step => later.push(step),
            }
        }
        (now, later)
    }

    fn split_net(&self, net: Net) -> (Option<Net>, Option<Net>) {
        let table = net.table;
        if mutant::on(mutant::LANES_OVERLAP) {
            return (Some(net), None);
        }
        if self.open.iter().any(|(_, open)| open.all_of(table)) {
            return (None, Some(net));
        }
        let sets: Vec<&HashSet<u64>> =
            self.open.iter().filter_map(|(_, open)| open.keys.get(&table)).collect();
        let is_bound = |key: &Key| sets.iter().any(|keys| keys.contains(&hash(key)));
        let (mut free, mut bound) = (Net { table, ..Net::default() }, Net { table, ..Net::default() });
        let mut moves = false;
        for key in net.deletes {
            if is_bound(&key) { bound.deletes.push(key) } else { free.deletes.push(key) }
        }
        for update in net.updates {
            let new_key = self.moved_to(table, &update);
            moves |= new_key.is_some();
            let waits = is_bound(&update.key) || new_key.is_some_and(|key| is_bound(&key));
            if waits { bound.updates.push(update) } else { free.updates.push(update) }
        }
        for row in net.inserts {
            if is_bound(&self.key_of(table, &row)) { bound.inserts.push(row) } else { free.inserts.push(row) }
        }
        // A row that moves takes a key that another row of the net may have to leave first, and leaves one to take.
        if moves && !is_empty(&bound) && !mutant::on(mutant::LANES_TEAR_MOVES) {
            bound.deletes.append(&mut free.deletes);
            bound.updates.append(&mut free.updates);
            bound.inserts.append(&mut free.inserts);
        }
        let some = |net: Net| (!is_empty(&net)).then_some(net);
        (some(free), some(bound))
    }

    fn is_free(&self, step: &Step) -> bool {
        let untouched = |table: usize| !self.open.iter().any(|(_, open)| open.anything_of(table));
        match step {
            Step::Ordered(changes) if self.only_adds(changes) => {
                let whole = |table: usize| self.open.iter().any(|(_, open)| open.all_of(table));
                !changes.iter().any(|change| whole(change.table()))
            }
            Step::Net(_) | Step::Ordered(_) => tables_of(step).into_iter().all(untouched),
            Step::Truncate { .. } | Step::DeleteRange { .. } => false,
        }
    }

    /// What a whole group writes.
    pub(super) fn touched(&self, steps: &[Step]) -> Touched {
        let mut touched = Touched::default();
        for step in steps {
            match step {
                Step::Net(net) if self.tables[net.table] == Apart::ByKey => {
                    let keys = touched.keys.entry(net.table).or_default();
                    keys.extend(net.deletes.iter().map(hash));
                    for update in &net.updates {
                        keys.insert(hash(&update.key));
                        keys.extend(self.moved_to(net.table, update).map(|key| hash(&key)));
                    }
                    keys.extend(net.inserts.iter().map(|row| hash(&self.key_of(net.table, row))));
                }
                Step::Ordered(changes) if self.only_adds(changes) => {
                    for change in changes {
                        touched.keys.entry(change.table()).or_default();
                    }
                }
                step => touched.whole.extend(tables_of(step)),
            }
        }
        touched
    }

    /// Only inserts into tables where they cannot meet.
    fn only_adds(&self, changes: &[RowChange]) -> bool {
        let adds = |change: &RowChange| matches!(change, RowChange::Insert { .. });
        changes.iter().all(|change| adds(change) && self.tables[change.table()] == Apart::Added)
    }

    fn key_of(&self, table: usize, row: &Row) -> Key {
        Key::of(row, self.catalog.tables[table].key().unwrap_or(&[]))
    }

    /// The key that an update gives its row, if it is another.
    fn moved_to(&self, table: usize, update: &RowUpdate) -> Option<Key> {
        let columns = self.catalog.tables[table].key().unwrap_or(&[]);
        let moves = columns.iter().zip(&update.key.0).any(|(&column, old)| update.row[column] != *old);
        moves.then(|| self.key_of(table, &update.row))
    }
}

fn tables_of(step: &Step) -> Vec<usize> {
    let mut tables = match step {
        Step::Net(net) => vec![net.table],
        Step::Ordered(changes) => changes.iter().map(RowChange::table).collect(),
        Step::Truncate { tables, .. } => tables.clone(),
        Step::DeleteRange { table, .. } => vec![*table],
    };
    tables.sort_unstable();
    tables.dedup();
    tables
}

fn is_empty(net: &Net) -> bool {
    net.deletes.is_empty() && net.updates.is_empty() && net.inserts.is_empty()
}

/// Two keys of one hash are taken for one: that only makes a row wait.
fn hash(key: &Key) -> u64 {
    foldhash::fast::FixedState::default().hash_one(key)
}

#[cfg(test)]
mod tests {
    use model::Value;

    use super::*;
    use crate::merge::tests::table;

    fn groups(collide: bool) -> OpenGroups {
        let tables = vec![table("bag", &["v"], None), table("t", &["id", "v"], Some(&["id"]))];
        OpenGroups::new(Arc::new(Catalog { tables }), move |_| collide)
    }

    fn row(id: &str) -> Row {
        vec![Value::text(id), Value::text("v")]
    }

    fn key(id: &str) -> Key {
        Key(vec![Value::text(id)])
    }

    /// Deletes, updates (from, to), inserts of table 1.
    fn net(deletes: &[&str], updates: &[(&str, &str)], inserts: &[&str]) -> Step {
        Step::Net(Net {
            table: 1,
            deletes: deletes.iter().map(|id| key(id)).collect(),
            updates: updates.iter().map(|(from, to)| RowUpdate { key: key(from), row: row(to) }).collect(),
            inserts: inserts.iter().map(|id| row(id)).collect(),
        })
    }

    fn add(id: &str) -> Step {
        Step::Ordered(vec![RowChange::Insert { table: 0, row: vec![Value::text(id)] }])
    }

    fn remove(id: &str) -> Step {
        Step::Ordered(vec![RowChange::DeleteWhole { table: 0, old: vec![Value::text(id)] }])
    }

    #[test]
    fn a_row_waits_for_the_groups_that_touch_its_key_and_for_no_others() {
        let mut open = groups(false);
        open.add(7, open.touched(&[net(&["1"], &[("2", "2"), ("3", "30")], &["4"])]));
        let group = vec![net(&["2", "5"], &[("30", "30"), ("6", "6")], &["1", "3", "7"])];
        assert_eq!(
            open.split(group.clone()),
            (vec![net(&["5"], &[("6", "6")], &["7"])], vec![net(&["2"], &[("30", "30")], &["1", "3"])])
        );
        open.committed(7);
        assert_eq!(open.split(group.clone()), (group, vec![]));
    }

    #[test]
    fn a_net_in_which_rows_move_waits_as_a_whole_or_not_at_all() {
        let mut open = groups(false);
        open.add(7, open.touched(&[net(&["9"], &[], &[])]));
        let torn = vec![net(&[], &[("1", "9")], &["1"])];
        assert_eq!(open.split(torn.clone()), (vec![], torn));
        let apart = vec![net(&["2"], &[("1", "2")], &["1"])];
        assert_eq!(open.split(apart.clone()), (apart, vec![]));
    }

    #[test]
    fn where_rows_can_collide_tables_wait_for_each_other() {
        let mut open = groups(true);
        open.add(7, open.touched(&[net(&["1"], &[], &[])]));
        let (other, bag) = (vec![net(&["2"], &[], &[])], vec![add("a")]);
        assert_eq!(open.split(other.clone()), (vec![], other));
        assert_eq!(open.split(bag.clone()), (bag, vec![]));
    }

    #[test]
    fn rows_without_a_key_are_added_beside_each_other_and_removed_in_turn() {
        let mut open = groups(false);
        open.add(7, open.touched(&[add("a")]));
        assert_eq!(open.split(vec![add("b")]), (vec![add("b")], vec![]));
        assert_eq!(open.split(vec![remove("a")]), (vec![], vec![remove("a")]));
        open.add(8, open.touched(&[remove("a")]));
        assert_eq!(open.split(vec![add("b")]), (vec![], vec![add("b")]));
    }

    #[test]
    fn what_is_not_about_single_rows_keeps_its_place() {
        let mut open = groups(false);
        let truncate = Step::Truncate { tables: vec![1], restart_identity: false };
        let group = vec![net(&["1"], &[], &[]), truncate.clone(), net(&[], &[], &["2"]), add("b")];
        let (now, later) = open.split(group.clone());
        assert_eq!((now, later), (vec![add("b")], group[..3].to_vec()));
        open.add(7, open.touched(&[truncate]));
        let after = vec![net(&[], &[], &["5"])];
        assert_eq!(open.split(after.clone()), (vec![], after.clone()));
        open.committed(7);
        open.add(8, Touched::everything());
        assert_eq!(open.split(after.clone()), (vec![], after));
    }
}
