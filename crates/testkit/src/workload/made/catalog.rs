//! What is to be known of tables before rows can be made up for them.

use postgres::Client;

#[derive(Debug)]
pub(super) struct Table {
    /// As SQL names it, quoted where needed.
    pub(super) name: String,
    /// Those that can be written: no generated ones, no identities that are always given.
    pub(super) columns: Vec<Column>,
    pub(super) references: Vec<Reference>,
    /// Words and numbers that the table's checks name.
    pub(super) hints: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) type_name: String,
    pub(super) kind: Kind,
    pub(super) not_null: bool,
    pub(super) has_default: bool,
    /// Of the primary key or of a unique constraint.
    pub(super) key: bool,
}

#[derive(Debug)]
pub(super) struct Reference {
    pub(super) parent: String,
    /// Our column and theirs.
    pub(super) columns: Vec<(String, String)>,
}

/// What a type is made of; domains are what they are made over.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// By its name in `pg_type`, with its modifier: a length, or precision and scale.
    Plain(String, i32),
    Enum(Vec<String>),
    Array(Box<Kind>, String),
    /// The fields' kinds and names of types.
    Composite(Vec<(Kind, String)>),
}

/// Tables that are written to by name: of a partitioned one the root. Not the tables of extensions.
const TABLES: &str = "
SELECT c.oid, c.oid::regclass::text
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
 WHERE relkind IN ('r', 'p') AND NOT relispartition AND relpersistence = 'p'
   AND nspname NOT IN ('pg_catalog', 'information_schema', 'crossfade')
   AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
 ORDER BY 2";

/// Those that hold rows, have no primary key, and were given no other identity.
const KEYLESS: &str = "
SELECT c.oid::regclass::text
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
 WHERE relkind = 'r' AND relpersistence = 'p' AND relreplident = 'd'
   AND nspname NOT IN ('pg_catalog', 'information_schema', 'crossfade')
   AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)";

const COLUMNS: &str = "
SELECT attname::text, format_type(atttypid, atttypmod), atttypid, atttypmod,
       attnotnull OR (SELECT typnotnull FROM pg_type WHERE oid = atttypid),
       atthasdef OR attidentity <> '' OR (SELECT typdefault IS NOT NULL FROM pg_type WHERE oid = atttypid),
       EXISTS (SELECT FROM pg_index WHERE indrelid = attrelid AND indisunique AND attnum = ANY (indkey))
  FROM pg_attribute
 WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity <> 'a'
 ORDER BY attnum";

const REFERENCES: &str = "
SELECT confrelid::regclass::text,
       (SELECT array_agg(attname::text ORDER BY place) FROM unnest(conkey) WITH ORDINALITY key (number, place)
          JOIN pg_attribute ON attrelid = conrelid AND attnum = number),
       (SELECT array_agg(attname::text ORDER BY place) FROM unnest(confkey) WITH ORDINALITY key (number, place)
          JOIN pg_attribute ON attrelid = confrelid AND attnum = number)
  FROM pg_constraint WHERE contype = 'f' AND conrelid = $1";

/// Of the table, of its partitions (whose bounds are all that they take), and of its columns' domains.
const CHECKS: &str = "
SELECT pg_get_constraintdef(oid) FROM pg_constraint
 WHERE contype = 'c' AND (conrelid = $1 OR contypid IN (SELECT atttypid FROM pg_attribute WHERE attrelid = $1))
UNION ALL
SELECT pg_get_expr(relpartbound, c.oid) FROM pg_partition_tree($1::regclass) JOIN pg_class c ON c.oid = relid
 WHERE isleaf AND relpartbound IS NOT NULL";

const TYPE: &str = "
SELECT typname::text, typtype::text, typbasetype, typtypmod, typrelid, typcategory::text, typelem,
       format_type(typelem, NULL), typlen = -1 AND typelem <> 0
  FROM pg_type WHERE oid = $1";

pub(super) fn read(client: &mut Client) -> Vec<Table> {
    let tables = client.query(TABLES, &[]).expect("list the tables");
    tables
        .iter()
        .map(|row| {
            let oid: u32 = row.get(0);
            Table {
                name: row.get(1),
                columns: columns(client, oid),
                references: references(client, oid),
                hints: hints(client, oid),
            }
        })
        .collect()
}

/// Tables whose log needs the whole old row.
pub(super) fn keyless(client: &mut Client) -> Vec<String> {
    client.query(KEYLESS, &[]).expect("list the tables without a key").iter().map(|row| row.get(0)).collect()
}

fn columns(client: &mut Client, table: u32) -> Vec<Column> {
    let rows = client.query(COLUMNS, &[&table]).expect("list the columns");
    rows.iter()
        .map(|row| Column {
            name: row.get(0),
            type_name: row.get(1),
            kind: kind(client, row.get(2), row.get(3)),
            not_null: row.get(4),
            has_default: row.get(5),
            key: row.get(6),
        })
        .collect()
}

fn references(client: &mut Client, table: u32) -> Vec<Reference> {
    let rows = client.query(REFERENCES, &[&table]).expect("list the foreign keys");
    rows.iter()
        .map(|row| {
            let (own, theirs): (Vec<String>, Vec<String>) = (row.get(1), row.get(2));
            Reference { parent: row.get(0), columns: own.into_iter().zip(theirs).collect() }
        })
        .collect()
}

fn kind(client: &mut Client, oid: u32, modifier: i32) -> Kind {
    let row = client.query_one(TYPE, &[&oid]).expect("read a type");
    let (name, class): (String, String) = (row.get(0), row.get(1));
    match class.as_str() {
        "d" => kind(client, row.get(2), row.get(3)),
        "e" => {
            let labels = "SELECT enumlabel::text FROM pg_enum WHERE enumtypid = $1 ORDER BY enumsortorder";
            Kind::Enum(
                client.query(labels, &[&oid]).expect("read an enum").iter().map(|row| row.get(0)).collect(),
            )
        }
        "c" => {
            let fields = "SELECT atttypid, atttypmod, format_type(atttypid, atttypmod) FROM pg_attribute
                           WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
            let relation: u32 = row.get(4);
            let fields = client.query(fields, &[&relation]).expect("read a composite type");
            Kind::Composite(
                fields.iter().map(|row| (kind(client, row.get(0), row.get(1)), row.get(2))).collect(),
            )
        }
        _ if row.get::<_, String>(5) == "A" && row.get::<_, bool>(8) => {
            Kind::Array(Box::new(kind(client, row.get(6), modifier)), row.get(7))
        }
        _ => Kind::Plain(name, modifier),
    }
}

/// Everything in quotes, and every number with its neighbours.
fn hints(client: &mut Client, table: u32) -> Vec<String> {
    let checks: Vec<String> = client
        .query(CHECKS, &[&table])
        .expect("read the checks")
        .iter()
        .filter_map(|row| row.get(0))
        .collect();
    let mut hints = Vec::new();
    for check in &checks {
        let mut parts = check.split('\'');
        while let Some(outside) = parts.next() {
            let numbers = outside.split(|at: char| !at.is_ascii_digit() && at != '.');
            for number in numbers.filter_map(|digits| digits.parse::<i64>().ok()) {
                hints.extend((-1..=1).map(|beside| (number.saturating_add(beside)).to_string()));
            }
            hints.extend(parts.next().map(str::to_owned));
        }
    }
    hints.sort();
    hints.dedup();
    hints
}
