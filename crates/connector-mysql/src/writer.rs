//! The writing half: claim, chunk loads, records. Applying changes is in `apply`, the schema in `create`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use connector::{
    Applier, ChunkStream, Claim, Copied, Error, ErrorKind, Finding, Format, NativeSchema, Owner, Result,
    Retry, Writer,
};
use model::{Catalog, Chunk, Cut, Loaded, Position, Sequence, Table, TableName};
use tokio::sync::{OnceCell, watch};

use crate::apply::MysqlApplier;
use crate::cells::Cells;
use crate::target::Target;
use crate::url::Settings;
use crate::wire::Client;
use crate::{check_target, create, finish, load, records, sequence, session, sql, target, token};

pub(crate) struct MysqlWriter {
    settings: Settings,
    /// Sessions for loads, ready for the next one.
    idle: Mutex<Vec<Client>>,
    /// The target's tables that are loaded, by the source's name.
    targets: tokio::sync::Mutex<HashMap<TableName, Arc<Target>>>,
    /// Whether the server takes LOAD DATA LOCAL.
    local_infile: OnceCell<bool>,
}

impl MysqlWriter {
    pub(crate) fn new(settings: Settings) -> MysqlWriter {
        MysqlWriter {
            settings,
            idle: Mutex::default(),
            targets: tokio::sync::Mutex::default(),
            local_infile: OnceCell::new(),
        }
    }

    async fn session(&self, owner: &Owner) -> Result<Client> {
        while let Some(mut client) = self.idle() {
            // What comes now is that the server has closed the connection, or why it will.
            if client.fill_ready().await.is_ok() && client.incoming.is_empty() {
                token::end_left(&mut client, &self.settings.left).await?;
                return Ok(client);
            }
        }
        session::writing(&self.settings, &owner.stream).await
    }

    fn idle(&self) -> Option<Client> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Only sessions that are outside a transaction come back: an open one would keep the tables' definitions locked.
    fn give_back(&self, client: Client) {
        if client.is_usable() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        }
    }

    async fn target(&self, client: &mut Client, table: &Table) -> Result<Arc<Target>> {
        let mut targets = self.targets.lock().await;
        if let Some(target) = targets.get(&table.name) {
            return Ok(Arc::clone(target));
        }
        self.read_targets(client, &[table], &mut targets).await?;
        targets.get(&table.name).cloned().ok_or_else(|| {
            Error::new(ErrorKind::Schema, "find a table on the target").with("table", &table.name)
        })
    }

    async fn read_targets(
        &self,
        client: &mut Client,
        tables: &[&Table],
        targets: &mut HashMap<TableName, Arc<Target>>,
    ) -> Result<()> {
        let found = target::read(client, &self.settings, tables).await?;
        let names = tables.iter().map(|table| table.name.clone());
        targets.extend(names.zip(found.into_iter().map(Arc::new)));
        Ok(())
    }

    async fn local_infile(&self, client: &mut Client) -> Result<bool> {
        let asked = self.local_infile.get_or_try_init(async || {
            let rows = client.query("SELECT @@global.local_infile").await?;
            Ok(Cells::first(rows).text(0)? == "1")
        });
        asked.await.copied()
    }
}

#[async_trait]
impl Writer for MysqlWriter {
    fn formats(&self, _table: &Table) -> Vec<Format> {
        vec![Format::Rows]
    }

    async fn check(&self, catalog: &Catalog, ours: &str) -> Result<Vec<Finding>> {
        check_target::target(&self.settings, catalog, ours).await
    }

    async fn claim(&self, stream: &str) -> Result<Claim> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        records::claim(&self.settings, stream).await
    }

    async fn create(&self, owner: &Owner, catalog: &Catalog, native: Option<&NativeSchema>) -> Result<()> {
        let mut client = session::writing(&self.settings, &owner.stream).await?;
        target::distinct(&mut client, catalog).await?;
        create::tables(&mut client, &self.settings, owner, catalog, native).await?;
        let mut targets = self.targets.lock().await;
        targets.clear();
        self.read_targets(&mut client, &catalog.tables.iter().collect::<Vec<_>>(), &mut targets).await
    }

    async fn have_unique(&self, tables: &[&Table]) -> Result<Vec<bool>> {
        let mut client = session::asking(&self.settings).await?;
        let targets = target::read(&mut client, &self.settings, tables).await?;
        Ok(targets.iter().map(|target| target.collides).collect())
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
        let mut client = self.session(owner).await?;
        let target = self.target(&mut client, table).await?;
        let local_infile = self.local_infile(&mut client).await?;
        client.doing("load a chunk");
        let loaded =
            load::load(&mut client, owner, &target, table, chunk, cut, settled, local_infile, data).await?;
        self.give_back(client);
        Ok(loaded)
    }

    async fn ledger(&self, owner: &Owner) -> Result<Vec<Loaded>> {
        let mut client = self.session(owner).await?;
        client.doing("read the chunk ledger").execute("START TRANSACTION").await?;
        // Loads in flight hold the row of the progress in share mode until they end.
        records::record(&mut client, owner).await?;
        let ledger = records::ledger(&mut client, owner).await?;
        commit(&mut client).await?;
        self.give_back(client);
        Ok(ledger)
    }

    async fn reset(&self, owner: &Owner, table: &Table) -> Result<()> {
        let mut client = self.session(owner).await?;
        let name = target::name(&self.settings, &table.name)?;
        client.doing("empty a table that is copied again").execute("START TRANSACTION").await?;
        // Not TRUNCATE, which commits by itself. What is deleted here is part of one interrupted copy.
        client.execute(&format!("DELETE FROM {}", sql::table(&name))).await?;
        records::forget(&mut client, owner, &table.name).await?;
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
        finish::finish(&self.settings, owner, catalog, native, builders).await
    }

    async fn applier(&self, owner: &Owner, catalog: &Catalog) -> Result<Box<dyn Applier>> {
        let mut client = session::writing(&self.settings, &owner.stream).await?;
        let tables: Vec<&Table> = catalog.tables.iter().collect();
        let targets = target::read(&mut client, &self.settings, &tables).await?;
        Ok(Box::new(MysqlApplier::open(client, owner.clone(), catalog, targets).await?))
    }

    /// Each is a session that waits for the target's disk at its commits, which the server does together.
    fn lanes_max(&self) -> usize {
        8
    }

    async fn advance_sequences(&self, owner: &Owner, sequences: &[Sequence]) -> Result<()> {
        let mut client = self.session(owner).await?;
        sequence::advance(&mut client, &self.settings, owner, sequences).await?;
        self.give_back(client);
        Ok(())
    }
}

/// A commit whose answer does not come, or that was interrupted, may have happened: only the record can tell.
pub(crate) async fn commit(client: &mut Client) -> Result<()> {
    client.execute("COMMIT").await.map(drop).map_err(|error| match error.retry {
        Retry::Never => error,
        Retry::Later | Retry::Unknown => error.retry(Retry::Unknown),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::wire::tests::{DONE, KILLED, connected, framed};

    #[tokio::test]
    async fn only_the_record_knows_of_a_commit_without_an_answer() {
        let deadlock: &[u8] = b"\xff\xbd\x04#40001Deadlock found";
        let full: &[u8] = b"\xff\x9c\x04#HY000Got error during COMMIT";
        let cases: [(&[&[u8]], Option<Retry>); 5] = [
            (&[DONE], None),
            (&[], Some(Retry::Unknown)),
            (&[KILLED], Some(Retry::Unknown)),
            (&[deadlock], Some(Retry::Unknown)),
            (&[full], Some(Retry::Never)),
        ];
        for (answer, expected) in cases {
            let (mut client, mut server) = connected();
            server.write_all(&framed(1, answer)).await.unwrap();
            server.shutdown().await.unwrap();
            assert_eq!(commit(&mut client).await.err().map(|error| error.retry), expected, "{answer:?}");
        }
    }
}
