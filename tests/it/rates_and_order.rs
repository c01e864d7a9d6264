//! A lane's own limits hold: the rate over a backlog, order per key with sixteen batches in flight, `ahead_max`, and the waits
//! between deliveries of one event.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;
use tempfile::TempDir;

use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(60);

/// A daemon with one output, plugin `faulty`.
struct Scene {
    mongod: Mongod,
    folder: TempDir,
    lines: Lines,
}

impl Scene {
    async fn new() -> Scene {
        let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
        let lines = Lines::new(folder.path().join("one.jsonl"));
        Scene { mongod, folder, lines }
    }

    async fn daemon(&self, keys: &str, options: &str) -> Daemon {
        let output = format!("plugin = \"faulty\"\n{keys}\noptions = {{ path = \"one.jsonl\", {options} }}\n");
        let text = config(&self.mongod, &format!("[checkpoint]\ninterval = \"50ms\"\n[outputs.one]\n{output}"));
        Daemon::start(self.folder.path(), &text).await
    }

    fn orders(&self) -> Collection<Document> {
        self.mongod.client().database("shop").collection("orders")
    }

    async fn insert(&self, count: i64) {
        self.orders().insert_many((0..count).map(|id| doc! { "_id": id })).await.expect("insert");
    }

    fn open_the_gate(&self) {
        std::fs::write(self.folder.path().join("gate"), "").expect("write the gate");
    }
}

fn metric(daemon: &Daemon, name: &str) -> f64 {
    daemon.metric(&format!("tailwater_output_{name}"), &[("output", "one")]).unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_holds_over_a_backlog() {
    const EVENTS: i64 = 1_000;
    const PER_SECOND: f64 = 200.0;
    const BURST: f64 = 50.0;
    let scene = Scene::new().await;
    let keys = format!("rate_limit = {{ per_second = {PER_SECOND}, burst = {BURST} }}").replace(".0", "");
    let daemon = scene.daemon(&keys, "mode = \"ok\"").await;
    let started = Instant::now();
    scene.insert(EVENTS).await;
    // Each sample: how many had been delivered at some time between the two instants.
    let mut samples = Vec::new();
    eventually("everything is delivered", DEADLINE, || {
        let asked = Instant::now();
        let delivered = metric(&daemon, "delivered_total");
        samples.push((asked, delivered, Instant::now()));
        delivered >= EVENTS as f64
    })
    .await;
    let took = started.elapsed();
    eprintln!("{EVENTS} events in {took:?}, {} samples", samples.len());
    for (index, (from, before, _)) in samples.iter().enumerate() {
        for (_, after, until) in &samples[index..] {
            let time = until.duration_since(*from).as_secs_f64();
            // A batch that left before the first sample may be acknowledged behind it.
            let most = 2.0 * BURST + PER_SECOND * time;
            assert!(after - before <= most, "{} events in {time:.3} s, at most {most:.0}", after - before);
        }
    }
    let least = (EVENTS as f64 - BURST) / PER_SECOND;
    assert!(took.as_secs_f64() >= least, "{took:?} is faster than the limit allows: {least} s");
    assert!(took.as_secs_f64() <= 3.0 * least, "{took:?} is far slower than the limit allows: {least} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn order_per_document_holds_with_sixteen_batches_in_flight() {
    const DOCUMENTS: i64 = 200;
    const VERSIONS: i64 = 20;
    let scene = Scene::new().await;
    let daemon = scene
        .daemon("concurrency = 16\nbatch = { events_max = 10 }", "mode = \"slow\", delay_ms = 10, uneven = true")
        .await;
    for version in 0..VERSIONS {
        let updates: Vec<Document> = (0..DOCUMENTS)
            .map(|id| doc! { "q": { "_id": id }, "u": { "_id": id, "version": version }, "upsert": true })
            .collect();
        let shop = scene.mongod.client().database("shop");
        let reply = shop.run_command(doc! { "update": "orders", "updates": updates }).await;
        assert_eq!(reply.expect("update").get_i32("n").expect("n"), DOCUMENTS as i32);
    }
    let mut in_flight_max: f64 = 0.0;
    eventually("everything is delivered", DEADLINE, || {
        in_flight_max = in_flight_max.max(metric(&daemon, "in_flight_events"));
        metric(&daemon, "delivered_total") >= (DOCUMENTS * VERSIONS) as f64
    })
    .await;
    eprintln!("at most {in_flight_max} events seen in flight");
    assert!(in_flight_max > 20.0, "batches were delivered at the same time: {in_flight_max}");
    let mut versions: HashMap<i64, Vec<i64>> = HashMap::new();
    for event in scene.lines.events() {
        let document = &event["fullDocument"];
        let number = |key: &str| document[key].as_i64().expect("a number");
        versions.entry(number("_id")).or_default().push(number("version"));
    }
    assert_eq!(versions.len(), DOCUMENTS as usize);
    for (document, found) in versions {
        assert_eq!(found, (0..VERSIONS).collect::<Vec<_>>(), "document {document}");
    }
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_at_ahead_max_waits_and_says_so() {
    const AHEAD_MAX: i64 = 100;
    let scene = Scene::new().await;
    let keys = format!("ahead_max = {AHEAD_MAX}\nbatch = {{ events_max = 10 }}\nretry = {{ backoff_max = \"1s\" }}");
    let daemon = scene.daemon(&keys, "mode = \"retry_for\", gate = \"gate\"").await;
    scene.insert(1_000).await;
    let mut most: f64 = 0.0;
    eventually("the lane waits", DEADLINE, || {
        most = most.max(metric(&daemon, "unsettled_events"));
        daemon.is_in_state("one", "waiting")
    })
    .await;
    // One document that cannot be delivered must not let the others run on either: read far beyond what it holds.
    let retried = metric(&daemon, "retried_total");
    eventually("some hundred retries more", DEADLINE, || {
        most = most.max(metric(&daemon, "unsettled_events"));
        metric(&daemon, "retried_total") >= retried + 300.0
    })
    .await;
    assert_eq!(most, AHEAD_MAX as f64, "taken and not settled");
    assert!(daemon.has_logged(&["output=\"one\"", "state=\"waiting\""]));
    scene.open_the_gate();
    eventually("everything is delivered", DEADLINE, || scene.lines.events().len() == 1_000).await;
    eventually("the lane is live again", DEADLINE, || daemon.is_in_state("one", "live")).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_is_delivered_again_after_a_wait_each_time() {
    const WAIT: Duration = Duration::from_millis(200);
    let scene = Scene::new().await;
    let keys = "retry = { backoff_min = \"200ms\", backoff_max = \"200ms\" }";
    let daemon = scene.daemon(keys, "mode = \"retry_for\", gate = \"gate\"").await;
    scene.insert(1).await;
    let until = async |count: f64| {
        let mut found = 0.0;
        eventually("more retries", DEADLINE, || {
            found = metric(&daemon, "retried_total");
            found >= count
        })
        .await;
        found
    };
    let before = until(1.0).await;
    let started = Instant::now();
    let after = until(before + 10.0).await;
    let took = started.elapsed();
    eprintln!("{} retries in {took:?}", after - before);
    // One of the waits may have been almost over when the clock was started.
    assert!(took >= WAIT.mul_f64(after - before - 1.0), "{} retries in {took:?}", after - before);
    assert!(took <= WAIT.mul_f64(5.0 * (after - before)), "{} retries took {took:?}", after - before);
    scene.open_the_gate();
    eventually("it is delivered", DEADLINE, || scene.lines.events().len() == 1).await;
    let attempt = scene.lines.events()[0]["attempt"].as_f64().expect("attempt");
    assert!(attempt > after, "the attempt says how often: {attempt}");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}
