//! MariaDB (MySQL later): the binary log, snapshots that are a prefix of it, and rows of the binary protocol.
//!
//! The path of a row: `wave` reads it (`select`), `value` turns its cells into values. The path of a change: `stream` takes
//! events from the log (`event`, `table_map`), `rows` takes rows from them, `value` again turns cells into values, the same
//! ones. The client is in `wire`, with `connect`, `login`, `packet`, `prepared` and `infile`.

mod cascade;
mod catalog;
mod cells;
mod charset;
mod check;
mod column_type;
mod connect;
mod crc;
mod ddl;
mod decimal;
mod declared;
mod dump;
mod error;
mod event;
mod family;
mod grants;
#[cfg_attr(not(test), expect(dead_code, reason = "for the writer, which comes next"))]
mod infile;
mod input;
mod login;
mod packet;
#[cfg_attr(not(test), expect(dead_code, reason = "for the writer, which comes next"))]
mod pipeline;
mod place;
mod position;
mod prepared;
mod probe;
mod reader;
mod rows;
mod select;
mod session;
mod sql;
mod stream;
mod table_map;
mod temporal;
mod url;
mod value;
mod wave;
mod wire;

use std::sync::Arc;

use connector::{Error, ErrorKind, Reader, Result, Writer};

/// A source at `mariadb://…` or `mysql://…`. Connects when it is first used.
pub fn open_reader(url: &str) -> Result<Arc<dyn Reader>> {
    Ok(Arc::new(reader::MysqlReader::new(url::Settings::parse(url)?)))
}

/// A target. Not yet.
pub fn open_writer(url: &str) -> Result<Arc<dyn Writer>> {
    let settings = url::Settings::parse(url)?;
    Err(Error::new(ErrorKind::Setup, "use a MariaDB or MySQL server as the target")
        .with("server", settings.server())
        .hint("so far these are sources only; targets are PostgreSQL and SQLite"))
}
