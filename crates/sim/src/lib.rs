//! Whole migrations in a simulated world, by seed.
//!
//! The engine runs unchanged, in one thread and in simulated time, between a [`reader`] and a [`writer`] of simulated
//! databases, on a simulated [`disk`]. A [`history`] says what the application does and what goes wrong; [`play`] lets
//! it happen; the [`check`]s watch every step. A history that breaks an invariant is made [`shrink`]er and told.

pub mod check;
mod dice;
mod disk;
pub mod history;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod play;
mod reader;
pub mod shrink;
pub mod source;
pub mod tables;
mod target;
mod world;
mod writer;
