//! From the server's replies to events, and how far reading has come with them. Pure: no IO, no clock.

use std::sync::Arc;

use bson::{RawBsonRef, RawDocument, RawDocumentBuf, cstr};

use super::fragments::{Fragments, Taken};
use super::options::STUB_FIELDS;
use crate::event::{Event, EventError};
use crate::source::error::SourceError;
use crate::source::place::Place;
use crate::source::token::Token;

/// Reads the replies of one stream, over all the cursors it has.
pub(super) struct Decoder {
    /// How far the stream was read.
    place: Place,
    /// The stream ended with this token; it goes on behind it.
    invalidated: Option<Token>,
    /// No event of this cursor was new yet.
    skipping: bool,
    /// The last whole event of this cursor, new or not.
    seen: Option<Token>,
    fragments: Fragments,
    /// How many there were in the last reply, fragments and events that are not new included.
    documents: usize,
}

impl Decoder {
    pub fn new(place: Place) -> Decoder {
        Decoder { place, invalidated: None, skipping: true, seen: None, fragments: Fragments::new(), documents: 0 }
    }

    /// How far the stream was read.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Behind this invalidate the stream goes on.
    pub fn invalidated(&self) -> Option<&Token> {
        self.invalidated.as_ref()
    }

    /// The last whole event of this cursor, new or not.
    pub fn seen(&self) -> Option<&Token> {
        self.seen.as_ref()
    }

    /// How many documents the last reply had.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// The next reply is a new cursor's first one.
    pub fn begin_cursor(&mut self) {
        (self.skipping, self.seen) = (true, None);
        self.fragments.clear();
    }

    /// By time from now on: what came before an invalidate counts no more.
    pub fn forget_invalidate(&mut self) {
        self.invalidated = None;
    }

    /// What is not behind `place` is dropped from now on.
    pub fn continue_from(&mut self, place: Place) {
        self.place = place;
        self.skipping = true;
    }

    /// An event that no reply can bring, unless the reader has come past it already.
    pub fn pass(&mut self, event: Event) -> Option<Event> {
        let new = self.place.is_behind(&event);
        if new {
            self.place = Place::After(event.token().clone());
        }
        new.then_some(event)
    }

    /// The events of one reply that are new, in order.
    ///
    /// # Errors
    /// [`SourceError::Undecodable`] when not even the position of what was sent can be read.
    pub fn decode(&mut self, reply: &RawDocument) -> Result<Vec<Arc<Event>>, SourceError> {
        let undecodable = |place: &Place, reason: String| SourceError::Undecodable { place: place.to_string(), reason };
        let cursor = reply.get_document("cursor").map_err(|e| undecodable(&self.place, e.to_string()))?;
        let batch = cursor.get_array("nextBatch").or_else(|_| cursor.get_array("firstBatch"));
        let mut events = Vec::new();
        self.documents = 0;
        for element in batch.map_err(|e| undecodable(&self.place, e.to_string()))? {
            let element = element.map_err(|e| undecodable(&self.place, e.to_string()))?;
            let Some(raw) = element.as_document() else {
                return Err(undecodable(&self.place, format!("not a document but {:?}", element.element_type())));
            };
            self.documents += 1;
            let event = self.event(raw).map_err(|reason| undecodable(&self.place, reason))?;
            events.extend(event.and_then(|event| self.take(event)).map(Arc::new));
        }
        if let (Ok(token), false) = (cursor.get_document("postBatchResumeToken"), self.fragments.is_amid())
            && let Ok(token) = Token::from_document(token)
        {
            self.reached(token);
        }
        Ok(events)
    }

    /// One document of a reply; nothing while fragments are to follow.
    fn event(&mut self, raw: &RawDocument) -> Result<Option<Event>, String> {
        match Event::from_raw(raw) {
            Ok(event) => Ok(Some(event)),
            Err(EventError::Fragment) => match self.fragments.take(raw)? {
                Taken::More => Ok(None),
                Taken::Whole(whole) => match Event::from_raw(&whole) {
                    Ok(event) => Ok(Some(event)),
                    Err(error) => stub_of(&whole, &error.to_string()).map(Some),
                },
                Taken::TooLarge(stub, bytes) => {
                    let reason = format!("the event has {bytes} bytes, more than are put together");
                    Event::from_poison(&stub, reason).map(Some).map_err(|e| e.to_string())
                }
            },
            Err(error) => stub_of(raw, &error.to_string()).map(Some),
        }
    }

    /// Notes the event; gives it back if it is new and to be delivered.
    fn take(&mut self, event: Event) -> Option<Event> {
        let invalidate = event.operation_type() == "invalidate";
        if invalidate {
            // Also one that was seen before: opened by time, the stream ends here again.
            self.invalidated = Some(event.token().clone());
        }
        self.seen = Some(event.token().clone());
        if self.skipping && !self.place.is_behind(&event) {
            return None;
        }
        self.skipping = false;
        self.place = Place::After(event.token().clone());
        if invalidate {
            return None;
        }
        self.invalidated = None;
        Some(event)
    }

    /// The server has looked at everything up to here.
    fn reached(&mut self, token: Token) {
        // Also where the operator's stages hide the event itself: the stream ends behind it all the same.
        let invalidate = token.from_invalidate().then(|| token.clone());
        let reached = Place::After(token);
        if reached.is_covered_since(&self.place) {
            // Past an invalidate its token has done its work; kept, it would one day be older than the oplog.
            self.invalidated = invalidate;
            self.place = reached;
        }
    }
}

/// What can be read of an event that is none, as one that can be placed and put aside.
fn stub_of(raw: &RawDocument, why: &str) -> Result<Event, String> {
    let token = raw.get_document("_id").map_err(|_| why.to_owned())?;
    let reason = format!("the event cannot be decoded: {why}");
    let mut stub = RawDocumentBuf::new();
    stub.append(cstr!("_id"), token);
    let mut least = stub.clone();
    least.append(cstr!("operationType"), "unknown");
    if raw.get_str("operationType").is_err() {
        stub.append(cstr!("operationType"), "unknown");
    }
    for field in raw.iter_elements().map_while(Result::ok).filter(|field| STUB_FIELDS.contains(&field.key().as_str())) {
        match field.value() {
            Ok(RawBsonRef::String(_)) if field.key().as_str() != "operationType" => {}
            Ok(
                value @ (RawBsonRef::String(_)
                | RawBsonRef::Document(_)
                | RawBsonRef::Timestamp(_)
                | RawBsonRef::DateTime(_)),
            ) => {
                stub.append(field.key(), value);
            }
            _ => {}
        }
    }
    // Whatever of it is damaged as well: the token is enough to go on behind it.
    let event = Event::from_poison(&stub, reason.clone()).or_else(|_| Event::from_poison(&least, reason));
    event.map_err(|_| why.to_owned())
}

#[cfg(test)]
mod tests;
