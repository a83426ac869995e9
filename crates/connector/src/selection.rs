//! Which tables a migration is about.

use model::TableName;

/// Patterns over `schema.table`, with `*` for any run of characters and `?` for one. A pattern without a dot
/// speaks of the table's name in every schema.
#[derive(Clone, Debug)]
pub struct Selection {
    pub include: Vec<String>,
}

impl Selection {
    pub fn everything() -> Selection {
        Selection { include: vec!["*".to_owned()] }
    }

    pub fn is_everything(&self) -> bool {
        self.include.iter().any(|pattern| pattern == "*" || pattern == "*.*")
    }

    pub fn contains(&self, table: &TableName) -> bool {
        let qualified = table.to_string();
        self.include.iter().any(|pattern| {
            let subject = if pattern.contains('.') { &qualified } else { &table.name };
            matches(pattern.as_bytes(), subject.as_bytes())
        })
    }
}

fn matches(pattern: &[u8], subject: &[u8]) -> bool {
    match (pattern.split_first(), subject.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => matches(rest, subject),
        (Some((b'*', rest)), Some((_, tail))) => matches(rest, subject) || matches(pattern, tail),
        (Some((b'?', rest)), Some((_, tail))) => matches(rest, tail),
        (Some((a, rest)), Some((b, tail))) => a == b && matches(rest, tail),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, table, selected) in [
            ("public.*", TableName::new("public", "orders"), true),
            ("public.*", TableName::new("audit", "orders"), false),
            ("orders", TableName::new("audit", "orders"), true),
            ("order?", TableName::new("public", "orders"), true),
            ("*.o*s", TableName::new("public", "orders"), true),
            ("*.o*s", TableName::new("public", "order"), false),
            ("public.orders", TableName::new("public", "orders_old"), false),
        ] {
            let selection = Selection { include: vec![pattern.to_owned()] };
            assert_eq!(selection.contains(&table), selected, "{pattern} on {table}");
        }
    }
}
