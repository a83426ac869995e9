//! Row events to rows of the catalog: which cells an image has, which of them are NULL, and which table this is.
//!
//! Promises: a row has every stored column of the table, or there is an error that says which one is missing; a generated
//! column is [`Value::Unchanged`], whether the log has it or not. What the log says of the table's shape only contradicts
//! the catalog: a difference means that the table was altered behind the stream's back.

use connector::{Error, ErrorKind};
use model::{Column, Identity, Row, Table, TableName, Value};

use crate::column_type::ColumnType;
use crate::event::{Rows, RowsKind};
use crate::input::Malformed;
use crate::table_map::{LoggedColumn, TableMap};
use crate::value::{self, DecodeError};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Image {
    Write(Row),
    Update { before: Row, after: Row },
    Delete(Row),
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum RowsError {
    #[error("the table has {catalog} columns in the catalog, and {log} in the log")]
    Columns { catalog: usize, log: u64 },
    #[error("column {number} is {catalog} in the catalog, and {log} in the log")]
    Name { number: usize, catalog: String, log: String },
    #[error("whether column {0} is unsigned differs between the catalog and the log")]
    Sign(String),
    #[error("the primary key has other columns in the log than in the catalog")]
    Key,
    #[error("a session left column {0} out of the log")]
    Partial(String),
    #[error("a row event cannot be read")]
    Malformed(#[source] Malformed),
    #[error("column {column} of a row event cannot be read")]
    Cell {
        column: String,
        #[source]
        cell: DecodeError,
    },
}

impl RowsError {
    pub(crate) fn during(self, operation: &'static str, table: &TableName) -> Error {
        let new = |kind| Error::new(kind, operation).with("table", table);
        match self {
            RowsError::Cell { column, cell } => {
                cell.into_error(operation).with("table", table).with("column", column)
            }
            RowsError::Malformed(_) => new(ErrorKind::Corrupt).source(self),
            RowsError::Partial(_) => new(ErrorKind::Setup).source(self).hint(
                "SET GLOBAL binlog_row_image = FULL on the source, see to it that no session sets MINIMAL, NOBLOB or \
                 FULL_NODUP, and begin the migration anew.",
            ),
            RowsError::Columns { .. } | RowsError::Name { .. } | RowsError::Sign(_) | RowsError::Key => {
                new(ErrorKind::Schema).source(self).hint("Was the table altered while the migration ran?")
            }
        }
    }
}

/// The rows of one event, in their order. After an error there are none.
pub(crate) struct Images<'a> {
    kind: RowsKind,
    columns: Columns<'a>,
    first: Present<'a>,
    second: Present<'a>,
    rest: &'a [u8],
}

/// What is known of the columns of a table; the three are equally long.
#[derive(Clone, Copy)]
struct Columns<'a> {
    catalog: &'a [Column],
    types: &'a [ColumnType],
    logged: &'a [LoggedColumn],
}

/// Which columns an image has.
#[derive(Clone, Copy)]
struct Present<'a> {
    bits: &'a [u8],
    count: usize,
}

impl<'a> Images<'a> {
    /// `types` are those of `table`, column by column; `map` is the one that the event names.
    pub(crate) fn new(
        rows: &'a Rows,
        map: &'a TableMap,
        table: &'a Table,
        types: &'a [ColumnType],
    ) -> Result<Images<'a>, RowsError> {
        let columns = Columns { catalog: &table.columns, types, logged: &map.columns };
        columns.check(rows.columns)?;
        check_key(map, &table.identity)?;
        let first = columns.present(&rows.present)?;
        let second = match rows.kind {
            RowsKind::Update => columns.present(&rows.present_after)?,
            RowsKind::Write | RowsKind::Delete => first,
        };
        Ok(Images { kind: rows.kind, columns, first, second, rest: &rows.images })
    }

    fn image(&mut self) -> Result<Image, RowsError> {
        let before = self.rest.len();
        let first = self.columns.row(self.first, &mut self.rest)?;
        // An image of no columns at all would never come to an end.
        if self.rest.len() == before {
            return Err(RowsError::Malformed(Malformed::Long(before)));
        }
        Ok(match self.kind {
            RowsKind::Write => Image::Write(first),
            RowsKind::Delete => Image::Delete(first),
            RowsKind::Update => {
                Image::Update { before: first, after: self.columns.row(self.second, &mut self.rest)? }
            }
        })
    }
}

impl Iterator for Images<'_> {
    type Item = Result<Image, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let image = self.image();
        if image.is_err() {
            self.rest = &[];
        }
        Some(image)
    }
}

impl<'a> Columns<'a> {
    fn each(self) -> impl Iterator<Item = (&'a Column, &'a ColumnType, &'a LoggedColumn)> {
        self.catalog
            .iter()
            .zip(self.types)
            .zip(self.logged)
            .map(|((column, of), logged)| (column, of, logged))
    }

    fn check(self, columns: u64) -> Result<(), RowsError> {
        let catalog = self.catalog.len();
        for log in [columns, self.logged.len() as u64, self.types.len() as u64] {
            if log != catalog as u64 {
                return Err(RowsError::Columns { catalog, log });
            }
        }
        for (at, (column, column_type, logged)) in self.each().enumerate() {
            if let Some(name) = &logged.name
                && *name != column.name
            {
                let log = String::from_utf8_lossy(name).into_owned();
                return Err(RowsError::Name { number: at + 1, catalog: column.name.clone(), log });
            }
            if let (Some(log), ColumnType::Integer { unsigned, .. }) = (logged.unsigned, column_type)
                && log != *unsigned
            {
                return Err(RowsError::Sign(column.name.clone()));
            }
        }
        Ok(())
    }

    fn present(self, bits: &'a [u8]) -> Result<Present<'a>, RowsError> {
        let mut count = 0;
        for (at, column) in self.catalog.iter().enumerate() {
            if bit(bits, at) {
                count += 1;
            } else if !column.generated {
                return Err(RowsError::Partial(column.name.clone()));
            }
        }
        Ok(Present { bits, count })
    }

    fn row(self, present: Present<'_>, rest: &mut &[u8]) -> Result<Row, RowsError> {
        let null_bytes = present.count.div_ceil(8);
        let short = Malformed::Short { wanted: null_bytes as u64, left: rest.len() };
        let (nulls, cells) = rest.split_at_checked(null_bytes).ok_or(RowsError::Malformed(short))?;
        *rest = cells;
        let mut row = Vec::with_capacity(self.catalog.len());
        // There is a bit only for those that are present.
        let mut null_bits = (0..).map(|at| bit(nulls, at));
        for (at, (column, column_type, logged)) in self.each().enumerate() {
            if !bit(present.bits, at) {
                row.push(Value::Unchanged);
                continue;
            }
            let value = if null_bits.next() == Some(true) {
                Value::Null
            } else {
                value::from_log(column_type, logged.type_byte, logged.metadata, rest)
                    .map_err(|cell| RowsError::Cell { column: column.name.clone(), cell })?
            };
            row.push(if column.generated { Value::Unchanged } else { value });
        }
        Ok(row)
    }
}

/// The log tells a key only without prefixes, and so does the catalog take it for the identity.
fn check_key(map: &TableMap, identity: &Identity) -> Result<(), RowsError> {
    let Some(logged) = &map.primary_key else { return Ok(()) };
    let catalog = match identity {
        Identity::Key { columns, .. } => columns.as_slice(),
        Identity::WholeRow => &[],
    };
    let holds = |at: &usize| logged.contains(&(*at as u64));
    if catalog.len() == logged.len() && catalog.iter().all(holds) { Ok(()) } else { Err(RowsError::Key) }
}

/// The lowest bit of a byte comes first.
fn bit(bits: &[u8], at: usize) -> bool {
    bits.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use model::Kind;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::charset::Charset;
    use crate::column_type::Width;
    use crate::table_map;

    const INT: ColumnType = ColumnType::Integer { width: Width::Int, unsigned: false };

    /// A table with a key in front, whose columns are given as name, type, and whether they are generated.
    struct Shape {
        table: Table,
        types: Vec<ColumnType>,
        map: TableMap,
    }

    fn shape(columns: &[(&str, ColumnType, bool)]) -> Shape {
        let logged: Vec<(u8, &[u8])> = columns
            .iter()
            .map(|(_, column_type, _)| match column_type {
                ColumnType::VarChar { .. } => (15, [20_u8, 0].as_slice()),
                _ => (3, &[] as &[u8]),
            })
            .collect();
        let column = |(name, _, generated): &(&str, ColumnType, bool)| Column {
            name: (*name).to_owned(),
            type_name: String::new(),
            type_id: 0,
            type_modifier: -1,
            number: 0,
            kind: Kind::Native,
            nullable: true,
            generated: *generated,
        };
        Shape {
            table: Table {
                name: TableName::new("shop", "item"),
                source_id: 0,
                columns: columns.iter().map(column).collect(),
                identity: Identity::Key { columns: vec![0], order: None },
                unique: Vec::new(),
                root: None,
                rows_estimate: None,
                bytes: 0,
            },
            types: columns.iter().map(|(_, column_type, _)| column_type.clone()).collect(),
            map: table_map::tests::read(table_map::tests::bytes(&logged, &[])).unwrap(),
        }
    }

    impl Shape {
        fn read(&self, rows: &Rows) -> Result<Vec<Image>, RowsError> {
            Images::new(rows, &self.map, &self.table, &self.types)?.collect()
        }
    }

    fn text() -> ColumnType {
        ColumnType::VarChar { charset: Charset::Utf8 }
    }

    /// `item (id int, name varchar(20), n int)`
    fn items() -> Shape {
        shape(&[("id", INT, false), ("name", text(), false), ("n", INT, false)])
    }

    fn event(kind: RowsKind, columns: u64, present: &[&'static [u8]], images: &[u8]) -> Rows {
        Rows {
            kind,
            table_id: 7,
            ends_statement: true,
            columns,
            present: present.first().copied().unwrap_or_default().into(),
            present_after: present.get(1).copied().unwrap_or_default().into(),
            images: images.to_vec().into(),
        }
    }

    const ONE: &[u8] = b"\xf8\x01\0\0\0\x03one\xff\xff\xff\xff";
    /// `name` is NULL.
    const TWO: &[u8] = b"\xfa\x02\0\0\0\x09\0\0\0";

    fn one() -> Row {
        vec![Value::Integer(1), Value::text("one"), Value::Integer(-1)]
    }

    fn two() -> Row {
        vec![Value::Integer(2), Value::Null, Value::Integer(9)]
    }

    #[test]
    fn each_kind_of_change() {
        let both = [ONE, TWO].concat();
        let update = Image::Update { before: one(), after: two() };
        for (rows, expected) in [
            (event(RowsKind::Write, 3, &[&[7]], &both), vec![Image::Write(one()), Image::Write(two())]),
            (event(RowsKind::Delete, 3, &[&[7]], &both), vec![Image::Delete(one()), Image::Delete(two())]),
            (event(RowsKind::Update, 3, &[&[7], &[7]], &both), vec![update]),
            (event(RowsKind::Write, 3, &[&[7]], b""), vec![]),
            // The bits that are no column's are not looked at.
            (event(RowsKind::Write, 3, &[&[0xff]], ONE), vec![Image::Write(one())]),
        ] {
            assert_eq!(items().read(&rows), Ok(expected), "{rows:?}");
        }
    }

    /// Virtual columns may or may not be in an image, and have a NULL bit only if they are (HAZARDS T05).
    #[test]
    fn a_generated_column_is_not_a_value() {
        let shape = shape(&[("id", INT, false), ("twice", INT, true), ("name", text(), false)]);
        let expected = |name| Ok(vec![Image::Write(vec![Value::Integer(1), Value::Unchanged, name])]);
        for (present, image, name) in [
            (&[5_u8], b"\0\x01\0\0\0\x01a".to_vec(), Value::text("a")),
            (&[5], b"\x02\x01\0\0\0".to_vec(), Value::Null),
            (&[7], b"\0\x01\0\0\0\x02\0\0\0\x01a".to_vec(), Value::text("a")),
            (&[7], b"\x02\x01\0\0\0\x01a".to_vec(), Value::text("a")),
            (&[7], b"\x04\x01\0\0\0\x02\0\0\0".to_vec(), Value::Null),
        ] {
            assert_eq!(
                shape.read(&event(RowsKind::Write, 3, &[present], &image)),
                expected(name),
                "{image:?}"
            );
        }
    }

    #[test]
    fn more_columns_than_a_byte_has_bits() {
        let columns: Vec<_> = (0..9).map(|_| ("c", INT, false)).collect();
        let mut image = vec![0b1111_1110, 0b1111_1111];
        image.extend(5_u32.to_le_bytes());
        let mut row = vec![Value::Null; 9];
        row[0] = Value::Integer(5);
        let rows = event(RowsKind::Write, 9, &[&[0xff, 1]], &image);
        assert_eq!(shape(&columns).read(&rows), Ok(vec![Image::Write(row)]));
    }

    #[test]
    fn a_row_that_is_not_whole_stops_by_name() {
        let cases: &[(RowsKind, &[&'static [u8]])] = &[
            (RowsKind::Write, &[&[5]]),
            (RowsKind::Delete, &[&[5]]),
            (RowsKind::Update, &[&[5], &[7]]),
            (RowsKind::Update, &[&[7], &[5]]),
            (RowsKind::Write, &[&[]]),
        ];
        for (kind, present) in cases {
            let error = items().read(&event(*kind, 3, present, ONE)).unwrap_err();
            assert!(matches!(error, RowsError::Partial(_)), "{error:?}");
            let error = error.during("follow", &TableName::new("shop", "item"));
            assert_eq!(error.kind, ErrorKind::Setup);
            assert!(error.to_string().contains("shop.item"), "{error}");
            assert!(error.hint.unwrap().contains("binlog_row_image"));
        }
    }

    #[test]
    fn a_table_of_another_shape() {
        let rows = event(RowsKind::Write, 3, &[&[7]], ONE);
        let found = |change: fn(&mut Shape)| {
            let mut shape = items();
            change(&mut shape);
            shape.read(&rows).unwrap_err()
        };
        let fewer = found(|shape| drop(shape.map.columns.pop()));
        assert_eq!(fewer, RowsError::Columns { catalog: 3, log: 2 });
        let wider = items().read(&event(RowsKind::Write, 4, &[&[7]], ONE)).unwrap_err();
        assert_eq!(wider, RowsError::Columns { catalog: 3, log: 4 });
        let name = found(|shape| shape.map.columns[1].name = Some("title".into()));
        let expected = RowsError::Name { number: 2, catalog: "name".to_owned(), log: "title".to_owned() };
        assert_eq!(name, expected);
        assert_eq!(
            found(|shape| shape.map.columns[2].unsigned = Some(true)),
            RowsError::Sign("n".to_owned())
        );
        assert_eq!(found(|shape| shape.map.primary_key = Some(vec![0, 1])), RowsError::Key);
        assert_eq!(found(|shape| shape.map.primary_key = Some(vec![1])), RowsError::Key);
        let keyless = found(|shape| {
            shape.map.primary_key = Some(vec![0]);
            shape.table.identity = Identity::WholeRow;
        });
        assert_eq!(keyless, RowsError::Key);
        assert_eq!(keyless.during("follow", &TableName::new("shop", "item")).kind, ErrorKind::Schema);
    }

    #[test]
    fn what_agrees_is_not_contradicted() {
        let mut shape = items();
        for (column, name) in shape.map.columns.iter_mut().zip(["id", "name", "n"]) {
            column.name = Some(name.into());
        }
        shape.map.columns[0].unsigned = Some(false);
        shape.map.primary_key = Some(vec![0]);
        assert_eq!(shape.read(&event(RowsKind::Write, 3, &[&[7]], ONE)), Ok(vec![Image::Write(one())]));
    }

    #[test]
    fn every_beginning_of_a_row_is_refused() {
        for cut in 1..ONE.len() {
            let found = items().read(&event(RowsKind::Write, 3, &[&[7]], &ONE[..cut]));
            let Err(RowsError::Cell { column, cell }) = found else { panic!("{cut}: {found:?}") };
            let error = RowsError::Cell { column, cell }.during("follow", &TableName::new("shop", "item"));
            assert_eq!(error.kind, ErrorKind::Corrupt);
        }
        // The first image of an update without its second.
        let found = items().read(&event(RowsKind::Update, 3, &[&[7], &[7]], ONE));
        assert_eq!(found, Err(RowsError::Malformed(Malformed::Short { wanted: 1, left: 0 })));
    }

    #[test]
    fn an_image_without_columns_comes_to_an_end() {
        let shape = shape(&[("twice", INT, true)]);
        let found = shape.read(&event(RowsKind::Write, 1, &[&[0]], b"abc"));
        assert_eq!(found, Err(RowsError::Malformed(Malformed::Long(3))));
    }

    #[test]
    fn nothing_follows_an_error() {
        // A length of 255 in front of a row that could be read.
        let rows = event(RowsKind::Write, 3, &[&[7]], &[&b"\xf8\x01\0\0\0\xff"[..], ONE].concat());
        let shape = items();
        let mut images = Images::new(&rows, &shape.map, &shape.table, &shape.types).unwrap();
        assert!(images.next().unwrap().is_err());
        assert!(images.next().is_none());
    }

    proptest! {
        /// Whatever it makes of it: it returns.
        #[test]
        fn no_bytes_make_it_panic(
            kind in prop_oneof![Just(RowsKind::Write), Just(RowsKind::Update), Just(RowsKind::Delete)],
            columns in 0..5_u64, first in vec(any::<u8>(), 0..3), second in vec(any::<u8>(), 0..3),
            images in vec(any::<u8>(), 0..60), generated in any::<[bool; 3]>(),
        ) {
            let rows = Rows {
                kind,
                table_id: 7,
                ends_statement: false,
                columns,
                present: first.into(),
                present_after: second.into(),
                images: images.into(),
            };
            let [a, b, c] = generated;
            drop(shape(&[("id", INT, a), ("name", text(), b), ("n", INT, c)]).read(&rows));
        }
    }
}
