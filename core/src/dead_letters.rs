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
    /// The bound is reached. Nothing was written. A retry helps when an operator has made room, or letters have expired.
    #[error(
        "dead letters are full: {bytes} more bytes do not fit beside {used} of dead_letters.bytes_max = {bytes_max}; replay or \
         drop some, or raise dead_letters.bytes_max"
    )]
    Full {
        /// What the letters there are take.
        used: u64,
        /// What the new ones would take in addition.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The store did not take it. A retry may help.
    #[error("write dead letters: {0}")]
    Store(String),
}
