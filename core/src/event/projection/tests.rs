//! Projections as tables: what becomes of each part of an event, and what a configuration may say.

mod config;
mod random;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bson::{Bson, Document, RawDocumentBuf, doc};
use toml::de::DeTable;

use super::config::KEYS;
use super::*;
use crate::config::error::ConfigError;
use crate::config::section::{Context, Section};
use crate::event::fixture::{mark_data, token_data};
use crate::event::{JsonForm, RowHead, gap};

const KEY: &str = "hash_key = \"0123456789abcdef\"\n";

/// The keys of `project`, as they would stand in a file.
fn read(text: &str) -> Result<Projection, ConfigError> {
    let env = |_: &str| None;
    let context =
        Context { file_name: "config.toml", text, folder: Path::new(""), env: &env, now: SystemTime::UNIX_EPOCH };
    let table = DeTable::parse(text).expect("TOML");
    Projection::read(&Section::top(&context, table.get_ref(), KEYS)?)
}

/// The same, for what is right.
pub(crate) fn projection(text: &str) -> Projection {
    read(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// `_data` of a token with a document's key in it.
fn token_with_key() -> String {
    let data = token_data(100, 1, 0);
    format!("{}46646F63756D656E744B65790046{}0004", &data[..data.len() - 2], "736563726574")
}

fn event_of(document: &Document) -> Event {
    Event::from_raw(&RawDocumentBuf::try_from(document).expect("BSON")).expect("an event")
}

/// An update with `fields` behind what every event has.
fn event(fields: Document) -> Event {
    let mut document = doc! {
        "_id": { "_data": token_with_key() },
        "operationType": "update",
        "ns": { "db": "shop", "coll": "orders" },
    };
    document.extend(fields);
    event_of(&document)
}

/// What is behind `_id`, `operationType` and `ns` after the projection; valid BSON all the way down.
fn fields(event: &Event) -> Document {
    assert_eq!(event.poison(), None);
    let mut document = Document::try_from(event.raw()).expect("valid BSON all the way down");
    for always in ["_id", "operationType", "ns"] {
        assert!(document.remove(always).is_some(), "{always} always stays");
    }
    document
}

fn hash(value: impl Into<Bson>) -> String {
    let document = RawDocumentBuf::try_from(&doc! { "x": value.into() }).expect("BSON");
    let value = Elements::of(&document).next().expect("a field").expect("whole").value;
    let key = Some(hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef"));
    let mut out = Vec::new();
    Redaction { mask: "".into(), key }.write(Redact::Hash, value, &mut out);
    String::from_utf8(out[4..68].to_vec()).expect("hex")
}

/// The parts of one update, all of which carry the field in question.
fn everywhere() -> Document {
    let document = doc! { "_id": "me", "a": { "b": 1, "c": 2 }, "list": [{ "b": 3, "c": 4 }, 5, [{ "b": 6 }]], "z": 0 };
    doc! {
        "documentKey": { "_id": "me", "a.b": 1, "z": 0 },
        "fullDocument": document.clone(),
        "fullDocumentBeforeChange": document,
        "updateDescription": {
            "updatedFields": { "a.b": 1, "a": { "b": 1 }, "a.c": 2, "list.0.b": 3, "list.1": { "b": 6, "c": 7 }, "z": 0 },
            "removedFields": ["a.b", "a", "list.0.b.x", "z"],
            "truncatedArrays": [{ "field": "a.b", "newSize": 1 }, { "field": "list", "newSize": 2 }],
            "disambiguatedPaths": { "a.b": ["a", "b"], "list.0.b": ["list", 0, "b"], "z.0": ["z", "0"] },
        },
        "wallTime": bson::DateTime::from_millis(5),
    }
}

#[test]
fn a_field_is_left_out_wherever_the_event_carries_it() {
    let (event, projection) =
        (event(everywhere()), projection("exclude = [\"fullDocument.a.b\", \"fullDocument.list.b\"]"));
    let document = doc! { "_id": "me", "a": { "c": 2 }, "list": [{ "c": 4 }, 5, [{}]], "z": 0 };
    let expected = doc! {
        "documentKey": { "_id": "me", "z": 0 },
        "fullDocument": document.clone(),
        "fullDocumentBeforeChange": document,
        "updateDescription": {
            "updatedFields": { "a": {}, "a.c": 2, "list.1": { "c": 7 }, "z": 0 },
            "removedFields": ["a", "z"],
            "truncatedArrays": [{ "field": "list", "newSize": 2 }],
            "disambiguatedPaths": { "z.0": ["z", "0"] },
        },
        "wallTime": bson::DateTime::from_millis(5),
    };
    assert_eq!(fields(event.projected(&projection)), expected);
}

#[test]
fn only_what_is_included_stays() {
    let event = event(everywhere());
    let document = doc! { "a": { "b": 1 }, "list": [{ "c": 4 }, [{}]] };
    let projection = projection("include = [\"fullDocument.a.b\", \"fullDocument.list.c\"]");
    let expected = doc! {
        "documentKey": { "a.b": 1 },
        "fullDocument": document.clone(),
        "fullDocumentBeforeChange": document,
        "updateDescription": {
            "updatedFields": { "a.b": 1, "a": { "b": 1 }, "list.1": { "c": 7 } },
            "removedFields": ["a.b", "a"],
            "truncatedArrays": [{ "field": "a.b", "newSize": 1 }, { "field": "list", "newSize": 2 }],
            "disambiguatedPaths": { "a.b": ["a", "b"] },
        },
    };
    assert_eq!(fields(event.projected(&projection)), expected);
}

#[test]
fn values_are_made_unreadable_wherever_the_event_carries_them() {
    let event = event(everywhere());
    let text = "redact = { \"fullDocument.a.b\" = \"hash\", \"fullDocument.list.b\" = \"mask\", \"fullDocument._id\" = \"hash\" }\n";
    let projection = projection(&format!("{text}{KEY}mask = \"X\""));
    let document = doc! {
        "_id": hash("me"), "a": { "b": hash(1), "c": 2 }, "list": [{ "b": "X", "c": 4 }, 5, [{ "b": "X" }]], "z": 0,
    };
    let expected = doc! {
        "documentKey": { "_id": hash("me"), "a.b": hash(1), "z": 0 },
        "fullDocument": document.clone(),
        "fullDocumentBeforeChange": document,
        "updateDescription": {
            "updatedFields": {
                "a.b": hash(1), "a": { "b": hash(1) }, "a.c": 2, "list.0.b": "X", "list.1": { "b": "X", "c": 7 }, "z": 0,
            },
            "removedFields": ["a.b", "a", "z"],
            "truncatedArrays": [{ "field": "list", "newSize": 2 }],
            "disambiguatedPaths": { "z.0": ["z", "0"] },
        },
        "wallTime": bson::DateTime::from_millis(5),
    };
    assert_eq!(fields(event.projected(&projection)), expected);
}

#[test]
fn fields_are_renamed_wherever_the_event_carries_them() {
    let event = event(everywhere());
    let text = "rename = { \"fullDocument.a\" = \"A\", \"fullDocument.a.b\" = \"B\", \"fullDocument.list\" = \"z\" }";
    let document = doc! { "_id": "me", "A": { "B": 1, "c": 2 }, "z": [{ "b": 3, "c": 4 }, 5, [{ "b": 6 }]] };
    let expected = doc! {
        "documentKey": { "_id": "me", "A.B": 1 },
        "fullDocument": document.clone(),
        "fullDocumentBeforeChange": document,
        "updateDescription": {
            "updatedFields": { "A.B": 1, "A": { "B": 1 }, "A.c": 2, "z.0.b": 3, "z.1": { "b": 6, "c": 7 } },
            "removedFields": ["A.B", "A", "z.0.b.x"],
            "truncatedArrays": [{ "field": "A.B", "newSize": 1 }, { "field": "z", "newSize": 2 }],
            "disambiguatedPaths": {},
        },
        "wallTime": bson::DateTime::from_millis(5),
    };
    assert_eq!(fields(event.projected(&projection(text))), expected);
}

/// `config`, the fields of an event, and what is left of them.
fn check(config: &str, before: Document, after: Document) {
    assert_eq!(fields(event(before).projected(&projection(config))), after, "{config}");
}

#[test]
fn a_change_inside_of_a_redacted_value_does_not_tell_what_is_in_it() {
    let update = |updated: Document| doc! { "updateDescription": { "updatedFields": updated } };
    check(
        "redact = { \"fullDocument.prefs\" = \"mask\", \"fullDocument.items.card\" = \"mask\" }",
        update(doc! {
            "prefs.me@home": "x", "prefs.you.0": 1, "items.0.card.number": 1, "items.0.card.pin": 2, "items.1.card": 3,
            "prefs2": 4, "items.2": 5,
        }),
        update(doc! {
            "prefs": "[redacted]", "items.0.card": "[redacted]", "items.1.card": "[redacted]", "prefs2": 4, "items.2": 5,
        }),
    );
    // In a document it is a field with a dot in its name, and nobody can say of what.
    check(
        "redact = { \"fullDocument.prefs\" = \"mask\" }",
        doc! { "fullDocument": { "prefs.me@home": "x", "prefs": 1 } },
        doc! { "fullDocument": { "prefs": "[redacted]" } },
    );
}

#[test]
fn parts_of_the_event_go_by_their_own_names() {
    let parts = || {
        doc! {
            "documentKey": { "_id": 1, "s": 2 }, "fullDocument": { "_id": 1, "x": 3 }, "fullDocumentBeforeChange": { "_id": 1 },
            "updateDescription": { "updatedFields": { "x": 3 }, "removedFields": ["y"] }, "to": { "db": "d", "coll": "c" },
            "lsid": { "id": 7, "uid": 8 },
        }
    };
    let without = |names: &[&str]| {
        let mut parts = parts();
        names.iter().for_each(|name| drop(parts.remove(name)));
        parts
    };
    let all = ["fullDocument", "fullDocumentBeforeChange", "updateDescription"];
    check("exclude = [\"fullDocument\"]", parts(), without(&all));
    check("exclude = [\"documentKey\", \"to\"]", parts(), without(&["documentKey", "to"]));
    check("exclude = [\"fullDocumentBeforeChange\"]", parts(), without(&["fullDocumentBeforeChange"]));
    check("exclude = [\"updateDescription\"]", parts(), without(&["updateDescription"]));
    check("exclude = [\"nothing\", \"fullDocument.nothing\"]", parts(), parts());
    check("include = [\"fullDocument\"]", parts(), without(&["to", "lsid"]));
    check(
        "include = [\"documentKey\", \"lsid.id\"]",
        parts(),
        doc! { "documentKey": { "_id": 1, "s": 2 }, "lsid": { "id": 7 } },
    );
    check(
        "include = [\"fullDocument.none\"]",
        parts(),
        doc! {
            "fullDocument": {}, "fullDocumentBeforeChange": {},
            "updateDescription": { "updatedFields": {}, "removedFields": [] },
        },
    );
    check(
        "include = [\"updateDescription\"]",
        parts(),
        doc! { "updateDescription": { "updatedFields": { "x": 3 }, "removedFields": ["y"] } },
    );
    check(
        "include = [\"updateDescription\", \"documentKey\"]\nredact = { \"fullDocument.x\" = \"mask\", \"fullDocument._id\" = \"mask\" }",
        parts(),
        doc! {
            "documentKey": { "_id": "[redacted]", "s": 2 },
            "updateDescription": { "updatedFields": { "x": "[redacted]" }, "removedFields": ["y"] },
        },
    );
    let mut hashed = parts();
    hashed.insert("documentKey", doc! { "_id": hash(1), "s": hash(2) });
    hashed.insert("lsid", doc! { "id": 7, "session": 8 });
    check(
        &format!("redact = {{ documentKey = \"hash\" }}\nrename = {{ \"lsid.uid\" = \"session\" }}\n{KEY}"),
        parts(),
        hashed,
    );
    // What is null carries nothing; what a pipeline has made of the rest may carry anything.
    let made =
        doc! { "fullDocument": null, "fullDocumentBeforeChange": "Ada", "updateDescription": [1, { "x": 2 }], "x": 1 };
    check(
        "exclude = [\"fullDocument.x\"]",
        made.clone(),
        doc! { "fullDocument": null, "fullDocumentBeforeChange": "Ada", "x": 1 },
    );
    check("include = [\"fullDocument.x\"]", made, doc! { "fullDocument": null });
    let unknown =
        doc! { "updateDescription": { "later": { "y": 1 }, "updatedFields": null, "removedFields": [1, "y"] } };
    check(
        "exclude = [\"fullDocument.x\"]",
        unknown,
        doc! { "updateDescription": { "updatedFields": null, "removedFields": ["y"] } },
    );
}

#[test]
fn the_event_stays_the_one_it_was() {
    let original = event(doc! {
        "documentKey": { "_id": "secret" }, "lsid": 1, "txnNumber": 2i64, "wallTime": bson::DateTime::from_millis(9),
    });
    let projected = original.projected(&projection("include = [\"fullDocument.x\"]"));
    assert_eq!((projected.id(), projected.key()), (original.id(), original.key()));
    assert_eq!((projected.wall_time_ms(), projected.in_transaction()), (Some(9), true));
    assert_eq!((projected.operation_type(), projected.db(), projected.coll()), ("update", "shop", "orders"));
    assert_eq!(projected.token().position(), original.token().position());
    assert!(projected.token().is_event());
    let json = std::str::from_utf8(projected.json(JsonForm::Relaxed).expect("JSON")).expect("UTF-8");
    assert_eq!(
        json,
        format!(
            "{{\"id\":\"{}\",\"operationType\":\"update\",\"ns\":{{\"db\":\"shop\",\"coll\":\"orders\"}}}}",
            original.id()
        )
    );
}

/// MongoDB writes the document's key into the token, as hex digits of its own encoding.
#[test]
fn the_token_does_not_tell_a_key_that_is_withheld() {
    let update = || event(doc! { "documentKey": { "_id": "secret", "z": 1 }, "fullDocument": { "x": 1 } });
    let table = [
        ("exclude = [\"documentKey\"]".to_owned(), true),
        ("exclude = [\"fullDocument._id\"]".to_owned(), true),
        ("include = [\"fullDocument._id\"]".to_owned(), true),
        ("include = [\"fullDocument._id\", \"fullDocument.z\"]".to_owned(), false),
        ("include = [\"documentKey\"]".to_owned(), false),
        ("include = [\"fullDocument\"]".to_owned(), false),
        ("exclude = [\"fullDocument\"]".to_owned(), false),
        ("exclude = [\"fullDocument.x\"]".to_owned(), false),
        ("rename = { \"fullDocument._id\" = \"id\" }".to_owned(), false),
        ("redact = { \"fullDocument.z\" = \"mask\" }".to_owned(), true),
        (format!("redact = {{ documentKey = \"hash\" }}\n{KEY}"), true),
    ];
    for (config, cut) in table {
        let original = update();
        let projected = original.projected(&projection(&config));
        assert_eq!(projected.token() != original.token(), cut, "{config}");
        assert_eq!(projected.token().data().contains("736563726574"), !cut, "{config}");
        assert_eq!(projected.raw().get_document("_id").expect("a token"), projected.token().document(), "{config}");
        fields(projected);
    }
    // Of a stub nobody knows which key it had.
    let stub = event(doc! {});
    assert!(!stub.projected(&projection("exclude = [\"documentKey\"]")).token().data().contains("736563726574"));
}

#[test]
fn rows_are_projected_and_gaps_are_not() {
    let time = bson::Timestamp { time: 100, increment: 7 }.into();
    let head = RowHead::new(time, "shop", "orders").expect("a head");
    let document = RawDocumentBuf::try_from(&doc! { "_id": 7, "x": 1, "y": 2 }).expect("BSON");
    let row = Event::from_row(&head, &document).expect("a row");
    let projected = row.projected(&projection("exclude = [\"fullDocument._id\", \"fullDocument.x\"]"));
    assert!(projected.is_row() && projected.token().data() == mark_data(100, 7));
    assert_eq!((projected.id(), projected.key()), (row.id(), row.key()));
    let expected = doc! { "clusterTime": bson::Timestamp { time: 100, increment: 7 }, "fullDocument": { "y": 2 } };
    assert_eq!(fields(projected), expected);
    // One that a pipeline calls so is none.
    assert!(gap::is_gap(&gap::event(time, time).expect("a gap")));
    assert!(!gap::is_gap(&event_of(&doc! { "_id": { "_data": token_with_key() }, "operationType": "gap" })));
}

#[test]
fn what_cannot_be_projected_becomes_a_stub() {
    let exclude = projection("exclude = [\"fullDocument.x.y\"]");
    let secret = RawDocumentBuf::try_from(&doc! {
        "_id": { "_data": token_with_key() }, "operationType": "insert", "ns": { "db": "shop", "coll": "orders" },
        "documentKey": { "_id": "secret" }, "fullDocument": { "x": { "secret": "secret", "n": 1 } },
    });
    let mut damaged = secret.expect("BSON").into_bytes();
    // The type of `n` becomes one that there is not.
    let at = damaged.windows(3).position(|bytes| bytes == b"\x10n\0").expect("there");
    damaged[at] = 0x44;
    let event = Event::from_raw(RawDocument::from_bytes(&damaged).expect("its length is right")).expect("an event");
    let stub = event.projected(&exclude);
    assert_eq!(
        stub.poison(),
        Some("the event cannot be projected: it is not valid BSON: a value has a wrong length or type")
    );
    assert_eq!((stub.id(), stub.key()), (event.id(), event.key()));
    assert_eq!((stub.operation_type(), stub.db(), stub.coll()), ("insert", "shop", "orders"));
    assert!(!stub.raw().as_bytes().windows(6).any(|bytes| bytes == b"secret"));
    assert!(!stub.token().data().contains("736563726574"));
    // Deeper than any server stores, and a document that grows beyond all bounds.
    let mut deep = doc! { "y": 1 };
    for _ in 0..300 {
        deep = doc! { "x": [deep] };
    }
    let deep = Event::from_raw(&{
        let mut raw = bson::rawdoc! { "_id": { "_data": token_with_key() }, "operationType": "insert" };
        raw.append(bson::cstr!("fullDocument"), RawDocumentBuf::try_from(&deep).expect("BSON"));
        raw
    });
    let reason = |event: &Event, projection: &Projection| event.projected(projection).poison().map(str::to_owned);
    let nested = projection("exclude = [\"fullDocument.x.x.y\"]");
    // Paths end, and what is below is copied: only an array goes on and on.
    assert_eq!(reason(deep.as_ref().expect("an event"), &nested), None);
    let mut places = Bson::Array(vec![1.into()]);
    for _ in 0..300 {
        places = Bson::Array(vec![places]);
    }
    let places = self::event(doc! { "fullDocument": { "x": places } });
    let expected = "the event cannot be projected: it is nested more than 250 levels deep";
    assert_eq!(reason(&places, &exclude).as_deref(), Some(expected));
    let many = vec![Bson::Document(doc! { "y": 1 }); 400_000];
    let many = self::event(doc! { "fullDocument": { "x": many } });
    let mask = projection(&format!("redact = {{ \"fullDocument.x.y\" = \"mask\" }}\nmask = \"{}\"", "m".repeat(256)));
    assert_eq!(
        reason(&many, &mask).as_deref(),
        Some("the event cannot be projected: it would become larger than 64 MiB")
    );
    // A stub stays one, with its own reason.
    let poison = bson::rawdoc! { "_id": { "_data": token_with_key() }, "operationType": "insert", "documentKey": { "_id": "secret" } };
    let poison = Event::from_poison(&poison, "above 16 MB".to_owned()).expect("a stub");
    let projected = poison.projected(&projection("exclude = [\"documentKey\"]"));
    assert_eq!((projected.poison(), projected.document_key()), (Some("above 16 MB"), None));
}

#[test]
fn equal_projections_share_what_they_make() {
    let event = event(everywhere());
    let (one, same) = (projection("exclude = [\"lsid\", \"to\"]"), projection("exclude = [\"to\", \"lsid\"]"));
    let other = projection("exclude = [\"to\"]");
    assert!(one == same && one != other);
    assert!(Arc::ptr_eq(event.projected(&one), event.projected(&same)));
    assert!(!Arc::ptr_eq(event.projected(&one), event.projected(&other)));
    assert_eq!(event.projected(&one).projection(), Some(one.fingerprint()));
    // A hash of another key is another one, and the key is in neither.
    let hashing = |key: &str| projection(&format!("redact = {{ lsid = \"hash\" }}\nhash_key = \"{key}\""));
    let (first, second) = (hashing("0123456789abcdef"), hashing("0123456789abcdeg"));
    assert!(first != second && first == hashing("0123456789abcdef"));
    let shown = format!("{first:?} {:?}", first.fingerprint());
    assert!(!shown.contains("0123456789abcdef") && shown.contains("hash_key ***"), "{shown}");
    assert_eq!(Fingerprint::from_text(&first.fingerprint().text()), Some(first.fingerprint()));
    for damaged in ["", "x", &"A".repeat(32), &"+".repeat(32), &"0".repeat(31)] {
        assert_eq!(Fingerprint::from_text(damaged), None, "{damaged}");
    }
}

/// Letters hold them: they must not change. Made with Python, by `hashlib.sha256` and `hmac` over the texts written out by hand.
#[test]
fn fingerprints_stay_what_they_are() {
    let text = "exclude = [\"fullDocument.notes\"]\nrename = { \"fullDocument.userId\" = \"user\" }\n\
                redact = { \"fullDocument.card\" = \"mask\" }\nmask = \"X\"";
    assert_eq!(projection(text).fingerprint().text(), "e0888b2a8abf102b85b57e89cc748632");
    let text = format!("redact = {{ documentKey = \"hash\" }}\n{KEY}");
    assert_eq!(projection(&text).fingerprint().text(), "d534fcb69671e998b539b80ee0ef4b15");
}
