//! What the catalog says of a column's type, as one text, which is kept in the plan: with it alone every value of the column
//! is understood later, and a change of it is a change of the schema.

use std::fmt;

use connector::{Error, ErrorKind, Result};
use model::{Column, KeyOrder, Table};

use crate::charset::Charsets;
use crate::column_type::ColumnType;

/// `varchar(20) charset latin1 collate latin1_swedish_ci`, `longtext charset utf8mb4 collate utf8mb4_bin json_valid`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Declared<'a> {
    /// `COLUMN_TYPE`.
    pub(crate) column_type: &'a str,
    pub(crate) text: Option<TextOf<'a>>,
    /// MariaDB's JSON is LONGTEXT with a check of this name.
    pub(crate) json_valid: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextOf<'a> {
    pub(crate) charset: &'a str,
    pub(crate) collation: &'a str,
}

const CHARSET: &str = " charset ";
const COLLATE: &str = " collate ";
const JSON_VALID: &str = " json_valid";

impl<'a> Declared<'a> {
    /// Reads what `Display` wrote. The words are looked for from the end, as an ENUM's labels may hold them.
    pub(crate) fn parse(type_name: &'a str) -> Declared<'a> {
        let (rest, json_valid) = match type_name.strip_suffix(JSON_VALID) {
            Some(rest) => (rest, true),
            None => (type_name, false),
        };
        let text = rest.rsplit_once(COLLATE).and_then(|(before, collation)| {
            let (column_type, charset) = before.rsplit_once(CHARSET)?;
            // A label ends with a quote and a bracket, which no collation's name does.
            let is_name = collation.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            is_name.then_some((column_type, TextOf { charset, collation }))
        });
        match text {
            Some((column_type, text)) => Declared { column_type, text: Some(text), json_valid },
            None => Declared { column_type: rest, text: None, json_valid },
        }
    }

    pub(crate) fn resolve(&self, charsets: &Charsets) -> Result<ColumnType> {
        let charset = self.text.map(|text| text.charset);
        ColumnType::parse(self.column_type, charset, self.json_valid, charsets).map_err(|error| {
            Error::new(ErrorKind::Schema, "understand a column's type").with("type", self).source(error).hint(
                "change the column on the source to a type that can be carried over, or leave the table out",
            )
        })
    }

    /// How the server orders the column, where we can do the same. Most collations have an order of their own, and nearly
    /// all of them pad with spaces ('a\t' comes before 'a').
    pub(crate) fn key_order(&self, column_type: &ColumnType) -> Option<KeyOrder> {
        match column_type {
            ColumnType::Integer { .. } | ColumnType::Year => Some(KeyOrder::Integer),
            // Of fixed width, as text too.
            ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
                Some(KeyOrder::Bytes)
            }
            ColumnType::Binary { .. } | ColumnType::VarBinary => Some(KeyOrder::Bytes),
            ColumnType::VarChar { .. } => {
                self.text.is_some_and(|text| BYTEWISE.contains(&text.collation)).then_some(KeyOrder::Bytes)
            }
            _ => None,
        }
    }
}

/// By code point and without padding, over charsets whose bytes are those of UTF-8.
const BYTEWISE: &[&str] = &["utf8mb4_nopad_bin", "utf8mb3_nopad_bin", "ascii_nopad_bin", "utf8mb4_0900_bin"];

impl fmt::Display for Declared<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.column_type)?;
        if let Some(TextOf { charset, collation }) = self.text {
            write!(f, "{CHARSET}{charset}{COLLATE}{collation}")?;
        }
        f.write_str(if self.json_valid { JSON_VALID } else { "" })
    }
}

/// The type of each column of a table.
pub(crate) fn column_types(table: &Table, charsets: &Charsets) -> Result<Vec<ColumnType>> {
    let resolve = |column: &Column| {
        Declared::parse(&column.type_name)
            .resolve(charsets)
            .map_err(|error| error.with("table", &table.name).with("column", &column.name))
    };
    table.columns.iter().map(resolve).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let latin1 = Some(TextOf { charset: "latin1", collation: "latin1_swedish_ci" });
        for (column_type, text, json_valid, written) in [
            ("int(10) unsigned", None, false, "int(10) unsigned"),
            ("varchar(20)", latin1, false, "varchar(20) charset latin1 collate latin1_swedish_ci"),
            ("longtext", latin1, true, "longtext charset latin1 collate latin1_swedish_ci json_valid"),
            (
                "enum('a charset b collate c','json_valid')",
                latin1,
                false,
                "enum('a charset b collate c','json_valid') charset latin1 collate latin1_swedish_ci",
            ),
            ("enum('a charset b collate c')", None, false, "enum('a charset b collate c')"),
        ] {
            let declared = Declared { column_type, text, json_valid };
            assert_eq!(declared.to_string(), written);
            assert_eq!(Declared::parse(written), declared);
        }
    }

    #[test]
    fn only_an_order_that_is_ours_too_is_an_order() {
        let order = |type_name: &str| {
            let declared = Declared::parse(type_name);
            declared.key_order(&declared.resolve(&Charsets::default()).unwrap())
        };
        for (type_name, expected) in [
            ("bigint(20) unsigned", Some(KeyOrder::Integer)),
            ("mediumint(9)", Some(KeyOrder::Integer)),
            ("varbinary(16)", Some(KeyOrder::Bytes)),
            ("datetime(6)", Some(KeyOrder::Bytes)),
            ("varchar(9) charset utf8mb4 collate utf8mb4_nopad_bin", Some(KeyOrder::Bytes)),
            ("varchar(9) charset utf8mb4 collate utf8mb4_bin", None),
            ("varchar(9) charset utf8mb4 collate utf8mb4_general_ci", None),
            ("char(9) charset utf8mb4 collate utf8mb4_nopad_bin", None),
            ("decimal(10,2)", None),
            ("uuid", None),
            ("enum('b','a') charset utf8mb4 collate utf8mb4_nopad_bin", None),
        ] {
            assert_eq!(order(type_name), expected, "{type_name}");
        }
    }
}
