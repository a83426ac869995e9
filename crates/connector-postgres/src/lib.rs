//! PostgreSQL 13 to 18, as a source and as a target.
//!
//! One own client speaks the protocol (`net`, `tls`, `login`, `wire`, `pipeline`, `copy`): capture needs a copy in
//! both directions, and chunks pass from one server's socket to the other's untouched, which no library offers.
//! Reading: `catalog`, `dump`, `wave` (with `decode`), `stream` (with `pgoutput`, `lsn`), gathered in `reader`.
//! Writing: `create`, `apply` (with `statement`, `encode`, `fit`), `records`, gathered in `writer`.

mod apply;
mod build;
mod catalog;
mod check;
mod connect;
mod copy;
mod create;
mod decode;
#[cfg(test)]
mod decode_test;
mod dump;
mod encode;
#[cfg(test)]
mod encode_test;
mod error;
mod fit;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod login;
mod lsn;
mod pgoutput;
mod pipeline;
mod probe;
mod reader;
mod records;
#[cfg(test)]
mod rows_test;
mod session;
mod sql;
mod statement;
mod stream;
mod url;
mod wave;
mod wire;
#[cfg(test)]
mod wire_test;
mod writer;

use std::sync::Arc;

use connector::{Reader, Result, Writer};

/// A source at `postgres://…`. Connects when it is first used.
pub fn open_reader(url: &str) -> Result<Arc<dyn Reader>> {
    Ok(Arc::new(reader::PostgresReader::new(url::Settings::parse(url)?)))
}

/// A target at `postgres://…`. Connects when it is first used.
pub fn open_writer(url: &str) -> Result<Arc<dyn Writer>> {
    Ok(Arc::new(writer::PostgresWriter::new(url::Settings::parse(url)?)))
}
