//! What the engine answers its shell: what became of an event, what leaves, and what is to be counted, said and done.

use std::time::Duration;

use crate::dead_letters::Kind;
use crate::event::EventId;
use crate::lane::settle::Ticket;
use crate::plugin::Delivered;

/// What became of an event that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is on its way.
    Queued,
    /// The same, and an older event of its document need not be delivered any more.
    Superseded,
    /// `match` leaves it out.
    Filtered,
    /// It is older than `backlog.max_age`.
    TooOld,
}

/// A batch that leaves.
pub struct HandOut {
    /// Its number.
    pub delivery: u64,
    /// Its events.
    pub batch: Vec<Delivered>,
}

/// How a replayed event ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayEnd {
    /// Delivered: its letter may go.
    Acked,
    /// Refused again, or given up: its letter stays.
    Rejected {
        /// Why.
        reason: String,
        /// How often it was handed out by now, those before the replay included.
        attempts: u32,
    },
    /// The lane ended, or stopped, before it was done: its letter stays.
    Dropped,
}

/// An event that will not be delivered.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Which.
    pub id: EventId,
    /// How it came to that.
    pub kind: Kind,
    /// Why.
    pub reason: String,
}

/// What the shell has to count, to say and to do.
#[derive(Debug, Default)]
pub struct Effects {
    /// Live events acknowledged.
    pub acked: usize,
    /// Events that are to be delivered again.
    pub retried: usize,
    /// The first reason given for that.
    pub retry_reason: Option<String>,
    /// Live events refused; what becomes of them is decided already.
    pub refused: Vec<Refused>,
    /// Events skipped by `backlog.max_age`.
    pub too_old: usize,
    /// Events skipped by `backlog.keep`.
    pub superseded: usize,
    /// Replays that are done.
    pub replays: Vec<(Ticket, ReplayEnd)>,
    /// The output pauses from now on for so long.
    pub pause: Option<Duration>,
    /// The output has stopped.
    pub stop: Option<String>,
    /// The instance must be replaced.
    pub failed: Option<String>,
}
