//! Kill the daemon at any instant, again and again, while 20,000 changes to 200 documents are written: every output ends
//! with every event at least once, in order per document, and no kill repeats more than `ahead_max` events. With both
//! checkpoint stores.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;
use serde_json::Value;

use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const CHANGES: i64 = 20_000;
const DOCUMENTS: i64 = 200;
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
    let mut kills = 0;
    // The instant of the kill wanders over start, catch-up and steady delivery.
    let mut kill_after = Duration::from_millis(30);
    while !writer.is_finished() || kills < KILLS_MIN {
        tokio::time::sleep(kill_after).await;
        kill_after = Duration::from_millis((kill_after.as_millis() as u64 * 7 / 5 + 5) % 1_500);
        daemon.kill9();
        kills += 1;
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

    verify("all", &all, kills, |_| true);
    verify("odd", &odd, kills, |version| version % 2 == 1);
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

/// Replaces document `change % DOCUMENTS` with a version that names the change, `CHANGES` times: each event carries its
/// document, and the changes of one document are written one after another.
async fn write(orders: Collection<Document>) {
    let started = Instant::now();
    for change in 0..CHANGES {
        let version = change / DOCUMENTS;
        let document = doc! { "change": change, "version": version, "odd": is_odd(change) };
        let write = orders.replace_one(doc! { "_id": change % DOCUMENTS }, document).upsert(true);
        write.await.expect("write");
    }
    eprintln!("{CHANGES} changes written in {:?}", started.elapsed());
}

fn is_odd(change: i64) -> bool {
    (change / DOCUMENTS) % 2 == 1
}

fn verify(output: &str, lines: &Lines, kills: usize, wanted: fn(i64) -> bool) {
    let events = lines.events();
    let mut versions: HashMap<i64, Vec<i64>> = HashMap::new();
    for event in lines.first_occurrences() {
        let document = &event["fullDocument"];
        versions.entry(number(&document["_id"])).or_default().push(number(&document["version"]));
    }
    let expected: Vec<i64> = (0..CHANGES / DOCUMENTS).filter(|version| wanted(*version)).collect();
    assert_eq!(versions.len(), DOCUMENTS as usize, "documents in output {output}");
    for (document, found) in &versions {
        assert_eq!(found, &expected, "output {output}, document {document}: every version once and in order");
    }
    let repeats = events.len() - expected.len() * DOCUMENTS as usize;
    eprintln!("output {output}: {} events, {repeats} repeats over {kills} kills", events.len());
    assert!(repeats <= kills * AHEAD_MAX, "output {output}: {repeats} repeats over {kills} kills of {AHEAD_MAX} each");
}

/// A number in relaxed JSON.
fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("a whole number: {value}"))
}
