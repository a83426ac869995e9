//! The map of the data plane.

use std::sync::Arc;

use connector::{Reader, Writer};
use tokio::sync::watch;

use crate::{Settings, Status};

/// Why [`run`] returned without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to stop; everything done is durable.
    Stopped,
    Copied,
    CaughtUp,
    /// Everything is caught up but for tables that are held back by a quarantined change.
    Held,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Connector(#[from] connector::Error),
}

/// Runs one feed until it is done, told to stop, or cannot go on.
///
/// Temporary faults (lost connections, restarting servers) are retried inside and shown in `status.retrying`.
/// An error is final: what was done is durable, and running again goes on from there.
pub async fn run(
    _reader: Arc<dyn Reader>,
    _writer: Arc<dyn Writer>,
    _settings: Settings,
    _status: watch::Sender<Status>,
    _stop: watch::Receiver<bool>,
) -> Result<Outcome, Error> {
    Ok(Outcome::Stopped)
}
