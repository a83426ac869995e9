//! What is promised of positions: to the source what it may forget, to the target up to where it has everything.

use std::path::Path;

use connector::Progress;
use engine::machine::Disk;

use crate::check::invariant;
use crate::world::Inner;

/// The folder of the migration on the simulated disk.
pub(crate) const FOLDER: &str = "/migration";

impl Inner {
    /// The end of the journal as the next owner would find it if the machine lost power now.
    fn durable_end(&self) -> Result<(u64, u64), String> {
        let disk = self.disk.durable();
        let dir = &Path::new(FOLDER).join("journal");
        if disk.list(dir).is_ok_and(|names| names.is_empty()) {
            return Ok((0, 0));
        }
        match engine::last_durable(&disk, dir) {
            Ok(Some((seq, position))) => Ok((seq, position.order)),
            Ok(None) => Ok((0, 0)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The source is told that everything up to here is safe.
    pub(crate) fn acknowledged(&mut self, order: u64) {
        match self.durable_end() {
            Ok((_, end)) if end >= order => {}
            Ok((_, end)) => self.violated(
                invariant::ACKNOWLEDGED_IS_DURABLE,
                format!("the source may forget up to @{order}, and a crash leaves the journal up to @{end}"),
            ),
            Err(error) => self.violated(invariant::ACKNOWLEDGED_IS_DURABLE, error),
        }
        // A source frees its log when it comes to it.
        self.freed = self.freed.max(self.acknowledged_before);
        self.acknowledged_before = order;
        self.tell(|| format!("acknowledged up to @{order}"));
    }

    pub(super) fn progress_moved(&mut self, before: Option<&Progress>) {
        let Some(now) = self.target.progress.clone() else { return };
        if let Some(before) = before
            && (now.seq <= before.seq || now.position < before.position)
            && *before != now
        {
            self.violated(invariant::PROGRESS_FORWARD, format!("from {before:?} to {now:?}"));
        }
        match self.durable_end() {
            Ok((seq, end)) if seq >= now.seq && end >= now.position.order => {}
            Ok((seq, end)) => self.violated(
                invariant::PROGRESS_IS_DURABLE,
                format!("{now:?}, and a crash leaves the journal up to {seq} @{end}"),
            ),
            Err(error) => self.violated(invariant::PROGRESS_IS_DURABLE, error),
        }
    }
}
