//! The command line of crossfade.
//!
//! The way of a command: [`args`] (as typed) → [`settings`] (as meant, with the [`config`] file) → one file in
//! [`commands`] → [`report`] (exit code, or the error's chain). [`registry`] alone names the connectors. This
//! program decides nothing about rows: that is the engine's.

mod args;
mod commands;
mod config;
mod figures;
mod folder;
mod lock;
mod nearest;
mod output;
mod redact;
mod registry;
mod render;
mod report;
mod settings;
mod view;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

/// Every cell of a change that passes is allocated and freed again, in different threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        // Usage errors end with 1; clap's own 2 means blocked here.
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            return if error.print().is_ok() { code } else { ExitCode::FAILURE };
        }
    };
    let json = args.json;
    let result = match args.command {
        Command::Demo(args) => commands::demo::run(&args, json),
        Command::Init(args) => commands::init::run(&args, json),
        Command::Check(args) => commands::check::run(&args, json),
        Command::Run(args) => commands::run::run(&args, json),
        Command::Status(args) => commands::status::run(&args, json),
        Command::Completions { shell } => commands::completions::run(shell),
    };
    report::finish(result, json)
}
