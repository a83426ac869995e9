//! Writes several groups of transactions at a time, and commits them in the source's order.
//!
//! A group is a whole number of source transactions in one target transaction. Each lane is a session of its own, and
//! groups go round the lanes. A lane begins with the rows that no uncommitted group before its own touches, waits for its
//! turn, writes the rest, and commits. So every committed state of the target is one that the source's log passed
//! through, there is one record of progress, and a lane waits only for lanes before it.
//!
//! The turn is passed from each group to the next when it is committed. A lane that ends in any other way, and be it by a
//! panic, drops the turn, and so ends those behind it, one after the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use connector::{Applier, ApplyError, Progress, Refusal, Step};
use model::{Catalog, mutant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::apart::{OpenGroups, Touched};
use crate::error::Error;
use crate::meter::Meter;

/// What is assembled: a group, or a piece of one that is too large.
pub(crate) struct Slice {
    pub(crate) steps: Vec<Step>,
    /// At the group's end.
    pub(crate) commit: Option<Commit>,
    /// Nothing of the group has been sent before.
    pub(crate) first: bool,
}

pub(crate) struct Commit {
    pub(crate) progress: Progress,
    pub(crate) committed_us: i64,
    pub(crate) transactions: u64,
    pub(crate) changes: HashMap<usize, u64>,
    /// Rows that they came down to.
    pub(crate) rows: u64,
}

/// A slice on its way into a lane.
struct Piece {
    /// Written at once.
    now: Vec<Step>,
    /// Written when it is the group's turn.
    later: Vec<Step>,
    /// The last transaction before the group.
    after: u64,
    /// Comes when `after` is committed; `None` when the lane has it.
    turn: Option<Turn>,
    /// Of the group's last piece, with the turn of the next group.
    commit: Option<(Commit, PassOn)>,
}

type Turn = oneshot::Receiver<()>;
type PassOn = oneshot::Sender<()>;

pub(crate) struct Lanes {
    pieces: Vec<mpsc::Sender<Piece>>,
    tasks: JoinSet<Result<(), ApplyError>>,
    /// Why the first lane failed.
    outcome: Result<(), LaneError>,
    /// The lane that gets the next slice.
    current: usize,
    /// The last transaction of the last group that was sent as a whole.
    sent: u64,
    /// Of the group after it; `None` when nothing is before that group, and when its first piece has taken it along.
    turn: Option<Turn>,
    open: OpenGroups,
    /// Up to this transaction each group waits for its turn as a whole.
    alone_upto: u64,
    applied: watch::Receiver<u64>,
    /// One for each lane, so that they are woken in order.
    halts: Vec<oneshot::Sender<()>>,
    halted: Arc<AtomicBool>,
    size: Arc<GroupSize>,
}

/// Why a lane ended.
#[derive(Debug)]
pub(crate) enum LaneError {
    Refused(Box<Refusal>),
    Failed(Error),
}

impl Lanes {
    /// One lane for each applier; `applied` is the last transaction that the target has.
    pub(crate) fn open(
        appliers: Vec<Box<dyn Applier>>,
        catalog: &Arc<Catalog>,
        applied: u64,
        alone_upto: u64,
        group_rows_max: u64,
        meter: &Arc<Meter>,
    ) -> Lanes {
        let collide = |table: usize| appliers.iter().any(|applier| applier.rows_collide(table));
        let open = OpenGroups::new(Arc::clone(catalog), collide);
        let (committed, applied_now) = watch::channel(applied);
        let halted = Arc::new(AtomicBool::new(false));
        let size = Arc::new(GroupSize::new(group_rows_max));
        let (mut senders, mut halts, mut tasks) = (Vec::new(), Vec::new(), JoinSet::new());
        for applier in appliers {
            let (pieces, incoming) = mpsc::channel(1);
            let (halt, halting) = oneshot::channel();
            let work = Work {
                applier,
                committed: committed.clone(),
                halting,
                halted: Arc::clone(&halted),
                meter: Arc::clone(meter),
                size: Arc::clone(&size),
            };
            senders.push(pieces);
            halts.push(halt);
            tasks.spawn(work.run(incoming));
        }
        Lanes {
            pieces: senders,
            tasks,
            outcome: Ok(()),
            current: 0,
            sent: applied,
            turn: None,
            open,
            alone_upto,
            applied: applied_now,
            halts,
            halted,
            size,
        }
    }

    /// The last transaction that is committed.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// So many rows to write in one group keep the target's pace.
    pub(crate) fn group_rows(&self) -> u64 {
        self.size.rows.load(Ordering::Relaxed)
    }

    /// False when a lane has ended: then [`Lanes::failed`] says why.
    pub(crate) async fn send(&mut self, slice: Slice) -> bool {
        self.open.committed(*self.applied.borrow());
        let after = self.sent;
        let whole = slice.first && slice.commit.is_some();
        let group = slice.commit.as_ref().map(|commit| {
            let touched = if whole { self.open.touched(&slice.steps) } else { Touched::everything() };
            (commit.progress.seq, touched)
        });
        let (now, later) = match whole && after >= self.alone_upto {
            true => self.open.split(slice.steps),
            false => (Vec::new(), slice.steps),
        };
        let turn = self.turn.take();
        let commit = slice.commit.map(|commit| {
            let (pass_on, next) = oneshot::channel();
            self.turn = Some(next);
            (commit, pass_on)
        });
        let piece = Piece { now, later, after, turn, commit };
        if self.pieces[self.current].send(piece).await.is_err() {
            return false;
        }
        if let Some((seq, touched)) = group {
            self.open.add(seq, touched);
            self.sent = seq;
            self.current = (self.current + 1) % self.pieces.len();
        }
        // The lane has been woken to run next on this thread, where no other takes it from: it would wait until the next
        // slice is assembled.
        tokio::task::yield_now().await;
        true
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        while let Some(ended) = self.tasks.try_join_next() {
            self.note(ended);
        }
        self.tasks.len() < self.pieces.len()
    }

    /// Waits for the end of a lane, which none comes to by itself.
    pub(crate) async fn ended(&mut self) {
        if let Some(ended) = self.tasks.join_next().await {
            self.note(ended);
        }
    }

    /// Why a lane has ended.
    pub(crate) async fn failed(mut self) -> LaneError {
        // Its error first; then nobody waits any longer, be it on the target for what another lane has locked.
        if self.outcome.is_ok() {
            self.ended().await;
        }
        self.halt();
        let early = Error::Task { what: "applies", reason: "it ended early".into() };
        self.close().await.err().unwrap_or(LaneError::Failed(early))
    }

    /// Lets what was sent be written, and ends.
    pub(crate) async fn close(mut self) -> Result<(), LaneError> {
        self.pieces.clear();
        while let Some(ended) = self.tasks.join_next().await {
            self.note(ended);
        }
        self.outcome
    }

    /// Lanes that wait for their turn give up.
    fn halt(&mut self) {
        self.halted.store(true, Ordering::Relaxed);
        for halt in self.halts.drain(..) {
            // One that has ended hears nothing more.
            let _ = halt.send(());
        }
    }

    fn note(&mut self, ended: Result<Result<(), ApplyError>, JoinError>) {
        let error = match ended {
            Ok(Ok(())) => return,
            Ok(Err(ApplyError::Refused(refusal))) => LaneError::Refused(Box::new(refusal)),
            Ok(Err(ApplyError::Failed(error))) => LaneError::Failed(error.into()),
            Err(error) => LaneError::Failed(Error::Task { what: "applies", reason: error.to_string() }),
        };
        if self.outcome.is_ok() {
            self.outcome = Err(error);
        }
    }

    /// Ends after what is being written; what becomes of it the next session reads from the record.
    pub(crate) async fn abandon(mut self) {
        self.halt();
        if let Err(error) = self.close().await {
            tracing::debug!(?error, "the last slices were not written; they are written again later");
        }
    }
}

/// One lane's work.
struct Work {
    applier: Box<dyn Applier>,
    /// Told to whoever reads the log. The turn has channels of its own: those who wait on one of these are woken in random
    /// order, and what a simulation does next must always be the same.
    committed: watch::Sender<u64>,
    halting: oneshot::Receiver<()>,
    halted: Arc<AtomicBool>,
    meter: Arc<Meter>,
    size: Arc<GroupSize>,
}

impl Work {
    async fn run(mut self, mut pieces: mpsc::Receiver<Piece>) -> Result<(), ApplyError> {
        while let Some(piece) = pieces.recv().await {
            // When the turn does not come, what is written here goes with the session.
            if self.halted.load(Ordering::Relaxed) || !self.write(piece).await? {
                break;
            }
        }
        // Those behind this one wait no longer than it takes to know that their turn does not come.
        drop(pieces);
        // Not why the lanes ended.
        if let Err(error) = self.applier.rollback().await {
            tracing::debug!(%error, "a lane could not roll back; its session ends");
        }
        Ok(())
    }

    /// False when the turn does not come.
    async fn write(&mut self, piece: Piece) -> Result<bool, ApplyError> {
        let began = Instant::now();
        let early = match piece.now.is_empty() {
            true => Ok(()),
            false => self.applier.write(&piece.now).await,
        };
        // Also after an error: the groups before are to be finished, and one of their errors comes first.
        if let Some(turn) = piece.turn
            && !mutant::on(mutant::LANES_COMMIT_EARLY)
            && !self.comes(turn).await
        {
            return Ok(false);
        }
        early?;
        if !piece.later.is_empty() {
            self.applier.write(&piece.later).await?;
        }
        let Some((commit, pass_on)) = piece.commit else { return Ok(true) };
        self.applier.commit(piece.after, &commit.progress).await?;
        self.size.took(commit.rows, began.elapsed());
        self.meter.applied(&commit.progress, commit.committed_us, commit.transactions, &commit.changes);
        // In this order: told after the turn is passed on, it could come behind the next lane's, and go backwards.
        self.committed.send_replace(commit.progress.seq);
        if !self.halted.load(Ordering::Relaxed) {
            // Nobody takes it after the last group.
            let _ = pass_on.send(());
        }
        Ok(true)
    }

    async fn comes(&mut self, turn: Turn) -> bool {
        tokio::select! {
            biased;
            turn = turn => turn.is_ok(),
            _ = &mut self.halting => false,
        }
    }
}

/// How many rows the target writes in the time that a group may last: long enough that commits cost little, short
/// enough that the progress is seen to move.
struct GroupSize {
    rows: AtomicU64,
    max: u64,
}

const GROUP_TIME: Duration = Duration::from_millis(1000);
const GROUP_ROWS_FIRST: u64 = 20_000;
const GROUP_ROWS_MIN: u64 = 1_000;

impl GroupSize {
    fn new(max: u64) -> GroupSize {
        GroupSize { rows: AtomicU64::new(GROUP_ROWS_FIRST.min(max)), max }
    }

    fn took(&self, rows: u64, time: Duration) {
        let size = next(self.rows.load(Ordering::Relaxed), rows, time);
        self.rows.store(size.min(self.max), Ordering::Relaxed);
    }
}

/// The size of the next groups, after one of so many rows took so long. A group that was small for want of changes says
/// nothing against large ones.
fn next(size: u64, rows: u64, time: Duration) -> u64 {
    let fits = u128::from(rows) * GROUP_TIME.as_micros() / time.as_micros().max(1);
    let fits = u64::try_from(fits).unwrap_or(u64::MAX);
    let wanted = if rows < size / 2 { fits.min(size) } else { fits.clamp(size / 2, size * 2) };
    wanted.max(GROUP_ROWS_MIN)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use connector::{Quarantined, Record, RowCut};
    use model::{Position, Row, TableName};
    use tokio::sync::Notify;

    use super::*;
    use crate::machine::Machine;

    /// A session whose commits succeed at once, or panic; what it is not asked for here it has no answer to.
    #[derive(Default)]
    struct Session {
        record: Record,
        panics: bool,
        /// Its commits wait for a lock that goes with another session's rollback.
        waits_for: Option<Arc<Notify>>,
        locks: Option<Arc<Notify>>,
    }

    #[async_trait]
    impl Applier for Session {
        fn record(&self) -> &Record {
            &self.record
        }

        async fn write(&mut self, _steps: &[Step]) -> Result<(), ApplyError> {
            Ok(())
        }

        fn rows_collide(&self, _table: usize) -> bool {
            false
        }

        async fn commit(&mut self, _after: u64, _progress: &Progress) -> connector::Result<()> {
            assert!(!self.panics, "on purpose");
            if let Some(lock) = &self.waits_for {
                lock.notified().await;
            }
            Ok(())
        }

        async fn rollback(&mut self) -> connector::Result<()> {
            if let Some(lock) = &self.locks {
                lock.notify_one();
            }
            Ok(())
        }

        async fn write_fetched(&mut self, _: usize, _: Option<&Row>, _: &RowCut) -> connector::Result<()> {
            unreachable!("lanes write and commit only")
        }

        async fn settle(&mut self) -> connector::Result<()> {
            unreachable!("lanes write and commit only")
        }

        async fn hold(&mut self, _: &Quarantined, _: u64) -> connector::Result<()> {
            unreachable!("lanes write and commit only")
        }

        async fn release_hold(&mut self, _: &TableName) -> connector::Result<()> {
            unreachable!("lanes write and commit only")
        }
    }

    fn lanes(count: usize, panics: bool) -> Lanes {
        open((0..count).map(|_| Session { panics, ..Session::default() }))
    }

    fn open(sessions: impl Iterator<Item = Session>) -> Lanes {
        let meter = Arc::new(Meter::new("test", Machine::real().clock));
        let appliers = sessions.map(|session| -> Box<dyn Applier> { Box::new(session) }).collect();
        Lanes::open(appliers, &Arc::default(), 0, 0, 1, &meter)
    }

    /// A transaction without changes.
    fn slice(seq: u64) -> Slice {
        let progress = Progress { seq, position: Position { order: seq, text: String::new() } };
        let commit = Commit { progress, committed_us: 0, transactions: 1, changes: HashMap::new(), rows: 0 };
        Slice { steps: Vec::new(), commit: Some(commit), first: true }
    }

    /// Who waits for the last of them would wait for ever, and what is needed of the journal be forgotten.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_is_applied_never_goes_back() {
        const TRANSACTIONS: u64 = 100_000;
        let mut lanes = lanes(4, false);
        let applied = lanes.applied();
        let watching = std::thread::spawn(move || {
            let mut last = 0;
            while last < TRANSACTIONS {
                let now = *applied.borrow();
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
        });
        for seq in 1..=TRANSACTIONS {
            assert!(lanes.send(slice(seq)).await);
        }
        lanes.close().await.unwrap();
        watching.join().unwrap();
    }

    #[tokio::test]
    async fn a_lane_that_panics_ends_those_that_wait_for_it() {
        let mut lanes = lanes(2, true);
        let mut seq = 0;
        let failed = async {
            loop {
                seq += 1;
                if !lanes.send(slice(seq)).await {
                    break lanes.failed().await;
                }
            }
        };
        let failed = tokio::time::timeout(Duration::from_secs(10), failed).await;
        let Ok(LaneError::Failed(Error::Task { reason, .. })) = failed else { panic!("{failed:?}") };
        assert!(reason.contains("panicked"), "{reason}");
    }

    /// What they hold on the target may be what the lane before them waits for.
    #[tokio::test]
    async fn lanes_that_wait_for_their_turn_give_up_when_no_more_is_wanted() {
        let lock = Arc::new(Notify::new());
        let waits = Session { waits_for: Some(Arc::clone(&lock)), ..Session::default() };
        let locks = Session { locks: Some(lock), ..Session::default() };
        let mut lanes = open([waits, locks].into_iter());
        let applied = lanes.applied();
        assert!(lanes.send(slice(1)).await && lanes.send(slice(2)).await);
        tokio::time::timeout(Duration::from_secs(10), lanes.abandon()).await.unwrap();
        assert_eq!(*applied.borrow(), 1, "the first is finished, the second is not");
    }

    #[test]
    fn groups_follow_the_targets_latency() {
        let ms = Duration::from_millis;
        for (size, changes, time, then) in [
            (20_000, 20_000, ms(100), 40_000),
            (20_000, 20_000, ms(1_000), 20_000),
            (20_000, 20_000, ms(4_000), 10_000),
            (20_000, 10, ms(2), 5_000),
            (20_000, 10, ms(0), 20_000),
            (1_000, 1_000, ms(90_000), 1_000),
            (200_000, 200_000, ms(1), 400_000),
        ] {
            assert_eq!(next(size, changes, time), then, "{size} {changes} {time:?}");
        }
    }
}
