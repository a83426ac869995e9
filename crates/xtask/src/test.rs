//! Every test, on servers of our own.

use crate::install;
use crate::shell::{self, Result};

/// Crash points are compiled in, so that a test can let the program die at each.
const FEATURES: &[&str] = &["--workspace", "--features", "crossfade/failpoints"];

pub(crate) fn run(args: &[String]) -> Result {
    install::run()?;
    let runner: &[&str] =
        if shell::exists("cargo-nextest") { &["nextest", "run"] } else { &["test", "--no-fail-fast"] };
    shell::run(shell::cargo().args(runner).args(FEATURES).args(args))
}
