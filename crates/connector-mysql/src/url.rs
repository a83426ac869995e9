//! Where a server is and how to log in: `mysql://user:password@host:port/database?sslmode=…`, or `mariadb://…`.
//!
//! The words are those of `postgres://` URLs, beside them MySQL's own. A parameter that is not understood is refused:
//! ignoring one could weaken what the person asked for. The password is never printed; it may also come from
//! `MYSQL_PWD`. `localhost` means TCP here; a Unix socket is named by `socket=/path`.
//! Deliberately absent: several hosts, client certificates, option files.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use connector::Result;
use net::{Form, Host, SslMode, Tls, environment};

use crate::token::Left;

const FORM: Form = Form {
    reading: "read a MySQL URL",
    schemes: &["mysql", "mariadb"],
    example: "mysql://user@host:3306/database",
};

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
    /// What sessions that were opened with these settings have left behind.
    pub(crate) left: Left,
    /// Empty where there is none: to the server that is the same.
    password: String,
}

impl Settings {
    pub(crate) fn parse(url: &str) -> Result<Settings> {
        let address = FORM.parse(url)?;
        let mut settings = Settings {
            host: address.host,
            port: address.port.unwrap_or(3306),
            user: address.user,
            database: address.database,
            tls: Tls { mode: SslMode::Prefer, authorities: None },
            connect_timeout: Some(Duration::from_secs(10)),
            left: Left::default(),
            password: address.password.unwrap_or_default(),
        };
        if settings.user.is_empty() {
            settings.user = environment("USER").unwrap_or_default();
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
            "socket" => self.host = Host::Unix(PathBuf::from(value)),
            "user" => self.user = value,
            "password" => self.password = value,
            "database" => self.database = value,
            "sslmode" | "ssl-mode" => self.tls.mode = sslmode(&value)?,
            "sslrootcert" | "ssl-ca" => self.tls.authorities = Some(PathBuf::from(value)),
            "connect_timeout" => self.connect_timeout = FORM.timeout(name, &value)?,
            _ => {
                return Err(FORM.refused(format_args!("parameter {name} is not known")).hint(
                    "known are host, port, socket, user, password, database, sslmode, sslrootcert and connect_timeout",
                ));
            }
        }
        Ok(())
    }

    fn complete(mut self) -> Result<Settings> {
        if self.user.is_empty() {
            return Err(FORM.refused("it names no user").hint("write mysql://USER@host/database"));
        }
        if self.database.is_empty() {
            return Err(FORM.refused("it names no database").hint("write mysql://user@host/DATABASE"));
        }
        if self.password.is_empty() {
            self.password = environment("MYSQL_PWD").unwrap_or_default();
        }
        FORM.without_nul("user", &self.user)?;
        FORM.without_nul("database", &self.database)?;
        FORM.without_nul("password", &self.password)?;
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

/// MySQL's words, or libpq's.
fn sslmode(text: &str) -> Result<SslMode> {
    Ok(match text {
        "DISABLED" => SslMode::Disable,
        "PREFERRED" => SslMode::Prefer,
        "REQUIRED" => SslMode::Require,
        "VERIFY_CA" => SslMode::VerifyCa,
        "VERIFY_IDENTITY" => SslMode::VerifyFull,
        word => FORM.sslmode(word)?,
    })
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
