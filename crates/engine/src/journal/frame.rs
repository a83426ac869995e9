//! The frame: what a segment is made of, and what the checksums guard.
//!
//! A frame belongs to one transaction, so that a reader steps over transactions by headers alone. The header's
//! checksum starts from the segment and the offset: a frame is valid only where it was written, and bytes of
//! a journal that are themselves a migrated value are never taken for a frame.

use crc32c::{crc32c, crc32c_append};

use super::segment::Id;

/// `kind flags marker len seq payload_crc header_crc`, little-endian.
pub(super) const HEADER: usize = 24;

/// The transaction's first frame, and its last.
pub(super) const BEGIN: u8 = 1;
pub(super) const COMMIT: u8 = 2;

const MARKER: [u8; 2] = *b"xf";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// First in every segment: where it continues, and the relations in force.
    Head,
    /// One relation, in a frame of its own so that readers who step over the changes still learn it.
    Relation,
    /// Items: begin, changes, commit.
    Changes,
    /// Written after each fsync: everything before the offset that it names was durable. This is what tells
    /// a torn tail from damage.
    Seal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) seq: u64,
    pub(super) payload_len: u32,
    pub(super) payload_crc: u32,
}

impl Header {
    pub(super) fn new(kind: Kind, flags: u8, seq: u64, payload: &[u8]) -> Header {
        Header { kind, flags, seq, payload_len: payload.len() as u32, payload_crc: crc32c(payload) }
    }

    /// Length of the whole frame.
    pub(super) fn frame_len(&self) -> u64 {
        HEADER as u64 + u64::from(self.payload_len)
    }

    pub(super) fn begins(&self) -> bool {
        self.flags & BEGIN != 0
    }

    pub(super) fn commits(&self) -> bool {
        self.flags & COMMIT != 0
    }

    pub(super) fn encode(&self, id: Id, offset: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = match self.kind {
            Kind::Head => 1,
            Kind::Relation => 2,
            Kind::Changes => 3,
            Kind::Seal => 4,
        };
        bytes[1] = self.flags;
        bytes[2..4].copy_from_slice(&MARKER);
        bytes[4..8].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = header_crc(id, offset, &bytes);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` when these bytes are not the header of a frame of this segment at this offset.
    pub(super) fn decode(bytes: &[u8], id: Id, offset: u64) -> Option<Header> {
        let bytes: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        let u32_at = |at: usize| bytes[at..at + 4].try_into().ok().map(u32::from_le_bytes);
        if bytes[2..4] != MARKER || u32_at(20)? != header_crc(id, offset, bytes) {
            return None;
        }
        let kind = match bytes[0] {
            1 => Kind::Head,
            2 => Kind::Relation,
            3 => Kind::Changes,
            4 => Kind::Seal,
            _ => return None,
        };
        let seq = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
        Some(Header { kind, flags: bytes[1], seq, payload_len: u32_at(4)?, payload_crc: u32_at(16)? })
    }
}

fn header_crc(id: Id, offset: u64, bytes: &[u8; HEADER]) -> u32 {
    let mut place = [0; 20];
    place[..8].copy_from_slice(&id.epoch.to_le_bytes());
    place[8..12].copy_from_slice(&id.number.to_le_bytes());
    place[12..].copy_from_slice(&offset.to_le_bytes());
    crc32c_append(crc32c(&place), &bytes[..20])
}

/// A whole seal frame, to be written at `offset`, which says that everything before it is durable. The offset
/// is the header's `seq`; there is no payload.
pub(super) fn seal(id: Id, offset: u64) -> [u8; HEADER] {
    Header::new(Kind::Seal, 0, offset, &[]).encode(id, offset)
}

/// Whether `bytes`, which lie at `offset` in the segment, contain a seal.
pub(super) fn holds_seal(bytes: &[u8], id: Id, offset: u64) -> bool {
    bytes.windows(HEADER).enumerate().any(|(at, window)| {
        window[0] == 4
            && window[2..4] == MARKER
            && Header::decode(window, id, offset + at as u64).is_some_and(|header| header.kind == Kind::Seal)
    })
}
