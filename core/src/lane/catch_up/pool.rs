//! Who waits for a catch-up stream, who shares one, and whose time is over. No IO, no clock: the time is passed in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bson::Document;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::lane::catch_up::{PATIENCE, SLICE, TOGETHER};
use crate::source::error::SourceError;
use crate::source::place::Place;
use crate::source::stream::Batch;
use crate::window::{Coverage, Wanted};

/// What a lane is given.
pub(super) type Answer = Result<Batch, SourceError>;

/// All that is known of lanes behind the window.
pub(super) struct Pool {
    streams_max: usize,
    /// In the order in which they asked.
    waiting: VecDeque<Member>,
    running: Vec<Group>,
    next_id: u64,
}

/// One lane that waits or has a share of a stream.
pub(super) struct Member {
    id: u64,
    /// What was given to the lane or is behind it; what it was not given is behind this place.
    place: Place,
    wanted: Wanted,
    sender: mpsc::Sender<Answer>,
    /// The stream may still come to events that the lane has behind it.
    skipping: bool,
    /// It lost its shared stream by an error, and shares none again.
    alone: bool,
    /// How long others may still be kept waiting by this one, as it was at that time.
    patience: (Duration, Instant),
}

/// The lanes of one stream.
struct Group {
    id: u64,
    coverage: Coverage,
    /// All that the stream has read up to here was given to the members of then.
    reached: Place,
    members: Vec<Member>,
    /// Set by the first events.
    slice_ends: Option<Instant>,
    /// More than one lane has had a share of it.
    shared: bool,
    /// Its only member shares no stream.
    alone: bool,
    /// For the task that reads the stream: something here has changed.
    wake: Arc<Notify>,
}

/// A stream to be opened.
pub(super) struct Opening {
    pub group: u64,
    pub place: Place,
    pub filter: Option<Document>,
    pub members: usize,
    pub wake: Arc<Notify>,
}

/// A member whose queue has no room for its share of a piece.
pub(super) struct Laggard {
    pub id: u64,
    pub sender: mpsc::Sender<Answer>,
    pub share: Batch,
    pub patience: Duration,
}

impl Pool {
    pub fn new(streams_max: usize) -> Pool {
        Pool { streams_max, waiting: VecDeque::new(), running: Vec::new(), next_id: 0 }
    }

    /// Streams at work.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Lanes without one.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Joins a stream at work that will come to `place`, or waits for one.
    pub fn request(&mut self, place: Place, wanted: Wanted, sender: mpsc::Sender<Answer>, now: Instant) -> u64 {
        let id = self.next_id();
        let patience = (PATIENCE, now);
        let member = Member { id, place, wanted, sender, skipping: true, alone: false, patience };
        let others_wait = !self.waiting.is_empty();
        match self.running.iter_mut().find(|group| group.takes(&member, others_wait, now)) {
            Some(group) => group.join(member),
            None => {
                self.waiting.push_back(member);
                // One that waits for its own members must hear that now others wait.
                self.running.iter().for_each(|group| group.wake.notify_one());
            }
        }
        id
    }

    /// The next stream to be opened, for the first who waits and all who wait near it.
    pub fn open_next(&mut self, now: Instant) -> Option<Opening> {
        if self.running.len() >= self.streams_max {
            return None;
        }
        let first = self.waiting.pop_front()?;
        let alone = first.alone;
        let (mut oldest, mut newest) = (first.place.clone(), first.place.time().seconds());
        let mut members = vec![first];
        let mut index = 0;
        while !alone && index < self.waiting.len() {
            let place = &self.waiting[index].place;
            let (is_later, is_older) =
                (*place == oldest || place.is_covered_since(&oldest), oldest.is_covered_since(place));
            let low = oldest.time().seconds().min(place.time().seconds());
            let high = newest.max(place.time().seconds());
            let near = u64::from(high - low) <= TOGETHER.as_secs();
            if self.waiting[index].alone || !near || !(is_later || is_older) {
                index += 1;
                continue;
            }
            if !is_later {
                oldest = place.clone();
            }
            newest = high;
            members.extend(self.waiting.remove(index));
        }
        for member in &mut members {
            member.skipping = true;
            member.patience = (PATIENCE, now);
        }
        let coverage = Coverage::of(members.iter().map(|member| member.wanted.clone()));
        let (id, wake) = (self.next_id(), Arc::new(Notify::new()));
        let opening = Opening {
            group: id,
            place: oldest.clone(),
            filter: coverage.to_match().cloned(),
            members: members.len(),
            wake: Arc::clone(&wake),
        };
        let shared = members.len() > 1;
        self.running.push(Group { id, coverage, reached: oldest, members, slice_ends: None, shared, alone, wake });
        Some(opening)
    }

    /// The lane wants nothing more.
    pub fn leave(&mut self, id: u64) {
        self.waiting.retain(|member| member.id != id);
        for group in &mut self.running {
            let before = group.members.len();
            group.members.retain(|member| member.id != id);
            if group.members.len() < before {
                group.wake.notify_one();
            }
        }
    }

    /// Gives each member of the group its share of what its stream has read; the result are those that have no room for it.
    pub fn offer(&mut self, group: u64, piece: &Batch, now: Instant) -> Vec<Laggard> {
        let Some(at) = self.running.iter().position(|running| running.id == group) else { return Vec::new() };
        self.adopt(at, now);
        let group = &mut self.running[at];
        group.reached = piece.reached.clone();
        group.slice_ends.get_or_insert(now + SLICE);
        let mut laggards = Vec::new();
        for member in &mut group.members {
            let Some(share) = member.share(piece) else { continue };
            match member.sender.try_send(Ok(share)) {
                // Progress alone is not waited for: the next piece has it too.
                Err(TrySendError::Full(Ok(share))) if !share.events.is_empty() => {
                    let patience = member.patience(now);
                    laggards.push(Laggard { id: member.id, sender: member.sender.clone(), share, patience });
                }
                // A closed one is about to leave.
                Ok(()) | Err(_) => {}
            }
        }
        laggards
    }

    /// Those who wait at places that this stream is about to come to.
    fn adopt(&mut self, at: usize, now: Instant) {
        let mut index = 0;
        while index < self.waiting.len() {
            let others_wait = self.waiting.len() > 1;
            if self.running[at].takes(&self.waiting[index], others_wait, now) {
                let member = self.waiting.remove(index);
                member.into_iter().for_each(|member| self.running[at].join(member));
            } else {
                index += 1;
            }
        }
    }

    /// The members of a group that are not among `laggards`.
    pub fn others(&self, group: u64, laggards: &[Laggard]) -> Vec<mpsc::Sender<Answer>> {
        let members = self.group(group).into_iter().flat_map(|group| &group.members);
        let others = members.filter(|member| laggards.iter().all(|laggard| laggard.id != member.id));
        others.map(|member| member.sender.clone()).collect()
    }

    /// The laggard has room again; `patience` is left.
    pub fn caught_up(&mut self, group: u64, laggard: u64, patience: Duration, now: Instant) {
        let group = self.running.iter_mut().find(|running| running.id == group);
        let member = group.and_then(|group| group.members.iter_mut().find(|member| member.id == laggard));
        if let Some(member) = member {
            member.patience = (patience, now);
        }
    }

    /// True when nobody has a share of it any more.
    pub fn is_abandoned(&self, group: u64) -> bool {
        self.group(group).is_none_or(|group| group.members.is_empty())
    }

    /// When the group has to give its stream back if others wait; `None` before its first events.
    pub fn slice_ends(&self, group: u64) -> Option<Instant> {
        self.group(group)?.slice_ends
    }

    /// True when the group must give its stream back now.
    pub fn is_over(&self, group: u64, now: Instant) -> bool {
        !self.waiting.is_empty() && self.slice_ends(group).is_some_and(|ends| ends <= now)
    }

    /// The group's stream has ended: who still has a share of it falls out, and may ask again.
    pub fn close(&mut self, group: u64) {
        self.running.retain(|running| running.id != group);
    }

    /// The group's stream has failed. The member whose own failure it is; where several had a share of it, each waits again
    /// for a stream of its own.
    pub fn fail(&mut self, group: u64) -> Option<mpsc::Sender<Answer>> {
        let at = self.running.iter().position(|running| running.id == group)?;
        let group = &mut self.running[at];
        let members = std::mem::take(&mut group.members);
        if !group.shared {
            return members.into_iter().next().map(|member| member.sender);
        }
        self.waiting.extend(members.into_iter().map(|member| Member { alone: true, ..member }));
        None
    }

    fn group(&self, id: u64) -> Option<&Group> {
        self.running.iter().find(|group| group.id == id)
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Group {
    /// True when this stream will give the lane all that is still to come for it, and soon.
    fn takes(&self, member: &Member, others_wait: bool, now: Instant) -> bool {
        let ahead = member.place.time().seconds().saturating_sub(self.reached.time().seconds());
        // Only a good part of a slice is worth more than a place in the queue.
        let lasts = !others_wait || self.slice_ends.is_none_or(|ends| now + SLICE / 2 <= ends);
        !self.alone
            && !member.alone
            && lasts
            && u64::from(ahead) <= TOGETHER.as_secs()
            && member.place.is_covered_since(&self.reached)
            && self.coverage.covers(&member.wanted)
    }

    fn join(&mut self, member: Member) {
        self.shared = true;
        self.members.push(member);
        self.wake.notify_one();
    }
}

impl Member {
    /// What of a piece is still to come for this lane; `None` while the stream is behind its place.
    fn share(&mut self, piece: &Batch) -> Option<Batch> {
        let mut events = piece.events.as_slice();
        if self.skipping {
            let behind = events.iter().position(|event| self.place.is_behind(event));
            events = &events[behind.unwrap_or(events.len())..];
            self.skipping = events.is_empty();
        }
        if events.is_empty() && !piece.reached.is_covered_since(&self.place) {
            return None;
        }
        self.place = piece.reached.clone();
        Some(Batch { events: events.to_vec(), reached: piece.reached.clone() })
    }

    fn patience(&self, now: Instant) -> Duration {
        let (left, at) = self.patience;
        PATIENCE.min(left + now.saturating_duration_since(at) / 20)
    }
}
