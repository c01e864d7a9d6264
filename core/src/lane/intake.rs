//! Where one lane's events come from: the window while the lane keeps up, a change stream of its own while it does not.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::event::Event;
use crate::source::error::SourceError;
use crate::source::place::Place;
use crate::source::stream::{Batch, ChangeStream, StreamOptions};
use crate::window::{Read, Window};

/// Most events and bytes taken out of the window at once; they stay pinned while the lane works on them.
const READ_EVENTS_MAX: usize = 1000;
const READ_BYTES_MAX: usize = 1 << 20;

/// One lane's reading end.
pub struct Intake {
    window: Arc<Window>,
    /// Wakes the lane when the window has grown.
    pushed: watch::Receiver<u64>,
    /// How a catch-up stream of this lane is opened, its own `match` in it.
    catch_up_options: StreamOptions,
    /// Bounds the catch-up streams of all lanes together.
    permits: Arc<Semaphore>,
    from: From,
    /// Read and not handed on, in stream order.
    buffer: VecDeque<Arc<Event>>,
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
    /// A stream of its own.
    CatchUp(CatchUp),
    /// Outside the window without a stream; one is opened when there is room for events.
    Outside,
    /// The stream cannot go on.
    Lost,
}

struct CatchUp {
    batches: mpsc::Receiver<Result<Batch, SourceError>>,
    task: JoinHandle<()>,
    /// A batch has come. Until then the lane may be waiting for others to give their stream back.
    begun: bool,
}

impl Drop for CatchUp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the lane finds when it asks for an event.
pub enum Next {
    /// The next event in stream order.
    Event(Arc<Event>),
    /// Everything up to here was handed on; nothing more at the moment.
    Reached(Place),
    /// Nothing at the moment.
    Nothing,
}

impl Intake {
    /// Reads on from `place`: in the window if it holds what is still to come, else on a stream of its own.
    pub fn new(window: Arc<Window>, place: &Place, catch_up_options: StreamOptions, permits: Arc<Semaphore>) -> Self {
        let pushed = window.subscribe();
        let mut intake = Intake {
            window,
            pushed,
            catch_up_options,
            permits,
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
            if let Some(event) = self.buffer.pop_front() {
                if self.joined_at.as_ref().is_some_and(|place| !place.is_behind(&event)) {
                    continue;
                }
                self.joined_at = None;
                return Next::Event(event);
            }
            if let Some(reached) = self.reached.take() {
                self.try_join(&reached, true);
                return Next::Reached(reached);
            }
            match &mut self.from {
                From::Window(seq) => {
                    self.pushed.mark_unchanged();
                    match self.window.read(*seq, READ_EVENTS_MAX, READ_BYTES_MAX, &mut self.buffer) {
                        Read::Events(next) => *seq = next,
                        // A lane may be ahead of the window, and its place never goes back.
                        Read::CaughtUp(reached) if reached == *read_to || !reached.is_covered_since(read_to) => {
                            return Next::Nothing;
                        }
                        Read::CaughtUp(reached) => return Next::Reached(reached),
                        Read::FellOff => {
                            self.falls += 1;
                            self.from = From::Outside;
                        }
                    }
                }
                // It may fit again: a lane that paused long can be back at the end of a quiet stream.
                From::Outside => {
                    if !self.try_join(read_to, true) {
                        self.from = From::CatchUp(self.catch_up(read_to.clone()));
                        return Next::Nothing;
                    }
                }
                From::CatchUp(stream) => {
                    if stream.begun || !self.try_join(read_to, true) {
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
                let batch = tokio::select! {
                    batch = stream.batches.recv() => batch,
                    // While it waits for its turn the window may come to hold all that is missing.
                    Ok(()) = self.pushed.changed(), if !stream.begun => return Ok(()),
                };
                match batch {
                    Some(Ok(batch)) => {
                        stream.begun = true;
                        self.buffer.extend(batch.events);
                        self.reached = Some(batch.reached);
                        Ok(())
                    }
                    Some(Err(error)) => {
                        self.from = From::Lost;
                        Err(error)
                    }
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
        let joined = if live { None } else { self.window.join(place, settle_in) };
        if let Some(seq) = joined {
            self.from = From::Window(seq);
            self.joined_at = Some(place.clone());
        }
        joined.is_some()
    }

    fn catch_up(&self, place: Place) -> CatchUp {
        let (options, permits) = (self.catch_up_options.clone(), Arc::clone(&self.permits));
        let (sender, batches) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            // Closed never: the semaphore lives as long as the pipeline.
            let Ok(_permit) = permits.acquire_owned().await else { return };
            let mut stream = ChangeStream::new(options, place);
            // A place for the batch first: a lane that takes nothing must not have another one read for it.
            while let Ok(slot) = sender.reserve().await {
                let batch = stream.next().await;
                let failed = batch.is_err();
                slot.send(batch);
                if failed {
                    return;
                }
            }
        });
        CatchUp { batches, task, begun: false }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mongodb::Client;
    use mongodb::options::ClientOptions;

    use super::*;
    use crate::event::fixture::{event, token, token_data};
    use crate::source::scope::Scope;
    use crate::source::token::Timestamp64;

    /// A deployment that is not there: streams on it try to open without end.
    fn nowhere() -> StreamOptions {
        let options = ClientOptions::builder().server_selection_timeout(Duration::from_millis(10)).build();
        StreamOptions {
            client: Client::with_options(options).expect("a client"),
            scope: Scope { database: None, filter: None },
            full_document: None,
            full_document_before_change: None,
            show_expanded_events: false,
            pipeline: Vec::new(),
            filter: None,
            splits: false,
            batch_size: 1000,
        }
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
        let window = Arc::new(Window::new(1 << 20, Place::From(Timestamp64(1))));
        let mut intake = Intake::new(Arc::clone(&window), &at(5), nowhere(), Arc::new(Semaphore::new(1)));
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
    async fn a_lane_that_rests_gives_its_stream_to_others() {
        let window = Arc::new(Window::new(1 << 20, at(100)));
        let permits = Arc::new(Semaphore::new(1));
        let mut first = Intake::new(Arc::clone(&window), &at(5), nowhere(), Arc::clone(&permits));
        assert!(matches!(first.next(&at(5)), Next::Nothing) && !first.is_live());
        while permits.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        first.rest();
        // Handed on as soon as the stream's task is gone; the test ends by its own limit if that never happens.
        let handed_on = tokio::time::timeout(Duration::from_secs(20), permits.acquire()).await;
        assert!(handed_on.is_ok(), "a lane at rest keeps no stream");
    }

    #[tokio::test]
    async fn a_lane_that_waits_for_a_stream_takes_the_window_when_it_fits_again() {
        let window = Arc::new(Window::new(1 << 20, at(100)));
        // No stream is free, ever.
        let mut intake = Intake::new(Arc::clone(&window), &at(100), nowhere(), Arc::new(Semaphore::new(0)));
        assert!(intake.is_live());
        let large = (101..=104).map(|time| event(&token_data(time, 1, 0), Some(1), 400_000)).collect();
        window.push(large, at(104));
        assert!(matches!(intake.next(&at(100)), Next::Nothing) && !intake.is_live(), "it fell off");
        // It was given what it missed otherwise, and is at 104 now.
        assert!(matches!(intake.next(&at(104)), Next::Nothing) && intake.is_live());
    }
}
