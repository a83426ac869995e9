//! THE merge rule (DESIGN §3): how a copy and a log become one truth.
//!
//! For a transaction X and a row whose chunk was read under the cut S: if `S.contains(X)` the chunk row has X's
//! effect already and X is skipped for that row; otherwise X is applied to it, after the chunk is durable.
//! Neither log order nor positions are asked: a commit may be in the log before any snapshot shows it.
//!
//! Pure: no clock, no I/O, no tasks. Called only once all chunks of all tables are loaded, so every cut is known.

use std::collections::HashMap;

use connector::{RowChange, Step};
use model::{Catalog, Change, Cut, Key, KeyOrder, Loaded, Range, Row, Table, TableName, Transaction, mutant};

/// Which cut stands for which row.
#[derive(Debug)]
pub struct Cuts {
    /// By catalog index.
    tables: Vec<TableCuts>,
    /// Rows that were fetched alone: their own cut stands in place of their chunk's.
    rows: HashMap<(usize, Key), Cut>,
    settled: bool,
}

#[derive(Debug)]
enum TableCuts {
    One(Cut),
    /// Ascending by key; each holds the keys in `(after, upto]`, and together they hold every key.
    Ranges {
        order: Vec<KeyOrder>,
        ranges: Vec<KeyRange>,
    },
}

#[derive(Debug)]
struct KeyRange {
    after: Option<Key>,
    upto: Option<Key>,
    cut: Cut,
}

/// What is to be done about one change.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// The chunk rows have it.
    Skip,
    Apply(RowChange),
    /// Steps that are not about single rows, in order.
    Bulk(Vec<Step>),
    /// The row is not on the target and the log does not carry all of it: fetch it with a cut of its own,
    /// put that on record, and decide again.
    Fetch {
        table: usize,
        key: Key,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the key {key} of table {table} is not of the order that its chunks were cut by")]
    KeyOrder { table: TableName, key: String },
    #[error("table {table} has no complete set of chunks on record")]
    Incomplete { table: TableName },
    #[error("the log carries no old row for a change of table {table}, which has no key")]
    NoIdentity { table: TableName },
}

impl Cuts {
    /// From the chunk ledger and the row cuts on record. Fails if a table is not wholly covered: then a change
    /// to a row without a cut could only be guessed.
    pub fn new(
        catalog: &Catalog,
        loaded: &[Loaded],
        rows: impl IntoIterator<Item = (TableName, Key, Cut)>,
    ) -> Result<Cuts, Error> {
        let mut by_table = crate::plan::by_table(loaded);
        let tables = catalog
            .tables
            .iter()
            .map(|table| {
                let chunks = by_table.remove(&table.name).unwrap_or_default();
                TableCuts::new(table, &chunks)
            })
            .collect::<Result<_, _>>()?;
        let index: HashMap<&TableName, usize> =
            catalog.tables.iter().enumerate().map(|(at, table)| (&table.name, at)).collect();
        let rows = rows
            .into_iter()
            .filter_map(|(table, key, cut)| Some(((*index.get(&table)?, key), cut)))
            .collect();
        Ok(Cuts { tables, rows, settled: false })
    }

    /// From here on no transaction is contained in any cut: the applied position has passed them all.
    pub fn settle(&mut self) {
        self.settled = true;
        self.rows.clear();
    }

    /// Forgets the rows that were fetched alone: the record says which there are.
    pub fn forget_rows(&mut self) {
        self.rows.clear();
    }

    /// Puts a fetched row's own cut in place of its chunk's.
    pub fn fetched(&mut self, table: usize, key: Key, cut: Cut) {
        if self.settled {
            return;
        }
        if mutant::on(mutant::MERGE_FORGETS_ROW_CUT) {
            return;
        }
        self.rows.insert((table, key), cut);
    }

    fn seen(&self, table: usize, tables: &[Table], key: &Key, tx: &Transaction) -> Result<bool, Error> {
        if self.settled {
            return Ok(false);
        }
        if !self.rows.is_empty()
            && let Some(cut) = self.rows.get(&(table, key.clone()))
        {
            return Ok(cut.contains(tx));
        }
        match &self.tables[table] {
            TableCuts::One(cut) => Ok(cut.contains(tx)),
            TableCuts::Ranges { order, ranges } => {
                let bad = || Error::KeyOrder { table: tables[table].name.clone(), key: key.to_string() };
                // The first range that does not end before the key.
                let (mut low, mut high) = (0, ranges.len() - 1);
                while low < high {
                    let middle = low + (high - low) / 2;
                    let ends_before = match &ranges[middle].upto {
                        Some(upto) => {
                            let ordering = upto.compare(key, order).ok_or_else(bad)?;
                            ordering.is_lt() || (mutant::on(mutant::MERGE_RANGE_END) && ordering.is_eq())
                        }
                        None => false,
                    };
                    if ends_before { low = middle + 1 } else { high = middle }
                }
                Ok(ranges[low].cut.contains(tx))
            }
        }
    }

    /// Decides about one change, as [`crate::relation::Relations::arrange`] gives it: its relations are indexes
    /// into `tables`, and its rows have a cell for every column.
    pub fn decide(&self, tx: &Transaction, change: Change, tables: &[Table]) -> Result<Decision, Error> {
        match change {
            Change::Insert { relation, new } => self.insert(tx, tables, relation as usize, new),
            Change::Update { relation, old, new } => self.update(tx, tables, relation as usize, old, new),
            Change::Delete { relation, old } => self.delete(tx, tables, relation as usize, old),
            Change::Truncate { relations, restart_identity } => {
                let emptied: Vec<usize> = relations.into_iter().map(|relation| relation as usize).collect();
                Ok(self.truncate(tx, &emptied, restart_identity))
            }
        }
    }

    fn insert(&self, tx: &Transaction, tables: &[Table], table: usize, row: Row) -> Result<Decision, Error> {
        let seen = match tables[table].key() {
            Some(columns) => self.seen(table, tables, &Key::of(&row, columns), tx)?,
            None => self.table_seen(table, tx),
        };
        Ok(if seen { Decision::Skip } else { Decision::Apply(RowChange::Insert { table, row }) })
    }

    fn delete(&self, tx: &Transaction, tables: &[Table], table: usize, old: Row) -> Result<Decision, Error> {
        let Some(columns) = tables[table].key() else {
            return Ok(match self.table_seen(table, tx) {
                true => Decision::Skip,
                false => Decision::Apply(RowChange::DeleteWhole { table, old }),
            });
        };
        let key = Key::of(&old, columns);
        Ok(match self.seen(table, tables, &key, tx)? {
            true => Decision::Skip,
            false => Decision::Apply(RowChange::Delete { table, key }),
        })
    }

    fn update(
        &self,
        tx: &Transaction,
        tables: &[Table],
        table: usize,
        old: Option<Row>,
        row: Row,
    ) -> Result<Decision, Error> {
        let Some(columns) = tables[table].key() else {
            if self.table_seen(table, tx) {
                return Ok(Decision::Skip);
            }
            let old = old.ok_or_else(|| Error::NoIdentity { table: tables[table].name.clone() })?;
            return Ok(Decision::Apply(RowChange::UpdateWhole { table, old, row }));
        };
        let old_key = Key::of(old.as_ref().unwrap_or(&row), columns);
        let old_seen = self.seen(table, tables, &old_key, tx)?
            || (mutant::on(mutant::MERGE_CHUNK_WINS) && !self.settled);
        let moves = old_key.0.iter().zip(columns).any(|(old, &column)| *old != row[column]);
        if !moves {
            return Ok(match old_seen {
                true => Decision::Skip,
                false => Decision::Apply(RowChange::Update { table, key: old_key, row }),
            });
        }
        let new_key = Key::of(&row, columns);
        // A row that moves is a delete under the old key's cut and an insert under the new key's.
        let new_seen = self.seen(table, tables, &new_key, tx)?;
        Ok(match (old_seen, new_seen) {
            (true, true) => Decision::Skip,
            (false, false) => Decision::Apply(RowChange::Update { table, key: old_key, row }),
            (false, true) if mutant::on(mutant::MERGE_MOVE_LEAVES_OLD) => Decision::Skip,
            // Its old place was read before the move and its new place after it: only the old copy is left over.
            (false, true) => Decision::Apply(RowChange::Delete { table, key: old_key }),
            // Its old place was read after the move and its new place before it: no chunk has the row.
            (true, false)
                if !mutant::on(mutant::MERGE_MOVE_WITHOUT_FETCH)
                    && row
                        .iter()
                        .zip(&tables[table].columns)
                        .any(|(cell, column)| cell.is_unchanged() && !column.generated) =>
            {
                Decision::Fetch { table, key: new_key }
            }
            (true, false) => Decision::Apply(RowChange::Insert { table, row }),
        })
    }

    /// TRUNCATE empties what was there when it ran: every row whose cut does not contain it.
    fn truncate(&self, tx: &Transaction, emptied: &[usize], restart_identity: bool) -> Decision {
        let whole = |&table: &usize| {
            self.settled
                || mutant::on(mutant::MERGE_TRUNCATE_ALL)
                || (!self.rows.iter().any(|((of, _), cut)| *of == table && cut.contains(tx))
                    && match &self.tables[table] {
                        TableCuts::One(cut) => !cut.contains(tx),
                        TableCuts::Ranges { ranges, .. } => {
                            ranges.iter().all(|range| !range.cut.contains(tx))
                        }
                    })
        };
        if emptied.iter().all(whole) {
            return Decision::Bulk(vec![Step::Truncate { tables: emptied.to_vec(), restart_identity }]);
        }
        let steps: Vec<Step> = emptied.iter().flat_map(|&table| self.empty_unseen(tx, table)).collect();
        if steps.is_empty() { Decision::Skip } else { Decision::Bulk(steps) }
    }

    fn empty_unseen(&self, tx: &Transaction, table: usize) -> Vec<Step> {
        let except: Vec<Key> = self
            .rows
            .iter()
            .filter(|((of, _), cut)| *of == table && cut.contains(tx))
            .map(|((_, key), _)| key.clone())
            .collect();
        let delete = |after: Option<Key>, upto: Option<Key>| Step::DeleteRange {
            table,
            after,
            upto,
            except: except.clone(),
        };
        match &self.tables[table] {
            TableCuts::One(cut) if cut.contains(tx) => Vec::new(),
            TableCuts::One(_) => vec![delete(None, None)],
            TableCuts::Ranges { ranges, .. } => ranges
                .iter()
                .filter(|range| !range.cut.contains(tx))
                .map(|range| delete(range.after.clone(), range.upto.clone()))
                .collect(),
        }
    }

    /// For tables without a key, which are always read under one cut.
    fn table_seen(&self, table: usize, tx: &Transaction) -> bool {
        !self.settled
            && match &self.tables[table] {
                TableCuts::One(cut) => cut.contains(tx),
                TableCuts::Ranges { .. } => unreachable!("a table without a key has no key ranges"),
            }
    }
}

impl TableCuts {
    fn new(table: &Table, chunks: &[&Loaded]) -> Result<TableCuts, Error> {
        let incomplete = || Error::Incomplete { table: table.name.clone() };
        let first = chunks.first().ok_or_else(incomplete)?;
        if !matches!(first.chunk.range, Range::Keys { .. }) {
            return match crate::plan::is_complete(table, chunks) {
                true => Ok(TableCuts::One(first.cut.clone())),
                false => Err(incomplete()),
            };
        }
        if !crate::plan::is_complete(table, chunks) {
            return Err(incomplete());
        }
        let order = table.key_order().ok_or_else(incomplete)?.to_vec();
        let mut ranges: Vec<KeyRange> = chunks
            .iter()
            .filter_map(|loaded| match &loaded.chunk.range {
                Range::Keys { after, upto } => {
                    Some(KeyRange { after: after.clone(), upto: upto.clone(), cut: loaded.cut.clone() })
                }
                Range::Blocks { .. } | Range::Whole => None,
            })
            .collect();
        ranges.sort_by(|a, b| crate::plan::compare_after(a.after.as_ref(), b.after.as_ref(), &order));
        Ok(TableCuts::Ranges { order, ranges })
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod tests;
