//! What the server itself knows of change streams, and the clock by which it orders events.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::ClusterTime;
use tokio::sync::watch;

use super::Mongod;

/// The server needs a moment to end a read that is waiting for events, when its cursor was given up.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// The pipelines of the change streams that are open on the server, by cursor; one that is just being opened has no cursor yet,
/// and its operation's number instead.
pub async fn open_change_streams(mongod: &Mongod) -> BTreeMap<i64, Vec<Document>> {
    let look = doc! { "$currentOp": { "allUsers": true, "idleCursors": true } };
    let admin = mongod.client().database("admin");
    let operations = admin.aggregate([look]).await.expect("$currentOp").try_collect::<Vec<_>>().await;
    operations.expect("read $currentOp").iter().filter_map(change_stream).collect()
}

fn change_stream(operation: &Document) -> Option<(i64, Vec<Document>)> {
    let cursor = operation.get_document("cursor").ok();
    let command = match cursor {
        Some(cursor) => cursor.get_document("originatingCommand"),
        None => operation.get_document("command"),
    };
    let stages = command.ok()?.get_array("pipeline").ok()?.iter().filter_map(|stage| stage.as_document().cloned());
    let pipeline: Vec<Document> = stages.collect();
    pipeline.first()?.get_document("$changeStream").ok()?;
    let number = |id: &bson::Bson| id.as_i64().or(id.as_i32().map(i64::from));
    let id = cursor.and_then(|cursor| cursor.get("cursorId")).or_else(|| operation.get("opid"));
    Some((id.and_then(number)?, pipeline))
}

/// Looks at the server until told to stop: the most change streams that it had all the time for [`LINGER_MAX`].
pub async fn most_change_streams(mongod: &Mongod, mut stop: watch::Receiver<bool>) -> usize {
    let (mut most, mut looks) = (0, VecDeque::new());
    while !*stop.borrow_and_update() {
        let now = Instant::now();
        looks.push_back((now, open_change_streams(mongod).await.len()));
        // As many as go back just so far.
        while looks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= LINGER_MAX) {
            looks.pop_front();
        }
        if looks.front().is_some_and(|(at, _)| now.duration_since(*at) >= LINGER_MAX) {
            most = most.max(looks.iter().map(|(_, count)| *count).min().unwrap_or(0));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    most
}

/// Waits until a change stream is open whose last stage is a `$match` with `query`, beside the invalidate event that every stream
/// lets through.
pub async fn wait_for_change_stream(mongod: &Mongod, query: &Document, deadline: Duration) {
    let wanted = doc! { "$match": { "$or": [ { "operationType": "invalidate" }, query.clone() ] } };
    let started = Instant::now();
    loop {
        let open = open_change_streams(mongod).await;
        if open.values().any(|pipeline| pipeline.last() == Some(&wanted)) {
            return;
        }
        assert!(
            started.elapsed() < deadline,
            "not within {deadline:?}: a change stream with {wanted}; open: {open:#?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The cluster time now.
pub async fn cluster_time(mongod: &Mongod) -> bson::Timestamp {
    let reply = mongod.client().database("admin").run_command(doc! { "ping": 1 }).await.expect("ping");
    reply.get_timestamp("operationTime").expect("operationTime")
}

/// Puts the cluster time forward, so that what is written next comes that much later: the server takes it from any client that it
/// need not authenticate, as it takes it from other members. Gives back the time that the next write will be behind.
pub async fn put_cluster_time_forward(mongod: &Mongod, by: Duration) -> bson::Timestamp {
    let before = cluster_time(mongod).await;
    let time = bson::Timestamp { time: before.time + by.as_secs() as u32, increment: 0 };
    let hash = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0; 20] };
    let signed = doc! { "clusterTime": time, "signature": { "hash": hash, "keyId": 0_i64 } };
    let mut session = mongod.client().start_session().await.expect("a session");
    let later: ClusterTime = bson::deserialize_from_document(signed).expect("a cluster time");
    session.advance_cluster_time(&later);
    // A write moves the server's clock past it for everyone.
    let clock = mongod.client().database("elsewhere").collection::<Document>("clock");
    clock.insert_one(doc! { "by": by.as_secs() as i64 }).session(&mut session).await.expect("insert");
    let after = cluster_time(mongod).await;
    assert!(after.time >= time.time, "the cluster time went from {before} to {after}");
    after
}
