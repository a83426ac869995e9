//! Which of the two it is, and how old: they have grown apart in statements, in their logs and in what a snapshot is.

use std::fmt;

/// As the server's greeting names its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Family {
    kind: Kind,
    /// Major and minor: `(10, 11)`.
    pub(crate) version: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    MariaDb,
    MySql,
}

impl Family {
    /// `10.11.6-MariaDB-log`; before 11.0 MariaDB puts `5.5.5-` in front, for replicas that know no version of two digits.
    pub(crate) fn parse(version: &str) -> Family {
        let kind = if version.contains("MariaDB") { Kind::MariaDb } else { Kind::MySql };
        let own = match kind {
            Kind::MariaDb => version.strip_prefix("5.5.5-").unwrap_or(version),
            Kind::MySql => version,
        };
        let mut numbers = own.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Family { kind, version }
    }

    pub(crate) fn is_mariadb(self) -> bool {
        self.kind == Kind::MariaDb
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::MariaDb => "MariaDB",
            Kind::MySql => "MySQL",
        };
        write!(f, "{name} {}.{}", self.version.0, self.version.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (greeting, shown) in [
            ("5.5.5-10.11.6-MariaDB-log", "MariaDB 10.11"),
            ("11.8.2-MariaDB", "MariaDB 11.8"),
            ("5.6.24-log", "MySQL 5.6"),
            ("9.7.4", "MySQL 9.7"),
            ("", "MySQL 0.0"),
        ] {
            assert_eq!(Family::parse(greeting).to_string(), shown);
        }
    }
}
