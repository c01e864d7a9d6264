//! Which events of one lane may leave now, and what becomes of them by their verdicts. Pure: time and jitter are passed in.
//!
//! Order is kept per key: while an event of a key is in flight in one batch or waits for its retry, later events of that key
//! wait behind it; other keys pass. Ordering `strict` is one key for all, `none` a key of its own for each event. An event
//! without a document is a barrier: it leaves alone, after everything before it and before everything behind it.
//!
//! With [`Keep::LatestPerKey`] a newer event of a key takes the place of an older one that is not in flight: its turn, its wait
//! for a retry and its count of failures, so that a document that changes all the time is neither put off without end nor
//! delivered without a wait. Never across a barrier, and never with an event that cannot be delivered on either side.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::lane::config::{Keep, Ordering};
use crate::lane::settle::Ticket;
use crate::plugin::{Verdict, Verdicts};
use crate::source::token::Timestamp64;

/// From so many failed batches on an event leaves alone.
const SUSPECT_FROM: u8 = 2;

/// An event on its way through a lane.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its place in the order of the lane.
    pub ticket: Ticket,
    /// The event, shared with the window and other lanes.
    pub event: Arc<Event>,
    /// How often it was handed out, this time included; 0 before the first.
    pub attempt: u32,
    /// When it was handed out first.
    pub first_at: Option<Instant>,
    /// How often an instance failed on a batch with it.
    faults: u8,
    /// What the scheduler orders by.
    key: u64,
    /// When it is its turn: its own ticket, or that of the event it took the place of.
    turn: Ticket,
    /// How often the events it took the place of were handed out.
    inherited: u32,
    barrier: bool,
}

impl Item {
    /// It may be the event on which instances fail: it leaves alone, so that others get by.
    fn is_suspect(&self) -> bool {
        self.faults >= SUSPECT_FROM
    }

    /// This one instead of `older`.
    fn supersedes(&mut self, older: &Item) {
        self.turn = older.turn;
        self.inherited = older.inherited.saturating_add(older.attempt);
    }

    /// How long ago it was handed out first.
    fn tried(&self, now: Instant) -> Duration {
        self.first_at.map_or(Duration::ZERO, |first| now.saturating_duration_since(first))
    }

    /// How often the event, or one it took the place of, was handed out.
    fn failures(&self) -> u32 {
        self.attempt.saturating_add(self.inherited)
    }
}

/// When and why an event goes back, by how often it was handed out.
pub type Backoff<'a> = &'a mut dyn FnMut(u32) -> Duration;

/// What a completed batch means for its events.
#[derive(Debug, Default)]
pub struct Settled {
    /// Acknowledged.
    pub acked: Vec<Item>,
    /// Refused for good, with the reason.
    pub rejected: Vec<(Item, String)>,
    /// Asked to be delivered again, but tried for `give_up_after` already; with the reason.
    pub given_up: Vec<(Item, String)>,
    /// Went back, but a newer event of their key was there.
    pub superseded: Vec<Item>,
    /// How many go back to be delivered again.
    pub retried: usize,
    /// First reason given for a retry.
    pub retry_reason: Option<String>,
    /// The output must stop.
    pub fatal: Option<String>,
    /// The instance must be replaced.
    pub failed: Option<String>,
}

/// Limits of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Most events.
    pub events_max: usize,
    /// Most bytes of BSON; a single larger event still leaves, alone.
    pub bytes_max: usize,
}

/// What does not leave although it is its turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Withhold {
    /// Events of an earlier second that were never handed out: they are too old.
    pub before: Option<u32>,
    /// An event that cannot be delivered ends the batch before it, and nothing leaves behind it.
    pub poison_stops: bool,
}

impl Withhold {
    /// True where the event is too old to be handed out the first time.
    pub fn is_too_old(&self, time: Timestamp64) -> bool {
        self.before.is_some_and(|before| time.seconds() < before)
    }
}

/// The queue of one lane between intake and plugin.
pub struct Schedule {
    ordering: Ordering,
    keep: Keep,
    /// How long an event is tried.
    give_up_after: Option<Duration>,
    /// Of the newest barrier: events up to it keep their place.
    newest_barrier: Option<Ticket>,
    /// Keys that may leave, by the turn of their oldest event, rising. May hold stale entries of keys that went out
    /// meanwhile; they are dropped when they come to the front.
    ready: VecDeque<(Ticket, u64)>,
    /// Keys with events queued, in flight or waiting for a retry.
    keys: HashMap<u64, KeyState, BuildHasherDefault<KeyHasher>>,
    /// When blocked keys may go on.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    batches: HashMap<u64, Vec<Item>>,
    /// Key of the barrier that left and is not settled: nothing else leaves meanwhile.
    barrier: Option<u64>,
    blocked: usize,
    queued: usize,
    in_flight: usize,
}

#[derive(Default)]
struct KeyState {
    /// In ticket order. The first one apart: most keys never have a second, and need no allocation.
    head: Option<Item>,
    tail: VecDeque<Item>,
    /// The batch that has events of this key in flight.
    batch: Option<u64>,
    /// Set while the key waits for a retry; a timer that does not agree with it is stale.
    blocked_until: Option<Instant>,
    /// Used while a batch completes: an earlier event of this key was not acked.
    held_back: bool,
}

impl KeyState {
    fn push_back(&mut self, item: Item) {
        if self.head.is_none() { self.head = Some(item) } else { self.tail.push_back(item) }
    }

    fn push_front(&mut self, item: Item) {
        if let Some(second) = self.head.replace(item) {
            self.tail.push_front(second);
        }
    }

    fn pop_front(&mut self) -> Option<Item> {
        let item = self.head.take();
        self.head = self.tail.pop_front();
        item
    }

    fn newest(&mut self) -> Option<&mut Item> {
        self.tail.back_mut().or(self.head.as_mut())
    }

    /// The front one, if the one behind it may take its place; then it has.
    fn pop_superseded(&mut self, newest_barrier: Option<Ticket>) -> Option<Item> {
        let (head, next) = (self.head.as_ref()?, self.tail.front_mut()?);
        if newest_barrier >= Some(head.ticket) || head.event.poison().or(next.event.poison()).is_some() {
            return None;
        }
        next.supersedes(head);
        self.pop_front()
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

impl Schedule {
    /// An empty queue. [`Keep::LatestPerKey`] is for [`Ordering::Key`] only. `give_up_after` is how long an event is tried, from
    /// its first hand-out on.
    pub fn new(ordering: Ordering, keep: Keep, give_up_after: Option<Duration>) -> Self {
        Schedule {
            ordering,
            keep: if ordering == Ordering::Key { keep } else { Keep::All },
            give_up_after,
            newest_barrier: None,
            ready: VecDeque::new(),
            keys: HashMap::default(),
            timers: BinaryHeap::new(),
            batches: HashMap::new(),
            barrier: None,
            blocked: 0,
            queued: 0,
            in_flight: 0,
        }
    }

    /// Takes in an event; tickets must come in rising order. Returns the event whose place it took.
    pub fn push(&mut self, ticket: Ticket, event: Arc<Event>) -> Option<Item> {
        self.insert(ticket, event, 0)
    }

    /// The same for an event that was handed out `attempts` times before.
    pub fn push_again(&mut self, ticket: Ticket, event: Arc<Event>, attempts: u32) -> Option<Item> {
        self.insert(ticket, event, attempts)
    }

    fn insert(&mut self, ticket: Ticket, event: Arc<Event>, attempt: u32) -> Option<Item> {
        // Consecutive tickets are poor hashes: spread them over the table.
        let own_key = ticket.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (key, barrier) = match (self.ordering, event.key()) {
            (Ordering::Key, Some(key)) => (key.get(), false),
            (Ordering::Key, None) => (own_key, true),
            (Ordering::Strict, _) => (0, false),
            (Ordering::None, _) => (own_key, false),
        };
        let mut item =
            Item { ticket, event, attempt, first_at: None, faults: 0, key, turn: ticket, inherited: 0, barrier };
        if barrier {
            self.newest_barrier = Some(ticket);
        }
        let state = self.keys.entry(key).or_default();
        if self.keep == Keep::LatestPerKey
            && let Some(newest) = state.newest()
            && self.newest_barrier < Some(newest.ticket)
            && newest.event.poison().or(item.event.poison()).is_none()
        {
            item.supersedes(newest);
            return Some(std::mem::replace(newest, item));
        }
        let idle = state.head.is_none() && state.batch.is_none() && state.blocked_until.is_none();
        state.push_back(item);
        if idle {
            self.ready.push_back((ticket, key));
        }
        self.queued += 1;
        None
    }

    /// The events of the next batch, oldest first, now in flight under the number `batch`; empty when nothing may leave. Those
    /// that do not leave by what `withhold` says, and those that cannot be delivered, are moved to `withheld`.
    pub fn next_batch(
        &mut self,
        batch: u64,
        limits: BatchLimits,
        withhold: Withhold,
        now: Instant,
        withheld: &mut Vec<Item>,
    ) -> &[Item] {
        self.release(now);
        let mut taken: Vec<Item> = Vec::new();
        let mut bytes = 0usize;
        while let Some(&(turn, key)) = self.ready.front() {
            let Some(state) = self.keys.get_mut(&key) else {
                self.ready.pop_front();
                continue;
            };
            let stale = state.batch.is_some_and(|other| other != batch) || state.blocked_until.is_some();
            let Some(head) = state.head.as_ref().filter(|head| !stale && head.turn == turn) else {
                self.ready.pop_front();
                continue;
            };
            if self.barrier.is_some_and(|barrier| barrier != key) {
                break;
            }
            let poison = head.event.poison().is_some();
            // A row is the document as it is, however long ago its snapshot began; a gap is news.
            let too_old = withhold.is_too_old(head.event.token().position().time) && !head.event.is_ageless();
            if poison || (head.attempt == 0 && too_old) {
                let stops = poison && withhold.poison_stops;
                if stops && !taken.is_empty() {
                    break;
                }
                withheld.extend(self.withhold(key));
                if stops {
                    break;
                }
                continue;
            }
            if head.barrier && (!taken.is_empty() || !self.batches.is_empty() || self.blocked > 0) {
                break;
            }
            if head.is_suspect() && !taken.is_empty() {
                break;
            }
            let size = head.event.raw().as_bytes().len();
            let full = taken.len() >= limits.events_max || bytes + size > limits.bytes_max;
            if !taken.is_empty() && full {
                break;
            }
            self.ready.pop_front();
            let Some(mut item) = state.pop_front() else { continue };
            state.batch = Some(batch);
            if let Some(next) = &state.head {
                insert_sorted(&mut self.ready, (next.turn, key));
            }
            item.attempt = item.attempt.saturating_add(1);
            item.first_at.get_or_insert(now);
            bytes += size;
            let (barrier, suspect) = (item.barrier, item.is_suspect());
            taken.push(item);
            if barrier {
                self.barrier = Some(key);
                break;
            }
            if suspect {
                break;
            }
        }
        if taken.is_empty() {
            return &[];
        }
        self.queued -= taken.len();
        self.in_flight += taken.len();
        self.batches.entry(batch).or_insert(taken)
    }

    /// Takes out the oldest event of the key that is at the front of those that may leave.
    fn withhold(&mut self, key: u64) -> Option<Item> {
        self.ready.pop_front();
        let state = self.keys.get_mut(&key)?;
        let item = state.pop_front()?;
        self.queued -= 1;
        match &state.head {
            Some(next) => insert_sorted(&mut self.ready, (next.turn, key)),
            // In a batch that is being put together it still stands for what is in it.
            None if state.batch.is_none() => _ = self.keys.remove(&key),
            None => {}
        }
        Some(item)
    }

    /// Applies the verdicts of a batch. An unknown number (an answer that came too late) changes nothing.
    ///
    /// After the first event of a key that is not acked, later events of that key in the batch go back too, whatever their
    /// verdict. `backoff` gives the delay of a retry that names none.
    pub fn complete(&mut self, batch: u64, verdicts: Verdicts, now: Instant, backoff: Backoff) -> Settled {
        let mut settled = Settled::default();
        let Some(items) = self.batches.remove(&batch) else { return settled };
        self.in_flight -= items.len();
        let keys: Vec<u64> = items.iter().map(|item| item.key).collect();
        let failures = items.iter().map(Item::failures).max().unwrap_or(1);
        // One delay for the whole batch: what left together comes back together.
        let mut batch_delay = None;
        let mut again: Vec<Item> = Vec::new();
        let mut overrides = verdicts.overrides;
        overrides.sort_by_key(|(index, _)| *index);
        let mut overrides = overrides.into_iter().peekable();
        for (index, item) in items.into_iter().enumerate() {
            let mut own = None;
            while let Some((_, verdict)) = overrides.next_if(|(named, _)| *named as usize <= index) {
                own = Some(verdict);
            }
            let Some(state) = self.keys.get_mut(&item.key) else { continue };
            if state.held_back {
                again.push(item);
                continue;
            }
            match own.as_ref().unwrap_or(&verdicts.default) {
                Verdict::Ack => {
                    settled.acked.push(item);
                    continue;
                }
                Verdict::Reject { reason } => settled.rejected.push((item, reason.clone())),
                // Also an event on which every instance fails: it would come back for ever.
                Verdict::Retry { reason, .. } | Verdict::Failed { reason }
                    if self.give_up_after.is_some_and(|after| item.tried(now) >= after) =>
                {
                    if let Verdict::Failed { reason } = own.as_ref().unwrap_or(&verdicts.default) {
                        settled.failed.get_or_insert_with(|| reason.clone());
                    }
                    settled.given_up.push((item, reason.clone()));
                }
                Verdict::Retry { after, reason } => {
                    let delay = after.unwrap_or_else(|| *batch_delay.get_or_insert_with(|| backoff(failures)));
                    state.blocked_until = Some(now + delay);
                    settled.retry_reason.get_or_insert_with(|| reason.clone());
                    again.push(item);
                }
                Verdict::Fatal { reason } => {
                    settled.fatal.get_or_insert_with(|| reason.clone());
                    again.push(item);
                }
                Verdict::Failed { reason } => {
                    settled.failed.get_or_insert_with(|| reason.clone());
                    again.push(Item { faults: item.faults.saturating_add(1), ..item });
                }
            }
            state.held_back = true;
        }
        settled.retried = again.len();
        self.put_back(batch, again, &keys, &mut settled.superseded);
        settled
    }

    /// The instance is gone: everything in flight goes back and may leave again at once. How many; of these, `superseded` gets
    /// those whose place a newer event took.
    pub fn fail_all(&mut self, superseded: &mut Vec<Item>) -> usize {
        let batches = std::mem::take(&mut self.batches);
        let mut count = 0;
        for (batch, items) in batches {
            count += items.len();
            let keys: Vec<u64> = items.iter().map(|item| item.key).collect();
            self.in_flight -= items.len();
            self.put_back(batch, items, &keys, superseded);
        }
        count
    }

    fn put_back(&mut self, batch: u64, again: Vec<Item>, keys: &[u64], superseded: &mut Vec<Item>) {
        self.queued += again.len();
        for item in again.into_iter().rev() {
            if let Some(state) = self.keys.get_mut(&item.key) {
                state.push_front(item);
            }
        }
        for key in keys {
            let Some(state) = self.keys.get_mut(key) else { continue };
            if state.batch != Some(batch) {
                continue;
            }
            state.batch = None;
            state.held_back = false;
            while self.keep == Keep::LatestPerKey
                && let Some(item) = state.pop_superseded(self.newest_barrier)
            {
                self.queued -= 1;
                superseded.push(item);
            }
            match (&state.head, state.blocked_until) {
                (None, _) => {
                    self.keys.remove(key);
                    if self.barrier == Some(*key) {
                        self.barrier = None;
                    }
                }
                (Some(_), Some(until)) => {
                    self.blocked += 1;
                    self.timers.push(Reverse((until, *key)));
                }
                (Some(head), None) => insert_sorted(&mut self.ready, (head.turn, *key)),
            }
        }
    }

    /// Lets keys go whose wait is over.
    fn release(&mut self, now: Instant) {
        while let Some(Reverse((until, key))) = self.timers.peek().copied() {
            if until > now {
                break;
            }
            self.timers.pop();
            let Some(state) = self.keys.get_mut(&key) else { continue };
            state.blocked_until = None;
            self.blocked -= 1;
            if let Some(head) = &state.head {
                insert_sorted(&mut self.ready, (head.turn, key));
            }
        }
    }

    /// When the next wait for a retry ends.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((until, _))| *until)
    }

    /// Events waiting to leave, those behind a retry included.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Events in batches that are not completed.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Batches that are not completed.
    pub fn batches_in_flight(&self) -> usize {
        self.batches.len()
    }

    /// True when some key may be able to leave; not certain, but false is.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// True while the batch has no verdict.
    pub fn is_in_flight(&self, batch: u64) -> bool {
        self.batches.contains_key(&batch)
    }

    /// The oldest event that is queued or in flight. Looks at all of them.
    pub fn oldest(&self) -> Option<&Item> {
        let queued = self.keys.values().filter_map(|state| state.head.as_ref());
        queued.chain(self.batches.values().flatten()).min_by_key(|item| item.ticket)
    }

    /// Keys that wait for a retry.
    pub fn blocked_keys(&self) -> usize {
        self.blocked
    }
}

/// Inserts where the ticket belongs; what is there already is not doubled. New tickets are the highest, and retried ones are
/// among the lowest, so that little has to move.
fn insert_sorted(ready: &mut VecDeque<(Ticket, u64)>, entry: (Ticket, u64)) {
    let at = ready.partition_point(|other| *other < entry);
    if ready.get(at) != Some(&entry) {
        ready.insert(at, entry);
    }
}
