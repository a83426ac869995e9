//! The target: SQLite as it is written to.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use connector::failpoint::{self, APPLY_BEFORE_COMMIT, APPLY_COMMIT_UNANSWERED};
use connector::{
    Applier, ApplyError, ChunkStream, Claim, Copied, Error, ErrorKind, Finding, Format, NativeSchema, Owner,
    Progress, Quarantined, Record, Result, RowCut, Step, Writer,
};
use model::{Catalog, Chunk, Cut, Loaded, Position, Row, Sequence, Table, TableName};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use crate::apply::Statements;
use crate::database::{self, Session, blocking, open_target};
use crate::error::{During, committing};
use crate::sql::quote;
use crate::{check, load, records, target};

pub(crate) struct SqliteWriter {
    path: PathBuf,
    /// SQLite has one writer at a time and lets the others poll. Ours queue here instead, in order.
    turn: Arc<Mutex<()>>,
}

impl SqliteWriter {
    pub(crate) fn open(url: &str) -> Result<SqliteWriter> {
        Ok(SqliteWriter { path: database::path(url)?, turn: Arc::new(Mutex::new(())) })
    }

    /// Runs on a connection of its own, as the one of us that writes.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.turn.clone().lock_owned().await;
        let path = self.path.clone();
        blocking(move || {
            let result = work(&mut open_target(&path)?);
            drop(turn);
            result
        })
        .await
    }

    /// Runs in one transaction of the owner.
    async fn write<T: Send + 'static>(
        &self,
        owner: &Owner,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let owner = owner.clone();
        self.run(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).during(operation)?;
            records::fence(&transaction, &owner)?;
            let result = work(&transaction)?;
            transaction.commit().during(operation)?;
            Ok(result)
        })
        .await
    }
}

#[async_trait]
impl Writer for SqliteWriter {
    fn formats(&self, table: &Table) -> Vec<Format> {
        if check::is_unproved(table) { Vec::new() } else { vec![Format::Rows] }
    }

    async fn check(&self, catalog: &Catalog, ours: &str) -> Result<Vec<Finding>> {
        if let Some(finding) = check::unproved(catalog) {
            return Ok(vec![finding]);
        }
        if !self.path.exists() {
            return check::missing_target(&self.path);
        }
        let (path, catalog, ours) = (self.path.clone(), catalog.clone(), ours.to_owned());
        blocking(move || {
            // Opened as a source is: a check must not switch the file's journal mode.
            let connection = database::open_source(&path)?;
            let known = records::knows(&connection, &ours).during("check the target")?;
            check::target(&connection, &catalog, known)
        })
        .await
    }

    async fn claim(&self, stream: &str) -> Result<Claim> {
        let stream = stream.to_owned();
        self.run(move |connection| {
            let operation = "claim the target";
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).during(operation)?;
            let claim = records::claim(&transaction, &stream)?;
            transaction.commit().during(operation)?;
            Ok(claim)
        })
        .await
    }

    async fn create(&self, owner: &Owner, catalog: &Catalog, native: Option<&NativeSchema>) -> Result<()> {
        let (owner, catalog, native) = (owner.clone(), catalog.clone(), native.cloned());
        self.run(move |connection| target::create(connection, &owner, &catalog, native.as_ref())).await
    }

    async fn have_unique(&self, tables: &[&Table]) -> Result<Vec<bool>> {
        let path = self.path.clone();
        let tables: Vec<Table> = tables.iter().map(|&table| table.clone()).collect();
        blocking(move || {
            let connection = open_target(&path)?;
            let has = |table| target::has_unique(&connection, table).during("read the target's indexes");
            tables.iter().map(has).collect()
        })
        .await
    }

    async fn load(
        &self,
        owner: &Owner,
        table: &Table,
        chunk: &Chunk,
        cut: &Cut,
        settled: &Position,
        format: Format,
        data: &mut dyn ChunkStream,
    ) -> Result<Loaded> {
        if format != Format::Rows {
            return Err(Error::new(ErrorKind::Setup, "load a chunk").with("format", format!("{format:?}")));
        }
        let path = self.path.clone();
        let connection = blocking(move || open_target(&path)).await?;
        load::load(connection, &self.turn, owner, table, chunk, cut, settled, data).await
    }

    async fn ledger(&self, owner: &Owner) -> Result<Vec<Loaded>> {
        // With the write lock held, no load of ours is between its rows and its commit.
        let stream = owner.stream.clone();
        self.write(owner, "read the chunk ledger", move |transaction| records::chunks(transaction, &stream))
            .await
    }

    async fn reset(&self, owner: &Owner, table: &Table) -> Result<()> {
        let (stream, table) = (owner.stream.clone(), table.name.clone());
        self.write(owner, "empty a table", move |transaction| {
            transaction
                .execute_batch(&format!("DELETE FROM {}", quote(&table.name)))
                .during("empty a table")
                .map_err(|error| error.with("table", &table))?;
            records::forget(transaction, &stream, &table)
        })
        .await
    }

    async fn create_keys(
        &self,
        owner: &Owner,
        catalog: &Catalog,
        native: Option<&NativeSchema>,
        copied: watch::Receiver<Copied>,
        _builders: usize,
    ) -> Result<()> {
        // A file has one writer at a time: until then that is the copy.
        Copied::all(copied).await;
        let (owner, catalog, native) = (owner.clone(), catalog.clone(), native.cloned());
        self.run(move |connection| target::create_keys(connection, &owner, &catalog, native.as_ref())).await
    }

    async fn finish(
        &self,
        owner: &Owner,
        catalog: &Catalog,
        native: Option<&NativeSchema>,
        _builders: usize,
    ) -> Result<Vec<(String, String)>> {
        let (owner, catalog, native) = (owner.clone(), catalog.clone(), native.cloned());
        self.run(move |connection| target::finish(connection, &owner, &catalog, native.as_ref())).await
    }

    async fn applier(&self, owner: &Owner, catalog: &Catalog) -> Result<Box<dyn Applier>> {
        let turn = self.turn.clone().lock_owned().await;
        let (path, owner_of) = (self.path.clone(), owner.clone());
        let (connection, record) = blocking(move || {
            let mut connection = open_target(&path)?;
            // Under the write lock, so after any commit of an earlier session that was still in flight.
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .during("open the applier")?;
            records::fence(&transaction, &owner_of)?;
            let record = records::record(&transaction, &owner_of.stream)?;
            transaction.commit().during("open the applier")?;
            drop(turn);
            Ok((connection, record))
        })
        .await?;
        Ok(Box::new(SqliteApplier {
            session: Session::new(connection),
            statements: Arc::new(Statements::new(catalog)),
            owner: owner.clone(),
            record,
            turn: self.turn.clone(),
            open: None,
        }))
    }

    async fn advance_sequences(&self, owner: &Owner, sequences: &[Sequence]) -> Result<()> {
        let sequences = sequences.to_vec();
        self.write(owner, "advance the AUTOINCREMENT counters", move |transaction| {
            advance(transaction, &sequences).during("advance the AUTOINCREMENT counters")
        })
        .await
    }
}

/// Raises the counters of AUTOINCREMENT tables. A sequence without such a table has nothing to move here: SQLite then
/// takes the highest key there is.
fn advance(connection: &Connection, sequences: &[Sequence]) -> rusqlite::Result<()> {
    for sequence in sequences {
        let counts: bool = connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence')
                AND EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1
                            AND sql LIKE '%AUTOINCREMENT%')",
            [&sequence.name.name],
            |row| row.get(0),
        )?;
        if !counts {
            continue;
        }
        let last =
            if sequence.is_called { sequence.last_value } else { sequence.last_value.saturating_sub(1) };
        let moved = connection.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1",
            params![sequence.name.name, last],
        )?;
        if moved == 0 {
            connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)",
                params![sequence.name.name, last],
            )?;
        }
    }
    Ok(())
}

struct SqliteApplier {
    session: Session,
    statements: Arc<Statements>,
    owner: Owner,
    record: Record,
    turn: Arc<Mutex<()>>,
    /// Our turn, while a transaction is open.
    open: Option<OwnedMutexGuard<()>>,
}

/// SQLite has rolled back by itself after some errors (a full disk); then there is nothing left to do.
fn roll_back(connection: &Connection) -> Result<()> {
    if connection.is_autocommit() {
        return Ok(());
    }
    connection.execute_batch("ROLLBACK").during("roll back")
}

impl SqliteApplier {
    async fn begin(&mut self) -> Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        let turn = self.turn.clone().lock_owned().await;
        let owner = self.owner.clone();
        self.session
            .run(move |connection| {
                let begin = |connection: &Connection| {
                    connection.execute_batch("BEGIN IMMEDIATE").during("begin to apply")?;
                    records::fence(connection, &owner)
                };
                // Left by a call whose future was dropped.
                roll_back(connection)?;
                begin(connection).or_else(|error| roll_back(connection).and(Err(error)))
            })
            .await?;
        self.open = Some(turn);
        Ok(())
    }

    /// A transaction for one purpose, apart from the applied changes.
    async fn alone(
        &mut self,
        work: impl FnOnce(&Connection, &Owner) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        if self.open.is_some() {
            return Err(Error::new(ErrorKind::Conflict, "write a record in a transaction of its own")
                .hint("The applied changes have to be committed or rolled back first."));
        }
        self.begin().await?;
        let owner = self.owner.clone();
        let done = self
            .session
            .run(move |connection| {
                work(connection, &owner)?;
                connection.execute_batch("COMMIT").during("commit a record")
            })
            .await;
        match done {
            Ok(()) => self.open = None,
            Err(_) => self.rollback().await?,
        }
        done
    }
}

#[async_trait]
impl Applier for SqliteApplier {
    fn record(&self) -> &Record {
        &self.record
    }

    async fn write(&mut self, steps: &[Step]) -> std::result::Result<(), ApplyError> {
        self.begin().await?;
        let (statements, steps) = (self.statements.clone(), steps.to_vec());
        self.session.run(move |connection| Ok(statements.write(connection, &steps))).await?
    }

    /// One writer at a time is all that SQLite has.
    fn rows_collide(&self, _table: usize) -> bool {
        true
    }

    async fn commit(&mut self, after: u64, progress: &Progress) -> Result<()> {
        self.begin().await?;
        let (owner, to) = (self.owner.clone(), progress.clone());
        let committed = self
            .session
            .run(move |connection| {
                records::advance(connection, &owner, after, &to)?;
                failpoint::hit(APPLY_BEFORE_COMMIT);
                connection.execute_batch("COMMIT").during("commit applied changes").map_err(committing)?;
                failpoint::hit(APPLY_COMMIT_UNANSWERED);
                Ok(())
            })
            .await;
        match committed {
            Ok(()) => {
                self.open = None;
                self.record.progress = Some(progress.clone());
            }
            Err(_) => self.rollback().await?,
        }
        committed
    }

    async fn rollback(&mut self) -> Result<()> {
        self.session.run(|connection| roll_back(connection)).await?;
        self.open = None;
        Ok(())
    }

    async fn write_fetched(&mut self, table: usize, row: Option<&Row>, cut: &RowCut) -> Result<()> {
        let (statements, row, cut) = (self.statements.clone(), row.cloned(), cut.clone());
        self.alone(move |connection, owner| {
            statements.replace(connection, table, &cut.key, row.as_ref()).map_err(|error| match error {
                ApplyError::Refused(refusal) => refusal.error.with("statement", refusal.statement),
                ApplyError::Failed(error) => error,
            })?;
            records::set_row_cut(connection, &owner.stream, &cut)
        })
        .await
    }

    async fn settle(&mut self) -> Result<()> {
        let applied = self.record.applied();
        self.alone(move |connection, owner| {
            if records::record(connection, &owner.stream)?.applied() < applied {
                return Err(Error::went_back(format!("transaction {applied}")));
            }
            records::set_done(connection, &owner.stream, records::SETTLED)
                .during("record that the cuts are passed")
        })
        .await
    }

    async fn hold(&mut self, quarantined: &Quarantined, from_seq: u64) -> Result<()> {
        let quarantined = quarantined.clone();
        self.alone(move |connection, owner| records::hold(connection, &owner.stream, &quarantined, from_seq))
            .await
    }

    async fn release_hold(&mut self, table: &TableName) -> Result<()> {
        self.begin().await?;
        let (owner, table) = (self.owner.clone(), table.clone());
        self.session.run(move |connection| records::release_hold(connection, &owner.stream, &table)).await
    }
}
