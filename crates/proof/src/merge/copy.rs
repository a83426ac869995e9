//! The copy: waves, chunks, and the ledger, as `engine::copy` does it.

use engine::plan::{gaps, is_complete};
use model::{Catalog, Chunk, Key, KeyOrder, Position, Range};

use super::{Action, BLOCKS, Ledger, Loaded, Merge, RANGES, State, Target, Unrecorded, Wave};
use crate::row::{Row, all, id, key, name};
use crate::source::{Source, Visibility};
use crate::target::Refused;

impl Merge {
    pub(super) fn copy_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.memory.unrecorded.is_some() {
            actions.push(Action::Record);
            return;
        }
        if !state.target.prepared {
            // `connector::Reader::prepare`: every wave from here on shows what capture will not deliver.
            if !state.source.is_showing() || self.without("prepared-when-visible") {
                actions.push(Action::Prepare);
            }
            return;
        }
        if self.is_copied(&state.target) {
            return;
        }
        if self.without("drop-early") && usize::from(state.target.progress) < state.source.log.len() {
            actions.push(Action::DropEarly);
        }
        let Some(wave) = &state.memory.wave else {
            let torn = state.target.ledger.iter().flatten().any(|loaded| !loaded.by_keys);
            let reset = torn && !self.without("one-cut");
            actions.push(if reset { Action::Reset } else { Action::TakeWave });
            return;
        };
        let rewritten = state.source.file != wave.file;
        if rewritten && !self.without("rewrite-noticed") {
            actions.push(Action::GiveUpWave);
            return;
        }
        // A chunk locks its table, so it waits for a TRUNCATE that has not ended.
        if !state.source.locked() {
            let jobs = (0..RANGES as u8).filter(|range| wave.jobs & (1 << range) != 0);
            actions.extend(jobs.map(Action::Load));
        }
    }

    pub(super) fn is_copied(&self, target: &Target) -> bool {
        self.plans.of(&target.ledger).complete
    }

    /// One snapshot over what is missing: `engine::copy::Queue::new`.
    pub(super) fn take_wave(&self, state: &mut State) {
        // As `begin_again` does it: what has been begun goes on by key ranges.
        state.memory.by_keys |= state.target.ledger.iter().flatten().any(|loaded| loaded.by_keys);
        let jobs = if state.memory.by_keys {
            self.plans.of(&state.target.ledger).missing
        } else {
            blocks_missing(state)
        };
        state.memory.wave =
            Some(Wave { cut: state.source.seen(), rows: state.source.rows, file: state.source.file, jobs });
    }

    /// The chunk's rows and its record, in one transaction: `connector::Writer::load`.
    pub(super) fn load(&self, state: &mut State, range: u8) {
        let Some(wave) = &mut state.memory.wave else { return };
        let by_keys = state.memory.by_keys;
        let is_in = |row: &Row| {
            if by_keys { row.id.min(RANGES as u8) - 1 == range } else { row.small % 2 == range }
        };
        let emptied = state.source.file != wave.file;
        state.target.table.load(all(&wave.rows).filter(is_in).filter(|_| !emptied));
        if !state.target.table.holds() {
            state.target.refused = Some(Refused::Twice);
        }
        let loaded = Loaded { by_keys, cut: wave.cut };
        wave.jobs &= !(1 << range);
        if wave.jobs == 0 {
            state.memory.wave = None;
        }
        if self.without("ledger-with-rows") {
            state.memory.unrecorded = Some(Unrecorded::Chunk(range, loaded));
        } else {
            state.target.ledger[usize::from(range)] = Some(loaded);
        }
    }

    /// `engine::copy::Copying::begin_again`: where it can, the table goes on by key ranges, so that it ends at all.
    pub(super) fn reset(&self, state: &mut State) {
        state.target.table.rows.clear();
        state.target.ledger = Ledger::default();
        state.memory.by_keys = !state.target.table.unique;
    }
}

/// What `engine::plan` says of a ledger. It asks for ranges only and never for cuts, so there are few cases.
pub(super) struct Plans(Vec<Plan>);

#[derive(Clone, Copy)]
struct Plan {
    complete: bool,
    /// Key ranges without a chunk, by bit.
    missing: u8,
}

impl Plans {
    pub(super) fn new(catalog: &Catalog) -> Plans {
        let cut = Source::new(&[], Visibility::AfterLog).seen();
        let plan = |case: usize| {
            let by_keys = case & BY_KEYS != 0;
            let ledger = std::array::from_fn(|at| (case & (1 << at) != 0).then_some(Loaded { by_keys, cut }));
            let on_record = on_record(&ledger, |loaded| loaded.cut.cut());
            let on_record: Vec<&model::Loaded> = on_record.iter().collect();
            Plan { complete: is_complete(&catalog.tables[0], &on_record), missing: missing(&on_record) }
        };
        Plans((0..2 * BY_KEYS).map(plan).collect())
    }

    fn of(&self, ledger: &Ledger) -> Plan {
        let bit = |(at, loaded): (usize, &Option<Loaded>)| {
            loaded.map_or(0, |loaded| 1 << at | if loaded.by_keys { BY_KEYS } else { 0 })
        };
        self.0[ledger.iter().enumerate().map(bit).fold(0, |case, bit| case | bit)]
    }
}

const BY_KEYS: usize = 1 << RANGES;

fn missing(on_record: &[&model::Loaded]) -> u8 {
    let gaps = gaps(on_record, &[KeyOrder::Integer]);
    let is_missing = |range: &u8| {
        gaps.iter().any(|gap| {
            let after = gap.after.as_ref().map_or(0, id);
            let upto = gap.upto.as_ref().map_or(RANGES as u8, id);
            after <= *range && *range < upto
        })
    };
    (0..RANGES as u8).filter(is_missing).fold(0, |jobs, range| jobs | 1 << range)
}

fn blocks_missing(state: &State) -> u8 {
    let missing = |range: &usize| state.target.ledger[*range].is_none();
    (0..BLOCKS).filter(missing).fold(0, |jobs, range| jobs | 1 << range)
}

/// The ledger in the product's terms.
pub(super) fn on_record(ledger: &Ledger, cut: impl Fn(&Loaded) -> model::Cut) -> Vec<model::Loaded> {
    let chunk = |(number, loaded): (usize, &Option<Loaded>)| {
        let loaded = loaded.as_ref()?;
        Some(model::Loaded {
            chunk: chunk(number as u32, loaded.by_keys),
            cut: cut(loaded),
            settled: Position { order: loaded.cut.end.into(), text: String::new() },
            rows: 0,
            bytes: 0,
            checksum: 0,
        })
    };
    ledger.iter().enumerate().filter_map(chunk).collect()
}

fn chunk(number: u32, by_keys: bool) -> Chunk {
    let last = number as usize + 1 == if by_keys { RANGES } else { BLOCKS };
    let border = |number: u32| -> Key { key(number as u8) };
    let range = match by_keys {
        true => Range::Keys {
            after: (number > 0).then(|| border(number)),
            upto: (!last).then(|| border(number + 1)),
        },
        false => Range::Blocks { from: number, until: (!last).then_some(number + 1) },
    };
    Chunk { table: name(), number, range, last }
}
