//! Where a server is and how to log in: `postgres://user:password@host:port/database?sslmode=…`.
//!
//! The words are libpq's. A parameter that is not understood is refused: ignoring one could weaken what the
//! person asked for. The password is never printed; it may also come from `PGPASSWORD` or the password file.
//! Deliberately absent: several hosts, client certificates, GSSAPI, service files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connector::Result;
use net::{Form, Host, SslMode, Tls, environment};

const FORM: Form = Form {
    reading: "read a PostgreSQL URL",
    schemes: &["postgres", "postgresql"],
    example: "postgres://user@host:5432/database",
};

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
        let address = FORM.parse(url)?;
        let mut settings = Settings {
            host: address.host,
            port: address.port.unwrap_or(5432),
            user: address.user,
            dbname: address.database,
            tls: Tls { mode: SslMode::Prefer, authorities: None },
            connect_timeout: Some(Duration::from_secs(10)),
            application_name: "crossfade".to_owned(),
            options: None,
            password: address.password,
        };
        if settings.user.is_empty() {
            settings.user = environment("PGUSER").or_else(|| environment("USER")).unwrap_or_default();
        }
        for (name, value) in address.parameters {
            settings.set(&name, value)?;
        }
        settings.complete()
    }

    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "host" => self.host = FORM.host(&value)?,
            "port" => self.port = FORM.number(name, &value)?,
            "user" => self.user = value,
            "password" => self.password = Some(value),
            "dbname" => self.dbname = value,
            "sslmode" => self.tls.mode = FORM.sslmode(&value)?,
            "sslrootcert" => self.tls.authorities = Some(PathBuf::from(value)),
            "connect_timeout" => self.connect_timeout = FORM.timeout(name, &value)?,
            "application_name" => self.application_name = value,
            "options" => self.options = Some(value),
            _ => {
                return Err(FORM.refused(format_args!("parameter {name} is not known")).hint(
                    "known are host, port, user, password, dbname, sslmode, sslrootcert, connect_timeout, \
                     application_name and options",
                ));
            }
        }
        Ok(())
    }

    fn complete(mut self) -> Result<Settings> {
        if self.user.is_empty() {
            return Err(FORM.refused("it names no user").hint("write postgres://USER@host/database"));
        }
        if self.dbname.is_empty() {
            self.dbname.clone_from(&self.user);
        }
        FORM.without_nul("user", &self.user)?;
        FORM.without_nul("database", &self.dbname)?;
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
    use connector::ErrorKind;

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
