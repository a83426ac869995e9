//! The seeds of past bugs show them when the bugs are brought back. In a file of its own: a sabotage is on for the whole
//! process.
#![cfg(feature = "mutants")]

use model::mutant::{self, ALL};
use sim::history::History;
use sim::play::play;

#[test]
fn a_sabotage_is_seen_and_then_gone() {
    for (name, seed) in
        [("journal-zero-format", 3158), ("apply-forgets-hold", 96), ("cut-ignores-running", 19)]
    {
        let sabotage = *ALL.iter().find(|mutant| mutant.name == name).unwrap();
        mutant::activate(Some(sabotage));
        assert!(play(&History::new(seed), false).violation.is_some(), "{name}");
        mutant::activate(None);
        assert!(play(&History::new(seed), false).violation.is_none(), "{name}");
    }
}
