//! Where a server is and how to log in: `postgres://user:password@host:port/database?sslmode=…`.
//!
//! The words are libpq's. A parameter that is not understood is refused: ignoring one could weaken what the
//! person asked for. The password is never printed; it may also come from `PGPASSWORD` or the password file.
//! Deliberately absent: several hosts, client certificates, GSSAPI, service files.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connector::{Error, ErrorKind, Result};
use net::{Host, SslMode, Tls};

const OPERATION: &str = "read a PostgreSQL URL";

/// Everything that a connection needs to know.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) dbname: String,
    pub(crate) tls: Tls,
    /// For the whole of connecting and logging in; `None` waits for ever.
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) application_name: String,
    /// Server settings, as `-c name=value …`.
    pub(crate) options: Option<String>,
    password: Option<String>,
}

impl Settings {
    pub(crate) fn parse(url: &str) -> Result<Settings> {
        let parsed = url::Url::parse(&with_host(url)).map_err(|error| {
            refused("it is not a URL").source(error).hint("write postgres://user@host:5432/database")
        })?;
        if !matches!(parsed.scheme(), "postgres" | "postgresql") {
            return Err(refused(format_args!("scheme {} is not postgres", parsed.scheme())));
        }
        if ends_early(&parsed) {
            return Err(refused("there is an @ or a # behind the host")
                .hint("in a password or a name write %2F for a slash, %3F for ?, %23 for # and %40 for @"));
        }
        let user = match decode(parsed.username(), "user")? {
            user if user.is_empty() => {
                environment("PGUSER").or_else(|| environment("USER")).unwrap_or_default()
            }
            user => user,
        };
        let dbname = decode(parsed.path().trim_start_matches('/'), "database")?;
        let mut settings = Settings {
            host: host(parsed.host_str().unwrap_or_default())?,
            port: parsed.port().unwrap_or(5432),
            dbname,
            user,
            tls: Tls { mode: SslMode::Prefer, authorities: None },
            connect_timeout: Some(Duration::from_secs(10)),
            application_name: "crossfade".to_owned(),
            options: None,
            password: parsed.password().map(|password| decode(password, "password")).transpose()?,
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
            "user" => self.user = value.into_owned(),
            "password" => self.password = Some(value.into_owned()),
            "dbname" => self.dbname = value.into_owned(),
            "sslmode" => self.tls.mode = sslmode(&value)?,
            "sslrootcert" => self.tls.authorities = Some(PathBuf::from(value.into_owned())),
            "connect_timeout" => {
                let seconds: u64 = number(name, &value)?;
                self.connect_timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            "application_name" => self.application_name = value.into_owned(),
            "options" => self.options = Some(value.into_owned()),
            _ => {
                return Err(refused(format_args!("parameter {name} is not known")).hint(
                    "known are host, port, user, password, dbname, sslmode, sslrootcert, connect_timeout, \
                     application_name and options",
                ));
            }
        }
        Ok(())
    }

    fn complete(mut self) -> Result<Settings> {
        if self.user.is_empty() {
            return Err(refused("it names no user").hint("write postgres://USER@host/database"));
        }
        if self.dbname.is_empty() {
            self.dbname.clone_from(&self.user);
        }
        for (name, value) in [("user", &self.user), ("database", &self.dbname)] {
            if value.contains('\0') {
                return Err(refused(format_args!("the {name} holds a NUL byte")));
            }
        }
        if self.password.as_ref().is_none_or(String::is_empty) {
            self.password = environment("PGPASSWORD").or_else(|| self.password_file());
        }
        Ok(self)
    }

    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Host, port and database, for messages.
    pub(crate) fn server(&self) -> String {
        match &self.host {
            Host::Tcp(host) if host.contains(':') => format!("[{host}]:{}/{}", self.port, self.dbname),
            Host::Tcp(host) => format!("{host}:{}/{}", self.port, self.dbname),
            Host::Unix(folder) => format!("{}:{}/{}", folder.display(), self.port, self.dbname),
        }
    }

    fn password_file(&self) -> Option<String> {
        let path = match environment("PGPASSFILE") {
            Some(path) => PathBuf::from(path),
            None => Path::new(&environment("HOME")?).join(".pgpass"),
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the password file cannot be read");
                return None;
            }
        };
        if others_can_read(&path) {
            tracing::warn!(path = %path.display(), "the password file is readable by others and not used; chmod 600 it");
            return None;
        }
        let host = match &self.host {
            Host::Tcp(host) => host.clone(),
            // libpq looks the default sockets up as localhost.
            Host::Unix(folder)
                if folder == Path::new("/var/run/postgresql") || folder == Path::new("/tmp") =>
            {
                "localhost".to_owned()
            }
            Host::Unix(folder) => folder.display().to_string(),
        };
        password_line(&text, &[&host, &self.port.to_string(), &self.dbname, &self.user])
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
        write!(f, "postgres://{}@{}", self.user, self.server())
    }
}

fn sslmode(text: &str) -> Result<SslMode> {
    SslMode::parse(text).ok_or_else(|| {
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

/// libpq lets the host be empty (`postgres://user@/database?host=/folder`), which a URL does not.
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

/// The host part of a URL: a name, an address, `[v6]`, or a percent-encoded folder.
fn host(text: &str) -> Result<Host> {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    host_name(&decode(bare, "host")?)
}

fn host_name(text: &str) -> Result<Host> {
    match text {
        "" => Ok(Host::Tcp("localhost".to_owned())),
        folder if folder.starts_with('/') => Ok(Host::Unix(PathBuf::from(folder))),
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

#[cfg(unix)]
fn others_can_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn others_can_read(_path: &Path) -> bool {
    false
}

/// Finds the first line `host:port:database:user:password` that fits; `*` fits all, `\` takes the next
/// character as it is.
fn password_line(text: &str, wanted: &[&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for wanted in wanted {
            let (field, tail) = password_field(rest)?;
            if rest.split(':').next() != Some("*") && field != *wanted {
                return None;
            }
            rest = tail;
        }
        Some(password_field(rest).map_or_else(|| unescape(rest), |(password, _)| password))
    })
}

/// The field up to the next unescaped colon, unescaped, and what follows the colon.
fn password_field(text: &str) -> Option<(String, &str)> {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b':' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some((unescape(&text[..end]), &text[end + 1..]))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => out.extend(characters.next()),
            plain => out.push(plain),
        }
    }
    out
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
            parse("postgres://me%40home:s%3Acret+@db.example:6432/shop?sslmode=require&connect_timeout=3");
        assert_eq!((settings.user.as_str(), settings.password()), ("me@home", Some("s:cret+")));
        assert_eq!((settings.host, settings.port), (Host::Tcp("db.example".to_owned()), 6432));
        assert_eq!((settings.dbname.as_str(), settings.tls.mode), ("shop", SslMode::Require));
        assert_eq!(settings.connect_timeout, Some(Duration::from_secs(3)));
        // A percent sign that begins no code is itself, whatever a number may begin with.
        assert_eq!(parse("postgres://u:5%+5%@h").password(), Some("5%+5%"));
    }

    #[test]
    fn hosts() {
        for (url, host) in [
            ("postgresql://u@[::1]:5433/d", Host::Tcp("::1".to_owned())),
            ("postgres://u@%2Fvar%2Frun%2Fpostgresql/d", Host::Unix("/var/run/postgresql".into())),
            ("postgres://u@/d?host=/tmp/socket", Host::Unix("/tmp/socket".into())),
            ("postgres:///d?host=/tmp/socket&user=u", Host::Unix("/tmp/socket".into())),
            ("postgres://u@:5433/d", Host::Tcp("localhost".to_owned())),
            ("postgres://u@127.0.0.1/d", Host::Tcp("127.0.0.1".to_owned())),
        ] {
            assert_eq!(parse(url).host, host, "{url}");
        }
        assert_eq!(parse("postgres://u@h").dbname, "u");
    }

    #[test]
    fn the_password_is_never_shown() {
        let settings = parse("postgres://u:topsecret@h/d?password=topsecret");
        assert!(!format!("{settings} {settings:?} {settings:#?}").contains("topsecret"));
        for bad in [
            "postgres://u:topsecret@h:99999/d",
            "mysql://u:topsecret@h/d",
            "topsecret",
            "postgres://u:1?topsecret@h/d",
            "postgres://u:1/topsecret@h/d",
            "postgres://u:1#topsecret@h/d",
        ] {
            let error = Settings::parse(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("topsecret"), "{error:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "postgres://u@h/d?sslmod=require",
            "postgres://u@h/d?sslmode=perhaps",
            "postgres://u@h/d?port=x",
            "postgres://u@h/d?host=a,b",
            "postgres://u@h/%00",
            "host=x",
        ] {
            assert_eq!(Settings::parse(bad).unwrap_err().kind, ErrorKind::Setup, "{bad}");
        }
    }

    #[test]
    fn the_password_file_is_read_as_libpq_does() {
        let file = "# a comment\nother:*:*:*:no\nh\\:1:5432:*:me:a\\:b\\\\c\n*:*:*:*:last:with:colons\n";
        assert_eq!(password_line(file, &["h:1", "5432", "d", "me"]).as_deref(), Some("a:b\\c"));
        assert_eq!(password_line(file, &["x", "1", "d", "u"]).as_deref(), Some("last"));
        assert_eq!(password_line("", &["x", "1", "d", "u"]), None);
    }
}
