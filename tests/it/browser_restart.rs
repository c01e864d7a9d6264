//! When the daemon is restarted, or killed, the browser comes back by itself and gets exactly what it missed: no hole, no
//! repeat, no reset.

use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Document, doc};
use mongodb::Collection;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Browser, Daemon, Lines, Mongod, config, eventually, fixed_port, lines};

const DEADLINE: Duration = Duration::from_secs(30);

/// The `readyState` of a stream that the browser will open again.
const CONNECTING: u16 = 0;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_not_seen_in_the_events() {
    let scene = Scene::start().await;
    scene.follow(|daemon| async move { assert!(daemon.terminate_and_wait(DEADLINE).await.success()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_is_not_seen_in_the_events() {
    let scene = Scene::start().await;
    scene.follow(|daemon| async move { daemon.kill9() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_had_seen_nothing_yet_gets_what_came_meanwhile() {
    let scene = Scene::start().await;
    let daemon = scene.daemon("5m").await;
    scene.open("?topic=orders").await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    scene.orders.insert_one(doc! { "_id": 1 }).await.expect("insert");
    let _daemon = scene.daemon("5m").await;
    scene.browser_has_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_topic_is_quiet_for_longer_than_the_history_keeps_its_place() {
    let scene = Scene::start().await;
    let daemon = scene.daemon("10s").await;
    scene.open("?topic=orders").await;
    let carts = scene.mongod.client().database("shop").collection::<Document>("carts");
    let opened = Instant::now();
    // Other topics are busy meanwhile. Not a wait for something to happen: the history is measured in time.
    while opened.elapsed() < Duration::from_secs(12) {
        carts.insert_one(doc! {}).await.expect("insert");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    scene.orders.insert_one(doc! { "_id": 1 }).await.expect("insert");
    let _daemon = scene.daemon("10s").await;
    scene.browser_has_all().await;
}

/// A database, a page and what the daemon is told.
struct Scene {
    mongod: Mongod,
    browser: Browser,
    folder: TempDir,
    port: u16,
    orders: Collection<Document>,
    file: Lines,
}

impl Scene {
    async fn start() -> Scene {
        let (mongod, browser) = tokio::join!(Mongod::start(), Browser::start());
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = Lines::new(folder.path().join("all.jsonl"));
        let orders = mongod.client().database("shop").collection("orders");
        Scene { mongod, browser, folder, port: fixed_port(), orders, file }
    }

    async fn open(&self, query: &str) {
        self.browser.open("page", &format!("http://127.0.0.1:{}/events{query}", self.port));
        eventually("the stream is open", DEADLINE, || self.browser.times_opened("page") == 1).await;
    }

    /// Starts the daemon with a history this long.
    async fn daemon(&self, max_age: &str) -> Daemon {
        let (port, origin) = (self.port, self.browser.origin());
        let tables = format!(
            "[outputs.page]\nplugin = \"sse\"\n[outputs.page.options]\nlisten = \"127.0.0.1:{port}\"\n\
             cors_origins = [\"{origin}\"]\nretry = \"200ms\"\nkeep_alive = \"1s\"\n\
             topics = [\"{{{{ ns.coll }}}}\"]\nhistory = {{ max_age = \"{max_age}\" }}\n\
             [outputs.file]\nplugin = \"stdout\"\nordering = \"strict\"\n\
             match = {{ \"ns.coll\" = \"orders\" }}\noptions = {{ path = \"all.jsonl\" }}\n"
        );
        Daemon::start(self.folder.path(), &config(&self.mongod, &tables)).await
    }

    /// Changes documents before, between and behind three runs of the daemon, each but the last ended with `end`.
    async fn follow<F: Future<Output = ()>>(&self, end: impl Fn(Daemon) -> F) {
        let mut daemon = self.daemon("5m").await;
        self.open("").await;
        for run in 1..=2 {
            self.change(run * 1000).await;
            self.browser_has_all().await;
            end(daemon).await;
            eventually("the page sees the end", DEADLINE, || self.browser.ends("page").len() >= run as usize).await;
            self.change(run * 1000 + 500).await;
            daemon = self.daemon("5m").await;
            self.browser_has_all().await;
        }
        self.change(9000).await;
        self.browser_has_all().await;
        assert!(self.browser.times_opened("page") >= 3, "once for each run of the daemon");
        drop(daemon);
    }

    /// 31 changes of documents that begin at `first`; 10 of them at one point of time, in a transaction.
    async fn change(&self, first: i32) {
        self.orders.insert_many((first..first + 20).map(|id| doc! { "_id": id })).await.expect("insert");
        let mut session = self.mongod.client().start_session().await.expect("session");
        session.start_transaction().await.expect("begin");
        let some = doc! { "_id": { "$gte": first, "$lt": first + 10 } };
        self.orders.update_many(some, doc! { "$set": { "x": 1 } }).session(&mut session).await.expect("update");
        session.commit_transaction().await.expect("commit");
        self.orders.delete_one(doc! { "_id": first + 15 }).await.expect("delete");
    }

    /// Waits until the page has every event there was, and sees that it has each once, in order, with nothing between.
    async fn browser_has_all(&self) {
        let fence = ObjectId::new().to_hex();
        self.orders.insert_one(doc! { "_id": &fence }).await.expect("insert");
        let is_fence = |event: &Value| event["documentKey"]["_id"] == fence;
        eventually("the newest change in the page and in the file", DEADLINE, || {
            self.browser.events("page").last().is_some_and(is_fence) && self.file.events().last().is_some_and(is_fence)
        })
        .await;
        let mut expected = self.file.first_occurrences();
        expected.sort_by_key(lines::id);
        let events = self.browser.events("page");
        let ids = |events: &[Value]| events.iter().map(lines::id).collect::<Vec<_>>();
        assert_eq!(ids(&events), ids(&expected));
        assert!(events == expected, "and their content");
        assert_eq!(self.browser.resets("page"), vec![]);
        assert!(self.browser.ends("page").iter().all(|state| *state == CONNECTING), "the browser never gives up");
    }
}
