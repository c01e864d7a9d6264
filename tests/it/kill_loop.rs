//! Kill the daemon at any instant, again and again, while 20,000 changes to 200 documents are written: every output ends
//! with every event at least once, in order per document also within each run, and no kill repeats more than `ahead_max`
//! events. With both checkpoint stores.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::lines::id;
use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const CHANGES: i64 = 20_000;
const DOCUMENTS: i64 = 200;
const WRITERS: i64 = 8;
/// Small enough that a lane runs into it.
const AHEAD_MAX: usize = 2_000;
const KILLS_MIN: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_checkpoints_in_mongodb() {
    run("[checkpoint]\nstore = \"mongodb\"\ninterval = \"100ms\"\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_checkpoints_in_files() {
    run("[checkpoint]\nstore = \"file\"\npath = \"state\"\ninterval = \"100ms\"\n").await;
}

async fn run(checkpoint: &str) {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let text = config(&mongod, &format!("{checkpoint}{}", outputs()));
    let all = Lines::new(folder.path().join("all.jsonl"));
    let odd = Lines::new(folder.path().join("odd.jsonl"));

    // `start = "now"` is durable before readiness, so everything written from here on belongs to the outputs.
    let mut daemon = Daemon::start(folder.path(), &text).await;
    let writer = tokio::spawn(write(mongod.client().database("shop").collection("orders")));
    // How long each file was when the daemon had just been killed.
    let (mut all_kills, mut odd_kills) = (Vec::new(), Vec::new());
    // The instant of the kill wanders over start, catch-up and steady delivery.
    let mut kill_after = Duration::from_millis(30);
    while !writer.is_finished() || all_kills.len() < KILLS_MIN {
        tokio::time::sleep(kill_after).await;
        kill_after = Duration::from_millis((kill_after.as_millis() as u64 * 7 / 5 + 5) % 1_500);
        daemon.kill9();
        all_kills.push(all.bytes());
        odd_kills.push(odd.bytes());
        daemon = Daemon::spawn(folder.path(), &text);
    }
    writer.await.expect("writer");
    daemon.wait_until_ready().await;
    let deadline = Duration::from_secs(120);
    eventually("every event in both files", deadline, || {
        all.first_occurrences().len() >= CHANGES as usize && odd.first_occurrences().len() >= CHANGES as usize / 2
    })
    .await;
    let status = daemon.terminate_and_wait(Duration::from_secs(30)).await;
    assert!(status.success(), "after SIGTERM: {status}");

    let interrupted = verify("all", &all, &all_kills, |_| true);
    // Kills that hit nothing undurable would prove nothing.
    assert!(interrupted > 0, "no kill interrupted a delivery: nothing was delivered twice");
    verify("odd", &odd, &odd_kills, |version| version % 2 == 1);
    let ids: HashSet<String> = all.first_occurrences().iter().map(id).collect();
    assert!(odd.first_occurrences().iter().all(|event| ids.contains(&id(event))), "one id in both outputs");
}

/// The one with a `match` sees every second change of each document.
fn outputs() -> String {
    let output = |name: &str, query: &str| {
        format!(
            "[outputs.{name}]\nplugin = \"stdout\"\nahead_max = {AHEAD_MAX}\n{query}options = {{ path = \"{name}.jsonl\" }}\n"
        )
    };
    output("all", "") + &output("odd", "match = { \"fullDocument.odd\" = true }\n")
}

/// Writes `CHANGES` versions of `DOCUMENTS` documents. Each writer has documents of its own and writes their changes one
/// after another, so that the order of a document's versions is known.
async fn write(orders: Collection<Document>) {
    let started = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let orders = orders.clone();
        writers.spawn(async move {
            for change in (0..CHANGES).filter(|change| change % DOCUMENTS % WRITERS == writer) {
                let document = doc! { "version": change / DOCUMENTS, "odd": is_odd(change) };
                let write = orders.replace_one(doc! { "_id": change % DOCUMENTS }, document).upsert(true);
                write.await.expect("write");
            }
        });
    }
    writers.join_all().await;
    eprintln!("{CHANGES} changes written in {:?}", started.elapsed());
}

fn is_odd(change: i64) -> bool {
    (change / DOCUMENTS) % 2 == 1
}

/// Checks the file of one output; gives back how many lines repeat an earlier event.
fn verify(output: &str, lines: &Lines, kills: &[u64], wanted: fn(i64) -> bool) -> usize {
    let mut versions: HashMap<i64, Vec<i64>> = HashMap::new();
    for event in lines.first_occurrences() {
        let (document, version) = document_and_version(&event);
        versions.entry(document).or_default().push(version);
    }
    let expected: Vec<i64> = (0..CHANGES / DOCUMENTS).filter(|version| wanted(*version)).collect();
    assert_eq!(versions.len(), DOCUMENTS as usize, "documents in output {output}");
    for (document, found) in &versions {
        assert_eq!(found, &expected, "output {output}, document {document}: every version once and in order");
    }

    let mut seen = HashSet::new();
    let mut repeats = vec![0; kills.len() + 1];
    // The last version of each document that one run has written: only a new run may begin earlier.
    let mut last: HashMap<(usize, i64), i64> = HashMap::new();
    for (offset, event) in lines.events_at() {
        let run = kills.partition_point(|kill| *kill <= offset);
        if !seen.insert(id(&event)) {
            repeats[run] += 1;
        }
        let (document, version) = document_and_version(&event);
        let before = last.insert((run, document), version).unwrap_or(-1);
        assert!(
            before <= version,
            "output {output}, run {run}: document {document} goes from {before} back to {version}"
        );
    }
    let (sum, max) = (repeats.iter().sum::<usize>(), repeats.iter().max().copied().unwrap_or(0));
    eprintln!("output {output}: {sum} repeats over {} kills, at most {max} after one", kills.len());
    assert!(max <= AHEAD_MAX, "output {output}: {max} events repeat after one kill, more than ahead_max = {AHEAD_MAX}");
    sum
}

fn document_and_version(event: &Value) -> (i64, i64) {
    let document = &event["fullDocument"];
    (number(&document["_id"]), number(&document["version"]))
}

/// A number in relaxed JSON.
fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("a whole number: {value}"))
}
