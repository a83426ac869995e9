//! Builds the models with the sabotages compiled in and lets them be explored.

use crate::shell::{self, Result};

pub(crate) fn run() -> Result {
    let built = ["--package", "proof", "--profile", "sim", "--features", "mutants"];
    shell::run(shell::cargo().arg("build").args(built))?;
    shell::run(&mut std::process::Command::new(shell::target().join("sim/proof")))
}
