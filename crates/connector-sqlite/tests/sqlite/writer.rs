//! The writer's side of the contract.

use async_trait::async_trait;
use connector::{
    ApplyError, Block, ChunkStream, Copied, ErrorKind, Format, Net, Owner, Progress, Quarantined, Result,
    Retry, RowChange, RowCut, RowUpdate, Severity, Slicing, Step, Writer,
};
use model::{
    Catalog, Chunk, Column, Cut, Identity, Key, Kind, Position, Range, Row, Sequence, Table, TableName, Value,
};
use rusqlite::Connection;

use crate::scratch::{Scratch, everything};

struct Given(Vec<Row>, u64);

#[async_trait]
impl ChunkStream for Given {
    async fn next(&mut self) -> Result<Option<Block>> {
        self.1 += self.0.len() as u64;
        Ok(if self.0.is_empty() { None } else { Some(Block::Rows(std::mem::take(&mut self.0))) })
    }

    fn rows(&self) -> u64 {
        self.1
    }
}

fn int(integer: i64) -> Value {
    Value::Integer(integer)
}

fn key(integer: i64) -> Key {
    Key(vec![int(integer)])
}

fn progress(seq: u64) -> Progress {
    Progress { seq, position: Position { order: seq * 10, text: format!("{}", seq * 10) } }
}

/// A target with tables of the source's DDL, claimed.
async fn target(scratch: &Scratch, ddl: &str) -> (std::sync::Arc<dyn Writer>, Owner, Catalog) {
    scratch.open("source.db").execute_batch(ddl).unwrap();
    let reader = scratch.reader("source.db");
    let catalog = everything(&*reader).await;
    let native = reader.native_schema(&catalog).await.unwrap();
    let writer = scratch.writer("target.db");
    let claim = writer.claim("test").await.unwrap();
    let owner = Owner { stream: "test".to_owned(), epoch: claim.epoch, settled: false };
    writer.create(&owner, &catalog, Some(&native)).await.unwrap();
    writer.create_keys(&owner, &catalog, Some(&native), Copied::whole(), 1).await.unwrap();
    (writer, owner, catalog)
}

fn rows(connection: &Connection, select: &str) -> Vec<String> {
    let mut statement = connection.prepare(select).unwrap();
    let width = statement.column_count();
    let cells = |row: &rusqlite::Row<'_>| {
        Ok((0..width)
            .map(|at| format!("{:?}", row.get::<_, rusqlite::types::Value>(at).unwrap()))
            .collect::<Vec<_>>()
            .join(" "))
    };
    statement.query_map([], cells).unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

#[tokio::test]
async fn a_database_goes_over_whole() {
    let scratch = Scratch::new();
    let (writer, owner, catalog) = target(
        &scratch,
        "CREATE TABLE p (id INTEGER PRIMARY KEY AUTOINCREMENT, n TEXT COLLATE NOCASE, g AS (upper(n))) -- the parents
         ;
         CREATE TABLE c (p INT REFERENCES p, q INT, v, PRIMARY KEY (p, q)) WITHOUT ROWID;
         CREATE TABLE k (a INT NOT NULL, v); CREATE UNIQUE INDEX k_a ON k (a);
         CREATE INDEX p_n ON p (n); CREATE VIEW pc AS SELECT * FROM p JOIN c ON c.p = p.id;
         CREATE TRIGGER tr AFTER INSERT ON p BEGIN INSERT INTO k VALUES (NEW.id, 't'); END;
         INSERT INTO p (n) VALUES ('x'), ('y'); INSERT INTO c VALUES (1, 1, 0.5), (1, 2, x'00'); DELETE FROM p WHERE id = 2;",
    )
    .await;
    let reader = scratch.reader("source.db");
    reader.prepare("test", &catalog).await.unwrap();
    let tables: Vec<&Table> = catalog.tables.iter().collect();
    let wave = reader.wave(&tables, 2).await.unwrap();
    for table in tables {
        let range = wave.plan(table, &Slicing::OneCut, 1 << 20).await.unwrap().remove(0);
        let chunk = Chunk { table: table.name.clone(), number: 0, range, last: true };
        let mut data = wave.read(table, &chunk.range, Format::Rows).await.unwrap();
        let loaded = writer
            .load(&owner, table, &chunk, wave.cut(), wave.settled(), Format::Rows, &mut *data)
            .await
            .unwrap();
        assert!(writer.ledger(&owner).await.unwrap().contains(&loaded));
        let mut again = wave.read(table, &chunk.range, Format::Rows).await.unwrap();
        let error = writer
            .load(&owner, table, &chunk, wave.cut(), wave.settled(), Format::Rows, &mut *again)
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
    }
    let native = reader.native_schema(&catalog).await.unwrap();
    let begun = owner.clone();
    let owner = Owner { settled: true, ..owner };
    let too_soon = writer.finish(&owner, &catalog, Some(&native), 1).await.unwrap_err();
    assert_eq!(too_soon.kind, ErrorKind::WentBack);
    let (source, target) = (scratch.open("source.db"), scratch.open("target.db"));
    assert_eq!(rows(&target, "SELECT name FROM sqlite_schema WHERE name = 'p_n'"), [""; 0]);
    writer.applier(&begun, &catalog).await.unwrap().settle().await.unwrap();
    for _ in 0..2 {
        let left_out = writer.finish(&owner, &catalog, Some(&native), 1).await.unwrap();
        assert_eq!(left_out.iter().map(|(item, _)| item.as_str()).collect::<Vec<_>>(), ["TRIGGER tr"]);
    }
    let sequences = reader.sequences(&catalog).await.unwrap();
    assert_eq!(sequences, [Sequence { name: TableName::new("main", "p"), last_value: 2, is_called: true }]);
    writer.advance_sequences(&owner, &sequences).await.unwrap();
    for select in [
        "SELECT * FROM pc ORDER BY 1",
        "SELECT * FROM k",
        "SELECT * FROM c",
        "SELECT * FROM sqlite_sequence WHERE name = 'p'",
    ] {
        assert_eq!(rows(&source, select), rows(&target, select), "{select}");
    }
    assert!(writer.claim("test").await.unwrap().finished);
    assert!(writer.check(&catalog, "test").await.unwrap().is_empty());
    assert!(
        writer
            .check(&catalog, "another")
            .await
            .unwrap()
            .iter()
            .any(|finding| finding.id == "SQ-TARGET-NOT-EMPTY")
    );
    writer.create(&Owner { epoch: 2, ..owner.clone() }, &catalog, Some(&native)).await.unwrap();
    let other = writer.claim("another").await.unwrap();
    let other = Owner { stream: "another".to_owned(), epoch: other.epoch, settled: false };
    assert_eq!(writer.create(&other, &catalog, Some(&native)).await.unwrap_err().kind, ErrorKind::Schema);
}

const UNIQUE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, u INT UNIQUE, v TEXT)";

fn row(id: i64, u: i64, v: &str) -> Row {
    vec![int(id), int(u), Value::text(v)]
}

fn insert(row: Row) -> RowChange {
    RowChange::Insert { table: 0, row }
}

#[tokio::test]
async fn unique_values_wander_within_one_step() {
    let scratch = Scratch::new();
    let (writer, owner, catalog) = target(&scratch, UNIQUE).await;
    let mut applier = writer.applier(&owner, &catalog).await.unwrap();
    assert_eq!(applier.record().progress, None);
    applier
        .write(&[Step::Ordered((1..=5).map(|id| insert(row(id, id * 10, "old"))).collect())])
        .await
        .unwrap();
    let update =
        |id: i64, to: i64, u: i64| RowUpdate { key: key(id), row: vec![int(to), int(u), Value::Unchanged] };
    let net = Net {
        table: 0,
        deletes: vec![key(4), key(5)],
        updates: vec![update(1, 1, 20), update(2, 3, 30), update(3, 2, 10)],
        inserts: vec![row(5, 40, "new")],
    };
    applier.write(&[Step::Net(net)]).await.unwrap();
    applier.commit(0, &progress(1)).await.unwrap();
    assert_eq!(applier.record().progress, Some(progress(1)));
    let target = scratch.open("target.db");
    assert_eq!(
        rows(&target, "SELECT * FROM t ORDER BY id"),
        [
            "Integer(1) Integer(20) Text(\"old\")",
            "Integer(2) Integer(10) Text(\"old\")",
            "Integer(3) Integer(30) Text(\"old\")",
            "Integer(5) Integer(40) Text(\"new\")",
        ]
    );
    let except = vec![key(2)];
    let range = Step::DeleteRange { table: 0, after: Some(key(1)), upto: Some(key(3)), except };
    applier.write(&[range]).await.unwrap();
    applier.commit(1, &progress(2)).await.unwrap();
    assert_eq!(rows(&target, "SELECT id FROM t ORDER BY id"), ["Integer(1)", "Integer(2)", "Integer(5)"]);
    applier.write(&[Step::Truncate { tables: vec![0], restart_identity: true }]).await.unwrap();
    applier.rollback().await.unwrap();
    assert_eq!(rows(&target, "SELECT count(*) FROM t"), ["Integer(3)"]);
}

#[tokio::test]
async fn a_change_that_does_not_hit_exactly_one_row_is_refused() {
    let scratch = Scratch::new();
    let (writer, owner, catalog) = target(&scratch, UNIQUE).await;
    let mut applier = writer.applier(&owner, &catalog).await.unwrap();
    applier.write(&[Step::Ordered(vec![insert(row(1, 10, "a")), insert(row(2, 20, "b"))])]).await.unwrap();
    applier.commit(0, &progress(1)).await.unwrap();
    let update = |id, row| RowChange::Update { table: 0, key: key(id), row };
    for (change, kind) in [
        (insert(row(1, 30, "c")), ErrorKind::Refused),
        (insert(row(3, 10, "c")), ErrorKind::Refused),
        (update(9, row(9, 9, "c")), ErrorKind::Conflict),
        (update(9, vec![Value::Unchanged; 3]), ErrorKind::Conflict),
        (update(1, row(1, 20, "c")), ErrorKind::Refused),
        (RowChange::Delete { table: 0, key: key(9) }, ErrorKind::Conflict),
    ] {
        let steps = [Step::Ordered(vec![insert(row(7, 70, "d")), change.clone()])];
        let Err(ApplyError::Refused(refusal)) = applier.write(&steps).await else { panic!("{change:?}") };
        assert_eq!((refusal.change, refusal.error.kind), (Some(1), kind), "{change:?}");
        applier.rollback().await.unwrap();
    }
    let quarantined = Quarantined {
        table: catalog.tables[0].name.clone(),
        seq: 2,
        position: progress(2).position,
        operation: "insert",
        key: "(1)".to_owned(),
        payload_hash: 7,
        statement: "INSERT".to_owned(),
        error: "refused".to_owned(),
    };
    applier.hold(&quarantined, 2).await.unwrap();
    applier.hold(&quarantined, 5).await.unwrap();
    let cut = |id| RowCut {
        table: catalog.tables[0].name.clone(),
        key: key(id),
        cut: Cut::Prefix { order: 77 },
        settled: progress(7).position,
    };
    applier.write_fetched(0, Some(&row(2, 21, "fetched")), &cut(2)).await.unwrap();
    applier.write_fetched(0, None, &cut(8)).await.unwrap();
    let claim = writer.claim("test").await.unwrap();
    assert_eq!((claim.epoch, claim.progress), (2, Some(progress(1))));
    assert_eq!(claim.holds.iter().map(|hold| hold.from_seq).collect::<Vec<_>>(), [2]);
    assert_eq!(claim.row_cuts, [cut(2), cut(8)]);
    let target = scratch.open("target.db");
    assert_eq!(rows(&target, "SELECT v FROM t"), ["Text(\"a\")", "Text(\"fetched\")"]);
}

#[tokio::test]
async fn an_old_owner_changes_nothing() {
    let scratch = Scratch::new();
    let (writer, owner, catalog) = target(&scratch, UNIQUE).await;
    let mut applier = writer.applier(&owner, &catalog).await.unwrap();
    let mut idle = writer.applier(&owner, &catalog).await.unwrap();
    let second = scratch.writer("target.db");
    let newer =
        Owner { stream: "test".to_owned(), epoch: second.claim("test").await.unwrap().epoch, settled: false };

    let Err(ApplyError::Failed(error)) =
        applier.write(&[Step::Ordered(vec![insert(row(1, 1, "old"))])]).await
    else {
        panic!("an old owner wrote")
    };
    assert_eq!(error.kind, ErrorKind::Fenced);
    let table = &catalog.tables[0];
    let chunk = Chunk { table: table.name.clone(), number: 0, range: Range::Whole, last: true };
    let (cut, settled) = (Cut::Prefix { order: 1 }, progress(1).position);
    let load = |writer: std::sync::Arc<dyn Writer>, owner: Owner, rows: Vec<Row>| {
        let (chunk, cut, settled, table) = (chunk.clone(), cut.clone(), settled.clone(), table.clone());
        async move { writer.load(&owner, &table, &chunk, &cut, &settled, Format::Rows, &mut Given(rows, 0)).await }
    };
    let fenced = load(writer.clone(), owner.clone(), vec![row(1, 1, "old")]).await.unwrap_err();
    assert_eq!(fenced.kind, ErrorKind::Fenced);
    assert_eq!(writer.reset(&owner, table).await.unwrap_err().kind, ErrorKind::Fenced);
    assert_eq!(idle.commit(0, &progress(1)).await.unwrap_err().kind, ErrorKind::Fenced);
    let target = scratch.open("target.db");
    assert_eq!(rows(&target, "SELECT count(*) FROM t"), ["Integer(0)"]);

    load(second.clone(), newer.clone(), vec![row(1, 1, "new")]).await.unwrap();
    second.reset(&newer, table).await.unwrap();
    assert!(second.ledger(&newer).await.unwrap().is_empty());
    let (mut one, mut two) =
        (second.applier(&newer, &catalog).await.unwrap(), second.applier(&newer, &catalog).await.unwrap());
    one.commit(0, &progress(1)).await.unwrap();
    two.write(&[Step::Ordered(vec![insert(row(1, 1, "twice"))])]).await.unwrap();
    let error = two.commit(0, &progress(1)).await.unwrap_err();
    assert_eq!((error.kind, error.retry), (ErrorKind::Conflict, Retry::Later));
    assert_eq!(rows(&target, "SELECT count(*) FROM t"), ["Integer(0)"]);
    assert_eq!(second.applier(&newer, &catalog).await.unwrap().record().progress, Some(progress(1)));
}

#[tokio::test]
async fn one_of_several_equal_rows_is_meant() {
    let scratch = Scratch::new();
    let (writer, owner, catalog) = target(&scratch, "CREATE TABLE bag (a TEXT COLLATE NOCASE, v)").await;
    let mut applier = writer.applier(&owner, &catalog).await.unwrap();
    let bag = |a: &str, v: Value| vec![Value::text(a), v];
    let row = |a: &str, v: Value| insert(bag(a, v));
    let changes = vec![
        row("x", int(1)),
        row("x", int(1)),
        row("X", int(1)),
        row("x", Value::Real(1.0)),
        row("y", Value::Null),
        RowChange::DeleteWhole { table: 0, old: bag("x", int(1)) },
        RowChange::UpdateWhole { table: 0, old: bag("x", Value::Real(1.0)), row: bag("z", int(2)) },
        RowChange::UpdateWhole { table: 0, old: bag("y", Value::Null), row: bag("y", int(3)) },
    ];
    applier.write(&[Step::Ordered(changes)]).await.unwrap();
    applier.commit(0, &progress(1)).await.unwrap();
    assert_eq!(
        rows(&scratch.open("target.db"), "SELECT a, v FROM bag ORDER BY a COLLATE BINARY"),
        [
            "Text(\"X\") Integer(1)",
            "Text(\"x\") Integer(1)",
            "Text(\"y\") Integer(3)",
            "Text(\"z\") Integer(2)",
        ]
    );
    let gone = [Step::Ordered(vec![RowChange::DeleteWhole { table: 0, old: bag("y", Value::Null) }])];
    assert!(matches!(applier.write(&gone).await, Err(ApplyError::Refused(_))));
}

/// As PostgreSQL's catalog has it.
fn typed() -> Table {
    let column = |name: &str, kind: Kind, nullable: bool| Column {
        name: name.to_owned(),
        type_name: format!("{kind:?}"),
        type_id: 1,
        type_modifier: -1,
        number: 0,
        kind,
        nullable,
        generated: false,
    };
    Table {
        source_id: 0,
        name: TableName::new("public", "t"),
        columns: vec![
            column("id", Kind::Uuid, false),
            column("n", Kind::Numeric, true),
            column("b", Kind::Boolean, true),
            column("raw", Kind::Blob, true),
            column("i", Kind::Integer, true),
        ],
        identity: Identity::Key { columns: vec![0], order: None },
        unique: vec![model::Unique { name: "t_i".to_owned(), columns: vec![4] }],
        root: None,
        rows_estimate: None,
        bytes: 0,
    }
}

#[tokio::test]
async fn postgres_as_the_source_is_refused_before_anything_is_written() {
    let scratch = Scratch::new();
    let writer = scratch.writer("target.db");
    let findings = writer.check(&Catalog { tables: vec![typed()] }, "test").await.unwrap();
    let found: Vec<(&str, Severity)> = findings.iter().map(|found| (found.id, found.severity)).collect();
    assert_eq!(found, [("SQ-TARGET-ENGINE", Severity::Blocker)]);
    assert!(writer.formats(&typed()).is_empty());
    assert!(!scratch.path("target.db").exists());
}

#[tokio::test]
async fn another_engines_text_is_converted() {
    let scratch = Scratch::new();
    let table = typed();
    let catalog = Catalog { tables: vec![table.clone()] };
    let writer = scratch.writer("target.db");
    let owner =
        Owner { stream: "test".to_owned(), epoch: writer.claim("test").await.unwrap().epoch, settled: false };
    writer.create(&owner, &catalog, None).await.unwrap();
    assert_eq!(writer.have_unique(&[&table]).await.unwrap(), [false]);
    let row = |cells: [&str; 5]| -> Row { cells.map(Value::text).to_vec() };
    let chunk = Chunk { table: table.name.clone(), number: 0, range: Range::Whole, last: true };
    let (cut, settled) = (Cut::Prefix { order: 1 }, progress(1).position);
    let mut data = Given(vec![row(["00-1", "1.10", "t", "\\x00ff", "-5"])], 0);
    let loaded = writer.load(&owner, &table, &chunk, &cut, &settled, Format::Rows, &mut data).await.unwrap();
    assert_eq!(loaded.rows, 1);
    writer.create_keys(&owner, &catalog, None, Copied::whole(), 1).await.unwrap();
    assert!(writer.finish(&owner, &catalog, None, 1).await.unwrap().is_empty());
    assert_eq!(writer.have_unique(&[&table]).await.unwrap(), [true]);
    let mut applier = writer.applier(&owner, &catalog).await.unwrap();
    let key = Key(vec![Value::text("00-1")]);
    let change = RowChange::Update { table: 0, key, row: row(["00-1", "2.00", "f", "\\x", "6"]) };
    applier.write(&[Step::Ordered(vec![change])]).await.unwrap();
    applier.commit(0, &progress(1)).await.unwrap();
    assert_eq!(
        rows(&scratch.open("target.db"), "SELECT * FROM t"),
        ["Text(\"00-1\") Text(\"2.00\") Integer(0) Blob([]) Integer(6)"]
    );
    let unfit = [Step::Ordered(vec![insert(row(["00-2", "1", "perhaps", "\\x", "6"]))])];
    let Err(ApplyError::Refused(refusal)) = applier.write(&unfit).await else {
        panic!("perhaps is no boolean")
    };
    assert!(refusal.error.to_string().contains("perhaps"), "{}", refusal.error);
}
