//! The pure heart of a lane: which events it takes, which batches leave and when, what becomes of each event, and how far the
//! checkpoint may go. All bounds and policies of an output are kept here.
//!
//! Time, chance and the newest known cluster time are passed in. No IO, no clock, no tokio, no metrics and no log: what the
//! shell (`lane.rs`) has to count and to say comes back as [`Effects`].

mod apart;
pub mod effects;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_match::Matcher;

use crate::backoff::Backoff;
use crate::config::units::format_duration;
use crate::dead_letters::{Kind, Letter};
use crate::event::projection::Projection;
use crate::event::{Event, EventId, gap};
use crate::lane::config::{Backlog, Config, Keep, OnReject, Ordering};
use crate::lane::engine::effects::{Effects, HandOut, Refused, ReplayEnd, Taken};
use crate::lane::rate::Bucket;
use crate::lane::schedule::{BatchLimits, Item, Schedule, Settled, Withhold};
use crate::lane::settle::{Settle, Ticket};
use crate::lane::stub;
use crate::plugin::{Delivered, Verdicts};
use crate::snapshot::Progress;
use crate::source::place::Place;
use crate::source::token::Timestamp64;

/// Events in a batch where neither operator nor plugin says.
const EVENTS_MAX_DEFAULT: u32 = 100;

/// Letters that wait to be written; at that many nothing more leaves.
pub const LETTERS_MAX: usize = 1000;

/// Replayed events that are not done.
const REPLAYS_MAX: usize = 1000;

/// Their part of `in_flight_bytes_max` is one of so many: replays that do not get through must not keep live events out.
const REPLAYS_PART: usize = 4;

/// What an engine is made of.
pub struct Setup<'a> {
    /// `[outputs.NAME]`.
    pub config: &'a Config,
    /// `match`, compiled.
    pub matcher: Option<Matcher>,
    /// Where reading begins; durable.
    pub place: Place,
    /// A snapshot whose rows come before the stream.
    pub snapshot: Option<Progress>,
    /// Of the plugin: most events in a batch, where the operator says nothing.
    pub batch_events_max: Option<u32>,
    /// The plugin asks for JSON, so it counts as memory.
    pub wants_json: bool,
    /// Its clients carry their positions: always in strict order, every event, and what is settled counts as durable.
    pub broadcast: bool,
}

/// One lane's events, from being taken to being settled.
pub struct Engine {
    output: String,
    policy: Policy,
    matcher: Option<Matcher>,
    /// `match` reads nothing that a stub has not.
    decides_stubs: bool,
    projection: Option<Arc<Projection>>,
    wants_json: bool,
    settle: Settle,
    live: Schedule,
    /// Events from the dead letters: outside settle and the checkpoint, with tickets of their own.
    replays: Schedule,
    next_replay: Ticket,
    /// The next batch is one of theirs, if there is one.
    replays_turn: bool,
    bucket: Option<Bucket>,
    limits: BatchLimits,
    concurrency: usize,
    /// All events before this ticket are behind the durable place; `None` where what is settled counts as durable.
    durable: Option<Ticket>,
    /// Batches handed out, oldest first, and when their time is over. Those that were completed may still be in it.
    deadlines: VecDeque<(Instant, u64)>,
    /// Numbers the batches of both schedules.
    next_delivery: u64,
    /// Bytes charged for events taken and not settled.
    held: usize,
    /// Bytes charged for replays that are not done.
    replays_held: usize,
    paused_until: Option<Instant>,
    /// A batch that could leave but is not full waits since then.
    lingering_since: Option<Instant>,
    /// Dead letters that are not durable, oldest first.
    letters: VecDeque<(Ticket, Letter)>,
    stopped: bool,
    /// The event that stopped the output.
    stopped_at: Option<(Ticket, EventId)>,
}

/// The parts of the config that decide.
struct Policy {
    ahead_max: u64,
    /// In bytes.
    held_max: usize,
    timeout: Duration,
    linger: Duration,
    backoff: Backoff,
    give_up_after: Option<Duration>,
    backlog: Backlog,
    on_reject: OnReject,
}

impl Engine {
    /// Nothing taken yet.
    pub fn new(setup: Setup<'_>, now: Instant) -> Engine {
        let Setup { config, matcher, place, snapshot, batch_events_max, wants_json, broadcast } = setup;
        let events_max = config.batch.events_max.or(batch_events_max).unwrap_or(EVENTS_MAX_DEFAULT);
        // The clients of a broadcast say where they are by the last event they saw: all before it must have been given out.
        let ordering = if broadcast { Ordering::Strict } else { config.ordering };
        let backlog = if broadcast { Backlog { keep: Keep::All, max_age: None } } else { config.backlog };
        let give_up_after = config.retry.give_up_after;
        let bucket = config.rate_limit.as_ref();
        Engine {
            output: config.name.clone(),
            decides_stubs: matcher.as_ref().is_none_or(stub::decides),
            matcher,
            projection: config.project.clone(),
            wants_json,
            settle: Settle::with_snapshot(place, snapshot),
            live: Schedule::new(ordering, backlog.keep, give_up_after),
            replays: Schedule::new(ordering, Keep::All, give_up_after),
            next_replay: 0,
            replays_turn: false,
            bucket: bucket.map(|limit| Bucket::new(f64::from(limit.per_second), f64::from(limit.burst), now)),
            limits: BatchLimits {
                // A batch must fit into the bound, or it would never be full.
                events_max: (events_max as usize).min(usize::try_from(config.ahead_max).unwrap_or(usize::MAX)),
                bytes_max: usize::try_from(config.batch.bytes_max).unwrap_or(usize::MAX),
            },
            concurrency: if ordering == Ordering::Strict { 1 } else { config.concurrency as usize },
            durable: (!broadcast).then_some(0),
            deadlines: VecDeque::new(),
            next_delivery: 0,
            held: 0,
            replays_held: 0,
            paused_until: None,
            lingering_since: None,
            letters: VecDeque::new(),
            stopped: false,
            stopped_at: None,
            policy: Policy {
                ahead_max: config.ahead_max,
                held_max: usize::try_from(config.in_flight_bytes_max).unwrap_or(usize::MAX),
                timeout: config.timeout,
                linger: config.batch.linger,
                backoff: Backoff { min: config.retry.backoff_min, max: config.retry.backoff_max },
                give_up_after,
                backlog,
                on_reject: config.on_reject,
            },
        }
    }

    /// At a bound the lane takes nothing more.
    pub fn has_room(&self) -> bool {
        let replays = self.replays_held.min(self.policy.held_max / REPLAYS_PART);
        !self.stopped && self.ahead() < self.policy.ahead_max && self.held + replays < self.policy.held_max
    }

    /// How many events were taken past the durable place.
    pub fn ahead(&self) -> u64 {
        self.settle.next_ticket() - self.durable.unwrap_or(self.settle.first_unsettled())
    }

    /// Half way to the bound, where only a checkpoint makes room.
    pub fn is_pressed(&self) -> bool {
        self.ahead() >= self.policy.ahead_max / 2
    }

    /// Offers the next event of the stream.
    pub fn take(&mut self, event: Arc<Event>, newest: Timestamp64) -> Taken {
        if !self.wants(&event) {
            self.settle.pass(Place::After(event.token().clone()));
            return Taken::Filtered;
        }
        if self.withhold(newest).is_too_old(event.token().position().time) {
            self.settle.pass(Place::After(event.token().clone()));
            return Taken::TooOld;
        }
        let ticket = self.settle.take(event.token());
        let event = self.project(event);
        self.held += self.charge(&event);
        match self.live.push(ticket, event) {
            Some(older) => {
                self.settled(&older);
                Taken::Superseded
            }
            None => Taken::Queued,
        }
    }

    /// Everything up to `place` was read and none of it is for this output, or it was taken before.
    pub fn pass(&mut self, place: Place) {
        self.settle.pass(place);
    }

    fn wants(&self, event: &Event) -> bool {
        let Some(matcher) = &self.matcher else { return true };
        (event.poison().is_some() && !self.decides_stubs) || matcher.matches(event.raw())
    }

    /// How many texts the patterns of `match` have been given up on, in this and in earlier engines with the same matcher.
    pub fn patterns_given_up(&self) -> u64 {
        self.matcher.as_ref().map_or(0, Matcher::patterns_given_up)
    }

    /// What the output is given of an event, from here on. A gap has nobody's values in it; what came back from the dead letters and went
    /// through this projection before does not go through it again.
    fn project(&self, event: Arc<Event>) -> Arc<Event> {
        match &self.projection {
            Some(projection) if event.projection() != Some(projection.fingerprint()) && !gap::is_gap(&event) => {
                Arc::clone(event.projected(projection))
            }
            _ => event,
        }
    }

    fn withhold(&self, newest: Timestamp64) -> Withhold {
        let max_age = self.policy.backlog.max_age;
        Withhold {
            before: max_age
                .map(|age| newest.seconds().saturating_sub(u32::try_from(age.as_secs()).unwrap_or(u32::MAX))),
            poison_stops: self.policy.on_reject == OnReject::Stop,
        }
    }

    /// Memory an event costs this lane. JSON is about twice its BSON at the most.
    fn charge(&self, event: &Event) -> usize {
        event.bytes() + if self.wants_json { 2 * event.raw().as_bytes().len() } else { 0 }
    }

    /// The next batch that may leave now, if any. Ask again until there is none.
    pub fn hand_out(&mut self, now: Instant, newest: Timestamp64, effects: &mut Effects) -> Option<HandOut> {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        if self.paused_until.is_some() || !self.has_slot() {
            return None;
        }
        let mut limits = self.limits;
        if let Some(bucket) = &mut self.bucket {
            limits.events_max = limits.events_max.min(bucket.available(now));
            if limits.events_max == 0 {
                return None;
            }
        }
        let replays_first = self.replays_turn;
        for replays in [replays_first, !replays_first] {
            let batch = if replays {
                self.next_replays(limits, now, effects)
            } else {
                self.next_live(limits, now, newest, effects)
            };
            if batch.is_empty() {
                continue;
            }
            self.replays_turn = !replays;
            if let Some(bucket) = &mut self.bucket {
                bucket.spend(batch.len());
            }
            let delivery = self.next_delivery;
            self.next_delivery += 1;
            self.watch_deadline(now + self.policy.timeout, delivery);
            return Some(HandOut { delivery, batch });
        }
        None
    }

    fn next_live(
        &mut self,
        limits: BatchLimits,
        now: Instant,
        newest: Timestamp64,
        effects: &mut Effects,
    ) -> Vec<Delivered> {
        if self.stopped || self.lingers(now) {
            return Vec::new();
        }
        self.lingering_since = None;
        let (mut withheld, withhold) = (Vec::new(), self.withhold(newest));
        let batch = self.live.next_batch(self.next_delivery, limits, withhold, now, &mut withheld);
        let batch = batch.iter().map(delivered).collect();
        for item in withheld {
            match item.event.poison().map(str::to_owned) {
                Some(reason) if !withhold.is_too_old(item.event.token().position().time) => {
                    self.refuse(item, Kind::Poison, reason, effects);
                }
                _ => {
                    effects.too_old += 1;
                    self.settled(&item);
                }
            }
        }
        batch
    }

    fn next_replays(&mut self, limits: BatchLimits, now: Instant, effects: &mut Effects) -> Vec<Delivered> {
        if self.stopped || self.replays.queued() == 0 {
            return Vec::new();
        }
        let mut withheld = Vec::new();
        let batch = self.replays.next_batch(self.next_delivery, limits, Withhold::default(), now, &mut withheld);
        let batch = batch.iter().map(delivered).collect();
        for item in withheld {
            let reason = item.event.poison().unwrap_or_default().to_owned();
            self.end_replay(&item, ReplayEnd::Rejected { reason, attempts: item.attempt }, effects);
        }
        batch
    }

    /// A slot is free, and what would be refused could be kept.
    fn has_slot(&self) -> bool {
        !self.stopped && self.batches_in_flight() < self.concurrency && self.letters.len() < LETTERS_MAX
    }

    /// A batch that is not full waits for more, but never longer than `linger`.
    fn lingers(&mut self, now: Instant) -> bool {
        let linger = self.policy.linger;
        if linger.is_zero() || !self.live.is_ready() || self.live.queued() >= self.limits.events_max {
            return false;
        }
        now.duration_since(*self.lingering_since.get_or_insert(now)) < linger
    }

    fn watch_deadline(&mut self, deadline: Instant, delivery: u64) {
        // One slow batch in front must not keep the numbers of all that came after it.
        if self.deadlines.len() >= 4 * self.concurrency.max(16) {
            let (live, replays) = (&self.live, &self.replays);
            self.deadlines.retain(|(_, other)| live.is_in_flight(*other) || replays.is_in_flight(*other));
        }
        self.deadlines.push_back((deadline, delivery));
    }

    /// True when a batch was not completed within `timeout`.
    pub fn is_late(&mut self, now: Instant) -> bool {
        while let Some((deadline, delivery)) = self.deadlines.front().copied() {
            if self.live.is_in_flight(delivery) || self.replays.is_in_flight(delivery) {
                return deadline <= now;
            }
            self.deadlines.pop_front();
        }
        false
    }

    /// Applies the verdicts of a batch. An unknown number (an answer that came too late) changes nothing. `chance` gives numbers
    /// in 0..1.
    pub fn complete(
        &mut self,
        delivery: u64,
        verdicts: Verdicts,
        now: Instant,
        chance: &mut dyn FnMut() -> f64,
    ) -> Effects {
        let mut effects = Effects::default();
        let replayed = self.replays.is_in_flight(delivery);
        if !replayed && !self.live.is_in_flight(delivery) {
            return effects;
        }
        let (pause, backoff) = (verdicts.pause_output, self.policy.backoff);
        let mut delay = |failures| backoff.delay(failures, chance());
        let schedule = if replayed { &mut self.replays } else { &mut self.live };
        let mut done = schedule.complete(delivery, verdicts, now, &mut delay);
        if let Some(pause) = pause {
            let pause = if pause.is_zero() { delay(1) } else { pause };
            // Each batch in flight asks for it by itself; that is said once.
            effects.pause = self.paused_until.is_none().then_some(pause);
            self.paused_until = self.paused_until.max(Some(now + pause));
        }
        effects.retried = done.retried;
        effects.retry_reason = done.retry_reason.take();
        effects.failed = done.failed.take();
        if let Some(reason) = done.fatal.take() {
            self.stop();
            effects.stop = Some(reason);
        }
        if replayed {
            self.end_replays(done, &mut effects);
        } else {
            self.end_live(done, &mut effects);
        }
        effects
    }

    fn end_live(&mut self, done: Settled, effects: &mut Effects) {
        effects.acked = done.acked.len();
        effects.superseded = done.superseded.len();
        for item in done.acked.iter().chain(&done.superseded) {
            self.settled(item);
        }
        for (item, reason) in done.rejected {
            self.refuse(item, Kind::Rejected, reason, effects);
        }
        for (item, reason) in done.given_up {
            let reason = self.given_up(&reason);
            self.refuse(item, Kind::GivenUp, reason, effects);
        }
    }

    fn end_replays(&mut self, done: Settled, effects: &mut Effects) {
        for item in &done.acked {
            self.end_replay(item, ReplayEnd::Acked, effects);
        }
        for (item, reason) in done.rejected {
            self.end_replay(&item, ReplayEnd::Rejected { reason, attempts: item.attempt }, effects);
        }
        for (item, reason) in done.given_up {
            let reason = self.given_up(&reason);
            self.end_replay(&item, ReplayEnd::Rejected { reason, attempts: item.attempt }, effects);
        }
    }

    fn given_up(&self, reason: &str) -> String {
        let after = self.policy.give_up_after.map(format_duration).unwrap_or_default();
        format!("given up after {after}: {reason}")
    }

    fn end_replay(&mut self, item: &Item, end: ReplayEnd, effects: &mut Effects) {
        self.replays_held -= self.charge(&item.event);
        effects.replays.push((item.ticket, end));
    }

    fn settled(&mut self, item: &Item) {
        self.held -= self.charge(&item.event);
        self.settle.settle(item.ticket);
    }

    fn refuse(&mut self, item: Item, kind: Kind, reason: String, effects: &mut Effects) {
        if apart::is_settled_when_refused(&item.event) {
            return self.settled(&item);
        }
        let id = *item.event.id();
        match self.policy.on_reject {
            OnReject::Skip => self.settled(&item),
            OnReject::Stop => {
                self.stop();
                self.stopped_at.get_or_insert((item.ticket, id));
                effects.stop.get_or_insert_with(|| format!("event {id} rejected: {reason}"));
            }
            OnReject::DeadLetter => {
                let (output, reason, attempts) = (self.output.clone(), reason.clone(), item.attempt);
                let letter = Letter { output, id, kind, reason, attempts, event: item.event };
                self.letters.push_back((item.ticket, letter));
            }
        }
        effects.refused.push(Refused { id, kind, reason });
    }

    /// The oldest letters that are not durable, at most so many.
    pub fn letters(&self, max: usize) -> Vec<Letter> {
        self.letters.iter().take(max).map(|(_, letter)| letter.clone()).collect()
    }

    /// How many letters are not durable.
    pub fn letters_waiting(&self) -> usize {
        self.letters.len()
    }

    /// The oldest `count` letters are durable now: their events are settled.
    pub fn buried(&mut self, count: usize) {
        for (ticket, letter) in self.letters.drain(..count.min(self.letters.len())) {
            let bytes = letter.event.bytes();
            let json = if self.wants_json { 2 * letter.event.raw().as_bytes().len() } else { 0 };
            self.held -= bytes + json;
            self.settle.settle(ticket);
        }
    }

    /// A place that covers all events before this ticket is durable.
    pub fn durable(&mut self, ticket: Ticket) {
        self.durable = self.durable.map(|durable| durable.max(ticket));
    }

    /// The instance is gone: what was in flight is delivered again at once. `retried` of the effects says how much that is.
    pub fn instance_gone(&mut self) -> Effects {
        let (mut superseded, mut none) = (Vec::new(), Vec::new());
        let retried = self.live.fail_all(&mut superseded) + self.replays.fail_all(&mut none);
        self.deadlines.clear();
        for item in &superseded {
            self.settled(item);
        }
        Effects { retried, superseded: superseded.len(), ..Effects::default() }
    }

    /// Nothing leaves any more.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// True when nothing leaves any more.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// True while the plugin wants to be left alone.
    pub fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// True when another replay may be taken.
    pub fn has_room_for_replay(&self) -> bool {
        let (count, part) = (self.replays.queued() + self.replays.in_flight(), self.policy.held_max / REPLAYS_PART);
        !self.stopped && count < REPLAYS_MAX && self.replays_held < part
    }

    /// Takes an event that was handed out `attempts` times before and is to be delivered once more, outside settle. Its end is
    /// reported under the ticket returned.
    pub fn replay(&mut self, event: Arc<Event>, attempts: u32) -> Ticket {
        let event = self.project(event);
        self.replays_held += self.charge(&event);
        let ticket = self.next_replay;
        self.next_replay += 1;
        // At least once, or it would not be told from a first delivery.
        self.replays.push_again(ticket, event, attempts.max(1));
        ticket
    }

    /// When there is something to do by itself. `delivers`: there is an instance, and it may be given batches.
    pub fn next_wake(&self, delivers: bool) -> Option<Instant> {
        if !delivers {
            return self.paused_until;
        }
        let mut wake = self.paused_until;
        let mut at = |instant: Option<Instant>| wake = wake.into_iter().chain(instant).min();
        at(self.deadlines.front().map(|(deadline, _)| *deadline));
        // Only what really holds the next batch back: a time that is over already would turn the loop without end.
        if self.paused_until.is_none() && self.has_slot() && self.queued() > 0 {
            match self.bucket.as_ref().filter(|bucket| bucket.is_empty()) {
                Some(bucket) => at(Some(bucket.next_at())),
                None => {
                    at(self.replays.next_timer());
                    at(self.lingering_since.map(|since| since + self.policy.linger).or(self.live.next_timer()));
                }
            }
        }
        wake
    }

    /// Which events are settled.
    pub fn settle(&self) -> &Settle {
        &self.settle
    }

    /// Bytes charged for events taken and not settled, replays included.
    pub fn held_bytes(&self) -> usize {
        self.held + self.replays_held
    }

    /// Events waiting to leave, replays included.
    pub fn queued(&self) -> usize {
        self.live.queued() + self.replays.queued()
    }

    /// Events in batches that are not completed, replays included.
    pub fn in_flight(&self) -> usize {
        self.live.in_flight() + self.replays.in_flight()
    }

    /// Live events in batches that are not completed.
    pub fn live_in_flight(&self) -> usize {
        self.live.in_flight()
    }

    /// Batches that are not completed.
    pub fn batches_in_flight(&self) -> usize {
        self.live.batches_in_flight() + self.replays.batches_in_flight()
    }

    /// True while an event waits for its retry.
    pub fn is_retrying(&self) -> bool {
        self.live.blocked_keys() + self.replays.blocked_keys() > 0
    }

    /// The oldest event that is not settled. Looks at all of them.
    pub fn oldest_unsettled(&self) -> Option<EventId> {
        let scheduled = self.live.oldest().map(|item| (item.ticket, *item.event.id()));
        let letters = self.letters.iter().map(|(ticket, letter)| (*ticket, letter.id));
        letters.chain(scheduled).chain(self.stopped_at).min_by_key(|(ticket, _)| *ticket).map(|(_, id)| id)
    }
}

fn delivered(item: &Item) -> Delivered {
    Delivered { event: Arc::clone(&item.event), attempt: item.attempt }
}
