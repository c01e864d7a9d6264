//! When two values are equal: by value across number types, by order of fields in documents.

use bson::{RawBson, RawDocumentBuf};

use tailwater_raw::{Elements, Value, kind, number::Number};

/// A query's value.
#[derive(Clone, Debug)]
pub(crate) struct Literal {
    kind: u8,
    bytes: Box<[u8]>,
}

impl Literal {
    pub fn new(value: RawBson) -> Literal {
        let mut document = RawDocumentBuf::new();
        document.append(bson::cstr!(""), value);
        let element = Elements::of(&document).next().expect("one was appended").expect("was encoded just now");
        Literal { kind: element.value.kind(), bytes: element.value.bytes().into() }
    }

    pub fn value(&self) -> Value<'_> {
        Value::new(self.kind, &self.bytes)
    }
}

/// Whether a field equals a query's value. A missing field equals null.
pub(crate) fn equal_or_missing(found: Option<Value<'_>>, wanted: Value<'_>) -> bool {
    match found.filter(|found| found.kind() != kind::UNDEFINED) {
        None => wanted.kind() == kind::NULL,
        Some(found) => equal(found, wanted),
    }
}

/// Whether two values are one to the server, collation apart.
pub(crate) fn equal(a: Value<'_>, b: Value<'_>) -> bool {
    use kind::{ARRAY, DECIMAL128, DOCUMENT, DOUBLE, INT32, INT64, STRING, SYMBOL};
    match (a.kind(), b.kind()) {
        // With their lengths and final zeros, as they stand.
        (STRING | SYMBOL, STRING | SYMBOL) | (INT32, INT32) => a.bytes() == b.bytes(),
        (INT32 | INT64 | DOUBLE | DECIMAL128, INT32 | INT64 | DOUBLE | DECIMAL128) => {
            matches!((Number::of(a), Number::of(b)), (Some(a), Some(b)) if a == b)
        }
        (DOCUMENT, DOCUMENT) => elements(a, b, true),
        (ARRAY, ARRAY) => elements(a, b, false),
        (a_kind, b_kind) => a_kind == b_kind && a.bytes() == b.bytes(),
    }
}

/// Whether two documents or arrays have equal values in the same order; of documents, under the same names.
fn elements(a: Value<'_>, b: Value<'_>, named: bool) -> bool {
    let (mut a, mut b) = (a.elements(), b.elements());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(Ok(a)), Some(Ok(b))) if (!named || a.name == b.name) && equal(a.value, b.value) => {}
            _ => return false,
        }
    }
}
