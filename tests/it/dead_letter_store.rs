//! Dead letters in MongoDB: every letter once, in stream order, bounded, until it is removed or expires; deployments with different
//! names do not meet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use futures::StreamExt;
use rand::seq::SliceRandom;
use tailwater::dead_letters::config::{Config, Place};
use tailwater::dead_letters::metrics::DeadLetterMetrics;
use tailwater::dead_letters::{Chosen, DeadLetterError, Filter, Kind, Letter, LetterKey, Letters, Matched, Store};
use tailwater::event::Event;

use crate::harness::Mongod;
use crate::source_errors::with_users;

const DEADLINE: Duration = Duration::from_secs(60);
const ROOM: u64 = 1 << 30;

/// An insert of `fields` at `seconds`, with a token as mongod writes it.
pub fn letter(output: &str, seconds: u32, fields: Document) -> Letter {
    let data = format!("82{seconds:08X}000000012B022C0100296E5A1004A2C3B4D4F87B4C009033EFFD5EB1E70604");
    let key = i64::from(seconds);
    let mut event = doc! {
        "_id": { "_data": data },
        "operationType": "insert",
        "ns": { "db": "shop", "coll": "orders" },
        "documentKey": { "_id": key },
    };
    event.insert("fullDocument", fields);
    let event = Event::from_raw(&RawDocumentBuf::try_from(&event).expect("BSON")).expect("an event");
    let (kind, reason) = (Kind::Rejected, format!("410 of {seconds}"));
    Letter { output: output.into(), id: *event.id(), kind, reason, attempts: 1, event: Arc::new(event) }
}

pub fn key(letter: &Letter) -> LetterKey {
    LetterKey::new(letter.output.clone(), letter.id)
}

pub fn settings(bytes_max: u64, expire_after: Duration) -> Config {
    Config { place: Place::MongoDb, bytes_max, expire_after }
}

async fn open(mongod: &Mongod, name: &str, bytes_max: u64) -> Store {
    let config = settings(bytes_max, Duration::from_secs(3600));
    Store::open(&config, name, mongod.client(), DeadLetterMetrics::default()).await.expect("open")
}

fn collection(mongod: &Mongod) -> mongodb::Collection<Document> {
    mongod.client().database("tailwater").collection("dead_letters")
}

async fn keys(store: &Store, output: Option<&str>, limit: usize) -> Vec<LetterKey> {
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let filter = Filter { output: output.map(str::to_owned), after, limit };
        let page = store.list(&filter).await.expect("list");
        assert!(page.letters.len() <= limit);
        keys.extend(page.letters.into_iter().map(|summary| summary.key));
        after = keys.last().cloned();
        if !page.more {
            return keys;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_kept_once_in_stream_order_and_by_name() {
    let mongod = Mongod::start().await;
    let (store, other) = (open(&mongod, "default", ROOM).await, open(&mongod, "other", ROOM).await);
    let mut letters: Vec<Letter> = ["live", "hooks", "pusher"]
        .into_iter()
        .flat_map(|output| (1..=150).map(move |n| letter(output, n, doc! { "n": n as i32 })))
        .collect();
    let mut expected: Vec<LetterKey> = letters.iter().map(key).collect();
    expected.sort();
    letters.shuffle(&mut rand::rng());
    for batch in letters.chunks(70) {
        store.put(batch).await.expect("put");
    }
    store.put(&letters[..100]).await.expect("again");
    other.put(&letters[..1]).await.expect("put");
    assert_eq!(keys(&store, None, 64).await, expected);
    let of_hooks: Vec<_> = expected.iter().filter(|key| key.output == "hooks").cloned().collect();
    assert_eq!(keys(&store, Some("hooks"), 64).await, of_hooks);
    assert_eq!(keys(&other, None, 64).await, [key(&letters[0])]);

    // Counted as it went, and anew after a restart, without reading a letter.
    let again = open(&mongod, "default", ROOM).await;
    assert_eq!(again.account(), store.account());
    assert_eq!(again.account().letters, BTreeMap::from(["hooks", "live", "pusher"].map(|o| (o.to_owned(), 150))));
    let pipeline = vec![
        doc! { "$match": { "_id.name": "default" } },
        doc! { "$group": { "_id": "$_id.output", "letters": { "$sum": 1 }, "bytes": { "$sum": "$bytes" } } },
    ];
    let aggregate = doc! { "aggregate": "dead_letters", "pipeline": pipeline, "cursor": {} };
    let explained = doc! { "explain": aggregate, "verbosity": "executionStats" };
    let explained = mongod.client().database("tailwater").run_command(explained).await.expect("explain").to_string();
    assert!(explained.contains("\"totalDocsExamined\": 0"), "{explained}");

    // What a replay does: bounded pages in order, a new reason, removal.
    let (mut loaded, mut after) = (Vec::new(), None);
    loop {
        let page = store.load("hooks", &Letters::All, after, 40, 4_000).await.expect("load");
        let Some(last) = page.last() else { break };
        after = Some(last.summary.key.id);
        assert!(page.len() < 40, "4,000 bytes are no 40 events");
        loaded.extend(page);
    }
    let original: BTreeMap<LetterKey, &Letter> = letters.iter().map(|letter| (key(letter), letter)).collect();
    assert_eq!(loaded.iter().map(|stored| stored.summary.key.clone()).collect::<Vec<_>>(), of_hooks);
    for stored in &loaded {
        let original = original[&stored.summary.key];
        let letter = stored.letter().expect("whole");
        assert_eq!(letter.event.raw().as_bytes(), original.event.raw().as_bytes());
        assert_eq!((letter.id, letter.kind, &letter.reason), (original.id, Kind::Rejected, &original.reason));
    }
    assert!(store.update(&of_hooks[0], "still 410", 7).await.expect("update"));
    let updated = store.get(&of_hooks[0]).await.expect("get").expect("there").summary;
    assert_eq!((updated.reason.as_str(), updated.attempts), ("still 410", 7));
    assert!(updated.updated_at >= updated.buried_at);
    assert_eq!(store.remove(&of_hooks[..100]).await.expect("remove"), 100);
    assert_eq!(store.remove(&of_hooks[..100]).await.expect("remove"), 0);
    assert!(!store.update(&of_hooks[0], "gone", 8).await.expect("update"));
    assert!(store.get(&of_hooks[0]).await.expect("get").is_none());

    // One of hooks, all of live, those of one event in every output.
    let chosen = Chosen {
        outputs: ["live".into()].into(),
        keys: [of_hooks[120].clone(), of_hooks[0].clone()].into(),
        events: [of_hooks[149].id].into(),
        all: false,
    };
    assert_eq!(store.count(&chosen).await.expect("count"), Matched { letters: 150 + 1 + 2, stubs: 0 });
    assert_eq!(store.drop_chosen(&chosen).await.expect("drop"), 153);
    let left = BTreeMap::from([("hooks".to_owned(), 48), ("live".to_owned(), 0), ("pusher".to_owned(), 149)]);
    assert_eq!(store.account().letters, left);
    assert_eq!(store.drop_chosen(&Chosen::all()).await.expect("drop"), 197);
    assert_eq!(store.account().bytes, 0);
    assert_eq!(keys(&other, None, 64).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_writes_nothing_until_there_is_room() {
    let mongod = Mongod::start().await;
    let store = open(&mongod, "default", 1 << 20).await;
    let large = |n| letter("live", n, doc! { "padding": "x".repeat(400_000) });
    store.put(&[large(1), large(2)]).await.expect("room for two");
    let before = keys(&store, None, 64).await;
    let error = store.put(&[letter("live", 3, doc! {}), large(4)]).await.expect_err("full");
    let DeadLetterError::Full { used, bytes_max, .. } = error else { panic!("{error}") };
    assert!(used > 800_000 && used < bytes_max, "{error}");
    assert_eq!(keys(&store, None, 64).await, before);
    // What is there already needs no room: a lane that was killed behind a put comes with it again.
    store.put(&[large(1), large(2)]).await.expect("overwritten");
    let again = open(&mongod, "default", 1 << 20).await;
    again.put(&[large(1), large(2)]).await.expect("overwritten after a restart");
    again.put(&[large(3)]).await.expect_err("full after a restart");
    // Somebody else makes room.
    assert_eq!(again.remove(&before[..1]).await.expect("remove"), 1);
    store.refresh().await.expect("refresh");
    store.put(&[large(4)]).await.expect("room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_written_counts_once() {
    let mongod = Mongod::start().await;
    // Three commands of 9 MB each, and room for a third more, but not for any of them twice.
    let store = open(&mongod, "default", 36 << 20).await;
    let large: Vec<Letter> = (1..=3).map(|n| letter("live", n, doc! { "padding": "x".repeat(9 << 20) })).collect();
    let written = std::sync::atomic::AtomicBool::new(false);
    let write = async {
        // New ones, then the same again, which take no room at all.
        for _ in 0..3 {
            store.put(&large).await.expect("room for the large ones");
        }
        written.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let beside = async {
        for n in 10.. {
            if written.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            store.put(&[letter("hooks", n, doc! {})]).await.expect("room for a small one");
        }
    };
    tokio::join!(write, beside);
    let (account, again) = (store.account(), open(&mongod, "default", 36 << 20).await.account());
    assert_eq!(account, again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_is_kept_whole_or_as_a_stub_and_a_strange_one_byte_for_byte() {
    let mongod = Mongod::start().await;
    let store = open(&mongod, "default", ROOM).await;
    // What the daemon does at the same time: it watches everything but this database, and must not stumble over a large letter.
    let others = vec![doc! { "$match": { "ns.db": { "$ne": "tailwater" } } }];
    let mut watching = mongod.client().watch().pipeline(others).await.expect("watch");

    let whole = letter("live", 1, doc! { "padding": "x".repeat(16_672_000) });
    let over = letter("live", 2, doc! { "padding": "x".repeat(16_776_000) });
    let mut deep = doc! { "a": 1 };
    for _ in 0..150 {
        deep = doc! { "a": deep };
    }
    let strange = doc! { "$where": { "$oid": "no" }, "a.b": [{ "": 1 }], "deep": deep };
    let strange = letter("live", 3, strange);
    store.put(&[whole.clone(), over.clone(), strange.clone()]).await.expect("put");

    for letter in [&whole, &strange] {
        let stored = store.get(&key(letter)).await.expect("get").expect("there");
        let back = stored.letter().expect("whole");
        assert_eq!(back.event.raw().as_bytes(), letter.event.raw().as_bytes());
        assert!(!stored.summary.truncated && !stored.summary.stub);
    }
    let stub = store.get(&key(&over)).await.expect("get").expect("there");
    assert!(stub.summary.truncated && stub.event.is_none() && stub.summary.bytes < 2_000);
    assert_eq!((stub.summary.ns.as_str(), stub.summary.reason.as_str()), ("shop.orders", "410 of 2"));
    assert_eq!(stub.token.as_deref(), Some(over.event.token().document()));
    assert!(stub.letter().expect_err("a stub").contains("kept only as a stub"));
    assert_eq!(store.count(&Chosen::all()).await.expect("count"), Matched { letters: 3, stubs: 1 });

    mongod.client().database("shop").collection("orders").insert_one(doc! { "_id": 1 }).await.expect("insert");
    let seen =
        tokio::time::timeout(DEADLINE, watching.next()).await.expect("in time").expect("open").expect("an event");
    assert_eq!(seen.ns.and_then(|ns| ns.coll).as_deref(), Some("orders"));
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_expire_by_the_clock_of_the_server_and_a_changed_time_counts_for_all() {
    let mongod = Mongod::start_with(&["--setParameter", "ttlMonitorSleepSecs=1"]).await;
    let store = open(&mongod, "default", ROOM).await;
    let other = open(&mongod, "other", ROOM).await;
    store.put(&[letter("live", 1, doc! {}), letter("hooks", 1, doc! {})]).await.expect("put");
    other.put(&[letter("live", 1, doc! {})]).await.expect("put");
    let stored = collection(&mongod).find_one(doc! { "_id.name": "default" }).await.expect("find").expect("there");
    let time = |field| stored.get_datetime(field).expect(field).timestamp_millis();
    assert_eq!(time("expireAt") - time("updatedAt"), 3_600_000);

    // A restart with another time, for this name alone.
    let short = settings(ROOM, Duration::from_secs(1));
    let store = Store::open(&short, "default", mongod.client(), DeadLetterMetrics::default()).await.expect("open");
    let started = std::time::Instant::now();
    while store.account().letters.values().any(|letters| *letters > 0) {
        assert!(started.elapsed() < DEADLINE, "letters do not expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.refresh().await.expect("refresh");
    }
    assert_eq!(store.account().bytes, 0);
    assert!(keys(&store, None, 10).await.is_empty());
    assert_eq!(keys(&other, None, 10).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_privilege_is_named_and_the_one_for_indexes_is_not_needed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mongod = with_users(folder.path()).await;
    let client = async |user: &str| {
        let uri = format!("mongodb://{user}:secret@127.0.0.1:{}/?directConnection=true", mongod.port());
        mongodb::Client::with_uri_str(uri).await.expect("client")
    };
    let admin = client("root").await.database("admin");
    let resource = doc! { "db": "tailwater", "collection": "dead_letters" };
    let privileges = vec![doc! { "resource": resource, "actions": ["find", "insert", "update", "remove"] }];
    admin.run_command(doc! { "createRole": "plain", "privileges": privileges, "roles": [] }).await.expect("role");
    admin.run_command(doc! { "createUser": "plain", "pwd": "secret", "roles": ["plain"] }).await.expect("user");

    // To list and show, the privilege to find is enough, and nothing is changed.
    let resource = doc! { "db": "tailwater", "collection": "dead_letters" };
    let privileges = vec![doc! { "resource": resource, "actions": ["find"] }];
    admin.run_command(doc! { "createRole": "looking", "privileges": privileges, "roles": [] }).await.expect("role");
    admin.run_command(doc! { "createUser": "looking", "pwd": "secret", "roles": ["looking"] }).await.expect("user");

    let (kept, metrics) = (settings(ROOM, Duration::from_secs(3600)), DeadLetterMetrics::default());
    let looking = Store::open_as_it_is(&kept, "default", &client("looking").await).await.expect("open");
    assert!(keys(&looking, None, 10).await.is_empty());
    let opened = Store::open(&kept, "default", &client("reader").await, metrics.clone()).await;
    let error = opened.err().expect("refused").to_string();
    let words = ["dead letters in MongoDB: not authorized on tailwater", "grant the user readWrite on tailwater"];
    assert!(words.iter().all(|word| error.contains(word)), "{error}");

    let store = Store::open(&kept, "default", &client("plain").await, metrics.clone()).await.expect("without indexes");
    store.put(&[letter("live", 2, doc! {}), letter("live", 1, doc! {})]).await.expect("put");
    assert_eq!(keys(&store, None, 1).await.len(), 2);
    assert_eq!(keys(&looking, None, 1).await.len(), 2);
    // Taken away while the daemon runs: the reply to the write says so, and it is counted.
    let revoke = doc! { "revokePrivilegesFromRole": "plain", "privileges": vec![doc! {
        "resource": { "db": "tailwater", "collection": "dead_letters" }, "actions": ["update", "insert"],
    }] };
    admin.run_command(revoke).await.expect("revoke");
    let error = store.put(&[letter("live", 3, doc! {})]).await.expect_err("refused").to_string();
    assert!(error.contains("write dead letters in MongoDB: not authorized") && error.contains(words[1]), "{error}");
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("encode");
    assert!(text.contains("tailwater_dead_letter_failures_total{output=\"live\"} 1"), "{text}");
    assert!(text.contains("tailwater_dead_letters{output=\"live\"} 2"), "{text}");
}
