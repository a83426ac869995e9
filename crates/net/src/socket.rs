//! A dead link is noticed within about two minutes while idle and within one while we are sending.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A server that accepts a connection within this time is near: on this machine, or on one beside it. One that is taken for
/// far is no worse off than without this.
const NEAR: Duration = Duration::from_millis(1);

/// What is on the way to a near server: less makes the copy slower. Linux takes twice as much, within its `wmem_max`. A server
/// that is further away needs more, and gets what the system finds out.
const NEAR_SEND_BYTES: usize = 512 * 1024;

/// Connects, with the settings of every socket of ours.
pub async fn dial(name: &str, port: u16) -> io::Result<TcpStream> {
    let asked = Instant::now();
    let tcp = TcpStream::connect((name, port)).await?;
    let is_near = asked.elapsed() < NEAR;
    tcp.set_nodelay(true)?;
    let socket = socket2::SockRef::from(&tcp);
    if is_near {
        // What is sent cannot be called back: by itself this buffer grows to 4 MB, and the server's, which grows with what
        // comes at a time, to 9 MB. A target goes on with it for some 200 ms after the throttle has stopped a copy's stream.
        if let Err(error) = socket.set_send_buffer_size(NEAR_SEND_BYTES) {
            tracing::debug!(%error, "the send buffer stays as it is");
        }
    }
    // 30 s + 9 × 10 s without an answer.
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    socket.set_tcp_keepalive(&keepalive)?;
    // Keepalives are not sent while something of ours is unacknowledged; without this limit that takes a quarter
    // of an hour to fail. A receiver that is merely slow answers window probes and is not cut off.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))?;
    Ok(tcp)
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(context),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
