//! The writing half: claim, schema, chunk loads. Applying changes is in `apply`.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::BytesMut;
use connector::{
    Applier, Block, ChunkStream, Claim, Copied, Error, ErrorKind, Finding, Format, NativeSchema, Owner,
    Result, Retry, Writer, failpoint,
};
use model::{Catalog, Chunk, Cut, Loaded, Position, Sequence, Table, TableName};
use tokio::sync::watch;
use xxhash_rust::xxh3::Xxh3;

use crate::apply::PostgresApplier;
use crate::catalog::{Cells, is_portable_binary};
use crate::records::{self, text};
use crate::url::Settings;
use crate::wire::Client;
use crate::{check, create, encode, fit, session, sql};

pub(crate) struct PostgresWriter {
    settings: Settings,
    /// Connections for loads, ready for the next one.
    idle: Mutex<Vec<Client>>,
}

impl PostgresWriter {
    pub(crate) fn new(settings: Settings) -> PostgresWriter {
        PostgresWriter { settings, idle: Mutex::new(Vec::new()) }
    }

    /// A session whose writes fire no triggers and check no foreign keys: the log has what triggers did.
    async fn session(&self, owner: &Owner) -> Result<Client> {
        if let Some(client) = self.idle.lock().ok().and_then(|mut idle| idle.pop()) {
            return Ok(client);
        }
        session::writing(&self.settings, &owner.stream).await
    }

    /// Only sessions that are outside a transaction and in step come back.
    fn give_back(&self, client: Client) {
        if client.is_usable()
            && !client.in_transaction()
            && let Ok(mut idle) = self.idle.lock()
        {
            idle.push(client);
        }
    }
}

#[async_trait]
impl Writer for PostgresWriter {
    fn formats(&self, table: &Table) -> Vec<Format> {
        match table.columns.iter().all(|column| is_portable_binary(column.type_id)) {
            true => vec![Format::PostgresBinary, Format::PostgresText, Format::Rows],
            false => vec![Format::PostgresText, Format::Rows],
        }
    }

    async fn check(&self, catalog: &Catalog, ours: &str) -> Result<Vec<Finding>> {
        check::target(&self.settings, catalog, ours).await
    }

    async fn claim(&self, stream: &str) -> Result<Claim> {
        if let Ok(mut idle) = self.idle.lock() {
            idle.clear();
        }
        let mut client = session::keeping(&self.settings, stream).await?;
        records::claim(&mut client, stream).await
    }

    async fn create(&self, owner: &Owner, catalog: &Catalog, native: Option<&NativeSchema>) -> Result<()> {
        let mut client = self.session(owner).await?;
        create::tables(&mut client, owner, catalog, native).await?;
        self.give_back(client);
        Ok(())
    }

    async fn have_unique(&self, tables: &[&Table]) -> Result<Vec<bool>> {
        let catalog = Catalog { tables: tables.iter().map(|&table| table.clone()).collect() };
        let mut client = session::plain(&self.settings, "").await?;
        let names = create::target_names(&mut client, &catalog).await?;
        let rows = client
            .query(
                "SELECT n.place FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY n(name, place) \
                 WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = n.name::regclass AND i.indisunique \
                 AND NOT i.indisprimary)",
                &[Some(&create::regclasses(&names))],
            )
            .await?;
        let found = create::places(rows)?;
        Ok((0..tables.len()).map(|place| found.contains(&place)).collect())
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
        let mut client = self.session(owner).await?;
        client.doing("load a chunk");
        let copied = copy_in(&mut client, table, format, data)
            .await
            .map_err(|error| error.with("chunk of", &table.name))?;
        if copied.rows != data.rows() {
            return Err(Error::new(ErrorKind::Conflict, "load a chunk")
                .with("table", &table.name)
                .with("rows read", data.rows())
                .with("rows written", copied.rows)
                .hint("nothing of the chunk was kept; a rule or trigger on the target that changes what is inserted would do this"));
        }
        let loaded = Loaded {
            chunk: chunk.clone(),
            cut: cut.clone(),
            settled: settled.clone(),
            rows: copied.rows,
            bytes: copied.bytes,
            checksum: copied.checksum,
        };
        record_chunk(&mut client, owner, &loaded).await?;
        failpoint::hit(failpoint::CHUNK_BEFORE_COMMIT);
        commit(&mut client).await?;
        self.give_back(client);
        Ok(loaded)
    }

    async fn ledger(&self, owner: &Owner) -> Result<Vec<Loaded>> {
        let mut client = self.session(owner).await?;
        // Loads in flight hold this row in share mode until they end.
        records::record(&mut client, owner).await?;
        let ledger = records::ledger(&mut client, &owner.stream).await?;
        self.give_back(client);
        Ok(ledger)
    }

    async fn reset(&self, owner: &Owner, table: &Table) -> Result<()> {
        let mut client = self.session(owner).await?;
        let name = create::target_name(&mut client, &table.name).await?;
        client.doing("empty a table that is copied again");
        client.execute("BEGIN").await?;
        // Not TRUNCATE: it is refused where a foreign key points here, and waits for every reader of the target.
        // What is deleted here is part of one interrupted copy.
        let empty = match create::is_referenced(&mut client, std::slice::from_ref(&name)).await? {
            true => format!("DELETE FROM ONLY {}", sql::table(&name)),
            false => format!("TRUNCATE ONLY {}", sql::table(&name)),
        };
        client.execute(&empty).await?;
        client
            .query(
                "DELETE FROM crossfade.chunk WHERE stream = $1 AND table_schema = $2 AND table_name = $3",
                &[text(&owner.stream), text(&table.name.schema), text(&table.name.name)],
            )
            .await?;
        records::fence(&mut client, owner).await?;
        commit(&mut client).await?;
        self.give_back(client);
        Ok(())
    }

    async fn create_keys(
        &self,
        owner: &Owner,
        catalog: &Catalog,
        native: Option<&NativeSchema>,
        copied: watch::Receiver<Copied>,
        builders: usize,
    ) -> Result<()> {
        create::keys(&self.settings, owner, catalog, native, copied, builders).await
    }

    async fn finish(
        &self,
        owner: &Owner,
        catalog: &Catalog,
        native: Option<&NativeSchema>,
        builders: usize,
    ) -> Result<Vec<(String, String)>> {
        create::finish(&self.settings, owner, catalog, native, builders).await
    }

    async fn applier(&self, owner: &Owner, catalog: &Catalog) -> Result<Box<dyn Applier>> {
        let client = session::applying(&self.settings, &owner.stream).await?;
        Ok(Box::new(PostgresApplier::open(client, owner.clone(), catalog).await?))
    }

    fn lanes_max(&self) -> usize {
        usize::MAX
    }

    async fn advance_sequences(&self, owner: &Owner, sequences: &[Sequence]) -> Result<()> {
        let mut client = self.session(owner).await?;
        client.doing("move a sequence ahead").execute("BEGIN").await?;
        records::fence(&mut client, owner).await?;
        advance(&mut client, sequences).await?;
        commit(&mut client).await?;
        self.give_back(client);
        Ok(())
    }
}

/// A commit whose answer does not come may have happened: only the record can tell.
pub(crate) async fn commit(client: &mut Client) -> Result<()> {
    client.execute("COMMIT").await.map(drop).map_err(|error| match error.kind {
        ErrorKind::Connect => error.retry(Retry::Unknown),
        _ => error,
    })
}

struct Written {
    rows: u64,
    bytes: u64,
    checksum: u64,
}

async fn copy_in(
    client: &mut Client,
    table: &Table,
    format: Format,
    data: &mut dyn ChunkStream,
) -> Result<Written> {
    let name = create::target_name(client, &table.name).await?;
    let stored: Vec<usize> = table.stored().collect();
    let columns = sql::list(&stored, |&at| sql::ident(&table.columns[at].name));
    let option = match format {
        Format::PostgresBinary => "binary",
        Format::PostgresText | Format::Rows => "text",
    };
    client
        .copy_in_start(&format!("BEGIN; COPY {} ({columns}) FROM STDIN (FORMAT {option})", sql::table(&name)))
        .await?;
    let (mut hash, mut bytes) = (Xxh3::new(), 0);
    let mut lines = BytesMut::new();
    loop {
        match data.next().await {
            Ok(Some(Block::Raw(block))) => {
                bytes += block.len() as u64;
                hash.update(&block);
                client.copy_in_raw(&block).await?;
            }
            Ok(Some(Block::Rows(rows))) => {
                rows.iter().try_for_each(|row| fit::row(table, row))?;
                lines.clear();
                rows.iter().for_each(|row| encode::copy_line(&mut lines, row, &stored));
                bytes += lines.len() as u64;
                hash.update(&lines);
                client.copy_in_data(&lines).await?;
            }
            Ok(None) => break,
            Err(error) => {
                client.copy_in_fail("the source could not be read to the end").await?;
                return Err(error);
            }
        }
    }
    let rows = client.copy_in_finish().await?;
    Ok(Written { rows, bytes, checksum: hash.digest() })
}

/// Records the chunk and holds the next claim off until this transaction has ended, in one statement (see
/// [`records::fence`]).
async fn record_chunk(client: &mut Client, owner: &Owner, loaded: &Loaded) -> Result<()> {
    let table = &loaded.chunk.table;
    client.queue(
        "INSERT INTO crossfade.chunk (stream, table_schema, table_name, number, loaded) \
         SELECT p.stream, $3, $4, $5, $6 FROM crossfade.progress p WHERE p.stream = $1 AND p.epoch = $2 FOR SHARE",
        &[
            text(&owner.stream),
            text(&owner.epoch.to_string()),
            text(&table.schema),
            text(&table.name),
            text(&loaded.chunk.number.to_string()),
            text(&records::to_json(loaded)?),
        ],
    )?;
    match client.flush_queued().await {
        Ok(recorded) if recorded == [1] => Ok(()),
        Ok(_) => Err(records::fenced(owner)),
        Err(failed) => Err(match crate::error::sqlstate(&failed.error) {
            Some("23505") => Error::new(ErrorKind::Conflict, "record a chunk")
                .with("table", table)
                .with("chunk", loaded.chunk.number)
                .source(failed.error),
            _ => failed.error,
        }),
    }
}

/// So many sequences are asked about or moved with one message.
pub(crate) const SEQUENCES: usize = 200;

/// Never backwards, whichever way the sequences count. A sequence that the target does not have is not needed there.
async fn advance(client: &mut Client, sequences: &[Sequence]) -> Result<()> {
    let rows = client
        .query(
            "SELECT n.place, s.seqincrement > 0 FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY n(name, place) \
             JOIN pg_catalog.pg_sequence s ON s.seqrelid = pg_catalog.to_regclass(n.name)",
            &[Some(&create::regclasses(sequences.iter().map(|sequence| &sequence.name)))],
        )
        .await?;
    let mut statements = Vec::new();
    for row in rows {
        let row = Cells::of(row);
        let sequence = &sequences[row.parse::<usize>(0)? - 1];
        let name = sql::table(&sequence.name);
        let furthest = if row.text(1)? == "t" { "GREATEST" } else { "LEAST" };
        statements.push(format!(
            "SELECT pg_catalog.setval({}::regclass, {furthest}(last_value, {value}), \
             CASE WHEN last_value = {value} THEN is_called OR {called} WHEN {furthest}(last_value, {value}) = {value} \
             THEN {called} ELSE is_called END) FROM {name}",
            sql::literal(&name),
            value = sequence.last_value,
            called = sequence.is_called,
        ));
    }
    for statements in statements.chunks(SEQUENCES) {
        client.simple(&statements.join(";\n")).await?;
    }
    Ok(())
}

pub(crate) fn quoted(names: &[TableName]) -> String {
    sql::list(names, sql::table)
}
