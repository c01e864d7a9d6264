//! A page for which there is no place is not sent away for good: its browser comes back until there is one.

use std::time::Duration;

use bson::{Document, doc};

use crate::harness::{Browser, Daemon, Mongod, config, eventually, fixed_port};

const DEADLINE: Duration = Duration::from_secs(30);

/// The `readyState` of a stream that the browser will open again.
const CONNECTING: u16 = 0;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_too_many_comes_back_until_another_is_closed() {
    let (mongod, browser) = tokio::join!(Mongod::start(), Browser::start());
    let folder = tempfile::tempdir().expect("temporary folder");
    let (port, origin) = (fixed_port(), browser.origin());
    let tables = format!(
        "[outputs.page]\nplugin = \"sse\"\n[outputs.page.options]\nlisten = \"127.0.0.1:{port}\"\n\
         cors_origins = [\"{origin}\"]\nretry = \"200ms\"\nclients_max = 1\n"
    );
    let daemon = Daemon::start(folder.path(), &config(&mongod, &tables)).await;
    let metric = |name: &str| daemon.metric(name, &[("output", "page")]);
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    let url = format!("http://127.0.0.1:{port}/events");

    browser.open("first", &url);
    eventually("the first is in", DEADLINE, || browser.times_opened("first") == 1).await;
    browser.open("second", &url);
    eventually("the second has tried three times", DEADLINE, || browser.ends("second").len() >= 3).await;
    orders.insert_one(doc! { "_id": 1 }).await.expect("insert");
    eventually("the first has the event", DEADLINE, || browser.events("first").len() == 1).await;
    assert_eq!(metric("tailwater_plugin_sse_connections_total"), Some(1.0));
    assert!(metric("tailwater_plugin_sse_refused_total") >= Some(3.0));

    browser.close("first");
    eventually("the second is in", DEADLINE, || metric("tailwater_plugin_sse_connections_total") == Some(2.0)).await;
    orders.insert_one(doc! { "_id": 2 }).await.expect("insert");
    eventually("the second has an event", DEADLINE, || !browser.events("second").is_empty()).await;
    let of = |stream: &str| {
        browser.events(stream).iter().map(|event| event["documentKey"]["_id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((of("first"), of("second")), (vec![1.into()], vec![2.into()]));
    assert!(browser.ends("second").iter().all(|state| *state == CONNECTING), "never given up");
    assert!(browser.ends("first").is_empty(), "never interrupted");
}
