//! Loading a chunk: its rows and its record, in one transaction.
//!
//! MariaDB takes a statement with many rows (see `bulk`): a row that does not fit is an error. It costs the server less than LOAD
//! DATA does, and holds no lock while the source is slow; LOAD DATA holds the one on the table's AUTO_INCREMENT column,
//! so that loads of one table wait for each other (`innodb_autoinc_lock_mode=1`, the default).
//!
//! LOAD DATA is for what remains: servers that take no such statement, and rows that no packet may hold. LOCAL means IGNORE
//! there: what would be an error is a warning, and the row is changed or left out. So it counts only without a single
//! warning and with as many rows as were sent; else all of it is rolled back. And the end of the file is the end of
//! the data whatever the reason: when the data cannot be had to its end, the file is not ended, the caller drops the connection,
//! and the server rolls back (see `infile`).

use bytes::BytesMut;
use connector::failpoint::{self, CHUNK_BEFORE_COMMIT};
use connector::{Block, ChunkStream, Error, ErrorKind, Owner, Result};
use model::{Chunk, Cut, Loaded, Position, Row, Table, Value};

use crate::column_type::ColumnType;
use crate::flight::{Flight, Tally};
use crate::statement::TableWriter;
use crate::target::Target;
use crate::wire::Client;
use crate::{fit, line, records, warning, writer};

/// A row beyond this goes as a file: half of the smallest default of `max_allowed_packet` (MySQL 5.5).
const ROW_BYTES_MAX: usize = 512 * 1024;

/// After an error the client is to be dropped.
#[expect(
    clippy::too_many_arguments,
    reason = "the contract's own list, the session, and what is known of the target"
)]
pub(crate) async fn load(
    client: &mut Client,
    owner: &Owner,
    target: &Target,
    table: &Table,
    chunk: &Chunk,
    cut: &Cut,
    settled: &Position,
    local_infile: bool,
    data: &mut dyn ChunkStream,
) -> Result<Loaded> {
    client.doing("load a chunk").execute("START TRANSACTION").await?;
    let writer = TableWriter::new(table, target.clone());
    let written = match local_infile && !client.takes_bulk {
        true => infile(client, &writer, data).await,
        false => inserts(client, &writer, local_infile, data).await,
    };
    let recorded = match written {
        Ok(tally) => {
            let loaded = Loaded {
                chunk: chunk.clone(),
                cut: cut.clone(),
                settled: settled.clone(),
                rows: data.rows(),
                bytes: tally.bytes,
                checksum: tally.hash.digest(),
            };
            records::add_chunk(client, owner, &loaded).await.map(|()| loaded)
        }
        Err(error) => Err(error.with("chunk of", &table.name)),
    };
    match recorded {
        Ok(loaded) => {
            failpoint::hit(CHUNK_BEFORE_COMMIT);
            writer::commit(client).await?;
            Ok(loaded)
        }
        Err(error) => {
            // So that nobody waits for its locks until the server finds the connection closed.
            if client.is_usable()
                && let Err(failed) = client.execute("ROLLBACK").await
            {
                tracing::debug!(%failed, "the rollback is left to the server");
            }
            Err(error)
        }
    }
}

/// The next rows of the stream. `None` at its end, if all came that it says it delivered.
async fn next(data: &mut dyn ChunkStream, came: &mut u64) -> Result<Option<Vec<Row>>> {
    match data.next().await? {
        Some(Block::Rows(rows)) => {
            *came += rows.len() as u64;
            Ok(Some(rows))
        }
        Some(Block::Raw(_)) => {
            Err(Error::new(ErrorKind::Corrupt, "load a chunk").with("format", "not rows of values"))
        }
        None if *came == data.rows() => Ok(None),
        None => Err(Error::new(ErrorKind::Conflict, "load a chunk")
            .with("rows read", data.rows())
            .with("rows delivered", *came)),
    }
}

async fn inserts(
    client: &mut Client,
    writer: &TableWriter,
    local_infile: bool,
    data: &mut dyn ChunkStream,
) -> Result<Tally> {
    let mut flight = Flight::counting();
    let (mut came, mut lines) = (0, Lines::new(writer));
    while let Some(rows) = next(data, &mut came).await? {
        for row in &rows {
            if local_infile && row.iter().map(Value::weight).sum::<usize>() > ROW_BYTES_MAX {
                flight.land(client).await.map_err(|failure| failure.error)?;
                lines.put(std::slice::from_ref(row))?;
                client.load_begin(&writer.load_data()).await?;
                client.load_send(&lines.block).await?;
                finish(client, 1).await?;
                flight.count(&lines.block);
            } else {
                let bound = writer.insert(row)?;
                flight.queue(client, 0, None, bound).await.map_err(|failure| failure.error)?;
            }
        }
    }
    flight.land(client).await.map_err(|failure| failure.error)?;
    flight.forget(client)?;
    Ok(flight.tally.unwrap_or_default())
}

async fn infile(client: &mut Client, writer: &TableWriter, data: &mut dyn ChunkStream) -> Result<Tally> {
    client.load_begin(&writer.load_data()).await?;
    let (mut came, mut lines, mut tally) = (0, Lines::new(writer), Tally::default());
    while let Some(rows) = next(data, &mut came).await? {
        lines.put(&rows)?;
        client.load_send(&lines.block).await?;
        tally.add(&lines.block);
    }
    finish(client, came).await?;
    Ok(tally)
}

/// Ends the file. What the server made of it must be just as many rows.
async fn finish(client: &mut Client, rows: u64) -> Result<()> {
    let done = client.load_finish().await?;
    if done.affected == rows && done.warnings == 0 {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Refused, "load a chunk")
        .with("rows sent", rows)
        .with("rows written", done.affected)
        .with("warnings", done.warnings)
        .hint("nothing of the chunk was kept; change the value on the source, or the column on the target to a type that holds it");
    Err(warning::explain(client, error).await)
}

/// Rows as lines of a file.
struct Lines<'a> {
    writer: &'a TableWriter,
    columns: Vec<&'a ColumnType>,
    block: BytesMut,
}

impl<'a> Lines<'a> {
    fn new(writer: &'a TableWriter) -> Lines<'a> {
        let columns = writer.stored.iter().filter_map(|&at| writer.target.columns[at].as_ref()).collect();
        Lines { writer, columns, block: BytesMut::new() }
    }

    /// Puts the lines of these rows in place of those before.
    fn put(&mut self, rows: &[Row]) -> Result<()> {
        self.block.clear();
        let mut cells = Vec::with_capacity(self.columns.len());
        for row in rows {
            cells.clear();
            let TableWriter { table, target, stored, .. } = self.writer;
            fit::row(table, target, row, stored, &mut cells)?;
            line::put(&mut self.block, self.columns.iter().copied(), &cells);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use model::{Range, TableName, Value};
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::error::number;
    use crate::statement::tests::{INT, writer};
    use crate::wire::tests::{DONE, END, WORD, connected, framed, sent};

    /// Blocks of one row each, and an error instead of the end where there are fewer than promised.
    struct Rows {
        left: Vec<i64>,
        promised: u64,
    }

    #[async_trait]
    impl ChunkStream for Rows {
        async fn next(&mut self) -> Result<Option<Block>> {
            match self.left.pop() {
                Some(id) => Ok(Some(Block::Rows(vec![vec![Value::Integer(id)]]))),
                None if self.promised == 0 => Err(Error::new(ErrorKind::Connect, "read a chunk")),
                None => Ok(None),
            }
        }

        fn rows(&self) -> u64 {
            self.promised
        }
    }

    async fn run(client: &mut Client, rows: &[i64], promised: u64) -> Result<Loaded> {
        let writer = writer(&[("id", INT)], &[0]);
        let owner = Owner { stream: "s".to_owned(), epoch: 1, settled: false };
        let chunk = Chunk { table: TableName::new("s", "t"), number: 0, range: Range::Whole, last: true };
        let (cut, settled) = (Cut::Prefix { order: 1 }, Position { order: 1, text: String::new() });
        let mut data = Rows { left: rows.to_vec(), promised };
        load(client, &owner, &writer.target, &writer.table, &chunk, &cut, &settled, true, &mut data).await
    }

    const ASKED: &[u8] = b"\xfbcrossfade";
    /// Without the many rows that MariaDB takes in one statement.
    const STATEMENT: &[u8] =
        b"\x03LOAD DATA LOCAL INFILE 'crossfade' INTO TABLE `shop`.`t` CHARACTER SET utf8mb4 FIELDS \
        TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' (`id`)";

    #[tokio::test]
    async fn a_warning_is_a_refusal() {
        let (mut client, mut server) = connected();
        server.write_all(&framed(1, &[DONE])).await.unwrap();
        server.write_all(&framed(1, &[ASKED])).await.unwrap();
        // Two rows affected, one warning.
        server.write_all(&framed(5, &[b"\x00\x02\x00\x02\x00\x01\x00"])).await.unwrap();
        let note = b"\x04Note\x044038\x04json";
        let warning = b"\x07Warning\x041265\x1eData truncated for column 'id'";
        server.write_all(&framed(1, &[b"\x03", WORD, WORD, WORD, note, warning, END])).await.unwrap();
        server.write_all(&framed(1, &[DONE])).await.unwrap();
        let error = run(&mut client, &[8, 7], 2).await.unwrap_err();
        assert_eq!((error.kind, number(&error)), (ErrorKind::Refused, Some(1265)));
        assert_eq!(
            error.to_string(),
            "could not load a chunk: rows sent 2, rows written 2, warnings 1, chunk of public.t"
        );
        let sent = sent(&mut server).await;
        assert!(sent.windows(STATEMENT.len()).any(|window| window == STATEMENT));
        let file = b"\x02\0\0\x027\n\x02\0\0\x038\n\0\0\0\x04";
        assert!(sent.windows(file.len()).any(|window| window == file));
        assert!(sent.ends_with(b"\x03ROLLBACK"));
    }

    #[tokio::test]
    async fn the_file_is_not_ended_when_the_rows_are_not_all_there() {
        for (promised, kind) in [(0, ErrorKind::Connect), (3, ErrorKind::Conflict)] {
            let (mut client, mut server) = connected();
            server.write_all(&framed(1, &[DONE])).await.unwrap();
            server.write_all(&framed(1, &[ASKED])).await.unwrap();
            assert_eq!(run(&mut client, &[8, 7], promised).await.unwrap_err().kind, kind);
            assert!(!client.is_usable());
            assert!(sent(&mut server).await.ends_with(STATEMENT));
        }
    }
}
