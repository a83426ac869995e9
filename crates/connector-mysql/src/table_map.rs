//! TABLE_MAP: which columns the row events of a table have, as the log knows them.
//!
//! How a cell is written follows from a column's type byte and metadata. What the column means, the catalog says: names,
//! signs and the primary key are here only with `binlog_row_metadata` MINIMAL or FULL, and are taken only to contradict
//! the catalog. The layout is that of `Table_map_event` in MySQL's `rows_event.h`; MariaDB has the same.

use bytes::Bytes;

use crate::input::{Input, Malformed, at_most, expect};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableMap {
    /// What the row events that follow in the same statement call the table.
    pub(crate) table_id: u64,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) columns: Vec<LoggedColumn>,
    /// Indexes into `columns`. `None` where the log does not tell, or the table has none, or one with prefixes.
    pub(crate) primary_key: Option<Vec<u64>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoggedColumn {
    pub(crate) type_byte: u8,
    /// What narrows the type, in the server's own form: the first byte is the high one where it is a type or a precision
    /// (STRING, ENUM, SET, NEWDECIMAL, VAR_STRING), the low one where it is a length (VARCHAR, BIT).
    pub(crate) metadata: u16,
    /// UTF-8, or what the server holds for it.
    pub(crate) name: Option<Bytes>,
    pub(crate) unsigned: Option<bool>,
}

/// How many bytes of metadata a type has.
enum Metadata {
    Nothing,
    Byte,
    HighFirst,
    LowFirst,
}

/// Fields behind the columns, of which the others are left to the catalog.
const SIGNEDNESS: u8 = 1;
const COLUMN_NAME: u8 = 4;
const SIMPLE_PRIMARY_KEY: u8 = 8;

const YEAR: u8 = 13;

/// Both servers allow so many: `MAX_FIELDS`.
const COLUMNS_MAX: u64 = 4096;

impl TableMap {
    pub(crate) fn read(input: &mut Input) -> Result<TableMap, Malformed> {
        let table_id = input.u48()?;
        let _flags = input.u16()?;
        let schema = terminated(input)?;
        let name = terminated(input)?;
        let count = input.lenenc()?;
        at_most("the number of columns", COLUMNS_MAX, count)?;
        let types = input.take(count)?;
        let mut metadata = Input(input.lenenc_bytes()?);
        let columns =
            types.iter().map(|&type_byte| column(type_byte, &mut metadata)).collect::<Result<_, _>>()?;
        metadata.finish()?;
        // Which columns may be NULL.
        input.take(count.div_ceil(8))?;
        let mut map = TableMap { table_id, schema, name, columns, primary_key: None };
        while !input.is_empty() {
            let field = input.u8()?;
            let content = Input(input.lenenc_bytes()?);
            map.optional(field, content)?;
        }
        Ok(map)
    }

    fn optional(&mut self, field: u8, mut content: Input) -> Result<(), Malformed> {
        match field {
            SIGNEDNESS => self.signs(&content.rest()),
            COLUMN_NAME => {
                for column in &mut self.columns {
                    column.name = Some(content.lenenc_bytes()?);
                }
                content.finish()
            }
            SIMPLE_PRIMARY_KEY => {
                let mut key = Vec::new();
                while !content.is_empty() {
                    key.push(content.lenenc()?);
                }
                self.primary_key = Some(key);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A bit for each column that is a number, the highest bit of a byte first.
    fn signs(&mut self, bits: &[u8]) -> Result<(), Malformed> {
        let numbers = self.columns.iter().filter(|column| is_number(column.type_byte)).count();
        expect("the size of SIGNEDNESS", numbers.div_ceil(8) as u64, bits.len() as u64)?;
        let mut bits = bits.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
        for column in self.columns.iter_mut().filter(|column| is_number(column.type_byte)) {
            let unsigned = bits.next();
            // MariaDB calls it unsigned and MySQL signed; it is neither.
            column.unsigned = if column.type_byte == YEAR { None } else { unsigned };
        }
        Ok(())
    }
}

/// A name between its length and a NUL byte.
fn terminated(input: &mut Input) -> Result<String, Malformed> {
    let length = input.lenenc()?;
    let name = input.name(length)?;
    expect("the byte behind a name", 0, u64::from(input.u8()?))?;
    Ok(name)
}

fn column(type_byte: u8, metadata: &mut Input) -> Result<LoggedColumn, Malformed> {
    let metadata = match metadata_of(type_byte)? {
        Metadata::Nothing => 0,
        Metadata::Byte => u16::from(metadata.u8()?),
        Metadata::HighFirst => metadata.array().map(u16::from_be_bytes)?,
        Metadata::LowFirst => metadata.u16()?,
    };
    Ok(LoggedColumn { type_byte, metadata, name: None, unsigned: None })
}

/// The numbers are those of `enum_field_types`; 140 and 141 are MariaDB's compressed columns, 242 MySQL's VECTOR.
fn metadata_of(type_byte: u8) -> Result<Metadata, Malformed> {
    Ok(match type_byte {
        // DECIMAL of old, the integers, NULL, the dates and times without a fraction, YEAR
        0..=3 | 6..=14 => Metadata::Nothing,
        // FLOAT, DOUBLE, TIMESTAMP2, DATETIME2, TIME2, BLOB_COMPRESSED, VECTOR, JSON, the BLOBs, GEOMETRY
        4 | 5 | 17..=19 | 140 | 242 | 245 | 249..=252 | 255 => Metadata::Byte,
        // NEWDECIMAL, ENUM, SET, VAR_STRING, STRING
        246..=248 | 253 | 254 => Metadata::HighFirst,
        // VARCHAR, BIT, VARCHAR_COMPRESSED
        15 | 16 | 141 => Metadata::LowFirst,
        other => return Err(Malformed::ColumnType(other)),
    })
}

/// The types that have a bit in SIGNEDNESS: `has_signedess_information_type` in MySQL's `field_common_properties.h`.
fn is_number(type_byte: u8) -> bool {
    // DECIMAL, TINY, SHORT, LONG, FLOAT, DOUBLE, LONGLONG, INT24, YEAR, NEWDECIMAL
    matches!(type_byte, 0..=5 | 8 | 9 | YEAR | 246)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A map of table 7, `shop.item`, whose columns are given as type byte and metadata as it is in the log.
    pub(crate) fn bytes(columns: &[(u8, &[u8])], optional: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![7, 0, 0, 0, 0, 0, 1, 0];
        bytes.extend(b"\x04shop\0\x04item\0");
        bytes.push(columns.len() as u8);
        bytes.extend(columns.iter().map(|(type_byte, _)| type_byte));
        bytes.push(columns.iter().map(|(_, metadata)| metadata.len()).sum::<usize>() as u8);
        bytes.extend(columns.iter().flat_map(|(_, metadata)| metadata.iter()));
        bytes.extend(vec![0xff; columns.len().div_ceil(8)]);
        for (field, content) in optional {
            bytes.extend([*field, content.len() as u8]);
            bytes.extend(*content);
        }
        bytes
    }

    pub(crate) fn read(bytes: Vec<u8>) -> Result<TableMap, Malformed> {
        TableMap::read(&mut Input(bytes.into()))
    }

    #[test]
    fn metadata_is_read_as_the_server_means_it() {
        let columns: &[(u8, &[u8], u16)] = &[
            (3, &[], 0),
            (4, &[4], 4),
            (15, &[0x40, 0x01], 320),
            (16, &[3, 1], 0x0103),
            (18, &[6], 6),
            (246, &[65, 30], 0x411e),
            // CHAR(255) in four bytes a character: two bits of the length hide in the type.
            (254, &[0xee, 0xfc], 0xeefc),
            (254, &[247, 1], 0xf701),
            (252, &[2], 2),
        ];
        let logged: Vec<_> = columns.iter().map(|&(type_byte, metadata, _)| (type_byte, metadata)).collect();
        let map = read(bytes(&logged, &[])).unwrap();
        assert_eq!((map.table_id, map.schema.as_str(), map.name.as_str()), (7, "shop", "item"));
        for (column, (type_byte, _, metadata)) in map.columns.iter().zip(columns) {
            assert_eq!((column.type_byte, column.metadata), (*type_byte, *metadata));
            assert_eq!((&column.name, column.unsigned), (&None, None));
        }
        assert_eq!(map.columns.len(), columns.len());
        assert_eq!(map.primary_key, None);
    }

    #[test]
    fn what_full_metadata_adds() {
        let columns: [(u8, &[u8]); 4] = [(3, &[]), (15, &[20, 0]), (13, &[]), (8, &[])];
        // DEFAULT_CHARSET is passed over.
        let optional: [(u8, &[u8]); 4] =
            [(1, &[0b0110_0000]), (2, &[45]), (4, b"\x02id\x01t\x01y\x01n"), (8, &[0])];
        let map = read(bytes(&columns, &optional)).unwrap();
        let names: Vec<_> = map.columns.iter().map(|column| column.name.as_deref().unwrap()).collect();
        assert_eq!(names, [&b"id"[..], b"t", b"y", b"n"]);
        let signs: Vec<_> = map.columns.iter().map(|column| column.unsigned).collect();
        assert_eq!(signs, [Some(false), None, None, Some(true)]);
        assert_eq!(map.primary_key, Some(vec![0]));
        let prefixed = read(bytes(&columns, &[(9, &[1, 10, 0, 0])])).unwrap();
        assert_eq!(prefixed.primary_key, None);
    }

    #[test]
    fn more_columns_than_a_byte_of_signs() {
        let columns: Vec<(u8, &[u8])> = vec![(3, &[]); 9];
        let map = read(bytes(&columns, &[(1, &[0b1000_0001, 0b1000_0000])])).unwrap();
        let unsigned: Vec<_> = map.columns.iter().map(|column| column.unsigned == Some(true)).collect();
        assert_eq!(unsigned, [true, false, false, false, false, false, false, true, true]);
    }

    #[test]
    fn what_is_malformed() {
        let value = |what, expected, found| Malformed::Value { what, expected, found };
        let one: [(u8, &[u8]); 1] = [(3, &[])];
        for (bytes, expected) in [
            (bytes(&[(20, &[])], &[]), Malformed::ColumnType(20)),
            (bytes(&[(3, &[1])], &[]), Malformed::Long(1)),
            (bytes(&[(15, &[1])], &[]), Malformed::Short { wanted: 2, left: 1 }),
            (bytes(&one, &[(1, &[0, 0])]), value("the size of SIGNEDNESS", 1, 2)),
            (bytes(&one, &[(4, b"\x02id\x01x")]), Malformed::Long(2)),
            (bytes(&one, &[(4, b"\x05id")]), Malformed::Short { wanted: 5, left: 2 }),
            (
                b"\x07\0\0\0\0\0\x01\0\x01s\0\x01t\0\xfc\x01\x10".to_vec(),
                Malformed::Many { what: "the number of columns", limit: 4096, found: 4097 },
            ),
            (b"\x07\0\0\0\0\0\x01\0\x04shop\x01".to_vec(), value("the byte behind a name", 0, 1)),
            (b"\x07\0\0\0\0\0\x01\0\x01\xff\0".to_vec(), Malformed::Name),
        ] {
            assert_eq!(read(bytes.clone()), Err(expected), "{bytes:?}");
        }
    }

    #[test]
    fn every_beginning_is_too_short() {
        let whole = bytes(&[(3, &[]), (15, &[20, 0])], &[]);
        assert!(read(whole.clone()).is_ok());
        for cut in 0..whole.len() {
            let found = read(whole[..cut].to_vec());
            assert!(matches!(found, Err(Malformed::Short { .. })), "{cut}: {found:?}");
        }
    }
}
