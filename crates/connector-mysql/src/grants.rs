//! What a user may do, as `SHOW GRANTS` tells it.

/// `GRANT SELECT, REPLICATION SLAVE ON *.* TO …`
#[derive(Debug, PartialEq)]
pub(crate) struct Grant<'a> {
    rights: &'a str,
    /// `*.*`, `` `shop`.* ``, `` `shop`.`t` ``
    place: &'a str,
}

impl<'a> Grant<'a> {
    /// `None` for what gives no rights at a place: a role, a proxy.
    pub(crate) fn parse(text: &'a str) -> Option<Grant<'a>> {
        let (rights, rest) = text.strip_prefix("GRANT ")?.split_once(" ON ")?;
        let (place, _) = rest.split_once(" TO ")?;
        Some(Grant { rights, place })
    }

    /// One of these rights, or all.
    pub(crate) fn gives(&self, names: &[&str]) -> bool {
        self.rights.split(", ").any(|right| right == "ALL PRIVILEGES" || names.contains(&right))
    }

    pub(crate) fn is_everywhere(&self) -> bool {
        self.place == "*.*"
    }

    /// All of a database. Its name in a grant is a pattern, so that an underscore is often written `\_`.
    pub(crate) fn covers(&self, database: &str) -> bool {
        let pattern = self.place.strip_suffix("`.*").and_then(|place| place.strip_prefix('`'));
        self.is_everywhere()
            || pattern.is_some_and(|pattern| like(pattern.replace("``", "`").as_bytes(), database.as_bytes()))
    }
}

fn like(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'%', rest @ ..], _) => like(rest, name) || (!name.is_empty() && like(pattern, &name[1..])),
        ([b'\\', expected, rest @ ..], [found, name @ ..]) => expected == found && like(rest, name),
        ([b'_', rest @ ..], [_, name @ ..]) => like(rest, name),
        ([expected, rest @ ..], [found, name @ ..]) => expected == found && like(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_and_where_they_hold() {
        for (text, right, everywhere, shop) in [
            ("GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION", true, true, true),
            ("GRANT SELECT, INSERT ON *.* TO `a`@`%`", true, true, true),
            ("GRANT SELECT ON `my_shop`.* TO `a`@`%`", true, false, true),
            ("GRANT SELECT ON `my\\_shop`.* TO `a`@`%`", true, false, true),
            ("GRANT SELECT ON `my%`.* TO `a`@`%`", true, false, true),
            ("GRANT SELECT ON `my`.* TO `a`@`%`", true, false, false),
            ("GRANT SELECT ON `my_shop`.`t` TO `a`@`%`", true, false, false),
            ("GRANT SELECT (id) ON `my_shop`.* TO `a`@`%`", false, false, true),
            ("GRANT REPLICATION SLAVE ADMIN ON *.* TO `a`@`%`", false, true, true),
        ] {
            let grant = Grant::parse(text).unwrap();
            let found = (grant.gives(&["SELECT"]), grant.is_everywhere(), grant.covers("my_shop"));
            assert_eq!(found, (right, everywhere, shop), "{text}");
        }
        assert_eq!(Grant::parse("GRANT `reader` TO `a`@`%`"), None);
    }
}
