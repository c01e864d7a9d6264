//! What is counted about the lease.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of one contender. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LeaseMetrics {
    pub(super) held: Gauge,
    epoch: Gauge,
    losses: Counter,
    lapses: Counter,
    pub(super) renewal_failures: Counter,
}

impl LeaseMetrics {
    /// Makes them visible in `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "1 while this instance holds the lease and delivers to the exclusive outputs";
        registry.register("tailwater_lease_held", help, self.held.clone());
        let help = "Epoch of the lease when this instance took it last; 0 before";
        registry.register("tailwater_lease_epoch", help, self.epoch.clone());
        let help = "Times that another instance took the lease from this one";
        registry.register("tailwater_lease_losses", help, self.losses.clone());
        let help = "Times that the lease could not be renewed in time, so that delivery stood still";
        registry.register("tailwater_lease_lapses", help, self.lapses.clone());
        let help = "Renewals of the lease that failed";
        registry.register("tailwater_lease_renewal_failures", help, self.renewal_failures.clone());
    }

    pub(super) fn taken(&self, epoch: u64) {
        self.held.set(1);
        self.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
    }

    pub(super) fn lost(&self) {
        self.held.set(0);
        self.losses.inc();
    }

    pub(super) fn lapsed(&self) {
        self.held.set(0);
        self.lapses.inc();
    }
}
