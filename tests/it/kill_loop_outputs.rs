//! Kill the daemon at any instant, again and again, while 20,000 changes to 200 documents go to browsers, a webhook and Pusher,
//! whose receivers also fail now and then: each gets every event at least once, in order per document, under one id, and a
//! browser that comes back has no hole and no repeat.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Database;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::lines::id;
use crate::harness::{Daemon, EventSource, Mongod, config, event_source, eventually, fixed_port};
use crate::{pusher_receiver as pusher, webhook_receiver as webhook};

const CHANGES: i64 = 20_000;
const DOCUMENTS: i64 = 200;
const WRITERS: i64 = 8;
/// Between two versions of all documents: about 1,000 changes a second.
const PACE: Duration = Duration::from_millis(200);
const DEADLINE: Duration = Duration::from_secs(120);
const KILLS_MIN: usize = 10;
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// The outputs of one run of the daemon. The receivers see which run a request is of: a request that a killed daemon has sent may
/// still be on its way when the next one begins, and nobody can take it back.
fn outputs(run: usize, port: u16, hook: &webhook::Receiver, push: &pusher::Receiver) -> String {
    let keys = "ahead_max = 2000\nretry = { backoff_min = \"10ms\", backoff_max = \"200ms\" }\n";
    let (url, push_port) = (hook.url("/"), push.port());
    format!(
        "[checkpoint]\ninterval = \"100ms\"\n\
         [outputs.browsers]\nplugin = \"sse\"\noptions = {{ listen = \"127.0.0.1:{port}\", retry = \"100ms\" }}\n\
         [outputs.hook]\nplugin = \"webhook\"\n{keys}[outputs.hook.options]\n\
         url = \"{url}\"\nsecrets = [\"{SECRET}\"]\nheaders = {{ X-Run = \"{run}\" }}\npause_default = \"20ms\"\n\
         [outputs.push]\nplugin = \"pusher\"\n{keys}[outputs.push.options]\n\
         app_id = \"3\"\nkey = \"key\"\nsecret = \"secret\"\nhost = \"127.0.0.1\"\nport = {push_port}\ntls = false\n\
         channels = [\"{run}-{{{{ ns.coll }}}}-{{{{ documentKey._id }}}}\"]\n"
    )
}

/// About three in a hundred requests go wrong, each in its own way.
enum Fault {
    Overload,
    Error,
    Cut,
}

fn fault(requests: &AtomicUsize) -> Option<Fault> {
    match requests.fetch_add(1, Ordering::SeqCst) % 101 {
        17 => Some(Fault::Overload),
        50 => Some(Fault::Error),
        83 => Some(Fault::Cut),
        _ => None,
    }
}

fn hook() -> webhook::Receiver {
    let (receiver, requests) = (webhook::Receiver::start(&[SECRET]), AtomicUsize::new(0));
    receiver.answer_with(move |_| match fault(&requests) {
        None => webhook::Reply::Status(204),
        Some(Fault::Overload) => webhook::Reply::Status(503),
        Some(Fault::Error) => webhook::Reply::Status(500),
        Some(Fault::Cut) => webhook::Reply::Cut,
    });
    receiver
}

fn push() -> pusher::Receiver {
    let app = pusher::App { id: "3".to_owned(), key: "key".to_owned(), secret: "secret".to_owned() };
    let (receiver, requests) = (pusher::Receiver::start(app), AtomicUsize::new(0));
    receiver.answer_with(move |_| match fault(&requests) {
        None => pusher::Reply::ok(),
        Some(Fault::Overload) => pusher::Reply::status(503).header("retry-after", 0),
        Some(Fault::Error) => pusher::Reply::status(500),
        Some(Fault::Cut) => pusher::Reply::cut(),
    });
    receiver
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_the_way_to_browsers_a_webhook_and_pusher() {
    let (mongod, hook, push, port) = (Mongod::start().await, hook(), push(), fixed_port());
    let folder = tempfile::tempdir().expect("temporary folder");
    let text = |run| config(&mongod, &outputs(run, port, &hook, &push));
    let shop = mongod.client().database("shop");

    let mut daemon = Daemon::start(folder.path(), &text(0)).await;
    let browser = EventSource::open(port, "/events", None);
    // A browser's stream begins when it connects: written is only what it must see.
    let (marks, missed) = mark_until_seen(&shop, &browser).await;
    let started = Instant::now();
    let writer = tokio::spawn(write(shop.clone()));
    let mut kills = 0;
    // The instant of the kill wanders over start, history, catch-up and steady delivery.
    let mut kill_after = Duration::from_millis(30);
    while !writer.is_finished() || kills < KILLS_MIN {
        // Every second one waits for the browser: a daemon that reads its history has nothing for it yet.
        let before = browser.count();
        eventually("an event at the browser", DEADLINE, || {
            kills % 2 == 0 || browser.count() > before || writer.is_finished()
        })
        .await;
        tokio::time::sleep(kill_after).await;
        kill_after = Duration::from_millis((kill_after.as_millis() as u64 * 7 / 5 + 5) % 1_500);
        daemon.kill9();
        kills += 1;
        daemon = Daemon::spawn(folder.path(), &text(kills));
    }
    writer.await.expect("writer");
    let written = started.elapsed();
    daemon.wait_until_ready().await;
    let total = marks + CHANGES as usize;
    let of_browser = total - missed;
    eventually("the webhook has every event", DEADLINE, || hook.look(|record| record.taken.len() >= total)).await;
    eventually("Pusher has every event", DEADLINE, || push.look(|record| distinct(record) >= total)).await;
    eventually("the browser has every event", DEADLINE, || browser.count() >= of_browser).await;
    assert!(daemon.terminate_and_wait(Duration::from_secs(30)).await.success());
    eprintln!("{kills} kills, written in {written:?}, delivered in {:?}", started.elapsed());

    let (hook, push, browser) = (hook.record(), push.record(), browser.close());
    assert!(hook.violations.is_empty(), "{:?}", hook.violations);
    assert!(push.violations.is_empty(), "{:?}", push.violations);
    let changes = verify("hook", &hook_deliveries(&hook));
    assert_eq!(verify("push", &push_deliveries(&push)), changes, "one id for one change in both outputs");
    verify_browser(&browser, &changes, of_browser);
}

/// Inserts until the browser has got one; gives back how many were inserted, and how many the browser came too late for.
async fn mark_until_seen(shop: &Database, browser: &EventSource) -> (usize, usize) {
    let started = Instant::now();
    let mut marks = 0_i64;
    while browser.count() == 0 {
        assert!(started.elapsed() < Duration::from_secs(30), "no event at the browser: {:?}", browser.record());
        shop.collection("marks").insert_one(doc! { "_id": marks }).await.expect("insert");
        marks += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let first = browser.look(|record| record.messages[0].json()["documentKey"]["_id"].as_u64());
    (marks as usize, first.expect("a number") as usize)
}

/// Writes `CHANGES` versions of `DOCUMENTS` documents at a steady pace, so that the kills meet a daemon that delivers. Each writer
/// has documents of its own and writes their changes one after another, so that the order of a document's versions is known.
async fn write(shop: Database) {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let shop = shop.clone();
        writers.spawn(async move {
            let mut pace = tokio::time::interval(PACE);
            for version in 0..CHANGES / DOCUMENTS {
                pace.tick().await;
                let replace = |id| doc! { "q": { "_id": id }, "u": { "_id": id, "version": version }, "upsert": true };
                let updates: Vec<Document> = (writer..DOCUMENTS).step_by(WRITERS as usize).map(replace).collect();
                let count = updates.len() as i32;
                let reply = shop.run_command(doc! { "update": "orders", "updates": updates }).await.expect("write");
                assert_eq!(reply.get_i32("n").expect("n"), count, "{reply}");
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer");
    }
}

fn distinct(record: &pusher::Record) -> usize {
    record.accepted.iter().map(|accepted| &accepted.entry.data[..]).collect::<HashSet<_>>().len()
}

/// Document and version.
type Change = (i64, i64);

/// One event in one request.
struct Delivery {
    run: usize,
    id: String,
    change: Change,
    end: End,
}

/// What a receiver has done with a delivery.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Taken, and said so.
    Acknowledged,
    /// Taken, and said nothing.
    Taken,
    Refused,
}

impl Delivery {
    /// `None` for a mark.
    fn new(run: &str, end: End, event: &Value) -> Option<Delivery> {
        let change = change(event)?;
        Some(Delivery { run: run.parse().expect("a run"), id: id(event), change, end })
    }
}

fn change(event: &Value) -> Option<Change> {
    let number = |key: &str| event["fullDocument"][key].as_i64().unwrap_or_else(|| panic!("{key} in {event}"));
    (event["ns"]["coll"] == "orders").then(|| (number("_id"), number("version")))
}

fn hook_deliveries(record: &webhook::Record) -> Vec<Delivery> {
    let delivery = |arrival: &webhook::Arrival| {
        let event: Value = serde_json::from_slice(&arrival.body).expect("JSON");
        assert_eq!(arrival.id, id(&event), "webhook-id and the event's own");
        let end = match arrival.reply {
            webhook::Reply::Cut => End::Taken,
            reply if reply.takes() => End::Acknowledged,
            _ => End::Refused,
        };
        Delivery::new(&arrival.headers["x-run"], end, &event)
    };
    record.arrivals.iter().filter_map(delivery).collect()
}

fn push_deliveries(record: &pusher::Record) -> Vec<Delivery> {
    let taken: HashSet<usize> = record.accepted.iter().map(|accepted| accepted.request).collect();
    let of_request = |request: &pusher::Request| {
        let end = match request.number {
            number if record.cut.contains(&number) => End::Taken,
            number if taken.contains(&number) => End::Acknowledged,
            _ => End::Refused,
        };
        let delivery = move |entry: &pusher::Entry| {
            let run = entry.channel.split('-').next().unwrap_or_default();
            Delivery::new(run, end, &serde_json::from_str(&entry.data).expect("JSON"))
        };
        request.checked.entries.iter().filter_map(delivery).collect::<Vec<_>>()
    };
    record.requests.iter().flat_map(of_request).collect()
}

/// Checks what one receiver was sent; gives back the change of each id.
fn verify(output: &str, deliveries: &[Delivery]) -> BTreeMap<String, Change> {
    let mut changes: BTreeMap<String, Change> = BTreeMap::new();
    let mut ids: HashMap<Change, &str> = HashMap::new();
    let mut seen = HashMap::new();
    // How far each document is at the receiver, and what was acknowledged within one run.
    let (mut at_receiver, mut in_run) = (HashMap::new(), HashMap::new());
    let (mut across, mut within) = (0, 0);
    for Delivery { run, id, change, end } in deliveries {
        let (document, version) = *change;
        let first = *changes.entry(id.clone()).or_insert(*change);
        assert_eq!(first, *change, "output {output}: one id, two changes");
        assert_eq!(*ids.entry(*change).or_insert(id), id, "output {output}: one change, two ids");
        let seen_in = seen.insert(id, run);
        across += usize::from(seen_in.is_some_and(|before| before != run));
        within += usize::from(seen_in == Some(run));
        // Only what was not acknowledged comes again within a run.
        let acknowledged = in_run.entry((run, document)).or_insert(-1);
        assert!(
            *acknowledged < version,
            "output {output}, run {run}: document {document}, {version} behind {acknowledged}"
        );
        if *end == End::Acknowledged {
            *acknowledged = version;
        }
        let last = at_receiver.entry(document).or_insert(-1);
        if *end != End::Refused && *last < version {
            assert_eq!(*last + 1, version, "output {output}: document {document}, every version in order");
            *last = version;
        }
    }
    let complete: HashMap<i64, i64> = (0..DOCUMENTS).map(|document| (document, CHANGES / DOCUMENTS - 1)).collect();
    assert_eq!(at_receiver, complete, "output {output}: the last version of each document");
    eprintln!("output {output}: {across} repeats after kills, {within} within a run");
    // Kills and faults that hit nothing would prove nothing.
    assert!(across > 0 && within > 0, "output {output}: nothing was delivered twice");
    changes
}

/// Nothing is missing, nothing comes twice, and the ids only rise: the stream's own order.
fn verify_browser(record: &event_source::Record, changes: &BTreeMap<String, Change>, total: usize) {
    assert_eq!(record.failure, None);
    assert_eq!(record.messages.len(), total, "every event, none twice");
    for pair in record.messages.windows(2) {
        assert!(pair[0].id < pair[1].id, "{} comes behind {}", pair[1].id, pair[0].id);
    }
    let mut seen = BTreeMap::new();
    for message in &record.messages {
        assert_eq!(message.event, "message", "no reset: {message:?}");
        let event = message.json();
        assert_eq!(message.id, id(&event), "the frame's id and the event's own");
        seen.extend(change(&event).map(|change| (message.id.clone(), change)));
    }
    assert_eq!(&seen, changes, "the browser's ids are the webhook's");
    let with_events: HashSet<usize> = record.messages.iter().map(|message| message.connection).collect();
    let (streams, refused) = (record.streams.len(), record.refused);
    eprintln!("browser: {streams} streams, {} with events, {refused} attempts in vain", with_events.len());
    assert!(with_events.len() >= KILLS_MIN / 2, "the kills hardly ever met a browser that was given events");
}
