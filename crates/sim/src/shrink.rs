//! Makes a history that breaks an invariant as small as it gets while it still breaks the same one.

use crate::history::{Fault, History, Step};
use crate::play::play;

/// Plays at most this many smaller histories.
const TRIES_MAX: usize = 3000;

pub fn shrink(history: History) -> History {
    let Some(violation) = play(&history, false).violation else { return history };
    let mut shrinking = Shrinking { smallest: history, invariant: violation.invariant, tries: 0 };
    loop {
        let before = shrinking.tries;
        let mut progress = false;
        progress |= shrinking.leave_out(|history| &mut history.faults);
        progress |= shrinking.leave_out(|history| &mut history.steps);
        progress |= shrinking.simplify();
        if !progress || shrinking.tries >= TRIES_MAX || shrinking.tries == before {
            return shrinking.smallest;
        }
    }
}

struct Shrinking {
    smallest: History,
    invariant: &'static str,
    tries: usize,
}

impl Shrinking {
    /// Keeps the candidate if it breaks the same invariant.
    fn keep(&mut self, candidate: History) -> bool {
        if self.tries >= TRIES_MAX {
            return false;
        }
        self.tries += 1;
        let same = play(&candidate, false).violation.is_some_and(|found| found.invariant == self.invariant);
        if same {
            self.smallest = candidate;
        }
        same
    }

    /// Leaves out halves, then quarters, and so on down to single items.
    fn leave_out<T: Clone>(&mut self, items: impl Fn(&mut History) -> &mut Vec<T>) -> bool {
        let mut progress = false;
        let mut size = items(&mut self.smallest).len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < items(&mut self.smallest).len() {
                let mut candidate = self.smallest.clone();
                let list = items(&mut candidate);
                let end = (at + size).min(list.len());
                list.drain(at..end);
                if self.keep(candidate) {
                    progress = true;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
        progress
    }

    fn simplify(&mut self) -> bool {
        let simpler: [fn(&mut History); 10] = [
            |history| history.rows = 0,
            |history| history.rows = history.rows.saturating_sub(1),
            |history| history.tuning.copy_streams = 1,
            |history| history.tuning.apply_lanes = 1,
            |history| history.tuning.segment_bytes = 1 << 20,
            |history| history.tuning.slice_bytes = 1 << 20,
            |history| history.tuning.by_key_ranges = false,
            |history| history.first_xid = 700,
            |history| history.runs.truncate(1),
            |history| {
                for (_, step) in &mut history.steps {
                    if let Step::Commit { visible_after, gap, .. } = step {
                        (*visible_after, *gap) = (0, 0);
                    }
                }
                for (_, fault) in &mut history.faults {
                    if let Fault::SourceRestarts { moments } | Fault::TargetRestarts { moments } = fault {
                        *moments = 0;
                    }
                }
            },
        ];
        let mut progress = false;
        for simplify in simpler {
            let mut candidate = self.smallest.clone();
            simplify(&mut candidate);
            if format!("{candidate:?}") != format!("{:?}", self.smallest) {
                progress |= self.keep(candidate);
            }
        }
        progress
    }
}
