//! What an output need not deliver is left out by its own policies, counted and logged: superseded events of a document, events
//! that are too old, events that were tried long enough. Nothing else is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;
use tempfile::TempDir;

use crate::harness::{Daemon, Lines, Mongod, config_of, eventually};

const DEADLINE: Duration = Duration::from_secs(60);

/// A daemon with one output, plugin `faulty`, that answers "retry" until the gate is open.
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

    async fn daemon(&self, keys: &str) -> Daemon {
        let source = "watch = [\"shop.*\"]\nfull_document = \"update_lookup\"";
        let options = "path = \"one.jsonl\", mode = \"retry_for\", gate = \"gate\"";
        let output = format!("[outputs.one]\nplugin = \"faulty\"\n{keys}\noptions = {{ {options} }}\n");
        let tables = format!("[checkpoint]\ninterval = \"50ms\"\n{output}");
        Daemon::start(self.folder.path(), &config_of(&self.mongod.uri(), source, &tables)).await
    }

    fn orders(&self) -> Collection<Document> {
        self.mongod.client().database("shop").collection("orders")
    }

    fn open_the_gate(&self) {
        std::fs::write(self.folder.path().join("gate"), "").expect("write the gate");
    }

    fn shut_the_gate(&self) {
        std::fs::remove_file(self.folder.path().join("gate")).expect("remove the gate");
    }
}

fn metric(daemon: &Daemon, name: &str) -> f64 {
    daemon.metric(&format!("tailwater_output_{name}"), &[("output", "one")]).unwrap_or(0.0)
}

fn skipped(daemon: &Daemon, reason: &str) -> f64 {
    let labels = [("output", "one"), ("reason", reason)];
    daemon.metric("tailwater_output_skipped_total", &labels).expect("a counter from the first moment")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_waits_only_the_newest_event_of_a_document_is_kept() {
    const DOCUMENTS: i64 = 5;
    const VERSIONS: i64 = 40;
    let scene = Scene::new().await;
    let daemon = scene.daemon("backlog = { keep = \"latest_per_key\" }\nretry = { backoff_max = \"1s\" }").await;
    for version in 0..VERSIONS {
        for id in 0..DOCUMENTS {
            let update = doc! { "$set": { "version": version } };
            scene.orders().update_one(doc! { "_id": id }, update).upsert(true).await.expect("update");
        }
    }
    let all = (DOCUMENTS * VERSIONS) as f64;
    eventually("all is taken", DEADLINE, || {
        skipped(&daemon, "superseded") + metric(&daemon, "unsettled_events") == all
            && metric(&daemon, "unsettled_events") <= 2.0 * DOCUMENTS as f64
    })
    .await;
    scene.open_the_gate();
    eventually("all is settled", DEADLINE, || metric(&daemon, "unsettled_events") == 0.0).await;
    let mut versions: HashMap<i64, Vec<i64>> = HashMap::new();
    for event in scene.lines.events() {
        let id = event["documentKey"]["_id"].as_i64().expect("a number");
        let fields = [&event["fullDocument"], &event["updateDescription"]["updatedFields"]];
        let version = fields.iter().rev().find_map(|fields| fields["version"].as_i64()).expect("a version");
        versions.entry(id).or_default().push(version);
    }
    assert_eq!(versions.len(), DOCUMENTS as usize);
    for (document, found) in versions {
        assert!(found.is_sorted() && found.last() == Some(&(VERSIONS - 1)), "document {document}: {found:?}");
    }
    assert_eq!(metric(&daemon, "delivered_total") + skipped(&daemon, "superseded"), all, "each is accounted for");
    assert!(daemon.has_logged(&["output=\"one\"", "only the newest waiting event is kept"]));
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_max_age_is_skipped_after_an_outage() {
    const MAX_AGE: Duration = Duration::from_secs(3);
    let scene = Scene::new().await;
    scene.open_the_gate();
    let keys = "backlog = { max_age = \"3s\" }";
    let daemon = scene.daemon(keys).await;
    scene.orders().insert_one(doc! { "_id": 0 }).await.expect("insert");
    eventually("the first one", DEADLINE, || scene.lines.events().len() == 1).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    scene.orders().insert_many((1..=10).map(|id| doc! { "_id": id })).await.expect("insert");
    let inserted = Instant::now();
    // Whole seconds are compared, so two more.
    let enough = MAX_AGE + Duration::from_secs(2);
    eventually("they are older than that", DEADLINE, || inserted.elapsed() > enough).await;
    // The deployment's own time moves with writes.
    scene.orders().insert_one(doc! { "_id": 11 }).await.expect("insert");

    let daemon = scene.daemon(keys).await;
    eventually("they are skipped", DEADLINE, || skipped(&daemon, "max_age") == 10.0).await;
    scene.orders().insert_one(doc! { "_id": 12 }).await.expect("insert");
    eventually("all is settled", DEADLINE, || {
        scene.lines.events().len() == 3 && metric(&daemon, "unsettled_events") == 0.0
    })
    .await;
    let ids: Vec<_> =
        scene.lines.events().iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect();
    assert_eq!(ids, [0, 11, 12]);
    assert!(daemon.has_logged(&["WARN", "output=\"one\"", "older than backlog.max_age are skipped"]));
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_tried_long_enough_is_given_up() {
    let scene = Scene::new().await;
    scene.open_the_gate();
    let keys = "retry = { backoff_max = \"200ms\", give_up_after = \"1s\" }\non_reject = \"skip\"";
    let daemon = scene.daemon(keys).await;
    scene.orders().insert_one(doc! { "_id": 0 }).await.expect("insert");
    eventually("it is delivered", DEADLINE, || metric(&daemon, "delivered_total") == 1.0).await;
    scene.shut_the_gate();
    scene.orders().insert_many((1..=3).map(|id| doc! { "_id": id })).await.expect("insert");
    eventually("they are given up", DEADLINE, || {
        metric(&daemon, "rejected_total") == 3.0 && metric(&daemon, "unsettled_events") == 0.0
    })
    .await;
    assert!(metric(&daemon, "retried_total") > 3.0, "they were tried more than once");
    assert_eq!(skipped(&daemon, "rejected"), 3.0);
    assert!(daemon.has_logged(&["WARN", "output=\"one\"", "rejected and skipped", "given up after 1s"]));
    scene.open_the_gate();
    scene.orders().insert_one(doc! { "_id": 4 }).await.expect("insert");
    eventually("the output goes on", DEADLINE, || metric(&daemon, "delivered_total") == 2.0).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}
