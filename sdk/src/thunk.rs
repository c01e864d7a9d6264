//! The functions of the border. Each goes through [`guard`], which alone touches raw pointers of the host and catches panics.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    sync::Arc,
    time::Duration,
};

use tailwater_abi::*;

use crate::{
    Output, Progress,
    descriptor::plugin_name,
    host::{Host, text},
    instance::{CreateError, Instance, read_options},
};

/// Runs `work` on a pointer that is not null; no panic gets out. The pointer is passed on as such: a reference as an argument
/// would have to stay valid until the function returns, and `destroy` frees what it points to.
fn guard<T>(pointer: *const T, work: impl FnOnce(NonNull<T>) -> tw_status) -> tw_status {
    let Some(pointer) = NonNull::new(pointer.cast_mut()) else { return TW_E_INVALID };
    match catch_unwind(AssertUnwindSafe(|| work(pointer))) {
        Ok(status) => status,
        Err(payload) => {
            // Its own `Drop` could panic, here where nothing catches it.
            std::mem::forget(payload);
            TW_E_PANIC
        }
    }
}

/// An owner of the instance, besides the one that `create` gave to the host.
///
/// # Safety
/// `pointer` is from `create` and not yet destroyed.
unsafe fn borrow<O: Output>(pointer: NonNull<tw_instance>) -> Arc<Instance<O>> {
    let pointer = pointer.as_ptr().cast::<Instance<O>>().cast_const();
    // SAFETY: as promised by the caller; `create` made the pointer with `Arc::into_raw`.
    unsafe {
        Arc::increment_strong_count(pointer);
        Arc::from_raw(pointer)
    }
}

/// # Safety
/// `sink` is null or valid during the call.
unsafe fn say(sink: *const tw_sink, reason: &str) {
    // SAFETY: as promised by the caller.
    if let Some(sink) = unsafe { sink.as_ref() }
        && let Some(write) = sink.write
    {
        // SAFETY: the text lives until the call returns; the host copies.
        unsafe { write(sink.ctx, reason.as_ptr(), reason.len()) }
    }
}

pub(crate) unsafe extern "C" fn validate<O: Output>(args: *const tw_validate_args) -> tw_status {
    guard(args, |args| {
        // SAFETY: the host's promise: valid during the call; the first field of every version.
        let size = unsafe { (*args.as_ptr()).struct_size };
        if size < TW_VALIDATE_ARGS_SIZE_MIN {
            return TW_E_INVALID;
        }
        // SAFETY: as above; the host says that `size` bytes are there.
        let args = unsafe { tw_copy(args.as_ptr(), size) };
        // SAFETY: as above.
        match read_options::<O>(unsafe { text(args.options_json) }) {
            Ok(_) => TW_OK,
            Err(reason) => {
                // SAFETY: as above.
                unsafe { say(args.error, &reason) };
                TW_E_OPTIONS
            }
        }
    })
}

pub(crate) unsafe extern "C" fn create<O: Output>(
    args: *const tw_create_args,
    out: *mut *mut tw_instance,
) -> tw_status {
    guard(args, |args| {
        // SAFETY: the host's promise: valid during the call; the first field of every version.
        let size = unsafe { (*args.as_ptr()).struct_size };
        if size < TW_CREATE_ARGS_SIZE_MIN {
            return TW_E_INVALID;
        }
        // SAFETY: as above; the host says that `size` bytes are there.
        let args = unsafe { tw_copy(args.as_ptr(), size) };
        // SAFETY: the host's promise: null, or valid as long as the process.
        let Some(host) = (unsafe { Host::new(args.host) }) else { return TW_E_INVALID };
        if out.is_null() {
            return TW_E_INVALID;
        }
        // SAFETY: the host's promise: valid during the call.
        let (output, options) = unsafe { (text(args.output), text(args.options_json)) };
        match Instance::<O>::create(host, output, options, plugin_name()) {
            Ok(instance) => {
                // SAFETY: not null, and the host's promise: writable during the call.
                unsafe { out.write(Arc::into_raw(instance).cast_mut().cast()) };
                TW_OK
            }
            Err(error) => {
                let (status, reason) = refusal(error);
                // SAFETY: the host's promise: null, or valid during the call.
                unsafe { say(args.error, &reason) };
                status
            }
        }
    })
}

/// The host never tries again after [`TW_E_OPTIONS`]; a system without threads to spare may have some later.
fn refusal(error: CreateError) -> (tw_status, String) {
    match error {
        CreateError::Options(reason) => (TW_E_OPTIONS, reason),
        CreateError::System(reason) => (TW_E_INTERNAL, reason),
    }
}

pub(crate) unsafe extern "C" fn start<O: Output>(instance: *mut tw_instance, token: u64) -> tw_status {
    // SAFETY: the host's promise: from `create`, not yet destroyed.
    guard(instance, |instance| unsafe { borrow::<O>(instance) }.start(token))
}

pub(crate) unsafe extern "C" fn deliver<O: Output>(
    instance: *mut tw_instance,
    batch: *const tw_batch,
    token: u64,
) -> tw_status {
    // SAFETY: the host's promise: from `create`, not yet destroyed.
    guard(instance, |instance| unsafe { borrow::<O>(instance) }.deliver(batch, token))
}

pub(crate) unsafe extern "C" fn stop<O: Output>(instance: *mut tw_instance, deadline_ms: u64, token: u64) -> tw_status {
    // SAFETY: the host's promise: from `create`, not yet destroyed.
    guard(instance, |instance| unsafe { borrow::<O>(instance) }.stop(Duration::from_millis(deadline_ms), token))
}

pub(crate) unsafe extern "C" fn destroy<O: Output>(instance: *mut tw_instance) {
    guard(instance, |instance| {
        // SAFETY: the host's promise: from `create`, and nobody uses it after this. Takes back what `create` gave.
        unsafe { Arc::from_raw(instance.as_ptr().cast::<Instance<O>>().cast_const()) }.destroy();
        TW_OK
    });
}

pub(crate) unsafe extern "C" fn progress<O: Output>(instance: *mut tw_instance, progress: *const tw_progress) {
    guard(progress, |progress| {
        // SAFETY: the host's promise: valid during the call; the first field of every version.
        let size = unsafe { (*progress.as_ptr()).struct_size };
        if size < TW_PROGRESS_SIZE_MIN {
            return TW_E_INVALID;
        }
        // SAFETY: as above; the host says that `size` bytes are there.
        let tw_progress { complete_from, live_from, reached, .. } = unsafe { tw_copy(progress.as_ptr(), size) };
        let progress = Progress { complete_from, live_from, reached };
        // SAFETY: the host's promise: from `create`, not yet destroyed.
        guard(instance, |instance| unsafe { borrow::<O>(instance) }.progress(progress))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wrong_options_are_called_that() {
        assert_eq!(refusal(CreateError::Options("a".to_owned())), (TW_E_OPTIONS, "a".to_owned()));
        assert_eq!(refusal(CreateError::System("b".to_owned())), (TW_E_INTERNAL, "b".to_owned()));
    }
}
