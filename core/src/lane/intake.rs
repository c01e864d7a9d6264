//! Where one lane's events come from: the window while the lane keeps up, a catch-up stream while it does not. Knows how to go
//! from one to the other without loss; nothing of how streams are shared.

use std::collections::VecDeque;
use std::sync::Arc;

use bson::Document;
use tokio::sync::watch;

use crate::event::Event;
use crate::lane::catch_up::{CatchUp, CatchUps};
use crate::source::error::SourceError;
use crate::source::place::Place;
use crate::source::stream::StreamOptions;
use crate::window::{Found, Read, Wanted, Window};

/// Most events and bytes taken out of the window at once; they stay pinned while the lane works on them.
const READ_EVENTS_MAX: usize = 1000;
const READ_BYTES_MAX: usize = 1 << 20;

/// One lane's reading end.
pub struct Intake {
    window: Arc<Window>,
    /// Wakes the lane when the window has grown.
    pushed: watch::Receiver<u64>,
    /// The lane's `match`: what it wants of the stream.
    wanted: Wanted,
    /// Where it goes on outside the window, with all other lanes that are there.
    catch_ups: Arc<CatchUps>,
    from: From,
    /// Read and not handed on, in stream order.
    buffer: VecDeque<Found>,
    /// Set when the lane joined the window: the window may still come to events that the lane has behind it.
    joined_at: Option<Place>,
    /// How far the stream is read once the buffer is empty.
    reached: Option<Place>,
    /// How often the lane fell off the window.
    falls: u64,
}

enum From {
    /// The window, from this sequence number on.
    Window(u64),
    /// A catch-up stream, or waiting for one.
    CatchUp(CatchUp),
    /// Outside the window; a stream is asked for when there is room for events.
    Outside,
    /// The stream cannot go on.
    Lost,
}

/// What the lane finds when it asks for an event.
pub enum Next {
    /// The next event in stream order.
    Event(Arc<Event>),
    /// So many events up to here are not for this lane, by their operation type or namespace.
    Skipped(u64, Place),
    /// Everything up to here was handed on; nothing more at the moment.
    Reached(Place),
    /// Nothing at the moment.
    Nothing,
}

impl Intake {
    /// Reads on from `place` what `query` lets through, and maybe more: in the window if it holds all that is still to come, else on
    /// a catch-up stream. To be asked for events inside a tokio runtime.
    pub fn new(window: Arc<Window>, place: &Place, query: Option<Document>, catch_ups: Arc<CatchUps>) -> Self {
        let pushed = window.subscribe();
        let mut intake = Intake {
            window,
            pushed,
            wanted: Wanted::new(query),
            catch_ups,
            from: From::Outside,
            buffer: VecDeque::new(),
            joined_at: None,
            reached: None,
            falls: 0,
        };
        intake.try_join(place, false);
        intake
    }

    /// The next event, without waiting. `read_to` is how far the lane has read.
    pub fn next(&mut self, read_to: &Place) -> Next {
        loop {
            if let Some(found) = self.buffer.pop_front() {
                let (Found::Event(event) | Found::Skipped(_, event)) = &found;
                if self.joined_at.as_ref().is_some_and(|place| !place.is_behind(event)) {
                    continue;
                }
                self.joined_at = None;
                return match found {
                    Found::Event(event) => Next::Event(event),
                    Found::Skipped(count, last) => Next::Skipped(count, Place::After(last.token().clone())),
                };
            }
            if let Some(reached) = self.reached.take() {
                self.try_join(&reached, true);
                return Next::Reached(reached);
            }
            match &mut self.from {
                From::Window(seq) => {
                    self.pushed.mark_unchanged();
                    // Until it is past the place at which it joined, each event is compared with that.
                    let all = self.joined_at.is_some();
                    let limits = (READ_EVENTS_MAX, READ_BYTES_MAX);
                    match self.window.read(*seq, &self.wanted, all, limits, &mut self.buffer) {
                        Read::Events(next) => *seq = next,
                        Read::CaughtUp(next, reached) => {
                            *seq = next;
                            // A lane may be ahead of the window, and its place never goes back.
                            if reached == *read_to || !reached.is_covered_since(read_to) {
                                return Next::Nothing;
                            }
                            return Next::Reached(reached);
                        }
                        Read::FellOff => {
                            self.falls += 1;
                            self.from = From::Outside;
                        }
                    }
                }
                // It may fit again: a lane that paused long can be back at the end of a quiet stream.
                From::Outside => {
                    if !self.try_join(read_to, true) {
                        self.from = From::CatchUp(self.catch_ups.request(read_to.clone(), self.wanted.clone()));
                        return Next::Nothing;
                    }
                }
                From::CatchUp(stream) => {
                    if stream.has_begun() || !self.try_join(read_to, true) {
                        return Next::Nothing;
                    }
                }
                From::Lost => return Next::Nothing,
            }
        }
    }

    /// Waits until [`Intake::next`] has something. Cancel-safe.
    ///
    /// # Errors
    /// The catch-up stream cannot go on; the lane must stop.
    pub async fn more(&mut self) -> Result<(), SourceError> {
        match &mut self.from {
            From::Window(_) => {
                // An error means that the window is gone: the pipeline is ending and will say so.
                if self.pushed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
            From::CatchUp(stream) => {
                let waits = !stream.has_begun();
                let batch = tokio::select! {
                    batch = stream.next() => batch,
                    // While it waits for its turn the window may come to hold all that is missing.
                    Ok(()) = self.pushed.changed(), if waits => return Ok(()),
                };
                match batch {
                    Some(Ok(batch)) => {
                        self.buffer.extend(batch.events.into_iter().map(Found::Event));
                        self.reached = Some(batch.reached);
                        Ok(())
                    }
                    Some(Err(error)) => {
                        self.from = From::Lost;
                        Err(error)
                    }
                    // Its time was over, or others were kept waiting by this lane: it asks again where it is now.
                    None => {
                        self.from = From::Outside;
                        Ok(())
                    }
                }
            }
            From::Outside => Ok(()),
            From::Lost => std::future::pending().await,
        }
    }

    /// Goes on at another place: what was lost in between is gone.
    pub fn begin_at(&mut self, place: &Place) {
        self.from = From::Outside;
        self.buffer.clear();
        self.reached = None;
        self.try_join(place, true);
    }

    /// What the streams it catches up on are opened with; their filter is not in it.
    pub fn options(&self) -> Option<StreamOptions> {
        self.catch_ups.options()
    }

    /// Gives a catch-up stream back when the lane cannot take events for long; it is opened again when it can.
    pub fn rest(&mut self) {
        if matches!(self.from, From::CatchUp(_)) {
            self.from = From::Outside;
            // Nothing is lost: reading goes on at what the lane has taken.
            self.buffer.clear();
            self.reached = None;
        }
    }

    /// True while the lane reads from the window.
    pub fn is_live(&self) -> bool {
        matches!(self.from, From::Window(_))
    }

    /// How often the lane fell off the window.
    pub fn falls(&self) -> u64 {
        self.falls
    }

    /// Goes over to the window if it holds all that is still to come behind `place`.
    fn try_join(&mut self, place: &Place, settle_in: bool) -> bool {
        let live = matches!(self.from, From::Window(_));
        let joined = if live { None } else { self.window.join(place, &self.wanted, settle_in) };
        if let Some(seq) = joined {
            self.from = From::Window(seq);
            self.joined_at = Some(place.clone());
        }
        joined.is_some()
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;
    use mongodb::Client;
    use mongodb::options::ClientOptions;

    use super::*;
    use crate::event::fixture::{event, event_in, token, token_data};
    use crate::lane::catch_up::metrics::CatchUpMetrics;
    use crate::source::scope::Scope;
    use crate::source::stream::StreamOptions;
    use crate::source::token::Timestamp64;
    use crate::window::Coverage;

    /// Of a deployment that is not there: streams on it try to open without end.
    fn nowhere() -> Arc<CatchUps> {
        let timeout = std::time::Duration::from_millis(10);
        let client = ClientOptions::builder().server_selection_timeout(timeout).build();
        let options = StreamOptions {
            client: Client::with_options(client).expect("a client"),
            scope: Scope { database: None, filter: None },
            full_document: None,
            full_document_before_change: None,
            show_expanded_events: false,
            pipeline: Vec::new(),
            filter: None,
            splits: false,
            batch_size: 1,
        };
        CatchUps::new(options, 1, CatchUpMetrics::default())
    }

    fn window(floor: Place) -> Arc<Window> {
        Arc::new(Window::new(1 << 20, floor, Coverage::everything()))
    }

    fn at(time: u32) -> Place {
        Place::After(token(&token_data(time, 1, 0)))
    }

    fn times(intake: &mut Intake, read_to: &Place) -> Vec<u32> {
        let mut times = Vec::new();
        while let Next::Event(event) = intake.next(read_to) {
            times.push(event.token().position().time.seconds());
        }
        times
    }

    #[tokio::test]
    async fn a_lane_ahead_of_the_window_neither_repeats_nor_goes_back() {
        let window = window(Place::From(Timestamp64(1)));
        let mut intake = Intake::new(Arc::clone(&window), &at(5), None, nowhere());
        assert!(intake.is_live());
        assert!(matches!(intake.next(&at(5)), Next::Nothing), "the window has come less far than the lane");
        window.push((1..=3).map(|time| event(&token_data(time, 1, 0), Some(1), 0)).collect(), at(3));
        assert!(times(&mut intake, &at(5)).is_empty());
        assert!(matches!(intake.next(&at(5)), Next::Nothing));
        window.push((4..=8).map(|time| event(&token_data(time, 1, 0), Some(1), 0)).collect(), at(9));
        assert_eq!(times(&mut intake, &at(5)), [6, 7, 8]);
        assert!(matches!(intake.next(&at(8)), Next::Reached(place) if place == at(9)));
    }

    #[tokio::test]
    async fn what_the_window_passes_over_is_counted_behind_the_lanes_place_only() {
        let query = doc! { "ns.coll": "orders" };
        let floor = Place::From(Timestamp64(1));
        let window = Arc::new(Window::new(1 << 20, floor, Coverage::of([query.clone(), doc! { "ns.coll": "carts" }])));
        let mut intake = Intake::new(Arc::clone(&window), &at(3), Some(query), nowhere());
        let cart = |time| event_in("carts", &token_data(time, 1, 0), Some(1), 0);
        // The lane is ahead of the window: of what it has behind it nothing is said, wherever a run begins.
        window.push((1..=4).map(cart).collect(), at(4));
        assert!(matches!(intake.next(&at(3)), Next::Event(event) if event.coll() == "carts"), "the first is looked at");
        assert!(matches!(intake.next(&at(4)), Next::Nothing));
        window.push((5..=7).map(cart).chain([event(&token_data(8, 1, 0), Some(1), 0), cart(9)]).collect(), at(9));
        let Next::Skipped(3, place) = intake.next(&at(4)) else { panic!("three carts") };
        assert_eq!(place, at(7));
        assert_eq!(times(&mut intake, &place), [8]);
        window.push(Vec::new(), at(12));
        assert!(matches!(intake.next(&at(9)), Next::Reached(place) if place == at(12)));
    }

    #[tokio::test]
    async fn a_lane_that_waits_for_a_stream_takes_the_window_when_it_fits_again() {
        let window = window(at(100));
        let catch_ups = nowhere();
        // The only stream is taken, for ever.
        let _taken = catch_ups.request(at(1), Wanted::everything());
        let mut intake = Intake::new(Arc::clone(&window), &at(100), None, Arc::clone(&catch_ups));
        assert!(intake.is_live());
        let large = (101..=104).map(|time| event(&token_data(time, 1, 0), Some(1), 400_000)).collect();
        window.push(large, at(104));
        assert!(matches!(intake.next(&at(100)), Next::Nothing) && !intake.is_live(), "it fell off");
        // It was given what it missed otherwise, and is at 104 now.
        assert!(matches!(intake.next(&at(104)), Next::Nothing) && intake.is_live());
    }

    #[tokio::test]
    async fn a_filter_that_leaves_the_lane_out_ends_its_reading() {
        let window = window(at(1));
        let query = doc! { "operationType": "delete" };
        let mut intake = Intake::new(Arc::clone(&window), &at(1), Some(query.clone()), nowhere());
        window.push(vec![event(&token_data(2, 1, 0), Some(1), 0)], at(2));
        window.refilter(Coverage::of([doc! { "operationType": "insert" }]));
        window.push(vec![event(&token_data(3, 1, 0), Some(1), 0)], at(3));
        assert_eq!(times(&mut intake, &at(1)), [2], "what was read for it is still good");
        assert!(matches!(intake.next(&at(2)), Next::Nothing) && !intake.is_live());
        window.refilter(Coverage::of([query]));
        assert!(matches!(intake.next(&at(2)), Next::Nothing) && !intake.is_live(), "3 may not be what it missed");
        assert!(matches!(intake.next(&at(3)), Next::Nothing) && intake.is_live());
        assert_eq!(intake.falls(), 1);
    }

    #[tokio::test]
    async fn a_window_that_begins_anew_is_joined_behind_its_beginning_only() {
        let window = window(at(1));
        let mut intake = Intake::new(Arc::clone(&window), &at(1), None, nowhere());
        window.restart(at(50));
        assert!(matches!(intake.next(&at(1)), Next::Nothing) && !intake.is_live());
        window.push(vec![event(&token_data(51, 1, 0), Some(1), 0)], at(51));
        assert!(matches!(intake.next(&at(49)), Next::Nothing) && !intake.is_live());
        assert_eq!(times(&mut intake, &at(50)), [51]);
    }
}
