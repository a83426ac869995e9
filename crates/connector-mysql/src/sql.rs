//! The one place that quotes, and the pieces of SQL that several parts build.

use model::TableName;

/// A name as an identifier; always quoted, so that no name is ever taken for a keyword.
pub(crate) fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

pub(crate) fn table(name: &TableName) -> String {
    format!("{}.{}", ident(&name.schema), ident(&name.name))
}

/// Text as a string literal, for statements that take no parameters. Right only without NO_BACKSLASH_ESCAPES, which our
/// sessions never have.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

pub(crate) fn list<T>(items: impl IntoIterator<Item = T>, each: impl FnMut(T) -> String) -> String {
    items.into_iter().map(each).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(ident("a`b"), "`a``b`");
        assert_eq!(literal("it's \\ here"), "'it''s \\\\ here'");
        assert_eq!(table(&TableName::new("Shop", "select")), "`Shop`.`select`");
    }
}
