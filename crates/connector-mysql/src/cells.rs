//! The cells of an answer that is read as text.

use bytes::Bytes;
use connector::{Error, ErrorKind, Result};

use crate::wire::TextRow;

/// One row of an answer to a question of ours; what is missing or unreadable in it is the server's fault.
pub(crate) struct Cells(pub(crate) TextRow);

impl Cells {
    /// The first row of an answer that has one.
    pub(crate) fn first(rows: Vec<TextRow>) -> Cells {
        Cells(rows.into_iter().next().unwrap_or_default())
    }

    /// `None` for NULL, and for a cell that is not there.
    pub(crate) fn maybe(&self, at: usize) -> Option<&str> {
        self.0.get(at).and_then(Option::as_ref).and_then(|cell: &Bytes| std::str::from_utf8(cell).ok())
    }

    pub(crate) fn text(&self, at: usize) -> Result<&str> {
        self.maybe(at).ok_or_else(|| unreadable(at, "nothing"))
    }

    pub(crate) fn parse<T: std::str::FromStr>(&self, at: usize) -> Result<T> {
        let text = self.text(at)?;
        text.parse().map_err(|_| unreadable(at, text))
    }

    pub(crate) fn maybe_parse<T: std::str::FromStr>(&self, at: usize) -> Result<Option<T>> {
        self.maybe(at).map(|_| self.parse(at)).transpose()
    }
}

fn unreadable(at: usize, found: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "read an answer of the server").with("column", at + 1).with("found", found)
}
