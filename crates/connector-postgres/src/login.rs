//! Opening a session: the byte stream, the startup message, the password.
//!
//! Knows trust, cleartext, md5 and SCRAM-SHA-256 (without channel binding). The password goes into the answers
//! that the server asks for and nowhere else.

use bytes::{Buf, Bytes};
use connector::{Error, ErrorKind, Result};
use net::from_socket;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use crate::connect;
use crate::error::corrupt;
use crate::url::Settings;
use crate::wire::{Client, Frame, State};

const OPERATION: &str = "connect";

impl Client {
    /// Connects and logs in, within the time limit of the settings. `startup` holds parameters beside user and
    /// database (`replication`, `options`, `application_name`); they win over the URL's.
    pub(crate) async fn connect(settings: &Settings, startup: &[(&str, &str)]) -> Result<Client> {
        let opening = open(settings, startup);
        let Some(limit) = settings.connect_timeout else { return opening.await };
        tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| {
            let why = format!("no session within {} s", limit.as_secs());
            let error = std::io::Error::new(std::io::ErrorKind::TimedOut, why);
            Err(from_socket(OPERATION, &settings.server(), error))
        })
    }
}

async fn open(settings: &Settings, startup: &[(&str, &str)]) -> Result<Client> {
    let socket = connect::open(settings).await?;
    let mut client = Client::new(socket, settings.server());
    let usual = client.operation;
    client.doing(OPERATION);
    let options: Vec<&str> = settings
        .options
        .as_deref()
        .into_iter()
        .chain(startup.iter().filter(|(name, _)| *name == "options").map(|(_, value)| *value))
        .collect();
    let options = options.join(" ");
    let mut parameters =
        vec![("user", settings.user.as_str()), ("database", &settings.dbname), ("client_encoding", "UTF8")];
    if !startup.iter().any(|(name, _)| *name == "application_name") {
        parameters.push(("application_name", &settings.application_name));
    }
    if !options.is_empty() {
        parameters.push(("options", &options));
    }
    parameters.extend(startup.iter().filter(|(name, _)| *name != "options"));
    frontend::startup_message(parameters, &mut client.outgoing).map_err(|error| client.unsendable(error))?;
    client.flush().await?;
    authenticate(&mut client, settings).await?;
    await_ready(&mut client).await?;
    silence(&mut client).await?;
    client.doing(usual);
    client.statement.clear();
    Ok(client)
}

async fn authenticate(client: &mut Client, settings: &Settings) -> Result<()> {
    loop {
        let mut body = request(client, settings).await?;
        let kind = body.get_u32();
        match kind {
            0 => return Ok(()),
            3 => answer(client, password(settings)?.as_bytes()).await?,
            5 => {
                let salt =
                    body.as_ref().try_into().map_err(|_| corrupt(OPERATION, "a salt is not four bytes"))?;
                let hash = md5_hash(settings.user.as_bytes(), password(settings)?.as_bytes(), salt);
                answer(client, hash.as_bytes()).await?;
            }
            10 => {
                if !body.split(|&byte| byte == 0).any(|name| name == SCRAM_SHA_256.as_bytes()) {
                    return Err(unknown_method(settings, "SASL without SCRAM-SHA-256"));
                }
                scram(client, settings).await?;
            }
            other => return Err(unknown_method(settings, &format!("number {other}"))),
        }
    }
}

async fn scram(client: &mut Client, settings: &Settings) -> Result<()> {
    let damaged = |error: std::io::Error| {
        Error::new(ErrorKind::Login, OPERATION).with("server", settings.server()).source(error)
    };
    let mut scram = ScramSha256::new(password(settings)?.as_bytes(), ChannelBinding::unsupported());
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut client.outgoing)
        .map_err(|error| client.unsendable(error))?;
    client.flush().await?;
    scram.update(&sasl(client, settings, 11).await?).map_err(damaged)?;
    frontend::sasl_response(scram.message(), &mut client.outgoing)
        .map_err(|error| client.unsendable(error))?;
    client.flush().await?;
    // The server proves that it knows the password too.
    scram.finish(&sasl(client, settings, 12).await?).map_err(damaged)
}

async fn sasl(client: &mut Client, settings: &Settings, expected: u32) -> Result<Bytes> {
    let mut body = request(client, settings).await?;
    match body.get_u32() {
        found if found == expected => Ok(body),
        found => Err(corrupt(OPERATION, format_args!("authentication step {found} instead of {expected}"))),
    }
}

/// The next authentication message, at least its four bytes of kind.
async fn request(client: &mut Client, settings: &Settings) -> Result<Bytes> {
    loop {
        let frame = client.receive().await?;
        match frame.tag {
            b'R' if frame.body.len() >= 4 => return Ok(frame.body),
            // A newer protocol's options were left out: none were asked for.
            b'v' => {}
            b'E' => return Err(client.refusal(&frame).with("user", &settings.user)),
            _ => return Err(client.malformed(&frame)),
        }
    }
}

async fn answer(client: &mut Client, password: &[u8]) -> Result<()> {
    frontend::password_message(password, &mut client.outgoing).map_err(|error| client.unsendable(error))?;
    client.flush().await
}

fn password(settings: &Settings) -> Result<&str> {
    settings.password().ok_or_else(|| {
        Error::new(ErrorKind::Login, OPERATION)
            .with("server", settings.server())
            .with("user", &settings.user)
            .with("because", "the server asks for a password and there is none")
            .hint("put it into the URL, PGPASSWORD or ~/.pgpass")
    })
}

fn unknown_method(settings: &Settings, method: &str) -> Error {
    Error::new(ErrorKind::Login, OPERATION)
        .with("server", settings.server())
        .with("authentication method", method)
        .hint("let pg_hba.conf ask this user for scram-sha-256, md5, password or trust")
}

async fn await_ready(client: &mut Client) -> Result<()> {
    loop {
        let frame = client.receive().await?;
        match frame.tag {
            b'K' => {
                let Frame { mut body, .. } = frame;
                if body.len() >= 8 {
                    client.pid = body.get_i32();
                    client.secret = body.get_i32();
                }
            }
            b'Z' => break,
            b'E' => return Err(client.refusal(&frame)),
            _ => return Err(client.malformed(&frame)),
        }
    }
    client.state = State::Ready;
    client.version = version_number(client.parameter("server_version").unwrap_or_default());
    Ok(())
}

/// Turns off the timers that older servers do not know, so that they cannot be among the startup options.
async fn silence(client: &mut Client) -> Result<()> {
    let timers: &[&str] = match client.version {
        170_000.. => &["idle_session_timeout", "transaction_timeout"],
        140_000.. => &["idle_session_timeout"],
        _ => return Ok(()),
    };
    let sets: String = timers.iter().map(|timer| format!("SET {timer} = 0;")).collect();
    client.execute(&sets).await?;
    Ok(())
}

/// `15.14 (Debian …)` → 150014, `18beta1` → 180000.
fn version_number(text: &str) -> u32 {
    let mut numbers = text
        .split(|character: char| !character.is_ascii_digit() && character != '.')
        .next()
        .unwrap_or_default()
        .split('.')
        .map(|digits| digits.parse().unwrap_or(0));
    let major: u32 = numbers.next().unwrap_or(0);
    major.saturating_mul(10_000).saturating_add(numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, number) in [
            ("15.14 (Debian 15.14-0+deb12u1)", 150_014),
            ("13.23", 130_023),
            ("18beta1", 180_000),
            ("18.4", 180_004),
            ("", 0),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }
}
