//! What the engine reads from its own folder, each as a function that takes any bytes: for the property tests beside it, and
//! for the fuzzer, which gets at them by the feature `fuzzing`. A function that returns has found nothing wrong.
//!
//! The checksums keep noise out, so the noise is given good ones here: what is behind them must bear it too.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::codec::{self, Decoder, Head, Item};
use super::frame::{self, Header, Kind};
use super::segment::{self, Id};
use super::{Entry, Error, Journal};
use crate::machine::{Disk, File};
use crate::store::Plan;

/// The content of a frame, as each kind of content.
pub fn payload(input: &[u8]) {
    let decoder = || Decoder::new(Bytes::copy_from_slice(input));
    let mut items = decoder();
    while let Ok(item) = items.item(7) {
        let mut out = Vec::new();
        match &item {
            Item::Begin(transaction) => codec::put_begin(&mut out, transaction),
            Item::Change(change) => codec::put_change(&mut out, change),
            Item::Commit(position) => codec::put_commit(&mut out, position),
        }
        again(out, &item, |decoder| decoder.item(7).ok());
        if items.is_done() {
            break;
        }
    }
    if let Ok(relation) = decoder().relation() {
        let mut out = Vec::new();
        codec::put_relation(&mut out, &relation);
        again(out, &relation, |decoder| decoder.relation().ok());
    }
    if let Ok(head) = decoder().head() {
        let mut out = Vec::new();
        codec::put_head(&mut out, &head);
        again(out, &head, |decoder| decoder.head().ok());
    }
}

/// What has been read is read the same from what is written of it.
fn again<T: std::fmt::Debug>(out: Vec<u8>, value: &T, read: impl Fn(&mut Decoder) -> Option<T>) {
    let mut decoder = Decoder::new(out.into());
    let found = read(&mut decoder);
    assert_eq!(format!("{found:?}"), format!("{:?}", Some(value)));
    assert!(decoder.is_done(), "{value:?} is written longer than it is read");
}

/// A segment of frames with any content and in any order, and behind them bytes that are no frame.
pub fn segment(input: &[u8]) {
    let id = Id { epoch: 1, number: 0 };
    let disk = Arc::new(Memory::default());
    disk.files().insert(id.path(Path::new("")), file(id, input));
    let opened = Journal::open_on(disk.clone(), Path::new(""), 2, 1 << 20);
    let read = opened.and_then(|(journal, _append)| {
        let (mut cursor, mut entries) = (journal.cursor(1)?, Vec::new());
        while cursor.try_next(&mut entries, 1 << 10)? {}
        Ok((journal.last(), entries))
    });
    match read {
        Ok((last, entries)) => {
            let end = entries.iter().rev().find_map(|entry| match entry {
                Entry::Commit { seq, position } => Some((*seq, position.clone())),
                _ => None,
            });
            // What recovery takes for the last transaction is what a reader is shown last.
            assert!(end.is_none() || end == last, "{end:?} is shown and {last:?} was found");
        }
        Err(Error::Corrupt { .. } | Error::Format { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// A head, then for each piece of the input a frame with a good checksum; the rest as it is.
fn file(id: Id, mut input: &[u8]) -> Vec<u8> {
    let disk = Memory::default();
    let path = id.path(Path::new(""));
    let head = Head { first_seq: 1, before: None, last: None, relations: Vec::new() };
    let written = segment::create(&disk, Path::new(""), id)
        .and_then(|mut file| segment::write_head(&disk, Path::new(""), id, file.as_mut(), &head));
    assert!(written.is_ok(), "{written:?}");
    let mut out = disk.files().remove(&path).unwrap_or_default();
    while let Some((&[kind, flags, seq, length], rest)) = input.split_first_chunk::<4>() {
        let (payload, rest) = rest.split_at(rest.len().min(length.into()));
        input = rest;
        let (kind, at) = (kind % 8, out.len() as u64);
        let header = |kind| Header::new(kind, flags & 3, seq.into(), payload).encode(id, at);
        match kind {
            0 => out.extend_from_slice(&header(Kind::Head)),
            1 => out.extend_from_slice(&header(Kind::Relation)),
            2 => out.extend_from_slice(&frame::seal(id, at)),
            3 => {}
            _ => out.extend_from_slice(&header(Kind::Changes)),
        }
        if kind != 2 {
            out.extend_from_slice(payload);
        }
    }
    out.extend_from_slice(input);
    out
}

/// `plan.json`.
pub fn plan(input: &[u8]) {
    let Ok(plan) = serde_json::from_slice::<Plan>(input) else { return };
    let written = |plan: &Plan| match serde_json::to_string(plan) {
        Ok(text) => text,
        Err(error) => panic!("{error}"),
    };
    let text = written(&plan);
    match serde_json::from_str(&text) {
        Ok(again) => assert_eq!(written(&again), text),
        Err(error) => panic!("{error}: {text}"),
    }
}

/// Files in memory.
#[derive(Debug, Default)]
struct Memory {
    files: Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>,
}

#[derive(Debug)]
struct MemoryFile {
    files: Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>,
    path: PathBuf,
}

impl Memory {
    fn files(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Vec<u8>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, path: &Path) -> Box<dyn File> {
        Box::new(MemoryFile { files: self.files.clone(), path: path.to_owned() })
    }
}

impl Disk for Memory {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<String>> {
        Ok(self.files().keys().map(|path| path.display().to_string()).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        match self.files().insert(path.to_owned(), Vec::new()) {
            None => Ok(self.handle(path)),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.handle(path))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files().remove(path);
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.files().insert(path.to_owned(), bytes.to_owned());
        Ok(())
    }
}

impl MemoryFile {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> io::Result<T>) -> io::Result<T> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        work(files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?)
    }
}

impl File for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        self.with(|file| Ok(file.len() as u64))
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let at = offset as usize;
        self.with(|file| match file.get(at..at + bytes.len()) {
            Some(found) => {
                bytes.copy_from_slice(found);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset as usize + bytes.len();
        self.with(|file| {
            file.resize(file.len().max(end), 0);
            file[offset as usize..end].copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.with(|file| {
            file.resize(len as usize, 0);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::{Change, Position, Transaction, Value};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// One transaction, in the form that [`segment`] takes.
    fn transaction(seq: u8) -> Vec<u8> {
        let mut content = Vec::new();
        codec::put_begin(&mut content, &Transaction { seq: 0, id: 1, order: 2, committed_us: 3 });
        codec::put_change(
            &mut content,
            &Change::Update {
                relation: 7,
                old: Some(vec![Value::Null]),
                new: vec![Value::text("v"), Value::Real(0.5)],
            },
        );
        codec::put_commit(&mut content, &Position { order: 4, text: "0/4".to_owned() });
        [vec![4, frame::BEGIN | frame::COMMIT, seq, content.len() as u8], content, vec![2, 0, 0, 0]].concat()
    }

    fn damaged(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
        vec((any::<Index>(), any::<u8>(), 0..5_u8), 0..5).prop_map(move |damages| {
            let mut bytes = good.clone();
            for (at, byte, how) in damages {
                let at = at.index(bytes.len());
                match how {
                    0 => bytes.truncate(at + 1),
                    1 => bytes.insert(at, byte),
                    _ => bytes[at] = byte,
                }
            }
            bytes
        })
    }

    fn segments() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            3 => damaged([transaction(1), transaction(2), transaction(3)].concat()),
            1 => vec(any::<u8>(), 0..200),
        ]
    }

    const PLAN: &str = r#"{"name":"shop","catalog":{"tables":[{"name":{"schema":"public","name":"t"},"columns":
        [{"name":"id","type_name":"integer","type_id":23,"kind":"integer","nullable":false,"generated":false}],
        "identity":{"key":{"columns":[0],"order":["Integer"]}},"unique":[],"root":null,"rows_estimate":null,"bytes":0}]},
        "native":null,"start":{"order":1,"text":"0/1"},"planned_us":0}"#;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_content_of_a_frame(input in segments()) {
            payload(&input);
            payload(input.get(4..).unwrap_or_default());
        }

        #[test]
        fn any_frames_of_a_segment(input in segments()) {
            segment(&input);
        }

        #[test]
        fn any_plan(input in damaged(PLAN.as_bytes().to_vec())) {
            plan(&input);
        }
    }

    /// Recovery read up to the first commit of a frame, a reader all of it.
    #[test]
    fn found_a_commit_behind_a_commit() {
        let mut input = transaction(1);
        input.truncate(input.len() - 4);
        codec::put_commit(&mut input, &Position { order: 5, text: "0/5".to_owned() });
        input[3] = (input.len() - 4) as u8;
        segment(&input);
    }

    #[test]
    fn the_samples_are_good() {
        let id = Id { epoch: 1, number: 0 };
        let disk = Arc::new(Memory::default());
        let input = [transaction(1), transaction(2)].concat();
        disk.files().insert(id.path(Path::new("")), file(id, &input));
        let (journal, _append) = Journal::open_on(disk, Path::new(""), 2, 1 << 20).unwrap();
        assert_eq!(journal.last().map(|(seq, _)| seq), Some(2));
        assert!(serde_json::from_str::<Plan>(PLAN).is_ok());
    }
}
