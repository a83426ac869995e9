//! Writes the journal to the target, exactly once and in order.
//!
//! Every target transaction is a whole number of source transactions, folded to their net effect, and carries the
//! progress with it; so each committed state of the target is a state that the source's log passed through. Catch-up
//! gathers many source transactions into one target transaction; strict writes what is there at once. While groups are
//! written in their lanes the next is assembled.
//!
//! A change that the target refuses is found by writing its stretch of the log again, one transaction at a time;
//! it goes to quarantine, its table is held back in the journal, and everything else goes on.

mod apart;
mod assemble;
mod isolate;
mod lanes;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use connector::{Applier, Hold, Owner, Reader, Record, Refusal, RowCut, Writer};
use model::{Catalog, Change, Key, Loaded, Position, TableName, Transaction, mutant};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::capture::chain;
use crate::error::Error;
use crate::journal::{Entry, Journal};
use crate::merge::{Cuts, Decision};
use crate::meter::Meter;
use crate::plan::fingerprint;
use crate::relation::Relations;
use crate::retry::{Backoff, can_retry};
use crate::settings::{ApplyMode, Settings};
use assemble::Assembly;
use lanes::{LaneError, Lanes};

/// What apply works on, and what it knows.
pub(crate) struct Applying {
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) writer: Arc<dyn Writer>,
    pub(crate) owner: Owner,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) settings: Settings,
    pub(crate) journal: Journal,
    pub(crate) captured: watch::Receiver<Option<Position>>,
    /// What this waits for `captured` to reach.
    pub(crate) awaited: watch::Sender<Option<Position>>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) cuts: Cuts,
    /// Every transaction that any cut contains lies at or before this position.
    pub(crate) settled: Position,
    /// The last transaction that the target is known to have.
    pub(crate) known: u64,
    /// The fingerprint of the chunks that the cuts were made from.
    pub(crate) chunks: u64,
    /// Tables that are held back, by catalog index, with the first transaction that is missing there.
    pub(crate) held: BTreeMap<usize, u64>,
    /// Held tables that this process has tried, or found, to be refused.
    pub(crate) tried: HashSet<usize>,
    /// The schema is finished.
    pub(crate) finished: bool,
    /// Journal records up to this transaction are not needed any more.
    pub(crate) trimmable: Arc<AtomicU64>,
    /// Up to this transaction the log is written one transaction at a time, to find what the target refuses.
    pub(crate) isolate_upto: u64,
    /// Up to this transaction groups are not written side by side, as that has failed.
    pub(crate) alone_upto: u64,
}

/// When [`Applying::run`] returns.
#[derive(Clone, Debug)]
pub(crate) enum Goal {
    /// Everything that any cut contains has been passed.
    Settled,
    /// Everything up to this position is applied.
    Position(Position),
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Stopped,
    Reached,
}

/// Why one connection's work ended before the goal.
enum Interrupt {
    Failed(Error),
    /// The target refused something among the transactions up to `upto`.
    Refused {
        refusal: Box<Refusal>,
        upto: u64,
    },
    /// A row must be fetched before this transaction can be applied.
    Fetch {
        table: usize,
        key: Key,
        transaction: Transaction,
    },
}

impl<E: Into<Error>> From<E> for Interrupt {
    fn from(error: E) -> Interrupt {
        Interrupt::Failed(error.into())
    }
}

impl Applying {
    pub(crate) async fn run(&mut self, goal: Goal) -> Result<Ended, Error> {
        let mut backoff = Backoff::new();
        loop {
            let before = self.trimmable.load(Ordering::Relaxed);
            let interrupt = match self.session(&goal).await {
                // Another session tries the held tables that could not be tried in this one.
                Ok(Ended::Reached)
                    if self.known > 0 && self.held.keys().any(|table| !self.tried.contains(table)) =>
                {
                    continue;
                }
                Ok(ended) => return Ok(ended),
                Err(interrupt) => interrupt,
            };
            if self.trimmable.load(Ordering::Relaxed) > before {
                backoff.reset();
            }
            let result = match interrupt {
                Interrupt::Failed(error) => Err(error),
                Interrupt::Refused { refusal, upto } => {
                    tracing::warn!(
                        table = %self.catalog.tables[refusal.table].name,
                        error = %chain(&refusal.error),
                        "the target refused a change; looking for it one transaction at a time"
                    );
                    self.isolate_upto = upto;
                    Ok(())
                }
                Interrupt::Fetch { table, key, transaction } => self.fetch(table, &key, &transaction).await,
            };
            match result {
                Ok(()) => {}
                Err(Error::Connector(error)) if can_retry(&error) => {
                    tracing::warn!(error = %chain(&error), "apply lost the target; trying again");
                    self.meter.retrying("apply", Some(chain(&error)));
                    tokio::select! {
                        biased;
                        _ = self.stop.wait_for(|stop| *stop) => return Ok(Ended::Stopped),
                        () = backoff.wait() => {}
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Works over one connection until the goal, a stop, or an interruption.
    async fn session(&mut self, goal: &Goal) -> Result<Ended, Interrupt> {
        // Opening a session takes longer than what is asked of it, so all are opened at the same time. The ledger is read when
        // they are open, and not before: a target that is put back ends them, and afterwards the ledger shows it.
        let mut others = JoinSet::new();
        for _ in 1..self.settings.apply_lanes.min(self.writer.lanes_max()) {
            let (writer, owner) = (Arc::clone(&self.writer), self.owner.clone());
            let catalog = Arc::clone(&self.catalog);
            others.spawn(async move { writer.applier(&owner, &catalog).await });
        }
        let mut applier = self.writer.applier(&self.owner, &self.catalog).await?;
        let mut appliers = Vec::new();
        while let Some(opened) = others.join_next().await {
            let failed = |error: JoinError| Error::Task { what: "opens a lane", reason: error.to_string() };
            appliers.push(opened.map_err(failed)??);
        }
        let mut applied = applier.record().applied();
        if !mutant::on(mutant::APPLY_BELIEVES_MEMORY) {
            self.adopt(applier.record(), &self.writer.ledger(&self.owner).await?)?;
        }
        if mutant::on(mutant::APPLY_GUESSES_OUTCOME) && self.trimmable.load(Ordering::Relaxed) > 0 {
            applied = self.trimmable.load(Ordering::Relaxed);
        }
        self.note_trimmable(applied);
        self.meter.retrying("apply", None);
        self.retry_held(applier.as_mut(), applied).await?;
        while applied < self.isolate_upto {
            if *self.stop.borrow() {
                return Ok(Ended::Stopped);
            }
            applied = self.isolate(applier.as_mut(), applied + 1).await?;
        }
        appliers.push(applier);
        let lanes = Lanes::open(
            appliers,
            &self.catalog,
            applied,
            self.alone_upto,
            self.settings.group_changes,
            &self.meter,
        );
        let ended = self.follow(lanes, goal).await?;
        if ended == Ended::Reached && matches!(goal, Goal::Settled) && self.may_settle() {
            self.settle().await?;
        }
        Ok(ended)
    }

    /// Puts on record that all cuts are passed, as the rest of the schema relies on it. The session has looked at everything
    /// that this says: a target that is put back ends it, and one that was put back earlier does not get the record. With
    /// tables held back the cuts stay in force: the held changes still have to be decided by them.
    async fn settle(&mut self) -> Result<(), Error> {
        let mut applier = self.writer.applier(&self.owner, &self.catalog).await?;
        if !mutant::on(mutant::APPLY_SETTLES_BLINDLY) {
            self.adopt(applier.record(), &self.writer.ledger(&self.owner).await?)?;
        }
        if self.may_settle() {
            applier.settle().await?;
            self.cuts.settle();
        }
        Ok(())
    }

    fn may_settle(&self) -> bool {
        self.held.is_empty() || mutant::on(mutant::APPLY_SETTLES_HELD)
    }

    /// Takes over what the target has on record: of a hold or a fetched row whose answer was lost this process knows
    /// nothing yet. A target that was put back lost chunks and changes that it takes for done: then it must begin anew.
    fn adopt(&mut self, record: &Record, ledger: &[Loaded]) -> Result<(), Error> {
        let applied = record.progress.as_ref().map_or(0, |progress| progress.seq);
        if applied < self.known {
            let what = format!("transaction {} was applied, and the record says {applied}", self.known);
            return Err(connector::Error::went_back(what).into());
        }
        if fingerprint(ledger) != self.chunks {
            return Err(connector::Error::went_back("chunks that were copied").into());
        }
        if self.finished && !record.finished {
            return Err(connector::Error::went_back("the schema that was finished").into());
        }
        let index = |name: &TableName| self.catalog.position(name);
        self.held =
            record.holds.iter().filter_map(|hold| Some((index(&hold.table)?, hold.from_seq))).collect();
        for hold in &record.holds {
            if let Some(table) = index(&hold.table) {
                self.meter.quarantined(table, hold.clone(), None);
            }
        }
        self.cuts.forget_rows();
        let rows = record.row_cuts.iter().filter_map(|row| Some((index(&row.table)?, row)));
        for (table, row) in rows {
            self.cuts.fetched(table, row.key.clone(), row.cut.clone());
        }
        Ok(())
    }

    async fn follow(&mut self, mut lanes: Lanes, goal: &Goal) -> Result<Ended, Interrupt> {
        let mut stop = self.stop.clone();
        let mut durable = self.journal.durable();
        let mut captured = self.captured.clone();
        self.awaited.send_replace(self.asked(goal).cloned());
        let mut applied = lanes.applied();
        let resumed = u64::from(!mutant::on(mutant::APPLY_RESUMES_AT_LAST) || *applied.borrow() == 0);
        let mut cursor = self.journal.cursor(*applied.borrow() + resumed)?;
        let mut assembly = Assembly::default();
        let mut entries = Vec::new();
        let mut linger = Instant::now();
        let mut due = None;
        loop {
            if *stop.borrow() {
                // What is assembled and not committed is written again later; nothing is owed.
                lanes.abandon().await;
                return Ok(Ended::Stopped);
            }
            // Once: what is believed to be reached and what is known to be there are the same.
            let now = *applied.borrow();
            self.note_trimmable(now);
            if self.reached(goal, &durable, now, &mut due) {
                lanes.abandon().await;
                return Ok(Ended::Reached);
            }
            let more = cursor.try_next(&mut entries, READ_BYTES)?;
            for entry in entries.drain(..) {
                if let Err(interrupt) = assembly.take_in(self, entry) {
                    // What was sent before is finished first: it was decided under the cuts as they were.
                    return Err(match lanes.close().await {
                        Ok(()) => interrupt,
                        Err(error) => self.side_by_side_failed(error, assembly.last_seq),
                    });
                }
                let full = assembly.weight() >= self.settings.slice_bytes
                    || (assembly.at_boundary()
                        && (assembly.group_rows() >= lanes.group_rows()
                            || assembly.group_changes >= self.settings.group_changes
                            || assembly.transactions >= GROUP_MAX));
                if full && !lanes.send(assembly.slice()).await {
                    return Err(self.side_by_side_failed(lanes.failed().await, assembly.last_seq));
                }
            }
            if assembly.is_fresh() {
                linger = Instant::now() + LINGER;
            }
            let ripe = !more && (Instant::now() >= linger || self.is_near(*applied.borrow()));
            if ripe && assembly.at_boundary() && !assembly.is_fresh() && !lanes.send(assembly.slice()).await {
                return Err(self.side_by_side_failed(lanes.failed().await, assembly.last_seq));
            }
            if lanes.has_ended() {
                return Err(self.side_by_side_failed(lanes.failed().await, assembly.last_seq));
            }
            if !more {
                let waiting = !assembly.is_fresh();
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => {}
                    () = lanes.ended() => {}
                    _ = applied.changed() => {}
                    _ = durable.changed() => {}
                    _ = captured.changed() => {}
                    () = tokio::time::sleep_until(linger), if waiting => {}
                }
            }
        }
    }

    /// What is written side by side may wait for each other on the target in ways that are not seen from here (an index
    /// that was added by hand); so these transactions are written one group at a time before that is tried again.
    fn side_by_side_failed(&mut self, error: LaneError, upto: u64) -> Interrupt {
        self.alone_upto = self.alone_upto.max(upto);
        match error {
            LaneError::Refused(refusal) => Interrupt::Refused { refusal, upto },
            LaneError::Failed(error) => Interrupt::Failed(error),
        }
    }

    /// Near the end of the log what is there is written at once; when there is much to catch up with, more is gathered.
    fn is_near(&self, applied: u64) -> bool {
        match self.settings.apply {
            ApplyMode::Strict => true,
            ApplyMode::CatchUp => false,
            ApplyMode::Auto => self.journal.bytes_after(applied) < CATCH_UP_BYTES,
        }
    }

    fn asked<'a>(&'a self, goal: &'a Goal) -> Option<&'a Position> {
        match goal {
            Goal::Never => None,
            Goal::Settled => Some(&self.settled),
            Goal::Position(position) => Some(position),
        }
    }

    /// `due` is the last transaction that the goal asks for, once that is known. A busy source goes on meanwhile.
    fn reached(
        &self,
        goal: &Goal,
        durable: &watch::Receiver<u64>,
        applied: u64,
        due: &mut Option<u64>,
    ) -> bool {
        let Some(position) = self.asked(goal) else { return false };
        // In this order: what was captured up to the position is durable by now, under a number no higher.
        let captured = self.captured.borrow().as_ref().is_some_and(|captured| captured >= position)
            || (mutant::on(mutant::APPLY_SETTLES_EARLY) && matches!(goal, Goal::Settled));
        captured && applied >= *due.get_or_insert_with(|| *durable.borrow())
    }

    fn note_trimmable(&mut self, applied: u64) {
        self.known = applied;
        let first_held =
            self.held.values().min().copied().filter(|_| !mutant::on(mutant::JOURNAL_TRIMS_HELD));
        let upto = first_held.map_or(applied, |first| applied.min(first.saturating_sub(1)));
        self.trimmable.store(upto, Ordering::Relaxed);
    }

    /// Reads the row that is missing alone, under a cut that contains `transaction`, and puts it on record; with it those
    /// that the log will ask for soon, as each time costs reading the log again from the last commit.
    ///
    /// The row's earlier changes that are not written yet are contained in that cut as well, as they came before on
    /// the same row; decided again, they are skipped for this key.
    async fn fetch(&mut self, table: usize, key: &Key, transaction: &Transaction) -> Result<(), Error> {
        let planned = &self.catalog.tables[table];
        let first = loop {
            let fetched = self.reader.fetch(planned, key).await?;
            if fetched.cut.contains(transaction) {
                break fetched;
            }
            // The log delivers a commit before a snapshot shows it while the source waits for a standby.
            self.meter.retrying(
                "apply",
                Some(format!("waiting for transaction {} to become visible", transaction.id)),
            );
            tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
            }
        };
        self.meter.retrying("apply", None);
        let mut rows = vec![(table, key.clone(), first)];
        for (table, key, transaction) in self.missing_soon().await? {
            if *self.stop.borrow() {
                break;
            }
            if (table, &key) == (rows[0].0, &rows[0].1) {
                continue;
            }
            match self.reader.fetch(&self.catalog.tables[table], &key).await {
                Ok(fetched) if fetched.cut.contains(&transaction) => rows.push((table, key, fetched)),
                // No snapshot shows it yet; it is asked for again when its turn comes.
                Ok(_) => {}
                // Only the first row is needed now. What stands in another's way is said when that one's turn comes.
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "a row could not be fetched ahead of its turn");
                    break;
                }
            }
        }
        let settled = self.reader.position().await?;
        // Before the writes: they may land without an answer, and the next session takes their cuts over from the record.
        self.settled = self.settled.clone().max(settled);
        let mut applier = self.writer.applier(&self.owner, &self.catalog).await?;
        if !mutant::on(mutant::APPLY_FETCHES_BLINDLY) {
            self.adopt(applier.record(), &self.writer.ledger(&self.owner).await?)?;
        }
        for (table, key, fetched) in rows {
            let name = self.catalog.tables[table].name.clone();
            let cut = RowCut { table: name, key, cut: fetched.cut, settled: self.settled.clone() };
            applier.write_fetched(table, fetched.row.as_ref(), &cut).await?;
            self.cuts.fetched(table, cut.key, cut.cut);
        }
        Ok(())
    }

    /// The rows that the log's next stretch will want fetched under the cuts as they are, each with the first transaction
    /// that does.
    async fn missing_soon(&self) -> Result<Vec<(usize, Key, Transaction)>, Error> {
        let mut cursor = self.journal.cursor(self.known + 1)?;
        let (mut relations, mut entries) = (Relations::default(), Vec::new());
        let (mut open, mut found, mut seen) = (None, Vec::new(), HashSet::new());
        for _ in 0..MISSING_READS {
            let more = cursor.try_next(&mut entries, READ_BYTES)?;
            for entry in entries.drain(..) {
                match (entry, open) {
                    (Entry::Begin(transaction), _) => open = Some(transaction),
                    // What must stop the migration there is said when everything before it has been applied.
                    (Entry::Relation(relation), _) if relations.learn(&relation, &self.catalog).is_err() => {
                        return Ok(found);
                    }
                    (Entry::Change(change @ Change::Update { old: Some(_), .. }), Some(transaction)) => {
                        let Ok(change) = relations.arrange(change) else { return Ok(found) };
                        let decision = self.cuts.decide(&transaction, change, &self.catalog.tables)?;
                        if let Decision::Fetch { table, key } = decision
                            && !self.held.contains_key(&table)
                            && seen.insert((table, key.clone()))
                        {
                            found.push((table, key, transaction));
                        }
                    }
                    (Entry::Relation(_) | Entry::Change(_) | Entry::Commit { .. }, _) => {}
                }
            }
            if !more || found.len() >= MISSING_MAX {
                break;
            }
            // Reading is not waiting: the other parts of the feed get their turn here.
            tokio::task::yield_now().await;
        }
        Ok(found)
    }

    /// Tries once more to bring held tables up to the others.
    async fn retry_held(&mut self, applier: &mut dyn Applier, applied: u64) -> Result<(), Interrupt> {
        let held: Vec<(usize, u64)> = self.held.iter().map(|(&table, &seq)| (table, seq)).collect();
        for (table, from_seq) in held {
            // A hold on what comes next has nothing to replay yet: it is tried when the rest has been applied.
            if from_seq > applied || self.tried.contains(&table) {
                if mutant::on(mutant::APPLY_FORGETS_HOLD) {
                    self.held.remove(&table);
                }
                continue;
            }
            match self.replay_held(applier, table, from_seq, applied).await {
                Ok(()) => {
                    self.held.remove(&table);
                    self.meter.released(table);
                    tracing::info!(table = %self.catalog.tables[table].name, "the table is no longer held back");
                }
                Err(Interrupt::Refused { refusal, .. }) => {
                    applier.rollback().await?;
                    self.tried.insert(table);
                    tracing::warn!(
                        table = %self.catalog.tables[table].name,
                        error = %chain(&refusal.error),
                        "the change in quarantine is still refused; the table stays held back"
                    );
                    let hold = Hold { table: self.catalog.tables[table].name.clone(), from_seq };
                    self.meter.quarantined(table, hold, None);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }
}

/// Rows fetched alone at a time: a round trip to the source each, so a second or so.
const MISSING_MAX: usize = 500;

/// The log is searched so many times [`READ_BYTES`] ahead for them: 64 MiB, a second or less.
const MISSING_READS: usize = 64;

/// Entries are read from the journal in pieces of about this size.
const READ_BYTES: usize = 1 << 20;

/// With more than this to apply the target is not near: at a few hundred bytes a change, several thousand changes.
const CATCH_UP_BYTES: u64 = 1 << 20;

/// A folded slice that is not full waits this long for more: a set-based statement costs about the same for ten rows
/// as for a hundred, and capture would otherwise be followed in crumbs.
const LINGER: Duration = Duration::from_millis(100);

/// No more source transactions than this in one target transaction, so that the progress is seen to move.
const GROUP_MAX: u64 = 20_000;
