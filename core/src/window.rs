//! The window: a ring of recent events that all lanes share, each lane at its own place in it.
//!
//! The source pushes, lanes read; nobody ever waits for a slow lane. The ring is bounded in bytes, events' shared JSON
//! included; what no longer fits is dropped from the old end, and a lane whose place was dropped is told so. No IO, no clock;
//! knows nothing of cursors, outputs or plugins.
//!
//! The ring is made of *stretches*: each holds what was read of the stream under one filter. A lane reads only through
//! stretches that cover its own query, for in the others events it wants were left out by the server.
//!
//! What the queries of all lanes ask of an event's operation type and namespace is tested once, when the event comes in, and kept as
//! bits beside it; a lane passes over the events that it cannot want without touching them.

pub mod config;
pub mod coverage;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

pub use self::coverage::{Coverage, Wanted};
use crate::event::Event;
use crate::source::place::Place;

/// Most filters the ring remembers. Outputs change by an operator's hand; whoever changes them faster than events leave the
/// ring loses the oldest stretch, and lanes there catch up.
const STRETCHES_MAX: usize = 32;

/// Events and bits looked at in one read, so that the lock is short.
const SCANNED_MAX: usize = 4096;

/// The shared ring. One source pushes, any number of lanes read.
pub struct Window {
    ring: Mutex<Ring>,
    /// Bytes of JSON made for events while they are in the ring. Events hold the other end.
    json_bytes: Arc<AtomicI64>,
    bytes_max: usize,
    /// Tells lanes that there is more to read; they hold the receivers.
    end: watch::Sender<u64>,
}

struct Ring {
    /// Oldest first, never none; all are without gaps between them.
    stretches: VecDeque<Stretch>,
    /// Sum of the lengths of the stretches.
    events: usize,
    /// Sum of `Event::bytes` over them.
    bytes: usize,
    /// How far the source has read, events or not.
    reached: Place,
    /// Counts changes, so that progress without events wakes the lanes too.
    changes: u64,
}

/// What was read of the stream under one filter.
struct Stretch {
    coverage: Coverage,
    /// The event at index i has sequence number `first + i`. The number behind the last event is the end of this stretch
    /// and of no other: a reader there has not yet gone over to the next one.
    first: u64,
    /// Oldest first.
    events: VecDeque<Entry>,
    /// All covered events of the stream after this place, up to the next stretch, are here.
    floor: Place,
}

/// An event, and the bits that the coverage of its stretch gives it.
struct Entry {
    event: Arc<Event>,
    heads: u64,
}

impl Stretch {
    fn new(coverage: Coverage, first: u64, floor: Place) -> Stretch {
        Stretch { coverage, first, events: VecDeque::new(), floor }
    }

    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Takes what has a bit of `mask` from a range of events, and counts what has none; how many events it has come past.
    fn take(
        &self,
        range: Range<usize>,
        mask: u64,
        (events_max, bytes_max): (usize, usize),
        into: &mut VecDeque<Found>,
    ) -> u64 {
        let (mut taken, mut bytes, mut passed) = (0, 0, 0);
        let mut skipped: Option<(u64, &Arc<Event>)> = None;
        for entry in self.events.range(range) {
            if entry.heads & mask == 0 {
                skipped = Some((skipped.map_or(0, |(count, _)| count) + 1, &entry.event));
                passed += 1;
                continue;
            }
            bytes += entry.event.bytes();
            if taken > 0 && (taken == events_max || bytes > bytes_max) {
                break;
            }
            into.extend(skipped.take().map(|(count, last)| Found::Skipped(count, Arc::clone(last))));
            into.push_back(Found::Event(Arc::clone(&entry.event)));
            (taken, passed) = (taken + 1, passed + 1);
        }
        into.extend(skipped.map(|(count, last)| Found::Skipped(count, Arc::clone(last))));
        passed
    }
}

/// One thing that a read brings.
#[derive(Debug)]
pub enum Found {
    /// To be looked at.
    Event(Arc<Event>),
    /// So many events in a row that the reader cannot want, and the last of them.
    Skipped(u64, Arc<Event>),
}

/// What a lane finds at its place in the window.
#[derive(Debug)]
pub enum Read {
    /// Events, or word of skipped ones, were appended to the caller's buffer; the lane's next sequence number.
    Events(u64),
    /// Nothing new: the source has read up to here and the lane has seen all of it. The lane's next sequence number.
    CaughtUp(u64, Place),
    /// The lane's place has left the window, or what comes next was read under a filter that leaves out events it wants.
    FellOff,
}

impl Window {
    /// An empty window over a stream that was opened at `floor` under the filter `coverage`, holding at most `bytes_max` bytes.
    pub fn new(bytes_max: u64, floor: Place, coverage: Coverage) -> Self {
        let stretch = Stretch::new(coverage, 0, floor.clone());
        let ring = Ring { stretches: VecDeque::from([stretch]), events: 0, bytes: 0, reached: floor, changes: 0 };
        Window {
            ring: Mutex::new(ring),
            json_bytes: Arc::new(AtomicI64::new(0)),
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            end: watch::Sender::new(0),
        }
    }

    /// Appends a batch in stream order and drops old events until the rest fits. `reached` is how far the source has read.
    /// The newest event stays even when it alone is larger than the window.
    pub fn push(&self, batch: Vec<Arc<Event>>, reached: Place) {
        let coverage = self.coverage();
        // Outside the lock: lanes must not wait for that.
        let entries: Vec<Entry> =
            batch.into_iter().map(|event| Entry { heads: coverage.classify(&event), event }).collect();
        self.change(|ring, dropped| {
            // Bits of other queries would mean nothing here.
            let foreign = ring.newest().coverage != coverage;
            for mut entry in entries {
                entry.event.enter_window(&self.json_bytes);
                ring.bytes += entry.event.bytes();
                ring.events += 1;
                entry.heads |= if foreign { u64::MAX } else { 0 };
                ring.newest().events.push_back(entry);
            }
            ring.reached = reached;
            while ring.events > 1 && ring.bytes + self.json_bytes() > self.bytes_max {
                ring.drop_oldest(dropped);
            }
        });
    }

    /// What is pushed from here on was read under another filter, from [`Window::reached`] on.
    pub fn refilter(&self, coverage: Coverage) {
        self.change(|ring, dropped| {
            if ring.newest().coverage == coverage {
                return;
            }
            if ring.stretches.len() == STRETCHES_MAX {
                ring.drop_stretch(dropped);
            }
            let (first, floor) = (ring.newest().end() + 1, ring.reached.clone());
            ring.stretches.push_back(Stretch::new(coverage, first, floor));
        });
    }

    /// The shared stream has lost history and begins anew at `floor`, under the same filter: the window is empty, and every
    /// reader falls off, one at the very end too.
    pub fn restart(&self, floor: Place) {
        self.change(|ring, dropped| {
            // Sequence numbers never go back: a reader of before must not be taken for one of now.
            let (first, coverage) = (ring.newest().end() + 1, ring.newest().coverage.clone());
            while !ring.stretches.is_empty() {
                ring.drop_stretch(dropped);
            }
            ring.stretches.push_back(Stretch::new(coverage, first, floor.clone()));
            ring.reached = floor;
        });
    }

    /// Appends to `into` at most `events_max` events and `bytes_max` bytes, and at least one thing, from sequence number `from` on: what
    /// `wanted` may let through, and word of what it cannot. With `all`, nothing is passed over.
    pub fn read(
        &self,
        from: u64,
        wanted: &Wanted,
        all: bool,
        (events_max, bytes_max): (usize, usize),
        into: &mut VecDeque<Found>,
    ) -> Read {
        let ring = self.lock();
        let Some(mut at) = ring.stretches.partition_point(|stretch| stretch.first <= from).checked_sub(1) else {
            return Read::FellOff;
        };
        let (mut stretch, mut from) = (&ring.stretches[at], from);
        // Over the end of a stretch only into one that holds everything this reader wants.
        while from >= stretch.end() {
            at += 1;
            let Some(next) = ring.stretches.get(at) else { return Read::CaughtUp(from, ring.reached.clone()) };
            if !next.coverage.covers(wanted) {
                return Read::FellOff;
            }
            (stretch, from) = (next, next.first);
        }
        let mask = if all { u64::MAX } else { stretch.coverage.mask(wanted) };
        let start = usize::try_from(from - stretch.first).unwrap_or(usize::MAX);
        let limit = stretch.events.len().min(start.saturating_add(SCANNED_MAX));
        Read::Events(from + stretch.take(start..limit, mask, (events_max, bytes_max), into))
    }

    /// The sequence number at which a reader at `place` goes on, if the window holds all that is still to come for it of what
    /// `wanted` lets through: every stretch from `place` to the end must cover it.
    ///
    /// With `settle_in` the newer half of the bytes must be enough: a lane that joined at the very edge would fall off
    /// with the next push, and opening a stream again is expensive (the server scans its oplog).
    pub fn join(&self, place: &Place, wanted: &Wanted, settle_in: bool) -> Option<u64> {
        let ring = self.lock();
        let covering = ring.stretches.iter().rev().take_while(|stretch| stretch.coverage.covers(wanted)).count();
        let oldest = ring.stretches.len() - covering;
        if !place.is_covered_since(&ring.stretches.get(oldest)?.floor) {
            return None;
        }
        let mut joined = None;
        let mut pending: usize = 0;
        for stretch in ring.stretches.range(oldest..) {
            let start = stretch.events.partition_point(|entry| !place.is_behind(&entry.event));
            if start < stretch.events.len() {
                joined.get_or_insert(stretch.first + start as u64);
            }
            if settle_in {
                pending += stretch.events.range(start..).map(|entry| entry.event.bytes()).sum::<usize>();
            }
        }
        if joined.is_some() && pending > self.bytes_max / 2 {
            return None;
        }
        joined.or_else(|| ring.stretches.back().map(Stretch::end))
    }

    /// What the newest stretch, and so the stream that is read now, lets through.
    pub fn coverage(&self) -> Coverage {
        self.lock().newest().coverage.clone()
    }

    /// Changes with every push; wait on it after [`Read::CaughtUp`].
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// How far the source has read.
    pub fn reached(&self) -> Place {
        self.lock().reached.clone()
    }

    /// Events held and their bytes, JSON included.
    pub fn size(&self) -> (usize, usize) {
        let ring = self.lock();
        (ring.events, ring.bytes + self.json_bytes())
    }

    /// Changes the ring, wakes the lanes, and frees what was dropped outside the lock: a lane must not wait for that.
    fn change(&self, change: impl FnOnce(&mut Ring, &mut Vec<Arc<Event>>)) {
        let mut dropped = Vec::new();
        let changes = {
            let mut ring = self.lock();
            change(&mut ring, &mut dropped);
            ring.changes += 1;
            ring.changes
        };
        self.end.send_replace(changes);
    }

    fn json_bytes(&self) -> usize {
        usize::try_from(self.json_bytes.load(Ordering::Relaxed)).unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // No code that can panic runs under this lock; a poisoned ring is still whole.
        self.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Ring {
    fn newest(&mut self) -> &mut Stretch {
        self.stretches.back_mut().expect("a ring is made with a stretch, and none goes without another one coming")
    }

    /// The oldest event leaves, and with it the stretches before it that are empty.
    fn drop_oldest(&mut self, dropped: &mut Vec<Arc<Event>>) {
        while let Some(stretch) = self.stretches.front_mut() {
            if let Some(Entry { event, .. }) = stretch.events.pop_front() {
                stretch.first += 1;
                stretch.floor = Place::After(event.token().clone());
                return self.leave(event, dropped);
            }
            self.stretches.pop_front();
        }
    }

    /// The oldest stretch leaves with all its events.
    fn drop_stretch(&mut self, dropped: &mut Vec<Arc<Event>>) {
        for entry in self.stretches.pop_front().into_iter().flat_map(|stretch| stretch.events) {
            self.leave(entry.event, dropped);
        }
    }

    fn leave(&mut self, event: Arc<Event>, dropped: &mut Vec<Arc<Event>>) {
        self.bytes -= event.bytes();
        self.events -= 1;
        event.leave_window();
        dropped.push(event);
    }
}

#[cfg(test)]
mod tests;
