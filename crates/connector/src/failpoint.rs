//! Named points at which a test lets the process die as by `kill -9`.
//!
//! `CROSSFADE_FAILPOINT=apply.before_commit:3` ends the process the third time that point is reached. Without
//! the `failpoints` feature [`hit`] is empty and nothing reads the environment.

/// Every point, so that a test can walk through all of them.
pub const ALL: &[&str] = &[
    CLAIM_AFTER,
    PREPARE_AFTER,
    PLAN_AFTER,
    CREATE_AFTER,
    CAPTURE_BEFORE_FSYNC,
    CAPTURE_AFTER_FSYNC,
    CAPTURE_AFTER_ACKNOWLEDGE,
    WAVE_AFTER_CUT,
    CHUNK_BEFORE_COMMIT,
    CHUNK_AFTER_COMMIT,
    TABLE_AFTER_RESET,
    KEYS_AFTER,
    APPLY_BEFORE_COMMIT,
    APPLY_COMMIT_UNANSWERED,
    APPLY_AFTER_COMMIT,
    FINISH_BETWEEN_ITEMS,
    FINISH_AFTER,
    JOURNAL_AFTER_TRIM,
];

pub const CLAIM_AFTER: &str = "claim.after";
pub const PREPARE_AFTER: &str = "prepare.after";
pub const PLAN_AFTER: &str = "plan.after";
pub const CREATE_AFTER: &str = "create.after";
pub const CAPTURE_BEFORE_FSYNC: &str = "capture.before_fsync";
pub const CAPTURE_AFTER_FSYNC: &str = "capture.after_fsync";
pub const CAPTURE_AFTER_ACKNOWLEDGE: &str = "capture.after_acknowledge";
pub const WAVE_AFTER_CUT: &str = "wave.after_cut";
pub const CHUNK_BEFORE_COMMIT: &str = "chunk.before_commit";
pub const CHUNK_AFTER_COMMIT: &str = "chunk.after_commit";
pub const TABLE_AFTER_RESET: &str = "table.after_reset";
pub const KEYS_AFTER: &str = "keys.after";
pub const APPLY_BEFORE_COMMIT: &str = "apply.before_commit";
/// Between the target's COMMIT sent and its answer read: the outcome is unknown to us.
pub const APPLY_COMMIT_UNANSWERED: &str = "apply.commit_unanswered";
pub const APPLY_AFTER_COMMIT: &str = "apply.after_commit";
pub const FINISH_BETWEEN_ITEMS: &str = "finish.between_items";
pub const FINISH_AFTER: &str = "finish.after";
pub const JOURNAL_AFTER_TRIM: &str = "journal.after_trim";

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &'static str) {}

#[cfg(feature = "failpoints")]
pub fn hit(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let value = std::env::var("CROSSFADE_FAILPOINT").ok()?;
        let (point, count) = value.split_once(':').unwrap_or((&value, "1"));
        assert!(ALL.contains(&point), "CROSSFADE_FAILPOINT names no failpoint: {point}");
        Some((point.to_owned(), AtomicU64::new(count.parse().unwrap_or(1))))
    });
    if let Some((point, left)) = armed
        && point == name
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        // abort() runs no destructor and flushes nothing, as a kill would not.
        std::process::abort();
    }
}
