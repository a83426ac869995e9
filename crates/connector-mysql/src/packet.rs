//! The framing of the client/server protocol, and the parts that all exchanges share. Pure.
//!
//! A packet is a length of three bytes, a sequence number and the payload; a payload of 16 MB less one byte goes on
//! in the next packet. What belongs together is a message here. Values are read in place: what is handed out
//! shares the message's memory. Whatever reads a message says `None` when it is not what it should be.
//!
//! <https://mariadb.com/kb/en/clientserver-protocol/>,
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const HEADER_BYTES: usize = 4;
/// A payload of this length is continued, if need be by an empty packet.
const PAYLOAD_BYTES_MAX: usize = 0xff_ffff;
/// `max_allowed_packet` is 1 GiB at most; an event of the log may exceed that by its headers.
pub(crate) const MESSAGE_BYTES_MAX: usize = (1 << 30) + (1 << 16);

/// What the first byte of an answer says.
pub(crate) const OK: u8 = 0x00;
pub(crate) const LOCAL_INFILE: u8 = 0xfb;
pub(crate) const EOF: u8 = 0xfe;
pub(crate) const ERR: u8 = 0xff;

/// In a row of text.
const NULL: u8 = 0xfb;

/// Why packets do not make a message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    #[error("packet {expected} of the exchange was expected, and packet {found} came")]
    OutOfOrder { expected: u8, found: u8 },
    #[error("a message has at least {bytes} bytes")]
    TooLong { bytes: usize },
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Sequence numbers of the first and the last packet.
    pub(crate) first: u8,
    pub(crate) last: u8,
    pub(crate) body: Bytes,
}

/// Puts packets together.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    /// A message of which at least one packet is still to come.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    first: u8,
    last: u8,
    body: BytesMut,
}

impl Joiner {
    /// The next message, if all of it is here. Memory follows what has come, not what a header says.
    pub(crate) fn next(&mut self, incoming: &mut BytesMut) -> Result<Option<Message>, FramingError> {
        while let Some((number, payload)) = pop(incoming) {
            let is_last = payload.len() < PAYLOAD_BYTES_MAX;
            let open = match self.open.take() {
                None => Open { first: number, last: number, body: payload },
                Some(open) => open.join(number, &payload)?,
            };
            if is_last {
                return Ok(Some(Message { first: open.first, last: open.last, body: open.body.freeze() }));
            }
            self.open = Some(open);
        }
        Ok(None)
    }
}

impl Open {
    fn join(mut self, number: u8, payload: &[u8]) -> Result<Open, FramingError> {
        let expected = self.last.wrapping_add(1);
        if number != expected {
            return Err(FramingError::OutOfOrder { expected, found: number });
        }
        let bytes = self.body.len() + payload.len();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(FramingError::TooLong { bytes });
        }
        self.last = number;
        self.body.extend_from_slice(payload);
        Ok(self)
    }
}

/// The packet at the front, if all of it is here.
fn pop(incoming: &mut BytesMut) -> Option<(u8, BytesMut)> {
    let [.., number] = *incoming.first_chunk::<HEADER_BYTES>()?;
    let bytes = front(incoming).filter(|bytes| *bytes <= incoming.len())?;
    incoming.advance(HEADER_BYTES);
    Some((number, incoming.split_to(bytes - HEADER_BYTES)))
}

/// The whole length, header included, of the packet at the front, once its header is here.
pub(crate) fn front(incoming: &[u8]) -> Option<usize> {
    let [a, b, c, _] = *incoming.first_chunk::<HEADER_BYTES>()?;
    Some(u32::from_le_bytes([a, b, c, 0]) as usize + HEADER_BYTES)
}

/// Frames what `fill` appends as one message. Returns the sequence number that follows it.
pub(crate) fn put(out: &mut BytesMut, sequence: u8, fill: impl FnOnce(&mut BytesMut)) -> u8 {
    let start = out.len();
    out.put_bytes(0, HEADER_BYTES);
    fill(out);
    let bytes = out.len() - start - HEADER_BYTES;
    if bytes < PAYLOAD_BYTES_MAX {
        out[start..start + HEADER_BYTES].copy_from_slice(&header(bytes, sequence));
        return sequence.wrapping_add(1);
    }
    let payload = out.split_off(start + HEADER_BYTES);
    out.truncate(start);
    put_split(out, sequence, &payload)
}

fn put_split(out: &mut BytesMut, mut sequence: u8, mut payload: &[u8]) -> u8 {
    loop {
        let (packet, rest) = payload.split_at(payload.len().min(PAYLOAD_BYTES_MAX));
        out.put_slice(&header(packet.len(), sequence));
        out.put_slice(packet);
        sequence = sequence.wrapping_add(1);
        if packet.len() < PAYLOAD_BYTES_MAX {
            return sequence;
        }
        payload = rest;
    }
}

/// In front of a payload of at most `PAYLOAD_BYTES_MAX`.
pub(crate) fn header(bytes: usize, sequence: u8) -> [u8; HEADER_BYTES] {
    let [a, b, c, ..] = bytes.to_le_bytes();
    [a, b, c, sequence]
}

/// A length-encoded integer.
pub(crate) fn put_integer(out: &mut BytesMut, value: u64) {
    let (mark, bytes) = match value {
        0..=0xfa => return out.put_uint_le(value, 1),
        0xfb..=0xffff => (0xfc, 2),
        0x1_0000..=0xff_ffff => (0xfd, 3),
        _ => (0xfe, 8),
    };
    out.put_u8(mark);
    out.put_uint_le(value, bytes);
}

/// A length-encoded string.
pub(crate) fn put_string(out: &mut BytesMut, string: &[u8]) {
    put_integer(out, string.len() as u64);
    out.put_slice(string);
}

/// Reads a message from front to back.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    message: &'a Bytes,
    /// Never beyond the end.
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(message: &'a Bytes) -> Cursor<'a> {
        Cursor { message, at: 0 }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.message.len()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.chunk().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let chunk = *self.message.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(chunk)
    }

    /// A length-encoded integer.
    pub(crate) fn integer(&mut self) -> Option<u64> {
        match self.u8()? {
            byte @ 0..=0xfa => Some(u64::from(byte)),
            0xfc => self.u16().map(u64::from),
            0xfd => self.chunk::<3>().map(|[a, b, c]| u64::from(u32::from_le_bytes([a, b, c, 0]))),
            0xfe => self.chunk().map(u64::from_le_bytes),
            // NULL, and what begins an ERR packet.
            0xfb | 0xff => None,
        }
    }

    /// A length-encoded string.
    pub(crate) fn string(&mut self) -> Option<Bytes> {
        let bytes = self.integer()?;
        self.take(usize::try_from(bytes).ok()?)
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Option<Bytes> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.message.len())?;
        let taken = self.message.slice(self.at..end);
        self.at = end;
        Some(taken)
    }

    /// What is before the next NUL byte, or before the end where there is none.
    pub(crate) fn until_nul(&mut self) -> Bytes {
        let rest = self.rest();
        match rest.iter().position(|&byte| byte == 0) {
            Some(end) => {
                self.at -= rest.len() - end - 1;
                rest.slice(..end)
            }
            None => rest,
        }
    }

    pub(crate) fn rest(&mut self) -> Bytes {
        let rest = self.message.slice(self.at..);
        self.at = self.message.len();
        rest
    }

    /// A value in a row of text: NULL or a length-encoded string.
    fn cell(&mut self) -> Option<Option<Bytes>> {
        if self.message.get(self.at) == Some(&NULL) {
            self.at += 1;
            return Some(None);
        }
        self.string().map(Some)
    }
}

/// For names and messages: what is not UTF-8 in them is replaced.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn is_error(body: &[u8]) -> bool {
    body.first() == Some(&ERR)
}

/// Whether this message, which came where a row could, ends the rows. A row of text may begin with the same byte, but
/// then its first value alone is longer than any such message. With CLIENT_DEPRECATE_EOF an OK packet takes the place
/// of the EOF packet (<https://mariadb.com/kb/en/result-set-packets/>).
pub(crate) fn ends_rows(body: &[u8], deprecates_eof: bool) -> bool {
    let limit = if deprecates_eof { PAYLOAD_BYTES_MAX } else { 9 };
    body.first() == Some(&EOF) && body.len() < limit
}

/// What the server says at the end of an exchange that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Rows that were found, equal to what they were or not: CLIENT_FOUND_ROWS is set.
    pub(crate) affected: u64,
    pub(crate) last_insert_id: u64,
    pub(crate) status: u16,
    pub(crate) warnings: u16,
    /// `Records: 3  Deleted: 0  Skipped: 0  Warnings: 0`; mostly empty.
    pub(crate) info: String,
}

impl Done {
    pub(crate) fn parse(body: &Bytes, deprecates_eof: bool) -> Option<Done> {
        let mut cursor = Cursor::new(body);
        if cursor.u8()? == EOF && !deprecates_eof {
            let (warnings, status) = (cursor.u16()?, cursor.u16()?);
            return Some(Done { warnings, status, ..Done::default() });
        }
        Some(Done {
            affected: cursor.integer()?,
            last_insert_id: cursor.integer()?,
            status: cursor.u16()?,
            warnings: cursor.u16()?,
            // Where MySQL's page says `string<EOF>`, both servers send a length (https://mariadb.com/kb/en/ok_packet/).
            info: cursor.string().map(|info| text(&info)).unwrap_or_default(),
        })
    }
}

/// What a result says of one of its columns (ColumnDefinition41).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) schema: String,
    /// Table and column as the statement calls them.
    pub(crate) table: String,
    pub(crate) name: String,
    /// The number of a collation; 63 is binary.
    pub(crate) charset: u16,
    pub(crate) type_byte: u8,
    pub(crate) flags: u16,
    pub(crate) decimals: u8,
}

impl Column {
    pub(crate) fn parse(body: &Bytes) -> Option<Column> {
        let mut cursor = Cursor::new(body);
        let _catalog = cursor.string()?;
        let (schema, table, _real_table) = (cursor.string()?, cursor.string()?, cursor.string()?);
        let (name, _real_name) = (cursor.string()?, cursor.string()?);
        // The length of what follows.
        cursor.integer().filter(|bytes| *bytes == 0x0c)?;
        let charset = cursor.u16()?;
        let _length = cursor.u32()?;
        Some(Column {
            schema: text(&schema),
            table: text(&table),
            name: text(&name),
            charset,
            type_byte: cursor.u8()?,
            flags: cursor.u16()?,
            decimals: cursor.u8()?,
        })
    }
}

/// One result row, as text; `None` is NULL.
pub(crate) type TextRow = Vec<Option<Bytes>>;

/// A row of exactly so many values.
pub(crate) fn text_row(body: &Bytes, columns: usize) -> Option<TextRow> {
    let mut cursor = Cursor::new(body);
    let row: Option<TextRow> = (0..columns).map(|_| cursor.cell()).collect();
    // What is left over was no row.
    row.filter(|_| cursor.is_at_end())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn bytes(bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }

    /// A column `t.c` of the schema `d` as MariaDB defines it: INT, NOT NULL, PRIMARY KEY.
    fn column() -> Vec<u8> {
        b"\x03def\x01d\x01t\x01t\x01c\x01c\x0c\x3f\x00\x0b\x00\x00\x00\x03\x03\x42\x00\x00\x00".to_vec()
    }

    #[test]
    fn a_message_is_framed() {
        let mut out = BytesMut::new();
        assert_eq!(put(&mut out, 255, |out| out.put_slice(b"abc")), 0);
        assert_eq!(out, &b"\x03\x00\x00\xffabc"[..]);
        let message = Joiner::default().next(&mut out).unwrap().unwrap();
        assert_eq!(message, Message { first: 255, last: 255, body: bytes(b"abc") });
        assert!(out.is_empty());
    }

    #[test]
    fn long_messages_are_split_and_joined() {
        for (length, packets) in [
            (PAYLOAD_BYTES_MAX - 1, 1),
            (PAYLOAD_BYTES_MAX, 2),
            (PAYLOAD_BYTES_MAX + 1, 2),
            (2 * PAYLOAD_BYTES_MAX, 3),
        ] {
            let payload: Vec<u8> = (0u8..251).cycle().take(length).collect();
            let mut out = BytesMut::from(&b"before"[..]);
            let next = put(&mut out, 7, |out| out.put_slice(&payload));
            assert_eq!(next, 7 + packets, "{length}");
            assert_eq!(out.len(), 6 + length + usize::from(packets) * HEADER_BYTES, "{length}");
            out.advance(6);

            let mut joiner = Joiner::default();
            let last = out.split_off(out.len() - 1);
            assert_eq!(joiner.next(&mut out), Ok(None), "{length}");
            out.unsplit(last);
            let message = joiner.next(&mut out).unwrap().unwrap();
            assert_eq!((message.first, message.last), (7, 6 + packets), "{length}");
            assert!(message.body == payload, "{length}");
        }
    }

    #[test]
    fn a_message_keeps_its_order_and_its_bound() {
        let full = |number: u8| {
            let mut packet = BytesMut::from(&header(PAYLOAD_BYTES_MAX, number)[..]);
            packet.put_bytes(0, PAYLOAD_BYTES_MAX);
            packet
        };
        let mut joiner = Joiner::default();
        assert_eq!(joiner.next(&mut full(1)), Ok(None));
        let error = FramingError::OutOfOrder { expected: 2, found: 3 };
        assert_eq!(joiner.next(&mut full(3)), Err(error));

        let open = Open { first: 0, last: 0, body: BytesMut::zeroed(MESSAGE_BYTES_MAX) };
        assert!(open.join(1, &[]).is_ok());
        let open = Open { first: 0, last: 0, body: BytesMut::zeroed(MESSAGE_BYTES_MAX) };
        let error = FramingError::TooLong { bytes: MESSAGE_BYTES_MAX + 1 };
        assert_eq!(open.join(1, &[0]).unwrap_err(), error);
    }

    #[test]
    fn integers_have_a_length() {
        for (value, encoded) in [
            (0, &b"\x00"[..]),
            (250, b"\xfa"),
            (251, b"\xfc\xfb\x00"),
            (0xffff, b"\xfc\xff\xff"),
            (0x1_0000, b"\xfd\x00\x00\x01"),
            (0x100_0000, b"\xfe\x00\x00\x00\x01\x00\x00\x00\x00"),
            (u64::MAX, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff"),
        ] {
            let mut out = BytesMut::new();
            put_integer(&mut out, value);
            assert_eq!(out, encoded, "{value}");
            assert_eq!(Cursor::new(&out.freeze()).integer(), Some(value));
            for cut in 0..encoded.len() {
                assert_eq!(Cursor::new(&bytes(&encoded[..cut])).integer(), None, "{value} {cut}");
            }
        }
        assert_eq!(Cursor::new(&bytes(b"\xfb")).integer(), None);
        assert_eq!(Cursor::new(&bytes(b"\xff\x00")).integer(), None);
        // A length that no memory holds.
        assert_eq!(Cursor::new(&bytes(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xffx")).string(), None);
    }

    #[test]
    fn strings_end_at_a_nul_byte() {
        let message = bytes(b"ab\0\0c");
        let mut cursor = Cursor::new(&message);
        assert_eq!(cursor.until_nul(), &b"ab"[..]);
        assert_eq!(cursor.until_nul(), &b""[..]);
        assert!(!cursor.is_at_end());
        assert_eq!(cursor.until_nul(), &b"c"[..]);
        assert!(cursor.is_at_end());
        assert_eq!(cursor.until_nul(), &b""[..]);
    }

    #[test]
    fn ends_are_read() {
        let update = b"\x00\x01\xfc\x00\x01\x23\x00\x02\x00\x28Rows matched: 1  Changed: 0  Warnings: 2";
        for (body, deprecates_eof, expected) in [
            (
                &update[..update.len() - 1],
                true,
                // The length says 40, and 39 bytes came: there is no text, and the counts stand.
                Some(Done {
                    affected: 1,
                    last_insert_id: 256,
                    status: 0x23,
                    warnings: 2,
                    info: String::new(),
                }),
            ),
            (
                &update[..],
                true,
                Some(Done {
                    affected: 1,
                    last_insert_id: 256,
                    status: 0x23,
                    warnings: 2,
                    info: "Rows matched: 1  Changed: 0  Warnings: 2".to_owned(),
                }),
            ),
            (b"\xfe\x00\x00\x02\x00\x03\x00", true, Some(Done { status: 2, warnings: 3, ..Done::default() })),
            (b"\xfe\x03\x00\x02\x00", false, Some(Done { status: 2, warnings: 3, ..Done::default() })),
            (b"\xfe\x03\x00\x02", false, None),
            (b"\x00\x00\x00\x02\x00\x00", true, None),
            (b"", true, None),
        ] {
            assert_eq!(Done::parse(&bytes(body), deprecates_eof), expected, "{body:?}");
        }
    }

    #[test]
    fn a_long_row_is_not_an_end() {
        let long = vec![EOF; PAYLOAD_BYTES_MAX];
        for (body, deprecates_eof, ends) in [
            (&b"\xfe\x00\x00\x02\x00"[..], false, true),
            (b"\xfe\x00\x00\x00\x01\x00\x00\x00\x00", false, false),
            (b"\xfe\x00\x00\x02\x00\x00\x00", true, true),
            (&long[..], true, false),
            (b"\x00", true, false),
            (b"", true, false),
        ] {
            assert_eq!(ends_rows(body, deprecates_eof), ends);
        }
    }

    #[test]
    fn columns_are_read() {
        let column = column();
        let expected = Column {
            schema: "d".to_owned(),
            table: "t".to_owned(),
            name: "c".to_owned(),
            charset: 63,
            type_byte: 3,
            flags: 0x4203,
            decimals: 0,
        };
        assert_eq!(Column::parse(&bytes(&column)), Some(expected));
        // The two bytes at the end are filler.
        for cut in 0..column.len() - 2 {
            assert_eq!(Column::parse(&bytes(&column[..cut])), None, "{cut}");
        }
    }

    #[test]
    fn a_damaged_row_is_noticed() {
        let good = bytes(b"\x02ok\xfb\x00");
        let row = vec![Some(bytes(b"ok")), None, Some(Bytes::new())];
        assert_eq!(text_row(&good, 3), Some(row));
        for columns in [0, 1, 2, 4, 1000] {
            assert_eq!(text_row(&good, columns), None, "{columns}");
        }
        for cut in 0..good.len() {
            assert_eq!(text_row(&good.slice(..cut), 3), None, "{cut}");
        }
    }

    proptest! {
        /// However the bytes arrive, the messages are those that were put.
        #[test]
        fn messages_survive_any_cutting(
            payloads in vec(vec(any::<u8>(), 0..300), 1..8),
            sequence in any::<u8>(),
            piece in 1usize..50,
        ) {
            let mut stream = BytesMut::new();
            let mut next = sequence;
            for payload in &payloads {
                next = put(&mut stream, next, |out| out.put_slice(payload));
            }
            let (mut joiner, mut incoming, mut found) = (Joiner::default(), BytesMut::new(), Vec::new());
            for piece in stream.chunks(piece) {
                incoming.extend_from_slice(piece);
                while let Some(message) = joiner.next(&mut incoming).unwrap() {
                    prop_assert_eq!(message.first, sequence.wrapping_add(found.len() as u8));
                    found.push(message.body.to_vec());
                }
            }
            prop_assert_eq!(found, payloads);
        }

        #[test]
        fn no_bytes_are_too_strange(body in vec(any::<u8>(), 0..80), columns in 0usize..20) {
            let body = Bytes::from(body);
            Done::parse(&body, true);
            Done::parse(&body, false);
            Column::parse(&body);
            text_row(&body, columns);
            let mut incoming = BytesMut::from(&body[..]);
            while let Ok(Some(_)) = Joiner::default().next(&mut incoming) {}
        }

        #[test]
        fn a_row_is_read_as_it_was_written(cells in vec(proptest::option::of(vec(any::<u8>(), 0..300)), 0..10)) {
            let mut out = BytesMut::new();
            for cell in &cells {
                match cell {
                    Some(cell) => put_string(&mut out, cell),
                    None => out.put_u8(NULL),
                }
            }
            let row = text_row(&out.freeze(), cells.len()).unwrap();
            let row: Vec<_> = row.into_iter().map(|cell| cell.map(|cell| cell.to_vec())).collect();
            prop_assert_eq!(row, cells);
        }
    }
}
