//! What the admin API and the command line say to each other about dead letters, as JSON. A selection is
//! [`super::Selection`]; an error is `{"error": "…"}` with a status from 400 on.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /api/dead-letters?output=O&limit=N&after=OUTPUT/ID` | [`Listed`] |
//! | `GET /api/dead-letters/OUTPUT/ID` | [`Whole`] |
//! | `POST /api/dead-letters/replay`, a selection | [`Job`] |
//! | `GET /api/dead-letters/replay/JOB` | [`Progress`] |
//! | `POST /api/dead-letters/drop`, a selection | [`Dropped`] |

use bson::{Bson, DateTime, Document, RawDocumentBuf};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Page, Stored, Summary};

/// One letter without its event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// `OUTPUT/EVENTID`.
    pub letter: String,
    /// Whose.
    pub output: String,
    /// The event's id.
    pub id: String,
    /// `rejected`, `given_up`, `poison` or `gap`.
    pub kind: String,
    /// Why, in words.
    pub reason: String,
    /// How often it was handed to the plugin.
    pub attempts: u32,
    /// The event's `operationType`.
    pub operation_type: String,
    /// `DB.COLLECTION`, `DB`, or empty.
    pub ns: String,
    /// Relaxed Extended JSON; null where the event has none, or a very large one.
    pub document_key: Value,
    /// When it was first written, RFC 3339.
    pub buried_at: String,
    /// When it was last written.
    pub updated_at: String,
    /// What it takes in its store.
    pub bytes: u64,
    /// The event was too large to be kept.
    pub truncated: bool,
    /// It cannot be replayed.
    pub stub: bool,
}

/// A page of letters, in stream order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// The letters.
    pub letters: Vec<Letter>,
    /// There are more: ask again with `after` = the last one's `letter`.
    pub more: bool,
}

/// One letter with all that is kept of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Whole {
    /// Everything but the event.
    #[serde(flatten)]
    pub letter: Letter,
    /// Why it cannot be replayed; null when it can.
    pub not_replayable: Option<String>,
    /// The resume token document.
    pub token: Value,
    /// The change event, or the stub of it, as relaxed Extended JSON; null when it was too large.
    pub event: Value,
}

/// A replay that has begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its number, for [`Progress`].
    pub job: u64,
    /// Letters that are chosen.
    pub matched: u64,
    /// Those among them that are only stubs: they stay.
    pub stubs: u64,
    /// Those among the others whose outputs are not at work in this instance: they stay.
    #[serde(default)]
    pub unreachable: u64,
}

impl Job {
    /// How many letters the replay is to deliver.
    pub fn total(&self) -> u64 {
        self.matched.saturating_sub(self.stubs).saturating_sub(self.unreachable)
    }
}

/// How far a replay is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Nothing more happens.
    pub done: bool,
    /// Delivered, and no longer dead letters.
    pub acked: u64,
    /// Rejected again: they stay, with the new reason.
    pub rejected: u64,
    /// Still to do; where the replay is done, what it did not get to: they stay.
    pub left: u64,
    /// The first thing that went wrong, in words for an operator.
    #[serde(default)]
    pub error: Option<String>,
}

/// How many letters were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// So many.
    pub dropped: u64,
}

impl From<&Summary> for Letter {
    fn from(summary: &Summary) -> Letter {
        Letter {
            letter: summary.key.to_string(),
            output: summary.key.output.clone(),
            id: summary.key.id.to_string(),
            kind: summary.kind.word().to_owned(),
            reason: summary.reason.clone(),
            attempts: summary.attempts,
            operation_type: summary.operation_type.clone(),
            ns: summary.ns.clone(),
            document_key: json(summary.document_key.as_ref()),
            buried_at: rfc3339(summary.buried_at),
            updated_at: rfc3339(summary.updated_at),
            bytes: summary.bytes,
            truncated: summary.truncated,
            stub: summary.stub,
        }
    }
}

impl From<&Page> for Listed {
    fn from(page: &Page) -> Listed {
        Listed { letters: page.letters.iter().map(Letter::from).collect(), more: page.more }
    }
}

impl From<&Stored> for Whole {
    fn from(stored: &Stored) -> Whole {
        Whole {
            letter: Letter::from(&stored.summary),
            not_replayable: stored.letter().err(),
            token: json(stored.token.as_ref()),
            event: json(stored.event.as_ref()),
        }
    }
}

/// Relaxed Extended JSON. Of a document that cannot be read there is nothing to show but that.
fn json(document: Option<&RawDocumentBuf>) -> Value {
    match document.map(|document| Document::try_from(&**document)) {
        None => Value::Null,
        Some(Ok(document)) => Bson::Document(document).into_relaxed_extjson(),
        Some(Err(error)) => Value::String(format!("cannot be read: {error}")),
    }
}

/// A time past the year 9999 is shown as a number of milliseconds.
fn rfc3339(time: DateTime) -> String {
    time.try_to_rfc3339_string().unwrap_or_else(|_| time.timestamp_millis().to_string())
}
