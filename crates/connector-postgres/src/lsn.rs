//! Places in the write-ahead log: `16/B374D848` for people, one number for comparing.

use model::Position;

/// Parses `X/Y` as PostgreSQL prints it.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u32::from_str_radix(digits, 16).ok())?
    };
    Some(u64::from(part(high)?) << 32 | u64::from(part(low)?))
}

pub(crate) fn format(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

pub(crate) fn position(lsn: u64) -> Position {
    Position { order: lsn, text: format(lsn) }
}

/// The insert position can stand just behind a page's header, where no record ends and which no flush position equals
/// until more is written: then the page's beginning says the same.
pub(crate) fn without_header(lsn: u64) -> u64 {
    const PAGE: u64 = 8192;
    /// The long form, of a segment's first page.
    const HEADER_MAX: u64 = 40;
    let within = lsn % PAGE;
    if within <= HEADER_MAX { lsn - within } else { lsn }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_behind_a_pages_header_is_the_pages_beginning() {
        for (lsn, expected) in
            [(8192, 8192), (8192 + 24, 8192), (8192 + 40, 8192), (8192 + 48, 8192 + 48), (5, 0)]
        {
            assert_eq!(without_header(lsn), expected);
        }
    }

    #[test]
    fn both_forms_agree() {
        for (text, lsn) in [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/FFFFFFFF", u64::MAX)] {
            assert_eq!(parse(text), Some(lsn));
            assert_eq!(format(lsn), text);
        }
        for bad in ["", "/", "1", "1/", "/1", "1/2/3", "+1/2", "1/x", "100000000/0"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
