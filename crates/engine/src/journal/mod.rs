//! The durable, ordered store of captured transactions, between capture and apply: segment files in a folder.
//!
//! Promises:
//! - Transactions are numbered 1, 2, 3 … without gaps. What [`Journal::durable`] has shown has been fsynced
//!   and is found again; what has not been shown yet may be lost and is then captured again.
//! - A [`Cursor`] shows whole committed, durable transactions only, in order, each frame checked by CRC32C.
//! - A torn tail (a crash in the middle of a write) is cut. Damage to what had been durable is
//!   [`Error::Corrupt`]: after every fsync a seal is written, and a bad frame with a seal behind it is no torn tail.
//! - One owner at a time, by epoch. Every owner writes to segments of its own, and takes its writes for durable only
//!   while there is no segment of a newer owner. A new owner first creates its segment and then reads the older
//!   ones. So whatever an old owner has acknowledged to the source, the new one has read; and whatever the old one
//!   still writes afterwards, it never acknowledges and nobody reads.
//!
//! Deliberately absent: acknowledging to the source (capture's), deciding what may be trimmed (apply's progress),
//! and threads: [`Append::sync`] blocks its caller, and reads are short blocking reads of local files.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use connector::failpoint;
use model::{Change, Position, Relation, Transaction, mutant};
use tokio::sync::watch;

mod append;
mod codec;
mod cursor;
mod error;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(test)]
mod properties;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use append::Append;
pub(crate) use cursor::Cursor;
pub use error::Error;

use crate::machine::Disk;
use codec::Head;
use segment::Id;

/// Distance between two points of the index that turns a transaction's number into an offset, for the lag.
const INDEX_BYTES: u64 = 1 << 20;

/// What a cursor delivers. Relations come before the first change that uses them, those in force at the
/// cursor's start before its first `Begin`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    Begin(Transaction),
    Relation(Relation),
    Change(Change),
    Commit { seq: u64, position: Position },
}

/// A cheap handle, for everybody but the one who appends.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
}

/// What the handles, the cursors and the one [`Append`] have in common.
#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    chain: Mutex<Chain>,
    /// Follows [`Chain::last`]; changed after it.
    durable: watch::Sender<u64>,
}

#[derive(Debug)]
struct Chain {
    /// Each begins where the one before it ends; the last is the one being appended to. Never empty.
    segments: VecDeque<Segment>,
    /// The last durable committed transaction.
    last: Option<(u64, Position)>,
}

#[derive(Debug)]
struct Segment {
    id: Id,
    first_seq: u64,
    /// Up to the end of its last durable committed transaction. Beyond it bytes may still change. (Of a segment
    /// that was found at the start and not read: the file's length.)
    len: u64,
    /// Some transactions, and the offsets at which they end.
    index: Vec<(u64, u64)>,
}

impl Journal {
    /// Opens the journal in this folder, or creates it. Fails with `Fenced` unless `epoch` is newer than that of
    /// every owner before. A segment is closed at the first transaction that begins beyond `segment_bytes`: the unit
    /// in which space is freed.
    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        epoch: u64,
        segment_bytes: u64,
    ) -> Result<(Journal, Append), Error> {
        disk.create_dir(dir).map_err(Error::io("create the journal folder", dir))?;
        if let Some(newest) = segment::list(disk.as_ref(), dir)?.last()
            && newest.epoch >= epoch
        {
            return Err(Error::Fenced { dir: dir.to_owned(), epoch, found: newest.epoch });
        }

        // In this order: an earlier owner that syncs after this line learns that it is over, so whatever it
        // takes for durable has been written before, and is read below.
        let id = Id { epoch, number: 0 };
        let mut file = segment::create(disk.as_ref(), dir, id)?;
        segment::check_owner(disk.as_ref(), dir, epoch)?;

        let mut older = older_segments(disk.as_ref(), dir, epoch)?;
        let (last, relations) = match older.back_mut() {
            None => (None, Default::default()),
            Some(newest) => {
                let recovered = segment::recover(disk.as_ref(), dir, newest.id)?;
                newest.len = recovered.len;
                newest.index = recovered.index;
                (recovered.last, recovered.relations)
            }
        };
        let first_seq = last.as_ref().map_or(1, |(seq, _)| seq + 1);
        older.retain(|segment| segment.first_seq < first_seq);
        let head = Head {
            before: older.back().map(|segment| segment.id),
            first_seq,
            last: last.as_ref().map(|(_, position)| position.clone()),
            relations: relations.values().cloned().collect(),
        };
        let len = segment::write_head(disk.as_ref(), dir, id, file.as_mut(), &head)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            segment::sync_dir(disk.as_ref(), parent)?;
        }

        let mut segments = older;
        segments.push_back(Segment { id, first_seq, len, index: Vec::new() });
        remove_dead(disk.as_ref(), dir, &segments)?;

        let (durable, _) = watch::channel(first_seq - 1);
        let chain = Mutex::new(Chain { segments, last });
        let shared = Arc::new(Shared { disk, dir: dir.to_owned(), chain, durable });
        let append = Append::new(shared.clone(), id, file, len, segment_bytes, relations);
        Ok((Journal { shared }, append))
    }

    /// The oldest transaction kept; where there is none, the number that the next one gets.
    pub(crate) fn first_seq(&self) -> u64 {
        self.shared.chain().first_seq()
    }

    /// `Fenced` when somebody has taken the journal over from this epoch's owner.
    pub(crate) fn check_owner(&self, epoch: u64) -> Result<(), Error> {
        self.shared.check_owner(epoch)
    }

    /// The last durable committed transaction, even when it has been trimmed.
    pub(crate) fn last(&self) -> Option<(u64, Position)> {
        self.shared.chain().last.clone()
    }

    /// The number of the last durable transaction; 0 before the first.
    pub(crate) fn durable(&self) -> watch::Receiver<u64> {
        self.shared.durable.subscribe()
    }

    /// Bytes of the transactions after `seq`, for the lag: exact to about [`INDEX_BYTES`] in what this process has
    /// written, interpolated in older segments.
    pub(crate) fn bytes_after(&self, seq: u64) -> u64 {
        let chain = self.shared.chain();
        let ends = chain.segments.iter().skip(1).map(|segment| segment.first_seq).chain([chain.next_seq()]);
        chain.segments.iter().zip(ends).map(|(segment, end)| segment.bytes_after(seq, end)).sum()
    }

    /// Deletes the segments whose transactions are all at or before `upto_seq`; never the newest one.
    pub(crate) fn trim(&self, upto_seq: u64) -> Result<(), Error> {
        let mut chain = self.shared.chain();
        let mut trimmed = false;
        // Oldest first: a crash leaves a journal that begins later and has no hole.
        while let (Some(oldest), Some(next)) = (chain.segments.front(), chain.segments.get(1))
            && next.first_seq
                <= upto_seq.saturating_add(1) + u64::from(mutant::on(mutant::JOURNAL_TRIMS_ONE_MORE))
        {
            remove(self.shared.disk.as_ref(), &oldest.id.path(&self.shared.dir))?;
            chain.segments.pop_front();
            trimmed = true;
        }
        drop(chain);
        if trimmed {
            segment::sync_dir(self.shared.disk.as_ref(), &self.shared.dir)?;
            failpoint::hit(failpoint::JOURNAL_AFTER_TRIM);
        }
        Ok(())
    }

    /// Starts reading at this transaction, which may be the next one to come.
    pub(crate) fn cursor(&self, from_seq: u64) -> Result<Cursor, Error> {
        Cursor::open(self.shared.clone(), from_seq)
    }
}

impl Shared {
    fn check_owner(&self, epoch: u64) -> Result<(), Error> {
        segment::check_owner(self.disk.as_ref(), &self.dir, epoch)
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        // No code panics while it holds the lock with the chain half changed.
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chain {
    fn first_seq(&self) -> u64 {
        self.segments.front().map_or(self.next_seq(), |segment| segment.first_seq)
    }

    fn next_seq(&self) -> u64 {
        self.last.as_ref().map_or(1, |(seq, _)| seq + 1)
    }
}

impl Segment {
    /// `end` is the first transaction that is not in this segment.
    fn bytes_after(&self, seq: u64, end: u64) -> u64 {
        let after = seq.saturating_add(1);
        if after >= end {
            return 0;
        }
        if after <= self.first_seq {
            return self.len;
        }
        let at = self.index.partition_point(|(indexed, _)| *indexed <= seq);
        let (low_seq, low) = if at == 0 { (self.first_seq - 1, 0) } else { self.index[at - 1] };
        let (high_seq, high) = self.index.get(at).copied().unwrap_or((end - 1, self.len));
        let (part, whole) = (u128::from(seq - low_seq), u128::from((high_seq - low_seq).max(1)));
        // At most `high - low`, so it fits.
        let passed = (u128::from(high - low) * part / whole) as u64;
        self.len - low - passed
    }
}

/// The last transaction that the next owner of the journal in this folder would find, without becoming it.
pub fn last_durable(disk: &dyn Disk, dir: &Path) -> Result<Option<(u64, Position)>, Error> {
    match older_segments(disk, dir, u64::MAX)?.back() {
        None => Ok(None),
        Some(newest) => Ok(segment::recover(disk, dir, newest.id)?.last),
    }
}

/// The segments of earlier owners that are part of the journal: the newest one, and back from each to the one that it
/// continues, as far as they have not been trimmed. What an owner wrote after it was taken over hangs on none of them.
fn older_segments(disk: &dyn Disk, dir: &Path, epoch: u64) -> Result<VecDeque<Segment>, Error> {
    let mut segments = VecDeque::new();
    let ids = segment::list(disk, dir)?;
    let mut wanted: Option<Id> = None;
    for id in ids.into_iter().rev().filter(|id| id.epoch < epoch) {
        if wanted.is_some_and(|wanted| wanted != id) && !mutant::on(mutant::JOURNAL_FOLLOWS_NAMES) {
            continue;
        }
        // Without a head it never came to hold anything, and nothing was written after it.
        let Some((head, len)) = segment::read_head(disk, dir, id)? else { continue };
        segments.push_front(Segment { id, first_seq: head.first_seq, len, index: Vec::new() });
        match head.before {
            Some(before) => wanted = Some(before),
            None => break,
        }
    }
    Ok(segments)
}

/// Removes segments of earlier owners that hold nothing of the journal.
fn remove_dead(disk: &dyn Disk, dir: &Path, live: &VecDeque<Segment>) -> Result<(), Error> {
    let newest = live.back().map(|segment| segment.id);
    let dead = |id: &Id| Some(*id) < newest && live.iter().all(|segment| segment.id != *id);
    segment::list(disk, dir)?.into_iter().filter(dead).try_for_each(|id| remove(disk, &id.path(dir)))
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    match disk.remove(path) {
        // A new owner may have done so already.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(Error::io("remove the journal segment", path)),
    }
}
