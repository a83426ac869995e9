//! How the server's errors become the contract's: the kind, whether a retry helps, and what the person can do.
//!
//! Nothing of what the server said is lost: a [`DbError`] with its number is the source of each such error.

use std::fmt;

use connector::{Error, ErrorKind, Retry};

/// An ERR packet, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DbError {
    pub(crate) number: u16,
    /// Empty in what a server says before the login.
    pub(crate) sqlstate: String,
    pub(crate) message: String,
}

impl DbError {
    /// Reads an ERR packet, its first byte included; whatever is malformed is left out.
    pub(crate) fn parse(body: &[u8]) -> DbError {
        let body = body.strip_prefix(&[0xff]).unwrap_or(body);
        let Some((number, rest)) = body.split_first_chunk::<2>() else { return DbError::default() };
        let (sqlstate, message) =
            rest.strip_prefix(b"#").and_then(|rest| rest.split_at_checked(5)).unwrap_or((&rest[..0], rest));
        DbError {
            number: u16::from_le_bytes(*number),
            sqlstate: String::from_utf8_lossy(sqlstate).into_owned(),
            message: String::from_utf8_lossy(message).into_owned(),
        }
    }

    /// The server ends the connection with this error.
    pub(crate) fn is_fatal(&self) -> bool {
        // 1153: what is too long for it is not read to its end. 1156 to 1161: its own reading or writing failed.
        matches!(self.number, 1053 | 1152 | 1153 | 1156..=1161 | 1927 | 3169 | 4031)
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {}", self.message, self.number)?;
        if !self.sqlstate.is_empty() {
            write!(f, ", SQLSTATE {}", self.sqlstate)?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for DbError {}

/// What the server answered, as the contract's error.
pub(crate) fn from_server(operation: &'static str, db: DbError) -> Error {
    let (kind, retry, hint) = meaning(&db);
    let error = Error::new(kind, operation).retry(retry);
    let error = match hint {
        Some(hint) => error.hint(hint),
        None => error,
    };
    error.source(db)
}

/// The server's number for the error, if it came from the server.
pub(crate) fn number(error: &Error) -> Option<u16> {
    let db: &DbError = error.source.as_deref()?.downcast_ref()?;
    Some(db.number)
}

/// Number → kind, retry, and a remedy. The first line that fits counts; numbers without a line go by their SQLSTATE.
///
/// After 1205 the server has undone the statement alone, after 1213 the whole transaction: `Later` holds once the
/// caller has rolled back. From about 1900 on the two families have given numbers of their own to different things (4031 is
/// a session that was idle for too long in MySQL, and about triggers in MariaDB): listed are those whose other meaning no
/// statement of ours can have. <https://mariadb.com/kb/en/mariadb-error-code-reference/>,
/// <https://dev.mysql.com/doc/mysql-errors/en/server-error-reference.html>.
fn meaning(db: &DbError) -> (ErrorKind, Retry, Option<&'static str>) {
    use ErrorKind as K;
    use Retry::{Later, Never};
    const LOGIN: &str = "check user and password of the URL, and for which hosts the account is made; a password that \
                         is not in the URL is taken from MYSQL_PWD";
    const TLS: &str = "use sslmode=require";
    const BLOCKED: &str = "run FLUSH HOSTS on the server";
    const GRANT: &str = "grant the right to the user of the URL, or use one that has it";
    const CONNECTIONS: &str = "raise max_connections (or the account's limit), or end sessions";
    const NO_DATABASE: &str = "check the database name at the end of the URL; it must exist already";
    const SPACE: &str = "free space on the server's disk";
    const PACKET: &str = "raise max_allowed_packet on the server, up to 1G";
    const STATEMENTS: &str = "raise max_prepared_stmt_count on the server";
    const LOG: &str = "was the log purged or reset, or the source restored? Begin the migration anew, and keep the log for longer \
     (binlog_expire_logs_seconds)";
    const LOCAL: &str = "set local_infile=ON on the server";
    const PRIMARY: &str = "connect to the primary, with read_only off";
    let says = |words: &str| db.message.contains(words);
    match db.number {
        1045 | 1130 | 1251 | 1698 | 1820 | 1862 | 3118 | 4151 => (K::Login, Never, Some(LOGIN)),
        3159 => (K::Login, Never, Some(TLS)),
        1129 => (K::Setup, Never, Some(BLOCKED)),
        1044 | 1095 | 1142 | 1143 | 1227 | 1370 => (K::Permission, Never, Some(GRANT)),
        1040 | 1203 | 1226 => (K::Connect, Later, Some(CONNECTIONS)),
        1053 | 1152 | 1158..=1161 | 1927 | 2006 | 2013 | 3032 | 3169 | 4031 => (K::Connect, Later, None),
        1049 => (K::Setup, Never, Some(NO_DATABASE)),
        1153 => (K::Setup, Never, Some(PACKET)),
        1148 | 3948 | 4166 => (K::Setup, Never, Some(LOCAL)),
        1290 | 1836 => (K::Setup, Never, Some(PRIMARY)),
        // One number for everything that a dump can fail with; only the words tell them apart.
        1236 if says("same server_uuid/server_id") => (K::Connect, Later, None),
        1236 if says("max_allowed_packet") => (K::Setup, Never, Some(PACKET)),
        1236 => (K::LogLost, Never, Some(LOG)),
        // The view was opened before the table was altered; a new view sees the table.
        1412 => (K::Schema, Later, None),
        1050 | 1051 | 1054 | 1060 | 1061 | 1072 | 1091 | 1146 | 1305 => (K::Schema, Never, None),
        1021 | 1026 | 1114 => (K::Io, Later, Some(SPACE)),
        1461 => (K::Database, Later, Some(STATEMENTS)),
        // Locks, memory, and what was interrupted.
        1020 | 1205 | 1206 | 1213 | 1615 | 1689 | 3572 => (K::Database, Later, None),
        1037 | 1038 | 1041 | 1317 | 1969 | 3024 => (K::Database, Later, None),
        1048 | 1062 | 1118 | 1216 | 1217 | 1264 | 1265 | 1292 | 1300 | 1364 | 1366 | 1367 | 1406 | 1411
        | 1416 | 1451 | 1452 | 1586 | 1690 | 3140 | 3819 | 4025 => (K::Refused, Never, None),
        _ => match db.sqlstate.get(..2) {
            Some("08") => (K::Connect, Later, None),
            Some("28") => (K::Login, Never, Some(LOGIN)),
            Some("22" | "23") => (K::Refused, Never, None),
            Some("40") => (K::Database, Later, None),
            Some("42") if db.sqlstate.starts_with("42S") => (K::Schema, Never, None),
            _ => (K::Database, Never, None),
        },
    }
}

/// Bytes that are not the protocol.
pub(crate) fn corrupt(operation: &'static str, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, operation).with("protocol:", what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn db(number: u16, sqlstate: &str, message: &str) -> DbError {
        DbError { number, sqlstate: sqlstate.to_owned(), message: message.to_owned() }
    }

    #[test]
    fn packets_are_read() {
        for (body, expected) in [
            (
                &b"\xff\x7a\x04#42S02Table 'd.t' doesn't exist"[..],
                db(1146, "42S02", "Table 'd.t' doesn't exist"),
            ),
            (b"\xff\x10\x04Too many connections", db(1040, "", "Too many connections")),
            (b"\xff\x10\x04#08", db(1040, "", "#08")),
            (b"\xff\x10", db(0, "", "")),
            (b"", db(0, "", "")),
        ] {
            assert_eq!(DbError::parse(body), expected, "{body:?}");
        }
    }

    #[test]
    fn the_server_is_the_source() {
        let error = from_server("load a chunk", db(1062, "23000", "Duplicate entry '1' for key 'PRIMARY'"));
        assert_eq!((error.kind, error.retry, number(&error)), (ErrorKind::Refused, Retry::Never, Some(1062)));
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "Duplicate entry '1' for key 'PRIMARY' (error 1062, SQLSTATE 23000)");
        assert_eq!(db(1040, "", "Too many connections").to_string(), "Too many connections (error 1040)");
    }

    #[test]
    fn numbers_have_kinds() {
        use ErrorKind as K;
        use Retry::{Later, Never};
        for (number, sqlstate, message, kind, retry) in [
            (1045, "28000", "", K::Login, Never),
            (1044, "42000", "", K::Permission, Never),
            (1227, "42000", "", K::Permission, Never),
            (1040, "08004", "", K::Connect, Later),
            (1927, "70100", "", K::Connect, Later),
            (4031, "HY000", "", K::Connect, Later),
            (1049, "42000", "", K::Setup, Never),
            (1153, "08S01", "", K::Setup, Never),
            (1290, "HY000", "", K::Setup, Never),
            (1146, "42S02", "", K::Schema, Never),
            (1412, "HY000", "", K::Schema, Later),
            (1213, "40001", "", K::Database, Later),
            (1205, "HY000", "", K::Database, Later),
            (1317, "70100", "", K::Database, Later),
            (1366, "22007", "", K::Refused, Never),
            (3819, "HY000", "", K::Refused, Never),
            (4025, "23000", "", K::Refused, Never),
            (1114, "HY000", "", K::Io, Later),
            (1236, "HY000", "Could not find first log file name in binary log index file", K::LogLost, Never),
            (
                1236,
                "HY000",
                "A slave with the same server_uuid/server_id as this slave has connected to the master",
                K::Connect,
                Later,
            ),
            (1236, "HY000", "log event entry exceeded max_allowed_packet", K::Setup, Never),
            (9999, "08S01", "", K::Connect, Later),
            (9999, "22003", "", K::Refused, Never),
            (9999, "40002", "", K::Database, Later),
            (9999, "42S99", "", K::Schema, Never),
            (9999, "42000", "", K::Database, Never),
            (9999, "é1", "", K::Database, Never),
            (0, "", "", K::Database, Never),
        ] {
            let (found_kind, found_retry, _) = meaning(&db(number, sqlstate, message));
            assert_eq!((found_kind, found_retry), (kind, retry), "{number} {sqlstate} {message}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error(body in proptest::collection::vec(any::<u8>(), 0..40)) {
            let db = DbError::parse(&body);
            from_server("read", db);
        }
    }
}
