//! Where the time goes: flame graphs of a benchmark's measured run, servers included.
//!
//! The whole machine is sampled, because what is left of the program's time is mostly spent by the servers on its
//! behalf. PostgreSQL's own packages have no frame pointers, so its stacks are short.

use std::fs;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use inferno::collapse::Collapse;
use inferno::collapse::perf::Folder;
use inferno::flamegraph::{self, Options};

use crate::install;
use crate::shell::{self, Result};

/// A picture's name, the benchmark that is run for it, and what its measured command has among its arguments and none
/// after it.
const PROFILES: &[(&str, &str, &str)] = &[
    ("copy", "copy-narrow", "--until copied"),
    ("capture", "capture", "--until captured"),
    ("apply", "apply", "--until caught-up"),
    ("catch-up", "catch-up", "--until caught-up"),
    ("strict", "strict", "--until caught-up"),
];

pub(crate) fn run(args: &[String]) -> Result {
    let unknown = args.iter().find(|arg| !PROFILES.iter().any(|(name, ..)| name == arg));
    if let Some(name) = unknown {
        let known: Vec<&str> = PROFILES.iter().map(|(name, ..)| *name).collect();
        return Err(format!("there is no profile {name:?}, only {}", known.join(", ")));
    }
    if !shell::exists("perf") {
        return Err("perf is missing: apt-get install -y --no-install-recommends linux-perf".into());
    }
    install::peers()?;
    let target = shell::target().join("profile");
    shell::run(
        shell::cargo()
            .env("RUSTFLAGS", "-C force-frame-pointers=yes")
            .env("CARGO_TARGET_DIR", &target)
            .args(["build", "--release", "--package", "crossfade", "--package", "testkit", "--bins"]),
    )?;
    for (name, bench, mark) in PROFILES {
        if args.is_empty() || args.iter().any(|arg| arg == name) {
            let recorded = record(&target, bench, mark)?;
            let picture = shell::root().join("bench/profiles").join(format!("{name}.svg"));
            draw(&recorded, &picture, name)?;
            println!("{}", picture.display());
        }
    }
    Ok(())
}

/// Runs one round of the benchmark with a `crossfade` that samples the machine while it runs. Returns the last recording of
/// a run with these arguments: the ones before it prepare.
fn record(target: &Path, bench: &str, mark: &str) -> std::result::Result<PathBuf, String> {
    let folder = target.join("recorded");
    let binaries = target.join("release");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failed)?;
    }
    fs::create_dir_all(&folder).map_err(failed)?;
    let wrapper = folder.join("crossfade");
    let script = format!(
        "#!/bin/sh\necho \"$*\" > '{0}/'$$.args\nexec perf record --quiet --all-cpus --freq 499 --call-graph fp --output '{0}/'$$.data -- '{1}' \"$@\"\n",
        folder.display(),
        binaries.join("crossfade").display()
    );
    fs::write(&wrapper, script).map_err(failed)?;
    shell::run(Command::new("chmod").arg("+x").arg(&wrapper))?;
    let mut run = Command::new(binaries.join("bench"));
    run.current_dir(shell::root()).arg(bench).args(["--rounds", "1", "--crossfade"]).arg(&wrapper);
    // The figures of a run that is being sampled are of no interest, and neither is whether they hold.
    run.arg("--out").arg(&folder).stdout(Stdio::null());
    run.status().map_err(failed)?;
    let mut found: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "args") {
            let args = fs::read_to_string(&path).map_err(failed)?;
            if args.contains(mark) {
                found.push((fs::metadata(&path).and_then(|data| data.modified()).map_err(failed)?, path));
            }
        }
    }
    found.sort();
    let (_, last) = found.pop().ok_or_else(|| format!("{bench} ran no crossfade with {mark}"))?;
    Ok(last.with_extension("data"))
}

fn draw(recorded: &Path, picture: &Path, name: &str) -> Result {
    let failed = |error: std::io::Error| format!("{}: {error}", picture.display());
    let mut script = Command::new("perf")
        .args(["script", "--input"])
        .arg(recorded)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut folded = Vec::new();
    let samples = script.stdout.take().ok_or("perf script has no output")?;
    Folder::default().collapse(BufReader::new(samples), &mut folded).map_err(failed)?;
    script.wait().map_err(failed)?;
    let ours = ["postgres;", "crossfade;", "capture;", "tokio-rt-worker;"];
    let folded = String::from_utf8_lossy(&folded);
    let lines: Vec<&str> =
        folded.lines().filter(|line| ours.iter().any(|thread| line.starts_with(thread))).collect();
    let mut options = Options::default();
    options.title = format!("crossfade {name}: the program's threads and both servers");
    options.min_width = 0.3;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines, &mut svg)
        .map_err(|error| format!("{}: {error}", picture.display()))?;
    if let Some(folder) = picture.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::File::create(picture).and_then(|mut file| file.write_all(&svg)).map_err(failed)
}
