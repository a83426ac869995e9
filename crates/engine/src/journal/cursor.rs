//! The reading end: follows the journal from one transaction on, over segments and while it grows.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Relation, RelationId};
use tokio::sync::watch;

use super::codec::{Decoder, Item};
use super::frame::{Header, Kind};
use super::segment::{Frames, Id, OUT_OF_PLACE, Stop, Track};
use super::{Chain, Entry, Error, Shared};

/// Reads transactions in order. Several may exist; trimming does not disturb one that is already behind it.
///
/// Cells are slices of the block that was read: a cell that is kept for long keeps up to 128 KiB with it, so
/// who keeps few cells out of many should copy them.
#[derive(Debug)]
pub(crate) struct Cursor {
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
    from_seq: u64,
    frames: Frames,
    track: Track,
    /// The chain as it was last looked at; good for every transaction up to `upto_seq`.
    upto_seq: u64,
    next: Option<Next>,
    /// The relations in force at `from_seq`, until they have been delivered.
    relations: Option<BTreeMap<RelationId, Relation>>,
    /// The rest of a frame, and the transaction that it belongs to.
    rest: Option<(u64, Decoder)>,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    id: Id,
    first_seq: u64,
    len: u64,
}

impl Cursor {
    pub(super) fn open(shared: Arc<Shared>, from_seq: u64) -> Result<Cursor, Error> {
        let chain = shared.chain();
        let (first_seq, next_seq) = (chain.first_seq(), chain.next_seq());
        if from_seq > next_seq {
            return Err(Error::Lost { dir: shared.dir.clone(), from_seq, next_seq });
        }
        let at = chain.segments.partition_point(|segment| segment.first_seq <= from_seq);
        let Some(segment) = at.checked_sub(1).and_then(|at| chain.segments.get(at)) else {
            return Err(Error::Trimmed { dir: shared.dir.clone(), from_seq, first_seq });
        };
        // Under the lock, so that it cannot be trimmed away in between.
        let mut frames = Frames::open(shared.disk.as_ref(), &shared.dir, segment.id, Some(segment.len))?;
        drop(chain);
        let head = frames.head().map_err(|stop| frames.error(stop))?;
        Ok(Cursor {
            durable: shared.durable.subscribe(),
            shared,
            from_seq,
            frames,
            track: Track::at(head.first_seq),
            upto_seq: 0,
            next: None,
            relations: Some(head.relations.into_iter().map(|relation| (relation.id, relation)).collect()),
            rest: None,
        })
    }

    /// Appends at least one entry, waiting for it, and more up to about `bytes_max` of memory. A transaction that is
    /// larger comes in pieces. Safe to drop at the await.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "part of the journal's contract; the engine does not need it yet")
    )]
    pub(crate) async fn next(&mut self, entries: &mut Vec<Entry>, bytes_max: usize) -> Result<(), Error> {
        loop {
            self.durable.borrow_and_update();
            if self.try_next(entries, bytes_max)? {
                return Ok(());
            }
            if self.durable.changed().await.is_err() {
                // The sender lives in `shared`, which we hold.
                std::future::pending::<()>().await;
            }
        }
    }

    /// As [`Cursor::next`] without waiting: false when there is nothing durable that has not been delivered.
    pub(crate) fn try_next(&mut self, entries: &mut Vec<Entry>, bytes_max: usize) -> Result<bool, Error> {
        let before = entries.len();
        let mut bytes = 0;
        while bytes < bytes_max.max(1) {
            let Some((seq, items)) = &mut self.rest else {
                if self.next_frame(entries)? {
                    continue;
                }
                break;
            };
            let item = items.item(*seq).map_err(|malformed| self.frames.corrupt(malformed.0))?;
            bytes += match &item {
                // The entry itself stands for about this much.
                Item::Begin(_) | Item::Commit(_) => 64,
                Item::Change(change) => 64 + change.weight(),
            };
            entries.push(match item {
                Item::Begin(transaction) => Entry::Begin(transaction),
                Item::Change(change) => Entry::Change(change),
                Item::Commit(position) => Entry::Commit { seq: *seq, position },
            });
            if items.is_done() {
                self.rest = None;
            }
        }
        Ok(entries.len() > before)
    }

    /// Takes the next frame; false when it is not durable yet.
    fn next_frame(&mut self, entries: &mut Vec<Entry>) -> Result<bool, Error> {
        if !self.track.inside && !self.find_next()? {
            return Ok(false);
        }
        let header = self.frames.header().map_err(|stop| self.error(stop))?;
        match header.kind {
            Kind::Seal => self.frames.skip(&header),
            Kind::Relation | Kind::Changes => self.take(&header, entries)?,
            Kind::Head => return Err(self.frames.corrupt(OUT_OF_PLACE)),
        }
        Ok(true)
    }

    /// Makes the next transaction readable, in a new segment if it lies there; false when it is not durable yet.
    fn find_next(&mut self) -> Result<bool, Error> {
        let next_seq = self.track.next_seq;
        if next_seq <= self.upto_seq && self.next.is_none_or(|next| next.first_seq > next_seq) {
            return Ok(true);
        }
        let shared = self.shared.clone();
        let chain = shared.chain();
        self.look(&chain);
        if next_seq > self.upto_seq {
            return Ok(false);
        }
        if let Some(next) = self.next.filter(|next| next.first_seq == next_seq) {
            // Under the lock, so that it cannot be trimmed away in between.
            self.frames = Frames::open(shared.disk.as_ref(), &shared.dir, next.id, Some(next.len))?;
            self.look(&chain);
            drop(chain);
            // Its relations are those that have been delivered or are known.
            self.frames.head().map_err(|stop| self.error(stop))?;
        }
        Ok(true)
    }

    fn look(&mut self, chain: &Chain) {
        let at = chain.segments.partition_point(|segment| segment.id < self.frames.id);
        let mut rest = chain.segments.range(at..).peekable();
        if let Some(current) = rest.next_if(|segment| segment.id == self.frames.id) {
            self.frames.set_limit(current.len);
        }
        self.next = rest.next().map(|next| Next { id: next.id, first_seq: next.first_seq, len: next.len });
        self.upto_seq = chain.next_seq() - 1;
    }

    fn take(&mut self, header: &Header, entries: &mut Vec<Entry>) -> Result<(), Error> {
        if !self.track.follow(header) {
            return Err(self.frames.corrupt(OUT_OF_PLACE));
        }
        let wanted = header.seq >= self.from_seq;
        if !wanted && header.kind == Kind::Changes {
            self.frames.skip(header);
            return Ok(());
        }
        let payload = self.frames.payload(header).map_err(|stop| self.frames.error(stop))?;
        let mut decoder = Decoder::new(payload);
        if wanted && let Some(relations) = self.relations.take() {
            entries.extend(relations.into_values().map(Entry::Relation));
        }
        if header.kind == Kind::Changes {
            self.rest = Some((header.seq, decoder));
            return Ok(());
        }
        let relation = decoder.relation().map_err(|malformed| self.frames.corrupt(malformed.0))?;
        match &mut self.relations {
            Some(relations) => {
                relations.insert(relation.id, relation);
            }
            None => entries.push(Entry::Relation(relation)),
        }
        Ok(())
    }

    fn error(&self, stop: Stop) -> Error {
        let (from_seq, first_seq) = (self.track.next_seq, self.shared.chain().first_seq());
        match stop {
            Stop::End if from_seq < first_seq => {
                Error::Trimmed { dir: self.shared.dir.clone(), from_seq, first_seq }
            }
            stop => self.frames.error(stop),
        }
    }
}
