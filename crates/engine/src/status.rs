//! What a feed tells about itself; the form of `crossfade status --json`.

use std::sync::Arc;

use connector::{Hold, Quarantined};
use model::{Position, TableName};
use serde::{Serialize, Serializer};

/// Published whenever it changed, a few times a second at most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    pub name: String,
    pub phase: Phase,
    pub conditions: Vec<Condition>,
    /// Shared, as they may be many and seldom change.
    #[serde(serialize_with = "shared")]
    pub tables: Arc<Vec<TableStatus>>,
    /// The end of the source's log, as last asked.
    pub source_position: Option<Position>,
    /// Durable in the journal.
    pub captured_position: Option<Position>,
    /// Durable on the target.
    pub applied_position: Option<Position>,
    pub lag: Lag,
    pub throughput: Throughput,
    /// Until the copy is done and the target has caught up, at the present net throughput.
    pub eta_seconds: Option<u64>,
    pub throttle: Throttle,
    pub quarantine: Vec<Quarantined>,
    pub holds: Vec<Hold>,
    pub chunks_loaded: u64,
    pub transactions_applied: u64,
    pub changes_applied: u64,
    pub journal_bytes: u64,
    /// The newest error that is being retried.
    pub retrying: Option<String>,
}

fn shared<S: Serializer>(tables: &Arc<Vec<TableStatus>>, serializer: S) -> Result<S::Ok, S::Error> {
    tables.as_slice().serialize(serializer)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Planned,
    Copying,
    Following,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// `CaughtUp`, `Throttled`, `Quarantined` …
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub status: bool,
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableStatus {
    pub name: TableName,
    pub phase: TablePhase,
    pub rows_copied: u64,
    /// The source's estimate.
    pub rows_total: Option<u64>,
    pub bytes_copied: u64,
    pub bytes_total: u64,
    pub applied_changes: u64,
    pub verified_position: Option<Position>,
    pub dirty_ranges: u64,
    pub differences: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TablePhase {
    Waiting,
    Copying,
    /// Every row is on the target; changes wait for the other tables.
    Copied,
    Following,
    Held,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Lag {
    /// Age of the oldest captured transaction that is not applied; 0 when there is none.
    pub seconds: f64,
    pub transactions: u64,
    /// Of journal not yet applied.
    pub bytes: u64,
}

/// Over the last ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Throughput {
    pub rows_per_second: f64,
    pub bytes_per_second: f64,
    /// Copied and applied, less arriving.
    pub net_rows_per_second: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Throttle {
    pub active: bool,
    pub reason: String,
}

impl Status {
    pub fn new(name: impl Into<String>) -> Status {
        Status {
            name: name.into(),
            phase: Phase::Planned,
            conditions: Vec::new(),
            tables: Arc::default(),
            source_position: None,
            captured_position: None,
            applied_position: None,
            lag: Lag::default(),
            throughput: Throughput::default(),
            eta_seconds: None,
            throttle: Throttle::default(),
            quarantine: Vec::new(),
            holds: Vec::new(),
            chunks_loaded: 0,
            transactions_applied: 0,
            changes_applied: 0,
            journal_bytes: 0,
            retrying: None,
        }
    }
}
