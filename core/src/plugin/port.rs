//! The host's side of one output: what its plugin instances, old and new, talk to. Lives as long as the process, because a
//! library is never unloaded and an abandoned instance may call at any time.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tailwater_abi::tw_host;
use tracing::warn;

use super::batch::Batch;
use super::host;
use super::metrics::PluginMetrics;
use super::tokens::{Taken, Tokens, Waiting};
use super::verdict::Verdicts;
use crate::event::Shape;

/// One warning about late completions per this long and output; the counter has them all.
const LATE_WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Every port of the process. A `tw_host.ctx` is an index into it plus one, so a wrong ctx is a miss, not a wild pointer.
static PORTS: RwLock<Vec<Arc<Port>>> = RwLock::new(Vec::new());

/// Host side of one output: token table, log target and metrics of its plugin. Make one per output and keep it over
/// restarts of the instance and reloads of the config.
pub struct Port {
    output: String,
    /// A [`Shape`] as a number: a reload may change it between two instances.
    shape: AtomicU8,
    /// The deployment's name: one for the life of the process.
    deployment: OnceLock<String>,
    host: HostRef,
    configured: AtomicBool,
    next_instance: AtomicU64,
    late_completions: AtomicU64,
    abandoned_instances: AtomicU64,
    last_late_warning: Mutex<Option<Instant>>,
    /// Its clients carry their positions: it may ask for history. A reload may change it too.
    broadcast: AtomicBool,
    /// How far back the plugin wants its stream to begin, in milliseconds.
    wanted_history_ms: AtomicU64,
    pub(crate) metrics: PluginMetrics,
    tokens: Mutex<Tokens>,
}

/// A leaked `tw_host`: plugins may call it as long as the process lives.
#[derive(Clone, Copy)]
struct HostRef(&'static tw_host);

// SAFETY: never written after it is made; its one pointer leads to a static atomic.
unsafe impl Send for HostRef {}
// SAFETY: as above.
unsafe impl Sync for HostRef {}

impl Port {
    /// Registers a port. `shape` is what [`TW_JSON_CONFIGURED`](tailwater_abi::TW_JSON_CONFIGURED) means to this output.
    pub fn new(output: &str, shape: impl Into<Shape>) -> Arc<Self> {
        Self::register(output, shape.into(), false)
    }

    /// The port of a broadcast output, which may ask for history.
    pub fn of_broadcast(output: &str, shape: impl Into<Shape>) -> Arc<Self> {
        Self::register(output, shape.into(), true)
    }

    fn register(output: &str, shape: Shape, broadcast: bool) -> Arc<Self> {
        let mut ports = PORTS.write().unwrap_or_else(PoisonError::into_inner);
        let ctx = ports.len() as u64 + 1;
        let port = Arc::new(Self {
            output: output.to_owned(),
            shape: AtomicU8::new(shape.number()),
            deployment: OnceLock::new(),
            host: HostRef(Box::leak(Box::new(host::services(ctx)))),
            configured: AtomicBool::new(true),
            next_instance: AtomicU64::new(1),
            late_completions: AtomicU64::new(0),
            abandoned_instances: AtomicU64::new(0),
            last_late_warning: Mutex::new(None),
            broadcast: AtomicBool::new(broadcast),
            wanted_history_ms: AtomicU64::new(0),
            metrics: PluginMetrics::default(),
            tokens: Mutex::new(Tokens::default()),
        });
        ports.push(port.clone());
        port
    }

    /// Whether its output is still configured; of others nothing is shown.
    pub fn set_configured(&self, configured: bool) {
        self.configured.store(configured, Ordering::Relaxed);
    }

    pub(crate) fn is_configured(&self) -> bool {
        self.configured.load(Ordering::Relaxed)
    }

    /// What the next instance is: between two instances, not while one is up.
    pub fn adopt(&self, shape: Shape, deployment: &str, broadcast: bool) {
        self.shape.store(shape.number(), Ordering::Relaxed);
        self.deployment.get_or_init(|| deployment.to_owned());
        self.broadcast.store(broadcast, Ordering::Relaxed);
        self.wanted_history_ms.store(0, Ordering::Relaxed);
    }

    /// Name of the output.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// Completions that came after their token was completed or taken back.
    pub fn late_completions(&self) -> u64 {
        self.late_completions.load(Ordering::Relaxed)
    }

    /// Instances given up whose thread has not ended. Each holds its last batches in memory, so a lane stops its output
    /// when there are too many.
    pub fn abandoned_instances(&self) -> u64 {
        self.abandoned_instances.load(Ordering::Relaxed)
    }

    /// How far back a broadcast output's plugin wants its stream to begin; zero where it did not say.
    pub fn wanted_history(&self) -> Duration {
        Duration::from_millis(self.wanted_history_ms.load(Ordering::Relaxed))
    }

    /// False where the output is not a broadcast.
    pub(crate) fn want_history(&self, age: Duration) -> bool {
        let may = self.broadcast.load(Ordering::Relaxed);
        if may {
            self.wanted_history_ms.store(u64::try_from(age.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        may
    }

    pub(crate) fn by_ctx(ctx: u64) -> Option<Arc<Self>> {
        let index = usize::try_from(ctx.checked_sub(1)?).ok()?;
        PORTS.read().unwrap_or_else(PoisonError::into_inner).get(index).cloned()
    }

    pub(crate) fn all() -> Vec<Arc<Self>> {
        PORTS.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn host(&self) -> &'static tw_host {
        self.host.0
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape::of_number(self.shape.load(Ordering::Relaxed))
    }

    pub(crate) fn deployment(&self) -> &str {
        self.deployment.get().map_or("default", String::as_str)
    }

    pub(crate) fn next_instance(&self) -> u64 {
        self.next_instance.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn issue(&self, instance: u64, waiting: Waiting, batch: Option<Arc<Batch>>) -> u64 {
        self.tokens().issue(instance, waiting, batch)
    }

    /// The batch of a token that is still owed.
    pub(crate) fn batch(&self, token: u64) -> Option<Arc<Batch>> {
        self.tokens().batch(token).cloned()
    }

    /// Takes back one token, as when `deliver` refused it.
    pub(crate) fn revoke(&self, token: u64) -> Option<Waiting> {
        self.tokens().revoke(token)
    }

    /// Takes back everything an instance owes: what it completes from now on is late.
    pub(crate) fn revoke_all(&self, instance: u64) {
        self.tokens().revoke_all(instance);
    }

    /// Frees what a destroyed instance held.
    pub(crate) fn release(&self, instance: u64) {
        self.tokens().release(instance);
    }

    pub(crate) fn count_abandoned(&self) {
        self.abandoned_instances.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn uncount_abandoned(&self) {
        self.abandoned_instances.fetch_sub(1, Ordering::Relaxed);
    }

    /// Completes a token, once. `verdicts` copies the answer for a batch of the length it is given.
    pub(crate) fn complete(&self, token: u64, verdicts: impl FnOnce(u32) -> Verdicts) {
        // Copied outside the lock: a plugin may hand over many results.
        let len = self.batch(token).map_or(0, |batch| batch.len());
        let verdicts = verdicts(len);
        let taken = self.tokens().complete(token);
        match taken {
            Taken::Live(waiting) => waiting.answer(verdicts),
            Taken::Revoked => self.note_late("its instance had been given up or stopped"),
            Taken::Stale => self.note_late("it had been completed before"),
        }
    }

    fn note_late(&self, why: &str) {
        let count = self.late_completions.fetch_add(1, Ordering::Relaxed) + 1;
        let mut last = self.last_late_warning.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= LATE_WARNING_INTERVAL) {
            *last = Some(Instant::now());
            warn!(output = %self.output, late_completions = count, "the plugin completed a token too late, {why}: ignored");
        }
    }

    #[cfg(test)]
    pub(crate) fn held_tokens(&self) -> usize {
        self.tokens().held()
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        // Every change of the table is complete before anything can panic, so a poisoned lock is still good.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
