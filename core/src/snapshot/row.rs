//! One row of a snapshot: the event, and the `_id` by which a start after a crash finds the place again.

use std::fmt;
use std::sync::Arc;

use bson::RawDocument;
use tailwater_raw::{Elements, kind};

use crate::event::Event;
use crate::snapshot::range::RangeNumber;

/// A document that was found.
#[derive(Clone, Debug)]
pub struct Row {
    /// The event that it is delivered as.
    pub event: Arc<Event>,
    /// The range in which it was found; rows of one range come in the order of `_id`.
    pub range: RangeNumber,
}

impl Row {
    /// Its `_id`.
    pub fn id(&self) -> RowId {
        // The key of a row has no other field, and there is no row without one.
        RowId(self.event.document_key().map_or_else(Box::default, |key| key.as_bytes().into()))
    }
}

/// The `_id` of a document in the bytes that the server sent: a BSON document with that one field.
#[derive(Clone, PartialEq, Eq)]
pub struct RowId(Box<[u8]>);

impl RowId {
    /// Of any document that has an `_id`.
    pub fn of(document: &RawDocument) -> Option<RowId> {
        let id = Elements::of(document).find(b"_id").ok()??.value;
        let len = 4 + 5 + id.bytes().len() + 1;
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&(len as u32).to_le_bytes());
        bytes.push(id.kind());
        bytes.extend_from_slice(b"_id\0");
        bytes.extend_from_slice(id.bytes());
        bytes.push(0);
        Some(RowId(bytes.into_boxed_slice()))
    }

    /// `{_id: …}`, or nothing where it is damaged.
    pub fn document(&self) -> Option<&RawDocument> {
        RawDocument::from_bytes(&*self.0).ok()
    }

    /// The same as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Memory and storage in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Whether it is the MaxKey, above which nothing sorts.
    pub fn is_max_key(&self) -> bool {
        self.0.get(4) == Some(&kind::MAX_KEY)
    }
}

impl fmt::Debug for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use bson::{RawBson, rawdoc};

    use super::*;

    #[test]
    fn an_id_is_the_one_field_in_the_servers_bytes() {
        let id = RowId::of(rawdoc! { "a": 1, "_id": { "x": 1i64 }, "b": 2 }.as_ref()).expect("an id");
        assert_eq!(id.document(), Some(rawdoc! { "_id": { "x": 1i64 } }.as_ref()));
        assert!(RowId::of(rawdoc! { "a": { "_id": 1 } }.as_ref()).is_none());
        assert!(RowId::of(rawdoc! { "_id": RawBson::MaxKey }.as_ref()).is_some_and(|id| id.is_max_key()));
        assert!(!id.is_max_key());
    }
}
