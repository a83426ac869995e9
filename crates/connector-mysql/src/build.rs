//! Does the work of `finish` that reads whole tables: several tables at a time, the largest first, the steps of one in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use connector::{Error, ErrorKind, Owner, Result, failpoint};
use tokio::task::JoinSet;

use crate::cells::Cells;
use crate::show_create::ForeignKey;
use crate::url::Settings;
use crate::wire::Client;
use crate::{create, session, sql, writer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What it is about, for errors.
    pub(crate) item: String,
    pub(crate) work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Commits by itself.
    Change(String),
    /// Finds a row without a parent.
    Proof(String),
}

/// All must succeed. `tables` are the steps of one table each.
pub(crate) async fn side_by_side(
    settings: &Settings,
    owner: &Owner,
    tables: Vec<Vec<Step>>,
    builders: usize,
) -> Result<()> {
    let builders = builders.clamp(1, tables.len().max(1));
    let waiting = Arc::new(Mutex::new(VecDeque::from(tables)));
    let mut working: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..builders {
        let (settings, owner, waiting) = (settings.clone(), owner.clone(), Arc::clone(&waiting));
        working.spawn(async move {
            let mut session = None;
            while let Some(steps) = next(&waiting) {
                let client = match &mut session {
                    Some(client) => client,
                    none => none.insert(session::writing(&settings, &owner.stream).await?),
                };
                for step in steps {
                    carry_out(client, &owner, &step).await?;
                    failpoint::hit(failpoint::FINISH_BETWEEN_ITEMS);
                }
            }
            Ok(())
        });
    }
    let mut outcome = Ok(());
    while let Some(ended) = working.join_next().await {
        let failed = |error| Error::new(ErrorKind::Database, "build an index on the target").source(error);
        let result = ended.unwrap_or_else(|error| Err(failed(error)));
        if outcome.is_ok()
            && let Err(error) = result
        {
            // The others end what they are at: the server would go on with it without us, in the way of the next try. That may
            // take long, so the reason is told now.
            tracing::warn!(%error, "building on the target stops once the other builders are done with what they are at");
            waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
            outcome = Err(error);
        }
    }
    outcome
}

fn next(waiting: &Mutex<VecDeque<Vec<Step>>>) -> Option<Vec<Step>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

pub(crate) async fn carry_out(client: &mut Client, owner: &Owner, step: &Step) -> Result<()> {
    client.doing("build an index on the target");
    let done = match &step.work {
        Work::Change(statement) => create::change(client, owner, statement).await,
        Work::Proof(query) => prove(client, owner, query).await,
    };
    done.map_err(|error| {
        let is_refused = error.kind == ErrorKind::Refused && error.hint.is_none();
        let error = error.with("item", &step.item);
        match is_refused {
            true => {
                error.hint("the target's rows do not allow it, so they are not the source's: compare the two")
            }
            false => error,
        }
    })
}

async fn prove(client: &mut Client, owner: &Owner, query: &str) -> Result<()> {
    create::begin(client, owner).await?;
    let orphan = client.query(query).await?.into_iter().next();
    writer::commit(client).await?;
    let Some(orphan) = orphan else { return Ok(()) };
    let orphan = Cells(orphan);
    let values = (0..orphan.0.len()).map(|at| orphan.maybe(at).unwrap_or("bytes"));
    Err(Error::new(ErrorKind::Refused, "prove a foreign key on the target")
        .with("without a parent", sql::list(values, str::to_owned))
        .hint(
            "the source lets rows in without a parent while foreign_key_checks is off: add the parent or delete the row there, \
             and run again",
        ))
}

/// A row of `table` whose parent is not there, if there is one: what the server looks for when it adds a foreign key under
/// `foreign_key_checks`, except that it then writes the whole table and all its indexes anew. NULLs refer to nothing.
pub(crate) fn orphan(table: &str, key: &ForeignKey) -> String {
    let child = |column: &String| format!("child.{}", sql::ident(column));
    let every = |conditions: Vec<String>| conditions.join(" AND ");
    let pairs = key.columns.iter().zip(&key.referenced);
    format!(
        "SELECT {} FROM {} AS child WHERE {} AND NOT EXISTS (SELECT 1 FROM {} AS parent WHERE {}) LIMIT 1",
        sql::list(&key.columns, child),
        sql::ident(table),
        every(key.columns.iter().map(|column| format!("{} IS NOT NULL", child(column))).collect()),
        sql::ident(&key.parent),
        every(pairs.map(|(column, to)| format!("parent.{} = {}", sql::ident(to), child(column))).collect())
    )
}
