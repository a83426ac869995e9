//! The simulated disk: what has been synced survives a crash of the machine, of everything else any part may.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::machine;

use crate::dice::Dice;

/// A handle; all of them are one disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By name, as every process sees it.
    names: BTreeMap<PathBuf, usize>,
    /// By name, as a crash leaves it.
    synced_names: BTreeMap<PathBuf, usize>,
    contents: Vec<Content>,
    full: bool,
    /// So many writes and syncs until the power fails.
    power_fails_in: Option<u32>,
    dead: bool,
    fail_next_sync: bool,
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    pub(crate) fn fail_next_sync(&self) {
        self.lock().fail_next_sync = true;
    }

    /// The power fails in the middle of the write or sync that comes after so many others.
    pub(crate) fn fail_power(&self, after: u32) {
        self.lock().power_fails_in = Some(after);
    }

    /// The power has failed, and nothing more happens until [`Disk::crash`].
    pub(crate) fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// What the machine finds when it comes up again: the synced content, and chance decides about the rest.
    pub(crate) fn crash(&self, dice: &mut Dice) {
        let mut inner = self.lock();
        (inner.dead, inner.power_fails_in) = (false, None);
        let (names, synced_names) = (inner.names.clone(), inner.synced_names.clone());
        for name in names.keys().chain(synced_names.keys()) {
            let source = if dice.percent(50) { &names } else { &synced_names };
            match source.get(name) {
                Some(content) => inner.names.insert(name.clone(), *content),
                None => inner.names.remove(name),
            };
        }
        inner.synced_names = inner.names.clone();
        for content in &mut inner.contents {
            content.tear(dice);
        }
    }

    /// The disk as a crash at this moment would leave it at worst.
    pub(crate) fn durable(&self) -> Disk {
        let inner = self.lock();
        let contents = inner
            .contents
            .iter()
            .map(|content| Content { bytes: content.synced.clone(), synced: content.synced.clone() });
        let durable = Inner {
            names: inner.synced_names.clone(),
            synced_names: inner.synced_names.clone(),
            contents: contents.collect(),
            ..Inner::default()
        };
        Disk { inner: Arc::new(Mutex::new(durable)) }
    }
}

impl Content {
    fn tear(&mut self, dice: &mut Dice) {
        if self.bytes == self.synced {
            return;
        }
        let common = self.bytes.iter().zip(&self.synced).take_while(|(a, b)| a == b).count();
        let (longer, shorter) = match self.bytes.len() >= self.synced.len() {
            true => (&self.bytes, &self.synced),
            false => (&self.synced, &self.bytes),
        };
        let len = dice.between(shorter.len() as u64, longer.len() as u64) as usize;
        let mut torn = longer[..len].to_vec();
        // A block that was allocated and never written reads as zeros.
        if len > common && dice.percent(30) {
            let from = dice.between(common as u64, len as u64 - 1) as usize;
            torn[from..].fill(0);
        }
        self.bytes.clone_from(&torn);
        self.synced = torn;
    }
}

impl Inner {
    /// Takes part in every write and sync: whether it happens, happens in part, or fails.
    fn pass(&mut self) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the power is off"));
        }
        if let Some(left) = &mut self.power_fails_in {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => {
                    self.dead = true;
                    return Err(io::Error::other("the power failed"));
                }
            }
        }
        Ok(())
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl machine::Disk for Disk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.lock();
        let inside = inner.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn machine::File>> {
        let mut inner = self.lock();
        inner.pass()?;
        if inner.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if inner.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = inner.contents.len();
        inner.contents.push(Content::default());
        inner.names.insert(path.to_owned(), content);
        Ok(Box::new(File { disk: self.clone(), content }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn machine::File>> {
        let content = self.lock().find(path)?;
        Ok(Box::new(File { disk: self.clone(), content }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.pass()?;
        inner.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.pass()?;
        let names = inner.names.clone();
        inner.synced_names.retain(|path, _| path.parent() != Some(dir));
        inner.synced_names.extend(names.into_iter().filter(|(path, _)| path.parent() == Some(dir)));
        Ok(())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inner = self.lock();
        Ok(inner.contents[inner.find(path)?].bytes.clone())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        inner.pass()?;
        if inner.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = inner.contents.len();
        inner.contents.push(Content { bytes: bytes.to_vec(), synced: bytes.to_vec() });
        inner.names.insert(path.to_owned(), content);
        inner.synced_names.insert(path.to_owned(), content);
        Ok(())
    }
}

#[derive(Debug)]
struct File {
    disk: Disk,
    content: usize,
}

impl machine::File for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock().contents[self.content].bytes.len() as u64)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.disk.lock();
        let content = &inner.contents[self.content].bytes;
        let from = offset as usize;
        match content.get(from..from + bytes.len()) {
            Some(found) => bytes.copy_from_slice(found),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        if inner.dead {
            return inner.pass();
        }
        if inner.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let passed = inner.pass();
        // When the power fails in a write, the write is one of those of which any part may be there.
        let content = &mut inner.contents[self.content].bytes;
        let end = offset as usize + bytes.len();
        content.resize(content.len().max(end), 0);
        content[offset as usize..end].copy_from_slice(bytes);
        passed
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.pass()?;
        inner.contents[self.content].bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.pass()?;
        if std::mem::take(&mut inner.fail_next_sync) {
            return Err(io::Error::other("the disk could not write"));
        }
        let content = &mut inner.contents[self.content];
        content.synced.clone_from(&content.bytes);
        Ok(())
    }
}
