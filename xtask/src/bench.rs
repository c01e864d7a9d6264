//! `cargo xtask bench`: builds what is measured and its references, then lets `tailwater-bench` measure.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

use crate::{cargo, mongod, progress, target_folder, tools, workspace};

/// Fewer runs are no result.
const RUNS_MIN: usize = 7;

/// A smaller backlog is no result.
const BACKLOG: u64 = 500_000;

/// Rounds of each run of `event`.
const ROUNDS: usize = 1_000;

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
    /// A receiver of 2,000 events/s that is 500,000 behind, beside one at full speed: lag, order and memory over time, plotted;
    /// bench/results/backlog.md and backlog.svg
    Backlog {
        /// How many events the slow receiver is behind; with fewer than 500,000 the results go to the target folder
        #[arg(long, default_value_t = BACKLOG)]
        events: u64,
        /// Events that the slow receiver takes in a second
        #[arg(long, default_value_t = 2_000)]
        rate: u32,
        /// Changes written in a second meanwhile
        #[arg(long, default_value_t = 200)]
        writes: u32,
        /// 20,000 events, to try it; the results go to the target folder
        #[arg(long, conflicts_with = "events")]
        quick: bool,
    },
    /// JSON, match and template of one event, against the same on a `bson::Document`; needs no mongod; bench/results/event.md
    Event {
        /// How often all rounds are run
        #[arg(long, default_value_t = RUNS_MIN)]
        runs: usize,
        /// 3 runs of 100 rounds, to try it; the table goes to the target folder
        #[arg(long, conflicts_with = "runs")]
        quick: bool,
    },
    /// 1, 10 and 100 outputs with a match each, with pushdown and without: mongod's CPU, bytes, our CPU and memory;
    /// bench/results/routing.md
    Routing {
        /// How many events the history has
        #[arg(long, default_value_t = 100_000)]
        events: u64,
        /// How often each contender runs
        #[arg(long, default_value_t = RUNS_MIN)]
        runs: usize,
        /// 10,000 events and 2 runs, to try it; the table goes to the target folder
        #[arg(long, conflicts_with_all = ["events", "runs"])]
        quick: bool,
    },
}

/// Builds and measures.
pub fn run(bench: Bench) -> Result<()> {
    let target = target_folder();
    let mongod = if matches!(bench, Bench::Event { .. }) { None } else { Some(mongod::find_or_fetch()?) };
    build()?;
    let (name, is_result) = match bench {
        Bench::Tail { runs, quick, .. } => ("tail", !quick && runs >= RUNS_MIN),
        Bench::Latency { runs, quick, .. } => ("latency", !quick && runs >= RUNS_MIN),
        Bench::Backlog { events, quick, .. } => ("backlog", !quick && events >= BACKLOG),
        Bench::Event { runs, quick } => ("event", !quick && runs >= RUNS_MIN),
        Bench::Routing { runs, quick, .. } => ("routing", !quick && runs >= RUNS_MIN),
    };
    let results = if is_result {
        workspace().join(format!("bench/results/{name}.md"))
    } else {
        target.join(format!("bench-{name}.md"))
    };
    let release = target.join("release");
    let mut command = Command::new(release.join("tailwater-bench"));
    command.arg(name).arg("--results").arg(results);
    if let Some(mongod) = mongod {
        command.arg("--mongod").arg(mongod).arg("--tailwater").arg(release.join("tailwater"));
    }
    match bench {
        Bench::Tail { events, runs, quick } => {
            let (events, runs) = if quick { (20_000, 3) } else { (events, runs) };
            command.args(["--events", &events.to_string(), "--runs", &runs.to_string()]);
            match tools::python_with(tools::PYMONGO, "pymongo") {
                Ok(python) => {
                    command.arg("--python").arg(python);
                }
                Err(error) => progress(&format!("going on without PyMongo: {error:#}")),
            }
        }
        Bench::Latency { rate, seconds, runs, quick } => {
            let (seconds, runs) = if quick { (3, 3) } else { (seconds, runs) };
            command.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
            command.args(["--runs", &runs.to_string()]);
        }
        Bench::Backlog { events, rate, writes, quick } => {
            let events = if quick { 20_000 } else { events };
            command.args(["--events", &events.to_string()]);
            command.args(["--rate", &rate.to_string(), "--writes", &writes.to_string()]);
        }
        Bench::Event { runs, quick } => {
            let (runs, rounds) = if quick { (3, 100) } else { (runs, ROUNDS) };
            command.args(["--runs", &runs.to_string(), "--rounds", &rounds.to_string()]);
        }
        Bench::Routing { events, runs, quick } => {
            let (events, runs) = if quick { (10_000, 2) } else { (events, runs) };
            command.args(["--events", &events.to_string(), "--runs", &runs.to_string()]);
        }
    }
    let status = command.status().context("start tailwater-bench")?;
    ensure!(status.success(), "the benchmark failed");
    Ok(())
}

/// The same for all benchmarks: another selection has other features, and would build half of the dependencies again.
fn build() -> Result<()> {
    progress("cargo build --release (some minutes where nothing is built yet)");
    let plugins = ["tailwater-stdout", "tailwater-null", "tailwater-sse", "tailwater-webhook"];
    let packages = plugins.into_iter().chain(["tailwater", "tailwater-bench"]);
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--locked"]).args(packages.flat_map(|name| ["-p", name]));
    ensure!(cargo.status().context("start cargo build")?.success(), "cargo build --release failed");
    Ok(())
}
