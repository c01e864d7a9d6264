//! The host's services as this library sees them: one small copyable value, every call through it checked for null.
//! Everything here takes `self` by value: while a call is on its way, the host may already be tearing the instance down on
//! another thread, and a borrow of something in the instance would then outlive it.

use std::sync::atomic::{AtomicU32, Ordering};

use tailwater_abi::*;

/// A host's function table. `create` promises that it lives as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Host(&'static tw_host);

// SAFETY: the table is never written after `create`, its functions may be called from any thread, and `log_level` is only read
// atomically.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    /// # Safety
    /// `host` is null or points to a `tw_host` that lives as long as the process.
    pub(crate) unsafe fn new(host: *const tw_host) -> Option<Self> {
        // SAFETY: as promised by the caller.
        unsafe { host.as_ref() }.map(Self)
    }

    pub(crate) fn as_ptr(self) -> *mut tw_host {
        std::ptr::from_ref(self.0).cast_mut()
    }

    pub(crate) fn abi(self) -> (u16, u16) {
        (self.0.abi_major, self.0.abi_minor)
    }

    pub(crate) fn same(self, other: Host) -> bool {
        std::ptr::eq(self.0, other.0)
    }

    /// One relaxed load: this is all that a disabled log record costs.
    pub(crate) fn log_level(self) -> tw_level {
        if self.0.log_level.is_null() {
            return TW_LEVEL_INFO;
        }
        // SAFETY: the host keeps an atomic u32 there as long as the process lives.
        unsafe { AtomicU32::from_ptr(self.0.log_level.cast_mut()) }.load(Ordering::Relaxed)
    }

    pub(crate) fn log(self, level: tw_level, target: &str, message: &str, fields: &[tw_kv]) {
        let Some(log) = self.0.log else { return };
        let record = tw_log_record {
            struct_size: size_of::<tw_log_record>() as u32,
            level,
            target: tw_str::new(target),
            message: tw_str::new(message),
            fields: fields.as_ptr(),
            field_count: fields.len(),
        };
        // SAFETY: the record and what it points to live until the call returns; the host copies.
        unsafe { log(self.0.ctx, &record) }
    }

    pub(crate) fn complete(self, token: u64, completion: &tw_completion) {
        let Some(complete) = self.0.complete else { return };
        // SAFETY: the completion and what it points to live on this thread's stack until the call returns.
        unsafe { complete(self.0.ctx, token, completion) }
    }

    /// Completes `token` with one verdict and no list.
    pub(crate) fn finish(self, token: u64, verdict: tw_verdict, retry_after_ms: u64, message: &str) {
        self.complete(token, &completion(verdict, retry_after_ms, 0, message, &[]));
    }

    /// The slice lives until `token` is completed.
    pub(crate) fn json(self, token: u64, index: u32, form: tw_json_form) -> Result<tw_slice, tw_status> {
        let Some(json) = self.0.json else { return Err(TW_E_UNSUPPORTED) };
        let mut out = tw_slice::NONE;
        // SAFETY: `out` is writable during the call.
        match unsafe { json(self.0.ctx, token, index, form, &mut out) } {
            TW_OK => Ok(out),
            status => Err(status),
        }
    }

    /// 0 where the host refuses.
    pub(crate) fn metric_register(self, kind: tw_metric_kind, name: &str, help: &str, labels: &[(&str, &str)]) -> u64 {
        let Some(register) = self.0.metric_register else { return 0 };
        let labels: Vec<tw_kv> =
            labels.iter().map(|(key, value)| tw_kv { key: tw_str::new(key), value: tw_str::new(value) }).collect();
        // SAFETY: name, help and labels live until the call returns; the host copies.
        unsafe { register(self.0.ctx, kind, tw_str::new(name), tw_str::new(help), labels.as_ptr(), labels.len()) }
    }

    pub(crate) fn metric_record(self, metric: u64, value: f64) {
        if let Some(record) = self.0.metric_record {
            // SAFETY: numbers only.
            unsafe { record(self.0.ctx, metric, value) }
        }
    }
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
