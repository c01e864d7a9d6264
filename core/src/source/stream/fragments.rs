//! The fragments of one split event, put together again. Pure.
//!
//! With `$changeStreamSplitLargeEvent` the server sends an event that is too large for one reply as several documents, each with
//! some of the top-level fields, `splitEvent: {fragment, of}` and a token of its own (MongoDB manual, "Large Change Stream
//! Events"; seen on mongod 6.0.27). The whole event has the last fragment's token: only behind that one nothing is missing.

use bson::{RawBsonRef, RawDocument, RawDocumentBuf, cstr};

use super::options::STUB_FIELDS;

/// Most bytes of one event put together: twice what a document with both images has, and more than any that MongoDB itself makes.
const BYTES_MAX: usize = 64 << 20;

/// The order in which the server names the fields of an event that it does not split (6.0.27), but for `_id`, which JSON leaves out.
const ORDER: [&str; 12] = [
    "txnNumber",
    "lsid",
    "operationType",
    "clusterTime",
    "collectionUUID",
    "wallTime",
    "fullDocument",
    "ns",
    "to",
    "documentKey",
    "updateDescription",
    "fullDocumentBeforeChange",
];

/// The fragments so far of the event being read.
pub(super) struct Fragments {
    parts: Vec<RawDocumentBuf>,
    /// How many came, also when they were not kept.
    taken: i64,
    bytes: usize,
    bytes_max: usize,
}

/// What a fragment has led to.
#[derive(Debug)]
pub(super) enum Taken {
    /// More are to come.
    More,
    /// The event, as the server would have sent it whole.
    Whole(RawDocumentBuf),
    /// A stub of it, because the event has so many bytes.
    TooLarge(RawDocumentBuf, usize),
}

impl Fragments {
    pub fn new() -> Fragments {
        Fragments::with_limit(BYTES_MAX)
    }

    fn with_limit(bytes_max: usize) -> Fragments {
        Fragments { parts: Vec::new(), taken: 0, bytes: 0, bytes_max }
    }

    /// True while an event has begun and not ended.
    pub fn is_amid(&self) -> bool {
        self.taken > 0
    }

    /// Forgets what was begun: the stream is opened again and the event comes anew.
    pub fn clear(&mut self) {
        *self = Fragments::with_limit(self.bytes_max);
    }

    /// Takes the next fragment.
    ///
    /// # Errors
    /// When it is not the one that has to follow, or damaged.
    pub fn take(&mut self, fragment: &RawDocument) -> Result<Taken, String> {
        let split = fragment.get_document("splitEvent").map_err(|e| e.to_string())?;
        let number = |field| match split.get(field) {
            Ok(Some(RawBsonRef::Int32(number))) => Ok(i64::from(number)),
            Ok(Some(RawBsonRef::Int64(number))) => Ok(number),
            _ => Err(format!("splitEvent.{field} is not a number")),
        };
        let (number, of) = (number("fragment")?, number("of")?);
        if number != self.taken + 1 || number > of {
            let expected = self.taken + 1;
            self.clear();
            return Err(format!("fragment {number} of {of} of a split event where fragment {expected} belongs"));
        }
        self.taken = number;
        self.bytes += fragment.as_bytes().len();
        if self.bytes > self.bytes_max {
            // From here on only what a stub needs is kept.
            for part in &mut self.parts {
                *part = stub_fields(part)?;
            }
            self.parts.push(stub_fields(fragment)?);
        } else {
            self.parts.push(fragment.to_owned());
        }
        if number < of {
            return Ok(Taken::More);
        }
        let (whole, bytes, limit) = (merge(&self.parts, fragment)?, self.bytes, self.bytes_max);
        self.clear();
        Ok(if bytes > limit { Taken::TooLarge(whole, bytes) } else { Taken::Whole(whole) })
    }
}

fn stub_fields(part: &RawDocument) -> Result<RawDocumentBuf, String> {
    let mut kept = RawDocumentBuf::new();
    for element in part.iter_elements() {
        let element = element.map_err(|e| e.to_string())?;
        if STUB_FIELDS.contains(&element.key().as_str()) {
            kept.append(element.key(), element.value().map_err(|e| e.to_string())?);
        }
    }
    Ok(kept)
}

/// All fields of the parts, in the server's usual order, under the token of `last`.
fn merge(parts: &[RawDocumentBuf], last: &RawDocument) -> Result<RawDocumentBuf, String> {
    let mut fields = Vec::new();
    for part in parts {
        for element in part.iter_elements() {
            let element = element.map_err(|e| e.to_string())?;
            let name = element.key().as_str();
            if name != "_id" && name != "splitEvent" {
                let rank = ORDER.iter().position(|field| *field == name).unwrap_or(ORDER.len());
                fields.push((rank, element));
            }
        }
    }
    fields.sort_by_key(|(rank, _)| *rank);
    let mut whole = RawDocumentBuf::new();
    whole.append(cstr!("_id"), last.get_document("_id").map_err(|e| e.to_string())?);
    for (_, element) in fields {
        whole.append(element.key(), element.value().map_err(|e| e.to_string())?);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use super::*;

    fn raw(document: &Document) -> RawDocumentBuf {
        RawDocumentBuf::try_from(document).expect("can be encoded")
    }

    /// As mongod 6.0.27 splits an update with both images.
    fn fragments() -> [Document; 3] {
        [
            doc! {
                "_id": { "_data": "a1" }, "splitEvent": { "fragment": 1, "of": 3 }, "wallTime": 3, "clusterTime": 2,
                "operationType": "update", "documentKey": { "_id": 2 }, "ns": { "db": "shop", "coll": "docs" },
                "updateDescription": { "updatedFields": { "v": 1 } },
            },
            doc! { "_id": { "_data": "a2" }, "splitEvent": { "fragment": 2, "of": 3 }, "fullDocument": { "x": "x".repeat(1000) } },
            doc! { "_id": { "_data": "a3" }, "splitEvent": { "fragment": 3, "of": 3 }, "fullDocumentBeforeChange": { "x": 1 } },
        ]
    }

    #[test]
    fn fragments_become_the_event_under_the_last_token() {
        let mut event = Fragments::new();
        let [first, second, third] = fragments().map(|fragment| raw(&fragment));
        for _ in 0..2 {
            assert!(!event.is_amid());
            assert!(matches!(event.take(&first), Ok(Taken::More)) && event.is_amid());
            assert!(matches!(event.take(&second), Ok(Taken::More)));
            let Ok(Taken::Whole(whole)) = event.take(&third) else { panic!("whole after the last") };
            let expected = doc! {
                "_id": { "_data": "a3" }, "operationType": "update", "clusterTime": 2, "wallTime": 3,
                "fullDocument": { "x": "x".repeat(1000) }, "ns": { "db": "shop", "coll": "docs" }, "documentKey": { "_id": 2 },
                "updateDescription": { "updatedFields": { "v": 1 } }, "fullDocumentBeforeChange": { "x": 1 },
            };
            assert_eq!(whole, raw(&expected));
        }
    }

    #[test]
    fn above_the_limit_only_a_stub_is_kept() {
        let mut event = Fragments::with_limit(1000);
        let parts = fragments().map(|fragment| raw(&fragment));
        assert!(matches!(event.take(&parts[0]), Ok(Taken::More)));
        assert!(matches!(event.take(&parts[1]), Ok(Taken::More)));
        let held: usize = event.parts.iter().map(|part| part.as_bytes().len()).sum();
        assert!(held < 300, "{held} bytes are kept");
        let Ok(Taken::TooLarge(stub, bytes)) = event.take(&parts[2]) else { panic!("too large after the last") };
        let expected = doc! {
            "_id": { "_data": "a3" }, "operationType": "update", "clusterTime": 2, "wallTime": 3,
            "ns": { "db": "shop", "coll": "docs" }, "documentKey": { "_id": 2 },
        };
        assert_eq!(stub, raw(&expected));
        assert_eq!(bytes, parts.iter().map(|part| part.as_bytes().len()).sum::<usize>());
        assert!(!event.is_amid());
    }

    #[test]
    fn a_fragment_out_of_order_is_an_error() {
        let [first, second, third] = fragments().map(|fragment| raw(&fragment));
        for wrong in [vec![&second], vec![&first, &third], vec![&first, &first]] {
            let mut event = Fragments::new();
            let (last, before) = wrong.split_last().expect("some");
            before.iter().for_each(|part| assert!(matches!(event.take(part), Ok(Taken::More))));
            let error = event.take(last).expect_err("out of order");
            assert!(error.contains("where fragment"), "{error}");
            assert!(!event.is_amid());
        }
        let whole = raw(&doc! { "_id": { "_data": "a1" }, "splitEvent": "mine" });
        Fragments::new().take(&whole).expect_err("not a fragment");
    }
}
