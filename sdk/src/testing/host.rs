//! The harness' side of the border: tokens, logs and metrics. Frees a batch the moment its token is completed, so that Miri or a
//! sanitizer sees every use after that.

use std::{
    collections::HashMap,
    ffi::c_void,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tailwater_abi::*;

use super::{LogRecord, Outcome, TestEvent, Verdict};
use crate::host::text;

/// By `tw_host.ctx`. Never removed: the border promises that a host lives as long as the process.
static HOSTS: Mutex<Option<HashMap<u64, Arc<TestHost>>>> = Mutex::new(None);

pub(super) struct TestHost {
    ctx: u64,
    log_level: AtomicU32,
    /// Milliseconds of history that the output asked for.
    wanted_history: AtomicU64,
    while_completing: Option<Box<dyn Fn() + Send + Sync>>,
    late: AtomicU64,
    state: Mutex<State>,
    completed: Condvar,
}

#[derive(Default)]
struct State {
    next_token: u64,
    open: HashMap<u64, Stored>,
    done: HashMap<u64, Answer>,
    logs: Vec<LogRecord>,
    /// The number of a metric is its place, from 1.
    metrics: Vec<Metric>,
}

struct Metric {
    kind: tw_metric_kind,
    /// With its labels.
    name: String,
    value: f64,
}

/// A batch and what its pointers lead to. No `Box`: moving one would end the plugin's right to read through its pointers.
struct Stored {
    events: Vec<TestEvent>,
    _abi: Vec<tw_event>,
    /// Exactly one.
    batch: Vec<tw_batch>,
}

// SAFETY: the pointers lead into the value itself, which is only read until it is dropped.
unsafe impl Send for Stored {}

struct Answer {
    single: Verdict,
    outcome: Outcome,
}

impl TestHost {
    pub(super) fn new(while_completing: Option<Box<dyn Fn() + Send + Sync>>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let host = Arc::new(Self {
            ctx: NEXT.fetch_add(1, Ordering::Relaxed),
            log_level: AtomicU32::new(TW_LEVEL_TRACE),
            wanted_history: AtomicU64::new(0),
            while_completing,
            late: AtomicU64::new(0),
            state: Mutex::default(),
            completed: Condvar::new(),
        });
        lock(&HOSTS).get_or_insert_default().insert(host.ctx, host.clone());
        host
    }

    /// Leaked: the border promises that it lives as long as the process. So does the host in `HOSTS`.
    pub(super) fn table(self: &Arc<Self>) -> *const tw_host {
        Box::leak(Box::new(tw_host {
            struct_size: size_of::<tw_host>() as u32,
            abi_major: TW_ABI_MAJOR,
            abi_minor: TW_ABI_MINOR,
            ctx: self.ctx,
            log_level: self.log_level.as_ptr(),
            log: Some(log),
            complete: Some(complete),
            json: Some(json),
            metric_register: Some(metric_register),
            metric_record: Some(metric_record),
            want_history: Some(want_history),
        }))
    }

    pub(super) fn issue(&self, mut events: Vec<TestEvent>) -> u64 {
        events.iter_mut().for_each(TestEvent::fill_raw);
        let abi: Vec<tw_event> = events.iter().map(TestEvent::as_abi).collect();
        let batch = vec![tw_batch {
            struct_size: size_of::<tw_batch>() as u32,
            event_stride: size_of::<tw_event>() as u32,
            len: abi.len() as u32,
            reserved0: 0,
            bytes: events.iter().map(|event| event.raw.len() as u64).sum(),
            events: abi.as_ptr().cast(),
            timeout_ms: 60_000,
        }];
        let mut state = lock(&self.state);
        state.next_token += 1;
        let token = state.next_token;
        state.open.insert(token, Stored { events, _abi: abi, batch });
        token
    }

    pub(super) fn batch(&self, token: u64) -> *const tw_batch {
        lock(&self.state).open[&token].batch.as_ptr()
    }

    pub(super) fn wait(&self, token: u64, patience: Duration) -> Option<Outcome> {
        self.wait_answer(token, patience).map(|answer| answer.outcome)
    }

    pub(super) fn wait_single(&self, token: u64, patience: Duration) -> Option<Verdict> {
        self.wait_answer(token, patience).map(|answer| answer.single)
    }

    fn wait_answer(&self, token: u64, patience: Duration) -> Option<Answer> {
        let deadline = Instant::now() + patience;
        let mut state = lock(&self.state);
        loop {
            if let Some(answer) = state.done.remove(&token) {
                return Some(answer);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.completed.wait_timeout(state, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    pub(super) fn is_completed(&self, token: u64) -> bool {
        !lock(&self.state).open.contains_key(&token)
    }

    pub(super) fn logs(&self) -> Vec<LogRecord> {
        lock(&self.state).logs.clone()
    }

    pub(super) fn set_log_level(&self, level: tw_level) {
        self.log_level.store(level, Ordering::Relaxed);
    }

    pub(super) fn metric(&self, name: &str) -> f64 {
        lock(&self.state).metrics.iter().find(|metric| metric.name == name).map_or(0.0, |metric| metric.value)
    }

    pub(super) fn wanted_history(&self) -> Duration {
        Duration::from_millis(self.wanted_history.load(Ordering::Relaxed))
    }

    pub(super) fn late_completions(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn host(ctx: u64) -> Arc<TestHost> {
    lock(&HOSTS).as_ref().expect("a host was made before it is called")[&ctx].clone()
}

/// A sink that appends to `out`, which must outlive it.
pub(super) fn sink(out: &mut String) -> tw_sink {
    unsafe extern "C" fn write(ctx: *mut c_void, ptr: *const u8, len: usize) {
        // SAFETY: `ctx` is the `String` of `sink`, used by one call at a time; `ptr` is valid during the call.
        unsafe { (*ctx.cast::<String>()).push_str(text(tw_str { ptr, len })) }
    }
    tw_sink { ctx: (&raw mut *out).cast(), write: Some(write) }
}

unsafe extern "C" fn log(ctx: u64, record: *const tw_log_record) {
    // SAFETY: the plugin's promise: valid during the call.
    let (record, thread) = (unsafe { &*record }, thread::current().id());
    let fields = (0..record.field_count).map(|index| {
        // SAFETY: as above; `field_count` fields.
        unsafe {
            let field = &*record.fields.add(index);
            (text(field.key).to_owned(), text(field.value).to_owned())
        }
    });
    let fields = fields.collect();
    // SAFETY: as above.
    let (target, message) = unsafe { (text(record.target).to_owned(), text(record.message).to_owned()) };
    lock(&host(ctx).state).logs.push(LogRecord { level: record.level, target, message, fields, thread });
}

unsafe extern "C" fn complete(ctx: u64, token: u64, completion: *const tw_completion) {
    let host = host(ctx);
    {
        let mut state = lock(&host.state);
        let Some(stored) = state.open.remove(&token) else {
            host.late.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // SAFETY: the plugin's promise: valid during the call.
        let answer = unsafe { answer(&*completion, stored.events.len()) };
        drop(stored);
        state.done.insert(token, answer);
    }
    host.completed.notify_all();
    if let Some(work) = &host.while_completing {
        work();
    }
}

/// # Safety
/// `completion` and what it points to are valid.
unsafe fn answer(completion: &tw_completion, events: usize) -> Answer {
    let pause = completion.flags & TW_COMPLETE_PAUSE_OUTPUT != 0;
    let after = Duration::from_millis(completion.retry_after_ms);
    // A pause is of the output, not of the events.
    let retry_after_ms = if pause { 0 } else { completion.retry_after_ms };
    // SAFETY: as promised by the caller.
    let single = verdict(completion.verdict, retry_after_ms, unsafe { text(completion.message) });
    let mut verdicts = vec![single.clone(); events];
    for index in 0..completion.result_count as usize {
        // SAFETY: as promised by the caller: `result_count` results, `result_stride` bytes apart.
        let result =
            unsafe { &*completion.results.add(index * completion.result_stride as usize).cast::<tw_event_result>() };
        // SAFETY: as promised by the caller.
        let reason = unsafe { text(result.message) };
        verdicts[result.index as usize] = verdict(result.verdict, result.retry_after_ms, reason);
    }
    Answer { single, outcome: Outcome { verdicts, pause_output: pause.then_some(after) } }
}

fn verdict(verdict: tw_verdict, retry_after_ms: u64, reason: &str) -> Verdict {
    let reason = reason.to_owned();
    match verdict {
        TW_ACK => Verdict::Ack,
        TW_REJECT => Verdict::Reject { reason },
        TW_FATAL => Verdict::Fatal { reason },
        TW_FAILED => Verdict::Failed { reason },
        _ => {
            let after = (retry_after_ms != 0).then(|| Duration::from_millis(retry_after_ms));
            Verdict::Retry { after, reason }
        }
    }
}

unsafe extern "C" fn json(ctx: u64, token: u64, index: u32, _: tw_json_form, out: *mut tw_slice) -> tw_status {
    let host = host(ctx);
    let state = lock(&host.state);
    let json = state.open.get(&token).and_then(|stored| stored.events.get(index as usize)?.json.as_ref());
    let Some(json) = json else { return TW_E_DATA };
    // SAFETY: the plugin's promise: writable during the call.
    unsafe { out.write(tw_slice::new(json.as_bytes())) };
    TW_OK
}

unsafe extern "C" fn metric_register(ctx: u64, metric: *const tw_metric) -> u64 {
    // SAFETY: the plugin's promise: all of it is valid during the call, `label_count` labels.
    let (kind, name, labels) = unsafe {
        let metric = &*metric;
        let label = |index| {
            let label: &tw_kv = &*metric.labels.add(index);
            format!("{}=\"{}\"", text(label.key), text(label.value))
        };
        let labels = (0..metric.label_count).map(label).collect::<Vec<_>>().join(",");
        (metric.kind, text(metric.name).to_owned(), labels)
    };
    let name = if labels.is_empty() { name } else { format!("{name}{{{labels}}}") };
    let host = host(ctx);
    let metrics = &mut lock(&host.state).metrics;
    let place = metrics.iter().position(|metric| metric.name == name).unwrap_or_else(|| {
        metrics.push(Metric { kind, name, value: 0.0 });
        metrics.len() - 1
    });
    place as u64 + 1
}

unsafe extern "C" fn want_history(ctx: u64, age_ms: u64) -> tw_status {
    host(ctx).wanted_history.store(age_ms, Ordering::Relaxed);
    TW_OK
}

unsafe extern "C" fn metric_record(ctx: u64, metric: u64, value: f64) {
    if let Some(metric) = lock(&host(ctx).state).metrics.get_mut(metric as usize - 1) {
        match metric.kind {
            TW_METRIC_COUNTER => metric.value += value,
            _ => metric.value = value,
        }
    }
}
