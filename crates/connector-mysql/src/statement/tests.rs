use model::{Column, Identity, TableName, Value};

use super::*;
use crate::charset::Charset;
use crate::column_type::Width;

pub(crate) const INT: ColumnType = ColumnType::Integer { width: Width::Int, unsigned: false };
const TEXT: ColumnType = ColumnType::VarChar { charset: Charset::Latin1 };

pub(crate) fn writer(columns: &[(&str, ColumnType)], key: &[usize]) -> TableWriter {
    let column = |(name, column_type): &(&str, ColumnType)| Column {
        name: (*name).to_owned(),
        type_name: column_type.to_string(),
        type_id: 0,
        type_modifier: -1,
        number: 0,
        kind: column_type.kind(),
        nullable: true,
        generated: *name == "sum",
    };
    let table = Table {
        name: TableName::new("public", "t"),
        source_id: 0,
        columns: columns.iter().map(column).collect(),
        identity: match key {
            [] => Identity::WholeRow,
            key => Identity::Key { columns: key.to_vec(), order: None },
        },
        unique: Vec::new(),
        root: None,
        rows_estimate: None,
        bytes: 0,
    };
    let target = |(name, column_type): &(&str, ColumnType)| (*name != "sum").then(|| column_type.clone());
    let target = Target {
        name: TableName::new("shop", "t"),
        columns: columns.iter().map(target).collect(),
        collides: false,
    };
    TableWriter::new(&table, target)
}

fn shop() -> TableWriter {
    let at = ColumnType::Timestamp { fraction: 0 };
    writer(&[("id", INT), ("sum", INT), ("name", TEXT), ("at", at)], &[0])
}

fn row(id: i64, name: Value) -> Row {
    vec![Value::Integer(id), Value::Unchanged, name, Value::Unchanged]
}

fn key(values: &[i64]) -> Key {
    Key(values.iter().map(|value| Value::Integer(*value)).collect())
}

#[test]
fn what_the_target_computes_is_left_out() {
    let row = vec![Value::Integer(1), Value::Unchanged, Value::text("a"), Value::Null];
    let writer = shop();
    let bound = writer.insert(&row).unwrap();
    assert_eq!(&*bound.sql, "INSERT INTO `shop`.`t` (`id`, `name`, `at`) VALUES (?, ?, ?)");
    assert_eq!(bound.params, [Param::Integer(1), Param::Bytes(b"a"), Param::Null]);
}

#[test]
fn only_carried_cells_are_set() {
    let mut writer = shop();
    for (new, sql, params) in [
        (
            row(1, Value::text("a")),
            "UPDATE `shop`.`t` SET `name` = ?, `at` = `at` WHERE `id` = ?",
            &[Param::Bytes(b"a"), Param::Integer(1)][..],
        ),
        (
            row(2, Value::Unchanged),
            "UPDATE `shop`.`t` SET `id` = ?, `at` = `at` WHERE `id` = ?",
            &[Param::Integer(2), Param::Integer(1)],
        ),
        (row(1, Value::Unchanged), "UPDATE `shop`.`t` SET `at` = `at` WHERE `id` = ?", &[Param::Integer(1)]),
    ] {
        let key = key(&[1]);
        let bound = writer.update(&key, &new).unwrap();
        assert_eq!((&*bound.sql, &bound.params[..]), (sql, params));
        // The same text, not an equal one.
        let sql = Arc::clone(&bound.sql);
        assert!(Arc::ptr_eq(&sql, &writer.update(&key, &new).unwrap().sql));
    }
    let mut bare = writer_of_ids();
    let bound_row = vec![Value::Integer(1)];
    let key = key(&[1]);
    let bound = bare.update(&key, &bound_row).unwrap();
    assert_eq!(&*bound.sql, "UPDATE `shop`.`t` SET `id` = `id` WHERE `id` = ?");
}

fn writer_of_ids() -> TableWriter {
    writer(&[("id", INT)], &[0])
}

#[test]
fn a_row_without_a_key_is_compared_by_bytes() {
    let mut writer = writer(&[("f", ColumnType::Float), ("name", TEXT), ("id", ColumnType::Uuid)], &[]);
    let id = Value::text("6f0f6141-5bdd-eea0-c000-00000000000a");
    let old = vec![Value::Real(0.5), Value::text("a"), id];
    let same =
        "`f` <=> ? AND CAST(CONVERT(`name` USING utf8mb4) AS BINARY) <=> CAST(? AS BINARY) AND `id` <=> ?";
    let bound = writer.delete_whole(&old).unwrap();
    assert_eq!(&*bound.sql, format!("DELETE FROM `shop`.`t` WHERE {same} LIMIT 1"));
    assert_eq!(bound.params.len(), 3);
    let new = vec![Value::Unchanged, Value::Null, Value::Unchanged];
    let bound = writer.update_whole(&old, &new).unwrap().unwrap();
    assert_eq!(&*bound.sql, format!("UPDATE `shop`.`t` SET `name` = ? WHERE {same} LIMIT 1"));
    assert_eq!(bound.params[..2], [Param::Null, Param::Real(0.5)]);
    let nothing = vec![Value::Unchanged, Value::Unchanged, Value::Unchanged];
    assert_eq!(writer.update_whole(&old, &nothing).unwrap(), None);
}

#[test]
fn ranges_of_keys() {
    let writer = writer(&[("a", INT), ("b", INT)], &[0, 1]);
    let (after, upto, except) = (key(&[1, 2]), key(&[3, 4]), [key(&[5, 6]), key(&[7, 8])]);
    let bound = writer.delete_range(Some(&after), Some(&upto), &except).unwrap();
    assert_eq!(
        &*bound.sql,
        "DELETE FROM `shop`.`t` WHERE (`a` > ? OR (`a` = ? AND `b` > ?)) AND (`a` < ? OR (`a` = ? AND `b` <= ?)) \
         AND (`a`, `b`) NOT IN ((?, ?), (?, ?))"
    );
    assert_eq!(bound.params, [1, 1, 2, 3, 3, 4, 5, 6, 7, 8].map(Param::Integer));
    assert_eq!(&*writer.delete_range(None, None, &[]).unwrap().sql, "DELETE FROM `shop`.`t` WHERE TRUE");
    let many = vec![key(&[1, 1]); PARAMS_MAX / 2 + 1];
    assert_eq!(writer.delete_range(None, None, &many).unwrap_err().kind, ErrorKind::Setup);
}

#[test]
fn ranges_of_text_are_ranges_of_bytes() {
    let writer = writer(&[("k", TEXT)], &[0]);
    let after = Key(vec![Value::text("a")]);
    let bound = writer.delete_range(Some(&after), None, &[]).unwrap();
    assert_eq!(
        &*bound.sql,
        "DELETE FROM `shop`.`t` WHERE CAST(CONVERT(`k` USING utf8mb4) AS BINARY) > CAST(? AS BINARY)"
    );
}

#[test]
fn what_is_read_fits_again() {
    let mut writer = writer(&[("id", INT), ("at", ColumnType::DateTime { fraction: 0 })], &[0]);
    writer.table.columns[1].kind = Kind::TimestampTz;
    let mut row = vec![Value::Unchanged; 2];
    let mut cells = [Some(Bytes::from_static(b"\x07\0\0\0")), Some(Bytes::from_static(b"\xe8\x07\x02\x1d"))];
    writer.decode(&mut cells, &mut row).unwrap();
    assert_eq!(row, [Value::Integer(7), Value::text("2024-02-29 00:00:00+00:00")]);
    assert_eq!(writer.insert(&row).unwrap().params[1], Param::Bytes(b"2024-02-29 00:00:00"));
}
