//! A source's schema in its own words: SHOW CREATE TABLE, taken apart into what the rows need and what comes after them.
//!
//! - `before` has one CREATE TABLE for each table of the catalog, each ended by a semicolon ([`tables`] tells them apart):
//!   columns, checks, options and partitions, the primary key (InnoDB keeps the rows in its order, and adding it later writes them
//!   again), the unique index that stands in for one, and the index that an AUTO_INCREMENT cannot be without. The counter stays as
//!   it is told (`AUTO_INCREMENT=7`): the server never gives out less than the rows have, and `advance_sequences` moves it on.
//! - `keys` is empty.
//! - `after` has the other indexes and then the foreign keys, each as an ALTER TABLE of its own, which the writer puts together;
//!   then views. What is not carried over is there by name, without a statement.
//!
//! No statement names the database, so that each can be run in another one.

use std::collections::HashMap;

use connector::{Error, ErrorKind, NativeSchema, Result, SchemaItem};
use model::{Catalog, Table, TableName};

use crate::cells::Cells;
use crate::error::number;
use crate::family::Family;
use crate::show_create::{self, Clause, Definition, FOREIGN_KEY};
use crate::sql;
use crate::wire::Client;

pub(crate) const VIEW: &str = "VIEW";

const OPERATION: &str = "carry a table's definition over";

/// The two are not interchangeable: they differ in collations, in JSON and in UUID.
pub(crate) fn dialect(family: Family) -> &'static str {
    if family.is_mariadb() { "mariadb" } else { "mysql" }
}

/// The schema, where this server speaks its dialect.
pub(crate) fn own(native: Option<&NativeSchema>, family: Family) -> Option<&NativeSchema> {
    native.filter(|native| native.dialect == dialect(family))
}

/// The statements of `before`, each with its table.
pub(crate) fn tables(native: &NativeSchema) -> Result<HashMap<String, &str>> {
    let mut tables = HashMap::new();
    for create in show_create::split(&native.before, ';') {
        let definition = Definition::parse(create)
            .ok_or_else(|| not_understood(create).hint("begin the migration anew: its plan is damaged"))?;
        tables.insert(definition.name, create);
    }
    Ok(tables)
}

/// Refuses a table that would be something else on another server.
pub(crate) fn portable(table: &str, create: &str) -> Result<()> {
    let refused = |found: String, hint: String| {
        Error::new(ErrorKind::Schema, OPERATION).with("table", table).with("found", found).hint(hint)
    };
    let alter = format!("ALTER TABLE {}", sql::ident(table));
    if show_create::says(create, "SYSTEM", "VERSIONING") || show_create::says(create, "ROW", "START") {
        let hint = format!(
            "old versions of its rows would come as rows: leave it out, or {alter} DROP SYSTEM VERSIONING; on the source"
        );
        return Err(refused("WITH SYSTEM VERSIONING".to_owned(), hint));
    }
    match show_create::qualifiers(create).first() {
        None => Ok(()),
        Some(database) => Err(refused(
            format!("something of the database {database}, as nextval() names it"),
            format!(
                "sequences are not carried over: {alter} ALTER COLUMN … DROP DEFAULT; on the source, or create the table \
                 on the target yourself"
            ),
        )),
    }
}

/// All tables are of one database, which is the session's.
pub(crate) async fn schema(client: &mut Client, catalog: &Catalog) -> Result<NativeSchema> {
    let mut native = NativeSchema { dialect: dialect(client.family()).to_owned(), ..NativeSchema::default() };
    client.execute("SET sql_quote_show_create = ON").await?;
    let (mut indexes, mut foreign_keys) = (Vec::new(), Vec::new());
    for table in &catalog.tables {
        let row =
            Cells::first(client.query(&format!("SHOW CREATE TABLE {}", sql::table(&table.name))).await?);
        let parts = Parts::of(table, row.text(1)?)?;
        native.before.push_str(&parts.create);
        native.before.push_str(";\n");
        indexes.extend(parts.indexes);
        foreign_keys.extend(parts.foreign_keys);
    }
    native.after = indexes;
    native.after.extend(foreign_keys);
    if let Some(table) = catalog.tables.first() {
        native.after.extend(others(client, &table.name.schema, catalog).await?);
    }
    Ok(native)
}

#[derive(Debug)]
struct Parts {
    create: String,
    indexes: Vec<SchemaItem>,
    foreign_keys: Vec<SchemaItem>,
}

impl Parts {
    fn of(table: &Table, text: &str) -> Result<Parts> {
        let definition =
            Definition::parse(text).ok_or_else(|| not_understood(text).with("table", &table.name))?;
        let mut clauses = Vec::new();
        for text in &definition.clauses {
            clauses.push((
                *text,
                Clause::parse(text).ok_or_else(|| not_understood(text).with("table", &table.name))?,
            ));
        }
        let counter = counter_index(&clauses);
        let mut parts = Parts { create: String::new(), indexes: Vec::new(), foreign_keys: Vec::new() };
        let mut before = Vec::new();
        for (at, (text, clause)) in clauses.iter().enumerate() {
            let item = |kind: &str, name: &str| SchemaItem {
                kind: kind.to_owned(),
                name: format!("{}.{name}", table.name.name),
                sql: show_create::add(&definition.name, text),
            };
            match clause {
                Clause::Key { name, kind, .. } if counter != Some(at) && !is_identity(table, name, kind) => {
                    parts.indexes.push(item(kind, name));
                }
                Clause::ForeignKey(key) => parts.foreign_keys.push(item(FOREIGN_KEY, &key.name)),
                _ => before.push(*text),
            }
        }
        parts.create = format!(
            "CREATE TABLE {} (\n  {}\n){}",
            sql::ident(&definition.name),
            before.join(",\n  "),
            definition.options
        );
        Ok(parts)
    }
}

/// The first index that begins with the column that counts. The primary key may be it.
fn counter_index(clauses: &[(&str, Clause)]) -> Option<usize> {
    let counter = clauses.iter().find_map(|(_, clause)| match clause {
        Clause::Column { name, counts: true } => Some(name),
        _ => None,
    })?;
    clauses.iter().position(|(_, clause)| match clause {
        Clause::Primary { first } | Clause::Key { first, .. } => first.as_ref() == Some(counter),
        _ => false,
    })
}

/// The catalog lists all unique indexes but the identity's.
fn is_identity(table: &Table, index: &str, kind: &str) -> bool {
    kind == "UNIQUE INDEX" && table.key().is_some() && !table.unique.iter().any(|unique| unique.name == index)
}

fn not_understood(text: &str) -> Error {
    Error::new(ErrorKind::Schema, OPERATION)
        .with("not understood:", text.chars().take(200).collect::<String>())
}

/// What is no table: views with their statements, everything else by name. Triggers only of the catalog's tables.
async fn others(client: &mut Client, database: &str, catalog: &Catalog) -> Result<Vec<SchemaItem>> {
    let literal = sql::literal(database);
    let rows = client
        .query(&format!(
            "SELECT 1, 'VIEW', TABLE_NAME, NULL FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {literal} \
             UNION ALL SELECT 2, TABLE_TYPE, TABLE_NAME, NULL FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = {literal} AND TABLE_TYPE = 'SEQUENCE' \
             UNION ALL SELECT 3, ROUTINE_TYPE, ROUTINE_NAME, NULL FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {literal} \
             UNION ALL SELECT 4, 'TRIGGER', TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS \
             WHERE TRIGGER_SCHEMA = {literal} \
             UNION ALL SELECT 5, 'EVENT', EVENT_NAME, NULL FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {literal} \
             ORDER BY 1, 2, 3"
        ))
        .await?;
    let mut items = Vec::new();
    for row in rows {
        let row = Cells(row);
        let (kind, name) = (row.text(1)?.to_owned(), row.text(2)?.to_owned());
        let table = row.maybe(3).map(|table| TableName::new(database, table));
        if table.is_some_and(|table| catalog.table(&table).is_none()) {
            continue;
        }
        let sql = if kind == VIEW { view(client, database, &name).await? } else { None };
        items.push(SchemaItem { kind, name, sql: sql.unwrap_or_default() });
    }
    Ok(items)
}

/// The statement that creates a view. `None` when the source does not show it, or when it names a database: the server leaves
/// that out where all tables are of the view's own.
async fn view(client: &mut Client, database: &str, name: &str) -> Result<Option<String>> {
    /// `ER_VIEW_INVALID`: what it reads is not there.
    const INVALID: u16 = 1356;
    match client.query(&format!("SHOW CREATE VIEW {}", sql::ident(name))).await {
        Err(error) if error.kind == ErrorKind::Permission || number(&error) == Some(INVALID) => Ok(None),
        rows => {
            let row = Cells::first(rows?);
            let create = row.text(1)?;
            let is_bound = show_create::qualifiers(create).iter().any(|name| name == database);
            Ok((!is_bound).then(|| create.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Identity, Unique};

    use super::*;

    /// A table whose other unique indexes have these names.
    fn table(name: &str, keyed: bool, others: &[&str]) -> Table {
        let identity =
            if keyed { Identity::Key { columns: vec![0], order: None } } else { Identity::WholeRow };
        Table {
            name: TableName::new("src", name),
            source_id: 0,
            columns: Vec::new(),
            identity,
            unique: others
                .iter()
                .map(|name| Unique { name: (*name).to_owned(), columns: Vec::new() })
                .collect(),
            root: None,
            rows_estimate: None,
            bytes: 0,
        }
    }

    fn labels(items: &[SchemaItem]) -> Vec<(&str, &str, &str)> {
        items.iter().map(|item| (item.kind.as_str(), item.name.as_str(), item.sql.as_str())).collect()
    }

    #[test]
    fn a_table_is_taken_apart() {
        let text = "CREATE TABLE `city` (
  `id` smallint(5) unsigned NOT NULL AUTO_INCREMENT,
  `name` varchar(50) NOT NULL COMMENT 'KEY `x` (`id`)',
  `country` int(11) DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `by_name` (`name`),
  KEY `fk` (`country`),
  CONSTRAINT `fk` FOREIGN KEY (`country`) REFERENCES `country` (`id`) ON DELETE CASCADE,
  CONSTRAINT `ck` CHECK (`country` > 0)
) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=latin1 COMMENT='a;b'";
        let parts = Parts::of(&table("city", true, &["by_name"]), text).unwrap();
        assert_eq!(
            parts.create,
            "CREATE TABLE `city` (
  `id` smallint(5) unsigned NOT NULL AUTO_INCREMENT,
  `name` varchar(50) NOT NULL COMMENT 'KEY `x` (`id`)',
  `country` int(11) DEFAULT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `ck` CHECK (`country` > 0)
) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=latin1 COMMENT='a;b'"
        );
        assert_eq!(
            labels(&parts.indexes),
            [
                ("UNIQUE INDEX", "city.by_name", "ALTER TABLE `city` ADD UNIQUE KEY `by_name` (`name`)"),
                ("INDEX", "city.fk", "ALTER TABLE `city` ADD KEY `fk` (`country`)"),
            ]
        );
        let key = "ALTER TABLE `city` ADD CONSTRAINT `fk` FOREIGN KEY (`country`) REFERENCES `country` (`id`) ON DELETE CASCADE";
        assert_eq!(labels(&parts.foreign_keys), [("FOREIGN KEY", "city.fk", key)]);
        let before = format!("{};\n{};\n", parts.create, "CREATE TABLE `b;` (\n  `a` int(11)\n) COMMENT=';'");
        let native = NativeSchema { before, ..NativeSchema::default() };
        let tables = tables(&native).unwrap();
        assert_eq!(tables["city"], parts.create);
        assert!(tables["b;"].ends_with("COMMENT=';'") && tables.len() == 2);
    }

    #[test]
    fn what_the_rows_need_comes_before_them() {
        let text = "CREATE TABLE `t` (
  `n` bigint(20) NOT NULL AUTO_INCREMENT,
  `uid` char(36) NOT NULL,
  `v` int(11),
  UNIQUE KEY `uid` (`uid`),
  UNIQUE KEY `other` (`v`),
  KEY `count_v` (`v`,`n`),
  KEY `count` (`n`,`v`),
  KEY `count_too` (`n`)
) ENGINE=InnoDB";
        for (keyed, others, after) in [
            (true, &["other"][..], &["t.other", "t.count_v", "t.count_too"][..]),
            (false, &["other", "uid"], &["t.uid", "t.other", "t.count_v", "t.count_too"]),
        ] {
            let parts = Parts::of(&table("t", keyed, others), text).unwrap();
            assert_eq!(parts.indexes.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(), after);
            assert_eq!(parts.create.contains("UNIQUE KEY `uid`"), keyed);
            assert!(parts.create.contains("KEY `count` (`n`,`v`)"));
        }
    }

    #[test]
    fn what_means_something_else_elsewhere_is_refused_by_name() {
        for (clause, options, found) in [
            ("`a` int(11) DEFAULT nextval(`shop`.`sq`)", "ENGINE=InnoDB", "database shop"),
            ("`a` int(11)", "ENGINE=InnoDB WITH SYSTEM VERSIONING", "SYSTEM VERSIONING"),
            ("`a` timestamp(6) GENERATED ALWAYS AS ROW START", "ENGINE=InnoDB", "SYSTEM VERSIONING"),
        ] {
            let create = format!("CREATE TABLE `hist` (\n  {clause}\n) {options}");
            let error = portable("hist", &create).unwrap_err();
            let said = error.to_string();
            assert!(
                error.kind == ErrorKind::Schema && said.contains(found) && said.contains("hist"),
                "{said}"
            );
        }
        portable("t", "CREATE TABLE `t` (\n  `a` decimal(4,2) DEFAULT 1.5\n) COMMENT='`a`.`b`'").unwrap();
        let error = Parts::of(&table("t", false, &[]), "CREATE TABLE `t` (\n  KEY (`a`)\n)").unwrap_err();
        assert!(error.to_string().contains("src.t"), "{error}");
    }

    #[test]
    fn a_schema_is_for_its_own_family() {
        let native = NativeSchema { dialect: "mariadb".to_owned(), ..NativeSchema::default() };
        assert!(own(Some(&native), Family::parse("10.11.6-MariaDB")).is_some());
        assert!(own(Some(&native), Family::parse("8.4.3")).is_none());
        assert!(own(None, Family::parse("8.4.3")).is_none());
    }
}
