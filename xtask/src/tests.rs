//! `cargo xtask test`: what the tests need, then all of them.

use std::env;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{mongod, progress, workspace};

/// Finds compilers for C and C++ and a mongod, and runs the tests of every package with them.
pub fn run(filter: Option<&str>) -> Result<()> {
    let started = Instant::now();
    check_compilers()?;
    let mongod = mongod::find_or_fetch()?;
    progress(&format!("mongod: {}", mongod.display()));
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace()).args(["test", "--workspace", "--all-features", "--locked"]);
    command.env("TAILWATER_MONGOD", &mongod);
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
    progress("cargo test --workspace --all-features");
    let status = command.status().context("start cargo test")?;
    ensure!(status.success(), "tests failed after {} s", started.elapsed().as_secs());
    progress(&format!("all tests passed in {} s", started.elapsed().as_secs()));
    Ok(())
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
