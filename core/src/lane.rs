//! The lane: the worker of one output. Takes events, matches, keeps order, batches, limits the rate, hands them to the plugin
//! and applies its verdicts; what is settled goes to the checkpoint.
//!
//! Everything every output needs is here, once. Knows no MongoDB beyond the stream it catches up on, and no other lane.
//! Reading order: [`settle`] and [`schedule`] are the pure heart, [`intake`] and [`life`] its two ends, [`durable`] its
//! memory; this file is the loop that turns them.

pub mod broadcast;
pub mod catch_up;
pub mod config;
pub mod durable;
pub mod intake;
pub mod life;
pub mod metrics;
pub mod rate;
pub mod schedule;
pub mod settle;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_match::Matcher;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::event::Event;
use crate::lane::broadcast::Broadcast;
use crate::lane::config::{Config, OnReject};
use crate::lane::durable::Durable;
use crate::lane::intake::{Intake, Next};
use crate::lane::life::{Change, Life};
use crate::lane::metrics::{FaultKind, LaneMetrics, State};
use crate::lane::rate::Bucket;
use crate::lane::schedule::{BatchLimits, Item, Schedule};
use crate::lane::settle::Settle;
use crate::plugin::{Delivered, Outcome};
use crate::source::metrics::SourceMetrics;
use crate::source::place::Place;

/// Events in a batch where neither operator nor plugin says.
const EVENTS_MAX_DEFAULT: u32 = 100;

/// At least this often the lane looks around, so that its lag is true even when nothing happens.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// A catch-up stream that the lane cannot read from for this long is given back to others.
const REST_AFTER: Duration = Duration::from_secs(5);

/// For the plugin of a broadcast output that stops.
const DISMISS_GRACE: Duration = Duration::from_secs(5);

/// One output at work.
pub struct Lane {
    config: Config,
    matcher: Option<Matcher>,
    intake: Intake,
    life: Life,
    durable: Durable,
    settle: Settle,
    schedule: Schedule,
    bucket: Option<Bucket>,
    limits: BatchLimits,
    concurrency: usize,
    /// The plugin asks for JSON, so it counts as memory.
    wants_json: bool,
    /// `Some`: its plugin is told how far the stream has come.
    broadcast: Option<Broadcast>,
    /// Batches handed out, oldest first, and when their time is over.
    deadlines: VecDeque<(Instant, u64)>,
    next_delivery: u64,
    /// Memory charged for events taken and not settled.
    held_bytes: usize,
    paused_until: Option<Instant>,
    /// A batch that could leave but is not full waits since then.
    lingering_since: Option<Instant>,
    /// The lane is at a bound since then.
    waiting_since: Option<Instant>,
    /// Retries since the last acknowledged batch; said once, and again when it is over.
    troubled_since: Option<Instant>,
    stopped: bool,
    state: State,
    metrics: LaneMetrics,
    source: SourceMetrics,
}

/// What the pipeline puts a lane together from.
pub struct LaneParts {
    /// `[outputs.NAME]`.
    pub config: Config,
    /// `match`, compiled.
    pub matcher: Option<Matcher>,
    /// Its reading end.
    pub intake: Intake,
    /// Its plugin.
    pub life: Life,
    /// Its checkpoint.
    pub durable: Durable,
    /// Where it begins.
    pub place: Place,
    /// Of the plugin: most events in a batch, where the operator says nothing.
    pub batch_events_max: Option<u32>,
    /// Of the plugin: it asks for JSON.
    pub wants_json: bool,
    /// Of the plugin: its clients carry their positions, see [`Broadcast`]. Always in strict order.
    pub broadcast: Option<Broadcast>,
    /// It does not deliver: its plugin said that it can never start like this.
    pub stopped: bool,
    /// Where it counts.
    pub metrics: LaneMetrics,
    /// For the newest known cluster time.
    pub source: SourceMetrics,
}

/// What a lane left when it ended.
#[derive(Debug)]
pub struct Ended {
    /// The output.
    pub output: String,
    /// Events taken and not settled; they are delivered again after the next start.
    pub unsettled: usize,
    /// Where the next start goes on.
    pub durable: Place,
}

impl Lane {
    /// A lane that has not begun.
    pub fn new(parts: LaneParts) -> Lane {
        let config = parts.config;
        let events_max = config.batch.events_max.or(parts.batch_events_max).unwrap_or(EVENTS_MAX_DEFAULT);
        let limits = BatchLimits {
            // A batch must fit into the bound, or it would never be full.
            events_max: (events_max as usize).min(usize::try_from(config.ahead_max).unwrap_or(usize::MAX)),
            bytes_max: usize::try_from(config.batch.bytes_max).unwrap_or(usize::MAX),
        };
        // The clients of a broadcast say where they are by the last event they saw: all before it must have been given out.
        let ordering = if parts.broadcast.is_some() { config::Ordering::Strict } else { config.ordering };
        let strict = ordering == config::Ordering::Strict;
        let bucket = config
            .rate_limit
            .as_ref()
            .map(|limit| Bucket::new(f64::from(limit.per_second), f64::from(limit.burst), Instant::now()));
        Lane {
            matcher: parts.matcher,
            intake: parts.intake,
            life: parts.life,
            durable: parts.durable,
            settle: Settle::new(parts.place),
            schedule: Schedule::new(ordering),
            bucket,
            limits,
            concurrency: if strict { 1 } else { config.concurrency as usize },
            wants_json: parts.wants_json,
            broadcast: parts.broadcast,
            deadlines: VecDeque::new(),
            next_delivery: 0,
            held_bytes: 0,
            paused_until: None,
            lingering_since: None,
            waiting_since: None,
            troubled_since: None,
            stopped: parts.stopped,
            state: State::Starting,
            metrics: parts.metrics,
            source: parts.source,
            config,
        }
    }

    /// Works until `drain` names a deadline, then settles what is in flight, makes it durable and stops the plugin.
    pub async fn run(mut self, mut drain: watch::Receiver<Option<Instant>>) -> Ended {
        self.metrics.state(self.state);
        let deadline = loop {
            let now = Instant::now();
            if let Some(deadline) = *drain.borrow_and_update() {
                break deadline;
            }
            self.take_in(now);
            self.tell_plugin(now);
            self.dispatch(now);
            if self.durable.due(&self.settle).is_some_and(|due| due <= now) {
                self.durable.save(&self.settle);
            }
            self.tell(now);
            let wake = self.next_wake(now);
            let reads = !self.stopped && self.has_room();
            tokio::select! {
                change = self.life.change() => self.on_change(change),
                more = self.intake.more(), if reads => if let Err(error) = more { self.stop(&error.to_string()) },
                durable = self.durable.saved() => self.on_saved(durable),
                () = tokio::time::sleep_until(wake.into()) => {}
                _ = drain.changed() => {}
            }
        };
        self.drain(deadline).await
    }

    /// Before anything is dispatched: a new instance is to know what it is given.
    fn tell_plugin(&mut self, now: Instant) {
        if let Some(broadcast) = &mut self.broadcast
            && self.life.is_up()
            && let Some(progress) = broadcast.due(self.settle.low_water(), now)
        {
            self.life.progress(progress);
        }
    }

    /// At a bound the lane takes nothing more.
    fn has_room(&self) -> bool {
        self.durable.ahead(&self.settle) < self.config.ahead_max
            && (self.held_bytes as u64) < self.config.in_flight_bytes_max
    }

    fn take_in(&mut self, now: Instant) {
        while !self.stopped && self.has_room() {
            match self.intake.next(self.settle.read_to()) {
                Next::Event(event) => {
                    self.waiting_since = None;
                    self.take(event);
                }
                Next::Reached(place) => {
                    self.source.saw(place.time());
                    self.settle.pass(place);
                }
                Next::Nothing => {
                    self.waiting_since = None;
                    return;
                }
            }
        }
        let since = *self.waiting_since.get_or_insert(now);
        if now.duration_since(since) >= REST_AFTER {
            self.intake.rest();
        }
    }

    fn take(&mut self, event: Arc<Event>) {
        if self.matcher.as_ref().is_some_and(|matcher| !matcher.matches(event.raw())) {
            self.metrics.filtered.inc();
            self.settle.pass(Place::After(event.token().clone()));
            return;
        }
        self.held_bytes += self.charge(&event);
        let ticket = self.settle.take(event.token());
        self.schedule.push(ticket, event);
    }

    /// Memory an event costs this lane. JSON is about twice its BSON at the most.
    fn charge(&self, event: &Event) -> usize {
        event.bytes() + if self.wants_json { 2 * event.raw().as_bytes().len() } else { 0 }
    }

    fn dispatch(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if self.life.is_up() {
            self.give_up_late_instance(now);
        }
        if self.stopped || self.paused_until.is_some() {
            return;
        }
        while self.life.is_up() && self.schedule.batches_in_flight() < self.concurrency {
            let mut limits = self.limits;
            if let Some(bucket) = &mut self.bucket {
                limits.events_max = limits.events_max.min(bucket.available(now));
                if limits.events_max == 0 {
                    return;
                }
            }
            if self.lingers(now) {
                return;
            }
            let delivery = self.next_delivery;
            self.lingering_since = None;
            let batch = self.schedule.next_batch(delivery, limits, now);
            if batch.is_empty() {
                return;
            }
            let delivered: Vec<Delivered> =
                batch.iter().map(|item| Delivered { event: Arc::clone(&item.event), attempt: item.attempt }).collect();
            if let Some(bucket) = &mut self.bucket {
                bucket.spend(delivered.len());
            }
            self.metrics.batches.inc();
            self.next_delivery += 1;
            self.deadlines.push_back((now + self.config.timeout, delivery));
            self.life.deliver(delivery, delivered, self.config.timeout);
        }
    }

    /// A batch that is not full waits for more, but never longer than `linger`.
    fn lingers(&mut self, now: Instant) -> bool {
        if self.config.batch.linger.is_zero()
            || !self.schedule.is_ready()
            || self.schedule.queued() >= self.limits.events_max
        {
            return false;
        }
        let since = *self.lingering_since.get_or_insert(now);
        now.duration_since(since) < self.config.batch.linger
    }

    fn give_up_late_instance(&mut self, now: Instant) {
        while let Some((deadline, delivery)) = self.deadlines.front().copied() {
            if !self.schedule.is_in_flight(delivery) {
                self.deadlines.pop_front();
            } else if deadline <= now {
                let reason = format!("a batch was not completed within {:?}", self.config.timeout);
                return self.replace_instance(FaultKind::Timeout, &reason);
            } else {
                return;
            }
        }
    }

    fn replace_instance(&mut self, kind: FaultKind, reason: &str) {
        self.metrics.fault(kind);
        if self.stopped {
            return self.life.give_up();
        }
        let again = self.schedule.fail_all();
        self.metrics.retried.inc_by(again as u64);
        self.deadlines.clear();
        match self.life.replace() {
            Ok(wait) => warn!(
                output = self.config.name,
                fault = kind.word(),
                again,
                ?wait,
                "plugin instance given up: {reason}; its events are delivered again on a new one"
            ),
            Err(bound) => self.stop(&format!("{reason}; {bound}")),
        }
    }

    fn on_change(&mut self, change: Change) {
        match change {
            Change::Started => {
                info!(output = self.config.name, "plugin started");
                if let Some(broadcast) = &mut self.broadcast {
                    broadcast.instance_is_new();
                }
            }
            Change::NotStarted { reason, wait } => {
                self.metrics.fault(FaultKind::Start);
                warn!(output = self.config.name, ?wait, "plugin did not start: {reason}; trying again");
            }
            Change::Fatal(reason) => {
                self.metrics.fault(FaultKind::Start);
                self.stop(&reason);
            }
            Change::Outcome(outcome) => self.on_outcome(outcome),
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        let now = Instant::now();
        let backoff = Backoff { min: self.config.retry.backoff_min, max: self.config.retry.backoff_max };
        let pause = outcome.verdicts.pause_output;
        let mut delay = |attempt| backoff.delay(attempt, rand::random());
        let done = self.schedule.complete(outcome.delivery, outcome.verdicts, now, &mut delay);
        self.metrics.delivered.inc_by(done.acked.len() as u64);
        self.metrics.retried.inc_by(done.retried as u64);
        for item in &done.acked {
            self.settled(item);
        }
        if !done.acked.is_empty() {
            self.life.is_sound();
            self.recovered(now);
        }
        if let Some(reason) = &done.retry_reason {
            self.troubled(now, reason);
        }
        if let Some(pause) = pause {
            let pause = if pause.is_zero() { delay(1) } else { pause };
            // Each batch in flight asks for it by itself; that is said once.
            if self.paused_until.is_none() {
                info!(output = self.config.name, ?pause, "the plugin asked to pause the output");
            }
            self.paused_until = self.paused_until.max(Some(now + pause));
        }
        for (item, reason) in done.rejected {
            self.rejected(&item, &reason);
        }
        if let Some(reason) = done.failed {
            self.replace_instance(FaultKind::Failed, &reason);
        }
        if let Some(reason) = done.fatal {
            self.stop(&reason);
        }
    }

    fn settled(&mut self, item: &Item) {
        self.held_bytes -= self.charge(&item.event);
        self.settle.settle(item.ticket);
    }

    fn rejected(&mut self, item: &Item, reason: &str) {
        self.metrics.rejected.inc();
        let id = item.event.id();
        match self.config.on_reject {
            OnReject::Skip => {
                warn!(output = self.config.name, %id, "event rejected and skipped: {reason}");
                self.settled(item);
            }
            OnReject::Stop => self.stop(&format!("event {id} rejected: {reason}")),
        }
    }

    fn troubled(&mut self, now: Instant, reason: &str) {
        if self.troubled_since.is_none() {
            self.troubled_since = Some(now);
            warn!(output = self.config.name, "the plugin asks to deliver again: {reason}");
        }
    }

    fn recovered(&mut self, now: Instant) {
        if self.schedule.blocked_keys() == 0
            && let Some(since) = self.troubled_since.take()
        {
            info!(output = self.config.name, after = ?now.duration_since(since), "delivering again");
        }
    }

    fn stop(&mut self, reason: &str) {
        if !self.stopped {
            error!(output = self.config.name, "output stopped: {reason}; mend the cause and start tailwater again");
        }
        self.stopped = true;
        // Its clients would wait for ever, and never hear that nothing more will come: an ended connection is something to act on.
        if self.broadcast.is_some() {
            self.life.dismiss(DISMISS_GRACE);
        }
        // Stopped is a state an operator must act on, not one that will pass: readiness does not wait for it.
        self.life.is_awaited_no_more();
    }

    fn on_saved(&mut self, durable: bool) {
        if durable {
            self.metrics.checkpoints.inc()
        } else {
            self.metrics.checkpoint_failures.inc()
        };
    }

    /// Writes the gauges, and says when the state changes.
    fn tell(&mut self, now: Instant) {
        let state = match () {
            () if self.stopped => State::Stopped,
            () if !self.life.is_up() => State::Starting,
            () if self.paused_until.is_some() => State::Paused,
            () if self.waiting_since.is_some_and(|since| now.duration_since(since) >= LOOK_AROUND) => State::Waiting,
            () if self.intake.is_live() => State::Live,
            () => State::CatchingUp,
        };
        if state != self.state {
            let place = self.settle.low_water();
            info!(output = self.config.name, state = state.word(), was = self.state.word(), low_water = %place, "state");
            self.metrics.state(state);
            self.state = state;
        }
        let newest = self.source.newest().seconds();
        self.metrics.lag.set(i64::from(newest.saturating_sub(self.settle.low_water().time().seconds())));
        self.metrics.in_flight.set(self.schedule.in_flight() as i64);
        self.metrics.unsettled.set(self.settle.unsettled() as i64);
        self.metrics.held_bytes.set(self.held_bytes as i64);
        self.metrics.catch_ups.inc_by(self.intake.falls().saturating_sub(self.metrics.catch_ups.get()));
    }

    fn next_wake(&self, now: Instant) -> Instant {
        let up = self.life.is_up();
        let slots = self.schedule.batches_in_flight() < self.concurrency;
        let free = up && !self.stopped && self.paused_until.is_none() && slots && self.schedule.queued() > 0;
        let mut wake = now + LOOK_AROUND;
        let mut at = |instant: Option<Instant>| wake = wake.min(instant.unwrap_or(wake));
        at(self.durable.due(&self.settle));
        at(self.paused_until);
        if up {
            at(self.deadlines.front().map(|(deadline, _)| *deadline));
        }
        // Only what really holds the next batch back: a time that is over already would turn this loop without end.
        if free {
            match (self.bucket.as_ref().filter(|bucket| bucket.is_empty()), self.lingering_since) {
                (Some(bucket), _) => at(Some(bucket.next_at())),
                (None, Some(since)) => at(Some(since + self.config.batch.linger)),
                (None, None) => at(self.schedule.next_timer()),
            }
        }
        wake
    }

    /// Nothing new leaves; what is in flight may still end well.
    async fn drain(mut self, deadline: Instant) -> Ended {
        // The last part of the time belongs to the checkpoint and to the plugin's own end.
        let settle_until = deadline - deadline.saturating_duration_since(Instant::now()) / 4;
        while self.schedule.in_flight() > 0 && self.life.is_up() {
            tokio::select! {
                change = self.life.change() => self.on_change(change),
                durable = self.durable.saved() => self.on_saved(durable),
                () = tokio::time::sleep_until(settle_until.into()) => break,
            }
        }
        // Tried again until the deadline: a stepdown in the middle of a drain passes.
        let last_save = async {
            while self.durable.is_saving() || *self.settle.low_water() != *self.durable.place() {
                self.durable.save(&self.settle);
                if !self.durable.is_saving() {
                    break;
                }
                let durable = self.durable.saved().await;
                if durable {
                    self.metrics.checkpoints.inc()
                } else {
                    self.metrics.checkpoint_failures.inc()
                };
                tokio::time::sleep_until(self.durable.not_before().into()).await;
            }
        };
        if tokio::time::timeout_at(deadline.into(), last_save).await.is_err() {
            warn!(output = self.config.name, "the last checkpoint could not be written in time");
        }
        self.life.stop(deadline.saturating_duration_since(Instant::now())).await;
        Ended { output: self.config.name, unsettled: self.settle.unsettled(), durable: self.durable.place().clone() }
    }
}

#[cfg(test)]
mod tests;
