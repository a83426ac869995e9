//! DECIMAL to its one canonical text: exactly `scale` digits behind the point, no zeros in front but a single one, no −0.

use std::iter::{once, repeat_n};

use crate::value::{DecodeError, natural_big_endian, take};

const WHAT: &str = "a DECIMAL";

/// The log's packed form (`decimal2bin` in strings/decimal.c of both servers): digits in groups of nine to four big-endian
/// bytes, counted from the point; the groups at both ends are shorter. The first bit is set for what is not negative, and
/// all bits of a negative number are inverted.
pub(crate) fn from_log(cells: &mut &[u8], precision: u8, scale: u8) -> Result<String, DecodeError> {
    let groups = groups(usize::from(precision.saturating_sub(scale)), usize::from(scale));
    let packed = take(cells, groups.iter().map(|digits| bytes_of(*digits)).sum(), WHAT)?;
    let negative = packed.first().is_some_and(|first| first & 0x80 == 0);
    let mut plain: Vec<u8> = packed.iter().map(|byte| if negative { !byte } else { *byte }).collect();
    if let Some(first) = plain.first_mut() {
        *first &= 0x7f;
    }
    let mut digits = String::with_capacity(usize::from(precision));
    let mut rest = &plain[..];
    for count in groups {
        let group = natural_big_endian(take(&mut rest, bytes_of(count), WHAT)?).to_string();
        if group.len() > count {
            return Err(DecodeError::malformed(
                WHAT,
                format_args!("{group} where {count} digits have their place"),
            ));
        }
        digits.extend(repeat_n('0', count - group.len()));
        digits.push_str(&group);
    }
    let (whole, part) = digits.split_at(digits.len() - usize::from(scale));
    Ok(canonical(negative, whole, part))
}

/// Text as the binary protocol has it; ZEROFILL pads it with zeros.
pub(crate) fn from_text(text: &[u8], scale: u8) -> Result<String, DecodeError> {
    let malformed = || {
        let shown = text.get(..80).unwrap_or(text).escape_ascii();
        DecodeError::malformed(WHAT, format_args!("'{shown}' where {scale} digits follow the point"))
    };
    let number = std::str::from_utf8(text).map_err(|_| malformed())?;
    let digits = number.strip_prefix('-').unwrap_or(number);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let only_digits = whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit());
    if !only_digits || whole.is_empty() || part.len() != usize::from(scale) {
        return Err(malformed());
    }
    Ok(canonical(number.len() > digits.len(), whole, part))
}

/// The number of digits in each group, from left to right.
fn groups(whole: usize, part: usize) -> Vec<usize> {
    let nines = repeat_n(9, whole / 9 + part / 9);
    once(whole % 9).chain(nines).chain(once(part % 9)).filter(|digits| *digits > 0).collect()
}

/// 1 and 2 digits fit into a byte, 3 and 4 into two, 5 and 6 into three, more into four.
fn bytes_of(digits: usize) -> usize {
    digits.div_ceil(2).min(4)
}

fn canonical(negative: bool, whole: &str, part: &str) -> String {
    let whole = whole.trim_start_matches('0');
    let is_zero = whole.is_empty() && part.bytes().all(|digit| digit == b'0');
    let sign = if negative && !is_zero { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if part.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{part}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Packs the digits of a number that has exactly `precision` of them.
    fn pack(negative: bool, digits: &str, scale: u8) -> Vec<u8> {
        let scale = usize::from(scale);
        let mut rest = digits;
        let mut packed = Vec::new();
        for count in groups(digits.len() - scale, scale) {
            let (group, after) = rest.split_at(count);
            let number: u32 = group.parse().unwrap();
            packed.extend(&number.to_be_bytes()[4 - bytes_of(count)..]);
            rest = after;
        }
        packed[0] ^= 0x80;
        if negative { packed.iter().map(|byte| !byte).collect() } else { packed }
    }

    #[test]
    fn packed_numbers_are_read() {
        for (precision, scale, packed, expected) in [
            // The example in the comment on decimal2bin.
            (14, 4, &b"\x81\x0d\xfb\x38\xd2\x04\xd2"[..], "1234567890.1234"),
            (14, 4, b"\x7e\xf2\x04\xc7\x2d\xfb\x2d", "-1234567890.1234"),
            (1, 1, b"\x85", "0.5"),
            (1, 1, b"\x7a", "-0.5"),
            (1, 1, b"\x80", "0.0"),
            (1, 1, b"\x7f", "0.0"),
            (10, 0, b"\x80\x00\x00\x00\x07", "7"),
            (10, 0, b"\x7f\xff\xff\xff\xf8", "-7"),
            (10, 0, b"\x89\x3b\x9a\xc9\xff", "9999999999"),
            (5, 2, b"\x80\x01\x05", "1.05"),
            (9, 9, b"\x80\x00\x00\x01", "0.000000001"),
        ] {
            let mut cells = packed;
            assert_eq!(from_log(&mut cells, precision, scale).unwrap(), expected);
            assert!(cells.is_empty(), "{expected}");
        }
    }

    #[test]
    fn the_largest_ones_are_read() {
        let digits = "9".repeat(65);
        let text = format!("{}.{}", &digits[..35], &digits[..30]);
        let packed = pack(false, &digits, 30);
        assert_eq!(packed.len(), 30);
        assert_eq!(from_log(&mut &packed[..], 65, 30).unwrap(), text);
        assert_eq!(from_log(&mut &pack(true, &digits, 30)[..], 65, 30).unwrap(), format!("-{text}"));
    }

    #[test]
    fn text_is_made_canonical() {
        for (text, scale, expected) in [
            ("1.50", 2, Some("1.50")),
            ("-0.5", 1, Some("-0.5")),
            ("-0.00", 2, Some("0.00")),
            ("-0", 0, Some("0")),
            ("00007.10", 2, Some("7.10")),
            ("0000", 0, Some("0")),
            ("10", 0, Some("10")),
            ("1.5", 2, None),
            ("1", 1, None),
            ("1.", 0, Some("1")),
            (".5", 1, None),
            ("", 0, None),
            ("-", 0, None),
            ("--1", 0, None),
            ("1e5", 0, None),
            ("1.2.3", 3, None),
        ] {
            assert_eq!(from_text(text.as_bytes(), scale).ok().as_deref(), expected, "{text}");
        }
        assert!(from_text(b"\xff", 0).is_err());
    }

    #[test]
    fn what_is_no_number_is_refused() {
        // 250 in a group of two digits, and a byte too few.
        assert!(matches!(from_log(&mut &b"\x80\x00\xfa"[..], 5, 2), Err(DecodeError::Malformed { .. })));
        assert!(matches!(from_log(&mut &b"\x80\x00"[..], 5, 2), Err(DecodeError::Short { .. })));
    }

    proptest! {
        #[test]
        fn both_forms_say_the_same(digits in "[0-9]{1,65}", scale in 0u8..=38, negative in any::<bool>()) {
            let precision = u8::try_from(digits.len()).unwrap();
            let scale = scale.min(precision);
            let (whole, part) = digits.split_at(digits.len() - usize::from(scale));
            let sign = if negative { "-" } else { "" };
            let text = if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}0{whole}.{part}") };
            let packed = pack(negative, &digits, scale);
            let mut cells = &packed[..];
            let read = from_log(&mut cells, precision, scale);
            prop_assert!(cells.is_empty());
            prop_assert_eq!(read, from_text(text.as_bytes(), scale));
        }

        #[test]
        fn no_bytes_panic(packed in any::<[u8; 32]>(), text in any::<Vec<u8>>(), precision in 0..=65u8, scale in 0..=65u8) {
            drop(from_log(&mut &packed[..], precision, scale));
            drop(from_text(&text, scale));
        }
    }
}
