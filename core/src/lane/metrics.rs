//! What the lanes tell of themselves, per output.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::admin::metrics::OutputLabel;
use crate::lane::engine::effects::ReplayEnd;

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
    /// Does not deliver until it is resumed.
    Stopped,
    /// There is no lane: paused by an operator, standing by, or about to begin.
    Idle,
}

impl State {
    const ALL: [State; 7] =
        [State::Starting, State::Live, State::CatchingUp, State::Waiting, State::Paused, State::Stopped, State::Idle];

    /// The word used in logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Live => "live",
            State::CatchingUp => "catching_up",
            State::Waiting => "waiting",
            State::Paused => "paused",
            State::Stopped => "stopped",
            State::Idle => "idle",
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

/// Labels of `tailwater_output_skipped`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SkipLabel {
    output: String,
    reason: &'static str,
}

/// Labels of `tailwater_output_replayed`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReplayLabel {
    output: String,
    end: &'static str,
}

/// The metrics of all outputs.
#[derive(Clone, Debug, Default)]
pub struct LaneFamilies {
    delivered: Family<OutputLabel, Counter>,
    retried: Family<OutputLabel, Counter>,
    rejected: Family<OutputLabel, Counter>,
    filtered: Family<OutputLabel, Counter>,
    patterns_given_up: Family<OutputLabel, Counter>,
    batches: Family<OutputLabel, Counter>,
    catch_ups: Family<OutputLabel, Counter>,
    checkpoints: Family<OutputLabel, Counter>,
    checkpoint_failures: Family<OutputLabel, Counter>,
    dead_lettered: Family<OutputLabel, Counter>,
    dead_letter_failures: Family<OutputLabel, Counter>,
    faults: Family<FaultLabel, Counter>,
    skipped: Family<SkipLabel, Counter>,
    replayed: Family<ReplayLabel, Counter>,
    in_flight: Family<OutputLabel, Gauge>,
    unsettled: Family<OutputLabel, Gauge>,
    held_bytes: Family<OutputLabel, Gauge>,
    letters_waiting: Family<OutputLabel, Gauge>,
    lag: Family<OutputLabel, Gauge>,
    snapshot_settled: Family<OutputLabel, Gauge>,
    snapshot_total: Family<OutputLabel, Gauge>,
    gaps: Family<OutputLabel, Counter>,
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
        add("rejected", "Events refused for good, given up or undeliverable", &self.rejected);
        add("gaps", "Stretches of lost history that the output went over, see history_lost", &self.gaps);
        add("filtered", "Events that the output's match left out", &self.filtered);
        let help = "Texts taken for no match because a regular expression of match would take too long";
        add("patterns_given_up", help, &self.patterns_given_up);
        add("batches", "Batches handed to the plugin", &self.batches);
        add("catch_ups", "Times the output fell off the window", &self.catch_ups);
        add("checkpoints", "Checkpoints made durable", &self.checkpoints);
        add("checkpoint_failures", "Checkpoints that could not be written", &self.checkpoint_failures);
        add("dead_lettered", "Events settled because they are in the dead letters", &self.dead_lettered);
        add("dead_letter_failures", "Writes to the dead letters that failed", &self.dead_letter_failures);
        let help = "Events settled without delivery by a policy of the output, by reason";
        registry.register("tailwater_output_skipped", help, self.skipped.clone());
        let help = "Dead letters delivered once more, by how that ended";
        registry.register("tailwater_output_replayed", help, self.replayed.clone());
        let help = "Instances of the plugin given up, by kind";
        registry.register("tailwater_output_faults", help, self.faults.clone());
        let mut add = |name: &str, help: &str, family: &Family<OutputLabel, Gauge>| {
            registry.register(format!("tailwater_output_{name}"), help, family.clone());
        };
        add("in_flight_events", "Events handed to the plugin and not answered", &self.in_flight);
        add("unsettled_events", "Events taken and not settled", &self.unsettled);
        add("held_bytes", "Memory charged for events taken and not settled", &self.held_bytes);
        add("dead_letters_waiting", "Dead letters that are not durable yet", &self.letters_waiting);
        add(
            "snapshot_rows",
            "Rows of the snapshot under way that are settled; 0 while there is none",
            &self.snapshot_settled,
        );
        add("snapshot_rows_expected", "Rows that were expected when the snapshot was planned", &self.snapshot_total);
        add("lag_seconds", "Newest known cluster time minus the time of the low-water mark", &self.lag);
        registry.register("tailwater_output_state", "1 for the state the output is in", self.state.clone());
    }

    /// The output is no longer configured: nothing of it is shown any more.
    pub fn forget(&self, output: &str) {
        let label = OutputLabel { output: output.to_owned() };
        for family in [
            &self.delivered,
            &self.retried,
            &self.rejected,
            &self.filtered,
            &self.patterns_given_up,
            &self.batches,
            &self.catch_ups,
            &self.checkpoints,
            &self.checkpoint_failures,
            &self.dead_lettered,
            &self.dead_letter_failures,
            &self.gaps,
        ] {
            family.remove(&label);
        }
        for family in [
            &self.in_flight,
            &self.unsettled,
            &self.held_bytes,
            &self.letters_waiting,
            &self.lag,
            &self.snapshot_settled,
            &self.snapshot_total,
        ] {
            family.remove(&label);
        }
        for state in State::ALL {
            self.state.remove(&StateLabel { output: output.to_owned(), state: state.word() });
        }
        for kind in FaultKind::ALL {
            self.faults.remove(&FaultLabel { output: output.to_owned(), kind: kind.word() });
        }
    }

    /// The metrics of one output.
    pub fn of(&self, output: &str) -> LaneMetrics {
        let label = OutputLabel { output: output.to_owned() };
        // A counter that is not there until the first fault cannot be alerted on.
        for kind in FaultKind::ALL {
            let _ = self.faults.get_or_create(&FaultLabel { output: output.to_owned(), kind: kind.word() });
        }
        for end in REPLAY_ENDS {
            let _ = self.replayed.get_or_create(&ReplayLabel { output: output.to_owned(), end });
        }
        LaneMetrics {
            output: output.to_owned(),
            delivered: self.delivered.get_or_create_owned(&label),
            retried: self.retried.get_or_create_owned(&label),
            rejected: self.rejected.get_or_create_owned(&label),
            filtered: self.filtered.get_or_create_owned(&label),
            patterns_given_up: self.patterns_given_up.get_or_create_owned(&label),
            batches: self.batches.get_or_create_owned(&label),
            catch_ups: self.catch_ups.get_or_create_owned(&label),
            checkpoints: self.checkpoints.get_or_create_owned(&label),
            checkpoint_failures: self.checkpoint_failures.get_or_create_owned(&label),
            dead_lettered: self.dead_lettered.get_or_create_owned(&label),
            dead_letter_failures: self.dead_letter_failures.get_or_create_owned(&label),
            skipped: SkipReason::ALL.map(|reason| {
                self.skipped.get_or_create_owned(&SkipLabel { output: output.to_owned(), reason: reason.word() })
            }),
            in_flight: self.in_flight.get_or_create_owned(&label),
            unsettled: self.unsettled.get_or_create_owned(&label),
            held_bytes: self.held_bytes.get_or_create_owned(&label),
            letters_waiting: self.letters_waiting.get_or_create_owned(&label),
            lag: self.lag.get_or_create_owned(&label),
            snapshot_settled: self.snapshot_settled.get_or_create_owned(&label),
            snapshot_total: self.snapshot_total.get_or_create_owned(&label),
            gaps: self.gaps.get_or_create_owned(&label),
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

/// Why an event is settled without having been delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// `backlog.max_age`.
    MaxAge,
    /// `backlog.keep`.
    Superseded,
    /// `on_reject = "skip"`.
    Rejected,
}

impl SkipReason {
    const ALL: [SkipReason; 3] = [SkipReason::MaxAge, SkipReason::Superseded, SkipReason::Rejected];

    /// The word used in metrics.
    pub fn word(self) -> &'static str {
        match self {
            SkipReason::MaxAge => "max_age",
            SkipReason::Superseded => "superseded",
            SkipReason::Rejected => "rejected",
        }
    }
}

const REPLAY_ENDS: [&str; 3] = ["acked", "rejected", "dropped"];

/// The metrics of one output.
#[derive(Clone, Debug)]
pub struct LaneMetrics {
    output: String,
    /// Events the plugin acknowledged.
    pub delivered: Counter,
    /// Deliveries of an event that ended in retry.
    pub retried: Counter,
    /// Events refused for good, given up or undeliverable.
    pub rejected: Counter,
    /// Events that `match` left out.
    pub filtered: Counter,
    /// Texts that a regular expression of `match` was too expensive for.
    pub patterns_given_up: Counter,
    /// Batches handed to the plugin.
    pub batches: Counter,
    /// Times the output fell off the window.
    pub catch_ups: Counter,
    /// Checkpoints made durable.
    pub checkpoints: Counter,
    /// Checkpoints that could not be written.
    pub checkpoint_failures: Counter,
    /// Events settled because they are in the dead letters.
    pub dead_lettered: Counter,
    /// Writes to the dead letters that failed.
    pub dead_letter_failures: Counter,
    /// By [`SkipReason`].
    skipped: [Counter; SkipReason::ALL.len()],
    /// Events handed to the plugin and not answered.
    pub in_flight: Gauge,
    /// Events taken and not settled.
    pub unsettled: Gauge,
    /// Memory charged for them, in bytes.
    pub held_bytes: Gauge,
    /// Dead letters that are not durable.
    pub letters_waiting: Gauge,
    /// In seconds.
    pub lag: Gauge,
    /// Rows of the snapshot under way that are settled.
    snapshot_settled: Gauge,
    /// Rows that were expected when it was planned; 0 while none is under way.
    snapshot_total: Gauge,
    /// Stretches of lost history that were gone over.
    pub gaps: Counter,
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

    /// The state it is in.
    pub fn current(&self) -> State {
        let is = |state: &State| {
            let label = StateLabel { output: self.output.clone(), state: state.word() };
            self.families.state.get(&label).is_some_and(|gauge| gauge.get() == 1)
        };
        State::ALL.into_iter().find(is).unwrap_or(State::Idle)
    }

    /// Rows of the snapshot under way: settled, and expected. 0 and 0 while there is none.
    pub fn snapshot_rows(&self) -> (u64, u64) {
        let rows = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        (rows(&self.snapshot_settled), rows(&self.snapshot_total))
    }

    /// A snapshot is so far; 0 of 0 where there is none.
    pub fn snapshot(&self, settled: u64, expected: u64) {
        self.snapshot_settled.set(settled as i64);
        self.snapshot_total.set(expected as i64);
    }

    /// Whether it does not deliver until it is resumed.
    pub fn is_stopped(&self) -> bool {
        self.current() == State::Stopped
    }

    /// Its lane has ended: nothing is in flight any more.
    pub fn has_no_lane(&self) {
        self.state(State::Idle);
        for gauge in [&self.in_flight, &self.unsettled, &self.held_bytes, &self.letters_waiting] {
            gauge.set(0);
        }
    }

    /// Events were settled without delivery.
    pub fn skipped(&self, reason: SkipReason, count: usize) {
        self.skipped[reason as usize].inc_by(count as u64);
    }

    /// A dead letter was delivered once more, or not.
    pub fn replay(&self, end: &ReplayEnd) {
        let end = REPLAY_ENDS[match end {
            ReplayEnd::Acked => 0,
            ReplayEnd::Rejected { .. } => 1,
            ReplayEnd::Dropped => 2,
        }];
        self.families.replayed.get_or_create(&ReplayLabel { output: self.output.clone(), end }).inc();
    }

    /// An instance was given up.
    pub fn fault(&self, kind: FaultKind) {
        self.families.faults.get_or_create(&FaultLabel { output: self.output.clone(), kind: kind.word() }).inc();
    }
}
