//! Whole texts, as a receiver gets them.

use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use serde_json::Value;

use super::*;
use crate::event::fixture::token_data;
use crate::event::gap;

fn event(fields: Document) -> Event {
    let mut document = doc! { "_id": { "_data": token_data(100, 7, 0) }, "operationType": "update", "ns": { "db": "shop", "coll": "orders" } };
    document.extend(fields);
    Event::from_raw(&RawDocumentBuf::try_from(&document).expect("BSON")).expect("an event")
}

fn text(event: &Event, form: JsonForm, envelope: Envelope) -> String {
    String::from_utf8(event.json_in(Shape { form, envelope }, "default").expect("JSON").to_vec()).expect("UTF-8")
}

fn update() -> Event {
    event(doc! {
        "documentKey": { "_id": bson::oid::ObjectId::from_bytes([7; 12]) },
        "wallTime": DateTime::from_millis(100_250),
        "lsid": { "id": "s" }, "txnNumber": 3i64,
        "fullDocumentBeforeChange": { "n": 1 },
        "fullDocument": { "n": 2i64, "t": "a\"b\nc" },
        "updateDescription": {
            "updatedFields": { "n": 2i64 }, "removedFields": ["x"], "truncatedArrays": [{ "field": "l", "newSize": 4 }],
        },
    })
}

#[test]
fn debezium() {
    let event = update();
    let expected = concat!(
        r#"{"id":"ID","key":{"id":"{\"$oid\":\"070707070707070707070707\"}"},"before":"{\"n\":1}","#,
        r#""after":"{\"n\":2,\"t\":\"a\\\"b\\nc\"}","#,
        r#""updateDescription":{"removedFields":["x"],"updatedFields":"{\"n\":2}","truncatedArrays":[{"field":"l","size":4}]},"#,
        r#""source":{"version":"VERSION","connector":"mongodb","name":"default","ts_ms":100000,"snapshot":"false","db":"shop","#,
        r#""sequence":null,"collection":"orders","ord":7,"lsid":"{\"id\":\"s\"}","txnNumber":3,"wallTime":100250},"#,
        r#""op":"u","ts_ms":100250,"transaction":null}"#
    );
    let expected = expected
        .replace("ID\",\"key", &format!("{}\",\"key", event.id()))
        .replace("VERSION", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&event, JsonForm::Relaxed, Envelope::Debezium), expected);
    let canonical: Value = serde_json::from_str(&text(&event, JsonForm::Canonical, Envelope::Debezium)).expect("JSON");
    assert_eq!(canonical["before"], r#"{"n":{"$numberInt":"1"}}"#);
    assert_eq!(canonical["updateDescription"]["truncatedArrays"][0]["size"], 4);
    assert_eq!(canonical["source"]["txnNumber"], 3);

    let of = |fields: Document| -> Value {
        serde_json::from_str(&text(&self::event(fields), JsonForm::Relaxed, Envelope::Debezium)).expect("JSON")
    };
    for (operation, op) in [("insert", "c"), ("replace", "u"), ("delete", "d")] {
        let told = of(doc! { "operationType": operation, "documentKey": { "_id": 1 } });
        assert_eq!(
            (&told["op"], &told["key"]["id"], &told["before"]),
            (&Value::from(op), &Value::from("1"), &Value::Null)
        );
        assert_eq!((&told["updateDescription"], &told["ts_ms"]), (&Value::Null, &Value::from(100_000)));
        assert_eq!((&told["source"]["lsid"], &told["source"]["wallTime"]), (&Value::Null, &Value::Null));
    }
    let quiet = of(doc! { "updateDescription": { "updatedFields": {}, "removedFields": [], "truncatedArrays": [] } });
    assert_eq!(
        quiet["updateDescription"].to_string(),
        r#"{"removedFields":null,"truncatedArrays":null,"updatedFields":"{}"}"#
    );
    // What Debezium does not publish.
    let drop = of(doc! { "operationType": "drop" });
    assert_eq!(
        (drop.get("op"), &drop["event"]["operationType"], &drop["key"]),
        (None, &Value::from("drop"), &Value::Null)
    );
    let gap =
        gap::event(bson::Timestamp { time: 1, increment: 1 }.into(), bson::Timestamp { time: 2, increment: 1 }.into());
    let gap: Value =
        serde_json::from_str(&text(&gap.expect("a gap"), JsonForm::Relaxed, Envelope::Debezium)).expect("JSON");
    assert_eq!((gap.get("op"), &gap["event"]["operationType"]), (None, &Value::from("gap")));
    let time = bson::Timestamp { time: 100, increment: 7 }.into();
    let head = crate::event::RowHead::new(time, "shop", "orders").expect("a head");
    let row = Event::from_row(&head, bson::rawdoc! { "_id": 7 }.as_ref()).expect("a row");
    let row: Value = serde_json::from_str(&text(&row, JsonForm::Relaxed, Envelope::Debezium)).expect("JSON");
    assert_eq!(
        (&row["op"], &row["source"]["snapshot"], &row["after"]),
        (&"r".into(), &"true".into(), &"{\"_id\":7}".into())
    );
}

#[test]
fn cloudevents() {
    let event = update();
    let plain = event.json(JsonForm::Plain).expect("JSON").to_vec();
    let expected = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{}\",\"source\":\"/default/shop/orders\",\"type\":\"tailwater.change.update\",\
         \"subject\":\"070707070707070707070707\",\"time\":\"1970-01-01T00:01:40.25Z\",\
         \"datacontenttype\":\"application/json\",\"data\":{}}}",
        event.id(),
        String::from_utf8(plain).expect("UTF-8"),
    );
    assert_eq!(text(&event, JsonForm::Plain, Envelope::CloudEvents), expected);

    let attribute = |fields: Document, name: &str| -> Value {
        let text = text(&self::event(fields), JsonForm::Relaxed, Envelope::CloudEvents);
        serde_json::from_str::<Value>(&text).expect("JSON")[name].clone()
    };
    let subjects: [(Bson, Value); 9] = [
        ("a \"b\"".into(), "a \"b\"".into()),
        (7.into(), "7".into()),
        (doc! { "a": 1, "b": "x" }.into(), "{\"a\":1,\"b\":\"x\"}".into()),
        (DateTime::from_millis(5).into(), "1970-01-01T00:00:00.005Z".into()),
        (true.into(), "true".into()),
        ("".into(), Value::Null),
        ("a\nb".into(), Value::Null),
        ("\u{85}".into(), Value::Null),
        (Bson::Null, Value::Null),
    ];
    for (id, subject) in subjects {
        assert_eq!(attribute(doc! { "documentKey": { "_id": id.clone() } }, "subject"), subject, "{id}");
    }
    assert_eq!(attribute(doc! {}, "subject"), Value::Null);
    assert_eq!(attribute(doc! {}, "time"), "1970-01-01T00:01:40Z", "the cluster time");
    assert_eq!(attribute(doc! { "wallTime": DateTime::MAX }, "time"), Value::Null, "RFC 3339 ends before");
    assert_eq!(attribute(doc! { "ns": { "db": "shop" } }, "source"), "/default/shop");
    assert_eq!(attribute(doc! { "ns": { "db": "a", "coll": "ö b/c?" } }, "source"), "/default/a/%C3%B6%20b%2Fc%3F");
    assert_eq!(attribute(doc! { "operationType": "createIndexes" }, "type"), "tailwater.change.createIndexes");
}

/// Each is made once, beside the others; explicit forms stay what they are.
#[test]
fn each_shape_has_its_own_text() {
    let event = update();
    let mut texts = Vec::new();
    for envelope in Envelope::ALL {
        for form in JsonForm::ALL {
            let shape = Shape { form, envelope };
            assert_eq!(Shape::of_number(shape.number()), shape);
            let first = event.json_in(shape, "default").expect("JSON");
            assert!(std::ptr::eq(first, event.json_in(shape, "default").expect("JSON")));
            assert!(!texts.contains(&first), "{shape:?}");
            texts.push(first);
        }
    }
    assert!(std::ptr::eq(event.json(JsonForm::Plain).expect("JSON"), texts[2]));
    assert_eq!(Shape::of_number(u8::MAX).envelope, Envelope::None);
    let account = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(0));
    event.enter_window(&account);
    let all: usize = texts.iter().map(|text| text.len()).sum();
    assert_eq!(account.load(std::sync::atomic::Ordering::Relaxed), all as i64);
    event.leave_window();
    assert_eq!(account.load(std::sync::atomic::Ordering::Relaxed), 0);
    let damaged = Event::from_raw(&{
        let mut raw = bson::rawdoc! { "_id": { "_data": token_data(1, 1, 0) }, "operationType": "insert" };
        let mut bytes = bson::rawdoc! { "t": "é" }.into_bytes();
        let at = bytes.len() - 4;
        bytes[at] = 0xff;
        raw.append(bson::cstr!("fullDocument"), RawDocumentBuf::from_bytes(bytes).expect("its length is right"));
        raw
    });
    for envelope in Envelope::ALL {
        let shape = Shape { form: JsonForm::Relaxed, envelope };
        assert!(damaged.as_ref().expect("an event").json_in(shape, "default").is_err(), "{envelope:?}");
    }
}
