//! How sessions are opened: all settings that the meaning of text or the effect of a statement depends on are set here.

use connector::Result;

use crate::error::number;
use crate::token;
use crate::url::Settings;
use crate::wire::Client;

/// Times are UTC, and no timer of the server's ends a session that waits for us. `NO_BACKSLASH_ESCAPES` would change what
/// our literals mean, `ANSI_QUOTES` what our names mean. A limit that the server puts on each SELECT would cut a chunk short, and end
/// it as its end.
const COMMON: &str = "SET NAMES utf8mb4, time_zone = '+00:00', wait_timeout = 86400, net_read_timeout = 3600, \
     net_write_timeout = 3600, completion_type = NO_CHAIN, sql_select_limit = 18446744073709551615";

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

/// Of what is written here nothing is made to fit: a value that does not is an error. What the source holds may be held,
/// zero dates and an id of 0 included. Foreign keys are not looked at, as the source has, and nothing cascades.
const EXACTLY: &str = "SET sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION', \
     foreign_key_checks = 0, unique_checks = 1, sql_safe_updates = 0, sql_notes = 1, innodb_lock_wait_timeout = 30, lock_wait_timeout = 50";

/// `ER_UNKNOWN_SYSTEM_VARIABLE`
const UNKNOWN_VARIABLE: u16 = 1193;

/// For a target's records, while there may be none yet.
pub(crate) async fn keeping(settings: &Settings) -> Result<Client> {
    let mut client = Client::connect(settings).await?;
    client.doing("set up a session").execute(COMMON).await?;
    client.execute(EXACTLY).await?;
    // What is cut off without an error is told by a note; newer servers can be set to leave such notes out.
    match client.execute("SET note_verbosity = 'basic'").await {
        Err(error) if number(&error) == Some(UNKNOWN_VARIABLE) => {}
        set => drop(set?),
    }
    client.execute(client.family().unlimited()).await?;
    // No locks between rows, on which lanes would wait for each other.
    client.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE").await?;
    // After a deadlock the server has rolled back, and what was sent behind it belongs to no transaction: it must not commit
    // by itself.
    client.execute("SET autocommit = 0").await?;
    Ok(client)
}

/// For everything that is written, once there are records: a session that this process and the next owner can find and
/// end, and that begins when those have ended that this process has left.
pub(crate) async fn writing(settings: &Settings, stream: &str) -> Result<Client> {
    let mut client = keeping(settings).await?;
    token::end_left(&mut client, &settings.left).await?;
    token::take(&mut client, &settings.left, stream).await?;
    client.doing("write to the target");
    Ok(client)
}
