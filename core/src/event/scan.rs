//! The one pass over an event's top-level fields: where they are, the token, the key. Nothing below them is read, except
//! `ns` and `documentKey._id`.

use std::num::NonZeroU64;

use bson::RawDocument;
use tailwater_raw::{Damaged, Element, Elements, kind};

use super::key;
use crate::source::token::{Token, TokenError};

/// Where the top-level fields stand in the raw document.
#[derive(Default)]
pub(super) struct Fields {
    pub operation_type: Span,
    pub ns: Span,
    pub db: Span,
    pub coll: Span,
    pub document_key: Span,
    pub full_document: Span,
    pub full_document_before_change: Span,
    pub update_description: Span,
    pub wall_time_ms: Option<i64>,
    pub in_transaction: bool,
}

/// Bytes of a value, counted from the start of the event. Empty when the field is absent (or null).
#[derive(Copy, Clone, Default)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

/// Why a document is not a change event. A retry does not help.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EventError {
    /// A field without which nothing can be delivered is missing.
    #[error("read change event: the field {field} is missing; there are {present}")]
    Missing {
        /// The field.
        field: &'static str,
        /// The names of the fields that there are.
        present: String,
    },
    /// A field has another type than the server gives it.
    #[error("read change event: the field {field} is not {wanted}; there are {present}")]
    Type {
        /// The field.
        field: &'static str,
        /// The type it should have.
        wanted: &'static str,
        /// The names of the fields that there are.
        present: String,
    },
    /// `_id` is no resume token.
    #[error("read change event: {0}")]
    Token(#[from] TokenError),
    /// A fragment of a split event: the fragments have to be merged first.
    #[error("read change event: it is a fragment of a split event")]
    Fragment,
    /// The document is damaged.
    #[error("read change event: not valid BSON: {0}")]
    Bson(String),
}

/// The one pass over the top-level fields.
pub(super) struct Scan {
    pub token: Token,
    pub fields: Fields,
    pub key: Option<NonZeroU64>,
}

impl Scan {
    pub fn run(doc: &RawDocument) -> Result<Scan, EventError> {
        let mut fields = Fields::default();
        let (mut token, mut names, mut id, mut lsid, mut txn) = (None, Names::default(), None, false, false);
        let wrong = |field, wanted| EventError::Type { field, wanted, present: present(doc) };
        for element in Elements::of(doc) {
            let element = element?;
            let span = Span::of(&element);
            let document = |field| match element.value.kind() {
                kind::DOCUMENT => Ok(span),
                kind::NULL => Ok(Span::default()),
                _ => Err(wrong(field, "a document")),
            };
            match element.name {
                b"_id" => {
                    let document = element.value.document().ok_or_else(|| wrong("_id", "a document"))?;
                    token = Some(Token::from_document(document)?);
                }
                b"operationType" => {
                    if element.value.kind() != kind::STRING {
                        return Err(wrong("operationType", "a string"));
                    }
                    utf8(element.value.text())?;
                    fields.operation_type = span;
                }
                b"ns" => {
                    fields.ns = document("ns")?;
                    names = Names::read(&element, &mut fields)?;
                }
                b"documentKey" => {
                    fields.document_key = document("documentKey")?;
                    id = match element.value.kind() {
                        kind::DOCUMENT => element.value.elements().find(b"_id")?,
                        _ => None,
                    };
                }
                // These are the operator's to change in `source.pipeline`; what is no document any more is not offered as one.
                b"fullDocument" => fields.full_document = span.if_document(&element),
                b"fullDocumentBeforeChange" => fields.full_document_before_change = span.if_document(&element),
                b"updateDescription" => fields.update_description = span.if_document(&element),
                b"wallTime" if element.value.kind() == kind::DATE => fields.wall_time_ms = Some(element.value.int64()),
                b"splitEvent" => return Err(EventError::Fragment),
                b"lsid" => lsid = true,
                b"txnNumber" => txn = true,
                _ => {}
            }
        }
        fields.in_transaction = lsid && txn;
        let token = token.ok_or_else(|| EventError::Missing { field: "_id", present: present(doc) })?;
        if fields.operation_type.end == 0 {
            return Err(EventError::Missing { field: "operationType", present: present(doc) });
        }
        let key = id.and_then(|id| key::of(names.db, names.coll, id.value));
        Ok(Scan { token, fields, key })
    }
}

impl Span {
    /// Empty where the element is anything else.
    fn if_document(self, element: &Element<'_>) -> Span {
        if element.value.kind() == kind::DOCUMENT { self } else { Span::default() }
    }

    fn of(element: &Element<'_>) -> Span {
        Span { start: element.start as u32, end: (element.start + element.value.bytes().len()) as u32 }
    }
}

/// The texts of `ns`, empty where there is none.
#[derive(Default)]
struct Names<'a> {
    db: &'a [u8],
    coll: &'a [u8],
}

impl<'a> Names<'a> {
    /// Reads them and notes where they are.
    fn read(ns: &Element<'a>, fields: &mut Fields) -> Result<Names<'a>, EventError> {
        let mut names = Names::default();
        if ns.value.kind() != kind::DOCUMENT {
            return Ok(names);
        }
        for element in ns.value.elements() {
            let element = element?;
            if element.value.kind() != kind::STRING {
                continue;
            }
            let here = Span::of(&element);
            let span = Span { start: here.start + ns.start as u32, end: here.end + ns.start as u32 };
            match element.name {
                b"db" => (fields.db, names.db) = (span, utf8(element.value.text())?),
                b"coll" => (fields.coll, names.coll) = (span, utf8(element.value.text())?),
                _ => {}
            }
        }
        Ok(names)
    }
}

/// The text as it is. Names are ASCII nearly always, and finding that out is cheaper.
fn utf8(text: &[u8]) -> Result<&[u8], EventError> {
    if text.is_ascii() || std::str::from_utf8(text).is_ok() { Ok(text) } else { Err(Damaged::Text.into()) }
}

impl From<Damaged> for EventError {
    fn from(damaged: Damaged) -> EventError {
        EventError::Bson(damaged.to_string())
    }
}

/// The names of the top-level fields, for an error. Values stay out of it: they may be anyone's secrets.
fn present(doc: &RawDocument) -> String {
    let names: Vec<_> = doc.iter_elements().map_while(Result::ok).map(|e| e.key().as_str().to_owned()).collect();
    if names.is_empty() { "no fields".into() } else { names.join(", ") }
}
