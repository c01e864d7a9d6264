//! What a plugin may call: the functions behind `tw_host`. Each finds its [`Port`] by number, catches panics and never blocks.

use std::mem::size_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tailwater_abi::{
    TW_ABI_MAJOR, TW_ABI_MINOR, TW_E_DATA, TW_E_INTERNAL, TW_E_INVALID, TW_JSON_CANONICAL, TW_JSON_CONFIGURED,
    TW_JSON_PLAIN, TW_JSON_RELAXED, TW_LEVEL_DEBUG, TW_LEVEL_ERROR, TW_LEVEL_INFO, TW_LEVEL_WARN,
    TW_LOG_RECORD_SIZE_MIN, TW_METRIC_SIZE_MIN, TW_OK, tw_completion, tw_copy, tw_host, tw_kv, tw_log_record,
    tw_metric, tw_slice, tw_status,
};
use tracing::{debug, error, info, trace, warn};

use super::metrics::MetricFault;
use super::port::Port;
use super::text::{MESSAGE_BYTES_MAX, copy_lossy};
use super::verdict::Verdicts;
use crate::event::JsonForm;
use crate::log;

/// Fields of a log record that are written; more are left out.
const LOG_FIELDS_MAX: usize = 32;
const LOG_TARGET_BYTES_MAX: usize = 128;
const METRIC_LABELS_MAX: usize = 8;
const METRIC_TEXT_BYTES_MAX: usize = 256;

/// The services of the port whose number is `ctx`.
pub(crate) fn services(ctx: u64) -> tw_host {
    tw_host {
        struct_size: size_of::<tw_host>() as u32,
        abi_major: TW_ABI_MAJOR,
        abi_minor: TW_ABI_MINOR,
        ctx,
        log_level: log::max_level().as_ptr().cast_const(),
        log: Some(host_log),
        complete: Some(host_complete),
        json: Some(host_json),
        metric_register: Some(host_metric_register),
        metric_record: Some(host_metric_record),
        want_history: Some(host_want_history),
    }
}

/// Runs `body` with the port; an unknown number or a panic gives `otherwise`.
fn with_port<T>(ctx: u64, otherwise: T, body: impl FnOnce(&Port) -> T) -> T {
    let result = catch_unwind(AssertUnwindSafe(|| Port::by_ctx(ctx).map(|port| body(&port))));
    match result {
        Ok(Some(value)) => value,
        Ok(None) | Err(_) => otherwise,
    }
}

unsafe extern "C" fn host_log(ctx: u64, record: *const tw_log_record) {
    with_port(ctx, (), |port| {
        if record.is_null() {
            return;
        }
        // SAFETY: not null; the first field of every version.
        let size = unsafe { (&raw const (*record).struct_size).read_unaligned() };
        if size < TW_LOG_RECORD_SIZE_MIN {
            return;
        }
        // SAFETY: the plugin says that `size` bytes are there.
        let record = unsafe { tw_copy(record, size) };
        if record.level > log::max_level().load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        // SAFETY: the texts and fields are lent for this call.
        let (target, text) =
            unsafe { (copy_lossy(record.target, LOG_TARGET_BYTES_MAX), copy_lossy(record.message, MESSAGE_BYTES_MAX)) };
        // SAFETY: as above.
        let fields = unsafe { copy_pairs(record.fields, record.field_count, LOG_FIELDS_MAX, MESSAGE_BYTES_MAX) };
        let mut message = text;
        for (key, value) in fields {
            message.push_str(&format!(" {key}={value}"));
        }
        let output = port.output();
        match record.level {
            TW_LEVEL_ERROR => error!(target: "tailwater::plugin", output, plugin = target, "{message}"),
            TW_LEVEL_WARN => warn!(target: "tailwater::plugin", output, plugin = target, "{message}"),
            TW_LEVEL_INFO => info!(target: "tailwater::plugin", output, plugin = target, "{message}"),
            TW_LEVEL_DEBUG => debug!(target: "tailwater::plugin", output, plugin = target, "{message}"),
            _ => trace!(target: "tailwater::plugin", output, plugin = target, "{message}"),
        }
    });
}

unsafe extern "C" fn host_complete(ctx: u64, token: u64, completion: *const tw_completion) {
    with_port(ctx, (), |port| {
        // SAFETY: the completion is lent for this call.
        port.complete(token, |len| unsafe { Verdicts::copy(completion, len) });
    });
}

unsafe extern "C" fn host_json(ctx: u64, token: u64, index: u32, form: u32, out: *mut tw_slice) -> tw_status {
    with_port(ctx, TW_E_INTERNAL, |port| {
        if out.is_null() {
            return TW_E_INVALID;
        }
        let shape = match form {
            // Only what the operator chose has an envelope: who asks for a form wants the event.
            TW_JSON_CONFIGURED => port.shape(),
            TW_JSON_RELAXED => JsonForm::Relaxed.into(),
            TW_JSON_CANONICAL => JsonForm::Canonical.into(),
            TW_JSON_PLAIN => JsonForm::Plain.into(),
            _ => return TW_E_INVALID,
        };
        // The text is made outside the token table's lock: it may take a while for a large event.
        let Some(batch) = port.batch(token) else { return TW_E_INVALID };
        let Some(event) = batch.event(index) else { return TW_E_INVALID };
        match event.json_in(shape, port.deployment()) {
            Ok(json) => {
                // The bytes belong to the event, which the token table keeps until the token is completed.
                // SAFETY: `out` is not null and the plugin vouches for a slice to write to.
                unsafe { out.write_unaligned(tw_slice::new(json)) };
                TW_OK
            }
            Err(error) => {
                warn!(output = port.output(), id = %event.id(), "make the JSON of an event: {error}");
                TW_E_DATA
            }
        }
    })
}

unsafe extern "C" fn host_metric_register(ctx: u64, metric: *const tw_metric) -> u64 {
    with_port(ctx, 0, |port| {
        if metric.is_null() {
            return 0;
        }
        // SAFETY: not null; the first field of every version.
        let size = unsafe { (&raw const (*metric).struct_size).read_unaligned() };
        if size < TW_METRIC_SIZE_MIN {
            warn!(output = port.output(), "the plugin registers a metric with struct_size {size}: refused");
            return 0;
        }
        // SAFETY: the plugin says that `size` bytes are there.
        let tw_metric { kind, name, help, labels, label_count, .. } = unsafe { tw_copy(metric, size) };
        // SAFETY: the texts are lent for this call.
        let (name, help) =
            unsafe { (copy_lossy(name, METRIC_TEXT_BYTES_MAX), copy_lossy(help, METRIC_TEXT_BYTES_MAX)) };
        if label_count > METRIC_LABELS_MAX {
            warn!(output = port.output(), metric = name, "the plugin's metric has {label_count} labels: refused");
            return 0;
        }
        // SAFETY: as above.
        let labels = unsafe { copy_pairs(labels, label_count, METRIC_LABELS_MAX, METRIC_TEXT_BYTES_MAX) };
        port.metrics.register(kind, &name, &help, labels).unwrap_or_else(|fault: MetricFault| {
            warn!(output = port.output(), metric = name, "the plugin's metric is refused: {fault}");
            0
        })
    })
}

unsafe extern "C" fn host_metric_record(ctx: u64, metric: u64, value: f64) {
    with_port(ctx, (), |port| port.metrics.record(metric, value));
}

unsafe extern "C" fn host_want_history(ctx: u64, age_ms: u64) -> tw_status {
    with_port(
        ctx,
        TW_E_INTERNAL,
        |port| {
            if port.want_history(Duration::from_millis(age_ms)) { TW_OK } else { TW_E_INVALID }
        },
    )
}

/// # Safety
/// `pairs` is null or leads to `count` pairs whose texts are readable.
unsafe fn copy_pairs(pairs: *const tw_kv, count: usize, count_max: usize, bytes_max: usize) -> Vec<(String, String)> {
    if pairs.is_null() {
        return Vec::new();
    }
    (0..count.min(count_max))
        .map(|i| {
            // SAFETY: i < count. `tw_kv` is frozen, so its size is the stride.
            let pair = unsafe { pairs.add(i).read_unaligned() };
            // SAFETY: vouched for by the caller.
            unsafe { (copy_lossy(pair.key, METRIC_TEXT_BYTES_MAX), copy_lossy(pair.value, bytes_max)) }
        })
        .collect()
}
