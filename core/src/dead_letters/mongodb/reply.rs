//! What the server says to a write command. Pure.

use bson::{Bson, Document};

/// A whole number of whatever type the server chose; 0 where there is none.
pub(super) fn number(document: &Document, field: &str) -> u64 {
    match document.get(field) {
        Some(Bson::Int32(number)) => u64::try_from(*number).unwrap_or(0),
        Some(Bson::Int64(number)) => u64::try_from(*number).unwrap_or(0),
        Some(Bson::Double(number)) => *number as u64,
        _ => 0,
    }
}

/// Which statements made a new document.
pub(super) fn upserted(reply: &Document) -> Vec<usize> {
    let made = reply.get_array("upserted").map(Vec::as_slice).unwrap_or_default();
    made.iter().filter_map(Bson::as_document).map(|made| number(made, "index") as usize).collect()
}

/// What went wrong in a command that succeeded as such: a statement, or the waiting for the majority.
pub(super) fn fault(reply: &Document) -> Option<(i32, String)> {
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let error = errors.iter().find_map(Bson::as_document);
    let error = error.or_else(|| reply.get_document("writeConcernError").ok())?;
    let code = number(error, "code") as i32;
    let message = error.get_str("errmsg").unwrap_or("no reason given");
    Some((code, format!("{} (code {code})", message.split_whitespace().collect::<Vec<_>>().join(" "))))
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn a_reply_tells_what_was_made_and_what_failed() {
        let fine = doc! { "ok": 1.0, "n": 3, "upserted": [{ "index": 0, "_id": 1 }, { "index": 2_i64, "_id": 2 }] };
        assert_eq!((upserted(&fine), fault(&fine)), (vec![0, 2], None));
        let error = doc! { "index": 0, "code": 11000, "errmsg": "a duplicate\n  key" };
        let failed = doc! { "ok": 1.0, "n": 0, "writeErrors": [error] };
        assert_eq!((upserted(&failed), fault(&failed)), (vec![], Some((11000, "a duplicate key (code 11000)".into()))));
        let waited = doc! { "ok": 1, "writeConcernError": { "code": 64, "errmsg": "waiting timed out" } };
        assert_eq!(fault(&waited), Some((64, "waiting timed out (code 64)".into())));
    }
}
