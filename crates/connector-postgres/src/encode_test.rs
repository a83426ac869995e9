//! The ways of a value to the server: as a parameter, in an array, in a line of COPY. All three say the same.

use bytes::{Bytes, BytesMut};
use model::Value;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::encode::{array, copy_line, parameter};

fn text() -> impl Strategy<Value = Bytes> {
    // What would end a cell, an element or a line, and what stands for NULL.
    let awkward = proptest::sample::select(vec![
        "\\", "\"", "\t", "\n", "\r", "\\N", "\\.", "NULL", "{", "}", ",", "\u{8}", "\u{b}", "é", "",
    ]);
    prop_oneof![
        vec(awkward, 0..8).prop_map(|parts| Bytes::from(parts.concat())),
        any::<String>().prop_map(Bytes::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        text().prop_map(Value::Text),
        any::<i64>().prop_map(Value::Integer),
        any::<u64>().prop_map(|bits| Value::Real(f64::from_bits(bits))),
        vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Blob(bytes.into())),
    ]
}

/// As the server reads a line of COPY text, by its documentation.
fn read_copy_line(line: &[u8]) -> Vec<Option<Bytes>> {
    let line = line.strip_suffix(b"\n").expect("a line ends");
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "a line is one line");
    assert_ne!(line, b"\\.", "the end of the data");
    let cell = |cell: &[u8]| {
        if cell == b"\\N" {
            return None;
        }
        let (mut out, mut bytes) = (Vec::new(), cell.iter());
        while let Some(&byte) = bytes.next() {
            out.push(match byte {
                b'\\' => match *bytes.next().expect("an escape has two bytes") {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'\\' => b'\\',
                    other => panic!("an escape of {other}"),
                },
                plain => plain,
            });
        }
        Some(Bytes::from(out))
    };
    line.split(|&byte| byte == b'\t').map(cell).collect()
}

/// As the server reads an array, by its documentation; every element but NULL is quoted.
fn read_array(text: &[u8]) -> Vec<Option<Bytes>> {
    let mut rest = text.strip_prefix(b"{").and_then(|text| text.strip_suffix(b"}")).expect("braces");
    let mut elements = Vec::new();
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix(b"NULL") {
            elements.push(None);
            rest = tail;
        } else {
            let (mut out, mut at) = (Vec::new(), 1);
            assert_eq!(rest[0], b'"');
            while rest[at] != b'"' {
                at += usize::from(rest[at] == b'\\');
                out.push(rest[at]);
                at += 1;
            }
            elements.push(Some(Bytes::from(out)));
            rest = &rest[at + 1..];
        }
        if !rest.is_empty() {
            rest = rest.strip_prefix(b",").expect("a comma between elements");
        }
    }
    elements
}

/// As the server reads a number, or the bytes of a `bytea`.
fn read(value: &Value, text: &Bytes) -> Value {
    let digits = std::str::from_utf8(text).unwrap();
    match value {
        Value::Null | Value::Unchanged => panic!("no text is read as {value:?}"),
        Value::Text(_) => Value::Text(text.clone()),
        Value::Integer(_) => Value::Integer(digits.parse().unwrap()),
        // One NaN is as good as another; a server has only one.
        Value::Real(real) if real.is_nan() && digits == "NaN" => value.clone(),
        Value::Real(_) => Value::Real(digits.parse().unwrap()),
        Value::Blob(_) => {
            let hex = digits.strip_prefix("\\x").unwrap();
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            Value::Blob((0..hex.len()).step_by(2).map(byte).collect())
        }
    }
}

proptest! {
    #[test]
    fn every_way_to_the_server_says_the_same(row in vec(value(), 1..6)) {
        let parameters: Vec<Option<Bytes>> = row.iter().map(parameter).collect();
        let columns: Vec<usize> = (0..row.len()).collect();
        let mut line = BytesMut::new();
        copy_line(&mut line, &row, &columns);
        // A lone empty cell is an empty line, and one empty cell to the server as well.
        prop_assert_eq!(&read_copy_line(&line), &parameters);
        prop_assert_eq!(&read_array(&array(&row)), &parameters);
        for (value, parameter) in row.iter().zip(&parameters) {
            match parameter {
                None => prop_assert_eq!(value, &Value::Null),
                Some(text) => prop_assert_eq!(&read(value, text), value),
            }
        }
    }
}
