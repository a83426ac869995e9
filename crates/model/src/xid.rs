//! PostgreSQL's transaction ids: 32 bits on the wire, 64 in a snapshot. Here and not with the connector, because what a
//! cut contains hangs on it, and the proofs must be able to drive it.

use crate::mutant;

/// Widens a wire id by the epoch that brings it nearest to `near`, an id of the same cluster that is less than
/// 2^31 away. Near the beginning of time there is no earlier epoch, and the first one is taken.
pub fn widen(xid: u32, near: u64) -> u64 {
    const HALF: u64 = 1 << 31;
    const EPOCH: u64 = 1 << 32;
    let same = (near & !(EPOCH - 1)) | u64::from(xid);
    if mutant::on(mutant::XID_KEEPS_EPOCH) {
        return same;
    }
    if same > near && same - near > HALF {
        same.checked_sub(EPOCH).unwrap_or(same)
    } else if near > same && near - same > HALF {
        same.checked_add(EPOCH).unwrap_or(same)
    } else {
        same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_epoch_is_taken() {
        const E: u64 = 1 << 32;
        for (xid, near, wide) in [
            (0, 0, 0),
            (3, 0, 3),
            (750, 800, 750),
            // No epoch before the first.
            (u32::MAX, 5, u64::from(u32::MAX)),
            // Just before and just after a border.
            (u32::MAX, E + 5, E - 1),
            (5, E - 1, E + 5),
            (5, E + 6, E + 5),
            (u32::MAX, 3 * E, 3 * E - 1),
            (3, 3 * E - 1, 3 * E + 3),
            // Half an epoch away the same epoch is kept.
            (1 << 31, E, E + (1 << 31)),
            ((1 << 31) + 1, E, (1 << 31) + 1),
            (0, E + (1 << 31), E),
            (0, E + (1 << 31) + 1, 2 * E),
            (7, u64::MAX, u64::MAX - u64::from(u32::MAX) + 7),
        ] {
            assert_eq!(widen(xid, near), wide, "{xid} near {near}");
        }
    }
}
