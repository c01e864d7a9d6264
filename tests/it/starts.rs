//! An output without a checkpoint begins where `source.start` says: now, at a time (inclusive), behind an event; a start in the
//! future is refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bson::{Document, doc};
use mongodb::Collection;

use crate::harness::lines::id;
use crate::harness::{Daemon, Lines, Mongod, config_of, eventually};

const DEADLINE: Duration = Duration::from_secs(30);

fn text(mongod: &Mongod, start: &str) -> String {
    let output = "[outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";
    let store = "[checkpoint]\nstore = \"file\"\npath = \"state\"\n";
    config_of(&mongod.uri(), &format!("watch = [\"shop.*\"]\nstart = {start}"), &format!("{store}{output}"))
}

fn orders(mongod: &Mongod) -> Collection<Document> {
    mongod.client().database("shop").collection("orders")
}

async fn insert(mongod: &Mongod, id: i64) {
    orders(mongod).insert_one(doc! { "_id": id }).await.expect("insert");
}

/// What a new deployment with this start delivers: the keys, until the one with `last` has come.
async fn keys_from(mongod: &Mongod, start: &str, last: i64) -> (Vec<i64>, Vec<String>) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let lines = Lines::new(folder.path().join("all.jsonl"));
    let daemon = Daemon::start(folder.path(), &text(mongod, start)).await;
    insert(mongod, last).await;
    let key = |event: &serde_json::Value| event["documentKey"]["_id"].as_i64().expect("a number");
    eventually(&format!("event {last} with start = {start}"), DEADLINE, || {
        lines.events().last().is_some_and(|event| key(event) == last)
    })
    .await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    let events = lines.events();
    (events.iter().map(key).collect(), events.iter().map(id).collect())
}

/// Seconds of the newest operation; the server's clock.
async fn server_seconds(mongod: &Mongod) -> u32 {
    let reply = mongod.client().database("admin").run_command(doc! { "hello": 1 }).await.expect("hello");
    let now = reply.get_datetime("localTime").expect("localTime");
    u32::try_from(now.timestamp_millis() / 1000).expect("a time of this century")
}

fn rfc3339(seconds: u32) -> String {
    bson::DateTime::from_millis(i64::from(seconds) * 1000).try_to_rfc3339_string().expect("a time")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_begins_where_start_says() {
    let mongod = Mongod::start().await;
    for id in 0..3 {
        insert(&mongod, id).await;
    }
    // Times are whole seconds: what comes next must lie in a later one.
    let before = server_seconds(&mongod).await;
    while server_seconds(&mongod).await <= before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let second = server_seconds(&mongod).await;
    for id in 3..6 {
        insert(&mongod, id).await;
    }

    let (keys, _) = keys_from(&mongod, "\"now\"", 100).await;
    assert_eq!(keys, [100], "now: nothing from before");
    let (keys, _) = keys_from(&mongod, &format!("\"{}\"", rfc3339(second)), 101).await;
    assert_eq!(keys, [3, 4, 5, 100, 101], "a time: from that second on");
    // The same written as a TOML date.
    let (keys, ids) = keys_from(&mongod, &rfc3339(second), 102).await;
    assert_eq!(keys, [3, 4, 5, 100, 101, 102]);
    let (keys, _) = keys_from(&mongod, &format!("\"{}\"", ids[1]), 103).await;
    assert_eq!(keys, [5, 100, 101, 102, 103], "an event id: from the next event on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_in_the_future_is_refused() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let start = rfc3339(u32::try_from(now).expect("a time of this century") + 3_600);
    let mut daemon = Daemon::spawn(folder.path(), &text(&mongod, &format!("\"{start}\"")));
    let status = daemon.wait_until_ended(DEADLINE).await;
    assert_eq!(status.code(), Some(64));
    let wanted = ["source.start", &start, "is in the future, write a time that has passed, or \"now\""];
    eventually("it says so", DEADLINE, || daemon.has_logged(&wanted)).await;
}
