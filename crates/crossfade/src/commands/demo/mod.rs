//! `crossfade demo`: a shop that moves while it is open, and a migration that is killed again and again.
//!
//! It uses the program from outside, as a user would: the migration is a child process, its progress is read
//! from its folder, and the result is compared by code that shares nothing with it.

mod chart;
mod compare;
mod dice;
mod pipeline;
mod shop;
mod story;
mod writers;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dice::Dice;
use pipeline::{Pipeline, Places};
use story::{Kill, Story};
use writers::Writers;

use crate::args::DemoArgs;
use crate::figures::{count, duration, seconds};
use crate::output;
use crate::redact::redact;
use crate::report::{self, Exit};

/// Fewer would not show much; the demo goes on beyond its time until so many have been survived.
const KILLS_MIN: usize = 5;
/// Of these, each when the target holds a share of the rows between the two percentages: they meet the copy.
const COPY_KILLS: [(u64, u64); 2] = [(5, 35), (45, 80)];
const TICK: Duration = Duration::from_millis(50);
/// A copy of this size takes a second or two; to meet it the rows are looked at more often.
const COPY_TICK: Duration = Duration::from_millis(5);
const COPY_MAX: Duration = Duration::from_secs(10);
/// Far beyond what a catch-up takes; past it something is broken.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("could not {operation}")]
    Io { operation: &'static str, source: std::io::Error },
    #[error("could not {operation}")]
    Sqlite { operation: &'static str, source: rusqlite::Error },
    #[error("a writer of the shop broke down")]
    Writer,
    #[error("the migration ended by itself ({how}): {said}")]
    Ended { how: String, said: String, folder: PathBuf },
    #[error("the migration did not catch up within {}", duration(CATCH_UP_MAX))]
    Stuck { folder: PathBuf },
}

impl Error {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Error::Ended { folder, .. } | Error::Stuck { folder } => Some(format!(
                "everything is kept in {}: run.log and migration/crossfade.log tell more",
                folder.display()
            )),
            Error::Io { .. } | Error::Sqlite { .. } | Error::Writer => None,
        }
    }
}

pub(crate) fn run(args: &DemoArgs, json: bool) -> Result<Exit, report::Error> {
    let story = play(args, json)?;
    if json {
        output::json(&story.json())?;
    } else {
        output::data(&format!("\n{}", story.text()))?;
    }
    let equal = story.differences() == 0;
    if story.kept.is_none() {
        fs::remove_dir_all(&story.folder).map_err(report::Error::io("remove the demo's folder"))?;
    }
    Ok(if equal { Exit::Done } else { Exit::Differences })
}

/// The whole demonstration; talks on stderr while it goes.
fn play(args: &DemoArgs, json: bool) -> Result<Story, Error> {
    let began = Instant::now();
    let say = |text: &str| {
        if !json {
            output::talk(&format!("{:>8}  {text}", seconds(began.elapsed().as_secs_f64())));
        }
    };
    let folder = std::env::temp_dir().join(format!("crossfade-demo-{}", std::process::id()));
    fs::create_dir_all(&folder)
        .map_err(|source| Error::Io { operation: "make a folder for the demo", source })?;
    let places = Places { folder: folder.clone() };

    let rows = shop::create(&places.source(), args.seed)
        .map_err(|source| Error::Sqlite { operation: "make the shop", source })?;
    say(&format!("a shop with {} rows in {}", count(rows), places.source().display()));

    let mut show = Show {
        places,
        dice: Dice::new(args.seed, u64::MAX),
        rows,
        began: Instant::now(),
        kills: Vec::new(),
        lag: Vec::new(),
        progress: Progress::default(),
    };
    let writers = Writers::start(&show.places.source(), args.seed);
    say(&format!("{} writers work in it from now on, and the migration begins", writers::WRITERS));
    show.harass(Duration::from_secs(args.seconds), &say)?;
    let written = writers.stop()?;
    say(&format!(
        "the shop closes after {} transactions; the migration catches up",
        count(written.transactions)
    ));
    show.catch_up()?;
    say("comparing the two files row by row");
    let tables = compare::compare(&show.places.source(), &show.places.target())
        .map_err(|source| Error::Sqlite { operation: "compare the two sides", source })?;

    let mut story = Story {
        rows_copied: show.progress.rows_copied,
        changes_applied: show.progress.changes_applied(),
        written,
        kills: show.kills,
        lag: show.lag,
        tables,
        took: began.elapsed(),
        kept: None,
        source: show.places.source(),
        target: show.places.target(),
        folder,
    };
    if args.keep || story.differences() > 0 {
        story.kept = Some(story.folder.clone());
    }
    Ok(story)
}

/// The demonstration while it goes on.
struct Show {
    places: Places,
    dice: Dice,
    /// In the shop when it opened.
    rows: u64,
    began: Instant,
    kills: Vec<Kill>,
    /// (second, lag in seconds).
    lag: Vec<(f64, f64)>,
    progress: Progress,
}

impl Show {
    /// Runs the migration and kills it at random moments until the time is over; leaves it killed.
    fn harass(&mut self, time: Duration, say: &dyn Fn(&str)) -> Result<(), Error> {
        loop {
            let mut pipeline = Pipeline::start(&self.places, false)?;
            match COPY_KILLS.get(self.kills.len()) {
                Some(share) => self.wait_for_rows(&mut pipeline, *share)?,
                None => {
                    let lives = self.lifetime(time);
                    self.wait_for(&mut pipeline, lives)?;
                }
            }
            // It may have ended by itself in the last moment: then there would be nothing to kill.
            self.alive(&mut pipeline)?;
            pipeline.kill()?;
            let kill = self.killed();
            say(&kill.told(self.kills.len() + 1));
            self.kills.push(kill);
            if self.began.elapsed() >= time && self.kills.len() >= KILLS_MIN {
                return Ok(());
            }
            // Dead for a moment, while the writers go on.
            let pause = Instant::now() + Duration::from_millis(self.dice.between(50, 600));
            while Instant::now() < pause {
                self.sample();
                std::thread::sleep(TICK);
            }
        }
    }

    fn wait_for(&mut self, pipeline: &mut Pipeline, lives: Duration) -> Result<(), Error> {
        while pipeline.since.elapsed() < lives {
            self.alive(pipeline)?;
            self.sample();
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Until the copy is somewhere between the two percentages; not forever, should there be no copy to meet.
    fn wait_for_rows(&mut self, pipeline: &mut Pipeline, (low, high): (u64, u64)) -> Result<(), Error> {
        let wanted = self.rows * self.dice.between(low, high) / 100;
        let mut ticks = 0u64;
        while self.rows_target() < wanted && pipeline.since.elapsed() < COPY_MAX {
            self.alive(pipeline)?;
            if ticks.is_multiple_of(10) {
                self.sample();
            }
            ticks += 1;
            std::thread::sleep(COPY_TICK);
        }
        Ok(())
    }

    /// Asked of the target itself; 0 while it is being made.
    fn rows_target(&self) -> u64 {
        compare::rows(&self.places.target()).unwrap_or(0)
    }

    /// How long the next run may live.
    fn lifetime(&mut self, time: Duration) -> Duration {
        let rest = time.saturating_sub(self.began.elapsed()).as_millis() as u64;
        let (low, high) = (1_000, 1_000 + time.as_millis() as u64 / KILLS_MIN as u64);
        let lives = self.dice.between(low, high);
        // No stump of a run at the end: the last one takes what is left.
        let is_last = rest < lives + low;
        Duration::from_millis(if is_last { rest.max(low) } else { lives })
    }

    /// The last run: nobody writes, nobody kills, and it ends by itself once everything is applied.
    fn catch_up(&mut self) -> Result<(), Error> {
        let mut pipeline = Pipeline::start(&self.places, true)?;
        loop {
            self.sample();
            match pipeline.ended()? {
                Some(how) if how.success() => return Ok(()),
                Some(how) => return Err(self.ended(&how.to_string())),
                None if pipeline.since.elapsed() > CATCH_UP_MAX => {
                    return Err(Error::Stuck { folder: self.places.folder.clone() });
                }
                None => std::thread::sleep(TICK),
            }
        }
    }

    fn alive(&self, pipeline: &mut Pipeline) -> Result<(), Error> {
        match pipeline.ended()? {
            None => Ok(()),
            Some(how) => Err(self.ended(&how.to_string())),
        }
    }

    fn ended(&self, how: &str) -> Error {
        let log = fs::read_to_string(self.places.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let said = redact(&lines[lines.len().saturating_sub(8)..].join("\n  "));
        Error::Ended { how: how.to_owned(), said, folder: self.places.folder.clone() }
    }

    fn sample(&mut self) {
        let Some((view, age)) = self.places.status() else { return };
        // The file is written twice a second. When it is older, nobody is at work, and the lag grows with it.
        let stale = if age > Duration::from_millis(700) { age.as_secs_f64() } else { 0.0 };
        self.lag.push((self.began.elapsed().as_secs_f64(), view.lag.seconds + stale));
        self.progress.seen(view.rows_copied(), view.changes_applied);
    }

    fn killed(&self) -> Kill {
        let at = self.began.elapsed().as_secs_f64();
        let rows_target = self.rows_target();
        // The writers delete fewer rows than they insert, so a complete copy is never this small.
        Kill { at, rows_target, in_copy: rows_target < self.rows * 9 / 10 }
    }
}

/// Counters over several runs, whether a run begins to count at 0 or where the last one was.
#[derive(Default)]
struct Progress {
    rows_copied: u64,
    changes_before: u64,
    changes: u64,
}

impl Progress {
    fn seen(&mut self, rows_copied: u64, changes: u64) {
        self.rows_copied = self.rows_copied.max(rows_copied);
        if changes < self.changes {
            self.changes_before += self.changes;
        }
        self.changes = changes;
    }

    fn changes_applied(&self) -> u64 {
        self.changes_before + self.changes
    }
}
