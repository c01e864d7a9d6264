//! The schedule against the rules that a plugin could see broken, over seeded interleavings; a failure prints its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::event::Event;
use crate::event::fixture::{event, token_data};
use crate::lane::config::{Keep, Ordering};
use crate::lane::schedule::{BatchLimits, Item, Schedule, Withhold};
use crate::lane::settle::Ticket;
use crate::plugin::{Verdict, Verdicts};

const SEEDS: u64 = 1000;

/// The next batch, where nothing is withheld.
fn next(schedule: &mut Schedule, number: u64, limits: BatchLimits, now: Instant) -> Vec<Item> {
    let mut withheld = Vec::new();
    let batch = schedule.next_batch(number, limits, Withhold::default(), now, &mut withheld).to_vec();
    assert!(withheld.is_empty(), "{withheld:?}");
    batch
}

/// Drives a schedule with random verdicts and crashes and checks every rule that a plugin could see broken.
struct Run {
    seed: u64,
    ordering: Ordering,
    schedule: Schedule,
    events: Vec<Arc<Event>>,
    in_flight: BTreeMap<u64, Vec<(Ticket, Option<i32>)>>,
    settled: BTreeSet<Ticket>,
    /// Per document, the last ticket settled.
    last: BTreeMap<Option<i32>, Ticket>,
    now: Instant,
    next_batch: u64,
}

impl Run {
    fn new(seed: u64, ordering: Ordering) -> Self {
        Run {
            seed,
            ordering,
            schedule: Schedule::new(ordering, Keep::All, None),
            events: Vec::new(),
            in_flight: BTreeMap::new(),
            settled: BTreeSet::new(),
            last: BTreeMap::new(),
            now: Instant::now(),
            next_batch: 0,
        }
    }

    fn id(&self, ticket: Ticket) -> Option<i32> {
        self.events[ticket as usize].document_key().and_then(|key| key.get_i32("_id").ok())
    }

    fn push(&mut self, random: &mut StdRng) {
        let ticket = self.events.len() as Ticket;
        let id = (!random.random_bool(0.03)).then(|| random.random_range(0..8));
        let event = event(&token_data(ticket as u32 + 1, 1, 0), id, random.random_range(0..200));
        self.events.push(Arc::clone(&event));
        self.schedule.push(ticket, event);
    }

    fn send(&mut self, random: &mut StdRng) {
        let limits = BatchLimits { events_max: random.random_range(1..6), bytes_max: random.random_range(200..1500) };
        let items: Vec<Item> = next(&mut self.schedule, self.next_batch, limits, self.now);
        if items.is_empty() {
            return;
        }
        let context = format!("seed {} {:?} batch {}", self.seed, self.ordering, self.next_batch);
        let batch: Vec<_> = items.iter().map(|item| (item.ticket, self.id(item.ticket))).collect();
        assert!(batch.is_sorted(), "{context}: oldest first, {batch:?}");
        let bytes: usize = items.iter().map(|item| item.event.raw().as_bytes().len()).sum();
        assert!(items.len() <= limits.events_max && (items.len() == 1 || bytes <= limits.bytes_max), "{context}");
        for (ticket, id) in &batch {
            assert!(!self.settled.contains(ticket), "{context}: {ticket} was settled before");
            let others = self.in_flight.values().flatten();
            let mut others = others.filter(|(_, other)| self.ordering == Ordering::Key && other == id);
            assert!(others.next().is_none(), "{context}: document {id:?} is in two batches");
            let older = (0..*ticket).filter(|older| !self.settled.contains(older));
            let mut older = older.filter(|older| !batch.iter().any(|(own, _)| own == older));
            match (self.ordering, id) {
                (Ordering::Key, None) | (Ordering::Strict, _) => {
                    assert!(older.next().is_none(), "{context}: {ticket} left before older ones");
                }
                (Ordering::Key, Some(_)) => {
                    let same = older.find(|older| self.id(*older) == *id || self.id(*older).is_none());
                    assert!(same.is_none(), "{context}: {ticket} left before {same:?}");
                }
                (Ordering::None, _) => {}
            }
        }
        if self.ordering == Ordering::Key && batch.iter().any(|(_, id)| id.is_none()) {
            assert!(batch.len() == 1 && self.in_flight.is_empty(), "{context}: a barrier leaves alone");
        }
        assert!(self.ordering != Ordering::Strict || self.in_flight.is_empty(), "{context}: one batch at a time");
        self.in_flight.insert(self.next_batch, batch);
        self.next_batch += 1;
    }

    fn complete(&mut self, random: &mut StdRng, perfect: bool) {
        let Some((&number, _)) = self.in_flight.iter().nth(random.random_range(0..4)) else { return };
        let batch = self.in_flight.remove(&number).unwrap_or_default();
        let verdicts = if perfect { Verdicts::all(Verdict::Ack) } else { some_verdicts(random, batch.len() as u32) };
        let done = self.schedule.complete(number, verdicts, self.now, &mut |_| Duration::from_millis(7));
        let rejected = done.rejected.iter().map(|(item, _)| item.ticket);
        let settled: BTreeSet<Ticket> = done.acked.iter().map(|item| item.ticket).chain(rejected).collect();
        assert_eq!(settled.len() + done.retried, batch.len(), "seed {}: none is lost, none doubled", self.seed);
        for ticket in settled {
            assert!(self.settled.insert(ticket), "seed {}: {ticket} settled twice", self.seed);
            let last = self.last.insert(self.id(ticket), ticket);
            let in_order = self.ordering == Ordering::None || last.is_none_or(|last| last < ticket);
            assert!(in_order, "seed {}: {ticket} settled after {last:?}", self.seed);
        }
        // A late answer to the same batch changes nothing.
        let late = self.schedule.complete(number, Verdicts::all(Verdict::Ack), self.now, &mut |_| Duration::ZERO);
        assert!(late.acked.is_empty() && late.retried == 0);
    }

    fn crash(&mut self) {
        let expected: usize = self.in_flight.values().map(Vec::len).sum();
        assert_eq!(self.schedule.fail_all(&mut Vec::new()), expected, "seed {}", self.seed);
        self.in_flight.clear();
    }
}

fn some_verdicts(random: &mut StdRng, len: u32) -> Verdicts {
    let mut verdicts = Verdicts::all(verdict(random));
    for _ in 0..random.random_range(0..3) {
        verdicts.overrides.push((random.random_range(0..len), verdict(random)));
    }
    verdicts
}

fn verdict(random: &mut StdRng) -> Verdict {
    let reason = String::new();
    match random.random_range(0..6) {
        0 => Verdict::Retry { after: None, reason },
        1 => Verdict::Retry { after: Some(Duration::from_millis(random.random_range(0..30))), reason },
        2 => Verdict::Reject { reason },
        _ => Verdict::Ack,
    }
}

#[test]
fn order_is_kept_and_everything_settles_once_whatever_the_verdicts() {
    for seed in 0..SEEDS {
        let random = &mut StdRng::seed_from_u64(seed);
        let ordering = [Ordering::Key, Ordering::Strict, Ordering::None][(seed % 3) as usize];
        let slots = if ordering == Ordering::Strict { 1 } else { 4 };
        let mut run = Run::new(seed, ordering);
        for _ in 0..150 {
            match random.random_range(0..8) {
                0..=2 => run.push(random),
                3 | 4 if run.schedule.batches_in_flight() < slots => run.send(random),
                5 | 6 => run.complete(random, false),
                7 if random.random_bool(0.1) => run.crash(),
                _ => run.now += Duration::from_millis(random.random_range(0..10)),
            }
        }
        let mut rounds = 0;
        while run.settled.len() < run.events.len() {
            run.now += Duration::from_millis(30);
            if run.schedule.batches_in_flight() < slots {
                run.send(random);
            }
            run.complete(random, true);
            rounds += 1;
            assert!(rounds < 5000, "seed {seed}: {} of {} settled, stuck", run.settled.len(), run.events.len());
        }
        let left = (run.schedule.queued(), run.schedule.in_flight(), run.schedule.blocked_keys());
        assert_eq!((left, run.schedule.is_ready()), ((0, 0, 0), false), "seed {seed}: something is left behind");
    }
}

#[test]
fn after_the_first_event_of_a_key_that_is_not_acked_later_ones_go_back() {
    let mut schedule = Schedule::new(Ordering::Key, Keep::All, None);
    for (ticket, id) in [1, 2, 1, 1, 2].into_iter().enumerate() {
        schedule.push(ticket as u64, event(&token_data(ticket as u32 + 1, 1, 0), Some(id), 0));
    }
    let limits = BatchLimits { events_max: 10, bytes_max: 1 << 20 };
    let now = Instant::now();
    assert_eq!(next(&mut schedule, 0, limits, now).len(), 5);
    let mut verdicts = Verdicts::all(Verdict::Ack);
    verdicts.overrides.push((2, Verdict::Retry { after: Some(Duration::from_secs(9)), reason: "busy".to_owned() }));
    let done = schedule.complete(0, verdicts, now, &mut |_| Duration::ZERO);
    let acked: Vec<_> = done.acked.iter().map(|item| item.ticket).collect();
    assert_eq!((acked, done.retried), (vec![0, 1, 4], 2), "ticket 3 was acked, but 2 of its document was not");
    assert!(next(&mut schedule, 1, limits, now).is_empty(), "not before nine seconds are over");
    let again: Vec<_> =
        next(&mut schedule, 1, limits, now + Duration::from_secs(9)).iter().map(|i| (i.ticket, i.attempt)).collect();
    assert_eq!(again, [(2, 2), (3, 2)]);
}
