//! A first run that fails pins nothing: what is mended afterwards in `[source]` counts. And an output whose checkpoint is ahead
//! of another's gets nothing twice because of it.

use std::time::Duration;

use bson::{Document, doc};

use crate::harness::{Daemon, Lines, Mongod, config_of, eventually};

const DEADLINE: Duration = Duration::from_secs(30);

async fn insert(mongod: &Mongod, id: i64) {
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    orders.insert_one(doc! { "_id": id }).await.expect("insert");
}

fn keys(lines: &Lines) -> Vec<i64> {
    lines.events().iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_open_leaves_no_checkpoint() {
    let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
    let output = "[outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";
    let broken = "watch = [\"shop.*\"]\npipeline = [{ \"$match\" = { \"$nonsense\" = 1 } }]";
    let mut daemon = Daemon::spawn(folder.path(), &config_of(&mongod.uri(), broken, output));
    assert_eq!(daemon.wait_until_ended(DEADLINE).await.code(), Some(1));
    insert(&mongod, 1).await;

    let daemon = Daemon::start(folder.path(), &config_of(&mongod.uri(), "watch = [\"shop.*\"]", output)).await;
    insert(&mongod, 2).await;
    let lines = Lines::new(folder.path().join("all.jsonl"));
    eventually("the second event", DEADLINE, || keys(&lines).contains(&2)).await;
    assert_eq!(keys(&lines), [2], "\"now\" is the start that succeeded, not the one that failed");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_ahead_of_another_gets_nothing_twice() {
    let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
    let (ahead, behind) =
        (Lines::new(folder.path().join("ahead.jsonl")), Lines::new(folder.path().join("behind.jsonl")));
    let outputs = |behind: bool| {
        let text = "[checkpoint]\ninterval = \"20ms\"\nidle_interval = \"50ms\"\n\
            [outputs.ahead]\nplugin = \"stdout\"\noptions = { path = \"ahead.jsonl\" }\n\
            [outputs.behind]\nplugin = \"stdout\"\noptions = { path = \"behind.jsonl\" }\n";
        let text = format!("{text}enabled = {behind}\n");
        config_of(&mongod.uri(), "watch = [\"shop.*\"]", &text)
    };
    // Both begin here; then one is left behind.
    let daemon = Daemon::start(folder.path(), &outputs(true)).await;
    insert(&mongod, 0).await;
    eventually("both have it", DEADLINE, || keys(&ahead) == [0] && keys(&behind) == [0]).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    let daemon = Daemon::start(folder.path(), &outputs(false)).await;
    for id in 1..200 {
        insert(&mongod, id).await;
    }
    eventually("the one ahead has all", DEADLINE, || keys(&ahead).len() == 200).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());

    let daemon = Daemon::start(folder.path(), &outputs(true)).await;
    eventually("the one behind has all", DEADLINE, || keys(&behind).len() == 200).await;
    insert(&mongod, 200).await;
    eventually("both have the last", DEADLINE, || keys(&ahead).contains(&200) && keys(&behind).contains(&200)).await;
    assert_eq!(keys(&ahead), (0..=200).collect::<Vec<_>>(), "nothing twice");
    assert_eq!(keys(&behind), (0..=200).collect::<Vec<_>>(), "nothing missing");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}
