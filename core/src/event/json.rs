//! JSON of an event, straight from raw BSON.

use bson::RawDocument;

use super::EventId;

/// The forms of an event's JSON.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JsonForm {
    /// Relaxed Extended JSON v2.
    #[default]
    Relaxed,
    /// Canonical Extended JSON v2: every type survives.
    Canonical,
    /// JSON for readers who do not know MongoDB.
    Plain,
}

impl JsonForm {
    /// All forms, in the order of their numbers.
    pub const ALL: [JsonForm; 3] = [JsonForm::Relaxed, JsonForm::Canonical, JsonForm::Plain];
}

/// Why there is no JSON of an event. A retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Nested deeper than the server lets a document be.
    #[error("make JSON of event: nested more than {0} levels deep")]
    Depth(u32),
    /// The BSON is damaged.
    #[error("make JSON of event: not valid BSON: {0}")]
    Bson(String),
}

/// The event's JSON.
pub(super) fn event(raw: &RawDocument, id: &EventId, form: JsonForm) -> Result<Vec<u8>, JsonError> {
    let mut out = serde_json::Map::new();
    out.insert("id".into(), id.as_str().into());
    if let serde_json::Value::Object(fields) = serde_json::to_value(raw).map_err(|e| JsonError::Bson(e.to_string()))? {
        out.extend(fields.into_iter().filter(|(name, _)| name != "_id"));
    }
    let _ = form; // the three forms follow
    serde_json::to_vec(&out).map_err(|e| JsonError::Bson(e.to_string()))
}
