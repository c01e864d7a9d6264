//! The snapshot: documents that are there already, read as events before the stream begins.
//!
//! A snapshot has a time T. Every row is read as of T or later (majority read, `afterClusterTime` T), and the stream that
//! follows begins at T, inclusive: what changes while the rows are read comes again as a change event, so that later changes
//! win. Collections are read in ranges of `_id`, a few at once; [`Progress`] is what of it is settled, and all that a start
//! after a crash needs.
//!
//! Reading order: [`range`], [`progress`], [`mod@plan`] (which collections, cut where), [`cursor`] (one range), [`reader`].
//! Knows no lanes, no outputs and no checkpoint store.

pub mod cursor;
pub mod metrics;
pub mod plan;
pub mod progress;
pub mod range;
pub mod reader;
pub mod row;

pub use self::plan::plan;
pub use self::progress::Progress;
pub use self::range::RangeNumber;
pub use self::reader::{RANGES_AT_ONCE, Read, SnapshotReader};
pub use self::row::{Row, RowId};

/// Why a snapshot cannot begin or go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// What was asked for is not there or is not watched. A retry does not help.
    #[error("choose what to read: {0}")]
    Chosen(String),
    /// Trouble of the kind that passes: a lost connection, an election. Only before reading has begun; a reader tries again
    /// by itself. A retry helps.
    #[error("{what}: {reason}")]
    Passing {
        /// What was being done.
        what: String,
        /// The driver's words.
        reason: String,
    },
    /// The server refuses for good. A retry does not help.
    #[error("{what}: {reason}")]
    Refused {
        /// What was being done.
        what: String,
        /// The server's words, and what to do.
        reason: String,
    },
    /// The server sent what is no document of a collection. A retry does not help.
    #[error("read a document of {ns} for the snapshot: {reason}")]
    Undecodable {
        /// `db.collection`.
        ns: String,
        /// What is wrong.
        reason: String,
    },
    /// The reading tasks are gone without a word. A new reader helps.
    #[error("the snapshot's reading ended before it was complete")]
    Ended,
}
