//! What the encoder, or the server, writes as COPY text is read as the same rows, wherever it is cut into messages.

use bytes::{BufMut, Bytes, BytesMut};
use model::{Row, Value};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::decode::Lines;
use crate::encode::copy_line;

fn cell() -> impl Strategy<Value = Value> {
    let awkward = proptest::sample::select(vec![
        "\\", "\\\\", "\t", "\n", "\r", "\u{8}", "\u{b}", "\u{c}", "\u{1}", "N", "\\N", "\\.", "\\x", "b",
        "é", "",
    ]);
    prop_oneof![
        1 => Just(Value::Null),
        4 => vec(awkward, 0..8).prop_map(|parts| Value::text(parts.concat())),
        2 => any::<String>().prop_map(Value::text),
        // Text of a database whose encoding is not known (SQL_ASCII).
        1 => vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Text(bytes.into())),
    ]
}

/// Which columns are generated, at least one of them not, and rows of such a table.
fn rows() -> impl Strategy<Value = (Vec<bool>, Vec<Row>)> {
    let columns =
        vec(any::<bool>(), 1..6).prop_filter("nothing is stored", |generated| generated.contains(&false));
    columns.prop_flat_map(|generated| {
        let width = generated.len();
        (Just(generated), vec(vec(cell(), width), 0..6)).prop_map(|(generated, mut rows)| {
            for row in &mut rows {
                for (value, _) in row.iter_mut().zip(&generated).filter(|(_, generated)| **generated) {
                    *value = Value::Unchanged;
                }
            }
            (generated, rows)
        })
    })
}

/// As the server writes a line, by the description of its text format: also letters for the rarer control characters.
fn server_line(text: &mut BytesMut, row: &Row) {
    for (place, value) in row.iter().filter(|value| !value.is_unchanged()).enumerate() {
        if place > 0 {
            text.put_u8(b'\t');
        }
        let Value::Text(bytes) = value else {
            text.put_slice(b"\\N");
            continue;
        };
        for &byte in bytes {
            match b"\x08b\tt\nn\x0bv\x0cf\rr\\\\".chunks(2).find(|pair| pair[0] == byte) {
                Some(pair) => text.put_slice(&[b'\\', pair[1]]),
                None => text.put_u8(byte),
            }
        }
    }
    text.put_u8(b'\n');
}

/// One block of framed messages, cut at these places.
fn block(text: &[u8], cuts: &[Index]) -> Bytes {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    places.push(text.len());
    places.sort_unstable();
    let (mut block, mut from) = (BytesMut::new(), 0);
    for place in places {
        block.put_u8(b'd');
        block.put_u32((place - from + 4) as u32);
        block.put_slice(&text[from..place]);
        from = place;
    }
    block.freeze()
}

/// As several blocks, since what is torn is kept from one to the next.
fn read(generated: &[bool], text: &[u8], cuts: &[Index]) -> Vec<Row> {
    let mut lines = Lines::new(generated.to_vec());
    let middle = cuts.first().map_or(0, |cut| cut.index(text.len() + 1));
    let mut rows = lines.rows(block(&text[..middle], cuts)).unwrap();
    rows.extend(lines.rows(block(&text[middle..], cuts)).unwrap());
    lines.end().unwrap();
    rows
}

proptest! {
    #[test]
    fn what_the_encoder_writes((generated, rows) in rows(), cuts in vec(any::<Index>(), 0..6)) {
        let stored: Vec<usize> = (0..generated.len()).filter(|&at| !generated[at]).collect();
        let mut text = BytesMut::new();
        rows.iter().for_each(|row| copy_line(&mut text, row, &stored));
        prop_assert_eq!(read(&generated, &text, &cuts), rows);
    }

    #[test]
    fn what_the_server_writes((generated, rows) in rows(), cuts in vec(any::<Index>(), 0..6)) {
        let mut text = BytesMut::new();
        rows.iter().for_each(|row| server_line(&mut text, row));
        prop_assert_eq!(read(&generated, &text, &cuts), rows);
    }

    /// Whatever comes: no panic, and no row of another width.
    #[test]
    fn anything_else(bytes in vec(proptest::sample::select(b"\\\t\nNbx.a\0\xff".to_vec()), 0..40)) {
        let mut lines = Lines::new(vec![false, true, false]);
        if let Ok(rows) = lines.rows(block(&bytes, &[])) {
            let newlines = bytes.iter().filter(|byte| **byte == b'\n').count();
            prop_assert_eq!(rows.len(), newlines);
            prop_assert!(rows.iter().all(|row| row.len() == 3 && row[1].is_unchanged()));
        }
    }
}
