//! An output that answers "retry" while 50,000 changes go by with a window of 1 MiB delays no other output, memory stays
//! bounded, and when it takes events again it receives every one, in order per document.
//!
//! With `TAILWATER_LONG=1` it answers "retry" for a whole minute, else until the others have everything.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Client;

use crate::harness::daemon::Memory;
use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(180);
const CHANGES: i64 = 50_000;
const DOCUMENTS: i64 = 500;
/// Changes written by one command, and the pause behind each: about 4,000 changes a second, so that what is measured is
/// whether the slow output holds the others up, not how fast a debug build is.
const CHUNK: i64 = 500;
const PACE: Duration = Duration::from_millis(125);
const FAST: [&str; 2] = ["one", "two"];

const MIB: u64 = 1 << 20;
const WINDOW: u64 = MIB;
const IN_FLIGHT: u64 = 2 * MIB;
/// What the daemon may use beside the window and what its lanes hold.
const REST: u64 = 24 * MIB;

fn text(mongod: &Mongod) -> String {
    let output = |name: &str, plugin: &str, options: &str| {
        format!(
            "[outputs.{name}]\nplugin = \"{plugin}\"\nin_flight_bytes_max = \"2MiB\"\n\
             retry = {{ backoff_max = \"1s\" }}\noptions = {{ path = \"{name}.jsonl\"{options} }}\n"
        )
    };
    let fast: String = FAST.map(|name| output(name, "stdout", "")).concat();
    let slow = output("slow", "faulty", ", mode = \"retry_for\", gate = \"gate\"");
    config(mongod, &format!("[window]\nbytes_max = \"1MiB\"\n{fast}{slow}"))
}

/// Replaces the documents in turn; each version names its change.
async fn write(client: Client, written: Arc<AtomicI64>) {
    let database = client.database("shop");
    let text = "some words to make the document as long as documents are ".repeat(4);
    let mut pace = tokio::time::interval(PACE);
    for from in (0..CHANGES).step_by(CHUNK as usize) {
        pace.tick().await;
        let replace = |change: i64| {
            let document = doc! { "_id": change % DOCUMENTS, "change": change, "text": &text };
            doc! { "q": { "_id": change % DOCUMENTS }, "u": document, "upsert": true }
        };
        let updates: Vec<Document> = (from..from + CHUNK).map(replace).collect();
        let reply = database.run_command(doc! { "update": "orders", "updates": updates }).await.expect("write");
        assert_eq!(reply.get_i32("n").expect("n"), CHUNK as i32, "{reply}");
        written.store(from + CHUNK, Ordering::SeqCst);
    }
}

/// How the fast outputs were doing at one time.
struct Sample {
    at: Instant,
    /// Changes the server had acknowledged before the metrics were asked for.
    written: i64,
    /// By fast output, as the metrics say.
    delivered: [f64; 2],
    lag_seconds: [f64; 2],
    memory: Memory,
}

fn metric(daemon: &Daemon, name: &str, output: &str) -> f64 {
    daemon.metric(&format!("tailwater_output_{name}"), &[("output", output)]).unwrap_or(0.0)
}

fn sample(daemon: &Daemon, written: &AtomicI64) -> Sample {
    let (written, at) = (written.load(Ordering::SeqCst), Instant::now());
    let of = |name| FAST.map(|output| metric(daemon, name, output));
    Sample { at, written, delivered: of("delivered_total"), lag_seconds: of("lag_seconds"), memory: daemon.memory() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_output_delays_nobody_and_gets_everything_later() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let daemon = Arc::new(Daemon::start(folder.path(), &text(&mongod)).await);
    let idle = daemon.memory();
    let started = Instant::now();
    let long = std::env::var_os("TAILWATER_LONG").is_some_and(|value| value == "1");
    let minute = Duration::from_secs(60);

    let written = Arc::new(AtomicI64::new(0));
    let writer = tokio::spawn(write(mongod.client().clone(), Arc::clone(&written)));
    let stop = Arc::new(AtomicBool::new(false));
    let sampler = {
        let (daemon, written, stop) = (Arc::clone(&daemon), Arc::clone(&written), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                samples.push(sample(&daemon, &written));
                std::thread::sleep(Duration::from_millis(100));
            }
            samples
        })
    };
    eventually("the fast outputs have everything", DEADLINE, || {
        FAST.iter().all(|output| metric(&daemon, "delivered_total", output) >= CHANGES as f64)
            && (!long || started.elapsed() >= minute)
    })
    .await;
    writer.await.expect("writer");
    assert_eq!(metric(&daemon, "delivered_total", "slow"), 0.0, "the slow one has nothing yet");
    assert!(metric(&daemon, "retried_total", "slow") > 0.0, "it was asked, and said retry");
    let shut = started.elapsed();
    std::fs::write(folder.path().join("gate"), "").expect("open the gate");
    eventually("the slow one has everything", DEADLINE, || {
        metric(&daemon, "delivered_total", "slow") >= CHANGES as f64 && daemon.is_in_state("slow", "live")
    })
    .await;
    let caught_up = started.elapsed() - shut;
    assert!(metric(&daemon, "catch_ups_total", "slow") >= 1.0, "it had fallen off the window");
    stop.store(true, Ordering::SeqCst);
    let samples = sampler.join().expect("sampler");
    eprintln!("shut for {shut:?}, caught up in {caught_up:?}");
    check_delay(&samples);
    check_memory(idle, &samples, daemon.memory());
    for output in ["one", "two", "slow"] {
        verify(folder.path(), output);
    }
    let daemon = Arc::into_inner(daemon).expect("the sampler has ended");
    assert!(daemon.terminate_and_wait(Duration::from_secs(30)).await.success());
}

/// What the daemon has allocated is bounded in every build. All that is resident is bounded in one with optimisation: without,
/// the pages of the executable and of three libraries full of debugging alone are more than the daemon may use.
fn check_memory(idle: Memory, samples: &[Sample], end: Memory) {
    let anonymous = samples.iter().map(|sample| sample.memory.anonymous).max().unwrap_or(0).max(end.anonymous);
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    let bound = WINDOW + 3 * IN_FLIGHT + REST;
    eprintln!(
        "resident {:.1} MiB idle and {:.1} at most, allocated {:.1} idle and {:.1} at most, the bound is {:.1}",
        mib(idle.resident),
        mib(end.resident_max),
        mib(idle.anonymous),
        mib(anonymous),
        mib(bound)
    );
    assert!(anonymous <= bound, "{:.1} MiB allocated, the bound is {:.1}", mib(anonymous), mib(bound));
    if !cfg!(debug_assertions) {
        assert!(end.resident_max <= bound, "{:.1} MiB resident, the bound is {:.1}", mib(end.resident_max), mib(bound));
    }
}

/// Compared are (a) the lag of the metrics, a difference of whole seconds: 1 there means less than two; and (b), because that is
/// coarse, what had been written by one sample with what had been delivered by the first sample a second later.
fn check_delay(samples: &[Sample]) {
    let mut lag_max: f64 = 0.0;
    let mut behind_max = 0;
    for sample in samples {
        lag_max = sample.lag_seconds.into_iter().fold(lag_max, f64::max);
        let later = samples.iter().find(|later| later.at >= sample.at + Duration::from_secs(1));
        for delivered in later.map(|later| later.delivered).into_iter().flatten() {
            behind_max = behind_max.max(sample.written - delivered as i64);
        }
    }
    eprintln!(
        "{} samples, lag at most {lag_max} s, {behind_max} changes behind what was written a second before",
        samples.len()
    );
    assert!(samples.len() >= 50, "{} samples are too few", samples.len());
    assert!(lag_max <= 1.0, "lag of a fast output: {lag_max} s");
    assert!(behind_max <= 0, "{behind_max} changes were not delivered within a second");
}

fn verify(folder: &Path, output: &str) {
    let lines = Lines::new(folder.join(format!("{output}.jsonl")));
    let mut changes: HashMap<i64, Vec<i64>> = HashMap::new();
    for event in lines.first_occurrences() {
        let number = |key: &str| event["fullDocument"][key].as_i64().expect("a number");
        changes.entry(number("_id")).or_default().push(number("change"));
    }
    assert_eq!(changes.len(), DOCUMENTS as usize, "documents in output {output}");
    for (document, found) in changes {
        let expected: Vec<i64> = (document..CHANGES).step_by(DOCUMENTS as usize).collect();
        assert_eq!(found, expected, "output {output}, document {document}: every change, in order");
    }
}
