//! Capture: the binary log, as transactions.
//!
//! The log is sent event by event. A transaction begins with its GTID and ends with its commit; in between, a table map
//! says of which table the row events are that name its number. Everything that could change a row of ours and is not a
//! row event stops the stream by name: a statement, a definition, a distributed transaction.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use connector::{Capture, Error, ErrorKind, Event, Result, Retry};
use model::{
    Catalog, Change, Key, Position, Relation, RelationColumn, Row, Table, TableName, Transaction, Value,
};

use crate::cells::Cells;
use crate::column_type::ColumnType;
use crate::ddl::{self, Statement};
use crate::dump::{Dump, Received};
use crate::event::{Event as Logged, Header, MariadbGtid, Query, Rows};
use crate::position::{Coordinates, Gtid};
use crate::rows::{Image, Images};
use crate::table_map::TableMap;
use crate::url::Settings;
use crate::{cascade, session};

const FOLLOW: &str = "follow the source's log";

/// Handed over at a time.
const EVENTS_MAX: usize = 4_000;

/// Transactions that the log begins and never ends, by their order: the server died while it wrote them, or undid them.
/// That is known only behind them, when changes of theirs have been delivered. So the stream ends then, and the next one
/// leaves them out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Undone(Arc<Mutex<BTreeSet<u64>>>);

impl Undone {
    fn contains(&self, order: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&order)
    }

    fn add(&self, order: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(order);
    }
}

pub(crate) struct Stream {
    dump: Dump,
    /// The last boundary that was delivered.
    told: u64,
    tables: Vec<Followed>,
    names: Names,
    /// By the number that the log gives a table until the end of a statement. `None`: not ours.
    maps: HashMap<u64, Option<(usize, TableMap)>>,
    open: Option<Open>,
    undone: Undone,
}

/// A transaction whose end has not come.
struct Open {
    transaction: Transaction,
    gtid: Gtid,
    /// One statement is all of it.
    standalone: bool,
    /// A change of it has been delivered.
    begun: bool,
    /// It was undone: nothing of it is delivered.
    void: bool,
}

/// One of the migration's tables.
struct Followed {
    table: Table,
    types: Arc<[ColumnType]>,
    relation: Relation,
    /// Indexes into the table's columns of what is delivered.
    stored: Vec<usize>,
    /// Foreign keys of others point at these columns, and change rows unseen when they change.
    cascading: Vec<usize>,
    announced: bool,
}

/// Finds tables by name as the server does.
struct Names {
    by_name: HashMap<TableName, usize>,
    folded: bool,
}

impl Names {
    fn new(catalog: &Catalog, folded: bool) -> Names {
        let mut names = Names { by_name: HashMap::new(), folded };
        for (at, table) in catalog.tables.iter().enumerate() {
            let name = names.form(&table.name);
            names.by_name.insert(name, at);
        }
        names
    }

    /// Where names are kept in lower case, a statement may still write them in any.
    fn form(&self, name: &TableName) -> TableName {
        match self.folded {
            true => TableName::new(name.schema.to_lowercase(), name.name.to_lowercase()),
            false => name.clone(),
        }
    }

    fn find(&self, name: &TableName) -> Option<usize> {
        self.by_name.get(&self.form(name)).copied()
    }
}

impl Stream {
    /// Opens the log right after `after`. `types` are those of the catalog's tables.
    pub(crate) async fn open(
        settings: &Settings,
        catalog: &Catalog,
        types: Vec<Arc<[ColumnType]>>,
        after: &Position,
        undone: Undone,
    ) -> Result<Stream> {
        let from = Coordinates::parse(&after.text).map_err(|error| error.during(FOLLOW))?;
        let mut client = session::asking(settings).await?;
        client.doing(FOLLOW);
        let rows = client.query("SELECT @@global.lower_case_table_names").await?;
        let folded = Cells::first(rows).text(0)? != "0";
        let cascades = cascade::read(&mut client, catalog).await?;
        let dump = Dump::open(settings, &from, FOLLOW).await?;
        let followed = |(id, (table, types)): (usize, (&Table, Arc<[ColumnType]>))| {
            let cascading = cascades
                .iter()
                .filter(|key| key.parent == table.name && key.on_update.is_some())
                .flat_map(|key| &key.referenced)
                .filter_map(|name| {
                    table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
                });
            Followed::new(id, table, types, cascading.collect())
        };
        Ok(Stream {
            told: dump.at.order(),
            dump,
            tables: catalog.tables.iter().zip(types).enumerate().map(followed).collect(),
            names: Names::new(catalog, folded),
            maps: HashMap::new(),
            open: None,
            undone,
        })
    }

    fn take(&mut self, received: Received, events: &mut Vec<Event>) -> Result<()> {
        let Received { header, event, start } = received;
        match event {
            // A server that starts begins a file; what it had not finished in the one before it never will.
            Logged::FormatDescription { .. } | Logged::Rotate { .. } => self.cut_off()?,
            Logged::MariadbGtid(gtid) => {
                self.cut_off()?;
                self.begin(&gtid, &header, start)?;
            }
            Logged::TableMap(map) => self.describe(map),
            Logged::Rows(rows) => self.rows(&rows, events)?,
            Logged::Query(query) => self.query(&query, events)?,
            Logged::Xid => self.commit(events),
            Logged::XaPrepare { .. } => return Err(distributed()),
            Logged::MysqlGtid(_) => {
                return Err(Error::new(ErrorKind::Setup, FOLLOW)
                    .hint("the log is MySQL's, which cannot be followed yet"));
            }
            Logged::Heartbeat { .. } | Logged::GtidList(_) | Logged::Ignored => {}
        }
        Ok(())
    }

    fn begin(&mut self, gtid: &MariadbGtid, header: &Header, start: u64) -> Result<()> {
        if gtid.xa.is_some() {
            return Err(distributed());
        }
        // One more than where it begins: a boundary may lie there.
        let order = start + 1;
        let transaction = Transaction {
            seq: 0,
            id: gtid.gtid.sequence,
            order,
            committed_us: i64::from(header.seconds) * 1_000_000,
        };
        self.open = Some(Open {
            transaction,
            gtid: gtid.gtid,
            standalone: gtid.standalone,
            begun: false,
            void: self.undone.contains(order),
        });
        Ok(())
    }

    /// The transaction that is open will not be ended.
    fn cut_off(&mut self) -> Result<()> {
        self.maps.clear();
        match self.open.take() {
            Some(open) if open.begun => Err(self.undo(&open)),
            _ => Ok(()),
        }
    }

    /// The log has the rows of a transaction that changed tables of another engine as well, and its end. It counts among
    /// those that lie before what follows.
    fn rolled_back(&mut self) -> Result<()> {
        if let Some(open) = &self.open {
            self.dump.at.gtids.advance(open.gtid);
        }
        self.cut_off()
    }

    /// Its changes have been delivered.
    fn undo(&self, open: &Open) -> Error {
        self.undone.add(open.transaction.order);
        Error::new(ErrorKind::Connect, FOLLOW)
            .with("because", format!("transaction {} was undone in the log", open.gtid))
            .retry(Retry::Later)
    }

    fn describe(&mut self, map: TableMap) {
        let table = self.names.find(&TableName::new(map.schema.as_str(), map.name.as_str()));
        self.maps.insert(map.table_id, table.map(|table| (table, map)));
    }

    fn rows(&mut self, rows: &Rows, events: &mut Vec<Event>) -> Result<()> {
        // An event without rows only ends a statement.
        if !rows.images.is_empty() {
            let mapped = self.maps.get(&rows.table_id).ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, FOLLOW)
                    .with("at", &self.dump.at)
                    .with("protocol:", "rows of no table")
            })?;
            let open = self.open.as_mut().filter(|open| !open.void);
            if let (Some((table, map)), Some(open)) = (mapped, open) {
                let followed = &mut self.tables[*table];
                open.begin(events);
                followed.announce(events);
                followed.changes(rows, map, events)?;
            }
        }
        if rows.ends_statement {
            self.maps.clear();
        }
        Ok(())
    }

    fn query(&mut self, query: &Query, events: &mut Vec<Event>) -> Result<()> {
        let stop = |what: &str| {
            let sql = String::from_utf8_lossy(&query.sql);
            let sql: String = sql.chars().take(200).collect();
            Error::new(ErrorKind::Schema, FOLLOW).with("because", what).with("statement", sql)
        };
        match ddl::recognise(query, self.dump.family()) {
            Statement::Begin | Statement::Savepoint | Statement::Harmless => {}
            Statement::Commit => self.commit(events),
            Statement::Rollback => return self.rolled_back(),
            // Part of a transaction is undone, and which part its rows do not say.
            Statement::RollbackToSavepoint => {
                return Err(stop("a transaction that also changes tables of another engine was undone in part")
                    .hint("begin the migration anew; until it is over, do not change InnoDB's tables and others in one transaction"));
            }
            Statement::Xa(..) => return Err(distributed()),
            Statement::Truncate(table) => {
                if let Some(table) = self.names.find(&table) {
                    self.truncate(table, events);
                }
            }
            Statement::Definition { what, tables } => {
                if let Some(table) = tables.iter().find(|table| self.names.find(table).is_some()) {
                    return Err(stop(what).with("table", table).hint(
                        "the migration was planned for the table as it was: undo the change and begin the migration anew",
                    ));
                }
            }
            Statement::DropDatabase(schema) => {
                if self.tables.iter().any(|followed| followed.table.name.schema.eq_ignore_ascii_case(&schema))
                {
                    return Err(stop("the source's database was dropped")
                        .hint("restore it and begin the migration anew, or keep what the target has: all before this is there"));
                }
            }
            Statement::Rows { what, .. } => {
                return Err(stop("a session logs statements instead of rows").with("a", what).hint(
                    "SET GLOBAL binlog_format = ROW on the source, see to it that no session sets another, and begin the \
                     migration anew",
                ));
            }
            Statement::Unknown => {
                return Err(stop("what this statement does to the tables is not known").hint(
                    "begin the migration anew, and do without it until the migration is over; please report it",
                ));
            }
        }
        if self.open.as_ref().is_some_and(|open| open.standalone) {
            self.commit(events);
        }
        Ok(())
    }

    fn truncate(&mut self, table: usize, events: &mut Vec<Event>) {
        let Some(open) = self.open.as_mut().filter(|open| !open.void) else { return };
        open.begin(events);
        let followed = &mut self.tables[table];
        followed.announce(events);
        // AUTO_INCREMENT begins anew with it.
        let relations = vec![followed.relation.id];
        events.push(Event::Change(Change::Truncate { relations, restart_identity: true }));
    }

    fn commit(&mut self, events: &mut Vec<Event>) {
        self.maps.clear();
        let Some(open) = self.open.take() else { return };
        self.dump.at.gtids.advance(open.gtid);
        if open.begun {
            self.told = self.dump.at.order();
            events.push(Event::Commit { position: self.dump.at.position() });
        }
    }

    /// Between two transactions everything up to here is known.
    fn idle(&mut self, events: &mut Vec<Event>) {
        if self.open.is_none() && self.dump.at.order() > self.told {
            self.told = self.dump.at.order();
            events.push(Event::Idle { position: self.dump.at.position() });
        }
    }
}

fn distributed() -> Error {
    Error::new(ErrorKind::Setup, FOLLOW).with("because", "a distributed transaction (XA) is in the log").hint(
        "XA is not supported yet: let the application do without it while the migration runs, and begin anew",
    )
}

impl Open {
    fn begin(&mut self, events: &mut Vec<Event>) {
        if !self.begun {
            self.begun = true;
            events.push(Event::Begin(self.transaction));
        }
    }
}

impl Followed {
    fn new(id: usize, table: &Table, types: Arc<[ColumnType]>, cascading: Vec<usize>) -> Followed {
        let stored: Vec<usize> = table.stored().collect();
        let is_old = |at: &usize| table.key().is_none_or(|key| key.contains(at));
        let columns = stored
            .iter()
            .map(|at| RelationColumn {
                name: table.columns[*at].name.clone(),
                type_id: 0,
                type_modifier: -1,
                key: is_old(at),
            })
            .collect();
        let relation = Relation {
            id: u32::try_from(id).unwrap_or(u32::MAX),
            table: table.name.clone(),
            columns,
            whole_old_row: table.key().is_none(),
        };
        Followed { table: table.clone(), types, relation, stored, cascading, announced: false }
    }

    fn announce(&mut self, events: &mut Vec<Event>) {
        if !self.announced {
            self.announced = true;
            events.push(Event::Relation(self.relation.clone()));
        }
    }

    fn changes(&self, rows: &Rows, map: &TableMap, events: &mut Vec<Event>) -> Result<()> {
        let failed = |error: crate::rows::RowsError| error.during(FOLLOW, &self.table.name);
        let relation = self.relation.id;
        for image in Images::new(rows, map, &self.table, &self.types).map_err(failed)? {
            events.push(Event::Change(match image.map_err(failed)? {
                Image::Write(row) => Change::Insert { relation, new: self.delivered(row) },
                Image::Delete(row) => Change::Delete { relation, old: self.old(row) },
                Image::Update { before, after } => {
                    self.check_cascades(&before, &after)?;
                    let same_key =
                        self.table.key().is_some_and(|key| Key::of(&before, key) == Key::of(&after, key));
                    let old = (!same_key).then(|| self.old(before));
                    Change::Update { relation, old, new: self.delivered(after) }
                }
            }));
        }
        Ok(())
    }

    /// The cells of a row, in the relation's order.
    fn delivered(&self, mut row: Row) -> Row {
        if self.stored.len() == row.len() {
            return row;
        }
        self.stored.iter().map(|&at| std::mem::replace(&mut row[at], Value::Unchanged)).collect()
    }

    /// What tells an old row: its key, or all of it.
    fn old(&self, row: Row) -> Row {
        let mut row = self.delivered(row);
        if self.table.key().is_some() {
            for (cell, column) in row.iter_mut().zip(&self.relation.columns) {
                if !column.key {
                    *cell = Value::Unchanged;
                }
            }
        }
        row
    }

    /// HAZARDS A03: what ON UPDATE CASCADE does to the children is not logged.
    fn check_cascades(&self, before: &Row, after: &Row) -> Result<()> {
        match self.cascading.iter().find(|&&at| before[at] != after[at]) {
            None => Ok(()),
            Some(&at) => Err(Error::new(ErrorKind::Setup, FOLLOW)
                .with("table", &self.table.name)
                .with("column", &self.table.columns[at].name)
                .with("because", "it was changed, and a foreign key with ON UPDATE passed that on to rows of another table unlogged")
                .hint("begin the migration anew, and do not change this column until it is over")),
        }
    }
}

#[async_trait]
impl Capture for Stream {
    async fn next(&mut self, events: &mut Vec<Event>) -> Result<()> {
        while events.is_empty() {
            let received = self.dump.next().await?;
            self.take(received, events)?;
            while events.len() < EVENTS_MAX
                && let Some(received) = self.dump.here()?
            {
                self.take(received, events)?;
            }
            self.idle(events);
        }
        Ok(())
    }

    /// The server keeps its log for as long as it is told to, not for us.
    async fn acknowledge(&mut self, _position: &Position) -> Result<()> {
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
