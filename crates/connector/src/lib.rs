//! The contract of a database engine.
//!
//! A connector has a [`Reader`] (introspect, capture, read chunks with a cut) and a [`Writer`] (create objects,
//! load a chunk, apply steps together with their progress). The engine moves rows over these two traits and
//! knows no driver; a connector knows nothing of phases, of the merge rule or of the journal.
//!
//! No method has a default body: a connector that cannot do something says so where it is asked.

mod check;
mod error;
pub mod failpoint;
mod reader;
mod schema;
mod selection;
mod writer;

pub use check::{Finding, Severity};
pub use error::{Error, ErrorKind, Result, Retry};
pub use reader::{
    Block, Capture, ChunkStream, Event, Fetched, Format, Load, RECENTLY, Reader, Slicing, Wave,
};
pub use schema::{NativeSchema, SchemaItem};
pub use selection::Selection;
pub use writer::{
    Applier, ApplyError, Claim, Copied, Hold, Net, Owner, Progress, Quarantined, Record, Refusal, RowChange,
    RowCut, RowUpdate, Step, Writer,
};
