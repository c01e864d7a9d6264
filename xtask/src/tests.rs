//! `cargo xtask test`: what the tests need, then all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{cargo, mongod, progress, target_folder, workspace};

/// Builds the plugins written in C, finds a mongod, and runs the tests of every package with both.
pub fn run(filter: Option<&str>) -> Result<()> {
    let started = Instant::now();
    let root = workspace();
    let mongod = mongod::find_or_fetch()?;
    progress(&format!("mongod: {}", mongod.display()));
    let c_plugins = build_c_plugins(&root)?;
    let mut command = cargo();
    command.args(["test", "--workspace", "--all-features", "--locked"]);
    command.env("TAILWATER_MONGOD", &mongod).env("TAILWATER_C_PLUGINS", &c_plugins);
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
    progress("cargo test --workspace --all-features");
    let status = command.status().context("start cargo test")?;
    ensure!(status.success(), "tests failed after {} s", started.elapsed().as_secs());
    progress(&format!("all tests passed in {} s", started.elapsed().as_secs()));
    Ok(())
}

/// Compiles each `examples/c/*.c` against the committed header alone, as a plugin author would, into a folder that the
/// loader accepts (not writable by others).
fn build_c_plugins(root: &Path) -> Result<PathBuf> {
    let folder = target_folder().join("c-plugins");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let Ok(sources) = fs::read_dir(root.join("examples/c")) else { return Ok(folder) };
    let sources = sources.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    for source in sources.filter(|path| path.extension().is_some_and(|extension| extension == "c")) {
        let name = source.file_stem().context("file name")?.to_string_lossy().into_owned();
        let library = folder.join(format!("libtailwater_{name}.so"));
        progress(&format!("cc {}", source.strip_prefix(root).unwrap_or(&source).display()));
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread", "-I"]);
        cc.arg(root.join("sdk/include")).arg(&source).arg("-o").arg(&library);
        let missing =
            "cc is not here, and the plugin in C needs it: install a C compiler (Debian, Ubuntu: apt-get install gcc)";
        let status = cc.status().context(missing)?;
        ensure!(status.success(), "cc failed on {}", source.display());
    }
    Ok(folder)
}
