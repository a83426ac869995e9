//! From the source's log into the journal: `engine::journal::Journal::open`, `engine::capture::Session::drain`,
//! `engine::journal::append::Append::make_durable`.

use super::{Apply, Capture, Owner, Segment, Stage, State, Step, journal};

impl Apply {
    pub(super) fn capture_steps(&self, state: &State, owner: &Owner, steps: &mut Vec<Step>) {
        match owner.stage {
            Stage::Claimed if self.without("segment-before-read") => steps.push(Step::ReadJournal),
            Stage::Claimed | Stage::Read(_) => steps.push(Step::CreateSegment),
            Stage::Created => steps.push(Step::Recover),
            Stage::Running => self.running_steps(state, owner, steps),
        }
    }

    fn running_steps(&self, state: &State, owner: &Owner, steps: &mut Vec<Step>) {
        let own = own(state, owner);
        let whole = whole(own);
        let taken = next_change(own);
        let is_new = whole > owner.durable;
        match owner.capture {
            Capture::Appending => {
                if taken / 2 < state.source.committed {
                    steps.push(Step::Append);
                }
                // Opening the log after a position says that everything up to it is durable here.
                let early = is_new && self.without("acknowledge-after-fsync");
                if owner.durable > state.source.freed || early {
                    steps.push(Step::Acknowledge);
                }
                if is_new {
                    steps.push(if self.without("publish-after-fsync") { Step::Check } else { Step::Sync });
                } else if own.unsynced() > 0 && state.faults < self.faults_max {
                    // Before a drain ends, all that it committed is synced; only a part of a transaction is left.
                    steps.push(Step::LoseSource);
                }
            }
            Capture::Synced => steps.push(Step::Check),
            Capture::Checked => steps.push(Step::Publish),
            Capture::Published => {
                steps.push(Step::Acknowledge);
                if state.faults < self.faults_max {
                    steps.push(Step::LoseSource);
                }
            }
        }
    }

    pub(super) fn capture_step(&self, state: &mut State, at: usize, step: Step) {
        let owner = &mut state.owners[at];
        let epoch = owner.epoch;
        let newer = state.disk.iter().any(|segment| segment.epoch > epoch);
        match step {
            // In this order: what an older owner takes for durable after the segment is there, it learns that it
            // must not; what it took before is read.
            Step::ReadJournal => owner.stage = Stage::Read(journal(&state.disk, epoch, false).len() as u8),
            Step::CreateSegment if newer => drop(state.owners.remove(at)),
            Step::CreateSegment => {
                let read = match owner.stage {
                    Stage::Read(read) => Some(read),
                    _ => None,
                };
                owner.stage = Stage::Created;
                owner.durable = read.unwrap_or(0);
                state.disk.push(Segment { epoch, ..Segment::default() });
            }
            Step::Recover => self.recover(state, at),
            Step::Append => {
                let own = own_mut(state, epoch);
                let change = next_change(own);
                own.changes.push(change);
            }
            Step::Sync => {
                owner.capture = Capture::Synced;
                sync(own_mut(state, epoch));
            }
            Step::Check if newer && !self.without("owner-check") => drop(state.owners.remove(at)),
            Step::Check => owner.capture = Capture::Checked,
            Step::Publish => {
                owner.capture = Capture::Published;
                let whole = whole(own(state, &state.owners[at]));
                state.owners[at].durable = whole;
            }
            Step::Acknowledge => {
                owner.capture = Capture::Appending;
                let durable = match self.without("acknowledge-after-fsync") {
                    true => whole(own(state, &state.owners[at])),
                    false => state.owners[at].durable,
                };
                state.source.freed = state.source.freed.max(durable);
            }
            Step::LoseSource => {
                owner.capture = Capture::Appending;
                self.lose_source(state, epoch);
            }
            _ => unreachable!("not a step of capture"),
        }
    }

    /// `segment::recover`: what is believed is made durable first; a tail without its commit is left out.
    fn recover(&self, state: &mut State, at: usize) {
        let owner = &state.owners[at];
        let (epoch, read) = (owner.epoch, owner.durable);
        if !self.without("recovered-synced") {
            state.disk.iter_mut().filter(|segment| segment.epoch < epoch).for_each(sync);
        }
        let found = match self.without("segment-before-read") {
            true => read,
            false => journal(&state.disk, epoch, false).len() as u8 + self.torn(state, epoch),
        };
        let owner = &mut state.owners[at];
        // `engine::feed::whole_journal`.
        if owner.applied > found {
            return;
        }
        owner.stage = Stage::Running;
        owner.durable = found;
        own_mut(state, epoch).head = Some(found);
    }

    /// With the rule removed, a torn tail counts as a transaction.
    fn torn(&self, state: &State, epoch: u8) -> u8 {
        let newest = state.disk.iter().rfind(|segment| segment.epoch < epoch && segment.head.is_some());
        let is_torn = newest.and_then(|segment| segment.changes.last()).is_some_and(|last| last % 2 == 0);
        u8::from(self.without("torn-tail-left-out") && is_torn)
    }

    /// The transaction that was cut off comes again from its start.
    fn lose_source(&self, state: &mut State, epoch: u8) {
        state.faults += 1;
        let freed = state.source.freed;
        let own = own_mut(state, epoch);
        if let Some(torn) = own.changes.pop_if(|last| *last % 2 == 0) {
            own.synced = own.synced.min(own.changes.len() as u8);
            if self.without("torn-forgotten") {
                own.changes.extend([torn, torn]);
            }
        }
        if self.without("resumed-after-journal") && 2 * freed < next_change(own) {
            // From where the source would begin by itself, which is before what was not acknowledged.
            own.changes.push(2 * freed);
        }
    }
}

/// The change that the log gives next to the owner of this segment.
fn next_change(own: &Segment) -> u8 {
    own.changes.last().map_or(2 * own.head.unwrap_or(0), |last| last + 1)
}

/// Transactions in the journal up to the end of this segment.
fn whole(own: &Segment) -> u8 {
    own.head.unwrap_or(0) + own.transactions(usize::MAX).len() as u8
}

fn sync(segment: &mut Segment) {
    segment.synced = segment.changes.len() as u8;
}

fn own<'a>(state: &'a State, owner: &Owner) -> &'a Segment {
    let found = state.disk.iter().find(|segment| segment.epoch == owner.epoch);
    found.unwrap_or_else(|| unreachable!("a running owner has a segment"))
}

fn own_mut(state: &mut State, epoch: u8) -> &mut Segment {
    let found = state.disk.iter_mut().find(|segment| segment.epoch == epoch);
    found.unwrap_or_else(|| unreachable!("a running owner has a segment"))
}
