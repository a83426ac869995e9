//! The command line, as typed. Its help is the program's first documentation and is written as such.
//!
//! Not here: what the flags mean together with the file and the defaults ([`crate::settings`]).

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::{ApplyMode, Throttle};

const EXAMPLES: &str = "\
Try it, no server needed:
  crossfade demo

Your own database:
  crossfade check --source postgres://app@old/shop --target postgres://app@new/shop
  crossfade run   --source postgres://app@old/shop --target postgres://app@new/shop
  crossfade status

Where things are stored:
  .crossfade/NAME/   one folder for each migration: journal, status.json, crossfade.log (or --dir)
  crossfade.toml     the configuration, if you want one: `crossfade init` writes it
  in the target      the schema or tables named crossfade: the record of what has been copied and applied

Exit codes:
  0  done, or stopped as asked       2  blocked: what stands in the way was printed
  1  error                           3  differences between the two sides";

const RUN: &str = "\
Example:
  crossfade run --source postgres://app@old/shop --target postgres://app@new/shop

What it does:
  1. Checks both sides and refuses to start (exit 2) while something stands in the way.
  2. Creates the tables on the target and copies the rows in chunks, while the application keeps writing.
  3. Captures every change meanwhile and applies it, exactly once and in order, and keeps following.

Ctrl-C or SIGTERM stops it at a durable point (exit 0). However it ends, also by kill -9 or a power cut, the
same command goes on where it was. A second Ctrl-C leaves at once (exit 130); that loses nothing either.

Passwords: put them into the environment (CROSSFADE_SOURCE, CROSSFADE_TARGET, or ${NAME} in crossfade.toml)
rather than on the command line, where other users of the machine can read them.

Stored in .crossfade/NAME/ (or --dir): journal, status.json, crossfade.log, lock.
Exit codes: 0 done or stopped, 1 error, 2 blocked or a table is held back by a quarantined change.";

const CHECK: &str = "\
Example:
  crossfade check --source postgres://app@old/shop --target postgres://app@new/shop

Each finding has a stable id, what was found, why it matters and the exact remedy. Nothing is changed on either
side. Exit codes: 0 nothing stands in the way, 2 there are blockers, 1 it could not look.";

const STATUS: &str = "\
Example:
  crossfade status --json | jq .lag

Reads status.json in the migration's folder, so it also works while nothing is running; `running` says which.";

const INIT: &str = "\
Example:
  crossfade init --source postgres://app@old/shop --target postgres://app@new/shop
  crossfade init --schema > crossfade.schema.json      for editors that check TOML files

A password in a URL does not get into the file: an environment variable is put in its place.";

const DEMO: &str = "\
Makes a small shop in an SQLite file, keeps writing to it with several writers, and migrates it into another
file meanwhile. The migration is a process of its own, killed (SIGKILL) again and again and started again. At
the end both files are compared row by row, with plain SQL that shares nothing with the migration.

Example:
  crossfade demo --seconds 30 --keep

Everything happens in a folder for temporary files, which is removed at the end unless --keep is given.
Exit codes: 0 no differences, 3 differences, 1 error.";

/// Moves a live database to another place while the application keeps reading and writing.
#[derive(Debug, Parser)]
#[command(name = "crossfade", version, after_help = EXAMPLES, max_term_width = 110, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Prints JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows a live migration that is killed again and again, in under a minute and without a server
    #[command(after_help = DEMO)]
    Demo(DemoArgs),
    /// Writes a commented crossfade.toml
    #[command(after_help = INIT)]
    Init(InitArgs),
    /// Finds what would stop or harm a migration, without changing anything
    #[command(after_help = CHECK)]
    Check(CheckArgs),
    /// Copies, then follows, until it is stopped; run again, it goes on where it was
    #[command(after_help = RUN)]
    Run(RunArgs),
    /// Tells how far a migration is
    #[command(after_help = STATUS)]
    Status(StatusArgs),
    /// Prints completions for a shell: `source <(crossfade completions bash)`
    Completions { shell: Shell },
}

/// Which migration.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct Place {
    /// Migration's name; by default the source database's
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Migration's folder; by default .crossfade/NAME
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,
    /// Configuration; by default crossfade.toml here, if there is one
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// From where to where.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct Sides {
    /// Database to move: postgres://user@host/database or sqlite:path
    #[arg(long, value_name = "URL", env = "CROSSFADE_SOURCE", hide_env_values = true)]
    pub(crate) source: Option<String>,
    /// Database to move to
    #[arg(long, value_name = "URL", env = "CROSSFADE_TARGET", hide_env_values = true)]
    pub(crate) target: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) sides: Sides,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Tables to migrate, as in `public.*` or `order?`; may be given several times; by default all
    #[arg(long, value_name = "PATTERN")]
    pub(crate) tables: Vec<String>,
    /// Ends by itself: after the copy, or once everything committed until then is applied
    #[arg(long, value_enum)]
    pub(crate) until: Option<UntilArg>,
    /// Checks and shows what would be done, and changes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Goes on in the place of a process that still holds the lock; that one is fenced off by the target
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Concurrent chunk reads, and as many concurrent loads
    #[arg(long, value_name = "N", help_heading = "Tuning")]
    pub(crate) copy_streams: Option<NonZeroUsize>,
    /// Size of one chunk on the source's disk
    #[arg(long, value_name = "N", help_heading = "Tuning")]
    pub(crate) chunk_bytes: Option<NonZeroU64>,
    /// Larger tables are copied under several short snapshots instead of one long one
    #[arg(long, value_name = "N", help_heading = "Tuning")]
    pub(crate) one_cut_bytes_max: Option<NonZeroU64>,
    /// How long one such snapshot may last
    #[arg(long, value_name = "N", help_heading = "Tuning")]
    pub(crate) wave_seconds_max: Option<u64>,
    /// Whether the copy gives way when the application works on the source
    #[arg(long, value_enum, value_name = "on|off", help_heading = "Tuning")]
    pub(crate) throttle: Option<Throttle>,
    /// How changes are applied
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Tuning")]
    pub(crate) apply: Option<ApplyMode>,
    /// Groups of transactions that are written at a time; they commit in the source's order
    #[arg(long, value_name = "N", help_heading = "Tuning")]
    pub(crate) apply_lanes: Option<NonZeroUsize>,
    /// Memory budget of one folded slice of changes
    #[arg(long, value_name = "N", help_heading = "Tuning")]
    pub(crate) slice_bytes: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UntilArg {
    /// The source's log up to now is in the journal; nothing is copied or applied
    Captured,
    /// Every row that was there is on the target
    Copied,
    /// And everything that the source had committed by then is applied
    CaughtUp,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) sides: Sides,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Tables to migrate, as in `public.*` or `order?`; may be given several times; by default all
    #[arg(long, value_name = "PATTERN")]
    pub(crate) tables: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    pub(crate) sides: Sides,
    /// Migration's name; by default the source database's
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// File to write
    #[arg(long, value_name = "FILE", default_value = crate::config::FILE)]
    pub(crate) config: PathBuf,
    /// Overwrites the file
    #[arg(long)]
    pub(crate) force: bool,
    /// Prints what would be written, and writes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Prints the JSON Schema of the file instead
    #[arg(long)]
    pub(crate) schema: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// How long the shop is open while it is being migrated
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub(crate) seconds: u64,
    /// Decides the shop's data, the writers' transactions and the moments of the kills
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Keeps the two databases and the migration's folder
    #[arg(long)]
    pub(crate) keep: bool,
}
