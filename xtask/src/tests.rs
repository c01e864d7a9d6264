//! `cargo xtask test`: what the tests need, then all of them.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{cargo, mongod, progress, tools};

/// The published libraries that check the signatures of webhooks.
const STANDARD_WEBHOOKS_PYTHON: &str = "standardwebhooks==1.1.0";
const STANDARD_WEBHOOKS_NODE: (&str, &str) = ("standardwebhooks", "1.1.1");

/// Finds compilers for C and C++, a mongod and the libraries of other languages, and runs the tests of every package with them.
pub fn run(filter: Option<&str>) -> Result<()> {
    let started = Instant::now();
    check_compilers()?;
    let mongod = mongod::find_or_fetch()?;
    progress(&format!("mongod: {}", mongod.display()));
    let needed = Needed {
        mongod,
        python: tools::python_with(STANDARD_WEBHOOKS_PYTHON, "standardwebhooks")?,
        node_modules: tools::node_modules_with(STANDARD_WEBHOOKS_NODE.0, STANDARD_WEBHOOKS_NODE.1)?,
    };
    let mut command = cargo_test(&needed);
    if let Some(filter) = filter {
        let count = count_matching(cargo_test(&needed), filter)?;
        ensure!(count > 0, "no test has \"{filter}\" in its name; cargo test --workspace -- --list names all of them");
        progress(&format!("{count} tests have \"{filter}\" in their name"));
        command.args(["--", filter]);
    }
    progress("cargo test --workspace --all-features");
    let status = command.status().context("start cargo test")?;
    ensure!(status.success(), "tests failed after {} s", started.elapsed().as_secs());
    let which = if filter.is_some() { "these" } else { "all" };
    progress(&format!("{which} tests passed in {} s", started.elapsed().as_secs()));
    Ok(())
}

/// Where the tests find what they need.
struct Needed {
    mongod: PathBuf,
    /// With the library of Standard Webhooks.
    python: PathBuf,
    /// A folder with the same library for node.
    node_modules: PathBuf,
}

fn cargo_test(needed: &Needed) -> Command {
    let mut command = cargo();
    command.args(["test", "--workspace", "--all-features", "--locked"]);
    command.env("TAILWATER_MONGOD", &needed.mongod);
    command.env("TAILWATER_PYTHON", &needed.python).env("TAILWATER_NODE_MODULES", &needed.node_modules);
    command
}

/// How many tests a filter leaves. Cargo calls a run of none a success, and a mistyped filter would look like a proof.
fn count_matching(mut cargo_test: Command, filter: &str) -> Result<usize> {
    // Standard error, and with it the progress of the build, is shown as it comes.
    let list = cargo_test.args(["--", "--list", filter]).stderr(Stdio::inherit()).output();
    let list = list.context("start cargo test")?;
    ensure!(list.status.success(), "cargo test -- --list failed: {}", list.status);
    Ok(count_listed(&String::from_utf8_lossy(&list.stdout)))
}

/// Counts the lines `NAME: test` of a test program's list.
fn count_listed(list: &str) -> usize {
    list.lines().filter(|line| line.ends_with(": test")).count()
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
        for (list, count) in [
            ("", 0),
            ("\n0 tests, 0 benchmarks\n", 0),
            ("kill_loop::nothing_is_lost: test\n\n1 test, 0 benchmarks\n", 1),
            ("a: test\nb: test\n2 tests, 0 benchmarks\nsrc/lib.rs - c (line 3): test\n", 3),
        ] {
            assert_eq!(count_listed(list), count, "{list:?}");
        }
    }
}
