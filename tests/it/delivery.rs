//! Every change reaches each output whose `match` it meets, `/metrics` counts it, an output that has everything has no
//! lag, and SIGTERM ends the daemon with nothing left to repeat.

use std::time::Duration;

use bson::{Document, doc};

use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn each_output_gets_what_it_asked_for_and_a_restart_repeats_nothing() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let text = config(
        &mongod,
        "[checkpoint]\ninterval = \"100ms\"\n\
         [outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n\
         [outputs.gone]\nplugin = \"stdout\"\nmatch = { operationType = \"delete\" }\noptions = { path = \"gone.jsonl\" }\n",
    );
    let all = Lines::new(folder.path().join("all.jsonl"));
    let gone = Lines::new(folder.path().join("gone.jsonl"));

    let daemon = Daemon::start(folder.path(), &text).await;
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    orders.insert_many((0..100).map(|id| doc! { "_id": id })).await.expect("insert");
    orders.delete_many(doc! { "_id": { "$lt": 10 } }).await.expect("delete");
    mongod.client().database("elsewhere").collection("x").insert_one(doc! { "_id": 1 }).await.expect("insert");
    eventually("110 events in one file and 10 in the other", DEADLINE, || {
        all.events().len() == 110 && gone.events().len() == 10
    })
    .await;
    assert_eq!(gone.events()[0]["operationType"], "delete");
    eventually("metrics that agree", DEADLINE, || {
        daemon.metric("tailwater_output_delivered_total", &[("output", "all")]) == Some(110.0)
            && daemon.metric("tailwater_output_delivered_total", &[("output", "gone")]) == Some(10.0)
            && daemon.metric("tailwater_output_in_flight_events", &[("output", "all")]) == Some(0.0)
            && daemon.metric("tailwater_output_lag_seconds", &[("output", "all")]) == Some(0.0)
    })
    .await;
    assert_eq!(daemon.get("/healthz").map(|answer| answer.status), Some(200));
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());

    let daemon = Daemon::start(folder.path(), &text).await;
    orders.insert_one(doc! { "_id": 1000 }).await.expect("insert");
    eventually("one event more", DEADLINE, || all.events().len() > 110).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    assert_eq!(all.events().len(), 111, "drained before, so nothing repeats");
    assert_eq!(all.events()[110]["documentKey"]["_id"], 1000);
    assert_eq!(gone.events().len(), 10);
}
