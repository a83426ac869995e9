//! The simulated target: rows and the records of the migration, which change together or not at all.

use connector::{Hold, Net, Progress, RowChange, RowCut, Step};
use model::{Loaded, Row as Cells};

use crate::tables::{self, Row, Rows, Shape, id, twice};

/// What the target has committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    pub tables: Vec<Rows>,
    pub epoch: u64,
    pub ledger: Vec<Loaded>,
    pub progress: Option<Progress>,
    pub row_cuts: Vec<RowCut>,
    pub holds: Vec<Hold>,
    /// Everything that the cuts contain is there.
    pub settled: bool,
    /// The unique indexes are there.
    pub finished: bool,
    next_slot: i64,
}

/// Why a step was not carried out.
#[derive(Debug)]
pub(crate) struct Refused {
    pub table: usize,
    /// Index among the changes of an ordered step.
    pub change: Option<usize>,
    pub reason: &'static str,
    /// A constraint, and not a row that is missing or in the way.
    pub constraint: bool,
}

/// Refuses some rows, as a check constraint that the source does not have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Poison {
    pub table: usize,
    pub active: bool,
}

impl Poison {
    fn refuses(self, table: usize, row: &Row) -> bool {
        self.active && self.table == table && row.version.is_multiple_of(3)
    }
}

impl Target {
    pub(crate) fn new(tables: usize) -> Target {
        Target { tables: vec![Rows::new(); tables], next_slot: 1, ..Target::default() }
    }

    /// Adds a chunk's rows; false when one is there already.
    pub(crate) fn load(&mut self, shapes: &[Shape], table: usize, rows: Vec<Row>) -> bool {
        rows.into_iter().all(|row| {
            let slot = self.slot(shapes, table, &row);
            self.tables[table].insert(slot, row).is_none()
        })
    }

    fn slot(&mut self, shapes: &[Shape], table: usize, row: &Row) -> i64 {
        if shapes[table].keyed {
            return row.id;
        }
        self.next_slot += 1;
        self.next_slot
    }

    fn is_unique(&self, shapes: &[Shape], table: usize) -> bool {
        shapes[table].unique && (self.finished || shapes[table].unique_before)
    }

    /// Carries out a step; returns the rows that it wrote, for the checks. After a refusal the state is of no use.
    pub(crate) fn write(
        &mut self,
        shapes: &[Shape],
        poison: Poison,
        step: &Step,
    ) -> Result<Vec<(usize, Row)>, Refused> {
        match step {
            Step::Ordered(changes) => {
                let mut written = Vec::new();
                for (at, change) in changes.iter().enumerate() {
                    let row = self.change(shapes, poison, change).map_err(|(reason, constraint)| {
                        Refused { table: change.table(), change: Some(at), reason, constraint }
                    })?;
                    written.extend(row.map(|row| (change.table(), row)));
                }
                Ok(written)
            }
            Step::Net(net) => self.net(shapes, poison, net).map_err(|(reason, constraint)| Refused {
                table: net.table,
                change: None,
                reason,
                constraint,
            }),
            Step::Truncate { tables, .. } => {
                for &table in tables {
                    self.tables[table].clear();
                }
                Ok(Vec::new())
            }
            Step::DeleteRange { table, after, upto, except } => {
                let after = after.as_ref().map_or(i64::MIN, id);
                let upto = upto.as_ref().map_or(i64::MAX, id);
                let except: Vec<i64> = except.iter().map(id).collect();
                self.tables[*table].retain(|slot, _| *slot <= after || *slot > upto || except.contains(slot));
                Ok(Vec::new())
            }
        }
    }

    fn change(
        &mut self,
        shapes: &[Shape],
        poison: Poison,
        change: &RowChange,
    ) -> Result<Option<Row>, (&'static str, bool)> {
        let table = change.table();
        let written = match change {
            RowChange::Insert { row, .. } => Some(self.insert(shapes, table, row)?),
            RowChange::Update { key, row, .. } => {
                let old =
                    self.tables[table].remove(&id(key)).ok_or(("the row to update is missing", false))?;
                let new = old.overlaid(row);
                if self.tables[table].insert(new.id, new.clone()).is_some() {
                    return Err(("a row is under the new key already", false));
                }
                Some(new)
            }
            RowChange::Delete { key, .. } => {
                self.tables[table].remove(&id(key)).ok_or(("the row to delete is missing", false))?;
                None
            }
            RowChange::UpdateWhole { old, row, .. } => {
                let slot = self.whole(table, old).ok_or(("the row to update is missing", false))?;
                let new = self.tables[table][&slot].overlaid(row);
                self.tables[table].insert(slot, new.clone());
                Some(new)
            }
            RowChange::DeleteWhole { old, .. } => {
                let slot = self.whole(table, old).ok_or(("the row to delete is missing", false))?;
                self.tables[table].remove(&slot);
                None
            }
        };
        if let Some(row) = &written {
            self.constraints(shapes, poison, table, row)?;
        }
        Ok(written)
    }

    fn insert(&mut self, shapes: &[Shape], table: usize, cells: &Cells) -> Result<Row, (&'static str, bool)> {
        let row = Row::whole(cells).ok_or(("a placeholder was given as a value", false))?;
        let slot = self.slot(shapes, table, &row);
        match self.tables[table].insert(slot, row.clone()) {
            None => Ok(row),
            Some(_) => Err(("the row to insert is there already", false)),
        }
    }

    fn whole(&self, table: usize, old: &Cells) -> Option<i64> {
        let old = Row::whole(old)?;
        self.tables[table].iter().find(|(_, row)| **row == old).map(|(slot, _)| *slot)
    }

    fn constraints(
        &self,
        shapes: &[Shape],
        poison: Poison,
        table: usize,
        row: &Row,
    ) -> Result<(), (&'static str, bool)> {
        if poison.refuses(table, row) {
            return Err(("a check constraint forbids the row", true));
        }
        if self.is_unique(shapes, table) && !shapes[table].deferred && twice(&self.tables[table]).is_some() {
            return Err(("the nick is there already", true));
        }
        Ok(())
    }

    fn net(
        &mut self,
        shapes: &[Shape],
        poison: Poison,
        net: &Net,
    ) -> Result<Vec<(usize, Row)>, (&'static str, bool)> {
        for key in &net.deletes {
            self.tables[net.table].remove(&id(key)).ok_or(("the row to delete is missing", false))?;
        }
        let mut written = Vec::new();
        for update in &net.updates {
            let old = self.tables[net.table]
                .remove(&id(&update.key))
                .ok_or(("the row to update is missing", false))?;
            written.push(old.overlaid(&update.row));
        }
        for row in &written {
            if self.tables[net.table].insert(row.id, row.clone()).is_some() {
                return Err(("a row is under the new key already", false));
            }
        }
        for row in &written {
            self.constraints(shapes, poison, net.table, row)?;
        }
        for cells in &net.inserts {
            let row = self.insert(shapes, net.table, cells)?;
            self.constraints(shapes, poison, net.table, &row)?;
            written.push(row);
        }
        Ok(written.into_iter().map(|row| (net.table, row)).collect())
    }

    /// The table whose deferred constraint forbids the commit.
    pub(crate) fn forbidden(&self, shapes: &[Shape]) -> Option<usize> {
        (0..shapes.len()).find(|&at| self.is_unique(shapes, at) && twice(&self.tables[at]).is_some())
    }

    /// Puts a row that was fetched alone in place of whatever is under its key.
    pub(crate) fn put_fetched(&mut self, table: usize, key: i64, row: Option<Row>) {
        match row {
            Some(row) => self.tables[table].insert(key, row),
            None => self.tables[table].remove(&key),
        };
    }

    /// Whether it has all tables, and everything that the cuts contain.
    pub(crate) fn has_passed_cuts(&self, tables: usize) -> bool {
        let Some(progress) = &self.progress else { return false };
        let settled = self.ledger.iter().map(|loaded| &loaded.settled);
        let mut settled = settled.chain(self.row_cuts.iter().map(|row| &row.settled));
        let has_chunks = |at: usize| self.ledger.iter().any(|loaded| loaded.chunk.table == tables::name(at));
        (0..tables).all(has_chunks) && settled.all(|settled| *settled <= progress.position)
    }

    /// Creates the unique indexes; the table that does not allow it otherwise.
    pub(crate) fn finish(&mut self, shapes: &[Shape]) -> Result<(), usize> {
        let broken = (0..shapes.len()).find(|&at| shapes[at].unique && twice(&self.tables[at]).is_some());
        match broken {
            Some(table) => Err(table),
            None => {
                self.finished = true;
                Ok(())
            }
        }
    }

    pub(crate) fn reset(&mut self, table: usize) {
        self.tables[table].clear();
        let name = tables::name(table);
        self.ledger.retain(|loaded| loaded.chunk.table != name);
        self.row_cuts.retain(|row| row.table != name);
    }
}
