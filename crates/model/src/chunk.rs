//! A bounded slice of one table: the unit of copy, retry and resume.

use serde::{Deserialize, Serialize};

use crate::{Cut, Key, Position, TableName};

/// Which rows of a table a chunk holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// Heap blocks `[from, until)`, or stretches of a key whose borders only the wave knows; no `until` means to the end.
    /// Valid inside one snapshot only: a row that is updated may move to another block, so all block ranges of a table
    /// carry the same cut.
    Blocks { from: u32, until: Option<u32> },
    /// Keys in `(after, upto]`; `None` is open. Valid across snapshots, for keys the client orders as the server does.
    Keys { after: Option<Key>, upto: Option<Key> },
    /// The whole table in one read.
    Whole,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    pub table: TableName,
    /// 0, 1, 2 … within the table.
    pub number: u32,
    pub range: Range,
    /// True for the chunk that closes its table: with it and all lower numbers loaded, the table is copied.
    pub last: bool,
}

/// What is recorded with a chunk in the target transaction that writes its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    pub chunk: Chunk,
    pub cut: Cut,
    /// Every transaction that the cut contains lies at or before this position in the log.
    pub settled: Position,
    pub rows: u64,
    pub bytes: u64,
    /// xxh3 (64 bits) over the chunk's rows as they were transferred.
    pub checksum: u64,
}
