//! When two values are equal: by value across number types, by order of fields in documents.

use bson::{RawArray, RawBsonRef, RawDocument};

use crate::number::Number;

/// Whether a field equals a query's value. A missing field equals null.
pub(crate) fn equal_or_missing(found: Option<RawBsonRef<'_>>, wanted: RawBsonRef<'_>) -> bool {
    match found {
        None | Some(RawBsonRef::Undefined) => wanted == RawBsonRef::Null,
        Some(found) => equal(found, wanted),
    }
}

/// Whether two values are one to the server, collation apart.
pub(crate) fn equal(a: RawBsonRef<'_>, b: RawBsonRef<'_>) -> bool {
    use RawBsonRef::{Array, Decimal128, Document, Double, Int32, Int64, String, Symbol};
    match (a, b) {
        (String(a) | Symbol(a), String(b) | Symbol(b)) => a == b,
        (Int32(a), Int32(b)) => a == b,
        (Int32(_) | Int64(_) | Double(_) | Decimal128(_), Int32(_) | Int64(_) | Double(_) | Decimal128(_)) => {
            matches!((Number::of(a), Number::of(b)), (Some(a), Some(b)) if a == b)
        }
        (Document(a), Document(b)) => documents(a, b),
        (Array(a), Array(b)) => arrays(a, b),
        (a, b) => a == b,
    }
}

fn documents(a: &RawDocument, b: &RawDocument) -> bool {
    let (mut a, mut b) = (a.iter_elements(), b.iter_elements());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(Ok(a)), Some(Ok(b))) if a.key() == b.key() => match (a.value(), b.value()) {
                (Ok(a), Ok(b)) if equal(a, b) => {}
                _ => return false,
            },
            _ => return false,
        }
    }
}

fn arrays(a: &RawArray, b: &RawArray) -> bool {
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(Ok(a)), Some(Ok(b))) if equal(a, b) => {}
            _ => return false,
        }
    }
}
