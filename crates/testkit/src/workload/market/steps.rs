//! The steps of a transaction: each is one difficulty.

use fastrand::Rng;

/// Keys that are fought for. The tables are larger; these rows are the hot ones.
const HOT: u32 = 400;

/// Of unsigned numbers the upper half.
const HALF: u64 = 1 << 63;

/// The statements that fill the tables.
pub(super) fn fill(rows: u32) -> Vec<String> {
    let large = "REPEAT(MD5(seq), 100 + seq % 50)";
    let series = format!("FROM seq_1_to_{rows}");
    let mut statements: Vec<String> = [
        format!("account SELECT seq, CONCAT('name ', seq), seq, IF(seq % 3, NULL, {large}), NOW(6)"),
        format!("seat SELECT seq, CONCAT('seat ', seq), IF(seq % 5, NULL, {large})"),
        "item SELECT seq % 7, CONCAT('Code ', seq), seq".to_owned(),
        format!("token SELECT LEFT(UNHEX(MD5(seq)), seq % 4 + 3), 0, IF(seq % 4, NULL, {large})"),
        format!("large SELECT {HALF} + seq, seq / 7"),
        "word SELECT CONCAT('word ', seq, REPEAT(' ', seq % 3)), seq, seq / 7.0e0".to_owned(),
        format!("event SELECT CONCAT('kind ', seq % 20), seq % 10, seq / 3, IF(seq % 9, NULL, {large})"),
        "moment SELECT '2026-01-01' + INTERVAL seq * 1001000 MICROSECOND, seq % 5, 'x'".to_owned(),
    ]
    .iter()
    .map(|insert| format!("INSERT IGNORE INTO {insert} {series}"))
    .collect();
    statements.push(format!("INSERT INTO invoice (total) SELECT seq {series}"));
    statements.push(format!("INSERT INTO line (invoice, amount) SELECT 1 + seq % {rows}, seq % 9 {series}"));
    statements.push(format!("INSERT INTO scratch SELECT seq, seq {series}"));
    statements.push(format!("INSERT INTO sample {} {series}", sample("seq", "(CAST(seq AS SIGNED) * 7919)")));
    statements
}

/// Appends the statements of one random step.
pub(super) fn step(rng: &mut Rng, to: &mut Vec<String>) {
    let (a, b) = (rng.u32(1..=HOT), rng.u32(1..=HOT));
    let any = rng.u32(..);
    let large = format!("REPEAT(MD5('{any}'), {})", rng.u32(80..160));
    let mut sql = |statement: String| to.push(statement);
    match rng.u8(0..28) {
        0..=3 => sql(format!(
            "UPDATE account SET balance = balance + {}, touched = NOW(6) WHERE id = {a}",
            any % 100
        )),
        4 => sql(format!("UPDATE account SET note = {large} WHERE id = {a}")),
        5 => sql(format!(
            "INSERT INTO account (id, name, note) VALUES ({a}, 'new {any}', {large}) ON DUPLICATE KEY UPDATE name = VALUES(name)"
        )),
        6 => sql(format!("DELETE FROM account WHERE id = {a}")),
        // The key moves; sometimes far away.
        7 => {
            let far = if any.is_multiple_of(3) { 1_000_000 } else { 0 };
            sql(format!("UPDATE IGNORE account SET id = {far} + {b} WHERE id = {a}"));
        }
        8 => sql(format!("REPLACE INTO account VALUES ({a}, 'replaced {any}', {b}, NULL, NULL)")),
        // Unique values change places: via a temporary value, via NULL, by delete and insert.
        9 => {
            sql(format!("UPDATE seat SET code = 'moving {any}' WHERE id = {a}"));
            sql(format!("UPDATE IGNORE seat SET code = 'seat {a}' WHERE id = {b}"));
            sql(format!("UPDATE IGNORE seat SET code = 'seat {b}' WHERE id = {a}"));
        }
        10 => {
            sql(format!("UPDATE seat SET code = NULL WHERE id = {a} OR code IN ('seat {a}', 'seat {b}')"));
            sql(format!("UPDATE seat SET code = 'seat {a}' WHERE id = {b}"));
            sql(format!("UPDATE seat SET code = 'seat {b}' WHERE id = {a} AND id <> {b}"));
        }
        11 => {
            sql(format!("DELETE FROM seat WHERE id = {a} OR code = 'seat {a}'"));
            sql(format!("INSERT INTO seat VALUES ({a}, 'seat {a}', {large})"));
        }
        // The same key in another case.
        12 => sql(format!(
            "INSERT INTO item VALUES ({}, 'Code {a}', 1) ON DUPLICATE KEY UPDATE quantity = quantity + 1, code = 'cODE {a}'",
            a % 7
        )),
        13 => sql(format!(
            "UPDATE IGNORE item SET tenant = {} WHERE tenant = {} AND code = 'code {a}'",
            b % 7,
            a % 7
        )),
        14 => sql(format!("DELETE FROM item WHERE tenant = {} AND code = 'CODE {a} '", a % 7)),
        15 => sql(format!(
            "INSERT INTO token VALUES (LEFT(UNHEX(MD5('{a}')), {}), 0, {large}) ON DUPLICATE KEY UPDATE seen = seen + 1",
            a % 4 + 3
        )),
        16 => sql(format!("UPDATE large SET amount = amount + 0.0001 WHERE id = {}", HALF + u64::from(a))),
        17 => sql(format!(
            "UPDATE IGNORE large SET id = {} WHERE id = {}",
            HALF + u64::from(b) * 1000,
            HALF + u64::from(a)
        )),
        18 => {
            sql(format!("UPDATE IGNORE word SET word = 'word {b} ', uses = uses + 1 WHERE word = 'word {a}'"))
        }
        19 => sql(format!(
            "INSERT INTO word VALUES ('word {a}', 1, 0.1) ON DUPLICATE KEY UPDATE weight = weight / 3"
        )),
        // Equal rows, and exactly one of them changes.
        20 => sql(format!(
            "INSERT INTO event SELECT 'kind {}', {}, 0.1, NULL FROM seq_1_to_{}",
            a % 20,
            b % 10,
            1 + any % 3
        )),
        21 => sql(format!("UPDATE event SET at = at + 1 WHERE kind = 'kind {}' LIMIT 1", a % 20)),
        22 => sql(format!("DELETE FROM event WHERE kind = 'kind {}' LIMIT 1", a % 20)),
        23 => sql(format!(
            "UPDATE IGNORE moment SET at = at + INTERVAL {} MICROSECOND, note = 'moved' WHERE n = {} LIMIT 2",
            any % 5000 * 1000,
            a % 5
        )),
        24 => {
            sql("INSERT INTO invoice () VALUES ()".into());
            sql(format!(
                "INSERT INTO line (invoice, amount) SELECT LAST_INSERT_ID(), seq FROM seq_1_to_{}",
                1 + any % 5
            ));
        }
        25 => match any % 3 {
            0 => sql(format!("DELETE FROM line WHERE invoice = {a}")),
            1 => sql(format!("UPDATE line SET amount = amount + 1 WHERE invoice = {a}")),
            _ => sql(format!("UPDATE invoice SET total = total + 1 WHERE id BETWEEN {a} AND {a} + 5")),
        },
        26 => {
            sql(format!("DELETE FROM sample WHERE id = {a}"));
            sql(format!("INSERT INTO sample {}", sample(&a.to_string(), &any.to_string())));
        }
        _ => sql(format!("INSERT INTO scratch VALUES ({a}, {b}) ON DUPLICATE KEY UPDATE value = value + 1")),
    }
}

/// One row of every common type, from an id and a number; extremes where the number happens to say so.
fn sample(id: &str, number: &str) -> String {
    format!(
        "SELECT {id}, {number} % 256 - 128, {number} % 256, -({number} % 8388608), 16777215 - {number} % 100, 18446744073709551615 - {number},
            CASE {number} % 3 WHEN 0 THEN -0.0000000001 WHEN 1 THEN 12345678901234567890.0123456789 ELSE NULL END,
            CASE {number} % 3 WHEN 0 THEN 16777217 WHEN 1 THEN -0e0 ELSE 0.1 END,
            CASE {number} % 3 WHEN 0 THEN 5e-324 WHEN 1 THEN {number} / 3.0 ELSE 1.7976931348623157e308 END,
            {number} % 512, {number} % 2, CASE {number} % 2 WHEN 0 THEN 0 ELSE 2026 END,
            CONCAT('c', {number} % 100), 'd\u{e9}j\u{e0} \u{20ac}', '\u{43f}\u{440}\u{438}', 'a\u{1F600}b',
            UNHEX('ff0000'), UNHEX('00ff5c0000'), CASE {number} % 3 WHEN 0 THEN '' WHEN 1 THEN UNHEX('00ff') ELSE NULL END,
            CASE {number} % 2 WHEN 0 THEN '9999-12-31' ELSE '1000-01-01' END, '12:34:56.78', '2026-02-03 04:05:06.789012',
            CASE {number} % 2 WHEN 0 THEN '2026-03-29 01:30:00' ELSE NULL END,
            CASE {number} % 4 WHEN 0 THEN 'sad' WHEN 1 THEN 'it''s ok' WHEN 2 THEN 'glad' ELSE NULL END,
            CASE {number} % 3 WHEN 0 THEN '' WHEN 1 THEN 'red,blue' ELSE 'green' END,
            '{{\"b\": 1, \"a\": [1, 2.50], \"b\": 2}}', CONCAT('0192a5b0-0000-7000-8000-', LPAD(HEX({number} % 65536), 12, '0')),
            CASE {number} % 2 WHEN 0 THEN '2001:db8::ff00:0' ELSE '::' END"
    )
}
