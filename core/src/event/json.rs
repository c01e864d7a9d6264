//! JSON of an event, written straight from raw BSON in one of three forms.
//!
//! Relaxed and canonical are MongoDB's Extended JSON v2 (specifications `source/extended-json/extended-json.md`). Plain is for
//! readers who do not know MongoDB:
//!
//! | BSON | plain |
//! | --- | --- |
//! | double | number; "NaN", "Infinity", "-Infinity" |
//! | int | number |
//! | long | number; beyond ±(2^53 - 1), where JavaScript would lose digits, a string |
//! | Decimal128 | string |
//! | ObjectId | string of 24 hex digits |
//! | date | RFC 3339 in UTC with milliseconds; outside the years 0 to 9999 the number of milliseconds since 1970 |
//! | timestamp | `{"t": seconds, "i": increment}` |
//! | binary | base64; a UUID (subtype 4, 16 bytes) hyphenated |
//! | regular expression | "/pattern/options" |
//! | JavaScript | the code; with scope `{"code": …, "scope": {…}}` |
//! | symbol | string |
//! | DBPointer | `{"ref": namespace, "id": ObjectId}` |
//! | undefined | null |
//! | MinKey, MaxKey | "MinKey", "MaxKey" |
//!
//! In all forms the event's fields keep the server's names and order. `id`, the event id, stands first; `_id`, the resume
//! token, is left out, and so is a field `id` that a pipeline may have added.

mod scalar;
mod value;

use bson::RawDocument;
use tailwater_match::raw::{Damaged, Elements};

use self::value::Writer;
use super::EventId;

/// The forms of an event's JSON.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JsonForm {
    /// Relaxed Extended JSON v2: numbers and usual dates are readable, all other types are tagged.
    #[default]
    Relaxed,
    /// Canonical Extended JSON v2: every type survives.
    Canonical,
    /// For readers who do not know MongoDB; see the table in `event/json.rs`.
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

/// Levels of documents and arrays. The server stores fewer than 200, and an event adds one.
const LEVELS_MAX: u32 = 250;

/// The event's JSON.
pub(super) fn event(raw: &RawDocument, id: &EventId, form: JsonForm) -> Result<Vec<u8>, JsonError> {
    // Tags make canonical JSON up to three times as long as the BSON; the other forms stay near its length.
    let factor = if form == JsonForm::Canonical { 2 } else { 1 };
    let mut writer = Writer::new(form, raw.as_bytes().len() * factor + 64);
    writer.raw(b"{\"id\":\"");
    writer.raw(id.as_str().as_bytes());
    writer.raw(b"\"");
    for element in Elements::of(raw) {
        let element = element?;
        if element.name != b"_id" && element.name != b"id" {
            writer.raw(b",");
            writer.field(&element, 1)?;
        }
    }
    writer.raw(b"}");
    let json = writer.finish();
    // Once for all texts and names: between them stands ASCII, so that the whole is UTF-8 when each of them is.
    match std::str::from_utf8(&json) {
        Ok(_) => Ok(json),
        Err(_) => Err(Damaged::Text.into()),
    }
}

impl From<Damaged> for JsonError {
    fn from(damaged: Damaged) -> JsonError {
        JsonError::Bson(damaged.to_string())
    }
}

#[cfg(test)]
mod tests;
