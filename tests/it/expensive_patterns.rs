//! A regular expression that would take for ever on a text costs that one event's answer: it is counted and said, the others are
//! delivered, and the server never gets to see the pattern.

use std::time::Duration;

use bson::{Document, doc};

use crate::harness::{Daemon, Lines, Mongod, config_of, eventually};

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_that_takes_too_long_is_given_up_and_counted() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let output = "[outputs.lines]\nplugin = \"stdout\"\nmatch = { \"fullDocument.text\" = { \"$regex\" = \"^(a+)+b?$\" } }\n\
                  [outputs.lines.options]\npath = \"lines.jsonl\"\n";
    let config = config_of(&mongod.uri(), "watch = [\"shop.*\"]", &output.replace("lines.jsonl", &path(&folder)));
    let daemon = Daemon::start(folder.path(), &config).await;
    let texts = mongod.client().database("shop").collection::<Document>("texts");
    let expensive = format!("{}!", "a".repeat(60));
    for text in ["aaa", &expensive, "ccc", "ab"] {
        texts.insert_one(doc! { "text": text }).await.expect("insert");
    }
    let lines = Lines::new(folder.path().join("lines.jsonl"));
    eventually("the others are delivered", DEADLINE, || lines.events().len() == 2).await;
    let given_up = || daemon.metric("tailwater_output_patterns_given_up_total", &[("output", "lines")]);
    eventually("the one is counted", DEADLINE, || given_up() == Some(1.0)).await;
    assert!(daemon.has_logged(&["lines", "a regular expression of match would take too long"]), "{:?}", daemon.log());
    let read = daemon.metric("tailwater_source_events_total", &[]);
    assert_eq!(read, Some(4.0), "nothing is left to the server");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

fn path(folder: &tempfile::TempDir) -> String {
    folder.path().join("lines.jsonl").to_string_lossy().into_owned()
}
