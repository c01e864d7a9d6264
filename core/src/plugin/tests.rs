//! The border driven with a plugin made by hand in this process: real thunks on both sides, no library file. The faults
//! are those of DESIGN §3: completions that come from anywhere, twice, late or never.

use std::collections::HashMap;
use std::mem::size_of;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use bson::{RawDocumentBuf, rawdoc};
use serde_json::json;
use tailwater_abi::*;

use super::*;
use crate::event::{Event, JsonForm};
use std::sync::Arc;

const LONG: Duration = Duration::from_secs(20);

/// What an instance of the test plugin does, chosen by its options.
struct Fixture {
    host: &'static tw_host,
    mode: String,
    /// The token of the last batch, for the modes that complete later.
    owed: Option<u64>,
}

/// The host and last token of outputs whose instance keeps silent: what a thread of the plugin would hold.
static OWED: Mutex<Option<HashMap<String, (u64, u64)>>> = Mutex::new(None);
/// Outputs whose `deliver` hangs until it is let go.
static HUNG: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn text<'a>(value: tw_str) -> &'a str {
    // SAFETY: the host's texts are valid for the call, and the tests use them within it.
    std::str::from_utf8(unsafe { std::slice::from_raw_parts(value.ptr, value.len) }).unwrap()
}

fn completion(verdict: u32, message: &'static str) -> tw_completion {
    tw_completion {
        struct_size: size_of::<tw_completion>() as u32,
        verdict,
        retry_after_ms: 0,
        flags: 0,
        reserved0: 0,
        message: tw_str::new(message),
        results: std::ptr::null(),
        result_count: 0,
        result_stride: 0,
    }
}

fn complete(host_ctx: u64, token: u64, completion: &tw_completion) {
    let complete = host::services(host_ctx).complete.unwrap();
    // SAFETY: the completion is borrowed for the call.
    unsafe { complete(host_ctx, token, completion) }
}

fn json_of(ctx: u64, token: u64, index: u32, form: u32) -> Result<Vec<u8>, tw_status> {
    let mut out = tw_slice::NONE;
    // SAFETY: `out` is a live slice.
    let status = unsafe { host::services(ctx).json.unwrap()(ctx, token, index, form, &mut out) };
    // SAFETY: valid until the token is completed, and the caller owes it still.
    if status == TW_OK { Ok(unsafe { std::slice::from_raw_parts(out.ptr, out.len) }.to_vec()) } else { Err(status) }
}

unsafe extern "C" fn create(args: *const tw_create_args, out: *mut *mut tw_instance) -> tw_status {
    // SAFETY: the host's arguments are valid for the call.
    let (args, error) = unsafe { (&*args, &*(*args).error) };
    let options: serde_json::Value = serde_json::from_str(text(args.options_json)).unwrap();
    let mode = options["mode"].as_str().unwrap_or("ack").to_owned();
    let say = |text: &str| {
        // SAFETY: the sink takes the text during the call.
        unsafe { error.write.unwrap()(error.ctx, text.as_ptr(), text.len()) }
    };
    match mode.as_str() {
        "create_panics" => return TW_E_PANIC,
        "bad_options" => {
            say("mode is ");
            say("bad");
            return TW_E_OPTIONS;
        }
        _ => {}
    }
    // SAFETY: `host` lives as long as the process.
    let fixture = Box::new(Fixture { host: unsafe { &*args.host }, mode, owed: None });
    // SAFETY: `out` is the host's variable.
    unsafe { *out = Box::into_raw(fixture).cast() };
    TW_OK
}

unsafe extern "C" fn start(instance: *mut tw_instance, token: u64) -> tw_status {
    // SAFETY: from `create`.
    let fixture = unsafe { &*instance.cast::<Fixture>() };
    let ctx = fixture.host.ctx;
    match fixture.mode.as_str() {
        "start_never" => {}
        "start_retry" => {
            let answer = tw_completion { retry_after_ms: 1500, ..completion(TW_RETRY, "no route") };
            complete(ctx, token, &answer);
        }
        "start_fatal" => complete(ctx, token, &completion(TW_FATAL, "revoked")),
        "start_refused" => return TW_E_INTERNAL,
        _ => drop(std::thread::spawn(move || complete(ctx, token, &completion(TW_ACK, "")))),
    }
    TW_OK
}

unsafe extern "C" fn deliver(instance: *mut tw_instance, batch: *const tw_batch, token: u64) -> tw_status {
    // SAFETY: from `create`, and called from one thread only.
    let fixture = unsafe { &mut *instance.cast::<Fixture>() };
    // SAFETY: valid until the token is completed.
    let batch = unsafe { &*batch };
    let ctx = fixture.host.ctx;
    let output = Port::by_ctx(ctx).unwrap().output().to_owned();
    match fixture.mode.as_str() {
        "ack" => complete(ctx, token, &completion(TW_ACK, "")),
        "twice" => {
            complete(ctx, token, &completion(TW_ACK, ""));
            complete(ctx, token, &completion(TW_REJECT, "second thoughts"));
        }
        "thread" => {
            let (events, stride, len) = (batch.events as usize, batch.event_stride as usize, batch.len as usize);
            drop(std::thread::spawn(move || {
                for i in 0..len {
                    // SAFETY: valid until the token is completed, at the end of this thread.
                    let event = unsafe { &*((events + i * stride) as *const tw_event) };
                    assert_eq!(event.id.len, 33);
                    // SAFETY: as above.
                    let raw = unsafe { std::slice::from_raw_parts(event.raw.ptr, event.raw.len) };
                    assert!(bson::RawDocument::from_bytes(raw).unwrap().get_str("operationType").is_ok());
                    assert!(json_of(ctx, token, i as u32, TW_JSON_CONFIGURED).unwrap().starts_with(b"{"));
                }
                assert_eq!(json_of(ctx, token, len as u32, TW_JSON_RELAXED), Err(TW_E_INVALID));
                assert_eq!(json_of(ctx, token, 0, 99), Err(TW_E_INVALID));
                complete(ctx, token, &completion(TW_ACK, ""));
                assert_eq!(json_of(ctx, token, 0, TW_JSON_RELAXED), Err(TW_E_INVALID));
            }));
        }
        "never" | "stop_slow" => {
            fixture.owed = Some(token);
            OWED.lock().unwrap().get_or_insert_default().insert(output, (ctx, token));
        }
        "hangs" => {
            HUNG.lock().unwrap().push(output.clone());
            while HUNG.lock().unwrap().contains(&output) {
                std::thread::yield_now();
            }
            complete(ctx, token, &completion(TW_ACK, ""));
        }
        "refuses" => return -4,
        "mixed" => mixed(ctx, token, batch.len),
        "hostile" => {
            let answer = tw_completion {
                result_count: u32::MAX,
                result_stride: 8,
                results: std::ptr::NonNull::<u8>::dangling().as_ptr(),
                ..completion(TW_ACK, "")
            };
            complete(ctx, token, &answer);
        }
        other => panic!("no mode {other}"),
    }
    TW_OK
}

/// Every kind of verdict in one completion, with results that must be ignored among them.
fn mixed(ctx: u64, token: u64, len: u32) {
    let result = |index, verdict, retry_after_ms| tw_event_result {
        index,
        verdict,
        retry_after_ms,
        message: tw_str::new("because"),
    };
    let results = [result(0, TW_REJECT, 0), result(len, TW_FATAL, 0), result(1, 77, u64::MAX), result(2, TW_FATAL, 0)];
    let answer = tw_completion {
        flags: TW_COMPLETE_PAUSE_OUTPUT,
        retry_after_ms: 30,
        results: results.as_ptr().cast(),
        result_count: results.len() as u32,
        result_stride: size_of::<tw_event_result>() as u32,
        ..completion(TW_RETRY, "busy")
    };
    complete(ctx, token, &answer);
}

unsafe extern "C" fn stop(instance: *mut tw_instance, _deadline_ms: u64, token: u64) -> tw_status {
    // SAFETY: from `create`.
    let fixture = unsafe { &*instance.cast::<Fixture>() };
    if fixture.mode != "stop_slow" {
        complete(fixture.host.ctx, token, &completion(TW_ACK, ""));
    }
    TW_OK
}

unsafe extern "C" fn destroy(instance: *mut tw_instance) {
    // SAFETY: from `create`, destroyed once.
    drop(unsafe { Box::from_raw(instance.cast::<Fixture>()) });
}

static VTABLE: tw_vtable = tw_vtable {
    struct_size: size_of::<tw_vtable>() as u32,
    reserved0: 0,
    validate: None,
    create: Some(create),
    start: Some(start),
    deliver: Some(deliver),
    stop: Some(stop),
    destroy: Some(destroy),
};

fn descriptor_of(name: &'static str) -> tw_plugin {
    tw_plugin {
        magic: TW_MAGIC,
        struct_size: size_of::<tw_plugin>() as u32,
        abi_major: TW_ABI_MAJOR,
        abi_minor: 9,
        min_host_minor: 0,
        reserved0: 0,
        build_flags: TW_BUILD_PANIC_UNWIND,
        name: tw_str::new(name),
        version: tw_str::new("1.2.3"),
        sdk: tw_str::new("by hand"),
        summary: tw_str::new("For tests"),
        options_schema: tw_str::new("true"),
        capabilities: TW_CAP_BROADCAST | 1 << 60,
        batch_events_max: 0,
        reserved1: 0,
        vtable: &VTABLE,
    }
}

fn library() -> Library {
    let plugin = Box::leak(Box::new(descriptor_of("fixture")));
    // SAFETY: leaked, so it lives as long as the process.
    unsafe { Library::from_plugin(plugin, Path::new("fixture"), "fixture") }.unwrap()
}

fn batch(len: i32) -> Vec<Delivered> {
    let event = |i: i32| {
        // A token of mongod 6.0.
        let id = rawdoc! { "_data": "8263D5A1A3000000012B022C0100296E5A10041D9A7C2B3F4E4B6C8D7E6F5A4B3C2D1E46645F6964006463D5A1A3F1E2D3C4B5A697880004" };
        let raw: RawDocumentBuf = rawdoc! {
            "_id": id,
            "operationType": "insert",
            "clusterTime": bson::Timestamp { time: 1674944931, increment: 1 },
            "ns": { "db": "shop", "coll": "orders" },
            "documentKey": { "_id": i },
            "fullDocument": { "_id": i }
        };
        Delivered { event: Arc::new(Event::from_raw(&raw).unwrap()), attempt: 1 }
    };
    (0..len).map(event).collect()
}

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

fn owed(port: &Port) -> Option<(u64, u64)> {
    OWED.lock().unwrap().get_or_insert_default().get(port.output()).copied()
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
    instance.deliver(2, batch(1), LONG);
    until(|| HUNG.lock().unwrap().contains(&port.output().to_owned())).await;
    instance.abandon();
    assert_eq!((port.abandoned_instances(), port.held_tokens()), (1, 1), "what is being read stays");
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
    let edit = |change: fn(&mut tw_plugin)| {
        let mut plugin = descriptor_of("fixture");
        change(&mut plugin);
        // SAFETY: everything but the struct itself is static, and verify copies that.
        unsafe { descriptor::verify(&plugin, Path::new("f"), "fixture") }
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    };
    let table: [(fn(&mut tw_plugin), &str); 12] = [
        (|_| {}, ""),
        (|p| p.magic = 5, "magic is 0x0000000000000005, expected 0x525441574c494154"),
        (|p| p.struct_size = 64, "tw_plugin.struct_size is 64, at least 128 is needed"),
        (|p| p.abi_major = 3, "abi_major is 3, this host speaks 0"),
        (|p| p.min_host_minor = 7, "min_host_minor is 7, this host is 0.0: upgrade tailwater"),
        (|p| p.build_flags = TW_BUILD_PANIC_ABORT, "[profile.release]"),
        (|p| p.build_flags = 0, "build_flags is 0x0, which lacks TW_BUILD_PANIC_UNWIND"),
        (|p| p.name = tw_str::new("other"), "name is \"other\", the file says \"fixture\""),
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
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let numbers = (0..200).filter_map(|i| metrics.register(1, &format!("n{i}"), "", Vec::new()).ok());
    assert_eq!(numbers.count(), 98);
}
