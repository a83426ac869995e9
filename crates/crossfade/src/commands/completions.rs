//! `crossfade completions`: a script for a shell, on stdout.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::report::{Error, Exit};

pub(crate) fn run(shell: Shell) -> Result<Exit, Error> {
    let mut command = Args::command();
    clap_complete::generate(shell, &mut command, "crossfade", &mut std::io::stdout());
    Ok(Exit::Done)
}
