//! `crossfade init`: a commented `crossfade.toml`, or the JSON Schema of one.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use serde_json::json;

use crate::args::InitArgs;
use crate::report::{Error, Exit};
use crate::{config, output, settings};

pub(crate) fn run(args: &InitArgs, json: bool) -> Result<Exit, Error> {
    if args.schema {
        output::data(&format!("{:#}\n", config::schema()))?;
        return Ok(Exit::Done);
    }
    let (source, source_secret) =
        without_password(args.sides.source.as_deref(), "old", "CROSSFADE_SOURCE_PASSWORD");
    let (target, target_secret) =
        without_password(args.sides.target.as_deref(), "new", "CROSSFADE_TARGET_PASSWORD");
    let name = match &args.name {
        Some(name) if settings::plain(name) == *name => name.clone(),
        Some(name) => return Err(settings::Error::Name { name: name.clone() }.into()),
        None => settings::plain(&settings::database(&source).unwrap_or_else(|| "shop".to_owned())),
    };
    let text = file(&name, &source, &target);
    let path = &args.config;
    if !args.dry_run {
        let mut options = OpenOptions::new();
        options.write(true);
        if args.force {
            options.create(true).truncate(true)
        } else {
            options.create_new(true)
        };
        let mut file = options.open(path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::Exists { path: path.clone() },
            _ => Error::io(format!("write {}", path.display()))(error),
        })?;
        file.write_all(text.as_bytes()).map_err(Error::io(format!("write {}", path.display())))?;
    }
    let secrets: Vec<&str> = [source_secret, target_secret].into_iter().flatten().collect();
    if json {
        let body = json!({ "path": path, "written": !args.dry_run, "content": text, "environment": secrets });
        output::json(&body)?;
        return Ok(Exit::Done);
    }
    if args.dry_run {
        output::data(&text)?;
        return Ok(Exit::Done);
    }
    output::talk(&format!("wrote {}", path.display()));
    for variable in secrets {
        output::talk(&format!("the password is not in it: set {variable} in the environment"));
    }
    output::talk("next: crossfade check, then crossfade run");
    Ok(Exit::Done)
}

/// The URL with a variable in place of its password, and which variable that is.
fn without_password(url: Option<&str>, host: &str, variable: &'static str) -> (String, Option<&'static str>) {
    let Some(given) = url else {
        return (format!("postgres://app@{host}/shop"), None);
    };
    match url::Url::parse(given) {
        Ok(parsed) if parsed.password().is_some() => {
            let mut parsed = parsed;
            const MARK: &str = "PASSWORD-OF-THIS-SIDE";
            match parsed.set_password(Some(MARK)) {
                Ok(()) => (parsed.as_str().replacen(MARK, &format!("${{{variable}}}"), 1), Some(variable)),
                Err(()) => (crate::redact::redact(given), None),
            }
        }
        // Also what is no URL at all: it is written as it is but for what looks like a secret.
        _ => (crate::redact::redact(given), None),
    }
}

fn file(name: &str, source: &str, target: &str) -> String {
    let defaults = engine::Settings::new("", "");
    let (name, source, target) = (quoted(name), quoted(source), quoted(target));
    format!(
        r#"# A crossfade migration. `crossfade check` looks at both sides, `crossfade run` starts or goes on.
# Commented settings show their defaults. JSON Schema: crossfade init --schema

# The folder .crossfade/NAME and the records in the target are called after it.
name = {name}

[source]
# postgres://user@host:port/database or sqlite:path. ${{NAME}} stands for an environment variable: keep
# passwords there, percent-encoded as in any URL.
url = {source}

[target]
url = {target}

# Which tables: `schema.table` with * and ?. Without such a section, all of them.
# [[tables]]
# match = "public.*"

[copy]
# Concurrent chunk reads, and as many concurrent loads.
# streams = {streams}
# Size of one chunk on the source's disk.
# chunk_bytes = {chunk}
# A table larger than this is copied under several short snapshots instead of one long one ...
# one_cut_bytes_max = {one_cut}
# ... of which each lasts at most so long.
# wave_seconds_max = {wave}
# on: the copy gives way when the application works on the source. off: it never does.
# throttle = "on"

[apply]
# auto: catch-up while behind, strict once near. catch-up: gathers many source transactions into one. strict: writes at once.
# mode = "auto"
# Groups of transactions that are written at a time; they commit in the source's order.
# lanes = {lanes}
# Memory budget of one folded slice of changes.
# slice_bytes = {slice}
"#,
        streams = defaults.copy_streams,
        chunk = defaults.chunk_bytes,
        one_cut = defaults.one_cut_bytes_max,
        wave = defaults.wave_seconds_max,
        lanes = defaults.apply_lanes,
        slice = defaults.slice_bytes,
    )
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_out_of_the_file() {
        let given = Some("postgres://app:s3cret@old/shop?sslmode=require");
        assert_eq!(
            without_password(given, "old", "PW"),
            ("postgres://app:${PW}@old/shop?sslmode=require".to_owned(), Some("PW"))
        );
        assert_eq!(without_password(Some("sqlite:a.db"), "old", "PW"), ("sqlite:a.db".to_owned(), None));
        assert_eq!(without_password(None, "old", "PW"), ("postgres://app@old/shop".to_owned(), None));
    }

    #[test]
    fn the_file_is_valid_with_every_setting_uncommented() {
        let text = file("shop", "sqlite:\"a\".db", "sqlite:b.db");
        let all: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(code) if code.starts_with('[') || code.contains(" = ") => format!("{code}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let path = std::env::temp_dir().join(format!("crossfade-init-{}.toml", std::process::id()));
        for text in [text, all] {
            std::fs::write(&path, &text).unwrap();
            let config = config::load(&path).unwrap();
            assert_eq!(config.source.url(), Some("sqlite:\"a\".db"));
        }
        std::fs::remove_file(&path).unwrap();
    }
}
