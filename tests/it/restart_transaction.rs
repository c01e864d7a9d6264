//! Kill the daemon while it delivers a transaction of 3,000 operations: the checkpoint lies inside the transaction, and after
//! the restart every operation has been delivered at least once, in order.

use std::time::Duration;

use bson::{Document, doc};

use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
const OPERATIONS: i64 = 3_000;
const AHEAD_MAX: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_goes_on_at_the_operation_where_it_was_cut() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let text = config(
        &mongod,
        &format!(
            "[checkpoint]\ninterval = \"20ms\"\n\
             [outputs.slow]\nplugin = \"faulty\"\nordering = \"strict\"\nahead_max = {AHEAD_MAX}\n\
             batch = {{ events_max = 50 }}\noptions = {{ path = \"slow.jsonl\", mode = \"slow\", delay_ms = 20 }}\n"
        ),
    );
    let lines = Lines::new(folder.path().join("slow.jsonl"));
    let database = mongod.client().database("shop");
    database.create_collection("orders").await.expect("create");
    let orders = database.collection::<Document>("orders");

    let daemon = Daemon::start(folder.path(), &text).await;
    let mut session = mongod.client().start_session().await.expect("session");
    session.start_transaction().await.expect("start transaction");
    for from in (0..OPERATIONS).step_by(1_000) {
        let documents = (from..from + 1_000).map(|id| doc! { "_id": id });
        orders.insert_many(documents).session(&mut session).await.expect("insert");
    }
    session.commit_transaction().await.expect("commit");
    eventually("a third of it is delivered", DEADLINE, || lines.events().len() >= 1_000).await;
    daemon.kill9();
    let before = lines.events().len();
    assert!(before < OPERATIONS as usize, "killed too late: {before} of {OPERATIONS} were delivered");

    let daemon = Daemon::start(folder.path(), &text).await;
    let log = daemon.log();
    let line =
        log.iter().find(|line| line.contains("going on at the checkpoint")).expect("a line about the checkpoint");
    let operation = line.split_once(" operation ").expect("a place behind an event").1;
    let operation: i64 = operation.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number");
    assert!((1..OPERATIONS - 1).contains(&operation), "the checkpoint is inside the transaction: {line}");

    orders.insert_one(doc! { "_id": OPERATIONS }).await.expect("insert");
    eventually("the one behind the transaction", DEADLINE, || {
        lines.events().last().is_some_and(|event| event["documentKey"]["_id"] == OPERATIONS)
    })
    .await;
    let found: Vec<i64> =
        lines.first_occurrences().iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect();
    assert_eq!(found, (0..=OPERATIONS).collect::<Vec<_>>(), "every operation, in order");
    let repeats = lines.events().len() - found.len();
    eprintln!("{before} events before the kill, checkpoint at operation {operation}, {repeats} repeats");
    assert!(repeats <= AHEAD_MAX, "{repeats} repeats");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}
