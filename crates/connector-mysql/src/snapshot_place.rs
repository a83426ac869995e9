//! Where a snapshot of MariaDB lies in the log, as its session tells it.
//!
//! The server answers from one variable for all sessions: it puts the place of whoever asks into it and then reads it, with no
//! lock around the two (`binlog_snapshot_position` and `TC_LOG_BINLOG::set_status_variables` in sql/log.cc). When two ask at
//! once, one may be told the place of the other's snapshot, or of the log's end: another dump, or a monitor that asks for
//! SHOW GLOBAL STATUS, is enough. Taken for a cut, a place behind the snapshot loses what was committed in between.
//!
//! So ours ask one after the other, and the place counts that is told so many times in a row: to be wrong each of them would
//! have to meet another session within the same few microseconds, and the same wrong place each time.

use std::time::Duration;

use connector::{Error, ErrorKind, Result, Retry};
use tokio::sync::Mutex;

use crate::cells::Cells;
use crate::wire::Client;

const FIT: &str = "fit a read to the log";

/// So often in a row the same has to be told.
const TIMES: usize = 6;
const TRIES_MAX: usize = 200;
const PAUSE: Duration = Duration::from_millis(1);

/// Of all sessions of this process, whichever migration they belong to.
static TURN: Mutex<()> = Mutex::const_new(());

/// File and offset.
pub(crate) async fn snapshot_place(client: &mut Client) -> Result<(String, u64)> {
    let _turn = TURN.lock().await;
    let mut told = ask(client).await?;
    let mut times = 1;
    for _ in 0..TRIES_MAX {
        if times == TIMES {
            return Ok(told);
        }
        let again = ask(client).await?;
        if again == told {
            times += 1;
            continue;
        }
        (told, times) = (again, 1);
        // Another session that asks without pause should not meet us at each turn.
        tokio::time::sleep(PAUSE).await;
    }
    Err(Error::new(ErrorKind::Database, FIT)
        .with("because", "the server tells another place of one snapshot each time")
        .retry(Retry::Later)
        .hint("other sessions ask for SHOW STATUS without pause, and MariaDB mixes the answers up: let them pause"))
}

async fn ask(client: &mut Client) -> Result<(String, u64)> {
    let (mut file, mut offset) = (None, None);
    for row in client.query("SHOW STATUS LIKE 'binlog_snapshot_%'").await? {
        let row = Cells(row);
        match row.text(0)?.to_ascii_lowercase().as_str() {
            "binlog_snapshot_file" => file = Some(row.text(1)?.to_owned()),
            "binlog_snapshot_position" => offset = Some(row.parse(1)?),
            _ => {}
        }
    }
    file.filter(|file| !file.is_empty()).zip(offset).ok_or_else(|| {
        Error::new(ErrorKind::Setup, FIT).hint("the server keeps no binary log: set log_bin and restart it")
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::wire::tests::{END, WORD, connected, framed};

    /// What the server says when it is asked: a file and this offset.
    fn told(offset: usize) -> Vec<u8> {
        let row = |name: &str, value: &str| {
            let cells = [name, value].map(|cell| [&[cell.len() as u8], cell.as_bytes()].concat());
            cells.concat()
        };
        let file = row("Binlog_snapshot_file", "b.000001");
        let position = row("Binlog_snapshot_position", &offset.to_string());
        framed(1, &[b"\x02", WORD, WORD, &file, &position, END]).to_vec()
    }

    async fn asked(answers: impl IntoIterator<Item = usize>) -> Result<(String, u64)> {
        let (mut client, mut server) = connected();
        let script: Vec<u8> = answers.into_iter().flat_map(told).collect();
        let (told, written) = tokio::join!(snapshot_place(&mut client), server.write_all(&script));
        written.unwrap();
        told
    }

    #[tokio::test]
    async fn an_answer_that_was_meant_for_another_session_is_not_believed() {
        for answers in [
            &[900, 700, 700, 700, 700, 700, 700][..],
            &[700, 900, 700, 700, 700, 700, 700, 700],
            &[700, 700, 700, 700, 700, 900, 700, 700, 700, 700, 700, 700],
            &[900, 900, 900, 900, 900, 700, 700, 700, 700, 700, 700],
        ] {
            assert_eq!(asked(answers.iter().copied()).await.unwrap(), ("b.000001".to_owned(), 700));
        }
        let error = asked((0..=TRIES_MAX).map(|at| 100 + at)).await.unwrap_err();
        assert_eq!((error.kind, error.retry), (ErrorKind::Database, Retry::Later));
    }
}
