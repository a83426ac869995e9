//! Measures the program against the usual tools, alternating in one run, and writes ratios of medians.
//!
//! Both sides of a comparison use the same two servers with the same settings, fsync on. Absolute seconds say
//! more about the machine than about the program; the ratios are what is promised.

#![expect(clippy::expect_used, reason = "a fault in the kit is a failed measurement")]

mod apply;
mod copy;
mod memory;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use testkit::Pair;
use testkit::postgres::Server;

/// What each measurement is given.
pub(crate) struct Bench {
    pub(crate) crossfade: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) pair: Pair,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: bench copy|apply|memory --crossfade PATH [--rounds N] [--out FOLDER]";
    let value = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1));
    let (Some(what), Some(crossfade)) = (args.first(), value("--crossfade")) else {
        eprintln!("{usage}");
        return ExitCode::FAILURE;
    };
    let out = PathBuf::from(value("--out").map_or("bench", String::as_str));
    let rounds = value("--rounds").and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let large =
        || Server::builder().setting("shared_buffers", "512MB").setting("max_wal_size", "8GB").start();
    let bench =
        Bench { crossfade: crossfade.into(), rounds, pair: Pair { source: large(), target: large() } };
    let report = match what.as_str() {
        "copy" => copy::measure(&bench),
        "apply" => apply::measure(&bench),
        "memory" => memory::measure(&bench),
        _ => {
            eprintln!("{usage}");
            return ExitCode::FAILURE;
        }
    };
    report.print();
    report.write(&out);
    if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
