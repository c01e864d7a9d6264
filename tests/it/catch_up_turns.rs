//! More outputs behind the window than catch-up streams, each slow enough to hold one for long: they take turns, all finish, and
//! the output that is not behind does not notice. The server never has more streams to read than it may.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use tokio::sync::watch;

use crate::harness::streams::{cluster_time, most_change_streams, put_cluster_time_forward};
use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);
/// Behind each of them, and how many they take in a second: what a stream gives in its slice and what is read ahead are less.
const BACKLOG: i64 = 3500;
const PER_SECOND: i64 = 200;
const BEHIND: [&str; 3] = ["first", "second", "third"];

/// Each has its own documents, an hour from those of the others.
fn text(mongod: &Mongod) -> String {
    let behind = BEHIND.map(|output| {
        format!(
            "[outputs.{output}]\nplugin = \"stdout\"\nordering = \"strict\"\nahead_max = 200\nmatch = {{ \"fullDocument.for\" = \"{output}\" }}\n\
             rate_limit = {{ per_second = {PER_SECOND}, burst = 50 }}\noptions = {{ path = \"{output}.jsonl\" }}\n"
        )
    });
    let live = "[outputs.live]\nplugin = \"stdout\"\nordering = \"strict\"\nmatch = { \"fullDocument.for\" = \"live\" }\n\
                options = { path = \"live.jsonl\" }\n";
    let text = config(mongod, &format!("[window]\nbytes_max = \"64KiB\"\n{live}{}", behind.concat()));
    text.replace("watch = [\"shop.*\"]", "watch = [\"shop.*\"]\ncatch_up_streams_max = 1")
}

fn numbers(folder: &Path, output: &str) -> Vec<i64> {
    let events = Lines::new(folder.join(format!("{output}.jsonl"))).events();
    events.iter().map(|event| event["fullDocument"]["number"].as_i64().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_behind_take_turns() {
    let mongod = Arc::new(Mongod::start().await);
    let folder = tempfile::tempdir().expect("temporary folder");
    let daemon = Daemon::start(folder.path(), &text(&mongod)).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());

    let orders = mongod.client().database("shop").collection::<Document>("orders");
    let checkpoints = mongod.client().database("tailwater").collection::<Document>("checkpoints");
    let mut place = cluster_time(&mongod).await;
    for output in BEHIND.iter().chain(["live"].iter()) {
        let place_now = doc! { "$set": { "place": { "from": Bson::Timestamp(place) } } };
        let changed = checkpoints.update_one(doc! { "_id.output": output }, place_now).await.expect("write");
        assert_eq!(changed.matched_count, 1, "the daemon had a checkpoint of {output}");
        if *output != "live" {
            orders
                .insert_many((0..BACKLOG).map(|number| doc! { "for": output, "number": number }))
                .await
                .expect("insert");
            place = put_cluster_time_forward(&mongod, HOUR).await;
        }
    }

    let (stop, stopped) = watch::channel(false);
    let looking = tokio::spawn({
        let mongod = Arc::clone(&mongod);
        async move { most_change_streams(&mongod, stopped).await }
    });
    let daemon = Daemon::start(folder.path(), &text(&mongod)).await;
    let delivered =
        |output: &str| daemon.metric("tailwater_output_delivered_total", &[("output", output)]).unwrap_or(0.0);
    let (started, mut live, mut all_at_work) = (Instant::now(), 0, false);
    while BEHIND.iter().any(|output| delivered(output) < BACKLOG as f64) {
        // What is written now reaches the live output before the next one is written, whatever the others do.
        orders.insert_one(doc! { "for": "live", "number": live }).await.expect("insert");
        live += 1;
        eventually("the live output has it", DEADLINE, || delivered("live") == live as f64).await;
        all_at_work |= BEHIND.iter().all(|output| (1.0..BACKLOG as f64).contains(&delivered(output)));
        let counts = BEHIND.map(delivered);
        assert!(started.elapsed() < DEADLINE, "not finished within {DEADLINE:?}: {counts:?}");
    }
    eprintln!("{live} live events while the others caught up in {:?}", started.elapsed());
    stop.send_replace(true);
    assert_eq!(looking.await.expect("looking"), 2, "the shared stream and catch_up_streams_max");
    assert!(all_at_work, "one had finished before another one had begun");
    assert!(live > 20, "only {live} events were live");
    let metric = |name: &str, output: &str| daemon.metric(&format!("tailwater_output_{name}"), &[("output", output)]);
    assert_eq!(metric("catch_ups_total", "live"), Some(0.0), "the live output never fell off the window");
    let opened = daemon.metric("tailwater_catch_up_streams_opened_total", &[]).expect("a metric");
    assert!(opened >= 2.0 * BEHIND.len() as f64, "{opened} streams: each had more than one turn");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    for output in BEHIND {
        assert!(
            numbers(folder.path(), output) == (0..BACKLOG).collect::<Vec<_>>(),
            "{output}: everything, in order, once"
        );
    }
    assert_eq!(numbers(folder.path(), "live"), (0..live).collect::<Vec<_>>());
}
