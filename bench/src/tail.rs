//! `tail`: the first rows of the speed table. All contenders drain the same history, in turn, round after round; ratios are
//! taken within a round.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mongodb::Client;

use crate::contender::run_loop;
use crate::daemon::{self, Outputs};
use crate::load::{self, Load};
use crate::mongod::{Majority, Mongod};
use crate::progress;
use crate::report::{self, Conditions, Setting};
use crate::statistics::Sample;
use crate::stream;

const PYMONGO_LOOP: &str = include_str!("pymongo_loop.py");

/// Of `tailwater-bench tail`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The mongod to start
    #[arg(long)]
    mongod: PathBuf,
    /// The daemon, with its plugins beside it
    #[arg(long)]
    tailwater: PathBuf,
    /// A Python that has PyMongo; without it there is no PyMongo in the table
    #[arg(long)]
    python: Option<PathBuf>,
    /// How many events each run drains
    #[arg(long)]
    events: u64,
    /// How often each contender runs
    #[arg(long)]
    runs: usize,
    /// Where the table is written to
    #[arg(long)]
    results: PathBuf,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Bare,
    PyMongo,
    Null,
    Json,
    TenNull,
}

impl Contender {
    /// In the order of the table.
    pub const ALL: [Contender; 5] =
        [Contender::Bare, Contender::PyMongo, Contender::Null, Contender::Json, Contender::TenNull];

    /// In the table.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Bare => "bare raw loop",
            Contender::PyMongo => "PyMongo loop",
            Contender::Null => "Tailwater, null output",
            Contender::Json => "Tailwater, JSON to /dev/null",
            Contender::TenNull => "Tailwater, 10 null outputs",
        }
    }
}

/// One turn of all contenders.
pub struct Round {
    samples: Vec<(Contender, Sample)>,
    /// Resident megabytes of an idle daemon.
    pub idle_mb: f64,
}

impl Round {
    /// Of one contender; `None` where it does not take part.
    pub fn of(&self, contender: Contender) -> Option<&Sample> {
        self.samples.iter().find(|(who, _)| *who == contender).map(|(_, sample)| sample)
    }
}

/// Starts a mongod, writes the load, lets all contenders run and prints the table.
pub async fn run(arguments: Arguments) -> Result<()> {
    ensure!(arguments.runs > 0 && arguments.events >= 10_000, "at least one run and 10000 events are needed");
    let begun = Instant::now();
    let load_average = report::load_average();
    // About 400 bytes of oplog for each event, and room to spare.
    let mongod = Mongod::start(&arguments.mongod, (arguments.events / 500).max(990), Majority::Journaled).await?;
    let client = Client::with_uri_str(mongod.uri()).await?;
    progress(&format!("write {} orders", arguments.events));
    let load = load::write(&client, arguments.events).await?;
    progress(&format!("an event has {:.0} bytes of BSON; one run to warm up", load.event_bytes));
    let bench = Bench { arguments, mongod, load };
    bench.measure(Contender::Bare).await?;
    let mut rounds = Vec::new();
    for number in 0..bench.arguments.runs {
        rounds.push(bench.round(number).await?);
    }
    let conditions = Conditions::new(&client, load_average, begun.elapsed()).await?;
    let setting = Setting { conditions, load: bench.load, runs: bench.arguments.runs };
    let table = report::markdown(&setting, &rounds)?;
    println!("{table}");
    let file = &bench.arguments.results;
    std::fs::write(file, table).with_context(|| format!("write {}", file.display()))?;
    progress(&format!("written to {}", file.display()));
    Ok(())
}

struct Bench {
    arguments: Arguments,
    mongod: Mongod,
    load: Load,
}

impl Bench {
    async fn round(&self, number: usize) -> Result<Round> {
        let mut order = Contender::ALL;
        // Each begins in turn, so that none always follows the same one.
        order.rotate_left(number % Contender::ALL.len());
        let mut samples = Vec::new();
        for contender in order {
            if contender == Contender::PyMongo && self.arguments.python.is_none() {
                continue;
            }
            let sample = self.measure(contender).await.with_context(|| contender.name())?;
            progress(&format!(
                "round {}/{}: {}: {:.0} events/s, {:.2} µs of CPU for each, mongod {:.2} µs, {:.1} MB, {} catch-ups",
                number + 1,
                self.arguments.runs,
                contender.name(),
                sample.events_per_s,
                sample.cpu_us,
                sample.mongod_cpu_us,
                sample.peak_mb,
                sample.catch_ups
            ));
            samples.push((contender, sample));
        }
        let idle_mb = daemon::idle_mb(&self.arguments.tailwater, &self.mongod).await.context("idle daemon")?;
        Ok(Round { samples, idle_mb })
    }

    async fn measure(&self, contender: Contender) -> Result<Sample> {
        let (mongod, load, tailwater) = (&self.mongod, &self.load, &self.arguments.tailwater);
        // 1000 events in a second would be a failure, not a result.
        let limit = Duration::from_secs(30 + load.events / 1000);
        match contender {
            Contender::Bare => run_loop(self.bare()?, mongod, limit).await,
            Contender::PyMongo => run_loop(self.pymongo()?, mongod, limit).await,
            Contender::Null => daemon::run(tailwater, mongod, load, Outputs::Null(1), limit).await,
            Contender::Json => daemon::run(tailwater, mongod, load, Outputs::Json, limit).await,
            Contender::TenNull => daemon::run(tailwater, mongod, load, Outputs::Null(10), limit).await,
        }
    }

    fn bare(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("find this binary")?);
        command.args(["bare", "--uri", &self.mongod.uri()]);
        let pipeline = stream::to_hex(stream::pipeline(self.load.start_seconds))?;
        command.args(["--pipeline", &pipeline, "--events", &self.load.events.to_string()]);
        Ok(command)
    }

    fn pymongo(&self) -> Result<Command> {
        let python = self.arguments.python.as_ref().context("no --python")?;
        let pipeline: Vec<serde_json::Value> = stream::pipeline(self.load.start_seconds)
            .into_iter()
            .map(|stage| bson::Bson::Document(stage).into_relaxed_extjson())
            .collect();
        let mut command = Command::new(python);
        command.args(["-c", PYMONGO_LOOP, &self.mongod.uri(), stream::DATABASE, &serde_json::to_string(&pipeline)?]);
        command.args([
            &self.load.events.to_string(),
            &stream::BATCH_SIZE.to_string(),
            &stream::AWAIT_MAX_MS.to_string(),
        ]);
        Ok(command)
    }
}
