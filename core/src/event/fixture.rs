//! Events for unit tests, made with tokens as mongod 6.0.5 writes them (source/testdata).

use std::sync::Arc;

use bson::{Document, RawDocumentBuf, doc};

use crate::event::Event;
use crate::source::token::Token;

/// `_data` of an insert at operation `txn_op_index` (under 64) of the transaction at (`seconds`, `increment`).
pub(crate) fn token_data(seconds: u32, increment: u32, txn_op_index: u8) -> String {
    assert!(txn_op_index < 64, "one byte integers only");
    // KeyString writes 0 as a type of its own and a small integer doubled.
    let index = if txn_op_index == 0 { "29".to_owned() } else { format!("2B{:02X}", txn_op_index * 2) };
    format!("82{seconds:08X}{increment:08X}2B022C0100{index}6E5A1004A2C3B4D4F87B4C009033EFFD5EB1E70604")
}

/// `_data` of a high-water mark.
pub(crate) fn mark_data(seconds: u32, increment: u32) -> String {
    format!("82{seconds:08X}{increment:08X}2B0229296E04")
}

/// The token of `data`.
pub(crate) fn token(data: &str) -> Token {
    let document = RawDocumentBuf::try_from(&doc! { "_data": data }).expect("can be encoded");
    Token::from_document(&document).expect("a token as mongod writes it")
}

/// An insert of a document `id` with `padding` bytes of payload, or a drop where there is no id.
pub(crate) fn event(data: &str, id: Option<i32>, padding: usize) -> Arc<Event> {
    event_in("orders", data, id, padding)
}

/// The same in another collection.
pub(crate) fn event_in(collection: &str, data: &str, id: Option<i32>, padding: usize) -> Arc<Event> {
    let mut document: Document = doc! {
        "_id": { "_data": data },
        "operationType": if id.is_some() { "insert" } else { "drop" },
        "ns": { "db": "shop", "coll": collection },
    };
    if let Some(id) = id {
        document.insert("documentKey", doc! { "_id": id });
        document.insert("fullDocument", doc! { "_id": id, "padding": "x".repeat(padding) });
    }
    let raw = RawDocumentBuf::try_from(&document).expect("can be encoded");
    Arc::new(Event::from_raw(&raw).expect("an event"))
}
