//! How much is explored: every state within these bounds, and none outside of them.
//!
//! A history of the merge model is a set of transactions out of [`SCRIPTS`]; all interleavings, all cuts, all orders of
//! chunks, and all ways to group, fold or order what is applied are explored. One of the apply protocol is a number of
//! transactions. In both the faults are bounded, and may come between any two steps.

use crate::apply::Apply;
use crate::check::{Explored, explore};
use crate::merge::{Merge, Start};
use crate::rules::{self, Rule};
use crate::script::SCRIPTS;
use crate::source::Visibility;

/// One exploration.
pub struct Size {
    pub model: &'static str,
    pub bounds: &'static str,
    explore: fn(Option<Rule>, usize) -> Explored,
    /// What cannot occur within these bounds.
    absent: &'static [&'static str],
}

impl Size {
    pub fn explore(&self, removed: Option<Rule>, threads: usize) -> Explored {
        let mut explored = (self.explore)(removed, threads);
        explored.unseen.retain(|unseen| !self.absent.contains(unseen));
        explored
    }
}

const BY_KEYS: Start = Start { visibility: Visibility::AfterLog, by_keys: true, unique: false };
const ONE_CUT: Start = Start { visibility: Visibility::AfterLog, by_keys: false, unique: false };
const UNIQUE: Start = Start { visibility: Visibility::AfterLog, by_keys: false, unique: true };
const PREFIX_BY_KEYS: Start = Start { visibility: Visibility::WithLog, by_keys: true, unique: false };
const PREFIX_ONE_CUT: Start = Start { visibility: Visibility::WithLog, by_keys: false, unique: false };

/// What `cargo xtask proof` explores.
pub const FULL: &[Size] = &[
    Size {
        model: "merge",
        bounds: "every pair of transactions, by key ranges, 2 faults",
        explore: |removed, threads| explore(Merge::new(pairs(every()), vec![BY_KEYS], 2, removed), threads),
        absent: &[],
    },
    Size {
        model: "merge",
        bounds: "every pair of transactions, under one cut, 2 faults",
        explore: |removed, threads| {
            explore(Merge::new(pairs(every()), vec![ONE_CUT, UNIQUE], 2, removed), threads)
        },
        absent: &[],
    },
    Size {
        model: "merge",
        bounds: "every pair of transactions, visible in log order, 1 fault",
        explore: |removed, threads| {
            let starts = vec![PREFIX_BY_KEYS, PREFIX_ONE_CUT];
            explore(Merge::new(pairs(every()), starts, 1, removed), threads)
        },
        absent: &["seen: a cut without a commit that the log has"],
    },
    Size {
        model: "merge",
        bounds: "triples of short transactions, both ways, 1 fault",
        explore: |removed, threads| {
            explore(Merge::new(triples(&SHORT), vec![BY_KEYS, ONE_CUT], 1, removed), threads)
        },
        absent: &[],
    },
    Size {
        model: "apply",
        bounds: "2 transactions, 2 takeovers, 1 fault",
        explore: |removed, threads| {
            explore(Apply { transactions: 2, faults_max: 1, takeovers_max: 2, removed }, threads)
        },
        absent: &[],
    },
    Size {
        model: "apply",
        bounds: "3 transactions, 1 takeover, 2 faults",
        explore: |removed, threads| {
            explore(Apply { transactions: 3, faults_max: 2, takeovers_max: 1, removed }, threads)
        },
        absent: &[],
    },
];

/// What `cargo test` explores, and where each removed rule must break a property.
pub const SMALL: &[Size] = &[
    Size {
        model: "merge",
        bounds: "single transactions and some pairs, by key ranges, 1 fault",
        explore: |removed, threads| explore(Merge::new(some(), vec![BY_KEYS], 1, removed), threads),
        absent: &[],
    },
    Size {
        model: "merge",
        bounds: "single transactions, under one cut, 1 fault",
        explore: |removed, threads| {
            explore(Merge::new(singles(), vec![ONE_CUT, UNIQUE], 1, removed), threads)
        },
        absent: &["seen: chunks under three cuts", "seen: a row fetched alone"],
    },
    Size {
        model: "apply",
        bounds: "2 transactions, 1 takeover, 1 fault",
        explore: |removed, threads| {
            explore(Apply { transactions: 2, faults_max: 1, takeovers_max: 1, removed }, threads)
        },
        absent: &[],
    },
];

/// The rules of a model.
pub fn rules(model: &str) -> &'static [Rule] {
    if model == "apply" { rules::APPLY } else { rules::MERGE }
}

/// Removes a rule and looks for what it breaks, in the smallest of these sizes that shows it.
pub fn without(rule: Rule, sizes: &[Size], model: &str) -> Option<Explored> {
    let sizes = sizes.iter().filter(|size| size.model == model);
    sizes.map(|size| size.explore(Some(rule), 1)).find(|explored| explored.broken.is_some())
}

fn every() -> std::ops::Range<u8> {
    0..SCRIPTS.len() as u8
}

fn singles() -> Vec<Vec<u8>> {
    every().map(|script| vec![script]).collect()
}

/// A script with itself included.
fn pairs(scripts: std::ops::Range<u8>) -> Vec<Vec<u8>> {
    let end = scripts.end;
    scripts.flat_map(|a| (a..end).map(move |b| vec![a, b])).collect()
}

/// Single scripts, and the pairs without which some rule is not needed.
fn some() -> Vec<Vec<u8>> {
    let pair = |a: &str, b: &str| vec![named(a), named(b)];
    let mut histories = singles();
    histories.extend([
        pair("update 1", "update 2, prepared"),
        pair("move 1 to 3", "move 3 to 1"),
        pair("move 1 to 3", "truncate"),
    ]);
    histories
}

/// One operation each: all that the merge rule distinguishes.
const SHORT: [&str; 6] =
    ["update 1 with its large value", "insert 3", "delete 1", "move 1 to 3", "move 3 to 1", "truncate"];

fn triples(names: &[&str]) -> Vec<Vec<u8>> {
    let scripts: Vec<u8> = names.iter().map(|name| named(name)).collect();
    let mut triples = Vec::new();
    for (at, &a) in scripts.iter().enumerate() {
        for (beside, &b) in scripts.iter().enumerate().skip(at) {
            triples.extend(scripts[beside..].iter().map(|&c| vec![a, b, c]));
        }
    }
    triples
}

fn named(name: &str) -> u8 {
    let at = SCRIPTS.iter().position(|script| script.name == name);
    at.unwrap_or_else(|| unreachable!("there is no script {name:?}")) as u8
}
