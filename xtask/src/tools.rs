//! Published packages of other languages that tests and benchmarks need: fetched once, pinned, into the target folder.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{progress, target_folder};

/// The MongoDB driver for Python: benchmarks measure against it, tests compare its JSON.
pub const PYMONGO: &str = "pymongo==4.20.0";

/// A Python in a virtual environment that has `requirement`, such as `pymongo==4.20.0`, and can import `module`.
pub fn python_with(requirement: &str, module: &str) -> Result<PathBuf> {
    let tools = target_folder().join("tools");
    let folder = tools.join(requirement.replace("==", "-"));
    let python = folder.join("bin/python");
    if is_usable(Command::new(&python).args(["-c", &format!("import {module}")])) {
        return Ok(python);
    }
    fs::create_dir_all(&tools).with_context(|| format!("create {}", tools.display()))?;
    progress(&format!("install {requirement} into {} (once)", folder.display()));
    let needs = "it needs python3 with venv (Debian, Ubuntu: apt-get install python3-venv)";
    quietly(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).context(needs)?;
    quietly(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        requirement,
    ]))?;
    ensure!(
        is_usable(Command::new(&python).args(["-c", &format!("import {module}")])),
        "{} cannot import {module}",
        python.display()
    );
    Ok(python)
}

/// A folder `node_modules` that has `package` in `version`.
pub fn node_modules_with(package: &str, version: &str) -> Result<PathBuf> {
    let folder = target_folder().join("tools").join(format!("node-{package}-{version}"));
    let modules = folder.join("node_modules");
    let require = format!("require({package:?})");
    let is_there = || is_usable(Command::new("node").args(["-e", &require]).env("NODE_PATH", &modules));
    if is_there() {
        return Ok(modules);
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    progress(&format!("install {package}@{version} into {} (once)", folder.display()));
    let needs = "it needs node and npm (Debian, Ubuntu: apt-get install nodejs npm)";
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&folder);
    quietly(npm.arg(format!("{package}@{version}"))).context(needs)?;
    ensure!(is_there(), "node cannot load {package} from {}", modules.display());
    Ok(modules)
}

fn is_usable(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn quietly(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {}", error.lines().last().unwrap_or_default());
    Ok(())
}
