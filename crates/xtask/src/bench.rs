//! Measures the program against the usual tools, side by side in one run, and prints ratios.
//!
//! - `copy`: rows and bytes per second of `crossfade run --until copied`, against `psql COPY … binary | psql
//!   COPY … binary` with as many streams.
//! - `apply`: seconds to catch up with one recorded stream of changes, against native logical replication
//!   (a subscription) of the same stream.

use crate::shell::Result;

pub(crate) fn run(args: &[String]) -> Result {
    match args {
        [what] if what == "copy" || what == "apply" => Err(format!("`bench {what}` is not written yet")),
        _ => Err("bench what? `cargo xtask bench copy` or `cargo xtask bench apply`".into()),
    }
}
