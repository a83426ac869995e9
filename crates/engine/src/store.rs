//! What a feed keeps in the migration's folder beside the journal: the plan, made once.

use std::path::{Path, PathBuf};

use connector::NativeSchema;
use model::{Catalog, Position};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::machine::Disk;

/// The plan, as introspected when the migration began.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) catalog: Catalog,
    /// The schema in the source engine's own words, where the target speaks the same dialect.
    pub(crate) native: Option<NativeSchema>,
    /// The position after which capture is complete.
    pub(crate) start: Position,
    /// Rows and bytes of the source are estimates of this time, microseconds since 1970.
    pub(crate) planned_us: i64,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("plan.json")
}

pub(crate) fn journal_dir(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// `None` when no migration was begun in this folder.
pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Plan>, Error> {
    let path = path(dir);
    match disk.read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::FolderContent { path, source })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Folder { operation: "read", path, source }),
    }
}

/// Durable when it returns: a plan that was forgotten after the first chunk would strand the target's records.
pub(crate) fn save(disk: &dyn Disk, dir: &Path, plan: &Plan) -> Result<(), Error> {
    let path = path(dir);
    let bytes =
        serde_json::to_vec(plan).map_err(|source| Error::FolderContent { path: path.clone(), source })?;
    disk.create_dir(dir).map_err(|source| Error::Folder {
        operation: "create",
        path: dir.to_owned(),
        source,
    })?;
    disk.replace(&path, &bytes).map_err(|source| Error::Folder { operation: "write", path, source })
}
