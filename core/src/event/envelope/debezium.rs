//! The value of a message of Debezium's connector for MongoDB, as its JSON converter writes it with `schemas.enable = false`.
//!
//! Facts from debezium/debezium, `debezium-connector-mongodb/src/main/java/io/debezium/connector/mongodb/`:
//!
//! | what | where |
//! | --- | --- |
//! | `before`, `after`, `updateDescription`, `source`, `op`, `ts_ms`, `transaction`, in this order; what is not there is null | `MongoDbSchema.java` |
//! | `before` and `after` are strings that hold JSON; `before` of updates and deletes only, where there is a pre-image | `MongoDbCollectionSchema.java` |
//! | `updateDescription`: `removedFields`, a list; `updatedFields`, a string that holds JSON; `truncatedArrays`, a list of `{field, size}`; an empty list is null | `MongoDbCollectionSchema.java`, `MongoDbFieldName.java` |
//! | `op`: insert c, update and replace u, delete d; r is a row of a snapshot | `MongoDbChangeStreamChangeRecordEmitter.java`, `debezium-core` `Envelope.java` |
//! | `source`: `version`, `connector`, `name`, `ts_ms` (the cluster time's second), `snapshot`, `db`, `sequence`, `collection`, `ord` (the cluster time's increment), `lsid` (a string that holds JSON), `txnNumber`, `wallTime` (milliseconds) | `MongoDbSourceInfoStructMaker.java`, `SourceInfo.java` |
//! | a message's key is `{id}`, a string that holds the JSON of `_id` | `JsonSerialization.java` |
//!
//! Where this differs, and why:
//!
//! - `id` and `key` are there in addition: the event id, by which a receiver knows a redelivery, and the key, which in Kafka stands beside the
//!   value. Of a delete without a pre-image nothing else says which document it was.
//! - The JSON in strings has the output's form (`json`), Extended JSON v2; Debezium writes version 1 of it ("strict").
//! - `ts_ms` is when the change was made, as far as MongoDB says, not when it was processed: the same text for every try and output.
//! - `source.version` is Tailwater's, `source.name` the deployment's `name`; `snapshot` is `"true"` or `"false"`, without the words for first
//!   and last rows; there are no `ts_us` and `ts_ns`; `transaction` is null, as it is in Debezium unless metadata of transactions are on.
//! - What Debezium does not publish (drop, rename, a gap, …) has no `op`, and `event` with the event's own JSON.

use bson::RawDocument;
use tailwater_raw::json::{Writer, document};
use tailwater_raw::{Elements, Value, kind};

use super::string;
use crate::event::{Event, JsonError, JsonForm, RowHead, json};

/// The whole text.
pub(super) fn event(event: &Event, form: JsonForm, deployment: &str) -> Result<Vec<u8>, JsonError> {
    let op = match event.operation_type() {
        "insert" => Some("c"),
        "update" | "replace" => Some("u"),
        "delete" => Some("d"),
        RowHead::OPERATION_TYPE if event.is_row() => Some("r"),
        _ => None,
    };
    // What is in strings is escaped once more.
    let mut writer = Writer::new(form, form.capacity(event.raw().as_bytes().len()) * 5 / 4 + 512);
    writer.raw(format!("{{\"id\":\"{}\",\"key\":", event.id()).as_bytes());
    match event.document_key().map(|key| Elements::of(key).find(b"_id")).transpose()?.flatten() {
        Some(id) => writer.raw(format!("{{\"id\":{}}}", text(id.value, form)?).as_bytes()),
        None => writer.raw(b"null"),
    }
    if op.is_some() {
        let before = event.full_document_before_change();
        writer.raw(format!(",\"before\":{}", held(before, form)?).as_bytes());
        writer.raw(format!(",\"after\":{}", held(event.full_document(), form)?).as_bytes());
        writer.raw(b",\"updateDescription\":");
        match event.update_description() {
            Some(update) => writer.raw(&description(update, form)?),
            None => writer.raw(b"null"),
        }
    } else {
        writer.raw(b",\"event\":");
        json::write(&mut writer, event.raw(), event.id())?;
    }
    writer.raw(format!(",\"source\":{}", source(event, form, deployment)?).as_bytes());
    if let Some(op) = op {
        writer.raw(format!(",\"op\":\"{op}\"").as_bytes());
    }
    writer.raw(format!(",\"ts_ms\":{},\"transaction\":null}}", event.time_ms()).as_bytes());
    writer.finish()
}

fn source(event: &Event, form: JsonForm, deployment: &str) -> Result<String, JsonError> {
    let time = event.token().position().time;
    let (mut lsid, mut txn) = ("null".to_owned(), "null".to_owned());
    for field in Elements::of(event.raw()) {
        let field = field?;
        match (field.name, field.value.kind()) {
            (b"lsid", kind::DOCUMENT) => lsid = text(field.value, form)?,
            (b"txnNumber", kind::INT64) => txn = field.value.int64().to_string(),
            (b"txnNumber", kind::INT32) => txn = field.value.int32().to_string(),
            _ => {}
        }
    }
    let wall_time = event.wall_time_ms().map_or("null".to_owned(), |ms| ms.to_string());
    Ok(format!(
        "{{\"version\":\"{}\",\"connector\":\"mongodb\",\"name\":{},\"ts_ms\":{},\"snapshot\":\"{}\",\"db\":{},\"sequence\":null,\
         \"collection\":{},\"ord\":{},\"lsid\":{lsid},\"txnNumber\":{txn},\"wallTime\":{wall_time}}}",
        env!("CARGO_PKG_VERSION"),
        string(deployment),
        u64::from(time.seconds()) * 1000,
        event.is_row(),
        string(event.db()),
        string(event.coll()),
        time.increment(),
    ))
}

fn description(update: &RawDocument, form: JsonForm) -> Result<Vec<u8>, JsonError> {
    let (mut removed, mut updated, mut truncated) = (Vec::new(), "null".to_owned(), Vec::new());
    for part in Elements::of(update) {
        let part = part?;
        match (part.name, part.value.kind()) {
            (b"updatedFields", kind::DOCUMENT) => updated = text(part.value, form)?,
            (b"removedFields", kind::ARRAY) => {
                for field in part.value.elements() {
                    removed.push(json_of(field?.value, form)?);
                }
            }
            (b"truncatedArrays", kind::ARRAY) => {
                for array in part.value.elements() {
                    let fields = array?.value.elements();
                    let (field, size) = (fields.clone().find(b"field")?, fields.find(b"newSize")?);
                    if let (Some(field), Some(size)) = (field, size) {
                        // A count, whatever the form makes of numbers.
                        let size = json_of(size.value, JsonForm::Relaxed)?;
                        truncated.push(format!("{{\"field\":{},\"size\":{size}}}", json_of(field.value, form)?));
                    }
                }
            }
            _ => {}
        }
    }
    let list = |items: Vec<String>| if items.is_empty() { "null".to_owned() } else { format!("[{}]", items.join(",")) };
    let (removed, truncated) = (list(removed), list(truncated));
    let whole = format!("{{\"removedFields\":{removed},\"updatedFields\":{updated},\"truncatedArrays\":{truncated}}}");
    Ok(whole.into_bytes())
}

/// A document as a string that holds JSON, or null.
fn held(found: Option<&RawDocument>, form: JsonForm) -> Result<String, JsonError> {
    let Some(found) = found else { return Ok("null".to_owned()) };
    Ok(string(&String::from_utf8_lossy(&document(found, form)?)))
}

/// A value as a string that holds JSON.
fn text(value: Value<'_>, form: JsonForm) -> Result<String, JsonError> {
    Ok(string(&json_of(value, form)?))
}

fn json_of(value: Value<'_>, form: JsonForm) -> Result<String, JsonError> {
    let mut writer = Writer::new(form, form.capacity(value.bytes().len()));
    writer.value(value, 1)?;
    Ok(String::from_utf8(writer.finish()?).unwrap_or_default())
}
