//! Plays a history: starts the engine, lets it run until something happens to it, starts it again, and at the end, when
//! nothing goes wrong any more, lets it come to its end.
//!
//! A process is a runtime of its own on this one thread. To kill it is to drop it; to stop it in its tracks is not to
//! run it for a while. Time within it is simulated: when everything waits, the clock jumps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use connector::ErrorKind;
use engine::machine::{CaptureRuns, Machine};
use engine::{JournalError, Outcome, Settings, Status, Until};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinHandle};

use crate::check::progress::FOLDER;
use crate::check::{Violation, invariant};
use crate::dice::Dice;
use crate::history::{Fault, History};
use crate::reader::Reader;
use crate::world::{Signal, World};
use crate::writer::Writer;

/// What became of a history.
#[derive(Debug)]
pub struct Played {
    pub violation: Option<Violation>,
    /// It ended with a stop that says why, as one of its faults allows.
    pub refused: bool,
    pub moments: u64,
    pub story: Vec<String>,
}

type Result = std::result::Result<std::result::Result<Outcome, engine::Error>, JoinError>;

/// A history cannot be interrupted more often than it has faults; each costs at most a few starts.
const STARTS_MAX: usize = 100;

pub fn play(history: &History, telling: bool) -> Played {
    let world = World::new(history, telling);
    let mut player = Player {
        history,
        dice: Dice::new(history.seed ^ 0xbeef),
        processes: VecDeque::new(),
        starts: 0,
        refused: false,
        world,
    };
    player.run();
    player.processes.clear();
    let mut inner = player.world.lock();
    Played {
        violation: inner.checks.violation.take(),
        refused: player.refused,
        moments: inner.moment,
        story: std::mem::take(&mut inner.story),
    }
}

struct Player<'a> {
    history: &'a History,
    world: World,
    dice: Dice,
    /// The one in front runs; the others stand still.
    processes: VecDeque<Process>,
    starts: usize,
    refused: bool,
}

struct Process {
    runtime: Runtime,
    feed: JoinHandle<std::result::Result<Outcome, engine::Error>>,
    stop: watch::Sender<bool>,
    /// Kept, as the binary does.
    _status: watch::Receiver<Status>,
    number: usize,
    /// It was started when everything was quiet, so it must come to the end.
    last: bool,
    /// The end of the source's log when it was started.
    asked: u64,
    /// The source has confirmed to it that it still is the same.
    confirmed: Arc<AtomicBool>,
}

enum Event {
    Ended(Result),
    Signal,
}

impl Player<'_> {
    fn run(&mut self) {
        while self.world.lock().checks.violation.is_none() && !self.refused {
            if self.processes.is_empty() && !self.start() {
                return;
            }
            let Some(process) = self.processes.front_mut() else { return };
            match process.go(self.world.notify()) {
                Event::Ended(result) => {
                    let Some(process) = self.processes.pop_front() else { return };
                    if self.ended(&process, result) {
                        return;
                    }
                }
                Event::Signal => {
                    let signal = self.world.lock().take_signal();
                    self.signal(signal);
                }
            }
        }
    }

    fn start(&mut self) -> bool {
        if self.starts == STARTS_MAX {
            self.world.lock().violated(invariant::NEVER_STUCK, format!("started {STARTS_MAX} times"));
            return false;
        }
        let calm = self.world.lock().is_calm();
        let until = match calm {
            true => Until::CaughtUp,
            false => self.history.runs.get(self.starts).copied().unwrap_or(Until::Stopped),
        };
        self.starts += 1;
        match Process::start(&self.world, self.history, until, self.starts) {
            Some(process) => self.processes.push_front(process),
            None => return false,
        }
        true
    }

    fn signal(&mut self, signal: Option<Signal>) {
        match signal {
            None => {}
            Some(Signal::Kill) => {
                self.processes.pop_front();
                self.down();
            }
            Some(Signal::PowerFailed) => self.power_failed(),
            Some(Signal::Pause { until }) if self.processes.len() == 1 => {
                self.world.lock().wake_at(Some(until));
                self.start();
            }
            Some(Signal::Wake) if self.processes.len() > 1 => {
                self.processes.rotate_left(1);
                let mut inner = self.world.lock();
                let next = inner.moment + 1 + self.dice.below(30);
                inner.wake_at(Some(next));
                inner.tell(|| "the other process runs now".to_owned());
            }
            Some(Signal::Pause { .. } | Signal::Wake) => {}
            Some(Signal::Stop) => {
                if let Some(process) = self.processes.front() {
                    process.stop.send_replace(true);
                }
            }
            Some(Signal::Quiet) => {
                // The newest one goes on; what an old one would still do has been seen by now.
                let newest = self.processes.iter().map(|process| process.number).max();
                self.processes.retain(|process| Some(process.number) == newest);
                self.world.lock().become_calm();
                if self.dice.percent(50) {
                    self.processes.clear();
                } else if let Some(process) = self.processes.front() {
                    process.stop.send_replace(true);
                }
            }
            Some(Signal::Stuck) => {
                let mut inner = self.world.lock();
                let moment = inner.moment;
                inner.violated(invariant::NEVER_STUCK, format!("not at the end after {moment} moments"));
            }
        }
    }

    fn power_failed(&mut self) {
        self.processes.clear();
        let mut inner = self.world.lock();
        inner.tell(|| "the power failed; the machine comes up again".to_owned());
        let disk = inner.disk.clone();
        drop(inner);
        disk.crash(&mut self.dice);
        self.down();
    }

    /// Some time passes before anybody starts it again.
    fn down(&mut self) {
        let moments = self.dice.below(30);
        self.world.lock().idle(moments);
    }

    /// True when this was the end of the history.
    fn ended(&mut self, process: &Process, result: Result) -> bool {
        if self.world.lock().disk.is_dead() {
            self.power_failed();
            return false;
        }
        let number = process.number;
        self.world.lock().tell(|| format!("process {number} ended: {result:?}"));
        if let Ok(Ok(outcome)) = &result {
            self.same_source(process, *outcome);
        }
        match result {
            Err(panic) => self.world.lock().false_alarm(panic.to_string()),
            Ok(Err(error)) => self.failed(process, &error),
            Ok(Ok(Outcome::CaughtUp)) => {
                self.caught_up(process);
                let mut inner = self.world.lock();
                if process.last {
                    inner.compare_sides();
                    return true;
                }
            }
            Ok(Ok(Outcome::Held)) => {
                let poisoned = self.history.has(|fault| matches!(fault, Fault::Poison { .. }));
                let mut inner = self.world.lock();
                if (!poisoned && !inner.restored) || process.last {
                    inner.false_alarm("a table is held back".to_owned());
                }
            }
            Ok(Ok(Outcome::Stopped | Outcome::Captured | Outcome::Copied)) => {}
        }
        self.down();
        false
    }

    /// What is said at the end is said of one source. Of a failover in its last moment, after the source's word, it cannot know.
    fn same_source(&self, process: &Process, outcome: Outcome) {
        let mut inner = self.world.lock();
        if outcome != Outcome::Stopped && inner.failed_over && !process.confirmed.load(Ordering::Relaxed) {
            let what = format!("the source has lost transactions, and it says {outcome:?}");
            inner.violated(invariant::CAUGHT_UP, what);
        }
    }

    /// Everything that had been committed when it was started is applied.
    fn caught_up(&self, process: &Process) {
        let mut inner = self.world.lock();
        // It cannot know of a restore in its last moment.
        if !inner.target.finished && (process.last || !inner.restored) {
            inner.violated(invariant::CAUGHT_UP, "the schema is not finished".to_owned());
        }
        let from = inner.prepared.unwrap_or_default();
        let applied = inner.target.progress.as_ref().map_or(from, |progress| progress.position.order);
        let due = inner.source.log.iter().rfind(|committed| committed.end <= process.asked);
        let missing = due.filter(|committed| committed.begin >= from && committed.end > applied);
        // A restore in its last moment it cannot know of, and a source that goes back counts its positions anew.
        let comparable = !inner.restored && !inner.failed_over;
        if let Some(missing) = missing.filter(|_| comparable).map(|committed| committed.xid) {
            inner.violated(invariant::CAUGHT_UP, format!("transaction {missing} is not applied"));
        }
    }

    /// A stop with an error must have its cause in the history.
    fn failed(&mut self, process: &Process, error: &engine::Error) {
        // An owner that was taken over may end in any way but one that does harm, which the checks would see. Of two that
        // ran side by side the one that claimed last is the owner, and it may have been started first.
        let taken_over = self.history.has(|fault| matches!(fault, Fault::Pause { .. })) && !process.last;
        let mut inner = self.world.lock();
        let disk_fails = self.history.has(|fault| matches!(fault, Fault::DiskFull { .. } | Fault::SyncFails));
        let explained = match error {
            engine::Error::Connector(error) if error.kind == ErrorKind::LogLost => {
                self.refused = inner.failed_over;
                inner.failed_over
            }
            engine::Error::Journal(JournalError::Io { .. } | JournalError::Poisoned { .. })
            | engine::Error::Folder { .. } => disk_fails,
            engine::Error::Journal(JournalError::Trimmed { .. }) => {
                self.refused = inner.restored;
                inner.restored
            }
            // The copy meets chunks and rows that it had thrown away, or its claim is gone; when it is started again it
            // knows of that.
            engine::Error::Connector(error)
                if matches!(
                    error.kind,
                    ErrorKind::WentBack | ErrorKind::Conflict | ErrorKind::Refused | ErrorKind::Fenced
                ) =>
            {
                inner.restored
            }
            _ => false,
        };
        // The advice that comes with it would be wrong for an owner that was only taken over.
        let is_lost = matches!(error, engine::Error::Connector(error) if error.kind == ErrorKind::LogLost);
        if !explained && (!taken_over || is_lost) {
            inner.false_alarm(format!("{error} ({})", error.code()));
        }
    }
}

impl Process {
    fn start(world: &World, history: &History, until: Until, number: usize) -> Option<Process> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.ok()?;
        let tuning = &history.tuning;
        let mut settings = Settings::new("sim", FOLDER);
        settings.until = until;
        settings.copy_streams = tuning.copy_streams;
        settings.apply_lanes = tuning.apply_lanes;
        settings.group_changes = tuning.group_changes;
        settings.one_cut_bytes_max = if tuning.by_key_ranges { 0 } else { u64::MAX };
        settings.wave_seconds_max = tuning.wave_seconds_max;
        settings.apply = tuning.apply;
        settings.slice_bytes = tuning.slice_bytes;
        settings.segment_bytes = tuning.segment_bytes;
        let disk = world.lock().disk.clone();
        let machine = Machine { clock: world.clock(), disk: Arc::new(disk), capture: CaptureRuns::AsATask };
        let (status_sender, status) = watch::channel(Status::new("sim"));
        let (stop, stopped) = watch::channel(false);
        let confirmed = Arc::new(AtomicBool::new(false));
        let (reader, writer) =
            (Reader::new(world.clone(), Arc::clone(&confirmed)), Writer::new(world.clone()));
        let feed = engine::run(Arc::new(reader), Arc::new(writer), machine, settings, status_sender, stopped);
        let feed = runtime.spawn(feed);
        let mut inner = world.lock();
        inner.tell(|| format!("process {number} starts, until {until:?}"));
        let (asked, last) = (inner.source.end, inner.is_calm());
        drop(inner);
        Some(Process { runtime, feed, stop, _status: status, number, last, asked, confirmed })
    }

    fn go(&mut self, notify: Arc<Notify>) -> Event {
        let feed = &mut self.feed;
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = notify.notified() => Event::Signal,
                result = feed => Event::Ended(result),
            }
        })
    }
}

impl History {
    pub fn has(&self, fault: impl Fn(&Fault) -> bool) -> bool {
        self.faults.iter().any(|(_, other)| fault(other))
    }
}
