//! How sessions are opened: all settings that the meaning of text or the effect of a write depends on are set here.

use connector::{ErrorKind, Result};

use crate::records::application_name;
use crate::url::Settings;
use crate::wire::{Client, EXACT_TEXT};

/// Nothing is found by a search path: every name is written with its schema. A session that a broken network has cut off
/// must not hold its locks for the two hours that keepalive takes by default: a table that is begun anew waits for them.
const OWN: &str = "-c search_path= -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 \
     -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3";

/// On the source we never queue for long behind an exclusive lock: everybody who comes after us would queue too.
const BRIEF_LOCKS: &str = "-c lock_timeout=5s -c default_transaction_read_only=on";

async fn open(settings: &Settings, stream: &str, more: &str) -> Result<Client> {
    let options = format!("{EXACT_TEXT} {OWN} {more}");
    let name = application_name(stream);
    Client::connect(settings, &[("options", &options), ("application_name", &name)]).await
}

/// For catalog reads, and for what the source keeps for us.
pub(crate) async fn plain(settings: &Settings, stream: &str) -> Result<Client> {
    open(settings, stream, "-c lock_timeout=0").await
}

/// For a target's schema and records: what is said to be there stays there, whatever the server's default.
pub(crate) async fn keeping(settings: &Settings, stream: &str) -> Result<Client> {
    open(settings, stream, "-c lock_timeout=0 -c synchronous_commit=on").await
}

/// For one of several sessions that build indexes at the same time: together they take what the server allows for one
/// maintenance command, or this much where that is less, as servers are seldom set up for a bulk load.
pub(crate) async fn building(settings: &Settings, stream: &str, builders: usize) -> Result<Client> {
    let mut client = keeping(settings, stream).await?;
    client
        .doing("set up a session that builds indexes")
        .simple(&format!(
            "SELECT pg_catalog.set_config(name, greatest(setting::int8, {BUILDING_KB}) / {} || 'kB', false) \
             FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem'",
            builders.max(1)
        ))
        .await?;
    Ok(client)
}

/// Sorts the keys of ten million rows in memory.
const BUILDING_KB: u64 = 256 << 10;

/// For reading chunks of the source: the snapshot's transaction must outlive any idle limit, and be the primary's.
pub(crate) async fn reading(settings: &Settings, stream: &str) -> Result<Client> {
    open(settings, stream, BRIEF_LOCKS).await
}

/// For writing rows that the source has already checked: no triggers fire, no foreign keys are checked.
pub(crate) async fn writing(settings: &Settings, stream: &str) -> Result<Client> {
    let mut client = keeping(settings, stream).await?;
    client.doing("write as a replica").execute("SET session_replication_role = replica").await.map_err(
        |error| match error.kind {
            ErrorKind::Permission => error.hint(
                "the target's user must be a superuser, or (from PostgreSQL 15 on): \
                 GRANT SET ON PARAMETER session_replication_role TO …",
            ),
            _ => error,
        },
    )?;
    Ok(client)
}

/// For applying changes: rows are found by their key's index, one lookup each. The tables were just loaded, their
/// statistics are missing or old, and a planner that chose to read a large table once for a batch would be wrong
/// every time.
///
/// A lock that does not come is an error that is tried again, group by group: an index that was added to the target by hand
/// can let a lane wait for a row of a later one, which waits for its turn.
pub(crate) async fn applying(settings: &Settings, stream: &str) -> Result<Client> {
    let mut client = writing(settings, stream).await?;
    client
        .doing("set up the apply session")
        .simple(
            "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_bitmapscan = off; \
             SET jit = off; SET plan_cache_mode = force_generic_plan; SET lock_timeout = '30s'",
        )
        .await?;
    Ok(client)
}
