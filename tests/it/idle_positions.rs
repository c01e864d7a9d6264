//! Positions move on quiet streams, in both stores; a folder of checkpoints that is in use is refused; a drain writes the
//! checkpoint, so that the next start repeats nothing.

use std::time::Duration;

use bson::{Document, doc};

use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(30);
const OUTPUT: &str = "[outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";
const IN_MONGODB: &str = "store = \"mongodb\"\n";
const IN_FILES: &str = "store = \"file\"\npath = \"state\"\n";

/// The time of a stored token, as the hexadecimal digits in front of its `_data`.
fn token_time(data: &str) -> String {
    data[2..18].to_owned()
}

/// Writes only to a database nobody watches, and gives the time of the write in the token's digits.
async fn write_elsewhere(mongod: &Mongod) -> String {
    let command = doc! { "insert": "x", "documents": [{}] };
    let reply = mongod.client().database("elsewhere").run_command(command).await.expect("insert");
    let time = reply.get_timestamp("operationTime").expect("operationTime");
    format!("{:08X}{:08X}", time.time, time.increment)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_moves_the_checkpoint_in_mongodb() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let checkpoint = format!("[checkpoint]\n{IN_MONGODB}interval = \"100ms\"\nidle_interval = \"1s\"\n{OUTPUT}");
    let daemon = Daemon::start(folder.path(), &config(&mongod, &checkpoint)).await;
    let checkpoints = mongod.client().database("tailwater").collection::<Document>("checkpoints");
    // Twice: the first move could be that of the start.
    for _ in 0..2 {
        let written = write_elsewhere(&mongod).await;
        let started = std::time::Instant::now();
        loop {
            let found = checkpoints.find_one(doc! { "_id": { "name": "default", "output": "all" } }).await;
            let found = found.expect("read the checkpoint").expect("a checkpoint");
            let place = found.get_document("place").expect("place");
            let after = place.get_document("after").ok().and_then(|token| token.get_str("_data").ok());
            if after.is_some_and(|data| token_time(data) >= written) {
                break;
            }
            assert!(started.elapsed() < DEADLINE, "the checkpoint does not reach {written}: {found}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(Lines::new(folder.path().join("all.jsonl")).events().len(), 0, "nothing was for this output");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_moves_the_checkpoint_in_a_file() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let checkpoint = format!("[checkpoint]\n{IN_FILES}interval = \"100ms\"\nidle_interval = \"1s\"\n{OUTPUT}");
    let daemon = Daemon::start(folder.path(), &config(&mongod, &checkpoint)).await;
    let file = folder.path().join("state/default.all.json");
    for _ in 0..2 {
        let written = write_elsewhere(&mongod).await;
        eventually("the checkpoint reaches the write", DEADLINE, || {
            let text = std::fs::read(&file).expect("a checkpoint");
            let place: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            place["after"]["_data"].as_str().is_some_and(|data| token_time(data) >= written)
        })
        .await;
    }
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

/// Only the drain can write here: the intervals are longer than the test.
async fn drain(store: &str) {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let checkpoint = format!("[checkpoint]\n{store}interval = \"10m\"\nidle_interval = \"10m\"\n{OUTPUT}");
    let text = config(&mongod, &checkpoint);
    let lines = Lines::new(folder.path().join("all.jsonl"));
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    for start in [0, 1_000] {
        let daemon = Daemon::start(folder.path(), &text).await;
        orders.insert_many((start..start + 1_000).map(|id: i64| doc! { "_id": id })).await.expect("insert");
        eventually("a thousand more", DEADLINE, || lines.events().len() as i64 >= start + 1_000).await;
        let written = daemon.metric("tailwater_output_checkpoints_total", &[("output", "all")]);
        assert_eq!(written, Some(0.0), "no checkpoint before the drain");
        assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    }
    let daemon = Daemon::start(folder.path(), &text).await;
    orders.insert_one(doc! { "_id": 2_000 }).await.expect("insert");
    eventually("the last one", DEADLINE, || {
        lines.events().last().is_some_and(|event| event["documentKey"]["_id"] == 2_000)
    })
    .await;
    assert_eq!(lines.events().len(), 2_001, "no repeats");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_writes_the_checkpoint_in_mongodb() {
    drain(IN_MONGODB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_writes_the_checkpoint_in_a_file() {
    drain(IN_FILES).await;
}
