//! Foreign keys that change a child's rows within InnoDB. MariaDB, and MySQL before 9, do not log those changes (HAZARDS A03).

use connector::Result;
use model::{Catalog, TableName};

use crate::cells::Cells;
use crate::sql;
use crate::wire::Client;

/// A foreign key whose child is migrated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cascade {
    pub(crate) name: String,
    pub(crate) child: TableName,
    pub(crate) parent: TableName,
    /// The parent's columns.
    pub(crate) referenced: Vec<String>,
    /// `CASCADE`, `SET NULL`; `None` where nothing is done to the child.
    pub(crate) on_delete: Option<String>,
    pub(crate) on_update: Option<String>,
}

/// Those of them that do something, by child and name.
pub(crate) async fn read(client: &mut Client, catalog: &Catalog) -> Result<Vec<Cascade>> {
    let mut schemas: Vec<&str> = catalog.tables.iter().map(|table| table.name.schema.as_str()).collect();
    schemas.dedup();
    let rows = client
        .query(&format!(
            "SELECT r.CONSTRAINT_SCHEMA, r.TABLE_NAME, r.CONSTRAINT_NAME, k.REFERENCED_TABLE_SCHEMA, \
             k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE \
             FROM information_schema.REFERENTIAL_CONSTRAINTS r JOIN information_schema.KEY_COLUMN_USAGE k \
             ON k.CONSTRAINT_SCHEMA = r.CONSTRAINT_SCHEMA AND k.TABLE_NAME = r.TABLE_NAME \
             AND k.CONSTRAINT_NAME = r.CONSTRAINT_NAME \
             WHERE r.CONSTRAINT_SCHEMA IN ({}) AND (r.DELETE_RULE NOT IN ('RESTRICT', 'NO ACTION') \
             OR r.UPDATE_RULE NOT IN ('RESTRICT', 'NO ACTION')) \
             ORDER BY r.TABLE_NAME, r.CONSTRAINT_NAME, k.ORDINAL_POSITION",
            sql::list(schemas, sql::literal)
        ))
        .await?;
    let mut keys: Vec<Cascade> = Vec::new();
    for row in rows {
        let row = Cells(row);
        let child = TableName::new(row.text(0)?, row.text(1)?);
        if catalog.table(&child).is_none() {
            continue;
        }
        let (name, column) = (row.text(2)?, row.text(5)?.to_owned());
        match keys.last_mut() {
            Some(key) if key.child == child && key.name == name => key.referenced.push(column),
            _ => keys.push(Cascade {
                name: name.to_owned(),
                child,
                parent: TableName::new(row.text(3)?, row.text(4)?),
                referenced: vec![column],
                on_delete: action(row.text(6)?),
                on_update: action(row.text(7)?),
            }),
        }
    }
    Ok(keys)
}

fn action(rule: &str) -> Option<String> {
    (!matches!(rule, "RESTRICT" | "NO ACTION")).then(|| rule.to_owned())
}
