//! What snapshots tell of their reading.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Counters of all snapshots together. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct SnapshotMetrics {
    /// Documents read.
    pub rows: Counter,
    /// BSON bytes of their events.
    pub bytes: Counter,
    /// Times that the reading of a range broke and was taken up again.
    pub interruptions: Counter,
}

impl SnapshotMetrics {
    /// Makes them visible in `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("tailwater_snapshot_rows", "Documents that snapshots have read", self.rows.clone());
        registry.register("tailwater_snapshot_bytes", "BSON bytes of the rows read", self.bytes.clone());
        let help = "Times the reading of a range broke and was taken up again";
        registry.register("tailwater_snapshot_interruptions", help, self.interruptions.clone());
    }
}
