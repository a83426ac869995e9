//! Waits between tries of something that may succeed later.

use std::time::Duration;

use connector::Retry;

/// 200 ms, doubled up to 5 s: short enough that a restarted server is picked up at once, long enough that a server
/// that is down for hours is not hammered.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(LONGEST);
    }
}

/// Whether a later try can succeed. An unknown outcome counts: every write begins by reading back what is on record.
pub(crate) fn can_retry(error: &connector::Error) -> bool {
    matches!(error.retry, Retry::Later | Retry::Unknown)
}
