//! One line of a journal: a letter as canonical Extended JSON, or `{"removed": "OUTPUT/EVENTID"}`. Pure.

use bson::{Bson, DateTime, Document, RawDocument, RawDocumentBuf, cstr};
use serde::Deserialize;

use crate::dead_letters::record::{Form, Record};
use crate::dead_letters::{LetterKey, Stored, record};

/// What the index needs to know of a line.
pub(super) enum Head {
    /// A letter.
    Letter { key: LetterKey, stub: bool, updated: DateTime },
    /// From here on there is no such letter.
    Removed(LetterKey),
}

/// A record whose event comes back byte for byte: as a document when that goes through JSON unchanged, else as binary.
pub(super) fn exact(make: impl Fn(Form) -> Record) -> Record {
    let record = make(Form::Document);
    let comes_back = to_text(&record.document).and_then(|text| to_raw(text.as_bytes()));
    if comes_back.is_ok_and(|raw| raw.as_bytes() == record.document.as_bytes()) { record } else { make(Form::Binary) }
}

/// The line of a letter, with its end.
///
/// # Errors
/// The document cannot be written as JSON: never, for one that [`exact`] made.
pub(super) fn write(record: &RawDocument, buried: DateTime, updated: DateTime) -> Result<Vec<u8>, String> {
    let mut document = record.to_owned();
    document.append(cstr!("buriedAt"), buried);
    document.append(cstr!("updatedAt"), updated);
    let mut line = to_text(&document)?.into_bytes();
    line.push(b'\n');
    Ok(line)
}

/// The line that takes a letter away, with its end.
pub(super) fn write_removed(key: &LetterKey) -> Vec<u8> {
    format!("{{\"removed\":\"{key}\"}}\n").into_bytes()
}

/// The same letter with another reason, from its line.
///
/// # Errors
/// The line is damaged.
pub(super) fn with_reason(line: &[u8], reason: &str, attempts: u32, updated: DateTime) -> Result<Vec<u8>, String> {
    let mut document = to_document(line)?;
    document.insert("reason", record::cut(reason, record::REASON_BYTES_MAX));
    document.insert("attempts", i64::from(attempts));
    document.insert("updatedAt", updated);
    let mut line = Bson::Document(document).into_canonical_extjson().to_string().into_bytes();
    line.push(b'\n');
    Ok(line)
}

/// Reads a letter; what it takes is the length of its line.
///
/// # Errors
/// The line is damaged.
pub(super) fn read(line: &[u8]) -> Result<Stored, String> {
    let mut stored = record::read(&to_raw(line)?)?;
    stored.summary.bytes = line.len() as u64;
    Ok(stored)
}

/// Reads as much of a line as the index needs; all of it must be JSON.
///
/// # Errors
/// The line is torn or damaged.
pub(super) fn read_head(line: &[u8]) -> Result<Head, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Shape {
        Removed { removed: String },
        Letter(Box<Letter>),
    }
    #[derive(Deserialize)]
    struct Letter {
        #[serde(rename = "_id")]
        id: Id,
        stub: bool,
        #[serde(rename = "updatedAt")]
        updated_at: Date,
    }
    #[derive(Deserialize)]
    struct Id {
        output: String,
        id: String,
    }
    #[derive(Deserialize)]
    struct Date {
        #[serde(rename = "$date")]
        date: Long,
    }
    #[derive(Deserialize)]
    struct Long {
        #[serde(rename = "$numberLong")]
        long: String,
    }
    match serde_json::from_slice(line).map_err(|error| error.to_string())? {
        Shape::Removed { removed } => Ok(Head::Removed(removed.parse()?)),
        Shape::Letter(letter) => {
            let key = LetterKey::new(letter.id.output, letter.id.id.parse().map_err(|error| format!("id: {error}"))?);
            let ms = letter.updated_at.date.long.parse().map_err(|error| format!("updatedAt: {error}"))?;
            Ok(Head::Letter { key, stub: letter.stub, updated: DateTime::from_millis(ms) })
        }
    }
}

fn to_text(document: &RawDocument) -> Result<String, String> {
    let document = Document::try_from(document).map_err(|error| error.to_string())?;
    Ok(Bson::Document(document).into_canonical_extjson().to_string())
}

fn to_document(line: &[u8]) -> Result<Document, String> {
    let value: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(line).map_err(|error| error.to_string())?;
    Document::try_from(value).map_err(|error| error.to_string())
}

fn to_raw(line: &[u8]) -> Result<RawDocumentBuf, String> {
    RawDocumentBuf::try_from(&to_document(line)?).map_err(|error| error.to_string())
}
