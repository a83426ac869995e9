//! How a session of ours is found again on the server.
//!
//! A connection that is lost or let go of is not the end of its session there: a statement goes on, and behind a broken
//! network an open transaction keeps its locks for hours. The number of a connection is another's after a restart of
//! the server. So each session that writes holds a lock with a name of its own (`GET_LOCK`), and the name is on record in
//! `crossfade.session`. The server gives the lock up when the session has ended and its transaction has been rolled
//! back, so as long as somebody holds it he can be killed, and when nobody does nothing of that session is still to come.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connector::{Error, ErrorKind, Result, Retry};

use crate::cells::Cells;
use crate::error::number;
use crate::question::{ask, run, text};
use crate::wire::Client;

/// The locks of sessions that were let go of here, and may live on there.
#[derive(Clone, Default)]
pub(crate) struct Left(Arc<Mutex<HashSet<String>>>);

impl Left {
    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Part of a client: when that is dropped, its session is one that was left.
pub(crate) struct Token {
    name: String,
    left: Left,
}

impl Drop for Token {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.left.names().insert(name);
    }
}

/// Makes a session one that can be found. The lock comes before the record: a name on record that nobody holds is that of a
/// session that has ended.
pub(crate) async fn take(client: &mut Client, left: &Left, stream: &str) -> Result<()> {
    client.doing("make a session known");
    let name = Cells::first(client.query("SELECT CONCAT('crossfade ', UUID())").await?).text(0)?.to_owned();
    let locked = ask(client, "SELECT CAST(GET_LOCK(?, 0) AS CHAR)", &[text(&name)]).await?;
    if locked.first().and_then(|row| row.maybe(0)) != Some("1") {
        return Err(Error::new(ErrorKind::Database, "make a session known")
            .with("lock", name)
            .with("because", "the server did not give the lock")
            .retry(Retry::Later));
    }
    client.token = Some(Token { name: name.clone(), left: left.clone() });
    run(client, "INSERT INTO crossfade.session (token, stream) VALUES (?, ?)", &[text(&name), text(stream)])
        .await?;
    client.execute("COMMIT").await.map(drop)
}

/// Ends what this process has left: it would hold locks that we need, and what it was about to do could come after what we
/// read now.
pub(crate) async fn end_left(client: &mut Client, left: &Left) -> Result<()> {
    let names = left.names().clone();
    if names.is_empty() {
        return Ok(());
    }
    end(client, |_, name| names.contains(name)).await?;
    left.names().retain(|name| !names.contains(name));
    Ok(())
}

/// Ends all sessions of a stream but this one.
pub(crate) async fn end_others(client: &mut Client, stream: &str) -> Result<()> {
    end(client, |of, _| of == stream).await
}

/// Ends sessions by stream and name, and waits until they are gone. How long that takes is up to the server, which rolls back what
/// they have written; going on before would only be waiting for their locks.
async fn end(client: &mut Client, is_meant: impl Fn(&str, &str) -> bool + Send + Sync) -> Result<()> {
    client.doing("end earlier sessions");
    let mut killed = HashSet::new();
    for round in 1u32.. {
        let holders = holders(client, &is_meant).await?;
        if holders.is_empty() {
            break;
        }
        for holder in &holders {
            if killed.insert(*holder) {
                kill(client, *holder).await?;
            }
        }
        if round == ROUNDS_QUIET {
            tracing::warn!(sessions = ?holders, "waiting until the target has rolled back earlier sessions");
        }
        tokio::time::sleep(PAUSE).await;
    }
    run(client, "DELETE FROM crossfade.session WHERE IS_USED_LOCK(token) IS NULL", &[]).await?;
    client.execute("COMMIT").await.map(drop)
}

const PAUSE: Duration = Duration::from_millis(50);
/// Five seconds.
const ROUNDS_QUIET: u32 = 100;

/// The numbers of the connections that hold one of these names; never our own.
async fn holders(
    client: &mut Client,
    is_meant: &(impl Fn(&str, &str) -> bool + Send + Sync),
) -> Result<Vec<u64>> {
    let rows = ask(
        client,
        "SELECT stream, token, CAST(IS_USED_LOCK(token) AS CHAR) FROM crossfade.session \
         WHERE IS_USED_LOCK(token) <> CONNECTION_ID()",
        &[],
    )
    .await?;
    let mut holders = Vec::new();
    for row in rows {
        if is_meant(row.text(0)?, row.text(1)?) {
            // It may have ended between the two looks of the same statement.
            holders.extend(row.maybe_parse::<u64>(2)?);
        }
    }
    Ok(holders)
}

async fn kill(client: &mut Client, connection: u64) -> Result<()> {
    match client.execute(&format!("KILL {connection}")).await {
        Err(error) if number(&error) == Some(NO_SUCH_THREAD) => Ok(()),
        Err(error) if error.kind == ErrorKind::Permission => Err(error.hint(
            "a session of this migration belongs to another user: use that user, end its session by KILL, or GRANT CONNECTION \
             ADMIN ON *.* to the user of the target URL",
        )),
        done => done.map(drop),
    }
}

/// `ER_NO_SUCH_THREAD`
const NO_SUCH_THREAD: u16 = 1094;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::connected;

    #[tokio::test]
    async fn a_session_that_is_dropped_is_left() {
        let (mut client, _server) = connected();
        let left = Left::default();
        client.token = Some(Token { name: "crossfade 1".to_owned(), left: left.clone() });
        assert!(left.names().is_empty());
        drop(client);
        assert_eq!(left.names().iter().collect::<Vec<_>>(), ["crossfade 1"]);
    }
}
