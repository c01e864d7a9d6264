//! A batch as the plugin sees it: the C structs, and the events they point into, kept together until the token is completed.

use std::mem::size_of;
use std::sync::Arc;
use std::time::Duration;

use bson::RawDocument;
use tailwater_abi::{
    TW_EVENT_IN_TRANSACTION, TW_EVENT_REDELIVERY, TW_OP_DELETE, TW_OP_DROP, TW_OP_DROP_DATABASE, TW_OP_INSERT,
    TW_OP_OTHER, TW_OP_RENAME, TW_OP_REPLACE, TW_OP_UPDATE, tw_batch, tw_event, tw_slice, tw_str,
};

use crate::event::{Event, EventId};

/// An event on its way to a plugin.
#[derive(Clone)]
pub struct Delivered {
    /// The event, shared with the window and the other outputs.
    pub event: Arc<Event>,
    /// 1 on first delivery.
    pub attempt: u32,
}

/// The memory of one delivery. Its addresses do not change while it lives: everything is behind a [`Vec`] or an [`Arc`]. No
/// `Box`: to move one ends the right to read through pointers taken before.
pub(crate) struct Batch {
    events: Vec<Arc<Event>>,
    /// The `EventId`s that the `tw_event`s point to.
    _ids: Vec<EventId>,
    _border: Vec<tw_event>,
    /// Exactly one.
    head: Vec<tw_batch>,
}

// SAFETY: the raw pointers lead into `events`, `_ids` and `_border`, which this struct owns and nobody writes.
unsafe impl Send for Batch {}
// SAFETY: as above; nothing is mutable after construction.
unsafe impl Sync for Batch {}

impl Batch {
    pub(crate) fn new(delivered: Vec<Delivered>, timeout: Duration) -> Self {
        let ids: Vec<EventId> = delivered.iter().map(|d| *d.event.id()).collect();
        let border: Vec<tw_event> = delivered.iter().zip(&ids).map(|(d, id)| describe(d, id)).collect();
        let head = vec![tw_batch {
            struct_size: size_of::<tw_batch>() as u32,
            event_stride: size_of::<tw_event>() as u32,
            len: border.len() as u32,
            reserved0: 0,
            bytes: delivered.iter().map(|d| d.event.raw().as_bytes().len() as u64).sum(),
            events: border.as_ptr().cast(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        }];
        Self { events: delivered.into_iter().map(|d| d.event).collect(), _ids: ids, _border: border, head }
    }

    /// What `deliver` is given.
    pub(crate) fn border(&self) -> *const tw_batch {
        self.head.as_ptr()
    }

    pub(crate) fn len(&self) -> u32 {
        self.events.len() as u32
    }

    pub(crate) fn event(&self, index: u32) -> Option<&Arc<Event>> {
        self.events.get(index as usize)
    }
}

fn describe(delivered: &Delivered, id: &EventId) -> tw_event {
    let event = &delivered.event;
    let mut flags = 0;
    if delivered.attempt > 1 {
        flags |= TW_EVENT_REDELIVERY;
    }
    if event.in_transaction() {
        flags |= TW_EVENT_IN_TRANSACTION;
    }
    tw_event {
        id: tw_str::new(id.as_str()),
        key: event.key().map_or(0, std::num::NonZeroU64::get),
        op: op_of(event.operation_type()),
        flags,
        attempt: delivered.attempt,
        reserved0: 0,
        cluster_time: event.token().position().time.0,
        wall_time_ms: event.wall_time_ms().unwrap_or(0),
        operation_type: tw_str::new(event.operation_type()),
        db: tw_str::new(event.db()),
        coll: tw_str::new(event.coll()),
        raw: tw_slice::new(event.raw().as_bytes()),
        document_key: document(event.document_key()),
        full_document: document(event.full_document()),
        full_document_before_change: document(event.full_document_before_change()),
        update_description: document(event.update_description()),
        resume_token: document(Some(event.token().document())),
    }
}

fn document(document: Option<&RawDocument>) -> tw_slice {
    document.map_or(tw_slice::NONE, |document| tw_slice::new(document.as_bytes()))
}

fn op_of(operation_type: &str) -> u32 {
    match operation_type {
        "insert" => TW_OP_INSERT,
        "update" => TW_OP_UPDATE,
        "replace" => TW_OP_REPLACE,
        "delete" => TW_OP_DELETE,
        "drop" => TW_OP_DROP,
        "rename" => TW_OP_RENAME,
        "dropDatabase" => TW_OP_DROP_DATABASE,
        _ => TW_OP_OTHER,
    }
}
