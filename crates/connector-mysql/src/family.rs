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

    /// A collation under which text is equal only where its bytes are: `utf8mb4_bin` takes 'a' and 'a ' for one.
    pub(crate) fn exact_collation(self) -> &'static str {
        match self.kind {
            Kind::MariaDb => "utf8mb4_nopad_bin",
            Kind::MySql => "utf8mb4_0900_bin",
        }
    }

    /// Takes the limits and additions off a session that writes which only one of the two knows.
    pub(crate) fn unlimited(self) -> &'static str {
        match self.kind {
            Kind::MariaDb => {
                "SET max_statement_time = 0, idle_transaction_timeout = 0, idle_write_transaction_timeout = 0, \
                 idle_readonly_transaction_timeout = 0"
            }
            Kind::MySql => "SET information_schema_stats_expiry = 0, sql_generate_invisible_primary_key = 0",
        }
    }

    /// The setting under which no table without a primary key is created.
    pub(crate) fn forces_keys(self) -> &'static str {
        match self.kind {
            Kind::MariaDb => "innodb_force_primary_key",
            Kind::MySql => "sql_require_primary_key",
        }
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
