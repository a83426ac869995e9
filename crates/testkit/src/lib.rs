//! What a test of the whole program needs: throwaway servers, load on them, faults, and an auditor.
//!
//! A test reads as workload + fault + oracle:
//! ```ignore
//! let pair = Pair::start();                               // two PostgreSQL servers of our own
//! let stage = pair.stage(env!("CARGO_BIN_EXE_crossfade"));  // one migration between them
//! let writers = shop::write(&stage.source, Load::default());
//! stage.run(&[]).kill();
//! writers.stop();
//! stage.caught_up();
//! stage.assert_equal();
//! ```
//!
//! Shares no code with the program under test, on purpose: the auditor reads both sides by itself.
//! Promises that nothing outlives a test, however the test ends. A fault in here is a failed test, so it panics
//! with a message that says what was waited for; no wait is unbounded and none is a measurement.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a fault in the kit is a failed test")]

pub mod audit;
pub mod crossfade;
pub mod disk;
mod folder;
pub mod mariadb;
pub mod postgres;
pub mod proxy;
mod server;
mod signal;
pub mod stage;
pub mod wait;
pub mod workload;

pub use folder::Folder;
pub use stage::{Pair, Stage};
pub use workload::{Load, Tally, Writers, kiosk, made, market, shop, till};
