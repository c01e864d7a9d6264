//! When two values are equal and which is less: by value across number types, by order of fields in documents.

use std::cmp::Ordering;

use bson::{RawBson, RawDocumentBuf};

use tailwater_raw::{Element, Elements, Value, kind, number::Number};

/// A query's value. How deep it is nested bounds how deep any comparison with it goes.
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

    #[inline]
    pub fn value(&self) -> Value<'_> {
        Value::new(self.kind, &self.bytes)
    }
}

/// Whether a field equals a query's value. A missing field and `undefined` equal null.
#[inline]
pub(crate) fn equal_or_missing(found: Option<Value<'_>>, wanted: Value<'_>) -> bool {
    match found.filter(|found| found.kind() != kind::UNDEFINED) {
        None => wanted.kind() == kind::NULL,
        Some(found) => equal(found, wanted),
    }
}

/// Whether two values are one to the server, collation apart.
#[inline]
pub(crate) fn equal(a: Value<'_>, b: Value<'_>) -> bool {
    use kind::{CODE_WITH_SCOPE, DECIMAL128, DOUBLE, INT32, INT64, STRING, SYMBOL};
    match (a.kind(), b.kind()) {
        // With their lengths and final zeros, as they stand.
        (STRING | SYMBOL, STRING | SYMBOL) | (INT32, INT32) => a.bytes() == b.bytes(),
        (INT32 | INT64 | DOUBLE | DECIMAL128, INT32 | INT64 | DOUBLE | DECIMAL128) => {
            matches!((Number::of(a), Number::of(b)), (Some(a), Some(b)) if a == b)
        }
        (kind::DOCUMENT, kind::DOCUMENT) | (kind::ARRAY, kind::ARRAY) | (CODE_WITH_SCOPE, CODE_WITH_SCOPE) => {
            compare(a, b) == Some(Ordering::Equal)
        }
        (a_kind, b_kind) => a_kind == b_kind && a.bytes() == b.bytes(),
    }
}

/// The place of a type in MongoDB's order of types; of one place, values are compared with each other.
pub(crate) fn rank(kind: u8) -> i8 {
    match kind {
        kind::MIN_KEY => -1,
        kind::UNDEFINED => 0,
        kind::NULL => 5,
        kind::DOUBLE | kind::INT32 | kind::INT64 | kind::DECIMAL128 => 10,
        kind::STRING | kind::SYMBOL => 15,
        kind::DOCUMENT => 20,
        kind::ARRAY => 25,
        kind::BINARY => 30,
        kind::OBJECT_ID => 35,
        kind::BOOLEAN => 40,
        kind::DATE => 45,
        kind::TIMESTAMP => 47,
        kind::REGEX => 50,
        kind::DB_POINTER => 55,
        kind::CODE => 60,
        kind::CODE_WITH_SCOPE => 65,
        _ => 127,
    }
}

/// The server's order over all values; `None` when one of them is damaged.
pub(crate) fn compare(a: Value<'_>, b: Value<'_>) -> Option<Ordering> {
    let (a_rank, b_rank) = (rank(a.kind()), rank(b.kind()));
    if a_rank != b_rank {
        return Some(a_rank.cmp(&b_rank));
    }
    Some(match a.kind() {
        kind::DOUBLE | kind::INT32 | kind::INT64 | kind::DECIMAL128 => Number::of(a)?.cmp(&Number::of(b)?),
        kind::STRING | kind::SYMBOL | kind::CODE => a.text().cmp(b.text()),
        kind::DOCUMENT => elements(a.elements(), b.elements(), true)?,
        kind::ARRAY => elements(a.elements(), b.elements(), false)?,
        // Length first, then the subtype and the content. What stands behind the length is as long in both.
        kind::BINARY => {
            let by_len = a.bytes().len().cmp(&b.bytes().len());
            by_len.then_with(|| a.bytes().get(4..).cmp(&b.bytes().get(4..)))
        }
        kind::DB_POINTER => a.bytes().len().cmp(&b.bytes().len()).then_with(|| a.bytes().cmp(b.bytes())),
        kind::DATE => a.int64().cmp(&b.int64()),
        kind::TIMESTAMP => (a.int64() as u64).cmp(&(b.int64() as u64)),
        kind::REGEX => a.regex().cmp(&b.regex()),
        kind::CODE_WITH_SCOPE => {
            let ((a_code, a_scope), (b_code, b_scope)) = (a.code_with_scope(), b.code_with_scope());
            match a_code.text().cmp(b_code.text()) {
                Ordering::Equal => elements(a_scope.elements(), b_scope.elements(), true)?,
                order => order,
            }
        }
        // ObjectIds and booleans by their bytes; the others have none.
        _ => a.bytes().cmp(b.bytes()),
    })
}

/// Order of two documents or arrays: element by element by type, by name where names count, by value; then the shorter one first.
fn elements(mut a: Elements<'_>, mut b: Elements<'_>, named: bool) -> Option<Ordering> {
    loop {
        let (a, b): (Element<'_>, Element<'_>) = match (a.next(), b.next()) {
            (None, None) => return Some(Ordering::Equal),
            (None, Some(_)) => return Some(Ordering::Less),
            (Some(_), None) => return Some(Ordering::Greater),
            (Some(a), Some(b)) => (a.ok()?, b.ok()?),
        };
        let by_type = rank(a.value.kind()).cmp(&rank(b.value.kind()));
        let by_name = || if named { a.name.cmp(b.name) } else { Ordering::Equal };
        match by_type.then_with(by_name) {
            Ordering::Equal => {}
            order => return Some(order),
        }
        match compare(a.value, b.value)? {
            Ordering::Equal => {}
            order => return Some(order),
        }
    }
}
