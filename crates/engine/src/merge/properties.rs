//! The lookup of a row's cut against asking every range in turn, and what follows from it for each kind of change.

use std::ops;

use connector::{RowChange, Step};
use model::{Cut, Identity, Loaded, Snapshot, Value};
use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::table;
use super::*;
use crate::plan::properties::{KEYS, ORDER, key, loaded, ranges, within};

/// Transactions are told apart by these few ids. Rows are fetched alone after all chunks were read, so their cuts
/// contain all that the chunks' cuts do, and `TRUNCATE` relies on it.
const READ: ops::Range<u64> = 0..6;
const FETCHED: ops::Range<u64> = 6..12;

fn cut(ids: ops::Range<u64>) -> impl Strategy<Value = Cut> {
    prop_oneof![
        ids.clone().prop_map(|order| Cut::Prefix { order }),
        (ids.clone(), vec(ids, 0..4)).prop_map(|(xmax, mut xip)| {
            xip.retain(|id| *id < xmax);
            xip.sort_unstable();
            let xmin = xip.first().copied().unwrap_or(xmax);
            Cut::Snapshot(Snapshot { xmin, xmax, xip })
        }),
    ]
}

/// `t (n, c, v)` with the key `(n, c)`.
fn catalog() -> Catalog {
    let mut table = table("t", &["n", "c", "v"], Some(&["n", "c"]));
    table.identity = Identity::Key { columns: vec![0, 1], order: Some(ORDER.to_vec()) };
    Catalog { tables: vec![table] }
}

fn row(key: &Key, v: &str) -> Row {
    let last = if v == "~" { Value::Unchanged } else { Value::text(v) };
    key.0.iter().cloned().chain([last]).collect()
}

/// As slow and as plain as can be.
fn seen(key: &Key, chunks: &[Loaded], rows: &[(Key, Cut)], tx: &Transaction) -> bool {
    // The last one that was fetched counts.
    if let Some((_, cut)) = rows.iter().rev().find(|(fetched, _)| fetched == key) {
        return cut.contains(tx);
    }
    let holding = chunks.iter().find(|chunk| match &chunk.chunk.range {
        Range::Keys { after, upto } => within(key, after.as_ref(), upto.as_ref()),
        Range::Blocks { .. } | Range::Whole => unreachable!(),
    });
    holding.unwrap().cut.contains(tx)
}

/// Which of these keys a step removes.
fn emptied(steps: &[Step], key: &Key) -> bool {
    steps.iter().any(|step| match step {
        Step::Truncate { .. } => true,
        Step::DeleteRange { after, upto, except, .. } => {
            within(key, after.as_ref(), upto.as_ref()) && !except.contains(key)
        }
        Step::Net(_) | Step::Ordered(_) => unreachable!(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_change_is_judged_by_the_cut_of_its_row(
        ranges in ranges(),
        cuts in vec(cut(READ), 9),
        fetched in vec((0..KEYS, cut(FETCHED)), 0..4),
        id in READ.start..FETCHED.end,
    ) {
        let catalog = catalog();
        let chunks: Vec<Loaded> =
            ranges.into_iter().zip(cuts).enumerate().map(|(at, (range, cut))| loaded(range, at, cut)).collect();
        let rows: Vec<(Key, Cut)> = fetched.into_iter().map(|(number, cut)| (key(number), cut)).collect();
        let mut cuts = Cuts::new(&catalog, &chunks, []).unwrap();
        for (key, cut) in &rows {
            cuts.fetched(0, key.clone(), cut.clone());
        }
        let tx = Transaction { seq: 1, id, order: id, committed_us: 0 };
        let decide = |change| cuts.decide(&tx, change, &catalog.tables).unwrap();
        let seen = |number| seen(&key(number), &chunks, &rows, &tx);

        let all = (0..=KEYS).map(|number| row(&key(number), "v"));
        for (number, new) in all.enumerate() {
            let change = Change::Insert { relation: 0, new: new.clone() };
            prop_assert_eq!(decide(change) == Decision::Skip, seen(number));
            let change = Change::Delete { relation: 0, old: new };
            prop_assert_eq!(decide(change) == Decision::Skip, seen(number));
            let to = (number * 7 + 5) % (KEYS + 1);
            for v in ["v", "~"] {
                let new = row(&key(to), v);
                let change = Change::Update { relation: 0, old: Some(row(&key(number), "~")), new: new.clone() };
                let expected = match (seen(number), seen(to)) {
                    (true, true) => Decision::Skip,
                    (false, false) => Decision::Apply(RowChange::Update { table: 0, key: key(number), row: new }),
                    (false, true) => Decision::Apply(RowChange::Delete { table: 0, key: key(number) }),
                    (true, false) if v == "~" => Decision::Fetch { table: 0, key: key(to) },
                    (true, false) => Decision::Apply(RowChange::Insert { table: 0, row: new }),
                };
                prop_assert_eq!(decide(change), expected, "{} → {}", number, to);
            }
        }

        let steps = match decide(Change::Truncate { relations: vec![0], restart_identity: false }) {
            Decision::Skip => Vec::new(),
            Decision::Bulk(steps) => steps,
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        for number in 0..=KEYS {
            prop_assert_eq!(emptied(&steps, &key(number)), !seen(number), "{}: {:?}", number, steps);
        }
    }
}
