//! The login: what the server says first, what is asked of it, the password.
//!
//! Knows `mysql_native_password` and `caching_sha2_password`. The password goes into the answers that the server asks
//! for and nowhere else, and as it is only where nobody on the way can read it.
//! Deliberately absent: RSA for `caching_sha2_password` without TLS (its key would come over the very connection that
//! is not to be trusted), and every plugin that sends the password in the clear.
//!
//! <https://mariadb.com/kb/en/connection/>,
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html>.

use bytes::{BufMut, Bytes, BytesMut};
use connector::{Error, ErrorKind, Result};
use net::Socket;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use crate::packet::{self, Cursor, put_string, text};
use crate::url::Settings;
use crate::wire::Client;

const OPERATION: &str = "connect";

// Capabilities, by the bits of https://dev.mysql.com/doc/dev/mysql-server/latest/group__group__cs__capabilities__flags.html
/// MariaDB's servers leave it out where extended capabilities follow, and so has a client to that asks for some.
const LONG_PASSWORD: u32 = 1;
/// UPDATE counts the rows that it found, not those that it changed.
const FOUND_ROWS: u32 = 1 << 1;
const LONG_FLAG: u32 = 1 << 2;
const CONNECT_WITH_DB: u32 = 1 << 3;
const LOCAL_FILES: u32 = 1 << 7;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;
const CONNECT_ATTRS: u32 = 1 << 20;
const PLUGIN_AUTH_LENENC_CLIENT_DATA: u32 = 1 << 21;
const DEPRECATE_EOF: u32 = 1 << 24;

/// Every server since 4.1 has these.
const NEEDED: u32 = PROTOCOL_41 | SECURE_CONNECTION;
/// LOCAL_FILES is asked for even where it is not offered: the setting behind it may be changed while we are connected.
const ALWAYS: u32 = NEEDED | FOUND_ROWS | LONG_FLAG | CONNECT_WITH_DB | LOCAL_FILES | TRANSACTIONS;
const WHERE_OFFERED: u32 = PLUGIN_AUTH | CONNECT_ATTRS | PLUGIN_AUTH_LENENC_CLIENT_DATA | DEPRECATE_EOF;

/// Of MariaDB's extended capabilities (<https://mariadb.com/kb/en/connection/>): COM_STMT_BULK_EXECUTE.
const BULK: u32 = 1 << 2;

/// utf8mb4_general_ci: every server since 5.5.3 knows it.
const CHARSET: u8 = 45;
/// The longest message that we take; servers keep to their own limit.
const ANSWER_BYTES_MAX: u32 = 1 << 30;

// In the login, the first byte of a message also says:
const SWITCH: u8 = packet::EOF;
const MORE_DATA: u8 = 0x01;
// Behind MORE_DATA, from caching_sha2_password:
const HASH_IS_RIGHT: u8 = 3;
const SEND_PASSWORD: u8 = 4;

/// What the server says first (handshake version 10).
#[derive(Debug)]
pub(crate) struct Greeting {
    version: String,
    connection_id: u32,
    capabilities: u32,
    /// MariaDB's.
    extended: u32,
    scramble: Vec<u8>,
    plugin: Bytes,
}

impl Greeting {
    fn parse(body: &Bytes) -> Option<Greeting> {
        let mut cursor = Cursor::new(body);
        cursor.u8().filter(|version| *version == 10)?;
        let version = text(&cursor.until_nul());
        let connection_id = cursor.u32()?;
        let mut scramble = cursor.take(8)?.to_vec();
        let _filler = cursor.u8()?;
        let low = cursor.u16()?;
        let (_charset, _status) = (cursor.u8()?, cursor.u16()?);
        let high = cursor.u16()?;
        let scramble_bytes = usize::from(cursor.u8()?);
        let _reserved = cursor.take(6)?;
        let extended = cursor.u32()?;
        let second = cursor.take(scramble_bytes.saturating_sub(scramble.len()).max(13))?;
        scramble.extend_from_slice(without_nul(&second));
        Some(Greeting {
            // MariaDB before 11 hides behind a version that old replicas accept.
            version: version.strip_prefix("5.5.5-").unwrap_or(&version).to_owned(),
            connection_id,
            capabilities: u32::from(high) << 16 | u32::from(low),
            extended: if low & LONG_PASSWORD as u16 == 0 { extended } else { 0 },
            scramble,
            plugin: cursor.until_nul(),
        })
    }

    pub(crate) fn offers_tls(&self) -> bool {
        self.capabilities & SSL != 0
    }

    /// What we ask for, TLS aside.
    fn asked(&self) -> u32 {
        let long_password = if self.takes_bulk() { 0 } else { LONG_PASSWORD };
        ALWAYS | long_password | self.capabilities & WHERE_OFFERED
    }

    fn takes_bulk(&self) -> bool {
        self.extended & BULK != 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    Native,
    CachingSha2,
}

impl Plugin {
    fn named(name: &[u8]) -> Option<Plugin> {
        match name {
            b"mysql_native_password" => Some(Plugin::Native),
            b"caching_sha2_password" => Some(Plugin::CachingSha2),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Plugin::Native => "mysql_native_password",
            Plugin::CachingSha2 => "caching_sha2_password",
        }
    }

    /// Proves that we know the password. No password proves itself by nothing.
    fn proof(self, password: &str, scramble: &[u8]) -> Vec<u8> {
        let password = password.as_bytes();
        if password.is_empty() {
            return Vec::new();
        }
        match self {
            Plugin::Native => {
                let hash = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
                let once = hash(password);
                let twice = hash(once.as_ref());
                xor(once.as_ref(), hash(&[scramble, twice.as_ref()].concat()).as_ref())
            }
            Plugin::CachingSha2 => {
                let hash = |bytes: &[u8]| digest(&SHA256, bytes);
                let once = hash(password);
                let twice = hash(once.as_ref());
                xor(once.as_ref(), hash(&[twice.as_ref(), scramble].concat()).as_ref())
            }
        }
    }
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

fn without_nul(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(&[0]).unwrap_or(bytes)
}

/// Reads what the server says first.
pub(crate) async fn greeting(client: &mut Client) -> Result<Greeting> {
    let body = client.receive().await?;
    if packet::is_error(&body) {
        return Err(client.refusal(&body));
    }
    let greeting = Greeting::parse(&body)
        .ok_or_else(|| client.malformed("the greeting of a MySQL server (protocol 10)", &body))?;
    if greeting.capabilities & NEEDED != NEEDED {
        return Err(Error::new(ErrorKind::Setup, OPERATION)
            .with("server", client.server())
            .with("version", &greeting.version)
            .with("because", "the server does not speak the protocol of version 4.1"));
    }
    Ok(greeting)
}

/// Announces that TLS begins with our next byte.
pub(crate) async fn request_tls(client: &mut Client, greeting: &Greeting) -> Result<()> {
    let capabilities = greeting.asked() | SSL;
    client.say(|out| put_capabilities(out, capabilities)).await
}

/// Answers the greeting, and whatever the server asks then. The client is ready for statements afterwards.
pub(crate) async fn log_in(client: &mut Client, settings: &Settings, greeting: Greeting) -> Result<()> {
    let capabilities = match client.socket {
        Socket::Tls(_) => greeting.asked() | SSL,
        Socket::Tcp(_) | Socket::Unix(_) => greeting.asked(),
    };
    let mut plugin = Plugin::named(&greeting.plugin).unwrap_or(Plugin::Native);
    let proof = plugin.proof(settings.password(), &greeting.scramble);
    client.say(|out| put_response(out, capabilities, settings, plugin, &proof)).await?;
    loop {
        let body = client.receive().await?;
        match body.as_ref() {
            [packet::OK, ..] => {
                client.deprecates_eof = capabilities & DEPRECATE_EOF != 0;
                client.takes_bulk = greeting.takes_bulk();
                client.connection_id = greeting.connection_id;
                client.version = greeting.version;
                return client.welcome(&body);
            }
            [packet::ERR, ..] => return Err(client.refusal(&body).with("user", &settings.user)),
            [SWITCH, ..] => {
                let (name, scramble) = switched(&body);
                plugin = Plugin::named(&name).ok_or_else(|| unknown_plugin(settings, &name))?;
                let proof = plugin.proof(settings.password(), without_nul(&scramble));
                client.say(|out| out.put_slice(&proof)).await?;
            }
            [MORE_DATA, HASH_IS_RIGHT] if plugin == Plugin::CachingSha2 => {}
            [MORE_DATA, SEND_PASSWORD] if plugin == Plugin::CachingSha2 => {
                send_password(client, settings).await?;
            }
            _ => return Err(client.malformed("a step of the login", &body)),
        }
    }
}

/// The server has no hash of this password in its memory, and asks for the password itself.
async fn send_password(client: &mut Client, settings: &Settings) -> Result<()> {
    match client.socket {
        Socket::Tls(_) | Socket::Unix(_) => {
            client
                .say(|out| {
                    out.put_slice(settings.password().as_bytes());
                    out.put_u8(0);
                })
                .await
        }
        Socket::Tcp(_) => Err(Error::new(ErrorKind::Login, OPERATION)
            .with("server", settings.server())
            .with("user", &settings.user)
            .with("because", "the server asks for the password itself, and the connection is not encrypted")
            .hint("use sslmode=require, or a Unix socket (socket=/path)")),
    }
}

/// The plugin that the server wants instead, and its scramble.
fn switched(body: &Bytes) -> (Bytes, Bytes) {
    let mut cursor = Cursor::new(body);
    cursor.u8();
    if cursor.is_at_end() {
        // The one way of before 4.1, which has no name in the protocol.
        return (Bytes::from_static(b"mysql_old_password"), Bytes::new());
    }
    (cursor.until_nul(), cursor.rest())
}

fn unknown_plugin(settings: &Settings, name: &[u8]) -> Error {
    Error::new(ErrorKind::Login, OPERATION)
        .with("server", settings.server())
        .with("user", &settings.user)
        .with("authentication plugin", text(name))
        .hint("let the account log in by mysql_native_password or caching_sha2_password (ALTER USER … IDENTIFIED …)")
}

/// What the request for TLS consists of, and the answer to the greeting begins with.
fn put_capabilities(out: &mut BytesMut, capabilities: u32) {
    out.put_u32_le(capabilities);
    out.put_u32_le(ANSWER_BYTES_MAX);
    out.put_u8(CHARSET);
    // Reserved, but for MariaDB's extended capabilities.
    out.put_bytes(0, 19);
    out.put_u32_le(if capabilities & LONG_PASSWORD == 0 { BULK } else { 0 });
}

fn put_response(out: &mut BytesMut, capabilities: u32, settings: &Settings, plugin: Plugin, proof: &[u8]) {
    put_capabilities(out, capabilities);
    put_name(out, &settings.user);
    // A proof is at most 32 bytes: its length is one byte with PLUGIN_AUTH_LENENC_CLIENT_DATA and without.
    put_string(out, proof);
    put_name(out, &settings.database);
    if capabilities & PLUGIN_AUTH != 0 {
        put_name(out, plugin.name());
    }
    if capabilities & CONNECT_ATTRS != 0 {
        let mut attributes = BytesMut::new();
        put_string(&mut attributes, b"program_name");
        put_string(&mut attributes, b"crossfade");
        put_string(out, &attributes);
    }
}

fn put_name(out: &mut BytesMut, name: &str) {
    out.put_slice(name.as_bytes());
    out.put_u8(0);
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    const SCRAMBLE: [u8; 20] =
        [10, 47, 74, 111, 75, 73, 34, 48, 88, 76, 114, 74, 37, 13, 3, 80, 82, 2, 23, 21];

    /// The greeting of a MariaDB 10.11 that offers `plugin`, and `more` capabilities beside what all have; framed.
    pub(crate) fn greeting(plugin: &str, more: u32) -> BytesMut {
        extended_greeting(plugin, more, 0)
    }

    fn extended_greeting(plugin: &str, more: u32, extended: u32) -> BytesMut {
        let capabilities = NEEDED | PLUGIN_AUTH | more;
        let mut out = BytesMut::new();
        packet::put(&mut out, 0, |out| {
            out.put_u8(10);
            out.put_slice(b"5.5.5-10.11.6-MariaDB-log\0");
            out.put_u32_le(42);
            out.put_slice(&SCRAMBLE[..8]);
            out.put_u8(0);
            out.put_u16_le(capabilities as u16);
            out.put_u8(45);
            out.put_u16_le(2);
            out.put_u16_le((capabilities >> 16) as u16);
            out.put_u8(21);
            out.put_bytes(0, 6);
            out.put_u32_le(extended);
            out.put_slice(&SCRAMBLE[8..]);
            out.put_u8(0);
            out.put_slice(plugin.as_bytes());
            out.put_u8(0);
        });
        out
    }

    fn settings(password: &str) -> Settings {
        Settings::parse(&format!("mysql://u:{password}@h/d")).unwrap()
    }

    /// Logs in at a server that says all this, whatever it is told.
    async fn attempt(socket: Socket, password: &str) -> Result<Client> {
        let mut client = Client::new(socket, "h".to_owned());
        let greeting = super::greeting(client.doing(OPERATION)).await?;
        log_in(&mut client, &settings(password), greeting).await?;
        Ok(client)
    }

    /// Bodies of the server from its second message on; each of ours has the number between two of its.
    async fn log_in_at(plugin: &str, bodies: &[&[u8]], password: &str) -> (Result<Client>, Vec<u8>) {
        let (socket, mut server) = UnixStream::pair().unwrap();
        let mut script = greeting(plugin, CONNECT_ATTRS | DEPRECATE_EOF);
        let mut sequence = 2;
        for body in bodies {
            packet::put(&mut script, sequence, |out| out.put_slice(body));
            // After "the hash is right" it is the server's turn again.
            sequence += if *body == [MORE_DATA, HASH_IS_RIGHT] { 1 } else { 2 };
        }
        server.write_all(&script).await.unwrap();
        let found = attempt(Socket::Unix(socket), password).await;
        let mut sent = vec![0; 4096];
        let bytes = server.read(&mut sent).await.unwrap();
        sent.truncate(bytes);
        (found, sent)
    }

    const WELCOME: &[u8] = b"\x00\x00\x00\x02\x00\x00\x00";

    #[test]
    fn proofs() {
        for (plugin, password, proof) in [
            (Plugin::Native, "secret", "6a149bdd80bda1ebf0fa2bd2cf2e9717fecc34bb"),
            (
                Plugin::CachingSha2,
                "secret",
                "f490e76f66d9d86665ce54d98c78d0acfe2fb0b08b423da807144873d30b312c",
            ),
            (Plugin::Native, "", ""),
            (Plugin::CachingSha2, "", ""),
        ] {
            let found: String =
                plugin.proof(password, &SCRAMBLE).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, proof, "{plugin:?} {password}");
        }
    }

    #[test]
    fn greetings_are_read() {
        let mut framed = greeting("caching_sha2_password", SSL);
        let body = framed.split_off(4).freeze();
        let found = Greeting::parse(&body).unwrap();
        assert_eq!((found.version.as_str(), found.connection_id), ("10.11.6-MariaDB-log", 42));
        assert_eq!((&found.scramble[..], &found.plugin[..]), (&SCRAMBLE[..], &b"caching_sha2_password"[..]));
        assert!(found.offers_tls());
        assert_eq!(found.asked() & (DEPRECATE_EOF | FOUND_ROWS), FOUND_ROWS);
        // Everything up to the plugin's name is needed.
        for cut in 0..body.len() - "caching_sha2_password\0".len() {
            assert!(Greeting::parse(&body.slice(..cut)).is_none(), "{cut}");
        }
    }

    #[test]
    fn extended_capabilities_are_asked_for_where_they_are_offered() {
        for (more, extended, asked) in
            [(0, BULK | 3, (0, BULK)), (LONG_PASSWORD, BULK, (LONG_PASSWORD, 0)), (0, 3, (LONG_PASSWORD, 0))]
        {
            let body = extended_greeting("p", more, extended).split_off(4).freeze();
            let capabilities = Greeting::parse(&body).unwrap().asked();
            let mut out = BytesMut::new();
            put_capabilities(&mut out, capabilities);
            assert_eq!(out.len(), 32);
            let sent = u32::from_le_bytes(*out.last_chunk().unwrap());
            assert_eq!((capabilities & LONG_PASSWORD, sent), asked, "{more} {extended}");
        }
    }

    #[tokio::test]
    async fn the_first_proof_is_enough() {
        let (found, sent) = log_in_at("mysql_native_password", &[WELCOME], "secret").await;
        let client = found.unwrap();
        assert!(client.is_usable() && client.deprecates_eof);
        assert_eq!((client.version(), client.connection_id()), ("10.11.6-MariaDB-log", 42));
        let mut expected = BytesMut::new();
        packet::put(&mut expected, 1, |out| {
            out.put_u32_le(ALWAYS | LONG_PASSWORD | PLUGIN_AUTH | CONNECT_ATTRS | DEPRECATE_EOF);
            out.put_slice(b"\x00\x00\x00\x40\x2d");
            out.put_bytes(0, 23);
            out.put_slice(b"u\0\x14");
            out.put_slice(&Plugin::Native.proof("secret", &SCRAMBLE));
            out.put_slice(b"d\0mysql_native_password\0\x17\x0cprogram_name\x09crossfade");
        });
        assert_eq!(sent, expected);
    }

    #[tokio::test]
    async fn the_server_may_ask_otherwise() {
        let switch = [&b"\xfecaching_sha2_password\0"[..], &SCRAMBLE[..], &b"\0"[..]].concat();
        let (found, sent) =
            log_in_at("client_ed25519", &[&switch, &[MORE_DATA, HASH_IS_RIGHT], WELCOME], "secret").await;
        assert!(found.unwrap().is_usable());
        let proof = Plugin::CachingSha2.proof("secret", &SCRAMBLE);
        assert!(sent.ends_with(&[&b"\x20\x00\x00\x03"[..], &proof[..]].concat()), "{sent:02x?}");

        // A Unix socket is private enough for the password itself.
        let bodies: &[&[u8]] = &[&[MORE_DATA, SEND_PASSWORD], WELCOME];
        let (found, sent) = log_in_at("caching_sha2_password", bodies, "secret").await;
        assert!(found.unwrap().is_usable());
        assert!(sent.ends_with(b"\x07\x00\x00\x03secret\0"), "{sent:02x?}");

        let (found, sent) = log_in_at("mysql_native_password", &[&switch, WELCOME], "").await;
        assert!(found.unwrap().is_usable());
        assert!(sent.ends_with(b"\x00\x00\x00\x03"), "{sent:02x?}");
    }

    #[tokio::test]
    async fn the_password_is_not_given_to_everybody() {
        for (plugin, answer, context) in [
            ("x", &b"\xfeclient_ed25519\0abc\0"[..], "authentication plugin client_ed25519"),
            ("x", b"\xfemysql_clear_password\0", "authentication plugin mysql_clear_password"),
            ("x", b"\xfe", "authentication plugin mysql_old_password"),
            ("x", b"\xff\x15\x04#28000Access denied for user 'u'@'h'", "user u"),
        ] {
            let (found, sent) = log_in_at(plugin, &[answer], "topsecret").await;
            let error = found.err().unwrap();
            assert_eq!(error.kind, ErrorKind::Login, "{answer:?}");
            assert!(error.to_string().contains(context), "{error}");
            assert!(!format!("{error:?}").contains("topsecret"));
            assert!(!sent.windows(9).any(|bytes| bytes == b"topsecret"));
        }
        // Only the plugin that works that way may ask for the password.
        let (found, _) = log_in_at("mysql_native_password", &[&[MORE_DATA, SEND_PASSWORD]], "secret").await;
        assert_eq!(found.err().unwrap().kind, ErrorKind::Corrupt);
    }

    #[tokio::test]
    async fn the_password_does_not_cross_a_network_in_the_clear() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut script = greeting("caching_sha2_password", 0);
        packet::put(&mut script, 2, |out| out.put_slice(&[MORE_DATA, SEND_PASSWORD]));
        server.write_all(&script).await.unwrap();
        let error = attempt(Socket::Tcp(tcp), "topsecret").await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Login);
        assert!(error.hint.is_some_and(|hint| hint.contains("sslmode=require")));
        let mut sent = Vec::new();
        server.read_to_end(&mut sent).await.unwrap();
        assert!(!sent.windows(9).any(|bytes| bytes == b"topsecret"));
    }

    #[tokio::test]
    async fn what_a_server_says_instead_of_a_greeting() {
        for (body, kind) in [
            (&b"\xff\x10\x04Too many connections"[..], ErrorKind::Connect),
            (b"\xff\x6a\x04Host '1.2.3.4' is not allowed to connect to this server", ErrorKind::Login),
            (b"\x09old", ErrorKind::Corrupt),
            (b"", ErrorKind::Corrupt),
        ] {
            let (socket, mut server) = UnixStream::pair().unwrap();
            let mut script = BytesMut::new();
            packet::put(&mut script, 0, |out| out.put_slice(body));
            server.write_all(&script).await.unwrap();
            let error = attempt(Socket::Unix(socket), "").await.err().unwrap();
            assert_eq!(error.kind, kind, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_greeting_or_not(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let ten: Bytes = [&[10u8][..], &body[..]].concat().into();
            Greeting::parse(&ten);
            Greeting::parse(&body.into());
            switched(&ten);
        }
    }
}
