//! The window: a ring of recent events that all lanes share, each lane at its own place in it.
//!
//! The source pushes, lanes read; nobody ever waits for a slow lane. The ring is bounded in bytes, events' shared JSON
//! included; what no longer fits is dropped from the old end, and a lane whose place was dropped is told so. No IO, no clock;
//! knows nothing of cursors, outputs or plugins.

pub mod config;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::event::Event;
use crate::source::place::Place;

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
    /// Oldest first; the event at index i has sequence number `first + i`.
    events: VecDeque<Arc<Event>>,
    first: u64,
    /// Sum of `Event::bytes` over `events`.
    bytes: usize,
    /// All events of the stream after this place are in the ring.
    floor: Place,
    /// How far the source has read, events or not.
    reached: Place,
    /// Counts pushes, so that progress without events wakes the lanes too.
    pushes: u64,
}

/// What a lane finds at its place in the window.
#[derive(Debug)]
pub enum Read {
    /// Events were appended to the caller's buffer; the lane's next sequence number.
    Events(u64),
    /// Nothing new: the source has read up to here and the lane has seen all of it.
    CaughtUp(Place),
    /// The lane's place has left the window.
    FellOff,
}

impl Window {
    /// An empty window over a stream that was opened at `floor`, holding at most `bytes_max` bytes.
    pub fn new(bytes_max: u64, floor: Place) -> Self {
        let ring = Ring { events: VecDeque::new(), first: 0, bytes: 0, reached: floor.clone(), floor, pushes: 0 };
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
        let mut dropped = Vec::new();
        let pushes = {
            let mut ring = self.lock();
            for event in batch {
                event.enter_window(&self.json_bytes);
                ring.bytes += event.bytes();
                ring.events.push_back(event);
            }
            ring.reached = reached;
            while ring.events.len() > 1 && ring.bytes + self.json_bytes() > self.bytes_max {
                if let Some(event) = ring.events.pop_front() {
                    ring.bytes -= event.bytes();
                    ring.first += 1;
                    ring.floor = Place::After(event.token().clone());
                    event.leave_window();
                    dropped.push(event);
                }
            }
            ring.pushes += 1;
            ring.pushes
        };
        self.end.send_replace(pushes);
        // Events are freed outside the lock: a lane must not wait for that.
        drop(dropped);
    }

    /// Appends to `into` at most `events_max` events and `bytes_max` bytes, and at least one event, from sequence number `from`
    /// on.
    pub fn read(&self, from: u64, events_max: usize, bytes_max: usize, into: &mut VecDeque<Arc<Event>>) -> Read {
        let ring = self.lock();
        if from < ring.first {
            return Read::FellOff;
        }
        let start = usize::try_from(from - ring.first).unwrap_or(usize::MAX);
        if start >= ring.events.len() {
            return Read::CaughtUp(ring.reached.clone());
        }
        let limit = ring.events.len().min(start.saturating_add(events_max));
        let mut bytes = 0;
        let before = into.len();
        for event in ring.events.range(start..limit) {
            bytes += event.bytes();
            if bytes > bytes_max && into.len() > before {
                break;
            }
            into.push_back(Arc::clone(event));
        }
        Read::Events(from + (into.len() - before) as u64)
    }

    /// The sequence number at which a reader at `place` goes on, if the window holds all that is still to come for it.
    ///
    /// With `settle_in` the newer half of the bytes must be enough: a lane that joined at the very edge would fall off
    /// with the next push, and opening a stream again is expensive (the server scans its oplog).
    pub fn join(&self, place: &Place, settle_in: bool) -> Option<u64> {
        let ring = self.lock();
        if !place.is_covered_since(&ring.floor) {
            return None;
        }
        let start = ring.events.partition_point(|event| !place.is_behind(event));
        if settle_in && start < ring.events.len() {
            let pending: usize = ring.events.range(start..).map(|event| event.bytes()).sum();
            if pending > self.bytes_max / 2 {
                return None;
            }
        }
        Some(ring.first + start as u64)
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
        (ring.events.len(), ring.bytes + self.json_bytes())
    }

    fn json_bytes(&self) -> usize {
        usize::try_from(self.json_bytes.load(Ordering::Relaxed)).unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // No code that can panic runs under this lock; a poisoned ring is still whole.
        self.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests;
