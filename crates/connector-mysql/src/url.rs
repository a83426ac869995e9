//! Where a server is and how to log in: `mysql://user:password@host:port/database?sslmode=…`, or `mariadb://…`.
//!
//! The words are those of `postgres://` URLs, beside them MySQL's own. A parameter that is not understood is refused:
//! ignoring one could weaken what the person asked for. The password is never printed; it may also come from
//! `MYSQL_PWD`. `localhost` means TCP here; a Unix socket is named by `socket=/path`.
//! Deliberately absent: several hosts, client certificates, option files.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use connector::{Error, ErrorKind, Result};
use net::{Host, SslMode, Tls};

const OPERATION: &str = "read a MySQL URL";

/// Everything that a connection needs to know.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) tls: Tls,
    /// For the whole of connecting and logging in; `None` waits for ever.
    pub(crate) connect_timeout: Option<Duration>,
    /// Empty where there is none: to the server that is the same.
    password: String,
}

impl Settings {
    pub(crate) fn parse(url: &str) -> Result<Settings> {
        let parsed = url::Url::parse(&with_host(url)).map_err(|error| {
            refused("it is not a URL").source(error).hint("write mysql://user@host:3306/database")
        })?;
        if !matches!(parsed.scheme(), "mysql" | "mariadb") {
            return Err(refused(format_args!("scheme {} is not mysql or mariadb", parsed.scheme())));
        }
        if ends_early(&parsed) {
            return Err(refused("there is an @ or a # behind the host")
                .hint("in a password or a name write %2F for a slash, %3F for ?, %23 for # and %40 for @"));
        }
        let user = match decode(parsed.username(), "user")? {
            user if user.is_empty() => environment("USER").unwrap_or_default(),
            user => user,
        };
        let mut settings = Settings {
            host: host(parsed.host_str().unwrap_or_default())?,
            port: parsed.port().unwrap_or(3306),
            user,
            database: decode(parsed.path().trim_start_matches('/'), "database")?,
            tls: Tls { mode: SslMode::Prefer, authorities: None },
            connect_timeout: Some(Duration::from_secs(10)),
            password: decode(parsed.password().unwrap_or_default(), "password")?,
        };
        for (name, value) in parsed.query_pairs() {
            settings.set(&name, value)?;
        }
        settings.complete()
    }

    fn set(&mut self, name: &str, value: Cow<'_, str>) -> Result<()> {
        match name {
            "host" => self.host = host_name(&value)?,
            "port" => self.port = number(name, &value)?,
            "socket" => self.host = Host::Unix(PathBuf::from(value.into_owned())),
            "user" => self.user = value.into_owned(),
            "password" => self.password = value.into_owned(),
            "database" => self.database = value.into_owned(),
            "sslmode" | "ssl-mode" => self.tls.mode = sslmode(&value)?,
            "sslrootcert" | "ssl-ca" => self.tls.authorities = Some(PathBuf::from(value.into_owned())),
            "connect_timeout" => {
                let seconds: u64 = number(name, &value)?;
                self.connect_timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            _ => {
                return Err(refused(format_args!("parameter {name} is not known")).hint(
                    "known are host, port, socket, user, password, database, sslmode, sslrootcert and connect_timeout",
                ));
            }
        }
        Ok(())
    }

    fn complete(mut self) -> Result<Settings> {
        if self.user.is_empty() {
            return Err(refused("it names no user").hint("write mysql://USER@host/database"));
        }
        if self.database.is_empty() {
            return Err(refused("it names no database").hint("write mysql://user@host/DATABASE"));
        }
        if self.password.is_empty() {
            self.password = environment("MYSQL_PWD").unwrap_or_default();
        }
        // All three end at a NUL byte on their way to the server.
        for (name, value) in
            [("user", &self.user), ("database", &self.database), ("password", &self.password)]
        {
            if value.contains('\0') {
                return Err(refused(format_args!("the {name} holds a NUL byte")));
            }
        }
        Ok(self)
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Host, port and database, for messages.
    pub(crate) fn server(&self) -> String {
        match &self.host {
            Host::Tcp(host) if host.contains(':') => format!("[{host}]:{}/{}", self.port, self.database),
            Host::Tcp(host) => format!("{host}:{}/{}", self.port, self.database),
            Host::Unix(socket) => format!("{}/{}", socket.display(), self.database),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({self})")
    }
}

/// The URL without its password.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mysql://{}@{}", self.user, self.server())
    }
}

fn sslmode(text: &str) -> Result<SslMode> {
    let mode = match text {
        "DISABLED" => Some(SslMode::Disable),
        "PREFERRED" => Some(SslMode::Prefer),
        "REQUIRED" => Some(SslMode::Require),
        "VERIFY_CA" => Some(SslMode::VerifyCa),
        "VERIFY_IDENTITY" => Some(SslMode::VerifyFull),
        word => SslMode::parse(word),
    };
    mode.ok_or_else(|| {
        refused(format_args!("sslmode {text} is not known")).hint(format!("use {}", SslMode::WORDS))
    })
}

fn refused(why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Setup, OPERATION).with("because", why)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| refused(format_args!("{name} {value} is not a number in range")))
}

/// The host may be empty (`mysql://user@/database?socket=/path`), which a URL does not allow.
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

/// The host part of a URL: a name, an address, `[v6]`, or the percent-encoded path of a socket.
fn host(text: &str) -> Result<Host> {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    host_name(&decode(bare, "host")?)
}

fn host_name(text: &str) -> Result<Host> {
    match text {
        "" => Ok(Host::Tcp("localhost".to_owned())),
        socket if socket.starts_with('/') => Ok(Host::Unix(PathBuf::from(socket))),
        several if several.contains(',') => {
            Err(refused("it names several hosts").hint("name the primary alone"))
        }
        name => Ok(Host::Tcp(name.to_owned())),
    }
}

/// Undoes percent-encoding; unlike in a query, `+` is itself here.
fn decode(text: &str, part: &str) -> Result<String> {
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
    String::from_utf8(bytes).map_err(|_| refused(format_args!("the {part} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Settings {
        Settings::parse(url).unwrap()
    }

    #[test]
    fn parts_are_found() {
        let settings =
            parse("mysql://me%40home:s%3Acret+@db.example:3307/shop?sslmode=require&connect_timeout=3");
        assert_eq!((settings.user.as_str(), settings.password()), ("me@home", "s:cret+"));
        assert_eq!((settings.host, settings.port), (Host::Tcp("db.example".to_owned()), 3307));
        assert_eq!((settings.database.as_str(), settings.tls.mode), ("shop", SslMode::Require));
        assert_eq!(settings.connect_timeout, Some(Duration::from_secs(3)));

        let settings = parse("mariadb://u:p@h/d");
        assert_eq!((settings.port, settings.tls), (3306, Tls { mode: SslMode::Prefer, authorities: None }));
        assert_eq!(settings.connect_timeout, Some(Duration::from_secs(10)));
        assert_eq!(parse("mysql://u:5%+5%@h/d").password(), "5%+5%");
    }

    #[test]
    fn hosts() {
        for (url, host, server) in [
            ("mysql://u@[::1]:3307/d", Host::Tcp("::1".to_owned()), "[::1]:3307/d"),
            ("mysql://u@127.0.0.1/d", Host::Tcp("127.0.0.1".to_owned()), "127.0.0.1:3306/d"),
            ("mysql://u@:3307/d", Host::Tcp("localhost".to_owned()), "localhost:3307/d"),
            ("mysql://u@/d?socket=/run/m.sock", Host::Unix("/run/m.sock".into()), "/run/m.sock/d"),
            ("mysql://u@localhost/d?socket=/run/m.sock", Host::Unix("/run/m.sock".into()), "/run/m.sock/d"),
            ("mysql://u@%2Frun%2Fm.sock/d", Host::Unix("/run/m.sock".into()), "/run/m.sock/d"),
        ] {
            let settings = parse(url);
            assert_eq!((settings.server().as_str(), settings.host), (server, host), "{url}");
        }
    }

    #[test]
    fn tls_has_the_words_of_both() {
        for (word, mode) in [
            ("disable", SslMode::Disable),
            ("DISABLED", SslMode::Disable),
            ("prefer", SslMode::Prefer),
            ("REQUIRED", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("VERIFY_IDENTITY", SslMode::VerifyFull),
        ] {
            assert_eq!(parse(&format!("mysql://u@h/d?ssl-mode={word}")).tls.mode, mode, "{word}");
        }
        let tls = parse("mysql://u@h/d?sslmode=verify-full&ssl-ca=/ca.pem").tls;
        assert_eq!(tls, Tls { mode: SslMode::VerifyFull, authorities: Some("/ca.pem".into()) });
    }

    #[test]
    fn the_password_is_never_shown() {
        let settings = parse("mysql://u:topsecret@h/d?password=topsecret");
        assert!(!format!("{settings} {settings:?} {settings:#?}").contains("topsecret"));
        for bad in [
            "mysql://u:topsecret@h:99999/d",
            "postgres://u:topsecret@h/d",
            "mysql://u:topsecret@h",
            "mysql://u:topsecret%00@h/d",
            "topsecret",
            "mysql://u:1?topsecret@h/d",
            "mysql://u:1/topsecret@h/d",
            "mysql://u:1#topsecret@h/d",
        ] {
            let error = Settings::parse(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("topsecret"), "{error:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "mysql://u@h/d?sslmod=require",
            "mysql://u@h/d?sslmode=perhaps",
            "mysql://u@h/d?port=x",
            "mysql://u@h/d?host=a,b",
            "mysql://u@h/%00",
            "mysql://u@h",
            "mysql://u@h/",
            "host=x",
        ] {
            assert_eq!(Settings::parse(bad).unwrap_err().kind, ErrorKind::Setup, "{bad}");
        }
    }
}
