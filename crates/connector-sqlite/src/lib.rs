//! SQLite as a source and as a target.
//!
//! SQLite has no log that another process could follow, so the [`connector::Reader`] makes one: triggers write
//! every change into a table, in the application's own transaction. What they write is exact: storage classes, rows
//! that `REPLACE` removes unseen, key changes. The position is the number of the last entry.
//!
//! Every call opens its own connection and works on a blocking thread; nothing here blocks the async runtime.
//! Deliberately absent: any lock on the application's reads. Writes of ours on the source are short: SQLite has one
//! writer at a time, and the application's busy timeout has to outlast us.

mod apply;
mod capture;
mod catalog;
mod check;
mod database;
mod error;
mod layout;
mod load;
mod log;
mod native;
mod reader;
mod records;
mod sql;
mod target;
mod triggers;
mod value;
mod wave;
mod writer;

use std::sync::Arc;

/// Opens a database for reading. `url` is `sqlite:PATH`; the file must exist.
pub fn open_reader(url: &str) -> connector::Result<Arc<dyn connector::Reader>> {
    Ok(Arc::new(reader::SqliteReader::open(url)?))
}

/// Opens a database for writing. `url` is `sqlite:PATH`; a file that does not exist is created by the first write.
pub fn open_writer(url: &str) -> connector::Result<Arc<dyn connector::Writer>> {
    Ok(Arc::new(writer::SqliteWriter::open(url)?))
}
