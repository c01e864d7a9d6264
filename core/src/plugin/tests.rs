//! The border driven with a plugin made by hand in this process: real thunks on both sides, no library file. The faults
//! are those of DESIGN §3: completions that come from anywhere, twice, late or never.

mod fixture;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tailwater_abi::*;

use self::fixture::{HUNG, batch, complete, completion, descriptor_of, json_of, library, owed};
use super::*;
use crate::event::JsonForm;

/// Longer than anything here takes, on any machine.
const LONG: Duration = Duration::from_secs(20);

async fn started(output: &str, mode: &str) -> (Arc<Port>, Result<Instance, StartError>) {
    let port = Port::new(output, JsonForm::Relaxed);
    let instance = Instance::start(&library(), &port, &json!({ "mode": mode }), LONG).await;
    (port, instance)
}

async fn running(mode: &str) -> (Arc<Port>, Instance) {
    let (port, instance) = started(&format!("out_{mode}_{:?}", std::thread::current().id()), mode).await;
    (port, instance.unwrap_or_else(|error| panic!("{error}")))
}

/// Waits for something another thread does.
async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + LONG;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "the condition did not come true");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn acks_at_once_and_from_another_thread() {
    for mode in ["ack", "thread"] {
        let (port, mut instance) = running(mode).await;
        for delivery in 1..=50 {
            instance.deliver(delivery, batch(3), LONG);
        }
        let mut seen = Vec::new();
        for _ in 0..50 {
            let outcome = instance.next_outcome().await;
            assert_eq!(outcome.verdicts, Verdicts::all(Verdict::Ack));
            seen.push(outcome.delivery);
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=50).collect::<Vec<_>>());
        instance.stop(LONG).await;
        assert_eq!((port.held_tokens(), port.abandoned_instances(), port.late_completions()), (0, 0, 0), "{mode}");
    }
}

#[tokio::test]
async fn a_second_verdict_is_counted_and_changes_nothing() {
    let (port, mut instance) = running("twice").await;
    instance.deliver(1, batch(1), LONG);
    assert_eq!(instance.next_outcome().await.verdicts, Verdicts::all(Verdict::Ack));
    until(|| port.late_completions() == 1).await;
    instance.deliver(2, batch(1), LONG);
    assert_eq!(instance.next_outcome().await.verdicts, Verdicts::all(Verdict::Ack));
    instance.stop(LONG).await;
    assert_eq!((port.late_completions(), port.held_tokens()), (2, 0));
}

#[tokio::test]
async fn a_verdict_after_abandon_is_late() {
    let (port, instance) = running("never").await;
    instance.deliver(1, batch(2), LONG);
    until(|| owed(&port).is_some()).await;
    let (ctx, token) = owed(&port).unwrap();
    assert!(json_of(ctx, token, 0, TW_JSON_RELAXED).is_ok());
    instance.abandon();
    assert_eq!(json_of(ctx, token, 0, TW_JSON_RELAXED), Err(TW_E_INVALID));
    until(|| port.abandoned_instances() == 0).await;
    complete(ctx, token, &completion(TW_ACK, ""));
    assert_eq!((port.late_completions(), port.held_tokens()), (1, 0));
}

#[tokio::test]
async fn a_hung_deliver_hurts_nobody_and_keeps_its_memory() {
    let (port, instance) = running("hangs").await;
    instance.deliver(1, batch(1), LONG);
    let waiting = batch(1);
    let event = Arc::downgrade(&waiting[0].event);
    instance.deliver(2, waiting, LONG);
    until(|| HUNG.lock().unwrap().contains(&port.output().to_owned())).await;
    instance.abandon();
    assert_eq!((port.abandoned_instances(), port.held_tokens()), (1, 1), "what is being read stays");
    assert_eq!(event.strong_count(), 0, "what waits is let go");
    HUNG.lock().unwrap().retain(|output| output != port.output());
    until(|| port.abandoned_instances() == 0).await;
    assert_eq!((port.late_completions(), port.held_tokens()), (1, 0), "the second batch was never handed out");
}

#[tokio::test]
async fn a_refused_batch_counts_as_failed() {
    let (port, mut instance) = running("refuses").await;
    instance.deliver(7, batch(1), LONG);
    let outcome = instance.next_outcome().await;
    assert_eq!((outcome.delivery, outcome.verdicts), (7, Verdicts::failed("the plugin panicked in deliver")));
    instance.stop(LONG).await;
    assert_eq!(port.held_tokens(), 0);
}

#[tokio::test]
async fn verdicts_are_copied_and_capped() {
    let (_port, mut instance) = running("mixed").await;
    instance.deliver(1, batch(3), LONG);
    let because = || "because".to_owned();
    let expected = Verdicts {
        default: Verdict::Retry { after: Some(Duration::from_millis(30)), reason: "busy".to_owned() },
        // The index behind the batch is dropped, the unknown verdict is a retry, and the fourth result is more than there are events.
        overrides: vec![
            (0, Verdict::Reject { reason: because() }),
            (1, Verdict::Retry { after: Some(verdict::RETRY_AFTER_MAX), reason: because() }),
        ],
        pause_output: Some(Duration::from_millis(30)),
    };
    assert_eq!(instance.next_outcome().await.verdicts, expected);
    let (_port, mut instance) = running("hostile").await;
    instance.deliver(1, batch(1), LONG);
    let reason = "the plugin completed with result_stride 8, at least 32 is needed";
    assert_eq!(instance.next_outcome().await.verdicts, Verdicts::failed(reason));
}

#[tokio::test]
async fn start_says_what_kind_of_trouble_it_is() {
    let retry = StartError::Retry { after: Some(Duration::from_millis(1500)), reason: "no route".to_owned() };
    let table = [
        ("create_panics", StartError::Failed { reason: "the plugin panicked in create".to_owned() }),
        ("bad_options", StartError::Fatal { reason: "mode is bad".to_owned() }),
        ("start_retry", retry),
        ("start_fatal", StartError::Fatal { reason: "revoked".to_owned() }),
        ("start_refused", StartError::Failed { reason: "start failed with status -5".to_owned() }),
    ];
    for (mode, expected) in table {
        let (port, instance) = started(mode, mode).await;
        assert_eq!(instance.err(), Some(expected), "{mode}");
        until(|| port.abandoned_instances() == 0 && port.held_tokens() == 0).await;
    }
    let port = Port::new("start_never", JsonForm::Relaxed);
    let options = json!({ "mode": "start_never" });
    let error = Instance::start(&library(), &port, &options, Duration::from_millis(20)).await.err();
    assert_eq!(error, Some(StartError::Failed { reason: "it did not start within 20ms".to_owned() }));
    until(|| port.abandoned_instances() == 0 && port.held_tokens() == 0).await;
}

#[tokio::test]
async fn a_stop_that_never_completes_ends_in_time_and_its_verdict_is_late() {
    let (port, instance) = running("stop_slow").await;
    instance.deliver(1, batch(1), LONG);
    until(|| owed(&port).is_some()).await;
    let (ctx, token) = owed(&port).unwrap();
    instance.stop(Duration::from_millis(100)).await;
    complete(ctx, token, &completion(TW_ACK, ""));
    assert_eq!(port.late_completions(), 1);
    until(|| port.abandoned_instances() == 0 && port.held_tokens() == 0).await;
}

#[test]
fn a_broken_handshake_names_the_field() {
    type Change = fn(&mut tw_plugin);
    let edit = |change: Change| {
        let mut plugin = descriptor_of("fixture");
        change(&mut plugin);
        // SAFETY: everything but the struct itself is static, and verify copies that.
        unsafe { descriptor::verify(&plugin, Path::new("f"), "fixture") }
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    };
    let table: [(Change, &str); 12] = [
        (|_| {}, ""),
        (|p| p.magic = 5, "magic is 0x0000000000000005, expected 0x525441574c494154"),
        (|p| p.struct_size = 64, "tw_plugin.struct_size is 64, at least 128 is needed"),
        (|p| p.abi_major = 3, "abi_major is 3, this host speaks 0"),
        (|p| p.min_host_minor = 7, "min_host_minor is 7, this host is 0.1: upgrade tailwater"),
        (|p| p.build_flags = TW_BUILD_PANIC_ABORT, "[profile.release]"),
        (|p| p.build_flags = 0, "build_flags is 0x0, which lacks TW_BUILD_PANIC_UNWIND"),
        (
            |p| p.name = tw_str::new("other-one"),
            "name is \"other-one\", the file says \"fixture\": rename the file to libtailwater_other_one.",
        ),
        (|p| p.name.len = 1 << 40, "name is 1099511627776 bytes long, at most 64 are taken"),
        (|p| p.version.ptr = std::ptr::null(), "version is null although its length is not 0"),
        (|p| p.options_schema = tw_str::new("{"), "options_schema is not a JSON Schema"),
        (|p| p.vtable = std::ptr::null(), "vtable is null"),
    ];
    for (change, expected) in table {
        let found = edit(change);
        assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found:?} lacks {expected:?}");
    }
}

#[test]
fn metrics_are_bounded_and_rendered() {
    let port = Port::new("metrics", JsonForm::Plain);
    let metrics = &port.metrics;
    let labels = |value: &str| vec![("route".to_owned(), value.to_owned())];
    let sent = metrics.register(TW_METRIC_COUNTER, "sent_total", "Sent.", labels("a")).unwrap();
    assert_eq!(metrics.register(TW_METRIC_COUNTER, "sent", "Sent", labels("a")), Ok(sent));
    let open = metrics.register(TW_METRIC_GAUGE, "open", "Open", Vec::new()).unwrap();
    for (kind, name) in [(9, "x"), (1, "Upper"), (1, "late_completions"), (2, "sent"), (1, "")] {
        assert!(metrics.register(kind, name, "", Vec::new()).is_err(), "{kind} {name}");
    }
    assert!(metrics.register(1, "x", "", vec![("output".to_owned(), String::new())]).is_err());
    metrics.register(TW_METRIC_GAUGE, "odd", "A \"b\" c:\\d\nodd{} 5\r\n# EOF.", labels("\"\\\n")).unwrap();
    metrics.record(sent, 2.5);
    metrics.record(sent, -1.0);
    metrics.record(sent, f64::NAN);
    metrics.record(open, 4.0);
    metrics.record(0, 1.0);
    metrics.record(u64::MAX, 1.0);
    let mut registry = prometheus_client::registry::Registry::default();
    register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"tailwater_plugin_sent_total{output="metrics",route="a"} 2.5"#,
        r#"tailwater_plugin_open{output="metrics"} 4.0"#,
        r#"tailwater_plugin_late_completions_total{output="metrics"} 0.0"#,
        r#"tailwater_plugin_abandoned_instances{output="metrics"} 0.0"#,
        r##"# HELP tailwater_plugin_odd A \"b\" c:\\d odd{} 5  # EOF"##,
        r#"tailwater_plugin_odd{output="metrics",route="\"\\\n"} 0.0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let numbers = (0..200).filter_map(|i| metrics.register(1, &format!("n{i}"), "", Vec::new()).ok());
    assert_eq!(numbers.count(), 97);
}

#[test]
fn a_metric_is_registered_through_the_border_and_one_that_is_too_short_is_refused() {
    let port = Port::new("metric_border", JsonForm::Relaxed);
    let labels = [tw_kv { key: tw_str::new("route"), value: tw_str::new("a") }];
    let register = |struct_size: u32, label_count: usize| {
        let metric = tw_metric {
            struct_size,
            kind: TW_METRIC_GAUGE,
            name: tw_str::new("border_depth"),
            help: tw_str::new("Depth."),
            labels: labels.as_ptr(),
            label_count,
        };
        // SAFETY: the port's own table; the metric lives until the call returns.
        unsafe { (port.host().metric_register.unwrap())(port.host().ctx, &metric) }
    };
    let size = size_of::<tw_metric>() as u32;
    assert_eq!((register(size, 1), register(size, 0), register(size, 1)), (1, 2, 1));
    assert_eq!((register(TW_METRIC_SIZE_MIN - 8, 1), register(size, 9)), (0, 0));
    // SAFETY: null is refused.
    assert_eq!(unsafe { (port.host().metric_register.unwrap())(port.host().ctx, std::ptr::null()) }, 0);
}

/// A struct of a plugin that was built against a later minor.
#[repr(C)]
struct Longer<T> {
    known: T,
    appended: [u64; 3],
}

#[test]
fn a_plugin_of_a_later_minor_is_taken_and_one_shorter_than_the_first_version_is_not() {
    let vtable = |struct_size: u32| {
        // SAFETY: the fixture's own, static.
        let known = unsafe { tw_copy(descriptor_of("fixture").vtable, TW_VTABLE_SIZE_MIN) };
        Box::leak(Box::new(Longer { known: tw_vtable { struct_size, ..known }, appended: [u64::MAX; 3] }))
    };
    let verify = |plugin_size: u32, vtable_size: u32| {
        let known =
            tw_plugin { struct_size: plugin_size, vtable: &vtable(vtable_size).known, ..descriptor_of("fixture") };
        let plugin = Longer { known, appended: [u64::MAX; 3] };
        // SAFETY: everything but the struct itself is static, and verify copies that.
        let found = unsafe { descriptor::verify(&plugin.known, Path::new("f"), "fixture") };
        found.map(|(descriptor, _)| descriptor.version).map_err(|refusal| refusal.to_string())
    };
    let longer = (size_of::<Longer<tw_plugin>>() as u32, size_of::<Longer<tw_vtable>>() as u32);
    assert_eq!(verify(longer.0, longer.1), Ok("1.2.3".to_owned()));
    assert_eq!(verify(TW_PLUGIN_SIZE_MIN, TW_VTABLE_SIZE_MIN), Ok("1.2.3".to_owned()));
    let refusal = |text: &str| Err(text.to_owned());
    assert_eq!(verify(120, longer.1), refusal("tw_plugin.struct_size is 120, at least 128 is needed"));
    assert_eq!(verify(longer.0, 48), refusal("tw_vtable.struct_size is 48, at least 56 is needed"));
}

#[test]
fn a_completion_of_a_later_minor_is_read_by_its_own_stride_and_a_shorter_one_is_not_read() {
    let result = |index| Longer {
        known: tw_event_result { index, verdict: TW_REJECT, retry_after_ms: 0, message: tw_str::new("because") },
        appended: [u64::MAX; 3],
    };
    let results = [result(0), result(2)];
    let copy = |struct_size: u32, result_stride: u32| {
        let known = tw_completion {
            struct_size,
            results: results.as_ptr().cast(),
            result_count: 2,
            result_stride,
            ..completion(TW_ACK, "")
        };
        let answer = Longer { known, appended: [u64::MAX; 3] };
        // SAFETY: everything lives until the call returns.
        unsafe { Verdicts::copy(&answer.known, 3) }
    };
    let (size, stride) = (size_of::<Longer<tw_completion>>() as u32, size_of::<Longer<tw_event_result>>() as u32);
    let reject = || Verdict::Reject { reason: "because".to_owned() };
    assert_eq!(copy(size, stride).overrides, [(0, reject()), (2, reject())]);
    let failed = |text: &str| Verdicts::failed(format!("the plugin completed with {text} is needed"));
    assert_eq!(copy(48, stride), failed("struct_size 48, at least 56"));
    assert_eq!(copy(size, 24), failed("result_stride 24, at least 32"));
}
