//! The reading half: catalog, slot and publication, capture, waves.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use connector::{
    Capture, Error, ErrorKind, Fetched, Finding, Format, Load, NativeSchema, Reader, Result, Retry,
    Selection, Wave,
};
use model::{Catalog, Cut, Identity, Key, Position, Sequence, Snapshot, Table, TableName, Value};
use tokio::task::JoinSet;

use crate::catalog::{self, Cells, is_portable_binary};
use crate::probe::Probe;
use crate::records::text;
use crate::stream::{self, Stream};
use crate::url::Settings;
use crate::wave::PostgresWave;
use crate::wire::Client;
use crate::writer::SEQUENCES;
use crate::{check, dump, encode, lsn, session, sql};

pub(crate) struct PostgresReader {
    settings: Settings,
    probe: Probe,
    /// For questions: kept open, as some are asked every few seconds.
    idle: Mutex<Option<Client>>,
    /// The catalog as it was last read.
    known: Mutex<Option<Known>>,
}

struct Known {
    mark: String,
    selection: Vec<String>,
    catalog: Catalog,
}

/// Creating a slot waits for every transaction that is open; after this long it says which one it waits for.
const SLOT_PATIENCE: Duration = Duration::from_secs(30);

impl PostgresReader {
    pub(crate) fn new(settings: Settings) -> PostgresReader {
        PostgresReader { settings, probe: Probe::default(), idle: Mutex::new(None), known: Mutex::new(None) }
    }

    async fn session(&self) -> Result<Client> {
        session::reading(&self.settings, "reader").await
    }

    /// A session for a question, to be given back when it was answered. One that was ended meanwhile fails as a lost
    /// connection does, and the next one is new.
    async fn asking(&self) -> Result<Client> {
        let kept = self.idle.lock().ok().and_then(|mut idle| idle.take());
        match kept.filter(|client| client.is_usable() && !client.in_transaction()) {
            Some(client) => Ok(client),
            None => self.session().await,
        }
    }

    fn answered(&self, client: Client) {
        if let Ok(mut idle) = self.idle.lock() {
            *idle = Some(client);
        }
    }

    /// Sessions for reading chunks, opened at the same time.
    async fn sessions(&self, count: usize) -> Result<Vec<Client>> {
        let mut opening = JoinSet::new();
        for _ in 0..count {
            let settings = self.settings.clone();
            opening.spawn(async move { session::reading(&settings, "reader").await });
        }
        let mut sessions = Vec::new();
        while let Some(opened) = opening.join_next().await {
            sessions.push(
                opened.map_err(|error| Error::new(ErrorKind::Connect, "open a session").source(error))??,
            );
        }
        Ok(sessions)
    }

    async fn insert_position(client: &mut Client) -> Result<(u64, u64)> {
        let rows = client
            .simple("SELECT pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.pg_current_wal_flush_lsn()")
            .await?;
        let row = Cells::first(rows);
        let position = |at| -> Result<u64> {
            lsn::parse(row.text(at)?).ok_or_else(|| Error::new(ErrorKind::Corrupt, "read a log position"))
        };
        Ok((position(0)?, position(1)?))
    }
}

#[async_trait]
impl Reader for PostgresReader {
    fn formats(&self, table: &Table) -> Vec<Format> {
        match table.columns.iter().all(|column| is_portable_binary(column.type_id)) {
            true => vec![Format::PostgresBinary, Format::PostgresText, Format::Rows],
            false => vec![Format::PostgresText, Format::Rows],
        }
    }

    async fn check(&self, selection: &Selection) -> Result<Vec<Finding>> {
        check::source(&self.settings, selection).await
    }

    async fn catalog(&self, selection: &Selection) -> Result<Catalog> {
        let mut client = self.asking().await?;
        client.doing("read the source's catalog");
        // Before the catalog: what changes between the two is then read again.
        let mark = catalog::mark(&mut client).await?;
        let same = |known: &&Known| known.mark == mark && known.selection == selection.include;
        let known = self
            .known
            .lock()
            .ok()
            .and_then(|known| known.as_ref().filter(same).map(|known| known.catalog.clone()));
        let catalog = match known {
            Some(catalog) => catalog,
            None => catalog::read(&mut client, selection).await?,
        };
        self.answered(client);
        if let Ok(mut known) = self.known.lock() {
            let selection = selection.include.clone();
            *known = Some(Known { mark, selection, catalog: catalog.clone() });
        }
        Ok(catalog)
    }

    async fn native_schema(&self, catalog: &Catalog) -> Result<NativeSchema> {
        let mut client = self.asking().await?;
        client.doing("read the source's catalog");
        let mut excluded = catalog::names(&mut client).await?;
        excluded.retain(|name| catalog.table(name).is_none());
        let rows = client
            .simple(
                "SELECT n.nspname, c.relname, ic.relname FROM pg_catalog.pg_index i \
                 JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE i.indisreplident AND c.relreplident = 'i'",
            )
            .await?;
        let mut identities = Vec::new();
        for row in rows {
            let row = Cells(row);
            identities.push((TableName::new(row.text(0)?, row.text(1)?), row.text(2)?.to_owned()));
        }
        let version = client.version();
        self.answered(client);
        dump::schema(&self.settings, version, &excluded, &identities).await
    }

    async fn prepare(&self, stream: &str, catalog: &Catalog) -> Result<Position> {
        let name = sql::object_name(stream);
        let mut client = session::plain(&self.settings, "reader").await?;
        check::identities(&mut client, catalog).await?;
        // First the publication: the slot decodes with the catalog as it was at each change, and a publication that
        // did not exist then is an error there.
        publish(&mut client, &name, catalog).await?;
        if standing_slot(client.doing("look for the replication slot"), &name).await?.is_some() {
            // Of a run that died before it had a plan, so nobody depends on it. Its log may hold changes from before their
            // table was published, or of a shape that is not the plan's.
            tracing::info!(slot = %name, "the replication slot of an earlier try is made anew");
            drop_slot(&mut client, &name).await?;
        }
        let lsn = stream::create_slot(&self.settings, &name, SLOT_PATIENCE).await?;
        visible(client.doing("wait until all that the slot leaves out is visible")).await?;
        Ok(lsn::position(lsn))
    }

    async fn capture(&self, stream: &str, _catalog: &Catalog, after: &Position) -> Result<Box<dyn Capture>> {
        let mut client = self.session().await?;
        let rows = client
            .doing("read the current transaction id")
            .simple("SELECT pg_catalog.pg_current_snapshot()")
            .await?;
        let snapshot = snapshot(Cells::first(rows).text(0)?)?;
        let name = sql::object_name(stream);
        Ok(Box::new(Stream::connect(&self.settings, &name, &name, after.order, snapshot.xmax).await?))
    }

    async fn keeps(&self, stream: &str, position: &Position) -> Result<()> {
        // A new session: one that is kept may still lead to the server that was the source before.
        let mut client = self.session().await?;
        client.doing("ask whether the log is still kept");
        stream::check_kept(&mut client, &sql::object_name(stream), position.order).await
    }

    async fn wave(&self, tables: &[&Table], readers: usize) -> Result<Box<dyn Wave>> {
        let mut sessions = self.sessions(2 + readers.max(1)).await?;
        let none = || Error::new(ErrorKind::Connect, "open a session");
        let (mut coordinator, lock) = (sessions.pop().ok_or_else(none)?, sessions.pop().ok_or_else(none)?);
        coordinator.doing("open a wave of the copy");
        for reader in &mut sessions {
            reader.doing("read a chunk");
        }
        Ok(Box::new(PostgresWave::open(coordinator, lock, sessions, tables).await?))
    }

    async fn fetch(&self, table: &Table, key: &Key) -> Result<Fetched> {
        let mut client = self.session().await?;
        client.doing("fetch a row").execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        // Before the snapshot: a TRUNCATE or a rewrite that commits between the two would let it read no row, under a cut
        // that does not contain the change. LOCK takes no snapshot by itself.
        client.execute(&format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", sql::table(&table.name))).await?;
        let rows = client.simple("SELECT pg_catalog.pg_current_snapshot()").await?;
        let snapshot = snapshot(Cells::first(rows).text(0)?)?;
        let stored: Vec<usize> = table.stored().collect();
        let condition = table
            .key()
            .unwrap_or(&[])
            .iter()
            .enumerate()
            .map(|(place, &at)| format!("{} = ${}", sql::ident(&table.columns[at].name), place + 1));
        let params: Vec<_> = key.0.iter().map(encode::parameter).collect();
        let params: Vec<Option<&[u8]>> = params.iter().map(Option::as_deref).collect();
        let found = client
            .query(
                &format!(
                    "SELECT {} FROM ONLY {} WHERE {}",
                    sql::list(&stored, |&at| sql::ident(&table.columns[at].name)),
                    sql::table(&table.name),
                    condition.collect::<Vec<_>>().join(" AND ")
                ),
                &params,
            )
            .await?;
        let row = found.into_iter().next().map(|cells| {
            let mut row = vec![Value::Unchanged; table.columns.len()];
            for (&at, cell) in stored.iter().zip(cells) {
                row[at] = cell.map_or(Value::Null, Value::Text);
            }
            row
        });
        client.execute("COMMIT").await?;
        Ok(Fetched { row, cut: Cut::Snapshot(snapshot) })
    }

    async fn position(&self) -> Result<Position> {
        let mut client = self.asking().await?;
        client.doing("read the end of the log");
        let (end, _) = PostgresReader::insert_position(&mut client).await?;
        let asked = lsn::without_header(end);
        // The log is delivered as far as it is flushed, and what has been committed asynchronously is flushed within
        // three wal_writer_delays.
        for _ in 0..100 {
            let (_, flushed) = PostgresReader::insert_position(&mut client).await?;
            if flushed >= asked {
                self.answered(client);
                return Ok(lsn::position(asked));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Error::new(ErrorKind::Database, "wait for the source to flush its log")
            .with("position", lsn::format(asked))
            .retry(Retry::Later))
    }

    async fn sequences(&self, catalog: &Catalog) -> Result<Vec<Sequence>> {
        let mut client = self.session().await?;
        client.doing("read the source's sequences");
        let rows = client
            .simple(&format!(
                "SELECT n.nspname, c.relname, o.nspname, o.relname FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 LEFT JOIN LATERAL (SELECT tn.nspname, t.relname FROM pg_catalog.pg_depend d \
                   JOIN pg_catalog.pg_class t ON t.oid = d.refobjid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace \
                   WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i') \
                     AND d.refclassid = 'pg_catalog.pg_class'::regclass LIMIT 1) o ON true \
                 WHERE c.relkind = 'S' AND c.relpersistence = 'p' AND {}",
                catalog::OTHERS
            ))
            .await?;
        let roots: std::collections::HashSet<&TableName> =
            catalog.tables.iter().filter_map(|table| table.root.as_ref()).collect();
        let mut names = Vec::new();
        for row in rows {
            let row = Cells(row);
            if let Some(schema) = row.maybe(2) {
                let owner = TableName::new(schema, row.text(3)?);
                if catalog.table(&owner).is_none() && !roots.contains(&owner) {
                    continue;
                }
            }
            names.push(TableName::new(row.text(0)?, row.text(1)?));
        }
        let mut sequences = Vec::new();
        for names in names.chunks(SEQUENCES) {
            let states = names.iter().enumerate().map(|(place, name)| {
                format!("SELECT {place}, last_value, is_called FROM {}", sql::table(name))
            });
            let states = client.simple(&states.collect::<Vec<_>>().join(" UNION ALL ")).await?;
            for state in states {
                let state = Cells(state);
                let name = names[state.parse::<usize>(0)?].clone();
                sequences.push(Sequence {
                    name,
                    last_value: state.parse(1)?,
                    is_called: state.text(2)? == "t",
                });
            }
        }
        Ok(sequences)
    }

    async fn probe(&self) -> Result<Load> {
        self.probe.ask(&self.settings).await
    }

    async fn release(&self, stream: &str, _catalog: &Catalog) -> Result<()> {
        let name = sql::object_name(stream);
        let mut client = session::plain(&self.settings, "reader").await?;
        drop_slot(&mut client, &name).await?;
        client
            .doing("drop the publication")
            .execute(&format!("DROP PUBLICATION IF EXISTS {}", sql::ident(&name)))
            .await?;
        Ok(())
    }
}

async fn drop_slot(client: &mut Client, name: &str) -> Result<()> {
    client
        .doing("drop the replication slot")
        .query(
            "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
            &[text(name)],
        )
        .await
        .map(drop)
}

/// Waits until every transaction that has begun by now is over.
///
/// A slot is consistent once the transactions that it knew of are over. One that began after that, and whose commit was
/// in the log before the slot's position, is not delivered; while it waits for a synchronous standby no snapshot shows
/// it either. A wave that began now would lose it.
async fn visible(client: &mut Client) -> Result<()> {
    let deadline = tokio::time::Instant::now() + SLOT_PATIENCE;
    // An id of our own: a snapshot's xmax is only the first after the last that is over, and would leave out the youngest.
    let ours: u64 = Cells::first(client.simple("SELECT pg_catalog.pg_current_xact_id()").await?).parse(0)?;
    while current_snapshot(client).await?.xmin < ours {
        if tokio::time::Instant::now() >= deadline {
            let error =
                Error::new(ErrorKind::Database, "wait for the transactions that are open on the source");
            return Err(stream::name_blocker(client, error).await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn current_snapshot(client: &mut Client) -> Result<Snapshot> {
    snapshot(Cells::first(client.simple("SELECT pg_catalog.pg_current_snapshot()").await?).text(0)?)
}

/// Where our slot stands, if it is there. One that a session is still creating (its client may be gone: the server
/// creates on) is waited for.
async fn standing_slot(client: &mut Client, name: &str) -> Result<Option<u64>> {
    let deadline = tokio::time::Instant::now() + SLOT_PATIENCE;
    loop {
        let rows = client
            .query(
                "SELECT plugin, database = pg_catalog.current_database(), confirmed_flush_lsn \
                 FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
                &[text(name)],
            )
            .await?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let row = Cells::of(row);
        if row.text(0)? != "pgoutput" || row.text(1)? != "t" {
            return Err(Error::new(ErrorKind::Setup, "use the replication slot")
                .with("slot", name)
                .hint("a slot of this name belongs to something else; choose another --name"));
        }
        if let Some(position) = row.maybe(2) {
            let corrupt = || Error::new(ErrorKind::Corrupt, "read a log position");
            return lsn::parse(position).map(Some).ok_or_else(corrupt);
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Error::new(ErrorKind::Database, "wait for the replication slot")
                .with("slot", name)
                .hint("another session is still creating it, and waits for transactions that are open; run again when they have ended"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn snapshot(text: &str) -> Result<Snapshot> {
    Snapshot::parse(text).ok_or_else(|| Error::new(ErrorKind::Corrupt, "read a snapshot").with("text", text))
}

/// Publishes the catalog's tables: partitioned ones by their root, so that leaves to come are in the log too (and are
/// noticed); the others alone, without tables that inherit from them.
async fn publish(client: &mut Client, name: &str, catalog: &Catalog) -> Result<()> {
    client.doing("create the publication");
    let mut published: Vec<String> = catalog
        .tables
        .iter()
        .map(|table| match &table.root {
            Some(root) => sql::table(root),
            None => format!("ONLY {}", sql::table(&table.name)),
        })
        .collect();
    published.sort_unstable();
    published.dedup();
    let tables = published.join(", ");
    let exists =
        client.query("SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = $1", &[text(name)]).await?;
    let statement = if exists.is_empty() {
        format!("CREATE PUBLICATION {} FOR TABLE {tables}", sql::ident(name))
    } else {
        format!("ALTER PUBLICATION {} SET TABLE {tables}", sql::ident(name))
    };
    client.execute(&statement).await.map(drop).map_err(|error| match error.kind {
        ErrorKind::Permission => error.hint(
            "the source's user must own the tables and may create in the database: \
             GRANT CREATE ON DATABASE … TO …, or use the tables' owner",
        ),
        _ => error,
    })
}

/// Whether the log's identity is the whole row although the table was given no REPLICA IDENTITY FULL: then the
/// application's own UPDATE and DELETE would fail once the table is published.
pub(crate) fn lacks_identity(table: &Table, replica_identity: &str) -> bool {
    matches!(table.identity, Identity::WholeRow) && replica_identity != "f"
}
