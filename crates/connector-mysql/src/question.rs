//! Statements of ours with bound values. Each is prepared once in a session and kept there.

use std::sync::Arc;

use connector::Result;

use crate::cells::Cells;
use crate::prepared::{Param, Statement};
use crate::wire::Client;

pub(crate) fn text(value: &str) -> Param<'_> {
    Param::Bytes(value.as_bytes())
}

/// The rows of an answer. Its columns have to be text: numbers are cast to CHAR.
pub(crate) async fn ask(client: &mut Client, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Cells>> {
    let statement = kept(client, sql).await?;
    client.rows(&statement, params).await?;
    let (mut rows, mut row) = (Vec::new(), Vec::new());
    while client.next_row(&mut row).await? {
        rows.push(Cells(std::mem::take(&mut row)));
    }
    Ok(rows)
}

/// Runs a statement without rows; so many rows it has inserted, deleted, or found to update.
pub(crate) async fn run(client: &mut Client, sql: &'static str, params: &[Param<'_>]) -> Result<u64> {
    let statement = kept(client, sql).await?;
    client.queue(&statement, params)?;
    Ok(client.flush_queued().await?.into_iter().sum())
}

async fn kept(client: &mut Client, sql: &'static str) -> Result<Arc<Statement>> {
    if let Some(statement) = client.kept.get(sql) {
        return Ok(Arc::clone(statement));
    }
    let statement = Arc::new(client.prepare(sql).await?);
    client.kept.insert(sql, Arc::clone(&statement));
    Ok(statement)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::wire::tests::{DONE, END, WORD, connected, framed, sent};

    #[tokio::test]
    async fn a_statement_is_prepared_once() {
        let (mut client, mut server) = connected();
        let prepared: &[u8] = b"\x00\x05\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00";
        server.write_all(&framed(1, &[prepared, WORD])).await.unwrap();
        for _ in 0..2 {
            server.write_all(&framed(1, &[DONE])).await.unwrap();
            assert_eq!(run(&mut client, "DELETE FROM t WHERE w = ?", &[text("ok")]).await.unwrap(), 1);
        }
        let sent = sent(&mut server).await;
        assert_eq!(sent.windows(6).filter(|window| window == b"DELETE").count(), 1);
    }

    #[tokio::test]
    async fn answers_are_read_as_text() {
        let (mut client, mut server) = connected();
        let prepared: &[u8] = b"\x00\x05\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00";
        server.write_all(&framed(1, &[prepared, WORD])).await.unwrap();
        server.write_all(&framed(1, &[b"\x01", WORD, b"\x00\x00\x0242", b"\x00\x04", END])).await.unwrap();
        let rows = ask(&mut client, "SELECT w FROM t", &[]).await.unwrap();
        assert_eq!(rows[0].parse::<u64>(0).unwrap(), 42);
        assert_eq!((rows.len(), rows[1].maybe(0)), (2, None));
        assert!(client.is_usable());
    }
}
