//! Where a table's chunks end: after every so many rows in the order of its key.
//!
//! Where we order keys as the server does, the borders make ranges that hold under any cut. Everywhere else only the server can
//! tell what lies between two keys: then the chunks have numbers, and their borders stay with the wave.
//!
//! Such a border is looked for by the first chunk that needs it. So no chunk waits until the whole key has been walked, and what the
//! walk brings into the server's memory is read right after.

use std::sync::Arc;

use async_trait::async_trait;
use connector::{Block, ChunkStream, Error, ErrorKind, Result};
use model::{Key, Range, Table};
use tokio::sync::Mutex;

use crate::column_type::ColumnType;
use crate::key_column::{self, KeyColumn};
use crate::readers::{Readers, Reading, Shape};
use crate::select::Select;

/// Below this a chunk's commit costs more than its rows.
const CHUNK_ROWS_MIN: u64 = 1_000;

pub(crate) struct Walk {
    table: Table,
    types: Arc<[ColumnType]>,
    key: Vec<KeyColumn>,
    /// So many rows up to the next border, that of the border included.
    step: u64,
    borders: Mutex<Borders>,
}

/// As far as they are known, in the order of the key.
#[derive(Default)]
struct Borders {
    found: Vec<Key>,
    /// Fewer rows than a step lie behind the last one.
    ended: bool,
}

/// The rows with keys in `(after, upto]`.
#[derive(Debug, PartialEq)]
struct Stretch {
    after: Option<Key>,
    upto: Option<Key>,
}

/// Whether the server reads the key's index from one key to another.
pub(crate) fn is_walkable(table: &Table, types: &[ColumnType]) -> bool {
    key_column::of(table, types).is_ok_and(|key| key.iter().all(KeyColumn::is_ordered))
}

impl Walk {
    /// In steps of as many rows as fill `bytes`.
    pub(crate) fn new(table: &Table, types: Arc<[ColumnType]>, bytes: u64) -> Result<Walk> {
        // The estimate may be far too low, and InnoDB keeps at most half a page of a row in its place.
        let row_bytes = (table.bytes / table.rows_estimate.unwrap_or(0).max(1)).clamp(32, 8 << 10);
        Ok(Walk {
            key: key_column::of(table, &types)?,
            table: table.clone(),
            types,
            step: (bytes / row_bytes).max(CHUNK_ROWS_MIN),
            borders: Mutex::default(),
        })
    }

    /// Ranges for any cut: the last one ends at `upto`, unless `ranges_max` stopped the walk before.
    pub(crate) async fn keys(
        &self,
        readers: &Readers,
        after: Option<&Key>,
        upto: Option<&Key>,
        ranges_max: usize,
    ) -> Result<Vec<Range>> {
        let (mut ranges, mut from) = (Vec::new(), after.cloned());
        while ranges.len() < ranges_max.max(1) {
            let Some(border) = self.border(readers, from.as_ref(), upto).await? else {
                ranges.push(Range::Keys { after: from, upto: upto.cloned() });
                break;
            };
            ranges.push(Range::Keys { after: from.take(), upto: Some(border.clone()) });
            from = Some(border);
        }
        Ok(ranges)
    }

    /// Ranges for this wave, by number: as many as the rows are by the server's estimate. The last one is open, and takes
    /// what there is beyond it.
    pub(crate) fn numbers(&self) -> Vec<Range> {
        let count = self.table.rows_estimate.unwrap_or(0).div_ceil(self.step);
        match u32::try_from(count).unwrap_or(u32::MAX) {
            0 | 1 => vec![Range::Whole],
            count => (1..count)
                .map(|until| Range::Blocks { from: until - 1, until: Some(until) })
                .chain([Range::Blocks { from: count - 1, until: None }])
                .collect(),
        }
    }

    /// The last key of the step behind `after`; `None` when there are not so many rows up to `upto`.
    async fn border(
        &self,
        readers: &Readers,
        after: Option<&Key>,
        upto: Option<&Key>,
    ) -> Result<Option<Key>> {
        let select = Select::border(&self.table, &self.key, after, upto, self.step)?;
        let shape = Shape {
            types: self.key.iter().map(KeyColumn::selected_type).collect(),
            cells: (0..self.key.len()).collect(),
        };
        let reading = readers.read(&self.table.name, select, shape).await?;
        Ok(reading.only_row().await?.map(Key))
    }

    /// `None` when the rows have ended before.
    async fn stretch(&self, readers: &Readers, number: usize) -> Result<Option<Stretch>> {
        // Whoever waits here has no reader in hand, so that whoever is here gets one in the end.
        let mut borders = self.borders.lock().await;
        while !borders.knows(number) {
            match self.border(readers, borders.found.last(), None).await? {
                Some(border) => borders.found.push(border),
                None => borders.ended = true,
            }
        }
        Ok(borders.stretch(number))
    }

    async fn read(&self, readers: &Readers, stretch: &Stretch) -> Result<Reading> {
        let (after, upto) = (stretch.after.as_ref(), stretch.upto.as_ref());
        let select = Select::within(&self.table, &self.key, after, upto)?;
        readers.read(&self.table.name, select, Shape::of(&self.table, Arc::clone(&self.types))).await
    }

    /// Each border was found by counting rows in the order of the index. If as many lie between two by comparison, and under another
    /// session's snapshot, all of them agree.
    fn agree(&self, stretch: &Stretch, rows: u64) -> Result<()> {
        let is_counted = match stretch.upto {
            Some(_) => rows == self.step,
            None => rows < self.step,
        };
        match is_counted {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Corrupt, "read a chunk")
                .with("table", &self.table.name)
                .with("rows", rows)
                .with("expected", self.step)
                .hint(
                    "rows were changed without being logged (sql_log_bin = 0), or the server compares the key otherwise than it \
                     orders it: run again, and report the types and collations of the key if it comes again",
                )),
        }
    }
}

impl Borders {
    fn knows(&self, stretch: usize) -> bool {
        self.ended || stretch < self.found.len()
    }

    /// Asked only for what is known.
    fn stretch(&self, number: usize) -> Option<Stretch> {
        let upto = self.found.get(number).cloned();
        let after = number.checked_sub(1).map(|before| self.found.get(before).cloned());
        match after {
            None => Some(Stretch { after: None, upto }),
            Some(None) => None,
            Some(after) => Some(Stretch { after, upto }),
        }
    }
}

/// The stretches `[next, until)`, one after the other, each of them behind a savepoint of its own.
pub(crate) struct Stretches {
    readers: Readers,
    walk: Arc<Walk>,
    next: usize,
    until: Option<usize>,
    reading: Option<(Stretch, Reading)>,
    /// Of the stretches that were read to the end.
    rows: u64,
}

impl Stretches {
    pub(crate) fn new(readers: Readers, walk: Arc<Walk>, from: u32, until: Option<u32>) -> Stretches {
        let until = until.map(|until| until as usize);
        Stretches { readers, walk, next: from as usize, until, reading: None, rows: 0 }
    }
}

#[async_trait]
impl ChunkStream for Stretches {
    async fn next(&mut self) -> Result<Option<Block>> {
        loop {
            if let Some((stretch, reading)) = &mut self.reading {
                if let Some(block) = reading.next().await? {
                    return Ok(Some(block));
                }
                self.walk.agree(stretch, reading.rows())?;
                self.rows += reading.rows();
                self.reading = None;
            }
            if self.until == Some(self.next) {
                return Ok(None);
            }
            let Some(stretch) = self.walk.stretch(&self.readers, self.next).await? else { return Ok(None) };
            let reading = self.walk.read(&self.readers, &stretch).await?;
            self.reading = Some((stretch, reading));
            self.next += 1;
        }
    }

    fn rows(&self) -> u64 {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use model::Value;

    use super::*;
    use crate::key_column::tests::table;

    const TEXT: &str = "varchar(9) charset utf8mb4 collate utf8mb4_general_ci";

    fn key(number: i64) -> Key {
        Key(vec![Value::Integer(number)])
    }

    fn walk(rows: Option<u64>, bytes: u64, chunk_bytes: u64) -> Walk {
        let (mut table, types) = table(&[("k", TEXT)]);
        (table.rows_estimate, table.bytes) = (rows, bytes);
        Walk::new(&table, types, chunk_bytes).unwrap()
    }

    #[test]
    fn there_are_as_many_numbers_as_the_estimate_asks_for() {
        let block = |from, until| Range::Blocks { from, until };
        for (rows, bytes, chunk_bytes, step, ranges) in [
            (None, 0, 8 << 20, 262_144, vec![Range::Whole]),
            (Some(0), 16_384, 8 << 20, 1_024, vec![Range::Whole]),
            (Some(1_000), 100_000, 1, 1_000, vec![Range::Whole]),
            (Some(1_001), 100_000, 1, 1_000, vec![block(0, Some(1)), block(1, None)]),
            (
                Some(100_000),
                10_000_000,
                4_000_000,
                40_000,
                vec![block(0, Some(1)), block(1, Some(2)), block(2, None)],
            ),
        ] {
            let walk = walk(rows, bytes, chunk_bytes);
            assert_eq!(walk.step, step.max(CHUNK_ROWS_MIN), "{rows:?}");
            assert_eq!(walk.numbers(), ranges, "{rows:?}");
        }
    }

    #[test]
    fn a_stretch_lies_between_two_borders() {
        let stretch = |after: Option<i64>, upto: Option<i64>| {
            Some(Stretch { after: after.map(key), upto: upto.map(key) })
        };
        let borders =
            |found: &[i64], ended| Borders { found: found.iter().copied().map(key).collect(), ended };
        let two = borders(&[10, 20], false);
        assert_eq!([0, 1, 2].map(|number| two.knows(number)), [true, true, false]);
        assert_eq!(
            [0, 1].map(|number| two.stretch(number)),
            [stretch(None, Some(10)), stretch(Some(10), Some(20))]
        );
        let ended = borders(&[10, 20], true);
        assert!(ended.knows(3));
        assert_eq!([2, 3, 4].map(|number| ended.stretch(number)), [stretch(Some(20), None), None, None]);
        let empty = borders(&[], true);
        assert_eq!([0, 1, 2].map(|number| empty.stretch(number)), [stretch(None, None), None, None]);
    }

    #[test]
    fn a_stretch_of_other_rows_than_were_counted_is_refused() {
        let walk = walk(Some(5_000), 100_000, 1);
        let bounded = Stretch { after: None, upto: Some(key(1)) };
        let open = Stretch { after: Some(key(1)), upto: None };
        for (stretch, rows, agree) in [
            (&bounded, 1_000, true),
            (&bounded, 999, false),
            (&bounded, 1_001, false),
            (&open, 0, true),
            (&open, 999, true),
            (&open, 1_000, false),
        ] {
            assert_eq!(walk.agree(stretch, rows).is_ok(), agree, "{rows} of {stretch:?}");
        }
    }

    #[test]
    fn a_key_is_walked_where_its_index_is_read_in_parts() {
        let enum_of = |count: usize| {
            let labels: Vec<String> = (0..count).map(|label| format!("'{label}'")).collect();
            format!("enum({}) charset utf8mb4 collate utf8mb4_general_ci", labels.join(","))
        };
        for (type_name, walkable) in
            [(TEXT, true), ("uuid", true), (&enum_of(255), true), (&enum_of(256), false)]
        {
            let (table, types) = table(&[("n", "int(11)"), ("k", type_name)]);
            assert_eq!(is_walkable(&table, &types), walkable, "{type_name:.20}");
        }
        let (mut table, types) = table(&[("n", "int(11)")]);
        table.identity = model::Identity::WholeRow;
        assert!(!is_walkable(&table, &types));
    }
}
