//! Which events of one lane are settled, and how far its checkpoint may go. Pure: no IO, no clock.
//!
//! Events settle out of order. The low-water mark is the last place before the oldest unsettled event; only it may become
//! durable. Tickets number the events a lane took, in stream order.

use std::collections::VecDeque;

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
    /// How many slots are not settled.
    unsettled: usize,
}

struct Slot {
    token: Token,
    settled: bool,
    /// Set where something was read between the previous slot and this one: the place just before this one.
    /// Boxed: nearly always none, and there are thousands of slots.
    before: Option<Box<Place>>,
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
            unsettled: 0,
        }
    }

    /// An event is taken for delivery.
    pub fn take(&mut self, token: &Token) -> Ticket {
        let read_to = std::mem::replace(&mut self.read_to, Place::After(token.clone()));
        let mut before = None;
        if self.slots.is_empty() {
            self.before_front = read_to;
        } else if self.passed {
            before = Some(Box::new(read_to));
        }
        self.passed = false;
        self.slots.push_back(Slot { token: token.clone(), settled: false, before });
        self.unsettled += 1;
        self.first + self.slots.len() as u64 - 1
    }

    /// Everything up to `place` was read and none of it is for this output, or it was taken before.
    pub fn pass(&mut self, place: Place) {
        self.passed = true;
        self.read_to = place;
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
                self.before_front = Place::After(slot.token);
                self.first += 1;
            }
        }
        if let Some(before) = self.slots.front_mut().and_then(|slot| slot.before.take()) {
            self.before_front = *before;
        }
        true
    }

    /// The place that may become durable: all events up to it are settled.
    pub fn low_water(&self) -> &Place {
        if self.slots.is_empty() { &self.read_to } else { &self.before_front }
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
