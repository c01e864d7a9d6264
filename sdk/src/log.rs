//! `tracing` inside the library, forwarded to the daemon's log. A cdylib has its own copy of tracing's statics, so without this
//! every record would vanish. Each instance has a dispatcher of its own that follows its tasks from poll to poll; what speaks
//! outside of them (a task the author spawned directly) is attributed to the newest instance that lives.

use std::{
    fmt::{self, Write},
    sync::{
        Mutex, Once,
        atomic::{AtomicPtr, Ordering},
    },
};

use tailwater_abi::*;
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber, dispatcher,
    field::{Field, Visit},
    span,
    subscriber::Interest,
};

use crate::host::Host;

/// A dispatcher that forwards to this host.
pub(crate) fn dispatch_to(host: Host) -> Dispatch {
    Dispatch::new(Forward { to: Some(host) })
}

/// Once per library: the fallback for what no instance's dispatcher covers, and the panic hook.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Fails only where the process has a subscriber of its own, as a test has; then that one is what the author wants.
        let _ = tracing::subscriber::set_global_default(Forward { to: None });
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let attributed = dispatcher::get_default(|current| {
                current.downcast_ref::<Forward>().is_some_and(|forward| forward.to.is_some())
            });
            let text = payload_text(panic.payload());
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(target: "panic", location = place, "panic in the plugin: {text}");
            // Outside of any instance's task nobody may be listening: better said twice than lost.
            if !attributed {
                before(panic);
            }
        }));
    });
}

/// The text of a panic.
pub(crate) fn payload_text(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text")
}

/// Hosts of the instances that live, oldest first.
static LIVING: Mutex<Vec<Host>> = Mutex::new(Vec::new());
/// The last of `LIVING`, readable without the lock: every disabled record of an unattributed task asks for it.
static NEWEST: AtomicPtr<tw_host> = AtomicPtr::new(std::ptr::null_mut());

/// Makes this host the one that unattributed records go to.
pub(crate) fn instance_lives(host: Host) {
    let mut living = LIVING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    living.push(host);
    NEWEST.store(host.as_ptr(), Ordering::Release);
}

/// The host's functions are not called any more for what is unattributed.
pub(crate) fn instance_ended(host: Host) {
    let mut living = LIVING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(index) = living.iter().position(|other| other.same(host)) {
        living.remove(index);
    }
    NEWEST.store(living.last().map_or(std::ptr::null_mut(), |host| host.as_ptr()), Ordering::Release);
}

/// Forwards events, not spans: a span's fields would have to be kept per task, and the daemon adds output and plugin itself.
struct Forward {
    to: Option<Host>,
}

impl Forward {
    fn host(&self) -> Option<Host> {
        // SAFETY: null, or a table that lives as long as the process.
        self.to.or_else(|| unsafe { Host::new(NEWEST.load(Ordering::Acquire)) })
    }
}

impl Subscriber for Forward {
    // The level can change at any time, so that no callsite may remember the answer.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_event() { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && self.host().is_some_and(|host| level(metadata.level()) <= host.log_level())
    }

    fn event(&self, event: &Event<'_>) {
        let Some(host) = self.host() else { return };
        let mut record = Record::default();
        event.record(&mut record);
        let fields: Vec<tw_kv> = record
            .fields
            .iter()
            .map(|(key, value)| tw_kv { key: tw_str::new(key), value: tw_str::new(value) })
            .collect();
        host.log(level(event.metadata().level()), event.metadata().target(), &record.message, &fields);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn level(level: &Level) -> tw_level {
    match *level {
        Level::ERROR => TW_LEVEL_ERROR,
        Level::WARN => TW_LEVEL_WARN,
        Level::INFO => TW_LEVEL_INFO,
        Level::DEBUG => TW_LEVEL_DEBUG,
        Level::TRACE => TW_LEVEL_TRACE,
    }
}

#[derive(Default)]
struct Record {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.fields.push((field.name(), value.to_owned()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing into a String cannot fail; a broken `Debug` of the author's leaves what it wrote.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.fields.push((field.name(), format!("{value:?}")));
        }
    }
}
