//! What the figures were taken on.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) hardware: String,
    pub(crate) system: String,
    /// Of the program and of all peers.
    pub(crate) versions: Vec<String>,
    /// Of the program's source.
    pub(crate) commit: String,
}

/// With the versions of these programs, found on a path.
pub(crate) fn look(crossfade: &Path, peers: &[&str], path: &OsStr) -> Machine {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "an unknown processor".into());
    let memory_kib: u64 = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let system = field("/etc/os-release", "PRETTY_NAME").unwrap_or_else(|| "an unknown system".into());
    let programs = std::iter::once(crossfade).chain(peers.iter().map(Path::new));
    let versions = programs.map(|program| said(Command::new(program).env("PATH", path).arg("--version")));
    let versions = versions.collect();
    let commit = said(Command::new("git").args(["describe", "--always", "--dirty", "--exclude", "*"]));
    Machine {
        hardware: format!("{cores} cores of {processor}, {} GiB", memory_kib.div_ceil(1024 * 1024)),
        system: format!(
            "{}, Linux {}",
            system.trim_matches('"'),
            kernel.split('-').next().unwrap_or_default().trim()
        ),
        versions,
        commit,
    }
}

/// A line's value in a file of the system that has a name and a value in each line.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start_matches(['\t', ' ', ':', '=']).trim().to_owned())
}

/// A program's first line.
fn said(command: &mut Command) -> String {
    let text = command
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}
