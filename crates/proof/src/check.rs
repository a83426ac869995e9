//! Explores a model and says what it found.

use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

/// How a history is told to people.
pub trait Told: Model {
    fn begins(&self, state: &Self::State) -> String;
    fn step(&self, before: &Self::State, action: &Self::Action) -> String;
    fn ends(&self, state: &Self::State) -> String;
}

pub struct Explored {
    pub states: usize,
    pub depth: usize,
    pub took: Duration,
    /// A property that does not hold, with a history that breaks it and has no step too many.
    pub broken: Option<Broken>,
    /// What should occur somewhere and does not: then the properties hold for want of anything to go wrong.
    pub unseen: Vec<&'static str>,
    pub properties: Vec<&'static str>,
}

pub struct Broken {
    pub property: &'static str,
    pub story: Vec<String>,
}

impl Explored {
    pub fn holds(&self) -> bool {
        self.broken.is_none() && self.unseen.is_empty()
    }
}

/// Explores every state, or stops at the first history that breaks a property.
pub fn explore<M>(model: M, threads: usize) -> Explored
where
    M: Told + Send + Sync + 'static,
    M::State: Clone + PartialEq + Hash + Send + Sync + 'static,
    M::Action: Clone + PartialEq + Send + Sync,
{
    let started = Instant::now();
    let builder = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let checker = builder.spawn_bfs().join();
    let took = started.elapsed();
    let model = checker.model();
    let mut discoveries = checker.discoveries();
    let mut explored = Explored {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        broken: None,
        unseen: Vec::new(),
        properties: Vec::new(),
    };
    for property in model.properties() {
        let found = discoveries.remove(property.name);
        if matches!(property.expectation, Expectation::Sometimes) {
            explored.unseen.extend(found.is_none().then_some(property.name));
            continue;
        }
        explored.properties.push(property.name);
        if let Some(path) = found
            && explored.broken.is_none()
        {
            let states: Vec<M::State> = path.clone().into_states();
            let shortest = shortest(model, &property, states[0].clone(), path.into_actions());
            explored.broken =
                Some(Broken { property: property.name, story: tell(model, states[0].clone(), &shortest) });
        }
    }
    explored
}

/// Leaves out whatever the history does not need to break the property. (The search goes on for a while after it has
/// found one, so the one that it gives is not the shortest.)
fn shortest<M>(
    model: &M,
    property: &Property<M>,
    first: M::State,
    mut actions: Vec<M::Action>,
) -> Vec<M::Action>
where
    M: Told,
    M::State: Clone,
    M::Action: Clone + PartialEq,
{
    // That nothing more happens is not broken by a part of a history.
    if !matches!(property.expectation, Expectation::Always) {
        return actions;
    }
    let breaks_after = |actions: &[M::Action]| {
        let mut state = first.clone();
        for (at, action) in actions.iter().enumerate() {
            let mut possible = Vec::new();
            model.actions(&state, &mut possible);
            if !possible.contains(action) {
                return None;
            }
            state = model.next_state(&state, action.clone())?;
            if !(property.condition)(model, &state) {
                return Some(at + 1);
            }
        }
        None
    };
    while let Some(shorter) = (0..actions.len()).find_map(|left_out| {
        let mut rest = actions.clone();
        rest.remove(left_out);
        let steps = breaks_after(&rest)?;
        rest.truncate(steps);
        Some(rest)
    }) {
        actions = shorter;
    }
    actions
}

fn tell<M: Told>(model: &M, first: M::State, actions: &[M::Action]) -> Vec<String>
where
    M::Action: Clone,
{
    let mut story = vec![model.begins(&first)];
    let mut state = first;
    for action in actions {
        story.push(model.step(&state, action));
        let Some(next) = model.next_state(&state, action.clone()) else { break };
        state = next;
    }
    story.push(model.ends(&state));
    story
}
