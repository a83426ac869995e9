//! Where the copy obeys the throttle: between the blocks of its chunks.
//!
//! The limit is one of bytes, not of time: what is in the sockets' buffers on the way, up to some megabytes, keeps both
//! servers at work long after we have stopped to read, so a share of our time would say nothing of theirs. The pauses come
//! after each block and are short. Rare and long ones would let the servers work in bursts, and the application wait for each.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector::{Block, ChunkStream, Load, Reader, Result};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;

use crate::capture::chain;
use crate::meter::Meter;
use crate::retry::Backoff;
use crate::throttle::Throttle;

/// The pace of all streams of a copy together.
pub(crate) struct Pace {
    /// Bytes a second; `None` is as fast as it goes.
    limit: watch::Sender<Option<u64>>,
    debt: Mutex<Debt>,
    passed: AtomicU64,
    /// While there is a limit, one stream runs at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Bytes that were passed on before their time.
struct Debt {
    bytes: f64,
    at: Instant,
}

impl Pace {
    pub(crate) fn new() -> Arc<Pace> {
        Arc::new(Pace {
            limit: watch::channel(None).0,
            debt: Mutex::new(Debt { bytes: 0.0, at: Instant::now() }),
            passed: AtomicU64::new(0),
            turn: Arc::default(),
        })
    }

    fn debt(&self) -> MutexGuard<'_, Debt> {
        self.debt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep(self: &Arc<Self>, stream: Box<dyn ChunkStream>) -> Paced {
        Paced { stream, pace: Arc::clone(self), turn: None, rest: Bytes::new() }
    }

    fn passed(&self, bytes: usize) {
        self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.limit.borrow().is_some() {
            self.debt().bytes += bytes as f64;
        }
    }

    /// How long to wait until the debt is paid off.
    fn due(&self, limit: u64) -> Duration {
        let mut debt = self.debt();
        let now = Instant::now();
        debt.bytes = (debt.bytes - (now - debt.at).as_secs_f64() * limit as f64).max(0.0);
        debt.at = now;
        Duration::from_secs_f64(debt.bytes / limit as f64)
    }

    async fn wait(&self, turn: &mut Option<OwnedMutexGuard<()>>) {
        loop {
            let Some(limit) = *self.limit.borrow() else {
                *turn = None;
                return;
            };
            if turn.is_none() {
                let mut open = self.limit.subscribe();
                tokio::select! {
                    biased;
                    _ = open.wait_for(Option::is_none) => continue,
                    got = Arc::clone(&self.turn).lock_owned() => *turn = Some(got),
                }
            }
            let due = self.due(limit);
            if due.is_zero() {
                return;
            }
            tokio::time::sleep(due.min(NAP)).await;
        }
    }

    /// Follows the source's load for as long as it is polled.
    pub(crate) async fn follow(&self, reader: &dyn Reader, meter: &Meter) -> Infallible {
        let mut throttle = Throttle::new();
        let began = Instant::now();
        let mut backoff = Backoff::new();
        self.limit.send_replace(throttle.limit());
        meter.throttle(throttle.reason());
        loop {
            let load = match tokio::time::timeout(PATIENCE, reader.probe()).await {
                Ok(Ok(load)) => load,
                Ok(Err(error)) => {
                    // The limit stays as it is. Whether the source is gone is for those to say who need it.
                    tracing::debug!(error = %chain(&error), "how busy the source is is not known");
                    backoff.wait().await;
                    continue;
                }
                Err(_) => Load { latency: PATIENCE, others: None },
            };
            backoff.reset();
            throttle.sample(began.elapsed(), &load, self.passed.load(Ordering::Relaxed));
            self.limit.send_replace(throttle.limit());
            meter.throttle(throttle.reason());
            tokio::time::sleep(throttle.pause()).await;
        }
    }
}

/// A source that does not answer a trivial question for so long is busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// The limit is looked at again at least so often.
const NAP: Duration = Duration::from_millis(100);

/// What the target is given at a time while there is a limit: it writes that much within the third of a millisecond,
/// while a whole block would keep a processor busy for longer than a scheduler lets others wait.
const PIECE_BYTES: usize = 32 * 1024;

/// Rows that are not encoded yet have no length; a guess is enough for a pace.
const ROW_BYTES: usize = 100;

/// A chunk at this pace.
pub(crate) struct Paced {
    stream: Box<dyn ChunkStream>,
    pace: Arc<Pace>,
    /// Held while there is a limit.
    turn: Option<OwnedMutexGuard<()>>,
    /// What is left of a block that is passed on in pieces.
    rest: Bytes,
}

#[async_trait]
impl ChunkStream for Paced {
    async fn next(&mut self) -> Result<Option<Block>> {
        self.pace.wait(&mut self.turn).await;
        let block = match std::mem::take(&mut self.rest) {
            rest if rest.is_empty() => self.stream.next().await?,
            rest => Some(Block::Raw(rest)),
        };
        Ok(match block {
            Some(Block::Raw(mut bytes)) => {
                if self.turn.is_some() {
                    self.rest = bytes.split_off(PIECE_BYTES.min(bytes.len()));
                }
                self.pace.passed(bytes.len());
                Some(Block::Raw(bytes))
            }
            Some(Block::Rows(rows)) => {
                self.pace.passed(ROW_BYTES * rows.len());
                Some(Block::Rows(rows))
            }
            None => None,
        })
    }

    fn rows(&self) -> u64 {
        self.stream.rows()
    }
}
