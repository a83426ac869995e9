//! What `check` finds before anything is touched.

use serde::Serialize;

/// One thing that stands in the way, or that a person should know.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Stable, documented: `PG-WAL-LEVEL`.
    pub id: &'static str,
    pub severity: Severity,
    /// The server, table, column, setting or role that it is about.
    pub object: String,
    /// What was found.
    pub found: String,
    /// Why it matters: what would go wrong.
    pub why: String,
    /// The exact SQL or setting that mends it.
    pub remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know; nothing to do.
    Note,
    /// The migration can run, and something is lost, slow or to be done by hand.
    Warning,
    /// `run` refuses to start.
    Blocker,
}
