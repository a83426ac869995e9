//! The gaps of a plan against asking every key.

use model::{Chunk, Cut, Loaded, Position, TableName, Value};
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;

/// Keys of two columns that are in order as their numbers are: `(8, a) (8, b) (8, c) (9, a) … (10, a) …`.
pub(crate) fn key(number: usize) -> Key {
    Key(vec![Value::text((8 + number / 3).to_string()), Value::text(["a", "b", "c"][number % 3])])
}

pub(crate) const ORDER: [KeyOrder; 2] = [KeyOrder::Integer, KeyOrder::Bytes];

/// Keys that are asked for; bounds lie among them.
pub(crate) const KEYS: usize = 16;

/// A table cut into key ranges at random places, in a random order of loading.
pub(crate) fn ranges() -> impl Strategy<Value = Vec<Range>> {
    subsequence((0..KEYS).collect::<Vec<_>>(), 0..8).prop_flat_map(|bounds| {
        let bounds = || bounds.iter().map(|&bound| Some(key(bound)));
        let lower = std::iter::once(None).chain(bounds());
        let ranges: Vec<Range> =
            lower.zip(bounds().chain([None])).map(|(after, upto)| Range::Keys { after, upto }).collect();
        Just(ranges).prop_shuffle()
    })
}

pub(crate) fn loaded(range: Range, number: usize, cut: Cut) -> Loaded {
    let last = matches!(range, Range::Keys { upto: None, .. });
    Loaded {
        chunk: Chunk { table: TableName::new("public", "t"), number: number as u32, range, last },
        cut,
        settled: Position { order: 0, text: String::new() },
        rows: 0,
        bytes: 0,
        checksum: 0,
    }
}

/// Whether a key is in `(after, upto]`.
pub(crate) fn within(key: &Key, after: Option<&Key>, upto: Option<&Key>) -> bool {
    let compare = |bound: &Key| key.compare(bound, &ORDER).unwrap();
    after.is_none_or(|after| compare(after).is_gt()) && upto.is_none_or(|upto| compare(upto).is_le())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_key_is_loaded_or_in_one_gap(ranges in ranges(), kept in any::<[bool; 9]>()) {
        let chunks: Vec<Loaded> = ranges
            .into_iter()
            .zip(kept)
            .enumerate()
            .filter(|(_, (_, kept))| *kept)
            .map(|(number, (range, _))| loaded(range, number, Cut::Prefix { order: 0 }))
            .collect();
        let found = gaps(&chunks.iter().collect::<Vec<_>>(), &ORDER);
        for number in 0..=KEYS {
            let key = key(number);
            let holds = |chunk: &Loaded| match &chunk.chunk.range {
                Range::Keys { after, upto } => within(&key, after.as_ref(), upto.as_ref()),
                Range::Blocks { .. } | Range::Whole => unreachable!(),
            };
            let in_chunks = chunks.iter().filter(|chunk| holds(chunk)).count();
            let in_gaps = found.iter().filter(|gap| within(&key, gap.after.as_ref(), gap.upto.as_ref())).count();
            prop_assert_eq!(in_chunks + in_gaps, 1, "{}: {:?}", key, found);
        }
        // Two gaps in a row would be read as two chunks where one will do.
        for pair in found.windows(2) {
            prop_assert!(pair[0].upto != pair[1].after, "{:?}", found);
        }
    }
}
