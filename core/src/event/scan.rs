//! The one pass over an event's top-level fields: where they are, the token, the key. Nothing below them is read, except
//! `ns` and `documentKey._id`.

use std::num::NonZeroU64;

use bson::{RawBsonRef, RawDocument};

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
        let (mut token, mut ns, mut document_key, mut lsid, mut txn) = (None, None, None, false, false);
        let wrong = |field, wanted| EventError::Type { field, wanted, present: present(doc) };
        let mut end = 4;
        for element in doc.iter_elements() {
            let element = element.map_err(damaged)?;
            let name = element.key().as_str();
            let start = end + 1 + name.len() + 1;
            end = start + element.size();
            let span = Span { start: start as u32, end: end as u32 };
            let mut document = |slot: fn(&mut Fields) -> &mut Span, field| match element.value().map_err(damaged)? {
                RawBsonRef::Document(document) => {
                    *slot(&mut fields) = span;
                    Ok(Some(document))
                }
                RawBsonRef::Null => Ok(None),
                _ => Err(wrong(field, "a document")),
            };
            match name {
                "_id" => {
                    let RawBsonRef::Document(id) = element.value().map_err(damaged)? else {
                        return Err(wrong("_id", "a document"));
                    };
                    token = Some(Token::from_document(id)?);
                }
                "operationType" => {
                    let RawBsonRef::String(_) = element.value().map_err(damaged)? else {
                        return Err(wrong("operationType", "a string"));
                    };
                    fields.operation_type = span;
                }
                "ns" => ns = document(|fields| &mut fields.ns, "ns")?.map(|ns| (start, ns)),
                "documentKey" => document_key = document(|fields| &mut fields.document_key, "documentKey")?,
                "fullDocument" => _ = document(|fields| &mut fields.full_document, "fullDocument")?,
                "fullDocumentBeforeChange" => {
                    document(|fields| &mut fields.full_document_before_change, "fullDocumentBeforeChange")?;
                }
                "updateDescription" => _ = document(|fields| &mut fields.update_description, "updateDescription")?,
                "wallTime" => {
                    if let RawBsonRef::DateTime(time) = element.value().map_err(damaged)? {
                        fields.wall_time_ms = Some(time.timestamp_millis());
                    }
                }
                "lsid" => lsid = true,
                "txnNumber" => txn = true,
                _ => {}
            }
        }
        fields.in_transaction = lsid && txn;
        let token = token.ok_or_else(|| EventError::Missing { field: "_id", present: present(doc) })?;
        if fields.operation_type.end == 0 {
            return Err(EventError::Missing { field: "operationType", present: present(doc) });
        }
        let (db, coll) = match ns {
            Some((start, ns)) => namespace(start, ns, &mut fields)?,
            None => ("", ""),
        };
        let id = match document_key {
            Some(key) => key.iter_elements().find(|e| e.as_ref().map_or(true, |e| e.key().as_str() == "_id")),
            None => None,
        };
        let key = id.transpose().map_err(damaged)?.and_then(|id| key::of(db, coll, &id));
        Ok(Scan { token, fields, key })
    }
}

/// Notes where `ns.db` and `ns.coll` are.
fn namespace<'a>(ns_start: usize, ns: &'a RawDocument, fields: &mut Fields) -> Result<(&'a str, &'a str), EventError> {
    let mut end = ns_start + 4;
    let (mut db, mut coll) = ("", "");
    for element in ns.iter_elements() {
        let element = element.map_err(damaged)?;
        let start = end + 1 + element.key().as_str().len() + 1;
        end = start + element.size();
        let span = Span { start: start as u32, end: end as u32 };
        match (element.key().as_str(), element.value().map_err(damaged)?) {
            ("db", RawBsonRef::String(text)) => (fields.db, db) = (span, text),
            ("coll", RawBsonRef::String(text)) => (fields.coll, coll) = (span, text),
            _ => {}
        }
    }
    Ok((db, coll))
}

fn damaged(error: bson::error::Error) -> EventError {
    EventError::Bson(error.to_string())
}

/// The names of the top-level fields, for an error. Values stay out of it: they may be anyone's secrets.
fn present(doc: &RawDocument) -> String {
    let names: Vec<_> = doc.iter_elements().map_while(Result::ok).map(|e| e.key().as_str().to_owned()).collect();
    if names.is_empty() { "no fields".into() } else { names.join(", ") }
}
