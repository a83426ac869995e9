//! Packages of another Debian suite, unpacked into a folder of their own: the machine's own packages stay as they are, and
//! no script of a package runs. What is in it is started by its own loader and libraries.

use std::path::Path;
use std::process::Command;

use crate::shell::{self, Result};

/// Brings packages and what they depend on into `folder`, signed as Debian signs them.
pub(super) fn unpack(suite: &str, folder: &Path, packages: &[&str]) -> Result {
    let apt = folder.with_extension("apt");
    let fresh = folder.with_extension("new");
    let failed =
        |what: &Path, error: std::io::Error| format!("could not prepare {}: {error}", what.display());
    for part in [&fresh, &apt] {
        if part.exists() {
            std::fs::remove_dir_all(part).map_err(|error| failed(part, error))?;
        }
    }
    for part in ["lists/partial", "cache/archives/partial", "parts", "state"] {
        std::fs::create_dir_all(apt.join(part)).map_err(|error| failed(&apt, error))?;
    }
    std::fs::create_dir_all(&fresh).map_err(|error| failed(&fresh, error))?;
    let configuration = apt.join("apt.conf");
    for (file, text) in [
        (apt.join("status"), String::new()),
        (apt.join("sources.list"), sources(suite)?),
        (configuration.clone(), settings(&apt)),
    ] {
        std::fs::write(&file, text).map_err(|error| failed(&file, error))?;
    }
    let mut update = Command::new("apt-get");
    shell::run(update.env("APT_CONFIG", &configuration).args(["-qq", "update"]))?;
    let mut download = Command::new("apt-get");
    download.env("APT_CONFIG", &configuration).args(["-qq", "-y", "--download-only", "install"]);
    shell::run(download.args(packages))?;
    let archives = apt.join("cache/archives");
    let archives = std::fs::read_dir(&archives).map_err(|error| failed(&archives, error))?;
    for archive in archives {
        let archive = archive.map_err(|error| failed(&apt, error))?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            shell::run(Command::new("dpkg-deb").arg("-x").args([&archive, &fresh]))?;
        }
    }
    std::fs::remove_dir_all(&apt).map_err(|error| failed(&apt, error))?;
    // Only what is whole bears the name that is looked for.
    std::fs::rename(&fresh, folder).map_err(|error| failed(folder, error))
}

/// The mirror that the machine itself uses.
fn sources(suite: &str) -> Result<String> {
    let mut indexes = Command::new("apt-get");
    let sites = shell::output(indexes.args(["indextargets", "--format", "$(SITE)", "Origin: Debian"]))?;
    let site = sites
        .lines()
        .find(|site| !site.contains("security"))
        .ok_or("apt knows no mirror of Debian: run `apt-get update`")?;
    Ok(format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {site} {suite} main\n"))
}

fn settings(apt: &Path) -> String {
    let apt = apt.display();
    format!(
        "Dir::Etc::SourceList \"{apt}/sources.list\";
Dir::Etc::SourceParts \"{apt}/parts\";
Dir::Etc::Preferences \"{apt}/none\";
Dir::Etc::PreferencesParts \"{apt}/parts\";
Dir::State \"{apt}/state\";
Dir::State::Lists \"{apt}/lists\";
Dir::State::status \"{apt}/status\";
Dir::Cache \"{apt}/cache\";
APT::Sandbox::User \"root\";
APT::Install-Recommends \"false\";
Acquire::Languages \"none\";
"
    )
}
