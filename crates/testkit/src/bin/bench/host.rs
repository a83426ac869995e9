//! The servers between which something is measured: what a measurement needs of them, whatever their engine.

mod mariadb;
mod postgres;

pub(crate) use mariadb::unsynced;
pub(crate) use postgres::{drop_slot, slot, start_within};

/// A server of either engine.
pub(crate) trait Host {
    /// What it has besides the kit's settings; the page shows it.
    const SETTINGS: &'static [(&'static str, &'static str)];

    fn start() -> Self;

    fn url(&self, database: &str) -> String;

    /// Where it is, for its own programs, some of which know no URLs.
    fn options(&self) -> String;

    fn create_database(&self, name: &str);

    /// With what a migration has recorded about it.
    fn drop_database(&self, name: &str);

    /// What was written before is on disk, so that nobody pays for another's writes.
    fn settle(&self);

    /// Statements one after another. Nothing is measured yet, so none of them waits for the disk.
    fn make(&self, database: &str, statements: &[&str]);

    /// Nothing of a migration stays on its source.
    fn release(&self, database: &str, migration: &str);

    /// A line for each table with how many rows it has.
    fn counts(&self, database: &str) -> Vec<String>;

    /// A line for each table with a digest of its rows, which only servers of one engine have in common.
    fn digests(&self, database: &str) -> Vec<String>;
}
