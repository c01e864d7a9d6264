//! Time series collections and views have no change events: named in `watch` they are refused at the start, with a clear word.

use std::time::Duration;

use bson::{Document, doc};

use crate::harness::{Daemon, Mongod, config_of, eventually};

const END_MAX: Duration = Duration::from_secs(25);
const OUTPUT: &str = "[outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";

/// The daemon ends with one line that contains all of `words`.
async fn refused(mongod: &Mongod, watch: &str, words: &[&str]) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut daemon = Daemon::spawn(folder.path(), &config_of(&mongod.uri(), &format!("watch = {watch}"), OUTPUT));
    let status = daemon.wait_until_ended(END_MAX).await;
    assert_eq!(status.code(), Some(1), "{watch}: {status}");
    let errors = || -> Vec<String> { daemon.log().into_iter().filter(|line| line.contains(" ERROR ")).collect() };
    eventually("an error in the log", END_MAX, || !errors().is_empty()).await;
    let errors = errors();
    assert_eq!(errors.len(), 1, "one line: {errors:?}");
    for word in words {
        assert!(errors[0].contains(word), "{word:?} is missing: {}", errors[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn time_series_and_views_are_refused_where_they_are_named() {
    let mongod = Mongod::start().await;
    let shop = mongod.client().database("shop");
    shop.collection::<Document>("orders").insert_one(doc! { "_id": 1 }).await.expect("insert");
    for create in [
        doc! { "create": "weather", "timeseries": { "timeField": "at" } },
        doc! { "create": "open", "viewOn": "orders", "pipeline": [] },
    ] {
        shop.run_command(create).await.expect("create");
    }
    let words = ["watch shop.weather: it is a time series collection", "take it out of source.watch"];
    refused(&mongod, "[\"shop.orders\", \"shop.weather\"]", &words).await;
    let words = ["watch shop.open: it is a view", "watch the collection behind it"];
    refused(&mongod, "[\"crm.people\", \"shop.open\"]", &words).await;

    // Collections, also those that are not there yet, and whole databases are fine.
    for watch in ["[\"shop.orders\", \"shop.later\"]", "[\"shop.*\"]", "[\"*\"]"] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let daemon = Daemon::start(folder.path(), &config_of(&mongod.uri(), &format!("watch = {watch}"), OUTPUT)).await;
        assert!(daemon.terminate_and_wait(END_MAX).await.success());
    }
}
