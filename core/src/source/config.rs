//! `[source]`: which change stream is read, and from where.

pub mod pipeline;
pub mod watch;

use std::time::UNIX_EPOCH;

use bson::Document;
use mongodb::options::ConnectionString;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use toml::de::DeValue;

use self::watch::Watched;
use crate::config::entry::Entry;
use crate::config::error::ConfigError;
use crate::config::section::Section;
use crate::config::uri::Uri;
use crate::event::EventId;
use crate::snapshot::NOT_WITH_PIPELINE;

/// The keys of `[source]`.
pub const KEYS: &[&str] = &[
    "uri",
    "watch",
    "full_document",
    "full_document_before_change",
    "show_expanded_events",
    "pipeline",
    "catch_up_streams_max",
    "start",
];

/// The change stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The deployment; a replica set or a sharded cluster.
    pub uri: Uri,
    /// What is watched; never empty.
    pub watch: Vec<Watched>,
    /// Whether update events carry the whole document. Default off.
    pub full_document: FullDocument,
    /// Whether events carry the document as it was before. Default off.
    pub full_document_before_change: FullDocumentBeforeChange,
    /// Whether create, createIndexes, modify and their like are events too. Default false.
    pub show_expanded_events: bool,
    /// Stages the server runs after the scope filter; proved here to leave positions and keys alone.
    pub pipeline: Vec<Document>,
    /// How many streams of their own the lanes outside the window may have together. 1 to 64, default 4.
    pub catch_up_streams_max: u32,
    /// Where an output without a checkpoint begins. Default now.
    pub start: Start,
}

/// `full_document` of the change stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullDocument {
    /// Only inserts and replaces carry it.
    Off,
    /// As it is when the event is read; may be newer than the event, or missing.
    UpdateLookup,
    /// The stored post-image, where there is one.
    WhenAvailable,
    /// The stored post-image; an event without one cannot be delivered.
    Required,
}

/// `full_document_before_change` of the change stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullDocumentBeforeChange {
    /// Not asked for.
    Off,
    /// The stored pre-image, where there is one.
    WhenAvailable,
    /// The stored pre-image; an event without one cannot be delivered.
    Required,
}

/// Where an output without a checkpoint begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With what happens after the stream has opened.
    Now,
    /// With the documents that exist, then with what happens since they began to be read.
    Snapshot,
    /// With the first event of this second (since 1970), inclusive.
    Time {
        /// Seconds since 1970, as in a BSON timestamp.
        seconds: u32,
    },
    /// Behind the event with this id.
    Event {
        /// As the JSON of the event has it.
        id: EventId,
    },
}

impl Config {
    /// Whether update events are to carry the whole document.
    pub fn has_full_documents(&self) -> bool {
        self.full_document != FullDocument::Off
    }

    /// Reads the table.
    ///
    /// # Errors
    /// A wrong or missing value.
    pub fn read(section: &Section<'_>) -> Result<Config, ConfigError> {
        use FullDocument as After;
        use FullDocumentBeforeChange as Before;
        let after = [
            ("off", After::Off),
            ("update_lookup", After::UpdateLookup),
            ("when_available", After::WhenAvailable),
            ("required", After::Required),
        ];
        let before = [("off", Before::Off), ("when_available", Before::WhenAvailable), ("required", Before::Required)];
        let uri = read_uri(&section.require("uri", "\"mongodb://127.0.0.1:27017/?replicaSet=rs0\"")?)?;
        let config = Config {
            uri,
            watch: watch::read(&section.require("watch", "[\"db.collection\"]")?)?,
            full_document: section.choice("full_document", &after, After::Off)?,
            full_document_before_change: section.choice("full_document_before_change", &before, Before::Off)?,
            show_expanded_events: section.boolean("show_expanded_events", false)?,
            pipeline: section.get("pipeline").map_or(Ok(Vec::new()), |entry| pipeline::read(&entry))?,
            catch_up_streams_max: section.integer("catch_up_streams_max", 1..=64, 4)? as u32,
            start: section.get("start").map_or(Ok(Start::Now), |entry| read_start(&entry, section))?,
        };
        if config.start == Start::Snapshot && !config.pipeline.is_empty() {
            let entry = section.require("start", "\"now\"")?;
            return Err(entry.error(NOT_WITH_PIPELINE));
        }
        Ok(config)
    }
}

fn read_uri(entry: &Entry<'_>) -> Result<Uri, ConfigError> {
    let text = entry.string()?;
    if !text.starts_with("mongodb://") && !text.starts_with("mongodb+srv://") {
        return Err(entry.error("not a MongoDB address, begin it with mongodb:// or mongodb+srv://"));
    }
    // The driver's own reader, without its network part. Its messages quote what it took for a host or an option.
    if let Err(error) = ConnectionString::parse(&text) {
        if let Some(reason) = secret_may_be_quoted(&text) {
            return Err(entry.error(format!("not a MongoDB address: {reason}")));
        }
        let reason = match *error.kind {
            mongodb::error::ErrorKind::InvalidArgument { ref message, .. } => message.clone(),
            ref kind => kind.to_string(),
        };
        return Err(entry.error(format!("not a MongoDB address: {}", reason.replace('\n', " "))));
    }
    Ok(Uri::new(text))
}

/// What to say instead of the driver's message where that may quote a part of a password or a session token.
fn secret_may_be_quoted(uri: &str) -> Option<&'static str> {
    let (_, options) = uri.split_once('?')?;
    if options.contains('@') {
        // The driver ends user, password and hosts at the first `?`: what it reads as a port may be the password's beginning.
        Some("there is an @ behind the first ?, write ? in a user name or password as %3F and @ in an option as %40")
    } else if options.to_ascii_lowercase().contains("authmechanismproperties") {
        Some("its options cannot be read; write authMechanismProperties as name:value, separated by commas")
    } else {
        None
    }
}

fn read_start(entry: &Entry<'_>, section: &Section<'_>) -> Result<Start, ConfigError> {
    let text = match entry.value() {
        DeValue::Datetime(value) => value.to_string(),
        _ => entry.string()?,
    };
    if text == "now" {
        return Ok(Start::Now);
    }
    if text == "snapshot" {
        return Ok(Start::Snapshot);
    }
    let (seconds, start) = if let Ok(time) = OffsetDateTime::parse(&text, &Rfc3339) {
        let seconds = u32::try_from(time.unix_timestamp()).ok().filter(|seconds| *seconds > 0);
        let seconds = seconds.ok_or_else(|| {
            entry.error(format!("\"{text}\" is not a time MongoDB can hold, write one from 1970 to 2106"))
        })?;
        (seconds, Start::Time { seconds })
    } else if let Ok(id) = text.parse::<EventId>() {
        ((id.position().time.0 >> 32) as u32, Start::Event { id })
    } else {
        let hint = "write \"now\", \"snapshot\", a time such as \"2026-01-31T00:00:00Z\" or an event id";
        return Err(entry.error(format!("\"{text}\" is not a start, {hint}")));
    };
    // A server opens a stream in the future silently and then shows nothing until that time.
    let now = section.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if u64::from(seconds) > now {
        return Err(entry.error(format!("\"{text}\" is in the future, write a time that has passed, or \"now\"")));
    }
    Ok(start)
}
