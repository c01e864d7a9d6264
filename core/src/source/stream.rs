//! One open change stream: opened by time, read in raw batches, opened again by itself when something passing goes wrong.
//!
//! Used for the shared stream and for a lane's catch-up alike. Knows nothing of the window, lanes or checkpoints.

mod decode;
mod fragments;
mod options;
mod reader;
mod too_large;

use std::sync::Arc;
use std::time::Duration;

use mongodb::error::Error;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::decode::Decoder;
use self::options::{Shape, Start};
pub use self::options::{StreamOptions, filter_stage};
use self::reader::{Broken, Reader};
use self::too_large::{TooLarge, is_unreadable};
use crate::backoff::Backoff;
use crate::event::Event;
use crate::source::error::{Class, SourceError, classify, explain_at, is_refused_login, lacks_split_stage, one_line};
use crate::source::health::Health;
use crate::source::place::Place;

/// Between attempts to open again.
const REOPEN: Backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(10) };

/// A cursor that lived for so long was a good one: what comes after it is the first failure again. One that breaks sooner is not,
/// however many replies it gave.
const STABLE: Duration = Duration::from_secs(10);

/// Of events that cannot be read, no more than one warning in this time.
const POISON_WARNED_EVERY: Duration = Duration::from_secs(60);

/// A cursor that ended behind a new invalidate counts as no more than so many failures: a database that is dropped again and again is
/// followed at a few opens a second.
const FAILURES_WITH_PROGRESS_MAX: u32 = 2;

/// Events in stream order, and how far the stream has been read with them.
#[derive(Debug)]
pub struct Batch {
    /// May be empty: progress without events.
    pub events: Vec<Arc<Event>>,
    /// Nothing before this place is still to come.
    pub reached: Place,
}

/// An open change stream.
pub struct ChangeStream {
    options: StreamOptions,
    decoder: Decoder,
    reader: Option<Reader>,
    /// When the reader was opened, and where reading stood.
    opened: Instant,
    opened_at: Option<Place>,
    /// Cursors in a row that could not be opened or did not live long.
    failures: u32,
    /// Cursors in a row that were given up because the server said nothing.
    silences: u32,
    /// How often it was opened or an open was tried.
    opens: u64,
    too_large: TooLarge,
    /// When a stub was last warned of, and how many came since without a warning.
    warned: Option<Instant>,
    unwarned: u64,
    /// Told of every end and every reply; only the shared stream has one.
    health: Option<Health>,
}

impl ChangeStream {
    /// A stream that opens with the first [`ChangeStream::next`], and tries again by itself while there is passing trouble.
    pub fn new(options: StreamOptions, place: Place) -> ChangeStream {
        ChangeStream {
            options,
            decoder: Decoder::new(place),
            reader: None,
            opened: Instant::now(),
            opened_at: None,
            failures: 0,
            silences: 0,
            opens: 0,
            too_large: TooLarge::default(),
            warned: None,
            unwarned: 0,
            health: None,
        }
    }

    /// Opens at `place`; open means that the server has answered a first read.
    ///
    /// # Errors
    /// [`SourceError::HistoryLost`] and [`SourceError::Refused`] when the server says so; passing trouble too is an error here,
    /// the caller decides whether to wait.
    pub async fn open(options: StreamOptions, place: Place) -> Result<ChangeStream, SourceError> {
        let mut stream = ChangeStream::new(options, place);
        loop {
            stream.opens += 1;
            match stream.open_cursor().await {
                Ok(reader) => stream.reader = Some(reader),
                // The history is there, or the server would have said that.
                Err(Broken::Error(error)) if is_unreadable(&error) => stream.too_large.step(),
                Err(Broken::Error(error)) if stream.goes_on_without_splitting(&error) => continue,
                Err(broken) => return Err(stream.cannot_open(&broken)),
            }
            return Ok(stream);
        }
    }

    /// The same stream, telling `health` how it is.
    pub fn with_health(self, health: Health) -> ChangeStream {
        ChangeStream { health: Some(health), ..self }
    }

    /// What is not behind `place` is dropped. For a stream that takes over from another one (with another filter, opened at the
    /// same place or an earlier one), before its first [`ChangeStream::next`]: so nothing is lost and nothing repeated.
    pub fn continue_from(&mut self, place: Place) {
        self.decoder.continue_from(place);
    }

    /// What the stream tells how it is, for another one that takes its part.
    pub fn take_health(&mut self) -> Option<Health> {
        self.health.take()
    }

    /// The same as [`ChangeStream::with_health`], later.
    pub fn set_health(&mut self, health: Option<Health>) {
        self.health = health;
    }

    /// The deployment it is read from.
    pub fn client(&self) -> &mongodb::Client {
        &self.options.client
    }

    /// Begins anew at `place` with the next [`ChangeStream::next`], as after [`SourceError::HistoryLost`].
    pub fn restart_at(&mut self, place: Place) {
        self.reader = None;
        self.decoder = Decoder::new(place);
        self.too_large = TooLarge::default();
    }

    /// How far the stream was read.
    pub fn place(&self) -> &Place {
        self.decoder.place()
    }

    /// The next reply. Waits as long as it takes; opens again after passing trouble, after an invalidate and after a clean end.
    /// Cancelled, it loses nothing: replies are read by a task of their own and decoded without waiting, and what else it had begun, an
    /// open or the search for an event that cannot be sent, is begun again. That costs the server, so it is not to be done often.
    ///
    /// # Errors
    /// What no reopening mends.
    pub async fn next(&mut self) -> Result<Batch, SourceError> {
        loop {
            let Some(reader) = &mut self.reader else {
                if let Some(batch) = self.reopen().await? {
                    return Ok(batch);
                }
                continue;
            };
            match reader.next().await {
                Some(Ok(reply)) => {
                    let events = self.decoder.decode(reply.as_raw_document())?;
                    self.replied(&events);
                    return Ok(Batch { events, reached: self.decoder.place().clone() });
                }
                Some(Err(Broken::Error(error))) if is_unreadable(&error) => {
                    if let Some(batch) = self.pass_unreadable(&error).await? {
                        return Ok(batch);
                    }
                }
                Some(Err(Broken::Error(error))) if !passes(&error) => {
                    return Err(explain_at(&error, "read change stream", self.place()));
                }
                Some(Err(Broken::Error(error))) => {
                    self.ended();
                    warn!(place = %self.place(), "change stream broke, opening it again: {}", one_line(&error));
                }
                Some(Err(Broken::Silent(after))) => {
                    self.went_silent();
                    self.ended();
                    warn!(place = %self.place(), "change stream broke, opening it again: the server said nothing for {after:?}");
                }
                None => {
                    let invalidated = self.decoder.invalidated().is_some();
                    if invalidated && self.opened_at.as_ref() != Some(self.place()) {
                        self.failures = self.failures.min(FAILURES_WITH_PROGRESS_MAX);
                    }
                    self.ended();
                    info!(place = %self.place(), invalidated, "change stream ended, opening it again");
                }
            }
        }
    }

    fn replied(&mut self, events: &[Arc<Event>]) {
        self.silences = 0;
        if let Some(health) = &mut self.health {
            health.replied();
            for _ in events.iter().filter(|event| event.poison().is_some()) {
                health.met_poison();
            }
        }
        for event in events.iter().filter(|event| event.poison().is_some()) {
            let reason = event.poison().unwrap_or_default();
            // A collection without the images that are required makes a stub of every event.
            if self.was_warned() {
                self.unwarned += 1;
                debug!(id = %event.id(), "an event cannot be delivered as it is: {reason}");
            } else {
                let unwarned = std::mem::take(&mut self.unwarned);
                self.warned = Some(Instant::now());
                warn!(id = %event.id(), unwarned, "an event cannot be delivered as it is: {reason}");
            }
        }
        if self.too_large.is_enough(self.decoder.documents(), events.len(), self.options.batch_size) {
            debug!(place = %self.place(), "every event can be read again, reading whole replies again");
            self.too_large.stop_stepping();
            self.ended();
        }
    }

    /// There was a warning of a stub a short while ago.
    fn was_warned(&self) -> bool {
        self.warned.is_some_and(|warned| warned.elapsed() < POISON_WARNED_EVERY)
    }

    /// The cursor is of no more use.
    fn ended(&mut self) {
        let was_open = self.reader.take().is_some();
        if let Some(health) = &mut self.health {
            health.broke();
        }
        // `opened` is of the last one that could be opened: a failed open is no sign of a good cursor.
        if was_open && self.opened.elapsed() >= STABLE {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
    }

    fn went_silent(&mut self) {
        self.silences = self.silences.saturating_add(1);
        if let Some(health) = &mut self.health {
            health.went_silent();
        }
    }

    /// One attempt to open again, after a wait that grows with the failures before it. A batch when it met an event that is too
    /// large.
    async fn reopen(&mut self) -> Result<Option<Batch>, SourceError> {
        if self.opens > 0 {
            if let Some(health) = &mut self.health {
                health.reopening();
            }
            tokio::time::sleep(REOPEN.delay(self.failures.max(1), rand::random())).await;
        }
        self.opens += 1;
        match self.open_cursor().await {
            Ok(reader) => {
                debug!(place = %self.place(), "change stream is open again");
                self.reader = Some(reader);
                return Ok(None);
            }
            Err(Broken::Error(error)) if is_unreadable(&error) => return self.pass_unreadable(&error).await,
            Err(Broken::Error(error)) if self.goes_on_without_splitting(&error) => {}
            Err(Broken::Error(error)) if passes(&error) => {
                warn!(place = %self.place(), "cannot open the change stream again yet: {}", one_line(&error));
                // By time from now on, where it was not already: a token the server does not take never will be taken.
                self.decoder.forget_invalidate();
            }
            Err(Broken::Silent(after)) => {
                warn!(place = %self.place(), "cannot open the change stream again yet: the server said nothing for {after:?}");
                self.went_silent();
            }
            Err(broken) => return Err(self.cannot_open(&broken)),
        }
        self.failures = self.failures.saturating_add(1);
        Ok(None)
    }

    /// After a failover to an older member. Once only: from then on the stage is not asked for.
    fn goes_on_without_splitting(&mut self, error: &Error) -> bool {
        let lacks_it = self.options.splits && lacks_split_stage(error);
        if lacks_it {
            warn!("this server does not split large events as the one before did, going on without");
            self.options.splits = false;
        }
        lacks_it
    }

    async fn open_cursor(&mut self) -> Result<Reader, Broken> {
        self.decoder.begin_cursor();
        let batch_size = self.too_large.batch_size(self.options.batch_size);
        let left_out = self.too_large.left_out(self.decoder.place());
        let pipeline = self.options.pipeline(&start(&self.decoder), Shape::Whole, left_out);
        let opening = Reader::open(&self.options, pipeline, batch_size, self.silences);
        let reader = opening.await?;
        (self.opened, self.opened_at) = (Instant::now(), Some(self.place().clone()));
        Ok(reader)
    }

    /// The server cannot send an event: it is too large, or an image of it is required and missing. First it is approached in steps of
    /// one event; when the error comes then, the event is the next one, and a stub takes its place.
    async fn pass_unreadable(&mut self, error: &Error) -> Result<Option<Batch>, SourceError> {
        if !self.too_large.is_stepping() {
            debug!(place = %self.place(), "an event cannot be read, looking for it: {}", one_line(error));
            self.reader = None;
            // Not a failure: it was open, and is opened in another way.
            self.too_large.step();
            return Ok(None);
        }
        self.too_large.stop_stepping();
        let left_out = self.too_large.left_out(self.decoder.place()).to_vec();
        let found = too_large::find(&self.options, &start(&self.decoder), &left_out, self.decoder.seen(), error).await;
        self.ended();
        match found {
            Ok(Some(event)) => {
                self.too_large.leave_out(event.token().clone())?;
                let event = self.decoder.pass(event).map(Arc::new);
                if event.is_some() {
                    // Reading has come further: no failure.
                    self.failures = 0;
                }
                let events: Vec<_> = event.into_iter().collect();
                self.replied(&events);
                Ok(Some(Batch { events, reached: self.decoder.place().clone() }))
            }
            Ok(None) => Ok(None),
            Err(Broken::Error(error)) if !passes(&error) => Err(self.cannot_open(&Broken::Error(error))),
            Err(Broken::Error(error)) => {
                warn!(place = %self.place(), "change stream broke, opening it again: {}", one_line(&error));
                Ok(None)
            }
            Err(Broken::Silent(_)) => {
                self.went_silent();
                Ok(None)
            }
        }
    }

    fn cannot_open(&self, broken: &Broken) -> SourceError {
        let what = self.options.describe();
        match broken {
            Broken::Error(error) => explain_at(error, &what, self.place()),
            Broken::Silent(after) => SourceError::Unreachable(format!(
                "{what}: the server said nothing for {after:?}; check it and the network"
            )),
        }
    }
}

/// Whether a stream that was open may be tried again.
fn passes(error: &Error) -> bool {
    classify(error) == Class::Passing || is_refused_login(error)
}

/// Where the next cursor begins.
fn start(decoder: &Decoder) -> Start<'_> {
    decoder.invalidated().map_or(Start::At(decoder.place()), Start::Behind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::scope::Scope;
    use crate::source::token::Timestamp64;

    #[tokio::test]
    async fn an_open_that_fails_is_no_sign_of_a_good_cursor() {
        let client = mongodb::Client::with_uri_str("mongodb://127.0.0.1:1/").await.expect("a client");
        let options = StreamOptions {
            client,
            scope: Scope { database: None, filter: None },
            full_document: None,
            full_document_before_change: None,
            show_expanded_events: false,
            pipeline: Vec::new(),
            filter: None,
            splits: false,
            batch_size: 1,
        };
        let mut stream = ChangeStream::new(options, Place::From(Timestamp64(1)));
        tokio::time::pause();
        tokio::time::advance(STABLE * 2).await;
        for failures in 1..5 {
            stream.ended();
            assert_eq!(stream.failures, failures, "the wait grows");
        }
    }
}
