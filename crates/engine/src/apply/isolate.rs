//! Finds the change that the target refuses, puts it into quarantine, and holds its table back.

use connector::{Applier, ApplyError, ErrorKind, Hold, Quarantined, Refusal, RowChange, Step};
use model::{Row, Value};
use xxhash_rust::xxh3::Xxh3;

use super::assemble::Assembly;
use super::lanes::Slice;
use super::{Applying, Interrupt, READ_BYTES};
use crate::capture::chain;

impl Applying {
    /// Writes the one transaction `seq`, change by change, and returns its number. What is refused is held back;
    /// the rest of the transaction is written.
    pub(super) async fn isolate(&mut self, applier: &mut dyn Applier, seq: u64) -> Result<u64, Interrupt> {
        loop {
            let refusal = match self.write_one(applier, seq, true).await {
                Ok(()) => return Ok(seq),
                Err(OneFailed::Interrupt(interrupt)) => return Err(interrupt),
                Err(OneFailed::Refused { refusal, step }) => (refusal, step),
            };
            applier.rollback().await?;
            // A swap of unique values that the source checked at the end of a statement is refused row by row
            // where the target checks at once; its net effect is not.
            if refusal.0.error.kind == ErrorKind::Refused {
                match self.write_one(applier, seq, false).await {
                    Ok(()) => return Ok(seq),
                    Err(OneFailed::Interrupt(interrupt)) => return Err(interrupt),
                    Err(OneFailed::Refused { .. }) => applier.rollback().await?,
                }
            }
            self.quarantine(applier, seq, refusal).await?;
        }
    }

    /// Writes the changes of one held table between `from_seq` and `upto`, in one target transaction with the end of
    /// the hold.
    pub(super) async fn replay_held(
        &self,
        applier: &mut dyn Applier,
        table: usize,
        from_seq: u64,
        upto: u64,
    ) -> Result<(), Interrupt> {
        let refused = |error| match error {
            ApplyError::Refused(refusal) => Interrupt::Refused { refusal: Box::new(refusal), upto },
            ApplyError::Failed(error) => error.into(),
        };
        let Some(progress) = applier.record().progress.clone() else { return Ok(()) };
        if from_seq <= upto {
            let mut cursor = self.journal.cursor(from_seq)?;
            let mut assembly = Assembly::new(true, Some(table));
            let mut entries = Vec::new();
            loop {
                cursor.try_next(&mut entries, READ_BYTES)?;
                let mut done = false;
                for entry in entries.drain(..) {
                    assembly.take_in(self, entry)?;
                    done = assembly.at_boundary() && assembly.last_seq == upto;
                    if done || assembly.weight() >= self.settings.slice_bytes {
                        applier.write(&assembly.slice().steps).await.map_err(refused)?;
                    }
                    if done {
                        break;
                    }
                }
                if done {
                    break;
                }
            }
        }
        applier.release_hold(&self.catalog.tables[table].name).await?;
        applier.commit(progress.seq, &progress).await?;
        Ok(())
    }

    async fn write_one(&self, applier: &mut dyn Applier, seq: u64, ordered: bool) -> Result<(), OneFailed> {
        let mut cursor = self.journal.cursor(seq)?;
        let mut assembly = Assembly::new(ordered, None);
        let mut entries = Vec::new();
        loop {
            cursor.try_next(&mut entries, READ_BYTES)?;
            for entry in entries.drain(..) {
                assembly.take_in(self, entry)?;
                if assembly.transactions == 0 && assembly.weight() < self.settings.slice_bytes {
                    continue;
                }
                let Slice { steps, commit, .. } = assembly.slice();
                for step in steps.into_iter().flat_map(few) {
                    // One step a call, so that the refusal's index is into its changes.
                    match applier.write(std::slice::from_ref(&step)).await {
                        Ok(()) => {}
                        Err(ApplyError::Refused(refusal)) => {
                            return Err(OneFailed::Refused { refusal, step });
                        }
                        Err(ApplyError::Failed(error)) => return Err(error.into()),
                    }
                }
                if let Some(commit) = commit {
                    applier.commit(seq - 1, &commit.progress).await?;
                    self.meter.applied(
                        &commit.progress,
                        commit.committed_us,
                        commit.transactions,
                        &commit.changes,
                    );
                    return Ok(());
                }
            }
        }
    }

    async fn quarantine(
        &mut self,
        applier: &mut dyn Applier,
        seq: u64,
        (refusal, step): (Refusal, Step),
    ) -> Result<(), Interrupt> {
        let table = &self.catalog.tables[refusal.table];
        let change = match (&step, refusal.change) {
            (Step::Ordered(changes), Some(at)) => changes.get(at),
            _ => None,
        };
        let position = self.position_of(seq)?;
        let quarantined = Quarantined {
            table: table.name.clone(),
            seq,
            position,
            operation: change.map_or("bulk", RowChange::operation),
            key: change.map_or_else(String::new, |change| key(change, table.key())),
            payload_hash: change.map_or(0, payload_hash),
            statement: refusal.statement,
            error: chain(&refusal.error),
        };
        tracing::error!(
            table = %quarantined.table,
            seq,
            key = %quarantined.key,
            error = %quarantined.error,
            "the target refused a change; it is in quarantine and its table is held back"
        );
        applier.hold(&quarantined, seq).await?;
        self.held.insert(refusal.table, seq);
        self.tried.insert(refusal.table);
        let hold = Hold { table: table.name.clone(), from_seq: seq };
        self.meter.quarantined(refusal.table, hold, Some(quarantined));
        Ok(())
    }

    fn position_of(&self, seq: u64) -> Result<model::Position, Interrupt> {
        let mut cursor = self.journal.cursor(seq)?;
        let mut entries = Vec::new();
        loop {
            cursor.try_next(&mut entries, READ_BYTES)?;
            for entry in entries.drain(..) {
                if let crate::journal::Entry::Commit { position, .. } = entry {
                    return Ok(position);
                }
            }
        }
    }
}

/// Ordered changes a few at a time: a writer may take a long run of inserts in one statement, and could then not say
/// which of them was refused.
fn few(step: Step) -> Vec<Step> {
    match step {
        Step::Ordered(changes) => changes.chunks(8).map(|few| Step::Ordered(few.to_vec())).collect(),
        other => vec![other],
    }
}

enum OneFailed {
    Interrupt(Interrupt),
    Refused { refusal: Refusal, step: Step },
}

impl<E: Into<Interrupt>> From<E> for OneFailed {
    fn from(error: E) -> OneFailed {
        OneFailed::Interrupt(error.into())
    }
}

fn key(change: &RowChange, columns: Option<&[usize]>) -> String {
    match (change, columns) {
        (RowChange::Update { key, .. } | RowChange::Delete { key, .. }, _) => key.to_string(),
        (RowChange::Insert { row, .. }, Some(columns)) => model::Key::of(row, columns).to_string(),
        (RowChange::Insert { row, .. }, None)
        | (RowChange::UpdateWhole { old: row, .. } | RowChange::DeleteWhole { old: row, .. }, _) => {
            model::Key(row.clone()).to_string()
        }
    }
}

fn payload_hash(change: &RowChange) -> u64 {
    let mut hash = Xxh3::new();
    let mut add = |row: &Row| {
        for cell in row {
            let (tag, bytes): (u8, &[u8]) = match cell {
                Value::Null => (0, &[]),
                Value::Unchanged => (1, &[]),
                Value::Text(bytes) => (2, bytes),
                Value::Blob(bytes) => (3, bytes),
                Value::Integer(integer) => (4, &integer.to_le_bytes()),
                Value::Real(real) => (5, &real.to_bits().to_le_bytes()),
            };
            hash.update(&[tag]);
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    };
    match change {
        RowChange::Insert { row, .. } => add(row),
        RowChange::Update { key, row, .. } => {
            add(&key.0);
            add(row);
        }
        RowChange::Delete { key, .. } => add(&key.0),
        RowChange::UpdateWhole { old, row, .. } => {
            add(old);
            add(row);
        }
        RowChange::DeleteWhole { old, .. } => add(old),
    }
    hash.digest()
}
