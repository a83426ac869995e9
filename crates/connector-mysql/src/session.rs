//! How sessions are opened: all settings that the meaning of text or the effect of a statement depends on are set here.

use connector::Result;

use crate::url::Settings;
use crate::wire::Client;

/// Times are UTC, and no timer of the server's ends a session that waits for us. `NO_BACKSLASH_ESCAPES` would change what
/// our literals mean, `ANSI_QUOTES` what our names mean.
const COMMON: &str = "SET NAMES utf8mb4, time_zone = '+00:00', wait_timeout = 86400, net_read_timeout = 3600, \
     net_write_timeout = 3600";

/// In front of what reads rows, so that a look at the sessions at work tells ours from the application's. A comment of this
/// kind reaches the server as it is.
pub(crate) const MARK: &str = "/* crossfade */";

/// For questions about the catalog and the log.
pub(crate) async fn asking(settings: &Settings) -> Result<Client> {
    let mut client = Client::connect(settings).await?;
    client.doing("set up a session").execute(COMMON).await?;
    // On the source we never queue for long behind a lock on a table's definition: everybody who comes after us would
    // queue too.
    client.execute("SET sql_mode = '', lock_wait_timeout = 5").await?;
    client.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    if client.family().is_mariadb() {
        client.execute("SET max_statement_time = 0").await?;
    }
    Ok(client)
}

/// For reading rows: text comes in the bytes that are stored.
pub(crate) async fn reading(settings: &Settings) -> Result<Client> {
    let mut client = asking(settings).await?;
    client.execute("SET character_set_results = NULL").await?;
    Ok(client)
}
