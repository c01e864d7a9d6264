//! A plugin built with this SDK works with a host whose structs are longer, reads nothing behind the first version of an
//! older host's, and refuses what is shorter than that. Runs under Miri: each struct is an allocation of exactly its size.

use std::{
    ptr::{null, null_mut},
    sync::{Mutex, mpsc},
    time::Duration,
};

use tailwater_sdk::{Batch, Context, DeliverError, Output, StartError, abi::*, functions};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Options {}

struct Reader;

impl Output for Reader {
    type Options = Options;
    const SUMMARY: &'static str = "Reads what it is given.";

    async fn start(_: Options, context: Context) -> Result<Self, StartError> {
        assert_eq!(context.output(), "growing");
        Ok(Self)
    }

    async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        let read: Vec<_> = batch.iter().map(|event| (event.key(), event.resume_token().to_vec())).collect();
        let expected: Vec<_> = (1..=batch.len() as u64).map(|key| (key, b"token".to_vec())).collect();
        if read == expected { Ok(()) } else { Err(DeliverError::reject(format!("{read:?}"))) }
    }
}

/// A struct of a later minor.
#[repr(C)]
struct Longer<T> {
    known: T,
    appended: [u64; 3],
}

/// `value` as an allocation that ends where the struct does, or with what a later minor appended.
fn allocate<T>(value: T, longer: bool) -> *mut T {
    if longer {
        Box::into_raw(Box::new(Longer { known: value, appended: [u64::MAX; 3] })).cast()
    } else {
        Box::into_raw(Box::new(value))
    }
}

fn size_of_peer<T>(longer: bool) -> u32 {
    if longer { size_of::<Longer<T>>() as u32 } else { size_of::<T>() as u32 }
}

static COMPLETED: Mutex<Option<mpsc::Sender<(u64, tw_verdict)>>> = Mutex::new(None);

unsafe extern "C" fn complete(_: u64, token: u64, completion: *const tw_completion) {
    // SAFETY: the plugin's promise.
    let verdict = unsafe { (*completion).verdict };
    if let Some(sender) = &*COMPLETED.lock().expect("not poisoned") {
        sender.send((token, verdict)).expect("the test listens");
    }
}

fn host(longer: bool) -> tw_host {
    tw_host {
        struct_size: size_of_peer::<tw_host>(longer),
        abi_major: TW_ABI_MAJOR,
        abi_minor: if longer { 9 } else { 0 },
        ctx: 1,
        log_level: null(),
        log: None,
        complete: Some(complete),
        json: None,
        metric_register: None,
        metric_record: None,
        want_history: None,
    }
}

fn arguments(host: *const tw_host, longer: bool) -> tw_create_args {
    tw_create_args {
        struct_size: size_of_peer::<tw_create_args>(longer),
        reserved0: 0,
        host,
        output: tw_str::new("growing"),
        options_json: tw_str::new("{}"),
        error: null(),
    }
}

fn event(key: u64) -> tw_event {
    tw_event {
        id: tw_str::new("id"),
        key,
        op: TW_OP_INSERT,
        flags: 0,
        attempt: 1,
        reserved0: 0,
        cluster_time: 0,
        wall_time_ms: 0,
        operation_type: tw_str::new("insert"),
        db: tw_str::NONE,
        coll: tw_str::NONE,
        raw: tw_slice::NONE,
        document_key: tw_slice::NONE,
        full_document: tw_slice::NONE,
        full_document_before_change: tw_slice::NONE,
        update_description: tw_slice::NONE,
        resume_token: tw_slice::new(b"token"),
    }
}

fn batch(events: *const u8, longer: bool) -> tw_batch {
    tw_batch {
        struct_size: size_of_peer::<tw_batch>(longer),
        event_stride: size_of_peer::<tw_event>(longer),
        len: 2,
        reserved0: 0,
        bytes: 10,
        events,
        timeout_ms: 1000,
    }
}

/// Two events, `size_of_peer` bytes apart.
fn events(longer: bool) -> *const u8 {
    if longer {
        let event = |key| Longer { known: event(key), appended: [u64::MAX; 3] };
        Box::leak(Box::new([event(1), event(2)])).as_ptr().cast()
    } else {
        Box::leak(Box::new([event(1), event(2)])).as_ptr().cast()
    }
}

#[test]
fn a_longer_and_a_first_version_host_are_served_and_a_shorter_one_is_refused() {
    let table = functions::<Reader>();
    let (Some(create), Some(start)) = (table.create, table.start) else { panic!("the SDK offers both") };
    let (Some(deliver), Some(destroy)) = (table.deliver, table.destroy) else { panic!("the SDK offers both") };
    let (sender, completed) = mpsc::channel();
    *COMPLETED.lock().expect("not poisoned") = Some(sender);
    let next = || completed.recv_timeout(Duration::from_secs(60)).expect("the plugin completes");
    for longer in [true, false] {
        let host = allocate(host(longer), longer);
        let args = allocate(arguments(host, longer), longer);
        let good = allocate(batch(events(longer), longer), longer);
        let mut instance = null_mut();
        // SAFETY: what each call is given is never freed; `instance` is from `create` and destroyed once.
        unsafe {
            assert_eq!(create(args, &mut instance), TW_OK);
            assert_eq!(start(instance, 1), TW_OK);
            assert_eq!(next(), (1, TW_ACK));
            assert_eq!(deliver(instance, good, 2), TW_OK);
            assert_eq!(next(), (2, TW_ACK));
            (*good).event_stride = TW_EVENT_SIZE_MIN - 8;
            assert_eq!(deliver(instance, good, 3), TW_E_INVALID, "events too short");
            assert!(completed.try_recv().is_err(), "what is not taken is not completed");
            (*good).event_stride = size_of_peer::<tw_event>(longer);
            (*good).struct_size = TW_BATCH_SIZE_MIN - 8;
            assert_eq!(deliver(instance, good, 4), TW_E_INVALID, "a batch too short");
            destroy(instance);
            (*host).struct_size = TW_HOST_SIZE_MIN - 8;
            assert_eq!(create(args, &mut instance), TW_E_INVALID, "a host too short");
            (*host).struct_size = size_of_peer::<tw_host>(longer);
            (*args).struct_size = TW_CREATE_ARGS_SIZE_MIN - 8;
            assert_eq!(create(args, &mut instance), TW_E_INVALID, "arguments too short");
        }
    }
}
