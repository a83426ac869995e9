//! `crossfade check`: what would stop or harm the migration, found without changing anything.

use connector::{Finding, Reader, Severity, Writer};
use model::{Catalog, Table};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::CheckArgs;
use crate::redact::redact;
use crate::report::{Error, Exit};
use crate::settings::Migration;
use crate::{output, registry, settings};

pub(crate) fn run(args: &CheckArgs, json: bool) -> Result<Exit, Error> {
    super::run::log_to_stderr();
    let config = settings::config(args.place.config.as_deref())?;
    let migration = settings::migration(&args.place, &args.sides, &args.tables, &config)?;
    let report = super::run::runtime()?.block_on(async {
        let reader = registry::reader(&migration.source)?;
        let writer = registry::writer(&migration.target)?;
        examine(reader.as_ref(), writer.as_ref(), &migration).await
    })?;
    if json {
        output::json(&report.json())?;
    } else {
        output::data(&report.text())?;
    }
    Ok(if report.is_blocked() { Exit::Blocked } else { Exit::Done })
}

/// With its label in front, a line of this width fits a terminal of 100 columns.
const TEXT_WIDTH: usize = 88;

/// What both sides were found to be like.
pub(crate) struct Report {
    /// The gravest first.
    findings: Vec<Found>,
    /// `None` when the source could not be read for a reason that is among the findings; then the target was
    /// not looked at.
    catalog: Option<Catalog>,
}

#[derive(Serialize)]
struct Found {
    side: &'static str,
    #[serde(flatten)]
    finding: Finding,
}

pub(crate) async fn examine(
    reader: &dyn Reader,
    writer: &dyn Writer,
    migration: &Migration,
) -> connector::Result<Report> {
    let found = |side| move |finding| Found { side, finding };
    let mut findings: Vec<Found> =
        reader.check(&migration.selection).await?.into_iter().map(found("source")).collect();
    let blocked = findings.iter().any(Found::blocks);
    let catalog = match reader.catalog(&migration.selection).await {
        Ok(catalog) => Some(catalog),
        // What makes the catalog unreadable has been found already, with its remedy.
        Err(error) if blocked => {
            tracing::info!(%error, "the catalog could not be read");
            None
        }
        Err(error) => return Err(error),
    };
    if let Some(catalog) = &catalog {
        findings.extend(writer.check(catalog, &migration.name).await?.into_iter().map(found("target")));
    }
    findings.sort_by(|a, b| b.finding.severity.cmp(&a.finding.severity).then_with(|| a.side.cmp(b.side)));
    Ok(Report { findings, catalog })
}

impl Found {
    fn blocks(&self) -> bool {
        self.finding.severity == Severity::Blocker
    }
}

impl Report {
    /// Those that would be migrated.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.catalog.iter().flat_map(|catalog| &catalog.tables)
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.findings.iter().any(Found::blocks)
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "blocked": self.is_blocked(), "findings": self.findings })
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for Found { side, finding } in &self.findings {
            let severity = match finding.severity {
                Severity::Blocker => "BLOCKER",
                Severity::Warning => "warning",
                Severity::Note => "note",
            };
            out += &format!("{severity}  {}  {side}: {}\n", finding.id, finding.object);
            for (label, text) in
                [("found", &finding.found), ("why", &finding.why), ("remedy", &finding.remedy)]
            {
                // A remedy is there to be copied: its lines stay as they are.
                let width = if label == "remedy" { usize::MAX } else { TEXT_WIDTH };
                let text = wrap(&redact(text), width).join("\n          ");
                out += &format!("  {label:<8}{text}\n");
            }
            out.push('\n');
        }
        let count =
            |severity| self.findings.iter().filter(|found| found.finding.severity == severity).count();
        let (blockers, warnings) = (count(Severity::Blocker), count(Severity::Warning));
        out += &match (blockers, warnings) {
            (0, 0) => "nothing stands in the way\n".to_owned(),
            (0, warnings) => format!("nothing stands in the way; {warnings} to know about\n"),
            (blockers, _) if self.catalog.is_none() => {
                format!("blocked: {blockers} to mend; the target was not looked at\n")
            }
            (blockers, _) => format!("blocked: {blockers} to mend\n"),
        };
        out
    }
}

/// Breaks text between words so that no line is wider than this, if that can be.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_told_with_their_remedy() {
        let finding = Finding {
            id: "PG-WAL-LEVEL",
            severity: Severity::Blocker,
            object: "setting wal_level".to_owned(),
            found: "replica".to_owned(),
            why: "changes cannot be captured".to_owned(),
            remedy: "ALTER SYSTEM SET wal_level = logical;\nthen restart the server".to_owned(),
        };
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        let report = Report { findings: vec![Found { side: "source", finding }], catalog: None };
        assert!(report.is_blocked());
        assert_eq!(
            report.text(),
            "BLOCKER  PG-WAL-LEVEL  source: setting wal_level\n  \
               found   replica\n  \
               why     changes cannot be captured\n  \
               remedy  ALTER SYSTEM SET wal_level = logical;\n          then restart the server\n\n\
             blocked: 1 to mend; the target was not looked at\n"
        );
        assert_eq!(report.json()["findings"][0]["side"], "source");
        assert_eq!(report.json()["findings"][0]["severity"], "blocker");
    }
}
