//! The page of results. Each section is kept as JSON beside it, and the page is made of all of them, so that a
//! benchmark that is run alone replaces its own section only.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use testkit::{mariadb, postgres};

use crate::host::Host;
use crate::picture;
use crate::section::{Comparison, Figure, Ratio, Samples, Section, Taken, Unit, Verdict};

#[derive(Serialize, Deserialize)]
struct Kept {
    taken: Taken,
    section: Section,
}

/// Keeps a section and its picture.
pub(crate) fn keep(folder: &Path, section: &Section, taken: &Taken) {
    let results = folder.join("results");
    fs::create_dir_all(&results).expect("create the folder for results");
    #[derive(Serialize)]
    struct Keep<'a> {
        taken: &'a Taken,
        section: &'a Section,
    }
    let json = serde_json::to_string_pretty(&Keep { taken, section }).expect("a section is JSON");
    fs::write(results.join(format!("{}.json", section.name)), json + "\n").expect("keep a result");
    fs::write(folder.join(format!("{}.svg", section.name)), picture::draw(section)).expect("keep a picture");
}

/// Writes the page from every section that is kept, in the order of these names.
pub(crate) fn assemble(folder: &Path, names: &[&str]) {
    let kept: Vec<Kept> = names
        .iter()
        .filter_map(|name| fs::read_to_string(folder.join(format!("results/{name}.json"))).ok())
        .map(|json| serde_json::from_str(&json).expect("a kept result is what `keep` wrote"))
        .collect();
    let Some(first) = kept.first() else { return };
    let mut page = head(&first.taken, kept.iter().map(|kept| &kept.section));
    for one in &kept {
        page += &section(&one.section);
        page += &taken(&one.taken, &first.taken);
    }
    fs::write(folder.join("RESULTS.md"), page).expect("write the page of results");
}

fn head<'a>(taken: &Taken, sections: impl Iterator<Item = &'a Section>) -> String {
    let mut page = format!(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench`, which measures crossfade and its peers in the same run, on the same \
         servers with the same settings (fsync on), and lets each go first in turn. The seconds belong to the \
         machine, which all servers and programs share; what is promised are ratios of medians. \
         A speed above 1 means that crossfade is faster.\n\n\
         - Machine: {}; {}\n- Versions: {}\n\
         - PostgreSQL's servers: {}, the rest as the test kit starts them\n\
         - MariaDB's: {}, and likewise\n\n\
         | benchmark | against | ratio | asked | |\n|---|---|---|---|---|\n",
        taken.machine.hardware,
        taken.machine.system,
        taken.machine.versions.join(", "),
        settings(postgres::Server::SETTINGS),
        settings(mariadb::Server::SETTINGS),
    );
    for section in sections {
        let link = format!("[{0}](#{0})", section.name);
        for one in &section.comparisons {
            for peer in &one.peers {
                let against = match one.ratio {
                    Ratio::Speed => format!("{}, {}", peer.name, one.title.replacen("time", "speed", 1)),
                    Ratio::Cost => format!("{}, {}", peer.name, one.title),
                };
                line(&mut page, &[&link, &against, &ratio(one, peer), &asked(one), mark(one.verdict(peer))]);
            }
        }
        for figure in section.figures.iter().filter(|figure| !figure.holds()) {
            let limit = figure.limit.map(|limit| format!("≤ {}", figure.unit.show(limit)));
            let most = figure.unit.show(figure.samples.max());
            line(
                &mut page,
                &[&link, &figure.samples.name, &most, &limit.unwrap_or_default(), mark(Verdict::Missed)],
            );
        }
    }
    page
}

fn settings(settings: &[(&str, &str)]) -> String {
    settings.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
}

/// A section, as it stands in the page.
pub(crate) fn section(section: &Section) -> String {
    let mut page = format!("\n## {0}\n\n{1}\n\n![{0}]({0}.svg)\n\n", section.name, section.what);
    if !section.comparisons.is_empty() {
        page += "| | median | every round |\n|---|---|---|\n";
        for one in &section.comparisons {
            for samples in std::iter::once(&one.ours).chain(&one.peers) {
                let name = match section.comparisons.len() {
                    1 => samples.name.clone(),
                    _ => format!("{}, {}", one.title, samples.name),
                };
                line(&mut page, &[&name, &one.unit.show(samples.median()), &every(one.unit, samples)]);
            }
        }
        page += "\n| crossfade | ratio | asked | |\n|---|---|---|---|\n";
        for one in &section.comparisons {
            for peer in &one.peers {
                let name = match one.ratio {
                    Ratio::Speed => {
                        format!("its {} against {}", one.title.replacen("time", "speed", 1), peer.name)
                    }
                    Ratio::Cost => format!("{} {} against {}", one.title, one.ours.name, peer.name),
                };
                line(&mut page, &[&name, &ratio(one, peer), &asked(one), mark(one.verdict(peer))]);
            }
        }
        for one in &section.comparisons {
            one.peers.iter().filter_map(|peer| behind(one, peer)).for_each(|words| page += &words);
        }
        page.push('\n');
    }
    figures(&mut page, &section.figures);
    write!(page, "\n```console\n{}\n```\n", section.commands.join("\n\n")).expect("write to memory");
    page
}

/// In words where a peer is faster, or a bar is missed.
fn behind(one: &Comparison, peer: &Samples) -> Option<String> {
    let by = one.ours.median() / peer.median();
    let how = match one.ratio {
        Ratio::Speed if by > 1.0 => format!("crossfade takes {by:.2} times as long as {}", peer.name),
        Ratio::Speed => format!("crossfade has {:.2} times the speed of {}", 1.0 / by, peer.name),
        Ratio::Cost => format!("{} is {by:.2} times as long {} as {}", one.title, one.ours.name, peer.name),
    };
    let why = if one.why.is_empty() { String::new() } else { format!(" Why: {}", one.why) };
    match one.verdict(peer) {
        Verdict::Missed => Some(format!("\n**Behind what is asked:** {how}.{why}\n")),
        Verdict::Behind => Some(format!("\n**Behind:** {how}.{why}\n")),
        Verdict::Holds if by > 1.0 => Some(format!("\nWithin what is asked, {how}.\n")),
        Verdict::Holds | Verdict::Free => None,
    }
}

fn figures(page: &mut String, figures: &[Figure]) {
    if figures.is_empty() {
        return;
    }
    *page += "| figure | median | every round | asked | |\n|---|---|---|---|---|\n";
    for figure in figures {
        let (samples, unit) = (&figure.samples, figure.unit);
        let (asked, mark) = match figure.limit {
            None => (String::new(), ""),
            Some(limit) => (format!("≤ {}", unit.show(limit)), if figure.holds() { "✓" } else { "✗" }),
        };
        line(page, &[&samples.name, &unit.show(samples.median()), &every(unit, samples), &asked, mark]);
    }
}

/// What sets a section apart from the page's head.
fn taken(taken: &Taken, head: &Taken) -> String {
    let mut words = format!("\nMeasured at `{}`", taken.machine.commit);
    if (taken.scale - 1.0).abs() > f64::EPSILON {
        write!(words, "; a trial with {} of the data, whose ratios say little", taken.scale)
            .expect("write to memory");
    }
    for (here, there) in [
        (&taken.machine.hardware, &head.machine.hardware),
        (&taken.machine.system, &head.machine.system),
        (&taken.machine.versions.join(", "), &head.machine.versions.join(", ")),
    ] {
        if here != there {
            write!(words, "; on {here}").expect("write to memory");
        }
    }
    words + ".\n"
}

fn ratio(one: &Comparison, peer: &Samples) -> String {
    format!("{:.2}", one.ratio_with(peer))
}

fn asked(one: &Comparison) -> String {
    let sign = match one.ratio {
        Ratio::Speed => '≥',
        Ratio::Cost => '≤',
    };
    one.bar.map_or_else(|| "–".into(), |bar| format!("{sign} {bar:.2}"))
}

fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "✓",
        Verdict::Missed => "✗",
        Verdict::Behind => "behind",
        Verdict::Free => "",
    }
}

/// Every value without its unit, which the median beside it has.
fn every(unit: Unit, samples: &Samples) -> String {
    let shown = |value: &f64| unit.show(*value).split(' ').next().unwrap_or_default().to_owned();
    samples.values.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn line(page: &mut String, cells: &[&str]) {
    // A bar in a cell would begin another.
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    writeln!(page, "| {} |", cells.join(" | ")).expect("write to memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(name: &str, values: &[f64]) -> Samples {
        Samples { name: name.into(), values: values.to_vec() }
    }

    fn one(ours: f64) -> Section {
        let time = Comparison::time("time", samples("crossfade", &[ours]), [samples("pipe", &[1.0])]);
        Section {
            name: "copy".into(),
            what: "Rows.".into(),
            commands: vec!["copy".into()],
            comparisons: vec![time.bar(1.0, "the reason.")],
            figures: Vec::new(),
        }
    }

    #[test]
    fn the_reason_is_told_only_when_the_bar_is_missed() {
        let behind = section(&one(1.25));
        assert!(behind.contains("takes 1.25 times as long as pipe. Why: the reason."), "{behind}");
        assert!(behind.contains("| its speed against pipe | 0.80 | ≥ 1.00 | ✗ |"), "{behind}");
        let ahead = section(&one(0.5));
        assert!(!ahead.contains("reason") && ahead.contains("| 2.00 | ≥ 1.00 | ✓ |"), "{ahead}");
    }

    #[test]
    fn a_bar_above_one_may_be_missed_by_the_faster() {
        let mut section = one(0.8);
        section.comparisons[0].bar = Some(1.5);
        let page = super::section(&section);
        assert!(page.contains("has 1.25 times the speed of pipe. Why: the reason."), "{page}");
    }
}
