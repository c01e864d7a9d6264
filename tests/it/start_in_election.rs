//! A start that meets passing trouble waits for its end.

use std::time::Duration;

use crate::harness::{Daemon, Mongod, TEST_COMMANDS, config};

#[tokio::test(flavor = "multi_thread")]
async fn a_start_survives_an_election() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mongod = Mongod::start_with(&TEST_COMMANDS).await;
    let text = config(&mongod, "[outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n");
    let daemon = Daemon::start(folder.path(), &text).await;
    assert!(daemon.terminate_and_wait(Duration::from_secs(30)).await.success());
    // PrimarySteppedDown; the driver itself tries a read once more.
    mongod.fail_commands(&["aggregate"], 189, Some(4)).await;
    let mut daemon = Daemon::spawn(folder.path(), &text);
    daemon.wait_until_ready().await;
}
