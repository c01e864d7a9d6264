//! A plugin in this process whose instances misbehave as their options say.

use std::collections::HashMap;
use std::mem::size_of;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bson::{RawDocumentBuf, rawdoc};
use tailwater_abi::*;

use crate::event::Event;
use crate::plugin::{Delivered, Library, Port, host};

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
pub(super) static HUNG: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn text<'a>(value: tw_str) -> &'a str {
    // SAFETY: the host's texts are valid for the call, and the tests use them within it.
    std::str::from_utf8(unsafe { std::slice::from_raw_parts(value.ptr, value.len) }).unwrap()
}

pub(super) fn completion(verdict: u32, message: &'static str) -> tw_completion {
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

pub(super) fn complete(host_ctx: u64, token: u64, completion: &tw_completion) {
    let complete = host::services(host_ctx).complete.unwrap();
    // SAFETY: the completion is borrowed for the call.
    unsafe { complete(host_ctx, token, completion) }
}

pub(super) fn json_of(ctx: u64, token: u64, index: u32, form: u32) -> Result<Vec<u8>, tw_status> {
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
    progress: None,
};

pub(super) fn descriptor_of(name: &'static str) -> tw_plugin {
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

pub(super) fn library() -> Library {
    let plugin = Box::leak(Box::new(descriptor_of("fixture")));
    // SAFETY: leaked, so it lives as long as the process.
    unsafe { Library::from_plugin(plugin, Path::new("fixture"), "fixture") }.unwrap()
}

pub(super) fn batch(len: i32) -> Vec<Delivered> {
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

/// The ctx and token that a silent instance of this output owes.
pub(super) fn owed(port: &Port) -> Option<(u64, u64)> {
    OWED.lock().unwrap().get_or_insert_default().get(port.output()).copied()
}
