//! How a command ends: its exit code, or one error with its whole chain, told once.

use std::error::Error as _;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::redact::redact;
use crate::{config, folder, lock, output, settings};

/// How a command that did its work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    /// Something stands in the way, and it was said what.
    Blocked = 2,
    /// The two sides are not equal.
    Differences = 3,
}

/// The exit code of every [`Error`].
const FAILED: u8 = 1;

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Settings(#[from] settings::Error),
    #[error(transparent)]
    Folder(#[from] folder::Error),
    #[error(transparent)]
    Lock(#[from] lock::Error),
    #[error(transparent)]
    Connector(#[from] connector::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Demo(#[from] crate::commands::demo::Error),
    #[error("{} exists already", path.display())]
    Exists { path: PathBuf },
    #[error("could not {operation}")]
    Io { operation: String, source: std::io::Error },
    #[error("crossfade met a bug in itself and stopped: {0}")]
    Bug(String),
}

impl Error {
    pub(crate) fn io(operation: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { operation: operation.into(), source }
    }

    /// The status' form is ours on both ends.
    pub(crate) fn unshown(error: serde_json::Error) -> Error {
        Error::Bug(format!("the status cannot be shown: {error}"))
    }

    /// The stable code under which the documentation explains the error.
    fn code(&self) -> &'static str {
        match self {
            Error::Config(_) => "CF-CONFIG",
            Error::Settings(_) | Error::Exists { .. } => "CF-USAGE",
            Error::Folder(folder::Error::Missing { .. }) => "CF-NO-MIGRATION",
            Error::Folder(folder::Error::Another { .. }) => "CF-USAGE",
            Error::Folder(_) | Error::Io { .. } | Error::Lock(lock::Error::Io { .. }) => "CF-IO",
            Error::Lock(lock::Error::Held { .. }) => "CF-LOCKED",
            Error::Connector(error) => error.kind.code(),
            Error::Engine(error) => error.code(),
            Error::Demo(_) => "CF-DEMO",
            Error::Bug(_) => "CF-BUG",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Config(error) => error.hint(),
            Error::Settings(error) => error.hint(),
            Error::Folder(folder::Error::Missing { .. }) => Some(
                "start it with `crossfade run --source URL --target URL`, or name its folder with --dir".to_owned(),
            ),
            Error::Folder(folder::Error::Another { .. }) => Some(
                "give this migration its own --name or --dir; if it is the same database under a new address, \
                 correct migration.json in that folder"
                    .to_owned(),
            ),
            Error::Folder(folder::Error::Unreadable { .. }) => {
                Some("the file was changed by hand or by a disk fault; put it back from a backup".to_owned())
            }
            Error::Lock(lock::Error::Held { .. }) => {
                Some("stop it with Ctrl-C or SIGTERM, or go on in its place with --take-over".to_owned())
            }
            Error::Connector(error) => error.hint.clone(),
            Error::Engine(error) => error.hint(),
            Error::Demo(error) => error.hint(),
            Error::Exists { .. } => Some("overwrite it with --force, or write another with --config FILE".to_owned()),
            Error::Folder(folder::Error::Io { .. })
            | Error::Lock(lock::Error::Io { .. })
            | Error::Io { .. } => None,
            Error::Bug(_) => Some(
                "nothing is lost: running it again goes on from the last durable point; please report this".to_owned(),
            ),
        }
    }

    /// The error and everything that caused it, outermost first.
    fn chain(&self) -> Vec<String> {
        let mut chain = vec![redact(&self.to_string())];
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = redact(&error.to_string());
            // Some drivers repeat their cause in their own words.
            if chain.last() != Some(&text) {
                chain.push(text);
            }
            cause = error.source();
        }
        chain
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for (at, error) in self.chain().iter().enumerate() {
            let label = if at == 0 { "error" } else { "caused by" };
            writeln!(out, "{label}: {error}").ok();
        }
        if let Some(hint) = self.hint() {
            writeln!(out, "hint: {}", redact(&hint)).ok();
        }
        writeln!(out, "code: {}", self.code()).ok();
        out
    }

    fn json(&self) -> String {
        let mut chain = self.chain().into_iter();
        json!({
            "error": chain.next(),
            "causes": chain.collect::<Vec<_>>(),
            "hint": self.hint().map(|hint| redact(&hint)),
            "code": self.code(),
        })
        .to_string()
    }
}

/// The end of the process. With `--json` an error is one JSON object, on stderr as well.
pub(crate) fn finish(result: Result<Exit, Error>, json: bool) -> ExitCode {
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            if json {
                output::talk(&error.json());
            } else {
                output::talk(error.text().trim_end());
            }
            ExitCode::from(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use connector::ErrorKind;

    use super::*;

    #[test]
    fn the_chain_is_told_once_without_secrets() {
        let error = Error::from(
            connector::Error::new(ErrorKind::Login, "connect")
                .with("url", "postgres://app:s3cret@old/shop")
                .hint("check the password of app")
                .source("password authentication failed for user \"app\""),
        );
        assert_eq!(
            error.text(),
            "error: could not connect: url postgres://app:***@old/shop\n\
             caused by: password authentication failed for user \"app\"\n\
             hint: check the password of app\n\
             code: CF-LOGIN\n"
        );
    }
}
