//! `cargo xtask test`: what the tests need, then all of them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{cargo, mongod, progress, tools};

/// What Chromium is called.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The tests that need it are in files called so.
const BROWSER_TESTS: &str = "browser_";

/// The published libraries that check the signatures of webhooks.
const STANDARD_WEBHOOKS_PYTHON: &str = "standardwebhooks==1.1.0";
const STANDARD_WEBHOOKS_NODE: (&str, &str) = ("standardwebhooks", "1.1.1");

/// The tests that need them are in a file called so.
const SIGNATURE_TESTS: &str = "webhook_signatures";

/// The tests that need PyMongo are in a module called so.
const PYMONGO_TESTS: &str = "pymongo::";

/// The tests that need a server which splits large events are in files called so.
const SPLIT_TESTS: &str = "split_";

/// Finds compilers for C and C++, a mongod, Chromium and libraries of other languages, and runs the tests of every package.
pub fn run(filter: Option<&str>) -> Result<()> {
    let started = Instant::now();
    check_compilers()?;
    let mongod = mongod::find_or_fetch()?;
    progress(&format!("mongod: {}", mongod.display()));
    let mut command = cargo_test(&mongod);
    let mut names = None;
    if let Some(filter) = filter {
        let found = list_matching(cargo_test(&mongod), filter)?;
        let count = found.len();
        ensure!(count > 0, "no test has \"{filter}\" in its name; cargo test --workspace -- --list names all of them");
        progress(&format!("{count} tests have \"{filter}\" in their name"));
        command.args(["--", filter]);
        names = Some(found);
    }
    // What only some tests need is looked for before they run: without it they would fail one by one, late.
    let runs = |tests: &str| names.as_ref().is_none_or(|names| names.iter().any(|name| name.starts_with(tests)));
    if runs(BROWSER_TESTS) {
        let browser = find_browser()?;
        progress(&format!("browser: {}", browser.display()));
        command.env("TAILWATER_CHROMIUM", browser);
    }
    if runs(SIGNATURE_TESTS) {
        command.env("TAILWATER_PYTHON", tools::python_with(STANDARD_WEBHOOKS_PYTHON, "standardwebhooks")?);
        let (name, version) = STANDARD_WEBHOOKS_NODE;
        command.env("TAILWATER_NODE_MODULES", tools::node_modules_with(name, version)?);
    }
    if runs(PYMONGO_TESTS) {
        command.env("TAILWATER_PYMONGO", tools::python_with(tools::PYMONGO, "pymongo")?);
    }
    if runs(SPLIT_TESTS) {
        let mongod = mongod::find_or_fetch_splitting()?;
        progress(&format!("mongod that splits large events: {}", mongod.display()));
        command.env("TAILWATER_MONGOD_SPLIT", mongod);
    }
    progress("cargo test --workspace --all-features");
    let status = command.status().context("start cargo test")?;
    ensure!(status.success(), "tests failed after {} s", started.elapsed().as_secs());
    let which = if filter.is_some() { "these" } else { "all" };
    progress(&format!("{which} tests passed in {} s", started.elapsed().as_secs()));
    Ok(())
}

fn cargo_test(mongod: &Path) -> Command {
    let mut command = cargo();
    command.args(["test", "--workspace", "--all-features", "--locked"]);
    command.env("TAILWATER_MONGOD", mongod);
    command
}

/// The tests that a filter leaves. Cargo calls a run of none a success, and a mistyped filter would look like a proof.
fn list_matching(mut cargo_test: Command, filter: &str) -> Result<Vec<String>> {
    // Standard error, and with it the progress of the build, is shown as it comes.
    let list = cargo_test.args(["--", "--list", filter]).stderr(Stdio::inherit()).output();
    let list = list.context("start cargo test")?;
    ensure!(list.status.success(), "cargo test -- --list failed: {}", list.status);
    Ok(listed(&String::from_utf8_lossy(&list.stdout)))
}

/// The names in the lines `NAME: test` of a test program's list.
fn listed(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// The first that there is: `TAILWATER_CHROMIUM`, or one on PATH.
fn find_browser() -> Result<PathBuf> {
    let browser = match env::var_os("TAILWATER_CHROMIUM") {
        Some(given) => PathBuf::from(given),
        None => {
            let path = env::var_os("PATH").unwrap_or_default();
            let mut files = env::split_paths(&path).flat_map(|folder| BROWSERS.map(|name| folder.join(name)));
            files.find(|file| file.is_file()).context(
                "the browser tests need Chromium, which is not here: install it (Debian: apt-get install chromium), or set \
                 TAILWATER_CHROMIUM to its path; --filter runs some tests without it",
            )?
        }
    };
    let output = Command::new(&browser).arg("--version").output();
    let output = output.with_context(|| format!("start {} --version", browser.display()))?;
    ensure!(output.status.success(), "{} --version: {}", browser.display(), output.status);
    Ok(browser)
}

/// The tests compile plugins in C, and the header as C++; without the compilers they would fail one by one, late.
fn check_compilers() -> Result<()> {
    for (compiler, packages) in [("cc", "gcc libc6-dev"), ("c++", "g++")] {
        let output = Command::new(compiler).arg("--version").output().with_context(|| {
            format!(
                "the tests need {compiler}, which is not here: install it (Debian, Ubuntu: apt-get install {packages})"
            )
        })?;
        ensure!(output.status.success(), "{compiler} --version: {}", output.status);
    }
    Ok(())
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn only_tests_count() {
        for (list, names) in [
            ("", vec![]),
            ("\n0 tests, 0 benchmarks\n", vec![]),
            ("kill_loop::nothing_is_lost: test\n\n1 test, 0 benchmarks\n", vec!["kill_loop::nothing_is_lost"]),
            (
                "a: test\nb: test\n2 tests, 0 benchmarks\nsrc/lib.rs - c (line 3): test\n",
                vec!["a", "b", "src/lib.rs - c (line 3)"],
            ),
        ] {
            assert_eq!(listed(list), names, "{list:?}");
        }
    }
}
