//! A folder of its own for each thing that needs one, gone when it is dropped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Short, so that a socket's path fits in it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Anybody may enter and write: servers run as another user than the tests.
    pub fn new(purpose: &str) -> Folder {
        Folder::within(&std::env::temp_dir(), purpose)
    }

    pub fn within(parent: &Path, purpose: &str) -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("cf-{purpose}-{}-{number}", std::process::id()));
        // Left by a dead process that had the same id.
        if path.exists() {
            fs::remove_dir_all(&path).expect("remove an old folder");
        }
        fs::create_dir_all(&path).expect("create a folder for temporary files");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("open the folder to all");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("CROSSFADE_KEEP").is_some() {
            eprintln!("kept: {}", self.0.display());
        } else if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("could not remove {}: {error}", self.0.display());
        }
    }
}
