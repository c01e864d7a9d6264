//! An operator pauses and resumes outputs, over restarts too, and looks at and moves their checkpoints, with and without a running
//! daemon; a web page cannot.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use serde_json::Value;

use crate::harness::daemon::command;
use crate::harness::lines::id;
use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(30);

const STORES: [&str; 2] = ["", "[checkpoint]\nstore = \"file\"\npath = \"state\"\n"];

fn text(mongod: &Mongod, store: &str) -> String {
    let output =
        |name: &str| format!("[outputs.{name}]\nplugin = \"stdout\"\noptions = {{ path = \"{name}.jsonl\" }}\n");
    config(mongod, &format!("{store}{}{}", output("one"), output("two")))
}

fn orders(mongod: &Mongod) -> Collection<Document> {
    mongod.client().database("shop").collection("orders")
}

async fn insert(mongod: &Mongod, ids: std::ops::Range<i64>) {
    orders(mongod).insert_many(ids.map(|id| doc! { "_id": id })).await.expect("insert");
}

fn keys(folder: &Path, output: &str) -> Vec<i64> {
    let lines = Lines::new(folder.join(format!("{output}.jsonl")));
    lines.events().iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect()
}

async fn until(folder: &Path, output: &str, expected: impl IntoIterator<Item = i64>) {
    let expected: Vec<i64> = expected.into_iter().collect();
    eventually(&format!("output {output} has {expected:?}"), DEADLINE, || keys(folder, output).len() >= expected.len())
        .await;
    assert_eq!(keys(folder, output), expected, "output {output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_output_waits_over_a_restart_and_goes_on_where_it_was() {
    for store in STORES {
        let mongod = Mongod::start().await;
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path();
        let daemon = Daemon::start(path, &text(&mongod, store)).await;
        insert(&mongod, 0..5).await;
        until(path, "one", 0..5).await;
        assert_eq!(daemon.told(&["output", "pause", "one"]), "one: paused_by_operator\n");
        assert_eq!(daemon.status_of("one")["state"], "paused_by_operator");
        insert(&mongod, 5..10).await;
        until(path, "two", 0..10).await;
        assert_eq!(keys(path, "one").len(), 5, "it delivers nothing while it is paused");
        let again = daemon.told(&["output", "pause", "one"]);
        assert_eq!(again, "one: paused_by_operator\n", "a second time changes nothing");

        daemon.terminate_and_wait(DEADLINE).await;
        let daemon = Daemon::start(path, &text(&mongod, store)).await;
        insert(&mongod, 10..12).await;
        until(path, "two", 0..12).await;
        assert_eq!(keys(path, "one").len(), 5, "still paused after a restart");
        assert!(
            daemon.told(&["checkpoint", "list"]).lines().any(|line| line.contains("one") && line.contains("paused"))
        );

        assert_eq!(daemon.told(&["output", "resume", "one"]), "one: running\n");
        until(path, "one", 0..12).await;
        let refused = daemon.refused(&["output", "resume", "one"]);
        assert!(refused.contains("output one is neither paused nor stopped"), "{refused}");
        let refused = daemon.refused(&["output", "pause", "three"]);
        assert!(refused.contains("no output three is configured and enabled; there are one, two"), "{refused}");
        daemon.terminate_and_wait(DEADLINE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_moved_while_its_output_is_paused() {
    for store in STORES {
        let mongod = Mongod::start().await;
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path();
        let daemon = Daemon::start(path, &text(&mongod, store)).await;
        insert(&mongod, 0..6).await;
        until(path, "one", 0..6).await;
        let ids: Vec<String> = Lines::new(path.join("one.jsonl")).events().iter().map(id).collect();

        let refused = daemon.refused(&["checkpoint", "set", "one", &ids[3]]);
        assert!(refused.contains("output one is at work, run: tailwater output pause one"), "{refused}");
        daemon.told(&["output", "pause", "one"]);
        for (wrong, reason) in [
            ("yesterday", "\"yesterday\" is not a place, write a time such as"),
            ("2090-01-01T00:00:00Z", "ahead of the deployment's cluster time"),
            ("1971-01-01T00:00:00Z", ""),
        ] {
            let answer = daemon.ask(&["checkpoint", "set", "one", wrong]);
            let said = String::from_utf8_lossy(&answer.stderr);
            // A young oplog holds all there ever was, so a time long ago is fine.
            assert!(reason.is_empty() || (!answer.status.success() && said.contains(reason)), "{wrong}: {said}");
        }
        daemon.told(&["checkpoint", "set", "one", &ids[3]]);
        daemon.told(&["output", "resume", "one"]);
        until(path, "one", (0..6).chain(4..6)).await;

        // Forgotten, it is resumed all the same, and begins at `source.start`.
        until(path, "two", 0..6).await;
        daemon.told(&["output", "pause", "two"]);
        daemon.told(&["checkpoint", "reset", "two"]);
        assert_eq!(daemon.told(&["output", "resume", "two"]), "two: running\n");

        // Without a daemon, by the same command.
        daemon.terminate_and_wait(DEADLINE).await;
        let offline = |arguments: &[&str]| {
            let output = command(path, &[arguments, &["--config", "config.toml"]].concat());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{arguments:?}: {said}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let listed: Value = serde_json::from_str(&offline(&["checkpoint", "list", "--json"])).expect("JSON");
        assert_eq!(listed["checkpoints"].as_array().map(Vec::len), Some(2), "{listed}");
        offline(&["checkpoint", "set", "one", &ids[1]]);
        offline(&["checkpoint", "reset", "two"]);
        let daemon = Daemon::start(path, &text(&mongod, store)).await;
        until(path, "one", (0..6).chain(4..6).chain(2..6)).await;
        insert(&mongod, 6..7).await;
        until(path, "two", 0..7).await;
        daemon.terminate_and_wait(DEADLINE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_cannot_operate_the_daemon() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let daemon = Daemon::start(folder.path(), &text(&mongod, "")).await;
    let address = daemon.url().trim_start_matches("http://").to_owned();
    let status = |host: &str, headers: &str| {
        let mut stream = TcpStream::connect(&address).expect("connect");
        let body = "{}";
        write!(
            stream,
            "POST /api/outputs/one/pause HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 2\r\n{headers}\r\n{body}"
        )
        .expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        answer.split(' ').nth(1).expect("a status").to_owned()
    };
    let json = "Content-Type: application/json\r\n";
    assert_eq!(status(&address, &format!("{json}Origin: http://evil.example\r\n")), "403", "another page");
    assert_eq!(status("evil.example:8081", json), "403", "a name that leads here");
    assert_eq!(status(&address, "Content-Type: text/plain\r\n"), "415", "a form");
    assert_eq!(daemon.status_of("one")["state"], "live");
    assert_eq!(status(&address, json), "200");
    assert_eq!(daemon.status_of("one")["state"], "paused_by_operator");
}
