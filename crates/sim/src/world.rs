//! The world that the engine runs in: both databases, the disk, the time of day, and the history that unfolds.
//!
//! Every call that reaches a database passes through [`World::moment`], and there everything happens that the engine
//! does not do itself: the application's writes, the faults, the end of waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connector::{Error, ErrorKind, Result};
use engine::machine;
use tokio::sync::Notify;

use crate::check::{Checks, invariant};
use crate::dice::{Dice, number};
use crate::disk::Disk;
use crate::history::{Fault, History, Restore, Step};
use crate::source::Source;
use crate::tables::Shape;
use crate::target::{Poison, Target};
use crate::writer::Lock;

/// A handle; all of them are one world.
#[derive(Clone, Debug)]
pub(crate) struct World {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Target,
}

/// What becomes of the process that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Kill,
    PowerFailed,
    Pause {
        until: u64,
    },
    /// The paused one is to run again.
    Wake,
    Stop,
    /// The application has done everything, and nothing more goes wrong.
    Quiet,
    /// It has had more time than any history needs.
    Stuck,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub shapes: Vec<Shape>,
    pub source: Source,
    pub target: Target,
    pub disk: Disk,
    pub checks: Checks,
    pub moment: u64,
    steps: VecDeque<(u64, Step)>,
    faults: VecDeque<(u64, Fault)>,
    /// Transactions in the log that become visible at a moment.
    shows: Vec<(u64, u64)>,
    seed: u64,
    pub rows_per_chunk: usize,
    /// Connections of an older generation are cut.
    source_side: Link,
    target_side: Link,
    slow_until: u64,
    full_until: u64,
    poison_until: u64,
    pub poison: Poison,
    /// Sessions that write to the target so far; and of those that have a transaction open, whose they are and what they hold.
    pub sessions: u64,
    pub locked: BTreeMap<u64, (u64, Vec<Lock>)>,
    pub redeliver: usize,
    /// The source's log begins after this position.
    pub freed: u64,
    pub acknowledged_before: u64,
    /// The source's history was cut off and continues otherwise; what it had is gone.
    pub failed_over: bool,
    /// What the target had after each of its commits, for a restore.
    pub past: Vec<Target>,
    keep_past: bool,
    pub restored: bool,
    /// Commits that the target is to lose, and when.
    restore: Option<(usize, Restore)>,
    /// The position after which capture began, once it is prepared.
    pub prepared: Option<u64>,
    signal: Option<Signal>,
    notify: Arc<Notify>,
    wake_at: Option<u64>,
    clock_us: i64,
    /// No more faults, so that the history can come to its end.
    calm: bool,
    pub story: Vec<String>,
    telling: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    generation: u64,
    down_until: u64,
}

/// A history of this size is over long before.
const MOMENTS_MAX: u64 = 60_000;

impl World {
    pub(crate) fn new(history: &History, telling: bool) -> World {
        let mut source = Source::new(&history.shapes, history.first_xid, history.prefix_cuts);
        let dice = &mut Dice::new(history.seed ^ 0xf00d);
        for (table, _) in history.shapes.iter().enumerate() {
            for id in 0..history.rows.cast_signed() {
                let nick = dice.percent(50).then_some(id);
                source.write(0, &crate::source::Write::Put { table, id, nick, large: true });
            }
        }
        if let Some(xid) = source.commit(0, 0) {
            source.show(xid);
        }
        let checks = Checks::new(history, &source);
        let target = Target::new(history.shapes.len());
        let inner = Inner {
            shapes: history.shapes.clone(),
            source,
            target,
            disk: Disk::default(),
            checks,
            moment: 0,
            steps: history.steps.iter().cloned().collect(),
            faults: history.faults.iter().cloned().collect(),
            shows: Vec::new(),
            seed: history.seed,
            rows_per_chunk: history.tuning.rows_per_chunk,
            source_side: Link::default(),
            target_side: Link::default(),
            slow_until: 0,
            full_until: 0,
            poison_until: 0,
            poison: Poison::default(),
            sessions: 0,
            locked: BTreeMap::new(),
            redeliver: 0,
            freed: 0,
            acknowledged_before: 0,
            failed_over: false,
            past: Vec::new(),
            keep_past: history.faults.iter().any(|(_, fault)| matches!(fault, Fault::TargetRestored { .. })),
            restored: false,
            restore: None,
            prepared: None,
            signal: None,
            notify: Arc::new(Notify::new()),
            wake_at: None,
            clock_us: 1_700_000_000_000_000,
            calm: false,
            story: Vec::new(),
            telling,
        };
        World { inner: Arc::new(Mutex::new(inner)) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One moment passes: what is due happens, and the call takes its time. Never returns to a process that is dead.
    pub(crate) async fn moment(&self) {
        let pause = {
            let mut inner = self.lock();
            inner.pass();
            inner.pause()
        };
        match pause {
            Some(Duration::ZERO) => tokio::task::yield_now().await,
            Some(pause) => tokio::time::sleep(pause).await,
            None => std::future::pending().await,
        }
    }

    /// Makes a call to one side within a connection: it passes a moment, reaches the database if the connection still
    /// stands, and passes another moment until the answer is there.
    pub(crate) async fn call<T>(
        &self,
        link: Connection,
        operation: &'static str,
        act: impl FnOnce(&mut Inner) -> Result<T>,
    ) -> Result<T> {
        self.moment().await;
        let answer = {
            let mut inner = self.lock();
            link.stands(&inner, operation)?;
            act(&mut inner)?
        };
        self.moment().await;
        link.stands(&self.lock(), operation)?;
        Ok(answer)
    }

    pub(crate) async fn connect(&self, side: Side) -> Result<Connection> {
        self.moment().await;
        let mut inner = self.lock();
        inner.connecting(side);
        let link = inner.link(side);
        if link.down_until > inner.moment {
            return Err(Error::new(ErrorKind::Connect, "connect").with("server", "is away"));
        }
        Ok(Connection { side, generation: link.generation })
    }

    pub(crate) fn notify(&self) -> Arc<Notify> {
        Arc::clone(&self.lock().notify)
    }

    pub(crate) fn clock(&self) -> Arc<dyn machine::Clock> {
        Arc::new(self.clone())
    }
}

impl machine::Clock for World {
    fn now_us(&self) -> i64 {
        let inner = self.lock();
        inner.clock_us + inner.moment.cast_signed() * 1000
    }
}

/// A connection to one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    side: Side,
    generation: u64,
}

impl Connection {
    pub(crate) fn stands(self, inner: &Inner, operation: &'static str) -> Result<()> {
        if inner.link(self.side).generation == self.generation {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Connect, operation).with("connection", "was cut"))
    }
}

impl Inner {
    fn link(&self, side: Side) -> Link {
        match side {
            Side::Source => self.source_side,
            Side::Target => self.target_side,
        }
    }

    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.telling {
            let line = format!("{:>5}  {}", self.moment, what());
            self.story.push(line);
        }
    }

    pub(crate) fn violated(&mut self, invariant: &'static str, what: String) {
        self.tell(|| format!("!! {invariant}: {what}"));
        self.checks.violated(invariant, what, self.moment);
    }

    /// Takes the pending signal.
    pub(crate) fn take_signal(&mut self) -> Option<Signal> {
        self.signal.take()
    }

    fn raise(&mut self, signal: Signal) {
        if self.signal.is_none() {
            self.signal = Some(signal);
            self.notify.notify_one();
        }
    }

    pub(crate) fn wake_at(&mut self, moment: Option<u64>) {
        self.wake_at = moment;
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm
    }

    /// Whether the application has done everything it does.
    pub(crate) fn is_quiet(&self) -> bool {
        self.steps.is_empty() && self.shows.is_empty() && self.faults.is_empty()
    }

    /// No more faults and no more writes: what is open ends, what is broken is repaired.
    pub(crate) fn become_calm(&mut self) {
        self.calm = true;
        self.restore = None;
        self.faults.clear();
        while let Some((_, step)) = self.steps.pop_front() {
            self.step(step);
        }
        for (_, xid) in std::mem::take(&mut self.shows) {
            self.source.show(xid);
        }
        self.source.quiesce();
        self.disk.set_full(false);
        self.poison.active = false;
        (self.slow_until, self.source_side.down_until, self.target_side.down_until) = (0, 0, 0);
        self.tell(|| "the application is quiet and nothing goes wrong any more".to_owned());
    }

    /// Time passes while no process runs.
    pub(crate) fn idle(&mut self, moments: u64) {
        for _ in 0..moments {
            self.pass();
        }
        self.signal = None;
    }

    fn pass(&mut self) {
        self.moment += 1;
        let moment = self.moment;
        while self.steps.front().is_some_and(|(due, _)| *due <= moment)
            && let Some((_, step)) = self.steps.pop_front()
        {
            self.step(step);
        }
        while let Some(at) = self.shows.iter().position(|(due, _)| *due <= moment) {
            let (_, xid) = self.shows.remove(at);
            self.source.show(xid);
            self.tell(|| format!("transaction {xid} becomes visible"));
        }
        while self.faults.front().is_some_and(|(due, _)| *due <= moment)
            && let Some((_, fault)) = self.faults.pop_front()
        {
            self.tell(|| format!("FAULT {fault:?}"));
            self.fault(fault);
        }
        if self.full_until != 0 && self.full_until <= moment {
            self.full_until = 0;
            self.disk.set_full(false);
        }
        if self.poison_until != 0 && self.poison_until <= moment {
            self.poison_until = 0;
            self.poison.active = false;
        }
        if self.disk.is_dead() {
            self.raise(Signal::PowerFailed);
        }
        if self.wake_at.is_some_and(|due| due <= moment) {
            self.wake_at = None;
            self.raise(Signal::Wake);
        }
        if self.is_quiet() && !self.calm {
            self.raise(Signal::Quiet);
        }
        if moment > MOMENTS_MAX {
            self.raise(Signal::Stuck);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { client, write } => {
                let done = self.source.write(client, &write);
                self.tell(|| {
                    format!("client {client}: {write:?}{}", if done { "" } else { " (not possible)" })
                });
            }
            Step::Commit { client, visible_after, gap } => {
                let Some(xid) = self.source.commit(client, gap) else { return };
                self.tell(|| format!("client {client}: commit of {xid}, visible {visible_after} later"));
                match visible_after {
                    0 => self.source.show(xid),
                    after => self.shows.push((self.moment + after, xid)),
                }
            }
            Step::Rollback { client } => {
                if self.source.rollback(client) {
                    self.tell(|| format!("client {client}: rollback"));
                }
            }
            Step::Prepare { client } => {
                if self.source.prepare(client) {
                    self.tell(|| format!("client {client}: prepare transaction"));
                }
            }
            Step::EndPrepared { commit } => {
                if let Some(xid) = self.source.end_prepared(commit, 0) {
                    self.source.show(xid);
                    self.tell(|| format!("prepared transaction {xid} commits"));
                }
            }
            Step::Noise => self.source.noise(),
        }
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Kill => self.raise(Signal::Kill),
            Fault::PowerFails { after_writes } => self.disk.fail_power(after_writes),
            Fault::Pause { moments } => self.raise(Signal::Pause { until: self.moment + moments }),
            Fault::Stop => self.raise(Signal::Stop),
            Fault::SourceConnectionsCut => self.source_side.generation += 1,
            Fault::TargetConnectionsCut => self.target_side.generation += 1,
            Fault::SourceRestarts { moments } => {
                self.source.restart();
                self.shows.clear();
                self.source_side.generation += 1;
                self.source_side.down_until = self.moment + moments;
            }
            Fault::TargetRestarts { moments } => {
                self.target_side.generation += 1;
                self.target_side.down_until = self.moment + moments;
            }
            Fault::Redelivers { transactions } => {
                self.redeliver = transactions;
                self.source_side.generation += 1;
            }
            Fault::DiskFull { moments } => {
                self.disk.set_full(true);
                self.full_until = self.moment + moments;
            }
            Fault::SyncFails => self.disk.fail_next_sync(),
            Fault::Slow { moments } => self.slow_until = self.moment + moments,
            Fault::ClockJumps { seconds } => self.clock_us += seconds * 1_000_000,
            Fault::Poison { table, moments } => {
                self.poison = Poison { table, active: true };
                self.poison_until = self.moment + moments;
            }
            Fault::SourceFailsOver { lost } => {
                self.source.restart();
                self.shows.clear();
                self.source.forget(lost);
                self.failed_over = true;
                self.source_side.generation += 1;
            }
            Fault::TargetRestored { commits, when: Restore::Now } => self.restore(commits),
            Fault::TargetRestored { commits, when } => self.restore = Some((commits, when)),
        }
    }

    /// A row is being fetched alone.
    pub(crate) fn fetching(&mut self) {
        if let Some((commits, Restore::AtFetch)) = self.restore {
            self.restore = None;
            self.tell(|| format!("the target is restored, {commits} commits back"));
            self.restore(commits);
        }
    }

    fn connecting(&mut self, side: Side) {
        let Some((commits, Restore::WhenPassed { connections })) = self.restore else { return };
        if side != Side::Target || !self.target.has_passed_cuts(self.shapes.len()) {
            return;
        }
        self.restore = match connections.checked_sub(1) {
            Some(connections) => Some((commits, Restore::WhenPassed { connections })),
            None => {
                self.tell(|| format!("the target is restored, {commits} commits back"));
                self.restore(commits);
                None
            }
        };
    }

    fn restore(&mut self, commits: usize) {
        let Some(at) = self.past.len().checked_sub(commits + 1) else { return };
        self.target = self.past[at].clone();
        self.past.truncate(at + 1);
        self.restored = true;
        self.target_side.generation += 1;
        self.checks.restored(&self.target);
    }

    /// To be called after each commit of the target.
    pub(crate) fn remember(&mut self) {
        if self.keep_past {
            self.past.push(self.target.clone());
        }
    }

    /// How long the call takes; `None` for ever.
    fn pause(&self) -> Option<Duration> {
        if matches!(self.signal, Some(Signal::Kill | Signal::PowerFailed | Signal::Stuck)) {
            return None;
        }
        let number = number(self.seed, self.moment);
        let millis = match number % 16 {
            0..11 => 0,
            11..15 => 1 + number / 16 % 8,
            _ => 20 + number / 16 % 100,
        };
        let slow = self.slow_until > self.moment;
        Some(Duration::from_millis(if slow { 20 * millis + 40 } else { millis }))
    }

    /// An end that no fault of this history explains.
    pub(crate) fn false_alarm(&mut self, what: String) {
        self.violated(invariant::NO_FALSE_ALARM, what);
    }
}
