//! What was meant: flags, environment, file and defaults put together, flags first.

use std::fs;
use std::path::{Path, PathBuf};

use connector::Selection;
use engine::ApplyMode;

use crate::args::{Place, RunArgs, Sides, UntilArg};
use crate::config::{self, Config};
use crate::folder;

/// A stream's name becomes part of the names of slots, publications and triggers, which are limited to 63
/// bytes; this leaves room for what is put around it.
const NAME_CHARS_MAX: usize = 40;

/// One migration: from where, to where, what, and where its folder is.
#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) selection: Selection,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the {side} is not given")]
    SideMissing { side: &'static str },
    #[error("source and target are the same database: {url}")]
    SameDatabase { url: String },
    #[error(
        "the name \"{name}\" cannot be used: lower-case letters, digits and _ only, at most {NAME_CHARS_MAX}"
    )]
    Name { name: String },
    #[error("there are several migrations here: {}", names.join(", "))]
    Several { names: Vec<String> },
}

impl Error {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Error::SideMissing { side } => Some(format!(
                "give --{side} URL, or write a {} with `crossfade init` and put it there",
                config::FILE
            )),
            Error::SameDatabase { .. } => Some("a migration needs two databases".to_owned()),
            Error::Name { name } => Some(format!("--name {}", plain(name))),
            Error::Several { .. } => Some("say which one with --name".to_owned()),
        }
    }
}

/// The file that was named, or the one that lies here, or an empty one.
pub(crate) fn config(file: Option<&Path>) -> Result<Config, config::Error> {
    match file {
        Some(file) => config::load(file),
        None if Path::new(config::FILE).exists() => config::load(Path::new(config::FILE)),
        None => Ok(Config::default()),
    }
}

pub(crate) fn migration(
    place: &Place,
    sides: &Sides,
    patterns: &[String],
    config: &Config,
) -> Result<Migration, Error> {
    let side = |given: &Option<String>, file: &config::Side, side: &'static str| {
        given.as_deref().or(file.url()).map(str::to_owned).ok_or(Error::SideMissing { side })
    };
    let source = side(&sides.source, &config.source, "source")?;
    let target = side(&sides.target, &config.target, "target")?;
    if folder::Migration::new("", &source, &target).is_one_database() {
        return Err(Error::SameDatabase { url: crate::redact::redact(&source) });
    }
    let name = name(place, config, Some(&source))?.unwrap_or_else(|| "migration".to_owned());
    let include: Vec<String> = match patterns {
        [] => config.tables.iter().map(|tables| tables.pattern.clone()).collect(),
        given => given.to_vec(),
    };
    let selection = if include.is_empty() { Selection::everything() } else { Selection { include } };
    let dir = place.dir.clone().unwrap_or_else(|| Path::new(folder::HOME).join(&name));
    Ok(Migration { name, dir, source, target, selection })
}

/// The folder of a migration that is there already, found with as little as possible being said.
pub(crate) fn existing(place: &Place, config: &Config) -> Result<PathBuf, Error> {
    if let Some(dir) = &place.dir {
        return Ok(dir.clone());
    }
    if let Some(name) = name(place, config, config.source.url())? {
        return Ok(Path::new(folder::HOME).join(name));
    }
    let mut names: Vec<String> = fs::read_dir(folder::HOME)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    match names.as_slice() {
        [] => Ok(PathBuf::from(folder::HOME)),
        [name] => Ok(Path::new(folder::HOME).join(name)),
        _ => Err(Error::Several { names }),
    }
}

pub(crate) fn engine(args: &RunArgs, migration: &Migration, config: &Config) -> engine::Settings {
    let mut settings = engine::Settings::new(&migration.name, &migration.dir);
    settings.selection = migration.selection.clone();
    settings.until = match args.until {
        None => engine::Until::Stopped,
        Some(UntilArg::Captured) => engine::Until::Captured,
        Some(UntilArg::Copied) => engine::Until::Copied,
        Some(UntilArg::CaughtUp) => engine::Until::CaughtUp,
    };
    let (copy, apply) = (&config.copy, &config.apply);
    if let Some(streams) = args.copy_streams.or(copy.streams) {
        settings.copy_streams = streams.get();
    }
    if let Some(bytes) = args.chunk_bytes.or(copy.chunk_bytes) {
        settings.chunk_bytes = bytes.get();
    }
    if let Some(bytes) = args.one_cut_bytes_max.or(copy.one_cut_bytes_max) {
        settings.one_cut_bytes_max = bytes.get();
    }
    if let Some(seconds) = args.wave_seconds_max.or(copy.wave_seconds_max) {
        settings.wave_seconds_max = seconds;
    }
    if let Some(lanes) = args.apply_lanes.or(apply.lanes) {
        settings.apply_lanes = lanes.get();
    }
    if let Some(throttle) = args.throttle.or(copy.throttle) {
        settings.throttle = throttle == config::Throttle::On;
    }
    if let Some(bytes) = args.slice_bytes.or(apply.slice_bytes) {
        settings.slice_bytes = bytes.get();
    }
    if let Some(mode) = args.apply.or(apply.mode) {
        settings.apply = match mode {
            config::ApplyMode::Auto => ApplyMode::Auto,
            config::ApplyMode::CatchUp => ApplyMode::CatchUp,
            config::ApplyMode::Strict => ApplyMode::Strict,
        };
    }
    settings
}

/// The name as given, else after the source's database.
fn name(place: &Place, config: &Config, source: Option<&str>) -> Result<Option<String>, Error> {
    match place.name.as_ref().or(config.name.as_ref()) {
        Some(given) if plain(given) == *given => Ok(Some(given.clone())),
        Some(given) => Err(Error::Name { name: given.clone() }),
        None => Ok(source.and_then(database).map(|name| plain(&name))),
    }
}

/// What a URL calls its database: the last part of its path, of a file without its ending.
pub(crate) fn database(url: &str) -> Option<String> {
    let path = match url.split_once("://") {
        Some(("sqlite", path)) => path,
        Some((_, rest)) => rest.split(['?', '#']).next()?.split_once('/')?.1,
        None => url.split_once(':')?.1,
    };
    let name = Path::new(path).file_stem()?.to_str()?;
    Some(name.to_owned())
}

/// The nearest name that can be used.
pub(crate) fn plain(name: &str) -> String {
    let plain: String = name
        .chars()
        .take(NAME_CHARS_MAX)
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect();
    if plain.is_empty() { "migration".to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_source() {
        for (url, name) in [
            ("postgres://app:pw@old:5432/Shop-EU?sslmode=require", "shop_eu"),
            ("sqlite:/data/shop.db", "shop"),
            ("sqlite://shop.db", "shop"),
            ("sqlite:shop.v2.db", "shop_v2"),
        ] {
            assert_eq!(database(url).map(|name| plain(&name)).as_deref(), Some(name), "{url}");
        }
        assert_eq!(database("postgres://old"), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let place = |name: &str| Place { name: Some(name.to_owned()), ..Place::default() };
        let sides = |source: Option<&str>, target: &str| Sides {
            source: source.map(str::to_owned),
            target: Some(target.to_owned()),
        };
        let config = Config::default();
        let refused = |place: &Place, sides: &Sides| migration(place, sides, &[], &config).unwrap_err();
        let error = refused(&place("Shop EU"), &sides(Some("sqlite:a"), "sqlite:b"));
        assert_eq!(error.hint().as_deref(), Some("--name shop_eu"));
        let error = refused(&place("shop"), &sides(None, "sqlite:b"));
        assert_eq!(error.to_string(), "the source is not given");
        let error = refused(&place("shop"), &sides(Some("sqlite:./a"), "sqlite:a"));
        assert_eq!(error.to_string(), "source and target are the same database: sqlite:./a");
    }
}
