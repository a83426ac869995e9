//! What reads bytes from outside, each as one function that takes any bytes: for the property tests beside it, and for the
//! fuzzer, which gets at them by the feature `fuzzing`. A function that returns has found nothing wrong.
//!
//! Promised of each: no panic, memory that follows the bytes that came and not the lengths that they claim, and nothing
//! taken for something else: what is accepted is written again and must be the same.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use model::{Change, Row, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};

use crate::decode::Lines;
use crate::error::{DbError, from_server};
use crate::lsn;
use crate::pgoutput::{Decoder, Message};
use crate::url::Settings;
use crate::wire::{Client, READ_BYTES, rows_of, text_row};

/// Messages of the output plugin, one after another, each behind its length in two bytes.
pub fn pgoutput(input: &[u8]) {
    let mut decoder = Decoder::default();
    for message in pieces(input) {
        let message = Bytes::copy_from_slice(message);
        let Ok(decoded) = decoder.decode(message.clone()) else { continue };
        if let Some(again) = encoded(&decoded, &message) {
            assert_eq!(again, message, "{decoded:?}");
        }
    }
}

/// The pieces that the input announces by their lengths; the last may be shorter.
fn pieces(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = input.split_first_chunk::<2>()?;
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes(*length))));
        input = rest;
        Some(piece)
    })
}

/// The same message, written again, where all of it is in what was read.
fn encoded(decoded: &Message, message: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match decoded {
        Message::Change(Change::Insert { relation, new }) => {
            out.put_u8(b'I');
            out.put_u32(*relation);
            put_tuple(&mut out, b'N', new);
        }
        Message::Change(Change::Update { relation, old: None, new }) => {
            out.put_u8(b'U');
            out.put_u32(*relation);
            put_tuple(&mut out, b'N', new);
        }
        // Of a key only some cells are taken over.
        Message::Change(Change::Delete { relation, old }) if message.get(5) == Some(&b'O') => {
            out.put_u8(b'D');
            out.put_u32(*relation);
            put_tuple(&mut out, b'O', old);
        }
        Message::Change(Change::Truncate { relations, restart_identity }) => {
            out.put_u8(b'T');
            out.put_u32(relations.len() as u32);
            let others = message.get(5).copied().unwrap_or_default() & !2;
            out.put_u8(others | if *restart_identity { 2 } else { 0 });
            relations.iter().for_each(|relation| out.put_u32(*relation));
        }
        _ => return None,
    }
    Some(out)
}

fn put_tuple(out: &mut Vec<u8>, kind: u8, row: &Row) {
    out.put_u8(kind);
    out.put_u16(row.len() as u16);
    for cell in row {
        match cell {
            Value::Null => out.put_u8(b'n'),
            Value::Unchanged => out.put_u8(b'u'),
            Value::Text(text) => {
                out.put_u8(b't');
                out.put_u32(text.len() as u32);
                out.extend_from_slice(text);
            }
            other => panic!("a cell that the plugin cannot send: {other:?}"),
        }
    }
}

/// The bodies of a server's messages: a row, a command's tag, an error.
pub fn body(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    if let Some(row) = text_row(&body) {
        let mut again = BytesMut::new();
        again.put_u16(row.len() as u16);
        for cell in row {
            match cell {
                None => again.put_i32(-1),
                Some(cell) => {
                    again.put_u32(cell.len() as u32);
                    again.extend_from_slice(&cell);
                }
            }
        }
        assert_eq!(again, body);
    }
    let rows = rows_of(input);
    assert!(rows == 0 || input.iter().filter(|byte| byte.is_ascii_digit()).count() > 0);
    let error = from_server("fuzz", DbError::parse(input));
    // A byte that is not UTF-8 becomes three; each text is shown once, in the error or in its source.
    assert!(format!("{error} {error:?}").len() <= 4096 + 64 * input.len());
}

/// A connection URL, and a place in the log, as text.
pub fn text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(lsn) = lsn::parse(text) {
        assert_eq!(lsn::parse(&lsn::format(lsn)), Some(lsn));
        let digits = |part: &str| part.trim_start_matches('0').to_ascii_uppercase();
        let same: Vec<String> = text.split('/').map(digits).collect();
        assert_eq!(lsn::format(lsn).split('/').map(digits).collect::<Vec<_>>(), same);
    }
    match Settings::parse(text) {
        Ok(settings) => drop((settings.to_string(), settings.server())),
        Err(error) => drop(format!("{error} {error:?}")),
    }
}

/// Everything that a server says over one connection. The first byte says in which exchange it says it.
pub fn server(input: &[u8]) {
    logged_in(input);
}

fn logged_in(input: &[u8]) -> bool {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("{error}"),
    });
    let Some((&exchange, said)) = input.split_first() else { return false };
    // Past the login, unless it is the login that is asked for.
    let greeting: &[u8] = if exchange % 4 == 0 { b"" } else { b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I" };
    runtime.block_on(converse(exchange, [greeting, said].concat()))
}

/// Whether it came past the login.
async fn converse(exchange: u8, said: Vec<u8>) -> bool {
    let folder = folder();
    let path = folder.join(".s.PGSQL.5432");
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let url = format!("postgres://u@/d?host={}", folder.display());
    let bytes = said.len();
    let serve = async {
        let Ok((stream, _)) = listener.accept().await else { return };
        say(stream, said).await;
    };
    let ask = async {
        let Ok(settings) = Settings::parse(&url) else { panic!("{url}") };
        let Ok(mut client) = Client::connect(&settings, &[]).await else { return false };
        exchanges(&mut client, exchange).await;
        // What is kept follows what came, and not what a header says: one read ahead, and twice the longest message.
        let kept = client.incoming.capacity();
        assert!(kept <= 2 * (bytes + READ_BYTES), "{kept} bytes are kept of {bytes}");
        true
    };
    let ((), logged_in) = tokio::join!(serve, ask);
    std::fs::remove_dir_all(&folder).ok();
    logged_in
}

/// Says all of it, whatever is asked, and hangs up.
async fn say(mut stream: UnixStream, said: Vec<u8>) {
    let (mut from, mut to) = stream.split();
    let talk = async {
        to.write_all(&said).await.ok();
        to.shutdown().await.ok();
    };
    let mut heard = Vec::new();
    let listen = from.read_to_end(&mut heard);
    drop(tokio::join!(talk, listen));
}

async fn exchanges(client: &mut Client, exchange: u8) {
    match exchange % 4 {
        1 => while client.simple("SELECT 1").await.is_ok() {},
        2 => {
            if client.copy_out("COPY t TO STDOUT").await.is_ok() {
                let mut lines = Lines::new(vec![false, true, false]);
                while let Ok(Some(block)) = client.copy_out_next().await {
                    assert!(block.len() >= 5 && block[0] == b'd', "a block is whole messages");
                    if let Ok(rows) = lines.rows(block) {
                        assert!(rows.iter().all(|row| row.len() == 3 && row[1].is_unchanged()), "{rows:?}");
                    }
                }
            }
        }
        _ => {
            if client.copy_both_start("START_REPLICATION").await.is_ok() {
                let mut decoder = Decoder::default();
                loop {
                    match client.copy_both_take() {
                        Ok(Some(payload)) => drop(decoder.decode(payload)),
                        Ok(None) => {
                            if client.fill().await.is_err() {
                                break;
                            }
                        }
                        Err(_) => break,
                    }
                }
            }
        }
    }
}

fn folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("crossfade-fuzz-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    // In memory where the machine has such a folder: there is one for every input.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.join(name) } else { std::env::temp_dir().join(name) };
    match std::fs::create_dir_all(&folder) {
        Ok(()) => folder,
        Err(error) => panic!("{}: {error}", folder.display()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// A relation and one of each change, as the server sends them.
    const CHANGES: &[&[u8]] = &[
        b"B\0\0\0\0\x01\x02\x03\x04\0\0\0\0\0\0\0\x01\0\0\0\x09",
        b"R\0\0\0\x07public\0t\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0v\0\0\0\0\x19\xff\xff\xff\xff",
        b"I\0\0\0\x07N\0\x02t\0\0\0\x011n",
        b"U\0\0\0\x07N\0\x02t\0\0\0\x011u",
        b"U\0\0\0\x07K\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x012t\0\0\0\x01v",
        b"D\0\0\0\x07K\0\x02t\0\0\0\x011n",
        b"D\0\0\0\x07O\0\x02t\0\0\0\x011t\0\0\0\x01v",
        b"T\0\0\0\x02\x03\0\0\0\x07\0\0\0\x08",
        b"C\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03",
    ];

    const BODIES: &[&[u8]] = &[
        b"\0\x02\xff\xff\xff\xff\0\0\0\x02ok",
        b"INSERT 0 12\0",
        b"SERROR\0VERROR\0C23505\0Mduplicate key\0DKey (id)=(1) already exists.\0spublic\0tt\0nt_pkey\0\0",
    ];

    const TEXTS: &[&[u8]] = &[
        b"16/B374D848",
        b"postgres://me%40home:s%3Acret+@db.example:6432/shop?sslmode=require&connect_timeout=3",
        b"postgres:///d?host=/tmp/socket&user=u",
        b"postgresql://u@[::1]:5433/d",
    ];

    /// In an exchange of each kind.
    const TALKS: &[&[u8]] = &[
        b"\0R\0\0\0\x08\0\0\0\0S\0\0\0\x16server_version\x0013\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I",
        b"\x01T\0\0\0\x06\0\0D\0\0\0\x0b\0\x01\0\0\0\x011C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I",
        b"\x01E\0\0\0\x13SERROR\0C42P01\0\0Z\0\0\0\x05I",
        b"\x02H\0\0\0\x07\0\0\0d\0\0\0\x061\x0ac\0\0\0\x04C\0\0\0\x0bCOPY 1\0Z\0\0\0\x05I",
        b"\x02H\0\0\0\x07\0\0\0d\0\0\0\x081\t\\\\d\0\0\0\x0bb\x0a\\N\t2\x0ac\0\0\0\x04C\0\0\0\x0bCOPY 2\0Z\0\0\0\x05I",
        b"\x03W\0\0\0\x07\0\0\0d\0\0\0\x06k1d\0\0\0\x05Yc\0\0\0\x04",
    ];

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        let length = |message: &[u8]| (message.len() as u16).to_be_bytes();
        messages.iter().flat_map(|message| [&length(message)[..], message].concat()).collect()
    }

    /// Noise, and good bytes with some of them changed, removed or put in twice.
    fn bytes_like(samples: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let damage = (any::<Index>(), any::<u8>(), 0..5_u8);
        let damaged =
            (proptest::sample::select(samples), vec(damage, 0..4)).prop_map(|(mut bytes, damages)| {
                for (at, byte, how) in damages {
                    if bytes.is_empty() {
                        break;
                    }
                    let at = at.index(bytes.len());
                    match how {
                        0 => bytes.truncate(at),
                        1 => drop(bytes.remove(at)),
                        2 => bytes.insert(at, byte),
                        _ => bytes[at] = byte,
                    }
                }
                bytes
            });
        prop_oneof![1 => vec(any::<u8>(), 0..80), 4 => damaged]
    }

    fn like(samples: &[&[u8]]) -> impl Strategy<Value = Vec<u8>> {
        bytes_like(samples.iter().map(|sample| sample.to_vec()).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn messages_of_the_plugin(input in bytes_like(vec![framed(CHANGES)])) {
            pgoutput(&input);
        }

        #[test]
        fn bodies_of_a_servers_messages(input in like(BODIES)) {
            body(&input);
        }

        #[test]
        fn urls_and_positions(input in like(TEXTS)) {
            text(&input);
        }

        /// Whatever else is wrong with the URL.
        #[test]
        fn a_refused_url_keeps_its_password(user in "[a-z%:/?#@]{0,6}", rest in "[a-z0-9%:/?#@&=]{0,12}") {
            let url = format!("postgres://{user}:topsecret@{rest}");
            if let Err(error) = Settings::parse(&url) {
                let shown = format!("{error} {error:?}");
                prop_assert!(!shown.contains("topsecret"), "{}: {}", url, shown);
            }
        }
    }

    proptest! {
        #[test]
        fn everything_that_a_server_says(input in like(TALKS)) {
            server(&input);
        }
    }

    #[test]
    fn the_samples_are_good() {
        let mut decoder = Decoder::default();
        for message in CHANGES {
            assert!(decoder.decode(Bytes::from_static(message)).is_ok(), "{message:?}");
        }
        for talk in TALKS {
            assert!(logged_in(talk), "{talk:?}");
        }
    }
}
