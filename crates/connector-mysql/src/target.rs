//! The target's tables as they are: what each column takes, and whether rows of different keys can get in each other's way.
//!
//! All tables are in the database that the URL names; only a source table's own name counts.

use std::collections::{BTreeSet, HashMap};

use connector::{Error, ErrorKind, Result};
use model::{Catalog, Column, Table, TableName};

use crate::catalog;
use crate::cells::Cells;
use crate::charset::Charsets;
use crate::column_type::ColumnType;
use crate::declared::Declared;
use crate::url::Settings;
use crate::wire::Client;

const OPERATION: &str = "use a table of the target";

#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) name: TableName,
    /// By column of the catalog's table, the target's own type of the column of that name; `None` for a generated one.
    pub(crate) columns: Vec<Option<ColumnType>>,
    /// Two rows that have different keys may collide here: on another unique index, or because the key's collation takes
    /// different texts for one.
    pub(crate) collides: bool,
}

/// What a table is called on the target.
pub(crate) fn name(settings: &Settings, table: &TableName) -> Result<TableName> {
    match unfit(&table.name) {
        None => Ok(TableName::new(&settings.database, &table.name)),
        Some(why) => Err(Error::new(ErrorKind::Schema, "name a table of the target")
            .with("table", table)
            .with("because", why)
            .hint("MariaDB has no such names: rename the table on the source, or leave it out")),
    }
}

/// Why the server takes no such name (<https://mariadb.com/kb/en/identifier-names/>).
pub(crate) fn unfit(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("the name is empty"),
        name if name.chars().count() > 64 => Some("the name has more than 64 characters"),
        name if name.ends_with(' ') => Some("the name ends with a space"),
        name if name.contains('\0') => Some("the name holds a NUL byte"),
        name if name.chars().any(|char| char > '\u{ffff}') => {
            Some("the name holds a character beyond U+FFFF")
        }
        _ => None,
    }
}

/// How the server tells names of tables apart; those of columns never differ by case alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Counts,
    Ignored,
}

impl Case {
    pub(crate) async fn of(client: &mut Client) -> Result<Case> {
        let row = Cells::first(client.query("SELECT @@global.lower_case_table_names").await?);
        Ok(if row.text(0)? == "0" { Case::Counts } else { Case::Ignored })
    }

    /// What is equal for names of the same table.
    pub(crate) fn fold(self, name: &str) -> String {
        match self {
            Case::Counts => name.to_owned(),
            Case::Ignored => name.to_lowercase(),
        }
    }
}

/// Tables of different schemas that would be one table here.
pub(crate) fn same_names(catalog: &Catalog, case: Case) -> Vec<(&TableName, &TableName)> {
    let mut seen = HashMap::new();
    let mut same = Vec::new();
    for table in &catalog.tables {
        match seen.get(&case.fold(&table.name.name)) {
            Some(first) => same.push((*first, &table.name)),
            None => drop(seen.insert(case.fold(&table.name.name), &table.name)),
        }
    }
    same
}

/// Refuses tables that would be one table here.
pub(crate) async fn distinct(client: &mut Client, catalog: &Catalog) -> Result<()> {
    let case = Case::of(client).await?;
    match same_names(catalog, case).first() {
        None => Ok(()),
        Some((first, second)) => Err(Error::new(ErrorKind::Schema, "create the tables")
            .with("table", first)
            .with("table", second)
            .hint("all tables go into one database: migrate these two into different ones")),
    }
}

/// The target's tables of these names. Fails with `Schema` when one is missing, or a column that has to take values.
pub(crate) async fn read(client: &mut Client, settings: &Settings, tables: &[&Table]) -> Result<Vec<Target>> {
    let found = find(client, settings, tables).await?;
    tables
        .iter()
        .zip(&found.tables)
        .map(|(table, there)| {
            target(table, there.as_ref().ok_or_else(|| missing(settings, table))?, &found.charsets)
        })
        .collect()
}

/// What is on the target under the names of tables.
pub(crate) struct Found {
    /// In the order in which they were asked for.
    pub(crate) tables: Vec<Option<Table>>,
    pub(crate) charsets: Charsets,
}

/// One question for all.
pub(crate) async fn find(client: &mut Client, settings: &Settings, tables: &[&Table]) -> Result<Found> {
    client.doing("read the target's tables");
    let case = Case::of(client).await?;
    let names: Vec<String> = tables.iter().map(|table| case.fold(&table.name.name)).collect();
    let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let is_wanted = |name: &TableName| wanted.contains(case.fold(&name.name).as_str());
    let mut charsets = Charsets::default();
    let found =
        catalog::tables(client, &settings.database, is_wanted, &mut charsets).await.map_err(|error| {
            match error.kind {
                ErrorKind::Schema => error
                    .hint("change the column on the target, or drop the table there and let it be created"),
                _ => error,
            }
        })?;
    let mut found: HashMap<String, Table> =
        found.into_values().map(|table| (case.fold(&table.name.name), table)).collect();
    Ok(Found { tables: names.iter().map(|name| found.remove(name)).collect(), charsets })
}

fn missing(settings: &Settings, table: &Table) -> Error {
    Error::new(ErrorKind::Schema, OPERATION)
        .with("table", TableName::new(&settings.database, &table.name.name))
        .with("found", "no such table")
        .hint("was it dropped while the migration runs? Begin the migration anew")
}

/// The target's side of a table.
pub(crate) fn target(table: &Table, there: &Table, charsets: &Charsets) -> Result<Target> {
    let column = |(at, column): (usize, &Column)| -> Result<Option<ColumnType>> {
        if column.generated {
            return Ok(None);
        }
        let found = takes(table, at, there).map_err(|why| {
            Error::new(ErrorKind::Schema, OPERATION)
                .with("table", &there.name)
                .with("column", &column.name)
                .with("because", why)
                .hint("give the table the source's columns, or drop it and let it be created")
        })?;
        Declared::parse(&found.type_name).resolve(charsets).map(Some)
    };
    let columns = table.columns.iter().enumerate().map(column).collect::<Result<_>>()?;
    Ok(Target { name: there.name.clone(), columns, collides: collides(table, there) })
}

/// The target's column for a column's values, or why there is none.
fn takes<'a>(table: &Table, at: usize, there: &'a Table) -> std::result::Result<&'a Column, &'static str> {
    let column = &table.columns[at];
    let found = there.columns.iter().find(|found| same_column(&found.name, &column.name));
    let found = found.ok_or("there is no such column")?;
    if found.generated {
        return Err("the target computes it");
    }
    let rounding = rounding(found);
    if rounding.is_some() && rounding != self::rounding(column) {
        return Err("it is rounded to the digits that it declares, without a word");
    }
    // Into a TIMESTAMP and an AUTO_INCREMENT column that is NOT NULL the server writes a value of its own in place of NULL,
    // whatever sql_mode says.
    let is_key = table.key().is_some_and(|key| key.contains(&at));
    if column.nullable && !found.nullable && !is_key {
        return Err("it is NOT NULL here, and may be NULL on the source");
    }
    Ok(found)
}

/// `float(7,2)` and `double(10,2)`, by their declaration: the server rounds to so many digits and does not say so.
fn rounding(column: &Column) -> Option<&str> {
    let declared = Declared::parse(&column.type_name).column_type;
    let is_rounded =
        (declared.starts_with("float(") || declared.starts_with("double(")) && declared.contains(',');
    is_rounded.then_some(declared)
}

fn same_column(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

fn collides(table: &Table, there: &Table) -> bool {
    let names = |table: &Table, columns: &[usize]| -> BTreeSet<String> {
        columns.iter().map(|&at| table.columns[at].name.to_lowercase()).collect()
    };
    let key = table.key().map(|key| names(table, key));
    // An index over expressions, or over parts of columns, is one without columns.
    let mut unique = there.key().into_iter().chain(there.unique.iter().map(|unique| &unique.columns[..]));
    let has_other = unique.any(|columns| columns.is_empty() || Some(names(there, columns)) != key);
    let folds = |column: &Column| {
        key.as_ref().is_some_and(|key| key.contains(&column.name.to_lowercase()))
            && !tells_apart(&Declared::parse(&column.type_name))
    };
    has_other || there.columns.iter().any(folds)
}

/// Whether texts that differ in a byte are two values. A CHAR gives no trailing spaces back, and most collations ignore
/// them.
fn tells_apart(declared: &Declared<'_>) -> bool {
    let exact = |collation: &str| collation.ends_with("_nopad_bin") || collation == "utf8mb4_0900_bin";
    declared.text.is_none_or(|text| exact(text.collation) && !declared.column_type.starts_with("char("))
}

/// Why a table that is there already is not like the source's. Types are compared where both are of this family: a time
/// of fewer digits or a shorter fraction would take every value and keep another.
pub(crate) fn differences(table: &Table, there: &Table, charsets: &Charsets) -> Vec<String> {
    let is_of_family = is_of_family(table);
    let column_type = |column: &Column| Declared::parse(&column.type_name).resolve(charsets).ok();
    let difference = |at: usize| {
        let column = &table.columns[at];
        let why = match takes(table, at, there) {
            Err(why) => why.to_owned(),
            Ok(found) if is_of_family && column_type(column) != column_type(found) => {
                format!("{}, and {} on the source", found.type_name, column.type_name)
            }
            Ok(_) => return None,
        };
        Some(format!("column {}: {why}", column.name))
    };
    table.stored().filter_map(difference).collect()
}

/// Other engines' types have numbers; those of SQLite, whose only schema is called `main`, have words that mean something
/// else here.
fn is_of_family(table: &Table) -> bool {
    table.name.schema != "main" && table.columns.iter().all(|column| column.type_id == 0)
}

#[cfg(test)]
mod tests {
    use model::{Identity, Kind, Unique};

    use super::*;

    fn column(name: &str, type_name: &str) -> Column {
        Column {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            type_id: 0,
            type_modifier: -1,
            number: 0,
            kind: Kind::Text,
            nullable: false,
            generated: false,
        }
    }

    fn table(name: &str, key: &[usize], columns: Vec<Column>) -> Table {
        let identity = match key {
            [] => Identity::WholeRow,
            key => Identity::Key { columns: key.to_vec(), order: None },
        };
        let name = TableName::new("shop", name);
        Table {
            name,
            source_id: 0,
            columns,
            identity,
            unique: Vec::new(),
            root: None,
            rows_estimate: None,
            bytes: 0,
        }
    }

    fn orders() -> Table {
        let note = "varchar(20) charset utf8mb4 collate utf8mb4_general_ci";
        table("orders", &[0], vec![column("id", "bigint(20)"), column("note", note)])
    }

    #[test]
    fn names_that_the_server_has_not() {
        let settings = Settings::parse("mysql://u@h/new").unwrap();
        let name = |text: &str| name(&settings, &TableName::new("old", text));
        assert_eq!(name("orders `1`").unwrap(), TableName::new("new", "orders `1`"));
        assert_eq!(name(&"é".repeat(64)).unwrap().name.chars().count(), 64);
        for bad in ["", "a ", "a\0b", "a😀", &"é".repeat(65)] {
            let error = name(bad).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Schema, "{bad:?}");
            assert!(error.to_string().contains(&format!("table old.{bad}")), "{error}");
        }
    }

    #[test]
    fn one_name_in_two_schemas() {
        let named = |schema: &str, name: &str| {
            let mut table = table(name, &[], Vec::new());
            table.name.schema = schema.to_owned();
            table
        };
        let catalog =
            Catalog { tables: vec![named("a", "t"), named("a", "u"), named("b", "T"), named("c", "t")] };
        let found = |case| {
            let same = same_names(&catalog, case).into_iter();
            same.map(|(first, second)| format!("{first} {second}")).collect::<Vec<_>>()
        };
        assert_eq!(found(Case::Counts), ["a.t c.t"]);
        assert_eq!(found(Case::Ignored), ["a.t b.T", "a.t c.t"]);
    }

    #[test]
    fn columns_are_found_by_name() {
        let charsets = Charsets::default();
        let mut there = orders();
        there.columns.reverse();
        there.columns[1].name = "ID".to_owned();
        there.columns.push(column("extra", "int(11)"));
        there.identity = Identity::Key { columns: vec![1], order: None };
        let mut here = orders();
        here.columns.push(Column { generated: true, ..column("computed", "int(11)") });
        let found = target(&here, &there, &charsets).unwrap();
        assert_eq!(found.columns.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
        assert!(!found.collides);
        assert!(differences(&here, &there, &charsets).is_empty());

        type Spoil = fn(&mut Table, &mut Table);
        let cases: [(Spoil, &str); 4] = [
            (|_, there| there.columns.truncate(1), "column note: there is no such column"),
            (|_, there| there.columns[1].generated = true, "column note: the target computes it"),
            (|here, _| here.columns[1].nullable = true, "column note: it is NOT NULL here"),
            (|here, there| (here.columns[0].nullable, there.columns[0].nullable) = (true, false), ""),
        ];
        for (spoil, expected) in cases {
            let (mut here, mut there) = (orders(), orders());
            spoil(&mut here, &mut there);
            let found = target(&here, &there, &charsets).map(|_| ()).map_err(|error| error.kind);
            let differences = differences(&here, &there, &charsets);
            match expected {
                "" => assert_eq!((found, differences.len()), (Ok(()), 0)),
                _ => {
                    assert_eq!(found, Err(ErrorKind::Schema));
                    assert!(differences[0].starts_with(expected), "{differences:?}");
                }
            }
        }
    }

    #[test]
    fn types_are_compared_within_the_family() {
        let charsets = Charsets::default();
        let with = |type_name: &str| table("t", &[], vec![column("c", type_name)]);
        for (source, target, differ) in [
            ("datetime(6)", "datetime", true),
            ("decimal(10,4)", "decimal(10,2)", true),
            ("double", "float", true),
            ("double(10,2)", "double(10,2)", false),
            ("int(10) unsigned", "int(11)", true),
            ("int(10) unsigned", "int(11) unsigned zerofill", false),
            (
                "varchar(20) charset latin1 collate latin1_swedish_ci",
                "varchar(20) charset utf8mb4 collate utf8mb4_bin",
                true,
            ),
            (
                "varchar(20) charset utf8mb4 collate utf8mb4_general_ci",
                "varchar(50) charset utf8mb4 collate utf8mb4_bin",
                false,
            ),
        ] {
            let mut here = with(source);
            let found = differences(&here, &with(target), &charsets);
            assert_eq!(!found.is_empty(), differ, "{source} {target}: {found:?}");
            here.columns[0].type_id = 23;
            assert!(differences(&here, &with(target), &charsets).is_empty());
        }
    }

    #[test]
    fn what_rounds_without_a_word_is_refused() {
        let charsets = Charsets::default();
        let with = |type_name: &str| table("t", &[], vec![column("c", type_name)]);
        for (source, differ) in [("double", true), ("float(7,4)", true), ("float(7,2)", false)] {
            assert_eq!(
                differences(&with(source), &with("float(7,2)"), &charsets).is_empty(),
                !differ,
                "{source}"
            );
        }
        let mut foreign = with("float8");
        foreign.columns[0].type_id = 701;
        assert!(!differences(&foreign, &with("double(10,2)"), &charsets).is_empty());
    }

    #[test]
    fn what_rows_can_collide_on() {
        let charsets = Charsets::default();
        let collides = |here: &Table, there: &Table| target(here, there, &charsets).unwrap().collides;
        assert!(!collides(&orders(), &orders()));
        // Its key is another one.
        let by_note = Table { identity: Identity::Key { columns: vec![1], order: None }, ..orders() };
        assert!(collides(&orders(), &by_note));
        assert!(!collides(&orders(), &Table { identity: Identity::WholeRow, ..orders() }));
        let without_key = Table { identity: Identity::WholeRow, ..orders() };
        assert!(!collides(&without_key, &without_key));
        assert!(collides(&without_key, &orders()));
        for (columns, expected) in [(vec![1], true), (vec![], true), (vec![0], false)] {
            let unique = vec![Unique { name: "u".to_owned(), columns }];
            assert_eq!(collides(&orders(), &Table { unique, ..orders() }), expected);
        }
        for (key, expected) in [
            ("varchar(9) charset utf8mb4 collate utf8mb4_general_ci", true),
            ("varchar(9) charset utf8mb4 collate utf8mb4_bin", true),
            ("varchar(9) charset utf8mb4 collate utf8mb4_nopad_bin", false),
            ("char(9) charset utf8mb4 collate utf8mb4_nopad_bin", true),
            ("varbinary(9)", false),
        ] {
            let keyed = table("t", &[0], vec![column("k", key)]);
            assert_eq!(collides(&keyed, &keyed), expected, "{key}");
        }
    }
}
