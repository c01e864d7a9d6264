//! `tailwater dead-letters` without a daemon works on the store itself, with one it asks the daemon, and it says what is wrong where
//! neither can be had.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bson::doc;
use serde_json::{Value, json};
use tailwater::dead_letters::config::{Config, Place};
use tailwater::dead_letters::metrics::DeadLetterMetrics;
use tailwater::dead_letters::{Letter, Store};

use crate::dead_letter_store::{key, letter, settings};
use crate::harness::{Mongod, config, config_of, eventually};

const OUTPUT: &str = "[outputs.hooks]\nplugin = \"stdout\"\n";

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater"));
    command.arg("dead-letters").args(arguments).current_dir(folder).stdin(Stdio::null());
    command.output().expect("run tailwater dead-letters")
}

/// Standard output of a command that succeeds.
fn said(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The exit code and standard error of one that fails.
fn refused(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = run(folder, arguments);
    (output.status.code().expect("a code"), String::from_utf8(output.stderr).expect("UTF-8"))
}

fn some() -> Vec<Letter> {
    let letters = [("hooks", 3), ("hooks", 1), ("live", 2), ("live", 1)];
    letters.map(|(output, n)| letter(output, n, doc! { "_id": n, "name": "chair" })).into()
}

/// The same for both stores: list, show, drop.
fn without_a_daemon(folder: &Path, letters: &[Letter]) {
    let names: Vec<String> = letters.iter().map(|letter| key(letter).to_string()).collect();
    let listed = said(folder, &["list", "--config", "config.toml", "--json"]);
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let order: Vec<&str> = listed.iter().map(|letter| letter["letter"].as_str().expect("letter")).collect();
    assert_eq!(order, [1, 3, 2, 0].map(|at: usize| names[at].as_str()));
    assert_eq!((&listed[0]["kind"], &listed[0]["document_key"]), (&json!("rejected"), &json!({ "_id": 1 })));

    let table = said(folder, &["list", "--config", "config.toml", "--output", "hooks", "--limit", "1"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(lines[1].contains(&names[1]) && lines[1].ends_with("410 of 1"), "{table}");

    let shown = said(folder, &["show", &names[0], "--config", "config.toml"]);
    assert!(shown.contains("replay        possible\n") && shown.contains("\"name\": \"chair\""), "{shown}");
    let shown: Value =
        serde_json::from_str(&said(folder, &["show", &names[0], "--config", "config.toml", "--json"])).expect("JSON");
    assert_eq!(shown["event"]["fullDocument"], json!({ "_id": 3, "name": "chair" }));
    let id = names[0].split_once('/').expect("OUTPUT/ID").1;
    let (code, error) = refused(folder, &["show", &format!("live/{id}"), "--config", "config.toml"]);
    assert!(code == 1 && error.contains("there is no dead letter live/"), "{error}");

    let (code, error) = refused(folder, &["drop", "--config", "config.toml", "live"]);
    assert!(code == 64 && error.contains("add --yes"), "{error}");
    let (code, error) = refused(folder, &["drop", "--config", "config.toml", "--yes"]);
    assert!(code == 64 && error.contains("nothing is chosen"), "{error}");
    let event = names[1].split_once('/').expect("OUTPUT/ID").1;
    assert_eq!(said(folder, &["drop", event, "--config", "config.toml", "--yes"]), "dropped 2\n");
    assert_eq!(said(folder, &["drop", "hooks", "--config", "config.toml", "--yes"]), "dropped 1\n");
    assert_eq!(said(folder, &["drop", "--all", "--config", "config.toml", "--yes"]), "dropped 1\n");
    assert_eq!(said(folder, &["list", "--config", "config.toml"]), "");
    let (code, error) = refused(folder, &["replay", "--all", "--config", "config.toml"]);
    assert!(code == 64 && error.contains("a replay needs the running daemon"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_in_mongodb_are_listed_shown_and_dropped_without_a_daemon() {
    let (mongod, folder) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"));
    std::fs::write(folder.path().join("config.toml"), config(&mongod, OUTPUT)).expect("write config.toml");
    let kept = settings(1 << 30, Duration::from_secs(3600));
    let store = Store::open(&kept, "default", mongod.client(), DeadLetterMetrics::default()).await.expect("open");
    store.put(&some()).await.expect("put");
    // As they were: this config says 30 days.
    let stored = mongod.client().database("tailwater").collection::<bson::Document>("dead_letters");
    said(folder.path(), &["list", "--config", "config.toml"]);
    assert_eq!(stored.count_documents(doc! { "expireAfterMs": 3_600_000 }).await.expect("count"), 4);
    without_a_daemon(folder.path(), &some());
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_have_expired_on_a_full_disk_do_not_hide_the_others() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let keys = "expire_after = \"1s\"";
    let tables = format!("[dead_letters]\nstore = \"file\"\npath = \"letters\"\n{keys}\n{OUTPUT}");
    let text = config_of("mongodb://127.0.0.1:1/?replicaSet=rs0", "watch = [\"*\"]", &tables);
    std::fs::write(folder.path().join("config.toml"), text).expect("write config.toml");
    let place = Place::File { path: folder.path().join("letters") };
    let kept = Config { place, ..settings(1 << 30, Duration::from_secs(3600)) };
    let store = Store::open_file(&kept, "default", DeadLetterMetrics::default()).await.expect("open");
    store.put(&some()).await.expect("put");
    let put = std::time::SystemTime::now();
    drop(store);
    eventually("they have expired", Duration::from_secs(60), || {
        put.elapsed().is_ok_and(|age| age > Duration::from_secs(1))
    })
    .await;
    // No file may become longer.
    let list = format!("trap '' XFSZ; ulimit -f 0; exec {} dead-letters list", env!("CARGO_BIN_EXE_tailwater"));
    let mut command = Command::new("sh");
    command.args(["-c", &list]).current_dir(folder.path()).stdin(Stdio::null());
    let output = command.output().expect("run sh");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.lines().count() == 5, "{out}{error}");
    // With room again they go.
    assert_eq!(said(folder.path(), &["list", "--config", "config.toml"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_in_files_are_listed_shown_and_dropped_unless_a_daemon_has_them() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let tables = format!("[dead_letters]\nstore = \"file\"\npath = \"letters\"\n{OUTPUT}");
    // No server is needed for them.
    let text = config_of("mongodb://127.0.0.1:1/?replicaSet=rs0", "watch = [\"*\"]", &tables);
    std::fs::write(folder.path().join("config.toml"), text).expect("write config.toml");
    let place = Place::File { path: folder.path().join("letters") };
    let kept = Config { place, ..settings(1 << 30, Duration::from_secs(3600)) };
    let store = Store::open_file(&kept, "default", DeadLetterMetrics::default()).await.expect("open");
    store.put(&some()).await.expect("put");
    let (code, error) = refused(folder.path(), &["list", "--config", "config.toml"]);
    assert!(code == 1 && error.contains("in use by another tailwater") && error.contains("--admin"), "{error}");
    drop(store);
    without_a_daemon(folder.path(), &some());
}

#[test]
fn a_replay_is_asked_of_the_daemon_and_watched_to_its_end() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let answers = [
        json!({ "job": 4, "matched": 12, "stubs": 2 }),
        json!({ "done": false, "acked": 3, "rejected": 0, "left": 7 }),
        json!({ "done": true, "acked": 9, "rejected": 1, "left": 0 }),
    ];
    let daemon = std::thread::spawn(move || (answers.map(|answer| answer_one(&listener, &answer)), listener));
    let output = run(folder.path(), &["replay", "hooks", "--admin", &url]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "replayed 10 of 10 (1 rejected again)\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("2 of 12 are kept only as stubs"));
    let (asked, listener) = daemon.join().expect("the daemon's side");
    assert!(asked[0].starts_with("POST /api/dead-letters/replay "), "{}", asked[0]);
    assert!(asked[0].ends_with("{\"all\":false,\"outputs\":[\"hooks\"]}"), "{}", asked[0]);
    assert!(asked[2].starts_with("GET /api/dead-letters/replay/4 "), "{}", asked[2]);

    // One that did not get to its end, and one that did not reach all.
    let stopped = "output hooks was ended or has stopped before all were done";
    let table = [
        (
            vec![
                json!({ "job": 5, "matched": 12, "stubs": 2, "unreachable": 0 }),
                json!({ "done": true, "acked": 3, "rejected": 0, "left": 7, "error": stopped }),
            ],
            "replayed 3 of 10 (0 rejected again)\n",
            format!("the replay ended with 7 left ({stopped})"),
        ),
        (
            vec![
                json!({ "job": 6, "matched": 12, "stubs": 2, "unreachable": 4 }),
                json!({ "done": true, "acked": 6, "rejected": 0, "left": 0, "error": null }),
            ],
            "replayed 6 of 6 (0 rejected again)\n",
            "4 dead letters stay: their outputs are not at work".to_owned(),
        ),
        (
            vec![json!({ "job": 7, "matched": 4, "stubs": 0, "unreachable": 4 })],
            "nothing to replay\n",
            "4 dead letters stay: their outputs are not at work".to_owned(),
        ),
    ];
    for (answers, said, why) in table {
        let output = std::thread::scope(|scope| {
            scope.spawn(|| answers.iter().for_each(|answer| drop(answer_one(&listener, answer))));
            run(folder.path(), &["replay", "--all", "--admin", &url])
        });
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), said);
        assert!(String::from_utf8_lossy(&output.stderr).contains(&why), "{output:?}");
    }
    drop(listener);

    // Now nobody listens there.
    for arguments in [&["replay", "--all", "--admin", &url][..], &["list", "--admin", &url]] {
        let (code, error) = refused(folder.path(), arguments);
        assert!(code == 1 && error.contains(&format!("no tailwater answers at {url}: is it running?")), "{error}");
    }
}

/// Takes one request, answers it, and gives it back.
fn answer_one(listener: &TcpListener, answer: &Value) -> String {
    let (mut stream, _) = listener.accept().expect("accept");
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).expect("read");
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if read == 0 || body.len() >= length.map_or(0, |length| length.parse().expect("a length")) {
            let body = answer.to_string();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).expect("answer");
            return text;
        }
    }
}
