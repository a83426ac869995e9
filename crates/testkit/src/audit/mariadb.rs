//! MariaDB's side of a comparison with PostgreSQL.

use mysql::Conn;
use mysql::prelude::Queryable;

use super::across::{Source, hex};

pub(super) struct Side {
    client: Conn,
    database: String,
}

impl Side {
    /// `None` for the URL of another engine.
    pub(super) fn open(url: &str) -> Option<Side> {
        let place = url.strip_prefix("mariadb://")?;
        let (server, database) = place.split_once('/').expect("a database in the URL");
        let mut client =
            Conn::new(format!("mysql://{server}/{database}").as_str()).expect("connect to MariaDB");
        client.query_drop("SET NAMES utf8mb4, time_zone = '+00:00'").expect("set up a session");
        Some(Side { client, database: database.to_owned() })
    }
}

impl Source for Side {
    fn schema(&self) -> Option<String> {
        Some(self.database.clone())
    }

    fn tables(&mut self) -> Vec<(String, Vec<String>)> {
        let columns: Vec<(String, String)> = self
            .client
            .query(
                "SELECT c.TABLE_NAME, c.COLUMN_NAME FROM information_schema.COLUMNS c
                 JOIN information_schema.TABLES t USING (TABLE_SCHEMA, TABLE_NAME)
                 WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE' AND c.IS_GENERATED = 'NEVER'
                 ORDER BY BINARY c.TABLE_NAME, c.ORDINAL_POSITION",
            )
            .expect("list the columns");
        let mut tables: Vec<(String, Vec<String>)> = Vec::new();
        for (table, column) in columns {
            match tables.last_mut() {
                Some((last, columns)) if *last == table => columns.push(column),
                _ => tables.push((table, vec![column])),
            }
        }
        tables
    }

    /// A FLOAT is printed with six digits, unless it is made a DOUBLE.
    fn rows(&mut self, table: &str, columns: &[String]) -> Vec<Vec<Option<String>>> {
        let types: Vec<(String, String)> = self
            .client
            .exec(
                "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS
                 WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?",
                (table,),
            )
            .expect("list the columns' types");
        let type_of = |column: &String| {
            let found = types.iter().find(|(name, _)| name == column);
            found.map(|(_, data_type)| data_type.as_str()).expect("a column's type")
        };
        let cells = columns.iter().map(|column| match type_of(column) {
            "float" => format!("CAST({} AS DOUBLE)", quoted(column)),
            "bit" | "year" => format!("CAST({} AS UNSIGNED)", quoted(column)),
            _ => quoted(column),
        });
        let sql = format!("SELECT {} FROM {}", cells.collect::<Vec<_>>().join(", "), quoted(table));
        let is_blob: Vec<bool> = columns
            .iter()
            .map(|column| {
                let data_type = type_of(column);
                data_type.ends_with("blob") || data_type.ends_with("binary") || SPATIAL.contains(&data_type)
            })
            .collect();
        let rows: Vec<mysql::Row> = self.client.query(&sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        let cell = |(value, is_blob): (mysql::Value, &bool)| match value {
            mysql::Value::NULL => None,
            mysql::Value::Bytes(bytes) if *is_blob => Some(hex(&bytes)),
            mysql::Value::Bytes(bytes) => Some(String::from_utf8(bytes).expect("text in UTF-8")),
            other => panic!("{other:?} in an answer as text"),
        };
        rows.into_iter().map(|row| row.unwrap().into_iter().zip(&is_blob).map(cell).collect()).collect()
    }
}

const SPATIAL: &[&str] = &["geometry", "point", "linestring", "polygon"];

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
