//! The connector on real files, with other connections writing to them at the same time.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod capture;
mod replace;
mod replica;
mod scratch;
mod writer;
