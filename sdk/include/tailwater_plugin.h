/* The border between the Tailwater daemon and an output plugin, for C and C++.
 *
 * Made from sdk/abi/src/lib.rs. Do not edit; after a change there:
 *     TAILWATER_UPDATE_HEADER=1 cargo test -p tailwater-abi --test header
 *
 * A plugin is a shared library libtailwater_NAME.so that defines tailwater_plugin_v0. See examples/c-plugin.
 *
 * Rules both sides keep:
 *
 * 1. Nothing allocated on one side is freed on the other. Host data is borrowed, plugin data is copied during the call.
 * 2. Only structs with C layout, integers and pointer + length cross. No type of Rust or C++ does.
 * 3. A growable struct says its size: `struct_size`, the writer's `sizeof`, is its first field (in tw_plugin the second,
 *    behind `magic`); arrays of growable structs carry their size as a stride instead (tw_event, tw_event_result). A
 *    reader refuses what is shorter than TW_*_SIZE_MIN and tests TW_HAS (Rust: tw_has!) before any field that was not in
 *    the first version of a major.
 * 4. Fields, functions and constants are only ever appended within a major. Reserved fields and flags without a name are
 *    zero when written and not looked at when read.
 * 5. What the plugin hands back later is a number (a token), never a pointer. A token is completed at most once; a late
 *    or second completion is counted and changes nothing.
 * 6. No unwinding crosses, in either direction: no panic, no C++ exception, no longjmp. Catch it before you return.
 * 7. Integers that name a choice are open: an unknown value is legal and must be tolerated.
 *
 * Contracts in brackets: `[thread]` who calls, `[may block]`, `[valid]` how long the pointers given live.
 */
#ifndef TAILWATER_PLUGIN_H
#define TAILWATER_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

/* A plugin's instance: opaque to the host. Cast your own struct's pointer. */
typedef struct tw_instance tw_instance;


// `tw_plugin.magic`: the ASCII bytes `TAILWATR` read as a little-endian u64.
#define TW_MAGIC 5932438452351615316

// Major version of this border. It is part of the entry symbol's name.
#define TW_ABI_MAJOR 0

// Minor version of this border: grows with every appended field, function or constant.
#define TW_ABI_MINOR 1

// First version of [`tw_plugin`], in bytes.
#define TW_PLUGIN_SIZE_MIN 128

// First version of [`tw_vtable`], in bytes.
#define TW_VTABLE_SIZE_MIN 56

// First version of [`tw_validate_args`], in bytes.
#define TW_VALIDATE_ARGS_SIZE_MIN 48

// First version of [`tw_create_args`], in bytes.
#define TW_CREATE_ARGS_SIZE_MIN 56

// First version of [`tw_event`], in bytes: the least `tw_batch.event_stride`.
#define TW_EVENT_SIZE_MIN 200

// First version of [`tw_batch`], in bytes.
#define TW_BATCH_SIZE_MIN 40

// First version of [`tw_event_result`], in bytes: the least `tw_completion.result_stride`.
#define TW_EVENT_RESULT_SIZE_MIN 32

// First version of [`tw_completion`], in bytes.
#define TW_COMPLETION_SIZE_MIN 56

// First version of [`tw_log_record`], in bytes.
#define TW_LOG_RECORD_SIZE_MIN 56

// First version of [`tw_metric`], in bytes.
#define TW_METRIC_SIZE_MIN 56

// First version of [`tw_host`], in bytes.
#define TW_HOST_SIZE_MIN 64

// First version of [`tw_progress`], in bytes.
#define TW_PROGRESS_SIZE_MIN 32

// `tw_completion.flags`: a retry pauses the whole output for `retry_after_ms`, not only the events named.
#define TW_COMPLETE_PAUSE_OUTPUT 1

// `tw_event.flags`: this event was handed out before: `attempt` is above 1. Not set where it repeats after a restart of the
// daemon, which does not remember attempts.
#define TW_EVENT_REDELIVERY 1

// `tw_event.flags`: the event belongs to a transaction.
#define TW_EVENT_IN_TRANSACTION 2

// `tw_plugin.build_flags`: a panic unwinds and can be caught. Set by every library that is not Rust, too.
#define TW_BUILD_PANIC_UNWIND 1

// `tw_plugin.build_flags`: a panic would end the whole process. The host refuses such a library.
#define TW_BUILD_PANIC_ABORT 2

// `tw_plugin.build_flags`: built without optimisation. Only reported.
#define TW_BUILD_DEBUG 4

// `tw_plugin.capabilities`: no durable position; the output's own clients carry theirs.
#define TW_CAP_BROADCAST 1

// `tw_plugin.capabilities`: asks for the JSON of nearly every event, so the host counts it as memory in flight.
#define TW_CAP_WANTS_JSON 2

// Result of a call: 0 is success, negative is an error.
typedef int32_t tw_status;

// What a plugin says of an event, or of a whole batch. An unknown value counts as [`TW_RETRY`].
typedef uint32_t tw_verdict;

// Kind of change. An unknown value is treated as [`TW_OP_OTHER`]; the name is in `tw_event.operation_type`.
typedef uint32_t tw_op;

// A JSON form of an event.
typedef uint32_t tw_json_form;

// Severity of a log record.
typedef uint32_t tw_level;

// Kind of metric.
typedef uint32_t tw_metric_kind;

// Borrowed UTF-8. `ptr` may be null only if `len` is 0. Not NUL-terminated.
typedef struct tw_str {
  // First byte.
  const uint8_t *ptr;
  // Number of bytes.
  size_t len;
} tw_str;

// Where a callee writes text or bytes: zero or more calls of `write` during the call it was given to. The caller copies.
typedef struct tw_sink {
  // Given back to `write` unchanged.
  void *ctx;
  // Appends `len` bytes. `[valid: during the call]`
  void (*write)(void *ctx, const uint8_t *ptr, size_t len);
} tw_sink;

// Arguments of `validate`.
typedef struct tw_validate_args {
  // `sizeof(tw_validate_args)` on the host.
  uint32_t struct_size;
  // Zero.
  uint32_t reserved0;
  // The output's name in `config.toml`; empty where the host does not say.
  struct tw_str output;
  // `[outputs.NAME.options]` as JSON: expanded, and accepted by the schema. `{}` when absent.
  struct tw_str options_json;
  // Where to say what is wrong.
  const struct tw_sink *error;
} tw_validate_args;

// A label of a metric or a field of a log record.
typedef struct tw_kv {
  // Name.
  struct tw_str key;
  // Value as text.
  struct tw_str value;
} tw_kv;

// One log record.
typedef struct tw_log_record {
  // `sizeof(tw_log_record)` when the plugin was built.
  uint32_t struct_size;
  // `TW_LEVEL_*`.
  tw_level level;
  // Module that speaks.
  struct tw_str target;
  // Text.
  struct tw_str message;
  // First field, null when there is none.
  const struct tw_kv *fields;
  // Number of fields.
  size_t field_count;
} tw_log_record;

// What happened to a batch, or to `start` or `stop`. Copied by the host during `complete`.
typedef struct tw_completion {
  // `sizeof(tw_completion)` when the plugin was built.
  uint32_t struct_size;
  // Verdict of every event not listed in `results`.
  tw_verdict verdict;
  // For [`TW_RETRY`]: not before this many milliseconds; 0 leaves it to the host.
  uint64_t retry_after_ms;
  // `TW_COMPLETE_*`.
  uint32_t flags;
  // Zero.
  uint32_t reserved0;
  // Reason, for people.
  struct tw_str message;
  // The first [`tw_event_result`], null when there is none.
  const uint8_t *results;
  // Number of results.
  uint32_t result_count;
  // Bytes from one result to the next.
  uint32_t result_stride;
} tw_completion;

// Borrowed bytes. `ptr` may be null only if `len` is 0. Not NUL-terminated.
typedef struct tw_slice {
  // First byte.
  const uint8_t *ptr;
  // Number of bytes.
  size_t len;
} tw_slice;

// A metric to register.
typedef struct tw_metric {
  // `sizeof(tw_metric)` when the plugin was built.
  uint32_t struct_size;
  // `TW_METRIC_*`.
  tw_metric_kind kind;
  // Name, `[a-z][a-z0-9_]*`. The host puts `tailwater_plugin_` before it.
  struct tw_str name;
  // One sentence for people.
  struct tw_str help;
  // First label, null when there is none. The host adds the label `output`.
  const struct tw_kv *labels;
  // Number of labels.
  size_t label_count;
} tw_metric;

// Services of the host for one output. All functions: `[any thread] [never block] [valid: during the call]`, also from
// inside a call the host made. A null function is not offered. The struct lives as long as the process.
typedef struct tw_host {
  // `sizeof(tw_host)` on the host.
  uint32_t struct_size;
  // The host's major.
  uint16_t abi_major;
  // The host's minor.
  uint16_t abi_minor;
  // First argument of every function below.
  uint64_t ctx;
  // Highest level that is written, `TW_LEVEL_*`; an atomic u32 of the host, read it relaxed.
  const uint32_t *log_level;
  // Writes a log record into the daemon's log.
  void (*log)(uint64_t ctx, const struct tw_log_record *record);
  // Completes a token. A stale or repeated one is counted and changes nothing.
  void (*complete)(uint64_t ctx, uint64_t token, const struct tw_completion *completion);
  // JSON of event `index` of the batch that `token` stands for: made at most once for all outputs. `out` is valid until
  // the token is completed. [`TW_E_DATA`] where this event can never be written as JSON.
  tw_status (*json)(uint64_t ctx, uint64_t token, uint32_t index, tw_json_form form, struct tw_slice *out);
  // Registers a metric and gives its number; 0 when refused (bad name, too many). The same name and labels give the same number.
  uint64_t (*metric_register)(uint64_t ctx, const struct tw_metric *metric);
  // Adds to a counter or sets a gauge.
  void (*metric_record)(uint64_t ctx, uint64_t metric, double value);
  // Since minor 1. A broadcast output wants its stream to begin `age_ms` before now, to fill its history; to be said before
  // `start` completes, where it counts for the daemon's own start. The stream begins as far back as the oplog reaches;
  // `tw_progress.complete_from` says where that is. [`TW_E_INVALID`] from an output that is not a broadcast.
  tw_status (*want_history)(uint64_t ctx, uint64_t age_ms);
} tw_host;

// Arguments of `create`.
typedef struct tw_create_args {
  // `sizeof(tw_create_args)` on the host.
  uint32_t struct_size;
  // Zero.
  uint32_t reserved0;
  // Services of the host for this instance. Valid as long as the process.
  const struct tw_host *host;
  // The output's name in `config.toml`.
  struct tw_str output;
  // `[outputs.NAME.options]` as JSON: expanded, and accepted by the schema. `{}` when absent.
  struct tw_str options_json;
  // Where to say why it failed.
  const struct tw_sink *error;
} tw_create_args;

// A batch of events.
typedef struct tw_batch {
  // `sizeof(tw_batch)` on the host.
  uint32_t struct_size;
  // Bytes from one event to the next.
  uint32_t event_stride;
  // Number of events, at least 1.
  uint32_t len;
  // Zero.
  uint32_t reserved0;
  // Sum of the events' BSON bytes.
  uint64_t bytes;
  // The first [`tw_event`].
  const uint8_t *events;
  // Milliseconds until the host gives the batch up; 0 = none.
  uint64_t timeout_ms;
} tw_batch;

// How far the stream of a broadcast output has come (see [`TW_CAP_BROADCAST`]). Times are MongoDB timestamps: seconds in the
// high half, increment in the low. Since minor 1.
typedef struct tw_progress {
  // `sizeof(tw_progress)` on the host.
  uint32_t struct_size;
  // Zero.
  uint32_t reserved0;
  // This instance is given every event of the output from this time on, inclusive. Nothing is known of earlier ones.
  uint64_t complete_from;
  // Events before this time were there before the output was: they fill its history and are news to nobody.
  uint64_t live_from;
  // Every event before this time, exclusive, was given and completed.
  uint64_t reached;
} tw_progress;

// A plugin's functions. A null function is not offered; `create`, `deliver` and `destroy` must be there.
//
// The host calls an instance's functions from one thread that belongs to this instance, never two at once. A function that
// blocks delays only its own output. An instance is given up when `create` and `start` together have not completed within 30
// seconds, a batch is not completed within the output's `timeout`, or `stop` and `destroy` take longer than the grace that the
// operator gave. It is then not called again but for `destroy`, once the call it is in returns.
typedef struct tw_vtable {
  // `sizeof(tw_vtable)` when the plugin was built.
  uint32_t struct_size;
  // Zero.
  uint32_t reserved0;
  // Checks what the schema cannot say. No connection, no thread. `[any thread] [may block] [valid: during the call]`
  tw_status (*validate)(const struct tw_validate_args *args);
  // Makes an instance. Connects nothing. `[instance thread] [may block] [valid: during the call, `host` as long as the process]`
  tw_status (*create)(const struct tw_create_args *args, tw_instance **out);
  // Binds and connects, then completes `token`: ack, retry (the host tries again later) or fatal, with the reason.
  // `[instance thread]`
  tw_status (*start)(tw_instance *instance, uint64_t token);
  // Takes a batch and owes one completion of `token`, which may come before this returns and from any thread. A result
  // other than [`TW_OK`] means "not taken": the batch counts as failed. `[instance thread] [valid: until the token is completed]`
  tw_status (*deliver)(tw_instance *instance, const struct tw_batch *batch, uint64_t token);
  // Ends the work in hand within `deadline_ms`, then completes `token`. `[instance thread]`
  tw_status (*stop)(tw_instance *instance, uint64_t deadline_ms, uint64_t token);
  // On return no thread runs code of this instance and none of its host functions will be called. `[instance thread] [may block]`
  void (*destroy)(tw_instance *instance);
  // Since minor 1. How far the stream of a broadcast output has come: once before the first batch, then again as it
  // goes on, also where there are no events, about once a second at most. `[instance thread] [never block] [valid: during the call]`
  void (*progress)(tw_instance *instance, const struct tw_progress *progress);
} tw_vtable;

// What a library says of itself. Static: lives as long as the process. Readable before anything is started.
typedef struct tw_plugin {
  // [`TW_MAGIC`].
  uint64_t magic;
  // `sizeof(tw_plugin)` when the plugin was built.
  uint32_t struct_size;
  // Major it was built against. The host loads no other than its own.
  uint16_t abi_major;
  // Minor it was built against. Any value is fine.
  uint16_t abi_minor;
  // Oldest host minor it can run on, usually 0.
  uint16_t min_host_minor;
  // Zero.
  uint16_t reserved0;
  // `TW_BUILD_*`.
  uint32_t build_flags;
  // Name of the plugin, `stdout` for `libtailwater_stdout.so`.
  struct tw_str name;
  // Version of the plugin.
  struct tw_str version;
  // What it was built with, `tailwater-sdk/0.1.0`. Only reported, never compared.
  struct tw_str sdk;
  // One sentence for people.
  struct tw_str summary;
  // JSON Schema (2020-12) of `[outputs.NAME.options]`; the text `true` accepts anything.
  struct tw_str options_schema;
  // `TW_CAP_*`. Unknown bits are ignored.
  uint64_t capabilities;
  // Most events it wants in a batch where the operator says nothing; 0 leaves it to the host.
  uint32_t batch_events_max;
  // Zero.
  uint32_t reserved1;
  // What it can do.
  const struct tw_vtable *vtable;
} tw_plugin;

// The exported function, [`TW_ENTRY_SYMBOL`]. `[any thread] [may be called often]` Starts no thread and
// connects nothing; every call gives the same pointer, null means that the library cannot describe itself.
typedef const struct tw_plugin *(*tw_plugin_entry)(void);

// One change event. May grow: index with `tw_batch.event_stride`. Every pointer is valid until the batch's token is completed.
typedef struct tw_event {
  // Event id: 33 safe characters, the same in every output and after every redelivery.
  struct tw_str id;
  // Ordering key, from namespace and `documentKey._id`; 0 where the event has no document.
  uint64_t key;
  // `TW_OP_*`.
  tw_op op;
  // `TW_EVENT_*`.
  uint32_t flags;
  // 1 on first delivery.
  uint32_t attempt;
  // Zero.
  uint32_t reserved0;
  // MongoDB timestamp of the resume token: seconds in the high half, increment in the low.
  uint64_t cluster_time;
  // Milliseconds since the Unix epoch; 0 where the server did not say (before 6.0).
  int64_t wall_time_ms;
  // The server's own name of the operation type.
  struct tw_str operation_type;
  // Database, empty where the event has none.
  struct tw_str db;
  // Collection, empty where the event has none.
  struct tw_str coll;
  // The whole change event as the server sent it: a BSON document.
  struct tw_slice raw;
  // BSON document inside `raw`; `{null, 0}` when absent.
  struct tw_slice document_key;
  // BSON document inside `raw`; `{null, 0}` when absent or null.
  struct tw_slice full_document;
  // BSON document inside `raw`; `{null, 0}` when absent or null.
  struct tw_slice full_document_before_change;
  // BSON document inside `raw`; `{null, 0}` when absent.
  struct tw_slice update_description;
  // The resume token, a BSON document. Opaque. Without the document's key where the output's `project` withholds that.
  struct tw_slice resume_token;
} tw_event;

// What happened to one event of a batch.
typedef struct tw_event_result {
  // Index in the batch.
  uint32_t index;
  // Its verdict.
  tw_verdict verdict;
  // For [`TW_RETRY`]: not before this many milliseconds; 0 leaves it to the host.
  uint64_t retry_after_ms;
  // Reason, for people.
  struct tw_str message;
} tw_event_result;

// Done, or accepted.
#define TW_OK 0

// An argument is out of range or not valid at this time.
#define TW_E_INVALID -1

// The options are not acceptable; the reason is in the sink.
#define TW_E_OPTIONS -2

// This side does not offer what was asked for.
#define TW_E_UNSUPPORTED -3

// The callee panicked; the panic was caught on its side.
#define TW_E_PANIC -4

// Anything else; the reason is in the log.
#define TW_E_INTERNAL -5

// This event itself cannot be given in the form asked for, now or later: an output rejects it. Any other error may pass.
#define TW_E_DATA -6

// Delivered: the event is settled.
#define TW_ACK 0

// Passing trouble: deliver again, after `retry_after_ms` or after the host's own backoff where that is 0.
#define TW_RETRY 1

// This event can never be delivered: the operator's `on_reject` decides.
#define TW_REJECT 2

// This output cannot go on (credentials revoked, topic deleted): it stops until an operator resumes it.
#define TW_FATAL 3

// This instance cannot be trusted any more (it panicked): deliver again, on a new instance.
#define TW_FAILED 4

// Any operation type not named below.
#define TW_OP_OTHER 0

// `insert`
#define TW_OP_INSERT 1

// `update`
#define TW_OP_UPDATE 2

// `replace`
#define TW_OP_REPLACE 3

// `delete`
#define TW_OP_DELETE 4

// `drop`
#define TW_OP_DROP 5

// `rename`
#define TW_OP_RENAME 6

// `dropDatabase`
#define TW_OP_DROP_DATABASE 7

// The form the operator chose for this output (`json = …`), in its `envelope`.
#define TW_JSON_CONFIGURED 0

// MongoDB Extended JSON v2, relaxed.
#define TW_JSON_RELAXED 1

// MongoDB Extended JSON v2, canonical.
#define TW_JSON_CANONICAL 2

// ObjectId as a hex string, dates as RFC 3339. Loses types.
#define TW_JSON_PLAIN 3

// Something failed that an operator must know of.
#define TW_LEVEL_ERROR 1

// Something is wrong but the work goes on.
#define TW_LEVEL_WARN 2

// A notable change of state.
#define TW_LEVEL_INFO 3

// For whoever looks for a fault.
#define TW_LEVEL_DEBUG 4

// Everything.
#define TW_LEVEL_TRACE 5

// Only grows; `metric_record` adds.
#define TW_METRIC_COUNTER 1

// Goes up and down; `metric_record` sets.
#define TW_METRIC_GAUGE 2


#ifndef TW_HAS
/* True when `field` lies inside the struct that the other side was compiled with. `ptr` must not be null.
 * Ask before reading a field that was not in the first version of a major. */
#define TW_HAS(ptr, type, field) \
    ((ptr)->struct_size >= offsetof(type, field) + sizeof(((type *)0)->field))
#endif

#if defined(__GNUC__) || defined(__clang__)
#define TW_EXPORT __attribute__((visibility("default")))
#else
#define TW_EXPORT
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The one function that a plugin defines. Starts no thread and connects nothing; gives the same pointer on every call. */
TW_EXPORT const tw_plugin *tailwater_plugin_v0(void);

#ifdef __cplusplus
}
#endif

#if UINTPTR_MAX == UINT64_MAX
#ifdef __cplusplus
#define TW_LAYOUT(type, bytes) static_assert(sizeof(type) == bytes, #type)
#else
#define TW_LAYOUT(type, bytes) _Static_assert(sizeof(type) == bytes, #type)
#endif
TW_LAYOUT(tw_plugin, 128);
TW_LAYOUT(tw_vtable, 64);
TW_LAYOUT(tw_validate_args, 48);
TW_LAYOUT(tw_create_args, 56);
TW_LAYOUT(tw_event, 200);
TW_LAYOUT(tw_batch, 40);
TW_LAYOUT(tw_event_result, 32);
TW_LAYOUT(tw_completion, 56);
TW_LAYOUT(tw_log_record, 56);
TW_LAYOUT(tw_metric, 56);
TW_LAYOUT(tw_host, 72);
TW_LAYOUT(tw_progress, 32);
#undef TW_LAYOUT
#endif

#endif /* TAILWATER_PLUGIN_H */
