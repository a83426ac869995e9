//! The command line as text: a command goes in, what is printed and the exit code come out.

#![expect(clippy::unwrap_used, reason = "a fault in a test is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A folder of its own for each test, removed at the end.
struct Desk(PathBuf);

impl Desk {
    fn new(name: &str) -> Desk {
        let folder = std::env::temp_dir().join(format!("crossfade-cli-{name}-{}", std::process::id()));
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        Desk(folder)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crossfade"));
        command.args(line.split_whitespace()).current_dir(&self.0).stdin(Stdio::null());
        for variable in ["CROSSFADE_SOURCE", "CROSSFADE_TARGET", "CROSSFADE_LOG", "CROSSFADE_FAILPOINT"] {
            command.env_remove(variable);
        }
        command
    }

    /// A command that does not end within a minute fails the test instead of holding it up.
    fn run(&self, line: &str) -> Output {
        let child = self.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(child.wait_with_output()));
        ended.recv_timeout(Duration::from_secs(60)).map(Result::unwrap).unwrap_or_else(|_| {
            signal(id, "-KILL");
            panic!("it does not end: crossfade {line}")
        })
    }

    /// Exit code, stdout, stderr.
    fn text(&self, line: &str) -> (i32, String, String) {
        let output = self.run(line);
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn write(&self, file: &str, content: &str) {
        fs::write(self.0.join(file), content).unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }

    fn shop(&self, rows: i64) {
        let shop = rusqlite::Connection::open(self.0.join("shop.db")).unwrap();
        shop.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)",
        )
        .unwrap();
        let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                    INSERT INTO orders SELECT i, 'note ' || i FROM n";
        shop.execute(fill, [rows]).unwrap();
    }

    fn rows(&self, file: &str) -> i64 {
        let database = rusqlite::Connection::open(self.0.join(file)).unwrap();
        database.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap()
    }

    fn status(&self) -> Option<Value> {
        let (code, stdout, _) = self.text("status --json");
        (code == 0).then(|| serde_json::from_str(&stdout).unwrap())
    }

    /// Starts a run and waits until it follows.
    fn follow(&self, line: &str) -> Running {
        let child = self.command(line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let running = Running(child);
        let began = Instant::now();
        while !self.status().is_some_and(|status| status["phase"] == "following" && status["running"] == true)
        {
            assert!(began.elapsed() < Duration::from_secs(30), "it does not follow");
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A process that does not outlive the test.
struct Running(Child);

impl Running {
    fn wait(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

const MOVE: &str = "--source sqlite:shop.db --target sqlite:new.db";

#[test]
fn help_teaches() {
    let desk = Desk::new("help");
    let (code, help, _) = desk.text("--help");
    assert_eq!(code, 0);
    for part in ["crossfade demo", "Where things are stored:", "Exit codes:", "status", "completions"] {
        assert!(help.contains(part), "{part}\n{help}");
    }
    for verb in ["demo", "init", "check", "run", "status"] {
        let (code, help, _) = desk.text(&format!("{verb} --help"));
        assert_eq!(code, 0);
        assert!(help.contains("Example:") && help.contains("--json"), "{verb}\n{help}");
    }
}

#[test]
fn usage_errors_end_with_1() {
    let desk = Desk::new("usage");
    let (code, stdout, stderr) = desk.text("runn");
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("a similar subcommand exists: 'run'"), "{stderr}");
    let (code, _, stderr) = desk.text(&format!("run {MOVE} --copy-streams 0"));
    assert_eq!(code, 1);
    assert!(stderr.contains("--copy-streams"), "{stderr}");
}

#[test]
fn errors_are_told_once_with_a_hint_and_a_code() {
    let desk = Desk::new("errors");
    desk.write("typo.toml", "name = \"shop\"\n\n[source]\nurll = \"sqlite:shop.db\"\n");
    desk.write("env.toml", "[source]\nurl = \"postgres://app:${NO_SUCH_PASSWORD}@old/shop\"\n");
    for (line, told) in [
        (
            "run",
            "error: the source is not given\n\
             hint: give --source URL, or write a crossfade.toml with `crossfade init` and put it there\n\
             code: CF-USAGE\n",
        ),
        (
            "status",
            "error: there is no migration in .crossfade\n\
             hint: start it with `crossfade run --source URL --target URL`, or name its folder with --dir\n\
             code: CF-NO-MIGRATION\n",
        ),
        (
            "check --config typo.toml",
            "error: typo.toml:4:1: unknown key `urll` in [source]\n  |\n4 | urll = \"sqlite:shop.db\"\n  | ^^^^\n\
             hint: did you mean `url`?\n\
             code: CF-CONFIG\n",
        ),
        (
            "check --config none.toml",
            "error: could not read none.toml\n\
             caused by: No such file or directory (os error 2)\n\
             code: CF-CONFIG\n",
        ),
        (
            "check --config env.toml --target sqlite:new.db",
            "error: env.toml:2:7: the environment variable NO_SUCH_PASSWORD is not set\n  |\n\
             2 | url = \"postgres://app:${NO_SUCH_PASSWORD}@old/shop\"\n  \
             |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n\
             hint: set NO_SUCH_PASSWORD in the environment of this command\n\
             code: CF-CONFIG\n",
        ),
        (
            "check --source postgre://app:s3cret@old/shop --target sqlite:new.db",
            "error: could not tell which database is meant: url postgre://app:***@old/shop\n\
             hint: did you mean `postgres:`?\n\
             code: CF-SETUP\n",
        ),
        (
            "run --source sqlite:shop.db --target sqlite:./shop.db",
            "error: source and target are the same database: sqlite:shop.db\n\
             hint: a migration needs two databases\n\
             code: CF-USAGE\n",
        ),
    ] {
        assert_eq!(desk.text(line), (1, String::new(), told.to_owned()), "{line}");
    }
    let (code, _, stderr) = desk.text("status --json");
    let error: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!((code, error["code"].as_str()), (1, Some("CF-NO-MIGRATION")));
}

#[test]
fn a_source_that_is_not_there() {
    let desk = Desk::new("missing");
    let (code, stdout, stderr) = desk.text(&format!("check {MOVE}"));
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains("shop.db") && stderr.contains("code: CF-"), "{stderr}");
    assert!(!desk.0.join("shop.db").exists() && !desk.0.join("new.db").exists());
}

#[test]
fn init_writes_a_file_that_check_understands() {
    let desk = Desk::new("init");
    desk.shop(3);
    let init = "init --source sqlite:shop.db --target postgres://app:s3cret@new/shop";
    let (code, stdout, _) = desk.text(&format!("{init} --dry-run"));
    assert_eq!(code, 0);
    assert!(stdout.contains("name = \"shop\"") && !desk.0.join("crossfade.toml").exists());
    let (code, _, stderr) = desk.text(init);
    assert_eq!(code, 0);
    assert!(stderr.contains("CROSSFADE_TARGET_PASSWORD"), "{stderr}");
    assert_eq!(desk.read("crossfade.toml"), stdout);
    assert!(!stdout.contains("s3cret"), "{stdout}");
    let (code, _, stderr) = desk.text(init);
    assert_eq!(code, 1);
    assert!(stderr.starts_with("error: crossfade.toml exists already\nhint: "), "{stderr}");
    assert_eq!(desk.text(&format!("init {MOVE} --force")).0, 0);
    let (code, stdout, stderr) = desk.text("check --json");
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["blocked"], false);
    assert!(!desk.0.join("new.db").exists(), "a check changes nothing");
    let (code, schema, _) = desk.text("init --schema");
    assert_eq!(code, 0);
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["properties"]["copy"]["properties"]["streams"]["minimum"], 1);
}

#[test]
fn completions_are_there() {
    let desk = Desk::new("completions");
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = desk.text(&format!("completions {shell}"));
        assert_eq!(code, 0);
        assert!(script.contains("take-over"), "{shell}");
    }
}

#[test]
fn a_run_until_caught_up() {
    let desk = Desk::new("run");
    desk.shop(2000);
    let (code, stdout, _) = desk.text(&format!("run {MOVE} --dry-run"));
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("main.orders") && stdout.contains("key (id)"), "{stdout}");
    assert!(!Path::new(&desk.0).join(".crossfade").exists());

    let (code, stdout, stderr) = desk.text(&format!("run {MOVE} --until caught-up"));
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("shop: caught up"), "{stdout}");
    assert_eq!(desk.rows("new.db"), 2000);

    let status = desk.status().unwrap();
    assert_eq!(status["running"], false);
    for key in [
        "name",
        "phase",
        "conditions",
        "tables",
        "source_position",
        "captured_position",
        "applied_position",
        "lag",
        "throughput",
        "eta_seconds",
        "throttle",
        "quarantine",
    ] {
        assert!(status.get(key).is_some(), "{key}");
    }
    let (code, stdout, _) = desk.text("status");
    assert_eq!(code, 0);
    assert!(stdout.starts_with("shop: following, not running"), "{stdout}");

    let (code, _, stderr) = desk.text("run --source sqlite:shop.db --target sqlite:other.db");
    assert_eq!(code, 1);
    assert!(stderr.contains("belongs to another migration: its target is"), "{stderr}");

    let (code, stdout, _) = desk.text(&format!("run {MOVE} --until caught-up --json"));
    assert_eq!(code, 0);
    let last: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((last["event"].as_str(), last["outcome"].as_str()), (Some("end"), Some("caught_up")));
}

#[test]
fn blockers_keep_it_from_starting() {
    let desk = Desk::new("blocked");
    desk.shop(10);
    let target = rusqlite::Connection::open(desk.0.join("new.db")).unwrap();
    target
        .execute_batch(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO orders VALUES (1, 'x')",
        )
        .unwrap();
    drop(target);
    let (code, stdout, stderr) = desk.text(&format!("run {MOVE}"));
    assert_eq!(code, 2, "{stdout}{stderr}");
    assert!(stdout.starts_with("BLOCKER  SQ-") && stdout.contains("  remedy  "), "{stdout}");
    assert_eq!(desk.text(&format!("check {MOVE}")).0, 2);
    assert_eq!(desk.rows("new.db"), 1);
    assert_eq!(desk.text("status").0, 1, "nothing was started");
}

#[cfg(unix)]
#[test]
fn one_process_runs_it_and_a_signal_ends_it() {
    let desk = Desk::new("signals");
    desk.shop(100);
    let run = format!("run {MOVE}");
    let mut first = desk.follow(&run);
    let (code, _, stderr) = desk.text(&run);
    assert_eq!(code, 1);
    assert!(
        stderr.starts_with(&format!("error: process {} on ", first.0.id()))
            && stderr.contains("code: CF-LOCKED"),
        "{stderr}"
    );
    signal(first.0.id(), "-TERM");
    assert_eq!(first.wait(), Some(0));
    assert_eq!(desk.status().unwrap()["running"], false);

    let mut again = desk.follow(&run);
    signal(again.0.id(), "-INT");
    assert_eq!(again.wait(), Some(0));
    assert_eq!(desk.rows("new.db"), 100);
}
