//! The steps of a transaction: each is one difficulty.

use fastrand::Rng;

/// Keys that are fought for. The tables are larger; these rows are the hot ones.
const HOT: u32 = 400;

/// Appends the statements of one random step.
pub(super) fn step(rng: &mut Rng, to: &mut Vec<String>) {
    let (a, b) = (rng.u32(1..=HOT), rng.u32(1..=HOT));
    let any = rng.u32(..);
    let large = format!("repeat(md5('{any}'), {})", rng.u32(80..160));
    let mut sql = |statement: String| to.push(statement);
    match rng.u8(0..34) {
        // A small update beside a large value that is not sent.
        0..=3 => sql(format!("UPDATE account SET balance = balance + {}, touched = clock_timestamp() WHERE id = {a}", any % 100)),
        4 => sql(format!("UPDATE account SET note = {large} WHERE id = {a}")),
        5 => sql(format!("UPDATE account SET note = NULL WHERE id = {a}")),
        6 => {
            sql(format!("UPDATE account SET note = {large} WHERE id = {a}"));
            sql(format!("UPDATE account SET name = 'again {any}' WHERE id = {a}"));
        }
        7 => sql(format!(
            "INSERT INTO account (id, name, note) VALUES ({a}, 'new {any}', {large}) ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name"
        )),
        8 => sql(format!("DELETE FROM account WHERE id = {a}")),
        // The key moves, the large value stays; sometimes far away.
        9 | 10 => {
            let far = if any.is_multiple_of(3) { 1_000_000 } else { 0 };
            sql(format!(
                "UPDATE account SET id = {far} + {b} WHERE id = {a} AND NOT EXISTS (SELECT FROM account WHERE id = {far} + {b})"
            ));
        }
        11 => sql(format!(
            "UPDATE account SET id = id - 1000000 WHERE id = (SELECT max(id) FROM account WHERE id > 1000000)
                AND NOT EXISTS (SELECT FROM account WHERE id = (SELECT max(id) - 1000000 FROM account WHERE id > {HOT}))"
        )),
        // Unique values change places: under a deferred constraint, via a temporary value, via NULL, by delete and insert.
        12 | 13 => sql(format!(
            "UPDATE account x SET rank = y.rank FROM account y WHERE (x.id, y.id) IN (({a}, {b}), ({b}, {a})) AND x.id <> y.id"
        )),
        14 => {
            sql(format!("UPDATE seat SET code = 'moving {any}' WHERE id = {a}"));
            sql(format!("UPDATE seat SET code = 'seat {a}' WHERE id = {b} AND NOT EXISTS (SELECT FROM seat WHERE code = 'seat {a}')"));
            sql(format!("UPDATE seat SET code = 'seat {b}' WHERE id = {a} AND NOT EXISTS (SELECT FROM seat WHERE code = 'seat {b}')"));
        }
        15 => {
            sql(format!("UPDATE seat SET code = NULL WHERE id = {a} OR code IN ('seat {a}', 'seat {b}')"));
            sql(format!("UPDATE seat SET code = 'seat {a}' WHERE id = {b}"));
            sql(format!("UPDATE seat SET code = 'seat {b}' WHERE id = {a} AND id <> {b}"));
        }
        16 => {
            sql(format!("DELETE FROM seat WHERE id = {a} OR code = 'seat {a}'"));
            sql(format!("INSERT INTO seat VALUES ({a}, 'seat {a}', {large})"));
        }
        17 => {
            sql(format!(
                "INSERT INTO item VALUES ({}, 'code {a}', 1, {large}::bytea) ON CONFLICT DO NOTHING", a % 7
            ));
            sql(format!("UPDATE item SET quantity = quantity + 1 WHERE tenant = {} AND code = 'code {a}'", a % 7));
        }
        18 => sql(format!(
            "UPDATE item SET tenant = {0} WHERE tenant = {1} AND code = 'code {a}' AND NOT EXISTS (SELECT FROM item WHERE tenant = {0} AND code = 'code {a}')",
            b % 7, a % 7
        )),
        19 => sql(format!("DELETE FROM item WHERE tenant = {} AND code = 'code {a}'", a % 7)),
        20 => sql(format!(
            "INSERT INTO token VALUES (md5('{a}')::uuid, 0, {large}) ON CONFLICT (id) DO UPDATE SET seen = token.seen + 1"
        )),
        21 => sql(format!("DELETE FROM token WHERE id = md5('{a}')::uuid")),
        22 => sql(format!("UPDATE word SET word = 'word {b}', uses = uses + 1 WHERE word = 'word {a}' AND NOT EXISTS (SELECT FROM word WHERE word = 'word {b}')")),
        23 => sql(format!("INSERT INTO word VALUES ('word {a}', 1, 0.1) ON CONFLICT (word) DO UPDATE SET uses = word.uses + 1, weight = word.weight / 3")),
        // Equal rows, and exactly one of them changes.
        24 => sql(format!("INSERT INTO event SELECT 'kind {}', {}, NULL FROM generate_series(1, {})", a % 20, b % 10, 1 + any % 3)),
        25 => sql(format!("UPDATE event SET at = at + 1 WHERE ctid = (SELECT ctid FROM event WHERE kind = 'kind {}' LIMIT 1)", a % 20)),
        26 => sql(format!("DELETE FROM event WHERE ctid = (SELECT ctid FROM event WHERE kind = 'kind {}' LIMIT 1)", a % 20)),
        27 => sql(format!("UPDATE badge SET holder = 'holder {any}', serial = CASE WHEN {b} % 4 = 0 THEN 'serial {any}' ELSE serial END WHERE id = {a}")),
        // Within a partition, and across.
        28 => sql(format!("UPDATE reading SET value = value + 1 WHERE id = {a}")),
        29 => sql(format!(
            "UPDATE reading SET region = '{}' WHERE id = {a}", ["north", "south", "east", "west"][b as usize % 4]
        )),
        30 => sql(format!(
            "INSERT INTO reading VALUES ({a}, '{}', {b}, {large}) ON CONFLICT DO NOTHING", ["north", "south", "east"][b as usize % 3]
        )),
        31 => {
            sql("INSERT INTO invoice DEFAULT VALUES".into());
            sql(format!(
                "INSERT INTO line (invoice, price, amount) SELECT currval(pg_get_serial_sequence('invoice', 'id')), n / 7.0, n FROM generate_series(1, {}) n",
                1 + any % 5
            ));
        }
        32 => match any % 3 {
            0 => sql(format!("DELETE FROM invoice WHERE id = {a}")),
            1 => sql(format!("UPDATE line SET amount = amount + 1 WHERE invoice = {a}")),
            _ => sql(format!("UPDATE invoice SET printed = true, total = total + 1 WHERE id BETWEEN {a} AND {a} + 5")),
        },
        _ => match any % 3 {
            0 => sql(format!("DELETE FROM sample WHERE id = {a}")),
            1 => {
                sql(format!("DELETE FROM sample WHERE id = {a}"));
                sql(format!("INSERT INTO sample {}", sample(&a.to_string(), &any.to_string())));
            }
            _ => sql(format!("INSERT INTO scratch VALUES ({a}, {b}) ON CONFLICT (id) DO UPDATE SET value = scratch.value + 1")),
        },
    }
}

/// One row of every common type for each of the first `rows` numbers.
pub(super) fn samples(rows: u32) -> String {
    format!("INSERT INTO sample {} FROM generate_series(1, {rows}) n", sample("n", "(n * 7919)"))
}

/// The values, from an id and a number; extremes where the number happens to say so.
fn sample(id: &str, number: &str) -> String {
    format!(
        "SELECT {id}, ({number} % 32767)::smallint, {number} % 2147483647, {number}::bigint * 1000000007,
            CASE {number} % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN {number} / 3.0 WHEN 2 THEN 1e40 ELSE NULL END::numeric,
            CASE {number} % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' WHEN 2 THEN 'Infinity' ELSE '0.1' END::real,
            CASE {number} % 3 WHEN 0 THEN 5e-324 WHEN 1 THEN {number} / 3.0 ELSE 1e308 END::float8,
            {number} % 2 = 0, 'c' || {number} % 100, 'varchar ' || {number},
            CASE {number} % 4 WHEN 0 THEN '' WHEN 1 THEN E'tab\\tline\\nback\\\\slash' WHEN 2 THEN 'é😀 ' ELSE NULL END,
            CASE {number} % 3 WHEN 0 THEN '\\x' WHEN 1 THEN '\\x00ff5c00' ELSE NULL END::bytea,
            CASE {number} % 3 WHEN 0 THEN 'infinity' WHEN 1 THEN '0044-03-15 BC' ELSE '2026-01-01' END::date,
            '24:00:00'::time, '12:34:56.789+05:30'::timetz, '2026-02-03 04:05:06.789012'::timestamp,
            CASE {number} % 2 WHEN 0 THEN '-infinity' ELSE '2026-03-29 01:30:00+00' END::timestamptz,
            '1 year -2 mons 3 days -04:05:06.5'::interval, md5(({number})::text)::uuid,
            '{{\"b\": 1, \"a\": [1, 2.50], \"b\": 2}}'::json, '{{\"b\": 1, \"a\": [1e2, null]}}'::jsonb,
            '10.0.0.1/8'::inet, '2001:db8::/32'::cidr, '08:00:2b:01:02:03'::macaddr, B'10101', B'1',
            ARRAY[1, NULL, {number} % 9], ARRAY['a,b', '', NULL, 'NULL', '\"q\"'], int4range(1, 5), tstzrange('2026-01-01', NULL),
            point(0.1, -2), (ARRAY['sad', 'ok', 'glad'])[1 + {number} % 3]::mood, ROW('a \"b\"', {number} % 5)::place,
            5::cents, to_tsvector('simple', 'the quick fox'), '12.34'::money, 4294967295::oid, '1/2'::pg_lsn"
    )
}
