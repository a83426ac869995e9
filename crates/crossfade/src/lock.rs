//! At most one process of this machine works in a migration's folder.
//!
//! The operating system holds the lock and drops it with the process, however that ends, so there is no stale
//! lock to clean up. The file's content only tells people who it is. Between machines, and against a process
//! that was taken over, it is not this lock that protects but the epoch in the target.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILE: &str = "lock";

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{holder} is running this migration in {}", dir.display())]
    Held { dir: PathBuf, holder: String },
    #[error("could not lock {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

/// Takes the lock of an existing folder.
pub(crate) fn take(dir: &Path) -> Result<Lock, Error> {
    let path = dir.join(FILE);
    let failed = |source| Error::Io { path: path.clone(), source };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    // `holder` touches the lock for an instant; a few tries tell it from a process that stays.
    for attempt in 1.. {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if attempt < 5 => std::thread::sleep(Duration::from_millis(30)),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Held { dir: dir.to_owned(), holder: describe(&mut file) });
            }
        }
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    write!(file, "process {} on {}", std::process::id(), host()).map_err(failed)?;
    Ok(Lock { _file: file })
}

/// Who runs the migration at this moment, if anybody does.
pub(crate) fn holder(dir: &Path) -> Result<Option<String>, Error> {
    let path = dir.join(FILE);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { path, source }),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(describe(&mut file))),
        Err(TryLockError::Error(source)) => Err(Error::Io { path, source }),
    }
}

fn describe(file: &mut File) -> String {
    let mut text = String::new();
    match file.rewind().and_then(|()| file.read_to_string(&mut text)) {
        Ok(_) if !text.is_empty() => text,
        _ => "another process".to_owned(),
    }
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "this machine".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = std::env::temp_dir().join(format!("crossfade-lock-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(holder(&dir).unwrap(), None);
        let lock = take(&dir).unwrap();
        let me = format!("process {} on ", std::process::id());
        assert!(holder(&dir).unwrap().unwrap().starts_with(&me));
        let refused = take(&dir).unwrap_err().to_string();
        assert!(refused.starts_with(&me) && refused.contains(" is running this migration in "), "{refused}");
        drop(lock);
        assert_eq!(holder(&dir).unwrap(), None);
        drop(take(&dir).unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
