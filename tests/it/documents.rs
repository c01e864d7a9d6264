//! Every configuration in the READMEs of the repository and of its plugins and in `docs/` passes `tailwater check`, and
//! so do the parts of config.toml that are switched off.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::plugins_dir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Runs `tailwater check` on it, with a value for each variable that documents name.
fn check(document: &str, config: &str) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut config = config.to_owned();
    if !config.contains("[source]") {
        config.insert_str(0, "[source]\nuri = \"mongodb://127.0.0.1:27017/?replicaSet=rs0\"\nwatch = [\"shop.*\"]\n");
    }
    if config.contains("\n[plugins]") {
        config = config.replace("\n[plugins]", &format!("\n[plugins]\ndir = {:?}", plugins_dir()));
    } else {
        config.push_str(&format!("\n[plugins]\ndir = {:?}\n", plugins_dir()));
    }
    fs::write(folder.path().join("config.toml"), &config).expect("write config.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_tailwater"))
        .args(["check", "--config", "config.toml"])
        .current_dir(folder.path())
        .env("HOOK_TOKEN", "token")
        .env("HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .env("PUSHER_KEY", "key")
        .env("REDACT_KEY", "0123456789abcdef")
        .env("PUSHER_SECRET", "secret")
        .output()
        .expect("run tailwater check");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{document}: {errors}\n{config}");
}

/// The TOML examples of a Markdown text.
fn examples(text: &str) -> Vec<&str> {
    text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().expect("its end")).collect()
}

#[test]
fn every_configuration_in_a_readme_is_right() {
    let mut documents = vec!["README.md".to_owned(), "docs/match.md".to_owned(), "docs/operations.md".to_owned()];
    for entry in fs::read_dir(root().join("plugins")).expect("plugins") {
        let readme = format!("plugins/{}/README.md", entry.expect("a folder").file_name().to_string_lossy());
        if root().join(&readme).is_file() {
            documents.push(readme);
        }
    }
    assert!(documents.len() >= 4, "{documents:?}");
    for document in documents {
        let text = fs::read_to_string(root().join(&document)).expect("read");
        let found = examples(&text);
        assert!(!found.is_empty(), "{document} shows a configuration");
        found.iter().for_each(|example| check(&document, example));
    }
}

#[test]
fn what_config_toml_switches_off_is_right_when_it_is_switched_on() {
    let text = fs::read_to_string(root().join("config.toml")).expect("read");
    let (shown, off) = text.split_once("\n# Other outputs").expect("the part that is switched off");
    let (_, off) = off.split_once("\n\n").expect("its sections");
    let on: String = off.lines().map(|line| line.strip_prefix("# ").unwrap_or(line).to_owned() + "\n").collect();
    assert!(on.matches("\nplugin = ").count() >= 3, "{on}");
    check("config.toml", &format!("{shown}\n{on}"));
}
