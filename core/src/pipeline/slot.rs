//! One output as the pipeline sees it: what is wanted of it, and what it is doing. Pure bookkeeping; starts and ends nothing.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;

use super::PipelineMetrics;
use crate::control::{Refusal, Reply};
use crate::lane::metrics::LaneMetrics;
use crate::lane::replay::ReplaySender;
use crate::output::PreparedOutput;
use crate::plugin::Port;
use crate::snapshot::Progress;

/// The ports by output: one that comes back with a later reload has the one it had.
#[derive(Default)]
pub(super) struct Ports(std::sync::Mutex<HashMap<String, Arc<Port>>>);

impl Ports {
    fn of(&self, output: &PreparedOutput) -> Arc<Port> {
        let (name, shape) = (&output.config.name, output.config.shape());
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = if output.library.descriptor().broadcast { Port::of_broadcast } else { Port::new };
        let port = ports.entry(name.clone()).or_insert_with(|| new(name, shape));
        port.set_configured(true);
        Arc::clone(port)
    }
}

/// One output.
pub(super) struct Slot {
    /// As configured now.
    pub output: Arc<PreparedOutput>,
    /// As configured from its next start on.
    pub next: Option<Arc<PreparedOutput>>,
    /// No longer configured: goes when its lane has ended.
    pub removed: bool,
    /// By an operator.
    pub paused: bool,
    /// Where its last lane left it, in seconds of cluster time.
    pub left_at: Option<u32>,
    /// Rows that its next start is to begin with: a planned snapshot.
    pub snapshot: Option<Progress>,
    /// What it does.
    pub phase: Phase,
    /// Commands that are answered when the phase changes.
    pub waiting: Vec<Reply>,
    /// Of all its plugin instances, old and new.
    pub port: Arc<Port>,
    /// Where it counts.
    pub metrics: LaneMetrics,
}

/// What an output does.
pub(super) enum Phase {
    /// No lane.
    Idle,
    /// Its place is looked up and its plugin starts.
    Beginning(AbortHandle),
    /// A lane is at work.
    Running(LaneEnds),
    /// Its lane drains.
    Ending,
    /// Its lane failed: a fault of ours. It stays so until it is resumed.
    Failed,
}

/// The pipeline's ends of a lane.
pub(super) struct LaneEnds {
    /// Names the deadline of its drain.
    pub drain: watch::Sender<Option<Instant>>,
    /// Takes dead letters to deliver again.
    pub replays: ReplaySender,
    /// Held by the job whose replays go in.
    pub replays_turn: Arc<Mutex<()>>,
}

impl Slot {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.output.config.name
    }

    /// Whether its clients carry its position: then every instance runs it.
    pub fn is_broadcast(&self) -> bool {
        self.output.library.descriptor().broadcast
    }

    /// A slot without a lane.
    pub fn new(output: PreparedOutput, metrics: &PipelineMetrics, ports: &Ports) -> Slot {
        Slot {
            port: ports.of(&output),
            metrics: metrics.of(&output.config.name),
            output: Arc::new(output),
            next: None,
            removed: false,
            paused: false,
            left_at: None,
            snapshot: None,
            phase: Phase::Idle,
            waiting: Vec::new(),
        }
    }

    /// Whether a lane should be at work, where this instance is `holder` of the lease or not. One that runs is ended for a
    /// snapshot, and begins again with it.
    pub fn is_wanted(&self, holder: bool) -> bool {
        let ends_for_snapshot = self.snapshot.is_some() && matches!(self.phase, Phase::Running(_) | Phase::Ending);
        !self.removed && !self.paused && self.next.is_none() && !ends_for_snapshot && (holder || self.is_broadcast())
    }

    /// Whether a snapshot is about to begin or under way.
    pub fn has_snapshot(&self) -> bool {
        self.snapshot.is_some() || self.metrics.snapshot_rows().1 > 0
    }

    /// What was under way or to come is forgotten.
    pub fn has_no_snapshot(&mut self) {
        self.snapshot = None;
        self.metrics.snapshot(0, 0);
    }

    /// Answers the commands that wait for this slot.
    pub fn answer(&mut self, answer: Result<Value, Refusal>) {
        for reply in self.waiting.drain(..) {
            // Who asked may have gone.
            let _ = reply.send(answer.clone());
        }
    }

    /// True when nothing is at work and nothing will change by itself.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Failed)
    }

    /// The word for its state, where the lane does not say.
    pub fn word(&self, holder: bool) -> Option<&'static str> {
        match self.phase {
            Phase::Idle if self.paused => Some("paused_by_operator"),
            Phase::Idle if !holder && !self.is_broadcast() => Some("standby"),
            Phase::Idle | Phase::Beginning(_) => Some("beginning"),
            Phase::Ending => Some("ending"),
            Phase::Running(_) => None,
            Phase::Failed => Some("stopped"),
        }
    }
}
