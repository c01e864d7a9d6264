//! Events as mongod 6.0.5 sends them, events that are none, keys, and the window's account under threads.

use std::{sync::Barrier, thread};

use bson::{Bson, DateTime, Decimal128, Document, RawDocumentBuf, doc, rawdoc};

use super::*;

const TOKEN: &str = "826B024D1B000000042B022C01002B026E5A1004A2C3B4D4F87B4C009033EFFD5EB1E70604";

fn event(document: &Document) -> Result<Event, EventError> {
    Event::from_raw(&RawDocumentBuf::try_from(document).expect("can be encoded"))
}

fn insert(id: impl Into<Bson>) -> Event {
    let id = id.into();
    event(&doc! {
        "_id": { "_data": TOKEN },
        "operationType": "insert",
        "clusterTime": bson::Timestamp { time: 0x6b02_4d1b, increment: 4 },
        "wallTime": DateTime::from_millis(1_795_312_923_000),
        "fullDocument": { "_id": id.clone(), "status": "open" },
        "ns": { "db": "shop", "coll": "orders" },
        "documentKey": { "_id": id },
        "lsid": { "id": 1 },
        "txnNumber": 1i64,
    })
    .expect("an event")
}

#[test]
fn reads_the_fields() {
    let event = insert(7);
    assert_eq!((event.operation_type(), event.db(), event.coll()), ("insert", "shop", "orders"));
    assert_eq!(event.document_key().and_then(|key| key.get_i32("_id").ok()), Some(7));
    assert_eq!(event.full_document().and_then(|document| document.get_str("status").ok()), Some("open"));
    assert!(event.full_document_before_change().is_none() && event.update_description().is_none());
    assert_eq!(event.wall_time_ms(), Some(1_795_312_923_000));
    assert!(event.in_transaction());
    assert!(event.id().as_str().starts_with("6b024d1b00000004-00000001"));
    assert!(event.bytes() > event.raw().as_bytes().len());
    let json: serde_json::Value = serde_json::from_slice(event.json(JsonForm::Plain).expect("JSON")).expect("JSON");
    assert_eq!(json["id"], event.id().as_str());
    assert!(json.get("_id").is_none());
}

#[test]
fn events_without_a_document_are_barriers() {
    let token = doc! { "_data": TOKEN };
    let drop = event(&doc! { "_id": token.clone(), "operationType": "drop", "ns": { "db": "a", "coll": "b" } });
    let drop = drop.expect("an event");
    assert_eq!((drop.key(), drop.db(), drop.coll()), (None, "a", "b"));
    let end = event(&doc! { "_id": token, "operationType": "dropDatabase", "ns": { "db": "a" }, "fullDocument": null });
    let end = end.expect("an event");
    assert_eq!((end.key(), end.db(), end.coll(), end.in_transaction()), (None, "a", "", false));
    assert!(end.full_document().is_none());
}

#[test]
fn errors_name_fields_and_not_values() {
    let check = |document: Document, expected: &str| {
        assert_eq!(event(&document).expect_err(expected).to_string(), format!("read change event: {expected}"));
    };
    check(doc! {}, "the field _id is missing; there are no fields");
    check(
        doc! { "_id": { "_data": TOKEN }, "secret": "hunter2" },
        "the field operationType is missing; there are _id, secret",
    );
    check(
        doc! { "_id": { "_data": TOKEN }, "operationType": "insert", "ns": "hunter2" },
        "the field ns is not a document; there are _id, operationType, ns",
    );
    check(doc! { "_id": { "_data": "82" } }, "decode resume token: _data ends within the cluster time");
}

#[test]
fn keys_are_equal_where_mongodb_finds_ids_equal() {
    let key = |id: Bson| insert(id).key();
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().expect("a decimal"));
    let groups: [&[Bson]; 9] = [
        &[Bson::Int32(1), Bson::Int64(1), Bson::Double(1.0), decimal("1"), decimal("1.00"), decimal("10E-1")],
        &[Bson::Int32(0), Bson::Double(-0.0), decimal("-0"), decimal("0E+9")],
        &[Bson::Double(1.5), decimal("1.50")],
        &[Bson::Double(f64::NAN), decimal("NaN")],
        &[Bson::Double(f64::INFINITY), decimal("Infinity")],
        &[Bson::Int64(1 << 53)],
        &[Bson::Int64((1 << 53) + 1), decimal("9007199254740993")],
        &[Bson::String("1".into()), Bson::Symbol("1".into())],
        &[doc! { "a": 1, "b": [1] }.into(), doc! { "a": 1.0, "b": [1i64] }.into()],
    ];
    for (at, group) in groups.iter().enumerate() {
        let first = key(group[0].clone());
        assert!(first.is_some());
        for id in *group {
            assert_eq!(key(id.clone()), first, "{id:?} and {:?}", group[0]);
        }
        for other in groups.iter().skip(at + 1) {
            assert_ne!(key(other[0].clone()), first, "{:?} and {:?}", other[0], group[0]);
        }
    }
}

/// The function is part of what instances share: it must not change.
#[test]
fn keys_stay_what_they_are() {
    let binary = |subtype| bson::Binary { subtype, bytes: vec![1, 2] };
    let known: [(Bson, u64); 12] = [
        (Bson::Int32(1), 12_215_392_868_062_631_966),
        (Bson::Double(1.5), 16_522_456_058_577_883_348),
        ("1".into(), 5_131_281_364_971_629_230),
        (bson::oid::ObjectId::from_bytes([7; 12]).into(), 17_440_374_102_495_930_383),
        (DateTime::from_millis(-1).into(), 10_899_382_314_359_693_485),
        (true.into(), 13_479_216_712_276_602_325),
        (bson::Timestamp { time: 1, increment: 2 }.into(), 3_904_350_140_877_838_191),
        (binary(bson::spec::BinarySubtype::Uuid).into(), 7_626_435_434_456_345_462),
        (binary(bson::spec::BinarySubtype::BinaryOld).into(), 8_165_053_348_430_000_156),
        (Bson::Null, 7_209_194_989_264_996_988),
        (doc! { "a": 1, "b": "c" }.into(), 10_301_512_283_767_744_697),
        (vec![1, 2].into(), 10_866_697_372_802_512_081),
    ];
    for (id, expected) in known {
        assert_eq!(insert(id.clone()).key().map(NonZeroU64::get), Some(expected), "{id:?}");
    }
}

#[test]
fn account_follows_the_json_exactly() {
    let projections = ["exclude = [\"wallTime\"]", "exclude = [\"lsid\"]"].map(projection::fixture);
    for round in 0..2_000 {
        let event = Arc::new(insert(round));
        let account = Arc::new(AtomicI64::new(0));
        let barrier = Arc::new(Barrier::new(7));
        let run = |work: Box<dyn FnOnce(&Event) + Send>| {
            let (event, barrier) = (Arc::clone(&event), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                work(&event);
            })
        };
        let mut threads: Vec<_> = JsonForm::ALL
            .into_iter()
            .map(|form| run(Box::new(move |event| drop(event.json(form).map(<[u8]>::len)))))
            .collect();
        for projection in &projections {
            let projection = projection.clone();
            threads.push(run(Box::new(move |event| {
                let _ = event.projected(&projection).json(JsonForm::Plain).map(<[u8]>::len);
            })));
        }
        let of_window = Arc::clone(&account);
        threads.push(run(Box::new(move |event| event.enter_window(&of_window))));
        // Every second event leaves at some moment too.
        threads.push(run(Box::new(move |event| {
            if round % 2 == 0 {
                event.leave_window();
            }
        })));
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let made: usize = JsonForm::ALL.into_iter().map(|form| event.json(form).expect("JSON").len()).sum();
        let projected = projections.iter().map(|projection| {
            let event = event.projected(projection);
            event.bytes() + event.json(JsonForm::Plain).expect("JSON").len()
        });
        if round % 2 == 1 {
            assert_eq!(account.load(Ordering::Relaxed), (made + projected.sum::<usize>()) as i64);
        }
        event.leave_window();
        event.leave_window();
        assert_eq!(account.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn damage_never_panics() {
    let document = rawdoc! { "_id": { "_data": TOKEN }, "operationType": "insert", "ns": { "db": "a", "coll": "b" },
    "documentKey": { "_id": 1 } };
    for at in 4..document.as_bytes().len() {
        for value in [0, 1, 2, 3, 4, 0x7f, 0xff] {
            let mut bytes = document.as_bytes().to_vec();
            bytes[at] = value;
            if let Ok(Ok(event)) = RawDocument::from_bytes(&bytes).map(Event::from_raw) {
                let _ = (event.operation_type(), event.db(), event.coll(), event.id(), event.json(JsonForm::Relaxed));
            }
        }
    }
}

#[test]
fn what_a_pipeline_made_of_a_document_is_not_offered_as_one() {
    let event = event(&doc! {
        "_id": { "_data": TOKEN },
        "operationType": "update",
        "ns": { "db": "shop", "coll": "orders" },
        "documentKey": { "_id": 1 },
        "fullDocument": "Ada",
        "updateDescription": [1, 2],
    })
    .expect("legal after { $set: { fullDocument: \"$fullDocument.name\" } }");
    assert!(event.full_document().is_none() && event.update_description().is_none() && event.key().is_some());
}
