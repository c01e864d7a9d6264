//! One dead letter: what a lane buries, and the same as it is read back. Knows no store.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bson::{DateTime, RawDocumentBuf};

use crate::config::entry::check_name;
use crate::event::projection::Fingerprint;
use crate::event::{Event, EventId};

/// Why an event is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The plugin rejected it.
    Rejected,
    /// It was tried for `retry.give_up_after`.
    GivenUp,
    /// It could not be read; what is kept is a stub.
    Poison,
    /// No event: a stretch of the oplog that was lost, from and to.
    Gap,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Rejected, Kind::GivenUp, Kind::Poison, Kind::Gap];

    /// The word used in stores, logs and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Rejected => "rejected",
            Kind::GivenUp => "given_up",
            Kind::Poison => "poison",
            Kind::Gap => "gap",
        }
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// What a lane buries.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The output that could not deliver it.
    pub output: String,
    /// The event's id; with the output's name the identity of the letter.
    pub id: EventId,
    /// Why.
    pub kind: Kind,
    /// Why, in the plugin's words. What is beyond 4 KiB is cut off.
    pub reason: String,
    /// How often it was handed to the plugin.
    pub attempts: u32,
    /// The event, or the stub of it.
    pub event: Arc<Event>,
}

/// What names a letter within a deployment name, written `OUTPUT/EVENTID`. In stream order: by id, then by output.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterKey {
    /// Of the event. Ids sort by time and operation index.
    pub id: EventId,
    /// Whose letter.
    pub output: String,
}

impl LetterKey {
    /// The key of an output's letter.
    pub fn new(output: impl Into<String>, id: EventId) -> LetterKey {
        LetterKey { id, output: output.into() }
    }
}

impl fmt::Display for LetterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.output, self.id)
    }
}

impl FromStr for LetterKey {
    type Err = String;

    fn from_str(text: &str) -> Result<LetterKey, String> {
        let (output, id) = text.split_once('/').ok_or_else(|| format!("{text:?} is not OUTPUT/EVENTID"))?;
        check_name(output)?;
        Ok(LetterKey::new(output, id.parse().map_err(|error| format!("{id:?} is not an event id: {error}"))?))
    }
}

/// A letter without its event.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Its name.
    pub key: LetterKey,
    /// Why it is here.
    pub kind: Kind,
    /// Why, in words.
    pub reason: String,
    /// How often it was handed to the plugin.
    pub attempts: u32,
    /// The event's `operationType`.
    pub operation_type: String,
    /// `DB.COLLECTION`, or `DB`; empty where the event has none.
    pub ns: String,
    /// The event's documentKey, unless it is very large.
    pub document_key: Option<RawDocumentBuf>,
    /// When it was first written, by the clock of the store.
    pub buried_at: DateTime,
    /// When it was last written; it expires that long after.
    pub updated_at: DateTime,
    /// What it takes in its store.
    pub bytes: u64,
    /// The event was too large to be kept.
    pub truncated: bool,
    /// There is no whole event to deliver again.
    pub stub: bool,
}

/// A letter as it was read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Everything but the event.
    pub summary: Summary,
    /// The resume token document, unless it is very large.
    pub token: Option<RawDocumentBuf>,
    /// The projection that the event came out of, if any.
    pub projection: Option<Fingerprint>,
    /// The event as it was buried, or the stub; `None` when it was too large.
    pub event: Option<RawDocumentBuf>,
}

impl Stored {
    /// The letter to deliver again, with its event as it was buried: as it came from the server, or as a projection left it.
    ///
    /// # Errors
    /// Why it cannot be delivered again, in words for an operator: it is kept only as a stub.
    pub fn letter(&self) -> Result<Letter, String> {
        let summary = &self.summary;
        match (&self.event, summary.kind) {
            (_, Kind::Gap) => return Err("a gap stands for events that are lost, there is none to deliver".into()),
            (_, Kind::Poison) => return Err(format!("kept only as a stub: {}", summary.reason)),
            (None, _) => return Err("kept only as a stub: the event was too large for a dead letter".into()),
            (Some(_), _) if summary.stub => return Err("kept only as a stub".into()),
            (Some(_), _) => {}
        }
        let raw = self.event.as_ref().expect("None was refused above");
        let event = match self.projection {
            // The id was made of what the projection may have left out.
            Some(projection) => Event::from_projected(raw, summary.key.id, projection),
            None => Event::from_raw(raw),
        };
        let event = event.map_err(|error| format!("its event cannot be read back: {error}"))?;
        if *event.id() != summary.key.id {
            return Err(format!("its event cannot be made again: it would have the id {}", event.id()));
        }
        Ok(Letter {
            output: summary.key.output.clone(),
            id: summary.key.id,
            kind: summary.kind,
            reason: summary.reason.clone(),
            attempts: summary.attempts,
            event: Arc::new(event),
        })
    }
}
