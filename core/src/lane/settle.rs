//! Which events of one lane are settled, and how far its checkpoint may go. Pure: no IO, no clock.
//!
//! Events settle out of order. The low-water mark is the last place before the oldest unsettled event; only it may become
//! durable. Tickets number the events a lane took, in stream order.
//!
//! A lane that begins with a snapshot takes all its rows first, then the stream. What may become durable then is two things, to
//! be written together: the low-water mark, which stays where the stream will begin until every row is settled, and
//! [`Settle::snapshot`], in which each range stands at its last row before the oldest unsettled event.

use std::collections::VecDeque;

use crate::snapshot::{Progress, RangeNumber, RowId};
use crate::source::place::Place;
use crate::source::token::Token;

/// Number of an event in the order in which its lane took it. Starts at 0 with each start of the lane.
pub type Ticket = u64;

/// The unsettled stretch of one lane's stream.
pub struct Settle {
    slots: VecDeque<Slot>,
    /// Ticket of the front slot; of the next event where there is none.
    first: Ticket,
    /// Valid while there are slots: the place just before the front one.
    before_front: Place,
    /// How far the lane has read, filtered-out events and progress without events included.
    read_to: Place,
    /// Something was read that was not taken, since the last event that was.
    passed: bool,
    /// Of the snapshot, read since the last event that was taken. Empty while there are no slots.
    marks: Marks,
    /// What of the snapshot is settled; `None` when all is.
    snapshot: Option<Progress>,
    /// How many slots are not settled.
    unsettled: usize,
}

struct Slot {
    what: What,
    settled: bool,
    /// What was read between the previous slot and this one. Boxed: nearly always none, and there are thousands of slots.
    before: Option<Box<Before>>,
}

enum What {
    /// Beside the stream: no place is reached with it.
    Aside,
    Event(Token),
    Row(RangeNumber, RowId),
}

#[derive(Default)]
struct Before {
    /// Set where something of the stream was: the place just before this slot.
    place: Option<Place>,
    marks: Marks,
}

/// What a snapshot's reading passed without taking it: at most one entry for each range.
#[derive(Default)]
struct Marks(Vec<Mark>);

struct Mark {
    range: RangeNumber,
    /// The last of the rows that were left out, and how many there were.
    passed: Option<(RowId, u64)>,
    exhausted: bool,
}

impl Settle {
    /// Nothing taken yet; reading begins at `place`.
    pub fn new(place: Place) -> Self {
        Settle {
            slots: VecDeque::new(),
            first: 0,
            before_front: place.clone(),
            read_to: place,
            passed: false,
            marks: Marks::default(),
            snapshot: None,
            unsettled: 0,
        }
    }

    /// The same, with rows of a snapshot to be taken before the stream; it begins at `place`.
    pub fn with_snapshot(place: Place, snapshot: Option<Progress>) -> Self {
        Settle { snapshot: snapshot.filter(|snapshot| !snapshot.is_done()), ..Settle::new(place) }
    }

    /// An event is taken for delivery.
    pub fn take(&mut self, token: &Token) -> Ticket {
        let read_to = std::mem::replace(&mut self.read_to, Place::After(token.clone()));
        self.push(What::Event(token.clone()), read_to)
    }

    /// Something beside the stream is to be settled before what is taken next; reading goes no further with it.
    pub fn take_aside(&mut self) -> Ticket {
        let read_to = self.read_to.clone();
        self.push(What::Aside, read_to)
    }

    /// A row of the snapshot is taken for delivery. All rows come before the first event.
    pub fn take_row(&mut self, range: RangeNumber, id: RowId) -> Ticket {
        let read_to = self.read_to.clone();
        self.push(What::Row(range, id), read_to)
    }

    fn push(&mut self, what: What, read_to: Place) -> Ticket {
        let mut before = None;
        if self.slots.is_empty() {
            self.before_front = read_to;
        } else if self.passed || !self.marks.0.is_empty() {
            let place = self.passed.then_some(read_to);
            before = Some(Box::new(Before { place, marks: std::mem::take(&mut self.marks) }));
        }
        self.passed = false;
        self.slots.push_back(Slot { what, settled: false, before });
        self.unsettled += 1;
        self.first + self.slots.len() as u64 - 1
    }

    /// Everything up to `place` was read and none of it is for this output, or it was taken before.
    pub fn pass(&mut self, place: Place) {
        self.passed = true;
        self.read_to = place;
    }

    /// This row of the snapshot was read and is not for this output.
    pub fn pass_row(&mut self, range: RangeNumber, id: RowId) {
        let mark = self.marks.of(range);
        let rows = mark.passed.take().map_or(0, |(_, rows)| rows) + 1;
        mark.passed = Some((id, rows));
        self.apply_when_idle();
    }

    /// The range of the snapshot has no more rows.
    pub fn exhaust(&mut self, range: RangeNumber) {
        self.marks.of(range).exhausted = true;
        self.apply_when_idle();
    }

    fn apply_when_idle(&mut self) {
        if self.slots.is_empty() {
            let marks = std::mem::take(&mut self.marks);
            marks.apply(&mut self.snapshot);
        }
    }

    /// The event is settled. False, and no change, when it was already or was never taken.
    pub fn settle(&mut self, ticket: Ticket) -> bool {
        let Some(index) = ticket.checked_sub(self.first) else { return false };
        let slot = usize::try_from(index).ok().and_then(|index| self.slots.get_mut(index));
        match slot {
            Some(slot) if !slot.settled => slot.settled = true,
            _ => return false,
        }
        self.unsettled -= 1;
        while self.slots.front().is_some_and(|slot| slot.settled) {
            if let Some(slot) = self.slots.pop_front() {
                self.first += 1;
                match slot.what {
                    What::Aside => {}
                    What::Event(token) => self.before_front = Place::After(token),
                    What::Row(range, id) => settle_rows(&mut self.snapshot, range, id, 1),
                }
            }
            if let Some(before) = self.slots.front_mut().and_then(|slot| slot.before.take()) {
                before.marks.apply(&mut self.snapshot);
                self.before_front = before.place.unwrap_or_else(|| self.before_front.clone());
            }
        }
        self.apply_when_idle();
        true
    }

    /// The place that may become durable: all events up to it are settled. While there is a snapshot, where the stream begins.
    pub fn low_water(&self) -> &Place {
        if self.slots.is_empty() { &self.read_to } else { &self.before_front }
    }

    /// What of the snapshot is settled, to become durable together with [`Settle::low_water`]; `None` once all is, or when
    /// there is no snapshot. [`Progress::version`] tells whether it has changed.
    pub fn snapshot(&self) -> Option<&Progress> {
        self.snapshot.as_ref()
    }

    /// Ticket of the oldest event that is not settled, or of the next one to be taken: all before it are settled.
    pub fn first_unsettled(&self) -> Ticket {
        self.first
    }

    /// Ticket of the next event to be taken.
    pub fn next_ticket(&self) -> Ticket {
        self.first + self.slots.len() as u64
    }

    /// How far the lane has read.
    pub fn read_to(&self) -> &Place {
        &self.read_to
    }

    /// True for an event that is settled.
    pub fn is_settled(&self, ticket: Ticket) -> bool {
        let slot = ticket.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        slot.is_none_or(|index| self.slots.get(index).is_some_and(|slot| slot.settled))
    }

    /// Number of events taken and not settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }
}

impl Marks {
    fn of(&mut self, range: RangeNumber) -> &mut Mark {
        // Few ranges are read at once, and one that is exhausted comes no more.
        let at = self.0.iter().position(|mark| mark.range == range).unwrap_or_else(|| {
            self.0.push(Mark { range, passed: None, exhausted: false });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    fn apply(self, snapshot: &mut Option<Progress>) {
        for mark in self.0 {
            if let Some((id, rows)) = mark.passed {
                settle_rows(snapshot, mark.range, id, rows);
            }
            if let Some(progress) = snapshot.as_mut().filter(|_| mark.exhausted) {
                progress.finished(mark.range);
            }
        }
        if snapshot.as_ref().is_some_and(Progress::is_done) {
            *snapshot = None;
        }
    }
}

fn settle_rows(snapshot: &mut Option<Progress>, range: RangeNumber, id: RowId, rows: u64) {
    if let Some(progress) = snapshot {
        progress.settled(range, id, rows);
    }
}

#[cfg(test)]
mod tests;
