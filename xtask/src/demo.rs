//! `cargo xtask demo`: gets a mongod, builds, and hands over to `tailwater-demo`.

use std::env;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{cargo, mongod, progress, target_folder};

const PACKAGES: [&str; 5] = ["tailwater", "tailwater-sse", "tailwater-stdout", "tailwater-webhook", "tailwater-demo"];

/// How long and where.
#[derive(Args)]
pub struct Demo {
    /// Stop after this time, with exit code 0 only if every output received every change: 20s, 5m
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    time: Option<u64>,
    /// Where the page is served; 0: on a free port
    #[arg(long, default_value_t = 8090)]
    port: u16,
    /// Where the event stream is served; 0: on a free port
    #[arg(long, default_value_t = 0)]
    sse_port: u16,
    /// Build without optimization: sooner there, slower to run
    #[arg(long)]
    debug: bool,
}

/// Gets ready and becomes the demo. Returns only with an error.
pub fn run(demo: &Demo) -> Result<()> {
    // Before anything that takes long.
    check_port(demo.port, "--port")?;
    check_port(demo.sse_port, "--sse-port")?;
    let mongod = mongod::find_or_fetch()?;
    build(demo.debug)?;
    let folder = target_folder().join(if demo.debug { "debug" } else { "release" });
    let program = folder.join("tailwater-demo");
    ensure!(
        program.is_file(),
        "cargo has not built {}: build.target or build.target-dir in a cargo configuration sends it elsewhere, take it out",
        program.display()
    );
    let mut command = Command::new(program);
    command.arg("--mongod").arg(mongod).arg("--tailwater").arg(folder.join("tailwater"));
    command.args(["--port", &demo.port.to_string(), "--sse-port", &demo.sse_port.to_string()]);
    if let Some(seconds) = demo.time {
        command.args(["--for", &seconds.to_string()]);
    }
    become_program(&mut command)
}

/// In place of this process: Ctrl-C then has one to reach, which cleans up before the prompt is back.
#[cfg(unix)]
fn become_program(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    Err(command.exec()).context("start tailwater-demo")
}

#[cfg(not(unix))]
fn become_program(_command: &mut Command) -> Result<()> {
    bail!("the demo runs on Linux and macOS, as Tailwater does; on Windows: in WSL")
}

fn check_port(port: u16, option: &str) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            bail!("port {port} is in use: choose another one with {option}, or 0 for any that is free")
        }
        Err(error) => bail!("listen on port {port}: {error}: choose another one with {option}"),
    }
}

fn build(debug: bool) -> Result<()> {
    check_platform()?;
    let profile: &[&str] = if debug { &[] } else { &["--release"] };
    progress(&format!("cargo build {} (some minutes where nothing is built yet)", profile.concat()));
    let mut build = cargo();
    // For this machine, in the folder where it is looked for.
    build.env_remove("CARGO_BUILD_TARGET");
    build.args(["build", "--locked"]).args(profile).args(PACKAGES.iter().flat_map(|name| ["-p", name]));
    let built = build.status().context("start cargo build: is cargo on PATH? https://rustup.rs installs it")?;
    if !built.success() {
        bail!("cargo build failed{}", missing_for_a_build().unwrap_or_default());
    }
    Ok(())
}

/// Before minutes of building what cannot be loaded in the end.
fn check_platform() -> Result<()> {
    let here = format!("{} on {}", env::consts::OS, env::consts::ARCH);
    ensure!(cfg!(unix), "the demo runs on Linux and macOS, not on {here}");
    ensure!(
        !cfg!(target_env = "musl"),
        "plugins are shared libraries, and Rust builds none for {here} with musl: use glibc"
    );
    Ok(())
}

/// What a build needs beside cargo, where it is missing.
fn missing_for_a_build() -> Option<String> {
    let works = |program: &str| {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !works("cc") {
        return Some(
            ": there is no C compiler and linker (cc); Debian, Ubuntu: apt-get install gcc libc6-dev".to_owned(),
        );
    }
    let output = Command::new("rustc").args(["--print", "target-libdir"]).output();
    let folder = match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => return Some(": rustc does not start; rustup default stable installs one".to_owned()),
    };
    let standard_library = Path::new(&folder).is_dir();
    (!standard_library).then(|| {
        format!(": this toolchain has no standard library in {folder}; rustup target add installs that of a target")
    })
}

/// `20s`, `5m`, or a number of seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number: Option<u64> = digits.parse().ok().filter(|number| *number > 0);
    number.and_then(|number| number.checked_mul(factor)).ok_or_else(|| "write 20s or 5m".to_owned())
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, expected) in [
            ("20s", Some(20)),
            ("5m", Some(300)),
            ("7", Some(7)),
            ("0s", None),
            ("s", None),
            ("1h", None),
            ("-1s", None),
        ] {
            assert_eq!(seconds(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_port_in_use_is_named_with_the_option() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = taken.local_addr().expect("its address").port();
        let error = check_port(port, "--port").expect_err("it is taken").to_string();
        assert_eq!(error, format!("port {port} is in use: choose another one with --port, or 0 for any that is free"));
    }
}
