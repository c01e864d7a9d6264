//! Dead letters: events that an output could not deliver, and why.

use std::sync::Arc;

use crate::event::{Event, EventId};

/// How an event became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The plugin refused it.
    Rejected,
    /// It was tried for `retry.give_up_after`.
    GivenUp,
    /// It cannot be delivered as it is; only a stub of it could be read.
    Poison,
    /// History that MongoDB no longer has.
    Gap,
}

/// An event that an output did not deliver.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The output.
    pub output: String,
    /// The event's id.
    pub id: EventId,
    /// How it came here.
    pub kind: Kind,
    /// For people.
    pub reason: String,
    /// How often it was handed out.
    pub attempts: u32,
    /// The event, or its stub.
    pub event: Arc<Event>,
}

/// Why a letter could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// `dead_letters.bytes_max` is reached. A retry does not help until letters are dropped or replayed.
    #[error("the dead letters are full: they hold {bytes} of {bytes_max} bytes")]
    Full {
        /// What they hold.
        bytes: u64,
        /// What they may hold.
        bytes_max: u64,
    },
    /// The store did not take it. A retry may help.
    #[error("write dead letters: {0}")]
    Store(String),
}
