//! What is in a PostgreSQL database: tables, columns, keys, sizes.

use std::collections::BTreeMap;

use connector::{Error, ErrorKind, Result, Selection};
use model::{Catalog, Column, Identity, KeyOrder, Kind, Table, TableName, Unique};

use crate::wire::{Client, TextRow};

/// Schemas that are never migrated: the server's own and ours.
pub(crate) const OTHERS: &str =
    "n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'crossfade')";

/// Tables that an extension brought are created by the extension on the other side too.
pub(crate) const NOT_OF_EXTENSION: &str = "NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d \
     WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')";

pub(crate) async fn read(client: &mut Client, selection: &Selection) -> Result<Catalog> {
    let mut tables = tables(client).await?;
    tables.retain(|_, table| selection.contains(&table.name));
    if tables.is_empty() {
        return Err(Error::new(ErrorKind::Setup, "find tables to migrate")
            .with("pattern", selection.include.join(", "))
            .hint("the selection matches no ordinary table in the source database; check the database name and the patterns"));
    }
    columns(client, &mut tables).await?;
    keys(client, &mut tables).await?;
    let mut catalog = Catalog { tables: tables.into_values().collect() };
    catalog.tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(catalog)
}

/// Differs from an earlier one whenever [`read`] would tell other tables, columns or keys: each row of the catalogs carries
/// the transaction that wrote it, and a later one has a higher number. Sizes and estimates are not in it.
pub(crate) async fn mark(client: &mut Client) -> Result<String> {
    let parts = [
        "pg_namespace",
        "pg_class",
        "pg_attribute",
        "pg_type",
        "pg_index",
        "pg_inherits",
        "pg_depend WHERE deptype = 'e'",
    ];
    let parts = parts.map(|part| {
        format!("(SELECT count(*) || '/' || coalesce(sum(xmin::text::int8), 0) FROM pg_catalog.{part})")
    });
    let rows = client.simple(&format!("SELECT {}", parts.join(" || ' ' || "))).await?;
    Cells::first(rows).text(0).map(str::to_owned)
}

/// The tables that [`read`] would find without regard to a selection.
pub(crate) async fn names(client: &mut Client) -> Result<Vec<TableName>> {
    let rows = client
        .simple(&format!(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND {OTHERS} AND {NOT_OF_EXTENSION}"
        ))
        .await?;
    rows.into_iter().map(Cells).map(|row| Ok(TableName::new(row.text(0)?, row.text(1)?))).collect()
}

/// Attribute numbers are not column indexes once a column was dropped; they are kept here until the keys are read.
async fn tables(client: &mut Client) -> Result<BTreeMap<u32, Table>> {
    let sql = format!(
        "SELECT c.oid, n.nspname, c.relname, c.reltuples, pg_catalog.pg_table_size(c.oid), rn.nspname, rc.relname \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN LATERAL (SELECT pg_catalog.pg_partition_root(c.oid) AS oid WHERE c.relispartition) r ON true \
         LEFT JOIN pg_catalog.pg_class rc ON rc.oid = r.oid \
         LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace \
         WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND {OTHERS} AND {NOT_OF_EXTENSION}"
    );
    let mut tables = BTreeMap::new();
    for row in client.simple(&sql).await? {
        let row = Cells(row);
        let estimate: f64 = row.parse(3)?;
        tables.insert(
            row.parse(0)?,
            Table {
                name: TableName::new(row.text(1)?, row.text(2)?),
                source_id: row.parse(0)?,
                columns: Vec::new(),
                identity: Identity::WholeRow,
                unique: Vec::new(),
                root: row
                    .maybe(5)
                    .map(|schema| Ok::<_, Error>(TableName::new(schema, row.text(6)?)))
                    .transpose()?,
                // −1 and (before 14) 0 mean that nobody has counted yet.
                rows_estimate: (estimate > 0.0).then_some(estimate as u64),
                bytes: row.parse(4)?,
            },
        );
    }
    Ok(tables)
}

async fn columns(client: &mut Client, tables: &mut BTreeMap<u32, Table>) -> Result<()> {
    let sql = format!(
        "SELECT a.attrelid, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid, \
         a.attnotnull, a.attgenerated <> '', a.atttypmod, a.attnum \
         FROM pg_catalog.pg_attribute a \
         JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind = 'r' AND {OTHERS} \
         ORDER BY a.attrelid, a.attnum"
    );
    let column = |row| {
        let row = Cells(row);
        let Some(table) = tables.get_mut(&row.parse(0)?) else { return Ok(()) };
        let type_id: u32 = row.parse(3)?;
        table.columns.push(Column {
            name: row.text(1)?.to_owned(),
            type_name: row.text(2)?.to_owned(),
            type_id,
            type_modifier: row.parse(6)?,
            number: row.parse(7)?,
            kind: kind(type_id),
            nullable: row.text(4)? == "f",
            generated: row.text(5)? == "t",
        });
        Ok(())
    };
    client.each(&sql, column).await
}

/// The identity that the log gives old rows by, and the other unique indexes.
async fn keys(client: &mut Client, tables: &mut BTreeMap<u32, Table>) -> Result<()> {
    let sql = format!(
        "SELECT i.indrelid, ic.relname, c.relreplident, i.indisprimary, i.indisreplident, \
           pg_catalog.array_to_string(ARRAY(SELECT coalesce(a.attname::text, '') FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place) \
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
             WHERE k.place <= i.indnkeyatts ORDER BY k.place), E'\\x01'), \
           pg_catalog.array_to_string(ARRAY(SELECT CASE WHEN a.attcollation IS DISTINCT FROM k.collation_oid THEN NULL \
                  WHEN k.collation_oid IN (950, 951) THEN 'C' WHEN k.collation_oid = 100 \
                  THEN (SELECT d.datcollate FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database() \
                    AND coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') = 'c') \
                  END FROM unnest(i.indcollation::oid[], i.indkey::int2[]) WITH ORDINALITY k(collation_oid, attnum, place) \
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
             WHERE k.place <= i.indnkeyatts ORDER BY k.place), E'\\x01', ''), \
           i.indisvalid AND i.indpred IS NULL, i.indimmediate \
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid \
         JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE i.indisunique AND c.relkind = 'r' AND {OTHERS} ORDER BY i.indrelid, ic.relname"
    );
    for row in client.simple(&sql).await? {
        let row = Cells(row);
        let Some(table) = tables.get_mut(&row.parse(0)?) else { continue };
        let names: Vec<&str> = row.text(5)?.split('\u{1}').collect();
        let places: Option<Vec<usize>> =
            names.iter().map(|name| table.columns.iter().position(|column| column.name == *name)).collect();
        let identity = match row.text(2)? {
            // Full: the primary key tells rows apart where there is one; the log gives the whole old row as well.
            "d" | "f" => row.text(3)? == "t",
            "i" => row.text(4)? == "t",
            _ => false,
        };
        // What is unique under a condition only tells rows apart no more than an expression does.
        let places = places.filter(|_| row.maybe(7) == Some("t"));
        match places {
            Some(columns) if identity && row.text(8)? == "t" => {
                let collations: Vec<&str> = row.text(6)?.split('\u{1}').collect();
                let order = columns
                    .iter()
                    .zip(collations)
                    .map(|(&at, collation)| key_order(table.columns[at].type_id, collation))
                    .collect();
                table.identity = Identity::Key { columns, order };
            }
            places => table
                .unique
                .push(Unique { name: row.text(1)?.to_owned(), columns: places.unwrap_or_default() }),
        }
    }
    Ok(())
}

/// Keys whose order the client reproduces exactly. Text under any collation but "C" is not among them: the server's
/// order is the locale's. "C" and "POSIX" are the collations of oid 950 and 951 (a name can be given to another), and the
/// default one (100) where the database's provider is the C library and its locale is one of them: with ICU as
/// provider `datcollate` may say C, and the order is ICU's.
fn key_order(type_id: u32, collation: &str) -> Option<KeyOrder> {
    match type_id {
        oid::INT2 | oid::INT4 | oid::INT8 => Some(KeyOrder::Integer),
        oid::UUID | oid::BYTEA => Some(KeyOrder::Bytes),
        oid::TEXT | oid::VARCHAR if matches!(collation, "C" | "POSIX") => Some(KeyOrder::Bytes),
        _ => None,
    }
}

/// `pg_type.oid` of built-in types; fixed by the server's bootstrap catalog.
pub(crate) mod oid {
    pub(crate) const BOOL: u32 = 16;
    pub(crate) const BYTEA: u32 = 17;
    pub(crate) const INT8: u32 = 20;
    pub(crate) const INT2: u32 = 21;
    pub(crate) const INT4: u32 = 23;
    pub(crate) const TEXT: u32 = 25;
    pub(crate) const JSON: u32 = 114;
    pub(crate) const FLOAT4: u32 = 700;
    pub(crate) const FLOAT8: u32 = 701;
    pub(crate) const VARCHAR: u32 = 1043;
    pub(crate) const DATE: u32 = 1082;
    pub(crate) const TIME: u32 = 1083;
    pub(crate) const TIMESTAMP: u32 = 1114;
    pub(crate) const TIMESTAMPTZ: u32 = 1184;
    pub(crate) const NUMERIC: u32 = 1700;
    pub(crate) const UUID: u32 = 2950;
    pub(crate) const JSONB: u32 = 3802;
    /// The first number that a user's own type can have (FirstNormalObjectId).
    pub(crate) const FIRST_OWN: u32 = 16384;
}

fn kind(type_id: u32) -> Kind {
    match type_id {
        oid::INT2 | oid::INT4 | oid::INT8 => Kind::Integer,
        oid::FLOAT4 | oid::FLOAT8 => Kind::Real,
        oid::NUMERIC => Kind::Numeric,
        oid::BOOL => Kind::Boolean,
        oid::TEXT | oid::VARCHAR => Kind::Text,
        oid::BYTEA => Kind::Blob,
        oid::DATE => Kind::Date,
        oid::TIME => Kind::Time,
        oid::TIMESTAMP => Kind::Timestamp,
        oid::TIMESTAMPTZ => Kind::TimestampTz,
        oid::JSON | oid::JSONB => Kind::Json,
        oid::UUID => Kind::Uuid,
        _ => Kind::Native,
    }
}

/// Whether a type's binary form means the same in another database: built in, and without object numbers inside
/// (the reg* types are such numbers; aclitem has no binary form).
pub(crate) fn is_portable_binary(type_id: u32) -> bool {
    const HOLDS_OIDS: &[u32] = &[
        24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191, // reg*
        1008, 2207, 2208, 2209, 2210, 2211, 3735, 3770, 4090, 4097, 4192, // their arrays
        1033, 1034, // aclitem
    ];
    type_id < oid::FIRST_OWN && !HOLDS_OIDS.contains(&type_id)
}

/// A row of a catalog query, whose shape we know.
pub(crate) struct Cells(pub(crate) Vec<Option<String>>);

impl Cells {
    /// The first row of a simple query's answer; one without cells where there is none, so that asking for a cell is
    /// the error.
    pub(crate) fn first(rows: Vec<Vec<Option<String>>>) -> Cells {
        Cells(rows.into_iter().next().unwrap_or_default())
    }

    /// A row of an extended query's answer.
    pub(crate) fn of(row: TextRow) -> Cells {
        Cells(
            row.into_iter()
                .map(|cell| cell.map(|cell| String::from_utf8_lossy(&cell).into_owned()))
                .collect(),
        )
    }

    pub(crate) fn maybe(&self, at: usize) -> Option<&str> {
        self.0.get(at).and_then(Option::as_deref)
    }

    pub(crate) fn text(&self, at: usize) -> Result<&str> {
        self.maybe(at).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "read the server's answer").with("missing column", at)
        })
    }

    pub(crate) fn parse<T: std::str::FromStr>(&self, at: usize) -> Result<T> {
        let text = self.text(at)?;
        text.parse().map_err(|_| {
            Error::new(ErrorKind::Corrupt, "read the server's answer").with("column", at).with("value", text)
        })
    }
}
