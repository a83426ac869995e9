//! `crossfade status`: the newest status of a migration, running or not.

use serde_json::json;

use crate::args::StatusArgs;
use crate::figures::duration;
use crate::report::{Error, Exit};
use crate::view::View;
use crate::{folder, lock, output, render, settings};

pub(crate) fn run(args: &StatusArgs, json: bool) -> Result<Exit, Error> {
    let config = settings::config(args.place.config.as_deref())?;
    let dir = settings::existing(&args.place, &config)?;
    let started = folder::started(&dir)?.ok_or_else(|| folder::Error::Missing { dir: dir.clone() })?;
    let holder = lock::holder(&dir)?;
    let status = match folder::status(&dir)? {
        Some(status) => status,
        // Started a moment ago, or killed before it had anything to tell.
        None => serde_json::to_value(engine::Status::new(&started.name)).map_err(Error::unshown)?,
    };
    if json {
        let mut status = status;
        status["running"] = json!(holder.is_some());
        output::json(&status)?;
        return Ok(Exit::Done);
    }
    let view = View::read(status).map_err(Error::unshown)?;
    let running = match (&holder, folder::status_age(&dir)) {
        (Some(holder), _) => format!("running ({holder})"),
        (None, Some(age)) => format!("not running; this is from {} ago", duration(age)),
        (None, None) => "not running".to_owned(),
    };
    output::data(&format!(
        "{}: {}, {running}\n  {} → {}\n{}",
        view.name,
        view.phase,
        started.source,
        started.target,
        render::page(&view)
    ))?;
    Ok(Exit::Done)
}
