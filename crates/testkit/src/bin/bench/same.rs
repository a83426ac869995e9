//! Work that was not done is not worth measuring: what is on the target is what is on the source.

use crate::Bench;
use crate::host::Host;

/// As many rows in every table: enough for a plain copy, and quick.
pub(crate) fn counts<S: Host, T: Host>(bench: &Bench<S, T>, database: &str, target: &str) {
    compare([bench.pair.source.counts(database), bench.pair.target.counts(target)], database, target);
}

/// The same rows in every table, by a digest that each server makes.
pub(crate) fn rows<H: Host>(bench: &Bench<H, H>, database: &str, target: &str) {
    compare([bench.pair.source.digests(database), bench.pair.target.digests(target)], database, target);
}

fn compare([source, target_has]: [Vec<String>; 2], database: &str, target: &str) {
    assert!(!source.is_empty(), "{database} has no table");
    assert_eq!(source, target_has, "{database} on the source and {target} on the target differ");
}
