//! Large and many at once: documents of 15 MB, transactions with thousands of operations, and deletes without an image arrive
//! whole and in order.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use serde_json::Value;

use crate::harness::{Daemon, Lines, Mongod, config_of, eventually};

const DEADLINE: Duration = Duration::from_secs(120);
const OUTPUT: &str = "[checkpoint]\ninterval = \"50ms\"\n\
    [outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";

/// A daemon with one output and the lines that it writes.
async fn start(mongod: &Mongod, folder: &std::path::Path, source: &str) -> (Daemon, Lines, Collection<Document>) {
    let source = format!("watch = [\"shop.*\"]\n{source}");
    let daemon = Daemon::start(folder, &config_of(&mongod.uri(), &source, OUTPUT)).await;
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    (daemon, Lines::new(folder.join("all.jsonl")), orders)
}

fn words(event: &Value) -> String {
    format!("{} {}", event["operationType"].as_str().unwrap_or_default(), event["documentKey"]["_id"])
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_15_mb_arrive_whole() {
    let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
    let (daemon, lines, orders) = start(&mongod, folder.path(), "full_document = \"update_lookup\"").await;
    let mut expected = Vec::new();
    for id in 0..3 {
        orders.insert_one(doc! { "_id": id, "pad": "x".repeat(15_000_000) }).await.expect("insert");
        orders.update_one(doc! { "_id": id }, doc! { "$set": { "state": "paid" } }).await.expect("update");
        orders.insert_one(doc! { "_id": id + 100 }).await.expect("insert");
        expected.extend([format!("insert {id}"), format!("update {id}"), format!("insert {}", id + 100)]);
    }
    // Parsed only once: it is 100 MB of text.
    eventually("all events", DEADLINE, || lines.bytes() > 90_000_000).await;
    eventually("the last event", DEADLINE, || lines.first_occurrences().len() == expected.len()).await;
    let events = lines.first_occurrences();
    assert_eq!(events.iter().map(words).collect::<Vec<_>>(), expected);
    for event in events.iter().filter(|event| event["documentKey"]["_id"].as_i64() < Some(100)) {
        let pad = event["fullDocument"]["pad"].as_str().unwrap_or_default();
        assert_eq!(pad.len(), 15_000_000, "{}", words(event));
    }
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_with_5000_operations_arrives_in_order() {
    let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
    let (daemon, lines, orders) = start(&mongod, folder.path(), "").await;
    orders.insert_one(doc! { "_id": -1 }).await.expect("insert");
    let mut session = mongod.client().start_session().await.expect("session");
    session.start_transaction().await.expect("begin");
    for thousand in 0..5 {
        let some = (thousand * 1000..(thousand + 1) * 1000).map(|id| doc! { "_id": id, "pad": "x".repeat(500) });
        orders.insert_many(some).session(&mut session).await.expect("insert");
    }
    session.commit_transaction().await.expect("commit");
    orders.insert_one(doc! { "_id": 5000 }).await.expect("insert");
    eventually("all events", DEADLINE, || lines.first_occurrences().len() >= 5002).await;
    let keys: Vec<i64> =
        lines.events().iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect();
    assert_eq!(keys, (-1..=5000).collect::<Vec<_>>());
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_without_an_image_has_the_key_and_nothing_of_the_document() {
    let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
    let images = "full_document = \"when_available\"\nfull_document_before_change = \"when_available\"";
    let (daemon, lines, orders) = start(&mongod, folder.path(), images).await;
    orders.insert_one(doc! { "_id": 1, "a": 1 }).await.expect("insert");
    orders.delete_one(doc! { "_id": 1 }).await.expect("delete");
    orders.insert_one(doc! { "_id": 2 }).await.expect("insert");
    eventually("all events", DEADLINE, || lines.first_occurrences().len() >= 3).await;
    let events = lines.first_occurrences();
    assert_eq!(events.iter().map(words).collect::<Vec<_>>(), ["insert 1", "delete 1", "insert 2"]);
    assert!(events[1]["fullDocument"].is_null() && events[1]["fullDocumentBeforeChange"].is_null(), "{}", events[1]);
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}
