//! The only place that names the connectors. A new one is one line in [`ENGINES`].

use std::sync::Arc;

use connector::{Error, ErrorKind, Reader, Result, Writer};

use crate::nearest::nearest;
use crate::redact::redact;

struct Engine {
    /// In front of the colon of a URL.
    schemes: &'static [&'static str],
    reader: fn(&str) -> Result<Arc<dyn Reader>>,
    writer: fn(&str) -> Result<Arc<dyn Writer>>,
}

const ENGINES: &[Engine] = &[
    Engine {
        schemes: &["postgres", "postgresql"],
        reader: connector_postgres::open_reader,
        writer: connector_postgres::open_writer,
    },
    Engine {
        schemes: &["mariadb", "mysql"],
        reader: connector_mysql::open_reader,
        writer: connector_mysql::open_writer,
    },
    Engine {
        schemes: &["sqlite"],
        reader: connector_sqlite::open_reader,
        writer: connector_sqlite::open_writer,
    },
];

pub(crate) fn reader(url: &str) -> Result<Arc<dyn Reader>> {
    (find(url)?.reader)(url)
}

pub(crate) fn writer(url: &str) -> Result<Arc<dyn Writer>> {
    (find(url)?.writer)(url)
}

fn find(url: &str) -> Result<&'static Engine> {
    let schemes = || ENGINES.iter().flat_map(|engine| engine.schemes.iter().copied());
    let refused = |hint: String| {
        Error::new(ErrorKind::Setup, "tell which database is meant").with("url", redact(url)).hint(hint)
    };
    let Some((scheme, _)) = url.split_once(':') else {
        return Err(refused(format!("a file: sqlite:{url}; a server: postgres://user@host/{url}")));
    };
    ENGINES.iter().find(|engine| engine.schemes.contains(&scheme)).ok_or_else(|| {
        refused(match nearest(scheme, schemes()) {
            Some(meant) => format!("did you mean `{meant}:`?"),
            None => "known: postgres://user@host/database, mariadb://user@host/database and sqlite:path"
                .to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_databases_are_named_with_a_way_out() {
        for (url, hint) in [
            ("shop.db", "a file: sqlite:shop.db; a server: postgres://user@host/shop.db"),
            ("postgre://old/shop", "did you mean `postgres:`?"),
            (
                "oracle://old/shop",
                "known: postgres://user@host/database, mariadb://user@host/database and sqlite:path",
            ),
        ] {
            let error = find(url).err().unwrap();
            assert_eq!(error.hint.as_deref(), Some(hint));
        }
        let shown = find("oracle://app:s3cret@old/shop").err().unwrap().to_string();
        assert_eq!(shown, "could not tell which database is meant: url oracle://app:***@old/shop");
    }
}
