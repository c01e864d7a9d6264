//! One change event: its raw BSON, its token, id and key, and its JSON, made once per form and shared.
//!
//! An event knows nothing of windows, lanes or outputs; the one thing it does for a window is to keep an account of the
//! JSON it makes while it is in it.

pub mod envelope;
#[cfg(test)]
pub(crate) mod fixture;
pub mod gap;
pub mod id;
pub mod json;
mod key;
pub mod projection;
mod row;
mod scan;

use std::{
    fmt,
    num::NonZeroU64,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU16, Ordering, fence},
    },
};

use bson::RawDocument;
use tailwater_raw::Elements;

use self::projection::shared::Shared;
use self::projection::{Fingerprint, Projected, Projection};
use self::scan::{Fields, Scan, Span};
pub use self::{
    envelope::{Envelope, Shape},
    id::{EventId, EventIdError},
    json::{JsonError, JsonForm},
    row::RowHead,
    scan::EventError,
};
use crate::source::token::Token;

/// One change event. It owns a copy of its raw BSON and is shared as `Arc<Event>`.
pub struct Event {
    raw: Box<[u8]>,
    token: Token,
    fields: Fields,
    key: Option<NonZeroU64>,
    /// Made when first asked for: an event that every output filters out never needs one.
    id: OnceLock<EventId>,
    /// One place for each [`JsonForm`].
    json: [Slot; JsonForm::ALL.len()],
    /// The same for each [`Shape`] with an envelope: few events have one.
    enveloped: OnceLock<Box<[Slot; Shape::ENVELOPED]>>,
    /// Where the window that holds the event counts bytes of JSON.
    account: OnceLock<Arc<AtomicI64>>,
    /// Why the event cannot be delivered; then `raw` is a stub.
    poison: Option<Box<str>>,
    /// The projection that it came out of.
    projection: Option<Fingerprint>,
    /// What came out of it by projections.
    projected: Shared,
    /// Bits: a text was made (one each), [`OWN_BYTES`], [`ENTERED`], [`LEFT`]. Whoever sets a bit learns from the ones that stood
    /// before which share of the bytes is theirs to add or to take away, so that each text is added once and taken away once.
    window: AtomicU16,
}

/// A text that is made when it is first asked for.
type Slot = OnceLock<Result<Box<[u8]>, JsonError>>;

/// What came out of a projection is in no ring: it counts with the event that is.
const OWN_BYTES: u16 = 1 << 13;
const ENTERED: u16 = 1 << 14;
const LEFT: u16 = 1 << 15;

impl Event {
    /// Copies a change event and notes where its top-level fields are; nothing below them is read, except `ns` and
    /// `documentKey._id`.
    ///
    /// # Errors
    /// When `_id` is no resume token, `operationType` is missing or a field has a type that the server never gives it. Also
    /// for a fragment of a split event: merge the fragments first.
    pub fn from_raw(doc: &RawDocument) -> Result<Event, EventError> {
        Event::new(doc.as_bytes().into())
    }

    /// A document as it was found by a snapshot, as an event with operation type [`RowHead::OPERATION_TYPE`].
    ///
    /// # Errors
    /// When the document is damaged or has no `_id`.
    pub fn from_row(head: &RowHead, document: &RawDocument) -> Result<Event, EventError> {
        Event::new(head.event(document)?)
    }

    fn new(raw: Box<[u8]>) -> Result<Event, EventError> {
        let doc = RawDocument::from_bytes(&raw).map_err(|error| EventError::Bson(error.to_string()))?;
        let scan = Scan::run(doc)?;
        Ok(Event {
            raw,
            token: scan.token,
            fields: scan.fields,
            key: scan.key,
            id: OnceLock::new(),
            json: Default::default(),
            enveloped: OnceLock::new(),
            account: OnceLock::new(),
            poison: None,
            projection: None,
            projected: Shared::default(),
            window: AtomicU16::new(0),
        })
    }

    /// An event that cannot be delivered, as the stub that could be read of it: `_id` and `operationType`, and what else there is
    /// of `ns`, `documentKey` and `clusterTime`.
    ///
    /// # Errors
    /// As [`Event::from_raw`].
    pub fn from_poison(stub: &RawDocument, reason: String) -> Result<Event, EventError> {
        Ok(Event { poison: Some(reason.into_boxed_str()), ..Event::from_raw(stub)? })
    }

    /// A row of a snapshot, or a gap: its time says where it stands in the stream, not how old it is.
    pub fn is_ageless(&self) -> bool {
        self.is_row() || gap::is_gap(self)
    }

    /// Why the event cannot be delivered, if it is only a stub.
    pub fn poison(&self) -> Option<&str> {
        self.poison.as_deref()
    }

    /// The event as the server sent it.
    pub fn raw(&self) -> &RawDocument {
        RawDocument::from_bytes(&*self.raw).expect("was a document when the event was made")
    }

    /// The event's resume token, `_id`.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The event's id, the same on every instance and after every restart.
    pub fn id(&self) -> &EventId {
        self.id.get_or_init(|| {
            if let Some(id) = self.row_id() {
                return id;
            }
            EventId::of_event(
                self.token.position(),
                id::Identity {
                    operation_type: self.span(self.fields.operation_type).unwrap_or_default(),
                    ns: self.span(self.fields.ns),
                    document_key: self.span(self.fields.document_key),
                },
            )
        })
    }

    /// Whether this is a row of a snapshot: a document that was there, not a change of it.
    pub fn is_row(&self) -> bool {
        self.operation_type() == RowHead::OPERATION_TYPE && !self.token.is_event()
    }

    fn row_id(&self) -> Option<EventId> {
        if !self.is_row() {
            return None;
        }
        let id = Elements::of(self.document_key()?).find(b"_id").ok()??.value;
        Some(EventId::of_row(self.token.position().time, self.span(self.fields.ns)?, id.kind(), id.bytes()))
    }

    /// What keeps the events of one document in order: a hash of `ns` and `documentKey._id`, see `event/key.rs`. `None` for an
    /// event without a documentKey, which is a barrier.
    pub fn key(&self) -> Option<NonZeroU64> {
        self.key
    }

    /// `operationType`.
    pub fn operation_type(&self) -> &str {
        self.text(self.fields.operation_type)
    }

    /// `ns.db`, or "" when there is none.
    pub fn db(&self) -> &str {
        self.text(self.fields.db)
    }

    /// `ns.coll`, or "" when there is none (dropDatabase).
    pub fn coll(&self) -> &str {
        self.text(self.fields.coll)
    }

    /// `documentKey`: `_id`, and the shard key's fields in a sharded collection.
    pub fn document_key(&self) -> Option<&RawDocument> {
        self.document(self.fields.document_key)
    }

    /// `fullDocument`, when the server sent one and it is not null.
    pub fn full_document(&self) -> Option<&RawDocument> {
        self.document(self.fields.full_document)
    }

    /// `fullDocumentBeforeChange`, when the server sent one and it is not null.
    pub fn full_document_before_change(&self) -> Option<&RawDocument> {
        self.document(self.fields.full_document_before_change)
    }

    /// `updateDescription`.
    pub fn update_description(&self) -> Option<&RawDocument> {
        self.document(self.fields.update_description)
    }

    /// `wallTime`, in milliseconds since 1970 (servers from 6.0).
    pub fn wall_time_ms(&self) -> Option<i64> {
        self.fields.wall_time_ms
    }

    /// When the change was made, in milliseconds since 1970: `wallTime`, or the second of the cluster time.
    pub fn time_ms(&self) -> i64 {
        self.wall_time_ms().unwrap_or(i64::from(self.token.position().time.seconds()) * 1000)
    }

    /// Whether the change was made in a transaction.
    pub fn in_transaction(&self) -> bool {
        self.fields.in_transaction
    }

    /// Memory in bytes that the event holds, its JSON excepted.
    pub fn bytes(&self) -> usize {
        self.raw.len() + self.token.bytes() + size_of::<Event>()
    }

    /// The event as JSON: its `id`, then its fields as the server named them, without `_id`. Made by whoever asks first;
    /// others wait for it and then share it.
    ///
    /// # Errors
    /// When the BSON is damaged or nested too deep. A retry does not help.
    pub fn json(&self, form: JsonForm) -> Result<&[u8], JsonError> {
        self.text_of(form as u32, &self.json[form as usize], || json::event(self.raw(), self.id(), form))
    }

    /// The same in its envelope. `deployment` is the `name` of this process's configuration, the same in every call.
    ///
    /// # Errors
    /// As [`Event::json`].
    pub fn json_in(&self, shape: Shape, deployment: &str) -> Result<&[u8], JsonError> {
        let Some(place) = shape.place() else { return self.json(shape.form) };
        let slots = self.enveloped.get_or_init(Box::default);
        self.text_of((self.json.len() + place) as u32, &slots[place], || envelope::write(self, shape, deployment))
    }

    /// The text in `slot`, whose bit is number `bit`, made by `make` where it is not there yet.
    fn text_of<'a>(
        &self,
        bit: u32,
        slot: &'a Slot,
        make: impl FnOnce() -> Result<Vec<u8>, JsonError>,
    ) -> Result<&'a [u8], JsonError> {
        let mut made = false;
        let text = slot.get_or_init(|| {
            made = true;
            make().map(Vec::into_boxed_slice)
        });
        if made {
            let before = self.window.fetch_or(1 << bit, Ordering::AcqRel);
            if before & (ENTERED | LEFT) == ENTERED {
                self.add_to_account(1 << bit, 1);
            }
        }
        text.as_deref().map_err(Clone::clone)
    }

    /// The event as `projection` leaves it: made by whoever asks first, shared by all who have an equal one. It has the token, the id,
    /// the key and the times of this event; where it cannot be made, it is a stub with the reason.
    pub fn projected(&self, projection: &Projection) -> &Arc<Event> {
        let (event, made) = self.projected.get(projection.fingerprint(), || Arc::new(self.project(projection)));
        if made {
            // Either the window finds it there, or its coming and going is seen here; both do no harm.
            fence(Ordering::SeqCst);
            let window = self.window.load(Ordering::Acquire);
            if let Some(account) = self.account.get().filter(|_| window & ENTERED != 0) {
                event.enter_window(account);
            }
            if window & LEFT != 0 {
                event.leave_window();
            }
        }
        event
    }

    fn project(&self, projection: &Projection) -> Event {
        let projected = projection.apply(self.raw()).map_err(|error| error.to_string()).and_then(|projected| {
            let Projected { raw, withholds_key } = projected;
            let raw = if withholds_key { projection::with_token(&raw, &self.token.without_key()) } else { raw };
            Event::new(raw).map_err(|error| error.to_string())
        });
        let event = projected.unwrap_or_else(|error| {
            let reason = format!("the event cannot be projected: {error}");
            Event::from_poison(&projection::stub(self), reason).expect("made of what was read of an event")
        });
        Event {
            key: self.key,
            id: OnceLock::from(*self.id()),
            fields: Fields {
                wall_time_ms: self.fields.wall_time_ms,
                in_transaction: self.fields.in_transaction,
                ..event.fields
            },
            poison: self.poison.clone().or(event.poison),
            projection: Some(projection.fingerprint()),
            window: AtomicU16::new(OWN_BYTES),
            ..event
        }
    }

    /// An event that came out of a projection and was stored since: with the id that it had.
    ///
    /// # Errors
    /// As [`Event::from_raw`].
    pub fn from_projected(doc: &RawDocument, id: EventId, projection: Fingerprint) -> Result<Event, EventError> {
        Ok(Event { id: OnceLock::from(id), projection: Some(projection), ..Event::from_raw(doc)? })
    }

    /// The projection that the event came out of.
    pub fn projection(&self) -> Option<Fingerprint> {
        self.projection
    }

    /// Counts the event's JSON, what there is and what will be made, in `account` (bytes) until [`Event::leave_window`]; and
    /// what came and comes out of it by projections, with the JSON of that. Only the first call has an effect.
    pub fn enter_window(&self, account: &Arc<AtomicI64>) {
        if self.account.set(Arc::clone(account)).is_ok() {
            let before = self.window.fetch_or(ENTERED, Ordering::AcqRel);
            if before & LEFT == 0 {
                self.add_to_account(before, 1);
            }
            fence(Ordering::SeqCst);
            self.projected.made().for_each(|event| event.enter_window(account));
        }
    }

    /// Takes exactly what was added to the account away again; nothing is added from then on. In between the account may
    /// be below what the other events hold for a moment, when a form is being made just now.
    pub fn leave_window(&self) {
        let before = self.window.fetch_or(LEFT, Ordering::AcqRel);
        if before & (ENTERED | LEFT) == ENTERED {
            self.add_to_account(before, -1);
        }
        fence(Ordering::SeqCst);
        self.projected.made().for_each(|event| event.leave_window());
    }

    /// Adds the sizes of the texts in `bits`, times `sign`.
    fn add_to_account(&self, bits: u16, sign: i64) {
        let Some(account) = self.account.get() else { return };
        let enveloped = self.enveloped.get().into_iter().flat_map(|slots| slots.iter());
        let made = self.json.iter().chain(enveloped).enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
        let texts: usize = made.filter_map(|(_, slot)| slot.get()?.as_ref().ok()).map(|text| text.len()).sum();
        let own = if bits & OWN_BYTES != 0 { self.bytes() } else { 0 };
        account.fetch_add(sign * (texts + own) as i64, Ordering::Relaxed);
    }

    fn span(&self, span: Span) -> Option<&[u8]> {
        if span.end == 0 { None } else { self.raw.get(span.start as usize..span.end as usize) }
    }

    fn document(&self, span: Span) -> Option<&RawDocument> {
        RawDocument::from_bytes(self.span(span)?).ok()
    }

    /// A string value: its length and its final zero stand around the text.
    fn text(&self, span: Span) -> &str {
        let text = self.span(span).and_then(|value| value.get(4..value.len() - 1));
        text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("")
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", self.id())
            .field("operation_type", &self.operation_type())
            .field("db", &self.db())
            .field("coll", &self.coll())
            .field("bytes", &self.raw.len())
            .finish()
    }
}

#[cfg(test)]
mod tests;
