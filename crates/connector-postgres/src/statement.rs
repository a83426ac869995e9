//! The statements that write one table. Pure: text from names and types.

use model::{Table, TableName};

use crate::fit;
use crate::sql::{list, table as table_sql};

/// A table as the target has it; columns are those of the catalog's table, in its order.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Quoted, with its schema.
    pub(crate) name: String,
    pub(crate) columns: Vec<TargetColumn>,
    /// Indexes of the columns that are written.
    pub(crate) stored: Vec<usize>,
    /// Indexes of the key's columns; empty without a key.
    pub(crate) key: Vec<usize>,
    /// The source is another engine: its values are not printed as PostgreSQL prints them.
    foreign: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct TargetColumn {
    /// Quoted.
    pub(crate) name: String,
    /// Without modifiers: an explicit cast to `varchar(3)` would cut a value silently, while the assignment that
    /// follows refuses one that is too long.
    pub(crate) type_sql: String,
    /// With them.
    pub(crate) declared: String,
    /// Values travel as an array of the type itself. Otherwise (arrays, domains, composites) as text with a cast:
    /// an array of arrays would be taken for a matrix.
    pub(crate) typed_array: bool,
    /// GENERATED ALWAYS AS IDENTITY: INSERT can override it, UPDATE can only set it to DEFAULT.
    pub(crate) always: bool,
}

impl Target {
    pub(crate) fn new(name: &TableName, planned: &Table, columns: Vec<TargetColumn>) -> Target {
        Target {
            name: table_sql(name),
            columns,
            stored: planned.stored().collect(),
            key: planned.key().map_or_else(Vec::new, <[usize]>::to_vec),
            foreign: fit::is_foreign(planned),
        }
    }

    fn array_type(&self, column: usize) -> String {
        let column = &self.columns[column];
        if column.typed_array { format!("{}[]", column.type_sql) } else { "pg_catalog.text[]".to_owned() }
    }

    /// `u.c3`, cast where it travelled as text.
    fn unnested(&self, name: &str, column: usize) -> String {
        let column = &self.columns[column];
        if column.typed_array { format!("u.{name}") } else { format!("u.{name}::{}", column.type_sql) }
    }

    fn unnest(&self, key: &[usize], cells: &[usize]) -> String {
        let mut parameter = 0;
        let arrays = list(key.iter().chain(cells), |&column| {
            parameter += 1;
            format!("${parameter}::{}", self.array_type(column))
        });
        let names = key
            .iter()
            .map(|column| format!("k{column}"))
            .chain(cells.iter().map(|column| format!("c{column}")));
        format!("unnest({arrays}) AS u({})", list(names, |name| name))
    }

    fn key_matches(&self) -> String {
        let one = |&column: &usize| {
            format!("t.{} = {}", self.columns[column].name, self.unnested(&format!("k{column}"), column))
        };
        self.key.iter().map(one).collect::<Vec<_>>().join(" AND ")
    }

    /// Parameters: one array for each key column.
    pub(crate) fn delete_many(&self) -> String {
        format!(
            "DELETE FROM ONLY {} AS t USING {} WHERE {}",
            self.name,
            self.unnest(&self.key, &[]),
            self.key_matches()
        )
    }

    /// Parameters: arrays of the keys as they are, then of the cells to set.
    pub(crate) fn update_many(&self, cells: &[usize]) -> String {
        let value = |&column: &usize| self.unnested(&format!("c{column}"), column);
        format!(
            "UPDATE ONLY {} AS t SET {} FROM {} WHERE {}{}",
            self.name,
            self.set(cells, value),
            self.unnest(&self.key, cells),
            self.key_matches(),
            self.stays(cells, value)
        )
    }

    /// Parameters: one array for each stored column.
    pub(crate) fn insert_many(&self) -> String {
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}",
            self.name,
            self.stored_names(),
            list(&self.stored, |&column| self.unnested(&format!("c{column}"), column)),
            self.unnest(&[], &self.stored)
        )
    }

    pub(crate) fn stored_names(&self) -> String {
        list(&self.stored, |&column| self.columns[column].name.clone())
    }

    /// Parameters: the stored cells.
    pub(crate) fn insert_one(&self) -> String {
        let values = (1..=self.stored.len()).map(|parameter| format!("${parameter}"));
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
            self.name,
            self.stored_names(),
            list(values, |value| value)
        )
    }

    fn key_is(&self, first_parameter: usize) -> String {
        self.key
            .iter()
            .enumerate()
            .map(|(place, &column)| format!("{} = ${}", self.columns[column].name, first_parameter + place))
            .collect::<Vec<_>>()
            .join(" AND ")
    }

    /// The assignments of an update that carries `cells`; those that only the server may set are left to [`Target::stays`].
    fn set(&self, cells: &[usize], value: impl Fn(&usize) -> String) -> String {
        let mut free = cells.iter().filter(|&&column| !self.columns[column].always).peekable();
        if free.peek().is_some() {
            return list(free, |column| format!("{} = {}", self.columns[*column].name, value(column)));
        }
        // Nothing that may be set, and yet the row must be hit: any other column is set to itself.
        let other = self.stored.iter().find(|&&column| !self.columns[column].always);
        let name = other.or(self.stored.first()).map_or("", |&column| &self.columns[column].name);
        format!("{name} = t.{name}")
    }

    /// What must hold of the cells that are not set: a row in which they differ is not hit, and that is an alarm.
    fn stays(&self, cells: &[usize], value: impl Fn(&usize) -> String) -> String {
        cells
            .iter()
            .filter(|&&column| self.columns[column].always)
            .map(|column| {
                format!(" AND t.{} IS NOT DISTINCT FROM {}", self.columns[*column].name, value(column))
            })
            .collect()
    }

    /// Parameters: the cells to set, then the key.
    pub(crate) fn update_one(&self, cells: &[usize]) -> String {
        let value = parameter_of(cells);
        format!(
            "UPDATE ONLY {} AS t SET {} WHERE {}{}",
            self.name,
            self.set(cells, &value),
            self.key_is(cells.len() + 1),
            self.stays(cells, &value)
        )
    }

    /// Parameters: the key.
    pub(crate) fn delete_one(&self) -> String {
        format!("DELETE FROM ONLY {} WHERE {}", self.name, self.key_is(1))
    }

    /// One of the rows whose every cell prints as the parameters. By output text and not by `=`: json and point have
    /// no equality, and 1.0 = 1.00, 0.0 = −0.0 are different rows. `format('%s')` calls the type's output function,
    /// which a cast to text does not for bool and char(n). Another engine's `3.0` and `12:00:00.00` are read first.
    fn one_whole(&self, first_parameter: usize) -> String {
        let matches = self
            .stored
            .iter()
            .enumerate()
            .map(|(place, &column)| {
                let TargetColumn { name, declared, .. } = &self.columns[column];
                let text = format!("${}::pg_catalog.text", first_parameter + place);
                let printed = match self.foreign {
                    true => format!("pg_catalog.format('%s', {text}::{declared})"),
                    false => format!("coalesce({text}, '')"),
                };
                // A composite of NULLs is no NULL; and a collation may take two texts for one.
                format!(
                    "({name} IS NOT DISTINCT FROM NULL) = ({text} IS NULL) \
                     AND pg_catalog.format('%s', {name}) COLLATE pg_catalog.\"C\" = {printed}"
                )
            })
            .collect::<Vec<_>>()
            .join(" AND ");
        format!("ctid = (SELECT ctid FROM ONLY {} WHERE {matches} LIMIT 1)", self.name)
    }

    /// Parameters: the cells to set, then the old stored cells.
    pub(crate) fn update_whole(&self, cells: &[usize]) -> String {
        let value = parameter_of(cells);
        format!(
            "UPDATE ONLY {} AS t SET {} WHERE {}{}",
            self.name,
            self.set(cells, &value),
            self.one_whole(cells.len() + 1),
            self.stays(cells, &value)
        )
    }

    /// Parameters: the old stored cells.
    pub(crate) fn delete_whole(&self) -> String {
        format!("DELETE FROM ONLY {} WHERE {}", self.name, self.one_whole(1))
    }

    /// Rows whose unique values move among themselves are taken out first and put back changed. Takes them into the
    /// temporary table. Parameters: arrays of the keys, then one of their numbers.
    pub(crate) fn vacate_take(&self) -> String {
        let names = self.key.iter().map(|column| format!("k{column}"));
        let mut parameter = 0;
        let arrays = list(&self.key, |&column| {
            parameter += 1;
            format!("${parameter}::{}", self.array_type(column))
        });
        format!(
            "INSERT INTO {VACATED} SELECT u.n, t.* FROM ONLY {} AS t JOIN unnest({arrays}, ${}::pg_catalog.int8[]) \
             AS u({}, n) ON {}",
            self.name,
            self.key.len() + 1,
            list(names, |name| name),
            self.key_matches()
        )
    }

    pub(crate) fn vacate_begin(&self) -> String {
        format!(
            "DROP TABLE IF EXISTS {VACATED}; CREATE TEMPORARY TABLE crossfade_vacated ON COMMIT DROP AS \
             SELECT 0::pg_catalog.int8 AS \"crossfade row\", t.* FROM ONLY {} AS t WITH NO DATA",
            self.name
        )
    }

    /// Puts rows back with `cells` replaced. Parameters: one array of numbers, then arrays of the cells.
    pub(crate) fn vacate_put(&self, cells: &[usize]) -> String {
        let arrays: String = cells
            .iter()
            .enumerate()
            .map(|(place, &column)| format!(", ${}::{}", place + 2, self.array_type(column)))
            .collect();
        let names: String = cells.iter().map(|column| format!(", c{column}")).collect();
        let values = list(&self.stored, |&column| {
            if cells.contains(&column) {
                self.unnested(&format!("c{column}"), column)
            } else {
                format!("v.{}", self.columns[column].name)
            }
        });
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {VACATED} AS v \
             JOIN unnest($1::pg_catalog.int8[]{arrays}) AS u(n{names}) ON v.\"crossfade row\" = u.n",
            self.name,
            self.stored_names()
        )
    }
}

/// `$1`, `$2` … in the order of the cells.
fn parameter_of(cells: &[usize]) -> impl Fn(&usize) -> String {
    move |column| {
        let place = cells.iter().position(|cell| cell == column).unwrap_or_default();
        format!("${}", place + 1)
    }
}

const VACATED: &str = "pg_temp.crossfade_vacated";

#[cfg(test)]
mod tests {
    use model::{Column, Identity, Kind};

    use super::*;

    fn target() -> Target {
        let column = |name: &str| Column {
            name: name.into(),
            type_name: "text".into(),
            type_id: 25,
            type_modifier: -1,
            number: 0,
            kind: Kind::Text,
            nullable: true,
            generated: false,
        };
        let planned = Table {
            source_id: 0,
            name: TableName::new("s", "t"),
            columns: vec![column("id"), column("tags")],
            identity: Identity::Key { columns: vec![0], order: None },
            unique: vec![],
            root: None,
            rows_estimate: None,
            bytes: 0,
        };
        let columns = vec![
            TargetColumn {
                name: "\"id\"".into(),
                type_sql: "integer".into(),
                declared: "integer".into(),
                typed_array: true,
                always: false,
            },
            TargetColumn {
                name: "\"tags\"".into(),
                type_sql: "text[]".into(),
                declared: "text[]".into(),
                typed_array: false,
                always: false,
            },
        ];
        Target::new(&planned.name, &planned, columns)
    }

    #[test]
    fn statements() {
        let target = target();
        assert_eq!(
            target.update_many(&[1]),
            "UPDATE ONLY \"s\".\"t\" AS t SET \"tags\" = u.c1::text[] FROM unnest($1::integer[], \
             $2::pg_catalog.text[]) AS u(k0, c1) WHERE t.\"id\" = u.k0"
        );
        assert_eq!(
            target.vacate_put(&[1]),
            "INSERT INTO \"s\".\"t\" (\"id\", \"tags\") OVERRIDING SYSTEM VALUE SELECT v.\"id\", u.c1::text[] FROM \
             pg_temp.crossfade_vacated AS v JOIN unnest($1::pg_catalog.int8[], $2::pg_catalog.text[]) \
             AS u(n, c1) ON v.\"crossfade row\" = u.n"
        );
        assert_eq!(target.delete_one(), "DELETE FROM ONLY \"s\".\"t\" WHERE \"id\" = $1");
    }
}
