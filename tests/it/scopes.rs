//! What is watched is delivered and nothing else: one database, several without a cross product, the whole deployment without
//! our own database; renames into and out of scope, drops and dropDatabase are events, invalidate never is, and the stream
//! goes on behind each of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Daemon, Lines, Mongod, config_of, eventually};

const DEADLINE: Duration = Duration::from_secs(30);

/// A daemon with one output that takes everything in scope.
struct Scene {
    mongod: Mongod,
    folder: TempDir,
    text: String,
    lines: Lines,
}

impl Scene {
    async fn new(watch: &str, checkpoint: &str) -> Scene {
        let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
        let output = "[outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";
        let text =
            config_of(&mongod.uri(), &format!("watch = {watch}"), &format!("[checkpoint]\n{checkpoint}\n{output}"));
        let lines = Lines::new(folder.path().join("all.jsonl"));
        Scene { mongod, folder, text, lines }
    }

    async fn daemon(&self) -> Daemon {
        Daemon::start(self.folder.path(), &self.text).await
    }

    async fn insert(&self, namespace: &str, id: i64) {
        let (db, coll) = namespace.split_once('.').expect("db.collection");
        let collection = self.mongod.client().database(db).collection::<Document>(coll);
        collection.insert_one(doc! { "_id": id }).await.expect("insert");
    }

    async fn command(&self, db: &str, command: Document) {
        self.mongod.client().database(db).run_command(command).await.expect("command");
    }

    /// What was delivered so far, as words: `insert shop.orders 1`, `drop shop.orders`, `dropDatabase shop`.
    fn delivered(&self) -> Vec<String> {
        self.lines.events().iter().map(words).collect()
    }

    /// Waits for `last` and compares all that was delivered.
    async fn expect(&self, expected: &[&str]) {
        let last = expected.last().expect("something");
        eventually(&format!("{last} is delivered"), DEADLINE, || self.delivered().iter().any(|found| found == last))
            .await;
        assert_eq!(self.delivered(), expected);
    }
}

fn words(event: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let namespace = [text(&event["ns"]["db"]), text(&event["ns"]["coll"])].into_iter().flatten().collect::<Vec<_>>();
    let key = event["documentKey"]["_id"].as_i64().map(|id| id.to_string());
    let words = [text(&event["operationType"]), Some(namespace.join(".")), key];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_of_one_database() {
    let scene = Scene::new("[\"shop.orders\", \"shop.carts\"]", "").await;
    let daemon = scene.daemon().await;
    for (namespace, id) in [("shop.orders", 1), ("shop.other", 2), ("crm.orders", 3), ("shop.carts", 4)] {
        scene.insert(namespace, id).await;
    }
    scene.expect(&["insert shop.orders 1", "insert shop.carts 4"]).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_databases_are_not_a_cross_product() {
    let scene = Scene::new("[\"shop.orders\", \"crm.people\", \"logs.*\"]", "").await;
    let daemon = scene.daemon().await;
    for (id, namespace) in
        ["shop.people", "crm.orders", "shop.orders", "other.orders", "crm.people", "logs.x"].into_iter().enumerate()
    {
        scene.insert(namespace, id as i64).await;
    }
    scene.expect(&["insert shop.orders 2", "insert crm.people 4", "insert logs.x 5"]).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_deployment_without_our_own_writes_which_do_not_feed_themselves() {
    let idle = Duration::from_secs(1);
    let scene = Scene::new("[\"*\"]", "interval = \"20ms\"\nidle_interval = \"1s\"").await;
    let daemon = scene.daemon().await;
    scene.insert("shop.orders", 1).await;
    scene.insert("crm.people", 2).await;
    scene.expect(&["insert shop.orders 1", "insert crm.people 2"]).await;

    // Quiet from here on, but for the checkpoints themselves. If one led to the next, the interval would be their pace.
    let written = || daemon.metric("tailwater_output_checkpoints_total", &[("output", "all")]).unwrap_or(0.0);
    let after = async |count: f64| eventually("another checkpoint", DEADLINE, || written() >= count).await;
    after(written() + 1.0).await;
    let (since, first) = (Instant::now(), written());
    after(first + 3.0).await;
    let (took, found) = (since.elapsed(), written() - first);
    eprintln!("{found} checkpoints in {took:?} without a change");
    // The first of them may follow at once, those behind it each after a whole interval.
    assert!(took >= idle.mul_f64(1.9) && found <= 4.0, "{found} checkpoints in {took:?}");
    scene.insert("shop.orders", 3).await;
    scene.expect(&["insert shop.orders 1", "insert crm.people 2", "insert shop.orders 3"]).await;
    let databases: BTreeSet<String> =
        scene.lines.events().iter().map(|event| event["ns"]["db"].as_str().unwrap_or("").to_owned()).collect();
    assert!(!databases.contains("tailwater"), "{databases:?}");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_into_scope_and_out_of_it_and_a_drop_are_events() {
    let scene = Scene::new("[\"shop.orders\"]", "").await;
    let daemon = scene.daemon().await;
    scene.insert("shop.new", 1).await;
    scene.command("admin", doc! { "renameCollection": "shop.new", "to": "shop.orders" }).await;
    scene.insert("shop.orders", 2).await;
    scene.command("admin", doc! { "renameCollection": "shop.orders", "to": "shop.old" }).await;
    scene.insert("shop.old", 3).await;
    scene.insert("shop.orders", 4).await;
    scene.command("shop", doc! { "drop": "orders" }).await;
    scene.insert("shop.orders", 5).await;
    scene
        .expect(&[
            "rename shop.new",
            "insert shop.orders 2",
            "rename shop.orders",
            "insert shop.orders 4",
            "drop shop.orders",
            "insert shop.orders 5",
        ])
        .await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

async fn drop_database(watch: &str) {
    let scene = Scene::new(watch, "interval = \"20ms\"").await;
    let daemon = scene.daemon().await;
    scene.insert("shop.orders", 1).await;
    scene.command("shop", doc! { "dropDatabase": 1 }).await;
    scene.insert("shop.orders", 2).await;
    let mut expected = vec!["insert shop.orders 1", "drop shop.orders", "dropDatabase shop", "insert shop.orders 2"];
    scene.expect(&expected).await;

    // Once more, with a restart whose checkpoint is right behind it.
    scene.command("shop", doc! { "dropDatabase": 1 }).await;
    expected.extend(["drop shop.orders", "dropDatabase shop"]);
    eventually("the second dropDatabase", DEADLINE, || scene.delivered().len() == expected.len()).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    scene.insert("shop.orders", 3).await;
    let daemon = scene.daemon().await;
    scene.insert("shop.orders", 4).await;
    expected.extend(["insert shop.orders 3", "insert shop.orders 4"]);
    scene.expect(&expected).await;
    assert!(daemon.is_in_state("all", "live"));
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_stream_goes_on_behind_drop_database() {
    drop_database("[\"shop.*\"]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_database_stream_goes_on_behind_drop_database() {
    drop_database("[\"shop.orders\"]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_stream_goes_on_behind_drop_database() {
    drop_database("[\"shop.orders\", \"crm.*\"]").await;
}

/// The operator's own stage hides the invalidate event; the database stream ends without a word all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_hides_the_invalidate_does_not_stop_the_stream() {
    let scene = Scene::new("[\"shop.*\"]\npipeline = [{ \"$match\" = { operationType = \"insert\" } }]", "").await;
    let daemon = scene.daemon().await;
    scene.insert("shop.orders", 1).await;
    scene.expect(&["insert shop.orders 1"]).await;
    for round in 1..4 {
        scene.command("shop", doc! { "dropDatabase": 1 }).await;
        scene.insert("shop.orders", round + 1).await;
        let expected: Vec<String> = (1..=round + 1).map(|id| format!("insert shop.orders {id}")).collect();
        scene.expect(&expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}
