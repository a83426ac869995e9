//! The source: transactions that write, commit to the log, and become visible later and in any order.
//!
//! As PostgreSQL does it: a transaction gets its id with its first write, its commit record enters the log, and only
//! then, maybe much later, do snapshots show it; its row locks are held until then. A prepared transaction survives a
//! restart. A source that keeps one order (SQLite) has one writer, whose commit is visible with its log record.

use crate::row::{Row, Rows, Write, all, at};
use crate::script::{Op, SCRIPTS};

/// Ids begin at the last one of the first epoch, so that the second transaction of every history crosses into the next.
pub const FIRST_ID: u64 = (1 << 32) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// After the log, in any order: a cut is a snapshot.
    AfterLog,
    /// With the log: a cut is a prefix.
    WithLog,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    pub visibility: Visibility,
    /// What a snapshot taken now shows.
    pub rows: Rows,
    pub sessions: Vec<Session>,
    /// Sessions by their commit records.
    pub log: Vec<u8>,
    /// Ids given out, counted from [`FIRST_ID`].
    ids: u8,
    /// The table's file: TRUNCATE makes a new one, under which older snapshots read nothing.
    pub file: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    pub script: u8,
    pub phase: Phase,
    id: u8,
    pub writes: Vec<Write>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The operation that comes next.
    Running(u8),
    Prepared,
    /// Its commit is in the log, and no snapshot shows it.
    Logged,
    Visible,
    RolledBack,
}

/// What a read saw: what the product is told of it, and what is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    visibility: Visibility,
    xmin: u8,
    xmax: u8,
    /// Bit by id.
    xip: u8,
    /// The log's end at that moment.
    pub end: u8,
    /// Bit by session. The properties ask this and never the product's cut.
    pub truth: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    Write,
    Prepare,
    Log,
    Show,
    RollBack,
}

impl Source {
    pub fn new(scripts: &[u8], visibility: Visibility) -> Source {
        let row = |id: u8| Row { id, unique: id, small: id - 1, large: id };
        let session = |&script: &u8| Session { script, phase: Phase::Running(0), id: 0, writes: Vec::new() };
        Source {
            visibility,
            rows: [Some(row(1)), Some(row(2)), None],
            sessions: scripts.iter().map(session).collect(),
            log: Vec::new(),
            ids: 0,
            file: 0,
        }
    }

    /// Everything that the sessions can do now.
    pub fn acts(&self, acts: &mut Vec<(u8, Act)>) {
        for (at, session) in (0..).zip(&self.sessions) {
            let script = &SCRIPTS[usize::from(session.script)];
            match session.phase {
                Phase::Running(next) if usize::from(next) < script.ops.len() => {
                    if !self.blocked(at, script.ops[usize::from(next)], next) {
                        acts.push((at, Act::Write));
                    }
                    if !session.writes.is_empty() {
                        acts.push((at, Act::RollBack));
                    }
                }
                Phase::Running(_) if script.prepared => {
                    acts.extend([(at, Act::Prepare), (at, Act::RollBack)])
                }
                Phase::Running(_) | Phase::Prepared => acts.extend([(at, Act::Log), (at, Act::RollBack)]),
                Phase::Logged => acts.push((at, Act::Show)),
                Phase::Visible | Phase::RolledBack => {}
            }
        }
    }

    pub fn act(&mut self, at: u8, act: Act) {
        let session = &self.sessions[usize::from(at)];
        match (act, session.phase) {
            (Act::Write, Phase::Running(next)) => self.write(at, next),
            (Act::Log, _) => {
                self.log.push(at);
                self.set(at, Phase::Logged);
                if self.visibility == Visibility::WithLog {
                    self.show(at);
                }
            }
            (Act::Show, _) => self.show(at),
            (Act::Prepare, _) => self.set(at, Phase::Prepared),
            (Act::RollBack, _) => self.end(at),
            (Act::Write, _) => unreachable!("only a running session writes"),
        }
    }

    /// The server restarts: what was running is gone, what had its commit in the log is recovered and visible.
    pub fn restart(&mut self) {
        for at in 0..self.sessions.len() as u8 {
            match self.sessions[usize::from(at)].phase {
                Phase::Running(next) if next > 0 => self.end(at),
                Phase::Logged => self.show(at),
                _ => {}
            }
        }
    }

    /// A restart would change something.
    pub fn is_busy(&self) -> bool {
        self.sessions.iter().any(|session| match session.phase {
            Phase::Running(next) => next > 0,
            Phase::Logged => true,
            Phase::Prepared | Phase::Visible | Phase::RolledBack => false,
        })
    }

    /// Some commit is in the log and not visible.
    pub fn is_showing(&self) -> bool {
        self.sessions.iter().any(|session| session.phase == Phase::Logged)
    }

    pub fn over(&self) -> bool {
        self.sessions.iter().all(|session| matches!(session.phase, Phase::Visible | Phase::RolledBack))
    }

    /// Somebody empties the table and has not ended: readers wait.
    pub fn locked(&self) -> bool {
        self.active().any(|(_, session)| session.writes.contains(&Write::Truncate))
    }

    pub fn seen(&self) -> Seen {
        let (mut xip, mut truth) = (0, 0);
        for (at, session) in self.sessions.iter().enumerate() {
            match session.phase {
                Phase::Visible => truth |= 1 << at,
                Phase::RolledBack => {}
                _ if session.writes.is_empty() => {}
                _ => xip |= 1 << session.id,
            }
        }
        let xmin = (0..self.ids).find(|id| xip & (1 << id) != 0).unwrap_or(self.ids);
        let end = self.log.len() as u8;
        Seen { visibility: self.visibility, xmin, xmax: self.ids, xip, end, truth }
    }

    /// The transaction of this commit record, as capture gives it: its wire id has 32 bits and is widened by the one
    /// before it.
    pub fn transaction(&self, number: u8) -> model::Transaction {
        let mut id = FIRST_ID;
        for &session in &self.log[..=usize::from(number)] {
            let wire = (FIRST_ID + u64::from(self.sessions[usize::from(session)].id)) as u32;
            id = model::xid::widen(wire, id);
        }
        let order = u64::from(number) + 1;
        model::Transaction { seq: order, id, order, committed_us: 0 }
    }

    pub fn logged(&self, number: u8) -> &Session {
        &self.sessions[usize::from(self.log[usize::from(number)])]
    }

    fn write(&mut self, at: u8, next: u8) {
        let op = SCRIPTS[usize::from(self.sessions[usize::from(at)].script)].ops[usize::from(next)];
        let write = self.effect(at, op, next);
        let session = &mut self.sessions[usize::from(at)];
        session.phase = Phase::Running(next + 1);
        if let Some(write) = write {
            if session.writes.is_empty() {
                session.id = self.ids;
                self.ids += 1;
            }
            session.writes.push(write);
        } else if session.writes.is_empty()
            && usize::from(next) + 1 == SCRIPTS[usize::from(session.script)].ops.len()
        {
            // It changed nothing: no id, no log record.
            session.phase = Phase::RolledBack;
        }
    }

    /// What this operation does to what the session sees; `None` when it finds no row, or one that is in its way.
    fn effect(&self, session: u8, op: Op, next: u8) -> Option<Write> {
        let mut rows = self.rows;
        self.sessions[usize::from(session)].writes.iter().for_each(|write| write.apply(&mut rows));
        let find = |id: u8| rows[usize::from(id) - 1];
        let free = |id: u8| find(id).is_none();
        let unused = |unique: u8| unique == 0 || all(&rows).all(|row| row.unique != unique);
        // Every version of a row has a value of its own, and lies in the other block than the version before.
        let version = 8 * (session + 1) + 2 * next;
        let newer = |old: Row| Row { small: version + (old.small + 1) % 2, ..old };
        match op {
            Op::Insert { id, unique } if free(id) && unused(unique) => {
                Some(Write::Insert(Row { id, unique, small: version, large: version }))
            }
            Op::Insert { .. } => None,
            Op::Update(id) => find(id).map(|old| Write::Update { old, row: newer(old) }),
            Op::UpdateLarge(id) => {
                find(id).map(|old| Write::Update { old, row: Row { large: version, ..newer(old) } })
            }
            Op::Move { from, to } if free(to) => {
                find(from).map(|old| Write::Update { old, row: Row { id: to, ..newer(old) } })
            }
            Op::Move { .. } => None,
            Op::SetUnique { id, unique } if unused(unique) => {
                find(id).map(|old| Write::Update { old, row: Row { unique, ..newer(old) } })
            }
            Op::SetUnique { .. } => None,
            Op::Delete(id) => find(id).map(Write::Delete),
            Op::Truncate => Some(Write::Truncate),
        }
    }

    /// Whether it waits for another session. What it would meet is judged by what both have done or would do.
    fn blocked(&self, at: u8, op: Op, next: u8) -> bool {
        let mut others = self.active().filter(|(other, _)| *other != at).peekable();
        if others.peek().is_none() {
            return false;
        }
        if self.visibility == Visibility::WithLog {
            return true;
        }
        match self.effect(at, op, next) {
            Some(write) => others.any(|(_, other)| other.writes.iter().any(|theirs| theirs.meets(&write))),
            // Whether the row is there is decided when the one who has changed it ends.
            None => others.any(|(_, other)| other.writes.iter().any(|theirs| op.waits_for(theirs))),
        }
    }

    /// Sessions that have written and whose locks are held.
    fn active(&self) -> impl Iterator<Item = (u8, &Session)> {
        (0..).zip(&self.sessions).filter(|(_, session)| {
            !session.writes.is_empty() && !matches!(session.phase, Phase::Visible | Phase::RolledBack)
        })
    }

    fn show(&mut self, at: u8) {
        self.set(at, Phase::Visible);
        for write in &self.sessions[usize::from(at)].writes {
            write.apply(&mut self.rows);
            self.file += u8::from(*write == Write::Truncate);
        }
    }

    fn end(&mut self, at: u8) {
        self.set(at, Phase::RolledBack);
        // What it did can be seen nowhere; its id stays used.
        self.sessions[usize::from(at)].writes.clear();
    }

    fn set(&mut self, at: u8, phase: Phase) {
        self.sessions[usize::from(at)].phase = phase;
    }
}

impl Seen {
    pub fn cut(&self) -> model::Cut {
        match self.visibility {
            Visibility::WithLog => model::Cut::Prefix { order: self.end.into() },
            Visibility::AfterLog => model::Cut::Snapshot(model::Snapshot {
                xmin: FIRST_ID + u64::from(self.xmin),
                xmax: FIRST_ID + u64::from(self.xmax),
                xip: (0..8).filter(|id| self.xip & (1 << id) != 0).map(|id| FIRST_ID + id).collect(),
            }),
        }
    }

    /// What a tool keeps that takes the log's end for what a read saw.
    pub fn by_position(self) -> Seen {
        Seen { visibility: Visibility::WithLog, ..self }
    }

    pub fn has(&self, session: u8) -> bool {
        self.truth & (1 << session) != 0
    }
}

/// The rows after these sessions, in this order.
pub fn replay(initial: Rows, source: &Source, sessions: impl IntoIterator<Item = u8>) -> Rows {
    let mut rows = initial;
    for session in sessions {
        source.sessions[usize::from(session)].writes.iter().for_each(|write| write.apply(&mut rows));
    }
    rows
}

/// What was there before any session.
pub fn initial() -> Rows {
    Source::new(&[], Visibility::AfterLog).rows
}

/// The row of one key, judged from a whole table.
pub fn of(rows: &Rows, id: u8) -> Option<Row> {
    *at(&mut rows.clone(), id)
}
