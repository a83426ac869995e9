//! How busy a source is: how long a trivial statement takes, and whether anybody else is at work.

use connector::{Load, RECENTLY, Result};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::catalog::Cells;
use crate::session;
use crate::url::Settings;
use crate::wire::Client;

/// A session that stays open between two questions: opening one costs the source more than all it is asked.
#[derive(Default)]
pub(crate) struct Probe {
    client: Mutex<Option<Client>>,
}

impl Probe {
    pub(crate) async fn ask(&self, settings: &Settings) -> Result<Load> {
        let mut kept = self.client.lock().await;
        // Kept again only when it is in step: a probe that fails or is dropped begins with a new session.
        let mut client = match kept.take() {
            Some(client) => client,
            None => session::reading(settings, "reader").await?,
        };
        client.doing("ask how busy the source is");
        let began = Instant::now();
        let others = others(&mut client).await?;
        let latency = began.elapsed();
        *kept = Some(client);
        Ok(Load { latency, others })
    }
}

/// Our own sessions on the source bear this session's name. What sessions of other roles do is told to members of
/// `pg_read_all_stats` alone; where one is hidden and none is seen at work, it is not known. The view `pg_stat_activity` looks names up
/// beside this and costs the source four times as much.
async fn others(client: &mut Client) -> Result<Option<u32>> {
    let rows = client
        .simple(&format!(
            "SELECT count(*) FILTER (WHERE state IN ('active', 'fastpath function call') \
             OR state_change > clock_timestamp() - interval '{} ms'), \
             count(*) FILTER (WHERE state IS NULL OR state = 'disabled') \
             FROM pg_catalog.pg_stat_get_activity(NULL) WHERE (backend_type = 'client backend' OR backend_type IS NULL) \
             AND application_name IS DISTINCT FROM current_setting('application_name')",
            RECENTLY.as_millis()
        ))
        .await?;
    let row = Cells::first(rows);
    let (seen, hidden): (u32, u32) = (row.parse(0)?, row.parse(1)?);
    Ok((seen > 0 || hidden == 0).then_some(seen))
}
