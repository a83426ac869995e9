//! Load by pgbench: TPC-B, as it comes with the server.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use testkit::Folder;

use crate::Bench;

/// Creates the tables in a database of the source, so that every change of them can be followed.
pub(crate) fn init(bench: &Bench, database: &str, scale: u64) {
    let scale = bench.scaled(scale).to_string();
    run(bench, &bench.pair.source.url(database), &["-i", "-q", "-s", &scale]);
    bench.make(database, &["ALTER TABLE pgbench_history REPLICA IDENTITY FULL"]);
}

/// So many transactions, recorded as fast as they come: nobody measures whether they wait for the disk.
pub(crate) fn load(bench: &Bench, url: &str, transactions: u64) {
    let done = command(bench, url)
        .args(["-n", "-c", "8", "-t", &(transactions / 8).to_string()])
        .env("PGOPTIONS", "-c synchronous_commit=off")
        .output();
    succeeded(&done.expect("run pgbench"));
}

pub(crate) fn load_command(transactions: u64) -> String {
    format!("PGOPTIONS='-c synchronous_commit=off' pgbench $SOURCE -n -c 8 -t {}", transactions / 8)
}

/// Transactions a second of four clients that do not wait between them, measured for a third of what the probe lasts.
pub(crate) fn capacity(bench: &Bench, url: &str, lasting: Duration) -> f64 {
    let seconds = capacity_seconds(lasting).to_string();
    let told = run(bench, url, &["-n", "-c", "4", "-j", "2", "-T", &seconds]);
    let tps = told.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    tps.expect("pgbench tells its rate")
}

fn capacity_seconds(lasting: Duration) -> u64 {
    (lasting.as_secs() / 3).max(1)
}

/// Four clients at a fixed rate for a while, every transaction's latency noted.
pub(crate) struct Probe {
    pgbench: Child,
    folder: Folder,
}

impl Probe {
    /// After the one that finds the rate.
    pub(crate) fn command(lasting: Duration) -> String {
        let seconds = lasting.as_secs();
        format!(
            "pgbench $SOURCE -n -c 4 -j 2 -T {}\npgbench $SOURCE -n -c 4 -j 2 -T {seconds} -R RATE --log --log-prefix=$DIR/log",
            capacity_seconds(lasting)
        )
    }

    pub(crate) fn start(bench: &Bench, url: &str, rate: f64, lasting: Duration) -> Probe {
        let folder = Folder::new("probe");
        let pgbench = command(bench, url)
            .args(["-n", "-c", "4", "-j", "2", "-T", &lasting.as_secs().to_string()])
            .args(["-R", &format!("{rate:.0}"), "--log"])
            .arg(format!("--log-prefix={}", folder.join("log").display()))
            .stdout(Stdio::null())
            .spawn()
            .expect("start pgbench");
        Probe { pgbench, folder }
    }

    pub(crate) fn running(&mut self) -> bool {
        self.pgbench.try_wait().expect("ask for pgbench").is_none()
    }

    /// Milliseconds, sorted. They count from when a transaction was due, so that one that waits for its turn is not
    /// forgotten.
    pub(crate) fn latencies(mut self) -> Vec<f64> {
        assert!(self.pgbench.wait().expect("wait for pgbench").success(), "pgbench failed");
        logged(&self.folder)
    }
}

/// Milliseconds of all transactions that pgbench has noted in this folder, sorted.
fn logged(folder: &Folder) -> Vec<f64> {
    let files = fs::read_dir(folder.path()).expect("list pgbench's logs");
    let logs = files.map(|file| fs::read_to_string(file.expect("list a log").path()).expect("read a log"));
    let mut latencies: Vec<f64> = logs.flat_map(|log| latencies(&log)).collect();
    latencies.sort_unstable_by(f64::total_cmp);
    latencies
}

/// A line is: client, transaction, microseconds, … The last one of a pgbench that was killed may be cut off.
fn latencies(log: &str) -> Vec<f64> {
    let third = |line: &str| line.split(' ').nth(2)?.parse::<f64>().ok();
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole.lines().filter_map(third).map(|micros| micros / 1000.0).collect()
}

/// Writers in the background, at a fixed rate, until they are stopped.
pub(crate) struct Writers {
    pgbench: Child,
    folder: Folder,
}

impl Writers {
    pub(crate) fn command(rate: u32) -> String {
        format!("pgbench $SOURCE -n -c 4 -T 86400 -R {rate} &")
    }

    pub(crate) fn start(bench: &Bench, url: &str, rate: u32) -> Writers {
        let folder = Folder::new("writers");
        let pgbench = command(bench, url)
            .args(["-n", "-c", "4", "-T", "86400", "-R", &rate.to_string(), "--log"])
            .arg(format!("--log-prefix={}", folder.join("log").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start pgbench");
        Writers { pgbench, folder }
    }

    /// The 99th percentile of their latencies in milliseconds, counted from when a transaction was due.
    pub(crate) fn stop(mut self) -> f64 {
        let still = self.pgbench.try_wait().expect("ask for pgbench").is_none();
        assert!(still, "the writers ended before they were stopped");
        self.end();
        let latencies = logged(&self.folder);
        assert!(latencies.len() >= 100, "the writers did {} transactions", latencies.len());
        latencies[latencies.len() * 99 / 100]
    }

    fn end(&mut self) {
        if let Err(error) = self.pgbench.kill().and_then(|()| self.pgbench.wait()) {
            eprintln!("could not stop pgbench: {error}");
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs to the end and hands on what it says.
fn run(bench: &Bench, url: &str, args: &[&str]) -> String {
    let done = command(bench, url).args(args).output().expect("run pgbench");
    succeeded(&done);
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn succeeded(done: &Output) {
    assert!(done.status.success(), "pgbench failed: {}", String::from_utf8_lossy(&done.stderr));
}

fn command(bench: &Bench, url: &str) -> Command {
    let mut command = Command::new("pgbench");
    command.env("PATH", &bench.path).arg(url);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_log() {
        let log = "0 199 2241 0 1175850568 995598 112\n1 200 2500 0 1175850568 998079 0\n";
        assert_eq!(latencies(log), [2.241, 2.5]);
    }
}
