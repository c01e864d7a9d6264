//! An output that was away until the oplog rolled over says so, names how far, and stops; with `history_lost = "resume"` it goes on at
//! the oldest place there is, delivers a `gap` event with the two times, and the gap is among the dead letters. The others do not
//! notice.

use std::path::Path;
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::Collection;
use serde_json::Value;

use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(120);

fn orders(mongod: &Mongod) -> Collection<Document> {
    mongod.client().database("shop").collection("orders")
}

fn output(name: &str, more: &str) -> String {
    format!("[outputs.{name}]\nplugin = \"stdout\"\n{more}options = {{ path = \"{name}.jsonl\" }}\n")
}

fn events(folder: &Path, output: &str) -> Vec<Value> {
    Lines::new(folder.join(format!("{output}.jsonl"))).events()
}

/// Seconds since 1970 of the oldest entry.
async fn oldest(mongod: &Mongod) -> u32 {
    let oplog = mongod.client().database("local").collection::<Document>("oplog.rs");
    let first = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).await.expect("find").expect("an entry");
    first.get_timestamp("ts").expect("ts").time
}

/// Writes outside of what is watched until the oplog no longer has what happened up to `seconds`.
async fn roll_over(mongod: &Mongod, seconds: u32) {
    let filler = mongod.client().database("filler").collection::<Document>("filler");
    let text = "x".repeat(1 << 20);
    let mut written = 0u32;
    while oldest(mongod).await <= seconds {
        let documents = (0..16).map(|at| doc! { "at": at, "text": &text });
        filler.insert_many(documents).await.expect("insert");
        filler.delete_many(doc! {}).await.expect("delete");
        written += 16;
        assert!(written < 8_000, "8 GB did not roll the oplog over");
    }
}

async fn now(mongod: &Mongod) -> u32 {
    let hello = mongod.client().database("admin").run_command(doc! { "hello": 1 }).await.expect("hello");
    hello.get_timestamp("operationTime").expect("operationTime").time
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_history_is_told_and_either_stops_the_output_or_becomes_a_gap() {
    // The smallest oplog there is; it is cut with the checkpoints of the server, once a second here.
    let mongod = Mongod::start_with(&["--oplogSize", "1", "--syncdelay", "1"]).await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path();
    let resume = "history_lost = \"resume\"\nmatch = { operationType = \"insert\" }\n";
    let text = config(&mongod, &format!("{}{}{}", output("stops", ""), output("resumes", resume), output("live", "")));
    let daemon = Daemon::start(path, &text).await;
    orders(&mongod).insert_one(doc! { "_id": 1 }).await.expect("insert");
    for name in ["stops", "resumes", "live"] {
        eventually(name, DEADLINE, || events(path, name).len() == 1).await;
    }
    for name in ["stops", "resumes"] {
        daemon.told(&["output", "pause", name]);
    }
    let away_since = now(&mongod).await;
    orders(&mongod).insert_one(doc! { "_id": 2 }).await.expect("insert");
    roll_over(&mongod, away_since + 1).await;
    orders(&mongod).insert_one(doc! { "_id": 3 }).await.expect("insert");
    eventually("live has all", DEADLINE, || events(path, "live").len() == 3).await;

    // Before it is resumed there is a warning, and the gauge is below zero.
    eventually("the warning", DEADLINE, || daemon.has_logged(&["gone from the oplog", "stops"])).await;
    let headroom = daemon.metric("tailwater_output_oplog_headroom_seconds", &[("output", "stops")]);
    assert!(headroom.is_some_and(|seconds| seconds <= 0.0), "{headroom:?}");
    assert!(daemon.metric("tailwater_oplog_window_seconds", &[]).is_some_and(|seconds| seconds > 0.0));

    // The window of a daemon that runs still has it: only a new one has lost it.
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    let daemon = Daemon::start(path, &text).await;
    daemon.told(&["output", "resume", "stops"]);
    eventually("it stops", DEADLINE, || daemon.is_in_state("stops", "stopped")).await;
    let words =
        ["output stopped", "stops", "no longer reaches back", "its oldest entry is", "it holds", "history_lost"];
    assert!(daemon.has_logged(&words), "the reason names the oplog's window and how far behind it is");
    assert_eq!(events(path, "stops").len(), 1);

    daemon.told(&["output", "resume", "resumes"]);
    eventually("it goes on", DEADLINE, || events(path, "resumes").len() >= 3).await;
    let got = events(path, "resumes");
    let gap = &got[1];
    assert_eq!(gap["operationType"], "gap", "{got:?}");
    let time =
        |field: &str| gap[field]["$timestamp"]["t"].as_u64().unwrap_or_else(|| panic!("{field} in {gap}")) as u32;
    assert!(time("from") <= away_since && time("to") > away_since + 1, "{gap}");
    assert_eq!(got[2]["documentKey"]["_id"], 3, "{got:?}");
    assert_eq!(daemon.metric("tailwater_output_gaps_total", &[("output", "resumes")]), Some(1.0));
    let letters = mongod.client().database("tailwater").collection::<Document>("dead_letters");
    let letter = letters.find_one(doc! { "kind": "gap" }).await.expect("find").expect("the gap is a dead letter");
    let key = letter.get_document("_id").expect("_id");
    assert_eq!(key.get("output").and_then(Bson::as_str), Some("resumes"), "{letter}");

    orders(&mongod).insert_one(doc! { "_id": 4 }).await.expect("insert");
    eventually("both others go on", DEADLINE, || events(path, "resumes").len() == 4 && events(path, "live").len() == 4)
        .await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());

    // A restart finds the same: the daemon runs, the stopped output says why.
    let daemon = Daemon::start(path, &text).await;
    eventually("stopped again", DEADLINE, || daemon.is_in_state("stops", "stopped")).await;
    orders(&mongod).insert_one(doc! { "_id": 5 }).await.expect("insert");
    eventually("the others deliver", DEADLINE, || {
        events(path, "resumes").len() == 5 && events(path, "live").len() == 5
    })
    .await;
}
