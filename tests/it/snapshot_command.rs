//! `tailwater snapshot` on an output at work: the rows of what was asked for, with nothing lost around them; they obey `match`, a
//! rejected one is a dead letter like any other, and a pause, a restart and a takeover in the middle only interrupt them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::lines::id;
use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
const ROWS: i64 = 3_000;
/// Slow enough to be seen in the middle.
const SLOWLY: &str = "rate_limit = { per_second = 400, burst = 50 }\n";
const AHEAD_MAX: i64 = 500;

struct Scene {
    mongod: Mongod,
    folder: TempDir,
}

impl Scene {
    /// `ROWS` orders, every second one open, and as many carts.
    async fn new() -> Scene {
        let scene = Scene { mongod: Mongod::start().await, folder: tempfile::tempdir().expect("temporary folder") };
        for coll in ["orders", "carts"] {
            let rows = (0..ROWS).map(|n| doc! { "_id": n, "open": n % 2 == 0 });
            scene.collection(coll).insert_many(rows).await.expect("insert");
        }
        scene
    }

    fn collection(&self, coll: &str) -> Collection<Document> {
        self.mongod.client().database("shop").collection(coll)
    }

    async fn insert(&self, ids: std::ops::Range<i64>) {
        let fresh = ids.map(|n| doc! { "_id": n, "open": n % 2 == 0 });
        self.collection("orders").insert_many(fresh).await.expect("insert");
    }

    fn text(&self, keys: &str, plugin: &str) -> String {
        let output = format!("[outputs.one]\nplugin = {plugin:?}\nahead_max = {AHEAD_MAX}\n{keys}");
        let live = "[outputs.live]\nplugin = \"sse\"\noptions = { listen = \"127.0.0.1:0\" }\n";
        config(&self.mongod, &format!("{live}{output}"))
    }

    /// One output that writes to a file.
    async fn daemon(&self, keys: &str) -> Daemon {
        let text = self.text(&format!("{keys}options = {{ path = \"one.jsonl\" }}\n"), "stdout");
        Daemon::start(self.folder.path(), &text).await
    }

    fn events(&self) -> Vec<Value> {
        events(self.folder.path())
    }

    /// Whether each of these orders came as this kind of event.
    fn has(&self, kind: &str, ids: impl IntoIterator<Item = i64>) -> bool {
        let found = keys(&self.events(), kind, "orders");
        ids.into_iter().all(|id| found.contains(&id))
    }
}

fn events(folder: &Path) -> Vec<Value> {
    Lines::new(folder.join("one.jsonl")).events()
}

fn keys(events: &[Value], kind: &str, coll: &str) -> BTreeSet<i64> {
    let wanted = events.iter().filter(|event| event["operationType"] == kind && event["ns"]["coll"] == coll);
    wanted.map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect()
}

/// Settled and expected, while a snapshot is under way.
fn progress(daemon: &Daemon) -> Option<(i64, i64)> {
    let snapshot = &daemon.status_of("one")["snapshot"];
    Some((snapshot["settled"].as_i64()?, snapshot["estimated"].as_i64()?))
}

async fn until_in_the_middle(daemon: &Daemon) {
    eventually("the snapshot is in the middle", DEADLINE, || progress(daemon).is_some_and(|(rows, _)| rows > 200))
        .await;
}

async fn until_over(daemon: &Daemon) {
    eventually("the snapshot is over", DEADLINE, || progress(daemon).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_one_collection_comes_between_the_changes() {
    let scene = Scene::new().await;
    let daemon = scene.daemon("").await;
    scene.insert(10_000..10_100).await;
    eventually("changes before", DEADLINE, || scene.has("insert", 10_000..10_100)).await;
    let (collection, writes) = (scene.collection("orders"), 10_100..10_400);
    let writer = tokio::spawn(async move {
        for n in writes {
            collection.insert_one(doc! { "_id": n }).await.expect("insert");
        }
    });
    let said = daemon.told(&["snapshot", "one", "--collection", "shop.orders"]);
    assert!(said.starts_with("one: snapshot begun\none: every row is delivered, state "), "{said}");
    assert!(scene.has("snapshot", 0..ROWS), "when the command ends all rows are there");
    writer.await.expect("writer");
    scene.insert(10_400..10_500).await;
    eventually("changes after", DEADLINE, || scene.has("insert", 10_000..10_500)).await;
    let events = scene.events();
    assert!(keys(&events, "snapshot", "carts").is_empty(), "only what was asked for");
    let rows = events.iter().filter(|event| event["operationType"] == "snapshot");
    let ids: Vec<String> = rows.map(id).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "each row once");
    for words in ["snapshot planned", "snapshot asked for by an operator", "every row of the snapshot is read"] {
        assert!(daemon.has_logged(&[words]), "{words}");
    }
    eventually("the end is logged", DEADLINE, || daemon.has_logged(&["snapshot done: every row is settled"])).await;

    // Of an empty one, of both, and without waiting for the end.
    scene.mongod.client().database("shop").create_collection("none").await.expect("create");
    daemon.told(&["snapshot", "one", "--collection", "shop.none"]);
    assert_eq!(daemon.told(&["snapshot", "one", "--detach"]), "one: snapshot begun\n");
    until_over(&daemon).await;
    assert_eq!(keys(&scene.events(), "snapshot", "carts"), (0..ROWS).collect());
    daemon.terminate_and_wait(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_seen_and_what_cannot_be_is_refused() {
    let scene = Scene::new().await;
    let daemon = scene.daemon(SLOWLY).await;
    for (arguments, reason) in [
        (&["live"][..], "output live is a broadcast: its clients take news, not rows"),
        (&["three"], "no output three is configured and enabled; there are"),
        (&["one", "--collection", "other.orders"], "other.orders is not watched: its changes would never follow"),
        (&["one", "--collection", "shop.nothing"], "there is no collection shop.nothing"),
        (&["one", "--collection", "orders"], "\"orders\" is not a collection, write \"db.collection\""),
    ] {
        let refused = daemon.refused(&[&["snapshot"], arguments].concat());
        assert!(refused.contains(reason), "{arguments:?}: {refused}");
    }
    daemon.told(&["snapshot", "one", "--collection", "shop.orders", "--detach"]);
    let (_, expected) = progress(&daemon).expect("under way as soon as it has begun");
    assert_eq!(expected, ROWS);
    let refused = daemon.refused(&["snapshot", "one", "--collection", "shop.carts"]);
    assert!(refused.contains("a snapshot of output one is under way"), "{refused}");
    until_in_the_middle(&daemon).await;
    let metric = |name: &str| daemon.metric(&format!("tailwater_output_snapshot_{name}"), &[("output", "one")]);
    assert!(metric("rows").is_some_and(|rows| rows > 200.0 && rows < ROWS as f64), "{:?}", metric("rows"));
    assert_eq!(metric("rows_expected"), Some(ROWS as f64));
    assert!(daemon.told(&["status"]).contains(&format!("% of about {ROWS} rows")));
    assert!(daemon.has_logged(&["snapshot", "rows=", "expected=3000"]));

    // It goes on behind a pause; only what was not durable comes again.
    assert_eq!(daemon.told(&["output", "pause", "one"]), "one: paused_by_operator\n");
    let refused = daemon.refused(&["snapshot", "one"]);
    assert!(refused.contains("output one is paused, run: tailwater output resume one"), "{refused}");
    let paused = scene.events().len();
    assert!(paused < ROWS as usize, "{paused}");
    scene.insert(10_000..10_010).await;
    daemon.told(&["output", "resume", "one"]);
    assert!(progress(&daemon).is_some_and(|(rows, _)| rows > 200), "not from its beginning: {:?}", progress(&daemon));
    until_in_the_middle(&daemon).await;

    // And behind a restart.
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    let ended = scene.events().len();
    let daemon = scene.daemon("").await;
    until_over(&daemon).await;
    eventually("the change", DEADLINE, || scene.has("insert", 10_000..10_010)).await;
    let events = scene.events();
    assert!(ended < ROWS as usize && scene.has("snapshot", 0..ROWS), "{ended} lines before the restart");
    assert!(keys(&events, "snapshot", "carts").is_empty());
    // A drain makes durable what was delivered.
    let rows = events.iter().filter(|event| event["operationType"] == "snapshot").count() as i64;
    assert!((ROWS..=ROWS + 10).contains(&rows), "{rows} rows of {ROWS} documents");
    assert_eq!(daemon.metric("tailwater_output_snapshot_rows_expected", &[("output", "one")]), Some(0.0));
    daemon.terminate_and_wait(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_obey_match_and_a_rejected_one_is_a_dead_letter() {
    let scene = Scene::new().await;
    let text = "needle";
    scene.collection("orders").update_one(doc! { "_id": 4 }, doc! { "$set": { "a": text } }).await.expect("update");
    let odd = scene.collection("orders").update_one(doc! { "_id": 5 }, doc! { "$set": { "a": text } }).await;
    odd.expect("update");
    let keys_of = |mode: &str| {
        let options = format!("options = {{ path = \"one.jsonl\", {mode} }}\n");
        scene.text(&format!("match = {{ \"fullDocument.open\" = true }}\n{options}"), "faulty")
    };
    let text = keys_of("mode = \"reject_matching\", text = \"needle\"");
    let daemon = Daemon::start(scene.folder.path(), &text).await;
    daemon.told(&["snapshot", "one", "--collection", "shop.orders"]);
    let even: BTreeSet<i64> = (0..ROWS).filter(|n| n % 2 == 0 && *n != 4).collect();
    assert_eq!(keys(&scene.events(), "snapshot", "orders"), even);
    assert_eq!(daemon.metric("tailwater_output_dead_lettered_total", &[("output", "one")]), Some(1.0));
    let listed = daemon.told(&["dead-letters", "list", "--json"]);
    let letter: Value = serde_json::from_str(listed.lines().next().expect("a letter")).expect("JSON");
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert_eq!(
        (&letter["operation_type"], &letter["document_key"]["_id"]),
        (&"snapshot".into(), &4.into()),
        "{letter}"
    );
    let name = letter["letter"].as_str().expect("a name").to_owned();
    let shown = daemon.told(&["dead-letters", "show", &name]);
    assert!(shown.contains("replay        possible"), "{shown}");
    daemon.terminate_and_wait(DEADLINE).await;

    let daemon = Daemon::start(scene.folder.path(), &keys_of("mode = \"ok\"")).await;
    let said = daemon.told(&["dead-letters", "replay", &name]);
    assert!(said.contains("replayed 1 of 1"), "{said}");
    let events = scene.events();
    let again: Vec<&Value> = events.iter().filter(|event| event["documentKey"]["_id"] == 4).collect();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0]["operationType"].as_str(), id(again[0])), (Some("snapshot"), name.replace("one/", "")));
    assert!(again[0]["attempt"].as_i64().is_some_and(|attempt| attempt > 1), "marked as a redelivery: {}", again[0]);
    daemon.terminate_and_wait(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_goes_on_with_the_snapshot_of_the_one_that_ends() {
    let scene = Scene::new().await;
    let first = scene.daemon(SLOWLY).await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let text = scene.text("options = { path = \"one.jsonl\" }\n", "stdout");
    let second = Daemon::start(folder.path(), &text).await;
    assert_eq!(second.status_of("one")["state"], "standby");
    let refused = second.refused(&["snapshot", "one"]);
    assert!(refused.contains("another instance delivers this output"), "{refused}");
    first.told(&["snapshot", "one", "--collection", "shop.orders", "--detach"]);
    until_in_the_middle(&first).await;
    scene.insert(10_000..10_010).await;
    assert!(first.terminate_and_wait(DEADLINE).await.success());
    let inserts = || keys(&events(folder.path()), "insert", "orders").len();
    eventually("rows and changes by the second", DEADLINE, || inserts() == 10).await;
    let [one, two] = [scene.events(), events(folder.path())].map(|events| keys(&events, "snapshot", "orders"));
    // What was inserted meanwhile may come as a row too.
    assert!((0..ROWS).all(|n| one.contains(&n) || two.contains(&n)), "a row is missing");
    assert!(
        one.len() > 200 && one.intersection(&two).count() <= 10,
        "{} by the first, {} by the second",
        one.len(),
        two.len()
    );
    until_over(&second).await;
}
