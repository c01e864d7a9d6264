//! A webhook receiver that is down while 20,000 changes go by with a window of 1 MiB delays no browser; when it is back it gets
//! every event, in order per document, signed anew.
//!
//! With `TAILWATER_LONG=1` it is down for a whole minute, else until the browsers have everything.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Client;
use serde_json::Value;

use crate::harness::{Daemon, EventSource, Mongod, config, event_source, eventually, fixed_port};
use crate::webhook_receiver::{Receiver, Record};

const DEADLINE: Duration = Duration::from_secs(180);
const CHANGES: i64 = 20_000;
const DOCUMENTS: i64 = 500;
/// Changes written by one command, and the pause behind each: about 1,000 changes a second, so that what is measured is whether
/// the receiver that is down holds the browsers up, not how fast a debug build is.
const CHUNK: i64 = 250;
const PACE: Duration = Duration::from_millis(250);
const BROWSERS: usize = 4;
/// From the server's acknowledgement of a change to the last browser.
const DELAY_MAX: Duration = Duration::from_secs(1);
/// Longer than the clock of the strict receiver may be off, so that old signatures would be seen.
const LONG: Duration = Duration::from_secs(60);
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn text(mongod: &Mongod, port: u16, url: &str) -> String {
    config(
        mongod,
        &format!(
            "[window]\nbytes_max = \"1MiB\"\n\
             [outputs.browsers]\nplugin = \"sse\"\noptions = {{ listen = \"127.0.0.1:{port}\" }}\n\
             [outputs.hook]\nplugin = \"webhook\"\nin_flight_bytes_max = \"1MiB\"\n\
             retry = {{ backoff_min = \"100ms\", backoff_max = \"1s\" }}\n\
             options = {{ url = \"{url}\", secrets = [\"{SECRET}\"], pause_default = \"1s\" }}\n"
        ),
    )
}

/// Replaces the documents in turn; each version names its change. Gives back when each command was acknowledged.
async fn write(client: Client) -> Vec<Instant> {
    let shop = client.database("shop");
    let text = "some words to make the document as long as documents are ".repeat(4);
    let mut pace = tokio::time::interval(PACE);
    let mut acknowledged = Vec::new();
    for from in (0..CHANGES).step_by(CHUNK as usize) {
        pace.tick().await;
        let replace = |change: i64| {
            let document = doc! { "_id": change % DOCUMENTS, "change": change, "text": &text };
            doc! { "q": { "_id": change % DOCUMENTS }, "u": document, "upsert": true }
        };
        let updates: Vec<Document> = (from..from + CHUNK).map(replace).collect();
        let reply = shop.run_command(doc! { "update": "orders", "updates": updates }).await.expect("write");
        assert_eq!(reply.get_i32("n").expect("n"), CHUNK as i32, "{reply}");
        acknowledged.push(Instant::now());
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_down_delays_no_browser_and_gets_everything_later() {
    let (mongod, mut receiver, port) = (Mongod::start().await, Receiver::start(&[SECRET]), fixed_port());
    let folder = tempfile::tempdir().expect("temporary folder");
    let daemon = Daemon::start(folder.path(), &text(&mongod, port, &receiver.url("/hook"))).await;
    let browsers: Vec<_> = (0..BROWSERS).map(|_| EventSource::open(port, "/events", None)).collect();
    eventually("all browsers are clients", DEADLINE, || {
        daemon.metric("tailwater_plugin_sse_clients", &[("output", "browsers")]) == Some(BROWSERS as f64)
    })
    .await;
    receiver.stop();
    let down = Instant::now();
    let long = std::env::var_os("TAILWATER_LONG").is_some_and(|value| value == "1");

    let acknowledged = write(mongod.client().clone()).await;
    eventually("every browser has everything", DEADLINE, || {
        browsers.iter().all(|browser| browser.count() >= CHANGES as usize) && (!long || down.elapsed() >= LONG)
    })
    .await;
    let down_for = down.elapsed();
    let metric =
        |name: &str| daemon.metric(&format!("tailwater_output_{name}"), &[("output", "hook")]).expect("a metric");
    assert_eq!(metric("delivered_total"), 0.0, "the receiver is down");
    assert!(metric("retried_total") > 0.0, "it was tried");
    receiver.start_again();
    let back = Instant::now();
    let record = receiver.wait_until_within(DEADLINE, "every event", |record| record.taken.len() >= CHANGES as usize);
    let caught_up = back.elapsed();
    eventually("the webhook is live", DEADLINE, || daemon.is_in_state("hook", "live")).await;
    assert!(metric("catch_ups_total") >= 1.0, "it had fallen off the window");
    eprintln!("down for {down_for:?}, caught up in {caught_up:?}, {} requests", record.arrivals.len());
    for browser in browsers {
        check_browser(&browser.close(), &acknowledged);
    }
    check_webhook(&record);
    assert!(daemon.terminate_and_wait(Duration::from_secs(30)).await.success());
}

/// Every change once, in the order of writing, and soon.
fn check_browser(record: &event_source::Record, acknowledged: &[Instant]) {
    assert_eq!((record.streams.len(), &record.failure), (1, &None), "one stream");
    assert_eq!(record.messages.len(), CHANGES as usize, "every change, none twice");
    let mut delay_max = Duration::ZERO;
    for (change, message) in record.messages.iter().enumerate() {
        assert_eq!(message.json()["fullDocument"]["change"], change, "in the order of writing");
        let written = acknowledged[change / CHUNK as usize];
        delay_max = delay_max.max(message.arrived.saturating_duration_since(written));
    }
    eprintln!("browser: {delay_max:?} at most behind the acknowledgement of a write");
    assert!(delay_max <= DELAY_MAX, "an event came {delay_max:?} after it was written");
}

/// The receiver has checked each signature and its time. Here: every change, first occurrences in order per document.
fn check_webhook(record: &Record) {
    assert!(record.violations.is_empty(), "{:?}", record.violations);
    let mut changes: HashMap<i64, Vec<i64>> = HashMap::new();
    for arrival in &record.arrivals {
        let event: Value = serde_json::from_slice(&arrival.body).expect("JSON");
        let number = |key: &str| event["fullDocument"][key].as_i64().expect("a number");
        let found = changes.entry(number("_id")).or_default();
        if found.last().is_none_or(|last| *last < number("change")) {
            found.push(number("change"));
        }
    }
    assert_eq!(changes.len(), DOCUMENTS as usize);
    for (document, found) in changes {
        let expected: Vec<i64> = (document..CHANGES).step_by(DOCUMENTS as usize).collect();
        assert_eq!(found, expected, "document {document}: every change, in order");
    }
}
