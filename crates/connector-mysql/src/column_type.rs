//! The type of a column, as far as its values have to be understood.
//!
//! It is read from the catalog alone ([`ColumnType::parse`]): the log's own description is poorer (without signs, charsets and
//! labels, unless `binlog_row_metadata=FULL`) and serves only to contradict. A type without a row here has no [`ColumnType`],
//! so that nothing is carried over that nobody thought about.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use model::Kind;

use crate::charset::{Charset, CharsetError, Charsets};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ColumnType {
    Integer {
        width: Width,
        unsigned: bool,
    },
    Year,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Float,
    Double,
    Bit {
        bits: u8,
    },
    Char {
        charset: Charset,
    },
    VarChar {
        charset: Charset,
    },
    Text {
        charset: Charset,
    },
    Binary {
        length: u8,
    },
    VarBinary,
    Blob,
    Date,
    DateTime {
        fraction: u8,
    },
    Timestamp {
        fraction: u8,
    },
    Time {
        fraction: u8,
    },
    Enum {
        charset: Charset,
        labels: Arc<[String]>,
    },
    Set {
        charset: Charset,
        labels: Arc<[String]>,
    },
    /// MySQL's: a binary form in the log, text everywhere else.
    Json,
    /// MariaDB's: LONGTEXT with a check.
    JsonText {
        charset: Charset,
    },
    Uuid,
    Inet4,
    Inet6,
    /// Well-known binary behind four bytes of SRID, for all geometry types.
    Geometry,
    Vector,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Tiny,
    Small,
    Medium,
    Int,
    Big,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum TypeError {
    #[error("values of the type {0} cannot be carried over")]
    Unknown(String),
    #[error("{0} is compressed inside the log; ALTER TABLE … MODIFY it without COMPRESSED")]
    Compressed(String),
    #[error("the type {declared} should have {expected}")]
    Malformed { declared: String, expected: String },
    #[error(transparent)]
    Charset(#[from] CharsetError),
}

impl ColumnType {
    /// From `COLUMN_TYPE` and `CHARACTER_SET_NAME`, as a session without NO_BACKSLASH_ESCAPES is told them. `json_valid`:
    /// the column has MariaDB's check of that name, which is all that its JSON has over LONGTEXT.
    pub(crate) fn parse(
        declared: &str,
        charset: Option<&str>,
        json_valid: bool,
        charsets: &Charsets,
    ) -> Result<ColumnType, TypeError> {
        let declaration = Declaration::new(declared, charset, charsets);
        // As MariaDB writes it: `varchar(20) /*M!100301 COMPRESSED*/`.
        if declaration.rest.ends_with("COMPRESSED*/") {
            return Err(TypeError::Compressed(declared.to_owned()));
        }
        Ok(match declaration.name {
            "tinyint" => declaration.integer(Width::Tiny),
            "smallint" => declaration.integer(Width::Small),
            "mediumint" => declaration.integer(Width::Medium),
            "int" => declaration.integer(Width::Int),
            "bigint" => declaration.integer(Width::Big),
            // YEAR(2), up to MySQL 5.6, shows two digits of what the log has whole.
            "year" if matches!(declaration.rest, "" | "(4)") => ColumnType::Year,
            "decimal" => {
                let precision = declaration.number(0, 1..=65, 10)?;
                ColumnType::Decimal { precision, scale: declaration.number(1, 0..=precision, 0)? }
            }
            "float" => ColumnType::Float,
            "double" => ColumnType::Double,
            "bit" => ColumnType::Bit { bits: declaration.number(0, 1..=64, 1)? },
            "char" => ColumnType::Char { charset: declaration.charset()? },
            "varchar" => ColumnType::VarChar { charset: declaration.charset()? },
            "longtext" if json_valid => ColumnType::JsonText { charset: declaration.charset()? },
            "tinytext" | "text" | "mediumtext" | "longtext" => {
                ColumnType::Text { charset: declaration.charset()? }
            }
            "binary" => ColumnType::Binary { length: declaration.number(0, 0..=255, 1)? },
            "varbinary" => ColumnType::VarBinary,
            "tinyblob" | "blob" | "mediumblob" | "longblob" => ColumnType::Blob,
            "date" => ColumnType::Date,
            "datetime" => ColumnType::DateTime { fraction: declaration.fraction()? },
            "timestamp" => ColumnType::Timestamp { fraction: declaration.fraction()? },
            "time" => ColumnType::Time { fraction: declaration.fraction()? },
            "enum" => ColumnType::Enum { charset: declaration.charset()?, labels: declaration.labels()? },
            "set" => ColumnType::Set { charset: declaration.charset()?, labels: declaration.labels()? },
            "json" => ColumnType::Json,
            "uuid" => ColumnType::Uuid,
            "inet4" => ColumnType::Inet4,
            "inet6" => ColumnType::Inet6,
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" | "geomcollection" => ColumnType::Geometry,
            "vector" => ColumnType::Vector,
            _ => return Err(TypeError::Unknown(declared.to_owned())),
        })
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            ColumnType::Integer { width: Width::Big, unsigned: true } | ColumnType::Bit { bits: 64 } => {
                Kind::Unsigned
            }
            ColumnType::Integer { .. } | ColumnType::Year | ColumnType::Bit { .. } => Kind::Integer,
            ColumnType::Decimal { .. } => Kind::Numeric,
            ColumnType::Float | ColumnType::Double => Kind::Real,
            ColumnType::Char { .. }
            | ColumnType::VarChar { .. }
            | ColumnType::Text { .. }
            | ColumnType::Enum { .. }
            | ColumnType::Set { .. }
            | ColumnType::Inet4
            | ColumnType::Inet6 => Kind::Text,
            ColumnType::Binary { .. }
            | ColumnType::VarBinary
            | ColumnType::Blob
            | ColumnType::Geometry
            | ColumnType::Vector => Kind::Blob,
            ColumnType::Date => Kind::Date,
            ColumnType::DateTime { .. } => Kind::Timestamp,
            ColumnType::Timestamp { .. } => Kind::TimestampTz,
            ColumnType::Time { .. } => Kind::Time,
            ColumnType::Json | ColumnType::JsonText { .. } => Kind::Json,
            ColumnType::Uuid => Kind::Uuid,
        }
    }
}

/// For messages: without labels and lengths.
impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnType::Integer { width, unsigned } => {
                f.write_str(width.name())?;
                f.write_str(if *unsigned { " UNSIGNED" } else { "" })
            }
            ColumnType::Year => f.write_str("YEAR"),
            ColumnType::Decimal { precision, scale } => write!(f, "DECIMAL({precision},{scale})"),
            ColumnType::Float => f.write_str("FLOAT"),
            ColumnType::Double => f.write_str("DOUBLE"),
            ColumnType::Bit { bits } => write!(f, "BIT({bits})"),
            ColumnType::Char { .. } => f.write_str("CHAR"),
            ColumnType::VarChar { .. } => f.write_str("VARCHAR"),
            ColumnType::Text { .. } => f.write_str("TEXT"),
            ColumnType::Binary { length } => write!(f, "BINARY({length})"),
            ColumnType::VarBinary => f.write_str("VARBINARY"),
            ColumnType::Blob => f.write_str("BLOB"),
            ColumnType::Date => f.write_str("DATE"),
            ColumnType::DateTime { fraction } => write!(f, "DATETIME({fraction})"),
            ColumnType::Timestamp { fraction } => write!(f, "TIMESTAMP({fraction})"),
            ColumnType::Time { fraction } => write!(f, "TIME({fraction})"),
            ColumnType::Enum { .. } => f.write_str("ENUM"),
            ColumnType::Set { .. } => f.write_str("SET"),
            ColumnType::Json | ColumnType::JsonText { .. } => f.write_str("JSON"),
            ColumnType::Uuid => f.write_str("UUID"),
            ColumnType::Inet4 => f.write_str("INET4"),
            ColumnType::Inet6 => f.write_str("INET6"),
            ColumnType::Geometry => f.write_str("GEOMETRY"),
            ColumnType::Vector => f.write_str("VECTOR"),
        }
    }
}

impl Width {
    fn name(self) -> &'static str {
        match self {
            Width::Tiny => "TINYINT",
            Width::Small => "SMALLINT",
            Width::Medium => "MEDIUMINT",
            Width::Int => "INT",
            Width::Big => "BIGINT",
        }
    }
}

/// `decimal(10,2) unsigned`: a name and what follows it.
struct Declaration<'a> {
    declared: &'a str,
    name: &'a str,
    rest: &'a str,
    charset: Option<&'a str>,
    charsets: &'a Charsets,
}

impl<'a> Declaration<'a> {
    fn new(declared: &'a str, charset: Option<&'a str>, charsets: &'a Charsets) -> Declaration<'a> {
        let end = declared.find(|char: char| !char.is_ascii_alphanumeric()).unwrap_or(declared.len());
        let (name, rest) = declared.split_at(end);
        Declaration { declared, name, rest, charset, charsets }
    }

    fn integer(&self, width: Width) -> ColumnType {
        // ZEROFILL says UNSIGNED as well.
        ColumnType::Integer { width, unsigned: self.rest.split(' ').any(|word| word == "unsigned") }
    }

    /// The number at this place in the parentheses.
    fn number(&self, at: usize, range: RangeInclusive<u8>, default: u8) -> Result<u8, TypeError> {
        let arguments = self.rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let Some(argument) = arguments.and_then(|(arguments, _)| arguments.split(',').nth(at)) else {
            return Ok(default);
        };
        match argument.parse::<u8>() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(self.malformed(format!("a number of {range:?} instead of {argument}"))),
        }
    }

    fn fraction(&self) -> Result<u8, TypeError> {
        self.number(0, 0..=6, 0)
    }

    fn charset(&self) -> Result<Charset, TypeError> {
        let name = self.charset.ok_or_else(|| self.malformed("a charset".to_owned()))?;
        Ok(self.charsets.named(name)?)
    }

    fn labels(&self) -> Result<Arc<[String]>, TypeError> {
        labels(self.rest).ok_or_else(|| self.malformed("quoted labels".to_owned()))
    }

    fn malformed(&self, expected: String) -> TypeError {
        TypeError::Malformed { declared: self.declared.to_owned(), expected }
    }
}

/// Takes `('a','it''s')` apart.
fn labels(text: &str) -> Option<Arc<[String]>> {
    let mut rest = text.strip_prefix('(')?;
    let mut labels = Vec::new();
    loop {
        let (label, after) = label(rest)?;
        labels.push(label);
        if after == ")" {
            return Some(labels.into());
        }
        rest = after.strip_prefix(',')?;
    }
}

/// One quoted label, and what follows it. The server doubles quotes, and writes a backslash before these four (`append_unescaped`
/// in the sources of both); any other escape is not understood.
fn label(text: &str) -> Option<(String, &str)> {
    let mut chars = text.strip_prefix('\'')?.chars();
    let mut label = String::new();
    loop {
        let char = match chars.next()? {
            '\'' => match chars.as_str().strip_prefix('\'') {
                Some(rest) => {
                    chars = rest.chars();
                    '\''
                }
                None => return Some((label, chars.as_str())),
            },
            '\\' => match chars.next()? {
                '\\' => '\\',
                '0' => '\0',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            char => char,
        };
        label.push(char);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(declared: &str) -> Result<ColumnType, TypeError> {
        ColumnType::parse(declared, Some("utf8mb4"), false, &Charsets::default())
    }

    #[test]
    fn declarations_have_types_and_kinds() {
        let integer = |width, unsigned| ColumnType::Integer { width, unsigned };
        let charset = Charset::Utf8;
        for (declared, expected, kind) in [
            ("tinyint(1)", integer(Width::Tiny, false), Kind::Integer),
            ("tinyint(3) unsigned", integer(Width::Tiny, true), Kind::Integer),
            ("smallint(6)", integer(Width::Small, false), Kind::Integer),
            ("mediumint(9)", integer(Width::Medium, false), Kind::Integer),
            ("int", integer(Width::Int, false), Kind::Integer),
            ("int(10) unsigned zerofill", integer(Width::Int, true), Kind::Integer),
            ("bigint", integer(Width::Big, false), Kind::Integer),
            ("bigint unsigned", integer(Width::Big, true), Kind::Unsigned),
            ("bigint(20) unsigned zerofill", integer(Width::Big, true), Kind::Unsigned),
            ("year(4)", ColumnType::Year, Kind::Integer),
            ("year", ColumnType::Year, Kind::Integer),
            ("decimal(65,30)", ColumnType::Decimal { precision: 65, scale: 30 }, Kind::Numeric),
            ("decimal(10,0) unsigned", ColumnType::Decimal { precision: 10, scale: 0 }, Kind::Numeric),
            ("decimal(38,38)", ColumnType::Decimal { precision: 38, scale: 38 }, Kind::Numeric),
            ("float(7,4)", ColumnType::Float, Kind::Real),
            ("double unsigned", ColumnType::Double, Kind::Real),
            ("bit(1)", ColumnType::Bit { bits: 1 }, Kind::Integer),
            ("bit(63)", ColumnType::Bit { bits: 63 }, Kind::Integer),
            ("bit(64)", ColumnType::Bit { bits: 64 }, Kind::Unsigned),
            ("char(3)", ColumnType::Char { charset: charset.clone() }, Kind::Text),
            ("varchar(20)", ColumnType::VarChar { charset: charset.clone() }, Kind::Text),
            ("mediumtext", ColumnType::Text { charset: charset.clone() }, Kind::Text),
            ("longtext", ColumnType::Text { charset }, Kind::Text),
            ("binary(16)", ColumnType::Binary { length: 16 }, Kind::Blob),
            ("varbinary(20)", ColumnType::VarBinary, Kind::Blob),
            ("longblob", ColumnType::Blob, Kind::Blob),
            ("date", ColumnType::Date, Kind::Date),
            ("datetime", ColumnType::DateTime { fraction: 0 }, Kind::Timestamp),
            ("datetime(6)", ColumnType::DateTime { fraction: 6 }, Kind::Timestamp),
            ("datetime(3) /* mariadb-5.3 */", ColumnType::DateTime { fraction: 3 }, Kind::Timestamp),
            ("timestamp /* mariadb-5.3 */", ColumnType::Timestamp { fraction: 0 }, Kind::TimestampTz),
            ("time(2)", ColumnType::Time { fraction: 2 }, Kind::Time),
            ("json", ColumnType::Json, Kind::Json),
            ("uuid", ColumnType::Uuid, Kind::Uuid),
            ("inet4", ColumnType::Inet4, Kind::Text),
            ("inet6", ColumnType::Inet6, Kind::Text),
            ("multipolygon", ColumnType::Geometry, Kind::Blob),
            ("vector(3)", ColumnType::Vector, Kind::Blob),
        ] {
            let parsed = parse(declared).unwrap();
            assert_eq!((parsed.kind(), &parsed), (kind, &expected), "{declared}");
        }
    }

    #[test]
    fn a_check_makes_longtext_json() {
        let parse = |declared, json_valid| {
            ColumnType::parse(declared, Some("utf8mb4"), json_valid, &Charsets::default())
        };
        assert_eq!(parse("longtext", true).unwrap().kind(), Kind::Json);
        assert_eq!(parse("text", true).unwrap().kind(), Kind::Text);
    }

    #[test]
    fn labels_are_unescaped() {
        for (declared, expected) in [
            ("enum('a')", &["a"][..]),
            ("enum('','it''s','a,b','c)')", &["", "it's", "a,b", "c)"]),
            ("enum('''','\\\\','\\\\''')", &["'", "\\", "\\'"]),
            ("enum('\\0\\n\\r','é😀')", &["\0\n\r", "é😀"]),
            ("enum('x /*M!100301 COMPRESSED*/')", &["x /*M!100301 COMPRESSED*/"]),
        ] {
            let Ok(ColumnType::Enum { labels, .. }) = parse(declared) else { panic!("{declared}") };
            assert_eq!(&labels[..], expected, "{declared}");
        }
        assert!(matches!(parse("set('a','b')"), Ok(ColumnType::Set { labels, .. }) if labels.len() == 2));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for declared in [
            "year(2)",
            "xmltype",
            "",
            "decimal(66,0)",
            "decimal(10,11)",
            "decimal(-1)",
            "decimal(x)",
            "bit(0)",
            "bit(65)",
            "binary(256)",
            "datetime(7)",
            "varchar(20) /*M!100301 COMPRESSED*/",
            "blob /*M!100301 COMPRESSED*/",
            "enum",
            "enum()",
            "enum('a'",
            "enum('a',)",
            "enum('a' )",
            "enum('a\\')",
            "enum('\\x')",
            "enum('a')b",
        ] {
            let error = parse(declared).unwrap_err();
            assert!(error.to_string().contains(declared), "{declared}: {error}");
        }
        let parse = |charset| ColumnType::parse("char(1)", charset, false, &Charsets::default());
        assert!(matches!(parse(None), Err(TypeError::Malformed { .. })));
        assert_eq!(parse(Some("gbk")), Err(TypeError::Charset(CharsetError::Unknown("gbk".to_owned()))));
    }

    proptest! {
        #[test]
        fn labels_survive_the_servers_quoting(expected in prop::collection::vec("[a',)(\\\\\n\r\0é]{0,5}", 1..4)) {
            let quote = |label: &String| {
                let escaped = label.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\0', "\\0");
                format!("'{}'", escaped.replace('\'', "''"))
            };
            let declared = format!("set({})", expected.iter().map(quote).collect::<Vec<_>>().join(","));
            let Ok(ColumnType::Set { labels, .. }) = parse(&declared) else { panic!("{declared}") };
            prop_assert_eq!(&labels[..], &expected[..]);
        }

        #[test]
        fn no_declaration_panics(declared in "(enum|set|decimal|bit|time|char)?[(')0-9,\\\\a é]{0,12}") {
            drop(parse(&declared));
        }
    }
}
