//! Metrics of the border: two of the host per output, and those the plugins register themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tailwater_abi::{TW_METRIC_COUNTER, TW_METRIC_GAUGE};
use thiserror::Error;

use super::port::Port;

/// Metrics one output's plugin may register, counting each set of labels.
const METRICS_PER_OUTPUT_MAX: usize = 100;
const PREFIX: &str = "tailwater_plugin_";
/// Names of the host's own metrics, without the prefix.
const RESERVED: [&str; 2] = ["late_completions", "abandoned_instances"];

/// Kind and help by metric name. One name means one thing in the whole process, whichever plugins share it.
static FAMILIES: Mutex<BTreeMap<String, (Kind, String)>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// Why a plugin's metric was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum MetricFault {
    #[error("unknown kind {0}")]
    Kind(u32),
    #[error("the name does not match [a-z][a-z0-9_]*")]
    Name,
    #[error("the name is the host's own")]
    Reserved,
    #[error("the label {0:?} is not possible")]
    Label(String),
    #[error("this output's plugin has {METRICS_PER_OUTPUT_MAX} metrics already")]
    TooMany,
    #[error("another plugin registered the name with another kind")]
    OtherKind,
}

struct Metric {
    name: String,
    kind: Kind,
    labels: Vec<(String, String)>,
    /// An f64's bits.
    value: AtomicU64,
}

/// The metrics one output's plugin registered.
#[derive(Default)]
pub(crate) struct PluginMetrics {
    metrics: RwLock<Vec<Arc<Metric>>>,
}

impl PluginMetrics {
    /// Gives the metric's number, never 0. The same name and labels give the same number.
    pub(crate) fn register(
        &self,
        kind: u32,
        name: &str,
        help: &str,
        mut labels: Vec<(String, String)>,
    ) -> Result<u64, MetricFault> {
        let kind = match kind {
            TW_METRIC_COUNTER => Kind::Counter,
            TW_METRIC_GAUGE => Kind::Gauge,
            other => return Err(MetricFault::Kind(other)),
        };
        // The text format appends `_total` to counters by itself.
        let name = if kind == Kind::Counter { name.strip_suffix("_total").unwrap_or(name) } else { name };
        if !is_name(name) {
            return Err(MetricFault::Name);
        }
        if RESERVED.contains(&name) {
            return Err(MetricFault::Reserved);
        }
        labels.sort();
        let repeated = labels.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| &pair[0].0);
        if let Some(label) =
            repeated.or_else(|| labels.iter().map(|(key, _)| key).find(|key| !is_name(key) || *key == "output"))
        {
            return Err(MetricFault::Label(label.clone()));
        }
        let mut metrics = self.metrics.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = metrics.iter().position(|m| m.name == name && m.kind == kind && m.labels == labels) {
            return Ok(index as u64 + 1);
        }
        if metrics.len() >= METRICS_PER_OUTPUT_MAX {
            return Err(MetricFault::TooMany);
        }
        let mut families = FAMILIES.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name.to_owned()).or_insert_with(|| (kind, help_text(help)));
        if family.0 != kind {
            return Err(MetricFault::OtherKind);
        }
        metrics.push(Arc::new(Metric { name: name.to_owned(), kind, labels, value: AtomicU64::new(0) }));
        Ok(metrics.len() as u64)
    }

    /// Adds to a counter or sets a gauge. An unknown number, and a counter's step that is negative or no number, are ignored.
    pub(crate) fn record(&self, metric: u64, value: f64) {
        let index = usize::try_from(metric.wrapping_sub(1)).unwrap_or(usize::MAX);
        let metric = self.metrics.read().unwrap_or_else(PoisonError::into_inner).get(index).cloned();
        let Some(metric) = metric else { return };
        match metric.kind {
            Kind::Gauge => metric.value.store(value.to_bits(), Ordering::Relaxed),
            Kind::Counter if value >= 0.0 && value.is_finite() => {
                let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
                // The closure always gives a value, so the update cannot fail.
                let _ = metric.value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
            }
            Kind::Counter => {}
        }
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// As the text format wants it, on one line: the encoder writes it as it is. Without a full stop, as the daemon's own.
fn help_text(help: &str) -> String {
    let mut text = String::with_capacity(help.len());
    for c in help.trim_end().trim_end_matches('.').chars() {
        match c {
            '\\' | '"' => text.extend(['\\', c]),
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
    text
}

/// Adds the border's metrics to the registry, once per process: `tailwater_plugin_late_completions_total{output}`,
/// `tailwater_plugin_abandoned_instances{output}` and `tailwater_plugin_<name>{output,…}` as plugins register them.
pub fn register_metrics(registry: &mut Registry) {
    registry.register_collector(Box::new(PortsCollector));
}

#[derive(Debug)]
struct PortsCollector;

/// One family as it is written: its name, kind, help and samples.
struct Family {
    kind: Kind,
    help: String,
    samples: Vec<(Vec<(String, String)>, f64)>,
}

impl Collector for PortsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for (name, family) in gather() {
            let name = format!("{PREFIX}{name}");
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(&name, &family.help, None, kind)?;
            for (labels, value) in &family.samples {
                let mut sample = metric.encode_family(labels)?;
                match family.kind {
                    Kind::Counter => sample.encode_counter::<NoLabelSet, _, u64>(value, None)?,
                    Kind::Gauge => sample.encode_gauge(value)?,
                }
            }
        }
        Ok(())
    }
}

fn gather() -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut own = |name: &str, kind, help: &str| {
        families.insert(name.to_owned(), Family { kind, help: help.to_owned(), samples: Vec::new() });
    };
    own(RESERVED[0], Kind::Counter, "Completions of a token that was completed or taken back before");
    own(RESERVED[1], Kind::Gauge, "Plugin instances that were given up and whose thread has not ended");
    for (name, (kind, help)) in FAMILIES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        families.insert(name.clone(), Family { kind: *kind, help: help.clone(), samples: Vec::new() });
    }
    for port in Port::all().into_iter().filter(|port| port.is_configured()) {
        let mut add = |name: &str, labels: &[(String, String)], value: f64| {
            let Some(family) = families.get_mut(name) else { return };
            let mut all = vec![("output".to_owned(), port.output().to_owned())];
            all.extend_from_slice(labels);
            family.samples.push((all, value));
        };
        add(RESERVED[0], &[], port.late_completions() as f64);
        add(RESERVED[1], &[], port.abandoned_instances() as f64);
        for metric in port.metrics.metrics.read().unwrap_or_else(PoisonError::into_inner).iter() {
            add(&metric.name, &metric.labels, f64::from_bits(metric.value.load(Ordering::Relaxed)));
        }
    }
    families
}
