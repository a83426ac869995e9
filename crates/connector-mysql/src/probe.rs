//! How busy a source is: how long a trivial statement takes, and whether anybody else is at work.

use connector::{Load, RECENTLY, Result};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::cells::Cells;
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
            None => session::asking(settings).await?,
        };
        client.doing("ask how busy the source is");
        let began = Instant::now();
        let others = others(&mut client).await?;
        let latency = began.elapsed();
        *kept = Some(client);
        Ok(Load { latency, others })
    }
}

/// Sessions of other users are shown to those alone who have the right PROCESS; our own are told by their statements' mark.
/// `TIME_MS` of a session that sleeps is the time since its last statement.
async fn others(client: &mut Client) -> Result<Option<u32>> {
    let rows = client
        .query(&format!(
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() \
             AND COMMAND NOT IN ('Daemon', 'Binlog Dump', 'Slave_IO', 'Slave_SQL', 'Slave_worker') \
             AND (COMMAND <> 'Sleep' OR TIME_MS < {}) AND COALESCE(INFO, '') NOT LIKE '{}%'",
            RECENTLY.as_millis(),
            session::MARK
        ))
        .await?;
    Cells::first(rows).parse(0).map(Some)
}
