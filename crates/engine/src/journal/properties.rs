//! The journal under random transactions, random syncs, and damage at any byte.
//!
//! What was appended is the model: a list of transactions. Whatever happens to the file, a reader shows a prefix of that
//! list, with everything durable in it, or says that the journal is damaged. It never shows anything else.

use bytes::Bytes;
use model::{Change, Position, Relation, RelationColumn, Row, TableName, Transaction, Value};
use proptest::collection::vec;
use proptest::prelude::*;

use super::segment::{self, Id};
use super::tests::Folder;
use super::{Append, Entry, Error, Journal};
use crate::machine::RealDisk;

/// Small, so that a few transactions fill several.
const SEGMENT_BYTES: u64 = 2_000;

fn open(folder: &Folder, epoch: u64) -> Result<(Journal, Append), Error> {
    Journal::open_sized(&folder.path, epoch, SEGMENT_BYTES)
}

#[derive(Clone, Debug)]
enum Do {
    /// One transaction; `false` forgets it at its end.
    Transaction(Transaction, Vec<Said>, Position, bool),
    Sync,
    /// The process ends and another one takes over.
    Reopen,
}

/// What is said within a transaction.
#[derive(Clone, Debug)]
enum Said {
    Relation(Relation),
    Change(Change),
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,6}", any::<String>()]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..20).prop_map(Bytes::from),
        1 => (any::<u8>(), 0..70_000_usize).prop_map(|(byte, len)| Bytes::from(vec![byte; len])),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(Value::Unchanged),
        bytes().prop_map(Value::Text),
        any::<i64>().prop_map(Value::Integer),
        any::<u64>().prop_map(|bits| Value::Real(f64::from_bits(bits))),
        bytes().prop_map(Value::Blob),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    vec(value(), 0..4)
}

fn relation() -> impl Strategy<Value = Relation> {
    let column = (text(), any::<u32>(), any::<i32>(), any::<bool>())
        .prop_map(|(name, type_id, type_modifier, key)| RelationColumn { type_modifier, name, type_id, key });
    // Few ids, so that one is described anew.
    (0..3_u32, text(), text(), vec(column, 0..4), any::<bool>()).prop_map(
        |(id, schema, name, columns, whole_old_row)| Relation {
            id,
            table: TableName::new(schema, name),
            columns,
            whole_old_row,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    let relation = any::<u32>;
    prop_oneof![
        (relation(), row()).prop_map(|(relation, new)| Change::Insert { relation, new }),
        (relation(), proptest::option::of(row()), row()).prop_map(|(relation, old, new)| Change::Update {
            relation,
            old,
            new
        }),
        (relation(), row()).prop_map(|(relation, old)| Change::Delete { relation, old }),
        (vec(relation(), 0..4), any::<bool>())
            .prop_map(|(relations, restart_identity)| Change::Truncate { relations, restart_identity }),
    ]
}

fn position() -> impl Strategy<Value = Position> {
    (any::<u64>(), text()).prop_map(|(order, text)| Position { order, text })
}

fn act() -> impl Strategy<Value = Do> {
    let transaction = (any::<u64>(), any::<u64>(), any::<i64>())
        .prop_map(|(id, order, committed_us)| Transaction { seq: 0, id, order, committed_us });
    let said = vec(
        prop_oneof![3 => change().prop_map(Said::Change), 1 => relation().prop_map(Said::Relation)],
        0..5,
    );
    let whole = (transaction, said, position(), 0..6_u8).prop_map(|(transaction, said, position, luck)| {
        Do::Transaction(transaction, said, position, luck > 0)
    });
    prop_oneof![8 => whole, 3 => Just(Do::Sync), 1 => Just(Do::Reopen)]
}

/// What was appended: for each committed transaction its header, its changes and its end.
#[derive(Debug, Default)]
struct Written {
    transactions: Vec<(Transaction, Vec<Change>, Position)>,
    /// How many of them a sync has covered, and the newest segment's length then.
    durable: usize,
    synced: Option<(Id, u64)>,
}

/// Carries it all out on a fresh journal. The file of the last owner is left as a killed process leaves it.
fn carry_out(folder: &Folder, acts: &[Do]) -> (Written, u64) {
    let (mut written, mut epoch) = (Written::default(), 1);
    let (_, mut append) = open(folder, epoch).unwrap();
    for act in acts {
        match act {
            Do::Transaction(transaction, said, position, commits) => {
                let seq = append.begin(*transaction);
                assert_eq!(seq, written.transactions.len() as u64 + 1);
                let mut changes = Vec::new();
                for said in said {
                    match said {
                        Said::Relation(relation) => append.relation(relation).unwrap(),
                        Said::Change(change) => {
                            append.change(change).unwrap();
                            changes.push(change.clone());
                        }
                    }
                }
                if *commits {
                    append.commit(position);
                    written.transactions.push((
                        Transaction { seq, ..*transaction },
                        changes,
                        position.clone(),
                    ));
                } else {
                    append.abandon();
                }
            }
            Do::Sync => {
                append.sync().unwrap();
                written.durable = written.transactions.len();
                written.synced = Some(newest(folder));
            }
            Do::Reopen => {
                epoch += 1;
                drop(append);
                let (journal, next) = open(folder, epoch).unwrap();
                append = next;
                // What was written without a sync may or may not be there.
                let last = journal.last().map_or(0, |(seq, _)| seq as usize);
                assert!((written.durable..=written.transactions.len()).contains(&last));
                written.transactions.truncate(last);
                written.durable = last;
            }
        }
    }
    (written, epoch)
}

/// Everything in the journal, without the relations, as it was written.
fn read(journal: &Journal) -> Result<Vec<(Transaction, Vec<Change>, Position)>, Error> {
    let (mut cursor, mut entries) = (journal.cursor(1)?, Vec::new());
    while cursor.try_next(&mut entries, 1 << 20)? {}
    let mut transactions: Vec<(Transaction, Vec<Change>, Option<Position>)> = Vec::new();
    for entry in entries {
        match (entry, transactions.last_mut()) {
            (Entry::Begin(transaction), _) => transactions.push((transaction, Vec::new(), None)),
            (Entry::Change(change), Some((_, changes, None))) => changes.push(change),
            (Entry::Commit { seq, position }, Some((transaction, _, end @ None)))
                if seq == transaction.seq =>
            {
                *end = Some(position);
            }
            (Entry::Relation(_), _) => {}
            (entry, _) => panic!("{entry:?} outside of its transaction"),
        }
    }
    let whole = |(transaction, changes, end): (_, _, Option<Position>)| {
        (transaction, changes, end.expect("only whole transactions are shown"))
    };
    Ok(transactions.into_iter().map(whole).collect())
}

/// The newest segment of the last owner, and its length.
fn newest(folder: &Folder) -> (Id, u64) {
    let id = *segment::list(&RealDisk, &folder.path).unwrap().last().unwrap();
    (id, std::fs::metadata(id.path(&folder.path)).unwrap().len())
}

/// What a new owner finds is what was written, up to some point behind the last sync, if it is not damage.
fn check(journal: &Journal, written: &Written, durable: usize) -> Result<(), TestCaseError> {
    let found = read(journal).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert!(found.len() >= durable, "{} of {} durable transactions", found.len(), durable);
    prop_assert!(found.len() <= written.transactions.len());
    for (found, written) in found.iter().zip(&written.transactions) {
        prop_assert_eq!(found, written);
        // Positions are equal by their order alone.
        prop_assert_eq!(&found.2.text, &written.2.text);
    }
    let last = found.last().map(|(transaction, _, position)| (transaction.seq, position.clone()));
    prop_assert_eq!(journal.last(), last);
    Ok(())
}

proptest! {
    #[test]
    fn what_comes_back_is_what_went_in(acts in vec(act(), 0..25)) {
        let folder = Folder::new();
        let (mut written, epoch) = carry_out(&folder, &acts);
        let (journal, _append) = open(&folder, epoch + 1).unwrap();
        check(&journal, &written, written.durable)?;
        // And once more, from what the new owner has kept.
        let found = read(&journal).unwrap().len();
        written.transactions.truncate(found);
        let (journal, _append) = open(&folder, epoch + 2).unwrap();
        check(&journal, &written, found)?;
    }

    /// A crash of the machine may cut the newest segment anywhere behind the last sync.
    #[test]
    fn cut_anywhere_behind_the_last_sync_nothing_durable_is_lost(
        acts in vec(act(), 0..20), at in any::<prop::sample::Index>(),
    ) {
        let folder = Folder::new();
        let (written, epoch) = carry_out(&folder, &acts);
        let (id, len) = newest(&folder);
        let (kept, durable) = match written.synced {
            Some((synced, kept)) if synced == id => (kept, written.durable),
            // Before a segment is begun everything in the one before it is made durable.
            _ => {
                let (head, _) = segment::read_head(&RealDisk, &folder.path, id).unwrap().unwrap();
                (0, head.first_seq as usize - 1)
            }
        };
        let cut = kept + at.index((len - kept) as usize + 1) as u64;
        std::fs::File::options().write(true).open(id.path(&folder.path)).unwrap().set_len(cut).unwrap();
        match open(&folder, epoch + 1) {
            Ok((journal, _append)) => check(&journal, &written, durable)?,
            Err(error) => return Err(TestCaseError::fail(format!("{error} after a cut at {cut} of {len}"))),
        }
    }

    /// One byte of a segment changes: what was durable is all there or the journal says that it is damaged.
    #[test]
    fn a_byte_that_flips_is_noticed(
        acts in vec(act(), 1..15), at in any::<prop::sample::Index>(), flip in 1..=255_u8,
    ) {
        let folder = Folder::new();
        let (written, epoch) = carry_out(&folder, &acts);
        let segments = segment::list(&RealDisk, &folder.path).unwrap();
        let path = segments[at.index(segments.len())].path(&folder.path);
        let mut bytes = std::fs::read(&path).unwrap();
        let place = at.index(bytes.len());
        bytes[place] ^= flip;
        std::fs::write(&path, bytes).unwrap();
        match open(&folder, epoch + 1).and_then(|(journal, _append)| Ok((read(&journal)?, journal))) {
            Ok((_, journal)) => check(&journal, &written, written.durable)?,
            Err(Error::Corrupt { .. } | Error::Format { .. }) => {}
            Err(error) => return Err(TestCaseError::fail(format!("{error:?}"))),
        }
    }
}
