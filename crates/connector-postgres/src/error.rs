//! How PostgreSQL's errors become the contract's: the kind, whether a retry helps, and what the person can do.
//!
//! Nothing of what the server said is lost: a [`DbError`] with its SQLSTATE is the source of each such error.

use std::fmt;

use connector::{Error, ErrorKind, Retry};

/// An ErrorResponse, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DbError {
    pub(crate) severity: String,
    pub(crate) sqlstate: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) table: Option<String>,
    pub(crate) column: Option<String>,
    pub(crate) constraint: Option<String>,
    /// Where in the server it happened: the line of a COPY, the function.
    pub(crate) place: Option<String>,
}

impl DbError {
    /// Reads the fields of an ErrorResponse or a NoticeResponse; whatever is malformed is left out.
    pub(crate) fn parse(mut body: &[u8]) -> DbError {
        let mut error = DbError::default();
        while let Some((&code, rest)) = body.split_first() {
            let Some(end) = rest.iter().position(|&byte| byte == 0) else { break };
            let text = String::from_utf8_lossy(&rest[..end]).into_owned();
            match code {
                // 'V' is the severity untranslated; older servers and poolers may send 'S' alone.
                b'V' => error.severity = text,
                b'S' if error.severity.is_empty() => error.severity = text,
                b'C' => error.sqlstate = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                b's' => error.schema = Some(text),
                b't' => error.table = Some(text),
                b'c' => error.column = Some(text),
                b'n' => error.constraint = Some(text),
                b'W' => error.place = Some(text),
                _ => {}
            }
            body = &rest[end + 1..];
        }
        error
    }

    /// The server ends the connection with this error.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        // The first line says where; the rest repeats the statement.
        match self.place.as_deref().and_then(|place| place.lines().next()) {
            Some(place) => write!(f, "; at {place}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for DbError {}

/// What the server answered, as the contract's error.
pub(crate) fn from_server(operation: &'static str, db: DbError) -> Error {
    let (kind, retry, hint) = meaning(&db.sqlstate);
    let mut error = Error::new(kind, operation).retry(retry);
    if let Some(table) = &db.table {
        error = match &db.schema {
            Some(schema) => error.with("table", format!("{schema}.{table}")),
            None => error.with("table", table),
        };
    }
    if let Some(column) = &db.column {
        error = error.with("column", column);
    }
    if let Some(constraint) = &db.constraint {
        error = error.with("constraint", constraint);
    }
    if let Some(hint) = db.hint.as_deref().or(hint) {
        error = error.hint(hint);
    }
    error.source(db)
}

/// The SQLSTATE, if the error came from the server.
pub(crate) fn sqlstate(error: &Error) -> Option<&str> {
    db_error(error).map(|db| db.sqlstate.as_str())
}

pub(crate) fn db_error(error: &Error) -> Option<&DbError> {
    error.source.as_deref()?.downcast_ref()
}

/// SQLSTATE → kind, retry, and a remedy where the server itself seldom gives one. The first line that fits counts.
fn meaning(sqlstate: &str) -> (ErrorKind, Retry, Option<&'static str>) {
    use ErrorKind as K;
    use Retry::{Later, Never};
    const LOGIN: &str = "check user and password of the URL, and pg_hba.conf of the server";
    const GRANT: &str = "grant the right to the user of the URL, or use one that has it";
    const CONNECTIONS: &str = "raise max_connections (or the role's CONNECTION LIMIT), or end sessions";
    const NO_DATABASE: &str = "check the database name at the end of the URL; it must exist already";
    const SPACE: &str = "free space on the server's disk";
    let (kind, retry, hint) = match sqlstate {
        "28P01" | "28000" => (K::Login, Never, Some(LOGIN)),
        "3D000" => (K::Setup, Never, Some(NO_DATABASE)),
        "42501" => (K::Permission, Never, Some(GRANT)),
        "53300" => (K::Connect, Later, Some(CONNECTIONS)),
        "57P01" | "57P02" | "57P03" | "57P05" => (K::Connect, Later, None),
        "57P04" => (K::Connect, Never, None),
        "42P01" | "42703" | "42704" | "42883" | "42P06" | "42P07" | "42701" | "42710" | "3F000" => {
            (K::Schema, Never, None)
        }
        "40001" | "40P01" | "55P03" | "55006" | "57014" | "53200" => (K::Database, Later, None),
        "53100" => (K::Io, Later, Some(SPACE)),
        "58030" | "58P01" | "58P02" => (K::Io, Never, None),
        // A standby, or a role or database that is read-only.
        "25006" => (K::Setup, Never, Some("connect to the primary, with default_transaction_read_only off")),
        _ => match sqlstate.get(..2) {
            Some("08") => (K::Connect, Later, None),
            Some("28") => (K::Login, Never, Some(LOGIN)),
            Some("22" | "23" | "54") => (K::Refused, Never, None),
            Some("XX") => (K::Database, Never, None),
            _ => (K::Database, Never, None),
        },
    };
    (kind, retry, hint)
}

/// Bytes that are not the protocol.
pub(crate) fn corrupt(operation: &'static str, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, operation).with("protocol:", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_kept() {
        let body = b"SERROR\0VERROR\0C23505\0Mduplicate key\0DKey (id)=(1) already exists.\0spublic\0tt\0nt_pkey\0\0";
        let error = from_server("apply", DbError::parse(body));
        assert_eq!(error.kind, ErrorKind::Refused);
        assert_eq!(sqlstate(&error), Some("23505"));
        assert_eq!(error.to_string(), "could not apply: table public.t, constraint t_pkey");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "duplicate key (SQLSTATE 23505); Key (id)=(1) already exists.");
    }

    #[test]
    fn a_truncated_error_is_still_one() {
        for cut in 0..20 {
            DbError::parse(&b"SFATAL\0C57P01\0Mterminating"[..cut]);
        }
        assert!(DbError::parse(b"SFATAL\0").is_fatal());
    }

    #[test]
    fn states_have_kinds() {
        for (state, kind, retry) in [
            ("28P01", ErrorKind::Login, Retry::Never),
            ("42501", ErrorKind::Permission, Retry::Never),
            ("57P01", ErrorKind::Connect, Retry::Later),
            ("08006", ErrorKind::Connect, Retry::Later),
            ("53300", ErrorKind::Connect, Retry::Later),
            ("22003", ErrorKind::Refused, Retry::Never),
            ("23514", ErrorKind::Refused, Retry::Never),
            ("40P01", ErrorKind::Database, Retry::Later),
            ("55006", ErrorKind::Database, Retry::Later),
            ("42P01", ErrorKind::Schema, Retry::Never),
            ("53100", ErrorKind::Io, Retry::Later),
            ("", ErrorKind::Database, Retry::Never),
            ("é1", ErrorKind::Database, Retry::Never),
        ] {
            let (found_kind, found_retry, _) = meaning(state);
            assert_eq!((found_kind, found_retry), (kind, retry), "{state}");
        }
    }
}
