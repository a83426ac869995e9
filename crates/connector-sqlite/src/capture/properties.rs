//! A change log that holds anything at all: whoever can write to the file can write to the log.

use model::{Column, Identity, Kind, TableName};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::value::Bound;

fn cell() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        // SQLite stores NaN as NULL.
        any::<f64>().prop_filter("no NaN", |real| !real.is_nan()).prop_map(Value::Real),
        vec(any::<u8>(), 0..8).prop_map(|bytes| Value::Text(bytes.into())),
        vec(any::<u8>(), 0..8).prop_map(|bytes| Value::Blob(bytes.into())),
    ]
}

/// Mostly what triggers write.
fn word(words: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop_oneof![20 => proptest::sample::select(words).prop_map(Value::text), 1 => cell()]
}

fn entry() -> impl Strategy<Value = Vec<Value>> {
    (word(&["keyed", "plain", "other"]), word(&["I", "U", "D"]), vec(cell(), CELLS))
        .prop_map(|(table, op, cells)| [vec![table, op], cells].concat())
}

/// `keyed` has one old cell and two new ones, `plain` two and two.
const CELLS: usize = 4;

fn tables() -> Tables {
    let column = |name: &str| Column {
        name: name.to_owned(),
        type_name: String::new(),
        type_id: 0,
        type_modifier: -1,
        number: 0,
        kind: Kind::Native,
        nullable: true,
        generated: false,
    };
    let table = |name: &str, identity| Table {
        source_id: 0,
        name: TableName::new("main", name),
        columns: vec![column("a"), column("b")],
        identity,
        unique: Vec::new(),
        root: None,
        rows_estimate: None,
        bytes: 0,
    };
    let tables = vec![
        table("keyed", Identity::Key { columns: vec![1], order: None }),
        table("plain", Identity::WholeRow),
    ];
    Tables::new(&Catalog { tables })
}

/// What an entry says, by the description of the log.
fn said(entry: &[Value]) -> Option<(usize, Change)> {
    let (cells, table) = (&entry[2..], [Value::text("keyed"), Value::text("plain")].into_iter());
    let table = table.zip(0..).find_map(|(name, at)| (name == entry[0]).then_some(at))?;
    let (relation, keyed) = (table as u32, table == 0);
    let old = if keyed { vec![Value::Unchanged, cells[0].clone()] } else { cells[..2].to_vec() };
    let change = match &entry[1] {
        Value::Text(op) if op == "I" => Change::Insert { relation, new: cells[..2].to_vec() },
        Value::Text(op) if op == "D" => Change::Delete { relation, old },
        Value::Text(op) if op == "U" => {
            let new = if keyed { cells[1..3].to_vec() } else { cells[2..4].to_vec() };
            let same_key = keyed && old[1] == new[1];
            Change::Update { relation, old: (!same_key).then_some(old), new }
        }
        _ => panic!("read {entry:?}"),
    };
    Some((table, change))
}

proptest! {
    #[test]
    fn what_is_read_is_what_is_there(entries in vec(entry(), 0..20)) {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE _crossfade_log (seq INTEGER PRIMARY KEY, tbl, op, c0, c1, c2, c3)").unwrap();
        for entry in &entries {
            connection
                .execute(
                    "INSERT INTO _crossfade_log (tbl, op, c0, c1, c2, c3) VALUES (?, ?, ?, ?, ?, ?)",
                    rusqlite::params_from_iter(entry.iter().map(Bound)),
                )
                .unwrap();
        }
        let text = |value: &Value| matches!(value, Value::Text(text) if std::str::from_utf8(text).is_ok());
        let known = |op: &Value| ["I", "U", "D"].map(Value::text).contains(op);
        let of_ours = |entry: &[Value]| ["keyed", "plain"].map(Value::text).contains(&entry[0]);
        let good = entries.iter().all(|entry| text(&entry[0]) && (!of_ours(entry) || known(&entry[1])));
        let end = entries.len() as u64;
        match read_page(&mut connection, &tables(), 0, end) {
            Ok(page) => {
                prop_assert!(good, "{:?}", entries);
                prop_assert_eq!(page.done, end);
                prop_assert_eq!(page.changes, entries.iter().filter_map(|entry| said(entry)).collect::<Vec<_>>());
            }
            Err(error) => prop_assert!(!good, "{error}"),
        }
    }
}
