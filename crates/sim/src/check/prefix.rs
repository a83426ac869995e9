//! Once all cuts are passed, what the target shows is what the source's log had come to at the target's position.

use crate::check::invariant;
use crate::source::{Source, replay};
use crate::tables::{Rows, content};
use crate::world::Inner;

/// The source as its log tells it, up to some transaction.
#[derive(Debug)]
pub(super) struct Shadow {
    tables: Vec<Rows>,
    /// Transactions of the log that are in it.
    replayed: usize,
}

impl Shadow {
    pub(super) fn new(source: &Source) -> Shadow {
        Shadow { tables: vec![Rows::new(); source.visible.len()], replayed: 0 }
    }

    pub(super) fn restart(&mut self) {
        self.tables.iter_mut().for_each(Rows::clear);
        self.replayed = 0;
    }

    fn advance(&mut self, source: &Source, upto: u64) {
        while let Some(next) = source.ever.get(self.replayed).filter(|next| next.begin < upto) {
            for change in &next.changes {
                replay(change, &mut self.tables);
            }
            self.replayed += 1;
        }
    }
}

impl Inner {
    pub(super) fn compare_with_prefix(&mut self, held: &[usize]) {
        let Some(upto) = self.target.progress.as_ref().map(|progress| progress.position.order) else {
            return;
        };
        self.checks.shadow.advance(&self.source, upto);
        // Chunks of a source that has forgotten something fit no log; such a migration must end with a refusal.
        if upto < self.checks.settled || self.failed_over {
            return;
        }
        let differs = (0..self.shapes.len())
            .filter(|table| !held.contains(table))
            .find(|&table| content(&self.target.tables[table]) != content(&self.checks.shadow.tables[table]));
        if let Some(table) = differs {
            let what = format!(
                "at @{upto} t{table} is {:?} and was {:?} on the source",
                content(&self.target.tables[table]),
                content(&self.checks.shadow.tables[table])
            );
            self.violated(invariant::PREFIX, what);
        }
    }
}
