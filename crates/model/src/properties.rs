//! Text that comes back from a database or a file, against the forms that it is written in.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{Cut, Key, Snapshot, Value};

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(Value::Unchanged),
        vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Text(bytes.into())),
        any::<String>().prop_map(Value::text),
        any::<i64>().prop_map(Value::Integer),
        any::<u64>().prop_map(|bits| Value::Real(f64::from_bits(bits))),
        vec(any::<u8>(), 0..100).prop_map(|bytes| Value::Blob(bytes.into())),
    ]
}

proptest! {
    #[test]
    fn a_stored_key_comes_back_exactly(values in vec(value(), 0..4)) {
        let key = Key(values);
        let stored = serde_json::to_string(&key).unwrap();
        prop_assert_eq!(serde_json::from_str::<Key>(&stored).unwrap(), key);
    }

    /// What is read is written again as it was, but for the case of a digit and what JSON leaves open.
    #[test]
    fn no_stored_value_is_misread(text in "\\{\"(text|raw_text|integer|real|blob)\":[ ]?(\"[0-9a-fA-Fxé]{0,6}\"|-?[0-9]{1,20}|null)\\}") {
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            let again = serde_json::to_value(&value).unwrap();
            let given: serde_json::Value = serde_json::from_str(&text.to_lowercase()).unwrap();
            let lower: serde_json::Value = serde_json::from_str(&again.to_string().to_lowercase()).unwrap();
            // Hexadecimal of what is UTF-8 after all is text from then on.
            let readable = given.get("raw_text").is_some() && again.get("text").is_some();
            prop_assert!(readable || lower == given, "{} became {}", text, again);
        }
    }

    #[test]
    fn a_snapshot_is_read_as_it_is_printed(xmin in any::<u64>(), xmax in any::<u64>(), xip in vec(any::<u64>(), 0..5)) {
        let list: Vec<String> = xip.iter().map(u64::to_string).collect();
        let snapshot = Snapshot::parse(&format!("{xmin}:{xmax}:{}", list.join(","))).unwrap();
        let mut sorted = xip;
        sorted.sort_unstable();
        prop_assert_eq!(&snapshot, &Snapshot { xmin, xmax, xip: sorted });
        let stored = serde_json::to_string(&Cut::Snapshot(snapshot.clone())).unwrap();
        prop_assert_eq!(serde_json::from_str::<Cut>(&stored).unwrap(), Cut::Snapshot(snapshot));
    }

    /// The whole of a large value is never shown, and no content breaks the showing.
    #[test]
    fn a_large_value_is_shown_short(large in vec(any::<u8>(), 0..2000)) {
        let large = Bytes::from(large);
        for value in [Value::Text(large.clone()), Value::Blob(large)] {
            prop_assert!(value.to_string().chars().count() <= 120, "{}", value);
        }
    }
}
