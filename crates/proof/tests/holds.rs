//! With every rule in force, every property holds, and everything that should occur does.

use proof::sizes::SMALL;

#[test]
fn the_small_sizes_hold() {
    for size in SMALL {
        let explored = size.explore(None, 2);
        if let Some(broken) = &explored.broken {
            panic!("{}: {} does not hold: {:#?}", size.bounds, broken.property, broken.story);
        }
        assert_eq!(explored.unseen, [""; 0], "{} ({} states)", size.bounds, explored.states);
    }
}
