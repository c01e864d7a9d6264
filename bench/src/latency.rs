//! `latency`: how long after an insert its event is with a client of the daemon's `sse` output, and how long with a bare watcher of
//! the same driver.
//!
//! Each run has three phases, in turn: the watcher alone, the daemon with its client alone, and both at once. Apart, neither takes
//! CPU or mongod's time from the other: the difference of their percentiles is what it costs to have the daemon instead of a
//! watcher. At once, both get the very same events, so that there is a difference for each event, free of what mongod did to
//! it; but each slows the other, which would flatter the daemon if that were all. The target has to hold for both differences.
//!
//! mongod takes a write as the majority's once it is in memory: a change stream shows nothing before, so that by default the disk's
//! time would be in every number, and its stalls would decide the p99 of both.
//!
//! The load is an open loop: an insert is issued when its time has come, whether or not those before it were acknowledged, so
//! that a stall delays all events that fall into it, as it would in life. All times are taken in this process by one clock:
//! just before an insert is issued, and as soon as a read has returned with its event. Writer, watcher and client have a thread
//! each and wait for nothing but their socket.

use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use mongodb::Client;
use tokio::sync::oneshot;

use crate::arrivals::{self, Arrivals};
use crate::daemon::SseDaemon;
use crate::latency_report;
use crate::mongod::{Majority, Mongod};
use crate::paced::{self, Sent};
use crate::progress;
use crate::report::{self, Conditions};
use crate::statistics::percentile;
use crate::stream;

/// Of a phase, not measured: connections are opened, caches filled.
const WARM_UP: Duration = Duration::from_secs(1);
/// Beyond the load itself, a phase may take this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of `tailwater-bench latency`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The mongod to start
    #[arg(long)]
    mongod: PathBuf,
    /// The daemon, with its plugins beside it
    #[arg(long)]
    tailwater: PathBuf,
    /// Inserts in a second
    #[arg(long)]
    rate: u32,
    /// How long each phase of a run is measured
    #[arg(long)]
    seconds: u32,
    /// How often all phases are run
    #[arg(long)]
    runs: usize,
    /// Where the table is written to
    #[arg(long)]
    results: PathBuf,
}

/// Who reads in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Watcher,
    Sse,
    Both,
}

impl Phase {
    const ALL: [Phase; 3] = [Phase::Watcher, Phase::Sse, Phase::Both];

    fn has_watcher(self) -> bool {
        self != Phase::Sse
    }

    fn has_sse(self) -> bool {
        self != Phase::Watcher
    }
}

/// Two percentiles, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
}

impl Percentiles {
    fn of(mut values: Vec<f64>) -> Option<Percentiles> {
        values.sort_by(f64::total_cmp);
        Some(Percentiles { p50: percentile(&values, 50)?, p99: percentile(&values, 99)? })
    }
}

/// What one phase gave. From just before the insert is issued.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// To its acknowledgement at the writer.
    pub acknowledged: Percentiles,
    /// To the watcher.
    pub watcher: Option<Percentiles>,
    /// To the client of the daemon.
    pub sse: Option<Percentiles>,
    /// Of each event, to the client less to the watcher.
    pub apart: Option<Percentiles>,
    /// How far the writer was behind its schedule.
    pub late: Percentiles,
}

/// One turn of all phases.
pub struct Round(Vec<(Phase, Measured)>);

impl Round {
    /// Of one phase.
    pub fn of(&self, phase: Phase) -> Option<&Measured> {
        self.0.iter().find(|(which, _)| *which == phase).map(|(_, measured)| measured)
    }

    /// Of all phases.
    pub fn all(&self) -> impl Iterator<Item = &Measured> {
        self.0.iter().map(|(_, measured)| measured)
    }
}

/// Starts a mongod, runs all phases round after round and prints the table.
pub async fn run(arguments: Arguments) -> Result<()> {
    ensure!(arguments.runs > 0 && arguments.seconds > 0, "at least one run and one second are needed");
    ensure!((1..=10_000).contains(&arguments.rate), "a rate from 1 to 10000 is needed");
    let begun = Instant::now();
    let load_average = report::load_average();
    let mongod = Mongod::start(&arguments.mongod, 990, Majority::Applied).await?;
    let client = Client::with_uri_str(mongod.uri()).await?;
    client.database(stream::DATABASE).create_collection(stream::COLLECTION).await.context("create the collection")?;
    let mut bench = Bench { arguments, mongod, next: 0 };
    progress("one phase to warm up");
    bench.phase(Phase::Both, 1).await?;
    let mut rounds = Vec::new();
    for number in 0..bench.arguments.runs {
        rounds.push(bench.round(number).await?);
    }
    let Bench { arguments, .. } = &bench;
    let conditions = Conditions::new(&client, load_average, begun.elapsed()).await?;
    let table = latency_report::markdown(&conditions, arguments.rate, arguments.seconds, &rounds)?;
    println!("{table}");
    let file = &arguments.results;
    std::fs::write(file, table).with_context(|| format!("write {}", file.display()))?;
    progress(&format!("written to {}", file.display()));
    Ok(())
}

struct Bench {
    arguments: Arguments,
    mongod: Mongod,
    /// Number of the next order: none is used twice, so that nobody takes an earlier phase's event for its own.
    next: u64,
}

impl Bench {
    async fn round(&mut self, number: usize) -> Result<Round> {
        let mut order = Phase::ALL;
        // Each begins in turn, so that none always follows the same one.
        order.rotate_left(number % Phase::ALL.len());
        let mut measured = Vec::new();
        for phase in order {
            let one = self.phase(phase, self.arguments.seconds).await.with_context(|| format!("phase {phase:?}"))?;
            let say = |what: &str, of: Option<Percentiles>| {
                of.map_or(String::new(), |of| format!(", {what} {:.2} / {:.2} ms", of.p50, of.p99))
            };
            progress(&format!(
                "round {}/{}: {phase:?}: p50 / p99{}{}{}{}",
                number + 1,
                self.arguments.runs,
                say("acknowledged", Some(one.acknowledged)),
                say("watcher", one.watcher),
                say("sse", one.sse),
                say("apart", one.apart),
            ));
            measured.push((phase, one));
        }
        Ok(Round(measured))
    }

    async fn phase(&mut self, phase: Phase, seconds: u32) -> Result<Measured> {
        let rate = self.arguments.rate;
        let warm_up = 1 + u64::from(rate) * WARM_UP.as_secs();
        let numbers = self.next..self.next + warm_up + u64::from(rate) * u64::from(seconds);
        self.next = numbers.end;
        let limit = WARM_UP + Duration::from_secs(u64::from(seconds)) + PATIENCE;
        let start = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let daemon =
            if phase.has_sse() { Some(SseDaemon::start(&self.arguments.tailwater, &self.mongod).await?) } else { None };
        let mut begun = Vec::new();
        let mut arrivals = || {
            let (first, waits) = oneshot::channel();
            begun.push(waits);
            Arrivals::new(numbers.clone(), first, limit)
        };
        let watcher = phase.has_watcher().then(|| {
            let (uri, arrivals) = (self.mongod.uri(), arrivals());
            tokio::task::spawn_blocking(move || arrivals::watch(&uri, start, arrivals))
        });
        let sse = daemon.as_ref().map(|daemon| {
            let (address, arrivals) = (daemon.address.clone(), arrivals());
            tokio::task::spawn_blocking(move || arrivals::listen(&address, arrivals))
        });
        let writer = {
            let (uri, numbers) = (self.mongod.uri(), numbers.clone());
            tokio::task::spawn_blocking(move || paced::write(&uri, numbers, rate, begun))
        };
        // A reader first: where one fails, the writer only knows that it does not begin.
        let watcher = match watcher {
            Some(watcher) => Some(watcher.await?.context("the watcher")?),
            None => None,
        };
        let sse = match sse {
            Some(sse) => Some(sse.await?.context("the SSE client")?),
            None => None,
        };
        let sent = writer.await?.context("the writer")?;
        if let Some(daemon) = daemon {
            daemon.end().await?;
        }
        measure(&sent, watcher.as_deref(), sse.as_deref(), warm_up as usize..sent.issued.len())
    }
}

fn measure(
    sent: &Sent,
    watcher: Option<&[Instant]>,
    sse: Option<&[Instant]>,
    measured: Range<usize>,
) -> Result<Measured> {
    let between = |from: &[Instant], to: &[Instant]| {
        Percentiles::of(measured.clone().map(|index| milliseconds(from[index], to[index])).collect())
            .context("nothing was measured")
    };
    let optional = |from: Option<&[Instant]>, to: Option<&[Instant]>| match (from, to) {
        (Some(from), Some(to)) => between(from, to).map(Some),
        _ => Ok(None),
    };
    Ok(Measured {
        acknowledged: between(&sent.issued, &sent.acknowledged)?,
        watcher: optional(Some(&sent.issued), watcher)?,
        sse: optional(Some(&sent.issued), sse)?,
        apart: optional(watcher, sse)?,
        late: between(&sent.scheduled, &sent.issued)?,
    })
}

/// Less than zero where `to` came first.
fn milliseconds(from: Instant, to: Instant) -> f64 {
    let after = to.saturating_duration_since(from).as_secs_f64();
    (after - from.saturating_duration_since(to).as_secs_f64()) * 1e3
}
