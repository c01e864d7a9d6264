//! JSON of a document, written straight from raw BSON in one of three forms.
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

mod plain;
mod scalar;
mod value;

use bson::RawDocument;

use crate::Damaged;
pub use plain::Plain;
pub use value::Writer;

/// The forms of JSON.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JsonForm {
    /// Relaxed Extended JSON v2: numbers and usual dates are readable, all other types are tagged.
    #[default]
    Relaxed,
    /// Canonical Extended JSON v2: every type survives.
    Canonical,
    /// For readers who do not know MongoDB; see the table of this module.
    Plain,
}

impl JsonForm {
    /// All forms, in the order of their numbers.
    pub const ALL: [JsonForm; 3] = [JsonForm::Relaxed, JsonForm::Canonical, JsonForm::Plain];

    /// A buffer for the JSON of so many bytes of BSON: tags make the canonical form up to three times as long, the others stay near
    /// its length.
    pub fn capacity(self, bson_bytes: usize) -> usize {
        let factor = if self == JsonForm::Canonical { 2 } else { 1 };
        bson_bytes * factor + 64
    }
}

/// Why there is no JSON of a document. A retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Nested deeper than the server lets a document be.
    #[error("make JSON: nested more than {0} levels deep")]
    Depth(u32),
    /// The BSON is damaged.
    #[error("make JSON: not valid BSON: {0}")]
    Bson(String),
}

/// Levels of documents and arrays. The server stores fewer than 200, and an event adds one. The writer itself needs no bound, since
/// it works through levels in a loop; readers of JSON do.
pub const LEVELS_MAX: u32 = 250;

/// A whole document.
///
/// # Errors
/// When it is damaged or nested too deep.
pub fn document(document: &RawDocument, form: JsonForm) -> Result<Vec<u8>, JsonError> {
    let mut writer = Writer::new(form, form.capacity(document.as_bytes().len()));
    writer.document(crate::Elements::of(document), 1)?;
    writer.finish()
}

impl From<Damaged> for JsonError {
    fn from(damaged: Damaged) -> JsonError {
        JsonError::Bson(damaged.to_string())
    }
}

#[cfg(test)]
mod tests;
