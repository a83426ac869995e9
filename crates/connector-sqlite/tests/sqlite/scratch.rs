//! A folder that is gone after the test, and databases in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use connector::{Reader, Selection, Writer};
use model::Catalog;
use rusqlite::Connection;

pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("crossfade-sqlite-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Scratch(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("sqlite:{}", self.path(name).display())
    }

    /// The application's own connection.
    pub(crate) fn open(&self, name: &str) -> Connection {
        let connection = Connection::open(self.path(name)).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
        connection
    }

    pub(crate) fn reader(&self, name: &str) -> Arc<dyn Reader> {
        connector_sqlite::open_reader(&self.url(name)).unwrap()
    }

    pub(crate) fn writer(&self, name: &str) -> Arc<dyn Writer> {
        connector_sqlite::open_writer(&self.url(name)).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

pub(crate) async fn everything(reader: &dyn Reader) -> Catalog {
    reader.catalog(&Selection::everything()).await.unwrap()
}
