//! The reading half: catalog, log, waves.

use std::sync::Arc;

use async_trait::async_trait;
use connector::{
    Capture, Error, ErrorKind, Fetched, Finding, Format, Load, NativeSchema, Reader, Result, Retry,
    Selection, Wave,
};
use model::{Catalog, Key, Position, Sequence, Table, TableName};
use tokio::sync::Mutex;

use crate::cells::Cells;
use crate::charset::Charsets;
use crate::column_type::ColumnType;
use crate::declared::{Declared, column_types};
use crate::place::Exact;
use crate::position::{Coordinates, GtidPosition};
use crate::probe::Probe;
use crate::stream::{Stream, Undone};
use crate::url::Settings;
use crate::wave::MysqlWave;
use crate::wire::Client;
use crate::{catalog, check, native, place, session, sql, wave};

pub(crate) struct MysqlReader {
    settings: Settings,
    probe: Probe,
    /// What the source has taught us of its charsets.
    charsets: Mutex<Charsets>,
    undone: Undone,
    exact: Exact,
}

impl MysqlReader {
    pub(crate) fn new(settings: Settings) -> MysqlReader {
        MysqlReader {
            settings,
            probe: Probe::default(),
            charsets: Mutex::new(Charsets::default()),
            undone: Undone::default(),
            exact: Exact::default(),
        }
    }

    async fn asking(&self, operation: &'static str) -> Result<Client> {
        let mut client = session::asking(&self.settings).await?;
        client.doing(operation);
        Ok(client)
    }

    /// The types of these tables' columns, whose charsets are learned when they are not known yet.
    async fn types(&self, tables: &[&Table]) -> Result<Vec<Arc<[ColumnType]>>> {
        let mut charsets = self.charsets.lock().await;
        let mut types = Vec::new();
        let mut client = None;
        for table in tables {
            for column in &table.columns {
                let Some(text) = Declared::parse(&column.type_name).text else { continue };
                if charsets.named(text.charset).is_ok() {
                    continue;
                }
                if client.is_none() {
                    client = Some(self.asking("learn a charset").await?);
                }
                if let Some(client) = &mut client {
                    catalog::learn(client, text.charset, &mut charsets).await?;
                }
            }
            types.push(column_types(table, &charsets)?.into());
        }
        Ok(types)
    }

    async fn open_wave(&self, tables: &[&Table], readers: usize) -> Result<MysqlWave> {
        let types = self.types(tables).await?;
        let types = tables.iter().map(|table| table.name.clone()).zip(types).collect();
        MysqlWave::open(&self.settings, readers, types, &self.exact).await
    }
}

/// Which transactions lie before a place in the log. The server reads the file up to there.
async fn gtids_at(client: &mut Client, at: &Coordinates) -> Result<Option<GtidPosition>> {
    let rows = client
        .query(&format!("SELECT BINLOG_GTID_POS({}, {})", sql::literal(&at.file()), at.offset()))
        .await?;
    let row = Cells::first(rows);
    let parsed = row.maybe(0).map(GtidPosition::parse).transpose();
    parsed.map_err(|error| error.during("ask which transactions lie before a place in the log"))
}

pub(crate) async fn log_end(client: &mut Client) -> Result<Coordinates> {
    let row = Cells::first(client.query("SHOW MASTER STATUS").await?);
    Coordinates::new(row.text(0)?, row.parse(1)?, GtidPosition::default())
        .map_err(|error| error.during("read the end of the log"))
}

fn lost(position: &Position, why: &str) -> Error {
    Error::new(ErrorKind::LogLost, "follow the source's log")
        .with("from", position)
        .with("because", why)
        .hint("was the source restored, its log reset or purged, or did another server take its place? Begin the migration anew")
}

#[async_trait]
impl Reader for MysqlReader {
    fn formats(&self, _table: &Table) -> Vec<Format> {
        vec![Format::Rows]
    }

    async fn check(&self, selection: &Selection) -> Result<Vec<Finding>> {
        check::source(&self.settings, selection).await
    }

    async fn catalog(&self, selection: &Selection) -> Result<Catalog> {
        let mut client = self.asking("read the source's catalog").await?;
        let mut charsets = self.charsets.lock().await;
        catalog::read(&mut client, &self.settings.database, selection, &mut charsets).await
    }

    async fn native_schema(&self, catalog: &Catalog) -> Result<NativeSchema> {
        let mut client = self.asking("read the source's schema").await?;
        native::schema(&mut client, catalog).await
    }

    /// Nothing is created. The place is a snapshot's, not the log's end: a transaction that is in the log and not yet
    /// visible would lie before the end, and be in no wave.
    async fn prepare(&self, _stream: &str, _catalog: &Catalog) -> Result<Position> {
        let (mut client, mut at) = wave::place(&self.settings, &self.exact).await?;
        at.gtids = gtids_at(&mut client, &at).await?.ok_or_else(|| {
            Error::new(ErrorKind::Database, "find the place in the log where to begin")
                .with("at", &at)
                .retry(Retry::Later)
                .hint("was the file purged just now, or is it larger than 4 GiB? FLUSH BINARY LOGS begins another")
        })?;
        at.begun = place::begun(&self.settings, &at).await?;
        Ok(at.position())
    }

    async fn capture(&self, _stream: &str, catalog: &Catalog, after: &Position) -> Result<Box<dyn Capture>> {
        self.keeps("", after).await?;
        let types = self.types(&catalog.tables.iter().collect::<Vec<_>>()).await?;
        Ok(Box::new(Stream::open(&self.settings, catalog, types, after, self.undone.clone()).await?))
    }

    async fn keeps(&self, _stream: &str, position: &Position) -> Result<()> {
        let at = Coordinates::parse(&position.text)
            .map_err(|error| error.during("ask whether the log is still kept"))?;
        let mut client = self.asking("ask whether the log is still kept").await?;
        if log_end(&mut client).await?.order() < at.order() {
            return Err(lost(position, "the log ends before"));
        }
        // Only what follows the log knows these, and the server tells them up to 4 GiB in a file.
        if at.gtids != GtidPosition::default() && u32::try_from(at.offset()).is_ok() {
            match gtids_at(&mut client, &at).await? {
                None => return Err(lost(position, "the file is not there any more")),
                Some(gtids) if gtids != at.gtids => {
                    return Err(lost(position, "other transactions lie there").with("found", gtids));
                }
                Some(_) => {}
            }
        }
        match at.begun.is_some() && place::begun(&self.settings, &at).await? != at.begun {
            true => Err(lost(position, "the file is another one of the same name")),
            false => Ok(()),
        }
    }

    async fn wave(&self, tables: &[&Table], readers: usize) -> Result<Box<dyn Wave>> {
        Ok(Box::new(self.open_wave(tables, readers).await?))
    }

    async fn fetch(&self, table: &Table, key: &Key) -> Result<Fetched> {
        let wave = self.open_wave(&[table], 1).await?;
        Ok(Fetched { row: wave.fetch(table, key).await?, cut: wave.cut().clone() })
    }

    /// A commit is acknowledged only when it is in the log.
    async fn position(&self) -> Result<Position> {
        let mut client = self.asking("read the end of the log").await?;
        Ok(log_end(&mut client).await?.position())
    }

    /// The next numbers of AUTO_INCREMENT columns, each under its table's name.
    async fn sequences(&self, catalog: &Catalog) -> Result<Vec<Sequence>> {
        let mut client = self.asking("read the AUTO_INCREMENT counters").await?;
        let rows = client
            .query(&format!(
                "SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES \
                 WHERE TABLE_SCHEMA = {} AND AUTO_INCREMENT IS NOT NULL",
                sql::literal(&self.settings.database)
            ))
            .await?;
        let mut sequences = Vec::new();
        for row in rows {
            let row = Cells(row);
            let name = TableName::new(&self.settings.database, row.text(0)?);
            if catalog.table(&name).is_some() {
                // A counter without a sign may be beyond what any target's generator can reach.
                let last_value = i64::try_from(row.parse::<u64>(1)?).unwrap_or(i64::MAX);
                sequences.push(Sequence { name, last_value, is_called: false });
            }
        }
        Ok(sequences)
    }

    async fn probe(&self) -> Result<Load> {
        self.probe.ask(&self.settings).await
    }

    /// Nothing was created.
    async fn release(&self, _stream: &str, _catalog: &Catalog) -> Result<()> {
        Ok(())
    }
}
