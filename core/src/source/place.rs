//! A place in the stream of events: where reading starts or has come to. Pure; knows nothing of cursors or stores.
//!
//! Every stream opens by the time of its place (`startAtOperationTime`, inclusive) and drops what [`Place::is_behind`]
//! says is not new. What cannot be placed exactly counts as still to come: delivered again, never skipped.

use std::cmp::Ordering;
use std::fmt;

use bson::{Bson, Document, RawDocumentBuf, doc};

use crate::event::{Event, EventId};
use crate::source::token::{Position, Timestamp64, Token, TokenError};

/// Where reading starts or has come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// Everything from this time on is still to come, inclusive.
    From(Timestamp64),
    /// The event of this token and all before it are behind. Also a high-water mark without an event.
    After(Token),
    /// The event with this id and all before its position are behind.
    AfterId(EventId),
}

/// Why a stored place could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Neither of the known kinds, or a field is missing.
    #[error("not a stored place: {0}")]
    Unknown(String),
    /// The stored token is damaged.
    #[error("stored resume token: {0}")]
    Token(#[from] TokenError),
}

impl Place {
    /// The time to open a stream at.
    pub fn time(&self) -> Timestamp64 {
        match self {
            Place::From(time) => *time,
            Place::After(token) => token.position().time,
            Place::AfterId(id) => id.position().time,
        }
    }

    /// True when the event is still to come for a reader at this place.
    pub fn is_behind(&self, event: &Event) -> bool {
        match self {
            Place::From(time) => event.token().position().time >= *time,
            Place::After(place) => event.token().is_after(place),
            Place::AfterId(place) => match event.token().position().cmp(&place.position()) {
                Ordering::Less => false,
                Ordering::Equal => event.id() != place,
                Ordering::Greater => true,
            },
        }
    }

    /// True when everything still to come for a reader here is also still to come for one at `earlier`: a buffer that holds
    /// all events since `earlier` serves this reader. False where that cannot be known.
    pub fn is_covered_since(&self, earlier: &Place) -> bool {
        match (self, earlier) {
            (here, Place::From(time)) => here.time() >= *time,
            (Place::From(time), there) => *time > there.time(),
            (Place::After(here), Place::After(there)) => {
                here.position() > there.position() || (here.format() == there.format() && !there.is_after(here))
            }
            (Place::After(here), Place::AfterId(there)) => here.position() > there.position(),
            (Place::AfterId(here), there) => here.position() > there.position(),
        }
    }

    /// The position, with the lowest operation index where only a time is known.
    fn position(&self) -> Position {
        match self {
            Place::From(time) => Position { time: *time, txn_op_index: 0 },
            Place::After(token) => token.position(),
            Place::AfterId(id) => id.position(),
        }
    }

    /// The form in which a place is stored: `{from: Timestamp}`, `{after: <token document>}` or `{afterId: "…"}`.
    pub fn to_document(&self) -> Document {
        match self {
            Place::From(time) => doc! { "from": Bson::Timestamp((*time).into()) },
            Place::After(token) => match Document::try_from(token.document()) {
                Ok(token) => doc! { "after": token },
                // A token document was valid BSON when it was decoded; its time alone is still a safe place.
                Err(_) => doc! { "from": Bson::Timestamp(token.position().time.into()) },
            },
            Place::AfterId(id) => doc! { "afterId": id.as_str() },
        }
    }

    /// Reads what [`Place::to_document`] wrote.
    ///
    /// # Errors
    /// When the document is of another form or its token is damaged. A retry does not help.
    pub fn from_document(stored: &Document) -> Result<Place, PlaceError> {
        if let Ok(token) = stored.get_document("after") {
            let raw = RawDocumentBuf::try_from(token).map_err(|e| PlaceError::Unknown(e.to_string()))?;
            return Ok(Place::After(Token::from_document(&raw)?));
        }
        if let Ok(time) = stored.get_timestamp("from") {
            return Ok(Place::From(time.into()));
        }
        if let Ok(id) = stored.get_str("afterId") {
            let id = id.parse::<EventId>().map_err(|e| PlaceError::Unknown(e.to_string()))?;
            return Ok(Place::AfterId(id));
        }
        let keys: Vec<_> = stored.keys().map(String::as_str).collect();
        Err(PlaceError::Unknown(format!("expected one of from, after, afterId, found [{}]", keys.join(", "))))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time: bson::Timestamp = self.time().into();
        match self {
            Place::From(_) => write!(f, "from ({}, {})", time.time, time.increment),
            Place::After(token) => {
                write!(f, "after ({}, {}) operation {}", time.time, time.increment, token.position().txn_op_index)
            }
            Place::AfterId(id) => write!(f, "after event {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fixture::{event, mark_data, token, token_data};

    fn at(seconds: u32, increment: u32) -> Timestamp64 {
        bson::Timestamp { time: seconds, increment }.into()
    }

    /// One place of each kind around the second 100.
    fn places() -> Vec<Place> {
        let event = event(&token_data(100, 1, 2), Some(1), 0);
        vec![
            Place::From(at(100, 0)),
            Place::From(at(100, 1)),
            Place::After(token(&mark_data(100, 1))),
            Place::After(token(&token_data(100, 1, 0))),
            Place::AfterId(*event.id()),
            Place::After(event.token().clone()),
            Place::AfterId(EventId::at(at(100, 2))),
            Place::From(at(100, 2)),
            Place::After(token(&token_data(101, 1, 0))),
        ]
    }

    #[test]
    fn what_is_still_to_come() {
        let all: Vec<_> = [(99, 9, 0), (100, 1, 0), (100, 1, 2), (100, 1, 3), (100, 2, 0), (101, 1, 0), (101, 1, 1)]
            .map(|(seconds, increment, index)| event(&token_data(seconds, increment, index), Some(1), 0))
            .into();
        // How many of those are behind each place: all but the first, … ; (100, 1, 2) is the event of the id.
        let expected = [6, 6, 6, 5, 4, 4, 3, 3, 1];
        for (place, expected) in places().iter().zip(expected) {
            let to_come = all.iter().filter(|event| place.is_behind(event)).count();
            assert_eq!(to_come, expected, "{place}");
        }
    }

    #[test]
    fn another_event_at_the_position_of_an_id_is_still_to_come() {
        let (seen, other) = (event(&token_data(100, 1, 2), Some(1), 0), event(&token_data(100, 1, 2), Some(2), 0));
        let place = Place::AfterId(*seen.id());
        assert!(!place.is_behind(&seen) && place.is_behind(&other));
    }

    #[test]
    fn covered_means_that_nothing_is_missed() {
        let mut events = Vec::new();
        for (seconds, increment) in [(99, 1), (100, 0), (100, 1), (100, 2), (101, 1), (102, 1)] {
            for index in 0..4 {
                events.push(event(&token_data(seconds, increment, index), Some(1), 0));
                events.push(event(&token_data(seconds, increment, index), Some(2), 0));
            }
        }
        for here in places() {
            for earlier in places() {
                if here.is_covered_since(&earlier) {
                    let missed = events.iter().find(|event| here.is_behind(event) && !earlier.is_behind(event));
                    assert!(missed.is_none(), "{here} covered since {earlier}, but not {missed:?}");
                }
            }
            assert!(here.is_covered_since(&here) || matches!(here, Place::AfterId(_)), "{here}");
        }
    }

    #[test]
    fn a_stored_place_is_read_back() {
        for place in places() {
            assert_eq!(Place::from_document(&place.to_document()).expect("readable"), place);
        }
        let error = Place::from_document(&doc! { "unto": 1, "x": 2 }).expect_err("not a place").to_string();
        assert_eq!(error, "not a stored place: expected one of from, after, afterId, found [unto, x]");
    }
}
