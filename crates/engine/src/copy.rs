//! Copies the past: waves of chunk reads, each wave with one exact cut.
//!
//! A table is copied either under one cut (fastest, any key; must finish within its wave, so an interrupted one
//! begins again) or by key ranges under as many cuts as it takes (survives waves and crashes range by range). The
//! chunk ledger on the target says what is done; nothing else is believed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use connector::{Copied, ErrorKind, Format, Owner, Reader, Slicing, Wave, Writer, failpoint};
use model::{Catalog, Chunk, Key, Loaded, Range, Table, mutant};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::capture::chain;
use crate::error::Error;
use crate::journal::Journal;
use crate::meter::Meter;
use crate::pace::Pace;
use crate::plan::{by_table, fit_together, gaps, incomplete};
use crate::retry::{Backoff, can_retry};
use crate::status::TablePhase;
use crate::{Settings, drift};

/// What the copy works on.
pub(crate) struct Copying {
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) writer: Arc<dyn Writer>,
    pub(crate) owner: Owner,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) settings: Settings,
    pub(crate) meter: Arc<Meter>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) copied: watch::Sender<Copied>,
    /// What the source has written meanwhile.
    pub(crate) journal: Journal,
}

impl Copying {
    /// Copies every table that `ledger` does not show complete, and returns the whole ledger; `None` when it was
    /// told to stop before.
    pub(crate) async fn run(self, mut ledger: Vec<Loaded>) -> Result<Option<Vec<Loaded>>, Error> {
        let this = Arc::new(self);
        let mut by_keys = HashSet::new();
        let mut backoff = Backoff::new();
        loop {
            let incomplete = incomplete(&this.catalog, &ledger);
            this.copied
                .send_modify(|copied| copied.tables.retain(|at| incomplete.binary_search(at).is_err()));
            // In order, as the catalog is.
            for at in (0..this.catalog.tables.len()).filter(|at| incomplete.binary_search(at).is_err()) {
                this.meter.table_phase(at, TablePhase::Copied);
                this.table_copied(at);
            }
            if incomplete.is_empty() {
                this.all_copied();
                return Ok(Some(ledger));
            }
            if *this.stop.borrow() {
                return Ok(None);
            }
            let (new, outcome) = match this.begin_again(&incomplete, &mut ledger, &mut by_keys).await {
                Ok(()) => this.wave(&incomplete, &ledger, &by_keys).await,
                Err(error) => (Vec::new(), Err(error)),
            };
            if !new.is_empty() {
                backoff.reset();
            }
            ledger.extend(new);
            match outcome {
                Ok(()) => this.meter.retrying("copy", None),
                Err(Error::Connector(error)) if can_retry(&error) => {
                    tracing::warn!(error = %chain(&error), "a wave of the copy was lost; a new one begins");
                    this.meter.retrying("copy", Some(chain(&error)));
                    let mut stop = this.stop.clone();
                    tokio::select! {
                        biased;
                        _ = stop.wait_for(|stop| *stop) => return Ok(None),
                        () = backoff.wait() => {}
                    }
                    // The answer to a commit may have been lost with the connection: only the ledger knows.
                    if mutant::on(mutant::COPY_BELIEVES_MEMORY) {
                        continue;
                    }
                    match this.ledger_on_record(&mut backoff).await? {
                        Some(found) => ledger = found,
                        None => return Ok(None),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Says so where the table is large enough for its indexes to be worth an early beginning.
    fn table_copied(&self, at: usize) {
        if self.catalog.tables[at].bytes < LARGE_BYTES {
            return;
        }
        self.copied.send_if_modified(|copied| {
            let new = !copied.tables.contains(&at);
            if new {
                copied.tables.push(at);
                copied.quiet = self.is_quiet(copied.tables.iter().map(|&at| &self.catalog.tables[at]));
            }
            new
        });
    }

    fn all_copied(&self) {
        self.copied.send_modify(|copied| {
            copied.all = true;
            copied.quiet = self.is_quiet(&self.catalog.tables);
        });
    }

    /// Whether the source has written little, as far as it is known, beside the rows of these tables.
    fn is_quiet<'a>(&self, tables: impl IntoIterator<Item = &'a Table>) -> bool {
        let bytes: u64 = tables.into_iter().map(|table| table.bytes).sum();
        self.journal.bytes_after(0) < bytes / QUIET_PART
    }

    /// `None` when it was told to stop before the target answered.
    async fn ledger_on_record(&self, backoff: &mut Backoff) -> Result<Option<Vec<Loaded>>, Error> {
        let mut stop = self.stop.clone();
        loop {
            match self.writer.ledger(&self.owner).await {
                Ok(ledger) => return Ok(Some(ledger)),
                Err(error) if can_retry(&error) => self.meter.retrying("copy", Some(chain(&error))),
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(None),
                () = backoff.wait() => {}
            }
        }
    }

    /// The tables of which rows of different cuts may meet: the client can order the keys, and no unique index is there on
    /// which such rows could collide.
    async fn can_cut_by_keys(&self, tables: Vec<usize>) -> Result<Vec<usize>, Error> {
        let ordered = |at: &usize| self.catalog.tables[*at].key_order().is_some();
        let ordered: Vec<usize> = tables.into_iter().filter(ordered).collect();
        if ordered.is_empty() {
            return Ok(ordered);
        }
        let tables: Vec<&Table> = ordered.iter().map(|&at| &self.catalog.tables[at]).collect();
        let unique = self.writer.have_unique(&tables).await?;
        Ok(ordered.into_iter().zip(unique).filter(|(_, unique)| !unique).map(|(at, _)| at).collect())
    }

    /// Chooses the tables that are copied by key ranges (large ones, where possible), and forgets the chunks of tables
    /// that were interrupted under one cut: the cut is gone, and a row that moved between blocks since would be lost
    /// or doubled. Such a table goes on by key ranges where it can, so that interruptions that come faster than
    /// a copy cannot keep it from ever finishing.
    async fn begin_again(
        &self,
        incomplete: &[usize],
        ledger: &mut Vec<Loaded>,
        by_keys: &mut HashSet<usize>,
    ) -> Result<(), Error> {
        let by_table = by_table(ledger);
        let begun = |at: usize| by_table.get(&self.catalog.tables[at].name).map_or(&[][..], Vec::as_slice);
        let large = |at: usize| self.catalog.tables[at].bytes > self.settings.one_cut_bytes_max;
        let wanted = |at: &usize| !by_keys.contains(at) && (large(*at) || !begun(*at).is_empty());
        let wanted = incomplete.iter().copied().filter(wanted).collect();
        by_keys.extend(self.can_cut_by_keys(wanted).await?);
        let torn = |at: &usize| {
            let (table, begun) = (&self.catalog.tables[*at], begun(*at));
            // Key ranges are good under any number of cuts, where such cuts may meet.
            let in_keys = begun.iter().all(|loaded| matches!(loaded.chunk.range, Range::Keys { .. }))
                && fit_together(table, begun);
            let goes_on = begun.is_empty() || (in_keys && by_keys.contains(at));
            !(goes_on || mutant::on(mutant::COPY_KEEPS_TORN_TABLE))
        };
        let torn: Vec<usize> = incomplete.iter().copied().filter(torn).collect();
        for at in torn {
            let table = &self.catalog.tables[at];
            self.writer.reset(&self.owner, table).await?;
            failpoint::hit(failpoint::TABLE_AFTER_RESET);
            ledger.retain(|loaded| loaded.chunk.table != table.name);
            self.meter.reset(at);
        }
        Ok(())
    }

    /// One wave over these tables. Returns what was loaded, also when it failed in the middle.
    async fn wave(
        self: &Arc<Self>,
        incomplete: &[usize],
        ledger: &[Loaded],
        by_keys: &HashSet<usize>,
    ) -> (Vec<Loaded>, Result<(), Error>) {
        let tables: Vec<&Table> = incomplete.iter().map(|&at| &self.catalog.tables[at]).collect();
        let wave: Arc<dyn Wave> = match self.reader.wave(&tables, self.settings.copy_streams).await {
            Ok(wave) => wave.into(),
            Err(error) => return (Vec::new(), Err(error.into())),
        };
        failpoint::hit(failpoint::WAVE_AFTER_CUT);
        let queue = Arc::new(Mutex::new(Queue::new(self, incomplete, ledger, by_keys)));
        let mut workers = JoinSet::new();
        // One more than there are readers: while a chunk is being committed, its reader has the next.
        for _ in 0..=self.settings.copy_streams {
            let (this, wave, queue) = (Arc::clone(self), Arc::clone(&wave), Arc::clone(&queue));
            workers.spawn(async move { this.work(wave.as_ref(), &queue).await });
        }
        let mut loaded = Vec::new();
        let mut outcome = Ok(());
        while let Some(ended) = workers.join_next().await {
            let (new, result) = match ended {
                Ok(ended) => ended,
                Err(error) if error.is_cancelled() => continue,
                Err(error) => (Vec::new(), Err(Error::Task { what: "copies", reason: error.to_string() })),
            };
            loaded.extend(new);
            if result.is_err() && outcome.is_ok() {
                outcome = result;
                // The others finish the chunk they are at; a chunk that is cut off now would only be done twice.
                queue.lock().await.close();
            }
        }
        (loaded, outcome)
    }

    /// One worker: chunk after chunk until the queue has no more.
    async fn work(&self, wave: &dyn Wave, queue: &Mutex<Queue>) -> (Vec<Loaded>, Result<(), Error>) {
        let mut loaded = Vec::new();
        loop {
            if *self.stop.borrow() {
                return (loaded, Ok(()));
            }
            let job = match queue.lock().await.next(self, wave).await {
                Ok(Some(job)) => job,
                Ok(None) => return (loaded, Ok(())),
                Err(Error::Connector(error)) if !can_retry(&error) => {
                    return (loaded, Err(self.explain(error).await));
                }
                Err(error) => return (loaded, Err(error)),
            };
            let mut stop = self.stop.clone();
            let copied = tokio::select! {
                biased;
                // A chunk that is dropped here has not been committed; it is copied again.
                _ = stop.wait_for(|stop| *stop) => return (loaded, Ok(())),
                copied = self.chunk(wave, &job) => copied,
            };
            match copied {
                Ok(chunk) => {
                    loaded.push(chunk);
                    if queue.lock().await.done(job.table) {
                        self.table_copied(job.table);
                    }
                }
                Err(Error::Connector(error)) if !can_retry(&error) => {
                    return (loaded, Err(self.explain(error).await));
                }
                // The table was rewritten under the cut. The next wave reads it again; the others go on.
                Err(Error::Connector(error)) if error.kind == ErrorKind::Schema && can_retry(&error) => {
                    tracing::info!(table = %job.chunk.table, error = %chain(&error), "the table is read again in the next wave");
                    queue.lock().await.give_up(job.table);
                }
                Err(error) => return (loaded, Err(error)),
            }
        }
    }

    async fn chunk(&self, wave: &dyn Wave, job: &Job) -> Result<Loaded, Error> {
        let table = &self.catalog.tables[job.table];
        let format = self.format(table)?;
        self.meter.table_phase(job.table, TablePhase::Copying);
        let mut data = self.pace.keep(wave.read(table, &job.chunk.range, format).await?);
        let loaded = self
            .writer
            .load(&self.owner, table, &job.chunk, wave.cut(), wave.settled(), format, &mut data)
            .await?;
        failpoint::hit(failpoint::CHUNK_AFTER_COMMIT);
        self.meter.chunk(job.table, &loaded, true);
        Ok(loaded)
    }

    /// A chunk that was refused because its table is not the planned one any more is a schema change, whatever the
    /// target made of its bytes.
    async fn explain(&self, error: connector::Error) -> Error {
        match self.reader.catalog(&self.settings.selection).await {
            Ok(now) => match drift::difference(&self.catalog, &now) {
                Some(what) => Error::SchemaChanged { what },
                None => error.into(),
            },
            Err(_) => error.into(),
        }
    }

    fn format(&self, table: &Table) -> Result<Format, Error> {
        let accepted = self.writer.formats(table);
        let no_format = || Error::NoFormat { table: table.name.clone() };
        self.reader.formats(table).into_iter().find(|format| accepted.contains(format)).ok_or_else(no_format)
    }
}

/// An index of fewer rows is built within a second or two, when everything is copied.
const LARGE_BYTES: u64 = 64 << 20;

/// With changes of less than this part of the rows, indexes cost less when they are there before the changes are applied: none
/// of the time for building them is then spent after the copy.
const QUIET_PART: u64 = 16;

/// Every stream gets several chunks of a table, so that none is left alone with a long last one.
fn chunk_bytes(settings: &Settings, table: &Table) -> u64 {
    let share = table.bytes / (CHUNKS_PER_STREAM * settings.copy_streams.max(1) as u64);
    share.max(CHUNK_BYTES_MIN).min(settings.chunk_bytes)
}

const CHUNKS_PER_STREAM: u64 = 12;

/// In less than this a chunk's own cost, of a commit and a record, is felt.
const CHUNK_BYTES_MIN: u64 = 8 << 20;

struct Job {
    table: usize,
    chunk: Chunk,
}

/// What a wave still has to do, largest tables first so that the tail is short.
struct Queue {
    jobs: VecDeque<Job>,
    /// By table, the chunks that are planned and not loaded yet.
    pending: HashMap<usize, usize>,
    /// Tables under one cut that are not planned yet, smallest first.
    one_cut: Vec<usize>,
    by_keys: VecDeque<KeyTable>,
    /// No new key ranges from here on: the snapshot has been held long enough.
    deadline: Instant,
    /// Key ranges that a table may get at a time.
    ranges_max: usize,
    planned_any: bool,
    closed: bool,
}

/// A table that is copied by key ranges, and what is missing of it.
struct KeyTable {
    table: usize,
    /// In key order; the last one may be open at its end.
    gaps: VecDeque<crate::plan::Gap>,
    next_number: u32,
}

impl Queue {
    fn new(copying: &Copying, incomplete: &[usize], ledger: &[Loaded], by_keys: &HashSet<usize>) -> Queue {
        let by_table = by_table(ledger);
        let catalog = &copying.catalog;
        let (keyed, mut one_cut): (Vec<usize>, Vec<usize>) =
            incomplete.iter().partition(|at| by_keys.contains(at));
        one_cut.sort_by_key(|&at| catalog.tables[at].bytes);
        let by_keys = keyed
            .into_iter()
            .map(|at| {
                let table = &catalog.tables[at];
                let chunks = by_table.get(&table.name).map_or(&[][..], Vec::as_slice);
                KeyTable {
                    table: at,
                    gaps: gaps(chunks, table.key_order().unwrap_or(&[])).into(),
                    next_number: chunks.iter().map(|loaded| loaded.chunk.number + 1).max().unwrap_or(0),
                }
            })
            .collect();
        let seconds = copying.settings.wave_seconds_max;
        Queue {
            jobs: VecDeque::new(),
            pending: HashMap::new(),
            one_cut,
            by_keys,
            deadline: Instant::now() + Duration::from_secs(seconds),
            // A wave of no duration gives every range a cut of its own.
            ranges_max: if seconds == 0 { 1 } else { 4 * copying.settings.copy_streams.max(1) },
            planned_any: false,
            closed: false,
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.jobs.clear();
    }

    fn give_up(&mut self, table: usize) {
        self.jobs.retain(|job| job.table != table);
        self.pending.remove(&table);
        self.by_keys.retain(|keyed| keyed.table != table);
    }

    /// A chunk of this table is loaded. True when it was the table's last.
    fn done(&mut self, table: usize) -> bool {
        let Some(pending) = self.pending.get_mut(&table) else { return false };
        *pending -= 1;
        *pending == 0 && !self.by_keys.iter().any(|keyed| keyed.table == table && !keyed.gaps.is_empty())
    }

    async fn next(&mut self, copying: &Copying, wave: &dyn Wave) -> Result<Option<Job>, Error> {
        loop {
            if self.closed {
                return Ok(None);
            }
            if let Some(job) = self.jobs.pop_front() {
                return Ok(Some(job));
            }
            if let Some(table) = self.one_cut.pop() {
                self.plan_one_cut(copying, wave, table).await?;
            } else if !self.plan_keys(copying, wave).await? {
                return Ok(None);
            }
        }
    }

    async fn plan_one_cut(&mut self, copying: &Copying, wave: &dyn Wave, at: usize) -> Result<(), Error> {
        let table = &copying.catalog.tables[at];
        let ranges = wave.plan(table, &Slicing::OneCut, chunk_bytes(&copying.settings, table)).await?;
        let last = ranges.len() - 1;
        copying.meter.chunks_planned(at, ranges.len());
        *self.pending.entry(at).or_default() += ranges.len();
        self.jobs.extend(ranges.into_iter().enumerate().map(|(number, range)| Job {
            table: at,
            chunk: Chunk {
                table: table.name.clone(),
                number: u32::try_from(number).unwrap_or(u32::MAX),
                range,
                last: number == last,
            },
        }));
        Ok(())
    }

    /// Plans some more ranges of the first table that has any missing; false when the wave shall end.
    async fn plan_keys(&mut self, copying: &Copying, wave: &dyn Wave) -> Result<bool, Error> {
        // At least one range a wave, or a wave shorter than its own beginning would make no progress.
        if self.planned_any && Instant::now() >= self.deadline {
            return Ok(false);
        }
        let Some(mut keyed) = self.by_keys.pop_front() else { return Ok(false) };
        let Some(gap) = keyed.gaps.pop_front() else { return Ok(true) };
        self.planned_any = true;
        let table = &copying.catalog.tables[keyed.table];
        let slicing =
            Slicing::Keys { after: gap.after.clone(), upto: gap.upto.clone(), ranges_max: self.ranges_max };
        let ranges = match wave.plan(table, &slicing, chunk_bytes(&copying.settings, table)).await {
            Ok(ranges) => ranges,
            Err(error) => {
                // What is missing stays known: the others still ask whether the table is complete.
                keyed.gaps.push_front(gap);
                self.by_keys.push_front(keyed);
                return Err(error.into());
            }
        };
        let mut reached: Option<Option<Key>> = None;
        for range in ranges {
            let Range::Keys { upto, .. } = &range else { continue };
            reached = Some(upto.clone());
            let last = upto.is_none();
            let chunk = Chunk { table: table.name.clone(), number: keyed.next_number, range, last };
            keyed.next_number += 1;
            *self.pending.entry(keyed.table).or_default() += 1;
            self.jobs.push_back(Job { table: keyed.table, chunk });
        }
        if let Some(reached) = reached
            && reached != gap.upto
        {
            keyed.gaps.push_front(crate::plan::Gap { after: reached, upto: gap.upto });
        }
        self.by_keys.push_back(keyed);
        Ok(true)
    }
}
