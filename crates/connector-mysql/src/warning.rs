//! What the server says in a warning, where a warning is a refusal.

use connector::{Error, Result};

use crate::cells::Cells;
use crate::error::DbError;
use crate::wire::Client;

/// The error, with the words of the first warning of the session's last statement as its source.
pub(crate) async fn explain(client: &mut Client, error: Error) -> Error {
    match first(client).await {
        Ok(Some(warning)) => error.source(warning),
        Ok(None) => error,
        Err(failed) => error.source(failed),
    }
}

/// Notes come first where there is nothing worse: before a check that fails, they say how it came to that.
async fn first(client: &mut Client) -> Result<Option<DbError>> {
    let mut warnings = Vec::new();
    for row in client.query("SHOW WARNINGS").await? {
        let row = Cells(row);
        let warning =
            DbError { number: row.parse(1)?, sqlstate: String::new(), message: row.text(2)?.to_owned() };
        warnings.push((row.text(0)? == "Note", warning));
    }
    let at = warnings.iter().position(|(is_note, _)| !is_note).unwrap_or(0);
    Ok(warnings.into_iter().nth(at).map(|(_, warning)| warning))
}
