//! The project's own commands. `cargo xtask demo` shows Tailwater at work, `cargo xtask test` gets what the tests need and
//! runs all of them, `cargo xtask fuzz` tries made-up bytes, `cargo xtask bench` measures.

mod bench;
mod demo;
mod fuzz;
mod mongod;
mod tests;
mod tools;
mod wheel;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch a shop's orders arrive in a browser: a throw-away MongoDB, Tailwater with three outputs, and a page
    Demo(demo::Demo),
    /// Get what the tests need (mongod, compilers for C and C++, Chromium) and run all of them
    Test {
        /// Run only the tests whose name contains this
        #[arg(long)]
        filter: Option<String>,
    },
    /// Measure against bare loops and peers; prints a table and writes it to bench/results
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Try the matcher, JSON and templates on bytes that a fuzzer makes up; needs a nightly toolchain
    Fuzz {
        /// How long in all; the targets share it
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Only this one: json, matcher or template
        target: Option<String>,
    },
    /// Print the path of the mongod the tests use, after fetching it where there is none
    Mongod {
        /// The one that splits large events (6.0.9 or later)
        #[arg(long)]
        split: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(demo) => demo::run(&demo),
        Command::Test { filter } => tests::run(filter.as_deref()),
        Command::Bench(bench) => bench::run(bench),
        Command::Fuzz { seconds, target } => fuzz::run(seconds, target.as_deref()),
        Command::Mongod { split } => {
            let mongod = if split { mongod::find_or_fetch_splitting()? } else { mongod::find_or_fetch()? };
            println!("{}", mongod.display());
            Ok(())
        }
    }
}

/// One line of progress, apart from the output that scripts read.
fn progress(line: &str) {
    eprintln!("xtask: {line}");
}

/// The folder of the workspace's `Cargo.toml`, wherever the command was typed.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// Where cargo builds to. A relative folder begins where [`cargo`] is started.
fn target_folder() -> PathBuf {
    workspace().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The cargo that started this, in the workspace and as if typed by hand: the variables it sets for a program that it runs make
/// build scripts that watch them (ring's) run again, and with them half of the dependencies.
fn cargo() -> Process {
    let mut cargo = Process::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    cargo
}
