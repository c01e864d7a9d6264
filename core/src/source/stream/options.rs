//! What a stream is opened with, and the pipeline that this makes. Pure, but for the client it carries.

use bson::{Bson, Document, doc};
use mongodb::Client;

use crate::source::config::{Config, FullDocument, FullDocumentBeforeChange};
use crate::source::place::Place;
use crate::source::scope::Scope;
use crate::source::token::Token;

/// Events asked for in one reply; faster than the server's default and than 20,000 (measured, see the design).
const BATCH_SIZE: u32 = 1000;

/// The fields that are left of an event which cannot be delivered as it is; `_id` comes by itself.
pub(super) const STUB_FIELDS: [&str; 6] = ["operationType", "clusterTime", "wallTime", "ns", "to", "documentKey"];

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
    /// `$match` of the outputs this stream is for; `None` = all events. It may let more through than they want: of an event that
    /// cannot be sent, a stub may come that none of them would have had.
    pub filter: Option<Document>,
    /// The server splits events that are too large for one reply. Alike for all streams on a deployment: tokens of a stream with
    /// the split stage have another format.
    pub splits: bool,
    /// Events asked for in one reply.
    pub batch_size: u32,
}

/// The stage that leaves out what no output wants. Without the invalidate event the stream would end without a word.
///
/// In this form the server takes the whole disjunction apart and looks at it on its oplog, before it makes an event (6.0.5; the
/// invalidate event has no entry there).
pub fn filter_stage(filter: &Document) -> Document {
    let invalidate = Bson::Document(doc! { "operationType": "invalidate" });
    let mut any = vec![invalidate];
    match filter.get("$or") {
        Some(Bson::Array(branches)) if filter.len() == 1 => any.extend(branches.iter().cloned()),
        _ => any.push(filter.clone().into()),
    }
    doc! { "$match": { "$or": any } }
}

/// Where a cursor begins.
pub(super) enum Start<'a> {
    /// At the time of this place, inclusive.
    At(&'a Place),
    /// Behind the invalidate event with this token.
    Behind(&'a Token),
}

/// How much of each event a cursor asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// All of it.
    Whole,
    /// What a stub needs.
    Stub,
    /// The same, of all events in scope, without images: no other stage gets to see the whole event either.
    StubOfAny,
}

impl StreamOptions {
    /// As the operator configured the source; without a filter, and for a server that does not split events.
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
            splits: false,
            batch_size: BATCH_SIZE,
        }
    }

    /// For messages: what is being opened.
    pub(super) fn describe(&self) -> String {
        format!("open change stream on {}", self.scope.describe())
    }

    /// The whole pipeline; `without` are tokens of events that the server cannot send.
    pub(super) fn pipeline(&self, start: &Start<'_>, shape: Shape, without: &[Token]) -> Vec<Document> {
        let tokens: Vec<&str> = without.iter().map(Token::data).collect();
        self.stages(start, shape, (!tokens.is_empty()).then(|| doc! { "$nin": tokens }))
    }

    /// The whole pipeline, for the events with these tokens alone.
    pub(super) fn pipeline_of(&self, start: &Start<'_>, only: &[&Token]) -> Vec<Document> {
        let tokens: Vec<&str> = only.iter().map(|token| token.data()).collect();
        self.stages(start, Shape::Whole, Some(doc! { "$in": tokens }))
    }

    fn stages(&self, start: &Start<'_>, shape: Shape, tokens: Option<Document>) -> Vec<Document> {
        let mut pipeline = vec![doc! { "$changeStream": self.first_stage(start, shape) }];
        // Before all other stages: they too may need an event to be no larger than the server can handle.
        pipeline.extend(tokens.map(|tokens| doc! { "$match": { "_id._data": tokens } }));
        pipeline.extend(self.scope.filter.iter().map(|filter| doc! { "$match": filter.clone() }));
        if shape != Shape::StubOfAny {
            pipeline.extend(self.pipeline.iter().cloned());
            pipeline.extend(self.filter.iter().map(filter_stage));
        }
        if shape != Shape::Whole {
            let fields: Document = STUB_FIELDS.iter().map(|field| ((*field).to_owned(), Bson::Int32(1))).collect();
            pipeline.push(doc! { "$project": fields });
        }
        if self.splits {
            pipeline.push(doc! { "$changeStreamSplitLargeEvent": {} });
        }
        pipeline
    }

    fn first_stage(&self, start: &Start<'_>, shape: Shape) -> Document {
        let mut stage = Document::new();
        let by_time = |place: &Place| ("startAtOperationTime", Bson::Timestamp(place.time().into()));
        let (option, value) = match start {
            Start::At(place) => by_time(place),
            Start::Behind(token) => match Document::try_from(token.document()) {
                Ok(document) => ("startAfter", document.into()),
                Err(_) => by_time(&Place::After((*token).clone())),
            },
        };
        stage.insert(option, value);
        if shape != Shape::StubOfAny {
            if let Some(mode) = self.full_document {
                stage.insert("fullDocument", mode);
            }
            if let Some(mode) = self.full_document_before_change {
                stage.insert("fullDocumentBeforeChange", mode);
            }
        }
        if self.show_expanded_events {
            stage.insert("showExpandedEvents", true);
        }
        if self.scope.database.is_none() {
            stage.insert("allChangesForCluster", true);
        }
        stage
    }
}
