//! The only source of chance: a stream of numbers from a seed.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Throws numbers; the same seed throws the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice { seed, thrown: 0 }
    }

    fn throw(&mut self) -> u64 {
        self.thrown += 1;
        number(self.seed, self.thrown)
    }

    /// Less than `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.throw() % bound
    }

    /// Between the two, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in so many of a hundred throws.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The number that belongs to a moment: independent of how many were asked for before, so that a history from which
/// something was left out runs as before up to there.
pub(crate) fn number(seed: u64, moment: u64) -> u64 {
    xxh3_64_with_seed(&moment.to_le_bytes(), seed)
}
