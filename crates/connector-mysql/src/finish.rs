//! The rest of the target's schema, once all cuts are settled: indexes, foreign keys, views, statistics.
//!
//! What is there already is found by its name, so this can be begun anew after a crash between any two statements. Triggers and
//! events are not created: what they do on the source is in its log.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use connector::{Error, ErrorKind, NativeSchema, Owner, Result, Retry, SchemaItem, failpoint};
use model::{Catalog, Kind, Table};

use crate::build::{self, Step, Work};
use crate::cells::Cells;
use crate::create;
use crate::native::{self, VIEW};
use crate::show_create::{self, Clause, FOREIGN_KEY, FULLTEXT, ForeignKey};
use crate::target::Case;
use crate::url::Settings;
use crate::wire::Client;
use crate::{generate, records, session, sql, writer};

/// What is not created, and why.
type LeftOut = Vec<(String, String)>;

pub(crate) async fn finish(
    settings: &Settings,
    owner: &Owner,
    catalog: &Catalog,
    native: Option<&NativeSchema>,
    builders: usize,
) -> Result<LeftOut> {
    let mut client = session::writing(settings, &owner.stream).await?;
    client.doing("finish the target's schema");
    let (items, mut left_out) = match native::own(native, client.family()) {
        Some(native) => (native.after.clone(), LeftOut::new()),
        None => (unique(catalog), foreign(catalog, native)),
    };
    let target = Target::read(&mut client, settings, owner, catalog).await?;
    let mut plan = Plan::default();
    for item in items {
        let label = format!("{} {}", item.kind, item.name);
        left_out.extend(plan.add(item, &target, catalog)?.map(|reason| (label, reason)));
    }
    build::side_by_side(settings, owner, plan.indexes(catalog), builders).await?;
    // They make the proofs cheap.
    build::side_by_side(settings, owner, statistics(catalog), builders).await?;
    let proofs = plan.foreign_keys.iter().map(|key| vec![key.proof()]).collect();
    build::side_by_side(settings, owner, proofs, builders).await?;
    // One by one: each locks its parent's definition as well. They are proved, so no row is read (`foreign_key_checks` is off).
    for key in &plan.foreign_keys {
        build::carry_out(&mut client, owner, &key.change()).await?;
        failpoint::hit(failpoint::FINISH_BETWEEN_ITEMS);
    }
    left_out.extend(views(&mut client, owner, plan.views).await?);
    create::begin(&mut client, owner).await?;
    records::set_finished(&mut client, owner).await?;
    writer::commit(&mut client).await?;
    Ok(left_out)
}

/// Unique indexes over columns keep their meaning between engines.
fn unique(catalog: &Catalog) -> Vec<SchemaItem> {
    let mut items = Vec::new();
    for table in &catalog.tables {
        for unique in table.unique.iter().filter(|unique| is_portable(table, &unique.columns)) {
            let (name, columns) = (sql::ident(&unique.name), generate::columns(table, &unique.columns));
            items.push(SchemaItem {
                kind: "UNIQUE INDEX".to_owned(),
                name: format!("{}.{}", table.name.name, unique.name),
                sql: show_create::add(&table.name.name, &format!("UNIQUE KEY {name} ({columns})")),
            });
        }
    }
    items
}

fn is_portable(table: &Table, columns: &[usize]) -> bool {
    !columns.is_empty() && !columns.iter().any(|&at| table.columns[at].generated)
}

/// What of another engine's schema the catalog does not tell, or what means something else here.
fn foreign(catalog: &Catalog, native: Option<&NativeSchema>) -> LeftOut {
    let mut left_out = LeftOut::new();
    for item in native.iter().flat_map(|native| &native.after) {
        let reason = "it is written in another engine's words; create it by hand";
        left_out.push((format!("{} {}", item.kind, item.name), reason.to_owned()));
    }
    for table in &catalog.tables {
        for column in table.columns.iter().filter(|column| column.generated) {
            let reason = "how it is computed is written in another engine's words; add it by hand";
            left_out.push((format!("COLUMN {}.{}", table.name, column.name), reason.to_owned()));
        }
        for unique in table.unique.iter().filter(|unique| !is_portable(table, &unique.columns)) {
            let reason = "it is over expressions of another engine; create it by hand";
            left_out.push((format!("UNIQUE INDEX {}.{}", table.name, unique.name), reason.to_owned()));
        }
    }
    let counts =
        |table: &&Table| matches!(table.key(), Some(&[at]) if table.columns[at].kind == Kind::Integer);
    if let Some(table) = catalog.tables.iter().find(counts) {
        let reason = format!(
            "whether keys are numbered by the source is not known here; where they are, as perhaps in {}, \
             MODIFY the column to AUTO_INCREMENT before the application writes to the target",
            table.name
        );
        left_out.push(("AUTO_INCREMENT".to_owned(), reason));
    }
    left_out
}

/// What the target has, by kind, table and name.
struct Target {
    case: Case,
    there: HashSet<(String, String, String)>,
    /// The tables that we have created.
    ours: HashSet<String>,
}

impl Target {
    async fn read(
        client: &mut Client,
        settings: &Settings,
        owner: &Owner,
        catalog: &Catalog,
    ) -> Result<Target> {
        let case = Case::of(client).await?;
        let database = sql::literal(&settings.database);
        let rows = client
            .query(&format!(
                "SELECT DISTINCT 'INDEX', TABLE_NAME, INDEX_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = {database} \
                 UNION ALL SELECT CONSTRAINT_TYPE, TABLE_NAME, CONSTRAINT_NAME FROM information_schema.TABLE_CONSTRAINTS \
                 WHERE CONSTRAINT_SCHEMA = {database} AND CONSTRAINT_TYPE = '{FOREIGN_KEY}' \
                 UNION ALL SELECT '{VIEW}', '', TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {database}"
            ))
            .await?;
        let mut there = HashSet::new();
        for row in rows {
            let row = Cells(row);
            let name = row.text(2)?.to_lowercase();
            there.insert((row.text(0)?.to_owned(), case.fold(row.text(1)?), name));
        }
        let mut ours = HashSet::new();
        for table in &catalog.tables {
            if create::is_ours(client, owner, table).await? {
                ours.insert(table.name.name.clone());
            }
        }
        Ok(Target { case, there, ours })
    }

    /// A foreign key's name counts for the whole database.
    fn has_foreign_key(&self, name: &str) -> bool {
        self.there.iter().any(|(kind, _, there)| kind == FOREIGN_KEY && *there == name.to_lowercase())
    }

    fn has(&self, kind: &str, table: &str, name: &str) -> bool {
        self.there.contains(&(kind.to_owned(), self.case.fold(table), name.to_lowercase()))
    }
}

/// What there is to do.
#[derive(Default)]
struct Plan {
    /// By table.
    indexes: BTreeMap<String, Vec<Index>>,
    foreign_keys: Vec<Reference>,
    views: Vec<SchemaItem>,
}

struct Index {
    name: String,
    clause: String,
    /// The server builds one of them at a time, and would write the table anew for two.
    alone: bool,
}

/// A foreign key, and the table that it is of.
struct Reference {
    table: String,
    key: ForeignKey,
    sql: String,
}

impl Plan {
    /// Takes an item up unless it is there; the reason when it is left out.
    fn add(&mut self, item: SchemaItem, target: &Target, catalog: &Catalog) -> Result<Option<String>> {
        if item.sql.is_empty() {
            return Ok(Some(by_hand(&item.kind).to_owned()));
        }
        if item.kind == VIEW {
            if !target.has(VIEW, "", &item.name) {
                self.views.push(item);
            }
            return Ok(None);
        }
        let damaged =
            || Error::new(ErrorKind::Corrupt, "read an item of the plan's schema").with("item", &item.name);
        let (table, clause) = show_create::added(&item.sql).ok_or_else(damaged)?;
        let not_ours = "its table was on the target before; create it by hand if it is wanted";
        match Clause::parse(clause).ok_or_else(damaged)? {
            Clause::Key { name, .. } if target.has("INDEX", &table, &name) => Ok(None),
            Clause::ForeignKey(key) if target.has(FOREIGN_KEY, &table, &key.name) => Ok(None),
            _ if !target.ours.contains(&table) => Ok(Some(not_ours.to_owned())),
            Clause::ForeignKey(key) if !has_parent(catalog, &key) => {
                Ok(Some(format!("its parent {} is not migrated; create it by hand", key.parent)))
            }
            Clause::ForeignKey(key) if target.has_foreign_key(&key.name) => Ok(Some(
                "another table of the target's database has one of this name; create it by hand".to_owned(),
            )),
            Clause::ForeignKey(key) => {
                self.foreign_keys.push(Reference { table, key, sql: item.sql.clone() });
                Ok(None)
            }
            Clause::Key { name, kind, .. } => {
                let index = Index { name, clause: clause.to_owned(), alone: kind == FULLTEXT };
                self.indexes.entry(table).or_default().push(index);
                Ok(None)
            }
            Clause::Column { .. } | Clause::Primary { .. } | Clause::Other => Err(damaged()),
        }
    }

    /// The largest tables first. What needs a statement of its own comes first, while the other indexes are not in its way.
    fn indexes(&mut self, catalog: &Catalog) -> Vec<Vec<Step>> {
        let bytes = |name: &str| {
            catalog.tables.iter().find(|table| table.name.name == name).map_or(0, |table| table.bytes)
        };
        let mut tables: Vec<_> = std::mem::take(&mut self.indexes).into_iter().collect();
        tables.sort_by_key(|(name, _)| Reverse(bytes(name)));
        tables.into_iter().map(|(table, indexes)| alter(&table, indexes)).collect()
    }
}

fn alter(table: &str, indexes: Vec<Index>) -> Vec<Step> {
    let (alone, together): (Vec<Index>, Vec<Index>) = indexes.into_iter().partition(|index| index.alone);
    let mut groups: Vec<Vec<Index>> = alone.into_iter().map(|index| vec![index]).collect();
    groups.push(together);
    groups.retain(|group| !group.is_empty());
    let step = |group: Vec<Index>| {
        let clauses: Vec<&str> = group.iter().map(|index| index.clause.as_str()).collect();
        Step {
            item: format!("INDEX {}", sql::list(&group, |index| format!("{table}.{}", index.name))),
            work: Work::Change(show_create::add(table, &clauses.join(", ADD "))),
        }
    };
    groups.into_iter().map(step).collect()
}

fn has_parent(catalog: &Catalog, key: &ForeignKey) -> bool {
    key.parent_database.is_none() && catalog.tables.iter().any(|table| table.name.name == key.parent)
}

/// Why something is on the list without a statement.
fn by_hand(kind: &str) -> &'static str {
    match kind {
        "TRIGGER" => {
            "while changes are applied it would run a second time for each of them; create it after the switch"
        }
        "EVENT" => "what it does on the source is in the log; create it after the switch",
        VIEW => {
            "the source does not show it (GRANT SHOW VIEW), or it names a database of the source; create it by hand"
        }
        _ => "only tables and views are carried over; create it by hand",
    }
}

impl Reference {
    fn step(&self, work: Work) -> Step {
        Step { item: format!("{FOREIGN_KEY} {}.{}", self.table, self.key.name), work }
    }

    fn proof(&self) -> Step {
        self.step(Work::Proof(build::orphan(&self.table, &self.key)))
    }

    fn change(&self) -> Step {
        self.step(Work::Change(self.sql.clone()))
    }
}

fn statistics(catalog: &Catalog) -> Vec<Vec<Step>> {
    let mut tables: Vec<&Table> = catalog.tables.iter().collect();
    tables.sort_by_key(|table| Reverse(table.bytes));
    let step = |table: &Table| Step {
        item: format!("statistics of {}", table.name),
        work: Work::Change(format!("ANALYZE TABLE {}", sql::ident(&table.name.name))),
    };
    tables.into_iter().map(|table| vec![step(table)]).collect()
}

/// A view may need another one: what is refused is tried again for as long as others succeed.
async fn views(client: &mut Client, owner: &Owner, mut views: Vec<SchemaItem>) -> Result<LeftOut> {
    client.doing("create a view on the target");
    loop {
        let (tried, mut refused) = (views.len(), Vec::new());
        for view in views {
            match create::change(client, owner, &view.sql).await {
                Ok(()) => failpoint::hit(failpoint::FINISH_BETWEEN_ITEMS),
                Err(error) if is_about_the_view(client, &error) => refused.push((view, error)),
                Err(error) => return Err(error.with("item", view.name)),
            }
        }
        if refused.is_empty() || refused.len() == tried {
            let reason =
                |error: &Error| error.source.as_ref().map_or_else(|| error.to_string(), |db| db.to_string());
            return Ok(refused
                .iter()
                .map(|(view, error)| (format!("{VIEW} {}", view.name), reason(error)))
                .collect());
        }
        views = refused.into_iter().map(|(view, _)| view).collect();
    }
}

/// The server understood and said no: something that it needs is not there, or may not be used.
fn is_about_the_view(client: &Client, error: &Error) -> bool {
    client.is_usable()
        && (error.retry == Retry::Never || error.kind == ErrorKind::Schema)
        && matches!(
            error.kind,
            ErrorKind::Schema | ErrorKind::Permission | ErrorKind::Database | ErrorKind::Setup
        )
}

#[cfg(test)]
mod tests {
    use model::{Column, Identity, TableName, Unique};

    use super::*;

    fn table(name: &str, bytes: u64) -> Table {
        let column = |name: &str, kind, generated| Column {
            name: name.to_owned(),
            type_name: String::new(),
            type_id: 20,
            type_modifier: -1,
            number: 0,
            kind,
            nullable: false,
            generated,
        };
        Table {
            name: TableName::new("src", name),
            source_id: 0,
            columns: vec![column("id", Kind::Integer, false), column("sum", Kind::Integer, true)],
            identity: Identity::Key { columns: vec![0], order: None },
            unique: Vec::new(),
            root: None,
            rows_estimate: None,
            bytes,
        }
    }

    fn catalog() -> Catalog {
        Catalog { tables: vec![table("big", 9), table("found", 1), table("small", 1)] }
    }

    fn item(kind: &str, name: &str, sql: &str) -> SchemaItem {
        SchemaItem { kind: kind.to_owned(), name: name.to_owned(), sql: sql.to_owned() }
    }

    fn target(there: &[(&str, &str, &str)]) -> Target {
        let owned = |(kind, table, name): &(&str, &str, &str)| {
            ((*kind).to_owned(), (*table).to_owned(), (*name).to_owned())
        };
        let ours = ["big", "small"].map(str::to_owned).into();
        Target { case: Case::Counts, there: there.iter().map(owned).collect(), ours }
    }

    #[test]
    fn what_is_missing_is_put_together_by_table() {
        let mut plan = Plan::default();
        let there = target(&[("INDEX", "big", "there"), ("FOREIGN KEY", "big", "fk"), ("VIEW", "", "v")]);
        for item in [
            item("INDEX", "small.s", "ALTER TABLE `small` ADD KEY `s` (`a`)"),
            item("INDEX", "big.a", "ALTER TABLE `big` ADD KEY `a` (`a`)"),
            item("INDEX", "big.There", "ALTER TABLE `big` ADD KEY `There` (`a`)"),
            item("FULLTEXT INDEX", "big.f", "ALTER TABLE `big` ADD FULLTEXT KEY `f` (`t`)"),
            item("UNIQUE INDEX", "big.fk", "ALTER TABLE `big` ADD UNIQUE KEY `fk` (`b`)"),
            item(
                "FOREIGN KEY",
                "big.fk",
                "ALTER TABLE `big` ADD CONSTRAINT `fk` FOREIGN KEY (`b`) REFERENCES `small` (`id`)",
            ),
            item("VIEW", "V", "CREATE VIEW `V` AS select 1"),
            item("VIEW", "w", "CREATE VIEW `w` AS select 1"),
        ] {
            assert_eq!(plan.add(item, &there, &catalog()).unwrap(), None);
        }
        assert!(plan.foreign_keys.is_empty());
        assert_eq!(plan.views.iter().map(|view| view.name.as_str()).collect::<Vec<_>>(), ["w"]);
        let step = |item: &str, sql: &str| Step { item: item.to_owned(), work: Work::Change(sql.to_owned()) };
        assert_eq!(
            plan.indexes(&catalog()),
            [
                vec![
                    step("INDEX big.f", "ALTER TABLE `big` ADD FULLTEXT KEY `f` (`t`)"),
                    step(
                        "INDEX big.a, big.fk",
                        "ALTER TABLE `big` ADD KEY `a` (`a`), ADD UNIQUE KEY `fk` (`b`)"
                    ),
                ],
                vec![step("INDEX small.s", "ALTER TABLE `small` ADD KEY `s` (`a`)")],
            ]
        );
    }

    #[test]
    fn what_is_left_out_is_named_with_its_reason() {
        let key = |table: &str, parent: &str| {
            format!("ALTER TABLE `{table}` ADD CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES {parent} (`id`)")
        };
        for (item, reason) in [
            (item("INDEX", "found.i", "ALTER TABLE `found` ADD KEY `i` (`a`)"), "on the target before"),
            (item("FOREIGN KEY", "found.f", &key("found", "`big`")), "on the target before"),
            (item("FOREIGN KEY", "big.f", &key("big", "`stranger`")), "parent stranger is not migrated"),
            (item("FOREIGN KEY", "big.f", &key("big", "`other`.`small`")), "parent small is not migrated"),
            (
                item("FOREIGN KEY", "big.taken", &key("big", "`small`").replace("`f`", "`Taken`")),
                "of this name",
            ),
            (item("TRIGGER", "t", ""), "after the switch"),
            (item("EVENT", "e", ""), "after the switch"),
            (item("VIEW", "v", ""), "by hand"),
            (item("PROCEDURE", "p", ""), "by hand"),
        ] {
            let mut plan = Plan::default();
            let there = target(&[("FOREIGN KEY", "stranger", "taken")]);
            let found = plan.add(item, &there, &catalog()).unwrap().unwrap_or_default();
            assert!(found.contains(reason), "{found}");
            assert!(plan.foreign_keys.is_empty() && plan.indexes.is_empty() && plan.views.is_empty());
        }
        let damaged = item("INDEX", "big.i", "DROP TABLE `big`");
        let error = Plan::default().add(damaged, &target(&[]), &catalog()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt);
    }

    #[test]
    fn a_foreign_key_is_proved_by_looking_for_an_orphan() {
        let sql =
            "ALTER TABLE `small` ADD CONSTRAINT `f` FOREIGN KEY (`a`, `b``c`) REFERENCES `big` (`x`, `y`)";
        let mut plan = Plan::default();
        plan.add(item("FOREIGN KEY", "small.f", sql), &target(&[]), &catalog()).unwrap();
        let query = "SELECT child.`a`, child.`b``c` FROM `small` AS child \
                     WHERE child.`a` IS NOT NULL AND child.`b``c` IS NOT NULL AND NOT EXISTS \
                     (SELECT 1 FROM `big` AS parent WHERE parent.`x` = child.`a` AND parent.`y` = child.`b``c`) LIMIT 1";
        assert_eq!(plan.foreign_keys[0].proof().work, Work::Proof(query.to_owned()));
        assert_eq!(plan.foreign_keys[0].change().work, Work::Change(sql.to_owned()));
    }

    #[test]
    fn another_engine_gives_unique_indexes_and_the_rest_is_named() {
        let mut catalog = Catalog { tables: vec![table("t", 1)] };
        let unique =
            |name: &str, columns: &[usize]| Unique { name: name.to_owned(), columns: columns.to_vec() };
        catalog.tables[0].unique = vec![unique("u`", &[0]), unique("over_sum", &[1]), unique("lower", &[])];
        assert_eq!(unique_of(&catalog), ["ALTER TABLE `t` ADD UNIQUE KEY `u``` (`id`)"]);
        let native = NativeSchema { after: vec![item("INDEX", "t.i", "…")], ..NativeSchema::default() };
        let named: Vec<String> = foreign(&catalog, Some(&native)).into_iter().map(|(item, _)| item).collect();
        let unique = ["UNIQUE INDEX src.t.over_sum", "UNIQUE INDEX src.t.lower"];
        assert_eq!(named, ["INDEX t.i", "COLUMN src.t.sum", unique[0], unique[1], "AUTO_INCREMENT"]);
    }

    fn unique_of(catalog: &Catalog) -> Vec<String> {
        unique(catalog).into_iter().map(|item| item.sql).collect()
    }
}
