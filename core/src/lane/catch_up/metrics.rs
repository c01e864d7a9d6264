//! What catch-up tells of itself, for all lanes together.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the catch-up streams. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct CatchUpMetrics {
    pub(super) streams: Gauge,
    pub(super) waiting: Gauge,
    pub(super) opened: Counter,
    pub(super) detached: Counter,
}

impl CatchUpMetrics {
    /// Makes them visible in `/metrics`. Counters get the suffix `_total` there.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Catch-up streams open now, at most source.catch_up_streams_max";
        registry.register("tailwater_catch_up_streams", help, self.streams.clone());
        let help = "Outputs that wait for a catch-up stream";
        registry.register("tailwater_catch_up_waiting_outputs", help, self.waiting.clone());
        registry.register("tailwater_catch_up_streams_opened", "Catch-up streams opened", self.opened.clone());
        let help = "Times an output lost its share of a catch-up stream because it kept others waiting";
        registry.register("tailwater_catch_up_detached", help, self.detached.clone());
    }
}
