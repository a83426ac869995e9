//! The triggers that write the change log.
//!
//! After an insert, an update or a delete the row is logged: nothing more would be needed if SQLite told of every row
//! that goes. But conflict resolution by REPLACE removes the rows that collide with a new one without firing delete
//! triggers (unless `recursive_triggers` is on). So before an insert or update the colliding rows are noted in a
//! tentative table, and after it those that are gone are logged as deleted, ahead of the new row. A note that came to
//! nothing (INSERT OR IGNORE, an upsert, an error) does no harm: what decides is whether the row still is there.
//!
//! A note is found again by its tag, the unique values that collided, which are the same in the BEFORE and in the AFTER
//! trigger. So the notes of one statement are told from leftovers of another, and of one that runs inside it:
//! - before: forget the notes under this tag, then note the rows that collide;
//! - after: of the notes under this tag, log those whose row is gone or is the new row; then forget them;
//! - a row that is logged as deleted takes all notes about it along, whatever their tags (so with `recursive_triggers`,
//!   where a delete trigger has logged it already, it is not logged twice);
//! - a logged update of a row carries the notes about it along.
//!
//! The bodies use no conflict clause of their own: SQLite would override it by the outer statement's.

use crate::layout::Layout;
use crate::log::{LOG, TENTATIVE, cells};
use crate::sql::{self, literal, quote};

/// (name, CREATE TRIGGER statement) of one table, as SQLite will store it.
pub(crate) fn of(layout: &Layout) -> Vec<(String, String)> {
    let table = quote(&layout.table);
    [
        ("before_insert", format!("BEFORE INSERT ON {table} BEGIN {} END", before_insert(layout))),
        ("after_insert", format!("AFTER INSERT ON {table} BEGIN {} END", after_insert(layout))),
        (
            "before_update",
            format!(
                "BEFORE UPDATE ON {table} WHEN {} BEGIN {} END",
                layout.may_collide(),
                before_update(layout)
            ),
        ),
        ("after_update", format!("AFTER UPDATE ON {table} BEGIN {} END", after_update(layout))),
        ("after_delete", format!("AFTER DELETE ON {table} BEGIN {} END", after_delete(layout))),
    ]
    .into_iter()
    .map(|(moment, rest)| {
        let name = format!("{PREFIX}{moment}_{}", layout.table);
        let create = format!("CREATE TRIGGER {} {rest}", quote(&name));
        (name, create)
    })
    .collect()
}

/// What our triggers' names begin with.
pub(crate) const PREFIX: &str = "_crossfade_";

fn before_insert(layout: &Layout) -> String {
    format!("{} {}", forget_tags(layout, "1"), note(layout, "1"))
}

fn before_update(layout: &Layout) -> String {
    let another = format!("{} IS NOT {}", layout.id("x"), layout.id("OLD"));
    format!("{} {}", forget_tags(layout, &not_old(layout, "id")), note(layout, &another))
}

fn after_insert(layout: &Layout) -> String {
    let entry = log_entry(layout, 'I', layout.stored.iter().map(|column| cell("NEW", column)));
    format!("{} {} {entry}", log_gone(layout, "1"), forget_tags(layout, "1"))
}

fn after_update(layout: &Layout) -> String {
    let moved = sql::list(layout.old_columns().enumerate(), |(at, column)| {
        format!("c{at} = {}", cell("NEW", column))
    });
    let carry = format!(
        "UPDATE {TENTATIVE} SET id = {}, {moved} WHERE tbl = {} AND id = {};",
        layout.id("NEW"),
        literal(&layout.table),
        layout.id("OLD")
    );
    let old = layout.old_columns().map(|column| cell("OLD", column));
    let new = layout.stored.iter().map(|column| cell("NEW", column));
    let entry = log_entry(layout, 'U', old.chain(new));
    // A note about the updated row itself is another statement's: one that we run inside of.
    let gone = log_gone(layout, &not_old(layout, "y.id"));
    format!("{gone} {} {carry} {entry}", forget_tags(layout, &not_old(layout, "id")))
}

fn after_delete(layout: &Layout) -> String {
    let forget = format!(
        "DELETE FROM {TENTATIVE} WHERE tbl = {} AND id = {};",
        literal(&layout.table),
        layout.id("OLD")
    );
    let entry = log_entry(layout, 'D', layout.old_columns().map(|column| cell("OLD", column)));
    format!("{forget} {entry}")
}

fn cell(row: &str, column: &str) -> String {
    format!("{row}.{}", quote(column))
}

fn log_entry(layout: &Layout, operation: char, values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values.collect();
    format!(
        "INSERT INTO {LOG} (tbl, op, {}) VALUES ({}, '{operation}', {});",
        cells(values.len()),
        literal(&layout.table),
        values.join(", ")
    )
}

fn tags(layout: &Layout) -> String {
    sql::list(layout.collisions(), |(tag, _)| tag)
}

fn not_old(layout: &Layout, id: &str) -> String {
    format!("{id} IS NOT {}", layout.id("OLD"))
}

fn forget_tags(layout: &Layout, condition: &str) -> String {
    let table = literal(&layout.table);
    format!("DELETE FROM {TENTATIVE} WHERE tbl = {table} AND tag IN ({}) AND {condition};", tags(layout))
}

fn note(layout: &Layout, condition: &str) -> String {
    let table = literal(&layout.table);
    let notes = layout.collisions().into_iter().map(|(tag, collides)| {
        format!(
            "INSERT INTO {TENTATIVE} (tbl, tag, id, {}) SELECT {table}, {tag}, {}, {} FROM {} AS x \
             WHERE {collides} AND {condition};",
            cells(layout.old.len()),
            layout.id("x"),
            sql::list(layout.old_columns(), |column| cell("x", column)),
            quote(&layout.table),
        )
    });
    notes.collect::<Vec<_>>().join(" ")
}

/// Logs the noted rows that are gone, and forgets every note about them: notes are about rows that are there.
fn log_gone(layout: &Layout, condition: &str) -> String {
    let cells = cells(layout.old.len());
    let gone = format!(
        "FROM {TENTATIVE} AS y WHERE y.tbl = {} AND y.tag IN ({}) AND {condition} \
         AND (y.id = {} OR NOT EXISTS (SELECT 1 FROM {} AS x WHERE {}))",
        literal(&layout.table),
        tags(layout),
        layout.id("NEW"),
        quote(&layout.table),
        layout.is_row("x", "y"),
    );
    // One row can collide by two rules: it goes once.
    format!(
        "INSERT INTO {LOG} (tbl, op, {cells}) SELECT y.tbl, 'D', {cells} {gone} GROUP BY y.id; \
         DELETE FROM {TENTATIVE} WHERE tbl = {} AND id IN (SELECT y.id {gone});",
        literal(&layout.table),
    )
}
