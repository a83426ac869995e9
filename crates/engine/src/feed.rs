//! The map of the data plane: what happens in which order, from the claim to following.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use connector::{Claim, Copied, ErrorKind, NativeSchema, Owner, Reader, RowCut, Writer, failpoint};
use model::{Catalog, Loaded, Position, mutant};
use tokio::sync::watch;

use crate::apply::{Applying, Ended, Goal};
use crate::capture::{CLOSING, Capturing, chain};
use crate::copy::Copying;
use crate::error::Error;
use crate::journal::{self, Append, Journal};
use crate::machine::{CaptureRuns, Machine};
use crate::merge::Cuts;
use crate::meter::Meter;
use crate::pace::Pace;
use crate::plan::fingerprint;
use crate::retry::{Backoff, can_retry};
use crate::status::{Phase, Status};
use crate::store::{self, Plan};
use crate::{Settings, Until, drift};

/// Why [`run`] returned without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to stop; everything done is durable.
    Stopped,
    Captured,
    Copied,
    CaughtUp,
    /// Everything is caught up but for tables that are held back by a quarantined change.
    Held,
}

/// Runs one feed until it is done, told to stop, or cannot go on.
///
/// Temporary faults (lost connections, restarting servers) are retried inside and shown in `status.retrying`.
/// An error is final: what was done is durable, and running again goes on from there.
pub async fn run(
    reader: Arc<dyn Reader>,
    writer: Arc<dyn Writer>,
    machine: Machine,
    settings: Settings,
    status: watch::Sender<Status>,
    stop: watch::Receiver<bool>,
) -> Result<Outcome, Error> {
    let begun = begin(reader.as_ref(), writer.as_ref(), &machine, &settings, &status, stop.clone()).await?;
    let Some(Begun { claim, plan, journal, append }) = begun else { return Ok(Outcome::Stopped) };
    whole_journal(&settings, &journal, &claim)?;

    // One switch for all parts: thrown by the caller's stop, or by the end of this feed.
    let (halt, halted) = watch::channel(*stop.borrow());
    let meter = Arc::new(Meter::new(&settings.name, Arc::clone(&machine.clock)));
    meter.planned(&plan.catalog);
    meter.resumed(claim.progress.as_ref());
    let (captured, awaited) = (watch::channel(None).0, watch::channel(None).0);
    let feed = Feed {
        reader,
        writer,
        machine,
        owner: Owner { stream: settings.name.clone(), epoch: claim.epoch, settled: false },
        catalog: Arc::new(plan.catalog),
        // Long where there are many tables, and not asked for any more once everything is built.
        native: plan.native.filter(|_| !claim.finished),
        settings,
        start: plan.start,
        journal,
        captured,
        awaited,
        meter,
        trimmable: Arc::new(AtomicU64::new(0)),
        stop: halted,
    };
    let mut capture = feed.start_capture(append)?;
    let mut capture_ended = false;
    let work = async {
        let failed = tokio::select! {
            biased;
            outcome = feed.work(claim) => match outcome {
                Ok(outcome) => return Ok(outcome),
                Err(failed) => failed,
            },
            failed = capture_failed(&mut capture, &mut capture_ended) => failed,
            failed = feed.watch(&status) => failed,
        };
        Err(feed.cause(failed).await)
    };
    let outcome = tokio::select! {
        biased;
        outcome = work => outcome,
        never = throw(&halt, stop) => match never {},
    };
    halt.send_replace(true);
    // It tells the source where we are. What it may be waiting for otherwise, a disk for instance, is not waited for.
    if !capture_ended {
        match tokio::time::timeout(2 * CLOSING, capture).await {
            Ok(Ok(Ok(()))) => {}
            // The outcome stands: it is about what is durable already. The next run meets what is wrong.
            Ok(Ok(Err(error))) => tracing::warn!(error = %chain(&error), "capture failed while it ended"),
            Ok(Err(_)) => tracing::error!("capture panicked while it ended"),
            Err(_) => {
                tracing::warn!("capture is not at its end in time; the source may not know where we are")
            }
        }
    }
    feed.publish(&status);
    // A short run may end between two of the regular trims.
    feed.journal.trim(feed.trimmable.load(Ordering::Relaxed))?;
    outcome
}

/// What the work begins with.
struct Begun {
    claim: Claim,
    plan: Plan,
    journal: Journal,
    append: Append,
}

/// Takes the stream over, finds or makes the plan and opens the journal, trying again while a server cannot be reached.
/// Each step may be repeated: a claim only raises the epoch, and a plan counts once it is stored.
async fn begin(
    reader: &dyn Reader,
    writer: &dyn Writer,
    machine: &Machine,
    settings: &Settings,
    status: &watch::Sender<Status>,
    mut stop: watch::Receiver<bool>,
) -> Result<Option<Begun>, Error> {
    let mut backoff = Backoff::new();
    let attempt = async || -> Result<Begun, Error> {
        let mut claim = writer.claim(&settings.name).await?;
        failpoint::hit(failpoint::CLAIM_AFTER);
        let plan = match store::load(machine.disk.as_ref(), &settings.dir)? {
            Some(plan) => plan,
            None => make_plan(reader, machine, settings, &claim).await?,
        };
        let (journal, append) = open_journal(writer, machine, settings, &mut claim).await?;
        Ok(Begun { claim, plan, journal, append })
    };
    loop {
        let result = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
            result = attempt() => result,
        };
        match result {
            Err(Error::Connector(error)) if error.kind == ErrorKind::Connect && can_retry(&error) => {
                tracing::warn!(error = %chain(&error), "the migration cannot begin yet; trying again");
                status.send_modify(|status| status.retrying = Some(format!("begin: {}", chain(&error))));
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return Ok(None),
                    () = backoff.wait() => {}
                }
            }
            result => return result.map(Some),
        }
    }
}

/// Introspects the source and creates what capture needs there. From here on the plan stands.
async fn make_plan(
    reader: &dyn Reader,
    machine: &Machine,
    settings: &Settings,
    claim: &Claim,
) -> Result<Plan, Error> {
    if claim.progress.is_some() || !claim.chunks.is_empty() {
        return Err(Error::UnknownMigration { name: settings.name.clone(), dir: settings.dir.clone() });
    }
    let catalog = reader.catalog(&settings.selection).await?;
    // The schema is told while the log is being prepared: neither needs the other, and before the first change is applied the
    // schema is compared with the plan's again.
    let (native, start) =
        tokio::join!(reader.native_schema(&catalog), reader.prepare(&settings.name, &catalog));
    let native = match native {
        Ok(native) => Some(native),
        // Not needed when the target has its tables already; where it is needed, `create` says so.
        Err(error) if error.kind == ErrorKind::Setup => {
            tracing::warn!(error = %chain(&error), "the schema cannot be carried over; the target must have it already");
            None
        }
        Err(error) => {
            // There will be no plan, so nobody would read what the source keeps for us from here on.
            if start.is_ok()
                && let Err(error) = reader.release(&settings.name, &catalog).await
            {
                tracing::warn!(error = %chain(&error), "what was prepared on the source is still there");
            }
            return Err(error.into());
        }
    };
    let start = start?;
    failpoint::hit(failpoint::PREPARE_AFTER);
    let plan =
        Plan { name: settings.name.clone(), catalog, native, start, planned_us: machine.clock.now_us() };
    store::save(machine.disk.as_ref(), &settings.dir, &plan)?;
    failpoint::hit(failpoint::PLAN_AFTER);
    Ok(plan)
}

/// Opens the journal under the claim's epoch.
///
/// A target that was restored knows fewer owners than the journal does. Nobody but us owns it, so it is claimed again until
/// the epoch is new to the journal as well: an old owner that is still about would else share it.
async fn open_journal(
    writer: &dyn Writer,
    machine: &Machine,
    settings: &Settings,
    claim: &mut Claim,
) -> Result<(Journal, Append), Error> {
    let dir = store::journal_dir(&settings.dir);
    loop {
        let disk = Arc::clone(&machine.disk);
        match Journal::open_on(disk, &dir, claim.epoch, settings.segment_bytes) {
            Err(journal::Error::Fenced { found, .. }) => {
                let owner = Owner { stream: settings.name.clone(), epoch: claim.epoch, settled: false };
                // Fenced when somebody has taken over since, whose epoch it is that the journal knows.
                writer.ledger(&owner).await?;
                tracing::warn!(
                    found,
                    epoch = claim.epoch,
                    "the target knows fewer owners than the journal; was it restored?"
                );
                while claim.epoch <= found {
                    *claim = writer.claim(&settings.name).await?;
                }
            }
            opened => return Ok(opened?),
        }
    }
}

/// The journal must reach to where the target stands: what is missing between them is nowhere else.
fn whole_journal(settings: &Settings, journal: &Journal, claim: &Claim) -> Result<(), Error> {
    let journal_seq = journal.last().map_or(0, |(seq, _)| seq);
    let applied_seq = claim.progress.as_ref().map_or(0, |progress| progress.seq);
    if applied_seq > journal_seq {
        return Err(Error::JournalBehind {
            dir: store::journal_dir(&settings.dir),
            journal_seq,
            applied_seq,
        });
    }
    // Said now, and not when the copy is done and the log is needed.
    let (from_seq, first_seq) = (applied_seq + 1, journal.first_seq());
    if first_seq > from_seq {
        return Err(
            journal::Error::Trimmed { dir: store::journal_dir(&settings.dir), from_seq, first_seq }.into()
        );
    }
    Ok(())
}

/// The positions by which all transactions that a cut contains have been delivered, of each cut.
fn settled<'a>(chunks: &'a [Loaded], rows: &'a [RowCut]) -> impl Iterator<Item = &'a Position> {
    chunks.iter().map(|loaded| &loaded.settled).chain(rows.iter().map(|row| &row.settled))
}

struct Feed {
    reader: Arc<dyn Reader>,
    writer: Arc<dyn Writer>,
    machine: Machine,
    owner: Owner,
    catalog: Arc<Catalog>,
    native: Option<NativeSchema>,
    settings: Settings,
    /// The log was prepared here.
    start: Position,
    journal: Journal,
    captured: watch::Sender<Option<Position>>,
    awaited: watch::Sender<Option<Position>>,
    meter: Arc<Meter>,
    trimmable: Arc<AtomicU64>,
    stop: watch::Receiver<bool>,
}

impl Feed {
    /// The pipeline, and the source's word at its end that it still is the one whose log is followed. While capture is not
    /// connected another server may take over: its cuts and positions do not belong to the log, which may have passed them.
    async fn work(&self, claim: Claim) -> Result<Outcome, Error> {
        let outcome = self.pipeline(claim).await?;
        if outcome == Outcome::Stopped || mutant::on(mutant::RUN_ENDS_UNASKED) {
            return Ok(outcome);
        }
        Ok(self.same_source().await?.map_or(Outcome::Stopped, |()| outcome))
    }

    async fn same_source(&self) -> Result<Option<()>, Error> {
        let position = self.journal.last().map_or_else(|| self.start.clone(), |(_, position)| position);
        self.persist("source", || self.reader.keeps(&self.settings.name, &position)).await
    }

    /// Why the run must end, where what has failed only follows from it: another server may have taken over from the source,
    /// and another owner from us, who lets the source free what we would ask for and may have ended by now.
    async fn cause(&self, failed: Error) -> Error {
        tracing::warn!(error = %chain(&failed), "the run cannot go on");
        if failed.code() == "CF-FENCED" || mutant::on(mutant::RUN_ENDS_UNASKED) {
            return failed;
        }
        let lost = match is(&failed, ErrorKind::LogLost) {
            true => failed,
            false => match self.told("source", self.same_source(), ErrorKind::LogLost).await {
                Some(lost) => lost,
                None => return failed,
            },
        };
        tracing::warn!(error = %chain(&lost), "the source does not keep its log for us");
        // A successor has a segment in the folder before it moves the source's log on; only one with another folder does not.
        match self.journal.check_owner(self.owner.epoch) {
            Err(taken_over @ journal::Error::Fenced { .. }) => return taken_over.into(),
            Err(error) => tracing::warn!(error = %chain(&error), "whose the journal is is not known"),
            Ok(()) => {}
        }
        let ledger = self.persist("owner", || self.writer.ledger(&self.owner));
        self.told("owner", ledger, ErrorKind::Fenced).await.unwrap_or(lost)
    }

    /// The error of this kind that the question ends with, if it does in time.
    async fn told<T>(
        &self,
        part: &'static str,
        question: impl Future<Output = Result<T, Error>>,
        kind: ErrorKind,
    ) -> Option<Error> {
        let answer = tokio::time::timeout(PATIENCE, question).await;
        self.meter.retrying(part, None);
        match answer {
            Ok(Ok(_)) => None,
            Ok(Err(error)) if is(&error, kind) => Some(error),
            Ok(Err(error)) => {
                tracing::warn!(part, error = %chain(&error), "not answered");
                None
            }
            Err(_) => {
                tracing::warn!(part, "not answered in time");
                None
            }
        }
    }

    /// The order of the work: tables, copy, keys, the log up to where all cuts are settled, the rest of the schema,
    /// and then the log for as long as is asked.
    async fn pipeline(&self, claim: Claim) -> Result<Outcome, Error> {
        if self.settings.until == Until::Captured {
            return self.captured().await;
        }
        if !claim.finished {
            let created = self
                .persist("create", || self.writer.create(&self.owner, &self.catalog, self.native.as_ref()));
            if created.await?.is_none() {
                return Ok(Outcome::Stopped);
            }
            failpoint::hit(failpoint::CREATE_AFTER);
        }
        let copied = watch::channel(Copied::default()).0;
        let copy = self.copy(claim.chunks.clone(), copied.clone());
        if self.settings.until == Until::Copied {
            return Ok(if copy.await?.is_some() { Outcome::Copied } else { Outcome::Stopped });
        }
        let keys = self.keys(!claim.finished, copied.subscribe());
        let (Some(ledger), Some(())) = tokio::try_join!(copy, keys)? else { return Ok(Outcome::Stopped) };
        // The log is read in the shape of the plan, so the shape is compared before the first change is applied.
        let Some(now) = self.persist("schema", || self.reader.catalog(&self.settings.selection)).await?
        else {
            return Ok(Outcome::Stopped);
        };
        self.same_schema(&now)?;
        self.meter.phase(Phase::Following);
        let mut applying = self.applying(&ledger, &claim)?;
        if !claim.finished && !self.settle(&mut applying, claim.settled).await? {
            return Ok(Outcome::Stopped);
        }
        self.follow(applying).await
    }

    /// Waits until the journal has what the source had committed by now.
    async fn captured(&self) -> Result<Outcome, Error> {
        let asked = self.persist("position", || self.reader.position()).await?;
        let Some(asked) = asked else { return Ok(Outcome::Stopped) };
        self.awaited.send_replace(Some(asked.clone()));
        let (mut captured, mut stop) = (self.captured.subscribe(), self.stop.clone());
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Ok(Outcome::Stopped),
            // The sender lives in `self`.
            _ = captured.wait_for(|captured| captured.as_ref().is_some_and(|captured| *captured >= asked)) => {
                Ok(Outcome::Captured)
            }
        }
    }

    /// Creates the keys, each once its table is copied, unless they are there.
    async fn keys(&self, missing: bool, copied: watch::Receiver<Copied>) -> Result<Option<()>, Error> {
        if !missing {
            return Ok(Some(()));
        }
        let keyed = self.persist("keys", || {
            let (native, builders) = (self.native.as_ref(), self.settings.copy_streams);
            self.writer.create_keys(&self.owner, &self.catalog, native, copied.clone(), builders)
        });
        let keyed = keyed.await?;
        if keyed.is_some() {
            failpoint::hit(failpoint::KEYS_AFTER);
        }
        Ok(keyed)
    }

    async fn copy(
        &self,
        ledger: Vec<Loaded>,
        copied: watch::Sender<Copied>,
    ) -> Result<Option<Vec<Loaded>>, Error> {
        self.meter.phase(Phase::Copying);
        for loaded in &ledger {
            if let Some(at) = self.catalog.position(&loaded.chunk.table) {
                self.meter.chunk(at, loaded, false);
            }
        }
        let pace = Pace::new();
        let copying = Copying {
            reader: Arc::clone(&self.reader),
            writer: Arc::clone(&self.writer),
            owner: self.owner.clone(),
            catalog: Arc::clone(&self.catalog),
            settings: self.settings.clone(),
            meter: Arc::clone(&self.meter),
            pace: Arc::clone(&pace),
            stop: self.stop.clone(),
            copied,
            journal: self.journal.clone(),
        };
        let ledger = tokio::select! {
            biased;
            copied = copying.run(ledger) => copied,
            never = pace.follow(self.reader.as_ref(), &self.meter), if self.settings.throttle => match never {},
        };
        self.meter.throttle(None);
        ledger
    }

    fn applying(&self, ledger: &[Loaded], claim: &Claim) -> Result<Applying, Error> {
        let row_cuts = claim.row_cuts.iter().map(|row| (row.table.clone(), row.key.clone(), row.cut.clone()));
        let mut cuts = Cuts::new(&self.catalog, ledger, row_cuts)?;
        if claim.settled {
            cuts.settle();
        }
        let newest = settled(ledger, &claim.row_cuts).max().cloned();
        let index = |name: &model::TableName| self.catalog.position(name);
        let held: BTreeMap<usize, u64> =
            claim.holds.iter().filter_map(|hold| Some((index(&hold.table)?, hold.from_seq))).collect();
        for hold in &claim.holds {
            if let Some(table) = index(&hold.table) {
                self.meter.quarantined(table, hold.clone(), None);
            }
        }
        Ok(Applying {
            reader: Arc::clone(&self.reader),
            writer: Arc::clone(&self.writer),
            owner: self.owner.clone(),
            catalog: Arc::clone(&self.catalog),
            settings: self.settings.clone(),
            journal: self.journal.clone(),
            captured: self.captured.subscribe(),
            awaited: self.awaited.clone(),
            meter: Arc::clone(&self.meter),
            stop: self.stop.clone(),
            cuts,
            settled: newest.unwrap_or(Position { order: 0, text: String::new() }),
            known: claim.progress.as_ref().map_or(0, |progress| progress.seq),
            chunks: fingerprint(ledger),
            held,
            tried: HashSet::new(),
            finished: claim.finished,
            trimmable: Arc::clone(&self.trimmable),
            isolate_upto: 0,
            alone_upto: 0,
        })
    }

    /// Passes all cuts and finishes the schema. False when it was told to stop before. With tables held back the schema stays
    /// unfinished. Also when the cuts are passed already, what the source has done by now is applied first: it may mend what
    /// stood in the schema's way.
    async fn settle(&self, applying: &mut Applying, settled: bool) -> Result<bool, Error> {
        let goal = match settled {
            true => self.persist("position", || self.reader.position()).await?.map(Goal::Position),
            false => Some(Goal::Settled),
        };
        let Some(goal) = goal else { return Ok(false) };
        if applying.run(goal).await? == Ended::Stopped {
            return Ok(false);
        }
        if !applying.held.is_empty() {
            return Ok(true);
        }
        let owner = Owner { settled: true, ..self.owner.clone() };
        let finished = self.persist("finish", || {
            let builders = self.settings.copy_streams;
            self.writer.finish(&owner, &self.catalog, self.native.as_ref(), builders)
        });
        let Some(left_out) = finished.await? else { return Ok(false) };
        for (item, reason) in left_out {
            tracing::warn!(%item, %reason, "left out of the target's schema");
        }
        applying.finished = true;
        failpoint::hit(failpoint::FINISH_AFTER);
        Ok(true)
    }

    async fn follow(&self, mut applying: Applying) -> Result<Outcome, Error> {
        if self.settings.until == Until::Stopped {
            applying.run(Goal::Never).await?;
            return Ok(Outcome::Stopped);
        }
        let asked = self.persist("position", || self.reader.position()).await?;
        let Some(asked) = asked else { return Ok(Outcome::Stopped) };
        if applying.run(Goal::Position(asked)).await? == Ended::Stopped {
            return Ok(Outcome::Stopped);
        }
        let now = self.persist("schema", || self.reader.catalog(&self.settings.selection)).await?;
        let Some(now) = now else { return Ok(Outcome::Stopped) };
        self.same_schema(&now)?;
        if !applying.held.is_empty() {
            return Ok(Outcome::Held);
        }
        self.persist("sequences", || self.advance_sequences()).await?;
        Ok(Outcome::CaughtUp)
    }

    async fn advance_sequences(&self) -> connector::Result<()> {
        let sequences = self.reader.sequences(&self.catalog).await?;
        self.writer.advance_sequences(&self.owner, &sequences).await
    }

    fn same_schema(&self, now: &Catalog) -> Result<(), Error> {
        match drift::difference(&self.catalog, now) {
            None => Ok(()),
            Some(what) => Err(Error::SchemaChanged { what }),
        }
    }

    /// Tries an idempotent operation until it succeeds, fails for good, or the feed is told to stop (`None`).
    async fn persist<T, F, O>(&self, part: &'static str, mut operation: O) -> Result<Option<T>, Error>
    where
        F: Future<Output = connector::Result<T>>,
        O: FnMut() -> F,
    {
        let mut stop = self.stop.clone();
        let mut backoff = Backoff::new();
        loop {
            let result = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(None),
                result = operation() => result,
            };
            match result {
                Ok(value) => {
                    self.meter.retrying(part, None);
                    return Ok(Some(value));
                }
                Err(error) if can_retry(&error) => {
                    tracing::warn!(part, error = %chain(&error), "trying again");
                    self.meter.retrying(part, Some(chain(&error)));
                    backoff.wait().await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn start_capture(
        &self,
        append: Append,
    ) -> Result<tokio::sync::oneshot::Receiver<Result<(), Error>>, Error> {
        let capturing = Capturing {
            clock: Arc::clone(&self.machine.clock),
            reader: Arc::clone(&self.reader),
            stream: self.settings.name.clone(),
            catalog: Arc::clone(&self.catalog),
            journal: self.journal.clone(),
            start: self.start.clone(),
            captured: self.captured.clone(),
            awaited: self.awaited.subscribe(),
            meter: Arc::clone(&self.meter),
            stop: self.stop.clone(),
        };
        let (ended, result) = tokio::sync::oneshot::channel();
        let capture = async move {
            if ended.send(capturing.run(append).await).is_err() {
                tracing::debug!("capture ended after the feed");
            }
        };
        if self.machine.capture == CaptureRuns::AsATask {
            tokio::spawn(capture);
            return Ok(result);
        }
        let failed = |source: std::io::Error| Error::Task { what: "captures", reason: source.to_string() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || runtime.block_on(capture))
            .map_err(failed)?;
        Ok(result)
    }

    /// Publishes the status, frees the journal, keeps sequences ahead and watches the source's schema. Returns only
    /// when the feed must stop.
    async fn watch(&self, status: &watch::Sender<Status>) -> Error {
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks: u64 = 0;
        loop {
            tick.tick().await;
            ticks += 1;
            self.publish(status);
            if let Err(error) = self.journal.trim(self.trimmable.load(Ordering::Relaxed)) {
                return error.into();
            }
            if ticks.is_multiple_of(EVERY_SECOND) {
                // Bounded: a source that does not answer must not stop the status and the trimming.
                match tokio::time::timeout(PATIENCE, self.reader.position()).await {
                    Ok(Ok(position)) => self.meter.source_position(position),
                    Ok(Err(error)) => {
                        tracing::debug!(error = %chain(&error), "the source's position is not known")
                    }
                    Err(_) => tracing::debug!("the source does not tell its position in time"),
                }
            }
            if ticks.is_multiple_of(EVERY_TEN_SECONDS) {
                match tokio::time::timeout(PATIENCE, self.reader.catalog(&self.settings.selection)).await {
                    Ok(Ok(now)) => match self.same_schema(&now) {
                        Ok(()) => {}
                        Err(error) => return error,
                    },
                    Ok(Err(error)) if can_retry(&error) => {
                        tracing::debug!(error = %chain(&error), "the source's schema could not be compared");
                    }
                    Ok(Err(error)) => return error.into(),
                    Err(_) => tracing::debug!("the source does not tell its schema in time"),
                }
            }
        }
    }

    fn publish(&self, status: &watch::Sender<Status>) {
        let captured_seq = *self.journal.durable().borrow();
        let applied = self.trimmable.load(Ordering::Relaxed);
        let captured = self.captured.borrow().clone();
        let now = self.meter.status(
            captured,
            captured_seq,
            self.journal.bytes_after(0),
            self.journal.bytes_after(applied),
        );
        status.send_if_modified(|known| {
            let changed = *known != now;
            if changed {
                *known = now;
            }
            changed
        });
    }
}

/// For questions whose answer is only shown, or only tells more of what is known.
const PATIENCE: Duration = Duration::from_secs(5);

const EVERY_SECOND: u64 = 4;
const EVERY_TEN_SECONDS: u64 = 40;

fn is(error: &Error, kind: ErrorKind) -> bool {
    matches!(error, Error::Connector(error) if error.kind == kind)
}

async fn capture_failed(
    capture: &mut tokio::sync::oneshot::Receiver<Result<(), Error>>,
    ended: &mut bool,
) -> Error {
    let result = capture.await;
    *ended = true;
    match result {
        Ok(Err(error)) => error,
        // Told to stop: the pipeline ends for the same reason and says so.
        Ok(Ok(())) => std::future::pending().await,
        Err(_) => Error::Task { what: "captures", reason: "it panicked".into() },
    }
}

/// Hands the caller's stop on to all parts.
async fn throw(halt: &watch::Sender<bool>, mut stop: watch::Receiver<bool>) -> std::convert::Infallible {
    if stop.wait_for(|stop| *stop).await.is_ok() {
        halt.send_replace(true);
    }
    std::future::pending().await
}
