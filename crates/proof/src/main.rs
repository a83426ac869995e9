//! Checks both models, then removes one rule after the other and shows what breaks: `cargo xtask proof`.

use std::process::ExitCode;
use std::time::Duration;

use proof::rules::Rule;
use proof::sizes::{self, FULL, SMALL};

const THREADS: usize = 2;

fn main() -> ExitCode {
    let holds = clean();
    let caught = removed();
    if holds && caught { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every state of the full sizes, with all rules in force.
fn clean() -> bool {
    model::mutant::activate(None);
    println!("{:<6} {:<60} {:>10} {:>6} {:>7}  properties", "model", "explored", "states", "depth", "time");
    let (mut states, mut took, mut holds) = (0, Duration::ZERO, true);
    for size in FULL {
        let explored = size.explore(None, THREADS);
        let verdict = match (&explored.broken, &explored.unseen[..]) {
            (Some(broken), _) => format!("BROKEN: {}", broken.property),
            (None, []) => format!("{} hold", explored.properties.len()),
            (None, unseen) => format!("EMPTY: not {}", unseen.join(", not ")),
        };
        println!(
            "{:<6} {:<60} {:>10} {:>6} {:>6.1}s  {verdict}",
            size.model,
            size.bounds,
            explored.states,
            explored.depth,
            explored.took.as_secs_f64()
        );
        if let Some(broken) = &explored.broken {
            tell(&broken.story);
        }
        holds &= explored.holds();
        states += explored.states;
        took += explored.took;
    }
    println!("{states} states in {:.1}s, {} MiB at the most", took.as_secs_f64(), memory_mib());
    holds
}

/// Every rule, removed alone.
fn removed() -> bool {
    let (mut rules, mut caught) = (0, 0);
    for model in ["merge", "apply"] {
        for rule in sizes::rules(model) {
            println!("\n{model} without {}: {}", rule.name(), rule.does());
            rules += 1;
            caught += u32::from(breaks(*rule, model));
        }
    }
    model::mutant::activate(None);
    println!("\n{rules} rules removed one at a time, {caught} caught");
    caught == rules
}

fn breaks(rule: Rule, model: &str) -> bool {
    model::mutant::activate(rule.mutant());
    let found = sizes::without(rule, SMALL, model).or_else(|| sizes::without(rule, FULL, model));
    let Some(broken) = found.and_then(|explored| explored.broken) else {
        println!("  NOTHING BREAKS: either nothing watches this rule, or it is not needed");
        return false;
    };
    println!("  breaks {} in {} steps", broken.property, broken.story.len() - 2);
    tell(&broken.story);
    true
}

fn tell(story: &[String]) {
    story.iter().for_each(|line| println!("    {line}"));
}

/// The most memory that this process had, where the system tells it.
fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}
