//! Whether the shared stream is open: in `/metrics` and in `/readyz`.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::admin::{Pending, Readiness};

/// Counters of the shared stream's openness. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct HealthMetrics {
    open: Gauge,
    reopened: Counter,
    silences: Counter,
    poison: Counter,
    last_reply: Gauge,
}

impl HealthMetrics {
    /// Makes them visible in `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "1 while the shared change stream is open; while it is not, lag cannot be known and stays as it was";
        registry.register("tailwater_source_open", help, self.open.clone());
        let help = "Times the change stream was opened again, or that was tried";
        registry.register("tailwater_source_reopened", help, self.reopened.clone());
        let help = "Connections given up because the server said nothing for too long";
        registry.register("tailwater_source_silences", help, self.silences.clone());
        let help = "Events that cannot be delivered as they are: too large to be read, without a required image, or not to be decoded";
        registry.register("tailwater_source_poison_events", help, self.poison.clone());
        let help = "When the server last answered, in seconds since 1970; it does so ten times a second";
        registry.register("tailwater_source_last_reply_timestamp_seconds", help, self.last_reply.clone());
    }
}

/// How the shared stream is, told by the stream itself.
pub struct Health {
    metrics: HealthMetrics,
    readiness: Readiness,
    /// Held while the stream is not open.
    pending: Option<Pending>,
}

impl Health {
    /// Of a stream that is not open yet: the daemon is not ready.
    pub fn new(metrics: HealthMetrics, readiness: &Readiness) -> Health {
        let pending = Some(readiness.wait_for("source"));
        Health { metrics, readiness: readiness.clone(), pending }
    }

    /// The server answered.
    pub fn replied(&mut self) {
        self.metrics.open.set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.last_reply.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        if let Some(pending) = self.pending.take() {
            pending.done();
        }
    }

    /// The server said nothing for too long.
    pub fn went_silent(&mut self) {
        self.metrics.silences.inc();
    }

    /// An event was replaced by a stub.
    pub fn met_poison(&mut self) {
        self.metrics.poison.inc();
    }

    /// The stream broke or ended: it is not open.
    pub fn broke(&mut self) {
        self.metrics.open.set(0);
        self.pending.get_or_insert_with(|| self.readiness.wait_for("source"));
    }

    /// It is opened again, or that is tried.
    pub fn reopening(&mut self) {
        self.metrics.reopened.inc();
    }
}
