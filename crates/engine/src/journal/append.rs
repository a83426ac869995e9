//! The writing end: encodes transactions into frames, writes them in large pieces, and makes them durable.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::{Change, Position, Relation, RelationId, Transaction, mutant};

use super::codec::{self, Head};
use super::frame::{self, BEGIN, COMMIT, HEADER, Header, Kind};
use super::segment::{self, Id};
use super::{Error, INDEX_BYTES, Segment, Shared};
use crate::machine::File;

/// A frame of changes is closed beyond this size: large enough that its header costs nothing, small enough
/// that a kept cell does not hold much else in memory.
const FRAME_BYTES: usize = 64 << 10;

/// Closed frames beyond this size are written without waiting for a sync, so that a transaction of any size
/// takes no more memory than this.
const WRITE_BYTES: usize = 1 << 20;

/// The only writer; owned by the capture task.
///
/// `begin`, then relations and changes, then `commit` or `abandon`. Nothing is durable before
/// [`Append::sync`] has returned. After any error nothing more is taken: the methods without a result keep the error
/// for the next one that has one.
#[derive(Debug)]
pub(crate) struct Append {
    shared: Arc<Shared>,
    id: Id,
    path: PathBuf,
    file: Box<dyn File>,
    segment_bytes: u64,
    /// The segment's first transaction.
    first_seq: u64,
    /// The file's length.
    written: u64,
    /// The length that the last successful fsync covered.
    synced: u64,
    /// To be written at `written`: closed frames, then the open one.
    buffer: Vec<u8>,
    frame: Option<OpenFrame>,
    next_seq: u64,
    transaction: Option<OpenTransaction>,
    /// In force after the last committed transaction.
    relations: BTreeMap<RelationId, Relation>,
    /// Announced within the open transaction, or for the next one.
    announced: Vec<Relation>,
    /// The last commit that is not durable yet.
    committed: Option<Committed>,
    health: Health,
}

#[derive(Debug)]
struct OpenFrame {
    /// Where its header is in the buffer.
    start: usize,
    flags: u8,
}

#[derive(Debug)]
struct OpenTransaction {
    /// Offset of its first frame in the file.
    start: u64,
}

#[derive(Debug)]
struct Committed {
    seq: u64,
    position: Position,
    /// Offset at which its last frame ends.
    end: u64,
}

#[derive(Debug)]
enum Health {
    Good,
    /// To be returned by the next method that can.
    Failed(Error),
    /// The error has been returned.
    Poisoned,
}

impl Append {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: Id,
        file: Box<dyn File>,
        written: u64,
        segment_bytes: u64,
        relations: BTreeMap<RelationId, Relation>,
    ) -> Append {
        let next_seq = shared.chain().next_seq();
        Append {
            path: id.path(&shared.dir),
            shared,
            id,
            file,
            segment_bytes,
            first_seq: next_seq,
            written,
            synced: written,
            buffer: Vec::new(),
            frame: None,
            next_seq,
            transaction: None,
            relations,
            announced: Vec::new(),
            committed: None,
            health: Health::Good,
        }
    }

    /// Begins a transaction and returns the number that it gets when it commits. Its `seq` is ignored.
    pub(crate) fn begin(&mut self, transaction: Transaction) -> u64 {
        debug_assert!(self.transaction.is_none(), "the transaction before has neither commit nor abandon");
        if self.is_full() {
            let rotated = self.rotate();
            self.note(rotated);
        }
        self.transaction = Some(OpenTransaction { start: self.written + self.buffer.len() as u64 });
        self.open_frame(BEGIN);
        codec::put_begin(&mut self.buffer, &transaction);
        for relation in std::mem::take(&mut self.announced) {
            self.put_relation(relation);
        }
        self.next_seq
    }

    /// Describes a table to the changes that follow; outside of a transaction, to those of the next one.
    pub(crate) fn relation(&mut self, relation: &Relation) -> Result<(), Error> {
        self.check()?;
        let known = self.announced.iter().rev().find(|announced| announced.id == relation.id);
        if known.or_else(|| self.relations.get(&relation.id)) == Some(relation) {
            return Ok(());
        }
        if self.transaction.is_some() {
            self.put_relation(relation.clone());
        } else {
            self.announced.push(relation.clone());
        }
        Ok(())
    }

    pub(crate) fn change(&mut self, change: &Change) -> Result<(), Error> {
        debug_assert!(self.transaction.is_some(), "a change outside of a transaction");
        self.check()?;
        if self.frame.is_none() {
            self.open_frame(0);
        }
        let start = self.buffer.len();
        codec::put_change(&mut self.buffer, change);
        let bytes = self.buffer.len() - start;
        // A frame holds this and what was in it before, which is less than FRAME_BYTES.
        let bytes_max = u32::MAX as usize - 2 * FRAME_BYTES;
        if bytes > bytes_max {
            self.health = Health::Poisoned;
            return Err(Error::TooLarge { bytes, bytes_max });
        }
        if self.frame.as_ref().is_some_and(|frame| self.buffer.len() - frame.start >= FRAME_BYTES) {
            self.close_frame();
        }
        if self.buffer.len() >= WRITE_BYTES {
            let written = self.write();
            self.noted(written)?;
        }
        Ok(())
    }

    /// Ends the transaction at this position. It is durable after the next sync.
    pub(crate) fn commit(&mut self, position: &Position) {
        debug_assert!(self.transaction.is_some(), "a commit outside of a transaction");
        if self.frame.is_none() {
            self.open_frame(0);
        }
        codec::put_commit(&mut self.buffer, position);
        if let Some(frame) = &mut self.frame {
            frame.flags |= COMMIT;
        }
        self.close_frame();
        self.relations.extend(self.announced.drain(..).map(|relation| (relation.id, relation)));
        let end = self.written + self.buffer.len() as u64;
        self.committed = Some(Committed { seq: self.next_seq, position: position.clone(), end });
        self.transaction = None;
        self.next_seq += 1;
    }

    /// Forgets the open transaction, if there is one: capture has reconnected and delivers it again from its start.
    /// What has been committed stays, so sync before capture begins again from the last durable position.
    pub(crate) fn abandon(&mut self) {
        self.announced.clear();
        self.frame = None;
        let Some(OpenTransaction { start }) = self.transaction.take() else { return };
        if start >= self.written {
            self.buffer.truncate((start - self.written) as usize);
            return;
        }
        self.buffer.clear();
        let cut = self.cut_back(start);
        self.note(cut);
    }

    /// Bytes that have not been written to the file.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "part of the journal's contract; the engine does not need it yet")
    )]
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Makes everything committed so far durable, shows it to the cursors, and returns the position of the last
    /// durable transaction.
    pub(crate) fn sync(&mut self) -> Result<Option<Position>, Error> {
        self.check()?;
        let synced = self.make_durable();
        self.noted(synced)?;
        Ok(self.shared.chain().last.as_ref().map(|(_, position)| position.clone()))
    }

    pub(crate) fn check_owner(&self) -> Result<(), Error> {
        self.shared.check_owner(self.id.epoch)
    }

    /// The order is what safety rests on: bytes, fsync, still the owner, and only then the news. Before the owner
    /// check a newer owner may not have read these bytes, and the source would be told to free what nobody has.
    fn make_durable(&mut self) -> Result<(), Error> {
        self.write()?;
        if self.written == self.synced && self.committed.is_none() {
            return Ok(());
        }
        if !mutant::on(mutant::CAPTURE_ACKNOWLEDGES_EARLY)
            && let Err(source) = self.file.sync()
        {
            self.retract();
            return Err(Error::io("sync the journal segment", &self.path)(source));
        }
        self.synced = self.written;
        self.check_owner()?;
        if let Some(committed) = self.committed.take() {
            self.publish(committed);
        }
        self.file
            .write_all_at(&frame::seal(self.id, self.written), self.written)
            .map_err(Error::io("write the journal segment", &self.path))?;
        // Nothing waits for the seal itself to be durable.
        let behind = self.written + HEADER as u64;
        if let Some(open) = self.transaction.as_mut().filter(|open| open.start == self.written) {
            // Nothing of it has been written yet, so the seal lies before it.
            open.start = behind;
        }
        (self.written, self.synced) = (behind, behind);
        Ok(())
    }

    fn publish(&mut self, committed: Committed) {
        let mut chain = self.shared.chain();
        if let Some(segment) = chain.segments.back_mut() {
            segment.len = committed.end;
            let indexed = segment.index.last().map_or(0, |(_, offset)| *offset);
            if segment.len >= indexed + INDEX_BYTES {
                segment.index.push((committed.seq, segment.len));
            }
        }
        chain.last = Some((committed.seq, committed.position));
        drop(chain);
        self.shared.durable.send_replace(committed.seq);
    }

    fn is_full(&self) -> bool {
        self.written + self.buffer.len() as u64 >= self.segment_bytes && self.next_seq > self.first_seq
    }

    /// Goes on in a new segment. Between transactions only: a transaction never spans two.
    fn rotate(&mut self) -> Result<(), Error> {
        self.check()?;
        // The old one must be durable to its end before a head claims to continue it.
        self.make_durable()?;
        let dir = self.shared.dir.clone();
        let id = Id { number: self.id.number + 1, ..self.id };
        let head = Head {
            before: Some(self.id),
            first_seq: self.next_seq,
            last: self.shared.chain().last.as_ref().map(|(_, position)| position.clone()),
            relations: self.relations.values().cloned().collect(),
        };
        let disk = self.shared.disk.as_ref();
        let mut file = segment::create(disk, &dir, id)?;
        let len = segment::write_head(disk, &dir, id, file.as_mut(), &head)?;
        self.shared.chain().segments.push_back(Segment {
            id,
            first_seq: head.first_seq,
            len,
            index: Vec::new(),
        });
        (self.path, self.id, self.file, self.first_seq) = (id.path(&dir), id, file, head.first_seq);
        (self.written, self.synced) = (len, len);
        Ok(())
    }

    /// Writes the closed frames.
    fn write(&mut self) -> Result<(), Error> {
        let closed = self.frame.as_ref().map_or(self.buffer.len(), |frame| frame.start);
        if closed == 0 {
            return Ok(());
        }
        if let Err(source) = self.file.write_all_at(&self.buffer[..closed], self.written) {
            self.retract();
            return Err(Error::io("write the journal segment", &self.path)(source));
        }
        self.written += closed as u64;
        self.buffer.drain(..closed);
        // One enormous change must not hold its memory for good.
        self.buffer.shrink_to(2 * WRITE_BYTES);
        if let Some(frame) = &mut self.frame {
            frame.start = 0;
        }
        Ok(())
    }

    /// After a failed write or fsync: removes what may or may not be on the disk, so that the next owner does not
    /// find it in the page cache and believe it. Not when there is a next owner already: it has read it.
    fn retract(&mut self) {
        let retracted = segment::check_owner(self.shared.disk.as_ref(), &self.shared.dir, self.id.epoch)
            .and_then(|()| {
                self.file.set_len(self.synced).map_err(Error::io("shorten the journal segment", &self.path))
            });
        if let Err(error) = retracted {
            tracing::warn!(%error, "the end of the journal that could not be made durable is still there");
        }
    }

    /// Shortens the file. Durable before anything is written again: old frames must not come back behind new ones.
    fn cut_back(&mut self, len: u64) -> Result<(), Error> {
        self.check()?;
        self.file
            .set_len(len)
            .and_then(|()| self.file.sync())
            .map_err(Error::io("shorten the journal segment", &self.path))?;
        (self.written, self.synced) = (len, len);
        Ok(())
    }

    fn open_frame(&mut self, flags: u8) {
        let start = self.buffer.len();
        self.buffer.resize(start + HEADER, 0);
        self.frame = Some(OpenFrame { start, flags });
    }

    fn close_frame(&mut self) {
        if let Some(OpenFrame { start, flags }) = self.frame.take() {
            self.finish_frame(start, Kind::Changes, flags);
        }
    }

    fn put_relation(&mut self, relation: Relation) {
        self.close_frame();
        let start = self.buffer.len();
        self.buffer.resize(start + HEADER, 0);
        codec::put_relation(&mut self.buffer, &relation);
        self.finish_frame(start, Kind::Relation, 0);
        self.announced.push(relation);
    }

    fn finish_frame(&mut self, start: usize, kind: Kind, flags: u8) {
        let header = Header::new(kind, flags, self.next_seq, &self.buffer[start + HEADER..]);
        let header = header.encode(self.id, self.written + start as u64);
        self.buffer[start..start + HEADER].copy_from_slice(&header);
    }

    /// As a process that dies between its write and its fsync.
    #[cfg(test)]
    pub(super) fn write_for_test(&mut self) {
        self.write().unwrap();
    }

    /// The error that has not been returned yet, or that there was one.
    fn check(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.health, Health::Poisoned) {
            Health::Good => {
                self.health = Health::Good;
                Ok(())
            }
            Health::Failed(error) => Err(error),
            Health::Poisoned => Err(Error::Poisoned { path: self.path.clone() }),
        }
    }

    fn note(&mut self, result: Result<(), Error>) {
        if let Err(error) = result {
            self.health = Health::Failed(error);
        }
    }

    fn noted(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if result.is_err() {
            self.health = Health::Poisoned;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;
    use crate::journal::tests::{Folder, append_one};

    #[test]
    fn a_failed_write_poisons_and_says_what_to_do() {
        let folder = Folder::new();
        let (journal, mut append) = Journal::open(&folder.path, 1).unwrap();
        append_one(&mut append, 1);
        append.sync().unwrap();
        append.file = Box::new(std::fs::File::options().write(true).open("/dev/full").unwrap());
        append_one(&mut append, 2);
        let error = append.sync().unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("free space")), "{error}");
        assert!(matches!(append.sync(), Err(Error::Poisoned { .. })));
        append.begin(Transaction { seq: 0, id: 0, order: 0, committed_us: 0 });
        let change = Change::Truncate { relations: vec![], restart_identity: false };
        assert!(matches!(append.change(&change), Err(Error::Poisoned { .. })));
        assert_eq!(*journal.durable().borrow(), 1);
    }

    #[test]
    fn an_error_while_beginning_is_returned_by_the_next_sync() {
        let folder = Folder::new();
        let (_journal, mut append) = Journal::open_sized(&folder.path, 1, 1).unwrap();
        append_one(&mut append, 1);
        append.sync().unwrap();
        std::fs::remove_dir_all(&folder.path).unwrap();
        append.begin(Transaction { seq: 0, id: 0, order: 0, committed_us: 0 });
        assert!(matches!(append.sync(), Err(Error::Io { .. })));
        assert!(matches!(append.sync(), Err(Error::Poisoned { .. })));
    }
}
