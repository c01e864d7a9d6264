//! The storm: constant writes to a set of three while daemons are killed and drained, primaries step down and are killed, sockets are
//! cut or go half-open and receivers fail in every way. Then a verifier with its own reading of the oplog accounts for every event
//! of every output: delivered at least once, as it was written, under one id, in order, nothing else, by one instance at a time.
//!
//! It lasts a minute, or as long as `TAILWATER_STORM` says (`10m`). `TAILWATER_STORM_SEED` repeats the faults of a seed that was
//! printed; `TAILWATER_STORM_INSTANCES` says how many daemons of one name there are.

mod facts;
mod faults;
mod fleet;
mod mutations;
mod oplog;
mod plan;
mod receiver;
mod reigns;
mod verifier;
mod writer;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures::TryStreamExt;

use self::faults::{Faults, Weather};
use self::fleet::{End, Fleet};
use self::mutations::{LIES, tell};
use self::oplog::Change;
use self::plan::{LINES, ON_REJECT, Plan, WEBHOOKS, lines_file, tables};
use self::receiver::{Arrival, Receiver, Record, Told};
use self::verifier::{Bounds, Case, missing, violations};
use self::writer::Writers;
use crate::harness::{ReplicaSet, config_of};

/// How many daemons of one name run, where nothing else is said.
const INSTANCES: usize = 2;

/// For everything that must come when all is well again.
const DEADLINE: Duration = Duration::from_secs(240);

/// The last document written: each output wants it, whatever its `match`, and nobody rejects it.
const SENTINEL: i64 = 1_000_000;

/// Transactions of more operations take several oplog entries.
const OPERATIONS_IN_ENTRY_MAX: u32 = 6;

/// The second parameter: a transaction whose client is gone holds its documents for a moment only.
const SERVERS: [&str; 6] = [
    "--oplogSize",
    "990",
    "--setParameter",
    "maxNumberOfTransactionOperationsInSingleOplogEntry=6",
    "--setParameter",
    "transactionLifetimeLimitSeconds=5",
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_in_the_storm() {
    let (lasting, seed) = (asked_duration(), asked("TAILWATER_STORM_SEED").unwrap_or_else(rand::random));
    let instances = asked("TAILWATER_STORM_INSTANCES").map_or(INSTANCES, |count| count as usize);
    eprintln!("TAILWATER_STORM_SEED={seed}, {lasting:?}, {instances} instances");
    let mut set = ReplicaSet::start_behind_proxies_with(&SERVERS).await;
    let receivers: Vec<Receiver> = WEBHOOKS.iter().map(Receiver::start).collect();
    let folder = tempfile::tempdir().expect("temporary folder");
    let (_, since) = oplog::ends(set.member(set.primary().await).client()).await;
    let mut fleet = fleet(&set, &receivers, folder.path(), instances);
    // `start = "now"` is durable before the first is ready, so everything written from here on belongs to the outputs.
    fleet.start(0);
    fleet.wait_until_ready(0).await;
    (1..instances).for_each(|instance| fleet.start(instance));

    let client = set.client().clone();
    let writers = Writers::start(&client, seed);
    let weather = Weather { started: Instant::now(), lasting, seed };
    let faults = futures::future::join3(
        faults::of_daemons(&weather, &mut fleet, &receivers),
        faults::of_servers(&weather, &mut set),
        faults::of_receivers(&weather, &receivers),
    );
    let (daemons, servers, outages) = faults.await;
    let written = writers.stop().await;
    assert!(!daemons.is_empty() && !servers.is_empty() && !outages.is_empty(), "it was calm");
    let faults: Faults = daemons.into_iter().chain(servers).chain(outages).collect();
    eprintln!("{:7.2} s: the storm is over; {written:?}, {faults:?}", weather.started.elapsed().as_secs_f64());
    assert!(written.writes > 0 && written.transactions > 0, "{written:?}");

    let sentinel = doc! { "_id": SENTINEL, "version": 0_i64, "odd": true };
    client.database("shop").collection("sentinels").insert_one(sentinel).await.expect("insert");
    let storm = Storm { set: &set, since, receivers: &receivers, folder: folder.path(), faults };
    let changes = storm.settle(&mut fleet).await;
    let complete = storm.wait_until_complete(&fleet, &changes).await;
    let logs = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("storm-{seed}.log"));
    fleet.write_logs(&logs);
    let found = storm.verify(&fleet, &changes).await;
    assert!(found.is_empty() && complete, "seed {seed}, logs in {}:\n{}", logs.display(), found.join("\n"));
    fleet.finish().await;
    storm.prove_that_lies_are_seen(&fleet, &changes).await;
    std::fs::remove_file(&logs).expect("remove the logs");
}

/// The instances, behind the proxies.
fn fleet(set: &ReplicaSet, receivers: &[Receiver], folder: &Path, instances: usize) -> Fleet {
    // The tables differ by the number of the run alone.
    const RUN: usize = 987_654_321;
    let text = tables(RUN, receivers, folder);
    let text = format!(
        "name = \"storm\"\nshutdown_grace = \"5s\"\n{}",
        config_of(&set.uri(), &format!("watch = [\"{}.*\"]", oplog::WATCHED), &text)
    );
    Fleet::new(folder, instances, move |run| text.replace(&RUN.to_string(), &run.to_string()))
}

/// What is left of it, for the account.
struct Storm<'a> {
    set: &'a ReplicaSet,
    since: bson::Timestamp,
    receivers: &'a [Receiver],
    folder: &'a Path,
    faults: Faults,
}

impl Storm<'_> {
    /// Waits until the sentinel is everywhere, and reads the oplog.
    async fn settle(&self, fleet: &mut Fleet) -> Vec<Change> {
        let started = Instant::now();
        let at_all = |fleet: &Fleet| {
            self.receivers.iter().all(|receiver| receiver.has(|facts| facts.key == SENTINEL))
                && self.lines(fleet).facts.values().any(|facts| facts.key == SENTINEL)
        };
        while !at_all(fleet) && started.elapsed() < DEADLINE {
            for instance in 0..fleet.count() {
                if fleet.revive(instance) {
                    eprintln!("a daemon ended by itself after the storm: instance {instance}");
                }
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        eprintln!("the sentinel took {:?}", started.elapsed());
        let primary = self.set.primary().await;
        let member = self.set.member(primary).client();
        let (first, _) = oplog::ends(member).await;
        assert!(first < self.since, "the oplog rolled over, make it larger");
        let changes = oplog::read(member, self.since).await;
        assert!(changes.iter().any(|change| change.facts.key == SENTINEL), "the sentinel is in the oplog");
        let mut ids = HashSet::new();
        assert!(changes.iter().all(|change| ids.insert(&change.id)), "one id for each change");
        let is_behind_the_first_entry = |change: &Change| change.id[17..25] > *format!("{OPERATIONS_IN_ENTRY_MAX:08x}");
        assert!(changes.iter().any(is_behind_the_first_entry), "a transaction took several oplog entries");
        changes
    }

    /// Ordered by document, an output may have the sentinel before the rest.
    async fn wait_until_complete(&self, fleet: &Fleet, changes: &[Change]) -> bool {
        let started = Instant::now();
        loop {
            let letters = self.letters().await;
            let is_complete = self.cases(fleet).iter().all(|(plan, record)| {
                let letters = letters.as_ref().filter(|_| plan.rejects);
                missing(&Case { plan, changes, record, letters, bounds: Bounds::default() }).is_empty()
            });
            if is_complete || started.elapsed() > DEADLINE {
                eprintln!("complete: {is_complete}, after {:?}", started.elapsed());
                return is_complete;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// All violations of all outputs; prints the numbers.
    async fn verify(&self, fleet: &Fleet, changes: &[Change]) -> Vec<String> {
        let letters = self.letters().await;
        let in_transactions = changes.iter().filter(|change| change.facts.in_transaction).count();
        eprintln!("{} changes, {in_transactions} of them in transactions", changes.len());
        let mut found = Vec::new();
        let mut arrivals: Vec<Arrival> = Vec::new();
        for (plan, record) in self.cases(fleet) {
            let letters = letters.as_ref().filter(|_| plan.rejects);
            let case = Case { plan: &plan, changes, record: &record, letters, bounds: self.bounds(fleet) };
            let (violations, sum) = violations(&case);
            eprintln!("output {}: {sum}", plan.name);
            found.extend(violations);
            arrivals.extend(record.arrivals);
        }
        for end in [End::Killed, End::Drained] {
            let times = reigns::takeovers(fleet.runs(), &arrivals, end);
            if let (Some(median), Some(max)) = (times.get(times.len() / 2), times.last()) {
                eprintln!(
                    "{end:?}: {} times, another run delivered after {median:?} (median), {max:?} (most)",
                    times.len()
                );
            }
        }
        found
    }

    /// The verifier sees every lie about the same record.
    async fn prove_that_lies_are_seen(&self, fleet: &Fleet, changes: &[Change]) {
        let (letters, mut told) = (self.letters().await, HashSet::new());
        for (plan, record) in self.cases(fleet) {
            let letters = letters.as_ref().filter(|_| plan.rejects);
            let honest = Case { plan: &plan, changes, record: &record, letters, bounds: self.bounds(fleet) };
            let bounds = violations(&honest).1.bounds();
            for lie in LIES {
                let Some((changes, record)) = tell(lie, &plan, changes, &record) else { continue };
                let (found, _) = violations(&Case { changes: &changes, record: &record, bounds, ..honest });
                assert!(!found.is_empty(), "output {}: {lie:?} was not seen", plan.name);
                told.insert(lie);
            }
        }
        assert_eq!(told.len(), LIES.len(), "only these lies could be told: {told:?}");
    }

    /// One instance comes to deliver once in each run. Of several, one may also come again when a fault took the lease from
    /// another.
    fn bounds(&self, fleet: &Fleet) -> Bounds {
        let kinds = ["daemon paused", "stepdown", "primary killed", "half-open connections", "sockets cut"];
        let again: usize = kinds.iter().filter_map(|kind| self.faults.get(*kind)).sum();
        let again = if fleet.count() > 1 { again + fleet.runs().len() } else { 0 };
        Bounds { reigns_max: fleet.runs().len() + again, restarts_max: again }
    }

    /// Each output and what has arrived there.
    fn cases(&self, fleet: &Fleet) -> Vec<(Plan, Record)> {
        let webhooks = WEBHOOKS.into_iter().zip(self.receivers.iter().map(Receiver::record));
        webhooks.chain([(LINES, self.lines(fleet))]).collect()
    }

    /// The files of all runs, one after the other. The last line of one may be torn.
    fn lines(&self, fleet: &Fleet) -> Record {
        let mut record = Record::default();
        for run in 0..fleet.runs().len() {
            let bytes = std::fs::read(self.folder.join(lines_file(run))).unwrap_or_default();
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            for line in bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                if let Some((id, _)) = record.read(line) {
                    record.arrivals.push(Arrival { run, id, at: None, told: Told::Taken });
                }
            }
        }
        record
    }

    /// The ids of the dead letters of `picky`, where there are such.
    async fn letters(&self) -> Option<HashSet<String>> {
        if ON_REJECT != "dead_letter" {
            return None;
        }
        let letters = self.set.client().database("tailwater").collection::<Document>("dead_letters");
        let found = letters.find(doc! { "_id.name": "storm", "_id.output": "picky" }).await.expect("dead letters");
        let found: Vec<Document> = found.try_collect().await.expect("dead letters");
        let id = |letter: &Document| letter.get_document("_id").and_then(|id| id.get_str("id")).map(str::to_owned);
        Some(found.iter().map(|letter| id(letter).expect("an id")).collect())
    }
}

/// A number from the environment.
fn asked(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

/// `TAILWATER_STORM`, such as `90s` or `10m`.
fn asked_duration() -> Duration {
    let text = std::env::var("TAILWATER_STORM").unwrap_or_else(|_| "60s".to_owned());
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    match (number.parse(), unit) {
        (Ok(seconds), "s") => Duration::from_secs(seconds),
        (Ok(minutes), "m") => Duration::from_mins(minutes),
        _ => panic!("TAILWATER_STORM={text:?} is no duration such as 90s or 10m"),
    }
}
