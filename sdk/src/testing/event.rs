//! A change event for a test.

use std::sync::atomic::{AtomicU32, Ordering};

use tailwater_abi::*;

/// A change event as a test wants it. BSON is given as bytes, so that a plugin needs no BSON library for it.
#[derive(Debug, Clone)]
pub struct TestEvent {
    /// Event id.
    pub id: String,
    /// Ordering key; 0 = the event has no document.
    pub key: u64,
    /// The server's name of the kind of change.
    pub operation_type: String,
    /// Database.
    pub db: String,
    /// Collection.
    pub coll: String,
    /// 1 on first delivery; more also marks the event as a redelivery.
    pub attempt: u32,
    /// Seconds in the high half, increment in the low.
    pub cluster_time: u64,
    /// Milliseconds since the Unix epoch; 0 where the server did not say.
    pub wall_time_ms: i64,
    /// The whole event as BSON. Where it is the empty document, delivery makes it of `json`, in which Extended JSON is understood.
    pub raw: Vec<u8>,
    /// `documentKey` as BSON.
    pub document_key: Option<Vec<u8>>,
    /// `fullDocument` as BSON.
    pub full_document: Option<Vec<u8>>,
    /// The event as JSON, whatever the form. `None`: the host cannot make it.
    pub json: Option<String>,
}

/// The empty BSON document.
const EMPTY: [u8; 5] = [5, 0, 0, 0, 0];

impl TestEvent {
    /// An event with an id of its own, the empty BSON document, and a JSON that names id, kind and namespace.
    pub fn new(operation_type: &str, db: &str, coll: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cluster_time = (1_700_000_000 << 32) | u64::from(number);
        let id = format!("{cluster_time:016x}-{:08x}{number:08x}", 0);
        let json = serde_json::json!({
            "id": id, "operationType": operation_type, "ns": { "db": db, "coll": coll },
        });
        Self {
            id,
            key: u64::from(number),
            operation_type: operation_type.to_owned(),
            db: db.to_owned(),
            coll: coll.to_owned(),
            attempt: 1,
            cluster_time,
            wall_time_ms: 1_700_000_000_000,
            raw: EMPTY.to_vec(),
            document_key: None,
            full_document: None,
            json: Some(json.to_string()),
        }
    }

    /// With this JSON.
    pub fn json(mut self, json: &str) -> Self {
        self.json = Some(json.to_owned());
        self
    }

    /// With this attempt.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Makes the BSON of the JSON where only that was given, so that both say the same.
    pub(super) fn fill_raw(&mut self) {
        let json = self.json.as_deref().filter(|_| self.raw == EMPTY);
        let object = json.and_then(|json| serde_json::from_str::<serde_json::Map<_, _>>(json).ok());
        let document = object.and_then(|object| bson::Document::try_from(object).ok());
        if let Some(raw) = document.and_then(|document| document.to_vec().ok()) {
            self.raw = raw;
        }
    }

    /// Borrows from `self`, which must outlive every use.
    pub(super) fn as_abi(&self) -> tw_event {
        let optional = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or(tw_slice::NONE, tw_slice::new);
        tw_event {
            id: tw_str::new(&self.id),
            key: self.key,
            op: match self.operation_type.as_str() {
                "insert" => TW_OP_INSERT,
                "update" => TW_OP_UPDATE,
                "replace" => TW_OP_REPLACE,
                "delete" => TW_OP_DELETE,
                "drop" => TW_OP_DROP,
                "rename" => TW_OP_RENAME,
                "dropDatabase" => TW_OP_DROP_DATABASE,
                _ => TW_OP_OTHER,
            },
            flags: if self.attempt > 1 { TW_EVENT_REDELIVERY } else { 0 },
            attempt: self.attempt,
            reserved0: 0,
            cluster_time: self.cluster_time,
            wall_time_ms: self.wall_time_ms,
            operation_type: tw_str::new(&self.operation_type),
            db: tw_str::new(&self.db),
            coll: tw_str::new(&self.coll),
            raw: tw_slice::new(&self.raw),
            document_key: optional(&self.document_key),
            full_document: optional(&self.full_document),
            full_document_before_change: tw_slice::NONE,
            update_description: tw_slice::NONE,
            resume_token: tw_slice::new(&EMPTY),
        }
    }
}
