//! Text as the source stores it, in the column's charset, to UTF-8.
//!
//! A byte sequence that has no meaning in its charset is an error: nothing is replaced and nothing is guessed. The Unicode
//! charsets, `ascii` and `latin1` are known here; of every other single-byte charset the source is asked for its own table
//! ([`table_query`], [`Charsets::learn`]), so that both sides agree on what a byte means. The East Asian multi-byte ones
//! are refused by name.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Charset {
    Utf8,
    Ascii,
    Latin1,
    Ucs2,
    Utf16,
    Utf16le,
    Utf32,
    Learned(Arc<Learned>),
}

/// A value that its own column's charset has no characters for.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the text is not valid {charset} at byte {at} of {length} ({found})")]
pub(crate) struct Invalid {
    charset: String,
    at: usize,
    length: usize,
    /// Up to four bytes from there, as hexadecimal.
    found: String,
}

/// Why a column's charset cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum CharsetError {
    #[error("text in {0} cannot be read; ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4 makes it readable")]
    Unknown(String),
    #[error("the source's table of the charset {charset} should have {expected}, and has {found}")]
    Table { charset: String, expected: &'static str, found: String },
}

impl Charset {
    /// The same text in UTF-8. What is UTF-8 already is not copied.
    pub(crate) fn decode(&self, bytes: Bytes) -> Result<Bytes, Invalid> {
        let text = match self {
            Charset::Utf8 => match std::str::from_utf8(&bytes) {
                Ok(_) => return Ok(bytes),
                Err(error) => Err(error.valid_up_to()),
            },
            Charset::Ascii | Charset::Latin1 if bytes.is_ascii() => return Ok(bytes),
            Charset::Ascii => Err(bytes.iter().take_while(|byte| byte.is_ascii()).count()),
            Charset::Latin1 => Ok(bytes.iter().map(|byte| latin1(*byte)).collect()),
            Charset::Ucs2 => from_units(&bytes, |unit| char::from_u32(u32::from(u16::from_be_bytes(unit)))),
            Charset::Utf16 => from_utf16(&bytes, u16::from_be_bytes),
            Charset::Utf16le => from_utf16(&bytes, u16::from_le_bytes),
            Charset::Utf32 => from_units(&bytes, |unit| char::from_u32(u32::from_be_bytes(unit))),
            Charset::Learned(table) => from_units(&bytes, |[byte]: [u8; 1]| table.chars[usize::from(byte)]),
        };
        text.map(Bytes::from).map_err(|at| self.invalid(&bytes, at))
    }

    fn name(&self) -> &str {
        match self {
            Charset::Utf8 => "utf8mb4",
            Charset::Ascii => "ascii",
            Charset::Latin1 => "latin1",
            Charset::Ucs2 => "ucs2",
            Charset::Utf16 => "utf16",
            Charset::Utf16le => "utf16le",
            Charset::Utf32 => "utf32",
            Charset::Learned(table) => &table.name,
        }
    }

    fn invalid(&self, bytes: &[u8], at: usize) -> Invalid {
        let found = bytes.iter().skip(at).take(4).map(|byte| format!("{byte:02x}")).collect();
        Invalid { charset: self.name().to_owned(), at, length: bytes.len(), found }
    }
}

/// Characters of `N` bytes each. The error is where the first one without a meaning begins.
fn from_units<const N: usize>(
    bytes: &[u8],
    char_of: impl Fn([u8; N]) -> Option<char>,
) -> Result<String, usize> {
    let (units, rest) = bytes.as_chunks::<N>();
    let text =
        units.iter().enumerate().map(|(at, unit)| char_of(*unit).ok_or(at * N)).collect::<Result<_, _>>()?;
    if rest.is_empty() { Ok(text) } else { Err(bytes.len() - rest.len()) }
}

fn from_utf16(bytes: &[u8], unit_of: impl Fn([u8; 2]) -> u16) -> Result<String, usize> {
    let (units, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(units.len());
    for char in char::decode_utf16(units.iter().map(|unit| unit_of(*unit))) {
        match char {
            Ok(char) => text.push(char),
            Err(_) => return Err(2 * text.encode_utf16().count()),
        }
    }
    if rest.is_empty() { Ok(text) } else { Err(bytes.len() - rest.len()) }
}

/// MySQL's latin1 is Windows-1252, with the five bytes that Microsoft left undefined mapped to the C1 controls of the same
/// number (MySQL manual, "West European Character Sets").
fn latin1(byte: u8) -> char {
    const FROM_80: [char; 32] = [
        '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}',
        '\u{2c6}', '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}', '\u{90}',
        '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2dc}',
        '\u{2122}', '\u{161}', '\u{203a}', '\u{153}', '\u{9d}', '\u{17e}', '\u{178}',
    ];
    match byte {
        0x80..=0x9f => FROM_80[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

/// What each byte of a single-byte charset means, as the source itself answered.
#[derive(Debug, PartialEq)]
pub(crate) struct Learned {
    name: String,
    /// `None`: no character.
    chars: [Option<char>; 256],
}

impl Learned {
    fn new(name: &str, answer: &[Option<Bytes>]) -> Result<Learned, CharsetError> {
        let unexpected =
            |expected, found: String| CharsetError::Table { charset: name.to_owned(), expected, found };
        if answer.len() != 256 {
            return Err(unexpected("256 characters", answer.len().to_string()));
        }
        let mut chars = [None; 256];
        for (byte, (cell, place)) in answer.iter().zip(&mut chars).enumerate() {
            let char = cell.as_deref().and_then(only_char).ok_or_else(|| {
                unexpected("one character of UTF-8 for every byte", format!("{cell:?} for byte {byte:#04x}"))
            })?;
            // The server shows a byte that means nothing as a question mark.
            *place = (char != '?' || byte == usize::from(b'?')).then_some(char);
        }
        Ok(Learned { name: name.to_owned(), chars })
    }
}

fn only_char(cell: &[u8]) -> Option<char> {
    let mut chars = std::str::from_utf8(cell).ok()?.chars();
    let char = chars.next()?;
    chars.next().is_none().then_some(char)
}

/// The single-byte charsets whose tables are learned. A name goes into SQL only if it is one of these.
const SINGLE_BYTE: [&str; 23] = [
    "armscii8", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852", "cp866", "dec8", "geostd8",
    "greek", "hebrew", "hp8", "keybcs2", "koi8r", "koi8u", "latin2", "latin5", "latin7", "macce", "macroman",
    "swe7", "tis620",
];

/// The question whose answer [`Charsets::learn`] takes: one row of 256 columns, the character of each byte from 0x00 on, in
/// UTF-8. `None` where nothing has to be learned.
pub(crate) fn table_query(charset: &str) -> Option<String> {
    let name = SINGLE_BYTE.iter().find(|name| **name == charset)?;
    let columns: Vec<_> =
        (0..=255u8).map(|byte| format!("CONVERT(_{name} X'{byte:02x}' USING utf8mb4)")).collect();
    Some(format!("SELECT {}", columns.join(", ")))
}

/// The charsets of one source: those known here, and those that it has taught us.
#[derive(Debug, Default)]
pub(crate) struct Charsets {
    learned: HashMap<String, Arc<Learned>>,
}

impl Charsets {
    /// Takes the row that answers [`table_query`].
    pub(crate) fn learn(&mut self, charset: &str, answer: &[Option<Bytes>]) -> Result<(), CharsetError> {
        let table = Learned::new(charset, answer)?;
        self.learned.insert(charset.to_owned(), Arc::new(table));
        Ok(())
    }

    /// By `CHARACTER_SET_NAME`.
    pub(crate) fn named(&self, charset: &str) -> Result<Charset, CharsetError> {
        Ok(match charset {
            // Only the labels of an ENUM or a SET can be text in `binary`; information_schema shows them as UTF-8.
            "utf8mb4" | "utf8mb3" | "utf8" | "binary" => Charset::Utf8,
            "ascii" => Charset::Ascii,
            "latin1" => Charset::Latin1,
            "ucs2" => Charset::Ucs2,
            "utf16" => Charset::Utf16,
            "utf16le" => Charset::Utf16le,
            "utf32" => Charset::Utf32,
            other => match self.learned.get(other) {
                Some(table) => Charset::Learned(Arc::clone(table)),
                None => return Err(CharsetError::Unknown(other.to_owned())),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(charset: &Charset, bytes: &[u8]) -> Result<String, usize> {
        let decoded = charset.decode(Bytes::copy_from_slice(bytes));
        decoded.map(|text| String::from_utf8(text.to_vec()).unwrap()).map_err(|error| error.at)
    }

    /// As if the source had answered for a charset like koi8r, with two holes.
    fn answer() -> Vec<Option<Bytes>> {
        let char = |byte: u8| match byte {
            0xc1 => "а".to_owned(),
            0xff => "Ъ".to_owned(),
            0x80 | 0x81 => "?".to_owned(),
            _ => char::from(byte).to_string(),
        };
        (0..=255).map(|byte| Some(Bytes::from(char(byte)))).collect()
    }

    #[test]
    fn bytes_become_what_the_server_means() {
        for (charset, bytes, expected) in [
            (Charset::Utf8, "é😀".as_bytes(), Ok("é😀")),
            (Charset::Utf8, b"ab\xe9", Err(2)),
            // A surrogate, as utf8mb3 may have kept it since 4.1.
            (Charset::Utf8, b"\xed\xa0\x80", Err(0)),
            (Charset::Ascii, b"ab\0", Ok("ab\0")),
            (Charset::Ascii, b"ab\x80", Err(2)),
            (Charset::Latin1, b"ab", Ok("ab")),
            (Charset::Latin1, b"\x80\xe9\xff", Ok("€éÿ")),
            (Charset::Latin1, b"\x81\x8d\x8f\x90\x9d", Ok("\u{81}\u{8d}\u{8f}\u{90}\u{9d}")),
            (Charset::Latin1, b"\x8e\x9e\x9f\xa0", Ok("ŽžŸ\u{a0}")),
            (Charset::Ucs2, b"\x00a\x20\xac", Ok("a€")),
            (Charset::Ucs2, b"\x00a\xd8\x00", Err(2)),
            (Charset::Ucs2, b"\x00a\x20", Err(2)),
            (Charset::Utf16, b"\x00a\xd8\x3d\xde\x00", Ok("a😀")),
            (Charset::Utf16, b"\xd8\x3d\xde\x00\xde\x00", Err(4)),
            (Charset::Utf16, b"\x00a\x00", Err(2)),
            (Charset::Utf16le, b"a\x00\x3d\xd8\x00\xde", Ok("a😀")),
            (Charset::Utf32, b"\x00\x01\xf6\x00", Ok("😀")),
            (Charset::Utf32, b"\x00\x00\x00a\x00\x11\x00\x00", Err(4)),
            (Charset::Utf32, b"\x00\x00", Err(0)),
            (Charset::Utf16, b"", Ok("")),
        ] {
            assert_eq!(decode(&charset, bytes), expected.map(str::to_owned), "{charset:?} {bytes:x?}");
        }
    }

    #[test]
    fn a_learned_table_has_holes() {
        let mut charsets = Charsets::default();
        assert_eq!(charsets.named("koi8r"), Err(CharsetError::Unknown("koi8r".to_owned())));
        charsets.learn("koi8r", &answer()).unwrap();
        let koi8r = charsets.named("koi8r").unwrap();
        assert_eq!(decode(&koi8r, b"a?\xc1\xff").unwrap(), "a?аЪ");
        assert_eq!(decode(&koi8r, b"a\x80"), Err(1));
        let error = koi8r.decode(Bytes::from_static(b"a\x80")).unwrap_err().to_string();
        assert_eq!(error, "the text is not valid koi8r at byte 1 of 2 (80)");
    }

    #[test]
    fn an_answer_that_is_no_table_is_refused() {
        let mut short = answer();
        short.pop();
        let mut null = answer();
        null[7] = None;
        let mut two = answer();
        two[7] = Some(Bytes::from_static(b"ab"));
        let mut raw = answer();
        raw[7] = Some(Bytes::from_static(b"\xff"));
        for answer in [short, null, two, raw] {
            assert!(matches!(Charsets::default().learn("koi8r", &answer), Err(CharsetError::Table { .. })));
        }
    }

    #[test]
    fn only_single_byte_charsets_are_asked_for() {
        let query = table_query("koi8r").unwrap();
        assert!(
            query.starts_with("SELECT CONVERT(_koi8r X'00' USING utf8mb4), CONVERT(_koi8r X'01' "),
            "{query}"
        );
        assert!(query.ends_with(", CONVERT(_koi8r X'ff' USING utf8mb4)"), "{query}");
        for charset in ["utf8mb4", "latin1", "gbk", "sjis", "koi8r'", ""] {
            assert_eq!(table_query(charset), None, "{charset}");
        }
        let refusal = Charsets::default().named("gbk").unwrap_err().to_string();
        assert!(refusal.contains("gbk") && refusal.contains("utf8mb4"), "{refusal}");
    }

    proptest! {
        #[test]
        fn text_survives(text in any::<String>()) {
            let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let wide: Vec<u8> = text.chars().flat_map(|char| u32::from(char).to_be_bytes()).collect();
            prop_assert_eq!(decode(&Charset::Utf8, text.as_bytes()), Ok(text.clone()));
            prop_assert_eq!(decode(&Charset::Utf16, &be), Ok(text.clone()));
            prop_assert_eq!(decode(&Charset::Utf16le, &le), Ok(text.clone()));
            prop_assert_eq!(decode(&Charset::Utf32, &wide), Ok(text));
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            let learned = Charset::Learned(Arc::new(Learned::new("koi8r", &answer()).unwrap()));
            for charset in [
                Charset::Utf8, Charset::Ascii, Charset::Latin1, Charset::Ucs2, Charset::Utf16, Charset::Utf16le,
                Charset::Utf32, learned,
            ] {
                if let Err(at) = decode(&charset, &bytes) {
                    prop_assert!(at < bytes.len());
                }
            }
        }
    }
}
