//! An sse output says goodbye when it stops, has its history also where its port is free only later, and begins with as much
//! history as there is where the oplog is short.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;

use crate::harness::{Daemon, EventSource, Mongod, config, eventually, fixed_port};

const DEADLINE: Duration = Duration::from_secs(60);

fn text(mongod: &Mongod, port: u16, options: &str) -> String {
    let options = format!("listen = \"127.0.0.1:{port}\"\nretry = \"100ms\"\n{options}");
    // Another output that always starts: a daemon none of whose outputs can start ends.
    let lines = "[outputs.lines]\nplugin = \"stdout\"\noptions = { path = \"lines.jsonl\" }\n";
    config(
        mongod,
        &format!(
            "{lines}[outputs.browsers]\nplugin = \"sse\"\non_reject = \"stop\"\n[outputs.browsers.options]\n{options}\n"
        ),
    )
}

fn orders(mongod: &Mongod) -> Collection<Document> {
    mongod.client().database("shop").collection("orders")
}

async fn start(folder: &Path, text: &str) -> Daemon {
    Daemon::start(folder, text).await
}

fn metric(daemon: &Daemon, name: &str) -> Option<f64> {
    daemon.metric(&format!("tailwater_plugin_sse_{name}"), &[("output", "browsers")])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_stops_ends_its_streams() {
    let (mongod, folder, port) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"), fixed_port());
    let daemon = start(folder.path(), &text(&mongod, port, "topics = [\"{{ fullDocument.city }}\"]")).await;
    let browser = EventSource::open(port, "/events", None);
    eventually("a client", DEADLINE, || metric(&daemon, "clients") == Some(1.0)).await;
    orders(&mongod).insert_one(doc! { "_id": 1, "city": "Bonn" }).await.expect("insert");
    eventually("the event", DEADLINE, || browser.look(|record| record.messages.len() == 1)).await;
    // There is no city in it: the event is rejected, and with `on_reject = "stop"` the output stops.
    orders(&mongod).insert_one(doc! { "_id": 2 }).await.expect("insert");
    eventually("it is stopped", DEADLINE, || daemon.is_in_state("browsers", "stopped")).await;
    eventually("nobody listens any more", DEADLINE, || browser.look(|record| record.refused > 0)).await;
    assert!(daemon.has_logged(&["output stopped", "{{ fullDocument.city }}", "is not in the event"]));
    // The other one does not notice.
    orders(&mongod).insert_one(doc! { "_id": 3 }).await.expect("insert");
    let delivered = || daemon.metric("tailwater_output_delivered_total", &[("output", "lines")]);
    eventually("the other output has all three", DEADLINE, || delivered() == Some(3.0)).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_free_only_later_costs_no_history() {
    let (mongod, folder, port) = (Mongod::start().await, tempfile::tempdir().expect("temporary folder"), fixed_port());
    let text = text(&mongod, port, "");
    let daemon = start(folder.path(), &text).await;
    let browser = EventSource::open(port, "/events", None);
    eventually("a client", DEADLINE, || metric(&daemon, "clients") == Some(1.0)).await;
    orders(&mongod).insert_one(doc! { "_id": 1 }).await.expect("insert");
    eventually("the event", DEADLINE, || browser.look(|record| record.messages.len() == 1)).await;
    daemon.kill9();
    orders(&mongod).insert_one(doc! { "_id": 2 }).await.expect("insert");

    // Another process has the port when the daemon starts.
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("the port");
    let mut daemon = Daemon::spawn(folder.path(), &text);
    eventually("it has tried", DEADLINE, || daemon.has_logged(&["plugin did not start", "the port is in use"])).await;
    drop(taken);
    daemon.wait_until_ready().await;
    eventually("what it missed", DEADLINE, || browser.look(|record| record.messages.len() == 2)).await;
    let record = browser.close();
    assert!(record.messages.iter().all(|message| message.event == "message"), "no reset: {:?}", record.messages);
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_oplog_gives_a_short_history_and_a_reset_for_what_is_gone() {
    let (mongod, folder, port) = (
        Mongod::start_with(&["--oplogSize", "1", "--syncdelay", "1"]).await,
        tempfile::tempdir().expect("temporary folder"),
        fixed_port(),
    );
    let oplog = mongod.client().database("local").collection::<Document>("oplog.rs");
    let oldest = async || {
        let entry = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).await.expect("read the oplog");
        entry.expect("an entry").get_timestamp("ts").expect("a time")
    };
    let first = oldest().await;
    let filler = mongod.client().database("other").collection::<Document>("filler");
    let text_of = "x".repeat(100_000);
    let began = std::time::Instant::now();
    // Until the oplog has let go of the first seconds, some of which a history of ten minutes would ask for.
    while oldest().await.time < first.time + 5 {
        assert!(began.elapsed() < DEADLINE, "the oplog lets go of nothing");
        let documents = (0..20).map(|_| doc! { "text": &text_of });
        filler.insert_many(documents).await.expect("insert");
    }
    let daemon = start(folder.path(), &text(&mongod, port, "history = { max_age = \"10m\" }")).await;
    assert!(daemon.has_logged(&["less history", "browsers"]), "the oplog was long enough: no test");
    let gone = EventSource::open(port, "/events", Some(&format!("{:08x}00000001-0000000000000000", first.time)));
    eventually("a reset", DEADLINE, || gone.look(|record| record.messages.len() == 1)).await;
    orders(&mongod).insert_one(doc! { "_id": 1 }).await.expect("insert");
    eventually("then it is live", DEADLINE, || gone.look(|record| record.messages.len() == 2)).await;
    let events: Vec<String> = gone.close().messages.into_iter().map(|message| message.event).collect();
    assert_eq!(events, ["reset", "message"]);
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}
