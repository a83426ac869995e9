//! Turns journal entries into slices: arranges rows, asks the merge rule, folds or keeps the order.

use std::collections::HashMap;

use connector::{Progress, RowChange, Step};
use model::{Change, Position, RelationId, Transaction, mutant};

use super::lanes::{Commit, Slice};
use super::{Applying, Interrupt};
use crate::fold::Fold;
use crate::journal::Entry;
use crate::merge::Decision;
use crate::relation::Relations;

/// What has been read and not yet sent.
#[derive(Default)]
pub(crate) struct Assembly {
    relations: Relations,
    /// The transaction that is being read.
    open: Option<Transaction>,
    /// Keep the source's order, change by change, instead of folding.
    pub(crate) ordered: bool,
    fold: Fold,
    steps: Vec<Step>,
    weight: usize,
    /// Of everything taken in. A cell that is kept holds the block of the journal that it came in, so folding much
    /// into little still costs memory.
    taken_in: usize,
    /// Changes since the last commit that was sent.
    pub(crate) group_changes: u64,
    /// Rows that they come down to, of slices that were sent and of those in order.
    rows: u64,
    /// Whole transactions since the last commit that was sent, and those of them that changed something.
    pub(crate) transactions: u64,
    changing: u64,
    changed: bool,
    changes: HashMap<usize, u64>,
    boundary: Option<(Progress, i64)>,
    /// A slice of the target transaction has been sent without its commit.
    part_sent: bool,
    /// The highest transaction that was taken in.
    pub(crate) last_seq: u64,
    /// Only this table's changes count, for a table that is brought up to the others.
    only: Option<usize>,
}

/// Four times the slice's budget may be read for one slice: 32 MiB at the default.
const HELD_PART: usize = 4;

impl Assembly {
    pub(crate) fn new(ordered: bool, only: Option<usize>) -> Assembly {
        Assembly { ordered, only, ..Assembly::default() }
    }

    /// Nothing taken in since the last commit that was sent.
    pub(crate) fn is_fresh(&self) -> bool {
        self.transactions == 0 && self.open.is_none() && !self.part_sent
    }

    pub(crate) fn at_boundary(&self) -> bool {
        self.open.is_none()
    }

    pub(crate) fn weight(&self) -> usize {
        (self.weight + self.fold.weight()).max(self.taken_in / HELD_PART)
    }

    /// Rows that the target has to write for what was taken in since the last commit that was sent.
    pub(crate) fn group_rows(&self) -> u64 {
        self.rows + self.fold.rows()
    }

    pub(crate) fn take_in(&mut self, applying: &Applying, entry: Entry) -> Result<(), Interrupt> {
        match entry {
            Entry::Begin(transaction) => {
                self.last_seq = transaction.seq;
                self.open = Some(transaction);
            }
            Entry::Relation(relation) => self.relations.learn(&relation, &applying.catalog)?,
            Entry::Change(change) => self.change(applying, change)?,
            Entry::Commit { seq, position } => {
                let committed_us = self.open.take().map_or(0, |transaction| transaction.committed_us);
                self.boundary = Some((Progress { seq, position }, committed_us));
                self.transactions += 1;
                self.changing += u64::from(std::mem::take(&mut self.changed));
            }
        }
        Ok(())
    }

    fn change(&mut self, applying: &Applying, change: Change) -> Result<(), Interrupt> {
        let Some(transaction) = self.open else {
            // The journal's cursor gives changes between a Begin and a Commit only.
            unreachable!("a change outside a transaction");
        };
        self.changed = true;
        self.taken_in += change.weight();
        self.group_changes += 1;
        let change = self.relations.arrange(change)?;
        let Some(change) = self.without_held(applying, change) else { return Ok(()) };
        if mutant::on(mutant::MERGE_BY_POSITION) && transaction.order <= applying.settled.order {
            return Ok(());
        }
        match applying.cuts.decide(&transaction, change, &applying.catalog.tables)? {
            Decision::Skip => {}
            Decision::Apply(change) => self.apply(applying, change),
            Decision::Bulk(steps) => self.bulk(steps),
            Decision::Fetch { table, key } => return Err(Interrupt::Fetch { table, key, transaction }),
        }
        Ok(())
    }

    /// Leaves out what concerns tables that are held back (or, for one that is brought up, all others).
    fn without_held(&self, applying: &Applying, change: Change) -> Option<Change> {
        if applying.held.is_empty() && self.only.is_none() {
            return Some(change);
        }
        let wanted = |relation: &RelationId| match self.only {
            Some(only) => *relation as usize == only,
            None => match applying.held.get(&(*relation as usize)) {
                Some(from_seq) => mutant::on(mutant::APPLY_SKIPS_REFUSED) && self.last_seq != *from_seq,
                None => true,
            },
        };
        match change {
            Change::Truncate { mut relations, restart_identity } => {
                relations.retain(wanted);
                (!relations.is_empty()).then_some(Change::Truncate { relations, restart_identity })
            }
            Change::Insert { relation, .. }
            | Change::Update { relation, .. }
            | Change::Delete { relation, .. } => wanted(&relation).then_some(change),
        }
    }

    fn apply(&mut self, applying: &Applying, change: RowChange) {
        *self.changes.entry(change.table()).or_default() += 1;
        if !self.ordered {
            self.fold.push(change, &applying.catalog.tables);
            return;
        }
        self.weight += weight(&change);
        self.rows += 1;
        match self.steps.last_mut() {
            Some(Step::Ordered(changes)) => changes.push(change),
            _ => self.steps.push(Step::Ordered(vec![change])),
        }
    }

    fn bulk(&mut self, steps: Vec<Step>) {
        for step in &steps {
            match step {
                Step::Truncate { tables, .. } => {
                    for &table in tables {
                        *self.changes.entry(table).or_default() += 1;
                    }
                }
                Step::DeleteRange { table, .. } => *self.changes.entry(*table).or_default() += 1,
                Step::Net(_) | Step::Ordered(_) => {}
            }
        }
        if self.ordered { self.steps.extend(steps) } else { self.fold.push_steps(steps) }
    }

    /// What is collected, with the commit if this is a boundary.
    pub(crate) fn slice(&mut self) -> Slice {
        self.rows += self.fold.rows();
        let mut steps = std::mem::take(&mut self.steps);
        steps.extend(self.fold.take());
        self.weight = 0;
        self.taken_in = 0;
        let boundary = match self.open {
            None => self.boundary.take(),
            Some(open) if mutant::on(mutant::APPLY_POSITION_INSIDE) => {
                let position = Position { order: open.order, text: String::new() };
                Some((Progress { seq: open.seq, position }, open.committed_us))
            }
            Some(_) => None,
        };
        let first = !self.part_sent;
        if boundary.is_some() {
            self.transactions = 0;
            self.group_changes = 0;
        }
        let commit = boundary.map(|(progress, committed_us)| Commit {
            progress,
            committed_us,
            transactions: std::mem::take(&mut self.changing),
            changes: std::mem::take(&mut self.changes),
            rows: std::mem::take(&mut self.rows),
        });
        self.part_sent = commit.is_none();
        Slice { steps, commit, first }
    }
}

fn weight(change: &RowChange) -> usize {
    let row = |row: &model::Row| row.iter().map(model::Value::weight).sum::<usize>();
    100 + match change {
        RowChange::Insert { row: new, .. } => row(new),
        RowChange::Update { key, row: new, .. } => row(&key.0) + row(new),
        RowChange::Delete { key, .. } => row(&key.0),
        RowChange::UpdateWhole { old, row: new, .. } => row(old) + row(new),
        RowChange::DeleteWhole { old, .. } => row(old),
    }
}
