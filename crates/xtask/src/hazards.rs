//! Which hazard was tried on which engine, and what came of it: a table, from the results of the tests themselves.
//!
//! A test belongs to a hazard by its name (`p03_…`), and to SQLite or MariaDB, source or target, when its name or its file says
//! so. Nothing here says that a hazard is held: only a test that passes does. What this module does say by itself is why a hazard
//! does not exist on an engine, and which refusal the tests of a hazard assert; that text must stand in their source.
//! A hazard with neither test nor reason is "not tried", and the command fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::install;
use crate::shell::{self, Result};

/// Each group of hazards and how many it has.
const GROUPS: &[(char, u32)] = &[('C', 15), ('T', 5), ('A', 9), ('P', 8), ('S', 3), ('V', 4)];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Engine {
    Postgres,
    Sqlite,
    Mariadb,
}

const ENGINES: [Engine; 3] = [Engine::Postgres, Engine::Sqlite, Engine::Mariadb];

/// What is not tried on these yet is said, and is no failure.
const UNDER_WAY: &[Engine] = &[Engine::Mariadb];

/// Hazards that cannot come up on an engine, and why.
const NOT_APPLICABLE: &[(&str, Engine, &str)] = &[
    ("V04", Engine::Postgres, "types that only MySQL has"),
    ("C01", Engine::Sqlite, "a commit is visible in the moment in which it is logged: one writer at a time"),
    ("C03", Engine::Sqlite, "one writer at a time: no transaction is open across the commit of another"),
    ("C04", Engine::Sqlite, "no prepared transactions"),
    ("C05", Engine::Sqlite, "no transaction ids; the log's numbers have 63 bits"),
    ("C06", Engine::Sqlite, "no standbys"),
    ("C11", Engine::Sqlite, "no partitions and no inheritance"),
    ("C15", Engine::Sqlite, "no timeouts that end a session"),
    ("T01", Engine::Sqlite, "triggers log whole rows: no cell is left out"),
    ("T02", Engine::Sqlite, "triggers log whole rows: no cell is left out"),
    ("T04", Engine::Sqlite, "no replica identity"),
    ("P07", Engine::Sqlite, "no slot; a lock that is held is a busy database, tried again"),
    ("P07", Engine::Mariadb, "no slot; a snapshot waits for no transaction that is open"),
];

/// Hazards that are refused by design, on both engines where both have them, and the words that their tests assert.
const REFUSED: &[(&str, Engine, &str)] = &[
    ("C06", Engine::Postgres, "PG-STANDBY"),
    ("P03", Engine::Postgres, "CF-LOG-LOST"),
    ("P06", Engine::Postgres, "CF-JOURNAL"),
    ("A08", Engine::Postgres, "public.t"),
];

/// The tests of one hazard on one engine.
struct Row {
    id: String,
    engine: Engine,
    tests: Vec<Test>,
}

#[derive(Clone, Debug)]
struct Test {
    name: String,
    path: PathBuf,
}

/// Whether a test passed, by its binary and its name: two files may have a test of the same name.
type Results = BTreeMap<(String, String), bool>;

pub(crate) fn run(args: &[String]) -> Result {
    let rows = rows()?;
    let (list, results) = match args {
        [] => (false, results(&rows)?),
        [flag] if flag == "--list" => (true, Results::new()),
        [flag, path] if flag == "--results" => (false, written(path)?),
        _ => return Err("hazards takes --list or --results FILE, or nothing".into()),
    };
    let mut failed = Vec::new();
    println!("{:<4} {:<10} {:<40} tests", "id", "engine", "verdict");
    for row in &rows {
        let verdict = row.verdict((!list).then_some(&results));
        if let Err(reason) = &verdict {
            failed.push(format!("{} {}: {reason}", row.id, row.engine.name()));
        }
        let verdict = verdict.unwrap_or_else(|reason| reason);
        let names: Vec<&str> = row.tests.iter().map(|test| test.name.as_str()).collect();
        println!("{:<4} {:<10} {verdict:<40} {}", row.id, row.engine.name(), names.join(" "));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => {
            Err(format!("{} of {} are not in order:\n  {}", failed.len(), rows.len(), failed.join("\n  ")))
        }
    }
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Engine::Postgres => "PostgreSQL",
            Engine::Sqlite => "SQLite",
            Engine::Mariadb => "MariaDB",
        }
    }

    fn of(test: &str, path: &Path) -> Engine {
        let path = path.to_string_lossy();
        let says = |word| test.contains(word) || path.contains(word);
        match (says("sqlite"), says("mariadb")) {
            (true, _) => Engine::Sqlite,
            (_, true) => Engine::Mariadb,
            _ => Engine::Postgres,
        }
    }
}

impl Row {
    /// Without results it is only said whether there is anything to run. The error is a verdict too, one that must not stand.
    fn verdict(&self, results: Option<&Results>) -> std::result::Result<String, String> {
        if self.tests.is_empty() {
            return match find(NOT_APPLICABLE, &self.id, self.engine) {
                Some(reason) => Ok(format!("not applicable: {reason}")),
                None if UNDER_WAY.contains(&self.engine) => Ok("not tried yet".into()),
                None => Err("not tried".into()),
            };
        }
        if let Some(results) = results {
            for test in &self.tests {
                match results.get(&(test.binary(), test.name.clone())) {
                    Some(true) => {}
                    Some(false) => return Err(format!("broken: {} {}", test.binary(), test.name)),
                    None => return Err(format!("not run: {} {}", test.binary(), test.name)),
                }
            }
        }
        let Some(text) = find(REFUSED, &self.id, self.engine) else {
            return Ok(if results.is_some() { "held" } else { "has tests, not run" }.into());
        };
        // Some tests may end in a repair, or in either.
        match self.tests.iter().filter(|test| test.asserts(text)).count() {
            0 => Err(format!("no test asserts the refusal {text:?}")),
            _ if results.is_none() => Ok("has tests, not run".into()),
            all if all == self.tests.len() => Ok(format!("refused: {text:?}")),
            _ => Ok(format!("held or refused: {text:?}")),
        }
    }
}

impl Test {
    /// As nextest calls it: `crate::file` for the tests beside a crate, and `crate` for those within its library.
    fn binary(&self) -> String {
        let path = self.path.strip_prefix(shell::root()).unwrap_or(&self.path).with_extension("");
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        match &parts[..] {
            [_, name, tests, file, ..] if tests == "tests" => format!("{name}::{file}"),
            [_, name, ..] => name.to_string(),
            _ => String::new(),
        }
    }

    fn asserts(&self, text: &str) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|source| {
            let body = source.split_once(&format!("fn {}(", self.name)).map_or("", |(_, body)| body);
            body.split("\n}\n").next().is_some_and(|body| body.contains(text))
        })
    }
}

fn find(table: &[(&str, Engine, &'static str)], id: &str, engine: Engine) -> Option<&'static str> {
    table.iter().find(|(of, on, _)| *of == id && *on == engine).map(|(_, _, text)| *text)
}

/// Every hazard on every engine, with the tests that are named after it.
fn rows() -> Result<Vec<Row>> {
    let mut files = Vec::new();
    rust_files(&shell::root().join("crates"), &mut files)?;
    let mut tests: BTreeMap<(String, Engine), Vec<Test>> = BTreeMap::new();
    for path in files {
        let source = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for name in test_names(&source) {
            let engine = Engine::of(&name, &path);
            let id = name[..3].to_uppercase();
            tests.entry((id, engine)).or_default().push(Test { name, path: path.clone() });
        }
    }
    let ids = GROUPS.iter().flat_map(|(group, count)| (1..=*count).map(move |n| format!("{group}{n:02}")));
    Ok(ids
        .flat_map(|id| ENGINES.map(|engine| (id.clone(), engine)))
        .map(|(id, engine)| {
            let tests = tests.remove(&(id.clone(), engine)).unwrap_or_default();
            Row { id, engine, tests }
        })
        .collect())
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Functions under `#[test]` whose name begins with a hazard's id.
fn test_names(source: &str) -> Vec<String> {
    let mut lines = source.lines().map(str::trim).peekable();
    let mut names = Vec::new();
    while let Some(line) = lines.next() {
        if line != "#[test]" {
            continue;
        }
        let Some(name) = lines.peek().and_then(|line| line.strip_prefix("fn ")?.split_once('(')) else {
            continue;
        };
        if is_of_hazard(name.0) {
            names.push(name.0.to_owned());
        }
    }
    names
}

fn is_of_hazard(name: &str) -> bool {
    let bytes = name.as_bytes();
    let group = |byte: u8| GROUPS.iter().any(|(group, _)| group.to_ascii_lowercase() == char::from(byte));
    bytes.len() > 4 && group(bytes[0]) && bytes[1..3].iter().all(u8::is_ascii_digit) && bytes[3] == b'_'
}

/// Runs them all, and says of each whether it passed. Whatever fails is in the table.
fn results(rows: &[Row]) -> Result<Results> {
    install::run()?;
    let mut names: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for test in rows.iter().flat_map(|row| &row.tests) {
        names.entry(test.binary()).or_default().insert(&test.name);
    }
    let results = if shell::exists("cargo-nextest") { by_nextest(&names)? } else { by_cargo(&names)? };
    match results.is_empty() {
        true => Err("no test ran".into()),
        false => Ok(results),
    }
}

/// The results of a run of all tests that is over, as `cargo xtask test` printed them.
fn written(path: &str) -> Result<Results> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let results = collected(text.lines().filter_map(nextest_line));
    match results.is_empty() {
        true => Err(format!("{path} shows no result of a test")),
        false => Ok(results),
    }
}

fn by_nextest(names: &BTreeMap<String, BTreeSet<&str>>) -> Result<Results> {
    let tests = names.iter().flat_map(|(binary, names)| names.iter().map(move |name| (binary, name)));
    let filter: Vec<String> =
        tests.map(|(binary, name)| format!("binary_id({binary}) & test(/{name}$/)")).collect();
    let mut command = shell::cargo();
    command.args(["nextest", "run", "--no-fail-fast", "--color", "never", "--status-level", "all"]);
    command.args(["--workspace", "--features", "crossfade/failpoints", "-E", &filter.join(" + ")]);
    Ok(collected(said(&mut command)?.lines().filter_map(nextest_line)))
}

/// `PASS [ 1.2s] (1/9) crate::file module::name`
fn nextest_line(line: &str) -> Option<(String, &str, bool)> {
    match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        ["PASS", .., binary, name] => Some((binary.to_owned(), name, true)),
        ["FAIL" | "TIMEOUT" | "SIGABRT" | "SIGKILL" | "SIGSEGV", .., binary, name] => {
            Some((binary.to_owned(), name, false))
        }
        _ => None,
    }
}

/// One binary after the other, for cargo does not say of which a result is.
fn by_cargo(names: &BTreeMap<String, BTreeSet<&str>>) -> Result<Results> {
    let mut results = Results::new();
    for (binary, names) in names {
        let (name, file) = binary.split_once("::").unwrap_or((binary, ""));
        let mut command = shell::cargo();
        command.args(["test", "--no-fail-fast", "-p", name]);
        match file {
            "" => command.arg("--lib"),
            _ => command.args(["--test", file]),
        };
        if name == "crossfade" {
            command.args(["--features", "failpoints"]);
        }
        let said = said(command.arg("--").args(names))?;
        results.extend(collected(said.lines().filter_map(|line| {
            let (name, passed) = cargo_line(line)?;
            Some((binary.clone(), name, passed))
        })));
    }
    Ok(results)
}

/// `test module::name ... ok`
fn cargo_line(line: &str) -> Option<(&str, bool)> {
    match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        ["test", name, "...", result] => Some((name, result == "ok")),
        _ => None,
    }
}

/// A failure counts, however often it is listed.
fn collected<'a>(lines: impl Iterator<Item = (String, &'a str, bool)>) -> Results {
    let mut results = Results::new();
    for (binary, name, passed) in lines {
        let name = name.rsplit("::").next().unwrap_or(name).to_owned();
        results.entry((binary, name)).and_modify(|all| *all &= passed).or_insert(passed);
    }
    results
}

/// What it prints on either stream, however it ends: a failed test is a result, too.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| format!("could not run the tests: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(text(&output.stdout) + &text(&output.stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hazard_has_a_test_or_a_reason() {
        let untried: Vec<String> = rows()
            .unwrap()
            .iter()
            .filter_map(|row| {
                row.verdict(None).err().map(|why| format!("{} {}: {why}", row.id, row.engine.name()))
            })
            .collect();
        assert!(untried.is_empty(), "{untried:#?}");
    }

    #[test]
    fn a_failed_or_missing_result_is_never_held() {
        let path = shell::root().join("crates/crossfade/tests/cut.rs");
        let test = Test { name: "c02_x".into(), path };
        let row = Row { id: "C02".into(), engine: Engine::Postgres, tests: vec![test] };
        let of = |line| row.verdict(Some(&collected(nextest_line(line).into_iter())));
        assert_eq!(of("    PASS [   1.2s] (1/9) crossfade::cut c02_x"), Ok("held".to_owned()));
        assert!(of("    FAIL [   1.2s] (1/9) crossfade::cut c02_x").is_err());
        assert!(of("    SLOW [> 60.0s] crossfade::cut c02_x").is_err(), "not yet a result");
        assert!(of("    PASS [   1.2s] (1/9) crossfade::shape c02_x").is_err(), "another test of that name");
    }
}
