//! The window: a ring of recent events that all lanes share, each lane at its own place in it.
//!
//! The source pushes, lanes read; nobody ever waits for a slow lane. The ring is bounded in bytes, events' shared JSON
//! included; what no longer fits is dropped from the old end, and a lane whose place was dropped is told so. No IO, no clock;
//! knows nothing of cursors, outputs or plugins.
//!
//! The ring is made of *stretches*: each holds what was read of the stream under one filter. A lane reads only through
//! stretches that cover its own query, for in the others events it wants were left out by the server.

pub mod config;
pub mod coverage;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bson::Document;
use tokio::sync::watch;

pub use self::coverage::Coverage;
use crate::event::Event;
use crate::source::place::Place;

/// Most filters the ring remembers. Outputs change by an operator's hand; whoever changes them faster than events leave the
/// ring loses the oldest stretch, and lanes there catch up.
const STRETCHES_MAX: usize = 32;

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
    events: VecDeque<Arc<Event>>,
    /// All covered events of the stream after this place, up to the next stretch, are here.
    floor: Place,
}

impl Stretch {
    fn new(coverage: Coverage, first: u64, floor: Place) -> Stretch {
        Stretch { coverage, first, events: VecDeque::new(), floor }
    }

    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

/// What a lane finds at its place in the window.
#[derive(Debug)]
pub enum Read {
    /// Events were appended to the caller's buffer; the lane's next sequence number.
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
        self.change(|ring, dropped| {
            for event in batch {
                event.enter_window(&self.json_bytes);
                ring.bytes += event.bytes();
                ring.events += 1;
                ring.newest().events.push_back(event);
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

    /// Appends to `into` at most `events_max` events and `bytes_max` bytes, and at least one event, from sequence number `from`
    /// on. `query` is what the reader wants of the stream, `None` for everything.
    pub fn read(
        &self,
        from: u64,
        query: Option<&Document>,
        events_max: usize,
        bytes_max: usize,
        into: &mut VecDeque<Arc<Event>>,
    ) -> Read {
        let ring = self.lock();
        let before = into.len();
        let Some(mut at) = ring.stretches.partition_point(|stretch| stretch.first <= from).checked_sub(1) else {
            return Read::FellOff;
        };
        let (mut stretch, mut from) = (&ring.stretches[at], from);
        // Over the end of a stretch only into one that holds everything this reader wants.
        while from >= stretch.end() {
            at += 1;
            let Some(next) = ring.stretches.get(at) else { return Read::CaughtUp(from, ring.reached.clone()) };
            if !next.coverage.covers(query) {
                return Read::FellOff;
            }
            (stretch, from) = (next, next.first);
        }
        let start = usize::try_from(from - stretch.first).unwrap_or(usize::MAX);
        let limit = stretch.events.len().min(start.saturating_add(events_max));
        let mut bytes = 0;
        for event in stretch.events.range(start..limit) {
            bytes += event.bytes();
            if bytes > bytes_max && into.len() > before {
                break;
            }
            into.push_back(Arc::clone(event));
        }
        Read::Events(from + (into.len() - before) as u64)
    }

    /// The sequence number at which a reader at `place` goes on, if the window holds all that is still to come for it of what
    /// `query` lets through: every stretch from `place` to the end must cover the query.
    ///
    /// With `settle_in` the newer half of the bytes must be enough: a lane that joined at the very edge would fall off
    /// with the next push, and opening a stream again is expensive (the server scans its oplog).
    pub fn join(&self, place: &Place, query: Option<&Document>, settle_in: bool) -> Option<u64> {
        let ring = self.lock();
        let covering = ring.stretches.iter().rev().take_while(|stretch| stretch.coverage.covers(query)).count();
        let oldest = ring.stretches.len() - covering;
        if !place.is_covered_since(&ring.stretches.get(oldest)?.floor) {
            return None;
        }
        let mut joined = None;
        let mut pending: usize = 0;
        for stretch in ring.stretches.range(oldest..) {
            let start = stretch.events.partition_point(|event| !place.is_behind(event));
            if start < stretch.events.len() {
                joined.get_or_insert(stretch.first + start as u64);
            }
            if settle_in {
                pending += stretch.events.range(start..).map(|event| event.bytes()).sum::<usize>();
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
            if let Some(event) = stretch.events.pop_front() {
                stretch.first += 1;
                stretch.floor = Place::After(event.token().clone());
                return self.leave(event, dropped);
            }
            self.stretches.pop_front();
        }
    }

    /// The oldest stretch leaves with all its events.
    fn drop_stretch(&mut self, dropped: &mut Vec<Arc<Event>>) {
        for event in self.stretches.pop_front().into_iter().flat_map(|stretch| stretch.events) {
            self.leave(event, dropped);
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
