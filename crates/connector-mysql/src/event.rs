//! The events of the binary log, format version 4, as a dump sends them: pure, one event at a time.
//!
//! Promises: no bytes make it panic or reserve memory that they do not fill; an event that could change rows and is not
//! understood is an error, never passed over. What is passed over changes no rows (comments, checkpoints, lists of GTIDs)
//! or is flagged by the server as ignorable. Rows stay slices of the event: nothing is copied.
//! Deliberately absent: where an event lies (`position.rs`), what a statement means (`ddl.rs`), the cells (`rows.rs`), and
//! what is inside compressed events.
//!
//! The layouts are those of MySQL's `libs/mysql/binlog/event/*.h` and of MariaDB's "Replication Protocol" pages.

use bytes::Bytes;
use connector::{Error, ErrorKind};

use crate::crc::crc32;
use crate::input::{Input, Malformed, at_most, expect, text};
use crate::position::Gtid;
use crate::table_map::TableMap;

/// Every event begins with so many bytes, those of the kind not counted.
const HEADER_BYTES: usize = 19;
const CHECKSUM_BYTES: usize = 4;

/// Header flags.
const BINLOG_IN_USE: u16 = 0x01;
const ARTIFICIAL: u16 = 0x20;
const IGNORABLE: u16 = 0x80;

const QUERY: u8 = 2;
const STOP: u8 = 3;
const ROTATE: u8 = 4;
const INTVAR: u8 = 5;
const LOAD: u8 = 6;
const CREATE_FILE: u8 = 8;
const APPEND_BLOCK: u8 = 9;
const EXEC_LOAD: u8 = 10;
const DELETE_FILE: u8 = 11;
const NEW_LOAD: u8 = 12;
const RAND: u8 = 13;
const USER_VAR: u8 = 14;
const FORMAT_DESCRIPTION: u8 = 15;
const XID: u8 = 16;
const BEGIN_LOAD_QUERY: u8 = 17;
const EXECUTE_LOAD_QUERY: u8 = 18;
const TABLE_MAP: u8 = 19;
const WRITE_ROWS_V1: u8 = 23;
const UPDATE_ROWS_V1: u8 = 24;
const DELETE_ROWS_V1: u8 = 25;
const INCIDENT: u8 = 26;
const HEARTBEAT: u8 = 27;
const IGNORABLE_EVENT: u8 = 28;
const ROWS_QUERY: u8 = 29;
const WRITE_ROWS: u8 = 30;
const UPDATE_ROWS: u8 = 31;
const DELETE_ROWS: u8 = 32;
const GTID: u8 = 33;
const ANONYMOUS_GTID: u8 = 34;
const PREVIOUS_GTIDS: u8 = 35;
const TRANSACTION_CONTEXT: u8 = 36;
const VIEW_CHANGE: u8 = 37;
const XA_PREPARE: u8 = 38;
const PARTIAL_UPDATE_ROWS: u8 = 39;
const TRANSACTION_PAYLOAD: u8 = 40;
const HEARTBEAT_V2: u8 = 41;
const GTID_TAGGED: u8 = 42;
/// From here on MariaDB's own.
const ANNOTATE_ROWS: u8 = 160;
const BINLOG_CHECKPOINT: u8 = 161;
const MARIADB_GTID: u8 = 162;
const GTID_LIST: u8 = 163;
const START_ENCRYPTION: u8 = 164;
const QUERY_COMPRESSED: u8 = 165;
const DELETE_ROWS_COMPRESSED: u8 = 171;

/// How long the fixed part in front of a kind's own content is. Servers that never write a kind say 0.
const POST_HEADERS: [(u8, u8); 13] = [
    (QUERY, 13),
    (ROTATE, 8),
    (EXECUTE_LOAD_QUERY, 26),
    (TABLE_MAP, 8),
    (WRITE_ROWS_V1, 8),
    (UPDATE_ROWS_V1, 8),
    (DELETE_ROWS_V1, 8),
    (INCIDENT, 2),
    (WRITE_ROWS, 10),
    (UPDATE_ROWS, 10),
    (DELETE_ROWS, 10),
    (MARIADB_GTID, 19),
    (GTID_LIST, 4),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// When the statement began, in seconds since 1970-01-01 UTC.
    pub(crate) seconds: u32,
    pub(crate) kind: u8,
    /// Of the server where the event was born.
    pub(crate) server_id: u32,
    /// With header and checksum.
    pub(crate) size: u32,
    /// Where the event ends in its file, modulo 2^32.
    pub(crate) log_pos: u32,
    flags: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The first one of each file, and of each dump.
    FormatDescription {
        /// When the server started, in the first file since then, and only when it is read from its beginning; else 0.
        created: u32,
    },
    /// What follows is in this file, from this offset on.
    Rotate {
        file: String,
        offset: u64,
    },
    /// Nothing happened for a while; the server has sent all up to here. MySQL cuts the offset of a heartbeat of version 1 to
    /// 32 bits.
    Heartbeat {
        file: String,
        offset: u64,
    },
    /// Begins a transaction of MariaDB.
    MariadbGtid(MariadbGtid),
    /// Begins a transaction of MySQL: the server where it was born and its number there. Without `gtid_mode` they are `None`.
    MysqlGtid(Option<([u8; 16], u64)>),
    /// Of each domain of MariaDB the last transaction before this file.
    GtidList(Vec<Gtid>),
    Query(Query),
    /// The end of a transaction that is committed.
    Xid,
    /// The end of a transaction that is prepared; `one_phase` says that it is committed as well.
    XaPrepare {
        one_phase: bool,
        xid: Xid,
    },
    TableMap(TableMap),
    Rows(Rows),
    /// Changes no rows, or is only the companion of a statement that comes as a [`Query`].
    Ignored,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MariadbGtid {
    pub(crate) gtid: Gtid,
    /// One statement that commits by itself follows, instead of a transaction that ends with a commit.
    pub(crate) standalone: bool,
    pub(crate) xa: Option<XaPhase>,
}

/// What a transaction of MariaDB does for a distributed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum XaPhase {
    Prepares(Xid),
    /// Commits or rolls back what was prepared before: the statement that follows says which.
    Completes(Xid),
}

/// The name of a distributed transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Xid {
    pub(crate) format: u32,
    pub(crate) global: Bytes,
    pub(crate) branch: Bytes,
}

/// A statement that is logged as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    /// The default database of the session; may be empty.
    pub(crate) schema: String,
    /// The bits of `sql_mode`, 0 where the log does not tell.
    pub(crate) sql_mode: u64,
    /// The number of `character_set_client`'s collation, where the log tells it.
    pub(crate) client_collation: Option<u16>,
    /// Other than 0: the statement failed halfway with this error, and what it had done by then stays.
    pub(crate) error_code: u16,
    pub(crate) sql: Bytes,
}

/// Rows of one table, undecoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) kind: RowsKind,
    pub(crate) table_id: u64,
    /// The table maps so far are not used by what follows.
    pub(crate) ends_statement: bool,
    pub(crate) columns: u64,
    /// A bit for each column that the first image has, the lowest bit of a byte first.
    pub(crate) present: Bytes,
    /// The same for the second image of an update; empty otherwise.
    pub(crate) present_after: Bytes,
    /// Empty only in an event that merely ends a statement, whose table id means nothing.
    pub(crate) images: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowsKind {
    Write,
    /// Two images each: before and after.
    Update,
    Delete,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EventError {
    #[error("an event of the binary log cannot be read")]
    Header(#[source] Malformed),
    #[error("an event of type {kind} that ends at {log_pos} of the binary log cannot be read")]
    Content {
        kind: u8,
        log_pos: u32,
        #[source]
        malformed: Malformed,
    },
    #[error("the binary log has an event of the unknown type {0}")]
    Unknown(u8),
    #[error("the binary log has {what}, which cannot be read yet")]
    Unsupported { what: &'static str, remedy: &'static str },
    #[error("the server reports a hole in its binary log: {0}")]
    Incident(String),
}

impl EventError {
    pub(crate) fn during(self, operation: &'static str) -> Error {
        let (kind, hint) = match &self {
            EventError::Header(_) | EventError::Content { .. } => (ErrorKind::Corrupt, None),
            EventError::Unknown(_) => (ErrorKind::Setup, None),
            EventError::Unsupported { remedy, .. } => (ErrorKind::Setup, Some(*remedy)),
            EventError::Incident(_) => {
                (ErrorKind::LogLost, Some("Changes are missing in the log: begin the migration anew."))
            }
        };
        let error = Error::new(kind, operation).source(self);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// Why one event is no [`Event`]; the header is added where it is known.
enum Fault {
    Malformed(Malformed),
    Event(EventError),
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Fault {
        Fault::Malformed(malformed)
    }
}

fn unsupported(what: &'static str, remedy: &'static str) -> Fault {
    Fault::Event(EventError::Unsupported { what, remedy })
}

impl Header {
    fn read(event: &Bytes) -> Result<Header, Malformed> {
        let mut input = Input(event.clone());
        let header = Header {
            seconds: input.u32()?,
            kind: input.u8()?,
            server_id: input.u32()?,
            size: input.u32()?,
            log_pos: input.u32()?,
            flags: input.u16()?,
        };
        expect("the size of the event", event.len() as u64, u64::from(header.size))?;
        Ok(header)
    }

    /// Whether the event has a place in the file: not what the server makes up for this dump alone. A dump that begins in the
    /// middle of a file is sent the description at its beginning without a place.
    pub(crate) fn is_in_file(&self) -> bool {
        let made_up = match self.kind {
            HEARTBEAT | HEARTBEAT_V2 => true,
            FORMAT_DESCRIPTION | START_ENCRYPTION => self.log_pos == 0,
            _ => false,
        };
        !made_up && self.flags & ARTIFICIAL == 0
    }
}

/// Knows whether events end with a checksum.
#[derive(Debug)]
pub(crate) struct Decoder {
    checksums: bool,
}

impl Decoder {
    /// `checksums`: whether the session asked for them, which holds for what is sent before the first description of a file.
    pub(crate) fn new(checksums: bool) -> Decoder {
        Decoder { checksums }
    }

    /// Reads one event: a packet of the dump without the byte in front that says that it is one.
    pub(crate) fn decode(&mut self, event: Bytes) -> Result<(Header, Event), EventError> {
        let header = Header::read(&event).map_err(EventError::Header)?;
        let decoded = self.content(&header, event).and_then(|content| read(&header, Input(content)));
        match decoded {
            Ok(event) => Ok((header, event)),
            Err(Fault::Event(error)) => Err(error),
            Err(Fault::Malformed(malformed)) => {
                Err(EventError::Content { kind: header.kind, log_pos: header.log_pos, malformed })
            }
        }
    }

    /// What is between the header and the checksum, once the checksum is right.
    fn content(&mut self, header: &Header, event: Bytes) -> Result<Bytes, Fault> {
        let mut content = if header.kind == FORMAT_DESCRIPTION {
            self.described(header, &event)?
        } else if self.checksums {
            let (content, checksum) = split_checksum(&event)?;
            verify(checksum, crc32(&content))?;
            content
        } else {
            event
        };
        if content.len() < HEADER_BYTES {
            let wanted = (HEADER_BYTES - content.len()) as u64;
            return Err(Malformed::Short { wanted, left: 0 }.into());
        }
        Ok(content.split_off(HEADER_BYTES))
    }

    /// A description says at its end how the others end. It has room for a checksum itself in any case, which is right only
    /// if the others have one, and was computed before the server marked the file as open.
    fn described(&mut self, header: &Header, event: &Bytes) -> Result<Bytes, Malformed> {
        let (mut content, checksum) = split_checksum(event)?;
        let Some((&algorithm, _)) = content.split_last() else {
            return Err(Malformed::Short { wanted: 1, left: 0 });
        };
        at_most("the checksum algorithm", 1, u64::from(algorithm))?;
        self.checksums = algorithm == 1;
        if self.checksums {
            let mut closed = content.to_vec();
            let flags = (header.flags & !BINLOG_IN_USE).to_le_bytes();
            if let Some(place) = closed.get_mut(HEADER_BYTES - 2..HEADER_BYTES) {
                place.copy_from_slice(&flags);
            }
            verify(checksum, crc32(&closed))?;
        }
        content.truncate(content.len() - 1);
        Ok(content)
    }
}

fn split_checksum(event: &Bytes) -> Result<(Bytes, u32), Malformed> {
    match event.split_last_chunk::<CHECKSUM_BYTES>() {
        Some((content, checksum)) => Ok((event.slice(..content.len()), u32::from_le_bytes(*checksum))),
        None => Err(Malformed::Short { wanted: CHECKSUM_BYTES as u64, left: event.len() }),
    }
}

fn verify(stated: u32, computed: u32) -> Result<(), Malformed> {
    expect("the checksum", u64::from(computed), u64::from(stated))
}

/// Reads what is between header and checksum.
fn read(header: &Header, mut input: Input) -> Result<Event, Fault> {
    let input = &mut input;
    Ok(match header.kind {
        FORMAT_DESCRIPTION => format_description(input)?,
        ROTATE => Event::Rotate { offset: input.u64()?, file: text(&input.rest())? },
        HEARTBEAT => heartbeat(header, input)?,
        HEARTBEAT_V2 => heartbeat_v2(input)?,
        MARIADB_GTID => Event::MariadbGtid(mariadb_gtid(header, input)?),
        GTID_LIST => gtid_list(input)?,
        GTID => {
            let _flags = input.u8()?;
            Event::MysqlGtid(Some((input.array()?, input.u64()?)))
        }
        ANONYMOUS_GTID => Event::MysqlGtid(None),
        QUERY => Event::Query(query(input, 0)?),
        // The number of the file that came before, where its name is in the text, and what to do with duplicates.
        EXECUTE_LOAD_QUERY => Event::Query(query(input, 4 + 4 + 4 + 1)?),
        XID => Event::Xid,
        XA_PREPARE => xa_prepare(input)?,
        TABLE_MAP => Event::TableMap(TableMap::read(input)?),
        WRITE_ROWS_V1 | WRITE_ROWS => rows(header, RowsKind::Write, input)?,
        UPDATE_ROWS_V1 | UPDATE_ROWS => rows(header, RowsKind::Update, input)?,
        DELETE_ROWS_V1 | DELETE_ROWS => rows(header, RowsKind::Delete, input)?,
        INCIDENT => return Err(Fault::Event(incident(input)?)),
        // What a statement needs beside its text.
        INTVAR | RAND | USER_VAR | BEGIN_LOAD_QUERY | APPEND_BLOCK | DELETE_FILE => Event::Ignored,
        ROWS_QUERY | ANNOTATE_ROWS | PREVIOUS_GTIDS | TRANSACTION_CONTEXT | VIEW_CHANGE | IGNORABLE_EVENT => {
            Event::Ignored
        }
        // A dump is sent in the clear, whatever the file is.
        STOP | BINLOG_CHECKPOINT | START_ENCRYPTION => Event::Ignored,
        QUERY_COMPRESSED..=DELETE_ROWS_COMPRESSED => {
            return Err(unsupported(
                "compressed events",
                "SET GLOBAL log_bin_compress = OFF on the source, and begin the migration anew behind what is compressed.",
            ));
        }
        TRANSACTION_PAYLOAD => {
            return Err(unsupported(
                "compressed transactions",
                "SET GLOBAL binlog_transaction_compression = OFF on the source, and begin the migration anew behind what \
                 is compressed.",
            ));
        }
        PARTIAL_UPDATE_ROWS => {
            return Err(unsupported(
                "updates of parts of JSON documents",
                "SET GLOBAL binlog_row_value_options = '' on the source, and begin the migration anew.",
            ));
        }
        GTID_TAGGED => {
            return Err(unsupported("a GTID with a tag", "Let sessions set gtid_next without a tag."));
        }
        LOAD | CREATE_FILE | EXEC_LOAD | NEW_LOAD => {
            return Err(unsupported(
                "LOAD DATA as servers before 5.0.3 log it",
                "Begin the migration anew behind it.",
            ));
        }
        _ if header.flags & IGNORABLE != 0 => Event::Ignored,
        other => return Err(Fault::Event(EventError::Unknown(other))),
    })
}

fn format_description(input: &mut Input) -> Result<Event, Malformed> {
    expect("the version of the log's format", 4, u64::from(input.u16()?))?;
    let _server_version = input.take(50)?;
    let created = input.u32()?;
    expect("the length of a header", HEADER_BYTES as u64, u64::from(input.u8()?))?;
    let lengths = input.rest();
    for (kind, expected) in POST_HEADERS {
        // The list begins with type 1, and ends with the last type that the server knows.
        match lengths.get(usize::from(kind) - 1) {
            None | Some(0) => {}
            Some(&length) => expect("the length of a post-header", u64::from(expected), u64::from(length))?,
        }
    }
    Ok(Event::FormatDescription { created })
}

/// MariaDB puts an offset that needs more than 32 bits in front of the file's name (`HB_SUB_HEADER_LEN`).
fn heartbeat(header: &Header, input: &mut Input) -> Result<Event, Malformed> {
    let offset = match header.log_pos {
        0 => input.u64()?,
        log_pos => u64::from(log_pos),
    };
    Ok(Event::Heartbeat { file: text(&input.rest())?, offset })
}

/// Fields in any order: a number, a length, the content.
fn heartbeat_v2(input: &mut Input) -> Result<Event, Malformed> {
    let mut file = String::new();
    let mut offset = 0;
    loop {
        let field = input.lenenc()?;
        if field == 0 {
            return Ok(Event::Heartbeat { file, offset });
        }
        let mut content = Input(input.lenenc_bytes()?);
        match field {
            1 => file = text(&content.rest())?,
            2 => offset = content.lenenc()?,
            _ => {}
        }
    }
}

fn mariadb_gtid(header: &Header, input: &mut Input) -> Result<MariadbGtid, Malformed> {
    const STANDALONE: u8 = 1;
    const GROUP_COMMIT_ID: u8 = 2;
    const PREPARED_XA: u8 = 64;
    const COMPLETED_XA: u8 = 128;
    let sequence = input.u64()?;
    let domain = input.u32()?;
    let flags = input.u8()?;
    if flags & GROUP_COMMIT_ID != 0 {
        let _commit_id = input.u64()?;
    }
    // What follows is padding, or flags of no meaning for rows.
    let xa = if flags & (PREPARED_XA | COMPLETED_XA) == 0 {
        None
    } else {
        let format = input.u32()?;
        let [global, branch] = input.array()?;
        let xid = xid(input, format, u32::from(global), u32::from(branch))?;
        Some(if flags & PREPARED_XA != 0 { XaPhase::Prepares(xid) } else { XaPhase::Completes(xid) })
    };
    let gtid = Gtid { domain, server: header.server_id, sequence };
    Ok(MariadbGtid { gtid, standalone: flags & STANDALONE != 0, xa })
}

fn xid(input: &mut Input, format: u32, global: u32, branch: u32) -> Result<Xid, Malformed> {
    /// Of either part, by the X/Open standard.
    const PART_MAX: u64 = 64;
    at_most("the length of a global transaction id", PART_MAX, u64::from(global))?;
    at_most("the length of a branch qualifier", PART_MAX, u64::from(branch))?;
    Ok(Xid { format, global: input.take(u64::from(global))?, branch: input.take(u64::from(branch))? })
}

fn gtid_list(input: &mut Input) -> Result<Event, Malformed> {
    // The upper four bits are flags.
    let count = input.u32()? & 0x0fff_ffff;
    // One at a time: a count that the event cannot hold must not reserve memory.
    let mut gtids = Vec::new();
    for _ in 0..count {
        gtids.push(Gtid { domain: input.u32()?, server: input.u32()?, sequence: input.u64()? });
    }
    Ok(Event::GtidList(gtids))
}

fn xa_prepare(input: &mut Input) -> Result<Event, Malformed> {
    let one_phase = input.u8()? != 0;
    let format = input.u32()?;
    let (global, branch) = (input.u32()?, input.u32()?);
    Ok(Event::XaPrepare { one_phase, xid: xid(input, format, global, branch)? })
}

/// `more`: bytes of the post-header that only derived kinds have.
fn query(input: &mut Input, more: u64) -> Result<Query, Malformed> {
    let _thread = input.u32()?;
    let _seconds = input.u32()?;
    let schema_bytes = input.u8()?;
    let error_code = input.u16()?;
    let status_bytes = input.u16()?;
    input.take(more)?;
    let status = status(Input(input.take(u64::from(status_bytes))?))?;
    let schema = input.name(u64::from(schema_bytes))?;
    expect("the byte behind a name", 0, u64::from(input.u8()?))?;
    let sql = input.rest();
    Ok(Query {
        schema,
        sql_mode: status.sql_mode,
        client_collation: status.client_collation,
        error_code,
        sql,
    })
}

#[derive(Default)]
struct Status {
    sql_mode: u64,
    client_collation: Option<u16>,
}

/// Reads the status variables up to the character set: what comes later, and what a newer server may add behind it, says
/// nothing about the text. The codes are those of `Query_event::Query_event_status_vars`.
fn status(mut input: Input) -> Result<Status, Malformed> {
    const FLAGS2: u8 = 0;
    const SQL_MODE: u8 = 1;
    const CATALOG: u8 = 2;
    const AUTO_INCREMENT: u8 = 3;
    const CHARSET: u8 = 4;
    const CATALOG_NZ: u8 = 6;
    /// Newer MariaDB, in front of the character set: pairs of numbers.
    const CHARACTER_SET_COLLATIONS: u8 = 131;
    let mut status = Status::default();
    while !input.is_empty() {
        let skipped = match input.u8()? {
            SQL_MODE => {
                status.sql_mode = input.u64()?;
                0
            }
            CHARSET => {
                status.client_collation = Some(input.u16()?);
                break;
            }
            FLAGS2 | AUTO_INCREMENT => 4,
            CATALOG => u64::from(input.u8()?) + 1,
            CATALOG_NZ => u64::from(input.u8()?),
            CHARACTER_SET_COLLATIONS => u64::from(input.u8()?) * 4,
            _ => break,
        };
        input.take(skipped)?;
    }
    Ok(status)
}

fn rows(header: &Header, kind: RowsKind, input: &mut Input) -> Result<Event, Malformed> {
    const STATEMENT_END: u16 = 1;
    let table_id = input.u48()?;
    let flags = input.u16()?;
    if matches!(header.kind, WRITE_ROWS | UPDATE_ROWS | DELETE_ROWS) {
        // Of version 2 alone: data for other engines and for partitions, whose length counts itself.
        let length = u64::from(input.u16()?);
        input.take(length.checked_sub(2).ok_or(Malformed::Short { wanted: 2, left: 0 })?)?;
    }
    let columns = input.lenenc()?;
    let present = input.take(columns.div_ceil(8))?;
    let present_after = match kind {
        RowsKind::Update => input.take(columns.div_ceil(8))?,
        RowsKind::Write | RowsKind::Delete => Bytes::new(),
    };
    let ends_statement = flags & STATEMENT_END != 0;
    Ok(Event::Rows(Rows {
        kind,
        table_id,
        ends_statement,
        columns,
        present,
        present_after,
        images: input.rest(),
    }))
}

fn incident(input: &mut Input) -> Result<EventError, Malformed> {
    let number = input.u16()?;
    let length = input.u8()?;
    let message = input.take(u64::from(length))?;
    Ok(EventError::Incident(format!("incident {number} {}", String::from_utf8_lossy(&message))))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::table_map;

    fn header(kind: u8, flags: u16, log_pos: u32, size: usize) -> Vec<u8> {
        let mut header = 1_700_000_000_u32.to_le_bytes().to_vec();
        header.push(kind);
        header.extend(9_u32.to_le_bytes());
        header.extend((size as u32).to_le_bytes());
        header.extend(log_pos.to_le_bytes());
        header.extend(flags.to_le_bytes());
        header
    }

    /// An event without a checksum, of server 9, that ends at 500.
    fn event(kind: u8, content: &[u8]) -> Vec<u8> {
        flagged(kind, 0, content)
    }

    fn flagged(kind: u8, flags: u16, content: &[u8]) -> Vec<u8> {
        [header(kind, flags, 500, HEADER_BYTES + content.len()), content.to_vec()].concat()
    }

    fn decode(event: Vec<u8>) -> Result<Event, EventError> {
        Decoder::new(false).decode(event.into()).map(|(_, event)| event)
    }

    /// What a kind's content is read as.
    fn content(kind: u8, content: &[u8]) -> Result<Event, EventError> {
        decode(event(kind, content))
    }

    fn malformed(kind: u8, malformed: Malformed) -> EventError {
        EventError::Content { kind, log_pos: 500, malformed }
    }

    fn description(version: &str, lengths: &[u8], algorithm: u8) -> Vec<u8> {
        let mut content = vec![4, 0];
        content.extend(version.bytes());
        content.resize(52, 0);
        content.extend([0; 4]);
        content.push(19);
        content.extend(lengths);
        content.push(algorithm);
        content.extend([0; 4]);
        event(FORMAT_DESCRIPTION, &content)
    }

    fn sealed(mut event: Vec<u8>) -> Vec<u8> {
        let end = event.len() - CHECKSUM_BYTES;
        let checksum = crc32(&event[..end]);
        event[end..].copy_from_slice(&checksum.to_le_bytes());
        event
    }

    /// An event with room for a checksum, and the checksum in it.
    fn checked(kind: u8, content: &[u8]) -> Vec<u8> {
        sealed(event(kind, &[content, &[0; 4]].concat()))
    }

    /// Lengths up to type 171 as MariaDB has them.
    fn lengths() -> Vec<u8> {
        let mut lengths = vec![0; 171];
        for (kind, length) in POST_HEADERS {
            lengths[usize::from(kind) - 1] = length;
        }
        lengths
    }

    pub(crate) fn rows_content(present: &[&[u8]], columns: u8, images: &[u8]) -> Vec<u8> {
        let mut content = vec![7, 0, 0, 0, 0, 0, 1, 0, columns];
        present.iter().for_each(|bits| content.extend(*bits));
        content.extend(images);
        content
    }

    fn status(variables: &[u8], sql: &[u8]) -> Vec<u8> {
        let mut content = vec![5, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0];
        content.extend((variables.len() as u16).to_le_bytes());
        content.extend(variables);
        content.extend(b"shop\0");
        content.extend(sql);
        content
    }

    fn a_query(sql_mode: u64, client_collation: Option<u16>) -> Event {
        let sql = Bytes::from_static(b"BEGIN");
        Event::Query(Query { schema: "shop".to_owned(), sql_mode, client_collation, error_code: 0, sql })
    }

    fn an_xid() -> Xid {
        Xid { format: 1, global: Bytes::from_static(b"gt"), branch: Bytes::from_static(b"b") }
    }

    /// The examples of MariaDB's pages on START_ENCRYPTION_EVENT and GTID_LIST_EVENT.
    #[test]
    fn events_of_a_real_server() {
        let mut decoder = Decoder::new(true);
        let start = b"\xb8\x5f\x5a\x59\xa4\x5d\0\0\0\x28\0\0\0\x21\x01\0\0\0\0\x01\x01\0\0\0\
            \x65\x57\x50\x26\x63\x59\x37\x46\x2f\x3b\x33\x23\x06\xbb\xda\x62";
        let (header, event) = decoder.decode(Bytes::from_static(start)).unwrap();
        assert_eq!(event, Event::Ignored);
        let expected = Header {
            seconds: 1_499_094_968,
            kind: START_ENCRYPTION,
            server_id: 93,
            size: 40,
            log_pos: 289,
            flags: 0,
        };
        assert_eq!(header, expected);
        let list = b"\xa4\x85\x9e\x59\xa3\x8c\x27\0\0\x2b\0\0\0\x24\x01\0\0\0\0\x01\0\0\0\0\0\0\0\
            \x8c\x27\0\0\0\x0e\0\0\0\0\0\0\xa8\xf0\xd8\xb6";
        let (_, event) = decoder.decode(Bytes::from_static(list)).unwrap();
        assert_eq!(event, Event::GtidList(vec![Gtid { domain: 0, server: 10124, sequence: 3584 }]));
    }

    #[test]
    fn what_each_kind_is_read_as() {
        let prepared = [&[1_u8; 8][..], &[2, 0, 0, 0], &[64 | 4], &[1, 0, 0, 0, 2, 1], b"gtb"].concat();
        let grouped =
            [&[1_u8; 8][..], &[2, 0, 0, 0], &[128 | 2], &[9; 8], &[1, 0, 0, 0, 2, 1], b"gtb"].concat();
        let plain = [&[1_u8; 8][..], &[2, 0, 0, 0], &[1 | 4 | 32], &[0; 6]].concat();
        let mariadb = |standalone, xa| {
            let gtid = Gtid { domain: 2, server: 9, sequence: 0x0101_0101_0101_0101 };
            Event::MariadbGtid(MariadbGtid { gtid, standalone, xa })
        };
        let heartbeat = |offset| Event::Heartbeat { file: "b.000002".to_owned(), offset };
        let rows = |kind, present: &'static [u8], after: &'static [u8]| {
            Event::Rows(Rows {
                kind,
                table_id: 7,
                ends_statement: true,
                columns: 3,
                present: Bytes::from_static(present),
                present_after: Bytes::from_static(after),
                images: Bytes::from_static(b"rows"),
            })
        };
        // Behind the flags of version 2 comes more, here three bytes.
        let one_image = rows_content(&[&[7]], 3, b"rows");
        let two_images = rows_content(&[&[7], &[5]], 3, b"rows");
        let second = [&two_images[..8], &[5, 0, 1, 2, 3], &two_images[8..]].concat();
        let uuid = *b"0123456789abcdef";
        let rotate = Event::Rotate { file: "b.000002".to_owned(), offset: 4 };
        let cases: &[(u8, &[u8], Event)] = &[
            (ROTATE, b"\x04\0\0\0\0\0\0\0b.000002", rotate),
            (HEARTBEAT, b"b.000002", heartbeat(500)),
            (HEARTBEAT_V2, b"\x02\x03\xfc\x01\x01\x09\x01x\x01\x08b.000002\0", heartbeat(257)),
            (MARIADB_GTID, &plain, mariadb(true, None)),
            (MARIADB_GTID, &prepared, mariadb(false, Some(XaPhase::Prepares(an_xid())))),
            (MARIADB_GTID, &grouped, mariadb(false, Some(XaPhase::Completes(an_xid())))),
            (GTID, b"\x010123456789abcdef\x05\0\0\0\0\0\0\0\x02more", Event::MysqlGtid(Some((uuid, 5)))),
            (ANONYMOUS_GTID, &[0; 42], Event::MysqlGtid(None)),
            (XID, &[1; 8], Event::Xid),
            (
                XA_PREPARE,
                b"\0\x01\0\0\0\x02\0\0\0\x01\0\0\0gtb",
                Event::XaPrepare { one_phase: false, xid: an_xid() },
            ),
            (WRITE_ROWS_V1, &one_image, rows(RowsKind::Write, &[7], &[])),
            (DELETE_ROWS_V1, &one_image, rows(RowsKind::Delete, &[7], &[])),
            (UPDATE_ROWS_V1, &two_images, rows(RowsKind::Update, &[7], &[5])),
            (UPDATE_ROWS, &second, rows(RowsKind::Update, &[7], &[5])),
            (STOP, b"", Event::Ignored),
            (ANNOTATE_ROWS, b"INSERT", Event::Ignored),
        ];
        for (kind, bytes, expected) in cases {
            assert_eq!(content(*kind, bytes).as_ref(), Ok(expected), "type {kind}");
        }
        let map = table_map::tests::bytes(&[(3, &[])], &[]);
        let expected = table_map::tests::read(map.clone()).unwrap();
        assert_eq!(content(TABLE_MAP, &map), Ok(Event::TableMap(expected)));
    }

    #[test]
    fn a_heartbeat_beyond_32_bits() {
        let content = b"\x05\0\0\0\x01\0\0\0b.000002";
        let event = [header(HEARTBEAT, 0, 0, HEADER_BYTES + content.len()), content.to_vec()].concat();
        assert_eq!(
            decode(event),
            Ok(Event::Heartbeat { file: "b.000002".to_owned(), offset: (1 << 32) + 5 })
        );
    }

    #[test]
    fn a_statement_and_what_it_means_depends_on() {
        // As a real server writes them: flags, mode, catalog, charset, and what follows is not read.
        let real = b"\0\0\0\0\0\x01\x04\0\0\0\0\0\0\0\x06\x03std\x04\x08\0\x2d\0\x21\0\x99anything";
        let collations = b"\x01\x04\0\0\0\0\0\0\0\x83\x01\x21\0\x2d\0\x04\x1c\0\x1c\0\x1c\0";
        let cases: &[(&[u8], Event)] = &[
            (real, a_query(4, Some(8))),
            (collations, a_query(4, Some(28))),
            (b"\x02\x03std\0\x03\x01\0\x02\0\x04\x08\0\x2d\0\x21\0", a_query(0, Some(8))),
            (b"", a_query(0, None)),
        ];
        for (variables, expected) in cases {
            assert_eq!(content(QUERY, &status(variables, b"BEGIN")).as_ref(), Ok(expected), "{variables:?}");
        }
        let short = Malformed::Short { wanted: 8, left: 2 };
        assert_eq!(content(QUERY, &status(b"\x01\x04\0", b"BEGIN")), Err(malformed(QUERY, short)));
        let plain = status(b"", b"LOAD DATA");
        let load = [&plain[..13], &[1; 13], &plain[13..]].concat();
        let Ok(Event::Query(query)) = content(EXECUTE_LOAD_QUERY, &load) else { panic!() };
        assert_eq!((query.schema.as_str(), &query.sql[..]), ("shop", &b"LOAD DATA"[..]));
    }

    #[test]
    fn a_description_says_whether_checksums_follow() {
        let mut decoder = Decoder::new(false);
        let expected = Event::FormatDescription { created: 0 };
        let with = sealed(description("10.11.19-MariaDB-log", &lengths(), 1));
        let (header, found) = decoder.decode(with.clone().into()).unwrap();
        assert_eq!((found, header.is_in_file()), (expected.clone(), true));
        assert_eq!(decoder.decode(checked(XID, &[0; 8]).into()).unwrap().1, Event::Xid);
        let wrong = decoder.decode(event(XID, &[0; 12]).into()).unwrap_err();
        assert!(matches!(
            &wrong,
            EventError::Content { malformed: Malformed::Value { what: "the checksum", .. }, .. }
        ));
        assert_eq!(wrong.during("follow").kind, ErrorKind::Corrupt);

        // The checksum is that of the file when it is closed.
        let mut open = with.clone();
        open[HEADER_BYTES - 2] = 1;
        assert_eq!(decoder.decode(open.into()).unwrap().1, expected);
        let mut damaged = with;
        damaged[60] ^= 1;
        assert!(decoder.decode(damaged.into()).is_err());

        // Without checksums in the file its own is not kept up to date.
        decoder.decode(description("9.7.4", &lengths()[..42], 0).into()).unwrap();
        assert_eq!(decoder.decode(event(XID, &[0; 8]).into()).unwrap().1, Event::Xid);
    }

    #[test]
    fn a_description_of_another_format() {
        let value =
            |what, expected, found| malformed(FORMAT_DESCRIPTION, Malformed::Value { what, expected, found });
        let mut version = description("3.23", &lengths(), 0);
        version[HEADER_BYTES] = 3;
        let mut length = description("10.11", &lengths(), 0);
        length[HEADER_BYTES + 56] = 20;
        let mut post_header = lengths();
        post_header[usize::from(TABLE_MAP) - 1] = 6;
        let algorithm = Malformed::Many { what: "the checksum algorithm", limit: 1, found: 2 };
        for (bytes, expected) in [
            (version, value("the version of the log's format", 4, 3)),
            (length, value("the length of a header", 19, 20)),
            (description("10.11", &post_header, 0), value("the length of a post-header", 8, 6)),
            (description("10.11", &lengths(), 2), malformed(FORMAT_DESCRIPTION, algorithm)),
        ] {
            assert_eq!(decode(bytes), Err(expected));
        }
    }

    #[test]
    fn what_is_in_the_file() {
        let is_in_file = |bytes: Vec<u8>| Header::read(&bytes.into()).unwrap().is_in_file();
        assert!(is_in_file(event(ROTATE, b"")));
        assert!(!is_in_file(flagged(ROTATE, ARTIFICIAL, b"")));
        assert!(!is_in_file(event(HEARTBEAT, b"b.000001")));
        assert!(!is_in_file(header(FORMAT_DESCRIPTION, 0, 0, HEADER_BYTES)));
        // An event can end exactly at a multiple of 2^32.
        assert!(is_in_file(header(XID, 0, 0, HEADER_BYTES)));
    }

    #[test]
    fn what_is_not_understood_stops_unless_it_may_be_ignored() {
        for kind in [0, 1, 20, 99, 255] {
            assert_eq!(content(kind, b""), Err(EventError::Unknown(kind)));
            assert_eq!(EventError::Unknown(kind).during("follow").kind, ErrorKind::Setup);
            assert_eq!(decode(flagged(kind, IGNORABLE, b"")), Ok(Event::Ignored));
        }
        for kind in
            [165, 166, 168, 171, TRANSACTION_PAYLOAD, PARTIAL_UPDATE_ROWS, GTID_TAGGED, LOAD, NEW_LOAD]
        {
            let error = content(kind, b"anything").unwrap_err();
            assert!(matches!(error, EventError::Unsupported { .. }), "{kind}");
            let error = error.during("follow");
            assert!(error.kind == ErrorKind::Setup && error.hint.is_some(), "{kind}");
        }
        let error = content(INCIDENT, b"\x01\0\x0eLOST something").unwrap_err();
        assert_eq!(error, EventError::Incident("incident 1 LOST something".to_owned()));
        assert_eq!(error.during("follow").kind, ErrorKind::LogLost);
    }

    #[test]
    fn lengths_are_not_believed() {
        let short = |wanted, left| Malformed::Short { wanted, left };
        let many = |what, limit, found| Malformed::Many { what, limit, found };
        let cases: &[(u8, &[u8], Malformed)] = &[
            (GTID_LIST, b"\xff\xff\xff\x0f\0\0\0\0", short(4, 0)),
            (WRITE_ROWS, b"\x07\0\0\0\0\0\0\0\x01\0", short(2, 0)),
            (WRITE_ROWS_V1, b"\x07\0\0\0\0\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff\xff", short(1 << 61, 0)),
            (
                XA_PREPARE,
                b"\0\x01\0\0\0\xff\xff\xff\xff\0\0\0\0",
                many("the length of a global transaction id", 64, u64::from(u32::MAX)),
            ),
        ];
        for (kind, bytes, expected) in cases {
            assert_eq!(content(*kind, bytes), Err(malformed(*kind, expected.clone())), "type {kind}");
        }
        let mut size = event(XID, &[0; 8]);
        size.push(0);
        let expected = Malformed::Value { what: "the size of the event", expected: 28, found: 27 };
        assert_eq!(decode(size), Err(EventError::Header(expected)));
        assert_eq!(decode(vec![0; 3]), Err(EventError::Header(short(4, 3))));
    }

    #[test]
    fn rows_are_not_copied() {
        let event = Bytes::from(event(WRITE_ROWS_V1, &rows_content(&[&[7]], 3, b"rows")));
        let range = event.as_ptr_range();
        let Ok((_, Event::Rows(rows))) = Decoder::new(false).decode(event.clone()) else { panic!() };
        assert!(range.contains(&rows.images.as_ptr()));
    }

    proptest! {
        /// Whatever it makes of it: it returns.
        #[test]
        fn no_bytes_make_it_panic(
            (kind, flags, log_pos) in any::<(u8, u16, u32)>(), bytes in vec(any::<u8>(), 0..80), checksums in any::<bool>(),
        ) {
            let size = HEADER_BYTES + bytes.len();
            let event = [header(kind, flags, log_pos, size), bytes.clone()].concat();
            drop(Decoder::new(checksums).decode(event.clone().into()));
            if event.len() >= HEADER_BYTES + CHECKSUM_BYTES {
                drop(Decoder::new(true).decode(sealed(event).into()));
            }
            drop(Decoder::new(checksums).decode(bytes.into()));
        }

        #[test]
        fn a_damaged_event_is_refused(
            content in vec(any::<u8>(), 0..40), at in any::<prop::sample::Index>(), flip in 1..=255_u8,
        ) {
            let mut event = checked(XID, &content);
            let at = at.index(event.len());
            event[at] ^= flip;
            // It may be another kind now, but then its checksum is another one too; a description says itself whether it
            // has one.
            prop_assume!(event[4] != FORMAT_DESCRIPTION);
            prop_assert!(Decoder::new(true).decode(event.into()).is_err());
        }
    }
}
