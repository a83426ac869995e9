//! Stdout is for data, stderr for talk.
//!
//! A reader that has gone (`| head`) is no fault of the work and ends nothing. Any other failure to write data
//! is an error: half a schema in a file may not look like success.

use std::io::{ErrorKind, Write};

use crate::report::Error;

/// A result, on stdout, as it is.
pub(crate) fn data(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::io("write to stdout")(error)),
        _ => Ok(()),
    }
}

/// A JSON document, on a line of stdout.
pub(crate) fn json(value: &serde_json::Value) -> Result<(), Error> {
    data(&format!("{value}\n"))
}

/// A line for people, on stderr. When that is closed there is nobody left to tell.
pub(crate) fn talk(text: &str) {
    let _nobody_listens = writeln!(std::io::stderr(), "{text}");
}
