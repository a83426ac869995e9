//! What can go wrong with the journal, each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// `Display` names the object and does not repeat `source`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not {operation} {}", .path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    /// Bytes that had been durable are not what was written.
    #[error("the journal is damaged at byte {offset} of {}: {what}", .path.display())]
    Corrupt { path: PathBuf, offset: u64, what: &'static str },
    #[error("{} is in journal format {found}, and this program reads format {expected}", .path.display())]
    Format { path: PathBuf, found: u8, expected: u8 },
    #[error(
        "the journal in {} no longer holds transaction {from_seq}, only {first_seq} and later",
        .dir.display()
    )]
    Trimmed { dir: PathBuf, from_seq: u64, first_seq: u64 },
    /// The next transaction would get a number that has been given to another one.
    #[error(
        "the journal in {} has no transaction {from_seq}: the next one that it takes is number {next_seq}",
        .dir.display()
    )]
    Lost { dir: PathBuf, from_seq: u64, next_seq: u64 },
    #[error("the journal in {} belongs to epoch {found}, and this process has epoch {epoch}", .dir.display())]
    Fenced { dir: PathBuf, epoch: u64, found: u64 },
    #[error("one change is {bytes} bytes, and the journal takes at most {bytes_max} in one change")]
    TooLarge { bytes: usize, bytes_max: usize },
    /// A failed write or fsync is never retried: the kernel may have dropped the pages and report success.
    #[error("the journal segment {} takes nothing more after its earlier error", .path.display())]
    Poisoned { path: PathBuf },
}

impl Error {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { operation, path: path.to_owned(), source }
    }

    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free space on that disk and run again: it goes on from the last durable transaction"
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "make the folder writable for the user that runs crossfade"
                }
                _ => "check that disk and run again: it goes on from the last durable transaction",
            },
            Error::Corrupt { .. } => {
                "restore the file from a copy and run again, or begin a new migration into an empty target; do not \
                 delete the file: the source may have freed what it holds"
            }
            Error::Format { .. } => "go on with the version of crossfade that wrote it",
            Error::Trimmed { .. } => {
                "the target is older than the journal (was it restored from a backup?): begin a new migration"
            }
            Error::Lost { .. } => {
                "the journal's folder was lost, emptied, or belongs to another migration: put the right one back, or \
                 begin a new migration"
            }
            Error::Fenced { .. } => {
                "another process has taken the migration over: let that one run, or run again if it has ended. If there \
                 was none, the folder belongs to another target"
            }
            Error::TooLarge { .. } => {
                "leave the table of that row out of the migration and move it by itself"
            }
            Error::Poisoned { .. } => "run again: it goes on from the last durable transaction",
        };
        Some(hint.to_owned())
    }
}
