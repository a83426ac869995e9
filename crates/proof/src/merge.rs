//! The model of the merge rule: copy × log × visibility × two unique keys × crash × resume.
//!
//! The source writes, the copy takes waves and loads chunks, apply decides about journaled transactions with the
//! product's own [`engine::merge::Cuts`], folds them with [`engine::fold::Fold`], and plans with
//! [`engine::plan`]; between any two steps everything that is only in memory may be lost.
//!
//! What is whole here and in steps in the product: a chunk's read and its commit (a crash between them leaves nothing),
//! a fetch and its commit (likewise), a crash and its resume (the source goes on in between in any case), and the
//! journal, which has every commit record as soon as it is in the log (`crate::apply` is about the journal).

mod copy;
mod follow;
mod properties;
mod told;

use std::sync::Arc;

use model::Catalog;
use stateright::{Model, Property};

use crate::row::{KEYS, Row, Rows};
use crate::rules::Rule;
use crate::source::{Act, Seen, Source, Visibility};
use crate::target::{Refused, Table};

/// The sizes that are explored, and the rule that is removed.
#[derive(Clone)]
pub struct Merge {
    catalog: Arc<Catalog>,
    /// What the product's plan says of every ledger, asked once.
    plans: Arc<copy::Plans>,
    /// Each is a set of scripts, one a session.
    pub histories: Vec<Vec<u8>>,
    pub starts: Vec<Start>,
    /// Crashes, lost waves and restarts of the source in one history.
    pub faults_max: u8,
    pub removed: Option<Rule>,
}

/// How a history begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub visibility: Visibility,
    /// Copied by key ranges from the beginning, or under one cut.
    pub by_keys: bool,
    /// The target has its second unique index from the beginning, so rows of different cuts may not meet.
    pub unique: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub source: Source,
    pub target: Target,
    pub memory: Memory,
    faults: u8,
    large: bool,
}

/// Durable, all of it in the target's own transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// Capture has its beginning. (In the product this is with the plan, which is as durable.)
    pub prepared: bool,
    pub table: Table,
    /// By the chunk's number.
    pub ledger: Ledger,
    pub row_cuts: [Option<Seen>; KEYS as usize],
    /// Transactions of the log that are passed: what lay before capture's beginning, and what has been applied.
    pub progress: u8,
    /// The rest of the schema is there, and the cuts are no longer asked.
    pub finished: bool,
    pub refused: Option<Refused>,
}

pub type Ledger = [Option<Loaded>; RANGES];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Loaded {
    pub by_keys: bool,
    pub cut: Seen,
}

/// Lost in a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    wave: Option<Wave>,
    by_keys: bool,
    /// Keys whose row cut was put in place since the last resume, by bit.
    fetched: u8,
    /// A row without which this commit record's transaction cannot be decided.
    wanted: Option<Wanted>,
    /// Cuts of rows that were fetched are passed at this end of the log.
    settled: u8,
    /// With a rule removed: what is written and not yet on record.
    unrecorded: Option<Unrecorded>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wave {
    cut: Seen,
    rows: Rows,
    file: u8,
    /// Ranges that are still to be loaded, by bit.
    jobs: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    key: u8,
    number: u8,
    /// The fetch has its cut, and has not read yet.
    under: Option<Fetch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fetch {
    cut: Seen,
    row: Option<Row>,
    file: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unrecorded {
    Chunk(u8, Loaded),
    RowCut(u8, Seen),
    Progress(u8),
}

/// Key ranges `(…, 1]`, `(1, 2]`, `(2, …)`; of heap blocks there are two.
const RANGES: usize = 3;
const BLOCKS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Source(u8, Act),
    /// Capture begins at the end of the log.
    Prepare,
    TakeWave,
    Load(u8),
    /// The table was rewritten under the cut.
    GiveUpWave,
    /// Empties a table whose cut is lost.
    Reset,
    Apply {
        transactions: u8,
        folded: bool,
    },
    /// A snapshot for one row.
    TakeFetch,
    Fetch,
    Finish,
    /// Our process dies and runs again.
    Crash,
    LoseWave,
    RestartSource,
    /// With a rule removed.
    Record,
    DropEarly,
}

impl Merge {
    pub fn new(histories: Vec<Vec<u8>>, starts: Vec<Start>, faults_max: u8, removed: Option<Rule>) -> Merge {
        let catalog = Arc::new(crate::row::catalog());
        let plans = Arc::new(copy::Plans::new(&catalog));
        Merge { catalog, plans, histories, starts, faults_max, removed }
    }

    fn without(&self, rule: &str) -> bool {
        self.removed.is_some_and(|removed| removed.name() == rule)
    }

    fn is_done(state: &State) -> bool {
        state.source.over()
            && state.target.finished
            && usize::from(state.target.progress) == state.source.log.len()
    }
}

impl Model for Merge {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let of = |start: &Start, scripts: &Vec<u8>| State {
            source: Source::new(scripts, start.visibility),
            target: Target { table: Table { unique: start.unique, ..Table::default() }, ..Target::default() },
            memory: Memory { by_keys: start.by_keys, ..Memory::default() },
            faults: 0,
            large: start.by_keys,
        };
        self.starts
            .iter()
            .flat_map(|start| self.histories.iter().map(move |scripts| of(start, scripts)))
            .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if Merge::is_done(state) || state.target.refused.is_some() {
            return;
        }
        let mut acts = Vec::new();
        state.source.acts(&mut acts);
        actions.extend(acts.into_iter().map(|(at, act)| Action::Source(at, act)));
        self.copy_actions(state, actions);
        self.follow_actions(state, actions);
        if state.faults < self.faults_max {
            self.fault_actions(state, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Source(at, act) => state.source.act(at, act),
            Action::Prepare => {
                state.target.prepared = true;
                state.target.progress = state.source.log.len() as u8;
            }
            Action::TakeWave => self.take_wave(&mut state),
            Action::Load(range) => self.load(&mut state, range),
            Action::GiveUpWave => state.memory.wave = None,
            Action::Reset => self.reset(&mut state),
            Action::Apply { transactions, folded } => self.apply(&mut state, transactions, folded),
            Action::TakeFetch => self.take_fetch(&mut state),
            Action::Fetch => self.fetch(&mut state),
            Action::Finish => self.finish(&mut state),
            Action::Record => record(&mut state),
            Action::DropEarly => state.target.progress += 1,
            Action::Crash | Action::LoseWave | Action::RestartSource => fault(&mut state, action),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Merge>> {
        properties::list()
    }
}

impl Merge {
    fn fault_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.memory.wave.is_some() {
            actions.push(Action::LoseWave);
        }
        // A crash that loses nothing is none.
        if state.memory != resumed(state) {
            actions.push(Action::Crash);
        }
        if state.source.is_busy() {
            actions.push(Action::RestartSource);
        }
    }
}

fn fault(state: &mut State, action: Action) {
    state.faults += 1;
    match action {
        Action::Crash => state.memory = resumed(state),
        Action::RestartSource => {
            state.source.restart();
            state.memory.wave = None;
            if let Some(wanted) = &mut state.memory.wanted {
                wanted.under = None;
            }
        }
        _ => state.memory.wave = None,
    }
}

/// What a process knows that starts now: `engine::feed::Feed::applying`.
fn resumed(state: &State) -> Memory {
    let fetched_before = state.target.row_cuts.iter().any(Option::is_some);
    Memory {
        by_keys: state.large,
        // The positions of row cuts are not on record; the end of the log now is past all of them.
        settled: if fetched_before { state.source.log.len() as u8 } else { 0 },
        ..Memory::default()
    }
}

fn record(state: &mut State) {
    match state.memory.unrecorded.take() {
        Some(Unrecorded::Chunk(range, loaded)) => state.target.ledger[usize::from(range)] = Some(loaded),
        Some(Unrecorded::RowCut(id, cut)) => put_row_cut(state, id, cut),
        Some(Unrecorded::Progress(progress)) => state.target.progress = progress,
        None => {}
    }
}

fn put_row_cut(state: &mut State, id: u8, cut: Seen) {
    state.target.row_cuts[usize::from(id) - 1] = Some(cut);
    state.memory.fetched |= 1 << id;
}
