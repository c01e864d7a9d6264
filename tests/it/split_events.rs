//! On a server that splits large events they arrive whole; ids are the same with and without splitting, and places of either token
//! format lead on without a loss. The server here is 6.0.27.

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use tailwater::event::Event;
use tailwater::source::place::Place;
use tailwater::source::stream::{ChangeStream, StreamOptions};

use crate::harness::stream::{now, options, read, read_from, words};
use crate::harness::{Daemon, Lines, Mongod, config_of, eventually};

const DEADLINE: Duration = Duration::from_secs(120);
const WATCH: &str = "watch = [\"shop.*\"]";
const IMAGES: &str = "full_document = \"when_available\"\nfull_document_before_change = \"when_available\"";
const OUTPUT: &str = "[checkpoint]\ninterval = \"50ms\"\n\
    [outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";

async fn docs(mongod: &Mongod) -> Collection<Document> {
    let create = doc! { "create": "docs", "changeStreamPreAndPostImages": { "enabled": true } };
    mongod.client().database("shop").run_command(create).await.expect("create");
    mongod.client().database("shop").collection("docs")
}

/// Inserts, two updates with events of 18 MB, a transaction. How many events it makes is given back.
async fn write(mongod: &Mongod, docs: &Collection<Document>) -> usize {
    docs.insert_one(doc! { "_id": 1, "v": 0 }).await.expect("insert");
    docs.insert_one(doc! { "_id": 10, "v": 0, "pad": "x".repeat(9_000_000) }).await.expect("insert");
    docs.update_one(doc! { "_id": 10 }, doc! { "$set": { "v": 1 } }).await.expect("update");
    docs.update_one(doc! { "_id": 1 }, doc! { "$set": { "v": 1 } }).await.expect("update");
    let mut session = mongod.client().start_session().await.expect("session");
    session.start_transaction().await.expect("begin");
    docs.insert_one(doc! { "_id": 2 }).session(&mut session).await.expect("insert");
    docs.update_one(doc! { "_id": 10 }, doc! { "$set": { "v": 2 } }).session(&mut session).await.expect("update");
    docs.insert_one(doc! { "_id": 3 }).session(&mut session).await.expect("insert");
    session.commit_transaction().await.expect("commit");
    docs.delete_one(doc! { "_id": 1 }).await.expect("delete");
    8
}

fn ids(events: &[Arc<Event>]) -> Vec<String> {
    events.iter().map(|event| event.id().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_event_arrives_whole_and_once_also_over_a_restart() {
    let (mongod, folder) = (Mongod::start_splitting(&[]).await, tempfile::tempdir().expect("temporary folder"));
    let docs = docs(&mongod).await;
    let config = config_of(&mongod.uri(), &format!("{WATCH}\n{IMAGES}"), OUTPUT);
    let lines = Lines::new(folder.path().join("all.jsonl"));
    let daemon = Daemon::start(folder.path(), &config).await;
    let mut count = write(&mongod, &docs).await;
    eventually("the large events", DEADLINE, || lines.bytes() > 45_000_000).await;
    eventually("all events", DEADLINE, || lines.first_occurrences().len() >= count).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());

    docs.update_one(doc! { "_id": 10 }, doc! { "$set": { "v": 3 } }).await.expect("update");
    count += 1;
    let daemon = Daemon::start(folder.path(), &config).await;
    eventually("the event from before the start", DEADLINE, || lines.first_occurrences().len() >= count).await;
    let events = lines.events();
    assert_eq!(events.len(), count, "after a drain nothing is repeated");
    let large: Vec<_> =
        events.iter().filter(|e| e["operationType"] == "update" && e["documentKey"]["_id"] == 10).collect();
    assert_eq!(large.len(), 3);
    for (event, v) in large.iter().zip(1..) {
        for (image, v) in [("fullDocument", v), ("fullDocumentBeforeChange", v - 1)] {
            assert_eq!(event[image]["v"], v, "{image}");
            assert_eq!(event[image]["pad"].as_str().map(str::len), Some(9_000_000), "{image}");
        }
        assert!(event["splitEvent"].is_null() && event["ns"]["coll"] == "docs" && !event["wallTime"].is_null());
    }
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_the_same_both_ways_and_places_of_either_format_lose_nothing() {
    let mongod = Mongod::start_splitting(&[]).await;
    let docs = docs(&mongod).await;
    let start = now(&mongod).await;
    let count = write(&mongod, &docs).await;
    // Without images no event is too large for a stream that does not split.
    let split = options(&mongod.uri(), WATCH).await;
    assert!(split.splits, "6.0.27 splits, and was asked");
    let whole = StreamOptions { splits: false, ..split.clone() };
    let with_images = options(&mongod.uri(), &format!("{WATCH}\n{IMAGES}")).await;
    let mut ways = Vec::new();
    for options in [&split, &whole, &with_images] {
        ways.push(read_from(options, start.clone(), count).await);
    }
    assert_eq!(ids(&ways[0]), ids(&ways[1]));
    assert_eq!(ids(&ways[0]), ids(&ways[2]));
    assert_ne!(ways[0][0].token().format(), ways[1][0].token().format(), "the formats differ");

    // From every event's place on, as each way has stored it, each way delivers the rest; the event itself at most once more.
    for from in &ways {
        for behind in 0..count - 1 {
            let place = Place::After(from[behind].token().clone());
            for options in [&split, &whole, &with_images] {
                let rest = &ids(from)[behind + 1..];
                let mut found = read_from(options, place.clone(), rest.len()).await;
                if ids(&found) != rest {
                    found = read_from(options, place.clone(), rest.len() + 1).await;
                    assert_eq!(ids(&found), ids(from)[behind..], "behind {behind}");
                    let large = options.full_document.is_some() != from[behind].full_document_before_change().is_some();
                    let formats = options.splits != (from[behind].token().format() == 2);
                    assert!(
                        formats || large,
                        "only where tokens do not compare is an event repeated: {:?}",
                        words(&found)
                    );
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_field_that_is_too_large_becomes_a_stub() {
    let mongod = Mongod::start_splitting(&[]).await;
    let docs = docs(&mongod).await;
    let start = now(&mongod).await;
    let count = write(&mongod, &docs).await;
    let stage = "pipeline = [{ \"$set\" = { both = [\"$fullDocument\", \"$fullDocumentBeforeChange\"] } }]";
    let options = options(&mongod.uri(), &format!("{WATCH}\n{IMAGES}\n{stage}")).await;
    let events = read_from(&options, start, count).await;
    let expected = [
        "insert 1",
        "insert 10",
        "poison update 10",
        "update 1",
        "insert 2",
        "poison update 10",
        "insert 3",
        "delete 1",
    ];
    assert_eq!(words(&events), expected);
    let reason = events[2].poison().expect("a stub");
    assert!(reason.contains("one of its fields is larger"), "{reason}");
    for behind in 0..count - 1 {
        let rest = read_from(&options, Place::After(events[behind].token().clone()), count - 1 - behind).await;
        assert_eq!(words(&rest), &expected[behind + 1..], "behind {behind}");
    }
}

/// A set in which not all members are new enough, after a failover to one that is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_no_longer_splits_is_read_without() {
    let mongod = Mongod::start().await;
    let docs = docs(&mongod).await;
    let start = now(&mongod).await;
    let options = StreamOptions { splits: true, ..options(&mongod.uri(), WATCH).await };
    for id in 1..3 {
        docs.insert_one(doc! { "_id": id }).await.expect("insert");
    }
    assert_eq!(words(&read_from(&options, start.clone(), 2).await), ["insert 1", "insert 2"]);
    let mut stream = ChangeStream::open(options, start).await.expect("opens");
    assert_eq!(words(&read(&mut stream, 2).await), ["insert 1", "insert 2"]);
}
