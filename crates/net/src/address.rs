//! A server's URL taken apart: `scheme://user:password@host:port/database?name=value`.
//!
//! What is not understood is refused, and no refusal shows the password.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use connector::{Error, ErrorKind, Result};

use crate::{Host, SslMode};

/// How one kind of server writes its URLs.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// `read a PostgreSQL URL`: errors say "could not …".
    pub reading: &'static str,
    /// In front of `://`.
    pub schemes: &'static [&'static str],
    /// Shown to whoever wrote something else.
    pub example: &'static str,
}

/// What a URL says.
#[derive(Clone)]
pub struct Address {
    pub host: Host,
    pub port: Option<u16>,
    /// Empty where it is not given, as is the database.
    pub user: String,
    pub password: Option<String>,
    pub database: String,
    /// What follows the question mark, in its order.
    pub parameters: Vec<(String, String)>,
}

impl Form {
    pub fn parse(&self, url: &str) -> Result<Address> {
        let parsed = url::Url::parse(&with_host(url)).map_err(|error| {
            self.refused("it is not a URL").source(error).hint(format!("write {}", self.example))
        })?;
        if !self.schemes.contains(&parsed.scheme()) {
            let known = self.schemes.join(" or ");
            return Err(self.refused(format_args!("scheme {} is not {known}", parsed.scheme())));
        }
        if ends_early(&parsed) {
            return Err(self
                .refused("there is an @ or a # behind the host")
                .hint("in a password or a name write %2F for a slash, %3F for ?, %23 for # and %40 for @"));
        }
        let host = parsed.host_str().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
        let pairs = parsed.query_pairs();
        Ok(Address {
            host: self.host(&self.decode(bare, "host")?)?,
            port: parsed.port(),
            user: self.decode(parsed.username(), "user")?,
            password: parsed.password().map(|password| self.decode(password, "password")).transpose()?,
            database: self.decode(parsed.path().trim_start_matches('/'), "database")?,
            parameters: pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
        })
    }

    /// The URL is refused for this reason, which must not hold the password.
    pub fn refused(&self, why: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Setup, self.reading).with("because", why)
    }

    /// A name, an address, or the path of a Unix socket.
    pub fn host(&self, text: &str) -> Result<Host> {
        match text {
            "" => Ok(Host::Tcp("localhost".to_owned())),
            path if path.starts_with('/') => Ok(Host::Unix(PathBuf::from(path))),
            several if several.contains(',') => {
                Err(self.refused("it names several hosts").hint("name the primary alone"))
            }
            name => Ok(Host::Tcp(name.to_owned())),
        }
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str, value: &str) -> Result<T> {
        value.parse().map_err(|_| self.refused(format_args!("{name} {value} is not a number in range")))
    }

    /// In seconds; 0 is no limit.
    pub fn timeout(&self, name: &str, value: &str) -> Result<Option<Duration>> {
        let seconds: u64 = self.number(name, value)?;
        Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
    }

    pub fn sslmode(&self, text: &str) -> Result<SslMode> {
        SslMode::parse(text).ok_or_else(|| {
            self.refused(format_args!("sslmode {text} is not known")).hint(format!("use {}", SslMode::WORDS))
        })
    }

    /// Names end at a NUL byte on their way to the server.
    pub fn without_nul(&self, name: &str, value: &str) -> Result<()> {
        match value.contains('\0') {
            true => Err(self.refused(format_args!("the {name} holds a NUL byte"))),
            false => Ok(()),
        }
    }

    /// Undoes percent-encoding; unlike in a query, `+` is itself here.
    fn decode(&self, text: &str, part: &str) -> Result<String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            let decoded = match tail {
                [high, low, ..] if byte == b'%' => digit(*high).zip(digit(*low)),
                _ => None,
            };
            match decoded {
                Some((high, low)) => {
                    bytes.push((high << 4 | low) as u8);
                    rest = &tail[2..];
                }
                None => {
                    bytes.push(byte);
                    rest = tail;
                }
            }
        }
        String::from_utf8(bytes).map_err(|_| self.refused(format_args!("the {part} is not UTF-8")))
    }
}

/// A variable of the environment that is set to something.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The host may be empty (`postgres://user@/database?host=/folder`), which a URL does not allow.
fn with_host(url: &str) -> Cow<'_, str> {
    let Some(start) = url.find("://").map(|at| at + 3) else { return url.into() };
    let authority = url[start..].split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rfind('@').map_or(0, |at| at + 1);
    if !authority[host..].is_empty() && !authority[host..].starts_with(':') {
        return url.into();
    }
    let (before, after) = url.split_at(start + host);
    format!("{before}localhost{after}").into()
}

/// Whether a password seems to have ended the host: one with `/`, `?` or `#` in it. What is behind it would be taken for
/// a database, a parameter or nothing, and be shown as such.
fn ends_early(url: &url::Url) -> bool {
    let mut names = url.query().unwrap_or_default().split('&').map(|pair| pair.split('=').next());
    url.fragment().is_some()
        || url.path().contains('@')
        || names.any(|name| name.is_some_and(|name| name.contains('@')))
}
