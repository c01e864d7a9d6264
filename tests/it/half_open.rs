//! A connection that is dead without having been closed is noticed within 15 s, also where only the stream's own connection is;
//! a server that only has much to do is not taken for dead.

use std::path::Path;
use std::time::{Duration, Instant};

use bson::{Document, doc};

use crate::harness::{Daemon, Lines, Mongod, Proxy, TEST_COMMANDS, config_of, eventually};

/// The promise.
const NOTICED_MAX: Duration = Duration::from_secs(15);
const DEADLINE: Duration = Duration::from_secs(60);
const OUTPUT: &str = "[checkpoint]\ninterval = \"50ms\"\n\
    [outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";

struct Scene {
    mongod: Mongod,
    proxy: Proxy,
    daemon: Daemon,
    lines: Lines,
}

impl Scene {
    async fn new(folder: &Path) -> Scene {
        let mongod = Mongod::start_with(&TEST_COMMANDS).await;
        let proxy = Proxy::start(mongod.port()).await;
        let config = config_of(&proxy.uri(), "watch = [\"shop.*\"]", OUTPUT);
        let daemon = Daemon::start(folder, &config).await;
        let scene = Scene { mongod, proxy, daemon, lines: Lines::new(folder.join("all.jsonl")) };
        scene.insert(0).await;
        scene.has(100).await;
        scene
    }

    async fn insert(&self, from: i64) {
        let orders = self.mongod.client().database("shop").collection::<Document>("orders");
        orders.insert_many((from..from + 100).map(|id| doc! { "_id": id })).await.expect("insert");
    }

    async fn has(&self, events: i64) {
        let first = || self.lines.first_occurrences();
        eventually(&format!("{events} events"), DEADLINE, || first().len() as i64 >= events).await;
        let keys: Vec<i64> =
            first().iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect();
        assert_eq!(keys, (0..events).collect::<Vec<_>>());
    }

    fn metric(&self, name: &str) -> f64 {
        self.daemon.metric(name, &[]).expect("there from the first moment")
    }

    /// How long it takes from `fault` to the news that the stream broke.
    async fn noticed_within(&self, fault: impl FnOnce()) -> Duration {
        let reopened = self.metric("tailwater_source_reopened_total");
        let frozen = Instant::now();
        fault();
        eventually("the daemon has noticed", DEADLINE, || self.metric("tailwater_source_reopened_total") > reopened)
            .await;
        frozen.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_is_noticed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let scene = Scene::new(folder.path()).await;
    let took = scene.noticed_within(|| scene.proxy.freeze()).await;
    eprintln!("noticed after {took:?}");
    assert!(took < NOTICED_MAX, "{took:?}");
    assert_eq!(scene.daemon.get("/healthz").map(|answer| answer.status), Some(200));
    assert_eq!(scene.daemon.get("/readyz").map(|answer| answer.status), Some(503), "the source is not open");
    scene.insert(100).await;
    scene.proxy.thaw();
    scene.has(200).await;
    eventually("ready again", DEADLINE, || scene.daemon.get("/readyz").is_some_and(|answer| answer.status == 200))
        .await;
    // The checkpoint too is written again.
    let written = || scene.daemon.metric("tailwater_output_checkpoints_total", &[("output", "all")]);
    let before = written();
    scene.insert(200).await;
    scene.has(300).await;
    eventually("a checkpoint", DEADLINE, || written() > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_something_on_the_way_has_forgotten_is_noticed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let scene = Scene::new(folder.path()).await;
    // The driver's own look at the server goes on to succeed, and only the stream itself can notice.
    let took = scene.noticed_within(|| scene.proxy.freeze_cursors()).await;
    eprintln!("noticed after {took:?}");
    assert!(took < NOTICED_MAX, "{took:?}");
    assert_eq!(scene.metric("tailwater_source_silences_total"), 1.0);
    assert!(scene.daemon.has_logged(&["the server said nothing for", "opening it again"]));
    // New connections pass, so it goes on while the old ones are dead.
    scene.insert(100).await;
    scene.has(200).await;
    assert_eq!(scene.lines.events().len(), 200, "opening again in the same process repeats nothing");
    // The next time as soon as the first time, once the cursor has been answered for a while, on no dead connection of the pool.
    scene.proxy.thaw();
    let answered = || scene.metric("tailwater_source_last_reply_timestamp_seconds");
    let reopened = || scene.metric("tailwater_source_reopened_total");
    let mut quiet = (reopened(), answered());
    let is_stable = || {
        if reopened() > quiet.0 {
            quiet = (reopened(), answered());
        }
        answered() >= quiet.1 + 2.0
    };
    eventually("a good cursor", DEADLINE, is_stable).await;
    let took = scene.noticed_within(|| scene.proxy.freeze_cursors()).await;
    eprintln!("noticed again after {took:?}");
    assert!(took < NOTICED_MAX, "{took:?}");
    scene.insert(200).await;
    scene.has(300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_at_work_for_long_is_not_taken_for_dead() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let scene = Scene::new(folder.path()).await;
    let reopened = scene.metric("tailwater_source_reopened_total");
    // As a read that scans a long oplog for what the `$match` lets through.
    let busy = Duration::from_secs(25);
    let started = Instant::now();
    scene.mongod.block_next_command("getMore", busy).await;
    scene.insert(100).await;
    scene.has(200).await;
    assert!(started.elapsed() > busy, "the read was held up");
    assert_eq!(scene.metric("tailwater_source_reopened_total"), reopened, "it was waited for");
    assert_eq!(scene.metric("tailwater_source_silences_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_cut_again_and_again_costs_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let scene = Scene::new(folder.path()).await;
    for round in 1..=3 {
        let took = scene.noticed_within(|| scene.proxy.cut()).await;
        eprintln!("noticed after {took:?}");
        scene.insert(round * 100).await;
        scene.has((round + 1) * 100).await;
    }
    scene.proxy.refuse();
    scene.noticed_within(|| scene.proxy.cut()).await;
    scene.insert(400).await;
    eventually("it has tried", DEADLINE, || scene.daemon.has_logged(&["cannot open the change stream again yet"]))
        .await;
    scene.proxy.allow();
    scene.has(500).await;
    assert_eq!(scene.lines.events().len(), 500, "opening again in the same process repeats nothing");
}
