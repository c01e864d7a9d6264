//! The oplog's window is known where it may be read, and the oldest place for a stream is found either way, also while the oplog
//! moves on; a stream from before it says that history is lost, and where.

use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Client;
use tailwater::source::error::SourceError;
use tailwater::source::oplog::{OplogError, oldest_available, oplog_window};
use tailwater::source::place::Place;
use tailwater::source::stream::{ChangeStream, StreamOptions};

use crate::harness::stream::{now, options, read, read_from, words};
use crate::harness::{Mongod, TEST_COMMANDS};

const DEADLINE: Duration = Duration::from_secs(120);
const WATCH: &str = "watch = [\"shop.*\"]";
/// One megabyte; what is above it is cut off behind each checkpoint of the storage, every second instead of every minute.
const SMALL_OPLOG: [&str; 4] = ["--oplogSize", "1", "--syncdelay", "1"];

/// Writes until the oplog no longer reaches back to `place`.
async fn write_past(client: &Client, place: &Place) {
    let (started, other) = (Instant::now(), client.database("other").collection::<Document>("filler"));
    loop {
        let window = oplog_window(client).await.expect("the window");
        assert!(window.oldest <= window.newest);
        if window.oldest > place.time() {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "the oplog still reaches back to {}", window.oldest);
        other.insert_many((0..20).map(|_| doc! { "pad": "x".repeat(50_000) })).await.expect("insert");
    }
}

/// A stream at the oldest place, which must not be `before`. The whole oplog holds some seconds only: a place may be gone again before
/// it is used.
async fn open_oldest(options: &StreamOptions, before: &Place) -> ChangeStream {
    loop {
        let oldest = oldest_available(options).await.expect("an oldest place");
        assert!(oldest.time() > before.time());
        let mut stream = ChangeStream::new(options.clone(), before.clone());
        stream.restart_at(oldest);
        match stream.next().await {
            Ok(_) => return stream,
            Err(error) => assert!(matches!(error, SourceError::HistoryLost { .. }), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_place_is_named_and_the_oldest_one_is_found_while_the_oplog_moves_on() {
    let mongod = Mongod::start_with(&SMALL_OPLOG).await;
    let options = options(&mongod.uri(), WATCH).await;
    let start = now(&mongod).await;
    let shop = mongod.client().database("shop").collection::<Document>("orders");
    shop.insert_one(doc! { "_id": 1 }).await.expect("insert");
    let all = oldest_available(&options).await.expect("all of the oplog");
    assert!(all.time() < start.time());
    assert_eq!(words(&read_from(&options, all, 1).await), ["insert 1"]);

    write_past(mongod.client(), &start).await;
    match ChangeStream::open(options.clone(), start.clone()).await.map(|_| "a stream") {
        Err(SourceError::HistoryLost { place, .. }) => assert_eq!(place, start),
        other => panic!("history is lost: {other:?}"),
    }
    // A stream that was open and could not go on says the same with the next read.
    let mut stream = ChangeStream::new(options.clone(), start.clone());
    assert!(matches!(stream.next().await, Err(SourceError::HistoryLost { .. })));

    let filler = mongod.client().clone();
    let writing = tokio::spawn(async move {
        let other = filler.database("other").collection::<Document>("filler");
        loop {
            other.insert_many((0..20).map(|_| doc! { "pad": "x".repeat(50_000) })).await.expect("insert");
        }
    });
    for id in 2..5 {
        let mut stream = open_oldest(&options, &start).await;
        shop.insert_one(doc! { "_id": id }).await.expect("insert");
        assert_eq!(words(&read(&mut stream, 1).await), [format!("insert {id}")]);
        write_past(mongod.client(), &now(&mongod).await).await;
    }
    writing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_look_into_the_oplog_the_oldest_place_is_found_by_trying() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "c2VjcmV0LXRoYXQtbWVtYmVycy1zaGFyZQ==").expect("write the key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("only for us");
    let key = key.to_str().expect("a path");
    let mongod = Mongod::start_with(&[&SMALL_OPLOG[..], &["--auth", "--keyFile", key]].concat()).await;
    // The first user may be made without one, from this machine.
    let root = doc! { "createUser": "root", "pwd": "secret", "roles": ["root"] };
    mongod.client().database("admin").run_command(root).await.expect("create root");
    let uri = |user: &str| format!("mongodb://{user}:secret@127.0.0.1:{}/?directConnection=true", mongod.port());
    let root = Client::with_uri_str(uri("root")).await.expect("client");
    let reader = doc! { "createUser": "reader", "pwd": "secret", "roles": [{ "role": "read", "db": "shop" }] };
    root.database("admin").run_command(reader).await.expect("create reader");
    let shop = root.database("shop").collection::<Document>("orders");
    shop.insert_one(doc! { "_id": 1 }).await.expect("insert");

    let options = options(&uri("reader"), WATCH).await;
    assert!(matches!(oplog_window(&options.client).await, Err(OplogError::NotPermitted)));
    let all = oldest_available(&options).await.expect("all of the oplog");
    assert_eq!(words(&read_from(&options, all.clone(), 1).await), ["insert 1"]);

    write_past(&root, &Place::From(oplog_window(&root).await.expect("the window").newest)).await;
    let mut stream = open_oldest(&options, &all).await;
    shop.insert_one(doc! { "_id": 2 }).await.expect("insert");
    assert_eq!(words(&read(&mut stream, 1).await), ["insert 2"]);
}

/// Where little of what happens is in scope, the server scans for long before it answers; that is no reason to give up.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_scans_for_long_does_not_keep_the_oldest_place_from_being_found() {
    let mongod = Mongod::start_with(&TEST_COMMANDS).await;
    let start = now(&mongod).await;
    let shop = mongod.client().database("shop").collection::<Document>("orders");
    shop.insert_one(doc! { "_id": 1 }).await.expect("insert");
    let options = options(&mongod.uri(), WATCH).await;
    let held = Cell::new(false);
    let scanning = async {
        mongod.block_next_command("aggregate", DEADLINE).await;
        held.set(true);
    };
    // Until it was one of these that is held.
    let looking = async {
        loop {
            let oldest = oldest_available(&options).await;
            if held.get() {
                return oldest.expect("an oldest place");
            }
        }
    };
    let both = async { tokio::join!(scanning, looking).1 };
    let oldest = tokio::time::timeout(DEADLINE / 2, both).await.expect("long before the scan ends");
    assert!(oldest.time() < start.time());
}
