//! What a browser gets when it comes to a daemon that was started again: exactly what it missed where the history reaches back to
//! its id, a `reset` where it does not, and nothing of the history where it names no id.

use std::collections::BTreeSet;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use tempfile::TempDir;

use crate::harness::event_source::{Message, Record};
use crate::harness::{Daemon, EventSource, Mongod, config, eventually, fixed_port};

const DEADLINE: Duration = Duration::from_secs(30);

/// A mongod, and a daemon with the output `browsers`.
struct Scene {
    mongod: Mongod,
    folder: TempDir,
    port: u16,
    text: String,
}

impl Scene {
    async fn new(options: &str) -> (Scene, Daemon) {
        let (mongod, folder, port) =
            (Mongod::start().await, tempfile::tempdir().expect("temporary folder"), fixed_port());
        let options = format!("listen = \"127.0.0.1:{port}\"\nretry = \"100ms\"\n{options}");
        let output = format!("[outputs.browsers]\nplugin = \"sse\"\n[outputs.browsers.options]\n{options}\n");
        let text = config(&mongod, &output);
        let scene = Scene { mongod, folder, port, text };
        let daemon = scene.start().await;
        (scene, daemon)
    }

    async fn start(&self) -> Daemon {
        Daemon::start(self.folder.path(), &self.text).await
    }

    fn browser(&self, last_event_id: Option<&str>) -> EventSource {
        EventSource::open(self.port, "/events", last_event_id)
    }

    fn orders(&self) -> Collection<Document> {
        self.mongod.client().database("shop").collection("orders")
    }

    async fn insert(&self, numbers: std::ops::Range<i64>) {
        self.orders().insert_many(numbers.map(|n| doc! { "_id": n })).await.expect("insert");
    }
}

async fn has_numbers(browser: &EventSource, last: i64) {
    let has = || browser.look(|record| record.messages.last().is_some_and(|message| number(message) == Some(last)));
    eventually(&format!("number {last} at the browser"), DEADLINE, has).await;
}

/// Waits until all browsers there are have been given a place in the stream.
async fn are_clients(daemon: &Daemon, count: usize) {
    let clients = || daemon.metric("tailwater_plugin_sse_clients", &[("output", "browsers")]);
    eventually(&format!("{count} clients"), DEADLINE, || clients() == Some(count as f64)).await;
}

/// `None` for a reset.
fn number(message: &Message) -> Option<i64> {
    (message.event == "message").then(|| message.json()["documentKey"]["_id"].as_i64().expect("a number"))
}

fn numbers(record: &Record) -> Vec<i64> {
    assert_eq!(record.failure, None);
    record.messages.iter().map(|message| number(message).unwrap_or_else(|| panic!("a reset: {message:?}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_browser_gets_exactly_what_it_missed() {
    let (scene, mut daemon) = Scene::new("").await;
    let browser = scene.browser(None);
    are_clients(&daemon, 1).await;
    scene.insert(0..10).await;
    has_numbers(&browser, 9).await;
    for (from, to) in [(10, 500), (500, 600)] {
        // First an orderly end, then a kill.
        if from == 10 {
            assert!(daemon.terminate_and_wait(DEADLINE).await.success());
        } else {
            daemon.kill9();
        }
        scene.insert(from..to).await;
        daemon = scene.start().await;
        has_numbers(&browser, to - 1).await;
    }
    let fresh = scene.browser(None);
    let whole = browser.record();
    let middle = scene.browser(Some(&whole.messages[99].id));
    are_clients(&daemon, 3).await;
    scene.insert(600..610).await;
    for browser in [&browser, &fresh, &middle] {
        has_numbers(browser, 609).await;
    }
    let record = browser.close();
    assert_eq!(numbers(&record), Vec::from_iter(0..610), "all of them once, in the order of the stream");
    assert_eq!(record.streams[1..].len(), 2, "it came back twice");
    assert_eq!(record.streams[1].as_deref(), Some(&record.messages[9].id[..]));
    assert_eq!(record.streams[2].as_deref(), Some(&record.messages[499].id[..]));
    assert_eq!(
        numbers(&fresh.close()),
        Vec::from_iter(600..610),
        "without an id it gets what happens, not the history"
    );
    assert_eq!(numbers(&middle.close()), Vec::from_iter(100..610), "another client's id is as good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_comes_first_gets_no_history_without_an_id() {
    let (scene, daemon) = Scene::new("").await;
    scene.insert(0..2_000).await;
    daemon.kill9();
    // It connects while the daemon still reads its history.
    let browser = scene.browser(None);
    let daemon = scene.start().await;
    are_clients(&daemon, 1).await;
    scene.insert(2_000..2_010).await;
    has_numbers(&browser, 2_009).await;
    assert_eq!(numbers(&browser.close()), Vec::from_iter(2_000..2_010));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_the_history_does_not_reach_is_reset_once_and_goes_on_live() {
    const FAR: &str = "ffffffff00000001-0000000000000000";
    let (scene, daemon) = Scene::new("history = { max_age = \"1m\" }").await;
    scene.insert(0..1).await;
    drop(daemon);
    let daemon = scene.start().await;
    let forged = ["0000000000000001-0000000000000000", "0000000000000001-00000000deadbeef", FAR, "no id at all", "7"];
    let browsers = forged.map(|id| (id, scene.browser(Some(id))));
    for (id, browser) in &browsers {
        eventually(&format!("a reset for {id:?}"), DEADLINE, || browser.count() > 0).await;
    }
    scene.insert(1..3).await;
    for (id, browser) in browsers {
        has_numbers(&browser, 2).await;
        check_reset(id, &browser.close(), &[1, 2]);
    }
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_history_what_was_missed_is_a_reset() {
    let (scene, daemon) = Scene::new("history = { max_age = \"0s\" }").await;
    let browser = scene.browser(None);
    are_clients(&daemon, 1).await;
    scene.insert(0..5).await;
    has_numbers(&browser, 4).await;
    let first = browser.record();
    drop(daemon);
    scene.insert(5..10).await;
    let daemon = scene.start().await;
    eventually("the reset", DEADLINE, || browser.count() > 5).await;
    // At once: the next event may have the very first time of which the daemon was to know.
    scene.insert(10..12).await;
    has_numbers(&browser, 11).await;
    let mut record = browser.close();
    assert_eq!(
        record.messages.drain(..5).map(|message| message.id).collect::<Vec<_>>(),
        first.messages.iter().map(|message| message.id.clone()).collect::<Vec<_>>()
    );
    check_reset(&first.messages[4].id, &record, &[10, 11]);
    drop(daemon);
}

/// One reset that says which id it is about, with an id to go on at, then these numbers.
fn check_reset(asked: &str, record: &Record, live: &[i64]) {
    assert_eq!(record.failure, None, "{asked}");
    let reset = &record.messages[0];
    assert_eq!(reset.event, "reset", "{asked}");
    assert_eq!(reset.json()["lastEventId"], asked);
    assert_eq!((reset.id.len(), reset.id.as_bytes()[16]), (33, b'-'), "{asked}: {}", reset.id);
    assert!(reset.id < record.messages[1].id, "{asked}: it goes on at {}", reset.id);
    let rest: Vec<Option<i64>> = record.messages[1..].iter().map(number).collect();
    assert_eq!(rest, live.iter().copied().map(Some).collect::<Vec<_>>(), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_inclusive_and_ids_resume_inside_a_transaction() {
    let (scene, daemon) = Scene::new("").await;
    scene.insert(0..1).await;
    // Two times in one second or not: `insert_many` of the first, then one transaction with operations of one time.
    let client = scene.mongod.client();
    let mut session = client.start_session().await.expect("session");
    session.start_transaction().await.expect("transaction");
    for n in 1..6 {
        scene.orders().insert_one(doc! { "_id": n }).session(&mut session).await.expect("insert");
    }
    session.commit_transaction().await.expect("commit");
    scene.insert(6..8).await;
    daemon.kill9();
    let daemon = scene.start().await;
    // A place before everything in the minute that is history.
    let whole = scene.browser(Some(&from_now_minus_a_minute()));
    has_numbers(&whole, 7).await;
    let messages = whole.close().messages;
    let found: Vec<_> = messages.iter().map(number).collect();
    assert_eq!(found, (0..8).map(Some).collect::<Vec<_>>());
    let times: BTreeSet<&str> = messages[1..6].iter().map(|message| &message.id[..16]).collect();
    assert_eq!(times.len(), 1, "the transaction's operations have one time");
    for (index, message) in messages.iter().enumerate() {
        // Behind the id itself; inclusive from a time on, which for a transaction is its first operation.
        let from_time = if (1..6).contains(&index) { 1 } else { index };
        let time = format!("{}-0000000000000000", &message.id[..16]);
        for (asked, first) in [(message.id.as_str(), index + 1), (time.as_str(), from_time)] {
            if first == messages.len() {
                continue;
            }
            let browser = scene.browser(Some(asked));
            has_numbers(&browser, 7).await;
            assert_eq!(numbers(&browser.close()), Vec::from_iter(first as i64..8), "{asked}");
        }
    }
    drop(daemon);
}

fn from_now_minus_a_minute() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    format!("{:08x}00000000-0000000000000000", now - 60)
}
