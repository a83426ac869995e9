//! Number generators of the target: AUTO_INCREMENT counters, and MariaDB's sequences.
//!
//! The source's generator belongs to a table where it has the table's name (MariaDB and SQLite name it so) or the name that
//! PostgreSQL gives to that of a column, `TABLE_COLUMN_seq`. One that has no counter and no sequence here is not needed here:
//! what InnoDB gives out next is beyond all that was inserted in any case.

use std::collections::HashMap;

use connector::{Owner, Result};
use model::{Sequence, TableName};

use crate::cells::Cells;
use crate::question::{ask, text};
use crate::records;
use crate::sql;
use crate::target::Case;
use crate::url::Settings;
use crate::wire::Client;
use crate::writer::commit;

/// Moves them to at least these values. Each statement commits by itself; moving one ahead does no harm, be it for an owner who has
/// been succeeded meanwhile.
pub(crate) async fn advance(
    client: &mut Client,
    settings: &Settings,
    owner: &Owner,
    sequences: &[Sequence],
) -> Result<()> {
    client.doing("move a sequence ahead").execute("START TRANSACTION").await?;
    records::fence(client, owner).await?;
    commit(client).await?;
    let case = Case::of(client).await?;
    let by_name: HashMap<String, &Sequence> =
        sequences.iter().map(|sequence| (case.fold(&sequence.name.name), sequence)).collect();
    for counter in counters(client, &settings.database).await? {
        let next = counter.names().iter().filter_map(|name| Some(next(by_name.get(&case.fold(name))?))).max();
        // Said to be lower, InnoDB would take it back, down to its highest row.
        if let Some(next) = next.filter(|next| *next > counter.next) {
            let table = sql::table(&TableName::new(&settings.database, &counter.table));
            client.execute(&format!("ALTER TABLE {table} AUTO_INCREMENT = {next}")).await?;
        }
    }
    for name in sequences_here(client, &settings.database).await? {
        if let Some(sequence) = by_name.get(&case.fold(&name)) {
            let name = sql::table(&TableName::new(&settings.database, name));
            let (value, called) = (sequence.last_value, u8::from(sequence.is_called));
            // It never goes back, whichever way it counts.
            client.execute(&format!("SELECT SETVAL({name}, {value}, {called})")).await?;
        }
    }
    commit(client).await
}

/// The number that a generator gives out next.
fn next(sequence: &Sequence) -> u64 {
    let next = i128::from(sequence.last_value) + i128::from(sequence.is_called);
    u64::try_from(next).unwrap_or(0)
}

struct Counter {
    table: String,
    column: String,
    next: u64,
}

impl Counter {
    /// Of the generators that are for it.
    fn names(&self) -> [String; 2] {
        [self.table.clone(), format!("{}_{}_seq", self.table, self.column)]
    }
}

async fn counters(client: &mut Client, database: &str) -> Result<Vec<Counter>> {
    let rows = ask(
        client,
        "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = ? AND EXTRA LIKE '%auto_increment%'",
        &[text(database)],
    )
    .await?;
    let columns: HashMap<String, String> = rows
        .iter()
        .map(|row: &Cells| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned())))
        .collect::<Result<_>>()?;
    let rows = ask(
        client,
        "SELECT TABLE_NAME, CAST(AUTO_INCREMENT AS CHAR) FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = ? AND AUTO_INCREMENT IS NOT NULL",
        &[text(database)],
    )
    .await?;
    let mut counters = Vec::new();
    for row in rows {
        let table = row.text(0)?.to_owned();
        if let Some(column) = columns.get(&table).cloned() {
            counters.push(Counter { table, column, next: row.parse(1)? });
        }
    }
    Ok(counters)
}

async fn sequences_here(client: &mut Client, database: &str) -> Result<Vec<String>> {
    let rows = ask(
        client,
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_TYPE = 'SEQUENCE'",
        &[text(database)],
    )
    .await?;
    rows.iter().map(|row| row.text(0).map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_number_counts() {
        let sequence =
            |last_value, is_called| Sequence { name: TableName::new("a", "s"), last_value, is_called };
        for (last_value, is_called, expected) in
            [(41, true, 42), (42, false, 42), (-7, true, 0), (i64::MAX, true, 1 << 63)]
        {
            assert_eq!(next(&sequence(last_value, is_called)), expected, "{last_value} {is_called}");
        }
    }

    #[test]
    fn a_counter_goes_by_two_names() {
        let counter = Counter { table: "orders".to_owned(), column: "id".to_owned(), next: 1 };
        assert_eq!(counter.names(), ["orders", "orders_id_seq"]);
    }
}
