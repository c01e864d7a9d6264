//! The document a dead letter is stored as, the same in both stores, and back. Knows no store.
//!
//! `_id` {name, output, id}, `kind`, `reason`, `attempts`, `operationType`, `ns`, `documentKey`, `token`, `event`, `stub`,
//! `truncated`, `bytes`, and `projection` where the event came out of one: its fingerprint; the store adds `buriedAt` and `updatedAt`.
//! Letters of versions without projections have none. `event` is the change event as a document, or as binary
//! where a document would not come back byte for byte.

use bson::spec::BinarySubtype;
use bson::{Binary, DateTime, RawBsonRef, RawDocument, RawDocumentBuf, cstr};

use super::letter::{Kind, Letter, LetterKey, Stored, Summary};
use crate::event::projection::Fingerprint;

/// Longest reason that is kept.
pub const REASON_BYTES_MAX: usize = 4 << 10;

/// Largest `documentKey` and `token` that are kept outside of the event, so that a page of a list stays small.
const ASIDE_BYTES_MAX: usize = 16 << 10;

/// Largest record: MongoDB's 16 MiB, less what a store and a command put around it.
const RECORD_BYTES_MAX: usize = (16 << 20) - (32 << 10);

/// What the store adds to a record, and its index entries, roughly.
const OVERHEAD_BYTES: usize = 256;

/// Deepest event that is embedded; mongod counts every level of what it stores, and of the command around it.
const DEPTH_MAX: usize = 64;

/// How the event is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As a document where that can be done, for whoever looks into the store.
    Document,
    /// As binary.
    Binary,
}

/// A letter, ready to be stored.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its name.
    pub key: LetterKey,
    /// The document, without what the store adds.
    pub document: RawDocumentBuf,
    /// What it will take in MongoDB.
    pub bytes: u64,
    /// There is no whole event in it.
    pub stub: bool,
}

impl Record {
    /// Makes the document; an event that is too large for it is left out.
    pub fn new(name: &str, letter: &Letter, form: Form) -> Record {
        let event = letter.event.raw();
        let form = if is_plain(event, DEPTH_MAX) { form } else { Form::Binary };
        let mut document = head(name, letter);
        let whole = document.as_bytes().len() + event.as_bytes().len() <= RECORD_BYTES_MAX;
        if whole {
            match form {
                Form::Document => document.append(cstr!("event"), event),
                Form::Binary => {
                    let bytes = event.as_bytes().to_vec();
                    document.append(cstr!("event"), Binary { subtype: BinarySubtype::Generic, bytes });
                }
            }
        }
        let stub = !whole || letter.event.poison().is_some() || matches!(letter.kind, Kind::Poison | Kind::Gap);
        let bytes = (document.as_bytes().len() + OVERHEAD_BYTES) as u64;
        document.append(cstr!("stub"), stub);
        document.append(cstr!("truncated"), !whole);
        document.append(cstr!("bytes"), bytes as i64);
        Record { key: LetterKey::new(letter.output.clone(), letter.id), document, bytes, stub }
    }
}

/// Everything but the event.
fn head(name: &str, letter: &Letter) -> RawDocumentBuf {
    let event = &letter.event;
    let mut id = RawDocumentBuf::new();
    id.append(cstr!("name"), name);
    id.append(cstr!("output"), letter.output.as_str());
    id.append(cstr!("id"), letter.id.as_str());
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), id);
    document.append(cstr!("kind"), letter.kind.word());
    document.append(cstr!("reason"), cut(&letter.reason, REASON_BYTES_MAX).as_str());
    document.append(cstr!("attempts"), i64::from(letter.attempts));
    document.append(cstr!("operationType"), cut(event.operation_type(), 64).as_str());
    let ns = match (event.db(), event.coll()) {
        ("", _) => String::new(),
        (db, "") => db.to_owned(),
        (db, coll) => format!("{db}.{coll}"),
    };
    document.append(cstr!("ns"), cut(&ns, ASIDE_BYTES_MAX).as_str());
    if let Some(key) = event.document_key().filter(|key| is_aside(key)) {
        document.append(cstr!("documentKey"), key);
    }
    let token = event.token().document();
    if is_aside(token) {
        document.append(cstr!("token"), token);
    }
    if let Some(projection) = event.projection() {
        document.append(cstr!("projection"), projection.text().as_str());
    }
    document
}

/// At most `bytes_max` bytes of a text, and an ellipsis where something is missing.
pub fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mark = '…';
    let end = text.floor_char_boundary(bytes_max - mark.len_utf8());
    format!("{}{mark}", &text[..end])
}

fn is_aside(document: &RawDocument) -> bool {
    document.as_bytes().len() <= ASIDE_BYTES_MAX && is_plain(document, DEPTH_MAX)
}

/// Whether the document can be stored inside of another one: no name that begins with `$` (older servers refuse it, Extended
/// JSON has a meaning for it), not too deep, and readable.
fn is_plain(document: &RawDocument, depth: usize) -> bool {
    depth > 0
        && document.iter().all(|element| match element {
            Ok((key, value)) => !key.as_str().starts_with('$') && is_plain_value(value, depth - 1),
            Err(_) => false,
        })
}

fn is_plain_value(value: RawBsonRef<'_>, depth: usize) -> bool {
    match value {
        RawBsonRef::Document(document) => is_plain(document, depth),
        RawBsonRef::Array(array) => {
            depth > 0 && array.into_iter().all(|value| value.is_ok_and(|value| is_plain_value(value, depth - 1)))
        }
        _ => true,
    }
}

/// Reads a stored document; the event may have been left out of the query.
///
/// # Errors
/// What is wrong with it. A retry does not help.
pub fn read(document: &RawDocument) -> Result<Stored, String> {
    let text = |field: &str| document.get_str(field).map_err(|error| error.to_string());
    let id = document.get_document("_id").map_err(|error| error.to_string())?;
    let output = id.get_str("output").map_err(|error| error.to_string())?;
    let event_id = id.get_str("id").map_err(|error| error.to_string())?;
    let key = LetterKey::new(output, event_id.parse().map_err(|error| format!("_id.id: {error}"))?);
    let kind = text("kind")?;
    let time = |field: &str| -> Result<DateTime, String> { document.get_datetime(field).map_err(|e| e.to_string()) };
    let event = match document.get("event").map_err(|error| error.to_string())? {
        Some(RawBsonRef::Document(event)) => Some(event.to_owned()),
        Some(RawBsonRef::Binary(event)) => {
            Some(RawDocumentBuf::from_bytes(event.bytes.to_vec()).map_err(|error| format!("event: {error}"))?)
        }
        Some(other) => return Err(format!("event is a {:?}", other.element_type())),
        None => None,
    };
    let flag = |field| document.get_bool(field).map_err(|error| error.to_string());
    let number = |field| match document.get(field) {
        Ok(Some(RawBsonRef::Int32(number))) => Ok(i64::from(number)),
        Ok(Some(RawBsonRef::Int64(number))) => Ok(number),
        Ok(_) => Err(format!("{field} is no whole number")),
        Err(error) => Err(error.to_string()),
    };
    Ok(Stored {
        summary: Summary {
            key,
            kind: Kind::from_word(kind).ok_or_else(|| format!("kind {kind:?} is not known"))?,
            reason: text("reason")?.to_owned(),
            attempts: number("attempts")?.clamp(0, u32::MAX.into()) as u32,
            operation_type: text("operationType")?.to_owned(),
            ns: text("ns")?.to_owned(),
            document_key: document.get_document("documentKey").ok().map(ToOwned::to_owned),
            buried_at: time("buriedAt")?,
            updated_at: time("updatedAt")?,
            bytes: number("bytes")?.max(0) as u64,
            truncated: flag("truncated")?,
            stub: flag("stub")?,
        },
        token: document.get_document("token").ok().map(ToOwned::to_owned),
        projection: match document.get("projection").map_err(|error| error.to_string())? {
            None => None,
            Some(found) => Some(found.as_str().and_then(Fingerprint::from_text).ok_or("projection is no fingerprint")?),
        },
        event,
    })
}

#[cfg(test)]
mod tests {
    use bson::{Bson, doc, rawdoc};
    use std::sync::Arc;

    use super::*;
    use crate::event::fixture::{event, token_data};
    use crate::event::{Event, RowHead};

    fn letter(event: Arc<Event>) -> Letter {
        let (output, reason) = ("live".to_owned(), "no".to_owned());
        Letter { output, id: *event.id(), kind: Kind::Rejected, reason, attempts: 3, event }
    }

    fn event_of(fields: bson::Document) -> Arc<Event> {
        let mut document = doc! { "_id": { "_data": token_data(1, 1, 0) }, "operationType": "insert" };
        document.extend(fields);
        Arc::new(Event::from_raw(&RawDocumentBuf::try_from(&document).unwrap()).unwrap())
    }

    #[test]
    fn a_row_of_a_snapshot_is_read_back_with_its_id() {
        let time = bson::Timestamp { time: 100, increment: 7 }.into();
        let head = RowHead::new(time, "shop", "orders").unwrap();
        let ids = [
            Bson::Int32(5),
            Bson::Int64(5),
            Bson::Double(5.5),
            Bson::String("a/b".into()),
            doc! { "$a": 1, "b": [2] }.into(),
            bson::oid::ObjectId::new().into(),
            Bson::Null,
        ];
        for id in ids {
            let document = RawDocumentBuf::try_from(&doc! { "_id": &id, "$x": { "$y": 1 }, "z": "é" }).unwrap();
            let row = Arc::new(Event::from_row(&head, &document).unwrap());
            let letter = letter(Arc::clone(&row));
            for form in [Form::Document, Form::Binary] {
                let back = stored(&Record::new("default", &letter, form)).letter().expect("whole");
                assert_eq!((back.id, back.event.id(), back.event.is_row()), (letter.id, row.id(), true), "{id}");
                assert_eq!(back.event.raw().as_bytes(), row.raw().as_bytes(), "{id}");
            }
        }
    }

    /// As a store gives it back.
    fn stored(record: &Record) -> Stored {
        let mut document = record.document.clone();
        document.append(cstr!("buriedAt"), DateTime::from_millis(1));
        document.append(cstr!("updatedAt"), DateTime::from_millis(2));
        read(&document).expect("readable")
    }

    #[test]
    fn a_letter_is_read_back_with_its_event_byte_for_byte() {
        let mut deep = doc! { "a": 1 };
        for _ in 0..100 {
            deep = doc! { "a": deep };
        }
        for (event, embedded) in [
            (event(&token_data(7, 1, 2), Some(5), 10), true),
            (event_of(doc! { "fullDocument": { "$where": 1 } }), false),
            (event_of(doc! { "fullDocument": { "x": [{ "y": [{ "$z": 1 }] }] } }), false),
            (event_of(doc! { "fullDocument": { "a.b": 1, "": Bson::Undefined } }), true),
            (event_of(doc! { "fullDocument": deep }), false),
        ] {
            let letter = letter(Arc::clone(&event));
            let record = Record::new("default", &letter, Form::Document);
            assert_eq!(record.document.get_document("event").is_ok(), embedded, "{event:?}");
            for record in [record, Record::new("default", &letter, Form::Binary)] {
                let back = stored(&record).letter().expect("whole");
                assert_eq!(back.event.raw().as_bytes(), event.raw().as_bytes());
                assert_eq!(
                    (back.id, back.output, back.reason, back.attempts),
                    (letter.id, "live".into(), "no".into(), 3)
                );
            }
        }
    }

    /// What came out of a projection has another documentKey, and would have another id; a replay must see that it went through it.
    #[test]
    fn a_projected_event_keeps_its_id_and_its_projection() {
        let projection = crate::event::projection::fixture("exclude = [\"documentKey\", \"fullDocument.padding\"]");
        let whole = event(&token_data(7, 1, 2), Some(5), 10);
        let projected = Arc::clone(whole.projected(&projection));
        let letter = letter(Arc::clone(&projected));
        for form in [Form::Document, Form::Binary] {
            let record = Record::new("default", &letter, form);
            assert!(!record.document.as_bytes().windows(7).any(|bytes| bytes == b"padding"));
            let stored = stored(&record);
            assert_eq!((stored.projection, &stored.summary.document_key), (Some(projection.fingerprint()), &None));
            let back = stored.letter().expect("whole").event;
            assert_eq!((back.id(), back.projection()), (whole.id(), Some(projection.fingerprint())));
            assert_eq!(back.raw().as_bytes(), projected.raw().as_bytes());
            // Without it, as in a letter of before, the id must be the event's.
            let other = Stored { projection: None, ..stored };
            assert!(other.letter().unwrap_err().contains("cannot be made again"));
        }
        let mut damaged = Record::new("default", &letter, Form::Document).document;
        damaged.append(cstr!("buriedAt"), DateTime::from_millis(1));
        damaged.append(cstr!("updatedAt"), DateTime::from_millis(2));
        let text = projection.fingerprint().text();
        let at = damaged.as_bytes().windows(32).position(|bytes| bytes == text.as_bytes()).expect("there");
        let mut bytes = damaged.into_bytes();
        bytes[at] = b'x';
        let damaged = RawDocumentBuf::from_bytes(bytes).expect("BSON");
        assert_eq!(read(&damaged).unwrap_err(), "projection is no fingerprint");
    }

    #[test]
    fn what_is_too_large_is_left_out() {
        let whole = Record::new("default", &letter(event(&token_data(7, 1, 2), Some(5), 16_700_000)), Form::Document);
        assert!(!whole.stub && whole.document.as_bytes().len() > 16_700_000);
        let record = Record::new("default", &letter(event(&token_data(7, 1, 2), Some(5), 16_760_000)), Form::Document);
        let back = stored(&record);
        assert!(back.summary.truncated && back.summary.stub && back.event.is_none() && record.bytes < 2_000);
        assert_eq!(back.summary.document_key, Some(rawdoc! { "_id": 5 }));
        assert_eq!((back.summary.ns.as_str(), back.summary.operation_type.as_str()), ("shop.orders", "insert"));
        assert!(back.token.is_some());
        assert!(back.letter().unwrap_err().contains("kept only as a stub"));
        // A documentKey that is huge itself.
        let key = event_of(doc! { "documentKey": { "_id": "x".repeat(9 << 20) }, "fullDocument": "x".repeat(9 << 20) });
        let record = Record::new("default", &letter(key), Form::Document);
        assert!(record.bytes < 2_000 && stored(&record).summary.document_key.is_none());
    }

    #[test]
    fn stubs_are_not_replayed_and_a_reason_is_bounded() {
        let raw = rawdoc! { "_id": { "_data": token_data(7, 1, 2) }, "operationType": "insert" };
        let poison = Arc::new(Event::from_poison(&raw, "above 16 MB".into()).unwrap());
        let poison = Letter { kind: Kind::Poison, reason: "ü".repeat(4_000), ..letter(poison) };
        let back = stored(&Record::new("default", &poison, Form::Document));
        assert!(back.summary.stub && !back.summary.truncated && back.event.is_some());
        assert!(back.summary.reason.len() <= REASON_BYTES_MAX && back.summary.reason.ends_with("ü…"));
        assert!(back.letter().unwrap_err().starts_with("kept only as a stub: ü"));
        let gap = Letter { kind: Kind::Gap, ..letter(event(&token_data(7, 1, 2), Some(5), 1)) };
        assert!(stored(&Record::new("default", &gap, Form::Document)).letter().unwrap_err().starts_with("a gap"));
    }
}
