//! The plain form as values is the plain form as text.

use bson::RawDocument;
use serde_json::{Map, Value, json};
use tailwater_raw::{
    Elements,
    json::{JsonForm, Plain},
};

use crate::{documents, ours};

fn object(elements: Elements<'_>) -> Value {
    let field = |element: Result<tailwater_raw::Element<'_>, _>| {
        let element = element.expect("whole");
        (String::from_utf8(element.name.to_vec()).expect("UTF-8"), value(element.value))
    };
    Value::Object(elements.map(field).collect::<Map<_, _>>())
}

fn value(value: tailwater_raw::Value<'_>) -> Value {
    match Plain::of(value).expect("whole") {
        Plain::Null => Value::Null,
        Plain::Boolean(boolean) => boolean.into(),
        Plain::Integer(integer) => integer.into(),
        Plain::Double(double) => double.into(),
        Plain::Text(text) => text.into(),
        Plain::Array(items) => Value::Array(items.map(|element| self::value(element.expect("whole").value)).collect()),
        Plain::Document(fields) => object(fields),
        Plain::Timestamp(t, i) => json!({ "t": t, "i": i }),
        Plain::CodeWithScope(code, scope) => json!({ "code": code, "scope": object(scope) }),
        Plain::DbPointer(namespace, id) => json!({ "ref": namespace, "id": id }),
    }
}

#[test]
fn values_and_text_of_the_plain_form_are_one() {
    for document in documents(5_000, true, &|_, _| true) {
        let text = ours(&document, JsonForm::Plain);
        let values = object(Elements::of(RawDocument::from_bytes(&document).expect("a document")));
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read, values, "{text}");
    }
}
