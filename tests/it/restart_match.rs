//! A `match` that was changed over a restart, and one on `fullDocument` whose answer has changed meanwhile (`update_lookup`):
//! the event of the checkpoint no longer matches, which makes the server refuse its token with 280. Nothing is missing.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::change_stream::event::ResumeToken;
use mongodb::options::FullDocumentType;
use tempfile::TempDir;

use crate::harness::{Daemon, Lines, Mongod, config_of, eventually};

const DEADLINE: Duration = Duration::from_secs(30);
/// ChangeStreamFatalError: "cannot resume stream; the resume token was not found".
const TOKEN_NOT_FOUND: i32 = 280;

fn text(mongod: &Mongod, query: &str) -> String {
    let source = "watch = [\"shop.*\"]\nfull_document = \"update_lookup\"";
    let tables = format!(
        "[checkpoint]\ninterval = \"50ms\"\n\
         [outputs.some]\nplugin = \"stdout\"\nmatch = {query}\noptions = {{ path = \"some.jsonl\" }}\n"
    );
    config_of(&mongod.uri(), source, &tables)
}

fn lines(folder: &TempDir) -> Lines {
    Lines::new(folder.path().join("some.jsonl"))
}

fn keys(lines: &Lines) -> Vec<i64> {
    lines.events().iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect()
}

/// Puts the checkpoint on the newest event itself: where the daemon had written it if it had been killed just then. Gives the
/// token of that event back.
async fn checkpoint_at_the_newest_event(mongod: &Mongod, since: bson::Timestamp) -> ResumeToken {
    let mut stream = mongod
        .client()
        .database("shop")
        .watch()
        .start_at_operation_time(since)
        .await
        .expect("a stream of the test's own");
    let mut token = None;
    while let Some(event) = stream.next_if_any().await.expect("read the stream") {
        token = Some(event.id);
    }
    let token = token.expect("an event");
    let raw: RawDocumentBuf = bson::serialize_to_raw_document_buf(&token).expect("a token document");
    let checkpoints = mongod.client().database("tailwater").collection::<Document>("checkpoints");
    let place = doc! { "$set": { "place": { "after": Document::try_from(raw).expect("a document") } } };
    let changed = checkpoints.update_one(doc! { "_id.output": "some" }, place).await.expect("write the checkpoint");
    assert_eq!(changed.matched_count, 1, "the daemon had a checkpoint");
    token
}

async fn cluster_time(mongod: &Mongod) -> bson::Timestamp {
    let reply = mongod.client().database("admin").run_command(doc! { "ping": 1 }).await.expect("ping");
    reply.get_timestamp("operationTime").expect("operationTime")
}

/// The server's own word that this token cannot be used with this `$match`: without it the tests here would prove nothing.
async fn server_refuses(mongod: &Mongod, token: ResumeToken, query: Document) {
    let database = mongod.client().database("shop");
    let watch = database.watch().pipeline([doc! { "$match": query }]).full_document(FullDocumentType::UpdateLookup);
    let first = async {
        match watch.start_after(token).await {
            Err(error) => Err(error),
            Ok(mut stream) => stream.try_next().await,
        }
    };
    let first = tokio::time::timeout(DEADLINE, first).await.expect("an answer");
    let error = first.expect_err("the server must refuse this token");
    let mongodb::error::ErrorKind::Command(command) = error.kind.as_ref() else { panic!("{error}") };
    assert_eq!(command.code, TOKEN_NOT_FOUND, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_match_misses_nothing() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let lines = lines(&folder);
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    let since = cluster_time(&mongod).await;
    let document = |id: i64| doc! { "_id": id, "color": if id % 2 == 0 { "blue" } else { "red" } };

    let daemon = Daemon::start(folder.path(), &text(&mongod, "{ \"fullDocument.color\" = \"red\" }")).await;
    // The newest event is a red one.
    orders.insert_many((0..100).map(document)).await.expect("insert");
    eventually("50 red ones", DEADLINE, || lines.events().len() == 50).await;
    daemon.kill9();
    let token = checkpoint_at_the_newest_event(&mongod, since).await;
    orders.insert_many((100..200).map(document)).await.expect("insert");
    server_refuses(&mongod, token, doc! { "fullDocument.color": "blue" }).await;

    let daemon = Daemon::start(folder.path(), &text(&mongod, "{ \"fullDocument.color\" = \"blue\" }")).await;
    orders.insert_many((200..300).map(document)).await.expect("insert");
    eventually("100 blue ones", DEADLINE, || lines.events().len() >= 150).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    let red = (0..100).filter(|id| id % 2 == 1);
    let blue = (100..300).filter(|id| id % 2 == 0);
    assert_eq!(keys(&lines), red.chain(blue).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_on_a_document_that_was_closed_meanwhile_misses_nothing() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let lines = lines(&folder);
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    let since = cluster_time(&mongod).await;
    let text = text(&mongod, "{ operationType = \"update\", \"fullDocument.status\" = \"open\" }");
    orders.insert_many((0..30).map(|id: i64| doc! { "_id": id, "status": "open" })).await.expect("insert");
    let touch = async |id: i64| {
        let change = orders.update_one(doc! { "_id": id }, doc! { "$set": { "touched": Bson::Boolean(true) } }).await;
        assert_eq!(change.expect("update").modified_count, 1);
    };

    let daemon = Daemon::start(folder.path(), &text).await;
    for id in 0..10 {
        touch(id).await;
    }
    eventually("ten updates", DEADLINE, || lines.events().len() == 10).await;
    daemon.kill9();
    let token = checkpoint_at_the_newest_event(&mongod, since).await;
    // Looked up from now on, the event of the checkpoint shows a closed document.
    let close = orders.update_one(doc! { "_id": 9 }, doc! { "$set": { "status": "closed" } }).await.expect("update");
    assert_eq!(close.modified_count, 1);
    for id in 10..20 {
        touch(id).await;
    }
    server_refuses(&mongod, token, doc! { "operationType": "update", "fullDocument.status": "open" }).await;

    let daemon = Daemon::start(folder.path(), &text).await;
    for id in 20..30 {
        touch(id).await;
    }
    eventually("thirty updates", DEADLINE, || lines.events().len() >= 30).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    assert_eq!(keys(&lines), (0..30).collect::<Vec<_>>());
}
