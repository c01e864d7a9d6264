//! One open change stream: opened by time, read in raw batches, opened again by itself when something passing goes wrong.
//!
//! Used for the shared stream and for a lane's catch-up alike. Knows nothing of the window, lanes or checkpoints.

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, RawDocument, doc};
use futures::StreamExt;
use mongodb::Client;
use mongodb::error::Error;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::event::Event;
use crate::source::config::{Config, FullDocument, FullDocumentBeforeChange};
use crate::source::error::{Class, SourceError, classify, explain, one_line};
use crate::source::health::Health;
use crate::source::place::Place;
use crate::source::scope::Scope;
use crate::source::token::Token;

/// Events asked for in one reply; faster than the server's default and than 20,000 (measured, see the design).
const BATCH_SIZE: u32 = 1000;

/// How long the server holds an idle reply back: the pace of progress without events, and how long an open takes to be sure.
const AWAIT_MAX: Duration = Duration::from_millis(100);

/// Between attempts to open again.
const REOPEN: Backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(10) };

/// What a stream is opened with; the same for all opens of one stream.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The deployment.
    pub client: Client,
    /// What is watched.
    pub scope: Scope,
    /// `fullDocument`, as the server names it.
    pub full_document: Option<&'static str>,
    /// `fullDocumentBeforeChange`, as the server names it.
    pub full_document_before_change: Option<&'static str>,
    /// `showExpandedEvents`.
    pub show_expanded_events: bool,
    /// The operator's own stages.
    pub pipeline: Vec<Document>,
    /// `$match` of the outputs this stream is for; `None` = all events.
    pub filter: Option<Document>,
    /// Events asked for in one reply.
    pub batch_size: u32,
}

impl StreamOptions {
    /// As the operator configured the source; without a filter.
    pub fn new(client: Client, source: &Config) -> StreamOptions {
        StreamOptions {
            client,
            scope: Scope::new(&source.watch),
            full_document: match source.full_document {
                FullDocument::Off => None,
                FullDocument::UpdateLookup => Some("updateLookup"),
                FullDocument::WhenAvailable => Some("whenAvailable"),
                FullDocument::Required => Some("required"),
            },
            full_document_before_change: match source.full_document_before_change {
                FullDocumentBeforeChange::Off => None,
                FullDocumentBeforeChange::WhenAvailable => Some("whenAvailable"),
                FullDocumentBeforeChange::Required => Some("required"),
            },
            show_expanded_events: source.show_expanded_events,
            pipeline: source.pipeline.clone(),
            filter: None,
            batch_size: BATCH_SIZE,
        }
    }
}

/// Events in stream order, and how far the stream has been read with them.
#[derive(Debug)]
pub struct Batch {
    /// May be empty: progress without events.
    pub events: Vec<Arc<Event>>,
    /// Nothing before this place is still to come.
    pub reached: Place,
}

/// An open change stream.
pub struct ChangeStream {
    options: StreamOptions,
    /// How far it was read.
    place: Place,
    reader: Option<Reader>,
    /// The stream ended with this token; it goes on behind it.
    invalidated: Option<Token>,
    /// Opens or reads that failed since the last reply.
    failures: u32,
    /// How often it was opened or an open was tried.
    opens: u64,
    /// Told of every end and every reply; only the shared stream has one.
    health: Option<Health>,
}

/// Reads one reply ahead, so that the server works while events are decoded here.
struct Reader {
    replies: mpsc::Receiver<Result<RawBatch, Error>>,
    task: JoinHandle<()>,
    /// The reply was not yet compared with the place the cursor was opened at.
    skipping: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ChangeStream {
    /// A stream that opens with the first [`ChangeStream::next`], and tries again by itself while there is passing trouble.
    pub fn new(options: StreamOptions, place: Place) -> ChangeStream {
        ChangeStream { options, place, reader: None, invalidated: None, failures: 0, opens: 0, health: None }
    }

    /// Opens at `place`; open means that the server has answered a first read.
    ///
    /// # Errors
    /// [`SourceError::HistoryLost`] and [`SourceError::Refused`] when the server says so; passing trouble too is an error here,
    /// the caller decides whether to wait.
    pub async fn open(options: StreamOptions, place: Place) -> Result<ChangeStream, SourceError> {
        let mut stream = ChangeStream::new(options, place);
        let what = stream.what();
        match stream.open_cursor().await {
            Ok(reader) => stream.reader = Some(reader),
            Err(error) => return Err(explain(&error, &what, &stream.place.to_string())),
        }
        stream.opens = 1;
        Ok(stream)
    }

    /// The same stream, telling `health` how it is.
    pub fn with_health(self, health: Health) -> ChangeStream {
        ChangeStream { health: Some(health), ..self }
    }

    /// The next reply. Waits as long as it takes; opens again after passing trouble, after an invalidate and after a clean end.
    /// Not cancel-safe: run it in a task of its own.
    ///
    /// # Errors
    /// What no reopening mends.
    pub async fn next(&mut self) -> Result<Batch, SourceError> {
        loop {
            let Some(reader) = &mut self.reader else {
                self.reopen().await?;
                continue;
            };
            match reader.replies.recv().await {
                Some(Ok(reply)) => {
                    let batch = self.decode(&reply)?;
                    self.failures = 0;
                    if let Some(health) = &mut self.health {
                        health.replied();
                    }
                    return Ok(batch);
                }
                Some(Err(error)) => {
                    if classify(&error) != Class::Passing {
                        return Err(explain(&error, "read change stream", &self.place.to_string()));
                    }
                    warn!(place = %self.place, "change stream broke, opening it again: {}", one_line(&error));
                    self.reader = None;
                    self.failures += 1;
                }
                None => {
                    info!(place = %self.place, invalidated = self.invalidated.is_some(), "change stream ended, opening it again");
                    self.reader = None;
                    self.failures += 1;
                }
            }
        }
    }

    /// One attempt to open again, after a wait that grows with the failures before it.
    async fn reopen(&mut self) -> Result<(), SourceError> {
        if self.opens > 0 {
            if let Some(health) = &mut self.health {
                health.broke();
            }
            tokio::time::sleep(REOPEN.delay(self.failures.max(1), rand::random())).await;
        }
        self.opens += 1;
        match self.open_cursor().await {
            Ok(reader) => {
                debug!(place = %self.place, "change stream is open again");
                self.reader = Some(reader);
                Ok(())
            }
            Err(error) if classify(&error) == Class::Passing => {
                warn!(place = %self.place, "cannot open the change stream again yet: {}", one_line(&error));
                // By time from now on, where it was not already: a token the server does not take never will be taken.
                self.invalidated = None;
                self.failures = self.failures.saturating_add(1);
                Ok(())
            }
            Err(error) => Err(explain(&error, &self.what(), &self.place.to_string())),
        }
    }

    async fn open_cursor(&self) -> Result<Reader, Error> {
        let database = self.options.client.database(self.options.scope.database.as_deref().unwrap_or("admin"));
        let pipeline = self.pipeline();
        debug!(?pipeline, "open change stream");
        let batch_size = self.options.batch_size;
        let mut cursor = database.aggregate(pipeline).batch_size(batch_size).max_await_time(AWAIT_MAX).batch().await?;
        // The reply to the open itself, then the first read: only that one shows that the history is there.
        let mut first = Vec::with_capacity(2);
        for _ in 0..2 {
            match cursor.next().await {
                Some(reply) => first.push(reply?),
                None => break,
            }
        }
        let (sender, replies) = mpsc::channel(1);
        let task = tokio::spawn(read_ahead(cursor, first, sender));
        Ok(Reader { replies, task, skipping: true })
    }

    fn pipeline(&self) -> Vec<Document> {
        let options = &self.options;
        let mut stage = Document::new();
        match &self.invalidated {
            Some(token) => match Document::try_from(token.document()) {
                Ok(token) => stage.insert("startAfter", token),
                Err(_) => stage.insert("startAtOperationTime", Bson::Timestamp(self.place.time().into())),
            },
            None => stage.insert("startAtOperationTime", Bson::Timestamp(self.place.time().into())),
        };
        if let Some(mode) = options.full_document {
            stage.insert("fullDocument", mode);
        }
        if let Some(mode) = options.full_document_before_change {
            stage.insert("fullDocumentBeforeChange", mode);
        }
        if options.show_expanded_events {
            stage.insert("showExpandedEvents", true);
        }
        if options.scope.database.is_none() {
            stage.insert("allChangesForCluster", true);
        }
        let mut pipeline = vec![doc! { "$changeStream": stage }];
        pipeline.extend(options.scope.filter.iter().map(|filter| doc! { "$match": filter.clone() }));
        pipeline.extend(options.pipeline.iter().cloned());
        // Without the invalidate event the stream would end without a word.
        pipeline.extend(options.filter.iter().map(|filter| {
            doc! { "$match": { "$or": [ { "operationType": "invalidate" }, filter.clone() ] } }
        }));
        pipeline
    }

    fn decode(&mut self, reply: &RawBatch) -> Result<Batch, SourceError> {
        let undecodable = |place: &Place, reason: String| SourceError::Undecodable { place: place.to_string(), reason };
        let docs = reply.doc_slices().map_err(|e| undecodable(&self.place, e.to_string()))?;
        let mut events = Vec::new();
        let mut skipping = self.reader.as_ref().is_some_and(|reader| reader.skipping);
        let mut last = None;
        for element in docs {
            let element = element.map_err(|e| undecodable(&self.place, e.to_string()))?;
            let Some(raw) = element.as_document() else {
                return Err(undecodable(&self.place, format!("not a document but {:?}", element.element_type())));
            };
            let event = Event::from_raw(raw).map_err(|e| undecodable(&self.place, e.to_string()))?;
            let invalidate = event.operation_type() == "invalidate";
            if invalidate {
                // Also one that was seen before: opened by time, the stream ends here again.
                self.invalidated = Some(event.token().clone());
            }
            if skipping && !self.place.is_behind(&event) {
                continue;
            }
            skipping = false;
            last = Some(event.token().clone());
            if invalidate {
                continue;
            }
            self.invalidated = None;
            events.push(Arc::new(event));
        }
        if let Some(token) = last {
            self.place = Place::After(token);
            if let Some(reader) = &mut self.reader {
                reader.skipping = skipping;
            }
        }
        if let Some(token) = post_batch_resume_token(reply.as_raw_document()) {
            // Also where the operator's stages hide the event itself: the stream ends behind it all the same.
            let invalidate = token.from_invalidate().then(|| token.clone());
            let reached = Place::After(token);
            if reached.is_covered_since(&self.place) {
                // Past an invalidate its token has done its work; kept, it would one day be older than the oplog.
                self.invalidated = invalidate;
                self.place = reached;
            }
        }
        Ok(Batch { events, reached: self.place.clone() })
    }

    fn what(&self) -> String {
        format!("open change stream on {}", self.options.scope.describe())
    }
}

async fn read_ahead(mut cursor: RawBatchCursor, first: Vec<RawBatch>, sender: mpsc::Sender<Result<RawBatch, Error>>) {
    for reply in first {
        if sender.send(Ok(reply)).await.is_err() {
            return;
        }
    }
    // A place for the reply first: one is read ahead and not two, for each may hold 16 MiB.
    while let Ok(place) = sender.reserve().await {
        let Some(reply) = cursor.next().await else { return };
        let failed = reply.is_err();
        place.send(reply);
        if failed {
            return;
        }
    }
}

fn post_batch_resume_token(reply: &RawDocument) -> Option<Token> {
    let token = reply.get_document("cursor").ok()?.get_document("postBatchResumeToken").ok()?;
    Token::from_document(token).ok()
}
