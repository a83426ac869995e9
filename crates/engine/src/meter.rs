//! Counts what is done and turns it into a [`Status`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connector::{Hold, Progress, Quarantined};
use model::{Catalog, Loaded, Position};
use tokio::time::Instant;

use crate::machine::Clock;
use crate::status::{Condition, Lag, Phase, Status, TablePhase, TableStatus, Throttle, Throughput};

/// Shared by the tasks of a feed; every method is short and holds no lock across an await.
pub(crate) struct Meter {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

struct Inner {
    status: Status,
    retrying: BTreeMap<&'static str, String>,
    /// What was done up to when, for rates over the last [`WINDOW`].
    samples: VecDeque<Sample>,
    rows_done: u64,
    bytes_done: u64,
    applied_seq: u64,
    applied_committed_us: i64,
    /// By table: chunks loaded, and chunks planned where that is known.
    chunks: HashMap<usize, (u64, Option<u64>)>,
}

impl Inner {
    /// Copied first where the last status still shows the tables as they are.
    fn table(&mut self, table: usize) -> &mut TableStatus {
        &mut Arc::make_mut(&mut self.status.tables)[table]
    }

    fn set_phase(&mut self, table: usize, phase: TablePhase) {
        if self.status.tables[table].phase != phase {
            self.table(table).phase = phase;
        }
    }
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    rows: u64,
    bytes: u64,
    captured_seq: u64,
    applied_seq: u64,
}

const WINDOW: Duration = Duration::from_secs(10);

impl Meter {
    pub(crate) fn new(name: &str, clock: Arc<dyn Clock>) -> Meter {
        Meter {
            clock,
            inner: Mutex::new(Inner {
                status: Status::new(name),
                retrying: BTreeMap::new(),
                samples: VecDeque::new(),
                rows_done: 0,
                bytes_done: 0,
                applied_seq: 0,
                applied_committed_us: 0,
                chunks: HashMap::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The counters are valid after any panic: each method leaves them consistent or as they were.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn planned(&self, catalog: &Catalog) {
        let tables = catalog
            .tables
            .iter()
            .map(|table| TableStatus {
                name: table.name.clone(),
                phase: TablePhase::Waiting,
                rows_copied: 0,
                rows_total: table.rows_estimate,
                bytes_copied: 0,
                bytes_total: table.bytes,
                applied_changes: 0,
                verified_position: None,
                dirty_ranges: 0,
                differences: 0,
            })
            .collect();
        self.lock().status.tables = Arc::new(tables);
    }

    /// What the target had when this process began.
    pub(crate) fn resumed(&self, progress: Option<&Progress>) {
        if let Some(progress) = progress {
            let mut inner = self.lock();
            inner.applied_seq = progress.seq;
            inner.status.applied_position = Some(progress.position.clone());
        }
    }

    pub(crate) fn phase(&self, phase: Phase) {
        let mut inner = self.lock();
        inner.status.phase = phase;
        if phase == Phase::Following {
            for table in Arc::make_mut(&mut inner.status.tables) {
                if table.phase != TablePhase::Held {
                    table.phase = TablePhase::Following;
                }
            }
        }
    }

    pub(crate) fn table_phase(&self, table: usize, phase: TablePhase) {
        self.lock().set_phase(table, phase);
    }

    /// Counts a chunk; `now` tells a chunk loaded by this process from one found on record.
    pub(crate) fn chunk(&self, table: usize, loaded: &Loaded, now: bool) {
        let mut inner = self.lock();
        inner.status.chunks_loaded += 1;
        let chunks = inner.chunks.entry(table).or_default();
        chunks.0 += 1;
        let complete = chunks.1 == Some(chunks.0);
        let row = inner.table(table);
        if complete {
            row.phase = TablePhase::Copied;
        }
        row.rows_copied += loaded.rows;
        row.bytes_copied += loaded.bytes;
        if now {
            inner.rows_done += loaded.rows;
            inner.bytes_done += loaded.bytes;
        }
    }

    /// A table that is copied under one cut has this many chunks.
    pub(crate) fn chunks_planned(&self, table: usize, chunks: usize) {
        self.lock().chunks.entry(table).or_default().1 = Some(chunks as u64);
    }

    pub(crate) fn reset(&self, table: usize) {
        let mut inner = self.lock();
        let (loaded, _) = inner.chunks.remove(&table).unwrap_or_default();
        inner.status.chunks_loaded -= loaded;
        let row = inner.table(table);
        row.rows_copied = 0;
        row.bytes_copied = 0;
    }

    /// A target transaction committed.
    pub(crate) fn applied(
        &self,
        progress: &Progress,
        committed_us: i64,
        transactions: u64,
        by_table: &HashMap<usize, u64>,
    ) {
        let mut inner = self.lock();
        inner.applied_seq = progress.seq;
        inner.applied_committed_us = committed_us;
        inner.status.applied_position = Some(progress.position.clone());
        inner.status.transactions_applied += transactions;
        for (&table, &changes) in by_table {
            inner.table(table).applied_changes += changes;
            inner.status.changes_applied += changes;
            inner.rows_done += changes;
        }
    }

    pub(crate) fn quarantined(&self, table: usize, hold: Hold, quarantined: Option<Quarantined>) {
        let mut inner = self.lock();
        inner.set_phase(table, TablePhase::Held);
        if !inner.status.holds.iter().any(|known| known.table == hold.table) {
            inner.status.holds.push(hold);
        }
        inner.status.quarantine.extend(quarantined);
    }

    pub(crate) fn released(&self, table: usize) {
        let mut inner = self.lock();
        let name = inner.status.tables[table].name.clone();
        inner.set_phase(table, TablePhase::Following);
        inner.status.holds.retain(|hold| hold.table != name);
    }

    /// Notes that a part of the feed is trying again, or (with `None`) that it works.
    pub(crate) fn retrying(&self, part: &'static str, error: Option<String>) {
        let mut inner = self.lock();
        match error {
            Some(error) => inner.retrying.insert(part, error),
            None => inner.retrying.remove(part),
        };
    }

    /// Why the copy is held back; `None` while it is not.
    pub(crate) fn throttle(&self, reason: Option<String>) {
        self.lock().status.throttle =
            Throttle { active: reason.is_some(), reason: reason.unwrap_or_default() };
    }

    pub(crate) fn source_position(&self, position: Position) {
        self.lock().status.source_position = Some(position);
    }

    /// The status now. `captured` and `journal_*` come from the journal.
    pub(crate) fn status(
        &self,
        captured: Option<Position>,
        captured_seq: u64,
        journal_bytes: u64,
        lag_bytes: u64,
    ) -> Status {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let now = Instant::now();
        while inner.samples.front().is_some_and(|sample| now - sample.at > WINDOW) {
            inner.samples.pop_front();
        }
        let sample = Sample {
            at: now,
            rows: inner.rows_done,
            bytes: inner.bytes_done,
            captured_seq,
            applied_seq: inner.applied_seq,
        };
        inner.samples.push_back(sample);
        let throughput = match inner.samples.front() {
            Some(first) if now > first.at => throughput(first, &sample),
            _ => Throughput::default(),
        };

        let behind = captured_seq.saturating_sub(inner.applied_seq);
        let seconds = match behind {
            0 => 0.0,
            _ => (self.clock.now_us() - inner.applied_committed_us).max(0) as f64 / 1e6,
        };
        let status = &mut inner.status;
        status.captured_position = captured.or(status.captured_position.take());
        status.lag = Lag {
            seconds: if inner.applied_committed_us == 0 { 0.0 } else { seconds },
            transactions: behind,
            bytes: if behind == 0 { 0 } else { lag_bytes },
        };
        status.journal_bytes = journal_bytes;
        status.throughput = throughput;
        status.eta_seconds = eta(status);
        status.retrying = inner.retrying.iter().next().map(|(part, error)| format!("{part}: {error}"));
        status.conditions = conditions(status);
        status.clone()
    }
}

fn throughput(first: &Sample, last: &Sample) -> Throughput {
    let seconds = (last.at - first.at).as_secs_f64();
    let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
    let arriving = rate(first.captured_seq, last.captured_seq) - rate(first.applied_seq, last.applied_seq);
    Throughput {
        rows_per_second: rate(first.rows, last.rows),
        bytes_per_second: rate(first.bytes, last.bytes),
        net_rows_per_second: rate(first.rows, last.rows) - arriving.max(0.0),
    }
}

fn eta(status: &Status) -> Option<u64> {
    match status.phase {
        Phase::Copying if status.throughput.bytes_per_second > 0.0 => {
            let left: u64 = status
                .tables
                .iter()
                .filter(|table| matches!(table.phase, TablePhase::Waiting | TablePhase::Copying))
                .map(|table| table.bytes_total.saturating_sub(table.bytes_copied))
                .sum();
            Some((left as f64 / status.throughput.bytes_per_second).ceil() as u64)
        }
        Phase::Following if status.lag.transactions == 0 => Some(0),
        Phase::Planned | Phase::Copying | Phase::Following => None,
    }
}

fn conditions(status: &Status) -> Vec<Condition> {
    let caught_up = status.phase == Phase::Following && status.lag.transactions == 0;
    let mut conditions = vec![Condition {
        kind: "CaughtUp",
        status: caught_up,
        reason: if caught_up { "NothingPending" } else { "Behind" }.into(),
        message: format!("{} transactions, {} bytes to apply", status.lag.transactions, status.lag.bytes),
    }];
    conditions.push(Condition {
        kind: "Quarantined",
        status: !status.holds.is_empty(),
        reason: if status.holds.is_empty() { "None" } else { "ChangeRefused" }.into(),
        message: status.holds.iter().map(|hold| hold.table.to_string()).collect::<Vec<_>>().join(", "),
    });
    conditions.push(Condition {
        kind: "Retrying",
        status: status.retrying.is_some(),
        reason: if status.retrying.is_some() { "TemporaryFault" } else { "None" }.into(),
        message: status.retrying.clone().unwrap_or_default(),
    });
    conditions
}
