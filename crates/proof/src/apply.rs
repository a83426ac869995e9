//! The model of the apply protocol: capture, journal, commit and progress, with two owners, of which one may be slow,
//! and a crash or a lost answer between any two steps.
//!
//! These decisions lie in the product's asynchronous code, so the model states them step by step; each step names the
//! function that it stands for. The source commits transactions of two changes each; the journal's segments hold
//! changes; the target keeps a list of the changes that it got, which only the properties read.
//!
//! Left out: quiet positions (in the journal they are transactions without changes), quarantine, trimming.

mod capture;
mod commit;
mod properties;
mod told;

use stateright::{Model, Property};

use crate::rules::Rule;

/// The sizes that are explored, and the rule that is removed.
#[derive(Clone, Copy)]
pub struct Apply {
    pub transactions: u8,
    /// Deaths, power cuts and lost connections in one history.
    pub faults_max: u8,
    /// Claims in one history that take over from an owner who is still there.
    pub takeovers_max: u8,
    pub removed: Option<Rule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    source: Source,
    /// By epoch.
    disk: Vec<Segment>,
    target: Target,
    owners: Vec<Owner>,
    faults: u8,
    takeovers: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Source {
    /// Transactions in its log.
    committed: u8,
    /// Those of them that it may have freed since they were acknowledged.
    freed: u8,
}

/// A file of the journal. Transaction n, counted from 0, consists of the changes 2n and 2n + 1; the second one carries
/// its commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Segment {
    epoch: u8,
    /// Transactions before its first; without a head it holds nothing yet.
    head: Option<u8>,
    changes: Vec<u8>,
    /// How many of them an fsync has covered.
    synced: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Target {
    epoch: u8,
    /// Transactions on record as applied.
    progress: u8,
    changes: Vec<u8>,
    /// A transaction that holds the lock on the record, its COMMIT on the way.
    in_flight: Option<InFlight>,
    /// An owner wrote after a newer one's claim.
    trespassed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    epoch: u8,
    from: u8,
    /// `None`: the data only, while the record follows in a transaction of its own (with a rule removed).
    progress: Option<u8>,
    /// Changes are written up to here, counted within the journal.
    upto: Upto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Upto {
    Whole(u8),
    /// And the first change of the next one.
    Half(u8),
    /// No data.
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owner {
    epoch: u8,
    stage: Stage,
    capture: Capture,
    link: Link,
    /// Transactions that cursors may read.
    durable: u8,
    /// What it remembers as applied.
    applied: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Claimed,
    /// With a rule removed: it has read the journal and has no segment yet.
    Read(u8),
    /// Its segment is there, without a head.
    Created,
    Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Capture {
    Appending,
    Synced,
    /// No newer owner had a segment after the fsync.
    Checked,
    Published,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Link {
    Closed,
    /// What the record said, or what was committed since.
    Open(u8),
    /// Waits for the answer to a commit.
    Sent,
    /// With a rule removed: the data is committed and the record is not.
    DataOnly(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    SourceCommits,
    Claim,
    /// The owner at this place does something.
    Owner(u8, Step),
    CommitLands {
        answered: bool,
    },
    CommitFails,
    PowerCut {
        kept: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    ReadJournal,
    CreateSegment,
    Recover,
    Append,
    Sync,
    Check,
    Publish,
    Acknowledge,
    LoseSource,
    OpenLink,
    Send { transactions: u8 },
    SendHalf,
    SendRecord,
    Die,
}

impl Apply {
    fn without(&self, rule: &str) -> bool {
        self.removed.is_some_and(|removed| removed.name() == rule)
    }

    fn is_done(&self, state: &State) -> bool {
        let all = self.transactions;
        state.source.freed == all && state.target.progress == all
    }
}

impl Model for Apply {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if self.is_done(state) {
            return;
        }
        if state.source.committed < self.transactions {
            actions.push(Action::SourceCommits);
        }
        let takes_over = state.takeovers < self.takeovers_max && state.owners.len() == 1;
        // The claim updates the record, so it waits for whoever holds the lock on it.
        if (state.owners.is_empty() || takes_over) && state.target.in_flight.is_none() {
            actions.push(Action::Claim);
        }
        for (at, owner) in (0..).zip(&state.owners) {
            let mut steps = Vec::new();
            self.capture_steps(state, owner, &mut steps);
            self.commit_steps(state, owner, &mut steps);
            if state.faults < self.faults_max {
                steps.push(Step::Die);
            }
            actions.extend(steps.into_iter().map(|step| Action::Owner(at, step)));
        }
        self.answers(state, actions);
        if state.faults < self.faults_max {
            let unsynced = state.disk.iter().map(Segment::unsynced).max().unwrap_or(0);
            actions.extend((0..=unsynced).map(|kept| Action::PowerCut { kept }));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::SourceCommits => state.source.committed += 1,
            Action::Claim => claim(&mut state),
            Action::Owner(at, step) => self.step(&mut state, usize::from(at), step),
            Action::CommitLands { answered } => self.land(&mut state, answered),
            Action::CommitFails => self.fail(&mut state),
            Action::PowerCut { kept } => power_cut(&mut state, kept),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Apply>> {
        properties::list()
    }
}

impl Apply {
    fn step(&self, state: &mut State, at: usize, step: Step) {
        match step {
            Step::Die => {
                state.faults += 1;
                state.owners.remove(at);
            }
            Step::OpenLink | Step::Send { .. } | Step::SendHalf | Step::SendRecord => {
                self.commit_step(state, at, step);
            }
            _ => self.capture_step(state, at, step),
        }
    }
}

/// `connector_postgres::records::claim`: raises the epoch. Sessions of older owners end, or hold the claim off.
fn claim(state: &mut State) {
    state.takeovers += u8::from(!state.owners.is_empty());
    state.target.epoch += 1;
    state.owners.push(Owner {
        epoch: state.target.epoch,
        stage: Stage::Claimed,
        capture: Capture::Appending,
        link: Link::Closed,
        durable: 0,
        applied: state.target.progress,
    });
}

/// Everybody on our machine dies, and of what was not fsynced only so much is found again.
fn power_cut(state: &mut State, kept: u8) {
    state.faults += 1;
    state.owners.clear();
    for segment in &mut state.disk {
        segment.changes.truncate(usize::from(segment.synced + kept));
        segment.synced = segment.changes.len() as u8;
    }
}

impl Segment {
    fn unsynced(&self) -> u8 {
        self.changes.len() as u8 - self.synced
    }

    /// Whole transactions among its changes up to here, as the changes between one commit and the next.
    fn transactions(&self, upto: usize) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut open = Vec::new();
        for change in &self.changes[..upto.min(self.changes.len())] {
            open.push(*change);
            if change % 2 == 1 {
                found.push(std::mem::take(&mut open));
            }
        }
        found
    }
}

/// The journal as the owner of this epoch sees it, or would see it: of two segments that hold the same transactions the
/// newer one counts (`engine::journal::older_segments`).
fn journal(disk: &[Segment], epoch: u8, synced_only: bool) -> Vec<Vec<u8>> {
    let mut journal: Vec<Vec<u8>> = Vec::new();
    for segment in disk.iter().filter(|segment| segment.epoch <= epoch) {
        let Some(first) = segment.head else { continue };
        journal.truncate(usize::from(first));
        let upto = if synced_only { usize::from(segment.synced) } else { segment.changes.len() };
        journal.extend(segment.transactions(upto));
    }
    journal
}

/// What an owner would find after a power cut that spares nothing it may take.
fn durable(state: &State) -> Vec<Vec<u8>> {
    journal(&state.disk, u8::MAX, true)
}
