//! Opening a session: the byte stream, encrypted as `sslmode` asks, and the login.
//!
//! A MySQL server speaks first, in the clear. What it says there is not trusted for more than whether it offers TLS;
//! the login itself goes over the encrypted stream (<https://mariadb.com/kb/en/connection/>).

use std::io;

use connector::{Error, ErrorKind, Result};
use net::{Encryption, Host, Socket, SslMode, dial, from_socket};
use tokio::net::UnixStream;

use crate::login::{self, Greeting};
use crate::url::Settings;
use crate::wire::Client;

const OPERATION: &str = "connect";

impl Client {
    /// Connects and logs in, within the time limit of the settings.
    pub(crate) async fn connect(settings: &Settings) -> Result<Client> {
        let opening = open(settings);
        let Some(limit) = settings.connect_timeout else { return opening.await };
        tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| {
            let why = format!("no session within {} s", limit.as_secs());
            Err(from_socket(OPERATION, &settings.server(), io::Error::new(io::ErrorKind::TimedOut, why)))
        })
    }
}

async fn open(settings: &Settings) -> Result<Client> {
    let met = meet(settings).await?;
    let (mut client, greeting) = match &settings.host {
        Host::Tcp(name) if settings.tls.mode != SslMode::Disable => encrypt(settings, name, met).await?,
        // As libpq: a Unix socket is never encrypted, whatever sslmode says.
        Host::Tcp(_) | Host::Unix(_) => met,
    };
    login::log_in(&mut client, settings, greeting).await?;
    Ok(client)
}

/// Connects and hears the greeting.
async fn meet(settings: &Settings) -> Result<(Client, Greeting)> {
    let socket = match &settings.host {
        Host::Tcp(name) => dial(name, settings.port).await.map(Socket::Tcp),
        Host::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
    };
    let socket = socket.map_err(|error| {
        from_socket(OPERATION, &settings.server(), error)
            .hint("check host and port of the URL, that the server runs, and that a firewall lets this machine through")
    })?;
    let mut client = Client::new(socket, settings.server());
    let greeting = login::greeting(client.doing(OPERATION)).await?;
    Ok((client, greeting))
}

async fn encrypt(
    settings: &Settings,
    name: &str,
    (client, greeting): (Client, Greeting),
) -> Result<(Client, Greeting)> {
    let may_do_without = settings.tls.mode == SslMode::Prefer;
    if !greeting.offers_tls() {
        return if may_do_without { Ok((client, greeting)) } else { Err(not_offered(settings)) };
    }
    let encryption = Encryption::new(&settings.tls, name, &settings.server())?;
    match start(client, &greeting, encryption).await? {
        Ok(client) => Ok((client, greeting)),
        // MySQL 5.6 and many a 5.7 know nothing newer than TLS 1.1.
        Err(error) if may_do_without => {
            tracing::warn!(server = settings.server(), %error, "TLS failed, going on without it as sslmode=prefer allows");
            meet(settings).await
        }
        Err(error) => Err(Encryption::failed(&settings.server(), error)),
    }
}

/// The same conversation, encrypted from here; the inner error is that of TLS.
async fn start(
    mut client: Client,
    greeting: &Greeting,
    encryption: Encryption,
) -> Result<io::Result<Client>> {
    login::request_tls(&mut client, greeting).await?;
    // Bytes that somebody put in before the encryption must not be taken for the server's.
    if !client.incoming.is_empty() {
        return Err(client.broken("the server spoke before the encryption began"));
    }
    let (sequence, server) = (client.sequence, client.server);
    let stream = match client.socket {
        Socket::Tcp(tcp) => encryption.start(tcp).await,
        Socket::Unix(_) | Socket::Tls(_) => Err(io::Error::other("only a TCP connection can be encrypted")),
    };
    Ok(stream.map(|stream| {
        let mut encrypted = Client::new(Socket::Tls(Box::new(stream)), server);
        encrypted.doing(OPERATION).sequence = sequence;
        encrypted
    }))
}

fn not_offered(settings: &Settings) -> Error {
    Error::new(ErrorKind::Setup, "connect with TLS")
        .with("server", settings.server())
        .with("because", "the server does not offer it")
        .hint("set ssl_cert and ssl_key on the server, or sslmode=disable if the way to it is safe")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_server_that_is_silent_or_does_not_encrypt_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut settings = Settings::parse(&format!("mysql://u@127.0.0.1:{port}/d?sslmode=require")).unwrap();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let greeting = login::tests::greeting("mysql_native_password", 0);
            socket.write_all(&greeting).await.unwrap();
            socket
        };
        let (found, _socket) = tokio::join!(Client::connect(&settings), server);
        let error = found.err().unwrap();
        assert_eq!((error.kind, error.operation), (ErrorKind::Setup, "connect with TLS"));

        settings.connect_timeout = Some(Duration::from_millis(20));
        let error = Client::connect(&settings).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Connect);
    }
}
