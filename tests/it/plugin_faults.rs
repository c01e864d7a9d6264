//! A panic in `deliver`, a verdict given twice, a verdict after stop, a `deliver` that never completes: the daemon lives,
//! the events are delivered again, the fault is counted and logged, and no other output notices. "Fatal" and "reject" stop or
//! skip as the output's config says.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Daemon, Lines, Mongod, config, eventually};

const DEADLINE: Duration = Duration::from_secs(30);
const EVENTS: usize = 100;

/// Output `bad` misbehaves, output `good` beside it does not.
struct Stage {
    mongod: Mongod,
    folder: TempDir,
    bad: Lines,
    good: Lines,
}

impl Stage {
    async fn new() -> Stage {
        let folder = tempfile::tempdir().expect("temporary folder");
        let [bad, good] = ["bad.jsonl", "good.jsonl"].map(|name| Lines::new(folder.path().join(name)));
        Stage { mongod: Mongod::start().await, folder, bad, good }
    }

    /// The daemon with these options of the plugin and these keys of the output.
    async fn daemon(&self, options: &str, keys: &str) -> Daemon {
        let text = config(
            &self.mongod,
            &format!(
                "[checkpoint]\ninterval = \"50ms\"\n\
                 [outputs.good]\nplugin = \"stdout\"\noptions = {{ path = \"good.jsonl\" }}\n\
                 [outputs.bad]\nplugin = \"faulty\"\nbatch = {{ events_max = 10 }}\n{keys}\n\
                 options = {{ path = \"bad.jsonl\", {options} }}\n"
            ),
        );
        Daemon::start(self.folder.path(), &text).await
    }

    fn orders(&self) -> Collection<Document> {
        self.mongod.client().database("shop").collection("orders")
    }

    async fn insert(&self, from: usize) {
        let documents = (from..from + EVENTS).map(|id| doc! { "_id": id as i64, "text": format!("number {id};") });
        self.orders().insert_many(documents).await.expect("insert");
    }

    async fn both_have_everything(&self) {
        eventually("every event in both outputs", DEADLINE, || {
            self.bad.first_occurrences().len() == EVENTS && self.good.events().len() == EVENTS
        })
        .await;
    }
}

fn faults(daemon: &Daemon, kind: &str) -> Option<f64> {
    daemon.metric("tailwater_output_faults_total", &[("output", "bad"), ("kind", kind)])
}

fn late(daemon: &Daemon) -> f64 {
    daemon.metric("tailwater_plugin_late_completions_total", &[("output", "bad")]).unwrap_or(0.0)
}

fn lives(daemon: &mut Daemon) {
    assert!(daemon.is_running(), "the process lives");
    assert_eq!(daemon.get("/healthz").map(|answer| answer.status), Some(200));
    assert_eq!(daemon.get("/readyz").map(|answer| answer.status), Some(200));
    assert_eq!(faults_of_good(daemon), 0.0, "the other output noticed nothing");
}

fn faults_of_good(daemon: &Daemon) -> f64 {
    let kinds = ["failed", "timeout", "start"];
    let of = |kind| daemon.metric("tailwater_output_faults_total", &[("output", "good"), ("kind", kind)]);
    kinds.into_iter().map(|kind| of(kind).expect("a counter from the first moment")).sum()
}

fn attempts(events: &[Value]) -> i64 {
    events.iter().map(|event| event["attempt"].as_i64().expect("attempt")).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_deliver_is_one_fault_and_nothing_is_lost() {
    let stage = Stage::new().await;
    let mut daemon = stage.daemon("mode = \"panic_once\"", "").await;
    stage.insert(0).await;
    stage.both_have_everything().await;
    assert_eq!(faults(&daemon, "failed"), Some(1.0));
    assert!(attempts(&stage.bad.events()) >= 2, "what was in flight came again");
    assert!(daemon.has_logged(&["WARN", "output=\"bad\"", "plugin instance given up", "panic"]), "the log names it");
    lives(&mut daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_verdict_is_counted_and_changes_nothing() {
    let stage = Stage::new().await;
    let mut daemon = stage.daemon("mode = \"double_verdict\"", "").await;
    stage.insert(0).await;
    stage.both_have_everything().await;
    // The start is answered twice too.
    eventually("each second answer counted", DEADLINE, || {
        let batches = daemon.metric("tailwater_output_batches_total", &[("output", "bad")]);
        batches.is_some_and(|batches| batches >= 10.0 && late(&daemon) == batches + 1.0)
    })
    .await;
    assert_eq!(stage.bad.events().len(), EVENTS, "none twice");
    let delivered = daemon.metric("tailwater_output_delivered_total", &[("output", "bad")]);
    assert_eq!(delivered, Some(EVENTS as f64), "none counted twice");
    eventually("a line that names the output", DEADLINE, || {
        daemon.has_logged(&["WARN", "output=bad", "the plugin completed a token too late"])
    })
    .await;
    lives(&mut daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_after_stop_is_counted_and_changes_nothing() {
    let stage = Stage::new().await;
    let mut daemon = stage.daemon("mode = \"verdict_after_stop\"", "timeout = \"500ms\"").await;
    stage.insert(0).await;
    stage.both_have_everything().await;
    eventually("the late verdict counted", DEADLINE, || late(&daemon) >= 1.0).await;
    eventually("all settled by the next instance", DEADLINE, || {
        daemon.metric("tailwater_output_unsettled_events", &[("output", "bad")]) == Some(0.0)
    })
    .await;
    assert_eq!(faults(&daemon, "timeout"), Some(1.0));
    assert!(attempts(&stage.bad.events()) >= 2, "what had no verdict came again");
    let delivered = daemon.metric("tailwater_output_delivered_total", &[("output", "bad")]);
    assert_eq!(delivered, Some(EVENTS as f64), "the late verdict settled nothing");
    assert!(daemon.has_logged(&["WARN", "output=\"bad\"", "plugin instance given up", "500ms"]));
    lives(&mut daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deliver_that_never_completes_gets_a_new_instance() {
    let stage = Stage::new().await;
    let mut daemon = stage.daemon("mode = \"hang\"", "timeout = \"500ms\"").await;
    stage.insert(0).await;
    stage.both_have_everything().await;
    assert_eq!(faults(&daemon, "timeout"), Some(1.0));
    assert!(attempts(&stage.bad.events()) >= 2, "what hung came again");
    assert!(daemon.has_logged(&["WARN", "output=\"bad\"", "plugin instance given up", "500ms"]));
    lives(&mut daemon);
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn fatal_stops_this_output_alone_and_the_daemon_stays_ready() {
    let stage = Stage::new().await;
    let mut daemon = stage.daemon("mode = \"fatal\"", "").await;
    stage.insert(0).await;
    eventually("the output is stopped", DEADLINE, || daemon.is_in_state("bad", "stopped")).await;
    stage.insert(EVENTS).await;
    eventually("the other goes on", DEADLINE, || stage.good.events().len() == 2 * EVENTS).await;
    assert!(daemon.has_logged(&["ERROR", "output=\"bad\"", "output stopped: the fault that was asked for"]));
    assert!(daemon.is_in_state("good", "live"));
    assert_eq!(stage.bad.events().len(), 0);
    lives(&mut daemon);
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());

    // Nothing was settled, so the next start has all of it.
    let daemon = stage.daemon("mode = \"ok\"", "").await;
    eventually("all of it", DEADLINE, || stage.bad.first_occurrences().len() == 2 * EVENTS).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_event_is_skipped_and_counted_where_the_config_says_skip() {
    let stage = Stage::new().await;
    let options = "mode = \"reject_matching\", text = \"number 42;\"";
    let mut daemon = stage.daemon(options, "on_reject = \"skip\"").await;
    stage.insert(0).await;
    eventually("all but one", DEADLINE, || {
        stage.bad.events().len() == EVENTS - 1 && stage.good.events().len() == EVENTS
    })
    .await;
    eventually("all settled", DEADLINE, || {
        daemon.metric("tailwater_output_unsettled_events", &[("output", "bad")]) == Some(0.0)
    })
    .await;
    assert_eq!(daemon.metric("tailwater_output_rejected_total", &[("output", "bad")]), Some(1.0));
    assert!(stage.bad.events().iter().all(|event| event["documentKey"]["_id"] != 42));
    assert!(daemon.has_logged(&["WARN", "output=\"bad\"", "rejected and skipped", "number 42;"]));
    lives(&mut daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_event_stops_the_output_where_the_config_says_stop_and_is_not_lost() {
    let stage = Stage::new().await;
    let options = "mode = \"reject_matching\", text = \"number 42;\"";
    let mut daemon = stage.daemon(options, "on_reject = \"stop\"").await;
    stage.insert(0).await;
    eventually("the output is stopped", DEADLINE, || daemon.is_in_state("bad", "stopped")).await;
    eventually("the other has everything", DEADLINE, || stage.good.events().len() == EVENTS).await;
    assert!(daemon.has_logged(&["ERROR", "output=\"bad\"", "output stopped", "rejected", "number 42;"]));
    lives(&mut daemon);
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());

    let daemon = stage.daemon("mode = \"ok\"", "").await;
    eventually("also the rejected one", DEADLINE, || stage.bad.first_occurrences().len() == EVENTS).await;
    assert!(daemon.terminate_and_wait(DEADLINE).await.success());
}
