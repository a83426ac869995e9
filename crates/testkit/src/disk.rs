//! A disk of a chosen size, to be filled: a tmpfs on a folder.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted disk. Dropping it unmounts it.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// `None`, said loudly, where the tests may not mount: only root may.
    pub fn mount(at: &Path, kib: u32) -> Option<Disk> {
        std::fs::create_dir_all(at).expect("create the folder of a disk");
        match run("mount", &["-t", "tmpfs", "-o", &format!("size={kib}k,mode=0777"), "tmpfs"], at) {
            Ok(()) => Some(Disk(at.to_owned())),
            Err(reason) => {
                eprintln!("NOT TRIED: no disk can be mounted here, so none can be full: {reason}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Somebody else's file takes all room that is left.
    pub fn fill(&self) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.filler())
            .expect("open a file to fill a disk");
        let block = [0; 4096];
        let full = std::iter::repeat_with(|| file.write_all(&block)).find_map(Result::err);
        assert!(
            full.is_some_and(|error| error.kind() == ErrorKind::StorageFull),
            "the disk cannot be filled"
        );
    }

    /// That file is gone.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("remove the file that fills a disk");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// As an operator who makes room.
    pub fn resize(&self, kib: u32) {
        let resized = run("mount", &["-o", &format!("remount,size={kib}k")], &self.0);
        resized.unwrap_or_else(|reason| panic!("{reason}"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have files open on it.
        if let Err(reason) = run("umount", &["--lazy"], &self.0) {
            eprintln!("{reason}");
        }
    }
}

fn run(program: &str, args: &[&str], at: &Path) -> Result<(), String> {
    let output =
        Command::new(program).args(args).arg(at).output().map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
