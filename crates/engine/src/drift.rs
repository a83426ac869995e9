//! What differs between the planned tables and the source's tables now. Pure.

use model::{Catalog, Table};

/// The first difference that matters, in words; `None` when rows and changes still mean what was planned.
pub fn difference(planned: &Catalog, now: &Catalog) -> Option<String> {
    for table in &now.tables {
        if planned.table(&table.name).is_none() {
            return Some(format!("table {} is new, or was renamed or attached", table.name));
        }
    }
    planned.tables.iter().find_map(|table| match now.table(&table.name) {
        None => Some(format!("table {} was dropped, renamed or detached", table.name)),
        Some(now) => table_difference(table, now).map(|change| format!("table {}: {change}", table.name)),
    })
}

fn table_difference(planned: &Table, now: &Table) -> Option<String> {
    if planned.source_id != now.source_id {
        return Some("another table has taken its name".to_owned());
    }
    for column in &now.columns {
        if !planned.columns.iter().any(|known| known.name == column.name) {
            return Some(format!("column {} is new", column.name));
        }
    }
    for column in &planned.columns {
        let Some(found) = now.columns.iter().find(|found| found.name == column.name) else {
            return Some(format!("column {} was dropped or renamed", column.name));
        };
        if found.number != column.number {
            return Some(format!("another column has taken the name {}", column.name));
        }
        if found.type_name != column.type_name {
            return Some(format!(
                "column {} was {} and is {}",
                column.name, column.type_name, found.type_name
            ));
        }
        if found.generated != column.generated {
            return Some(format!("column {} is generated on one of the two occasions only", column.name));
        }
    }
    let key = |table: &Table| -> Option<Vec<String>> {
        table.key().map(|key| key.iter().map(|&at| table.columns[at].name.clone()).collect())
    };
    (key(planned) != key(now)).then(|| "its key is another one".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::tests::table;

    fn catalog(tables: Vec<Table>) -> Catalog {
        Catalog { tables }
    }

    #[test]
    fn differences_are_named_and_sizes_do_not_matter() {
        let planned = catalog(vec![table("t", &["id", "v"], Some(&["id"]))]);
        let mut grown = planned.clone();
        grown.tables[0].bytes = 1 << 40;
        assert_eq!(difference(&planned, &grown), None);
        let mut replaced = planned.clone();
        replaced.tables[0].source_id = 7;
        let mut swapped = planned.clone();
        (swapped.tables[0].columns[0].number, swapped.tables[0].columns[1].number) = (2, 1);
        let mut retyped = planned.clone();
        retyped.tables[0].columns[1].type_name = "bigint".into();
        for (now, expected) in [
            (catalog(vec![]), "table public.t was dropped, renamed or detached"),
            (catalog(vec![table("t", &["id", "v", "w"], Some(&["id"]))]), "table public.t: column w is new"),
            (
                catalog(vec![table("t", &["id"], Some(&["id"]))]),
                "table public.t: column v was dropped or renamed",
            ),
            (catalog(vec![table("t", &["id", "v"], Some(&["v"]))]), "table public.t: its key is another one"),
            (retyped, "table public.t: column v was text and is bigint"),
            (replaced, "table public.t: another table has taken its name"),
            (swapped, "table public.t: another column has taken the name id"),
        ] {
            assert_eq!(difference(&planned, &now).as_deref(), Some(expected));
        }
        let more = catalog(vec![table("s", &["id"], None), planned.tables[0].clone()]);
        assert_eq!(
            difference(&planned, &more).as_deref(),
            Some("table public.s is new, or was renamed or attached")
        );
    }
}
