//! From the journal into the target: `engine::apply::Applying::session`, `connector::Applier::commit`.

use super::{Action, Apply, InFlight, Link, Owner, Stage, State, Step, Upto, journal};

impl Apply {
    pub(super) fn commit_steps(&self, state: &State, owner: &Owner, steps: &mut Vec<Step>) {
        if owner.stage != Stage::Running {
            return;
        }
        // Reading the record takes its lock: any commit in flight has ended by then (`records::standing`).
        let free = state.target.in_flight.is_none();
        match owner.link {
            Link::Closed if free || self.without("outcome-known") => steps.push(Step::OpenLink),
            Link::Open(standing) if free => {
                let waiting = owner.durable.saturating_sub(standing);
                steps.extend((1..=waiting).map(|transactions| Step::Send { transactions }));
                if waiting > 0 && self.without("position-at-boundary") {
                    steps.push(Step::SendHalf);
                }
            }
            Link::DataOnly(_) if free => steps.push(Step::SendRecord),
            Link::Closed | Link::Open(_) | Link::Sent | Link::DataOnly(_) => {}
        }
    }

    pub(super) fn commit_step(&self, state: &mut State, at: usize, step: Step) {
        let target = &mut state.target;
        let owner = &mut state.owners[at];
        let fenced = owner.epoch < target.epoch && !self.without("epoch-checked");
        if fenced {
            state.owners.remove(at);
            return;
        }
        let (from, epoch) = match owner.link {
            Link::Closed => {
                let guess = self.without("outcome-known");
                owner.link = Link::Open(if guess { owner.applied } else { target.progress });
                return;
            }
            Link::Open(standing) | Link::DataOnly(standing) => (standing, owner.epoch),
            Link::Sent => return,
        };
        // The record moves from where this session left it, or not at all.
        if target.progress != from && !self.without("outcome-known") {
            owner.link = Link::Closed;
            return;
        }
        let flight = |upto, progress| InFlight { epoch, from, progress, upto };
        target.in_flight = Some(match step {
            Step::Send { transactions } if self.without("progress-with-data") => {
                flight(Upto::Whole(from + transactions), None)
            }
            Step::Send { transactions } => {
                flight(Upto::Whole(from + transactions), Some(from + transactions))
            }
            // The position that its first change bears is taken for the transaction's.
            Step::SendHalf => flight(Upto::Half(from), Some(from + 1)),
            _ => flight(Upto::Nothing, Some(from + 1)),
        });
        owner.link = Link::Sent;
    }

    pub(super) fn answers(&self, state: &State, actions: &mut Vec<Action>) {
        if state.target.in_flight.is_none() {
            return;
        }
        let may_fail = state.faults < self.faults_max;
        let waits = state.owners.iter().any(|owner| owner.link == Link::Sent);
        if waits {
            actions.push(Action::CommitLands { answered: true });
        }
        // Of a session whose owner is gone the server decides alone.
        if may_fail || !waits {
            actions.push(Action::CommitLands { answered: false });
            actions.push(Action::CommitFails);
        }
    }

    pub(super) fn land(&self, state: &mut State, answered: bool) {
        let Some(flight) = state.target.in_flight.take() else { return };
        let journal = journal(&state.disk, flight.epoch, false);
        let target = &mut state.target;
        target.trespassed |= flight.epoch < target.epoch;
        let (whole, half) = match flight.upto {
            Upto::Whole(upto) => (upto, None),
            Upto::Half(upto) => (upto, journal.get(usize::from(upto))),
            Upto::Nothing => (flight.from, None),
        };
        let applied = journal.iter().take(usize::from(whole)).skip(usize::from(flight.from));
        target.changes.extend(applied.flatten());
        target.changes.extend(half.and_then(|changes| changes.first()));
        target.progress = flight.progress.unwrap_or(target.progress);
        let standing = match (flight.progress, flight.upto) {
            (Some(progress), _) => Link::Open(progress),
            (None, _) => Link::DataOnly(flight.from),
        };
        self.answer(state, flight, answered.then_some(standing));
    }

    pub(super) fn fail(&self, state: &mut State) {
        let Some(flight) = state.target.in_flight.take() else { return };
        self.answer(state, flight, None);
    }

    /// Without an answer the connection is lost and nothing is known.
    fn answer(&self, state: &mut State, flight: InFlight, answer: Option<Link>) {
        let waiting =
            state.owners.iter_mut().find(|owner| owner.epoch == flight.epoch && owner.link == Link::Sent);
        let Some(owner) = waiting else { return };
        owner.link = answer.unwrap_or(Link::Closed);
        match owner.link {
            Link::Open(standing) => owner.applied = standing,
            _ => state.faults += u8::from(answer.is_none()),
        }
    }
}
