//! Builds the program and lets the test kit's `soak` loose on it.

use crate::install;
use crate::shell::{self, Result};

pub(crate) fn run(args: &[String]) -> Result {
    install::run()?;
    let (release, args): (Vec<&String>, Vec<&String>) = args.iter().partition(|arg| *arg == "--release");
    // As the tests are built, so that they share the work; or as it is shipped.
    let (flags, folder): (&[&str], &str) = if release.is_empty() {
        (&["--workspace", "--features", "crossfade/failpoints"], "debug")
    } else {
        (&["--package", "crossfade", "--package", "testkit", "--release"], "release")
    };
    shell::run(shell::cargo().args(["build", "--bins"]).args(flags))?;
    let binaries = shell::target().join(folder);
    let mut soak = std::process::Command::new(binaries.join("soak"));
    soak.current_dir(shell::root()).arg("--crossfade").arg(binaries.join("crossfade"));
    let mut is_path = false;
    for arg in args {
        // The file is named from where the person stands, and the soak runs in the root.
        match std::path::absolute(arg) {
            Ok(path) if is_path => soak.arg(path),
            _ => soak.arg(arg),
        };
        is_path = arg == "--schema";
    }
    shell::run(&mut soak)
}
