//! One client: what waits to be sent to it, bounded, and where it is in the stream. Knows nothing of sockets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tailwater_sdk::tokio::sync::Notify;

use crate::frame;
use crate::history::{Behind, Entry};
use crate::id::Place;

/// Entries of the history that are looked at in one go, whether they are for the client or not: meanwhile nobody else is served.
const LOOK_MAX: usize = 1000;

/// Frames that wait are put together up to here: one write for many events costs a tenth of a write for each.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// A client of the hub.
pub struct Client {
    /// Names it in the hub.
    pub key: u64,
    /// What it wants to hear of; none means all events.
    pub topics: Box<[Arc<str>]>,
    queue: Mutex<Queue>,
    /// Tells its connection to close, also where nobody reads the other end. The connection waits for it.
    cut: Arc<Notify>,
}

/// Where a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The stream has not begun: nobody knows yet what the history holds. With the id it named, as it wrote it.
    Waiting(Option<Box<str>>),
    /// It is given the history from this sequence number on.
    Replaying(u64),
    /// It is given what comes.
    Live,
}

/// Why a client is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The output stops; what waits is still sent.
    Drained,
    /// Its queue was full and it took nothing for too long. It may come back with its id.
    Stalled,
    /// It reads, but more slowly than the history forgets.
    Outrun,
}

/// What there is for a client now.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// These bytes, whole frames.
    Frames(Bytes),
    /// More of the history, from this sequence number on.
    Replay(u64),
    /// Nothing; the waker is kept.
    Nothing,
    /// It is over.
    End(End),
}

/// What became of an event for one client.
#[derive(Debug)]
pub enum Offered {
    /// It waits to be sent; the connection may have to be woken.
    Taken(Option<Waker>),
    /// The queue is full: the client is given it from the history.
    Later,
    /// Not for this client, or not now.
    No,
}

/// What one client's queue holds.
#[derive(Debug)]
pub struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Where it is.
    pub mode: Mode,
    /// What comes and is its own past.
    behind: Option<Behind>,
    /// The newest entry that was offered: one of several topics is offered several times.
    offered: u64,
    end: Option<End>,
    waker: Option<Waker>,
    /// When it was last given something.
    sent_at: Instant,
    /// When its connection last asked for more, or had reason to.
    asked_at: Instant,
}

impl Client {
    /// A client that has been sent nothing but `hello`.
    pub fn new(key: u64, topics: Box<[Arc<str>]>, mode: Mode, hello: Bytes, cut: Arc<Notify>) -> Self {
        let queue = Queue {
            bytes: hello.len(),
            frames: VecDeque::from([hello]),
            mode,
            behind: None,
            offered: u64::MAX,
            end: None,
            waker: None,
            sent_at: Instant::now(),
            asked_at: Instant::now(),
        };
        Client { key, topics, queue: Mutex::new(queue), cut }
    }

    /// For one change at a time. The hub's lock, where both are needed, comes first.
    pub fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each change under it is complete before anything can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends it away.
    pub fn end(&self, end: End) {
        let waker = self.queue().end(end);
        if end != End::Drained {
            self.cut.notify_one();
        }
        wake(waker);
    }
}

/// Outside the queue's lock.
pub fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Queue {
    /// What there is to send; `waker` is woken when there is more.
    pub fn next(&mut self, waker: &Waker, now: Instant) -> Next {
        self.asked_at = now;
        if let Some(end) = self.end.filter(|end| *end != End::Drained || self.frames.is_empty()) {
            return Next::End(end);
        }
        if let Some(frames) = self.take() {
            self.sent_at = now;
            return Next::Frames(frames);
        }
        if let Mode::Replaying(seq) = self.mode {
            return Next::Replay(seq);
        }
        if self.waker.as_ref().is_none_or(|kept| !kept.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
        Next::Nothing
    }

    /// One frame as it is, shared; several put together.
    fn take(&mut self) -> Option<Bytes> {
        let first = self.frames.pop_front()?;
        self.bytes -= first.len();
        let fits =
            |length: usize, next: Option<&Bytes>| next.is_some_and(|next| length + next.len() <= WRITE_BYTES_MAX);
        if !fits(first.len(), self.frames.front()) {
            self.shrink();
            return Some(first);
        }
        let mut together = BytesMut::with_capacity((first.len() + self.bytes).min(WRITE_BYTES_MAX));
        together.extend_from_slice(&first);
        while fits(together.len(), self.frames.front()) {
            let Some(next) = self.frames.pop_front() else { break };
            self.bytes -= next.len();
            together.extend_from_slice(&next);
        }
        self.shrink();
        Some(together.freeze())
    }

    /// An idle client keeps no buffer.
    fn shrink(&mut self) {
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }

    /// A frame for this client alone, whatever waits already.
    pub fn put(&mut self, frame: Bytes) -> Option<Waker> {
        self.bytes += frame.len();
        self.frames.push_back(frame);
        self.waker.take()
    }

    /// Offers an event to a live client that wants its topics. Where the queue would hold more than `bytes_max` the client goes on
    /// in the history, which costs no memory: a burst of events is nothing to cut anyone off for. One frame always fits.
    pub fn offer(&mut self, seq: u64, entry: &Entry, bytes_max: usize, now: Instant) -> Offered {
        if self.mode != Mode::Live || self.offered == seq || self.end.is_some() || !self.wants(entry) {
            return Offered::No;
        }
        self.offered = seq;
        if !self.frames.is_empty() && self.bytes + entry.frame.len() > bytes_max {
            self.mode = Mode::Replaying(seq);
            self.asked_at = now;
            return Offered::Later;
        }
        Offered::Taken(self.put(entry.frame.clone()))
    }

    /// True for a client that there is more for, in the history, and whose connection has not asked for it since `before`: it reads
    /// nothing.
    pub fn is_stalled(&self, before: Instant) -> bool {
        self.end.is_none() && matches!(self.mode, Mode::Replaying(_)) && self.asked_at <= before
    }

    /// Puts in as much of the history as is worth one write; the client is live when that was all. Where nothing was found yet it asks
    /// again.
    pub fn replay<'a>(&mut self, topics: &[Arc<str>], from: u64, entries: impl Iterator<Item = &'a Arc<Entry>>) {
        self.mode = Mode::Live;
        for (seq, entry) in (from..).zip(entries) {
            if self.bytes >= WRITE_BYTES_MAX || seq - from >= LOOK_MAX as u64 {
                self.mode = Mode::Replaying(seq);
                break;
            }
            if entry.is_about(topics) && self.wants(entry) {
                self.bytes += entry.frame.len();
                self.frames.push_back(entry.frame.clone());
            }
        }
    }

    fn wants(&mut self, entry: &Entry) -> bool {
        let Some(behind) = self.behind else { return true };
        if behind.is_over_at(entry.id.place()) {
            self.behind = None;
        }
        behind.wants(entry)
    }

    /// Where the client goes on, now that this is known.
    pub fn place(&mut self, mode: Mode, behind: Option<Behind>) -> Option<Waker> {
        self.mode = mode;
        self.behind = behind;
        self.waker.take()
    }

    /// A client that has nothing to read since `before` gets a comment; `here`, a place with its frame, where it is as far as that.
    pub fn keep_alive(&mut self, before: Instant, here: Option<&(Place, Bytes)>) -> Option<Waker> {
        // One whose queue is not empty is being written to, or does not read: more would not help either.
        if !self.frames.is_empty() || self.sent_at > before || self.waker.is_none() {
            return None;
        }
        // One whose id is ahead of the stream must not fall back behind it.
        let behind = self.behind;
        let has_all = |place| self.mode == Mode::Live && behind.is_none_or(|behind| behind.is_over_at(place));
        let frame = here.filter(|(place, _)| has_all(*place)).map_or(frame::COMMENT, |(_, frame)| frame.clone());
        self.put(frame)
    }

    fn end(&mut self, end: End) -> Option<Waker> {
        self.end.get_or_insert(end);
        if end != End::Drained {
            self.frames = VecDeque::new();
            self.bytes = 0;
        }
        self.waker.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    fn entry(time: u64, length: usize) -> Arc<Entry> {
        Arc::new(Entry { id: Id::at(time), frame: vec![b'x'; length].into(), topics: Box::new([]) })
    }

    fn client(mode: Mode) -> Client {
        Client::new(1, Box::new([]), mode, Bytes::from_static(b"hi"), Arc::default())
    }

    fn next(client: &Client) -> Next {
        client.queue().next(Waker::noop(), Instant::now())
    }

    /// Bytes that wait, and room for frames.
    fn held(client: &Client) -> (usize, usize) {
        let queue = client.queue();
        (queue.bytes, queue.frames.capacity())
    }

    /// Whether it waits to be sent now.
    fn offer(client: &Client, seq: u64, entry: &Entry, bytes_max: usize) -> bool {
        matches!(client.queue().offer(seq, entry, bytes_max, Instant::now()), Offered::Taken(_))
    }

    #[test]
    fn what_waits_leaves_in_one_write_and_an_idle_client_keeps_nothing() {
        let client = client(Mode::Live);
        for seq in 0..3 {
            assert!(offer(&client, seq, &entry(seq, 4), 100));
        }
        assert_eq!(next(&client), Next::Frames("hixxxxxxxxxxxx".into()));
        assert_eq!(held(&client), (0, 0));
        assert_eq!(next(&client), Next::Nothing);
        // A frame alone is shared, not copied.
        let large = entry(9, WRITE_BYTES_MAX);
        assert!(offer(&client, 9, &large, 1), "one frame always fits");
        let Next::Frames(sent) = next(&client) else { panic!("frames") };
        assert_eq!(sent.as_ptr(), large.frame.as_ptr());
    }

    #[test]
    fn a_full_queue_goes_on_in_the_history_and_a_client_that_takes_nothing_is_stalled() {
        let client = client(Mode::Live);
        let now = Instant::now();
        assert!(offer(&client, 0, &entry(0, 60), 100));
        assert!(!offer(&client, 1, &entry(1, 60), 100), "it is full");
        assert_eq!(client.queue().mode, Mode::Replaying(1));
        assert!(!offer(&client, 2, &entry(2, 1), 100), "not before the one that did not fit");
        let full = Instant::now();
        assert!(!client.queue().is_stalled(now) && client.queue().is_stalled(full));
        assert!(matches!(next(&client), Next::Frames(_)));
        assert!(!client.queue().is_stalled(full), "it reads");
        assert_eq!(next(&client), Next::Replay(1));
        client.end(End::Stalled);
        assert_eq!((next(&client), held(&client)), (Next::End(End::Stalled), (0, 0)));
        assert!(!offer(&client, 3, &entry(3, 1), 100), "nothing more for it");
    }

    #[test]
    fn a_drained_client_gets_what_waits_first() {
        let client = client(Mode::Live);
        client.end(End::Drained);
        assert_eq!((next(&client), next(&client)), (Next::Frames("hi".into()), Next::End(End::Drained)));
    }

    #[test]
    fn an_event_of_two_topics_is_given_once_and_the_clients_own_past_never() {
        let client = client(Mode::Waiting(None));
        assert!(!offer(&client, 0, &entry(5, 1), 100), "not placed yet");
        client.queue().place(Mode::Live, Some(Behind(Id::at(10))));
        for (seq, time) in [(1, 9), (2, 10), (3, 11), (3, 11), (4, 9)] {
            offer(&client, seq, &entry(time, 1), 100);
        }
        // A position is no event: 10 itself is behind it only by its name. The last is let through: the stream was past it before.
        assert_eq!(next(&client), Next::Frames("hixx".into()));
    }

    #[test]
    fn history_is_given_piece_by_piece_then_the_client_is_live() {
        let client = client(Mode::Replaying(7));
        assert_eq!(next(&client), Next::Frames("hi".into()));
        let entries: Vec<_> = (0..3).map(|time| entry(time, WRITE_BYTES_MAX / 2)).collect();
        assert_eq!(next(&client), Next::Replay(7));
        client.queue().replay(&[], 7, entries.iter());
        assert_eq!(client.queue().mode, Mode::Replaying(9));
        let Next::Frames(sent) = next(&client) else { panic!("frames") };
        assert_eq!(sent.len(), WRITE_BYTES_MAX);
        assert_eq!(next(&client), Next::Replay(9));
        client.queue().replay(&[], 9, entries[2..].iter());
        assert_eq!(client.queue().mode, Mode::Live);
    }

    #[test]
    fn a_long_history_without_a_word_for_the_client_is_looked_at_in_pieces() {
        let client = Client::new(1, ["other".into()].into(), Mode::Replaying(0), Bytes::new(), Arc::default());
        let entries: Vec<_> = (0..2_500).map(|time| entry(time, 1)).collect();
        for from in [0, 1000, 2000] {
            assert_eq!(client.queue().mode, Mode::Replaying(from));
            let topics = client.topics.clone();
            client.queue().replay(&topics, from, entries[from as usize..].iter());
        }
        assert_eq!(client.queue().mode, Mode::Live);
    }

    #[test]
    fn only_a_quiet_client_is_kept_alive_and_told_its_place() {
        let client = client(Mode::Live);
        let now = Instant::now();
        let here = |time| (Id::at(time).place(), Bytes::from(format!("here {time}")));
        assert!(client.queue().keep_alive(now, None).is_none(), "hello waits");
        assert_eq!(next(&client), Next::Frames("hi".into()));
        assert!(client.queue().keep_alive(Instant::now(), None).is_none(), "nobody waits for more");
        assert_eq!(next(&client), Next::Nothing);
        assert!(client.queue().keep_alive(now, None).is_none(), "sent to a moment ago");
        for (mode, behind, place, frame) in [
            (Mode::Live, None, None, ":\n\n"),
            (Mode::Live, None, Some(here(10)), "here 10"),
            (Mode::Live, Some(10), Some(here(11)), "here 11"),
            // It is further than the stream, or gets what it missed first.
            (Mode::Live, Some(10), Some(here(10)), ":\n\n"),
            (Mode::Live, Some(10), Some(here(9)), ":\n\n"),
            (Mode::Waiting(None), None, Some(here(10)), ":\n\n"),
        ] {
            assert_eq!(next(&client), Next::Nothing);
            client.queue().place(mode, behind.map(|time| Behind(Id::at(time))));
            assert_eq!(next(&client), Next::Nothing);
            assert!(client.queue().keep_alive(Instant::now(), place.as_ref()).is_some());
            assert_eq!(next(&client), Next::Frames(frame.into()), "{behind:?} {place:?}");
        }
    }
}
