//! The target: rows, and the record of them, changed in one transaction; strict as the contract of
//! `connector::Applier::write` says.

use connector::{Net, RowChange, Step};
use model::Key;

use crate::row::{Row, id};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Table {
    /// Sorted. Without a key yet a row may be here twice.
    pub rows: Vec<Row>,
    /// The second unique index is there.
    pub unique: bool,
}

/// Why a step was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// An update or a delete of a row that is not there.
    NoRow(u8),
    /// An insert of a key that is there.
    RowThere(u8),
    /// Two rows with one value under the second unique index.
    Twice,
    /// The product cannot decide: the ledger does not hold the whole table under cuts that fit together.
    Ledger,
}

impl Table {
    pub fn find(&self, id: u8) -> Option<Row> {
        self.rows.iter().find(|row| row.id == id).copied()
    }

    /// A chunk's rows come as they are; nothing checks them yet.
    pub fn load(&mut self, rows: impl IntoIterator<Item = Row>) {
        self.rows.extend(rows);
        self.rows.sort_unstable();
    }

    pub fn put(&mut self, id: u8, row: Option<Row>) {
        self.rows.retain(|old| old.id != id);
        self.load(row);
    }

    pub fn write(&mut self, step: &Step) -> Result<(), Refused> {
        match step {
            Step::Net(net) => self.net(net),
            Step::Ordered(changes) => changes.iter().try_for_each(|change| {
                self.change(change)?;
                self.check()
            }),
            Step::Truncate { .. } => {
                self.rows.clear();
                Ok(())
            }
            Step::DeleteRange { after, upto, except, .. } => {
                let bound = |key: &Option<Key>, open: u8| key.as_ref().map_or(open, id);
                let (after, upto) = (bound(after, 0), bound(upto, u8::MAX));
                let spared: Vec<u8> = except.iter().map(id).collect();
                self.rows.retain(|row| row.id <= after || row.id > upto || spared.contains(&row.id));
                Ok(())
            }
        }
    }

    /// Deletes, then updates, then inserts; updates may pass keys and unique values around among themselves.
    fn net(&mut self, net: &Net) -> Result<(), Refused> {
        net.deletes.iter().try_for_each(|key| self.take(id(key)).map(|_| ()))?;
        let taken = net.updates.iter().map(|update| {
            let old = self.take(id(&update.key))?;
            Ok(Row::of(&update.row, Some(old)))
        });
        let changed = taken.collect::<Result<Vec<Row>, Refused>>()?;
        changed.into_iter().try_for_each(|row| self.insert(row))?;
        self.check()?;
        net.inserts.iter().try_for_each(|row| self.insert(Row::of(row, None)))?;
        self.check()
    }

    fn change(&mut self, change: &RowChange) -> Result<(), Refused> {
        match change {
            RowChange::Insert { row, .. } => self.insert(Row::of(row, None)),
            RowChange::Update { key, row, .. } => {
                let old = self.take(id(key))?;
                self.insert(Row::of(row, Some(old)))
            }
            RowChange::Delete { key, .. } => self.take(id(key)).map(|_| ()),
            RowChange::UpdateWhole { .. } | RowChange::DeleteWhole { .. } => {
                unreachable!("the model's table has a key")
            }
        }
    }

    fn take(&mut self, id: u8) -> Result<Row, Refused> {
        let at = self.rows.iter().position(|row| row.id == id).ok_or(Refused::NoRow(id))?;
        Ok(self.rows.remove(at))
    }

    fn insert(&mut self, row: Row) -> Result<(), Refused> {
        if self.find(row.id).is_some() {
            return Err(Refused::RowThere(row.id));
        }
        self.load([row]);
        Ok(())
    }

    fn check(&self) -> Result<(), Refused> {
        if self.holds() { Ok(()) } else { Err(Refused::Twice) }
    }

    /// No value is twice under the second unique index, if it is there.
    pub fn holds(&self) -> bool {
        !self.unique || self.is_unique()
    }

    fn is_unique(&self) -> bool {
        let mut values: Vec<u8> =
            self.rows.iter().map(|row| row.unique).filter(|unique| *unique != 0).collect();
        values.sort_unstable();
        values.windows(2).all(|pair| pair[0] != pair[1])
    }
}
