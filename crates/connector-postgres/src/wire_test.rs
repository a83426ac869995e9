//! The client against a private server.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use connector::{Capture, ErrorKind, Event, Retry};
use model::{Change, Value};

use crate::error::{db_error, sqlstate};
use crate::lsn;
use crate::stream::{Stream, check_kept, create_slot};
use crate::url::Settings;
use crate::wire::{Client, EXACT_TEXT};

const NONE: &[Option<&str>] = &[];

/// A server of our own, gone with the value.
pub(crate) struct Server {
    folder: PathBuf,
    port: u16,
}

impl Server {
    pub(crate) fn start(name: &str) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("crossfade-{name}-{}", std::process::id()));
        let server = Server { folder, port };
        // The server refuses to run as root, so the folder is the user's who does.
        std::fs::create_dir_all(&server.folder).unwrap();
        server.sh("chown", &["postgres", "."]);
        server
            .postgres("initdb", &["-D", "data", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"]);
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c wal_level=logical \
             -c fsync=off -c wal_sender_timeout=4s -c max_prepared_transactions=5 -c password_encryption=md5",
            server.folder.display()
        );
        server.postgres("pg_ctl", &["-D", "data", "-w", "-l", "log", "-o", &options, "start"]);
        server
    }

    fn sh(&self, program: &str, arguments: &[&str]) {
        let status = Command::new(program).args(arguments).current_dir(&self.folder).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    }

    fn postgres(&self, program: &str, arguments: &[&str]) {
        let path = Path::new("/usr/lib/postgresql/15/bin").join(program);
        let status = Command::new("runuser")
            .args(["-u", "postgres", "--"])
            .arg(path)
            .args(arguments)
            .current_dir(&self.folder)
            // Whoever inherits our output keeps the test runner waiting for its end.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::parse(&self.url()).unwrap()
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(&self.settings(), &[("options", EXACT_TEXT)]).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.postgres("pg_ctl", &["-D", "data", "-m", "immediate", "stop"]);
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

async fn value(client: &mut Client, sql: &str) -> String {
    client.simple(sql).await.unwrap()[0][0].clone().unwrap_or_default()
}

#[tokio::test]
async fn statements() {
    let server = Server::start("statements");
    let client = &mut server.connect().await;
    assert!(client.version() >= 150_000 && client.pid > 0);
    assert_eq!(client.parameter("in_hot_standby"), Some("off"));

    let rows = client.simple("SELECT 1; SELECT 'a', NULL UNION ALL SELECT 'b', ''").await.unwrap();
    assert_eq!(rows, [[Some("a".to_owned()), None], [Some("b".to_owned()), Some(String::new())]]);
    assert_eq!(client.execute("CREATE TABLE t (id int PRIMARY KEY, v text)").await.unwrap(), 0);
    assert_eq!(client.execute("INSERT INTO t SELECT g, g FROM generate_series(1, 7) g").await.unwrap(), 7);

    let sql = "SELECT v, $2::text FROM t WHERE id = $1::int";
    let rows = client.query(sql, &[Some(b"3"), None]).await.unwrap();
    assert_eq!(rows, [[Some(Bytes::from_static(b"3")), None]]);

    let error = client.doing("test").simple("SELECT * FROM nowhere").await.unwrap_err();
    assert_eq!((error.kind, sqlstate(&error)), (ErrorKind::Schema, Some("42P01")));
    assert!(error.to_string().contains("SELECT * FROM nowhere"), "{error}");
    let error = client.simple("SELECT '\0'").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(!client.is_usable());

    // A socket, and an exchange that was abandoned.
    let folder = server.folder.display().to_string().replace('/', "%2F");
    let socket = Settings::parse(&format!("postgres://postgres@{folder}:{}/postgres", server.port)).unwrap();
    let client = &mut Client::connect(&socket, &[]).await.unwrap();
    assert_eq!(value(client, "SELECT inet_client_addr() IS NULL").await, "t");
    let slow = tokio::time::timeout(Duration::from_millis(50), client.execute("SELECT pg_sleep(10)")).await;
    assert!(slow.is_err());
    let error = client.execute("SELECT 1").await.unwrap_err();
    assert_eq!((error.kind, error.retry), (ErrorKind::Connect, Retry::Later));

    // The server's last words are what counts.
    let client = &mut server.connect().await;
    let other = &mut server.connect().await;
    other.execute(&format!("SELECT pg_terminate_backend({})", client.pid)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = client.execute("SELECT 1").await.unwrap_err();
    assert_eq!((error.kind, sqlstate(&error)), (ErrorKind::Connect, Some("57P01")), "{error:?}");
}

#[tokio::test]
async fn pipelines() {
    let server = Server::start("pipelines");
    let client = &mut server.connect().await;
    client.execute("CREATE TABLE t (id int PRIMARY KEY, v text)").await.unwrap();

    let insert = "INSERT INTO t VALUES ($1, $2)";
    for id in 0..10 {
        client.queue(insert, &[Some(id.to_string()), None]).unwrap();
    }
    client.queue("UPDATE t SET v = $1 WHERE id < 4", &[Some("x")]).unwrap();
    let affected = client.flush_queued().await.unwrap();
    assert_eq!(affected, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4]);
    assert_eq!(client.flush_queued().await.unwrap(), [0u64; 0]);

    // An error in the middle: the third of five, whose successors were not even prepared.
    client.queue("BEGIN", NONE).unwrap();
    client.queue(insert, &[Some("20"), Some("a")]).unwrap();
    client.queue(insert, &[Some("1"), Some("twice")]).unwrap();
    client.queue("DELETE FROM t", NONE).unwrap();
    client.queue("COMMIT", NONE).unwrap();
    let failed = client.flush_queued().await.unwrap_err();
    assert_eq!(failed.index, Some(2));
    assert_eq!((failed.error.kind, sqlstate(&failed.error)), (ErrorKind::Refused, Some("23505")));
    assert_eq!(db_error(&failed.error).unwrap().constraint.as_deref(), Some("t_pkey"));
    assert!(client.in_transaction());
    client.execute("ROLLBACK").await.unwrap();
    assert!(!client.in_transaction());
    client.queue("DELETE FROM t", NONE).unwrap();
    client.queue(insert, &[Some("1"), Some("again")]).unwrap();
    assert_eq!(client.flush_queued().await.unwrap(), [10, 1]);

    // What is sent before the rest is queued: less than is worth it waits, an early error is told at the end, and what
    // follows it is not done.
    client.send_queued().await.unwrap();
    let long = "x".repeat(100_000);
    client.queue("BEGIN", NONE).unwrap();
    client.queue(insert, &[Some("30"), Some(&*long)]).unwrap();
    client.send_queued().await.unwrap();
    client.queue(insert, &[Some("30"), Some(&*long)]).unwrap();
    client.send_queued().await.unwrap();
    assert!(client.execute("SELECT 1").await.is_err(), "a statement among those that are under way");
    client.queue("UPDATE t SET v = 'after'", NONE).unwrap();
    let failed = client.flush_queued().await.unwrap_err();
    assert_eq!((failed.index, sqlstate(&failed.error)), (Some(2), Some("23505")));
    client.execute("ROLLBACK").await.unwrap();
    client.queue(insert, &[Some("30"), Some(&*long)]).unwrap();
    client.send_queued().await.unwrap();
    client.queue("DELETE FROM t WHERE id = 30", NONE).unwrap();
    assert_eq!(client.flush_queued().await.unwrap(), [1, 1]);

    // A check that comes due at the end belongs to no statement.
    client.execute("CREATE TABLE d (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)").await.unwrap();
    client.queue("INSERT INTO d VALUES (1), (1)", NONE).unwrap();
    let failed = client.flush_queued().await.unwrap_err();
    assert_eq!((failed.index, sqlstate(&failed.error)), (None, Some("23505")));

    // More statements than are kept, then the first ones again.
    for round in 0..2 {
        for number in 0..700 {
            client
                .queue(
                    &format!("INSERT INTO t VALUES ($1, 'n{number}')"),
                    &[Some((round * 1000 + number + 100).to_string())],
                )
                .unwrap();
        }
        assert_eq!(client.flush_queued().await.unwrap(), vec![1; 700]);
    }
    let prepared = value(client, "SELECT count(*) FROM pg_prepared_statements").await;
    assert!(prepared.parse::<u32>().unwrap() <= 501, "{prepared}");

    // Far more than the socket buffers hold, in both directions.
    let wide = "a".repeat(1000);
    let returning = "INSERT INTO t VALUES ($1, $2) RETURNING v, v, v";
    for id in 10_000..30_000 {
        client.queue(returning, &[Some(id.to_string()), Some(wide.clone())]).unwrap();
    }
    assert!(client.outgoing.len() > 20_000_000);
    assert_eq!(client.flush_queued().await.unwrap().len(), 20_000);

    // Parameters written in place.
    client
        .queue_with("DELETE FROM t WHERE id = ANY ($1::int[])", |binder| {
            binder.write(|out| out.extend_from_slice(b"{10000,10001,5}"));
        })
        .unwrap();
    assert_eq!(client.flush_queued().await.unwrap(), [2]);
    let too_many = vec![Some("1"); 70_000];
    client.queue("DELETE FROM t", NONE).unwrap();
    assert_eq!(client.queue("SELECT 1", &too_many).unwrap_err().kind, ErrorKind::Refused);
    assert_ne!(value(client, "SELECT count(*) FROM t").await, "0");
    assert_eq!(client.queue("SELECT 1", NONE).map_err(drop), Ok(()));
    assert_eq!(client.execute("SELECT 1").await.unwrap_err().kind, ErrorKind::Connect);
}

#[tokio::test]
async fn copies() {
    let server = Server::start("copies");
    let (from, to) = (&mut server.connect().await, &mut server.connect().await);
    let digest = "SELECT count(*) || ' ' || sum(hashtextextended(t::text, 0)) FROM ONLY";
    from.execute(
        "CREATE TABLE a (id int PRIMARY KEY, v text, n numeric); CREATE TABLE b (LIKE a INCLUDING ALL);
         INSERT INTO a SELECT g, repeat(md5(g::text), 1 + g % 9), g / 7.0 FROM generate_series(1, 100000) g;
         INSERT INTO a SELECT -1, string_agg(md5(g::text), ''), 0 FROM generate_series(1, 650000) g",
    )
    .await
    .unwrap();
    for format in ["binary", "text"] {
        to.execute("TRUNCATE b").await.unwrap();
        from.copy_out(&format!("COPY a TO STDOUT (FORMAT {format})")).await.unwrap();
        to.copy_in_start(&format!("COPY b FROM STDIN (FORMAT {format})")).await.unwrap();
        let mut longest = 0;
        let mut blocks = 0;
        while let Some(block) = from.copy_out_next().await.unwrap() {
            longest = longest.max(block.len());
            blocks += 1;
            to.copy_in_raw(&block).await.unwrap();
        }
        assert_eq!(to.copy_in_finish().await.unwrap(), 100_001);
        assert_eq!(from.copied_rows(), 100_001);
        println!("{format}: {blocks} blocks, the longest of {longest} bytes");
        assert!(longest < 3 * 1024 * 1024, "{longest}");
        let same = value(to, &format!("SELECT ({digest} a t) = ({digest} b t)")).await;
        assert_eq!(same, "t");
    }

    // A refused row is reported while more is being sent, and the connection goes on.
    to.copy_in_start("COPY b FROM STDIN").await.unwrap();
    let mut sent = 0;
    let error = loop {
        match to.copy_in_data(&b"1\ttwice\t0\n".repeat(1000)).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 10_000, "the refusal was never noticed");
    };
    assert_eq!((error.kind, sqlstate(&error)), (ErrorKind::Refused, Some("23505")));
    assert_eq!(value(to, "SELECT count(*) FROM b").await, "100001");

    to.copy_in_start("COPY b FROM STDIN").await.unwrap();
    to.copy_in_data(b"200000\tx\t0\n").await.unwrap();
    to.copy_in_fail("the source failed").await.unwrap();
    assert_eq!(value(to, "SELECT count(*) FROM b").await, "100001");

    // An error behind the first rows, and a server that goes away: neither is the end of the data.
    from.copy_out("COPY (SELECT 1 / (100000 - g) FROM generate_series(1, 100000) g) TO STDOUT")
        .await
        .unwrap();
    let error = loop {
        match from.copy_out_next().await {
            Ok(block) => assert!(block.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(sqlstate(&error), Some("22012"));
    from.copy_out("COPY a TO STDOUT").await.unwrap();
    from.copy_out_next().await.unwrap();
    to.execute(&format!("SELECT pg_terminate_backend({})", from.pid)).await.unwrap();
    let error = loop {
        match from.copy_out_next().await {
            Ok(block) => assert!(block.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::Connect);
}

async fn collect(stream: &mut Stream, until: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    while !until(&events) {
        tokio::time::timeout(Duration::from_secs(20), stream.next(&mut events)).await.unwrap().unwrap();
    }
    events
}

fn commits(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Commit { .. })).count()
}

#[tokio::test]
async fn the_log() {
    let server = Server::start("log");
    let settings = server.settings();
    let client = &mut server.connect().await;
    client
        .execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int);
             ALTER TABLE t ALTER v SET STORAGE EXTERNAL; CREATE PUBLICATION \"Some pub\" FOR TABLE t",
        )
        .await
        .unwrap();
    let missing = Stream::connect(&settings, "s", "Some pub", 1, 3).await.err().unwrap();
    assert_eq!(missing.kind, ErrorKind::LogLost);

    // A transaction that writes holds the creation of a slot up; it is named.
    let writer = &mut server.connect().await;
    writer.execute("BEGIN; INSERT INTO other VALUES (1)").await.unwrap();
    let error = create_slot(&settings, "s", Duration::from_millis(300)).await.unwrap_err();
    assert!(error.to_string().contains(&format!("session {}", writer.pid)), "{error}");
    writer.execute("ROLLBACK").await.unwrap();
    let after = create_slot(&settings, "s", Duration::from_secs(10)).await.unwrap();

    let near: u64 = value(client, "SELECT pg_snapshot_xmax(pg_current_snapshot())").await.parse().unwrap();
    let mut stream = Stream::connect(&settings, "s", "Some pub", after, near).await.unwrap();
    let busy = Stream::connect(&settings, "s", "Some pub", after, near).await.err().unwrap();
    assert_eq!(busy.retry, Retry::Later);

    let long = "x".repeat(5000);
    let id = value(
        client,
        &format!("BEGIN; INSERT INTO t VALUES (1, '{long}'), (2, 'b'); COMMIT; BEGIN; INSERT INTO t VALUES (3, 'c'); SELECT pg_current_xact_id()"),
    )
    .await;
    client.execute("COMMIT").await.unwrap();
    client.execute("INSERT INTO other SELECT generate_series(1, 1000)").await.unwrap();
    client
        .execute("UPDATE t SET id = 10 WHERE id = 1; DELETE FROM t WHERE id = 2; TRUNCATE t")
        .await
        .unwrap();
    let events = collect(&mut stream, |events| commits(events) == 3).await;
    let shape: String = events
        .iter()
        .map(|event| match event {
            Event::Begin(_) => 'B',
            Event::Relation(_) => 'R',
            Event::Change(Change::Insert { .. }) => 'i',
            Event::Change(Change::Update { .. }) => 'u',
            Event::Change(Change::Delete { .. }) => 'd',
            Event::Change(Change::Truncate { .. }) => 't',
            Event::Commit { .. } => 'C',
            Event::Idle { .. } => '-',
        })
        .collect();
    // The relation is described before its first use, and again whenever the server thinks fit.
    assert!(shape.trim_start_matches('-').starts_with("BR"), "{shape}");
    assert_eq!(shape.replace(['-', 'R'], ""), "BiiCBiCBudtC");
    let begins: Vec<_> = events
        .iter()
        .filter_map(|event| if let Event::Begin(begin) = event { Some(*begin) } else { None })
        .collect();
    assert_eq!(begins[1].id.to_string(), id);
    assert!(begins[0].committed_us > 1_700_000_000_000_000);
    let update = events.iter().find_map(|event| match event {
        Event::Change(Change::Update { old, new, .. }) => Some((old.clone(), new.clone())),
        _ => None,
    });
    let (old, new) = update.unwrap();
    assert_eq!(old.unwrap(), [Value::text("1"), Value::Unchanged]);
    assert_eq!(new, [Value::text("10"), Value::Unchanged]);

    // Boundaries and transactions interleave, in one order.
    let mut order = after;
    for event in &events {
        match event {
            Event::Begin(begin) => assert!(begin.order > order),
            Event::Commit { position } | Event::Idle { position } => {
                assert!(position.order > order);
                order = position.order;
            }
            _ => continue,
        }
        if let Event::Begin(begin) = event {
            order = begin.order - 1;
        }
    }

    // Nothing of ours is in the log any more, and still the boundary moves; waiting past wal_sender_timeout, too.
    client.execute("INSERT INTO other SELECT generate_series(1, 1000)").await.unwrap();
    let end = lsn::parse(&value(client, "SELECT pg_current_wal_insert_lsn()").await).unwrap();
    let events = collect(
        &mut stream,
        |events| matches!(events.last(), Some(Event::Idle { position }) if position.order >= end),
    )
    .await;
    let Some(Event::Idle { position }) = events.last() else { panic!() };
    stream.acknowledge(position).await.unwrap();
    let nothing = async {
        loop {
            stream.next(&mut Vec::new()).await.unwrap()
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(6), nothing).await.is_err());
    let confirmed = value(client, "SELECT confirmed_flush_lsn FROM pg_replication_slots").await;
    assert_eq!(confirmed, position.text);
    let too_far = lsn::position(u64::MAX);
    assert_eq!(stream.acknowledge(&too_far).await.unwrap_err().kind, ErrorKind::Conflict);
    drop(stream);

    // Going on where we were: what was not acknowledged comes again; what lies behind the slot is lost.
    client.execute("INSERT INTO t VALUES (100, 'after')").await.unwrap();
    let mut stream = loop {
        match Stream::connect(&settings, "s", "Some pub", position.order, near).await {
            Ok(stream) => break stream,
            Err(error) => assert_eq!(error.retry, Retry::Later, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let events = collect(&mut stream, |events| commits(events) == 1).await;
    assert!(events.iter().any(
        |event| matches!(event, Event::Change(Change::Insert { new, .. }) if new[1] == Value::text("after"))
    ));
    check_kept(client, "s", position.order).await.unwrap();
    drop(stream);
    for position in [after, u64::MAX] {
        assert_eq!(
            Stream::connect(&settings, "s", "Some pub", position, near).await.err().unwrap().kind,
            ErrorKind::LogLost
        );
    }
    // Another server would have no such slot, or stand elsewhere.
    for (slot, position) in [("s", u64::MAX), ("other", after)] {
        assert_eq!(check_kept(client, slot, position).await.unwrap_err().kind, ErrorKind::LogLost);
    }
}

#[tokio::test]
async fn a_long_transaction_comes_in_pieces() {
    let server = Server::start("long");
    let settings = server.settings();
    let client = &mut server.connect().await;
    client
        .execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t")
        .await
        .unwrap();
    let after = create_slot(&settings, "s", Duration::from_secs(10)).await.unwrap();
    client
        .execute("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 300000) g")
        .await
        .unwrap();
    let mut stream = Stream::connect(&settings, "s", "p", after, 700).await.unwrap();
    let started = std::time::Instant::now();
    let (mut changes, mut calls, mut most) = (0, 0, 0);
    let mut over = false;
    while !over {
        let mut events = Vec::new();
        stream.next(&mut events).await.unwrap();
        changes += events.iter().filter(|event| matches!(event, Event::Change(_))).count();
        over = commits(&events) == 1;
        calls += 1;
        most = most.max(events.len());
    }
    println!("{changes} changes in {calls} calls of at most {most} events, {:?}", started.elapsed());
    assert_eq!(changes, 300_000);
    assert!(most <= 4097);
}

#[tokio::test]
async fn logins() {
    let server = Server::start("logins");
    let client = &mut server.connect().await;
    client
        .execute(
            "CREATE USER m PASSWORD 'md5 secret'; SET password_encryption = 'scram-sha-256';
             CREATE USER s PASSWORD 'scram:secret'; CREATE USER c PASSWORD 'clear'",
        )
        .await
        .unwrap();
    let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    let request =
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "data/server.key"];
    let mut openssl = Command::new("openssl");
    openssl.args(request).args(["-out", "data/server.crt"]).args(subject).current_dir(&server.folder);
    assert!(openssl.stderr(Stdio::null()).status().unwrap().success());
    server.sh("chown", &["postgres", "data/server.key", "data/server.crt"]);
    server.sh("chmod", &["600", "data/server.key"]);
    let rules = "local all postgres trust\nhost all postgres all trust\nhost all m all md5\n\
                 hostssl all s all scram-sha-256\nhost all c all password\n";
    std::fs::write(server.folder.join("data/pg_hba.conf"), rules).unwrap();

    let url = |user: &str, host: &str, rest: &str| {
        Settings::parse(&format!("postgres://{user}@{host}:{}/postgres{rest}", server.port)).unwrap()
    };
    // Without TLS there is none to be had.
    let error = Client::connect(&url("postgres", "localhost", "?sslmode=require"), &[]).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Setup, "{error}");
    client.execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    client.execute("SELECT pg_reload_conf()").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;

    let root = format!("&sslrootcert={}", server.folder.join("data/server.crt").display());
    for (user, host, rest, kind) in [
        ("m:md5%20secret", "127.0.0.1", "?sslmode=disable".to_owned(), None),
        ("s:scram%3Asecret", "127.0.0.1", "?sslmode=require".to_owned(), None),
        ("s:scram%3Asecret", "127.0.0.1", String::new(), None),
        ("c:clear", "127.0.0.1", "?sslmode=prefer".to_owned(), None),
        ("s:scram%3Asecret", "127.0.0.1", "?sslmode=disable".to_owned(), Some(ErrorKind::Login)),
        ("s:wrong", "127.0.0.1", "?sslmode=require".to_owned(), Some(ErrorKind::Login)),
        ("m:wrong", "127.0.0.1", String::new(), Some(ErrorKind::Login)),
        ("s", "127.0.0.1", String::new(), Some(ErrorKind::Login)),
        ("nobody:x", "127.0.0.1", String::new(), Some(ErrorKind::Login)),
        ("postgres", "localhost", format!("?sslmode=verify-full{root}"), None),
        ("postgres", "127.0.0.1", format!("?sslmode=verify-full{root}"), Some(ErrorKind::Setup)),
        ("postgres", "127.0.0.1", format!("?sslmode=verify-ca{root}"), None),
        ("postgres", "localhost", "?sslmode=verify-full".to_owned(), Some(ErrorKind::Setup)),
        ("postgres", "localhost", "?sslmode=require&sslrootcert=/nowhere".to_owned(), Some(ErrorKind::Setup)),
    ] {
        let settings = url(user, host, &rest);
        let connected = Client::connect(&settings, &[]).await;
        match (connected, kind) {
            (Ok(mut client), None) => {
                let encrypted =
                    value(&mut client, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await;
                assert_eq!(encrypted == "t", !rest.contains("disable"), "{user} {rest}");
            }
            (Ok(_), Some(_)) => panic!("{user}@{host}{rest} must not work"),
            (Err(error), kind) => {
                assert_eq!(Some(error.kind), kind, "{user}@{host}{rest}: {error:?}");
                assert!(!format!("{error:?}").contains("secret"));
            }
        }
    }

    // Much data in both directions through TLS.
    let client = &mut Client::connect(&url("postgres", "localhost", "?sslmode=require"), &[]).await.unwrap();
    client.execute("CREATE TABLE t (id int, v text)").await.unwrap();
    for id in 0..2000 {
        client
            .queue(
                "INSERT INTO t VALUES ($1, $2) RETURNING v, v",
                &[Some(id.to_string()), Some("y".repeat(5000))],
            )
            .unwrap();
    }
    assert_eq!(client.flush_queued().await.unwrap().len(), 2000);

    // Nobody there, and somebody who says nothing.
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = unused.local_addr().unwrap().port();
    let silent = Settings::parse(&format!("postgres://u@127.0.0.1:{port}/d?connect_timeout=1")).unwrap();
    assert_eq!(Client::connect(&silent, &[]).await.err().unwrap().kind, ErrorKind::Connect);
    drop(unused);
    let error = Client::connect(&silent, &[]).await.err().unwrap();
    assert_eq!((error.kind, error.retry), (ErrorKind::Connect, Retry::Later));
}
