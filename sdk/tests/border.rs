//! The border between host and plugin under Miri: nothing is used after it was freed, whatever the two sides do at once.
//! The host frees a batch as soon as its token is completed, and lingers in `complete` while the test goes on to `destroy`.
//!
//! `MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks" cargo +nightly miri test -p tailwater-sdk --features testing
//! --test border`. The leaks are the tables and the runtime that live as long as the process. Runs without Miri, too.

use std::{
    ptr::{null, null_mut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;
use tailwater_sdk::{
    Batch, Context, DeliverError, Output, StartError,
    abi::{TW_ABI_MAJOR, TW_E_INVALID, TW_E_OPTIONS, TW_MAGIC, tw_str, tw_validate_args},
    functions,
    testing::{Harness, TestEvent, Verdict},
    tokio, tracing,
};

/// How often each race is run. Miri's scheduler differs from run to run of a loop.
const ROUNDS: usize = if cfg!(miri) { 2 } else { 200 };

/// What [`Probe`] does with a batch.
#[derive(Clone, Copy, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Act {
    Read,
    Panic,
    Never,
    Block,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Options {
    act: Act,
}

struct Probe {
    act: Act,
    context: Context,
    alive: Arc<AtomicBool>,
}

impl Output for Probe {
    type Options = Options;
    const NAME: &'static str = "probe";
    const SUMMARY: &'static str = "Reads all it is given.";
    const BATCH_EVENTS_MAX: u32 = 7;

    async fn start(options: Options, context: Context) -> Result<Self, StartError> {
        let alive = Arc::new(AtomicBool::new(true));
        let (beating, output) = (alive.clone(), context.clone());
        // Speaks to the host until it is aborted: never after `destroy`.
        context.spawn(async move {
            let beats = output.counter("beats_total", "Beats.");
            loop {
                assert!(beating.load(Ordering::SeqCst), "a task outlived its output");
                beats.add(1);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Ok(Self { act: options.act, context, alive })
    }

    async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        match self.act {
            Act::Read => {
                for event in batch.iter() {
                    // The first four bytes of a document are its length.
                    let length = event.raw().first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize);
                    assert_eq!((event.id().len(), length), (33, Some(event.raw().len())));
                    tokio::task::yield_now().await;
                    assert!(event.json()?.starts_with(b"{"));
                }
            }
            Act::Panic => panic!("asked for"),
            Act::Never => std::future::pending().await,
            Act::Block => {
                let context = self.context.clone();
                self.context.spawn_blocking(move || tracing::info!(output = context.output(), "blocking")).await?;
            }
        }
        Ok(())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::SeqCst);
        tracing::info!("dropped");
    }
}

fn event() -> TestEvent {
    TestEvent::new("insert", "shop", "orders")
}

/// A host that takes its time in `complete`, when everybody else already knows of it.
fn start(act: &str) -> Harness<Probe> {
    Harness::<Probe>::builder()
        .while_completing(|| (0..20).for_each(|_| thread::yield_now()))
        .start(json!({ "act": act }))
        .unwrap_or_else(|failure| panic!("it starts, not {failure:?}"))
}

#[test]
fn destroy_races_the_end_of_complete() {
    for act in ["read", "panic", "block"] {
        for _ in 0..ROUNDS {
            let harness = start(act);
            let pending: Vec<_> = (0..2).map(|_| harness.begin_delivery(vec![event(), event()])).collect();
            for pending in pending {
                let acked = pending.wait().verdicts.iter().all(|verdict| *verdict == Verdict::Ack);
                assert_eq!(acked, act != "panic");
            }
            // `complete` may still be running on the plugin's thread.
            drop(harness);
        }
    }
}

#[test]
fn destroy_in_the_middle_of_a_delivery_ends_it_and_says_so() {
    for act in ["read", "never", "block"] {
        for _ in 0..ROUNDS {
            let harness = start(act);
            let pending = harness.begin_delivery(vec![event()]);
            // From another thread than the one that created it.
            thread::spawn(move || drop(harness)).join().expect("destroy does not panic");
            assert!(pending.is_completed(), "destroy left a delivery behind");
            // Delivered, dropped, or told that nothing new may run; never lost.
            let verdict = pending.wait().verdicts.remove(0);
            assert!(!matches!(verdict, Verdict::Reject { .. } | Verdict::Fatal { .. }), "{verdict:?}");
        }
    }
}

#[test]
fn stop_and_destroy_race_a_slow_complete() {
    for _ in 0..ROUNDS {
        let harness = start("read");
        let pending = harness.begin_delivery(vec![event(), event()]);
        assert_eq!(harness.stop(), Verdict::Ack);
        assert_eq!(pending.wait().verdicts, [Verdict::Ack, Verdict::Ack]);
    }
}

#[test]
fn stop_gives_up_waiting_and_destroy_still_ends_what_hangs() {
    let harness = start("never");
    let pending = harness.begin_delivery(vec![event()]);
    assert!(matches!(harness.stop_within(Duration::from_millis(1)), Verdict::Failed { .. }));
    assert!(matches!(pending.wait().verdicts[..], [Verdict::Failed { .. }]));
}

#[test]
fn every_function_refuses_null() {
    let table = functions::<Probe>();
    let (Some(validate), Some(create), Some(start)) = (table.validate, table.create, table.start) else {
        panic!("the SDK offers all functions")
    };
    let (Some(deliver), Some(stop), Some(destroy)) = (table.deliver, table.stop, table.destroy) else {
        panic!("the SDK offers all functions")
    };
    // SAFETY: what each of them is given is null or lives until the call returns.
    unsafe {
        assert_eq!(validate(null()), TW_E_INVALID);
        let mut args = tw_validate_args {
            struct_size: size_of::<tw_validate_args>() as u32,
            reserved0: 0,
            output: tw_str::NONE,
            options_json: tw_str::NONE,
            error: null(),
        };
        assert_eq!(validate(&args), TW_E_OPTIONS, "without options and without a sink to say why");
        args.struct_size -= 8;
        assert_eq!(validate(&args), TW_E_INVALID, "too short");
        assert_eq!(create(null(), null_mut()), TW_E_INVALID);
        assert_eq!(start(null_mut(), 1), TW_E_INVALID);
        assert_eq!(deliver(null_mut(), null(), 1), TW_E_INVALID);
        assert_eq!(stop(null_mut(), 0, 1), TW_E_INVALID);
        destroy(null_mut());
    }
}

mod exported {
    tailwater_sdk::export_output!(super::Probe);
}

#[test]
fn the_entry_describes_the_library_and_gives_the_same_pointer_always() {
    let plugin = exported::tailwater_plugin_v0();
    assert!(std::ptr::eq(plugin, exported::tailwater_plugin_v0()));
    // SAFETY: not null, and lives as long as the process.
    let (plugin, table) = unsafe { (&*plugin, &*(*plugin).vtable) };
    // SAFETY: as above.
    let text = |text: tw_str| unsafe { std::str::from_utf8(std::slice::from_raw_parts(text.ptr, text.len)) };
    assert_eq!((plugin.magic, plugin.abi_major, plugin.batch_events_max), (TW_MAGIC, TW_ABI_MAJOR, 7));
    assert_eq!((text(plugin.name), text(plugin.summary)), (Ok("probe"), Ok("Reads all it is given.")));
    let schema: serde_json::Value = serde_json::from_str(text(plugin.options_schema).expect("UTF-8")).expect("JSON");
    assert_eq!(schema["required"], json!(["act"]));
    assert!(table.create.is_some() && table.deliver.is_some() && table.destroy.is_some());
}
