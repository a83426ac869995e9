//! What a feed is told.

use std::path::PathBuf;

use connector::Selection;

/// How a feed runs. Made once, by the binary, from flags and configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The migration's name: the stream under which the target keeps its records.
    pub name: String,
    /// The migration's folder: journal, catalog. The caller holds its lock.
    pub dir: PathBuf,
    pub until: Until,
    /// Which tables are migrated.
    pub selection: Selection,
    /// Concurrent chunk reads, and as many concurrent loads, beside one that is being committed.
    pub copy_streams: usize,
    /// Size of one chunk on the source's disk.
    pub chunk_bytes: u64,
    /// A table larger than this is copied by key ranges under several cuts, if its keys allow it, so that no
    /// snapshot is held for long.
    pub one_cut_bytes_max: u64,
    /// After this many seconds a wave hands out no more key ranges and a new one begins.
    pub wave_seconds_max: u64,
    /// Whether the copy gives way to the application's work on the source.
    pub throttle: bool,
    pub apply: ApplyMode,
    /// Groups of transactions that are written at a time.
    pub apply_lanes: usize,
    /// No more changes than this in one group; below it groups follow the target's pace.
    pub group_changes: u64,
    /// Size of one file of the journal: the unit in which its space is freed.
    pub segment_bytes: u64,
    /// Budget of one folded slice in memory.
    pub slice_bytes: usize,
}

impl Settings {
    pub fn new(name: impl Into<String>, dir: impl Into<PathBuf>) -> Settings {
        Settings {
            name: name.into(),
            dir: dir.into(),
            until: Until::Stopped,
            selection: Selection::everything(),
            // One core is kept for the source's and one for the target's own work on a small machine.
            copy_streams: 2,
            chunk_bytes: 64 << 20,
            one_cut_bytes_max: 16 << 30,
            wave_seconds_max: 300,
            throttle: true,
            apply: ApplyMode::Auto,
            apply_lanes: 2,
            group_changes: 200_000,
            segment_bytes: 64 << 20,
            // One slice is assembled, and for each lane one waits and one is written, that one a second time as the statement's
            // parameters; all of it stays below 256 MB.
            slice_bytes: 16 << 20,
        }
    }
}

/// When [`crate::run`] returns by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Only when it is told to stop.
    Stopped,
    /// Once everything that the source had committed when this was asked is in the journal. Nothing is copied or applied.
    Captured,
    /// Once every chunk is on the target.
    Copied,
    /// Once every table is copied, the schema is finished, and everything that the source had committed when
    /// this was asked is applied.
    CaughtUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyMode {
    /// Catch-up while behind, strict once near.
    Auto,
    /// Waits a moment for more: as many source transactions as the target's pace allows become one of the target's.
    CatchUp,
    /// Writes what is there at once.
    Strict,
}
