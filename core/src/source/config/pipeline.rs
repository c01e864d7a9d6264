//! `source.pipeline`: proves before the server is asked that no stage takes away what positions and order need.

use bson::{Bson, Document};

use crate::config::document::document;
use crate::config::entry::Entry;
use crate::config::error::ConfigError;

/// The stages a change stream takes (MongoDB manual, "Modify Change Stream Output") that can be proved harmless.
const ALLOWED: [&str; 6] = ["$match", "$project", "$addFields", "$set", "$unset", "$redact"];

/// Fields that position, id, order and scope are made from.
const NEEDED: [&str; 4] = ["_id", "operationType", "ns", "documentKey"];

/// Reads the array of stages.
///
/// # Errors
/// Not an array of one-key tables, a stage change streams do not take, or one that may change a needed field.
pub fn read(entry: &Entry<'_>) -> Result<Vec<Document>, ConfigError> {
    let mut stages = Vec::new();
    for member in entry.array("[{ \"$match\" = { operationType = \"insert\" } }]")? {
        let stage = document(&member)?;
        check(&stage).map_err(|message| member.error(message))?;
        stages.push(stage);
    }
    if stages.len() > 100 {
        return Err(entry.error(format!("{} stages, write at most 100", stages.len())));
    }
    Ok(stages)
}

fn check(stage: &Document) -> Result<(), String> {
    let (Some((name, body)), 1) = (stage.iter().next(), stage.len()) else {
        return Err("a stage is a table with one key such as \"$match\", split or fill it".to_owned());
    };
    // What these leave depends on expressions that only the server evaluates, so nothing can be proved.
    if name == "$replaceRoot" || name == "$replaceWith" {
        return Err(format!("stage \"{name}\" may remove \"_id\", which positions need, use $project, $set or $unset"));
    }
    if !ALLOWED.contains(&name.as_str()) {
        return Err(format!("stage \"{name}\" is not possible in a change stream, use one of {}", ALLOWED.join(", ")));
    }
    let touched = match name.as_str() {
        "$addFields" | "$set" => fields(body).into_iter().find_map(|(field, _)| needed(&field)),
        "$unset" => unset_fields(body).iter().find_map(|field| needed(field)),
        "$project" => projected_away(body),
        // $match keeps or drops events as they are.
        "$redact" => redacted(body),
        _ => None,
    };
    match touched {
        Some(field) => Err(format!(
            "stage \"{name}\" removes or changes \"{field}\", which positions and order need, leave {} alone",
            NEEDED.join(", ")
        )),
        None => Ok(()),
    }
}

/// The needed field that a path names or lies in.
fn needed(path: &str) -> Option<&'static str> {
    let top = path.split('.').next().unwrap_or(path);
    NEEDED.into_iter().find(|field| *field == top)
}

fn fields(body: &Bson) -> Vec<(String, Bson)> {
    body.as_document().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn unset_fields(body: &Bson) -> Vec<String> {
    let one = |value: &Bson| value.as_str().map(str::to_owned);
    match body {
        Bson::Array(values) => values.iter().filter_map(one).collect(),
        value => one(value).into_iter().collect(),
    }
}

/// An exclusion must not name a needed field; an inclusion must name each of them (`_id` is included by itself), as a
/// whole and as it is.
fn projected_away(body: &Bson) -> Option<&'static str> {
    let fields = fields(body);
    let excludes = |value: &Bson| {
        matches!(value, Bson::Int32(0) | Bson::Int64(0) | Bson::Boolean(false)) || *value == Bson::Double(0.0)
    };
    let includes = |value: &Bson| {
        matches!(value, Bson::Boolean(true))
            || matches!(value, Bson::Int32(number) if *number != 0)
            || matches!(value, Bson::Int64(number) if *number != 0)
            || matches!(value, Bson::Double(number) if *number != 0.0)
    };
    let changed = fields.iter().find(|(field, value)| !includes(value) && needed(field).is_some());
    if let Some((field, _)) = changed {
        return needed(field);
    }
    // Only a stage all of whose fields are excluded keeps the ones it does not name.
    if fields.iter().all(|(_, value)| excludes(value)) {
        return None;
    }
    NEEDED
        .into_iter()
        .find(|name| *name != "_id" && !fields.iter().any(|(field, _)| field == name))
        .or_else(|| fields.iter().find(|(field, _)| field.contains('.')).and_then(|(field, _)| needed(field)))
}

/// `$$KEEP` and `$$PRUNE` at the top keep or drop an event as a whole; only `$$DESCEND` goes on to its parts, where a
/// `$$PRUNE` takes `ns` or `documentKey` away.
fn redacted(body: &Bson) -> Option<&'static str> {
    let descends = match body {
        Bson::String(text) => text == "$$DESCEND",
        Bson::Array(values) => values.iter().any(|value| redacted(value).is_some()),
        Bson::Document(document) => document.values().any(|value| redacted(value).is_some()),
        _ => false,
    };
    descends.then_some("documentKey")
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn stages() {
        for (stage, touched) in [
            (doc! { "$match": { "ns": "x" } }, None),
            (doc! { "$set": { "extra": 1 } }, None),
            (doc! { "$addFields": { "fullDocument.x": 1 } }, None),
            (doc! { "$unset": "updateDescription" }, None),
            (doc! { "$unset": ["fullDocument.a", "b"] }, None),
            (doc! { "$project": { "fullDocument.secret": 0 } }, None),
            (doc! { "$project": { "operationType": 1, "ns": true, "documentKey": 1.0, "fullDocument": 1 } }, None),
            (doc! { "$set": { "_id": 1 } }, Some("_id")),
            (doc! { "$set": { "ns.db": "x" } }, Some("ns")),
            (doc! { "$addFields": { "operationType": "x" } }, Some("operationType")),
            (doc! { "$unset": "documentKey" }, Some("documentKey")),
            (doc! { "$unset": ["a", "_id._data"] }, Some("_id")),
            (doc! { "$project": { "_id": 0 } }, Some("_id")),
            (doc! { "$project": { "ns": false } }, Some("ns")),
            (doc! { "$project": { "fullDocument": 1 } }, Some("operationType")),
            (doc! { "$project": { "_id": 0, "fullDocument": 1 } }, Some("_id")),
            (doc! { "$project": { "operationType": "$x", "ns": 1, "documentKey": 1 } }, Some("operationType")),
            (doc! { "$project": { "operationType": 1, "ns.db": 1, "documentKey": 1 } }, Some("ns")),
            (doc! { "$project": { "operationType": 1, "ns": 1, "documentKey": 1, "_id._data": 1 } }, Some("_id")),
            (doc! { "$project": { "x": "$fullDocument" } }, Some("operationType")),
            (doc! { "$redact": { "$cond": [true, "$$KEEP", "$$PRUNE"] } }, None),
            (doc! { "$redact": { "$cond": [true, "$$DESCEND", "$$PRUNE"] } }, Some("documentKey")),
        ] {
            let expected = touched.map(|field| format!("removes or changes \"{field}\""));
            match (check(&stage), expected) {
                (Ok(()), None) => {}
                (Err(message), Some(part)) if message.contains(&part) => {}
                (result, expected) => panic!("{stage}: {result:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn stages_that_cannot_be_proved_are_refused() {
        for (stage, part) in [
            (doc! { "$replaceRoot": { "newRoot": "$fullDocument" } }, "may remove \"_id\""),
            (doc! { "$replaceWith": "$$ROOT" }, "may remove \"_id\""),
            (doc! { "$group": { "_id": 1 } }, "not possible in a change stream"),
            (doc! { "$changeStreamSplitLargeEvent": {} }, "not possible in a change stream"),
            (doc! {}, "a table with one key"),
            (doc! { "$match": {}, "$set": {} }, "a table with one key"),
        ] {
            let message = check(&stage).unwrap_err();
            assert!(message.contains(part), "{stage}: {message}");
        }
    }
}
