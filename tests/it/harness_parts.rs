//! The parts that fault tests stand on do what they say: a set of three elects, a proxy cuts, freezes, thaws and refuses.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;

use crate::harness::{Daemon, Mongod, Proxy, ReplicaSet, config, eventually};

/// Far more than any answer takes that comes at all.
const SILENCE: Duration = Duration::from_millis(500);

async fn ping(client: &Client) -> mongodb::error::Result<Document> {
    client.database("admin").run_command(doc! { "ping": 1 }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_three_elects_after_a_stepdown_and_after_a_kill() {
    let mut set = ReplicaSet::start().await;
    let orders = set.client().database("shop").collection::<Document>("orders");
    orders.insert_one(doc! { "_id": 1 }).await.expect("insert");
    let first = set.primary().await;
    let second = set.step_down().await;
    assert_ne!(first, second);
    orders.insert_one(doc! { "_id": 2 }).await.expect("insert");
    set.kill9(second);
    let third = set.primary().await;
    assert_ne!(third, second);
    orders.insert_one(doc! { "_id": 3 }).await.expect("insert");
    set.start_again(second).await;
    set.wait_until_ready().await;
    let found = orders.count_documents(doc! {}).await.expect("count");
    assert_eq!(found, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_behind_proxies_survives_a_cut_of_all_connections() {
    let set = ReplicaSet::start_behind_proxies().await;
    let orders = set.client().database("shop").collection::<Document>("orders");
    for id in 0..3 {
        orders.insert_one(doc! { "_id": id }).await.expect("insert");
        for index in 0..3 {
            set.proxy(index).cut();
        }
        set.wait_until_ready().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_freezes_thaws_cuts_and_refuses() {
    let mongod = Mongod::start().await;
    let proxy = Proxy::start(mongod.port()).await;
    let uri = format!("{}&serverSelectionTimeoutMS=2000&retryReads=false", proxy.uri());
    let client = Client::with_uri_str(&uri).await.expect("client");
    ping(&client).await.expect("through the proxy");

    proxy.freeze();
    let mut waiting = Box::pin(ping(&client));
    assert!(tokio::time::timeout(SILENCE, &mut waiting).await.is_err(), "nothing passes");
    proxy.thaw();
    waiting.await.expect("what was held passes");

    proxy.freeze();
    let mut waiting = Box::pin(ping(&client));
    assert!(tokio::time::timeout(SILENCE, &mut waiting).await.is_err(), "nothing passes");
    proxy.cut();
    waiting.await.expect_err("a frozen connection can be cut");
    proxy.thaw();
    ping(&client).await.expect("a new connection");

    proxy.refuse();
    proxy.cut();
    let fresh = Client::with_uri_str(&uri).await.expect("client");
    ping(&fresh).await.expect_err("refused");
    proxy.allow();
    ping(&fresh).await.expect("served again");
    assert!(proxy.accepted() > 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_daemon_says_nothing_and_goes_on_later() {
    let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
    let output = "[outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";
    let mut daemon = Daemon::start(folder.path(), &config(&mongod, output)).await;
    daemon.pause();
    assert!(daemon.get("/healthz").is_none(), "nothing is answered");
    assert!(daemon.is_running());
    daemon.resume();
    let healthy = || daemon.get("/healthz").is_some_and(|answer| answer.status == 200);
    eventually("it goes on", Duration::from_secs(30), healthy).await;
}
