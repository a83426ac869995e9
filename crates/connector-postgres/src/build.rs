//! Builds keys, indexes and the like: several at a time, the largest tables' first, each once its rows are there.

use std::cmp::Reverse;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use connector::{Copied, Error, ErrorKind, Owner, Result, SchemaItem, failpoint};
use model::Catalog;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::sqlstate;
use crate::url::Settings;
use crate::wire::Client;
use crate::{dump, records, session, sql};

/// What one builder does before it asks for more.
pub(crate) struct Job {
    work: Work,
    /// By catalog index. `None` for what can be done only when everything is copied.
    table: Option<usize>,
    /// Nobody else may build on the table meanwhile: a builder would wait on the server, and have no other work.
    exclusive: bool,
    /// Left out, for later, unless the source is quiet.
    optional: bool,
}

enum Work {
    /// Created in one transaction with their records.
    Items(Vec<SchemaItem>),
    /// Outside a transaction and without a record: it may be done again.
    Repeatable(String),
}

/// The items of a table larger than this are built one at a time, each in a transaction of its own.
pub(crate) const SMALL_BYTES: u64 = 1 << 20;

/// For small tables a transaction of its own costs more than the item.
pub(crate) const BATCH_ITEMS: usize = 100;

impl Job {
    pub(crate) fn repeatable(statement: String) -> Job {
        Job { work: Work::Repeatable(statement), table: None, exclusive: false, optional: false }
    }

    /// A table's small items stay together and in order: two builders then meet on one table at most, and cannot wait for
    /// each other.
    pub(crate) fn of(items: Vec<SchemaItem>, catalog: &Catalog, optional: bool) -> Vec<Job> {
        let sized = |item: SchemaItem| {
            let table = dump::subject(&item.sql);
            let at = table.as_ref().and_then(|table| catalog.position(table));
            (Reverse(at.map_or(0, |at| catalog.tables[at].bytes)), table, at, item)
        };
        let mut sized: Vec<_> = items.into_iter().map(sized).collect();
        sized.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let small = sized.split_off(sized.partition_point(|(Reverse(bytes), ..)| *bytes > SMALL_BYTES));
        let mut jobs: Vec<Job> = sized
            .into_iter()
            .map(|(_, _, table, item)| Job {
                // An index may come with an `ALTER TABLE … CLUSTER ON` or `REPLICA IDENTITY USING INDEX` behind it.
                exclusive: item.sql.starts_with("ALTER TABLE ") || item.sql.contains("\nALTER TABLE "),
                work: Work::Items(vec![item]),
                table,
                optional,
            })
            .collect();
        let mut small = small.into_iter().map(|(.., item)| item);
        loop {
            let batch: Vec<SchemaItem> = small.by_ref().take(BATCH_ITEMS).collect();
            if batch.is_empty() {
                return jobs;
            }
            jobs.push(Job { work: Work::Items(batch), table: None, exclusive: false, optional });
        }
    }
}

/// Does jobs that do not need one another with so many sessions, each with its share of the maintenance memory. All must
/// succeed.
pub(crate) async fn side_by_side(
    settings: &Settings,
    owner: &Owner,
    catalog: &Catalog,
    mut jobs: Vec<Job>,
    copied: &watch::Receiver<Copied>,
    builders: usize,
) -> Result<()> {
    // Stable: a table's keys come before its other indexes.
    jobs.sort_by_key(|job| Reverse(job.table.map_or(0, |at| catalog.tables[at].bytes)));
    let builders = builders.min(jobs.len());
    let queue = Queue {
        jobs: Mutex::new(Jobs { closed: false, waiting: jobs, running: Vec::new() }),
        ended: watch::channel(0).0,
    };
    let queue = Arc::new(queue);
    let mut working: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..builders {
        let (settings, owner) = (settings.clone(), owner.clone());
        let (queue, copied) = (Arc::clone(&queue), copied.clone());
        working.spawn(async move {
            let mut session = None;
            while let Some(job) = queue.next(copied.clone()).await {
                // Not before there is work for it: until then the copy may last for hours.
                let client = match &mut session {
                    Some(client) => client,
                    none => none.insert(session::building(&settings, &owner.stream, builders).await?),
                };
                carry_out(client, &owner, job.work).await?;
                queue.done(job.table, job.exclusive);
                failpoint::hit(failpoint::FINISH_BETWEEN_ITEMS);
            }
            Ok(())
        });
    }
    let mut outcome = Ok(());
    while let Some(ended) = working.join_next().await {
        let failed = |error| Error::new(ErrorKind::Database, "build an index on the target").source(error);
        let result = ended.unwrap_or_else(|error| Err(failed(error)));
        if result.is_err() && outcome.is_ok() {
            // The others end what they are at: the server would go on with it without us, in the way of the next try. That
            // may take long, so the reason is told now.
            if let Err(error) = &result {
                tracing::warn!(%error, "building on the target stops once the other builders are done with what they are at");
            }
            outcome = result;
            queue.close();
        }
    }
    outcome
}

struct Queue {
    jobs: Mutex<Jobs>,
    /// How many jobs have ended.
    ended: watch::Sender<u64>,
}

struct Jobs {
    closed: bool,
    waiting: Vec<Job>,
    /// The tables that are worked on, and whether others may work on them as well.
    running: Vec<(usize, bool)>,
}

impl Queue {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more jobs from here on.
    fn close(&self) {
        let mut jobs = self.jobs();
        jobs.closed = true;
        jobs.waiting.clear();
        drop(jobs);
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// The first job that can be done now; waits until there is one. `None` when there will be no more.
    async fn next(&self, mut copied: watch::Receiver<Copied>) -> Option<Job> {
        let mut ended = self.ended.subscribe();
        loop {
            {
                ended.borrow_and_update();
                let copied = copied.borrow_and_update();
                let mut jobs = self.jobs();
                if let Some(job) = jobs.take(&copied) {
                    return Some(job);
                }
                if jobs.closed || (copied.all && jobs.waiting.is_empty()) {
                    return None;
                }
            }
            tokio::select! {
                _ = ended.changed() => {}
                () = Copied::more(&mut copied) => {}
            }
        }
    }

    fn done(&self, table: Option<usize>, exclusive: bool) {
        let mut jobs = self.jobs();
        let running = jobs.running.iter().position(|job| Some(job.0) == table && job.1 == exclusive);
        if let Some(at) = running {
            jobs.running.swap_remove(at);
        }
        drop(jobs);
        self.ended.send_modify(|ended| *ended += 1);
    }
}

impl Jobs {
    fn take(&mut self, copied: &Copied) -> Option<Job> {
        if copied.all && !copied.quiet {
            self.waiting.retain(|job| !job.optional);
        }
        let can_begin = |job: &Job| {
            let is_there = copied.all || job.table.is_some_and(|table| copied.tables.contains(&table));
            let is_busy = |&(table, exclusive): &(usize, bool)| {
                job.table == Some(table) && (exclusive || job.exclusive)
            };
            is_there && (copied.quiet || !job.optional) && !self.running.iter().any(is_busy)
        };
        let at = self.waiting.iter().position(can_begin)?;
        let job = self.waiting.remove(at);
        self.running.extend(job.table.map(|table| (table, job.exclusive)));
        Some(job)
    }
}

async fn carry_out(client: &mut Client, owner: &Owner, work: Work) -> Result<()> {
    client.doing("build an index on the target");
    let items = match work {
        Work::Items(items) => items,
        Work::Repeatable(statement) => return client.simple(&statement).await.map(drop),
    };
    match create(client, owner, &items).await?.into_iter().next() {
        None => Ok(()),
        Some((item, reason)) => Err(Error::new(ErrorKind::Schema, "build an index on the target")
            .with("index", item)
            .with("the target said", reason)),
    }
}

/// As it is on record.
pub(crate) fn label(item: &SchemaItem) -> String {
    format!("{} {}", item.kind, item.name)
}

/// Creates items together with their records. Where one of them fails each is created alone, to tell which one it is.
/// Returns those that need something that is not there, each with what the target said.
pub(crate) async fn create(
    client: &mut Client,
    owner: &Owner,
    items: &[SchemaItem],
) -> Result<Vec<(String, String)>> {
    let Err(error) = in_one_transaction(client, owner, items).await else { return Ok(Vec::new()) };
    if !client.is_usable() {
        return Err(error.with("item", sql::list(items.iter().take(3), label)));
    }
    client.execute("ROLLBACK").await?;
    let [item] = items else {
        let mut left_out = Vec::new();
        for item in items {
            left_out.extend(Box::pin(create(client, owner, slice::from_ref(item))).await?);
        }
        return Ok(left_out);
    };
    // undefined_table, undefined_column, undefined_object, undefined_function, invalid_schema_name
    match sqlstate(&error) {
        Some("42P01" | "42703" | "42704" | "42883" | "3F000") => {
            let reason =
                crate::error::db_error(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Ok(vec![(label(item), reason)])
        }
        _ => Err(error.with("item", label(item))),
    }
}

async fn in_one_transaction(client: &mut Client, owner: &Owner, items: &[SchemaItem]) -> Result<()> {
    let statements = items.iter().map(|item| item.sql.as_str()).collect::<Vec<_>>().join(";\n");
    client.simple(&format!("BEGIN;\n{statements}")).await?;
    records::note_items(client, owner, items.iter().map(label)).await?;
    records::fence(client, owner).await?;
    crate::writer::commit(client).await
}

#[cfg(test)]
mod tests {
    use model::{Identity, Table, TableName};

    use super::*;

    fn catalog() -> Catalog {
        let table = |name: &str, bytes: u64| Table {
            name: TableName::new("s", name),
            source_id: 0,
            columns: Vec::new(),
            identity: Identity::WholeRow,
            unique: Vec::new(),
            root: None,
            rows_estimate: None,
            bytes,
        };
        Catalog { tables: vec![table("a", 1), table("b", 1), table("big", 1 << 30), table("mid", 1 << 21)] }
    }

    fn index(name: &str, table: &str) -> SchemaItem {
        SchemaItem {
            kind: "INDEX".into(),
            name: format!("s.{name}"),
            sql: format!("CREATE INDEX {name} ON s.{table} USING btree (v);"),
        }
    }

    fn key(table: &str) -> SchemaItem {
        SchemaItem {
            kind: "CONSTRAINT".into(),
            name: format!("s.{table} key"),
            sql: format!("ALTER TABLE ONLY s.{table}\n    ADD CONSTRAINT key PRIMARY KEY (v);"),
        }
    }

    fn names(job: Job) -> Vec<String> {
        match job.work {
            Work::Items(items) => items.into_iter().map(|item| item.name).collect(),
            Work::Repeatable(statement) => vec![statement],
        }
    }

    #[test]
    fn large_tables_come_first_and_alone_and_small_ones_together() {
        let items =
            vec![index("b1", "b"), index("a1", "a"), index("x", "big"), index("b2", "b"), index("y", "big")];
        let jobs: Vec<Vec<String>> = Job::of(items, &catalog(), false).into_iter().map(names).collect();
        assert_eq!(jobs, [vec!["s.x"], vec!["s.y"], vec!["s.a1", "s.b1", "s.b2"]]);
    }

    #[test]
    fn an_index_with_more_than_itself_has_its_table_to_itself() {
        let mut clustered = index("c", "big");
        clustered.sql.push_str("\nALTER TABLE s.big CLUSTER ON c;");
        let jobs = Job::of(vec![index("x", "big"), clustered, key("mid")], &catalog(), false);
        assert_eq!(jobs.iter().map(|job| job.exclusive).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn after_an_error_no_more_jobs_are_begun() {
        let waiting = Job::of(vec![index("x", "big")], &catalog(), false);
        let jobs = Mutex::new(Jobs { closed: false, waiting, running: Vec::new() });
        let queue = Queue { jobs, ended: watch::channel(0).0 };
        queue.close();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(queue.next(Copied::whole())).is_none());
    }

    #[test]
    fn a_job_waits_for_its_table_and_for_those_who_have_it_to_themselves() {
        let mut waiting = Job::of(vec![key("big"), key("mid"), key("a")], &catalog(), false);
        waiting.extend(Job::of(vec![index("x", "big"), index("y", "big")], &catalog(), true));
        let mut jobs = Jobs { closed: false, waiting, running: Vec::new() };
        let mut take = |tables: &[usize], all, quiet, running: &[(usize, bool)]| {
            jobs.running = running.to_vec();
            jobs.take(&Copied { tables: tables.to_vec(), all, quiet }).map(names)
        };
        let some = |name: &str| Some(vec![name.to_owned()]);
        assert_eq!(take(&[], false, true, &[]), None);
        assert_eq!(take(&[2], false, true, &[]), some("s.big key"));
        assert_eq!(take(&[2], false, true, &[(2, true)]), None);
        assert_eq!(take(&[2], false, false, &[]), None, "the source is not quiet");
        assert_eq!(take(&[2], false, true, &[]), some("s.x"));
        assert_eq!(take(&[2], true, true, &[(2, false)]), some("s.mid key"));
        assert_eq!(take(&[2], true, false, &[]), some("s.a key"));
        assert_eq!(take(&[2], true, true, &[]), None, "what was left out stays out");
    }
}
