//! A place in the stream of events: where reading starts or has come to. Pure; knows nothing of cursors or stores.
//!
//! Every stream opens by the time of its place (`startAtOperationTime`, inclusive) and drops what [`Place::is_behind`]
//! says is not new. What cannot be placed exactly counts as still to come: delivered again, never skipped.

use std::fmt;

use bson::{Bson, Document, RawDocumentBuf, doc};

use crate::event::EventId;
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

    /// True when an event, given by token and id, is still to come for a reader at this place.
    pub fn is_behind(&self, token: &Token, id: &EventId) -> bool {
        match self {
            Place::From(time) => token.position().time >= *time,
            Place::After(place) => token.is_after(place),
            Place::AfterId(place) => match token.position().cmp(&id_position(place)) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Equal => id != place,
                std::cmp::Ordering::Greater => true,
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
            (Place::After(here), Place::AfterId(there)) => here.position() > id_position(there),
            (Place::AfterId(here), there) => id_position(here) > there.position(),
        }
    }

    /// The position, with the lowest operation index where only a time is known.
    fn position(&self) -> Position {
        match self {
            Place::From(time) => Position { time: *time, txn_op_index: 0 },
            Place::After(token) => token.position(),
            Place::AfterId(id) => id_position(id),
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

fn id_position(id: &EventId) -> Position {
    id.position()
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
