//! A copy of tables in memory that takes captured changes, and objects to any that does not fit exactly.

use std::collections::HashMap;

use connector::{Block, Capture, ChunkStream, Event, Format, Reader, Slicing};
use model::{Catalog, Change, Cut, Relation, Row, TableName, Value};

/// The rows of each table, in no order; generated columns are left out.
pub(crate) struct Replica {
    pub(crate) tables: HashMap<TableName, Vec<Row>>,
    relations: HashMap<u32, Relation>,
    pub(crate) changes: usize,
}

impl Replica {
    /// Copies all the tables under one cut.
    pub(crate) async fn copy(reader: &dyn Reader, catalog: &Catalog) -> (Replica, u64) {
        let tables: Vec<_> = catalog.tables.iter().collect();
        let wave = reader.wave(&tables, 2).await.unwrap();
        let Cut::Prefix { order } = *wave.cut() else { panic!("SQLite cuts are prefixes") };
        let mut copied = HashMap::new();
        for table in &catalog.tables {
            let mut rows = Vec::new();
            for range in wave.plan(table, &Slicing::OneCut, 64 << 10).await.unwrap() {
                let mut stream = wave.read(table, &range, Format::Rows).await.unwrap();
                rows.extend(drain(&mut *stream).await);
            }
            for row in &mut rows {
                row.retain(|value| !value.is_unchanged());
            }
            copied.insert(table.name.clone(), rows);
        }
        (Replica { tables: copied, relations: HashMap::new(), changes: 0 }, order)
    }

    /// Follows the log up to this position; transactions in the cut are skipped.
    pub(crate) async fn follow(&mut self, capture: &mut dyn Capture, cut: u64, upto: u64) {
        let mut skips = false;
        loop {
            let mut events = Vec::new();
            capture.next(&mut events).await.unwrap();
            for event in events {
                match event {
                    Event::Begin(transaction) => skips = transaction.order <= cut,
                    Event::Relation(relation) => {
                        self.relations.insert(relation.id, relation);
                    }
                    Event::Change(change) if !skips => self.apply(change),
                    Event::Change(_) => {}
                    Event::Commit { position } | Event::Idle { position } if position.order >= upto => return,
                    Event::Commit { .. } | Event::Idle { .. } => {}
                }
            }
        }
    }

    fn apply(&mut self, change: Change) {
        self.changes += 1;
        let id = match &change {
            Change::Insert { relation, .. }
            | Change::Update { relation, .. }
            | Change::Delete { relation, .. } => *relation,
            Change::Truncate { .. } => panic!("SQLite has no TRUNCATE"),
        };
        let relation = &self.relations[&id];
        let key: Vec<usize> = (0..relation.columns.len()).filter(|&at| relation.columns[at].key).collect();
        let rows = self.tables.get_mut(&relation.table).unwrap();
        let place = |rows: &[Row], wanted: &Row| {
            let found: Vec<usize> = (0..rows.len())
                .filter(|&at| key.iter().all(|&column| rows[at][column] == wanted[column]))
                .collect();
            assert!(
                found.len() == 1 || relation.whole_old_row && !found.is_empty(),
                "{} rows are {wanted:?}",
                found.len()
            );
            found[0]
        };
        match change {
            Change::Insert { new, .. } => {
                let taken = rows.iter().any(|row| key.iter().all(|&column| row[column] == new[column]));
                assert!(!taken || relation.whole_old_row, "{new:?} is there already");
                rows.push(new);
            }
            Change::Update { old, new, .. } => {
                let at = place(rows, old.as_ref().unwrap_or(&new));
                rows[at] = new;
            }
            Change::Delete { old, .. } => {
                let at = place(rows, &old);
                rows.swap_remove(at);
            }
            Change::Truncate { .. } => unreachable!(),
        }
    }

    pub(crate) fn sorted(&self) -> Vec<(String, Vec<String>)> {
        let mut tables: Vec<_> = self
            .tables
            .iter()
            .map(|(name, rows)| {
                let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
                rows.sort();
                (name.to_string(), rows)
            })
            .collect();
        tables.sort();
        tables
    }
}

pub(crate) async fn drain(stream: &mut dyn ChunkStream) -> Vec<Row> {
    let mut rows: Vec<Vec<Value>> = Vec::new();
    while let Some(Block::Rows(block)) = stream.next().await.unwrap() {
        rows.extend(block);
    }
    assert_eq!(stream.rows(), rows.len() as u64);
    rows
}
