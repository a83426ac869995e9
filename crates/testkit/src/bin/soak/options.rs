//! What the soak is told.

use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Postgres,
    Mariadb,
    Sqlite,
}

pub(crate) struct Options {
    pub(crate) crossfade: String,
    pub(crate) minutes: u64,
    pub(crate) seed: u64,
    pub(crate) source: Engine,
    pub(crate) target: Engine,
    pub(crate) schema: Option<PathBuf>,
    /// Of PostgreSQL.
    pub(crate) version: u32,
}

pub(crate) const USAGE: &str = "soak --crossfade PATH [--minutes N] [--seed S] [--source postgres|mariadb|sqlite] \
    [--target postgres|mariadb] [--schema FILE] [--version V]";

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            crossfade: String::new(),
            minutes: 2,
            seed: fastrand::u64(..1_000_000),
            source: Engine::Postgres,
            target: Engine::Postgres,
            schema: None,
            version: 15,
        };
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|error| format!("{flag} {value}: {error}"));
            match flag.as_str() {
                "--crossfade" => options.crossfade = value,
                "--schema" => options.schema = Some(value.into()),
                "--version" => {
                    options.version = value.parse().map_err(|error| format!("{flag} {value}: {error}"))?;
                }
                "--minutes" => options.minutes = number()?,
                "--seed" => options.seed = number()?,
                "--source" => options.source = Engine::parse(&flag, &value)?,
                "--target" => options.target = Engine::parse(&flag, &value)?,
                _ => return Err(format!("there is no flag {flag}")),
            }
        }
        options.fit_together()
    }

    fn fit_together(self) -> Result<Options, String> {
        if self.crossfade.is_empty() {
            return Err("--crossfade is missing".into());
        }
        if self.target == Engine::Sqlite {
            return Err("--target is postgres or mariadb".into());
        }
        match &self.schema {
            Some(path) if !path.is_file() => Err(format!("there is no file {}", path.display())),
            Some(_) if self.source != Engine::Postgres || self.target != Engine::Postgres => {
                Err("--schema is for PostgreSQL on both sides".into())
            }
            _ => Ok(self),
        }
    }
}

impl Engine {
    fn parse(flag: &str, name: &str) -> Result<Engine, String> {
        match name {
            "postgres" => Ok(Engine::Postgres),
            "mariadb" => Ok(Engine::Mariadb),
            "sqlite" => Ok(Engine::Sqlite),
            _ => Err(format!("{flag} {name}: known are postgres, mariadb and, as a source, sqlite")),
        }
    }
}
