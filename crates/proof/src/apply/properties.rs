//! What must hold in every state.

use stateright::Property;

use super::{Apply, Stage, State, durable};

pub(super) fn list() -> Vec<Property<Apply>> {
    vec![
        Property::always("exactly-once", |_, state: &State| {
            (0..).zip(&state.target.changes).all(|(number, change): (u8, &u8)| *change == number)
        }),
        Property::always("progress-with-data", |_, state: &State| {
            state.target.changes.len() == 2 * usize::from(state.target.progress)
        }),
        Property::always("acknowledged-is-durable", |_, state: &State| {
            usize::from(state.source.freed) <= durable(state).len()
        }),
        Property::always("applied-is-durable", |_, state: &State| {
            usize::from(state.target.progress) <= durable(state).len()
        }),
        Property::always("journaled-once", |_, state: &State| {
            (0..)
                .zip(durable(state))
                .all(|(number, changes): (u8, _)| changes == [2 * number, 2 * number + 1])
        }),
        Property::always("shown-is-kept", |_, state: &State| {
            let running = state.owners.iter().filter(|owner| owner.stage == Stage::Running);
            let journal = durable(state).len();
            running.into_iter().all(|owner| usize::from(owner.durable) <= journal)
        }),
        Property::always("old-owner-is-silent", |_, state: &State| !state.target.trespassed),
        // The graph has no cycles but those in which nothing happens, and ends in done states only.
        Property::eventually("catches-up", |model: &Apply, state: &State| model.is_done(state)),
        Property::sometimes("seen: an old owner beside a new one", |model: &Apply, state: &State| {
            model.takeovers_max == 0 || state.owners.len() == 2
        }),
        Property::sometimes("seen: a commit that lands after its owner's death", |_, state: &State| {
            let gone = |epoch: u8| state.owners.iter().all(|owner| owner.epoch != epoch);
            state.target.in_flight.is_some_and(|flight| gone(flight.epoch))
        }),
        Property::sometimes("seen: a torn tail behind the newest head", |_, state: &State| {
            let torn = |changes: &[u8]| changes.last().is_some_and(|last| last % 2 == 0);
            state.owners.is_empty() && state.disk.last().is_some_and(|segment| torn(&segment.changes))
        }),
    ]
}
