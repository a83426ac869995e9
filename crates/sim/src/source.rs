//! The simulated source: transactions with row locks, a log in commit order, and visibility in another.
//!
//! As PostgreSQL does it: a commit is in the log (and may be delivered) before any snapshot shows it, and its locks are
//! held until then; a snapshot names the transactions that were running; TRUNCATE is not transactional for older
//! snapshots. Pure: it knows neither the clock nor the engine.

use std::collections::BTreeMap;

use model::{Cut, Snapshot};

use crate::tables::{Row, Rows, Shape};

#[derive(Debug)]
pub(crate) struct Source {
    shapes: Vec<Shape>,
    /// What a new snapshot shows.
    pub visible: Vec<Rows>,
    running: BTreeMap<u32, Open>,
    /// Prepared, or in the log and not visible yet. Both outlive their client.
    prepared: Vec<Open>,
    hidden: Vec<Open>,
    next_xid: u64,
    /// The highest transaction that is over, as a snapshot's `xmax` goes by it.
    last_over: u64,
    next_version: u64,
    next_slot: i64,
    /// Every committed transaction, in log order.
    pub log: Vec<Committed>,
    /// With those that a failover lost, and without those after it: what capture can have seen.
    pub(crate) ever: Vec<Committed>,
    forgot: bool,
    /// The end of the log, which may lie behind its last transaction.
    pub end: u64,
    /// Snapshots older than this many rewrites of the table are of no use.
    pub rewrites: Vec<u32>,
    /// Visibility follows the log, and a cut is a prefix of it.
    pub prefix_cuts: bool,
}

/// A transaction that is not over.
#[derive(Debug)]
struct Open {
    xid: u64,
    rows: BTreeMap<(usize, i64), Option<Row>>,
    /// Nicks that it has written, also where they are gone again: an index keeps others waiting for them.
    nicks: Vec<(usize, i64)>,
    truncated: Vec<usize>,
    changes: Vec<Change>,
}

/// A transaction in the log.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub xid: u64,
    /// Where its commit record begins; may be where the one before it ends.
    pub begin: u64,
    pub end: u64,
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Insert { table: usize, slot: i64, new: Row },
    Update { table: usize, slot: i64, old: Row, new_slot: i64, new: Row, large_changed: bool },
    Delete { table: usize, slot: i64, old: Row },
    Truncate { tables: Vec<usize> },
}

/// What a client does. A write that would have to wait, or that a constraint forbids, is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Inserts the row, or updates it where it is there.
    Put {
        table: usize,
        id: i64,
        nick: Option<i64>,
        large: bool,
    },
    Move {
        table: usize,
        id: i64,
        to: i64,
        large: bool,
    },
    Delete {
        table: usize,
        id: i64,
    },
    /// Two rows exchange their nicks in one statement.
    Swap {
        table: usize,
        id: i64,
        with: i64,
    },
    Truncate {
        table: usize,
        also_next: bool,
    },
    /// A savepoint: it takes a transaction id of its own, which no snapshot shows.
    Savepoint,
}

impl Source {
    pub(crate) fn new(shapes: &[Shape], first_xid: u64, prefix_cuts: bool) -> Source {
        Source {
            shapes: shapes.to_vec(),
            visible: vec![Rows::new(); shapes.len()],
            running: BTreeMap::new(),
            prepared: Vec::new(),
            hidden: Vec::new(),
            next_xid: first_xid,
            last_over: first_xid - 1,
            next_version: 1,
            next_slot: 1000,
            log: Vec::new(),
            ever: Vec::new(),
            forgot: false,
            end: 100,
            rewrites: vec![0; shapes.len()],
            prefix_cuts,
        }
    }

    /// Carries out one write of a client's open transaction, or of a new one. False when it was not done.
    pub(crate) fn write(&mut self, client: u32, write: &Write) -> bool {
        let mut open = match self.running.remove(&client) {
            Some(open) => open,
            None => self.begin(),
        };
        let done = self.write_in(&mut open, write);
        self.running.insert(client, open);
        done
    }

    fn begin(&mut self) -> Open {
        let xid = self.next_xid;
        self.next_xid += 1;
        Open { xid, rows: BTreeMap::new(), nicks: Vec::new(), truncated: Vec::new(), changes: Vec::new() }
    }

    fn write_in(&mut self, open: &mut Open, write: &Write) -> bool {
        match *write {
            Write::Savepoint => {
                self.next_xid += 1;
                true
            }
            Write::Put { table, id, nick, large } => self.put(open, table, id, nick, large),
            Write::Move { table, id, to, large } => self.shift(open, table, id, to, large),
            Write::Delete { table, id } => {
                let Some((slot, old)) = self.find(open, table, id) else { return false };
                self.set(open, table, slot, None);
                open.changes.push(Change::Delete { table, slot, old });
                true
            }
            Write::Swap { table, id, with } => self.swap(open, table, id, with),
            Write::Truncate { table, also_next } => {
                let mut tables = vec![table];
                if also_next && table + 1 < self.shapes.len() {
                    tables.push(table + 1);
                }
                self.truncate(open, tables)
            }
        }
    }

    fn put(&mut self, open: &mut Open, table: usize, id: i64, nick: Option<i64>, large: bool) -> bool {
        if let Some((slot, old)) = self.find(open, table, id) {
            let nick = if self.nick_is_free(open, table, slot, nick) { nick } else { old.nick };
            let new = Row { nick, ..self.rewritten(&old, large) };
            self.update(open, table, (slot, old), slot, new);
            return true;
        }
        let slot = match self.shapes[table].keyed {
            true => id,
            false => {
                self.next_slot += 1;
                self.next_slot
            }
        };
        if !self.is_free(open, table, slot) {
            return false;
        }
        let nick = nick.filter(|_| self.nick_is_free(open, table, slot, nick));
        let version = self.version();
        let new = Row { id, nick, version, large: version };
        self.set(open, table, slot, Some(new.clone()));
        open.changes.push(Change::Insert { table, slot, new });
        true
    }

    fn shift(&mut self, open: &mut Open, table: usize, id: i64, to: i64, large: bool) -> bool {
        let Some((slot, old)) = self.find(open, table, id) else { return false };
        let new_slot = if self.shapes[table].keyed { to } else { slot };
        if new_slot != slot
            && (!self.is_free(open, table, new_slot) || self.read(open, table, new_slot).is_some())
        {
            return false;
        }
        let new = Row { id: to, ..self.rewritten(&old, large) };
        self.update(open, table, (slot, old), new_slot, new);
        true
    }

    fn swap(&mut self, open: &mut Open, table: usize, id: i64, with: i64) -> bool {
        let (Some(a), Some(b)) = (self.find(open, table, id), self.find(open, table, with)) else {
            return false;
        };
        if a.0 == b.0 {
            return false;
        }
        let (slot_a, slot_b, nick_a, nick_b) = (a.0, b.0, a.1.nick, b.1.nick);
        let mut a = a;
        if self.shapes[table].unique && !self.shapes[table].deferred {
            // By way of NULL, as it must be done where every row is checked.
            let vacant = Row { nick: None, ..self.rewritten(&a.1, false) };
            self.update(open, table, a, slot_a, vacant.clone());
            a = (slot_a, vacant);
        }
        let deferred = self.shapes[table].deferred;
        let new_b = |source: &mut Source| Row { nick: nick_a, ..source.rewritten(&b.1, false) };
        let new_a = |source: &mut Source| Row { nick: nick_b, ..source.rewritten(&a.1, false) };
        if deferred {
            let (new_a, new_b) = (new_a(self), new_b(self));
            self.update(open, table, a, slot_a, new_a);
            self.update(open, table, b, slot_b, new_b);
        } else {
            let (new_b, new_a) = (new_b(self), new_a(self));
            self.update(open, table, b, slot_b, new_b);
            self.update(open, table, a, slot_a, new_a);
        }
        true
    }

    fn truncate(&mut self, open: &mut Open, tables: Vec<usize>) -> bool {
        // It waits for everybody who has written to the tables, so here it is not done.
        let others = self.others();
        if others.flat_map(|other| other.rows.keys()).any(|(table, _)| tables.contains(table)) {
            return false;
        }
        for &table in &tables {
            let mut slots: Vec<i64> = self.visible[table].keys().copied().collect();
            slots.extend(open.rows.keys().filter(|(of, _)| *of == table).map(|(_, slot)| *slot));
            for slot in slots {
                self.set(open, table, slot, None);
            }
        }
        open.truncated.extend(&tables);
        open.changes.push(Change::Truncate { tables });
        true
    }

    fn rewritten(&mut self, old: &Row, large: bool) -> Row {
        let version = self.version();
        Row { version, large: if large { version } else { old.large }, ..old.clone() }
    }

    fn update(&self, open: &mut Open, table: usize, (slot, old): (i64, Row), new_slot: i64, new: Row) {
        let large_changed = new.large != old.large;
        self.set(open, table, slot, None);
        self.set(open, table, new_slot, Some(new.clone()));
        open.changes.push(Change::Update { table, slot, old, new_slot, new, large_changed });
    }

    fn set(&self, open: &mut Open, table: usize, slot: i64, row: Option<Row>) {
        open.nicks.extend(row.as_ref().and_then(|row| Some((table, row.nick?))));
        open.rows.insert((table, slot), row);
    }

    fn version(&mut self) -> u64 {
        self.next_version += 1;
        self.next_version
    }

    /// A row that this transaction sees and may write.
    fn find(&self, open: &Open, table: usize, id: i64) -> Option<(i64, Row)> {
        let slot = match self.shapes[table].keyed {
            true => id,
            false => {
                let own = open.rows.iter().filter_map(|((of, slot), row)| Some((of, slot, row.as_ref()?)));
                let own = own.filter(|(of, _, row)| **of == table && row.id == id).map(|(_, slot, _)| *slot);
                let shown = self.visible[table]
                    .iter()
                    .filter(|(slot, row)| row.id == id && !open.rows.contains_key(&(table, **slot)));
                own.chain(shown.map(|(slot, _)| *slot)).next()?
            }
        };
        if !self.is_free(open, table, slot) {
            return None;
        }
        Some((slot, self.read(open, table, slot)?))
    }

    fn read(&self, open: &Open, table: usize, slot: i64) -> Option<Row> {
        match open.rows.get(&(table, slot)) {
            Some(own) => own.clone(),
            None => self.visible[table].get(&slot).cloned(),
        }
    }

    fn others(&self) -> impl Iterator<Item = &Open> {
        self.running.values().chain(&self.prepared).chain(&self.hidden)
    }

    /// No other transaction has written this slot, or emptied its table.
    fn is_free(&self, _open: &Open, table: usize, slot: i64) -> bool {
        !self
            .others()
            .any(|other| other.rows.contains_key(&(table, slot)) || other.truncated.contains(&table))
    }

    fn nick_is_free(&self, open: &Open, table: usize, slot: i64, nick: Option<i64>) -> bool {
        if nick.is_none() || !self.shapes[table].unique {
            return true;
        }
        let taken = |of: &Open| {
            of.rows.iter().any(|((at, other), row)| {
                *at == table && *other != slot && row.as_ref().is_some_and(|row| row.nick == nick)
            })
        };
        let shown = self.visible[table].iter().any(|(other, row)| {
            *other != slot && row.nick == nick && !open.rows.contains_key(&(table, *other))
        });
        let wanted = nick.map(|nick| (table, nick));
        let waits = |of: &Open| of.nicks.iter().any(|touched| Some(*touched) == wanted);
        !shown && !taken(open) && !self.others().any(waits)
    }

    /// Writes the commit to the log. It is not visible before [`Source::show`].
    pub(crate) fn commit(&mut self, client: u32, gap: u64) -> Option<u64> {
        let open = self.running.remove(&client)?;
        Some(self.log(open, gap))
    }

    pub(crate) fn prepare(&mut self, client: u32) -> bool {
        match self.running.remove(&client) {
            Some(open) => {
                self.prepared.push(open);
                true
            }
            None => false,
        }
    }

    /// Ends the oldest prepared transaction.
    pub(crate) fn end_prepared(&mut self, commit: bool, gap: u64) -> Option<u64> {
        if self.prepared.is_empty() {
            return None;
        }
        let open = self.prepared.remove(0);
        if commit {
            return Some(self.log(open, gap));
        }
        self.over(open.xid);
        None
    }

    pub(crate) fn rollback(&mut self, client: u32) -> bool {
        match self.running.remove(&client) {
            Some(open) => {
                self.over(open.xid);
                true
            }
            None => false,
        }
    }

    fn log(&mut self, mut open: Open, gap: u64) -> u64 {
        let xid = open.xid;
        let begin = self.end + gap;
        self.end = begin + 1 + open.changes.len() as u64;
        let changes = std::mem::take(&mut open.changes);
        if !changes.is_empty() {
            let committed = Committed { xid, begin, end: self.end, changes };
            if !self.forgot {
                self.ever.push(committed.clone());
            }
            self.log.push(committed);
        }
        self.hidden.push(open);
        xid
    }

    /// Lets snapshots see a transaction that is in the log, and lets go of its locks.
    pub(crate) fn show(&mut self, xid: u64) {
        let Some(at) = self.hidden.iter().position(|open| open.xid == xid) else { return };
        let open = self.hidden.remove(at);
        for ((table, slot), row) in open.rows {
            match row {
                Some(row) => self.visible[table].insert(slot, row),
                None => self.visible[table].remove(&slot),
            };
        }
        for table in open.truncated {
            self.rewrites[table] += 1;
        }
        self.over(xid);
    }

    fn over(&mut self, xid: u64) {
        self.last_over = self.last_over.max(xid);
    }

    /// The server dies: what was running is rolled back, what is in the log is visible when it comes up.
    pub(crate) fn restart(&mut self) {
        for xid in self.running.values().map(|open| open.xid).collect::<Vec<_>>() {
            self.over(xid);
        }
        self.running.clear();
        for xid in self.hidden.iter().map(|open| open.xid).collect::<Vec<_>>() {
            self.show(xid);
        }
    }

    /// Ends everything that is open, for the end of a history.
    pub(crate) fn quiesce(&mut self) {
        self.restart();
        while !self.prepared.is_empty() {
            self.end_prepared(false, 0);
        }
    }

    /// Whether a TRUNCATE holds this table against readers.
    pub(crate) fn is_locked(&self, table: usize) -> bool {
        self.others().any(|open| open.truncated.contains(&table))
    }

    /// The cut of a snapshot taken now.
    pub(crate) fn cut(&self) -> Cut {
        if self.prefix_cuts {
            return Cut::Prefix { order: self.end };
        }
        let xmax = self.last_over + 1;
        let mut xip: Vec<u64> = self.others().map(|open| open.xid).filter(|xid| *xid < xmax).collect();
        xip.sort_unstable();
        Cut::Snapshot(Snapshot { xmin: xip.first().copied().unwrap_or(xmax), xmax, xip })
    }

    /// A transaction id that is near those of the log now.
    pub(crate) fn reference_xid(&self) -> u64 {
        self.next_xid
    }

    /// Something that concerns none of the tables is written to the log.
    pub(crate) fn noise(&mut self) {
        self.end += 3;
    }
}

/// Carries out a change on rows that are as it expects them.
pub(crate) fn replay(change: &Change, tables: &mut [Rows]) {
    match change {
        Change::Insert { table, slot, new } => {
            tables[*table].insert(*slot, new.clone());
        }
        Change::Update { table, slot, new_slot, new, .. } => {
            tables[*table].remove(slot);
            tables[*table].insert(*new_slot, new.clone());
        }
        Change::Delete { table, slot, .. } => {
            tables[*table].remove(slot);
        }
        Change::Truncate { tables: emptied } => {
            for &table in emptied {
                tables[table].clear();
            }
        }
    }
}

impl Source {
    /// A replica without the last transactions takes over: their changes are gone.
    pub(crate) fn forget(&mut self, lost: usize) {
        let kept = self.log.len().saturating_sub(lost).max(1);
        self.log.truncate(kept);
        self.forgot = true;
        self.visible.iter_mut().for_each(Rows::clear);
        for change in self.log.iter().flat_map(|committed| &committed.changes) {
            replay(change, &mut self.visible);
        }
        self.prepared.clear();
        self.end = self.log.last().map_or(100, |last| last.end);
    }
}

impl Source {
    /// The boundary before which every transaction of the log is visible.
    pub(crate) fn first_hidden(&self) -> u64 {
        let hidden = |committed: &&Committed| self.hidden.iter().any(|open| open.xid == committed.xid);
        self.log.iter().find(hidden).map_or(self.end, |committed| committed.begin)
    }
}

impl Change {
    /// The tables that it concerns.
    pub(crate) fn tables(&self) -> &[usize] {
        match self {
            Change::Insert { table, .. } | Change::Update { table, .. } | Change::Delete { table, .. } => {
                std::slice::from_ref(table)
            }
            Change::Truncate { tables } => tables,
        }
    }
}

/// For a story.
pub(crate) fn describe(changes: &[Change]) -> String {
    let row = |row: &Row| format!("({}, nick {:?}, v{}, large {})", row.id, row.nick, row.version, row.large);
    let one = |change: &Change| match change {
        Change::Insert { table, new, .. } => format!("insert t{table} {}", row(new)),
        Change::Update { table, old, new, .. } => format!("update t{table} {} to {}", old.id, row(new)),
        Change::Delete { table, old, .. } => format!("delete t{table} {}", old.id),
        Change::Truncate { tables } => format!("truncate {tables:?}"),
    };
    changes.iter().map(one).collect::<Vec<_>>().join(", ")
}
