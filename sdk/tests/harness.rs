//! What a plugin author is promised, tried through the harness: verdicts, panics, logs, metrics, stop.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::json;
use tailwater_sdk::{
    Batch, Context, Counter, DeliverError, JsonForm, Op, Output, Progress, StartError, Verdicts, abi,
    testing::{Harness, StartFailure, TestEvent, Verdict},
    tokio::{self, sync::Semaphore},
    tracing,
};

/// Options of [`Scripted`].
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What to do.
    script: String,
}

/// Does with each batch what its script says.
struct Scripted {
    script: String,
    context: Context,
    counter: Counter,
    /// "hold": given out by "release".
    held: Arc<Semaphore>,
}

impl Output for Scripted {
    type Options = Options;
    const SUMMARY: &'static str = "Does what its script says.";

    fn validate(options: &Options) -> Result<(), tailwater_sdk::Error> {
        if options.script.is_empty() { Err("script is empty".into()) } else { Ok(()) }
    }

    async fn start(options: Options, context: Context) -> Result<Self, StartError> {
        match options.script.as_str() {
            "start: io error" => Err(std::io::Error::other("no route"))?,
            "start: retry" => return Err(StartError::retry_after(Duration::from_secs(3), "not yet")),
            "start: panic" => panic!("cannot start"),
            _ => {}
        }
        tracing::info!(output = context.output(), "started");
        let counter = context.counter_with("seen_total", "Events seen.", &[("kind", "any")]);
        context.gauge("depth", "Depth.").set(7.0);
        Ok(Self { script: options.script, context, counter, held: Arc::new(Semaphore::new(0)) })
    }

    async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        self.counter.add(batch.len() as u64);
        match self.script.as_str() {
            "retry" => Err(DeliverError::retry_after(Duration::from_millis(250), "later")),
            "io error" => Err(std::io::Error::other("connection reset"))?,
            "pause" => Err(DeliverError::pause_output(Duration::from_secs(9), "429")),
            "reject" => Err(DeliverError::reject("too large")),
            "fatal" => Err(DeliverError::fatal("key revoked")),
            "json" => {
                for event in batch.iter() {
                    event.json_as(JsonForm::Plain)?;
                }
                Ok(())
            }
            "per event" => {
                let mut verdicts =
                    Verdicts::new(tailwater_sdk::Verdict::retry("429")).pause_output(Duration::from_secs(5));
                for event in batch.iter() {
                    match event.op() {
                        Op::Insert => verdicts.set(&event, tailwater_sdk::Verdict::Ack),
                        Op::Delete => verdicts.set(&event, tailwater_sdk::Verdict::reject("no deletes")),
                        _ => {}
                    }
                }
                Err(verdicts.into())
            }
            "panic" => panic!("the {} event", "first"),
            "panic elsewhere" => {
                // A task of the author's own: its panic is its own, and must be heard of.
                self.context.spawn(async { panic!("in the background") });
                tokio::task::yield_now().await;
                Ok(())
            }
            "hold" => {
                self.held.acquire().await?.forget();
                Ok(())
            }
            "release" => {
                self.held.add_permits(1);
                Ok(())
            }
            "log" => {
                tracing::warn!(events = batch.len(), kind = "x", "slow {}", "reader");
                tracing::debug!("details");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn stop(&self) {
        tracing::info!("stopped");
    }
}

fn start(script: &str) -> Harness<Scripted> {
    Harness::start(json!({ "script": script })).expect("it starts")
}

fn event() -> TestEvent {
    TestEvent::new("insert", "shop", "orders")
}

fn reason(reason: &str) -> String {
    reason.to_owned()
}

#[test]
fn what_deliver_answers_is_what_the_daemon_hears() {
    let check = |script: &str, expected: Verdict, pause: Option<Duration>| {
        let harness = start(script);
        let outcome = harness.deliver(vec![event(), event()]);
        assert_eq!(outcome.verdicts, [expected.clone(), expected], "{script}");
        assert_eq!(outcome.pause_output, pause, "{script}");
        assert_eq!(harness.late_completions(), 0, "{script}");
    };
    let after = Some(Duration::from_millis(250));
    check("ok", Verdict::Ack, None);
    check("retry", Verdict::Retry { after, reason: reason("later") }, None);
    check("io error", Verdict::Retry { after: None, reason: reason("connection reset") }, None);
    check("pause", Verdict::Retry { after: None, reason: reason("429") }, Some(Duration::from_secs(9)));
    check("reject", Verdict::Reject { reason: reason("too large") }, None);
    check("fatal", Verdict::Fatal { reason: reason("key revoked") }, None);
}

#[test]
fn events_of_one_batch_can_end_differently() {
    let harness = start("per event");
    let event = |operation| TestEvent::new(operation, "shop", "orders");
    let outcome = harness.deliver(vec![event("insert"), event("update"), event("delete")]);
    let retry = Verdict::Retry { after: None, reason: reason("429") };
    assert_eq!(outcome.verdicts, [Verdict::Ack, retry, Verdict::Reject { reason: reason("no deletes") }]);
    assert_eq!(outcome.pause_output, Some(Duration::from_secs(5)));
}

#[test]
fn an_event_without_json_is_rejected_and_its_neighbours_are_delivered_again() {
    let harness = start("json");
    let mut events = vec![event(), event()];
    events[0].json = None;
    let outcome = harness.deliver(events);
    assert!(matches!(outcome.verdicts[..], [Verdict::Reject { .. }, Verdict::Retry { .. }]), "{outcome:?}");
}

#[test]
fn a_panic_gives_the_instance_up_and_says_where_it_was() {
    let harness = start("panic");
    let outcome = harness.deliver(vec![event()]);
    assert_eq!(outcome.verdicts, [Verdict::Failed { reason: reason("the plugin panicked: the first event") }]);
    let logs = harness.logs();
    let record = logs.iter().find(|record| record.target == "panic").expect("the panic is logged");
    assert_eq!(record.level, abi::TW_LEVEL_ERROR);
    assert_eq!(record.message, "panic in the plugin: the first event");
    let (key, location) = &record.fields[0];
    assert!(key == "location" && location.contains("harness.rs"), "{location}");
}

#[test]
fn a_panic_in_a_task_of_the_author_is_logged_and_delivery_goes_on() {
    let harness = start("panic elsewhere");
    assert_eq!(harness.deliver(vec![event()]).verdicts, [Verdict::Ack]);
    assert_eq!(harness.deliver(vec![event()]).verdicts, [Verdict::Ack]);
    assert!(harness.logs().iter().any(|record| record.message == "panic in the plugin: in the background"));
}

#[test]
fn start_tells_passing_trouble_from_lasting() {
    let failure = |script: &str| Harness::<Scripted>::start(json!({ "script": script })).err().expect("no start");
    assert_eq!(failure("start: io error"), StartFailure::Verdict(Verdict::Fatal { reason: reason("no route") }));
    let after = Some(Duration::from_secs(3));
    assert_eq!(failure("start: retry"), StartFailure::Verdict(Verdict::Retry { after, reason: reason("not yet") }));
    let panicked = Verdict::Failed { reason: reason("the plugin panicked: cannot start") };
    assert_eq!(failure("start: panic"), StartFailure::Verdict(panicked));
    assert_eq!(failure(""), StartFailure::Refused(reason("script is empty")));
    assert!(Harness::<Scripted>::validate(json!({ "script": 1 })).unwrap_err().contains("expected a string"));
}

#[test]
fn logs_reach_the_daemon_of_their_own_output_with_fields_and_level() {
    let [first, second] = ["first", "second"].map(|name| {
        Harness::<Scripted>::builder().output(name).start::<Scripted>(json!({ "script": "log" })).expect("it starts")
    });
    second.set_log_level(abi::TW_LEVEL_WARN);
    for _ in 0..2 {
        first.deliver(vec![event()]);
        second.deliver(vec![event(), event()]);
    }
    let summary = |harness: &Harness<Scripted>| -> Vec<_> {
        harness.logs().into_iter().map(|record| (record.message, record.fields)).collect()
    };
    let field = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let slow = |events: &str| (reason("slow reader"), vec![field("events", events), field("kind", "x")]);
    let started = |output: &str| (reason("started"), vec![field("output", output)]);
    let details = || (reason("details"), vec![]);
    assert_eq!(summary(&first), [started("first"), slow("1"), details(), slow("1"), details()]);
    assert_eq!(summary(&second), [started("second"), slow("2"), slow("2")]);
    assert_eq!(first.logs()[0].target, "harness");
}

#[test]
fn metrics_are_recorded_with_their_labels() {
    let harness = start("ok");
    harness.deliver(vec![event(), event()]);
    harness.deliver(vec![event()]);
    assert_eq!(harness.metric("seen_total{kind=\"any\"}"), 3.0);
    assert_eq!(harness.metric("depth"), 7.0);
}

#[test]
fn stop_waits_for_deliveries_in_hand_but_not_for_ever() {
    let harness = start("hold");
    let pending = harness.begin_delivery(vec![event()]);
    assert!(!pending.is_completed());
    let stopped = harness.stop_within(Duration::from_millis(20));
    assert_eq!(stopped, Verdict::Failed { reason: reason("deliveries did not end within the time to stop") });
    // Destroyed by now: the delivery was dropped, and said so.
    let failed = Verdict::Failed { reason: reason("the delivery was dropped before it ended") };
    assert_eq!(pending.wait().verdicts, [failed]);
}

#[test]
fn an_event_shows_what_the_daemon_gave() {
    struct Look;

    impl Output for Look {
        type Options = serde_json::Value;
        const SUMMARY: &'static str = "";

        async fn start(_: serde_json::Value, context: Context) -> Result<Self, StartError> {
            assert_eq!(context.host_abi(), (abi::TW_ABI_MAJOR, abi::TW_ABI_MINOR));
            Ok(Self)
        }

        async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
            let bytes: u64 = batch.iter().map(|event| event.raw().len() as u64).sum();
            assert_eq!((batch.len(), batch.bytes(), batch.timeout()), (2, bytes, Some(Duration::from_secs(60))));
            assert!(batch.get(2).is_none());
            let event = batch.get(1).expect("two events");
            assert_eq!((event.id().len(), event.op(), event.operation_type()), (33, Op::Other, "createIndexes"));
            assert_eq!((event.db(), event.coll()), ("shop", ""));
            assert_eq!((event.attempt(), event.is_redelivery(), event.in_transaction()), (2, true, false));
            assert_eq!(event.wall_time(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
            assert_eq!(event.cluster_time() >> 32, 1_700_000_000);
            assert_eq!((event.raw(), event.document_key()), (&[5, 0, 0, 0, 0][..], Some(&[5, 0, 0, 0, 0][..])));
            assert_eq!((event.full_document(), event.update_description()), (None, None));
            assert_eq!(event.json(), Ok(&b"{}"[..]));
            Ok(())
        }
    }

    let harness = Harness::<Look>::start(json!({})).expect("it starts");
    let mut looked_at = TestEvent::new("createIndexes", "shop", "").json("{}").attempt(2);
    looked_at.document_key = Some(vec![5, 0, 0, 0, 0]);
    assert_eq!(harness.deliver(vec![event(), looked_at]).verdicts, [Verdict::Ack, Verdict::Ack]);
}

#[test]
fn a_broadcast_asks_for_history_and_is_told_how_far_its_stream_has_come() {
    #[derive(Default)]
    struct Follow(std::sync::Mutex<Vec<Progress>>);

    impl Output for Follow {
        type Options = serde_json::Value;
        const SUMMARY: &'static str = "";
        const BROADCAST: bool = true;

        async fn start(_: serde_json::Value, context: Context) -> Result<Self, StartError> {
            assert!(context.want_history(Duration::from_millis(1_500)));
            Ok(Self::default())
        }

        fn progress(&self, progress: Progress) {
            assert_ne!(progress.reached, 13, "a number that nobody likes");
            self.0.lock().expect("not poisoned").push(progress);
        }

        async fn deliver(&self, _: &Batch) -> Result<(), DeliverError> {
            Err(DeliverError::retry(format!("{:?}", self.0.lock().expect("not poisoned"))))
        }
    }

    let harness = Harness::<Follow>::start(json!({})).expect("it starts");
    assert_eq!(harness.wanted_history(), Duration::from_millis(1_500));
    let progress = |reached| Progress { complete_from: 1, live_from: 2, reached };
    harness.progress(progress(3));
    harness.progress(progress(4));
    let told = format!("{:?}", [progress(3), progress(4)]);
    assert_eq!(harness.deliver(vec![event()]).verdicts, [Verdict::Retry { after: None, reason: told }]);
    // A panic stays on its side; the next delivery asks for a new instance.
    harness.progress(progress(13));
    let outcome = harness.deliver(vec![event()]);
    assert!(matches!(outcome.verdicts[..], [Verdict::Failed { .. }]), "{outcome:?}");
}
