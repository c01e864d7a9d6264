//! With checkpoints in a folder, one instance holds its lock and the others stand by, until the holder gives it back, ends or is
//! killed.

use std::path::Path;
use std::time::Duration;

use tailwater::lease::file::FileArbiter;
use tailwater::lease::metrics::LeaseMetrics;
use tailwater::lease::{Arbiter, Lease, Standing, Times};

use crate::harness::{Daemon, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(60);

async fn contend(folder: &Path, name: &str, instance: &str) -> Lease {
    let arbiter = Arbiter::File(FileArbiter::new(folder, name, instance));
    Lease::begin(arbiter, Times::STANDARD, LeaseMetrics::default()).await.expect("an answer")
}

async fn wait_until_holder(lease: &Lease, epoch: u64) {
    eventually("it holds the lock", DEADLINE, || *lease.standing().borrow() == Standing::Holder { epoch }).await;
    assert!(lease.guard(epoch).holds());
}

fn is_standby(lease: &Lease) -> bool {
    matches!(*lease.standing().borrow(), Standing::Standby { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_stands_by_until_the_first_has_ended() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let state = folder.path().join("state");
    let first = contend(&state, "default", "first").await;
    wait_until_holder(&first, 1).await;
    let second = contend(&state, "default", "second").await;
    assert_eq!(*second.standing().borrow(), Standing::Standby { holder: Some("first".to_owned()) });
    assert!(!second.guard(1).holds());
    // Another deployment in the same folder is another lease.
    wait_until_holder(&contend(&state, "other", "third").await, 1).await;

    let guard = first.guard(1);
    first.release().await;
    assert!(!guard.holds());
    wait_until_holder(&second, 2).await;
    let third = contend(&state, "default", "third").await;
    drop(second);
    wait_until_holder(&third, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_a_process_that_was_killed_is_free() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let tables = "[checkpoint]\nstore = \"file\"\npath = \"state\"\n\
        [outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";
    let daemon = Daemon::start(folder.path(), &config(&mongod, tables)).await;
    let standby = contend(&folder.path().join("state"), "default", "standby").await;
    assert!(is_standby(&standby));
    daemon.kill9();
    eventually("it holds the lock", DEADLINE, || !is_standby(&standby)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_file_that_was_removed_by_hand_makes_no_two_holders_for_long() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let first = contend(folder.path(), "default", "first").await;
    wait_until_holder(&first, 1).await;
    std::fs::remove_file(folder.path().join("default.lock")).expect("remove");
    let second = contend(folder.path(), "default", "second").await;
    wait_until_holder(&second, 1).await;
    eventually("the first has noticed", DEADLINE, || is_standby(&first)).await;
    assert!(!first.guard(1).holds());
    assert!(second.guard(1).holds());
}
