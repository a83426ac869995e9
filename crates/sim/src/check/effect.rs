//! One effect for every change: a row on the target only ever becomes newer, and no change writes it twice.

use std::collections::BTreeMap;

use crate::tables::{Row, Rows, Shape};

/// The newest version that the target has shown of each row that has a key.
#[derive(Debug)]
pub(super) struct Effects {
    shapes: Vec<Shape>,
    newest: Vec<BTreeMap<i64, u64>>,
}

impl Effects {
    pub(super) fn new(shapes: &[Shape]) -> Effects {
        Effects { shapes: shapes.to_vec(), newest: vec![BTreeMap::new(); shapes.len()] }
    }

    /// Rows of a chunk: from here on only what is newer may replace them.
    pub(super) fn loaded(&mut self, table: usize, rows: &[Row]) {
        if self.shapes[table].keyed {
            self.newest[table].extend(rows.iter().map(|row| (row.id, row.version)));
        }
    }

    /// Rows of applied changes.
    pub(super) fn written(&mut self, rows: &[(usize, Row)]) -> Result<(), String> {
        for (table, row) in rows.iter().filter(|(table, _)| self.shapes[*table].keyed) {
            let before = self.newest[*table].insert(row.id, row.version);
            if let Some(before) = before.filter(|before| *before >= row.version) {
                return Err(format!(
                    "row {} of t{table} was written in version {} after version {before}",
                    row.id, row.version
                ));
            }
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, table: usize, id: i64) {
        self.newest[table].remove(&id);
    }

    pub(super) fn emptied(&mut self, table: usize) {
        self.newest[table].clear();
    }

    pub(super) fn restart(&mut self, tables: &[Rows]) {
        for (table, rows) in tables.iter().enumerate() {
            self.emptied(table);
            let rows: Vec<Row> = rows.values().cloned().collect();
            self.loaded(table, &rows);
        }
    }
}
