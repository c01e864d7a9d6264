//! `backlog`: a receiver that takes 2,000 events a second and is 500,000 behind, beside one at full speed. Does the first hurt the second,
//! is its own order kept, and does memory stay flat?
//!
//! One daemon has two outputs `webhook` with the defaults an operator would leave. The receiver of `slow` is shut while the backlog is
//! written as fast as mongod takes it; `fast` takes all of it meanwhile. When `fast` has everything, writing goes on at a steady pace
//! until the end of the run. Some seconds later the slow receiver opens: from there to the time when no more than a second's writes
//! are left is the catch-up, and what is judged. Each answer of the slow receiver waits for its turn in a token bucket, so that the
//! limit is the receiver's and not the daemon's.
//!
//! The lag of `fast` is taken by this process alone: from the acknowledgement of a write at the writer to its receipt at the receiver, by
//! one clock. Order and completeness are judged by what both receivers got, not by the daemon's counters. Memory is what the
//! operating system says.
//!
//! What "flat" means was fixed before anything was measured; see [`crate::backlog_report`].

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mongodb::Client;

use crate::backlog_load::{self, Sent};
use crate::backlog_samples::{Sample, Sampler, Seen};
use crate::daemon::Daemon;
use crate::limited_receiver::{Arrival, Receiver};
use crate::mongod::{Majority, Mongod};
use crate::report::{self, Conditions};
use crate::{backlog_plot, backlog_report, progress, stream};

/// Writing at the steady pace before the slow receiver opens: what the lag of `fast` is without a catch-up beside it.
const BEFORE: Duration = Duration::from_secs(15);
/// Beyond what the rates alone need, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Of `tailwater-bench backlog`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The mongod to start
    #[arg(long)]
    mongod: PathBuf,
    /// The daemon, with its plugins beside it
    #[arg(long)]
    tailwater: PathBuf,
    /// How many events the slow output is behind
    #[arg(long)]
    events: u64,
    /// Events that the slow receiver takes in a second
    #[arg(long)]
    rate: u32,
    /// Changes written in a second while the slow output catches up
    #[arg(long)]
    writes: u32,
    /// Where the table is written to; the plot lies beside it
    #[arg(long)]
    results: PathBuf,
}

/// What one run gave.
pub struct Run {
    /// As it was asked for.
    pub events: u64,
    pub rate: u32,
    pub writes: u32,
    pub oplog_mb: u64,
    /// The daemon was ready.
    pub begun: Instant,
    /// The backlog was written.
    pub piled_up: Instant,
    /// The fast receiver had all of it.
    pub fast_had_it: Instant,
    /// The slow receiver opened.
    pub opened: Instant,
    /// It had nearly everything.
    pub gone: Instant,
    /// The daemon said that its output is live again.
    pub live: Instant,
    /// All changes, backlog and after.
    pub written: u64,
    /// The changes behind the backlog.
    pub sent: Vec<Sent>,
    pub samples: Vec<Sample>,
    pub slow: Vec<Arrival>,
    pub fast: Vec<Arrival>,
}

/// Starts a mongod and the daemon, lets the backlog pile up and drain, and prints the table.
pub async fn run(arguments: Arguments) -> Result<()> {
    let Arguments { events, rate, writes, .. } = arguments;
    ensure!(events >= 10_000, "a backlog of at least 10000 events is needed");
    ensure!(writes > 0 && rate >= 2 * writes, "the slow receiver has to take at least twice what is written");
    let begun = Instant::now();
    let load_average = report::load_average();
    // About 600 bytes of oplog for each event, and room to spare: what is lost is another benchmark's subject.
    let oplog_mb = (events / 500).max(990);
    let mongod = Mongod::start(&arguments.mongod, oplog_mb, Majority::Journaled).await?;
    let client = Client::with_uri_str(mongod.uri()).await?;
    client.database(stream::DATABASE).create_collection(stream::COLLECTION).await.context("create the collection")?;
    let run = measure(&arguments, &mongod, &client, oplog_mb).await?;
    let conditions = Conditions::new(&client, load_average, begun.elapsed()).await?;
    let plot = arguments.results.with_extension("svg");
    let plot_name = plot.file_name().context("--results names no file")?.to_string_lossy().into_owned();
    let table = backlog_report::markdown(&conditions, &run, &plot_name)?;
    println!("{table}");
    for (file, text) in [(&arguments.results, table), (&plot, backlog_plot::svg(&run)?)] {
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
        progress(&format!("written to {}", file.display()));
    }
    Ok(())
}

async fn measure(arguments: &Arguments, mongod: &Mongod, client: &Client, oplog_mb: u64) -> Result<Run> {
    let &Arguments { events, rate, writes, .. } = arguments;
    let (slow, fast) = (Receiver::start(Some(rate)), Receiver::start(None));
    fast.open();
    let mut daemon = Daemon::start(&arguments.tailwater, &config(mongod, &slow, &fast))?;
    daemon.ready().await?;
    let begun = Instant::now();
    let seen = Arc::new(Seen { slow, fast, written: AtomicU64::new(0) });
    let admin = daemon.admin().context("the log names no admin port")?.to_owned();
    let sampler = Sampler::start(daemon.pid(), admin, Arc::clone(&seen));
    let watch = Watch { daemon: &daemon, sampler: &sampler, seen: &seen };

    progress(&format!("write {events} changes"));
    backlog_load::pile_up(client, 0..events, &seen.written).await?;
    let piled_up = Instant::now();
    // 1000 events in a second would be a failure, not a result.
    let limit = PATIENCE + Duration::from_secs(events / 1000);
    watch.until("the fast receiver has the backlog", limit, |seen| seen.fast.taken() >= events).await?;
    let fast_had_it = Instant::now();
    ensure!(seen.slow.taken() == 0, "the slow receiver was shut and has taken something");

    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (uri, seen, stop) = (mongod.uri(), Arc::clone(&seen), Arc::clone(&stop));
        tokio::task::spawn_blocking(move || backlog_load::go_on(&uri, events, writes, &stop, &seen.written))
    };
    tokio::time::sleep(BEFORE).await;
    let opened = Instant::now();
    seen.slow.open();
    let limit = PATIENCE + Duration::from_secs(3 * events / u64::from(rate - writes));
    let left = |seen: &Seen| seen.written.load(Ordering::SeqCst).saturating_sub(seen.slow.taken());
    watch.until("the backlog is gone", limit, |seen| left(seen) <= u64::from(writes)).await?;
    let gone = Instant::now();
    stop.store(true, Ordering::SeqCst);
    let sent = writer.await?.context("the writer")?;
    let written = events + sent.len() as u64;
    let all = |seen: &Seen| seen.slow.taken() >= written && seen.fast.taken() >= written;
    watch.until("both receivers have everything", PATIENCE, all).await?;
    let live = until_live(&daemon).await?;
    let samples = sampler.end()?;
    daemon.end().await?;
    for receiver in [&seen.slow, &seen.fast] {
        let violations = receiver.violations();
        ensure!(violations.is_empty(), "requests that are no webhooks of an order: {violations:?}");
    }
    let (slow, fast) = (seen.slow.arrivals(), seen.fast.arrivals());
    Ok(Run {
        events,
        rate,
        writes,
        oplog_mb,
        begun,
        piled_up,
        fast_had_it,
        opened,
        gone,
        live,
        written,
        sent,
        samples,
        slow,
        fast,
    })
}

/// Both with the defaults, except that the slow one is tried again at least every two seconds while its receiver is shut.
fn config(mongod: &Mongod, slow: &Receiver, fast: &Receiver) -> String {
    let output = |name: &str, receiver: &Receiver, more: &str| {
        format!("[outputs.{name}]\nplugin = \"webhook\"\n{more}options = {{ url = \"{}\" }}\n", receiver.url())
    };
    format!(
        "name = \"bench-backlog\"\n[source]\nuri = \"{}\"\nwatch = [\"{}.{}\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n{}{}",
        mongod.uri(),
        stream::DATABASE,
        stream::COLLECTION,
        output("slow", slow, "retry = { backoff_max = \"2s\" }\n"),
        output("fast", fast, "")
    )
}

/// Waits for the receivers, as long as the daemon is there.
struct Watch<'a> {
    daemon: &'a Daemon,
    sampler: &'a Sampler,
    seen: &'a Seen,
}

impl Watch<'_> {
    async fn until(&self, what: &str, limit: Duration, holds: impl Fn(&Seen) -> bool) -> Result<()> {
        let (begun, mut said) = (Instant::now(), Instant::now());
        while !holds(self.seen) {
            let Seen { slow, fast, written } = self.seen;
            let state = || {
                let written = written.load(Ordering::SeqCst);
                format!("{written} written, {} at the fast receiver, {} at the slow one", fast.taken(), slow.taken())
            };
            ensure!(begun.elapsed() < limit, "not within {limit:?}: {what}; {}", state());
            if !self.sampler.is_looking() {
                bail!("tailwater does not answer any more; {}; its log:\n{}", state(), self.daemon.log());
            }
            if said.elapsed() >= Duration::from_secs(15) {
                progress(&format!("until {what}: {}", state()));
                said = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Until the slow output reads from the window again.
async fn until_live(daemon: &Daemon) -> Result<Instant> {
    let begun = Instant::now();
    while daemon.state("slow")? != "live" {
        ensure!(begun.elapsed() < PATIENCE, "the slow output is not live after {PATIENCE:?}:\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Instant::now())
}
