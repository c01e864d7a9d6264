//! The faults that the SDK rules out: a token completed twice, and one completed after the instance was stopped. They are made
//! between the SDK and the daemon: the SDK is given a copy of the daemon's function table whose `complete` is one of these.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, OnceLock},
};

use serde_json::Value;
use tailwater_sdk::{
    Descriptor, Package,
    abi::{
        TW_ACK, TW_E_INVALID, TW_OK, tw_batch, tw_completion, tw_copy, tw_create_args, tw_event_result, tw_host,
        tw_instance, tw_plugin, tw_status, tw_str, tw_vtable,
    },
    functions,
};

use crate::output::Faulty;

type Complete = unsafe extern "C" fn(ctx: u64, token: u64, completion: *const tw_completion);

/// The daemon's own `complete`: the same function for every output.
static COMPLETE: OnceLock<Complete> = OnceLock::new();

/// What is known of the instances in the mode `verdict_after_stop`, by instance.
static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

#[derive(Default)]
struct Kept {
    /// Instances whose first verdict is to be kept, and the daemon's ctx of each.
    ctx: HashMap<usize, u64>,
    /// The first delivery of each instance.
    first: HashMap<usize, u64>,
    /// Tokens, with their ctx, whose completion is kept back.
    withheld: HashSet<(u64, u64)>,
}

fn kept() -> MutexGuard<'static, Option<Kept>> {
    KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The SDK's descriptor with some of its functions replaced.
pub(crate) fn descriptor(package: Package) -> Descriptor {
    static FUNCTIONS: OnceLock<tw_vtable> = OnceLock::new();
    let sdk = functions::<Faulty>();
    let functions = FUNCTIONS.get_or_init(|| tw_vtable {
        struct_size: sdk.struct_size,
        reserved0: 0,
        validate: sdk.validate,
        create: Some(create),
        start: sdk.start,
        deliver: Some(deliver),
        stop: sdk.stop,
        destroy: Some(destroy),
        progress: sdk.progress,
    });
    let Descriptor(plugin) = tailwater_sdk::descriptor::<Faulty>(package);
    Descriptor(tw_plugin { vtable: functions, ..plugin })
}

unsafe extern "C" fn create(args: *const tw_create_args, out: *mut *mut tw_instance) -> tw_status {
    // SAFETY: the daemon's promise: valid during the call, the host as long as the process.
    let (args, host) = unsafe {
        let args = tw_copy(args, (*args).struct_size);
        let host = tw_copy(args.host, (*args.host).struct_size);
        (args, host)
    };
    // SAFETY: as above.
    let options = unsafe { std::slice::from_raw_parts(args.options_json.ptr, args.options_json.len) };
    let options: Value = serde_json::from_slice(options).unwrap_or_default();
    let complete = match options["mode"].as_str() {
        Some("double_verdict") => Some(complete_twice as Complete),
        Some("verdict_after_stop") => Some(complete_unless_withheld as Complete),
        _ => None,
    };
    let Some(daemons) = host.complete else { return TW_E_INVALID };
    let _ = COMPLETE.set(daemons);
    // Leaked: the SDK relies on it for as long as the process lives.
    let table: &'static tw_host = Box::leak(Box::new(tw_host {
        // Of the copy, which ends where this version's struct does.
        struct_size: size_of::<tw_host>() as u32,
        complete: complete.or(host.complete),
        ..host
    }));
    let args = tw_create_args { struct_size: size_of::<tw_create_args>() as u32, host: table, ..args };
    let create = functions::<Faulty>().create.expect("the SDK offers create");
    // SAFETY: the daemon's arguments, and a table that outlives the instance.
    let status = unsafe { create(&args, out) };
    if status == TW_OK && options["mode"] == "verdict_after_stop" && first_time(&options) {
        // SAFETY: written by `create`.
        kept().get_or_insert_default().ctx.insert(unsafe { *out } as usize, host.ctx);
    }
    status
}

/// True once per `path`, as in [`Faulty`].
fn first_time(options: &Value) -> bool {
    let path = options["path"].as_str().unwrap_or_default();
    std::fs::OpenOptions::new().write(true).create_new(true).open(format!("{path}.fault")).is_ok()
}

unsafe extern "C" fn deliver(instance: *mut tw_instance, batch: *const tw_batch, token: u64) -> tw_status {
    if let Some(kept) = &mut *kept()
        && let Some(ctx) = kept.ctx.get(&(instance as usize))
        && !kept.first.contains_key(&(instance as usize))
    {
        kept.withheld.insert((*ctx, token));
        kept.first.insert(instance as usize, token);
    }
    let deliver = functions::<Faulty>().deliver.expect("the SDK offers deliver");
    // SAFETY: the daemon's arguments, unchanged.
    unsafe { deliver(instance, batch, token) }
}

/// What was kept back is said when nothing may be said any more.
unsafe extern "C" fn destroy(instance: *mut tw_instance) {
    let destroy = functions::<Faulty>().destroy.expect("the SDK offers destroy");
    // SAFETY: the daemon's argument, unchanged.
    unsafe { destroy(instance) };
    let late = kept().as_mut().and_then(|kept| {
        let ctx = kept.ctx.remove(&(instance as usize))?;
        let token = kept.first.remove(&(instance as usize))?;
        kept.withheld.remove(&(ctx, token));
        Some((ctx, token))
    });
    if let (Some((ctx, token)), Some(complete)) = (late, COMPLETE.get()) {
        // SAFETY: an "ack" with nothing in it.
        unsafe { complete(ctx, token, &ack()) }
    }
}

fn ack() -> tw_completion {
    tw_completion {
        struct_size: size_of::<tw_completion>() as u32,
        verdict: TW_ACK,
        retry_after_ms: 0,
        flags: 0,
        reserved0: 0,
        message: tw_str::NONE,
        results: std::ptr::null(),
        result_count: 0,
        result_stride: size_of::<tw_event_result>() as u32,
    }
}

unsafe extern "C" fn complete_twice(ctx: u64, token: u64, completion: *const tw_completion) {
    let Some(complete) = COMPLETE.get() else { return };
    // SAFETY: the SDK's arguments; valid during both calls.
    unsafe {
        complete(ctx, token, completion);
        complete(ctx, token, completion);
    }
}

unsafe extern "C" fn complete_unless_withheld(ctx: u64, token: u64, completion: *const tw_completion) {
    let withheld = kept().as_ref().is_some_and(|kept| kept.withheld.contains(&(ctx, token)));
    if let (false, Some(complete)) = (withheld, COMPLETE.get()) {
        // SAFETY: the SDK's arguments; valid during the call.
        unsafe { complete(ctx, token, completion) }
    }
}
