//! What an event's JSON has beyond that of a document; the rest is shown in `tailwater-raw`.

use bson::{Document, RawDocumentBuf, doc};

use super::*;

const ID: &str = "6b024d1b00000005-00000000deadbeef";

fn json(document: &Document, form: JsonForm) -> Result<String, JsonError> {
    let raw = RawDocumentBuf::try_from(document).expect("can be encoded");
    let json = event(&raw, &ID.parse().expect("an id"), form)?;
    Ok(String::from_utf8(json).expect("UTF-8"))
}

#[test]
fn id_comes_first_and_stands_alone() {
    let document = doc! { "_id": { "_data": "82" }, "operationType": "insert", "id": 7, "ns": { "_id": 1, "id": 2 } };
    let numbers = [("1", "2"), (r#"{"$numberInt":"1"}"#, r#"{"$numberInt":"2"}"#), ("1", "2")];
    for (form, (one, two)) in JsonForm::ALL.into_iter().zip(numbers) {
        let expected = format!(r#"{{"id":"{ID}","operationType":"insert","ns":{{"_id":{one},"id":{two}}}}}"#);
        assert_eq!(json(&document, form), Ok(expected));
    }
}

#[test]
fn an_event_that_is_damaged_or_too_deep_has_no_json() {
    let mut bytes = bson::rawdoc! { "_id": 1, "operationType": "insert", "text": "é" }.into_bytes();
    let at = bytes.len() - 3;
    bytes[at] = b'x';
    let raw = RawDocument::from_bytes(&bytes).expect("a document");
    assert!(matches!(event(raw, &ID.parse().expect("an id"), JsonForm::Plain), Err(JsonError::Bson(_))));
    let nested = (0..250).fold(doc! {}, |inner, _| doc! { "a": inner });
    assert!(matches!(json(&nested, JsonForm::Plain), Err(JsonError::Depth(_))));
}
