//! Bounded waits. The bound is generous: it is there to end a hang with a message, never to measure.

use std::time::{Duration, Instant};

/// On a loaded machine with two cores, a step that takes two seconds alone may take thirty.
pub const LONG: Duration = Duration::from_secs(180);

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
