//! The host's services as this library sees them: one small copyable value, every call through it checked for null.
//! Everything here takes `self` by value: while a call is on its way, the host may already be tearing the instance down on
//! another thread, and a borrow of something in the instance would then outlive it.

use std::sync::atomic::{AtomicU32, Ordering};

use tailwater_abi::*;

/// Reads a field that the first version of a struct had, through a pointer whose owner has seen that the struct is at least that
/// long. Not through a reference: that would claim the whole of this version's struct, which an older host's may not have.
/// Fields appended later need `tw_has!` before.
macro_rules! first {
    ($pointer:expr, $field:ident) => {{
        let pointer = $pointer;
        // SAFETY: the owner's `new` has checked the size, and its contract keeps the struct alive and unwritten.
        unsafe { (*pointer).$field }
    }};
}
pub(crate) use first;

/// A host's function table. `create` promises that it lives as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Host(*const tw_host);

// SAFETY: the table is never written after `create`, its functions may be called from any thread, and `log_level` is only read
// atomically.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    /// `None` where it is null or shorter than the first version of the table.
    ///
    /// # Safety
    /// `host` is null or points to a `tw_host` that lives as long as the process.
    pub(crate) unsafe fn new(host: *const tw_host) -> Option<Self> {
        // SAFETY: not null, and as promised by the caller; the first field of every version.
        (!host.is_null() && unsafe { (*host).struct_size } >= TW_HOST_SIZE_MIN).then_some(Self(host))
    }

    pub(crate) fn as_ptr(self) -> *mut tw_host {
        self.0.cast_mut()
    }

    fn ctx(self) -> u64 {
        first!(self.0, ctx)
    }

    pub(crate) fn abi(self) -> (u16, u16) {
        (first!(self.0, abi_major), first!(self.0, abi_minor))
    }

    pub(crate) fn same(self, other: Host) -> bool {
        self.0 == other.0
    }

    /// One relaxed load: this is all that a disabled log record costs.
    pub(crate) fn log_level(self) -> tw_level {
        let level = first!(self.0, log_level);
        if level.is_null() {
            return TW_LEVEL_INFO;
        }
        // SAFETY: the host keeps an atomic u32 there as long as the process lives.
        unsafe { AtomicU32::from_ptr(level.cast_mut()) }.load(Ordering::Relaxed)
    }

    pub(crate) fn log(self, level: tw_level, target: &str, message: &str, fields: &[tw_kv]) {
        let Some(log) = first!(self.0, log) else { return };
        let record = tw_log_record {
            struct_size: size_of::<tw_log_record>() as u32,
            level,
            target: tw_str::new(target),
            message: tw_str::new(message),
            fields: fields.as_ptr(),
            field_count: fields.len(),
        };
        // SAFETY: the record and what it points to live until the call returns; the host copies.
        unsafe { log(self.ctx(), &record) }
    }

    pub(crate) fn complete(self, token: u64, completion: &tw_completion) {
        let Some(complete) = first!(self.0, complete) else { return };
        // SAFETY: the completion and what it points to live on this thread's stack until the call returns.
        unsafe { complete(self.ctx(), token, completion) }
    }

    /// Completes `token` with one verdict and no list.
    pub(crate) fn finish(self, token: u64, verdict: tw_verdict, retry_after_ms: u64, message: &str) {
        self.complete(token, &completion(verdict, retry_after_ms, 0, message, &[]));
    }

    /// The slice lives until `token` is completed.
    pub(crate) fn json(self, token: u64, index: u32, form: tw_json_form) -> Result<tw_slice, tw_status> {
        let Some(json) = first!(self.0, json) else { return Err(TW_E_UNSUPPORTED) };
        let mut out = tw_slice::NONE;
        // SAFETY: `out` is writable during the call.
        match unsafe { json(self.ctx(), token, index, form, &mut out) } {
            TW_OK => Ok(out),
            status => Err(status),
        }
    }

    /// 0 where the host refuses.
    pub(crate) fn metric_register(self, kind: tw_metric_kind, name: &str, help: &str, labels: &[(&str, &str)]) -> u64 {
        let Some(register) = first!(self.0, metric_register) else { return 0 };
        let labels: Vec<tw_kv> =
            labels.iter().map(|(key, value)| tw_kv { key: tw_str::new(key), value: tw_str::new(value) }).collect();
        let metric = tw_metric {
            struct_size: size_of::<tw_metric>() as u32,
            kind,
            name: tw_str::new(name),
            help: tw_str::new(help),
            labels: labels.as_ptr(),
            label_count: labels.len(),
        };
        // SAFETY: the metric and what it points to live until the call returns; the host copies.
        unsafe { register(self.ctx(), &metric) }
    }

    /// False where the host does not offer it, or not to this output.
    pub(crate) fn want_history(self, age_ms: u64) -> bool {
        want_history(self, age_ms) == TW_OK
    }

    pub(crate) fn metric_record(self, metric: u64, value: f64) {
        if let Some(record) = first!(self.0, metric_record) {
            // SAFETY: numbers only.
            unsafe { record(self.ctx(), metric, value) }
        }
    }
}

/// Of `Host::want_history`, by itself because of `tw_has!`.
fn want_history(host: Host, age_ms: u64) -> tw_status {
    // SAFETY: the table lives as long as the process, and its size was checked in `new`.
    let want_history = unsafe { if tw_has!(host.0, tw_host, want_history) { (*host.0).want_history } else { None } };
    let Some(want_history) = want_history else { return TW_E_UNSUPPORTED };
    // SAFETY: numbers only.
    unsafe { want_history(host.ctx(), age_ms) }
}

/// A completion that borrows `message` and `results`.
pub(crate) fn completion(
    verdict: tw_verdict,
    retry_after_ms: u64,
    flags: u32,
    message: &str,
    results: &[tw_event_result],
) -> tw_completion {
    tw_completion {
        struct_size: size_of::<tw_completion>() as u32,
        verdict,
        retry_after_ms,
        flags,
        reserved0: 0,
        message: tw_str::new(message),
        results: results.as_ptr().cast(),
        result_count: results.len() as u32,
        result_stride: size_of::<tw_event_result>() as u32,
    }
}

/// Text the host lends. Not UTF-8 (a broken host) reads as empty.
///
/// # Safety
/// `text` is valid for `'a`.
pub(crate) unsafe fn text<'a>(text: tw_str) -> &'a str {
    // SAFETY: as promised by the caller.
    std::str::from_utf8(unsafe { bytes(tw_slice { ptr: text.ptr, len: text.len }) }).unwrap_or_default()
}

/// Bytes the host lends; null reads as empty.
///
/// # Safety
/// `slice` is valid for `'a`.
pub(crate) unsafe fn bytes<'a>(slice: tw_slice) -> &'a [u8] {
    if slice.ptr.is_null() || slice.len == 0 {
        return &[];
    }
    // SAFETY: as promised by the caller; checked for null above.
    unsafe { std::slice::from_raw_parts(slice.ptr, slice.len) }
}
