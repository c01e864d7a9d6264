//! How much longer the oplog will hold what each output still needs: a gauge, and a warning before history is lost. A task of its
//! own, over the durable places, so that a paused output is watched too: it is the one in danger.

use std::collections::HashSet;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::Shared;
use crate::admin::metrics::OutputLabel;
use crate::source::oplog::{OplogError, OplogWindow, oplog_window};

/// Between two looks at the oplog.
const INTERVAL: Duration = Duration::from_secs(10);

/// A look that has no answer by then is given up: the next one follows.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// Gauges of the oplog. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct HeadroomMetrics {
    headroom: Family<OutputLabel, Gauge>,
    window: Gauge,
}

impl HeadroomMetrics {
    /// Makes them visible in `/metrics`. Without the right to read `local` no output has a value, and the window is 0.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Time of the output's checkpoint minus the oldest time in the oplog; at 0 history is lost";
        registry.register("tailwater_output_oplog_headroom_seconds", help, self.headroom.clone());
        let help = "Newest time in the oplog minus its oldest; 0 while that is not known";
        registry.register("tailwater_oplog_window_seconds", help, self.window.clone());
    }

    /// Of one output, where it is known.
    pub fn of(&self, output: &str) -> Option<i64> {
        self.headroom.get(&OutputLabel::new(output)).map(|gauge| gauge.get())
    }
}

/// Looks again and again until the pipeline ends; `outputs` are the names of those that have a checkpoint.
pub(super) async fn watch_headroom(shared: Arc<Shared>, outputs: watch::Receiver<Vec<String>>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut headroom = Headroom { metrics: shared.metrics.headroom.clone(), ..Headroom::default() };
    loop {
        ticks.tick().await;
        if outputs.has_changed().is_err() {
            return;
        }
        match tokio::time::timeout(LOOK_MAX, oplog_window(&shared.deployment.client)).await {
            Ok(Ok(window)) => {
                let names = outputs.borrow().clone();
                headroom.look(&shared, &window, &names).await;
            }
            Ok(Err(OplogError::NotPermitted | OplogError::Absent)) => {
                info!(
                    "the oplog cannot be looked at (the user needs the role read on the database local, and it is not on a \
                     sharded cluster's router): how long it holds what outputs need stays unknown"
                );
                return;
            }
            // It passes, or the stream says so louder.
            Ok(Err(error)) => debug!("look at the oplog: {error}"),
            Err(_) => debug!("look at the oplog: no answer within {LOOK_MAX:?}"),
        }
    }
}

#[derive(Default)]
struct Headroom {
    metrics: HeadroomMetrics,
    /// Outputs with a gauge.
    seen: HashSet<String>,
    /// Outputs that were warned of.
    short: HashSet<String>,
    /// The oplog has begun to drop its oldest entries.
    has_dropped: bool,
}

impl Headroom {
    async fn look(&mut self, shared: &Shared, window: &OplogWindow, outputs: &[String]) {
        let seconds = i64::from(window.newest.seconds().saturating_sub(window.oldest.seconds()));
        self.metrics.window.set(seconds);
        self.has_dropped = self.has_dropped || has_dropped(&shared.deployment.client).await;
        let checkpoints = match tokio::time::timeout(LOOK_MAX, shared.store.list()).await {
            Ok(Ok(checkpoints)) => checkpoints,
            Ok(Err(error)) => return debug!("look at the checkpoints: {error}"),
            Err(_) => return debug!("look at the checkpoints: no answer within {LOOK_MAX:?}"),
        };
        for (output, checkpoint) in checkpoints.iter().filter(|(output, _)| outputs.contains(output)) {
            let headroom = i64::from(checkpoint.place.time().seconds()) - i64::from(window.oldest.seconds());
            self.see(output, headroom, seconds);
        }
        for gone in self.seen.extract_if(|output| !outputs.contains(output)) {
            self.metrics.headroom.remove(&OutputLabel::new(&gone));
            self.short.remove(&gone);
        }
    }

    fn see(&mut self, output: &str, headroom: i64, whole: i64) {
        self.metrics.headroom.get_or_create(&OutputLabel::new(output)).set(headroom);
        self.seen.insert(output.to_owned());
        match judge(headroom, whole, self.has_dropped) {
            Some(true) if self.short.insert(output.to_owned()) => {
                let what = match headroom {
                    1.. => "what this output still needs will soon be gone from the oplog",
                    // The window of a running daemon may still have it.
                    _ => "what this output would need after a restart is gone from the oplog",
                };
                warn!(
                    output,
                    headroom_seconds = headroom,
                    oplog_window_seconds = whole,
                    "{what}: help it to catch up, or enlarge the oplog (replSetResizeOplog)"
                );
            }
            Some(false) if self.short.remove(output) => {
                info!(output, headroom_seconds = headroom, "enough oplog again");
            }
            _ => {}
        }
    }
}

/// False while the oplog still has its very first entry. Where that cannot be told it counts as gone.
async fn has_dropped(client: &Client) -> bool {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let first = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).projection(doc! { "o.msg": 1 });
    match tokio::time::timeout(LOOK_MAX, first.into_future()).await {
        Ok(Ok(Some(entry))) => {
            let message = entry.get_document("o").ok().and_then(|o| o.get_str("msg").ok());
            message != Some("initiating set")
        }
        _ => true,
    }
}

/// Short (`true`) below a quarter of the oplog's window, enough (`false`) above half of it; in between what was said last holds. A
/// young oplog has dropped nothing: whatever is far behind is not in danger yet.
fn judge(headroom: i64, whole: i64, has_dropped: bool) -> Option<bool> {
    match headroom {
        _ if !has_dropped => Some(false),
        _ if headroom < whole / 4 => Some(true),
        _ if headroom > whole / 2 => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_comes_at_a_quarter_and_goes_at_a_half() {
        let table = [
            (100, 1000, true, Some(true)),
            (-5, 1000, true, Some(true)),
            (249, 1000, true, Some(true)),
            (250, 1000, true, None),
            (500, 1000, true, None),
            (501, 1000, true, Some(false)),
            (0, 1000, false, Some(false)),
        ];
        for (headroom, whole, has_dropped, expected) in table {
            assert_eq!(judge(headroom, whole, has_dropped), expected, "{headroom} of {whole}");
        }
    }
}
