//! Values as text that PostgreSQL's own input functions read: single parameters, array literals, COPY rows.

use bytes::{BufMut, Bytes, BytesMut};
use model::{Row, Value};

/// A value in the text form of whatever type the column has; `None` is NULL. `Unchanged` has no text form: callers
/// leave such cells out.
pub(crate) fn parameter(value: &Value) -> Option<Bytes> {
    match value {
        Value::Null | Value::Unchanged => None,
        Value::Text(text) => Some(text.clone()),
        Value::Integer(integer) => Some(Bytes::from(integer.to_string())),
        Value::Real(real) => Some(Bytes::from(real_text(*real))),
        Value::Blob(blob) => {
            let mut text = BytesMut::with_capacity(2 + 2 * blob.len());
            put_hex(&mut text, blob);
            Some(text.freeze())
        }
    }
}

/// Shortest digits that read back as the same number; PostgreSQL spells the special ones its own way.
fn real_text(real: f64) -> String {
    if real.is_nan() {
        "NaN".to_owned()
    } else if real.is_infinite() {
        if real > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        format!("{real:?}")
    }
}

fn put_hex(text: &mut BytesMut, blob: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.put_slice(b"\\x");
    for byte in blob {
        text.put_u8(DIGITS[usize::from(byte >> 4)]);
        text.put_u8(DIGITS[usize::from(byte & 15)]);
    }
}

/// Appends `{"…",NULL,"…"}`. Every element is quoted, so that no content is taken for NULL, a brace or a delimiter.
pub(crate) fn put_array<'a>(text: &mut BytesMut, values: impl IntoIterator<Item = &'a Value>) {
    let mut before = b'{';
    for value in values {
        text.put_u8(before);
        before = b',';
        match value {
            Value::Null | Value::Unchanged => text.put_slice(b"NULL"),
            Value::Text(bytes) => quoted(text, bytes),
            Value::Integer(_) | Value::Real(_) | Value::Blob(_) => {
                if let Some(bytes) = parameter(value) {
                    quoted(text, &bytes);
                }
            }
        }
    }
    if before == b'{' {
        text.put_u8(before);
    }
    text.put_u8(b'}');
}

pub(crate) fn array<'a>(values: impl IntoIterator<Item = &'a Value>) -> Bytes {
    let mut text = BytesMut::new();
    put_array(&mut text, values);
    text.freeze()
}

fn quoted(text: &mut BytesMut, bytes: &[u8]) {
    text.put_u8(b'"');
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(byte, b'"' | b'\\') {
            text.put_slice(&bytes[from..at]);
            text.put_u8(b'\\');
            from = at;
        }
    }
    text.put_slice(&bytes[from..]);
    text.put_u8(b'"');
}

/// Appends one line of COPY text with the cells at `columns`.
pub(crate) fn copy_line(text: &mut BytesMut, row: &Row, columns: &[usize]) {
    for (place, &column) in columns.iter().enumerate() {
        if place > 0 {
            text.put_u8(b'\t');
        }
        match parameter(&row[column]) {
            None => text.put_slice(b"\\N"),
            Some(bytes) => {
                let mut from = 0;
                for (at, byte) in bytes.iter().enumerate() {
                    let escaped = match byte {
                        b'\\' => b'\\',
                        b'\n' => b'n',
                        b'\r' => b'r',
                        b'\t' => b't',
                        _ => continue,
                    };
                    text.put_slice(&bytes[from..at]);
                    text.put_slice(&[b'\\', escaped]);
                    from = at + 1;
                }
                text.put_slice(&bytes[from..]);
            }
        }
    }
    text.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_quote_everything() {
        let values = [
            Value::text("a\"b\\c,{}"),
            Value::Null,
            Value::text("NULL"),
            Value::text(""),
            Value::Integer(-5),
        ];
        assert_eq!(&array(&values)[..], br#"{"a\"b\\c,{}",NULL,"NULL","","-5"}"#);
        assert_eq!(&array(&[])[..], b"{}");
        assert_eq!(&array(&[Value::Blob(Bytes::from_static(&[0, 255]))])[..], br#"{"\\x00ff"}"#);
    }

    #[test]
    fn copy_lines_escape_what_would_end_a_cell() {
        let mut text = BytesMut::new();
        copy_line(
            &mut text,
            &vec![Value::text("a\tb\nc\\"), Value::Null, Value::Real(0.1), Value::Real(1e300)],
            &[0, 1, 2, 3],
        );
        assert_eq!(std::str::from_utf8(&text).unwrap(), "a\\tb\\nc\\\\\t\\N\t0.1\t1e300\n");
    }

    #[test]
    fn reals_keep_their_bits() {
        for real in [0.1, -0.0, f64::MIN_POSITIVE, 5e-324, f64::MAX] {
            assert_eq!(real_text(real).parse::<f64>().unwrap().to_bits(), real.to_bits());
        }
        assert_eq!(real_text(f64::NEG_INFINITY), "-Infinity");
    }
}
