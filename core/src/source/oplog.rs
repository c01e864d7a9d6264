//! How far back the oplog reaches: read from it where that is permitted, else found out by opening streams.

use std::time::Duration;

use bson::{Document, Timestamp, doc};
use mongodb::Client;
use tracing::debug;

use crate::source::error::{SourceError, code, explain, one_line};
use crate::source::place::Place;
use crate::source::scope::Scope;
use crate::source::stream::{ChangeStream, StreamOptions};
use crate::source::token::Timestamp64;

/// For an answer about the oplog: it is asked for while everything else goes on.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Attempts to open a stream before the oplog has moved on, each with a larger margin.
const ATTEMPTS_MAX: u32 = 12;

/// A lost place is refused at the first entry that the server looks at; one that is there is answered at the first event in scope, and
/// until then the server may scan for minutes. After so long without an answer a place counts as there: should it be lost all the same,
/// reading it says so once more.
const PROOF_MAX: Duration = Duration::from_secs(3);

/// What stands in the first entry of an oplog that has never been full.
const FIRST_ENTRY: &str = "initiating set";

/// So much of the oldest is left out, and no more than a sixteenth of the window: an oplog that moves on would take it away before
/// it is read.
const HEADROOM_SECONDS: u64 = 10;

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

impl OplogWindow {
    /// A place near its beginning that is not cut off at once; not proved to be there.
    pub fn near_oldest(&self) -> Place {
        let seconds = u64::from(self.newest.seconds().saturating_sub(self.oldest.seconds()));
        let headroom = HEADROOM_SECONDS.min(seconds / 16);
        Place::From(Timestamp64((self.oldest.0 + (headroom << 32)).min(self.newest.0)))
    }
}

/// Reads the time of the oplog's first and last entry.
///
/// # Errors
/// See [`OplogError`].
pub async fn oplog_window(client: &Client) -> Result<OplogWindow, OplogError> {
    read_ends(client).await.map(|(window, _)| window)
}

/// The window, and whether the oplog has never been full.
async fn read_ends(client: &Client) -> Result<(OplogWindow, bool), OplogError> {
    let both = async { Ok((end(client, 1).await?, end(client, -1).await?)) };
    let (oldest, newest) = tokio::time::timeout(ANSWER_MAX, both)
        .await
        .map_err(|_| OplogError::Failed(format!("no answer within {ANSWER_MAX:?}")))??;
    let time = |entry: &Document| entry.get_timestamp("ts").map(Timestamp64::from).map_err(|_| OplogError::Absent);
    let message = oldest.get_document("o").and_then(|entry| entry.get_str("msg"));
    let is_whole = message.is_ok_and(|message| message == FIRST_ENTRY);
    Ok((OplogWindow { oldest: time(&oldest)?, newest: time(&newest)? }, is_whole))
}

/// The entry at one end; 1 is the beginning.
async fn end(client: &Client, direction: i32) -> Result<Document, OplogError> {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let fields = doc! { "_id": 0, "ts": 1, "o.msg": 1 };
    for attempt in 1.. {
        let entry = oplog.find_one(doc! {}).sort(doc! { "$natural": direction }).projection(fields.clone()).await;
        match entry {
            Ok(entry) => return entry.ok_or(OplogError::Absent),
            // The first entry was cut off while it was read.
            Err(error) if code(&error) == Some(136) && attempt < ATTEMPTS_MAX => {}
            Err(error) if code(&error) == Some(13) => return Err(OplogError::NotPermitted),
            Err(error) => return Err(OplogError::Failed(one_line(&error))),
        }
    }
    Err(OplogError::Absent)
}

/// The oldest place at which a stream can be opened, with some headroom where the oplog is full: it moves on while the place is looked
/// for and until it is used. Where it moves on faster still, opening there is history lost once more, and asking again finds another
/// place. Streams opened for proof have no filter, not even that of the scope, because only a first event answers at once.
///
/// # Errors
/// When no place is found, and what no other place mends.
pub async fn oldest_available(options: &StreamOptions) -> Result<Place, SourceError> {
    let (filter, pipeline) = (None, Vec::new());
    // An image that is required and missing says nothing about the oplog.
    let (full_document, full_document_before_change) = (None, None);
    let batch_size = 1;
    // Of a database stays that it is this one: the user may watch no other.
    let scope = Scope { database: options.scope.database.clone(), filter: None };
    let options = StreamOptions {
        scope,
        filter,
        pipeline,
        full_document,
        full_document_before_change,
        batch_size,
        ..options.clone()
    };
    for attempt in 0..ATTEMPTS_MAX {
        let (window, is_whole) = match read_ends(&options.client).await {
            Ok(found) => found,
            Err(error) => {
                debug!("finding the oldest place by opening streams: {error}");
                return by_trying(&options).await;
            }
        };
        let seconds = u64::from(window.newest.seconds().saturating_sub(window.oldest.seconds()));
        let headroom = if is_whole { 0 } else { HEADROOM_SECONDS.min(seconds / 16) };
        // Then further and further ahead of where the oplog begins, but never past its end.
        let ahead = headroom + if attempt == 0 { 0 } else { 1u64 << (attempt - 1) };
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
    match tokio::time::timeout(PROOF_MAX, ChangeStream::open(options.clone(), place.clone())).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(SourceError::HistoryLost { .. })) => Ok(false),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            debug!(%place, "no answer within {PROOF_MAX:?}, so the server is looking for an event: the place is there");
            Ok(true)
        }
    }
}
