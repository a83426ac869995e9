//! What is held for the target at a time stays within the slice's budget.

use connector::{RowChange, Step};
use model::Value;

/// A slice is closed by the change that reaches the budget, so it may be over by that one.
pub(crate) fn bound(slice_bytes: usize) -> usize {
    // One row with its key: five cells.
    const CHANGE: usize = 5 * 16 + 2 * 4 * 16;
    2 * slice_bytes + CHANGE
}

pub(crate) fn weight(steps: &[Step]) -> usize {
    let row = |row: &model::Row| row.iter().map(Value::weight).sum::<usize>();
    steps
        .iter()
        .map(|step| match step {
            Step::Net(net) => {
                net.deletes.iter().map(|key| row(&key.0)).sum::<usize>()
                    + net.updates.iter().map(|update| row(&update.key.0) + row(&update.row)).sum::<usize>()
                    + net.inserts.iter().map(row).sum::<usize>()
            }
            Step::Ordered(changes) => changes
                .iter()
                .map(|change| match change {
                    RowChange::Insert { row: new, .. } => row(new),
                    RowChange::Update { key, row: new, .. } => row(&key.0) + row(new),
                    RowChange::Delete { key, .. } => row(&key.0),
                    RowChange::UpdateWhole { old, row: new, .. } => row(old) + row(new),
                    RowChange::DeleteWhole { old, .. } => row(old),
                })
                .sum(),
            Step::Truncate { .. } | Step::DeleteRange { .. } => 0,
        })
        .sum()
}
