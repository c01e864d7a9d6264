//! The driver's library is the oracle: of whole documents, and of documents with every byte damaged in every way.

use bson::{Binary, RawBsonRef, RawDocumentBuf, cstr, oid::ObjectId, rawdoc, spec::BinarySubtype};

use super::*;

/// One field of each type.
fn every_type() -> RawDocumentBuf {
    let mut document = rawdoc! {
        "double": 1.5,
        "a name of many bytes": "text",
        "document": { "a": 1, "": { "b": null } },
        "array": [1, [2]],
        "binary": Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2, 3] },
        "old binary": Binary { subtype: BinarySubtype::BinaryOld, bytes: vec![4, 5] },
        "undefined": bson::RawBson::Undefined,
        "object id": ObjectId::from_bytes([7; 12]),
        "true": true,
        "false": false,
        "date": bson::DateTime::from_millis(-1),
        "null": null,
        "regex": bson::Regex { pattern: cstr!("a+").into(), options: cstr!("im").into() },
        "code": bson::RawBson::JavaScriptCode("f()".into()),
        "symbol": bson::RawBson::Symbol("s".into()),
        "scoped": bson::RawJavaScriptCodeWithScope { code: "g()".into(), scope: rawdoc! { "x": 1 } },
        "int32": i32::MIN,
        "timestamp": bson::Timestamp { time: 3, increment: 4 },
        "int64": i64::MAX,
        "decimal": "1.50".parse::<bson::Decimal128>().expect("a decimal"),
        "max": bson::RawBson::MaxKey,
        "min": bson::RawBson::MinKey,
        "é": "漢",
    };
    // The library has no constructor for a DBPointer, so one is made of a string.
    let mut bytes = rawdoc! { "p": "db.c" }.into_bytes();
    bytes[4] = kind::DB_POINTER;
    bytes.splice(bytes.len() - 1.., [9u8; 12].into_iter().chain([0]));
    bytes[0] = bytes.len() as u8;
    let pointer = RawDocument::from_bytes(&bytes).expect("a document").get("p").expect("whole").expect("one field");
    document.append(cstr!("pointer"), pointer);
    document
}

/// A name, a type and the bytes of the value.
type Seen = (Vec<u8>, u8, usize);

/// All elements down to the last level, or an error when anything is damaged.
fn ours(elements: Elements<'_>, seen: &mut Vec<Seen>) -> Result<(), Damaged> {
    let utf8 = |text: &[u8]| std::str::from_utf8(text).map(|_| ()).map_err(|_| Damaged::Text);
    for element in elements {
        let Element { name, value, .. } = element?;
        seen.push((name.to_vec(), value.kind(), value.bytes().len()));
        utf8(name)?;
        match value.kind() {
            kind::STRING | kind::SYMBOL | kind::CODE => utf8(value.text())?,
            kind::DOCUMENT | kind::ARRAY => ours(value.elements(), seen)?,
            kind::REGEX => {
                let (pattern, options) = value.regex();
                utf8(pattern).and(utf8(options))?;
            }
            kind::DB_POINTER => utf8(value.db_pointer().0)?,
            kind::CODE_WITH_SCOPE => {
                let (code, scope) = value.code_with_scope();
                utf8(code.text()).and(ours(scope.elements(), seen))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The same by the driver's library.
fn theirs(document: &RawDocument, seen: &mut Vec<Seen>) -> bson::error::Result<()> {
    for element in document.iter_elements() {
        let element = element?;
        seen.push((element.key().as_str().into(), element.element_type() as u8, element.size()));
        match element.value()? {
            RawBsonRef::Document(inner) => theirs(inner, seen)?,
            RawBsonRef::Array(inner) => theirs(RawDocument::from_bytes(inner.as_bytes())?, seen)?,
            RawBsonRef::JavaScriptCodeWithScope(both) => theirs(both.scope, seen)?,
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn verdict_on_damage_is_that_of_the_drivers_library() {
    let whole = every_type().into_bytes();
    let (mut accepted, mut refused) = (0, 0);
    for at in 4..whole.len() {
        for byte in 0..=255 {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            let Ok(document) = RawDocument::from_bytes(&bytes) else { continue };
            let (mut left, mut right) = (Vec::new(), Vec::new());
            let verdict = ours(Elements::of(document), &mut left);
            assert_eq!(verdict.is_ok(), theirs(document, &mut right).is_ok(), "byte {at} is {byte}: {verdict:?}");
            if verdict.is_ok() {
                assert_eq!(left, right, "byte {at} is {byte}");
                accepted += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert!(accepted > 10_000 && refused > 10_000, "{accepted} accepted, {refused} refused");
}

#[test]
fn cut_documents_are_refused() {
    let whole = every_type();
    let end = |element: Result<Element<'_>, Damaged>| {
        element.map(|element| element.start + element.value.bytes().len()).expect("whole")
    };
    let ends: Vec<usize> = Elements::of(&whole).map(end).collect();
    for len in 5..whole.as_bytes().len() {
        let mut bytes = whole.as_bytes()[..len].to_vec();
        bytes[len - 1] = 0;
        bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
        let document = RawDocument::from_bytes(&bytes).expect("length and end are right");
        let complete = Elements::of(document).all(|element| element.is_ok());
        assert_eq!(complete, len == 5 || ends.contains(&(len - 1)), "{len}");
    }
}

#[test]
fn values_are_read_as_they_were_written() {
    let document = every_type();
    let value = |name: &str| {
        let mut elements = Elements::of(&document).map(|element| element.expect("whole"));
        elements.find(|element| element.name == name.as_bytes()).expect(name).value
    };
    assert_eq!((value("double").double(), value("a name of many bytes").text()), (1.5, &b"text"[..]));
    assert_eq!((value("int32").int32(), value("int64").int64(), value("date").int64()), (i32::MIN, i64::MAX, -1));
    assert_eq!((value("true").boolean(), value("false").boolean()), (true, false));
    assert_eq!((value("object id").object_id(), value("timestamp").int64()), ([7; 12], 3 << 32 | 4));
    assert_eq!((value("binary").binary(), value("old binary").binary()), ((0, &[1, 2, 3][..]), (2, &[4, 5][..])));
    assert_eq!(value("regex").regex(), (&b"a+"[..], &b"im"[..]));
    assert_eq!(value("pointer").db_pointer(), (&b"db.c"[..], &[9u8; 12][..]));
    let (code, scope) = value("scoped").code_with_scope();
    assert_eq!((code.text(), scope.document()), (&b"g()"[..], Some(&*rawdoc! { "x": 1 })));
    assert_eq!(value("document").elements().count(), 2);
    assert!(value("array").document().is_none());
}
