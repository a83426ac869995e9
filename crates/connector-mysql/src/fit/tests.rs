use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::charset::Charset;
use crate::column_type::Width;

/// PostgreSQL's number for `boolean`.
const BOOL: u32 = 16;

fn column(kind: Kind, type_id: u32) -> Column {
    Column {
        name: "c".to_owned(),
        type_name: format!("{kind:?}"),
        type_id,
        type_modifier: -1,
        number: 0,
        kind,
        nullable: true,
        generated: false,
    }
}

const BIGINT: ColumnType = ColumnType::Integer { width: Width::Big, unsigned: false };
const CHAR: ColumnType = ColumnType::Char { charset: Charset::Utf8 };
const TEXT: ColumnType = ColumnType::Text { charset: Charset::Latin1 };
const MONEY: ColumnType = ColumnType::Decimal { precision: 5, scale: 2 };
const MILLIS: ColumnType = ColumnType::DateTime { fraction: 3 };
const STAMP: ColumnType = ColumnType::Timestamp { fraction: 6 };
const TIME: ColumnType = ColumnType::Time { fraction: 1 };
const BINARY: ColumnType = ColumnType::Binary { length: 2 };

fn labels(labels: &[&str]) -> Arc<[String]> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

/// What a text becomes; `None` when it would become another value.
fn text_as(kind: Kind, type_id: u32, target: &ColumnType, text: &str) -> Option<String> {
    let value = Value::text(text);
    let param = param(&column(kind, type_id), Some(target), &value);
    param.map(|param| format!("{param:?}"))
}

fn bytes(text: &str) -> Option<String> {
    Some(format!("{:?}", Param::Bytes(text.as_bytes())))
}

#[test]
fn text_that_means_the_same_fits() {
    let label = ColumnType::Enum { charset: Charset::Utf8, labels: labels(&["a", "1", "ü"]) };
    let set = ColumnType::Set { charset: Charset::Utf8, labels: labels(&["x", "y"]) };
    for (kind, target, text, fits) in [
        (Kind::Text, &TEXT, "", true),
        (Kind::Text, &TEXT, "a\0\\ ", true),
        (Kind::Boolean, &TEXT, "t", true),
        (Kind::Blob, &TEXT, "\\x00", false),
        (Kind::Text, &CHAR, "a\t", true),
        (Kind::Text, &CHAR, "a ", false),
        (Kind::Text, &label, "1", true),
        (Kind::Text, &label, "2", false),
        (Kind::Text, &label, "A", false),
        (Kind::Text, &label, "a ", false),
        (Kind::Text, &label, "", false),
        (Kind::Text, &set, "", true),
        (Kind::Text, &set, "y,x", false),
        (Kind::Text, &set, "x,", false),
        (Kind::Text, &set, "3", false),
        (Kind::Date, &ColumnType::Date, "2024-02-29", true),
        (Kind::Date, &ColumnType::Date, "0000-00-00", true),
        (Kind::Date, &ColumnType::Date, "infinity", false),
        (Kind::Date, &ColumnType::Date, "0044-03-15 BC", false),
        (Kind::Date, &ColumnType::Date, "10000-01-01", false),
        (Kind::Timestamp, &ColumnType::Date, "2024-02-29 00:00:00", false),
        (Kind::Timestamp, &MILLIS, "2024-02-29 12:00:00", true),
        (Kind::Timestamp, &MILLIS, "2024-02-31T12:00:00.123", true),
        (Kind::Timestamp, &MILLIS, "2024-02-29 12:00:00.123000", true),
        (Kind::Timestamp, &MILLIS, "2024-02-29 12:00:00.1234", false),
        (Kind::Timestamp, &MILLIS, "2024-02-29 12:00:00.", false),
        (Kind::Timestamp, &MILLIS, "2024-02-29 112:00:00", false),
        (Kind::Timestamp, &MILLIS, "2024-02-29 12:00:00+00", false),
        (Kind::Timestamp, &MILLIS, "0044-03-15 12:00:00 BC", false),
        (Kind::Timestamp, &MILLIS, "-infinity", false),
        (Kind::Timestamp, &MILLIS, "2024-02-29", true),
        (Kind::Time, &TIME, "12:00:00.50", true),
        (Kind::Time, &TIME, "12:00", true),
        (Kind::Time, &TIME, "-838:59:59.9", true),
        (Kind::Time, &TIME, "12:00:00.55", false),
        (Kind::Time, &TIME, "12:00:00+02", false),
        (Kind::Time, &TIME, "1200", false),
        (Kind::Uuid, &ColumnType::Uuid, "6f0f6141-5bdd-eea0-c000-00000000000a", true),
        (Kind::Uuid, &ColumnType::Uuid, "6f0f61415bddeea0c00000000000000a", false),
        (Kind::Text, &ColumnType::Inet4, "10.0.0.1", true),
        (Kind::Native, &ColumnType::Inet4, "10.0.0.0/8", false),
        (Kind::Text, &ColumnType::Inet6, "::ffff:1.2.3.4", true),
        (Kind::Text, &ColumnType::Inet6, "1.2.3.4", false),
        (Kind::Json, &ColumnType::JsonText { charset: Charset::Utf8 }, "{}", true),
        (Kind::Text, &BIGINT, "7", false),
        (Kind::Text, &ColumnType::Blob, "ab", false),
        (Kind::Text, &ColumnType::Double, "1.5", false),
        (Kind::Text, &MONEY, "007", false),
    ] {
        let expected = if fits { bytes(text) } else { None };
        assert_eq!(text_as(kind, 0, target, text), expected, "{text:?} as {target:?}");
    }
    assert_eq!(text_as(Kind::Native, BPCHAR, &CHAR, "a\t  "), bytes("a\t"));
}

#[test]
fn moments_are_sent_in_utc() {
    for (text, sent) in [
        ("2024-02-29 12:00:00.5+00:00", Some("2024-02-29 12:00:00.5")),
        ("2024-02-29 12:00:00+00", Some("2024-02-29 12:00:00")),
        ("2024-02-29T12:00:00Z", Some("2024-02-29T12:00:00")),
        ("0000-00-00 00:00:00+00:00", Some("0000-00-00 00:00:00")),
        ("2024-02-29 12:00:00", None),
        ("2024-02-29 12:00:00+02:00", None),
        ("2024-02-29 12:00:00+00:30", None),
        ("infinity", None),
        ("0044-03-15 12:00:00+00 BC", None),
    ] {
        assert_eq!(text_as(Kind::TimestampTz, 0, &STAMP, text), sent.and_then(bytes), "{text}");
    }
}

#[test]
fn text_of_numbers_becomes_numbers() {
    let shown = |param: Param<'_>| Some(format!("{param:?}"));
    let bit = ColumnType::Bit { bits: 64 };
    let tiny = ColumnType::Integer { width: Width::Tiny, unsigned: false };
    for (kind, target, text, expected) in [
        (Kind::Integer, &BIGINT, "-9223372036854775808", shown(Param::Integer(i64::MIN))),
        (Kind::Unsigned, &BIGINT, "18446744073709551615", shown(Param::Unsigned(u64::MAX))),
        (Kind::Unsigned, &bit, "7", shown(Param::Integer(7))),
        (Kind::Integer, &bit, "-7", None),
        (Kind::Numeric, &BIGINT, "1.5", None),
        (Kind::Numeric, &BIGINT, "NaN", None),
        // A text, where an engine has no type for it.
        (Kind::Boolean, &tiny, "t", None),
        (Kind::Integer, &ColumnType::Year, "0", shown(Param::Integer(0))),
        (Kind::Integer, &ColumnType::Year, "1999", shown(Param::Integer(1999))),
        (Kind::Integer, &ColumnType::Year, "99", None),
        (Kind::Numeric, &MONEY, "-123.45", shown(Param::Decimal(b"-123.45"))),
        (Kind::Numeric, &MONEY, "0000.4500", shown(Param::Decimal(b"0000.4500"))),
        (Kind::Unsigned, &MONEY, "123", shown(Param::Decimal(b"123"))),
        (Kind::Numeric, &MONEY, "1234.5", None),
        (Kind::Numeric, &MONEY, "1.234", None),
        (Kind::Numeric, &MONEY, "NaN", None),
        (Kind::Numeric, &MONEY, "-Infinity", None),
        (Kind::Numeric, &MONEY, "1.", None),
        (Kind::Numeric, &MONEY, ".5", None),
        (Kind::Numeric, &MONEY, "1e2", None),
        (Kind::Real, &ColumnType::Double, "1e+300", shown(Param::Real(1e300))),
        (Kind::Real, &ColumnType::Double, "0.1", shown(Param::Real(0.1))),
        (Kind::Real, &ColumnType::Double, "-0", None),
        (Kind::Real, &ColumnType::Double, "NaN", None),
        (Kind::Real, &ColumnType::Double, "Infinity", None),
        (Kind::Real, &ColumnType::Float, "0.5", shown(Param::Real(0.5))),
        (Kind::Real, &ColumnType::Float, "0.1", None),
    ] {
        assert_eq!(text_as(kind, 0, target, text), expected, "{text} as {target:?}");
    }
    for (text, expected) in [("t", Some(Param::Integer(1))), ("f", Some(Param::Integer(0))), ("yes", None)] {
        assert_eq!(text_as(Kind::Boolean, BOOL, &tiny, text), expected.and_then(shown), "{text}");
    }
    // Four bytes there and here.
    let tenth = Param::Real(f64::from(0.1_f32));
    assert_eq!(text_as(Kind::Real, FLOAT4, &ColumnType::Float, "0.1"), shown(tenth));
}

#[test]
fn other_values() {
    let blob = |bytes: &'static [u8]| Value::Blob(Bytes::from_static(bytes));
    let integer = Value::Integer;
    for (kind, target, value, fits) in [
        (Kind::Blob, &BINARY, blob(b"a\0"), true),
        (Kind::Blob, &BINARY, blob(b"a"), false),
        (Kind::Blob, &BINARY, blob(b"abc"), false),
        (Kind::Blob, &ColumnType::VarBinary, blob(b""), true),
        (Kind::Blob, &TEXT, blob(b"a"), false),
        (Kind::Integer, &BIGINT, integer(i64::MIN), true),
        (Kind::Integer, &ColumnType::Year, integer(0), true),
        (Kind::Integer, &ColumnType::Year, integer(24), false),
        (Kind::Integer, &ColumnType::Bit { bits: 7 }, integer(-1), false),
        (Kind::Integer, &ColumnType::Float, integer((1 << 24) + 1), false),
        (Kind::Integer, &ColumnType::Double, integer(1 << 53), true),
        (Kind::Integer, &TEXT, integer(5), false),
        (Kind::Native, &TEXT, integer(5), true),
        (Kind::Date, &ColumnType::Date, integer(20_240_229), false),
        (Kind::Real, &ColumnType::Float, Value::Real(f64::from(0.1_f32)), true),
        (Kind::Real, &ColumnType::Float, Value::Real(0.1), false),
        (Kind::Real, &ColumnType::Float, Value::Real(1e39), false),
        (Kind::Real, &ColumnType::Double, Value::Real(5e-324), true),
        (Kind::Real, &ColumnType::Double, Value::Real(-0.0), false),
        (Kind::Real, &ColumnType::Double, Value::Real(f64::NAN), false),
        (Kind::Numeric, &MONEY, Value::Real(1.5), true),
        (Kind::Integer, &BIGINT, Value::Real(1.0), false),
        (Kind::Real, &ColumnType::Double, Value::Null, true),
        (Kind::Real, &ColumnType::Double, Value::Unchanged, false),
    ] {
        assert_eq!(param(&column(kind, 0), Some(target), &value).is_some(), fits, "{value} as {target:?}");
    }
    assert_eq!(param(&column(Kind::Real, 0), None, &Value::Real(1.0)), None);
}

#[test]
fn bytea_becomes_bytes() {
    let value = Value::text("\\x00fF");
    let bytea = column(Kind::Blob, 17);
    let expected = Some(Param::Hex(&[*b"00", *b"fF"]));
    assert_eq!(param(&bytea, Some(&ColumnType::Blob), &value), expected);
    assert_eq!(param(&bytea, Some(&BINARY), &value), expected);
    for text in ["\\x0", "\\x0g", "00", "\\x000000"] {
        assert_eq!(text_as(Kind::Blob, 17, &BINARY, text), None, "{text}");
    }
}

#[test]
fn the_servers_own_values_are_compared_as_the_column_compares() {
    let text = Value::text;
    assert_eq!(own(Kind::Unsigned, &text("18446744073709551615")), Some(Param::Unsigned(u64::MAX)));
    assert_eq!(own(Kind::Unsigned, &text("-1")), None);
    let moment = text("2024-02-29 12:00:00+00:00");
    assert_eq!(own(Kind::TimestampTz, &moment), Some(Param::Bytes(b"2024-02-29 12:00:00")));
    assert_eq!(own(Kind::Numeric, &text("1.50")), Some(Param::Decimal(b"1.50")));
    assert_eq!(own(Kind::Text, &text("a")), Some(Param::Bytes(b"a")));
    assert_eq!(own(Kind::Text, &Value::Unchanged), None);
}

#[test]
fn a_refusal_names_everything() {
    let table = Table {
        name: model::TableName::new("shop", "t"),
        source_id: 0,
        columns: vec![column(Kind::Integer, 0), Column { name: "at".to_owned(), ..column(Kind::Date, 0) }],
        identity: model::Identity::Key { columns: vec![0], order: None },
        unique: Vec::new(),
        root: None,
        rows_estimate: None,
        bytes: 0,
    };
    let target = Target {
        name: model::TableName::new("d", "t"),
        columns: vec![Some(BIGINT), Some(ColumnType::Date)],
        collides: false,
    };
    let cells = vec![Value::Integer(7), Value::text("infinity")];
    let mut params = Vec::new();
    let error = row(&table, &target, &cells, &[0, 1], &mut params).unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not carry a value over without changing it: table shop.t, column at, declared Date, value 'infinity', \
         key (7), on the target DATE"
    );
    assert_eq!(error.kind, ErrorKind::Refused);
    assert_eq!(
        error.hint.unwrap(),
        "at must be a date as 2024-02-29: change the value on the source, or the column on \
         the target to a type that holds it"
    );
}
