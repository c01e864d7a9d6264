//! The server goes away and comes back, or kills the cursor: delivery goes on by itself, nothing is missing, in order per
//! document.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::Client;

use crate::harness::{Daemon, Lines, Mongod, Proxy, TEST_COMMANDS, config, config_of, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
const OUTPUT: &str = "[checkpoint]\ninterval = \"50ms\"\n\
    [outputs.all]\nplugin = \"stdout\"\noptions = { path = \"all.jsonl\" }\n";

async fn insert(mongod: &Mongod, from: i64) {
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    orders.insert_many((from..from + 100).map(|id| doc! { "_id": id })).await.expect("insert");
}

async fn has(lines: &Lines, events: i64) {
    eventually(&format!("{events} events"), DEADLINE, || lines.first_occurrences().len() as i64 >= events).await;
    let keys: Vec<i64> =
        lines.first_occurrences().iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect();
    assert_eq!(keys, (0..events).collect::<Vec<_>>());
}

fn reopened(daemon: &Daemon) -> f64 {
    daemon.metric("tailwater_source_reopened_total", &[]).expect("a counter from the first moment")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_and_came_back_costs_nothing() {
    let mut mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let lines = Lines::new(folder.path().join("all.jsonl"));
    let mut daemon = Daemon::start(folder.path(), &config(&mongod, OUTPUT)).await;
    insert(&mongod, 0).await;
    has(&lines, 100).await;

    for round in 1..=2 {
        let before = reopened(&daemon);
        mongod.kill9();
        eventually("the daemon has noticed", DEADLINE, || daemon.has_logged(&["WARN", "opening it again"])).await;
        assert_eq!(daemon.get("/healthz").map(|answer| answer.status), Some(200));
        assert_eq!(daemon.get("/readyz").map(|answer| answer.status), Some(503), "the source is not open");
        assert_eq!(daemon.metric("tailwater_source_open", &[]), Some(0.0));
        mongod.start_again().await;
        insert(&mongod, round * 100).await;
        has(&lines, (round + 1) * 100).await;
        assert!(reopened(&daemon) > before, "the stream was opened again");
        assert_eq!(daemon.get("/readyz").map(|answer| answer.status), Some(200));
        assert_eq!(daemon.metric("tailwater_source_open", &[]), Some(1.0));
    }
    assert!(daemon.is_running());
    assert_eq!(lines.events().len(), 300, "opening again in the same process repeats nothing");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

/// The cursors of the daemon's change streams, idle or in use.
async fn daemons_cursors(mongod: &Mongod) -> Vec<i64> {
    let current = doc! { "$currentOp": { "allUsers": true, "idleCursors": true } };
    let own = doc! { "$match": { "appName": "tailwater", "cursor.tailable": true } };
    let operations = mongod.client().database("admin").aggregate([current, own]).await.expect("$currentOp");
    let operations: Vec<Document> = operations.try_collect().await.expect("$currentOp");
    operations.iter().filter_map(|operation| operation.get_document("cursor").ok()?.get_i64("cursorId").ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cursor_and_killed_sessions_cost_nothing() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let lines = Lines::new(folder.path().join("all.jsonl"));
    let daemon = Daemon::start(folder.path(), &config(&mongod, OUTPUT)).await;
    insert(&mongod, 0).await;
    has(&lines, 100).await;

    // A cursor that goes from one read to the next just now is not in the list.
    let looking = async {
        loop {
            let cursors = daemons_cursors(&mongod).await;
            if !cursors.is_empty() {
                break cursors;
            }
        }
    };
    let cursors = tokio::time::timeout(DEADLINE, looking).await.expect("the daemon has a cursor");
    let before = reopened(&daemon);
    let kill = doc! { "killCursors": "$cmd.aggregate", "cursors": cursors.clone() };
    let killed = mongod.client().database("shop").run_command(kill).await.expect("killCursors");
    assert_eq!(killed.get_array("cursorsKilled").expect("cursorsKilled").len(), cursors.len(), "{killed}");
    insert(&mongod, 100).await;
    has(&lines, 200).await;
    eventually("the stream was opened again", DEADLINE, || reopened(&daemon) > before).await;

    let before = reopened(&daemon);
    mongod.client().database("admin").run_command(doc! { "killAllSessions": [] }).await.expect("killAllSessions");
    insert(&mongod, 200).await;
    has(&lines, 300).await;
    eventually("the stream was opened again", DEADLINE, || reopened(&daemon) > before).await;
    assert_eq!(lines.events().len(), 300, "opening again in the same process repeats nothing");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

/// A server that goes down or comes up refuses logins, and the driver does not tell why: a stream that was open tries on.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_in_passing_costs_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "c2VjcmV0LXRoYXQtbWVtYmVycy1zaGFyZQ==").expect("write the key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("only for us");
    let auth = ["--auth", "--keyFile", key.to_str().expect("a path")];
    let mongod = Mongod::start_with(&[&TEST_COMMANDS[..], &auth].concat()).await;
    // The first user may be made without a login, from this machine.
    let root = doc! { "createUser": "root", "pwd": "secret", "roles": ["root"] };
    mongod.client().database("admin").run_command(root).await.expect("create root");
    let proxy = Proxy::start(mongod.port()).await;
    let login = |port: u16| format!("mongodb://root:secret@127.0.0.1:{port}/?directConnection=true");
    let root = Client::with_uri_str(login(mongod.port())).await.expect("client");
    let config = config_of(&login(proxy.port()), "watch = [\"shop.*\"]", OUTPUT);
    let mut daemon = Daemon::start(folder.path(), &config).await;
    let orders = root.database("shop").collection::<Document>("orders");

    // ShutdownInProgress.
    let refuse = doc! { "failCommands": ["saslStart", "saslContinue"], "errorCode": 91, "appName": "tailwater" };
    let refuse = doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": refuse };
    root.database("admin").run_command(refuse).await.expect("configureFailPoint");
    proxy.cut();
    eventually("it has tried", DEADLINE, || daemon.has_logged(&["cannot open the change stream again yet"])).await;
    orders.insert_many((0..100).map(|id| doc! { "_id": id })).await.expect("insert");
    assert!(daemon.is_running());
    let heal = doc! { "configureFailPoint": "failCommand", "mode": "off" };
    root.database("admin").run_command(heal).await.expect("configureFailPoint");
    has(&Lines::new(folder.path().join("all.jsonl")), 100).await;
    assert!(daemon.has_logged(&["cannot open the change stream again yet", "SCRAM failure"]), "it was the login");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}
