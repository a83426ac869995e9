//! What somebody probably meant to type.

/// The known word with the smallest edit distance, if it is near enough to be what was meant.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (distance(typed, word), word))
        .min()
        // Beyond a third of the letters a guess misleads more often than it helps.
        .filter(|(distance, word)| *distance <= 1 + word.chars().count().max(typed.chars().count()) / 3)
        .map(|(_, word)| word)
}

/// Levenshtein's distance: insertions, deletions and replacements of one character.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let known = ["source", "target", "tables", "copy"];
        for (typed, meant) in [
            ("sorce", Some("source")),
            ("Target", Some("target")),
            ("table", Some("tables")),
            ("copies", Some("copy")),
            ("zzzzzz", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }
}
