//! Places in the binary log: `binlog.000007:48213 0-1-5567` for people, one number for comparing.
//!
//! The number is the incarnation of the log (4 bits, always 0 so far), the file's number (24 bits), and the offset in the
//! file (36 bits), which is counted here from the sizes of the events: the header of an event has room for 32 bits only.
//! 16 million files of 64 GiB each fit in; what does not is an error, never another place.

use std::collections::BTreeMap;
use std::fmt;

use connector::{Error, ErrorKind};
use model::Position;

const OFFSET_BITS: u32 = 36;
/// One less than fits, so that the order of a transaction that begins at an offset (one more than the offset) fits too.
const OFFSET_MAX: u64 = (1 << OFFSET_BITS) - 2;
const FILE_NUMBER_MAX: u64 = (1 << 24) - 1;
/// The server writes at least so many digits.
const FILE_DIGITS: usize = 6;
/// No event is larger than `max_allowed_packet` can be, so no gap left by one that was not sent is.
const GAP_MAX: u64 = 1 << 30;

/// An offset in a file of the log, and which transactions lie before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Coordinates {
    file: File,
    offset: u64,
    pub(crate) gtids: GtidPosition,
    /// When the file was begun, in seconds since 1970-01-01 UTC, where that is known: a server that was restored writes
    /// another file of the same name, and may put the same transactions at the same places.
    pub(crate) begun: Option<u32>,
}

/// A file of the log: what `log_bin` calls them all, and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    base: String,
    number: u64,
}

/// MariaDB's id of a transaction: domain, server, and a number that counts up within the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gtid {
    pub(crate) domain: u32,
    pub(crate) server: u32,
    pub(crate) sequence: u64,
}

/// MariaDB's position by GTID: of each domain the last transaction. Two texts that list the domains in different orders
/// are the same position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GtidPosition(BTreeMap<u32, Gtid>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPosition {
    #[error("'{0}' is not of the form FILE:OFFSET with a GTID position behind it")]
    Text(String),
    #[error("'{0}' is not the name of a binary log: NAME.NUMBER with at least six digits")]
    FileName(String),
    #[error("'{0}' is not a GTID position: DOMAIN-SERVER-SEQUENCE, separated by commas")]
    Gtids(String),
    #[error("binary log number {0} is more than {FILE_NUMBER_MAX}")]
    FileNumber(u64),
    #[error("offset {0} in a binary log is more than {OFFSET_MAX}")]
    Offset(u64),
    #[error("an event ends at {log_pos} (modulo 2^32), which is far from offset {offset}")]
    Gap { offset: u64, log_pos: u32 },
}

impl BadPosition {
    pub(crate) fn during(self, operation: &'static str) -> Error {
        let kind = match self {
            BadPosition::Text(_) | BadPosition::Gtids(_) | BadPosition::Gap { .. } => ErrorKind::Corrupt,
            BadPosition::FileName(_) | BadPosition::FileNumber(_) | BadPosition::Offset(_) => {
                ErrorKind::Setup
            }
        };
        Error::new(kind, operation).source(self)
    }
}

impl Coordinates {
    /// `file` as the server names it.
    pub(crate) fn new(file: &str, offset: u64, gtids: GtidPosition) -> Result<Coordinates, BadPosition> {
        Ok(Coordinates { file: File::parse(file)?, offset: within(offset)?, gtids, begun: None })
    }

    /// Reads what `position` wrote.
    pub(crate) fn parse(text: &str) -> Result<Coordinates, BadPosition> {
        let bad = || BadPosition::Text(text.to_owned());
        let (text_before, begun) = match text.rsplit_once(" @") {
            Some((before, begun)) => (before, Some(number(begun).ok_or_else(bad)?)),
            None => (text, None),
        };
        let (place, gtids) = text_before.split_once(' ').unwrap_or((text_before, ""));
        let (file, offset) = place.rsplit_once(':').ok_or_else(bad)?;
        let offset: u64 = number(offset).ok_or_else(bad)?;
        Ok(Coordinates { begun, ..Coordinates::new(file, offset, GtidPosition::parse(gtids)?)? })
    }

    pub(crate) fn file(&self) -> String {
        self.file.to_string()
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn order(&self) -> u64 {
        (self.file.number << OFFSET_BITS) | self.offset
    }

    pub(crate) fn position(&self) -> Position {
        Position { order: self.order(), text: self.to_string() }
    }

    /// Goes to the end of an event that lies in the file.
    ///
    /// `log_pos` is where the event ends modulo 2^32. Between it and the event before there may be one that the server
    /// does not send: MariaDB leaves out ANNOTATE_ROWS for those that did not ask for it. From 11.4 on only the first and the
    /// last event of a transaction say where they end, the others 0 (`binlog_legacy_event_pos`).
    pub(crate) fn advance(&mut self, size: u32, log_pos: u32) -> Result<(), BadPosition> {
        let least = self.offset + u64::from(size);
        if log_pos == 0 && least & u64::from(u32::MAX) != 0 {
            self.offset = within(least)?;
            return Ok(());
        }
        let gap = u64::from(log_pos).wrapping_sub(least) & u64::from(u32::MAX);
        if gap > GAP_MAX {
            return Err(BadPosition::Gap { offset: self.offset, log_pos });
        }
        self.offset = within(least + gap)?;
        Ok(())
    }

    /// Goes on in another file.
    pub(crate) fn rotate(&mut self, file: &str, offset: u64) -> Result<(), BadPosition> {
        let file = File::parse(file)?;
        if file != self.file {
            self.begun = None;
        }
        self.file = file;
        self.offset = within(offset)?;
        Ok(())
    }
}

fn within(offset: u64) -> Result<u64, BadPosition> {
    if offset > OFFSET_MAX { Err(BadPosition::Offset(offset)) } else { Ok(offset) }
}

/// Decimal digits and nothing else; `str::parse` would take a sign.
fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)?;
        if !self.gtids.0.is_empty() {
            write!(f, " {}", self.gtids)?;
        }
        self.begun.map_or(Ok(()), |begun| write!(f, " @{begun}"))
    }
}

impl File {
    fn parse(name: &str) -> Result<File, BadPosition> {
        let bad = || BadPosition::FileName(name.to_owned());
        let (base, digits) = name.rsplit_once('.').ok_or_else(bad)?;
        // A space would end the name in a position's text.
        if base.is_empty() || base.contains(char::is_whitespace) || digits.len() < FILE_DIGITS {
            return Err(bad());
        }
        let number: u64 = number(digits).ok_or_else(bad)?;
        if number > FILE_NUMBER_MAX {
            return Err(BadPosition::FileNumber(number));
        }
        let file = File { base: base.to_owned(), number };
        // Another number of zeros in front would be the name of another file.
        if file.to_string() == name { Ok(file) } else { Err(bad()) }
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:0FILE_DIGITS$}", self.base, self.number)
    }
}

impl GtidPosition {
    /// `0-1-5567,1-2-33`, in any order of the domains; empty is before all transactions.
    pub(crate) fn parse(text: &str) -> Result<GtidPosition, BadPosition> {
        let mut position = GtidPosition::default();
        if text.is_empty() {
            return Ok(position);
        }
        for part in text.split(',') {
            let gtid = Gtid::parse(part).ok_or_else(|| BadPosition::Gtids(text.to_owned()))?;
            if position.0.insert(gtid.domain, gtid).is_some() {
                return Err(BadPosition::Gtids(text.to_owned()));
            }
        }
        Ok(position)
    }

    /// This transaction now is the last one of its domain.
    pub(crate) fn advance(&mut self, gtid: Gtid) {
        self.0.insert(gtid.domain, gtid);
    }
}

impl fmt::Display for GtidPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, gtid) in self.0.values().enumerate() {
            write!(f, "{}{gtid}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Gtid {
    fn parse(text: &str) -> Option<Gtid> {
        let mut parts = text.splitn(3, '-');
        let domain = number(parts.next()?)?;
        let server = number(parts.next()?)?;
        let sequence = number(parts.next()?)?;
        Some(Gtid { domain, server, sequence })
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Coordinates {
        Coordinates::parse(text).unwrap()
    }

    #[test]
    fn both_forms_agree() {
        for (text, order) in [
            ("binlog.000007:48213 0-1-5567", (7 << 36) + 48213),
            ("binlog.000001:4", (1 << 36) + 4),
            ("mysql-bin.log.1000000:4 0-1-2,7-4294967295-18446744073709551615", (1_000_000 << 36) + 4),
            ("a:b.16777215:68719476734", (1 << 60) - 2),
            ("binlog.000007:48213 0-1-5567 @1763760000", (7 << 36) + 48213),
            ("binlog.000007:4 @0", (7 << 36) + 4),
        ] {
            let coordinates = at(text);
            assert_eq!(coordinates.position().text, text);
            assert_eq!(coordinates.position().order, order, "{text}");
        }
        assert_eq!(at("binlog.000007:48213 0-1-5567").file(), "binlog.000007");
        assert_eq!(at("binlog.000007:48213 0-1-5567").offset(), 48213);
    }

    #[test]
    fn files_and_offsets_compare_as_numbers() {
        let ascending =
            ["b.000001:4", "b.000001:5000000000", "b.000002:4", "b.999999:68719476734", "b.1000000:4"];
        for pair in ascending.windows(2) {
            assert!(at(pair[0]).order() < at(pair[1]).order(), "{pair:?}");
        }
    }

    #[test]
    fn what_is_not_a_position() {
        use BadPosition as B;
        let text = |text: &str| B::Text(text.to_owned());
        let file = |name: &str| B::FileName(name.to_owned());
        let gtids = |text: &str| B::Gtids(text.to_owned());
        for (bad, expected) in [
            ("", text("")),
            ("binlog.000007", text("binlog.000007")),
            ("binlog.000007:", text("binlog.000007:")),
            ("binlog.000007:+4", text("binlog.000007:+4")),
            ("binlog.000007:4x", text("binlog.000007:4x")),
            ("binlog.7:4", file("binlog.7")),
            ("binlog:4", file("binlog")),
            (".000007:4", file(".000007")),
            ("binlog.0000007:4", file("binlog.0000007")),
            ("binlog.00000x:4", file("binlog.00000x")),
            ("binlog.16777216:4", B::FileNumber(16_777_216)),
            ("binlog.000007:68719476735", B::Offset((1 << 36) - 1)),
            ("binlog.000007:4 0-1", gtids("0-1")),
            ("binlog.000007:4 0-1-2-3", gtids("0-1-2-3")),
            ("binlog.000007:4 0-1-2,", gtids("0-1-2,")),
            ("binlog.000007:4 0-1-2,0-1-3", gtids("0-1-2,0-1-3")),
            ("binlog.000007:4 4294967296-1-2", gtids("4294967296-1-2")),
        ] {
            assert_eq!(Coordinates::parse(bad), Err(expected), "{bad}");
        }
        assert_eq!(B::FileNumber(1 << 24).during("follow").kind, ErrorKind::Setup);
        assert_eq!(text("x").during("follow").kind, ErrorKind::Corrupt);
    }

    #[test]
    fn an_offset_goes_beyond_the_32_bits_of_a_header() {
        let after = |from: &str, size, log_pos| {
            let mut coordinates = at(from);
            coordinates.advance(size, log_pos).map(|()| coordinates.offset())
        };
        assert_eq!(after("b.000001:4", 100, 104), Ok(104));
        // Something of 50 bytes was not sent.
        assert_eq!(after("b.000001:4", 100, 154), Ok(154));
        assert_eq!(after("b.000001:4294967200", 96, 0), Ok(1 << 32));
        assert_eq!(after("b.000001:4294967200", 100, 4), Ok((1 << 32) + 4));
        assert_eq!(after("b.000001:4294967200", 96, 10), Ok((1 << 32) + 10));
        assert_eq!(after("b.000001:8589934592", 30, 30), Ok((1 << 33) + 30));
        assert_eq!(after("b.000001:400", 100, 0), Ok(500));
        assert_eq!(after("b.000001:4", 100, 103), Err(BadPosition::Gap { offset: 4, log_pos: 103 }));
        assert_eq!(after("b.000001:68719476700", 50, 14), Err(BadPosition::Offset(68_719_476_750)));
    }

    #[test]
    fn a_rotation_keeps_the_transactions() {
        let mut coordinates = at("b.000001:500 0-1-2");
        coordinates.gtids.advance(Gtid { domain: 3, server: 1, sequence: 1 });
        coordinates.gtids.advance(Gtid { domain: 0, server: 2, sequence: 3 });
        coordinates.rotate("b.000002", 4).unwrap();
        assert_eq!(coordinates, at("b.000002:4 3-1-1,0-2-3"));
        assert_eq!(coordinates.to_string(), "b.000002:4 0-2-3,3-1-1");
        assert!(coordinates.rotate("b", 4).is_err());
        let mut dated = at("b.000001:500 @7");
        dated.rotate("b.000001", 600).unwrap();
        assert_eq!(dated, at("b.000001:600 @7"));
        dated.rotate("b.000002", 4).unwrap();
        assert_eq!(dated, at("b.000002:4"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            file in 0..=FILE_NUMBER_MAX, offset in 0..=OFFSET_MAX, gtids in vec(any::<(u32, u32, u64)>(), 0..4),
        ) {
            let mut position = GtidPosition::default();
            for (domain, server, sequence) in gtids {
                position.advance(Gtid { domain, server, sequence });
            }
            let coordinates = Coordinates::new(&format!("log-bin.{file:06}"), offset, position).unwrap();
            prop_assert_eq!(Coordinates::parse(&coordinates.to_string()), Ok(coordinates));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a.:, 0-9-]{0,40}|.{0,40}") {
            if let Ok(coordinates) = Coordinates::parse(&text) {
                prop_assert_eq!(Coordinates::parse(&coordinates.to_string()), Ok(coordinates));
            }
        }
    }
}
