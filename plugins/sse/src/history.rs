//! What can be given again: a ring of recent frames in the order of the stream, bounded in age and bytes, and how far back it
//! can be vouched for. Pure: its clock is the stream's own.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::id::{Id, Place};

/// What one entry costs beside its frame and topics.
const ENTRY_BYTES: usize = 160;

/// One event, encoded once for all clients.
#[derive(Debug)]
pub struct Entry {
    /// Its id.
    pub id: Id,
    /// What is sent.
    pub frame: Bytes,
    /// What it is about; may be empty.
    pub topics: Box<[Arc<str>]>,
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.frame.len() + self.topics.iter().map(|topic| topic.len() + 16).sum::<usize>()
    }

    /// True for a client of these topics; none means all events.
    pub fn is_about(&self, topics: &[Arc<str>]) -> bool {
        topics.is_empty() || self.topics.iter().any(|topic| topics.contains(topic))
    }
}

/// The ring.
#[derive(Debug)]
pub struct History {
    /// The entry at index i has sequence number `first + i`.
    entries: VecDeque<Arc<Entry>>,
    first: u64,
    bytes: usize,
    bytes_max: usize,
    /// In seconds of the stream.
    age_max: u64,
    /// Everything behind it is in the ring.
    floor: Floor,
    /// Place and id of the newest event, also when the ring no longer holds it.
    newest: Option<Id>,
    /// All events before this time were pushed.
    reached: u64,
}

#[derive(Debug, Clone, Copy)]
enum Floor {
    /// Nothing can be vouched for but what is there.
    Unknown,
    /// Complete from this time on, inclusive.
    From(u64),
    /// Complete behind this event.
    Behind(Id),
}

/// Where a client goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// At this sequence number.
    At(u64),
    /// Behind everything so far, once the stream has come past the id.
    Ahead,
    /// Something in between is not there any more.
    Lost,
}

impl History {
    /// An empty ring. With an age of zero seconds it keeps nothing.
    pub fn new(age_max_s: u64, bytes_max: usize) -> Self {
        History {
            entries: VecDeque::new(),
            first: 0,
            bytes: 0,
            bytes_max,
            age_max: age_max_s,
            floor: Floor::Unknown,
            newest: None,
            reached: 0,
        }
    }

    /// The ring will hold every event from `time` on.
    pub fn begin(&mut self, time: u64) {
        self.floor = Floor::From(time);
    }

    /// Every event before `time` was pushed.
    pub fn reach(&mut self, time: u64) {
        self.reached = self.reached.max(time);
        self.trim();
    }

    /// Adds an event; `None` for one that was pushed before. Events come in the order of the stream.
    pub fn push(&mut self, entry: Entry) -> Option<(u64, Arc<Entry>)> {
        if let Some(newest) = self.newest {
            // Of the events at one place any may be delivered again.
            let mut same = self.entries.iter().rev().take_while(|other| other.id.place() == entry.id.place());
            if entry.id.place() < newest.place() || entry.id == newest || same.any(|other| other.id == entry.id) {
                return None;
            }
        }
        let entry = Arc::new(entry);
        let seq = self.end();
        self.newest = Some(entry.id);
        self.bytes += entry.bytes();
        self.entries.push_back(Arc::clone(&entry));
        self.trim();
        Some((seq, entry))
    }

    fn trim(&mut self) {
        let seconds = |time: u64| time >> 32;
        let now = seconds(self.reached.max(self.newest.map_or(0, |newest| newest.place().time)));
        while let Some(oldest) = self.entries.front() {
            let fits = self.bytes <= self.bytes_max;
            if fits && self.age_max > 0 && seconds(oldest.id.place().time) + self.age_max >= now {
                break;
            }
            self.bytes -= oldest.bytes();
            self.floor = Floor::Behind(oldest.id);
            self.first += 1;
            self.entries.pop_front();
        }
    }

    /// Where a client goes on whose last event was `id`.
    pub fn find(&self, id: &Id) -> Found {
        let place = id.place();
        let from = self.entries.partition_point(|entry| entry.id.place() < place);
        let same = self.entries.range(from..).take_while(|entry| entry.id.place() == place);
        if let Some(offset) = same.clone().position(|entry| entry.id == *id) {
            return Found::At(self.first + (from + offset) as u64 + 1);
        }
        let vouched = match self.floor {
            Floor::Unknown => false,
            Floor::From(time) => place.time >= time,
            // Of the events at the floor's own place some may be gone.
            Floor::Behind(floor) => floor == *id || place > floor.place(),
        };
        match vouched {
            false => Found::Lost,
            // Exact from here on: the events at the id's own place that are not it count as still to come.
            true if from < self.entries.len() => Found::At(self.first + from as u64),
            true => Found::Ahead,
        }
    }

    /// The entries from `seq` on; `None` where some of them are gone.
    pub fn since(&self, seq: u64) -> Option<impl Iterator<Item = &Arc<Entry>>> {
        let offset = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        Some(self.entries.range(offset.min(self.entries.len())..))
    }

    /// The sequence number of the next event.
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// A client that has everything so far, and wants nothing before `live_from`, is here.
    pub fn here(&self, live_from: u64) -> Id {
        match self.newest {
            Some(newest) if newest.place().time >= self.reached.max(live_from) => newest,
            // Later than the newest event: on a quiet stream it would grow old.
            _ => Id::at(self.reached.max(live_from)),
        }
    }

    /// All events before this time were pushed.
    pub fn reached(&self) -> u64 {
        self.reached
    }

    /// Number of entries, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }
}

/// What a client does not want although it comes: its own past. Dropped once the stream is past it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind(pub Id);

impl Behind {
    /// Whether a client that resumed at this id wants `entry`.
    pub fn wants(&self, entry: &Entry) -> bool {
        entry.id != self.0 && entry.id.place() >= self.0.place()
    }

    /// True when nothing that comes behind `place` is the client's past.
    pub fn is_over_at(&self, place: Place) -> bool {
        place > self.0.place()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seconds: u64, index: u32, hash: u32) -> Id {
        Id::parse(&format!("{:016x}-{index:08x}{hash:08x}", seconds << 32)).expect("an id")
    }

    fn entry(id: Id) -> Entry {
        Entry { id, frame: Bytes::from_static(b"0123456789"), topics: Box::new([]) }
    }

    fn history(ids: &[Id]) -> History {
        let mut history = History::new(300, 1 << 20);
        history.begin(100 << 32);
        for id in ids {
            history.push(entry(*id)).expect("new");
        }
        history
    }

    #[test]
    fn a_client_goes_on_behind_its_id_or_hears_that_it_cannot() {
        let history = history(&[id(110, 0, 9), id(110, 1, 5), id(110, 1, 3), id(120, 0, 1)]);
        for (asked, found) in [
            (id(110, 0, 9), Found::At(1)),
            (id(110, 1, 5), Found::At(2)),
            (id(110, 1, 3), Found::At(3)),
            (id(120, 0, 1), Found::At(4)),
            // Not in the ring: what is at its own place comes again.
            (id(110, 1, 4), Found::At(1)),
            (id(110, 0, 1), Found::At(0)),
            (id(115, 0, 1), Found::At(3)),
            (id(130, 0, 1), Found::Ahead),
            // A position, inclusive.
            (Id::at(110 << 32), Found::At(0)),
            (Id::at(120 << 32), Found::At(3)),
            (Id::at(100 << 32), Found::At(0)),
            (Id::at((100 << 32) - 1), Found::Lost),
            (id(99, 0, 1), Found::Lost),
        ] {
            assert_eq!(history.find(&asked), found, "{asked}");
        }
    }

    #[test]
    fn what_was_dropped_is_not_vouched_for() {
        let mut history = history(&[id(110, 0, 1), id(110, 0, 2), id(500, 0, 3)]);
        assert_eq!(history.size().0, 1, "older than five minutes");
        assert_eq!(history.find(&id(110, 0, 1)), Found::Lost, "the one behind it is gone");
        assert_eq!(history.find(&id(110, 0, 2)), Found::At(2), "the last one that is gone: nothing is missing");
        assert_eq!(history.find(&id(200, 0, 2)), Found::At(2), "nothing between the two");
        // A quiet stream makes its events old, too.
        history.reach(900 << 32);
        assert_eq!(history.size(), (0, 0));
        assert_eq!(history.find(&id(500, 0, 3)), Found::Ahead);
        assert_eq!(history.find(&id(400, 0, 3)), Found::Lost);
        assert_eq!(history.find(&history.here(0)), Found::Ahead);
    }

    #[test]
    fn a_client_that_has_everything_is_as_far_as_the_stream() {
        let mut history = history(&[id(110, 0, 1), id(110, 1, 2)]);
        for (reached, live_from, here) in [
            (100, 100, id(110, 1, 2)),
            // Behind the newest event there may be others of its time.
            (110, 110, id(110, 1, 2)),
            (110, 120, Id::at(120 << 32)),
            (130, 120, Id::at(130 << 32)),
        ] {
            history.reach(reached << 32);
            assert_eq!(history.here(live_from << 32), here, "{reached} {live_from}");
        }
    }

    #[test]
    fn bytes_are_bounded_and_sequence_numbers_go_on() {
        let mut history = History::new(300, 10 * (ENTRY_BYTES + 10));
        history.begin(0);
        for number in 0..25 {
            let (seq, _) = history.push(entry(id(100, number, 1))).expect("new");
            assert_eq!(seq, u64::from(number));
        }
        assert_eq!(history.size(), (10, 10 * (ENTRY_BYTES + 10)));
        assert!(history.since(14).is_none());
        assert_eq!(history.since(15).expect("there").count(), 10);
        assert_eq!(history.since(25).expect("the end").count(), 0);
    }

    #[test]
    fn nothing_is_pushed_twice_and_nothing_is_kept_without_an_age() {
        let mut history = History::new(0, 1 << 20);
        history.begin(100 << 32);
        assert!(history.push(entry(id(110, 1, 9))).is_some());
        assert!(history.push(entry(id(110, 1, 9))).is_none(), "the same again");
        assert!(history.push(entry(id(110, 0, 9))).is_none(), "an older one again");
        assert!(history.push(entry(id(110, 1, 8))).is_some(), "another one at the same place");
        assert_eq!(history.size(), (0, 0));
        assert_eq!(history.find(&id(110, 1, 8)), Found::Ahead);
    }

    #[test]
    fn before_it_is_known_where_it_begins_only_what_is_there_counts() {
        let mut history = History::new(300, 1 << 20);
        history.push(entry(id(110, 0, 1)));
        assert_eq!((history.find(&id(110, 0, 1)), history.find(&id(120, 0, 1))), (Found::At(1), Found::Lost));
    }

    #[test]
    fn a_client_ahead_of_the_stream_gets_what_is_behind_its_id_only() {
        let behind = Behind(id(110, 1, 5));
        for (other, wanted) in [
            (id(110, 0, 9), false),
            (id(110, 1, 5), false),
            (id(110, 1, 4), true),
            (id(110, 2, 0), true),
            (id(111, 0, 0), true),
        ] {
            assert_eq!(behind.wants(&entry(other)), wanted, "{other}");
        }
        assert!(behind.is_over_at(id(110, 2, 0).place()) && !behind.is_over_at(id(110, 1, 9).place()));
    }
}
