//! Introspection: which tables there are, of which columns they consist, and what tells their rows apart.

use connector::{Error, ErrorKind, Result, Selection};
use model::{Catalog, Column, Identity, KeyOrder, Kind, Table, TableName, Unique};
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::During;
use crate::sql;

/// SQLite's only schema.
pub(crate) const SCHEMA: &str = "main";

/// Up to this size counting exactly costs less than a second; above it, estimates do.
const EXACT_BYTES_MAX: u64 = 256 << 20;

/// The selected tables, sorted by name.
pub(crate) fn read(connection: &Connection, selection: &Selection) -> Result<Catalog> {
    let operation = "read the catalog";
    let mut tables = Vec::new();
    for name in names(connection).during(operation)? {
        if selection.contains(&TableName::new(SCHEMA, &name)) {
            let table =
                table(connection, &name).during(operation).map_err(|error| error.with("table", &name))?;
            tables.extend(table);
        }
    }
    if tables.is_empty() {
        return Err(Error::new(ErrorKind::Setup, "find a table to migrate")
            .with("patterns", selection.include.join(" "))
            .hint(
                "No table of the source matches. Names are written as main.TABLE or TABLE, with * and ?.",
            ));
    }
    estimate(connection, &mut tables).during(operation)?;
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Catalog { tables })
}

/// Ordinary tables: neither SQLite's own nor ours, and no virtual ones with their shadows.
pub(crate) fn names(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(
            "SELECT name FROM pragma_table_list
             WHERE schema = 'main' AND type = 'table'
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_crossfade\\_%' ESCAPE '\\'
             ORDER BY name",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// One table without its size, or `None` where there is no table of this name.
pub(crate) fn table(connection: &Connection, name: &str) -> rusqlite::Result<Option<Table>> {
    let (columns, primary) = columns(connection, name)?;
    if columns.is_empty() {
        return Ok(None);
    }
    let indexes = indexes(connection, name)?;
    let without_rowid = is_without_rowid(connection, name)?;
    let alias = is_rowid_alias(&primary, &indexes, without_rowid);
    let never_null = |keys: &[usize]| keys.iter().all(|&at| !columns[at].nullable && !columns[at].generated);

    let declared = if primary.is_empty() {
        None
    } else if alias || never_null(&primary) || !holds_null(connection, name, &primary, &columns)? {
        // A PRIMARY KEY that is not NOT NULL may hold NULLs in SQLite; as long as it holds none it is a key.
        Some((primary, None))
    } else {
        None
    };
    let chosen = declared.or_else(|| {
        indexes
            .iter()
            .filter_map(|index| Some((index.plain_columns()?, Some(&index.name))))
            .find(|(columns, _)| never_null(columns))
    });

    let unique = indexes
        .iter()
        .filter(|index| match &chosen {
            Some((_, Some(name))) => index.name != **name,
            Some((_, None)) => index.origin != "pk",
            None => true,
        })
        .map(|index| Unique { name: index.name.clone(), columns: index.plain_columns().unwrap_or_default() })
        .collect();
    let identity = match chosen {
        Some((columns, _)) => Identity::Key { columns, order: alias.then(|| vec![KeyOrder::Integer]) },
        None => Identity::WholeRow,
    };
    let name = TableName::new(SCHEMA, name);
    Ok(Some(Table {
        name,
        source_id: 0,
        columns,
        identity,
        unique,
        root: None,
        rows_estimate: None,
        bytes: 0,
    }))
}

/// The columns, and which of them are the primary key, in its order.
pub(crate) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<(Vec<Column>, Vec<usize>)> {
    let mut statement = connection.prepare(
        "SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid",
    )?;
    let mut rows = statement.query([table])?;
    let mut columns = Vec::new();
    let mut primary: Vec<(i64, usize)> = Vec::new();
    while let Some(row) = rows.next()? {
        let type_name: String = row.get(1)?;
        let rank: i64 = row.get(3)?;
        if rank > 0 {
            primary.push((rank, columns.len()));
        }
        columns.push(Column {
            name: row.get(0)?,
            kind: kind(&type_name),
            type_name,
            type_id: 0,
            type_modifier: -1,
            number: 0,
            nullable: !row.get::<_, bool>(2)?,
            generated: row.get::<_, i64>(4)? >= 2,
        });
    }
    primary.sort_unstable();
    Ok((columns, primary.into_iter().map(|(_, at)| at).collect()))
}

/// A unique index, also one that a constraint made.
pub(crate) struct UniqueIndex {
    pub(crate) name: String,
    /// `c` by CREATE INDEX, `u` by UNIQUE, `pk` by PRIMARY KEY.
    pub(crate) origin: String,
    pub(crate) partial: bool,
    pub(crate) parts: Vec<IndexPart>,
    /// The statement that made it, for `c`.
    pub(crate) create: Option<String>,
}

pub(crate) struct IndexPart {
    /// Index into the table's columns; `None` for an expression.
    pub(crate) column: Option<usize>,
    pub(crate) collation: String,
}

impl UniqueIndex {
    /// The columns, if the index tells rows apart by them alone.
    fn plain_columns(&self) -> Option<Vec<usize>> {
        if self.partial { None } else { self.parts.iter().map(|part| part.column).collect() }
    }
}

pub(crate) fn indexes(connection: &Connection, table: &str) -> rusqlite::Result<Vec<UniqueIndex>> {
    let mut indexes: Vec<UniqueIndex> = connection
        .prepare(
            "SELECT list.name, list.origin, list.partial, entry.sql
             FROM pragma_index_list(?1, 'main') AS list
             LEFT JOIN sqlite_schema AS entry ON entry.type = 'index' AND entry.name = list.name
             WHERE list.\"unique\" ORDER BY list.name",
        )?
        .query_map([table], |row| {
            Ok(UniqueIndex {
                name: row.get(0)?,
                origin: row.get(1)?,
                partial: row.get(2)?,
                parts: Vec::new(),
                create: row.get(3)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let place = places(connection, table)?;
    for index in &mut indexes {
        index.parts = connection
            .prepare("SELECT cid, coll FROM pragma_index_xinfo(?1, 'main') WHERE key ORDER BY seqno")?
            .query_map([&index.name], |row| {
                let cid: i64 = row.get(0)?;
                Ok(IndexPart { column: place.iter().position(|&at| at == cid), collation: row.get(1)? })
            })?
            .collect::<rusqlite::Result<_>>()?;
    }
    Ok(indexes)
}

/// SQLite's number of each column that we list.
fn places(connection: &Connection, table: &str) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare("SELECT cid FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid")?
        .query_map([table], |row| row.get(0))?
        .collect()
}

pub(crate) fn is_without_rowid(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let flag = connection
        .query_row("SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1", [table], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(flag.unwrap_or(false))
}

/// `INTEGER PRIMARY KEY` is the rowid itself: SQLite makes no index for it.
fn is_rowid_alias(primary: &[usize], indexes: &[UniqueIndex], without_rowid: bool) -> bool {
    primary.len() == 1 && !without_rowid && !indexes.iter().any(|index| index.origin == "pk")
}

pub(crate) fn holds_null(
    connection: &Connection,
    table: &str,
    columns: &[usize],
    all: &[Column],
) -> rusqlite::Result<bool> {
    let any: Vec<String> =
        columns.iter().map(|&at| format!("{} IS NULL", sql::quote(&all[at].name))).collect();
    let statement =
        format!("SELECT EXISTS (SELECT 1 FROM main.{} WHERE {})", sql::quote(table), any.join(" OR "));
    connection.query_row(&statement, [], |row| row.get(0))
}

/// What a declared type means. SQLite itself knows the five affinities only; the names that people use mean more.
pub(crate) fn kind(declared: &str) -> Kind {
    let upper = declared.to_ascii_uppercase();
    let base = upper.split('(').next().unwrap_or_default().trim();
    match base {
        "BOOL" | "BOOLEAN" => Kind::Boolean,
        "DATE" => Kind::Date,
        "TIME" => Kind::Time,
        "DATETIME" | "TIMESTAMP" => Kind::Timestamp,
        "TIMESTAMPTZ" | "TIMESTAMP WITH TIME ZONE" => Kind::TimestampTz,
        "NUMERIC" | "DECIMAL" => Kind::Numeric,
        "JSON" => Kind::Json,
        "JSONB" => Kind::Blob,
        "UUID" => Kind::Uuid,
        // From here on SQLite's own rules of affinity, in their order.
        _ if base.contains("INT") => Kind::Integer,
        _ if ["CHAR", "CLOB", "TEXT"].iter().any(|word| base.contains(word)) => Kind::Text,
        _ if base.contains("BLOB") => Kind::Blob,
        _ if ["REAL", "FLOA", "DOUB"].iter().any(|word| base.contains(word)) => Kind::Real,
        _ => Kind::Native,
    }
}

fn estimate(connection: &Connection, tables: &mut [Table]) -> rusqlite::Result<()> {
    let page_size: u64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let page_count: u64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let file = page_size * page_count;
    for table in tables.iter_mut() {
        let name = &table.name.name;
        table.rows_estimate = if file <= EXACT_BYTES_MAX {
            Some(
                connection
                    .query_row(&format!("SELECT count(*) FROM {}", sql::quote(name)), [], |row| row.get(0))?,
            )
        } else {
            last_rowid(connection, name)?
        };
        if file <= EXACT_BYTES_MAX {
            table.bytes = connection.query_row(
                "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE name = ?1",
                params![name],
                |row| row.get(0),
            )?;
        }
    }
    if file > EXACT_BYTES_MAX {
        // dbstat reads every page of the file: too dear here. The tables share it by their numbers of rows.
        let total: u64 = tables.iter().map(|table| table.rows_estimate.unwrap_or(0)).sum();
        for table in tables {
            let share = table.rows_estimate.map_or(1.0, |rows| rows as f64 / total.max(1) as f64);
            table.bytes = (file as f64 * share) as u64;
        }
    }
    Ok(())
}

/// At most so many rows where nobody chose the rowids; `None` where there are none.
fn last_rowid(connection: &Connection, table: &str) -> rusqlite::Result<Option<u64>> {
    if is_without_rowid(connection, table)? {
        return Ok(None);
    }
    let last: Option<i64> =
        connection
            .query_row(&format!("SELECT max(rowid) FROM {}", sql::quote(table)), [], |row| row.get(0))?;
    Ok(Some(u64::try_from(last.unwrap_or(0)).unwrap_or(0)))
}

/// What has changed about a table since `planned`, in words; `None` for nothing that matters to its rows.
pub(crate) fn difference(connection: &Connection, planned: &Table) -> rusqlite::Result<Option<String>> {
    let (now, _) = columns(connection, &planned.name.name)?;
    if now.is_empty() {
        return Ok(Some("the table is gone (dropped or renamed)".to_owned()));
    }
    let named = |columns: &[Column], name: &str| columns.iter().find(|column| column.name == name).cloned();
    for column in &now {
        match named(&planned.columns, &column.name) {
            None => return Ok(Some(format!("column {} was added", column.name))),
            Some(before) if before.type_name != column.type_name || before.generated != column.generated => {
                return Ok(Some(format!(
                    "column {} changed its type from {} to {}",
                    column.name, before.type_name, column.type_name
                )));
            }
            Some(_) => {}
        }
    }
    Ok(planned
        .columns
        .iter()
        .find(|column| named(&now, &column.name).is_none())
        .map(|column| format!("column {} was dropped or renamed", column.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (declared, expected) in [
            ("INTEGER", Kind::Integer),
            ("bigint unsigned", Kind::Integer),
            ("VARCHAR(20)", Kind::Text),
            ("DECIMAL(10, 2)", Kind::Numeric),
            ("datetime", Kind::Timestamp),
            ("DOUBLE PRECISION", Kind::Real),
            ("", Kind::Native),
            ("ANY", Kind::Native),
            ("UUID", Kind::Uuid),
        ] {
            assert_eq!(kind(declared), expected, "{declared}");
        }
    }

    #[test]
    fn identities() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE alias (id INTEGER PRIMARY KEY, u TEXT UNIQUE);
                 CREATE TABLE descending (id INTEGER PRIMARY KEY DESC);
                 CREATE TABLE pair (a INT, b TEXT, PRIMARY KEY (b, a)) WITHOUT ROWID;
                 CREATE TABLE loose (k TEXT PRIMARY KEY);
                 CREATE TABLE holed (k TEXT PRIMARY KEY, v); INSERT INTO holed VALUES (NULL, 1), (NULL, 1);
                 CREATE TABLE second (v, g INT AS (length(k)) STORED NOT NULL UNIQUE, k TEXT NOT NULL UNIQUE);
                 CREATE TABLE bag (v); CREATE UNIQUE INDEX bag_some ON bag (v) WHERE v > 1;",
            )
            .unwrap();
        let key = |columns: &[usize], order: Option<Vec<KeyOrder>>| Identity::Key {
            columns: columns.into(),
            order,
        };
        for (name, identity, uniques) in [
            ("alias", key(&[0], Some(vec![KeyOrder::Integer])), 1),
            ("descending", key(&[0], None), 0),
            ("pair", key(&[1, 0], None), 0),
            ("loose", key(&[0], None), 0),
            ("holed", Identity::WholeRow, 1),
            ("second", key(&[2], None), 1),
            ("bag", Identity::WholeRow, 1),
        ] {
            let table = table(&connection, name).unwrap().unwrap();
            assert_eq!((table.identity, table.unique.len()), (identity, uniques), "{name}");
        }
    }
}
