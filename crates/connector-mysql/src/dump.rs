//! A session that is sent the binary log: event by event, each with where it lies.

use std::time::Duration;

use connector::{Error, ErrorKind, Result};

use crate::cells::Cells;
use crate::event::{Decoder, Event, Header};
use crate::family::Family;
use crate::position::Coordinates;
use crate::session;
use crate::url::Settings;
use crate::wire::Client;

/// A server that has nothing to send says so this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// One that sends no byte for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Where the first event of a file lies, behind four bytes of magic.
pub(crate) const FIRST_OFFSET: u64 = 4;

pub(crate) struct Dump {
    client: Client,
    decoder: Decoder,
    operation: &'static str,
    /// The end of the last event.
    pub(crate) at: Coordinates,
}

pub(crate) struct Received {
    pub(crate) header: Header,
    pub(crate) event: Event,
    /// The order of the place where it begins.
    pub(crate) start: u64,
}

impl Dump {
    /// Opens the log there. Beyond 4 GiB it begins with the file, as no other place can be asked for.
    pub(crate) async fn open(
        settings: &Settings,
        from: &Coordinates,
        operation: &'static str,
    ) -> Result<Dump> {
        let mut client = session::asking(settings).await?;
        client.doing(operation);
        let rows = client.query("SELECT @@global.binlog_checksum").await?;
        let checksums = Cells::first(rows).text(0)? != "NONE";
        // Without these words the server takes us for an old replica: it leaves the checksums out, and the GTIDs.
        client.execute("SET @master_binlog_checksum = @@global.binlog_checksum").await?;
        client.execute("SET @mariadb_slave_capability = 4").await?;
        client.execute(&format!("SET @master_heartbeat_period = {}", HEARTBEAT.as_nanos())).await?;
        // Two replicas of one number throw each other out. Real ones seldom are in the upper half.
        let number = (1 << 31) | client.connection_id();
        client.register_replica(number).await?;
        let (at, offset) = match u32::try_from(from.offset()) {
            Ok(offset) => (from.clone(), offset),
            Err(_) => {
                let first = Coordinates::new(&from.file(), FIRST_OFFSET, from.gtids.clone());
                (first.map_err(|error| error.during(operation))?, 4)
            }
        };
        client.dump(number, &at.file(), offset).await?;
        Ok(Dump { client, decoder: Decoder::new(checksums), operation, at })
    }

    pub(crate) fn family(&self) -> Family {
        self.client.family()
    }

    /// The next event, waiting for it. Safe to drop.
    pub(crate) async fn next(&mut self) -> Result<Received> {
        loop {
            if let Some(received) = self.here()? {
                return Ok(received);
            }
            // An event may be so large that it takes long; silence is when not a byte comes.
            tokio::time::timeout(SILENCE_MAX, self.client.fill()).await.map_err(|_| {
                Error::new(ErrorKind::Connect, self.operation)
                    .with("because", format!("the server was silent for {} s", SILENCE_MAX.as_secs()))
            })??;
        }
    }

    /// The next event that has come already.
    pub(crate) fn here(&mut self) -> Result<Option<Received>> {
        let Some(packet) = self.client.take_packet()? else { return Ok(None) };
        let (header, event) = self.decoder.decode(packet).map_err(|error| error.during(self.operation))?;
        let start = self.at.order();
        let moved = match &event {
            Event::Rotate { file, offset } => self.at.rotate(file, *offset),
            _ if header.is_in_file() => self.at.advance(header.size, header.log_pos),
            _ => Ok(()),
        };
        moved.map_err(|error| error.during(self.operation))?;
        if matches!(event, Event::FormatDescription { .. }) {
            self.at.begun = Some(header.seconds);
        }
        Ok(Some(Received { header, event, start }))
    }
}
