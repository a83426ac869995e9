//! What the engine asks of the machine it runs on: the time of day, a disk, and a thread for capture.
//!
//! The engine takes none of these itself, so that the simulation can give it others: a clock that jumps, a disk that
//! fills up and tears writes, and one thread for everything. Waiting and tasks are tokio's, whose clock a test can
//! hold. Nothing is decided by the time of day; it is only shown.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// The machine of one feed.
#[derive(Clone, Debug)]
pub struct Machine {
    pub clock: Arc<dyn Clock>,
    pub disk: Arc<dyn Disk>,
    pub capture: CaptureRuns,
}

/// Where capture runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureRuns {
    /// One thread that reads, encodes and fsyncs costs half the processor time of the same work spread over a pool, and
    /// its fsync blocks nobody else.
    OnItsOwnThread,
    /// As a task beside the others, where one thread must run everything.
    AsATask,
}

pub trait Clock: Debug + Send + Sync {
    /// Microseconds since 1970-01-01 UTC.
    fn now_us(&self) -> i64;
}

/// Files in folders. Contract: what [`File::sync`] has covered, and the names that [`Disk::sync_dir`] has covered,
/// survive a crash of the machine; of everything later any part may.
pub trait Disk: Debug + Send + Sync {
    /// With the folders above it; it may exist.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in this folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// For reading and writing; fails with `AlreadyExists`, and among several callers for all but one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// For reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Writes a whole file in place of the one before, durably: a crash leaves the one or the other.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
}

pub trait File: Debug + Send {
    fn size(&self) -> io::Result<u64>;
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Makes the content and the length durable.
    fn sync(&self) -> io::Result<()>;
}

impl Machine {
    /// The one that this process runs on.
    pub fn real() -> Machine {
        Machine { clock: Arc::new(RealClock), disk: Arc::new(RealDisk), capture: CaptureRuns::OnItsOwnThread }
    }
}

#[derive(Debug)]
struct RealClock;

impl Clock for RealClock {
    fn now_us(&self) -> i64 {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        // A name that is not UTF-8 is none of ours.
        fs::read_dir(dir)?
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(fs::File::options().read(true).write(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(fs::File::open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let draft = path.with_added_extension("new");
        fs::write(&draft, bytes)?;
        fs::File::open(&draft)?.sync_all()?;
        fs::rename(&draft, path)?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }
}

impl File for fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        fs::File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync covers the length too, where it is needed to read the content.
        self.sync_data()
    }
}
