//! At the end both sides have the same rows.

use crate::check::invariant;
use crate::tables::{Row, content};
use crate::world::Inner;

impl Inner {
    pub(crate) fn compare_sides(&mut self) {
        for table in 0..self.shapes.len() {
            let source: Vec<Row> = content(&self.source.visible[table]).into_iter().cloned().collect();
            let target: Vec<Row> = content(&self.target.tables[table]).into_iter().cloned().collect();
            let missing: Vec<&Row> = minus(&source, &target);
            if !missing.is_empty() {
                self.violated(invariant::NO_ROW_LOST, format!("t{table} lacks {missing:?}"));
            }
            let extra: Vec<&Row> = minus(&target, &source);
            if !extra.is_empty() {
                self.violated(invariant::NO_ROW_INVENTED, format!("t{table} has {extra:?} too many"));
            }
        }
    }
}

/// What `a` has more than `b`, both sorted; equal rows count.
fn minus<'a>(a: &'a [Row], b: &[Row]) -> Vec<&'a Row> {
    let mut rest = b.iter().peekable();
    let mut more = Vec::new();
    for row in a {
        while rest.next_if(|other| *other < row).is_some() {}
        if rest.next_if(|other| *other == row).is_none() {
            more.push(row);
        }
    }
    more
}
