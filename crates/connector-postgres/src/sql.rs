//! The one place that quotes, and the pieces of SQL that several parts build.

use model::TableName;

/// A name as an identifier; always quoted, so that no name is ever taken for a keyword or folded.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(crate) fn table(name: &TableName) -> String {
    format!("{}.{}", ident(&name.schema), ident(&name.name))
}

/// Text as a string literal, for the statements that take no parameters (COPY, replication commands, LOCK).
/// The E form is right whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

pub(crate) fn list<T>(items: impl IntoIterator<Item = T>, each: impl FnMut(T) -> String) -> String {
    items.into_iter().map(each).collect::<Vec<_>>().join(", ")
}

/// A slot's and publication's name for a stream. Slots allow `[a-z0-9_]` and 63 bytes; what had to be changed gets a
/// digest of the whole name, so that two streams never share one.
pub(crate) fn object_name(stream: &str) -> String {
    let plain: String = stream
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' { c } else { '_' })
        .collect();
    if plain == stream && plain.len() <= 50 {
        return format!("crossfade_{plain}");
    }
    let digest = stream.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let short: String = plain.chars().take(36).collect();
    format!("crossfade_{short}_{digest:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's \\ here"), "E'it''s \\\\ here'");
        assert_eq!(table(&TableName::new("Public", "select")), "\"Public\".\"select\"");
    }

    #[test]
    fn object_names_fit_and_differ() {
        assert_eq!(object_name("shop"), "crossfade_shop");
        assert_ne!(object_name("shop-a"), object_name("shop_a"));
        assert!(object_name(&"x".repeat(200)).len() <= 63);
    }
}
