//! The journal as capture and apply use it, on real files, with the damage that crashes and disks do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use model::{Change, Position, Relation, RelationColumn, TableName, Transaction, Value};

use super::segment::{self, Id};
use super::{Append, Cursor, Entry, Error, Journal};
use crate::machine::RealDisk;

/// A folder that goes away with the test.
pub(super) struct Folder {
    pub(super) path: PathBuf,
}

impl Journal {
    pub(crate) fn open(dir: &Path, epoch: u64) -> Result<(Journal, Append), Error> {
        Journal::open_sized(dir, epoch, 64 << 20)
    }

    pub(crate) fn open_sized(dir: &Path, epoch: u64, segment_bytes: u64) -> Result<(Journal, Append), Error> {
        Journal::open_on(Arc::new(RealDisk), dir, epoch, segment_bytes)
    }
}

impl Folder {
    pub(super) fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("crossfade-journal-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder { path }
    }

    fn segment(&self, epoch: u64, number: u32) -> PathBuf {
        Id { epoch, number }.path(&self.path)
    }

    /// A copy, to be damaged.
    fn copy(&self) -> Folder {
        let copy = Folder::new();
        for entry in std::fs::read_dir(&self.path).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path.join(entry.file_name())).unwrap();
        }
        copy
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).ok();
    }
}

fn transaction(seq: u64) -> Transaction {
    Transaction { seq, id: 1000 + seq, order: 10 * seq - 1, committed_us: -(seq as i64) }
}

fn position(seq: u64) -> Position {
    Position { order: 10 * seq, text: format!("0/{seq:X}") }
}

fn relation(id: u32, columns: usize) -> Relation {
    let column = |at| RelationColumn { name: format!("c{at}"), type_id: 25, type_modifier: -1, key: at == 0 };
    Relation {
        id,
        table: TableName::new("public", format!("t{id}")),
        columns: (0..columns).map(column).collect(),
        whole_old_row: false,
    }
}

fn insert(seq: u64) -> Change {
    Change::Insert { relation: 1, new: vec![Value::Integer(seq as i64), Value::text(format!("row {seq}"))] }
}

/// One small transaction; what [`one`] expects of it.
pub(super) fn append_one(append: &mut Append, seq: u64) {
    assert_eq!(append.begin(Transaction { seq: 0, ..transaction(seq) }), seq);
    append.change(&insert(seq)).unwrap();
    append.commit(&position(seq));
}

fn one(seq: u64) -> [Entry; 3] {
    [
        Entry::Begin(transaction(seq)),
        Entry::Change(insert(seq)),
        Entry::Commit { seq, position: position(seq) },
    ]
}

fn all(seqs: impl IntoIterator<Item = u64>) -> Vec<Entry> {
    seqs.into_iter().flat_map(one).collect()
}

fn drain(cursor: &mut Cursor) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    while cursor.try_next(&mut entries, 1 << 20)? {}
    Ok(entries)
}

fn read(journal: &Journal, from_seq: u64) -> Result<Vec<Entry>, Error> {
    drain(&mut journal.cursor(from_seq)?)
}

#[test]
fn every_kind_of_value_and_change_comes_back_as_it_was() {
    let row = vec![
        Value::Null,
        Value::Unchanged,
        Value::text(""),
        Value::text("a\u{0}é"),
        Value::Text(Bytes::from_static(&[0xff, 0x00])),
        Value::Integer(i64::MIN),
        Value::Integer(0),
        Value::Real(-0.0),
        Value::Real(f64::from_bits(0x7ff8_0000_dead_beef)),
        Value::Blob(Bytes::new()),
        Value::Blob(Bytes::from(vec![7; 300_000])),
    ];
    let changes = [
        Change::Insert { relation: u32::MAX, new: row.clone() },
        Change::Update { relation: 1, old: None, new: row.clone() },
        Change::Update { relation: 1, old: Some(row.clone()), new: vec![] },
        Change::Delete { relation: 0, old: row },
        Change::Truncate { relations: vec![1, u32::MAX], restart_identity: true },
        Change::Truncate { relations: vec![], restart_identity: false },
    ];
    let relation = Relation { whole_old_row: true, ..relation(u32::MAX, 300) };

    let folder = Folder::new();
    let (journal, mut append) = Journal::open(&folder.path, 1).unwrap();
    append.begin(transaction(1));
    append.relation(&relation).unwrap();
    changes.iter().for_each(|change| append.change(change).unwrap());
    append.commit(&position(1));
    assert_eq!(append.sync().unwrap().unwrap().text, position(1).text);

    let mut expected = vec![Entry::Begin(transaction(1)), Entry::Relation(relation)];
    expected.extend(changes.into_iter().map(Entry::Change));
    expected.push(Entry::Commit { seq: 1, position: position(1) });
    assert_eq!(read(&journal, 1).unwrap(), expected);
}

#[test]
fn nothing_is_shown_before_it_is_durable() {
    let folder = Folder::new();
    let (journal, mut append) = Journal::open(&folder.path, 1).unwrap();
    let mut cursor = journal.cursor(1).unwrap();
    assert_eq!((journal.first_seq(), journal.last(), append.sync().unwrap()), (1, None, None));
    append_one(&mut append, 1);
    assert_eq!(drain(&mut cursor).unwrap(), []);
    // Its beginning becomes durable with the transaction before it, and is not shown either.
    append.begin(transaction(2));
    append.change(&insert(2)).unwrap();
    append.sync().unwrap();
    assert_eq!(drain(&mut cursor).unwrap(), one(1));
    assert_eq!(*journal.durable().borrow(), 1);
    append.commit(&position(2));
    append.sync().unwrap();
    assert_eq!(drain(&mut cursor).unwrap(), one(2));
    assert_eq!(journal.last(), Some((2, position(2))));
    assert_eq!(append.buffered(), 0);
}

#[tokio::test]
async fn a_cursor_waits_for_the_next_transaction() {
    let folder = Folder::new();
    let (journal, mut append) = Journal::open(&folder.path, 1).unwrap();
    let mut cursor = journal.cursor(1).unwrap();
    let reader = tokio::spawn(async move {
        let mut entries = Vec::new();
        while entries.len() < 6 {
            cursor.next(&mut entries, 1).await.unwrap();
        }
        entries
    });
    for seq in [1, 2] {
        tokio::task::yield_now().await;
        append_one(&mut append, seq);
        tokio::task::yield_now().await;
        assert!(!reader.is_finished());
        append.sync().unwrap();
    }
    assert_eq!(reader.await.unwrap(), all([1, 2]));
}

#[test]
fn opening_again_continues_without_a_gap() {
    let folder = Folder::new();
    for epoch in 1..=5 {
        let (journal, mut append) = Journal::open(&folder.path, 2 * epoch).unwrap();
        assert_eq!(journal.last().map(|(seq, position)| (seq, position.text)), {
            (epoch > 1).then(|| (epoch - 1, position(epoch - 1).text))
        });
        append_one(&mut append, epoch);
        append.sync().unwrap();
        // Left without its commit, partly written.
        append.begin(transaction(99));
        append.change(&insert(99)).unwrap();
        append.sync().unwrap();
        assert_eq!(read(&journal, 1).unwrap(), all(1..=epoch));
        // An owner that writes nothing leaves nothing behind.
        drop(Journal::open(&folder.path, 2 * epoch + 1).unwrap());
    }
    let (journal, _append) = Journal::open(&folder.path, 100).unwrap();
    assert_eq!(segment::list(&RealDisk, &folder.path).unwrap().len(), 6);
    for from in 1..=6 {
        assert_eq!(read(&journal, from).unwrap(), all(from..=5));
    }
}

#[test]
fn an_epoch_is_used_once() {
    let folder = Folder::new();
    let (_journal, _append) = Journal::open(&folder.path, 5).unwrap();
    for epoch in [4, 5] {
        let error = Journal::open(&folder.path, epoch).unwrap_err();
        assert!(matches!(error, Error::Fenced { found: 5, .. }), "{error}");
    }
}

#[test]
fn an_old_owner_that_goes_on_does_no_harm() {
    let folder = Folder::new();
    let (old_journal, mut old) = Journal::open(&folder.path, 1).unwrap();
    append_one(&mut old, 1);
    old.sync().unwrap();
    // Written, and perhaps not durable: the new owner takes it over.
    append_one(&mut old, 2);
    old.write_for_test();

    let (journal, mut new) = Journal::open(&folder.path, 2).unwrap();
    assert_eq!(journal.last(), Some((2, position(2))));
    old.begin(transaction(77));
    old.commit(&position(77));
    assert!(matches!(old.sync(), Err(Error::Fenced { epoch: 1, found: 2, .. })));
    assert_eq!(*old_journal.durable().borrow(), 1, "what the old owner wrote last is never acknowledged");
    append_one(&mut new, 3);
    new.sync().unwrap();
    assert_eq!(read(&journal, 1).unwrap(), all(1..=3));

    drop(new);
    let (journal, _append) = Journal::open(&folder.path, 3).unwrap();
    assert_eq!(read(&journal, 1).unwrap(), all(1..=3));
}

#[test]
fn a_tail_torn_at_any_byte_is_cut() {
    let folder = Folder::new();
    let (_journal, mut append) = Journal::open(&folder.path, 1).unwrap();
    append_one(&mut append, 1);
    append.sync().unwrap();
    let whole = std::fs::metadata(folder.segment(1, 0)).unwrap().len();
    append_one(&mut append, 2);
    append.write_for_test();
    let end = std::fs::metadata(folder.segment(1, 0)).unwrap().len();
    for len in whole..=end {
        // Ends there, or has zeros from there on, or anything.
        for rest in [None, Some(0x00), Some(0xa5)] {
            let torn = folder.copy();
            let path = torn.segment(1, 0);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.truncate(len as usize);
            if let Some(byte) = rest {
                bytes.resize(end as usize, byte);
            }
            std::fs::write(&path, bytes).unwrap();
            let last = if len == end { 2 } else { 1 };
            let (journal, mut append) = Journal::open(&torn.path, 2).unwrap();
            assert_eq!(journal.last(), Some((last, position(last))), "{len}");
            append_one(&mut append, last + 1);
            append.sync().unwrap();
            assert_eq!(read(&journal, 1).unwrap(), all(1..=last + 1), "{len}");
        }
    }
}

#[test]
fn a_write_that_lost_a_page_before_its_fsync_is_cut_there() {
    let folder = Folder::new();
    let (_journal, mut append) = Journal::open(&folder.path, 1).unwrap();
    append_one(&mut append, 1);
    append.sync().unwrap();
    let durable = std::fs::metadata(folder.segment(1, 0)).unwrap().len() as usize;
    // Pages reach the disk in any order: the first of the two is lost and the second is whole.
    append_one(&mut append, 2);
    append_one(&mut append, 3);
    append.write_for_test();
    let mut bytes = std::fs::read(folder.segment(1, 0)).unwrap();
    bytes[durable..durable + 60].fill(0);
    std::fs::write(folder.segment(1, 0), bytes).unwrap();
    let (journal, _append) = Journal::open(&folder.path, 2).unwrap();
    assert_eq!(read(&journal, 1).unwrap(), all([1]));
}

#[test]
fn a_segment_that_never_got_its_head_is_nothing() {
    let folder = Folder::new();
    let (_journal, mut append) = Journal::open(&folder.path, 1).unwrap();
    append_one(&mut append, 1);
    append.sync().unwrap();
    let (_journal, _append) = Journal::open(&folder.path, 2).unwrap();
    let head = std::fs::read(folder.segment(2, 0)).unwrap();
    // Without its seal, which follows the fsync.
    for len in 0..head.len() - super::frame::HEADER {
        let torn = folder.copy();
        std::fs::write(torn.segment(2, 0), &head[..len]).unwrap();
        let (journal, _append) = Journal::open(&torn.path, 3).unwrap();
        assert_eq!(read(&journal, 1).unwrap(), all([1]), "{len}");
    }
}

#[test]
fn a_flipped_bit_in_what_was_durable_stops_with_the_place() {
    let folder = Folder::new();
    let (_journal, mut append) = Journal::open(&folder.path, 1).unwrap();
    for seq in 1..=3 {
        append_one(&mut append, seq);
        append.sync().unwrap();
    }
    let bytes = std::fs::read(folder.segment(1, 0)).unwrap();
    // All but the last seal, behind which nothing is known to have been durable.
    for at in 0..bytes.len() - super::frame::HEADER {
        let damaged = folder.copy();
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        std::fs::write(damaged.segment(1, 0), bytes).unwrap();
        match Journal::open(&damaged.path, 2).unwrap_err() {
            Error::Corrupt { path, offset, .. } => {
                assert_eq!(path, damaged.segment(1, 0));
                assert!(offset <= at as u64, "{offset} {at}");
            }
            Error::Format { .. } => assert_eq!(at, 7),
            other => panic!("byte {at}: {other}"),
        }
    }
}

#[test]
fn damage_in_an_older_segment_is_found_when_it_is_read() {
    let folder = Folder::new();
    let (_journal, mut append) = Journal::open_sized(&folder.path, 1, 1).unwrap();
    for seq in 1..=3 {
        append_one(&mut append, seq);
        append.sync().unwrap();
    }
    for cut in [false, true] {
        let damaged = folder.copy();
        let path = damaged.segment(1, 1);
        let mut bytes = std::fs::read(&path).unwrap();
        if cut {
            bytes.truncate(bytes.len() - 60);
        } else {
            let at = bytes.len() - 60;
            bytes[at] ^= 1;
        }
        std::fs::write(&path, bytes).unwrap();
        let (journal, _append) = Journal::open(&damaged.path, 2).unwrap();
        let mut cursor = journal.cursor(1).unwrap();
        let mut entries = Vec::new();
        let error = loop {
            match cursor.try_next(&mut entries, 1) {
                Ok(more) => assert!(more),
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, Error::Corrupt { path: named, .. } if *named == path), "{error}");
        assert_eq!(entries, all([1]));
        assert_eq!(read(&journal, 3).unwrap(), all([3]));
    }
}

#[test]
fn bytes_of_a_journal_as_a_value_are_only_a_value() {
    let folder = Folder::new();
    let (_journal, mut append) = Journal::open(&folder.path, 1).unwrap();
    append_one(&mut append, 1);
    append.sync().unwrap();
    let whole = std::fs::read(folder.segment(1, 0)).unwrap();
    append.begin(transaction(2));
    append.change(&Change::Insert { relation: 1, new: vec![Value::Blob(whole.clone().into())] }).unwrap();
    append.commit(&position(2));
    append.write_for_test();
    let mut bytes = std::fs::read(folder.segment(1, 0)).unwrap();
    bytes[whole.len()] ^= 1;
    std::fs::write(folder.segment(1, 0), bytes).unwrap();
    let (journal, _append) = Journal::open(&folder.path, 2).unwrap();
    assert_eq!(read(&journal, 1).unwrap(), all([1]));
}

#[test]
fn a_giant_transaction_is_bounded_in_memory_on_both_sides() {
    const CHANGES: usize = 100_000;
    let folder = Folder::new();
    let (journal, mut append) = Journal::open_sized(&folder.path, 1, 1 << 20).unwrap();
    append.begin(transaction(1));
    for seq in 0..CHANGES {
        append.change(&insert(seq as u64)).unwrap();
        assert!(append.buffered() < (1 << 20) + (65 << 10));
    }
    append.commit(&position(1));
    append_one(&mut append, 2);
    append.sync().unwrap();

    let mut cursor = journal.cursor(1).unwrap();
    let (mut entries, mut changes) = (Vec::new(), 0);
    while cursor.try_next(&mut entries, 64 << 10).unwrap() {
        assert!(entries.len() < 1000);
        changes += entries.iter().filter(|entry| matches!(entry, Entry::Change(_))).count();
        entries.clear();
    }
    assert_eq!(changes, CHANGES + 1);
    assert_eq!(read(&journal, 2).unwrap(), one(2));
    assert!(journal.bytes_after(0) > journal.bytes_after(1) && journal.bytes_after(2) == 0);
}

#[test]
fn an_abandoned_transaction_leaves_no_trace() {
    let folder = Folder::new();
    let (journal, mut append) = Journal::open(&folder.path, 1).unwrap();
    let mut cursor = journal.cursor(1).unwrap();
    append.abandon();
    append_one(&mut append, 1);
    // Still in the buffer; begun and synced around; written in part.
    for changes in [1, 10, 100_000] {
        append.begin(transaction(55));
        append.sync().unwrap();
        append.relation(&relation(7, 3)).unwrap();
        (0..changes).for_each(|seq| append.change(&insert(seq)).unwrap());
        if changes == 10 {
            append.sync().unwrap();
        }
        append.abandon();
    }
    append_one(&mut append, 2);
    append.sync().unwrap();
    assert_eq!(drain(&mut cursor).unwrap(), all([1, 2]));
    drop(append);
    let (journal, _append) = Journal::open(&folder.path, 2).unwrap();
    assert_eq!(read(&journal, 1).unwrap(), all([1, 2]));
    assert_eq!(read(&journal, 3).unwrap(), []);
}

#[test]
fn relations_in_force_come_before_the_first_transaction() {
    let folder = Folder::new();
    let relations = |entries: Vec<Entry>| -> Vec<(u32, usize)> {
        let first = entries.iter().take_while(|entry| matches!(entry, Entry::Relation(_)));
        first
            .map(|entry| if let Entry::Relation(r) = entry { (r.id, r.columns.len()) } else { (0, 0) })
            .collect()
    };
    let check = |journal: &Journal| {
        let expected: [&[(u32, usize)]; 5] =
            [&[], &[(1, 1), (2, 1)], &[(1, 2), (2, 1)], &[(1, 2), (2, 1)], &[(1, 2), (2, 1), (3, 1)]];
        for (from, expected) in (1..).zip(expected) {
            assert_eq!(relations(read(journal, from).unwrap()), expected, "from {from}");
        }
        // Each once, though every segment repeats them.
        let entries = read(journal, 1).unwrap();
        assert_eq!(entries.iter().filter(|entry| matches!(entry, Entry::Relation(_))).count(), 4);
        assert!(matches!(entries[..3], [Entry::Begin(_), Entry::Relation(_), Entry::Relation(_)]));
    };
    for segment_bytes in [1, 1 << 20] {
        let folder = Folder { path: folder.path.join(segment_bytes.to_string()) };
        let (journal, mut append) = Journal::open_sized(&folder.path, 1, segment_bytes).unwrap();
        // Announced outside of a transaction, and again without a difference.
        append.relation(&relation(1, 1)).unwrap();
        append.relation(&relation(2, 1)).unwrap();
        append.relation(&relation(1, 1)).unwrap();
        for seq in 1..=5 {
            append.begin(transaction(seq));
            match seq {
                2 => append.relation(&relation(1, 2)).unwrap(),
                4 => append.relation(&relation(3, 1)).unwrap(),
                _ => append.relation(&relation(2, 1)).unwrap(),
            }
            append.change(&insert(seq)).unwrap();
            append.commit(&position(seq));
        }
        append.sync().unwrap();
        check(&journal);
        drop(append);
        let (journal, mut append) = Journal::open(&folder.path, 2).unwrap();
        append_one(&mut append, 6);
        append.sync().unwrap();
        check(&journal);
        assert_eq!(relations(read(&journal, 6).unwrap()), [(1, 2), (2, 1), (3, 1)]);
    }
}

#[test]
fn trimming_frees_whole_segments_and_keeps_the_end() {
    let folder = Folder::new();
    let (journal, mut append) = Journal::open_sized(&folder.path, 1, 1).unwrap();
    for seq in 1..=5 {
        append_one(&mut append, seq);
        append.sync().unwrap();
    }
    assert_eq!(segment::list(&RealDisk, &folder.path).unwrap().len(), 5);
    let mut behind = journal.cursor(1).unwrap();
    let all_bytes = journal.bytes_after(0);
    journal.trim(2).unwrap();
    assert_eq!(journal.first_seq(), 3);
    assert_eq!(read(&journal, 3).unwrap(), all(3..=5));
    assert!(matches!(journal.cursor(2), Err(Error::Trimmed { from_seq: 2, first_seq: 3, .. })));
    assert!(matches!(journal.cursor(7), Err(Error::Lost { from_seq: 7, next_seq: 6, .. })));
    // It had its segment open, and then misses the next one.
    assert!(matches!(drain(&mut behind), Err(Error::Trimmed { from_seq: 2, first_seq: 3, .. })));
    assert!(journal.bytes_after(0) < all_bytes);

    journal.trim(u64::MAX).unwrap();
    assert_eq!((journal.first_seq(), segment::list(&RealDisk, &folder.path).unwrap().len()), (5, 1));
    drop(append);
    for epoch in 2..=3 {
        let (journal, _append) = Journal::open(&folder.path, epoch).unwrap();
        journal.trim(5).unwrap();
        assert_eq!((journal.first_seq(), journal.last()), (6, Some((5, position(5)))));
        assert_eq!(read(&journal, 6).unwrap(), []);
        assert_eq!(journal.bytes_after(5), 0);
    }
}

#[test]
fn lag_in_bytes_shrinks_with_every_transaction() {
    let folder = Folder::new();
    let (journal, mut append) = Journal::open_sized(&folder.path, 1, 256 << 10).unwrap();
    for seq in 1..=20_000 {
        append_one(&mut append, seq);
    }
    append.sync().unwrap();
    for journal in [journal, Journal::open(&folder.path, 2).unwrap().0] {
        let bytes: Vec<u64> = (0..=20_000).map(|seq| journal.bytes_after(seq)).collect();
        assert!(bytes.is_sorted_by(|a, b| a >= b));
        assert_eq!(bytes[20_000], 0);
        let (middle, half) = (bytes[10_000] as f64, bytes[0] as f64 / 2.0);
        assert!((middle / half - 1.0).abs() < 0.1, "{middle} {half}");
    }
}

/// An owner that was taken over begins one more segment before it learns so. Once its successor's segments of the same
/// transactions are trimmed, that one would be the oldest by name.
#[test]
fn what_an_owner_began_after_it_was_taken_over_is_no_part_of_the_journal() {
    let folder = Folder::new();
    let (_, mut old) = Journal::open_sized(&folder.path, 1, 1).unwrap();
    append_one(&mut old, 1);
    old.sync().unwrap();
    let (successor, mut new) = Journal::open_sized(&folder.path, 2, 1).unwrap();
    append_one(&mut old, 2);
    assert!(matches!(old.sync(), Err(Error::Fenced { .. })));
    assert!(folder.segment(1, 1).exists(), "the old owner has begun a segment");
    for number in 2..5 {
        append_one(&mut new, number);
        new.sync().unwrap();
    }
    successor.trim(3).unwrap();
    let (journal, _append) = Journal::open(&folder.path, 3).unwrap();
    assert_eq!(journal.first_seq(), 4);
    assert!(matches!(journal.cursor(2), Err(Error::Trimmed { .. })));
    assert!(!folder.segment(1, 1).exists(), "nobody needs it");
}

#[test]
fn a_head_whose_block_was_never_written_is_a_torn_one() {
    let folder = Folder::new();
    let (_journal, mut append) = Journal::open(&folder.path, 1).unwrap();
    append_one(&mut append, 1);
    append.sync().unwrap();
    let head = std::fs::read(folder.segment(1, 0)).unwrap();
    for written in 0..8 {
        let torn = folder.copy();
        let mut bytes = head.clone();
        bytes[written..].fill(0);
        std::fs::write(torn.segment(2, 0), bytes).unwrap();
        let (journal, _append) = Journal::open(&torn.path, 3).unwrap();
        assert_eq!(journal.last().map(|(seq, _)| seq), Some(1), "{written} bytes of it were written");
    }
}
