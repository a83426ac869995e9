//! A measurement's figures, as text for people and as a page in `bench/`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub(crate) struct Report {
    pub(crate) name: &'static str,
    pub(crate) what: String,
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) figure: String,
    /// What must hold, and whether it does.
    pub(crate) bar: Option<(String, bool)>,
}

impl Report {
    pub(crate) fn figure(&mut self, label: impl Into<String>, figure: impl Into<String>) {
        self.rows.push(Row { label: label.into(), figure: figure.into(), bar: None });
    }

    /// A ratio of medians, peer over crossfade: above 1 crossfade is the faster one.
    pub(crate) fn ratio(
        &mut self,
        label: impl Into<String>,
        peer: &[Duration],
        ours: &[Duration],
        at_least: f64,
    ) {
        let ratio = median(peer).as_secs_f64() / median(ours).as_secs_f64();
        let bar = (format!("≥ {at_least:.2}"), ratio >= at_least);
        self.rows.push(Row { label: label.into(), figure: format!("{ratio:.2}"), bar: Some(bar) });
    }

    pub(crate) fn seconds(&mut self, label: impl Into<String>, times: &[Duration]) {
        let shown: Vec<String> = times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
        self.figure(label, format!("median {:.2} s of {}", median(times).as_secs_f64(), shown.join(", ")));
    }

    pub(crate) fn memory(&mut self, label: impl Into<String>, peak_kib: u64) {
        let mib = peak_kib / 1024;
        self.rows.push(Row {
            label: label.into(),
            figure: format!("{mib} MiB"),
            bar: Some(("≤ 256 MiB".into(), mib <= 256)),
        });
    }

    pub(crate) fn holds(&self) -> bool {
        self.rows.iter().all(|row| row.bar.as_ref().is_none_or(|(_, holds)| *holds))
    }

    fn table(&self) -> String {
        let mut text = String::from("| figure | measured | must be |\n|---|---|---|\n");
        for row in &self.rows {
            let bar = match &row.bar {
                None => String::new(),
                Some((bar, holds)) => format!("{bar} {}", if *holds { "✓" } else { "✗" }),
            };
            writeln!(text, "| {} | {} | {bar} |", row.label, row.figure).expect("write to memory");
        }
        text
    }

    pub(crate) fn print(&self) {
        println!("\nbench {}: {}\n\n{}", self.name, self.what, self.table());
    }

    pub(crate) fn write(&self, folder: &Path) {
        let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor =
            processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let server = Command::new("/usr/lib/postgresql/15/bin/postgres").arg("--version").output();
        let server = server.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let page = format!(
            "# bench {0}\n\n{1}\n\n`cargo xtask bench {0}`, on {cores} cores of {2} for both servers and the program; {3}; fsync on.\n\n{4}",
            self.name,
            self.what,
            processor.trim_start_matches(['\t', ' ', ':']),
            server.unwrap_or_else(|_| "PostgreSQL".into()),
            self.table()
        );
        std::fs::create_dir_all(folder).expect("create the folder for results");
        std::fs::write(folder.join(format!("{}.md", self.name)), page).expect("write the result");
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}
