//! A gap: an event that stands for a stretch of history that MongoDB no longer has.
//!
//! It has the form of a change event without `ns` and `documentKey`, so that it is a barrier in every order, and `from` and `to`: what
//! happened between these two cluster times is lost, `to` itself is not.

use bson::{Bson, RawDocumentBuf, doc};

use super::row::high_water_mark;
use super::{Event, EventError};
use crate::source::token::Timestamp64;

/// `operationType` of a gap.
pub const OPERATION_TYPE: &str = "gap";

/// The event for what was lost behind `from` and before `to`.
///
/// # Errors
/// Never: the error is that of every event.
pub fn event(from: Timestamp64, to: Timestamp64) -> Result<Event, EventError> {
    let gap = doc! {
        "_id": { "_data": high_water_mark(to) },
        "operationType": OPERATION_TYPE,
        "clusterTime": Bson::Timestamp(to.into()),
        "from": Bson::Timestamp(from.into()),
        "to": Bson::Timestamp(to.into()),
    };
    let gap = RawDocumentBuf::try_from(&gap).map_err(|error| EventError::Bson(error.to_string()))?;
    Event::from_raw(&gap)
}

/// Whether the event is one.
pub fn is_gap(event: &Event) -> bool {
    event.operation_type() == OPERATION_TYPE && !event.token().is_event()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::JsonForm;
    use crate::event::fixture::{event as change, token_data};
    use crate::source::place::Place;

    #[test]
    fn a_gap_is_a_barrier_before_everything_that_is_still_there() {
        let at = |seconds: u64| Timestamp64(seconds << 32 | 1);
        let gap = event(at(100), at(200)).expect("an event");
        assert!(gap.key().is_none() && !gap.id().is_position());
        let place = Place::After(gap.token().clone());
        assert!(place.is_behind(&change(&token_data(200, 1, 0), Some(1), 0)), "the event at `to` is still to come");
        let told: serde_json::Value = serde_json::from_slice(gap.json(JsonForm::Relaxed).expect("JSON")).expect("JSON");
        let expected = json!({
            "id": gap.id().as_str(),
            "operationType": "gap",
            "clusterTime": { "$timestamp": { "t": 200, "i": 1 } },
            "from": { "$timestamp": { "t": 100, "i": 1 } },
            "to": { "$timestamp": { "t": 200, "i": 1 } },
        });
        assert_eq!(told, expected);
    }
}
