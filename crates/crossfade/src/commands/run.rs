//! `crossfade run`: the shell around one feed.
//!
//! Checks, takes the folder's lock, starts the engine, shows how far it is, writes `status.json`, and passes
//! on the wish to stop. What is done about rows, faults and restarts is the engine's.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connector::{Reader, Writer};
use engine::{Outcome, Status};
use model::Identity;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing_subscriber::EnvFilter;

use crate::args::RunArgs;
use crate::commands::check::{self, Report};
use crate::figures::{bytes, count, counted, duration};
use crate::render::{self, Display};
use crate::report::{Error, Exit};
use crate::settings::Migration;
use crate::view::View;
use crate::{folder, lock, output, registry, settings};

/// Of the display, and twice that, or more, of `status.json`.
const TICK: Duration = Duration::from_millis(250);

/// Of the time at most, one part in so many goes into writing `status.json`: with many tables it is long.
const STATUS_SHARE: u32 = 50;

/// The exit code of a process that was interrupted: 128 and SIGINT's number.
const INTERRUPTED: i32 = 130;

pub(crate) fn run(args: &RunArgs, json: bool) -> Result<Exit, Error> {
    let config = settings::config(args.place.config.as_deref())?;
    let migration = settings::migration(&args.place, &args.sides, &args.tables, &config)?;
    let settings = settings::engine(args, &migration, &config);
    let record = folder::Migration::new(&migration.name, &migration.source, &migration.target);
    let started = folder::started(&migration.dir)?;
    if let Some(started) = &started {
        record.agrees(started, &migration.dir)?;
    }
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let reader = registry::reader(&migration.source)?;
    let writer = registry::writer(&migration.target)?;

    if args.dry_run {
        log_to_stderr();
        let report = runtime.block_on(check::examine(reader.as_ref(), writer.as_ref(), &migration))?;
        if json {
            output::json(&plan_json(&migration, &settings, &report, started.is_some()))?;
        } else {
            output::data(&plan_text(&migration, &settings, &report, started.is_some()))?;
        }
        return Ok(if report.is_blocked() { Exit::Blocked } else { Exit::Done });
    }

    folder::create(&migration.dir)?;
    let _lock = hold(&migration.dir, args.take_over)?;
    log_to_file(&migration.dir)?;
    if started.is_none() {
        let report = runtime.block_on(check::examine(reader.as_ref(), writer.as_ref(), &migration))?;
        if report.is_blocked() {
            if json {
                output::json(&render::event("blocked", report.json()))?;
            } else {
                output::data(&report.text())?;
            }
            return Ok(Exit::Blocked);
        }
        folder::start(&migration.dir, &record)?;
    }
    runtime.block_on(follow(reader, writer, settings, json))
}

/// The runtime of the verbs that talk to databases.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    // Two workers: one for the source's side and one for the target's; the databases do the heavy work.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::io("start the runtime"))
}

/// For verbs that leave no trace.
pub(crate) fn log_to_stderr() {
    tracing_subscriber::fmt().with_env_filter(filter("warn")).with_writer(std::io::stderr).init();
}

fn log_to_file(dir: &Path) -> Result<(), Error> {
    let file = folder::log(dir)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter("info"))
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .init();
    Ok(())
}

fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_env("CROSSFADE_LOG").unwrap_or_else(|_| EnvFilter::new(default))
}

/// The folder's lock; `None` when another process holds it and is to be replaced. That one finds itself fenced
/// by the epoch at its next write.
fn hold(dir: &Path, take_over: bool) -> Result<Option<lock::Lock>, Error> {
    match lock::take(dir) {
        Err(error @ lock::Error::Held { .. }) if take_over => {
            output::talk(&format!("taking over: {error}"));
            Ok(None)
        }
        other => Ok(other.map(Some)?),
    }
}

async fn follow(
    reader: Arc<dyn Reader>,
    writer: Arc<dyn Writer>,
    settings: engine::Settings,
    json: bool,
) -> Result<Exit, Error> {
    let (name, dir) = (settings.name.clone(), settings.dir.clone());
    let began = tokio::time::Instant::now();
    let (status_tx, mut status) = watch::channel(Status::new(&name));
    let (stop, stop_rx) = watch::channel(false);
    let mut signals = Signals::listen()?;
    let mut feed = tokio::spawn(engine::run(
        reader,
        writer,
        engine::machine::Machine::real(),
        settings,
        status_tx,
        stop_rx,
    ));
    let mut display = Display::new(json);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut ticks = 0u64;
    let mut seen = status.clone();
    let mut keep_again = began;

    let ended = loop {
        tokio::select! {
            ended = &mut feed => break ended,
            _ = tick.tick() => {
                let changed = seen.has_changed().unwrap_or(false);
                display.show(&seen.borrow_and_update(), changed)?;
                ticks += 1;
                // The first status of all is ours and tells nothing; the file keeps the last run's until then.
                let now = tokio::time::Instant::now();
                if ticks.is_multiple_of(2) && now >= keep_again && status.has_changed().unwrap_or(false) {
                    let newest = status.borrow_and_update().clone();
                    keep(&dir, &newest);
                    keep_again = now + now.elapsed() * STATUS_SHARE;
                }
            }
            () = signals.next() => {
                if *stop.borrow() {
                    drop(display);
                    std::process::exit(INTERRUPTED);
                }
                display.say("stopping at a durable point; once more leaves at once");
                stop.send_replace(true);
            }
        }
    };

    let last = status.borrow().clone();
    if status.has_changed().unwrap_or(true) {
        keep(&dir, &last);
    }
    drop(display);
    let outcome = ended.map_err(|error| Error::Bug(error.to_string()))??;
    finish(outcome, &last, &dir, began.elapsed(), json)?;
    Ok(match outcome {
        Outcome::Stopped | Outcome::Captured | Outcome::Copied | Outcome::CaughtUp => Exit::Done,
        Outcome::Held => Exit::Blocked,
    })
}

/// A status that cannot be written (a full disk) is no reason to stop moving rows.
fn keep(dir: &Path, status: &Status) {
    if let Err(error) = folder::write_status(dir, status) {
        tracing::warn!(%error, "the status was not written");
    }
}

fn finish(outcome: Outcome, last: &Status, dir: &Path, took: Duration, json: bool) -> Result<(), Error> {
    let told = match outcome {
        Outcome::Stopped => "stopped",
        Outcome::Captured => "captured",
        Outcome::Copied => "copied",
        Outcome::CaughtUp => "caught_up",
        Outcome::Held => "held",
    };
    if json {
        let status = serde_json::to_value(last).map_err(Error::unshown)?;
        return output::json(&render::event("end", json!({ "outcome": told, "status": status })));
    }
    let view = View::of(last).map_err(Error::unshown)?;
    let head = match outcome {
        Outcome::Stopped => "stopped at a durable point; the same command goes on from there",
        Outcome::Captured => "captured: what the source had committed is in the journal; nothing was applied",
        Outcome::Copied => "copied; the same command without --until goes on and follows the source",
        Outcome::CaughtUp => "caught up: everything that the source had committed is on the target",
        Outcome::Held => "held: a change was refused by the target, and its table waits for a repair",
    };
    output::data(&format!(
        "{}: {head} (this run took {})\n{}\n  everything about it is in {}\n",
        view.name,
        duration(took),
        render::page(&view),
        dir.display()
    ))
}

fn plan_json(migration: &Migration, settings: &engine::Settings, report: &Report, started: bool) -> Value {
    let tables: Vec<Value> = report
        .tables()
        .map(|table| {
            json!({
                "name": table.name,
                "rows_estimate": table.rows_estimate,
                "bytes": table.bytes,
                "identity": table.identity,
            })
        })
        .collect();
    let plan = json!({
        "name": migration.name,
        "dir": migration.dir,
        "started": started,
        "tables": tables,
        "copy_streams": settings.copy_streams,
        "chunk_bytes": settings.chunk_bytes,
        "check": report.json(),
    });
    render::event("plan", plan)
}

fn plan_text(migration: &Migration, settings: &engine::Settings, report: &Report, started: bool) -> String {
    let mut out = format!("{}: nothing is changed by a dry run\n\n", migration.name);
    for table in report.tables() {
        let rows = table
            .rows_estimate
            .map_or("rows unknown".to_owned(), |rows| format!("about {} rows", count(rows)));
        let key = match &table.identity {
            Identity::Key { columns, .. } => {
                let names: Vec<&str> = columns.iter().map(|at| table.columns[*at].name.as_str()).collect();
                format!("key ({})", names.join(", "))
            }
            Identity::WholeRow => "no key: by the whole row".to_owned(),
        };
        out += &format!("  {}  {rows}, {}, {key}\n", table.name, bytes(table.bytes));
    }
    out += &format!(
        "\n  would {}: {} at a time, in chunks of {}; kept in {}\n\n",
        if started { "go on" } else { "start" },
        counted(settings.copy_streams as u64, "chunk"),
        bytes(settings.chunk_bytes),
        migration.dir.display(),
    );
    out + &report.text()
}

/// Ctrl-C and SIGTERM, as one.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> Result<Signals, Error> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = "listen for signals";
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).map_err(Error::io(failed))?,
            terminate: signal(SignalKind::terminate()).map_err(Error::io(failed))?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn listen() -> Result<Signals, Error> {
        Ok(Signals {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
