//! What an earlier holder of the lease writes, however late, changes no checkpoint once a later one has claimed it. And what
//! both stores keep of an output.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tailwater::checkpoint::file::FileStore;
use tailwater::checkpoint::mongodb::MongoDbStore;
use tailwater::checkpoint::{Checkpoint, CheckpointError, Store};
use tailwater::source::place::Place;
use tailwater::source::token::Timestamp64;

use crate::harness::{Mongod, Proxy, eventually};

const DEADLINE: Duration = Duration::from_secs(60);

/// A place that tells who wrote it.
fn place(epoch: u64, number: u64) -> Place {
    Place::From(Timestamp64((epoch << 32) | number))
}

fn plain(place: Place) -> Checkpoint {
    Checkpoint { place, snapshot: None, paused: false }
}

fn store(client: &Client, epoch: u64) -> Store {
    Store::MongoDb(MongoDbStore::new(client, "default")).with_epoch(epoch)
}

fn assert_fenced<T: std::fmt::Debug>(what: &str, result: Result<T, CheckpointError>) {
    assert!(matches!(result, Err(CheckpointError::Fenced { epoch: 1, .. })), "{what}: {result:?}");
}

async fn assert_all_fenced(old: &Store) {
    assert_fenced("save", old.save("hooks", &place(1, 9), None).await);
    assert_fenced("pause", old.pause("hooks", true).await);
    assert_fenced("resume", old.pause("hooks", false).await);
    assert_fenced("remove", old.remove("hooks").await);
    assert_fenced("load", old.load("hooks").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_epoch_writes_nothing_after_a_newer_one_has_claimed() {
    let mongod = Mongod::start().await;
    let (old, new) = (store(mongod.client(), 1), store(mongod.client(), 2));
    // An output without a checkpoint can be claimed too.
    assert_eq!(new.load("hooks").await.expect("claimed"), None);
    assert_all_fenced(&old).await;
    assert_eq!(new.peek("hooks").await.expect("seen"), None);
    assert!(new.list().await.expect("listed").is_empty());

    // One that has a checkpoint, before the new holder has written.
    old.save("live", &place(1, 1), None).await.expect("nobody has claimed this one");
    assert_eq!(new.load("live").await.expect("claimed"), Some(plain(place(1, 1))));
    assert_fenced("save", old.save("live", &place(1, 2), None).await);
    assert_eq!(old.peek("live").await.expect("seen"), Some(plain(place(1, 1))), "looking is free");

    // Through every write of the new one, also the one that takes the place away.
    new.save("hooks", &place(2, 1), Some(&doc! { "done": 1 })).await.expect("saved");
    assert_all_fenced(&old).await;
    new.pause("hooks", true).await.expect("paused");
    assert_all_fenced(&old).await;
    let expected = Checkpoint { place: place(2, 1), snapshot: Some(doc! { "done": 1 }), paused: true };
    assert_eq!(new.load("hooks").await.expect("seen"), Some(expected));
    new.remove("hooks").await.expect("removed");
    assert_all_fenced(&old).await;
    assert_eq!(new.load("hooks").await.expect("seen"), None);

    let words = old.save("hooks", &place(1, 9), None).await.expect_err("fenced").to_string();
    assert_eq!(words, "write checkpoint of hooks: another instance has taken over, the lease of epoch 1 is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_under_way_when_another_took_over_changes_nothing() {
    let mongod = Mongod::start().await;
    let proxy = Proxy::start(mongod.port()).await;
    let late = Client::with_uri_str(proxy.uri()).await.expect("client");
    let (old, new) = (store(&late, 1), store(mongod.client(), 2));
    old.load("hooks").await.expect("claimed");
    old.save("hooks", &place(1, 1), None).await.expect("saved");
    proxy.freeze();
    let writing = tokio::spawn(async move { old.save("hooks", &place(1, 2), None).await });
    assert_eq!(new.load("hooks").await.expect("claimed"), Some(plain(place(1, 1))));
    assert!(!writing.is_finished());
    proxy.thaw();
    let written = tokio::time::timeout(DEADLINE, writing).await.expect("an answer").expect("the task");
    assert_fenced("save", written);
    assert_eq!(new.peek("hooks").await.expect("seen"), Some(plain(place(1, 1))));
}

/// What one instance of the race did.
struct Turn {
    /// What it found when it claimed; nothing when a later one was first.
    found: Option<Option<Checkpoint>>,
    /// The last place that it was told is durable.
    saved: Option<Place>,
}

/// Claims at some time, then saves until it is told that its time is over, or has had enough.
async fn take_a_turn(store: Store, output: String, epoch: u64, mut random: StdRng) -> Turn {
    // Mostly after the one before, and while that still writes.
    tokio::time::sleep(Duration::from_micros(epoch * 6_000 + random.random_range(0..12_000))).await;
    let mut turn = Turn { found: None, saved: None };
    turn.found = match store.load(&output).await {
        Ok(found) => Some(found),
        Err(CheckpointError::Fenced { .. }) => None,
        Err(error) => panic!("claim: {error}"),
    };
    let mut fenced = turn.found.is_none();
    for number in 0..random.random_range(0..12) {
        if random.random_bool(0.3) {
            tokio::time::sleep(Duration::from_micros(random.random_range(0..3_000))).await;
        }
        match store.save(&output, &place(epoch, number), None).await {
            Ok(()) => {
                assert!(!fenced, "epoch {epoch} wrote after it was told that its time is over");
                turn.saved = Some(place(epoch, number));
            }
            Err(CheckpointError::Fenced { .. }) => fenced = true,
            Err(error) => panic!("save: {error}"),
        }
    }
    turn
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_writes_that_race_never_turn_a_place_back() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mongod = Mongod::start().await;
    let (mut claims, mut overtaken) = (0, 0);
    for round in 0..60 {
        let output = format!("output-{round}");
        let turns = (1..=6).map(|epoch| {
            let random = StdRng::seed_from_u64(random.random());
            tokio::spawn(take_a_turn(store(mongod.client(), epoch), output.clone(), epoch, random))
        });
        let turns = futures::future::join_all(turns).await;
        // Each one that claimed must have found exactly what the one before it was told is durable.
        let mut durable: Option<Place> = None;
        for (turn, epoch) in turns.into_iter().map(|turn| turn.expect("a turn")).zip(1..) {
            let Some(found) = turn.found else {
                overtaken += 1;
                continue;
            };
            claims += 1;
            assert_eq!(found.map(|found| found.place), durable, "round {round}: found by epoch {epoch}");
            durable = turn.saved.or(durable);
        }
        let last = store(mongod.client(), 7).load(&output).await.expect("read");
        assert_eq!(last.map(|last| last.place), durable, "round {round}: at the end");
    }
    println!("{claims} claims, {overtaken} came too late");
    assert!(claims > 100 && overtaken > 10, "no race: {claims} claims, {overtaken} came too late");
}

#[tokio::test(flavor = "multi_thread")]
async fn first_writes_of_one_epoch_do_not_turn_each_other_away() {
    let mongod = Mongod::start().await;
    for round in 0..30 {
        let output = format!("output-{round}");
        let writes = (0..6).map(|number| {
            let (store, output) = (store(mongod.client(), 1), output.clone());
            tokio::spawn(async move { store.save(&output, &place(1, number), None).await })
        });
        for written in futures::future::join_all(writes).await {
            written.expect("the task").expect("saved");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_before_there_were_epochs_is_read_and_claimed() {
    let mongod = Mongod::start().await;
    let checkpoints = mongod.client().database("tailwater").collection::<Document>("checkpoints");
    let id = doc! { "name": "default", "output": "hooks" };
    let stored = doc! { "_id": &id, "place": place(0, 5).to_document(), "updatedAt": bson::DateTime::now() };
    checkpoints.insert_one(stored).await.expect("insert");
    let new = store(mongod.client(), 3);
    assert_eq!(new.peek("hooks").await.expect("seen"), Some(plain(place(0, 5))));
    assert_eq!(new.load("hooks").await.expect("claimed"), Some(plain(place(0, 5))));
    assert_fenced("save", store(mongod.client(), 1).save("hooks", &place(1, 1), None).await);
    new.save("hooks", &place(3, 1), None).await.expect("saved");

    checkpoints.update_one(doc! { "_id": &id }, doc! { "$unset": { "place": 1 } }).await.expect("update");
    let damaged = new.load("hooks").await.expect_err("no place").to_string();
    assert!(damaged.starts_with("checkpoint of hooks is damaged (not a stored place: no field place"), "{damaged}");
}

/// What both stores promise.
async fn keeps_what_it_is_given(store: Store, other: Store) {
    assert_eq!(store.load("hooks").await.expect("read"), None);
    let missing = store.pause("hooks", true).await.expect_err("nothing to pause").to_string();
    assert_eq!(missing, "pause hooks: it has no checkpoint yet; start it once");
    store.remove("hooks").await.expect("nothing to remove");

    // A snapshot's own words may look like the server's.
    let snapshot = doc! { "collections": [{ "$name": "$orders", "after": bson::oid::ObjectId::new(), "from": 7_i64 }] };
    store.save("hooks", &place(1, 1), Some(&snapshot)).await.expect("saved");
    other.save("hooks", &place(8, 8), None).await.expect("saved");
    let mut expected = Checkpoint { place: place(1, 1), snapshot: Some(snapshot.clone()), paused: false };
    assert_eq!(store.load("hooks").await.expect("read").as_ref(), Some(&expected));
    store.pause("hooks", true).await.expect("paused");
    expected.paused = true;
    assert_eq!(store.load("hooks").await.expect("read").as_ref(), Some(&expected), "a pause keeps the rest");
    let shorter = doc! { "done": true };
    store.save("hooks", &place(1, 2), Some(&shorter)).await.expect("saved");
    expected = Checkpoint { place: place(1, 2), snapshot: Some(shorter), paused: true };
    assert_eq!(store.peek("hooks").await.expect("read").as_ref(), Some(&expected), "a place keeps the pause");
    store.save("hooks", &place(1, 3), None).await.expect("saved");
    expected = Checkpoint { place: place(1, 3), snapshot: None, paused: true };
    assert_eq!(store.load("hooks").await.expect("read").as_ref(), Some(&expected), "a snapshot ends");
    store.pause("hooks", false).await.expect("resumed");
    assert_eq!(store.load("hooks").await.expect("read"), Some(plain(place(1, 3))));

    store.save("a-first", &place(1, 4), None).await.expect("saved");
    let listed = vec![("a-first".to_owned(), plain(place(1, 4))), ("hooks".to_owned(), plain(place(1, 3)))];
    assert_eq!(store.list().await.expect("listed"), listed, "by name, and none of another deployment");
    store.remove("hooks").await.expect("removed");
    assert_eq!(store.load("hooks").await.expect("read"), None);
    assert_eq!(store.list().await.expect("listed"), listed[..1]);
    store.save("hooks", &place(1, 5), None).await.expect("saved");
    assert_eq!(store.load("hooks").await.expect("read"), Some(plain(place(1, 5))), "a removed one begins anew");
    assert_eq!(other.list().await.expect("listed"), [("hooks".to_owned(), plain(place(8, 8)))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_keeps_what_it_is_given() {
    let mongod = Mongod::start().await;
    let other = Store::MongoDb(MongoDbStore::new(mongod.client(), "default2")).with_epoch(1);
    keeps_what_it_is_given(store(mongod.client(), 1), other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_what_it_is_given() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let open = |name| Store::File(FileStore::open(folder.path(), name).expect("open"));
    keeps_what_it_is_given(open("default"), open("default2")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_before_is_read_and_stays_readable_for_what_wrote_it() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Store::File(FileStore::open(folder.path(), "default").expect("open"));
    let file = folder.path().join("default.hooks.json");
    std::fs::write(&file, "{\"from\":{\"$timestamp\":{\"t\":3,\"i\":4}}}\n").expect("write");
    assert_eq!(store.load("hooks").await.expect("read"), Some(plain(place(3, 4))));
    store.save("hooks", &place(5, 6), Some(&doc! { "done": 1 })).await.expect("saved");
    store.pause("hooks", true).await.expect("paused");
    // The place is still what the whole file is read as; the rest stands beside it.
    let text = std::fs::read(&file).expect("read");
    let stored: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text).expect("JSON");
    let stored = Document::try_from(stored).expect("extended JSON");
    assert_eq!(Place::from_document(&stored).expect("a place"), place(5, 6));
    assert_eq!(store.load("hooks").await.expect("read").map(|read| read.paused), Some(true));
    std::fs::write(&file, "{\"fro").expect("write");
    assert!(matches!(store.load("hooks").await, Err(CheckpointError::Damaged { .. })));
    assert!(matches!(store.list().await, Err(CheckpointError::Damaged { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_and_places_written_at_once_do_not_undo_each_other() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Store::File(FileStore::open(folder.path(), "default").expect("open"));
    store.save("hooks", &place(1, 0), None).await.expect("saved");
    let saving = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 1..=100 {
                store.save("hooks", &place(1, number), None).await.expect("saved");
            }
        }
    });
    for paused in [true, false].into_iter().cycle().take(51) {
        store.pause("hooks", paused).await.expect("paused");
    }
    eventually("all places are saved", DEADLINE, || saving.is_finished()).await;
    let expected = Checkpoint { place: place(1, 100), snapshot: None, paused: true };
    assert_eq!(store.load("hooks").await.expect("read"), Some(expected));
}
