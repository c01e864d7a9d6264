//! What the lanes tell of themselves, per output.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::admin::metrics::OutputLabel;

/// What a lane is doing. Exactly one state of an output has the value 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The plugin is not up (yet, or again).
    Starting,
    /// Reading from the window.
    Live,
    /// Behind the window, on a stream of its own.
    CatchingUp,
    /// At `ahead_max` or `in_flight_bytes_max`: takes nothing more until something settles and is durable.
    Waiting,
    /// The plugin asked to leave it alone for a while.
    Paused,
    /// Does not deliver until the daemon is started again.
    Stopped,
}

impl State {
    const ALL: [State; 6] =
        [State::Starting, State::Live, State::CatchingUp, State::Waiting, State::Paused, State::Stopped];

    /// The word used in logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Live => "live",
            State::CatchingUp => "catching_up",
            State::Waiting => "waiting",
            State::Paused => "paused",
            State::Stopped => "stopped",
        }
    }
}

/// Labels of `tailwater_output_state`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    output: String,
    state: &'static str,
}

/// Labels of `tailwater_output_faults`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FaultLabel {
    output: String,
    kind: &'static str,
}

/// The metrics of all outputs.
#[derive(Clone, Debug, Default)]
pub struct LaneFamilies {
    delivered: Family<OutputLabel, Counter>,
    retried: Family<OutputLabel, Counter>,
    rejected: Family<OutputLabel, Counter>,
    filtered: Family<OutputLabel, Counter>,
    batches: Family<OutputLabel, Counter>,
    catch_ups: Family<OutputLabel, Counter>,
    checkpoints: Family<OutputLabel, Counter>,
    checkpoint_failures: Family<OutputLabel, Counter>,
    faults: Family<FaultLabel, Counter>,
    in_flight: Family<OutputLabel, Gauge>,
    unsettled: Family<OutputLabel, Gauge>,
    held_bytes: Family<OutputLabel, Gauge>,
    lag: Family<OutputLabel, Gauge>,
    state: Family<StateLabel, Gauge>,
}

impl LaneFamilies {
    /// Makes them visible in `/metrics`. Counters get the suffix `_total` there.
    pub fn register(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, family: &Family<OutputLabel, Counter>| {
            registry.register(format!("tailwater_output_{name}"), help, family.clone());
        };
        add("delivered", "Events the plugin acknowledged", &self.delivered);
        add("retried", "Deliveries of an event that ended in retry", &self.retried);
        add("rejected", "Events the plugin refused for good", &self.rejected);
        add("filtered", "Events that the output's match left out", &self.filtered);
        add("batches", "Batches handed to the plugin", &self.batches);
        add("catch_ups", "Times the output fell off the window", &self.catch_ups);
        add("checkpoints", "Checkpoints made durable", &self.checkpoints);
        add("checkpoint_failures", "Checkpoints that could not be written", &self.checkpoint_failures);
        let help = "Instances of the plugin given up, by kind";
        registry.register("tailwater_output_faults", help, self.faults.clone());
        let mut add = |name: &str, help: &str, family: &Family<OutputLabel, Gauge>| {
            registry.register(format!("tailwater_output_{name}"), help, family.clone());
        };
        add("in_flight_events", "Events handed to the plugin and not answered", &self.in_flight);
        add("unsettled_events", "Events taken and not settled", &self.unsettled);
        add("held_bytes", "Memory charged for events taken and not settled", &self.held_bytes);
        add("lag_seconds", "Newest known cluster time minus the time of the low-water mark", &self.lag);
        registry.register("tailwater_output_state", "1 for the state the output is in", self.state.clone());
    }

    /// The metrics of one output.
    pub fn of(&self, output: &str) -> LaneMetrics {
        let label = OutputLabel { output: output.to_owned() };
        // A counter that is not there until the first fault cannot be alerted on.
        for kind in FaultKind::ALL {
            let _ = self.faults.get_or_create(&FaultLabel { output: output.to_owned(), kind: kind.word() });
        }
        LaneMetrics {
            output: output.to_owned(),
            delivered: self.delivered.get_or_create_owned(&label),
            retried: self.retried.get_or_create_owned(&label),
            rejected: self.rejected.get_or_create_owned(&label),
            filtered: self.filtered.get_or_create_owned(&label),
            batches: self.batches.get_or_create_owned(&label),
            catch_ups: self.catch_ups.get_or_create_owned(&label),
            checkpoints: self.checkpoints.get_or_create_owned(&label),
            checkpoint_failures: self.checkpoint_failures.get_or_create_owned(&label),
            in_flight: self.in_flight.get_or_create_owned(&label),
            unsettled: self.unsettled.get_or_create_owned(&label),
            held_bytes: self.held_bytes.get_or_create_owned(&label),
            lag: self.lag.get_or_create_owned(&label),
            families: self.clone(),
        }
    }
}

/// Why an instance was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It panicked, did not take a batch, or said itself that it failed.
    Failed,
    /// A batch was not completed in time.
    Timeout,
    /// It did not start.
    Start,
}

impl FaultKind {
    const ALL: [FaultKind; 3] = [FaultKind::Failed, FaultKind::Timeout, FaultKind::Start];

    /// The word used in logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            FaultKind::Failed => "failed",
            FaultKind::Timeout => "timeout",
            FaultKind::Start => "start",
        }
    }
}

/// The metrics of one output.
#[derive(Clone, Debug)]
pub struct LaneMetrics {
    output: String,
    /// Events the plugin acknowledged.
    pub delivered: Counter,
    /// Deliveries of an event that ended in retry.
    pub retried: Counter,
    /// Events the plugin refused for good.
    pub rejected: Counter,
    /// Events that `match` left out.
    pub filtered: Counter,
    /// Batches handed to the plugin.
    pub batches: Counter,
    /// Times the output fell off the window.
    pub catch_ups: Counter,
    /// Checkpoints made durable.
    pub checkpoints: Counter,
    /// Checkpoints that could not be written.
    pub checkpoint_failures: Counter,
    /// Events handed to the plugin and not answered.
    pub in_flight: Gauge,
    /// Events taken and not settled.
    pub unsettled: Gauge,
    /// Memory charged for them, in bytes.
    pub held_bytes: Gauge,
    /// In seconds.
    pub lag: Gauge,
    families: LaneFamilies,
}

impl LaneMetrics {
    /// The output is in this state now.
    pub fn state(&self, now: State) {
        for state in State::ALL {
            let label = StateLabel { output: self.output.clone(), state: state.word() };
            self.families.state.get_or_create(&label).set(i64::from(state == now));
        }
    }

    /// An instance was given up.
    pub fn fault(&self, kind: FaultKind) {
        self.families.faults.get_or_create(&FaultLabel { output: self.output.clone(), kind: kind.word() }).inc();
    }
}
