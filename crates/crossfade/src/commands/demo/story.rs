//! What the demo tells at its end.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::chart;
use super::compare::Compared;
use super::pipeline::url;
use super::writers::{WRITERS, Written};
use crate::figures::{count, counted, duration, seconds};

pub(crate) struct Story {
    pub(crate) rows_copied: u64,
    pub(crate) changes_applied: u64,
    pub(crate) written: Written,
    pub(crate) kills: Vec<Kill>,
    /// (second, lag in seconds).
    pub(crate) lag: Vec<(f64, f64)>,
    pub(crate) tables: Vec<Compared>,
    pub(crate) took: Duration,
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) folder: PathBuf,
    /// Where everything stays; `None` when it is removed.
    pub(crate) kept: Option<PathBuf>,
}

/// One SIGKILL.
pub(crate) struct Kill {
    /// Seconds since the shop opened.
    pub(crate) at: f64,
    pub(crate) rows_target: u64,
    pub(crate) in_copy: bool,
}

impl Kill {
    pub(crate) fn told(&self, number: usize) -> String {
        let when = if self.in_copy { "during the copy" } else { "while following" };
        format!("kill -9, number {number}, {when}: the target has {} rows", count(self.rows_target))
    }
}

impl Story {
    pub(crate) fn differences(&self) -> u64 {
        // A comparison that found no table has compared nothing.
        if self.tables.is_empty() { 1 } else { self.tables.iter().map(Compared::differences).sum() }
    }

    fn kills_in_copy(&self) -> usize {
        self.kills.iter().filter(|kill| kill.in_copy).count()
    }

    fn lag_max(&self) -> f64 {
        self.lag.iter().map(|(_, lag)| *lag).fold(0.0, f64::max)
    }

    fn lag_end(&self) -> f64 {
        self.lag.last().map_or(0.0, |(_, lag)| *lag)
    }

    pub(crate) fn text(&self) -> String {
        let mut out = format!("A shop was moved while it was open, in {}.\n\n", duration(self.took));
        for (label, value, more) in [
            ("rows copied", count(self.rows_copied), String::new()),
            (
                "changes applied",
                count(self.changes_applied),
                "or more: a killed run takes its last half second of counting with it".to_owned(),
            ),
            (
                "transactions written",
                count(self.written.transactions),
                format!(
                    "by {WRITERS} writers meanwhile, changing {}",
                    counted(self.written.row_changes, "row")
                ),
            ),
            (
                "kills survived",
                count(self.kills.len() as u64),
                format!("SIGKILL at random moments, {} of them during the copy", self.kills_in_copy()),
            ),
            ("lag at the end", seconds(self.lag_end()), format!("highest {}", seconds(self.lag_max()))),
        ] {
            out += format!("  {label:<21}{value:>10}   {more}").trim_end();
            out.push('\n');
        }
        out += "\n  lag over time (× is a kill)\n";
        let marks: Vec<f64> = self.kills.iter().map(|kill| kill.at).collect();
        for line in chart::draw(&self.lag, &marks).lines() {
            out += &format!("  {line}\n");
        }
        out += "\n  compared row by row, in both directions, with plain SQL\n";
        for table in &self.tables {
            out += &format!(
                "  {:<14}{:>10} rows   differences: {}\n",
                table.table,
                count(table.rows_source),
                count(table.differences())
            );
        }
        out += &match self.differences() {
            0 => "\n  ✓ differences: 0\n".to_owned(),
            differences => format!("\n  ✗ differences: {}\n", count(differences)),
        };
        match &self.kept {
            Some(folder) => {
                out += &format!("\n  look at it: {}\n", folder.display());
                out += &format!(
                    "    sqlite3 {}\n    sqlite3 {}\n",
                    self.source.display(),
                    self.target.display()
                );
                out += &format!("    crossfade status --dir {}\n", folder.join("migration").display());
            }
            None => out += "\n  look at the files yourself: crossfade demo --keep\n",
        }
        out += "\n  next, your own database:\n";
        out += "    crossfade check --source postgres://app@old/shop --target postgres://app@new/shop\n";
        out += "    crossfade run   --source postgres://app@old/shop --target postgres://app@new/shop\n";
        out
    }

    pub(crate) fn json(&self) -> Value {
        let lag: Vec<Value> = self.lag.iter().map(|(at, lag)| json!({ "at": at, "seconds": lag })).collect();
        let kills: Vec<Value> = self
            .kills
            .iter()
            .map(
                |kill| json!({ "at": kill.at, "during_copy": kill.in_copy, "rows_target": kill.rows_target }),
            )
            .collect();
        json!({
            "rows_copied": self.rows_copied,
            "changes_applied": self.changes_applied,
            "transactions_written": self.written.transactions,
            "row_changes_written": self.written.row_changes,
            "kills_survived": self.kills.len(),
            "kills": kills,
            "lag_seconds_max": self.lag_max(),
            "lag_seconds_end": self.lag_end(),
            "lag": lag,
            "tables": self.tables,
            "differences": self.differences(),
            "seconds": self.took.as_secs_f64(),
            "source": url(&self.source),
            "target": url(&self.target),
            "kept": self.kept,
        })
    }
}
