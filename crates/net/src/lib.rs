//! The way to a server: its URL, and the byte stream, TCP or a Unix socket, encrypted where it is asked for.
//!
//! Every client of a server over the network uses this one, so that there is one TLS stack and one meaning of each
//! `sslmode`. How a server is asked whether it encrypts belongs to its protocol, and so to its connector.

mod address;
mod socket;
mod tls;

use std::path::PathBuf;

use connector::{Error, ErrorKind};

pub use address::{Address, Form, environment};
pub use socket::{Socket, dial};
pub use tls::Encryption;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Tcp(String),
    /// A Unix socket, or the folder that holds it.
    Unix(PathBuf),
}

/// What is asked of the way to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub mode: SslMode,
    /// `sslrootcert`: certificates to trust; `system` stands for the machine's own.
    pub authorities: Option<PathBuf>,
}

/// libpq's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// Encrypted where the server can, without knowing whom one talks to.
    Prefer,
    /// Encrypted; checked against the authorities when they are given.
    Require,
    /// The certificate must come from a trusted authority.
    VerifyCa,
    /// And be for this host.
    VerifyFull,
}

impl SslMode {
    pub const WORDS: &str = "disable, prefer, require, verify-ca or verify-full";

    pub fn parse(text: &str) -> Option<SslMode> {
        Some(match text {
            "disable" => SslMode::Disable,
            // `allow` begins without encryption; beginning with it is the stronger reading of the same wish.
            "allow" | "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return None,
        })
    }
}

/// A socket failed or was closed. What was under way may be repeated, except a commit: there the caller has to
/// say `Unknown`.
pub fn from_socket(operation: &'static str, server: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Connect, operation).with("server", server).source(error)
}
