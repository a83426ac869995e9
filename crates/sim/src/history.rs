//! One history: the tables, what the application does, what goes wrong and when. Made from a seed, and data: so that it
//! can be shown, shrunk and played again.
//!
//! Time is counted in moments. Each call of the engine that reaches a database is one.

use engine::{ApplyMode, Until};

use crate::dice::Dice;
use crate::source::Write;
use crate::tables::Shape;

#[derive(Clone, Debug)]
pub struct History {
    pub seed: u64,
    pub shapes: Vec<Shape>,
    /// Rows that each table has before the migration begins.
    pub rows: u64,
    pub tuning: Tuning,
    pub first_xid: u64,
    pub prefix_cuts: bool,
    pub steps: Vec<(u64, Step)>,
    pub faults: Vec<(u64, Fault)>,
    /// What the first processes are told; the later ones run until they are stopped.
    pub runs: Vec<Until>,
}

/// Settings of the engine, small so that every limit is met.
#[derive(Clone, Debug)]
pub struct Tuning {
    pub copy_streams: usize,
    pub rows_per_chunk: usize,
    pub by_key_ranges: bool,
    pub wave_seconds_max: u64,
    pub apply: ApplyMode,
    pub apply_lanes: usize,
    pub group_changes: u64,
    pub slice_bytes: usize,
    pub segment_bytes: u64,
}

/// What the application and its database do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Write {
        client: u32,
        write: Write,
    },
    /// The commit is in the log now and visible so many moments later.
    Commit {
        client: u32,
        visible_after: u64,
        gap: u64,
    },
    Rollback {
        client: u32,
    },
    Prepare {
        client: u32,
    },
    EndPrepared {
        commit: bool,
    },
    Noise,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed.
    Kill,
    /// The machine loses power in a write or sync that comes after so many others.
    PowerFails {
        after_writes: u32,
    },
    /// The process stands still while another one takes over, and wakes so many moments later.
    Pause {
        moments: u64,
    },
    /// It is asked to stop, as with Ctrl-C.
    Stop,
    SourceConnectionsCut,
    TargetConnectionsCut,
    /// The server is away for so many moments; what was not committed is rolled back.
    SourceRestarts {
        moments: u64,
    },
    TargetRestarts {
        moments: u64,
    },
    /// The source delivers up to so many transactions again at the next connection.
    Redelivers {
        transactions: usize,
    },
    DiskFull {
        moments: u64,
    },
    SyncFails,
    /// Calls take twenty times as long.
    Slow {
        moments: u64,
    },
    /// The time of day jumps by so many seconds.
    ClockJumps {
        seconds: i64,
    },
    /// The target refuses some rows of a table, until it is repaired.
    Poison {
        table: usize,
        moments: u64,
    },
    /// A replica takes the source's place without its last transactions and without the slot.
    SourceFailsOver {
        lost: usize,
    },
    /// The target is restored to what it had so many commits ago.
    TargetRestored {
        commits: usize,
        when: Restore,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    Now,
    /// While a row is being fetched alone.
    AtFetch,
    /// Before a connection to it that is made when it has everything the cuts contain; these are left out first.
    WhenPassed {
        connections: u32,
    },
}

const CLIENTS: u64 = 4;
const IDS: u64 = 8;
const NICKS: u64 = 6;

impl History {
    pub fn new(seed: u64) -> History {
        let dice = &mut Dice::new(seed);
        let shapes: Vec<Shape> = (0..dice.between(1, 3)).map(|_| shape(dice)).collect();
        let prefix_cuts = dice.percent(15);
        let moments = dice.between(60, 500);
        let mut tuning = tuning(dice);
        // Rows that move between ranges of one row each: most of them must be fetched alone.
        let moving = dice.percent(15);
        if moving {
            (tuning.by_key_ranges, tuning.rows_per_chunk, tuning.wave_seconds_max) = (true, 1, 0);
        }
        let first_xid = match dice.below(4) {
            0 => (1 << 32) - dice.below(12),
            1 => (3 << 32) + 100,
            _ => 700,
        };
        let mut steps = Vec::new();
        for client in 0..dice.between(1, CLIENTS) {
            let tables = shapes.len() as u64;
            script(dice, client as u32, Writes { tables, moving, prefix_cuts }, moments, &mut steps);
        }
        steps.sort_by_key(|(moment, _)| *moment);
        let faults = faults(dice, shapes.len() as u64, moving, moments);
        let runs = (0..dice.between(1, 3))
            .map(|_| match dice.below(6) {
                0 => Until::Copied,
                1 | 2 => Until::CaughtUp,
                _ => Until::Stopped,
            })
            .collect();
        let rows = dice.below(IDS);
        History { seed, shapes, rows, tuning, first_xid, prefix_cuts, steps, faults, runs }
    }
}

fn shape(dice: &mut Dice) -> Shape {
    let keyed = dice.percent(85);
    let unique = keyed && dice.percent(60);
    Shape {
        keyed,
        ordered: keyed && dice.percent(75),
        unique,
        deferred: unique && dice.percent(40),
        unique_before: unique && dice.percent(20),
        log_reversed: dice.percent(20),
    }
}

fn tuning(dice: &mut Dice) -> Tuning {
    Tuning {
        copy_streams: dice.between(1, 3) as usize,
        rows_per_chunk: dice.between(1, 4) as usize,
        by_key_ranges: dice.percent(60),
        wave_seconds_max: if dice.percent(70) { 0 } else { 300 },
        apply: match dice.below(3) {
            0 => ApplyMode::Strict,
            1 => ApplyMode::CatchUp,
            _ => ApplyMode::Auto,
        },
        apply_lanes: dice.between(1, 3) as usize,
        group_changes: if dice.percent(60) { dice.between(1, 4) } else { 1 << 20 },
        slice_bytes: match dice.below(3) {
            0 => 1,
            1 => 700,
            _ => 1 << 20,
        },
        segment_bytes: match dice.below(3) {
            0 => 1,
            1 => 600,
            _ => 1 << 20,
        },
    }
}

/// What clients write.
#[derive(Clone, Copy)]
struct Writes {
    tables: u64,
    moving: bool,
    prefix_cuts: bool,
}

/// The transactions of one client.
fn script(dice: &mut Dice, client: u32, writes: Writes, moments: u64, steps: &mut Vec<(u64, Step)>) {
    let mut moment = dice.below(40);
    let haste = dice.between(2, 20);
    while moment < moments && steps.len() < 80 {
        for _ in 0..dice.between(1, 4) {
            steps.push((moment, Step::Write { client, write: write(dice, writes) }));
            moment += dice.below(haste);
        }
        let end = match dice.below(20) {
            0 | 1 => Step::Rollback { client },
            2 => Step::Prepare { client },
            _ => {
                let waits = !writes.prefix_cuts && dice.percent(40);
                let visible_after = if waits { dice.between(1, 40) } else { 0 };
                let gap = if dice.percent(50) { 0 } else { dice.below(5) };
                Step::Commit { client, visible_after, gap }
            }
        };
        if matches!(end, Step::Prepare { .. }) {
            let later = moment + dice.between(1, 80);
            steps.push((later, Step::EndPrepared { commit: dice.percent(70) }));
        }
        steps.push((moment, end));
        if dice.percent(10) {
            steps.push((moment, Step::Noise));
        }
        moment += dice.between(1, 2 * haste);
    }
}

fn write(dice: &mut Dice, writes: Writes) -> Write {
    let table = dice.below(writes.tables) as usize;
    let id = |dice: &mut Dice| dice.below(IDS).cast_signed();
    if writes.moving && dice.percent(50) {
        return Write::Move { table, id: id(dice), to: id(dice), large: false };
    }
    match dice.below(100) {
        0..48 => {
            let nick = dice.percent(60).then(|| dice.below(NICKS).cast_signed());
            Write::Put { table, id: id(dice), nick, large: dice.percent(30) }
        }
        48..64 => Write::Move { table, id: id(dice), to: id(dice), large: dice.percent(25) },
        64..80 => Write::Delete { table, id: id(dice) },
        80..90 => Write::Swap { table, id: id(dice), with: id(dice) },
        90..94 => Write::Truncate { table, also_next: dice.percent(40) },
        _ => Write::Savepoint,
    }
}

fn faults(dice: &mut Dice, tables: u64, moving: bool, moments: u64) -> Vec<(u64, Fault)> {
    if dice.percent(15) {
        return Vec::new();
    }
    let mut faults: Vec<(u64, Fault)> = (0..dice.between(1, 7))
        .map(|_| {
            // Early faults meet the copy.
            let moment = if dice.percent(50) { dice.between(1, 80) } else { dice.between(1, moments) };
            (moment, fault(dice, tables))
        })
        .collect();
    if dice.percent(3) {
        faults.push((dice.between(1, moments), Fault::SourceFailsOver { lost: dice.below(4) as usize }));
    }
    if dice.percent(if moving { 70 } else { 35 }) {
        let commits = dice.between(1, 6) as usize;
        let at_fetch = moving && dice.percent(50);
        let moment = if dice.percent(60) { dice.between(20, 300) } else { dice.between(20, moments) };
        let when = match (at_fetch, dice.percent(40)) {
            (true, _) => Restore::AtFetch,
            (false, true) => Restore::WhenPassed { connections: dice.below(4) as u32 },
            (false, false) => Restore::Now,
        };
        faults.push((moment, Fault::TargetRestored { commits, when }));
    }
    faults.sort_by_key(|(moment, _)| *moment);
    faults
}

fn fault(dice: &mut Dice, tables: u64) -> Fault {
    match dice.below(100) {
        0..22 => Fault::Kill,
        22..36 => Fault::PowerFails { after_writes: dice.below(6) as u32 },
        36..44 => Fault::Pause { moments: dice.between(1, 60) },
        44..48 => Fault::Stop,
        48..56 => Fault::SourceConnectionsCut,
        56..66 => Fault::TargetConnectionsCut,
        66..72 => Fault::SourceRestarts { moments: dice.below(20) },
        72..78 => Fault::TargetRestarts { moments: dice.below(20) },
        78..83 => Fault::Redelivers { transactions: dice.between(1, 4) as usize },
        83..86 => Fault::DiskFull { moments: dice.between(1, 60) },
        86..89 => Fault::SyncFails,
        89..93 => Fault::Slow { moments: dice.between(5, 60) },
        93..96 => Fault::ClockJumps { seconds: dice.below(100_000).cast_signed() - 50_000 },
        _ => Fault::Poison { table: dice.below(tables) as usize, moments: dice.between(5, 150) },
    }
}
