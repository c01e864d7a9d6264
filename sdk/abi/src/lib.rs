//! The border between the Tailwater daemon (host) and an output plugin: layouts and numbers, no behaviour.
//!
//! Rules both sides keep:
//!
//! 1. Nothing allocated on one side is freed on the other. Host data is borrowed, plugin data is copied during the call.
//! 2. Only structs with C layout, integers and pointer + length cross. No type of Rust or C++ does.
//! 3. A growable struct says its size: `struct_size`, the writer's `sizeof`, is its first field (in tw_plugin the second,
//!    behind `magic`); arrays of growable structs carry their size as a stride instead (tw_event, tw_event_result). A
//!    reader refuses what is shorter than TW_*_SIZE_MIN and tests TW_HAS (Rust: tw_has!) before any field that was not in
//!    the first version of a major.
//! 4. Fields, functions and constants are only ever appended within a major. Reserved fields and flags without a name are
//!    zero when written and not looked at when read.
//! 5. What the plugin hands back later is a number (a token), never a pointer. A token is completed at most once; a late
//!    or second completion is counted and changes nothing.
//! 6. No unwinding crosses, in either direction: no panic, no C++ exception, no longjmp. Catch it before you return.
//! 7. Integers that name a choice are open: an unknown value is legal and must be tolerated.
//!
//! Contracts in brackets: `[thread]` who calls, `[may block]`, `[valid]` how long the pointers given live.
#![no_std]
#![allow(non_camel_case_types)]

mod layout;

use core::ffi::c_void;

/// `tw_plugin.magic`: the ASCII bytes `TAILWATR` read as a little-endian u64.
pub const TW_MAGIC: u64 = 0x5254_4157_4C49_4154;
/// Major version of this border. It is part of the entry symbol's name.
pub const TW_ABI_MAJOR: u16 = 0;
/// Minor version of this border: grows with every appended field, function or constant.
pub const TW_ABI_MINOR: u16 = 1;
/// The one symbol a plugin exports, see [`tw_plugin_entry`].
pub const TW_ENTRY_SYMBOL: &str = "tailwater_plugin_v0";

// ---- sizes of the first version ----------------------------------------------------------------
//
// What a reader asks for at least. `sizeof` is what a writer says of itself; to ask for it would refuse every older peer as soon as
// a field is appended. These numbers never change within a major.

/// First version of [`tw_plugin`], in bytes.
pub const TW_PLUGIN_SIZE_MIN: u32 = 128;
/// First version of [`tw_vtable`], in bytes.
pub const TW_VTABLE_SIZE_MIN: u32 = 56;
/// First version of [`tw_validate_args`], in bytes.
pub const TW_VALIDATE_ARGS_SIZE_MIN: u32 = 48;
/// First version of [`tw_create_args`], in bytes.
pub const TW_CREATE_ARGS_SIZE_MIN: u32 = 56;
/// First version of [`tw_event`], in bytes: the least `tw_batch.event_stride`.
pub const TW_EVENT_SIZE_MIN: u32 = 200;
/// First version of [`tw_batch`], in bytes.
pub const TW_BATCH_SIZE_MIN: u32 = 40;
/// First version of [`tw_event_result`], in bytes: the least `tw_completion.result_stride`.
pub const TW_EVENT_RESULT_SIZE_MIN: u32 = 32;
/// First version of [`tw_completion`], in bytes.
pub const TW_COMPLETION_SIZE_MIN: u32 = 56;
/// First version of [`tw_log_record`], in bytes.
pub const TW_LOG_RECORD_SIZE_MIN: u32 = 56;
/// First version of [`tw_metric`], in bytes.
pub const TW_METRIC_SIZE_MIN: u32 = 56;
/// First version of [`tw_host`], in bytes.
pub const TW_HOST_SIZE_MIN: u32 = 64;
/// First version of [`tw_progress`], in bytes.
pub const TW_PROGRESS_SIZE_MIN: u32 = 32;

// ---- frozen value types: never grow within a major ---------------------------------------------

/// Borrowed bytes. `ptr` may be null only if `len` is 0. Not NUL-terminated.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tw_slice {
    /// First byte.
    pub ptr: *const u8,
    /// Number of bytes.
    pub len: usize,
}

/// Borrowed UTF-8. `ptr` may be null only if `len` is 0. Not NUL-terminated.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tw_str {
    /// First byte.
    pub ptr: *const u8,
    /// Number of bytes.
    pub len: usize,
}

/// Where a callee writes text or bytes: zero or more calls of `write` during the call it was given to. The caller copies.
#[repr(C)]
pub struct tw_sink {
    /// Given back to `write` unchanged.
    pub ctx: *mut c_void,
    /// Appends `len` bytes. `[valid: during the call]`
    pub write: Option<unsafe extern "C" fn(ctx: *mut c_void, ptr: *const u8, len: usize)>,
}

/// A label of a metric or a field of a log record.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tw_kv {
    /// Name.
    pub key: tw_str,
    /// Value as text.
    pub value: tw_str,
}

// ---- numbers -----------------------------------------------------------------------------------

/// Result of a call: 0 is success, negative is an error.
pub type tw_status = i32;
/// Done, or accepted.
pub const TW_OK: tw_status = 0;
/// An argument is out of range or not valid at this time.
pub const TW_E_INVALID: tw_status = -1;
/// The options are not acceptable; the reason is in the sink.
pub const TW_E_OPTIONS: tw_status = -2;
/// This side does not offer what was asked for.
pub const TW_E_UNSUPPORTED: tw_status = -3;
/// The callee panicked; the panic was caught on its side.
pub const TW_E_PANIC: tw_status = -4;
/// Anything else; the reason is in the log.
pub const TW_E_INTERNAL: tw_status = -5;
/// This event itself cannot be given in the form asked for, now or later: an output rejects it. Any other error may pass.
pub const TW_E_DATA: tw_status = -6;

/// What a plugin says of an event, or of a whole batch. An unknown value counts as [`TW_RETRY`].
pub type tw_verdict = u32;
/// Delivered: the event is settled.
pub const TW_ACK: tw_verdict = 0;
/// Passing trouble: deliver again, after `retry_after_ms` or after the host's own backoff where that is 0.
pub const TW_RETRY: tw_verdict = 1;
/// This event can never be delivered: the operator's `on_reject` decides.
pub const TW_REJECT: tw_verdict = 2;
/// This output cannot go on (credentials revoked, topic deleted): it stops until an operator resumes it.
pub const TW_FATAL: tw_verdict = 3;
/// This instance cannot be trusted any more (it panicked): deliver again, on a new instance.
pub const TW_FAILED: tw_verdict = 4;

/// `tw_completion.flags`: a retry pauses the whole output for `retry_after_ms`, not only the events named.
pub const TW_COMPLETE_PAUSE_OUTPUT: u32 = 0x1;

/// Kind of change. An unknown value is treated as [`TW_OP_OTHER`]; the name is in `tw_event.operation_type`.
pub type tw_op = u32;
/// Any operation type not named below.
pub const TW_OP_OTHER: tw_op = 0;
/// `insert`
pub const TW_OP_INSERT: tw_op = 1;
/// `update`
pub const TW_OP_UPDATE: tw_op = 2;
/// `replace`
pub const TW_OP_REPLACE: tw_op = 3;
/// `delete`
pub const TW_OP_DELETE: tw_op = 4;
/// `drop`
pub const TW_OP_DROP: tw_op = 5;
/// `rename`
pub const TW_OP_RENAME: tw_op = 6;
/// `dropDatabase`
pub const TW_OP_DROP_DATABASE: tw_op = 7;

/// `tw_event.flags`: this event was handed out before: `attempt` is above 1. Not set where it repeats after a restart of the
/// daemon, which does not remember attempts.
pub const TW_EVENT_REDELIVERY: u32 = 0x1;
/// `tw_event.flags`: the event belongs to a transaction.
pub const TW_EVENT_IN_TRANSACTION: u32 = 0x2;

/// A JSON form of an event.
pub type tw_json_form = u32;
/// The form the operator chose for this output (`json = …`), in its `envelope`.
pub const TW_JSON_CONFIGURED: tw_json_form = 0;
/// MongoDB Extended JSON v2, relaxed.
pub const TW_JSON_RELAXED: tw_json_form = 1;
/// MongoDB Extended JSON v2, canonical.
pub const TW_JSON_CANONICAL: tw_json_form = 2;
/// ObjectId as a hex string, dates as RFC 3339. Loses types.
pub const TW_JSON_PLAIN: tw_json_form = 3;

/// `tw_plugin.build_flags`: a panic unwinds and can be caught. Set by every library that is not Rust, too.
pub const TW_BUILD_PANIC_UNWIND: u32 = 0x1;
/// `tw_plugin.build_flags`: a panic would end the whole process. The host refuses such a library.
pub const TW_BUILD_PANIC_ABORT: u32 = 0x2;
/// `tw_plugin.build_flags`: built without optimisation. Only reported.
pub const TW_BUILD_DEBUG: u32 = 0x4;

/// `tw_plugin.capabilities`: no durable position; the output's own clients carry theirs.
pub const TW_CAP_BROADCAST: u64 = 0x1;
/// `tw_plugin.capabilities`: asks for the JSON of nearly every event, so the host counts it as memory in flight.
pub const TW_CAP_WANTS_JSON: u64 = 0x2;

/// Severity of a log record.
pub type tw_level = u32;
/// Something failed that an operator must know of.
pub const TW_LEVEL_ERROR: tw_level = 1;
/// Something is wrong but the work goes on.
pub const TW_LEVEL_WARN: tw_level = 2;
/// A notable change of state.
pub const TW_LEVEL_INFO: tw_level = 3;
/// For whoever looks for a fault.
pub const TW_LEVEL_DEBUG: tw_level = 4;
/// Everything.
pub const TW_LEVEL_TRACE: tw_level = 5;

/// Kind of metric.
pub type tw_metric_kind = u32;
/// Only grows; `metric_record` adds.
pub const TW_METRIC_COUNTER: tw_metric_kind = 1;
/// Goes up and down; `metric_record` sets.
pub const TW_METRIC_GAUGE: tw_metric_kind = 2;

// ---- plugin -> host: what the library is -------------------------------------------------------

/// What a library says of itself. Static: lives as long as the process. Readable before anything is started.
#[repr(C)]
pub struct tw_plugin {
    /// [`TW_MAGIC`].
    pub magic: u64,
    /// `sizeof(tw_plugin)` when the plugin was built.
    pub struct_size: u32,
    /// Major it was built against. The host loads no other than its own.
    pub abi_major: u16,
    /// Minor it was built against. Any value is fine.
    pub abi_minor: u16,
    /// Oldest host minor it can run on, usually 0.
    pub min_host_minor: u16,
    /// Zero.
    pub reserved0: u16,
    /// `TW_BUILD_*`.
    pub build_flags: u32,
    /// Name of the plugin, `stdout` for `libtailwater_stdout.so`.
    pub name: tw_str,
    /// Version of the plugin.
    pub version: tw_str,
    /// What it was built with, `tailwater-sdk/0.1.0`. Only reported, never compared.
    pub sdk: tw_str,
    /// One sentence for people.
    pub summary: tw_str,
    /// JSON Schema (2020-12) of `[outputs.NAME.options]`; the text `true` accepts anything.
    pub options_schema: tw_str,
    /// `TW_CAP_*`. Unknown bits are ignored.
    pub capabilities: u64,
    /// Most events it wants in a batch where the operator says nothing; 0 leaves it to the host.
    pub batch_events_max: u32,
    /// Zero.
    pub reserved1: u32,
    /// What it can do.
    pub vtable: *const tw_vtable,
}

/// The exported function, [`TW_ENTRY_SYMBOL`]. `[any thread] [may be called often]` Starts no thread and
/// connects nothing; every call gives the same pointer, null means that the library cannot describe itself.
pub type tw_plugin_entry = unsafe extern "C" fn() -> *const tw_plugin;

/// A plugin's instance: opaque to the host.
#[repr(C)]
pub struct tw_instance {
    _opaque: [u8; 0],
}

/// A plugin's functions. A null function is not offered; `create`, `deliver` and `destroy` must be there.
///
/// The host calls an instance's functions from one thread that belongs to this instance, never two at once. A function that
/// blocks delays only its own output. An instance is given up when `create` and `start` together have not completed within 30
/// seconds, a batch is not completed within the output's `timeout`, or `stop` and `destroy` take longer than the grace that the
/// operator gave. It is then not called again but for `destroy`, once the call it is in returns.
#[repr(C)]
pub struct tw_vtable {
    /// `sizeof(tw_vtable)` when the plugin was built.
    pub struct_size: u32,
    /// Zero.
    pub reserved0: u32,
    /// Checks what the schema cannot say. No connection, no thread. `[any thread] [may block] [valid: during the call]`
    pub validate: Option<unsafe extern "C" fn(args: *const tw_validate_args) -> tw_status>,
    /// Makes an instance. Connects nothing. `[instance thread] [may block] [valid: during the call, `host` as long as the process]`
    pub create: Option<unsafe extern "C" fn(args: *const tw_create_args, out: *mut *mut tw_instance) -> tw_status>,
    /// Binds and connects, then completes `token`: ack, retry (the host tries again later) or fatal, with the reason.
    /// `[instance thread]`
    pub start: Option<unsafe extern "C" fn(instance: *mut tw_instance, token: u64) -> tw_status>,
    /// Takes a batch and owes one completion of `token`, which may come before this returns and from any thread. A result
    /// other than [`TW_OK`] means "not taken": the batch counts as failed. `[instance thread] [valid: until the token is completed]`
    pub deliver:
        Option<unsafe extern "C" fn(instance: *mut tw_instance, batch: *const tw_batch, token: u64) -> tw_status>,
    /// Ends the work in hand within `deadline_ms`, then completes `token`. `[instance thread]`
    pub stop: Option<unsafe extern "C" fn(instance: *mut tw_instance, deadline_ms: u64, token: u64) -> tw_status>,
    /// On return no thread runs code of this instance and none of its host functions will be called. `[instance thread] [may block]`
    pub destroy: Option<unsafe extern "C" fn(instance: *mut tw_instance)>,
    /// Since minor 1. How far the stream of a broadcast output has come: once before the first batch, then again as it
    /// goes on, also where there are no events, about once a second at most. `[instance thread] [never block] [valid: during the call]`
    pub progress: Option<unsafe extern "C" fn(instance: *mut tw_instance, progress: *const tw_progress)>,
}

/// Arguments of `validate`.
#[repr(C)]
pub struct tw_validate_args {
    /// `sizeof(tw_validate_args)` on the host.
    pub struct_size: u32,
    /// Zero.
    pub reserved0: u32,
    /// The output's name in `config.toml`; empty where the host does not say.
    pub output: tw_str,
    /// `[outputs.NAME.options]` as JSON: expanded, and accepted by the schema. `{}` when absent.
    pub options_json: tw_str,
    /// Where to say what is wrong.
    pub error: *const tw_sink,
}

/// Arguments of `create`.
#[repr(C)]
pub struct tw_create_args {
    /// `sizeof(tw_create_args)` on the host.
    pub struct_size: u32,
    /// Zero.
    pub reserved0: u32,
    /// Services of the host for this instance. Valid as long as the process.
    pub host: *const tw_host,
    /// The output's name in `config.toml`.
    pub output: tw_str,
    /// `[outputs.NAME.options]` as JSON: expanded, and accepted by the schema. `{}` when absent.
    pub options_json: tw_str,
    /// Where to say why it failed.
    pub error: *const tw_sink,
}

// ---- host -> plugin: events --------------------------------------------------------------------

/// One change event. May grow: index with `tw_batch.event_stride`. Every pointer is valid until the batch's token is completed.
#[repr(C)]
pub struct tw_event {
    /// Event id: 33 safe characters, the same in every output and after every redelivery.
    pub id: tw_str,
    /// Ordering key, from namespace and `documentKey._id`; 0 where the event has no document.
    pub key: u64,
    /// `TW_OP_*`.
    pub op: tw_op,
    /// `TW_EVENT_*`.
    pub flags: u32,
    /// 1 on first delivery.
    pub attempt: u32,
    /// Zero.
    pub reserved0: u32,
    /// MongoDB timestamp of the resume token: seconds in the high half, increment in the low.
    pub cluster_time: u64,
    /// Milliseconds since the Unix epoch; 0 where the server did not say (before 6.0).
    pub wall_time_ms: i64,
    /// The server's own name of the operation type.
    pub operation_type: tw_str,
    /// Database, empty where the event has none.
    pub db: tw_str,
    /// Collection, empty where the event has none.
    pub coll: tw_str,
    /// The whole change event as the server sent it: a BSON document.
    pub raw: tw_slice,
    /// BSON document inside `raw`; `{null, 0}` when absent.
    pub document_key: tw_slice,
    /// BSON document inside `raw`; `{null, 0}` when absent or null.
    pub full_document: tw_slice,
    /// BSON document inside `raw`; `{null, 0}` when absent or null.
    pub full_document_before_change: tw_slice,
    /// BSON document inside `raw`; `{null, 0}` when absent.
    pub update_description: tw_slice,
    /// The resume token, a BSON document. Opaque. Without the document's key where the output's `project` withholds that.
    pub resume_token: tw_slice,
}

/// A batch of events.
#[repr(C)]
pub struct tw_batch {
    /// `sizeof(tw_batch)` on the host.
    pub struct_size: u32,
    /// Bytes from one event to the next.
    pub event_stride: u32,
    /// Number of events, at least 1.
    pub len: u32,
    /// Zero.
    pub reserved0: u32,
    /// Sum of the events' BSON bytes.
    pub bytes: u64,
    /// The first [`tw_event`].
    pub events: *const u8,
    /// Milliseconds until the host gives the batch up; 0 = none.
    pub timeout_ms: u64,
}

/// How far the stream of a broadcast output has come (see [`TW_CAP_BROADCAST`]). Times are MongoDB timestamps: seconds in the
/// high half, increment in the low. Since minor 1.
#[repr(C)]
pub struct tw_progress {
    /// `sizeof(tw_progress)` on the host.
    pub struct_size: u32,
    /// Zero.
    pub reserved0: u32,
    /// This instance is given every event of the output from this time on, inclusive. Nothing is known of earlier ones.
    pub complete_from: u64,
    /// Events before this time were there before the output was: they fill its history and are news to nobody.
    pub live_from: u64,
    /// Every event before this time, exclusive, was given and completed.
    pub reached: u64,
}

// ---- plugin -> host: completions ---------------------------------------------------------------

/// What happened to one event of a batch.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tw_event_result {
    /// Index in the batch.
    pub index: u32,
    /// Its verdict.
    pub verdict: tw_verdict,
    /// For [`TW_RETRY`]: not before this many milliseconds; 0 leaves it to the host.
    pub retry_after_ms: u64,
    /// Reason, for people.
    pub message: tw_str,
}

/// What happened to a batch, or to `start` or `stop`. Copied by the host during `complete`.
#[repr(C)]
pub struct tw_completion {
    /// `sizeof(tw_completion)` when the plugin was built.
    pub struct_size: u32,
    /// Verdict of every event not listed in `results`.
    pub verdict: tw_verdict,
    /// For [`TW_RETRY`]: not before this many milliseconds; 0 leaves it to the host.
    pub retry_after_ms: u64,
    /// `TW_COMPLETE_*`.
    pub flags: u32,
    /// Zero.
    pub reserved0: u32,
    /// Reason, for people.
    pub message: tw_str,
    /// The first [`tw_event_result`], null when there is none.
    pub results: *const u8,
    /// Number of results.
    pub result_count: u32,
    /// Bytes from one result to the next.
    pub result_stride: u32,
}

// ---- host services -----------------------------------------------------------------------------

/// One log record.
#[repr(C)]
pub struct tw_log_record {
    /// `sizeof(tw_log_record)` when the plugin was built.
    pub struct_size: u32,
    /// `TW_LEVEL_*`.
    pub level: tw_level,
    /// Module that speaks.
    pub target: tw_str,
    /// Text.
    pub message: tw_str,
    /// First field, null when there is none.
    pub fields: *const tw_kv,
    /// Number of fields.
    pub field_count: usize,
}

/// A metric to register.
#[repr(C)]
pub struct tw_metric {
    /// `sizeof(tw_metric)` when the plugin was built.
    pub struct_size: u32,
    /// `TW_METRIC_*`.
    pub kind: tw_metric_kind,
    /// Name, `[a-z][a-z0-9_]*`. The host puts `tailwater_plugin_` before it.
    pub name: tw_str,
    /// One sentence for people.
    pub help: tw_str,
    /// First label, null when there is none. The host adds the label `output`.
    pub labels: *const tw_kv,
    /// Number of labels.
    pub label_count: usize,
}

/// Services of the host for one output. All functions: `[any thread] [never block] [valid: during the call]`, also from
/// inside a call the host made. A null function is not offered. The struct lives as long as the process.
#[repr(C)]
pub struct tw_host {
    /// `sizeof(tw_host)` on the host.
    pub struct_size: u32,
    /// The host's major.
    pub abi_major: u16,
    /// The host's minor.
    pub abi_minor: u16,
    /// First argument of every function below.
    pub ctx: u64,
    /// Highest level that is written, `TW_LEVEL_*`; an atomic u32 of the host, read it relaxed.
    pub log_level: *const u32,
    /// Writes a log record into the daemon's log.
    pub log: Option<unsafe extern "C" fn(ctx: u64, record: *const tw_log_record)>,
    /// Completes a token. A stale or repeated one is counted and changes nothing.
    pub complete: Option<unsafe extern "C" fn(ctx: u64, token: u64, completion: *const tw_completion)>,
    /// JSON of event `index` of the batch that `token` stands for: made at most once for all outputs. `out` is valid until
    /// the token is completed. [`TW_E_DATA`] where this event can never be written as JSON.
    pub json: Option<
        unsafe extern "C" fn(ctx: u64, token: u64, index: u32, form: tw_json_form, out: *mut tw_slice) -> tw_status,
    >,
    /// Registers a metric and gives its number; 0 when refused (bad name, too many). The same name and labels give the same number.
    pub metric_register: Option<unsafe extern "C" fn(ctx: u64, metric: *const tw_metric) -> u64>,
    /// Adds to a counter or sets a gauge.
    pub metric_record: Option<unsafe extern "C" fn(ctx: u64, metric: u64, value: f64)>,
    /// Since minor 1. A broadcast output wants its stream to begin `age_ms` before now, to fill its history; to be said before
    /// `start` completes, where it counts for the daemon's own start. The stream begins as far back as the oplog reaches;
    /// `tw_progress.complete_from` says where that is. [`TW_E_INVALID`] from an output that is not a broadcast.
    pub want_history: Option<unsafe extern "C" fn(ctx: u64, age_ms: u64) -> tw_status>,
}

// SAFETY: the pointers in these structs lead to static, never written data on the plugin's side.
unsafe impl Sync for tw_plugin {}
// SAFETY: functions and integers only.
unsafe impl Sync for tw_vtable {}
// SAFETY: borrowed read-only data; whoever holds one vouches for its lifetime.
unsafe impl Send for tw_slice {}
// SAFETY: as above.
unsafe impl Sync for tw_slice {}
// SAFETY: as above.
unsafe impl Send for tw_str {}
// SAFETY: as above.
unsafe impl Sync for tw_str {}

impl tw_slice {
    /// No bytes.
    pub const NONE: Self = Self { ptr: core::ptr::null(), len: 0 };

    /// Borrows `bytes`; the caller vouches that they outlive every use.
    pub const fn new(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }
}

impl tw_str {
    /// No text.
    pub const NONE: Self = Self { ptr: core::ptr::null(), len: 0 };

    /// Borrows `text`; the caller vouches that it outlives every use.
    pub const fn new(text: &str) -> Self {
        Self { ptr: text.as_ptr(), len: text.len() }
    }
}

/// True when `$field` lies inside the struct the writer was compiled with. `$ptr` must point to a live `$ty`.
#[macro_export]
macro_rules! tw_has {
    ($ptr:expr, $ty:ty, $field:ident) => {{
        const fn size_of_field<T>(_: *const T) -> usize {
            core::mem::size_of::<T>()
        }
        const END: usize = {
            let value = core::mem::MaybeUninit::<$ty>::uninit();
            // SAFETY: only the address is taken, nothing is read.
            core::mem::offset_of!($ty, $field) + size_of_field(unsafe { &raw const (*value.as_ptr()).$field })
        };
        (*$ptr).struct_size as usize >= END
    }};
}

/// Copies as much of a growable struct as both sides know. What the writer did not know is zero: null, none, off.
///
/// # Safety
/// `ptr` leads to `size` readable bytes that begin as a `T` does, and zeros are a valid `T`, as of every struct of the border.
pub unsafe fn tw_copy<T>(ptr: *const T, size: u32) -> T {
    let mut copy = core::mem::MaybeUninit::<T>::zeroed();
    let size = (size as usize).min(size_of::<T>());
    // SAFETY: both sides hold at least `size` bytes; the rest stays zero, which the caller vouches for.
    unsafe {
        core::ptr::copy_nonoverlapping(ptr.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), size);
        copy.assume_init()
    }
}

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the border is laid out for 64-bit targets only");
