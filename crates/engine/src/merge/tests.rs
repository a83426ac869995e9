use bytes::Bytes;
use model::{Chunk, Column, Identity, Kind, Position, Snapshot, Value};

use super::*;

pub(crate) fn table(name: &str, columns: &[&str], key: Option<&[&str]>) -> Table {
    let at = |wanted: &&str| columns.iter().position(|column| column == wanted).unwrap();
    Table {
        source_id: 0,
        name: TableName::new("public", name),
        columns: columns
            .iter()
            .map(|column| Column {
                name: (*column).to_owned(),
                type_name: "text".to_owned(),
                type_id: 25,
                type_modifier: -1,
                number: 0,
                kind: Kind::Text,
                nullable: true,
                generated: false,
            })
            .collect(),
        identity: match key {
            Some(key) => Identity::Key {
                columns: key.iter().map(at).collect(),
                order: Some(key.iter().map(|_| KeyOrder::Integer).collect()),
            },
            None => Identity::WholeRow,
        },
        unique: Vec::new(),
        root: None,
        rows_estimate: None,
        bytes: 0,
    }
}

fn snapshot(text: &str) -> Cut {
    Cut::Snapshot(Snapshot::parse(text).unwrap())
}

fn row(cells: &[&str]) -> Row {
    cells.iter().map(|cell| if *cell == "~" { Value::Unchanged } else { Value::text(*cell) }).collect()
}

fn key(cell: &str) -> Key {
    Key(vec![Value::text(cell)])
}

fn tx(id: u64) -> Transaction {
    Transaction { seq: 1, id, order: 0, committed_us: 0 }
}

/// Two ranges of table t(id, v): keys up to 100 read under 10:10:, later ones under 20:20:.
fn two_cuts() -> (Catalog, Cuts) {
    let catalog = Catalog { tables: vec![table("t", &["id", "v"], Some(&["id"]))] };
    let loaded = |number, after: Option<&str>, upto: Option<&str>, cut: &str| Loaded {
        chunk: Chunk {
            table: catalog.tables[0].name.clone(),
            number,
            range: Range::Keys { after: after.map(key), upto: upto.map(key) },
            last: upto.is_none(),
        },
        cut: snapshot(cut),
        settled: Position { order: 0, text: String::new() },
        rows: 0,
        bytes: 0,
        checksum: 0,
    };
    let chunks = [loaded(1, Some("100"), None, "20:20:"), loaded(0, None, Some("100"), "10:10:")];
    let cuts = Cuts::new(&catalog, &chunks, []).unwrap();
    (catalog, cuts)
}

fn decide(cuts: &Cuts, catalog: &Catalog, id: u64, change: Change) -> Decision {
    cuts.decide(&tx(id), change, &catalog.tables).unwrap()
}

#[test]
fn a_change_is_skipped_exactly_when_its_rows_cut_contains_it() {
    let (catalog, cuts) = two_cuts();
    let insert = |id: &str| Change::Insert { relation: 0, new: row(&[id, "x"]) };
    for (id, transaction, skipped) in [
        ("1", 9, true),
        ("1", 10, false),
        ("100", 10, false),
        ("101", 10, true),
        ("101", 19, true),
        ("101", 20, false),
    ] {
        let decision = decide(&cuts, &catalog, transaction, insert(id));
        assert_eq!(decision == Decision::Skip, skipped, "key {id}, transaction {transaction}");
    }
}

/// Rows that move between chunks, by which of the two cuts contain the move.
#[test]
fn a_row_that_moves_between_cuts_is_neither_lost_nor_doubled() {
    let (catalog, cuts) = two_cuts();
    let change =
        |from: &str, to: &[&str]| Change::Update { relation: 0, old: Some(row(&[from, "~"])), new: row(to) };
    // Upwards, 1 → 200: the old place has the older cut.
    assert_eq!(decide(&cuts, &catalog, 9, change("1", &["200", "v"])), Decision::Skip);
    assert_eq!(
        decide(&cuts, &catalog, 15, change("1", &["200", "v"])),
        Decision::Apply(RowChange::Delete { table: 0, key: key("1") })
    );
    assert_eq!(
        decide(&cuts, &catalog, 25, change("1", &["200", "~"])),
        Decision::Apply(RowChange::Update { table: 0, key: key("1"), row: row(&["200", "~"]) })
    );
    // Downwards, 200 → 1: the new place has the older cut.
    assert_eq!(
        decide(&cuts, &catalog, 15, change("200", &["1", "v"])),
        Decision::Apply(RowChange::Insert { table: 0, row: row(&["1", "v"]) })
    );
    assert_eq!(
        decide(&cuts, &catalog, 15, change("200", &["1", "~"])),
        Decision::Fetch { table: 0, key: key("1") }
    );
}

#[test]
fn a_fetched_rows_own_cut_stands_in_place_of_its_chunks() {
    let (catalog, mut cuts) = two_cuts();
    let moved = || Change::Update { relation: 0, old: Some(row(&["200", "~"])), new: row(&["1", "~"]) };
    cuts.fetched(0, key("1"), snapshot("16:16:"));
    assert_eq!(decide(&cuts, &catalog, 15, moved()), Decision::Skip);
    let update = || Change::Update { relation: 0, old: None, new: row(&["1", "w"]) };
    assert_eq!(decide(&cuts, &catalog, 15, update()), Decision::Skip);
    assert_ne!(decide(&cuts, &catalog, 16, update()), Decision::Skip);
}

#[test]
fn truncate_empties_only_the_rows_whose_cut_does_not_contain_it() {
    let (catalog, mut cuts) = two_cuts();
    let truncate = || Change::Truncate { relations: vec![0], restart_identity: false };
    assert_eq!(decide(&cuts, &catalog, 9, truncate()), Decision::Skip);
    let lower = |except| {
        Decision::Bulk(vec![Step::DeleteRange { table: 0, after: None, upto: Some(key("100")), except }])
    };
    assert_eq!(decide(&cuts, &catalog, 15, truncate()), lower(vec![]));
    assert_eq!(
        decide(&cuts, &catalog, 25, truncate()),
        Decision::Bulk(vec![Step::Truncate { tables: vec![0], restart_identity: false }])
    );
    cuts.fetched(0, key("1"), snapshot("16:16:"));
    assert_eq!(decide(&cuts, &catalog, 15, truncate()), lower(vec![key("1")]));
}

#[test]
fn a_key_that_cannot_be_ordered_stops() {
    let (catalog, cuts) = two_cuts();
    let change = Change::Insert { relation: 0, new: row(&["one", "x"]) };
    assert!(matches!(cuts.decide(&tx(15), change, &catalog.tables), Err(Error::KeyOrder { .. })));
}

#[test]
fn cuts_of_a_table_that_is_not_wholly_loaded_are_refused() {
    let (catalog, _) = two_cuts();
    assert!(matches!(Cuts::new(&catalog, &[], []), Err(Error::Incomplete { .. })));
}

#[test]
fn a_table_without_a_key_follows_its_one_cut() {
    let catalog = Catalog { tables: vec![table("log", &["line"], None)] };
    let chunk = Loaded {
        chunk: Chunk { table: catalog.tables[0].name.clone(), number: 0, range: Range::Whole, last: true },
        cut: snapshot("10:12:10"),
        settled: Position { order: 0, text: String::new() },
        rows: 0,
        bytes: 0,
        checksum: 0,
    };
    let cuts = Cuts::new(&catalog, &[chunk], []).unwrap();
    let delete = || Change::Delete { relation: 0, old: vec![Value::Text(Bytes::from_static(b"x"))] };
    assert_eq!(decide(&cuts, &catalog, 11, delete()), Decision::Skip);
    assert_eq!(
        decide(&cuts, &catalog, 10, delete()),
        Decision::Apply(RowChange::DeleteWhole { table: 0, old: row(&["x"]) })
    );
}
