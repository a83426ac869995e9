//! The source: SQLite as it is read and followed.

use std::path::PathBuf;

use async_trait::async_trait;
use connector::{Capture, Fetched, Finding, Format, Load, NativeSchema, Reader, Result, Selection, Wave};
use model::{Catalog, Cut, Key, Position, Sequence, Table};
use rusqlite::{Connection, OptionalExtension};

use crate::capture::LogCapture;
use crate::database::{self, blocking, open_source};
use crate::error::During;
use crate::wave::SqliteWave;
use crate::{catalog, check, log, native, wave};

pub(crate) struct SqliteReader {
    path: PathBuf,
}

impl SqliteReader {
    pub(crate) fn open(url: &str) -> Result<SqliteReader> {
        let path = database::path(url)?;
        open_source(&path)?;
        Ok(SqliteReader { path })
    }

    /// Runs on a connection of its own.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = self.path.clone();
        blocking(move || work(&mut open_source(&path)?)).await
    }
}

#[async_trait]
impl Reader for SqliteReader {
    fn formats(&self, _table: &Table) -> Vec<Format> {
        vec![Format::Rows]
    }

    async fn check(&self, selection: &Selection) -> Result<Vec<Finding>> {
        let selection = selection.clone();
        self.run(move |connection| check::source(connection, &selection)).await
    }

    async fn catalog(&self, selection: &Selection) -> Result<Catalog> {
        let selection = selection.clone();
        self.run(move |connection| catalog::read(connection, &selection)).await
    }

    async fn native_schema(&self, catalog: &Catalog) -> Result<NativeSchema> {
        let catalog = catalog.clone();
        self.run(move |connection| native::schema(connection, &catalog)).await
    }

    async fn prepare(&self, stream: &str, catalog: &Catalog) -> Result<Position> {
        let (stream, catalog) = (stream.to_owned(), catalog.clone());
        self.run(move |connection| {
            database::set_wal(connection)?;
            log::prepare(connection, &stream, &catalog)
        })
        .await
    }

    async fn capture(&self, stream: &str, catalog: &Catalog, after: &Position) -> Result<Box<dyn Capture>> {
        let (stream, catalog, after) = (stream.to_owned(), catalog.clone(), after.clone());
        let path = self.path.clone();
        let capture = blocking(move || {
            LogCapture::open(open_source(&path)?, open_source(&path)?, &stream, &catalog, &after)
        })
        .await?;
        Ok(Box::new(capture))
    }

    async fn keeps(&self, stream: &str, position: &Position) -> Result<()> {
        let (stream, position) = (stream.to_owned(), position.order);
        self.run(move |connection| log::keeps(connection, &stream, position)).await
    }

    async fn wave(&self, _tables: &[&Table], readers: usize) -> Result<Box<dyn Wave>> {
        // The snapshot is of the whole file, so it does not matter which tables are read under it.
        let path = self.path.clone();
        let (connections, end) = blocking(move || wave::cut(&path, readers)).await?;
        Ok(Box::new(SqliteWave::new(connections, end)))
    }

    async fn fetch(&self, table: &Table, key: &Key) -> Result<Fetched> {
        let (path, table, key) = (self.path.clone(), table.clone(), key.clone());
        blocking(move || {
            let (connections, end) = wave::cut(&path, 1)?;
            let row = wave::fetch(&connections[0], &table, &key)?;
            Ok(Fetched { row, cut: Cut::Prefix { order: end } })
        })
        .await
    }

    async fn position(&self) -> Result<Position> {
        self.run(|connection| log::end(connection).map(log::position)).await
    }

    async fn sequences(&self, catalog: &Catalog) -> Result<Vec<Sequence>> {
        let catalog = catalog.clone();
        self.run(move |connection| sequences(connection, &catalog).during("read the AUTOINCREMENT counters"))
            .await
    }

    /// Readers of a file in WAL mode are in nobody's way.
    async fn probe(&self) -> Result<Load> {
        Ok(Load::IDLE)
    }

    async fn release(&self, stream: &str, _catalog: &Catalog) -> Result<()> {
        let stream = stream.to_owned();
        self.run(move |connection| log::release(connection, &stream)).await
    }
}

/// The counters of AUTOINCREMENT tables, each under its table's name.
fn sequences(connection: &Connection, catalog: &Catalog) -> rusqlite::Result<Vec<Sequence>> {
    let has_any: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence')",
        [],
        |row| row.get(0),
    )?;
    if !has_any {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare("SELECT seq FROM sqlite_sequence WHERE name = ?1")?;
    let mut sequences = Vec::new();
    for table in &catalog.tables {
        if let Some(last_value) = statement.query_row([&table.name.name], |row| row.get(0)).optional()? {
            sequences.push(Sequence { name: table.name.clone(), last_value, is_called: true });
        }
    }
    Ok(sequences)
}
