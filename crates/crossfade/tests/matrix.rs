//! P08: every fault in every phase, on every pair of engines, under load: a matrix, walked cell by cell.
//!
//! A cell is one run that is harmed in one phase. Whatever was done to it, it works again without help or, where it
//! was ended, its next run does; and when the writers rest, both sides are equal.

#![expect(clippy::expect_used, reason = "a fault in a test is a failed test")]

use std::fmt;
use std::thread::{panicking, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::crossfade::Run;
use testkit::disk::Disk;
use testkit::postgres::{Server, Stop};
use testkit::proxy::Proxy;
use testkit::{Folder, Load, Stage, Writers, shop, till, wait};

const CROSSFADE: &str = env!("CARGO_BIN_EXE_crossfade");

/// How long a fault lasts: longer than any answer takes on a sound network.
const A_WHILE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Target,
}

use End::{Source, Target};

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// `kill -9` of the program.
    Killed,
    /// The program stands still, as on a machine that is suspended.
    Paused,
    /// Somebody else's file takes the journal's disk.
    JournalFull,
    /// At one end, by its server or the network on the way to it.
    At(End, Harm),
}

#[derive(Clone, Copy, Debug)]
enum Harm {
    /// All connections break, again and again.
    Cut,
    /// Every block of bytes comes late.
    Slow,
    /// Connections go silent, then break, and no new one is had.
    Partition,
    /// The server ends without a checkpoint, and recovers.
    Restart,
    /// All of the server's processes stand still, with their connections open.
    Freeze,
}

const FAULTS: [Fault; 13] = [
    Fault::Killed,
    Fault::Paused,
    Fault::JournalFull,
    // Left out at an end that is SQLite: a file that the program opens by itself has no connection to cut, slow or
    // part, and no server to restart or freeze.
    Fault::At(Source, Harm::Cut),
    Fault::At(Target, Harm::Cut),
    Fault::At(Source, Harm::Slow),
    Fault::At(Target, Harm::Slow),
    Fault::At(Source, Harm::Partition),
    Fault::At(Target, Harm::Partition),
    Fault::At(Source, Harm::Restart),
    Fault::At(Target, Harm::Restart),
    Fault::At(Source, Harm::Freeze),
    Fault::At(Target, Harm::Freeze),
];

#[derive(Clone, Copy, Debug)]
enum Phase {
    Copying,
    Following,
}

#[test]
fn p08_every_fault_in_every_phase_15_to_15() {
    walk(Side::postgres(15), Side::postgres(15), 26);
}

#[test]
fn p08_every_fault_in_every_phase_15_to_18() {
    walk(Side::postgres(15), Side::postgres(18), 26);
}

#[test]
fn p08_every_fault_in_every_phase_sqlite_to_postgres() {
    walk(Side::sqlite(), Side::postgres(15), 16);
}

#[test]
fn p08_every_fault_in_every_phase_sqlite_to_sqlite() {
    walk(Side::sqlite(), Side::sqlite(), 6);
}

/// Through all faults that both sides can have; the number says that none was left out by mistake.
fn walk(source: Side, target: Side, cells: usize) {
    let mut sides = Sides { source, target };
    let mut walked = 0;
    for (number, fault) in FAULTS.into_iter().enumerate() {
        if sides.can_have(fault) {
            walked += sides.suffer(fault, &format!("cell{number}"));
        }
    }
    assert_eq!(walked, cells, "{sides}");
}

struct Sides {
    source: Side,
    target: Side,
}

enum Side {
    Postgres { version: u32, server: Server, proxy: Proxy },
    Sqlite(Folder),
}

impl Sides {
    fn can_have(&self, fault: Fault) -> bool {
        let Fault::At(end, _) = fault else { return true };
        let side = if end == Source { &self.source } else { &self.target };
        matches!(side, Side::Postgres { .. })
    }

    /// One migration, harmed in each phase: two cells. What is harmed while copying goes on to follow.
    fn suffer(&mut self, fault: Fault, name: &str) -> usize {
        let (source, target) = (self.source.create(name), self.target.create(name));
        self.source.fill(name);
        let stage = Stage::new(CROSSFADE, name, source, target).many_cuts().flags(&["--copy-streams", "1"]);
        let disk = match fault {
            Fault::JournalFull => match Disk::mount(&stage.dir(), 64 << 10) {
                Some(disk) => Some(disk),
                // Said loudly already.
                None => return 2,
            },
            _ => None,
        };
        for phase in [Phase::Copying, Phase::Following] {
            let cell = Cell { fault, phase, pair: self.to_string(), start: Instant::now() };
            let writers = self.source.write(name);
            let run = phase.reach(&stage);
            let before = applied(stage.status().as_ref());
            let mut run = self.strike(fault, &stage, run, disk.as_ref());
            works(&stage, &mut run, before);
            writers.stop();
            run.terminate().assert_code(0);
            stage.caught_up();
            stage.assert_equal();
            cell.survived();
        }
        2
    }

    /// The fault comes and goes. Where it ended the run, there is a new one.
    fn strike(&mut self, fault: Fault, stage: &Stage, mut run: Run, disk: Option<&Disk>) -> Run {
        match fault {
            Fault::Killed => {
                run.kill();
                return stage.run(&[]);
            }
            Fault::Paused => {
                run.pause();
                sleep(A_WHILE);
                run.resume();
            }
            Fault::JournalFull => {
                let disk = disk.expect("a disk for the journal");
                // What the target has taken is freed, and filled again: until nothing can be captured.
                wait::until("the full disk ends the run", wait::LONG, || {
                    disk.fill();
                    (!run.running()).then_some(())
                });
                run.wait().assert_code(1).assert_says(&["CF-JOURNAL", "free space"]);
                disk.make_room();
                return stage.run(&[]);
            }
            Fault::At(Source, harm) => self.source.suffer(harm),
            Fault::At(Target, harm) => self.target.suffer(harm),
        }
        assert!(run.running(), "a fault that passes is waited out\n{}", run.err());
        run
    }
}

impl Side {
    fn postgres(version: u32) -> Side {
        let server = Server::version(version).without_fsync().start();
        let proxy = Proxy::start(server.port());
        Side::Postgres { version, server, proxy }
    }

    fn sqlite() -> Side {
        Side::Sqlite(Folder::new("matrix"))
    }

    /// A new database, as the migration reaches it.
    fn create(&self, name: &str) -> String {
        match self {
            Side::Postgres { server, proxy, .. } => {
                server.create_database(name);
                server.url_by(proxy.port(), name)
            }
            Side::Sqlite(_) => format!("sqlite:{}", self.direct(name)),
        }
    }

    /// As the application reaches it, whose network is sound.
    fn direct(&self, name: &str) -> String {
        match self {
            Side::Postgres { server, .. } => server.url(name),
            Side::Sqlite(folder) => folder.join(format!("{name}.db")).display().to_string(),
        }
    }

    fn fill(&self, name: &str) {
        match self {
            Side::Postgres { .. } => shop::create(&self.direct(name), 300),
            // Here a chunk has a thousand rows at least, and fewer than a hundred chunks are copied in no time.
            Side::Sqlite(_) => till::create(&self.direct(name), 30_000),
        }
    }

    fn write(&self, name: &str) -> Writers {
        let load = Load { writers: 2, pause_ms_max: 20, ..Load::default() };
        match self {
            Side::Postgres { .. } => shop::write(&self.direct(name), load),
            Side::Sqlite(_) => till::write(&self.direct(name), load),
        }
    }

    fn suffer(&mut self, harm: Harm) {
        let Side::Postgres { server, proxy, .. } = self else { panic!("no server to harm") };
        match harm {
            Harm::Cut => {
                for _ in 0..4 {
                    proxy.cut();
                    sleep(A_WHILE / 8);
                }
            }
            Harm::Slow => {
                proxy.delay(Duration::from_millis(20));
                sleep(A_WHILE);
                proxy.heal();
            }
            Harm::Partition => {
                proxy.stall();
                sleep(A_WHILE / 2);
                proxy.refuse();
                sleep(A_WHILE / 2);
                proxy.heal();
            }
            Harm::Restart => server.restart(Stop::Immediate),
            Harm::Freeze => {
                server.pause();
                sleep(A_WHILE);
                server.resume();
            }
        }
    }
}

impl Phase {
    /// A run that is in this phase, and has done something in it.
    fn reach(self, stage: &Stage) -> Run {
        let before = applied(stage.status().as_ref());
        let mut run = stage.run(&[]);
        match self {
            Phase::Copying => {
                let status = stage.wait_rows(&mut run, 1);
                assert_eq!(
                    status["phase"], "copying",
                    "the copy was over before it could be harmed: {status}"
                );
            }
            Phase::Following => works(stage, &mut run, before),
        }
        run
    }
}

/// The copy is done, and what is committed now arrives. The count begins anew with each run, and a run that is gone
/// leaves its own behind: so it must have changed.
fn works(stage: &Stage, run: &mut Run, before: u64) {
    stage.wait(run, "it applies what is committed now", |status| {
        let applied = applied(Some(status));
        status["phase"] == "following" && applied > 0 && applied != before
    });
}

fn applied(status: Option<&Value>) -> u64 {
    status.and_then(|status| status["transactions_applied"].as_u64()).unwrap_or(0)
}

/// Where in the matrix we are, said when it ends, well or not.
struct Cell {
    fault: Fault,
    phase: Phase,
    pair: String,
    start: Instant,
}

impl Cell {
    fn survived(self) {
        eprintln!("{self}: survived");
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if panicking() {
            eprintln!("{self}: FAILED");
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { fault, phase, pair, start } = self;
        write!(f, "{fault:?} while {phase:?}, {pair}, {:.1?}", start.elapsed())
    }
}

impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.source, self.target)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Side::Postgres { version, .. } => write!(f, "PostgreSQL {version}"),
            Side::Sqlite(_) => write!(f, "SQLite"),
        }
    }
}
