//! The layout as it must stay: a field that is moved or resized fails the build. No items.

use crate::*;

// The end of the last field of each first version. Compare with it whatever is appended, never change it.
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(tw_plugin, vtable) + 8 == TW_PLUGIN_SIZE_MIN as usize);
    assert!(offset_of!(tw_vtable, destroy) + 8 == TW_VTABLE_SIZE_MIN as usize);
    assert!(offset_of!(tw_validate_args, error) + 8 == TW_VALIDATE_ARGS_SIZE_MIN as usize);
    assert!(offset_of!(tw_metric, label_count) + 8 == TW_METRIC_SIZE_MIN as usize);
    assert!(offset_of!(tw_create_args, error) + 8 == TW_CREATE_ARGS_SIZE_MIN as usize);
    assert!(offset_of!(tw_event, resume_token) + 16 == TW_EVENT_SIZE_MIN as usize);
    assert!(offset_of!(tw_batch, timeout_ms) + 8 == TW_BATCH_SIZE_MIN as usize);
    assert!(offset_of!(tw_event_result, message) + 16 == TW_EVENT_RESULT_SIZE_MIN as usize);
    assert!(offset_of!(tw_completion, result_stride) + 4 == TW_COMPLETION_SIZE_MIN as usize);
    assert!(offset_of!(tw_log_record, field_count) + 8 == TW_LOG_RECORD_SIZE_MIN as usize);
    assert!(offset_of!(tw_host, metric_record) + 8 == TW_HOST_SIZE_MIN as usize);
    assert!(offset_of!(tw_progress, reached) + 8 == TW_PROGRESS_SIZE_MIN as usize);
};

// A moved or resized field fails the build.
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(
        size_of::<tw_slice>() == 16
            && size_of::<tw_str>() == 16
            && size_of::<tw_sink>() == 16
            && size_of::<tw_kv>() == 32
    );
    assert!(offset_of!(tw_plugin, struct_size) == 8 && offset_of!(tw_plugin, build_flags) == 20);
    assert!(offset_of!(tw_plugin, name) == 24 && offset_of!(tw_plugin, options_schema) == 88);
    assert!(
        offset_of!(tw_plugin, capabilities) == 104
            && offset_of!(tw_plugin, vtable) == 120
            && size_of::<tw_plugin>() == 128
    );
    assert!(
        offset_of!(tw_vtable, validate) == 8 && offset_of!(tw_vtable, deliver) == 32 && size_of::<tw_vtable>() == 64
    );
    assert!(offset_of!(tw_validate_args, options_json) == 24 && size_of::<tw_validate_args>() == 48);
    assert!(offset_of!(tw_metric, labels) == 40 && size_of::<tw_metric>() == 56);
    assert!(offset_of!(tw_create_args, host) == 8 && size_of::<tw_create_args>() == 56);
    assert!(
        offset_of!(tw_event, key) == 16
            && offset_of!(tw_event, cluster_time) == 40
            && offset_of!(tw_event, operation_type) == 56
    );
    assert!(
        offset_of!(tw_event, raw) == 104 && offset_of!(tw_event, resume_token) == 184 && size_of::<tw_event>() == 200
    );
    assert!(offset_of!(tw_batch, events) == 24 && size_of::<tw_batch>() == 40);
    assert!(offset_of!(tw_event_result, message) == 16 && size_of::<tw_event_result>() == 32);
    assert!(
        offset_of!(tw_completion, message) == 24
            && offset_of!(tw_completion, results) == 40
            && size_of::<tw_completion>() == 56
    );
    assert!(offset_of!(tw_log_record, fields) == 40 && size_of::<tw_log_record>() == 56);
    assert!(offset_of!(tw_host, ctx) == 8 && offset_of!(tw_host, complete) == 32 && size_of::<tw_host>() == 72);
    assert!(offset_of!(tw_progress, complete_from) == 8 && size_of::<tw_progress>() == 32);
};
