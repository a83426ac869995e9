//! Why a feed cannot go on.

use std::path::PathBuf;

use model::TableName;

use crate::{journal, merge, relation};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Connector(#[from] connector::Error),
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error(transparent)]
    Merge(#[from] merge::Error),
    #[error(transparent)]
    Relation(#[from] relation::Error),
    #[error("the source's tables are not the planned ones any more: {what}")]
    SchemaChanged { what: String },
    #[error("could not {operation} {path}")]
    Folder {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is not what this program wrote")]
    FolderContent {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the target has records of a migration named {name}, and the folder {dir} knows nothing of it")]
    UnknownMigration { name: String, dir: PathBuf },
    #[error(
        "the journal in {dir} ends at transaction {journal_seq}, and the target has {applied_seq} of them"
    )]
    JournalBehind { dir: PathBuf, journal_seq: u64, applied_seq: u64 },
    #[error("table {table} has no format of chunk data that both sides speak")]
    NoFormat { table: TableName },
    #[error("the task that {what} ended unexpectedly: {reason}")]
    Task { what: &'static str, reason: String },
}

impl Error {
    /// The stable code under which the documentation explains the error.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Connector(error) => error.kind.code(),
            Error::Journal(journal::Error::Fenced { .. }) => "CF-FENCED",
            Error::Journal(_) => "CF-JOURNAL",
            Error::Merge(_) => "CF-MERGE",
            Error::Relation(_) | Error::SchemaChanged { .. } => "CF-SCHEMA",
            Error::Folder { .. } => "CF-IO",
            Error::FolderContent { .. } => "CF-CORRUPT",
            Error::UnknownMigration { .. } | Error::NoFormat { .. } => "CF-SETUP",
            Error::JournalBehind { .. } => "CF-LOG-LOST",
            Error::Task { .. } => "CF-BUG",
        }
    }

    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Connector(error) => error.hint.clone(),
            Error::Journal(error) => error.hint(),
            Error::Merge(_) => Some("nothing wrong was written; please report this with the migration's folder".into()),
            Error::Relation(_) | Error::SchemaChanged { .. } => Some(
                "everything before the change is applied and nothing after it; bring the tables back to the planned \
                 shape and run again, or begin a new migration (new name, empty target)"
                    .into(),
            ),
            Error::Folder { .. } => Some("check the folder's rights and the free space on its disk".into()),
            Error::FolderContent { .. } => Some("restore the folder from a copy, or begin a new migration".into()),
            Error::UnknownMigration { .. } => Some(
                "use the folder that the migration was begun with (--dir), or another --name; to begin again, empty the \
                 target's tables and drop its crossfade records"
                    .into(),
            ),
            Error::JournalBehind { .. } => Some(
                "the journal was lost or restored from an older copy, and the source no longer has what it held: begin \
                 a new migration"
                    .into(),
            ),
            Error::NoFormat { .. } => Some("this pair of engines cannot move this table".into()),
            Error::Task { .. } => Some("run it again; it goes on from the last durable point".into()),
        }
    }
}
