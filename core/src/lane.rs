//! The lane: the worker of one output. Takes events, matches, keeps order, batches, limits the rate, hands them to the plugin
//! and applies its verdicts; what is settled goes to the checkpoint, what cannot be delivered to the dead letters.
//!
//! Everything every output needs is here, once. Knows no MongoDB beyond the stream it catches up on, and no other lane.
//! Reading order: [`engine`] is the pure heart, made of [`settle`], [`schedule`] and [`rate`]; [`intake`] and [`life`] are the
//! lane's two ends, [`durable`] and [`burial`] its memory, [`replay`] its side door; this file is the shell: the loop that
//! turns them, that knows the time, and that counts and tells.

pub mod broadcast;
pub mod burial;
pub mod catch_up;
pub mod config;
mod drain;
pub mod durable;
pub mod engine;
pub mod intake;
pub mod life;
mod lost;
pub mod metrics;
pub mod rate;
pub mod replay;
pub(crate) mod rows;
pub mod schedule;
pub mod settle;
mod spell;
mod stub;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_match::Matcher;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use crate::event::EventId;
use crate::lane::broadcast::Broadcast;
use crate::lane::burial::{Burial, Buried, Bury};
use crate::lane::config::{Config, OnReject};
use crate::lane::durable::{Durable, Saved};
use crate::lane::engine::effects::{Effects, Refused, Taken};
use crate::lane::engine::{Engine, Setup};
use crate::lane::intake::{Intake, Next};
use crate::lane::life::{Change, Life};
use crate::lane::lost::Look;
use crate::lane::metrics::{FaultKind, LaneMetrics, SkipReason, State};
use crate::lane::replay::{ReplaySender, Replays};
use crate::lane::spell::Spell;
use crate::plugin::Outcome;
use crate::snapshot::{Progress, SnapshotReader};
use crate::source::metrics::SourceMetrics;
use crate::source::place::Place;

/// At least this often the lane looks around, so that its lag is true even when nothing happens.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// A catch-up stream that the lane cannot read from for this long is given back to others.
const REST_AFTER: Duration = Duration::from_secs(5);

/// For the plugin of a broadcast output that stops.
const DISMISS_GRACE: Duration = Duration::from_secs(5);

/// Whether this instance may still deliver. Asked before every batch, so it must be cheap.
pub type Guard = Arc<dyn Fn() -> bool + Send + Sync>;

/// One output at work.
pub struct Lane {
    config: Config,
    engine: Engine,
    intake: Intake,
    life: Life,
    durable: Durable,
    burial: Burial,
    replays: Replays,
    /// `Some` while rows of a snapshot come before the stream.
    rows: Option<SnapshotReader>,
    /// `Some` while it is looked for what is left of lost history.
    look: Option<Look>,
    /// `None`: this output needs no permission.
    guard: Option<Guard>,
    /// `Some`: its plugin is told how far the stream has come.
    broadcast: Option<Broadcast>,
    /// The lane is at a bound since then.
    waiting_since: Option<Instant>,
    /// Retries since the last acknowledged batch; said once, and again when it is over.
    troubled_since: Option<Instant>,
    /// Nothing is handed out because the guard does not hold; said once.
    barred: bool,
    /// Another instance has taken the output over.
    fenced: bool,
    /// Events skipped because of their age.
    too_old: Spell,
    /// Events whose place a newer one took.
    superseded: Spell,
    /// Events refused, given up or undeliverable.
    refused: Spell,
    /// When the progress of a snapshot was said last.
    rows_told: Option<Instant>,
    /// Texts that a pattern of `match` was too expensive for.
    given_up: Spell,
    /// Falls off the window that were counted.
    falls: u64,
    /// Texts given up that were counted.
    given_up_counted: u64,
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
    /// Where its dead letters go. Without one, `on_reject = "dead_letter"` stops the output.
    pub dead_letters: Option<Bury>,
    /// Whether this instance may deliver; `None`: it always may.
    pub guard: Option<Guard>,
    /// Where it begins.
    pub place: Place,
    /// A snapshot that comes before, and who reads its rows.
    pub snapshot: Option<(Progress, SnapshotReader)>,
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
    /// Those of them that the plugin had and did not answer: it may have delivered them.
    pub in_flight: usize,
    /// The first of the unsettled ones.
    pub oldest_unsettled: Option<EventId>,
    /// Where the next start goes on.
    pub durable: Place,
    /// The lane ended by itself: another instance has taken the output over.
    pub fenced: bool,
}

impl Lane {
    /// A lane that has not begun, and where replays of its dead letters go in.
    pub fn new(parts: LaneParts) -> (Lane, ReplaySender) {
        let mut config = parts.config;
        if parts.dead_letters.is_none() && config.on_reject == OnReject::DeadLetter {
            config.on_reject = OnReject::Stop;
        }
        let (progress, rows) = parts.snapshot.unzip();
        let setup = Setup {
            config: &config,
            matcher: parts.matcher,
            place: parts.place,
            snapshot: progress,
            batch_events_max: parts.batch_events_max,
            wants_json: parts.wants_json,
            broadcast: parts.broadcast.is_some(),
        };
        let mut engine = Engine::new(setup, Instant::now());
        if parts.stopped {
            engine.stop();
        }
        let (sender, mut replays) = Replays::new();
        if parts.stopped {
            replays.drop_all();
        }
        // The matcher counts for all lanes that the output ever had.
        let given_up_counted = engine.patterns_given_up();
        let lane = Lane {
            engine,
            intake: parts.intake,
            life: parts.life,
            durable: parts.durable,
            burial: Burial::new(&config.name, parts.dead_letters),
            replays,
            rows,
            look: None,
            guard: parts.guard,
            broadcast: parts.broadcast,
            waiting_since: None,
            troubled_since: None,
            barred: false,
            fenced: false,
            too_old: Spell::default(),
            superseded: Spell::default(),
            refused: Spell::default(),
            rows_told: None,
            given_up: Spell::default(),
            falls: 0,
            given_up_counted,
            state: State::Starting,
            metrics: parts.metrics,
            source: parts.source,
            config,
        };
        (lane, sender)
    }

    /// Works until `drain` names a deadline, then settles what is in flight, makes it durable and stops the plugin. Ends by itself
    /// when another instance has taken the output over.
    pub async fn run(mut self, mut drain: watch::Receiver<Option<Instant>>) -> Ended {
        self.metrics.state(self.state);
        let deadline = loop {
            let now = Instant::now();
            if let Some(deadline) = *drain.borrow_and_update() {
                break deadline;
            }
            if self.fenced {
                break now + DISMISS_GRACE;
            }
            self.take_in(now);
            self.tell_plugin(now);
            self.dispatch(now);
            self.burial.begin(&self.engine, now);
            if self.durable.due(self.engine.settle(), self.engine.is_pressed()).is_some_and(|due| due <= now) {
                self.durable.save(self.engine.settle());
            }
            self.tell(now);
            let wake = self.next_wake(now);
            let (reads, replays) = (self.engine.has_room(), self.engine.has_room_for_replay());
            tokio::select! {
                change = self.life.change() => self.on_change(change),
                found = rows::more(&mut self.rows), if reads => if let Err(error) = found { self.stop(&error.to_string()) },
                more = self.intake.more(), if reads && self.rows.is_none() => {
                    if let Err(error) = more { self.on_source_error(error) }
                }
                left = lost::found(&mut self.look) => self.on_left(left),
                saved = self.durable.saved() => self.on_saved(saved),
                buried = self.burial.done() => self.on_buried(buried),
                replay = self.replays.next(), if replays => self.replays.accept(replay, &mut self.engine),
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
            && let Some(progress) = broadcast.due(self.engine.settle().low_water(), now)
        {
            self.life.progress(progress);
        }
    }

    fn take_in(&mut self, now: Instant) {
        self.take_rows();
        while self.rows.is_none() && self.engine.has_room() {
            match self.intake.next(self.engine.settle().read_to()) {
                Next::Event(event) => {
                    self.waiting_since = None;
                    match self.engine.take(event, self.source.newest()) {
                        Taken::Queued => {}
                        Taken::Filtered => _ = self.metrics.filtered.inc(),
                        Taken::TooOld => self.skipped_too_old(1, now),
                        Taken::Superseded => self.skipped_superseded(1, now),
                    }
                }
                Next::Skipped(events, place) => {
                    self.waiting_since = None;
                    self.metrics.filtered.inc_by(events);
                    self.engine.pass(place);
                }
                Next::Reached(place) => {
                    self.source.saw(place.time());
                    self.engine.pass(place);
                }
                Next::Nothing => {
                    self.waiting_since = None;
                    return;
                }
            }
        }
        if self.engine.has_room() {
            return;
        }
        let since = *self.waiting_since.get_or_insert(now);
        if now.duration_since(since) >= REST_AFTER {
            self.intake.rest();
        }
    }

    fn dispatch(&mut self, now: Instant) {
        if self.life.is_up() && self.engine.is_late(now) {
            let reason = format!("a batch was not completed within {:?}", self.config.timeout);
            self.replace_instance(FaultKind::Timeout, &reason);
        }
        let newest = self.source.newest();
        let mut effects = Effects::default();
        while self.delivers()
            && let Some(leaving) = self.engine.hand_out(now, newest, &mut effects)
        {
            self.metrics.batches.inc();
            self.life.deliver(leaving.delivery, leaving.batch, self.config.timeout);
        }
        self.apply(effects, now);
    }

    /// There is an instance, and this process may deliver.
    fn delivers(&mut self) -> bool {
        if !self.life.is_up() {
            return false;
        }
        let barred = self.guard.as_ref().is_some_and(|holds| !holds());
        if barred && !self.barred {
            warn!(output = self.config.name, "nothing is delivered: this instance does not hold the lease any more");
        }
        self.barred = barred;
        !barred
    }

    fn replace_instance(&mut self, kind: FaultKind, reason: &str) {
        self.metrics.fault(kind);
        if self.engine.is_stopped() {
            return self.life.give_up();
        }
        let effects = self.engine.instance_gone();
        let again = effects.retried;
        self.apply(effects, Instant::now());
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
            Change::Outcome(Outcome { delivery, verdicts }) => {
                let now = Instant::now();
                let effects = self.engine.complete(delivery, verdicts, now, &mut rand::random);
                self.apply(effects, now);
            }
        }
    }

    /// Counts and says what the engine did, and does what it cannot.
    fn apply(&mut self, effects: Effects, now: Instant) {
        self.metrics.delivered.inc_by(effects.acked as u64);
        self.metrics.retried.inc_by(effects.retried as u64);
        self.skipped_too_old(effects.too_old, now);
        self.skipped_superseded(effects.superseded, now);
        for (ticket, end) in effects.replays {
            self.metrics.replay(&end);
            self.replays.ended(ticket, end);
        }
        if effects.acked > 0 {
            self.life.is_sound();
            self.recovered(now);
        }
        if let Some(reason) = &effects.retry_reason {
            self.troubled(now, reason);
        }
        if let Some(pause) = effects.pause {
            info!(output = self.config.name, ?pause, "the plugin asked to pause the output");
        }
        for refused in effects.refused {
            self.refused(&refused, now);
        }
        if let Some(reason) = effects.failed {
            self.replace_instance(FaultKind::Failed, &reason);
        }
        if let Some(reason) = effects.stop {
            self.stop(&reason);
        }
    }

    fn refused(&mut self, refused: &Refused, now: Instant) {
        self.metrics.rejected.inc();
        let what = match self.config.on_reject {
            OnReject::DeadLetter => "event rejected, it goes to the dead letters",
            OnReject::Skip => {
                self.metrics.skipped(SkipReason::Rejected, 1);
                "event rejected and skipped"
            }
            // It is said when the output stops.
            OnReject::Stop => return,
        };
        let (output, Refused { id, kind, reason }) = (&self.config.name, refused);
        if self.refused.add(1, now) {
            warn!(output, %id, ?kind, "{what}: {reason}");
        } else {
            debug!(output, %id, ?kind, "{what}: {reason}");
        }
    }

    fn skipped_too_old(&mut self, count: usize, now: Instant) {
        if count > 0 {
            self.metrics.skipped(SkipReason::MaxAge, count);
            if self.too_old.add(count, now) {
                warn!(output = self.config.name, "events older than backlog.max_age are skipped");
            }
        }
    }

    fn skipped_superseded(&mut self, count: usize, now: Instant) {
        if count > 0 {
            self.metrics.skipped(SkipReason::Superseded, count);
            if self.superseded.add(count, now) {
                info!(output = self.config.name, "behind: of each document only the newest waiting event is kept");
            }
        }
    }

    /// Says what it all came to, once a spell is over; at the `end` of the lane in any case.
    fn tell_spells(&mut self, now: Instant, end: bool) {
        let over = |spell: &mut Spell| if end { spell.end() } else { spell.over(now) };
        let output = &self.config.name;
        if let Some((skipped, within)) = over(&mut self.too_old) {
            warn!(output, skipped, ?within, "events older than backlog.max_age were skipped");
        }
        if let Some((skipped, within)) = over(&mut self.superseded) {
            info!(output, skipped, ?within, "events were skipped for newer ones of the same document");
        }
        if let Some((given_up, within)) = over(&mut self.given_up) {
            warn!(
                output,
                given_up,
                ?within,
                "texts were taken for no match: a regular expression of match would take too long"
            );
        }
        if let Some((rejected, within)) = over(&mut self.refused)
            && rejected > 1
        {
            warn!(
                output,
                rejected,
                ?within,
                "events were rejected; the first was named, all are in the log at level debug"
            );
        }
    }

    fn troubled(&mut self, now: Instant, reason: &str) {
        if self.troubled_since.is_none() {
            self.troubled_since = Some(now);
            warn!(output = self.config.name, "the plugin asks to deliver again: {reason}");
        }
    }

    fn recovered(&mut self, now: Instant) {
        if !self.engine.is_retrying()
            && let Some(since) = self.troubled_since.take()
        {
            info!(output = self.config.name, after = ?now.duration_since(since), "delivering again");
        }
    }

    fn stop(&mut self, reason: &str) {
        // By what was said, not by the engine: it has stopped already where it is the one that says so.
        if self.state != State::Stopped {
            let name = &self.config.name;
            error!(output = name, "output stopped: {reason}; mend the cause, then run: tailwater output resume {name}");
        }
        self.engine.stop();
        self.enter(State::Stopped);
        self.replays.drop_all();
        // Its clients would wait for ever, and never hear that nothing more will come: an ended connection is something to act on.
        if self.broadcast.is_some() {
            self.life.dismiss(DISMISS_GRACE);
        }
        // Stopped is a state an operator must act on, not one that will pass: readiness does not wait for it.
        self.life.is_awaited_no_more();
    }

    fn on_saved(&mut self, saved: Saved) {
        match saved {
            Saved::Durable(ticket) => {
                self.engine.durable(ticket);
                self.metrics.checkpoints.inc();
            }
            Saved::Failed => _ = self.metrics.checkpoint_failures.inc(),
            Saved::Fenced(reason) => {
                self.metrics.checkpoint_failures.inc();
                warn!(output = self.config.name, "{reason}; this instance ends the output");
                self.engine.stop();
                self.fenced = true;
            }
        }
    }

    fn on_buried(&mut self, buried: Buried) {
        match buried {
            Buried::Durable(count) => {
                self.engine.buried(count);
                self.metrics.dead_lettered.inc_by(count as u64);
            }
            Buried::Failed => _ = self.metrics.dead_letter_failures.inc(),
            Buried::Full(reason) => {
                self.metrics.dead_letter_failures.inc();
                self.stop(&reason);
            }
        }
    }

    fn enter(&mut self, state: State) {
        if state != self.state {
            let place = self.engine.settle().low_water();
            info!(output = self.config.name, state = state.word(), was = self.state.word(), low_water = %place, "state");
            self.metrics.state(state);
            self.state = state;
        }
    }

    /// Writes the gauges, and says when the state changes.
    fn tell(&mut self, now: Instant) {
        self.enter(match () {
            () if self.engine.is_stopped() => State::Stopped,
            () if !self.life.is_up() => State::Starting,
            () if self.engine.is_paused() => State::Paused,
            () if self.waiting_since.is_some_and(|since| now.duration_since(since) >= LOOK_AROUND) => State::Waiting,
            () if self.intake.is_live() => State::Live,
            () => State::CatchingUp,
        });
        self.tell_spells(now, false);
        self.tell_rows(now);
        let newest = self.source.newest().seconds();
        let settle = self.engine.settle();
        self.metrics.lag.set(i64::from(newest.saturating_sub(settle.low_water().time().seconds())));
        self.metrics.in_flight.set(self.engine.in_flight() as i64);
        self.metrics.unsettled.set(settle.unsettled() as i64);
        self.metrics.held_bytes.set(self.engine.held_bytes() as i64);
        self.metrics.letters_waiting.set(self.engine.letters_waiting() as i64);
        self.metrics.catch_ups.inc_by(self.intake.falls() - self.falls);
        self.falls = self.intake.falls();
        self.tell_given_up(now);
    }

    fn tell_given_up(&mut self, now: Instant) {
        let given_up = self.engine.patterns_given_up();
        let more = given_up - std::mem::replace(&mut self.given_up_counted, given_up);
        self.metrics.patterns_given_up.inc_by(more);
        if self.given_up.add(more as usize, now) {
            let output = &self.config.name;
            warn!(
                output,
                "a regular expression of match would take too long on a text: taken for no match; simplify it"
            );
        }
    }

    fn next_wake(&self, now: Instant) -> Instant {
        let delivers = self.life.is_up() && !self.barred;
        let due = [
            self.durable.due(self.engine.settle(), self.engine.is_pressed()),
            self.burial.due(&self.engine),
            self.engine.next_wake(delivers),
        ];
        due.into_iter().flatten().fold(now + LOOK_AROUND, Instant::min)
    }
}

#[cfg(test)]
mod tests;
