//! The byte stream to a server, encrypted as `sslmode` asks.

use std::io;

use bytes::BytesMut;
use connector::{Error, ErrorKind, Result};
use net::{Encryption, Host, Socket, SslMode, dial, from_socket};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::url::Settings;

const OPERATION: &str = "connect";

/// Opens the byte stream. Everything up to here is unauthenticated; time limits are the caller's.
pub(crate) async fn open(settings: &Settings) -> Result<Socket> {
    let lost = |error| {
        from_socket(OPERATION, &settings.server(), error)
            .hint("check host and port of the URL, that the server runs, and that a firewall lets this machine through")
    };
    let name = match &settings.host {
        Host::Unix(folder) => {
            let path = folder.join(format!(".s.PGSQL.{}", settings.port));
            // As libpq: a Unix socket is never encrypted, whatever sslmode says.
            return UnixStream::connect(path).await.map(Socket::Unix).map_err(lost);
        }
        Host::Tcp(name) => name,
    };
    let tcp = dial(name, settings.port).await.map_err(lost)?;
    if settings.tls.mode == SslMode::Disable {
        return Ok(Socket::Tcp(tcp));
    }
    // The settings are read before the server is asked, so that a bad certificate file is reported as such.
    let encryption = Encryption::new(&settings.tls, name, &settings.server())?;
    let (tcp, offered) = ask(tcp).await.map_err(lost)?;
    match (offered, settings.tls.mode) {
        (true, mode) => match encryption.start(tcp).await {
            Ok(stream) => Ok(Socket::Tls(Box::new(stream))),
            Err(error) if mode == SslMode::Prefer => {
                tracing::warn!(server = settings.server(), %error, "TLS failed, going on without it as sslmode=prefer allows");
                dial(name, settings.port).await.map(Socket::Tcp).map_err(lost)
            }
            Err(error) => Err(Encryption::failed(&settings.server(), error)),
        },
        (false, SslMode::Prefer) => Ok(Socket::Tcp(tcp)),
        (false, _) => Err(not_offered(settings)),
    }
}

/// Sends an SSLRequest; true if the server is willing.
async fn ask(mut tcp: TcpStream) -> io::Result<(TcpStream, bool)> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await?;
    match tcp.read_u8().await? {
        b'S' => Ok((tcp, true)),
        b'N' => Ok((tcp, false)),
        // An error in the old format: the server does not know the request, or has no room for us.
        b'E' => Err(io::Error::other("the server refused the connection before TLS could begin")),
        other => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the answer to the request for TLS is the byte {other:#04x}: this is not PostgreSQL"),
        )),
    }
}

fn not_offered(settings: &Settings) -> Error {
    Error::new(ErrorKind::Setup, "connect with TLS")
        .with("server", settings.server())
        .with("because", "the server does not offer it")
        .hint("set ssl=on on the server, or sslmode=disable if the way to it is safe")
}
