//! The migration as a process of its own, which can be killed.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::Error;
use crate::folder;
use crate::view::View;

/// Where everything of one demo is.
pub(crate) struct Places {
    pub(crate) folder: PathBuf,
}

impl Places {
    pub(crate) fn source(&self) -> PathBuf {
        self.folder.join("old-shop.db")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.folder.join("new-shop.db")
    }

    pub(crate) fn migration(&self) -> PathBuf {
        self.folder.join("migration")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("run.log")
    }

    /// The newest status that a run left, and how old it is; `None` before the first.
    pub(crate) fn status(&self) -> Option<(View, Duration)> {
        let dir = self.migration();
        // A status that is missing or from another moment is no reason to end a demonstration.
        let view = View::read(folder::status(&dir).ok()??).ok()?;
        Some((view, folder::status_age(&dir)?))
    }
}

/// A running `crossfade run`. Killed when dropped.
pub(crate) struct Pipeline {
    child: Child,
    pub(crate) since: Instant,
}

impl Pipeline {
    /// The same program, as anybody would start it.
    pub(crate) fn start(places: &Places, until_caught_up: bool) -> Result<Pipeline, Error> {
        let failed = |operation| move |source| Error::Io { operation, source };
        let program = std::env::current_exe().map_err(failed("find this program"))?;
        let log = open_log(&places.log()).map_err(failed("open the log"))?;
        let errors = log.try_clone().map_err(failed("open the log"))?;
        let mut command = Command::new(program);
        command
            .arg("run")
            .args(["--name", "shop", "--source", &url(&places.source()), "--target", &url(&places.target())])
            .arg("--dir")
            .arg(places.migration())
            // Small chunks, one at a time: so the copy lasts long enough to be killed in the middle.
            .args(["--copy-streams", "1", "--chunk-bytes", "32768"])
            .current_dir(&places.folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        if until_caught_up {
            command.args(["--until", "caught-up"]);
        }
        let child = command.spawn().map_err(failed("start the migration"))?;
        Ok(Pipeline { child, since: Instant::now() })
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(|source| Error::Io { operation: "look after the migration", source })
    }

    /// SIGKILL: it gets no chance to tidy up.
    pub(crate) fn kill(mut self) -> Result<(), Error> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map(|_| ())
            .map_err(|source| Error::Io { operation: "kill the migration", source })
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Nobody is left to be told, and a process that is gone already is what was wanted.
            let _ended = self.child.kill().and_then(|()| self.child.wait());
        }
    }
}

fn open_log(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

pub(crate) fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}
