//! What the source's transactions do. Every history takes two or three of these, in every interleaving.

use crate::row::Write;

#[derive(Clone, Copy, Debug)]
pub enum Op {
    Insert { id: u8, unique: u8 },
    Update(u8),
    UpdateLarge(u8),
    Move { from: u8, to: u8 },
    SetUnique { id: u8, unique: u8 },
    Delete(u8),
    Truncate,
}

pub struct Script {
    pub name: &'static str,
    pub ops: &'static [Op],
    pub prepared: bool,
}

const fn script(name: &'static str, ops: &'static [Op]) -> Script {
    Script { name, ops, prepared: false }
}

/// Rows 1 and 2 are there at the beginning, 3 is not; each has its key's number as its unique value.
pub const SCRIPTS: &[Script] = &[
    script("update 1", &[Op::Update(1)]),
    script("update 1 with its large value", &[Op::UpdateLarge(1)]),
    script("insert 3", &[Op::Insert { id: 3, unique: 3 }]),
    script("delete 1", &[Op::Delete(1)]),
    script("move 1 to 3", &[Op::Move { from: 1, to: 3 }]),
    script("move 2 to 1", &[Op::Move { from: 2, to: 1 }]),
    script("truncate", &[Op::Truncate]),
    Script { name: "update 2, prepared", ops: &[Op::Update(2)], prepared: true },
    script("delete 1, insert it again", &[Op::Delete(1), Op::Insert { id: 1, unique: 1 }]),
    script("delete 1, insert 3 with its unique value", &[Op::Delete(1), Op::Insert { id: 3, unique: 1 }]),
    script("move 1 to 3, update 3", &[Op::Move { from: 1, to: 3 }, Op::Update(3)]),
    script("move 1 to 3, delete 3", &[Op::Move { from: 1, to: 3 }, Op::Delete(3)]),
    script("move 3 to 1", &[Op::Move { from: 3, to: 1 }]),
    script("insert 3, update it", &[Op::Insert { id: 3, unique: 0 }, Op::Update(3)]),
    script(
        "swap the unique values of 1 and 2",
        &[
            Op::SetUnique { id: 1, unique: 0 },
            Op::SetUnique { id: 2, unique: 1 },
            Op::SetUnique { id: 1, unique: 2 },
        ],
    ),
    script("truncate, insert 1", &[Op::Truncate, Op::Insert { id: 1, unique: 1 }]),
    script("update 3, truncate", &[Op::Update(3), Op::Truncate]),
    script("update 1, update 2", &[Op::Update(1), Op::Update(2)]),
    script("move 1 to 3, insert 1", &[Op::Move { from: 1, to: 3 }, Op::Insert { id: 1, unique: 0 }]),
    script("insert 3 with 1's unique value", &[Op::Insert { id: 3, unique: 1 }]),
];

impl Op {
    /// Whether an operation that does nothing now would do something once this write of another has ended.
    pub fn waits_for(self, write: &Write) -> bool {
        let touches = |id: u8| match *write {
            Write::Insert(row) | Write::Delete(row) => row.id == id,
            Write::Update { old, row } => old.id == id || row.id == id,
            Write::Truncate => true,
        };
        let holds = |unique: u8| {
            unique != 0
                && match *write {
                    Write::Insert(row) | Write::Delete(row) => row.unique == unique,
                    Write::Update { old, row } => old.unique == unique || row.unique == unique,
                    Write::Truncate => true,
                }
        };
        match self {
            Op::Insert { id, unique } | Op::SetUnique { id, unique } => touches(id) || holds(unique),
            Op::Update(id) | Op::UpdateLarge(id) | Op::Delete(id) => touches(id),
            Op::Move { from, to } => touches(from) || touches(to),
            Op::Truncate => true,
        }
    }
}
