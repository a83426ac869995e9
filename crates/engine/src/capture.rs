//! Writes the source's log into the journal and lets the source free what is durable there.
//!
//! The order that safety depends on is in [`Session::drain`]: append, fsync, then acknowledge. The source is never
//! told of a position that the journal could still lose.

use std::sync::Arc;
use std::time::Duration;

use connector::{Event, Reader, failpoint};
use model::{Catalog, Position, Transaction, mutant};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::journal::{Append, Journal};
use crate::machine::Clock;
use crate::meter::Meter;
use crate::retry::{Backoff, can_retry};

/// What capture works on.
pub(crate) struct Capturing {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) stream: String,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) journal: Journal,
    /// The position after which capture began, for a journal that is still empty.
    pub(crate) start: Position,
    /// Up to where the source's log is durable in the journal, quiet stretches included.
    pub(crate) captured: watch::Sender<Option<Position>>,
    /// Somebody waits until `captured` reaches this.
    pub(crate) awaited: watch::Receiver<Option<Position>>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Capturing {
    /// Captures until it is told to stop. Lost connections are opened again; a transaction that was cut off by
    /// one is forgotten and comes again from its start.
    pub(crate) async fn run(mut self, mut append: Append) -> Result<(), Error> {
        let mut backoff = Backoff::new();
        loop {
            if !mutant::on(mutant::CAPTURE_KEEPS_TORN) {
                append.abandon();
            }
            // What was committed and not synced yet is not in the position that the log is asked from; it would come twice.
            if !mutant::on(mutant::CAPTURE_RESUMES_UNSYNCED) {
                append.sync()?;
            }
            // An owner that was taken over while it stood still must not take the log from its successor.
            append.check_owner()?;
            match self.session(&mut append, &mut backoff).await {
                Err(Error::Connector(error)) if can_retry(&error) => {
                    tracing::warn!(error = %chain(&error), "capture lost the source; trying again");
                    self.meter.retrying("capture", Some(chain(&error)));
                    tokio::select! {
                        biased;
                        _ = self.stop.wait_for(|stop| *stop) => return Ok(()),
                        () = backoff.wait() => {}
                    }
                }
                ended => return ended,
            }
        }
    }

    async fn session(&mut self, append: &mut Append, backoff: &mut Backoff) -> Result<(), Error> {
        let after = self.journal.last().map_or_else(|| self.start.clone(), |(_, position)| position);
        let (mut stop, mut awaited) = (self.stop.clone(), self.awaited.clone());
        let mut capture = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            capture = self.reader.capture(&self.stream, &self.catalog, &after) => capture?,
        };
        // What the journal holds up to here is durable, whether or not the log goes on.
        self.captured.send_replace(Some(after.clone()));
        let mut session = Session {
            clock: self.clock.as_ref(),
            awaited: self.awaited.clone(),
            append,
            last: after,
            open: false,
            repeated: false,
            unsynced: false,
            sync_due: Instant::now(),
            idle: None,
            idle_due: Instant::now(),
        };
        let mut events = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                delivered = capture.next(&mut events) => delivered?,
                () = tokio::time::sleep_until(session.sync_due), if session.unsynced => {}
                () = tokio::time::sleep_until(session.idle_due), if session.idle.is_some() => {}
                // The sender lives as long as the feed.
                Ok(()) = awaited.changed(), if session.idle.is_some() => {}
            }
            backoff.reset();
            self.meter.retrying("capture", None);
            if let Some(position) = session.drain(&mut events)? {
                capture.acknowledge(&position).await?;
                failpoint::hit(failpoint::CAPTURE_AFTER_ACKNOWLEDGE);
                self.captured.send_replace(Some(position));
            }
        }
        // Otherwise the source would keep its log for us, and read it again when we are back.
        match tokio::time::timeout(CLOSING, capture.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = %chain(&error), "the source was not told where we are"),
            Err(_) => tracing::debug!("the source does not take in time where we are"),
        }
        Ok(())
    }
}

/// A source that is told where we are may take so long to hear it.
pub(crate) const CLOSING: Duration = Duration::from_secs(1);

/// A quiet stretch of the log that nobody waits for is journaled at most this often: each costs an fsync here, on a disk
/// that may be the source's, and an update of the progress on the target. A source that is shut down waits for it.
const IDLE_EVERY: Duration = Duration::from_secs(1);

/// The journal is synced at most this often while the log flows: what comes in between shares one fsync.
const SYNC_EVERY: Duration = Duration::from_millis(10);

struct Session<'a> {
    clock: &'a dyn Clock,
    awaited: watch::Receiver<Option<Position>>,
    append: &'a mut Append,
    /// The last boundary that was appended.
    last: Position,
    /// A transaction has begun and has not committed.
    open: bool,
    /// The transaction that is being delivered is in the journal already.
    repeated: bool,
    unsynced: bool,
    /// The next fsync is not before this moment.
    sync_due: Instant,
    /// A later boundary with nothing of ours before it, not appended yet.
    idle: Option<Position>,
    idle_due: Instant,
}

impl Session<'_> {
    /// Appends the events and makes them durable. Returns the position that may be acknowledged now.
    fn drain(&mut self, events: &mut Vec<Event>) -> Result<Option<Position>, Error> {
        for event in events.drain(..) {
            match event {
                Event::Begin(transaction) => {
                    self.open = true;
                    self.idle = None;
                    // A source may not know how far we are and begin earlier; taken twice, every change would be
                    // applied twice.
                    self.repeated =
                        transaction.order <= self.last.order && !mutant::on(mutant::CAPTURE_TAKES_TWICE);
                    if !self.repeated {
                        self.append.begin(transaction);
                    }
                }
                // Also of a repeated transaction: the source describes a table once.
                Event::Relation(relation) => self.append.relation(&relation)?,
                Event::Change(_) if self.repeated => {}
                Event::Change(change) => self.append.change(&change)?,
                Event::Commit { .. } if self.repeated => (self.open, self.repeated) = (false, false),
                Event::Commit { position } => {
                    self.append.commit(&position);
                    self.open = false;
                    self.unsynced = true;
                    self.last = position;
                }
                // Inside a transaction an idle position would skip its beginning after a restart.
                Event::Idle { position }
                    if position > self.last && (!self.open || mutant::on(mutant::CAPTURE_IDLE_INSIDE)) =>
                {
                    self.idle = Some(position);
                }
                Event::Idle { .. } => {}
            }
        }
        self.append_idle();
        if !self.unsynced || Instant::now() < self.sync_due {
            return Ok(None);
        }
        failpoint::hit(failpoint::CAPTURE_BEFORE_FSYNC);
        self.append.sync()?;
        self.unsynced = false;
        self.sync_due = Instant::now() + SYNC_EVERY;
        failpoint::hit(failpoint::CAPTURE_AFTER_FSYNC);
        Ok(Some(self.last.clone()))
    }

    /// A quiet stretch is journaled as a transaction without changes: only what is durable here may be
    /// acknowledged, or the next capture would ask for a position that the source has let go of.
    fn append_idle(&mut self) {
        let awaited = |idle: &Position| {
            self.awaited.borrow().as_ref().is_some_and(|awaited| self.last < *awaited && awaited <= idle)
        };
        if self.open {
            return;
        }
        let due = Instant::now() >= self.idle_due;
        let Some(position) = self.idle.take_if(|idle| due || awaited(idle)) else { return };
        self.idle_due = Instant::now() + IDLE_EVERY;
        self.append.begin(Transaction {
            seq: 0,
            id: 0,
            order: position.order,
            committed_us: self.clock.now_us(),
        });
        self.append.commit(&position);
        self.unsynced = true;
        self.last = position;
    }
}

/// An error with its causes on one line, for the log and the status.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
