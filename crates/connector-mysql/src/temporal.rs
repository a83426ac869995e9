//! Dates and times, in all the forms in which the binary protocol and the log have them, to one text each.
//!
//! The text has exactly as many fractional digits as the column, and is `YYYY-MM-DD`, `YYYY-MM-DD HH:MM:SS[.f]`, the same with
//! `+00:00` for a TIMESTAMP, and `[-]HH:MM:SS[.f]` for a TIME, whose hours go up to 838. Zero dates and days that no calendar
//! has (`0000-00-00`, `2024-02-31`) are values here and come out as they are; whether a target takes them is its own question.
//! A part that no server stores (a 13th month, a 60th second, more fractional digits than the column has) is an error.

use crate::value::{DecodeError, array, natural, natural_big_endian, take};

const DATE: &str = "a DATE";
const DATETIME: &str = "a DATETIME or TIMESTAMP";
const TIME: &str = "a TIME";

/// A day and a time of it, not checked yet.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    micros: u64,
}

impl Moment {
    fn date(self) -> Result<String, DecodeError> {
        let Moment { year, month, day, .. } = self;
        let text = format!("{year:04}-{month:02}-{day:02}");
        if year > 9999 || month > 12 || day > 31 {
            return Err(DecodeError::malformed(DATE, text));
        }
        Ok(text)
    }

    fn datetime(self, fraction: u8) -> Result<String, DecodeError> {
        let Moment { hour, minute, second, micros, .. } = self;
        let mut text = format!("{} {hour:02}:{minute:02}:{second:02}", self.date()?);
        if hour > 23 || minute > 59 || second > 59 {
            return Err(DecodeError::malformed(DATETIME, text));
        }
        push_fraction(&mut text, micros, fraction, DATETIME)?;
        Ok(text)
    }

    /// As a TIMESTAMP, which all sessions read and the log has in UTC.
    fn timestamp(self, fraction: u8) -> Result<String, DecodeError> {
        let mut text = self.datetime(fraction)?;
        text.push_str("+00:00");
        Ok(text)
    }

    /// Of seconds since 1970. Zero stands for the zero date, and never for that year's beginning.
    fn since_epoch(seconds: u64, micros: u64) -> Moment {
        if seconds == 0 && micros == 0 {
            return Moment::default();
        }
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        Moment { year, month, day, hour, minute, second, micros }
    }
}

/// The day of the Gregorian calendar that is so many days after 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`). Years begin in March there, so that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_FROM_0000_03_01: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + DAYS_FROM_0000_03_01;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day + 2) / 153;
    let day = day - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (400 * era + year + u64::from(month <= 2), month, day)
}

fn time(
    negative: bool,
    hour: u64,
    minute: u64,
    second: u64,
    micros: u64,
    fraction: u8,
) -> Result<String, DecodeError> {
    let sign = if negative { "-" } else { "" };
    let mut text = format!("{sign}{hour:02}:{minute:02}:{second:02}");
    if hour > 838 || minute > 59 || second > 59 {
        return Err(DecodeError::malformed(TIME, text));
    }
    push_fraction(&mut text, micros, fraction, TIME)?;
    Ok(text)
}

fn push_fraction(
    text: &mut String,
    micros: u64,
    fraction: u8,
    what: &'static str,
) -> Result<(), DecodeError> {
    let digits = usize::from(fraction.min(6));
    let all = format!("{micros:06}");
    let (kept, cut) = all.split_at(digits);
    if all.len() > 6 || cut.bytes().any(|digit| digit != b'0') {
        return Err(DecodeError::malformed(
            what,
            format_args!("{text} and {micros} microseconds in {digits} digits"),
        ));
    }
    if digits > 0 {
        text.push('.');
        text.push_str(kept);
    }
    Ok(())
}

// The binary protocol: trailing parts that are zero are left out (MySQL internals, "Binary Protocol Value").

pub(crate) fn date_from_binary(cell: &[u8]) -> Result<String, DecodeError> {
    match cell.len() {
        0 | 4 => moment_from_binary(cell)?.date(),
        length => Err(DecodeError::malformed(DATE, format_args!("{length} bytes long"))),
    }
}

pub(crate) fn datetime_from_binary(cell: &[u8], fraction: u8) -> Result<String, DecodeError> {
    moment_from_binary(cell)?.datetime(fraction)
}

pub(crate) fn timestamp_from_binary(cell: &[u8], fraction: u8) -> Result<String, DecodeError> {
    moment_from_binary(cell)?.timestamp(fraction)
}

fn moment_from_binary(mut cell: &[u8]) -> Result<Moment, DecodeError> {
    if !matches!(cell.len(), 0 | 4 | 7 | 11) {
        return Err(DecodeError::malformed(DATETIME, format_args!("{} bytes long", cell.len())));
    }
    let mut part =
        |bytes| if cell.is_empty() { Ok(0) } else { take(&mut cell, bytes, DATETIME).map(natural) };
    Ok(Moment {
        year: part(2)?,
        month: part(1)?,
        day: part(1)?,
        hour: part(1)?,
        minute: part(1)?,
        second: part(1)?,
        micros: part(4)?,
    })
}

pub(crate) fn time_from_binary(mut cell: &[u8], fraction: u8) -> Result<String, DecodeError> {
    if !matches!(cell.len(), 0 | 8 | 12) {
        return Err(DecodeError::malformed(TIME, format_args!("{} bytes long", cell.len())));
    }
    let mut part = |bytes| if cell.is_empty() { Ok(0) } else { take(&mut cell, bytes, TIME).map(natural) };
    let (negative, days, hour, minute, second, micros) =
        (part(1)?, part(4)?, part(1)?, part(1)?, part(1)?, part(4)?);
    time(negative != 0, 24 * days + hour, minute, second, micros, fraction)
}

// The log, with the formats of MySQL 5.6.4 and later: big-endian, ordered as bytes, with a fraction of as many bytes as it
// needs (sql-common/my_time.c in MySQL, sql/compat56.cc in MariaDB).

pub(crate) fn datetime2(cells: &mut &[u8], fraction: u8) -> Result<String, DecodeError> {
    // One bit for the sign, always set; then year * 13 + month in 17 bits, the day in 5, 5 + 6 + 6 bits of time.
    const SIGN: u64 = 1 << 39;
    let packed = natural_big_endian(take(cells, 5, DATETIME)?);
    let micros = micros(cells, fraction, DATETIME)?;
    if packed & SIGN == 0 {
        return Err(DecodeError::malformed(DATETIME, "negative"));
    }
    let packed = packed - SIGN;
    let (months, day) = (packed >> 22, packed >> 17 & 31);
    let (hour, minute, second) = (packed >> 12 & 31, packed >> 6 & 63, packed & 63);
    Moment { year: months / 13, month: months % 13, day, hour, minute, second, micros }.datetime(fraction)
}

pub(crate) fn timestamp2(cells: &mut &[u8], fraction: u8) -> Result<String, DecodeError> {
    let seconds = natural_big_endian(take(cells, 4, DATETIME)?);
    Moment::since_epoch(seconds, micros(cells, fraction, DATETIME)?).timestamp(fraction)
}

pub(crate) fn time2(cells: &mut &[u8], fraction: u8) -> Result<String, DecodeError> {
    // The three bytes of 10 + 6 + 6 bits and the fraction are one number around the middle of its range: so the fraction of a
    // negative time borrows from its seconds.
    let fraction_bytes = fraction_bytes(fraction);
    let bits = 8 * fraction_bytes;
    let packed = natural_big_endian(take(cells, 3 + fraction_bytes, TIME)?);
    let middle = 0x80_0000u64 << bits;
    let distance = packed.abs_diff(middle);
    let micros = (distance & ((1u64 << bits) - 1)) * micros_per_unit(fraction_bytes);
    let whole = distance >> bits;
    time(packed < middle, whole >> 12, whole >> 6 & 63, whole & 63, micros, fraction)
}

fn micros(cells: &mut &[u8], fraction: u8, what: &'static str) -> Result<u64, DecodeError> {
    let bytes = fraction_bytes(fraction);
    Ok(natural_big_endian(take(cells, bytes, what)?) * micros_per_unit(bytes))
}

/// Two digits to a byte.
fn fraction_bytes(fraction: u8) -> usize {
    usize::from(fraction.min(6)).div_ceil(2)
}

fn micros_per_unit(fraction_bytes: usize) -> u64 {
    match fraction_bytes {
        0 | 3 => 1,
        1 => 10_000,
        _ => 100,
    }
}

// The log, with the formats before: little-endian and without a fraction.

pub(crate) fn date(cells: &mut &[u8]) -> Result<String, DecodeError> {
    let packed = natural(take(cells, 3, DATE)?);
    Moment { year: packed >> 9, month: packed >> 5 & 15, day: packed & 31, ..Moment::default() }.date()
}

/// The decimal number YYYYMMDDHHMMSS.
pub(crate) fn old_datetime(cells: &mut &[u8]) -> Result<String, DecodeError> {
    let packed = u64::from_le_bytes(array(cells, DATETIME)?);
    let (date, time) = (packed / 1_000_000, packed % 1_000_000);
    let (year, month, day) = (date / 10_000, date / 100 % 100, date % 100);
    let (hour, minute, second) = (time / 10_000, time / 100 % 100, time % 100);
    Moment { year, month, day, hour, minute, second, micros: 0 }.datetime(0)
}

pub(crate) fn old_timestamp(cells: &mut &[u8]) -> Result<String, DecodeError> {
    let seconds = u32::from_le_bytes(array(cells, DATETIME)?);
    Moment::since_epoch(u64::from(seconds), 0).timestamp(0)
}

/// The decimal number HHMMSS, with a sign.
pub(crate) fn old_time(cells: &mut &[u8]) -> Result<String, DecodeError> {
    const SIGN: u64 = 1 << 23;
    let packed = natural(take(cells, 3, TIME)?);
    let negative = packed & SIGN != 0;
    let packed = if negative { 2 * SIGN - packed } else { packed };
    time(negative, packed / 10_000, packed / 100 % 100, packed % 100, 0, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Read = fn(&mut &[u8]) -> Result<String, DecodeError>;

    #[test]
    fn the_log_is_read() {
        let cases: &[(Read, &[u8], &str)] = &[
            (date, &[0x5d, 0xd0, 0x0f], "2024-02-29"),
            (date, &[0, 0, 0], "0000-00-00"),
            (date, &[0x9f, 0x1f, 0x4e], "9999-12-31"),
            (date, &[0x00, 0xd0, 0x0f], "2024-00-00"),
            (|cells| datetime2(cells, 0), &[0x99, 0xb2, 0xbb, 0x7e, 0xfb], "2024-02-29 23:59:59"),
            (|cells| datetime2(cells, 0), &[0x80, 0, 0, 0, 0], "0000-00-00 00:00:00"),
            (
                |cells| datetime2(cells, 3),
                &[0x99, 0xb2, 0xbb, 0x7e, 0xfb, 0x04, 0xce],
                "2024-02-29 23:59:59.123",
            ),
            (|cells| datetime2(cells, 1), &[0x99, 0xb2, 0xbb, 0x7e, 0xfb, 50], "2024-02-29 23:59:59.5"),
            (
                |cells| datetime2(cells, 6),
                &[0xfe, 0xf3, 0xff, 0x7e, 0xfb, 0x0f, 0x42, 0x3f],
                "9999-12-31 23:59:59.999999",
            ),
            (|cells| timestamp2(cells, 0), &[0, 0, 0, 1], "1970-01-01 00:00:01+00:00"),
            (|cells| timestamp2(cells, 0), &[0x7f, 0xff, 0xff, 0xff], "2038-01-19 03:14:07+00:00"),
            (|cells| timestamp2(cells, 0), &[0xff, 0xff, 0xff, 0xff], "2106-02-07 06:28:15+00:00"),
            (|cells| timestamp2(cells, 2), &[0x65, 0xe0, 0xc8, 0x00, 7], "2024-02-29 18:08:00.07+00:00"),
            (|cells| timestamp2(cells, 3), &[0, 0, 0, 0, 0, 0], "0000-00-00 00:00:00.000+00:00"),
            (|cells| timestamp2(cells, 2), &[0, 0, 0, 0, 50], "1970-01-01 00:00:00.50+00:00"),
            (|cells| time2(cells, 0), &[0x80, 0, 0], "00:00:00"),
            (|cells| time2(cells, 0), &[0xb4, 0x6e, 0xfb], "838:59:59"),
            (|cells| time2(cells, 0), &[0x4b, 0x91, 0x05], "-838:59:59"),
            // The table in the comment of my_time_packed_from_binary.
            (|cells| time2(cells, 2), &[0x80, 0, 0, 0], "00:00:00.00"),
            (|cells| time2(cells, 2), &[0x7f, 0xff, 0xff, 0xff], "-00:00:00.01"),
            (|cells| time2(cells, 2), &[0x7f, 0xff, 0xff, 0x9d], "-00:00:00.99"),
            (|cells| time2(cells, 2), &[0x7f, 0xff, 0xff, 0x00], "-00:00:01.00"),
            (|cells| time2(cells, 2), &[0x7f, 0xff, 0xfe, 0xff], "-00:00:01.01"),
            (|cells| time2(cells, 1), &[0x7f, 0xff, 0xfe, 0xf6], "-00:00:01.1"),
            (|cells| time2(cells, 4), &[0x80, 0, 1, 0x04, 0xd2], "00:00:01.1234"),
            (|cells| time2(cells, 6), &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff], "-00:00:00.000001"),
            (|cells| time2(cells, 6), &[0x4b, 0x91, 0x04, 0xff, 0xff, 0xff], "-838:59:59.000001"),
            (old_datetime, &20_240_229_235_959u64.to_le_bytes(), "2024-02-29 23:59:59"),
            (old_datetime, &[0; 8], "0000-00-00 00:00:00"),
            (old_timestamp, &[0, 0, 0, 0], "0000-00-00 00:00:00+00:00"),
            (old_timestamp, &[0xff, 0xff, 0xff, 0x7f], "2038-01-19 03:14:07+00:00"),
            (old_time, &8_385_959u32.to_le_bytes()[..3], "838:59:59"),
            (old_time, &(-8_385_959i32).to_le_bytes()[..3], "-838:59:59"),
            (old_time, &[0xff, 0xff, 0xff], "-00:00:01"),
        ];
        for (read, bytes, expected) in cases {
            let mut cells = *bytes;
            assert_eq!(read(&mut cells).unwrap(), *expected);
            assert!(cells.is_empty(), "{expected}");
        }
    }

    #[test]
    fn the_binary_protocol_is_read() {
        let day = [0xe8, 0x07, 2, 29];
        assert_eq!(date_from_binary(&day).unwrap(), "2024-02-29");
        assert_eq!(date_from_binary(&[]).unwrap(), "0000-00-00");
        let second = [0xe8, 0x07, 2, 29, 23, 59, 58];
        let micros = [0xe8, 0x07, 2, 29, 23, 59, 58, 0x40, 0xe2, 0x01, 0];
        for (cell, fraction, expected) in [
            (&b""[..], 0, Some("0000-00-00 00:00:00")),
            (&[], 6, Some("0000-00-00 00:00:00.000000")),
            (&day, 0, Some("2024-02-29 00:00:00")),
            (&second, 0, Some("2024-02-29 23:59:58")),
            (&second, 2, Some("2024-02-29 23:59:58.00")),
            (&micros, 6, Some("2024-02-29 23:59:58.123456")),
            (&micros, 3, None),
            (&micros[..10], 6, None),
        ] {
            assert_eq!(datetime_from_binary(cell, fraction).ok().as_deref(), expected);
            let zoned = expected.map(|text| format!("{text}+00:00"));
            assert_eq!(timestamp_from_binary(cell, fraction).ok(), zoned);
        }
        for (cell, fraction, expected) in [
            (&b""[..], 0, Some("00:00:00")),
            (&[], 1, Some("00:00:00.0")),
            (&[0, 0, 0, 0, 0, 1, 2, 3], 0, Some("01:02:03")),
            (&[1, 34, 0, 0, 0, 22, 59, 59], 0, Some("-838:59:59")),
            (&[1, 34, 0, 0, 0, 22, 59, 59, 1, 0, 0, 0], 6, Some("-838:59:59.000001")),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], 6, Some("-00:00:00.000001")),
            (&[0, 34, 0, 0, 0, 23, 0, 0], 0, None),
            (&[0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0], 0, None),
            (&[0, 0, 0, 0], 0, None),
        ] {
            assert_eq!(time_from_binary(cell, fraction).ok().as_deref(), expected);
        }
    }

    #[test]
    fn what_no_server_stores_is_refused() {
        let cases: &[(Read, &[u8])] = &[
            // The 13th month, the 24th hour, the 60th second.
            (date, &[0xbd, 0xd1, 0x0f]),
            (old_datetime, &20_240_229_240_000u64.to_le_bytes()),
            (old_datetime, &[0xff; 8]),
            (old_time, &[60, 0, 0]),
            (|cells| datetime2(cells, 0), &[0x19, 0xb2, 0xbb, 0x7e, 0xfb]),
            (|cells| datetime2(cells, 2), &[0x99, 0xb2, 0xbb, 0x7e, 0xfb, 100]),
            (|cells| datetime2(cells, 1), &[0x99, 0xb2, 0xbb, 0x7e, 0xfb, 55]),
            (|cells| time2(cells, 0), &[0, 0, 0]),
            (|cells| time2(cells, 0), &[0x80, 0]),
        ];
        for (read, bytes) in cases {
            let mut cells = *bytes;
            assert!(read(&mut cells).is_err(), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn the_calendar_counts_every_day(days in 0u64..60_000) {
            let (year, month, day) = civil(days);
            let (next_year, next_month, next_day) = civil(days + 1);
            let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            prop_assert!((1..=length).contains(&day));
            let expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                _ if day == length => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
            prop_assert_eq!((next_year, next_month, next_day), expected);
        }

        #[test]
        fn both_forms_of_a_time_say_the_same(
            negative in any::<bool>(), hour in 0u64..839, minute in 0u64..60, second in 0u64..60, micros in 0u64..1_000_000,
            fraction in 0u8..=6,
        ) {
            let unit = 10u64.pow(u32::from(6 - fraction));
            let micros = micros / unit * unit;
            let negative = negative && hour + minute + second + micros > 0;
            let (days, rest) = (u32::try_from(hour / 24).unwrap(), hour % 24);
            let mut cell = vec![u8::from(negative)];
            cell.extend(days.to_le_bytes());
            cell.extend([rest, minute, second].map(|part| u8::try_from(part).unwrap()));
            cell.extend(u32::try_from(micros).unwrap().to_le_bytes());

            let bytes = fraction_bytes(fraction);
            let distance = (((hour << 12) | (minute << 6) | second) << (8 * bytes)) | (micros / micros_per_unit(bytes));
            let middle = 0x80_0000u64 << (8 * bytes);
            let packed = if negative { middle - distance } else { middle + distance };
            let packed = packed.to_be_bytes();
            let mut cells = &packed[5 - bytes..];
            prop_assert_eq!(time2(&mut cells, fraction), time_from_binary(&cell, fraction));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..13), fraction in any::<u8>()) {
            let reads: [Read; 4] = [date, old_datetime, old_timestamp, old_time];
            for read in reads {
                drop(read(&mut &bytes[..]));
            }
            for read in [datetime2, timestamp2, time2] {
                drop(read(&mut &bytes[..], fraction));
            }
            for read in [datetime_from_binary, timestamp_from_binary, time_from_binary] {
                drop(read(&bytes, fraction));
            }
            drop(date_from_binary(&bytes));
        }
    }
}
