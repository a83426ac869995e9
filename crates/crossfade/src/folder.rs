//! The migration's folder: what this program itself keeps in it.
//!
//! `migration.json` says which migration lives here, from the moment the checks have passed; `status.json` is
//! the newest status, replaced as a whole so that a reader never sees half of one; `crossfade.log` is the log.
//! The journal and the catalog beside them are the engine's. No file here holds a password.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use engine::Status;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::redact::redact;

/// Where folders are kept unless `--dir` says otherwise.
pub(crate) const HOME: &str = ".crossfade";
pub(crate) const LOG: &str = "crossfade.log";
const MIGRATION: &str = "migration.json";
const STATUS: &str = "status.json";

/// Past this size the log is set aside when a run begins, so that the folder stays small over years.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// Which migration a folder belongs to. Written once, before the first change to source or target.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Migration {
    pub(crate) name: String,
    /// Without secrets: for people, and to notice another database under the same name.
    pub(crate) source: String,
    pub(crate) target: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no migration in {}", dir.display())]
    Missing { dir: PathBuf },
    #[error("{} belongs to another migration: its {what} is {recorded}, not {given}", dir.display())]
    Another { dir: PathBuf, what: &'static str, recorded: String, given: String },
    #[error("could not {operation} {}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("could not understand {}", path.display())]
    Unreadable { path: PathBuf, source: serde_json::Error },
}

impl Migration {
    pub(crate) fn new(name: &str, source: &str, target: &str) -> Migration {
        Migration { name: name.to_owned(), source: identity(source), target: identity(target) }
    }

    pub(crate) fn is_one_database(&self) -> bool {
        self.source == self.target
    }

    /// Refuses another migration's folder: positions in one database's log mean nothing in another's.
    pub(crate) fn agrees(&self, recorded: &Migration, dir: &Path) -> Result<(), Error> {
        let pairs = [
            ("name", &recorded.name, &self.name),
            ("source", &recorded.source, &self.source),
            ("target", &recorded.target, &self.target),
        ];
        match pairs.into_iter().find(|(_, recorded, given)| recorded != given) {
            None => Ok(()),
            Some((what, recorded, given)) => Err(Error::Another {
                dir: dir.to_owned(),
                what,
                recorded: recorded.clone(),
                given: given.clone(),
            }),
        }
    }
}

/// A database's address without what may change between two runs: user, password and parameters, and for a
/// file the current folder.
fn identity(url: &str) -> String {
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return match std::path::absolute(path) {
            Ok(path) => format!("sqlite:{}", path.display()),
            Err(_) => redact(url),
        };
    }
    match url::Url::parse(url) {
        Ok(url) => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or(""), url.path())
        }
        Err(_) => redact(url),
    }
}

/// The migration that was started in this folder, if one was.
pub(crate) fn started(dir: &Path) -> Result<Option<Migration>, Error> {
    read(&dir.join(MIGRATION))
}

pub(crate) fn create(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|source| Error::Io { operation: "create", path: dir.to_owned(), source })
}

pub(crate) fn start(dir: &Path, migration: &Migration) -> Result<(), Error> {
    replace(&dir.join(MIGRATION), migration)
}

pub(crate) fn write_status(dir: &Path, status: &Status) -> Result<(), Error> {
    replace(&dir.join(STATUS), status)
}

/// The newest status as it was written; `None` before the first.
pub(crate) fn status(dir: &Path) -> Result<Option<Value>, Error> {
    read(&dir.join(STATUS))
}

/// How long ago the status was written.
pub(crate) fn status_age(dir: &Path) -> Option<std::time::Duration> {
    fs::metadata(dir.join(STATUS)).and_then(|file| file.modified()).ok()?.elapsed().ok()
}

/// The log, opened to append.
pub(crate) fn log(dir: &Path) -> Result<fs::File, Error> {
    let path = dir.join(LOG);
    let failed = |source| Error::Io { operation: "open", path: path.clone(), source };
    if fs::metadata(&path).is_ok_and(|file| file.len() > LOG_BYTES_MAX) {
        fs::rename(&path, path.with_extension("log.old")).map_err(failed)?;
    }
    fs::OpenOptions::new().create(true).append(true).open(&path).map_err(failed)
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { operation: "read", path: path.to_owned(), source }),
    };
    serde_json::from_slice(&text).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

fn replace(path: &Path, content: &impl Serialize) -> Result<(), Error> {
    let failed = |source| Error::Io { operation: "write", path: path.to_owned(), source };
    let text = serde_json::to_vec_pretty(content).map_err(|error| failed(error.into()))?;
    // The process number keeps an owner and the one that took over from writing into one file.
    let new = path.with_extension(format!("json.{}", std::process::id()));
    fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_hold_no_secrets_and_survive_a_new_password() {
        for (url, same) in [
            ("postgres://app:s3cret@old:5433/shop?sslmode=require", "postgres://old:5433/shop"),
            ("postgres://other@old/shop", "postgres://old/shop"),
            ("sqlite:/data/shop.db", "sqlite:/data/shop.db"),
            ("sqlite:///data/shop.db", "sqlite:/data/shop.db"),
        ] {
            assert_eq!(identity(url), same);
        }
        let recorded = Migration::new("shop", "postgres://a:b@old/shop", "sqlite:/b");
        let dir = Path::new("x");
        assert!(
            Migration::new("shop", "postgres://c:d@old/shop", "sqlite:/b").agrees(&recorded, dir).is_ok()
        );
        let refused = Migration::new("shop", "postgres://a:b@new/shop", "sqlite:/b").agrees(&recorded, dir);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "x belongs to another migration: its source is postgres://old/shop, not postgres://new/shop"
        );
    }
}
