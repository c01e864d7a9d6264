//! How far back the oplog reaches: read from it where that is permitted, else found out by opening streams.

use std::time::Duration;

use bson::{Document, Timestamp, doc};
use mongodb::Client;
use tracing::debug;

use crate::source::error::{SourceError, code, explain, one_line};
use crate::source::place::Place;
use crate::source::stream::{ChangeStream, StreamOptions};
use crate::source::token::Timestamp64;

/// For an answer about the oplog: it is asked for while everything else goes on.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Attempts to open a stream before the oplog has moved on, each with a larger margin.
const ATTEMPTS_MAX: u32 = 12;

/// A place found by trying is proved for this much more, and a sixteenth of the age: until it is used the oplog moves on.
const MARGIN_SECONDS: u32 = 10;

/// What the oplog holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OplogWindow {
    /// Time of its first entry: what happened before is gone.
    pub oldest: Timestamp64,
    /// Time of its last entry.
    pub newest: Timestamp64,
}

/// Why the oplog's window is not known.
#[derive(Debug, thiserror::Error)]
pub enum OplogError {
    /// The user may not read the database `local`. A retry does not help.
    #[error(
        "read the oplog's window: not permitted; grant the user read on the database local (the role read of local has it)"
    )]
    NotPermitted,
    /// There is none where the client reads: a sharded cluster, whose shards have one each. A retry does not help.
    #[error("read the oplog's window: there is no oplog here, as on a sharded cluster")]
    Absent,
    /// The server did not answer or could not. It may pass by itself.
    #[error("read the oplog's window: {0}")]
    Failed(String),
}

/// Reads the time of the oplog's first and last entry.
///
/// # Errors
/// See [`OplogError`].
pub async fn oplog_window(client: &Client) -> Result<OplogWindow, OplogError> {
    let (oldest, newest) =
        tokio::time::timeout(ANSWER_MAX, async { Ok((end(client, 1).await?, end(client, -1).await?)) })
            .await
            .map_err(|_| OplogError::Failed(format!("no answer within {ANSWER_MAX:?}")))??;
    Ok(OplogWindow { oldest, newest })
}

/// The entry at one end; 1 is the beginning.
async fn end(client: &Client, direction: i32) -> Result<Timestamp64, OplogError> {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let entry =
        oplog.find_one(doc! {}).sort(doc! { "$natural": direction }).projection(doc! { "_id": 0, "ts": 1 }).await;
    let entry = entry.map_err(|error| match code(&error) {
        Some(13) => OplogError::NotPermitted,
        _ => OplogError::Failed(one_line(&error)),
    })?;
    let time: Timestamp = entry.and_then(|entry| entry.get_timestamp("ts").ok()).ok_or(OplogError::Absent)?;
    Ok(time.into())
}

/// The oldest place at which a stream can be opened now, or near it: the oplog moves on while it is looked for, and until the
/// place is used. Streams opened for proof have no filter, because only a first event answers at once.
///
/// # Errors
/// When no place is found, and what no other place mends.
pub async fn oldest_available(options: &StreamOptions) -> Result<Place, SourceError> {
    let (filter, pipeline) = (None, Vec::new());
    // An image that is required and missing says nothing about the oplog.
    let (full_document, full_document_before_change) = (None, None);
    let batch_size = 1;
    let options =
        StreamOptions { filter, pipeline, full_document, full_document_before_change, batch_size, ..options.clone() };
    for attempt in 0..ATTEMPTS_MAX {
        let window = match oplog_window(&options.client).await {
            Ok(window) => window,
            Err(error) => {
                debug!("finding the oldest place by opening streams: {error}");
                return by_trying(&options).await;
            }
        };
        // The first entry itself at first, then further and further from it, but never past the end.
        let ahead = if attempt == 0 { 0 } else { 1u64 << (attempt - 1) };
        let place = Place::From(Timestamp64((window.oldest.0 + (ahead << 32)).min(window.newest.0)));
        if opens(&options, &place).await? {
            return Ok(place);
        }
    }
    let reason =
        format!("the oplog moved on faster than a stream could be opened, {ATTEMPTS_MAX} times; enlarge the oplog");
    Err(SourceError::Refused { what: "find the oldest place in the oplog".to_owned(), reason })
}

/// Ages that double until one is lost, then halves of the last step.
async fn by_trying(options: &StreamOptions) -> Result<Place, SourceError> {
    let hello = options.client.database("admin").run_command(doc! { "hello": 1 }).await;
    let hello = hello.map_err(|error| explain(&error, "ask for the cluster time"))?;
    let now: Timestamp = hello.get_timestamp("operationTime").map_err(|_| {
        SourceError::Unreachable("the server tells no cluster time: is its replica set initiated?".to_owned())
    })?;
    let ago = |age: u32| Place::From(Timestamp64(u64::from(now.time.saturating_sub(age).max(1)) << 32));
    // All of it: a set whose oplog has never been full.
    if opens(options, &ago(u32::MAX)).await? {
        return Ok(ago(u32::MAX));
    }
    let (mut there, mut step) = (0, 60);
    while there + step < now.time && opens(options, &ago(there + step)).await? {
        there += step;
        step = there;
    }
    // To within a sixteenth of the age, which is as much as is left as a margin.
    for _ in 0..4 {
        step /= 2;
        if step > 0 && opens(options, &ago(there + step)).await? {
            there += step;
        }
    }
    let place = ago(there - (there / 16 + MARGIN_SECONDS).min(there));
    if opens(options, &place).await? { Ok(place) } else { Ok(Place::From(Timestamp64::from(now))) }
}

async fn opens(options: &StreamOptions, place: &Place) -> Result<bool, SourceError> {
    match ChangeStream::open(options.clone(), place.clone()).await {
        Ok(_) => Ok(true),
        Err(SourceError::HistoryLost { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
