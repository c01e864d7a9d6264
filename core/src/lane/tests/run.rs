//! The plain model of one run of a lane (from a start to its end): what the plugin has seen, and every rule that it, or an
//! operator, could see broken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dead_letters::Kind;
use crate::event::Event;
use crate::lane::config::{Config, Keep, OnReject, Ordering};
use crate::lane::engine::effects::{Effects, HandOut, ReplayEnd, Taken};
use crate::lane::engine::{Engine, Setup};
use crate::lane::settle::Ticket;
use crate::lane::tests::reader::{Reader, Stream};
use crate::lane::tests::settings::{Match, id, index};
use crate::plugin::{Verdict, Verdicts};
use crate::source::place::Place;
use crate::source::token::Timestamp64;

/// Where an event of the stream stands over all runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing has become of it yet.
    Open,
    /// The `match` in force left it out, or a policy skipped it; another run may decide otherwise.
    LeftOut,
    /// Delivered, or in the dead letters.
    Done,
}

/// Where an event stands in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Flying(u64),
    /// Refused; its letter is not durable.
    Letter,
    Settled,
}

/// An event on its way.
struct Journey {
    event: Arc<Event>,
    state: State,
    attempts: u32,
    first_at: Option<Instant>,
    /// It waits for its retry.
    not_before: Option<Instant>,
}

/// The events that one schedule was given, by their tickets.
#[derive(Default)]
pub struct Journeys {
    all: Vec<Journey>,
    /// All before this one have come to their end or are letters.
    first_open: usize,
    /// All before this one are settled.
    first_unsettled: usize,
}

impl Journeys {
    fn add(&mut self, event: Arc<Event>, attempts: u32) {
        self.all.push(Journey { event, state: State::Waiting, attempts, first_at: None, not_before: None });
    }

    fn is_open(&self, ticket: usize) -> bool {
        matches!(self.all[ticket].state, State::Waiting | State::Flying(_))
    }

    fn close(&mut self) {
        while self.first_open < self.all.len() && !self.is_open(self.first_open) {
            self.first_open += 1;
        }
        while self.all.get(self.first_unsettled).is_some_and(|journey| journey.state == State::Settled) {
            self.first_unsettled += 1;
        }
    }

    /// The order of the batch, and against what is open.
    fn leave(&mut self, tickets: &[usize], delivery: u64, ordering: Ordering, now: Instant, context: &str) {
        for (place, &ticket) in tickets.iter().enumerate() {
            let own = id(&self.all[ticket].event);
            assert_eq!(self.all[ticket].state, State::Waiting, "{context}: {ticket} leaves");
            for older in (self.first_open..ticket).filter(|older| self.is_open(*older)) {
                let other = id(&self.all[older].event);
                let behind = match ordering {
                    Ordering::None => false,
                    Ordering::Strict => true,
                    Ordering::Key => own.is_none() || other.is_none() || own == other,
                };
                let before = tickets[..place].contains(&older) && (ordering == Ordering::Strict || own.is_some());
                assert!(!behind || before, "{context}: {ticket} of {own:?} leaves before {older} of {other:?}");
            }
        }
        for &ticket in tickets {
            let journey = &mut self.all[ticket];
            assert!(
                journey.not_before.is_none_or(|until| until <= now),
                "{context}: {ticket} has not waited long enough"
            );
            journey.state = State::Flying(delivery);
            journey.attempts += 1;
            journey.first_at.get_or_insert(now);
        }
    }
}

/// What the plugin has.
struct Batch {
    replays: bool,
    tickets: Vec<usize>,
}

/// One run, and everything that ends with it.
pub struct Run {
    pub engine: Engine,
    pub reader: Reader,
    pub query: Match,
    pub up: bool,
    /// A checkpoint write under way.
    pub saving: Option<(Ticket, Place)>,
    /// A write of so many letters under way.
    pub burying: Option<usize>,
    context: String,
    config: Config,
    live: Journeys,
    replays: Journeys,
    batches: BTreeMap<u64, Batch>,
    last_barrier: Option<usize>,
    /// Events before this ticket are behind the durable place.
    durable: Ticket,
    paused_until: Option<Instant>,
    /// The token bucket as its documentation has it: what left and is not made up for yet.
    spent: (f64, Instant),
    /// Skips that the engine told of, and those that were found.
    skips: (usize, usize),
    pub stopped: bool,
}

impl Run {
    pub fn new(context: String, config: &Config, query: Match, stream: &Stream, place: &Place, now: Instant) -> Run {
        let setup = Setup {
            config,
            matcher: query.matcher(),
            place: place.clone(),
            snapshot: None,
            batch_events_max: None,
            wants_json: false,
            broadcast: false,
        };
        Run {
            engine: Engine::new(setup, now),
            reader: Reader::new(stream, place, query),
            query,
            up: true,
            saving: None,
            burying: None,
            context,
            config: config.clone(),
            live: Journeys::default(),
            replays: Journeys::default(),
            batches: BTreeMap::new(),
            last_barrier: None,
            durable: 0,
            paused_until: None,
            spent: (0.0, now),
            skips: (0, 0),
            stopped: false,
        }
    }

    /// Offers an event that was read.
    pub fn take(&mut self, event: Arc<Event>, newest: Timestamp64, fates: &mut [Fate]) {
        let context = &self.context;
        let wanted = self.query.wants(&event);
        let old = self.is_too_old(&event, newest);
        let taken = self.engine.take(Arc::clone(&event), newest);
        let expected = if wanted { if old { Taken::TooOld } else { Taken::Queued } } else { Taken::Filtered };
        let superseded = expected == Taken::Queued && taken == Taken::Superseded;
        assert!(taken == expected || superseded, "{context}: {event:?} is {taken:?}, expected {expected:?}");
        match taken {
            Taken::Filtered | Taken::TooOld => leave_out(&mut fates[index(&event)]),
            Taken::Queued | Taken::Superseded => {
                if id(&event).is_none() {
                    self.last_barrier = Some(self.live.all.len());
                }
                self.live.add(event, 0);
                self.skips.0 += usize::from(superseded);
            }
        }
        let ahead = self.live.all.len() as u64 - self.durable;
        assert!(ahead <= self.config.ahead_max, "{}: {ahead} events past the checkpoint", self.context);
        self.reconcile(newest, fates);
    }

    /// What the output is given of an event, shared by all who look.
    fn given<'e>(&self, event: &'e Arc<Event>) -> &'e Arc<Event> {
        self.config.project.as_ref().map_or(event, |projection| event.projected(projection))
    }

    fn is_too_old(&self, event: &Event, newest: Timestamp64) -> bool {
        let age = newest.seconds() - event.token().position().time.seconds();
        self.config.backlog.max_age.is_some_and(|max| Duration::from_secs(u64::from(age)) > max)
    }

    /// Lets at most one batch leave. True when one did.
    pub fn hand_out(&mut self, now: Instant, newest: Timestamp64, fates: &mut [Fate]) -> bool {
        let mut effects = Effects::default();
        let leaving = self.engine.hand_out(now, newest, &mut effects);
        self.refusals(&effects, Kind::Poison, fates);
        self.apply(effects);
        self.reconcile(newest, fates);
        let Some(HandOut { delivery, batch }) = leaving else { return false };
        let context = format!("{} batch {delivery}", self.context);
        assert!(self.paused_until.is_none_or(|until| until <= now), "{context}: leaves while the output is paused");
        assert!(self.batches.len() < self.concurrency(), "{context}: {} in flight", self.batches.len());
        self.limits(&batch.iter().map(|d| d.event.raw().as_bytes().len()).collect::<Vec<_>>(), now, &context);
        let replays = self.find(&self.replays, &batch[0].event).is_some();
        let journeys = if replays { &self.replays } else { &self.live };
        let tickets: Vec<usize> = batch
            .iter()
            .map(|d| self.find(journeys, &d.event).unwrap_or_else(|| panic!("{context}: {:?} leaves", d.event)))
            .collect();
        for (delivered, ticket) in batch.iter().zip(&tickets) {
            let (event, before) = (&delivered.event, journeys.all[*ticket].attempts);
            assert_eq!(delivered.attempt, before + 1, "{context}: attempt of {event:?}");
            assert!(event.poison().is_none(), "{context}: {event:?} cannot be delivered");
            assert!(replays || before > 0 || !self.is_too_old(event, newest), "{context}: {event:?} is too old");
            assert!(!replays || delivered.attempt >= 2, "{context}: a replay looks like news");
        }
        let ordering = self.config.ordering;
        let journeys = if replays { &mut self.replays } else { &mut self.live };
        journeys.leave(&tickets, delivery, ordering, now, &context);
        assert!(self.batches.insert(delivery, Batch { replays, tickets }).is_none(), "{context}: the number is taken");
        true
    }

    fn concurrency(&self) -> usize {
        if self.config.ordering == Ordering::Strict { 1 } else { self.config.concurrency as usize }
    }

    fn limits(&mut self, sizes: &[usize], now: Instant, context: &str) {
        let events_max = self.config.batch.events_max.expect("set") as usize;
        let bytes: usize = sizes.iter().sum();
        assert!(sizes.len() <= events_max.min(self.config.ahead_max as usize), "{context}: {} events", sizes.len());
        assert!(sizes.len() == 1 || bytes as u64 <= self.config.batch.bytes_max, "{context}: {bytes} bytes");
        if let Some(rate) = &self.config.rate_limit {
            let (spent, at) = self.spent;
            let made_up = now.duration_since(at).as_secs_f64() * f64::from(rate.per_second);
            let spent = (spent - made_up).max(0.0) + sizes.len() as f64;
            assert!(spent <= f64::from(rate.burst) + 1e-3, "{context}: {spent} events at once");
            self.spent = (spent, now);
        }
    }

    /// The ticket of the event in `journeys`, if it is open there.
    fn find(&self, journeys: &Journeys, event: &Arc<Event>) -> Option<usize> {
        (journeys.first_open..journeys.all.len())
            .find(|ticket| Arc::ptr_eq(self.given(&journeys.all[*ticket].event), event) && journeys.is_open(*ticket))
    }

    /// The number of a batch that the plugin has.
    pub fn batch(&self, nth: usize) -> Option<(u64, usize)> {
        self.batches.iter().nth(nth).map(|(delivery, batch)| (*delivery, batch.tickets.len()))
    }

    /// The plugin answers.
    pub fn complete(
        &mut self,
        delivery: u64,
        verdicts: Verdicts,
        now: Instant,
        newest: Timestamp64,
        fates: &mut [Fate],
    ) {
        let effects = self.engine.complete(delivery, verdicts.clone(), now, &mut || 0.5);
        let context = format!("{} answer to {delivery}", self.context);
        let Some(Batch { replays, tickets }) = self.batches.remove(&delivery) else {
            let nothing = effects.acked + effects.retried + effects.refused.len() + effects.replays.len() == 0;
            assert!(nothing && effects.pause.is_none(), "{context}: a late answer changes nothing, not {effects:?}");
            return;
        };
        if let Some(pause) = verdicts.pause_output {
            // What the host's own backoff chose is no shorter than this.
            let pause = if pause.is_zero() { self.config.retry.backoff_min } else { pause };
            self.paused_until = self.paused_until.max(Some(now + pause));
        }
        let mut held_back = Vec::new();
        let (mut acked, mut again, mut rejected, mut given_up) = (0, 0, Vec::new(), Vec::new());
        for (place, &ticket) in tickets.iter().enumerate() {
            let journeys = if replays { &mut self.replays } else { &mut self.live };
            let journey = &mut journeys.all[ticket];
            journey.state = State::Waiting;
            let key = match self.config.ordering {
                Ordering::Key => id(&journey.event).map_or(ticket as i64 + 1000, i64::from),
                Ordering::Strict => 0,
                Ordering::None => ticket as i64,
            };
            let named = verdicts.overrides.iter().rev().find(|(named, _)| *named as usize == place);
            match named.map_or(&verdicts.default, |(_, verdict)| verdict) {
                _ if held_back.contains(&key) => again += 1,
                Verdict::Ack => {
                    acked += 1;
                    journey.state = State::Settled;
                    fates[index(&journey.event)] = Fate::Done;
                    continue;
                }
                Verdict::Reject { .. } => rejected.push(ticket),
                Verdict::Retry { after, .. } => {
                    let tried = now.duration_since(journey.first_at.expect("it was handed out"));
                    if self.config.retry.give_up_after.is_some_and(|after| tried >= after) {
                        given_up.push(ticket);
                    } else {
                        again += 1;
                        journey.not_before = Some(now + after.unwrap_or(self.config.retry.backoff_min));
                    }
                }
                verdict => panic!("{context}: no such verdict in this test: {verdict:?}"),
            }
            held_back.push(key);
        }
        assert_eq!(effects.retried, again, "{context}: to be delivered again");
        assert_eq!(effects.acked, if replays { 0 } else { acked }, "{context}: acknowledged");
        if replays {
            let refused = rejected.len() + given_up.len();
            assert_eq!(effects.replays.len(), acked + refused, "{context}: {:?}", effects.replays);
            for ticket in rejected.into_iter().chain(given_up) {
                self.replays.all[ticket].state = State::Settled;
            }
        } else {
            let of = |kind| effects.refused.iter().filter(|refused| refused.kind == kind).count();
            assert_eq!(
                (of(Kind::Rejected), of(Kind::GivenUp)),
                (rejected.len(), given_up.len()),
                "{context}: {effects:?}"
            );
            self.refusals(&effects, Kind::Rejected, fates);
            self.refusals(&effects, Kind::GivenUp, fates);
        }
        self.apply(effects);
        self.reconcile(newest, fates);
    }

    /// What the engine says it refused is no longer open here either.
    fn refusals(&mut self, effects: &Effects, kind: Kind, fates: &mut [Fate]) {
        for refused in effects.refused.iter().filter(|refused| refused.kind == kind) {
            let context = &self.context;
            let mut open = (self.live.first_open..self.live.all.len()).filter(|ticket| self.live.is_open(*ticket));
            let found = open.find(|ticket| *self.live.all[*ticket].event.id() == refused.id);
            let ticket = found.unwrap_or_else(|| panic!("{context}: {refused:?} was not open"));
            let journey = &mut self.live.all[ticket];
            assert_eq!(journey.state, State::Waiting, "{context}: {refused:?} is in flight");
            assert_eq!(journey.event.poison().is_some(), kind == Kind::Poison, "{context}: {refused:?}");
            journey.state = State::Letter;
            if self.config.on_reject == OnReject::Skip {
                journey.state = State::Settled;
                leave_out(&mut fates[index(&journey.event)]);
            }
        }
    }

    fn apply(&mut self, effects: Effects) {
        self.skips.0 += effects.too_old + effects.superseded;
        for (ticket, end) in effects.replays {
            // Also one that never left: a stub.
            let journey = &mut self.replays.all[ticket as usize];
            assert!(end != ReplayEnd::Dropped, "{}: dropped", self.context);
            journey.state = State::Settled;
        }
        if let Some(reason) = effects.stop {
            assert_eq!(self.config.on_reject, OnReject::Stop, "{}: stopped: {reason}", self.context);
            self.stopped = true;
        }
    }

    /// Everything that the engine settled must have a reason, and everything with a reason must be settled.
    fn reconcile(&mut self, newest: Timestamp64, fates: &mut [Fate]) {
        let context = &self.context;
        let mut held = 0;
        for ticket in self.live.first_unsettled..self.live.all.len() {
            let journey = &self.live.all[ticket];
            let settled = self.engine.settle().is_settled(ticket as Ticket);
            let expected = journey.state == State::Settled;
            if settled && journey.state == State::Waiting {
                let old = journey.attempts == 0 && self.is_too_old(&journey.event, newest);
                assert!(old || self.is_superseded(ticket), "{context}: {:?} is settled without reason", journey.event);
                leave_out(&mut fates[index(&journey.event)]);
                self.skips.1 += 1;
                self.live.all[ticket].state = State::Settled;
                continue;
            }
            assert_eq!(settled, expected, "{context}: ticket {ticket}, {:?}, {:?}", journey.state, journey.event);
            held += if settled { 0 } else { self.given(&journey.event).bytes() };
        }
        assert_eq!(self.skips.0, self.skips.1, "{context}: what the engine tells of skips is not what it did");
        let open =
            self.replays.all[self.replays.first_unsettled..].iter().filter(|journey| journey.state != State::Settled);
        let replayed: usize = open.map(|journey| self.given(&journey.event).bytes()).sum();
        assert_eq!(self.engine.held_bytes(), held + replayed, "{context}: bytes held");
        let most = self.config.in_flight_bytes_max as usize;
        assert!(held < most + EVENT_BYTES_MAX, "{context}: {held} bytes held");
        assert!(replayed < most / 4 + EVENT_BYTES_MAX, "{context}: {replayed} bytes of replays held");
        self.live.close();
        self.replays.close();
    }

    /// A newer event of the document waits, or has settled, and no barrier is between.
    fn is_superseded(&self, ticket: usize) -> bool {
        let (own, rest) = (id(&self.live.all[ticket].event), &self.live.all[ticket + 1..]);
        let newer = rest.iter().take_while(|journey| id(&journey.event).is_some());
        let mut newer = newer.filter(|journey| id(&journey.event) == own && journey.event.poison().is_none());
        self.config.backlog.keep == Keep::LatestPerKey && own.is_some() && newer.next().is_some()
    }

    /// The instance is gone: what it had comes again.
    pub fn crash_instance(&mut self, newest: Timestamp64, fates: &mut [Fate]) {
        let batches = std::mem::take(&mut self.batches);
        let mut expected = 0;
        for batch in batches.into_values() {
            expected += batch.tickets.len();
            let journeys = if batch.replays { &mut self.replays } else { &mut self.live };
            for ticket in batch.tickets {
                journeys.all[ticket].state = State::Waiting;
            }
        }
        let effects = self.engine.instance_gone();
        assert_eq!(effects.retried, expected, "{}: comes again", self.context);
        self.apply(effects);
        self.up = false;
        self.reconcile(newest, fates);
    }

    /// The letters that are being written are durable.
    pub fn buried(&mut self, newest: Timestamp64, fates: &mut [Fate]) {
        let count = self.burying.take().unwrap_or(0);
        for letter in self.engine.letters(count) {
            let journey = self.live.all.iter_mut().find(|journey| *journey.event.id() == letter.id).expect("taken");
            assert_eq!(journey.state, State::Letter, "{}: {letter:?}", self.context);
            assert_eq!(letter.attempts, journey.attempts, "{}: {letter:?}", self.context);
            journey.state = State::Settled;
            fates[index(&journey.event)] = Fate::Done;
        }
        self.engine.buried(count);
        self.reconcile(newest, fates);
    }

    /// The checkpoint that is being written is durable.
    pub fn saved(&mut self) -> Option<Place> {
        let (ticket, place) = self.saving.take()?;
        let unsettled = self.live.all[..ticket as usize].iter().position(|journey| journey.state != State::Settled);
        assert!(unsettled.is_none(), "{}: {unsettled:?} is before the checkpoint", self.context);
        self.durable = ticket;
        self.engine.durable(ticket);
        Some(place)
    }

    /// A letter is to be delivered once more. Not one whose event is on its way here by itself.
    pub fn replay(&mut self, event: &Arc<Event>) {
        let given = self.given(event);
        let (live, replays) = (self.find(&self.live, given), self.find(&self.replays, given));
        let to_come = self.engine.settle().read_to().is_behind(event);
        if live.or(replays).is_none() && !to_come && self.engine.has_room_for_replay() {
            let ticket = self.engine.replay(Arc::clone(event), 1);
            assert_eq!(ticket as usize, self.replays.all.len(), "{}: tickets of replays", self.context);
            self.replays.add(Arc::clone(event), 1);
        }
    }

    /// Nothing is on its way, and all of it is durable.
    pub fn is_finished(&self) -> bool {
        let left = self.engine.queued() + self.engine.in_flight() + self.engine.letters_waiting();
        left + self.engine.settle().unsettled() == 0
    }
}

/// More than any event of this test weighs.
const EVENT_BYTES_MAX: usize = 2_000;

fn leave_out(fate: &mut Fate) {
    if *fate == Fate::Open {
        *fate = Fate::LeftOut;
    }
}
