//! An event that the server cannot send: found, replaced by a stub, and left out from then on.
//!
//! The error (10334 and its like) takes the place of a whole reply: neither the good events in it nor the token of the bad one
//! are known. So the stream is read again one event per reply, up to the error; then a cursor that asks for a few small fields
//! only shows the event behind the last good one. Every stream opens at the time of its place, inclusive, and would meet the same
//! event again: as long as its place is at that time, the event is left out by its token.

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

/// The most events of one cluster time that can be left out: each is of more than 16 MiB, in one transaction.
const LEFT_OUT_MAX: usize = 1000;

/// Empty replies in a row after which nothing more is expected.
const IDLE_MAX: u32 = 10;

/// Replies of small events read in search of one; between it and the last good event there is none.
const REPLIES_MAX: usize = 100;

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
            let reason = format!("{LEFT_OUT_MAX} events of the cluster time {time} are larger than 16 MiB; {ADVICE}");
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

/// Finds the event behind `seen` (the last one that could be read; none: the first of all) and makes a stub of it. `None` when there
/// is none: it is no longer what it was, or no longer matches.
pub(super) async fn find(
    options: &StreamOptions,
    start: &Start<'_>,
    left_out: &[Token],
    seen: Option<&Token>,
    error: &Error,
) -> Result<Option<Event>, Broken> {
    let mut found = search(options, start, Shape::Stub, left_out, seen).await;
    if let Err(Broken::Error(error)) = &found
        && is_too_large(error)
    {
        // A `match` or a stage of the operator needs the event as one document, so the server cannot tell whether it matches.
        debug!("the event is too large for a stage, the first one in scope behind the last good one is taken for it");
        found = search(options, start, Shape::StubOfAny, left_out, seen).await;
    }
    let Some(stub) = found? else { return Ok(None) };
    let why = match (options.splits, code(error)) {
        (true, _) => "one of its fields is larger than the 16 MiB that MongoDB can send",
        (false, _) => {
            "it is larger than the 16 MiB that MongoDB can send, and this server does not split events (6.0.9 and later do)"
        }
    };
    let code = code(error).unwrap_or_default();
    match Event::from_poison(&stub, format!("the event cannot be read: {why} (code {code}); {ADVICE}")) {
        Ok(event) => Ok(Some(event)),
        Err(error) => {
            warn!("an event that is too large cannot be placed: {error}");
            Ok(None)
        }
    }
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
    let token = event.get_document("_id").ok().and_then(|token| Token::from_document(token).ok());
    token.is_some_and(|token| seen.is_none_or(|seen| token.is_after(seen)))
}

/// BSONObjectTooLarge, a fragment that is too large, and a buffer that cannot grow on.
pub(super) fn is_too_large(error: &Error) -> bool {
    matches!(code(error), Some(10334 | 7182500 | 13548))
}
