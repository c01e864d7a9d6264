//! Replies made by hand, with tokens as mongod writes them.

use bson::{Bson, Document, RawDocumentBuf, doc};

use super::*;
use crate::event::fixture::{mark_data, token, token_data};
use crate::source::token::Timestamp64;

fn insert(data: &str, id: i32) -> Document {
    doc! {
        "_id": { "_data": data }, "operationType": "insert", "ns": { "db": "shop", "coll": "orders" },
        "documentKey": { "_id": id }, "fullDocument": { "_id": id },
    }
}

fn reply(events: &[Document], reached: &str) -> RawDocumentBuf {
    let batch: Vec<Bson> = events.iter().cloned().map(Bson::from).collect();
    let cursor = doc! { "nextBatch": batch, "postBatchResumeToken": { "_data": reached }, "id": 7_i64 };
    RawDocumentBuf::try_from(&doc! { "cursor": cursor, "ok": 1.0 }).expect("can be encoded")
}

fn at(seconds: u32) -> Place {
    Place::From(Timestamp64(u64::from(seconds) << 32))
}

fn times(events: &[Arc<Event>]) -> Vec<u32> {
    events.iter().map(|event| event.token().position().time.seconds()).collect()
}

#[test]
fn what_is_not_new_is_dropped_until_something_is() {
    let mut decoder = Decoder::new(at(5));
    let events: Vec<Document> = [3, 4, 5, 6].map(|time| insert(&token_data(time, 1, 0), 1)).into();
    let found = decoder.decode(&reply(&events, &mark_data(7, 1))).expect("decoded");
    assert_eq!((times(&found), decoder.documents()), (vec![5, 6], 4));
    assert_eq!(decoder.place(), &Place::After(token(&mark_data(7, 1))));

    // The next cursor shows the same again, and one more.
    decoder.begin_cursor();
    let events = [6, 8].map(|time| insert(&token_data(time, 1, 0), 1));
    assert_eq!(times(&decoder.decode(&reply(&events, &token_data(8, 1, 0))).expect("decoded")), [8]);
}

#[test]
fn a_stream_that_takes_over_drops_what_the_other_one_has_delivered() {
    let mut decoder = Decoder::new(at(1));
    decoder.continue_from(Place::After(token(&token_data(4, 1, 1))));
    let events = [(2, 0), (4, 0), (4, 1), (4, 2), (5, 0)].map(|(time, index)| insert(&token_data(time, 1, index), 1));
    let found = decoder.decode(&reply(&events[..2], &token_data(4, 1, 0))).expect("decoded");
    assert!(found.is_empty());
    assert_eq!(decoder.place(), &Place::After(token(&token_data(4, 1, 1))), "progress of before does not lead back");
    let found = decoder.decode(&reply(&events[2..], &token_data(5, 1, 0))).expect("decoded");
    assert_eq!(times(&found), [4, 5]);
}

/// As mongod 6.0.27 writes the token of an event of format 2, and of a fragment of it (0 to 2).
fn split_token(seconds: u32, fragment: Option<u8>) -> String {
    let fragment = match fragment {
        None => String::new(),
        Some(0) => "29".to_owned(),
        Some(number) => format!("2B{:02X}", number * 2),
    };
    let uuid = "5A1004CD187988908645D89A53A24E0FC99B75";
    let key = "463C6F7065726174696F6E54797065003C757064617465003C646F63756D656E744B657900461E5F6964002B040000";
    format!("82{seconds:08X}000000012B042C0100296E{uuid}{key}{fragment}04")
}

fn fragment(number: i32, of: i32, fields: &Document) -> Document {
    let data = split_token(3, Some(number as u8 - 1));
    let mut fragment = doc! { "_id": { "_data": data }, "splitEvent": { "fragment": number, "of": of } };
    fragment.extend(fields.clone());
    fragment
}

#[test]
fn fragments_are_one_event_also_over_replies_and_only_the_last_token_counts() {
    let parts = [
        fragment(
            1,
            3,
            &doc! { "operationType": "update", "ns": { "db": "shop", "coll": "docs" }, "documentKey": { "_id": 2 } },
        ),
        fragment(2, 3, &doc! { "fullDocument": { "v": 1 } }),
        fragment(3, 3, &doc! { "fullDocumentBeforeChange": { "v": 0 } }),
    ];
    let mut decoder = Decoder::new(at(1));
    for round in 0..2 {
        // The first time the stream breaks amid the event.
        decoder.begin_cursor();
        let place = decoder.place().clone();
        for part in &parts[..2] {
            let data = part.get_document("_id").and_then(|id| id.get_str("_data")).expect("a token");
            assert!(decoder.decode(&reply(std::slice::from_ref(part), data)).expect("decoded").is_empty());
            assert_eq!(decoder.place(), &place, "amid an event there is no place to go on from");
        }
        if round == 1 {
            let found = decoder.decode(&reply(&parts[2..], &split_token(3, Some(2)))).expect("decoded");
            assert_eq!(found.len(), 1);
            assert!(found[0].poison().is_none() && found[0].raw().get_document("fullDocumentBeforeChange").is_ok());
            assert_eq!(decoder.place(), &Place::After(token(&split_token(3, Some(2)))));
        }
    }
    // Opened again at its time, it is not new; neither is it when the server sends it in one piece this time.
    for again in [parts.to_vec(), vec![insert(&split_token(3, None), 2)]] {
        decoder.begin_cursor();
        assert!(decoder.decode(&reply(&again, &split_token(3, Some(2)))).expect("decoded").is_empty());
    }
}

#[test]
fn a_place_of_the_other_token_format_delivers_the_event_again_rather_than_never() {
    let one = "8200000003000000012B022C0100296E5A1004CD187988908645D89A53A24E0FC99B75461E5F6964002B040004";
    for (before, after) in [(one.to_owned(), split_token(3, None)), (split_token(3, None), one.to_owned())] {
        let mut decoder = Decoder::new(Place::After(token(&before)));
        let events = [insert(&token_data(2, 1, 0), 1), insert(&after, 2), insert(&token_data(4, 1, 0), 3)];
        assert_eq!(times(&decoder.decode(&reply(&events, &token_data(4, 1, 0))).expect("decoded")), [3, 4]);
    }
}

#[test]
fn what_is_no_event_becomes_a_stub_if_its_token_can_be_read() {
    let data = token_data(3, 1, 0);
    let id = doc! { "_data": &data };
    for (wrong, kept) in [
        (doc! { "_id": id.clone(), "ns": { "db": "shop", "coll": "orders" } }, "shop"),
        (doc! { "_id": id.clone(), "operationType": 7, "ns": { "db": "shop", "coll": "orders" } }, "shop"),
        (doc! { "_id": id.clone(), "operationType": "insert", "ns": "shop", "documentKey": 7 }, ""),
        (doc! { "operationType": "insert", "documentKey": "x", "ns": { "db": "shop" }, "_id": id.clone() }, "shop"),
    ] {
        let mut decoder = Decoder::new(at(1));
        let after = insert(&token_data(4, 1, 0), 1);
        let found = decoder.decode(&reply(&[wrong.clone(), after], &token_data(4, 1, 0))).expect("decoded");
        assert_eq!(times(&found), [3, 4], "{wrong}");
        assert!(found[0].poison().is_some_and(|reason| reason.contains("cannot be decoded")), "{wrong}");
        assert_eq!(found[0].db(), kept, "{wrong}");
        assert!(found[1].poison().is_none());
    }
}

#[test]
fn without_a_token_it_is_an_error() {
    for wrong in [
        doc! {},
        doc! { "_id": 7, "operationType": "insert" },
        doc! { "_id": { "_data": "xyz" }, "operationType": "insert" },
    ] {
        let mut decoder = Decoder::new(at(1));
        let error = decoder.decode(&reply(std::slice::from_ref(&wrong), &token_data(4, 1, 0))).expect_err("no token");
        assert!(matches!(error, SourceError::Undecodable { .. }), "{wrong}: {error}");
    }
}

#[test]
fn an_event_that_was_passed_is_given_once() {
    let mut decoder = Decoder::new(at(2));
    let stub = |seconds| {
        let raw = RawDocumentBuf::try_from(&insert(&token_data(seconds, 1, 0), 1)).expect("can be encoded");
        Event::from_poison(&raw, "too large".to_owned()).expect("a stub")
    };
    assert!(decoder.pass(stub(1)).is_none());
    assert!(decoder.pass(stub(3)).is_some());
    assert!(decoder.pass(stub(3)).is_none(), "the place is behind it");
}
