//! One change event of a batch: plain accessors over the border's struct. Knows nothing of completing.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use tailwater_abi::*;

use crate::{
    Batch, DeliverError, Verdict, Verdicts,
    host::{bytes, first, text},
};

/// One change event of a [`Batch`].
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// In the batch's memory, at least the first version's size, aligned.
    raw: *const tw_event,
    index: u32,
    batch: &'a Batch,
}

// SAFETY: what it points to is the batch's, read-only and valid on any thread for as long as the borrow `'a`.
unsafe impl Send for Event<'_> {}
// SAFETY: as above.
unsafe impl Sync for Event<'_> {}

impl<'a> Event<'a> {
    pub(crate) fn new(raw: *const tw_event, index: u32, batch: &'a Batch) -> Self {
        Self { raw, index, batch }
    }

    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    fn text(&self, value: tw_str) -> &'a str {
        // SAFETY: valid until the token is completed; `'a` is a borrow of the batch, which ends before that.
        unsafe { text(value) }
    }

    fn document(&self, value: tw_slice) -> Option<&'a [u8]> {
        // SAFETY: as in `text`.
        (!value.ptr.is_null()).then(|| unsafe { bytes(value) })
    }

    /// The event id: 33 characters that are safe everywhere and sort by time, the same in every output and after every
    /// redelivery. Use it wherever the destination can recognise a duplicate.
    pub fn id(&self) -> &'a str {
        self.text(first!(self.raw, id))
    }

    /// Events with the same key belong to one document; 0 where the event has none (a dropped collection).
    pub fn key(&self) -> u64 {
        first!(self.raw, key)
    }

    /// Kind of change.
    pub fn op(&self) -> Op {
        Op::from_abi(first!(self.raw, op))
    }

    /// The server's own name of the kind of change: `insert`, `update`, `createIndexes`, …
    pub fn operation_type(&self) -> &'a str {
        self.text(first!(self.raw, operation_type))
    }

    /// Database; empty where the event has none.
    pub fn db(&self) -> &'a str {
        self.text(first!(self.raw, db))
    }

    /// Collection; empty where the event has none.
    pub fn coll(&self) -> &'a str {
        self.text(first!(self.raw, coll))
    }

    /// MongoDB's timestamp of the change: seconds in the high half, increment in the low.
    pub fn cluster_time(&self) -> u64 {
        first!(self.raw, cluster_time)
    }

    /// The server's clock at the change; `None` before MongoDB 6.0.
    pub fn wall_time(&self) -> Option<SystemTime> {
        let ms = first!(self.raw, wall_time_ms);
        let distance = Duration::from_millis(ms.unsigned_abs());
        match ms {
            0 => None,
            1.. => SystemTime::UNIX_EPOCH.checked_add(distance),
            _ => SystemTime::UNIX_EPOCH.checked_sub(distance),
        }
    }

    /// 1 on first delivery.
    pub fn attempt(&self) -> u32 {
        first!(self.raw, attempt)
    }

    /// True where the event was handed out before.
    pub fn is_redelivery(&self) -> bool {
        first!(self.raw, flags) & TW_EVENT_REDELIVERY != 0
    }

    /// True where the change belongs to a transaction.
    pub fn in_transaction(&self) -> bool {
        first!(self.raw, flags) & TW_EVENT_IN_TRANSACTION != 0
    }

    /// The whole change event as the server sent it: a BSON document.
    pub fn raw(&self) -> &'a [u8] {
        self.document(first!(self.raw, raw)).unwrap_or_default()
    }

    /// `documentKey`, a BSON document.
    pub fn document_key(&self) -> Option<&'a [u8]> {
        self.document(first!(self.raw, document_key))
    }

    /// `fullDocument`, a BSON document; `None` when absent or null.
    pub fn full_document(&self) -> Option<&'a [u8]> {
        self.document(first!(self.raw, full_document))
    }

    /// `fullDocumentBeforeChange`, a BSON document; `None` when absent or null.
    pub fn full_document_before_change(&self) -> Option<&'a [u8]> {
        self.document(first!(self.raw, full_document_before_change))
    }

    /// `updateDescription`, a BSON document.
    pub fn update_description(&self) -> Option<&'a [u8]> {
        self.document(first!(self.raw, update_description))
    }

    /// The resume token, a BSON document. Opaque; prefer [`id`](Self::id).
    pub fn resume_token(&self) -> &'a [u8] {
        self.document(first!(self.raw, resume_token)).unwrap_or_default()
    }

    /// The event as JSON (UTF-8, one line), in the form the operator chose with `json = …` and in the
    /// `envelope` that goes with it: to look into it, take [`json_as`](Self::json_as). Made at most once for all outputs.
    ///
    /// # Errors
    /// Where the daemon cannot make it. `?` then gives the right verdict, see [`JsonError`].
    pub fn json(&self) -> Result<&'a [u8], JsonError> {
        self.json_abi(TW_JSON_CONFIGURED)
    }

    /// The event as JSON in this form and without an envelope, whatever the operator chose.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub fn json_as(&self, form: JsonForm) -> Result<&'a [u8], JsonError> {
        self.json_abi(match form {
            JsonForm::Relaxed => TW_JSON_RELAXED,
            JsonForm::Canonical => TW_JSON_CANONICAL,
            JsonForm::Plain => TW_JSON_PLAIN,
        })
    }

    fn json_abi(&self, form: tw_json_form) -> Result<&'a [u8], JsonError> {
        self.batch.json(self.index, form).map_err(|status| JsonError { index: self.index, status })
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id())
            .field("operation_type", &self.operation_type())
            .field("db", &self.db())
            .field("coll", &self.coll())
            .finish_non_exhaustive()
    }
}

/// Kind of change. [`Event::operation_type`] has the name where it is `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// A document was inserted.
    Insert,
    /// Fields of a document changed.
    Update,
    /// A document was replaced.
    Replace,
    /// A document was deleted.
    Delete,
    /// A collection was dropped.
    Drop,
    /// A collection was renamed.
    Rename,
    /// A database was dropped.
    DropDatabase,
    /// Anything else, also kinds that this version does not know.
    Other,
}

impl Op {
    fn from_abi(op: tw_op) -> Self {
        match op {
            TW_OP_INSERT => Self::Insert,
            TW_OP_UPDATE => Self::Update,
            TW_OP_REPLACE => Self::Replace,
            TW_OP_DELETE => Self::Delete,
            TW_OP_DROP => Self::Drop,
            TW_OP_RENAME => Self::Rename,
            TW_OP_DROP_DATABASE => Self::DropDatabase,
            _ => Self::Other,
        }
    }
}

/// A JSON form of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JsonForm {
    /// MongoDB Extended JSON v2, relaxed.
    Relaxed,
    /// MongoDB Extended JSON v2, canonical.
    Canonical,
    /// ObjectId as a hex string, dates as RFC 3339. Loses types.
    Plain,
}

/// The daemon could not make an event's JSON. Deliberately no [`std::error::Error`]: `?` turns it into the right verdict. Where
/// the event itself cannot be written as JSON it is rejected and the others of the batch are delivered again, instead of a
/// retry that can never end; where the daemon failed otherwise, all are delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    index: u32,
    status: tw_status,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            TW_E_DATA => f.write_str("making the event's JSON: it cannot be written as JSON, see the daemon's log"),
            status => write!(f, "making the event's JSON: the daemon answered {status}"),
        }
    }
}

impl JsonError {
    /// True where it is the event's own fault, so that no other try can succeed.
    pub fn is_permanent(&self) -> bool {
        self.status == TW_E_DATA
    }
}

impl From<JsonError> for Verdict {
    fn from(error: JsonError) -> Self {
        if error.is_permanent() { Self::reject(error) } else { Self::retry(error) }
    }
}

impl From<JsonError> for DeliverError {
    fn from(error: JsonError) -> Self {
        if !error.is_permanent() {
            return Self::retry(error);
        }
        let mut verdicts = Verdicts::new(Verdict::retry("an event of the same batch has no JSON"));
        verdicts.set_index(error.index, error.into());
        verdicts.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_event_that_cannot_be_written_is_rejected() {
        let rejected = |status| {
            let error = JsonError { index: 3, status };
            let retried = DeliverError::from(error) == DeliverError::retry(error);
            let verdict = Verdict::from(error);
            assert!(retried != matches!(verdict, Verdict::Reject { .. }), "{status}: {verdict:?}");
            !retried
        };
        assert!(rejected(TW_E_DATA));
        for status in [TW_E_INVALID, TW_E_UNSUPPORTED, TW_E_PANIC, TW_E_INTERNAL, -77] {
            assert!(!rejected(status), "{status}");
        }
    }
}
