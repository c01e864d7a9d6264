//! A row of a snapshot as an event: a document that was there, in the form of a change event.
//!
//! `_id` is the token of a high-water mark at the snapshot's time, so that the row has a place in the order of the stream:
//! before all that happened since. Knows nothing of how rows are read.

use bson::{Bson, RawDocument, RawDocumentBuf, doc};
use tailwater_raw::Elements;

use super::scan::EventError;
use crate::source::token::Timestamp64;

/// What the rows of one collection have in common: `_id`, `operationType`, `clusterTime` and `ns`, as raw elements.
#[derive(Clone, Debug)]
pub struct RowHead {
    elements: Box<[u8]>,
}

impl RowHead {
    /// `operationType` of a row.
    pub const OPERATION_TYPE: &str = "snapshot";

    /// For the rows of `db.coll` in the snapshot that began at `time`.
    ///
    /// # Errors
    /// When a name has a zero in it or is longer than a document may be.
    pub fn new(time: Timestamp64, db: &str, coll: &str) -> Result<RowHead, EventError> {
        let head = doc! {
            "_id": { "_data": high_water_mark(time) },
            "operationType": RowHead::OPERATION_TYPE,
            "clusterTime": Bson::Timestamp(time.into()),
            "ns": { "db": db, "coll": coll },
        };
        let head = RawDocumentBuf::try_from(&head).map_err(|error| EventError::Bson(error.to_string()))?;
        // Without the length in front and the zero behind.
        let elements = head.as_bytes().get(4..head.as_bytes().len() - 1).unwrap_or_default();
        Ok(RowHead { elements: elements.into() })
    }

    /// The whole event: the head, then `documentKey` and `fullDocument`.
    pub(super) fn event(&self, document: &RawDocument) -> Result<Box<[u8]>, EventError> {
        let missing = || EventError::Missing { field: "fullDocument._id", present: "a document".to_owned() };
        let id = Elements::of(document).find(b"_id")?.ok_or_else(missing)?.value;
        let key = [&[id.kind()], &b"_id\0"[..], id.bytes(), &[0]];
        let key_len = key.iter().map(|part| part.len()).sum::<usize>() + 4;
        let (key_name, document_name) = (b"\x03documentKey\0", b"\x03fullDocument\0");
        let names = key_name.len() + document_name.len();
        let len = 4 + self.elements.len() + names + key_len + document.as_bytes().len() + 1;
        let mut event = Vec::with_capacity(len);
        event.extend_from_slice(&(len as u32).to_le_bytes());
        event.extend_from_slice(&self.elements);
        event.extend_from_slice(key_name);
        event.extend_from_slice(&(key_len as u32).to_le_bytes());
        key.iter().for_each(|part| event.extend_from_slice(part));
        event.extend_from_slice(document_name);
        event.extend_from_slice(document.as_bytes());
        event.push(0);
        Ok(event.into_boxed_slice())
    }
}

/// `_data` of the token that a server gives out on a quiet stream at `time`; `source/token.rs` has the format.
pub(super) fn high_water_mark(time: Timestamp64) -> String {
    format!("82{:016X}2B0229296E04", time.0)
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, doc};

    use crate::event::fixture::{event, mark_data, token_data};
    use crate::event::{Event, EventId, JsonForm, RowHead};
    use crate::source::place::Place;
    use crate::source::token::Timestamp64;

    fn at(seconds: u32, increment: u32) -> Timestamp64 {
        bson::Timestamp { time: seconds, increment }.into()
    }

    fn row(document: &bson::Document) -> Event {
        let head = RowHead::new(at(100, 7), "shop", "orders").expect("a head");
        Event::from_row(&head, &RawDocumentBuf::try_from(document).expect("can be encoded")).expect("an event")
    }

    #[test]
    fn a_row_reads_like_a_change_event() {
        let row = row(&doc! { "status": "open", "_id": 7, "n": 1.5 });
        let expected = doc! {
            "_id": { "_data": mark_data(100, 7) },
            "operationType": "snapshot",
            "clusterTime": bson::Timestamp { time: 100, increment: 7 },
            "ns": { "db": "shop", "coll": "orders" },
            "documentKey": { "_id": 7 },
            "fullDocument": { "status": "open", "_id": 7, "n": 1.5 },
        };
        assert_eq!(bson::Document::try_from(row.raw()).expect("valid BSON all the way down"), expected);
        assert_eq!((row.operation_type(), row.db(), row.coll()), ("snapshot", "shop", "orders"));
        assert!(row.is_row() && row.full_document().is_some() && !row.token().is_event());
        let json: serde_json::Value = serde_json::from_slice(row.json(JsonForm::Plain).expect("JSON")).expect("JSON");
        assert_eq!((json["id"].as_str(), json.get("_id")), (Some(row.id().as_str()), None));
    }

    /// Whoever stores a row and reads it back has the same event.
    #[test]
    fn a_stored_row_keeps_its_id_and_key() {
        let row = row(&doc! { "_id": "x" });
        let again = Event::from_raw(row.raw()).expect("an event");
        assert_eq!((again.id(), again.key()), (row.id(), row.key()));
        let ns = bson::rawdoc! { "db": "shop", "coll": "orders" };
        assert_eq!(*row.id(), EventId::of_row(at(100, 7), ns.as_bytes(), 2, b"\x02\0\0\0x\0"));
    }

    #[test]
    fn a_row_is_in_line_with_the_changes_of_its_document() {
        let (row, change) = (row(&doc! { "_id": 7 }), event(&token_data(101, 1, 0), Some(7), 0));
        assert_eq!(row.key(), change.key());
        assert_ne!(row.key(), event(&token_data(101, 1, 0), Some(8), 0).key());
        assert!(row.id() < change.id());
        assert!(!Place::After(change.token().clone()).is_behind(&row), "before what happened since");
    }

    #[test]
    fn a_document_without_an_id_is_no_row() {
        let head = RowHead::new(at(100, 7), "shop", "orders").expect("a head");
        let error = Event::from_row(&head, bson::rawdoc! { "a": 1 }.as_ref()).expect_err("no _id").to_string();
        assert!(error.contains("fullDocument._id is missing"), "{error}");
    }
}
