//! Lets the fuzzer loose on everything that reads bytes from outside.
//!
//! It needs a nightly compiler and `cargo-fuzz` (`rustup toolchain install nightly`, `cargo install cargo-fuzz`). Where they
//! are not, the same functions get random bytes from the property tests for that time, which look less far.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::shell::{self, Result};

/// As in `fuzz/Cargo.toml`.
const TARGETS: &[&str] = &["pgoutput", "body", "text", "server", "payload", "segment", "plan"];

/// No single allocation is larger: a length that lies must not be believed.
const LIMITS: &[&str] = &["-rss_limit_mb=2048", "-malloc_limit_mb=64", "-timeout=10"];

pub(crate) fn run(args: &[String]) -> Result {
    let seconds = match args {
        [] => 60,
        [flag, seconds] if flag == "--seconds" => {
            seconds.parse().map_err(|error| format!("--seconds {seconds}: {error}"))?
        }
        _ => return Err("usage: cargo xtask fuzz [--seconds N]".into()),
    };
    if !is_there(&["cargo", "fuzz", "--version"]) {
        return instead(seconds);
    }
    shell::run(nightly(&["cargo", "fuzz", "build"]).current_dir(shell::root().join("fuzz")))?;
    let crashed: Vec<&str> =
        TARGETS.iter().copied().filter(|target| shell::run(&mut fuzz(target, seconds)).is_err()).collect();
    if crashed.is_empty() {
        println!("fuzz: {} targets, {seconds} s each, no crash", TARGETS.len());
        return Ok(());
    }
    Err(format!(
        "crashed: {}; the inputs are in fuzz/artifacts: keep each as a unit test beside its function",
        crashed.join(", ")
    ))
}

fn fuzz(target: &str, seconds: u64) -> Command {
    let folder = shell::root().join("fuzz");
    // What the fuzzer finds goes into the first folder; the second is kept in the repository.
    let corpus = folder.join("corpus").join(target);
    let mut command = nightly(&["cargo", "fuzz", "run", target]);
    command.current_dir(&folder);
    if let Err(error) = std::fs::create_dir_all(&corpus) {
        eprintln!("{}: {error}", corpus.display());
    }
    command.arg(corpus).arg(Path::new("seeds").join(target));
    command.arg("--").arg(format!("-max_total_time={seconds}")).args(LIMITS);
    command
}

fn nightly(args: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly"]).args(args);
    command
}

fn is_there(args: &[&str]) -> bool {
    nightly(args).current_dir(shell::root()).output().is_ok_and(|output| output.status.success())
}

fn instead(seconds: u64) -> Result {
    eprintln!(
        "NOT FUZZED: there is no nightly toolchain with cargo-fuzz here. Property tests instead, which look less far.\n\
         For the fuzzer: rustup toolchain install nightly && cargo install cargo-fuzz"
    );
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0_u64;
    while rounds == 0 || Instant::now() < end {
        let mut tests = shell::cargo();
        tests.args([
            "test",
            "--quiet",
            "--package",
            "engine",
            "--package",
            "connector-postgres",
            "--lib",
            "fuzzing",
        ]);
        shell::run(tests.env("PROPTEST_CASES", "20000"))?;
        rounds += 1;
    }
    eprintln!("NOT FUZZED: {rounds} rounds of 20,000 cases of each property test instead");
    Ok(())
}
