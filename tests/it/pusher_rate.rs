//! Ten thousand events that piled up while Pusher was away leave at the lane's `rate_limit` when it is back, in order per channel,
//! with one request at a time on each channel.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Database;
use serde_json::Value;

use crate::harness::{Daemon, Mongod, config, eventually};
use crate::pusher_receiver::{Accepted, App, Receiver};

const DEADLINE: Duration = Duration::from_secs(120);
const EVENTS: usize = 10_000;
/// The events' `order` is in the order in which they were written, their channel one of this many.
const CHANNELS: usize = 50;
const PER_SECOND: usize = 2_000;
const BURST: usize = 200;
const CONCURRENCY: usize = 8;
/// Pusher's own bound, and the plugin's.
const BATCH: usize = 10;

fn text(mongod: &Mongod, receiver: &Receiver) -> String {
    let port = receiver.port();
    let output = format!(
        "[outputs.push]\nplugin = \"pusher\"\nconcurrency = {CONCURRENCY}\nahead_max = 20000\nin_flight_bytes_max = \"64MiB\"\n\
         rate_limit = {{ per_second = {PER_SECOND}, burst = {BURST} }}\n\
         retry = {{ backoff_min = \"100ms\", backoff_max = \"500ms\" }}\n\
         [outputs.push.options]\napp_id = \"3\"\nkey = \"key\"\nsecret = \"secret\"\n\
         host = \"127.0.0.1\"\nport = {port}\ntls = false\nchannels = [\"orders-{{{{ fullDocument.channel }}}}\"]\n"
    );
    config(mongod, &output)
}

/// Each channel is about one document, replaced again and again.
async fn write(shop: &Database) {
    for from in (0..EVENTS).step_by(500) {
        let replace = |order: usize| {
            let (order, channel) = (order as i64, (order % CHANNELS) as i64);
            let document = doc! { "_id": channel, "channel": channel, "order": order };
            doc! { "q": { "_id": channel }, "u": document, "upsert": true }
        };
        let updates: Vec<Document> = (from..from + 500).map(replace).collect();
        let reply = shop.run_command(doc! { "update": "orders", "updates": updates }).await.expect("write");
        assert_eq!(reply.get_i32("n").expect("n"), 500, "{reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_leaves_at_the_rate_that_the_operator_has_set() {
    let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
    let app = App { id: "3".to_owned(), key: "key".to_owned(), secret: "secret".to_owned() };
    let mut receiver = Receiver::start(app);
    let daemon = Daemon::start(folder.path(), &text(&mongod, &receiver)).await;
    receiver.stop();
    write(&mongod.client().database("shop")).await;
    let metric =
        |name: &str| daemon.metric(&format!("tailwater_output_{name}"), &[("output", "push")]).expect("a metric");
    eventually("the whole backlog is in the lane, and was tried", DEADLINE, || {
        metric("unsettled_events") >= EVENTS as f64 && metric("retried_total") > 0.0
    })
    .await;
    assert_eq!(receiver.record().accepted.len(), 0, "it is away");

    receiver.start_again();
    let back = Instant::now();
    let record = receiver.wait_until_within(DEADLINE, "every event", |record| record.accepted.len() >= EVENTS);
    let took = back.elapsed();
    assert!(record.violations.is_empty(), "{:?}", record.violations);
    check_order(&record.accepted);
    let worst = check_rate(&record.accepted);
    eprintln!(
        "{} entries in {took:?}, {worst:.0} above the rate at worst, {} requests open",
        record.accepted.len(),
        record.open_max
    );
    // All but the burst has to wait for its turn.
    assert!(took >= Duration::from_secs_f64((EVENTS - BURST) as f64 / PER_SECOND as f64), "{took:?} is too fast");
    assert!(record.open_max <= CONCURRENCY, "{} requests at once", record.open_max);
    assert!(daemon.terminate_and_wait(Duration::from_secs(30)).await.success());
    let violations = receiver.record().violations;
    assert!(violations.is_empty(), "{violations:?}");
}

/// Every event, first occurrences in order on each channel, which is the order of writing.
fn check_order(accepted: &[Accepted]) {
    let mut orders: HashMap<&str, Vec<u64>> = HashMap::new();
    let mut seen = HashSet::new();
    for accepted in accepted {
        let event: Value = serde_json::from_str(&accepted.entry.data).expect("JSON");
        let order = event["fullDocument"]["order"].as_u64().expect("a number");
        if seen.insert(order) {
            orders.entry(&accepted.entry.channel).or_default().push(order);
        }
    }
    assert_eq!(orders.len(), CHANNELS);
    for (channel, found) in orders {
        let first = found[0];
        assert_eq!(channel, format!("orders-{first}"));
        let expected: Vec<u64> = (first..EVENTS as u64).step_by(CHANNELS).collect();
        assert_eq!(found, expected, "{channel}: every event, in order");
    }
}

/// In no stretch of time came more than the limit allows. What is counted is arrivals, what is limited is departures: of those that
/// arrive within a stretch, only the ones in flight at its beginning may have left before it. Slower than the limit is no fault.
/// Gives back how many events above the mere rate the worst stretch had.
fn check_rate(accepted: &[Accepted]) -> f64 {
    let mut arrived: Vec<Instant> = accepted.iter().map(|accepted| accepted.arrived).collect();
    arrived.sort_unstable();
    let allowed = (BURST + CONCURRENCY * BATCH) as f64;
    // Ahead of the rate since the first arrival; a stretch is worst from where this was least.
    let (mut least, mut worst) = (0.0_f64, 0.0_f64);
    for (before, at) in arrived.iter().enumerate() {
        let ahead = before as f64 - PER_SECOND as f64 * at.duration_since(arrived[0]).as_secs_f64();
        least = least.min(ahead);
        worst = worst.max(ahead + 1.0 - least);
    }
    assert!(worst <= allowed, "{worst:.0} events above the rate, {allowed} are allowed");
    worst
}
