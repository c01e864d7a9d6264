//! An event that the server cannot send, because it is too large or an image that it must have is missing: found, replaced by a stub,
//! and left out from then on.
//!
//! The error (10334 and its like, 47) takes the place of a whole reply: neither the good events in it nor the token of the bad one
//! are known. So the stream is read again one event per reply, up to the error; then a cursor that asks for a few small fields
//! only shows the event behind the last good one. Every stream opens at the time of its place, inclusive, and would meet the same
//! event again: as long as its place is at that time, the event is left out by its token.
//!
//! Where a `match` needs the whole event or its images, no small cursor can tell which event failed: then those in scope are read
//! as they are, by their tokens, and the first one that fails so is the one.

use std::time::Duration;

use bson::{RawDocument, RawDocumentBuf};
use futures::StreamExt;
use mongodb::error::Error;
use tracing::{debug, warn};

use super::options::{Shape, Start, StreamOptions};
use super::reader::{self, Broken};
use crate::event::Event;
use crate::source::error::{SourceError, code};
use crate::source::place::Place;
use crate::source::token::{Timestamp64, Token};

/// The most events of one cluster time that can be left out: of one transaction.
const LEFT_OUT_MAX: usize = 10_000;

/// Empty replies in a row after which nothing more is expected.
const IDLE_MAX: u32 = 10;

/// Replies of small events read in search of one; between it and the last good event there is none.
const REPLIES_MAX: usize = 100;

/// Events that are read as they are at once, to see whether one of them fails.
const PROBED_MAX: usize = 64;

/// What is known of events that are too large.
#[derive(Default)]
pub(super) struct TooLarge {
    /// While events are read one per reply, until the one too large is met.
    steps: Option<Steps>,
    /// Those met, all at the same cluster time.
    left_out: Vec<Token>,
}

#[derive(Default)]
struct Steps {
    /// New events so far.
    events: u32,
    /// Empty replies since the last document; a busy server gives some before it has come to the end.
    idle: u32,
}

impl TooLarge {
    /// How many events to ask for in one reply.
    pub fn batch_size(&self, usual: u32) -> u32 {
        if self.steps.is_some() { 1 } else { usual }
    }

    /// True while events are read one per reply.
    pub fn is_stepping(&self) -> bool {
        self.steps.is_some()
    }

    /// Begins to read events one per reply.
    pub fn step(&mut self) {
        self.steps = Some(Steps::default());
    }

    /// Back to whole replies.
    pub fn stop_stepping(&mut self) {
        self.steps = None;
    }

    /// A reply came with so many documents, so many of them new events. True when it is time to stop stepping: the event is not met
    /// again, because it has become smaller.
    pub fn is_enough(&mut self, documents: usize, events: usize, usual: u32) -> bool {
        let Some(steps) = &mut self.steps else { return false };
        steps.events = steps.events.saturating_add(events as u32);
        steps.idle = if documents == 0 { steps.idle + 1 } else { 0 };
        // The reply that failed may have begun with as many as are asked for.
        steps.idle >= IDLE_MAX || steps.events > usual.saturating_mul(2)
    }

    /// What a cursor that opens at `place` must leave out.
    pub fn left_out(&mut self, place: &Place) -> &[Token] {
        self.keep_only(place.time());
        &self.left_out
    }

    /// Leaves this event out from now on.
    pub fn leave_out(&mut self, token: Token) -> Result<(), SourceError> {
        self.keep_only(token.position().time);
        if self.left_out.len() >= LEFT_OUT_MAX {
            let time = token.position().time;
            let reason = format!("{LEFT_OUT_MAX} events of the cluster time {time} cannot be read; {ADVICE}");
            return Err(SourceError::Refused { what: "read change stream".to_owned(), reason });
        }
        self.left_out.push(token);
        Ok(())
    }

    fn keep_only(&mut self, time: Timestamp64) {
        self.left_out.retain(|token| token.position().time == time);
    }
}

const ADVICE: &str =
    "leave out full_document or full_document_before_change, or project the event smaller in source.pipeline";

const IMAGES_ADVICE: &str = "\"required\" needs changeStreamPreAndPostImages on every watched collection, from before its first change \
    on, and images that have not expired: else write \"when_available\" in source.full_document and \
    source.full_document_before_change";

/// Finds the event behind `seen` (the last one that could be read; none: the first of all) and makes a stub of it. `None` when there
/// is none: it is no longer what it was, or no longer matches.
pub(super) async fn find(
    options: &StreamOptions,
    start: &Start<'_>,
    left_out: &[Token],
    seen: Option<&Token>,
    error: &Error,
) -> Result<Option<Event>, Broken> {
    let small = match lacks_image(error) {
        // A small cursor with images fails as well, and one without them does not know what matches.
        true => None,
        false => match search(options, start, Shape::Stub, left_out, seen).await {
            // A `match` or a stage of the operator needs the event as one document, so the server cannot tell whether it matches.
            Err(Broken::Error(error)) if is_unreadable(&error) => None,
            found => Some(found?),
        },
    };
    let found = match small {
        Some(stub) => stub.map(|stub| (stub, error.clone())),
        // Everything in scope is read, so nothing between it and the last good one was hidden.
        None if options.filter.is_none() && options.pipeline.is_empty() => {
            search(options, start, Shape::StubOfAny, left_out, seen).await?.map(|stub| (stub, error.clone()))
        }
        None => first_unreadable(options, start, left_out, seen).await?,
    };
    let Some((stub, error)) = found else { return Ok(None) };
    match Event::from_poison(&stub, reason(&error, options.splits)) {
        Ok(event) => Ok(Some(event)),
        Err(error) => {
            warn!("an event that cannot be read cannot be placed: {error}");
            Ok(None)
        }
    }
}

/// Why a stub is there, and what to do.
fn reason(error: &Error, splits: bool) -> String {
    let code = code(error).unwrap_or_default();
    if lacks_image(error) {
        let message = error.to_string();
        let image = ["pre-image", "post-image"].into_iter().find(|image| message.contains(image)).unwrap_or("image");
        return format!(
            "the event cannot be read: its {image} is required and was not there (code {code}); {IMAGES_ADVICE}"
        );
    }
    let why = match splits {
        true => "one of its fields is larger than the 16 MiB that MongoDB can send",
        false => {
            "it is larger than the 16 MiB that MongoDB can send, and this server does not split events (6.0.9 and later do)"
        }
    };
    format!("the event cannot be read: {why} (code {code}); {ADVICE}")
}

/// The first event in scope behind `seen` that fails as it is, and how.
async fn first_unreadable(
    options: &StreamOptions,
    start: &Start<'_>,
    left_out: &[Token],
    seen: Option<&Token>,
) -> Result<Option<(RawDocumentBuf, Error)>, Broken> {
    debug!("reading the events behind the last good one as they are, in search of the one that fails");
    let pipeline = options.pipeline(start, Shape::StubOfAny, left_out);
    let (mut cursor, watch) = reader::open(options, pipeline, options.batch_size, 0).await?;
    for replies in 0..REPLIES_MAX {
        let Some(reply) = watch.wait(cursor.next()).await? else { return Ok(None) };
        let reply = reply.map_err(Broken::Error)?;
        let events = reply.doc_slices().map_err(Broken::Error)?;
        let is_end = replies > 0 && events.is_empty();
        let stubs = events.into_iter().filter_map(|event| event.ok()?.as_document());
        let candidates: Vec<(&RawDocument, Token)> = stubs
            .filter_map(|stub| Some((stub, token_of(stub)?)))
            .filter(|(_, token)| seen.is_none_or(|seen| token.is_after(seen)))
            .collect();
        // Mostly it is the very next one; else ever more at once, and then halves of those.
        let (mut from, mut many, mut growing) = (0, 1, true);
        while from < candidates.len() {
            let to = (from + many).min(candidates.len());
            let tokens: Vec<&Token> = candidates[from..to].iter().map(|(_, token)| token).collect();
            match fails(options, &tokens).await? {
                Some(error) if tokens.len() == 1 => return Ok(Some((candidates[from].0.to_owned(), error))),
                Some(_) => (many, growing) = (tokens.len() / 2, false),
                None if growing => (from, many) = (to, (many * 2).min(PROBED_MAX)),
                None => (from, many) = (to, (many / 2).max(1)),
            }
        }
        if is_end {
            return Ok(None);
        }
    }
    Ok(None)
}

/// How one of these events fails when it is read as it is; `None` when none does, or none that matches.
async fn fails(options: &StreamOptions, tokens: &[&Token]) -> Result<Option<Error>, Broken> {
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return Ok(None) };
    let place = Place::From(first.position().time);
    let pipeline = options.pipeline_of(&Start::At(&place), tokens);
    let (mut cursor, watch) = match reader::open(options, pipeline, options.batch_size, 0).await {
        Err(Broken::Error(error)) if is_unreadable(&error) => return Ok(Some(error)),
        opened => opened?,
    };
    for replies in 0..REPLIES_MAX + PROBED_MAX {
        let reply = match watch.wait(cursor.next()).await? {
            None => return Ok(None),
            Some(Err(error)) if is_unreadable(&error) => return Ok(Some(error)),
            Some(reply) => reply.map_err(Broken::Error)?,
        };
        let cursor = reply.as_raw_document().get_document("cursor").ok();
        let reached = cursor.and_then(|cursor| cursor.get_document("postBatchResumeToken").ok());
        let reached = reached.and_then(|token| Token::from_document(token).ok());
        // An empty reply comes at the end of the oplog only, or before the server has come so far.
        let is_past = reached.is_some_and(|reached| reached.position().time >= last.position().time);
        if replies > 0 && is_past && !reader::has_events(&reply) {
            return Ok(None);
        }
    }
    // Not known: whoever asks must not go over an event because of that.
    Err(Broken::Silent(Duration::from_secs(10)))
}

fn token_of(event: &RawDocument) -> Option<Token> {
    Token::from_document(event.get_document("_id").ok()?).ok()
}

async fn search(
    options: &StreamOptions,
    start: &Start<'_>,
    shape: Shape,
    left_out: &[Token],
    seen: Option<&Token>,
) -> Result<Option<RawDocumentBuf>, Broken> {
    let pipeline = options.pipeline(start, shape, left_out);
    let (mut cursor, watch) = reader::open(options, pipeline, options.batch_size, 0).await?;
    for replies in 0..REPLIES_MAX {
        let Some(reply) = watch.wait(cursor.next()).await? else { return Ok(None) };
        let reply = reply.map_err(Broken::Error)?;
        let events = reply.doc_slices().map_err(Broken::Error)?;
        let behind = |event: &&RawDocument| is_behind(event, seen);
        let found = events.into_iter().filter_map(|event| event.ok()?.as_document()).find(behind);
        if found.is_some() || (replies > 0 && events.is_empty()) {
            return Ok(found.map(ToOwned::to_owned));
        }
    }
    Ok(None)
}

fn is_behind(event: &RawDocument, seen: Option<&Token>) -> bool {
    token_of(event).is_some_and(|token| seen.is_none_or(|seen| token.is_after(seen)))
}

/// An event stands there that the server cannot send, now or ever.
pub(super) fn is_unreadable(error: &Error) -> bool {
    is_too_large(error) || lacks_image(error)
}

/// NoMatchingDocument: an image is required, and the oplog's event is there without one. It never comes to be.
fn lacks_image(error: &Error) -> bool {
    code(error) == Some(47)
}

/// BSONObjectTooLarge, a fragment that is too large, and a buffer that cannot grow on.
fn is_too_large(error: &Error) -> bool {
    matches!(code(error), Some(10334 | 7182500 | 13548))
}
