//! The data plane: moves a source's rows and changes to a target over the connector contract.
//!
//! [`feed::run`] is the map of it all. The parts, in the order in which a change meets them: `capture` writes
//! the source's log into the `journal`; `copy` reads the past in chunks, each with its cut; `merge` says which
//! change applies to which row; `apply` folds and writes. The engine knows no driver (only the contract) and no
//! phase of the migration's life beyond what its own work needs.

mod apply;
mod capture;
mod copy;
pub mod drift;
mod error;
mod feed;
pub mod fold;
mod journal;
pub mod machine;
pub mod merge;
mod meter;
mod pace;
pub mod plan;
pub mod relation;
mod retry;
mod settings;
mod status;
mod store;
mod throttle;

pub use error::Error;
pub use feed::{Outcome, run};
#[cfg(any(test, feature = "fuzzing"))]
pub use journal::fuzzing;
pub use journal::{Error as JournalError, last_durable};
pub use settings::{ApplyMode, Settings, Until};
pub use status::{Condition, Lag, Phase, Status, TablePhase, TableStatus, Throttle, Throughput};
