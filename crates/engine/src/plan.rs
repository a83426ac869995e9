//! The chunk plan: which ranges of a table are still to be copied. Pure.

use std::cmp::Ordering;
use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use model::{Catalog, Key, KeyOrder, Loaded, Range, Table, TableName, mutant};

/// A stretch of keys, `(after, upto]`, that no chunk on record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub after: Option<Key>,
    pub upto: Option<Key>,
}

/// Orders lower bounds; the open one comes first.
pub fn compare_after(a: Option<&Key>, b: Option<&Key>, order: &[KeyOrder]) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        // Bounds were written by this program from keys that it could order.
        (Some(a), Some(b)) => a.compare(b, order).unwrap_or(Ordering::Equal),
    }
}

/// What is missing of a table that is copied by key ranges. Chunks may have been loaded in any order, so a crash
/// leaves holes, and each hole is one gap whatever it was planned as.
pub fn gaps(loaded: &[&Loaded], order: &[KeyOrder]) -> Vec<Gap> {
    let mut ranges: Vec<(&Option<Key>, &Option<Key>)> = loaded
        .iter()
        .filter_map(|loaded| match &loaded.chunk.range {
            Range::Keys { after, upto } => Some((after, upto)),
            Range::Blocks { .. } | Range::Whole => None,
        })
        .collect();
    ranges.sort_by(|a, b| compare_after(a.0.as_ref(), b.0.as_ref(), order));
    let mut gaps = Vec::new();
    let mut covered: Option<Option<Key>> = Some(None);
    for (after, upto) in ranges {
        if let Some(until) = &covered
            && until != after
            && !mutant::on(mutant::PLAN_OVERLOOKS_HOLE)
        {
            gaps.push(Gap { after: until.clone(), upto: after.clone() });
        }
        covered = upto.as_ref().map(|key| Some(key.clone()));
    }
    if let Some(after) = covered {
        gaps.push(Gap { after, upto: None });
    }
    gaps
}

/// The chunks of each table.
pub fn by_table(ledger: &[Loaded]) -> HashMap<&TableName, Vec<&Loaded>> {
    let mut by_table: HashMap<_, Vec<&Loaded>> = HashMap::new();
    for loaded in ledger {
        by_table.entry(&loaded.chunk.table).or_default().push(loaded);
    }
    by_table
}

/// The tables, by catalog index, that the chunks on record do not hold as a whole.
pub fn incomplete(catalog: &Catalog, ledger: &[Loaded]) -> Vec<usize> {
    let by_table = by_table(ledger);
    (0..catalog.tables.len())
        .filter(|&at| {
            let table = &catalog.tables[at];
            !is_complete(table, by_table.get(&table.name).map_or(&[], Vec::as_slice))
        })
        .collect()
}

/// Tells one set of chunks from another, whatever order they are in.
pub fn fingerprint(ledger: &[Loaded]) -> u64 {
    let one = |loaded: &Loaded| xxh3_64(format!("{loaded:?}").as_bytes());
    ledger.iter().map(one).fold(0, u64::wrapping_add)
}

/// Whether the chunks of one table fit together: blocks of one cut, or key ranges that do not overlap. A target that was
/// put back in the middle of a wave has others, however well they are numbered, and such a table must begin again.
pub fn fit_together(table: &Table, loaded: &[&Loaded]) -> bool {
    if mutant::on(mutant::PLAN_MIXES_CUTS) {
        return true;
    }
    let bounds = |loaded: &&Loaded| match &loaded.chunk.range {
        Range::Keys { after, upto } => Some((after.clone(), upto.clone())),
        Range::Blocks { .. } | Range::Whole => None,
    };
    let mut ranges: Vec<(Option<Key>, Option<Key>)> = loaded.iter().filter_map(bounds).collect();
    if ranges.is_empty() {
        return loaded.iter().all(|other| other.cut == loaded[0].cut);
    }
    let Some(order) = table.key_order().filter(|_| ranges.len() == loaded.len()) else { return false };
    ranges.sort_by(|a, b| compare_after(a.0.as_ref(), b.0.as_ref(), order));
    ranges.windows(2).all(|pair| {
        let ends = pair[0].1.as_ref();
        ends.is_some() && compare_after(ends, pair[1].0.as_ref(), order).is_le()
    })
}

/// Whether the chunks on record hold the whole table.
pub fn is_complete(table: &Table, loaded: &[&Loaded]) -> bool {
    if loaded.is_empty() || !fit_together(table, loaded) {
        return false;
    }
    if loaded.iter().any(|loaded| matches!(loaded.chunk.range, Range::Keys { .. })) {
        return table.key_order().is_some_and(|order| gaps(loaded, order).is_empty());
    }
    let Some(last) = loaded.iter().find(|loaded| loaded.chunk.last) else {
        return false;
    };
    let mut numbers: Vec<u32> = loaded.iter().map(|loaded| loaded.chunk.number).collect();
    numbers.sort_unstable();
    numbers.into_iter().eq(0..=last.chunk.number)
}

#[cfg(test)]
pub(crate) mod properties;

#[cfg(test)]
mod tests {
    use model::{Chunk, Cut, Position, TableName, Value};

    use super::*;

    fn key(number: i64) -> Key {
        Key(vec![Value::Integer(number)])
    }

    fn loaded(range: Range, number: u32, last: bool) -> Loaded {
        Loaded {
            chunk: Chunk { table: TableName::new("public", "t"), number, range, last },
            cut: Cut::Prefix { order: 1 },
            settled: Position { order: 1, text: "1".into() },
            rows: 0,
            bytes: 0,
            checksum: 0,
        }
    }

    fn keys(after: Option<i64>, upto: Option<i64>) -> Loaded {
        loaded(Range::Keys { after: after.map(key), upto: upto.map(key) }, 0, upto.is_none())
    }

    #[test]
    fn holes_between_key_ranges_are_found_whatever_order_they_were_loaded_in() {
        let gap = |after: Option<i64>, upto: Option<i64>| Gap { after: after.map(key), upto: upto.map(key) };
        for (ranges, missing) in [
            (vec![], vec![gap(None, None)]),
            (vec![keys(None, None)], vec![]),
            (vec![keys(None, Some(9))], vec![gap(Some(9), None)]),
            (vec![keys(Some(9), Some(20)), keys(None, Some(9))], vec![gap(Some(20), None)]),
            (vec![keys(Some(10), None), keys(None, Some(9))], vec![gap(Some(9), Some(10))]),
            (vec![keys(Some(30), Some(40))], vec![gap(None, Some(30)), gap(Some(40), None)]),
        ] {
            let references: Vec<&Loaded> = ranges.iter().collect();
            assert_eq!(gaps(&references, &[KeyOrder::Integer]), missing, "{ranges:?}");
        }
    }

    #[test]
    fn chunks_of_two_copies_do_not_fit_together() {
        let table = crate::merge::tests::table("t", &["id"], Some(&["id"]));
        let blocks = |cut: u64| Loaded {
            cut: Cut::Prefix { order: cut },
            ..loaded(Range::Blocks { from: 0, until: None }, 0, true)
        };
        for (chunks, fit) in [
            (vec![keys(None, Some(9)), keys(Some(9), None)], true),
            (vec![keys(Some(20), None), keys(None, Some(9))], true),
            (vec![keys(None, Some(9)), keys(Some(5), None)], false),
            (vec![keys(None, None), keys(None, Some(9))], false),
            (vec![keys(None, None), blocks(1)], false),
            (vec![blocks(1), blocks(1)], true),
            (vec![blocks(1), blocks(2)], false),
        ] {
            let references: Vec<&Loaded> = chunks.iter().collect();
            assert_eq!(fit_together(&table, &references), fit, "{chunks:?}");
        }
    }

    #[test]
    fn block_ranges_are_complete_with_the_last_and_all_before_it() {
        let table = crate::merge::tests::table("t", &["id"], Some(&["id"]));
        let block = |number: u32, last: bool| {
            loaded(Range::Blocks { from: number, until: (!last).then_some(number + 1) }, number, last)
        };
        for (chunks, complete) in [
            (vec![], false),
            (vec![block(0, true)], true),
            (vec![block(0, false)], false),
            (vec![block(2, true), block(0, false)], false),
            (vec![block(2, true), block(0, false), block(1, false)], true),
        ] {
            let references: Vec<&Loaded> = chunks.iter().collect();
            assert_eq!(is_complete(&table, &references), complete, "{chunks:?}");
        }
    }
}
