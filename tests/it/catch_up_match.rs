//! A lane that catches up has its own `match` evaluated by the server: only that lane's query, however many other outputs there are.

use std::time::Duration;

use bson::{Document, doc};

use crate::harness::streams::wait_for_change_stream;
use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
const CHANGES: i64 = 3000;

fn text(mongod: &Mongod) -> String {
    let output = |name: &str, color: &str, keys: &str, plugin: &str| {
        format!(
            "[outputs.{name}]\nplugin = \"{plugin}\"\nordering = \"strict\"\nmatch = {{ \"fullDocument.color\" = \"{color}\" }}\n{keys}\
             [outputs.{name}.options]\npath = \"{name}.jsonl\"\n"
        )
    };
    let gate = "mode = \"retry_for\"\ngate = \"gate\"\n";
    let slow = output("red", "red", "ahead_max = 10\nretry = { backoff_max = \"200ms\" }\n", "faulty") + gate;
    config(mongod, &format!("[window]\nbytes_max = \"64KiB\"\n{slow}{}", output("blue", "blue", "", "stdout")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_filters_for_the_lane_alone() {
    let mongod = Mongod::start().await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let daemon = Daemon::start(folder.path(), &text(&mongod)).await;
    let red = doc! { "fullDocument.color": "red" };
    let both = doc! { "fullDocument.color": { "$in": ["red", "blue"] } };
    wait_for_change_stream(&mongod, &both, DEADLINE).await;

    let orders = mongod.client().database("shop").collection::<Document>("orders");
    let color = |id: i64| ["red", "blue", "green"][id as usize % 3];
    let documents = (0..CHANGES).map(|id| doc! { "_id": id, "color": color(id) });
    orders.insert_many(documents).await.expect("insert");
    let delivered = |output: &str| daemon.metric("tailwater_output_delivered_total", &[("output", output)]);
    eventually("blue has everything", DEADLINE, || delivered("blue") == Some((CHANGES / 3) as f64)).await;
    std::fs::write(folder.path().join("gate"), "").expect("open the gate");
    wait_for_change_stream(&mongod, &red, DEADLINE).await;
    eventually("red has everything", DEADLINE, || {
        delivered("red") == Some((CHANGES / 3) as f64) && daemon.is_in_state("red", "live")
    })
    .await;
    let filtered = daemon.metric("tailwater_output_filtered_total", &[("output", "red")]).expect("a metric");
    assert!(filtered < CHANGES as f64 / 3.0, "{filtered} events came that the server was to leave out");
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
    for (remainder, output) in [(0, "red"), (1, "blue")] {
        let events = Lines::new(folder.path().join(format!("{output}.jsonl"))).events();
        let ids: Vec<i64> =
            events.iter().map(|event| event["documentKey"]["_id"].as_i64().expect("a number")).collect();
        assert_eq!(ids, (0..CHANGES).filter(|id| id % 3 == remainder).collect::<Vec<_>>(), "output {output}");
    }
}
