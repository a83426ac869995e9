//! What a person sees of a migration: bars on a terminal, lines where there is none, JSON for programs.
//!
//! Progress goes to stderr, so that stdout holds results only; JSON lines are results. Everything is told from
//! the status; nothing here is counted.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use engine::{Phase, Status};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use model::TableName;
use serde_json::json;

use crate::figures::{bytes, count, counted, seconds};
use crate::output;
use crate::redact::redact;
use crate::report::Error;
use crate::view::{Table, View};

/// More bars than this push the summary line off a small terminal.
const BARS_MAX: usize = 8;
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// Shows a running migration. Dropping it leaves the terminal clean.
pub(crate) enum Display {
    Bars(Bars),
    Plain { phase: Option<Phase>, next: Instant },
    Json { next: Instant },
}

pub(crate) struct Bars {
    multi: MultiProgress,
    tables: Vec<(TableName, ProgressBar)>,
    line: ProgressBar,
}

impl Display {
    pub(crate) fn new(json: bool) -> Display {
        let now = Instant::now();
        if json {
            Display::Json { next: now }
        } else if std::io::stderr().is_terminal() {
            let multi = MultiProgress::new();
            let line = multi.add(ProgressBar::new_spinner());
            line.set_style(style("{spinner} {wide_msg}"));
            Display::Bars(Bars { multi, tables: Vec::new(), line })
        } else {
            Display::Plain { phase: None, next: now }
        }
    }

    /// Shows the newest status, which may have changed since the last time; cheap to call often.
    pub(crate) fn show(&mut self, status: &Status, changed: bool) -> Result<(), Error> {
        if status.phase == Phase::Planned && status.retrying.is_none() {
            // Nothing has happened yet.
            return Ok(());
        }
        let now = Instant::now();
        match self {
            Display::Bars(bars) if !changed => bars.line.tick(),
            Display::Bars(bars) => bars.show(&View::of(status).map_err(Error::unshown)?),
            Display::Plain { phase, next } => {
                if *phase != Some(status.phase) || now >= *next {
                    output::talk(&line(&View::of(status).map_err(Error::unshown)?));
                    *phase = Some(status.phase);
                    *next = now + PLAIN_INTERVAL;
                }
            }
            Display::Json { next } => {
                if now >= *next {
                    output::json(&event("status", serde_json::to_value(status).map_err(Error::unshown)?))?;
                    *next = now + JSON_INTERVAL;
                }
            }
        }
        Ok(())
    }

    /// Says one thing beside the progress.
    pub(crate) fn say(&self, text: &str) {
        match self {
            Display::Bars(bars) => bars.multi.suspend(|| output::talk(text)),
            Display::Plain { .. } | Display::Json { .. } => output::talk(text),
        }
    }
}

impl Bars {
    fn show(&mut self, view: &View) {
        let in_copy = |table: &&Table| table.phase == "copying" && table.share() < 1.0;
        let copying: Vec<&Table> = view.tables.iter().filter(in_copy).take(BARS_MAX).collect();
        self.tables.retain(|(name, bar)| {
            let kept = copying.iter().any(|table| table.name == *name);
            if !kept {
                bar.finish_and_clear();
                self.multi.remove(bar);
            }
            kept
        });
        for table in copying {
            let at = self.tables.iter().position(|(name, _)| *name == table.name).unwrap_or_else(|| {
                let bar = self.multi.insert_before(&self.line, ProgressBar::new(1000));
                bar.set_style(style("  {prefix:24.cyan} {bar:20.green/black} {percent:>3} %  {msg}"));
                bar.set_prefix(table.name.to_string());
                self.tables.push((table.name.clone(), bar));
                self.tables.len() - 1
            });
            let bar = &self.tables[at].1;
            bar.set_position((table.share() * 1000.0) as u64);
            bar.set_message(copied(table));
        }
        self.line.set_message(line(view));
        self.line.tick();
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        for (_, bar) in &self.tables {
            bar.finish_and_clear();
        }
        self.line.finish_and_clear();
    }
}

/// A template is a constant of this file; a slip in it costs the colours and not the run.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One JSON line of a run: what it is, and the rest of it.
pub(crate) fn event(kind: &str, mut body: serde_json::Value) -> serde_json::Value {
    if let Some(object) = body.as_object_mut() {
        object.insert("event".to_owned(), json!(kind));
    }
    body
}

/// The whole state in one line.
pub(crate) fn line(view: &View) -> String {
    let mut out = view.phase.clone();
    if view.is_copying() {
        match view.rows_total() {
            Some(total) => {
                out += &format!(" · {} of about {} rows", count(view.rows_copied()), count(total));
            }
            None => out += &format!(" · {} rows", count(view.rows_copied())),
        }
        let waiting = view.tables.iter().filter(|table| table.phase == "waiting").count() as u64;
        if waiting > 0 {
            out += &format!(" · {} waiting", counted(waiting, "table"));
        }
    } else {
        out += &format!(" · lag {}", lag(view));
    }
    if view.throughput.rows_per_second >= 1.0 {
        out += &format!(
            " · {} rows/s, {}/s",
            count(view.throughput.rows_per_second as u64),
            bytes(view.throughput.bytes_per_second as u64)
        );
    }
    if let Some(eta) = view.eta_seconds.filter(|eta| *eta > 0) {
        out += &format!(" · about {} to go", seconds(eta as f64));
    }
    if view.throttle.active {
        out += &format!(" · throttled: {}", view.throttle.reason);
    }
    if !view.quarantine.is_empty() {
        out += &format!(" · {} in quarantine", counted(view.quarantine.len() as u64, "change"));
    }
    if let Some(error) = &view.retrying {
        out += &format!(" · retrying: {}", redact(error));
    }
    out
}

fn lag(view: &View) -> String {
    let lag = &view.lag;
    format!("{}, {}, {}", seconds(lag.seconds), counted(lag.transactions, "transaction"), bytes(lag.bytes))
}

fn copied(table: &Table) -> String {
    match table.rows_total {
        Some(total) => {
            format!("{} of about {}", count(table.rows_copied), count(total.max(table.rows_copied)))
        }
        None => count(table.rows_copied),
    }
}

/// The whole state as a page.
pub(crate) fn page(view: &View) -> String {
    let mut rows = vec![["table", "state", "rows copied", "changes applied"].map(str::to_owned)];
    rows.extend(view.tables.iter().map(|table| {
        [table.name.to_string(), table.phase.clone(), copied(table), count(table.applied_changes)]
    }));
    let mut out = String::new();
    for (label, value) in [
        ("lag", lag(view)),
        (
            "copied",
            format!(
                "{} in {}",
                counted(view.rows_copied(), "row"),
                counted(view.tables.len() as u64, "table")
            ),
        ),
        (
            "applied",
            format!(
                "{} in {}",
                counted(view.changes_applied, "change"),
                counted(view.transactions_applied, "transaction")
            ),
        ),
        ("position", view.applied_position.as_ref().map_or("-".to_owned(), |position| position.to_string())),
        ("journal", bytes(view.journal_bytes)),
    ] {
        out += &format!("  {label:<10}{value}\n");
    }
    if let Some(error) = &view.retrying {
        out += &format!("  {:<10}{}\n", "retrying", redact(error));
    }
    if !view.tables.is_empty() {
        out.push('\n');
        out += &columns(&rows);
    }
    out + &quarantine(view)
}

/// What is held back, and why.
pub(crate) fn quarantine(view: &View) -> String {
    let mut out = String::new();
    for change in &view.quarantine {
        out += &format!(
            "\n  quarantined: {} of {} {} at {}\n    {}\n",
            change.operation,
            change.table,
            change.key,
            change.position,
            redact(&change.error)
        );
    }
    for hold in &view.holds {
        out += &format!("  {} is held back until that change can be applied\n", hold.table);
    }
    out
}

/// Aligned columns: the first two to the left, the numbers to the right.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(at, (cell, width))| {
                    if at < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        out += &format!("  {}\n", cells.join("   ").trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let mut view = View::of(&Status::new("shop")).unwrap();
        view.tables = [("orders", "following", 1500, Some(1400)), ("lines", "copying", 250, Some(1000))]
            .map(|(name, phase, rows_copied, rows_total)| Table {
                name: TableName::new("main", name),
                phase: phase.to_owned(),
                rows_copied,
                rows_total,
                bytes_copied: 0,
                bytes_total: 0,
                applied_changes: 7,
            })
            .to_vec();
        view
    }

    #[test]
    fn lines() {
        let mut view = view();
        view.phase = "copying".to_owned();
        view.throughput.rows_per_second = 1234.0;
        assert_eq!(line(&view), "copying · 1,750 of about 2,500 rows · 1,234 rows/s, 0 B/s");
        view.phase = "following".to_owned();
        view.throughput.rows_per_second = 0.0;
        view.retrying = Some("could not connect: postgres://a:b@c/d".to_owned());
        assert_eq!(
            line(&view),
            "following · lag 0.0 s, 0 transactions, 0 B · retrying: could not connect: postgres://a:***@c/d"
        );
    }

    #[test]
    fn the_page_lines_up() {
        let page = page(&view());
        let table: Vec<&str> = page.lines().skip_while(|line| !line.is_empty()).skip(1).collect();
        assert_eq!(
            table,
            [
                "  table         state                rows copied   changes applied",
                "  main.orders   following   1,500 of about 1,500                 7",
                "  main.lines    copying       250 of about 1,000                 7",
            ]
        );
    }
}
