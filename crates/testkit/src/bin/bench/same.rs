//! Work that was not done is not worth measuring: what is on the target is what is on the source.

use crate::Bench;

/// As many rows in every table: enough for a plain copy, and quick.
pub(crate) fn counts(bench: &Bench, database: &str, target: &str) {
    compare(bench, database, target, "count(*)::text");
}

/// The same rows in every table, by a digest that each server makes.
pub(crate) fn rows(bench: &Bench, database: &str, target: &str) {
    let digest = "count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)";
    compare(bench, database, target, digest);
}

fn compare(bench: &Bench, database: &str, target: &str, what: &str) {
    let clients = [bench.pair.source.client(database), bench.pair.target.client(target)];
    let [source, target_has] = clients.map(|mut client| {
        let tables = "SELECT c.oid::regclass::text FROM pg_class c
                       WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1";
        let tables = client.query(tables, &[]).expect("list the tables");
        let told = |table: String| {
            let sql = format!("SELECT {what} FROM {table} t");
            let told: String = client.query_one(&sql, &[]).expect("look at a table").get(0);
            format!("{table} {told}")
        };
        tables.iter().map(|row| row.get(0)).map(told).collect::<Vec<_>>()
    });
    assert!(!source.is_empty(), "{database} has no table");
    assert_eq!(source, target_has, "{database} on the source and {target} on the target differ");
}
