//! Turns the rows of the log into rows of the catalog, and notices when the log's tables are not the planned ones.

use std::collections::HashMap;

use model::{Catalog, Change, Relation, RelationId, Row, Table, TableName, Value};

/// What the log said of its tables, checked against the catalog.
#[derive(Debug, Default)]
pub struct Relations {
    known: HashMap<RelationId, Known>,
}

#[derive(Debug)]
struct Known {
    /// Index into the catalog's tables.
    table: RelationId,
    /// For each column of the catalog's table, its place in the log's row; `None` for generated ones.
    /// Absent when both are the same.
    places: Option<Vec<Option<usize>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log's table is not the one that was planned; nothing of the new shape has been applied.
    #[error("table {table} changed on the source: {change}")]
    SchemaChanged { table: TableName, change: String },
    #[error("the log speaks of relation {0} before describing it")]
    Unknown(RelationId),
}

impl Relations {
    /// Takes a description. Must be called before the changes that follow it in the log.
    pub fn learn(&mut self, relation: &Relation, catalog: &Catalog) -> Result<(), Error> {
        let changed = |change: String| Error::SchemaChanged { table: relation.table.clone(), change };
        let table =
            catalog.tables.binary_search_by(|table| table.name.cmp(&relation.table)).map_err(|_| {
                changed("it is new, or was renamed or attached, since the migration was planned".into())
            })?;
        let planned = &catalog.tables[table];
        if planned.source_id != 0 && planned.source_id != relation.id {
            return Err(changed("another table has taken its name".into()));
        }
        let places = places(planned, relation).map_err(changed)?;
        let identical = places.iter().enumerate().all(|(at, place)| *place == Some(at));
        let table = RelationId::try_from(table).unwrap_or(RelationId::MAX);
        self.known.insert(relation.id, Known { table, places: (!identical).then_some(places) });
        Ok(())
    }

    fn known(&self, id: RelationId) -> Result<&Known, Error> {
        self.known.get(&id).ok_or(Error::Unknown(id))
    }

    /// Brings a change into the catalog's terms: its relations become indexes into the catalog's tables, its rows
    /// have a cell for every column there.
    pub fn arrange(&self, change: Change) -> Result<Change, Error> {
        Ok(match change {
            Change::Insert { relation, new } => {
                let known = self.known(relation)?;
                Change::Insert { relation: known.table, new: known.arrange(new) }
            }
            Change::Update { relation, old, new } => {
                let known = self.known(relation)?;
                Change::Update {
                    relation: known.table,
                    old: old.map(|old| known.arrange(old)),
                    new: known.arrange(new),
                }
            }
            Change::Delete { relation, old } => {
                let known = self.known(relation)?;
                Change::Delete { relation: known.table, old: known.arrange(old) }
            }
            Change::Truncate { relations, restart_identity } => Change::Truncate {
                relations: relations
                    .into_iter()
                    .map(|id| Ok(self.known(id)?.table))
                    .collect::<Result<_, Error>>()?,
                restart_identity,
            },
        })
    }
}

impl Known {
    fn arrange(&self, mut row: Row) -> Row {
        let Some(places) = &self.places else { return row };
        places
            .iter()
            .map(|place| {
                place.map_or(Value::Unchanged, |at| std::mem::replace(&mut row[at], Value::Unchanged))
            })
            .collect()
    }
}

/// Where each planned column is in the log's row, or what differs.
fn places(planned: &Table, relation: &Relation) -> Result<Vec<Option<usize>>, String> {
    let mut seen = vec![false; relation.columns.len()];
    let mut places = Vec::with_capacity(planned.columns.len());
    for column in &planned.columns {
        let at = relation.columns.iter().position(|found| found.name == column.name);
        match at {
            None if column.generated => places.push(None),
            None => return Err(format!("column {} was dropped or renamed", column.name)),
            Some(at) if relation.columns[at].type_id != column.type_id => {
                return Err(format!(
                    "column {} has another type now (it was {})",
                    column.name, column.type_name
                ));
            }
            Some(at) if relation.columns[at].type_modifier != column.type_modifier => {
                return Err(format!(
                    "column {} is narrower or wider now (it was {})",
                    column.name, column.type_name
                ));
            }
            Some(at) => {
                seen[at] = true;
                places.push((!column.generated).then_some(at));
            }
        }
    }
    // A source that numbers its columns gives them in that order: another one means that names were exchanged.
    let numbered = planned.columns.iter().any(|column| column.number != 0);
    if numbered && !places.iter().flatten().is_sorted() {
        return Err("its columns have exchanged their names".into());
    }
    match seen.iter().position(|seen| !seen) {
        Some(at) => Err(format!("column {} is new", relation.columns[at].name)),
        None => {
            let keyed = planned.key().is_some();
            let log_has_key = relation.whole_old_row || relation.columns.iter().any(|column| column.key);
            match planned.key() {
                Some(key) if !relation.whole_old_row => {
                    let missing =
                        key.iter().find(|&&at| !places[at].is_some_and(|place| relation.columns[place].key));
                    match missing {
                        Some(&at) => Err(format!(
                            "column {} is no longer part of the identity that the log gives",
                            planned.columns[at].name
                        )),
                        None => Ok(places),
                    }
                }
                _ if keyed || relation.whole_old_row || !log_has_key => Ok(places),
                _ => Err("its replica identity is no longer the whole row".into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use model::RelationColumn;

    use super::*;
    use crate::merge::tests::table;

    fn relation(columns: &[(&str, u32, bool)]) -> Relation {
        Relation {
            id: 5,
            table: TableName::new("public", "t"),
            columns: columns
                .iter()
                .map(|(name, type_id, key)| RelationColumn {
                    type_modifier: -1,
                    name: (*name).into(),
                    type_id: *type_id,
                    key: *key,
                })
                .collect(),
            whole_old_row: false,
        }
    }

    fn catalog() -> Catalog {
        Catalog { tables: vec![table("t", &["id", "v"], Some(&["id"]))] }
    }

    #[test]
    fn rows_are_brought_into_the_catalogs_order() {
        let mut relations = Relations::default();
        relations.learn(&relation(&[("v", 25, false), ("id", 25, true)]), &catalog()).unwrap();
        let change = Change::Insert { relation: 5, new: vec![Value::text("v"), Value::text("1")] };
        assert_eq!(
            relations.arrange(change).unwrap(),
            Change::Insert { relation: 0, new: vec![Value::text("1"), Value::text("v")] }
        );
        let unknown = Change::Truncate { relations: vec![6], restart_identity: false };
        assert!(matches!(relations.arrange(unknown), Err(Error::Unknown(6))));
    }

    #[test]
    fn what_changed_is_named() {
        for (columns, expected) in [
            (vec![("id", 25, true)], "column v was dropped or renamed"),
            (vec![("id", 25, true), ("v", 25, false), ("w", 25, false)], "column w is new"),
            (vec![("id", 20, true), ("v", 25, false)], "column id has another type now (it was text)"),
            (
                vec![("id", 25, false), ("v", 25, true)],
                "column id is no longer part of the identity that the log gives",
            ),
        ] {
            let error = Relations::default().learn(&relation(&columns), &catalog()).unwrap_err();
            assert_eq!(error.to_string(), format!("table public.t changed on the source: {expected}"));
        }
    }
}
