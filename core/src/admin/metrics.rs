//! The registry every module adds its metrics to, and the label they share.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::registry::Registry;

/// Media type of [`SharedRegistry::render`], which every Prometheus since 2.5 asks for.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The one label of the metrics of an output.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutputLabel {
    /// Name of the output.
    pub output: String,
}

impl OutputLabel {
    /// The label of one output.
    pub fn new(output: &str) -> Self {
        Self { output: output.to_owned() }
    }
}

/// The registry of the process. Cheap to clone; a module adds to it with its own `register`.
#[derive(Clone, Default)]
pub struct SharedRegistry(Arc<RwLock<Registry>>);

impl SharedRegistry {
    /// Gives `add` the registry: `registry.with(|registry| metrics.register(registry))`.
    pub fn with<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything as text, in the OpenMetrics form of the Prometheus format.
    ///
    /// # Errors
    /// When a metric cannot be written, which would be a fault of the metric.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.0.read().unwrap_or_else(PoisonError::into_inner))?;
        Ok(out)
    }
}
