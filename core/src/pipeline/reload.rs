//! A new configuration under a running daemon: outputs that are added, removed or changed take effect, the others do not notice, and
//! what cannot be carried out changes nothing.
//!
//! The filter of the shared stream follows: another stream is opened beside the one that is read, and only when the server has
//! answered it the source goes over to it at its own place. So no position is lost, and a query that the server refuses is a reload
//! that did not happen.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::Running;
use super::run::{Reload, exclusive_names};
use super::slot::Slot;
use crate::config::Config;
use crate::output::PreparedOutput;
use crate::source::pump::Switch;
use crate::source::stream::{ChangeStream, StreamOptions};
use crate::window::Coverage;

/// For the server to answer a stream with the new filter.
const OPEN_MAX: Duration = Duration::from_secs(15);

/// Counters of reloads. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ReloadMetrics {
    done: Counter,
    refused: Counter,
}

impl ReloadMetrics {
    /// Makes them visible in `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("tailwater_reloads", "Configurations taken over while running", self.done.clone());
        let help = "Configurations that were refused while running; what was running went on";
        registry.register("tailwater_reloads_refused", help, self.refused.clone());
    }

    /// A file that could not even be read, or that is wrong.
    pub fn refused(&self) {
        self.refused.inc();
    }
}

impl Running {
    /// Goes over to another configuration. What was done in a few words, or why nothing was.
    pub(super) async fn reload(&mut self, reload: Reload) -> Result<String, String> {
        let outcome = self.try_reload(reload).await;
        match &outcome {
            Ok(_) => self.shared.metrics.reloads.done.inc(),
            Err(_) => self.shared.metrics.reloads.refused.inc(),
        };
        outcome
    }

    async fn try_reload(&mut self, reload: Reload) -> Result<String, String> {
        if let Some(section) = needs_restart(&self.shared.config, &reload.config) {
            return Err(format!("{section} has changed, which takes effect only with a restart; nothing was changed"));
        }
        let coverage = Coverage::of(reload.outputs.iter().map(|output| output.config.query.clone()));
        let stream = if coverage.asks_the_same(&self.asked) { None } else { Some(self.open_with(&coverage).await?) };
        let exclusive = reload.outputs.iter().any(|output| !output.library.descriptor().broadcast);
        if exclusive && !self.has_lease() {
            let lease = self.shared.begin_lease().await;
            self.put_lease(lease.map_err(|e| format!("{e}; nothing was changed"))?);
        }
        // From here on nothing can be refused.
        if coverage != self.asked {
            self.go_over(stream, coverage).await;
        }
        self.grace = reload.config.shutdown_grace;
        let summary = self.take_outputs(reload.outputs);
        self.watched.send_replace(exclusive_names(&self.slots));
        info!("reloaded: {summary}");
        self.turn_all();
        Ok(summary)
    }

    async fn open_with(&self, coverage: &Coverage) -> Result<ChangeStream, String> {
        let options = StreamOptions { filter: coverage.to_match().cloned(), ..self.shared.options.clone() };
        match tokio::time::timeout(OPEN_MAX, ChangeStream::open(options, self.window.reached())).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(format!("{error}; nothing was changed")),
            Err(_) => Err(format!("the change stream did not open within {OPEN_MAX:?}; nothing was changed")),
        }
    }

    /// Hands the stream to the source and waits until it reads it. Without one the source goes on with what it has, for other queries.
    async fn go_over(&mut self, stream: Option<ChangeStream>, coverage: Coverage) {
        self.asked = coverage.clone();
        let (done, gone_over) = oneshot::channel();
        // Where the pump has ended the daemon ends, and its loop is about to hear of it.
        let sent = self.switches.send(Switch { stream, coverage, done }).await.is_ok();
        if sent && tokio::time::timeout(OPEN_MAX, gone_over).await.is_err() {
            warn!("the source has not gone over to the new filter yet, it does when MongoDB answers");
        }
    }

    fn take_outputs(&mut self, outputs: Vec<PreparedOutput>) -> String {
        let (mut added, mut changed, mut unchanged) = (0, 0, 0);
        let mut order = Vec::new();
        for output in outputs {
            order.push(output.config.name.clone());
            match self.index(&output.config.name) {
                None => {
                    added += 1;
                    self.slots.push(Slot::new(output, &self.shared.metrics, &self.shared.ports));
                }
                Some(index) => {
                    let slot = &mut self.slots[index];
                    let current = slot.next.as_ref().unwrap_or(&slot.output);
                    let same = current.config == output.config && current.library.is_same(&output.library);
                    if same && !slot.removed {
                        unchanged += 1;
                    } else {
                        changed += 1;
                        slot.removed = false;
                        slot.next = Some(Arc::new(output));
                    }
                }
            }
        }
        let mut removed = 0;
        for slot in &mut self.slots {
            if !order.iter().any(|name| name == slot.name()) && !slot.removed {
                slot.removed = true;
                removed += 1;
            }
        }
        self.slots.sort_by_key(|slot| order.iter().position(|name| name == slot.name()).unwrap_or(usize::MAX));
        format!("{added} added, {changed} changed, {removed} removed, {unchanged} unchanged")
    }
}

/// The first section in which two configurations differ that only a start reads.
fn needs_restart(old: &Config, new: &Config) -> Option<&'static str> {
    let sections = [
        ("name", old.name != new.name),
        ("[source]", old.source != new.source),
        ("[window]", old.window != new.window),
        ("[checkpoint]", old.checkpoint != new.checkpoint),
        ("[dead_letters]", old.dead_letters != new.dead_letters),
        ("[admin]", old.admin != new.admin),
        ("plugins.dir", old.plugins != new.plugins),
    ];
    sections.into_iter().find_map(|(section, differs)| differs.then_some(section))
}
