//! The project's automation: `cargo xtask VERB`.
//!
//! Depends on no crate of the project, so that it builds in a second and works while another crate does not.

mod bench;
mod fuzz;
mod hazards;
mod install;
mod profile;
mod proof;
mod shell;
mod sim;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask VERB

  install                          brings what the tests need and the machine lacks: PostgreSQL 15, 13 and 18, MariaDB
  test [ARGS…]                     installs, then runs every test; ARGS go to the test runner
  soak [--minutes N] [--seed S] [--release] [--source postgres|mariadb|sqlite] [--target postgres|mariadb]
       [--schema FILE [--version V]]
                                   writers, kills and restarts for N minutes (2), then compares every row; with
                                   --schema on tables of your own, from `pg_dump --schema-only`
  bench [NAME…] [--rounds N] [--scale F]
                                   measures against the usual tools, as ratios in one run, and writes bench/RESULTS.md;
                                   another scale than 1 is a trial and goes to target/bench-trial
  profile [copy|capture|catch-up|strict…]
                                   flame graphs of the measured runs, servers included, into bench/profiles
  proof                            explores every state of the models of the merge rule and of the apply protocol, and
                                   again with each rule removed
  sim [--histories N | --minutes M] [--from SEED] [--seed SEED]
                                   simulated migrations by seed, each step checked; one seed is told as a story
  mutants                          breaks one rule after the other and shows which check of the simulation sees it
  fuzz [--seconds N]               random bytes for everything that reads bytes from outside, N seconds (60) each
  hazards [--list | --results FILE]
                                   which hazard was tried on which engine, and what came of it; runs the tests,
                                   unless FILE is what `cargo xtask test` printed
  tidy                             formatting, lints, and which crate may depend on which";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = args.split_first().map_or(("help", &[] as &[String]), |(verb, rest)| (verb, rest));
    let done = match verb {
        "install" => install::run(),
        "test" => test::run(rest),
        "soak" => soak::run(rest),
        "bench" => bench::run(rest),
        "profile" => profile::run(rest),
        "hazards" => hazards::run(rest),
        "fuzz" => fuzz::run(rest),
        "proof" => proof::run(),
        "sim" => sim::run(rest),
        "mutants" => sim::mutants(rest),
        "tidy" => tidy::run(),
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => Err(format!("there is no verb {other:?}\n\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}
