//! What must hold in every state. None of this asks the product: a cut's truth is the set of sessions that were visible
//! when it was taken.

use stateright::Property;

use super::{BLOCKS, Merge, RANGES, State};
use crate::row::{KEYS, LOST, Row, all};
use crate::source::{initial, of, replay};
use crate::target::Refused;

pub(super) fn list() -> Vec<Property<Merge>> {
    vec![
        Property::always("strict", |_, state: &State| {
            matches!(state.target.refused, None | Some(Refused::Twice))
        }),
        Property::always("unique-holds", |_, state| unique_holds(state)),
        Property::always("unchanged-kept", |_, state: &State| {
            state.target.table.rows.iter().all(|row| row.large != LOST && row.small != LOST)
        }),
        Property::always("never-older", |_, state| refused(state) || !is_copied(state) || never_older(state)),
        Property::always("prefix-once-settled", |_, state: &State| {
            refused(state) || !is_copied(state) || !is_settled(state) || prefix(state)
        }),
        Property::always("no-row-lost", |_, state: &State| {
            !Merge::is_done(state)
                || all(&state.source.rows).all(|row| state.target.table.rows.contains(&row))
        }),
        Property::always("no-row-invented", |_, state: &State| {
            let is_there = |row: &Row| of(&state.source.rows, row.id) == Some(*row);
            !Merge::is_done(state) || (state.target.table.rows.iter().all(is_there) && keys_hold(state))
        }),
        // The graph has no cycles and ends only in done states, so this says that nothing gets stuck.
        Property::eventually("catches-up", |_, state| Merge::is_done(state)),
        // Without these the ones above could hold for want of anything to go wrong.
        Property::sometimes("seen: a cut without a commit that the log has", |_, state: &State| {
            let differs = |cut: &crate::source::Seen| u32::from(cut.end) > cut.truth.count_ones();
            state.target.ledger.iter().flatten().any(|loaded| differs(&loaded.cut))
        }),
        Property::sometimes("seen: a row fetched alone", |_, state: &State| {
            state.target.row_cuts.iter().any(Option::is_some) && Merge::is_done(state)
        }),
        Property::sometimes("seen: chunks under three cuts", |_, state: &State| {
            let mut cuts: Vec<u8> =
                state.target.ledger.iter().flatten().map(|loaded| loaded.cut.truth).collect();
            cuts.sort_unstable();
            cuts.dedup();
            cuts.len() == RANGES && Merge::is_done(state)
        }),
    ]
}

fn refused(state: &State) -> bool {
    state.target.refused.is_some()
}

/// Every row is the source's, after exactly those transactions that its cut holds or that have been applied.
fn never_older(state: &State) -> bool {
    (1..=KEYS).all(|id| {
        let chunk = if is_by_keys(state) { usize::from(id.min(RANGES as u8)) - 1 } else { 0 };
        let chunk = state.target.ledger[chunk].map(|loaded| loaded.cut);
        let cut = state.target.row_cuts[usize::from(id) - 1].or(chunk);
        let counts = |(number, session): (u8, &u8)| {
            let held = cut.is_some_and(|cut| cut.has(*session));
            (number < state.target.progress || held).then_some(*session)
        };
        let expected = replay(initial(), &state.source, (0..).zip(&state.source.log).filter_map(counts));
        let here: Vec<Row> = state.target.table.rows.iter().filter(|row| row.id == id).copied().collect();
        here == Vec::from_iter(of(&expected, id))
    })
}

/// The whole table is what the source's log had at this point.
fn prefix(state: &State) -> bool {
    let applied = &state.source.log[..usize::from(state.target.progress)];
    let expected = replay(initial(), &state.source, applied.iter().copied());
    state.target.table.rows == all(&expected).collect::<Vec<_>>()
}

/// Every transaction that any cut holds has been applied.
fn is_settled(state: &State) -> bool {
    let rows = state.target.row_cuts.iter().flatten().copied();
    let held = state.target.ledger.iter().flatten().map(|loaded| loaded.cut).chain(rows);
    let open = &state.source.log[usize::from(state.target.progress)..];
    held.into_iter().all(|cut| open.iter().all(|session| !cut.has(*session)))
}

fn is_by_keys(state: &State) -> bool {
    state.target.ledger.iter().flatten().any(|loaded| loaded.by_keys)
}

fn is_copied(state: &State) -> bool {
    let chunks = if is_by_keys(state) { RANGES } else { BLOCKS };
    state.target.ledger.iter().flatten().count() == chunks
}

fn keys_hold(state: &State) -> bool {
    state.target.table.rows.windows(2).all(|pair| pair[0].id != pair[1].id)
}

fn unique_holds(state: &State) -> bool {
    state.target.refused != Some(Refused::Twice)
        && state.target.table.holds()
        && (!is_copied(state) || keys_hold(state))
}
