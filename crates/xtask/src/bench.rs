//! Builds the program as it is shipped and lets the test kit's `bench` measure it.

use crate::install;
use crate::shell::{self, Result};

pub(crate) fn run(args: &[String]) -> Result {
    let Some((what, rest)) = args.split_first() else {
        return Err("bench what? `cargo xtask bench copy`, `apply` or `memory`".into());
    };
    install::run()?;
    shell::run(shell::cargo().args([
        "build",
        "--release",
        "--package",
        "crossfade",
        "--package",
        "testkit",
        "--bins",
    ]))?;
    let binaries = shell::target().join("release");
    let mut bench = std::process::Command::new(binaries.join("bench"));
    shell::run(
        bench
            .current_dir(shell::root())
            .arg(what)
            .arg("--crossfade")
            .arg(binaries.join("crossfade"))
            .args(rest),
    )
}
