//! What the dead letters tell of themselves.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Account;
use crate::admin::metrics::OutputLabel;

/// Gauges and counters of the dead letters. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterMetrics {
    letters: Family<OutputLabel, Gauge>,
    bytes: Gauge,
    bytes_max: Gauge,
    failures: Family<OutputLabel, Counter>,
}

impl DeadLetterMetrics {
    /// Makes them visible in `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("tailwater_dead_letters", "Dead letters kept now", self.letters.clone());
        registry.register("tailwater_dead_letters_bytes", "What all dead letters take", self.bytes.clone());
        let max = self.bytes_max.clone();
        registry.register("tailwater_dead_letters_max_bytes", "What they may take: dead_letters.bytes_max", max);
        let failures = self.failures.clone();
        registry.register("tailwater_dead_letter_failures", "Dead letters that could not be written", failures);
    }

    /// An output exists: its metrics are there from the first moment, because what is not there cannot be alerted on.
    pub fn of(&self, output: &str) {
        let label = OutputLabel::new(output);
        drop(self.letters.get_or_create(&label));
        drop(self.failures.get_or_create(&label));
    }

    /// The bound is this.
    pub(super) fn bound(&self, bytes_max: u64) {
        self.bytes_max.set(i64::try_from(bytes_max).unwrap_or(i64::MAX));
    }

    /// There is so much now. An output that has none any more is told too.
    pub(super) fn tell(&self, account: &Account) {
        self.bytes.set(i64::try_from(account.bytes).unwrap_or(i64::MAX));
        for (output, letters) in &account.letters {
            self.letters.get_or_create(&OutputLabel::new(output)).set(i64::try_from(*letters).unwrap_or(i64::MAX));
        }
    }

    /// A letter could not be written.
    pub(super) fn failed(&self, output: &str) {
        self.failures.get_or_create(&OutputLabel::new(output)).inc();
    }
}
