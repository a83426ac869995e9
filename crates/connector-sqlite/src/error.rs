//! From SQLite's result codes to the contract's kinds of error.

use connector::{Error, ErrorKind, Retry};
use rusqlite::ErrorCode;

/// Says what was being done when SQLite reported an error.
pub(crate) trait During<T> {
    fn during(self, operation: &'static str) -> connector::Result<T>;
}

impl<T> During<T> for rusqlite::Result<T> {
    fn during(self, operation: &'static str) -> connector::Result<T> {
        self.map_err(|error| describe(error, operation))
    }
}

pub(crate) fn describe(error: rusqlite::Error, operation: &'static str) -> Error {
    let (kind, retry, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Database,
            Retry::Later,
            Some(
                "Another process holds SQLite's write lock for longer than our timeout: look for a transaction that is left open.",
            ),
        ),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
            (ErrorKind::Refused, Retry::Never, None)
        }
        Some(
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied,
        ) => (
            ErrorKind::Permission,
            Retry::Never,
            Some("The file and its folder must be writable: SQLite keeps its -wal and -shm files beside it."),
        ),
        Some(ErrorCode::CannotOpen) => (
            ErrorKind::Io,
            Retry::Never,
            Some("Does the file's folder exist, and may this user write to it?"),
        ),
        Some(ErrorCode::DiskFull) => {
            (ErrorKind::Io, Retry::Later, Some("Free space on the disk and run again."))
        }
        Some(ErrorCode::SystemIoFailure) => (ErrorKind::Io, Retry::Later, None),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (ErrorKind::Corrupt, Retry::Never, Some("See what `PRAGMA integrity_check` says about the file."))
        }
        Some(ErrorCode::SchemaChanged) => (ErrorKind::Database, Retry::Later, None),
        _ => (ErrorKind::Database, Retry::Never, None),
    };
    let described = Error::new(kind, operation).retry(retry).source(error);
    match hint {
        Some(hint) => described.hint(hint),
        None => described,
    }
}

/// A commit that failed while it was being written may be found in the file all the same when it is opened again.
pub(crate) fn committing(error: Error) -> Error {
    if error.kind == ErrorKind::Io { error.retry(Retry::Unknown) } else { error }
}

/// SQLite is waiting for another process: nothing was changed, and later it works.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// A unique index or a primary key refused a row.
pub(crate) fn is_unique(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi;
    matches!(
        error,
        rusqlite::Error::SqliteFailure(failure, _)
            if [
                ffi::SQLITE_CONSTRAINT_UNIQUE,
                ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
                ffi::SQLITE_CONSTRAINT_ROWID
            ]
            .contains(&failure.extended_code)
    )
}
