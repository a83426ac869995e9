//! Formatting, lints, and the arrows between crates.

use std::process::Command;

use serde_json::Value;

use crate::shell::{self, Result};

/// Who may depend on whom. A crate that is not listed, or an arrow that is not here, is refused: the shape of
/// the project is decided here and nowhere else. `connector-*` stands for each database engine.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("connector", &["model"]),
    ("net", &["connector"]),
    ("connector-*", &["connector", "model", "net"]),
    ("engine", &["connector", "model"]),
    ("crossfade", &["connector", "connector-*", "engine", "model"]),
    ("proof", &["connector", "engine", "model"]),
    ("sim", &["connector", "engine", "model"]),
    ("testkit", &[]),
    ("xtask", &[]),
];

/// Only tests may use these, from anywhere.
const DEV_ONLY: &[&str] = &["testkit"];

pub(crate) fn run() -> Result {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--features", "crossfade/failpoints"];
    shell::run(shell::cargo().args(clippy).args(["--", "-D", "warnings"]))?;
    arrows(shell::cargo())
}

fn arrows(mut cargo: Command) -> Result {
    let text = shell::output(cargo.args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let ours: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(pattern, _)| matches(pattern, name)) else {
            wrong.push(format!("{name} has no line in the table of arrows"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"] == "dev";
            let fine =
                allowed.iter().any(|pattern| matches(pattern, to)) || (for_tests && DEV_ONLY.contains(&to));
            if ours.contains(&to) && !fine {
                wrong.push(format!("{name} → {to}"));
            }
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("these dependencies between crates may not be:\n  {}", wrong.join("\n  ")))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_arrows_of_the_table_exist() {
        arrows(shell::cargo()).unwrap();
    }
}
