//! SQL text: the one place where names and literals are quoted. Values are bound, never written into a statement;
//! a literal is only for a trigger's body, which cannot have parameters.

/// An identifier, quoted.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `a, b, c`, each item as `write` gives it.
pub(crate) fn list<T>(items: impl IntoIterator<Item = T>, write: impl FnMut(T) -> String) -> String {
    items.into_iter().map(write).collect::<Vec<_>>().join(", ")
}

/// `a AND b AND c`; true for no items.
pub(crate) fn all<T>(items: impl IntoIterator<Item = T>, write: impl FnMut(T) -> String) -> String {
    let joined = items.into_iter().map(write).collect::<Vec<_>>().join(" AND ");
    if joined.is_empty() { "1".to_owned() } else { joined }
}

/// The elements between the first bracket of a `CREATE INDEX` statement and its partner, without ASC or DESC:
/// `CREATE UNIQUE INDEX i ON t (a, lower(b) DESC)` gives `a` and `lower(b)`.
pub(crate) fn index_elements(create: &str) -> Vec<String> {
    let mut elements = Vec::new();
    let mut element = String::new();
    let mut depth = 0;
    let mut rest = create.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '-' if rest.peek() == Some(&'-') => {
                rest.by_ref().find(|&skipped| skipped == '\n');
                element.push(' ');
                continue;
            }
            '/' if rest.peek() == Some(&'*') => {
                rest.next();
                let mut before = ' ';
                while let Some(skipped) = rest.next()
                    && !(before == '*' && skipped == '/')
                {
                    before = skipped;
                }
                element.push(' ');
                continue;
            }
            '\'' | '"' | '`' | '[' => {
                let close = if next == '[' { ']' } else { next };
                element.push(next);
                for quoted in rest.by_ref() {
                    element.push(quoted);
                    // A doubled quote closes and opens again: the same text either way.
                    if quoted == close {
                        break;
                    }
                }
                continue;
            }
            '(' => {
                depth += 1;
                if depth == 1 {
                    element.clear();
                    continue;
                }
            }
            ')' => {
                depth -= 1;
                if depth == 0 {
                    elements.push(element);
                    break;
                }
            }
            ',' if depth == 1 => {
                elements.push(std::mem::take(&mut element));
                continue;
            }
            _ => {}
        }
        element.push(next);
    }
    elements.iter().map(|element| without_order(element.trim())).collect()
}

fn without_order(element: &str) -> String {
    match element.rsplit_once(char::is_whitespace) {
        Some((before, word)) if word.eq_ignore_ascii_case("asc") || word.eq_ignore_ascii_case("desc") => {
            before.trim().to_owned()
        }
        _ => element.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_an_index() {
        for (create, elements) in [
            ("CREATE UNIQUE INDEX i ON t (a, lower(b) DESC)", vec!["a", "lower(b)"]),
            (
                "CREATE UNIQUE INDEX \"i(\" ON t(substr(a, 1, 2) COLLATE NOCASE asc) WHERE (a > 1)",
                vec!["substr(a, 1, 2) COLLATE NOCASE"],
            ),
            ("CREATE UNIQUE INDEX i ON t(a || ',)' -- (\n, [b,c] /* ) */)", vec!["a || ',)'", "[b,c]"]),
        ] {
            assert_eq!(index_elements(create), elements, "{create}");
        }
    }

    #[test]
    fn quotes() {
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
    }
}
