//! A page that names an id whose history is gone, or no id at all, is told so by a `reset` before anything else, and goes on
//! live from there; one whose history is there gets it without.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Browser, Daemon, Mongod, Seen, config, eventually, fixed_port, lines};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn an_id_in_the_address_is_resumed_or_answered_with_a_reset() {
    let scene = Scene::start().await;
    let daemon = scene.daemon("5m").await;
    scene.open("live", "").await;
    scene.insert(0..3).await;
    eventually("three events", DEADLINE, || scene.numbers("live") == [0, 1, 2]).await;
    let first = lines::id(&scene.browser.events("live")[0]);

    let (old, no_id) = ("0000000100000000-0000000000000000", "{\"_data\": \"82\"}\n🦀");
    for (stream, id) in [("known", first.as_str()), ("old", old), ("none", no_id)] {
        scene.open(stream, &format!("?last_event_id={}", in_address(id))).await;
    }
    eventually("what is behind the id", DEADLINE, || scene.numbers("known") == [1, 2]).await;
    eventually("two resets", DEADLINE, || ["old", "none"].iter().all(|stream| scene.browser.resets(stream).len() == 1))
        .await;
    scene.insert(3..4).await;
    eventually("all go on", DEADLINE, || scene.numbers("known") == [1, 2, 3]).await;
    for (stream, id, reason) in [("old", old, "history"), ("none", no_id, "id")] {
        eventually("live events behind the reset", DEADLINE, || scene.numbers(stream) == [3]).await;
        let (at, data) = &scene.browser.resets(stream)[0];
        assert_eq!(*data, json!({ "reason": reason, "lastEventId": id }));
        assert!(*at < lines::id(&scene.browser.events(stream)[0]), "{at} is a place before what comes");
        let kinds: Vec<_> = scene.browser.seen(stream).iter().map(kind).collect();
        assert_eq!(kinds, ["open", "reset", "message"], "{stream}");
    }
    assert_eq!(scene.browser.resets("known"), vec![]);

    // The browser now has an id of the stream: the one in the address is of no account any more.
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    scene.insert(4..6).await;
    let _daemon = scene.daemon("5m").await;
    for stream in ["known", "old", "none"] {
        eventually("what was missed", DEADLINE, || scene.numbers(stream).last() == Some(&5)).await;
        let numbers = scene.numbers(stream);
        assert_eq!(numbers[numbers.len() - 3..], [3, 4, 5], "{stream}");
        assert_eq!(scene.browser.resets(stream).len(), usize::from(stream != "known"), "{stream}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_history_a_restart_is_a_reset() {
    let scene = Scene::start().await;
    let daemon = scene.daemon("0s").await;
    scene.open("page", "").await;
    scene.insert(0..3).await;
    eventually("three events", DEADLINE, || scene.numbers("page") == [0, 1, 2]).await;
    let newest = lines::id(&scene.browser.events("page")[2]);
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    scene.insert(3..6).await;
    let _daemon = scene.daemon("0s").await;
    eventually("a reset", DEADLINE, || !scene.browser.resets("page").is_empty()).await;
    scene.insert(6..8).await;
    eventually("what comes then", DEADLINE, || scene.numbers("page").last() == Some(&7)).await;
    assert_eq!(scene.numbers("page"), [0, 1, 2, 6, 7]);
    let resets = scene.browser.resets("page");
    assert_eq!(resets.len(), 1);
    assert_eq!(resets[0].1, json!({ "reason": "history", "lastEventId": newest }));
    let kinds: Vec<_> = scene.browser.seen("page").iter().map(kind).filter(|kind| *kind != "error").collect();
    assert_eq!(kinds, ["open", "message", "message", "message", "open", "reset", "message", "message"]);
}

/// A database, a page and what the daemon is told.
struct Scene {
    mongod: Mongod,
    browser: Browser,
    folder: TempDir,
    port: u16,
    orders: Collection<Document>,
}

impl Scene {
    async fn start() -> Scene {
        let (mongod, browser) = tokio::join!(Mongod::start(), Browser::start());
        let folder = tempfile::tempdir().expect("temporary folder");
        let orders = mongod.client().database("shop").collection("orders");
        Scene { mongod, browser, folder, port: fixed_port(), orders }
    }

    /// Starts the daemon with a history this long.
    async fn daemon(&self, max_age: &str) -> Daemon {
        let (port, origin) = (self.port, self.browser.origin());
        let tables = format!(
            "[outputs.page]\nplugin = \"sse\"\n[outputs.page.options]\nlisten = \"127.0.0.1:{port}\"\n\
             cors_origins = [\"{origin}\"]\nretry = \"200ms\"\nhistory = {{ max_age = \"{max_age}\" }}\n"
        );
        Daemon::start(self.folder.path(), &config(&self.mongod, &tables)).await
    }

    async fn open(&self, stream: &str, query: &str) {
        self.browser.open(stream, &format!("http://127.0.0.1:{}/events{query}", self.port));
        eventually("the stream is open", DEADLINE, || self.browser.times_opened(stream) == 1).await;
    }

    async fn insert(&self, numbers: std::ops::Range<i32>) {
        self.orders.insert_many(numbers.map(|number| doc! { "_id": number })).await.expect("insert");
    }

    /// The documents of a stream's events.
    fn numbers(&self, stream: &str) -> Vec<i64> {
        let number = |event: &Value| event["documentKey"]["_id"].as_i64().expect("a number");
        self.browser.events(stream).iter().map(number).collect()
    }
}

fn kind(seen: &Seen) -> &'static str {
    match seen {
        Seen::Open { .. } => "open",
        Seen::Message { .. } => "message",
        Seen::Reset { .. } => "reset",
        Seen::Error { .. } => "error",
        Seen::Text { .. } | Seen::Refused { .. } => "fetch",
    }
}

/// Each byte as the address has it.
fn in_address(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
