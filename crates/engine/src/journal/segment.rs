//! A segment file: its name, its making, and what it holds when it is found again.
//!
//! Only its creator ever writes to a segment. A file begins with a magic and a format byte, then the head frame;
//! the file's existence alone, before its head is written, already tells an earlier owner that it is over.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use model::{Position, Relation, RelationId, mutant};

use super::codec::{self, Decoder, Head, Item, Malformed};
use super::frame::{self, HEADER, Header, Kind};
use super::{Error, INDEX_BYTES};
use crate::machine::{Disk, File};

const MAGIC: &[u8; 7] = b"xfade-j";
const FORMAT: u8 = 2;
const PREAMBLE: usize = MAGIC.len() + 1;

pub(super) const OUT_OF_PLACE: &str = "a transaction is missing or out of place";

/// Read at once. Kept cells keep their block, so it is not much larger than a frame.
const BLOCK: usize = 128 << 10;

/// Segments are ordered by owner, then by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) epoch: u64,
    pub(super) number: u32,
}

impl Id {
    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:010}-{:06}.segment", self.epoch, self.number))
    }

    fn parse(name: &str) -> Option<Id> {
        let (epoch, number) = name.strip_suffix(".segment")?.split_once('-')?;
        Some(Id { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
    }
}

/// All segments in the folder, in order; other files are left alone.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<Id>, Error> {
    let names = disk.list(dir).map_err(Error::io("list the journal folder", dir))?;
    let mut ids: Vec<Id> = names.iter().filter_map(|name| Id::parse(name)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Refuses when the folder has a segment of a newer owner.
pub(super) fn check_owner(disk: &dyn Disk, dir: &Path, epoch: u64) -> Result<(), Error> {
    if mutant::on(mutant::JOURNAL_OLD_OWNER_WRITES) {
        return Ok(());
    }
    match list(disk, dir)?.last() {
        Some(newest) if newest.epoch > epoch => {
            Err(Error::Fenced { dir: dir.to_owned(), epoch, found: newest.epoch })
        }
        _ => Ok(()),
    }
}

/// Creates the file, still without its head: from now on no earlier owner takes its own writes for durable.
pub(super) fn create(disk: &dyn Disk, dir: &Path, id: Id) -> Result<Box<dyn File>, Error> {
    let path = id.path(dir);
    disk.create(&path).map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => Error::Fenced { dir: dir.to_owned(), epoch: id.epoch, found: id.epoch },
        _ => Error::io("create the journal segment", &path)(source),
    })
}

/// Writes the head and makes it durable together with the file's name; returns the file's length.
pub(super) fn write_head(
    disk: &dyn Disk,
    dir: &Path,
    id: Id,
    file: &mut dyn File,
    head: &Head,
) -> Result<u64, Error> {
    let mut payload = Vec::new();
    codec::put_head(&mut payload, head);
    let header = Header::new(Kind::Head, 0, head.first_seq, &payload);
    let mut bytes = Vec::with_capacity(PREAMBLE + HEADER + payload.len());
    bytes.extend_from_slice(MAGIC);
    bytes.push(FORMAT);
    bytes.extend_from_slice(&header.encode(id, PREAMBLE as u64));
    bytes.extend_from_slice(&payload);

    let path = id.path(dir);
    file.write_all_at(&bytes, 0).map_err(Error::io("write the journal segment", &path))?;
    file.sync().map_err(Error::io("sync the journal segment", &path))?;
    sync_dir(disk, dir)?;
    let seal = frame::seal(id, bytes.len() as u64);
    file.write_all_at(&seal, bytes.len() as u64).map_err(Error::io("write the journal segment", &path))?;
    Ok((bytes.len() + seal.len()) as u64)
}

pub(super) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    disk.sync_dir(dir).map_err(Error::io("sync the journal folder", dir))
}

/// Reads a segment frame by frame, up to a limit beyond which bytes may still change.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) id: Id,
    path: PathBuf,
    file: Box<dyn File>,
    /// Where the next frame begins.
    at: u64,
    limit: u64,
    /// The file's bytes from `at` on.
    buffer: BytesMut,
}

/// Why there is no frame.
#[derive(Debug)]
pub(super) enum Stop {
    /// The limit.
    End,
    /// Bytes that are no frame. A torn tail or damage: who asked must know which.
    Bad(&'static str),
    /// Bytes that were written wrong: their checksum is right. Never taken for a torn tail.
    Malformed(&'static str),
    Failed(Error),
}

impl Frames {
    pub(super) fn open(disk: &dyn Disk, dir: &Path, id: Id, limit: Option<u64>) -> Result<Frames, Error> {
        let path = id.path(dir);
        let failed = || Error::io("read the journal segment", &path);
        let file = disk.open(&path).map_err(failed())?;
        let limit = match limit {
            Some(limit) => limit,
            None => file.size().map_err(failed())?,
        };
        Ok(Frames { id, path, file, at: 0, limit, buffer: BytesMut::new() })
    }

    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// The magic and the head, which come first.
    pub(super) fn head(&mut self) -> Result<Head, Stop> {
        self.fill(PREAMBLE)?;
        let found = self.buffer[MAGIC.len()];
        // No format has the number 0: that is a block that was allocated and never written.
        if !self.buffer.starts_with(MAGIC) || (found == 0 && !mutant::on(mutant::JOURNAL_ZERO_FORMAT)) {
            return Err(Stop::Bad("the file does not begin as a journal segment does"));
        }
        if found != FORMAT {
            return Err(Stop::Failed(Error::Format { path: self.path.clone(), found, expected: FORMAT }));
        }
        self.step(PREAMBLE as u64);
        let header = self.header()?;
        if header.kind != Kind::Head {
            return Err(Stop::Bad("the first frame is not the segment's head"));
        }
        Ok(Decoder::new(self.payload(&header)?).head()?)
    }

    /// The header of the next frame, which stays the next until [`Frames::payload`] or [`Frames::skip`].
    pub(super) fn header(&mut self) -> Result<Header, Stop> {
        if self.at >= self.limit {
            return Err(Stop::End);
        }
        self.fill(HEADER)?;
        let header = Header::decode(&self.buffer, self.id, self.at)
            .ok_or(Stop::Bad("a frame's header fails its checksum"))?;
        if header.frame_len() > self.limit - self.at {
            return Err(Stop::Bad("a frame ends beyond the end of the file"));
        }
        Ok(header)
    }

    pub(super) fn payload(&mut self, header: &Header) -> Result<Bytes, Stop> {
        self.fill(header.frame_len() as usize)?;
        let frame = &self.buffer[..header.frame_len() as usize];
        if crc32c::crc32c(&frame[HEADER..]) != header.payload_crc {
            return Err(Stop::Bad("a frame's content fails its checksum"));
        }
        self.at += header.frame_len();
        self.buffer.advance(HEADER);
        Ok(self.buffer.split_to(header.payload_len as usize).freeze())
    }

    pub(super) fn skip(&mut self, header: &Header) {
        self.step(header.frame_len());
    }

    /// The error for a reader who knows that there must be a frame.
    pub(super) fn error(&self, stop: Stop) -> Error {
        match stop {
            Stop::End => self.corrupt("the file ends before its last transaction"),
            Stop::Bad(what) | Stop::Malformed(what) => self.corrupt(what),
            Stop::Failed(error) => error,
        }
    }

    pub(super) fn corrupt(&self, what: &'static str) -> Error {
        Error::Corrupt { path: self.path.clone(), offset: self.at, what }
    }

    fn step(&mut self, len: u64) {
        self.at += len;
        match usize::try_from(len) {
            Ok(len) if len <= self.buffer.len() => self.buffer.advance(len),
            _ => self.buffer.clear(),
        }
    }

    /// Has at least `len` bytes in the buffer.
    fn fill(&mut self, len: usize) -> Result<(), Stop> {
        let have = self.buffer.len();
        if have >= len {
            return Ok(());
        }
        let from = self.at + have as u64;
        let left = self.limit.saturating_sub(from);
        if (len - have) as u64 > left {
            return Err(Stop::Bad("a frame ends beyond the end of the file"));
        }
        let want = (len.max(BLOCK) - have) as u64;
        self.buffer.resize(have + want.min(left) as usize, 0);
        self.file.read_exact_at(&mut self.buffer[have..], from).map_err(|source| {
            self.buffer.clear();
            match source.kind() {
                ErrorKind::UnexpectedEof => Stop::Bad("the file has become shorter"),
                _ => Stop::Failed(self.unreadable(source)),
            }
        })
    }

    fn unreadable(&self, source: std::io::Error) -> Error {
        Error::io("read the journal segment", &self.path)(source)
    }

    /// Passes a torn tail and refuses everything else.
    fn torn(&mut self, stop: Stop) -> Result<(), Error> {
        match stop {
            Stop::End => Ok(()),
            Stop::Bad(_) if !self.sealed_behind()? => Ok(()),
            Stop::Bad(what) | Stop::Malformed(what) => Err(self.corrupt(what)),
            Stop::Failed(error) => Err(error),
        }
    }

    /// Whether a seal lies behind the place where reading stopped: then that place had been durable.
    fn sealed_behind(&mut self) -> Result<bool, Error> {
        let failed = |source| Error::io("read the journal segment", &self.path)(source);
        let len = self.file.size().map_err(failed)?;
        let (mut offset, mut window) = (self.at, Vec::new());
        loop {
            let have = window.len();
            let from = offset + have as u64;
            // At most a MiB, so it fits.
            let read = len.saturating_sub(from).min(1 << 20) as usize;
            window.resize(have + read, 0);
            self.file.read_exact_at(&mut window[have..], from).map_err(failed)?;
            if frame::holds_seal(&window, self.id, offset) {
                return Ok(true);
            }
            if read == 0 {
                return Ok(false);
            }
            // A seal may lie across two reads.
            let keep = window.len().min(HEADER - 1);
            offset += (window.len() - keep) as u64;
            window.drain(..window.len() - keep);
        }
    }
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Stop {
        Stop::Malformed(malformed.0)
    }
}

/// Follows the frames of consecutive transactions and notices one that is missing or out of place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Track {
    /// The transaction whose frames come next, or are coming.
    pub(super) next_seq: u64,
    /// Its first frame has been seen.
    pub(super) inside: bool,
}

impl Track {
    pub(super) fn at(next_seq: u64) -> Track {
        Track { next_seq, inside: false }
    }

    /// Returns false when this frame cannot follow.
    pub(super) fn follow(&mut self, header: &Header) -> bool {
        if header.seq != self.next_seq || header.begins() == self.inside {
            return false;
        }
        self.inside = !header.commits();
        self.next_seq += u64::from(header.commits());
        true
    }
}

/// What is found in a segment when the journal is opened again.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) last: Option<(u64, Position)>,
    pub(super) relations: BTreeMap<RelationId, Relation>,
    pub(super) index: Vec<(u64, u64)>,
    /// Up to the end of the last committed transaction.
    pub(super) len: u64,
}

/// The head of a segment that an earlier owner left, or `None` when it never came to write one.
pub(super) fn read_head(disk: &dyn Disk, dir: &Path, id: Id) -> Result<Option<(Head, u64)>, Error> {
    let mut frames = Frames::open(disk, dir, id, None)?;
    match frames.head() {
        Ok(head) => Ok(Some((head, frames.limit))),
        Err(stop) => frames.torn(stop).map(|()| None),
    }
}

/// Reads a whole segment: the last committed transaction and what it takes to continue after it. A torn tail
/// and a transaction without its commit are left out; damage before the last seal is an error.
pub(super) fn recover(disk: &dyn Disk, dir: &Path, id: Id) -> Result<Recovered, Error> {
    let mut frames = Frames::open(disk, dir, id, None)?;
    // The owner may have died between its write and its fsync: what is believed here must first be durable.
    frames.file.sync().map_err(Error::io("sync the journal segment", &frames.path))?;
    let mut recovered =
        Recovered { last: None, relations: BTreeMap::new(), index: Vec::new(), len: PREAMBLE as u64 };
    match scan(&mut frames, &mut recovered) {
        Ok(()) => Ok(recovered),
        Err(stop) => frames.torn(stop).map(|()| recovered),
    }
}

fn scan(frames: &mut Frames, recovered: &mut Recovered) -> Result<(), Stop> {
    let head = frames.head()?;
    recovered.len = frames.at;
    recovered.last = head.last.map(|position| (head.first_seq - 1, position));
    recovered.relations.extend(head.relations.into_iter().map(|relation| (relation.id, relation)));
    let mut track = Track::at(head.first_seq);
    let mut announced = Vec::new();
    loop {
        let header = frames.header()?;
        if header.kind == Kind::Seal {
            frames.skip(&header);
            continue;
        }
        let payload = frames.payload(&header)?;
        if !track.follow(&header) {
            return Err(Stop::Malformed(OUT_OF_PLACE));
        }
        match header.kind {
            Kind::Relation => announced.push(Decoder::new(payload).relation()?),
            Kind::Changes if header.commits() => {
                let position = commit_position(payload, header.seq)?;
                recovered.last = Some((header.seq, position));
                recovered.len = frames.at;
                recovered.relations.extend(announced.drain(..).map(|relation| (relation.id, relation)));
                let indexed = recovered.index.last().map_or(0, |(_, offset)| *offset);
                if recovered.len >= indexed + INDEX_BYTES {
                    recovered.index.push((header.seq, recovered.len));
                }
            }
            Kind::Changes => {}
            Kind::Head | Kind::Seal => return Err(Stop::Malformed("a head in the middle of a segment")),
        }
    }
}

fn commit_position(payload: Bytes, seq: u64) -> Result<Position, Stop> {
    let mut items = Decoder::new(payload);
    loop {
        if let Item::Commit(position) = items.item(seq)? {
            // A reader would show what is behind it as well.
            return if items.is_done() { Ok(position) } else { Err(Stop::Malformed(OUT_OF_PLACE)) };
        }
    }
}
