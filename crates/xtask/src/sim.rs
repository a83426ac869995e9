//! Builds the simulation, with the sabotages compiled in and switched off, and plays histories.

use crate::shell::{self, Result};

pub(crate) fn run(args: &[String]) -> Result {
    shell::run(built()?.args(args))
}

pub(crate) fn mutants(args: &[String]) -> Result {
    shell::run(built()?.arg("mutants").args(args))
}

fn built() -> std::result::Result<std::process::Command, String> {
    let build = ["build", "--quiet", "--package", "sim", "--profile", "sim", "--features", "mutants"];
    shell::run(shell::cargo().args(build))?;
    Ok(std::process::Command::new(shell::target().join("sim/sim")))
}
