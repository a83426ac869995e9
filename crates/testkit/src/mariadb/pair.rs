//! Two MariaDB servers, and migrations between their databases.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Builder, Server};
use crate::Stage;

/// A source and a target.
#[derive(Debug)]
pub struct Pair {
    pub source: Server,
    pub target: Server,
}

impl Pair {
    pub fn start() -> Pair {
        Pair::of(Server::builder(), Server::builder())
    }

    pub fn of(source: Builder, target: Builder) -> Pair {
        Pair { source: source.without_fsync().start(), target: target.without_fsync().start() }
    }

    /// A migration between two new databases, whose names differ. Several may live on one pair.
    pub fn stage(&self, binary: &str) -> Stage {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("market{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let moved = format!("{name}_moved");
        self.source.create_database(&name);
        self.target.create_database(&moved);
        Stage::new(binary, &name, self.source.url(&name), self.target.url(&moved))
    }
}
