//! Builds the program as it is shipped and lets the test kit's `bench` measure it.

use crate::install;
use crate::shell::{self, Result};

/// `bench [NAME…] [--rounds N] [--scale F]`: without a name, everything; the page is `bench/RESULTS.md`, or that of a
/// trial in `target/bench-trial`.
pub(crate) fn run(args: &[String]) -> Result {
    install::peers()?;
    let build = ["build", "--release", "--package", "crossfade", "--package", "testkit", "--bins"];
    shell::run(shell::cargo().args(build))?;
    let binaries = shell::target().join("release");
    let mut bench = std::process::Command::new(binaries.join("bench"));
    bench.current_dir(shell::root()).args(args).arg("--crossfade").arg(binaries.join("crossfade"));
    shell::run(&mut bench)
}
