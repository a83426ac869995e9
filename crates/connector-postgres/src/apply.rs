//! Applies steps to the target over one pipelined session.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use bytes::Bytes;
use connector::{
    Applier, ApplyError, Error, ErrorKind, Net, Owner, Progress, Quarantined, Record, Refusal, Result, Retry,
    RowChange, RowCut, RowUpdate, Step, failpoint,
};
use model::{Catalog, Key, Row, Table, TableName, Value};

use crate::catalog::Cells;
use crate::pipeline::Binder;
use crate::records::{self, text};
use crate::statement::Target;
use crate::wire::Client;
use crate::{create, encode, fit, sql, wave};

pub(crate) struct PostgresApplier {
    client: Client,
    owner: Owner,
    catalog: Catalog,
    /// By catalog index.
    targets: Vec<Target>,
    names: Vec<TableName>,
    /// Tables in which rows of different keys can collide.
    colliding: HashSet<TableName>,
    record: Record,
    open: bool,
}

/// A queued statement: its table, its text, and how many rows it must hit.
type Expected = (usize, String, u64);

type ApplyResult<T> = std::result::Result<T, ApplyError>;

/// Row changes are sent in flights of this many, so that results are read while memory stays bounded.
const FLIGHT: usize = 2_000;

/// From this many inserts in a row on, one statement takes them all.
const BULK_INSERT: usize = 16;

impl PostgresApplier {
    pub(crate) async fn open(mut client: Client, owner: Owner, catalog: &Catalog) -> Result<PostgresApplier> {
        client.doing("apply changes");
        let record = records::record(&mut client, &owner).await?;
        let (names, targets) = create::targets(&mut client, catalog).await?;
        let colliding = colliding(&mut client, catalog, &names).await?;
        Ok(PostgresApplier {
            client,
            owner,
            catalog: catalog.clone(),
            targets,
            names,
            colliding,
            record,
            open: false,
        })
    }

    async fn begin(&mut self) -> Result<()> {
        if !self.open {
            self.client.execute("BEGIN").await?;
            self.open = true;
        }
        Ok(())
    }

    fn refusal(&self, table: usize, change: Option<usize>, statement: &str, error: Error) -> ApplyError {
        let is_refusal = matches!(error.kind, ErrorKind::Refused | ErrorKind::Conflict)
            // raise_exception: a trigger or rule of the target said no.
            || crate::error::sqlstate(&error).is_some_and(|state| state.starts_with("P0"));
        if is_refusal {
            ApplyError::Refused(Refusal { table, change, statement: statement.to_owned(), error })
        } else {
            ApplyError::Failed(error)
        }
    }

    fn missed(&self, table: usize, expected: u64, found: u64) -> Error {
        Error::new(ErrorKind::Conflict, "find exactly the rows that were changed")
            .with("table", &self.catalog.tables[table].name)
            .with("expected", expected)
            .with("found", found)
            .hint("somebody else writes to this table on the target, or a rule or trigger there changes rows")
    }

    /// Refuses values of another engine that would come out as others here.
    fn fits(&self, step: &Step) -> std::result::Result<(), Box<ApplyError>> {
        let check = |table: usize, change: Option<usize>, row: &Row| {
            let planned = &self.catalog.tables[table];
            match fit::is_foreign(planned) {
                false => Ok(()),
                true => {
                    fit::row(planned, row).map_err(|error| Box::new(self.refusal(table, change, "", error)))
                }
            }
        };
        match step {
            Step::Net(net) => {
                let mut rows = net.updates.iter().map(|update| &update.row).chain(&net.inserts);
                rows.try_for_each(|row| check(net.table, None, row))
            }
            Step::Ordered(changes) => changes.iter().enumerate().try_for_each(|(at, change)| match change {
                RowChange::Insert { table, row }
                | RowChange::Update { table, row, .. }
                | RowChange::UpdateWhole { table, row, .. } => check(*table, Some(at), row),
                RowChange::Delete { .. } | RowChange::DeleteWhole { .. } => Ok(()),
            }),
            Step::Truncate { .. } | Step::DeleteRange { .. } => Ok(()),
        }
    }

    async fn ordered(&mut self, changes: &[RowChange]) -> ApplyResult<()> {
        let mut from = 0;
        while from < changes.len() {
            let run = insert_run(&changes[from..]);
            if run >= BULK_INSERT {
                let table = changes[from].table();
                let rows = changes[from..from + run].iter().filter_map(|change| match change {
                    RowChange::Insert { row, .. } => Some(row),
                    _ => None,
                });
                self.queue_inserts(table, rows)?;
                self.flush(&[(table, self.targets[table].insert_many(), run as u64)]).await?;
                from += run;
                continue;
            }
            let mut upto = from + 1;
            while upto < changes.len() && upto - from < FLIGHT && insert_run(&changes[upto..]) < BULK_INSERT {
                upto += 1;
            }
            self.flight(changes, from, upto).await?;
            from = upto;
        }
        Ok(())
    }

    /// Sends single changes back to back and then reads what became of each.
    async fn flight(&mut self, changes: &[RowChange], from: usize, upto: usize) -> ApplyResult<()> {
        let mut sent: Vec<(usize, String)> = Vec::with_capacity(upto - from);
        for (at, change) in changes[from..upto].iter().enumerate() {
            if let Some(statement) = self.queue_change(change)? {
                sent.push((from + at, statement));
            }
        }
        match self.client.flush_queued().await {
            Ok(counts) => {
                for (count, (at, statement)) in counts.into_iter().zip(&sent) {
                    if count != 1 {
                        let table = changes[*at].table();
                        return Err(self.refusal(table, Some(*at), statement, self.missed(table, 1, count)));
                    }
                }
                Ok(())
            }
            Err(failed) => Err(match failed.index.and_then(|index| sent.get(index)) {
                Some((at, statement)) => {
                    self.refusal(changes[*at].table(), Some(*at), statement, failed.error)
                }
                None => ApplyError::Failed(failed.error),
            }),
        }
    }

    /// `None` when there is nothing to do: an update that carries no cell.
    fn queue_change(&mut self, change: &RowChange) -> Result<Option<String>> {
        let target = &self.targets[change.table()];
        let (statement, params): (String, Vec<Option<Bytes>>) = match change {
            RowChange::Insert { row, .. } => (target.insert_one(), stored(target, row)),
            RowChange::Update { key, row, .. } => {
                let cells = carried(target, row, Some(key));
                if cells.is_empty() {
                    // Nothing to set, and yet the row must be there: setting its key to itself asserts that.
                    let keyed: Vec<Option<Bytes>> =
                        key.0.iter().chain(&key.0).map(encode::parameter).collect();
                    (target.update_one(&target.key), keyed)
                } else {
                    let values = cells.iter().map(|&cell| encode::parameter(&row[cell]));
                    (target.update_one(&cells), values.chain(key.0.iter().map(encode::parameter)).collect())
                }
            }
            RowChange::Delete { key, .. } => {
                (target.delete_one(), key.0.iter().map(encode::parameter).collect())
            }
            RowChange::UpdateWhole { old, row, .. } => {
                let cells = carried(target, row, None);
                if cells.is_empty() {
                    return Ok(None);
                }
                let values = cells.iter().map(|&cell| encode::parameter(&row[cell]));
                (target.update_whole(&cells), values.chain(stored(target, old)).collect())
            }
            RowChange::DeleteWhole { old, .. } => (target.delete_whole(), stored(target, old)),
        };
        self.client.queue(&statement, &params)?;
        Ok(Some(statement))
    }

    /// Nets that follow each other, in one exchange. Those that may collide are written one by one.
    async fn nets(&mut self, steps: &[Step]) -> ApplyResult<()> {
        let mut expected = Vec::new();
        for step in steps {
            let Step::Net(net) = step else { continue };
            if self.may_collide(net) {
                self.flush(&std::mem::take(&mut expected)).await?;
                self.net(net).await?;
            } else {
                self.queue_net(net, &mut expected).await?;
            }
        }
        self.flush(&expected).await
    }

    /// Rows that exchange keys or other unique values collide when they are updated in place.
    fn may_collide(&self, net: &Net) -> bool {
        let key = &self.targets[net.table].key;
        let moves = |update: &RowUpdate| {
            update.key.0.iter().zip(key).any(|(old, &column)| update.row[column] != *old)
        };
        net.updates.len() > 1 && (self.rows_collide(net.table) || net.updates.iter().any(moves))
    }

    async fn net(&mut self, net: &Net) -> ApplyResult<()> {
        // Updates that exchange unique values collide row by row; then they are done another way, from here.
        let may_collide = net.updates.len() > 1;
        if may_collide {
            self.client.execute("SAVEPOINT crossfade_net").await?;
        }
        match self.net_in_place(net).await {
            Err(ApplyError::Refused(refusal)) if may_collide && is_collision(&refusal.error) => {
                self.client.execute("ROLLBACK TO SAVEPOINT crossfade_net").await?;
                self.net_vacating(net).await?;
            }
            other => other?,
        }
        if may_collide {
            self.client.execute("RELEASE SAVEPOINT crossfade_net").await?;
        }
        Ok(())
    }

    async fn net_in_place(&mut self, net: &Net) -> ApplyResult<()> {
        let mut expected = Vec::new();
        self.queue_net(net, &mut expected).await?;
        self.flush(&expected).await
    }

    async fn queue_net(&mut self, net: &Net, expected: &mut Vec<Expected>) -> Result<()> {
        let table = net.table;
        self.queue_deletes(net, expected).await?;
        for (cells, updates) in by_cells(&self.targets[table], &net.updates) {
            let statement = self.targets[table].update_many(&cells);
            for updates in updates.chunks(STATEMENT_ROWS) {
                let target = &self.targets[table];
                self.client.queue_with(&statement, |params| {
                    put_keys(params, target, updates.iter().map(|update| &update.key));
                    put_cells(params, &cells, updates);
                })?;
                expected.push((table, statement.clone(), updates.len() as u64));
                self.client.send_queued().await?;
            }
        }
        self.queue_new(net, expected).await
    }

    /// Takes the updated rows out, and puts them back changed: no order of unique values can collide.
    async fn net_vacating(&mut self, net: &Net) -> ApplyResult<()> {
        let table = net.table;
        let mut expected = Vec::new();
        self.queue_deletes(net, &mut expected).await?;
        self.flush(&expected).await?;
        expected.clear();

        self.client.simple(&self.targets[table].vacate_begin()).await?;
        let target = &self.targets[table];
        let updates = net.updates.len() as u64;
        let keys = net.updates.iter().map(|update| &update.key);
        let statement = target.vacate_take();
        self.client.queue_with(&statement, |params| {
            put_keys(params, target, keys.clone());
            put_numbers(params, 0..net.updates.len() as i64);
        })?;
        expected.push((table, statement, updates));
        let statement = target.delete_many();
        self.client.queue_with(&statement, |params| put_keys(params, target, keys))?;
        expected.push((table, statement, updates));
        for (cells, numbered) in by_cells_numbered(target, &net.updates) {
            let statement = target.vacate_put(&cells);
            let updates: Vec<&RowUpdate> = numbered.iter().map(|(_, update)| *update).collect();
            self.client.queue_with(&statement, |params| {
                put_numbers(params, numbered.iter().map(|(number, _)| *number));
                put_cells(params, &cells, &updates);
            })?;
            expected.push((table, statement, updates.len() as u64));
        }
        self.queue_new(net, &mut expected).await?;
        self.flush(&expected).await
    }

    async fn queue_deletes(&mut self, net: &Net, expected: &mut Vec<Expected>) -> Result<()> {
        for deletes in net.deletes.chunks(STATEMENT_ROWS) {
            let target = &self.targets[net.table];
            let statement = target.delete_many();
            self.client.queue_with(&statement, |params| put_keys(params, target, deletes.iter()))?;
            expected.push((net.table, statement, deletes.len() as u64));
            self.client.send_queued().await?;
        }
        Ok(())
    }

    async fn queue_new(&mut self, net: &Net, expected: &mut Vec<Expected>) -> Result<()> {
        for inserts in net.inserts.chunks(STATEMENT_ROWS) {
            self.queue_inserts(net.table, inserts.iter())?;
            expected.push((net.table, self.targets[net.table].insert_many(), inserts.len() as u64));
            self.client.send_queued().await?;
        }
        Ok(())
    }

    fn queue_inserts<'a>(&mut self, table: usize, rows: impl Iterator<Item = &'a Row> + Clone) -> Result<()> {
        let target = &self.targets[table];
        self.client.queue_with(&target.insert_many(), |params| {
            for &column in &target.stored {
                params.write(|out| encode::put_array(out, rows.clone().map(|row| &row[column])));
            }
        })
    }

    /// Reads the results of what was queued: each statement must have hit as many rows as expected.
    async fn flush(&mut self, expected: &[Expected]) -> ApplyResult<()> {
        if expected.is_empty() {
            return Ok(());
        }
        match self.client.flush_queued().await {
            Ok(counts) => {
                for (found, (table, statement, rows)) in counts.into_iter().zip(expected) {
                    if found != *rows {
                        return Err(self.refusal(*table, None, statement, self.missed(*table, *rows, found)));
                    }
                }
                Ok(())
            }
            Err(failed) => Err(match failed.index.and_then(|index| expected.get(index)) {
                Some((table, statement, _)) => self.refusal(*table, None, statement, failed.error),
                None => ApplyError::Failed(failed.error),
            }),
        }
    }

    async fn truncate(&mut self, tables: &[usize], restart_identity: bool) -> ApplyResult<()> {
        let names: Vec<TableName> = tables.iter().map(|&table| self.names[table].clone()).collect();
        if create::is_referenced(&mut self.client, &names).await? {
            for &table in tables {
                let statement = format!("DELETE FROM ONLY {}", self.targets[table].name);
                self.client
                    .execute(&statement)
                    .await
                    .map_err(|error| self.refusal(table, None, &statement, error))?;
            }
            return Ok(());
        }
        let restart = if restart_identity { " RESTART IDENTITY" } else { "" };
        let statement = format!("TRUNCATE ONLY {}{restart}", crate::writer::quoted(&names));
        self.client
            .execute(&statement)
            .await
            .map_err(|error| self.refusal(tables[0], None, &statement, error))?;
        Ok(())
    }

    async fn delete_range(
        &mut self,
        table: usize,
        after: Option<&Key>,
        upto: Option<&Key>,
        except: &[Key],
    ) -> ApplyResult<()> {
        let planned = &self.catalog.tables[table];
        let target = &self.targets[table];
        let mut condition = wave::keys_within(planned, after, upto)?;
        if !except.is_empty() {
            let key = sql::list(&target.key, |&column| target.columns[column].name.clone());
            let mut kept = Vec::new();
            for key in except {
                kept.push(format!(
                    "({})",
                    sql::list(&key.0, |value| match encode::parameter(value) {
                        Some(bytes) => sql::literal(&String::from_utf8_lossy(&bytes)),
                        None => "NULL".to_owned(),
                    })
                ));
            }
            condition = format!("{condition} AND ({key}) NOT IN ({})", kept.join(", "));
        }
        let statement = format!("DELETE FROM ONLY {} WHERE {condition}", target.name);
        self.client
            .execute(&statement)
            .await
            .map_err(|error| self.refusal(table, None, &statement, error))?;
        Ok(())
    }

    async fn own_transaction(&mut self) -> Result<()> {
        if self.open {
            self.rollback().await?;
        }
        self.begin().await
    }

    async fn commit_own(&mut self) -> Result<()> {
        records::fence(&mut self.client, &self.owner).await?;
        crate::writer::commit(&mut self.client).await?;
        self.open = false;
        Ok(())
    }
}

#[async_trait]
impl Applier for PostgresApplier {
    fn record(&self) -> &Record {
        &self.record
    }

    async fn write(&mut self, steps: &[Step]) -> ApplyResult<()> {
        self.begin().await?;
        self.client.doing("apply changes");
        steps.iter().try_for_each(|step| self.fits(step)).map_err(|error| *error)?;
        let both_net = |a: &Step, b: &Step| matches!((a, b), (Step::Net(_), Step::Net(_)));
        for run in steps.chunk_by(both_net) {
            match &run[0] {
                Step::Net(_) => self.nets(run).await?,
                Step::Ordered(changes) => self.ordered(changes).await?,
                Step::Truncate { tables, restart_identity } => {
                    self.truncate(tables, *restart_identity).await?
                }
                Step::DeleteRange { table, after, upto, except } => {
                    self.delete_range(*table, after.as_ref(), upto.as_ref(), except).await?;
                }
            }
        }
        Ok(())
    }

    fn rows_collide(&self, table: usize) -> bool {
        self.colliding.contains(&self.names[table])
    }

    async fn commit(&mut self, after: u64, progress: &Progress) -> Result<()> {
        self.begin().await?;
        self.client.doing("record the progress").queue(
            "UPDATE crossfade.progress SET seq = $1, position = $2, position_order = $3, updated_at = pg_catalog.now() \
             WHERE stream = $4 AND epoch = $5 AND seq = $6",
            &[
                Some(progress.seq.to_string()),
                Some(progress.position.text.clone()),
                Some(progress.position.order.to_string()),
                Some(self.owner.stream.clone()),
                Some(self.owner.epoch.to_string()),
                Some(after.to_string()),
            ],
        )?;
        let moved = self.client.flush_queued().await.map_err(|failed| failed.error)?;
        if moved != [1] {
            self.rollback().await?;
            // Fails with Fenced when it is not ours any more.
            let found = records::record(&mut self.client, &self.owner).await?;
            return Err(Error::new(ErrorKind::Conflict, "record the progress")
                .with("expected transaction", after)
                .with("found", found.applied())
                .retry(Retry::Later));
        }
        failpoint::hit(failpoint::APPLY_BEFORE_COMMIT);
        crate::writer::commit(&mut self.client).await?;
        failpoint::hit(failpoint::APPLY_COMMIT_UNANSWERED);
        self.open = false;
        self.record.progress = Some(progress.clone());
        failpoint::hit(failpoint::APPLY_AFTER_COMMIT);
        Ok(())
    }

    async fn rollback(&mut self) -> Result<()> {
        if self.open {
            self.client.execute("ROLLBACK").await?;
            self.open = false;
        }
        Ok(())
    }

    async fn write_fetched(&mut self, table: usize, row: Option<&Row>, cut: &RowCut) -> Result<()> {
        self.own_transaction().await?;
        self.client.doing("write a fetched row");
        let target = &self.targets[table];
        let params: Vec<Option<Bytes>> = cut.key.0.iter().map(encode::parameter).collect();
        self.client.queue(&target.delete_one(), &params)?;
        if let Some(row) = row {
            self.client.queue(&target.insert_one(), &stored(target, row))?;
        }
        self.client.flush_queued().await.map_err(|failed| failed.error)?;
        self.client
            .query(
                "INSERT INTO crossfade.row_cut (stream, table_schema, table_name, key, cut, settled) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (stream, table_schema, table_name, key) \
                 DO UPDATE SET cut = excluded.cut, settled = excluded.settled",
                &[
                    text(&self.owner.stream),
                    text(&cut.table.schema),
                    text(&cut.table.name),
                    text(&records::to_json(&cut.key)?),
                    text(&records::to_json(&cut.cut)?),
                    text(&records::to_json(&cut.settled)?),
                ],
            )
            .await?;
        self.commit_own().await
    }

    async fn settle(&mut self) -> Result<()> {
        self.own_transaction().await?;
        let applied = self.record.applied().to_string();
        let settled = self
            .client
            .doing("record that the cuts are passed")
            .query(
                "UPDATE crossfade.progress SET settled = true WHERE stream = $1 AND seq >= $2::int8 RETURNING 1",
                &[records::text(&self.owner.stream), records::text(&applied)],
            )
            .await?;
        if settled.is_empty() {
            return Err(Error::went_back(format!("transaction {applied}")));
        }
        self.commit_own().await
    }

    async fn hold(&mut self, quarantined: &Quarantined, from_seq: u64) -> Result<()> {
        self.own_transaction().await?;
        self.client.doing("put a change into quarantine");
        let table = &quarantined.table;
        self.client
            .query(
                "INSERT INTO crossfade.quarantine (stream, table_schema, table_name, seq, position, operation, key, \
                 payload_hash, statement, error) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                &[
                    text(&self.owner.stream),
                    text(&table.schema),
                    text(&table.name),
                    text(&quarantined.seq.to_string()),
                    text(&quarantined.position.text),
                    text(quarantined.operation),
                    text(&quarantined.key),
                    text(&format!("{:016x}", quarantined.payload_hash)),
                    text(&quarantined.statement),
                    text(&quarantined.error),
                ],
            )
            .await?;
        self.client
            .query(
                "INSERT INTO crossfade.hold (stream, table_schema, table_name, from_seq) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT DO NOTHING",
                &[text(&self.owner.stream), text(&table.schema), text(&table.name), text(&from_seq.to_string())],
            )
            .await?;
        self.commit_own().await
    }

    async fn release_hold(&mut self, table: &TableName) -> Result<()> {
        self.begin().await?;
        self.client
            .query(
                "DELETE FROM crossfade.hold WHERE stream = $1 AND table_schema = $2 AND table_name = $3",
                &[text(&self.owner.stream), text(&table.schema), text(&table.name)],
            )
            .await?;
        Ok(())
    }
}

/// The tables that have a unique index or an exclusion constraint beside the one that finds rows by their key.
async fn colliding(
    client: &mut Client,
    catalog: &Catalog,
    names: &[TableName],
) -> Result<HashSet<TableName>> {
    let rows = client
        .simple(
            "SELECT n.nspname, c.relname, count(*) FROM pg_catalog.pg_index i \
             JOIN pg_catalog.pg_class c ON c.oid = i.indrelid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE i.indisunique OR i.indisexclusion GROUP BY 1, 2",
        )
        .await?;
    let mut unique = HashMap::new();
    for row in rows {
        let row = Cells(row);
        unique.insert(TableName::new(row.text(0)?, row.text(1)?), row.parse::<u64>(2)?);
    }
    let collides = |(table, name): &(&Table, &TableName)| {
        unique.get(name).copied().unwrap_or(0) > u64::from(table.key().is_some())
    };
    Ok(catalog.tables.iter().zip(names).filter(collides).map(|(_, name)| name.clone()).collect())
}

fn is_collision(error: &Error) -> bool {
    // unique_violation, exclusion_violation
    matches!(crate::error::sqlstate(error), Some("23505" | "23P01"))
}

/// How many inserts into one table follow each other at the start.
fn insert_run(changes: &[RowChange]) -> usize {
    let Some(RowChange::Insert { table: first, .. }) = changes.first() else { return 0 };
    changes
        .iter()
        .take_while(|change| matches!(change, RowChange::Insert { table, .. } if table == first))
        .count()
}

fn stored(target: &Target, row: &Row) -> Vec<Option<Bytes>> {
    target.stored.iter().map(|&column| encode::parameter(&row[column])).collect()
}

/// The columns that an update sets: those whose cell is carried, without the key where it stays as it is.
fn carried(target: &Target, row: &Row, key: Option<&Key>) -> Vec<usize> {
    let moves = key.is_none_or(|key| key.0.iter().zip(&target.key).any(|(old, &column)| row[column] != *old));
    target
        .stored
        .iter()
        .copied()
        .filter(|column| !row[*column].is_unchanged() && (moves || !target.key.contains(column)))
        .collect()
}

/// Rows of one statement. The target begins with it while the next one is written: too many let it wait, too few cost a
/// statement each.
const STATEMENT_ROWS: usize = 4096;

/// Updates with their places in the whole list.
type Numbered<'a> = Vec<(i64, &'a RowUpdate)>;

/// Updates that set the same columns, together.
fn by_cells<'a>(target: &Target, updates: &'a [RowUpdate]) -> Vec<(Vec<usize>, Vec<&'a RowUpdate>)> {
    by_cells_numbered(target, updates)
        .into_iter()
        .map(|(cells, numbered)| (cells, numbered.into_iter().map(|(_, update)| update).collect()))
        .collect()
}

fn by_cells_numbered<'a>(target: &Target, updates: &'a [RowUpdate]) -> Vec<(Vec<usize>, Numbered<'a>)> {
    let mut groups: Vec<(Vec<usize>, Numbered<'a>)> = Vec::new();
    for (number, update) in (0..).zip(updates) {
        let mut cells = carried(target, &update.row, Some(&update.key));
        if cells.is_empty() {
            cells = target.key.clone();
        }
        match groups.iter_mut().find(|(known, _)| *known == cells) {
            Some((_, group)) => group.push((number, update)),
            None => groups.push((cells, vec![(number, update)])),
        }
    }
    groups
}

/// One array for each column of the key.
fn put_keys<'a>(params: &mut Binder<'_>, target: &Target, keys: impl Iterator<Item = &'a Key> + Clone) {
    for place in 0..target.key.len() {
        params.write(|out| encode::put_array(out, keys.clone().map(|key| &key.0[place])));
    }
}

/// One array for each column that is set.
fn put_cells(params: &mut Binder<'_>, cells: &[usize], updates: &[&RowUpdate]) {
    for &cell in cells {
        params.write(|out| encode::put_array(out, updates.iter().map(|update| &update.row[cell])));
    }
}

fn put_numbers(params: &mut Binder<'_>, numbers: impl Iterator<Item = i64>) {
    let numbers: Vec<Value> = numbers.map(Value::Integer).collect();
    params.write(|out| encode::put_array(out, &numbers));
}
