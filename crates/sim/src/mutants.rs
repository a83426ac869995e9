//! Shows that the checks see every sabotage of a rule: each is switched on, and histories are played until one breaks an
//! invariant.

use std::sync::atomic::{AtomicU64, Ordering};

use model::mutant::{self, Mutant};

use crate::history::History;
use crate::play::play;

/// The first history that caught a sabotage.
pub struct Caught {
    pub histories: u64,
    pub seed: u64,
    pub invariant: &'static str,
}

/// Plays histories from this seed on until one catches the sabotage, at most so many.
pub fn hunt(mutant: Mutant, from: u64, histories_max: u64, threads: u64) -> Option<Caught> {
    mutant::activate(Some(mutant));
    let (next, found) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    // A thread that is behind still looks at the histories before the one that was found.
                    if at >= histories_max || at >= found.load(Ordering::Relaxed) {
                        return;
                    }
                    if play(&History::new(from + at), false).violation.is_some() {
                        found.fetch_min(at, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let at = found.load(Ordering::Relaxed);
    let caught = (at < histories_max).then(|| play(&History::new(from + at), false).violation).flatten();
    mutant::activate(None);
    caught.map(|violation| Caught { histories: at + 1, seed: from + at, invariant: violation.invariant })
}
