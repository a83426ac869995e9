//! The documentation names what is there: every error code and finding has its entry and no other has one, and the
//! paths of the map exist.

#![expect(clippy::unwrap_used, reason = "a fault in a test is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Everything below a folder, folders included, but for what git or cargo keep there.
fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if [".git", "target"].iter().any(|kept| path.ends_with(kept)) {
            continue;
        }
        if path.is_dir() {
            below(&path, found);
        }
        found.push(path);
    }
}

/// The string literals of the crates' sources that are an id with one of these prefixes.
fn in_sources(prefixes: &[&str]) -> BTreeSet<String> {
    let mut files = Vec::new();
    for member in fs::read_dir(root().join("crates")).unwrap() {
        let sources = member.unwrap().path().join("src");
        if sources.is_dir() {
            below(&sources, &mut files);
        }
    }
    files.retain(|file| file.extension().is_some_and(|ending| ending == "rs"));
    let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
    texts
        .flat_map(|text| {
            text.split('"').filter(|word| is_id(word, prefixes)).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

fn is_id(word: &str, prefixes: &[&str]) -> bool {
    let tail = prefixes.iter().find_map(|prefix| word.strip_prefix(prefix));
    tail.is_some_and(|tail| {
        !tail.is_empty() && tail.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
    })
}

/// The ids that a page has a heading for.
fn in_page(page: &str, prefixes: &[&str]) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_start_matches('#').trim())
        .filter(|word| is_id(word, prefixes))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_error_code_is_explained() {
    assert_eq!(
        in_page("docs/reference/errors.md", &["CF-"]),
        in_sources(&["CF-"]),
        "left: documented, right: in the sources"
    );
}

#[test]
fn every_finding_is_explained() {
    let prefixes = &["PG-", "SQ-", "MY-"];
    assert_eq!(
        in_page("docs/reference/checks.md", prefixes),
        in_sources(prefixes),
        "left: documented, right: in the sources"
    );
}

#[test]
fn the_paths_of_the_map_exist() {
    let mut paths = Vec::new();
    below(&root(), &mut paths);
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let missing: Vec<&str> = text
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|word| is_path(word))
        // The map shortens paths to what tells the file: any whole end of a path will do.
        .filter(|word| !paths.iter().any(|path| path.ends_with(word)))
        .collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:?}");
}

fn is_path(word: &str) -> bool {
    let has_form = word.contains('/') || [".rs", ".md", ".toml"].iter().any(|ending| word.ends_with(ending));
    has_form && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte))
}

/// Links between the pages, and from a page to a heading of another one.
#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages = Vec::new();
    below(&root().join("docs"), &mut pages);
    pages.retain(|page| page.extension().is_some_and(|ending| ending == "md"));
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let found = fs::read_to_string(&target)
                .unwrap_or_else(|error| panic!("{link} in {}: {error}", page.display()));
            let has_anchor =
                anchor.is_empty() || found.lines().any(|line| line.starts_with('#') && slug(line) == anchor);
            assert!(has_anchor, "{link} in {}: there is no such heading", page.display());
        }
    }
}

/// A heading's anchor, as Markdown viewers make it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}
