//! House style, as far as a script can check it: file heads and lengths, banned names, and documents that are true.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use tailwater::config::{self, Config};
use tailwater::{admin, checkpoint, dead_letters, event, lane, plugin, source, window};

/// Where Rust code lies; the root itself has `target`.
const FOLDERS: [&str; 10] = ["core", "sdk", "raw", "matcher", "plugins", "examples", "tests", "bench", "fuzz", "xtask"];

const LINES_MAX: usize = 600;

/// Words that name no idea; as part of a type's name or as a file's name.
const BANNED: [&str; 11] =
    ["Manager", "Handler", "Helper", "Util", "Utils", "Service", "Processor", "Impl", "Data", "Info", "Misc"];

#[test]
fn every_file_opens_with_what_it_owns() {
    each_file(
        |file, text| {
            if text.starts_with("//!") { None } else { Some(format!("{file} does not begin with //!")) }
        },
    );
}

#[test]
fn no_file_is_too_long() {
    each_file(|file, text| {
        let lines = text.lines().count();
        if lines <= LINES_MAX {
            None
        } else {
            Some(format!("{file} has {lines} lines, split it (at most {LINES_MAX})"))
        }
    });
}

#[test]
fn no_type_and_no_file_has_a_banned_name() {
    each_file(|file, text| {
        let stem = Path::new(file).file_stem()?.to_str()?;
        let banned = |word: &str| BANNED.iter().any(|name| name.eq_ignore_ascii_case(word));
        if banned(stem) || stem.split('_').any(banned) || ["common", "helpers"].contains(&stem) {
            return Some(format!("{file}: a file named after no idea"));
        }
        let name = type_names(text).into_iter().find(|name| camel_words(name).iter().any(|word| banned(word)))?;
        Some(format!("{file}: type {name} has a banned word in its name"))
    });
}

#[test]
fn nothing_is_put_off_or_left_out() {
    // Put together here, so that this file does not contain them.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["#[ign", "ore"].concat()];
    each_file(|file, text| {
        let mark = marks.iter().find(|mark| text.contains(mark.as_str()))?;
        Some(format!("{file} contains {mark}"))
    });
    each_file(|file, text| {
        let mut head = text.lines().filter(|line| line.starts_with("//!"));
        let line = head.find(|line| line.to_ascii_lowercase().contains("placeholder"))?;
        Some(format!("{file} is not what it says it will be: {line}"))
    });
}

#[test]
fn config_toml_is_right_and_shows_the_defaults() {
    let parse = |text: &str| {
        Config::parse(text, "config.toml", &|_| None, SystemTime::now()).unwrap_or_else(|error| panic!("{error}"))
    };
    let shown = parse(&read("config.toml"));
    let mut small = parse(
        "[source]\nuri = \"mongodb://127.0.0.1:27017/?replicaSet=rs0\"\nwatch = [\"*\"]\n[outputs.lines]\nplugin = \"stdout\"\n",
    );
    assert_eq!(shown, small, "config.toml says that it shows each key with its default");
    small.shutdown_grace *= 2;
    assert_ne!(shown, small);
}

#[test]
fn the_first_screen_of_the_readme_is_what_a_newcomer_needs() {
    let text = read("README.md");
    let screen = text.lines().take(60).collect::<Vec<_>>().join("\n");
    for wanted in ["```toml", "cargo xtask demo", "cargo xtask test", "## Guarantees"] {
        assert!(screen.contains(wanted), "README.md does not begin with {wanted}");
    }
}

#[test]
fn config_toml_names_every_key() {
    let text = read("config.toml");
    let keys = [
        config::KEYS,
        source::config::KEYS,
        window::config::KEYS,
        checkpoint::config::KEYS,
        dead_letters::config::KEYS,
        admin::config::KEYS,
        plugin::config::KEYS,
        lane::config::KEYS,
        lane::config::BATCH_KEYS,
        lane::config::RETRY_KEYS,
        lane::config::RATE_LIMIT_KEYS,
        lane::config::BACKLOG_KEYS,
        event::projection::config::KEYS,
    ];
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let missing: Vec<_> = keys.concat().into_iter().filter(|key| !words.contains(key)).collect();
    assert!(missing.is_empty(), "config.toml does not name {missing:?}");
}

#[test]
fn architecture_names_every_module_and_package() {
    let text = read("ARCHITECTURE.md");
    let mut missing = Vec::new();
    for entry in fs::read_dir(root().join("core/src")).expect("core/src") {
        let path = entry.expect("entry").path();
        let stem = path.file_stem().expect("name").to_string_lossy().into_owned();
        let named = [format!("`{stem}.rs`"), format!("`{stem}/`"), format!("`{stem}`")];
        if !named.iter().any(|name| text.contains(name)) {
            missing.push(format!("core/src/{stem}"));
        }
    }
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).expect("members");
    for member in members.split('"').skip(1).step_by(2) {
        if !text.contains(&format!("`{member}/`")) {
            missing.push(member.to_owned());
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name {missing:?}");
}

#[test]
fn the_commands_of_the_documents_exist() {
    let text = read("README.md");
    let tasks = words_after(&text, "cargo xtask ");
    assert!(tasks.contains(&"test".to_owned()), "README.md names `cargo xtask test`");
    let source = read("xtask/src/main.rs");
    for task in tasks {
        let variant = task[..1].to_uppercase() + &task[1..];
        assert!(source.contains(&format!("    {variant}")), "README.md names `cargo xtask {task}`, which there is not");
    }
    for document in ["README.md", "docs/operations.md"] {
        let commands = words_after(&read(document), "    tailwater ");
        assert!(!commands.is_empty(), "{document} names the commands of tailwater");
        for command in commands {
            let help =
                Command::new(env!("CARGO_BIN_EXE_tailwater")).args([&command, "--help"]).output().expect("tailwater");
            assert!(help.status.success(), "{document} names `tailwater {command}`, which there is not");
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("read {file}: {error}"))
}

/// Shows every Rust file to `fault` and fails with all that it finds.
fn each_file(fault: impl Fn(&str, &str) -> Option<String>) {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), &mut files);
    }
    assert!(files.len() > 20, "only {} files found", files.len());
    let faults: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let name = file.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
            fault(&name, &fs::read_to_string(file).expect("read"))
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.expect("entry").path()) {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The names that `struct`, `enum`, `trait`, `type` and `union` introduce.
fn type_names(text: &str) -> Vec<String> {
    // An associated type has the name that its trait gave it.
    let associated = |line: &str| line.starts_with(' ') && line.trim_start().starts_with("type ");
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//") && !associated(line));
    let words: Vec<&str> = code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')).collect();
    let introduces = |word: &str| ["struct", "enum", "trait", "type", "union"].contains(&word);
    words.windows(2).filter(|pair| introduces(pair[0])).map(|pair| pair[1].to_owned()).collect()
}

/// `BatchInfo` as `Batch`, `Info`.
fn camel_words(name: &str) -> Vec<&str> {
    let starts = name.char_indices().filter(|(_, c)| c.is_uppercase()).map(|(at, _)| at);
    let mut ends: Vec<usize> = starts.collect();
    ends.push(name.len());
    ends.windows(2).map(|pair| &name[pair[0]..pair[1]]).collect()
}

/// The word behind each occurrence of `prefix`.
fn words_after(text: &str, prefix: &str) -> Vec<String> {
    let word = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>();
    text.match_indices(prefix).map(|(at, _)| word(&text[at + prefix.len()..])).filter(|word| !word.is_empty()).collect()
}
