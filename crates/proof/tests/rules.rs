//! Each rule, removed alone, breaks a property. In a process of its own and one after the other: a sabotage is on for
//! the whole process.

use proof::sizes::{self, SMALL};

#[test]
fn every_removed_rule_breaks_a_property() {
    let mut unnoticed = Vec::new();
    for model in ["merge", "apply"] {
        for rule in sizes::rules(model) {
            model::mutant::activate(rule.mutant());
            if sizes::without(*rule, SMALL, model).is_none() {
                unnoticed.push(rule.name());
            }
        }
    }
    assert_eq!(unnoticed, [""; 0]);
}
