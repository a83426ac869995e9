//! `crossfade completions`: a script for a shell, on stdout.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::output;
use crate::report::{Error, Exit};

pub(crate) fn run(shell: Shell) -> Result<Exit, Error> {
    let mut command = Args::command();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "crossfade", &mut script);
    output::data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
