//! CREATE TABLE for a source of another engine: each column gets the type that holds all values of its kind.
//! The mapping is documented in docs/reference/types.md.

use std::iter;

use model::{Column, Kind, Table};

use crate::family::Family;
use crate::sql;

/// What an index of InnoDB takes of one row (ROW_FORMAT=DYNAMIC). A column in it needs as much as its longest value could.
const INDEX_BYTES: usize = 3072;
/// Of utf8mb4.
const CHARACTER_BYTES: usize = 4;
/// A row's VARCHARs may take 65,535 bytes together, and those that are in an index come on top of this.
const SHORT_BYTES: usize = 40_000;

/// `pg_type.oid`; for these the number behind the type is in the modifier. Other engines have no number for a type.
mod oid {
    pub(super) const BPCHAR: u32 = 1042;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const NUMERIC: u32 = 1700;
}

/// What is distinct on the source has to stay so: text is compared byte by byte, spaces at its end included. Generated columns
/// are left out.
pub(crate) fn create_table(table: &Table, family: Family) -> String {
    let shares = shares(table);
    let short_bytes: usize =
        table.columns.iter().filter_map(length).map(|length| length * CHARACTER_BYTES + 2).sum();
    let mut parts: Vec<String> = iter::zip(&table.columns, &shares)
        .filter(|(column, _)| !column.generated)
        .map(|(column, share)| {
            let room = Room { indexed: *share, short: short_bytes <= SHORT_BYTES };
            let required = if column.nullable { "" } else { " NOT NULL" };
            format!("{} {}{required}", sql::ident(&column.name), type_for(column, &room, family))
        })
        .collect();
    if let Some(key) = table.key() {
        parts.push(format!("PRIMARY KEY ({})", columns(table, key)));
    }
    format!(
        "CREATE TABLE {} ({}) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE {}",
        sql::ident(&table.name.name),
        parts.join(", "),
        family.exact_collation()
    )
}

pub(crate) fn columns(table: &Table, columns: &[usize]) -> String {
    sql::list(columns, |&at| sql::ident(&table.columns[at].name))
}

/// How much a value of varying length may take.
struct Room {
    /// The bytes that the column has in the narrowest of its indexes.
    indexed: Option<usize>,
    /// The declared lengths fit into a row.
    short: bool,
}

fn type_for(column: &Column, room: &Room, family: Family) -> String {
    let fixed = match column.kind {
        Kind::Integer => "BIGINT",
        Kind::Unsigned => "BIGINT UNSIGNED",
        Kind::Real => "DOUBLE",
        Kind::Numeric => return decimal(column, family),
        Kind::Boolean => "TINYINT(1)",
        Kind::Date => "DATE",
        Kind::Time => "TIME(6)",
        // TIMESTAMP ends in 2038. What has a time zone is in UTC.
        Kind::Timestamp | Kind::TimestampTz => "DATETIME(6)",
        // MariaDB's UUID takes only those whose version and variant it knows.
        // A CHAR is padded, so that keys of it could meet.
        Kind::Uuid => "VARCHAR(36)",
        Kind::Blob => match room.indexed {
            Some(bytes) => return format!("VARBINARY({bytes})"),
            None => "LONGBLOB",
        },
        // MariaDB keeps the text as it is; MySQL's type would sort its names and drop those that come twice.
        Kind::Json if family.is_mariadb() && room.indexed.is_none() => "JSON",
        Kind::Text | Kind::Json | Kind::Native => match (room.indexed, length(column)) {
            (Some(bytes), length) => {
                let most = bytes / CHARACTER_BYTES;
                return format!("VARCHAR({})", length.map_or(most, |length| length.min(most)));
            }
            (None, Some(length)) if room.short => return format!("VARCHAR({length})"),
            (None, _) => "LONGTEXT",
        },
    };
    fixed.to_owned()
}

/// The n of PostgreSQL's `varchar(n)` or `char(n)`.
fn length(column: &Column) -> Option<usize> {
    let is_counted = matches!(column.type_id, oid::VARCHAR | oid::BPCHAR);
    // PostgreSQL adds the four bytes that it keeps the length in.
    usize::try_from(column.type_modifier.checked_sub(4)?).ok().filter(|_| is_counted)
}

/// As PostgreSQL's `numeric(p,s)`, else the one with most digits on both sides of the point.
fn decimal(column: &Column, family: Family) -> String {
    let scale_max = if family.is_mariadb() { 38 } else { 30 };
    let modifier = column.type_modifier.checked_sub(4).and_then(|modifier| u32::try_from(modifier).ok());
    match modifier.filter(|_| column.type_id == oid::NUMERIC).map(|bits| (bits >> 16, bits & 0x7ff)) {
        Some((precision, scale)) if precision <= 65 && scale <= precision.min(scale_max) => {
            format!("DECIMAL({precision},{scale})")
        }
        _ => "DECIMAL(65,30)".to_owned(),
    }
}

/// For each column that is in an index, how many bytes it may take there: those whose length varies share what the others leave.
fn shares(table: &Table) -> Vec<Option<usize>> {
    let mut shares = vec![None; table.columns.len()];
    let unique = table.unique.iter().map(|unique| unique.columns.as_slice());
    for columns in table.key().into_iter().chain(unique) {
        let widths = || columns.iter().map(|&at| width(table.columns[at].kind));
        let varying = widths().filter(Option::is_none).count().max(1);
        let share = INDEX_BYTES.saturating_sub(widths().flatten().sum()) / varying;
        for &at in columns.iter().filter(|&&at| width(table.columns[at].kind).is_none()) {
            shares[at] = Some(shares[at].unwrap_or(share).min(share));
        }
    }
    shares
}

/// In an index; `None` where it varies.
fn width(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Integer | Kind::Unsigned | Kind::Real | Kind::Timestamp | Kind::TimestampTz => Some(8),
        Kind::Numeric => Some(30),
        Kind::Boolean => Some(1),
        Kind::Date => Some(3),
        Kind::Time => Some(6),
        Kind::Uuid => Some(36 * CHARACTER_BYTES),
        Kind::Text | Kind::Blob | Kind::Json | Kind::Native => None,
    }
}

#[cfg(test)]
mod tests {
    use model::{Identity, TableName, Unique};

    use super::*;

    fn mariadb() -> Family {
        Family::parse("10.11.6-MariaDB")
    }

    fn column(name: &str, kind: Kind, type_id: u32, type_modifier: i32) -> Column {
        Column {
            name: name.to_owned(),
            type_name: String::new(),
            type_id,
            type_modifier,
            number: 0,
            kind,
            nullable: true,
            generated: false,
        }
    }

    fn table(columns: Vec<Column>, key: &[usize], unique: &[&[usize]]) -> Table {
        let identity = match key {
            [] => Identity::WholeRow,
            key => Identity::Key { columns: key.to_vec(), order: None },
        };
        let unique = unique.iter().map(|columns| Unique { name: "u".to_owned(), columns: columns.to_vec() });
        Table {
            name: TableName::new("public", "t"),
            source_id: 0,
            columns,
            identity,
            unique: unique.collect(),
            root: None,
            rows_estimate: None,
            bytes: 0,
        }
    }

    fn types(table: &Table, family: Family) -> Vec<String> {
        let create = create_table(table, family);
        let columns = create.split_once(" (").unwrap().1.rsplit_once(") ENGINE").unwrap().0;
        let columns = columns.split(", PRIMARY KEY").next().unwrap();
        columns.split(", ").map(|column| column.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn a_table_is_written_out() {
        let mut columns = vec![
            column("id", Kind::Integer, 20, -1),
            column("a`b", Kind::Text, 25, -1),
            column("sum", Kind::Integer, 20, -1),
        ];
        columns[0].nullable = false;
        columns[2].generated = true;
        assert_eq!(
            create_table(&table(columns, &[0], &[]), mariadb()),
            "CREATE TABLE `t` (`id` BIGINT NOT NULL, `a``b` LONGTEXT, PRIMARY KEY (`id`)) ENGINE=InnoDB ROW_FORMAT=DYNAMIC \
             DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
        );
    }

    #[test]
    fn kinds_have_types() {
        let kinds = [Kind::Unsigned, Kind::Numeric, Kind::TimestampTz, Kind::Json, Kind::Uuid, Kind::Native];
        let columns = kinds.map(|kind| column("c", kind, 0, -1)).to_vec();
        let table = table(columns, &[], &[]);
        let uuid = "VARCHAR(36)";
        for (version, json) in [("10.11.6-MariaDB", "JSON"), ("8.4.3", "LONGTEXT")] {
            let expected = ["BIGINT UNSIGNED", "DECIMAL(65,30)", "DATETIME(6)", json, uuid, "LONGTEXT"];
            assert_eq!(types(&table, Family::parse(version)), expected, "{version}");
        }
    }

    #[test]
    fn declared_lengths_and_digits_are_kept_where_they_fit() {
        let numeric = |precision: i32, scale: i32| precision << 16 | scale & 0x7ff;
        for (type_id, modifier, kind, expected) in [
            (oid::VARCHAR, 20, Kind::Text, "VARCHAR(20)"),
            (oid::BPCHAR, 3, Kind::Native, "VARCHAR(3)"),
            (oid::VARCHAR, 9_999, Kind::Text, "VARCHAR(9999)"),
            (oid::VARCHAR, 10_000, Kind::Text, "LONGTEXT"),
            (oid::VARCHAR, -5, Kind::Text, "LONGTEXT"),
            (25, 20, Kind::Text, "LONGTEXT"),
            (oid::NUMERIC, numeric(12, 2), Kind::Numeric, "DECIMAL(12,2)"),
            (oid::NUMERIC, numeric(65, 38), Kind::Numeric, "DECIMAL(65,38)"),
            (oid::NUMERIC, numeric(66, 2), Kind::Numeric, "DECIMAL(65,30)"),
            (oid::NUMERIC, numeric(50, 39), Kind::Numeric, "DECIMAL(65,30)"),
            (oid::NUMERIC, numeric(3, 5), Kind::Numeric, "DECIMAL(65,30)"),
            (oid::NUMERIC, numeric(3, -2), Kind::Numeric, "DECIMAL(65,30)"),
            (oid::NUMERIC, -5, Kind::Numeric, "DECIMAL(65,30)"),
        ] {
            let table = table(vec![column("c", kind, type_id, modifier + 4)], &[], &[]);
            assert_eq!(types(&table, mariadb()), [expected], "{type_id} {modifier}");
        }
        let mysql = table(vec![column("c", Kind::Numeric, oid::NUMERIC, numeric(65, 31) + 4)], &[], &[]);
        assert_eq!(types(&mysql, Family::parse("8.4.3")), ["DECIMAL(65,30)"]);
    }

    #[test]
    fn what_is_indexed_shares_the_room_of_its_index() {
        let text = |name| column(name, Kind::Text, 25, -1);
        let columns = || {
            let blob = column("b", Kind::Blob, 17, -1);
            let short = column("s", Kind::Text, oid::VARCHAR, 24);
            vec![text("a"), blob, column("i", Kind::Integer, 20, -1), short, text("free")]
        };
        for (key, unique, expected) in [
            (&[0][..], &[][..], ["VARCHAR(768)", "LONGBLOB", "BIGINT", "VARCHAR(20)", "LONGTEXT"]),
            (&[2], &[&[1][..]], ["LONGTEXT", "VARBINARY(3072)", "BIGINT", "VARCHAR(20)", "LONGTEXT"]),
            (&[0, 1], &[], ["VARCHAR(384)", "VARBINARY(1536)", "BIGINT", "VARCHAR(20)", "LONGTEXT"]),
            (&[0], &[&[0, 2, 3]], ["VARCHAR(383)", "LONGBLOB", "BIGINT", "VARCHAR(20)", "LONGTEXT"]),
        ] {
            let found = types(&table(columns(), key, unique), mariadb());
            assert_eq!(found, expected, "{key:?} {unique:?}");
        }
    }
}
