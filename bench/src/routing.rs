//! `routing`: one stream and 1, 10 or 100 outputs that want different parts of it. What mongod does, what comes over the wire and
//! what the daemon does, with pushdown and without.
//!
//! Pushdown has no switch. Where one more output wants every event, mongod can leave nothing out: that is "without". What that
//! output costs is known from a run in which it is alone.

mod history;
mod outputs;
mod report;
mod scenario;
mod server;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::{Document, Timestamp, doc};
use mongodb::Client;
use tailwater_match::Matcher;

use crate::contender::watch_loop;
use crate::mongod::{Majority, Mongod};
use crate::progress;
use crate::report::{Conditions, load_average};
use crate::stream;
use history::History;
use outputs::Wanted;
use scenario::{OUTPUTS_MAX, Scenario};
use server::Server;

/// How many outputs.
pub const OUTPUTS: [usize; 3] = [1, 10, OUTPUTS_MAX];

/// Of `tailwater-bench routing`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The mongod to start
    #[arg(long)]
    mongod: PathBuf,
    /// The daemon, with its plugins beside it
    #[arg(long)]
    tailwater: PathBuf,
    /// How many events the history has
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
    /// The bare loop over everything.
    BareAll,
    /// The bare loop with one `$match`, written by hand, for what so many outputs want.
    Bare(Scenario, usize),
    /// One output that wants everything.
    All,
    /// So many outputs that find nothing to read.
    Start(usize),
    /// So many outputs.
    Pushed(Scenario, usize),
    /// The same and one that wants everything.
    Unpushed(Scenario, usize),
}

impl Contender {
    /// All that take part.
    fn all(scenarios: &[Scenario]) -> Vec<Contender> {
        let of = |scenario: &Scenario| {
            let scenario = *scenario;
            let bare = OUTPUTS.map(|outputs| Contender::Bare(scenario, outputs));
            let ours = OUTPUTS.map(|n| [Contender::Pushed(scenario, n), Contender::Unpushed(scenario, n)]);
            bare.into_iter().chain(ours.into_iter().flatten())
        };
        let others = [Contender::BareAll, Contender::All].into_iter().chain(OUTPUTS.map(Contender::Start));
        others.chain(scenarios.iter().flat_map(of)).collect()
    }

    /// The one of the same kind with so many outputs.
    pub fn with(self, outputs: usize) -> Contender {
        match self {
            Contender::Bare(scenario, _) => Contender::Bare(scenario, outputs),
            Contender::Start(_) => Contender::Start(outputs),
            Contender::Pushed(scenario, _) => Contender::Pushed(scenario, outputs),
            Contender::Unpushed(scenario, _) => Contender::Unpushed(scenario, outputs),
            alone => alone,
        }
    }
}

/// What one run of one contender gave.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// CPU of mongod, in seconds.
    pub mongod_s: f64,
    /// All that mongod sent meanwhile.
    pub sent_bytes: i64,
    /// CPU of the contender's process, its start included, in seconds.
    pub cpu_s: f64,
    /// Events that came over the shared stream.
    pub events_read: u64,
    /// The most memory that was resident, in megabytes.
    pub peak_mb: f64,
    /// How often outputs fell off the window, all outputs together.
    pub catch_ups: u64,
}

/// One turn of all contenders.
pub struct Round(Vec<(Contender, Sample)>);

impl Round {
    /// Of one contender.
    pub fn of(&self, contender: Contender) -> Option<&Sample> {
        self.0.iter().find(|(who, _)| *who == contender).map(|(_, sample)| sample)
    }
}

/// What was measured.
pub struct Measured {
    /// Events of the history.
    pub events: usize,
    pub scenarios: Vec<Scenario>,
    /// Those with a `match` that the matcher does not take, with its reason.
    pub refused: Vec<(Scenario, String)>,
    pub rounds: Vec<Round>,
}

/// Starts a mongod, writes the history, lets all contenders read it and prints the table.
pub async fn run(arguments: Arguments) -> Result<()> {
    ensure!(arguments.runs > 0 && arguments.events >= 1_000, "at least one run and 1000 events are needed");
    let (begun, load) = (Instant::now(), load_average());
    let (scenarios, refused) = taken();
    let mongod = Mongod::start(&arguments.mongod, (arguments.events / 300).max(990), Majority::Journaled).await?;
    let server = Server { client: Client::with_uri_str(mongod.uri()).await?, mongod };
    progress(&format!("write {} changes", arguments.events));
    let history = history::write(&server.client, arguments.events).await?;
    let bench = Bench { arguments, server, history };
    progress("one run to warm up");
    bench.measure(Contender::BareAll).await?;
    let contenders = Contender::all(&scenarios);
    let mut rounds = Vec::new();
    for number in 0..bench.arguments.runs {
        rounds.push(bench.round(number, &contenders).await?);
    }
    let conditions = Conditions::new(&bench.server.client, load, begun.elapsed()).await?;
    let measured = Measured { events: bench.history.changes.len(), scenarios, refused, rounds };
    let table = report::markdown(&conditions, &measured)?;
    println!("{table}");
    let file = &bench.arguments.results;
    std::fs::write(file, table).with_context(|| format!("write {}", file.display()))?;
    progress(&format!("written to {}", file.display()));
    Ok(())
}

/// The scenarios whose queries the matcher takes, and why it does not take the others.
fn taken() -> (Vec<Scenario>, Vec<(Scenario, String)>) {
    let (mut scenarios, mut refused) = (Vec::new(), Vec::new());
    for scenario in Scenario::ALL {
        let compiled = (0..OUTPUTS_MAX).map(|output| Matcher::compile(&scenario.query(output, OUTPUTS_MAX)));
        match compiled.collect::<Result<Vec<_>, _>>() {
            Ok(_) => scenarios.push(scenario),
            Err(error) => refused.push((scenario, error.to_string())),
        }
    }
    (scenarios, refused)
}

struct Bench {
    arguments: Arguments,
    server: Server,
    history: History,
}

impl Bench {
    async fn round(&self, number: usize, contenders: &[Contender]) -> Result<Round> {
        let mut order = contenders.to_vec();
        // Each begins in turn, so that none always follows the same one; by 7, which shares no factor with how many there are
        // of each kind.
        order.rotate_left(number * 7 % contenders.len());
        let mut samples = Vec::new();
        for contender in order {
            let begun = Instant::now();
            let sample = self.measure(contender).await.with_context(|| format!("{contender:?}"))?;
            progress(&format!(
                "round {}/{}: {contender:?}: {:.1} s, mongod {:.0} ms, own {:.0} ms, {} events, {:.1} MB sent, {:.1} MB peak, {} catch-ups",
                number + 1,
                self.arguments.runs,
                begun.elapsed().as_secs_f64(),
                sample.mongod_s * 1e3,
                sample.cpu_s * 1e3,
                sample.events_read,
                sample.sent_bytes as f64 / 1e6,
                sample.peak_mb,
                sample.catch_ups
            ));
            samples.push((contender, sample));
        }
        Ok(Round(samples))
    }

    async fn measure(&self, contender: Contender) -> Result<Sample> {
        let (changes, tailwater) = (&self.history.changes, &self.arguments.tailwater);
        let every = changes.len() as u64;
        let of = |scenario: Scenario, outputs: usize| {
            let wanted = scenario.wanted(outputs, changes).into_iter().enumerate();
            wanted.map(move |(output, events)| Wanted { query: Some(scenario.query(output, outputs)), events })
        };
        let everything = Wanted { query: None, events: every };
        let outputs: Vec<Wanted> = match contender {
            Contender::BareAll => return self.bare(None, every).await,
            Contender::Bare(scenario, outputs) => {
                return self.bare(Some(scenario.union(outputs)), scenario.wanted_by_any(outputs, changes)).await;
            }
            Contender::All => vec![everything],
            Contender::Start(outputs) => {
                let outputs: Vec<Wanted> = of(Scenario::Tenant, outputs).collect();
                return outputs::start(tailwater, &self.server, &outputs).await;
            }
            Contender::Pushed(scenario, outputs) => of(scenario, outputs).collect(),
            Contender::Unpushed(scenario, outputs) => of(scenario, outputs).chain([everything]).collect(),
        };
        outputs::run(tailwater, &self.server, self.history.start_seconds, &outputs, self.limit()).await
    }

    /// 500 events in a second would be a failure, not a result.
    fn limit(&self) -> Duration {
        Duration::from_secs(30 + self.arguments.events / 500)
    }

    async fn bare(&self, filter: Option<Document>, events: u64) -> Result<Sample> {
        let start = Timestamp { time: self.history.start_seconds, increment: 0 };
        let mut pipeline = vec![doc! { "$changeStream": { "startAtOperationTime": start } }];
        // As the daemon has it.
        pipeline.extend(filter.map(|filter| doc! { "$match": { "$or": [{ "operationType": "invalidate" }, filter] } }));
        let mut command = Command::new(std::env::current_exe().context("find this binary")?);
        command.args(["bare", "--uri", &self.server.uri()]);
        command.args(["--pipeline", &stream::to_hex(pipeline)?, "--events", &events.to_string()]);
        let before = self.server.look().await?;
        let (run, after) = watch_loop(command, self.limit(), async || self.server.look().await).await?;
        ensure!(run.result.events == events, "the loop read {} events instead of {events}", run.result.events);
        let spent = after.since(&before);
        Ok(Sample {
            mongod_s: spent.cpu_s,
            sent_bytes: spent.sent_bytes,
            cpu_s: run.cpu_s,
            events_read: events,
            peak_mb: run.peak_mb,
            catch_ups: 0,
        })
    }
}
