//! A lane's reading end without IO: the real window while the lane keeps up, the list of all events while it does not. All that
//! these tests know of the window is here.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::Event;
use crate::event::fixture::{mark_data, token};
use crate::lane::tests::settings::{Match, index};
use crate::source::place::Place;
use crate::window::{self, Coverage, Read, Window};

/// Events of a catch-up stream in one reply.
const REPLY_EVENTS: usize = 4;

/// Everything there is, and how far the shared stream has read it.
pub struct Stream {
    pub all: Vec<Arc<Event>>,
    window: Window,
    window_bytes: u64,
    pushed: usize,
}

impl Stream {
    /// No event yet.
    pub fn new(window_bytes: u64) -> Stream {
        Stream { all: Vec::new(), window: window(window_bytes, 0), window_bytes, pushed: 0 }
    }

    /// The shared stream reads on.
    pub fn push(&mut self) {
        let batch = self.all[self.pushed..].to_vec();
        self.pushed = self.all.len();
        self.window.push(batch, reached(self.pushed));
    }

    /// The process begins anew: the shared stream is opened behind the first `from` events.
    pub fn begin(&mut self, from: usize) {
        self.window = window(self.window_bytes, from);
        self.pushed = from;
    }
}

fn window(bytes: u64, from: usize) -> Window {
    // Of outputs with all the queries there are, one of which wants everything.
    Window::new(bytes, reached(from), Coverage::of(Match::EACH.map(Match::query)))
}

/// The place behind the first `count` events.
pub fn reached(count: usize) -> Place {
    Place::After(token(&mark_data(count as u32, 2)))
}

enum From {
    Window(u64),
    /// A stream of its own.
    CatchUp,
}

/// One lane's place in the stream.
pub struct Reader {
    from: From,
    buffer: VecDeque<window::Found>,
    joined_at: Option<Place>,
    reached: Option<Place>,
    query: Match,
    /// How often it fell off the window.
    pub falls: usize,
}

/// What the reader found.
pub enum Found {
    Event(Arc<Event>),
    Skipped(u64, Place),
    Reached(Place),
}

impl Reader {
    /// Goes on at `place`.
    pub fn new(stream: &Stream, place: &Place, query: Match) -> Reader {
        let mut reader =
            Reader { from: From::CatchUp, buffer: VecDeque::new(), joined_at: None, reached: None, query, falls: 0 };
        reader.try_join(stream, place, false);
        reader
    }

    /// The next thing. `left_out` gets what the server's own `$match` left out.
    pub fn next(&mut self, stream: &Stream, read_to: &Place, left_out: &mut dyn FnMut(usize)) -> Option<Found> {
        loop {
            if let Some(found) = self.buffer.pop_front() {
                let (window::Found::Event(event) | window::Found::Skipped(_, event)) = &found;
                if self.joined_at.as_ref().is_some_and(|place| !place.is_behind(event)) {
                    continue;
                }
                self.joined_at = None;
                return Some(match found {
                    window::Found::Event(event) => Found::Event(event),
                    window::Found::Skipped(count, last) => Found::Skipped(count, Place::After(last.token().clone())),
                });
            }
            if let Some(reached) = self.reached.take() {
                self.try_join(stream, &reached, true);
                return Some(Found::Reached(reached));
            }
            match &mut self.from {
                From::Window(seq) => {
                    let (wanted, all) = (self.query.query().into(), self.joined_at.is_some());
                    match stream.window.read(*seq, &wanted, all, (3, 2_000), &mut self.buffer) {
                        Read::Events(next) => *seq = next,
                        Read::CaughtUp(next, reached) => {
                            *seq = next;
                            if reached == *read_to || !reached.is_covered_since(read_to) {
                                return None;
                            }
                            return Some(Found::Reached(reached));
                        }
                        Read::FellOff => {
                            self.falls += 1;
                            self.from = From::CatchUp;
                        }
                    }
                }
                From::CatchUp => {
                    if self.try_join(stream, read_to, true) {
                        continue;
                    }
                    let start = stream.all.partition_point(|event| !read_to.is_behind(event));
                    let end = stream.all.len().min(start + REPLY_EVENTS);
                    if start == end {
                        return None;
                    }
                    for event in &stream.all[start..end] {
                        if self.query.wants(event) {
                            self.buffer.push_back(window::Found::Event(Arc::clone(event)));
                        } else {
                            left_out(index(event));
                        }
                    }
                    self.reached = Some(reached(end));
                }
            }
        }
    }

    fn try_join(&mut self, stream: &Stream, place: &Place, settle_in: bool) -> bool {
        let live = matches!(self.from, From::Window(_));
        let joined = if live { None } else { stream.window.join(place, &self.query.query().into(), settle_in) };
        if let Some(seq) = joined {
            self.from = From::Window(seq);
            self.joined_at = Some(place.clone());
        }
        joined.is_some()
    }
}
