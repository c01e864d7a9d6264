//! What the source and the window tell of themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::source::stream::Batch;
use crate::source::token::Timestamp64;

/// Counters of the shared stream. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct SourceMetrics {
    events: Counter,
    bytes: Counter,
    window_events: Gauge,
    window_bytes: Gauge,
    /// Newest known cluster time, as a 64-bit timestamp; lanes compute their lag from it.
    newest: Arc<AtomicU64>,
}

impl SourceMetrics {
    /// Makes them visible in `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("tailwater_source_events", "Events read from the shared change stream", self.events.clone());
        registry.register("tailwater_source_bytes", "BSON bytes of the events read", self.bytes.clone());
        registry.register("tailwater_window_events", "Events in the window", self.window_events.clone());
        registry.register("tailwater_window_bytes", "Bytes in the window, JSON included", self.window_bytes.clone());
    }

    /// A reply was read.
    pub fn read(&self, batch: &Batch) {
        self.events.inc_by(batch.events.len() as u64);
        self.bytes.inc_by(batch.events.iter().map(|event| event.raw().as_bytes().len() as u64).sum());
        self.saw(batch.reached.time());
    }

    /// The window's size changed.
    pub fn window(&self, events: usize, bytes: usize) {
        self.window_events.set(events as i64);
        self.window_bytes.set(bytes as i64);
    }

    /// A cluster time was seen, by whoever.
    pub fn saw(&self, time: Timestamp64) {
        self.newest.fetch_max(time.0, Ordering::Relaxed);
    }

    /// Newest known cluster time.
    pub fn newest(&self) -> Timestamp64 {
        Timestamp64(self.newest.load(Ordering::Relaxed))
    }
}
