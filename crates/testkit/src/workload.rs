//! Applications in miniature that write all the time: [`shop`] and [`kiosk`] to PostgreSQL, [`till`] to SQLite, [`market`] to
//! MariaDB.
//!
//! Seeded: the same seed makes the same sequence of attempts in each writer. What is committed in which order
//! is the server's affair, so a run is not repeatable to the row, and need not be: the oracle compares ends.

pub mod kiosk;
pub mod made;
pub mod market;
pub mod shop;
pub mod till;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// How hard to write.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub seed: u64,
    pub writers: u64,
    /// Between two transactions of one writer, at most; the half of it on average.
    pub pause_ms_max: u64,
    /// TRUNCATE now and then.
    pub truncate: bool,
}

impl Default for Load {
    /// Three writers leave a machine of two cores enough for two servers and the migration.
    fn default() -> Load {
        Load { seed: 1, writers: 3, pause_ms_max: 10, truncate: false }
    }
}

/// What writers did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub committed: u64,
    pub rolled_back: u64,
    /// By the database: deadlocks, serialization failures, violated constraints.
    pub refused: u64,
    pub reconnects: u64,
}

/// Writers at work. Dropping them stops them.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

impl Writers {
    /// Starts `load.writers` threads; each gets its number, its random numbers and the stop flag.
    fn spawn(
        load: Load,
        work: impl Fn(fastrand::Rng, &AtomicBool) -> Tally + Clone + Send + 'static,
    ) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..load.writers)
            .map(|number| {
                let (stop, work) = (Arc::clone(&stop), work.clone());
                // Apart by a large odd number, so that neighbouring seeds do not share writers.
                let rng = fastrand::Rng::with_seed(
                    load.seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
                );
                std::thread::spawn(move || work(rng, &stop))
            })
            .collect();
        Writers { stop, threads }
    }

    /// Lets each writer end its transaction, and adds up what they did. Panics if a writer panicked.
    pub fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let threads = std::mem::take(&mut self.threads);
        threads.into_iter().map(|thread| thread.join().expect("a writer panicked")).sum()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("a writer panicked");
            }
        }
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Tally>>(tallies: I) -> Tally {
        tallies.fold(Tally::default(), |sum, one| Tally {
            committed: sum.committed + one.committed,
            rolled_back: sum.rolled_back + one.rolled_back,
            refused: sum.refused + one.refused,
            reconnects: sum.reconnects + one.reconnects,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { committed, rolled_back, refused, reconnects } = self;
        write!(
            f,
            "{committed} committed, {rolled_back} rolled back, {refused} refused, {reconnects} reconnects"
        )
    }
}
