//! Contestants that take turns at the same work.

use crate::Bench;
use crate::migration::{Costs, Spent};
use crate::section::Samples;

/// A name, and one run of it, which leaves everything as it found it.
pub(crate) type Contestant<'a> = (&'a str, &'a mut dyn FnMut() -> Spent);

/// What the measured runs of a contestant took and cost.
pub(crate) struct Runs {
    pub(crate) times: Samples,
    pub(crate) costs: Costs,
}

/// What [`hold`] does before it measures, for the page. The first who reads what was just written pays for it.
pub(crate) const WARM: &str = "Before the first round everyone runs once without being measured.";

/// Every contestant once a round, and another one first in each.
pub(crate) fn hold<S, T, const N: usize>(bench: &Bench<S, T>, contestants: [Contestant<'_>; N]) -> [Runs; N] {
    hold_anew(bench, || (), contestants)
}

/// As [`hold`], with something that is done before each round, and before the one that is not measured.
pub(crate) fn hold_anew<S, T, const N: usize>(
    bench: &Bench<S, T>,
    prepare: impl Fn(),
    contestants: [Contestant<'_>; N],
) -> [Runs; N] {
    let mut runs = contestants.each_ref().map(|(name, _)| Runs::of(name));
    for round in 0..=bench.rounds {
        prepare();
        for turn in turns(round, N) {
            let spent = (contestants[turn].1)();
            match round {
                0 => eprintln!("  {} is warm", contestants[turn].0),
                _ => runs[turn].add(spent),
            }
        }
    }
    runs
}

/// Who is measured when, in a round: everyone comes first in turn.
pub(crate) fn turns(round: usize, contestants: usize) -> impl Iterator<Item = usize> {
    (0..contestants).map(move |turn| (round + turn) % contestants)
}

impl Runs {
    fn of(name: &str) -> Runs {
        Runs { times: Samples::of(name), costs: Costs::of(name) }
    }

    fn add(&mut self, spent: Spent) {
        self.times.seconds(self.costs.add(spent));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use super::*;
    use crate::Pair;

    #[test]
    fn the_first_run_is_forgotten_and_everyone_goes_first_in_turn() {
        let bench = Bench {
            crossfade: "crossfade".into(),
            path: "".into(),
            rounds: 2,
            scale: 1.0,
            pair: Pair { source: (), target: () },
        };
        let order = RefCell::new(String::new());
        // A run takes as many seconds as there were runs before it.
        let run = |name: char| {
            let before = order.borrow().len() as u64;
            order.borrow_mut().push(name);
            Spent::from(Duration::from_secs(before))
        };
        let [a, b] = hold(&bench, [("a", &mut || run('a')), ("b", &mut || run('b'))]);
        assert_eq!(order.into_inner(), "abbaab");
        assert_eq!((a.times.values, b.times.values), (vec![3.0, 4.0], vec![2.0, 5.0]));
        assert_eq!(a.costs.figures()[0].samples.values.len(), 2, "what it cost is forgotten as well");
    }
}
