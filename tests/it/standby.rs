//! Two instances of one name: one delivers, the other stands by and takes over, at once when the holder drains, and when the lease
//! ends where it was killed or stopped; an instance that wakes up late hands out nothing more and moves no checkpoint.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;
use tempfile::TempDir;

use crate::harness::lines::id;
use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(60);

/// Less than what a lease lasts, so that its end was not waited for. What it takes is printed: the design promises two seconds.
const HAND_OVER_MAX: Duration = Duration::from_secs(10);

fn orders(mongod: &Mongod) -> Collection<Document> {
    mongod.client().database("shop").collection("orders")
}

async fn insert(mongod: &Mongod, ids: std::ops::Range<i64>) {
    orders(mongod).insert_many(ids.map(|id| doc! { "_id": id })).await.expect("insert");
}

fn keys(folder: &Path) -> Vec<i64> {
    let lines = Lines::new(folder.join("all.jsonl"));
    lines.events().iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect()
}

fn text(mongod: &Mongod, store: &str) -> String {
    config(mongod, &format!("{store}[outputs.all]\nplugin = \"stdout\"\noptions = {{ path = \"all.jsonl\" }}\n"))
}

/// Two folders, an instance in each; the first has the lease.
async fn two(mongod: &Mongod, store: impl Fn(&Path) -> String) -> [(TempDir, Daemon); 2] {
    let shared = tempfile::tempdir().expect("temporary folder").keep();
    let start = async || {
        let folder = tempfile::tempdir().expect("temporary folder");
        let daemon = Daemon::start(folder.path(), &text(mongod, &store(&shared))).await;
        (folder, daemon)
    };
    let first = start().await;
    let second = start().await;
    assert_eq!(first.1.status_of("all")["state"], "live");
    assert_eq!(second.1.status_of("all")["state"], "standby", "an instance that stands by is ready all the same");
    [first, second]
}

fn in_mongodb(_: &Path) -> String {
    String::new()
}

fn in_a_folder(shared: &Path) -> String {
    let folder = shared.join("state");
    format!("[checkpoint]\nstore = \"file\"\npath = {folder:?}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_at_once_when_the_holder_drains() {
    for store in [in_mongodb, in_a_folder] {
        let mongod = Mongod::start().await;
        let [(first_folder, first), (second_folder, second)] = two(&mongod, store).await;
        insert(&mongod, 0..100).await;
        eventually("the first delivers", DEADLINE, || keys(first_folder.path()).len() == 100).await;
        assert!(keys(second_folder.path()).is_empty());
        let refused = second.refused(&["output", "pause", "all"]);
        assert!(refused.contains("another instance delivers this output"), "{refused}");

        assert!(first.terminate_and_wait(DEADLINE).await.success());
        let ended = Instant::now();
        insert(&mongod, 100..101).await;
        eventually("the second delivers", DEADLINE, || keys(second_folder.path()).contains(&100)).await;
        let took = ended.elapsed();
        eprintln!("from the end of the holder to a delivery by the other: {took:?}");
        assert!(took < HAND_OVER_MAX, "{took:?}");
        // A drain leaves nothing behind: what was delivered is not delivered again.
        assert_eq!(keys(second_folder.path()), [100]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_when_the_lease_of_a_killed_holder_ends() {
    for store in [in_mongodb, in_a_folder] {
        let mongod = Mongod::start().await;
        let [(first_folder, first), (second_folder, _second)] = two(&mongod, store).await;
        insert(&mongod, 0..100).await;
        eventually("the first delivers", DEADLINE, || keys(first_folder.path()).len() == 100).await;
        first.kill9();
        let ended = Instant::now();
        insert(&mongod, 100..200).await;
        eventually("the second delivers", DEADLINE, || keys(second_folder.path()).contains(&199)).await;
        eprintln!("from kill -9 of the holder to the last of what it missed by the other: {:?}", ended.elapsed());
        let mut all = [keys(first_folder.path()), keys(second_folder.path())].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, (0..200).collect::<Vec<_>>(), "nothing is missing");
    }
}

/// The stored place of the output, as the database has it.
async fn stored(mongod: &Mongod) -> Document {
    let checkpoints = mongod.client().database("tailwater").collection::<Document>("checkpoints");
    checkpoints.find_one(doc! { "_id.output": "all" }).await.expect("find").expect("a checkpoint")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_wakes_up_late_delivers_nothing_more() {
    let mongod = Mongod::start().await;
    let [(first_folder, mut first), (second_folder, second)] = two(&mongod, in_mongodb).await;
    insert(&mongod, 0..100).await;
    eventually("the first delivers", DEADLINE, || keys(first_folder.path()).len() == 100).await;
    first.pause();
    insert(&mongod, 100..200).await;
    eventually("the second has taken over", DEADLINE, || keys(second_folder.path()).contains(&199)).await;
    insert(&mongod, 200..300).await;
    eventually("the second delivers", DEADLINE, || keys(second_folder.path()).contains(&299)).await;
    let before = keys(first_folder.path());
    let epoch = stored(&mongod).await.get_i64("epoch").expect("an epoch");

    first.resume();
    eventually("it knows that it stands by", DEADLINE, || first.status_of("all")["state"] == "standby").await;
    assert!(first.is_running());
    insert(&mongod, 300..400).await;
    eventually("the second goes on", DEADLINE, || keys(second_folder.path()).contains(&399)).await;
    assert_eq!(keys(first_folder.path()), before, "what happened while it slept is none of its business");
    let now = stored(&mongod).await;
    assert_eq!(now.get_i64("epoch").expect("an epoch"), epoch, "no checkpoint of the late one: {now}");

    // And back: the one that was late takes over when the other drains.
    assert!(second.terminate_and_wait(DEADLINE).await.success());
    insert(&mongod, 400..500).await;
    eventually("the first delivers again", DEADLINE, || keys(first_folder.path()).contains(&499)).await;
    let mut times = BTreeMap::new();
    for folder in [first_folder.path(), second_folder.path()] {
        for event in Lines::new(folder.join("all.jsonl")).events() {
            *times.entry(id(&event)).or_insert(0) += 1;
        }
    }
    assert_eq!(times.len(), 500, "every event by one of them");
    // What the first had delivered and not yet made durable when it was stopped comes again by the second.
    let twice = times.values().filter(|times| **times > 1).count();
    assert!(twice <= 100, "{twice} were delivered by both");
}
