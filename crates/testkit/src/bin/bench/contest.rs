//! Contestants that take turns at the same work.

use std::time::Duration;

use crate::Bench;
use crate::section::Samples;

/// A name, and one measured run of it, which leaves everything as it found it.
pub(crate) type Contestant<'a> = (&'a str, &'a mut dyn FnMut() -> Duration);

/// Every contestant once a round, and another one first in each.
pub(crate) fn hold<const N: usize>(bench: &Bench, contestants: [Contestant<'_>; N]) -> [Samples; N] {
    let mut samples = contestants.each_ref().map(|(name, _)| Samples::of(*name));
    for round in 0..bench.rounds {
        for turn in bench.turns(round, N) {
            let took = (contestants[turn].1)();
            samples[turn].seconds(took);
        }
    }
    samples
}
