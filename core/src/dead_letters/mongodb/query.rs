//! What is asked of the collection, as documents. Pure.

use bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, cstr, doc, rawdoc};

use crate::dead_letters::record::Record;
use crate::dead_letters::{Chosen, Filter, LetterKey, Letters};
use crate::event::EventId;

/// `_id` of a letter. The order of its fields is the order of an output's letters.
pub(super) fn id(name: &str, key: &LetterKey) -> Document {
    doc! { "name": name, "output": &key.output, "id": key.id.as_str() }
}

/// These letters.
pub(super) fn these(name: &str, keys: &[LetterKey]) -> Document {
    let ids: Vec<Document> = keys.iter().map(|key| id(name, key)).collect();
    doc! { "_id": { "$in": ids } }
}

/// The letters of an output behind `after`, as a range of `_id`.
fn behind(name: &str, output: &str, after: Option<EventId>) -> Document {
    let after = after.as_ref().map_or("", EventId::as_str);
    doc! { "_id": {
        "$gt": { "name": name, "output": output, "id": after },
        "$lt": { "name": name, "output": output, "id": Bson::MaxKey },
    } }
}

/// A page of a list and its order.
pub(super) fn list(name: &str, filter: &Filter) -> (Document, Document) {
    if let Some(output) = &filter.output {
        // Of another output's letter the id counts.
        let after = filter.after.as_ref().map(|key| key.id);
        return (behind(name, output, after), doc! { "_id": 1 });
    }
    let mut query = doc! { "_id.name": name };
    if let Some(after) = &filter.after {
        let id = after.id.as_str();
        query.insert("_id.id", doc! { "$gte": id });
        query.insert("$or", vec![doc! { "_id.id": { "$gt": id } }, doc! { "_id.output": { "$gt": &after.output } }]);
    }
    (query, doc! { "_id.id": 1, "_id.output": 1 })
}

/// Letters of one output to deliver again; `None` when there can be none.
pub(super) fn load(
    name: &str,
    output: &str,
    letters: &Letters,
    after: Option<EventId>,
    limit: usize,
) -> Option<Document> {
    let ids = match letters {
        // A limit of 0 would be none.
        _ if limit == 0 => return None,
        Letters::All => return Some(behind(name, output, after)),
        Letters::Of(ids) => ids.iter().filter(|id| after.is_none_or(|after| **id > after)),
    };
    let keys: Vec<LetterKey> = ids.map(|id| LetterKey::new(output, *id)).collect();
    (!keys.is_empty()).then(|| these(name, &keys))
}

/// What an operator chose.
pub(super) fn chosen(name: &str, chosen: &Chosen) -> Document {
    if chosen.all {
        return doc! { "_id.name": name };
    }
    let ids: Vec<Document> = chosen.keys.iter().map(|key| id(name, key)).collect();
    let events: Vec<&str> = chosen.events.iter().map(EventId::as_str).collect();
    let outputs: Vec<&str> = chosen.outputs.iter().map(String::as_str).collect();
    let any = vec![
        doc! { "_id.output": { "$in": outputs } },
        doc! { "_id.id": { "$in": events } },
        doc! { "_id": { "$in": ids } },
    ];
    doc! { "_id.name": name, "$or": any }
}

/// The index that answers [`account`] and finds letters of another `expire_after`, without reading a letter.
pub(super) fn account_keys() -> Document {
    doc! { "_id.name": 1, "expireAfterMs": 1, "_id.output": 1, "stub": 1, "bytes": 1 }
}

/// Letters and bytes per output.
pub(super) fn account(name: &str) -> Vec<Document> {
    let group = doc! { "_id": "$_id.output", "letters": { "$sum": 1 }, "bytes": { "$sum": "$bytes" } };
    vec![doc! { "$match": { "_id.name": name } }, doc! { "$group": group }]
}

/// How many letters are chosen, and how many of them are stubs.
pub(super) fn count(name: &str, selected: &Chosen) -> Vec<Document> {
    let stubs = doc! { "$sum": { "$cond": ["$stub", 1, 0] } };
    let group = doc! { "_id": Bson::Null, "letters": { "$sum": 1 }, "stubs": stubs };
    vec![doc! { "$match": chosen(name, selected) }, doc! { "$group": group }]
}

/// One statement of an `update`: writes a record whole, keeping the time when it first came. `$$NOW` is the server's clock:
/// instances need not agree on the time.
pub(super) fn upsert(record: &Record, expire_after_ms: i64) -> RawDocumentBuf {
    let times = rawdoc! {
        "buriedAt": { "$ifNull": ["$buriedAt", "$$NOW"] },
        "updatedAt": "$$NOW",
        "expireAt": { "$add": ["$$NOW", expire_after_ms] },
        "expireAfterMs": expire_after_ms,
    };
    let mut literal = RawDocumentBuf::new();
    literal.append(cstr!("$literal"), &*record.document);
    let mut both = RawArrayBuf::new();
    both.push(literal);
    both.push(times);
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(rawdoc! { "$replaceWith": { "$mergeObjects": both } });
    let mut query = RawDocumentBuf::new();
    if let Ok(id) = record.document.get_document("_id") {
        query.append(cstr!("_id"), id);
    }
    let mut statement = RawDocumentBuf::new();
    statement.append(cstr!("q"), query);
    statement.append(cstr!("u"), pipeline);
    statement.append(cstr!("upsert"), true);
    statement
}
