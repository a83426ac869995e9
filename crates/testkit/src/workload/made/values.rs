//! Values of every common type: mostly plain ones out of a few, so that they meet, and some at the edges.

use fastrand::Rng;

use super::catalog::Kind;
use super::literal;

/// As SQL, still to be cast to its type. `None` for a type that is not known here.
pub(super) fn of(kind: &Kind, rng: &mut Rng) -> Option<String> {
    match kind {
        Kind::Plain(name, modifier) => plain(name, *modifier, rng).map(|text| literal(&text)),
        Kind::Enum(labels) => rng.choice(labels).map(|label| literal(label)),
        Kind::Array(element, type_name) => {
            let count = rng.usize(0..4);
            let elements: Vec<String> = (0..count)
                .map(|_| if rng.u8(0..8) == 0 { Some("NULL".into()) } else { of(element, rng) })
                .collect::<Option<_>>()?;
            Some(format!("ARRAY[{}]::{type_name}[]", elements.join(", ")))
        }
        Kind::Composite(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(kind, type_name)| Some(format!("{}::{type_name}", of(kind, rng)?)))
                .collect::<Option<_>>()?;
            Some(format!("ROW({})", fields.join(", ")))
        }
    }
}

/// Whether a word or a number from a check may be a value of this type at all.
pub(super) fn takes(kind: &Kind, hint: &str) -> bool {
    let number = hint.parse::<i64>().is_ok();
    match kind {
        Kind::Plain(name, _) => match name.as_str() {
            "int2" | "int4" | "int8" | "numeric" | "float4" | "float8" | "money" => number,
            "text" | "varchar" | "bpchar" | "citext" | "name" => true,
            "date" | "timestamp" | "timestamptz" => {
                !number && hint.starts_with(|at: char| at.is_ascii_digit())
            }
            _ => false,
        },
        Kind::Enum(labels) => labels.iter().any(|label| label == hint),
        Kind::Array(..) | Kind::Composite(_) => false,
    }
}

fn plain(name: &str, modifier: i32, rng: &mut Rng) -> Option<String> {
    let pick = |rng: &mut Rng, edges: &[&str]| (*rng.choice(edges).expect("an edge")).to_owned();
    let edge = rng.u8(0..12) == 0;
    Some(match name {
        "bool" => rng.bool().to_string(),
        "int2" if edge => pick(rng, &["-32768", "0", "32767"]),
        "int4" if edge => pick(rng, &["-2147483648", "0", "2147483647"]),
        "int8" if edge => pick(rng, &["-9223372036854775808", "0", "9223372036854775807"]),
        "int2" | "int4" | "int8" => rng.u16(1..20_000).to_string(),
        "oid" | "xid" | "xid8" => rng.u32(..).to_string(),
        "float4" | "float8" if edge => pick(rng, &["NaN", "-0", "Infinity", "1e-30", "0.1"]),
        "float4" | "float8" => format!("{}", f64::from(rng.u32(0..100_000)) / 7.0),
        "numeric" => numeric(modifier, rng),
        "money" => format!("{}.{:02}", rng.u16(..), rng.u8(0..100)),
        "text" | "varchar" | "bpchar" | "citext" | "name" => {
            // The modifier counts its own four bytes.
            let room = if modifier > 4 && name != "text" { modifier as usize - 4 } else { usize::MAX };
            words(rng).chars().take(room.min(if name == "name" { 60 } else { room })).collect()
        }
        "char" => rng.alphabetic().to_string(),
        "bytea" => {
            let length = if edge { rng.usize(2_000..6_000) } else { rng.usize(0..30) };
            format!("\\x{}", (0..length).map(|_| format!("{:02x}", rng.u8(..))).collect::<String>())
        }
        "date" if edge => pick(rng, &["infinity", "0044-03-15 BC", "2024-02-29"]),
        "date" => date(rng),
        "time" => time(rng),
        "timetz" => format!("{}+05:30", time(rng)),
        "timestamp" | "timestamptz" => format!("{} {}", date(rng), time(rng)),
        "interval" => format!("{} mons {} days {}", rng.u8(0..30), rng.u8(0..40), time(rng)),
        "uuid" => {
            let text = format!("{:032x}", rng.u128(..));
            format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
        }
        "json" | "jsonb" => {
            let word = words(rng).replace(['"', '\\', '\n', '\t'], " ");
            format!("{{\"b\": {}, \"a\": [1, 2.50, null], \"text\": \"{word}\"}}", rng.u16(..))
        }
        "jsonpath" => "$.a[*] ? (@ > 1)".into(),
        "xml" => format!("<a b=\"{}\">c</a>", rng.u16(..)),
        "inet" => format!("10.{}.{}.1/16", rng.u8(..), rng.u8(..)),
        "cidr" => format!("10.{}.0.0/16", rng.u8(..)),
        "macaddr" => format!("08:00:2b:01:{:02x}:{:02x}", rng.u8(..), rng.u8(..)),
        "macaddr8" => format!("08:00:2b:ff:fe:01:{:02x}:{:02x}", rng.u8(..), rng.u8(..)),
        "bit" | "varbit" => {
            let length = if modifier > 0 { modifier } else { 1 };
            (0..length).map(|_| if rng.bool() { '1' } else { '0' }).collect()
        }
        "point" => point(rng),
        "line" => "{1, -1, 0}".into(),
        "lseg" | "box" => format!("({}, {})", point(rng), point(rng)),
        "path" | "polygon" => format!("({}, {}, {})", point(rng), point(rng), point(rng)),
        "circle" => format!("<{}, {}>", point(rng), rng.u8(1..)),
        "tsvector" => format!("fat:2 cat:{}", rng.u8(1..)),
        "tsquery" => format!("fat & cat{}", rng.u8(..)),
        "pg_lsn" => format!("{:X}/{:X}", rng.u8(..), rng.u32(..)),
        "hstore" => format!("\"a\" => \"{}\", \"b\" => NULL", rng.u16(..)),
        "ltree" => format!("top.science{}.astronomy", rng.u8(..)),
        "int4range" | "int8range" | "numrange" => between(rng.u16(..).into(), rng),
        "int4multirange" | "int8multirange" | "nummultirange" => {
            format!("{{{}}}", between(rng.u16(..).into(), rng))
        }
        "daterange" | "tsrange" | "tstzrange" => days(rng),
        "datemultirange" | "tsmultirange" | "tstzmultirange" => format!("{{{}}}", days(rng)),
        _ => return None,
    })
}

/// Precision and scale, each in sixteen bits, and four bytes more.
fn numeric(modifier: i32, rng: &mut Rng) -> String {
    if modifier < 4 {
        return match rng.u8(0..12) {
            0 => "NaN".into(),
            1 => format!("{}.{:030}", rng.u64(..), rng.u64(..)),
            _ => format!("{}.{:02}", rng.u32(0..100_000), rng.u8(0..100)),
        };
    }
    let (precision, scale) = ((modifier - 4) >> 16, (modifier - 4) & 0x7ff);
    let whole = (precision - scale).clamp(0, 6) as u32;
    let number = rng.u32(0..10_u32.pow(whole));
    if scale > 0 { format!("{number}.{}", rng.u8(0..10)) } else { number.to_string() }
}

fn words(rng: &mut Rng) -> String {
    match rng.u8(0..16) {
        0 => String::new(),
        1 => "tab\tline\nback\\slash 'quote' \"double\" é😀 ".into(),
        // Out of line: half of it cannot be compressed.
        2 => (0..rng.usize(2_500..5_000)).map(|_| rng.alphanumeric()).collect(),
        3 => format!("{0}@example.com", rng.u16(..)),
        4 => (0..rng.usize(1..12)).map(|_| rng.uppercase()).collect(),
        _ => format!("word {}", rng.u16(0..2_000)),
    }
}

fn date(rng: &mut Rng) -> String {
    format!("20{:02}-{:02}-{:02}", rng.u8(20..30), rng.u8(1..=12), rng.u8(1..=28))
}

fn time(rng: &mut Rng) -> String {
    format!("{:02}:{:02}:{:02}.{:06}", rng.u8(0..24), rng.u8(0..60), rng.u8(0..60), rng.u32(0..1_000_000))
}

fn point(rng: &mut Rng) -> String {
    format!("({}, -{}.5)", rng.u16(..), rng.u8(..))
}

fn between(from: u32, rng: &mut Rng) -> String {
    format!("[{from},{})", from + u32::from(rng.u8(1..)))
}

fn days(rng: &mut Rng) -> String {
    let from = date(rng);
    format!("[{from},{})", from.replacen("20", "21", 1))
}
