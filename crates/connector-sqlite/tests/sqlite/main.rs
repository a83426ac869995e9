//! The connector on real files, with other connections writing to them at the same time.

mod capture;
mod replace;
mod replica;
mod scratch;
mod writer;
