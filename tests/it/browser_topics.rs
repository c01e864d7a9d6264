//! A page gets only the topics it asked for, all of those, and each event once.

use std::time::Duration;

use bson::{Document, doc};
use serde_json::Value;

use crate::harness::{Browser, Daemon, Mongod, config, eventually, fixed_port};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn each_stream_gets_its_topics_and_no_other() {
    let (mongod, browser) = tokio::join!(Mongod::start(), Browser::start());
    let folder = tempfile::tempdir().expect("temporary folder");
    let (port, origin) = (fixed_port(), browser.origin());
    let tables = format!(
        "[outputs.page]\nplugin = \"sse\"\n[outputs.page.options]\nlisten = \"127.0.0.1:{port}\"\n\
         cors_origins = [\"{origin}\"]\nretry = \"200ms\"\n\
         topics = [\"{{{{ ns.coll }}}}\", \"user {{{{ fullDocument.user }}}}\"]\n"
    );
    let daemon = Daemon::start(folder.path(), &config(&mongod, &tables)).await;

    let streams = [
        ("orders", "?topic=orders"),
        ("user", "?topic=user+J%C3%BCrgen%20%26%20S%C3%B6hne"),
        ("both", "?topic=carts&topic=user%20anna"),
        ("none", "?topic=nothing"),
        ("all", ""),
    ];
    for (stream, query) in streams {
        browser.open(stream, &format!("http://127.0.0.1:{port}/events{query}"));
    }
    eventually("all are open", DEADLINE, || streams.iter().all(|(stream, _)| browser.times_opened(stream) == 1)).await;

    let shop = mongod.client().database("shop");
    for (number, (collection, user)) in [
        ("orders", "anna"),
        ("carts", "anna"),
        ("carts", "bert"),
        ("orders", "Jürgen & Söhne"),
        ("carts", "Jürgen & Söhne"),
        ("orders", "bert"),
    ]
    .into_iter()
    .enumerate()
    {
        let document = doc! { "_id": number as i32, "user": user };
        shop.collection::<Document>(collection).insert_one(document).await.expect("insert");
    }
    // Streams of one daemon are independent of each other: what they get is waited for, and that nothing else was sent is counted.
    let expected = [("orders", vec![0, 3, 5]), ("user", vec![3, 4]), ("both", vec![0, 1, 2, 4]), ("none", vec![])];
    let expected = || expected.iter().cloned().chain([("all", (0..6).collect())]);
    let numbers = |stream: &str| -> Vec<i64> {
        let number = |event: &Value| event["documentKey"]["_id"].as_i64().expect("a number");
        browser.events(stream).iter().map(number).collect()
    };
    eventually("each has as many as it should", DEADLINE, || {
        expected().all(|(stream, expected)| numbers(stream).len() >= expected.len())
    })
    .await;
    let sent: usize = expected().map(|(_, expected)| expected.len()).sum();
    assert_eq!(daemon.metric("tailwater_plugin_sse_events_total", &[("output", "page")]), Some(sent as f64));
    for (stream, expected) in expected() {
        assert_eq!(numbers(stream), expected, "{stream}");
        assert!(browser.ends(stream).is_empty(), "{stream}");
    }
}
