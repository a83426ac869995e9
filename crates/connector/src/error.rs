//! What went wrong in a database, and whether trying again can help.

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// An error at the connector's edge. `Display` says what failed on which object and does not repeat `source`:
/// the binary prints the chain once, then the hint.
#[derive(Debug)]
pub struct Error {
    pub kind: ErrorKind,
    pub retry: Retry,
    /// What was being done, as a phrase that "failed" or "was refused" can follow: `read a chunk`.
    pub operation: &'static str,
    pub context: Vec<(&'static str, String)>,
    /// What the person can do: the SQL or the setting.
    pub hint: Option<String>,
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The server could not be reached, or the connection was lost.
    Connect,
    /// The server knows the user or the password differently.
    Login,
    /// A right is missing.
    Permission,
    /// A setting of the server or of the migration stands in the way.
    Setup,
    /// Tables, columns or types are not what was planned.
    Schema,
    /// The database refused a value or a row (a constraint, a length, an encoding).
    Refused,
    /// A row that must be there is not, or one that must not be there is: a rule was broken, or somebody else
    /// writes to the target.
    Conflict,
    /// A newer owner has taken this migration over.
    Fenced,
    /// The target has less than it had: it was restored from a backup, or a replica that was behind took its place.
    WentBack,
    /// The log does not reach back to where we stand: a slot dropped or advanced, a binlog purged.
    LogLost,
    /// Bytes that cannot be what the protocol or the format says.
    Corrupt,
    /// The operating system refused: disk full, no such file.
    Io,
    /// The database reported something else.
    Database,
}

impl ErrorKind {
    /// The stable code under which the documentation explains the error.
    pub fn code(self) -> &'static str {
        match self {
            ErrorKind::Connect => "CF-CONNECT",
            ErrorKind::Login => "CF-LOGIN",
            ErrorKind::Permission => "CF-PERMISSION",
            ErrorKind::Setup => "CF-SETUP",
            ErrorKind::Schema => "CF-SCHEMA",
            ErrorKind::Refused => "CF-REFUSED",
            ErrorKind::Conflict => "CF-CONFLICT",
            ErrorKind::Fenced => "CF-FENCED",
            ErrorKind::WentBack => "CF-WENT-BACK",
            ErrorKind::LogLost => "CF-LOG-LOST",
            ErrorKind::Corrupt => "CF-CORRUPT",
            ErrorKind::Io => "CF-IO",
            ErrorKind::Database => "CF-DATABASE",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same call may succeed later; nothing was changed, or what was changed was undone.
    Later,
    Never,
    /// The write may have landed. Only reading the progress back can tell; nobody may guess.
    Unknown,
}

impl Error {
    pub fn new(kind: ErrorKind, operation: &'static str) -> Error {
        let retry = match kind {
            ErrorKind::Connect => Retry::Later,
            _ => Retry::Never,
        };
        Error { kind, retry, operation, context: Vec::new(), hint: None, source: None }
    }

    /// `missing` was on record in the target while this process ran, and is not any more.
    pub fn went_back(missing: impl fmt::Display) -> Error {
        Error::new(ErrorKind::WentBack, "go on with a target that has less than it had while this process ran")
            .with("missing", missing)
            .hint(
                "was it restored from a backup, or did a replica take its place? Run again: it goes on from what the \
                 target has now, or says that the journal does not reach back that far",
            )
    }

    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Error {
        self.context.push((name, value.to_string()));
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    pub fn retry(mut self, retry: Retry) -> Error {
        self.retry = retry;
        self
    }

    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}", self.operation)?;
        for (at, (name, value)) in self.context.iter().enumerate() {
            write!(f, "{}{name} {value}", if at == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_deref()?)
    }
}
