//! Applies steps to the target over one session, whose statements are sent back to back.

use std::borrow::Cow;

use async_trait::async_trait;
use connector::{
    Applier, ApplyError, Error, ErrorKind, Net, Owner, Progress, Quarantined, Record, Refusal, Result, Retry,
    RowChange, RowCut, RowUpdate, Step, failpoint,
};
use model::{Catalog, Key, Row, TableName, Value};

use crate::error::number;
use crate::flight::{Failure, Flight};
use crate::statement::{Bound, TableWriter};
use crate::target::Target;
use crate::wire::Client;
use crate::{records, writer};

pub(crate) struct MysqlApplier {
    client: Client,
    flight: Flight,
    owner: Owner,
    /// By catalog index.
    tables: Vec<TableWriter>,
    record: Record,
    transaction: Transaction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transaction {
    None,
    Open,
    /// A statement failed, and the server went on with what was sent behind it; after a deadlock even in a transaction of
    /// its own. None of that may be committed.
    Failed,
}

type Applied = std::result::Result<(), ApplyError>;

/// From this many inserts in a row on, statements take several of them, and cannot say which one was refused. More than
/// the engine writes at once when it looks for that one.
const BULK_INSERT: usize = 16;

const SAVEPOINT: &str = "SAVEPOINT crossfade_net";
const BACK: &str = "ROLLBACK TO SAVEPOINT crossfade_net";
const RELEASE: &str = "RELEASE SAVEPOINT crossfade_net";

// The server's error numbers.
const DUPLICATE: u16 = 1062;
const NO_SAVEPOINT: u16 = 1305;
/// SIGNAL: a trigger of the target said no.
const SIGNAL: u16 = 1644;

impl MysqlApplier {
    pub(crate) async fn open(
        mut client: Client,
        owner: Owner,
        catalog: &Catalog,
        targets: Vec<Target>,
    ) -> Result<MysqlApplier> {
        client.doing("apply changes").execute("START TRANSACTION").await?;
        let record = records::record(&mut client, &owner).await?;
        client.execute("ROLLBACK").await?;
        let tables = catalog.tables.iter().zip(targets);
        Ok(MysqlApplier {
            client,
            flight: Flight::default(),
            owner,
            tables: tables.map(|(table, target)| TableWriter::new(table, target)).collect(),
            record,
            transaction: Transaction::None,
        })
    }

    async fn begin(&mut self) -> Applied {
        match self.transaction {
            Transaction::Open => Ok(()),
            Transaction::None => {
                self.transaction = Transaction::Open;
                self.queue_text(0, "START TRANSACTION").await
            }
            Transaction::Failed => {
                let error = Error::new(ErrorKind::Database, "go on with a transaction that has failed");
                Err(ApplyError::Failed(error.retry(Retry::Later)))
            }
        }
    }

    async fn queue_text(&mut self, table: usize, sql: &str) -> Applied {
        let queued = self.flight.queue_text(&mut self.client, table, sql).await;
        queued.map_err(|failure| self.failed(failure))
    }

    fn failed(&self, failure: Failure) -> ApplyError {
        let Failure { sent: Some(sent), error } = failure else { return ApplyError::Failed(failure.error) };
        let is_refusal =
            matches!(error.kind, ErrorKind::Refused | ErrorKind::Conflict) || number(&error) == Some(SIGNAL);
        match is_refusal {
            true => ApplyError::Refused(Refusal {
                table: sent.table,
                change: sent.change,
                error: error.with("table", &self.tables[sent.table].table.name),
                statement: sent.sql.to_string(),
            }),
            false => ApplyError::Failed(error),
        }
    }

    async fn land(&mut self) -> Applied {
        self.flight.land(&mut self.client).await.map_err(|failure| self.failed(failure))
    }

    /// Queues a statement. What does not fit into it is refused once everything before it has gone well.
    async fn queue(&mut self, table: usize, change: Option<usize>, bound: Result<Bound<'_>>) -> Applied {
        match bound {
            Ok(bound) => self
                .flight
                .queue(&mut self.client, table, change, bound)
                .await
                .map_err(|failure| self.failed(failure)),
            Err(error) => {
                self.land().await?;
                Err(unfit(table, change, error))
            }
        }
    }

    async fn queue_inserts<'a>(&mut self, table: usize, rows: impl Iterator<Item = &'a Row>) -> Applied {
        for row in rows {
            let bound = self.tables[table].insert(row);
            self.queue(table, None, bound).await?;
        }
        Ok(())
    }

    async fn steps(&mut self, steps: &[Step]) -> Applied {
        self.begin().await?;
        for step in steps {
            match step {
                Step::Net(net) if self.may_collide(net) => self.net(net).await?,
                Step::Net(net) => self.queue_net(net).await?,
                Step::Ordered(changes) => self.ordered(changes).await?,
                Step::Truncate { tables, .. } => self.truncate(tables).await?,
                Step::DeleteRange { table, after, upto, except } => {
                    self.delete_range(*table, after.as_ref(), upto.as_ref(), except).await?;
                }
            }
        }
        self.land().await
    }

    async fn ordered(&mut self, changes: &[RowChange]) -> Applied {
        let mut from = 0;
        while from < changes.len() {
            let inserts = insert_run(&changes[from..]);
            if inserts >= BULK_INSERT {
                let rows = changes[from..from + inserts].iter().filter_map(inserted);
                self.queue_inserts(changes[from].table(), rows).await?;
                from += inserts;
                continue;
            }
            let change = &changes[from];
            let writer = &mut self.tables[change.table()];
            let bound = match change {
                RowChange::Insert { row, .. } => writer.insert(row).map(Some),
                RowChange::Update { key, row, .. } => writer.update(key, row).map(Some),
                RowChange::Delete { key, .. } => writer.delete(key).map(Some),
                RowChange::UpdateWhole { old, row, .. } => writer.update_whole(old, row),
                RowChange::DeleteWhole { old, .. } => writer.delete_whole(old).map(Some),
            };
            if let Some(bound) = bound.transpose() {
                self.queue(change.table(), Some(from), bound).await?;
            }
            from += 1;
        }
        Ok(())
    }

    /// Rows that exchange keys or other unique values collide when they are updated in place.
    fn may_collide(&self, net: &Net) -> bool {
        let writer = &self.tables[net.table];
        net.updates.len() > 1
            && (writer.target.collides
                || net.updates.iter().any(|update| writer.moves(&update.key, &update.row)))
    }

    async fn queue_net(&mut self, net: &Net) -> Applied {
        for key in &net.deletes {
            let bound = self.tables[net.table].delete(key);
            self.queue(net.table, None, bound).await?;
        }
        let mut updates: Vec<&RowUpdate> = net.updates.iter().collect();
        // What sets the same columns is one statement, and goes to the server together.
        let writer = &self.tables[net.table];
        updates.sort_by_cached_key(|update| writer.cells(&update.row, Some(&update.key)).collect::<Vec<_>>());
        for RowUpdate { key, row } in updates {
            let bound = self.tables[net.table].update(key, row);
            self.queue(net.table, None, bound).await?;
        }
        self.queue_inserts(net.table, net.inserts.iter()).await
    }

    /// In place, and if rows collide there, another way.
    async fn net(&mut self, net: &Net) -> Applied {
        // What was sent before is not undone by going back to the savepoint, so a collision of it is not one of these rows'.
        self.land().await?;
        self.queue_text(net.table, SAVEPOINT).await?;
        let written = match self.queue_net(net).await {
            Ok(()) => self.land().await,
            failed => failed,
        };
        match written {
            Err(ApplyError::Refused(refusal)) if number(&refusal.error) == Some(DUPLICATE) => {
                self.back().await?;
                self.net_vacating(net).await?;
            }
            other => other?,
        }
        self.queue_text(net.table, RELEASE).await
    }

    async fn back(&mut self) -> Result<()> {
        match self.client.execute(BACK).await {
            // Something behind the collision met a deadlock: the server has rolled everything back.
            Err(error) if number(&error) == Some(NO_SAVEPOINT) => {
                Err(Error { kind: ErrorKind::Database, retry: Retry::Later, ..error })
            }
            other => other.map(drop),
        }
    }

    /// Takes the updated rows out, and puts them back changed: no order of unique values can collide.
    async fn net_vacating(&mut self, net: &Net) -> Applied {
        let mut changed = Vec::with_capacity(net.updates.len());
        for update in &net.updates {
            changed.push(self.changed(net.table, update).await?);
        }
        for key in net.deletes.iter().chain(net.updates.iter().map(|update| &update.key)) {
            let bound = self.tables[net.table].delete(key);
            self.queue(net.table, None, bound).await?;
        }
        self.queue_inserts(net.table, changed.iter().map(Cow::as_ref).chain(&net.inserts)).await?;
        self.land().await
    }

    /// The whole row as it is after an update: cells that the log did not carry are read from the target.
    async fn changed<'a>(&mut self, table: usize, update: &'a RowUpdate) -> Result<Cow<'a, Row>> {
        let writer = &self.tables[table];
        if !writer.stored.iter().any(|&column| update.row[column].is_unchanged()) {
            return Ok(Cow::Borrowed(&update.row));
        }
        let mut row = self.read(table, &update.key).await?;
        for (cell, new) in row.iter_mut().zip(&update.row) {
            if !new.is_unchanged() {
                *cell = new.clone();
            }
        }
        Ok(Cow::Owned(row))
    }

    /// The row under a key. If there is none, its cells stay `Unchanged`, and its deletion will miss it.
    async fn read(&mut self, table: usize, key: &Key) -> Result<Row> {
        let writer = &self.tables[table];
        let Bound { sql, params } = writer.select(key)?;
        // In the bytes that are stored.
        self.client.execute("SET character_set_results = NULL").await?;
        let select = self.client.prepare(&sql).await?;
        self.client.rows(&select, &params).await?;
        let (mut cells, mut row) = (Vec::new(), vec![Value::Unchanged; writer.table.columns.len()]);
        while self.client.next_row(&mut cells).await? {
            writer.decode(&mut cells, &mut row)?;
        }
        self.client.close(select)?;
        Ok(row)
    }

    async fn truncate(&mut self, tables: &[usize]) -> Applied {
        for &table in tables {
            self.run(table, Ok(self.tables[table].empty())).await?;
        }
        Ok(())
    }

    async fn delete_range(
        &mut self,
        table: usize,
        after: Option<&Key>,
        upto: Option<&Key>,
        except: &[Key],
    ) -> Applied {
        let bound = self.tables[table].delete_range(after, upto, except);
        self.run(table, bound).await
    }

    /// Runs a statement that hits as many rows as it will.
    async fn run(&mut self, table: usize, bound: Result<Bound<'_>>) -> Applied {
        self.land().await?;
        let bound = bound.map_err(|error| unfit(table, None, error))?;
        let ran = self.flight.run(&mut self.client, table, bound).await;
        ran.map_err(|failure| self.failed(failure))
    }

    /// The transaction is open, and nothing is under way.
    async fn ready(&mut self) -> Result<()> {
        let begun = match self.begin().await {
            Ok(()) => self.land().await,
            failed => failed,
        };
        begun.map_err(|error| match error {
            ApplyError::Refused(refusal) => refusal.error,
            ApplyError::Failed(error) => error,
        })
    }

    async fn own_transaction(&mut self) -> Result<()> {
        self.rollback().await?;
        self.client.execute("START TRANSACTION").await?;
        self.transaction = Transaction::Open;
        Ok(())
    }

    async fn commit_own(&mut self) -> Result<()> {
        records::fence(&mut self.client, &self.owner).await?;
        writer::commit(&mut self.client).await?;
        self.transaction = Transaction::None;
        Ok(())
    }

    /// Puts a row in place of whatever is there under this key.
    async fn replace(&mut self, table: usize, key: &Key, row: Option<&Row>) -> Applied {
        let bound = self.tables[table].delete(key);
        self.run(table, bound).await?;
        if let Some(row) = row {
            self.queue_inserts(table, std::iter::once(row)).await?;
        }
        self.land().await
    }
}

#[async_trait]
impl Applier for MysqlApplier {
    fn record(&self) -> &Record {
        &self.record
    }

    async fn write(&mut self, steps: &[Step]) -> Applied {
        self.client.doing("apply changes");
        let written = self.steps(steps).await;
        if written.is_err() {
            self.flight.abandon();
            self.transaction = Transaction::Failed;
        }
        written
    }

    fn rows_collide(&self, table: usize) -> bool {
        self.tables[table].target.collides
    }

    async fn commit(&mut self, after: u64, progress: &Progress) -> Result<()> {
        self.ready().await?;
        self.client.doing("record the progress");
        if let Err(error) = records::advance(&mut self.client, &self.owner, after, progress).await {
            self.rollback().await?;
            return Err(error);
        }
        failpoint::hit(failpoint::APPLY_BEFORE_COMMIT);
        writer::commit(&mut self.client).await?;
        failpoint::hit(failpoint::APPLY_COMMIT_UNANSWERED);
        self.transaction = Transaction::None;
        self.record.progress = Some(progress.clone());
        failpoint::hit(failpoint::APPLY_AFTER_COMMIT);
        Ok(())
    }

    async fn rollback(&mut self) -> Result<()> {
        if self.transaction != Transaction::None {
            self.client.execute("ROLLBACK").await?;
            self.transaction = Transaction::None;
        }
        Ok(())
    }

    async fn write_fetched(&mut self, table: usize, row: Option<&Row>, cut: &RowCut) -> Result<()> {
        self.own_transaction().await?;
        self.client.doing("write a fetched row");
        self.replace(table, &cut.key, row).await.map_err(|error| match error {
            ApplyError::Refused(refusal) => refusal.error,
            ApplyError::Failed(error) => error,
        })?;
        records::set_row_cut(&mut self.client, &self.owner, cut).await?;
        self.commit_own().await
    }

    async fn settle(&mut self) -> Result<()> {
        self.own_transaction().await?;
        self.client.doing("record that the cuts are passed");
        records::settle(&mut self.client, &self.owner, self.record.applied()).await?;
        self.commit_own().await
    }

    async fn hold(&mut self, quarantined: &Quarantined, from_seq: u64) -> Result<()> {
        self.own_transaction().await?;
        self.client.doing("put a change into quarantine");
        records::hold(&mut self.client, &self.owner, quarantined, from_seq).await?;
        self.commit_own().await
    }

    async fn release_hold(&mut self, table: &TableName) -> Result<()> {
        self.ready().await?;
        records::release_hold(&mut self.client, &self.owner, table).await
    }
}

/// There is no statement for it.
fn unfit(table: usize, change: Option<usize>, error: Error) -> ApplyError {
    match error.kind {
        ErrorKind::Refused => ApplyError::Refused(Refusal { table, change, statement: String::new(), error }),
        _ => ApplyError::Failed(error),
    }
}

/// How many inserts into one table follow each other at the start.
fn insert_run(changes: &[RowChange]) -> usize {
    let Some(first) = changes.first().map(RowChange::table) else { return 0 };
    let is_next = |change: &&RowChange| inserted(change).is_some() && change.table() == first;
    changes.iter().take_while(is_next).count()
}

fn inserted(change: &RowChange) -> Option<&Row> {
    match change {
        RowChange::Insert { row, .. } => Some(row),
        _ => None,
    }
}
