//! Outputs that restart hours apart open one change stream for each place and not for each output, beside the shared one; and each
//! receives everything, in order and once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, doc};
use tokio::sync::watch;

use crate::harness::streams::{cluster_time, most_change_streams, put_cluster_time_forward};
use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Outputs at different places behind the window: with so many streams nobody waits.
const PLACES: usize = 3;
/// Written in each hour.
const CHANGES: i64 = 1000;
/// Taken by each output in a second, so that the streams are open long enough to be seen.
const PER_SECOND: u32 = 500;
/// Written first in each hour, where nobody watches: the server reads on for a while before a stream has events, and all that asked
/// for one together are there by then.
const UNWATCHED: i32 = 20_000;
/// Outputs, and how many hours of changes they have behind them.
const OUTPUTS: [(&str, i64); 5] = [("oldest", 0), ("one", 1), ("other", 1), ("young", 2), ("newest", 3)];
const HOURS: i64 = 3;

fn text(mongod: &Mongod) -> String {
    let outputs = OUTPUTS.map(|(output, _)| {
        let options =
            format!("rate_limit = {{ per_second = {PER_SECOND} }}\noptions = {{ path = \"{output}.jsonl\" }}");
        format!("[outputs.{output}]\nplugin = \"stdout\"\nordering = \"strict\"\nahead_max = 200\n{options}\n")
    });
    let streams = format!("watch = [\"shop.*\"]\ncatch_up_streams_max = {PLACES}");
    let text = config(mongod, &format!("[window]\nbytes_max = \"1MiB\"\n{}", outputs.concat()));
    text.replace("watch = [\"shop.*\"]", &streams)
}

async fn write(mongod: &Mongod, hour: i64) {
    let elsewhere = mongod.client().database("elsewhere").collection::<Document>("noise");
    elsewhere.insert_many((0..UNWATCHED).map(|_| doc! { "x": 1 })).await.expect("insert");
    let documents = (hour * CHANGES..(hour + 1) * CHANGES).map(|id| doc! { "_id": id, "text": "x".repeat(200) });
    let orders = mongod.client().database("shop").collection::<Document>("orders");
    orders.insert_many(documents).await.expect("insert");
}

fn ids(folder: &Path, output: &str) -> Vec<i64> {
    let events = Lines::new(folder.join(format!("{output}.jsonl"))).events();
    events.iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_hours_apart_share_streams_by_place() {
    let mongod = Arc::new(Mongod::start().await);
    let folder = tempfile::tempdir().expect("temporary folder");
    let daemon = Daemon::start(folder.path(), &text(&mongod)).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());

    let mut hours = vec![cluster_time(&mongod).await];
    for hour in 0..HOURS {
        write(&mongod, hour).await;
        hours.push(put_cluster_time_forward(&mongod, HOUR).await);
    }
    let checkpoints = mongod.client().database("tailwater").collection::<Document>("checkpoints");
    for (output, hour) in OUTPUTS {
        let place = doc! { "$set": { "place": { "from": Bson::Timestamp(hours[hour as usize]) } } };
        let changed = checkpoints.update_one(doc! { "_id.output": output }, place).await.expect("write the checkpoint");
        assert_eq!(changed.matched_count, 1, "the daemon had a checkpoint of {output}");
    }

    let (stop, stopped) = watch::channel(false);
    let looking = tokio::spawn({
        let mongod = Arc::clone(&mongod);
        async move { most_change_streams(&mongod, stopped).await }
    });
    let daemon = Daemon::start(folder.path(), &text(&mongod)).await;
    write(&mongod, HOURS).await;
    eventually("everyone is live with everything", DEADLINE, || {
        OUTPUTS.iter().all(|(output, hour)| {
            let delivered = daemon.metric("tailwater_output_delivered_total", &[("output", output)]);
            delivered >= Some(((HOURS + 1 - hour) * CHANGES) as f64) && daemon.is_in_state(output, "live")
        })
    })
    .await;
    let metric = |name: &str| daemon.metric(&format!("tailwater_catch_up_{name}"), &[]).expect("a metric");
    let opened = metric("streams_opened_total");
    eventually("no stream is open any more", DEADLINE, || metric("streams") == 0.0).await;
    assert_eq!(metric("waiting_outputs"), 0.0);
    stop.send_replace(true);
    let most = looking.await.expect("looking");
    eprintln!("{opened} catch-up streams opened, {most} change streams at once");
    assert!(most <= PLACES + 1, "{most} change streams at once");
    assert!(most > 1, "the server was never seen with a catch-up stream: this shows nothing");
    assert_eq!(opened, PLACES as f64, "two of four outputs were at one place");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    for (output, hour) in OUTPUTS {
        let expected: Vec<i64> = (hour * CHANGES..(HOURS + 1) * CHANGES).collect();
        assert!(ids(folder.path(), output) == expected, "output {output}: everything, in order, once");
    }
}
