//! `cargo xtask bench`: builds what is measured and its references, then lets `tailwater-bench` measure.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

use crate::{cargo, mongod, progress, target_folder, tools, workspace};

const PYMONGO: &str = "pymongo==4.20.0";

/// Which benchmark.
#[derive(Subcommand)]
pub enum Bench {
    /// From the change stream to a plugin's acknowledgement: speed, CPU and memory against bare loops; bench/results/tail.md
    Tail {
        /// How many events each run drains
        #[arg(long, default_value_t = 200_000)]
        events: u64,
        /// How often each contender runs
        #[arg(long, default_value_t = 7)]
        runs: usize,
        /// 20,000 events and 3 runs, to try it; the table goes to the target folder
        #[arg(long, conflicts_with_all = ["events", "runs"])]
        quick: bool,
    },
}

/// Builds and measures.
pub fn run(bench: Bench) -> Result<()> {
    let Bench::Tail { events, runs, quick } = bench;
    let (events, runs) = if quick { (20_000, 3) } else { (events, runs) };
    let (root, target) = (workspace(), target_folder());
    let mongod = mongod::find_or_fetch()?;
    build()?;
    let release = target.join("release");
    let results = if quick || runs < 7 { target.join("bench-tail.md") } else { root.join("bench/results/tail.md") };
    let mut command = Command::new(release.join("tailwater-bench"));
    command.arg("tail").arg("--mongod").arg(mongod).arg("--tailwater").arg(release.join("tailwater"));
    command.args(["--events", &events.to_string(), "--runs", &runs.to_string()]).arg("--results").arg(results);
    match tools::python_with(PYMONGO, "pymongo") {
        Ok(python) => {
            command.arg("--python").arg(python);
        }
        Err(error) => progress(&format!("going on without PyMongo: {error:#}")),
    }
    let status = command.status().context("start tailwater-bench")?;
    ensure!(status.success(), "the benchmark failed");
    Ok(())
}

fn build() -> Result<()> {
    progress("cargo build --release (some minutes where nothing is built yet)");
    let packages = ["tailwater", "tailwater-stdout", "tailwater-null", "tailwater-bench"];
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--locked"]).args(packages.iter().flat_map(|name| ["-p", name]));
    ensure!(cargo.status().context("start cargo build")?.success(), "cargo build --release failed");
    Ok(())
}
