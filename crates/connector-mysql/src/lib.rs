//! MariaDB (MySQL later): the binary log, snapshots that are a prefix of it, and rows of the binary protocol.
//!
//! The path of a row: `readers` read it under the cut of a `wave` (`walk`, `select`), `value` turns its cells into values. The path of a change: `stream` takes
//! events from the log (`event`, `table_map`), `rows` takes rows from them, `value` again turns cells into values, the same
//! ones. The way into a target is `writer`, with `load` for chunks and `apply` for changes; `records` is what it keeps there.
//! The client is in `wire`, with `connect`, `login`, `packet`, `prepared` and `infile`.

mod apply;
mod build;
mod bulk;
mod cascade;
mod catalog;
mod cells;
mod charset;
mod check;
mod check_tables;
mod check_target;
mod column_type;
mod connect;
mod crc;
mod create;
mod ddl;
mod decimal;
mod declared;
mod dump;
mod error;
mod event;
mod family;
mod finish;
mod fit;
mod flight;
mod generate;
mod grants;
mod infile;
mod input;
mod key_column;
mod line;
mod load;
mod login;
mod native;
mod packet;
mod pipeline;
mod place;
mod position;
mod prepared;
mod probe;
mod question;
mod reader;
mod readers;
mod records;
mod rows;
mod select;
mod sequence;
mod session;
mod show_create;
mod snapshot_place;
mod sql;
mod statement;
mod stream;
mod table_map;
mod target;
mod temporal;
mod token;
mod url;
mod value;
mod walk;
mod warning;
mod wave;
mod wire;
mod writer;

use std::sync::Arc;

use connector::{Reader, Result, Writer};

/// A source at `mariadb://…` or `mysql://…`. Connects when it is first used.
pub fn open_reader(url: &str) -> Result<Arc<dyn Reader>> {
    Ok(Arc::new(reader::MysqlReader::new(url::Settings::parse(url)?)))
}

/// A target at `mariadb://…`. Connects when it is first used.
pub fn open_writer(url: &str) -> Result<Arc<dyn Writer>> {
    Ok(Arc::new(writer::MysqlWriter::new(url::Settings::parse(url)?)))
}
