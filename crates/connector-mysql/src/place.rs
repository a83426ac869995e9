//! Whether the place that a snapshot names is one where it is exact.
//!
//! The server notes its place under the lock that orders commits, but not only when it commits: also when it begins a file or
//! logs a checkpoint, while a transaction of the file before may be logged and not be visible yet (for as long as a replica
//! takes to acknowledge it: `MYSQL_BIN_LOG::open` and `write_binlog_checkpoint_event_already_locked` in sql/log.cc). Taken for a
//! cut, such a place would contain that transaction, and its rows would be in no chunk and in no change.
//!
//! So a place is taken only where a transaction ends: then it is the place of that transaction's commit.

use std::sync::{Mutex, PoisonError};

use connector::{Error, ErrorKind, Result};

use crate::ddl::{self, Statement};
use crate::dump::{Dump, FIRST_OFFSET};
use crate::event::Event;
use crate::position::{Coordinates, GtidPosition};
use crate::url::Settings;

/// The last place that was found exact. It stays so: what is committed later moves the place of a snapshot that shows it.
#[derive(Debug, Default)]
pub(crate) struct Exact(Mutex<Option<Coordinates>>);

impl Exact {
    pub(crate) fn is(&self, at: &Coordinates) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(at)
    }

    pub(crate) fn note(&self, at: &Coordinates) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(at.clone());
    }
}

const LOOK: &str = "fit a read to the log";

/// A header of 19 bytes and the number of the transaction; with a checksum, and without (`binlog_checksum`).
const XID_BYTES: [u64; 2] = [19 + 8 + 4, 19 + 8];

/// When the file was begun that is at this place.
pub(crate) async fn begun(settings: &Settings, at: &Coordinates) -> Result<Option<u32>> {
    let mut dump = Dump::open(settings, at, LOOK).await?;
    while !matches!(dump.next().await?.event, Event::FormatDescription { .. }) {}
    Ok(dump.at.begun)
}

/// Whether a transaction of InnoDB ends there: that is what the last event before it says, which has a known size.
pub(crate) async fn ends_a_transaction(settings: &Settings, at: &Coordinates) -> Result<bool> {
    for size in XID_BYTES {
        if is_end(settings, at, size).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether so many bytes before the place there is the end of a transaction, and reaches up to it.
async fn is_end(settings: &Settings, at: &Coordinates, size: u64) -> Result<bool> {
    let Some(from) = at.offset().checked_sub(size).filter(|from| *from > FIRST_OFFSET) else {
        return Ok(false);
    };
    let Ok(from) = Coordinates::new(&at.file(), from, GtidPosition::default()) else { return Ok(false) };
    // Another event before the place is of another length: what is found then is the middle of it, which the server does not
    // send, or which is no event that ends at the place.
    let found = async {
        let mut dump = Dump::open(settings, &from, LOOK).await?;
        loop {
            let received = dump.next().await?;
            match received.event {
                Event::Xid => return Ok::<_, Error>(dump.at.order() == at.order()),
                // What the server makes up at the beginning of a dump.
                Event::Rotate { .. } | Event::FormatDescription { .. } | Event::Ignored => {}
                _ => return Ok(false),
            }
        }
    };
    match found.await {
        Err(error) if error.kind == ErrorKind::Connect => Err(error),
        Err(_) => Ok(false),
        found => found,
    }
}

/// The same for any transaction, a single statement that commits by itself included, and for a file that the server has
/// begun when it started, before anybody could commit. Reads the file up to there.
pub(crate) async fn is_exact(settings: &Settings, at: &Coordinates) -> Result<bool> {
    let first = Coordinates::new(&at.file(), FIRST_OFFSET, GtidPosition::default());
    let mut dump = Dump::open(settings, &first.map_err(|error| error.during(LOOK))?, LOOK).await?;
    let (mut standalone, mut ends, mut none_yet, mut since_start) = (false, false, true, false);
    while dump.at.order() < at.order() {
        let received = dump.next().await?;
        let is_last = dump.at.order() == at.order();
        match received.event {
            Event::FormatDescription { created } => since_start = created != 0,
            Event::MariadbGtid(gtid) => (standalone, none_yet) = (gtid.standalone, false),
            Event::Xid => ends = is_last,
            Event::Query(query) => {
                let commits = matches!(ddl::recognise(&query, dump.family()), Statement::Commit);
                ends = is_last && (standalone || commits);
            }
            // The end of the log, before the place: that of another file with this offset.
            Event::Heartbeat { .. } => return Ok(false),
            _ => {}
        }
    }
    Ok(dump.at.order() == at.order() && (ends || (none_yet && since_start)))
}
