//! What an output gets from the daemon: its name, metrics, and tasks that end with it.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tailwater_abi::{TW_METRIC_COUNTER, TW_METRIC_GAUGE, tw_metric_kind};

use crate::{
    host::Host,
    tasks::{Kind, Tasks},
};

/// Services of the daemon for one output. Cheap to clone, may be kept.
#[derive(Clone)]
pub struct Context {
    pub(crate) host: Host,
    pub(crate) output: Arc<str>,
    pub(crate) tasks: Arc<Tasks>,
}

impl Context {
    /// The output's name in `config.toml`.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// Major and minor version of the border that the daemon speaks.
    pub fn host_abi(&self) -> (u16, u16) {
        self.host.abi()
    }

    /// A counter. The daemon puts `tailwater_plugin_` before the name and adds the label `output`: `counter("bytes_total", …)`
    /// becomes `tailwater_plugin_bytes_total{output="…"}`. The same name and labels give the same counter.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.counter_with(name, help, &[])
    }

    /// A counter with labels of its own. Keep their values few: each combination is a time series.
    pub fn counter_with(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        Counter(self.metric(TW_METRIC_COUNTER, name, help, labels))
    }

    /// A gauge, named as a [`counter`](Self::counter) is.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.gauge_with(name, help, &[])
    }

    /// A gauge with labels of its own. Keep their values few: each combination is a time series.
    pub fn gauge_with(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        Gauge(self.metric(TW_METRIC_GAUGE, name, help, labels))
    }

    fn metric(&self, kind: tw_metric_kind, name: &str, help: &str, labels: &[(&str, &str)]) -> Metric {
        let number = self.host.metric_register(kind, name, help, labels);
        if number == 0 {
            tracing::warn!(metric = name, "the daemon refused this metric: its values are not recorded");
        }
        Metric { host: self.host, number }
    }

    /// For a broadcast output, in [`start`](crate::Output::start): asks for the events of the last `age` first, to fill a history.
    /// As far back as the oplog reaches: [`Progress::complete_from`](crate::Progress) tells where it begins. False where the daemon
    /// does not do that: the stream then begins at now.
    pub fn want_history(&self, age: Duration) -> bool {
        self.host.want_history(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }

    /// Runs `future` beside the deliveries: a listener, a heartbeat. It is dropped, at the latest, when the output ends.
    /// Prefer this to `tokio::spawn`, whose tasks outlive the output and whose log records may name another one.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(Kind::Background, future);
    }

    /// Runs `work` on a thread where it may block, and waits for it. The work cannot be interrupted: the output does not end
    /// before it does, also where the returned future is dropped.
    ///
    /// # Errors
    /// Where the output is ending, or `work` panicked.
    pub async fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        self.tasks.spawn_blocking(work).ok_or(BlockingError::Ending)?.await.map_err(|_| BlockingError::Panicked)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("output", &self.output).finish_non_exhaustive()
    }
}

/// [`Context::spawn_blocking`] has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockingError {
    /// The output is being taken down; nothing was run.
    #[error("running blocking work: the output is ending")]
    Ending,
    /// The panic's text is in the log.
    #[error("running blocking work: it panicked")]
    Panicked,
}

#[derive(Clone, Copy)]
struct Metric {
    host: Host,
    number: u64,
}

impl Metric {
    fn record(self, value: f64) {
        if self.number != 0 {
            self.host.metric_record(self.number, value);
        }
    }
}

/// A metric that only grows.
#[derive(Clone, Copy)]
pub struct Counter(Metric);

impl Counter {
    /// Adds `value`.
    pub fn add(self, value: u64) {
        self.0.record(value as f64);
    }
}

/// A metric that goes up and down.
#[derive(Clone, Copy)]
pub struct Gauge(Metric);

impl Gauge {
    /// Sets it to `value`.
    pub fn set(self, value: f64) {
        self.0.record(value);
    }
}
