//! An event that the server cannot send becomes a stub with the id of the event, in its place among the others; the stream goes on
//! behind it, also from a place right there, also within a transaction. The server here is 6.0.5, which splits nothing.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;
use tailwater::source::place::Place;
use tailwater::source::stream::ChangeStream;

use crate::harness::Mongod;
use crate::harness::stream::{now, options, read, read_from, words};

const WATCH: &str = "watch = [\"shop.*\"]";
/// With both, an update of a document of 9 MB makes an event of 18 MB.
const IMAGES: &str = "full_document = \"update_lookup\"\nfull_document_before_change = \"when_available\"";

async fn docs(mongod: &Mongod) -> Collection<Document> {
    let create = doc! { "create": "docs", "changeStreamPreAndPostImages": { "enabled": true } };
    mongod.client().database("shop").run_command(create).await.expect("create");
    mongod.client().database("shop").collection("docs")
}

fn large(id: i32) -> Document {
    doc! { "_id": id, "v": 0, "pad": "x".repeat(9_000_000) }
}

fn set(v: i32) -> Document {
    doc! { "$set": { "v": v } }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stub_takes_its_place_and_has_its_id() {
    let mongod = Mongod::start().await;
    let docs = docs(&mongod).await;
    let start = now(&mongod).await;
    for id in 1..4 {
        docs.insert_one(doc! { "_id": id }).await.expect("insert");
    }
    docs.insert_one(large(10)).await.expect("insert");
    docs.update_one(doc! { "_id": 10 }, set(1)).await.expect("update");
    docs.update_one(doc! { "_id": 1 }, set(1)).await.expect("update");
    docs.update_one(doc! { "_id": 10 }, set(2)).await.expect("update");
    docs.update_one(doc! { "_id": 10 }, set(3)).await.expect("update");
    docs.insert_one(doc! { "_id": 4 }).await.expect("insert");
    let expected = [
        "insert 1",
        "insert 2",
        "insert 3",
        "insert 10",
        "poison update 10",
        "update 1",
        "poison update 10",
        "poison update 10",
        "insert 4",
    ];

    let with_images = options(&mongod.uri(), &format!("{WATCH}\n{IMAGES}")).await;
    assert!(!with_images.splits, "6.0.5 splits nothing");
    let started = Instant::now();
    let events = read_from(&with_images, start.clone(), expected.len()).await;
    eprintln!("passed three in {:?}", started.elapsed());
    assert_eq!(words(&events), expected);
    let reason = events[4].poison().expect("a stub");
    assert!(reason.contains("10334") && reason.contains("leave out full_document"), "{reason}");

    // The ids are those that the events have where they can be read.
    let without = options(&mongod.uri(), WATCH).await;
    let readable = read_from(&without, start.clone(), expected.len()).await;
    let ids =
        |events: &[std::sync::Arc<tailwater::event::Event>]| events.iter().map(|event| *event.id()).collect::<Vec<_>>();
    assert_eq!(ids(&events), ids(&readable));
    assert!(readable.iter().all(|event| event.poison().is_none()));

    // From behind each of them exactly the rest follows; a stream opens at the stub's own time, where the server fails again.
    for behind in 0..expected.len() - 1 {
        let place = Place::After(events[behind].token().clone());
        // Opened first, as at the start of the daemon.
        let mut stream = ChangeStream::open(with_images.clone(), place).await.expect("opens");
        let rest = read(&mut stream, expected.len() - 1 - behind).await;
        assert_eq!(words(&rest), &expected[behind + 1..], "behind {}", expected[behind]);
    }
    // While nothing happens there is progress and no more.
    let mut stream = ChangeStream::new(with_images, Place::After(events[8].token().clone()));
    for _ in 0..5 {
        assert!(stream.next().await.expect("a reply").events.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_of_one_transaction_become_stubs_among_the_others() {
    let mongod = Mongod::start().await;
    let docs = docs(&mongod).await;
    for id in [10, 11] {
        docs.insert_one(large(id)).await.expect("insert");
    }
    let start = now(&mongod).await;
    let mut session = mongod.client().start_session().await.expect("session");
    session.start_transaction().await.expect("begin");
    docs.insert_one(doc! { "_id": 1 }).session(&mut session).await.expect("insert");
    docs.update_one(doc! { "_id": 10 }, set(1)).session(&mut session).await.expect("update");
    docs.insert_one(doc! { "_id": 2 }).session(&mut session).await.expect("insert");
    docs.update_one(doc! { "_id": 11 }, set(1)).session(&mut session).await.expect("update");
    docs.insert_one(doc! { "_id": 3 }).session(&mut session).await.expect("insert");
    session.commit_transaction().await.expect("commit");
    docs.insert_one(doc! { "_id": 4 }).await.expect("insert");
    let expected = ["insert 1", "poison update 10", "insert 2", "poison update 11", "insert 3", "insert 4"];
    let options = options(&mongod.uri(), &format!("{WATCH}\n{IMAGES}")).await;
    let events = read_from(&options, start, expected.len()).await;
    assert_eq!(words(&events), expected);
    for behind in 0..expected.len() - 1 {
        let place = Place::After(events[behind].token().clone());
        let rest = read_from(&options, place, expected.len() - 1 - behind).await;
        assert_eq!(words(&rest), &expected[behind + 1..], "behind {}", expected[behind]);
    }
}

/// Where a `match` needs the whole event, the server fails before it can tell whether the event matches.
#[tokio::test(flavor = "multi_thread")]
async fn a_match_that_needs_the_whole_event_does_not_stop_the_stream() {
    let mongod = Mongod::start().await;
    let docs = docs(&mongod).await;
    docs.insert_one(large(10)).await.expect("insert");
    let start = now(&mongod).await;
    docs.insert_one(doc! { "_id": 1 }).await.expect("insert");
    docs.update_one(doc! { "_id": 10 }, set(1)).await.expect("update");
    docs.insert_one(doc! { "_id": 2 }).await.expect("insert");
    let mut options = options(&mongod.uri(), &format!("{WATCH}\n{IMAGES}")).await;
    options.filter = Some(doc! { "$expr": { "$gt": [{ "$bsonSize": "$$ROOT" }, 0] } });
    assert_eq!(words(&read_from(&options, start, 3).await), ["insert 1", "poison update 10", "insert 2"]);
}

/// What a `match` hides is not taken for the event that fails, however much of it there is.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_event_that_fails_becomes_a_stub() {
    let mongod = Mongod::start().await;
    let docs = docs(&mongod).await;
    docs.insert_one(large(10)).await.expect("insert");
    let start = now(&mongod).await;
    docs.insert_one(doc! { "_id": 1 }).await.expect("insert");
    docs.insert_many((100..120).map(|id| doc! { "_id": id, "hidden": true })).await.expect("insert");
    docs.update_one(doc! { "_id": 10 }, set(1)).await.expect("update");
    docs.insert_many((120..130).map(|id| doc! { "_id": id, "hidden": true })).await.expect("insert");
    docs.insert_one(doc! { "_id": 2 }).await.expect("insert");
    let mut options = options(&mongod.uri(), &format!("{WATCH}\n{IMAGES}")).await;
    options.filter = Some(doc! { "$expr": { "$and": [
        { "$gt": [{ "$bsonSize": "$$ROOT" }, 0] }, { "$ne": ["$fullDocument.hidden", true] },
    ] } });
    assert_eq!(words(&read_from(&options, start, 3).await), ["insert 1", "poison update 10", "insert 2"]);
}

/// An image that is required and missing: the event becomes a stub, whatever the `match` says of images, and those with one do not.
#[tokio::test(flavor = "multi_thread")]
async fn one_whose_required_image_is_missing_becomes_a_stub() {
    let mongod = Mongod::start().await;
    let docs = docs(&mongod).await;
    let bare = mongod.client().database("shop").collection::<Document>("bare");
    let images = |on: bool| {
        let command = doc! { "collMod": "docs", "changeStreamPreAndPostImages": { "enabled": on } };
        let shop = mongod.client().database("shop");
        async move { shop.run_command(command).await.expect("collMod") }
    };
    let start = now(&mongod).await;
    docs.insert_one(doc! { "_id": 1, "v": 0 }).await.expect("insert");
    bare.insert_one(doc! { "_id": 2, "v": 0 }).await.expect("insert");
    bare.update_one(doc! { "_id": 2 }, set(1)).await.expect("update");
    docs.update_one(doc! { "_id": 1 }, set(1)).await.expect("update");
    images(false).await;
    docs.update_one(doc! { "_id": 1 }, set(2)).await.expect("update");
    docs.delete_one(doc! { "_id": 1 }).await.expect("delete");
    images(true).await;
    docs.insert_one(doc! { "_id": 3 }).await.expect("insert");

    let all = options(&mongod.uri(), &format!("{WATCH}\nfull_document_before_change = \"required\"")).await;
    let expected =
        ["insert 1", "insert 2", "poison update 2", "update 1", "poison update 1", "poison delete 1", "insert 3"];
    let events = read_from(&all, start.clone(), expected.len()).await;
    assert_eq!(words(&events), expected);
    let reason = events[2].poison().expect("a stub");
    assert!(
        reason.contains("its pre-image is required and was not there") && reason.contains("when_available"),
        "{reason}"
    );

    let mut of_docs = all.clone();
    of_docs.filter = Some(doc! { "ns.coll": "docs" });
    let of_docs = read_from(&of_docs, start.clone(), 5).await;
    assert_eq!(words(&of_docs), ["insert 1", "update 1", "poison update 1", "poison delete 1", "insert 3"]);

    // Which events match is known by their images only: what has none cannot be ruled out.
    let mut by_image = all.clone();
    by_image.filter = Some(doc! { "$or": [{ "fullDocumentBeforeChange.v": 0 }, { "documentKey._id": 3 }] });
    let by_image = read_from(&by_image, start, 5).await;
    assert_eq!(words(&by_image), ["poison update 2", "update 1", "poison update 1", "poison delete 1", "insert 3"]);
}

/// With `update_lookup` an event is as large as its document is when it is read.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_become_smaller_is_read_as_it_is() {
    let mongod = Mongod::start().await;
    let docs = docs(&mongod).await;
    docs.insert_one(large(10)).await.expect("insert");
    let start = now(&mongod).await;
    docs.update_one(doc! { "_id": 10 }, set(1)).await.expect("update");
    let options = options(&mongod.uri(), &format!("{WATCH}\n{IMAGES}")).await;
    // Too large when it is opened, and no longer when it is looked for.
    let mut stream = ChangeStream::open(options, start).await.expect("opens");
    docs.delete_one(doc! { "_id": 10 }).await.expect("delete");
    assert_eq!(words(&read(&mut stream, 2).await), ["update 10", "delete 10"]);
    for id in 20..24 {
        docs.insert_one(doc! { "_id": id }).await.expect("insert");
        assert_eq!(words(&read(&mut stream, 1).await), [format!("insert {id}")]);
        tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("in time").expect("a reply");
    }
}
