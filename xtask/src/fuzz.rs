//! `cargo xtask fuzz`: builds the targets of fuzz/ with nightly and lets each run for its share of the time.
//!
//! libFuzzer comes with the crate `libfuzzer-sys` and what rustc must be told is a line of flags, so cargo-fuzz need not be installed.
//! AddressSanitizer watches the border to PCRE2, where alone there is `unsafe`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{progress, target_folder, workspace};

const TARGETS: [&str; 3] = ["json", "matcher", "template"];

/// Coverage as libFuzzer wants it and the sanitizer, which is what `cargo fuzz build` asks for.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address --cfg fuzzing";

/// Beyond this an input has grown without bound. The targets stay below 200 MB, the sanitizer's own included.
const MEMORY_MB_MAX: u32 = 1024;
/// One input may not take longer; the slowest take a small part of a second.
const INPUT_SECONDS_MAX: u32 = 20;
const INPUT_BYTES_MAX: u32 = 4096;

/// Made inputs that a run begins with, beside those in fuzz/seeds.
const SEEDS: u64 = 32;

/// Runs one target or all of them, for so many seconds in all.
pub fn run(seconds: u64, target: Option<&str>) -> Result<()> {
    let targets: Vec<&str> = match target {
        None => TARGETS.into(),
        Some(target) if TARGETS.contains(&target) => vec![target],
        Some(other) => bail!("there is no target {other:?}: the targets are {}", TARGETS.join(", ")),
    };
    let share = seconds / targets.len() as u64;
    ensure!(share > 0, "{seconds} s are less than one for each of {} targets", targets.len());
    let programs = build()?;
    for target in targets {
        fuzz(&programs.join(target), target, share)?;
    }
    Ok(())
}

/// The folder of the programs.
fn build() -> Result<PathBuf> {
    let host = host()?;
    let folder = target_folder().join("fuzz");
    progress("build the fuzz targets with nightly");
    let mut command = nightly("cargo");
    command.args(["build", "--locked", "--release", "--bins", "--target", &host]).current_dir(workspace().join("fuzz"));
    let status = command.env("CARGO_TARGET_DIR", &folder).env("RUSTFLAGS", FLAGS).status().context("start rustup")?;
    ensure!(status.success(), "the fuzz targets cannot be built: {status}");
    Ok(folder.join(host).join("release"))
}

/// A program of the nightly toolchain, whatever toolchain this was started by.
fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", program]);
    for (name, _) in env::vars_os() {
        let set_by_cargo =
            |name: &str| name == "CARGO" || name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(set_by_cargo) {
            command.env_remove(name);
        }
    }
    command
}

fn host() -> Result<String> {
    let needs = "it needs rustup with a nightly toolchain: rustup toolchain install nightly --profile minimal";
    let output = nightly("rustc").arg("-vV").output().context(needs)?;
    ensure!(output.status.success(), "{needs}; {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8(output.stdout).context("the version of rustc")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name its host")?;
    Ok(host.to_owned())
}

/// Runs one target; what it finds worth keeping stays under the target folder and is where the next run goes on.
fn fuzz(program: &Path, target: &str, seconds: u64) -> Result<()> {
    let folder = target_folder().join("fuzz");
    let (corpus, found) = (folder.join("corpus").join(target), folder.join("found").join(target));
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    for (at, seed) in seeds(target).enumerate() {
        fs::write(corpus.join(format!("seed-{at}")), seed).context("write a seed")?;
    }
    let sources = workspace().join("fuzz");
    let mut command = Command::new(program);
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"));
    command.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
    command.arg(format!("-dict={}", sources.join("operators.dict").display()));
    // libFuzzer puts the file's name directly behind it.
    command.arg(format!("-artifact_prefix={}/", found.display()));
    command.arg("-print_final_stats=1").arg(&corpus);
    let given = sources.join("seeds").join(target);
    if given.is_dir() {
        command.arg(given);
    }
    // Freed memory that the sanitizer keeps back counts as the target's.
    command.env("ASAN_OPTIONS", "quarantine_size_mb=16");
    let output = command.output().with_context(|| format!("start {}", program.display()))?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        let written =
            log.lines().rev().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path.trim());
        match written {
            Some(path) => bail!("fuzz {target}: {}; again with: {} {path}", output.status, program.display()),
            None => bail!("fuzz {target}: {}, without a file; its corpus is {}", output.status, corpus.display()),
        }
    }
    let executions = statistic(&log, "number_of_executed_units").context("the fuzzer does not say how much it did")?;
    let memory_mb = statistic(&log, "peak_rss_mb").unwrap_or_default();
    ensure!(executions > 0, "fuzz {target}: nothing was tried");
    progress(&format!("fuzz {target}: {executions} executions in {seconds} s, at most {memory_mb} MB, nothing found"));
    Ok(())
}

/// A number of libFuzzer's last lines: `stat::peak_rss_mb:             36`.
fn statistic(log: &str, name: &str) -> Option<u64> {
    let mut lines = log.lines().filter_map(|line| line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':'));
    lines.next_back()?.trim().parse().ok()
}

/// Inputs of many lengths with nothing in them, so that the generators make something from the first second on.
fn seeds(target: &str) -> impl Iterator<Item = Vec<u8>> {
    let lead: &[u8] = if target == "template" { b"{{ a }}\0" } else { b"" };
    (1..=SEEDS).map(move |at| {
        // Xorshift: the same seeds on every machine.
        let mut state = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let chance = (0..at * 24).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        lead.iter().copied().chain(chance).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_read_from_the_last_lines() {
        let log = "stat::peak_rss_mb: 1\nstat::number_of_executed_units: 180496\nstat::peak_rss_mb:              33\n";
        assert_eq!(statistic(log, "number_of_executed_units"), Some(180_496));
        assert_eq!(statistic(log, "peak_rss_mb"), Some(33));
        assert_eq!(statistic(log, "slowest_unit_time_sec"), None);
    }

    #[test]
    fn each_target_is_one_of_the_package() {
        let manifest = fs::read_to_string(workspace().join("fuzz/Cargo.toml")).expect("fuzz/Cargo.toml");
        let names: Vec<_> = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")).collect();
        assert_eq!(names, TARGETS.map(|target| format!("{target}.rs\"")));
    }
}
