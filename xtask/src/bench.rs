//! `cargo xtask bench`: builds what is measured and its references, then lets `tailwater-bench` measure.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

use crate::{cargo, mongod, progress, target_folder, tools, workspace};

const PYMONGO: &str = "pymongo==4.20.0";

/// Fewer runs are no result.
const RUNS_MIN: usize = 7;

/// Which benchmark.
#[derive(Subcommand)]
pub enum Bench {
    /// From the change stream to a plugin's acknowledgement: speed, CPU and memory against bare loops; bench/results/tail.md
    Tail {
        /// How many events each run drains
        #[arg(long, default_value_t = 200_000)]
        events: u64,
        /// How often each contender runs
        #[arg(long, default_value_t = RUNS_MIN)]
        runs: usize,
        /// 20,000 events and 3 runs, to try it; the table goes to the target folder
        #[arg(long, conflicts_with_all = ["events", "runs"])]
        quick: bool,
    },
    /// From an insert to the client of an `sse` output: p50 and p99 against a bare watcher; bench/results/latency.md
    Latency {
        /// Inserts in a second
        #[arg(long, default_value_t = 200)]
        rate: u32,
        /// How long each of a run's three phases is measured
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        /// How often all phases are run
        #[arg(long, default_value_t = RUNS_MIN)]
        runs: usize,
        /// 3 runs of 3 s, to try it; the table goes to the target folder
        #[arg(long, conflicts_with_all = ["seconds", "runs"])]
        quick: bool,
    },
}

/// Builds and measures.
pub fn run(bench: Bench) -> Result<()> {
    let target = target_folder();
    let mongod = mongod::find_or_fetch()?;
    build()?;
    let (name, runs, quick) = match bench {
        Bench::Tail { runs, quick, .. } => ("tail", runs, quick),
        Bench::Latency { runs, quick, .. } => ("latency", runs, quick),
    };
    let runs = if quick { 3 } else { runs };
    let results = if runs < RUNS_MIN {
        target.join(format!("bench-{name}.md"))
    } else {
        workspace().join(format!("bench/results/{name}.md"))
    };
    let release = target.join("release");
    let mut command = Command::new(release.join("tailwater-bench"));
    command.arg(name).arg("--mongod").arg(mongod).arg("--tailwater").arg(release.join("tailwater"));
    command.args(["--runs", &runs.to_string()]).arg("--results").arg(results);
    match bench {
        Bench::Tail { events, .. } => {
            let events = if quick { 20_000 } else { events };
            command.args(["--events", &events.to_string()]);
            match tools::python_with(PYMONGO, "pymongo") {
                Ok(python) => {
                    command.arg("--python").arg(python);
                }
                Err(error) => progress(&format!("going on without PyMongo: {error:#}")),
            }
        }
        Bench::Latency { rate, seconds, .. } => {
            let seconds = if quick { 3 } else { seconds };
            command.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
        }
    }
    let status = command.status().context("start tailwater-bench")?;
    ensure!(status.success(), "the benchmark failed");
    Ok(())
}

/// The same for all benchmarks: another selection has other features, and would build half of the dependencies again.
fn build() -> Result<()> {
    progress("cargo build --release (some minutes where nothing is built yet)");
    let packages = ["tailwater", "tailwater-stdout", "tailwater-null", "tailwater-sse", "tailwater-bench"];
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--locked"]).args(packages.iter().flat_map(|name| ["-p", name]));
    ensure!(cargo.status().context("start cargo build")?.success(), "cargo build --release failed");
    Ok(())
}
