//! A stepdown and a killed primary on a set of three: nothing is lost, the order is kept, and the daemon goes on by itself.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::error::ErrorKind;

use crate::harness::{Daemon, Lines, ReplicaSet, config_of, eventually};

const DEADLINE: Duration = Duration::from_secs(90);
const OUTPUT: &str = "[checkpoint]\ninterval = \"50ms\"\n\
    [outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";

/// Inserts these ids one after the other, each until the majority has it: also while there is no primary.
async fn insert(set: &ReplicaSet, ids: std::ops::Range<i64>) {
    let orders = set.client().database("shop").collection::<Document>("orders");
    for id in ids {
        let inserting = async {
            loop {
                match orders.insert_one(doc! { "_id": id }).await {
                    Ok(_) => return,
                    // The attempt before was taken after all.
                    Err(error) if error.to_string().contains("E11000") => return,
                    Err(error) => assert!(!matches!(*error.kind, ErrorKind::InvalidArgument { .. }), "insert: {error}"),
                }
            }
        };
        tokio::time::timeout(DEADLINE, inserting).await.expect("a primary takes the insert in time");
    }
}

async fn has_in_order(lines: &Lines, events: i64) {
    eventually(&format!("{events} events"), DEADLINE, || lines.first_occurrences().len() as i64 >= events).await;
    let keys: Vec<i64> =
        lines.first_occurrences().iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect();
    assert_eq!(keys, (0..events).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn stepdowns_and_killed_primaries_cost_nothing() {
    let mut set = ReplicaSet::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let lines = Lines::new(folder.path().join("all.jsonl"));
    let config = config_of(&set.uri(), "watch = [\"shop.*\"]", OUTPUT);
    let mut daemon = Daemon::start(folder.path(), &config).await;
    insert(&set, 0..50).await;
    has_in_order(&lines, 50).await;

    // Writes go on while the primary changes.
    let old = set.primary().await;
    let (new, ()) = tokio::join!(set.step_down(), insert(&set, 50..100));
    assert_ne!(old, new);
    has_in_order(&lines, 100).await;

    // First the member that has the cursor: it came through the stepdown on the old primary.
    for round in 2..4 {
        let killed = if round == 2 { old } else { set.primary().await };
        set.kill9(killed);
        insert(&set, round * 50..(round + 1) * 50).await;
        has_in_order(&lines, (round + 1) * 50).await;
        set.start_again(killed).await;
    }
    assert!(daemon.is_running());
    assert!(daemon.metric("tailwater_source_reopened_total", &[]) >= Some(1.0), "it was opened elsewhere");
    assert_eq!(lines.events().len(), 200, "opening again in the same process repeats nothing");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

/// A primary that stops without ending: the others elect a new one, and its connections stay open.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_hangs_is_left() {
    let set = ReplicaSet::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let lines = Lines::new(folder.path().join("all.jsonl"));
    let config = config_of(&set.uri(), "watch = [\"shop.*\"]", OUTPUT);
    let daemon = Daemon::start(folder.path(), &config).await;
    insert(&set, 0..50).await;
    has_in_order(&lines, 50).await;

    let hanging = set.primary().await;
    set.pause(hanging);
    eventually("the daemon has noticed", DEADLINE, || daemon.has_logged(&["WARN", "opening it again"])).await;
    // The client of the test finds the new primary only where the old one does not hold it up.
    let other = (hanging + 1) % 3;
    let uri = format!("{}&connectTimeoutMS=2000&heartbeatFrequencyMS=1000", set.uri());
    let client = mongodb::Client::with_uri_str(uri).await.expect("client");
    let orders = client.database("shop").collection::<Document>("orders");
    for id in 50..100 {
        let inserting = async {
            while let Err(error) = orders.insert_one(doc! { "_id": id }).await {
                assert!(!matches!(*error.kind, ErrorKind::InvalidArgument { .. }), "insert: {error}");
            }
        };
        tokio::time::timeout(DEADLINE, inserting).await.expect("a primary takes the insert in time");
    }
    has_in_order(&lines, 100).await;
    set.resume(hanging);
    assert_ne!(set.member(other).port(), set.member(hanging).port());
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}
