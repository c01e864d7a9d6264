//! The examples that are not Rust say nothing that is not so: what they copy, start and name is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("read {file}: {error}"))
}

/// The `members` of the workspace, which cargo wants to find whatever it builds.
fn members() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).expect("members");
    members.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_dockerfile_copies_what_is_there_and_all_that_cargo_wants() {
    let text = read("examples/docker/Dockerfile");
    let mut copied = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from")) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        words.pop();
        copied.extend(words.into_iter().map(str::to_owned));
    }
    assert!(copied.len() > 5, "{copied:?}");
    for source in &copied {
        assert!(root().join(source).exists(), "the Dockerfile copies {source}, which there is not");
    }
    for member in members() {
        let is_copied = copied.iter().any(|source| Path::new(&member).starts_with(source));
        assert!(is_copied, "the Dockerfile does not copy {member}, a member of the workspace");
    }
}

#[test]
fn the_dockerfile_builds_packages_that_exist() {
    let names: Vec<String> = members()
        .iter()
        .filter_map(|member| {
            let manifest = read(&format!("{member}/Cargo.toml"));
            let name = manifest.lines().find_map(|line| line.strip_prefix("name = "))?;
            Some(name.trim_matches('"').to_owned())
        })
        .collect();
    let text = read("examples/docker/Dockerfile");
    let build = text.lines().find(|line| line.starts_with("RUN cargo build")).expect("RUN cargo build");
    let packages: Vec<&str> = build.split(" -p ").skip(1).filter_map(|rest| rest.split_whitespace().next()).collect();
    assert!(packages.contains(&"tailwater"), "{packages:?}");
    for package in packages {
        assert!(names.iter().any(|name| name == package), "the Dockerfile builds {package}, which there is not");
    }
}

#[test]
fn the_unit_waits_longer_than_a_drain_takes() {
    let text = read("examples/systemd/tailwater.service");
    let value = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("the unit has no {key}"))
    };
    let stop: u64 = value("TimeoutStopSec").trim_end_matches('s').parse().expect("seconds");
    let grace =
        tailwater::config::Config::parse(&read("config.toml"), "config.toml", &|_| None, std::time::SystemTime::now());
    assert!(Duration::from_secs(stop) > grace.expect("config.toml").shutdown_grace);
    assert_eq!(value("KillSignal"), "SIGTERM");
    assert_eq!(value("Restart"), "on-failure");
    for key in ["DynamicUser", "NoNewPrivileges", "ProtectHome", "MemoryDenyWriteExecute"] {
        assert_eq!(value(key), "yes", "{key}");
    }
    assert_eq!(value("ProtectSystem"), "strict");
    for key in ["StateDirectory", "LimitNOFILE"] {
        assert!(!value(key).is_empty());
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let text = read("examples/browser/index.html");
    for foreign in [" src=", "<link", "@import", "import("] {
        assert!(!text.contains(foreign), "the page has {foreign}");
    }
    for word in ["EventSource", "lastEventId", "\"reset\"", "sessionStorage", "last_event_id", "onerror"] {
        assert!(text.contains(word), "the page shows how to use {word}");
    }
}

#[test]
fn the_list_of_examples_is_whole() {
    let text = read("examples/README.md");
    for entry in fs::read_dir(root().join("examples")).expect("examples").map(|entry| entry.expect("entry")) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let listed = text.contains(&format!("]({name})")) || text.contains(&format!("]({name}/"));
        assert!(!entry.path().is_dir() || listed, "examples/README.md does not list {name}");
    }
}
