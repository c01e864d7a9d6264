//! An output whose plugin can never start as it is configured stops; the others deliver, and the daemon is ready. Where no
//! plugin can start, the daemon says why and ends.

use std::time::Duration;

use bson::{Document, doc};

use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_cannot_start_hurts_no_other_output() {
    let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
    let broken = "[outputs.broken]\nplugin = \"stdout\"\noptions = { path = \"no/such/folder/all.jsonl\" }\n";
    let good = "[outputs.good]\nplugin = \"stdout\"\noptions = { path = \"good.jsonl\" }\n";
    let mut daemon = Daemon::start(folder.path(), &config(&mongod, &format!("{broken}{good}"))).await;
    assert!(daemon.is_in_state("broken", "stopped"));
    assert!(daemon.has_logged(&["ERROR", "output stopped", "broken", "no/such/folder"]), "{:?}", daemon.log());

    let orders = mongod.client().database("shop").collection::<Document>("orders");
    orders.insert_one(doc! { "_id": 1 }).await.expect("insert");
    let lines = Lines::new(folder.path().join("good.jsonl"));
    eventually("the good output has the event", DEADLINE, || lines.events().len() == 1).await;
    assert_eq!(daemon.get("/readyz").map(|answer| answer.status), Some(200));
    assert!(daemon.is_running());
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());

    let mut daemon = Daemon::spawn(folder.path(), &config(&mongod, broken));
    assert_eq!(daemon.wait_until_ended(DEADLINE).await.code(), Some(1));
    assert!(daemon.has_logged(&["ERROR", "start output broken", "no/such/folder"]), "{:?}", daemon.log());
}
