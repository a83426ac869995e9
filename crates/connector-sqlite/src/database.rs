//! Connections: where the file is, how it is opened, and how blocking calls leave the async threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use connector::{Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Mutex;

use crate::error::During;

/// Waits for another process's write transaction: 500 times a millisecond, then 6,000 times five, which is half a minute
/// in all. An application that holds one for longer is named in the error; giving up earlier would turn a nightly batch
/// into a failure. SQLite's own timeout sleeps for up to 100 ms at a time, and beside an application that writes without
/// a pause it hardly ever gets the lock.
fn wait(times: i32) -> bool {
    std::thread::sleep(Duration::from_millis(if times < 500 { 1 } else { 5 }));
    times < 6_500
}

/// `sqlite:PATH` or `sqlite://PATH`.
pub(crate) fn path(url: &str) -> Result<PathBuf> {
    let refused = |why: &str| {
        Err(Error::new(ErrorKind::Setup, "understand the URL")
            .with("url", url)
            .hint(format!("{why} A SQLite database is written as sqlite:PATH, for example sqlite:shop.db.")))
    };
    let Some(rest) = url.strip_prefix("sqlite:") else { return refused("It does not begin with sqlite:.") };
    let path = rest.strip_prefix("//").unwrap_or(rest);
    match path {
        "" => refused("It names no file."),
        ":memory:" => refused("A database in memory is visible to one connection only."),
        _ => Ok(PathBuf::from(path)),
    }
}

/// Opens a file that exists.
pub(crate) fn open_source(path: &Path) -> Result<Connection> {
    if !path.exists() {
        return Err(Error::new(ErrorKind::Io, "open the source")
            .with("file", path.display())
            .hint("There is no such file. Check the path; a relative one starts in the working folder."));
    }
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // The log is as durable as the application's own data: it is in the same transactions. What we write ourselves
    // (boundaries, the low mark) may be lost with the last moments and is then written again.
    connection.execute_batch("PRAGMA synchronous = NORMAL").during("open the source")?;
    Ok(connection)
}

/// Opens a file, creating it where there is none, so that a commit that returned is durable.
pub(crate) fn open_target(path: &Path) -> Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    set_wal(&connection)?;
    connection
        .execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA recursive_triggers = OFF;
             PRAGMA ignore_check_constraints = OFF; PRAGMA cache_size = -32768",
        )
        .during("open the target")?;
    Ok(connection)
}

/// In WAL mode readers do not block the writer; with a rollback journal every wave would stop the application.
pub(crate) fn set_wal(connection: &Connection) -> Result<()> {
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .during("switch the file to WAL mode")?;
    if mode == "wal" {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Setup, "switch the file to WAL mode")
        .with("journal_mode", mode)
        .hint("WAL needs a local file system with shared memory, and no other connection in exclusive mode."))
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let opened = || -> rusqlite::Result<Connection> {
        let mut connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_handler(Some(wait))?;
        connection.set_prepared_statement_cache_capacity(256);
        // The first read finds out whether this is a database at all.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    opened().during("open the database").map_err(|error| error.with("file", path.display()))
}

/// Runs a blocking piece of work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(Error::new(ErrorKind::Database, "finish the work on a blocking thread").source(error))
        }
    }
}

/// One connection, handed to blocking threads in turn. Work whose future was dropped still runs to its end and keeps its
/// turn, so what comes later never meets a connection in the middle of something.
#[derive(Clone)]
pub(crate) struct Session(Arc<Mutex<Connection>>);

impl Session {
    pub(crate) fn new(connection: Connection) -> Session {
        Session(Arc::new(Mutex::new(connection)))
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut connection = self.0.clone().lock_owned().await;
        blocking(move || work(&mut connection)).await
    }

    /// For a thread that may block already.
    pub(crate) fn run_here<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        work(&mut self.0.blocking_lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, expected) in [
            ("sqlite:shop.db", Some("shop.db")),
            ("sqlite:/var/shop.db", Some("/var/shop.db")),
            ("sqlite:///var/shop.db", Some("/var/shop.db")),
            ("sqlite://shop.db", Some("shop.db")),
            ("sqlite:", None),
            ("sqlite::memory:", None),
            ("postgres://x/y", None),
        ] {
            assert_eq!(path(url).ok(), expected.map(PathBuf::from), "{url}");
        }
    }
}
