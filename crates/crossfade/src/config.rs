//! `crossfade.toml`: what stands in the file, read strictly.
//!
//! A key that is not known is refused with its place and the nearest known one: a misspelt setting that is
//! silently ignored is a setting that somebody believes in. The known keys are those of the JSON Schema, which
//! is made from the types below, so the file, its check and its published form cannot drift apart.
//! Not here: defaults and what the settings mean together ([`crate::settings`]).

use std::collections::BTreeSet;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::nearest::nearest;

/// The file that is read when none is named.
pub(crate) const FILE: &str = "crossfade.toml";

/// The configuration of one crossfade migration.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "crossfade.toml")]
pub(crate) struct Config {
    /// The migration's name: lower-case letters, digits and `_`. By default the source database's name.
    pub(crate) name: Option<String>,
    pub(crate) source: Side,
    pub(crate) target: Side,
    /// Which tables are migrated; all of them when there is no such section.
    pub(crate) tables: Vec<Tables>,
    pub(crate) copy: Copy,
    pub(crate) apply: Apply,
}

/// A database.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Side {
    /// `postgres://user@host:port/database` or `sqlite:path`. `${NAME}` stands for an environment variable.
    #[schemars(with = "Option<String>")]
    url: Option<Spanned<String>>,
    #[serde(skip)]
    #[schemars(skip)]
    expanded: Option<String>,
}

/// A choice of tables.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tables {
    /// `schema.table` with `*` for any run of characters and `?` for one; without a dot, a table's name in
    /// every schema.
    #[serde(rename = "match")]
    pub(crate) pattern: String,
}

/// How existing rows are copied.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Copy {
    /// Concurrent chunk reads, and as many concurrent loads.
    pub(crate) streams: Option<NonZeroUsize>,
    /// Size of one chunk on the source's disk.
    pub(crate) chunk_bytes: Option<NonZeroU64>,
    /// A table larger than this is copied under several short snapshots instead of one long one.
    pub(crate) one_cut_bytes_max: Option<NonZeroU64>,
    /// How long one such snapshot may last.
    pub(crate) wave_seconds_max: Option<u64>,
    /// Whether the copy gives way when the application works on the source.
    pub(crate) throttle: Option<Throttle>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Throttle {
    /// As fast as it goes while nobody is hurt by it.
    On,
    /// As fast as it goes.
    Off,
}

/// How changes are applied.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Apply {
    pub(crate) mode: Option<ApplyMode>,
    /// Groups of transactions that are written at a time; they commit in the source's order.
    pub(crate) lanes: Option<NonZeroUsize>,
    /// Memory budget of one folded slice of changes.
    pub(crate) slice_bytes: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ApplyMode {
    /// Catch-up while behind, strict once near.
    Auto,
    /// Waits a moment for more: many source transactions become one of the target's.
    CatchUp,
    /// Writes what is there at once.
    Strict,
}

impl Side {
    /// With the environment's values in place.
    pub(crate) fn url(&self) -> Option<&str> {
        self.expanded.as_deref()
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}", show(places))]
    Refused { places: Vec<Place> },
}

/// One thing that is wrong, and where.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    line: usize,
    /// From 1, in characters.
    column: usize,
    /// How many characters the caret underlines.
    width: usize,
    /// The line itself, without its end.
    text: String,
    message: String,
    hint: Option<String>,
}

impl Error {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Error::Read { .. } => None,
            Error::Refused { places } => {
                let hints: Vec<&str> = places.iter().filter_map(|place| place.hint.as_deref()).collect();
                (!hints.is_empty()).then(|| hints.join("; "))
            }
        }
    }
}

/// Reads a file, with `${NAME}` in URLs taken from the environment.
pub(crate) fn load(path: &Path) -> Result<Config, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&text, path, &|name| std::env::var(name).ok())
}

/// The file's JSON Schema.
pub(crate) fn schema() -> Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|settings| {
        // Without references the unknown-key check can follow the document down the schema.
        settings.inline_subschemas = true;
    });
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

fn parse(text: &str, path: &Path, environment: Environment<'_>) -> Result<Config, Error> {
    let file = File { text, path };
    let refused = |error: toml::de::Error| Error::Refused {
        places: vec![file.place(error.span().unwrap_or(0..0), error.message().to_owned(), None)],
    };
    let document = DeTable::parse(text).map_err(refused)?;
    let mut places = Vec::new();
    unknown_keys(&file, document.get_ref(), &schema(), "", &mut places);
    if !places.is_empty() {
        places.sort_by_key(|place| (place.line, place.column));
        return Err(Error::Refused { places });
    }
    let mut config: Config = toml::from_str(text).map_err(refused)?;
    for side in [&mut config.source, &mut config.target] {
        if let Some(url) = &side.url {
            let expanded = expand(url.get_ref(), environment).map_err(|missing| Error::Refused {
                places: vec![file.place(
                    url.span(),
                    format!("the environment variable {missing} is not set"),
                    Some(format!("set {missing} in the environment of this command")),
                )],
            })?;
            side.expanded = Some(expanded);
        }
    }
    Ok(config)
}

/// `${NAME}` replaced by the variable's value; the name of the first that is not set.
fn expand(text: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, tail)) = after.split_once('}') else { break };
        out.push_str(before);
        out.push_str(&environment(name).ok_or_else(|| name.to_owned())?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

fn unknown_keys(file: &File<'_>, table: &DeTable<'_>, schema: &Value, within: &str, places: &mut Vec<Place>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    for (key, value) in table.iter() {
        let name = key.get_ref().as_ref();
        match properties.get(name) {
            Some(schema) => unknown_below(file, value.get_ref(), schema, name, places),
            None => {
                let section = if within.is_empty() {
                    "at the top of the file".to_owned()
                } else {
                    format!("in [{within}]")
                };
                let known: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
                let hint = match nearest(name, known.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => {
                        let known: Vec<&str> = known.into_iter().collect();
                        format!("known here: {}", known.join(", "))
                    }
                };
                places.push(file.place(key.span(), format!("unknown key `{name}` {section}"), Some(hint)));
            }
        }
    }
}

fn unknown_below(
    file: &File<'_>,
    value: &DeValue<'_>,
    schema: &Value,
    within: &str,
    places: &mut Vec<Place>,
) {
    if let Some(table) = value.as_table() {
        unknown_keys(file, table, schema, within, places);
    }
    if let (Some(array), Some(items)) = (value.as_array(), schema.get("items")) {
        for item in array.iter() {
            unknown_below(file, item.get_ref(), items, within, places);
        }
    }
}

struct File<'a> {
    text: &'a str,
    path: &'a Path,
}

impl File<'_> {
    fn place(&self, span: Range<usize>, message: String, hint: Option<String>) -> Place {
        let start = span.start.min(self.text.len());
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let text = self.text[line_start..].lines().next().unwrap_or("");
        let end = span.end.clamp(start, line_start + text.len().max(start - line_start));
        Place {
            path: self.path.to_owned(),
            line: self.text[..line_start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            width: self.text[start..end].chars().count().max(1),
            text: text.to_owned(),
            message,
            hint,
        }
    }
}

/// As a compiler shows it: the place, the line, and carets under what is meant. A URL in the line may hold a
/// password; the reporter redacts everything that it prints.
fn show(places: &[Place]) -> String {
    let mut out = String::new();
    for (at, place) in places.iter().take(PLACES_MAX).enumerate() {
        if at > 0 {
            out.push('\n');
        }
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        let carets = format!("{}{}", " ".repeat(place.column - 1), "^".repeat(place.width));
        out.push_str(&format!(
            "{}:{}:{}: {}\n{margin} |\n{number} | {}\n{margin} | {carets}",
            place.path.display(),
            place.line,
            place.column,
            place.message,
            place.text,
        ));
    }
    if places.len() > PLACES_MAX {
        out.push_str(&format!("\n… and {} more", places.len() - PLACES_MAX));
    }
    out
}

/// Each place repeats its line, so a file of one long line would be shown as often as it has mistakes.
const PLACES_MAX: usize = 20;

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Error> {
        parse(text, Path::new(FILE), &|name| (name == "PW").then(|| "s3cret".to_owned()))
    }

    #[test]
    fn a_whole_file() {
        let config = read(
            "name = \"shop\"\n[source]\nurl = \"postgres://app:${PW}@old/shop\"\n[target]\nurl = \"sqlite:b\"\n\
             [[tables]]\nmatch = \"public.*\"\n[copy]\nstreams = 4\n[apply]\nmode = \"catch-up\"\n",
        )
        .unwrap();
        assert_eq!(config.source.url(), Some("postgres://app:s3cret@old/shop"));
        assert_eq!(config.tables[0].pattern, "public.*");
        assert_eq!(config.copy.streams.map(NonZeroUsize::get), Some(4));
        assert_eq!(config.apply.mode, Some(ApplyMode::CatchUp));
    }

    #[test]
    fn refusals() {
        for (text, message, hint) in [
            (
                "[source]\nurll = \"sqlite:a\"\n",
                "crossfade.toml:2:1: unknown key `urll` in [source]\n  |\n2 | urll = \"sqlite:a\"\n  | ^^^^",
                Some("did you mean `url`?"),
            ),
            (
                "[copy]\nstreams = 2\nchunk_byte = 1\n",
                "crossfade.toml:3:1: unknown key `chunk_byte` in [copy]\n  |\n3 | chunk_byte = 1\n  | ^^^^^^^^^^",
                Some("did you mean `chunk_bytes`?"),
            ),
            (
                "[[tables]]\nmatch = \"a\"\n[[tables]]\n  mach = \"b\"\n",
                "crossfade.toml:4:3: unknown key `mach` in [tables]\n  |\n4 |   mach = \"b\"\n  |   ^^^^",
                Some("did you mean `match`?"),
            ),
            (
                "colour = 1\n",
                "crossfade.toml:1:1: unknown key `colour` at the top of the file\n  |\n1 | colour = 1\n  | ^^^^^^",
                Some("known here: apply, copy, name, source, tables, target"),
            ),
            (
                "[copy]\nstreams = \"two\"\n",
                "crossfade.toml:2:11: invalid type: string \"two\", expected a nonzero usize\n  |\n\
                 2 | streams = \"two\"\n  |           ^^^^^",
                None,
            ),
            (
                "[source]\nurl = \"postgres://${NOPE}\"\n",
                "crossfade.toml:2:7: the environment variable NOPE is not set\n  |\n\
                 2 | url = \"postgres://${NOPE}\"\n  |       ^^^^^^^^^^^^^^^^^^^^",
                Some("set NOPE in the environment of this command"),
            ),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(error.hint().as_deref(), hint);
        }
    }

    #[test]
    fn a_broken_file_points_at_the_place() {
        let error = read("name = \"shop\n[source]\n").unwrap_err().to_string();
        assert!(error.starts_with("crossfade.toml:1:"), "{error}");
        let error = read("[copy]\nstreams = 0\n").unwrap_err().to_string();
        assert!(error.starts_with("crossfade.toml:2:11: "), "{error}");
    }

    #[test]
    fn the_schema_names_every_section() {
        let schema = schema();
        for section in ["name", "source", "target", "tables", "copy", "apply"] {
            assert!(schema["properties"].get(section).is_some(), "{section}");
        }
        assert_eq!(schema["additionalProperties"], Value::Bool(false));
    }
}
